//! Headers that the configuration adds and removes.

use serde_json::{Map, Value, json};

use super::super::dice::Dice;

const VALUES: &[&str] = &[
    "v",
    "%REQ(X-TEAM)%",
    "%REQ(:path)%",
    "%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%",
    "%PROTOCOL%",
    "a %REQ(nope)% b",
    "%%",
    "%UPSTREAM_REQUEST_ATTEMPT_COUNT%",
    "%RESPONSE_CODE%",
    "%ROUTE_NAME%",
    "%REQ(x-num?x-team):2%",
    "",
    "%RESPONSE_FLAGS%",
    "%REQ(:authority)%",
    "%QUERY_PARAM(x)%",
    "%RESP(x-resp)%",
    "%UPSTREAM_CLUSTER%",
    "%REQ(x-n)%%REQ(x-team)%",
];

const ADDED: &[&str] = &[
    "x-add",
    "x-team",
    "x-multi",
    "x-resp",
    "server",
    "user-agent",
    "cookie",
    "x-num",
    "date",
    "via",
    "x-forwarded-proto",
    "referer",
    "set-cookie",
    "x-envoy-foo",
    "content-type",
    "x-request-id",
];

const REMOVED: &[&str] = &[
    "x-team",
    "x-multi",
    "x-resp",
    "cookie",
    "x-drop",
    "x-num",
    "user-agent",
    "referer",
    "set-cookie",
    "accept",
    "server",
    "date",
    "x-envoy-foo",
    "content-type",
    "x-request-id",
    "x-forwarded-proto",
];

fn added(dice: &mut Dice, level: &str) -> Value {
    let mut fields = Map::new();
    let own = format!("x-{level}");
    let key = if dice.chance(10) { own } else { dice.pick(ADDED).to_owned() };
    let value = dice.pick(VALUES);
    fields.insert("header".to_owned(), json!({ "key": key, "value": value }));
    let actions = json!([
        "APPEND_IF_EXISTS_OR_ADD",
        "ADD_IF_ABSENT",
        "OVERWRITE_IF_EXISTS_OR_ADD",
        "OVERWRITE_IF_EXISTS"
    ]);
    dice.field(80, &mut fields, "append_action", actions);
    dice.field(20, &mut fields, "keep_empty_value", json!([true]));
    Value::Object(fields)
}

/// Gives `fields` rules for the headers of requests and responses, often none.
pub fn rules(dice: &mut Dice, level: &str, fields: &mut Map<String, Value>) {
    for side in ["request", "response"] {
        dice.made(35, fields, &format!("{side}_headers_to_add"), |dice| {
            dice.several(&[1, 1, 2, 3], |dice| added(dice, level))
        });
        dice.made(20, fields, &format!("{side}_headers_to_remove"), |dice| {
            let count = dice.pick(&[1, 2]);
            json!(dice.sample(REMOVED, count))
        });
    }
}
