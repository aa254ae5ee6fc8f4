//! The names under which a virtual host is reached.

use std::collections::HashSet;
use std::net::IpAddr;

use dhow_control_model::Host;
use dhow_control_model::push::{Proxy, Registry, Service};
use dhow_proto::envoy::config::route::v3::VirtualHost;

/// Names of a service: the complete one, the shorter ones that resolve in the proxy's namespace, and its addresses.
pub(super) fn of_service(proxy: &Proxy, service: &Service, domain: &str) -> Vec<String> {
    let mut names = vec![service.host.as_str().to_owned()];
    if service.registry == Registry::Kubernetes {
        names.extend(short_names(proxy, service, domain));
    }
    if service.headless {
        let wildcards: Vec<String> = names.iter().map(|name| format!("*.{name}")).collect();
        names.extend(wildcards);
    }
    // A range of addresses is no host name.
    names.extend(service.addresses.iter().filter_map(|address| match address.parse().ok()? {
        IpAddr::V4(address) => Some(address.to_string()),
        IpAddr::V6(address) => Some(format!("[{address}]")),
    }));
    names
}

fn short_names(proxy: &Proxy, service: &Service, domain: &str) -> Vec<String> {
    let suffix = format!(".{}.svc.{domain}", service.namespace);
    let Some(name) = service.host.as_str().strip_suffix(&suffix) else { return Vec::new() };
    let namespace = &service.namespace;
    let mut names = vec![format!("{name}.{namespace}"), format!("{name}.{namespace}.svc")];
    if *namespace == proxy.namespace {
        names.insert(0, name.to_owned());
    }
    names
}

/// Names of a host that no registry knows.
pub(super) fn of_host(host: &Host) -> Vec<String> {
    vec![host.as_str().to_owned()]
}

/// The names with the port, as an HTTP proxy sees them; also without for port 80, which clients leave out.
pub(super) fn with_port(names: Vec<String>, port: u32) -> Vec<String> {
    let mut all = Vec::new();
    for name in names {
        let with_port = format!("{name}:{port}");
        if port == 80 {
            all.push(name);
        }
        all.push(with_port);
    }
    all
}

/// Envoy refuses a configuration in which two virtual hosts have a domain in common: the first keeps it.
pub(super) fn deduplicate(hosts: Vec<VirtualHost>) -> Vec<VirtualHost> {
    let mut seen = HashSet::new();
    let mut kept = Vec::new();
    for mut host in hosts {
        host.domains.retain(|domain| seen.insert(domain.clone()));
        if !host.domains.is_empty() {
            kept.push(host);
        }
    }
    kept
}
