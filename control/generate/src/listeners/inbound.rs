//! The listener to which traffic for the workload is redirected: `virtualInbound`.

use dhow_control_model::Protocol;
use dhow_control_model::push::ServiceTarget;
use dhow_proto::envoy::config::core::v3::TrafficDirection;
use dhow_proto::envoy::config::listener::v3::{FilterChain, FilterChainMatch};

use super::http_connection_manager::{self as manager, Routes, Side};
use super::{Generated, outbound, parts, tcp_proxy};
use crate::messages::number;
use crate::{ProxyContext, names, routes};

pub(super) fn generate(context: &ProxyContext<'_>, generated: &mut Generated) {
    let port = context.push.mesh.proxy_inbound_listen_port;
    let bind = parts::wildcard(context);
    let mut listener = parts::listener("virtualInbound".to_owned(), bind, port, TrafficDirection::Inbound);
    listener.listener_filters.push(parts::original_destination());
    parts::inspect(context, &mut listener, true);
    outbound::intercepted(context, &mut listener);
    listener.filter_chains.push(outbound::black_hole(context, "virtualInbound-blackhole", port));
    for target in targets(context) {
        listener.filter_chains.extend(target_chains(context, target));
    }
    listener.filter_chains.extend(passthrough_chains(context));
    generated.listeners.push(listener);
}

/// The services' ports on this workload; where several services share a port of the workload, the first one speaks for it.
pub(super) fn targets<'a>(context: &'a ProxyContext<'_>) -> Vec<&'a ServiceTarget> {
    let mut chosen: Vec<&ServiceTarget> = Vec::new();
    for target in context.targets.iter().filter(|target| target.port.protocol != Protocol::Udp) {
        if !chosen.iter().any(|known| known.target_port == target.target_port) {
            chosen.push(target);
        }
    }
    chosen.sort_by_key(|target| target.target_port);
    chosen
}

fn target_chains(context: &ProxyContext<'_>, target: &ServiceTarget) -> Vec<FilterChain> {
    let port =
        FilterChainMatch { destination_port: number(target.target_port), ..FilterChainMatch::default() };
    let name = format!("0.0.0.0_{}", target.target_port);
    let named = |condition: FilterChainMatch, chain: FilterChain| FilterChain {
        name: name.clone(),
        ..parts::matching(condition, chain)
    };
    let prefix = format!("inbound_{name}");
    if target.port.protocol.is_http() {
        return vec![named(port, http_chain(context, target, &prefix))];
    }
    let tcp = tcp_chain(context, target);
    if target.port.protocol != Protocol::Auto {
        return vec![named(port, tcp)];
    }
    let sniffed = FilterChainMatch { destination_port: number(target.target_port), ..parts::sniffed_http() };
    vec![named(sniffed, http_chain(context, target, &prefix)), named(port, tcp)]
}

/// Requests to the workload's port.
pub(super) fn http_chain(context: &ProxyContext<'_>, target: &ServiceTarget, prefix: &str) -> FilterChain {
    let configuration = Box::new(routes::inbound_route(target));
    let filter =
        manager::filter(context, Side::Inbound, names::stat_name(prefix), Routes::Inline(configuration));
    parts::chain(vec![filter])
}

/// Connections to the workload's port.
pub(super) fn tcp_chain(context: &ProxyContext<'_>, target: &ServiceTarget) -> FilterChain {
    let cluster = names::inbound_cluster(target.target_port);
    parts::chain(vec![tcp_proxy::to_cluster(context, &cluster, None)])
}

/// Connections to ports that no service has.
fn passthrough_chains(context: &ProxyContext<'_>) -> Vec<FilterChain> {
    let cluster = names::INBOUND_PASSTHROUGH;
    let operation = None;
    let configuration = Box::new(routes::to_cluster(cluster, "inbound|http|0", operation));
    let http = manager::filter(context, Side::Inbound, cluster.to_owned(), Routes::Inline(configuration));
    let tcp = tcp_proxy::to_cluster(context, cluster, None);
    let named = |name: &str, chain: FilterChain| FilterChain { name: name.to_owned(), ..chain };
    vec![
        named(
            "virtualInbound-catchall-http",
            parts::matching(parts::sniffed_http(), parts::chain(vec![http])),
        ),
        named("virtualInbound", parts::chain(vec![tcp])),
    ]
}
