//! The small messages that every resource is made of: addresses, durations, metadata, config sources.

use std::collections::HashMap;
use std::time::Duration;

use dhow_control_model::Meta;
use dhow_control_model::istio::{GoDuration, Percent, StringMatch};
use dhow_proto::envoy::config::core::v3 as core;
use dhow_proto::envoy::r#type::matcher::v3 as matcher;
use dhow_proto::envoy::r#type::v3 as types;
use dhow_proto::google::protobuf as wkt;
use dhow_proto::{Message, Name};

pub(crate) fn any<M: Message + Name>(message: &M) -> wkt::Any {
    wkt::Any { type_url: M::type_url(), value: message.encode_to_vec() }
}

pub(crate) fn duration(value: Duration) -> wkt::Duration {
    // Durations of configuration are far below the limits of the message.
    let seconds = i64::try_from(value.as_secs()).unwrap_or(i64::MAX);
    wkt::Duration { seconds, nanos: i32::try_from(value.subsec_nanos()).unwrap_or(0) }
}

pub(crate) fn go_duration(value: GoDuration) -> wkt::Duration {
    duration(value.0)
}

pub(crate) const ZERO: wkt::Duration = wkt::Duration { seconds: 0, nanos: 0 };

pub(crate) const fn number(value: u32) -> Option<wkt::UInt32Value> {
    Some(wkt::UInt32Value { value })
}

pub(crate) const fn truth(value: bool) -> Option<wkt::BoolValue> {
    Some(wkt::BoolValue { value })
}

/// An address: an IP with a port, or `unix://` with a path.
pub(crate) fn address(host: &str, port: u32) -> core::Address {
    let address = match host.strip_prefix("unix://") {
        Some(path) => core::address::Address::Pipe(core::Pipe { path: path.to_owned(), mode: 0 }),
        None => core::address::Address::SocketAddress(socket_address(host, port)),
    };
    core::Address { address: Some(address) }
}

pub(crate) fn socket_address(host: &str, port: u32) -> core::SocketAddress {
    core::SocketAddress {
        address: host.to_owned(),
        port_specifier: Some(core::socket_address::PortSpecifier::PortValue(port)),
        ..core::SocketAddress::default()
    }
}

/// The stream that the proxy is connected with.
pub(crate) fn ads() -> core::ConfigSource {
    core::ConfigSource {
        initial_fetch_timeout: Some(ZERO),
        resource_api_version: core::ApiVersion::V3.into(),
        config_source_specifier: Some(core::config_source::ConfigSourceSpecifier::Ads(
            core::AggregatedConfigSource {},
        )),
        ..core::ConfigSource::default()
    }
}

pub(crate) fn string_value(text: &str) -> wkt::Value {
    wkt::Value { kind: Some(wkt::value::Kind::StringValue(text.to_owned())) }
}

pub(crate) fn structure<'a>(fields: impl IntoIterator<Item = (&'a str, wkt::Value)>) -> wkt::Struct {
    wkt::Struct { fields: fields.into_iter().map(|(name, value)| (name.to_owned(), value)).collect() }
}

/// Metadata under Istio's key.
pub(crate) fn istio_metadata<'a>(fields: impl IntoIterator<Item = (&'a str, wkt::Value)>) -> core::Metadata {
    core::Metadata {
        filter_metadata: HashMap::from([("istio".to_owned(), structure(fields))]),
        ..core::Metadata::default()
    }
}

/// Metadata that says which object a resource comes from.
pub(crate) fn origin_metadata(meta: &Meta) -> core::Metadata {
    istio_metadata([("config", string_value(&meta.resource_path()))])
}

pub(crate) fn regex(pattern: &str) -> matcher::RegexMatcher {
    matcher::RegexMatcher { regex: pattern.to_owned(), engine_type: None }
}

/// `None` when anything matches that is there.
pub(crate) fn string_matcher(value: &StringMatch) -> Option<matcher::StringMatcher> {
    use matcher::string_matcher::MatchPattern;
    let pattern = match value {
        StringMatch::Present => return None,
        StringMatch::Exact(text) => MatchPattern::Exact(text.clone()),
        StringMatch::Prefix(text) => MatchPattern::Prefix(text.clone()),
        // "Anything" is what the star alone means, as a shorthand of Istio's.
        StringMatch::Regex(text) if text == "*" => return None,
        StringMatch::Regex(text) => MatchPattern::SafeRegex(regex(text)),
    };
    Some(matcher::StringMatcher { match_pattern: Some(pattern), ignore_case: false })
}

/// Millionths keep four decimals of a percentage.
pub(crate) fn fraction(percent: f64) -> types::FractionalPercent {
    types::FractionalPercent {
        numerator: (percent.clamp(0.0, 100.0) * 10_000.0).round() as u32,
        denominator: types::fractional_percent::DenominatorType::Million.into(),
    }
}

pub(crate) fn fraction_of(percent: Option<&Percent>) -> types::FractionalPercent {
    fraction(percent.map_or(100.0, |percent| percent.value))
}

pub(crate) fn file(path: &str) -> core::DataSource {
    core::DataSource {
        specifier: Some(core::data_source::Specifier::Filename(path.to_owned())),
        ..core::DataSource::default()
    }
}

/// A range of addresses; a single address is a range of its own.
pub(crate) fn cidr(text: &str) -> Option<core::CidrRange> {
    let (address, bits) = match text.split_once('/') {
        Some((address, bits)) => (address, bits.parse().ok()?),
        None => (text, if text.contains(':') { 128 } else { 32 }),
    };
    address.parse::<std::net::IpAddr>().ok()?;
    Some(core::CidrRange { address_prefix: address.to_owned(), prefix_len: number(bits) })
}
