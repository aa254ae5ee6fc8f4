//! Between [`HeaderMap`] and the header types of the `http` crate, which `h2` speaks.

use std::sync::OnceLock;

use bytes::Bytes;
use http::header::{HeaderName as HttpName, HeaderValue};
use http::uri::{PathAndQuery, Scheme};
use http::{Method, Request, Response, StatusCode, Uri};

use crate::{HeaderMap, KnownHeader};

/// Why a head cannot be sent over HTTP/2.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HeadError {
    /// No or an invalid `:method`.
    #[error("invalid :method")]
    Method,
    /// No or an invalid `:path`.
    #[error("invalid :path")]
    Path,
    /// An invalid `:authority`.
    #[error("invalid :authority")]
    Authority,
    /// An invalid `:scheme`.
    #[error("invalid :scheme")]
    Scheme,
    /// No or an invalid `:status`.
    #[error("invalid :status")]
    Status,
    /// A header whose name or value cannot be sent.
    #[error("invalid header")]
    Field,
}

/// The names that belong to one HTTP/1 connection; HTTP/2 forbids them.
fn is_connection_specific(known: Option<KnownHeader>) -> bool {
    matches!(
        known,
        Some(
            KnownHeader::Connection
                | KnownHeader::Host
                | KnownHeader::KeepAlive
                | KnownHeader::ProxyConnection
                | KnownHeader::TransferEncoding
                | KnownHeader::Upgrade
        )
    )
}

/// Names as the `http` crate keeps them, made once: a known name is then cloned without a look at its bytes.
fn known_name(known: KnownHeader) -> HttpName {
    static NAMES: OnceLock<Vec<HttpName>> = OnceLock::new();
    let names = NAMES.get_or_init(|| {
        let plain = |known: &KnownHeader| if known.is_pseudo() { "x" } else { known.as_str() };
        KnownHeader::all().iter().map(|known| HttpName::from_static(plain(known))).collect()
    });
    names[known as usize].clone()
}

/// Appends all but pseudo and connection-specific entries.
fn append_fields(from: &HeaderMap, to: &mut http::HeaderMap) -> Result<(), HeadError> {
    to.reserve(from.len());
    // One copy of all values; each value is then a slice of it.
    let mut arena = Vec::with_capacity(from.byte_size());
    for (_, _, value) in from {
        arena.extend_from_slice(value);
    }
    let arena = Bytes::from(arena);
    let mut at = 0;
    for (known, name, value) in from {
        let range = at..at + value.len();
        at = range.end;
        if known.is_some_and(KnownHeader::is_pseudo) || is_connection_specific(known) {
            continue;
        }
        let name = match known {
            Some(known) => known_name(known),
            None => HttpName::from_bytes(name).map_err(|_| HeadError::Field)?,
        };
        let value = HeaderValue::from_maybe_shared(arena.slice(range)).map_err(|_| HeadError::Field)?;
        to.append(name, value);
    }
    Ok(())
}

/// A request head as `h2` sends it.
pub(super) fn to_request(head: &HeaderMap) -> Result<Request<()>, HeadError> {
    let method = Method::from_bytes(head.method()).map_err(|_| HeadError::Method)?;
    let protocol = head.get_known(KnownHeader::Protocol);
    let mut uri = http::uri::Parts::default();
    if let Some(authority) = head.get_known(KnownHeader::Authority)
        && !authority.is_empty()
    {
        let authority = http::uri::Authority::try_from(authority).map_err(|_| HeadError::Authority)?;
        uri.authority = Some(authority);
    }
    if method != Method::CONNECT || protocol.is_some() {
        let path = PathAndQuery::from_maybe_shared(Bytes::copy_from_slice(head.path()));
        uri.path_and_query = Some(path.map_err(|_| HeadError::Path)?);
        uri.scheme = Some(match head.scheme() {
            b"" | b"http" => Scheme::HTTP,
            b"https" => Scheme::HTTPS,
            other => Scheme::try_from(other).map_err(|_| HeadError::Scheme)?,
        });
    }
    let mut request = Request::new(());
    *request.method_mut() = method;
    *request.version_mut() = http::Version::HTTP_2;
    if uri.authority.is_none() {
        // Without an authority the parts do not make a URI; the path alone does, and `h2` adds the scheme.
        let path = uri.path_and_query.take().ok_or(HeadError::Authority)?;
        *request.uri_mut() = Uri::from(path);
    } else {
        *request.uri_mut() = Uri::from_parts(uri).map_err(|_| HeadError::Path)?;
    }
    if let Some(protocol) = protocol {
        let protocol = std::str::from_utf8(protocol).map_err(|_| HeadError::Field)?;
        request.extensions_mut().insert(h2::ext::Protocol::from(protocol));
    }
    append_fields(head, request.headers_mut())?;
    Ok(request)
}

/// A response head as `h2` sends it.
pub(super) fn to_response(head: &HeaderMap) -> Result<Response<()>, HeadError> {
    let status =
        head.status().and_then(|status| StatusCode::from_u16(status).ok()).ok_or(HeadError::Status)?;
    let mut response = Response::new(());
    *response.status_mut() = status;
    append_fields(head, response.headers_mut())?;
    Ok(response)
}

/// Trailers as `h2` sends them.
pub(super) fn to_trailers(trailers: &HeaderMap) -> Result<http::HeaderMap, HeadError> {
    let mut out = http::HeaderMap::new();
    append_fields(trailers, &mut out)?;
    Ok(out)
}

/// Reads a received request head. Cookie crumbs are joined behind all other headers, as in Envoy, and `host` gives way to
/// `:authority`.
pub(super) fn from_request<B>(request: &Request<B>, head: &mut HeaderMap) {
    head.clear();
    head.append_known(KnownHeader::Method, request.method().as_str().as_bytes());
    let uri = request.uri();
    if let Some(path) = uri.path_and_query() {
        head.append_known(KnownHeader::Path, path.as_str().as_bytes());
    }
    if let Some(scheme) = uri.scheme_str() {
        head.append_known(KnownHeader::Scheme, scheme.as_bytes());
    }
    if let Some(authority) = uri.authority() {
        head.append_known(KnownHeader::Authority, authority.as_str().as_bytes());
    }
    if let Some(protocol) = request.extensions().get::<h2::ext::Protocol>() {
        head.append_known(KnownHeader::Protocol, protocol.as_str().as_bytes());
    }
    for (name, value) in request.headers() {
        match name.as_str() {
            "host" if head.contains_known(KnownHeader::Authority) => {}
            "cookie" => {}
            name => head.append_request_lower(name.as_bytes(), value.as_bytes()),
        }
    }
    head.join_repeats();
    for crumb in request.headers().get_all(http::header::COOKIE) {
        join_cookie(head, crumb.as_bytes());
    }
}

fn join_cookie(head: &mut HeaderMap, crumb: &[u8]) {
    match head.get_known(KnownHeader::Cookie) {
        None => head.append_known(KnownHeader::Cookie, crumb),
        Some(first) => {
            let joined = [first, b"; ", crumb].concat();
            head.set_known(KnownHeader::Cookie, &joined);
        }
    }
}

/// Reads a received response head.
pub(super) fn from_response<B>(response: &Response<B>, head: &mut HeaderMap) {
    head.clear();
    head.set_status(response.status().as_u16());
    for (name, value) in response.headers() {
        head.append_response_lower(name.as_str().as_bytes(), value.as_bytes());
    }
    head.join_repeats();
}

/// Reads received trailers.
pub(super) fn from_trailers(trailers: &http::HeaderMap, out: &mut HeaderMap) {
    out.clear();
    for (name, value) in trailers {
        out.append(name.as_str().as_bytes(), value.as_bytes());
    }
}
