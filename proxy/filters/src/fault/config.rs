//! `HTTPFault` validated.

use std::time::Duration;

use dhow_base::{ConfigError, FieldPath};
use dhow_http::{HeaderMap, HeaderName};
use dhow_matching::HeaderMatcher;
use dhow_proto::envoy::extensions::filters::common::fault::v3::fault_delay::{
    FaultDelaySecifier, HeaderDelay,
};
use dhow_proto::envoy::extensions::filters::common::fault::v3::fault_rate_limit::{
    FixedLimit, HeaderLimit, LimitType,
};
use dhow_proto::envoy::extensions::filters::common::fault::v3::{FaultDelay, FaultRateLimit};
use dhow_proto::envoy::extensions::filters::http::fault::v3::fault_abort::{ErrorType, HeaderAbort};
use dhow_proto::envoy::extensions::filters::http::fault::v3::{FaultAbort, HttpFault};
use dhow_proto::google::protobuf::{self, Any, Struct, UInt32Value};
use dhow_routing::{Fraction, RuntimeValues};

use super::runtime_keys::{RuntimeKeys, key_or};

/// What an abort answers when the configuration gives no body.
pub(super) const ABORT_BODY: &str = "fault filter abort";

/// What to inject, and into which requests.
#[derive(Debug)]
pub(super) struct Settings {
    pub(super) delay: Option<Delay>,
    pub(super) abort: Option<Abort>,
    pub(super) rate_limit: Option<RateLimit>,
    /// Only requests to this cluster; empty: to any.
    pub(super) upstream_cluster: Box<str>,
    /// Only requests that match all of these.
    pub(super) headers: Box<[HeaderMatcher]>,
    /// Only requests from one of these nodes, by `x-envoy-downstream-service-node`; empty: from any.
    pub(super) downstream_nodes: Box<[Box<str>]>,
    /// Requests that may be under a fault at the same time.
    pub(super) max_active_faults: Option<u32>,
    /// Whether faults are counted per `x-envoy-downstream-service-cluster` too.
    pub(super) counts_downstream_clusters: bool,
    /// Dynamic metadata of streams that are delayed or aborted, under the filter's name.
    pub(super) metadata: Struct,
    pub(super) keys: RuntimeKeys,
}

/// The share of requests that a fault hits.
#[derive(Debug)]
pub(super) struct Share {
    fraction: Fraction,
    /// The request header that may lower the numerator.
    header: Option<HeaderName>,
}

/// A limit on how fast response bodies go.
#[derive(Debug)]
pub(super) struct RateLimit {
    pub(super) share: Share,
    /// KiB a second; none when a header of the request gives it.
    fixed: Option<u64>,
    /// `x-envoy-fault-throughput-response`.
    asked: HeaderName,
}

/// A delay.
#[derive(Debug)]
pub(super) struct Delay {
    pub(super) share: Share,
    /// The duration; none when a header of the request gives it in milliseconds.
    fixed: Option<Duration>,
    /// `x-envoy-fault-delay-request`.
    asked: HeaderName,
}

/// An abort.
#[derive(Debug)]
pub(super) struct Abort {
    pub(super) share: Share,
    pub(super) status: AbortStatus,
    pub(super) body: Box<str>,
}

/// Where the status of an abort comes from.
#[derive(Debug)]
pub(super) enum AbortStatus {
    /// `http_status`.
    Http(u16),
    /// `grpc_status`: HTTP status 200 with this gRPC status.
    Grpc(u32),
    /// `header_abort`: the request's headers say it.
    Headers {
        /// `x-envoy-fault-abort-request`.
        http: HeaderName,
        /// `x-envoy-fault-abort-grpc-request`.
        grpc: HeaderName,
    },
}

impl Settings {
    /// Reads the message, of the filter or of a route.
    pub(super) fn read(config: &Any, path: &FieldPath) -> Result<Self, ConfigError> {
        let HttpFault {
            delay,
            abort,
            upstream_cluster,
            headers,
            downstream_nodes,
            max_active_faults,
            response_rate_limit,
            delay_percent_runtime,
            abort_percent_runtime,
            delay_duration_runtime,
            abort_http_status_runtime,
            max_active_faults_runtime,
            response_rate_limit_percent_runtime,
            abort_grpc_status_runtime,
            disable_downstream_cluster_stats,
            filter_metadata,
        } = dhow_proto::any::unpack(config).map_err(|error| error.under(path))?;
        let keys = RuntimeKeys {
            delay_percent: key_or(delay_percent_runtime, "fault.http.delay.fixed_delay_percent"),
            abort_percent: key_or(abort_percent_runtime, "fault.http.abort.abort_percent"),
            delay_duration: key_or(delay_duration_runtime, "fault.http.delay.fixed_duration_ms"),
            abort_http_status: key_or(abort_http_status_runtime, "fault.http.abort.http_status"),
            abort_grpc_status: key_or(abort_grpc_status_runtime, "fault.http.abort.grpc_status"),
            max_active_faults: key_or(max_active_faults_runtime, "fault.http.max_active_faults"),
            response_rate_limit_percent: key_or(
                response_rate_limit_percent_runtime,
                "fault.http.rate_limit.response_percent",
            ),
        };
        Ok(Self {
            delay: delay.map(|delay| Delay::read(delay, &path.field("delay"))).transpose()?,
            abort: abort.map(|abort| Abort::read(abort, &path.field("abort"))).transpose()?,
            rate_limit: response_rate_limit
                .map(|limit| RateLimit::read(limit, &path.field("response_rate_limit")))
                .transpose()?,
            upstream_cluster: upstream_cluster.into(),
            headers: HeaderMatcher::compile_all(&headers, &path.field("headers"))?,
            downstream_nodes: downstream_nodes.into_iter().map(Into::into).collect(),
            max_active_faults: max_active_faults.map(|UInt32Value { value }| value),
            counts_downstream_clusters: !disable_downstream_cluster_stats,
            metadata: filter_metadata.unwrap_or_default(),
            keys,
        })
    }

    /// Whether there is a fault to inject.
    pub(super) fn has_faults(&self) -> bool {
        self.delay.is_some() || self.abort.is_some() || self.rate_limit.is_some()
    }
}

impl RateLimit {
    fn read(message: FaultRateLimit, path: &FieldPath) -> Result<Self, ConfigError> {
        let FaultRateLimit { percentage, limit_type } = message;
        let (fixed, header) = match limit_type {
            Some(LimitType::FixedLimit(FixedLimit { limit_kbps: 0 })) => {
                let path = path.field("fixed_limit").field("limit_kbps");
                return Err(ConfigError::new(path, "value must be greater than or equal to 1"));
            }
            Some(LimitType::FixedLimit(FixedLimit { limit_kbps })) => (Some(limit_kbps), None),
            Some(LimitType::HeaderLimit(HeaderLimit {})) => {
                (None, Some(HeaderName::control("fault-throughput-response-percentage")))
            }
            None => return Err(ConfigError::new(path.field("limit_type"), "value is required")),
        };
        let share = Share { fraction: Fraction::from_message(percentage.as_ref()), header };
        Ok(Self { share, fixed, asked: HeaderName::control("fault-throughput-response") })
    }

    /// KiB a second for a request; none when its header should say it and does not.
    pub(super) fn rate(&self, request: &HeaderMap) -> Option<u64> {
        let asked = || number(request.get(&self.asked)?).filter(|&rate| rate > 0);
        self.fixed.or_else(asked)
    }
}

impl Delay {
    fn read(message: FaultDelay, path: &FieldPath) -> Result<Self, ConfigError> {
        let FaultDelay { percentage, fault_delay_secifier } = message;
        let (fixed, header) = match fault_delay_secifier {
            Some(FaultDelaySecifier::FixedDelay(delay)) => {
                if delay.seconds < 0 || delay.nanos < 0 || delay == protobuf::Duration::default() {
                    return Err(ConfigError::new(path.field("fixed_delay"), "value must be greater than 0s"));
                }
                (Some(dhow_proto::whole_millis(&delay)), None)
            }
            Some(FaultDelaySecifier::HeaderDelay(HeaderDelay {})) => {
                (None, Some(HeaderName::control("fault-delay-request-percentage")))
            }
            None => return Err(ConfigError::new(path.field("fault_delay_secifier"), "value is required")),
        };
        let share = Share { fraction: Fraction::from_message(percentage.as_ref()), header };
        Ok(Self { share, fixed, asked: HeaderName::control("fault-delay-request") })
    }

    /// How long to wait; none when the request's header should say it and does not.
    pub(super) fn duration(&self, request: &HeaderMap) -> Option<Duration> {
        let asked = || number(request.get(&self.asked)?).filter(|&millis| millis > 0);
        self.fixed.or_else(|| asked().map(Duration::from_millis))
    }
}

impl Abort {
    fn read(message: FaultAbort, path: &FieldPath) -> Result<Self, ConfigError> {
        let FaultAbort { percentage, response_body, error_type } = message;
        let mut header = None;
        let status = match error_type {
            Some(ErrorType::HttpStatus(status @ 200..600)) => AbortStatus::Http(status as u16),
            Some(ErrorType::HttpStatus(_)) => {
                let reason = "value must be inside range [200, 600)";
                return Err(ConfigError::new(path.field("http_status"), reason));
            }
            Some(ErrorType::GrpcStatus(status)) => AbortStatus::Grpc(status),
            Some(ErrorType::HeaderAbort(HeaderAbort {})) => {
                header = Some(HeaderName::control("fault-abort-request-percentage"));
                AbortStatus::Headers {
                    http: HeaderName::control("fault-abort-request"),
                    grpc: HeaderName::control("fault-abort-grpc-request"),
                }
            }
            None => return Err(ConfigError::new(path.field("error_type"), "value is required")),
        };
        let body = if response_body.is_empty() { ABORT_BODY.into() } else { response_body.into() };
        let share = Share { fraction: Fraction::from_message(percentage.as_ref()), header };
        Ok(Self { share, status, body })
    }
}

impl Share {
    /// Whether the lot hits the request. A header can lower the share, not raise it; the runtime key has the last word.
    pub(super) fn hits(&self, request: &HeaderMap, lot: u64, key: &str, runtime: &dyn RuntimeValues) -> bool {
        let asked = self.header.as_ref().and_then(|name| number(request.get(name)?));
        let numerator =
            asked.map_or(self.fraction.numerator, |asked| asked.min(self.fraction.numerator.into()) as u32);
        runtime.fraction(key).unwrap_or(Fraction { numerator, ..self.fraction }).contains(lot)
    }
}

/// A decimal header value.
pub(super) fn number(value: &[u8]) -> Option<u64> {
    std::str::from_utf8(value).ok()?.parse().ok()
}
