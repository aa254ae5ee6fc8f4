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
        Json::String(text) if text == "true" => Ok(true),
        Json::String(text) if text == "false" => Ok(false),
        _ => Err("expected 'true' or 'false'".to_owned().into()),
    }
}

/// A name in the declared spelling or, as Envoy's parser also takes it, in lower case or with dashes; or a number.
fn enum_number(enumeration: EnumType, value: &Json) -> Result<i32, ScalarError> {
    if enumeration.full_name() == "google.protobuf.NullValue" && value.is_null() {
        return Ok(0);
    }
    let Json::String(text) = value else {
        let number = signed(value, i64::from(i32::MIN), i64::from(i32::MAX))?;
        return Ok(number as i32);
    };
    let shouted = || text.to_ascii_uppercase().replace('-', "_");
    enumeration
        .value_by_name(text)
        .or_else(|| enumeration.value_by_name(&shouted()))
        .map(|value| value.number)
        .or_else(|| text.parse().ok())
        .ok_or_else(|| ScalarError::UnknownEnumValue(text.clone()))
}

fn signed(value: &Json, min: i64, max: i64) -> Result<i64, ScalarError> {
    let integer = integer(value)?;
    i64::try_from(integer).ok().filter(|integer| (min..=max).contains(integer)).ok_or_else(out_of_range)
}

fn unsigned(value: &Json, max: u64) -> Result<u64, ScalarError> {
    let integer = integer(value)?;
    u64::try_from(integer).ok().filter(|&integer| integer <= max).ok_or_else(out_of_range)
}

fn out_of_range() -> ScalarError {
    "JSON number out of range for int".to_owned().into()
}

fn integer(value: &Json) -> Result<i128, ScalarError> {
    match value {
        Json::Number(number) => integer_of_number(number),
        Json::String(text) => {
            let digits = text.strip_prefix('-').unwrap_or(text);
            if !digits.is_empty() && digits.bytes().all(|digit| digit.is_ascii_digit()) {
                return text.parse().map_err(|_| out_of_range());
            }
            let number: Number = serde_json::from_str(text)
                .map_err(|_| ScalarError::Wrong(format!("invalid number: '{text}'")))?;
            integer_of_number(&number)
        }
        _ => Err(expected(value, '0')),
    }
}

fn integer_of_number(number: &Number) -> Result<i128, ScalarError> {
    if let Some(value) = number.as_i64() {
        return Ok(value.into());
    }
    if let Some(value) = number.as_u64() {
        return Ok(value.into());
    }
    match number.as_f64() {
        Some(value) if value.fract() != 0.0 => {
            Err("expected integer, but JSON number had fractional part".to_owned().into())
        }
        Some(value) if value.abs() < 1e30 => Ok(value as i128),
        _ => Err(out_of_range()),
    }
}

fn float(value: &Json) -> Result<f64, ScalarError> {
    match value {
        Json::Number(number) => number.as_f64().ok_or_else(out_of_range),
        Json::String(text) => match text.as_str() {
            "NaN" => Ok(f64::NAN),
            "Infinity" => Ok(f64::INFINITY),
            "-Infinity" => Ok(f64::NEG_INFINITY),
            // Only what JSON takes as a number, so neither `inf` nor `0x10`.
            text => serde_json::from_str::<Number>(text)
                .ok()
                .and_then(|number| number.as_f64())
                .or_else(|| lenient_decimal(text))
                .ok_or_else(|| ScalarError::Wrong(format!("invalid number: '{text}'"))),
        },
        _ => Err(expected(value, '0')),
    }
}

/// Decimals that JSON does not know and people write in YAML: `1.`, `.5`, `+1`.
fn lenient_decimal(text: &str) -> Option<f64> {
    let decimal = |letter: u8| letter.is_ascii_digit() || matches!(letter, b'.' | b'+' | b'-' | b'e' | b'E');
    text.bytes().all(decimal).then(|| text.parse().ok()).flatten().filter(|value: &f64| value.is_finite())
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
    let found = match value {
        Json::Null => 'n',
        Json::Bool(true) => 't',
        Json::Bool(false) => 'f',
        Json::String(_) => '"',
        Json::Array(_) => '[',
        Json::Object(_) => '{',
        Json::Number(number) => number.to_string().chars().next().unwrap_or('0'),
    };
    let wanted = if opening == '0' { "a number".to_owned() } else { format!("'{opening}'") };
    ScalarError::Wrong(format!("unexpected character: '{found}'; expected {wanted}"))
}
