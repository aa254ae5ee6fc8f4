//! `/clusters`.

use std::fmt::Write;

use dhow_matching::compile_regex;
use dhow_proto::envoy::admin::v3::{
    ClusterStatus as ClusterMessage, Clusters, HostHealthStatus, HostStatus as HostMessage, SimpleMetric,
    simple_metric,
};
use dhow_proto::envoy::config::cluster::v3::{CircuitBreakers, circuit_breakers};
use dhow_proto::envoy::config::core::v3::{HealthStatus, Locality, RoutingPriority};
use dhow_proto::envoy::r#type::v3::Percent;
use dhow_proto::google::protobuf::UInt32Value;

use crate::pretty;
use crate::query::QueryParams;
use crate::reply::Reply;
use crate::state::{AdminState, ClusterStatus, HostStatus, Thresholds};

pub(crate) fn answer(state: &dyn AdminState, query: &QueryParams) -> Reply {
    let filter = match query.non_empty("filter").map(compile_regex).transpose() {
        Ok(filter) => filter,
        Err(_) => return Reply::error(400, "Invalid re2 regex"),
    };
    let mut clusters = state.clusters();
    clusters.retain(|cluster| filter.as_ref().is_none_or(|filter| filter.is_match(&cluster.name)));
    if query.get("format") == Some("json") {
        let message = Clusters { cluster_statuses: clusters.into_iter().map(message).collect() };
        return Reply::json(pretty::print(&dhow_proto::message_to_json(&message)));
    }
    let mut out = String::new();
    for cluster in &clusters {
        text(cluster, &mut out);
    }
    Reply::text(out)
}

const PRIORITIES: [&str; 2] = ["default", "high"];

fn text(cluster: &ClusterStatus, out: &mut String) {
    let name = &cluster.name;
    // Writing to a String cannot fail.
    let mut line = |what: &str, value: &dyn std::fmt::Display| {
        let _ = writeln!(out, "{name}::{what}::{value}");
    };
    line("observability_name", &cluster.observability_name);
    if let Some(outlier) = &cluster.outlier {
        line("outlier::success_rate_average", &outlier.success_rate_average);
        line("outlier::success_rate_ejection_threshold", &outlier.success_rate_ejection_threshold);
        line("outlier::local_origin_success_rate_average", &outlier.local_origin_success_rate_average);
        line(
            "outlier::local_origin_success_rate_ejection_threshold",
            &outlier.local_origin_success_rate_ejection_threshold,
        );
    }
    for (priority, thresholds) in PRIORITIES.iter().zip(&cluster.thresholds) {
        let Thresholds { max_connections, max_pending_requests, max_requests, max_retries } = thresholds;
        line(&format!("{priority}_priority::max_connections"), max_connections);
        line(&format!("{priority}_priority::max_pending_requests"), max_pending_requests);
        line(&format!("{priority}_priority::max_requests"), max_requests);
        line(&format!("{priority}_priority::max_retries"), max_retries);
    }
    line("added_via_api", &cluster.added_via_api);
    if !cluster.eds_service_name.is_empty() {
        line("eds_service_name", &cluster.eds_service_name);
    }
    for host in &cluster.hosts {
        host_text(name, host, out);
    }
}

fn host_text(cluster: &str, host: &HostStatus, out: &mut String) {
    let mut line = |what: &str, value: &dyn std::fmt::Display| {
        let _ = writeln!(out, "{cluster}::{}::{what}::{value}", host.address_text);
    };
    let mut numbers: Vec<_> = host.counters.iter().chain(&host.gauges).collect();
    numbers.sort_unstable();
    for (name, value) in numbers {
        line(name, value);
    }
    line("hostname", &host.hostname);
    let flags = if host.health_flags.is_empty() {
        "healthy".to_owned()
    } else {
        host.health_flags.iter().fold(String::new(), |all, flag| all + "/" + flag)
    };
    line("health_flags", &flags);
    line("weight", &host.weight);
    line("region", &host.region);
    line("zone", &host.zone);
    line("sub_zone", &host.sub_zone);
    line("canary", &host.canary);
    line("priority", &host.priority);
    line("success_rate", &host.success_rate.unwrap_or(-1.0));
    line("local_origin_success_rate", &host.local_origin_success_rate.unwrap_or(-1.0));
}

fn message(cluster: ClusterStatus) -> ClusterMessage {
    let threshold = |(priority, thresholds): (RoutingPriority, &Thresholds)| circuit_breakers::Thresholds {
        priority: priority as i32,
        max_connections: Some(UInt32Value { value: thresholds.max_connections }),
        max_pending_requests: Some(UInt32Value { value: thresholds.max_pending_requests }),
        max_requests: Some(UInt32Value { value: thresholds.max_requests }),
        max_retries: Some(UInt32Value { value: thresholds.max_retries }),
        ..Default::default()
    };
    let priorities = [RoutingPriority::Default, RoutingPriority::High];
    let percent = |value: f64| (value >= 0.0).then_some(Percent { value });
    let outlier = cluster.outlier;
    ClusterMessage {
        name: cluster.name,
        added_via_api: cluster.added_via_api,
        success_rate_ejection_threshold: outlier.and_then(|o| percent(o.success_rate_ejection_threshold)),
        local_origin_success_rate_ejection_threshold: outlier
            .and_then(|o| percent(o.local_origin_success_rate_ejection_threshold)),
        host_statuses: cluster.hosts.into_iter().map(host_message).collect(),
        circuit_breakers: Some(CircuitBreakers {
            thresholds: priorities.into_iter().zip(&cluster.thresholds).map(threshold).collect(),
            ..Default::default()
        }),
        observability_name: cluster.observability_name,
        eds_service_name: cluster.eds_service_name,
    }
}

fn host_message(host: HostStatus) -> HostMessage {
    let metric = |kind: simple_metric::Type| {
        move |(name, value): &(&'static str, u64)| SimpleMetric {
            r#type: kind as i32,
            value: *value,
            name: (*name).to_owned(),
        }
    };
    let mut counters = host.counters;
    counters.sort_unstable();
    let mut gauges = host.gauges;
    gauges.sort_unstable();
    let stats = counters
        .iter()
        .map(metric(simple_metric::Type::Counter))
        .chain(gauges.iter().map(metric(simple_metric::Type::Gauge)));
    let stats = stats.collect();
    HostMessage {
        address: Some(host.address),
        stats,
        health_status: Some(health(&host.health_flags)),
        success_rate: host.success_rate.map(|value| Percent { value }),
        weight: host.weight,
        hostname: host.hostname,
        priority: host.priority,
        local_origin_success_rate: host.local_origin_success_rate.map(|value| Percent { value }),
        locality: Some(Locality { region: host.region, zone: host.zone, sub_zone: host.sub_zone }),
    }
}

fn health(flags: &[&str]) -> HostHealthStatus {
    let has = |flag: &str| flags.contains(&flag);
    let eds = if has("failed_eds_health") {
        HealthStatus::Unhealthy
    } else if has("eds_status_draining") {
        HealthStatus::Draining
    } else if has("degraded_eds_health") {
        HealthStatus::Degraded
    } else {
        HealthStatus::Healthy
    };
    HostHealthStatus {
        failed_active_health_check: has("failed_active_hc"),
        failed_outlier_check: has("failed_outlier_check"),
        failed_active_degraded_check: has("degraded_active_hc"),
        pending_dynamic_removal: has("pending_dynamic_removal"),
        pending_active_hc: has("pending_active_hc"),
        excluded_via_immediate_hc_fail: has("excluded_via_immediate_hc_fail"),
        active_hc_timeout: has("active_hc_timeout"),
        eds_health_status: eds as i32,
        failed_degraded_outlier_detection: has("degraded_outlier_detection"),
    }
}
