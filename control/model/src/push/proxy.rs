//! A connected proxy, as it describes itself.

use std::net::IpAddr;

use super::{Locality, ServiceIndex, ServiceTarget};
use crate::{Labels, selects};

/// What a proxy is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ProxyType {
    /// Beside one workload.
    Sidecar,
    /// A gateway.
    Router,
}

/// How traffic reaches a sidecar.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Interception {
    /// Rules of the kernel redirect it, the original destination is known.
    Redirect,
    /// Rules of the kernel redirect it and the source address is kept.
    Tproxy,
    /// Nothing does: callers connect to the listeners themselves.
    None,
}

/// A proxy, read from its Envoy node.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Proxy {
    /// Sidecar or gateway.
    pub proxy_type: ProxyType,
    /// Addresses, the one of the node id first.
    pub ips: Vec<IpAddr>,
    /// Name of the workload instance, `pod.namespace`.
    pub id: String,
    /// Namespace of the workload.
    pub namespace: String,
    /// DNS domain of the namespace, `default.svc.cluster.local`.
    pub dns_domain: String,
    /// Labels of the workload.
    pub labels: Labels,
    /// Annotations of the workload.
    pub annotations: Labels,
    /// Cluster of the workload.
    pub cluster_id: String,
    /// How traffic reaches it.
    pub interception: Interception,
    /// Port of the HTTP proxy listener; `None` leaves it to the mesh.
    pub http_proxy_port: Option<u16>,
    /// Where it runs.
    pub locality: Locality,
}

impl Proxy {
    /// The address of the node id.
    pub fn ip(&self) -> IpAddr {
        // Parsing a node refuses an id without an address, so the list is never empty.
        self.ips.first().copied().unwrap_or(IpAddr::V4(std::net::Ipv4Addr::LOCALHOST))
    }

    /// The services that this workload is an endpoint of, with the port where it serves each.
    ///
    /// Endpoints with one of the proxy's addresses decide. A workload that no endpoint knows yet belongs to the services
    /// of its namespace that select its labels, as Istio assumes while a pod has not been seen.
    pub fn service_targets(&self, services: &ServiceIndex) -> Vec<ServiceTarget> {
        let mut targets = Vec::new();
        for service in services.iter() {
            for (index, port) in service.ports.iter().enumerate() {
                let own = service.endpoints[index].iter().find(|endpoint| {
                    endpoint.address.parse().is_ok_and(|address: IpAddr| self.ips.contains(&address))
                });
                if let Some(endpoint) = own {
                    targets.push(ServiceTarget {
                        service: service.clone(),
                        port: port.clone(),
                        target_port: endpoint.port,
                    });
                }
            }
        }
        if !targets.is_empty() {
            return targets;
        }
        for service in services.iter() {
            let selected = !service.selector.is_empty()
                && service.namespace == self.namespace
                && selects(&service.selector, &self.labels);
            if !selected {
                continue;
            }
            for port in &service.ports {
                if let Some(target_port) = port.target_port {
                    targets.push(ServiceTarget { service: service.clone(), port: port.clone(), target_port });
                }
            }
        }
        targets
    }
}
