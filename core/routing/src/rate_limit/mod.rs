//! `RateLimit` of routes and virtual hosts: which descriptors a request has. Whether they are over a limit is for filters to say.

mod action;
mod extension;
mod metadata_key;

use std::sync::Arc;

use dhow_base::{ConfigError, FieldPath};
use dhow_expr::{Format, FormatContext, MetadataSource};
use dhow_http::HeaderMap;
use dhow_matching::generic::MatchData;
use dhow_proto::envoy::r#type::v3::RateLimitUnit as RateLimitUnitMessage;

use self::action::{Outcome, RateLimitAction};
use self::metadata_key::MetadataPath;
use crate::pb::core::Metadata;
use crate::pb::protobuf::{UInt64Value, value::Kind};
use crate::pb::route::RateLimit as Message;
use crate::pb::route::rate_limit::r#override::{DynamicMetadata, OverrideSpecifier, RateLimitOverride};
use crate::pb::route::rate_limit::{HitsAddend, Override, XRateLimitOption};

/// What descriptors are made of.
#[derive(Clone, Copy)]
pub struct RateLimitInput<'a> {
    /// The request.
    pub headers: &'a HeaderMap,
    /// Everything else: the client's address, dynamic metadata.
    pub context: &'a dyn FormatContext,
    /// The same, as inputs of matchers see it.
    pub data: &'a dyn MatchData,
    /// `node.cluster`: the cluster that this proxy belongs to.
    pub source_cluster: &'a str,
    /// The cluster that the request goes to; empty when the route names none.
    pub destination_cluster: &'a str,
    /// The route's metadata.
    pub route_metadata: Option<&'a Metadata>,
    /// The metadata of a cluster, which few descriptors ask for.
    pub cluster_metadata: &'a dyn Fn(&str) -> Option<Arc<Metadata>>,
}

/// The most hits that a format may give, the limit that Envoy's rules set to a number too.
const MOST_HITS: f64 = 1e9;

/// A descriptor: keys with values, in order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RateLimitDescriptor {
    /// The entries.
    pub entries: Vec<(String, String)>,
    /// How many hits the request counts for; `None`: the filter's choice, which is one.
    pub hits_addend: Option<u64>,
    /// Whether the hits are given back instead of taken.
    pub negative_hits: bool,
    /// A limit in place of the service's.
    pub limit: Option<RateLimitUnit>,
}

/// Requests per unit of time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RateLimitUnit {
    /// How many.
    pub requests: u32,
    /// `SECOND`, `MINUTE`, `HOUR`, `DAY`, `WEEK`, `MONTH` or `YEAR`.
    pub unit: Box<str>,
}

/// Whether the `x-ratelimit-*` headers tell about a descriptor.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum XRateLimitHeaders {
    /// As the filter is configured.
    #[default]
    Unspecified,
    /// No.
    Off,
    /// Yes, in the form of version 03 of the draft.
    DraftVersion03,
}

/// A compiled `envoy.config.route.v3.RateLimit`.
#[derive(Clone, Debug)]
pub struct RateLimitRule {
    stage: u32,
    disable_key: Box<str>,
    actions: Box<[RateLimitAction]>,
    limit: Option<LimitSource>,
    hits: Option<Hits>,
    apply_on_stream_done: bool,
    headers: XRateLimitHeaders,
}

#[derive(Clone, Debug)]
struct Hits {
    amount: HitsAmount,
    /// They give back what was taken.
    negative: bool,
}

#[derive(Clone, Debug)]
enum HitsAmount {
    Number(u64),
    Format(Format),
}

/// Where a limit other than the service's comes from.
#[derive(Clone, Debug)]
enum LimitSource {
    Fixed(RateLimitUnit),
    DynamicMetadata(MetadataPath),
}

impl RateLimitRule {
    /// Compiles the message.
    ///
    /// # Errors
    /// When there is no action, or one of them is not valid or not supported.
    pub fn compile(message: &Message, path: &FieldPath) -> Result<Self, ConfigError> {
        let Message {
            stage,
            disable_key,
            actions,
            limit,
            hits_addend,
            apply_on_stream_done,
            x_ratelimit_option,
        } = message;
        let stage = stage.as_ref().map_or(0, |wrapped| wrapped.value);
        if stage > 10 {
            return Err(ConfigError::new(path.field("stage"), "value must be less than or equal to 10"));
        }
        let actions_path = path.field("actions");
        if actions.is_empty() {
            return Err(ConfigError::new(actions_path, "value must contain at least 1 item(s)"));
        }
        let actions = actions.iter().enumerate();
        let actions = actions.map(|(at, action)| RateLimitAction::compile(action, &actions_path.index(at)));
        let headers = match XRateLimitOption::try_from(*x_ratelimit_option) {
            Ok(XRateLimitOption::Unspecified) => XRateLimitHeaders::Unspecified,
            Ok(XRateLimitOption::Off) => XRateLimitHeaders::Off,
            Ok(XRateLimitOption::DraftVersion03) => XRateLimitHeaders::DraftVersion03,
            Err(_) => {
                let reason = "value must be one of the defined enum values";
                return Err(ConfigError::new(path.field("x_ratelimit_option"), reason));
            }
        };
        Ok(Self {
            stage,
            disable_key: disable_key.as_str().into(),
            actions: actions.collect::<Result<_, _>>()?,
            limit: limit.as_ref().map(|limit| overriding_limit(limit, &path.field("limit"))).transpose()?,
            hits: hits(hits_addend.as_ref(), &path.field("hits_addend"))?,
            apply_on_stream_done: *apply_on_stream_done,
            headers,
        })
    }

    /// Compiles a list.
    ///
    /// # Errors
    /// As [`RateLimitRule::compile`], with the index in the path.
    pub fn compile_all(messages: &[Message], path: &FieldPath) -> Result<Box<[Self]>, ConfigError> {
        messages.iter().enumerate().map(|(at, message)| Self::compile(message, &path.index(at))).collect()
    }

    /// `stage`, 0 to 10: which of several filters looks at it.
    pub fn stage(&self) -> u32 {
        self.stage
    }

    /// `disable_key`: the runtime key `ratelimit.<key>.http_filter_enabled` is made of it; empty: none.
    pub fn disable_key(&self) -> &str {
        &self.disable_key
    }

    /// Whether it is counted when the stream is complete and not when the request comes.
    pub fn apply_on_stream_done(&self) -> bool {
        self.apply_on_stream_done
    }

    /// Whether the `x-ratelimit-*` headers tell about it.
    pub fn headers(&self) -> XRateLimitHeaders {
        self.headers
    }

    /// The entries of the request's descriptor; `None` when an action has no value for it.
    pub fn entries(&self, input: &RateLimitInput<'_>) -> Option<Vec<(String, String)>> {
        let mut entries = Vec::with_capacity(self.actions.len());
        for action in &self.actions {
            match action.entry(input) {
                Outcome::Entry(key, value) => entries.push((key, value)),
                Outcome::Skip => {}
                Outcome::NoDescriptor => return None,
            }
        }
        (!entries.is_empty()).then_some(entries)
    }

    /// The request's descriptor; `None` when an action has no value for it, or the number of hits is none.
    pub fn descriptor(&self, input: &RateLimitInput<'_>) -> Option<RateLimitDescriptor> {
        let entries = self.entries(input)?;
        let limit = match &self.limit {
            None => None,
            Some(LimitSource::Fixed(unit)) => Some(unit.clone()),
            Some(LimitSource::DynamicMetadata(path)) => limit_of(path, input),
        };
        let hits_addend = match self.hits.as_ref().map(|hits| &hits.amount) {
            None => None,
            Some(HitsAmount::Number(number)) => Some(*number),
            // What is no such number is a mistake, and there is no descriptor then.
            Some(HitsAmount::Format(format)) => {
                let text = format.to_bytes(input.context);
                let number = dhow_base::parse_double(std::str::from_utf8(&text).ok()?)?;
                Some((0.0..=MOST_HITS).contains(&number).then_some(number as u64)?)
            }
        };
        let negative_hits = self.hits.as_ref().is_some_and(|hits| hits.negative);
        Some(RateLimitDescriptor { entries, hits_addend, negative_hits, limit })
    }
}

fn overriding_limit(message: &Override, path: &FieldPath) -> Result<LimitSource, ConfigError> {
    let Override { override_specifier } = message;
    match override_specifier {
        Some(OverrideSpecifier::DynamicMetadata(DynamicMetadata { metadata_key })) => {
            let path = path.field("dynamic_metadata").field("metadata_key");
            MetadataPath::compile(metadata_key.as_ref(), &path).map(LimitSource::DynamicMetadata)
        }
        Some(OverrideSpecifier::RateLimit(RateLimitOverride { requests_per_unit, unit })) => {
            let path = path.field("rate_limit").field("unit");
            let unit = RateLimitUnitMessage::try_from(*unit)
                .map_err(|_| ConfigError::new(path, "value must be one of the defined enum values"))?;
            let unit = unit.as_str_name().into();
            Ok(LimitSource::Fixed(RateLimitUnit { requests: *requests_per_unit, unit }))
        }
        None => Err(ConfigError::new(path.field("override_specifier"), "is required")),
    }
}

fn hits(message: Option<&HitsAddend>, path: &FieldPath) -> Result<Option<Hits>, ConfigError> {
    let Some(HitsAddend { number, format, is_negative_hits }) = message else { return Ok(None) };
    let amount = match (number, format.as_str()) {
        (Some(UInt64Value { value }), "") => HitsAmount::Number(*value),
        (None, "") if !is_negative_hits => return Ok(None),
        (None, "") => HitsAmount::Number(1),
        (_, format) => {
            let format = Format::parse(format).map_err(|error| error.under(&path.field("format")))?;
            HitsAmount::Format(format.omitting_empty(true))
        }
    };
    Ok(Some(Hits { amount, negative: *is_negative_hits }))
}

fn limit_of(path: &MetadataPath, input: &RateLimitInput<'_>) -> Option<RateLimitUnit> {
    let fields = input.context.metadata(MetadataSource::Dynamic, path.namespace());
    let Kind::StructValue(limit) = path.find(fields)?.kind.as_ref()? else { return None };
    let Kind::NumberValue(requests) = limit.fields.get("requests_per_unit")?.kind.as_ref()? else {
        return None;
    };
    let Kind::StringValue(unit) = limit.fields.get("unit")?.kind.as_ref()? else { return None };
    Some(RateLimitUnit { requests: *requests as u32, unit: unit.as_str().into() })
}
