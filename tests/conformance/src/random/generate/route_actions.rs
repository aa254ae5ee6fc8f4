//! What becomes of a request that a route matches: forwarded, redirected, answered.

use serde_json::{Map, Value, json};

use super::super::dice::Dice;
use super::header_rules;

/// Forwarding to one of `clusters`, or to one that a header or weights choose.
pub fn forward(dice: &mut Dice, clusters: &[&str], with_template: bool) -> Value {
    let mut fields = Map::new();
    match dice.below(10) {
        0..7 => _ = fields.insert("cluster".to_owned(), json!(dice.pick(clusters))),
        7 => _ = fields.insert("cluster_header".to_owned(), json!("x-cluster")),
        _ => _ = fields.insert("weighted_clusters".to_owned(), weighted(dice)),
    }
    path_rewrite(dice, &mut fields, with_template);
    host_rewrite(dice, &mut fields);
    dice.field(15, &mut fields, "append_x_forwarded_host", json!([true]));
    dice.field(20, &mut fields, "timeout", json!(["0s", "5s", "2.250s"]));
    dice.made(15, &mut fields, "retry_policy", |dice| {
        json!({
            "retry_on": dice.of(json!(["5xx", "gateway-error,connect-failure", "retriable-4xx", "retriable-status-codes,reset"])),
            "num_retries": dice.pick(&[0, 1, 2]),
            "retriable_status_codes": [404, 599],
            "retry_back_off": { "base_interval": "0.001s", "max_interval": "0.002s" },
        })
    });
    let codes = json!(["NOT_FOUND", "INTERNAL_SERVER_ERROR"]);
    dice.field(5, &mut fields, "cluster_not_found_response_code", codes);
    let follow = json!([{ "max_internal_redirects": 2, "redirect_response_codes": [301, 302], "allow_cross_scheme_redirect": true }]);
    dice.field(8, &mut fields, "internal_redirect_policy", follow);
    dice.made(
        6,
        &mut fields,
        "upgrade_configs",
        |dice| json!([{ "upgrade_type": dice.of(json!(["websocket", "foo"])), "enabled": dice.chance(70) }]),
    );
    dice.field(7, &mut fields, "request_mirror_policies", json!([[{ "cluster": "two" }]]));
    let hashes = json!([
        [{ "header": { "header_name": "x-team" } }],
        [{ "cookie": { "name": "h", "ttl": "60s", "path": "/p" } }],
        [{ "query_parameter": { "name": "x" } }],
        [{ "connection_properties": { "source_ip": true } }]
    ]);
    dice.field(8, &mut fields, "hash_policy", hashes);
    let limits = json!([{ "max_stream_duration": "3s", "grpc_timeout_header_max": "1s" }]);
    dice.field(8, &mut fields, "max_stream_duration", limits);
    Value::Object(fields)
}

fn weighted(dice: &mut Dice) -> Value {
    // Only weights that leave no choice: otherwise both sides choose by chance unless a header does.
    let by_header = dice.chance(30);
    let weights = dice.pick(&[(100, 0), (0, 5), (0, 1)]);
    let mut entry = |name: &str, weight: i32| {
        let mut fields = Map::new();
        fields.insert("name".to_owned(), json!(name));
        fields.insert("weight".to_owned(), json!(weight));
        header_rules::rules(dice, "weighted", &mut fields);
        fields
    };
    let clusters = [entry("one", weights.0), entry("two", weights.1)];
    let mut value = json!({ "clusters": clusters });
    if by_header {
        value["header_name"] = json!("x-weight");
    }
    value
}

fn path_rewrite(dice: &mut Dice, fields: &mut Map<String, Value>, with_template: bool) {
    match dice.below(10) {
        // A route that matches by template has no prefix to rewrite.
        0 | 1 if !with_template => {
            dice.field(100, fields, "prefix_rewrite", json!(["/", "/new", "/n/", "/new?z=1"]))
        }
        2 | 3 => {
            let patterns = ["^/a", r"/(\w+)/(\w+)", "b", r"^/api/v(\d)/(.*)$"];
            let rewrite = json!({
                "pattern": { "regex": dice.pick(&patterns) },
                "substitution": dice.pick(&["/zz", r"/\2/\1", "", r"/\1", "X"]),
            });
            fields.insert("regex_rewrite".to_owned(), rewrite);
        }
        _ => {}
    }
}

fn host_rewrite(dice: &mut Dice, fields: &mut Map<String, Value>) {
    match dice.below(100) {
        0..12 => dice.field(100, fields, "host_rewrite_literal", json!(["new.host", "H:90"])),
        12..20 => _ = fields.insert("auto_host_rewrite".to_owned(), json!(true)),
        20..28 => dice.field(100, fields, "host_rewrite_header", json!(["x-team", "x-forwarded-host"])),
        28..34 => {
            let rewrite = json!({ "pattern": { "regex": r"^/(\w+).*$" }, "substitution": r"\1.host" });
            fields.insert("host_rewrite_path_regex".to_owned(), rewrite);
        }
        _ => {}
    }
}

/// A redirect.
pub fn redirect(dice: &mut Dice, with_template: bool) -> Value {
    let mut fields = Map::new();
    match dice.below(10) {
        0..3 => _ = fields.insert("https_redirect".to_owned(), json!(true)),
        3..5 => dice.field(100, &mut fields, "scheme_redirect", json!(["https", "http", "foo"])),
        _ => {}
    }
    dice.field(40, &mut fields, "host_redirect", json!(["new.host", "N:99"]));
    dice.field(30, &mut fields, "port_redirect", json!([8443, 443, 80]));
    match dice.below(20) {
        0..6 => dice.field(100, &mut fields, "path_redirect", json!(["/p", "/p?z=1", "p%20q"])),
        6..10 if !with_template => dice.field(100, &mut fields, "prefix_rewrite", json!(["/np", "/"])),
        10..13 => {
            let rewrite = json!({ "pattern": { "regex": r"^/(\w+)" }, "substitution": r"/\1\1" });
            fields.insert("regex_rewrite".to_owned(), rewrite);
        }
        _ => {}
    }
    dice.field(30, &mut fields, "strip_query", json!([true]));
    let codes = json!(["FOUND", "SEE_OTHER", "TEMPORARY_REDIRECT", "PERMANENT_REDIRECT"]);
    dice.field(40, &mut fields, "response_code", codes);
    Value::Object(fields)
}

/// An answer from the configuration.
pub fn direct_response(dice: &mut Dice) -> Value {
    let mut fields = Map::new();
    dice.field(100, &mut fields, "status", json!([200, 204, 404, 418, 503, 299, 304]));
    dice.field(60, &mut fields, "body", json!([{ "inline_string": "direct" }, { "inline_string": "" }]));
    let formats = json!([
        { "text_format_source": { "inline_string": "%REQ(:path)% %LOCAL_REPLY_BODY% %RESPONSE_CODE%" } },
        { "json_format": { "p": "%REQ(:path)%", "b": "%LOCAL_REPLY_BODY%" } },
        { "text_format_source": { "inline_string": "<%ROUTE_NAME%>" }, "content_type": "text/html; charset=UTF-8" }
    ]);
    dice.field(20, &mut fields, "body_format", formats);
    Value::Object(fields)
}
