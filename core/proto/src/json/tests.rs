use serde_json::{Value as Json, json};

use super::{FieldNames, JsonReader, PrintOptions, Printer};
use crate::tables::MessageType;

fn message(name: &str) -> MessageType {
    MessageType::find(name).unwrap_or_else(|| panic!("{name} is not described"))
}

fn encode(name: &str, tree: &Json) -> Vec<u8> {
    JsonReader::new(message(name), false).read(tree).unwrap_or_else(|error| panic!("{error}")).bytes
}

fn refused(name: &str, tree: &Json) -> dhow_base::ConfigError {
    match JsonReader::new(message(name), false).read(tree) {
        Ok(_) => panic!("accepted: {tree}"),
        Err(error) => error,
    }
}

fn print(name: &str, bytes: &[u8], options: PrintOptions) -> Json {
    Printer::new(options).print(message(name), bytes).expect("well formed")
}

/// What comes back after encoding, with secrets in the clear.
fn round_trip(name: &str, tree: &Json) -> Json {
    print(name, &encode(name, tree), PrintOptions { redact: false, ..PrintOptions::default() })
}

const CLUSTER: &str = "envoy.config.cluster.v3.Cluster";
const ANY: &str = "google.protobuf.Any";

#[test]
fn every_wrapper_reads_what_it_wraps() {
    for (name, value, printed) in [
        ("DoubleValue", json!(1.5), json!(1.5)),
        ("DoubleValue", json!("1.5"), json!(1.5)),
        ("DoubleValue", json!("-Infinity"), json!("-Infinity")),
        ("DoubleValue", json!("NaN"), json!("NaN")),
        ("DoubleValue", json!(2), json!(2)),
        ("FloatValue", json!(0.1), json!(0.1)),
        ("Int64Value", json!(-9007199254740993i64), json!("-9007199254740993")),
        ("Int64Value", json!("-5"), json!("-5")),
        ("UInt64Value", json!("18446744073709551615"), json!("18446744073709551615")),
        ("Int32Value", json!(-7), json!(-7)),
        ("Int32Value", json!(7.0), json!(7)),
        ("Int32Value", json!("1e2"), json!(100)),
        ("UInt32Value", json!(4294967295u32), json!(4294967295u32)),
        ("BoolValue", json!(true), json!(true)),
        ("BoolValue", json!("false"), json!(false)),
        ("StringValue", json!("text"), json!("text")),
        ("BytesValue", json!("-_8="), json!("+/8=")),
        ("UInt32Value", json!(0), json!(0)),
        ("StringValue", json!(""), json!("")),
    ] {
        assert_eq!(round_trip(&format!("google.protobuf.{name}"), &value), printed, "{name} {value}");
    }
}

#[test]
fn wrong_values_are_refused_in_the_words_of_protobuf() {
    for (name, value, text) in [
        ("Int32Value", json!(2147483648u32), "integer out of range"),
        ("UInt32Value", json!(1e30), "JSON number out of range for int"),
        ("UInt32Value", json!(" 1"), "non-number characters in quoted number"),
        ("UInt32Value", json!(-1), "JSON number out of range for int"),
        ("UInt32Value", json!("1.5"), "expected integer, but JSON number had fractional part"),
        ("UInt32Value", json!("abc"), "invalid number: 'abc'"),
        ("UInt32Value", json!(true), "expected number or string"),
        ("BoolValue", json!(1), "expected 'true' or 'false'"),
        ("StringValue", json!(12), "unexpected character: '1'; expected '\"'"),
        ("BytesValue", json!("?"), "corrupt base64"),
        ("BoolValue", json!("on"), "expected 'true' or 'false'"),
        ("DoubleValue", json!("1.5x"), "non-number characters in quoted number"),
        ("Duration", json!(1), "unexpected character: '1'; expected '\"'"),
        ("Duration", json!("5m"), "duration must end with a single 's'"),
        ("Duration", json!("5 s"), "duration must end with a single 's'"),
        ("Duration", json!("5ss"), "duration must end with a single 's'"),
        ("Duration", json!("soon"), "duration must start with an integer"),
        ("Duration", json!(".5s"), "duration must start with an integer"),
        ("Duration", json!("-.5s"), "duration had bad seconds"),
        ("Duration", json!("1.s"), "duration had bad nanoseconds"),
        ("Duration", json!("1.0000000001s"), "duration had bad nanoseconds"),
        ("Duration", json!("315576000001s"), "duration out of range"),
        ("Timestamp", json!("today"), "invalid timestamp: 'today'"),
        ("Struct", json!([]), "unexpected character: '['; expected '{'"),
        ("ListValue", json!({}), "unexpected character: '{'; expected '['"),
    ] {
        let error = refused(&format!("google.protobuf.{name}"), &value);
        assert!(error.reason.contains(text), "{name} {value}: {error}");
    }
}

#[test]
fn a_wrong_value_is_told_with_the_kind_of_its_field() {
    for (message, value, text) in [
        (CLUSTER, json!({"track_timeout_budgets": 1}), "track_timeout_budgets: bool: expected"),
        (CLUSTER, json!({"name": 1}), "name: string: unexpected"),
        (
            CLUSTER,
            json!({"lb_policy": true}),
            "lb_policy: enum envoy.config.cluster.v3.Cluster.LbPolicy: expected",
        ),
        (
            CLUSTER,
            json!({"health_checks": "x"}),
            "@ health_checks: message envoy.config.core.v3.HealthCheck: unexpected",
        ),
        (
            CLUSTER,
            json!({"health_checks": ["x"]}),
            "@ health_checks[0]: message envoy.config.core.v3.HealthCheck: unexpected",
        ),
    ] {
        let error = refused(message, &value);
        assert!(error.reason.contains(text), "{value}: {error}");
    }
}

#[test]
fn what_is_in_quotes_is_read_leniently() {
    for (name, value, meant) in [
        ("BoolValue", json!("yes"), json!(true)),
        ("BoolValue", json!("F"), json!(false)),
        ("UInt32Value", json!("0x1f"), json!(31)),
        ("UInt32Value", json!("+1"), json!(1)),
        ("UInt32Value", json!("1.0"), json!(1)),
        ("DoubleValue", json!(".5"), json!(0.5)),
    ] {
        assert_eq!(round_trip(&format!("google.protobuf.{name}"), &value), meant, "{name} {value}");
    }
}

#[test]
fn lists_in_lists_are_one_list_and_null_is_an_empty_element() {
    let table = "envoy.config.route.v3.RouteConfiguration";
    assert_eq!(
        round_trip(table, &json!({"request_headers_to_remove": ["a", [["b"], []], null]})),
        json!({"request_headers_to_remove": ["a", "b", ""]})
    );
    assert_eq!(
        round_trip(table, &json!({"virtual_hosts": [[{"name": "a"}], []]})),
        json!({"virtual_hosts": [{"name": "a"}]})
    );
    let refused = refused(table, &json!({"virtual_hosts": [[{"name": "a"}], "x"]}));
    assert_eq!(refused.path.as_str(), "virtual_hosts[1]");
}

#[test]
fn well_known_types_have_their_own_form() {
    for (name, value) in [
        ("Duration", json!("0.250s")),
        ("Timestamp", json!("2026-11-21T09:00:00.500Z")),
        ("FieldMask", json!("fooBar,baz.quxQuux")),
        ("Struct", json!({"a": null, "b": [1, "x", true, {"c": 1.5}], "d": {}})),
        ("ListValue", json!([[], {}, null])),
        ("Value", json!(null)),
        ("Empty", json!({})),
    ] {
        assert_eq!(round_trip(&format!("google.protobuf.{name}"), &value), value, "{name}");
    }
    assert_eq!(encode("google.protobuf.FieldMask", &json!("fooBar")), b"\x0a\x07foo_bar");
}

#[test]
fn both_spellings_mean_the_same_field() {
    let snake = encode(CLUSTER, &json!({"name": "a", "connect_timeout": "1s", "lb_policy": "RANDOM"}));
    let camel = encode(CLUSTER, &json!({"name": "a", "connectTimeout": "1s", "lbPolicy": "RANDOM"}));
    assert_eq!(snake, camel);
    let options = PrintOptions { names: FieldNames::LowerCamel, ..PrintOptions::default() };
    assert_eq!(
        print(CLUSTER, &snake, options),
        json!({"name": "a", "connectTimeout": "1s", "lbPolicy": "RANDOM"})
    );
}

#[test]
fn enums_are_read_by_name_by_number_and_in_lower_case() {
    for value in [json!("RANDOM"), json!("random"), json!(3), json!("3")] {
        assert_eq!(
            round_trip(CLUSTER, &json!({"lb_policy": value})),
            json!({"lb_policy": "RANDOM"}),
            "{value}"
        );
    }
    assert_eq!(round_trip(CLUSTER, &json!({"lb_policy": 77})), json!({"lb_policy": 77}));
    let error = refused(CLUSTER, &json!({"lb_policy": "RANDM"}));
    assert_eq!(
        error.reason,
        "Protobuf message (type envoy.config.cluster.v3.Cluster reason INVALID_ARGUMENT: unknown enum value: 'RANDM') has unknown fields"
    );
    assert_eq!(error.path.as_str(), "lb_policy");
    assert_eq!(error.hint.as_deref(), Some("did you mean 'RANDOM'?"));
}

#[test]
fn zero_is_kept_where_it_differs_from_absent() {
    // A member of a oneof, a wrapper, an ordinary field.
    let port = json!({"address": "a", "port_value": 0});
    assert_eq!(round_trip("envoy.config.core.v3.SocketAddress", &port), port);
    let limit = json!({"per_connection_buffer_limit_bytes": 0});
    assert_eq!(round_trip(CLUSTER, &limit), limit);
    assert_eq!(round_trip(CLUSTER, &json!({"lb_policy": "ROUND_ROBIN", "name": ""})), json!({}));
}

#[test]
fn null_leaves_a_field_unset() {
    assert!(
        encode(CLUSTER, &json!({"name": null, "connect_timeout": null, "health_checks": null})).is_empty()
    );
    let metadata = json!({"filter_metadata": {"m": {"k": null}}});
    assert_eq!(round_trip("envoy.config.core.v3.Metadata", &metadata), metadata);
}

#[test]
fn a_single_value_is_a_list_of_one() {
    let single = encode(
        "envoy.config.bootstrap.v3.Bootstrap",
        &json!({"static_resources": {"clusters": {"name": "a"}}}),
    );
    let list = encode(
        "envoy.config.bootstrap.v3.Bootstrap",
        &json!({"static_resources": {"clusters": [{"name": "a"}]}}),
    );
    assert_eq!(single, list);
}

#[test]
fn packed_numbers_and_maps_round_trip() {
    let ranges = json!({"retriable_status_codes": [500, 503]});
    assert_eq!(round_trip("envoy.config.route.v3.RetryPolicy", &ranges), ranges);
    // field 7, packed: one tag, one length, two varints
    assert_eq!(encode("envoy.config.route.v3.RetryPolicy", &ranges), [0x3a, 4, 0xf4, 3, 0xf7, 3]);
    let map = json!({"typed_filter_metadata": {"a": {"@type": "type.googleapis.com/google.protobuf.Duration", "value": "1s"}}});
    assert_eq!(round_trip("envoy.config.core.v3.Metadata", &map), map);
}

#[test]
fn any_carries_known_types_in_their_json_form() {
    for tree in [
        json!({"@type": "type.googleapis.com/envoy.config.core.v3.SocketAddress", "address": "a", "port_value": 1}),
        json!({"@type": "type.googleapis.com/google.protobuf.Struct", "value": {"a": 1}}),
        json!({"@type": "type.googleapis.com/google.protobuf.UInt32Value", "value": 5}),
        json!({"@type": "type.googleapis.com/google.protobuf.Empty"}),
        json!({"@type": "type.googleapis.com/google.protobuf.Any",
               "value": {"@type": "type.googleapis.com/envoy.config.core.v3.SocketAddress", "address": "a"}}),
        json!({}),
    ] {
        assert_eq!(round_trip(ANY, &tree), tree);
    }
    let printed = round_trip(
        ANY,
        &json!({"address": "a", "@type": "type.googleapis.com/envoy.config.core.v3.SocketAddress"}),
    );
    let first = printed.as_object().and_then(|object| object.keys().next().cloned());
    assert_eq!(first.as_deref(), Some("@type"), "the type comes first");
}

#[test]
fn any_of_an_unknown_type_is_refused_and_printed_encoded() {
    let error = refused(ANY, &json!({"@type": "type.googleapis.com/nope.X"}));
    assert_eq!(
        error.reason,
        "Unable to parse JSON as proto (INVALID_ARGUMENT: could not find @type 'type.googleapis.com/nope.X')"
    );
    assert!(refused(ANY, &json!({"a": 1})).reason.contains("missing @type in Any"));
    let mut bytes = Vec::new();
    crate::wire::put_bytes(&mut bytes, 1, b"type.googleapis.com/nope.X");
    crate::wire::put_bytes(&mut bytes, 2, b"foo");
    assert_eq!(
        print(ANY, &bytes, PrintOptions::default()),
        json!({"@type": "type.googleapis.com/nope.X", "value": "Zm9v"})
    );
}

#[test]
fn fields_are_encoded_by_number_whatever_their_order_in_the_text() {
    let route = |text: &str| {
        let tree: Json = serde_json::from_str(text).expect("JSON");
        encode("envoy.config.route.v3.Route", &tree)
    };
    let ordered =
        route(r#"{"match": {"prefix": "/"}, "route": {"cluster": "c", "timeout": "1s"}, "name": "n"}"#);
    let other =
        route(r#"{"name": "n", "route": {"timeout": "1s", "cluster": "c"}, "match": {"prefix": "/"}}"#);
    assert_eq!(other, ordered);
    let numbers: Vec<u32> =
        crate::wire::Fields::new(&ordered).map(|field| field.expect("well formed").0).collect();
    assert_eq!(numbers, [1, 2, 14]);
}

#[test]
fn an_unknown_field_is_named_with_path_type_and_suggestion() {
    let tree = json!({"static_resources": {"clusters": [{"name": "a"}, {"nmae": "b"}]}});
    let error = refused("envoy.config.bootstrap.v3.Bootstrap", &tree);
    assert_eq!(error.path.as_str(), "static_resources.clusters[1].nmae");
    assert_eq!(
        error.reason,
        "Protobuf message (type envoy.config.bootstrap.v3.Bootstrap reason INVALID_ARGUMENT: invalid JSON in \
         envoy.config.bootstrap.v3.Bootstrap @ static_resources.clusters[1]: message envoy.config.cluster.v3.Cluster: \
         no such field: 'nmae') has unknown fields"
    );
    assert_eq!(error.hint.as_deref(), Some("did you mean 'name'?"));
    let inside = json!({"typed_config": {"@type": "type.googleapis.com/envoy.config.core.v3.SocketAddress", "prt": 1}});
    let error = refused("envoy.config.core.v3.TransportSocket", &inside);
    assert_eq!(error.path.as_str(), "typed_config.prt");
}

#[test]
fn unknown_fields_and_enum_names_can_be_allowed() {
    let tree = json!({"name": "a", "foo": 1, "lb_policy": "NOPE", "outlier_detection": {"bar": {}}});
    let outcome = JsonReader::new(message(CLUSTER), true).read(&tree).expect("allowed");
    let paths: Vec<_> = outcome.warnings.iter().map(|warning| warning.path.as_str()).collect();
    assert_eq!(paths, ["foo", "lb_policy", "outlier_detection.bar"]);
    assert!(
        outcome.warnings[0].message.starts_with("Unknown field: type envoy.config.cluster.v3.Cluster reason")
    );
    assert_eq!(
        print(CLUSTER, &outcome.bytes, PrintOptions::default()),
        json!({"name": "a", "outlier_detection": {}})
    );
}

#[test]
fn two_members_of_a_oneof_exclude_each_other() {
    let error = refused(CLUSTER, &json!({"name": "a", "type": "STATIC", "cluster_type": {"name": "x"}}));
    assert!(
        error.reason.contains("'cluster_type' has already been set (either directly or as part of a oneof)"),
        "{error}"
    );
    assert_eq!(error.path.as_str(), "cluster_type");
    assert_eq!(error.hint.as_deref(), Some("'type' and 'cluster_type' exclude each other"));
}

#[test]
fn a_truth_value_for_text_comes_with_the_advice_to_quote_it() {
    let error = refused(CLUSTER, &json!({"name": true}));
    assert!(error.hint.as_deref().is_some_and(|hint| hint.contains("quotes")), "{error}");
}

#[test]
fn nesting_is_limited() {
    let mut tree = json!(1);
    for _ in 0..200 {
        tree = json!({"@type": "type.googleapis.com/google.protobuf.Any", "value": tree});
    }
    assert!(refused(ANY, &tree).reason.contains("too deeply nested"));
}

#[test]
fn secrets_are_redacted_unless_asked_for() {
    let name = "envoy.extensions.transport_sockets.tls.v3.TlsCertificate";
    let tree = json!({
        "certificate_chain": {"inline_string": "public"},
        "private_key": {"inline_string": "secret"},
        "password": {"inline_bytes": "c2VjcmV0"}
    });
    let bytes = encode(name, &tree);
    assert_eq!(
        print(name, &bytes, PrintOptions::default()),
        json!({
            "certificate_chain": {"inline_string": "public"},
            "private_key": {"inline_string": "[redacted]"},
            "password": {"inline_bytes": "W3JlZGFjdGVkXQ=="}
        })
    );
    assert_eq!(print(name, &bytes, PrintOptions { redact: false, ..PrintOptions::default() }), tree);
}

#[test]
fn optional_fields_and_several_occurrences_follow_protobuf() {
    // Two occurrences of a message field merge; of a scalar, the last counts.
    let mut bytes = encode(CLUSTER, &json!({"name": "a", "common_lb_config": {"update_merge_window": "1s"}}));
    bytes.extend(encode(
        CLUSTER,
        &json!({"name": "b", "common_lb_config": {"close_connections_on_host_set_change": true}}),
    ));
    assert_eq!(
        print(CLUSTER, &bytes, PrintOptions::default()),
        json!({"name": "b", "common_lb_config": {"update_merge_window": "1s", "close_connections_on_host_set_change": true}})
    );
}

#[test]
fn durations_and_wrappers_may_be_written_as_messages() {
    let cluster = "envoy.config.cluster.v3.Cluster";
    let short = json!({ "connect_timeout": "5.5s", "per_connection_buffer_limit_bytes": 7 });
    let long = json!({
        "connect_timeout": { "seconds": "5", "nanos": 500_000_000 },
        "per_connection_buffer_limit_bytes": { "value": 7 },
    });
    assert_eq!(encode(cluster, &short), encode(cluster, &long));
    let error = refused(cluster, &json!({ "connect_timeout": { "seconds": 5, "foo": 1 } }));
    assert!(error.to_string().contains("no such field: 'foo'"), "{error}");
}
