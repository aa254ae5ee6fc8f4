//! Length-prefixed messages: a flag byte, four bytes of length, the message.

use bytes::{Buf, BufMut, Bytes, BytesMut};

const PREFIX: usize = 5;

/// Why a body is not a sequence of messages that this side takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// The message is compressed, and no compression was agreed on.
    #[error("compressed gRPC message without an agreed compression")]
    Compressed,
    /// The flag byte is none that exists.
    #[error("invalid gRPC frame flag {0}")]
    Flag(u8),
    /// The message is larger than the limit.
    #[error("gRPC message of {length} bytes is larger than the limit of {limit}")]
    TooLarge {
        /// Announced length in bytes.
        length: usize,
        /// The limit in bytes.
        limit: usize,
    },
}

/// A message with its prefix.
///
/// # Panics
/// When the message is 4 GiB or more, which no message of ours is.
pub fn encode_frame(message: &[u8]) -> Bytes {
    let length = u32::try_from(message.len()).expect("messages are smaller than 4 GiB");
    let mut frame = BytesMut::with_capacity(PREFIX + message.len());
    frame.put_u8(0);
    frame.put_u32(length);
    frame.put_slice(message);
    frame.freeze()
}

/// Takes messages out of a body that arrives in pieces.
#[derive(Debug)]
pub struct FrameDecoder {
    waiting: BytesMut,
    limit: usize,
}

impl FrameDecoder {
    /// A decoder that refuses messages of more than `limit` bytes.
    pub fn new(limit: usize) -> Self {
        Self { waiting: BytesMut::new(), limit }
    }

    /// Takes the next piece of the body.
    pub fn push(&mut self, piece: &[u8]) {
        self.waiting.extend_from_slice(piece);
    }

    /// The next complete message.
    pub fn next_message(&mut self) -> Result<Option<Bytes>, FrameError> {
        let [flag, a, b, c, d, ..] = self.waiting[..] else { return Ok(None) };
        match flag {
            0 => {}
            1 => return Err(FrameError::Compressed),
            flag => return Err(FrameError::Flag(flag)),
        }
        let length = u32::from_be_bytes([a, b, c, d]) as usize;
        if length > self.limit {
            return Err(FrameError::TooLarge { length, limit: self.limit });
        }
        if self.waiting.len() < PREFIX + length {
            self.waiting.reserve(PREFIX + length - self.waiting.len());
            return Ok(None);
        }
        self.waiting.advance(PREFIX);
        Ok(Some(self.waiting.split_to(length).freeze()))
    }

    /// Whether part of a message is waiting for its rest.
    pub fn is_within_message(&self) -> bool {
        !self.waiting.is_empty()
    }
}
