//! What the `connection` header means: which headers it takes with it, and whether the connection stays open.

use super::chars::{list_elements, trim};
use crate::{HeaderMap, HeaderName, KnownHeader};

/// A request that nominates this many headers or more is refused.
const MAX_NOMINATED: usize = 10;
/// A nominated `te` header of this many bytes or more is refused.
const MAX_TE_BYTES: usize = 256;

/// Version of an HTTP/1 message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// HTTP/1.0, and whatever else the first line names that is not 1.1.
    Http10,
    /// HTTP/1.1.
    Http11,
}

/// Whether a comma-separated header holds a token, in any case.
#[inline]
pub fn has_token(head: &HeaderMap, name: KnownHeader, token: &[u8]) -> bool {
    head.get_known(name).is_some_and(|value| holds_token(value, token))
}

fn holds_token(value: &[u8], token: &[u8]) -> bool {
    // What nearly every message says is known without taking it apart.
    match value {
        b"keep-alive" | b"close" => value == token,
        _ => list_elements(value).any(|element| element.eq_ignore_ascii_case(token)),
    }
}

/// Whether a message leaves its connection open for another one, by its own words: `connection` and
/// `proxy-connection`, and the version where they say nothing.
pub fn is_keep_alive(version: Version, head: &HeaderMap) -> bool {
    match version {
        Version::Http10 => has_token(head, KnownHeader::Connection, b"keep-alive"),
        Version::Http11 => {
            !has_token(head, KnownHeader::Connection, b"close")
                && !has_token(head, KnownHeader::ProxyConnection, b"close")
        }
    }
}

/// Whether the message asks for, or grants, another protocol on its connection.
pub fn is_upgrade(head: &HeaderMap) -> bool {
    head.contains_known(KnownHeader::Upgrade) && has_token(head, KnownHeader::Connection, b"upgrade")
}

/// Takes an offer to upgrade to clear-text HTTP/2 out of a request, as if it had not been made.
pub(super) fn drop_h2c_offer(head: &mut HeaderMap) {
    head.remove_known(KnownHeader::Upgrade);
    keep_tokens(head, |token| {
        !token.eq_ignore_ascii_case(b"upgrade") && !token.eq_ignore_ascii_case(b"http2-settings")
    });
    head.remove(&HeaderName::new("http2-settings"));
}

/// Takes protocols out of a wish for another one (`ignore_http_11_upgrade`); tells whether any is left.
pub(super) fn drop_upgrades(head: &mut HeaderMap, ignored: impl Fn(&[u8]) -> bool) -> bool {
    let value = head.get_known(KnownHeader::Upgrade).unwrap_or_default();
    let kept: Vec<_> = list_elements(value).filter(|protocol| !ignored(protocol)).collect();
    let kept = kept.join(&b","[..]);
    if kept.is_empty() {
        head.remove_known(KnownHeader::Upgrade);
        keep_tokens(head, |token| !token.eq_ignore_ascii_case(b"upgrade"));
        return false;
    }
    head.set_known(KnownHeader::Upgrade, &kept);
    true
}

/// Removes the headers that the request's `connection` header nominates, and their names from it.
///
/// The authority goes with `host` unless the target gave it. `Err` when the request must be refused: too many are nominated, or one
/// that tells where the request comes from.
pub(super) fn remove_nominated(head: &mut HeaderMap, target_has_authority: bool) -> Result<(), ()> {
    let Some(value) = head.get_known(KnownHeader::Connection) else { return Ok(()) };
    if value.split(|b| *b == b',').filter(|token| !token.is_empty()).count() >= MAX_NOMINATED {
        return Err(());
    }
    if list_elements(value).all(is_hop_token) {
        return Ok(());
    }
    let value = value.to_vec();
    let mut keeps_te = false;
    for token in value.split(|b| *b == b',').map(trim).filter(|token| !token.is_empty()) {
        if is_hop_token(token) || token.eq_ignore_ascii_case(b"connection") {
            continue;
        }
        let Ok(name) = std::str::from_utf8(token) else { continue };
        let name = HeaderName::new(name);
        match name {
            HeaderName::Known(KnownHeader::XForwardedFor | KnownHeader::XForwardedHost) => return Err(()),
            HeaderName::Known(KnownHeader::XForwardedProto) => return Err(()),
            HeaderName::Known(known) if known.is_pseudo() => return Err(()),
            HeaderName::Other(other) if other.starts_with(':') => return Err(()),
            HeaderName::Known(KnownHeader::Te) => keeps_te = reduce_te(head)?,
            HeaderName::Known(KnownHeader::Host) if target_has_authority => {}
            HeaderName::Known(KnownHeader::Host) => {
                head.remove_known(KnownHeader::Authority);
            }
            name => {
                head.remove(&name);
            }
        }
    }
    keep_tokens(head, |token| is_hop_token(token) || (keeps_te && token.eq_ignore_ascii_case(b"te")));
    Ok(())
}

/// Reduces `te` to `trailers` if that is among its values, else removes it; tells whether it stays.
fn reduce_te(head: &mut HeaderMap) -> Result<bool, ()> {
    let Some(value) = head.get_known(KnownHeader::Te) else { return Ok(false) };
    if value.len() >= MAX_TE_BYTES {
        return Err(());
    }
    if list_elements(value).any(|element| element.eq_ignore_ascii_case(b"trailers")) {
        head.set_known(KnownHeader::Te, b"trailers");
        return Ok(true);
    }
    head.remove_known(KnownHeader::Te);
    Ok(false)
}

/// The tokens that speak about the connection itself and nominate no header.
fn is_hop_token(token: &[u8]) -> bool {
    [&b"close"[..], b"keep-alive", b"upgrade", b"http2-settings"]
        .iter()
        .any(|t| token.eq_ignore_ascii_case(t))
}

/// Leaves only some tokens in the `connection` header, and removes it when none is left.
fn keep_tokens(head: &mut HeaderMap, keep: impl Fn(&[u8]) -> bool) {
    let Some(value) = head.get_known(KnownHeader::Connection) else { return };
    let mut kept = Vec::with_capacity(value.len());
    for token in list_elements(value).filter(|token| keep(token)) {
        if !kept.is_empty() {
            kept.push(b',');
        }
        kept.extend_from_slice(token);
    }
    if kept.is_empty() {
        head.remove_known(KnownHeader::Connection);
    } else {
        head.set_known(KnownHeader::Connection, &kept);
    }
}
