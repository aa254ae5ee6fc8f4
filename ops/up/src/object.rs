//! The Kubernetes objects that a cluster would keep up to date for the control plane: pods with their state, and the gateway's Service.

use serde_json::{Value, json};

use crate::bootstrap::{APPLICATION_ADDRESS, BIND_ADDRESS, GATEWAY, GATEWAY_NAMESPACE, gateway_labels};
use crate::plan::PodPlan;

/// The Pod object of a planned pod. Services send requests to it while it is `ready`.
pub(crate) fn pod(pod: &PodPlan, ready: bool) -> Value {
    let mut annotations = pod.annotations.clone();
    if pod.sidecar {
        annotations.insert(APPLICATION_ADDRESS.to_owned(), pod.addresses.application.to_string());
    }
    let containers: Vec<Value> = pod
        .containers
        .iter()
        .map(|container| {
            let port = |(name, number): &(Option<String>, u16)| match name {
                Some(name) => json!({"name": name, "containerPort": number}),
                None => json!({"containerPort": number}),
            };
            let ports: Vec<Value> = container.ports.iter().map(port).collect();
            json!({"name": container.name, "image": container.image, "ports": ports})
        })
        .collect();
    let address = pod.addresses.pod.to_string();
    json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": pod.name,
            "namespace": pod.namespace,
            "labels": pod.labels,
            "annotations": annotations,
        },
        "spec": {"serviceAccountName": pod.service_account, "nodeName": "localhost", "containers": containers},
        "status": status(&address, ready),
    })
}

/// The gateway's Pod object.
pub(crate) fn gateway_pod(name: &str, ready: bool) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": name,
            "namespace": GATEWAY_NAMESPACE,
            "labels": gateway_labels(),
            "annotations": {BIND_ADDRESS: "127.0.0.1"},
        },
        "spec": {
            "serviceAccountName": "istio-ingressgateway-service-account",
            "nodeName": "localhost",
            "containers": [{"name": "istio-proxy", "image": "dhow-proxy", "ports": []}],
        },
        "status": status("127.0.0.1", ready),
    })
}

/// What the port 8443 is more than 8080: the gateway's port for TLS keeps this distance from the one for HTTP, whatever that is.
const TLS_DISTANCE: u16 = 363;

/// The gateway's Service, which says that the ports 80 and 8080 of Gateways are `port` of this machine, and 443 another one that
/// needs no privilege.
pub(crate) fn gateway_service(port: u16) -> Value {
    let map = |name: &str, number: u16, target: u16| json!({"name": name, "port": number, "targetPort": target, "protocol": "TCP"});
    let tls = port.checked_add(TLS_DISTANCE).unwrap_or(port - TLS_DISTANCE);
    json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": GATEWAY, "namespace": GATEWAY_NAMESPACE, "labels": gateway_labels()},
        "spec": {
            "type": "LoadBalancer",
            "selector": gateway_labels(),
            "ports": [map("http2", 80, port), map("http-alternative", 8080, port), map("https", 443, tls)],
        },
    })
}

fn status(address: &str, ready: bool) -> Value {
    json!({
        "phase": "Running",
        "hostIP": "127.0.0.1",
        "podIP": address,
        "podIPs": [{"ip": address}],
        "conditions": [{"type": "Ready", "status": if ready { "True" } else { "False" }}],
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gateways_need_no_privileged_port() {
        let target = |service: &Value, index: usize| service["spec"]["ports"][index]["targetPort"].clone();
        let usual = gateway_service(8080);
        assert_eq!(
            (target(&usual, 0), target(&usual, 1), target(&usual, 2)),
            (8080.into(), 8080.into(), 8443.into())
        );
        assert_eq!(target(&gateway_service(u16::MAX), 2), u16::MAX - TLS_DISTANCE);
    }
}
