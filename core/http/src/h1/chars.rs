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
pub(super) const fn is_token(byte: u8) -> bool {
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

/// Whether every byte of a header value is fit to be stored as it is: no control character but tab.
///
/// Eight bytes at a time: the sign bit of each lane tells "below 0x20" or "equal 0x7f".
pub(super) fn is_plain_value(bytes: &[u8]) -> bool {
    const LOW: u64 = 0x0101_0101_0101_0101;
    const HIGH: u64 = 0x8080_8080_8080_8080;
    let mut chunks = bytes.chunks_exact(8);
    for chunk in &mut chunks {
        let word = u64::from_le_bytes(chunk.try_into().expect("chunks_exact(8) yields eight bytes"));
        let below_space = word.wrapping_sub(LOW * 0x20) & !word & HIGH;
        let without_del = word ^ (LOW * 0x7f);
        let is_del = without_del.wrapping_sub(LOW) & !without_del & HIGH;
        if below_space | is_del != 0 && !chunk.iter().all(|b| is_value_byte(*b)) {
            return false;
        }
    }
    chunks.remainder().iter().all(|b| is_value_byte(*b))
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
    fn lists_are_trimmed_and_empty_elements_skipped() {
        assert_eq!(list_elements(b" a ,,\tb, ").collect::<Vec<_>>(), [b"a", b"b"]);
        assert_eq!(trim(b"\t "), b"");
    }
}
