//! Listeners without interception: applications and callers connect to the pod's address themselves.
//!
//! Inbound listeners stand on the pod address in front of the application, which listens elsewhere. Outbound there is an
//! HTTP proxy, and one listener for each port of the mesh that is free on the pod address.

use std::collections::BTreeMap;

use dhow_base::FieldPath;
use dhow_control_model::Protocol;
use dhow_control_model::push::{Service, ServicePort};
use dhow_proto::envoy::config::core::v3::TrafficDirection;

use super::http_connection_manager::{self as manager, Routes, Side};
use super::{Generated, inbound, outbound, parts, tcp_routes};
use crate::routes::RouteRequest;
use crate::{ProxyContext, names};

pub(super) fn generate(context: &ProxyContext<'_>, generated: &mut Generated) {
    let address = context.proxy.ip().to_string();
    let mut taken: Vec<u32> = Vec::new();
    for target in inbound::targets(context) {
        let name = format!("{address}_{}", target.target_port);
        let mut listener =
            parts::listener(name.clone(), &address, target.target_port, TrafficDirection::Inbound);
        let prefix = format!("inbound_{name}");
        if target.port.protocol.is_http() {
            listener.filter_chains = vec![inbound::http_chain(context, target, &prefix)];
        } else if target.port.protocol == Protocol::Auto {
            let http = inbound::http_chain(context, target, &prefix);
            listener.filter_chains = vec![parts::matching(parts::sniffed_http(), http)];
            listener.default_filter_chain = Some(inbound::tcp_chain(context, target));
            parts::inspect(context, &mut listener, true);
        } else {
            listener.filter_chains = vec![inbound::tcp_chain(context, target)];
        }
        taken.push(target.target_port);
        generated.listeners.push(listener);
    }
    let http_proxy_port = context.proxy.http_proxy_port.map_or(context.push.mesh.proxy_http_port, u32::from);
    if http_proxy_port != 0 && !taken.contains(&http_proxy_port) {
        taken.push(http_proxy_port);
        generated.listeners.push(outbound::http_proxy(context, &address, http_proxy_port));
        generated.routes.push(RouteRequest::HttpProxy);
    }
    outbound_ports(context, &address, &taken, generated);
}

fn outbound_ports(context: &ProxyContext<'_>, address: &str, taken: &[u32], generated: &mut Generated) {
    let mut ports: BTreeMap<u32, Vec<(&Service, &ServicePort)>> = BTreeMap::new();
    for service in &context.services {
        for port in service.ports.iter().filter(|port| port.protocol != Protocol::Udp) {
            ports.entry(port.number).or_default().push((service, port));
        }
    }
    for (number, users) in ports {
        // The HTTP proxy reaches what has no listener of its own, so a port that is taken here costs nothing for HTTP.
        if taken.contains(&number) {
            warn_tcp(context, &users, "the workload itself uses that port");
            continue;
        }
        let name = format!("{address}_{number}");
        let mut listener = parts::listener(name.clone(), address, number, TrafficDirection::Outbound);
        if users.iter().any(|(_, port)| port.protocol.is_http()) {
            let prefix = names::stat_name(&format!("outbound_{name}"));
            let request = RouteRequest::Port(number);
            let filter = manager::filter(context, Side::Outbound, prefix, Routes::Rds(request.name()));
            listener.filter_chains = vec![parts::chain(vec![filter])];
            generated.routes.push(request);
            warn_tcp(context, &users, "HTTP services use that port");
        } else if let [(service, port)] = users.as_slice() {
            listener.filter_chains = tcp_routes::service_chains(context, service, port);
            if port.protocol.is_tls() {
                parts::inspect(context, &mut listener, false);
            }
        } else if users.iter().all(|(_, port)| port.protocol.is_tls()) {
            listener.filter_chains = tcp_routes::chains_by_server_name(context, &users);
            parts::inspect(context, &mut listener, false);
        } else {
            warn_tcp(
                context,
                &users,
                "several services use that port and nothing tells their connections apart",
            );
            continue;
        }
        generated.listeners.push(listener);
    }
}

fn warn_tcp(context: &ProxyContext<'_>, users: &[(&Service, &ServicePort)], reason: &str) {
    for (service, port) in users.iter().filter(|(_, port)| !port.protocol.is_http()) {
        let message = format!(
            "port {} cannot be reached from {} without interception: {reason}",
            port.number, context.proxy.id
        );
        context.notice(service.meta.key(), FieldPath::from("spec.ports"), message);
    }
}
