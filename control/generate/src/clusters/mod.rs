//! CDS: the destinations of a proxy.

mod balancing;
mod inbound;
mod outbound;
mod policy;
mod protocol;
mod tls;

use dhow_proto::envoy::config::cluster::v3::Cluster;
use dhow_proto::envoy::config::cluster::v3::circuit_breakers::Thresholds;
use dhow_proto::envoy::config::cluster::v3::cluster::{ClusterDiscoveryType, DiscoveryType, LbPolicy};

use crate::messages::{go_duration, number};
use crate::{ProxyContext, names};

pub(crate) fn generate(context: &ProxyContext<'_>) -> Vec<Cluster> {
    let mut clusters = outbound::generate(context);
    clusters.push(black_hole(context));
    if context.proxy.proxy_type == dhow_control_model::push::ProxyType::Sidecar {
        if context.knows_original_destination() {
            clusters.push(passthrough(context, names::PASSTHROUGH));
            clusters.push(inbound::passthrough(context));
        }
        clusters.extend(inbound::generate(context));
    }
    clusters
}

fn base(context: &ProxyContext<'_>, name: &str, discovery: DiscoveryType) -> Cluster {
    Cluster {
        name: name.to_owned(),
        connect_timeout: Some(go_duration(context.push.mesh.connect_timeout)),
        cluster_discovery_type: Some(ClusterDiscoveryType::Type(discovery.into())),
        ..Cluster::default()
    }
}

fn black_hole(context: &ProxyContext<'_>) -> Cluster {
    Cluster {
        alt_stat_name: names::stat_name(names::BLACK_HOLE),
        ..base(context, names::BLACK_HOLE, DiscoveryType::Static)
    }
}

/// Sends each connection to the address that it was meant for.
fn passthrough(context: &ProxyContext<'_>, name: &str) -> Cluster {
    Cluster {
        alt_stat_name: names::stat_name(name),
        lb_policy: LbPolicy::ClusterProvided.into(),
        circuit_breakers: Some(policy::circuit_breakers(unlimited())),
        typed_extension_protocol_options: protocol::follow_client(),
        ..base(context, name, DiscoveryType::OriginalDst)
    }
}

/// Istio's default: no limit on anything.
fn unlimited() -> Thresholds {
    Thresholds {
        max_connections: number(u32::MAX),
        max_pending_requests: number(u32::MAX),
        max_requests: number(u32::MAX),
        max_retries: number(u32::MAX),
        ..Thresholds::default()
    }
}
