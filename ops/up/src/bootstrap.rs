//! Envoy bootstraps of sidecars and of the gateway, with the node metadata that Istio's agent would send.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use serde_json::{Value, json};

use crate::plan::{HTTP_PROXY_PORT, PodPlan};

/// Port of each proxy's admin interface.
pub(crate) const ADMIN_PORT: u16 = 15000;

/// Annotation of a pod: where its application listens, behind the sidecar.
pub(crate) const APPLICATION_ADDRESS: &str = "sidecar.dhow.dev/application-address";

/// Annotation of a gateway's pod: the address that its listeners bind to.
pub(crate) const BIND_ADDRESS: &str = "proxy.dhow.dev/bind-address";

/// Version of Istio whose behaviour the control plane follows.
const ISTIO_VERSION: &str = "1.31.0";

/// Namespace and name of the gateway.
pub(crate) const GATEWAY_NAMESPACE: &str = "istio-system";
pub(crate) const GATEWAY: &str = "istio-ingressgateway";

/// Node and admin address of a proxy.
#[derive(Clone, Debug)]
pub(crate) struct ProxyIdentity {
    pub id: String,
    pub cluster: String,
    pub admin: SocketAddr,
    metadata: Value,
}

impl ProxyIdentity {
    /// The sidecar of `pod`.
    pub(crate) fn sidecar(pod: &PodPlan) -> Self {
        let mut annotations = pod.annotations.clone();
        annotations.insert(APPLICATION_ADDRESS.to_owned(), pod.addresses.application.to_string());
        let app = pod.labels.get("app").unwrap_or(&pod.workload);
        let ports: Vec<Value> = pod
            .containers
            .iter()
            .flat_map(|container| &container.ports)
            .map(|(name, number)| json!({"name": name.as_deref().unwrap_or(""), "containerPort": number}))
            .collect();
        let mut metadata = metadata(&MetadataOf {
            name: &pod.name,
            namespace: &pod.namespace,
            workload: &pod.workload,
            service_account: &pod.service_account,
            labels: &pod.labels,
            annotations: &annotations,
            address: pod.addresses.pod,
        });
        metadata["INTERCEPTION_MODE"] = json!("NONE");
        metadata["HTTP_PROXY_PORT"] = json!(HTTP_PROXY_PORT.to_string());
        // Istio sends this list as text.
        metadata["POD_PORTS"] = json!(Value::Array(ports).to_string());
        metadata["APP_CONTAINERS"] = json!(
            pod.containers.iter().map(|container| container.name.as_str()).collect::<Vec<_>>().join(",")
        );
        Self {
            id: node_id("sidecar", pod.addresses.pod, &pod.name, &pod.namespace),
            cluster: format!("{app}.{}", pod.namespace),
            admin: SocketAddr::new(pod.addresses.pod, ADMIN_PORT),
            metadata,
        }
    }

    /// The gateway, which listens on `address`; its admin interface is on `admin`, as other meshes may have gateways there too.
    pub(crate) fn gateway(pod: &str, address: IpAddr, admin: IpAddr) -> Self {
        let annotations = BTreeMap::from([(BIND_ADDRESS.to_owned(), address.to_string())]);
        Self {
            id: node_id("router", address, pod, GATEWAY_NAMESPACE),
            cluster: format!("{GATEWAY}.{GATEWAY_NAMESPACE}"),
            admin: SocketAddr::new(admin, ADMIN_PORT),
            metadata: metadata(&MetadataOf {
                name: pod,
                namespace: GATEWAY_NAMESPACE,
                workload: GATEWAY,
                service_account: "istio-ingressgateway-service-account",
                labels: &gateway_labels(),
                annotations: &annotations,
                address,
            }),
        }
    }

    /// The whole bootstrap, taking its configuration from `control_plane` over delta ADS.
    pub(crate) fn bootstrap(&self, control_plane: SocketAddr) -> Value {
        let socket = |address: SocketAddr| json!({"socket_address": {"address": address.ip().to_string(), "port_value": address.port()}});
        let ads = || json!({"ads": {}, "resource_api_version": "V3", "initial_fetch_timeout": "0s"});
        json!({
            "node": {"id": self.id, "cluster": self.cluster, "metadata": self.metadata},
            "admin": {"address": socket(self.admin)},
            "dynamic_resources": {
                "ads_config": {
                    "api_type": "DELTA_GRPC",
                    "transport_api_version": "V3",
                    "set_node_on_first_message_only": true,
                    "grpc_services": [{"envoy_grpc": {"cluster_name": "xds-grpc"}}],
                },
                "cds_config": ads(),
                "lds_config": ads(),
            },
            "static_resources": {"clusters": [{
                "name": "xds-grpc",
                "type": "STATIC",
                "connect_timeout": "1s",
                "typed_extension_protocol_options": {
                    "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
                        "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
                        "explicit_http_config": {"http2_protocol_options": {}},
                    },
                },
                "load_assignment": {
                    "cluster_name": "xds-grpc",
                    "endpoints": [{"lb_endpoints": [{"endpoint": {"address": socket(control_plane)}}]}],
                },
            }]},
        })
    }
}

/// Labels of the gateway's pod, which Gateways select it by.
pub(crate) fn gateway_labels() -> BTreeMap<String, String> {
    BTreeMap::from([
        ("app".to_owned(), GATEWAY.to_owned()),
        ("istio".to_owned(), "ingressgateway".to_owned()),
    ])
}

struct MetadataOf<'a> {
    name: &'a str,
    namespace: &'a str,
    workload: &'a str,
    service_account: &'a str,
    labels: &'a BTreeMap<String, String>,
    annotations: &'a BTreeMap<String, String>,
    address: IpAddr,
}

fn metadata(of: &MetadataOf<'_>) -> Value {
    json!({
        "NAME": of.name,
        "NAMESPACE": of.namespace,
        "OWNER": format!("kubernetes://apis/apps/v1/namespaces/{}/deployments/{}", of.namespace, of.workload),
        "WORKLOAD_NAME": of.workload,
        "SERVICE_ACCOUNT": of.service_account,
        "LABELS": of.labels,
        "ANNOTATIONS": of.annotations,
        "CLUSTER_ID": "Kubernetes",
        "MESH_ID": "cluster.local",
        "ISTIO_VERSION": ISTIO_VERSION,
        "INSTANCE_IPS": of.address.to_string(),
    })
}

fn node_id(kind: &str, address: IpAddr, pod: &str, namespace: &str) -> String {
    format!("{kind}~{address}~{pod}.{namespace}~{namespace}.svc.cluster.local")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::address::PodAddresses;
    use crate::plan::ContainerPlan;

    #[test]
    fn a_sidecar_says_who_it_is_as_istio_does() {
        let pod = PodPlan {
            name: "web-1".to_owned(),
            namespace: "shop".to_owned(),
            workload: "web".to_owned(),
            labels: BTreeMap::from([("app".to_owned(), "front".to_owned())]),
            annotations: BTreeMap::new(),
            service_account: "web".to_owned(),
            addresses: PodAddresses { pod: [127, 64, 0, 2].into(), application: [127, 65, 0, 2].into() },
            sidecar: true,
            containers: vec![ContainerPlan {
                name: "web".to_owned(),
                image: String::new(),
                ports: vec![(Some("http".to_owned()), 80)],
                command: Vec::new(),
                environment: Vec::new(),
            }],
        };
        let bootstrap = ProxyIdentity::sidecar(&pod).bootstrap("127.64.0.1:15010".parse().unwrap());
        let node = &bootstrap["node"];
        assert_eq!(node["id"], "sidecar~127.64.0.2~web-1.shop~shop.svc.cluster.local");
        assert_eq!(node["cluster"], "front.shop");
        assert_eq!(node["metadata"]["INTERCEPTION_MODE"], "NONE");
        assert_eq!(node["metadata"]["HTTP_PROXY_PORT"], "15007");
        assert_eq!(node["metadata"]["ANNOTATIONS"][APPLICATION_ADDRESS], "127.65.0.2");
        assert_eq!(node["metadata"]["POD_PORTS"], r#"[{"name":"http","containerPort":80}]"#);
        assert_eq!(bootstrap["admin"]["address"]["socket_address"]["address"], "127.64.0.2");
        let cluster = &bootstrap["static_resources"]["clusters"][0];
        let endpoint = &cluster["load_assignment"]["endpoints"][0]["lb_endpoints"][0]["endpoint"];
        assert_eq!(endpoint["address"]["socket_address"]["port_value"], 15010);
    }

    #[test]
    fn the_gateway_is_a_router_that_gateways_can_select() {
        let identity = ProxyIdentity::gateway("gw-1", [127, 0, 0, 1].into(), [127, 64, 0, 1].into());
        let bootstrap = identity.bootstrap("127.64.0.1:15010".parse().unwrap());
        assert_eq!(
            bootstrap["node"]["id"],
            "router~127.0.0.1~gw-1.istio-system~istio-system.svc.cluster.local"
        );
        assert_eq!(bootstrap["node"]["metadata"]["LABELS"]["istio"], "ingressgateway");
        assert_eq!(bootstrap["node"]["metadata"]["ANNOTATIONS"][BIND_ADDRESS], "127.0.0.1");
        assert_eq!(bootstrap["admin"]["address"]["socket_address"]["address"], "127.64.0.1");
    }
}
