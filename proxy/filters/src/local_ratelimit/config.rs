//! `LocalRateLimit` validated.

use std::collections::HashSet;
use std::time::Duration;

use dhow_base::{ConfigError, FieldPath};
use dhow_proto::envoy::config::core::v3::{HeaderValueOption, RuntimeFractionalPercent};
use dhow_proto::envoy::config::route::v3::{RateLimit, rate_limit::HitsAddend};
use dhow_proto::envoy::extensions::common::ratelimit::v3::rate_limit_descriptor::Entry;
use dhow_proto::envoy::extensions::common::ratelimit::v3::{
    LocalClusterRateLimit, LocalRateLimitDescriptor, VhRateLimitsOptions, XRateLimitHeadersRfcVersion,
};
use dhow_proto::envoy::extensions::filters::http::local_ratelimit::v3::LocalRateLimit;
use dhow_proto::envoy::r#type::v3::{HttpStatus, TokenBucket as BucketMessage};
use dhow_proto::google::protobuf::{Any, BoolValue, Duration as DurationMessage, UInt32Value};
use dhow_routing::{HeaderMutations, RateLimitRule, RuntimeFraction};
use dhow_stats::Store;

use super::bucket::BucketSize;
use super::filter::LimitStats;
use super::limiter::{DescriptorPlan, Entries, Limiter, LimiterPlan};

/// Envoy's shortest fill interval.
const SHORTEST_FILL: Duration = Duration::from_millis(50);
/// What is said of a shorter one of the filter.
pub(crate) const FILL_TIMER: &str = "local rate limit token bucket fill timer must be >= 50ms";
/// What is said of a shorter one of a descriptor.
const DESCRIPTOR_FILL_TIMER: &str = "local rate limit descriptor token bucket fill timer must be >= 50ms";
/// Default of `max_dynamic_descriptors`.
const MAX_DYNAMIC_DESCRIPTORS: usize = 20;

/// One limit, of the filter or of a route.
#[derive(Debug)]
pub(super) struct Limit {
    pub(super) stats: LimitStats,
    /// Status of the refusal.
    pub(super) status: u16,
    /// What limiters of connections are made of; none: all requests share `limiter`.
    pub(super) per_connection: Option<LimiterPlan>,
    pub(super) limiter: Limiter,
    /// `local_cluster_rate_limit`: the tokens are those of all hosts of the local cluster together.
    pub(super) shared: bool,
    /// Where descriptors come from; none: there are no buckets for them.
    pub(super) actions: Option<Actions>,
    /// Share of the requests that are looked at; none: no request.
    pub(super) enabled: Option<RuntimeFraction>,
    /// Share of the requests over the limit that are refused; none: no request.
    pub(super) enforced: Option<RuntimeFraction>,
    pub(super) request_headers_when_not_enforced: HeaderMutations,
    pub(super) response_headers: HeaderMutations,
    /// Whether responses tell about the bucket in `x-ratelimit-*`.
    pub(super) tells_bucket: bool,
    pub(super) resource_exhausted: bool,
    /// Whether refusals carry `retry-after`.
    pub(super) retry_after: bool,
}

/// Where descriptors come from.
#[derive(Debug)]
pub(super) enum Actions {
    /// `rate_limits`.
    Own(Box<[RateLimitRule]>),
    /// The `rate_limits` of the route, and of its virtual host.
    OfRoute { stage: u32, vh: VhRateLimitsOptions },
}

impl Limit {
    /// Reads the message; what it counts is in `store`. A route's limit must have a bucket.
    pub(super) fn read(
        config: &Any,
        store: &Store,
        path: &FieldPath,
        of_route: bool,
    ) -> Result<Self, ConfigError> {
        let LocalRateLimit {
            stat_prefix,
            status,
            token_bucket,
            filter_enabled,
            filter_enforced,
            request_headers_to_add_when_not_enforced,
            response_headers_to_add,
            descriptors,
            stage,
            local_rate_limit_per_downstream_connection,
            local_cluster_rate_limit,
            enable_x_ratelimit_headers,
            vh_rate_limits,
            always_consume_default_token_bucket,
            rate_limited_as_resource_exhausted,
            rate_limits,
            max_dynamic_descriptors,
            enable_retry_after_header,
        } = dhow_proto::any::unpack(config).map_err(|error| error.under(path))?;
        if stat_prefix.is_empty() {
            let reason = "value length must be at least 1 characters";
            return Err(ConfigError::new(path.field("stat_prefix"), reason));
        }
        if of_route && token_bucket.is_none() {
            let reason = "local rate limit token bucket must be set for per filter configs";
            return Err(ConfigError::new(path.field("token_bucket"), reason));
        }
        let fraction = |message: Option<RuntimeFractionalPercent>, field| {
            message.map(|message| RuntimeFraction::compile(&message, &path.field(field))).transpose()
        };
        let headers =
            |add: &[HeaderValueOption], field| HeaderMutations::compile(add, &path.field(field), &[], path);
        let versions = XRateLimitHeadersRfcVersion::try_from(enable_x_ratelimit_headers);
        // Statuses that are no errors are replaced, as in Envoy.
        let status = status.map(|HttpStatus { code }| code).filter(|code| (400..600).contains(code));
        let plan = LimiterPlan {
            default: token_bucket
                .map(|bucket| read_bucket(bucket, &path.field("token_bucket"), FILL_TIMER))
                .transpose()?,
            descriptors: read_descriptors(descriptors, &path.field("descriptors"))?,
            always_default: always_consume_default_token_bucket.is_none_or(|BoolValue { value }| value),
            max_dynamic: max_dynamic_descriptors
                .map_or(MAX_DYNAMIC_DESCRIPTORS, |UInt32Value { value }| value as usize),
        };
        let vh = VhRateLimitsOptions::try_from(vh_rate_limits).unwrap_or_default();
        let actions = match own_actions(&rate_limits, &path.field("rate_limits"))? {
            own if !own.is_empty() => Actions::Own(own),
            _ => Actions::OfRoute { stage, vh },
        };
        Ok(Self {
            stats: store.scope(&format!("{stat_prefix}.http_local_rate_limit")).group(),
            status: status.unwrap_or(429) as u16,
            actions: (!plan.descriptors.is_empty()).then_some(actions),
            shared: local_cluster_rate_limit.map(|LocalClusterRateLimit {}| ()).is_some(),
            limiter: Limiter::new(&plan),
            per_connection: local_rate_limit_per_downstream_connection.then_some(plan),
            enabled: fraction(filter_enabled, "filter_enabled")?,
            enforced: fraction(filter_enforced, "filter_enforced")?,
            request_headers_when_not_enforced: headers(
                &request_headers_to_add_when_not_enforced,
                "request_headers_to_add_when_not_enforced",
            )?,
            response_headers: headers(&response_headers_to_add, "response_headers_to_add")?,
            tells_bucket: versions == Ok(XRateLimitHeadersRfcVersion::DraftVersion03),
            resource_exhausted: rate_limited_as_resource_exhausted,
            retry_after: enable_retry_after_header,
        })
    }
}

fn own_actions(messages: &[RateLimit], path: &FieldPath) -> Result<Box<[RateLimitRule]>, ConfigError> {
    for (at, message) in messages.iter().enumerate() {
        let error = |reason: &str| Err(ConfigError::new(path.index(at), reason));
        if message.stage.is_some() || !message.disable_key.is_empty() {
            return error("'stage' field and 'disable_key' field are not supported");
        }
        if message.limit.is_some() {
            return error("'limit' field is not supported");
        }
        let says_nothing = |hits: &HitsAddend| hits.number.is_none() && hits.format.is_empty();
        if message.hits_addend.as_ref().is_some_and(says_nothing) {
            return error("hits_addend must contain either a format or a number");
        }
    }
    RateLimitRule::compile_all(messages, path)
}

fn read_descriptors(
    messages: Vec<LocalRateLimitDescriptor>,
    path: &FieldPath,
) -> Result<Box<[DescriptorPlan]>, ConfigError> {
    let mut seen = HashSet::new();
    let read = |(at, message)| {
        let path: FieldPath = path.index(at);
        let LocalRateLimitDescriptor { entries, token_bucket, shadow_mode } = message;
        let entries: Entries = entries.into_iter().map(|Entry { key, value }| (key, value)).collect();
        let Some(bucket) = token_bucket else {
            return Err(ConfigError::new(path.field("token_bucket"), "value is required"));
        };
        let size = read_bucket(bucket, &path.field("token_bucket"), DESCRIPTOR_FILL_TIMER)?;
        if !seen.insert(entries.clone()) {
            let words: Vec<_> = entries.iter().map(|(key, value)| format!("{key}={value}")).collect();
            let reason = format!("duplicate descriptor in the local rate descriptor: {}", words.join(", "));
            return Err(ConfigError::new(path, reason));
        }
        Ok(DescriptorPlan { entries, size, shadow: shadow_mode })
    };
    messages.into_iter().enumerate().map(read).collect()
}

/// Reads the size of a bucket; `too_short` is what is said of a fill interval that is.
pub(crate) fn read_bucket(
    message: BucketMessage,
    path: &FieldPath,
    too_short: &str,
) -> Result<BucketSize, ConfigError> {
    let BucketMessage { max_tokens, tokens_per_fill, fill_interval } = message;
    let error = |field: &str, reason: &str| Err(ConfigError::new(path.field(field), reason));
    let tokens_per_fill = tokens_per_fill.map_or(1, |UInt32Value { value }| value);
    if tokens_per_fill == 0 {
        return error("tokens_per_fill", "value must be greater than 0");
    }
    let interval = match fill_interval {
        None => return error("fill_interval", "value is required"),
        Some(DurationMessage { seconds: ..0, .. } | DurationMessage { nanos: ..0, .. }) => {
            return error("fill_interval", "value must be greater than 0s");
        }
        Some(interval) => dhow_proto::whole_millis(&interval),
    };
    if interval < SHORTEST_FILL {
        return error("fill_interval", too_short);
    }
    Ok(BucketSize { max_tokens, tokens_per_fill, fill_interval: interval })
}
