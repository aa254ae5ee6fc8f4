//! Injected delays and aborts.

use dhow_control_model::istio::{Fault, FaultAbort, FaultDelay, Percent};
use dhow_control_model::push::grpc_status;
use dhow_proto::envoy::extensions::filters::common::fault::v3 as common;
use dhow_proto::envoy::extensions::filters::common::fault::v3::fault_delay::FaultDelaySecifier;
use dhow_proto::envoy::extensions::filters::http::fault::v3 as envoy;
use dhow_proto::envoy::extensions::filters::http::fault::v3::fault_abort::ErrorType;
use dhow_proto::google::protobuf::Any;

use crate::messages::{any, fraction_of, go_duration};

pub(crate) const FILTER: &str = "envoy.filters.http.fault";

/// The route's part of the filter's configuration.
pub(super) fn policy(fault: &Fault) -> Any {
    let Fault { delay, abort } = fault;
    any(&envoy::HttpFault {
        delay: delay.as_ref().map(delay_policy),
        abort: abort.as_ref().and_then(abort_policy),
        ..envoy::HttpFault::default()
    })
}

fn delay_policy(delay: &FaultDelay) -> common::FaultDelay {
    let FaultDelay { percent, percentage, fixed_delay, exponential_delay: _ } = delay;
    let deprecated = percent.map(|percent| Percent { value: f64::from(percent) });
    common::FaultDelay {
        percentage: Some(fraction_of(percentage.as_ref().or(deprecated.as_ref()))),
        fault_delay_secifier: fixed_delay.map(|delay| FaultDelaySecifier::FixedDelay(go_duration(delay))),
    }
}

fn abort_policy(abort: &FaultAbort) -> Option<envoy::FaultAbort> {
    let FaultAbort { percentage, http_status, grpc_status: status, http2_error: _ } = abort;
    let error = match (http_status, status) {
        (Some(status), _) => ErrorType::HttpStatus(*status),
        (None, Some(name)) => ErrorType::GrpcStatus(grpc_status(name)?),
        (None, None) => return None,
    };
    Some(envoy::FaultAbort {
        percentage: Some(fraction_of(percentage.as_ref())),
        error_type: Some(error),
        ..envoy::FaultAbort::default()
    })
}
