//! Cross-origin requests as Envoy 1.40 answers them.

use dhow_http::HeaderMap;
use dhow_proto::envoy::extensions::filters::http::cors::v3::Cors;
use dhow_proxy_api::HeadersVerdict;
use dhow_routing::RouteTable;
use dhow_stats::Store;

use crate::fixtures::{Stream, configure, lines, request, routes, stat, summary};

const POLICY: &str = "'@type': type.googleapis.com/envoy.extensions.filters.http.cors.v3.CorsPolicy";

/// A virtual host with a policy, and one route with another policy over it.
fn table(of_route: &str) -> RouteTable {
    routes(&format!(
        "virtual_hosts: [{{name: v, domains: ['*'], \
         typed_per_filter_config: {{filter: {{{POLICY}, allow_origin_string_match: [{{exact: 'http://a.com'}}], \
         allow_methods: 'GET,PUT', max_age: '77', allow_credentials: true, expose_headers: x-vh}}}}, \
         routes: [{{match: {{path: /direct}}, direct_response: {{status: 200}}}}, \
         {{match: {{path: /merged}}, route: {{cluster: c}}, typed_per_filter_config: {{filter: {{{POLICY}{of_route}}}}}}}, \
         {{match: {{prefix: /}}, route: {{cluster: c}}}}]}}]"
    ))
}

struct Outcome {
    verdict: String,
    /// Headers of the preflight reply.
    reply: Vec<String>,
    /// Headers of a response that had none.
    response: Vec<String>,
    /// `origin_valid` and `origin_invalid`.
    counts: (u64, u64),
}

fn run(routes: &RouteTable, path: &str, headers: &[(&str, &str)]) -> Outcome {
    let store = Store::new();
    let factory = configure::<Cors>("{}", &store).unwrap();
    let mut head = request(path, headers);
    let mut stream = Stream::new(1).routed(routes, &head);
    let mut filter = stream.create(&*factory).unwrap();
    let verdict = stream.decode(&mut *filter, &mut head);
    let mut response = HeaderMap::new();
    stream.encode(&mut *filter, &head, &mut response);
    let text = |value: &[u8]| String::from_utf8_lossy(value).into_owned();
    let reply = match &verdict {
        HeadersVerdict::LocalReply(reply) => {
            assert!(reply.body.is_empty() && reply.flags == dhow_base::ResponseFlags::NONE);
            reply.headers.iter().map(|(name, value)| format!("{name}: {}", text(value))).collect()
        }
        _ => Vec::new(),
    };
    let count = |name: &str| stat(&store, &format!("http.test.cors.{name}")).unwrap();
    let counts = (count("origin_valid"), count("origin_invalid"));
    Outcome { verdict: summary(&verdict), reply, response: lines(&response), counts }
}

fn preflight(origin: &str) -> [(&str, &str); 3] {
    [(":method", "OPTIONS"), ("origin", origin), ("access-control-request-method", "PUT")]
}

#[test]
fn a_request_of_an_allowed_origin_gets_its_headers() {
    let outcome = run(&table(""), "/", &[("origin", "http://a.com")]);
    assert_eq!(outcome.verdict, "continue");
    assert_eq!(
        outcome.response,
        [
            "access-control-allow-origin: http://a.com",
            "access-control-allow-credentials: true",
            "access-control-expose-headers: x-vh"
        ]
    );
    assert_eq!(outcome.counts, (1, 0));
}

#[test]
fn another_origin_passes_without_headers() {
    for headers in [&[("origin", "http://b.com")][..], &preflight("http://b.com")[..]] {
        let outcome = run(&table(""), "/", headers);
        assert_eq!(
            (outcome.verdict.as_str(), outcome.response.len(), outcome.counts),
            ("continue", 0, (0, 1))
        );
    }
}

#[test]
fn without_origin_nothing_is_counted() {
    for headers in [&[][..], &[("origin", "")][..]] {
        let outcome = run(&table(""), "/", headers);
        assert_eq!(
            (outcome.verdict.as_str(), outcome.response.len(), outcome.counts),
            ("continue", 0, (0, 0))
        );
    }
}

#[test]
fn a_preflight_is_answered_from_all_levels() {
    let routes = table(", allow_headers: x-r, allow_private_network_access: true");
    let mut headers = preflight("http://a.com").to_vec();
    headers.push(("access-control-request-private-network", "true"));
    let outcome = run(&routes, "/merged", &headers);
    assert_eq!(outcome.verdict, "200 cors_response");
    assert_eq!(
        outcome.reply,
        [
            "access-control-allow-origin: http://a.com",
            "access-control-allow-credentials: true",
            "access-control-allow-methods: GET,PUT",
            "access-control-allow-headers: x-r",
            "access-control-max-age: 77",
            "access-control-allow-private-network: true"
        ]
    );
    assert!(outcome.response.contains(&"access-control-expose-headers: x-vh".to_owned()));
}

#[test]
fn a_star_allows_every_origin_by_name() {
    let routes = table(", allow_origin_string_match: [{exact: '*'}]");
    let outcome = run(&routes, "/merged", &[("origin", "http://zz.com")]);
    assert_eq!(outcome.response[0], "access-control-allow-origin: http://zz.com");
}

#[test]
fn preflights_that_do_not_match_can_be_answered_with_nothing_allowed() {
    let routes = table(", forward_not_matching_preflights: false");
    let outcome = run(&routes, "/merged", &preflight("http://zz.com"));
    assert_eq!(outcome.verdict, "200 cors_response");
    assert_eq!(
        outcome.reply,
        [
            "access-control-allow-credentials: true",
            "access-control-allow-methods: GET,PUT",
            "access-control-max-age: 77"
        ]
    );
    assert!(outcome.response.is_empty());
    assert_eq!(run(&routes, "/merged", &[("origin", "http://zz.com")]).verdict, "continue");
}

#[test]
fn a_shadow_policy_only_counts() {
    let share = |numerator| format!("{{default_value: {{numerator: {numerator}}}}}");
    let routes = table(&format!(", filter_enabled: {}, shadow_enabled: {}", share(0), share(100)));
    let outcome = run(&routes, "/merged", &preflight("http://a.com"));
    assert_eq!((outcome.verdict.as_str(), outcome.response.len(), outcome.counts), ("continue", 0, (1, 0)));
    let routes = table(&format!(", filter_enabled: {}", share(0)));
    assert_eq!(run(&routes, "/merged", &preflight("http://a.com")).counts, (0, 0));
}

#[test]
fn a_route_that_does_not_forward_has_no_policy() {
    let outcome = run(&table(""), "/direct", &preflight("http://a.com"));
    assert_eq!((outcome.verdict.as_str(), outcome.response.len(), outcome.counts), ("continue", 0, (0, 0)));
}

#[test]
fn without_policy_there_is_no_filter() {
    let routes = routes(
        "virtual_hosts: [{name: v, domains: ['*'], routes: [{match: {prefix: /}, route: {cluster: c}}]}]",
    );
    let factory = configure::<Cors>("{}", &Store::new()).unwrap();
    assert!(Stream::new(1).routed(&routes, &request("/", &[])).create(&*factory).is_none());
}
