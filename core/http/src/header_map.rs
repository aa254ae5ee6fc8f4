//! The head of a request or response: an ordered list of names and values over one reusable byte arena.

use crate::known::{HeaderName, KnownHeader, KnownSet};
use crate::spelling::{Spelling, SpellingRules};

/// Id of an entry whose name is not a [`KnownHeader`].
const OTHER: u8 = u8::MAX;
/// Id of an entry that was removed; its bytes stay in the arena until [`HeaderMap::clear`].
const REMOVED: u8 = u8::MAX - 1;
const AUTHORITY_LEN: u16 = KnownHeader::Authority.plain_name().len() as u16;

/// What ends a line, and what stands between name and value.
const LINE_BREAK: &[u8] = b"\r\n";
const SEPARATOR: &[u8] = b": ";

#[derive(Clone, Copy, Debug)]
struct Entry {
    /// Where the line begins; for a pseudo header, which has no line, where the value begins.
    name: u32,
    value: u32,
    value_len: u32,
    name_len: u16,
    id: u8,
}

impl Entry {
    fn is_pseudo(&self) -> bool {
        self.id <= KnownHeader::Protocol as u8
    }
}

/// An ordered multi-map of header names (lower-case) and values (bytes).
///
/// All bytes live in one arena and entries are ranges into it, so that parsing a head into a reused map allocates
/// nothing once the arena has grown to the size of a usual head. Pseudo headers (`:method`, `:path`, `:authority`,
/// `:scheme`, `:status`, `:protocol`) are entries like any other, as in Envoy: matchers, format strings and filters
/// address them by name. Edits append to the arena; the codecs read the result once when they write it.
///
/// The arena holds each field as the line that HTTP/1 writes for it (`name: value\r\n`), so that a head comes in with one
/// copy and the fields that nobody touched leave with one.
#[derive(Clone, Debug, Default)]
pub struct HeaderMap {
    arena: Vec<u8>,
    entries: Vec<Entry>,
    /// The names of which an entry was ever added. What is missing here is absent for certain.
    present: KnownSet,
    removed: u32,
    /// The names that have repeats to be joined, and how many entries are such repeats.
    repeated: KnownSet,
    repeats: u32,
    /// How the peer spelled the names, where that is kept.
    spelling: Option<Box<Spelling>>,
}

impl HeaderMap {
    /// An empty map that holds no memory yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Forgets all entries and keeps the memory.
    pub fn clear(&mut self) {
        self.arena.clear();
        self.entries.clear();
        self.present = KnownSet::default();
        (self.removed, self.repeated, self.repeats) = (0, KnownSet::default(), 0);
        self.spelling = None;
    }

    /// Remembers how names are spelled in the head that the map was read from: it is written in the same spelling, also
    /// after changes. Forgotten when the map is cleared.
    pub fn remember_spelling(&mut self, head: &[u8], rules: SpellingRules) {
        self.spelling = Some(Box::new(Spelling::of(head, rules)));
    }

    pub(crate) fn spelling(&self) -> Option<&Spelling> {
        self.spelling.as_deref()
    }

    /// Number of entries, pseudo headers included.
    pub fn len(&self) -> usize {
        self.entries.len() - self.removed as usize
    }

    /// Whether there is no entry.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Sum of the lengths of all names and values, in bytes, as Envoy's `%REQUEST_HEADERS_BYTES%` counts them.
    pub fn byte_size(&self) -> usize {
        self.live().map(|e| e.name_len as usize + e.value_len as usize).sum()
    }

    /// Whether names and values together are longer than this many bytes.
    pub fn exceeds(&self, bytes: usize) -> bool {
        // The names of pseudo-headers are not in the arena, and none is longer than this.
        const PSEUDO_NAMES: usize = 64;
        self.arena.len() + PSEUDO_NAMES > bytes && self.byte_size() > bytes
    }

    /// At least the bytes that all fields take when they are written as lines, from what is at hand without a walk.
    pub(crate) fn byte_size_hint(&self) -> usize {
        self.arena.len()
    }

    /// Memory held, in bytes; a pool drops maps that grew beyond its limit.
    pub fn capacity_bytes(&self) -> usize {
        self.arena.capacity() + self.entries.capacity() * size_of::<Entry>()
    }

    fn live(&self) -> impl DoubleEndedIterator<Item = &Entry> {
        self.entries.iter().filter(|e| e.id != REMOVED)
    }

    fn value_of(&self, entry: &Entry) -> &[u8] {
        &self.arena[entry.value as usize..(entry.value + entry.value_len) as usize]
    }

    fn name_of(&self, entry: &Entry) -> &[u8] {
        match entry.id {
            OTHER => &self.arena[entry.name as usize..entry.name as usize + entry.name_len as usize],
            id => known_name(id),
        }
    }

    /// Writes the line of a known header, or only the value of a pseudo header; where name and value begin.
    fn push_known(&mut self, name: KnownHeader, value: &[u8]) -> (u32, u32) {
        let at = self.arena.len();
        if name.is_pseudo() {
            self.arena.extend_from_slice(value);
            return (at as u32, at as u32);
        }
        let Some(start) = name.line_start() else { return self.push_renamed(name, value) };
        self.arena.reserve(start.room().len() + value.len() + LINE_BREAK.len());
        // A copy of one size takes a few instructions, and one of the length that is wanted a call.
        self.arena.extend_from_slice(start.room());
        self.arena.truncate(at + start.len());
        self.arena.extend_from_slice(value);
        self.arena.extend_from_slice(LINE_BREAK);
        (at as u32, (at + start.len()) as u32)
    }

    #[cold]
    fn push_renamed(&mut self, name: KnownHeader, value: &[u8]) -> (u32, u32) {
        let line = self.arena.len();
        self.push_line_start(name);
        let at = self.arena.len();
        self.arena.extend_from_slice(value);
        self.arena.extend_from_slice(LINE_BREAK);
        (line as u32, at as u32)
    }

    fn push_line_start(&mut self, name: KnownHeader) {
        self.arena.extend_from_slice(name.as_str().as_bytes());
        self.arena.extend_from_slice(b": ");
    }

    /// Appends an entry with a known name.
    pub fn append_known(&mut self, name: KnownHeader, value: &[u8]) {
        let (line, at) = self.push_known(name, value);
        self.entries.push(Entry {
            name: line,
            value: at,
            value_len: value.len() as u32,
            name_len: name.as_str().len() as u16,
            id: name as u8,
        });
        self.present.insert(name as u8);
    }

    /// Appends an entry; the name may have any case and is stored in lower case.
    ///
    /// Names longer than 65,535 bytes are cut: every parser in front of this map has a lower limit.
    pub fn append(&mut self, name: &[u8], value: &[u8]) {
        let name = &name[..name.len().min(u16::MAX as usize)];
        let at = self.arena.len();
        self.arena.extend_from_slice(name);
        self.arena[at..].make_ascii_lowercase();
        if let Some(known) = KnownHeader::from_lower(&self.arena[at..]) {
            self.arena.truncate(at);
            self.append_known(known, value);
            return;
        }
        self.push_other(at, name.len(), value);
    }

    /// Adds the entry whose name is the last `name_len` bytes of the arena, from `name_at` on.
    fn push_other(&mut self, name_at: usize, name_len: usize, value: &[u8]) {
        let value_at = self.finish_line(value);
        self.entries.push(Entry {
            name: name_at as u32,
            value: value_at,
            value_len: value.len() as u32,
            name_len: name_len as u16,
            id: OTHER,
        });
    }

    /// Completes the line whose name is at the end of the arena; where the value begins.
    fn finish_line(&mut self, value: &[u8]) -> u32 {
        self.arena.reserve(SEPARATOR.len() + value.len() + LINE_BREAK.len());
        self.arena.extend_from_slice(SEPARATOR);
        let at = self.arena.len();
        self.arena.extend_from_slice(value);
        self.arena.extend_from_slice(LINE_BREAK);
        at as u32
    }

    /// Appends a field of a received request; `host` is kept as `:authority`.
    ///
    /// Repeats of the headers that Envoy keeps in fixed slots wait for [`HeaderMap::join_repeats`], so that thousands of
    /// them cost no more than their bytes.
    pub(crate) fn append_request_known(&mut self, known: KnownHeader, value: &[u8]) {
        match known {
            KnownHeader::Host => self.append_slotted(KnownHeader::Authority, value, true),
            known => self.append_slotted(known, value, known.joins_in_request()),
        }
    }

    /// Appends a field of a received response; see [`HeaderMap::append_request_known`].
    pub(crate) fn append_response_known(&mut self, known: KnownHeader, value: &[u8]) {
        self.append_slotted(known, value, known.joins_in_response());
    }

    /// Appends a field whose name is in lower case, no [`KnownHeader`] and shorter than 65,536 bytes.
    pub(crate) fn append_unknown(&mut self, name: &[u8], value: &[u8]) {
        let at = self.arena.len();
        self.arena.extend_from_slice(name);
        self.push_other(at, name.len(), value);
    }

    fn append_slotted(&mut self, known: KnownHeader, value: &[u8], joined: bool) {
        self.note_repeat(known, joined);
        self.append_known(known, value);
    }

    #[inline]
    fn note_repeat(&mut self, known: KnownHeader, joined: bool) {
        if joined && self.present.contains(known as u8) {
            self.repeated.insert(known as u8);
            self.repeats += 1;
        }
    }

    /// Puts received lines behind what is there and tells where they begin. They become fields by
    /// [`HeaderMap::adopt_line`]; until then they are bytes that nobody sees.
    pub(crate) fn take_lines(&mut self, lines: &[u8]) -> usize {
        let at = self.arena.len();
        self.arena.extend_from_slice(lines);
        at
    }

    /// The bytes of [`HeaderMap::take_lines`] from `at` on.
    pub(crate) fn lines_mut(&mut self, at: usize) -> &mut [u8] {
        &mut self.arena[at..]
    }

    /// Forgets the bytes of the arena from `at` on.
    pub(crate) fn keep_lines(&mut self, at: usize) {
        self.arena.truncate(at);
    }

    /// Forgets what was taken from `at` on, and the fields that were made of it.
    pub(crate) fn drop_lines(&mut self, at: usize, entries: usize) {
        self.arena.truncate(at);
        if self.entries.len() > entries {
            self.entries.truncate(entries);
            (self.repeated, self.repeats) = (KnownSet::default(), 0);
            self.note_present();
        }
    }

    /// Number of entries, removed ones included.
    pub(crate) fn entry_count(&self) -> usize {
        self.entries.len()
    }

    /// Makes a field of the line `name: value\r\n` at `line` of the arena, as [`HeaderMap::append_request_known`] and
    /// [`HeaderMap::append_response_known`] would. The name is in lower case and shorter than 65,536 bytes; `known` tells which one
    /// it is.
    #[inline]
    pub(crate) fn adopt_line(
        &mut self,
        line: usize,
        known: Option<KnownHeader>,
        name_len: usize,
        value_len: usize,
        request: bool,
    ) {
        debug_assert_eq!(known, KnownHeader::from_lower(&self.arena[line..line + name_len]));
        let id = match known {
            None => OTHER,
            Some(KnownHeader::Host) if request => self.adopt_known(KnownHeader::Authority, true),
            Some(known) if request => self.adopt_known(known, known.joins_in_request()),
            Some(known) => self.adopt_known(known, known.joins_in_response()),
        };
        self.entries.push(Entry {
            name: line as u32,
            value: (line + name_len + SEPARATOR.len()) as u32,
            value_len: value_len as u32,
            name_len: if id == KnownHeader::Authority as u8 { AUTHORITY_LEN } else { name_len as u16 },
            id,
        });
    }

    fn adopt_known(&mut self, known: KnownHeader, joined: bool) -> u8 {
        self.note_repeat(known, joined);
        self.present.insert(known as u8);
        known as u8
    }

    fn note_present(&mut self) {
        let mut present = KnownSet::default();
        self.live().filter(|e| e.id != OTHER).for_each(|e| present.insert(e.id));
        self.present = present;
    }

    /// Appends the lines of all fields but pseudo headers and `transfer-encoding`; neighbours with one copy.
    pub(crate) fn write_lines(&self, out: &mut Vec<u8>) {
        let mut run = 0..0;
        for entry in &self.entries {
            let written = entry.id > KnownHeader::Protocol as u8
                && entry.id != KnownHeader::TransferEncoding as u8
                && entry.id != REMOVED;
            if !written {
                continue;
            }
            let (start, end) =
                (entry.name as usize, (entry.value + entry.value_len) as usize + LINE_BREAK.len());
            if run.end != start {
                out.extend_from_slice(&self.arena[run]);
                run = start..start;
            }
            run.end = end;
        }
        out.extend_from_slice(&self.arena[run]);
    }

    /// Number of entries once repeats are joined.
    pub(crate) fn joined_len(&self) -> usize {
        self.len() - self.repeats as usize
    }

    /// Joins the repeats that were appended into one entry for each name, their values separated by commas.
    pub(crate) fn join_repeats(&mut self) {
        if self.repeated.is_empty() {
            return;
        }
        for known in KnownHeader::all() {
            let id = *known as u8;
            if !self.repeated.contains(id) {
                continue;
            }
            let line = self.arena.len();
            if !known.is_pseudo() {
                self.push_line_start(*known);
            }
            let at = self.arena.len();
            let mut first = None;
            for index in 0..self.entries.len() {
                let entry = self.entries[index];
                if entry.id != id {
                    continue;
                }
                // An empty value adds no comma, wherever it is, as in Envoy.
                if self.arena.len() > at && entry.value_len > 0 {
                    self.arena.push(b',');
                }
                self.arena.extend_from_within(entry.value as usize..(entry.value + entry.value_len) as usize);
                match first {
                    None => first = Some(index),
                    Some(_) => self.entries[index].id = REMOVED,
                }
            }
            if let Some(first) = first {
                let entry = &mut self.entries[first];
                (entry.name, entry.value) = (line as u32, at as u32);
                entry.value_len = (self.arena.len() - at) as u32;
            }
            if !known.is_pseudo() {
                self.arena.extend_from_slice(LINE_BREAK);
            }
        }
        self.entries.retain(|entry| entry.id != REMOVED);
        (self.removed, self.repeated, self.repeats) = (0, KnownSet::default(), 0);
    }

    /// Appends an entry with a resolved name.
    pub fn append_name(&mut self, name: &HeaderName, value: &[u8]) {
        match name {
            HeaderName::Known(known) => self.append_known(*known, value),
            HeaderName::Other(other) => self.append(other.as_bytes(), value),
        }
    }

    #[inline]
    fn position_known(&self, name: KnownHeader) -> Option<usize> {
        if !self.present.contains(name as u8) {
            return None;
        }
        self.entries.iter().position(|e| e.id == name as u8)
    }

    fn is_named(&self, entry: &Entry, name: &HeaderName) -> bool {
        match name {
            HeaderName::Known(known) => entry.id == *known as u8,
            HeaderName::Other(other) => entry.id == OTHER && self.name_of(entry) == other.as_bytes(),
        }
    }

    /// The first value of a known header.
    #[inline]
    pub fn get_known(&self, name: KnownHeader) -> Option<&[u8]> {
        self.position_known(name).map(|i| self.value_of(&self.entries[i]))
    }

    /// Where a header given by its name is kept: requests have `host` as `:authority`.
    fn slot_of(&self, name: KnownHeader) -> KnownHeader {
        let is_kept_otherwise =
            name == KnownHeader::Host && self.present.contains(KnownHeader::Authority as u8);
        if is_kept_otherwise { KnownHeader::Authority } else { name }
    }

    /// The first value of a header. `host` of a request is found.
    pub fn get(&self, name: &HeaderName) -> Option<&[u8]> {
        match name {
            HeaderName::Known(known) => self.get_known(self.slot_of(*known)),
            HeaderName::Other(other) => self.get_other(other.as_bytes()),
        }
    }

    fn get_other(&self, name: &[u8]) -> Option<&[u8]> {
        self.entries.iter().find(|e| e.id == OTHER && self.name_of(e) == name).map(|e| self.value_of(e))
    }

    /// The first value of a header given by its lower-case name.
    pub fn get_str(&self, name: &str) -> Option<&[u8]> {
        match KnownHeader::from_lower(name.as_bytes()) {
            Some(known) => self.get_known(self.slot_of(known)),
            None => self.get_other(name.as_bytes()),
        }
    }

    /// All values of a header, in order. `host` of a request is found.
    pub fn get_all<'a>(&'a self, name: &'a HeaderName) -> impl Iterator<Item = &'a [u8]> + 'a {
        let slot = match name {
            HeaderName::Known(known) => self.slot_of(*known) as u8,
            HeaderName::Other(_) => OTHER,
        };
        let absent = slot != OTHER && !self.present.contains(slot);
        let entries = if absent { &[][..] } else { &self.entries[..] };
        let named =
            move |e: &&Entry| e.id == slot && (slot != OTHER || self.name_of(e) == name.as_str().as_bytes());
        entries.iter().filter(named).map(|e| self.value_of(e))
    }

    /// Whether a known header is present.
    #[inline]
    pub fn contains_known(&self, name: KnownHeader) -> bool {
        self.position_known(name).is_some()
    }

    /// Whether a header is present.
    pub fn contains(&self, name: &HeaderName) -> bool {
        self.get(name).is_some()
    }

    /// Sets a known header to one value: the first entry keeps its place and takes the value, others go.
    pub fn set_known(&mut self, name: KnownHeader, value: &[u8]) {
        match self.position_known(name) {
            None => self.append_known(name, value),
            Some(first) => {
                self.replace_value(first, value);
                self.remove_where(first + 1, |_, e| e.id == name as u8);
            }
        }
    }

    /// Sets a header to one value: the first entry keeps its place and takes the value, others go.
    pub fn set(&mut self, name: &HeaderName, value: &[u8]) {
        match name {
            HeaderName::Known(known) => self.set_known(*known, value),
            HeaderName::Other(other) => {
                match self.entries.iter().position(|e| e.id == OTHER && self.name_of(e) == other.as_bytes()) {
                    None => self.append(other.as_bytes(), value),
                    Some(first) => {
                        self.replace_value(first, value);
                        self.remove_where(first + 1, |map, e| map.is_named(e, name));
                    }
                }
            }
        }
    }

    fn replace_value(&mut self, index: usize, value: &[u8]) {
        let entry = self.entries[index];
        if value.len() <= entry.value_len as usize {
            let end = entry.value as usize + value.len();
            self.arena[entry.value as usize..end].copy_from_slice(value);
            if !entry.is_pseudo() {
                self.arena[end..end + LINE_BREAK.len()].copy_from_slice(LINE_BREAK);
            }
            self.entries[index].value_len = value.len() as u32;
            return;
        }
        let (line, at) = match known_id(entry.id) {
            Some(known) => self.push_known(known, value),
            None => {
                let line = self.arena.len() as u32;
                let name = entry.name as usize..entry.name as usize + entry.name_len as usize;
                self.arena.extend_from_within(name);
                (line, self.finish_line(value))
            }
        };
        let entry = &mut self.entries[index];
        (entry.name, entry.value, entry.value_len) = (line, at, value.len() as u32);
    }

    fn remove_where(&mut self, from: usize, matches: impl Fn(&Self, &Entry) -> bool) -> bool {
        let mut any = false;
        for index in from..self.entries.len() {
            if self.entries[index].id != REMOVED && matches(self, &self.entries[index]) {
                self.entries[index].id = REMOVED;
                self.removed += 1;
                any = true;
            }
        }
        any
    }

    /// Removes all entries of a known header; tells whether there was one.
    #[inline]
    pub fn remove_known(&mut self, name: KnownHeader) -> bool {
        self.present.contains(name as u8) && self.remove_present(name)
    }

    fn remove_present(&mut self, name: KnownHeader) -> bool {
        self.present.remove(name as u8);
        self.remove_where(0, |_, e| e.id == name as u8)
    }

    /// Removes all entries of a header; tells whether there was one. `host` of a request is found.
    pub fn remove(&mut self, name: &HeaderName) -> bool {
        match name {
            HeaderName::Known(known) => self.remove_known(self.slot_of(*known)),
            HeaderName::Other(_) => self.remove_where(0, |map, e| map.is_named(e, name)),
        }
    }

    /// Removes the entries that the predicate does not want to keep. It is given the name's known id, the name and the value.
    pub fn retain(&mut self, keep: impl Fn(Option<KnownHeader>, &[u8], &[u8]) -> bool) {
        self.remove_where(0, |map, e| !keep(known_id(e.id), map.name_of(e), map.value_of(e)));
        self.note_present();
    }

    /// Whether any of some known headers may be present: `false` is certain, `true` has to be looked after.
    #[inline]
    pub fn may_contain_any(&self, names: KnownSet) -> bool {
        !self.present.and(names).is_empty()
    }

    /// Removes all entries of some known headers.
    pub fn remove_set(&mut self, names: KnownSet) {
        let gone = self.present.and(names);
        if gone.is_empty() {
            return;
        }
        self.present = self.present.without(gone);
        self.remove_where(0, |_, e| e.id < REMOVED && gone.contains(e.id));
    }

    /// Entries in order: known id if any, lower-case name, value.
    pub fn iter(&self) -> Iter<'_> {
        Iter { map: self, entries: self.entries.iter() }
    }

    /// `:path`, empty when absent.
    pub fn path(&self) -> &[u8] {
        self.get_known(KnownHeader::Path).unwrap_or_default()
    }

    /// `:method`, empty when absent.
    pub fn method(&self) -> &[u8] {
        self.get_known(KnownHeader::Method).unwrap_or_default()
    }

    /// `:authority`, empty when absent.
    pub fn authority(&self) -> &[u8] {
        self.get_known(KnownHeader::Authority).unwrap_or_default()
    }

    /// `:scheme`, empty when absent.
    pub fn scheme(&self) -> &[u8] {
        self.get_known(KnownHeader::Scheme).unwrap_or_default()
    }

    /// `:status` as a number, when it is one of three digits.
    #[inline]
    pub fn status(&self) -> Option<u16> {
        // It is the first entry of nearly every response.
        let entry = match self.entries.first() {
            Some(first) if first.id == KnownHeader::Status as u8 => first,
            _ => &self.entries[self.position_known(KnownHeader::Status)?],
        };
        match self.value_of(entry) {
            [a @ b'1'..=b'9', b @ b'0'..=b'9', c @ b'0'..=b'9'] => {
                Some(u16::from(a - b'0') * 100 + u16::from(b - b'0') * 10 + u16::from(c - b'0'))
            }
            _ => None,
        }
    }

    /// Sets `:status`. Values outside 100..=999 are a caller's error and are clamped into it.
    pub fn set_status(&mut self, status: u16) {
        let status = status.clamp(100, 999);
        let digits =
            [b'0' + (status / 100) as u8, b'0' + (status / 10 % 10) as u8, b'0' + (status % 10) as u8];
        self.set_known(KnownHeader::Status, &digits);
    }

    /// Sets a known header to a decimal number.
    pub fn set_known_number(&mut self, name: KnownHeader, number: u64) {
        let mut buffer = [0u8; 20];
        self.set_known(name, format_decimal(number, &mut buffer));
    }
}

/// Writes a number in decimal digits into the end of a buffer and returns the digits.
pub fn format_decimal(mut number: u64, buffer: &mut [u8; 20]) -> &[u8] {
    let mut at = buffer.len();
    loop {
        at -= 1;
        buffer[at] = b'0' + (number % 10) as u8;
        number /= 10;
        if number == 0 {
            return &buffer[at..];
        }
    }
}

fn known_name(id: u8) -> &'static [u8] {
    known_id(id).map_or(b"", |known| known.as_str().as_bytes())
}

fn known_id(id: u8) -> Option<KnownHeader> {
    KnownHeader::from_id(id)
}

/// Iterator over the entries of a [`HeaderMap`].
#[derive(Clone, Debug)]
pub struct Iter<'a> {
    map: &'a HeaderMap,
    entries: std::slice::Iter<'a, Entry>,
}

impl<'a> Iterator for Iter<'a> {
    type Item = (Option<KnownHeader>, &'a [u8], &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let entry = self.entries.find(|e| e.id != REMOVED)?;
        Some((known_id(entry.id), self.map.name_of(entry), self.map.value_of(entry)))
    }
}

impl<'a> IntoIterator for &'a HeaderMap {
    type Item = (Option<KnownHeader>, &'a [u8], &'a [u8]);
    type IntoIter = Iter<'a>;

    fn into_iter(self) -> Iter<'a> {
        self.iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(map: &HeaderMap) -> Vec<String> {
        map.iter()
            .map(|(_, n, v)| format!("{}: {}", String::from_utf8_lossy(n), String::from_utf8_lossy(v)))
            .collect()
    }

    #[test]
    fn keeps_order_and_lower_cases_names() {
        let mut map = HeaderMap::new();
        map.append(b"X-B", b"1");
        map.append(b"Content-Type", b"text/plain");
        map.append(b"x-b", b"2");
        assert_eq!(lines(&map), ["x-b: 1", "content-type: text/plain", "x-b: 2"]);
        assert_eq!(map.get_known(KnownHeader::ContentType), Some(&b"text/plain"[..]));
        let name = HeaderName::new("x-B");
        assert_eq!(map.get_all(&name).collect::<Vec<_>>(), [b"1", b"2"]);
        assert_eq!(map.byte_size(), 3 + 1 + 12 + 10 + 3 + 1);
    }

    #[test]
    fn set_keeps_the_first_place_and_drops_repeats() {
        let mut map = HeaderMap::new();
        for value in ["a", "b", "c"] {
            map.append(b"x-b", value.as_bytes());
            map.append(b"server", value.as_bytes());
        }
        map.set(&HeaderName::new("x-b"), b"longer");
        map.set_known(KnownHeader::Server, b"");
        assert_eq!(lines(&map), ["x-b: longer", "server: "]);
        assert_eq!(map.len(), 2);
    }

    #[test]
    fn removed_headers_are_gone_and_can_come_back() {
        let mut map = HeaderMap::new();
        map.append(b"te", b"trailers");
        map.append(b"x-b", b"1");
        assert!(map.remove_known(KnownHeader::Te));
        assert!(!map.remove_known(KnownHeader::Te));
        assert!(map.remove(&HeaderName::new("x-b")));
        assert!(map.is_empty());
        map.append(b"te", b"x");
        assert_eq!(map.get_str("te"), Some(&b"x"[..]));
    }

    #[test]
    fn retain_drops_what_is_not_kept() {
        let mut map = HeaderMap::new();
        map.append(b"connection", b"close");
        map.append(b"x-b", b"1");
        map.retain(|known, _, _| known != Some(KnownHeader::Connection));
        assert_eq!(lines(&map), ["x-b: 1"]);
        assert!(!map.contains_known(KnownHeader::Connection));
    }

    #[test]
    fn a_cleared_map_is_empty_and_reads_as_absent() {
        let mut map = HeaderMap::new();
        map.append(b"host", b"a");
        map.clear();
        assert!(map.is_empty());
        assert_eq!(map.get_known(KnownHeader::Host), None);
    }

    #[test]
    fn status_is_three_digits() {
        let mut map = HeaderMap::new();
        map.set_status(503);
        assert_eq!(map.status(), Some(503));
        map.set_known(KnownHeader::Status, b"20");
        assert_eq!(map.status(), None);
    }

    #[test]
    fn numbers_are_written_in_decimal() {
        let mut map = HeaderMap::new();
        map.set_known_number(KnownHeader::ContentLength, u64::MAX);
        assert_eq!(map.get_known(KnownHeader::ContentLength), Some(&b"18446744073709551615"[..]));
        map.set_known_number(KnownHeader::ContentLength, 0);
        assert_eq!(map.get_known(KnownHeader::ContentLength), Some(&b"0"[..]));
    }

    /// What leaves in runs of lines is what the entries say, whatever edits came before.
    #[test]
    fn written_lines_are_the_entries() {
        let names = ["x-a", "x-b", "server", "date", "te", "transfer-encoding", ":path", ":status"];
        let values: [&[u8]; 4] = [b"", b"1", b"some value", b"a value that is longer than the others"];
        let mut state = 0x2545_f491_4f6c_dd1du64;
        let mut below = |bound: usize| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state % bound as u64) as usize
        };
        let mut map = HeaderMap::new();
        for step in 0..20_000 {
            let (name, value) = (HeaderName::new(names[below(8)]), values[below(4)]);
            match below(8) {
                0..=2 => map.append_name(&name, value),
                3..=4 => map.set(&name, value),
                5 => map.append(name.as_str().to_ascii_uppercase().as_bytes(), value),
                6 => _ = map.remove(&name),
                _ if below(10) == 0 => map.clear(),
                _ => map.remove_set(KnownSet::of(&[KnownHeader::Te, KnownHeader::Date])),
            }
            let mut expected = Vec::new();
            for (known, name, value) in &map {
                if !known.is_some_and(|k| k.is_pseudo() || k == KnownHeader::TransferEncoding) {
                    expected.extend_from_slice(&[name, b": ", value, b"\r\n"].concat());
                }
            }
            let mut written = Vec::new();
            map.write_lines(&mut written);
            assert_eq!(written, expected, "after {step} steps");
        }
    }
}
