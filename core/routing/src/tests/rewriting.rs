//! What a route changes: redirects, paths, hosts, headers.

use super::*;

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
fn a_redirected_request_has_the_new_path() {
    let path_of = |specifier, suppress| {
        let table =
            redirect(RedirectAction { path_rewrite_specifier: Some(specifier), ..Default::default() });
        let mut headers = request("h", "/a/1?q", &[]);
        let route = selected(&table, &headers);
        assert_eq!(
            route.direct_uri(&headers, &EmptyContext),
            route.redirect_location(&headers, &EmptyContext).map(|(_, uri)| uri)
        );
        route.rewrite_redirected_path(&mut headers, &EmptyContext, suppress);
        let original = headers.get_known(KnownHeader::XEnvoyOriginalPath).unwrap_or(b"-");
        [headers.path(), b" ", original].concat()
    };
    let prefix = PathRewriteSpecifier::PrefixRewrite("/n".to_owned());
    assert_eq!(path_of(prefix.clone(), false), b"/n/1?q /a/1?q");
    assert_eq!(path_of(prefix, true), b"/n/1?q -");
    assert_eq!(path_of(PathRewriteSpecifier::PathRedirect("/n".to_owned()), false), b"/a/1?q -");
}

#[test]
fn a_direct_response_is_about_the_uri_of_the_request() {
    let direct = DirectResponseAction { status: 201, ..Default::default() };
    let table = one_route(route::Route {
        r#match: Some(prefix("/")),
        action: Some(route::route::Action::DirectResponse(direct)),
        ..Default::default()
    });
    let headers = request("h:81", "/a?b", &[]);
    assert_eq!(selected(&table, &headers).direct_uri(&headers, &EmptyContext).unwrap(), b"http://h:81/a?b");
    let forwards = one_route(forward(prefix("/"), to("u")));
    assert_eq!(selected(&forwards, &headers).direct_uri(&headers, &EmptyContext), None);
}

#[test]
fn what_is_added_to_a_header_with_one_slot_is_joined_to_it() {
    let mut route = forward(prefix("/"), to("u"));
    route.request_headers_to_add = vec![add("user-agent", "b"), add("x-o", "b"), add("referer", "r")];
    route.response_headers_to_add = vec![add("content-type", "b"), add("server", "s")];
    let table = one_route(route);
    let mut headers = request("h", "/", &[("user-agent", "a"), ("x-o", "a"), ("referer", "")]);
    let route = selected(&table, &headers);
    route.apply_request_rewrites(&mut headers, &EmptyContext, true);
    assert_eq!(
        lines(&headers)[5..],
        ["user-agent: a,b", "x-o: a", "referer: r", "x-o: b"],
        "an empty value leaves no comma behind"
    );
    let mut response = HeaderMap::new();
    response.append_known(KnownHeader::ContentType, b"a");
    route.apply_response_headers(&mut response, &EmptyContext);
    assert_eq!(lines(&response), ["content-type: a,b", "server: s"]);
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
    assert_eq!(build(true), "o: wc o: table o: host o: route");
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
