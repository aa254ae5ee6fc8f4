//! Matchers of texts, headers, query parameters and whole routes.

use serde_json::{Map, Value, json};

use super::super::dice::Dice;

/// A matcher of a text.
pub fn string(dice: &mut Dice) -> Value {
    let mut fields = Map::new();
    match dice.below(5) {
        0 => dice.field(100, &mut fields, "exact", json!(["blue", "a", "5", "1"])),
        1 => dice.field(100, &mut fields, "prefix", json!(["bl", "a"])),
        2 => dice.field(100, &mut fields, "suffix", json!(["ue", "d"])),
        3 => dice.field(100, &mut fields, "contains", json!(["lu", "a,b"])),
        _ => {
            let regex = dice.of(json!(["b.*", "[a-z]+", r"\d+", "a|b"]));
            fields.insert("safe_regex".to_owned(), json!({ "regex": regex }));
            return Value::Object(fields);
        }
    }
    dice.field(30, &mut fields, "ignore_case", json!([true]));
    Value::Object(fields)
}

/// A matcher of a header.
pub fn header(dice: &mut Dice) -> Value {
    let mut fields = Map::new();
    let names = json!([
        "x-team",
        "x-multi",
        "x-num",
        "cookie",
        "x-missing",
        ":method",
        ":authority",
        ":path",
        ":scheme",
        "content-type",
        "x-empty",
        "host"
    ]);
    dice.field(100, &mut fields, "name", names);
    match dice.below(10) {
        0..5 => {
            fields.insert("string_match".to_owned(), string(dice));
        }
        5..7 => dice.field(100, &mut fields, "present_match", json!([true, true, false])),
        7..9 => {
            let range = json!({ "start": dice.of(json!([0, 5, -10])), "end": dice.of(json!([6, 100])) });
            fields.insert("range_match".to_owned(), range);
        }
        _ => {}
    }
    dice.field(25, &mut fields, "invert_match", json!([true]));
    if !fields.contains_key("present_match") {
        dice.field(15, &mut fields, "treat_missing_header_as_empty", json!([true]));
    }
    Value::Object(fields)
}

fn query_parameter(dice: &mut Dice) -> Value {
    let mut fields = Map::new();
    dice.field(100, &mut fields, "name", json!(["x", "debug", "n", "y"]));
    match dice.below(4) {
        0 | 1 => {
            fields.insert("string_match".to_owned(), string(dice));
        }
        2 => dice.field(100, &mut fields, "present_match", json!([true, true, false])),
        _ => {}
    }
    Value::Object(fields)
}

fn cookie(dice: &mut Dice) -> Value {
    let mut fields = Map::new();
    dice.field(100, &mut fields, "name", json!(["a", "b", "sess", "none"]));
    fields.insert("string_match".to_owned(), string(dice));
    dice.field(25, &mut fields, "invert_match", json!([true]));
    Value::Object(fields)
}

/// The condition of a route.
pub fn route(dice: &mut Dice) -> Value {
    let mut fields = Map::new();
    let throw = dice.below(100);
    match throw {
        0..45 => {
            let prefixes = json!(["/", "/a", "/a/", "/api", "/re", "/A", "/old", "/q", "/a/b", ""]);
            dice.field(100, &mut fields, "prefix", prefixes);
        }
        45..60 => {
            let paths = json!(["/a", "/a/b", "/api/v1/users", "/q", "/b", "/A/B"]);
            dice.field(100, &mut fields, "path", paths);
        }
        60..77 => {
            let patterns = [r"/re/\d+/.*", "/a.*", r"/api/v(\d)/.*", "/[ab]", ".*", r"/u/(\w+)/profile"];
            fields.insert("safe_regex".to_owned(), json!({ "regex": dice.pick(&patterns) }));
        }
        77..90 => {
            let prefixes = json!(["/a", "/api", "/api/v1", "/old/path"]);
            dice.field(100, &mut fields, "path_separated_prefix", prefixes);
        }
        _ => {
            let templates = ["/api/*/users/{id}", "/a/**", "/{x}/{y}", "/api/{v=v*}/users", "/u/{n}/profile"];
            fields.insert(
                "path_match_policy".to_owned(),
                json!({
                    "name": "envoy.path.match.uri_template.uri_template_matcher",
                    "typed_config": {
                        "@type": "type.googleapis.com/envoy.extensions.path.match.uri_template.v3.UriTemplateMatchConfig",
                        "path_template": dice.pick(&templates),
                    },
                }),
            );
        }
    }
    if !fields.contains_key("safe_regex") && !fields.contains_key("path_match_policy") {
        dice.field(15, &mut fields, "case_sensitive", json!([false]));
    }
    dice.made(30, &mut fields, "headers", |dice| dice.several(&[1, 1, 2], header));
    dice.made(15, &mut fields, "query_parameters", |dice| dice.several(&[1, 1, 2], query_parameter));
    dice.made(6, &mut fields, "cookies", |dice| dice.several(&[1], cookie));
    dice.made(
        6,
        &mut fields,
        "runtime_fraction",
        |dice| json!({ "default_value": { "numerator": dice.pick(&[0, 100]) } }),
    );
    dice.field(4, &mut fields, "grpc", json!([{}]));
    Value::Object(fields)
}
