//! Writing header blocks, with the choices of Envoy's codec: every field but pseudo headers other than `:authority` goes into the
//! dynamic table, and a text is written in Huffman's code where that is shorter.

use super::huffman;
use super::static_table::{self, Found};
use super::table::Table;
use crate::KnownHeader;

/// Places by hash for fields, and for names.
const FIELD_PLACES: usize = 256;
const NAME_PLACES: usize = 64;

/// The sending side's table.
#[derive(Debug)]
pub(in super::super) struct Encoder {
    table: Table,
    /// Serial numbers of entries, plus one, by the hash of the field. Of two with one place the newer is found, which costs a few
    /// bytes and no more.
    fields: Box<[u32; FIELD_PLACES]>,
    names: Box<[u32; NAME_PLACES]>,
    /// The peer changed the size of the table: the smallest since the last block.
    smallest: Option<usize>,
}

impl Encoder {
    pub(in super::super) fn new() -> Self {
        Self {
            table: Table::new(super::DEFAULT_TABLE_SIZE),
            fields: Box::new([0; FIELD_PLACES]),
            names: Box::new([0; NAME_PLACES]),
            smallest: None,
        }
    }

    /// The peer takes a table of this size at most (`SETTINGS_HEADER_TABLE_SIZE`).
    pub(in super::super) fn set_max(&mut self, size: usize) {
        let size = size.min(super::DEFAULT_TABLE_SIZE);
        if size != self.table.max() {
            self.smallest = Some(self.smallest.map_or(size, |smallest| smallest.min(size)));
            self.table.set_max(size);
        }
    }

    /// Begins a block: says what changed about the table.
    pub(in super::super) fn begin(&mut self, out: &mut Vec<u8>) {
        if let Some(smallest) = self.smallest.take() {
            number(smallest, 5, 0x20, out);
            if smallest != self.table.max() {
                number(self.table.max(), 5, 0x20, out);
            }
        }
    }

    /// Appends a field.
    pub(in super::super) fn field(
        &mut self,
        known: Option<KnownHeader>,
        name: &[u8],
        value: &[u8],
        out: &mut Vec<u8>,
    ) {
        let found = static_table::find(known, name, value);
        if let Found::Field(index) = found {
            return number(index, 7, 0x80, out);
        }
        let name_hash = match known {
            Some(known) => known as u32 + 1,
            None => hash(0, name),
        };
        let field_hash = hash(name_hash, value);
        if let Some(back) = self.find_field(field_hash, name, value) {
            return number(static_table::LEN + 1 + back, 7, 0x80, out);
        }
        let index = match found {
            Found::Name(index) => index,
            _ => self.find_name(name_hash, name).map_or(0, |back| static_table::LEN + 1 + back),
        };
        let indexed = name.first() != Some(&b':') || known == Some(KnownHeader::Authority);
        match indexed {
            true => number(index, 6, 0x40, out),
            false => number(index, 4, 0, out),
        }
        if index == 0 {
            text(name, out);
        }
        text(value, out);
        if indexed && let Some(serial) = self.table.insert(known, name, value, field_hash) {
            self.fields[field_hash as usize % FIELD_PLACES] = serial.wrapping_add(1);
            self.names[name_hash as usize % NAME_PLACES] = serial.wrapping_add(1);
        }
    }

    fn find_field(&self, hash: u32, name: &[u8], value: &[u8]) -> Option<usize> {
        let serial = self.fields[hash as usize % FIELD_PLACES].checked_sub(1)?;
        let back = self.table.back(serial)?;
        let (entry, its_name, its_value) = self.table.recent(back)?;
        (entry.hash == hash && its_value == value && its_name == name).then_some(back)
    }

    fn find_name(&self, hash: u32, name: &[u8]) -> Option<usize> {
        let serial = self.names[hash as usize % NAME_PLACES].checked_sub(1)?;
        let back = self.table.back(serial)?;
        (self.table.recent(back)?.1 == name).then_some(back)
    }
}

/// Appends a field of a block that uses no dynamic table.
pub(in super::super) fn append_literal(name: &[u8], value: &[u8], out: &mut Vec<u8>) {
    let index = match static_table::find(KnownHeader::from_lower(name), name, value) {
        Found::Field(index) => return number(index, 7, 0x80, out),
        Found::Name(index) => index,
        Found::Nothing => 0,
    };
    number(index, 4, 0, out);
    if index == 0 {
        text(name, out);
    }
    text(value, out);
}

/// Mixes bytes, eight at a time. Who chooses fields that collide only makes them longer on the wire.
fn hash(seed: u32, bytes: &[u8]) -> u32 {
    const FACTOR: u64 = 0x9e37_79b9_7f4a_7c15;
    let mut mixed = u64::from(seed) ^ (bytes.len() as u64) << 32;
    let (words, rest) = bytes.as_chunks::<8>();
    for word in words {
        mixed = (mixed.rotate_left(23) ^ u64::from_le_bytes(*word)).wrapping_mul(FACTOR);
    }
    for byte in rest {
        mixed = (mixed.rotate_left(9) ^ u64::from(*byte)).wrapping_mul(FACTOR);
    }
    (mixed.wrapping_mul(FACTOR) >> 32) as u32
}

/// Appends a number whose first byte has room for so many bits beside its mark.
fn number(number: usize, bits: u32, mark: u8, out: &mut Vec<u8>) {
    let mask = (1usize << bits) - 1;
    if number < mask {
        return out.push(mark | number as u8);
    }
    out.push(mark | mask as u8);
    let mut rest = number - mask;
    while rest >= 0x80 {
        out.push(rest as u8 | 0x80);
        rest >>= 7;
    }
    out.push(rest as u8);
}

fn text(text: &[u8], out: &mut Vec<u8>) {
    let coded = huffman::encoded_len(text);
    if coded < text.len() {
        number(coded, 7, 0x80, out);
        huffman::encode(text, out);
    } else {
        number(text.len(), 7, 0, out);
        out.extend_from_slice(text);
    }
}
