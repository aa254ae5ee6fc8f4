//! Reads the parts of a `FileDescriptorSet` that the tables need, extensions included.

use crate::wire::{Fields, WireValue};

/// Everything the tables describe.
#[derive(Default)]
pub struct Schema {
    pub messages: Vec<Message>,
    pub enums: Vec<Enum>,
}

#[derive(Default)]
pub struct Message {
    pub name: String,
    pub file: String,
    pub fields: Vec<Field>,
    pub oneofs: Vec<Oneof>,
    pub map_entry: bool,
    pub rules_off: bool,
    pub work_in_progress: bool,
}

#[derive(Default)]
pub struct Field {
    pub name: String,
    pub json_name: String,
    pub number: u32,
    pub kind: u8,
    pub repeated: bool,
    pub optional: bool,
    pub packed: Option<bool>,
    pub type_name: String,
    pub oneof: Option<u32>,
    pub deprecated: bool,
    pub disallowed: bool,
    pub sensitive: bool,
    pub work_in_progress: bool,
    /// Encoded `validate.FieldRules`.
    pub rules: Vec<u8>,
}

#[derive(Default)]
pub struct Oneof {
    pub name: String,
    pub required: bool,
}

#[derive(Default)]
pub struct Enum {
    pub name: String,
    pub file: String,
    pub values: Vec<EnumValue>,
}

#[derive(Default)]
pub struct EnumValue {
    pub name: String,
    pub number: i32,
    pub deprecated: bool,
    pub disallowed: bool,
}

/// Packages that describe descriptors, not configuration.
const LEFT_OUT: &[&str] =
    &["google.api", "validate", "udpa.annotations", "xds.annotations.v3", "envoy.annotations"];

pub fn read(set: &[u8]) -> Schema {
    let mut schema = Schema::default();
    for (number, value) in fields(set) {
        if number == 1 {
            read_file(bytes(value), &mut schema);
        }
    }
    schema
}

fn read_file(file: &[u8], schema: &mut Schema) {
    let (mut path, mut package, mut work_in_progress) = (String::new(), String::new(), false);
    for (number, value) in fields(file) {
        match number {
            1 => path = text(value),
            2 => package = text(value),
            8 => work_in_progress = file_is_work_in_progress(bytes(value)),
            _ => {}
        }
    }
    if LEFT_OUT.contains(&package.as_str()) || path == "google/protobuf/descriptor.proto" {
        return;
    }
    let origin = Origin { path: &path, work_in_progress };
    for (number, value) in fields(file) {
        match number {
            4 => read_message(bytes(value), &package, &origin, schema),
            5 => schema.enums.push(read_enum(bytes(value), &package, &origin)),
            _ => {}
        }
    }
}

struct Origin<'a> {
    path: &'a str,
    work_in_progress: bool,
}

fn read_message(descriptor: &[u8], scope: &str, origin: &Origin<'_>, schema: &mut Schema) {
    let mut message = Message {
        file: origin.path.to_owned(),
        work_in_progress: origin.work_in_progress,
        ..Message::default()
    };
    for (number, value) in fields(descriptor) {
        match number {
            1 => message.name = qualified(scope, &text(value)),
            2 => message.fields.push(read_field(bytes(value))),
            7 => read_message_options(bytes(value), &mut message),
            8 => message.oneofs.push(read_oneof(bytes(value))),
            _ => {}
        }
    }
    for (number, value) in fields(descriptor) {
        match number {
            3 => read_message(bytes(value), &message.name, origin, schema),
            4 => schema.enums.push(read_enum(bytes(value), &message.name, origin)),
            _ => {}
        }
    }
    schema.messages.push(message);
}

fn read_message_options(options: &[u8], message: &mut Message) {
    for (number, value) in fields(options) {
        match number {
            7 => message.map_entry = flag(value),
            // validate.disabled, validate.ignored
            1071 | 1072 => message.rules_off |= flag(value),
            // xds.annotations.v3.message_status
            226_829_418 => message.work_in_progress |= status_is_work_in_progress(bytes(value)),
            _ => {}
        }
    }
}

fn read_field(descriptor: &[u8]) -> Field {
    let mut field = Field::default();
    for (number, value) in fields(descriptor) {
        match number {
            1 => field.name = text(value),
            3 => field.number = integer(value) as u32,
            4 => field.repeated = integer(value) == 3,
            5 => field.kind = integer(value) as u8,
            6 => field.type_name = text(value).trim_start_matches('.').to_owned(),
            8 => read_field_options(bytes(value), &mut field),
            9 => field.oneof = Some(integer(value) as u32),
            10 => field.json_name = text(value),
            17 => field.optional = flag(value),
            _ => {}
        }
    }
    field
}

fn read_field_options(options: &[u8], field: &mut Field) {
    for (number, value) in fields(options) {
        match number {
            2 => field.packed = Some(flag(value)),
            3 => field.deprecated = flag(value),
            // validate.rules; protobuf merges several occurrences by concatenation
            1071 => field.rules.extend_from_slice(bytes(value)),
            // udpa.annotations.sensitive
            76_569_463 => field.sensitive = flag(value),
            // envoy.annotations.disallowed_by_default
            189_503_207 => field.disallowed = flag(value),
            // xds.annotations.v3.field_status
            226_829_418 => field.work_in_progress = status_is_work_in_progress(bytes(value)),
            _ => {}
        }
    }
}

fn read_oneof(descriptor: &[u8]) -> Oneof {
    let mut oneof = Oneof::default();
    for (number, value) in fields(descriptor) {
        match number {
            1 => oneof.name = text(value),
            // validate.required
            2 => oneof.required = fields(bytes(value)).any(|(number, value)| number == 1071 && flag(value)),
            _ => {}
        }
    }
    oneof
}

fn read_enum(descriptor: &[u8], scope: &str, origin: &Origin<'_>) -> Enum {
    let mut enumeration = Enum { file: origin.path.to_owned(), ..Enum::default() };
    for (number, value) in fields(descriptor) {
        match number {
            1 => enumeration.name = qualified(scope, &text(value)),
            2 => enumeration.values.push(read_enum_value(bytes(value))),
            _ => {}
        }
    }
    enumeration
}

fn read_enum_value(descriptor: &[u8]) -> EnumValue {
    let mut enum_value = EnumValue::default();
    for (number, value) in fields(descriptor) {
        match number {
            1 => enum_value.name = text(value),
            2 => enum_value.number = integer(value) as i32,
            3 => {
                for (number, value) in fields(bytes(value)) {
                    match number {
                        1 => enum_value.deprecated = flag(value),
                        // envoy.annotations.disallowed_by_default_enum
                        70_100_853 => enum_value.disallowed = flag(value),
                        _ => {}
                    }
                }
            }
            _ => {}
        }
    }
    enum_value
}

/// `udpa.annotations.file_status` or `xds.annotations.v3.file_status`; both have `work_in_progress` as field 1.
fn file_is_work_in_progress(options: &[u8]) -> bool {
    fields(options).any(|(number, value)| {
        matches!(number, 222_707_719 | 226_829_418) && status_is_work_in_progress(bytes(value))
    })
}

fn status_is_work_in_progress(status: &[u8]) -> bool {
    fields(status).any(|(number, value)| number == 1 && flag(value))
}

fn qualified(scope: &str, name: &str) -> String {
    if scope.is_empty() { name.to_owned() } else { format!("{scope}.{name}") }
}

fn fields(message: &[u8]) -> impl Iterator<Item = (u32, WireValue<'_>)> {
    Fields::new(message).map(|field| field.expect("the descriptor set is well formed"))
}

fn bytes(value: WireValue<'_>) -> &[u8] {
    match value {
        WireValue::Bytes(bytes) => bytes,
        other => panic!("expected bytes in the descriptor set, found {other:?}"),
    }
}

fn text(value: WireValue<'_>) -> String {
    String::from_utf8(bytes(value).to_vec()).expect("names are text")
}

fn integer(value: WireValue<'_>) -> u64 {
    match value {
        WireValue::Varint(value) => value,
        other => panic!("expected an integer in the descriptor set, found {other:?}"),
    }
}

fn flag(value: WireValue<'_>) -> bool {
    integer(value) != 0
}
