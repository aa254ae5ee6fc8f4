//! TCP proxies.

use dhow_control_model::Host;
use dhow_control_model::istio::{GoDuration, RouteDestination};
use dhow_proto::envoy::config::listener::v3::{Filter, filter};
use dhow_proto::envoy::extensions::filters::network::tcp_proxy::v3::TcpProxy;
use dhow_proto::envoy::extensions::filters::network::tcp_proxy::v3::tcp_proxy::{
    ClusterSpecifier, WeightedCluster, weighted_cluster::ClusterWeight,
};

use super::access_log;
use crate::ProxyContext;
use crate::messages::{any, go_duration};

const NAME: &str = "envoy.filters.network.tcp_proxy";

/// A proxy to one cluster.
pub(super) fn to_cluster(
    context: &ProxyContext<'_>,
    cluster: &str,
    idle_timeout: Option<GoDuration>,
) -> Filter {
    filter(context, cluster.to_owned(), ClusterSpecifier::Cluster(cluster.to_owned()), idle_timeout)
}

/// A proxy to the destinations of a rule; `owner` names the rule in statistics when there are several.
pub(super) fn to_destinations(
    context: &ProxyContext<'_>,
    targets: &[RouteDestination],
    port: u32,
    owner: &str,
) -> Filter {
    let cluster = |target: &RouteDestination| context.destination_cluster(&target.destination, port);
    let weighted: Vec<&RouteDestination> = targets.iter().filter(|target| target.weight > 0).collect();
    let used = if weighted.is_empty() { targets.iter().collect() } else { weighted };
    if let [only] = used.as_slice() {
        return to_cluster(context, &cluster(only), idle_timeout(context, only, port));
    }
    let clusters = used.iter().map(|target| ClusterWeight {
        name: cluster(target),
        weight: target.weight.max(1),
        ..ClusterWeight::default()
    });
    let specifier = ClusterSpecifier::WeightedClusters(WeightedCluster { clusters: clusters.collect() });
    // One filter has one timeout: that of the first destination.
    let timeout = used.first().and_then(|target| idle_timeout(context, target, port));
    filter(context, owner.to_owned(), specifier, timeout)
}

fn idle_timeout(context: &ProxyContext<'_>, target: &RouteDestination, port: u32) -> Option<GoDuration> {
    let service = context.service(&Host::new(&target.destination.host))?;
    let number = target.destination.port.as_ref().map_or(port, |port| port.number);
    let policy = context.policy(service, target.destination.subset.as_deref().unwrap_or_default(), number);
    policy.connection_pool?.tcp?.idle_timeout
}

fn filter(
    context: &ProxyContext<'_>,
    stat_prefix: String,
    clusters: ClusterSpecifier,
    idle_timeout: Option<GoDuration>,
) -> Filter {
    let proxy = TcpProxy {
        stat_prefix,
        idle_timeout: idle_timeout.map(go_duration),
        access_log: access_log::loggers(context),
        cluster_specifier: Some(clusters),
        ..TcpProxy::default()
    };
    Filter { name: NAME.to_owned(), config_type: Some(filter::ConfigType::TypedConfig(any(&proxy))) }
}
