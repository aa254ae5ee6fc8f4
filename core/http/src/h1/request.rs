//! Request heads: request line and fields, Envoy's checks on them, and how the body will be framed.

use std::fmt;
use std::sync::Arc;

use super::chars::{has_forbidden, is_authority, is_token, path_length};
use super::connection::{
    Version, drop_h2c_offer, drop_upgrades, is_keep_alive, is_upgrade, remove_nominated,
};
use super::head::{
    FieldError, FieldRules, HeadProgress, Parsed, Underscores, find_end, has_transfer_encoding, next_line,
    parse_fields, parse_length, skip_line_breaks,
};
use super::target;
use crate::{HeaderMap, KnownHeader, SpellingRules};

/// How requests are read: `http1_protocol_options`, and the limits of the connection manager.
#[derive(Clone, Debug)]
pub struct RequestOptions {
    /// Most bytes of a head, request line and empty line included (`max_request_headers_kb` * 1024).
    pub max_head_bytes: usize,
    /// Most header fields (`common_http_protocol_options.max_headers_count`).
    pub max_headers: usize,
    /// `headers_with_underscores_action`.
    pub underscores: Underscores,
    /// `allow_absolute_url`: take scheme and authority from an absolute target.
    pub allow_absolute_url: bool,
    /// `accept_http_10`.
    pub accept_http_10: bool,
    /// `default_host_for_http_10`: the authority of an HTTP/1.0 request without a host.
    pub default_host_for_http_10: Option<String>,
    /// `allow_chunked_length`: `transfer-encoding: chunked` wins over `content-length` instead of an error.
    pub allow_chunked_length: bool,
    /// `allow_custom_methods`: any token is a method.
    pub allow_custom_methods: bool,
    /// `ignore_http_11_upgrade`: upgrades that are served as if they had not been asked for.
    pub ignored_upgrades: Option<UpgradeFilter>,
    /// `header_key_format.stateful_formatter`: the spelling of names is remembered with the head.
    pub spelling: Option<SpellingRules>,
}

impl Default for RequestOptions {
    fn default() -> Self {
        Self {
            max_head_bytes: 60 * 1024,
            max_headers: 100,
            underscores: Underscores::Allow,
            allow_absolute_url: true,
            accept_http_10: false,
            default_host_for_http_10: None,
            allow_chunked_length: false,
            allow_custom_methods: false,
            ignored_upgrades: None,
            spelling: None,
        }
    }
}

type UpgradeMatch = dyn Fn(&[u8]) -> bool + Send + Sync;

/// Tells by a protocol in `upgrade` whether the request for it is ignored.
#[derive(Clone)]
pub struct UpgradeFilter(Arc<UpgradeMatch>);

impl UpgradeFilter {
    /// A filter that ignores what `matches` says yes to.
    pub fn new(matches: impl Fn(&[u8]) -> bool + Send + Sync + 'static) -> Self {
        Self(Arc::new(matches))
    }
}

impl fmt::Debug for UpgradeFilter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("UpgradeFilter")
    }
}

/// How the end of a message's body is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BodyLength {
    /// There is no body: the message ends with its head.
    None,
    /// This many bytes follow, at least one.
    Length(u64),
    /// Chunks follow.
    Chunked,
    /// Everything up to the end of the connection's stream belongs to the body. For requests this is an upgrade or
    /// CONNECT: what follows is the other protocol.
    UntilClose,
}

/// What a request head says about the message, beside its headers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RequestInfo {
    /// Version of the request line.
    pub version: Version,
    /// Framing of the body.
    pub body: BodyLength,
    /// Whether the client leaves the connection open.
    pub keep_alive: bool,
    /// Whether the request asks for another protocol (`connection: upgrade` with an `upgrade` other than `h2c`).
    pub upgrade: bool,
    /// Whether the method is CONNECT.
    pub connect: bool,
    /// Whether the method is HEAD, so that the response has no body.
    pub head: bool,
    /// Whether `expect: 100-continue` is there.
    pub expect_continue: bool,
}

/// Why a request head is refused; the codec answers these itself, before there is a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}", self.details())]
#[allow(missing_docs, reason = "each variant is the name of the response-code details that it stands for")]
pub enum RequestError {
    BodyDisallowed,
    CodecError,
    ConnectionHeaderRejected,
    ContentLengthAndChunkedNotAllowed,
    HeadersTooLarge,
    InvalidAuthority,
    InvalidCharacters,
    InvalidScheme,
    InvalidTransferEncoding,
    InvalidUrl,
    LowVersion,
    TooManyHeaders,
    UnexpectedUnderscore,
}

impl RequestError {
    /// Status of the answer.
    pub fn status(self) -> u16 {
        match self {
            Self::LowVersion => 426,
            Self::HeadersTooLarge | Self::TooManyHeaders => 431,
            Self::InvalidTransferEncoding => 501,
            _ => 400,
        }
    }

    /// Whether the head was read to its end, so that its version is known.
    fn is_about_whole_head(self) -> bool {
        matches!(
            self,
            Self::BodyDisallowed
                | Self::ConnectionHeaderRejected
                | Self::ContentLengthAndChunkedNotAllowed
                | Self::InvalidAuthority
                | Self::InvalidScheme
                | Self::InvalidTransferEncoding
                | Self::InvalidUrl
        )
    }

    /// Version in which to answer the head that `buf` begins with.
    pub fn version(self, buf: &[u8], options: &RequestOptions) -> Version {
        let line = next_line(buf, skip_line_breaks(buf)).map_or(&b""[..], |(line, _)| line);
        if self.is_about_whole_head() && options.accept_http_10 && !line.ends_with(b"HTTP/1.1") {
            return Version::Http10;
        }
        Version::Http11
    }

    /// Body of the answer: the reason phrase of the status.
    pub fn body(self) -> &'static str {
        super::reason::reason_phrase(self.status())
    }

    /// `%RESPONSE_CODE_DETAILS%`.
    pub fn details(self) -> &'static str {
        match self {
            Self::BodyDisallowed => "http1.body_disallowed",
            Self::CodecError => "http1.codec_error",
            Self::ConnectionHeaderRejected => "http1.connection_header_rejected",
            Self::ContentLengthAndChunkedNotAllowed => "http1.content_length_and_chunked_not_allowed",
            Self::HeadersTooLarge => "http1.headers_too_large",
            Self::InvalidAuthority => "http.invalid_authority",
            Self::InvalidCharacters => "http1.invalid_characters",
            Self::InvalidScheme => "http1.invalid_scheme",
            Self::InvalidTransferEncoding => "http1.invalid_transfer_encoding",
            Self::InvalidUrl => "http1.invalid_url",
            Self::LowVersion => "low_version",
            Self::TooManyHeaders => "http1.too_many_headers",
            Self::UnexpectedUnderscore => "http1.unexpected_underscore",
        }
    }
}

impl From<FieldError> for RequestError {
    fn from(error: FieldError) -> Self {
        match error {
            FieldError::Malformed => Self::CodecError,
            FieldError::InvalidCharacters => Self::InvalidCharacters,
            FieldError::TooMany => Self::TooManyHeaders,
            FieldError::Underscore => Self::UnexpectedUnderscore,
        }
    }
}

/// Reads a request head from the start of `buf` into `head` (which is cleared first).
///
/// Fills `:method`, `:path` and `:authority` (`host` is kept under that name; several are joined by a comma), and
/// `:scheme` for an absolute target; headers that `connection` nominates are removed. Call it again with the same
/// `progress` and all bytes so far after [`Parsed::Partial`].
pub fn parse_request(
    buf: &[u8],
    progress: &mut HeadProgress,
    options: &RequestOptions,
    head: &mut HeaderMap,
) -> Result<Parsed<RequestInfo>, RequestError> {
    let start = skip_line_breaks(buf);
    if progress.scanned == 0
        && let Ok(Some((consumed, info))) = parse_whole(buf, start, options, head)
        && consumed - start <= options.max_head_bytes
    {
        return Ok(Parsed::Complete { consumed, info });
    }
    // Incomplete, or wrong: from here on the order of the checks decides which error is reported, so that it does not
    // depend on how the bytes arrived.
    if !progress.first_line_checked {
        check_start(&buf[start..])?;
        if let Some((line, next)) = next_line(buf, start) {
            // A line beyond the limit is too large however it arrives, and whatever it says.
            if next - start > options.max_head_bytes {
                return Err(RequestError::HeadersTooLarge);
            }
            let line = match RequestLine::parse(line, options) {
                // Characters are looked at once the head is there as a whole.
                Err(RequestError::InvalidCharacters) => None,
                parsed => Some(parsed?),
            };
            if line.is_some_and(|line| line.is_all) {
                return match parse_whole(buf, start, options, head)? {
                    Some((consumed, info)) => Ok(Parsed::Complete { consumed, info }),
                    None => Err(RequestError::CodecError),
                };
            }
            progress.first_line_checked = true;
        }
    }
    let end = find_end(buf, start.max(progress.scanned.saturating_sub(3)));
    if end.unwrap_or(buf.len()) - start > options.max_head_bytes {
        return Err(RequestError::HeadersTooLarge);
    }
    let Some(end) = end else {
        progress.scanned = buf.len();
        return Ok(Parsed::Partial);
    };
    match parse_whole(&buf[..end], start, options, head)? {
        Some((consumed, info)) => Ok(Parsed::Complete { consumed, info }),
        None => Err(RequestError::CodecError),
    }
}

/// A control character or blank at the start is refused before the line is complete: a TLS hello, for example.
fn check_start(buf: &[u8]) -> Result<(), RequestError> {
    if buf.first().is_some_and(|first| *first <= b' ') { Err(RequestError::CodecError) } else { Ok(()) }
}

fn parse_whole(
    buf: &[u8],
    start: usize,
    options: &RequestOptions,
    head: &mut HeaderMap,
) -> Result<Option<(usize, RequestInfo)>, RequestError> {
    let Some((line, fields)) = next_line(buf, start) else { return Ok(None) };
    head.clear();
    let line = RequestLine::parse(line, options)?;
    head.append_known(KnownHeader::Method, line.method);
    let origin_form = matches!(line.target[0], b'/') || (line.target[0] == b'*' && line.method == b"OPTIONS");
    let verbatim = !line.connect() && (origin_form || !options.allow_absolute_url);
    if verbatim {
        head.append_known(KnownHeader::Path, line.target);
    }
    let rules = FieldRules {
        max_entries: options.max_headers + head.len(),
        underscores: options.underscores,
        request: true,
    };
    let consumed = if line.is_all { Some(fields) } else { parse_fields(buf, fields, rules, head)? };
    let Some(consumed) = consumed else { return Ok(None) };
    let mut info = framing(&line, options, head)?;
    if !verbatim {
        apply_target(&line, head)?;
    }
    if line.version == Version::Http10 && !options.accept_http_10 {
        return Err(RequestError::LowVersion);
    }
    info.keep_alive = is_keep_alive(line.version, head);
    if info.body != BodyLength::UntilClose && remove_nominated(head, !verbatim).is_err() {
        return Err(RequestError::ConnectionHeaderRejected);
    }
    // A `host` that `connection` has nominated is gone by now, whatever it said.
    if line.version == Version::Http10
        && let Some(host) = &options.default_host_for_http_10
        && !head.contains_known(KnownHeader::Authority)
    {
        head.set_known(KnownHeader::Authority, host.as_bytes());
    }
    if !is_authority(head.authority()) {
        return Err(RequestError::InvalidAuthority);
    }
    if let Some(rules) = options.spelling {
        head.remember_spelling(&buf[start..consumed], rules);
    }
    Ok(Some((consumed, info)))
}

/// Decides how the body is framed, and refuses what is ambiguous.
fn framing(
    line: &RequestLine<'_>,
    options: &RequestOptions,
    head: &mut HeaderMap,
) -> Result<RequestInfo, RequestError> {
    let mut upgrade = is_upgrade(head);
    if upgrade && let Some(value) = head.get_known(KnownHeader::Upgrade) {
        if value.eq_ignore_ascii_case(b"h2c") {
            drop_h2c_offer(head);
            upgrade = false;
        } else if let Some(ignored) = &options.ignored_upgrades {
            upgrade = drop_upgrades(head, |protocol| (ignored.0)(protocol));
        }
    }
    let mut length = content_length(head)?;
    let chunked = head
        .get_known(KnownHeader::TransferEncoding)
        .is_some_and(|coding| coding.eq_ignore_ascii_case(b"chunked"));
    if line.connect() && length.is_some() {
        if head.get_known(KnownHeader::ContentLength) != Some(b"0") {
            return Err(RequestError::BodyDisallowed);
        }
        head.remove_known(KnownHeader::ContentLength);
        length = None;
    }
    if has_transfer_encoding(head) {
        if length.is_some() {
            if !(chunked && options.allow_chunked_length) {
                return Err(RequestError::ContentLengthAndChunkedNotAllowed);
            }
            head.remove_known(KnownHeader::ContentLength);
        }
        if !chunked || line.connect() {
            return Err(RequestError::InvalidTransferEncoding);
        }
    }
    let body = match length {
        _ if upgrade || line.connect() => BodyLength::UntilClose,
        _ if chunked => BodyLength::Chunked,
        None | Some(0) => BodyLength::None,
        Some(length) => BodyLength::Length(length),
    };
    Ok(RequestInfo {
        version: line.version,
        body,
        keep_alive: true,
        upgrade,
        connect: line.connect(),
        head: line.method == b"HEAD",
        expect_continue: head
            .get_known(KnownHeader::Expect)
            .is_some_and(|expect| expect.eq_ignore_ascii_case(b"100-continue")),
    })
}

/// The one valid `content-length`; a second one, or one that is not a number, is an error even if they agree.
fn content_length(head: &HeaderMap) -> Result<Option<u64>, RequestError> {
    match head.get_known(KnownHeader::ContentLength) {
        None => Ok(None),
        Some(value) => parse_length(value).map(Some).ok_or(RequestError::CodecError),
    }
}

/// Takes authority, scheme and path from a target that is not a plain path.
fn apply_target(line: &RequestLine<'_>, head: &mut HeaderMap) -> Result<(), RequestError> {
    if line.connect() {
        if !target::is_connect_authority(line.target) {
            return Err(RequestError::InvalidUrl);
        }
        head.set_known(KnownHeader::Authority, line.target);
        return Ok(());
    }
    let url = target::parse_absolute(line.target).ok_or(RequestError::InvalidUrl)?;
    let scheme: &[u8] = match url.scheme {
        s if s.eq_ignore_ascii_case(b"http") => b"http",
        s if s.eq_ignore_ascii_case(b"https") => b"https",
        _ => return Err(RequestError::InvalidScheme),
    };
    head.set_known(KnownHeader::Authority, url.authority);
    head.set_known(KnownHeader::Scheme, scheme);
    head.set_known(KnownHeader::Path, url.path);
    Ok(())
}

#[derive(Debug)]
pub(super) struct RequestLine<'a> {
    method: &'a [u8],
    target: &'a [u8],
    pub(super) version: Version,
    /// The line names no version: as in HTTP/0.9 it is the whole request.
    is_all: bool,
}

impl<'a> RequestLine<'a> {
    fn parse(line: &'a [u8], options: &RequestOptions) -> Result<Self, RequestError> {
        Self::parse_well_formed(line, options).ok_or_else(|| {
            let invalid = has_forbidden(line);
            if invalid { RequestError::InvalidCharacters } else { RequestError::CodecError }
        })
    }

    pub(super) fn parse_well_formed(line: &'a [u8], options: &RequestOptions) -> Option<Self> {
        let end = line.iter().position(|b| is_blank(*b))?;
        let (method, rest) = (&line[..end], trim_blanks_start(&line[end..]));
        let (target, rest) = rest.split_at(path_length(rest));
        let rest = trim_blanks_start(match rest {
            [] => rest,
            [separator, after @ ..] if is_blank(*separator) => after,
            _ => return None,
        });
        let version = match rest {
            b"HTTP/1.1" => Version::Http11,
            // Envoy asks what the line ends with, even where that is the end of the target.
            b"" if target.ends_with(b"HTTP/1.1") => Version::Http11,
            other => version_of_unusual(other)?,
        };
        let known = if options.allow_custom_methods {
            !method.is_empty() && method.iter().all(|b| is_token(*b))
        } else {
            is_registered_method(method)
        };
        let acceptable = target.first() == Some(&b'/') || target::is_acceptable(target, method == b"CONNECT");
        (known && acceptable).then_some(Self { method, target, version, is_all: rest.is_empty() })
    }

    fn connect(&self) -> bool {
        self.method == b"CONNECT"
    }
}

/// The version as it stands at the end of the line; none at all is one of old.
fn version_of_unusual(mut version: &[u8]) -> Option<Version> {
    while let [rest @ .., b' ' | b'\t' | b'\r'] = version {
        version = rest;
    }
    match version {
        b"HTTP/1.1" => Some(Version::Http11),
        b"" => Some(Version::Http10),
        [b'H', b'T', b'T', b'P', b'/', b'0'..=b'9', b'.', b'0'..=b'9'] => Some(Version::Http10),
        _ => None,
    }
}

/// What separates the words of a request line; a carriage return does too, as in Envoy.
pub(super) const fn is_blank(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\r')
}

fn trim_blanks_start(mut bytes: &[u8]) -> &[u8] {
    while let [first, rest @ ..] = bytes
        && is_blank(*first)
    {
        bytes = rest;
    }
    bytes
}

/// The methods that Envoy takes without `allow_custom_methods`.
fn is_registered_method(method: &[u8]) -> bool {
    matches!(
        method,
        b"GET"
            | b"POST"
            | b"PUT"
            | b"DELETE"
            | b"HEAD"
            | b"OPTIONS"
            | b"PATCH"
            | b"CONNECT"
            | b"TRACE"
            | b"ACL"
            | b"BIND"
            | b"CHECKOUT"
            | b"COPY"
            | b"LINK"
            | b"LOCK"
            | b"MERGE"
            | b"MKACTIVITY"
            | b"MKCALENDAR"
            | b"MKCOL"
            | b"MOVE"
            | b"MSEARCH"
            | b"NOTIFY"
            | b"PROPFIND"
            | b"PROPPATCH"
            | b"PURGE"
            | b"QUERY"
            | b"REBIND"
            | b"REPORT"
            | b"SEARCH"
            | b"SOURCE"
            | b"SUBSCRIBE"
            | b"UNBIND"
            | b"UNLINK"
            | b"UNLOCK"
            | b"UNSUBSCRIBE"
    )
}
