//! Listeners for traffic that the kernel redirects on its way out: `virtualOutbound`, and one for each port or address
//! that is looked up there.

use std::collections::BTreeMap;

use dhow_control_model::push::{Interception, Service, ServicePort};
use dhow_control_model::{Meta, Protocol};
use dhow_proto::envoy::config::core::v3::TrafficDirection;
use dhow_proto::envoy::config::listener::v3::{FilterChain, FilterChainMatch, Listener};

use super::http_connection_manager::{self as manager, Routes, Side};
use super::{Generated, parts, tcp_proxy, tcp_routes};
use crate::messages::{cidr, number, truth};
use crate::routes::RouteRequest;
use crate::{ProxyContext, names};

pub(super) fn generate(context: &ProxyContext<'_>, generated: &mut Generated) {
    let mut ports = Ports { context, listeners: BTreeMap::new(), routes: &mut generated.routes };
    for service in &context.services {
        for port in service.ports.iter().filter(|port| port.protocol != Protocol::Udp) {
            ports.add(service, port);
        }
    }
    let listeners = std::mem::take(&mut ports.listeners);
    generated.listeners.push(virtual_outbound(context));
    generated
        .listeners
        .extend(listeners.into_iter().map(|((bind, port), parts)| parts.finish(context, &bind, port)));
    let http_proxy_port = context.proxy.http_proxy_port.map_or(context.push.mesh.proxy_http_port, u32::from);
    if http_proxy_port != 0 {
        generated.listeners.push(http_proxy(context, "127.0.0.1", http_proxy_port));
        generated.routes.push(RouteRequest::HttpProxy);
    }
}

/// The listener to which applications send requests as to an HTTP proxy.
pub(super) fn http_proxy(context: &ProxyContext<'_>, bind: &str, port: u32) -> Listener {
    let name = format!("{bind}_{port}");
    let prefix = names::stat_name(&format!("outbound_{name}"));
    let routes = Routes::Rds(RouteRequest::HttpProxy.name());
    let mut listener = parts::listener(name, bind, port, TrafficDirection::Outbound);
    listener.filter_chains =
        vec![parts::chain(vec![manager::filter(context, Side::Outbound, prefix, routes)])];
    listener
}

fn virtual_outbound(context: &ProxyContext<'_>) -> Listener {
    let port = context.push.mesh.proxy_listen_port;
    let mut listener = parts::listener(
        "virtualOutbound".to_owned(),
        parts::wildcard(context),
        port,
        TrafficDirection::Outbound,
    );
    listener.use_original_dst = truth(true);
    intercepted(context, &mut listener);
    listener.filter_chains = vec![
        black_hole(context, "virtualOutbound-blackhole", port),
        FilterChain { name: "virtualOutbound-catchall-tcp".to_owned(), ..unknown_destination(context) },
    ];
    listener
}

/// The kernel's transparent mode keeps addresses only for sockets that ask for it.
pub(super) fn intercepted(context: &ProxyContext<'_>, listener: &mut Listener) {
    if context.proxy.interception == Interception::Tproxy {
        listener.transparent = truth(true);
    }
}

/// Connections to the interception port itself, which would come back for ever.
pub(super) fn black_hole(context: &ProxyContext<'_>, name: &str, port: u32) -> FilterChain {
    let condition = FilterChainMatch { destination_port: number(port), ..FilterChainMatch::default() };
    let chain = parts::chain(vec![tcp_proxy::to_cluster(context, names::BLACK_HOLE, None)]);
    FilterChain { name: name.to_owned(), ..parts::matching(condition, chain) }
}

fn unknown_destination(context: &ProxyContext<'_>) -> FilterChain {
    parts::chain(vec![tcp_proxy::to_cluster(context, context.unknown_destination(), None)])
}

/// What a listener of one address and port has to do.
#[derive(Default)]
struct Duties {
    http: Option<RouteRequest>,
    /// Chosen by server name or address range.
    chosen: Vec<FilterChain>,
    /// For everything else, and the object that said so.
    other: Option<(FilterChain, Meta)>,
    inspects_tls: bool,
}

struct Ports<'a, 'b> {
    context: &'a ProxyContext<'b>,
    listeners: BTreeMap<(String, u32), Duties>,
    routes: &'a mut Vec<RouteRequest>,
}

impl Ports<'_, '_> {
    fn add(&mut self, service: &Service, port: &ServicePort) {
        let wildcard = parts::wildcard(self.context).to_owned();
        if port.protocol.is_http() {
            self.add_http((wildcard, port.number), RouteRequest::Port(port.number), service);
            return;
        }
        let (ranges, addresses): (Vec<String>, Vec<String>) =
            service.addresses.iter().cloned().partition(|address| address.contains('/'));
        let mut binds = addresses;
        if service.headless {
            // Without a virtual address callers connect to the workloads themselves.
            let endpoints = service.port(port.number).map(|(_, endpoints)| endpoints).unwrap_or_default();
            binds.extend(endpoints.iter().map(|endpoint| endpoint.address.clone()));
        }
        for bind in binds {
            self.add_opaque((bind, port.number), service, port, &[]);
        }
        if !ranges.is_empty() || (service.addresses.is_empty() && !service.headless) {
            self.add_opaque((wildcard, port.number), service, port, &ranges);
        }
    }

    fn add_http(&mut self, key: (String, u32), request: RouteRequest, service: &Service) {
        let entry = self.listeners.entry(key.clone()).or_default();
        if let Some((_, first)) = &entry.other {
            conflict(self.context, service, &key, &first.key().to_string());
            return;
        }
        entry.http = Some(request.clone());
        self.routes.push(request);
    }

    fn add_opaque(&mut self, key: (String, u32), service: &Service, port: &ServicePort, ranges: &[String]) {
        let entry = self.listeners.entry(key.clone()).or_default();
        let is_shared = key.0 == parts::wildcard(self.context);
        for mut chain in tcp_routes::service_chains(self.context, service, port) {
            if !ranges.is_empty() {
                let condition = chain.filter_chain_match.get_or_insert_default();
                condition.prefix_ranges = ranges.iter().filter_map(|range| cidr(range)).collect();
            } else if is_shared && port.protocol.is_tls() && chain.filter_chain_match.is_none() {
                // Several services share the address: the server name tells them apart.
                chain = tcp_routes::for_server_name(service, chain);
            }
            let by_name =
                chain.filter_chain_match.as_ref().is_some_and(|condition| !condition.server_names.is_empty());
            entry.inspects_tls |= by_name;
            if chain.filter_chain_match.is_some() {
                let taken = |known: &FilterChain| known.filter_chain_match == chain.filter_chain_match;
                if !entry.chosen.iter().any(taken) {
                    entry.chosen.push(chain);
                }
            } else if let Some((_, first)) = &entry.other {
                let first = first.key().to_string();
                conflict(self.context, service, &key, &first);
            } else if entry.http.is_some() && port.protocol != Protocol::Auto {
                conflict(self.context, service, &key, "an HTTP service");
            } else {
                entry.other = Some((chain, service.meta.clone()));
                if port.protocol == Protocol::Auto && entry.http.is_none() {
                    let request = RouteRequest::Service(service.host.clone(), port.number);
                    entry.http = Some(request.clone());
                    self.routes.push(request);
                }
            }
        }
    }
}

fn conflict(context: &ProxyContext<'_>, service: &Service, key: &(String, u32), first: &str) {
    let message = format!("{}:{} is taken by {first}: sidecars do not listen for this port", key.0, key.1);
    context.notice(service.meta.key(), dhow_base::FieldPath::from("spec.ports"), message);
}

impl Duties {
    fn finish(self, context: &ProxyContext<'_>, bind: &str, port: u32) -> Listener {
        let name = format!("{bind}_{port}");
        let mut listener = parts::listener(name.clone(), bind, port, TrafficDirection::Outbound);
        listener.bind_to_port = truth(false);
        intercepted(context, &mut listener);
        let inspects_http = self.http.is_some();
        if let Some(request) = &self.http {
            let prefix = names::stat_name(&format!("outbound_{name}"));
            let filter = manager::filter(context, Side::Outbound, prefix, Routes::Rds(request.name()));
            listener.filter_chains.push(parts::matching(parts::sniffed_http(), parts::chain(vec![filter])));
        }
        listener.filter_chains.extend(self.chosen);
        listener.default_filter_chain = match self.other {
            Some((chain, _)) => Some(chain),
            // What is not HTTP on an HTTP port, and names that nothing knows, are unknown destinations.
            None => Some(FilterChain {
                name: "PassthroughFilterChain".to_owned(),
                ..unknown_destination(context)
            }),
        };
        if !inspects_http && !self.inspects_tls && listener.filter_chains.is_empty() {
            listener.filter_chains.extend(listener.default_filter_chain.take());
        } else if inspects_http || self.inspects_tls {
            parts::inspect(context, &mut listener, inspects_http);
        }
        listener
    }
}
