//! DestinationRule.

use super::{Checker, names, traffic_policy};
use crate::istio::DestinationRule;

pub(super) fn check(checker: &mut Checker, spec: &DestinationRule) {
    let DestinationRule { host, traffic_policy, subsets, export_to, workload_selector } = spec;
    if host.is_empty() {
        checker.refuse_at("host", "is required");
    } else if !names::is_host_or_wildcard(host) {
        checker.refuse_at("host", format!("{host:?} is not a host name"));
    }
    names::export_to(checker, export_to);
    if let Some(selector) = workload_selector {
        checker.field("workloadSelector", |checker| names::labels(checker, "matchLabels", &selector.labels));
    }
    if let Some(policy) = traffic_policy {
        checker.field("trafficPolicy", |checker| traffic_policy::check(checker, policy));
    }
    checker.each("subsets", subsets, |checker, subset| {
        if !names::is_label(&subset.name) {
            checker.refuse_at("name", format!("{:?} must be letters, digits and '-'", subset.name));
        }
        names::labels(checker, "labels", &subset.labels);
        if let Some(policy) = &subset.traffic_policy {
            checker.field("trafficPolicy", |checker| traffic_policy::check(checker, policy));
        }
    });
    for (index, subset) in subsets.iter().enumerate() {
        if subsets[..index].iter().any(|earlier| earlier.name == subset.name) {
            checker.refuse_at("subsets", format!("subset {:?} is there twice", subset.name));
        }
    }
}
