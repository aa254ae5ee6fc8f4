//! Routes of a gateway: the VirtualServices of its hosts, several for one host merged.

use dhow_control_model::push::{MergedServer, ResolvedVirtualService};
use dhow_control_model::{Host, most_specific};
use dhow_proto::envoy::config::route::v3::route_match::PathSpecifier;
use dhow_proto::envoy::config::route::v3::virtual_host::TlsRequirementType;
use dhow_proto::envoy::config::route::v3::{Route, RouteConfiguration, VirtualHost};

use super::Scope;
use super::http::routes;
use crate::ProxyContext;
use crate::messages::truth;

pub(super) fn configuration(context: &ProxyContext<'_>, name: &str) -> RouteConfiguration {
    let servers: Vec<&MergedServer> = context
        .gateway
        .groups
        .iter()
        .flat_map(|group| {
            group.servers.iter().filter(|server| server.route_name(group.port).as_deref() == Some(name))
        })
        .collect();
    let port = servers.first().map_or(0, |server| server.server().port.number);
    let mut hosts: Vec<(Host, VirtualHost)> = Vec::new();
    for server in &servers {
        let redirects = server.server().tls.as_ref().is_some_and(|tls| tls.https_redirect);
        for object in context.push.virtual_services.iter() {
            add(context, &mut hosts, server, object, port, redirects);
        }
        if redirects {
            for (_, host) in &server.hosts {
                if !hosts.iter().any(|(known, _)| known == host) {
                    hosts.push((host.clone(), virtual_host(host, port, true)));
                }
            }
        }
    }
    let mut virtual_hosts: Vec<VirtualHost> = hosts.into_iter().map(|(_, host)| host).collect();
    virtual_hosts.iter_mut().for_each(|host| catch_all_last(&mut host.routes));
    virtual_hosts.sort_by(|a, b| a.name.cmp(&b.name));
    if virtual_hosts.is_empty() {
        // Without any route Envoy answers 404 to everything.
        virtual_hosts.push(VirtualHost {
            name: format!("blackhole:{port}"),
            domains: vec!["*".to_owned()],
            ..VirtualHost::default()
        });
    }
    RouteConfiguration {
        name: name.to_owned(),
        virtual_hosts,
        validate_clusters: truth(false),
        ignore_port_in_host_matching: true,
        ..RouteConfiguration::default()
    }
}

/// Adds a VirtualService's routes to every host that it shares with the server.
fn add(
    context: &ProxyContext<'_>,
    hosts: &mut Vec<(Host, VirtualHost)>,
    server: &MergedServer,
    object: &ResolvedVirtualService,
    port: u32,
    redirects: bool,
) {
    let gateway = server.gateway_name();
    if !object.on_gateway(&gateway) || !object.visible_to(&context.proxy.namespace) {
        return;
    }
    let shared = shared_hosts(server, object);
    if shared.is_empty() {
        return;
    }
    let scope = Scope { gateways: vec![gateway], port };
    let own = routes(context, object, &scope);
    if own.is_empty() {
        return;
    }
    for host in shared {
        let index = match hosts.iter().position(|(known, _)| *known == host) {
            Some(index) => index,
            None => {
                hosts.push((host.clone(), virtual_host(&host, port, false)));
                hosts.len() - 1
            }
        };
        let entry = &mut hosts[index].1;
        if redirects {
            entry.require_tls = TlsRequirementType::All.into();
        }
        // Two servers of one gateway may share a host: its routes are there already.
        for route in &own {
            if !entry.routes.contains(route) {
                entry.routes.push(route.clone());
            }
        }
    }
}

/// For each host of the VirtualService that the server serves, the narrower of the two names.
pub(crate) fn shared_hosts(server: &MergedServer, object: &ResolvedVirtualService) -> Vec<Host> {
    let allowed: Vec<&Host> = server
        .hosts
        .iter()
        .filter(|(namespace, _)| namespace == "*" || *namespace == object.meta.namespace)
        .map(|(_, host)| host)
        .collect();
    let mut shared = Vec::new();
    for host in &object.hosts {
        if most_specific(host, allowed.iter().copied()).is_some() {
            shared.push(host.clone());
        } else {
            shared.extend(
                allowed.iter().filter(|allowed| host.subset_contains(allowed)).map(|host| (*host).clone()),
            );
        }
    }
    shared.sort();
    shared.dedup();
    shared
}

fn virtual_host(host: &Host, port: u32, redirects: bool) -> VirtualHost {
    let requirement = if redirects { TlsRequirementType::All } else { TlsRequirementType::None };
    VirtualHost {
        name: format!("{host}:{port}"),
        domains: vec![host.as_str().to_owned()],
        include_request_attempt_count: true,
        require_tls: requirement.into(),
        ..VirtualHost::default()
    }
}

/// Routes of several VirtualServices are one list: those that match everything go behind the others.
fn catch_all_last(routes: &mut Vec<Route>) {
    let is_catch_all = |route: &Route| {
        route.r#match.as_ref().is_some_and(|condition| {
            let any_path = match &condition.path_specifier {
                Some(PathSpecifier::Prefix(prefix)) => prefix == "/",
                Some(PathSpecifier::SafeRegex(regex)) => regex.regex == "*" || regex.regex == ".*",
                _ => false,
            };
            any_path && condition.headers.is_empty() && condition.query_parameters.is_empty()
        })
    };
    let (last, first): (Vec<Route>, Vec<Route>) = std::mem::take(routes).into_iter().partition(is_catch_all);
    routes.extend(first.into_iter().chain(last));
}
