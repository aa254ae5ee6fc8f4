//! ServiceEntry.

use super::{Checker, matching, names, workload_entry};
use crate::Protocol;
use crate::istio::{Resolution, ServiceEntry};

pub(super) fn check(checker: &mut Checker, spec: &ServiceEntry) {
    let ServiceEntry {
        hosts,
        addresses,
        ports,
        location: _,
        resolution,
        endpoints,
        workload_selector,
        export_to,
        subject_alt_names: _,
    } = spec;
    names::export_to(checker, export_to);
    if hosts.is_empty() {
        checker.refuse_at("hosts", "at least one host is required");
    }
    checker.each("hosts", hosts, |checker, host| {
        if host == "*" {
            checker.refuse("'*' alone is not allowed");
        } else if !names::is_host_or_wildcard(host) {
            checker.refuse(format!("{host:?} is not a host name"));
        }
    });
    let with_range = addresses.iter().any(|address| address.contains('/'));
    if matches!(resolution, Resolution::Dns | Resolution::DnsRoundRobin) && with_range {
        checker.refuse_at("addresses", "ranges need resolution NONE or STATIC");
    }
    matching::subnets(checker, "addresses", addresses);
    checker.each("ports", ports, |checker, port| {
        checker.port("number", port.number);
        if port.name.is_empty() {
            checker.refuse_at("name", "is required");
        } else if !names::is_label(&port.name) {
            checker.refuse_at("name", format!("{:?} is not a port name", port.name));
        }
        if !port.protocol.is_empty() && Protocol::parse(&port.protocol) == Protocol::Auto {
            checker.refuse_at("protocol", format!("{:?} is not a protocol", port.protocol));
        }
        if let Some(target) = port.target_port {
            checker.port("targetPort", target);
        }
    });
    for (index, port) in ports.iter().enumerate() {
        if ports[..index].iter().any(|earlier| earlier.name == port.name) {
            checker.refuse_at("ports", format!("port name {:?} is there twice", port.name));
        }
        if ports[..index].iter().any(|earlier| earlier.number == port.number) {
            checker.refuse_at("ports", format!("port {} is there twice", port.number));
        }
    }
    if workload_selector.is_some() && !endpoints.is_empty() {
        checker.refuse_at("endpoints", "only one of endpoints and workloadSelector may be set");
    }
    if let Some(selector) = workload_selector {
        checker.field("workloadSelector", |checker| names::labels(checker, "labels", &selector.labels));
    }
    resolution_rules(checker, spec);
    let dns = matches!(resolution, Resolution::Dns | Resolution::DnsRoundRobin);
    checker.each("endpoints", endpoints, |checker, endpoint| {
        workload_entry::check(checker, endpoint, true);
        if *resolution == Resolution::Static
            && !endpoint.address.starts_with("unix://")
            && !endpoint.address.is_empty()
            && endpoint.address.parse::<std::net::IpAddr>().is_err()
        {
            checker.refuse_at("address", "must be an address when the resolution is STATIC");
        }
        if dns && endpoint.address.starts_with("unix://") {
            checker.refuse_at("address", "must not be a unix socket when the resolution is DNS");
        }
        for name in endpoint.ports.keys() {
            if !ports.iter().any(|port| port.name == *name) {
                checker.key("ports", name, |checker| checker.refuse("names no port of the service"));
            }
        }
    });
}

fn resolution_rules(checker: &mut Checker, spec: &ServiceEntry) {
    let wildcard = spec.hosts.iter().any(|host| host.starts_with('*'));
    match spec.resolution {
        Resolution::None => {
            if !spec.endpoints.is_empty() {
                checker.refuse_at("endpoints", "must be empty when the resolution is NONE");
            }
        }
        Resolution::Static => {
            if spec.endpoints.is_empty() && spec.workload_selector.is_none() {
                checker.warn_at("endpoints", "is empty: the service has nowhere to go");
            }
        }
        Resolution::Dns | Resolution::DnsRoundRobin => {
            if spec.resolution == Resolution::DnsRoundRobin && spec.endpoints.len() > 1 {
                checker
                    .refuse_at("endpoints", "at most one is allowed when the resolution is DNS_ROUND_ROBIN");
            }
            if spec.endpoints.is_empty() && spec.workload_selector.is_none() && wildcard {
                checker.refuse_at("hosts", "a wildcard cannot be looked up in DNS; give endpoints");
            }
        }
        Resolution::DynamicDns => {
            checker.refuse_at("resolution", "DYNAMIC_DNS is not supported yet");
        }
    }
}
