//! Messages that Envoy's configuration may contain and the `envoy-types` package lacks. Their Rust types are in
//! `src/supplement.rs`.

use crate::descriptors::{Field, Message, Oneof, Schema};

pub const STRING: u8 = 9;
pub const BOOL: u8 = 8;
pub const MESSAGE: u8 = 11;

pub fn add(schema: &mut Schema) {
    for name in ["udpa.type.v1.TypedStruct", "xds.type.v3.TypedStruct"] {
        let file = if name.starts_with("udpa") {
            "udpa/type/v1/typed_struct.proto"
        } else {
            "xds/type/v3/typed_struct.proto"
        };
        let fields =
            vec![field("type_url", 1, STRING, ""), field("value", 2, MESSAGE, "google.protobuf.Struct")];
        push(schema, name, file, fields, vec![]);
    }
    push(
        schema,
        "google.protobuf.FieldMask",
        "google/protobuf/field_mask.proto",
        vec![Field { repeated: true, ..field("paths", 1, STRING, "") }],
        vec![],
    );
    push(
        schema,
        "xds.type.matcher.v3.CelMatcher",
        "xds/type/matcher/v3/cel.proto",
        vec![
            Field {
                rules: required_message(),
                ..field("expr_match", 1, MESSAGE, "xds.type.v3.CelExpression")
            },
            field("description", 2, STRING, ""),
        ],
        vec![],
    );
    push(
        schema,
        "xds.type.matcher.v3.HttpAttributesCelMatchInput",
        "xds/type/matcher/v3/http_inputs.proto",
        vec![],
        vec![],
    );
    push_custom_trees(schema);
}

/// The matching trees over addresses and over server names.
fn push_custom_trees(schema: &mut Schema) {
    const ON_MATCH: &str = "xds.type.matcher.v3.Matcher.OnMatch";
    for (tree, list, leaf, file, keys) in [
        (
            "xds.type.matcher.v3.IPMatcher",
            "range_matchers",
            "xds.type.matcher.v3.IPMatcher.IPRangeMatcher",
            "xds/type/matcher/v3/ip.proto",
            field("ranges", 1, MESSAGE, "xds.core.v3.CidrRange"),
        ),
        (
            "xds.type.matcher.v3.ServerNameMatcher",
            "domain_matchers",
            "xds.type.matcher.v3.ServerNameMatcher.DomainMatcher",
            "xds/type/matcher/v3/domain.proto",
            field("domains", 1, STRING, ""),
        ),
    ] {
        let keys = Field { repeated: true, rules: at_least_one_item(), ..keys };
        let mut fields = vec![keys, field("on_match", 2, MESSAGE, ON_MATCH)];
        if leaf.ends_with("IPRangeMatcher") {
            fields.push(field("exclusive", 3, BOOL, ""));
        }
        push(schema, leaf, file, fields, vec![]);
        push(schema, tree, file, vec![Field { repeated: true, ..field(list, 1, MESSAGE, leaf) }], vec![]);
    }
}

pub fn push(schema: &mut Schema, name: &str, file: &str, fields: Vec<Field>, oneofs: Vec<Oneof>) {
    // A later version of the package may bring the message along.
    if schema.messages.iter().all(|message| message.name != name) {
        schema.messages.push(Message {
            name: name.to_owned(),
            file: file.to_owned(),
            fields,
            oneofs,
            ..Message::default()
        });
    }
}

pub fn field(name: &str, number: u32, kind: u8, type_name: &str) -> Field {
    Field { name: name.to_owned(), number, kind, type_name: type_name.to_owned(), ..Field::default() }
}

/// `validate.FieldRules { message: { required: true } }`
pub fn required_message() -> Vec<u8> {
    vec![0x8a, 0x01, 0x02, 0x10, 0x01]
}

/// `validate.FieldRules { repeated: { min_items: 1 } }`
pub fn at_least_one_item() -> Vec<u8> {
    vec![0x92, 0x01, 0x02, 0x08, 0x01]
}
