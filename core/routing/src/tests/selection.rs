//! Which route a request gets.

use super::*;

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
        assert!(matches!(large.virtual_hosts()[0].search, crate::virtual_host::RouteSearch::Indexed(_)));
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

#[test]
fn hosts_can_require_tls() {
    let mut external = host(&["*"], vec![forward(prefix("/"), to("u"))]);
    external.require_tls = 1;
    external.response_headers_to_add = vec![add("x", "1")];
    let table = compile(&config(vec![external]));
    let headers = request("h", "/a?b", &[]);
    let route = selected(&table, &headers);
    assert_eq!(route.redirect_location(&headers, &EmptyContext).unwrap(), (301, b"https://h/a?b".to_vec()));
    let with_port = request("h:80", "/", &[]);
    let (_, location) = selected(&table, &with_port).redirect_location(&with_port, &EmptyContext).unwrap();
    assert_eq!(location, b"https://h:80/", "unlike a redirect of the configuration, this one keeps ports");
    let mut response = HeaderMap::new();
    route.apply_response_headers(&mut response, &EmptyContext);
    assert!(response.is_empty(), "the host's headers are not added to this redirect");
    assert_eq!(cluster_of(&table, &request("h", "/", &[("x-envoy-internal", "true")]), 0), "u");
    let mut secure = request("h", "/", &[]);
    secure.set_known(KnownHeader::XForwardedProto, b"https");
    assert_eq!(cluster_of(&table, &secure, 0), "u");
    assert!(table.explain(&headers, &RouteInput::new(0)).requires_tls);
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
fn only_routes_that_forward_alike_share_their_settings() {
    let rewritten = |cluster: &str| RouteAction { prefix_rewrite: "/x".to_owned(), ..to(cluster) };
    let retried = RouteAction { append_x_forwarded_host: true, ..to("c") };
    let routes = vec![
        forward(prefix("/a"), to("a")),
        forward(prefix("/b"), to("b")),
        forward(prefix("/c"), retried),
        forward(prefix("/d"), rewritten("d")),
        forward(prefix("/e/"), rewritten("e")),
        forward(prefix("/f"), to("f")),
    ];
    let own_policy = route::VirtualHost {
        retry_policy: Some(route::RetryPolicy { retry_on: "5xx".to_owned(), ..Default::default() }),
        ..host(&["own"], vec![forward(prefix("/"), to("g"))])
    };
    let table = compile(&config(vec![host(&["*"], routes), own_policy]));
    let all = table.virtual_hosts().iter().flat_map(|host| host.routes());
    let settings: Vec<_> = all.map(|route| &route.forward().unwrap().settings).collect();
    let shared: Vec<bool> =
        settings.windows(2).map(|pair| std::sync::Arc::ptr_eq(pair[0], pair[1])).collect();
    assert_eq!(shared, [true, false, false, false, false, false]);
    assert!(settings[6].retry_policy.is_some() && settings[5].retry_policy.is_none());
}
