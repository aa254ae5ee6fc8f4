//! Scalars: from a JSON value to the wire.

use serde_json::{Number, Value as Json};

use crate::tables::{EnumType, Kind};
use crate::wire::{WireType, put_bytes, put_tag, put_uint, put_varint, zigzag};
use dhow_base::base64;

/// Why a JSON value is not a value of a scalar type.
#[derive(Debug, PartialEq)]
pub(crate) enum ScalarError {
    /// The value has the wrong form; the text says which form was expected.
    Wrong(String),
    /// No value of the enum has this name.
    UnknownEnumValue(String),
}

impl From<String> for ScalarError {
    fn from(reason: String) -> Self {
        Self::Wrong(reason)
    }
}

/// Appends one scalar field. With `omit_default` nothing is appended for zero, false and empty: proto3 fields without
/// presence. Packed elements are written without a tag, as `number` 0.
///
/// # Errors
/// The value is not one of the type.
pub(crate) fn put_scalar(
    out: &mut Vec<u8>,
    number: u32,
    kind: Kind,
    value: &Json,
    omit_default: bool,
) -> Result<(), ScalarError> {
    match kind {
        Kind::String => {
            let text = value.as_str().ok_or_else(|| expected(value, '"'))?;
            if !(omit_default && text.is_empty()) {
                put_bytes(out, number, text.as_bytes());
            }
        }
        Kind::Bytes => {
            let text = value.as_str().ok_or_else(|| expected(value, '"'))?;
            let bytes = base64::decode(text).ok_or_else(|| "corrupt base64".to_owned())?;
            if !(omit_default && bytes.is_empty()) {
                put_bytes(out, number, &bytes);
            }
        }
        Kind::Float | Kind::Fixed32 | Kind::Sfixed32 => {
            let bits = match kind {
                Kind::Float => float32(value)?.to_bits(),
                Kind::Fixed32 => unsigned(value, u64::from(u32::MAX))? as u32,
                _ => signed(value, i64::from(i32::MIN), i64::from(i32::MAX))? as u32,
            };
            if !(omit_default && bits == 0) {
                put_tag_if(out, number, WireType::Fixed32);
                out.extend_from_slice(&bits.to_le_bytes());
            }
        }
        Kind::Double | Kind::Fixed64 | Kind::Sfixed64 => {
            let bits = match kind {
                Kind::Double => float(value)?.to_bits(),
                Kind::Fixed64 => unsigned(value, u64::MAX)?,
                _ => signed(value, i64::MIN, i64::MAX)? as u64,
            };
            if !(omit_default && bits == 0) {
                put_tag_if(out, number, WireType::Fixed64);
                out.extend_from_slice(&bits.to_le_bytes());
            }
        }
        _ => {
            let bits = varint(kind, value)?;
            if omit_default && bits == 0 {
            } else if number == 0 {
                put_varint(out, bits);
            } else {
                put_uint(out, number, bits);
            }
        }
    }
    Ok(())
}

fn put_tag_if(out: &mut Vec<u8>, number: u32, wire_type: WireType) {
    if number != 0 {
        put_tag(out, number, wire_type);
    }
}

fn varint(kind: Kind, value: &Json) -> Result<u64, ScalarError> {
    Ok(match kind {
        Kind::Bool => u64::from(boolean(value)?),
        Kind::Uint32 => unsigned(value, u64::from(u32::MAX))?,
        Kind::Uint64 => unsigned(value, u64::MAX)?,
        Kind::Int32 => signed(value, i64::from(i32::MIN), i64::from(i32::MAX))? as u64,
        Kind::Int64 => signed(value, i64::MIN, i64::MAX)? as u64,
        Kind::Sint32 => zigzag(signed(value, i64::from(i32::MIN), i64::from(i32::MAX))?),
        Kind::Sint64 => zigzag(signed(value, i64::MIN, i64::MAX)?),
        Kind::Enum(enumeration) => i64::from(enum_number(enumeration, value)?) as u64,
        other => return Err(ScalarError::Wrong(format!("{other:?} is not a scalar"))),
    })
}

fn boolean(value: &Json) -> Result<bool, ScalarError> {
    match value {
        Json::Bool(value) => Ok(*value),
        Json::String(text) => match text.to_ascii_lowercase().as_str() {
            "true" | "t" | "yes" | "y" | "1" => Ok(true),
            "false" | "f" | "no" | "n" | "0" => Ok(false),
            _ => Err(no_boolean()),
        },
        _ => Err(no_boolean()),
    }
}

fn no_boolean() -> ScalarError {
    "expected 'true' or 'false'".to_owned().into()
}

/// A name in the declared spelling or, as Envoy's parser also takes it, in any case; or a number.
fn enum_number(enumeration: EnumType, value: &Json) -> Result<i32, ScalarError> {
    if enumeration.full_name() == "google.protobuf.NullValue" && value.is_null() {
        return Ok(0);
    }
    let Json::String(text) = value else {
        let number = signed(value, i64::from(i32::MIN), i64::from(i32::MAX))?;
        return Ok(number as i32);
    };
    enumeration
        .value_by_name(text)
        .or_else(|| enumeration.values().find(|value| value.name.eq_ignore_ascii_case(text)))
        .map(|value| value.number)
        .or_else(|| text.parse().ok())
        .ok_or_else(|| ScalarError::UnknownEnumValue(text.clone()))
}

fn signed(value: &Json, min: i64, max: i64) -> Result<i64, ScalarError> {
    let integer = i64::try_from(integer(value)?).map_err(|_| out_of_range())?;
    if (min..=max).contains(&integer) { Ok(integer) } else { Err(too_wide()) }
}

fn unsigned(value: &Json, max: u64) -> Result<u64, ScalarError> {
    let integer = u64::try_from(integer(value)?).map_err(|_| out_of_range())?;
    if integer <= max { Ok(integer) } else { Err(too_wide()) }
}

/// Not an integer of 64 bits.
fn out_of_range() -> ScalarError {
    "JSON number out of range for int".to_owned().into()
}

/// An integer of 64 bits for a field of 32.
fn too_wide() -> ScalarError {
    "integer out of range".to_owned().into()
}

fn no_number() -> ScalarError {
    "expected number or string".to_owned().into()
}

fn with_other_characters() -> ScalarError {
    "non-number characters in quoted number".to_owned().into()
}

fn integer(value: &Json) -> Result<i128, ScalarError> {
    match value {
        Json::Number(number) => integer_of_number(number),
        Json::String(text) => {
            let digits = text.strip_prefix('-').unwrap_or(text);
            if !digits.is_empty() && digits.bytes().all(|digit| digit.is_ascii_digit()) {
                return text.parse().map_err(|_| out_of_range());
            }
            if text.trim() != text {
                return Err(with_other_characters());
            }
            let number =
                quoted(text).ok_or_else(|| ScalarError::Wrong(format!("invalid number: '{text}'")))?;
            integer_of_float(number)
        }
        _ => Err(no_number()),
    }
}

fn integer_of_number(number: &Number) -> Result<i128, ScalarError> {
    if let Some(value) = number.as_i64() {
        return Ok(value.into());
    }
    if let Some(value) = number.as_u64() {
        return Ok(value.into());
    }
    integer_of_float(number.as_f64().unwrap_or(f64::INFINITY))
}

fn integer_of_float(number: f64) -> Result<i128, ScalarError> {
    if number.fract() != 0.0 {
        return Err("expected integer, but JSON number had fractional part".to_owned().into());
    }
    if number.abs() < 1e30 { Ok(number as i128) } else { Err(out_of_range()) }
}

fn float(value: &Json) -> Result<f64, ScalarError> {
    match value {
        Json::Number(number) => number.as_f64().ok_or_else(out_of_range),
        Json::String(text) => quoted(text).ok_or_else(with_other_characters),
        _ => Err(no_number()),
    }
}

/// A number in quotes, which may be what JSON does not know: `+1`, `.5`, `0x1f`, `inf`.
fn quoted(text: &str) -> Option<f64> {
    match text.strip_prefix("0x").or(text.strip_prefix("0X")) {
        Some(digits) if digits.bytes().all(|digit| digit.is_ascii_hexdigit()) => {
            u64::from_str_radix(digits, 16).ok().map(|number| number as f64)
        }
        Some(_) => None,
        None => text.parse().ok(),
    }
}

fn float32(value: &Json) -> Result<f32, ScalarError> {
    let wide = float(value)?;
    let narrow = wide as f32;
    if wide.is_finite() && !narrow.is_finite() {
        return Err("JSON number out of range for float".to_owned().into());
    }
    Ok(narrow)
}

/// Protobuf's wording for a value of the wrong JSON type.
pub(super) fn expected(value: &Json, opening: char) -> ScalarError {
    ScalarError::Wrong(unexpected(value, opening))
}

/// The words of [`expected`].
pub(super) fn unexpected(value: &Json, opening: char) -> String {
    let found = match value {
        Json::Null => 'n',
        Json::Bool(true) => 't',
        Json::Bool(false) => 'f',
        Json::String(_) => '"',
        Json::Array(_) => '[',
        Json::Object(_) => '{',
        Json::Number(number) => number.to_string().chars().next().unwrap_or('0'),
    };
    format!("unexpected character: '{found}'; expected '{opening}'")
}

/// What protobuf calls a field of this kind where it tells of a wrong value.
pub(super) fn kind_name(kind: Kind) -> String {
    let name = match kind {
        Kind::Message(message) => return format!("message {}", message.full_name()),
        Kind::Enum(enumeration) => return format!("enum {}", enumeration.full_name()),
        Kind::Double => "double",
        Kind::Float => "float",
        Kind::Int64 => "int64",
        Kind::Uint64 => "uint64",
        Kind::Int32 => "int32",
        Kind::Fixed64 => "fixed64",
        Kind::Fixed32 => "fixed32",
        Kind::Bool => "bool",
        Kind::String => "string",
        Kind::Bytes => "bytes",
        Kind::Uint32 => "uint32",
        Kind::Sfixed32 => "sfixed32",
        Kind::Sfixed64 => "sfixed64",
        Kind::Sint32 => "sint32",
        Kind::Sint64 => "sint64",
    };
    name.to_owned()
}
