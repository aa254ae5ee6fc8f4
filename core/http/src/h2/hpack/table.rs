//! The dynamic table: the fields of late, the newest first.

use std::collections::VecDeque;

use crate::KnownHeader;

/// What an entry counts beside its bytes.
const OVERHEAD: usize = 32;
/// Bytes of entries that are gone may take this many times the room of those that may be there.
const SLACK: usize = 4;

#[derive(Clone, Copy, Debug)]
pub(super) struct Entry {
    pub(super) known: Option<KnownHeader>,
    /// What the encoder finds it by.
    pub(super) hash: u32,
    name_at: u32,
    name_len: u32,
    value_len: u32,
}

impl Entry {
    fn size(&self) -> usize {
        (self.name_len + self.value_len) as usize + OVERHEAD
    }
}

/// Fields up to a size (RFC 7541, 4.1).
#[derive(Debug)]
pub(super) struct Table {
    entries: VecDeque<Entry>,
    bytes: Vec<u8>,
    size: usize,
    max: usize,
    /// How many entries were ever inserted.
    inserted: u32,
}

impl Table {
    pub(super) fn new(max: usize) -> Self {
        Self { entries: VecDeque::new(), bytes: Vec::new(), size: 0, max, inserted: 0 }
    }

    /// The size that it may have.
    pub(super) fn max(&self) -> usize {
        self.max
    }

    /// Changes the size that it may have, and drops what does not fit.
    pub(super) fn set_max(&mut self, max: usize) {
        self.max = max;
        self.make_room(0);
    }

    fn make_room(&mut self, size: usize) {
        while self.size + size > self.max {
            let Some(oldest) = self.entries.pop_front() else { break };
            self.size -= oldest.size();
        }
        if self.entries.is_empty() {
            self.bytes.clear();
        }
    }

    /// The entry that was inserted as the last but `back`.
    pub(super) fn recent(&self, back: usize) -> Option<(&Entry, &[u8], &[u8])> {
        let at = self.entries.len().checked_sub(back + 1)?;
        let entry = &self.entries[at];
        let (name, rest) = self.bytes[entry.name_at as usize..].split_at(entry.name_len as usize);
        Some((entry, name, &rest[..entry.value_len as usize]))
    }

    /// How far back the entry is that was inserted as number `serial`, if it is still there.
    pub(super) fn back(&self, serial: u32) -> Option<usize> {
        let back = self.inserted.wrapping_sub(serial).wrapping_sub(1) as usize;
        (back < self.entries.len()).then_some(back)
    }

    /// Inserts a field; gives its serial number, unless it is larger than the table, which empties it.
    pub(super) fn insert(
        &mut self,
        known: Option<KnownHeader>,
        name: &[u8],
        value: &[u8],
        hash: u32,
    ) -> Option<u32> {
        let size = name.len() + value.len() + OVERHEAD;
        self.make_room(size);
        if size > self.max {
            return None;
        }
        if self.bytes.len() + size > SLACK * self.max {
            self.compact();
        }
        let name_at = self.bytes.len() as u32;
        self.bytes.extend_from_slice(name);
        self.bytes.extend_from_slice(value);
        let (name_len, value_len) = (name.len() as u32, value.len() as u32);
        self.entries.push_back(Entry { known, hash, name_at, name_len, value_len });
        self.size += size;
        self.inserted = self.inserted.wrapping_add(1);
        Some(self.inserted.wrapping_sub(1))
    }

    /// Moves the bytes of what is there to the front.
    fn compact(&mut self) {
        let Some(first) = self.entries.front() else { return };
        let start = first.name_at;
        self.bytes.drain(..start as usize);
        self.entries.iter_mut().for_each(|entry| entry.name_at -= start);
    }
}
