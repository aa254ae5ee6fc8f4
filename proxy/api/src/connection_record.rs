//! What becomes of a connection as a whole, beyond the streams on it: for network filters and for the access logs of listeners.

use std::cell::Cell;
use std::fmt;

use dhow_base::ResponseFlags;
use dhow_net::proxy_protocol::Tlv;

use crate::dynamic_metadata::DynamicMetadata;
use crate::filter_state::FilterState;
use crate::stream_info::{Details, Protocol, UpstreamInfo};

/// How a connection ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CloseType {
    /// With its last byte.
    #[default]
    Normal,
    /// This side reset it.
    LocalReset,
    /// The peer reset it.
    RemoteReset,
}

impl CloseType {
    /// The name in access logs.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Normal => "Normal",
            Self::LocalReset => "LocalReset",
            Self::RemoteReset => "RemoteReset",
        }
    }
}

/// What filters and the listener note about a connection. There is one only where a network filter in front of the terminal one, a
/// listener filter or an access log of the listener asks for it.
#[derive(Debug, Default)]
pub struct ConnectionRecord {
    /// Flags that say what went wrong.
    pub flags: ResponseFlags,
    /// `%RESPONSE_CODE_DETAILS%`.
    pub details: Option<Details>,
    /// `%CONNECTION_TERMINATION_DETAILS%`: why a filter ended the connection.
    pub termination_details: Option<Details>,
    /// `%DOWNSTREAM_LOCAL_CLOSE_REASON%`.
    pub local_close_reason: Option<Details>,
    /// `%DOWNSTREAM_DETECTED_CLOSE_TYPE%`.
    pub close_type: CloseType,
    /// `%DOWNSTREAM_TRANSPORT_FAILURE_REASON%`.
    pub transport_failure: Option<Box<str>>,
    /// The same where it is the TLS inspector that says so, which streams are not told of.
    pub inspection_failure: Option<Box<str>>,
    /// Metadata of the connection, which its streams do not get.
    pub dynamic_metadata: DynamicMetadata,
    /// Objects of the connection, which its streams begin with.
    pub filter_state: FilterState,
    /// The upstream side of a connection that is proxied as a whole.
    pub upstream: UpstreamInfo,
    /// Protocol of the streams.
    pub protocol: Option<Protocol>,
    /// Bytes received, after decryption.
    pub bytes_received: Cell<u64>,
    /// Bytes sent, before encryption.
    pub bytes_sent: Cell<u64>,
    /// Bytes that a network filter did not let through to the terminal one.
    pub bytes_refused: u64,
    /// Extensions that go along to hosts which are sent a PROXY protocol header; none where the client had no header.
    pub proxy_extensions: Option<Vec<Tlv>>,
    /// A network filter in front of the terminal one ended the connection.
    pub ended_by_filter: bool,
    /// The proxy closed the connection while requests were under way on it, with its filter chain, its listener or the process.
    pub cut_off: bool,
    /// What is left to do once the listener has logged the connection; none where it logs nothing.
    pub after_log: Option<AfterLog>,
}

/// Something that comes after the listener's log line of a connection, such as the terminal filter's.
#[derive(Default)]
pub struct AfterLog(Vec<Box<dyn FnOnce()>>);

impl AfterLog {
    /// Adds something to do.
    pub fn add(&mut self, task: impl FnOnce() + 'static) {
        self.0.push(Box::new(task));
    }

    /// Does it all, in order.
    pub fn run(self) {
        self.0.into_iter().for_each(|task| task());
    }
}

impl fmt::Debug for AfterLog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("AfterLog").field(&self.0.len()).finish()
    }
}
