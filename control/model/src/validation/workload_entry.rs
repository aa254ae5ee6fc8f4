//! WorkloadEntry, by itself and as an endpoint of a ServiceEntry.

use super::{Checker, names};
use crate::istio::WorkloadEntry;

pub(super) fn check(checker: &mut Checker, spec: &WorkloadEntry, in_service_entry: bool) {
    let WorkloadEntry { address, ports, labels, network, locality, weight: _, service_account: _ } = spec;
    if let Some(path) = address.strip_prefix("unix://") {
        let absolute = path.starts_with('/') || path.starts_with('@');
        if !absolute {
            checker.refuse_at("address", "a unix socket needs an absolute path or '@name'");
        }
        if !ports.is_empty() {
            checker.refuse_at("ports", "a unix socket has no ports");
        }
    } else if address.is_empty() {
        if network.is_empty() {
            checker.refuse_at("address", "is required, or network");
        }
    } else if address.parse::<std::net::IpAddr>().is_err() && !names::is_fqdn(address) {
        checker.refuse_at("address", format!("{address:?} is neither an address nor a host name"));
    }
    for (name, number) in ports {
        checker.key("ports", name, |checker| {
            if !names::is_label(name) {
                checker.refuse("is not a port name");
            }
            if !(1..=65535).contains(number) {
                checker.refuse(format!("port {number} must be between 1 and 65535"));
            }
        });
    }
    names::labels(checker, "labels", labels);
    if locality.split('/').count() > 3 {
        checker.refuse_at("locality", "must be region/zone/sub-zone");
    }
    checker.not_honoured("network", !network.is_empty() && !in_service_entry);
}
