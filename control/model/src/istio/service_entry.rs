//! `ServiceEntry`: services that no platform registry knows.

use serde::Deserialize;

use super::{WorkloadEntry, WorkloadSelector};

/// The spec of a `ServiceEntry`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct ServiceEntry {
    /// Host names, `*.` wildcards allowed.
    pub hosts: Vec<String>,
    /// Virtual addresses or CIDR ranges.
    pub addresses: Vec<String>,
    /// Ports of the service.
    pub ports: Vec<ServiceEntryPort>,
    /// Inside or outside the mesh.
    pub location: Location,
    /// How endpoints are found.
    pub resolution: Resolution,
    /// Endpoints given in place.
    pub endpoints: Vec<WorkloadEntry>,
    /// Selects Pods and WorkloadEntries of the same namespace as endpoints.
    pub workload_selector: Option<WorkloadSelector>,
    /// Namespaces that see the object.
    pub export_to: Vec<String>,
    /// Names that the endpoints' certificates must carry.
    pub subject_alt_names: Vec<String>,
}

/// `ServicePort`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct ServiceEntryPort {
    /// 1 to 65535.
    pub number: u32,
    /// HTTP, HTTPS, GRPC, HTTP2, MONGO, TCP, TLS; empty is detected.
    pub protocol: String,
    /// Name, unique in the object.
    pub name: String,
    /// Port of the endpoints; absent means `number`.
    pub target_port: Option<u32>,
}

/// `ServiceEntry.Location`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Location {
    /// Outside the mesh: no mutual TLS, fewer policies.
    #[default]
    MeshExternal,
    /// Inside the mesh.
    MeshInternal,
}

/// `ServiceEntry.Resolution`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Resolution {
    /// The address that the caller wanted.
    #[default]
    None,
    /// The endpoints given.
    Static,
    /// All addresses that DNS gives for the endpoints or hosts.
    Dns,
    /// The first address that DNS gives.
    DnsRoundRobin,
    /// DNS of the name that each request carries.
    DynamicDns,
}
