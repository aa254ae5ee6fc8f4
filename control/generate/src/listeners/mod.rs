//! LDS: where a proxy accepts connections, and what it does with them.

mod access_log;
mod direct;
mod gateway;
mod http_connection_manager;
mod http_filters;
mod inbound;
mod outbound;
mod parts;
mod tcp_proxy;
mod tcp_routes;
mod tls;

use dhow_control_model::push::{Interception, ProxyType};
use dhow_proto::envoy::config::listener::v3::Listener;

use crate::ProxyContext;
use crate::routes::RouteRequest;

/// The listeners of a proxy, and the route configurations that they ask for.
#[derive(Debug, Default)]
pub(crate) struct Generated {
    pub listeners: Vec<Listener>,
    pub routes: Vec<RouteRequest>,
}

pub(crate) fn generate(context: &ProxyContext<'_>) -> Generated {
    let mut generated = Generated::default();
    match (context.proxy.proxy_type, context.proxy.interception) {
        (ProxyType::Router, _) => gateway::generate(context, &mut generated),
        (ProxyType::Sidecar, Interception::None) => direct::generate(context, &mut generated),
        (ProxyType::Sidecar, Interception::Redirect | Interception::Tproxy) => {
            outbound::generate(context, &mut generated);
            inbound::generate(context, &mut generated);
        }
    }
    generated
}
