//! What the filter does to single streams.

use dhow_proto::envoy::extensions::filters::http::csrf::v3::CsrfPolicy;
use dhow_stats::Store;

use crate::fixtures::{Stream, configure, request, stat, summary};

#[test]
fn changing_requests_of_other_sites_are_refused() {
    let store = Store::new();
    let yaml =
        "{filter_enabled: {default_value: {numerator: 100}}, additional_origins: [{exact: friend.test}]}";
    let factory = configure::<CsrfPolicy>(yaml, &store).unwrap();
    let refused = "403 csrf_origin_mismatch";
    for (method, line, expected) in [
        ("GET", ("origin", "http://evil.test"), "continue"),
        ("POST", ("origin", "http://evil.test"), refused),
        ("PUT", ("origin", "http://a.test"), "continue"),
        ("DELETE", ("origin", "https://friend.test"), "continue"),
        ("PATCH", ("referer", "http://a.test/page"), "continue"),
        ("POST", ("origin", "null"), refused),
        ("POST", ("x-other", "1"), refused),
    ] {
        let mut stream = Stream::new(0);
        let mut filter = stream.create(&*factory).unwrap();
        let mut head = request("/", &[(":method", method), line]);
        assert_eq!(summary(&stream.decode(&mut *filter, &mut head)), expected, "{method} {line:?}");
    }
    assert_eq!(stat(&store, "http.test.csrf.missing_source_origin"), Some(2));
    assert_eq!(stat(&store, "http.test.csrf.request_invalid"), Some(1));
    assert_eq!(stat(&store, "http.test.csrf.request_valid"), Some(3));
}
