//! Faults as Envoy 1.40 injects them.

use dhow_base::ResponseFlag;
use dhow_http::HeaderMap;
use dhow_proto::envoy::extensions::filters::http::fault::v3::HttpFault;
use dhow_proxy_api::{HeadersVerdict, HttpFilterFactory, LocalReply, Resumption};
use dhow_stats::Store;

use crate::fixtures::{Stream, configure, request, resume, routes, stat, summary};

fn verdict(yaml: &str, store: &Store, request: &mut HeaderMap) -> HeadersVerdict {
    let factory = configure::<HttpFault>(yaml, store).expect(yaml);
    let mut stream = Stream::new(1);
    let Some(mut filter) = stream.create(&*factory) else { return HeadersVerdict::Continue };
    stream.decode(&mut *filter, request)
}

fn reply(verdict: HeadersVerdict) -> LocalReply {
    match verdict {
        HeadersVerdict::LocalReply(reply) => reply,
        other => panic!("{} instead of a reply", summary(&other)),
    }
}

const ABORT: &str = "{abort: {http_status: 503, percentage: {numerator: 100}}}";

#[test]
fn an_abort_has_envoys_status_body_flag_details_and_stats() {
    let store = Store::new();
    let reply = reply(verdict(ABORT, &store, &mut request("/", &[])));
    assert_eq!((reply.status, &*reply.body, reply.grpc_status), (503, &b"fault filter abort"[..], None));
    assert_eq!(reply.details, "fault_filter_abort");
    assert!(reply.flags.contains(ResponseFlag::FaultInjected));
}

#[test]
fn a_grpc_abort_is_status_200_with_a_grpc_status_and_its_own_body() {
    let yaml = "{abort: {grpc_status: 7, response_body: mine, percentage: {numerator: 100}}}";
    let reply = reply(verdict(yaml, &Store::new(), &mut request("/", &[])));
    assert_eq!((reply.status, &*reply.body, reply.grpc_status), (200, &b"mine"[..], Some(7)));
}

#[test]
fn a_delay_comes_before_the_abort_and_both_are_counted_when_they_happen() {
    let store = Store::new();
    let yaml = "{delay: {fixed_delay: 5s, percentage: {numerator: 100}}, \
                abort: {http_status: 418, percentage: {numerator: 1000000, denominator: MILLION}}}";
    let factory = configure::<HttpFault>(yaml, &store).unwrap();
    let mut stream = Stream::new(3);
    let mut filter = stream.create(&*factory).unwrap();
    let mut head = request("/", &[("x-envoy-downstream-service-cluster", "me.a")]);
    let waiting = stream.decode(&mut *filter, &mut head);
    assert!(stream.info.flags.contains(ResponseFlag::DelayInjected));
    let counts = |names: [&str; 5]| names.map(|name| stat(&store, &format!("http.test.fault.{name}")));
    let names = [
        "delays_injected",
        "aborts_injected",
        "active_faults",
        "me.a.delays_injected",
        "me.a.aborts_injected",
    ];
    assert_eq!(counts(names), [Some(1), Some(0), Some(1), Some(1), None]);
    let Resumption::LocalReply(reply) = resume(waiting) else { panic!("no abort after the delay") };
    assert_eq!(reply.status, 418);
    assert_eq!(counts(names), [Some(1), Some(1), Some(1), Some(1), Some(1)]);
    drop(filter);
    assert_eq!(stat(&store, "http.test.fault.active_faults"), Some(0));
}

#[test]
fn a_delay_waits_as_long_as_it_says_and_goes_on() {
    let yaml = "{delay: {fixed_delay: 0.250s, percentage: {numerator: 10000, denominator: TEN_THOUSAND}}}";
    let HeadersVerdict::Wait(work) = verdict(yaml, &Store::new(), &mut request("/", &[])) else {
        panic!("no delay")
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    let waited = runtime.unwrap().block_on(async {
        let start = tokio::time::Instant::now();
        assert!(matches!(work.await, Resumption::Continue));
        start.elapsed().as_millis()
    });
    assert!((250..=252).contains(&waited), "{waited} ms");
}

#[test]
fn headers_give_delay_and_status_and_can_only_lower_the_share() {
    let yaml = "{delay: {header_delay: {}, percentage: {numerator: 100}}, \
                abort: {header_abort: {}, percentage: {numerator: 100}}}";
    let cases: [(&[(&str, &str)], &str); 6] = [
        (&[], "continue"),
        (&[("x-envoy-fault-abort-request", "418")], "418 fault_filter_abort"),
        (
            &[("x-envoy-fault-abort-request", "99"), ("x-envoy-fault-abort-grpc-request", "5")],
            "200 fault_filter_abort",
        ),
        (&[("x-envoy-fault-delay-request", "10")], "wait"),
        (
            &[("x-envoy-fault-delay-request", "10"), ("x-envoy-fault-delay-request-percentage", "0")],
            "continue",
        ),
        (
            &[("x-envoy-fault-abort-request", "418"), ("x-envoy-fault-abort-request-percentage", "0")],
            "continue",
        ),
    ];
    for (lines, expected) in cases {
        assert_eq!(summary(&verdict(yaml, &Store::new(), &mut request("/", lines))), expected, "{lines:?}");
    }
    let none = yaml.replace("numerator: 100", "numerator: 0");
    let lines = [("x-envoy-fault-abort-request", "418"), ("x-envoy-fault-abort-request-percentage", "100")];
    assert_eq!(summary(&verdict(&none, &Store::new(), &mut request("/", &lines))), "continue");
}

#[test]
fn only_requests_that_match_are_hit() {
    let abort = "abort: {http_status: 503, percentage: {numerator: 100}}";
    let hit = |condition: &str, lines: &[(&str, &str)]| {
        let yaml = format!("{{{abort}, {condition}}}");
        summary(&verdict(&yaml, &Store::new(), &mut request("/", lines))) != "continue"
    };
    let header = "headers: [{name: end-user, string_match: {exact: jason}}]";
    assert!(hit(header, &[("end-user", "jason")]));
    assert!(!hit(header, &[("end-user", "eve")]));
    let nodes = "downstream_nodes: [n1, n2]";
    assert!(hit(nodes, &[("x-envoy-downstream-service-node", "n2")]));
    assert!(!hit(nodes, &[("x-envoy-downstream-service-node", "n3")]));
    assert!(!hit(nodes, &[]));
    assert!(!hit("upstream_cluster: c", &[]), "without a route there is no cluster");
}

#[test]
fn the_cluster_of_the_route_decides() {
    let routes = routes(
        "virtual_hosts: [{name: v, domains: ['*'], routes: [{match: {prefix: /}, route: {cluster: c}}]}]",
    );
    for (cluster, expected) in [("c", "503 fault_filter_abort"), ("d", "continue")] {
        let yaml = format!(
            "{{upstream_cluster: {cluster}, abort: {{http_status: 503, percentage: {{numerator: 100}}}}}}"
        );
        let factory = configure::<HttpFault>(&yaml, &Store::new()).unwrap();
        let mut head = request("/", &[]);
        let mut stream = Stream::new(1).routed(&routes, &head);
        let mut filter = stream.create(&*factory).unwrap();
        assert_eq!(summary(&stream.decode(&mut *filter, &mut head)), expected);
    }
}

#[test]
fn more_active_faults_than_allowed_are_not_injected() {
    let store = Store::new();
    let yaml = "{max_active_faults: 1, delay: {fixed_delay: 1s, percentage: {numerator: 100}}, \
                abort: {http_status: 503, percentage: {numerator: 100}}}";
    let factory = configure::<HttpFault>(yaml, &store).unwrap();
    let run = |factory: &dyn HttpFilterFactory| {
        let mut stream = Stream::new(1);
        let mut filter = stream.create(factory).unwrap();
        (summary(&stream.decode(&mut *filter, &mut request("/", &[]))), filter)
    };
    let (first, held) = run(&*factory);
    assert_eq!(first, "wait");
    assert_eq!(run(&*factory).0, "continue");
    // The delay and the abort were both refused.
    assert_eq!(stat(&store, "http.test.fault.faults_overflow"), Some(2));
    drop(held);
    assert_eq!(run(&*factory).0, "wait");
}

#[test]
fn a_routes_configuration_replaces_the_filters() {
    let routes = routes(
        "virtual_hosts: [{name: v, domains: ['*'], routes: [{match: {path: /none}, route: {cluster: c}, \
         typed_per_filter_config: {filter: {'@type': type.googleapis.com/envoy.extensions.filters.http.fault.v3.HTTPFault}}}, \
         {match: {prefix: /}, route: {cluster: c}}]}]",
    );
    let factory = configure::<HttpFault>(ABORT, &Store::new()).unwrap();
    let plain = request("/", &[]);
    assert!(Stream::new(1).routed(&routes, &plain).create(&*factory).is_some());
    let none = request("/none", &[]);
    assert!(Stream::new(1).routed(&routes, &none).create(&*factory).is_none(), "nothing to inject");
}

#[test]
fn shares_are_kept_and_independent_of_each_other() {
    let store = Store::new();
    let yaml = "{delay: {fixed_delay: 1s, percentage: {numerator: 50}}, \
                abort: {http_status: 503, percentage: {numerator: 500000, denominator: MILLION}}}";
    let factory = configure::<HttpFault>(yaml, &store).unwrap();
    let mut seen = [0; 4];
    for random in 0..4000 {
        let mut stream = Stream::new(random);
        let mut filter = stream.create(&*factory).unwrap();
        let at = match stream.decode(&mut *filter, &mut request("/", &[])) {
            HeadersVerdict::Continue => 0,
            HeadersVerdict::LocalReply(_) => 1,
            waiting => 2 + usize::from(matches!(resume(waiting), Resumption::LocalReply(_))),
        };
        seen[at] += 1;
    }
    assert!(seen.iter().all(|count| (850..1150).contains(count)), "{seen:?}");
}
