//! Functions of texts that expressions have only where the configuration allows them (`CelExpressionConfig`): what they make can
//! be as large as what they are given.

use std::borrow::Cow;

use dhow_proto::envoy::config::core::v3::CelExpressionConfig;

use super::ast::Node;
use super::format;
use super::functions::{Function, no_overload};
use super::time;
use super::value::{NoValue, Value};

/// What an expression may do beyond the usual (`envoy.config.core.v3.CelExpressionConfig`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CelOptions {
    /// `enable_string_conversion`: `string(...)`.
    pub string_conversion: bool,
    /// `enable_string_concat`: texts and bytes add up.
    pub string_concat: bool,
    /// `enable_string_functions`: `replace`, `split` and their like.
    pub string_functions: bool,
}

/// A function of a text, or of a list of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TextFunction {
    Replace,
    Split,
    Join,
    LowerAscii,
    UpperAscii,
    Trim,
    CharAt,
    IndexOf,
    LastIndexOf,
    Substring,
    Reverse,
    Format,
    /// `strings.quote(...)`.
    Quote,
}

impl CelOptions {
    /// The options of the message; none without.
    pub fn of(message: Option<CelExpressionConfig>) -> Self {
        let CelExpressionConfig { enable_string_conversion, enable_string_concat, enable_string_functions } =
            message.unwrap_or_default();
        Self {
            string_conversion: enable_string_conversion,
            string_concat: enable_string_concat,
            string_functions: enable_string_functions,
        }
    }
}

impl TextFunction {
    /// The method of a name with so many operands, the text among them.
    pub(crate) fn named(name: &str, operands: usize) -> Option<Self> {
        Some(match (name, operands) {
            ("replace", 3 | 4) => Self::Replace,
            ("split", 2 | 3) => Self::Split,
            ("join", 1 | 2) => Self::Join,
            ("lowerAscii", 1) => Self::LowerAscii,
            ("upperAscii", 1) => Self::UpperAscii,
            ("trim", 1) => Self::Trim,
            ("charAt", 2) => Self::CharAt,
            ("indexOf", 2 | 3) => Self::IndexOf,
            ("lastIndexOf", 2 | 3) => Self::LastIndexOf,
            ("substring", 2 | 3) => Self::Substring,
            ("reverse", 1) => Self::Reverse,
            ("format", 2) => Self::Format,
            _ => return None,
        })
    }

    fn name(self) -> &'static str {
        match self {
            Self::Replace => "replace",
            Self::Split => "split",
            Self::Join => "join",
            Self::LowerAscii => "lowerAscii",
            Self::UpperAscii => "upperAscii",
            Self::Trim => "trim",
            Self::CharAt => "charAt",
            Self::IndexOf => "indexOf",
            Self::LastIndexOf => "lastIndexOf",
            Self::Substring => "substring",
            Self::Reverse => "reverse",
            Self::Format => "format",
            Self::Quote => "quote",
        }
    }
}

/// Refuses what the options do not allow; lets texts add up where they do.
///
/// # Errors
/// As for functions that there are not.
pub(crate) fn permit(node: &mut Node, options: CelOptions) -> Result<(), String> {
    let all = |nodes: &mut [Node]| nodes.iter_mut().try_for_each(|node| permit(node, options));
    match node {
        Node::Literal(_) | Node::Type(_) | Node::Name(_) => Ok(()),
        Node::Select { of, .. } | Node::Matches(of, _) => permit(of, options),
        Node::List(items) => all(items),
        Node::Map(entries) => entries
            .iter_mut()
            .try_for_each(|(key, value)| permit(key, options).and_then(|()| permit(value, options))),
        Node::And(sides) | Node::Or(sides) => all(&mut sides[..]),
        Node::Choice(nodes) => all(&mut nodes[..]),
        Node::Call(function, items) => {
            match function {
                Function::Text if !options.string_conversion => return Err(no_overload("string")),
                Function::OfText(of) if !options.string_functions => return Err(no_overload(of.name())),
                Function::Add if options.string_concat => *function = Function::AddOrJoin,
                _ => {}
            }
            all(items)
        }
    }
}

/// `string(...)`.
pub(crate) fn text_of(value: Value<'_>) -> Result<Value<'_>, NoValue> {
    let text = match value {
        Value::Text(text) => text,
        Value::Bool(value) => value.to_string().into(),
        Value::Int(value) => value.to_string().into(),
        Value::Uint(value) => value.to_string().into(),
        Value::Double(value) => double(value).into(),
        Value::Bytes(bytes) => String::from_utf8(bytes.into_owned()).map_err(|_| NoValue)?.into(),
        Value::Duration(nanos) => duration(nanos).into(),
        Value::Timestamp(nanos) => timestamp(nanos).into(),
        _ => return Err(NoValue),
    };
    Ok(Value::Text(text))
}

/// As few digits as tell the number from all others, with an exponent from a million on and below a ten-thousandth.
fn double(value: f64) -> String {
    let scientific = format!("{value:e}");
    let Some((digits, exponent)) = scientific.split_once('e') else { return scientific };
    match exponent.parse::<i32>() {
        Ok(-4..=5) => value.to_string(),
        Ok(exponent) => {
            let sign = if exponent < 0 { '-' } else { '+' };
            format!("{digits}e{sign}{:02}", exponent.unsigned_abs())
        }
        Err(_) => scientific,
    }
}

/// Seconds with as many digits behind the point as are needed, by threes.
pub(crate) fn duration(nanos: i128) -> String {
    let sign = if nanos < 0 { "-" } else { "" };
    let (seconds, rest) = (nanos.unsigned_abs() / 1_000_000_000, nanos.unsigned_abs() % 1_000_000_000);
    format!("{sign}{seconds}{}s", fraction(rest as u32))
}

/// In Universal Time, with digits behind the point as for [`duration`].
fn timestamp(nanos: i128) -> String {
    let mut text = Vec::new();
    time::append_seconds(nanos, &mut text);
    let fraction = fraction(nanos.rem_euclid(1_000_000_000) as u32);
    format!("{}{fraction}Z", String::from_utf8_lossy(&text))
}

/// The part behind the point, with the point; nothing for none.
fn fraction(nanos: u32) -> String {
    match nanos {
        0 => String::new(),
        nanos if nanos % 1_000_000 == 0 => format!(".{:03}", nanos / 1_000_000),
        nanos if nanos % 1000 == 0 => format!(".{:06}", nanos / 1000),
        nanos => format!(".{nanos:09}"),
    }
}

/// `+` of texts and of bytes.
pub(crate) fn joined<'a>(first: &Value<'a>, second: &Value<'a>) -> Option<Value<'a>> {
    match (first, second) {
        (Value::Text(a), Value::Text(b)) => Some(Value::Text(Cow::Owned([&**a, b].concat()))),
        (Value::Bytes(a), Value::Bytes(b)) => Some(Value::Bytes(Cow::Owned([&**a, b].concat()))),
        _ => None,
    }
}

/// Applies a function to its operands. Places are counted in characters.
pub(crate) fn apply<'a>(function: TextFunction, operands: &[Value<'a>]) -> Result<Value<'a>, NoValue> {
    if function == TextFunction::Join {
        return join(operands);
    }
    let text = text_at(operands, 0)?;
    let owned = |text: String| Ok(Value::Text(Cow::Owned(text)));
    match function {
        TextFunction::Replace => {
            let (old, new) = (text_at(operands, 1)?, text_at(operands, 2)?);
            match usize::try_from(number_at(operands, 3, -1)?) {
                Ok(times) => owned(text.replacen(old, new, times)),
                Err(_) => owned(text.replace(old, new)),
            }
        }
        TextFunction::Split => {
            let parts = split(text, text_at(operands, 1)?, number_at(operands, 2, -1)?);
            Ok(Value::List(parts.map(|part| Value::Text(Cow::Owned(part.to_owned()))).collect()))
        }
        TextFunction::LowerAscii => owned(text.to_ascii_lowercase()),
        TextFunction::UpperAscii => owned(text.to_ascii_uppercase()),
        TextFunction::Trim => owned(text.trim().to_owned()),
        TextFunction::Reverse => owned(text.chars().rev().collect()),
        TextFunction::CharAt => {
            let at = place(text, number_at(operands, 1, 0)?)?;
            owned(text.chars().skip(at).take(1).collect())
        }
        TextFunction::Substring => {
            let count = text.chars().count() as i64;
            let (start, end) = (number_at(operands, 1, 0)?, number_at(operands, 2, count)?);
            let (start, end) = (place(text, start)?, place(text, end)?);
            let length = end.checked_sub(start).ok_or(NoValue)?;
            owned(text.chars().skip(start).take(length).collect())
        }
        TextFunction::IndexOf | TextFunction::LastIndexOf => index_of(function, text, operands),
        TextFunction::Format => owned(format::format(text, &elements_at(operands, 1)?)?),
        TextFunction::Quote => owned(quoted(text)),
        TextFunction::Join => Err(NoValue),
    }
}

fn text_at<'v>(operands: &'v [Value<'_>], at: usize) -> Result<&'v str, NoValue> {
    match operands.get(at) {
        Some(Value::Text(text)) => Ok(text),
        _ => Err(NoValue),
    }
}

fn elements_at<'a>(operands: &[Value<'a>], at: usize) -> Result<Vec<Value<'a>>, NoValue> {
    operands.get(at).and_then(Value::elements).ok_or(NoValue)
}

/// The text between quotation marks, which it can be printed with.
fn quoted(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for c in text.chars() {
        let escaped = match c {
            '\x07' => 'a',
            '\x08' => 'b',
            '\x0c' => 'f',
            '\n' => 'n',
            '\r' => 'r',
            '\t' => 't',
            '\x0b' => 'v',
            '\\' | '"' => c,
            _ => {
                out.push(c);
                continue;
            }
        };
        out.extend(['\\', escaped]);
    }
    out.push('"');
    out
}

fn number_at(operands: &[Value<'_>], at: usize, otherwise: i64) -> Result<i64, NoValue> {
    match operands.get(at) {
        None => Ok(otherwise),
        Some(Value::Int(number)) => Ok(*number),
        Some(_) => Err(NoValue),
    }
}

/// A place within the text or at its end.
fn place(text: &str, at: i64) -> Result<usize, NoValue> {
    usize::try_from(at).ok().filter(|at| *at <= text.chars().count()).ok_or(NoValue)
}

fn split<'t>(text: &'t str, separator: &'t str, most: i64) -> Box<dyn Iterator<Item = &'t str> + 't> {
    match usize::try_from(most) {
        Ok(0) => Box::new(std::iter::empty()),
        _ if text.is_empty() => Box::new(std::iter::once(text)),
        Ok(most) if separator.is_empty() => {
            let before = text.char_indices().nth(most - 1).map_or(text.len(), |(at, _)| at);
            let (single, rest) = text.split_at(before);
            let rest = Some(rest).filter(|rest| !rest.is_empty());
            Box::new(single.split("").filter(|part| !part.is_empty()).chain(rest))
        }
        Ok(most) => Box::new(text.splitn(most, separator)),
        Err(_) if separator.is_empty() => Box::new(text.split("").filter(|part| !part.is_empty())),
        Err(_) => Box::new(text.split(separator)),
    }
}

fn join<'a>(operands: &[Value<'a>]) -> Result<Value<'a>, NoValue> {
    let elements = operands.first().and_then(Value::elements).ok_or(NoValue)?;
    let between = if operands.len() > 1 { text_at(operands, 1)? } else { "" };
    let parts = elements.iter().map(|element| match element {
        Value::Text(text) => Ok(&**text),
        _ => Err(NoValue),
    });
    Ok(Value::Text(Cow::Owned(parts.collect::<Result<Vec<_>, _>>()?.join(between))))
}

/// The first or last place at which the other text begins: for the first from a place on, for the last up to one.
fn index_of<'a>(function: TextFunction, text: &str, operands: &[Value<'_>]) -> Result<Value<'a>, NoValue> {
    let wanted = text_at(operands, 1)?;
    let starts = || text.char_indices().map(|(at, _)| at).chain([text.len()]).enumerate();
    let mut fits = starts().filter(|(_, at)| text[*at..].starts_with(wanted)).map(|(place, _)| place);
    let found = match function {
        TextFunction::IndexOf => {
            let from = place(text, number_at(operands, 2, 0)?)?;
            fits.find(|at| *at >= from)
        }
        _ => {
            let until = place(text, number_at(operands, 2, text.chars().count() as i64)?)?;
            fits.take_while(|at| *at <= until).last()
        }
    };
    Ok(Value::Int(found.map_or(-1, |at| at as i64)))
}

#[cfg(test)]
mod tests {
    use super::{double, duration, quoted, split, timestamp};

    #[test]
    fn texts_are_quoted() {
        assert_eq!(quoted(""), r#""""#);
        assert_eq!(quoted("a\n\t\r\\e'\x07\x08\x0c\x0b\0\x1bä"), "\"a\\n\\t\\r\\\\e'\\a\\b\\f\\v\0\x1bä\"");
    }

    #[test]
    fn numbers_print_as_the_reference_prints_them() {
        for (value, text) in [
            (1.5, "1.5"),
            (1.0, "1"),
            (-0.0, "-0"),
            (100.0, "100"),
            (1e30, "1e+30"),
            (1e8, "1e+08"),
            (12_345_678.0, "1.2345678e+07"),
            (1_234_567.5, "1.2345675e+06"),
            (0.001, "0.001"),
            (0.000_01, "1e-05"),
            (1.0 / 3.0, "0.3333333333333333"),
        ] {
            assert_eq!(double(value), text);
        }
        assert_eq!(timestamp(1_577_836_800_500_000_000), "2020-01-01T00:00:00.500Z");
        assert_eq!(timestamp(-1_000_000_000), "1969-12-31T23:59:59Z");
        assert_eq!(duration(-1_500_000_000), "-1.500s");
        assert_eq!(duration(5_400_000_000_000), "5400s");
    }

    #[test]
    fn texts_are_split_at_most_so_often() {
        let parts = |text, separator, most| split(text, separator, most).collect::<Vec<_>>();
        assert_eq!(parts("a,b,c", ",", 2), ["a", "b,c"]);
        assert_eq!(parts("a,b,c", ",", 0), [""; 0]);
        assert_eq!(parts("a,b,c", ",", -5), ["a", "b", "c"]);
        assert_eq!(parts("äb", "", -1), ["ä", "b"]);
        assert_eq!(parts("abc", "", 2), ["a", "bc"]);
        assert_eq!(parts("ab", "", 1), ["ab"]);
        assert_eq!(parts("ab", "", 0), [""; 0]);
        assert_eq!(parts("", "", -1), [""]);
    }
}
