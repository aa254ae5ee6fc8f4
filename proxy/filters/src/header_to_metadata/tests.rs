//! What the filter does to single streams.

use dhow_proto::envoy::extensions::filters::http::header_to_metadata::v3::Config;
use dhow_proto::google::protobuf::value::Kind;
use dhow_stats::Store;

use crate::fixtures::{Stream, configure, lines, request};

#[test]
fn headers_and_cookies_become_metadata() {
    let yaml = "request_rules:
      - {header: x-n, on_header_present: {metadata_namespace: ns, key: 'n', type: NUMBER}, remove: true}
      - {header: x-t, on_header_missing: {metadata_namespace: ns, key: t, value: none}}
      - {cookie: s, on_header_present: {metadata_namespace: ns, key: s, encode: BASE64}}";
    let factory = configure::<Config>(yaml, &Store::new()).unwrap();
    let mut stream = Stream::new(0);
    let mut filter = stream.create(&*factory).unwrap();
    let mut head = request("/", &[("x-n", "1.5"), ("cookie", "a=b; s=aGk=")]);
    stream.decode(&mut *filter, &mut head);
    let fields = &stream.info.dynamic_metadata.get("ns").unwrap().fields;
    assert_eq!(fields["n"].kind, Some(Kind::NumberValue(1.5)));
    assert_eq!(fields["t"].kind, Some(Kind::StringValue("none".into())));
    assert_eq!(fields["s"].kind, Some(Kind::StringValue("hi".into())));
    assert!(!lines(&head).iter().any(|line| line.starts_with("x-n")));
}

#[test]
fn rules_that_make_no_sense_are_refused() {
    for rule in ["{}", "{header: a, cookie: b}", "{header: a}", "{header: a, on_header_missing: {key: k}}"] {
        assert!(configure::<Config>(&format!("request_rules: [{rule}]"), &Store::new()).is_err(), "{rule}");
    }
}
