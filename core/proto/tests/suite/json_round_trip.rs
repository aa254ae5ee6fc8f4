//! JSON to wire to JSON is stable, for random messages of every type.

use dhow_base::Rng;
use dhow_proto::{FieldType, Kind, MessageType, PrintOptions, encode_json, message_types, to_json_with};
use serde_json::{Map, Value, json};

#[test]
fn random_messages_survive_the_way_to_the_wire_and_back() {
    let seed = match std::env::var("DHOW_TEST_SEED") {
        Ok(seed) => seed.parse().expect("DHOW_TEST_SEED is a number"),
        Err(_) => Rng::from_entropy().next_u64(),
    };
    println!("DHOW_TEST_SEED={seed}");
    let mut rng = Rng::seeded(seed);
    let types: Vec<MessageType> = message_types().filter(|message| !is_map_entry(*message)).collect();
    for round in 0..3 {
        for &message in &types {
            let tree = value_of(message, &types, &mut rng, 4);
            let name = message.full_name();
            let options = PrintOptions { redact: false, ..PrintOptions::default() };
            let wire = encode_json(name, &tree)
                .unwrap_or_else(|error| panic!("{name}, round {round}: {error}\n{tree}"));
            let printed = to_json_with(name, &wire, options).expect("well formed");
            let again = encode_json(name, &printed)
                .unwrap_or_else(|error| panic!("{name}, round {round}: {error}\n{tree}\n{printed}"));
            let printed_again = to_json_with(name, &again, options).expect("well formed");
            assert_eq!(printed, printed_again, "{name}, round {round}: {tree}");
        }
    }
}

#[test]
fn random_bytes_never_panic() {
    let seed = Rng::from_entropy().next_u64();
    println!("seed {seed}");
    let mut rng = Rng::seeded(seed);
    let types: Vec<MessageType> = message_types().collect();
    for _ in 0..20_000 {
        let message = types[rng.index(types.len())];
        let bytes: Vec<u8> = (0..rng.index(40)).map(|_| rng.next_u32() as u8 & 0x7f).collect();
        let _ = to_json_with(message.full_name(), &bytes, PrintOptions::default());
        let _ = dhow_proto::check_message(message.full_name(), &bytes, &dhow_proto::CheckOptions::default());
    }
}

/// Map entries are no messages of their own to anybody.
fn is_map_entry(message: MessageType) -> bool {
    message.short_name().ends_with("Entry") && message.fields().len() == 2
}

fn value_of(message: MessageType, types: &[MessageType], rng: &mut Rng, depth: usize) -> Value {
    match message.full_name() {
        "google.protobuf.Any" => return any(types, rng, depth),
        "google.protobuf.Duration" => return json!(format!("{}.{:03}s", rng.below(1000), rng.below(1000))),
        "google.protobuf.Timestamp" => return json!(format!("20{:02}-01-02T03:04:05Z", rng.below(100))),
        "google.protobuf.FieldMask" => return json!("fooBar,baz"),
        "google.protobuf.Struct" => return json!({ "k": dynamic(rng, depth) }),
        "google.protobuf.ListValue" => return json!([dynamic(rng, depth)]),
        "google.protobuf.Value" => return dynamic(rng, depth),
        "google.protobuf.Empty" => return json!({}),
        name if name.starts_with("google.protobuf.") && name.ends_with("Value") => {
            return message.field_by_number(1).map_or(Value::Null, |field| scalar(field.kind(), rng));
        }
        _ => {}
    }
    let mut object = Map::new();
    let mut members: Vec<FieldType> = message.fields().collect();
    while depth > 0 && !members.is_empty() && object.len() < 6 {
        let field = members.swap_remove(rng.index(members.len()));
        // Of the fields that may exclude each other, the first one drawn stays.
        if excludes(message, &object, field) {
            continue;
        }
        object.insert(field.name().to_owned(), field_value(field, types, rng, depth - 1));
    }
    Value::Object(object)
}

/// Asks the reader itself, with empty values, whether the field fits beside the others.
fn excludes(message: MessageType, object: &Map<String, Value>, field: FieldType) -> bool {
    let mut trial = object.clone();
    trial.insert(field.name().to_owned(), Value::Null);
    for (name, value) in &mut trial {
        let field = message.field_by_name(name).expect("drawn from the type");
        *value = match field.kind() {
            _ if field.is_map() => json!({}),
            _ if field.is_repeated() => json!([]),
            Kind::Message(target) => value_of(target, &[], &mut Rng::seeded(1), 0),
            kind => scalar(kind, &mut Rng::seeded(1)),
        };
    }
    encode_json(message.full_name(), &Value::Object(trial)).is_err_and(|error| error.reason.contains("oneof"))
}

fn field_value(field: FieldType, types: &[MessageType], rng: &mut Rng, depth: usize) -> Value {
    if let (true, Kind::Message(entry)) = (field.is_map(), field.kind()) {
        let part = |number| entry.field_by_number(number).expect("a map entry has key and value");
        let key = match scalar(part(1).kind(), rng) {
            Value::String(text) => text,
            other => other.to_string(),
        };
        return json!({ key: field_value(part(2), types, rng, depth) });
    }
    let one = |rng: &mut Rng| match field.kind() {
        Kind::Message(target) => value_of(target, types, rng, depth),
        kind => scalar(kind, rng),
    };
    if !field.is_repeated() {
        return one(rng);
    }
    let count = rng.index(3);
    Value::Array((0..count).map(|_| one(rng)).collect())
}

fn any(types: &[MessageType], rng: &mut Rng, depth: usize) -> Value {
    if depth == 0 || types.is_empty() {
        return json!({});
    }
    let payload = types[rng.index(types.len())];
    let type_url = format!("type.googleapis.com/{}", payload.full_name());
    let value = value_of(payload, types, rng, depth - 1);
    match value {
        Value::Object(mut object) if !payload.full_name().starts_with("google.protobuf.") => {
            object.insert("@type".to_owned(), type_url.into());
            Value::Object(object)
        }
        _ if payload.full_name() == "google.protobuf.Empty" => json!({ "@type": type_url }),
        value => json!({ "@type": type_url, "value": value }),
    }
}

fn dynamic(rng: &mut Rng, depth: usize) -> Value {
    match rng.below(if depth == 0 { 4 } else { 6 }) {
        0 => Value::Null,
        1 => json!(rng.below(2) == 0),
        2 => json!(rng.unit() * 100.0),
        3 => json!(text(rng)),
        4 => json!([dynamic(rng, depth - 1)]),
        _ => json!({ text(rng): dynamic(rng, depth - 1) }),
    }
}

fn scalar(kind: Kind, rng: &mut Rng) -> Value {
    match kind {
        Kind::Double | Kind::Float => json!(rng.unit() as f32),
        Kind::Int32 | Kind::Sint32 | Kind::Sfixed32 => json!(rng.next_u32() as i32),
        Kind::Uint32 | Kind::Fixed32 => json!(rng.next_u32()),
        Kind::Int64 | Kind::Sint64 | Kind::Sfixed64 => json!((rng.next_u64() as i64).to_string()),
        Kind::Uint64 | Kind::Fixed64 => json!(rng.next_u64()),
        Kind::Bool => json!(rng.below(2) == 0),
        Kind::String => json!(text(rng)),
        Kind::Bytes => json!(["", "Zm9v", "-_8"][rng.index(3)]),
        Kind::Enum(enumeration) => {
            let values: Vec<_> = enumeration.values().collect();
            if enumeration.full_name() == "google.protobuf.NullValue" {
                return Value::Null;
            }
            json!(values[rng.index(values.len())].name)
        }
        Kind::Message(_) => Value::Null,
    }
}

fn text(rng: &mut Rng) -> String {
    (0..rng.index(6)).map(|_| ['a', 'Z', '0', '"', '\\', '\n', 'é', '😀'][rng.index(8)]).collect()
}
