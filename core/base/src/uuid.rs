//! Request ids.

use std::fmt;
use std::str::FromStr;

use crate::Rng;

/// A version-4 UUID, the form of Envoy's `x-request-id`.
///
/// Envoy marks a traced request in one hexadecimal digit (position 14: `4` not traced, `9` sampled, `a` forced by the
/// client, `b` forced by the server), so the digit can be read and replaced.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Uuid([u8; 16]);

/// The text is not 36 characters in the form `xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UuidParseError;

impl fmt::Display for UuidParseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("not a UUID of 36 characters")
    }
}

impl std::error::Error for UuidParseError {}

/// The eight hexadecimal digits of a number, all at once: each nibble gets a byte of its own, and those above nine the
/// distance from `9` to `a`.
const fn hex_digits(number: u32) -> [u8; 8] {
    let mut lanes = number as u64;
    lanes = (lanes << 16 | lanes) & 0x0000_ffff_0000_ffff;
    lanes = (lanes << 8 | lanes) & 0x00ff_00ff_00ff_00ff;
    lanes = (lanes << 4 | lanes) & 0x0f0f_0f0f_0f0f_0f0f;
    let above_nine = (lanes + 0x0606_0606_0606_0606) >> 4 & 0x0101_0101_0101_0101;
    (lanes + 0x3030_3030_3030_3030 + above_nine * 39).to_be_bytes()
}

impl Uuid {
    /// The v4 UUID made of these random bits (six of them are overwritten by version and variant).
    pub fn from_random_bits(high: u64, low: u64) -> Self {
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&high.to_be_bytes());
        bytes[8..].copy_from_slice(&low.to_be_bytes());
        bytes[6] = bytes[6] & 0x0f | 0x40;
        bytes[8] = bytes[8] & 0x3f | 0x80;
        Self(bytes)
    }

    /// A v4 UUID drawn from `rng`.
    pub fn random(rng: &mut Rng) -> Self {
        Self::from_random_bits(rng.next_u64(), rng.next_u64())
    }

    /// The 36 ASCII characters of the text form, without an allocation.
    pub fn encode(&self) -> [u8; 36] {
        let mut text = [b'-'; 36];
        let word =
            |at: usize| u32::from_be_bytes([self.0[at], self.0[at + 1], self.0[at + 2], self.0[at + 3]]);
        let (first, second, third, fourth) =
            (hex_digits(word(0)), hex_digits(word(4)), hex_digits(word(8)), hex_digits(word(12)));
        text[..8].copy_from_slice(&first);
        text[9..13].copy_from_slice(&second[..4]);
        text[14..18].copy_from_slice(&second[4..]);
        text[19..23].copy_from_slice(&third[..4]);
        text[24..28].copy_from_slice(&third[4..]);
        text[28..].copy_from_slice(&fourth);
        text
    }

    /// The version digit (4 for an ordinary v4 UUID), where Envoy packs the trace reason.
    pub fn version_digit(&self) -> u8 {
        self.0[6] >> 4
    }

    /// The same UUID with another version digit (0 to 15).
    #[must_use]
    pub fn with_version_digit(mut self, digit: u8) -> Self {
        self.0[6] = self.0[6] & 0x0f | digit << 4;
        self
    }

    /// The first 8 hexadecimal digits as a number: Envoy takes a request's stable random value from them.
    pub fn leading_u32(&self) -> u32 {
        u32::from_be_bytes([self.0[0], self.0[1], self.0[2], self.0[3]])
    }
}

impl fmt::Display for Uuid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.encode().iter().try_for_each(|&digit| fmt::Write::write_char(f, char::from(digit)))
    }
}

impl fmt::Debug for Uuid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Uuid({self})")
    }
}

impl FromStr for Uuid {
    type Err = UuidParseError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let text = text.as_bytes();
        if text.len() != 36 || [8, 13, 18, 23].iter().any(|&dash| text[dash] != b'-') {
            return Err(UuidParseError);
        }
        let mut bytes = [0; 16];
        let mut at = 0;
        for (index, byte) in bytes.iter_mut().enumerate() {
            if matches!(index, 4 | 6 | 8 | 10) {
                at += 1;
            }
            let digit = |at: usize| char::from(text[at]).to_digit(16).ok_or(UuidParseError);
            *byte = (digit(at)? << 4 | digit(at + 1)?) as u8;
            at += 2;
        }
        Ok(Self(bytes))
    }
}

#[cfg(test)]
mod tests {
    use super::Uuid;
    use crate::Rng;

    #[test]
    fn random_bits_become_a_version_4_uuid() {
        let uuid = Uuid::from_random_bits(u64::MAX, u64::MAX);
        assert_eq!(uuid.to_string(), "ffffffff-ffff-4fff-bfff-ffffffffffff");
        assert_eq!(Uuid::from_random_bits(0, 0).to_string(), "00000000-0000-4000-8000-000000000000");
    }

    #[test]
    fn text_round_trips() {
        let mut rng = Rng::seeded(5);
        for _ in 0..100 {
            let uuid = Uuid::random(&mut rng);
            assert_eq!(uuid.to_string().parse(), Ok(uuid));
        }
    }

    #[test]
    fn the_trace_digit_can_be_read_and_replaced() {
        let uuid: Uuid = "12345678-1234-4abc-9def-1234567890ab".parse().expect("well formed");
        assert_eq!(uuid.version_digit(), 4);
        assert_eq!(uuid.with_version_digit(9).to_string(), "12345678-1234-9abc-9def-1234567890ab");
        assert_eq!(uuid.leading_u32(), 0x1234_5678);
    }

    #[test]
    fn malformed_text_is_refused() {
        for text in [
            "",
            "12345678-1234-4abc-9def-1234567890a",
            "12345678x1234-4abc-9def-1234567890ab",
            "1234567g-1234-4abc-9def-1234567890ab",
        ] {
            assert!(text.parse::<Uuid>().is_err(), "{text}");
        }
    }
}
