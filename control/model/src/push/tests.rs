//! Istio's merge and precedence rules, one at a time.

use crate::fixtures::{proxy, push, push_with};
use crate::istio::SimpleLb;
use crate::push::{EffectivePolicy, Proxy, ProxyType, PushContext, ServiceResolution};
use crate::{Host, MeshConfig, Protocol};

const SERVICE: &str = "
apiVersion: v1
kind: Service
metadata: {name: web}
spec: {selector: {app: web}, ports: [{name: http, port: 80, targetPort: named}, {name: tcp, port: 81, targetPort: 8081}]}
---
apiVersion: v1
kind: Pod
metadata: {name: web-1, labels: {app: web, version: v1}}
spec: {serviceAccountName: web, containers: [{ports: [{name: named, containerPort: 8080}]}]}
status: {podIP: 10.0.0.1}
---
apiVersion: v1
kind: Pod
metadata: {name: web-2, labels: {app: web, version: v2}}
spec: {containers: [{ports: [{name: named, containerPort: 9090}]}]}
status: {podIP: 10.0.0.2, conditions: [{type: Ready, status: 'False'}]}
";

fn sidecar() -> Proxy {
    proxy(ProxyType::Sidecar, "10.0.0.1", "default", &[("app", "web")])
}

fn istio(kind: &str, name: &str, spec: &str) -> String {
    format!(
        "---\napiVersion: networking.istio.io/v1\nkind: {kind}\nmetadata: {{name: {name}}}\nspec: {spec}\n"
    )
}

fn web(push: &PushContext) -> &crate::push::Service {
    push.services.find(&Host::new("web.default.svc.cluster.local"), "default").unwrap()
}

#[test]
fn pods_behind_the_selector_are_endpoints_with_the_named_port_of_each() {
    let push = push(SERVICE);
    let service = web(&push);
    let (port, endpoints) = service.port(80).unwrap();
    assert_eq!(port.protocol, Protocol::Http);
    let seen: Vec<_> = endpoints.iter().map(|own| (own.address.as_str(), own.port, own.ready)).collect();
    assert_eq!(seen, [("10.0.0.1", 8080, true), ("10.0.0.2", 9090, false)]);
    assert_eq!(endpoints[0].service_account, "web");
}

#[test]
fn endpoint_slices_take_the_place_of_the_selector() {
    let slice = "
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: web-abc, labels: {kubernetes.io/service-name: web}}
addressType: IPv4
ports: [{name: http, port: 7000}]
endpoints: [{addresses: [10.0.0.1], zone: z1}, {addresses: [10.9.9.9], conditions: {ready: false}}]
";
    let push = push(&format!("{SERVICE}{slice}"));
    let (_, endpoints) = web(&push).port(80).unwrap();
    let seen: Vec<_> = endpoints.iter().map(|own| (own.address.as_str(), own.port, own.ready)).collect();
    assert_eq!(seen, [("10.0.0.1", 7000, true), ("10.9.9.9", 7000, false)]);
    // The pod behind an address is found by it.
    assert_eq!(endpoints[0].labels.get("version").map(String::as_str), Some("v1"));
    assert!(web(&push).port(81).unwrap().1.is_empty());
}

#[test]
fn a_workload_belongs_to_the_services_of_its_address_or_else_of_its_labels() {
    let push = push(SERVICE);
    let ports = |proxy: &Proxy| -> Vec<u32> {
        proxy.service_targets(&push.services).iter().map(|target| target.target_port).collect()
    };
    assert_eq!(ports(&sidecar()), [8080, 8081]);
    // Unknown address: only the port with a number can be told without the pod.
    assert_eq!(ports(&proxy(ProxyType::Sidecar, "10.7.7.7", "default", &[("app", "web")])), [8081]);
    assert!(ports(&proxy(ProxyType::Sidecar, "10.7.7.7", "other", &[("app", "web")])).is_empty());
}

#[test]
fn a_service_entry_adds_endpoints_to_a_service_of_the_same_host() {
    let entry = istio(
        "ServiceEntry",
        "more",
        "{hosts: [web.default.svc.cluster.local], resolution: STATIC, location: MESH_INTERNAL, ports: [{number: 80, name: http, protocol: HTTP}], endpoints: [{address: 10.5.0.1}]}",
    );
    let push = push(&format!("{SERVICE}{entry}"));
    assert_eq!(push.services.len(), 1);
    assert_eq!(web(&push).resolution, ServiceResolution::ClientSideLb);
    assert_eq!(web(&push).port(80).unwrap().1.len(), 3);
}

#[test]
fn a_service_of_the_own_namespace_comes_before_one_that_is_exported() {
    let entry = |namespace: &str, export: &str| {
        format!(
            "---\napiVersion: networking.istio.io/v1\nkind: ServiceEntry\nmetadata: {{name: e, namespace: {namespace}}}\nspec: {{hosts: [x.com], exportTo: [{export}], ports: [{{number: 80, name: http}}]}}\n"
        )
    };
    let push = push(&format!("{}{}", entry("a", "'*'"), entry("b", "'.'")));
    let namespace_for = |from: &str| push.services.find(&Host::new("x.com"), from).unwrap().namespace.clone();
    assert_eq!(namespace_for("b"), "b");
    assert_eq!(namespace_for("c"), "a");
}

#[test]
fn for_a_sidecar_the_most_specific_host_wins_and_then_the_first_name() {
    let route = |name: &str, host: &str| {
        istio(
            "VirtualService",
            name,
            &format!("{{hosts: ['{host}'], http: [{{route: [{{destination: {{host: web}}}}]}}]}}"),
        )
    };
    let text = [route("b", "x.com"), route("a", "*.com"), route("c", "x.com")].concat();
    let push = push(&text);
    let name = |host: &str| {
        push.virtual_services.for_host(&Host::new(host), "default").map(|found| found.meta.name.clone())
    };
    assert_eq!(name("x.com").as_deref(), Some("b"));
    assert_eq!(name("y.com").as_deref(), Some("a"));
    assert_eq!(name("y.org"), None);
}

#[test]
fn creation_time_comes_before_the_name() {
    let dated = |name: &str, time: &str| {
        format!(
            "---\napiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {{name: {name}, creationTimestamp: '{time}'}}\nspec: {{hosts: [x.com], http: [{{route: [{{destination: {{host: web}}}}]}}]}}\n"
        )
    };
    let push = push(&[dated("a", "2026-02-01T00:00:00Z"), dated("b", "2026-01-01T00:00:00Z")].concat());
    assert_eq!(push.virtual_services.for_host(&Host::new("x.com"), "default").unwrap().meta.name, "b");
}

#[test]
fn a_delegate_gets_both_conditions_and_inherits_what_it_does_not_say() {
    let root = istio(
        "VirtualService",
        "root",
        "{hosts: [x.com], http: [{name: r, match: [{uri: {prefix: /a}}], timeout: 3s, delegate: {name: inner}}, {match: [{uri: {exact: /z}}], delegate: {name: missing}}]}",
    );
    let inner = istio(
        "VirtualService",
        "inner",
        "{http: [{name: i, match: [{uri: {prefix: /a/b}, headers: {h: {exact: v}}}], route: [{destination: {host: web}}]}, {match: [{uri: {prefix: /other}}], route: [{destination: {host: web}}]}]}",
    );
    let push = push(&format!("{root}{inner}"));
    let found = push.virtual_services.for_host(&Host::new("x.com"), "default").unwrap();
    let [route] = found.spec.http.as_slice() else { panic!("{:?}", found.spec.http) };
    assert_eq!(route.name, "r-i");
    assert_eq!(route.timeout.map(|timeout| timeout.0.as_secs()), Some(3));
    assert_eq!(route.matches[0].uri, Some(crate::istio::StringMatch::Prefix("/a/b".to_owned())));
    assert!(route.matches[0].headers.contains_key("h"));
    // The second route excludes the root's condition, and one delegate does not exist.
    let delegation = push.notices.iter().filter(|notice| notice.warning.to_string().contains("delegate"));
    assert_eq!(delegation.count(), 2, "{:?}", push.notices);
}

#[test]
fn rules_for_one_host_merge_and_the_first_policy_applies() {
    let first = istio(
        "DestinationRule",
        "a",
        "{host: web, trafficPolicy: {loadBalancer: {simple: RANDOM}}, subsets: [{name: v1, labels: {version: v1}}]}",
    );
    let second = istio(
        "DestinationRule",
        "b",
        "{host: web.default.svc.cluster.local, trafficPolicy: {loadBalancer: {simple: ROUND_ROBIN}}, subsets: [{name: v1}, {name: v2}]}",
    );
    let push = push(&format!("{SERVICE}{first}{second}"));
    let rule = push.destination_rules.find(&sidecar(), web(&push)).unwrap();
    assert_eq!(rule.meta.name, "a");
    assert_eq!(rule.subsets.iter().map(|subset| subset.name.as_str()).collect::<Vec<_>>(), ["v1", "v2"]);
    assert!(!rule.subset("v1").unwrap().labels.is_empty());
    let policy = EffectivePolicy::new(&push.mesh, Some(rule), None, 80);
    assert_eq!(policy.load_balancer.unwrap().simple, Some(SimpleLb::Random));
    assert_eq!(push.notices.len(), 2, "{:?}", push.notices);
}

#[test]
fn rules_are_looked_up_with_the_client_then_with_the_service_then_in_the_root_namespace() {
    let rule = |namespace: &str, host: &str| {
        format!(
            "---\napiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {{name: r, namespace: {namespace}}}\nspec: {{host: '{host}'}}\n"
        )
    };
    let host = "web.default.svc.cluster.local";
    let found = |text: &str, from: &str| {
        let push = push(&format!("{SERVICE}{text}"));
        let client = proxy(ProxyType::Sidecar, "10.1.1.1", from, &[]);
        push.destination_rules.find(&client, web(&push)).map(|rule| rule.meta.namespace.clone())
    };
    let all = [rule("client", host), rule("default", host), rule("istio-system", "*.local")].concat();
    assert_eq!(found(&all, "client").as_deref(), Some("client"));
    assert_eq!(found(&all, "elsewhere").as_deref(), Some("default"));
    assert_eq!(found(&rule("istio-system", "*.local"), "elsewhere").as_deref(), Some("istio-system"));
    assert_eq!(found(&rule("third", host), "elsewhere"), None);
}

#[test]
fn sections_are_inherited_one_by_one_and_port_settings_replace_them_all() {
    let rule = istio(
        "DestinationRule",
        "a",
        "{host: web, trafficPolicy: {loadBalancer: {simple: RANDOM}, connectionPool: {tcp: {maxConnections: 1}}, portLevelSettings: [{port: {number: 81}, loadBalancer: {simple: ROUND_ROBIN}}]}, subsets: [{name: v1, trafficPolicy: {connectionPool: {tcp: {maxConnections: 2}}}}]}",
    );
    let push = push(&format!("{SERVICE}{rule}"));
    let rule = push.destination_rules.find(&sidecar(), web(&push));
    let policy = |subset, port| EffectivePolicy::new(&push.mesh, rule, subset, port);
    let limit = |policy: &EffectivePolicy| {
        policy.connection_pool.as_ref().map(|pool| pool.tcp.as_ref().unwrap().max_connections)
    };
    let subset = policy(Some("v1"), 80);
    assert_eq!(limit(&subset), Some(2));
    assert_eq!(subset.load_balancer.unwrap().simple, Some(SimpleLb::Random));
    let port = policy(None, 81);
    assert_eq!(limit(&port), None);
    assert_eq!(port.load_balancer.unwrap().simple, Some(SimpleLb::RoundRobin));
}

#[test]
fn the_mesh_default_lies_under_every_rule() {
    let (mesh, _) = MeshConfig::decode(
        serde_json::json!({"defaultTrafficPolicy": {"outlierDetection": {"consecutive5xxErrors": 7}}}),
    )
    .unwrap();
    let push = push_with(SERVICE, mesh);
    let policy = EffectivePolicy::new(&push.mesh, None, None, 80);
    assert_eq!(policy.outlier_detection.unwrap().consecutive_5xx_errors, Some(7));
}

fn gateway(name: &str, servers: &str) -> String {
    istio("Gateway", name, &format!("{{selector: {{istio: ingressgateway}}, servers: [{servers}]}}"))
}

const GATEWAY_SERVICE: &str = "
---
apiVersion: v1
kind: Service
metadata: {name: ingress, namespace: istio-system}
spec: {selector: {istio: ingressgateway}, ports: [{name: http, port: 80, targetPort: 8080}]}
---
apiVersion: v1
kind: Pod
metadata: {name: gw, namespace: istio-system, labels: {istio: ingressgateway}}
status: {podIP: 10.0.0.9}
";

fn router() -> Proxy {
    proxy(ProxyType::Router, "10.0.0.9", "istio-system", &[("istio", "ingressgateway")])
}

#[test]
fn a_gateway_listens_on_the_target_port_of_its_service_or_on_the_port_itself() {
    let servers = "{port: {number: 80, name: a, protocol: HTTP}, hosts: ['*']}, {port: {number: 9000, name: b, protocol: HTTP}, hosts: ['*']}";
    let push = push(&format!("{GATEWAY_SERVICE}{}", gateway("g", servers)));
    let merged = push.merged_gateway(&router());
    let ports: Vec<u32> = merged.groups.iter().map(|group| group.port).collect();
    assert_eq!(ports, [8080, 9000]);
    assert_eq!(merged.groups[0].servers[0].route_name(8080).as_deref(), Some("http.8080"));
}

#[test]
fn gateways_share_a_port_only_when_they_speak_the_same() {
    let http = "{port: {number: 90, name: a, protocol: HTTP}, hosts: [a.com]}";
    let tcp = "{port: {number: 90, name: b, protocol: TCP}, hosts: ['*']}";
    let push = push(&[gateway("one", http), gateway("three", tcp), gateway("two", http)].concat());
    let merged = push.merged_gateway(&router());
    assert_eq!(merged.groups.len(), 1);
    assert_eq!(merged.groups[0].servers.len(), 2);
    assert_eq!(merged.conflicts.len(), 1);
    assert_eq!(merged.conflicts[0].0.meta.name, "three");
}

#[test]
fn https_routes_carry_port_server_and_gateway_in_their_name() {
    let server = "{port: {number: 443, name: web, protocol: HTTPS}, hosts: ['./a.com', 'b/c.com'], tls: {mode: SIMPLE, credentialName: c}}";
    let push = push(&gateway("g", server));
    let merged = push.merged_gateway(&router());
    let server = &merged.groups[0].servers[0];
    assert_eq!(server.route_name(8443).as_deref(), Some("https.8443.web.g.default"));
    assert_eq!(
        server.hosts,
        [("default".to_owned(), Host::new("a.com")), ("b".to_owned(), Host::new("c.com"))]
    );
}

#[test]
fn references_that_lead_nowhere_are_reported() {
    let text = istio(
        "VirtualService",
        "v",
        "{hosts: [web], gateways: [nope], http: [{route: [{destination: {host: web, subset: v9}, weight: 1}, {destination: {host: gone}, weight: 1}, {destination: {host: web, port: {number: 5}}, weight: 1}]}]}",
    );
    let push = push(&format!("{SERVICE}{text}"));
    let paths: Vec<&str> = push.notices.iter().map(|notice| notice.warning.path.as_str()).collect();
    assert_eq!(
        paths,
        [
            "spec.gateways",
            "spec.http[0].route[0].destination",
            "spec.http[0].route[1].destination",
            "spec.http[0].route[2].destination"
        ]
    );
}

#[test]
fn localities_are_near_by_their_parts() {
    use crate::push::Locality;
    let here = Locality::parse("us/z1/a");
    assert_eq!(here.distance(&Locality::parse("us/z1/a")), 0);
    assert_eq!(here.distance(&Locality::parse("us/z1/b")), 1);
    assert_eq!(here.distance(&Locality::parse("us/z2/a")), 2);
    assert_eq!(here.distance(&Locality::parse("eu/z1/a")), 3);
    assert!(here.is_covered_by("us/*") && here.is_covered_by("*") && here.is_covered_by("us/z1"));
    assert!(!here.is_covered_by("us/z2/*"));
}
