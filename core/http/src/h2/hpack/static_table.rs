//! The static table of RFC 7541, appendix A.

use std::sync::LazyLock;

use crate::KnownHeader;

/// How many entries there are; the dynamic table begins behind them.
pub(super) const LEN: usize = 61;

const TEXTS: [(&str, &str); LEN] = [
    (":authority", ""),
    (":method", "GET"),
    (":method", "POST"),
    (":path", "/"),
    (":path", "/index.html"),
    (":scheme", "http"),
    (":scheme", "https"),
    (":status", "200"),
    (":status", "204"),
    (":status", "206"),
    (":status", "304"),
    (":status", "400"),
    (":status", "404"),
    (":status", "500"),
    ("accept-charset", ""),
    ("accept-encoding", "gzip, deflate"),
    ("accept-language", ""),
    ("accept-ranges", ""),
    ("accept", ""),
    ("access-control-allow-origin", ""),
    ("age", ""),
    ("allow", ""),
    ("authorization", ""),
    ("cache-control", ""),
    ("content-disposition", ""),
    ("content-encoding", ""),
    ("content-language", ""),
    ("content-length", ""),
    ("content-location", ""),
    ("content-range", ""),
    ("content-type", ""),
    ("cookie", ""),
    ("date", ""),
    ("etag", ""),
    ("expect", ""),
    ("expires", ""),
    ("from", ""),
    ("host", ""),
    ("if-match", ""),
    ("if-modified-since", ""),
    ("if-none-match", ""),
    ("if-range", ""),
    ("if-unmodified-since", ""),
    ("last-modified", ""),
    ("link", ""),
    ("location", ""),
    ("max-forwards", ""),
    ("proxy-authenticate", ""),
    ("proxy-authorization", ""),
    ("range", ""),
    ("referer", ""),
    ("refresh", ""),
    ("retry-after", ""),
    ("server", ""),
    ("set-cookie", ""),
    ("strict-transport-security", ""),
    ("transfer-encoding", ""),
    ("user-agent", ""),
    ("vary", ""),
    ("via", ""),
    ("www-authenticate", ""),
];

/// An entry with the id of its name.
#[derive(Clone, Copy, Debug)]
pub(super) struct StaticEntry {
    pub(super) known: Option<KnownHeader>,
    pub(super) name: &'static [u8],
    pub(super) value: &'static [u8],
}

struct StaticTable {
    entries: [StaticEntry; LEN],
    /// By the id of a name the index of the first entry with it, 0 for none.
    by_known: Vec<u8>,
    /// The entries whose names have no id.
    others: Vec<(&'static [u8], u8)>,
}

static TABLE: LazyLock<StaticTable> = LazyLock::new(|| {
    let entries = TEXTS.map(|(name, value)| StaticEntry {
        known: KnownHeader::from_lower(name.as_bytes()),
        name: name.as_bytes(),
        value: value.as_bytes(),
    });
    let mut by_known = vec![0; KnownHeader::all().len()];
    let mut others = Vec::new();
    for (at, entry) in entries.iter().enumerate().rev() {
        match entry.known {
            Some(known) => by_known[known as usize] = at as u8 + 1,
            None => others.push((entry.name, at as u8 + 1)),
        }
    }
    StaticTable { entries, by_known, others }
});

/// The entry at an index from 1 on.
pub(super) fn get(index: usize) -> Option<&'static StaticEntry> {
    TABLE.entries.get(index.checked_sub(1)?)
}

/// Where a field stands in the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// The whole field.
    Field(usize),
    /// Its name.
    Name(usize),
    Nothing,
}

pub(super) fn find(known: Option<KnownHeader>, name: &[u8], value: &[u8]) -> Found {
    let table = &*TABLE;
    let first = match known {
        Some(known) => table.by_known[known as usize],
        None => table.others.iter().find(|(other, _)| *other == name).map_or(0, |(_, index)| *index),
    };
    if first == 0 {
        return Found::Nothing;
    }
    let from = usize::from(first);
    if value.is_empty() {
        return Found::Name(from);
    }
    let entries = &table.entries[from - 1..];
    let name = entries[0].name;
    let same = entries.iter().take_while(|entry| entry.name == name);
    match same.clone().position(|entry| entry.value == value) {
        Some(at) => Found::Field(from + at),
        None => Found::Name(from),
    }
}
