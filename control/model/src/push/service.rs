//! A service as every registry's services look to generation, with its endpoints.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::{Host, Labels, Meta, Protocol, Visibility};

/// Where a service is known from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Registry {
    /// A Kubernetes Service.
    Kubernetes,
    /// A ServiceEntry.
    External,
}

/// How the proxy finds endpoints.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ServiceResolution {
    /// Among the endpoints that the control plane sends.
    ClientSideLb,
    /// Among all addresses that DNS gives.
    DnsLb,
    /// The first address that DNS gives.
    DnsRoundRobinLb,
    /// The address that the caller wanted.
    Passthrough,
}

/// A port of a service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServicePort {
    /// Number that callers use.
    pub number: u32,
    /// Name.
    pub name: String,
    /// Protocol.
    pub protocol: Protocol,
    /// Port of the workloads, when it is the same for all.
    pub target_port: Option<u32>,
}

/// Region, zone and sub-zone; empty parts are unknown.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Locality {
    /// Region.
    pub region: String,
    /// Zone within the region.
    pub zone: String,
    /// Sub-zone within the zone.
    pub sub_zone: String,
}

impl Locality {
    /// Reads `region/zone/sub-zone`, of which parts may be missing.
    pub fn parse(text: &str) -> Self {
        let mut parts = text.split('/').map(str::to_owned);
        let mut next = || parts.next().unwrap_or_default();
        Self { region: next(), zone: next(), sub_zone: next() }
    }

    /// Whether nothing is known.
    pub fn is_empty(&self) -> bool {
        self.region.is_empty() && self.zone.is_empty() && self.sub_zone.is_empty()
    }

    /// Istio's distance for failover: 0 when all parts agree, 3 when not even the region does.
    pub fn distance(&self, other: &Self) -> u32 {
        if self.region != other.region {
            3
        } else if self.zone != other.zone {
            2
        } else {
            u32::from(self.sub_zone != other.sub_zone)
        }
    }

    /// Whether the text of a `distribute` entry covers this locality: `*`, or parts that agree, `*` for the rest.
    pub fn is_covered_by(&self, pattern: &str) -> bool {
        let own = [&self.region, &self.zone, &self.sub_zone];
        for (index, part) in pattern.split('/').enumerate() {
            if part == "*" {
                return true;
            }
            if own.get(index).is_none_or(|own| *own != part) {
                return false;
            }
        }
        true
    }
}

/// One workload behind a port of a service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    /// IP address, `unix://` path, or a host name for DNS.
    pub address: String,
    /// Port of the workload; 0 for a unix socket.
    pub port: u32,
    /// Labels of the workload.
    pub labels: Labels,
    /// Where it runs.
    pub locality: Locality,
    /// Share of load; 0 means 1.
    pub weight: u32,
    /// Its service account.
    pub service_account: String,
    /// Its namespace.
    pub namespace: String,
    /// Its workload name, which metadata carries.
    pub workload: String,
    /// Whether it takes traffic.
    pub ready: bool,
}

/// A service.
#[derive(Debug, Clone)]
pub struct Service {
    /// Name that callers use.
    pub host: Host,
    /// The object that defines it.
    pub meta: Meta,
    /// Registry.
    pub registry: Registry,
    /// Its namespace.
    pub namespace: String,
    /// Ports in the order of the object.
    pub ports: Vec<ServicePort>,
    /// Virtual addresses and ranges; empty when none is assigned.
    pub addresses: Vec<String>,
    /// How endpoints are found.
    pub resolution: ServiceResolution,
    /// A Kubernetes service without virtual address.
    pub headless: bool,
    /// Outside the mesh.
    pub mesh_external: bool,
    /// Labels of the workloads behind it.
    pub selector: Labels,
    /// Who sees it.
    pub visibility: Visibility,
    /// Endpoints by index of the port.
    pub endpoints: Vec<Vec<Endpoint>>,
}

impl Service {
    /// The port with the number, with its endpoints.
    pub fn port(&self, number: u32) -> Option<(&ServicePort, &[Endpoint])> {
        let index = self.ports.iter().position(|port| port.number == number)?;
        Some((&self.ports[index], &self.endpoints[index]))
    }
}

/// A port on which one workload serves one port of a service.
#[derive(Debug, Clone)]
pub struct ServiceTarget {
    /// The service.
    pub service: Arc<Service>,
    /// Its port.
    pub port: ServicePort,
    /// Port of the workload.
    pub target_port: u32,
}

/// All services, in a stable order, and by host.
#[derive(Debug, Default)]
pub struct ServiceIndex {
    all: Vec<Arc<Service>>,
    by_host: BTreeMap<Host, Vec<usize>>,
}

impl ServiceIndex {
    /// Indexes services; the order given is the order of precedence among services of one host.
    pub fn new(services: Vec<Service>) -> Self {
        let mut index = Self::default();
        for service in services {
            index.by_host.entry(service.host.clone()).or_default().push(index.all.len());
            index.all.push(Arc::new(service));
        }
        index
    }

    /// Every service.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Service>> {
        self.all.iter()
    }

    /// Number of services.
    pub fn len(&self) -> usize {
        self.all.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    /// The service that the host means to workloads of the namespace: one of their own namespace first, then one of
    /// Kubernetes, then the first one visible.
    pub fn find(&self, host: &Host, namespace: &str) -> Option<&Arc<Service>> {
        let candidates = || {
            let numbers = self.by_host.get(host).map(Vec::as_slice).unwrap_or_default();
            numbers
                .iter()
                .map(|number| &self.all[*number])
                .filter(|service| service.visibility.includes(namespace))
        };
        candidates()
            .find(|service| service.namespace == namespace)
            .or_else(|| candidates().find(|service| service.registry == Registry::Kubernetes))
            .or_else(|| candidates().next())
    }

    /// The services that workloads of the namespace see, one for each host, in the order of hosts.
    pub fn visible(&self, namespace: &str) -> Vec<&Arc<Service>> {
        self.by_host.keys().filter_map(|host| self.find(host, namespace)).collect()
    }
}
