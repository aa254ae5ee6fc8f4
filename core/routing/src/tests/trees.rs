//! Routes behind matchers, URI templates, redirect predicates, hashes instead of random values.

use super::from_yaml::{routes, table};
use super::*;
use crate::RedirectPredicate;

const HEADER: &str = "{name: i, typed_config: {'@type': type.googleapis.com/envoy.type.matcher.v3.HttpRequestHeaderMatchInput, header_name: x}}";
const TYPE: &str = "type.googleapis.com/envoy.config.route.v3";

#[test]
fn a_matcher_leads_to_routes_that_must_match_too() {
    let route =
        |cluster: &str, prefix: &str| format!("match: {{prefix: {prefix}}}, route: {{cluster: {cluster}}}");
    let one =
        format!("{{action: {{name: r, typed_config: {{'@type': {TYPE}.Route, {}}}}}}}", route("one", "/a"));
    let list = format!(
        "{{action: {{name: l, typed_config: {{'@type': {TYPE}.RouteList, routes: [{{{}}}, {{{}}}]}}}}}}",
        route("first", "/f"),
        route("second", "/"),
    );
    let table = table(&format!(
        "[{{name: v, domains: ['*'], matcher: {{matcher_tree: {{input: {HEADER}, exact_match_map: {{map: {{one: {one}, list: {list}}}}}}}}}}}]"
    ))
    .unwrap();
    for (x, path, expected) in [
        ("one", "/a/b", "one"),
        ("one", "/b", "404 in host"),
        ("list", "/f", "first"),
        ("list", "/g", "second"),
        ("other", "/a", "404 in host"),
    ] {
        assert_eq!(cluster_of(&table, &request("h", path, &[("x", x)]), 0), expected, "{x} {path}");
    }
    let headers = request("h", "/g", &[("x", "list")]);
    let steps = table.explain(&headers, &RouteInput::new(0)).steps;
    assert_eq!(steps.iter().map(|step| step.mismatch).collect::<Vec<_>>(), [Some(Mismatch::Path), None]);
    assert_eq!(table.virtual_hosts()[0].routes().len(), 3);
}

#[test]
fn a_matcher_of_routes_reads_request_headers_only() {
    let refused = |matcher: &str| {
        table(&format!("[{{name: v, domains: ['*'], matcher: {matcher}}}]")).unwrap_err().reason
    };
    let query = "{name: i, typed_config: {'@type': type.googleapis.com/envoy.type.matcher.v3.HttpRequestQueryParamMatchInput, query_param: q}}";
    let action = format!(
        "action: {{name: r, typed_config: {{'@type': {TYPE}.Route, match: {{prefix: /}}, route: {{cluster: c}}}}}}"
    );
    assert_eq!(
        refused(&format!(
            "{{matcher_tree: {{input: {query}, exact_match_map: {{map: {{a: {{{action}}}}}}}}}}}"
        )),
        "Route table can only match on request headers, saw type.googleapis.com/envoy.type.matcher.v3.HttpRequestQueryParamMatchInput"
    );
    assert_eq!(
        refused(&format!(
            "{{matcher_tree: {{input: {HEADER}, exact_match_map: {{map: {{a: {{keep_matching: true, {action}}}}}}}}}}}"
        )),
        "keep_matching is not supported in this context"
    );
}

#[test]
fn templates_match_and_rewrite() {
    let matched = |template: &str| {
        format!(
            "{{path_match_policy: {{name: m, typed_config: {{'@type': type.googleapis.com/envoy.extensions.path.match.uri_template.v3.UriTemplateMatchConfig, path_template: '{template}'}}}}}}"
        )
    };
    let rewrite = |template: &str| {
        format!(
            "path_rewrite_policy: {{name: r, typed_config: {{'@type': type.googleapis.com/envoy.extensions.path.rewrite.uri_template.v3.UriTemplateRewriteConfig, path_template_rewrite: '{template}'}}}}"
        )
    };
    let table = routes(&format!(
        "[{{match: {}, route: {{cluster: c, {}}}}}]",
        matched("/u/{id}/{rest=**}"),
        rewrite("/{rest}/{id}")
    ))
    .unwrap();
    let mut headers = request("h", "/u/7/a/b?q=1", &[]);
    let route = selected(&table, &headers);
    route.apply_request_rewrites(&mut headers, &EmptyContext, false);
    assert_eq!(headers.path(), b"/a/b/7?q=1");
    assert_eq!(cluster_of(&table, &request("h", "/v/7/a", &[]), 0), "404 in host");
    let refused =
        routes(&format!("[{{match: {{prefix: /}}, route: {{cluster: c, {}}}}}]", rewrite("/x"))).unwrap_err();
    assert!(
        refused.reason.starts_with("unable to use envoy.path.rewrite.uri_template.uri_template_rewriter"),
        "{refused}"
    );
}

#[test]
fn redirect_policies_have_predicates_and_older_fields_still_make_one() {
    let policy = |action: &str| {
        let table = routes(&format!("[{{match: {{prefix: /}}, route: {{cluster: c, {action}}}}}]")).unwrap();
        selected(&table, &request("h", "/", &[])).forward().unwrap().internal_redirect_policy.clone()
    };
    let prefix = "type.googleapis.com/envoy.extensions.internal_redirect";
    let full = policy(&format!(
        "internal_redirect_policy: {{max_internal_redirects: 3, redirect_response_codes: [301, 200], response_headers_to_copy: [x-a], predicates: [\
         {{name: a, typed_config: {{'@type': {prefix}.previous_routes.v3.PreviousRoutesConfig}}}}, \
         {{name: b, typed_config: {{'@type': {prefix}.allow_listed_routes.v3.AllowListedRoutesConfig, allowed_route_names: [r]}}}}, \
         {{name: c, typed_config: {{'@type': {prefix}.safe_cross_scheme.v3.SafeCrossSchemeConfig}}}}]}}"
    ))
    .unwrap();
    assert_eq!((full.max_internal_redirects, full.follows(301), full.follows(200)), (3, true, false));
    assert_eq!(
        *full.predicates,
        [
            RedirectPredicate::PreviousRoutes,
            RedirectPredicate::AllowListedRoutes(["r".into()].into()),
            RedirectPredicate::SafeCrossScheme
        ]
    );
    assert!(policy("timeout: 1s").is_none());
}

#[test]
fn weights_may_go_by_the_hash_policy() {
    let table = routes(
        "[{match: {prefix: /}, route: {hash_policy: [{header: {header_name: x}}], weighted_clusters: \
         {use_hash_policy: true, clusters: [{name: a, weight: 50}, {name: b, weight: 50}]}}}]",
    )
    .unwrap();
    let of = |x: &str, random| cluster_of(&table, &request("h", "/", &[("x", x)]), random);
    // The same value goes to the same cluster whatever the random value is, and values spread over both.
    let names: std::collections::BTreeSet<String> = (0..16).map(|n| of(&n.to_string(), 0)).collect();
    assert_eq!(names.len(), 2);
    assert!((0..16).all(|n| of(&n.to_string(), 0) == of(&n.to_string(), 99)));
    let without = |random| cluster_of(&table, &request("h", "/", &[]), random);
    assert_eq!((without(49), without(50)), ("a".to_owned(), "b".to_owned()));
}
