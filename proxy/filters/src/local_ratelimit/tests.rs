//! Limits as Envoy 1.40 applies them.

use std::time::Duration;

use dhow_base::ResponseFlag;
use dhow_http::{HeaderMap, HeaderName};
use dhow_proto::envoy::extensions::filters::http::local_ratelimit::v3::LocalRateLimit;
use dhow_proxy_api::{HeadersVerdict, HttpFilterFactory};
use dhow_routing::{RateLimitDescriptor, XRateLimitHeaders};
use dhow_stats::Store;

use super::bucket::{BucketSize, Level, TokenBucket};
use super::limiter::{DescriptorPlan, Limiter, LimiterPlan};
use crate::fixtures::{Stream, configure, lines, request, routes_in, stat, summary};

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
    assert_eq!((reply.status, &*reply.body, reply.grpc_status), (429, &b"local_rate_limited"[..], None));
    assert_eq!(reply.details, "local_rate_limited");
    assert!(reply.flags.contains(ResponseFlag::RateLimited));
    assert_eq!(reply.headers, [(HeaderName::new("x-limited"), b"yes".to_vec())]);
    assert_eq!(response, [&["retry-after: 1000".to_owned()][..], &tells(0, 1000)].concat());
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
    assert_eq!(refusal(", status: {code: 503}"), (503, None));
    assert_eq!(refusal(", status: {code: 200}"), (429, None));
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
    let store = Store::new();
    let yaml = format!(
        "virtual_hosts: [{{name: v, domains: ['*'], routes: [{{match: {{prefix: /}}, route: {{cluster: c}}, \
         typed_per_filter_config: {{filter: {{\
         '@type': type.googleapis.com/envoy.extensions.filters.http.local_ratelimit.v3.LocalRateLimit, \
         stat_prefix: r, token_bucket: {{max_tokens: 1, fill_interval: 1000s}}, \
         filter_enabled: {ALWAYS}, filter_enforced: {ALWAYS}}}}}}}]}}]"
    );
    let routes = routes_in(&yaml, &store);
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

fn bucket(max_tokens: u32, tokens_per_fill: u32, seconds: u64) -> TokenBucket {
    TokenBucket::new(BucketSize { max_tokens, tokens_per_fill, fill_interval: Duration::from_secs(seconds) })
}

#[test]
fn a_bucket_fills_evenly_and_no_further_than_its_size() {
    let bucket = bucket(2, 10, 1);
    let at = |millis| {
        let now = Duration::from_millis(millis);
        (bucket.take(1, now), bucket.level(now))
    };
    let level = |remaining, reset_seconds| Level { limit: 2, remaining, reset_seconds };
    assert_eq!(at(0), (true, level(1, 0)));
    assert_eq!(at(0), (true, level(0, 1)));
    assert_eq!(at(50), (false, level(0, 1)));
    assert_eq!(at(100), (true, level(0, 1)));
    assert!(!at(199).0);
    assert!(at(200).0);
    // A long time fills it to two tokens.
    assert_eq!([at(9000), at(9000), at(9000)].map(|(taken, _)| taken), [true, true, false]);
    assert!(!bucket.take(3, Duration::from_secs(90)) && bucket.take(2, Duration::from_secs(90)));
}

#[test]
fn workers_do_not_take_more_than_there_is() {
    let bucket = bucket(1000, 1, 1_000_000);
    let taken: usize = std::thread::scope(|scope| {
        let take = || (0..1000).filter(|_| bucket.take(1, Duration::ZERO)).count();
        let threads = [(); 4].map(|()| scope.spawn(take));
        threads.into_iter().map(|thread| thread.join().unwrap()).sum()
    });
    assert_eq!(taken, 1000);
}

fn descriptor(entries: &[(&str, &str)]) -> (RateLimitDescriptor, XRateLimitHeaders) {
    let entries = entries.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
    (RateLimitDescriptor { entries, ..Default::default() }, XRateLimitHeaders::Unspecified)
}

fn plan(descriptors: &[(&[(&str, &str)], u32)], always_default: bool) -> LimiterPlan {
    let size =
        |max_tokens| BucketSize { max_tokens, tokens_per_fill: 1, fill_interval: Duration::from_secs(3600) };
    let descriptors = descriptors.iter().map(|(entries, max)| DescriptorPlan {
        entries: descriptor(entries).0.entries,
        size: size(*max),
        shadow: false,
    });
    LimiterPlan { default: Some(size(2)), descriptors: descriptors.collect(), always_default, max_dynamic: 2 }
}

#[test]
fn descriptors_have_buckets_beside_the_default_one() {
    let a = [descriptor(&[("a", "1")])];
    let count = |limiter: &Limiter, of: &[_]| (0..9).filter(|_| limiter.take(of, 1).allowed).count();
    let with_default = Limiter::new(&plan(&[(&[("a", "1")], 5)], true));
    assert_eq!(count(&with_default, &a), 2);
    let without = Limiter::new(&plan(&[(&[("a", "1")], 5)], false));
    assert_eq!((count(&without, &a), count(&without, &[])), (5, 2));
    // One of several descriptors is enough to refuse.
    let both = Limiter::new(&plan(&[(&[("a", "1")], 5), (&[("b", "1")], 1)], false));
    assert_eq!(count(&both, &[descriptor(&[("a", "1")]), descriptor(&[("b", "1")])]), 1);
}

#[test]
fn wildcards_have_a_bucket_for_each_value_and_forget_the_oldest() {
    let limiter = Limiter::new(&plan(&[(&[("user", ""), ("k", "v")], 1)], false));
    let allowed = |user: &str| limiter.take(&[descriptor(&[("user", user), ("k", "v")])], 1).allowed;
    assert_eq!(["a", "a", "b", "b"].map(allowed), [true, false, true, false]);
    // The third value takes the place of the first one.
    assert_eq!(["c", "b", "a"].map(allowed), [true, false, true]);
    assert!(limiter.take(&[descriptor(&[("user", "a"), ("k", "w")])], 1).bucket.unwrap().level().limit == 2);
}

#[test]
fn what_cannot_be_done_is_refused_by_path() {
    let error = |more: &str| configure::<LocalRateLimit>(&limit(more), &Store::new()).map(drop).unwrap_err();
    assert_eq!(error(", local_cluster_rate_limit: {}").path.as_str(), "config.local_cluster_rate_limit");
    let action = "actions: [{generic_key: {descriptor_value: a}}]";
    let own = |more: &str| error(&format!(", rate_limits: [{{{action}, {more}}}]")).reason.to_string();
    assert_eq!(own("stage: 1"), "'stage' field and 'disable_key' field are not supported");
    let limit = own("limit: {rate_limit: {requests_per_unit: 1, unit: SECOND}}");
    assert_eq!(limit, "'limit' field is not supported");
    let one = "{entries: [{key: a, value: b}], token_bucket: {max_tokens: 1, fill_interval: 1s}}";
    let twice = error(&format!(", descriptors: [{one}, {one}]"));
    assert_eq!(twice.reason, "duplicate descriptor in the local rate descriptor: a=b");
    let short = "{stat_prefix: p, token_bucket: {max_tokens: 1, fill_interval: 0.049s}}";
    let error = configure::<LocalRateLimit>(short, &Store::new()).map(drop).unwrap_err();
    assert_eq!(error.path.as_str(), "config.token_bucket.fill_interval");
    assert_eq!(error.reason, "local rate limit token bucket fill timer must be >= 50ms");
}
