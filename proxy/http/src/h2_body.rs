//! The receiving direction of an HTTP/2 stream as a body: data frames are passed on as they are, and flow-control credit
//! goes back when the other side has taken them.

use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use dhow_http::HeaderMap;
use dhow_http::h2::{MetadataPort, Offence, RecvBody, StreamError};

use crate::body::{BodySource, BodyState};
use crate::reset::{Reset, ResetKind};

/// A body that arrives in DATA frames.
#[derive(Debug)]
pub(crate) struct ReceivedBody {
    body: RecvBody,
    frame: Bytes,
    trailers: HeaderMap,
    data_ended: bool,
    ended: bool,
}

impl ReceivedBody {
    pub(crate) fn new(body: RecvBody) -> Self {
        let ended = body.is_end();
        Self { body, frame: Bytes::new(), trailers: HeaderMap::new(), data_ended: ended, ended }
    }

    /// The metadata of the stream, where there can be any.
    pub(crate) fn metadata_port(&self) -> Option<MetadataPort> {
        self.body.metadata_port()
    }

    /// Whether everything was received and consumed.
    pub(crate) fn is_complete(&self) -> bool {
        self.ended && self.frame.is_empty()
    }
}

impl BodySource for ReceivedBody {
    fn poll_body(&mut self, cx: &mut Context<'_>) -> Poll<Result<BodyState, Reset>> {
        while self.frame.is_empty() && !self.data_ended {
            match ready!(self.body.poll_data(cx)) {
                Some(frame) => self.frame = frame?,
                None => self.data_ended = true,
            }
        }
        if !self.frame.is_empty() {
            return Poll::Ready(Ok(BodyState::Data));
        }
        if !self.ended {
            ready!(self.body.poll_trailers(cx, &mut self.trailers))?;
            self.ended = true;
        }
        Poll::Ready(Ok(BodyState::End))
    }

    fn chunk(&self) -> &[u8] {
        &self.frame
    }

    fn consume(&mut self, count: usize) {
        self.frame.advance(count);
        self.on_taken(count);
    }

    fn split(&mut self, max: usize) -> Bytes {
        let count = self.frame.len().min(max);
        let part = self.frame.split_to(count);
        self.on_taken(count);
        part
    }

    fn trailers(&self) -> Option<&HeaderMap> {
        (!self.trailers.is_empty()).then_some(&self.trailers)
    }
}

impl ReceivedBody {
    fn on_taken(&mut self, count: usize) {
        self.body.release(count);
        // Without trailers the end may be known with the last frame, which spares the other side a wait.
        if self.frame.is_empty() && self.body.is_end() {
            self.data_ended = true;
            self.ended = true;
        }
    }
}

/// `%RESPONSE_CODE_DETAILS%` of a stream that a client broke the protocol on.
pub(crate) const fn offence_details(offence: Offence) -> &'static str {
    match offence {
        Offence::Frame => "http2.unknown.nghttp2.error",
        Offence::Field => "http2.invalid.header.field",
        Offence::Message => "http2.violation.of.messaging.rule",
    }
}

impl From<StreamError> for Reset {
    fn from(error: StreamError) -> Self {
        match error {
            StreamError::RemoteReset(code) => Self::new(match code {
                StreamError::PROTOCOL_ERROR => ResetKind::ProtocolError,
                StreamError::CONNECT_ERROR => ResetKind::ConnectError,
                _ => ResetKind::RemoteReset,
            }),
            StreamError::RemoteRefused => Self::new(ResetKind::RemoteRefusedStreamReset),
            StreamError::RemoteNoError => Self::new(ResetKind::RemoteResetNoError),
            StreamError::LocalReset => Self::new(ResetKind::LocalReset),
            StreamError::Offence(offence) => {
                Self::with_transport(ResetKind::ProtocolError, offence_details(offence))
            }
            StreamError::Protocol | StreamError::Head(_) => Self::new(ResetKind::ProtocolError),
            StreamError::ConnectionTermination(_) => Self::new(ResetKind::ConnectionTermination),
        }
    }
}
