//! Clusters, endpoints and listeners of sidecars.

use serde_json::json;

use super::{SERVICES, filter, istio, node, push, push_with, sidecar, sidecar_of};
use crate::proxy_of_node;

#[test]
fn every_service_port_and_subset_is_a_cluster_with_istios_name() {
    let rule =
        istio("DestinationRule", "reviews", "{host: reviews, subsets: [{name: v2, labels: {version: v2}}]}");
    let dump = sidecar(&format!("{SERVICES}{rule}"));
    assert_eq!(
        dump.clusters(),
        [
            "outbound|5432||db.data.svc.cluster.local",
            "outbound|9080||reviews.default.svc.cluster.local",
            "outbound|9080|v2|reviews.default.svc.cluster.local",
            "BlackHoleCluster",
            "PassthroughCluster",
            "InboundPassthroughCluster",
            "inbound|9080||",
        ]
    );
    let cluster = dump.cluster("outbound|9080|v2|reviews.default.svc.cluster.local");
    assert_eq!(cluster["type"], "EDS");
    assert_eq!(cluster["lb_policy"], "LEAST_REQUEST");
    assert_eq!(cluster["connect_timeout"], "10s");
    assert_eq!(cluster["alt_stat_name"], "outbound|9080|v2|reviews.default.svc.cluster.local;");
    let metadata = &cluster["metadata"]["filter_metadata"]["istio"];
    assert_eq!(
        metadata["config"],
        "/apis/networking.istio.io/v1/namespaces/default/destination-rule/reviews"
    );
    assert_eq!(metadata["subset"], "v2");
    assert_eq!(
        metadata["services"],
        json!([{"host": "reviews.default.svc.cluster.local", "name": "reviews", "namespace": "default"}])
    );
}

#[test]
fn endpoints_are_the_ready_workloads_of_the_subset() {
    let rule =
        istio("DestinationRule", "reviews", "{host: reviews, subsets: [{name: v2, labels: {version: v2}}]}");
    let dump = sidecar(&format!("{SERVICES}{rule}"));
    assert_eq!(
        dump.endpoints("outbound|9080||reviews.default.svc.cluster.local"),
        ["10.0.0.1:9080", "10.0.0.2:9080"]
    );
    assert_eq!(dump.endpoints("outbound|9080|v2|reviews.default.svc.cluster.local"), ["10.0.0.2:9080"]);
    assert_eq!(dump.endpoints("outbound|5432||db.data.svc.cluster.local"), ["10.0.0.3:15432"]);
    let assignment = dhow_proto::message_to_json(&dump.0.endpoints[1]);
    let metadata = &assignment["endpoints"][0]["lb_endpoints"][0]["metadata"]["filter_metadata"]["istio"];
    assert_eq!(metadata["workload"], "reviews-1;default;reviews;v1;one");
}

#[test]
fn a_traffic_policy_becomes_pools_breakers_outliers_and_balancing() {
    let rule = istio(
        "DestinationRule",
        "reviews",
        "{host: reviews, trafficPolicy: {loadBalancer: {simple: RANDOM}, connectionPool: {tcp: {maxConnections: 7, connectTimeout: 1s}, http: {http1MaxPendingRequests: 3, maxRequestsPerConnection: 2, idleTimeout: 9s}}, outlierDetection: {consecutive5xxErrors: 0, consecutiveGatewayErrors: 2, baseEjectionTime: 30s, minHealthPercent: 20}}}",
    );
    let cluster =
        sidecar(&format!("{SERVICES}{rule}")).cluster("outbound|9080||reviews.default.svc.cluster.local");
    assert_eq!(cluster["lb_policy"], "RANDOM");
    assert_eq!(cluster["connect_timeout"], "1s");
    let threshold = &cluster["circuit_breakers"]["thresholds"][0];
    assert_eq!((&threshold["max_connections"], &threshold["max_pending_requests"]), (&json!(7), &json!(3)));
    assert_eq!(threshold["max_requests"], u32::MAX);
    let outliers = &cluster["outlier_detection"];
    assert_eq!(outliers["enforcing_consecutive_5xx"], 0);
    assert_eq!(outliers["enforcing_consecutive_gateway_failure"], 100);
    assert_eq!(outliers["enforcing_success_rate"], 0);
    assert_eq!(cluster["common_lb_config"]["healthy_panic_threshold"]["value"], 20.0);
    let options = &cluster["typed_extension_protocol_options"]["envoy.extensions.upstreams.http.v3.HttpProtocolOptions"];
    assert_eq!(options["common_http_protocol_options"]["max_requests_per_connection"], 2);
    assert_eq!(options["common_http_protocol_options"]["idle_timeout"], "9s");
}

#[test]
fn consistent_hashing_sets_the_ring_and_the_routes_hash_policy() {
    let rule = istio(
        "DestinationRule",
        "reviews",
        "{host: reviews, trafficPolicy: {loadBalancer: {consistentHash: {httpHeaderName: x-user}}}}",
    );
    let dump = sidecar(&format!("{SERVICES}{rule}"));
    let cluster = dump.cluster("outbound|9080||reviews.default.svc.cluster.local");
    assert_eq!(cluster["lb_policy"], "RING_HASH");
    assert_eq!(cluster["ring_hash_lb_config"]["minimum_ring_size"], "1024");
    let route = &dump.host("9080", "reviews.default.svc.cluster.local:9080")["routes"][0]["route"];
    assert_eq!(route["hash_policy"], json!([{"header": {"header_name": "x-user"}}]));
    // A retry stays with its host.
    assert_eq!(route["retry_policy"].get("retry_host_predicate"), None);
}

#[test]
fn tls_to_the_destination_verifies_what_the_rule_says() {
    let rule = istio(
        "DestinationRule",
        "reviews",
        "{host: reviews, trafficPolicy: {tls: {mode: MUTUAL, clientCertificate: /c, privateKey: /k, caCertificates: /a, subjectAltNames: [s]}}}",
    );
    let cluster =
        sidecar(&format!("{SERVICES}{rule}")).cluster("outbound|9080||reviews.default.svc.cluster.local");
    let context = &cluster["transport_socket"]["typed_config"]["common_tls_context"];
    assert_eq!(context["tls_certificates"][0]["certificate_chain"]["filename"], "/c");
    let validation = &context["validation_context"];
    assert_eq!(validation["trusted_ca"]["filename"], "/a");
    assert_eq!(validation["match_typed_subject_alt_names"][0]["matcher"]["exact"], "s");
    let options = &cluster["typed_extension_protocol_options"]["envoy.extensions.upstreams.http.v3.HttpProtocolOptions"];
    assert_eq!(options["upstream_http_protocol_options"]["auto_sni"], true);
}

#[test]
fn service_entries_choose_the_cluster_type_by_resolution() {
    let entry = |name: &str, more: &str| {
        istio(
            "ServiceEntry",
            name,
            &format!("{{hosts: [{name}.com], ports: [{{number: 80, name: http, protocol: HTTP}}], {more}}}"),
        )
    };
    let text = [
        SERVICES.to_owned(),
        entry("dns", "resolution: DNS"),
        entry("one", "resolution: DNS_ROUND_ROBIN"),
        entry("none", "resolution: NONE"),
        entry("fixed", "resolution: STATIC, endpoints: [{address: 10.9.9.9}]"),
    ]
    .concat();
    let dump = sidecar(&text);
    let kind = |name: &str| dump.cluster(&format!("outbound|80||{name}.com"))["type"].clone();
    assert_eq!(kind("dns"), "STRICT_DNS");
    assert_eq!(kind("one"), "LOGICAL_DNS");
    assert_eq!(kind("none"), "ORIGINAL_DST");
    assert_eq!(kind("fixed"), "EDS");
    let dns = dump.cluster("outbound|80||dns.com");
    let endpoint = &dns["load_assignment"]["endpoints"][0]["lb_endpoints"][0]["endpoint"];
    assert_eq!(endpoint["address"]["socket_address"]["address"], "dns.com");
    assert_eq!(dns["metadata"]["filter_metadata"]["istio"]["external"], true);
}

#[test]
fn near_localities_come_first_once_outliers_are_detected() {
    let entry = istio(
        "ServiceEntry",
        "far",
        "{hosts: [far.com], resolution: STATIC, ports: [{number: 80, name: http, protocol: HTTP}], endpoints: [{address: 10.1.0.1, locality: eu/z}, {address: 10.1.0.2, locality: us/z1}, {address: 10.1.0.3, locality: us/z2}]}",
    );
    let rule =
        istio("DestinationRule", "far", "{host: far.com, trafficPolicy: {outlierDetection: {interval: 1s}}}");
    let mut node = node("sidecar~10.0.0.1~x.default~default.svc.cluster.local", json!({}));
    let locality = dhow_proto::envoy::config::core::v3::Locality {
        region: "us".into(),
        zone: "z1".into(),
        sub_zone: String::new(),
    };
    node.locality = Some(locality);
    let priorities = |text: &str| -> Vec<(String, u32)> {
        let configuration = super::configuration(&push(text), &node);
        let assignment = configuration
            .endpoints
            .into_iter()
            .find(|own| own.cluster_name == "outbound|80||far.com")
            .unwrap();
        assignment
            .endpoints
            .iter()
            .map(|group| (group.locality.clone().unwrap_or_default().zone, group.priority))
            .collect()
    };
    assert!(priorities(&entry).iter().all(|(_, priority)| *priority == 0));
    let ranked = priorities(&format!("{entry}{rule}"));
    assert_eq!(ranked, [("z".to_owned(), 2), ("z1".to_owned(), 0), ("z2".to_owned(), 1)]);
}

#[test]
fn intercepted_sidecars_listen_for_addresses_and_ports_without_binding_them() {
    let dump = sidecar(SERVICES);
    assert_eq!(dump.listeners(), ["virtualOutbound", "0.0.0.0_9080", "10.96.0.2_5432", "virtualInbound"]);
    let outbound = dump.listener("virtualOutbound");
    assert_eq!(outbound["use_original_dst"], true);
    assert_eq!(filter(&outbound["filter_chains"][0])["cluster"], "BlackHoleCluster");
    assert_eq!(filter(&outbound["filter_chains"][1])["cluster"], "PassthroughCluster");
    let http = dump.listener("0.0.0.0_9080");
    assert_eq!(http["bind_to_port"], false);
    assert_eq!(filter(&http["filter_chains"][0])["rds"]["route_config_name"], "9080");
    assert_eq!(filter(&http["filter_chains"][0])["stat_prefix"], "outbound_0.0.0.0_9080;");
    let tcp = dump.listener("10.96.0.2_5432");
    assert_eq!(filter(&tcp["filter_chains"][0])["cluster"], "outbound|5432||db.data.svc.cluster.local");
    let inbound = dump.listener("virtualInbound");
    let chain = &inbound["filter_chains"][1];
    assert_eq!(chain["filter_chain_match"]["destination_port"], 9080);
    let manager = filter(chain);
    assert_eq!(manager["stat_prefix"], "inbound_0.0.0.0_9080;");
    assert_eq!(manager["route_config"]["name"], "inbound|9080||");
    assert_eq!(manager["route_config"]["virtual_hosts"][0]["name"], "inbound|http|9080");
    let filters: Vec<_> =
        manager["http_filters"].as_array().unwrap().iter().map(|filter| filter["name"].clone()).collect();
    assert_eq!(filters, ["envoy.filters.http.fault", "envoy.filters.http.cors", "envoy.filters.http.router"]);
}

#[test]
fn registry_only_refuses_what_nothing_knows() {
    let push = push_with(SERVICES, json!({"outboundTrafficPolicy": {"mode": "REGISTRY_ONLY"}}));
    let dump = sidecar_of(&push, json!({}));
    assert_eq!(filter(&dump.listener("virtualOutbound")["filter_chains"][1])["cluster"], "BlackHoleCluster");
    assert_eq!(dump.host("9080", "block_all")["routes"][0]["direct_response"]["status"], 502);
    assert_eq!(dump.host("9080", "allow_any"), json!(null));
}

#[test]
fn without_interception_listeners_stand_on_the_pods_address() {
    let push = push(SERVICES);
    let dump = sidecar_of(
        &push,
        json!({"INTERCEPTION_MODE": "NONE", "HTTP_PROXY_PORT": "15007", "ANNOTATIONS": {"sidecar.dhow.dev/application-address": "127.9.9.9"}}),
    );
    assert_eq!(dump.listeners(), ["10.0.0.1_9080", "10.0.0.1_15007", "10.0.0.1_5432"]);
    assert!(dump.listeners().iter().all(|name| dump.listener(name).get("bind_to_port").is_none()));
    assert_eq!(
        filter(&dump.listener("10.0.0.1_15007")["filter_chains"][0])["rds"]["route_config_name"],
        "http_proxy"
    );
    let inbound = dump.cluster("inbound|9080||");
    assert_eq!(inbound["type"], "STATIC");
    let address = &inbound["load_assignment"]["endpoints"][0]["lb_endpoints"][0]["endpoint"]["address"];
    assert_eq!(address["socket_address"], json!({"address": "127.9.9.9", "port_value": 9080}));
    // Nothing needs an original destination, which there is none of.
    let kinds = dump.0.clusters.iter().map(|cluster| dhow_proto::message_to_json(cluster)["type"].clone());
    assert!(kinds.into_iter().all(|kind| kind != "ORIGINAL_DST"));
    assert_eq!(dump.routes(), ["http_proxy"]);
    assert_eq!(
        dump.host("http_proxy", "reviews.default.svc.cluster.local:9080")["domains"],
        json!([
            "reviews.default.svc.cluster.local:9080",
            "reviews:9080",
            "reviews.default:9080",
            "reviews.default.svc:9080",
            "10.96.0.1:9080"
        ])
    );
}

#[test]
fn ambiguous_tcp_ports_without_interception_are_said_not_guessed() {
    let more = "---\n{apiVersion: v1, kind: Service, metadata: {name: db2}, spec: {ports: [{name: tcp, port: 5432}]}}\n";
    let dump = sidecar_of(&push(&format!("{SERVICES}{more}")), json!({"INTERCEPTION_MODE": "NONE"}));
    assert_eq!(dump.listeners(), ["10.0.0.1_9080"]);
    assert_eq!(dump.notices().len(), 2, "{:?}", dump.notices());
}

#[test]
fn a_node_is_read_strictly() {
    let refused = |id: &str, metadata: serde_json::Value| proxy_of_node(&node(id, metadata)).unwrap_err();
    assert!(refused("sidecar~10.0.0.1~x", json!({})).contains("TYPE~IP~ID~DOMAIN"));
    assert!(refused("toaster~10.0.0.1~x.y~z", json!({})).contains("unknown proxy type"));
    assert!(refused("sidecar~ten~x.y~z", json!({})).contains("bad address"));
    assert!(
        refused("sidecar~10.0.0.1~x.y~z", json!({"INTERCEPTION_MODE": "MAYBE"}))
            .contains("INTERCEPTION_MODE")
    );
    assert!(
        refused("sidecar~10.0.0.1~x.y~z", json!({"HTTP_PROXY_PORT": "many"})).contains("HTTP_PROXY_PORT")
    );
    let proxy = proxy_of_node(&node(
        "sidecar~10.0.0.1~x.ns~ns.svc.cluster.local",
        json!({"INSTANCE_IPS": "10.0.0.1,10.0.0.2", "HTTP_PROXY_PORT": 8}),
    ))
    .unwrap();
    assert_eq!((proxy.namespace.as_str(), proxy.ips.len(), proxy.http_proxy_port), ("ns", 2, Some(8)));
}
