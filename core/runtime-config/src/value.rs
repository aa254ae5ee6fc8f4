//! One value, and what it is when read as each of the types.

use std::fmt::Write as _;

use dhow_proto::google::protobuf::{Struct, Value, value::Kind};

use crate::fraction::Fraction;

/// A value of the runtime: its text as `/runtime` shows it, and its readings.
#[derive(Clone, Debug, PartialEq)]
pub struct RuntimeValue {
    text: Box<str>,
    number: Option<f64>,
    boolean: Option<bool>,
    fraction: Option<Fraction>,
}

impl RuntimeValue {
    /// A value that came as text (a string in a message, an override of an operator): numbers and booleans are recognised in it.
    pub fn from_text(text: &str) -> Self {
        let trimmed = text.trim_matches(|c: char| c.is_ascii_whitespace());
        let boolean = match () {
            () if trimmed.eq_ignore_ascii_case("true") => Some(true),
            () if trimmed.eq_ignore_ascii_case("false") => Some(false),
            () => None,
        };
        Self { text: text.into(), number: parse_number(trimmed), boolean, fraction: None }
    }

    /// A value of a message. Null and lists are not values.
    pub(crate) fn from_message(value: &Value) -> Option<Self> {
        match value.kind.as_ref()? {
            Kind::NullValue(_) | Kind::ListValue(_) => None,
            Kind::NumberValue(number) => {
                Some(Self { number: Some(*number), ..Self::opaque(&number.to_string()) })
            }
            Kind::BoolValue(boolean) => {
                Some(Self { boolean: Some(*boolean), ..Self::opaque(&boolean.to_string()) })
            }
            Kind::StringValue(text) => Some(Self::from_text(text)),
            Kind::StructValue(fields) => {
                let mut text = String::new();
                print_struct(fields, 0, &mut text);
                Some(Self { fraction: fraction_of(fields), ..Self::opaque(&text) })
            }
        }
    }

    /// The same readings under another text.
    pub(crate) fn with_text(self, text: &str) -> Self {
        Self { text: text.into(), ..self }
    }

    fn opaque(text: &str) -> Self {
        Self { text: text.into(), number: None, boolean: None, fraction: None }
    }

    /// The text.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The value as a number.
    pub fn number(&self) -> Option<f64> {
        self.number
    }

    /// The value as an integer: a number that is not negative, without its fraction.
    pub fn integer(&self) -> Option<u64> {
        // A float of 2^64 or more saturates, which is what any limit on it means.
        self.number.filter(|number| *number >= 0.0).map(|number| number as u64)
    }

    /// The value as a boolean.
    pub fn boolean(&self) -> Option<bool> {
        self.boolean
    }

    /// The value as a fraction: as it is, or an integer as a percentage.
    pub fn fraction(&self) -> Option<Fraction> {
        let percent = || {
            let numerator = u32::try_from(self.integer()?).unwrap_or(u32::MAX);
            Some(Fraction { numerator, denominator: 100 })
        };
        self.fraction.or_else(percent)
    }
}

fn parse_number(text: &str) -> Option<f64> {
    let (sign, digits) = text.strip_prefix('-').map_or((1.0, text), |digits| (-1.0, digits));
    if let Some(hex) = digits.strip_prefix("0x").or_else(|| digits.strip_prefix("0X")) {
        return u64::from_str_radix(hex, 16).ok().map(|number| sign * number as f64);
    }
    // Only digits begin a number here: `inf` and `nan` are texts.
    let looks_numeric = digits.bytes().next().is_some_and(|byte| byte.is_ascii_digit() || byte == b'.');
    if looks_numeric { text.parse().ok() } else { None }
}

/// Whether a struct is a value of its own and not a group of keys.
pub(crate) fn looks_like_fraction(fields: &Struct) -> bool {
    fields.fields.contains_key("numerator") || fields.fields.contains_key("denominator")
}

/// A struct as `FractionalPercent`, when it has no field besides.
fn fraction_of(message: &Struct) -> Option<Fraction> {
    let mut fraction = Fraction { numerator: 0, denominator: 100 };
    for (name, value) in &message.fields {
        match (name.as_str(), value.kind.as_ref()) {
            ("numerator", Some(Kind::NumberValue(number))) => fraction.numerator = *number as u32,
            ("numerator", _) => fraction.numerator = 0,
            ("denominator", Some(Kind::StringValue(text))) => {
                fraction.denominator = match text.as_str() {
                    "HUNDRED" => 100,
                    "TEN_THOUSAND" => 10_000,
                    "MILLION" => 1_000_000,
                    _ => return None,
                };
            }
            _ => return None,
        }
    }
    Some(fraction)
}

/// The text form of a struct, in order of its fields.
fn print_struct(message: &Struct, indent: usize, out: &mut String) {
    let mut fields: Vec<_> = message.fields.iter().collect();
    fields.sort_by_key(|(name, _)| *name);
    for (name, value) in fields {
        let _ = writeln!(out, "{:indent$}fields {{\n{:indent$}  key: {name:?}", "", "");
        let _ = writeln!(out, "{:indent$}  value {{", "");
        print_value(value, indent + 4, out);
        let _ = writeln!(out, "{:indent$}  }}\n{:indent$}}}", "", "");
    }
}

fn print_value(value: &Value, indent: usize, out: &mut String) {
    let _ = match &value.kind {
        Some(Kind::NumberValue(number)) => writeln!(out, "{:indent$}number_value: {number}", ""),
        Some(Kind::StringValue(text)) => writeln!(out, "{:indent$}string_value: {text:?}", ""),
        Some(Kind::BoolValue(boolean)) => writeln!(out, "{:indent$}bool_value: {boolean}", ""),
        Some(Kind::NullValue(_)) => writeln!(out, "{:indent$}null_value: NULL_VALUE", ""),
        Some(Kind::StructValue(fields)) => {
            let _ = writeln!(out, "{:indent$}struct_value {{", "");
            print_struct(fields, indent + 2, out);
            writeln!(out, "{:indent$}}}", "")
        }
        Some(Kind::ListValue(list)) => {
            let _ = writeln!(out, "{:indent$}list_value {{", "");
            for value in &list.values {
                let _ = writeln!(out, "{:indent$}  values {{", "");
                print_value(value, indent + 4, out);
                let _ = writeln!(out, "{:indent$}  }}", "");
            }
            writeln!(out, "{:indent$}}}", "")
        }
        None => Ok(()),
    };
}
