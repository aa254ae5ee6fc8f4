//! Base64: written in the standard alphabet with padding, read strictly, or in the standard or the URL alphabet with or without.

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// Bytes as text.
pub fn encode(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let group = chunk
            .iter()
            .enumerate()
            .fold(0u32, |group, (at, &byte)| group | u32::from(byte) << (16 - 8 * at));
        for position in 0..4 {
            if position <= chunk.len() {
                text.push(char::from(ALPHABET[(group >> (18 - 6 * position) & 63) as usize]));
            } else {
                text.push('=');
            }
        }
    }
    text
}

/// The bytes of a text; none when it is not base64.
pub fn decode(text: &str) -> Option<Vec<u8>> {
    let unpadded = text.trim_end_matches('=');
    if text.len() - unpadded.len() > 2 || unpadded.len() % 4 == 1 {
        return None;
    }
    let mut bytes = Vec::with_capacity(unpadded.len() * 3 / 4);
    for chunk in unpadded.as_bytes().chunks(4) {
        let mut group = 0u32;
        for (position, &digit) in chunk.iter().enumerate() {
            group |= digit_value(digit)? << (18 - 6 * position);
        }
        bytes.extend_from_slice(&group.to_be_bytes()[1..chunk.len()]);
    }
    Some(bytes)
}

/// The bytes of a text in the standard alphabet, with or without padding, whose last digit has no bits to spare.
pub fn decode_standard(text: &str) -> Option<Vec<u8>> {
    let bytes = decode(text).filter(|_| !text.contains(['-', '_']))?;
    (encode(&bytes).trim_end_matches('=') == text.trim_end_matches('=')).then_some(bytes)
}

/// As [`decode_standard`], and padded to groups of four.
pub fn decode_padded(text: &str) -> Option<Vec<u8>> {
    decode_standard(text).filter(|_| text.len().is_multiple_of(4))
}

fn digit_value(digit: u8) -> Option<u32> {
    let value = match digit {
        b'A'..=b'Z' => digit - b'A',
        b'a'..=b'z' => digit - b'a' + 26,
        b'0'..=b'9' => digit - b'0' + 52,
        b'+' | b'-' => 62,
        b'/' | b'_' => 63,
        _ => return None,
    };
    Some(u32::from(value))
}

#[cfg(test)]
mod tests {
    use super::{decode, decode_padded, decode_standard, encode};

    #[test]
    fn the_vectors_of_rfc_4648() {
        for (bytes, text) in
            [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foobar", "Zm9vYmFy")]
        {
            assert_eq!(encode(bytes.as_bytes()), text);
            assert_eq!(decode(text).as_deref(), Some(bytes.as_bytes()));
            assert_eq!(decode(text.trim_end_matches('=')).as_deref(), Some(bytes.as_bytes()));
        }
    }

    #[test]
    fn both_alphabets_are_read() {
        assert_eq!(decode("-_8="), decode("+/8="));
        assert_eq!(encode(&[0xfb, 0xff]), "+/8=");
    }

    #[test]
    fn padding_may_have_to_be_there() {
        assert_eq!(decode_padded("YQ=="), decode("YQ"));
        assert_eq!(decode_padded("YQ"), None);
        assert_eq!(decode_padded("YQ="), None);
    }

    #[test]
    fn strictly_there_is_one_way_to_write_bytes_but_for_padding() {
        for text in ["YQ", "YQ=", "YQ==", "+/8="] {
            assert_eq!(decode_standard(text), decode(text), "{text}");
        }
        for text in ["YR==", "-_8=", "YQ===", "nan"] {
            assert_eq!(decode_standard(text), None, "{text}");
        }
    }

    #[test]
    fn other_text_is_refused() {
        for text in ["a", "a===", "ab!d", "abc d"] {
            assert_eq!(decode(text), None, "{text}");
        }
    }
}
