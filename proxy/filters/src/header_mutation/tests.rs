//! Header mutations in the order in which Envoy 1.40 makes them.

use dhow_http::HeaderMap;
use dhow_proto::envoy::extensions::filters::http::header_mutation::v3::{
    HeaderMutation, HeaderMutationPerRoute,
};
use dhow_routing::RouteTable;
use dhow_stats::Store;

use crate::fixtures::{Stream, configure, configure_route, lines, request, routes};

fn table() -> RouteTable {
    let level = |name: &str| {
        format!(
            "typed_per_filter_config: {{filter: {{\
             '@type': type.googleapis.com/envoy.extensions.filters.http.header_mutation.v3.HeaderMutationPerRoute, \
             mutations: {{response_mutations: [{{append: {{header: {{key: x-lvl, value: {name}}}}}}}]}}}}}}"
        )
    };
    let (table, host, route) = (level("table"), level("host"), level("route"));
    routes(&format!(
        "{{{table}, virtual_hosts: [{{name: v, domains: ['*'], {host}, \
         routes: [{{match: {{prefix: /}}, route: {{cluster: c}}, {route}}}]}}]}}"
    ))
}

fn run(yaml: &str, routes: Option<&RouteTable>, head: &mut HeaderMap, response: &mut HeaderMap) {
    let factory = configure::<HeaderMutation>(yaml, &Store::new()).expect(yaml);
    let mut stream = Stream::new(1);
    if let Some(routes) = routes {
        stream = stream.routed(routes, head);
    }
    let mut filter = stream.create(&*factory).expect("something to do");
    stream.decode(&mut *filter, head);
    stream.encode(&mut *filter, head, response);
}

#[test]
fn each_mutation_sees_what_those_before_it_did() {
    let yaml = "mutations: {request_mutations: [\
                {append: {header: {key: x-a, value: '1%REQ(x-in)%'}}}, \
                {append: {header: {key: x-b, value: 'b-%REQ(x-a)%'}}}, \
                {append: {header: {key: x-b, value: c}}}, \
                {append: {header: {key: x-z, value: '%REQ(nope)%'}}}, \
                {append: {header: {key: x-in, value: new}, append_action: OVERWRITE_IF_EXISTS}}, \
                {remove: x-gone}, \
                {remove_on_match: {key_matcher: {prefix: rm-}}}], \
                response_mutations: [\
                {append: {header: {key: x-resp, value: '%REQ(x-in)%-%RESP(content-type)%'}}}, \
                {remove: content-type}]}";
    let mut head = request("/", &[("x-in", "in"), ("rm-1", "a"), ("rm-2", "b"), ("x-gone", "g")]);
    let mut response = HeaderMap::new();
    response.append(b"content-type", b"text/plain");
    run(yaml, None, &mut head, &mut response);
    assert_eq!(lines(&head)[4..], ["x-a: 1in", "x-b: b-1in", "x-b: c", "x-in: new"]);
    assert_eq!(lines(&response), ["x-resp: new-text/plain"]);
}

#[test]
fn the_levels_of_the_route_follow_in_the_order_that_is_asked_for() {
    let own = "mutations: {response_mutations: [{append: {header: {key: x-lvl, value: filter}}}]}";
    let cases = [
        (own.to_owned(), ["filter", "route", "host", "table"]),
        (
            format!("{{{own}, most_specific_header_mutations_wins: true}}"),
            ["filter", "table", "host", "route"],
        ),
    ];
    for (yaml, expected) in cases {
        let mut response = HeaderMap::new();
        run(&yaml, Some(&table()), &mut request("/", &[]), &mut response);
        assert_eq!(lines(&response), expected.map(|level| format!("x-lvl: {level}")));
    }
}

#[test]
fn what_a_request_is_none_without_is_removed_like_the_rest() {
    let left = |mutation: &str| {
        let mut head = request("/", &[("x-a", "1")]);
        run(
            &format!("mutations: {{request_mutations: [{mutation}]}}"),
            None,
            &mut head,
            &mut HeaderMap::new(),
        );
        lines(&head)
    };
    let by_regex = "{remove_on_match: {key_matcher: {safe_regex: {regex: '.*'}}}}";
    assert!(left(by_regex).is_empty());
    assert_eq!(left("{remove: Host}"), [":method: GET", ":scheme: http", ":path: /", "x-a: 1"]);
    assert_eq!(left("{remove: ':path'}"), [":method: GET", ":scheme: http", ":authority: a.test", "x-a: 1"]);
    // Patterns see the name that the host is kept under.
    let by_name = "{remove_on_match: {key_matcher: {exact: host}}}";
    assert_eq!(left(by_name).len(), 5);
}

#[test]
fn a_filter_without_mutations_is_left_out() {
    let factory = configure::<HeaderMutation>("{}", &Store::new()).unwrap();
    assert!(Stream::new(1).create(&*factory).is_none());
}

#[test]
fn what_cannot_be_done_is_refused_by_path() {
    let error = |mutations: &str| {
        let yaml = format!("mutations: {{{mutations}}}");
        let of_filter = configure::<HeaderMutation>(&yaml, &Store::new()).map(drop).unwrap_err();
        let of_route = configure_route::<HeaderMutationPerRoute>(&super::descriptor(), &yaml).unwrap_err();
        assert_eq!(of_filter, of_route);
        of_filter
    };
    for (field, reason) in [
        ("{}", "One of 'append'/'remove' must be specified."),
        ("{remove: a, append: {record: {key: a}}}", "Only one of 'append'/'remove can be specified."),
        ("{append: {}}", "No record specified for append mutation."),
        ("{append: {record: {key: a, value: 5}}}", "Only string value is allowed for record value."),
    ] {
        let query = error(&format!("query_parameter_mutations: [{field}]"));
        assert!(query.path.as_str().starts_with("config.mutations.query_parameter_mutations[0]"));
        assert_eq!(query.reason, reason);
    }
    let path = error("request_mutations: [{append: {header: {key: ':path', value: /}}}]");
    assert_eq!(path.path.as_str(), "config.mutations.request_mutations[0].append.header.key");
    assert_eq!(path.reason, ":-prefixed or host headers may not be modified");
}
