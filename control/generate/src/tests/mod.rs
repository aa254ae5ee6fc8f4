//! What generation does, rule by rule, looked at as JSON: the form that users see in `config_dump`.

mod access_logs;
mod gateways;
mod resources;
mod routing;
mod sidecars;

use dhow_control_model::push::{Objects, PushContext};
use dhow_control_model::{Decoded, MeshConfig, Origin, decode};
use dhow_proto::envoy::config::core::v3::Node;
use dhow_yaml::{Dialect, parse};
use serde_json::{Value, json};

use crate::{ProxyConfiguration, generate, proxy_of_node};

/// Two services with two and one workloads.
const SERVICES: &str = "
apiVersion: v1
kind: Service
metadata: {name: reviews}
spec: {clusterIP: 10.96.0.1, selector: {app: reviews}, ports: [{name: http, port: 9080}]}
---
apiVersion: v1
kind: Service
metadata: {name: db, namespace: data}
spec: {clusterIP: 10.96.0.2, selector: {app: db}, ports: [{name: tcp-db, port: 5432, targetPort: 15432}]}
---
{apiVersion: v1, kind: Pod, metadata: {name: reviews-1, labels: {app: reviews, version: v1}}, status: {podIP: 10.0.0.1}}
---
{apiVersion: v1, kind: Pod, metadata: {name: reviews-2, labels: {app: reviews, version: v2}}, status: {podIP: 10.0.0.2}}
---
{apiVersion: v1, kind: Pod, metadata: {name: db-1, namespace: data, labels: {app: db}}, status: {podIP: 10.0.0.3}}
";

/// The state of the mesh that the manifests describe.
fn push_with(text: &str, mesh: Value) -> PushContext {
    let documents = parse(text, Dialect::Kubernetes).unwrap();
    let objects: Vec<_> = documents
        .iter()
        .filter(|document| !document.root.is_null())
        .map(|document| match decode(document.root.to_json(), "default", Origin::default()).unwrap() {
            Decoded::Object(object) => *object,
            other => panic!("{other:?}"),
        })
        .collect();
    let (mesh, _) = MeshConfig::decode(mesh).unwrap();
    PushContext::new(Objects::collect(&objects), mesh, "cluster.local")
}

fn push(text: &str) -> PushContext {
    push_with(text, json!({}))
}

fn istio(kind: &str, name: &str, spec: &str) -> String {
    format!(
        "---\napiVersion: networking.istio.io/v1\nkind: {kind}\nmetadata: {{name: {name}}}\nspec: {spec}\n"
    )
}

fn node(id: &str, metadata: Value) -> Node {
    let text = json!({"id": id, "metadata": metadata}).to_string();
    dhow_proto::load_json::<Node>(&text, &dhow_proto::LoadOptions::default()).unwrap().message
}

fn configuration(push: &PushContext, node: &Node) -> ProxyConfiguration {
    generate(push, &proxy_of_node(node).unwrap())
}

/// The configuration of the sidecar of `reviews-1`.
fn sidecar(text: &str) -> Dump {
    sidecar_of(&push(text), json!({}))
}

fn sidecar_of(push: &PushContext, more: Value) -> Dump {
    let mut metadata =
        json!({"NAMESPACE": "default", "LABELS": {"app": "reviews", "version": "v1"}, "CLUSTER_ID": "one"});
    for (name, value) in more.as_object().unwrap() {
        metadata[name] = value.clone();
    }
    Dump(configuration(push, &node("sidecar~10.0.0.1~reviews-1.default~default.svc.cluster.local", metadata)))
}

/// A configuration, asked for by name.
struct Dump(ProxyConfiguration);

impl Dump {
    fn cluster(&self, name: &str) -> Value {
        let found = self.0.clusters.iter().find(|cluster| cluster.name == name);
        found.map(dhow_proto::message_to_json).unwrap_or(Value::Null)
    }

    fn clusters(&self) -> Vec<&str> {
        self.0.clusters.iter().map(|cluster| cluster.name.as_str()).collect()
    }

    fn listener(&self, name: &str) -> Value {
        let found = self.0.listeners.iter().find(|listener| listener.name == name);
        found.map(dhow_proto::message_to_json).unwrap_or(Value::Null)
    }

    fn listeners(&self) -> Vec<&str> {
        self.0.listeners.iter().map(|listener| listener.name.as_str()).collect()
    }

    fn route(&self, name: &str) -> Value {
        let found = self.0.routes.iter().find(|route| route.name == name);
        found.map(dhow_proto::message_to_json).unwrap_or(Value::Null)
    }

    fn routes(&self) -> Vec<&str> {
        self.0.routes.iter().map(|route| route.name.as_str()).collect()
    }

    /// The virtual host of a route configuration.
    fn host(&self, route: &str, name: &str) -> Value {
        let route = self.route(route);
        let hosts = route["virtual_hosts"].as_array().cloned().unwrap_or_default();
        hosts.into_iter().find(|host| host["name"] == name).unwrap_or(Value::Null)
    }

    fn endpoints(&self, cluster: &str) -> Vec<String> {
        let found = self.0.endpoints.iter().find(|assignment| assignment.cluster_name == cluster);
        let json = found.map(dhow_proto::message_to_json).unwrap_or(Value::Null);
        let localities = json["endpoints"].as_array().cloned().unwrap_or_default();
        let endpoints = localities
            .iter()
            .flat_map(|locality| locality["lb_endpoints"].as_array().cloned().unwrap_or_default());
        endpoints
            .map(|endpoint| {
                let address = &endpoint["endpoint"]["address"]["socket_address"];
                format!("{}:{}", address["address"].as_str().unwrap_or_default(), address["port_value"])
            })
            .collect()
    }

    fn notices(&self) -> Vec<String> {
        self.0.notices.iter().map(|notice| format!("{}: {}", notice.object, notice.warning)).collect()
    }
}

/// The only filter of a chain, its configuration.
fn filter(chain: &Value) -> &Value {
    &chain["filters"][0]["typed_config"]
}

/// The routes of `reviews` in a sidecar, given the HTTP rules of its VirtualService.
fn reviews_routes(rules: &str) -> Vec<Value> {
    let rules = istio("VirtualService", "reviews", &format!("{{hosts: [reviews], http: {rules}}}"));
    let dump = sidecar(&format!("{SERVICES}{rules}"));
    let host = dump.host("9080", "reviews.default.svc.cluster.local:9080");
    host["routes"].as_array().unwrap().clone()
}
