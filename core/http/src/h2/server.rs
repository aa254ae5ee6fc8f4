//! The server side of a connection.

use std::future::poll_fn;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite};

use super::batch::{BatchedIo, Flusher, batched};
use super::convert::{from_request, to_response};
use super::{ConnectionError, RecvBody, ResetCode, SendBody, Settings, StreamError};
use crate::HeaderMap;

/// A connection on which the peer opens streams. Someone must keep calling [`ServerConnection::poll_accept`]: it moves
/// all frames of all streams.
#[derive(Debug)]
pub struct ServerConnection<T> {
    inner: h2::server::Connection<BatchedIo<T>, Bytes>,
    flusher: Flusher<T>,
}

impl<T: AsyncRead + AsyncWrite + Unpin> ServerConnection<T> {
    /// Reads the client's preface and exchanges settings.
    pub async fn handshake(io: T, settings: &Settings) -> Result<Self, ConnectionError> {
        let (io, flusher) = batched(io);
        let mut handshake = std::pin::pin!(settings.server().handshake(io));
        let inner = poll_fn(|cx| {
            let outcome = handshake.as_mut().poll(cx);
            match flusher.poll_flush(cx) {
                Poll::Ready(Err(error)) if outcome.is_pending() => {
                    Poll::Ready(Err(ConnectionError::Io(error)))
                }
                _ => outcome.map_err(ConnectionError::from),
            }
        })
        .await?;
        Ok(Self { inner, flusher })
    }

    /// Moves frames, and yields the next stream that the peer opened; `None` when the connection ended.
    pub fn poll_accept(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<ServerStream, ConnectionError>>> {
        match self.inner.poll_accept(cx) {
            Poll::Ready(Some(Ok((request, respond)))) => {
                // Frames that wait leave with the next poll that finds no new stream, which the caller makes next.
                Poll::Ready(Some(Ok(ServerStream { request, respond })))
            }
            Poll::Ready(end) => {
                // The farewell (GOAWAY) is worth a try; the connection is over whatever comes of it.
                let _ = self.flusher.poll_flush(cx);
                Poll::Ready(
                    end.map(|end| end.map(|_| unreachable!("matched above")).map_err(ConnectionError::from)),
                )
            }
            Poll::Pending => match self.flusher.poll_flush(cx) {
                Poll::Ready(Err(error)) => Poll::Ready(Some(Err(ConnectionError::Io(error)))),
                _ => Poll::Pending,
            },
        }
    }

    /// [`ServerConnection::poll_accept`] as a future.
    pub async fn accept(&mut self) -> Option<Result<ServerStream, ConnectionError>> {
        poll_fn(|cx| self.poll_accept(cx)).await
    }

    /// Tells the peer to open no more streams (GOAWAY); streams that are open go on, and the connection ends with them.
    pub fn graceful_shutdown(&mut self) {
        self.inner.graceful_shutdown();
    }

    /// Ends the connection and all its streams with an error.
    pub fn abrupt_shutdown(&mut self, code: ResetCode) {
        self.inner.abrupt_shutdown(code.into());
    }

    /// Whether any stream is open.
    pub fn has_streams(&self) -> bool {
        self.inner.has_streams()
    }

    /// Pings for keep-alive; can be taken once.
    pub fn take_pinger(&mut self) -> Option<Pinger> {
        self.inner.ping_pong().map(Pinger::new)
    }
}

/// A stream that the peer opened.
#[derive(Debug)]
pub struct ServerStream {
    request: http::Request<h2::RecvStream>,
    respond: h2::server::SendResponse<Bytes>,
}

impl ServerStream {
    /// Reads the request head into `head` (which is cleared first) and hands out the two directions.
    pub fn into_parts(self, head: &mut HeaderMap) -> (RecvBody, Responder) {
        from_request(&self.request, head);
        (RecvBody::new(self.request.into_body()), Responder { inner: self.respond })
    }

    /// Number of the stream within its connection.
    pub fn id(&self) -> u32 {
        self.respond.stream_id().as_u32()
    }
}

/// Answers a request.
#[derive(Debug)]
pub struct Responder {
    inner: h2::server::SendResponse<Bytes>,
}

impl Responder {
    /// Sends an informational response (100, 103); the final one follows.
    pub fn send_informational(&mut self, head: &HeaderMap) -> Result<(), StreamError> {
        self.inner.send_informational(to_response(head)?).map_err(StreamError::from)
    }

    /// Sends the response head; `end` when no body follows.
    pub fn send_response(&mut self, head: &HeaderMap, end: bool) -> Result<SendBody, StreamError> {
        let response = to_response(head)?;
        self.inner.send_response(response, end).map(SendBody::new).map_err(StreamError::from)
    }

    /// Ends the stream with an error.
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
}

/// Sends pings and waits for their answers; the caller keeps the time (`connection_keepalive`).
#[derive(Debug)]
pub struct Pinger {
    inner: h2::PingPong,
}

impl Pinger {
    pub(super) fn new(inner: h2::PingPong) -> Self {
        Self { inner }
    }

    /// Sends a ping. One may be under way at a time.
    pub fn ping(&mut self) -> Result<(), ConnectionError> {
        self.inner.send_ping(h2::Ping::opaque()).map_err(ConnectionError::from)
    }

    /// Waits for the answer to the last ping.
    pub fn poll_pong(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), ConnectionError>> {
        self.inner.poll_pong(cx).map_ok(|_| ()).map_err(ConnectionError::from)
    }
}
