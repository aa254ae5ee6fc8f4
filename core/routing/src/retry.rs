//! `RetryPolicy`.

use std::time::Duration;

use dhow_base::{ConfigError, FieldPath};
use dhow_http::HeaderName;
use dhow_matching::HeaderMatcher;
use dhow_proto::any;
use dhow_proto::envoy::extensions::retry::host::omit_host_metadata::v3::OmitHostMetadataConfig;
use dhow_proto::envoy_types::pb::google::protobuf::Any;

use crate::pb::protobuf::Struct;
use crate::pb::route::RetryPolicy as Message;
use crate::pb::route::retry_policy::{RateLimitedRetryBackOff, ResetHeaderFormat, RetryBackOff};
use crate::pb::{duration, route};

/// A set of conditions under which a request is tried again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RetryOn(u32);

macro_rules! conditions {
    ($($(#[$doc:meta])* $constant:ident = $name:literal, $bit:literal;)*) => {
        impl RetryOn {
            $($(#[$doc])* pub const $constant: Self = Self(1 << $bit);)*

            fn from_name(name: &str) -> Option<Self> {
                match name {
                    $($name => Some(Self::$constant),)*
                    _ => None,
                }
            }
        }
    };
}

conditions! {
    /// Any 5xx, or no response at all.
    SERVER_ERROR = "5xx", 0;
    /// 502, 503 or 504.
    GATEWAY_ERROR = "gateway-error", 1;
    /// No connection to the upstream.
    CONNECT_FAILURE = "connect-failure", 2;
    /// 409.
    RETRIABLE_4XX = "retriable-4xx", 3;
    /// The upstream refused the stream.
    REFUSED_STREAM = "refused-stream", 4;
    /// gRPC status 1.
    GRPC_CANCELLED = "cancelled", 5;
    /// gRPC status 4.
    GRPC_DEADLINE_EXCEEDED = "deadline-exceeded", 6;
    /// gRPC status 8.
    GRPC_RESOURCE_EXHAUSTED = "resource-exhausted", 7;
    /// gRPC status 14.
    GRPC_UNAVAILABLE = "unavailable", 8;
    /// gRPC status 13.
    GRPC_INTERNAL = "internal", 9;
    /// One of the listed status codes.
    RETRIABLE_STATUS_CODES = "retriable-status-codes", 10;
    /// No response at all.
    RESET = "reset", 11;
    /// One of the listed response headers.
    RETRIABLE_HEADERS = "retriable-headers", 12;
    /// `x-envoy-ratelimited` is present.
    ENVOY_RATE_LIMITED = "envoy-ratelimited", 13;
    /// An HTTP/3 connection failed after it was established.
    HTTP3_POST_CONNECT_FAILURE = "http3-post-connect-failure", 14;
    /// The upstream reset the stream before the request was sent.
    RESET_BEFORE_REQUEST = "reset-before-request", 15;
}

impl RetryOn {
    /// Nothing.
    pub const NONE: Self = Self(0);

    /// Reads a list as in `retry_on`, `x-envoy-retry-on` and `x-envoy-retry-grpc-on`; names that are not known are passed over, as in Envoy.
    pub fn parse(list: &str) -> Self {
        list.split(',')
            .filter_map(|name| Self::from_name(name.trim()))
            .fold(Self::NONE, |all, one| Self(all.0 | one.0))
    }

    /// Whether all names in a list are conditions, of gRPC or of HTTP.
    pub fn knows_all(list: &str, grpc: bool) -> bool {
        let grpc_conditions = Self::GRPC_CANCELLED
            .union(Self::GRPC_DEADLINE_EXCEEDED)
            .union(Self::GRPC_RESOURCE_EXHAUSTED)
            .union(Self::GRPC_UNAVAILABLE)
            .union(Self::GRPC_INTERNAL);
        list.split(',').all(|name| {
            Self::from_name(name.trim())
                .is_some_and(|condition| condition.intersects(grpc_conditions) == grpc)
        })
    }

    /// Names in a list that are no condition.
    pub fn unknown(list: &str) -> impl Iterator<Item = &str> {
        // A bare number is a retriable status code in Istio's `retryOn`, which turns it into another field.
        list.split(',').map(str::trim).filter(|name| !name.is_empty() && Self::from_name(name).is_none())
    }

    /// Whether one of the conditions of `other` is in the set.
    pub fn intersects(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }

    /// Both sets.
    #[must_use]
    pub fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Whether the set is empty.
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }
}

/// Fully jittered exponential back-off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BackOff {
    /// First interval.
    pub base: Duration,
    /// Longest interval.
    pub max: Duration,
}

impl Default for BackOff {
    fn default() -> Self {
        Self { base: Duration::from_millis(25), max: Duration::from_millis(250) }
    }
}

/// A response header that tells when to try again.
#[derive(Clone, Debug)]
pub struct ResetHeader {
    /// Its name.
    pub name: HeaderName,
    /// Whether its number is a time since 1970 and not a delay in seconds.
    pub is_timestamp: bool,
}

/// `RateLimitedRetryBackOff`.
#[derive(Clone, Debug)]
pub struct RateLimitedBackOff {
    /// Response headers that tell the pause; the first that is there counts.
    pub headers: Box<[ResetHeader]>,
    /// The longest pause that they may ask for.
    pub max: Duration,
}

/// A compiled retry policy.
#[derive(Clone, Debug, Default)]
pub struct RetryPolicy {
    /// Conditions.
    pub retry_on: RetryOn,
    /// Attempts after the first one; 1 when the message does not say.
    pub num_retries: u32,
    /// Time for one attempt; `None` is the route's.
    pub per_try_timeout: Option<Duration>,
    /// Time without data in one attempt.
    pub per_try_idle_timeout: Option<Duration>,
    /// Codes of [`RetryOn::RETRIABLE_STATUS_CODES`].
    pub retriable_status_codes: Box<[u16]>,
    /// Headers of [`RetryOn::RETRIABLE_HEADERS`].
    pub retriable_headers: Box<[HeaderMatcher]>,
    /// Requests that may be tried again; all when empty.
    pub retriable_request_headers: Box<[HeaderMatcher]>,
    /// Pause between attempts; `None` is the default (25 ms base).
    pub back_off: Option<BackOff>,
    /// A pause that the upstream asks for.
    pub rate_limited_back_off: Option<RateLimitedBackOff>,
    /// `envoy.retry_host_predicates.previous_hosts`: another host than before.
    pub avoid_previous_hosts: bool,
    /// `envoy.retry_host_predicates.omit_canary_hosts`.
    pub omit_canary_hosts: bool,
    /// `envoy.retry_host_predicates.omit_host_metadata`: no host whose `envoy.lb` metadata has all of these values.
    pub omit_host_metadata: Box<[Struct]>,
    /// `envoy.retry_priorities.previous_priorities`: after how many attempts the priority changes.
    pub previous_priorities: Option<u32>,
    /// How often another host is looked for; at least 1.
    pub host_selection_attempts: u32,
}

const PREVIOUS_HOSTS: &str = "envoy.extensions.retry.host.previous_hosts.v3.PreviousHostsPredicate";
const OMIT_CANARY: &str = "envoy.extensions.retry.host.omit_canary_hosts.v3.OmitCanaryHostsPredicate";
const OMIT_METADATA: &str = "envoy.extensions.retry.host.omit_host_metadata.v3.OmitHostMetadataConfig";
const PREVIOUS_PRIORITIES: &str =
    "envoy.extensions.retry.priority.previous_priorities.v3.PreviousPrioritiesConfig";

impl RetryPolicy {
    /// Compiles the message.
    ///
    /// # Errors
    /// When intervals contradict each other or an extension is not known.
    pub fn compile(message: &Message, path: &FieldPath) -> Result<Self, ConfigError> {
        let Message {
            retry_on,
            num_retries,
            per_try_timeout,
            per_try_idle_timeout,
            retry_priority,
            retry_host_predicate,
            retry_options_predicates,
            host_selection_retry_max_attempts,
            retriable_status_codes,
            retry_back_off,
            rate_limited_retry_back_off,
            retriable_headers,
            retriable_request_headers,
            // Matters to plugins that choose clusters; every other choice stays what it was.
            refresh_cluster_on_retry: _,
        } = message;
        // Envoy comes without any such extension.
        if let Some(predicate) = retry_options_predicates.first() {
            let path = path.field("retry_options_predicates").index(0);
            return Err(unknown_extension(&predicate.name, predicate.typed_config.as_ref(), &path));
        }
        let headers =
            |list: &[route::HeaderMatcher], field| HeaderMatcher::compile_all(list, &path.field(field));
        let mut policy = Self {
            retry_on: RetryOn::parse(retry_on),
            num_retries: num_retries.as_ref().map_or(1, |wrapped| wrapped.value),
            per_try_timeout: duration(per_try_timeout.as_ref(), path, "per_try_timeout")?,
            per_try_idle_timeout: duration(per_try_idle_timeout.as_ref(), path, "per_try_idle_timeout")?,
            retriable_status_codes: retriable_status_codes
                .iter()
                .filter_map(|&c| u16::try_from(c).ok())
                .collect(),
            retriable_headers: headers(retriable_headers, "retriable_headers")?,
            retriable_request_headers: headers(retriable_request_headers, "retriable_request_headers")?,
            back_off: back_off(retry_back_off.as_ref(), path)?,
            rate_limited_back_off: rate_limited(rate_limited_retry_back_off.as_ref(), path)?,
            host_selection_attempts: u32::try_from(*host_selection_retry_max_attempts).unwrap_or(0).max(1),
            ..Self::default()
        };
        for (at, predicate) in retry_host_predicate.iter().enumerate() {
            policy.host_predicate(predicate, &path.field("retry_host_predicate").index(at))?;
        }
        if let Some(priority) = retry_priority {
            policy.priority(priority, &path.field("retry_priority"))?;
        }
        Ok(policy)
    }

    fn host_predicate(
        &mut self,
        message: &route::retry_policy::RetryHostPredicate,
        path: &FieldPath,
    ) -> Result<(), ConfigError> {
        let route::retry_policy::RetryHostPredicate { name, config_type } = message;
        let any = config_type.as_ref().map(|config| {
            let route::retry_policy::retry_host_predicate::ConfigType::TypedConfig(any) = config;
            any
        });
        let type_name = any.map(|any| any::type_name(&any.type_url));
        match type_name {
            Some(OMIT_METADATA) => {
                let OmitHostMetadataConfig { metadata_match } = match any {
                    Some(any) => {
                        any::unpack(any).map_err(|error| error.under(&path.field("typed_config")))?
                    }
                    None => OmitHostMetadataConfig::default(),
                };
                let fields =
                    metadata_match.and_then(|mut metadata| metadata.filter_metadata.remove("envoy.lb"));
                // Metadata without values is that of no host.
                if let Some(fields) = fields.filter(|fields| !fields.fields.is_empty()) {
                    let mut all = std::mem::take(&mut self.omit_host_metadata).into_vec();
                    all.push(fields);
                    self.omit_host_metadata = all.into();
                }
            }
            Some(PREVIOUS_HOSTS) => self.avoid_previous_hosts = true,
            Some(OMIT_CANARY) => self.omit_canary_hosts = true,
            _ => return Err(unknown_extension(name, any, path)),
        }
        Ok(())
    }

    /// Whether retries avoid hosts for a reason.
    pub fn has_host_predicates(&self) -> bool {
        self.avoid_previous_hosts || self.omit_canary_hosts || !self.omit_host_metadata.is_empty()
    }

    fn priority(
        &mut self,
        message: &route::retry_policy::RetryPriority,
        path: &FieldPath,
    ) -> Result<(), ConfigError> {
        use dhow_proto::envoy_types::pb::envoy::extensions::retry::priority::previous_priorities::v3::PreviousPrioritiesConfig;
        let route::retry_policy::RetryPriority { name, config_type } = message;
        let any = config_type.as_ref().map(|config| {
            let route::retry_policy::retry_priority::ConfigType::TypedConfig(any) = config;
            any
        });
        match any {
            Some(any) if any::type_name(&any.type_url) == PREVIOUS_PRIORITIES => {
                let config: PreviousPrioritiesConfig = dhow_proto::Message::decode(any.value.as_slice())
                    .map_err(|error| ConfigError::new(path.field("typed_config"), error.to_string()))?;
                let PreviousPrioritiesConfig { update_frequency } = config;
                let frequency = u32::try_from(update_frequency).unwrap_or(0).max(1);
                self.previous_priorities = Some(frequency);
                Ok(())
            }
            any => Err(unknown_extension(name, any, path)),
        }
    }
}

fn unknown_extension(name: &str, config: Option<&Any>, path: &FieldPath) -> ConfigError {
    let type_name = config.map_or("", |any| any::type_name(&any.type_url));
    let reason = format!("Didn't find a registered implementation for '{name}' with type URL: '{type_name}'");
    ConfigError::new(path.clone(), reason)
}

fn back_off(message: Option<&RetryBackOff>, path: &FieldPath) -> Result<Option<BackOff>, ConfigError> {
    let Some(RetryBackOff { base_interval, max_interval }) = message else { return Ok(None) };
    let field = path.field("retry_back_off");
    // Intervals below a millisecond count as one, as in Envoy.
    let whole = |interval: Duration| interval.max(Duration::from_millis(1));
    let given = base_interval.as_ref().filter(|base| base.seconds != 0 || base.nanos != 0);
    let base = duration(given, &field, "base_interval")?;
    let base =
        whole(base.ok_or_else(|| ConfigError::new(field.field("base_interval"), "value is required"))?);
    let max = duration(max_interval.as_ref(), &field, "max_interval")?.map_or(base * 10, whole);
    if max < base {
        let reason = "retry_policy.max_interval must greater than or equal to the base_interval";
        return Err(ConfigError::new(field, reason));
    }
    Ok(Some(BackOff { base, max }))
}

fn rate_limited(
    message: Option<&RateLimitedRetryBackOff>,
    path: &FieldPath,
) -> Result<Option<RateLimitedBackOff>, ConfigError> {
    let Some(RateLimitedRetryBackOff { reset_headers, max_interval }) = message else { return Ok(None) };
    let field = path.field("rate_limited_retry_back_off");
    if reset_headers.is_empty() {
        let reason = "value must contain at least 1 item(s)";
        return Err(ConfigError::new(field.field("reset_headers"), reason));
    }
    let headers = reset_headers.iter().map(|header| {
        let route::retry_policy::ResetHeader { name, format } = header;
        let is_timestamp = *format == ResetHeaderFormat::UnixTimestamp as i32;
        ResetHeader { name: HeaderName::new(name), is_timestamp }
    });
    let max = duration(max_interval.as_ref(), &field, "max_interval")?.unwrap_or(Duration::from_secs(300));
    Ok(Some(RateLimitedBackOff { headers: headers.collect(), max }))
}
