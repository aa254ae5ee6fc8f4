//! TCP and TLS rules of a VirtualService as filter chains.

use dhow_control_model::istio::{L4Match, RouteDestination, TlsMatch};
use dhow_control_model::push::{ResolvedVirtualService, Service, ServicePort};
use dhow_control_model::{Host, Labels, selects};
use dhow_proto::envoy::config::listener::v3::{FilterChain, FilterChainMatch};

use super::{parts, tcp_proxy};
use crate::messages::{cidr, origin_metadata};
use crate::routes::Scope;
use crate::{ProxyContext, names};

/// Filter chains of the TCP rules that apply in the scope, up to the first that takes every connection.
pub(super) fn tcp_chains(
    context: &ProxyContext<'_>,
    object: &ResolvedVirtualService,
    scope: &Scope,
) -> Vec<FilterChain> {
    let mut chains = Vec::new();
    for rule in &object.spec.tcp {
        let applying: Vec<&L4Match> =
            rule.matches.iter().filter(|entry| tcp_applies(context, entry, scope)).collect();
        if applying.is_empty() && !rule.matches.is_empty() {
            continue;
        }
        let subnets: Vec<String> =
            applying.iter().flat_map(|entry| entry.destination_subnets.clone()).collect();
        let takes_all =
            rule.matches.is_empty() || applying.iter().any(|entry| entry.destination_subnets.is_empty());
        let own = chain(context, object, &rule.route, scope);
        if takes_all {
            chains.push(own);
            return chains;
        }
        let condition = FilterChainMatch {
            prefix_ranges: subnets.iter().filter_map(|subnet| cidr(subnet)).collect(),
            ..FilterChainMatch::default()
        };
        chains.push(parts::matching(condition, own));
    }
    chains
}

/// Filter chains of the TLS rules that apply in the scope, chosen by server name. `served` narrows the names to those that
/// a gateway's server has; each name is used once.
pub(super) fn tls_chains(
    context: &ProxyContext<'_>,
    object: &ResolvedVirtualService,
    scope: &Scope,
    served: Option<&[Host]>,
    seen: &mut Vec<String>,
) -> Vec<FilterChain> {
    let mut chains = Vec::new();
    for rule in &object.spec.tls {
        for entry in rule.matches.iter().filter(|entry| tls_applies(context, entry, scope)) {
            let allowed = |name: &String| {
                let host = Host::new(name);
                served.is_none_or(|served| served.iter().any(|own| own.subset_contains(&host)))
            };
            let new: Vec<String> = entry
                .sni_hosts
                .iter()
                .filter(|name| allowed(name) && !seen.contains(name))
                .cloned()
                .collect();
            if new.is_empty() {
                continue;
            }
            seen.extend(new.iter().cloned());
            let condition = FilterChainMatch {
                // A lone star means every name, which Envoy says by leaving the list empty.
                server_names: new.into_iter().filter(|name| name != "*").collect(),
                prefix_ranges: entry.destination_subnets.iter().filter_map(|subnet| cidr(subnet)).collect(),
                transport_protocol: "tls".to_owned(),
                ..FilterChainMatch::default()
            };
            chains.push(parts::matching(condition, chain(context, object, &rule.route, scope)));
        }
    }
    chains
}

fn chain(
    context: &ProxyContext<'_>,
    object: &ResolvedVirtualService,
    targets: &[RouteDestination],
    scope: &Scope,
) -> FilterChain {
    let owner = format!("{}.{}", object.meta.name, object.meta.namespace);
    let filter = tcp_proxy::to_destinations(context, targets, scope.port, &owner);
    FilterChain { metadata: Some(origin_metadata(&object.meta)), ..parts::chain(vec![filter]) }
}

fn tcp_applies(context: &ProxyContext<'_>, entry: &L4Match, scope: &Scope) -> bool {
    let L4Match { destination_subnets: _, port, source_subnet: _, source_labels, gateways, source_namespace } =
        entry;
    applies(context, scope, *port, gateways, source_labels, source_namespace)
}

fn tls_applies(context: &ProxyContext<'_>, entry: &TlsMatch, scope: &Scope) -> bool {
    let TlsMatch { sni_hosts: _, destination_subnets: _, port, source_labels, gateways, source_namespace } =
        entry;
    applies(context, scope, *port, gateways, source_labels, source_namespace)
}

fn applies(
    context: &ProxyContext<'_>,
    scope: &Scope,
    port: Option<u32>,
    gateways: &[String],
    source_labels: &Labels,
    source_namespace: &str,
) -> bool {
    let proxy = context.proxy;
    port.is_none_or(|port| port == scope.port)
        && (gateways.is_empty() || gateways.iter().any(|name| scope.gateways.contains(name)))
        && selects(source_labels, &proxy.labels)
        && (source_namespace.is_empty() || source_namespace == proxy.namespace)
}

/// Filter chains of a service's TCP or TLS port in a sidecar: its VirtualService's rules, then the service itself.
pub(super) fn service_chains(
    context: &ProxyContext<'_>,
    service: &Service,
    port: &ServicePort,
) -> Vec<FilterChain> {
    let scope = Scope::mesh(port.number);
    let mut chains = Vec::new();
    if let Some(object) = context.push.virtual_services.for_host(&service.host, &context.proxy.namespace) {
        if port.protocol.is_tls() {
            chains.extend(tls_chains(context, object, &scope, None, &mut Vec::new()));
        }
        chains.extend(tcp_chains(context, object, &scope));
    }
    let takes_all = |chain: &FilterChain| chain.filter_chain_match.is_none();
    if !chains.iter().any(takes_all) {
        chains.push(default_chain(context, service, port));
    }
    chains
}

fn default_chain(context: &ProxyContext<'_>, service: &Service, port: &ServicePort) -> FilterChain {
    let cluster = names::outbound_cluster(port.number, "", &service.host);
    let idle_timeout = context
        .policy(service, "", port.number)
        .connection_pool
        .and_then(|pool| pool.tcp)
        .and_then(|tcp| tcp.idle_timeout);
    parts::chain(vec![tcp_proxy::to_cluster(context, &cluster, idle_timeout)])
}

/// Filter chains of several services that share a TLS port: the server name tells them apart.
pub(super) fn chains_by_server_name(
    context: &ProxyContext<'_>,
    users: &[(&Service, &ServicePort)],
) -> Vec<FilterChain> {
    let mut chains: Vec<FilterChain> = Vec::new();
    for (service, port) in users {
        for chain in service_chains(context, service, port) {
            let chain =
                if chain.filter_chain_match.is_none() { for_server_name(service, chain) } else { chain };
            if !chains.iter().any(|known| known.filter_chain_match == chain.filter_chain_match) {
                chains.push(chain);
            }
        }
    }
    chains
}

/// A chain for connections that ask for the service by its name.
pub(super) fn for_server_name(service: &Service, chain: FilterChain) -> FilterChain {
    let condition = FilterChainMatch {
        server_names: vec![service.host.as_str().to_owned()],
        transport_protocol: "tls".to_owned(),
        ..FilterChainMatch::default()
    };
    parts::matching(condition, chain)
}
