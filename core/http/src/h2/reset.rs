//! Why a stream or a connection ended before its time.

use std::io;

use super::frame::code;

/// Why a stream ended early, told in Envoy's terms.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StreamError {
    /// The peer reset the stream with this HTTP/2 error code.
    #[error("remote reset")]
    RemoteReset(u32),
    /// The peer refused the stream before it did anything with it (`REFUSED_STREAM`, or a GOAWAY below its id): it can
    /// be tried elsewhere.
    #[error("remote refused stream reset")]
    RemoteRefused,
    /// The peer reset the stream without an error (`NO_ERROR`).
    #[error("remote reset (no error)")]
    RemoteNoError,
    /// This side reset the stream.
    #[error("local reset")]
    LocalReset,
    /// The peer broke the protocol; this side reset the stream or the connection.
    #[error("protocol error")]
    Protocol,
    /// The client broke the protocol on this very stream.
    #[error("protocol error")]
    Offence(Offence),
    /// The connection ended; the text says why.
    #[error("connection termination")]
    ConnectionTermination(String),
    /// The head cannot be sent over HTTP/2.
    #[error("{0}")]
    Head(#[from] super::HeadError),
}

impl StreamError {
    /// The code of [`StreamError::RemoteReset`] by which a peer says that this side broke the protocol.
    pub const PROTOCOL_ERROR: u32 = code::PROTOCOL_ERROR;
    /// The one by which it says that the connection that CONNECT asked for failed.
    pub const CONNECT_ERROR: u32 = code::CONNECT_ERROR;
}

/// What of a client's was wrong with a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Offence {
    /// A frame that its type or its stream does not allow.
    Frame,
    /// A field of a head that cannot be there, or has no such value.
    Field,
    /// Heads that do not make a message, each field being right.
    Message,
}

/// Why a connection ended.
#[derive(Debug, thiserror::Error)]
pub enum ConnectionError {
    /// The transport failed or ended.
    #[error("{0}")]
    Io(io::Error),
    /// The peer ended the connection with this HTTP/2 error code.
    #[error("remote GOAWAY with code {0}")]
    RemoteGoAway(u32),
    /// The peer sent too many frames without effect, or did not begin as it has to.
    #[error("{0}")]
    Violation(super::Violation),
    /// The peer sent a malformed message, and [`Settings::stream_errors`](super::Settings) is off.
    #[error("Invalid HTTP header field was received")]
    Malformed,
    /// This side ended the connection because the peer broke the protocol.
    #[error("{0}")]
    Protocol(String),
}

impl ConnectionError {
    /// Whether the peer or the transport ended the connection, and not this side.
    pub fn is_by_peer(&self) -> bool {
        matches!(self, Self::Io(_) | Self::RemoteGoAway(_))
    }
}

/// The code with which this side resets a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ResetCode {
    /// `NO_ERROR`: the response is complete and the rest of the request is not wanted.
    NoError,
    /// `PROTOCOL_ERROR`.
    ProtocolError,
    /// `INTERNAL_ERROR`.
    InternalError,
    /// `REFUSED_STREAM`: nothing was done with the request.
    RefusedStream,
    /// `CANCEL`.
    Cancel,
    /// `CONNECT_ERROR`.
    ConnectError,
    /// `ENHANCE_YOUR_CALM`.
    EnhanceYourCalm,
    /// `HTTP_1_1_REQUIRED`.
    Http11Required,
}

impl ResetCode {
    /// The code on the wire.
    pub(super) fn value(self) -> u32 {
        match self {
            Self::NoError => code::NO_ERROR,
            Self::ProtocolError => code::PROTOCOL_ERROR,
            Self::InternalError => code::INTERNAL_ERROR,
            Self::RefusedStream => code::REFUSED_STREAM,
            Self::Cancel => code::CANCEL,
            Self::ConnectError => code::CONNECT_ERROR,
            Self::EnhanceYourCalm => code::ENHANCE_YOUR_CALM,
            Self::Http11Required => code::HTTP_1_1_REQUIRED,
        }
    }
}
