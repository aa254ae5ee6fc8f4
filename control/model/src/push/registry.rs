//! The service registry: Kubernetes Services with their pods and slices, joined with ServiceEntries.

use std::collections::BTreeMap;

use super::service_entry;
use super::{Endpoint, Locality, Objects, Registry, Service, ServiceIndex, ServicePort, ServiceResolution};
use crate::{
    Config, EndpointSlice, Host, KubeService, KubeServicePort, KubeServiceType, Labels, MeshConfig, Pod,
    Protocol, TargetPort, Visibility, selects,
};

pub(super) fn services(objects: &Objects, mesh: &MeshConfig, domain: &str) -> ServiceIndex {
    let mut all: Vec<Service> =
        objects.services.iter().map(|service| kubernetes_service(service, objects, mesh, domain)).collect();
    for entry in &objects.service_entries {
        for service in service_entry::services(entry, objects, mesh) {
            match all
                .iter_mut()
                .find(|known| known.host == service.host && known.namespace == service.namespace)
            {
                Some(known) => join(known, service),
                None => all.push(service),
            }
        }
    }
    ServiceIndex::new(all)
}

/// A ServiceEntry for the host of a known service adds endpoints to the ports that both have, and ports that the older
/// definition lacks; everything else stays as the older one says.
fn join(known: &mut Service, other: Service) {
    for (port, endpoints) in other.ports.into_iter().zip(other.endpoints) {
        match known.ports.iter().position(|own| own.number == port.number) {
            Some(index) => known.endpoints[index].extend(endpoints),
            None if known.registry == Registry::External => {
                known.ports.push(port);
                known.endpoints.push(endpoints);
            }
            None => {}
        }
    }
    if known.registry == Registry::External {
        let new = other.addresses.into_iter().filter(|address| !known.addresses.contains(address));
        let new: Vec<String> = new.collect();
        known.addresses.extend(new);
    }
}

fn kubernetes_service(
    config: &Config<KubeService>,
    objects: &Objects,
    mesh: &MeshConfig,
    domain: &str,
) -> Service {
    let (meta, spec) = (&config.meta, &config.spec);
    let external_name = spec.service_type == KubeServiceType::ExternalName;
    let ports: Vec<ServicePort> = spec.ports.iter().map(service_port).collect();
    let endpoints: Vec<Vec<Endpoint>> = if external_name {
        ports.iter().map(|port| vec![external_endpoint(spec, port, &meta.namespace)]).collect()
    } else {
        spec.ports.iter().map(|port| port_endpoints(config, port, objects)).collect()
    };
    let mut addresses: Vec<String> = Vec::new();
    for address in std::iter::once(&spec.cluster_ip).chain(&spec.cluster_ips) {
        if !address.is_empty() && address != "None" && !addresses.contains(address) {
            addresses.push(address.clone());
        }
    }
    let export_to: Vec<String> = meta
        .annotations
        .get("networking.istio.io/exportTo")
        .map(|list| list.split(',').map(|entry| entry.trim().to_owned()).collect())
        .unwrap_or_default();
    let resolution = if external_name {
        ServiceResolution::DnsLb
    } else if spec.is_headless() {
        ServiceResolution::Passthrough
    } else {
        ServiceResolution::ClientSideLb
    };
    Service {
        host: Host::new(&format!("{}.{}.svc.{domain}", meta.name, meta.namespace)),
        meta: meta.clone(),
        registry: Registry::Kubernetes,
        namespace: meta.namespace.clone(),
        ports,
        addresses,
        resolution,
        headless: spec.is_headless(),
        mesh_external: external_name,
        selector: spec.selector.clone(),
        visibility: Visibility::read(&export_to, &meta.namespace, &mesh.default_service_export_to),
        endpoints,
    }
}

fn service_port(port: &KubeServicePort) -> ServicePort {
    let target_port = match &port.target_port {
        None => Some(port.port),
        Some(TargetPort::Number(number)) => Some(*number),
        Some(TargetPort::Name(_)) => None,
    };
    ServicePort {
        number: port.port,
        name: port.name.clone(),
        protocol: Protocol::select(port.port, &port.name, &port.protocol, port.app_protocol.as_deref()),
        target_port,
    }
}

fn external_endpoint(spec: &KubeService, port: &ServicePort, namespace: &str) -> Endpoint {
    Endpoint {
        address: spec.external_name.clone(),
        port: port.target_port.unwrap_or(port.number),
        labels: Labels::new(),
        locality: Locality::default(),
        weight: 0,
        service_account: String::new(),
        namespace: namespace.to_owned(),
        workload: String::new(),
        ready: true,
    }
}

/// Endpoints from the Service's EndpointSlices; a Service without any gets them from the pods that it selects, as a
/// cluster's endpoint controller would compute them, and from WorkloadEntries that it selects.
fn port_endpoints(service: &Config<KubeService>, port: &KubeServicePort, objects: &Objects) -> Vec<Endpoint> {
    let slices: Vec<&Config<EndpointSlice>> = objects
        .endpoint_slices
        .iter()
        .filter(|slice| {
            slice.meta.namespace == service.meta.namespace
                && slice.meta.labels.get(EndpointSlice::SERVICE_NAME) == Some(&service.meta.name)
        })
        .collect();
    let mut endpoints = if slices.is_empty() {
        pod_endpoints(service, port, objects)
    } else {
        slice_endpoints(service, port, &slices, objects)
    };
    let selector = &service.spec.selector;
    if !selector.is_empty() {
        for entry in &objects.workload_entries {
            if entry.meta.namespace == service.meta.namespace
                && selects(selector, &service_entry::workload_labels(entry))
            {
                let number = match &port.target_port {
                    Some(TargetPort::Number(number)) => *number,
                    _ => port.port,
                };
                endpoints.push(service_entry::workload_endpoint(entry, &port.name, number));
            }
        }
    }
    endpoints
}

fn pod_endpoints(service: &Config<KubeService>, port: &KubeServicePort, objects: &Objects) -> Vec<Endpoint> {
    let selector = &service.spec.selector;
    if selector.is_empty() {
        return Vec::new();
    }
    let selected = objects
        .pods
        .iter()
        .filter(|pod| pod.meta.namespace == service.meta.namespace && selects(selector, &pod.meta.labels));
    selected
        .filter_map(|pod| {
            let number = match &port.target_port {
                None => port.port,
                Some(TargetPort::Number(number)) => *number,
                Some(TargetPort::Name(name)) => {
                    pod.spec.ports.iter().find(|declared| declared.name == *name)?.container_port
                }
            };
            let address = pod.spec.ips.first()?;
            let ready = pod.spec.ready || service.spec.publish_not_ready_addresses;
            Some(pod_endpoint(pod, address, number, ready, &objects.nodes))
        })
        .collect()
}

pub(super) fn pod_endpoint(
    pod: &Config<Pod>,
    address: &str,
    port: u32,
    ready: bool,
    nodes: &BTreeMap<String, Labels>,
) -> Endpoint {
    Endpoint {
        address: address.to_owned(),
        port,
        labels: pod.meta.labels.clone(),
        locality: pod_locality(pod, nodes),
        weight: 0,
        service_account: pod.spec.service_account.clone(),
        namespace: pod.meta.namespace.clone(),
        workload: workload_name(&pod.meta.labels, &pod.meta.name),
        ready,
    }
}

fn slice_endpoints(
    service: &Config<KubeService>,
    port: &KubeServicePort,
    slices: &[&Config<EndpointSlice>],
    objects: &Objects,
) -> Vec<Endpoint> {
    let mut endpoints: Vec<Endpoint> = Vec::new();
    for slice in slices {
        let Some(number) = slice
            .spec
            .ports
            .iter()
            .find(|own| own.name.as_deref().unwrap_or_default() == port.name)
            .and_then(|own| own.port)
        else {
            continue;
        };
        for endpoint in &slice.spec.endpoints {
            let Some(address) = endpoint.addresses.first() else { continue };
            if endpoints.iter().any(|known| known.address == *address && known.port == number) {
                continue;
            }
            let ready = endpoint.conditions.ready.unwrap_or(true) || service.spec.publish_not_ready_addresses;
            let pod = objects.pods.iter().find(|pod| {
                pod.meta.namespace == slice.meta.namespace
                    && match &endpoint.target_ref {
                        Some(target) => target.kind == "Pod" && pod.meta.name == target.name,
                        None => pod.spec.ips.contains(address),
                    }
            });
            endpoints.push(match pod {
                Some(pod) => pod_endpoint(pod, address, number, ready, &objects.nodes),
                None => Endpoint {
                    address: address.clone(),
                    port: number,
                    labels: Labels::new(),
                    locality: slice_locality(endpoint, objects),
                    weight: 0,
                    service_account: String::new(),
                    namespace: slice.meta.namespace.clone(),
                    workload: String::new(),
                    ready,
                },
            });
        }
    }
    endpoints
}

fn slice_locality(endpoint: &crate::Endpoint, objects: &Objects) -> Locality {
    let node = endpoint.node_name.as_ref().and_then(|name| objects.nodes.get(name));
    let mut locality = node.map(node_locality).unwrap_or_default();
    if let Some(zone) = &endpoint.zone {
        locality.zone.clone_from(zone);
    }
    locality
}

fn node_locality(labels: &Labels) -> Locality {
    let label = |name: &str| labels.get(name).cloned().unwrap_or_default();
    Locality {
        region: label("topology.kubernetes.io/region"),
        zone: label("topology.kubernetes.io/zone"),
        sub_zone: label("topology.istio.io/subzone"),
    }
}

/// A label of the pod overrides its node; dots stand for the slashes that label values cannot hold.
fn pod_locality(pod: &Config<Pod>, nodes: &BTreeMap<String, Labels>) -> Locality {
    let own =
        pod.meta.labels.get("topology.istio.io/locality").or_else(|| pod.meta.labels.get("istio-locality"));
    match own {
        Some(text) if text.contains('/') => Locality::parse(text),
        Some(text) => Locality::parse(&text.replace('.', "/")),
        None => nodes.get(&pod.spec.node_name).map(node_locality).unwrap_or_default(),
    }
}

pub(super) fn workload_name(labels: &Labels, otherwise: &str) -> String {
    labels.get("service.istio.io/workload-name").cloned().unwrap_or_else(|| otherwise.to_owned())
}
