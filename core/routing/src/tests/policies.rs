//! What a configuration says beside matching: errors, policies, what filters are told.

use super::*;

#[test]
fn errors_are_envoys() {
    let error = |message: &RouteConfiguration| try_compile(message).unwrap_err();
    let any = |action: RouteAction| config(vec![host(&["*"], vec![forward(prefix("/"), action)])]);
    let direct = |status, body: &str| {
        let source = crate::pb::core::DataSource {
            specifier: Some(crate::pb::core::data_source::Specifier::InlineString(body.to_owned())),
            ..Default::default()
        };
        let action = DirectResponseAction { status, body: Some(source), body_format: None };
        config(vec![host(
            &["*"],
            vec![route::Route {
                r#match: Some(prefix("/")),
                action: Some(route::route::Action::DirectResponse(action)),
                ..Default::default()
            }],
        )])
    };
    let edits = |add: Vec<HeaderValueOption>, remove: &[&str]| {
        let mut message = any(to("u"));
        message.request_headers_to_add = add;
        message.request_headers_to_remove = remove.iter().map(|&name| name.to_owned()).collect();
        message
    };
    let regex_rewrite = RegexMatchAndSubstitute {
        pattern: Some(RegexMatcher { regex: "a".to_owned(), engine_type: None }),
        substitution: "b".to_owned(),
    };
    let both = RouteAction { prefix_rewrite: "/a".to_owned(), regex_rewrite: Some(regex_rewrite), ..to("u") };
    let hosts = |a: &str, b: &str| config(vec![host(&[a], vec![]), host(&[b], vec![])]);
    let route_path = "virtual_hosts[0].routes[0].route";
    for (message, expected) in [
        (hosts("*", "*"), "virtual_hosts[1].domains[0]: Only a single wildcard domain is permitted in route rc".to_owned()),
        (
            hosts("a", "A"),
            "virtual_hosts[1].domains[0]: Only unique values for domains are permitted. Duplicate entry of domain a in route rc".to_owned(),
        ),
        (any(to("nope")), format!("{route_path}.cluster: route: unknown cluster 'nope'")),
        (any(weighted(vec![weight("nope", 1)])), format!("{route_path}.weighted_clusters.clusters[0].name: route: unknown weighted cluster 'nope'")),
        (any(weighted(vec![weight("u", 0)])), format!("{route_path}.weighted_clusters: Sum of weights in the weighted_cluster must be greater than 0.")),
        (any(both), format!("{route_path}: Specify only one of prefix_rewrite, regex_rewrite or path_rewrite_policy")),
        (direct(99, ""), "virtual_hosts[0].routes[0].direct_response.status: value must be inside range [200, 600)".to_owned()),
        (direct(200, &"x".repeat(4097)), "virtual_hosts[0].routes[0].direct_response.body: response body size is 4097 bytes; maximum is 4096".to_owned()),
        (edits(vec![add("Host", "x")], &[]), "request_headers_to_add[0].header.key: :-prefixed or host headers may not be modified".to_owned()),
        (edits(vec![], &[":path"]), "request_headers_to_remove[0]: :-prefixed or host headers may not be removed".to_owned()),
        (edits(vec![add("a", "%FOO%")], &[]), "request_headers_to_add[0].header.value: Not supported field in StreamInfo: FOO".to_owned()),
    ] {
        assert_eq!(error(&message).to_string(), expected);
    }
    let mut lenient = any(to("nope"));
    lenient.validate_clusters = Some(crate::pb::protobuf::BoolValue { value: false });
    assert!(try_compile(&lenient).is_ok());
    let older = RouteAction {
        cluster_specifier: Some(ClusterSpecifier::InlineClusterSpecifierPlugin(Default::default())),
        ..Default::default()
    };
    let incomplete = error(&any(older)).to_string();
    assert_eq!(
        incomplete,
        format!("{route_path}.inline_cluster_specifier_plugin.extension: value is required")
    );
}

#[test]
fn retry_policies_come_from_the_host_and_unknown_conditions_are_warned_about() {
    let policy = |on: &str| route::RetryPolicy { retry_on: on.to_owned(), ..Default::default() };
    let own = RouteAction { retry_policy: Some(policy("5xx, foo")), ..to("own") };
    let mut with_policy =
        host(&["*"], vec![forward(prefix("/own"), own), forward(prefix("/"), to("inherited"))]);
    with_policy.retry_policy = Some(policy("connect-failure"));
    let (table, warnings) = try_compile(&config(vec![with_policy])).unwrap();
    let conditions = |path: &str| {
        let route = selected(&table, &request("h", path, &[]));
        let policy = route.forward().unwrap().retry_policy.clone().unwrap();
        (policy.retry_on, policy.num_retries)
    };
    assert_eq!(conditions("/own"), (RetryOn::SERVER_ERROR, 1));
    assert_eq!(conditions("/"), (RetryOn::CONNECT_FAILURE, 1));
    assert_eq!(
        warnings.iter().map(ToString::to_string).collect::<Vec<_>>(),
        [
            "virtual_hosts[0].routes[0].route.retry_policy.retry_on: 'foo' is not a retry condition and has no effect"
        ]
    );
}

#[test]
fn timeouts_have_envoys_defaults() {
    use std::time::Duration;
    let duration = |seconds| Some(crate::pb::protobuf::Duration { seconds, nanos: 0 });
    let timeout = |action: RouteAction| {
        selected(&one_route(forward(prefix("/"), action)), &request("h", "/", &[])).forward().unwrap().timeout
    };
    assert_eq!(timeout(to("u")), Some(Duration::from_secs(15)));
    assert_eq!(timeout(RouteAction { timeout: duration(0), ..to("u") }), None);
    assert_eq!(timeout(RouteAction { timeout: duration(3), ..to("u") }), Some(Duration::from_secs(3)));
    let negative = RouteAction { timeout: duration(-1), ..to("u") };
    assert!(try_compile(&config(vec![host(&["*"], vec![forward(prefix("/"), negative)])])).is_err());
}

#[test]
fn filter_configs_of_all_levels_are_found_by_name() {
    use crate::pb::protobuf::Any;
    let any = |text: &str| Any { type_url: text.to_owned(), value: vec![] };
    let off = {
        use dhow_proto::Message;
        let config = route::FilterConfig { disabled: true, ..Default::default() };
        let type_url = "type.googleapis.com/envoy.config.route.v3.FilterConfig".to_owned();
        Any { type_url, value: config.encode_to_vec() }
    };
    let mut route = forward(prefix("/"), to("u"));
    route.typed_per_filter_config = [("a".to_owned(), any("route")), ("off".to_owned(), off)].into();
    let mut with_config = host(&["*"], vec![route]);
    with_config.typed_per_filter_config =
        [("a".to_owned(), any("host")), ("b".to_owned(), any("host"))].into();
    let mut message = config(vec![with_config]);
    message.typed_per_filter_config = [("a".to_owned(), any("table"))].into();
    let options = CompileOptions {
        compile_filter_config: &|name, any, _| {
            Ok(Some(std::sync::Arc::new(format!("{name} of {}", any.type_url))))
        },
        ..CompileOptions::lenient()
    };
    let table = RouteTable::compile(&message, &FieldPath::root(), &options, &mut Vec::new()).unwrap();
    let route = selected(&table, &request("h", "/", &[]));
    let configs = route.filter_configs();
    assert_eq!(configs.config::<String>("a").unwrap(), "a of route");
    assert_eq!(configs.config::<String>("b").unwrap(), "b of host");
    assert_eq!(configs.levels("a").len(), 3);
    assert!(configs.get("off").unwrap().disabled && configs.get("c").is_none());
}

#[test]
fn hashes_combine_and_cookies_are_made() {
    use crate::pb::route::route_action::HashPolicy as Message;
    use crate::pb::route::route_action::hash_policy::{Cookie, Header, PolicySpecifier, QueryParameter};
    use crate::{HashInput, HashPolicy};
    let policy = |specifier| {
        let message = Message { terminal: false, policy_specifier: Some(specifier) };
        HashPolicy::compile(&message, &FieldPath::root()).unwrap()
    };
    let header = policy(PolicySpecifier::Header(Header { header_name: "x".to_owned(), regex_rewrite: None }));
    let query = policy(PolicySpecifier::QueryParameter(QueryParameter { name: "q".to_owned() }));
    let cookie = policy(PolicySpecifier::Cookie(Cookie {
        name: "c".to_owned(),
        ttl: Some(crate::pb::protobuf::Duration { seconds: 60, nanos: 0 }),
        path: "/p".to_owned(),
        attributes: vec![],
    }));
    let mut made = Vec::new();
    let mut hash = |policies: &[HashPolicy], headers: &HeaderMap| {
        let mut make_cookie = |cookie: &crate::HashCookie| {
            made.push(cookie.set_cookie("0123456789abcdef"));
            Some("0123456789abcdef".to_owned())
        };
        let mut input =
            HashInput { headers, source_ip: None, filter_state: &|_| None, make_cookie: &mut make_cookie };
        HashPolicy::combined(policies, &mut input)
    };
    let plain = request("h", "/?q=v", &[("x", "b"), ("x", "a")]);
    let sorted = request("h", "/?q=v", &[("x", "a"), ("x", "b")]);
    let (one, two) = (std::slice::from_ref(&header), std::slice::from_ref(&query));
    assert_eq!(hash(one, &plain), hash(one, &sorted));
    let combined = hash(one, &plain).unwrap().rotate_left(1) ^ hash(two, &plain).unwrap();
    assert_eq!(hash(&[header.clone(), query.clone()], &plain), Some(combined));
    assert_eq!(hash(one, &request("h", "/", &[])), None);
    assert!(hash(std::slice::from_ref(&cookie), &plain).is_some());
    assert_eq!(made, ["c=\"0123456789abcdef\"; Max-Age=60; Path=/p; HttpOnly"]);
}
