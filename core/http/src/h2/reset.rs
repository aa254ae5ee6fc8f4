//! Why a stream or a connection ended before its time.

use std::io;

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
    /// The peer ended the stream without an error while its request was not complete (`NO_ERROR`).
    #[error("remote reset (no error)")]
    RemoteNoError,
    /// This side reset the stream.
    #[error("local reset")]
    LocalReset,
    /// The peer broke the protocol; this side reset the stream or the connection.
    #[error("protocol error")]
    Protocol,
    /// The connection ended; the text says why.
    #[error("connection termination")]
    ConnectionTermination(String),
    /// The head cannot be sent over HTTP/2.
    #[error("{0}")]
    Head(#[from] super::HeadError),
}

impl From<h2::Error> for StreamError {
    fn from(error: h2::Error) -> Self {
        if error.is_io() {
            return Self::ConnectionTermination(error.to_string());
        }
        let Some(reason) = error.reason() else { return Self::LocalReset };
        if error.is_remote() {
            return match reason {
                h2::Reason::REFUSED_STREAM => Self::RemoteRefused,
                _ if error.is_go_away() => Self::RemoteRefused,
                h2::Reason::NO_ERROR => Self::RemoteNoError,
                reason => Self::RemoteReset(reason.into()),
            };
        }
        match reason {
            h2::Reason::PROTOCOL_ERROR
            | h2::Reason::FLOW_CONTROL_ERROR
            | h2::Reason::FRAME_SIZE_ERROR
            | h2::Reason::COMPRESSION_ERROR
            | h2::Reason::STREAM_CLOSED
            | h2::Reason::ENHANCE_YOUR_CALM => Self::Protocol,
            _ => Self::LocalReset,
        }
    }
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

impl From<h2::Error> for ConnectionError {
    fn from(error: h2::Error) -> Self {
        if error.is_io() {
            let text = error.to_string();
            return Self::Io(error.into_io().unwrap_or_else(|| io::Error::other(text)));
        }
        match error.reason() {
            Some(reason) if error.is_remote() => Self::RemoteGoAway(reason.into()),
            _ => Self::Protocol(error.to_string()),
        }
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

impl From<ResetCode> for h2::Reason {
    fn from(code: ResetCode) -> Self {
        match code {
            ResetCode::NoError => Self::NO_ERROR,
            ResetCode::ProtocolError => Self::PROTOCOL_ERROR,
            ResetCode::InternalError => Self::INTERNAL_ERROR,
            ResetCode::RefusedStream => Self::REFUSED_STREAM,
            ResetCode::Cancel => Self::CANCEL,
            ResetCode::ConnectError => Self::CONNECT_ERROR,
            ResetCode::EnhanceYourCalm => Self::ENHANCE_YOUR_CALM,
            ResetCode::Http11Required => Self::HTTP_1_1_REQUIRED,
        }
    }
}
