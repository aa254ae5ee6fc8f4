//! The two directions of a stream's body.

use std::future::poll_fn;
use std::task::{Context, Poll, ready};

use bytes::Bytes;

use super::convert::{from_trailers, to_trailers};
use super::{ResetCode, StreamError};
use crate::HeaderMap;

/// The direction that this side receives.
#[derive(Debug)]
pub struct RecvBody {
    inner: h2::RecvStream,
}

impl RecvBody {
    pub(super) fn new(inner: h2::RecvStream) -> Self {
        Self { inner }
    }

    /// The next data, `None` behind the last. The peer may send as much again only after [`RecvBody::release`].
    pub fn poll_data(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, StreamError>>> {
        match ready!(self.inner.poll_data(cx)) {
            Some(Ok(data)) => Poll::Ready(Some(Ok(data))),
            Some(Err(error)) => Poll::Ready(Some(Err(error.into()))),
            None => Poll::Ready(None),
        }
    }

    /// Gives flow-control credit back: this many of the received bytes are no longer held here.
    pub fn release(&mut self, bytes: usize) {
        // Releasing more than was received is the only error, and a stream that is gone needs no credit.
        let released = self.inner.flow_control().release_capacity(bytes);
        debug_assert!(released.is_ok(), "more flow-control credit released than was used");
    }

    /// The trailers, to be asked for behind the last data; tells whether there are any.
    pub fn poll_trailers(
        &mut self,
        cx: &mut Context<'_>,
        trailers: &mut HeaderMap,
    ) -> Poll<Result<bool, StreamError>> {
        match ready!(self.inner.poll_trailers(cx)) {
            Ok(Some(received)) => {
                from_trailers(&received, trailers);
                Poll::Ready(Ok(true))
            }
            Ok(None) => Poll::Ready(Ok(false)),
            Err(error) => Poll::Ready(Err(error.into())),
        }
    }

    /// Whether it is known that nothing more comes, neither data nor trailers.
    pub fn is_end(&self) -> bool {
        self.inner.is_end_stream()
    }

    /// [`RecvBody::poll_data`] as a future.
    pub async fn data(&mut self) -> Option<Result<Bytes, StreamError>> {
        poll_fn(|cx| self.poll_data(cx)).await
    }

    /// [`RecvBody::poll_trailers`] as a future.
    pub async fn trailers(&mut self, trailers: &mut HeaderMap) -> Result<bool, StreamError> {
        poll_fn(|cx| self.poll_trailers(cx, trailers)).await
    }
}

/// The direction that this side sends.
#[derive(Debug)]
pub struct SendBody {
    inner: h2::SendStream<Bytes>,
}

impl SendBody {
    pub(super) fn new(inner: h2::SendStream<Bytes>) -> Self {
        Self { inner }
    }

    /// Waits until at least one of `wanted` bytes can be sent at once, and tells how many can.
    ///
    /// [`SendBody::send_data`] takes more than that and keeps it; to follow the peer's pace, send no more than this.
    pub fn poll_capacity(&mut self, cx: &mut Context<'_>, wanted: usize) -> Poll<Result<usize, StreamError>> {
        if wanted == 0 {
            return Poll::Ready(Ok(0));
        }
        self.inner.reserve_capacity(wanted);
        loop {
            let ready = self.inner.capacity();
            if ready > 0 {
                return Poll::Ready(Ok(ready.min(wanted)));
            }
            match ready!(self.inner.poll_capacity(cx)) {
                Some(Ok(_)) => {}
                Some(Err(error)) => return Poll::Ready(Err(error.into())),
                None => return Poll::Ready(Err(self.ended(cx))),
            }
        }
    }

    /// Why a stream that can no longer send ended.
    fn ended(&mut self, cx: &mut Context<'_>) -> StreamError {
        match self.poll_reset(cx) {
            Poll::Ready(error) => error,
            Poll::Pending => StreamError::LocalReset,
        }
    }

    /// Queues data, `end` with the last.
    pub fn send_data(&mut self, data: Bytes, end: bool) -> Result<(), StreamError> {
        self.inner.send_data(data, end).map_err(StreamError::from)
    }

    /// Queues the trailers, which end the stream.
    pub fn send_trailers(&mut self, trailers: &HeaderMap) -> Result<(), StreamError> {
        let trailers = to_trailers(trailers)?;
        self.inner.send_trailers(trailers).map_err(StreamError::from)
    }

    /// The number of the stream.
    pub(super) fn stream_id(&self) -> u32 {
        self.inner.stream_id().as_u32()
    }

    /// Ends the stream in both directions with an error.
    pub fn reset(&mut self, code: ResetCode) {
        self.inner.send_reset(code.into());
    }

    /// Ready when the peer reset the stream or the connection ended.
    pub fn poll_reset(&mut self, cx: &mut Context<'_>) -> Poll<StreamError> {
        Poll::Ready(match ready!(self.inner.poll_reset(cx)) {
            Ok(h2::Reason::REFUSED_STREAM) => StreamError::RemoteRefused,
            Ok(h2::Reason::NO_ERROR) => StreamError::RemoteNoError,
            Ok(reason) => StreamError::RemoteReset(reason.into()),
            Err(error) => error.into(),
        })
    }

    /// Sends all of the data at the peer's pace.
    pub async fn send(&mut self, mut data: Bytes, end: bool) -> Result<(), StreamError> {
        while !data.is_empty() {
            let count = poll_fn(|cx| self.poll_capacity(cx, data.len())).await?;
            let part = data.split_to(count);
            let last = end && data.is_empty();
            self.send_data(part, last)?;
            if last {
                return Ok(());
            }
        }
        if end { self.send_data(Bytes::new(), true) } else { Ok(()) }
    }
}
