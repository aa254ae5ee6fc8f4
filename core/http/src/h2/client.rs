//! The client side of a connection.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker, ready};

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite};

use super::batch::{BatchedIo, Flusher, batched};
use super::convert::{from_response, to_request};
use super::meters::StreamMeters;
use super::server::Pinger;
use super::watch::{Side, Watch};
use super::{ConnectionError, FrameCounts, RecvBody, ResetCode, SendBody, Settings, StreamError};
use crate::{ByteDirection, ByteMeter, HeaderMap};

/// Exchanges settings on a fresh connection: a handle to open streams with, and the connection itself, which someone
/// must poll until it ends.
pub async fn connect<T: AsyncRead + AsyncWrite + Unpin>(
    io: T,
    settings: &Settings,
) -> Result<(Sender, ClientConnection<T>), ConnectionError> {
    let meters = StreamMeters::default();
    let (io, flusher) = batched(io, Watch::new(Side::Client, settings.limits, meters.clone()));
    let mut handshake = std::pin::pin!(settings.client().handshake(io));
    let (sender, inner) = poll_fn(|cx| {
        let outcome = handshake.as_mut().poll(cx);
        match flusher.poll_flush(cx) {
            Poll::Ready(Err(error)) if outcome.is_pending() => Poll::Ready(Err(ConnectionError::Io(error))),
            _ => outcome.map_err(ConnectionError::from),
        }
    })
    .await?;
    let stream_errors = settings.stream_errors;
    let connection = ClientConnection { inner, flusher, counts: FrameCounts::default(), stream_errors };
    Ok((Sender { inner: sender, meters }, connection))
}

/// A connection on which this side opens streams. As a future it moves all frames of all streams and ends with the
/// connection: when the last [`Sender`] and the last stream are gone, or with an error.
#[derive(Debug)]
pub struct ClientConnection<T: AsyncRead + AsyncWrite + Unpin> {
    inner: h2::client::Connection<BatchedIo<T>, Bytes>,
    flusher: Flusher<T>,
    counts: FrameCounts,
    stream_errors: bool,
}

impl<T: AsyncRead + AsyncWrite + Unpin> ClientConnection<T> {
    /// Pings for keep-alive; can be taken once.
    pub fn take_pinger(&mut self) -> Option<Pinger> {
        self.inner.ping_pong().map(Pinger::new)
    }

    /// What passed since the last time.
    pub fn take_counts(&mut self) -> FrameCounts {
        std::mem::take(&mut self.counts)
    }
}

impl<T: AsyncRead + AsyncWrite + Unpin> Future for ClientConnection<T> {
    type Output = Result<(), ConnectionError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let outcome = Pin::new(&mut self.inner).poll(cx);
        let flushed = self.flusher.poll_flush(cx);
        let seen = self.flusher.seen();
        self.counts += seen.counts;
        if let Some(violation) = seen.violation {
            return Poll::Ready(Err(ConnectionError::Violation(violation)));
        }
        if !self.stream_errors && !seen.malformed.is_empty() {
            return Poll::Ready(Err(ConnectionError::Malformed));
        }
        match (outcome, flushed) {
            (Poll::Ready(outcome), _) => Poll::Ready(outcome.map_err(ConnectionError::from)),
            (Poll::Pending, Poll::Ready(Err(error))) => Poll::Ready(Err(ConnectionError::Io(error))),
            (Poll::Pending, _) => Poll::Pending,
        }
    }
}

/// Opens streams on a connection; cheap to clone.
#[derive(Clone, Debug)]
pub struct Sender {
    inner: h2::client::SendRequest<Bytes>,
    meters: StreamMeters,
}

impl Sender {
    /// Ready when the last stream of this handle was opened on the wire. An error says that the connection takes no
    /// more streams: it ended, or the peer sent GOAWAY.
    ///
    /// A handle can thus queue one stream above the peer's limit; who must not, counts its streams against
    /// [`Sender::max_concurrent_streams`].
    pub fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), StreamError>> {
        self.inner.poll_ready(cx).map_err(StreamError::from)
    }

    /// [`Sender::poll_ready`] as a future.
    pub async fn ready(&mut self) -> Result<(), StreamError> {
        poll_fn(|cx| self.poll_ready(cx)).await
    }

    /// Whether the connection takes no more streams, because it ended or the peer sent GOAWAY. Streams that are open may
    /// still come to their end. Not for a handle whose `poll_ready` someone waits on: ask a clone.
    pub fn is_draining(&mut self) -> bool {
        matches!(self.inner.poll_ready(&mut Context::from_waker(Waker::noop())), Poll::Ready(Err(_)))
    }

    /// Streams that the peer allows at a time, before its settings arrive the configured number.
    pub fn max_concurrent_streams(&self) -> usize {
        self.inner.current_max_send_streams()
    }

    /// Opens a stream; `end` when the request has no body. Call it after [`Sender::poll_ready`] said so.
    pub fn send_request(
        &mut self,
        head: &HeaderMap,
        end: bool,
    ) -> Result<(PendingResponse, SendBody), StreamError> {
        let request = to_request(head)?;
        let (response, body) = self.inner.send_request(request, end).map_err(StreamError::from)?;
        Ok((PendingResponse { inner: response }, SendBody::new(body)))
    }

    /// [`Sender::send_request`] with the bytes of the stream's frames counted.
    pub fn send_metered_request(
        &mut self,
        head: &HeaderMap,
        end: bool,
        meter: Arc<ByteMeter>,
    ) -> Result<(PendingResponse, SendBody), StreamError> {
        meter.on_decompressed(ByteDirection::Sent, head);
        let (response, body) = self.send_request(head, end)?;
        // No frame of the stream has left: the connection's own task writes them.
        self.meters.open(body.stream_id(), meter);
        Ok((response, body))
    }
}

/// The response that is to come on a stream.
#[derive(Debug)]
pub struct PendingResponse {
    inner: h2::client::ResponseFuture,
}

impl PendingResponse {
    /// Waits for an informational response, without giving up the final one; `false` when the final one is next.
    pub fn poll_informational(
        &mut self,
        cx: &mut Context<'_>,
        head: &mut HeaderMap,
    ) -> Poll<Result<bool, StreamError>> {
        match ready!(self.inner.poll_informational(cx)) {
            Some(Ok(response)) => {
                from_response(&response, head);
                Poll::Ready(Ok(true))
            }
            Some(Err(error)) => Poll::Ready(Err(error.into())),
            None => Poll::Ready(Ok(false)),
        }
    }

    /// Waits for the final response: reads its head into `head` (which is cleared first) and hands out its body.
    pub fn poll_response(
        &mut self,
        cx: &mut Context<'_>,
        head: &mut HeaderMap,
    ) -> Poll<Result<RecvBody, StreamError>> {
        let response = ready!(Pin::new(&mut self.inner).poll(cx))?;
        from_response(&response, head);
        Poll::Ready(Ok(RecvBody::new(response.into_body())))
    }

    /// [`PendingResponse::poll_response`] as a future.
    pub async fn response(&mut self, head: &mut HeaderMap) -> Result<RecvBody, StreamError> {
        poll_fn(|cx| self.poll_response(cx, head)).await
    }
}

impl SendBody {
    /// Ends the stream because its answer is no longer wanted.
    pub fn cancel(&mut self) {
        self.reset(ResetCode::Cancel);
    }
}
