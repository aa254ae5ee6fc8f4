//! Clusters of services: one for each port, and one more for each subset of the host's DestinationRule.

use dhow_control_model::Protocol;
use dhow_control_model::push::{
    ConsolidatedRule, EffectivePolicy, Endpoint, Service, ServicePort, ServiceResolution,
};
use dhow_proto::envoy::config::cluster::v3::Cluster;
use dhow_proto::envoy::config::cluster::v3::cluster::{
    DiscoveryType, DnsLookupFamily, EdsClusterConfig, LbPolicy,
};
use dhow_proto::envoy::config::core::v3::Metadata;
use dhow_proto::google::protobuf as wkt;
use dhow_proto::google::protobuf::value::Kind;

use super::{balancing, base, policy, protocol, tls};
use crate::messages::{ads, go_duration, istio_metadata, string_value, structure};
use crate::{ProxyContext, endpoints, names};

pub(super) fn generate(context: &ProxyContext<'_>) -> Vec<Cluster> {
    let mut clusters = Vec::new();
    for service in &context.services {
        let rule = context.rule(service);
        for (port, own_endpoints) in service.ports.iter().zip(&service.endpoints) {
            if port.protocol == Protocol::Udp {
                continue;
            }
            clusters.push(cluster(context, service, port, own_endpoints, rule, ""));
            for subset in rule.map(|rule| rule.subsets.as_slice()).unwrap_or_default() {
                clusters.push(cluster(context, service, port, own_endpoints, rule, &subset.name));
            }
        }
    }
    clusters
}

#[allow(deprecated, reason = "Istio sends these DNS fields, and Envoy has not removed them")]
fn cluster(
    context: &ProxyContext<'_>,
    service: &Service,
    port: &ServicePort,
    own_endpoints: &[Endpoint],
    rule: Option<&ConsolidatedRule>,
    subset: &str,
) -> Cluster {
    let name = names::outbound_cluster(port.number, subset, &service.host);
    let policy = context.policy(service, subset, port.number);
    let discovery = discovery(context, service, &policy);
    let mut cluster = base(context, &name, discovery);
    cluster.alt_stat_name = names::stat_name(&name);
    cluster.metadata = Some(metadata(service, rule, subset));
    match discovery {
        DiscoveryType::Eds => {
            cluster.eds_cluster_config =
                Some(EdsClusterConfig { eds_config: Some(ads()), service_name: name });
        }
        DiscoveryType::StrictDns | DiscoveryType::LogicalDns => {
            cluster.dns_refresh_rate = Some(go_duration(context.push.mesh.dns_refresh_rate));
            cluster.respect_dns_ttl = true;
            let family =
                if context.proxy.ip().is_ipv4() { DnsLookupFamily::V4Only } else { DnsLookupFamily::V6Only };
            cluster.dns_lookup_family = family.into();
            let mut assignment =
                endpoints::assignment(context, &name, service, subset, own_endpoints, &policy);
            if discovery == DiscoveryType::LogicalDns {
                // A logical cluster has one host by definition; validation allows no more endpoints than that.
                assignment.endpoints.truncate(1);
            }
            cluster.load_assignment = Some(assignment);
        }
        DiscoveryType::Static | DiscoveryType::OriginalDst => {}
    }
    policy::apply(context, &mut cluster, &policy);
    balancing::apply(&mut cluster, &policy);
    if discovery == DiscoveryType::OriginalDst {
        cluster.lb_policy = LbPolicy::ClusterProvided.into();
        cluster.lb_config = None;
    }
    protocol::apply(context, &mut cluster, port.protocol, &policy);
    tls::apply(context, &mut cluster, &policy, port.protocol);
    cluster
}

fn discovery(context: &ProxyContext<'_>, service: &Service, policy: &EffectivePolicy) -> DiscoveryType {
    let wants_passthrough =
        balancing::is_passthrough(policy) || service.resolution == ServiceResolution::Passthrough;
    if wants_passthrough && context.knows_original_destination() {
        return DiscoveryType::OriginalDst;
    }
    match service.resolution {
        ServiceResolution::DnsLb => DiscoveryType::StrictDns,
        ServiceResolution::DnsRoundRobinLb => DiscoveryType::LogicalDns,
        // Without interception there is no original destination: what endpoints are known are balanced.
        ServiceResolution::ClientSideLb | ServiceResolution::Passthrough => DiscoveryType::Eds,
    }
}

fn metadata(service: &Service, rule: Option<&ConsolidatedRule>, subset: &str) -> Metadata {
    let mut fields = vec![("services", services(std::iter::once(service)))];
    if let Some(rule) = rule {
        fields.push(("config", string_value(&rule.meta.resource_path())));
    }
    if !subset.is_empty() {
        fields.push(("subset", string_value(subset)));
    }
    if service.mesh_external {
        fields.push(("external", wkt::Value { kind: Some(Kind::BoolValue(true)) }));
    }
    istio_metadata(fields)
}

/// The services that a cluster stands for, which Istio's statistics are labelled with.
pub(super) fn services<'a>(services: impl Iterator<Item = &'a Service>) -> wkt::Value {
    let entry = |service: &Service| {
        let fields = structure([
            ("host", string_value(service.host.as_str())),
            ("name", string_value(&service.meta.name)),
            ("namespace", string_value(&service.namespace)),
        ]);
        wkt::Value { kind: Some(Kind::StructValue(fields)) }
    };
    wkt::Value { kind: Some(Kind::ListValue(wkt::ListValue { values: services.map(entry).collect() })) }
}
