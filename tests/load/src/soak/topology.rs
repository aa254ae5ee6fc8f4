//! The configuration of a soak run: which listeners, routes and clusters the traffic goes through.

use std::path::Path;

use serde_json::{Value, json};

const TYPES: &str = "type.googleapis.com/envoy.extensions";
const HTTP_OPTIONS: &str = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions";

/// Hosts of the cluster `moody`.
pub const MOODY_HOSTS: usize = 3;

/// Hosts that the cluster `eds` has at times.
pub const EDS_HOSTS: usize = 4;

/// Clusters with one HTTP host that always answers; each has an origin of its name.
pub const STEADY: [&str; 3] = ["steady", "two", "tls"];

/// The prefixes of paths whose requests reach an origin.
pub const PREFIXES: [&str; 12] = [
    "steady", "two", "tls", "late", "late-two", "retry", "moody", "hedge", "mirror", "narrow", "eds", "fault",
];

/// The stat prefixes of the HTTP listeners.
pub const HTTP_LISTENERS: [&str; 2] = ["plain", "secure"];

/// Where everything is.
pub struct Places<'a> {
    /// Admin interface.
    pub admin: u16,
    /// Plain HTTP listener.
    pub plain: u16,
    /// TLS listener.
    pub secure: u16,
    /// TCP listener.
    pub bytes: u16,
    /// Origins of [`STEADY`], in its order.
    pub steady: [u16; 3],
    /// Hosts of `moody`.
    pub moody: &'a [u16],
    /// The host that echoes bytes.
    pub echo: u16,
    /// A port where nobody listens.
    pub refused: u16,
    /// The folder of the run: certificates, access logs, the file of endpoints.
    pub dir: &'a Path,
}

/// The bootstrap.
pub fn bootstrap(places: &Places<'_>) -> Value {
    json!({
        "node": { "id": "soak", "cluster": "soak" },
        "admin": { "address": address(places.admin) },
        "static_resources": {
            "listeners": [http("plain", places.plain, places), http("secure", places.secure, places), tcp(places)],
            "clusters": clusters(places),
        },
    })
}

/// The endpoints of the cluster `eds` as a file to watch.
pub fn endpoints(version: u64, ports: &[u16]) -> Value {
    json!({ "version_info": version.to_string(), "resources": [{
        "@type": "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment",
        "cluster_name": "eds",
        "endpoints": [{ "lb_endpoints": hosts(ports) }],
    }] })
}

fn address(port: u16) -> Value {
    json!({ "socket_address": { "address": "127.0.0.1", "port_value": port } })
}

fn hosts(ports: &[u16]) -> Vec<Value> {
    ports.iter().map(|port| json!({ "endpoint": { "address": address(*port) } })).collect()
}

fn http(name: &str, port: u16, places: &Places<'_>) -> Value {
    let file = |name: &str| json!({ "filename": places.dir.join(name) });
    let mut chain = json!({ "filters": [{ "name": "hcm", "typed_config": hcm(name, places.dir) }] });
    if name == "secure" {
        chain["transport_socket"] = json!({ "name": "envoy.transport_sockets.tls", "typed_config": {
            "@type": format!("{TYPES}.transport_sockets.tls.v3.DownstreamTlsContext"),
            "common_tls_context": {
                "alpn_protocols": ["h2", "http/1.1"],
                "tls_certificates": [{ "certificate_chain": file("server.pem"), "private_key": file("server.key") }],
            },
        } });
    }
    json!({
        "name": name,
        "address": address(port),
        "per_connection_buffer_limit_bytes": 65536,
        "filter_chains": [chain],
    })
}

fn hcm(name: &str, dir: &Path) -> Value {
    let filter = |name: &str, message: &str, mut fields: Value| {
        fields["@type"] = format!("{TYPES}.filters.http.{message}").into();
        json!({ "name": format!("envoy.filters.http.{name}"), "typed_config": fields })
    };
    let percent = |percent: u32| json!({ "numerator": percent, "denominator": "HUNDRED" });
    let fault = json!({
        "headers": [{ "name": ":path", "string_match": { "prefix": "/fault/" } }],
        "delay": { "fixed_delay": "0.02s", "percentage": percent(50) },
        "abort": { "http_status": 418, "percentage": percent(30) },
    });
    json!({
        "@type": format!("{TYPES}.filters.network.http_connection_manager.v3.HttpConnectionManager"),
        "stat_prefix": name,
        "access_log": [{ "name": "file", "typed_config": {
            "@type": format!("{TYPES}.access_loggers.file.v3.FileAccessLog"),
            "path": dir.join(format!("{name}.log")),
            "log_format": { "text_format_source": {
                "inline_string": "%RESPONSE_CODE% %RESPONSE_FLAGS% %RESPONSE_CODE_DETAILS% %PROTOCOL%\n",
            } },
        } }],
        "route_config": { "name": "routes", "virtual_hosts": [{ "name": "all", "domains": ["*"], "routes": routes() }] },
        "http_filters": [filter("fault", "fault.v3.HTTPFault", fault), filter("router", "router.v3.Router", json!({}))],
        "common_http_protocol_options": {
            "idle_timeout": "1.5s", "max_connection_duration": "8s", "max_requests_per_connection": 150,
        },
        "http2_protocol_options": {
            "max_concurrent_streams": 40, "initial_stream_window_size": 65536, "initial_connection_window_size": 262_144,
        },
        "drain_timeout": "0.5s",
        "stream_idle_timeout": "5s",
        "request_headers_timeout": "1s",
        "generate_request_id": true,
    })
}

fn routes() -> Vec<Value> {
    let to = |prefix: &str, cluster: &str, mut action: Value| {
        action["cluster"] = cluster.into();
        json!({ "match": { "prefix": format!("/{prefix}/") }, "route": action })
    };
    let retry = json!({
        "retry_on": "5xx,reset,connect-failure,refused-stream",
        "num_retries": 3,
        "per_try_timeout": "0.3s",
        "retry_back_off": { "base_interval": "0.005s", "max_interval": "0.05s" },
    });
    vec![
        json!({ "match": { "path": "/direct" }, "direct_response": { "status": 200, "body": { "inline_string": "direct" } } }),
        json!({ "match": { "path": "/redirect" }, "redirect": { "path_redirect": "/direct" } }),
        to("steady", "steady", json!({ "timeout": "10s" })),
        to("two", "two", json!({ "timeout": "10s" })),
        to("tls", "tls", json!({ "timeout": "10s" })),
        to("late", "steady", json!({ "timeout": "0.3s" })),
        to("late-two", "two", json!({ "timeout": "0.3s" })),
        to("retry", "moody", json!({ "timeout": "1.5s", "retry_policy": retry })),
        to("moody", "moody", json!({ "timeout": "0.5s" })),
        to(
            "hedge",
            "moody",
            json!({
                "timeout": "1s",
                "hedge_policy": { "hedge_on_per_try_timeout": true },
                "retry_policy": { "retry_on": "5xx,reset", "num_retries": 1, "per_try_timeout": "0.05s" },
            }),
        ),
        to(
            "mirror",
            "steady",
            json!({ "timeout": "10s", "request_mirror_policies": [{ "cluster": "moody" }, { "cluster": "two" }] }),
        ),
        to("narrow", "narrow", json!({ "timeout": "10s" })),
        to("eds", "eds", json!({ "timeout": "10s", "retry_policy": { "retry_on": "connect-failure" } })),
        to("fault", "steady", json!({ "timeout": "10s" })),
        to("empty", "empty", json!({})),
        to("refused", "refused", json!({})),
    ]
}

fn tcp(places: &Places<'_>) -> Value {
    json!({
        "name": "bytes",
        "address": address(places.bytes),
        "filter_chains": [{ "filters": [{ "name": "tcp", "typed_config": {
            "@type": format!("{TYPES}.filters.network.tcp_proxy.v3.TcpProxy"),
            "stat_prefix": "bytes",
            "cluster": "echo",
            "idle_timeout": "1s",
        } }] }],
    })
}

/// The name of every cluster, for the rules about counters.
pub fn cluster_names() -> [&'static str; 9] {
    ["steady", "two", "tls", "narrow", "moody", "eds", "echo", "empty", "refused"]
}

fn clusters(places: &Places<'_>) -> Vec<Value> {
    let [steady, two, tls] = places.steady;
    let narrow = json!({ "circuit_breakers": { "thresholds": [{
        "max_connections": 1, "max_pending_requests": 1, "max_requests": 4, "max_retries": 1, "track_remaining": true,
    }] } });
    let moody = json!({
        "health_checks": [{
            "timeout": "0.2s", "interval": "0.5s", "unhealthy_threshold": 2, "healthy_threshold": 1,
            "reuse_connection": false, "http_health_check": { "path": "/health" },
        }],
        "outlier_detection": {
            "consecutive_5xx": 5, "interval": "0.5s", "base_ejection_time": "0.5s", "max_ejection_percent": 50,
        },
        "common_lb_config": { "healthy_panic_threshold": { "value": 30 } },
        "circuit_breakers": { "thresholds": [{ "max_retries": 20, "track_remaining": true }] },
    });
    let source = json!({ "resource_api_version": "V3", "path_config_source": { "path": places.dir.join("eds.json") } });
    let eds = json!({
        "type": "EDS", "load_assignment": null,
        "eds_cluster_config": { "eds_config": source, "service_name": "eds" },
    });
    let secured = json!({ "transport_socket": { "name": "envoy.transport_sockets.tls", "typed_config": {
        "@type": format!("{TYPES}.transport_sockets.tls.v3.UpstreamTlsContext"),
        "sni": "localhost",
        "common_tls_context": { "validation_context": { "trusted_ca": { "filename": places.dir.join("ca.pem") } } },
    } } });
    vec![
        cluster("steady", &[steady], false, json!({})),
        cluster("two", &[two], true, json!({})),
        cluster("tls", &[tls], false, secured),
        cluster("narrow", &[steady], false, narrow),
        cluster("moody", places.moody, false, moody),
        cluster("eds", &[], false, eds),
        cluster("echo", &[places.echo], false, json!({})),
        cluster("empty", &[], false, json!({})),
        cluster("refused", &[places.refused], false, json!({})),
    ]
}

fn cluster(name: &str, ports: &[u16], http2: bool, more: Value) -> Value {
    let mut options = json!({
        "@type": format!("type.googleapis.com/{HTTP_OPTIONS}"),
        // Idle connections go soon, so that descriptors and gauges return to where they were.
        "common_http_protocol_options": { "idle_timeout": "1s" },
    });
    options["explicit_http_config"] = match http2 {
        true => json!({ "http2_protocol_options": { "max_concurrent_streams": 20 } }),
        false => json!({ "http_protocol_options": {} }),
    };
    let mut cluster = json!({
        "name": name,
        "type": "STATIC",
        "connect_timeout": "0.5s",
        "per_connection_buffer_limit_bytes": 65536,
        "load_assignment": { "cluster_name": name, "endpoints": [{ "lb_endpoints": hosts(ports) }] },
        "typed_extension_protocol_options": { HTTP_OPTIONS: options },
    });
    if let (Value::Object(fields), Value::Object(more)) = (&mut cluster, more) {
        for (field, value) in more {
            match value {
                Value::Null => fields.shift_remove(&field),
                value => fields.insert(field, value),
            };
        }
    }
    cluster
}
