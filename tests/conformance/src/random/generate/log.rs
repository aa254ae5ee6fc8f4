//! The area `log`: access logs in random formats behind random filters, and local replies with random bodies.

use serde_json::{Map, Value, json};

use super::super::case::{Case, NUMBER};
use super::super::dice::{Dice, fields};
use super::{connection_manager, matchers, replies, requests};

/// Operators without arguments whose value is the same in every run.
const PLAIN: &[&str] = &[
    "PROTOCOL",
    "UPSTREAM_PROTOCOL",
    "RESPONSE_CODE",
    "RESPONSE_CODE_DETAILS",
    "RESPONSE_FLAGS",
    "RESPONSE_FLAGS_LONG",
    "CONNECTION_TERMINATION_DETAILS",
    "UPSTREAM_TRANSPORT_FAILURE_REASON",
    "UPSTREAM_CLUSTER",
    "UPSTREAM_HOST",
    "UPSTREAM_HOST_NAME",
    "UPSTREAM_HOST_NAME_WITHOUT_PORT",
    "UPSTREAM_REMOTE_ADDRESS",
    "UPSTREAM_REMOTE_ADDRESS_WITHOUT_PORT",
    "UPSTREAM_LOCAL_ADDRESS_WITHOUT_PORT",
    "UPSTREAM_REQUEST_ATTEMPT_COUNT",
    "BYTES_RECEIVED",
    "BYTES_SENT",
    "REQUEST_HEADERS_BYTES",
    "RESPONSE_TRAILERS_BYTES",
    "ROUTE_NAME",
    "VIRTUAL_CLUSTER_NAME",
    "FILTER_CHAIN_NAME",
    "DOWNSTREAM_LOCAL_ADDRESS",
    "DOWNSTREAM_LOCAL_ADDRESS_WITHOUT_PORT",
    "DOWNSTREAM_DIRECT_REMOTE_ADDRESS_WITHOUT_PORT",
    "DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT",
    "REQUESTED_SERVER_NAME",
    "DOWNSTREAM_TLS_VERSION",
    "DOWNSTREAM_PEER_SUBJECT",
    "UPSTREAM_TLS_VERSION",
    "GRPC_STATUS",
    "GRPC_STATUS_NUMBER",
    "ACCESS_LOG_TYPE",
    "HOSTNAME",
    "LOCAL_REPLY_BODY",
    "DOWNSTREAM_TRANSPORT_FAILURE_REASON",
    "PATH",
];

/// Operators with arguments.
const WITH_ARGUMENTS: &[&str] = &[
    "REQ(:PATH)",
    "REQ(:METHOD)",
    "REQ(:AUTHORITY)",
    "REQ(X-TEAM?USER-AGENT)",
    "REQ(x-multi)",
    "REQ(x-bytes)",
    "REQ(cookie)",
    "REQUEST_HEADER(x-empty)",
    "REQ(referer?x-nope)",
    "REQ(X-ENVOY-ORIGINAL-PATH?:PATH)",
    "REQ_WITHOUT_QUERY(:PATH)",
    "REQ_WITHOUT_QUERY(x-nope?:PATH)",
    "RESP(SERVER)",
    "RESP(x-resp)",
    "RESP(x-nope?content-type)",
    "RESPONSE_HEADER(location)",
    "RESP(:status)",
    "TRAILER(x-t)",
    "TRAILER(grpc-status?x-t)",
    "RESPONSE_TRAILER(x-nope)",
    "START_TIME(%%)",
    "START_TIME(x%Yy)",
    "DYNAMIC_METADATA(envoy.lb)",
    "DYNAMIC_METADATA(envoy.lb:team)",
    "DYNAMIC_METADATA(none:a:b)",
    "CLUSTER_METADATA(m:a)",
    "CLUSTER_METADATA(m)",
    "CLUSTER_METADATA(m:list)",
    "CLUSTER_METADATA(m:deep:er)",
    "METADATA(ROUTE:m:r)",
    "METADATA(CLUSTER:m:number)",
    "METADATA(DYNAMIC:envoy.lb:team)",
    "UPSTREAM_METADATA(m:h)",
    "FILTER_STATE(nope)",
    "FILTER_STATE(nope:PLAIN)",
    "QUERY_PARAM(x)",
    "QUERY_PARAM(y)",
    "QUERY_PARAM(debug)",
    "PATH(NQ:ORIG)",
    "PATH(WQ:PATH)",
    "PATH(NQ:ORIG_OR_PATH)",
    "PATH(WQ)",
    "GRPC_STATUS(NUMBER)",
    "GRPC_STATUS(SNAKE_STRING)",
    "GRPC_STATUS(CAMEL_STRING)",
    "COMMON_DURATION(DS_RX_BEG:DS_RX_BEG:ns)",
    "COMMON_DURATION(X:DS_TX_END:ms)",
    "ENVIRONMENT(NO_SUCH_VARIABLE)",
    "DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT(16)",
    "DOWNSTREAM_DIRECT_REMOTE_ADDRESS_WITHOUT_PORT(MASK_PREFIX_LEN=8)",
    "CEL(request.path)",
    "CEL(request.headers['x-team'])",
    "CEL(response.code)",
    "CEL(request.size > 0)",
    "CEL(request.method)",
    "CEL(response.flags)",
    "CEL(request.url_path)",
    "CEL(request.query)",
    "CEL(upstream.cluster)",
    "COALESCE({\"operators\": [{\"command\": \"REQ\", \"param\": \"x-team\"}, \"PROTOCOL\"]})",
    "COALESCE({\"operators\": [{\"command\": \"REQ\", \"param\": \"x-nope\"}, {\"command\": \"REQ\", \"param\": \":path\", \"max_length\": 3}]})",
];

/// Literal text between operators.
const TEXTS: &[&str] = &["", " ", "|", "\"", "é", "%%", "a=", "\\", "[", "{}", "'"];

fn operator(dice: &mut Dice) -> String {
    if dice.chance(45) {
        return format!("%{}%", dice.pick(PLAIN));
    }
    let operator = dice.pick(WITH_ARGUMENTS);
    // The others take no length, or ignore it.
    let can_be_cut = ["REQ", "RESP", "TRAILER", "DYNAMIC_METADATA", "METADATA", "QUERY_PARAM", "PATH"];
    let name = operator.split('(').next().unwrap_or_default();
    if can_be_cut.contains(&name) && dice.chance(35) {
        return format!("%{operator}:{}%", dice.pick(&[0, 1, 2, 3, 5, 10, 1000]));
    }
    format!("%{operator}%")
}

/// Some operators with text around them.
fn text(dice: &mut Dice) -> String {
    let mut text = String::new();
    for _ in 0..dice.pick(&[1, 1, 1, 2, 3]) {
        text.push_str(dice.pick(TEXTS));
        text.push_str(&operator(dice));
    }
    text.push_str(dice.pick(TEXTS));
    text
}

/// A value of a JSON format.
fn value(dice: &mut Dice, depth: usize) -> Value {
    match dice.below(if depth > 2 { 6 } else { 10 }) {
        0..4 => json!(operator(dice)),
        4 => json!(text(dice)),
        5 => dice.of(json!([1, -2.5, true, false, null, "plain", "", "q\"\\\n", 1e21, 12345678901_u64])),
        6 | 7 => {
            let mut fields = Map::new();
            for _ in 0..dice.pick(&[0, 1, 2, 3]) {
                let name = dice.pick(&["a", "b", "B", "c d", "é", "", "x\"y", "z"]);
                let value = value(dice, depth + 1);
                fields.insert(name.to_owned(), value);
            }
            Value::Object(fields)
        }
        _ => dice.several(&[0, 1, 2, 3], |dice| value(dice, depth + 1)),
    }
}

/// A format whose lines tell the number of their request.
fn format(dice: &mut Dice) -> Value {
    let mut format = Map::new();
    if dice.chance(50) {
        let columns: Vec<String> = (0..dice.pick(&[3, 6, 10])).map(|_| text(dice)).collect();
        let line = format!("%REQ(X-N)%\t{}\n", columns.join("\t"));
        format.insert("text_format_source".to_owned(), json!({ "inline_string": line }));
    } else {
        let mut value = fields(json!({ "n": "%REQ(X-N)%" }));
        for number in 0..dice.pick(&[3, 6, 10]) {
            let one = self::value(dice, 0);
            value.insert(format!("f{number}"), one);
        }
        format.insert("json_format".to_owned(), Value::Object(value));
        dice.field(20, &mut format, "json_format_options", json!([{ "sort_properties": true }]));
    }
    dice.field(40, &mut format, "omit_empty_values", json!([true]));
    format.insert("formatters".to_owned(), formatters());
    Value::Object(format)
}

/// The extension that some of the operators need.
fn formatters() -> Value {
    json!([{ "name": "without_query", "typed_config": {
        "@type": "type.googleapis.com/envoy.extensions.formatter.req_without_query.v3.ReqWithoutQuery",
    } }])
}

fn comparison(dice: &mut Dice, values: &[u32]) -> Value {
    let op = dice.pick(&["EQ", "GE", "LE", "NE"]);
    json!({ "comparison": { "op": op, "value": { "default_value": dice.pick(values), "runtime_key": "none" } } })
}

fn filter(dice: &mut Dice, depth: usize) -> Value {
    let flags = ["NR", "UF", "DC", "UH", "UC", "DI", "RL", "UPE", "DPE", "NC"];
    match dice.below(if depth > 1 { 9 } else { 11 }) {
        0 => json!({ "status_code_filter": comparison(dice, &[200, 301, 404, 500]) }),
        1 => json!({ "duration_filter": comparison(dice, &[0, 100_000]) }),
        2 => json!({ "not_health_check_filter": {} }),
        3 => {
            let chosen = dice.sample(&flags, dice.clone().pick(&[0, 1, 3]));
            json!({ "response_flag_filter": { "flags": chosen } })
        }
        4 => json!({ "header_filter": { "header": matchers::header(dice) } }),
        5 => {
            let statuses = dice.sample(&["OK", "NOT_FOUND", "UNAVAILABLE", "UNKNOWN"], 2);
            json!({ "grpc_status_filter": { "statuses": statuses, "exclude": dice.chance(50) } })
        }
        6 => {
            let percent = json!({ "numerator": dice.pick(&[0, 100]) });
            json!({ "runtime_filter": { "runtime_key": "none", "percent_sampled": percent } })
        }
        7 => {
            let value = json!({ "string_match": matchers::string(dice) });
            let matcher = json!({ "filter": "envoy.lb", "path": [{ "key": "team" }], "value": value });
            let mut settings = fields(json!({ "matcher": matcher }));
            dice.field(50, &mut settings, "match_if_key_not_found", json!([true, false]));
            json!({ "metadata_filter": settings })
        }
        8 => {
            let expressions =
                ["response.code >= 400", "request.method == 'GET'", "'x-team' in request.headers"];
            json!({ "extension_filter": { "name": "cel", "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.access_loggers.filters.cel.v3.ExpressionFilter",
                "expression": dice.pick(&expressions),
            } } })
        }
        throw => {
            let filters = [filter(dice, depth + 1), filter(dice, depth + 1)];
            json!({ if throw == 9 { "and_filter" } else { "or_filter" }: { "filters": filters } })
        }
    }
}

fn logger(dice: &mut Dice) -> Value {
    let mut log = fields(json!({ "name": "file", "typed_config": {
        "@type": "type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog",
        "path": "{{dir}}/access.log",
        "log_format": format(dice),
    } }));
    dice.made(45, &mut log, "filter", |dice| filter(dice, 0));
    Value::Object(log)
}

fn local_replies(dice: &mut Dice) -> Value {
    let mapper = |dice: &mut Dice| {
        let mut mapper = Map::new();
        mapper.insert("filter".to_owned(), filter(dice, 0));
        dice.field(40, &mut mapper, "status_code", json!([499, 200, 503]));
        dice.made(40, &mut mapper, "body", |dice| json!({ "inline_string": text(dice) }));
        dice.made(40, &mut mapper, "body_format_override", body_format);
        dice.made(30, &mut mapper, "headers_to_add", |dice| {
            // Headers know no extensions.
            let value = text(dice).replace("%REQ_WITHOUT_QUERY", "%REQ");
            json!([{ "header": { "key": "x-mapped", "value": value } }])
        });
        Value::Object(mapper)
    };
    let mut config = Map::new();
    config.insert("mappers".to_owned(), dice.several(&[0, 1, 2], mapper));
    dice.made(60, &mut config, "body_format", body_format);
    Value::Object(config)
}

fn body_format(dice: &mut Dice) -> Value {
    let mut format = Map::new();
    if dice.chance(50) {
        let line = format!("{}%LOCAL_REPLY_BODY%{}", text(dice), text(dice));
        format.insert("text_format_source".to_owned(), json!({ "inline_string": line }));
    } else {
        let inner = value(dice, 0);
        format.insert("json_format".to_owned(), json!({ "b": "%LOCAL_REPLY_BODY%", "v": inner }));
    }
    format.insert("formatters".to_owned(), formatters());
    dice.field(30, &mut format, "content_type", json!(["text/html", "application/x; q=%RESPONSE_CODE%"]));
    Value::Object(format)
}

/// The case of `seed` with this many requests.
pub fn log(seed: u64, count: usize) -> Case {
    let mut dice = Dice::new(seed, "log configuration");
    let mut hcm = connection_manager::connection_manager(&mut dice, &["one", "one", "two", "dead"]);
    hcm["access_log"] = dice.several(&[1, 2, 3], logger);
    if dice.chance(60) {
        hcm["local_reply_config"] = local_replies(&mut dice);
    }
    let requests = (0..count)
        .map(|number| {
            let mut dice = Dice::new(seed, &format!("log request {number}"));
            let reply = replies::plain(&mut dice);
            vec![
                json!({ "answer": { "one": [reply.clone()], "two": [reply] } }),
                requests::http1(&mut dice, number),
            ]
        })
        .collect();
    let metadata = json!({ "filter_metadata": { "m": {
        "a": "text", "number": 1.5, "list": [1, "b", null], "deep": { "er": { "est": true } } } } });
    Case {
        fields: fields(json!({
            "about": format!("Random access logs (area log, seed {seed})."),
            "header_order": true,
            "upstreams": { "one": {}, "two": {}, "dead": { "protocol": "refused" } },
            "clusters": { "one": { "metadata": metadata } },
            "http": { "hcm": hcm },
        })),
        requests,
        last: Vec::new(),
        log_columns: NUMBER.to_owned(),
    }
}
