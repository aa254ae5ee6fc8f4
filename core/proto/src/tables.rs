//! The schema of every message, read straight out of a blob that the build script lays out.
//!
//! Nothing is parsed or allocated at start: a handle is an index, and only the pages that are looked at become resident.

use std::cmp::Ordering;
use std::fmt;

static BLOB: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/tables.bin"));

/// Header words. The build script writes them in this order.
const MESSAGE_COUNT: usize = 0;
const ENUM_COUNT: usize = 1;
const RULE_COUNT: usize = 2;
const MESSAGES: usize = 3;
const FIELDS: usize = 4;
const ONEOFS: usize = 5;
const ENUMS: usize = 6;
const VALUES: usize = 7;
const RULES: usize = 8;
const POOL: usize = 9;

fn word(offset: usize) -> u32 {
    let bytes: [u8; 4] = BLOB[offset..offset + 4].try_into().expect("a word has four bytes");
    u32::from_le_bytes(bytes)
}

fn header(index: usize) -> usize {
    word(index * 4) as usize
}

/// Word `column` of record `index` in `section`, whose records have `width` words.
fn cell(section: usize, index: u32, width: usize, column: usize) -> u32 {
    word(header(section) + (index as usize * width + column) * 4)
}

fn pooled(offset: u32) -> &'static [u8] {
    let start = header(POOL) + offset as usize;
    let length = u16::from_le_bytes([BLOB[start], BLOB[start + 1]]);
    &BLOB[start + 2..start + 2 + usize::from(length)]
}

fn text(offset: u32) -> &'static str {
    // The build script put `str`s in, so this cannot fail; the check costs a few nanoseconds.
    std::str::from_utf8(pooled(offset)).unwrap_or_default()
}

/// Size of the schema in the binary, in bytes.
pub fn table_size() -> usize {
    BLOB.len()
}

/// A message type.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct MessageType(u32);

/// A field of a message type.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct FieldType {
    index: u32,
}

/// An enum type.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct EnumType(u32);

/// A value of an enum.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EnumValue {
    /// Its name, such as `ROUND_ROBIN`.
    pub name: &'static str,
    /// Its number on the wire.
    pub number: i32,
    /// Marked as deprecated.
    pub deprecated: bool,
    /// Refused unless a runtime override allows it.
    pub disallowed: bool,
}

/// A group of fields of which at most one is set.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Oneof {
    pub name: &'static str,
    pub required: bool,
    /// The way in which protobuf describes a proto3 `optional` field; not a oneof to its users.
    pub synthetic: bool,
}

/// The type of a field, in protobuf's terms.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `double`
    Double,
    /// `float`
    Float,
    /// `int64`
    Int64,
    /// `uint64`
    Uint64,
    /// `int32`
    Int32,
    /// `fixed64`
    Fixed64,
    /// `fixed32`
    Fixed32,
    /// `bool`
    Bool,
    /// `string`
    String,
    /// A message; a map is a repeated message of entries.
    Message(MessageType),
    /// `bytes`
    Bytes,
    /// `uint32`
    Uint32,
    /// An enum.
    Enum(EnumType),
    /// `sfixed32`
    Sfixed32,
    /// `sfixed64`
    Sfixed64,
    /// `sint32`
    Sint32,
    /// `sint64`
    Sint64,
}

/// Message types whose JSON form is not the ordinary one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum WellKnown {
    Any,
    Duration,
    Timestamp,
    FieldMask,
    Struct,
    Value,
    ListValue,
    Empty,
    /// One of the wrappers; its only field has number 1.
    Wrapper,
}

impl MessageType {
    /// The type with this full name, such as `envoy.config.cluster.v3.Cluster`.
    pub fn find(full_name: &str) -> Option<Self> {
        search(header(MESSAGE_COUNT) as u32, |index| Self(index).full_name().cmp(full_name)).map(Self)
    }

    /// The type that a type URL names (what follows the last slash).
    pub fn of_url(type_url: &str) -> Option<Self> {
        let (_, full_name) = type_url.rsplit_once('/')?;
        Self::find(full_name)
    }

    /// Package and name, such as `envoy.config.cluster.v3.Cluster`.
    pub fn full_name(self) -> &'static str {
        text(self.cell(0))
    }

    /// What follows the package and any enclosing message.
    pub fn short_name(self) -> &'static str {
        let full_name = self.full_name();
        full_name.rsplit_once('.').map_or(full_name, |(_, name)| name)
    }

    /// The `.proto` file that declares it.
    pub fn file(self) -> &'static str {
        text(self.cell(4) >> 4)
    }

    /// Its fields, in the order of the declaration.
    pub fn fields(self) -> impl ExactSizeIterator<Item = FieldType> + Clone {
        let first = self.cell(1);
        (first..first + (self.cell(2) & 0xffff)).map(|index| FieldType { index })
    }

    /// The field with this number on the wire.
    pub fn field_by_number(self, number: u32) -> Option<FieldType> {
        self.fields().find(|field| field.number() == number)
    }

    /// The field with this name, in either spelling (`port_value`, `portValue`).
    pub fn field_by_name(self, name: &str) -> Option<FieldType> {
        self.fields().find(|field| {
            let declared = field.name();
            declared == name || is_lower_camel_of(name, declared)
        })
    }

    pub(crate) fn oneof(self, position: u32) -> Oneof {
        let cell = cell(ONEOFS, self.cell(3) + position, 1, 0);
        Oneof { name: text(cell >> 4), required: cell & 1 != 0, synthetic: cell & 2 != 0 }
    }

    pub(crate) fn oneof_count(self) -> u32 {
        self.cell(2) >> 16
    }

    pub(crate) fn is_map_entry(self) -> bool {
        self.cell(4) & 1 != 0
    }

    /// The author of the message switched its validation rules off.
    pub(crate) fn rules_off(self) -> bool {
        self.cell(4) & 2 != 0
    }

    pub(crate) fn is_work_in_progress(self) -> bool {
        self.cell(4) & 4 != 0
    }

    pub(crate) fn well_known(self) -> Option<WellKnown> {
        let name = self.full_name().strip_prefix("google.protobuf.")?;
        Some(match name {
            "Any" => WellKnown::Any,
            "Duration" => WellKnown::Duration,
            "Timestamp" => WellKnown::Timestamp,
            "FieldMask" => WellKnown::FieldMask,
            "Struct" => WellKnown::Struct,
            "Value" => WellKnown::Value,
            "ListValue" => WellKnown::ListValue,
            "Empty" => WellKnown::Empty,
            "DoubleValue" | "FloatValue" | "Int64Value" | "UInt64Value" | "Int32Value" | "UInt32Value"
            | "BoolValue" | "StringValue" | "BytesValue" => WellKnown::Wrapper,
            _ => return None,
        })
    }

    fn cell(self, column: usize) -> u32 {
        cell(MESSAGES, self.0, 5, column)
    }
}

impl FieldType {
    /// The declared name, such as `port_value`.
    pub fn name(self) -> &'static str {
        text(self.cell(0))
    }

    /// The number on the wire.
    pub fn number(self) -> u32 {
        self.cell(1)
    }

    /// The type of the field, or of each element of a repeated one.
    pub fn kind(self) -> Kind {
        let target = self.cell(3) & 0xffff;
        match self.cell(2) & 31 {
            1 => Kind::Double,
            2 => Kind::Float,
            3 => Kind::Int64,
            4 => Kind::Uint64,
            5 => Kind::Int32,
            6 => Kind::Fixed64,
            7 => Kind::Fixed32,
            8 => Kind::Bool,
            9 => Kind::String,
            11 => Kind::Message(MessageType(target)),
            12 => Kind::Bytes,
            13 => Kind::Uint32,
            14 => Kind::Enum(EnumType(target)),
            15 => Kind::Sfixed32,
            16 => Kind::Sfixed64,
            17 => Kind::Sint32,
            18 => Kind::Sint64,
            other => unreachable!("the build script refuses field type {other}"),
        }
    }

    /// Several values, or a map.
    pub fn is_repeated(self) -> bool {
        self.flag(5)
    }

    /// A map; its elements are messages of a key (number 1) and a value (number 2).
    pub fn is_map(self) -> bool {
        self.is_repeated() && matches!(self.kind(), Kind::Message(entry) if entry.is_map_entry())
    }

    pub(crate) fn is_packed(self) -> bool {
        self.flag(7)
    }

    /// Marked as deprecated.
    pub fn is_deprecated(self) -> bool {
        self.flag(8)
    }

    /// Deprecated and refused unless a runtime override allows it.
    pub fn is_disallowed(self) -> bool {
        self.flag(9)
    }

    /// Holds a secret, which dumps must not show.
    pub fn is_sensitive(self) -> bool {
        self.flag(10)
    }

    pub(crate) fn is_work_in_progress(self) -> bool {
        self.flag(11)
    }

    /// Position of its oneof among those of the message, those included that only describe a proto3 `optional` field.
    pub fn oneof(self) -> Option<u32> {
        (self.cell(2) >> 16 & 0xff).checked_sub(1)
    }

    /// Key into the table of rules.
    pub(crate) fn rules(self) -> Option<RuleId> {
        (self.cell(3) >> 16).checked_sub(1).map(RuleId)
    }

    fn flag(self, bit: u32) -> bool {
        self.cell(2) >> bit & 1 != 0
    }

    fn cell(self, column: usize) -> u32 {
        cell(FIELDS, self.index, 4, column)
    }
}

impl EnumType {
    /// Package, enclosing message and name.
    pub fn full_name(self) -> &'static str {
        text(cell(ENUMS, self.0, 4, 0))
    }

    /// The `.proto` file that declares it.
    pub fn file(self) -> &'static str {
        text(cell(ENUMS, self.0, 4, 3))
    }

    /// Its values, in the order of the declaration.
    pub fn values(self) -> impl Iterator<Item = EnumValue> {
        let first = cell(ENUMS, self.0, 4, 1);
        (first..first + cell(ENUMS, self.0, 4, 2)).map(|index| {
            let name = cell(VALUES, index, 2, 0);
            EnumValue {
                name: text(name >> 4),
                number: cell(VALUES, index, 2, 1) as i32,
                deprecated: name & 1 != 0,
                disallowed: name & 2 != 0,
            }
        })
    }

    /// The value with this name.
    pub fn value_by_name(self, name: &str) -> Option<EnumValue> {
        self.values().find(|value| value.name == name)
    }

    /// The value with this number.
    pub fn value_by_number(self, number: i32) -> Option<EnumValue> {
        self.values().find(|value| value.number == number)
    }
}

/// Validation rules of one or several fields.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RuleId(u32);

impl RuleId {
    pub(crate) fn count() -> usize {
        header(RULE_COUNT)
    }

    pub(crate) fn index(self) -> usize {
        self.0 as usize
    }

    /// The encoded `validate.FieldRules`.
    pub(crate) fn encoded(self) -> &'static [u8] {
        pooled(cell(RULES, self.0, 1, 0))
    }
}

impl fmt::Debug for MessageType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "MessageType({})", self.full_name())
    }
}

impl fmt::Debug for FieldType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "FieldType({})", self.name())
    }
}

impl fmt::Debug for EnumType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "EnumType({})", self.full_name())
    }
}

/// Every message type, in the order of the names.
pub fn message_types() -> impl Iterator<Item = MessageType> {
    (0..header(MESSAGE_COUNT) as u32).map(MessageType)
}

/// Every enum type, in the order of the names.
pub fn enum_types() -> impl Iterator<Item = EnumType> {
    (0..header(ENUM_COUNT) as u32).map(EnumType)
}

fn search(count: u32, compare: impl Fn(u32) -> Ordering) -> Option<u32> {
    let (mut low, mut high) = (0, count);
    while low < high {
        let middle = low + (high - low) / 2;
        match compare(middle) {
            Ordering::Less => low = middle + 1,
            Ordering::Greater => high = middle,
            Ordering::Equal => return Some(middle),
        }
    }
    None
}

/// True when `name` is what protobuf makes of the field name `declared` in JSON.
fn is_lower_camel_of(name: &str, declared: &str) -> bool {
    let mut name = name.bytes();
    let mut upper = false;
    for letter in declared.bytes() {
        if letter == b'_' {
            upper = true;
            continue;
        }
        let expected = if std::mem::take(&mut upper) { letter.to_ascii_uppercase() } else { letter };
        if name.next() != Some(expected) {
            return false;
        }
    }
    name.next().is_none()
}

/// The lowerCamelCase spelling of a declared field name.
pub(crate) fn lower_camel(declared: &str) -> String {
    let mut camel = String::with_capacity(declared.len());
    let mut upper = false;
    for letter in declared.chars() {
        match letter {
            '_' => upper = true,
            letter if std::mem::take(&mut upper) => camel.push(letter.to_ascii_uppercase()),
            letter => camel.push(letter),
        }
    }
    camel
}

#[cfg(test)]
mod tests {
    use super::{Kind, MessageType, WellKnown, enum_types, lower_camel, message_types};

    #[test]
    fn a_message_is_found_by_name_and_by_url() {
        let cluster = MessageType::find("envoy.config.cluster.v3.Cluster").expect("known");
        assert_eq!(cluster.short_name(), "Cluster");
        assert_eq!(cluster.file(), "envoy/config/cluster/v3/cluster.proto");
        assert_eq!(MessageType::of_url("type.googleapis.com/envoy.config.cluster.v3.Cluster"), Some(cluster));
        assert_eq!(MessageType::of_url("envoy.config.cluster.v3.Cluster"), None);
        assert_eq!(MessageType::find("envoy.config.cluster.v3.Clusterx"), None);
    }

    #[test]
    fn names_are_sorted_so_that_each_is_found() {
        assert!(message_types().count() > 1500);
        for message in message_types() {
            assert_eq!(MessageType::find(message.full_name()), Some(message));
        }
        assert!(enum_types().count() > 150);
    }

    #[test]
    fn the_tables_describe_the_locked_version_of_the_types() {
        let manifest = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
        let lock = manifest.ancestors().map(|folder| folder.join("Cargo.lock")).find(|path| path.is_file());
        let lock = std::fs::read_to_string(lock.expect("a lock file")).expect("readable");
        let version = env!("DHOW_TABLES_VERSION");
        let entry = format!("name = \"envoy-types\"\nversion = \"{version}\"");
        assert!(lock.contains(&entry), "built from version {version}; run `cargo clean -p dhow-proto`");
    }

    #[test]
    fn both_spellings_of_a_field_are_known() {
        let socket = MessageType::find("envoy.config.core.v3.SocketAddress").expect("known");
        let field = socket.field_by_name("port_value").expect("declared");
        assert_eq!(field.number(), 3);
        assert_eq!(field.kind(), Kind::Uint32);
        assert_eq!(socket.field_by_name("portValue"), Some(field));
        assert_eq!(socket.field_by_name("portvalue"), None);
        assert_eq!(socket.field_by_name("PortValue"), None);
        assert_eq!(lower_camel("port_value"), "portValue");
        let oneof = socket.oneof(field.oneof().expect("in a oneof"));
        assert_eq!((oneof.name, oneof.required, oneof.synthetic), ("port_specifier", true, false));
    }

    #[test]
    fn maps_enums_and_annotations_are_described() {
        let metadata = MessageType::find("envoy.config.core.v3.Metadata").expect("known");
        assert!(metadata.field_by_name("filter_metadata").expect("declared").is_map());
        let cluster = MessageType::find("envoy.config.cluster.v3.Cluster").expect("known");
        let Kind::Enum(policy) = cluster.field_by_name("lb_policy").expect("declared").kind() else {
            panic!("an enum")
        };
        assert_eq!(policy.value_by_name("RANDOM").expect("declared").number, 3);
        assert_eq!(policy.value_by_number(0).expect("declared").name, "ROUND_ROBIN");
        let chain = MessageType::find("envoy.config.listener.v3.FilterChain").expect("known");
        assert!(chain.field_by_name("use_proxy_proto").expect("declared").is_deprecated());
        let source = MessageType::find("envoy.config.core.v3.DataSource").expect("known");
        assert!(!source.field_by_name("filename").expect("declared").is_sensitive());
        let certificate =
            MessageType::find("envoy.extensions.transport_sockets.tls.v3.TlsCertificate").expect("known");
        assert!(certificate.field_by_name("private_key").expect("declared").is_sensitive());
    }

    #[test]
    fn well_known_types_are_recognised() {
        let kind = |name: &str| MessageType::find(name).expect("known").well_known();
        assert_eq!(kind("google.protobuf.Any"), Some(WellKnown::Any));
        assert_eq!(kind("google.protobuf.UInt32Value"), Some(WellKnown::Wrapper));
        assert_eq!(kind("envoy.config.core.v3.Node"), None);
    }
}
