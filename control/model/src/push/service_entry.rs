//! ServiceEntries as services, with the workloads that they name or select.

use super::registry::{pod_endpoint, workload_name};
use super::{Endpoint, Locality, Objects, Registry, Service, ServicePort, ServiceResolution};
use crate::istio::{Location, Resolution, ServiceEntry, ServiceEntryPort, WorkloadEntry};
use crate::{Config, Host, Labels, MeshConfig, Protocol, Visibility, selects};

/// One service for each host.
pub(super) fn services(entry: &Config<ServiceEntry>, objects: &Objects, mesh: &MeshConfig) -> Vec<Service> {
    let (meta, spec) = (&entry.meta, &entry.spec);
    let resolution = match spec.resolution {
        Resolution::None => ServiceResolution::Passthrough,
        Resolution::Static => ServiceResolution::ClientSideLb,
        Resolution::Dns => ServiceResolution::DnsLb,
        Resolution::DnsRoundRobin => ServiceResolution::DnsRoundRobinLb,
        // Validation refuses it.
        Resolution::DynamicDns => return Vec::new(),
    };
    let ports: Vec<ServicePort> = spec.ports.iter().map(port).collect();
    let service = |name: &String| Service {
        host: Host::new(name),
        meta: meta.clone(),
        registry: Registry::External,
        namespace: meta.namespace.clone(),
        ports: ports.clone(),
        addresses: spec.addresses.clone(),
        resolution,
        headless: false,
        mesh_external: spec.location == Location::MeshExternal,
        selector: spec.workload_selector.as_ref().map(|selector| selector.labels.clone()).unwrap_or_default(),
        visibility: Visibility::read(&spec.export_to, &meta.namespace, &mesh.default_service_export_to),
        endpoints: spec.ports.iter().map(|port| endpoints(entry, port, name, objects)).collect(),
    };
    spec.hosts.iter().map(service).collect()
}

fn port(port: &ServiceEntryPort) -> ServicePort {
    ServicePort {
        number: port.number,
        name: port.name.clone(),
        protocol: Protocol::select(port.number, &port.protocol, "TCP", None),
        target_port: Some(port.target_port.unwrap_or(port.number)),
    }
}

fn endpoints(
    entry: &Config<ServiceEntry>,
    port: &ServiceEntryPort,
    host: &str,
    objects: &Objects,
) -> Vec<Endpoint> {
    let (meta, spec) = (&entry.meta, &entry.spec);
    let number = port.target_port.unwrap_or(port.number);
    if let Some(selector) = &spec.workload_selector {
        return selected(meta.namespace.as_str(), &selector.labels, port, number, objects);
    }
    if spec.endpoints.is_empty() && matches!(spec.resolution, Resolution::Dns | Resolution::DnsRoundRobin) {
        return vec![endpoint(
            &WorkloadEntry { address: host.to_owned(), ..WorkloadEntry::default() },
            &meta.namespace,
            "",
            &port.name,
            number,
        )];
    }
    spec.endpoints.iter().map(|own| endpoint(own, &meta.namespace, &meta.name, &port.name, number)).collect()
}

fn selected(
    namespace: &str,
    selector: &Labels,
    port: &ServiceEntryPort,
    number: u32,
    objects: &Objects,
) -> Vec<Endpoint> {
    let entries = objects
        .workload_entries
        .iter()
        .filter(|entry| entry.meta.namespace == namespace && selects(selector, &workload_labels(entry)))
        .map(|entry| workload_endpoint(entry, &port.name, number));
    let pods = objects
        .pods
        .iter()
        .filter(|pod| pod.meta.namespace == namespace && selects(selector, &pod.meta.labels))
        .filter_map(|pod| {
            Some(pod_endpoint(pod, pod.spec.ips.first()?, number, pod.spec.ready, &objects.nodes))
        });
    entries.chain(pods).collect()
}

/// Labels of a WorkloadEntry: those of its spec over those of its metadata.
pub(super) fn workload_labels(entry: &Config<WorkloadEntry>) -> Labels {
    let mut labels = entry.meta.labels.clone();
    labels.extend(entry.spec.labels.clone());
    labels
}

/// A WorkloadEntry as an endpoint of a service's port: its own port of that name, or the service's target port.
pub(super) fn workload_endpoint(entry: &Config<WorkloadEntry>, port_name: &str, number: u32) -> Endpoint {
    let mut found = endpoint(&entry.spec, &entry.meta.namespace, &entry.meta.name, port_name, number);
    found.labels = workload_labels(entry);
    found
}

fn endpoint(entry: &WorkloadEntry, namespace: &str, name: &str, port_name: &str, number: u32) -> Endpoint {
    let is_socket = entry.address.starts_with("unix://");
    let port = if is_socket { 0 } else { entry.ports.get(port_name).copied().unwrap_or(number) };
    Endpoint {
        address: entry.address.clone(),
        port,
        labels: entry.labels.clone(),
        locality: Locality::parse(&entry.locality),
        weight: entry.weight,
        service_account: entry.service_account.clone(),
        namespace: namespace.to_owned(),
        workload: workload_name(&entry.labels, name),
        ready: true,
    }
}
