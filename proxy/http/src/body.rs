//! How body bytes move from one side of a proxied stream to the other: the receiving side pulls from the sending side,
//! so that bytes are copied at most once and a slow receiver stops the sender.

use std::task::{Context, Poll, ready};

use bytes::Bytes;
use dhow_http::HeaderMap;

use crate::reset::Reset;
use crate::watermarks::Pressure;

/// Where a body stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BodyState {
    /// [`BodySource::chunk`] has at least one byte.
    Data,
    /// The body ended, without or with trailers in [`BodySource::trailers`].
    End,
}

/// The side that a body comes from.
pub(crate) trait BodySource {
    /// Makes data available or finds the end. Reads from the peer only when nothing unconsumed is left.
    fn poll_body(&mut self, cx: &mut Context<'_>) -> Poll<Result<BodyState, Reset>>;

    /// Bytes available after [`BodyState::Data`].
    fn chunk(&self) -> &[u8];

    /// Drops bytes from the front of the chunk.
    fn consume(&mut self, count: usize);

    /// Takes up to `max` bytes from the front of the chunk as a shared buffer, copying only when the source does not own one.
    fn split(&mut self, max: usize) -> Bytes {
        let count = self.chunk().len().min(max);
        let bytes = Bytes::copy_from_slice(&self.chunk()[..count]);
        self.consume(count);
        bytes
    }

    /// Trailers, after the end.
    fn trailers(&self) -> Option<&HeaderMap>;
}

/// The side that a body goes to.
pub(crate) trait BodySink {
    /// Takes bytes from the source's chunk and gives their number, or waits until it can.
    fn poll_write<S: BodySource>(
        &mut self,
        cx: &mut Context<'_>,
        source: &mut S,
    ) -> Poll<Result<usize, Reset>>;

    /// Pushes what is buffered to the peer.
    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Reset>>;

    /// Ends the body; ready when everything was pushed to the peer.
    fn poll_finish(&mut self, cx: &mut Context<'_>, trailers: Option<&HeaderMap>) -> Poll<Result<(), Reset>>;

    /// What happened since the last time to the buffer for what the peer does not take yet.
    fn take_pressure(&mut self) -> Pressure;
}

/// Which side of a transfer failed.
#[derive(Debug)]
pub(crate) enum TransferError {
    /// The side that the body comes from.
    Source(Reset),
    /// The side that it goes to.
    Sink(Reset),
}

/// Moves a body as far as both sides allow; ready when it was moved whole. `moved` counts the bytes.
pub(crate) fn poll_transfer<S: BodySource, K: BodySink>(
    cx: &mut Context<'_>,
    source: &mut S,
    sink: &mut K,
    moved: &mut u64,
) -> Poll<Result<(), TransferError>> {
    loop {
        match source.poll_body(cx) {
            Poll::Pending => {
                // A flush that cannot finish registers interest; the transfer goes on whichever side is ready first.
                if let Poll::Ready(Err(reset)) = sink.poll_flush(cx) {
                    return Poll::Ready(Err(TransferError::Sink(reset)));
                }
                return Poll::Pending;
            }
            Poll::Ready(Err(reset)) => return Poll::Ready(Err(TransferError::Source(reset))),
            Poll::Ready(Ok(BodyState::Data)) => {
                *moved += ready!(sink.poll_write(cx, source)).map_err(TransferError::Sink)? as u64;
            }
            Poll::Ready(Ok(BodyState::End)) => {
                ready!(sink.poll_finish(cx, source.trailers())).map_err(TransferError::Sink)?;
                return Poll::Ready(Ok(()));
            }
        }
    }
}

/// A body held in memory: that of a local reply, or a request body kept for a retry.
#[derive(Debug)]
pub(crate) struct BufferedBody<'a> {
    rest: &'a [u8],
    trailers: Option<&'a HeaderMap>,
}

impl<'a> BufferedBody<'a> {
    pub(crate) fn new(bytes: &'a [u8], trailers: Option<&'a HeaderMap>) -> Self {
        Self { rest: bytes, trailers }
    }
}

impl BodySource for BufferedBody<'_> {
    fn poll_body(&mut self, _cx: &mut Context<'_>) -> Poll<Result<BodyState, Reset>> {
        Poll::Ready(Ok(if self.rest.is_empty() { BodyState::End } else { BodyState::Data }))
    }

    fn chunk(&self) -> &[u8] {
        self.rest
    }

    fn consume(&mut self, count: usize) {
        self.rest = &self.rest[count..];
    }

    fn trailers(&self) -> Option<&HeaderMap> {
        self.trailers
    }
}
