//! Field lines that come again and again: the `server` and `content-type` of an application, the `date` of a second, the `host`
//! of a client. What was found out about one is kept for the next of the same bytes, which takes a sixth of the work.
//!
//! Each thread keeps a few lines, in places that their first bytes decide; of lines that fall on one place, another is kept now
//! and then. Only short lines of names whose values tend to repeat and are no secrets are kept.

use std::cell::RefCell;

use crate::KnownHeader;
use crate::known::KnownSet;

/// Bytes that are looked at. A line that is kept is shorter, so that what stands behind it is among them.
const ROOM: usize = 48;
const WORDS: usize = ROOM / 8;
/// Lines that are kept.
const PLACES: usize = 64;
/// How often a line has to find its place taken before it takes it: two that take turns would else cost more than none.
const PATIENCE: u32 = 8;

/// Names whose lines are kept.
const REPEATING: KnownSet = KnownSet::of(&[
    KnownHeader::Accept,
    KnownHeader::AcceptEncoding,
    KnownHeader::CacheControl,
    KnownHeader::Connection,
    KnownHeader::ContentEncoding,
    KnownHeader::ContentLength,
    KnownHeader::ContentType,
    KnownHeader::Date,
    KnownHeader::Host,
    KnownHeader::KeepAlive,
    KnownHeader::Pragma,
    KnownHeader::Server,
    KnownHeader::Te,
    KnownHeader::TransferEncoding,
    KnownHeader::UserAgent,
    KnownHeader::Vary,
    KnownHeader::Via,
    KnownHeader::XForwardedProto,
]);

/// What is known of a line `name: value\r\n`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Found {
    pub known: KnownHeader,
    /// Length of the name.
    pub name: usize,
    /// Length of the value.
    pub value: usize,
}

impl Found {
    /// Length of the line: name and value, a colon and a blank between them, and the line break.
    fn line(self) -> usize {
        self.name + self.value + 4
    }
}

/// The first bytes of a line, as they came.
pub(super) type Beginning = [u64; WORDS];

#[derive(Clone, Copy)]
struct Kept {
    /// The line as it came.
    raw: Beginning,
    /// The bits of these words that belong to it.
    own: Beginning,
    /// The bits that put its name into lower case.
    case: Beginning,
    found: Found,
}

struct Lines {
    kept: [Option<Kept>; PLACES],
    /// Lines that were not kept in a row.
    passed: u32,
}

thread_local! {
    static LINES: RefCell<Lines> = const { RefCell::new(Lines { kept: [None; PLACES], passed: 0 }) };
}

/// The place of a line that begins like this. The first byte of a value, which tells lines of one name apart, is often
/// among the first sixteen.
fn place(words: &Beginning) -> usize {
    let mixed = (words[0] ^ words[1].rotate_left(29)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (mixed >> 32) as usize % PLACES
}

/// The beginning of a line, if there are enough bytes behind it.
#[inline]
pub(super) fn beginning(bytes: &[u8]) -> Option<Beginning> {
    let (words, _) = bytes.first_chunk::<ROOM>()?.as_chunks::<8>();
    let mut beginning = [0; WORDS];
    for (word, chunk) in beginning.iter_mut().zip(words) {
        *word = u64::from_le_bytes(*chunk);
    }
    Some(beginning)
}

/// What is known of the line at the start of `bytes`, which begins like this, and puts its name into lower case.
#[inline]
pub(super) fn recall(beginning: &Beginning, bytes: &mut [u8]) -> Option<Found> {
    LINES.with_borrow(|lines| {
        let kept = lines.kept[place(beginning)].as_ref()?;
        let words = beginning.iter().zip(&kept.raw).zip(&kept.own);
        let differing = words.fold(0, |all, ((word, raw), own)| all | ((word ^ raw) & own));
        // With a blank behind it the line would go on.
        if differing != 0 || matches!(bytes.get(kept.found.line()), None | Some(b' ' | b'\t')) {
            return None;
        }
        let (words, _) = bytes.first_chunk_mut::<ROOM>()?.as_chunks_mut::<8>();
        for ((chunk, word), case) in words.iter_mut().zip(beginning).zip(&kept.case) {
            *chunk = (word | case).to_le_bytes();
        }
        Some(kept.found)
    })
}

/// Keeps what was found out about the line at the start of `bytes`, whose name is in lower case now and which began like this.
pub(super) fn keep(beginning: &Beginning, bytes: &[u8], found: Found) {
    if !REPEATING.contains(found.known as u8) || found.line() >= ROOM {
        return;
    }
    LINES.with_borrow_mut(|lines| {
        let place = &mut lines.kept[place(beginning)];
        if place.is_some() && lines.passed < PATIENCE {
            lines.passed += 1;
            return;
        }
        lines.passed = 0;
        let Some(now) = self::beginning(bytes) else { return };
        let mut kept = Kept { raw: *beginning, own: [0; WORDS], case: [0; WORDS], found };
        for at in 0..WORDS {
            let bytes = found.line().saturating_sub(8 * at).min(8);
            kept.own[at] = if bytes == 8 { u64::MAX } else { (1 << (8 * bytes)) - 1 };
            kept.case[at] = (now[at] ^ beginning[at]) & kept.own[at];
        }
        *place = Some(kept);
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    const BEHIND: &[u8] = b"next: line\r\n\r\n and enough bytes behind it to look at";

    fn with_rest(line: &[u8], rest: &[u8]) -> Vec<u8> {
        [line, rest].concat()
    }

    /// Keeps a line as reading it would.
    fn learn(line: &[u8], found: Found) {
        let raw = with_rest(line, BEHIND);
        let mut lower = raw.clone();
        lower[..found.name].make_ascii_lowercase();
        keep(&beginning(&raw).unwrap(), &lower, found);
    }

    fn ask(bytes: &mut [u8]) -> Option<Found> {
        recall(&beginning(bytes)?, bytes)
    }

    #[test]
    fn a_line_is_known_again_and_only_that_line() {
        let line = b"Content-Type: text/plain\r\n";
        let found = Found { known: KnownHeader::ContentType, name: 12, value: 10 };
        learn(line, found);
        let mut bytes = with_rest(line, BEHIND);
        assert_eq!(ask(&mut bytes), Some(found));
        assert_eq!(bytes, with_rest(b"content-type: text/plain\r\n", BEHIND));
        for at in 0..line.len() {
            for bit in 0..8 {
                let mut bytes = with_rest(line, BEHIND);
                bytes[at] ^= 1 << bit;
                let before = bytes.clone();
                assert_eq!(ask(&mut bytes), None, "bit {bit} of byte {at}");
                assert_eq!(bytes, before);
            }
        }
    }

    #[test]
    fn what_stands_behind_a_line_matters_only_where_it_goes_on() {
        let line = b"Server: nginx/1\r\n";
        let found = Found { known: KnownHeader::Server, name: 6, value: 7 };
        learn(line, found);
        for first in 0..=255 {
            let mut rest = BEHIND.to_vec();
            rest[0] = first;
            let mut bytes = with_rest(line, &rest);
            assert_eq!(ask(&mut bytes), Some(found).filter(|_| !matches!(first, b' ' | b'\t')));
            assert_eq!(bytes[line.len()..], rest);
        }
        assert_eq!(ask(&mut line.to_vec()), None, "too few bytes to look at");
    }

    #[test]
    fn a_line_gives_way_to_another_that_comes_more_often() {
        let old = Found { known: KnownHeader::Date, name: 4, value: 14 };
        let (first, second) = (b"date: monday, 22 day\r\n", b"date: monday, 22 may\r\n");
        assert_eq!(place(&beginning(&with_rest(first, BEHIND)).unwrap()), {
            place(&beginning(&with_rest(second, BEHIND)).unwrap())
        });
        learn(first, old);
        let mut times = 0;
        while ask(&mut with_rest(second, BEHIND)).is_none() {
            learn(second, old);
            times += 1;
        }
        assert_eq!(times, PATIENCE + 1);
        assert_eq!(ask(&mut with_rest(first, BEHIND)), None);
    }

    #[test]
    fn secrets_and_long_lines_are_not_kept() {
        let secret = Found { known: KnownHeader::Authorization, name: 13, value: 7 };
        learn(b"authorization: Basic x\r\n", secret);
        assert_eq!(ask(&mut with_rest(b"authorization: Basic x\r\n", BEHIND)), None);
        for (value, kept) in [(31, true), (32, false)] {
            let line = format!("user-agent: {}\r\n", "x".repeat(value + 2));
            learn(line.as_bytes(), Found { known: KnownHeader::UserAgent, name: 10, value: value + 2 });
            let found = ask(&mut with_rest(line.as_bytes(), BEHIND));
            assert_eq!(found.is_some(), kept, "{} bytes", line.len());
        }
    }
}
