//! JSON output: the `json_format` of access logs, which keeps numbers as numbers, and plain values.

use std::io::Write;

use dhow_base::{ConfigError, FieldPath};

use crate::command::Command;
use crate::context::FormatContext;
use crate::format::{Format, Part};
use crate::log_format::FormatExtensions;
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
    /// One command whose value is a string: what stands in front of it ends with the quotation mark that opens it.
    Quoted(Command),
    Object(Box<[Field]>),
    List(Box<[Node]>),
}

#[derive(Clone, Debug)]
struct Field {
    /// The comma that separates the field from the one before, and its key in JSON form with the colon behind it.
    lead: Box<[u8]>,
    value: Node,
}

/// What holds for every format string of an object.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Leaves {
    /// `omit_empty_values`.
    pub omit_empty: bool,
    /// What the format's `formatters` say.
    pub extensions: FormatExtensions,
}

impl Leaves {
    /// Whether a value has a place in the output: `null` is as good as empty.
    fn has(self, value: &Value) -> bool {
        !self.omit_empty || !matches!(value.kind, None | Some(Kind::NullValue(_)))
    }
}

impl JsonFormat {
    /// Compiles the message's `json_format`.
    ///
    /// # Errors
    /// When one of the strings is not a format string; the path is inside `fields`.
    pub fn compile(fields: &Struct, omit_empty: bool, path: &FieldPath) -> Result<Self, ConfigError> {
        Self::compile_extended(fields, Leaves { omit_empty, ..Leaves::default() }, path)
    }

    /// Compiles an object of a format that may have commands of an extension.
    pub(crate) fn compile_extended(
        fields: &Struct,
        leaves: Leaves,
        path: &FieldPath,
    ) -> Result<Self, ConfigError> {
        Ok(Self { root: object(fields, leaves, path)?, omit_empty: leaves.omit_empty })
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
            Node::Quoted(command) => return self.quoted(command, context, scratch, out),
            Node::Object(fields) => {
                let start = out.len();
                out.push(b'{');
                for Field { lead, value } in fields {
                    let before = out.len();
                    let is_first = before == start + 1;
                    out.extend_from_slice(&lead[usize::from(is_first)..]);
                    let present = match value {
                        // Most fields of a line: not worth a call.
                        Node::Quoted(command) => self.quoted(command, context, scratch, out),
                        value => self.node(value, context, scratch, out),
                    };
                    if !present {
                        out.truncate(before);
                    }
                }
                if self.omit_empty && out.len() == start + 1 {
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

    #[inline]
    fn quoted(
        &self,
        command: &Command,
        context: &dyn FormatContext,
        scratch: &mut Vec<u8>,
        out: &mut Vec<u8>,
    ) -> bool {
        let start = out.len();
        if command.append(context, out) {
            end_quoted(start, scratch, out);
        } else if self.omit_empty {
            return false;
        } else {
            out.truncate(start - 1);
            out.extend_from_slice(b"null");
        }
        true
    }
}

fn object(fields: &Struct, leaves: Leaves, path: &FieldPath) -> Result<Node, ConfigError> {
    let Struct { fields } = fields;
    let mut sorted: Vec<_> = fields.iter().collect();
    sorted.sort_by_key(|(key, _)| key.as_str());
    let mut nodes = Vec::with_capacity(sorted.len());
    for (key, value) in sorted.into_iter().filter(|(_, value)| leaves.has(value)) {
        let mut lead = vec![b','];
        append_json_string(key.as_bytes(), &mut lead);
        lead.push(b':');
        let mut value = compile_value(value, leaves, &path.field(key))?;
        if let Node::Text(format) = &value
            && let [Part::Command(command)] = format.parts()
            && command.is_string()
        {
            lead.push(b'"');
            value = Node::Quoted(command.clone());
        }
        nodes.push(Field { lead: lead.into(), value });
    }
    Ok(Node::Object(nodes.into()))
}

fn compile_value(value: &Value, leaves: Leaves, path: &FieldPath) -> Result<Node, ConfigError> {
    let Value { kind } = value;
    Ok(match kind {
        Some(Kind::StringValue(text)) => {
            let format = Format::parse_extended(text, leaves.extensions).map_err(|e| e.under(path))?;
            Node::Text(format.omitting_empty(leaves.omit_empty))
        }
        Some(Kind::StructValue(fields)) => object(fields, leaves, path)?,
        Some(Kind::ListValue(list)) => {
            let items = list.values.iter().enumerate().filter(|(_, item)| leaves.has(item));
            let items = items.map(|(at, item)| compile_value(item, leaves, &path.index(at)));
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
pub fn append_value(kind: Option<&Kind>, out: &mut Vec<u8>) {
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

/// What is infinite is written as Envoy writes it, although no reader of JSON knows that; else the shorter of the two ways to write the shortest digits that read back as the same number: `120000`, but `1e+05`.
fn append_number(number: f64, out: &mut Vec<u8>) {
    if !number.is_finite() {
        let text = if number.is_nan() {
            "null"
        } else if number > 0.0 {
            "inf"
        } else {
            "-inf"
        };
        out.extend_from_slice(text.as_bytes());
        return;
    }
    let start = out.len();
    // Writing to a Vec cannot fail.
    let _ = if number.fract() == 0.0 { write!(out, "{number:.0}") } else { write!(out, "{number}") };
    let shortest = format!("{number:e}");
    let (digits, exponent) = shortest.split_once('e').unwrap_or((&shortest, "0"));
    let (sign, exponent) = match exponent.strip_prefix('-') {
        Some(exponent) => ('-', exponent),
        None => ('+', exponent),
    };
    if digits.len() + 2 + exponent.len().max(2) < out.len() - start {
        out.truncate(start);
        let _ = write!(out, "{digits}e{sign}{exponent:0>2}");
    }
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
    end_quoted(start + 1, scratch, out);
    true
}

/// Ends the JSON string whose text begins at `start`, behind its quotation mark.
#[inline]
fn end_quoted(start: usize, scratch: &mut Vec<u8>, out: &mut Vec<u8>) {
    if is_plain(&out[start..]) {
        out.push(b'"');
    } else {
        escape_from(start, scratch, out);
    }
}

#[cold]
fn escape_from(start: usize, scratch: &mut Vec<u8>, out: &mut Vec<u8>) {
    scratch.clear();
    scratch.extend_from_slice(&out[start..]);
    out.truncate(start - 1);
    append_json_string(scratch, out);
}

/// Whether text stands in a JSON string as it is. Looks at every byte, eight at once; at some of them twice, where the text does not
/// fill a block.
#[inline]
fn is_plain(text: &[u8]) -> bool {
    let (blocks, rest) = text.as_chunks::<16>();
    if blocks.iter().any(has_special) {
        return false;
    }
    if !blocks.is_empty() {
        return rest.is_empty() || text.last_chunk::<16>().is_none_or(|last| !has_special(last));
    }
    let special = match (text.first_chunk::<8>(), text.last_chunk::<8>()) {
        (Some(first), Some(last)) => {
            specials(u64::from_le_bytes(*first)) | specials(u64::from_le_bytes(*last))
        }
        _ => match (text.first_chunk::<4>(), text.last_chunk::<4>()) {
            (Some(first), Some(last)) => {
                let halves = (u32::from_le_bytes(*first), u32::from_le_bytes(*last));
                specials(u64::from(halves.0) << 32 | u64::from(halves.1))
            }
            _ => match text {
                [] => 0,
                [first, .., last] => {
                    specials(u64::from_le_bytes([*first, text[1], *last, b' ', b' ', b' ', b' ', b' ']))
                }
                [one] => specials(u64::from_le_bytes([*one; 8])),
            },
        },
    };
    special == 0
}

/// Not zero when one of the eight bytes has to be escaped, by arithmetic on all of them at once: a subtraction borrows into the
/// highest bit of the bytes that are below what is subtracted. A borrow may reach the byte above; that changes nothing, as there
/// already is one that counts.
#[inline]
const fn specials(bytes: u64) -> u64 {
    const ONES: u64 = u64::from_le_bytes([1; 8]);
    const HIGH: u64 = u64::from_le_bytes([0x80; 8]);
    const fn zeros(bytes: u64) -> u64 {
        bytes.wrapping_sub(ONES) & !bytes
    }
    let control = bytes.wrapping_sub(ONES * 0x20) & !bytes;
    let quote = zeros(bytes ^ (ONES * b'"' as u64));
    let backslash = zeros(bytes ^ (ONES * b'\\' as u64));
    let delete = zeros(bytes ^ (ONES * 0x7f));
    (bytes | control | quote | backslash | delete) & HIGH
}

#[inline]
fn has_special<const N: usize>(block: &[u8; N]) -> bool {
    block.iter().fold(0, |found, byte| found | u8::from(is_special(*byte))) != 0
}

const fn is_special(byte: u8) -> bool {
    byte < b' ' || byte > 0x7e || byte == b'"' || byte == b'\\'
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_that_have_to_be_escaped_are_found_wherever_they_stand() {
        for length in 0..40 {
            let plain = vec![b'a'; length];
            assert!(is_plain(&plain), "{length}");
            for at in 0..length {
                for byte in 0..=255 {
                    let mut text = plain.clone();
                    text[at] = byte;
                    let special = !(0x20..0x7f).contains(&byte) || byte == b'"' || byte == b'\\';
                    assert_eq!(is_plain(&text), !special, "{byte:#x} at {at} of {length}");
                }
            }
        }
    }
}
