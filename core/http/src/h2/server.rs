//! The server side of a connection.

use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite};

use super::batch::{BatchedIo, Flusher, batched};
use super::convert::{from_request, to_response};
use super::meters::StreamMeters;
use super::watch::{Side, Watch};
use super::{ConnectionError, FrameCounts, RecvBody, ResetCode, SendBody, Settings, StreamError, Violation};
use crate::{ByteMeter, HeaderMap};

/// A connection on which the peer opens streams. Someone must keep calling [`ServerConnection::poll_accept`]: it moves
/// all frames of all streams.
#[derive(Debug)]
pub struct ServerConnection<T> {
    inner: h2::server::Connection<BatchedIo<T>, Bytes>,
    flusher: Flusher<T>,
    meters: StreamMeters,
    counts: FrameCounts,
    stream_errors: bool,
    /// Streams accepted in this turn, and the last one of the turns before.
    accepted: Vec<u32>,
    last_accepted: u32,
    /// Streams whose heads were malformed, since the last time that somebody asked.
    malformed: usize,
    /// Why the connection is being ended.
    shut_down: Option<Violation>,
}

impl<T: AsyncRead + AsyncWrite + Unpin> ServerConnection<T> {
    /// Reads the client's preface and exchanges settings.
    pub async fn handshake(io: T, settings: &Settings) -> Result<Self, ConnectionError> {
        let meters = StreamMeters::default();
        let (io, flusher) = batched(io, Watch::new(Side::Server, settings.limits, meters.clone()));
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
        Ok(Self {
            inner,
            flusher,
            meters,
            counts: FrameCounts::default(),
            stream_errors: settings.stream_errors,
            accepted: Vec::new(),
            last_accepted: 0,
            malformed: 0,
            shut_down: None,
        })
    }

    /// Moves frames, and yields the next stream that the peer opened; `None` when the connection ended.
    pub fn poll_accept(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<ServerStream, ConnectionError>>> {
        loop {
            let failed = match self.inner.poll_accept(cx) {
                Poll::Ready(Some(Ok((request, mut respond)))) => {
                    self.accepted.push(respond.stream_id().as_u32());
                    if has_repeated_length(&request) {
                        self.malformed += 1;
                        if !self.stream_errors {
                            return Poll::Ready(Some(Err(ConnectionError::Malformed)));
                        }
                        respond.send_reset(h2::Reason::PROTOCOL_ERROR);
                        continue;
                    }
                    // Frames that wait leave with the next poll that finds no new stream, which the caller makes next.
                    let id = respond.stream_id().as_u32();
                    let meter = ByteMeter::is_wanted().then(|| self.meters.take(id)).flatten();
                    return Poll::Ready(Some(Ok(ServerStream { request, respond, meter })));
                }
                Poll::Ready(Some(Err(error))) => Some(ConnectionError::from(error)),
                Poll::Ready(None) => None,
                Poll::Pending => match self.end_turn() {
                    Ok(true) => continue,
                    Err(error) => return Poll::Ready(Some(Err(error))),
                    Ok(false) => {
                        return match self.flusher.poll_flush(cx) {
                            Poll::Ready(Err(error)) => Poll::Ready(Some(Err(ConnectionError::Io(error)))),
                            _ => Poll::Pending,
                        };
                    }
                },
            };
            // The farewell (GOAWAY) is worth a try; the connection is over whatever comes of it.
            let _ = self.flusher.poll_flush(cx);
            self.counts += self.flusher.seen().counts;
            let failed = self.shut_down.take().map(ConnectionError::Violation).or(failed);
            return Poll::Ready(failed.map(Err));
        }
    }

    /// Looks at what the peer did in this turn; tells whether the connection has something to do about it.
    fn end_turn(&mut self) -> Result<bool, ConnectionError> {
        let seen = self.flusher.seen();
        self.counts += seen.counts;
        match seen.violation {
            Some(Violation::FirstFrame) if self.shut_down.is_none() => {
                self.shut_down = seen.violation;
                self.inner.abrupt_shutdown(h2::Reason::PROTOCOL_ERROR);
                return Ok(true);
            }
            Some(Violation::FirstFrame) | None => {}
            Some(violation) => return Err(ConnectionError::Violation(violation)),
        }
        let malformed = |id: &u32| *id > self.last_accepted && !self.accepted.contains(id);
        // A stream that was never accepted and yet is reset is one whose head is malformed.
        let refused = seen.malformed.iter().filter(|id| malformed(id)).count();
        self.malformed += refused;
        if !self.stream_errors && refused > 0 {
            // The connection ends, and with it the streams: nobody looks at their resets.
            self.counts.resets_sent = self.counts.resets_sent.saturating_sub(refused as u32);
            return Err(ConnectionError::Malformed);
        }
        if let Some(last) = self.accepted.drain(..).max() {
            self.last_accepted = last;
        }
        Ok(false)
    }

    /// What passed since the last time.
    pub fn take_counts(&mut self) -> FrameCounts {
        std::mem::take(&mut self.counts)
    }

    /// How many streams were refused since the last time because their heads are malformed.
    pub fn take_malformed(&mut self) -> usize {
        std::mem::take(&mut self.malformed)
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

    /// Ready when the client ended a connection on which nothing is served any more; what it sends before is dropped.
    pub fn poll_peer_end(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.flusher.poll_peer_end(cx)
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

/// Whether a request announces its length more than once, which is malformed even if it says the same.
fn has_repeated_length<B>(request: &http::Request<B>) -> bool {
    request.headers().get_all(http::header::CONTENT_LENGTH).iter().nth(1).is_some()
}

/// A stream that the peer opened.
#[derive(Debug)]
pub struct ServerStream {
    request: http::Request<h2::RecvStream>,
    respond: h2::server::SendResponse<Bytes>,
    meter: Option<Arc<ByteMeter>>,
}

impl ServerStream {
    /// Reads the request head into `head` (which is cleared first) and hands out the two directions.
    pub fn into_parts(self, head: &mut HeaderMap) -> (RecvBody, Responder) {
        from_request(&self.request, head);
        (RecvBody::new(self.request.into_body()), Responder { inner: self.respond })
    }

    /// What counts the bytes of the stream, where a format asks for them.
    pub fn take_meter(&mut self) -> Option<Arc<ByteMeter>> {
        self.meter.take()
    }

    /// Fields that the request gives its cookies in; the head has them as one.
    pub fn cookie_crumbs(&self) -> usize {
        self.request.headers().get_all(http::header::COOKIE).iter().count()
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
