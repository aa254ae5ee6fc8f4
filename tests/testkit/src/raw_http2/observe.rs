//! What came over a connection, frame by frame.

use std::collections::BTreeMap;

use super::{code_name, flag, kind};
use crate::stream::End;

/// What one side has seen so far.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Observed {
    /// The error codes of GOAWAY frames.
    pub goaways: Vec<String>,
    /// Streams that something came on.
    pub streams: BTreeMap<u32, ObservedStream>,
    /// Answers to PING.
    pub pongs: usize,
    /// The other side's own PING frames.
    pub pings: usize,
    /// Acknowledgements of SETTINGS.
    pub settings_acks: usize,
    /// The values of the other side's SETTINGS, by number.
    pub settings: BTreeMap<u16, u32>,
    /// How the connection ended, once it did.
    pub end: Option<End>,
    block: Option<(u32, Vec<u8>)>,
}

/// What came on one stream.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ObservedStream {
    /// The final status, for a client.
    pub status: Option<u16>,
    /// Header blocks: interim responses, the head, trailers.
    pub blocks: usize,
    /// The body.
    pub body: Vec<u8>,
    /// The error code of RST_STREAM.
    pub reset: Option<String>,
    /// END_STREAM came.
    pub ended: bool,
    /// METADATA frames (Envoy's), each with what came on the stream before it.
    pub metadata: Vec<String>,
}

impl ObservedStream {
    /// Whether nothing more can come.
    pub fn is_complete(&self) -> bool {
        self.ended || self.reset.is_some()
    }
}

impl Observed {
    /// Takes complete frames off the front of `buffer`; the kinds and streams of those that may need an answer.
    pub fn take(&mut self, buffer: &mut Vec<u8>) -> Vec<(u8, u8, u32)> {
        let mut taken = Vec::new();
        while buffer.len() >= 9 {
            let length = u32::from_be_bytes([0, buffer[0], buffer[1], buffer[2]]) as usize;
            if buffer.len() < 9 + length {
                break;
            }
            let frame: Vec<u8> = buffer.drain(..9 + length).collect();
            let (what, flags) = (frame[3], frame[4]);
            let stream = u32::from_be_bytes([frame[5], frame[6], frame[7], frame[8]]) & 0x7fff_ffff;
            self.note(what, flags, stream, &frame[9..]);
            taken.push((what, flags, stream));
        }
        taken
    }

    /// Whether the other side has given up the connection with an error.
    pub fn is_over(&self) -> bool {
        self.end.is_some() || self.goaways.iter().any(|code| code != "NO_ERROR")
    }

    fn note(&mut self, what: u8, flags: u8, stream: u32, payload: &[u8]) {
        let word = |at: usize| -> u32 {
            let bytes = payload.get(at..at + 4).and_then(|bytes| bytes.try_into().ok());
            bytes.map_or(0, u32::from_be_bytes)
        };
        match what {
            kind::DATA => {
                let entry = self.streams.entry(stream).or_default();
                entry.body.extend_from_slice(unpadded(flags, payload));
                entry.ended |= flags & flag::END_STREAM != 0;
            }
            kind::HEADERS => {
                let skip = if flags & 0x20 != 0 { 5 } else { 0 };
                let block = unpadded(flags, payload).get(skip..).unwrap_or_default().to_vec();
                self.streams.entry(stream).or_default().ended |= flags & flag::END_STREAM != 0;
                self.block = Some((stream, block));
            }
            kind::CONTINUATION => {
                if let Some((_, block)) = &mut self.block {
                    block.extend_from_slice(payload);
                }
            }
            kind::RST_STREAM => self.streams.entry(stream).or_default().reset = Some(code_name(word(0))),
            kind::SETTINGS if flags & flag::ACK != 0 => self.settings_acks += 1,
            kind::SETTINGS => {
                let values = payload.chunks_exact(6).map(|entry| {
                    let name = u16::from_be_bytes([entry[0], entry[1]]);
                    (name, u32::from_be_bytes([entry[2], entry[3], entry[4], entry[5]]))
                });
                self.settings.extend(values);
            }
            kind::PING if flags & flag::ACK != 0 => self.pongs += 1,
            kind::PING => self.pings += 1,
            kind::METADATA => {
                let entry = self.streams.entry(stream).or_default();
                let what = match payload.len() {
                    0..100 => payload.escape_ascii().to_string(),
                    length => format!("{length} bytes"),
                };
                let more = if flags == flag::END_METADATA { "" } else { "..." };
                let (blocks, bytes) = (entry.blocks, entry.body.len());
                entry.metadata.push(format!("[{blocks} heads, {bytes} bytes: {what}{more}]"));
            }
            kind::GOAWAY => self.goaways.push(code_name(word(4))),
            // Windows are large enough for everything that is compared; pushes are refused by the settings.
            kind::WINDOW_UPDATE | kind::PRIORITY | kind::PUSH_PROMISE => {}
            _ => {}
        }
        if matches!(what, kind::HEADERS | kind::CONTINUATION)
            && flags & flag::END_HEADERS != 0
            && let Some((stream, block)) = self.block.take()
        {
            let entry = self.streams.entry(stream).or_default();
            entry.blocks += 1;
            // Trailers have no status; an interim response is replaced by what follows it.
            entry.status = status(&block).or(entry.status);
        }
    }
}

fn unpadded(flags: u8, payload: &[u8]) -> &[u8] {
    if flags & flag::PADDED == 0 {
        return payload;
    }
    let padding = payload.first().copied().map_or(0, usize::from);
    payload.get(1..payload.len().saturating_sub(padding)).unwrap_or_default()
}

/// The status of a header block in which it is the first field, as it has to be, and is not in the dynamic table, which the
/// settings of this side forbid.
fn status(block: &[u8]) -> Option<u16> {
    let mut block = block;
    // Announcements that the dynamic table has changed its size.
    while let [first, rest @ ..] = block
        && first & 0b1110_0000 == 0b0010_0000
    {
        block = rest;
    }
    let (first, rest) = block.split_first()?;
    if first & 0x80 != 0 {
        let indexed = [200, 204, 206, 304, 400, 404, 500];
        return indexed.get(usize::from(first & 0x7f).checked_sub(8)?).copied();
    }
    // A literal whose name is one of the entries `:status` of the static table.
    let index = if first & 0x40 != 0 { first & 0x3f } else { first & 0x0f };
    if !(8..=14).contains(&index) {
        return None;
    }
    let (length, value) = rest.split_first()?;
    let value = value.get(..usize::from(length & 0x7f))?;
    if length & 0x80 == 0 {
        return std::str::from_utf8(value).ok()?.parse().ok();
    }
    let bits: String = value.iter().map(|byte| format!("{byte:08b}")).collect();
    huffman_digits(&bits)
}

/// Three digits in the Huffman code of header fields: 0, 1 and 2 have five bits, the others six.
fn huffman_digits(bits: &str) -> Option<u16> {
    let mut rest = bits;
    let mut number = 0;
    for _ in 0..3 {
        let five = u16::from_str_radix(rest.get(..5)?, 2).ok()?;
        let (digit, length) = match five {
            0..=2 => (five, 5),
            _ => (u16::from_str_radix(rest.get(..6)?, 2).ok()?.checked_sub(0b01_1001)? + 3, 6),
        };
        number = number * 10 + digit;
        rest = &rest[length..];
    }
    Some(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_status_is_read_in_each_of_its_codings() {
        assert_eq!(status(&[0x88]), Some(200));
        assert_eq!(status(&[0x20, 0x8d]), Some(404));
        assert_eq!(status(b"\x08\x03503"), Some(503));
        // 5 = 011011, 0 = 00000, 3 = 011001, and ones to fill the byte.
        assert_eq!(status(&[0x48, 0x83, 0b0110_1100, 0b0000_1100, 0b1111_1111]), Some(503));
        assert_eq!(status(b"\x00\x01a\x01b"), None);
    }

    #[test]
    fn frames_are_taken_when_they_are_complete() {
        let wire = b"\x00\x00\x01\x01\x04\x00\x00\x00\x01\x88\x00\x00\x02\x00\x01\x00\x00\x00\x01hi\
                     \x00\x00\x08\x07\x00\x00\x00\x00\x00\x00\x00\x00\x01\x00\x00\x00\x01";
        for split in 0..wire.len() {
            let mut observed = Observed::default();
            let mut buffer = wire[..split].to_vec();
            observed.take(&mut buffer);
            buffer.extend_from_slice(&wire[split..]);
            observed.take(&mut buffer);
            let stream = &observed.streams[&1];
            assert_eq!(
                (stream.status, stream.body.as_slice(), stream.ended),
                (Some(200), b"hi".as_slice(), true)
            );
            assert_eq!(observed.goaways, ["PROTOCOL_ERROR"]);
            assert!(observed.is_over() && buffer.is_empty());
        }
    }
}
