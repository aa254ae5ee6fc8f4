//! Routes of a sidecar's outbound listeners.

use std::collections::BTreeSet;

use dhow_control_model::Host;
use dhow_control_model::push::{Service, ServicePort};
use dhow_proto::envoy::config::route::v3 as envoy;
use dhow_proto::envoy::config::route::v3::route::Action;
use dhow_proto::envoy::config::route::v3::route_action::ClusterSpecifier;
use dhow_proto::envoy::config::route::v3::route_match::PathSpecifier;
use dhow_proto::envoy::config::route::v3::{RouteConfiguration, VirtualHost};

use super::http::{default_route, routes};
use super::{RouteRequest, Scope, domains};
use crate::messages::{ZERO, truth};
use crate::{ProxyContext, names};

/// Port of hosts that no registry knows: the one that clients leave out.
const DEFAULT_HTTP_PORT: u32 = 80;

pub(super) fn configuration(context: &ProxyContext<'_>, request: &RouteRequest) -> RouteConfiguration {
    let is_http_proxy = *request == RouteRequest::HttpProxy;
    let mut hosts = Vec::new();
    for service in &context.services {
        for port in service.ports.iter().filter(|port| wanted(request, service, port)) {
            let mut domains = domains::of_service(context.proxy, service, &context.push.domain);
            if is_http_proxy {
                domains = domains::with_port(domains, port.number);
            }
            if let RouteRequest::Service(..) = request {
                // The listener has one destination, whatever the host header says.
                domains = vec!["*".to_owned()];
            }
            hosts.push(VirtualHost { domains, ..service_host(context, service, port) });
        }
    }
    if is_http_proxy || *request == RouteRequest::Port(DEFAULT_HTTP_PORT) {
        hosts.extend(unknown_hosts(context, is_http_proxy));
    }
    hosts.sort_by(|a, b| a.name.cmp(&b.name));
    hosts.push(unmatched(context));
    RouteConfiguration {
        name: request.name(),
        virtual_hosts: domains::deduplicate(hosts),
        validate_clusters: truth(false),
        ignore_port_in_host_matching: !is_http_proxy,
        ..RouteConfiguration::default()
    }
}

fn wanted(request: &RouteRequest, service: &Service, port: &ServicePort) -> bool {
    match request {
        RouteRequest::HttpProxy => port.protocol.is_http(),
        RouteRequest::Port(number) => port.number == *number && port.protocol.is_http(),
        RouteRequest::Service(host, number) => port.number == *number && service.host == *host,
        RouteRequest::Gateway(_) => false,
    }
}

fn service_host(context: &ProxyContext<'_>, service: &Service, port: &ServicePort) -> VirtualHost {
    let scope = Scope::mesh(port.number);
    let found = context.push.virtual_services.for_host(&service.host, &context.proxy.namespace);
    let mut own = found.map(|object| routes(context, object, &scope)).unwrap_or_default();
    if own.is_empty() {
        own.push(default_route(context, service, port));
    }
    VirtualHost {
        name: format!("{}:{}", service.host, port.number),
        routes: own,
        include_request_attempt_count: true,
        ..VirtualHost::default()
    }
}

/// Virtual hosts for hosts that only VirtualServices know.
fn unknown_hosts(context: &ProxyContext<'_>, is_http_proxy: bool) -> Vec<VirtualHost> {
    let namespace = &context.proxy.namespace;
    let scope = Scope::mesh(DEFAULT_HTTP_PORT);
    let mut seen: BTreeSet<&Host> = BTreeSet::new();
    let mut hosts = Vec::new();
    for object in context.push.virtual_services.on_mesh(namespace) {
        for host in &object.hosts {
            let known = context.services.iter().any(|service| host.subset_contains(&service.host));
            if known || !seen.insert(host) {
                continue;
            }
            let own = routes(context, object, &scope);
            if own.is_empty() {
                continue;
            }
            let domains = domains::of_host(host);
            hosts.push(VirtualHost {
                name: format!("{host}:{DEFAULT_HTTP_PORT}"),
                domains: if is_http_proxy { domains::with_port(domains, DEFAULT_HTTP_PORT) } else { domains },
                routes: own,
                include_request_attempt_count: true,
                ..VirtualHost::default()
            });
        }
    }
    hosts
}

/// What becomes of hosts that nothing knows.
fn unmatched(context: &ProxyContext<'_>) -> VirtualHost {
    let (name, action) = if context.lets_unknown_through() {
        let route = super::forward(ClusterSpecifier::Cluster(names::PASSTHROUGH.to_owned()), ZERO);
        ("allow_any", Action::Route(route))
    } else {
        let response = envoy::DirectResponseAction { status: 502, ..envoy::DirectResponseAction::default() };
        ("block_all", Action::DirectResponse(response))
    };
    let everything = envoy::RouteMatch {
        path_specifier: Some(PathSpecifier::Prefix("/".to_owned())),
        ..envoy::RouteMatch::default()
    };
    VirtualHost {
        name: name.to_owned(),
        domains: vec!["*".to_owned()],
        routes: vec![envoy::Route {
            name: name.to_owned(),
            r#match: Some(everything),
            action: Some(action),
            ..envoy::Route::default()
        }],
        include_request_attempt_count: true,
        ..VirtualHost::default()
    }
}
