//! What the filter does to single streams.

use dhow_proto::envoy::extensions::filters::http::set_metadata::v3::Config;
use dhow_stats::Store;

use crate::fixtures::{Stream, configure, request, routes_in, stat};

#[test]
fn values_are_overwritten_only_where_that_is_allowed() {
    let store = Store::new();
    let yaml = "metadata: [{metadata_namespace: a, value: {x: 1}}, {metadata_namespace: a, value: {y: 2}}, \
                {metadata_namespace: a, value: {z: 3}, allow_overwrite: true}]";
    let factory = configure::<Config>(yaml, &store).unwrap();
    let mut stream = Stream::new(0);
    let mut filter = stream.create(&*factory).unwrap();
    stream.decode(&mut *filter, &mut request("/", &[]));
    let fields = &stream.info.dynamic_metadata.get("a").unwrap().fields;
    assert!(fields.contains_key("x") && !fields.contains_key("y") && fields.contains_key("z"));
    assert_eq!(stat(&store, "http.test.set_metadata.overwrite_denied"), Some(1));
}

#[test]
fn a_route_comes_after_the_filter_and_is_counted_apart() {
    let store = Store::new();
    let routes = routes_in(
        "virtual_hosts: [{name: v, domains: ['*'], routes: [{match: {prefix: /}, route: {cluster: c}, \
         typed_per_filter_config: {filter: {'@type': \
         type.googleapis.com/envoy.extensions.filters.http.set_metadata.v3.Config, metadata: \
         [{metadata_namespace: a, value: {x: 2}, allow_overwrite: true}, {metadata_namespace: a, value: {z: 3}}]}}}]}]",
        &store,
    );
    let yaml = "metadata: [{metadata_namespace: a, value: {x: 1, y: 1}}]";
    let factory = configure::<Config>(yaml, &store).unwrap();
    let mut head = request("/", &[]);
    let mut stream = Stream::new(0).routed(&routes, &head);
    let mut filter = stream.create(&*factory).unwrap();
    stream.decode(&mut *filter, &mut head);
    let fields = &stream.info.dynamic_metadata.get("a").unwrap().fields;
    let number = |name: &str| fields.get(name).and_then(|value| value.kind.clone());
    assert!(number("x") != number("y") && number("y").is_some() && number("z").is_none());
    assert_eq!(stat(&store, "set_metadata.overwrite_denied"), Some(1));
    assert_eq!(stat(&store, "http.test.set_metadata.overwrite_denied"), Some(0));
}

#[test]
fn messages_are_kept_apart_from_fields() {
    let store = Store::new();
    let typed = |seconds: u32, more: &str| {
        format!(
            "{{metadata_namespace: a, typed_value: {{'@type': type.googleapis.com/google.protobuf.Duration, \
             value: {seconds}s}}{more}}}"
        )
    };
    let entries = [typed(1, ""), typed(2, ""), "{metadata_namespace: a, value: {x: 1}}".to_owned()];
    let yaml = format!("metadata: [{}]", entries.join(", "));
    let factory = configure::<Config>(&yaml, &store).unwrap();
    let mut stream = Stream::new(0);
    let mut filter = stream.create(&*factory).unwrap();
    stream.decode(&mut *filter, &mut request("/", &[]));
    assert_eq!(stream.info.dynamic_metadata.typed("a").unwrap().value, [8, 1]);
    assert!(stream.info.dynamic_metadata.get("a").unwrap().fields.contains_key("x"));
    assert_eq!(stat(&store, "http.test.set_metadata.overwrite_denied"), Some(1));

    let store = Store::new();
    let yaml = format!("metadata: [{}, {}]", typed(1, ""), typed(2, ", allow_overwrite: true"));
    let factory = configure::<Config>(&yaml, &store).unwrap();
    let mut filter = stream.create(&*factory).unwrap();
    stream.decode(&mut *filter, &mut request("/", &[]));
    assert_eq!(stream.info.dynamic_metadata.typed("a").unwrap().value, [8, 2]);
}
