//! Bodies on the wire: how much of the input is body, framing or trailer, without copying any of it.

use std::ops::Range;

use memchr::memchr;

use super::head::{FieldError, FieldRules, Underscores, find_end, parse_fields};
use super::request::BodyLength;
use crate::HeaderMap;

/// One step through the input of a [`BodyReader`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BodyStep {
    /// Bytes of the input that are done with; give what follows them to the next call.
    pub consumed: usize,
    /// Where body bytes lie in the input, possibly nowhere.
    pub data: Range<usize>,
    /// Whether the message ended: nothing behind `consumed` belongs to it.
    pub end: bool,
}

/// Why a body cannot be read further; the connection is of no use afterwards.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BodyError {
    /// A chunk's length line or end is malformed (`http1.codec_error`).
    #[error("http1.codec_error")]
    Chunk,
    /// A trailer line is malformed (`http1.codec_error`).
    #[error("http1.codec_error")]
    Trailer,
    /// A trailer holds control characters (`http1.invalid_characters`).
    #[error("http1.invalid_characters")]
    InvalidCharacters,
    /// The trailers are larger than the limit of a head (`http1.headers_too_large`, 431 on requests).
    #[error("http1.headers_too_large")]
    TrailersTooLarge,
    /// There are more trailers than headers allowed (`http1.too_many_headers`, 431 on requests).
    #[error("http1.too_many_headers")]
    TooManyTrailers,
    /// The stream ended before the body did.
    #[error("the body ended early")]
    Truncated,
}

impl BodyError {
    /// Status of the answer if the error is in a request and nothing was answered yet.
    pub fn status(self) -> u16 {
        match self {
            Self::TrailersTooLarge | Self::TooManyTrailers => 431,
            _ => 400,
        }
    }
}

/// Limits of trailers; the same as those of heads.
#[derive(Clone, Copy, Debug)]
pub struct TrailerLimits {
    /// Most bytes of all trailers.
    pub max_bytes: usize,
    /// Most trailers.
    pub max_count: usize,
}

impl Default for TrailerLimits {
    fn default() -> Self {
        Self { max_bytes: 60 * 1024, max_count: 100 }
    }
}

#[derive(Debug)]
enum State {
    Length(u64),
    UntilClose,
    /// At the digits of a chunk's length; `digits` tells whether there was one.
    Size {
        size: u64,
        digits: bool,
    },
    /// Behind the digits of a chunk's length, before its line break; `cr` when the last byte was a carriage return.
    Extension {
        size: u64,
        cr: bool,
    },
    Chunk(u64),
    /// Behind the data of a chunk, before the line break that ends it.
    ChunkEnd,
    Trailers(Vec<u8>),
    End,
}

/// Reads the body of one message from whatever pieces the connection delivers.
///
/// It takes every byte that it is given up to the end of the message, so that the caller keeps none. One step yields
/// at most one run of body bytes; call again while input is left.
#[derive(Debug)]
pub struct BodyReader {
    state: State,
    limits: TrailerLimits,
}

impl BodyReader {
    /// A reader for a body framed like this.
    pub fn new(length: BodyLength) -> Self {
        Self::with_limits(length, TrailerLimits::default())
    }

    /// A reader with limits of its own for trailers.
    pub fn with_limits(length: BodyLength, limits: TrailerLimits) -> Self {
        let state = match length {
            BodyLength::None | BodyLength::Length(0) => State::End,
            BodyLength::Length(length) => State::Length(length),
            BodyLength::Chunked => State::Size { size: 0, digits: false },
            BodyLength::UntilClose => State::UntilClose,
        };
        Self { state, limits }
    }

    /// Whether the message ended.
    pub fn is_end(&self) -> bool {
        matches!(self.state, State::End)
    }

    /// Bytes of body that are certain to come still: of the message (with a length) or of the current chunk.
    pub fn remaining(&self) -> Option<u64> {
        match self.state {
            State::Length(left) | State::Chunk(left) => Some(left),
            _ => None,
        }
    }

    /// Tells the reader that the stream ended. It is an error unless the body could end here.
    pub fn finish(&mut self) -> Result<(), BodyError> {
        match self.state {
            State::End | State::UntilClose => {
                self.state = State::End;
                Ok(())
            }
            _ => Err(BodyError::Truncated),
        }
    }

    /// Takes the next step. Trailers go to `trailers` when the step that ends the message returns.
    pub fn read(&mut self, input: &[u8], trailers: &mut HeaderMap) -> Result<BodyStep, BodyError> {
        let mut at = 0;
        while at < input.len() {
            match &mut self.state {
                State::Length(left) | State::Chunk(left) => {
                    let taken = (input.len() - at).min(usize::try_from(*left).unwrap_or(usize::MAX));
                    *left -= taken as u64;
                    if *left == 0 {
                        let last = matches!(self.state, State::Length(_));
                        self.state = if last { State::End } else { State::ChunkEnd };
                    }
                    return Ok(self.step(at + taken, at..at + taken));
                }
                State::UntilClose => return Ok(self.step(input.len(), at..input.len())),
                State::Size { .. } | State::Extension { .. } => at = self.read_size(input, at)?,
                State::ChunkEnd => match memchr(b'\n', &input[at..]) {
                    // Envoy skips whatever stands between the data and the line break.
                    Some(found) => {
                        self.state = State::Size { size: 0, digits: false };
                        at += found + 1;
                    }
                    None => at = input.len(),
                },
                State::Trailers(_) => at = self.read_trailers(input, at, trailers)?,
                State::End => break,
            }
        }
        Ok(self.step(at, at..at))
    }

    fn step(&self, consumed: usize, data: Range<usize>) -> BodyStep {
        BodyStep { consumed, data, end: self.is_end() }
    }

    fn read_size(&mut self, input: &[u8], mut at: usize) -> Result<usize, BodyError> {
        while let Some(byte) = input.get(at) {
            at += 1;
            match &mut self.state {
                State::Size { size, digits } => {
                    if let Some(digit) = (*byte as char).to_digit(16) {
                        *size = size.checked_mul(16).ok_or(BodyError::Chunk)? + u64::from(digit);
                        *digits = true;
                    } else if *digits && matches!(byte, b' ' | b'\t' | b';' | b'\r') {
                        self.state = State::Extension { size: *size, cr: *byte == b'\r' };
                    } else {
                        return Err(BodyError::Chunk);
                    }
                }
                State::Extension { size, cr } => match (*cr, byte) {
                    (true, b'\n') => {
                        self.state =
                            if *size == 0 { State::Trailers(Vec::new()) } else { State::Chunk(*size) };
                        return Ok(at);
                    }
                    // A carriage return or line feed on its own is how chunk lengths are smuggled.
                    (true, _) | (false, b'\n') => return Err(BodyError::Chunk),
                    (false, byte) => *cr = *byte == b'\r',
                },
                _ => return Ok(at - 1),
            }
        }
        Ok(at)
    }

    fn read_trailers(&mut self, input: &[u8], at: usize, out: &mut HeaderMap) -> Result<usize, BodyError> {
        let State::Trailers(pending) = &mut self.state else { return Ok(at) };
        let before = pending.len();
        if before == 0 && input[at..].starts_with(b"\r\n") {
            self.state = State::End;
            return Ok(at + 2);
        }
        // A section of trailers looks like the end of a head: a line break, then lines up to an empty one. The line
        // break is that of the last chunk's length, given back here so that an empty section is found too.
        if before == 0 {
            pending.push(b'\n');
        }
        let seen = pending.len();
        pending.extend_from_slice(&input[at..]);
        let end = find_end(pending, seen.saturating_sub(3));
        if end.unwrap_or(pending.len()) - 1 > self.limits.max_bytes {
            return Err(BodyError::TrailersTooLarge);
        }
        let Some(end) = end else { return Ok(input.len()) };
        let rules = FieldRules {
            max_entries: self.limits.max_count,
            underscores: Underscores::Allow,
            request: false,
        };
        out.clear();
        parse_fields(&pending[..end], 1, rules, out)?;
        let next = at + end - seen;
        self.state = State::End;
        Ok(next)
    }
}

impl From<FieldError> for BodyError {
    fn from(error: FieldError) -> Self {
        match error {
            FieldError::Malformed | FieldError::Underscore => Self::Trailer,
            FieldError::InvalidCharacters => Self::InvalidCharacters,
            FieldError::TooMany => Self::TooManyTrailers,
        }
    }
}
