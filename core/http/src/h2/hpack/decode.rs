//! Reading header blocks.

use super::huffman;
use super::static_table;
use super::table::Table;
use crate::KnownHeader;

/// A header block that cannot be read. The tables of both sides are no longer the same, so the connection is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(in super::super) enum HpackError {
    #[error("the header block is cut off")]
    Truncated,
    #[error("a number of the header block is too large")]
    Number,
    #[error("the header block names an entry that there is not")]
    Index,
    #[error("a text of the header block is not in Huffman's code")]
    Huffman,
    #[error("the header block changes the size of the table to what it may not be")]
    TableSize,
}

/// Larger numbers are nothing that a block can mean.
const MAX_NUMBER: usize = 1 << 28;

/// The receiving side's table.
#[derive(Debug)]
pub(in super::super) struct Decoder {
    table: Table,
    /// The largest size that the peer may choose.
    allowed: usize,
    name: Vec<u8>,
    value: Vec<u8>,
}

/// A name on its way from a block to its reader.
enum Name {
    Indexed(usize),
    Literal,
}

impl Decoder {
    pub(in super::super) fn new() -> Self {
        let size = super::DEFAULT_TABLE_SIZE;
        Self { table: Table::new(size), allowed: size, name: Vec::new(), value: Vec::new() }
    }

    /// The peer agreed to this size (`SETTINGS_HEADER_TABLE_SIZE`).
    pub(in super::super) fn set_allowed(&mut self, size: usize) {
        self.allowed = size;
        if self.table.max() > size {
            self.table.set_max(size);
        }
    }

    /// Hands out each field of a block: its id, name and value.
    pub(in super::super) fn decode(
        &mut self,
        mut block: &[u8],
        mut on_field: impl FnMut(Option<KnownHeader>, &[u8], &[u8]),
    ) -> Result<(), HpackError> {
        let mut begun = false;
        while let Some(first) = block.first().copied() {
            if first & 0x80 != 0 {
                let index = number(&mut block, 7)?;
                self.indexed(index, &mut on_field)?;
            } else if first & 0xe0 == 0x20 {
                let size = number(&mut block, 5)?;
                if begun || size > self.allowed {
                    return Err(HpackError::TableSize);
                }
                self.table.set_max(size);
                continue;
            } else {
                let insert = first & 0x40 != 0;
                let index = number(&mut block, if insert { 6 } else { 4 })?;
                self.literal(index, insert, &mut block, &mut on_field)?;
            }
            begun = true;
        }
        Ok(())
    }

    fn indexed(
        &self,
        index: usize,
        on_field: &mut impl FnMut(Option<KnownHeader>, &[u8], &[u8]),
    ) -> Result<(), HpackError> {
        if let Some(entry) = static_table::get(index) {
            on_field(entry.known, entry.name, entry.value);
            return Ok(());
        }
        let back = index.checked_sub(static_table::LEN + 1).ok_or(HpackError::Index)?;
        let (entry, name, value) = self.table.recent(back).ok_or(HpackError::Index)?;
        on_field(entry.known, name, value);
        Ok(())
    }

    fn literal(
        &mut self,
        index: usize,
        insert: bool,
        block: &mut &[u8],
        on_field: &mut impl FnMut(Option<KnownHeader>, &[u8], &[u8]),
    ) -> Result<(), HpackError> {
        let name = match index {
            0 => {
                text(block, &mut self.name)?;
                Name::Literal
            }
            index => Name::Indexed(index),
        };
        let value = match plain(block)? {
            Some(value) => value,
            None => {
                text(block, &mut self.value)?;
                &self.value
            }
        };
        let (known, name) = match name {
            Name::Literal => (KnownHeader::from_lower(&self.name), self.name.as_slice()),
            Name::Indexed(index) => match static_table::get(index) {
                Some(entry) => (entry.known, entry.name),
                None => {
                    let back = index - static_table::LEN - 1;
                    let (entry, name, _) = self.table.recent(back).ok_or(HpackError::Index)?;
                    // Inserting may drop the entry that the name is of.
                    self.name.clear();
                    self.name.extend_from_slice(name);
                    (entry.known, self.name.as_slice())
                }
            },
        };
        on_field(known, name, value);
        if insert {
            self.table.insert(known, name, value, 0);
        }
        Ok(())
    }
}

/// A number whose first byte has this many bits of it (RFC 7541, 5.1).
fn number(block: &mut &[u8], bits: u32) -> Result<usize, HpackError> {
    let (first, mut rest) = block.split_first().ok_or(HpackError::Truncated)?;
    let mask = (1usize << bits) - 1;
    let mut number = usize::from(*first) & mask;
    if number == mask {
        let mut shift = 0;
        loop {
            let (byte, behind) = rest.split_first().ok_or(HpackError::Truncated)?;
            rest = behind;
            number += usize::from(byte & 0x7f) << shift;
            if number > MAX_NUMBER {
                return Err(HpackError::Number);
            }
            if byte & 0x80 == 0 {
                break;
            }
            shift += 7;
            if shift > 28 {
                return Err(HpackError::Number);
            }
        }
    }
    *block = rest;
    Ok(number)
}

/// The text that is next, where it stands as it is.
fn plain<'a>(block: &mut &'a [u8]) -> Result<Option<&'a [u8]>, HpackError> {
    if block.first().ok_or(HpackError::Truncated)? & 0x80 != 0 {
        return Ok(None);
    }
    let length = number(block, 7)?;
    let (text, rest) = block.split_at_checked(length).ok_or(HpackError::Truncated)?;
    *block = rest;
    Ok(Some(text))
}

/// Reads the text that is next.
fn text(block: &mut &[u8], out: &mut Vec<u8>) -> Result<(), HpackError> {
    out.clear();
    if let Some(text) = plain(block)? {
        out.extend_from_slice(text);
        return Ok(());
    }
    let length = number(block, 7)?;
    let (code, rest) = block.split_at_checked(length).ok_or(HpackError::Truncated)?;
    *block = rest;
    huffman::decode(code, out)
}
