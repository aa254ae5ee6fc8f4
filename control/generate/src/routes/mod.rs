//! RDS: which cluster a request goes to.

mod domains;
mod gateway;
mod http;
mod inbound;
mod sidecar;

use dhow_control_model::Host;
use dhow_control_model::push::MESH_GATEWAY;
use dhow_proto::envoy::config::route::v3::route_action::ClusterSpecifier;
use dhow_proto::envoy::config::route::v3::{RouteAction, RouteConfiguration};
use dhow_proto::google::protobuf as wkt;

use crate::ProxyContext;

pub(crate) use gateway::shared_hosts;
pub(crate) use http::{cors_filter_name, fault_filter_name};
pub(crate) use inbound::{inline as inbound_route, to_cluster};

/// Where rules will be used, which decides what of a VirtualService applies.
#[derive(Debug, Clone)]
pub(crate) struct Scope {
    /// The gateways that use them; `mesh` for sidecars.
    pub gateways: Vec<String>,
    /// Port that callers address: of the service, or of the gateway's server.
    pub port: u32,
}

impl Scope {
    /// A sidecar's traffic to a port.
    pub(crate) fn mesh(port: u32) -> Self {
        Self { gateways: vec![MESH_GATEWAY.to_owned()], port }
    }
}

/// Forwards to the clusters, with one time limit for every kind of request; zero means none.
#[allow(
    deprecated,
    reason = "Istio limits gRPC by this field, and its successor changes what the limit covers"
)]
fn forward(clusters: ClusterSpecifier, timeout: wkt::Duration) -> RouteAction {
    RouteAction {
        cluster_specifier: Some(clusters),
        timeout: Some(timeout),
        max_grpc_timeout: Some(timeout),
        ..RouteAction::default()
    }
}

/// A route configuration that a listener asks for.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum RouteRequest {
    /// All HTTP services of a port: `9080`.
    Port(u32),
    /// One service's port whose protocol is detected: `db.default.svc.cluster.local:9080`.
    Service(Host, u32),
    /// Everything: `http_proxy`.
    HttpProxy,
    /// A gateway's: `http.8080`, `https.8443.https.gateway.default`.
    Gateway(String),
}

impl RouteRequest {
    /// Its name on the wire.
    pub(crate) fn name(&self) -> String {
        match self {
            Self::Port(port) => port.to_string(),
            Self::Service(host, port) => format!("{host}:{port}"),
            Self::HttpProxy => crate::names::HTTP_PROXY_ROUTE.to_owned(),
            Self::Gateway(name) => name.clone(),
        }
    }
}

/// The route configurations that are asked for, by name.
pub(crate) fn generate(context: &ProxyContext<'_>, requests: &[RouteRequest]) -> Vec<RouteConfiguration> {
    let mut requests: Vec<&RouteRequest> = requests.iter().collect();
    requests.sort();
    requests.dedup();
    let configuration = |request: &&RouteRequest| match request {
        RouteRequest::Gateway(name) => gateway::configuration(context, name),
        _ => sidecar::configuration(context, request),
    };
    let mut configurations: Vec<RouteConfiguration> = requests.iter().map(configuration).collect();
    configurations.sort_by(|a, b| a.name.cmp(&b.name));
    configurations
}
