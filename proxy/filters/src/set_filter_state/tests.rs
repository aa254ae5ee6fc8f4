//! What the filter does to single streams.

use dhow_proto::envoy::extensions::filters::http::set_filter_state::v3::Config;
use dhow_stats::Store;

use crate::fixtures::{Stream, configure, request};

fn object(key: &str, factory: &str, format: &str) -> String {
    format!(
        "{{object_key: {key}, factory_key: {factory}, format_string: {{text_format_source: \
         {{inline_string: '{format}'}}, omit_empty_values: true}}, skip_if_empty: true}}"
    )
}

#[test]
fn formatted_values_become_objects_of_their_kind() {
    let objects = [
        object("t", "envoy.string", "%REQ(x-a)%"),
        object("b", "envoy.bool", "true"),
        object("none", "envoy.string", "%REQ(x-none)%"),
        object("bad", "envoy.network.ip", "no address"),
    ];
    let yaml = format!("{{on_request_headers: [{}], clear_route_cache: true}}", objects.join(","));
    let factory = configure::<Config>(&yaml, &Store::new()).unwrap();
    let mut stream = Stream::new(0);
    let mut filter = stream.create(&*factory).unwrap();
    stream.decode(&mut *filter, &mut request("/", &[("x-a", "hello")]));
    let state = &stream.info.filter_state;
    assert_eq!(state.text("t").as_deref(), Some(&b"hello"[..]));
    assert_eq!(state.text("b").as_deref(), Some(&b"true"[..]));
    assert!(state.get("none").is_none() && state.get("bad").is_none());
    assert!(stream.control.reselect_route);
}

#[test]
fn unknown_factories_are_refused() {
    let yaml = format!("on_request_headers: [{}]", object("k", "no.such", "x"));
    let error = configure::<Config>(&yaml, &Store::new()).unwrap_err();
    assert!(error.reason.contains("'k' does not have an object factory"), "{error}");
}
