//! The Kubernetes kinds that make up the service registry, with the fields that matter to a mesh.
//!
//! Kubernetes defines many more fields; they are let through unread, because they configure Kubernetes and not the mesh.

use serde::Deserialize;

use crate::Labels;

/// The spec of a `Service`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct KubeService {
    /// Labels of the pods behind it; empty when endpoints are given otherwise.
    pub selector: Labels,
    /// Ports.
    pub ports: Vec<KubeServicePort>,
    /// Virtual address; `None` for headless, empty when no cluster has assigned one.
    #[serde(rename = "clusterIP")]
    pub cluster_ip: String,
    /// All virtual addresses, by family.
    #[serde(rename = "clusterIPs")]
    pub cluster_ips: Vec<String>,
    /// Kind of service.
    #[serde(rename = "type")]
    pub service_type: KubeServiceType,
    /// Name that an `ExternalName` service stands for.
    pub external_name: String,
    /// Whether endpoints that are not ready are used.
    pub publish_not_ready_addresses: bool,
}

impl KubeService {
    /// Whether the service has no virtual address by intent.
    pub fn is_headless(&self) -> bool {
        self.cluster_ip == "None"
    }
}

/// `spec.type` of a Service.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[allow(missing_docs, reason = "each variant is Kubernetes' own name")]
pub enum KubeServiceType {
    #[default]
    #[serde(rename = "ClusterIP")]
    ClusterIp,
    NodePort,
    LoadBalancer,
    ExternalName,
}

/// One port of a Service.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct KubeServicePort {
    /// Name; may be empty when there is one port only.
    pub name: String,
    /// 1 to 65535.
    pub port: u32,
    /// `TCP` (also when empty), `UDP` or `SCTP`.
    pub protocol: String,
    /// Protocol above the transport.
    pub app_protocol: Option<String>,
    /// Port of the pods; absent means `port`.
    pub target_port: Option<TargetPort>,
}

/// A port of a pod, by number or by the name of a container's port.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(untagged)]
pub enum TargetPort {
    /// 1 to 65535.
    Number(u32),
    /// Name of a container's port.
    Name(String),
}

/// A `Pod`, with what the registry needs of spec and status.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Pod {
    /// Addresses, the primary one first; empty until one is assigned.
    pub ips: Vec<String>,
    /// Whether the pod takes traffic.
    pub ready: bool,
    /// Node that it runs on.
    pub node_name: String,
    /// Service account; `default` when none is given.
    pub service_account: String,
    /// Ports of all containers.
    pub ports: Vec<ContainerPort>,
}

/// A declared port of a container.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ContainerPort {
    /// Name that a Service may refer to.
    pub name: String,
    /// 1 to 65535.
    pub container_port: u32,
}

/// An `EndpointSlice`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct EndpointSlice {
    /// `IPv4`, `IPv6` or `FQDN`.
    pub address_type: String,
    /// Addresses with their state.
    pub endpoints: Vec<Endpoint>,
    /// Ports that every endpoint has.
    pub ports: Vec<EndpointPort>,
}

impl EndpointSlice {
    /// Label that names the Service of a slice.
    pub const SERVICE_NAME: &'static str = "kubernetes.io/service-name";
}

/// One entry of an EndpointSlice.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Endpoint {
    /// Addresses; consumers use the first.
    pub addresses: Vec<String>,
    /// State; absent means ready.
    pub conditions: EndpointConditions,
    /// The object behind the address.
    pub target_ref: Option<TargetRef>,
    /// Node that the endpoint runs on.
    pub node_name: Option<String>,
    /// Zone that the endpoint runs in.
    pub zone: Option<String>,
}

/// `conditions` of an endpoint.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct EndpointConditions {
    /// Whether it takes traffic; absent means yes.
    pub ready: Option<bool>,
}

/// `targetRef` of an endpoint.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct TargetRef {
    /// Kind, usually `Pod`.
    pub kind: String,
    /// Name.
    pub name: String,
    /// Namespace.
    pub namespace: String,
}

/// One port of an EndpointSlice.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct EndpointPort {
    /// Name of the Service's port.
    pub name: Option<String>,
    /// Number; absent means all ports.
    pub port: Option<u32>,
}

/// A `ServiceAccount`; its name is all that matters here.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ServiceAccount;

/// A `Node`; its labels give the locality of its pods.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Node;

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct PodDocument {
    spec: PodSpec,
    status: PodStatus,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct PodSpec {
    node_name: String,
    service_account_name: String,
    containers: Vec<Container>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Container {
    ports: Vec<ContainerPort>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct PodStatus {
    phase: String,
    #[serde(rename = "podIP")]
    pod_ip: String,
    #[serde(rename = "podIPs")]
    pod_ips: Vec<PodIp>,
    conditions: Vec<PodCondition>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct PodIp {
    ip: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct PodCondition {
    #[serde(rename = "type")]
    condition_type: String,
    status: String,
}

impl From<PodDocument> for Pod {
    fn from(PodDocument { spec, status }: PodDocument) -> Self {
        let mut ips: Vec<String> = status.pod_ips.into_iter().map(|entry| entry.ip).collect();
        if !status.pod_ip.is_empty() && !ips.contains(&status.pod_ip) {
            ips.insert(0, status.pod_ip);
        }
        // A hand-written pod has an address and no conditions; it counts as ready unless it has ended.
        let ended = matches!(status.phase.as_str(), "Succeeded" | "Failed");
        let ready = status
            .conditions
            .iter()
            .find(|condition| condition.condition_type == "Ready")
            .is_none_or(|condition| condition.status == "True");
        let service_account = if spec.service_account_name.is_empty() {
            "default".to_owned()
        } else {
            spec.service_account_name
        };
        Self {
            ips,
            ready: ready && !ended,
            node_name: spec.node_name,
            service_account,
            ports: spec.containers.into_iter().flat_map(|container| container.ports).collect(),
        }
    }
}
