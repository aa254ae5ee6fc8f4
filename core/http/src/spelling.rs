//! How a peer spelled the header names of a message, for messages that are passed on in the same spelling.

use memchr::memchr;

/// What is remembered of a received head (`header_key_format.stateful_formatter`, `preserve_case`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SpellingRules {
    /// `formatter_type_on_envoy_headers: PROPER_CASE`: names that the peer did not send start their words with capitals.
    pub proper_case_others: bool,
    /// `forward_reason_phrase`: the reason phrase of a response is passed on too.
    pub reason_phrase: bool,
}

/// The names of one head as they were received; see [`HeaderMap::remember_spelling`](crate::HeaderMap::remember_spelling).
#[derive(Clone, Debug, Default)]
pub struct Spelling {
    rules: SpellingRules,
    /// Field lines, from which names are read where they are asked for: heads have few.
    lines: Vec<u8>,
    reason: Vec<u8>,
}

impl Spelling {
    /// Remembers a head, first line included.
    pub(crate) fn of(head: &[u8], rules: SpellingRules) -> Self {
        let fields = memchr(b'\n', head).map_or(head.len(), |end| end + 1);
        let reason = if rules.reason_phrase { reason_of(&head[..fields]) } else { &[] };
        Self { rules, lines: head[fields..].to_vec(), reason: reason.to_vec() }
    }

    /// The reason phrase to write instead of the usual one.
    pub(crate) fn reason_phrase(&self) -> Option<&[u8]> {
        Some(&*self.reason).filter(|reason| !reason.is_empty())
    }

    /// Appends a name in the spelling in which it was first received.
    pub(crate) fn write_name(&self, name: &[u8], out: &mut Vec<u8>) {
        match self.received(name) {
            Some(received) => out.extend_from_slice(received),
            None => {
                let at = out.len();
                out.extend_from_slice(name);
                if self.rules.proper_case_others {
                    capitalise_words(&mut out[at..]);
                }
            }
        }
    }

    fn received(&self, name: &[u8]) -> Option<&[u8]> {
        self.lines.split(|byte| *byte == b'\n').find_map(|line| {
            let (start, rest) = line.split_at_checked(name.len())?;
            (rest.first() == Some(&b':') && start.eq_ignore_ascii_case(name)).then_some(start)
        })
    }
}

/// What stands behind the status in a status line.
fn reason_of(line: &[u8]) -> &[u8] {
    let mut words = line.trim_ascii().splitn(3, |byte| *byte == b' ');
    words.nth(2).unwrap_or_default()
}

/// Makes each letter at the start, and behind every character that is neither letter nor digit, a capital.
pub(crate) fn capitalise_words(name: &mut [u8]) {
    let mut at_start = true;
    for byte in name {
        if at_start {
            byte.make_ascii_uppercase();
        }
        at_start = !byte.is_ascii_alphanumeric();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(spelling: &Spelling, name: &str) -> String {
        let mut out = Vec::new();
        spelling.write_name(name.as_bytes(), &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn names_are_written_as_first_received_and_others_as_configured() {
        let head = b"HTTP/1.1 200 Very  Fine\r\nHOST: a\r\nX-a: 1\r\nx-A: 2\r\nX-ab:\r\n\r\n";
        let spelling = Spelling::of(head, SpellingRules::default());
        assert_eq!(["host", "x-a", "x-ab"].map(|name| written(&spelling, name)), ["HOST", "X-a", "X-ab"]);
        assert_eq!(written(&spelling, "x-request-id"), "x-request-id");
        assert_eq!(spelling.reason_phrase(), None);

        let rules = SpellingRules { proper_case_others: true, reason_phrase: true };
        let spelling = Spelling::of(head, rules);
        assert_eq!(written(&spelling, "x-request-id"), "X-Request-Id");
        assert_eq!(spelling.reason_phrase(), Some(&b"Very  Fine"[..]));
    }

    #[test]
    fn a_status_line_without_a_phrase_says_nothing() {
        let rules = SpellingRules { reason_phrase: true, ..Default::default() };
        assert_eq!(Spelling::of(b"HTTP/1.1 200 \r\n\r\n", rules).reason_phrase(), None);
        assert_eq!(Spelling::of(b"HTTP/1.1 200\r\n\r\n", rules).reason_phrase(), None);
    }
}
