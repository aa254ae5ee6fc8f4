//! Connection pools, circuit breakers and outlier detection.

use dhow_control_model::istio::{ConnectionPool, OutlierDetection, RetryBudget, TcpKeepalive};
use dhow_control_model::push::EffectivePolicy;
use dhow_proto::envoy::config::cluster::v3 as envoy;
use dhow_proto::envoy::config::cluster::v3::circuit_breakers::{Thresholds, thresholds};
use dhow_proto::envoy::config::core::v3 as core;
use dhow_proto::envoy::r#type::v3::Percent;
use dhow_proto::google::protobuf::UInt32Value;

use super::unlimited;
use crate::ProxyContext;
use crate::messages::{go_duration, number};

pub(super) fn circuit_breakers(thresholds: Thresholds) -> envoy::CircuitBreakers {
    envoy::CircuitBreakers { thresholds: vec![thresholds], per_host_thresholds: Vec::new() }
}

pub(super) fn apply(context: &ProxyContext<'_>, cluster: &mut envoy::Cluster, policy: &EffectivePolicy) {
    let mut thresholds = unlimited();
    let mut keepalive = context.push.mesh.tcp_keepalive.as_ref();
    if let Some(ConnectionPool { tcp, http }) = &policy.connection_pool {
        if let Some(tcp) = tcp {
            limit(&mut thresholds.max_connections, tcp.max_connections);
            if let Some(timeout) = tcp.connect_timeout {
                cluster.connect_timeout = Some(go_duration(timeout));
            }
            keepalive = tcp.tcp_keepalive.as_ref().or(keepalive);
        }
        if let Some(http) = http {
            limit(&mut thresholds.max_pending_requests, http.http1_max_pending_requests);
            limit(&mut thresholds.max_requests, http.http2_max_requests);
            limit(&mut thresholds.max_retries, http.max_retries);
        }
    }
    thresholds.retry_budget = policy.retry_budget.as_ref().map(retry_budget);
    cluster.circuit_breakers = Some(circuit_breakers(thresholds));
    if let Some(keepalive) = keepalive {
        cluster.upstream_connection_options = Some(envoy::UpstreamConnectionOptions {
            tcp_keepalive: Some(tcp_keepalive(keepalive)),
            ..envoy::UpstreamConnectionOptions::default()
        });
    }
    if let Some(outliers) = &policy.outlier_detection {
        apply_outlier_detection(cluster, outliers);
    }
}

/// Zero and less mean no limit.
fn limit(threshold: &mut Option<UInt32Value>, value: i32) {
    if let Ok(value @ 1..) = u32::try_from(value) {
        *threshold = number(value);
    }
}

fn retry_budget(budget: &RetryBudget) -> thresholds::RetryBudget {
    let RetryBudget { percent, min_retry_concurrency, budget_interval } = budget;
    thresholds::RetryBudget {
        budget_percent: Some(Percent { value: percent.as_ref().map_or(20.0, |percent| percent.value) }),
        budget_interval: budget_interval.map(go_duration),
        min_retry_concurrency: number(if *min_retry_concurrency == 0 { 3 } else { *min_retry_concurrency }),
    }
}

fn tcp_keepalive(keepalive: &TcpKeepalive) -> core::TcpKeepalive {
    let TcpKeepalive { probes, time, interval } = keepalive;
    let seconds = |value: dhow_control_model::istio::GoDuration| UInt32Value {
        value: u32::try_from(value.0.as_secs()).unwrap_or(u32::MAX),
    };
    core::TcpKeepalive {
        keepalive_probes: (*probes > 0).then_some(UInt32Value { value: *probes }),
        keepalive_time: time.map(seconds),
        keepalive_interval: interval.map(seconds),
    }
}

fn apply_outlier_detection(cluster: &mut envoy::Cluster, outliers: &OutlierDetection) {
    let OutlierDetection {
        consecutive_errors: _,
        split_external_local_origin_errors,
        consecutive_local_origin_failures,
        consecutive_gateway_errors,
        consecutive_5xx_errors,
        interval,
        base_ejection_time,
        max_ejection_percent,
        min_health_percent,
        outlier_detection_http_error_codes: _,
    } = outliers;
    // A count of zero switches the rule off, which Envoy says with an enforcement of 0 percent.
    let enforced = |count: Option<u32>| count.and_then(|count| number(if count > 0 { 100 } else { 0 }));
    let counted = |count: Option<u32>| count.and_then(number);
    let local =
        consecutive_local_origin_failures.filter(|count| *split_external_local_origin_errors && *count > 0);
    cluster.outlier_detection = Some(envoy::OutlierDetection {
        consecutive_5xx: counted(*consecutive_5xx_errors),
        enforcing_consecutive_5xx: enforced(*consecutive_5xx_errors),
        consecutive_gateway_failure: counted(*consecutive_gateway_errors),
        enforcing_consecutive_gateway_failure: enforced(*consecutive_gateway_errors),
        interval: interval.map(go_duration),
        base_ejection_time: base_ejection_time.map(go_duration),
        max_ejection_percent: u32::try_from(*max_ejection_percent)
            .ok()
            .filter(|percent| *percent > 0)
            .and_then(number),
        split_external_local_origin_errors: *split_external_local_origin_errors,
        consecutive_local_origin_failure: counted(local),
        enforcing_consecutive_local_origin_failure: enforced(local),
        enforcing_local_origin_success_rate: if *split_external_local_origin_errors {
            number(0)
        } else {
            None
        },
        enforcing_success_rate: number(0),
        ..envoy::OutlierDetection::default()
    });
    let common = cluster.common_lb_config.get_or_insert_default();
    common.healthy_panic_threshold = Some(Percent { value: f64::from(*min_health_percent) });
}
