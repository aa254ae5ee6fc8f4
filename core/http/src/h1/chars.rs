//! Byte classes of HTTP/1 heads, as tables so that a check is one load per byte.

/// Characters of a header name or a custom method (a token of RFC 9110).
const TOKEN: u8 = 1;
/// Characters of an authority that Envoy lets through (`Host`, absolute URL).
const AUTHORITY: u8 = 2;
/// Characters of a host that Envoy's request line check lets through, before the URL is taken apart.
const URL_HOST: u8 = 4;
/// Control characters that no part of a head may hold: all but tab, carriage return and line feed.
const FORBIDDEN: u8 = 8;

const fn contains(set: &[u8], byte: u8) -> bool {
    let mut i = 0;
    while i < set.len() {
        if set[i] == byte {
            return true;
        }
        i += 1;
    }
    false
}

const CLASSES: [u8; 256] = {
    let mut table = [0; 256];
    let mut i = 0;
    while i < 256 {
        let byte = i as u8;
        let mut class = 0;
        if byte.is_ascii_alphanumeric() {
            class |= TOKEN | AUTHORITY | URL_HOST;
        }
        if contains(b"!#$%&'*+-.^_`|~", byte) {
            class |= TOKEN;
        }
        if contains(b"-._~!$&'()*+,;=:@[]%", byte) {
            class |= AUTHORITY;
        }
        if contains(b"!$%&'()*+,-.:;=@[]_~", byte) {
            class |= URL_HOST;
        }
        if (byte < 0x20 && !contains(b"\t\r\n", byte)) || byte == 0x7f {
            class |= FORBIDDEN;
        }
        table[i] = class;
        i += 1;
    }
    table
};

const fn is(byte: u8, class: u8) -> bool {
    CLASSES[byte as usize] & class != 0
}

/// Whether a byte may stand in a header name.
pub(crate) const fn is_token(byte: u8) -> bool {
    is(byte, TOKEN)
}

/// Whether Envoy accepts an authority made of these bytes.
pub(crate) fn is_authority(bytes: &[u8]) -> bool {
    bytes.iter().all(|b| is(*b, AUTHORITY))
}

/// Whether a byte may stand in the host part of the request target.
pub(super) const fn is_url_host(byte: u8) -> bool {
    is(byte, URL_HOST)
}

/// Whether a byte may stand in the path or query of the request target.
pub(super) const fn is_path(byte: u8) -> bool {
    byte > 0x20 && byte < 0x7f
}

/// Whether any byte is a control character that heads may not hold (tab, CR and LF are not meant).
pub(super) fn has_forbidden(bytes: &[u8]) -> bool {
    bytes.iter().any(|b| is(*b, FORBIDDEN))
}

/// The lower-case form of each byte of a header name, 0 for the bytes that may not stand in one.
const NAME_BYTES: [u8; 256] = {
    let mut table = [0; 256];
    let mut i = 0;
    while i < 256 {
        let byte = i as u8;
        if is_token(byte) {
            table[i] = byte.to_ascii_lowercase();
        }
        i += 1;
    }
    table
};

/// The lower-case form of a byte of a header name, 0 when it may not stand in one.
pub(super) const fn name_byte(byte: u8) -> u8 {
    NAME_BYTES[byte as usize]
}

const LOW_BITS: u64 = 0x0101_0101_0101_0101;
const HIGH_BITS: u64 = 0x8080_8080_8080_8080;

/// Where the first colon is, if it is among the first bytes that a name of usual length has.
pub(super) fn find_colon(bytes: &[u8]) -> Option<usize> {
    const MOST_WORDS: usize = 6;
    let (words, _) = bytes.as_chunks::<8>();
    for (at, word) in words.iter().take(MOST_WORDS).enumerate() {
        let other = u64::from_le_bytes(*word) ^ (LOW_BITS * b':' as u64);
        let marks = other.wrapping_sub(LOW_BITS) & !other & HIGH_BITS;
        if marks != 0 {
            return Some(8 * at + (marks.trailing_zeros() / 8) as usize);
        }
    }
    None
}

/// The high bit of the first byte of the word that is below `limit` (at most 0x80) or equal to 0x7f. Bytes behind the
/// first may be marked wrongly; the lowest mark is always right.
const fn mark_below_or_del(word: u64, limit: u8) -> u64 {
    let below = word.wrapping_sub(LOW_BITS * limit as u64) & !word;
    let is_del = word ^ (LOW_BITS * 0x7f);
    (below | (is_del.wrapping_sub(LOW_BITS) & !is_del)) & HIGH_BITS
}

/// The high bits of the bytes that lie in a range of ASCII characters, in a word of such characters.
const fn mark_range(word: u64, first: u8, last: u8) -> u64 {
    let not_below = word + LOW_BITS * (0x80 - first as u64);
    let above = word + LOW_BITS * (0x7f - last as u64);
    not_below & !above & HIGH_BITS
}

/// Puts the letters, digits and dashes at the start into lower case, eight at a time, and gives their number. It stops at the
/// first byte that is none of these, and may stop before it.
pub(super) fn lower_usual_name(bytes: &mut [u8]) -> usize {
    let mut at = 0;
    while let Some(chunk) = bytes[at..].first_chunk_mut::<8>() {
        let word = u64::from_le_bytes(*chunk);
        if word & HIGH_BITS != 0 {
            break;
        }
        let upper = mark_range(word, b'A', b'Z');
        let usual = upper
            | mark_range(word, b'a', b'z')
            | mark_range(word, b'0', b'9')
            | mark_range(word, b'-', b'-');
        let count = ((usual ^ HIGH_BITS).trailing_zeros() / 8) as usize;
        // The mark of a byte is two places above the bit that tells lower from upper case. What stands behind stays as it is.
        let own = if count < 8 { (1 << (8 * count)) - 1 } else { u64::MAX };
        *chunk = (word | ((upper & own) >> 2)).to_le_bytes();
        at += count;
        if count < 8 {
            break;
        }
    }
    at
}

/// Eight bytes from `at` on as a word, if there are as many.
fn word_at(bytes: &[u8], at: usize) -> Option<u64> {
    bytes.get(at..)?.first_chunk().map(|chunk| u64::from_le_bytes(*chunk))
}

/// Where the first control character but tab is, from `from` on: the end of the line, or a byte that may not be there.
pub(super) fn find_control(bytes: &[u8], from: usize) -> Option<usize> {
    let mut at = from;
    while let Some(word) = word_at(bytes, at) {
        // Marked are bytes below a blank, DEL, and wrongly some that stand behind one above 0x7e.
        let marks = (word.wrapping_sub(LOW_BITS * 0x20) | word.wrapping_add(LOW_BITS)) & !word & HIGH_BITS;
        if marks == 0 {
            at += 8;
            continue;
        }
        at += (marks.trailing_zeros() / 8) as usize;
        if !is_value_byte(bytes[at]) {
            return Some(at);
        }
        at += 1;
    }
    bytes.get(at..)?.iter().position(|b| !is_value_byte(*b)).map(|found| at + found)
}

/// How many bytes at the start may stand in a path or query.
pub(super) fn path_length(bytes: &[u8]) -> usize {
    let mut at = 0;
    while let Some(word) = word_at(bytes, at) {
        let marks = mark_below_or_del(word, 0x21) | (word & HIGH_BITS);
        if marks != 0 {
            return at + (marks.trailing_zeros() / 8) as usize;
        }
        at += 8;
    }
    at + bytes[at..].iter().position(|b| !is_path(*b)).unwrap_or(bytes.len() - at)
}

/// Whether every byte of a header value is fit to be stored as it is: no control character but tab.
pub(crate) fn is_plain_value(bytes: &[u8]) -> bool {
    find_control(bytes, 0).is_none()
}

const fn is_value_byte(byte: u8) -> bool {
    (byte >= 0x20 && byte != 0x7f) || byte == b'\t'
}

/// The bytes without spaces and tabs at both ends.
pub(super) fn trim(mut bytes: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] = bytes {
        bytes = rest;
    }
    while let [rest @ .., b' ' | b'\t'] = bytes {
        bytes = rest;
    }
    bytes
}

/// The trimmed, non-empty elements of a comma-separated list.
pub(super) fn list_elements(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value.split(|b| *b == b',').map(trim).filter(|element| !element.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_values_are_told_from_control_characters_in_every_lane() {
        for byte in 0..=255u8 {
            for position in 0..19 {
                let mut value = *b"abcdefghijklmnopqrs";
                value[position] = byte;
                let expected = byte == b'\t' || (byte >= 0x20 && byte != 0x7f);
                assert_eq!(is_plain_value(&value), expected, "byte {byte:#x} at {position}");
            }
        }
    }

    #[test]
    fn the_first_byte_that_does_not_fit_is_found() {
        for first in 0..=255u8 {
            for position in 0..19 {
                let mut text = *b"abcdefghijklmnopqrs";
                text[position] = first;
                let control = (first < 0x20 && first != b'\t') || first == 0x7f;
                assert_eq!(find_control(&text, 0), control.then_some(position), "byte {first:#x}");
                let length = if is_path(first) { text.len() } else { position };
                assert_eq!(path_length(&text), length, "byte {first:#x} at {position}");
                // What comes behind the first does not matter.
                text[position + 1..].fill(1);
                let expected =
                    if control { Some(position) } else { Some(position + 1).filter(|at| *at < 19) };
                assert_eq!(find_control(&text, 0), expected, "byte {first:#x} at {position}");
            }
        }
    }

    #[test]
    fn usual_names_are_put_into_lower_case_and_nothing_behind_them() {
        for stop in 0..=255u8 {
            for position in 0..19 {
                let mut text = *b"aB-dEfgHi9KLm0opQ-s";
                text[position] = stop;
                let original = text;
                let length = lower_usual_name(&mut text);
                let usual = |byte: &u8| byte.is_ascii_alphanumeric() || *byte == b'-';
                let whole = original.iter().take_while(|byte| usual(byte)).count();
                assert!(length <= whole && whole - length < 8, "byte {stop:#x} at {position}");
                assert_eq!(text[..length], original[..length].to_ascii_lowercase());
                assert_eq!(text[length..], original[length..]);
            }
        }
    }

    #[test]
    fn lists_are_trimmed_and_empty_elements_skipped() {
        assert_eq!(list_elements(b" a ,,\tb, ").collect::<Vec<_>>(), [b"a", b"b"]);
        assert_eq!(trim(b"\t "), b"");
    }
}
