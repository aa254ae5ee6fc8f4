//! From the wire to a JSON tree, as Envoy prints it in `/config_dump`.

use serde_json::{Map, Number, Value as Json};

use super::time::{duration_parts, format_duration, format_timestamp};
use crate::tables::{FieldType, Kind, MessageType, WellKnown, lower_camel};
use crate::wire::{Fields, Malformed, WireValue, read_varint, unzigzag};
use dhow_base::base64;

/// What stands in place of a secret.
const REDACTED: &str = "[redacted]";

/// As deep as protobuf itself goes; what lies deeper is left out.
const MAX_DEPTH: usize = 100;

/// Spelling of field names in the output.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum FieldNames {
    /// As declared, `port_value`: Envoy's dumps.
    #[default]
    Declared,
    /// `portValue`: protobuf's default mapping.
    LowerCamel,
}

/// How to print a message.
#[derive(Clone, Copy, Debug)]
pub struct PrintOptions {
    /// Spelling of field names.
    pub names: FieldNames,
    /// Replaces what is marked as sensitive by `[redacted]`.
    pub redact: bool,
}

impl Default for PrintOptions {
    /// Declared names, secrets redacted: the form of `/config_dump`.
    fn default() -> Self {
        Self { names: FieldNames::Declared, redact: true }
    }
}

/// Prints encoded messages.
pub(crate) struct Printer {
    options: PrintOptions,
    depth: usize,
    /// Inside of a message that is sensitive as a whole.
    secret: bool,
}

impl Printer {
    pub(crate) fn new(options: PrintOptions) -> Self {
        Self { options, depth: 0, secret: false }
    }

    /// The message as JSON. Fields that the type does not have are left out.
    pub(crate) fn print(mut self, message: MessageType, bytes: &[u8]) -> Result<Json, Malformed> {
        self.message(message, bytes)
    }

    fn message(&mut self, message: MessageType, bytes: &[u8]) -> Result<Json, Malformed> {
        if self.depth >= MAX_DEPTH {
            return Ok(Json::Null);
        }
        self.depth += 1;
        let json = match message.well_known() {
            Some(well_known) => self.well_known(well_known, message, bytes),
            None => self.fields(message, bytes).map(Json::Object),
        };
        self.depth -= 1;
        json
    }

    fn fields(&mut self, message: MessageType, bytes: &[u8]) -> Result<Map<String, Json>, Malformed> {
        let mut occurrences = Vec::new();
        for field in Fields::new(bytes) {
            let (number, value) = field?;
            if let Some(field) = message.field_by_number(number) {
                occurrences.push((field, value));
            }
        }
        occurrences.sort_by_key(|(field, _)| field.number());
        let mut object = Map::new();
        for group in occurrences.chunk_by(|(left, _), (right, _)| left == right) {
            let field = group[0].0;
            let was_secret = self.secret;
            self.secret |= self.options.redact && field.is_sensitive();
            let json = self.field(field, group);
            self.secret = was_secret;
            if let Some(json) = json? {
                object.insert(self.name(field), json);
            }
        }
        Ok(object)
    }

    fn name(&self, field: FieldType) -> String {
        match self.options.names {
            FieldNames::Declared => field.name().to_owned(),
            FieldNames::LowerCamel => lower_camel(field.name()),
        }
    }

    fn field(
        &mut self,
        field: FieldType,
        occurrences: &[(FieldType, WireValue<'_>)],
    ) -> Result<Option<Json>, Malformed> {
        let values = || occurrences.iter().map(|&(_, value)| value);
        match field.kind() {
            Kind::Message(entry) if field.is_map() => self.map(entry, values()).map(Some),
            kind if field.is_repeated() => {
                let mut items = Vec::new();
                for value in values() {
                    self.elements(kind, value, &mut items)?;
                }
                Ok((!items.is_empty()).then_some(Json::Array(items)))
            }
            Kind::Message(target) => {
                // Occurrences of one message field merge, and concatenation is how they do.
                let mut whole = Vec::new();
                for value in values() {
                    whole.extend_from_slice(bytes_of(value)?);
                }
                self.message(target, &whole).map(Some)
            }
            kind => {
                let Some(last) = values().next_back() else { return Ok(None) };
                let has_presence = field.oneof().is_some();
                if !has_presence && is_default(last) {
                    return Ok(None);
                }
                self.scalar(kind, last)
            }
        }
    }

    fn elements(&mut self, kind: Kind, value: WireValue<'_>, items: &mut Vec<Json>) -> Result<(), Malformed> {
        match (kind, value) {
            (Kind::Message(target), value) => items.push(self.message(target, bytes_of(value)?)?),
            (Kind::String | Kind::Bytes, value) => items.extend(self.scalar(kind, value)?),
            (kind, WireValue::Bytes(mut packed)) => {
                while !packed.is_empty() {
                    let value = unpack(kind, &mut packed)?;
                    items.extend(self.scalar(kind, value)?);
                }
            }
            (kind, value) => items.extend(self.scalar(kind, value)?),
        }
        Ok(())
    }

    fn map<'a>(
        &mut self,
        entry: MessageType,
        values: impl Iterator<Item = WireValue<'a>>,
    ) -> Result<Json, Malformed> {
        let mut object = Map::new();
        let (Some(key_field), Some(value_field)) = (entry.field_by_number(1), entry.field_by_number(2))
        else {
            return Ok(Json::Object(object));
        };
        for value in values {
            let (mut key, mut entry_value) = (None, None);
            for field in Fields::new(bytes_of(value)?) {
                match field? {
                    (1, value) => key = Some(value),
                    (2, value) => entry_value = Some(value),
                    _ => {}
                }
            }
            let was_secret = std::mem::replace(&mut self.secret, false);
            let key = match key {
                Some(key) => self.scalar(key_field.kind(), key)?,
                None => Some(default_of(key_field.kind())),
            };
            self.secret = was_secret;
            let json = match (value_field.kind(), entry_value) {
                (Kind::Message(target), value) => {
                    let bytes = value.map_or(Ok(&[][..]), bytes_of)?;
                    Some(self.message(target, bytes)?)
                }
                (kind, Some(value)) => self.scalar(kind, value)?,
                (kind, None) => Some(default_of(kind)),
            };
            if let (Some(key), Some(json)) = (key, json) {
                object.insert(key.as_str().map_or_else(|| key.to_string(), str::to_owned), json);
            }
        }
        Ok(Json::Object(object))
    }

    /// `None` for what a redacted dump leaves out: secrets that are neither text nor bytes.
    fn scalar(&self, kind: Kind, value: WireValue<'_>) -> Result<Option<Json>, Malformed> {
        if self.secret {
            return Ok(match kind {
                Kind::String => Some(Json::String(REDACTED.to_owned())),
                Kind::Bytes => Some(Json::String(base64::encode(REDACTED.as_bytes()))),
                _ => None,
            });
        }
        let json = match (kind, value) {
            (Kind::String, WireValue::Bytes(bytes)) => {
                Json::String(String::from_utf8_lossy(bytes).into_owned())
            }
            (Kind::Bytes, WireValue::Bytes(bytes)) => Json::String(base64::encode(bytes)),
            (Kind::Double, WireValue::Fixed64(bits)) => number(f64::from_bits(bits)),
            (Kind::Float, WireValue::Fixed32(bits)) => float_number(f32::from_bits(bits)),
            (Kind::Fixed32, WireValue::Fixed32(bits)) => Json::from(bits),
            (Kind::Sfixed32, WireValue::Fixed32(bits)) => Json::from(bits as i32),
            // 64 bits do not fit a JSON number everywhere, so protobuf quotes them.
            (Kind::Fixed64, WireValue::Fixed64(bits)) => Json::String(bits.to_string()),
            (Kind::Sfixed64, WireValue::Fixed64(bits)) => Json::String((bits as i64).to_string()),
            (Kind::Bool, WireValue::Varint(bits)) => Json::Bool(bits != 0),
            (Kind::Int32, WireValue::Varint(bits)) => Json::from(bits as i32),
            (Kind::Uint32, WireValue::Varint(bits)) => Json::from(bits as u32),
            (Kind::Int64, WireValue::Varint(bits)) => Json::String((bits as i64).to_string()),
            (Kind::Uint64, WireValue::Varint(bits)) => Json::String(bits.to_string()),
            (Kind::Sint32, WireValue::Varint(bits)) => Json::from(unzigzag(bits) as i32),
            (Kind::Sint64, WireValue::Varint(bits)) => Json::String(unzigzag(bits).to_string()),
            (Kind::Enum(enumeration), WireValue::Varint(bits)) => {
                match enumeration.value_by_number(bits as i32) {
                    _ if enumeration.full_name() == "google.protobuf.NullValue" => Json::Null,
                    Some(value) => Json::String(value.name.to_owned()),
                    None => Json::from(bits as i32),
                }
            }
            _ => return Err(Malformed),
        };
        Ok(Some(json))
    }

    fn well_known(
        &mut self,
        well_known: WellKnown,
        message: MessageType,
        bytes: &[u8],
    ) -> Result<Json, Malformed> {
        match well_known {
            WellKnown::Any => self.any(bytes),
            WellKnown::Struct => self.structure(bytes),
            WellKnown::ListValue => self.list(bytes),
            WellKnown::Value => self.value(bytes),
            WellKnown::Empty => Ok(Json::Object(Map::new())),
            WellKnown::Duration => {
                let (seconds, nanos) = duration_parts(bytes)?;
                Ok(Json::String(format_duration(seconds, nanos)))
            }
            WellKnown::Timestamp => {
                let (seconds, nanos) = duration_parts(bytes)?;
                Ok(format_timestamp(seconds, nanos).map_or(Json::Null, Json::String))
            }
            WellKnown::FieldMask => {
                let mut paths = Vec::new();
                for field in Fields::new(bytes) {
                    if let (1, WireValue::Bytes(path)) = field? {
                        paths.push(lower_camel(&String::from_utf8_lossy(path)));
                    }
                }
                Ok(Json::String(paths.join(",")))
            }
            WellKnown::Wrapper => {
                let Some(wrapped) = message.field_by_number(1) else { return Ok(Json::Null) };
                let mut json = Some(default_of(wrapped.kind()));
                for field in Fields::new(bytes) {
                    if let (1, value) = field? {
                        json = self.scalar(wrapped.kind(), value)?;
                    }
                }
                Ok(json.filter(|_| !self.secret || wrapped_text(wrapped.kind())).unwrap_or(Json::Null))
            }
        }
    }

    /// The payload's fields after `@type`; a payload of an unknown type stays encoded, under `value`.
    fn any(&mut self, bytes: &[u8]) -> Result<Json, Malformed> {
        let (mut type_url, mut payload) = (String::new(), &[][..]);
        for field in Fields::new(bytes) {
            match field? {
                (1, WireValue::Bytes(bytes)) => type_url = String::from_utf8_lossy(bytes).into_owned(),
                (2, WireValue::Bytes(bytes)) => payload = bytes,
                _ => {}
            }
        }
        let mut object = Map::new();
        if type_url.is_empty() && payload.is_empty() {
            return Ok(Json::Object(object));
        }
        let message = MessageType::of_url(&type_url);
        object.insert("@type".to_owned(), Json::String(type_url));
        match message {
            Some(message) if message.well_known().is_none_or(|kind| kind == WellKnown::Empty) => {
                object.extend(self.fields(message, payload)?);
            }
            Some(message) => {
                object.insert("value".to_owned(), self.message(message, payload)?);
            }
            None => {
                let encoded = if self.secret { REDACTED.to_owned() } else { base64::encode(payload) };
                object.insert("value".to_owned(), Json::String(encoded));
            }
        }
        Ok(Json::Object(object))
    }

    fn structure(&mut self, bytes: &[u8]) -> Result<Json, Malformed> {
        let mut object = Map::new();
        for field in Fields::new(bytes) {
            let (1, WireValue::Bytes(entry)) = field? else { continue };
            let (mut key, mut value) = (String::new(), &[][..]);
            for field in Fields::new(entry) {
                match field? {
                    (1, WireValue::Bytes(bytes)) => key = String::from_utf8_lossy(bytes).into_owned(),
                    (2, WireValue::Bytes(bytes)) => value = bytes,
                    _ => {}
                }
            }
            object.insert(key, self.nested_value(value)?);
        }
        Ok(Json::Object(object))
    }

    fn list(&mut self, bytes: &[u8]) -> Result<Json, Malformed> {
        let mut items = Vec::new();
        for field in Fields::new(bytes) {
            if let (1, WireValue::Bytes(value)) = field? {
                items.push(self.nested_value(value)?);
            }
        }
        Ok(Json::Array(items))
    }

    fn nested_value(&mut self, bytes: &[u8]) -> Result<Json, Malformed> {
        if self.depth >= MAX_DEPTH {
            return Ok(Json::Null);
        }
        self.depth += 1;
        let json = self.value(bytes);
        self.depth -= 1;
        json
    }

    fn value(&mut self, bytes: &[u8]) -> Result<Json, Malformed> {
        let mut json = Json::Null;
        for field in Fields::new(bytes) {
            json = match field? {
                (2, WireValue::Fixed64(_)) | (4, WireValue::Varint(_)) if self.secret => Json::Null,
                (3, WireValue::Bytes(_)) if self.secret => Json::String(REDACTED.to_owned()),
                (2, WireValue::Fixed64(bits)) => number(f64::from_bits(bits)),
                (3, WireValue::Bytes(text)) => Json::String(String::from_utf8_lossy(text).into_owned()),
                (4, WireValue::Varint(bits)) => Json::Bool(bits != 0),
                (5, WireValue::Bytes(bytes)) => self.structure(bytes)?,
                (6, WireValue::Bytes(bytes)) => self.list(bytes)?,
                _ => Json::Null,
            };
        }
        Ok(json)
    }
}

fn wrapped_text(kind: Kind) -> bool {
    matches!(kind, Kind::String | Kind::Bytes)
}

fn bytes_of(value: WireValue<'_>) -> Result<&[u8], Malformed> {
    match value {
        WireValue::Bytes(bytes) => Ok(bytes),
        _ => Err(Malformed),
    }
}

fn is_default(value: WireValue<'_>) -> bool {
    match value {
        WireValue::Varint(bits) | WireValue::Fixed64(bits) => bits == 0,
        WireValue::Fixed32(bits) => bits == 0,
        WireValue::Bytes(bytes) => bytes.is_empty(),
    }
}

fn default_of(kind: Kind) -> Json {
    match kind {
        Kind::String | Kind::Bytes => Json::String(String::new()),
        Kind::Bool => Json::Bool(false),
        Kind::Int64 | Kind::Uint64 | Kind::Fixed64 | Kind::Sfixed64 | Kind::Sint64 => {
            Json::String("0".to_owned())
        }
        Kind::Enum(enumeration) => {
            enumeration.value_by_number(0).map_or(Json::from(0), |value| Json::String(value.name.to_owned()))
        }
        _ => Json::from(0),
    }
}

/// Takes one element off a packed field.
pub(crate) fn unpack<'a>(kind: Kind, packed: &mut &'a [u8]) -> Result<WireValue<'a>, Malformed> {
    match kind {
        Kind::Double | Kind::Fixed64 | Kind::Sfixed64 => {
            let (bits, rest) = packed.split_first_chunk().ok_or(Malformed)?;
            *packed = rest;
            Ok(WireValue::Fixed64(u64::from_le_bytes(*bits)))
        }
        Kind::Float | Kind::Fixed32 | Kind::Sfixed32 => {
            let (bits, rest) = packed.split_first_chunk().ok_or(Malformed)?;
            *packed = rest;
            Ok(WireValue::Fixed32(u32::from_le_bytes(*bits)))
        }
        _ => read_varint(packed).map(WireValue::Varint),
    }
}

/// A number the way protobuf prints it: without a fraction when it has none, as text when JSON cannot express it.
fn number(value: f64) -> Json {
    if value.is_nan() {
        return Json::String("NaN".to_owned());
    }
    if value.is_infinite() {
        return Json::String(if value > 0.0 { "Infinity" } else { "-Infinity" }.to_owned());
    }
    if value.fract() == 0.0 && value.abs() < 1e15 && !(value == 0.0 && value.is_sign_negative()) {
        return Json::from(value as i64);
    }
    Number::from_f64(value).map_or(Json::Null, Json::Number)
}

/// The shortest decimal that reads back as the same `float`.
fn float_number(value: f32) -> Json {
    number(if value.is_finite() {
        value.to_string().parse().unwrap_or(f64::from(value))
    } else {
        f64::from(value)
    })
}
