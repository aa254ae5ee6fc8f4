//! Clusters of the workload's own ports, as seen from its sidecar.

use dhow_control_model::push::{Interception, ServiceTarget};
use dhow_control_model::{InboundTrafficMode, Protocol};
use dhow_proto::envoy::config::cluster::v3::Cluster;
use dhow_proto::envoy::config::cluster::v3::cluster::{DiscoveryType, LbPolicy};
use dhow_proto::envoy::config::core::v3::BindConfig;

use super::outbound::services;
use super::{base, policy, protocol, unlimited};
use crate::messages::{istio_metadata, socket_address};
use crate::{ProxyContext, endpoints, names};

/// Annotation with the address on which the application of a pod without interception listens.
const APPLICATION_ADDRESS: &str = "sidecar.dhow.dev/application-address";

/// Source addresses that tell the sidecar's own connections from those to be intercepted.
const BIND_V4: &str = "127.0.0.6";
const BIND_V6: &str = "::6";

/// One cluster for each port of the workload that any service uses.
pub(super) fn generate(context: &ProxyContext<'_>) -> Vec<Cluster> {
    let mut clusters: Vec<Cluster> = Vec::new();
    for target in &context.targets {
        let name = names::inbound_cluster(target.target_port);
        if target.port.protocol == Protocol::Udp || clusters.iter().any(|known| known.name == name) {
            continue;
        }
        clusters.push(cluster(context, target, &name));
    }
    clusters.sort_by(|a, b| a.name.cmp(&b.name));
    clusters
}

fn cluster(context: &ProxyContext<'_>, target: &ServiceTarget, name: &str) -> Cluster {
    let loopback = if context.proxy.ip().is_ipv4() { "127.0.0.1" } else { "::1" };
    let fixed = match context.proxy.interception {
        Interception::None => {
            Some(context.proxy.annotations.get(APPLICATION_ADDRESS).map_or(loopback, String::as_str))
        }
        _ if context.push.mesh.inbound_traffic_policy.mode == InboundTrafficMode::Localhost => Some(loopback),
        _ => None,
    };
    let discovery = if fixed.is_some() { DiscoveryType::Static } else { DiscoveryType::OriginalDst };
    let mut cluster = base(context, name, discovery);
    cluster.alt_stat_name = names::stat_name(name);
    cluster.circuit_breakers = Some(policy::circuit_breakers(unlimited()));
    let same_port = context.targets.iter().filter(|other| other.target_port == target.target_port);
    cluster.metadata = Some(istio_metadata([("services", services(same_port.map(|other| &*other.service)))]));
    match fixed {
        Some(address) => {
            cluster.load_assignment = Some(endpoints::fixed(name, address, target.target_port));
        }
        None => {
            cluster.lb_policy = LbPolicy::ClusterProvided.into();
            cluster.upstream_bind_config = Some(bind_config(context));
        }
    }
    protocol::apply_inbound(&mut cluster, target.port.protocol);
    cluster
}

/// Connections to ports that no service has.
pub(super) fn passthrough(context: &ProxyContext<'_>) -> Cluster {
    Cluster {
        upstream_bind_config: Some(bind_config(context)),
        ..super::passthrough(context, names::INBOUND_PASSTHROUGH)
    }
}

fn bind_config(context: &ProxyContext<'_>) -> BindConfig {
    let source = if context.proxy.ip().is_ipv4() { BIND_V4 } else { BIND_V6 };
    BindConfig { source_address: Some(socket_address(source, 0)), ..BindConfig::default() }
}
