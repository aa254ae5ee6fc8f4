//! The area `http`: everything between an HTTP/1 request and its upstream.

use serde_json::{Value, json};

use super::super::case::Case;
use super::super::dice::{Dice, fields};
use super::{connection_manager, replies, requests};

/// The columns of the access log, of which the first numbers the request.
pub const LOG_COLUMNS: &[&str] = &[
    "%REQ(X-N)%",
    "%PROTOCOL%",
    "%RESPONSE_CODE%",
    "%RESPONSE_CODE_DETAILS%",
    "%RESPONSE_FLAGS%",
    "%RESPONSE_FLAGS_LONG%",
    "%ROUTE_NAME%",
    "%UPSTREAM_CLUSTER%",
    "%BYTES_RECEIVED%",
    "%BYTES_SENT%",
    "%REQ(:METHOD)%",
    "%REQ(:PATH)%",
    "%REQ(:AUTHORITY)%",
    "%REQ(X-ENVOY-ORIGINAL-PATH?:PATH)%",
    "%REQ(X-FORWARDED-FOR)%",
    "%REQ(:SCHEME)%",
    "%REQ(USER-AGENT):5%",
    "%RESP(SERVER)%",
    "%UPSTREAM_HOST%",
    "%REQUESTED_SERVER_NAME%",
    "%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%",
    "%DOWNSTREAM_DIRECT_REMOTE_ADDRESS_WITHOUT_PORT%",
    "%DOWNSTREAM_LOCAL_ADDRESS%",
    "%CONNECTION_TERMINATION_DETAILS%",
    "%UPSTREAM_TRANSPORT_FAILURE_REASON%",
    "%UPSTREAM_REQUEST_ATTEMPT_COUNT%",
    "%GRPC_STATUS%",
    "%VIRTUAL_CLUSTER_NAME%",
    "%REQUEST_HEADERS_BYTES%",
    "%RESPONSE_TRAILERS_BYTES%",
    "%QUERY_PARAM(x)%",
    "%PATH(NQ:ORIG)%",
    "%PATH(WQ:PATH)%",
    "%FILTER_CHAIN_NAME%",
    "%DYNAMIC_METADATA(envoy.lb)%",
];

/// The case of `seed` with this many requests.
pub fn http(seed: u64, count: usize) -> Case {
    let mut dice = Dice::new(seed, "http configuration");
    let hcm = connection_manager::connection_manager(&mut dice, &["one", "one", "two", "dead"]);
    let requests = (0..count)
        .map(|number| {
            let mut dice = Dice::new(seed, &format!("http request {number}"));
            let reply = replies::plain(&mut dice);
            vec![
                json!({ "answer": { "one": [reply.clone()], "two": [reply] } }),
                requests::http1(&mut dice, number),
            ]
        })
        .collect();
    let log_columns = LOG_COLUMNS.join("\t");
    Case {
        fields: fields(json!({
            "about": format!("Random configuration and requests (area http, seed {seed})."),
            "header_order": true,
            "upstreams": { "one": {}, "two": {}, "dead": { "protocol": "refused" } },
            "http": { "hcm": with_log(hcm, &log_columns) },
            "all_stats": compared_stats(),
        })),
        requests,
        last: Vec::new(),
        log_columns,
    }
}

/// The statistics that are compared.
pub fn compared_stats() -> Value {
    let paused = "how often a side is paused depends on the pieces in which bytes arrive";
    json!({
        "of": ["http.ingress.", "cluster.", "vhost."],
        "except": {
            "reading_total": paused,
            "flow_control_backed_up_total": paused,
            "flow_control_drained_total": paused,
        },
    })
}

/// Adds the access log with these columns.
pub fn with_log(mut hcm: Value, columns: &str) -> Value {
    hcm["access_log"] = json!([{ "name": "file", "typed_config": {
        "@type": "type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog",
        "path": "{{dir}}/access.log",
        "log_format": { "text_format_source": { "inline_string": format!("{columns}\n") } },
    } }]);
    hcm
}
