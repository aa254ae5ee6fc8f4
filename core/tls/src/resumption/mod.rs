//! Resumption of sessions that clients come back with: what they keep themselves (tickets), and what the server remembers.

mod sessions;
mod stamp;
mod ticket_keys;
mod tickets;

pub(crate) use sessions::Sessions;
pub(crate) use ticket_keys::TicketKeys;
pub(crate) use tickets::Tickets;

/// How long a session of TLS 1.2 can be resumed unless `session_timeout` says otherwise, in seconds; BoringSSL's default.
pub(crate) const TLS12_LIFETIME: u32 = 2 * 60 * 60;

/// How long a session of TLS 1.3 can be resumed, in seconds: BoringSSL's default, which Envoy does not change.
pub(crate) const TLS13_LIFETIME: u32 = 2 * 24 * 60 * 60;
