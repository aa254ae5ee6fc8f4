//! JSON output: the `json_format` of access logs, which keeps numbers as numbers, and plain values.

use std::io::Write;

use dhow_base::{ConfigError, FieldPath};

use crate::context::FormatContext;
use crate::format::{Format, Part};
use crate::pb::protobuf::{Struct, Value, value::Kind};

/// A JSON object whose leaves are format strings, compiled. Keys are written in sorted order, as in Envoy.
#[derive(Clone, Debug)]
pub struct JsonFormat {
    root: Node,
    omit_empty: bool,
}

#[derive(Clone, Debug)]
enum Node {
    /// Written as it is.
    Fixed(Box<[u8]>),
    /// One command alone keeps the type of its value; any other text is a string.
    Text(Format),
    /// Keys are already in JSON form, with the colon behind them.
    Object(Box<[(Box<[u8]>, Node)]>),
    List(Box<[Node]>),
}

impl JsonFormat {
    /// Compiles the message's `json_format`.
    ///
    /// # Errors
    /// When one of the strings is not a format string; the path is inside `fields`.
    pub fn compile(fields: &Struct, omit_empty: bool, path: &FieldPath) -> Result<Self, ConfigError> {
        Ok(Self { root: object(fields, path)?, omit_empty })
    }

    /// Appends the object, without a newline. `scratch` is overwritten; passing the same one again saves its allocation.
    pub fn append(&self, context: &dyn FormatContext, scratch: &mut Vec<u8>, out: &mut Vec<u8>) {
        if !self.node(&self.root, context, scratch, out) {
            out.extend_from_slice(b"{}");
        }
    }

    /// False, and nothing appended, when the node is left out.
    fn node(
        &self,
        node: &Node,
        context: &dyn FormatContext,
        scratch: &mut Vec<u8>,
        out: &mut Vec<u8>,
    ) -> bool {
        match node {
            Node::Fixed(text) => out.extend_from_slice(text),
            Node::Text(format) => {
                if let [Part::Command(command)] = format.parts() {
                    if !command.append_json(context, scratch, out) {
                        if self.omit_empty {
                            return false;
                        }
                        out.extend_from_slice(b"null");
                    }
                } else {
                    append_quoted(scratch, out, |out| {
                        format.append(context, out);
                        true
                    });
                }
            }
            Node::Object(fields) => {
                let start = out.len();
                out.push(b'{');
                for (key, value) in fields {
                    let before = out.len();
                    if out.len() > start + 1 {
                        out.push(b',');
                    }
                    out.extend_from_slice(key);
                    if !self.node(value, context, scratch, out) {
                        out.truncate(before);
                    }
                }
                if self.omit_empty && !fields.is_empty() && out.len() == start + 1 {
                    out.truncate(start);
                    return false;
                }
                out.push(b'}');
            }
            Node::List(items) => {
                out.push(b'[');
                let start = out.len();
                for item in items {
                    let before = out.len();
                    if out.len() > start {
                        out.push(b',');
                    }
                    if !self.node(item, context, scratch, out) {
                        out.truncate(before);
                    }
                }
                out.push(b']');
            }
        }
        true
    }
}

fn object(fields: &Struct, path: &FieldPath) -> Result<Node, ConfigError> {
    let Struct { fields } = fields;
    let mut sorted: Vec<_> = fields.iter().collect();
    sorted.sort_by_key(|(key, _)| key.as_str());
    let mut nodes = Vec::with_capacity(sorted.len());
    for (key, value) in sorted {
        let mut name = Vec::new();
        append_json_string(key.as_bytes(), &mut name);
        name.push(b':');
        nodes.push((name.into(), compile_value(value, &path.field(key))?));
    }
    Ok(Node::Object(nodes.into()))
}

fn compile_value(value: &Value, path: &FieldPath) -> Result<Node, ConfigError> {
    let Value { kind } = value;
    Ok(match kind {
        Some(Kind::StringValue(text)) => Node::Text(Format::parse(text).map_err(|e| e.under(path))?),
        Some(Kind::StructValue(fields)) => object(fields, path)?,
        Some(Kind::ListValue(list)) => {
            let items = list.values.iter().enumerate().map(|(at, item)| compile_value(item, &path.index(at)));
            Node::List(items.collect::<Result<_, _>>()?)
        }
        other => {
            let mut text = Vec::new();
            append_value(other.as_ref(), &mut text);
            Node::Fixed(text.into())
        }
    })
}

/// Appends a value as JSON.
pub(crate) fn append_value(kind: Option<&Kind>, out: &mut Vec<u8>) {
    match kind {
        None | Some(Kind::NullValue(_)) => out.extend_from_slice(b"null"),
        Some(Kind::BoolValue(value)) => out.extend_from_slice(if *value { b"true" } else { b"false" }),
        Some(Kind::NumberValue(number)) => append_number(*number, out),
        Some(Kind::StringValue(text)) => append_json_string(text.as_bytes(), out),
        Some(Kind::StructValue(fields)) => append_struct(fields, out),
        Some(Kind::ListValue(list)) => {
            out.push(b'[');
            for (at, value) in list.values.iter().enumerate() {
                if at > 0 {
                    out.push(b',');
                }
                append_value(value.kind.as_ref(), out);
            }
            out.push(b']');
        }
    }
}

/// Appends an object as JSON, keys in sorted order.
pub(crate) fn append_struct(fields: &Struct, out: &mut Vec<u8>) {
    let mut sorted: Vec<_> = fields.fields.iter().collect();
    sorted.sort_by_key(|(key, _)| key.as_str());
    out.push(b'{');
    for (at, (key, value)) in sorted.into_iter().enumerate() {
        if at > 0 {
            out.push(b',');
        }
        append_json_string(key.as_bytes(), out);
        out.push(b':');
        append_value(value.kind.as_ref(), out);
    }
    out.push(b'}');
}

fn append_number(number: f64, out: &mut Vec<u8>) {
    // Writing to a Vec cannot fail.
    let _ = if !number.is_finite() {
        write!(out, "null")
    } else if number.fract() == 0.0 && number.abs() < 9.0e15 {
        write!(out, "{}", number as i64)
    } else {
        write!(out, "{number}")
    };
}

/// Appends what `fill` writes as a JSON string in quotes; nothing, and false, when it gives false. Usual text is written where
/// it stays; `scratch` is needed for text that has to be escaped.
pub(crate) fn append_quoted(
    scratch: &mut Vec<u8>,
    out: &mut Vec<u8>,
    fill: impl FnOnce(&mut Vec<u8>) -> bool,
) -> bool {
    let start = out.len();
    out.push(b'"');
    if !fill(out) {
        out.truncate(start);
        return false;
    }
    let text = &out[start + 1..];
    if is_plain(text) {
        out.push(b'"');
    } else {
        scratch.clear();
        scratch.extend_from_slice(text);
        out.truncate(start);
        append_json_string(scratch, out);
    }
    true
}

/// Whether text stands in a JSON string as it is. Looks at every byte, so that many are compared at once.
fn is_plain(text: &[u8]) -> bool {
    let special = |byte: u8| !(b' '..0x7f).contains(&byte) | (byte == b'"') | (byte == b'\\');
    !text.iter().fold(false, |found, &byte| found | special(byte))
}

/// Appends bytes as a JSON string in quotes. Bytes that are not UTF-8 are written as the replacement character.
pub fn append_json_string(bytes: &[u8], out: &mut Vec<u8>) {
    out.push(b'"');
    for chunk in bytes.utf8_chunks() {
        append_escaped(chunk.valid(), out);
        if !chunk.invalid().is_empty() {
            out.extend_from_slice("\u{fffd}".as_bytes());
        }
    }
    out.push(b'"');
}

fn append_escaped(text: &str, out: &mut Vec<u8>) {
    let bytes = text.as_bytes();
    let mut start = 0;
    for (at, &byte) in bytes.iter().enumerate() {
        let short = match byte {
            b'"' => b'"',
            b'\\' => b'\\',
            b'\n' => b'n',
            b'\r' => b'r',
            b'\t' => b't',
            0x08 => b'b',
            0x0c => b'f',
            0..0x20 | 0x7f => 0,
            _ => continue,
        };
        out.extend_from_slice(&bytes[start..at]);
        start = at + 1;
        if short == 0 {
            let _ = write!(out, "\\u{byte:04x}");
        } else {
            out.extend_from_slice(&[b'\\', short]);
        }
    }
    out.extend_from_slice(&bytes[start..]);
}
