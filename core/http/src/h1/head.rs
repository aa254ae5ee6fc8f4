//! Field lines of heads and trailers: from bytes to entries of a [`HeaderMap`].

use std::ops::Range;

use memchr::memchr;

use super::chars::{find_control, has_forbidden, is_plain_value, is_token, name_byte, trim};
use crate::{HeaderMap, KnownHeader};

/// What a parser says about a head that may not be there completely yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Parsed<T> {
    /// The head does not end within the bytes given; give the same bytes with more behind them.
    Partial,
    /// The head ended.
    Complete {
        /// Length of the head in bytes: the body, or the next message, starts behind it.
        consumed: usize,
        /// What the head says about the message.
        info: T,
    },
}

/// How much of an unfinished head was looked at already, so that a head that arrives byte by byte is not parsed anew
/// from its start each time. One per message; `Default` is the beginning.
#[derive(Clone, Copy, Debug, Default)]
pub struct HeadProgress {
    pub(super) scanned: usize,
    pub(super) first_line_checked: bool,
}

/// What to do with header names that hold an underscore (`headers_with_underscores_action`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Underscores {
    /// Pass them on.
    #[default]
    Allow,
    /// Answer 400.
    Reject,
    /// Drop the header.
    Drop,
}

/// Why a block of field lines is not acceptable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FieldError {
    Malformed,
    InvalidCharacters,
    TooMany,
    Underscore,
}

/// How to read a block of field lines.
#[derive(Clone, Copy, Debug)]
pub(super) struct FieldRules {
    /// Most entries that the map may hold, with those that it held before the first field line. Repeats that are
    /// joined into one entry count once.
    pub max_entries: usize,
    pub underscores: Underscores,
    /// Requests keep `host` as `:authority`.
    pub request: bool,
}

/// The first byte that is not a line break; empty lines before a message are skipped.
pub(super) fn skip_line_breaks(buf: &[u8]) -> usize {
    buf.iter().position(|b| !matches!(b, b'\r' | b'\n')).unwrap_or(buf.len())
}

/// Finds the end of a head (behind its empty line), looking from `from` on.
pub(super) fn find_end(buf: &[u8], from: usize) -> Option<usize> {
    let mut at = from;
    while let Some(found) = memchr(b'\n', &buf[at..]) {
        at += found + 1;
        match buf[at..] {
            [b'\n', ..] => return Some(at + 1),
            [b'\r', b'\n', ..] => return Some(at + 2),
            _ => {}
        }
    }
    None
}

/// A line without its line break, and where the next one starts. `None` when the line does not end in the buffer.
pub(super) fn next_line(buf: &[u8], at: usize) -> Option<(&[u8], usize)> {
    let end = at + memchr(b'\n', &buf[at..])?;
    let line = &buf[at..end];
    Some((line.strip_suffix(b"\r").unwrap_or(line), end + 1))
}

/// Reads field lines up to the empty line into `head`. `None` when the empty line is not there yet.
pub(super) fn parse_fields(
    buf: &[u8],
    mut at: usize,
    rules: FieldRules,
    head: &mut HeaderMap,
) -> Result<Option<usize>, FieldError> {
    loop {
        let line_break = match buf[at..] {
            [b'\n', ..] => 1,
            [b'\r', b'\n', ..] => 2,
            _ => 0,
        };
        if line_break > 0 {
            head.join_repeats();
            return Ok(Some(at + line_break));
        }
        let mut name = NameBuffer { bytes: [0; SHORT_NAME], length: 0 };
        if let Some(line) = scan_line(buf, at, &mut name) {
            store(name.as_bytes(), &buf[line.value], rules, head)?;
            at = line.next;
            continue;
        }
        // Incomplete, folded, malformed, or with a name of unusual length.
        let Some((line, next)) = next_line(buf, at) else { return Ok(None) };
        match buf.get(next) {
            None => return Ok(None),
            Some(b' ' | b'\t') => match parse_folded(buf, at, rules, head)? {
                None => return Ok(None),
                Some(after) => at = after,
            },
            Some(_) => {
                parse_line(line, rules, head)?;
                at = next;
            }
        }
    }
}

/// Names up to this length take the short way.
const SHORT_NAME: usize = 40;

/// A name in lower case.
struct NameBuffer {
    bytes: [u8; SHORT_NAME],
    length: usize,
}

impl NameBuffer {
    fn as_bytes(&self) -> &[u8] {
        &self.bytes[..self.length]
    }
}

/// Where the value of a plain field line lies, and where the next line starts.
struct Line {
    value: Range<usize>,
    next: usize,
}

/// Reads a line in one pass if it is complete and there is nothing unusual about it.
fn scan_line(buf: &[u8], at: usize, name: &mut NameBuffer) -> Option<Line> {
    for (slot, byte) in name.bytes.iter_mut().zip(&buf[at..]) {
        *slot = name_byte(*byte);
        if *slot == 0 {
            break;
        }
        name.length += 1;
    }
    let colon = at + name.length;
    if name.length == 0 || buf.get(colon) != Some(&b':') {
        return None;
    }
    let mut start = colon + 1;
    while matches!(buf.get(start), Some(b' ' | b'\t')) {
        start += 1;
    }
    let stop = find_control(buf, start)?;
    let next = match buf[stop..] {
        [b'\n', ..] => stop + 1,
        [b'\r', b'\n', ..] => stop + 2,
        _ => return None,
    };
    if matches!(buf.get(next), None | Some(b' ' | b'\t')) {
        return None;
    }
    let mut end = stop;
    while end > start && matches!(buf[end - 1], b' ' | b'\t') {
        end -= 1;
    }
    Some(Line { value: start..end, next })
}

fn parse_line(line: &[u8], rules: FieldRules, head: &mut HeaderMap) -> Result<(), FieldError> {
    let colon = line.iter().position(|b| !is_token(*b)).unwrap_or(line.len());
    if colon == 0 || line.get(colon) != Some(&b':') {
        return Err(if has_forbidden(line) { FieldError::InvalidCharacters } else { FieldError::Malformed });
    }
    let name = line[..colon].to_ascii_lowercase();
    let value = trim(&line[colon + 1..]);
    if is_plain_value(value) {
        return store(&name, value, rules, head);
    }
    if has_forbidden(value) {
        return Err(FieldError::InvalidCharacters);
    }
    // What is left are carriage returns inside the line, which Envoy takes out of the value.
    let value: Vec<u8> = value.iter().copied().filter(|b| *b != b'\r').collect();
    store(&name, trim(&value), rules, head)
}

/// A field whose value continues on lines that start with white space: the line breaks go, the white space stays.
fn parse_folded(
    buf: &[u8],
    at: usize,
    rules: FieldRules,
    head: &mut HeaderMap,
) -> Result<Option<usize>, FieldError> {
    let mut joined = Vec::new();
    let mut start = at;
    loop {
        let Some((line, next)) = next_line(buf, start) else { return Ok(None) };
        joined.extend_from_slice(line);
        start = next;
        match buf.get(next) {
            None => return Ok(None),
            Some(b' ' | b'\t') => {}
            Some(_) => break,
        }
    }
    parse_line(&joined, rules, head)?;
    Ok(Some(start))
}

/// Adds a field; the name is in lower case.
fn store(name: &[u8], value: &[u8], rules: FieldRules, head: &mut HeaderMap) -> Result<(), FieldError> {
    if rules.underscores != Underscores::Allow && memchr(b'_', name).is_some() {
        return match rules.underscores {
            Underscores::Reject => Err(FieldError::Underscore),
            _ => Ok(()),
        };
    }
    if rules.request {
        head.append_request_lower(name, value);
    } else {
        head.append_response_lower(name, value);
    }
    if head.joined_len() > rules.max_entries {
        return Err(FieldError::TooMany);
    }
    Ok(())
}

/// Parses a decimal `content-length`: digits only, within 64 bits.
pub(super) fn parse_length(value: &[u8]) -> Option<u64> {
    if value.is_empty() {
        return None;
    }
    value.iter().try_fold(0u64, |sum, byte| {
        let digit = byte.is_ascii_digit().then(|| u64::from(byte - b'0'))?;
        sum.checked_mul(10)?.checked_add(digit)
    })
}

/// Whether the fields name a transfer coding at all.
pub(super) fn has_transfer_encoding(head: &HeaderMap) -> bool {
    head.contains_known(KnownHeader::TransferEncoding)
}
