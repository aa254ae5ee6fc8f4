//! The parts of `/config_dump`, and `/certs`.

use dhow_net::StreamAddress;
use dhow_proto::envoy::admin::v3 as pb;
use dhow_proto::envoy::config::bootstrap::v3::Bootstrap;
use dhow_proto::envoy::config::cluster::v3::Cluster;
use dhow_proto::envoy::config::cluster::v3::cluster::{ClusterDiscoveryType, DiscoveryType};
use dhow_proto::envoy::config::core::v3::{Locality, Metadata};
use dhow_proto::envoy::config::endpoint::v3::{
    ClusterLoadAssignment, Endpoint, LbEndpoint, LocalityLbEndpoints, cluster_load_assignment,
    endpoint::HealthCheckConfig, lb_endpoint,
};
use dhow_proto::envoy::config::listener::v3::Listener;
use dhow_proto::envoy::extensions::transport_sockets::tls::v3::Secret;
use dhow_proto::google::protobuf::{Timestamp, UInt32Value};
use dhow_proto::{Message, Name, any};
use dhow_proxy_listener::Origin as ListenerOrigin;
use dhow_proxy_upstream::{ClusterDescription, Health, Host, Origin as ClusterOrigin};
use dhow_tls::{ListedCertificate, ListedContext, days_until};

use crate::admin_state::{address_message, timestamp};
use crate::configuration::Configuration;

/// `ClustersConfigDump`.
pub(crate) fn clusters(configuration: &Configuration) -> pb::ClustersConfigDump {
    let mut dump =
        pb::ClustersConfigDump { version_info: configuration.cds_version.clone(), ..Default::default() };
    for cluster in configuration.clusters.describe() {
        let last_updated = Some(timestamp(cluster.last_updated));
        let message = any::pack_encoded(&Cluster::full_name(), cluster.message.to_vec());
        if cluster.origin == ClusterOrigin::Static {
            dump.static_clusters
                .push(pb::clusters_config_dump::StaticCluster { cluster: Some(message), last_updated });
            continue;
        }
        let dynamic = pb::clusters_config_dump::DynamicCluster {
            version_info: cluster.version,
            cluster: Some(message),
            last_updated,
            ..Default::default()
        };
        if cluster.warming {
            dump.dynamic_warming_clusters.push(dynamic);
        } else {
            dump.dynamic_active_clusters.push(dynamic);
        }
    }
    dump
}

/// `eds_cluster_config.service_name` of an encoded cluster.
pub(crate) fn eds_service_name(message: &[u8]) -> String {
    Cluster::decode(message)
        .ok()
        .and_then(|cluster| cluster.eds_cluster_config)
        .map(|eds| eds.service_name)
        .unwrap_or_default()
}

/// `EndpointsConfigDump`: the hosts of all clusters as they are in force.
pub(crate) fn endpoints(configuration: &Configuration) -> pb::EndpointsConfigDump {
    let mut dump = pb::EndpointsConfigDump::default();
    for cluster in configuration.clusters.describe() {
        let endpoint_config = Some(any::pack(&assignment(&cluster)));
        if cluster.origin == ClusterOrigin::Static {
            dump.static_endpoint_configs.push(pb::endpoints_config_dump::StaticEndpointConfig {
                endpoint_config,
                last_updated: None,
            });
        } else {
            dump.dynamic_endpoint_configs.push(pb::endpoints_config_dump::DynamicEndpointConfig {
                endpoint_config,
                ..Default::default()
            });
        }
    }
    dump
}

/// The hosts of a cluster as an assignment: one group per priority and locality, in order of the hosts.
fn assignment(cluster: &ClusterDescription) -> ClusterLoadAssignment {
    let mut groups: Vec<LocalityLbEndpoints> = Vec::new();
    let hosts = cluster.cluster.hosts();
    // Envoy gives hosts behind names metadata of their own, also when they have none.
    let resolved = Cluster::decode(cluster.message.clone()).is_ok_and(|message| {
        message.cluster_discovery_type.is_some_and(|found| match found {
            ClusterDiscoveryType::Type(found) => {
                [DiscoveryType::StrictDns as i32, DiscoveryType::LogicalDns as i32].contains(&found)
            }
            ClusterDiscoveryType::ClusterType(found) => {
                found.typed_config.is_some_and(|config| config.type_url.ends_with(".DnsCluster"))
            }
        })
    });
    for host in hosts.hosts() {
        let of_host = host.locality();
        let locality = Locality {
            region: of_host.region.clone(),
            zone: of_host.zone.clone(),
            sub_zone: of_host.sub_zone.clone(),
        };
        let group = groups.iter().position(|group| {
            group.priority == host.priority() && group.locality.as_ref() == Some(&locality)
        });
        let at = group.unwrap_or_else(|| {
            let weight = hosts.locality_weight(host.priority(), of_host);
            groups.push(LocalityLbEndpoints {
                locality: Some(locality),
                priority: host.priority(),
                load_balancing_weight: Some(UInt32Value { value: weight }),
                ..Default::default()
            });
            groups.len() - 1
        });
        let metadata = &host.metadata().endpoint;
        groups[at].lb_endpoints.push(LbEndpoint {
            health_status: match host.health() {
                Health::Healthy => 1,
                Health::Unhealthy => 2,
                Health::Degraded => 5,
            },
            load_balancing_weight: Some(UInt32Value { value: host.weight() }),
            host_identifier: Some(lb_endpoint::HostIdentifier::Endpoint(Endpoint {
                address: Some(address_message(host.address())),
                hostname: host.hostname().to_owned(),
                health_check_config: Some(check_config(host)),
                ..Default::default()
            })),
            metadata: (resolved || **metadata != Metadata::default()).then(|| (**metadata).clone()),
        });
    }
    let service = eds_service_name(&cluster.message);
    let cluster_name = if service.is_empty() { cluster.cluster.info().name.to_string() } else { service };
    let overprovisioning_factor = Some(UInt32Value { value: hosts.overprovisioning() });
    let policy = Some(cluster_load_assignment::Policy { overprovisioning_factor, ..Default::default() });
    ClusterLoadAssignment { cluster_name, endpoints: groups, policy, ..Default::default() }
}

/// Where and by which name a host is checked, as far as that is not where it is.
fn check_config(host: &Host) -> HealthCheckConfig {
    let port = match (host.address(), host.health_check_address()) {
        (StreamAddress::Ip(own), StreamAddress::Ip(checked)) if own != checked => checked.port(),
        _ => 0,
    };
    HealthCheckConfig {
        port_value: port.into(),
        hostname: host.health_check_hostname().to_owned(),
        ..Default::default()
    }
}

/// `ListenersConfigDump`.
pub(crate) fn listeners(configuration: &Configuration) -> pb::ListenersConfigDump {
    let mut dump =
        pb::ListenersConfigDump { version_info: configuration.lds_version.clone(), ..Default::default() };
    for view in configuration.listeners.views() {
        let listener = Some(any::pack_encoded(&Listener::full_name(), view.encoded.to_vec()));
        let last_updated = Some(timestamp(view.last_updated));
        if view.origin == ListenerOrigin::Static {
            dump.static_listeners.push(pb::listeners_config_dump::StaticListener { listener, last_updated });
            continue;
        }
        let state = pb::listeners_config_dump::DynamicListenerState {
            version_info: view.version.to_string(),
            listener,
            last_updated,
        };
        let entry = match dump.dynamic_listeners.iter().position(|entry| *entry.name == *view.name) {
            Some(at) => &mut dump.dynamic_listeners[at],
            None => {
                dump.dynamic_listeners.push(pb::listeners_config_dump::DynamicListener {
                    name: view.name.to_string(),
                    ..Default::default()
                });
                let last = dump.dynamic_listeners.len() - 1;
                &mut dump.dynamic_listeners[last]
            }
        };
        if view.active {
            entry.active_state = Some(state);
        } else {
            entry.warming_state = Some(state);
        }
    }
    dump
}

/// `SecretsConfigDump`: those of the bootstrap, as Envoy without a time.
pub(crate) fn secrets(bootstrap: &Bootstrap) -> pb::SecretsConfigDump {
    let secrets = bootstrap.static_resources.iter().flat_map(|resources| &resources.secrets);
    let dumped = |secret: &Secret| pb::secrets_config_dump::StaticSecret {
        name: secret.name.clone(),
        secret: Some(any::pack(secret)),
        last_updated: None,
    };
    pb::SecretsConfigDump { static_secrets: secrets.map(dumped).collect(), ..Default::default() }
}

/// `RoutesConfigDump`.
pub(crate) fn routes(configuration: &Configuration) -> pb::RoutesConfigDump {
    let tables = configuration.routes.borrow();
    pb::RoutesConfigDump {
        static_route_configs: tables
            .inline()
            .map(|(message, since)| pb::routes_config_dump::StaticRouteConfig {
                route_config: Some(any::pack_encoded(
                    "envoy.config.route.v3.RouteConfiguration",
                    message.to_vec(),
                )),
                last_updated: Some(timestamp(since)),
            })
            .collect(),
        dynamic_route_configs: tables
            .dynamic()
            .map(|routes| pb::routes_config_dump::DynamicRouteConfig {
                version_info: routes.version.clone(),
                route_config: Some(any::pack(&routes.message)),
                last_updated: Some(timestamp(routes.last_updated)),
                ..Default::default()
            })
            .collect(),
    }
}

/// `/certs`, at `now` in seconds since 1970.
pub(crate) fn certificates(contexts: &[ListedContext], now: i64) -> pb::Certificates {
    let certificates = contexts.iter().map(|context| pb::Certificate {
        ca_cert: context.authority.iter().map(|listed| certificate(listed, now)).collect(),
        cert_chain: context.chain.iter().map(|listed| certificate(listed, now)).collect(),
    });
    pb::Certificates { certificates: certificates.collect() }
}

fn certificate(listed: &ListedCertificate, now: i64) -> pb::CertificateDetails {
    let facts = &listed.facts;
    let dns = facts.dns_names.iter().cloned().map(pb::subject_alternate_name::Name::Dns);
    let uris = facts.uris.iter().cloned().map(pb::subject_alternate_name::Name::Uri);
    let addresses =
        facts.addresses.iter().map(|ip| pb::subject_alternate_name::Name::IpAddress(ip.to_string()));
    let names = dns.chain(uris).chain(addresses);
    pb::CertificateDetails {
        path: listed.path.clone(),
        serial_number: facts.serial.clone(),
        subject_alt_names: names.map(|name| pb::SubjectAlternateName { name: Some(name) }).collect(),
        days_until_expiration: days_until(facts.not_after, now),
        valid_from: Some(Timestamp { seconds: facts.not_before, nanos: 0 }),
        expiration_time: Some(Timestamp { seconds: facts.not_after, nanos: 0 }),
        ocsp_details: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_service_name_of_a_cluster_is_found() {
        let eds = dhow_proto::envoy::config::cluster::v3::cluster::EdsClusterConfig {
            service_name: "s".into(),
            ..Default::default()
        };
        let cluster = Cluster { name: "c".into(), eds_cluster_config: Some(eds), ..Default::default() };
        assert_eq!(eds_service_name(&cluster.encode_to_vec()), "s");
        assert_eq!(eds_service_name(&Cluster::default().encode_to_vec()), "");
    }
}
