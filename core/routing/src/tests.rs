//! Route tables on the cases that Envoy 1.40 was asked.

use dhow_base::{ConfigError, ConfigWarning, FieldPath};
use dhow_expr::EmptyContext;
use dhow_http::{HeaderMap, KnownHeader};

use crate::pb::core::{HeaderValue, HeaderValueOption, header_value_option::HeaderAppendAction};
use crate::pb::matcher::{RegexMatchAndSubstitute, RegexMatcher};
use crate::pb::protobuf::UInt32Value;
use crate::pb::route::redirect_action::{PathRewriteSpecifier, SchemeRewriteSpecifier};
use crate::pb::route::route_action::{ClusterSpecifier, HostRewriteSpecifier};
use crate::pb::route::route_match::PathSpecifier;
use crate::pb::route::weighted_cluster::ClusterWeight;
use crate::pb::route::{
    self, DirectResponseAction, RedirectAction, RouteAction, RouteConfiguration, WeightedCluster,
};
use crate::{
    Action, ClientCertificate, CompileOptions, Decision, Mismatch, RetryOn, RouteInput, RouteTable,
    SelectedRoute,
};

fn request(authority: &str, path: &str, lines: &[(&str, &str)]) -> HeaderMap {
    let mut map = HeaderMap::new();
    let head = [
        (":method", "GET"),
        (":scheme", "http"),
        (":authority", authority),
        (":path", path),
        ("x-forwarded-proto", "http"),
    ];
    for (name, value) in head.iter().chain(lines) {
        map.append(name.as_bytes(), value.as_bytes());
    }
    map
}

fn prefix(prefix: &str) -> route::RouteMatch {
    route::RouteMatch { path_specifier: Some(PathSpecifier::Prefix(prefix.to_owned())), ..Default::default() }
}

fn exact(path: &str) -> route::RouteMatch {
    route::RouteMatch { path_specifier: Some(PathSpecifier::Path(path.to_owned())), ..Default::default() }
}

fn to(cluster: &str) -> RouteAction {
    RouteAction {
        cluster_specifier: Some(ClusterSpecifier::Cluster(cluster.to_owned())),
        ..Default::default()
    }
}

fn forward(matched: route::RouteMatch, action: RouteAction) -> route::Route {
    route::Route {
        r#match: Some(matched),
        action: Some(route::route::Action::Route(action)),
        ..Default::default()
    }
}

fn host(domains: &[&str], routes: Vec<route::Route>) -> route::VirtualHost {
    route::VirtualHost {
        name: domains[0].to_owned(),
        domains: domains.iter().map(|&domain| domain.to_owned()).collect(),
        routes,
        ..Default::default()
    }
}

fn config(virtual_hosts: Vec<route::VirtualHost>) -> RouteConfiguration {
    RouteConfiguration { name: "rc".to_owned(), virtual_hosts, ..Default::default() }
}

fn try_compile(message: &RouteConfiguration) -> Result<(RouteTable, Vec<ConfigWarning>), ConfigError> {
    let mut warnings = Vec::new();
    let options = CompileOptions {
        validate_clusters_by_default: true,
        cluster_exists: &|name| name != "nope",
        ..CompileOptions::lenient()
    };
    RouteTable::compile(message, &FieldPath::root(), &options, &mut warnings).map(|table| (table, warnings))
}

fn compile(message: &RouteConfiguration) -> RouteTable {
    try_compile(message).unwrap_or_else(|error| panic!("{error}")).0
}

fn one_route(route: route::Route) -> RouteTable {
    compile(&config(vec![host(&["*"], vec![route])]))
}

fn selected(table: &RouteTable, headers: &HeaderMap) -> SelectedRoute {
    table.select(headers, &RouteInput::new(0)).selected().expect("a route is selected")
}

fn cluster_of(table: &RouteTable, headers: &HeaderMap, random: u64) -> String {
    match table.select(headers, &RouteInput::new(random)) {
        Decision::Selected(route) => route.cluster(headers).unwrap_or("?").to_owned(),
        Decision::NotFound { virtual_host } => format!("404 {}", virtual_host.map_or("", |_| "in host")),
    }
}

fn adds(key: &str, value: &str, action: HeaderAppendAction) -> HeaderValueOption {
    HeaderValueOption {
        header: Some(HeaderValue { key: key.to_owned(), value: value.to_owned(), raw_value: vec![] }),
        append_action: action as i32,
        ..Default::default()
    }
}

fn add(key: &str, value: &str) -> HeaderValueOption {
    adds(key, value, HeaderAppendAction::AppendIfExistsOrAdd)
}

fn lines(map: &HeaderMap) -> Vec<String> {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    map.iter().map(|(_, name, value)| format!("{}: {}", text(name), text(value))).collect()
}

#[test]
fn hosts_and_routes_are_searched_in_order() {
    let table = compile(&config(vec![
        host(&["a.com", "b.com"], vec![forward(exact("/x"), to("x")), forward(prefix("/y"), to("y"))]),
        host(&["*"], vec![forward(prefix("/"), to("any"))]),
    ]));
    for (authority, path, expected) in [
        ("a.com", "/x?q", "x"),
        ("B.com", "/yes", "y"),
        ("a.com", "/z", "404 in host"),
        ("a.com:80", "/x", "any"),
    ] {
        assert_eq!(cluster_of(&table, &request(authority, path, &[]), 0), expected, "{authority}{path}");
    }
    let mut ignoring = config(vec![host(&["a.com"], vec![forward(prefix("/"), to("a"))])]);
    ignoring.ignore_port_in_host_matching = true;
    assert_eq!(cluster_of(&compile(&ignoring), &request("a.com:80", "/", &[]), 0), "a");
    assert_eq!(cluster_of(&compile(&ignoring), &request("c.com", "/", &[]), 0), "404 ");
    ignoring.vhost_header = "x-host".to_owned();
    assert_eq!(cluster_of(&compile(&ignoring), &request("c.com", "/", &[("x-host", "a.com")]), 0), "a");
}

#[test]
fn the_index_of_a_large_host_keeps_the_order() {
    // A small deterministic generator; the seed is the loop variable.
    for seed in 1..=20u64 {
        let mut state = seed;
        let mut next = move |below: u64| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) % below
        };
        let mut path = || {
            let depth = next(4);
            (0..depth).map(|_| format!("/{}", ["a", "b", "ab"][next(3) as usize])).collect::<String>()
        };
        let mut routes = Vec::new();
        for at in 0..60u64 {
            let text = path();
            let matched = match (at * 7 + seed) % 5 {
                0 | 1 => exact(&text),
                2 => prefix(&text),
                3 if text.len() > 1 => route::RouteMatch {
                    path_specifier: Some(PathSpecifier::PathSeparatedPrefix(text)),
                    ..Default::default()
                },
                _ => route::RouteMatch {
                    path_specifier: Some(PathSpecifier::SafeRegex(RegexMatcher {
                        regex: format!("{text}/.b"),
                        engine_type: None,
                    })),
                    ..Default::default()
                },
            };
            routes.push(forward(matched, to(&at.to_string())));
        }
        let large = compile(&config(vec![host(&["*"], routes.clone())]));
        assert!(large.virtual_hosts()[0].index.is_some());
        for _ in 0..200 {
            let headers = request("h", &path(), &[]);
            let input = RouteInput::new(0);
            let by_order = large.virtual_hosts()[0]
                .routes()
                .iter()
                .find(|route| route.matched.check(&headers, headers.path(), &input).is_ok());
            let expected = by_order.map_or("404 in host".to_owned(), |route| {
                let Action::Forward(action) = route.action() else { panic!("all routes forward") };
                let crate::ClusterChoice::One(source) = &action.cluster else { panic!("no weights here") };
                source.name(&headers).unwrap().to_owned()
            });
            assert_eq!(cluster_of(&large, &headers, 0), expected, "seed {seed}, {headers:?}");
        }
    }
}

fn weight(name: &str, weight: u32) -> ClusterWeight {
    ClusterWeight { name: name.to_owned(), weight: Some(UInt32Value { value: weight }), ..Default::default() }
}

fn weighted(clusters: Vec<ClusterWeight>) -> RouteAction {
    let weighted = WeightedCluster { clusters, ..Default::default() };
    RouteAction {
        cluster_specifier: Some(ClusterSpecifier::WeightedClusters(weighted)),
        ..Default::default()
    }
}

#[test]
fn weights_divide_the_random_value() {
    let table =
        one_route(forward(prefix("/"), weighted(vec![weight("a", 20), weight("b", 0), weight("c", 80)])));
    let headers = request("h", "/", &[]);
    assert_eq!(
        [0, 19, 20, 99, 100].map(|random| cluster_of(&table, &headers, random)),
        ["a", "a", "c", "c", "a"]
    );
}

#[test]
fn a_header_can_name_the_cluster() {
    let action = RouteAction {
        cluster_specifier: Some(ClusterSpecifier::ClusterHeader("x-c".to_owned())),
        ..Default::default()
    };
    let table = one_route(forward(prefix("/"), action));
    assert_eq!(cluster_of(&table, &request("h", "/", &[("x-c", "u")]), 0), "u");
    assert_eq!(cluster_of(&table, &request("h", "/", &[]), 0), "?");
}

#[test]
fn certificates_are_compared() {
    let wanting = |presented| {
        let value = crate::pb::protobuf::BoolValue { value: presented };
        let options = route::route_match::TlsContextMatchOptions { presented: Some(value), validated: None };
        let matched = route::RouteMatch { tls_context: Some(options), ..prefix("/") };
        one_route(forward(matched, to("u")))
    };
    let headers = request("h", "/", &[]);
    for (wanted, certificate, expected) in [
        (false, None, true),
        (true, None, false),
        (true, Some(ClientCertificate::Presented), true),
        (false, Some(ClientCertificate::None), true),
    ] {
        let input = RouteInput { client_certificate: certificate, ..RouteInput::new(0) };
        let found = wanting(wanted).select(&headers, &input).selected().is_some();
        assert_eq!(found, expected, "{wanted} {certificate:?}");
    }
}

fn redirect(action: RedirectAction) -> RouteTable {
    one_route(route::Route {
        r#match: Some(prefix("/a")),
        action: Some(route::route::Action::Redirect(action)),
        ..Default::default()
    })
}

#[test]
fn redirects_are_envoys() {
    let location = |action: &RedirectAction, authority: &str, path: &str| {
        let headers = request(authority, path, &[("x", "X")]);
        let table = redirect(action.clone());
        let (status, location) =
            selected(&table, &headers).redirect_location(&headers, &EmptyContext).unwrap();
        format!("{status} {}", String::from_utf8(location).unwrap())
    };
    let path = |specifier| RedirectAction { path_rewrite_specifier: Some(specifier), ..Default::default() };
    let https = RedirectAction {
        scheme_rewrite_specifier: Some(SchemeRewriteSpecifier::HttpsRedirect(true)),
        ..Default::default()
    };
    assert_eq!(location(&https, "h", "/a/12?q=1"), "301 https://h/a/12?q=1");
    assert_eq!(location(&https, "h:80", "/a"), "301 https://h/a");
    assert_eq!(location(&https, "h:443", "/a"), "301 https://h:443/a");
    assert_eq!(location(&https, "[::1]:80", "/a"), "301 https://[::1]/a");
    let port = RedirectAction { port_redirect: 81, ..Default::default() };
    assert_eq!(location(&port, "h:80", "/a"), "301 http://h:81/a");
    let whole = path(PathRewriteSpecifier::PathRedirect("/p".to_owned()));
    assert_eq!(location(&whole, "h:80", "/a/12?q=1"), "301 http://h:80/p?q=1");
    let query =
        RedirectAction { strip_query: true, ..path(PathRewriteSpecifier::PathRedirect("/p?z=1".to_owned())) };
    assert_eq!(location(&query, "h", "/a?q"), "301 http://h/p?z=1");
    let strip = RedirectAction { host_redirect: "o".to_owned(), strip_query: true, ..Default::default() };
    assert_eq!(location(&strip, "h:80", "/a/12?q=1"), "301 http://o/a/12");
    let prefix =
        RedirectAction { response_code: 1, ..path(PathRewriteSpecifier::PrefixRewrite("/n".to_owned())) };
    assert_eq!(location(&prefix, "h", "/a/12?q=1"), "302 http://h/n/12?q=1");
    let regex = path(PathRewriteSpecifier::RegexRewrite(RegexMatchAndSubstitute {
        pattern: Some(RegexMatcher { regex: r"/a/(\d+)".to_owned(), engine_type: None }),
        substitution: r"/n-\1".to_owned(),
    }));
    assert_eq!(location(&regex, "h", "/a/12?q=1"), "301 http://h/n-12?q=1");
    assert_eq!(location(&regex, "h:80", "/a"), "301 http://h:80/a");
    let format = path(PathRewriteSpecifier::PathRewrite("/n/%REQ(x)%".to_owned()));
    assert_eq!(location(&format, "h", "/a/12?q=1"), "301 http://h/n/X?q=1");
}

#[test]
fn hosts_can_require_tls() {
    let mut external = host(&["*"], vec![forward(prefix("/"), to("u"))]);
    external.require_tls = 1;
    external.response_headers_to_add = vec![add("x", "1")];
    let table = compile(&config(vec![external]));
    let headers = request("h", "/a?b", &[]);
    let route = selected(&table, &headers);
    assert_eq!(route.redirect_location(&headers, &EmptyContext).unwrap(), (301, b"https://h/a?b".to_vec()));
    let mut response = HeaderMap::new();
    route.apply_response_headers(&mut response, &EmptyContext);
    assert!(response.is_empty(), "the host's headers are not added to this redirect");
    assert_eq!(cluster_of(&table, &request("h", "/", &[("x-envoy-internal", "true")]), 0), "u");
    let mut secure = request("h", "/", &[]);
    secure.set_known(KnownHeader::XForwardedProto, b"https");
    assert_eq!(cluster_of(&table, &secure, 0), "u");
    assert!(table.explain(&headers, &RouteInput::new(0)).requires_tls);
}

fn rewritten(route: route::Route, path: &str, lines_sent: &[(&str, &str)]) -> Vec<String> {
    let table = one_route(route);
    let mut headers = request("h", path, lines_sent);
    selected(&table, &headers).apply_request_rewrites(&mut headers, &EmptyContext, false);
    headers.remove_known(KnownHeader::Method);
    headers.remove_known(KnownHeader::Scheme);
    headers.remove_known(KnownHeader::XForwardedProto);
    lines(&headers)
}

#[test]
fn path_rewrites_are_envoys() {
    let with_prefix = |text: &str| RouteAction { prefix_rewrite: text.to_owned(), ..to("u") };
    for (matched, rewrite, path, expected) in [
        (prefix("/a"), "/n", "/abc/d?q=1", "/nbc/d?q=1"),
        (prefix("/a/"), "/", "/a/b", "/b"),
        (exact("/a"), "/n", "/a?q", "/n?q"),
    ] {
        let lines = rewritten(forward(matched, with_prefix(rewrite)), path, &[]);
        assert_eq!(
            lines,
            [":authority: h", &format!(":path: {expected}"), &format!("x-envoy-original-path: {path}")]
        );
    }
    let format = |text: &str| RouteAction { path_rewrite: text.to_owned(), ..to("u") };
    let lines = rewritten(forward(prefix("/a"), format("/n%REQ(x)%")), "/abc?q", &[("x", "X")]);
    assert_eq!(lines[1], ":path: /nX?q");
    assert_eq!(rewritten(forward(prefix("/a"), format("/n%REQ(x)%")), "/abc", &[])[1], ":path: /n");
    assert_eq!(
        rewritten(forward(prefix("/a"), format("%REQ(x)%")), "/abc", &[]),
        [":authority: h", ":path: /abc"]
    );
}

#[test]
fn host_rewrites_are_envoys() {
    let action = |specifier| RouteAction { host_rewrite_specifier: Some(specifier), ..to("u") };
    let mut literal = action(HostRewriteSpecifier::HostRewriteLiteral("new".to_owned()));
    literal.append_x_forwarded_host = true;
    assert_eq!(
        rewritten(forward(prefix("/"), literal), "/a", &[("x-forwarded-host", "before")]),
        [":authority: new", ":path: /a", "x-forwarded-host: before,h", "x-envoy-original-host: h"]
    );
    let header = action(HostRewriteSpecifier::HostRewriteHeader("x".to_owned()));
    assert_eq!(rewritten(forward(prefix("/"), header.clone()), "/a", &[("x", "X")])[0], ":authority: X");
    assert_eq!(rewritten(forward(prefix("/"), header), "/a", &[]), [":authority: h", ":path: /a"]);
    let format = action(HostRewriteSpecifier::HostRewrite("p-%REQ(x)%".to_owned()));
    assert_eq!(rewritten(forward(prefix("/"), format), "/a", &[])[0], ":authority: p--");
    let mut with_weight = weight("u", 1);
    with_weight.host_rewrite_specifier = Some(
        route::weighted_cluster::cluster_weight::HostRewriteSpecifier::HostRewriteLiteral("wc".to_owned()),
    );
    let mut both = weighted(vec![with_weight]);
    assert_eq!(rewritten(forward(prefix("/"), both.clone()), "/a", &[]), [":authority: wc", ":path: /a"]);
    both.host_rewrite_specifier = Some(HostRewriteSpecifier::HostRewriteLiteral("route".to_owned()));
    assert_eq!(
        rewritten(forward(prefix("/"), both), "/a", &[]),
        [":authority: route", ":path: /a", "x-envoy-original-host: wc"]
    );
}

#[test]
fn request_headers_are_formatted_before_rewrites_and_without_each_other() {
    let mut route = forward(prefix("/a"), RouteAction { prefix_rewrite: "/n".to_owned(), ..to("u") });
    route.request_headers_to_add =
        vec![add("p", "%REQ(:path)%|%REQ(x)%"), add("x", "2"), add("q", "%REQ(p)%|%HOSTNAME%!")];
    route.request_headers_to_remove = vec!["Y".to_owned()];
    assert_eq!(
        rewritten(route, "/abc", &[("x", "X"), ("y", "1")]),
        [":authority: h", ":path: /nbc", "x: X", "p: /abc|X", "x: 2", "q: |!", "x-envoy-original-path: /abc"]
    );
}

#[test]
fn levels_apply_from_the_most_specific_one() {
    let build = |reverse| {
        let mut with_weight = weight("u", 1);
        with_weight.request_headers_to_add = vec![add("o", "wc")];
        let mut route = forward(prefix("/"), weighted(vec![with_weight]));
        route.request_headers_to_add = vec![add("o", "route")];
        let mut host = host(&["*"], vec![route]);
        host.request_headers_to_add = vec![add("o", "host")];
        let mut message = config(vec![host]);
        message.request_headers_to_add = vec![add("o", "table")];
        message.most_specific_header_mutations_wins = reverse;
        let table = compile(&message);
        let mut headers = request("h", "/", &[]);
        selected(&table, &headers).apply_request_rewrites(&mut headers, &EmptyContext, true);
        lines(&headers)[5..].join(" ")
    };
    assert_eq!(build(false), "o: wc o: route o: host o: table");
    assert_eq!(build(true), "o: table o: host o: route o: wc");
}

#[test]
fn append_actions_see_the_headers_before_the_level() {
    let mut route = forward(prefix("/"), to("u"));
    route.response_headers_to_add = vec![
        adds("absent", "1", HeaderAppendAction::AddIfAbsent),
        adds("absent", "2", HeaderAppendAction::AddIfAbsent),
        adds("there", "no", HeaderAppendAction::AddIfAbsent),
        adds("there", "new", HeaderAppendAction::OverwriteIfExists),
        adds("missing", "no", HeaderAppendAction::OverwriteIfExists),
        adds("set", "%RESPONSE_HEADER(there)%", HeaderAppendAction::OverwriteIfExistsOrAdd),
        add("empty", "%REQ(nope)%"),
        HeaderValueOption { keep_empty_value: true, ..add("kept", "%REQ(nope)%") },
        add("old", "%DYNAMIC_METADATA([\"a\", \"b\"])%x"),
    ];
    route.response_headers_to_remove = vec!["gone".to_owned()];
    let table = one_route(route);
    let mut response = HeaderMap::new();
    response.append(b"there", b"old");
    response.append(b"gone", b"1");
    selected(&table, &request("h", "/", &[])).apply_response_headers(&mut response, &EmptyContext);
    assert_eq!(lines(&response), ["there: new", "set: old", "absent: 1", "absent: 2", "kept: ", "old: x"]);
}

#[test]
fn explanations_tell_why_routes_were_passed_over() {
    let grpc = route::RouteMatch { grpc: Some(route::route_match::GrpcRouteMatchOptions {}), ..prefix("/") };
    let headers_rule = route::RouteMatch {
        headers: vec![route::HeaderMatcher { name: "x".to_owned(), ..Default::default() }],
        ..prefix("/")
    };
    let routes = [exact("/x"), grpc, headers_rule, prefix("/")].map(|matched| forward(matched, to("u")));
    let table = compile(&config(vec![host(&["*"], routes.to_vec())]));
    let explained = table.explain(&request("h", "/", &[]), &RouteInput::new(0));
    let reasons: Vec<_> = explained.steps.iter().map(|step| step.mismatch).collect();
    assert_eq!(reasons, [Some(Mismatch::Path), Some(Mismatch::NotGrpc), Some(Mismatch::Header(0)), None]);
    assert!(matches!(explained.decision, Decision::Selected(_)));
    let grpc = request("h", "/", &[("content-type", "application/grpc;x")]);
    assert_eq!(table.explain(&grpc, &RouteInput::new(0)).steps[1].mismatch, Some(Mismatch::NotGrpc));
}

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
    let unsupported = RouteAction { path_rewrite_policy: Some(Default::default()), ..to("u") };
    assert!(error(&any(unsupported)).to_string().starts_with(&format!("{route_path}.path_rewrite_policy: ")));
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
