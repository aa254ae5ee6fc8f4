//! The Huffman code of RFC 7541, appendix B. It is canonical: the lengths of the codes say all.

use super::HpackError;

/// Bits of the code of each byte.
#[rustfmt::skip]
const LENGTHS: [u8; 256] = [
    13, 23, 28, 28, 28, 28, 28, 28, 28, 24, 30, 28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28, 28,
    6, 10, 10, 12, 13, 6, 8, 11, 10, 10, 8, 11, 8, 6, 6, 6, 5, 5, 5, 6, 6, 6, 6, 6, 6, 6, 7, 8, 15, 6, 12, 10,
    13, 6, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 8, 7, 8, 13, 19, 13, 14, 6,
    15, 5, 6, 5, 6, 5, 6, 6, 6, 5, 7, 7, 6, 6, 6, 5, 6, 7, 6, 5, 5, 6, 7, 7, 7, 7, 7, 15, 11, 14, 13, 28,
    20, 22, 20, 20, 22, 22, 22, 23, 22, 23, 23, 23, 23, 23, 24, 23, 24, 24, 22, 23, 24, 23, 23, 23, 23, 21, 22, 23, 22, 23, 23, 24,
    22, 21, 20, 22, 22, 23, 23, 21, 23, 22, 22, 24, 21, 22, 23, 23, 21, 21, 22, 21, 23, 22, 23, 23, 20, 22, 22, 22, 23, 22, 22, 23,
    26, 26, 20, 19, 22, 23, 22, 25, 26, 26, 26, 27, 27, 26, 24, 25, 19, 21, 26, 27, 27, 26, 27, 24, 21, 21, 26, 26, 28, 27, 27, 27,
    20, 24, 20, 21, 22, 21, 21, 23, 22, 22, 25, 25, 24, 24, 26, 23, 26, 27, 26, 26, 27, 27, 27, 27, 27, 28, 27, 27, 27, 27, 27, 26,
];

const LONGEST: usize = 30;
/// Codes of up to this many bits are looked up at once.
const FAST_BITS: u32 = 9;

struct Codes {
    /// Code of each byte, right-aligned.
    codes: [u32; 256],
    /// Bytes in the order of their codes.
    bytes: [u8; 256],
    /// For each length the first code that is longer, left-aligned in 32 bits.
    limits: [u64; LONGEST + 1],
    /// For each length what to take from a code for its place among `bytes`.
    offsets: [u32; LONGEST + 1],
    /// By the first bits: a byte, and how long its code is; 0 for longer ones.
    fast: [(u8, u8); 1 << FAST_BITS],
}

static CODES: Codes = codes();

const fn codes() -> Codes {
    let mut made = Codes {
        codes: [0; 256],
        bytes: [0; 256],
        limits: [0; LONGEST + 1],
        offsets: [0; LONGEST + 1],
        fast: [(0, 0); 1 << FAST_BITS],
    };
    let (mut code, mut count, mut length) = (0u32, 0, 1);
    while length <= LONGEST {
        code <<= 1;
        made.offsets[length] = code.wrapping_sub(count);
        let mut byte = 0;
        while byte < 256 {
            if LENGTHS[byte] as usize == length {
                made.codes[byte] = code;
                made.bytes[count as usize] = byte as u8;
                if length as u32 <= FAST_BITS {
                    let spare = FAST_BITS - length as u32;
                    let mut at = 0;
                    while at < 1 << spare {
                        made.fast[((code << spare) + at) as usize] = (byte as u8, length as u8);
                        at += 1;
                    }
                }
                code += 1;
                count += 1;
            }
            byte += 1;
        }
        made.limits[length] = (code as u64) << (32 - length);
        length += 1;
    }
    made
}

/// How many bytes the code of a text takes.
pub(super) fn encoded_len(text: &[u8]) -> usize {
    let bits: usize = text.iter().map(|byte| LENGTHS[usize::from(*byte)] as usize).sum();
    bits.div_ceil(8)
}

/// Appends the code of a text, its last byte filled with ones.
pub(super) fn encode(text: &[u8], out: &mut Vec<u8>) {
    let (mut bits, mut have) = (0u64, 0u32);
    for byte in text {
        let at = usize::from(*byte);
        let length = u32::from(LENGTHS[at]);
        bits = bits << length | u64::from(CODES.codes[at]);
        have += length;
        if have >= 32 {
            have -= 32;
            out.extend_from_slice(&((bits >> have) as u32).to_be_bytes());
        }
    }
    while have >= 8 {
        have -= 8;
        out.push((bits >> have) as u8);
    }
    if have > 0 {
        let fill = 8 - have;
        out.push((bits << fill) as u8 | ((1u16 << fill) - 1) as u8);
    }
}

/// Appends the text of a code.
pub(super) fn decode(code: &[u8], out: &mut Vec<u8>) -> Result<(), HpackError> {
    out.reserve(code.len() * 2);
    // The next bits are at the top.
    let (mut bits, mut have, mut at) = (0u64, 0u32, 0);
    loop {
        if have <= 32 {
            if let Some(chunk) = code.get(at..).and_then(|rest| rest.first_chunk::<4>()) {
                bits |= u64::from(u32::from_be_bytes(*chunk)) << (32 - have);
                (have, at) = (have + 32, at + 4);
            } else {
                while at < code.len() && have <= 56 {
                    bits |= u64::from(code[at]) << (56 - have);
                    (have, at) = (have + 8, at + 1);
                }
            }
        }
        if have == 0 {
            return Ok(());
        }
        let (byte, length) = CODES.fast[(bits >> (64 - FAST_BITS)) as usize];
        let (byte, length) = match length {
            0 => match long_code((bits >> 32) as u32) {
                Some(found) => found,
                None => return ending(bits, have),
            },
            length => (byte, u32::from(length)),
        };
        if length > have {
            return ending(bits, have);
        }
        out.push(byte);
        bits <<= length;
        have -= length;
    }
}

/// The byte whose code of more than [`FAST_BITS`] begins the bits.
fn long_code(bits: u32) -> Option<(u8, u32)> {
    let length = (FAST_BITS as usize + 1..=LONGEST).find(|length| u64::from(bits) < CODES.limits[*length])?;
    let code = bits >> (32 - length);
    let byte = *CODES.bytes.get(code.wrapping_sub(CODES.offsets[length]) as usize)?;
    Some((byte, length as u32))
}

/// What is left behind the last whole code: fewer than eight ones, which begin the code of the end of a text.
fn ending(bits: u64, have: u32) -> Result<(), HpackError> {
    let ones = have < 8 && bits >> (64 - have) == (1 << have) - 1;
    if ones { Ok(()) } else { Err(HpackError::Huffman) }
}
