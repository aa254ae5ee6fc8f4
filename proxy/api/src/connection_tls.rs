//! TLS of a downstream connection, which some see before its handshake is done.

use std::cell::{Cell, OnceCell};

use dhow_tls::TlsInfo;

/// What is told of the version before the handshake, as Envoy's library does.
const EARLY_VERSION: &str = "TLSv1.2";

/// TLS of a downstream connection: none, a handshake that is still to be done, or a session.
#[derive(Debug, Default)]
pub struct ConnectionTls {
    expected: bool,
    session: OnceCell<Box<TlsInfo>>,
    /// Whether the version was asked for before there was one.
    asked_early: Cell<bool>,
}

impl ConnectionTls {
    /// TLS of a connection whose filter chain terminates it; without a session until the handshake is done.
    pub fn expected() -> Self {
        Self { expected: true, ..Self::default() }
    }

    /// A session.
    pub fn established(session: TlsInfo) -> Self {
        Self { expected: true, session: OnceCell::from(Box::new(session)), asked_early: Cell::default() }
    }

    /// The handshake is done. A connection has one; of a second nothing is kept.
    pub fn establish(&self, session: TlsInfo) {
        let _ = self.session.set(Box::new(session));
    }

    /// Whether the filter chain terminates TLS, handshake done or not.
    pub fn is_expected(&self) -> bool {
        self.expected
    }

    /// Facts of the session, once the handshake is done.
    pub fn session(&self) -> Option<&TlsInfo> {
        self.session.get().map(|session| &**session)
    }

    /// The version for logs. As in Envoy, who asks before the handshake is told a version all the same, and that one stays.
    pub fn version(&self) -> Option<&'static str> {
        if !self.expected {
            return None;
        }
        match self.session() {
            Some(session) if !self.asked_early.get() => Some(session.version),
            _ => {
                self.asked_early.set(true);
                Some(EARLY_VERSION)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn session() -> TlsInfo {
        TlsInfo { version: "TLSv1.3", ..TlsInfo::default() }
    }

    #[test]
    fn the_version_that_is_told_first_stays() {
        let asked_late = ConnectionTls::expected();
        asked_late.establish(session());
        assert_eq!(asked_late.version(), Some("TLSv1.3"));
        let asked_early = ConnectionTls::expected();
        assert_eq!(asked_early.version(), Some("TLSv1.2"));
        asked_early.establish(session());
        assert_eq!(asked_early.version(), Some("TLSv1.2"));
        assert_eq!(asked_early.session().map(|session| session.version), Some("TLSv1.3"));
    }

    #[test]
    fn clear_text_has_neither_session_nor_version() {
        let none = ConnectionTls::default();
        assert!(none.session().is_none() && none.version().is_none() && !none.is_expected());
    }
}
