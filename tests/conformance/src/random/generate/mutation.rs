//! Changes a valid configuration in one place so that it may no longer be one.

use serde_json::{Value, json};

use super::super::dice::Dice;

/// A configuration and what was done to it.
#[derive(Debug, Clone)]
pub struct Mutant {
    /// Where, and what.
    pub title: String,
    /// The whole configuration.
    pub value: Value,
}

/// Makes mutant `number` of the valid configuration `base`.
pub fn mutant(seed: u64, number: usize, base: &Value) -> Mutant {
    let mut dice = Dice::new(seed, &format!("mutation {number}"));
    loop {
        let mut value = base.clone();
        let title = match dice.below(100) {
            0..50 => odd_scalar(&mut dice, &mut value),
            50..62 => without_field(&mut dice, &mut value),
            62..76 => foreign_field(&mut dice, &mut value),
            76..90 => other_list(&mut dice, &mut value),
            90..95 => borrowed(&mut dice, &mut value),
            _ => other_shape(&mut dice, &mut value),
        };
        if let Some(title) = title.filter(|_| value != *base) {
            return Mutant { title, value };
        }
    }
}

/// The JSON pointers of all values below `value` that `wanted` chooses.
fn places(value: &Value, wanted: fn(&Value) -> bool) -> Vec<String> {
    let mut found = Vec::new();
    collect(value, String::new(), wanted, &mut found);
    found
}

fn collect(value: &Value, at: String, wanted: fn(&Value) -> bool, found: &mut Vec<String>) {
    match value {
        Value::Object(fields) => {
            for (name, value) in fields {
                let name = name.replace('~', "~0").replace('/', "~1");
                collect(value, format!("{at}/{name}"), wanted, found);
            }
        }
        Value::Array(items) => {
            for (index, item) in items.iter().enumerate() {
                collect(item, format!("{at}/{index}"), wanted, found);
            }
        }
        _ => {}
    }
    if wanted(value) && !at.is_empty() {
        found.push(at);
    }
}

fn is_scalar(value: &Value) -> bool {
    !value.is_object() && !value.is_array()
}

/// The name of the field that `place` belongs to.
fn field_of(place: &str) -> &str {
    let is_name = |part: &&str| part.parse::<usize>().is_err();
    place.rsplit('/').find(is_name).unwrap_or_default()
}

/// One of the places of `value` that `wanted` chooses. The fields of routes and their headers are many: others come as often.
fn place(dice: &mut Dice, value: &Value, wanted: fn(&Value) -> bool) -> Option<String> {
    let all = places(value, wanted);
    let (routes, others): (Vec<String>, Vec<String>) =
        all.into_iter().partition(|place| place.contains("/virtual_hosts/"));
    let chosen = if routes.is_empty() || (dice.chance(60) && !others.is_empty()) { others } else { routes };
    (!chosen.is_empty()).then(|| dice.pick(&chosen))
}

fn odd_scalar(dice: &mut Dice, value: &mut Value) -> Option<String> {
    let at = place(dice, value, is_scalar)?;
    let old = value.pointer(&at)?.clone();
    let choices = match dice.below(100) {
        0..20 => of_other_type(&old),
        _ => alike(field_of(&at), &old),
    };
    let new = dice.of(choices);
    let title = format!("{at}: {old} becomes {new}");
    *value.pointer_mut(&at)? = new;
    Some(title)
}

fn of_other_type(old: &Value) -> Value {
    match old {
        Value::String(_) => json!([1, true, 1.5, [], {}, null, ["a"]]),
        Value::Bool(_) => json!(["true", "yes", 1, 0, null, {}, [true]]),
        Value::Number(_) => json!(["1", "x", "", true, null, {}, [1], " 1", "1.0", "0x1"]),
        _ => json!([1, "", {}]),
    }
}

/// Odd values for a field of this name that now has the value `old`.
fn alike(name: &str, old: &Value) -> Value {
    match old {
        Value::Number(_) => json!([
            -1,
            0,
            1,
            7,
            64,
            99,
            101,
            129,
            600,
            65536,
            4294967295_u64,
            4294967296_u64,
            1.5,
            1e30,
            16777217,
            18446744073709551615_u64
        ]),
        Value::String(text) => texts(name, text),
        other => of_other_type(other),
    }
}

fn texts(name: &str, old: &str) -> Value {
    let is_duration = old.ends_with('s') && old[..old.len() - 1].parse::<f64>().is_ok();
    let is_enum = old.len() > 2
        && old.bytes().all(|b| b.is_ascii_uppercase() || b.is_ascii_digit() || b == b'_' || b == b'v');
    if is_duration {
        return json!([
            "-1s",
            "0s",
            "1",
            "soon",
            "0.0000000001s",
            "0.0001s",
            "315576000001s",
            "1.5m",
            "",
            "1 s",
            "+1s",
            "1.s",
            ".5s",
            "9223372036.9s",
            "0.000000001s"
        ]);
    }
    match name {
        "@type" => {
            let last = old.rsplit('.').next().unwrap_or_default();
            json!([
                "",
                old.trim_start_matches("type.googleapis.com/"),
                format!("{old}X"),
                "type.googleapis.com/google.protobuf.Empty",
                "type.googleapis.com/google.protobuf.Struct",
                format!("x.com/{}", old.trim_start_matches("type.googleapis.com/")),
                last,
                "type.googleapis.com/",
                "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router",
                "type.googleapis.com/envoy.config.cluster.v3.Cluster"
            ])
        }
        "regex" | "path_template" => json!([
            "(",
            "[a",
            "(?=x)",
            "a{1001}",
            "",
            "\\8",
            "(?P<n>x)",
            "(?i)a",
            "*",
            "\\",
            "a**",
            "/{x}/{x}",
            "/**/a",
            "no/slash",
            "[[:alpha:]]",
            "\\pN",
            "(a|b",
            "\\C"
        ]),
        "address" | "address_prefix" => json!([
            "",
            "localhost",
            "1.2.3",
            "1.2.3.4.5",
            "::1",
            "1.2.3.4/8",
            "256.1.1.1",
            " 127.0.0.1",
            "fe80::1%lo",
            "0.0.0.0"
        ]),
        "cluster" | "cluster_name" => json!(["", "nope", "ONE", " one", "one\u{0}"]),
        "key" | "header_name" | "cluster_header" | "host_rewrite_header" => json!([
            "",
            ":path",
            "host",
            "Host",
            ":authority",
            "a b",
            "x\n",
            "x\u{0}",
            "é",
            "content-length",
            ":nope",
            "X-Upper"
        ]),
        "value" | "inline_string" | "text_format" | "code" | "path" if old.contains('%') => formats(),
        "value" | "inline_string" => json!([
            "%",
            "%%%",
            "%NOPE%",
            "a\nb",
            "a\u{0}b",
            "",
            "%REQ(",
            "%REQ()%",
            "%DYNAMIC_METADATA()%",
            "%START_TIME(%%)%"
        ]),
        "domains" => json!(["", "*", "a.com", "*.a.com", "a.*", "*a*", "A.COM", "**", "a b"]),
        "substitution" | "prefix_rewrite" | "path_redirect" | "host_rewrite_literal" | "host_redirect" => {
            json!(["\\9", "\\", "\\\\", "a\nb", "", "a\u{0}", "\\1\\2\\3"])
        }
        "retry_on" => json!(["", "nope", "5xx,nope", " 5xx"]),
        "filename" => json!(["", "/nonexistent/x", "."]),
        _ if is_enum => json!(["NOPE", old.to_lowercase(), "", 0, 1, 99, -1, "1"]),
        _ if old.contains('%') => formats(),
        _ => json!(["", "nope", "a\nb", "a\u{0}b", "*", "(", "a b", ":path", "é", "one", "1"]),
    }
}

fn formats() -> Value {
    json!([
        "%",
        "%%",
        "%NOPE%",
        "%REQ%",
        "%REQ()%",
        "%REQ(x",
        "%REQ(x)",
        "%REQ(a?b?c)%",
        "%REQ(x):%",
        "%REQ(x):-1%",
        "%REQ(x):a%",
        "%PROTOCOL(x)%",
        "%PROTOCOL:3%",
        "%START_TIME(%)%",
        "%START_TIME(%E)%",
        "%DYNAMIC_METADATA%",
        "%DYNAMIC_METADATA()%",
        "%FILTER_STATE()%",
        "%FILTER_STATE(a:X)%",
        "%RESPONSE_FLAGS(x)%",
        "%RESP(x?y):3%",
        "%TRAILER(x)%",
        "%QUERY_PARAM()%",
        "%PATH(X:ORIG)%",
        "%PATH(NQ)%",
        "%COMMON_DURATION(DS_RX_BEG:DS_TX_END:ms)%",
        "%COMMON_DURATION(X:Y:ms)%",
        "%COMMON_DURATION(DS_RX_BEG)%",
        "%CEL(request.path)%",
        "%CEL(1 +)%",
        "%GRPC_STATUS(NOPE)%",
        "%GRPC_STATUS(CAMEL_STRING)%",
        "%DOWNSTREAM_PEER_CERT_V_START(%Y)%",
        "%ENVIRONMENT(HOME)%",
        "%ENVIRONMENT()%",
        "%RESPONSE_CODE",
        "RESPONSE_CODE%",
        "%lower%",
        "%REQ(\u{0})%",
        "%UPSTREAM_METADATA([\"a\"])%",
        "%HOSTNAME(x)%"
    ])
}

fn without_field(dice: &mut Dice, value: &mut Value) -> Option<String> {
    let at = place(dice, value, |value| value.as_object().is_some_and(|fields| !fields.is_empty()))?;
    let fields = value.pointer_mut(&at)?.as_object_mut()?;
    let names: Vec<String> = fields.keys().cloned().collect();
    let name = dice.pick(&names);
    let old = fields.shift_remove(&name)?;
    Some(format!("{at}: without {name}, which was {old}"))
}

/// Gives a message a field that it does not have, or does not have here: of another message, or one that nobody knows.
fn foreign_field(dice: &mut Dice, value: &mut Value) -> Option<String> {
    let at = place(dice, value, Value::is_object)?;
    let here = value.pointer(&at)?.as_object()?.clone();
    let (name, new) = if dice.chance(20) {
        (dice.pick(&["no_such_field", "Name", "camelCase", "", "@type", "10"]).to_owned(), json!(1))
    } else {
        // Mostly of a message of the same kind, which has names in common with this one.
        let donors: Vec<(String, Value)> = places(value, Value::is_object)
            .iter()
            .filter_map(|place| value.pointer(place)?.as_object())
            .filter(|donor| donor.keys().any(|name| here.contains_key(name)))
            .flat_map(|donor| donor.iter().map(|(name, value)| (name.clone(), value.clone())))
            .filter(|(name, _)| !here.contains_key(name))
            .collect();
        if donors.is_empty() {
            return None;
        }
        dice.pick(&donors)
    };
    let title = format!("{at}: with {name}: {new}");
    value.pointer_mut(&at)?.as_object_mut()?.insert(name, new);
    Some(title)
}

fn other_list(dice: &mut Dice, value: &mut Value) -> Option<String> {
    let at = place(dice, value, Value::is_array)?;
    let items = value.pointer_mut(&at)?.as_array_mut()?;
    let what = dice.below(8);
    let done = match what {
        0..3 if !items.is_empty() => {
            let again = dice.pick(items);
            items.push(again);
            "an element twice"
        }
        3 => {
            items.clear();
            "empty"
        }
        4 if !items.is_empty() => {
            _ = items.pop();
            "without the last element"
        }
        5 => {
            items.reverse();
            "backwards"
        }
        6 => {
            items.push(json!({}));
            "with an empty element"
        }
        _ => {
            items.push(dice.of(json!([null, "", 1, []])));
            "with an odd element"
        }
    };
    Some(format!("{at}: {done}"))
}

/// Takes over the value of a field of the same name from elsewhere: a name that is already taken, another message of the kind.
fn borrowed(dice: &mut Dice, value: &mut Value) -> Option<String> {
    let at = place(dice, value, |_| true)?;
    let others: Vec<Value> = places(value, |_| true)
        .iter()
        .filter(|other| field_of(other) == field_of(&at) && **other != at)
        .filter_map(|other| value.pointer(other).cloned())
        .collect();
    if others.is_empty() {
        return None;
    }
    let new = dice.pick(&others);
    let title = format!("{at}: becomes {new}");
    *value.pointer_mut(&at)? = new;
    Some(title)
}

fn other_shape(dice: &mut Dice, value: &mut Value) -> Option<String> {
    let at = place(dice, value, |value| !is_scalar(value))?;
    let inner = value.pointer(&at)?.clone();
    let new = match (dice.below(4), &inner) {
        (0, _) => json!({}),
        (1, Value::Array(items)) => items.first().cloned().unwrap_or_default(),
        (1, _) => json!([inner]),
        (2, _) => Value::Null,
        _ => dice.of(json!(["x", 1, true, []])),
    };
    let title = format!("{at}: becomes {new}");
    *value.pointer_mut(&at)? = new;
    Some(title)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mutant_is_the_same_every_time_and_never_its_origin() {
        let base =
            json!({ "a": [{ "name": "x", "timeout": "1s" }, { "name": "y" }], "b": { "n": 1, "f": true } });
        for number in 0..300 {
            let mutant = mutant(3, number, &base);
            assert_ne!(mutant.value, base, "{}", mutant.title);
            assert_eq!(mutant.value, super::mutant(3, number, &base).value);
        }
    }

    #[test]
    fn the_field_of_an_element_is_that_of_its_list() {
        assert_eq!(field_of("/a/domains/0"), "domains");
        assert_eq!(field_of("/a/0/name"), "name");
    }
}
