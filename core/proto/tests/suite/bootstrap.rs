//! Loading a bootstrap the ways in which Envoy can be given one.

use dhow_proto::envoy::config::bootstrap::v3::Bootstrap;
use dhow_proto::envoy::config::cluster::v3::cluster::ClusterDiscoveryType;
use dhow_proto::envoy::extensions::filters::network::http_connection_manager::v3::HttpConnectionManager;
use dhow_proto::{Format, LoadOptions, Message, any, load, load_json, load_yaml, message_to_json};
use serde_json::json;

pub(crate) const TUTORIAL: &str = r#"
admin:
  address:
    socket_address: { address: 127.0.0.1, port_value: 9901 }
static_resources:
  listeners:
    - name: listener_0
      address:
        socket_address: { address: 0.0.0.0, port_value: 10000 }
      filter_chains:
        - filters:
            - name: envoy.filters.network.http_connection_manager
              typed_config:
                "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
                stat_prefix: ingress_http
                codec_type: AUTO
                route_config:
                  name: local_route
                  virtual_hosts:
                    - name: local_service
                      domains: ["*"]
                      routes:
                        - match: { prefix: "/" }
                          route: { cluster: some_service }
                http_filters:
                  - name: envoy.filters.http.router
  clusters:
    - name: some_service
      connect_timeout: 0.25s
      type: LOGICAL_DNS
      lb_policy: ROUND_ROBIN
      load_assignment:
        cluster_name: some_service
        endpoints:
          - lb_endpoints:
              - endpoint:
                  address:
                    socket_address: { address: simple, port_value: 80 }
"#;

fn tutorial() -> Bootstrap {
    load_yaml(TUTORIAL, &LoadOptions::default()).unwrap_or_else(|error| panic!("{error}")).message
}

#[test]
fn the_configuration_of_the_courses_loads() {
    let loaded = load_yaml::<Bootstrap>(TUTORIAL, &LoadOptions::default()).expect("valid");
    assert!(loaded.warnings.is_empty(), "{:?}", loaded.warnings);
    let resources = loaded.message.static_resources.expect("set");
    let cluster = &resources.clusters[0];
    assert_eq!(cluster.connect_timeout.as_ref().map(|timeout| timeout.nanos), Some(250_000_000));
    assert_eq!(cluster.cluster_discovery_type, Some(ClusterDiscoveryType::Type(2)));
    let filter = &resources.listeners[0].filter_chains[0].filters[0];
    let Some(dhow_proto::envoy::config::listener::v3::filter::ConfigType::TypedConfig(config)) =
        &filter.config_type
    else {
        panic!("the filter has a configuration")
    };
    let manager: HttpConnectionManager = any::unpack(config).expect("the type fits");
    assert_eq!(manager.stat_prefix, "ingress_http");
    assert_eq!(manager.http_filters[0].name, "envoy.filters.http.router");
}

#[test]
fn every_form_gives_the_same_message() {
    let message = tutorial();
    let json = message_to_json(&message).to_string();
    assert_eq!(load_json::<Bootstrap>(&json, &LoadOptions::default()).expect("valid").message, message);
    let binary = message.encode_to_vec();
    let loaded = load::<Bootstrap>(&[(Format::Binary, &binary)], &LoadOptions::default()).expect("valid");
    assert_eq!(loaded.message, message);
    let text = br#"node { id: "a" } static_resources { clusters { name: "b" } }"#;
    let loaded = load::<Bootstrap>(&[(Format::Text, text)], &LoadOptions::default()).expect("valid");
    assert_eq!(
        message_to_json(&loaded.message),
        json!({"node": {"id": "a"}, "static_resources": {"clusters": [{"name": "b"}]}})
    );
}

#[test]
fn a_second_source_is_merged_over_the_first() {
    let over = "node: { id: id-1 }\nadmin: { address: { socket_address: { address: 127.0.0.2 } } }\n\
                static_resources: { clusters: [ { name: another } ] }";
    let sources = [(Format::Yaml, TUTORIAL.as_bytes()), (Format::Yaml, over.as_bytes())];
    let merged =
        message_to_json(&load::<Bootstrap>(&sources, &LoadOptions::default()).expect("valid").message);
    assert_eq!(merged["node"], json!({"id": "id-1"}));
    assert_eq!(
        merged["admin"]["address"]["socket_address"],
        json!({"address": "127.0.0.2", "port_value": 9901}),
        "messages merge field by field"
    );
    let names: Vec<_> = merged["static_resources"]["clusters"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|c| &c["name"])
        .collect();
    assert_eq!(names, ["some_service", "another"], "repeated fields append");
}

#[test]
fn file_names_tell_the_form() {
    for (name, format) in [
        ("envoy.yaml", Some(Format::Yaml)),
        ("a/b.c/envoy.yml", Some(Format::Yaml)),
        ("envoy.json", Some(Format::Json)),
        ("envoy.pb", Some(Format::Binary)),
        ("envoy.pb_text", Some(Format::Text)),
        ("envoy.txt", None),
        ("envoy", None),
    ] {
        assert_eq!(Format::of_file_name(name), format, "{name}");
    }
}

#[test]
fn what_cannot_be_read_is_one_clear_error() {
    for (text, part) in [
        ("", "Unable to convert YAML as JSON"),
        ("just text", "Unable to convert YAML as JSON: just text"),
        ("a: [1, 2", "line"),
        ("- a", "unexpected character: '['; expected '{'"),
        ("static_resources: 5", "unexpected character: '5'; expected '{'"),
        ("node: { id: 12 }", "unexpected character: '1'; expected '\"'"),
        ("node: { id: yes }", "unexpected character: 't'; expected '\"'"),
    ] {
        let error = load_yaml::<Bootstrap>(text, &LoadOptions::default()).expect_err(text);
        assert!(error.to_string().contains(part), "{text}: {error}");
    }
    assert!(load_json::<Bootstrap>("{", &LoadOptions::default()).is_err());
    assert!(load::<Bootstrap>(&[(Format::Binary, &[0xff])], &LoadOptions::default()).is_err());
    assert!(load::<Bootstrap>(&[(Format::Yaml, &[0xff])], &LoadOptions::default()).is_err());
}

#[test]
fn yaml_scalars_reach_fields_of_their_type() {
    let text = "static_resources: { clusters: [ { name: a, per_connection_buffer_limit_bytes: 0x400, \
                ignore_health_on_host_removal: on, common_lb_config: { healthy_panic_threshold: { value: 12.5 } }, \
                maglev_lb_config: { table_size: 65537 }, lb_policy: MAGLEV } ] }";
    let message = load_yaml::<Bootstrap>(text, &LoadOptions::default())
        .unwrap_or_else(|error| panic!("{error}"))
        .message;
    let cluster = &message_to_json(&message)["static_resources"]["clusters"][0];
    assert_eq!(cluster["per_connection_buffer_limit_bytes"], json!(1024));
    assert_eq!(cluster["ignore_health_on_host_removal"], json!(true));
    assert_eq!(cluster["common_lb_config"]["healthy_panic_threshold"]["value"], json!(12.5));
    assert_eq!(cluster["maglev_lb_config"]["table_size"], json!("65537"));
}
