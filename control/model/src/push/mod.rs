//! The mesh as one immutable value: services with their endpoints, and Istio's merge and precedence rules over the
//! objects that configure them. Istio calls it the push context.

mod destination_rule;
mod gateway;
mod grpc_status;
mod proxy;
mod references;
mod registry;
mod service;
mod service_entry;
mod traffic_policy;
mod virtual_service;

use std::collections::BTreeMap;
use std::sync::Arc;

use dhow_base::ConfigWarning;

pub use destination_rule::{ConsolidatedRule, DestinationRules};
pub use gateway::{MergedGateway, MergedServer, ServerGroup};
pub use grpc_status::grpc_status;
pub use proxy::{Interception, Proxy, ProxyType};
pub use service::{
    Endpoint, Locality, Registry, Service, ServiceIndex, ServicePort, ServiceResolution, ServiceTarget,
};
pub use traffic_policy::EffectivePolicy;
pub use virtual_service::{MESH_GATEWAY, ResolvedVirtualService, VirtualServices};

use crate::istio::{Gateway, ServiceEntry, VirtualService, WorkloadEntry};
use crate::{Config, EndpointSlice, KubeService, Labels, MeshConfig, Meta, Object, ObjectKey, Pod, Spec};

/// All objects by kind, each list in Istio's order of precedence.
#[derive(Debug, Default)]
#[allow(missing_docs, reason = "each field is the kind's own name")]
pub struct Objects {
    pub services: Vec<Config<KubeService>>,
    pub pods: Vec<Config<Pod>>,
    pub endpoint_slices: Vec<Config<EndpointSlice>>,
    pub service_accounts: Vec<Meta>,
    /// Labels of nodes by node name.
    pub nodes: BTreeMap<String, Labels>,
    pub virtual_services: Vec<Config<VirtualService>>,
    pub destination_rules: Vec<Config<crate::istio::DestinationRule>>,
    pub gateways: Vec<Config<Gateway>>,
    pub service_entries: Vec<Config<ServiceEntry>>,
    pub workload_entries: Vec<Config<WorkloadEntry>>,
}

impl Objects {
    /// Sorts objects by kind and precedence.
    pub fn collect<'a>(objects: impl IntoIterator<Item = &'a Object>) -> Self {
        let mut all = Self::default();
        for object in objects {
            let meta = object.meta.clone();
            match &object.spec {
                Spec::Service(spec) => all.services.push(Config { meta, spec: spec.clone() }),
                Spec::Pod(spec) => all.pods.push(Config { meta, spec: spec.clone() }),
                Spec::EndpointSlice(spec) => all.endpoint_slices.push(Config { meta, spec: spec.clone() }),
                Spec::ServiceAccount(_) => all.service_accounts.push(meta),
                Spec::Node(_) => {
                    all.nodes.insert(meta.name, meta.labels);
                }
                Spec::VirtualService(spec) => {
                    all.virtual_services.push(Config { meta, spec: (**spec).clone() })
                }
                Spec::DestinationRule(spec) => {
                    all.destination_rules.push(Config { meta, spec: (**spec).clone() })
                }
                Spec::Gateway(spec) => all.gateways.push(Config { meta, spec: (**spec).clone() }),
                Spec::ServiceEntry(spec) => all.service_entries.push(Config { meta, spec: (**spec).clone() }),
                Spec::WorkloadEntry(spec) => {
                    all.workload_entries.push(Config { meta, spec: (**spec).clone() })
                }
            }
        }
        all.services.sort_by(|a, b| a.meta.precedence(&b.meta));
        all.pods.sort_by(|a, b| a.meta.precedence(&b.meta));
        all.endpoint_slices.sort_by(|a, b| a.meta.precedence(&b.meta));
        all.virtual_services.sort_by(|a, b| a.meta.precedence(&b.meta));
        all.destination_rules.sort_by(|a, b| a.meta.precedence(&b.meta));
        all.gateways.sort_by(|a, b| a.meta.precedence(&b.meta));
        all.service_entries.sort_by(|a, b| a.meta.precedence(&b.meta));
        all.workload_entries.sort_by(|a, b| a.meta.precedence(&b.meta));
        all
    }
}

/// Something that does not take effect as written, with the object that says it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Notice {
    /// The object.
    pub object: ObjectKey,
    /// Where in the object, and what.
    pub warning: ConfigWarning,
}

/// One state of the mesh.
#[derive(Debug)]
pub struct PushContext {
    /// Mesh-wide configuration.
    pub mesh: MeshConfig,
    /// Domain of Kubernetes services, `cluster.local`.
    pub domain: String,
    /// Every service of every registry.
    pub services: ServiceIndex,
    /// VirtualServices with host names resolved and delegates merged.
    pub virtual_services: VirtualServices,
    /// DestinationRules merged by host and namespace.
    pub destination_rules: DestinationRules,
    /// Gateways.
    pub gateways: Vec<Arc<Config<Gateway>>>,
    /// What objects say about each other that does not fit.
    pub notices: Vec<Notice>,
}

impl PushContext {
    /// Builds the state of the mesh out of valid objects.
    pub fn new(objects: Objects, mesh: MeshConfig, domain: &str) -> Self {
        let mut notices = Vec::new();
        let services = registry::services(&objects, &mesh, domain);
        let Objects { virtual_services, destination_rules, gateways, .. } = objects;
        let virtual_services = VirtualServices::new(virtual_services, &mesh, domain, &mut notices);
        let destination_rules = DestinationRules::new(destination_rules, &mesh, domain, &mut notices);
        let gateways: Vec<_> = gateways.into_iter().map(Arc::new).collect();
        let mut context = Self {
            mesh,
            domain: domain.to_owned(),
            services,
            virtual_services,
            destination_rules,
            gateways,
            notices,
        };
        let dangling = references::check(&context);
        context.notices.extend(dangling);
        context
    }
}

#[cfg(test)]
mod tests;
