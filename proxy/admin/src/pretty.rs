//! JSON as Envoy's pages print it: one blank per level.

use dhow_proto::{EnumType, Kind, MessageType};
use serde::Serialize;
use serde_json::ser::{PrettyFormatter, Serializer};
use serde_json::{Map, Value};

/// Prints a tree, with a newline at its end.
pub(crate) fn print(tree: &Value) -> String {
    let mut out = Vec::new();
    let mut serializer = Serializer::with_formatter(&mut out, PrettyFormatter::with_indent(b" "));
    // Values have string keys only and writing to a Vec cannot fail.
    let written = tree.serialize(&mut serializer);
    debug_assert!(written.is_ok());
    out.push(b'\n');
    String::from_utf8(out).unwrap_or_default()
}

/// Adds the scalar and repeated fields that are not set, with their defaults, also in the messages inside.
pub(crate) fn with_defaults(tree: Value, message: MessageType) -> Value {
    let Value::Object(mut given) = tree else { return tree };
    let mut full = Map::new();
    // As in Envoy: in the order of their numbers, and of those that exclude one another only the one that is set.
    let mut fields: Vec<_> = message.fields().collect();
    fields.sort_unstable_by_key(|field| field.number());
    for field in fields {
        let name = field.name();
        let set = given.remove(name);
        let value = match (field.kind(), set) {
            (Kind::Message(inner), Some(Value::Object(fields))) if !field.is_map() && is_plain(inner) => {
                with_defaults(Value::Object(fields), inner)
            }
            (Kind::Message(inner), Some(Value::Array(items))) if is_plain(inner) => {
                items.into_iter().map(|item| with_defaults(item, inner)).collect()
            }
            (_, Some(set)) => set,
            (_, None) if field.is_map() => Value::Object(Map::new()),
            (_, None) if field.is_repeated() => Value::Array(Vec::new()),
            (Kind::Message(_), None) => continue,
            (_, None) if field.oneof().is_some() => continue,
            (Kind::Bool, None) => Value::Bool(false),
            (Kind::String | Kind::Bytes, None) => Value::String(String::new()),
            (Kind::Enum(kind), None) => first_value(kind),
            (Kind::Int64 | Kind::Uint64 | Kind::Fixed64 | Kind::Sfixed64 | Kind::Sint64, None) => {
                Value::String("0".to_owned())
            }
            (_, None) => Value::from(0),
        };
        full.insert(name.to_owned(), value);
    }
    full.extend(given);
    Value::Object(full)
}

/// Types such as `Struct` and `Any` have a form of their own.
fn is_plain(message: MessageType) -> bool {
    !message.full_name().starts_with("google.protobuf.")
}

fn first_value(kind: EnumType) -> Value {
    kind.value_by_number(0).map_or(Value::from(0), |value| Value::String(value.name.to_owned()))
}
