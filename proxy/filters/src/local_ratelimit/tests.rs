//! Limits as Envoy 1.40 applies them.

use std::time::Duration;

use dhow_base::ResponseFlag;
use dhow_http::HeaderMap;
use dhow_proto::envoy::extensions::filters::http::local_ratelimit::v3::LocalRateLimit;
use dhow_proxy_api::{HeadersVerdict, HttpFilterFactory};
use dhow_stats::Store;

use super::bucket::{Draw, TokenBucket};
use crate::fixtures::{Stream, configure, lines, request, routes, stat, summary};

const ALWAYS: &str = "{default_value: {numerator: 100}}";

fn limit(more: &str) -> String {
    format!(
        "{{stat_prefix: p, token_bucket: {{max_tokens: 2, fill_interval: 1000s}}, filter_enabled: {ALWAYS}{more}}}"
    )
}

fn counts(store: &Store, prefix: &str) -> [Option<u64>; 4] {
    ["enabled", "enforced", "ok", "rate_limited"]
        .map(|name| stat(store, &format!("{prefix}.http_local_rate_limit.{name}")))
}

/// Verdict, request and response headers of one request.
fn run(factory: &dyn HttpFilterFactory) -> (HeadersVerdict, Vec<String>, Vec<String>) {
    let mut head = request("/", &[]);
    let mut response = HeaderMap::new();
    let mut stream = Stream::new(1);
    let mut filter = stream.create(factory).expect("something to do");
    let verdict = stream.decode(&mut *filter, &mut head);
    stream.encode(&mut *filter, &head, &mut response);
    (verdict, lines(&head)[4..].to_vec(), lines(&response))
}

#[test]
fn requests_over_the_limit_are_refused_as_envoy_refuses_them() {
    let store = Store::new();
    let yaml = limit(&format!(
        ", filter_enforced: {ALWAYS}, enable_x_ratelimit_headers: DRAFT_VERSION_03, enable_retry_after_header: true, \
         response_headers_to_add: [{{header: {{key: x-limited, value: 'yes'}}}}]"
    ));
    let factory = configure::<LocalRateLimit>(&yaml, &store).unwrap();
    let tells = |remaining, reset| {
        [
            "x-ratelimit-limit: 2".to_owned(),
            format!("x-ratelimit-remaining: {remaining}"),
            format!("x-ratelimit-reset: {reset}"),
        ]
    };
    let (verdict, _, response) = run(&*factory);
    assert_eq!((summary(&verdict).as_str(), response), ("continue", tells(1, 0).to_vec()));
    let (verdict, _, response) = run(&*factory);
    assert_eq!((summary(&verdict).as_str(), response), ("continue", tells(0, 1000).to_vec()));
    let (verdict, _, response) = run(&*factory);
    let HeadersVerdict::LocalReply(reply) = verdict else { panic!("{} over the limit", summary(&verdict)) };
    assert_eq!((reply.status, &*reply.body, reply.grpc_status), (429, &b"local_rate_limited"[..], Some(14)));
    assert_eq!(reply.details, "local_rate_limited");
    assert!(reply.flags.contains(ResponseFlag::RateLimited));
    let refusal = ["x-limited: yes".to_owned(), "retry-after: 1000".to_owned()];
    assert_eq!(response, [&refusal[..], &tells(0, 1000)].concat());
    assert_eq!(counts(&store, "p"), [Some(3), Some(1), Some(2), Some(1)]);
}

#[test]
fn status_and_grpc_status_can_be_chosen() {
    let refusal = |more: &str| {
        let yaml = limit(&format!(", filter_enforced: {ALWAYS}{more}"));
        let factory = configure::<LocalRateLimit>(&yaml, &Store::new()).unwrap();
        let [_, _, last] = [(); 3].map(|()| run(&*factory).0);
        let HeadersVerdict::LocalReply(reply) = last else { panic!("not refused") };
        (reply.status, reply.grpc_status)
    };
    assert_eq!(refusal(", status: {code: 503}"), (503, Some(14)));
    assert_eq!(refusal(", status: {code: 200}"), (429, Some(14)));
    assert_eq!(refusal(", rate_limited_as_resource_exhausted: true"), (429, Some(8)));
}

#[test]
fn without_enforcement_requests_are_counted_and_marked() {
    let store = Store::new();
    let yaml = limit(", request_headers_to_add_when_not_enforced: [{header: {key: x-over, value: 'yes'}}]");
    let factory = configure::<LocalRateLimit>(&yaml, &store).unwrap();
    let marks: Vec<_> =
        (0..3).map(|_| run(&*factory)).map(|(verdict, head, _)| (summary(&verdict), head)).collect();
    assert!(marks.iter().all(|(verdict, _)| verdict == "continue"));
    assert_eq!(marks.iter().map(|(_, head)| head.len()).collect::<Vec<_>>(), [0, 0, 1]);
    assert_eq!(marks[2].1, ["x-over: yes"]);
    assert_eq!(counts(&store, "p"), [Some(3), Some(0), Some(2), Some(1)]);
}

#[test]
fn a_filter_that_is_not_enabled_does_nothing() {
    let yaml = "{stat_prefix: p, token_bucket: {max_tokens: 1, fill_interval: 1s}}";
    let store = Store::new();
    let factory = configure::<LocalRateLimit>(yaml, &store).unwrap();
    assert!(Stream::new(1).create(&*factory).is_none());
    assert_eq!(counts(&store, "p"), [Some(0); 4]);
}

#[test]
fn a_route_has_its_own_bucket_and_stats() {
    let routes = routes(&format!(
        "virtual_hosts: [{{name: v, domains: ['*'], routes: [{{match: {{prefix: /}}, route: {{cluster: c}}, \
         typed_per_filter_config: {{filter: {{\
         '@type': type.googleapis.com/envoy.extensions.filters.http.local_ratelimit.v3.LocalRateLimit, \
         stat_prefix: r, token_bucket: {{max_tokens: 1, fill_interval: 1000s}}, \
         filter_enabled: {ALWAYS}, filter_enforced: {ALWAYS}}}}}}}]}}]"
    ));
    let store = Store::new();
    let factory = configure::<LocalRateLimit>("{stat_prefix: p}", &store).unwrap();
    let verdicts = [(); 2].map(|()| {
        let mut head = request("/", &[]);
        let mut stream = Stream::new(1).routed(&routes, &head);
        let mut filter = stream.create(&*factory).unwrap();
        summary(&stream.decode(&mut *filter, &mut head))
    });
    assert_eq!(verdicts, ["continue", "429 local_rate_limited"]);
    assert_eq!(counts(&store, "r"), [Some(2), Some(1), Some(1), Some(1)]);
    assert_eq!(counts(&store, "p"), [Some(0); 4]);
}

#[test]
fn a_bucket_fills_evenly_and_no_further_than_its_size() {
    let bucket = TokenBucket::new(2, 10, Duration::from_secs(1));
    let at = |millis| bucket.draw(Duration::from_millis(millis));
    let draw = |taken, remaining, reset_seconds| Draw { taken, limit: 2, remaining, reset_seconds };
    assert_eq!(at(0), draw(true, 1, 0));
    assert_eq!(at(0), draw(true, 0, 1));
    assert_eq!(at(50), draw(false, 0, 1));
    assert_eq!(at(100), draw(true, 0, 1));
    assert!(!at(199).taken);
    assert!(at(200).taken);
    // A long time fills it to two tokens.
    assert_eq!([at(9000), at(9000), at(9000)].map(|draw| draw.taken), [true, true, false]);
}

#[test]
fn workers_do_not_take_more_than_there_is() {
    let bucket = TokenBucket::new(1000, 1, Duration::from_secs(1_000_000));
    let taken: usize = std::thread::scope(|scope| {
        let draw = || (0..1000).filter(|_| bucket.draw(Duration::ZERO).taken).count();
        let threads = [(); 4].map(|()| scope.spawn(draw));
        threads.into_iter().map(|thread| thread.join().unwrap()).sum()
    });
    assert_eq!(taken, 1000);
}

#[test]
fn what_cannot_be_done_is_refused_by_path() {
    let error = |more: &str| configure::<LocalRateLimit>(&limit(more), &Store::new()).map(drop).unwrap_err();
    for field in ["local_rate_limit_per_downstream_connection: true", "stage: 1", "vh_rate_limits: IGNORE"] {
        let name = field.split(':').next().unwrap();
        assert_eq!(error(&format!(", {field}")).path.as_str(), format!("config.{name}"));
    }
    let short = "{stat_prefix: p, token_bucket: {max_tokens: 1, fill_interval: 0.049s}}";
    let error = configure::<LocalRateLimit>(short, &Store::new()).map(drop).unwrap_err();
    assert_eq!(error.path.as_str(), "config.token_bucket.fill_interval");
    assert_eq!(error.reason, "local rate limit token bucket fill timer must be >= 50ms");
}
