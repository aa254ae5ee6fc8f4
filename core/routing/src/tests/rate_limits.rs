//! Descriptors of requests.

use dhow_expr::{Address, AddressFact, FormatContext, MetadataSource};

use super::from_yaml::routes;
use super::*;
use crate::pb::protobuf::{Struct, Value, value::Kind};
use crate::{RateLimitInput, RateLimitUnit, XRateLimitHeaders};

struct Client(Struct);

impl FormatContext for Client {
    fn address(&self, fact: AddressFact) -> Option<Address<'_>> {
        (fact == AddressFact::DownstreamRemote).then(|| Address::Ip(([10, 1, 2, 3], 9).into()))
    }
    fn metadata(&self, source: MetadataSource, namespace: &str) -> Option<&Struct> {
        (source == MetadataSource::Dynamic && namespace == "ns").then_some(&self.0)
    }
}

fn text(value: &str) -> Value {
    Value { kind: Some(Kind::StringValue(value.to_owned())) }
}

/// The descriptor of a request for `/p?q=v` with `x: 1`, as text.
fn descriptor(rule: &str) -> String {
    let table =
        routes(&format!("[{{match: {{prefix: /}}, route: {{cluster: c, rate_limits: [{rule}]}}}}]")).unwrap();
    let headers = request("h", "/p?q=v", &[("x", "1")]);
    let route = selected(&table, &headers);
    let limit = Struct {
        fields: [
            ("requests_per_unit".to_owned(), Value { kind: Some(Kind::NumberValue(7.0)) }),
            ("unit".to_owned(), text("HOUR")),
        ]
        .into(),
    };
    let fields =
        [("k".to_owned(), text("meta")), ("l".to_owned(), Value { kind: Some(Kind::StructValue(limit)) })];
    let input = RateLimitInput {
        headers: &headers,
        data: &headers,
        context: &Client(Struct { fields: fields.into() }),
        source_cluster: "me",
        destination_cluster: "them",
        route_metadata: None,
        cluster_metadata: &|_| None,
    };
    let Some(descriptor) = route.forward().unwrap().rate_limits[0].descriptor(&input) else {
        return "-".to_owned();
    };
    let entries: Vec<String> =
        descriptor.entries.iter().map(|(key, value)| format!("{key}={value}")).collect();
    let hits = descriptor.hits_addend.map_or(String::new(), |hits| format!(" +{hits}"));
    let limit = descriptor
        .limit
        .map_or(String::new(), |RateLimitUnit { requests, unit }| format!(" {requests}/{unit}"));
    format!("{}{hits}{limit}", entries.join(","))
}

#[test]
fn each_action_gives_an_entry_or_none() {
    let actions = |actions: &str| descriptor(&format!("{{actions: [{actions}]}}"));
    let path = "metadata_key: {key: ns, path: [{key: k}]}";
    for (action, expected) in [
        ("{source_cluster: {}}, {destination_cluster: {}}", "source_cluster=me,destination_cluster=them"),
        ("{request_headers: {header_name: x, descriptor_key: d}}", "d=1"),
        ("{request_headers: {header_name: z, descriptor_key: d}}", "-"),
        (
            "{remote_address: {}}, {request_headers: {header_name: z, descriptor_key: d, skip_if_absent: true}}",
            "remote_address=10.1.2.3",
        ),
        ("{query_parameters: {query_parameter_name: q, descriptor_key: d}}", "d=v"),
        ("{masked_remote_address: {v4_prefix_mask_len: 16}}", "masked_remote_address=10.1.0.0/16"),
        (
            "{generic_key: {descriptor_value: a}}, {generic_key: {descriptor_key: k, descriptor_value: '%FOO%'}}",
            "generic_key=a,k=%FOO%",
        ),
        (
            "{header_value_match: {descriptor_value: a, headers: [{name: x, string_match: {exact: '1'}}]}}",
            "header_match=a",
        ),
        (
            "{header_value_match: {descriptor_value: a, expect_match: false, headers: [{name: x, string_match: {exact: '1'}}]}}",
            "-",
        ),
        (
            "{query_parameter_value_match: {descriptor_value: a, query_parameters: [{name: q, string_match: {exact: v}}]}}",
            "query_match=a",
        ),
        (
            "{remote_address_match: {descriptor_value: a, address_matcher: {ranges: [{address_prefix: 10.0.0.0, prefix_len: 8}]}}}",
            "remote_address_match=a",
        ),
    ] {
        assert_eq!(actions(action), expected, "{action}");
    }
    let header = "{extension: {name: e, typed_config: {'@type': \
        type.googleapis.com/envoy.type.matcher.v3.HttpRequestHeaderMatchInput, header_name: NAME}}}";
    assert_eq!(actions(&header.replace("NAME", "x")), "e=1");
    assert_eq!(actions(&header.replace("NAME", "z")), "-");
    let expression = "{extension: {name: e, typed_config: {'@type': \
        type.googleapis.com/envoy.extensions.rate_limit_descriptors.expr.v3.Descriptor, descriptor_key: d, text: TEXT}}}";
    assert_eq!(actions(&expression.replace("TEXT", "'1 + 2'")), "d=3");
    assert_eq!(actions(&expression.replace("TEXT", "request.nothing")), "-");
    let or_skipped = expression.replace("TEXT", "request.nothing, skip_if_error: true");
    assert_eq!(actions(&format!("{{remote_address: {{}}}}, {or_skipped}")), "remote_address=10.1.2.3");
    assert_eq!(actions(&format!("{{metadata: {{descriptor_key: d, {path}}}}}")), "d=meta");
    let missing =
        "{metadata: {descriptor_key: d, default_value: f, metadata_key: {key: none, path: [{key: k}]}}}";
    assert_eq!(actions(missing), "d=f");
}

#[test]
fn hits_and_limits_go_with_the_descriptor() {
    let address = "actions: [{remote_address: {}}]";
    assert_eq!(
        descriptor(&format!("{{{address}, hits_addend: {{number: 3}}}}")),
        "remote_address=10.1.2.3 +3"
    );
    assert_eq!(
        descriptor(&format!(
            "{{{address}, limit: {{dynamic_metadata: {{metadata_key: {{key: ns, path: [{{key: l}}]}}}}}}}}"
        )),
        "remote_address=10.1.2.3 7/HOUR"
    );
    // What is no number is a mistake of whoever made the request.
    assert_eq!(descriptor(&format!("{{{address}, hits_addend: {{format: '%PROTOCOL%'}}}}")), "-");
}

#[test]
fn rules_carry_their_stage_and_headers() {
    let table = routes(
        "[{match: {prefix: /}, route: {cluster: c, rate_limits: \
         [{stage: 2, disable_key: k, x_ratelimit_option: 'OFF', actions: [{remote_address: {}}]}]}}]",
    )
    .unwrap();
    let route = selected(&table, &request("h", "/", &[]));
    let rule = &route.forward().unwrap().rate_limits[0];
    assert_eq!((rule.stage(), rule.disable_key(), rule.headers()), (2, "k", XRateLimitHeaders::Off));
    assert!(!rule.apply_on_stream_done());
}
