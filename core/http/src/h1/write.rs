//! Heads and chunks as bytes, in the order and form that Envoy writes them.

use super::connection::{Version, is_upgrade};
use super::reason::reason_phrase;
use crate::spelling::{Spelling, capitalise_words};
use crate::{HeaderMap, KnownHeader};

/// How header names are written (`header_key_format`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum HeaderKeyFormat {
    /// As they are kept: in lower case.
    #[default]
    Lower,
    /// `proper_case_words`: a capital at the start and behind every character that is neither letter nor digit.
    ProperCase,
}

/// How body bytes must be written behind a head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BodyFraming {
    /// There is no body to write: anything given is dropped (as for HEAD).
    None,
    /// As they are: a length was announced, or the end of the stream ends the body.
    Identity,
    /// In chunks, with a last chunk at the end.
    Chunked,
}

/// How a request head is written.
#[derive(Clone, Copy, Debug, Default)]
pub struct RequestWriteOptions {
    /// Form of the header names.
    pub keys: HeaderKeyFormat,
    /// `send_fully_qualified_url`: an absolute target, for an upstream that is itself a proxy.
    pub absolute_target: bool,
}

/// How a response head is written.
#[derive(Clone, Copy, Debug)]
pub struct ResponseWriteOptions {
    /// Form of the header names.
    pub keys: HeaderKeyFormat,
    /// Version of the request that is answered. HTTP/1.0 has no chunks: such a body ends with the connection.
    pub version: Version,
    /// The request's method is HEAD.
    pub to_head: bool,
    /// The request's method is CONNECT, or it is an upgrade that is granted.
    pub to_connect: bool,
}

impl Default for ResponseWriteOptions {
    fn default() -> Self {
        Self { keys: HeaderKeyFormat::Lower, version: Version::Http11, to_head: false, to_connect: false }
    }
}

/// Appends a request head to `out`: request line, `host`, the headers in their order, then the framing header.
///
/// Hop-by-hop headers are the caller's business; a `transfer-encoding` in the map is not written. `end` tells that no
/// body follows.
pub fn write_request_head(
    out: &mut Vec<u8>,
    head: &HeaderMap,
    options: RequestWriteOptions,
    end: bool,
) -> BodyFraming {
    let method = head.method();
    let connect = method == b"CONNECT";
    out.reserve(head.byte_size_hint() + 64);
    out.extend_from_slice(method);
    out.push(b' ');
    if connect {
        out.extend_from_slice(head.authority());
    } else {
        if options.absolute_target {
            out.extend_from_slice(head.scheme());
            out.extend_from_slice(b"://");
            out.extend_from_slice(head.authority());
        }
        out.extend_from_slice(head.path());
    }
    out.extend_from_slice(b" HTTP/1.1\r\n");
    let names = Names::of(head, options.keys);
    if let Some(authority) = head.get_known(KnownHeader::Authority) {
        names.write_field(out, b"host", authority);
    }
    names.write_fields(out, head);
    let framing = if head.contains_known(KnownHeader::ContentLength) || connect || is_upgrade(head) {
        BodyFraming::Identity
    } else if end {
        // Methods that usually have no body are sent without a length.
        if !matches!(method, b"GET" | b"HEAD" | b"DELETE" | b"TRACE") {
            names.write_field(out, b"content-length", b"0");
        }
        BodyFraming::None
    } else {
        names.write_field(out, b"transfer-encoding", b"chunked");
        BodyFraming::Chunked
    };
    out.extend_from_slice(b"\r\n");
    framing
}

/// Appends a response head to `out`: status line, the headers in their order, then the framing header.
///
/// `:status` must be set. `end` tells that no body follows. With HTTP/1.0 and a body without a length the caller closes
/// the connection behind it.
pub fn write_response_head(
    out: &mut Vec<u8>,
    head: &HeaderMap,
    options: ResponseWriteOptions,
    end: bool,
) -> BodyFraming {
    let status = head.status().unwrap_or(500);
    out.reserve(head.byte_size_hint() + 64);
    out.extend_from_slice(match options.version {
        Version::Http10 => b"HTTP/1.0 ",
        Version::Http11 => b"HTTP/1.1 ",
    });
    let digits =
        [b'0' + (status / 100) as u8, b'0' + (status / 10 % 10) as u8, b'0' + (status % 10) as u8, b' '];
    out.extend_from_slice(&digits);
    let received = head.spelling().and_then(Spelling::reason_phrase);
    out.extend_from_slice(received.unwrap_or_else(|| reason_phrase(status).as_bytes()));
    out.extend_from_slice(b"\r\n");
    let names = Names::of(head, options.keys);
    names.write_fields(out, head);
    let framing = response_framing(out, head, status, options, end);
    out.extend_from_slice(b"\r\n");
    if options.to_head { BodyFraming::None } else { framing }
}

fn response_framing(
    out: &mut Vec<u8>,
    head: &HeaderMap,
    status: u16,
    options: ResponseWriteOptions,
    end: bool,
) -> BodyFraming {
    let upgraded = status == 101 || (options.to_connect && (200..300).contains(&status));
    if upgraded || head.contains_known(KnownHeader::ContentLength) {
        return BodyFraming::Identity;
    }
    let names = Names::of(head, options.keys);
    if status < 200 || status == 204 || status == 304 {
        return BodyFraming::None;
    }
    // The answer to HEAD has no body either way; without a length Envoy announces chunks for it.
    if end && !options.to_head {
        names.write_field(out, b"content-length", b"0");
        return BodyFraming::None;
    }
    if options.version == Version::Http10 {
        return BodyFraming::Identity;
    }
    names.write_field(out, b"transfer-encoding", b"chunked");
    BodyFraming::Chunked
}

/// How the names of one head are written.
#[derive(Clone, Copy)]
struct Names<'a> {
    keys: HeaderKeyFormat,
    spelling: Option<&'a Spelling>,
}

impl<'a> Names<'a> {
    /// The spelling that came with a head goes before what is configured.
    fn of(head: &'a HeaderMap, keys: HeaderKeyFormat) -> Self {
        Self { keys, spelling: head.spelling() }
    }

    fn write_fields(self, out: &mut Vec<u8>, head: &HeaderMap) {
        if self.keys == HeaderKeyFormat::Lower && self.spelling.is_none() {
            head.write_lines(out);
            return;
        }
        for (known, name, value) in head {
            let skipped =
                known.is_some_and(|known| known.is_pseudo() || known == KnownHeader::TransferEncoding);
            if !skipped {
                self.write_field(out, name, value);
            }
        }
    }

    fn write_field(self, out: &mut Vec<u8>, name: &[u8], value: &[u8]) {
        match self.spelling {
            Some(spelling) => spelling.write_name(name, out),
            None => {
                let at = out.len();
                out.extend_from_slice(name);
                if self.keys == HeaderKeyFormat::ProperCase {
                    capitalise_words(&mut out[at..]);
                }
            }
        }
        out.extend_from_slice(b": ");
        out.extend_from_slice(value);
        out.extend_from_slice(b"\r\n");
    }
}

/// The interim response by which the proxy itself asks for the body (`expect: 100-continue`).
pub const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";

/// The same to a client of HTTP/1.0.
pub const CONTINUE_OLD: &[u8] = b"HTTP/1.0 100 Continue\r\n\r\n";

/// What stands behind the data of a chunk.
pub const CHUNK_END: &[u8] = b"\r\n";

/// The last chunk, without trailers.
pub const LAST_CHUNK: &[u8] = b"0\r\n\r\n";

/// What stands in front of the data of a chunk: its length in lower-case hexadecimal digits.
#[derive(Clone, Copy, Debug)]
pub struct ChunkStart {
    bytes: [u8; 18],
    start: u8,
}

impl ChunkStart {
    /// For a chunk of this many bytes. Zero would end the body; the caller writes no empty chunk.
    pub fn new(length: usize) -> Self {
        debug_assert!(length > 0, "an empty chunk ends the body");
        let mut bytes = *b"0000000000000000\r\n";
        let mut at = 16;
        let mut rest = length;
        loop {
            at -= 1;
            bytes[at] = b"0123456789abcdef"[rest & 15];
            rest >>= 4;
            if rest == 0 {
                return Self { bytes, start: at as u8 };
            }
        }
    }

    /// The bytes to write.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[self.start as usize..]
    }
}

/// Appends one chunk with its framing.
pub fn write_chunk(out: &mut Vec<u8>, data: &[u8]) {
    if data.is_empty() {
        return;
    }
    out.extend_from_slice(ChunkStart::new(data.len()).as_bytes());
    out.extend_from_slice(data);
    out.extend_from_slice(CHUNK_END);
}

/// Appends the last chunk and the trailers (`enable_trailers`) behind it, as they are: no name means anything here, and
/// none is written in another case.
pub fn write_trailers(out: &mut Vec<u8>, trailers: &HeaderMap) {
    out.extend_from_slice(b"0\r\n");
    let names = Names { keys: HeaderKeyFormat::Lower, spelling: None };
    for (_, name, value) in trailers {
        names.write_field(out, name, value);
    }
    out.extend_from_slice(b"\r\n");
}
