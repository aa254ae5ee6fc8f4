//! `DestinationRule`: what applies to traffic for a host after it has been routed.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::{TrafficPolicy, WorkloadSelector};

/// The spec of a `DestinationRule`.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct DestinationRule {
    /// Host, fully qualified, a wildcard, or relative to the namespace.
    pub host: String,
    /// Policy for every subset and port that has none of its own.
    pub traffic_policy: Option<TrafficPolicy>,
    /// Named groups of the host's workloads.
    pub subsets: Vec<Subset>,
    /// Namespaces that see the object.
    pub export_to: Vec<String>,
    /// Client workloads to which the rule applies.
    pub workload_selector: Option<WorkloadSelector>,
}

/// A named group of workloads.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Subset {
    /// Name, part of the cluster's name.
    pub name: String,
    /// Labels that a workload must carry, all of them.
    pub labels: BTreeMap<String, String>,
    /// Policy that overrides the rule's, section by section.
    pub traffic_policy: Option<TrafficPolicy>,
}
