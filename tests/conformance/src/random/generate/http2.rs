//! The area `http2`: the configurations of the area `http` under HTTP/2 requests, with upstreams of both protocols.

use serde_json::{Map, Value, json};

use super::super::case::{Case, NUMBER};
use super::super::dice::{Dice, fields};
use super::{connection_manager, http, replies, requests};

/// The case of `seed` with this many requests.
pub fn http2(seed: u64, count: usize) -> Case {
    let mut dice = Dice::new(seed, "http2 configuration");
    let mut hcm = connection_manager::connection_manager(&mut dice, &["one", "one", "two", "dead"]);
    if dice.chance(30) {
        hcm["http2_protocol_options"] =
            json!({ "override_stream_error_on_invalid_http_message": dice.chance(50) });
    }
    let protocols = ["h2c", "h1"];
    let upstreams = json!({
        "one": { "protocol": dice.pick(&protocols) },
        "two": { "protocol": dice.pick(&protocols) },
        "dead": { "protocol": "refused" },
    });
    let requests = (0..count).map(|number| exchange(seed, number)).collect();
    let log_columns = http::LOG_COLUMNS.join("\t");
    Case {
        fields: fields(json!({
            "about": format!("Random configuration and requests (area http2, seed {seed})."),
            "header_order": true,
            "upstreams": upstreams,
            "http": { "hcm": http::with_log(hcm, &log_columns) },
            "all_stats": http::compared_stats(),
        })),
        requests,
        last: Vec::new(),
        log_columns,
    }
}

fn exchange(seed: u64, number: usize) -> Vec<Value> {
    let mut dice = Dice::new(seed, &format!("http2 request {number}"));
    let is_call = dice.chance(15);
    let reply = if is_call { grpc_reply(&mut dice) } else { reply(&mut dice) };
    vec![json!({ "answer": { "one": [reply.clone()], "two": [reply] } }), request(&mut dice, number, is_call)]
}

/// A plain answer, sometimes with what only HTTP/2 has a word for.
fn reply(dice: &mut Dice) -> Value {
    let mut fields = fields(replies::plain(dice));
    if let Some(Value::Array(lines)) = fields.get_mut("headers") {
        // Such headers make a message of HTTP/2 malformed.
        let hop = ["connection", "keep-alive", "proxy-connection", "upgrade", "te"];
        lines.retain(|line| !hop.iter().any(|name| line.as_str().unwrap_or_default().starts_with(name)));
    }
    if matches!(fields.get("status").and_then(Value::as_u64), Some(204 | 304)) {
        fields.remove("body");
    }
    dice.field(10, &mut fields, "trailers", json!([["x-t: 1"], ["grpc-status: 7", "x-t: 2"]]));
    if fields.contains_key("trailers") {
        fields.insert("framing".to_owned(), json!("chunked"));
    }
    dice.field(6, &mut fields, "fault", json!(["reset_before_head", "reset_mid_body", "refuse_stream"]));
    Value::Object(fields)
}

fn grpc_reply(dice: &mut Dice) -> Value {
    let mut fields = Map::new();
    fields.insert("headers".to_owned(), json!(["content-type: application/grpc"]));
    match dice.below(3) {
        0 => {
            fields.insert("headers".to_owned(), json!(["content-type: application/grpc", "grpc-status: 12"]));
        }
        1 => dice.field(100, &mut fields, "status", json!([404, 503])),
        _ => {
            fields.insert("body".to_owned(), json!("\u{0}\u{0}\u{0}\u{0}\u{2}ab"));
            fields.insert("framing".to_owned(), json!("chunked"));
            dice.field(
                100,
                &mut fields,
                "trailers",
                json!([["grpc-status: 0"], ["grpc-status: 14", "grpc-message: m%20x"]]),
            );
        }
    }
    Value::Object(fields)
}

/// Names that a request of HTTP/2 does not carry, or that the client sets itself.
const LEFT_OUT: [&str; 8] = [
    "connection",
    "keep-alive",
    "proxy-connection",
    "upgrade",
    "transfer-encoding",
    "te",
    "expect",
    "x-spaces",
];

fn request(dice: &mut Dice, number: usize, is_call: bool) -> Value {
    let is_writable = |path: &str| path.bytes().all(|b| b.is_ascii_graphic() && !b"#\\".contains(&b));
    // The scripted upstream would answer HEAD with a body.
    let method =
        Some(requests::method(dice)).filter(|method| *method != "HEAD" && !is_call).unwrap_or("POST");
    let path = Some(requests::path(dice)).filter(|path| is_writable(path)).unwrap_or("/a/b");
    let is_host =
        |host: &str| !host.is_empty() && host.is_ascii() && !host.ends_with(':') && !host.ends_with(":x");
    let host = Some(requests::host(dice)).filter(|host| is_host(host)).unwrap_or("a.com");
    let mut lines: Vec<String> = requests::headers(dice)
        .into_iter()
        .filter(|(name, _)| !LEFT_OUT.contains(name))
        .map(|(name, value)| format!("{}: {}", name.to_ascii_lowercase(), value.trim()))
        .collect();
    if is_call {
        lines.retain(|line| !line.starts_with("content-type"));
        lines.extend(["content-type: application/grpc".to_owned(), "te: trailers".to_owned()]);
    }
    lines.push(format!("{NUMBER}: {number}"));
    let mut step = Map::new();
    step.insert("request".to_owned(), json!(format!("{method} {path}")));
    step.insert("host".to_owned(), json!(host));
    step.insert("http2".to_owned(), json!(true));
    step.insert("headers".to_owned(), json!(lines));
    if is_call || matches!(method, "POST" | "PUT" | "PATCH") {
        let bodies = json!(["x", ["ab", "cd"], { "text": "0123456789", "times": 100 }]);
        let call = json!(["\u{0}\u{0}\u{0}\u{0}\u{2}ab"]);
        dice.field(85, &mut step, "body", if is_call { call } else { bodies });
        dice.field(15, &mut step, "trailers", json!([["x-trailer: t"]]));
    }
    Value::Object(step)
}
