//! Trees as Envoy 1.40 evaluates them.

use std::net::SocketAddr;

use dhow_base::{ConfigError, FieldPath};
use dhow_http::HeaderMap;
use dhow_proto::load_yaml;

use super::{InputFamily, MatchData, MatchOptions, MatchTree, Verdict};
use crate::pb::protobuf::{Struct, Value, value::Kind};
use crate::pb::xds::r#type::matcher::v3::Matcher;

const HEADER: &str = "{name: i, typed_config: {'@type': type.googleapis.com/envoy.type.matcher.v3.HttpRequestHeaderMatchInput, header_name: x}}";

fn compile_as(
    yaml: &str,
    inputs: InputFamily,
    keep_matching: bool,
) -> Result<MatchTree<String>, ConfigError> {
    let network = "type.googleapis.com/envoy.extensions.matching.common_inputs.network.v3.";
    let yaml = yaml.replace("HEADER", HEADER).replace("NETWORK.", network);
    let message: Matcher =
        load_yaml(&yaml, &Default::default()).unwrap_or_else(|e| panic!("{e}\n{yaml}")).message;
    let mut options = MatchOptions {
        inputs,
        admit: &|_| Ok(()),
        keep_matching,
        expressions: None,
        action: &mut |action, _| Ok(action.name.clone()),
    };
    MatchTree::compile(&message, &FieldPath::root(), &mut options)
}

fn compile(yaml: &str) -> MatchTree<String> {
    compile_as(yaml, InputFamily::Http, true).unwrap()
}

/// `{action: {name: ...}}` in the short form of these tests.
fn to(name: &str) -> String {
    format!(
        "{{action: {{name: {name}, typed_config: {{'@type': type.googleapis.com/google.protobuf.Struct}}}}}}"
    )
}

fn x(values: &[&str]) -> HeaderMap {
    let mut map = HeaderMap::new();
    map.append(b":path", b"/p?q=a%20b&r");
    values.iter().for_each(|value| map.append(b"x", value.as_bytes()));
    map
}

fn name(tree: &MatchTree<String>, data: &dyn MatchData) -> String {
    match tree.evaluate(data) {
        Verdict::Matched(action) => action.clone(),
        Verdict::NoMatch => "-".to_owned(),
        Verdict::Insufficient => "?".to_owned(),
    }
}

#[test]
fn a_list_takes_the_first_that_matches_and_falls_back() {
    let single = |text: &str| format!("{{single_predicate: {{input: HEADER, value_match: {text}}}}}");
    let tree = compile(&format!(
        "matcher_list: {{matchers: [{{predicate: {}, on_match: {}}}, {{predicate: {{and_matcher: {{predicate: [{}, {{not_matcher: {}}}]}}}}, \
         on_match: {}}}, {{predicate: {{or_matcher: {{predicate: [{}, {}]}}}}, on_match: {}}}]}}\non_no_match: {}",
        single("{exact: a}"),
        to("exact"),
        single("{prefix: b}"),
        single("{suffix: z}"),
        to("and-not"),
        single("{contains: c}"),
        single("{safe_regex: {google_re2: {}, regex: 'd+'}}"),
        to("or"),
        to("none"),
    ));
    for (values, expected) in [
        (&["a"][..], "exact"),
        (&["bx"], "and-not"),
        (&["bz"], "none"),
        (&["bcz"], "or"),
        (&["ddd"], "or"),
        (&[], "none"),
        // Several values are one text.
        (&["a", "c"], "or"),
    ] {
        assert_eq!(name(&tree, &x(values)), expected, "{values:?}");
    }
}

#[test]
fn a_nested_tree_without_a_match_lets_the_search_go_on() {
    let inner = |key: &str, action: &str| {
        let query = "{name: q, typed_config: {'@type': type.googleapis.com/envoy.type.matcher.v3.HttpRequestQueryParamMatchInput, query_param: q}}";
        format!(
            "{{matcher: {{matcher_tree: {{input: {query}, exact_match_map: {{map: {{'{key}': {}}}}}}}}}}}",
            to(action)
        )
    };
    let tree = |key: &str| {
        compile(&format!(
            "matcher_tree: {{input: HEADER, prefix_match_map: {{map: {{/a: {}, /a/b: {}}}}}}}\non_no_match: {}",
            to("short"),
            inner(key, "long"),
            to("none"),
        ))
    };
    assert_eq!(name(&tree("a b"), &x(&["/a/b/c"])), "long");
    assert_eq!(name(&tree("other"), &x(&["/a/b/c"])), "short");
    assert_eq!(name(&tree("a b"), &x(&["/b"])), "none");
    assert_eq!(name(&tree("a b"), &x(&[])), "none");
}

#[test]
fn an_action_that_keeps_matching_is_noted_and_passed_over() {
    let tree = compile(&format!(
        "matcher_tree: {{input: HEADER, exact_match_map: {{map: {{a: {{keep_matching: true, {}}}}}}}\non_no_match: {}",
        &to("kept")[1..],
        to("none"),
    ));
    let mut kept = Vec::new();
    let data = x(&["a"]);
    let verdict = tree.evaluate_all(&data, &mut |action| kept.push(action.clone()));
    assert_eq!((verdict, kept), (Verdict::Matched(&"none".to_owned()), vec!["kept".to_owned()]));
    let error = compile_as(
        &format!(
            "matcher_tree: {{input: HEADER, exact_match_map: {{map: {{a: {{keep_matching: true, {}}}}}}}",
            &to("kept")[1..]
        ),
        InputFamily::Http,
        false,
    );
    let error = error.unwrap_err().to_string();
    assert!(error.ends_with("keep_matching: keep_matching is not supported in this context"), "{error}");
}

#[test]
fn what_is_not_there_yet_leaves_the_tree_undecided() {
    struct Streams(HeaderMap, Option<HeaderMap>);
    impl MatchData for Streams {
        fn request_headers(&self) -> Option<&HeaderMap> {
            Some(&self.0)
        }
        fn response_headers(&self) -> Option<&HeaderMap> {
            self.1.as_ref()
        }
    }
    let class = "{name: s, typed_config: {'@type': type.googleapis.com/envoy.type.matcher.v3.HttpResponseStatusCodeClassMatchInput}}";
    let tree = compile(&format!(
        "matcher_list: {{matchers: [{{predicate: {{or_matcher: {{predicate: [{{single_predicate: {{input: {class}, value_match: {{exact: 5xx}}}}}}, \
         {{single_predicate: {{input: HEADER, value_match: {{exact: a}}}}}}]}}}}, on_match: {}}}]}}",
        to("hit"),
    ));
    let mut response = HeaderMap::new();
    response.set_status(503);
    assert_eq!(name(&tree, &Streams(x(&["a"]), None)), "hit");
    assert_eq!(name(&tree, &Streams(x(&["b"]), None)), "?");
    assert_eq!(name(&tree, &Streams(x(&["b"]), Some(response.clone()))), "hit");
    response.set_status(404);
    assert_eq!(name(&tree, &Streams(x(&["b"]), Some(response))), "-");
}

struct Peer {
    source: SocketAddr,
    server_name: &'static str,
    metadata: Struct,
}

impl MatchData for Peer {
    fn source(&self) -> Option<SocketAddr> {
        Some(self.source)
    }
    fn destination(&self) -> Option<SocketAddr> {
        Some(([192, 0, 2, 1], 443).into())
    }
    fn server_name(&self) -> Option<&str> {
        Some(self.server_name)
    }
    fn application_protocols(&self, each: &mut dyn FnMut(&[u8])) {
        each(b"h2");
        each(b"http/1.1");
    }
    fn dynamic_metadata(&self, namespace: &str) -> Option<&Struct> {
        (namespace == "ns").then_some(&self.metadata)
    }
}

fn peer(source: &str, server_name: &'static str) -> Peer {
    let value = Value { kind: Some(Kind::StringValue("gold".to_owned())) };
    let inner = Struct { fields: [("tier".to_owned(), value)].into() };
    let outer = Value { kind: Some(Kind::StructValue(inner)) };
    Peer {
        source: format!("{source}:1000").parse().unwrap(),
        server_name,
        metadata: Struct { fields: [("user".to_owned(), outer)].into() },
    }
}

#[test]
fn addresses_go_by_the_longest_prefix_and_exclusive_ones_only_by_it() {
    let ranges = |list: &str, more: &str, action: &str| {
        let list: Vec<String> = list
            .split(' ')
            .map(|range| {
                let (ip, length) = range.split_once('/').unwrap();
                format!("{{address_prefix: '{ip}', prefix_len: {length}}}")
            })
            .collect();
        format!("{{ranges: [{}]{more}, on_match: {action}}}", list.join(", "))
    };
    let never = format!(
        "{{matcher: {{matcher_tree: {{input: {{name: sni, typed_config: {{'@type': NETWORK.ServerNameInput}}}}, exact_match_map: {{map: {{never: {}}}}}}}}}}}",
        to("never")
    );
    let tree = |middle_is_exclusive: bool| {
        let more = if middle_is_exclusive { ", exclusive: true" } else { "" };
        let yaml = format!(
            "matcher_tree: {{input: {{name: s, typed_config: {{'@type': NETWORK.SourceIPInput}}}}, custom_match: {{name: ip, typed_config: \
             {{'@type': type.googleapis.com/xds.type.matcher.v3.IPMatcher, range_matchers: [{}, {}, {}]}}}}}}\non_no_match: {}",
            ranges("10.0.0.0/8 ::/0", "", &to("wide")),
            ranges("10.1.0.0/16", more, &to("middle")),
            ranges("10.1.1.0/24", "", &never),
            to("none"),
        );
        compile_as(&yaml, InputFamily::Network, false).unwrap()
    };
    for (address, open, exclusive) in [
        ("10.2.0.1", "wide", "wide"),
        ("10.1.2.1", "middle", "middle"),
        ("10.1.1.1", "middle", "wide"),
        ("11.0.0.1", "none", "none"),
        ("[::1]", "wide", "wide"),
    ] {
        assert_eq!(name(&tree(false), &peer(address, "")), open, "{address}");
        assert_eq!(name(&tree(true), &peer(address, "")), exclusive, "{address}");
    }
}

#[test]
fn domains_go_from_exact_to_the_longest_suffix_to_any() {
    let matcher = |domains: &str| {
        let yaml = format!(
            "matcher_tree: {{input: {{name: s, typed_config: {{'@type': NETWORK.ServerNameInput}}}}, custom_match: {{name: d, typed_config: \
             {{'@type': type.googleapis.com/xds.type.matcher.v3.ServerNameMatcher, domain_matchers: [{domains}]}}}}}}\non_no_match: {}",
            to("none"),
        );
        compile_as(&yaml, InputFamily::Network, false)
    };
    let one = |domain: &str, action: &str| format!("{{domains: ['{domain}'], on_match: {}}}", to(action));
    let tree = matcher(
        &[one("a.b.c", "exact"), one("*.c", "short"), one("*.b.c", "long"), one("*", "any")].join(", "),
    )
    .unwrap();
    for (host, expected) in
        [("a.b.c", "exact"), ("x.b.c", "long"), ("b.c", "short"), (".c", "any"), ("q", "any"), ("", "none")]
    {
        assert_eq!(name(&tree, &peer("1.1.1.1", host)), expected, "{host}");
    }
    for (list, reason) in [
        (
            one("a*.b", "a"),
            "Invalid wildcard domain format: a*.b. Only '*' and '*.domain' patterns are supported",
        ),
        ([one("*.b", "a"), one("*.b", "b")].join(", "), "Duplicate domain in ServerNameMatcher: *.b"),
    ] {
        assert_eq!(matcher(&list).unwrap_err().reason, reason);
    }
}

#[test]
fn other_inputs_and_matchers() {
    let list = |input: &str, rule: &str| {
        let yaml = format!(
            "matcher_list: {{matchers: [{{predicate: {{single_predicate: {{input: {input}, {rule}}}}}, on_match: {}}}]}}",
            to("hit")
        );
        compile_as(&yaml, InputFamily::Network, false)
    };
    let input = |kind: &str| format!("{{name: i, typed_config: {{'@type': NETWORK.{kind}}}}}");
    let custom = |kind: &str| {
        let prefix = "type.googleapis.com/envoy.extensions.matching.input_matchers";
        format!("custom_match: {{name: c, typed_config: {{'@type': {prefix}.{kind}}}}}")
    };
    let tier = input("DynamicMetadataInput, filter: ns, path: [{key: user}, {key: tier}]");
    let client = peer("10.0.0.1", "a.b");
    for (input, rule, expected) in [
        (input("DestinationPortInput"), "value_match: {exact: '443'}".to_owned(), "hit"),
        (input("SourcePortInput"), "value_match: {exact: '1'}".to_owned(), "-"),
        (input("SourceTypeInput"), "value_match: {exact: local}".to_owned(), "-"),
        (input("ApplicationProtocolInput"), "value_match: {exact: \"'h2','http/1.1'\"}".to_owned(), "hit"),
        (
            input("SourceIPInput"),
            custom("ip.v3.Ip, stat_prefix: p, cidr_ranges: [{address_prefix: 10.0.0.0, prefix_len: 8}]"),
            "hit",
        ),
        (
            input("ServerNameInput"),
            custom("ip.v3.Ip, stat_prefix: p, cidr_ranges: [{address_prefix: 0.0.0.0, prefix_len: 0}]"),
            "-",
        ),
        (
            input("ServerNameInput"),
            custom("consistent_hashing.v3.ConsistentHashing, threshold: 0, modulo: 10"),
            "hit",
        ),
        (
            input("ServerNameInput"),
            custom("runtime_fraction.v3.RuntimeFraction, runtime_fraction: {default_value: {numerator: 0}}"),
            "-",
        ),
        (tier.clone(), custom("metadata.v3.Metadata, value: {string_match: {exact: gold}}"), "hit"),
        (
            tier.clone(),
            custom("metadata.v3.Metadata, invert: true, value: {string_match: {exact: gold}}"),
            "-",
        ),
    ] {
        assert_eq!(name(&list(&input, &rule).unwrap(), &client), expected, "{input} {rule}");
    }
    for (input, rule, reason) in [
        (
            tier,
            "value_match: {exact: a}".to_owned(),
            "Unsupported data input type: the input does not give a string",
        ),
        (
            HEADER.to_owned(),
            "value_match: {exact: a}".to_owned(),
            "Didn't find a registered implementation for 'i' with type URL: 'envoy.type.matcher.v3.HttpRequestHeaderMatchInput'",
        ),
        (
            input("SourceIPInput"),
            custom("consistent_hashing.v3.ConsistentHashing, threshold: 11, modulo: 10"),
            "threshold cannot be greater than modulo: 11 > 10",
        ),
    ] {
        assert_eq!(list(&input, &rule).unwrap_err().reason, reason);
    }
}
