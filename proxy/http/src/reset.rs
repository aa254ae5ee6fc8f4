//! Why a stream or its connection ended before its time, in Envoy's words.

use std::borrow::Cow;

use dhow_base::ResponseFlag;
use dhow_tls::TlsFailure;

/// What ended a stream early.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ResetKind {
    /// Our own socket call failed before anything reached the peer.
    LocalConnectionFailure,
    /// The peer refused or broke the connection attempt.
    RemoteConnectionFailure,
    /// The connection was not made in `connect_timeout`.
    ConnectionTimeout,
    /// The peer closed the connection.
    ConnectionTermination,
    /// We reset the stream.
    LocalReset,
    /// A limit of the circuit breakers was reached.
    Overflow,
    /// The peer reset the stream.
    RemoteReset,
    /// The peer refused the stream before it looked at it.
    RemoteRefusedStreamReset,
    /// The peer broke the protocol.
    ProtocolError,
    /// The peer reset the stream and said that nothing is wrong.
    RemoteResetNoError,
    /// The peer could not make, or lost, the connection that CONNECT asked for.
    ConnectError,
}

impl ResetKind {
    /// Envoy's name, which is in the body of the reply.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::LocalConnectionFailure => "local connection failure",
            Self::RemoteConnectionFailure => "remote connection failure",
            Self::ConnectionTimeout => "connection timeout",
            Self::ConnectionTermination => "connection termination",
            Self::LocalReset => "local reset",
            Self::Overflow => "overflow",
            Self::RemoteReset | Self::RemoteResetNoError => "remote reset",
            Self::RemoteRefusedStreamReset => "remote refused stream reset",
            Self::ProtocolError => "protocol error",
            Self::ConnectError => "remote error with CONNECT request",
        }
    }

    /// The flag that an upstream reset of this kind sets.
    pub(crate) const fn flag(self) -> ResponseFlag {
        match self {
            Self::LocalConnectionFailure | Self::RemoteConnectionFailure | Self::ConnectionTimeout => {
                ResponseFlag::UpstreamConnectionFailure
            }
            Self::ConnectionTermination => ResponseFlag::UpstreamConnectionTermination,
            Self::LocalReset => ResponseFlag::LocalReset,
            Self::Overflow => ResponseFlag::UpstreamOverflow,
            Self::RemoteReset
            | Self::RemoteRefusedStreamReset
            | Self::RemoteResetNoError
            | Self::ConnectError => ResponseFlag::UpstreamRemoteReset,
            Self::ProtocolError => ResponseFlag::UpstreamProtocolError,
        }
    }

    /// Whether the connection was never there.
    pub(crate) const fn is_connect_failure(self) -> bool {
        matches!(self, Self::LocalConnectionFailure | Self::RemoteConnectionFailure | Self::ConnectionTimeout)
    }
}

/// The early end of a stream.
#[derive(Clone, Debug)]
pub(crate) struct Reset {
    /// What happened.
    pub(crate) kind: ResetKind,
    /// The transport's own words, such as `delayed connect error: Connection refused`, or a codec detail.
    pub(crate) transport: Option<Cow<'static, str>>,
}

impl Reset {
    pub(crate) const fn new(kind: ResetKind) -> Self {
        Self { kind, transport: None }
    }

    pub(crate) fn with_transport(kind: ResetKind, words: impl Into<Cow<'static, str>>) -> Self {
        Self { kind, transport: Some(words.into()) }
    }

    /// Whether a client's stream ended because of the client.
    pub(crate) const fn is_by_client(&self) -> bool {
        !matches!(self.kind, ResetKind::LocalReset)
    }

    /// The reset that a failed read or write of an established connection amounts to. What TLS has to say after the
    /// handshake, such as that the other side does not accept our certificate, is the end of the connection.
    pub(crate) fn of_io(error: &std::io::Error) -> Self {
        match error.kind() {
            std::io::ErrorKind::InvalidData if TlsFailure::of(error).is_none() => {
                Self::new(ResetKind::ProtocolError)
            }
            _ => Self::new(ResetKind::ConnectionTermination),
        }
    }

    /// `%RESPONSE_CODE_DETAILS%` for a reset before (`started` false) or after the response head.
    pub(crate) fn details(&self, started: bool) -> String {
        let when = if started { "after" } else { "before" };
        let reason = self.kind.as_str().replace(' ', "_");
        match &self.transport {
            None => format!("upstream_reset_{when}_response_started{{{reason}}}"),
            Some(words) => {
                format!("upstream_reset_{when}_response_started{{{reason}|{}}}", words.replace(' ', "_"))
            }
        }
    }
}
