//! The settings of an HTTP connection manager.

use serde_json::{Map, Value, json};

use super::super::dice::Dice;
use super::{filters, routes};

/// A connection manager with random settings, filters and routes to `clusters`.
pub fn connection_manager(dice: &mut Dice, clusters: &[&str]) -> Value {
    let mut fields = Map::new();
    fields.insert("stat_prefix".to_owned(), json!("ingress"));
    fields.insert("http_filters".to_owned(), filters::chain(dice));
    clients(dice, &mut fields);
    targets(dice, &mut fields);
    names(dice, &mut fields);
    protocol(dice, &mut fields);
    dice.made(20, &mut fields, "local_reply_config", local_replies);
    dice.field(10, &mut fields, "proxy_status_config", json!([{ "literal_proxy_name": "pp" }]));
    fields.insert("route_config".to_owned(), routes::route_configuration(dice, clusters));
    Value::Object(fields)
}

/// Who the client is.
fn clients(dice: &mut Dice, fields: &mut Map<String, Value>) {
    dice.field(50, fields, "use_remote_address", json!([true, true, false]));
    dice.field(30, fields, "xff_num_trusted_hops", json!([0, 1, 2]));
    dice.field(20, fields, "skip_xff_append", json!([true]));
    let loopback = json!({ "address_prefix": "127.0.0.0", "prefix_len": 8 });
    let private = json!({ "address_prefix": "10.0.0.0", "prefix_len": 8 });
    let internal = json!([{}, { "unix_sockets": true }, { "cidr_ranges": [loopback, private] }]);
    dice.field(30, fields, "internal_address_config", internal);
    dice.field(20, fields, "append_x_forwarded_port", json!([true]));
    dice.field(
        15,
        fields,
        "scheme_header_transformation",
        json!([{ "scheme_to_overwrite": "https" }, { "scheme_to_overwrite": "http" }]),
    );
}

/// What becomes of path and host.
fn targets(dice: &mut Dice, fields: &mut Map<String, Value>) {
    dice.field(35, fields, "normalize_path", json!([true, true, true, false]));
    dice.field(30, fields, "merge_slashes", json!([true]));
    let escaped =
        json!(["KEEP_UNCHANGED", "REJECT_REQUEST", "UNESCAPE_AND_REDIRECT", "UNESCAPE_AND_FORWARD"]);
    dice.field(40, fields, "path_with_escaped_slashes_action", escaped);
    match dice.below(10) {
        0 | 1 => _ = fields.insert("strip_any_host_port".to_owned(), json!(true)),
        2 | 3 => _ = fields.insert("strip_matching_host_port".to_owned(), json!(true)),
        _ => {}
    }
    dice.field(15, fields, "strip_trailing_host_dot", json!([true]));
}

/// What the proxy calls itself and the request.
fn names(dice: &mut Dice, fields: &mut Map<String, Value>) {
    dice.field(20, fields, "via", json!(["px", "a b"]));
    dice.field(20, fields, "add_user_agent", json!([true]));
    dice.field(20, fields, "server_name", json!(["srv", ""]));
    dice.field(
        30,
        fields,
        "server_header_transformation",
        json!(["OVERWRITE", "APPEND_IF_ABSENT", "PASS_THROUGH"]),
    );
    dice.field(20, fields, "generate_request_id", json!([true, false]));
    dice.field(20, fields, "preserve_external_request_id", json!([true]));
    dice.field(25, fields, "always_set_request_id_in_response", json!([true]));
}

/// What is let through, and how it is written.
fn protocol(dice: &mut Dice, fields: &mut Map<String, Value>) {
    dice.field(10, fields, "proxy_100_continue", json!([true]));
    dice.field(20, fields, "stream_error_on_invalid_http_message", json!([true]));
    dice.field(15, fields, "upgrade_configs", json!([[{ "upgrade_type": "websocket" }]]));
    let mut common = Map::new();
    let underscores = json!(["ALLOW", "REJECT_REQUEST", "DROP_HEADER"]);
    dice.field(20, &mut common, "headers_with_underscores_action", underscores);
    dice.field(10, &mut common, "max_headers_count", json!([6]));
    if !common.is_empty() {
        fields.insert("common_http_protocol_options".to_owned(), Value::Object(common));
    }
    let mut http1 = Map::new();
    if dice.chance(20) {
        http1.insert("accept_http_10".to_owned(), json!(true));
        http1.insert("default_host_for_http_10".to_owned(), json!("dflt"));
    }
    let preserve = json!({ "stateful_formatter": { "name": "p", "typed_config": {
        "@type": "type.googleapis.com/envoy.extensions.http.header_formatters.preserve_case.v3.PreserveCaseFormatterConfig",
        "forward_reason_phrase": true,
    } } });
    dice.field(15, &mut http1, "header_key_format", json!([{ "proper_case_words": {} }, preserve]));
    dice.field(10, &mut http1, "allow_absolute_url", json!([false]));
    dice.field(10, &mut http1, "allow_chunked_length", json!([true]));
    dice.field(10, &mut http1, "override_stream_error_on_invalid_http_message", json!([true]));
    dice.field(10, &mut http1, "ignore_http_11_upgrade", json!([[{ "prefix": "h2" }]]));
    if !http1.is_empty() {
        fields.insert("http_protocol_options".to_owned(), Value::Object(http1));
    }
}

fn local_replies(dice: &mut Dice) -> Value {
    let comparison = json!({
        "op": dice.of(json!(["GE", "EQ", "LE"])),
        "value": { "default_value": dice.pick(&[400, 404, 503]), "runtime_key": "k" },
    });
    let mapper = json!({
        "filter": { "status_code_filter": { "comparison": comparison } },
        "status_code": dice.pick(&[499, 404]),
        "headers_to_add": [{ "header": { "key": "x-mapped", "value": "%RESPONSE_FLAGS%" } }],
        "body": { "inline_string": "mapped" },
    });
    let format = dice.of(json!([
        { "text_format_source": { "inline_string": "%LOCAL_REPLY_BODY%|%RESPONSE_CODE%\n" } },
        { "json_format": { "m": "%LOCAL_REPLY_BODY%", "c": "%RESPONSE_CODE%", "p": "%REQ(:path)%" } }
    ]));
    json!({ "mappers": [mapper], "body_format": format })
}
