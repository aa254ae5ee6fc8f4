//! Listeners and routes of gateways.

use serde_json::{Value, json};

use super::{Dump, SERVICES, configuration, filter, istio, node, push};

const TO_REVIEWS: &str = "route: [{destination: {host: reviews, port: {number: 9080}}}]";

fn router(text: &str, annotations: Value) -> Dump {
    let metadata = json!({"NAMESPACE": "istio-system", "LABELS": {"istio": "ingressgateway"}, "ANNOTATIONS": annotations});
    let node = node("router~10.0.0.9~gw.istio-system~istio-system.svc.cluster.local", metadata);
    Dump(configuration(&push(&format!("{SERVICES}{text}")), &node))
}

fn gateway(servers: &str) -> String {
    istio("Gateway", "gw", &format!("{{selector: {{istio: ingressgateway}}, servers: [{servers}]}}"))
}

fn routes(name: &str, hosts: &str, rules: &str) -> String {
    istio("VirtualService", name, &format!("{{hosts: [{hosts}], gateways: [gw], http: [{rules}]}}"))
}

const HTTP: &str = "{port: {number: 8080, name: http, protocol: HTTP}, hosts: ['*']}";

#[test]
fn an_http_server_is_a_listener_with_its_virtual_services() {
    let dump =
        router(&format!("{}{}", gateway(HTTP), routes("v", "'*'", &format!("{{{TO_REVIEWS}}}"))), json!({}));
    assert_eq!(dump.listeners(), ["0.0.0.0_8080"]);
    let listener = dump.listener("0.0.0.0_8080");
    let manager = filter(&listener["filter_chains"][0]);
    assert_eq!(manager["rds"]["route_config_name"], "http.8080");
    assert_eq!(manager["stat_prefix"], "outbound_0.0.0.0_8080;");
    assert_eq!(manager["use_remote_address"], true);
    assert_eq!(manager["server_name"], "istio-envoy");
    let host = dump.host("http.8080", "*:8080");
    assert_eq!(host["domains"], json!(["*"]));
    assert_eq!(host["routes"][0]["route"]["cluster"], "outbound|9080||reviews.default.svc.cluster.local");
    assert!(!dump.clusters().iter().any(|name| name.starts_with("inbound") || *name == "PassthroughCluster"));
}

#[test]
fn an_annotation_chooses_the_address() {
    let text = format!("{}{}", gateway(HTTP), routes("v", "'*'", &format!("{{{TO_REVIEWS}}}")));
    let dump = router(&text, json!({"proxy.dhow.dev/bind-address": "127.0.0.1"}));
    assert_eq!(dump.listener("127.0.0.1_8080")["address"]["socket_address"]["address"], "127.0.0.1");
}

#[test]
fn without_a_virtual_service_everything_is_404() {
    let dump = router(&gateway(HTTP), json!({}));
    let host = dump.host("http.8080", "blackhole:8080");
    assert_eq!(host["domains"], json!(["*"]));
    assert_eq!(host.get("routes"), None);
}

#[test]
fn virtual_services_of_one_host_merge_and_catch_alls_go_last() {
    let all = routes("a", "x.com", &format!("{{name: all, {TO_REVIEWS}}}"));
    let some =
        routes("b", "x.com", &format!("{{name: some, match: [{{uri: {{prefix: /b}}}}], {TO_REVIEWS}}}"));
    let dump = router(&[gateway(HTTP), all, some].concat(), json!({}));
    let host = dump.host("http.8080", "x.com:8080");
    let names: Vec<_> =
        host["routes"].as_array().unwrap().iter().map(|route| route["name"].clone()).collect();
    assert_eq!(names, ["some", "all"]);
}

#[test]
fn hosts_are_those_that_server_and_virtual_service_share() {
    let server =
        "{port: {number: 8080, name: http, protocol: HTTP}, hosts: ['default/*.x.com', 'other/y.com']}";
    let text = [
        gateway(server),
        routes("a", "a.x.com, y.com, z.com", &format!("{{{TO_REVIEWS}}}")),
        routes("b", "'*'", &format!("{{{TO_REVIEWS}}}")),
    ]
    .concat();
    let dump = router(&text, json!({}));
    let route = dump.route("http.8080");
    let names: Vec<_> =
        route["virtual_hosts"].as_array().unwrap().iter().map(|host| host["name"].clone()).collect();
    assert_eq!(names, ["*.x.com:8080", "a.x.com:8080"]);
}

#[test]
fn a_redirecting_server_requires_tls_on_its_hosts() {
    let server = "{port: {number: 8080, name: http, protocol: HTTP}, hosts: [a.com, b.com], tls: {httpsRedirect: true}}";
    let dump =
        router(&[gateway(server), routes("v", "a.com", &format!("{{{TO_REVIEWS}}}"))].concat(), json!({}));
    assert_eq!(dump.host("http.8080", "a.com:8080")["require_tls"], "ALL");
    assert_eq!(dump.host("http.8080", "b.com:8080")["require_tls"], "ALL");
}

#[test]
fn https_servers_are_chains_by_server_name_with_routes_of_their_own() {
    let server = |name: &str, host: &str, mode: &str| {
        format!(
            "{{port: {{number: 443, name: {name}, protocol: HTTPS}}, hosts: ['{host}'], tls: {{mode: {mode}, serverCertificate: /c, privateKey: /k, caCertificates: /a}}}}"
        )
    };
    let text = gateway(&[server("one", "a.com", "SIMPLE"), server("two", "b.com", "MUTUAL")].join(", "));
    let dump = router(&text, json!({}));
    let listener = dump.listener("0.0.0.0_443");
    assert_eq!(listener["listener_filters"][0]["name"], "envoy.filters.listener.tls_inspector");
    let chain = &listener["filter_chains"][1];
    assert_eq!(chain["filter_chain_match"]["server_names"], json!(["b.com"]));
    assert_eq!(filter(chain)["rds"]["route_config_name"], "https.443.two.gw.default");
    // Only who asks for certificates tells the workload about them.
    assert_eq!(filter(chain)["forward_client_cert_details"], "SANITIZE_SET");
    assert_eq!(filter(&listener["filter_chains"][0]).get("forward_client_cert_details"), None);
    let tls = &chain["transport_socket"]["typed_config"];
    assert_eq!(tls["require_client_certificate"], true);
    assert_eq!(tls["common_tls_context"]["alpn_protocols"], json!(["h2", "http/1.1"]));
    assert_eq!(tls["common_tls_context"]["tls_params"]["tls_minimum_protocol_version"], "TLSv1_2");
    assert_eq!(dump.routes(), ["https.443.one.gw.default", "https.443.two.gw.default"]);
}

#[test]
fn tls_is_passed_through_by_server_name() {
    let server =
        "{port: {number: 443, name: tls, protocol: TLS}, hosts: ['*.x.com'], tls: {mode: PASSTHROUGH}}";
    let rules = istio(
        "VirtualService",
        "v",
        "{hosts: [a.x.com], gateways: [gw], tls: [{match: [{port: 443, sniHosts: [a.x.com]}], route: [{destination: {host: db.data.svc.cluster.local, port: {number: 5432}}}]}]}",
    );
    let dump = router(&[gateway(server), rules].concat(), json!({}));
    let chain = &dump.listener("0.0.0.0_443")["filter_chains"][0];
    assert_eq!(chain["filter_chain_match"]["server_names"], json!(["a.x.com"]));
    assert_eq!(filter(chain)["cluster"], "outbound|5432||db.data.svc.cluster.local");
    assert_eq!(chain.get("transport_socket"), None);
}

#[test]
fn a_tcp_server_without_routes_is_not_opened_and_said_so() {
    let server = "{port: {number: 31400, name: tcp, protocol: TCP}, hosts: ['*']}";
    let dump = router(&gateway(server), json!({}));
    assert!(dump.listeners().is_empty());
    assert_eq!(dump.notices().len(), 1);
    let rules = istio(
        "VirtualService",
        "v",
        "{hosts: ['*'], gateways: [gw], tcp: [{match: [{port: 31400}], route: [{destination: {host: db.data.svc.cluster.local, port: {number: 5432}}}]}]}",
    );
    let dump = router(&[gateway(server), rules].concat(), json!({}));
    assert_eq!(
        filter(&dump.listener("0.0.0.0_31400")["filter_chains"][0])["cluster"],
        "outbound|5432||db.data.svc.cluster.local"
    );
}
