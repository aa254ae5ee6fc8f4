//! Listeners of a gateway: one for each port of its merged servers.

use dhow_control_model::istio::ServerTlsMode;
use dhow_control_model::push::{MergedServer, ServerGroup};
use dhow_proto::envoy::config::core::v3::TrafficDirection;
use dhow_proto::envoy::config::listener::v3::{FilterChain, FilterChainMatch};

use super::http_connection_manager::{self as manager, Routes, Side};
use super::{Generated, parts, tcp_routes, tls};
use crate::routes::{RouteRequest, Scope, shared_hosts};
use crate::{ProxyContext, names};

/// Annotation with the address that a gateway on a shared machine listens on.
const BIND_ADDRESS: &str = "proxy.dhow.dev/bind-address";

pub(super) fn generate(context: &ProxyContext<'_>, generated: &mut Generated) {
    for group in &context.gateway.groups {
        let preferred =
            context.proxy.annotations.get(BIND_ADDRESS).map_or(parts::wildcard(context), String::as_str);
        let bind = if group.bind.is_empty() { preferred } else { &group.bind };
        let mut seen = Vec::new();
        let mut chains = Vec::new();
        for (index, server) in group.servers.iter().enumerate() {
            if server.routes_http() {
                // All plaintext HTTP servers of a port share one connection manager and one route configuration.
                if index == 0 || server.protocol().is_tls() {
                    chains.push(http_chain(context, group, server, bind, &mut generated.routes));
                }
            } else {
                chains.extend(opaque_chains(context, group, server, &mut seen));
            }
        }
        if chains.is_empty() {
            let server = &group.servers[0];
            let path = dhow_base::FieldPath::from("spec.servers").index(server.index);
            let message = "no VirtualService routes its connections: the port is not opened";
            context.notice(server.gateway.meta.key(), path, message);
            continue;
        }
        let name = format!("{bind}_{}", group.port);
        let mut listener = parts::listener(name, bind, group.port, TrafficDirection::Outbound);
        if group.tls {
            parts::inspect(context, &mut listener, false);
        }
        listener.filter_chains = chains;
        generated.listeners.push(listener);
    }
}

fn http_chain(
    context: &ProxyContext<'_>,
    group: &ServerGroup,
    server: &MergedServer,
    bind: &str,
    routes: &mut Vec<RouteRequest>,
) -> FilterChain {
    // Only servers that route requests come here, and those have a route name.
    let name = server.route_name(group.port).unwrap_or_default();
    routes.push(RouteRequest::Gateway(name.clone()));
    let stat_prefix = names::stat_name(&format!("outbound_{bind}_{}", group.port));
    let mode = server.server().tls.as_ref().map(|tls| tls.mode);
    let side = Side::Gateway {
        asks_for_certificate: server.terminates_tls()
            && mode.is_some_and(|mode| mode != ServerTlsMode::Simple),
    };
    let filter = manager::filter(context, side, stat_prefix, Routes::Rds(name));
    let chain = parts::chain(vec![filter]);
    if !server.protocol().is_tls() {
        return chain;
    }
    terminated(server, chain)
}

/// TLS ends here, for the server's hosts.
fn terminated(server: &MergedServer, chain: FilterChain) -> FilterChain {
    let mut hosts: Vec<String> = server.hosts.iter().map(|(_, host)| host.as_str().to_owned()).collect();
    if hosts.iter().any(|host| host == "*") {
        hosts.clear();
    }
    let condition = FilterChainMatch { server_names: hosts, ..FilterChainMatch::default() };
    FilterChain {
        transport_socket: server.server().tls.as_ref().map(|tls| tls::socket(server, tls)),
        ..parts::matching(condition, chain)
    }
}

/// Chains of a TCP server, or of a TLS server whatever it does with TLS, from the VirtualServices of its hosts.
fn opaque_chains(
    context: &ProxyContext<'_>,
    group: &ServerGroup,
    server: &MergedServer,
    seen: &mut Vec<String>,
) -> Vec<FilterChain> {
    let gateway = server.gateway_name();
    let mut chains: Vec<FilterChain> = Vec::new();
    for object in context.push.virtual_services.iter() {
        if !object.on_gateway(&gateway) || !object.visible_to(&context.proxy.namespace) {
            continue;
        }
        let shared = shared_hosts(server, object);
        if shared.is_empty() {
            continue;
        }
        let scope = Scope { gateways: vec![gateway.clone()], port: server.server().port.number };
        if group.tls && !server.terminates_tls() {
            chains.extend(tcp_routes::tls_chains(context, object, &scope, Some(&shared), seen));
        } else if !chains.iter().any(|chain| chain.filter_chain_match.is_none()) {
            chains.extend(tcp_routes::tcp_chains(context, object, &scope));
        }
    }
    if server.terminates_tls() {
        // The first rule that takes every connection is the one; server names already choose the chain.
        chains.truncate(1);
        return chains.into_iter().map(|chain| terminated(server, chain)).collect();
    }
    chains
}
