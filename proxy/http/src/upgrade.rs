//! Upgrades and CONNECT: what a request asks its stream to become, and how that is said in HTTP/1 and HTTP/2.
//!
//! Inside, an upgrade has the form of HTTP/1 (`connection: upgrade`, answered 101); extended CONNECT of HTTP/2 (RFC 8441)
//! is converted where heads enter and leave.

use std::rc::Rc;

use dhow_http::h1::is_upgrade;
use dhow_http::{HeaderMap, KnownHeader};

use crate::manager::Manager;

/// Turns extended CONNECT into an upgrade of HTTP/1. True when the request asks for another protocol, by CONNECT of either
/// kind.
pub(crate) fn receive_from_http2(head: &mut HeaderMap) -> bool {
    if head.method() != b"CONNECT" {
        return false;
    }
    let Some(protocol) = head.get_known(KnownHeader::Protocol).map(<[u8]>::to_vec) else { return true };
    head.remove_known(KnownHeader::Protocol);
    head.set_known(KnownHeader::Method, b"GET");
    head.set_known(KnownHeader::Upgrade, &protocol);
    head.set_known(KnownHeader::Connection, b"upgrade");
    true
}

/// A response to an upgrade as HTTP/2 says it: 200 instead of 101. Tells whether the status was changed.
pub(crate) fn answer_to_http2(head: &mut HeaderMap) -> bool {
    let upgraded = head.status() == Some(101);
    if upgraded {
        head.set_status(200);
    }
    upgraded
}

/// Extended CONNECT for an upgrade request; none when the request asks for no upgrade.
pub(crate) fn request_to_http2(head: &HeaderMap) -> Option<HeaderMap> {
    if !is_upgrade(head) {
        return None;
    }
    let mut converted = head.clone();
    let protocol = head.get_known(KnownHeader::Upgrade).unwrap_or_default();
    converted.set_known(KnownHeader::Method, b"CONNECT");
    converted.set_known(KnownHeader::Protocol, protocol);
    converted.remove_known(KnownHeader::Upgrade);
    converted.remove_known(KnownHeader::Connection);
    // A stream of bytes without end has no length.
    converted.remove_known(KnownHeader::ContentLength);
    Some(converted)
}

/// Turns the answer to extended CONNECT for `protocol` into that to an upgrade of HTTP/1.
pub(crate) fn answer_from_http2(head: &mut HeaderMap, protocol: &[u8]) {
    if head.status() == Some(200) {
        head.set_status(101);
        head.set_known(KnownHeader::Upgrade, protocol);
        head.set_known(KnownHeader::Connection, b"upgrade");
    }
}

/// What a request asks for, in lower case: `connect`, or the protocol that its `upgrade` header names.
pub(crate) fn kind(request: &HeaderMap) -> String {
    let kind = match request.method() {
        b"CONNECT" => b"connect",
        _ => request.get_known(KnownHeader::Upgrade).unwrap_or_default(),
    };
    String::from_utf8_lossy(kind).to_ascii_lowercase()
}

/// Whether a response grants what the request asked for: 101, or any success to CONNECT.
pub(crate) fn is_granted(request: &HeaderMap, status: Option<u16>) -> bool {
    match request.method() {
        b"CONNECT" => status.is_some_and(|status| (200..300).contains(&status)),
        _ => status == Some(101) && is_upgrade(request),
    }
}

/// Counts a stream among the upgrades for as long as it lasts.
pub(crate) struct ActiveUpgrade {
    manager: Rc<Manager>,
}

impl ActiveUpgrade {
    pub(crate) fn begin(manager: Rc<Manager>) -> Self {
        let stats = &manager.stats.manager;
        stats.downstream_cx_upgrades_total().inc();
        stats.downstream_cx_upgrades_active().inc();
        Self { manager }
    }
}

impl Drop for ActiveUpgrade {
    fn drop(&mut self) {
        self.manager.stats.manager.downstream_cx_upgrades_active().dec();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(fields: &[(&str, &str)]) -> HeaderMap {
        let mut head = HeaderMap::new();
        for (name, value) in fields {
            match KnownHeader::all().iter().find(|known| known.as_str() == *name) {
                Some(known) => head.append_known(*known, value.as_bytes()),
                None => head.append(name.as_bytes(), value.as_bytes()),
            }
        }
        head
    }

    #[test]
    fn extended_connect_is_an_upgrade_and_back() {
        let fields =
            [(":method", "CONNECT"), (":protocol", "websocket"), (":path", "/chat"), (":authority", "a")];
        let original = request(&fields);
        let mut head = original.clone();
        assert!(receive_from_http2(&mut head));
        assert_eq!(head.method(), b"GET");
        assert!(is_upgrade(&head) && kind(&head) == "websocket");
        let back = request_to_http2(&head).unwrap();
        for (name, value) in fields {
            assert_eq!(back.get_str(name), Some(value.as_bytes()), "{name}");
        }
        assert_eq!(back.len(), original.len());
    }

    #[test]
    fn plain_connect_stays_and_other_requests_are_no_upgrades() {
        let mut head = request(&[(":method", "CONNECT"), (":authority", "a:1")]);
        assert!(receive_from_http2(&mut head));
        assert_eq!((head.method(), kind(&head).as_str()), (&b"CONNECT"[..], "connect"));
        assert!(request_to_http2(&head).is_none());
        assert!(!receive_from_http2(&mut request(&[(":method", "GET")])));
    }

    #[test]
    fn an_upgrade_is_granted_by_101_and_connect_by_success() {
        let upgrade = request(&[(":method", "GET"), ("connection", "Upgrade"), ("upgrade", "websocket")]);
        let connect = request(&[(":method", "CONNECT")]);
        for (status, by_upgrade, by_connect) in
            [(101, true, false), (200, false, true), (204, false, true), (403, false, false)]
        {
            assert_eq!(is_granted(&upgrade, Some(status)), by_upgrade, "{status}");
            assert_eq!(is_granted(&connect, Some(status)), by_connect, "{status}");
        }
        let mut answer = HeaderMap::new();
        answer.set_status(200);
        answer_from_http2(&mut answer, b"websocket");
        assert_eq!(answer.status(), Some(101));
        assert!(answer_to_http2(&mut answer));
        assert_eq!(answer.status(), Some(200));
        assert!(!answer_to_http2(&mut answer));
    }
}
