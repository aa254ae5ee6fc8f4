//! Envoy's configuration for one proxy, as a pure function of the mesh's state; it must not know files, sessions, or time.

mod clusters;
mod context;
mod encode;
mod endpoints;
mod listeners;
mod messages;
mod names;
mod node;
mod routes;

pub use context::ProxyContext;
pub use encode::resource;
pub use node::proxy_of_node;

use dhow_control_model::push::{Notice, Proxy, PushContext};
use dhow_proto::envoy::config::cluster::v3::Cluster;
use dhow_proto::envoy::config::endpoint::v3::ClusterLoadAssignment;
use dhow_proto::envoy::config::listener::v3::Listener;
use dhow_proto::envoy::config::route::v3::RouteConfiguration;

/// Everything that a proxy gets, and what of the mesh's configuration it cannot be given.
#[derive(Debug, Clone, Default)]
pub struct ProxyConfiguration {
    /// CDS, in a stable order.
    pub clusters: Vec<Cluster>,
    /// EDS: one assignment for each cluster that asks for one.
    pub endpoints: Vec<ClusterLoadAssignment>,
    /// LDS, in a stable order.
    pub listeners: Vec<Listener>,
    /// RDS: one configuration for each name that a listener asks for.
    pub routes: Vec<RouteConfiguration>,
    /// What has not the effect that its author may expect, on this proxy.
    pub notices: Vec<Notice>,
}

/// Generates a proxy's configuration.
pub fn generate(push: &PushContext, proxy: &Proxy) -> ProxyConfiguration {
    let context = ProxyContext::new(push, proxy);
    let clusters = clusters::generate(&context);
    let endpoints = endpoints::generate(&context, &clusters);
    let listeners::Generated { listeners, routes } = listeners::generate(&context);
    let routes = routes::generate(&context, &routes);
    ProxyConfiguration { clusters, endpoints, listeners, routes, notices: context.into_notices() }
}

#[cfg(test)]
mod tests;
