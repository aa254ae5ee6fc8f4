//! What upstreams answer.

use serde_json::{Map, Value, json};

use super::super::dice::Dice;

const HEADERS: &[&str] = &[
    "server: up",
    "date: then",
    "x-envoy-upstream-service-time: 9",
    "x-resp: 1",
    "x-resp: 2",
    "connection: x-gone",
    "x-gone: 1",
    "keep-alive: timeout=1",
    "location: http://a.com/a/b",
    "location: /a",
    "set-cookie: a=b",
    "set-cookie: c=d",
    "via: 1.0 up",
    "x-envoy-foo: z",
    "x-envoy-ratelimited: 1",
    "content-type: text/html",
    "x-request-id: up-id",
    "trailer: q",
    "upgrade: h2c",
    "retry-after: 1",
    "x-Mixed-Case: q",
    "x_res_under: 1",
    "x-drop: 1",
    "access-control-allow-origin: *",
    "cache-control: no-cache",
    "vary: x",
    "proxy-connection: close",
    "te: trailers",
    "x-forwarded-proto: q",
    "x-e: ",
    "grpc-status: 5",
    "alt-svc: h3",
    "x-envoy-upstream-canary: true",
    "x-envoy-attempt-count: 7",
    "x-ok: 1",
];

/// An answer that is well formed, plain more often than not.
pub fn plain(dice: &mut Dice) -> Value {
    let mut fields = Map::new();
    fields.insert("body".to_owned(), json!("from upstream"));
    if !dice.chance(50) {
        return Value::Object(fields);
    }
    let statuses = json!([200, 200, 201, 204, 301, 302, 304, 404, 500, 503, 599]);
    dice.field(100, &mut fields, "status", statuses);
    fields.insert("reason".to_owned(), json!("Whatever"));
    fields.insert("headers".to_owned(), headers(dice));
    dice.field(30, &mut fields, "framing", json!(["chunked", "chunked", "until_close"]));
    dice.field(10, &mut fields, "interim", json!([[100], [103], [102, 103]]));
    dice.field(8, &mut fields, "close", json!([true]));
    dice.field(10, &mut fields, "body", json!(["", { "text": "0123456789", "times": 400 }]));
    if fields.get("framing") == Some(&json!("chunked")) {
        dice.field(30, &mut fields, "trailers", json!([["x-t: 1"], ["grpc-status: 0", "x-t: a"]]));
    }
    Value::Object(fields)
}

/// Some headers of a response.
pub fn headers(dice: &mut Dice) -> Value {
    dice.several(&[0, 1, 2, 3], |dice| json!(dice.pick(HEADERS)))
}
