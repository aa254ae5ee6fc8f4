//! Values and how they compare and print.

use std::borrow::Cow;
use std::cmp::Ordering;
use std::io::Write;

use super::ast::Literal;
use super::attributes::Group;
use super::time;
use crate::pb::protobuf::{self, Struct, value::Kind};

/// That an expression has no value: a missing attribute or key, an overflow, operands that do not go together. Envoy never
/// shows which.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct NoValue;

/// The types that a value can have, as `type()` tells them apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TypeName {
    Null,
    Bool,
    Int,
    Uint,
    Double,
    Text,
    Bytes,
    List,
    Map,
    Duration,
    Timestamp,
    Type,
}

impl TypeName {
    /// The name as it is printed.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Null => "null_type",
            Self::Bool => "bool",
            Self::Int => "int",
            Self::Uint => "uint",
            Self::Double => "double",
            Self::Text => "string",
            Self::Bytes => "bytes",
            Self::List => "list",
            Self::Map => "map",
            Self::Duration => "google.protobuf.Duration",
            Self::Timestamp => "google.protobuf.Timestamp",
            Self::Type => "type",
        }
    }

    /// The type that a name stands for in expressions.
    pub(crate) fn named(name: &str) -> Option<Self> {
        Some(match name {
            "null_type" => Self::Null,
            "bool" => Self::Bool,
            "int" => Self::Int,
            "uint" => Self::Uint,
            "double" => Self::Double,
            "string" => Self::Text,
            "bytes" => Self::Bytes,
            "list" => Self::List,
            "map" => Self::Map,
            "type" => Self::Type,
            _ => return None,
        })
    }
}

/// A value; texts are borrowed from the stream or the expression where they can be.
#[derive(Clone, Debug)]
pub(crate) enum Value<'a> {
    Null,
    Bool(bool),
    Int(i64),
    Uint(u64),
    Double(f64),
    Text(Cow<'a, str>),
    Bytes(Cow<'a, [u8]>),
    List(Vec<Value<'a>>),
    Map(Vec<(Value<'a>, Value<'a>)>),
    /// A JSON list of metadata.
    Values(&'a [protobuf::Value]),
    /// A JSON object of metadata.
    Struct(&'a Struct),
    /// Attributes that are looked up when asked for.
    Group(Group),
    /// Nanoseconds.
    Duration(i128),
    /// Nanoseconds since 1970.
    Timestamp(i128),
    Type(TypeName),
}

impl<'a> Value<'a> {
    pub(crate) fn text(text: &'a str) -> Self {
        Self::Text(Cow::Borrowed(text))
    }

    /// Text of a header, which may be any bytes.
    pub(crate) fn lossy(bytes: &'a [u8]) -> Self {
        Self::Text(String::from_utf8_lossy(bytes))
    }

    pub(crate) fn literal(literal: &'a Literal) -> Self {
        match literal {
            Literal::Null => Self::Null,
            Literal::Bool(value) => Self::Bool(*value),
            Literal::Int(value) => Self::Int(*value),
            Literal::Uint(value) => Self::Uint(*value),
            Literal::Double(value) => Self::Double(*value),
            Literal::Text(value) => Self::text(value),
            Literal::Bytes(value) => Self::Bytes(Cow::Borrowed(value)),
            Literal::Duration(nanos) => Self::Duration(*nanos),
            Literal::Timestamp(nanos) => Self::Timestamp(*nanos),
        }
    }

    /// A value inside metadata.
    pub(crate) fn json(value: &'a protobuf::Value) -> Self {
        match &value.kind {
            None | Some(Kind::NullValue(_)) => Self::Null,
            Some(Kind::BoolValue(value)) => Self::Bool(*value),
            Some(Kind::NumberValue(value)) => Self::Double(*value),
            Some(Kind::StringValue(value)) => Self::text(value),
            Some(Kind::ListValue(list)) => Self::Values(&list.values),
            Some(Kind::StructValue(fields)) => Self::Struct(fields),
        }
    }

    pub(crate) fn type_name(&self) -> TypeName {
        match self {
            Self::Null => TypeName::Null,
            Self::Bool(_) => TypeName::Bool,
            Self::Int(_) => TypeName::Int,
            Self::Uint(_) => TypeName::Uint,
            Self::Double(_) => TypeName::Double,
            Self::Text(_) => TypeName::Text,
            Self::Bytes(_) => TypeName::Bytes,
            Self::List(_) | Self::Values(_) => TypeName::List,
            Self::Map(_) | Self::Struct(_) | Self::Group(_) => TypeName::Map,
            Self::Duration(_) => TypeName::Duration,
            Self::Timestamp(_) => TypeName::Timestamp,
            Self::Type(_) => TypeName::Type,
        }
    }

    /// The elements of a list.
    pub(crate) fn elements(&self) -> Option<Vec<Value<'a>>> {
        match self {
            Self::List(list) => Some(list.clone()),
            Self::Values(values) => Some(values.iter().map(Self::json).collect()),
            _ => None,
        }
    }

    /// The entries of a map that is a value of its own.
    pub(super) fn entries(&self) -> Option<Vec<(Value<'a>, Value<'a>)>> {
        match self {
            Self::Map(map) => Some(map.clone()),
            Self::Struct(fields) => {
                Some(fields.fields.iter().map(|(key, value)| (Self::text(key), Self::json(value))).collect())
            }
            _ => None,
        }
    }

    /// Equality; values of different types are not equal, numbers are compared as numbers.
    pub(crate) fn equals(&self, other: &Value<'_>) -> bool {
        match (self, other) {
            (Self::Null, Value::Null) => true,
            (Self::Type(a), Value::Type(b)) => a == b,
            _ => {
                if let (Some(a), Some(b)) = (self.elements(), other.elements()) {
                    return a.len() == b.len() && a.iter().zip(&b).all(|(a, b)| a.equals(b));
                }
                if let (Some(a), Some(b)) = (self.entries(), other.entries()) {
                    let same = |(key, value): &(Value<'a>, Value<'a>)| {
                        b.iter().any(|(k, v)| key.equals(k) && value.equals(v))
                    };
                    return a.len() == b.len() && a.iter().all(same);
                }
                self.compare(other) == Some(Ordering::Equal)
            }
        }
    }

    /// Order; none between values that have none.
    pub(crate) fn compare(&self, other: &Value<'_>) -> Option<Ordering> {
        match (self, other) {
            (Self::Bool(a), Value::Bool(b)) => Some(a.cmp(b)),
            (Self::Int(a), Value::Int(b)) => Some(a.cmp(b)),
            (Self::Uint(a), Value::Uint(b)) => Some(a.cmp(b)),
            (Self::Int(a), Value::Uint(b)) => Some(i128::from(*a).cmp(&i128::from(*b))),
            (Self::Uint(a), Value::Int(b)) => Some(i128::from(*a).cmp(&i128::from(*b))),
            (Self::Text(a), Value::Text(b)) => Some(a.cmp(b)),
            (Self::Bytes(a), Value::Bytes(b)) => Some(a.cmp(b)),
            (Self::Duration(a), Value::Duration(b)) => Some(a.cmp(b)),
            (Self::Timestamp(a), Value::Timestamp(b)) => Some(a.cmp(b)),
            _ => self.as_double()?.partial_cmp(&other.as_double()?),
        }
    }

    fn as_double(&self) -> Option<f64> {
        match self {
            Self::Int(value) => Some(*value as f64),
            Self::Uint(value) => Some(*value as f64),
            Self::Double(value) => Some(*value),
            _ => None,
        }
    }

    /// Appends the value as Envoy prints it.
    pub(crate) fn append(&self, out: &mut Vec<u8>) {
        let text: Cow<'_, str> = match self {
            Self::Null => "NULL".into(),
            Self::Bool(value) => if *value { "true" } else { "false" }.into(),
            Self::Int(value) => value.to_string().into(),
            Self::Uint(value) => value.to_string().into(),
            Self::Double(value) => six_digits(*value).into(),
            Self::Text(text) => text.as_ref().into(),
            Self::Bytes(bytes) => return out.extend_from_slice(bytes),
            Self::List(_) | Self::Values(_) => "CelList value".into(),
            Self::Map(_) | Self::Struct(_) | Self::Group(_) => "CelMap value".into(),
            Self::Duration(nanos) => time::duration_text(*nanos).into(),
            Self::Timestamp(nanos) => return time::append_timestamp(*nanos, out),
            Self::Type(_) => "CelType value".into(),
        };
        out.extend_from_slice(text.as_bytes());
    }
}

/// A number with at most six digits that count, as C's `%g` prints it.
pub(super) fn six_digits(value: f64) -> String {
    if !value.is_finite() {
        return if value.is_nan() {
            "nan".to_owned()
        } else {
            format!("{}inf", if value < 0.0 { "-" } else { "" })
        };
    }
    if value == 0.0 {
        return if value.is_sign_negative() { "-0".to_owned() } else { "0".to_owned() };
    }
    let mut scientific = Vec::new();
    // Writing to a Vec cannot fail.
    let _ = write!(scientific, "{value:.5e}");
    let scientific = String::from_utf8(scientific).unwrap_or_default();
    let (digits, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    let exponent: i32 = exponent.parse().unwrap_or_default();
    let trimmed = |digits: &str| match digits.contains('.') {
        true => digits.trim_end_matches('0').trim_end_matches('.').to_owned(),
        false => digits.to_owned(),
    };
    if (-4..6).contains(&exponent) {
        let places = usize::try_from(5 - exponent).unwrap_or_default();
        return trimmed(&format!("{value:.places$}"));
    }
    let sign = if exponent < 0 { '-' } else { '+' };
    format!("{}e{sign}{:02}", trimmed(digits), exponent.abs())
}
