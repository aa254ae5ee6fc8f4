//! What a scalar means in each dialect.

use crate::Value;

/// A scalar as written.
pub(crate) struct Scalar<'a> {
    pub text: &'a str,
    /// Written without quotes and not as a block.
    pub plain: bool,
    /// The tag written in front of it, if any: `!` and `!local` as they are, `!!str` as `tag:yaml.org,2002:str`.
    pub tag: Option<&'a str>,
}

/// yaml-cpp's reading as Envoy uses it: a quoted scalar without a tag is text; anything else is tried as bool and as
/// integer before it is text.
pub(crate) fn envoy(scalar: &Scalar<'_>) -> Value {
    let text = scalar.text;
    match scalar.tag {
        None if !scalar.plain => return Value::String(text.to_owned()),
        Some("!") => return Value::String(text.to_owned()),
        None if is_null(text) => return Value::Null,
        _ => {}
    }
    if let Some(value) = bool_word(text) {
        return Value::Bool(value);
    }
    match c_integer(text) {
        // Envoy goes through JSON numbers, which are doubles; what may lose digits there travels as text.
        Some(value) if i32::try_from(value).is_ok() => Value::Integer(value),
        Some(value) => Value::String(value.to_string()),
        None => Value::String(text.to_owned()),
    }
}

/// The reading of sigs.k8s.io/yaml.
pub(crate) fn kubernetes(scalar: &Scalar<'_>) -> Result<Value, String> {
    let text = scalar.text;
    match scalar.tag.map(|tag| tag.strip_prefix("tag:yaml.org,2002:").unwrap_or(tag)) {
        None if !scalar.plain => Ok(Value::String(text.to_owned())),
        Some("!" | "str" | "binary") => Ok(Value::String(text.to_owned())),
        None => resolve_go(text),
        Some(tag @ ("null" | "bool" | "int" | "float")) => {
            let value = resolve_go(text)?;
            match (tag, &value) {
                ("null", Value::Null)
                | ("bool", Value::Bool(_))
                | ("int", Value::Integer(_) | Value::Unsigned(_))
                | ("float", Value::Float(_)) => Ok(value),
                ("float", Value::Integer(integer)) => Ok(Value::Float(*integer as f64)),
                _ => Err(format!("cannot decode '{text}' as a !!{tag}")),
            }
        }
        Some(_) => Ok(Value::String(text.to_owned())),
    }
}

fn resolve_go(text: &str) -> Result<Value, String> {
    if is_null(text) {
        return Ok(Value::Null);
    }
    if let Some(value) = bool_word(text) {
        return Ok(Value::Bool(value));
    }
    match text {
        ".inf" | ".Inf" | ".INF" | "+.inf" | "+.Inf" | "+.INF" | "-.inf" | "-.Inf" | "-.INF" | ".nan"
        | ".NaN" | ".NAN" => return Err(format!("'{text}' has no equivalent in JSON")),
        _ => {}
    }
    if !text.starts_with(|first: char| first.is_ascii_digit() || matches!(first, '+' | '-' | '.')) {
        return Ok(Value::String(text.to_owned()));
    }
    let digits = text.replace('_', "");
    if let Some(value) = go_integer(&digits) {
        return Ok(value);
    }
    if looks_like_float(&digits) {
        // The shape is checked, so the only surprise left is an exponent out of range.
        return match digits.parse::<f64>() {
            Ok(value) if value.is_finite() => Ok(Value::Float(value)),
            _ => Err(format!("'{text}' is out of the range of a number")),
        };
    }
    Ok(Value::String(text.to_owned()))
}

fn is_null(text: &str) -> bool {
    matches!(text, "" | "~" | "null" | "Null" | "NULL")
}

/// The words for truth values in both dialects: all lower case, all upper case, or capitalised.
fn bool_word(text: &str) -> Option<bool> {
    let lower = text.to_ascii_lowercase();
    let value = match lower.as_str() {
        "y" | "yes" | "true" | "on" => true,
        "n" | "no" | "false" | "off" => false,
        _ => return None,
    };
    let rest_lower = text[1..].bytes().all(|byte| byte.is_ascii_lowercase());
    let all_upper = text.bytes().all(|byte| byte.is_ascii_uppercase());
    (rest_lower || all_upper).then_some(value)
}

/// A 64-bit integer the way a C++ stream without a fixed base reads it: sign, then `0x` for hexadecimal, `0` for octal.
fn c_integer(text: &str) -> Option<i64> {
    let (negative, digits) = match text.as_bytes().first()? {
        b'-' => (true, &text[1..]),
        b'+' => (false, &text[1..]),
        _ => (false, text),
    };
    let (radix, digits) = match digits.strip_prefix("0x").or_else(|| digits.strip_prefix("0X")) {
        Some(digits) => (16, digits),
        None if digits.len() > 1 && digits.starts_with('0') => (8, &digits[1..]),
        None => (10, digits),
    };
    signed(negative, digits, radix)
}

/// An integer the way Go's `strconv` reads it with base 0, after go-yaml took the underscores out.
fn go_integer(text: &str) -> Option<Value> {
    let (negative, digits) = match text.as_bytes().first()? {
        b'-' => (true, &text[1..]),
        b'+' => (false, &text[1..]),
        _ => (false, text),
    };
    let prefix = digits.get(..2).map(str::to_ascii_lowercase);
    let (radix, digits) = match prefix.as_deref() {
        Some("0x") => (16, &digits[2..]),
        Some("0o") => (8, &digits[2..]),
        Some("0b") => (2, &digits[2..]),
        Some(_) if digits.starts_with('0') => (8, &digits[1..]),
        _ => (10, digits),
    };
    if let Some(value) = signed(negative, digits, radix) {
        return Some(Value::Integer(value));
    }
    let all_digits = !digits.is_empty() && digits.chars().all(|digit| digit.is_digit(radix));
    (all_digits && !negative).then(|| u64::from_str_radix(digits, radix).ok()).flatten().map(Value::Unsigned)
}

fn signed(negative: bool, digits: &str, radix: u32) -> Option<i64> {
    // `from_str_radix` would take a second sign.
    if digits.is_empty() || !digits.chars().all(|digit| digit.is_digit(radix)) {
        return None;
    }
    let magnitude = i128::from_str_radix(digits, radix).ok()?;
    i64::try_from(if negative { -magnitude } else { magnitude }).ok()
}

/// `[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?`
fn looks_like_float(text: &str) -> bool {
    let text = text.strip_prefix(['-', '+']).unwrap_or(text);
    let (mantissa, exponent) = match text.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, Some(exponent.strip_prefix(['-', '+']).unwrap_or(exponent))),
        None => (text, None),
    };
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let mantissa_ok = match mantissa.split_once('.') {
        Some(("", fraction)) => digits(fraction),
        Some((whole, fraction)) => digits(whole) && (fraction.is_empty() || digits(fraction)),
        None => digits(mantissa),
    };
    mantissa_ok && exponent.is_none_or(digits)
}
