//! What a test's input decides, and what it can ask about.

use super::*;

const TABLE: &str = r#"
virtual_hosts:
- name: first
  domains: ["*"]
  virtual_clusters:
  - {name: users, headers: [{name: ":path", string_match: {prefix: /users}}]}
  response_headers_to_add: [{header: {key: x-host, value: first}}]
  routes:
  - {match: {prefix: /old}, redirect: {prefix_rewrite: /new, response_code: FOUND}}
  - {match: {prefix: /text}, direct_response: {status: 403, body: {inline_string: "no!"}}}
  - {match: {prefix: /internal, headers: [{name: x-envoy-internal, string_match: {exact: "true"}}]}, route: {cluster: inside}}
  - {match: {prefix: /tls, headers: [{name: x-forwarded-proto, string_match: {exact: https}}]}, route: {cluster: secure}}
  - {match: {prefix: /key, runtime_fraction: {runtime_key: on.key, default_value: {numerator: 40}}}, route: {cluster: sometimes}}
  - {match: {prefix: /zero, runtime_fraction: {runtime_key: zero.key, default_value: {numerator: 0}}}, route: {cluster: once}}
  - {match: {prefix: /meta, dynamic_metadata: [{filter: ns, path: [{key: k}], value: {string_match: {exact: v}}}]}, route: {cluster: meta}}
  - match: {prefix: /split}
    route: {weighted_clusters: {clusters: [{name: a, weight: 30}, {name: b, weight: 70}]}}
  - {match: {prefix: /by-header}, route: {cluster_header: x-cluster}}
  - match: {prefix: /users}
    route: {cluster: users, prefix_rewrite: /people, host_rewrite_literal: inner, timeout: 2.5s}
    request_headers_to_add: [{header: {key: x-way, value: "%REQ(:authority)%"}}]
  - {match: {prefix: /}, route: {cluster: rest}}
"#;

#[test]
fn the_input_decides_about_the_route() {
    for (path, more, cluster) in [
        ("/internal", "", "rest"),
        ("/internal", ", internal: true", "inside"),
        ("/tls", "", "rest"),
        ("/tls", ", ssl: true", "secure"),
        ("/split", ", random_value: 29", "a"),
        ("/split", ", random_value: 130", "b"),
        ("/by-header", "", "\"\""),
        ("/by-header", ", additional_request_headers: [{key: x-cluster, value: named}]", "named"),
        ("/by-header", ", additional_headers: [{key: x-cluster, value: named}]", "named"),
        ("/text", "", "\"\""),
    ] {
        passes(TABLE, path, more, &format!("cluster_name: {cluster}"));
    }
}

#[test]
fn only_the_named_runtime_key_is_on() {
    for (path, more, cluster) in [
        ("/key", "", "rest"),
        ("/key", ", runtime: other.key", "rest"),
        ("/key", ", runtime: on.key, random_value: 39", "sometimes"),
        ("/key", ", runtime: on.key, random_value: 40", "rest"),
        // A fraction of zero lets the value 0 through once its key is on.
        ("/zero", ", runtime: zero.key", "once"),
        ("/zero", ", runtime: zero.key, random_value: 1", "rest"),
    ] {
        passes(TABLE, path, more, &format!("cluster_name: {cluster}"));
    }
}

#[test]
fn filters_may_have_set_metadata() {
    let set = |list: &str| format!(", dynamic_metadata: [{list}]");
    let (old, new) = ("{metadata_namespace: ns, value: {k: u}}", "{metadata_namespace: ns, value: {k: v}}");
    let overwriting = "{metadata_namespace: ns, value: {k: v}, allow_overwrite: true}";
    for (list, cluster) in [
        (String::new(), "rest"),
        (set(new), "meta"),
        (set(&format!("{old}, {new}")), "rest"),
        (set(&format!("{old}, {overwriting}")), "meta"),
    ] {
        passes(TABLE, "/meta", &list, &format!("cluster_name: {cluster}"));
    }
}

#[test]
fn a_request_is_seen_as_it_goes_upstream() {
    passes(
        TABLE,
        "/users/7",
        "",
        "cluster_name: users, virtual_host_name: first, virtual_cluster_name: other, path_rewrite: /people/7,
         host_rewrite: inner, timeout: 2.5s, path_redirect: '', code_redirect: 0,
         request_header_fields: [{key: x-way, value: h}],
         request_header_matches: [{name: ':path', string_match: {prefix: /people}}],
         response_header_matches: [{name: x-host, string_match: {exact: first}}]",
    );
    passes(TABLE, "/split/users", "", "virtual_cluster_name: other, path_rewrite: /split/users");
    passes(
        TABLE,
        "/x",
        ", additional_response_headers: [{key: content-type, value: text/css}]",
        "response_header_fields: [{key: content-type, value: text/css}]",
    );
}

#[test]
fn a_direct_answer_is_seen_with_its_headers() {
    passes(
        TABLE,
        "'/old/a?k=v'",
        "",
        "path_redirect: 'http://h/new/a?k=v', code_redirect: 302, cluster_name: '', virtual_host_name: '',
         path_rewrite: '', host_rewrite: '', virtual_cluster_name: '',
         request_header_matches: [{name: x-envoy-original-path, string_match: {exact: '/old/a?k=v'}}]",
    );
    passes(
        TABLE,
        "/text",
        "",
        "path_redirect: 'http://h/text', code_redirect: 403,
         response_header_matches: [
           {name: ':status', string_match: {exact: '403'}},
           {name: content-type, string_match: {exact: text/plain}},
           {name: content-length, range_match: {start: 3, end: 4}},
           {name: x-host, present_match: true}]",
    );
}

#[test]
fn no_route_is_an_answer_too() {
    let table = "virtual_hosts: [{name: v, domains: [other], routes: []}]";
    passes(
        table,
        "/",
        "",
        "cluster_name: '', virtual_host_name: '', path_rewrite: '', path_redirect: '', code_redirect: 0",
    );
    assert_eq!(
        failures(table, "/", "", "cluster_name: x"),
        ["expected: [x], actual: [], test type: cluster_name"]
    );
}

#[test]
fn every_form_of_the_files_is_read() {
    let table =
        r#"virtual_hosts { name: "v" domains: "*" routes { match { prefix: "/" } route { cluster: "c" } } }"#;
    let tests = r#"tests { test_name: "t" input: { authority: "h" path: "/" method: "GET" } validate: { cluster_name: { value: "c" } } }"#;
    let run = run_files(("table.pb_text", table), ("tests.pb_text", tests), details());
    assert!(run.passed, "{}", run.err);
    let table = r#"{"virtual_hosts": [{"name": "v", "domains": ["*"], "routes": [{"match": {"prefix": "/"}, "route": {"cluster": "c"}}]}]}"#;
    let tests = r#"{"tests": [{"test_name": "t", "input": {"authority": "h", "path": "/", "method": "GET"}, "validate": {"cluster_name": "c"}}]}"#;
    let run = run_files(("table.json", table), ("tests.json", tests), details());
    assert!(run.passed, "{}", run.err);
    assert_eq!(run.out, "t\nCurrent route coverage: 100%\n");
}
