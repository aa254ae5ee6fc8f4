//! Values to set fields to.

use dhow_proto::{FieldType, Kind, MessageType};
use serde_json::{Value as Json, json};

use super::place::map_value;

/// A value for the field that differs from its default where the type allows it.
pub(super) fn of_field(field: FieldType) -> Json {
    let Kind::Message(target) = field.kind() else {
        let value = scalar(field.kind());
        return if field.is_repeated() { json!([value]) } else { value };
    };
    if field.is_map() {
        let key = target.field_by_number(1).map(FieldType::kind);
        let key = if matches!(key, Some(Kind::String) | None) { "x" } else { "1" };
        let value = match target.field_by_number(2).map(FieldType::kind) {
            Some(Kind::Message(_)) => of_message(map_value(target).unwrap_or(target)),
            Some(kind) => scalar(kind),
            None => Json::Null,
        };
        return json!({ key: value });
    }
    let value = of_message(target);
    if field.is_repeated() { json!([value]) } else { value }
}

/// Every value of an enum but the one that means "not set".
pub(super) fn enum_values(field: FieldType) -> Vec<Json> {
    let Kind::Enum(target) = field.kind() else { return Vec::new() };
    let wrap = |name: &str| if field.is_repeated() { json!([name]) } else { json!(name) };
    target
        .values()
        .filter(|value| value.number != 0 && !value.disallowed)
        .map(|value| wrap(value.name))
        .collect()
}

fn scalar(kind: Kind) -> Json {
    match kind {
        Kind::Bool => json!(true),
        Kind::String => json!("x"),
        Kind::Bytes => json!("eA=="),
        Kind::Double | Kind::Float => json!(1.5),
        Kind::Enum(target) => {
            let values: Vec<_> = target.values().filter(|value| !value.disallowed).collect();
            let telling = values.iter().find(|value| value.number != 0 && !value.deprecated);
            let first = telling.or(values.first());
            json!(first.map_or("", |value| value.name))
        }
        _ => json!(1),
    }
}

/// An empty message, or something simple of the types that JSON writes in a way of their own.
pub(super) fn of_message(target: MessageType) -> Json {
    match target.full_name() {
        "google.protobuf.Duration" => json!("1s"),
        "google.protobuf.Timestamp" => json!("2026-01-01T00:00:00Z"),
        "google.protobuf.BoolValue" => json!(true),
        "google.protobuf.StringValue" => json!("x"),
        "google.protobuf.BytesValue" => json!("eA=="),
        "google.protobuf.DoubleValue" | "google.protobuf.FloatValue" => json!(1.5),
        name if name.starts_with("google.protobuf.")
            && name.ends_with("Value")
            && name != "google.protobuf.Value" =>
        {
            if name.ends_with("ListValue") {
                json!(["x"])
            } else {
                json!(1)
            }
        }
        "google.protobuf.Value" => json!("x"),
        "google.protobuf.Struct" => json!({ "x": "y" }),
        "google.protobuf.Any" => {
            json!({ "@type": "type.googleapis.com/google.protobuf.Struct", "value": { "x": "y" } })
        }
        _ => json!({}),
    }
}

/// Whether fields of this message are settings of ours to look at.
pub(super) fn is_walked(target: MessageType) -> bool {
    !target.full_name().starts_with("google.protobuf.")
}
