//! The request target: Envoy's check of the request line, and the parts of an absolute URL or a CONNECT authority.

use memchr::memmem;

use super::chars::{is_path, is_url_host};

/// Whether the target passes the check that is made as soon as the request line is complete.
pub(super) fn is_acceptable(target: &[u8], connect: bool) -> bool {
    let Some(first) = target.first() else { return false };
    if matches!(first, b'/' | b'*') {
        return target.iter().all(|b| is_path(*b));
    }
    let rest = if connect {
        target
    } else {
        let scheme = scheme_length(target);
        match target[scheme..].strip_prefix(b"://") {
            Some(rest) if scheme > 0 => rest,
            _ => return false,
        }
    };
    let host_end = rest.iter().position(|b| matches!(b, b'/' | b'?')).unwrap_or(rest.len());
    let (host, path) = rest.split_at(host_end);
    host.iter().all(|b| is_url_host(*b))
        && memmem::find(host, b"@@").is_none()
        && path.iter().all(|b| is_path(*b))
}

fn scheme_length(target: &[u8]) -> usize {
    if !target.first().is_some_and(u8::is_ascii_alphabetic) {
        return 0;
    }
    let is_scheme = |b: &u8| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'-' | b'.');
    target.iter().position(|b| !is_scheme(b)).unwrap_or(target.len())
}

/// The parts of an absolute URL.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct AbsoluteUrl<'a> {
    pub scheme: &'a [u8],
    /// Host and port as written, without user information.
    pub authority: &'a [u8],
    /// Path and query as written, `/` when there is none.
    pub path: &'a [u8],
}

/// Takes an absolute URL apart. The scheme is letters only, the host letters, digits, dots and hyphens or an IPv6
/// literal in brackets, the port a number below 65536.
pub(super) fn parse_absolute(url: &[u8]) -> Option<AbsoluteUrl<'_>> {
    let scheme_end = memmem::find(url, b"://")?;
    let scheme = &url[..scheme_end];
    if scheme.is_empty() || !scheme.iter().all(u8::is_ascii_alphabetic) {
        return None;
    }
    let rest = &url[scheme_end + 3..];
    let end = rest.iter().position(|b| matches!(b, b'/' | b'?')).unwrap_or(rest.len());
    let (authority, path) = rest.split_at(end);
    let authority = match authority.iter().rposition(|b| *b == b'@') {
        Some(at) => {
            is_user_info(&authority[..at]).then_some(())?;
            &authority[at + 1..]
        }
        None => authority,
    };
    split_port(authority)?;
    Some(AbsoluteUrl { scheme, authority, path: if path.is_empty() { b"/" } else { path } })
}

/// Checks the target of a CONNECT request: a host and a port, nothing else.
pub(super) fn is_connect_authority(target: &[u8]) -> bool {
    matches!(split_port(target), Some(true))
}

/// Checks host and port; tells whether there is a port.
fn split_port(authority: &[u8]) -> Option<bool> {
    let host_end = if authority.first() == Some(&b'[') {
        let close = authority.iter().position(|b| *b == b']')?;
        is_ipv6_literal(&authority[1..close]).then_some(close + 1)?
    } else {
        let end = authority.iter().position(|b| *b == b':').unwrap_or(authority.len());
        let host = &authority[..end];
        let valid =
            !host.is_empty() && host.iter().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-'));
        valid.then_some(end)?
    };
    match &authority[host_end..] {
        [] => Some(false),
        [b':', port @ ..] => is_port(port).then_some(true),
        _ => None,
    }
}

fn is_ipv6_literal(host: &[u8]) -> bool {
    let zone = host.iter().position(|b| *b == b'%');
    let address = &host[..zone.unwrap_or(host.len())];
    let is_address = |b: &u8| b.is_ascii_hexdigit() || matches!(b, b':' | b'.');
    let is_zone = |b: &u8| b.is_ascii_alphanumeric() || b"%.-_~".contains(b);
    !address.is_empty()
        && address.iter().all(is_address)
        && zone.is_none_or(|at| at + 1 < host.len() && host[at + 1..].iter().all(is_zone))
}

fn is_port(port: &[u8]) -> bool {
    super::head::parse_length(port).is_some_and(|number| number <= u64::from(u16::MAX))
}

fn is_user_info(bytes: &[u8]) -> bool {
    bytes.iter().all(|b| b.is_ascii_alphanumeric() || b"-_.!~*'()%;:&=+$,".contains(b))
}
