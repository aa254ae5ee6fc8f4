//! Encoding of resources, the same bytes for the same content.
//!
//! The generated types keep maps in hash tables, which are encoded in a different order each time. Versions are digests of
//! the bytes, so the entries of each map are put in order after encoding; otherwise every push would look like a change.

use std::hash::Hasher;
use std::sync::Arc;

use dhow_proto::google::protobuf::Any;
use dhow_proto::{Kind, Message, MessageType, Name};
use dhow_xds::Resource;
use twox_hash::XxHash64;

/// Encodes a message as the resource `name`, its version a digest of its content.
pub fn resource<M: Message + Name>(name: &str, message: &M) -> Resource {
    let encoded = message.encode_to_vec();
    let value = match MessageType::find(&M::full_name()) {
        Some(kind) => canonical(kind, &encoded).unwrap_or(encoded),
        None => encoded,
    };
    let mut hasher = XxHash64::with_seed(0);
    hasher.write(&value);
    Resource {
        name: Arc::from(name),
        version: format!("{:016x}", hasher.finish()).into(),
        body: Arc::new(Any { type_url: M::type_url(), value }),
    }
}

/// The message with the entries of each map in the order of their bytes, inside of every known `Any` too. `None` when the
/// bytes are not a message, which cannot be for what has just been encoded.
fn canonical(kind: MessageType, bytes: &[u8]) -> Option<Vec<u8>> {
    if kind.full_name() == "google.protobuf.Any" {
        return canonical_any(bytes);
    }
    let mut output = Vec::with_capacity(bytes.len());
    let mut map: Option<(u32, Vec<Vec<u8>>)> = None;
    let mut rest = bytes;
    while !rest.is_empty() {
        let field = Field::read(&mut rest)?;
        let described = kind.field_by_number(field.number);
        if map.as_ref().is_some_and(|(number, _)| *number != field.number) {
            flush(&mut map, &mut output);
        }
        match (described.map(|field| (field.kind(), field.is_map())), field.value) {
            (Some((Kind::Message(inner), is_map)), Value::Bytes(value)) => {
                let value = canonical(inner, value)?;
                if is_map {
                    map.get_or_insert_with(|| (field.number, Vec::new())).1.push(value);
                } else {
                    write_bytes(&mut output, field.number, &value);
                }
            }
            _ => output.extend_from_slice(field.raw),
        }
    }
    flush(&mut map, &mut output);
    Some(output)
}

fn flush(map: &mut Option<(u32, Vec<Vec<u8>>)>, output: &mut Vec<u8>) {
    if let Some((number, mut entries)) = map.take() {
        entries.sort_unstable();
        entries.iter().for_each(|entry| write_bytes(output, number, entry));
    }
}

fn canonical_any(bytes: &[u8]) -> Option<Vec<u8>> {
    let packed = Any::decode(bytes).ok()?;
    let value = match MessageType::of_url(&packed.type_url) {
        Some(kind) => canonical(kind, &packed.value)?,
        None => packed.value,
    };
    Some(Any { type_url: packed.type_url, value }.encode_to_vec())
}

struct Field<'a> {
    number: u32,
    value: Value<'a>,
    /// Key and value as they stand.
    raw: &'a [u8],
}

enum Value<'a> {
    Bytes(&'a [u8]),
    Other,
}

impl<'a> Field<'a> {
    fn read(rest: &mut &'a [u8]) -> Option<Self> {
        let start = *rest;
        let key = varint(rest)?;
        let value = match key & 7 {
            0 => {
                varint(rest)?;
                Value::Other
            }
            1 => {
                take(rest, 8)?;
                Value::Other
            }
            2 => {
                let length = usize::try_from(varint(rest)?).ok()?;
                Value::Bytes(take(rest, length)?)
            }
            5 => {
                take(rest, 4)?;
                Value::Other
            }
            _ => return None,
        };
        let raw = &start[..start.len() - rest.len()];
        Some(Self { number: u32::try_from(key >> 3).ok()?, value, raw })
    }
}

fn varint(rest: &mut &[u8]) -> Option<u64> {
    let mut value = 0u64;
    for shift in (0..64).step_by(7) {
        let (first, others) = rest.split_first()?;
        *rest = others;
        value |= u64::from(first & 0x7f) << shift;
        if first & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

fn take<'a>(rest: &mut &'a [u8], length: usize) -> Option<&'a [u8]> {
    let (taken, others) = rest.split_at_checked(length)?;
    *rest = others;
    Some(taken)
}

fn write_varint(output: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        output.push((value as u8 & 0x7f) | 0x80);
        value >>= 7;
    }
    output.push(value as u8);
}

fn write_bytes(output: &mut Vec<u8>, number: u32, value: &[u8]) {
    write_varint(output, u64::from(number) << 3 | 2);
    write_varint(output, value.len() as u64);
    output.extend_from_slice(value);
}
