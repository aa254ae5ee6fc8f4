//! From a JSON tree to the wire.

use dhow_base::{ConfigError, ConfigWarning, FieldPath, WarningTopic};
use serde_json::{Map, Value as Json};

use super::scalar::{ScalarError, expected, kind_name, put_scalar, unexpected};
use crate::suggest::closest;
use crate::tables::{FieldType, Kind, MessageType, WellKnown};
use crate::wire::{WireType, put_tag, put_varint};

/// As deep as protobuf itself goes.
const MAX_DEPTH: usize = 100;

/// An encoded message with what there is to say about its source.
pub(crate) struct ReadOutcome {
    pub bytes: Vec<u8>,
    pub warnings: Vec<ConfigWarning>,
}

/// Encodes one JSON document as a message.
///
/// It takes what Envoy's parser takes: both spellings of names, enums by name or number, a single value for a repeated
/// field, quoted numbers and truth values; `null` leaves a field unset.
pub(crate) struct JsonReader {
    root: MessageType,
    allow_unknown: bool,
    depth: usize,
    pub(super) path: FieldPath,
    pub(super) out: Vec<u8>,
    warnings: Vec<ConfigWarning>,
}

impl JsonReader {
    /// A reader for a document of type `root`. With `allow_unknown`, unknown fields and enum names become warnings.
    pub(crate) fn new(root: MessageType, allow_unknown: bool) -> Self {
        Self { root, allow_unknown, depth: 0, path: FieldPath::root(), out: Vec::new(), warnings: Vec::new() }
    }

    /// Encodes the document.
    pub(crate) fn read(mut self, document: &Json) -> Result<ReadOutcome, ConfigError> {
        self.message(self.root, document)?;
        Ok(ReadOutcome { bytes: self.out, warnings: self.warnings })
    }

    /// Appends the body of a message of any type.
    pub(super) fn message(&mut self, message: MessageType, value: &Json) -> Result<(), ConfigError> {
        if self.depth >= MAX_DEPTH {
            return Err(self.unreadable(message, "JSON content was too deeply nested"));
        }
        self.depth += 1;
        let outcome = match message.well_known() {
            Some(well_known) => self.well_known(well_known, message, value),
            None => match value {
                Json::Object(object) => self.fields(message, object, None),
                _ => Err(self.wrong(message, expected(value, '{'))),
            },
        };
        self.depth -= 1;
        outcome
    }

    /// Appends the fields of an ordinary message, all but the key `except`.
    pub(super) fn fields(
        &mut self,
        message: MessageType,
        object: &Map<String, Json>,
        except: Option<&str>,
    ) -> Result<(), ConfigError> {
        let mut chosen: Vec<Option<FieldType>> = vec![None; message.oneof_count() as usize];
        let mut written = Vec::with_capacity(object.len());
        for (name, value) in object {
            if except == Some(name) {
                continue;
            }
            let Some(field) = message.field_by_name(name) else {
                self.unknown_field(message, name)?;
                continue;
            };
            if value.is_null() && !takes_null(field.kind()) {
                continue;
            }
            let mark = self.path.mark();
            self.path.push_field(field.name());
            if let Some(oneof) = field.oneof() {
                match chosen[oneof as usize].replace(field) {
                    Some(other) if other != field => {
                        let reason =
                            format!("'{name}' has already been set (either directly or as part of a oneof)");
                        let hint = format!("'{}' and '{}' exclude each other", other.name(), field.name());
                        return Err(self.unreadable_as(&kind_name(field.kind()), &reason).with_hint(hint));
                    }
                    _ => {}
                }
            }
            written.push((field.number(), self.out.len()));
            self.field(message, field, value)?;
            self.path.rewind(mark);
        }
        self.order(&written);
        Ok(())
    }

    /// Puts the fields that were appended last, each given by its number and where it starts, in the order of their numbers, the one that
    /// every encoder has: what is encoded again from the decoded message is then found in here and need not be kept twice.
    fn order(&mut self, written: &[(u32, usize)]) {
        let Some(&(_, first)) = written.first() else { return };
        if written.is_sorted_by_key(|&(number, _)| number) {
            return;
        }
        let ends = written.iter().skip(1).map(|&(_, start)| start).chain([self.out.len()]);
        let mut parts: Vec<_> =
            written.iter().zip(ends).map(|(&(number, start), end)| (number, start..end)).collect();
        parts.sort_by_key(|&(number, _)| number);
        let ordered: Vec<u8> = parts.into_iter().flat_map(|(_, part)| &self.out[part]).copied().collect();
        self.out.truncate(first);
        self.out.extend_from_slice(&ordered);
    }

    fn field(&mut self, message: MessageType, field: FieldType, value: &Json) -> Result<(), ConfigError> {
        if field.is_map() {
            return self.map(message, field, value);
        }
        if field.is_repeated() {
            return self.repeated(message, field, value);
        }
        match field.kind() {
            Kind::Message(target) => self.embedded(field.number(), target, value),
            kind => {
                let omit_default = field.oneof().is_none();
                let appended = put_scalar(&mut self.out, field.number(), kind, value, omit_default);
                appended.or_else(|error| self.scalar_error(message, kind, error)).map_err(|error| match (kind, value) {
                    (Kind::String, Json::Bool(_) | Json::Number(_)) => error.with_hint(
                        "text is wanted; YAML takes plain yes, no, on, off, y, n and numbers for something else, \
                         so put quotes around it",
                    ),
                    _ => error,
                })
            }
        }
    }

    fn repeated(&mut self, message: MessageType, field: FieldType, value: &Json) -> Result<(), ConfigError> {
        let mark = self.path.mark();
        let packed_from = field.is_packed().then_some(self.out.len());
        match value {
            Json::Array(items) => self.elements(message, field, items, &mut 0)?,
            // Envoy's parser takes a single value for a list of one.
            single => self.element(message, field, single)?,
        }
        self.path.rewind(mark);
        if let Some(start) = packed_from
            && self.out.len() > start
        {
            self.wrap(start, field.number());
        }
        Ok(())
    }

    /// Appends `items`, and those of lists among them as if they stood there themselves, as Envoy's parser does. `count` counts
    /// elements.
    fn elements(
        &mut self,
        message: MessageType,
        field: FieldType,
        items: &[Json],
        count: &mut usize,
    ) -> Result<(), ConfigError> {
        let is_list = matches!(field.kind(), Kind::Message(target)
            if ["google.protobuf.Value", "google.protobuf.ListValue"].contains(&target.full_name()));
        let mark = self.path.mark();
        for item in items {
            if let (Json::Array(inner), false) = (item, is_list) {
                self.elements(message, field, inner, count)?;
                continue;
            }
            self.path.push_index(*count);
            self.element(message, field, item)?;
            self.path.rewind(mark);
            *count += 1;
        }
        Ok(())
    }

    /// Appends one element; `null` is an empty one.
    fn element(&mut self, message: MessageType, field: FieldType, item: &Json) -> Result<(), ConfigError> {
        let number = if field.is_packed() { 0 } else { field.number() };
        let is_null = item.is_null() && !takes_null(field.kind());
        match field.kind() {
            Kind::Message(target) if is_null => self.embedded(number, target, &Json::Object(Map::new())),
            Kind::Message(target) => self.embedded(number, target, item),
            kind => {
                let empty = match kind {
                    Kind::String | Kind::Bytes => Json::from(""),
                    Kind::Bool => Json::from(false),
                    _ => Json::from(0),
                };
                let item = if is_null { &empty } else { item };
                let appended = put_scalar(&mut self.out, number, kind, item, false);
                appended.or_else(|error| self.scalar_error(message, kind, error))
            }
        }
    }

    fn map(&mut self, message: MessageType, field: FieldType, value: &Json) -> Result<(), ConfigError> {
        let Kind::Message(entry) = field.kind() else { return Ok(()) };
        let Json::Object(object) = value else {
            return Err(self.wrong(entry, expected(value, '{')));
        };
        let (Some(key_field), Some(value_field)) = (entry.field_by_number(1), entry.field_by_number(2))
        else {
            return Ok(());
        };
        let mark = self.path.mark();
        for (key, value) in object {
            self.path.rewind(mark);
            self.path.push_key(key);
            let start = self.out.len();
            let key = Json::String(key.clone());
            let appended = put_scalar(&mut self.out, 1, key_field.kind(), &key, false);
            appended.or_else(|error| self.scalar_error(message, key_field.kind(), error))?;
            match value_field.kind() {
                Kind::Message(target) if value.is_null() && !takes_null(value_field.kind()) => {
                    self.embedded(2, target, &Json::Object(Map::new()))?;
                }
                // Envoy's parser says of what is no such value that the entry is wrong.
                Kind::Message(target) if target.well_known() == Some(WellKnown::Any) => {
                    let start = self.out.len();
                    self.any(entry, value)?;
                    self.wrap(start, 2);
                }
                Kind::Message(target) => self.embedded(2, target, value)?,
                kind => {
                    let appended = put_scalar(&mut self.out, 2, kind, value, false);
                    appended.or_else(|error| self.scalar_error(message, kind, error))?;
                }
            }
            self.wrap(start, field.number());
        }
        self.path.rewind(mark);
        Ok(())
    }

    /// Appends a message field.
    pub(super) fn embedded(
        &mut self,
        number: u32,
        target: MessageType,
        value: &Json,
    ) -> Result<(), ConfigError> {
        let start = self.out.len();
        self.message(target, value)?;
        self.wrap(start, number);
        Ok(())
    }

    /// Puts tag and length in front of what was appended since `start`.
    pub(super) fn wrap(&mut self, start: usize, number: u32) {
        let length = self.out.len() - start;
        let mut head = Vec::with_capacity(16);
        put_tag(&mut head, number, WireType::Bytes);
        put_varint(&mut head, length as u64);
        self.out.splice(start..start, head);
    }

    fn unknown_field(&mut self, message: MessageType, name: &str) -> Result<(), ConfigError> {
        let reason = format!("{}: no such field: '{name}'", self.place(&kind_name(Kind::Message(message))));
        let path = self.path.field(name);
        if self.allow_unknown {
            self.warn_unknown(path, &reason);
            return Ok(());
        }
        let error = ConfigError::new(path, self.unknown_text(&reason));
        Err(match closest(name, message.fields().map(FieldType::name)) {
            Some(candidate) => error.with_hint(format!("did you mean '{candidate}'?")),
            None => error,
        })
    }

    fn scalar_error(
        &mut self,
        message: MessageType,
        kind: Kind,
        error: ScalarError,
    ) -> Result<(), ConfigError> {
        match error {
            ScalarError::UnknownEnumValue(name) => {
                let reason = format!("unknown enum value: '{name}'");
                if self.allow_unknown {
                    self.warn_unknown(self.path.clone(), &reason);
                    return Ok(());
                }
                let error = ConfigError::new(self.path.clone(), self.unknown_text(&reason));
                let field = self
                    .path
                    .as_str()
                    .rsplit('.')
                    .next()
                    .and_then(|last| message.field_by_name(last.split('[').next().unwrap_or(last)));
                let Some(Kind::Enum(enumeration)) = field.map(FieldType::kind) else { return Err(error) };
                let candidate = closest(&name, enumeration.values().map(|value| value.name));
                Err(match candidate {
                    Some(candidate) => error.with_hint(format!("did you mean '{candidate}'?")),
                    None => error,
                })
            }
            ScalarError::Wrong(reason) => Err(self.unreadable_as(&kind_name(kind), &reason)),
        }
    }

    fn warn_unknown(&mut self, path: FieldPath, reason: &str) {
        let root = self.root.full_name();
        let message = format!("Unknown field: type {root} reason INVALID_ARGUMENT: {reason}");
        self.warnings.push(ConfigWarning::new(path, message).about(WarningTopic::Unknown));
    }

    fn unknown_text(&self, reason: &str) -> String {
        let root = self.root.full_name();
        format!("Protobuf message (type {root} reason INVALID_ARGUMENT: {reason}) has unknown fields")
    }

    pub(super) fn wrong(&self, message: MessageType, error: ScalarError) -> ConfigError {
        match error {
            ScalarError::Wrong(reason) => self.unreadable(message, &reason),
            ScalarError::UnknownEnumValue(name) => {
                self.unreadable(message, &format!("unknown enum value: '{name}'"))
            }
        }
    }

    /// The error for a value that is not of the field's type.
    pub(super) fn unreadable(&self, message: MessageType, reason: &str) -> ConfigError {
        self.unreadable_as(&kind_name(Kind::Message(message)), reason)
    }

    /// The same for a value that should have been `what`.
    fn unreadable_as(&self, what: &str, reason: &str) -> ConfigError {
        let place = self.place(what);
        let reason = format!("Unable to parse JSON as proto (INVALID_ARGUMENT: {place}: {reason})");
        ConfigError::new(self.path.clone(), reason)
    }

    /// The error for what should have been a structure: the place is inside of it, and an entry is missed.
    pub(super) fn no_structure(&self, value: &Json) -> ConfigError {
        let reason = unexpected(value, '{');
        let root = self.root.full_name();
        let at = if self.path.is_root() { String::new() } else { format!("{}.", self.path) };
        let place =
            format!("invalid JSON in {root} @ {at}<struct>: message google.protobuf.Struct.FieldsEntry");
        let reason = format!("Unable to parse JSON as proto (INVALID_ARGUMENT: {place}: {reason})");
        ConfigError::new(self.path.clone(), reason)
    }

    fn place(&self, what: &str) -> String {
        let root = self.root.full_name();
        if self.path.is_root() {
            format!("invalid JSON in {root}")
        } else {
            format!("invalid JSON in {root} @ {}: {what}", self.path)
        }
    }
}

/// `null` is a value of `google.protobuf.Value`; for every other type it means that the field is not set.
fn takes_null(kind: Kind) -> bool {
    match kind {
        Kind::Message(message) => message.full_name() == "google.protobuf.Value",
        Kind::Enum(enumeration) => enumeration.full_name() == "google.protobuf.NullValue",
        _ => false,
    }
}
