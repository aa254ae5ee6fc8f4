//! Operators and functions.

use std::borrow::Cow;
use std::cmp::Ordering;

use dhow_matching::PartialRegex;

use super::ast::{Literal, Node};
use super::strings::{self, TextFunction};
use super::time;
use super::value::{NoValue, Value};

/// A part of a timestamp or a duration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    FullYear,
    Month,
    Date,
    DayOfMonth,
    DayOfWeek,
    DayOfYear,
    Hours,
    Minutes,
    Seconds,
    Milliseconds,
}

/// What is applied to evaluated operands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Function {
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
    In,
    Index,
    Not,
    Negate,
    Add,
    Subtract,
    Multiply,
    Divide,
    Remainder,
    Size,
    Contains,
    StartsWith,
    EndsWith,
    Matches,
    Int,
    Uint,
    Double,
    Bool,
    Bytes,
    Type,
    Dyn,
    Timestamp,
    Duration,
    Part(Part),
    /// `string(...)`.
    Text,
    /// `+`, of texts too.
    AddOrJoin,
    OfText(TextFunction),
}

pub(super) fn no_overload(name: &str) -> String {
    format!("failed to create an expression: No overload found in reference resolve step for {name}")
}

/// Makes the node of a call; `args` begins with the receiver when the call was written as a method.
pub(crate) fn call(name: &str, receiver: bool, args: Vec<Node>) -> Result<Node, String> {
    let function = match (name, receiver, args.len()) {
        ("size", _, 1) => Function::Size,
        ("contains", true, 2) => Function::Contains,
        ("startsWith", true, 2) => Function::StartsWith,
        ("endsWith", true, 2) => Function::EndsWith,
        ("matches", _, 2) => return matches(args),
        ("int", false, 1) => Function::Int,
        ("uint", false, 1) => Function::Uint,
        ("double", false, 1) => Function::Double,
        ("bool", false, 1) => Function::Bool,
        ("bytes", false, 1) => Function::Bytes,
        ("type", false, 1) => Function::Type,
        ("dyn", false, 1) => Function::Dyn,
        ("timestamp", false, 1) => Function::Timestamp,
        ("duration", false, 1) => Function::Duration,
        ("string", false, 1) => Function::Text,
        ("quote", true, 2) if is_library(&args[0]) => {
            return Ok(Node::Call(Function::OfText(TextFunction::Quote), args.into_iter().skip(1).collect()));
        }
        ("strings.quote", false, 1) => Function::OfText(TextFunction::Quote),
        (name, true, operands) if let Some(function) = TextFunction::named(name, operands) => {
            Function::OfText(function)
        }
        (name, true, 1 | 2) => Function::Part(part(name).ok_or_else(|| no_overload(name))?),
        _ => return Err(no_overload(name)),
    };
    if let (Function::Part(_), Some(Node::Literal(Literal::Text(zone)))) = (function, args.get(1))
        && time::parse_offset(zone).is_none()
    {
        return Err(format!(
            "the time zone '{zone}' of {name} is not supported: use an offset such as +02:00"
        ));
    }
    Ok(Node::Call(function, args.into()))
}

/// Whether a method's receiver is the name of the library that the function is of.
fn is_library(receiver: &Node) -> bool {
    matches!(receiver, Node::Name(name) if &**name == "strings")
}

fn part(name: &str) -> Option<Part> {
    Some(match name {
        "getFullYear" => Part::FullYear,
        "getMonth" => Part::Month,
        "getDate" => Part::Date,
        "getDayOfMonth" => Part::DayOfMonth,
        "getDayOfWeek" => Part::DayOfWeek,
        "getDayOfYear" => Part::DayOfYear,
        "getHours" => Part::Hours,
        "getMinutes" => Part::Minutes,
        "getSeconds" => Part::Seconds,
        "getMilliseconds" => Part::Milliseconds,
        _ => return None,
    })
}

/// An expression that is a literal is compiled now.
fn matches(args: Vec<Node>) -> Result<Node, String> {
    let [text, regex] = <[Node; 2]>::try_from(args).map_err(|_| no_overload("matches"))?;
    if let Node::Literal(Literal::Text(expression)) = &regex {
        let regex = PartialRegex::from_expression(expression).map_err(|reason| {
            format!("failed to create an expression: invalid regular expression: {reason}")
        })?;
        return Ok(Node::Matches(Box::new(text), regex));
    }
    Ok(Node::Call(Function::Matches, [text, regex].into()))
}

type Outcome<'a> = Result<Value<'a>, NoValue>;

/// Applies a function to its operands; the parser saw to their number. Indexing is with the attributes, as is `in`.
pub(crate) fn apply<'a>(function: Function, mut operands: Vec<Value<'a>>) -> Outcome<'a> {
    if let Function::OfText(function) = function {
        return strings::apply(function, &operands);
    }
    let second = if operands.len() > 1 { operands.pop() } else { None };
    let first = operands.pop().ok_or(NoValue)?;
    let Some(second) = second else { return apply_to_one(function, first) };
    match function {
        Function::Equal => Ok(Value::Bool(first.equals(&second))),
        Function::NotEqual => Ok(Value::Bool(!first.equals(&second))),
        Function::Less => ordered(&first, &second, Ordering::is_lt),
        Function::LessOrEqual => ordered(&first, &second, Ordering::is_le),
        Function::Greater => ordered(&first, &second, Ordering::is_gt),
        Function::GreaterOrEqual => ordered(&first, &second, Ordering::is_ge),
        Function::Add | Function::Subtract | Function::Multiply | Function::Divide | Function::Remainder => {
            arithmetic(function, &first, &second)
        }
        Function::AddOrJoin => match strings::joined(&first, &second) {
            Some(joined) => Ok(joined),
            None => arithmetic(Function::Add, &first, &second),
        },
        Function::Part(part) => match (first, second) {
            (Value::Timestamp(nanos), Value::Text(zone)) => {
                let offset = time::parse_offset(&zone).ok_or(NoValue)?;
                Ok(Value::Int(time::timestamp_part(nanos, offset, part)))
            }
            _ => Err(NoValue),
        },
        Function::Contains | Function::StartsWith | Function::EndsWith | Function::Matches => {
            let (Value::Text(text), Value::Text(other)) = (first, second) else { return Err(NoValue) };
            Ok(Value::Bool(match function {
                Function::Contains => text.contains(&*other),
                Function::StartsWith => text.starts_with(&*other),
                Function::EndsWith => text.ends_with(&*other),
                _ => PartialRegex::from_expression(&other).map_err(|_| NoValue)?.is_match(text.as_bytes()),
            }))
        }
        _ => Err(NoValue),
    }
}

fn ordered<'a>(first: &Value<'_>, second: &Value<'_>, wanted: fn(Ordering) -> bool) -> Outcome<'a> {
    let comparable = |value: &Value<'_>| !matches!(value, Value::Double(number) if number.is_nan());
    if !comparable(first) || !comparable(second) {
        return Ok(Value::Bool(false));
    }
    first.compare(second).map(|order| Value::Bool(wanted(order))).ok_or(NoValue)
}

fn arithmetic<'a>(function: Function, first: &Value<'_>, second: &Value<'_>) -> Outcome<'a> {
    macro_rules! checked {
        ($a:expr, $b:expr) => {
            match function {
                Function::Add => $a.checked_add(*$b),
                Function::Subtract => $a.checked_sub(*$b),
                Function::Multiply => $a.checked_mul(*$b),
                Function::Divide => $a.checked_div(*$b),
                _ => $a.checked_rem(*$b),
            }
            .ok_or(NoValue)
        };
    }
    match (first, second) {
        (Value::Int(a), Value::Int(b)) => checked!(a, b).map(Value::Int),
        (Value::Uint(a), Value::Uint(b)) => checked!(a, b).map(Value::Uint),
        (Value::Double(a), Value::Double(b)) => Ok(Value::Double(match function {
            Function::Add => a + b,
            Function::Subtract => a - b,
            Function::Multiply => a * b,
            Function::Divide => a / b,
            _ => return Err(NoValue),
        })),
        (Value::Timestamp(a), Value::Duration(b)) => match function {
            Function::Add => Ok(Value::Timestamp(a + b)),
            Function::Subtract => Ok(Value::Timestamp(a - b)),
            _ => Err(NoValue),
        },
        (Value::Duration(a), Value::Timestamp(b)) if function == Function::Add => Ok(Value::Timestamp(a + b)),
        (Value::Timestamp(a), Value::Timestamp(b)) if function == Function::Subtract => {
            Ok(Value::Duration(a - b))
        }
        (Value::Duration(a), Value::Duration(b)) => match function {
            Function::Add => Ok(Value::Duration(a + b)),
            Function::Subtract => Ok(Value::Duration(a - b)),
            _ => Err(NoValue),
        },
        _ => Err(NoValue),
    }
}

fn apply_to_one(function: Function, operand: Value<'_>) -> Outcome<'_> {
    match function {
        Function::Not => match operand {
            Value::Bool(value) => Ok(Value::Bool(!value)),
            _ => Err(NoValue),
        },
        Function::Negate => match operand {
            Value::Int(value) => value.checked_neg().map(Value::Int).ok_or(NoValue),
            Value::Double(value) => Ok(Value::Double(-value)),
            _ => Err(NoValue),
        },
        Function::Size => {
            size(&operand).and_then(|size| i64::try_from(size).ok()).map(Value::Int).ok_or(NoValue)
        }
        Function::Dyn => Ok(operand),
        Function::Text => strings::text_of(operand),
        Function::Type => Ok(Value::Type(operand.type_name())),
        Function::Part(part) => match operand {
            Value::Timestamp(nanos) => Ok(Value::Int(time::timestamp_part(nanos, 0, part))),
            Value::Duration(nanos) => time::duration_part(nanos, part).map(Value::Int).ok_or(NoValue),
            _ => Err(NoValue),
        },
        _ => convert(function, operand).ok_or(NoValue),
    }
}

fn size(value: &Value<'_>) -> Option<usize> {
    Some(match value {
        Value::Text(text) => text.chars().count(),
        Value::Bytes(bytes) => bytes.len(),
        Value::List(list) => list.len(),
        Value::Values(values) => values.len(),
        Value::Map(map) => map.len(),
        Value::Struct(fields) => fields.fields.len(),
        _ => return None,
    })
}

fn convert(function: Function, operand: Value<'_>) -> Option<Value<'_>> {
    Some(match (function, operand) {
        (Function::Int, Value::Int(value)) => Value::Int(value),
        (Function::Int, Value::Uint(value)) => Value::Int(i64::try_from(value).ok()?),
        (Function::Int, Value::Double(value)) => {
            Value::Int((value.abs() < 9_223_372_036_854_775_807.0).then_some(value as i64)?)
        }
        (Function::Int, Value::Text(text)) => Value::Int(text.parse().ok()?),
        (Function::Int, Value::Timestamp(nanos)) => {
            Value::Int(i64::try_from(nanos.div_euclid(1_000_000_000)).ok()?)
        }
        (Function::Uint, Value::Uint(value)) => Value::Uint(value),
        (Function::Uint, Value::Int(value)) => Value::Uint(u64::try_from(value).ok()?),
        (Function::Uint, Value::Double(value)) => {
            Value::Uint((0.0..18_446_744_073_709_551_615.0).contains(&value).then_some(value as u64)?)
        }
        (Function::Uint, Value::Text(text)) => Value::Uint(text.parse().ok()?),
        (Function::Double, Value::Double(value)) => Value::Double(value),
        (Function::Double, Value::Int(value)) => Value::Double(value as f64),
        (Function::Double, Value::Uint(value)) => Value::Double(value as f64),
        (Function::Double, Value::Text(text)) => Value::Double(text.parse().ok()?),
        (Function::Bool, Value::Bool(value)) => Value::Bool(value),
        (Function::Bool, Value::Text(text)) => Value::Bool(match &*text {
            "1" | "t" | "T" | "true" | "TRUE" | "True" => true,
            "0" | "f" | "F" | "false" | "FALSE" | "False" => false,
            _ => return None,
        }),
        (Function::Bytes, Value::Bytes(bytes)) => Value::Bytes(bytes),
        (Function::Bytes, Value::Text(text)) => Value::Bytes(match text {
            Cow::Borrowed(text) => Cow::Borrowed(text.as_bytes()),
            Cow::Owned(text) => Cow::Owned(text.into_bytes()),
        }),
        (Function::Timestamp, Value::Timestamp(nanos)) => Value::Timestamp(nanos),
        (Function::Timestamp, Value::Int(seconds)) => Value::Timestamp(i128::from(seconds) * 1_000_000_000),
        (Function::Timestamp, Value::Text(text)) => Value::Timestamp(time::parse_timestamp(&text)?),
        (Function::Duration, Value::Duration(nanos)) => Value::Duration(nanos),
        (Function::Duration, Value::Text(text)) => Value::Duration(time::parse_duration(&text)?),
        _ => return None,
    })
}
