use dhow_base::ConfigError;
use envoy_types::pb::envoy::config::bootstrap::v3::Bootstrap;
use envoy_types::pb::validate::{FieldRules, field_rules::Type as Rule, string_rules::WellKnown};
use prost::Message;

use super::rules::show_duration;
use super::{CheckOptions, Deprecated, check_encoded};
use crate::load::{LoadOptions, load_yaml};
use crate::tables::{MessageType, RuleId, message_types};
use crate::wire::{put_bytes, put_uint};

fn refused(text: &str) -> ConfigError {
    match load_yaml::<Bootstrap>(text, &LoadOptions::default()) {
        Ok(_) => panic!("accepted: {text}"),
        Err(error) => error,
    }
}

fn warnings(text: &str) -> Vec<String> {
    let loaded =
        load_yaml::<Bootstrap>(text, &LoadOptions::default()).unwrap_or_else(|error| panic!("{error}"));
    loaded.warnings.iter().map(ToString::to_string).collect()
}

fn cluster(fields: &str) -> String {
    format!("static_resources: {{ clusters: [ {{ name: a, {fields} }} ] }}")
}

fn virtual_host(fields: &str) -> String {
    format!(
        r#"static_resources: {{ listeners: [ {{ name: a,
          address: {{ socket_address: {{ address: 127.0.0.1, port_value: 1 }} }},
          filter_chains: [ {{ filters: [ {{ name: x, typed_config: {{
            "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager,
            stat_prefix: a, route_config: {{ virtual_hosts: [ {{ {fields} }} ] }} }} }} ] }} ] }} ] }}"#
    )
}

/// Each text is what Envoy 1.40.0 prints for the same bootstrap, from the last class name on.
#[test]
fn broken_rules_are_told_in_the_words_of_envoy() {
    let static_resources =
        "BootstrapValidationError.StaticResources: embedded message failed validation | caused by ";
    for (fields, text, path) in [
        (
            "lb_policy: 77",
            "ClusterValidationError.LbPolicy: value must be one of the defined enum values",
            "lb_policy",
        ),
        (
            "connect_timeout: 0s",
            "ClusterValidationError.ConnectTimeout: value must be greater than 0s",
            "connect_timeout",
        ),
        (
            "dns_refresh_rate: 0.0005s",
            "ClusterValidationError.DnsRefreshRate: value must be greater than 1ms",
            "dns_refresh_rate",
        ),
        (
            "metadata: { filter_metadata: { \"\": {} } }",
            "MetadataValidationError.FilterMetadata[]: value length must be at least 1 characters",
            "metadata.filter_metadata[\"\"]",
        ),
        (
            "common_lb_config: { healthy_panic_threshold: { value: 101 } }",
            "PercentValidationError.Value: value must be inside range [0, 100]",
            "common_lb_config.healthy_panic_threshold.value",
        ),
        (
            "load_assignment: { cluster_name: a, endpoints: [ { load_balancing_weight: 0 } ] }",
            "LocalityLbEndpointsValidationError.LoadBalancingWeight: value must be greater than or equal to 1",
            "load_assignment.endpoints[0].load_balancing_weight",
        ),
    ] {
        let error = refused(&cluster(fields));
        assert!(error.reason.ends_with(&format!("{text})")), "{fields}: {error}");
        let prefix = format!(
            "Proto constraint validation failed ({static_resources}StaticResourcesValidationError.Clusters[0]: "
        );
        assert!(error.reason.starts_with(&prefix), "{error}");
        assert_eq!(error.path.as_str(), format!("static_resources.clusters[0].{path}"));
    }
    assert_eq!(
        refused("static_resources: { clusters: [ { name: \"\" } ] }").to_string(),
        "static_resources.clusters[0].name: Proto constraint validation failed (BootstrapValidationError.StaticResources: \
         embedded message failed validation | caused by StaticResourcesValidationError.Clusters[0]: embedded message \
         failed validation | caused by ClusterValidationError.Name: value length must be at least 1 characters)"
    );
    assert!(
        refused("stats_flush_interval: 0.0001s")
            .reason
            .contains("BootstrapValidationError.StatsFlushInterval: value must be inside range [1ms, 5m0s)")
    );
}

#[test]
fn a_oneof_that_must_be_set_is_named_with_its_alternatives() {
    let error = refused("static_resources: { listeners: [ { name: a, address: {} } ] }");
    assert!(
        error.reason.ends_with(
            "ListenerValidationError.Address: embedded message failed validation | caused by field: \"address\", reason: is required)"
        ),
        "{error}"
    );
    assert_eq!(error.path.as_str(), "static_resources.listeners[0].address");
    assert!(error.hint.as_deref().is_some_and(|hint| hint.contains("socket_address")), "{error}");
}

#[test]
fn rules_are_checked_inside_of_any_with_the_payload_as_root() {
    for (fields, text, path) in [
        ("name: a", "VirtualHostValidationError.Domains: value must contain at least 1 item(s)", "domains"),
        (
            "name: a, domains: [a], routes: [ { match: {}, redirect: {} } ]",
            "RouteValidationError.Match: embedded message failed validation | caused by field: \"path_specifier\", reason: is required",
            "routes[0].match",
        ),
        (
            "name: a, domains: [a], routes: [ { match: { prefix: / }, redirect: { response_code: 7 } } ]",
            "RedirectActionValidationError.ResponseCode: value must be one of the defined enum values",
            "routes[0].redirect.response_code",
        ),
        (
            "name: a, domains: [a], request_headers_to_add: [ { header: { key: \"a\\n\", value: b } } ]",
            r#"HeaderValueValidationError.Key: value does not match regex pattern "^[^\x00\n\r]*$""#,
            "request_headers_to_add[0].header.key",
        ),
        (
            "name: a, domains: [a], routes: [ { match: { path_separated_prefix: /a/ }, redirect: {} } ]",
            r#"RouteMatchValidationError.PathSeparatedPrefix: value does not match regex pattern "^[^?#]+[^?#/]$""#,
            "routes[0].match.path_separated_prefix",
        ),
    ] {
        let error = refused(&virtual_host(fields));
        let prefix = "Proto constraint validation failed (HttpConnectionManagerValidationError.RouteConfig: ";
        assert!(
            error.reason.starts_with(prefix) && error.reason.ends_with(&format!("{text})")),
            "{fields}: {error}"
        );
        let base = "static_resources.listeners[0].filter_chains[0].filters[0].typed_config.route_config.virtual_hosts[0]";
        assert_eq!(error.path.as_str(), format!("{base}.{path}"));
    }
}

#[test]
fn deprecated_fields_and_values_are_warned_about_with_their_path() {
    let texts = warnings(&virtual_host(
        "name: a, domains: [a], routes: [ { match: { prefix: /, headers: [ { name: a, exact_match: b } ] }, redirect: {} } ]",
    ));
    assert_eq!(texts.len(), 1, "{texts:?}");
    let path = "static_resources.listeners[0].filter_chains[0].filters[0].typed_config.route_config.virtual_hosts[0]\
                .routes[0].match.headers[0].exact_match: ";
    assert!(texts[0].starts_with(path), "{texts:?}");
    assert!(
        texts[0].contains(
            "Deprecated field: type envoy.config.route.v3.HeaderMatcher Using deprecated option \
             'envoy.config.route.v3.HeaderMatcher.exact_match' from file route_components.proto. This configuration \
             will be removed from Envoy soon."
        ),
        "{texts:?}"
    );
    let texts = warnings("dynamic_resources: { cds_config: { api_config_source: { cluster_names: [a] } } }");
    assert!(
        texts[0].contains(
            "Using the default now-deprecated value DEPRECATED_AND_UNAVAILABLE_DO_NOT_USE for enum \
            'envoy.config.core.v3.ApiConfigSource.api_type' from file config_source.proto."
        ),
        "{texts:?}"
    );
    let texts = warnings(
        "dynamic_resources: { cds_config: { api_config_source: { api_type: GRPC, transport_api_version: V2 } } }",
    );
    assert!(texts[0].contains("Using deprecated value V2 for enum"), "{texts:?}");
}

#[test]
fn fields_disallowed_by_default_need_the_override() {
    let text = virtual_host(
        "name: a, domains: [a], rate_limits: [ { actions: [ { dynamic_metadata: { descriptor_key: a, metadata_key: { key: a, path: [ { key: b } ] } } } ] } ]",
    );
    let error = refused(&text);
    assert!(
        error
            .reason
            .contains("Using deprecated option 'envoy.config.route.v3.RateLimit.Action.dynamic_metadata'")
    );
    assert!(error.path.as_str().ends_with("rate_limits[0].actions[0].dynamic_metadata"), "{error}");
    let options = LoadOptions { deprecated: Deprecated::Decided(|_, _| true), ..LoadOptions::default() };
    let loaded = load_yaml::<Bootstrap>(&text, &options).expect("allowed");
    assert_eq!(loaded.warnings.len(), 1);
}

#[test]
fn negative_and_overlong_durations_are_refused() {
    let error = refused(&cluster("connect_timeout: \"-1s\""));
    assert!(error.reason.starts_with("Invalid duration: Expected positive duration"), "{error}");
    assert_eq!(error.path.as_str(), "static_resources.clusters[0].connect_timeout");
    let error = refused(&cluster("connect_timeout: 315576000000s"));
    assert!(error.reason.starts_with("Invalid duration: Duration out-of-range"), "{error}");
}

#[test]
fn unknown_fields_of_an_encoded_message_are_warned_about_or_refused() {
    let cluster = MessageType::find("envoy.config.cluster.v3.Cluster").expect("known");
    let mut bytes = Vec::new();
    put_bytes(&mut bytes, 1, b"a");
    put_uint(&mut bytes, 9999, 1);
    let warnings = check_encoded(cluster, &bytes, &CheckOptions::default()).expect("accepted");
    assert_eq!(
        warnings[0].message,
        "Unknown field: type envoy.config.cluster.v3.Cluster with unknown field set {9999}"
    );
    let options = CheckOptions { reject_unknown_fields: true, ..CheckOptions::default() };
    let error = check_encoded(cluster, &bytes, &options).expect_err("refused");
    assert!(error.reason.ends_with("with unknown field set {9999}) has unknown fields"), "{error}");
}

#[test]
fn damaged_bytes_are_an_error_not_a_panic() {
    let cluster = MessageType::find("envoy.config.cluster.v3.Cluster").expect("known");
    for bytes in [&[0x0a][..], &[0x0a, 0x05, b'a'], &[0x22, 0x02, 0x08, 0xff], &[0xff; 12]] {
        assert!(check_encoded(cluster, bytes, &CheckOptions::default()).is_err(), "{bytes:?}");
    }
}

#[test]
fn every_rule_in_the_tables_is_understood() {
    let mut count = 0;
    for message in message_types() {
        for field in message.fields() {
            let Some(id) = field.rules() else { continue };
            count += 1;
            let rules = FieldRules::decode(id.encoded()).expect("decodes");
            let place = format!("{}.{}", message.full_name(), field.name());
            check_patterns(&rules, &place);
        }
    }
    assert!(count > 1000, "{count}");
    assert!(RuleId::count() > 100);
}

fn check_patterns(rules: &FieldRules, place: &str) {
    match &rules.r#type {
        Some(Rule::String(rules)) => {
            let uri = matches!(rules.well_known, Some(WellKnown::Uri(_) | WellKnown::UriRef(_)));
            assert!(!uri, "{place} wants a URI");
            if let Some(pattern) = &rules.pattern {
                assert!(super::compiled::matches(pattern, "").is_some(), "{place}: {pattern}");
            }
        }
        Some(Rule::Timestamp(rules)) => {
            assert!(rules.lt_now.is_none() && rules.gt_now.is_none() && rules.within.is_none(), "{place}");
        }
        Some(Rule::Repeated(rules)) => rules.items.iter().for_each(|rules| check_patterns(rules, place)),
        Some(Rule::Map(rules)) => {
            rules.keys.iter().chain(&rules.values).for_each(|rules| check_patterns(rules, place));
        }
        _ => {}
    }
}

#[test]
fn durations_in_rules_are_printed_as_go_prints_them() {
    for (parts, text) in [
        ((0, 0), "0s"),
        ((0, 1), "1ns"),
        ((0, 1_500), "1.5µs"),
        ((0, 1_000_000), "1ms"),
        ((2, 500_000_000), "2.5s"),
        ((10, 0), "10s"),
        ((300, 0), "5m0s"),
        ((3_600, 0), "1h0m0s"),
        ((-1, 0), "-1s"),
    ] {
        assert_eq!(show_duration(parts), text);
    }
}
