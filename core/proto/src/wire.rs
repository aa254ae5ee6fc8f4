//! The protobuf wire format: tags, varints, lengths.

use std::fmt;

/// One field occurrence in an encoded message.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum WireValue<'a> {
    Varint(u64),
    Fixed64(u64),
    Bytes(&'a [u8]),
    Fixed32(u32),
}

/// The bytes are not an encoded message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Malformed;

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("malformed protobuf encoding")
    }
}

/// The field occurrences of an encoded message, in the order of the bytes. Ends after the first error.
#[derive(Clone)]
pub(crate) struct Fields<'a> {
    rest: &'a [u8],
}

impl<'a> Fields<'a> {
    pub(crate) fn new(message: &'a [u8]) -> Self {
        Self { rest: message }
    }

    fn step(&mut self) -> Result<(u32, WireValue<'a>), Malformed> {
        let tag = read_varint(&mut self.rest)?;
        let number = u32::try_from(tag >> 3).ok().filter(|&number| number != 0).ok_or(Malformed)?;
        let value = match tag & 7 {
            0 => WireValue::Varint(read_varint(&mut self.rest)?),
            1 => WireValue::Fixed64(u64::from_le_bytes(self.take_array()?)),
            2 => {
                let length = usize::try_from(read_varint(&mut self.rest)?).map_err(|_| Malformed)?;
                WireValue::Bytes(self.take(length)?)
            }
            5 => WireValue::Fixed32(u32::from_le_bytes(self.take_array()?)),
            // Groups do not exist in proto3.
            _ => return Err(Malformed),
        };
        Ok((number, value))
    }

    fn take(&mut self, length: usize) -> Result<&'a [u8], Malformed> {
        let (taken, rest) = self.rest.split_at_checked(length).ok_or(Malformed)?;
        self.rest = rest;
        Ok(taken)
    }

    fn take_array<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        self.take(N)?.try_into().map_err(|_| Malformed)
    }
}

impl<'a> Iterator for Fields<'a> {
    type Item = Result<(u32, WireValue<'a>), Malformed>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let item = self.step();
        if item.is_err() {
            self.rest = &[];
        }
        Some(item)
    }
}

/// Takes one varint off the front of `bytes`.
pub(crate) fn read_varint(bytes: &mut &[u8]) -> Result<u64, Malformed> {
    let mut value = 0u64;
    for (position, &byte) in bytes.iter().enumerate().take(10) {
        value |= u64::from(byte & 0x7f) << (7 * position);
        if byte < 0x80 {
            *bytes = &bytes[position + 1..];
            return Ok(value);
        }
    }
    Err(Malformed)
}

/// The wire type in a tag.
#[derive(Clone, Copy)]
pub(crate) enum WireType {
    Varint = 0,
    Fixed64 = 1,
    Bytes = 2,
    Fixed32 = 5,
}

pub(crate) fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

pub(crate) fn put_tag(out: &mut Vec<u8>, number: u32, wire_type: WireType) {
    put_varint(out, u64::from(number) << 3 | wire_type as u64);
}

pub(crate) fn put_bytes(out: &mut Vec<u8>, number: u32, value: &[u8]) {
    put_tag(out, number, WireType::Bytes);
    put_varint(out, value.len() as u64);
    out.extend_from_slice(value);
}

pub(crate) fn put_uint(out: &mut Vec<u8>, number: u32, value: u64) {
    put_tag(out, number, WireType::Varint);
    put_varint(out, value);
}

/// Appends a field with the value that another one has.
pub(crate) fn put_value(out: &mut Vec<u8>, number: u32, value: WireValue<'_>) {
    match value {
        WireValue::Varint(value) => put_uint(out, number, value),
        WireValue::Bytes(bytes) => put_bytes(out, number, bytes),
        WireValue::Fixed64(bits) => {
            put_tag(out, number, WireType::Fixed64);
            out.extend_from_slice(&bits.to_le_bytes());
        }
        WireValue::Fixed32(bits) => {
            put_tag(out, number, WireType::Fixed32);
            out.extend_from_slice(&bits.to_le_bytes());
        }
    }
}

pub(crate) fn zigzag(value: i64) -> u64 {
    (value << 1 ^ value >> 63) as u64
}

pub(crate) fn unzigzag(value: u64) -> i64 {
    (value >> 1) as i64 ^ -((value & 1) as i64)
}

#[cfg(test)]
mod tests {
    use super::{
        Fields, Malformed, WireValue, put_bytes, put_uint, put_varint, read_varint, unzigzag, zigzag,
    };

    #[test]
    fn varints_round_trip() {
        for value in [0, 1, 127, 128, 300, u64::from(u32::MAX), u64::MAX] {
            let mut bytes = Vec::new();
            put_varint(&mut bytes, value);
            let mut rest = bytes.as_slice();
            assert_eq!(read_varint(&mut rest), Ok(value));
            assert!(rest.is_empty());
        }
        assert_eq!(read_varint(&mut [0xff; 11].as_slice()), Err(Malformed));
    }

    #[test]
    fn zigzag_round_trips() {
        for value in [0, -1, 1, i64::MIN, i64::MAX] {
            assert_eq!(unzigzag(zigzag(value)), value);
        }
        assert_eq!(zigzag(-1), 1);
    }

    #[test]
    fn fields_come_in_order_and_stop_at_the_first_error() {
        let mut message = Vec::new();
        put_uint(&mut message, 1, 150);
        put_bytes(&mut message, 2, b"testing");
        let fields: Vec<_> = Fields::new(&message).collect();
        assert_eq!(fields, [Ok((1, WireValue::Varint(150))), Ok((2, WireValue::Bytes(b"testing")))]);
        message.extend_from_slice(&[0x1a, 200]);
        assert_eq!(Fields::new(&message).last(), Some(Err(Malformed)));
        assert_eq!(Fields::new(&[0x0b]).next(), Some(Err(Malformed)), "groups are refused");
        assert_eq!(Fields::new(&[0x00, 0x00]).next(), Some(Err(Malformed)), "field number zero is refused");
    }
}
