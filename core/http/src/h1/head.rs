//! Field lines of heads and trailers: from bytes to entries of a [`HeaderMap`].

use memchr::memchr;

use super::chars::{
    find_colon, find_control, has_forbidden, is_plain_value, is_token, lower_usual_name, name_byte, trim,
};
use super::repeated::{self, Found};
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
    at: usize,
    rules: FieldRules,
    head: &mut HeaderMap,
) -> Result<Option<usize>, FieldError> {
    if let Some(end) = parse_plain(buf, at, rules, head)? {
        head.join_repeats();
        return Ok(Some(end));
    }
    parse_any(buf, at, rules, head)
}

/// Lines that are taken in one step; what follows a head of usual size is copied for nothing.
const STEP: usize = 512;

/// Reads a block of lines that all look the way they are written by this proxy, but for the case of names: the lines are
/// copied as they are and become fields in place. `None`, and nothing read, when the block does not end in the buffer or
/// there is anything unusual about one of its lines.
fn parse_plain(
    buf: &[u8],
    at: usize,
    rules: FieldRules,
    head: &mut HeaderMap,
) -> Result<Option<usize>, FieldError> {
    let entries = head.entry_count();
    let mut rest = &buf[at..];
    let first;
    (first, rest) = rest.split_at(rest.len().min(STEP));
    let begin = head.take_lines(first);
    let mut line = begin;
    loop {
        let bytes = head.lines_mut(line);
        if let [b'\r', b'\n', ..] = bytes {
            head.keep_lines(line);
            return Ok(Some(at + (line - begin) + 2));
        }
        match scan_line(bytes) {
            Scan::Line { known, name, value } => {
                let refused =
                    rules.underscores != Underscores::Allow && memchr(b'_', &bytes[..name]).is_some();
                if refused {
                    break;
                }
                head.adopt_line(line, known, name, value, rules.request);
                if head.joined_len() > rules.max_entries {
                    return Err(FieldError::TooMany);
                }
                line += name + value + 4;
            }
            Scan::Short if !rest.is_empty() => {
                let more;
                (more, rest) = rest.split_at(rest.len().min(4 * STEP));
                head.take_lines(more);
            }
            Scan::Short | Scan::Unusual => break,
        }
    }
    head.drop_lines(begin, entries);
    Ok(None)
}

/// What stands at the beginning of some bytes.
enum Scan {
    /// A plain line, with the lengths of its name and its value.
    Line { known: Option<KnownHeader>, name: usize, value: usize },
    /// A line that does not end here, or behind which nothing stands.
    Short,
    /// Anything else.
    Unusual,
}

/// Looks at a line and puts its name into lower case. One that came before is known again.
fn scan_line(bytes: &mut [u8]) -> Scan {
    let Some(beginning) = repeated::beginning(bytes) else { return scan_new_line(bytes) };
    if let Some(Found { known, name, value }) = repeated::recall(&beginning, bytes) {
        return Scan::Line { known: Some(known), name, value };
    }
    let scan = scan_new_line(bytes);
    if let Scan::Line { known: Some(known), name, value } = scan {
        repeated::keep(&beginning, bytes, Found { known, name, value });
    }
    scan
}

/// Looks at a line in one pass and puts its name into lower case.
fn scan_new_line(bytes: &mut [u8]) -> Scan {
    let colon = find_colon(bytes).filter(|colon| *colon > 0);
    let found = colon.and_then(|colon| Some((KnownHeader::take_name(bytes, colon)?, colon)));
    let (known, name) = match found {
        Some((known, name)) => (Some(known), name),
        None => {
            let name = lower_name(bytes);
            (KnownHeader::from_lower(&bytes[..name]), name)
        }
    };
    match bytes.get(name..) {
        Some([b':', b' ', first, ..]) if name > 0 && name <= NAME_LIMIT && !matches!(first, b' ' | b'\t') => {
        }
        Some([] | [b':'] | [b':', b' ']) => return Scan::Short,
        _ => return Scan::Unusual,
    }
    let start = name + 2;
    let Some(stop) = find_control(bytes, start) else { return Scan::Short };
    match bytes[stop..] {
        [b'\r', b'\n', b' ' | b'\t', ..] => Scan::Unusual,
        [b'\r', b'\n', _, ..] => {
            if matches!(bytes[stop - 1], b' ' | b'\t') && stop > start {
                return Scan::Unusual;
            }
            Scan::Line { known, name, value: stop - start }
        }
        [b'\r'] | [b'\r', b'\n'] => Scan::Short,
        _ => Scan::Unusual,
    }
}

/// Puts the name at the start into lower case; its length.
fn lower_name(bytes: &mut [u8]) -> usize {
    let mut name = lower_usual_name(bytes);
    for byte in &mut bytes[name..] {
        let lower = name_byte(*byte);
        if lower == 0 {
            break;
        }
        *byte = lower;
        name += 1;
    }
    name
}

/// Names beyond this length take the long way.
const NAME_LIMIT: usize = 1024;

/// Reads lines of any form.
fn parse_any(
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
        match KnownHeader::from_lower(name) {
            Some(known) => head.append_request_known(known, value),
            None => head.append_unknown(name, value),
        }
    } else {
        match KnownHeader::from_lower(name) {
            Some(known) => head.append_response_known(known, value),
            None => head.append_unknown(name, value),
        }
    }
    if head.joined_len() > rules.max_entries {
        return Err(FieldError::TooMany);
    }
    Ok(())
}

/// The fields of a whole head whose names hold an underscore.
pub fn count_underscored_names(head: &[u8]) -> usize {
    let lines = head.split(|byte| *byte == b'\n').skip_while(|line| line.len() <= 1).skip(1);
    let names = lines.filter(|line| !line.starts_with(b" ") && !line.starts_with(b"\t"));
    names
        .filter_map(|line| line.split(|byte| *byte == b':').next())
        .filter(|name| name.contains(&b'_'))
        .count()
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_with_underscores_are_counted_in_a_head() {
        let head = b"\r\nGET /a_b HTTP/1.1\r\nhost: a\r\nx_y: 1\r\nx-y: a_b\r\n fold_ed: 1\r\n_z_:\r\n\r\n";
        assert_eq!(count_underscored_names(head), 2);
        assert_eq!(count_underscored_names(b"GET / HTTP/1.1\n\n"), 0);
    }

    const LINES: &[&str] = &[
        "Host: a\r\n",
        "host: b\r\n",
        "X-Plain: value\r\n",
        "x-empty: \r\n",
        "x-none:\r\n",
        "x-blank: a \r\n",
        "x-close:a\r\n",
        "x-long: 0123456789012345678901234567890123456789\r\n",
        "Accept: a\r\n",
        "accept: b\r\n",
        "Set-Cookie: c\r\n",
        "x-feed: a\n",
        " folded\r\n",
        "x_under: a\r\n",
        "x-bad\u{1}: a\r\n",
        "x-high: \u{e9}\r\n",
        "content-length: 3\r\n",
    ];

    fn entries(head: &HeaderMap) -> Vec<(Vec<u8>, Vec<u8>)> {
        head.iter().map(|(_, name, value)| (name.to_vec(), value.to_vec())).collect()
    }

    /// The short way gives what the long way gives, whatever block of lines it is tried on.
    #[test]
    fn both_ways_of_reading_lines_agree() {
        let mut state = 0x9e37_79b9_7f4a_7c15u64;
        let mut below = |bound: usize| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state % bound as u64) as usize
        };
        let (mut plain, mut total) = (0, 0);
        for _ in 0..4000 {
            let mut block = String::new();
            for _ in 0..below(6) {
                // Blocks of plain lines alone are as frequent as those with unusual ones.
                let line = if below(2) == 0 { below(3) } else { below(LINES.len()) };
                block.push_str(LINES[line]);
            }
            block.push_str(["\r\n", "\n", "", "\r", "\r\nbody"][below(5)]);
            for request in [true, false] {
                let rules = FieldRules {
                    max_entries: 4,
                    underscores: [Underscores::Allow, Underscores::Reject, Underscores::Drop][below(3)],
                    request,
                };
                let (mut short, mut long) = (HeaderMap::new(), HeaderMap::new());
                let expected = parse_any(block.as_bytes(), 0, rules, &mut long);
                let result = parse_plain(block.as_bytes(), 0, rules, &mut short);
                total += 1;
                if result == Ok(None) {
                    assert!(short.is_empty(), "{block:?}");
                    continue;
                }
                plain += 1;
                short.join_repeats();
                assert_eq!(result, expected, "{block:?}");
                if result.is_ok() {
                    assert_eq!(entries(&short), entries(&long), "{block:?}");
                    let (mut a, mut b) = (Vec::new(), Vec::new());
                    short.write_lines(&mut a);
                    long.write_lines(&mut b);
                    assert_eq!(a, b, "{block:?}");
                }
            }
        }
        assert!(plain > total / 20, "{plain} of {total} were read the short way");
    }

    #[test]
    fn a_block_longer_than_a_step_is_read_whole() {
        for lines in [20, 200, 2000] {
            let block = "X-Some-Name: some value of some length\r\n".repeat(lines) + "\r\n";
            let rules = FieldRules { max_entries: lines, underscores: Underscores::Allow, request: true };
            let mut head = HeaderMap::new();
            let end = parse_plain(block.as_bytes(), 0, rules, &mut head);
            assert_eq!((end, head.len()), (Ok(Some(block.len())), lines));
        }
    }
}
