//! HTTP rules as routes of a sidecar.

use serde_json::json;

use super::{SERVICES, filter, istio, reviews_routes, sidecar};

const TO_REVIEWS: &str = "route: [{destination: {host: reviews}}]";

/// The route of one rule that forwards to `reviews`.
fn rule(more: &str) -> serde_json::Value {
    reviews_routes(&format!("[{{{TO_REVIEWS}, {more}}}]")).remove(0)
}

#[test]
fn a_service_has_its_short_names_and_a_default_route_with_retries() {
    let dump = sidecar(SERVICES);
    let host = dump.host("9080", "reviews.default.svc.cluster.local:9080");
    assert_eq!(
        host["domains"],
        json!([
            "reviews.default.svc.cluster.local",
            "reviews",
            "reviews.default",
            "reviews.default.svc",
            "10.96.0.1"
        ])
    );
    let route = &host["routes"][0];
    assert_eq!(route["name"], "default");
    assert_eq!(route["decorator"]["operation"], "reviews.default.svc.cluster.local:9080/*");
    assert_eq!(route["route"]["cluster"], "outbound|9080||reviews.default.svc.cluster.local");
    assert_eq!(route["route"]["timeout"], "0s");
    assert_eq!(route["route"]["retry_policy"]["num_retries"], 2);
    assert_eq!(route["route"]["retry_policy"]["host_selection_retry_max_attempts"], "5");
    assert_eq!(dump.route("9080")["ignore_port_in_host_matching"], true);
    assert_eq!(dump.host("9080", "allow_any")["routes"][0]["route"]["cluster"], "PassthroughCluster");
}

#[test]
fn weights_become_weighted_clusters_and_zero_gets_nothing() {
    let routes = reviews_routes(
        "[{route: [{destination: {host: reviews, subset: v1}, weight: 75}, {destination: {host: reviews, subset: v2}, weight: 25}, {destination: {host: reviews, subset: v3}}]}]",
    );
    assert_eq!(
        routes[0]["route"]["weighted_clusters"]["clusters"],
        json!([
            {"name": "outbound|9080|v1|reviews.default.svc.cluster.local", "weight": 75},
            {"name": "outbound|9080|v2|reviews.default.svc.cluster.local", "weight": 25},
        ])
    );
    assert_eq!(routes[0]["decorator"]["operation"], "reviews:9080/*");
    assert_eq!(
        routes[0]["metadata"]["filter_metadata"]["istio"]["config"],
        "/apis/networking.istio.io/v1/namespaces/default/virtual-service/reviews"
    );
}

#[test]
fn conditions_become_route_matches() {
    let route = rule(
        "name: first, match: [{name: m, uri: {prefix: /a}, ignoreUriCase: true, method: {exact: GET}, headers: {h: {regex: 'a.*'}, p: {}}, withoutHeaders: {w: {}}, queryParams: {q: {exact: v}}}]",
    );
    assert_eq!(route["name"], "first.m");
    assert_eq!(
        route["match"],
        json!({
            "prefix": "/a",
            "case_sensitive": false,
            "headers": [
                {"name": "h", "string_match": {"safe_regex": {"regex": "a.*"}}},
                {"name": "p", "present_match": true},
                {"name": "w", "invert_match": true, "present_match": true},
                {"name": ":method", "string_match": {"exact": "GET"}},
            ],
            "query_parameters": [{"name": "q", "string_match": {"exact": "v"}}],
        })
    );
    assert_eq!(rule("match: [{uri: {exact: /a}}]")["match"], json!({"path": "/a"}));
    assert_eq!(rule("match: [{uri: {regex: '/a.'}}]")["match"], json!({"safe_regex": {"regex": "/a."}}));
}

#[test]
fn conditions_on_the_proxy_itself_are_decided_when_generating() {
    let routes = reviews_routes(&format!(
        "[{{match: [{{sourceLabels: {{app: other}}, uri: {{prefix: /1}}}}, {{sourceNamespace: other, uri: {{prefix: /2}}}}, {{gateways: [g], uri: {{prefix: /3}}}}, {{port: 1, uri: {{prefix: /4}}}}, {{sourceLabels: {{app: reviews}}, port: 9080, uri: {{prefix: /5}}}}], {TO_REVIEWS}}}]"
    ));
    let prefixes: Vec<_> = routes.iter().map(|route| route["match"]["prefix"].clone()).collect();
    assert_eq!(prefixes, ["/5"]);
}

#[test]
fn nothing_follows_a_rule_that_takes_everything() {
    let routes = reviews_routes(&format!(
        "[{{match: [{{uri: {{prefix: /}}}}], {TO_REVIEWS}}}, {{match: [{{uri: {{prefix: /x}}}}], {TO_REVIEWS}}}]"
    ));
    assert_eq!(routes.len(), 1);
}

#[test]
fn rewrites_and_header_operations() {
    let route = rule(
        "match: [{uri: {prefix: /a}}], rewrite: {uri: /b, authority: c}, headers: {request: {set: {s: '1', Host: h}, add: {a: '2'}, remove: [r]}, response: {remove: [x]}}",
    );
    assert_eq!(route["route"]["prefix_rewrite"], "/b");
    assert_eq!(route["route"]["host_rewrite_literal"], "h");
    assert_eq!(
        route["request_headers_to_add"],
        json!([
            {"header": {"key": "a", "value": "2"}},
            {"header": {"key": "s", "value": "1"}, "append_action": "OVERWRITE_IF_EXISTS_OR_ADD"},
        ])
    );
    assert_eq!(route["request_headers_to_remove"], json!(["r"]));
    assert_eq!(route["response_headers_to_remove"], json!(["x"]));
    let regex = rule("rewrite: {uriRegexRewrite: {match: '^/a(.*)', rewrite: '/b\\1'}}");
    assert_eq!(
        regex["route"]["regex_rewrite"],
        json!({"pattern": {"regex": "^/a(.*)"}, "substitution": "/b\\1"})
    );
}

#[test]
fn redirects_and_direct_responses() {
    let routes = reviews_routes(
        "[{match: [{uri: {exact: /r}}], redirect: {uri: /x, authority: h, redirectCode: 307, port: 8443}}, {directResponse: {status: 503, body: {string: later}}}]",
    );
    assert_eq!(
        routes[0]["redirect"],
        json!({"host_redirect": "h", "path_redirect": "/x", "response_code": "TEMPORARY_REDIRECT", "port_redirect": 8443})
    );
    assert_eq!(routes[1]["direct_response"], json!({"status": 503, "body": {"inline_string": "later"}}));
}

#[test]
fn retries_name_conditions_and_status_codes_apart_and_zero_disables_them() {
    let policy = rule("retries: {attempts: 3, perTryTimeout: 2s, retryOn: 'gateway-error,503'}")["route"]["retry_policy"].clone();
    assert_eq!(policy["retry_on"], "gateway-error,retriable-status-codes");
    assert_eq!(policy["retriable_status_codes"], json!([503]));
    assert_eq!((&policy["num_retries"], &policy["per_try_timeout"]), (&json!(3), &json!("2s")));
    assert_eq!(rule("retries: {attempts: 0}")["route"].get("retry_policy"), None);
}

#[test]
fn timeouts_limit_grpc_too() {
    let route = &rule("timeout: 1.5s")["route"];
    assert_eq!((&route["timeout"], &route["max_grpc_timeout"]), (&json!("1.500s"), &json!("1.500s")));
}

#[test]
fn faults_mirrors_and_cors() {
    let route = rule(
        "fault: {delay: {percentage: {value: 0.5}, fixedDelay: 7s}, abort: {grpcStatus: UNAVAILABLE}}, mirror: {host: db.data.svc.cluster.local, port: {number: 5432}}, mirrorPercentage: {value: 10}, corsPolicy: {allowOrigins: [{exact: o}], allowMethods: [GET, PUT], maxAge: 1m, allowCredentials: true}",
    );
    let fault = &route["typed_per_filter_config"]["envoy.filters.http.fault"];
    assert_eq!(
        fault["delay"],
        json!({"fixed_delay": "7s", "percentage": {"numerator": 5000, "denominator": "MILLION"}})
    );
    assert_eq!(fault["abort"]["grpc_status"], 14);
    let cors = &route["typed_per_filter_config"]["envoy.filters.http.cors"];
    assert_eq!((&cors["allow_methods"], &cors["max_age"]), (&json!("GET,PUT"), &json!("60")));
    let mirror = &route["route"]["request_mirror_policies"][0];
    assert_eq!(mirror["cluster"], "outbound|5432||db.data.svc.cluster.local");
    assert_eq!(mirror["runtime_fraction"]["default_value"]["numerator"], 100_000);
    assert_eq!(mirror["disable_shadow_host_suffix_append"], true);
}

#[test]
fn a_destination_that_does_not_exist_gets_a_cluster_that_does_not_exist() {
    let routes = reviews_routes("[{route: [{destination: {host: gone}}]}]");
    assert_eq!(routes[0]["route"]["cluster"], "outbound|9080||gone.default.svc.cluster.local");
}

#[test]
fn hosts_that_only_a_virtual_service_knows_are_reached_on_port_80() {
    let more = "---\n{apiVersion: v1, kind: Service, metadata: {name: web}, spec: {ports: [{name: http, port: 80}]}}\n";
    let outside =
        istio("VirtualService", "v", "{hosts: [x.com], http: [{route: [{destination: {host: reviews}}]}]}");
    let dump = sidecar(&format!("{SERVICES}{more}{outside}"));
    let host = dump.host("80", "x.com:80");
    assert_eq!(host["domains"], json!(["x.com"]));
    // The service has one port, which is used whatever the listener's port is.
    assert_eq!(host["routes"][0]["route"]["cluster"], "outbound|9080||reviews.default.svc.cluster.local");
    assert_eq!(dump.host("9080", "x.com:80"), json!(null));
}

#[test]
fn tcp_rules_choose_clusters_by_weight() {
    let rules = istio(
        "VirtualService",
        "db",
        "{hosts: [db.data.svc.cluster.local], tcp: [{route: [{destination: {host: db.data.svc.cluster.local, subset: a}, weight: 90}, {destination: {host: db.data.svc.cluster.local, subset: b}, weight: 10}]}]}",
    );
    let listener = sidecar(&format!("{SERVICES}{rules}")).listener("10.96.0.2_5432");
    let proxy = filter(&listener["filter_chains"][0]);
    assert_eq!(proxy["weighted_clusters"]["clusters"][0]["weight"], 90);
    assert_eq!(proxy["stat_prefix"], "db.default");
}
