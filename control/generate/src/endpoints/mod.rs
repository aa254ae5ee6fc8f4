//! EDS: the workloads behind a cluster.

mod locality;

use std::collections::{BTreeMap, HashMap};

use dhow_control_model::push::{EffectivePolicy, Endpoint, Locality, Service};
use dhow_control_model::selects;
use dhow_proto::envoy::config::cluster::v3::Cluster;
use dhow_proto::envoy::config::cluster::v3::cluster::{ClusterDiscoveryType, DiscoveryType};
use dhow_proto::envoy::config::core::v3 as core;
use dhow_proto::envoy::config::endpoint::v3 as envoy;
use dhow_proto::envoy::config::endpoint::v3::lb_endpoint::HostIdentifier;
use dhow_proto::envoy::config::endpoint::v3::{ClusterLoadAssignment, LbEndpoint, LocalityLbEndpoints};

use crate::messages::{address, istio_metadata, number, string_value};
use crate::{ProxyContext, names};

/// Assignments of the clusters that ask for them.
pub(crate) fn generate(context: &ProxyContext<'_>, clusters: &[Cluster]) -> Vec<ClusterLoadAssignment> {
    let by_eds = clusters.iter().filter(|cluster| {
        cluster.cluster_discovery_type == Some(ClusterDiscoveryType::Type(DiscoveryType::Eds.into()))
    });
    by_eds.filter_map(|cluster| for_cluster(context, &cluster.name)).collect()
}

fn for_cluster(context: &ProxyContext<'_>, name: &str) -> Option<ClusterLoadAssignment> {
    let (port, subset, host) = names::parse_outbound(name)?;
    let service = context.service(&host)?;
    let (_, endpoints) = service.port(port)?;
    let policy = context.policy(service, subset, port);
    Some(assignment(context, name, service, subset, endpoints, &policy))
}

/// The ready endpoints of a subset, grouped by locality, near ones first where the policy asks for it.
pub(crate) fn assignment(
    context: &ProxyContext<'_>,
    name: &str,
    service: &Service,
    subset: &str,
    endpoints: &[Endpoint],
    policy: &EffectivePolicy,
) -> ClusterLoadAssignment {
    let rule = context.rule(service);
    let labels = rule.and_then(|rule| rule.subset(subset)).map(|subset| &subset.labels);
    let mut groups: BTreeMap<&Locality, Vec<LbEndpoint>> = BTreeMap::new();
    let usable = endpoints
        .iter()
        .filter(|endpoint| endpoint.ready && labels.is_none_or(|labels| selects(labels, &endpoint.labels)));
    for endpoint in usable {
        groups.entry(&endpoint.locality).or_default().push(lb_endpoint(context, endpoint));
    }
    let mut localities: Vec<LocalityLbEndpoints> = groups.into_iter().map(locality_endpoints).collect();
    locality::apply(context, policy, &mut localities);
    ClusterLoadAssignment {
        cluster_name: name.to_owned(),
        endpoints: localities,
        ..ClusterLoadAssignment::default()
    }
}

fn locality_endpoints((locality, endpoints): (&Locality, Vec<LbEndpoint>)) -> LocalityLbEndpoints {
    let weight = endpoints
        .iter()
        .map(|endpoint| endpoint.load_balancing_weight.map_or(1, |weight| weight.value))
        .fold(0u32, u32::saturating_add);
    LocalityLbEndpoints {
        locality: Some(core::Locality {
            region: locality.region.clone(),
            zone: locality.zone.clone(),
            sub_zone: locality.sub_zone.clone(),
        }),
        lb_endpoints: endpoints,
        load_balancing_weight: number(weight),
        ..LocalityLbEndpoints::default()
    }
}

fn lb_endpoint(context: &ProxyContext<'_>, endpoint: &Endpoint) -> LbEndpoint {
    LbEndpoint {
        health_status: core::HealthStatus::Healthy.into(),
        load_balancing_weight: number(endpoint.weight.max(1)),
        metadata: workload_metadata(context, endpoint),
        host_identifier: Some(HostIdentifier::Endpoint(envoy::Endpoint {
            address: Some(address(&endpoint.address, endpoint.port)),
            ..envoy::Endpoint::default()
        })),
    }
}

/// `name;namespace;canonical-name;canonical-revision;cluster-id`
fn workload_metadata(context: &ProxyContext<'_>, endpoint: &Endpoint) -> Option<core::Metadata> {
    if endpoint.workload.is_empty() {
        return None;
    }
    let label = |names: [&str; 3]| names.iter().find_map(|name| endpoint.labels.get(*name));
    let canonical = label(["service.istio.io/canonical-name", "app.kubernetes.io/name", "app"]);
    let revision = label(["service.istio.io/canonical-revision", "app.kubernetes.io/version", "version"]);
    let text = format!(
        "{};{};{};{};{}",
        endpoint.workload,
        endpoint.namespace,
        canonical.unwrap_or(&endpoint.workload),
        revision.map_or("latest", String::as_str),
        context.proxy.cluster_id,
    );
    Some(istio_metadata([("workload", string_value(&text))]))
}

/// An assignment with one address.
pub(crate) fn fixed(name: &str, host: &str, port: u32) -> ClusterLoadAssignment {
    let endpoint = LbEndpoint {
        host_identifier: Some(HostIdentifier::Endpoint(envoy::Endpoint {
            address: Some(address(host, port)),
            ..envoy::Endpoint::default()
        })),
        ..LbEndpoint::default()
    };
    ClusterLoadAssignment {
        cluster_name: name.to_owned(),
        endpoints: vec![LocalityLbEndpoints {
            lb_endpoints: vec![endpoint],
            ..LocalityLbEndpoints::default()
        }],
        named_endpoints: HashMap::new(),
        policy: None,
    }
}
