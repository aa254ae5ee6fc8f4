//! Response heads of upstream connections.

use super::chars::{has_forbidden, is_plain_value};
use super::connection::{Version, is_keep_alive, is_upgrade};
use super::head::{
    FieldError, FieldRules, HeadProgress, Parsed, Underscores, find_end, has_transfer_encoding, next_line,
    parse_fields, parse_length,
};
use super::request::BodyLength;
use crate::{HeaderMap, KnownHeader, SpellingRules};

/// What the codec must know of the request to read its response, and the limits of the cluster.
#[derive(Clone, Debug)]
pub struct ResponseOptions {
    /// Most bytes of a head (`max_response_headers_kb` * 1024).
    pub max_head_bytes: usize,
    /// Most header fields (`common_http_protocol_options.max_headers_count`).
    pub max_headers: usize,
    /// `allow_chunked_length`.
    pub allow_chunked_length: bool,
    /// `header_key_format.stateful_formatter`: the spelling of names is remembered with the head.
    pub spelling: Option<SpellingRules>,
}

impl Default for ResponseOptions {
    fn default() -> Self {
        Self { max_head_bytes: 80 * 1024, max_headers: 100, allow_chunked_length: false, spelling: None }
    }
}

/// The kind of request that a response answers, as far as framing depends on it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Answering {
    /// Any method but the two below.
    #[default]
    Ordinary,
    /// HEAD: no body whatever the head says.
    Head,
    /// CONNECT: a 2xx response opens a tunnel.
    Connect,
    /// A request with `connection: upgrade`: 101 opens the other protocol.
    Upgrade,
}

/// What a response head says about the message, beside its headers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ResponseInfo {
    /// Version of the status line.
    pub version: Version,
    /// Status, 100 to 999.
    pub status: u16,
    /// Framing of the body.
    pub body: BodyLength,
    /// Whether the connection can carry another request behind this response.
    pub keep_alive: bool,
    /// Whether this is an interim response (1xx other than 101): the final one is still to come.
    pub informational: bool,
}

/// Why a response is not acceptable. The stream ends with the reset reason "protocol error" (502 to the client).
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}", self.details())]
#[allow(missing_docs, reason = "each variant is the name of the details that it stands for")]
pub enum ResponseError {
    CodecError,
    ContentLengthAndChunkedNotAllowed,
    ContentLengthNotAllowed,
    HeadersTooLarge,
    InvalidCharacters,
    InvalidTransferEncoding,
    TooManyHeaders,
    TransferEncodingNotAllowed,
}

impl ResponseError {
    /// The details that Envoy's client codec records.
    pub fn details(self) -> &'static str {
        match self {
            Self::CodecError => "http1.codec_error",
            Self::ContentLengthAndChunkedNotAllowed => "http1.content_length_and_chunked_not_allowed",
            Self::ContentLengthNotAllowed => "http1.content_length_not_allowed",
            Self::HeadersTooLarge => "http1.headers_too_large",
            Self::InvalidCharacters => "http1.invalid_characters",
            Self::InvalidTransferEncoding => "http1.invalid_transfer_encoding",
            Self::TooManyHeaders => "http1.too_many_headers",
            Self::TransferEncodingNotAllowed => "http1.transfer_encoding_not_allowed",
        }
    }
}

impl From<FieldError> for ResponseError {
    fn from(error: FieldError) -> Self {
        match error {
            FieldError::Malformed | FieldError::Underscore => Self::CodecError,
            FieldError::InvalidCharacters => Self::InvalidCharacters,
            FieldError::TooMany => Self::TooManyHeaders,
        }
    }
}

/// Reads a response head from the start of `buf` into `head` (which is cleared first); fills `:status`.
///
/// Call it again with the same `progress` and all bytes so far after [`Parsed::Partial`]. After an informational
/// response, start over behind it with a fresh `progress`.
pub fn parse_response(
    buf: &[u8],
    progress: &mut HeadProgress,
    answering: Answering,
    options: &ResponseOptions,
    head: &mut HeaderMap,
) -> Result<Parsed<ResponseInfo>, ResponseError> {
    if progress.scanned == 0
        && let Ok(Some((consumed, info))) = parse_whole(buf, answering, options, head)
        && consumed <= options.max_head_bytes
    {
        return Ok(Parsed::Complete { consumed, info });
    }
    if !progress.first_line_checked {
        if buf.first().is_some_and(|first| *first != b'H') {
            return Err(ResponseError::CodecError);
        }
        if let Some((line, _)) = next_line(buf, 0) {
            parse_status_line(line)?;
            progress.first_line_checked = true;
        }
    }
    let end = find_end(buf, progress.scanned.saturating_sub(3));
    if end.unwrap_or(buf.len()) > options.max_head_bytes {
        return Err(ResponseError::HeadersTooLarge);
    }
    let Some(end) = end else {
        progress.scanned = buf.len();
        return Ok(Parsed::Partial);
    };
    match parse_whole(&buf[..end], answering, options, head)? {
        Some((consumed, info)) => Ok(Parsed::Complete { consumed, info }),
        None => Err(ResponseError::CodecError),
    }
}

fn parse_whole(
    buf: &[u8],
    answering: Answering,
    options: &ResponseOptions,
    head: &mut HeaderMap,
) -> Result<Option<(usize, ResponseInfo)>, ResponseError> {
    let Some((line, fields)) = next_line(buf, 0) else { return Ok(None) };
    head.clear();
    let (version, status) = parse_status_line(line)?;
    head.set_status(status);
    let rules = FieldRules {
        max_entries: options.max_headers + head.len(),
        underscores: Underscores::Allow,
        request: false,
    };
    let Some(consumed) = parse_fields(buf, fields, rules, head)? else { return Ok(None) };
    let info = framing(version, status, answering, options, head)?;
    if let Some(rules) = options.spelling {
        head.remember_spelling(&buf[..consumed], rules);
    }
    Ok(Some((consumed, info)))
}

/// Version and status; the reason phrase may be missing.
fn parse_status_line(line: &[u8]) -> Result<(Version, u16), ResponseError> {
    // The usual form at first.
    if let Some([a @ b'1'..=b'9', b @ b'0'..=b'9', c @ b'0'..=b'9', b' ', reason @ ..]) =
        line.strip_prefix(b"HTTP/1.1 ")
        && is_plain_value(reason)
    {
        return Ok((Version::Http11, number_of(*a, *b, *c)));
    }
    if !is_plain_value(line) && has_forbidden(line) {
        return Err(ResponseError::InvalidCharacters);
    }
    let (version, rest) = line.split_at_checked(8).ok_or(ResponseError::CodecError)?;
    let version = match version {
        b"HTTP/1.1" => Version::Http11,
        [b'H', b'T', b'T', b'P', b'/', b'0'..=b'9', b'.', b'0'..=b'9'] => Version::Http10,
        _ => return Err(ResponseError::CodecError),
    };
    match trim_blanks(rest) {
        [a @ b'1'..=b'9', b @ b'0'..=b'9', c @ b'0'..=b'9', after @ ..]
            if rest.len() > after.len() + 3 && matches!(after, [] | [b' ' | b'\t' | b'\r', ..]) =>
        {
            Ok((version, number_of(*a, *b, *c)))
        }
        _ => Err(ResponseError::CodecError),
    }
}

/// The number that three digits make.
fn number_of(a: u8, b: u8, c: u8) -> u16 {
    u16::from(a - b'0') * 100 + u16::from(b - b'0') * 10 + u16::from(c - b'0')
}

fn trim_blanks(mut bytes: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] = bytes {
        bytes = rest;
    }
    bytes
}

fn framing(
    version: Version,
    status: u16,
    answering: Answering,
    options: &ResponseOptions,
    head: &mut HeaderMap,
) -> Result<ResponseInfo, ResponseError> {
    let mut length = match head.get_known(KnownHeader::ContentLength) {
        None => None,
        Some(value) => Some(parse_length(value).ok_or(ResponseError::CodecError)?),
    };
    let chunked = head
        .get_known(KnownHeader::TransferEncoding)
        .is_some_and(|coding| coding.eq_ignore_ascii_case(b"chunked"));
    if has_transfer_encoding(head) {
        if length.is_some() {
            if !(chunked && options.allow_chunked_length) {
                return Err(ResponseError::ContentLengthAndChunkedNotAllowed);
            }
            head.remove_known(KnownHeader::ContentLength);
            length = None;
        }
        if !chunked {
            return Err(ResponseError::InvalidTransferEncoding);
        }
    }
    let switches = (status == 101 && is_upgrade(head) && answering == Answering::Upgrade)
        || (answering == Answering::Connect && (200..300).contains(&status));
    if status < 200 || status == 204 {
        if has_transfer_encoding(head) {
            return Err(ResponseError::TransferEncodingNotAllowed);
        }
        if length.is_some() && head.get_known(KnownHeader::ContentLength) != Some(b"0") {
            return Err(ResponseError::ContentLengthNotAllowed);
        }
        head.remove_known(KnownHeader::ContentLength);
    }
    let body = match length {
        _ if switches => BodyLength::UntilClose,
        _ if status < 200 || status == 204 || status == 304 || answering == Answering::Head => {
            BodyLength::None
        }
        _ if chunked => BodyLength::Chunked,
        None => BodyLength::UntilClose,
        Some(0) => BodyLength::None,
        Some(length) => BodyLength::Length(length),
    };
    Ok(ResponseInfo {
        version,
        status,
        body,
        keep_alive: body != BodyLength::UntilClose && status != 101 && is_keep_alive(version, head),
        informational: status < 200 && status != 101,
    })
}
