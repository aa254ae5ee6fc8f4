//! The bootstrap that a scenario's short forms stand for.

use serde_json::{Map, Value, json};

use crate::ads::AdsSpec;
use crate::scenario::{HttpListener, Protocol, Scenario};

const HCM: &str =
    "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager";
const ROUTER: &str = "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router";
const DOWNSTREAM_TLS: &str =
    "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext";
const UPSTREAM_TLS: &str = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext";
const FILE_LOG: &str = "type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog";
const HTTP_OPTIONS: &str = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions";

/// The bootstrap with its placeholders still in it.
pub fn bootstrap(scenario: &Scenario) -> Value {
    let mut listeners: Vec<Value> = scenario.http.iter().map(http_listener).collect();
    listeners.extend(scenario.listeners.iter().cloned());
    let mut bootstrap = json!({
        "admin": { "address": socket_address("{{port.admin}}") },
        "static_resources": { "listeners": listeners, "clusters": clusters(scenario) },
    });
    if let Some(ads) = &scenario.ads {
        bootstrap["dynamic_resources"] = dynamic_resources(ads);
    }
    merge(&mut bootstrap, &scenario.bootstrap);
    bootstrap
}

fn http_listener(http: &HttpListener) -> Value {
    let all =
        json!([{ "name": "all", "domains": ["*"], "routes": http.routes.clone().unwrap_or(json!([])) }]);
    let mut route_config =
        json!({ "name": "routes", "virtual_hosts": http.virtual_hosts.clone().unwrap_or(all) });
    merge(&mut route_config, &http.route_config);
    let mut hcm = json!({
        "@type": HCM,
        "stat_prefix": "ingress",
        "route_config": route_config,
        "http_filters": [{ "name": "envoy.filters.http.router", "typed_config": { "@type": ROUTER } }],
    });
    if http.access_log {
        hcm["access_log"] =
            json!([{ "name": "file", "typed_config": { "@type": FILE_LOG, "path": "{{dir}}/access.log" } }]);
    }
    merge(&mut hcm, &http.hcm);
    let mut chain = json!({ "filters": [{ "name": "envoy.filters.network.http_connection_manager", "typed_config": hcm }] });
    if http.tls || http.require_client_cert {
        chain["transport_socket"] = downstream_tls(http.require_client_cert);
    }
    let mut listener =
        json!({ "name": "http", "address": socket_address("{{port.http}}"), "filter_chains": [chain] });
    merge(&mut listener, &http.listener);
    listener
}

fn downstream_tls(require_client_cert: bool) -> Value {
    let mut context = json!({ "@type": DOWNSTREAM_TLS, "common_tls_context": {
        "alpn_protocols": ["h2", "http/1.1"],
        "tls_certificates": [{
            "certificate_chain": { "filename": "{{cert.server}}" },
            "private_key": { "filename": "{{key.server}}" },
        }],
    } });
    if require_client_cert {
        context["require_client_certificate"] = json!(true);
        context["common_tls_context"]["validation_context"] =
            json!({ "trusted_ca": { "filename": "{{cert.ca}}" } });
    }
    json!({ "name": "envoy.transport_sockets.tls", "typed_config": context })
}

fn clusters(scenario: &Scenario) -> Vec<Value> {
    let mut clusters: Map<String, Value> =
        scenario.upstreams.iter().map(|(name, spec)| (name.clone(), cluster(name, spec.protocol))).collect();
    if scenario.ads.is_some() {
        let mut ads = cluster("ads", Protocol::H2c);
        ads["load_assignment"]["endpoints"][0]["lb_endpoints"][0]["endpoint"]["address"] =
            socket_address("{{port.ads}}");
        clusters.insert("ads".to_owned(), ads);
    }
    for (name, patch) in &scenario.clusters {
        if patch.is_null() {
            clusters.shift_remove(name);
        } else {
            let entry = clusters.entry(name.clone()).or_insert_with(|| json!({ "name": name }));
            merge(entry, patch);
        }
    }
    clusters.into_iter().map(|(_, cluster)| cluster).collect()
}

fn cluster(name: &str, protocol: Protocol) -> Value {
    let port = format!("{{{{upstream.{name}}}}}");
    let mut cluster = json!({
        "name": name,
        "type": "STATIC",
        "connect_timeout": "2s",
        "load_assignment": {
            "cluster_name": name,
            "endpoints": [{ "lb_endpoints": [{ "endpoint": { "address": socket_address(&port) } }] }],
        },
    });
    if protocol.is_http2() {
        cluster["typed_extension_protocol_options"] = json!({ HTTP_OPTIONS: {
            "@type": format!("type.googleapis.com/{HTTP_OPTIONS}"),
            "explicit_http_config": { "http2_protocol_options": {} },
        } });
    }
    if protocol.is_tls() {
        let alpn = if protocol.is_http2() { json!(["h2"]) } else { json!(["http/1.1"]) };
        cluster["transport_socket"] = json!({
            "name": "envoy.transport_sockets.tls",
            "typed_config": { "@type": UPSTREAM_TLS, "sni": "localhost", "common_tls_context": {
                "alpn_protocols": alpn,
                "validation_context": { "trusted_ca": { "filename": "{{cert.ca}}" } },
            } },
        });
    }
    cluster
}

/// Listeners and clusters from the management server, over one aggregated stream.
fn dynamic_resources(ads: &AdsSpec) -> Value {
    let source = json!({ "resource_api_version": "V3", "ads": {} });
    json!({
        "ads_config": {
            "api_type": if ads.sotw { "GRPC" } else { "DELTA_GRPC" },
            "transport_api_version": "V3",
            "grpc_services": [{ "envoy_grpc": { "cluster_name": "ads" } }],
        },
        "cds_config": source,
        "lds_config": source,
    })
}

fn socket_address(port: &str) -> Value {
    json!({ "socket_address": { "address": "127.0.0.1", "port_value": port } })
}

/// Lays `patch` over `target`: mappings are merged, `null` removes a field, everything else replaces it.
pub fn merge(target: &mut Value, patch: &Value) {
    match (target, patch) {
        (_, Value::Null) => {}
        (Value::Object(target), Value::Object(patch)) => {
            for (key, value) in patch {
                if value.is_null() {
                    target.shift_remove(key);
                } else {
                    merge(target.entry(key.clone()).or_insert(Value::Null), value);
                }
            }
        }
        (target, patch) => *target = patch.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn merging_reaches_into_mappings_replaces_lists_and_removes_nulls() {
        let mut target = json!({ "a": { "b": 1, "c": 2 }, "l": [1, 2], "gone": true });
        merge(&mut target, &json!({ "a": { "c": 3, "d": { "e": 4 } }, "l": [9], "gone": null }));
        assert_eq!(target, json!({ "a": { "b": 1, "c": 3, "d": { "e": 4 } }, "l": [9] }));
        merge(&mut target, &Value::Null);
        assert_eq!(target["l"], json!([9]));
    }
}
