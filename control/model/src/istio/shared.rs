//! Value types that several kinds share: string matches, destinations, durations, percentages, selectors.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Deserializer, de};

/// `StringMatch`: how one string is compared. An empty object means "present", as Istio reads it for headers.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Deserialize)]
#[serde(try_from = "StringMatchFields")]
pub enum StringMatch {
    /// No form was given: the value only has to be there.
    Present,
    /// The whole value, byte for byte.
    Exact(String),
    /// The beginning of the value.
    Prefix(String),
    /// An RE2 expression that must match the whole value.
    Regex(String),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct StringMatchFields {
    exact: Option<String>,
    prefix: Option<String>,
    regex: Option<String>,
}

impl TryFrom<StringMatchFields> for StringMatch {
    type Error = &'static str;

    fn try_from(fields: StringMatchFields) -> Result<Self, Self::Error> {
        match (fields.exact, fields.prefix, fields.regex) {
            (None, None, None) => Ok(Self::Present),
            (Some(exact), None, None) => Ok(Self::Exact(exact)),
            (None, Some(prefix), None) => Ok(Self::Prefix(prefix)),
            (None, None, Some(regex)) => Ok(Self::Regex(regex)),
            _ => Err("only one of exact, prefix and regex may be set"),
        }
    }
}

/// `Destination`: a service of the registry, optionally one subset and one port of it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Destination {
    /// Host name, fully qualified or relative to the namespace of the object.
    pub host: String,
    /// Name of a subset of the host's DestinationRule.
    pub subset: Option<String>,
    /// Port of the service; absent means the listener's port, or the only port of the service.
    pub port: Option<PortSelector>,
}

/// `PortSelector`: a port by number.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PortSelector {
    /// 1 to 65535.
    pub number: u32,
}

/// `Percent`: 0.0 to 100.0.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Percent {
    /// The percentage itself.
    pub value: f64,
}

/// `WorkloadSelector` of `networking.istio.io`: labels that a workload must carry, all of them.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct WorkloadSelector {
    /// Label names and values; empty selects every workload of the namespace.
    #[serde(alias = "matchLabels")]
    pub labels: BTreeMap<String, String>,
}

/// A duration in Go's notation (`7s`, `1.5s`, `100ms`, `1h30m`), never negative.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct GoDuration(pub Duration);

impl GoDuration {
    /// Reads Go's notation. The error says what is wrong with the text.
    pub fn parse(text: &str) -> Result<Self, String> {
        if text == "0" {
            return Ok(Self(Duration::ZERO));
        }
        if text.starts_with('-') {
            return Err(format!("duration {text:?} must not be negative"));
        }
        let mut rest = text.strip_prefix('+').unwrap_or(text);
        if rest.is_empty() {
            return Err(format!("{text:?} is not a duration such as 5s or 100ms"));
        }
        let mut seconds = 0f64;
        while !rest.is_empty() {
            let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
            let unit_end = rest[digits..]
                .find(|c: char| c.is_ascii_digit() || c == '.')
                .map_or(rest.len(), |at| digits + at);
            let amount: f64 =
                rest[..digits].parse().map_err(|_| format!("{text:?} is not a duration such as 5s"))?;
            let scale = match &rest[digits..unit_end] {
                "ns" => 1e-9,
                "us" | "µs" | "μs" => 1e-6,
                "ms" => 1e-3,
                "s" => 1.0,
                "m" => 60.0,
                "h" => 3600.0,
                "" => return Err(format!("duration {text:?} lacks a unit (ns, us, ms, s, m, h)")),
                unit => return Err(format!("unknown unit {unit:?} in duration {text:?}")),
            };
            seconds += amount * scale;
            rest = &rest[unit_end..];
        }
        Duration::try_from_secs_f64((seconds * 1e9).round() / 1e9)
            .map(Self)
            .map_err(|_| format!("duration {text:?} is out of range"))
    }
}

impl<'de> Deserialize<'de> for GoDuration {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse(&text).map_err(de::Error::custom)
    }
}
