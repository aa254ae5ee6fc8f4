//! A chain of filters as Istio gives it to a sidecar, and its access log.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use dhow_testkit::{ChildSpec, TempDir};
use serde_json::{Value, json};

use super::config;

/// The filters of the chain in their order, by the folder that Envoy's type has.
pub const FILTERS: &[&str] = &["rbac", "fault", "cors", "grpc_stats", "local_ratelimit"];

/// The configurations of the named filters.
pub fn filters(names: &[&'static str]) -> Vec<Value> {
    names.iter().map(|name| filter(name)).collect()
}

fn filter(name: &str) -> Value {
    let (message, fields) = match name {
        "rbac" => (
            "rbac.v3.RBAC",
            json!({ "rules": { "action": "ALLOW", "policies": { "readers": {
                "permissions": [{ "header": { "name": ":method", "string_match": { "exact": "GET" } } }],
                "principals": [{ "direct_remote_ip": { "address_prefix": "127.0.0.0", "prefix_len": 8 } }],
            } } } }),
        ),
        "fault" => ("fault.v3.HTTPFault", json!({})),
        "cors" => ("cors.v3.Cors", json!({})),
        "grpc_stats" => ("grpc_stats.v3.FilterConfig", json!({ "emit_filter_state": true })),
        _ => (
            "local_ratelimit.v3.LocalRateLimit",
            json!({
                "stat_prefix": "bench",
                "token_bucket": { "max_tokens": 100_000_000, "tokens_per_fill": 100_000_000, "fill_interval": "1s" },
                "filter_enabled": { "default_value": { "numerator": 100 } },
                "filter_enforced": { "default_value": { "numerator": 100 } },
            }),
        ),
    };
    let mut config = fields;
    config["@type"] = format!("type.googleapis.com/envoy.extensions.filters.http.{message}").into();
    json!({ "name": format!("envoy.filters.http.{name}"), "typed_config": config })
}

/// The fields of Istio's JSON access log, written to nowhere.
pub fn access_log() -> Value {
    let fields = [
        ("start_time", "%START_TIME%"),
        ("route_name", "%ROUTE_NAME%"),
        ("method", "%REQ(:METHOD)%"),
        ("path", "%REQ(X-ENVOY-ORIGINAL-PATH?:PATH)%"),
        ("protocol", "%PROTOCOL%"),
        ("response_code", "%RESPONSE_CODE%"),
        ("response_flags", "%RESPONSE_FLAGS%"),
        ("response_code_details", "%RESPONSE_CODE_DETAILS%"),
        ("connection_termination_details", "%CONNECTION_TERMINATION_DETAILS%"),
        ("bytes_received", "%BYTES_RECEIVED%"),
        ("bytes_sent", "%BYTES_SENT%"),
        ("duration", "%DURATION%"),
        ("upstream_service_time", "%RESP(X-ENVOY-UPSTREAM-SERVICE-TIME)%"),
        ("x_forwarded_for", "%REQ(X-FORWARDED-FOR)%"),
        ("user_agent", "%REQ(USER-AGENT)%"),
        ("request_id", "%REQ(X-REQUEST-ID)%"),
        ("authority", "%REQ(:AUTHORITY)%"),
        ("upstream_host", "%UPSTREAM_HOST%"),
        ("upstream_cluster", "%UPSTREAM_CLUSTER%"),
        ("upstream_local_address", "%UPSTREAM_LOCAL_ADDRESS%"),
        ("downstream_local_address", "%DOWNSTREAM_LOCAL_ADDRESS%"),
        ("downstream_remote_address", "%DOWNSTREAM_REMOTE_ADDRESS%"),
        ("requested_server_name", "%REQUESTED_SERVER_NAME%"),
        ("upstream_transport_failure_reason", "%UPSTREAM_TRANSPORT_FAILURE_REASON%"),
    ];
    let format: serde_json::Map<String, Value> =
        fields.into_iter().map(|(name, command)| (name.to_owned(), command.into())).collect();
    json!([{
        "name": "envoy.access_loggers.file",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog",
            "path": "/dev/null",
            "log_format": { "json_format": format },
        },
    }])
}

/// The filters of the chain that `proxy` accepts. A chain has to be the same for all who are compared.
pub fn known_to(proxy: &Path) -> Result<Vec<&'static str>> {
    let dir = TempDir::new("bench-chain")?;
    let mut known = Vec::new();
    for name in FILTERS {
        let manager = config::connection_manager(json!([config::everything()]), filters(&[name]));
        let chain = json!({ "filters": [{ "name": "hcm", "typed_config": manager }] });
        let bootstrap = config::static_resources(chain, 0, json!([config::cluster("upstream", 1)]));
        let file = dir.write("bootstrap.json", bootstrap.to_string())?;
        let log = dir.path().join("log");
        let args = ["--mode", "validate", "--disable-hot-restart", "-c"];
        let mut child = ChildSpec::new(proxy, log).args(args).arg(&file).spawn()?;
        let status = child.wait(Duration::from_secs(30)).context("validation does not end")?;
        if status.success() {
            known.push(*name);
        }
    }
    Ok(known)
}
