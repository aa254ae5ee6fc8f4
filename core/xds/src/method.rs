//! The gRPC methods of xDS: one service for all types and one per type, each with a method per protocol.

use crate::{Variant, type_url};

struct Service {
    /// Which type it is limited to.
    only_type: Option<&'static str>,
    state_of_the_world: Option<&'static str>,
    delta: &'static str,
}

const SERVICES: [Service; 10] = [
    Service {
        only_type: None,
        state_of_the_world: Some(
            "/envoy.service.discovery.v3.AggregatedDiscoveryService/StreamAggregatedResources",
        ),
        delta: "/envoy.service.discovery.v3.AggregatedDiscoveryService/DeltaAggregatedResources",
    },
    Service {
        only_type: Some(type_url::CLUSTER),
        state_of_the_world: Some("/envoy.service.cluster.v3.ClusterDiscoveryService/StreamClusters"),
        delta: "/envoy.service.cluster.v3.ClusterDiscoveryService/DeltaClusters",
    },
    Service {
        only_type: Some(type_url::ENDPOINT),
        state_of_the_world: Some("/envoy.service.endpoint.v3.EndpointDiscoveryService/StreamEndpoints"),
        delta: "/envoy.service.endpoint.v3.EndpointDiscoveryService/DeltaEndpoints",
    },
    Service {
        only_type: Some(type_url::LISTENER),
        state_of_the_world: Some("/envoy.service.listener.v3.ListenerDiscoveryService/StreamListeners"),
        delta: "/envoy.service.listener.v3.ListenerDiscoveryService/DeltaListeners",
    },
    Service {
        only_type: Some(type_url::ROUTE),
        state_of_the_world: Some("/envoy.service.route.v3.RouteDiscoveryService/StreamRoutes"),
        delta: "/envoy.service.route.v3.RouteDiscoveryService/DeltaRoutes",
    },
    Service {
        only_type: Some(type_url::SCOPED_ROUTE),
        state_of_the_world: Some("/envoy.service.route.v3.ScopedRoutesDiscoveryService/StreamScopedRoutes"),
        delta: "/envoy.service.route.v3.ScopedRoutesDiscoveryService/DeltaScopedRoutes",
    },
    Service {
        only_type: Some(type_url::VIRTUAL_HOST),
        state_of_the_world: None,
        delta: "/envoy.service.route.v3.VirtualHostDiscoveryService/DeltaVirtualHosts",
    },
    Service {
        only_type: Some(type_url::SECRET),
        state_of_the_world: Some("/envoy.service.secret.v3.SecretDiscoveryService/StreamSecrets"),
        delta: "/envoy.service.secret.v3.SecretDiscoveryService/DeltaSecrets",
    },
    Service {
        only_type: Some(type_url::EXTENSION_CONFIG),
        state_of_the_world: Some(
            "/envoy.service.extension.v3.ExtensionConfigDiscoveryService/StreamExtensionConfigs",
        ),
        delta: "/envoy.service.extension.v3.ExtensionConfigDiscoveryService/DeltaExtensionConfigs",
    },
    Service {
        only_type: Some(type_url::RUNTIME),
        state_of_the_world: Some("/envoy.service.runtime.v3.RuntimeDiscoveryService/StreamRuntime"),
        delta: "/envoy.service.runtime.v3.RuntimeDiscoveryService/DeltaRuntime",
    },
];

/// The `:path` of the method for a variant: of the aggregated service, or of the service of one type. `None` when there
/// is no such method.
pub fn method_path(variant: Variant, only_type: Option<&str>) -> Option<&'static str> {
    let service = SERVICES.iter().find(|service| service.only_type == only_type)?;
    match variant {
        Variant::StateOfTheWorld => service.state_of_the_world,
        Variant::Delta => Some(service.delta),
    }
}

/// What a `:path` asks for: the protocol, and the type that the service is limited to, if it is.
pub fn parse_method_path(path: &str) -> Option<(Variant, Option<&'static str>)> {
    SERVICES.iter().find_map(|service| {
        if service.delta == path {
            Some((Variant::Delta, service.only_type))
        } else if service.state_of_the_world == Some(path) {
            Some((Variant::StateOfTheWorld, service.only_type))
        } else {
            None
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_path_leads_back_to_its_method() {
        for variant in [Variant::StateOfTheWorld, Variant::Delta] {
            for service in &SERVICES {
                let Some(path) = method_path(variant, service.only_type) else {
                    assert_eq!(service.only_type, Some(type_url::VIRTUAL_HOST));
                    continue;
                };
                assert_eq!(parse_method_path(path), Some((variant, service.only_type)));
            }
        }
        assert_eq!(parse_method_path("/grpc.health.v1.Health/Check"), None);
    }
}
