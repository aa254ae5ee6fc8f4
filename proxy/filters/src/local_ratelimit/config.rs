//! `LocalRateLimit` validated.

use std::sync::OnceLock;
use std::time::{Duration, Instant};

use dhow_base::{ConfigError, FieldPath};
use dhow_proto::envoy::config::core::v3::{HeaderValueOption, RuntimeFractionalPercent};
use dhow_proto::envoy::extensions::common::ratelimit::v3::XRateLimitHeadersRfcVersion;
use dhow_proto::envoy::extensions::filters::http::local_ratelimit::v3::LocalRateLimit;
use dhow_proto::envoy::r#type::v3::{HttpStatus, TokenBucket as BucketMessage};
use dhow_proto::google::protobuf::{Any, BoolValue, Duration as DurationMessage, UInt32Value};
use dhow_routing::{HeaderMutations, RuntimeFraction};

use super::bucket::TokenBucket;
use super::filter::LimitStats;

/// Envoy's shortest fill interval.
const SHORTEST_FILL: Duration = Duration::from_millis(50);

/// One limit, of the filter or of a route.
#[derive(Debug)]
pub(super) struct Limit {
    pub(super) stat_prefix: Box<str>,
    /// Registered with the filter, or on the first request of a route.
    pub(super) stats: OnceLock<LimitStats>,
    /// Status of the refusal.
    pub(super) status: u16,
    pub(super) bucket: Option<TokenBucket>,
    /// The moment that the bucket counts from.
    pub(super) start: Instant,
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

impl Limit {
    /// Reads the message. A route's limit must have a bucket.
    pub(super) fn read(config: &Any, path: &FieldPath, of_route: bool) -> Result<Self, ConfigError> {
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
        let refuse = |is_set: bool, field: &str| ConfigError::refuse_if(is_set, path, field);
        refuse(!descriptors.is_empty(), "descriptors")?;
        refuse(stage != 0, "stage")?;
        refuse(local_rate_limit_per_downstream_connection, "local_rate_limit_per_downstream_connection")?;
        refuse(local_cluster_rate_limit.is_some(), "local_cluster_rate_limit")?;
        refuse(vh_rate_limits != 0, "vh_rate_limits")?;
        let always = always_consume_default_token_bucket.is_none_or(|BoolValue { value }| value);
        refuse(!always, "always_consume_default_token_bucket")?;
        refuse(!rate_limits.is_empty(), "rate_limits")?;
        refuse(max_dynamic_descriptors.is_some(), "max_dynamic_descriptors")?;
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
        Ok(Self {
            stat_prefix: stat_prefix.into(),
            stats: OnceLock::new(),
            status: status.unwrap_or(429) as u16,
            bucket: token_bucket
                .map(|bucket| read_bucket(bucket, &path.field("token_bucket")))
                .transpose()?,
            start: Instant::now(),
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

fn read_bucket(message: BucketMessage, path: &FieldPath) -> Result<TokenBucket, ConfigError> {
    let BucketMessage { max_tokens, tokens_per_fill, fill_interval } = message;
    let error = |field: &str, reason: &str| Err(ConfigError::new(path.field(field), reason));
    if max_tokens == 0 {
        return error("max_tokens", "value must be greater than 0");
    }
    let tokens_per_fill = tokens_per_fill.map_or(1, |UInt32Value { value }| value);
    if tokens_per_fill == 0 {
        return error("tokens_per_fill", "value must be greater than 0");
    }
    let Some(DurationMessage { seconds, nanos }) = fill_interval else {
        return error("fill_interval", "value is required");
    };
    let interval = match (u64::try_from(seconds), u32::try_from(nanos)) {
        (Ok(seconds), Ok(nanos @ 0..1_000_000_000)) => Duration::new(seconds, nanos),
        _ => return error("fill_interval", "value must be greater than 0s"),
    };
    if interval < SHORTEST_FILL {
        return error("fill_interval", "local rate limit token bucket fill timer must be >= 50ms");
    }
    Ok(TokenBucket::new(max_tokens, tokens_per_fill, interval))
}
