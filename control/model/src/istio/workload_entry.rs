//! `WorkloadEntry`: one workload that is not a pod.

use std::collections::BTreeMap;

use serde::Deserialize;

/// The spec of a `WorkloadEntry`, and an endpoint of a ServiceEntry.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct WorkloadEntry {
    /// IP address, host name (with DNS resolution) or `unix://` path.
    pub address: String,
    /// Ports by the name of the service's port.
    pub ports: BTreeMap<String, u32>,
    /// Labels of the workload.
    pub labels: BTreeMap<String, String>,
    /// Network that the address belongs to.
    pub network: String,
    /// `region/zone/sub-zone`.
    pub locality: String,
    /// Share of load relative to the other endpoints; 0 means 1.
    pub weight: u32,
    /// Service account for the workload's identity.
    pub service_account: String,
}
