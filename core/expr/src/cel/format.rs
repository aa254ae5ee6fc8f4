//! `format`: a text with the values of a list in the places of its clauses.

use super::strings::duration;
use super::time;
use super::value::{NoValue, Value, six_digits};

/// Digits behind the point when a clause does not say how many.
const PRECISION: usize = 6;
/// The most that it may say.
const MAX_PRECISION: usize = 1000;

/// Puts values in the places of clauses. More values than clauses make no difference.
///
/// # Errors
/// For clauses that are none, that have no value, or whose value is of a kind that they do not print.
pub(crate) fn format(text: &str, values: &[Value<'_>]) -> Result<String, NoValue> {
    let mut out = String::with_capacity(text.len());
    let mut values = values.iter();
    let mut rest = text;
    while let Some((before, clause)) = rest.split_once('%') {
        out.push_str(before);
        if let Some(behind) = clause.strip_prefix('%') {
            out.push('%');
            rest = behind;
            continue;
        }
        let (precision, clause) = precision_of(clause)?;
        let mut letters = clause.chars();
        let letter = letters.next().ok_or(NoValue)?;
        let value = values.next().ok_or(NoValue)?;
        out.push_str(&print(letter, precision, value)?);
        rest = letters.as_str();
    }
    out.push_str(rest);
    Ok(out)
}

/// The number of digits that a clause begins with, and what stands behind it.
fn precision_of(clause: &str) -> Result<(usize, &str), NoValue> {
    let Some(digits) = clause.strip_prefix('.') else { return Ok((PRECISION, clause)) };
    let end = digits.find(|c: char| !c.is_ascii_digit()).ok_or(NoValue)?;
    let (digits, rest) = digits.split_at(end);
    let precision = digits.parse().ok().filter(|precision| *precision <= MAX_PRECISION);
    Ok((precision.ok_or(NoValue)?, rest))
}

fn print(letter: char, precision: usize, value: &Value<'_>) -> Result<String, NoValue> {
    match letter {
        's' => text_of(value),
        'd' => match value {
            Value::Int(value) => Ok(value.to_string()),
            Value::Uint(value) => Ok(value.to_string()),
            Value::Double(value) => Ok(finite(*value, |value| format!("{value:.PRECISION$}"))),
            _ => Err(NoValue),
        },
        'f' => number(value, |value| format!("{value:.precision$}")),
        'e' => number(value, |value| scientific(value, precision)),
        'b' => match value {
            Value::Bool(value) => Ok(u8::from(*value).to_string()),
            value => whole(value, |value| format!("{value:b}")),
        },
        'o' => whole(value, |value| format!("{value:o}")),
        'x' => hexadecimal(value),
        'X' => hexadecimal(value).map(|text| text.to_ascii_uppercase()),
        _ => Err(NoValue),
    }
}

/// Any number, and the texts that stand for those that are not finite.
fn number(value: &Value<'_>, print: impl Fn(f64) -> String) -> Result<String, NoValue> {
    let value = match value {
        Value::Int(value) => *value as f64,
        Value::Uint(value) => *value as f64,
        Value::Double(value) => *value,
        Value::Text(text) if matches!(&**text, "NaN" | "Infinity" | "-Infinity") => {
            return Ok(text.to_string());
        }
        _ => return Err(NoValue),
    };
    Ok(finite(value, print))
}

fn finite(value: f64, print: impl Fn(f64) -> String) -> String {
    match value {
        _ if value.is_nan() => "NaN".to_owned(),
        f64::INFINITY => "Infinity".to_owned(),
        f64::NEG_INFINITY => "-Infinity".to_owned(),
        _ => print(value),
    }
}

fn scientific(value: f64, precision: usize) -> String {
    let text = format!("{value:.precision$e}");
    let Some((digits, exponent)) = text.split_once('e') else { return text };
    let (sign, exponent) = exponent.strip_prefix('-').map_or(('+', exponent), |exponent| ('-', exponent));
    format!("{digits}e{sign}{exponent:0>2}")
}

/// A whole number by its digits, with a sign in front.
fn whole(value: &Value<'_>, print: impl Fn(u64) -> String) -> Result<String, NoValue> {
    match value {
        Value::Int(value) => {
            let sign = if *value < 0 { "-" } else { "" };
            Ok(format!("{sign}{}", print(value.unsigned_abs())))
        }
        Value::Uint(value) => Ok(print(*value)),
        _ => Err(NoValue),
    }
}

fn hexadecimal(value: &Value<'_>) -> Result<String, NoValue> {
    let bytes = match value {
        Value::Text(text) => text.as_bytes(),
        Value::Bytes(bytes) => bytes,
        value => return whole(value, |value| format!("{value:x}")),
    };
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

/// Any value. The entries of a map are ordered by their keys as they are printed; attributes that are looked up when they are asked
/// for have no text.
fn text_of(value: &Value<'_>) -> Result<String, NoValue> {
    Ok(match value {
        Value::Null => "null".to_owned(),
        Value::Bool(value) => value.to_string(),
        Value::Int(value) => value.to_string(),
        Value::Uint(value) => value.to_string(),
        Value::Double(value) => finite(*value, six_digits),
        Value::Text(text) => text.to_string(),
        Value::Bytes(bytes) => String::from_utf8_lossy(bytes).into_owned(),
        Value::Duration(nanos) => duration(*nanos),
        Value::Timestamp(nanos) => timestamp(*nanos),
        Value::Type(name) => name.as_str().to_owned(),
        Value::List(_) | Value::Values(_) => {
            let elements = value.elements().unwrap_or_default();
            let texts = elements.iter().map(text_of).collect::<Result<Vec<_>, _>>()?;
            format!("[{}]", texts.join(", "))
        }
        Value::Map(_) | Value::Struct(_) => {
            let entries = value.entries().unwrap_or_default();
            let print = |(key, value): &(Value<'_>, Value<'_>)| Ok((key_of(key)?, text_of(value)?));
            let mut texts = entries.iter().map(print).collect::<Result<Vec<_>, NoValue>>()?;
            texts.sort();
            let texts: Vec<_> = texts.into_iter().map(|(key, value)| format!("{key}: {value}")).collect();
            format!("{{{}}}", texts.join(", "))
        }
        Value::Group(_) => return Err(NoValue),
    })
}

fn key_of(key: &Value<'_>) -> Result<String, NoValue> {
    match key {
        Value::Bool(_) | Value::Int(_) | Value::Uint(_) | Value::Text(_) => text_of(key),
        _ => Err(NoValue),
    }
}

/// In Universal Time, with as many digits behind the point as there are.
fn timestamp(nanos: i128) -> String {
    let mut text = Vec::new();
    time::append_seconds(nanos, &mut text);
    let fraction = format!(".{:09}", nanos.rem_euclid(1_000_000_000));
    let fraction = fraction.trim_end_matches('0').trim_end_matches('.');
    format!("{}{fraction}Z", String::from_utf8_lossy(&text))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn formatted(text: &str, values: &[Value<'_>]) -> Option<String> {
        format(text, values).ok()
    }

    #[test]
    fn clauses_print_values_as_the_reference_does() {
        let (int, double, text) = (Value::Int, Value::Double, Value::text);
        for (clause, value, expected) in [
            ("%s", double(123_456_789.125), "1.23457e+08"),
            ("%s", double(f64::NEG_INFINITY), "-Infinity"),
            ("%s", Value::Null, "null"),
            ("%s", Value::Timestamp(500_000_000), "1970-01-01T00:00:00.5Z"),
            ("%s", Value::Timestamp(-120), "1969-12-31T23:59:59.99999988Z"),
            ("%s", Value::Duration(1_000_100_000), "1.000100s"),
            ("%s", Value::Type(Value::Timestamp(0).type_name()), "google.protobuf.Timestamp"),
            ("%s", Value::List(vec![int(1), text("a"), double(2.5)]), "[1, a, 2.5]"),
            ("%s", Value::Map(vec![(text("b"), int(1)), (int(3), Value::List(vec![]))]), "{3: [], b: 1}"),
            ("%d", double(1.0), "1.000000"),
            ("%.3d", int(5), "5"),
            ("%.2f", double(1.255), "1.25"),
            ("%.0f", double(2.5), "2"),
            ("%.3f", double(-0.0004), "-0.000"),
            ("%f", Value::Uint(2), "2.000000"),
            ("%f", text("NaN"), "NaN"),
            ("%.3e", double(123_456.789), "1.235e+05"),
            ("%.2e", double(1e-100), "1.00e-100"),
            ("%e", double(-0.0), "-0.000000e+00"),
            ("%b", int(-5), "-101"),
            ("%b", Value::Bool(true), "1"),
            ("%o", int(-8), "-10"),
            ("%x", int(i64::MIN), "-8000000000000000"),
            ("%X", text("hello"), "68656C6C6F"),
            ("%x", Value::Bytes(b"\x01\xff"[..].into()), "01ff"),
        ] {
            assert_eq!(
                formatted(clause, std::slice::from_ref(&value)).as_deref(),
                Some(expected),
                "{clause}"
            );
        }
        let values = [int(1), text("ä"), int(2)];
        assert_eq!(formatted("100%% %d-%s ö", &values).as_deref(), Some("100% 1-ä ö"));
    }

    #[test]
    fn clauses_without_their_value_have_none() {
        let (int, text) = (Value::Int(1), Value::text("1"));
        for (clauses, value) in [
            ("%", &int),
            ("%s%", &int),
            ("%s %s", &int),
            ("%z", &int),
            ("%5d", &int),
            ("%.f", &int),
            ("%.-1f", &int),
            ("%.", &int),
            ("%.3", &int),
            ("%.1001f", &int),
            ("%d", &text),
            ("%f", &text),
            ("%b", &text),
            ("%d", &Value::Bool(true)),
            ("%s", &Value::Map(vec![(Value::Double(1.5), Value::Int(1))])),
        ] {
            assert_eq!(formatted(clauses, std::slice::from_ref(value)), None, "{clauses}");
        }
    }
}
