//! What the filter does to single streams.

use dhow_proto::envoy::extensions::filters::http::health_check::v3::HealthCheck;
use dhow_stats::Store;

use crate::fixtures::{Stream, configure, request, summary};

#[test]
fn checks_are_answered_and_other_requests_pass() {
    let yaml = "{pass_through_mode: false, headers: [{name: ':path', string_match: {exact: /health}}]}";
    let factory = configure::<HealthCheck>(yaml, &Store::new()).unwrap();
    for (path, expected) in [("/health", "200 health_check_ok"), ("/other", "continue")] {
        let mut stream = Stream::new(0);
        let mut filter = stream.create(&*factory).unwrap();
        assert_eq!(summary(&stream.decode(&mut *filter, &mut request(path, &[]))), expected);
        assert_eq!(stream.info.health_check, path == "/health");
    }
}

#[test]
fn clusters_that_are_missing_fail_the_check() {
    let yaml = "{pass_through_mode: false, cluster_min_healthy_percentages: {c: {value: 0}}}";
    let factory = configure::<HealthCheck>(yaml, &Store::new()).unwrap();
    let mut stream = Stream::new(0);
    let mut filter = stream.create(&*factory).unwrap();
    let verdict = stream.decode(&mut *filter, &mut request("/", &[]));
    assert_eq!(summary(&verdict), "503 health_check_failed_no_cluster_found");
}

#[test]
fn a_cache_is_for_checks_that_pass() {
    let error = configure::<HealthCheck>("{pass_through_mode: false, cache_time: 1s}", &Store::new());
    assert_eq!(error.unwrap_err().path.as_str(), "config.cache_time");
}
