//! gRPC's message framing and status, as bytes: enough to speak a bidirectional stream over any HTTP/2 implementation.

use std::fmt;

use bytes::{Buf, BufMut, Bytes, BytesMut};

/// `content-type` of requests and responses.
pub const CONTENT_TYPE: &str = "application/grpc";

/// The length of what precedes each message: a flag and a big-endian length.
pub const PREFIX_LENGTH: usize = 5;

/// How a call ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GrpcStatus {
    /// `grpc-status`; 0 is success.
    pub code: u32,
    /// `grpc-message`, percent-decoded.
    pub message: String,
}

impl GrpcStatus {
    /// Success.
    pub const OK: u32 = 0;
    /// The code for anything that has no other.
    pub const UNKNOWN: u32 = 2;
    /// A message exceeds a limit.
    pub const RESOURCE_EXHAUSTED: u32 = 8;
    /// The peer broke the protocol.
    pub const INTERNAL: u32 = 13;
    /// The peer cannot be reached, or the stream broke.
    pub const UNAVAILABLE: u32 = 14;

    /// A status with a text of our own.
    pub fn new(code: u32, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }

    /// Reads the trailers `grpc-status` and `grpc-message` (or the header fields of a response that is trailers only).
    /// A missing or unreadable status is `UNKNOWN`.
    pub fn from_trailers(grpc_status: Option<&[u8]>, grpc_message: Option<&[u8]>) -> Self {
        let code = grpc_status.and_then(|value| std::str::from_utf8(value).ok()?.parse().ok());
        let message = grpc_message.map(percent_decode).unwrap_or_default();
        match code {
            Some(code) => Self { code, message },
            None if message.is_empty() => Self::new(Self::UNKNOWN, "the stream ended without a grpc-status"),
            None => Self { code: Self::UNKNOWN, message },
        }
    }

    /// The status of a response that did not come from a gRPC server, by gRPC's mapping of HTTP status codes.
    pub fn from_http(status: u16) -> Self {
        let code = match status {
            400 => Self::INTERNAL,
            401 => 16,
            403 => 7,
            404 => 12,
            429 | 502 | 503 | 504 => Self::UNAVAILABLE,
            _ => Self::UNKNOWN,
        };
        Self::new(code, format!("HTTP status {status}"))
    }

    /// Whether the call succeeded.
    pub fn is_ok(&self) -> bool {
        self.code == Self::OK
    }

    /// The code in words, as gRPC names it.
    pub fn code_name(&self) -> &'static str {
        const NAMES: [&str; 17] = [
            "OK",
            "Canceled",
            "Unknown",
            "InvalidArgument",
            "DeadlineExceeded",
            "NotFound",
            "AlreadyExists",
            "PermissionDenied",
            "ResourceExhausted",
            "FailedPrecondition",
            "Aborted",
            "OutOfRange",
            "Unimplemented",
            "Internal",
            "Unavailable",
            "DataLoss",
            "Unauthenticated",
        ];
        usize::try_from(self.code).ok().and_then(|code| NAMES.get(code)).copied().unwrap_or("Unknown")
    }
}

impl fmt::Display for GrpcStatus {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}", self.code_name())?;
        if !self.message.is_empty() {
            write!(formatter, ": {}", self.message)?;
        }
        Ok(())
    }
}

impl std::error::Error for GrpcStatus {}

/// A message with its prefix, uncompressed. Fails beyond gRPC's limit of 4 GiB.
pub fn frame(message: &[u8]) -> Result<Bytes, GrpcStatus> {
    let length = u32::try_from(message.len())
        .map_err(|_| GrpcStatus::new(GrpcStatus::RESOURCE_EXHAUSTED, "the message exceeds 4 GiB"))?;
    let mut framed = BytesMut::with_capacity(PREFIX_LENGTH + message.len());
    framed.put_u8(0);
    framed.put_u32(length);
    framed.put_slice(message);
    Ok(framed.freeze())
}

/// Cuts a stream of bytes into messages.
#[derive(Debug)]
pub struct Deframer {
    buffered: BytesMut,
    max_message_length: usize,
}

impl Deframer {
    /// Messages longer than `max_message_length` bytes are an error.
    pub fn new(max_message_length: usize) -> Self {
        Self { buffered: BytesMut::new(), max_message_length }
    }

    /// Takes received bytes in.
    pub fn push(&mut self, bytes: &[u8]) {
        self.buffered.extend_from_slice(bytes);
    }

    /// The next complete message. Errors are final: an over-long or compressed message (we offer no encoding).
    pub fn next_message(&mut self) -> Result<Option<Bytes>, GrpcStatus> {
        let Some(prefix) = self.buffered.first_chunk::<PREFIX_LENGTH>() else { return Ok(None) };
        let [compressed, length @ ..] = *prefix;
        if compressed != 0 {
            return Err(GrpcStatus::new(GrpcStatus::INTERNAL, "the peer sent a compressed message unasked"));
        }
        let length = u32::from_be_bytes(length) as usize;
        if length > self.max_message_length {
            let text =
                format!("a message of {length} bytes exceeds the limit of {}", self.max_message_length);
            return Err(GrpcStatus::new(GrpcStatus::RESOURCE_EXHAUSTED, text));
        }
        if self.buffered.len() < PREFIX_LENGTH + length {
            return Ok(None);
        }
        self.buffered.advance(PREFIX_LENGTH);
        Ok(Some(self.buffered.split_to(length).freeze()))
    }

    /// Whether the bytes so far end between messages, as they have to when the stream ends.
    pub fn is_empty(&self) -> bool {
        self.buffered.is_empty()
    }
}

/// Decodes what gRPC encodes in `grpc-message`; malformed escapes and bytes that are no UTF-8 are kept as they read.
fn percent_decode(value: &[u8]) -> String {
    let mut decoded = Vec::with_capacity(value.len());
    let mut rest = value;
    while let Some((&first, tail)) = rest.split_first() {
        rest = tail;
        let escape = (first == b'%').then(|| tail.first_chunk::<2>()).flatten();
        match escape.and_then(|&[high, low]| Some((hex(high)? << 4) | hex(low)?)) {
            Some(byte) => {
                decoded.push(byte);
                rest = &tail[2..];
            }
            None => decoded.push(first),
        }
    }
    String::from_utf8_lossy(&decoded).into_owned()
}

fn hex(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).map(|value| value as u8)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_come_out_as_they_went_in_however_the_bytes_are_cut() {
        let messages: [&[u8]; 4] = [b"", b"a", &[7; 300], b"end"];
        let stream: Vec<u8> = messages.iter().flat_map(|message| frame(message).expect("short")).collect();
        for size in [1, 2, 5, 6, 64, stream.len()] {
            let mut deframer = Deframer::new(300);
            let mut received = Vec::new();
            for chunk in stream.chunks(size) {
                deframer.push(chunk);
                while let Some(message) = deframer.next_message().expect("well formed") {
                    received.push(message);
                }
            }
            assert_eq!(received, messages, "in chunks of {size}");
            assert!(deframer.is_empty());
        }
    }

    #[test]
    fn overlong_and_compressed_messages_are_errors() {
        let mut deframer = Deframer::new(2);
        deframer.push(&frame(b"abc").expect("short")[..PREFIX_LENGTH]);
        assert_eq!(deframer.next_message().expect_err("too long").code, GrpcStatus::RESOURCE_EXHAUSTED);
        let mut deframer = Deframer::new(2);
        deframer.push(&[1, 0, 0, 0, 0]);
        assert_eq!(deframer.next_message().expect_err("compressed").code, GrpcStatus::INTERNAL);
    }

    #[test]
    fn trailers_become_a_status() {
        let status = GrpcStatus::from_trailers(Some(b"3"), Some(b"bad%20node%3A %zz%"));
        assert_eq!(status, GrpcStatus::new(3, "bad node: %zz%"));
        assert_eq!(status.to_string(), "InvalidArgument: bad node: %zz%");
        assert!(GrpcStatus::from_trailers(Some(b"0"), None).is_ok());
        assert_eq!(GrpcStatus::from_trailers(None, None).code, GrpcStatus::UNKNOWN);
        assert_eq!(GrpcStatus::from_trailers(Some(b"x"), None).code, GrpcStatus::UNKNOWN);
        assert_eq!(GrpcStatus::from_http(503).code, GrpcStatus::UNAVAILABLE);
    }
}
