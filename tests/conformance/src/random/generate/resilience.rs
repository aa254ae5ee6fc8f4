//! The area `resilience`: hosts that fail in every way, and what is configured against that.

use serde_json::{Map, Value, json};

use super::super::case::{Case, NUMBER};
use super::super::dice::{Dice, fields};
use super::{http, replies};

const LOG_COLUMNS: &[&str] = &[
    "%REQ(X-N)%",
    "%RESPONSE_CODE%",
    "%RESPONSE_CODE_DETAILS%",
    "%RESPONSE_FLAGS%",
    "%ROUTE_NAME%",
    "%UPSTREAM_CLUSTER%",
    "%UPSTREAM_HOST%",
    "%UPSTREAM_REQUEST_ATTEMPT_COUNT%",
    "%UPSTREAM_TRANSPORT_FAILURE_REASON%",
    "%CONNECTION_TERMINATION_DETAILS%",
    "%BYTES_RECEIVED%",
    "%BYTES_SENT%",
    "%REQ(:PATH)%",
    "%REQ(X-ENVOY-ORIGINAL-PATH)%",
];

const UPSTREAMS: [&str; 3] = ["one", "two", "three"];

/// Clusters that routes lead to: `levels` has one host at each of three priorities.
const CLUSTERS: &[&str] = &["one", "one", "two", "levels", "levels", "dead"];

const ROUTES: usize = 6;

/// Limits of time are short where hosts may hang, and yet long for a machine with other work.
const TIMEOUT: &str = "0.6s";

/// The case of `seed` with this many requests.
pub fn resilience(seed: u64, count: usize) -> Case {
    let mut dice = Dice::new(seed, "resilience configuration");
    let routes: Vec<Value> = (0..ROUTES).map(|number| route(&mut dice, number)).collect();
    let mut clusters = Map::new();
    for name in UPSTREAMS {
        let cluster = cluster(&mut dice);
        clusters.insert(name.to_owned(), cluster);
    }
    clusters.insert("levels".to_owned(), levels(&mut dice));
    let mut host = Map::new();
    host.insert("name".to_owned(), json!("all"));
    host.insert("domains".to_owned(), json!(["*"]));
    host.insert("routes".to_owned(), json!(routes));
    dice.field(30, &mut host, "include_request_attempt_count", json!([true]));
    dice.field(30, &mut host, "include_attempt_count_in_response", json!([true]));
    dice.field(10, &mut host, "include_is_timeout_retry_header", json!([true]));
    let mut hcm = Map::new();
    dice.field(30, &mut hcm, "proxy_100_continue", json!([true]));
    dice.field(20, &mut hcm, "generate_request_id", json!([false]));
    let log_columns = LOG_COLUMNS.join("\t");
    let requests = (0..count).map(|number| exchange(seed, number)).collect();
    let mut fields = fields(json!({
        "about": format!("Random failures (area resilience, seed {seed})."),
        "header_order": true,
        "upstreams": { "one": {}, "two": {}, "three": {}, "dead": { "protocol": "refused" } },
        "clusters": clusters,
        "http": { "virtual_hosts": [host], "hcm": http::with_log(Value::Object(hcm), &log_columns) },
        "all_stats": http::compared_stats(),
    }));
    if dice.chance(20) {
        fields["http"]["listener"] = json!({ "per_connection_buffer_limit_bytes": 1000 });
    }
    Case { fields, requests, last: Vec::new(), log_columns }
}

fn route(dice: &mut Dice, number: usize) -> Value {
    let mut action = Map::new();
    dice.field(100, &mut action, "cluster", json!(CLUSTERS));
    dice.field(100, &mut action, "timeout", json!([TIMEOUT, TIMEOUT, TIMEOUT, "2s"]));
    dice.made(65, &mut action, "retry_policy", retries);
    if action.contains_key("retry_policy") {
        dice.field(15, &mut action, "hedge_policy", json!([{ "hedge_on_per_try_timeout": true }]));
    }
    dice.field(12, &mut action, "request_mirror_policies", json!([[{ "cluster": "three" }]]));
    let follow = json!([
        { "redirect_response_codes": [301, 302, 307] },
        { "max_internal_redirects": 3, "redirect_response_codes": [302], "allow_cross_scheme_redirect": true },
        { "max_internal_redirects": 2, "response_headers_to_copy": ["x-resp"] }
    ]);
    dice.field(25, &mut action, "internal_redirect_policy", follow);
    dice.field(10, &mut action, "idle_timeout", json!(["0.5s"]));
    dice.field(10, &mut action, "prefix_rewrite", json!(["/p"]));
    json!({ "name": format!("r{number}"), "match": { "prefix": format!("/r{number}") }, "route": action })
}

fn retries(dice: &mut Dice) -> Value {
    let mut fields = Map::new();
    let conditions = json!([
        "5xx",
        "gateway-error",
        "reset",
        "connect-failure",
        "retriable-4xx",
        "refused-stream",
        "retriable-status-codes",
        "retriable-headers",
        "reset-before-request",
        "http3-post-connect-failure",
        "envoy-ratelimited",
        "5xx,reset",
        "retriable-status-codes,reset",
        "connect-failure,retriable-4xx"
    ]);
    dice.field(95, &mut fields, "retry_on", conditions);
    dice.field(70, &mut fields, "num_retries", json!([0, 1, 2, 3]));
    dice.field(20, &mut fields, "per_try_timeout", json!(["0.25s"]));
    dice.field(8, &mut fields, "per_try_idle_timeout", json!(["0.25s"]));
    dice.field(50, &mut fields, "retriable_status_codes", json!([[404, 599], [200], [503]]));
    let headers = json!([[{ "name": "x-resp" }], [{ "name": "x-ok", "invert_match": true }]]);
    dice.field(30, &mut fields, "retriable_headers", headers);
    dice.field(
        15,
        &mut fields,
        "retriable_request_headers",
        json!([[{ "name": ":method", "string_match": { "exact": "GET" } }]]),
    );
    let priority = json!([{ "name": "p", "typed_config": {
        "@type": "type.googleapis.com/envoy.extensions.retry.priority.previous_priorities.v3.PreviousPrioritiesConfig",
        "update_frequency": 1,
    } }]);
    dice.field(20, &mut fields, "retry_priority", priority);
    let previous = json!([[{ "name": "h", "typed_config": {
        "@type": "type.googleapis.com/envoy.extensions.retry.host.previous_hosts.v3.PreviousHostsPredicate",
    } }]]);
    dice.field(20, &mut fields, "retry_host_predicate", previous);
    fields
        .insert("retry_back_off".to_owned(), json!({ "base_interval": "0.001s", "max_interval": "0.002s" }));
    Value::Object(fields)
}

fn cluster(dice: &mut Dice) -> Value {
    let mut fields = Map::new();
    let thresholds = json!([
        { "thresholds": [{ "max_retries": 0 }] },
        { "thresholds": [{ "max_retries": 1, "track_remaining": true }] },
        { "thresholds": [{ "max_requests": 1, "max_pending_requests": 1 }] },
        { "thresholds": [{ "max_connections": 1 }] },
        { "thresholds": [{ "retry_budget": { "budget_percent": { "value": 100 }, "min_retry_concurrency": 1 } }] }
    ]);
    dice.field(35, &mut fields, "circuit_breakers", thresholds);
    dice.made(30, &mut fields, "outlier_detection", outliers);
    dice.field(20, &mut fields, "common_lb_config", json!([{ "healthy_panic_threshold": { "value": 0 } }]));
    dice.field(10, &mut fields, "close_connections_on_host_health_failure", json!([true]));
    dice.field(
        10,
        &mut fields,
        "track_cluster_stats",
        json!([{ "timeout_budgets": true }, { "request_response_sizes": true }]),
    );
    dice.field(10, &mut fields, "per_connection_buffer_limit_bytes", json!([500]));
    Value::Object(fields)
}

fn outliers(dice: &mut Dice) -> Value {
    let mut fields = fields(json!({
        "interval": "300s", "base_ejection_time": "300s", "max_ejection_percent": 100, "enforcing_consecutive_5xx": 100,
    }));
    dice.field(100, &mut fields, "consecutive_5xx", json!([1, 2, 3]));
    dice.field(40, &mut fields, "consecutive_gateway_failure", json!([1, 2]));
    dice.field(40, &mut fields, "enforcing_consecutive_gateway_failure", json!([100]));
    dice.field(30, &mut fields, "split_external_local_origin_errors", json!([true]));
    dice.field(30, &mut fields, "consecutive_local_origin_failure", json!([1, 2]));
    Value::Object(fields)
}

fn levels(dice: &mut Dice) -> Value {
    let mut order = UPSTREAMS;
    dice.shuffle(&mut order);
    let endpoints: Vec<Value> = order
        .iter()
        .enumerate()
        .map(|(priority, name)| {
            let address = json!({ "address": "127.0.0.1", "port_value": format!("{{{{upstream.{name}}}}}") });
            json!({ "priority": priority,
                "lb_endpoints": [{ "endpoint": { "address": { "socket_address": address } } }] })
        })
        .collect();
    let mut cluster = cluster(dice);
    cluster["type"] = json!("STATIC");
    cluster["connect_timeout"] = json!("1s");
    cluster["load_assignment"] = json!({ "cluster_name": "levels", "endpoints": endpoints });
    cluster
}

/// Request `number`, and what each upstream answers to it and its repetitions.
fn exchange(seed: u64, number: usize) -> Vec<Value> {
    let mut dice = Dice::new(seed, &format!("resilience request {number}"));
    let mut answers = Map::new();
    for name in UPSTREAMS {
        let replies = dice.several(&[1, 1, 2, 3], reply);
        answers.insert(name.to_owned(), replies);
    }
    vec![json!({ "answer": answers }), request(&mut dice, number)]
}

fn reply(dice: &mut Dice) -> Value {
    let mut fields = Map::new();
    fields.insert(
        "body".to_owned(),
        dice.of(json!(["body", "", ["ab", "cd"], { "text": "0123456789", "times": 400 }])),
    );
    let statuses = json!([200, 200, 200, 404, 409, 429, 500, 502, 503, 504, 599, 301, 302, 307, 204]);
    dice.field(70, &mut fields, "status", statuses);
    dice.made(30, &mut fields, "headers", |dice| {
        let lines = json!([
            "x-resp: 1",
            "x-ok: 1",
            "x-envoy-ratelimited: 1",
            "location: /r1/next",
            "location: http://example.test/r2",
            "location: https://example.test/r3",
            "location: x://y",
            "connection: close",
            "retry-after: 0",
            "grpc-status: 14"
        ]);
        json!([dice.of(lines.clone()), dice.of(lines)])
    });
    dice.field(40, &mut fields, "framing", json!(["chunked", "chunked", "until_close"]));
    dice.field(12, &mut fields, "interim", json!([[100], [103], [102, 103]]));
    dice.field(12, &mut fields, "close", json!([true]));
    dice.field(10, &mut fields, "early", json!([true]));
    if fields.get("framing") == Some(&json!("chunked")) {
        dice.field(40, &mut fields, "trailers", json!([["x-t: 1"]]));
    }
    let faults = json!([
        "close_before_head", "close_before_head", "reset_before_head", "close_mid_body", "reset_mid_body", "hang",
        { "bytes": "garbage\r\n\r\n" },
        { "bytes": "HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nabc" },
        { "bytes": "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n" },
        { "bytes": "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n" },
        { "bytes": "HTTP/1.1 200 OK\r\ncontent-" },
        { "bytes": "HTTP/1.1 103 Early Hints\r\n\r\n" },
        { "bytes": "HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nab" }
    ]);
    dice.field(30, &mut fields, "fault", faults);
    if dice.chance(10) {
        return replies::plain(dice);
    }
    Value::Object(fields)
}

const REQUEST_HEADERS: &[(&str, &[&str])] = &[
    (
        "x-envoy-retry-on",
        &["5xx", "reset", "retriable-4xx", "retriable-status-codes", "gateway-error,connect-failure"],
    ),
    ("x-envoy-max-retries", &["0", "1", "2", "x"]),
    ("x-envoy-retriable-status-codes", &["404", "200,503", "x"]),
    ("x-envoy-retriable-header-names", &["x-resp", "X-Ok"]),
    ("x-envoy-upstream-rq-timeout-ms", &["300", "0", "x"]),
    ("x-envoy-upstream-rq-per-try-timeout-ms", &["200", "5000"]),
    ("x-envoy-upstream-rq-timeout-alt-response", &["1"]),
    ("x-envoy-hedge-on-per-try-timeout", &["true", "false"]),
    ("x-envoy-retry-grpc-on", &["unavailable", "cancelled"]),
    ("expect", &["100-continue"]),
    ("connection", &["close"]),
    ("content-type", &["application/grpc", "text/plain"]),
];

fn request(dice: &mut Dice, number: usize) -> Value {
    let method = dice.pick(&["GET", "GET", "GET", "POST", "POST", "HEAD", "PUT", "DELETE"]);
    let route = dice.below(ROUTES + 1);
    let mut lines = vec!["host: example.test".to_owned()];
    for _ in 0..dice.pick(&[0, 0, 1, 2]) {
        let (name, values) = dice.pick(REQUEST_HEADERS);
        lines.push(format!("{name}: {}", dice.pick(values)));
    }
    let mut body = String::new();
    if matches!(method, "POST" | "PUT") {
        body = "x".repeat(dice.pick(&[0, 5, 1000, 3000]));
        if dice.chance(30) && !body.is_empty() {
            lines.push("transfer-encoding: chunked".to_owned());
            body = format!("{:x}\r\n{body}\r\n0\r\n\r\n", body.len());
        } else {
            lines.push(format!("content-length: {}", body.len()));
        }
    }
    lines.push(format!("{NUMBER}: {number}"));
    let raw = format!("{method} /r{route}/path?q=1 HTTP/1.1\r\n{}\r\n\r\n{body}", lines.join("\r\n"));
    json!({ "raw": raw, "method": method, "read": "then_glance" })
}
