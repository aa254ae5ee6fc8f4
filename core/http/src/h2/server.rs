//! The server side of a connection.

use std::future::poll_fn;
use std::io;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite};

use super::driver::{Driver, Ending};
use super::frame::PREFACE;
use super::shared::{Core, Handle, Side};
use super::{
    ConnectionError, FrameCounts, Offence, Pinger, RecvBody, ResetCode, SendBody, Settings, StreamError,
};
use crate::{ByteMeter, HeaderMap};

/// A connection on which the peer opens streams. Someone must keep calling [`ServerConnection::poll_accept`]: it moves
/// all frames of all streams.
#[derive(Debug)]
pub struct ServerConnection<T: AsyncRead + AsyncWrite + Unpin> {
    driver: Driver<T>,
    has_pinger: bool,
}

impl<T: AsyncRead + AsyncWrite + Unpin> ServerConnection<T> {
    /// Reads the client's preface and exchanges settings.
    pub async fn handshake(io: T, settings: &Settings) -> Result<Self, ConnectionError> {
        let mut driver = Driver::new(io, Core::new(Side::Server, settings));
        let begun = poll_fn(|cx| {
            let expected = driver.poll_expect(cx, PREFACE);
            match driver.poll_flush(cx) {
                Poll::Ready(Err(error)) if expected.is_pending() => Poll::Ready(Err(error)),
                _ => expected,
            }
        });
        match begun.await {
            Ok(true) => Ok(Self { driver, has_pinger: true }),
            Ok(false) => Err(ConnectionError::Protocol("the client's preface is wrong".to_owned())),
            Err(error) => Err(ConnectionError::Io(error)),
        }
    }

    /// Moves frames, and yields the next stream that the peer opened; `None` when the connection ended.
    ///
    /// Frames that wait leave once there is no new stream.
    pub fn poll_accept(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<ServerStream, ConnectionError>>> {
        Poll::Ready(match ready!(self.driver.poll(cx)) {
            // The stream came with a share for whoever accepts it.
            Ok(key) => Some(Ok(ServerStream { handle: Handle { core: self.driver.core.clone(), key } })),
            Err(Ending::Peaceful) => None,
            Err(Ending::Failed(error)) => Some(Err(error)),
        })
    }

    /// What passed since the last time.
    pub fn take_counts(&mut self) -> FrameCounts {
        std::mem::take(&mut self.driver.core.borrow_mut().counts)
    }

    /// What was wrong with the heads of streams that were refused since the last time.
    pub fn take_refused(&mut self) -> Vec<Offence> {
        std::mem::take(&mut self.driver.refused)
    }

    /// [`ServerConnection::poll_accept`] as a future.
    pub async fn accept(&mut self) -> Option<Result<ServerStream, ConnectionError>> {
        poll_fn(|cx| self.poll_accept(cx)).await
    }

    /// Tells the peer to open no more streams (GOAWAY); streams that are open go on, and the connection ends with them.
    pub fn graceful_shutdown(&mut self) {
        self.driver.core.borrow_mut().announce_farewell();
    }

    /// Ends the connection and all its streams with an error. `last` is the number of the last stream that was served, 0 if none
    /// was: the client may try later ones elsewhere.
    pub fn abrupt_shutdown(&mut self, last: u32, code: ResetCode) {
        self.driver.core.borrow_mut().abrupt_farewell(last, code.value());
    }

    /// Ends this side's direction, behind what was written. To be called when the connection is over, which leaves it to the
    /// owner whether the client has a while to end it first ([`ServerConnection::poll_peer_end`]).
    pub fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.driver.poll_shutdown(cx)
    }

    /// Writes what still waits. Ready when the client ended a connection on which nothing is served any more; what it sends before
    /// is dropped.
    pub fn poll_peer_end(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.driver.poll_peer_end(cx)
    }

    /// Whether any stream is open.
    pub fn has_streams(&self) -> bool {
        self.driver.core.borrow().has_streams()
    }

    /// Pings for keep-alive; can be taken once.
    pub fn take_pinger(&mut self) -> Option<Pinger> {
        std::mem::take(&mut self.has_pinger).then(|| Pinger::new(self.driver.core.clone()))
    }
}

/// A stream that the peer opened.
#[derive(Debug)]
pub struct ServerStream {
    handle: Handle,
}

impl ServerStream {
    /// Reads the request head into `head` (which is cleared first) and hands out the two directions.
    pub fn into_parts(self, head: &mut HeaderMap) -> (RecvBody, Responder) {
        if let Some(received) = self.handle.take_head() {
            let used = std::mem::replace(head, received);
            used.recycle();
        }
        (RecvBody::new(self.handle.clone()), Responder { handle: self.handle })
    }

    /// What counts the bytes of the stream, where a format asks for them.
    pub fn take_meter(&mut self) -> Option<Arc<ByteMeter>> {
        self.handle.core.borrow().stream(self.handle.key).meter.clone()
    }

    /// Fields that the request gives its cookies in; the head has them as one.
    pub fn cookie_crumbs(&self) -> usize {
        self.handle.core.borrow().stream(self.handle.key).crumbs
    }

    /// Number of the stream within its connection.
    pub fn id(&self) -> u32 {
        self.handle.core.borrow().stream(self.handle.key).id
    }
}

/// Answers a request.
#[derive(Debug)]
pub struct Responder {
    handle: Handle,
}

impl Responder {
    /// Sends an informational response (100, 103); the final one follows.
    pub fn send_informational(&mut self, head: &HeaderMap) -> Result<(), StreamError> {
        self.handle.core.borrow_mut().send_response(self.handle.key, head, false)
    }

    /// Sends the response head; `end` when no body follows.
    pub fn send_response(&mut self, head: &HeaderMap, end: bool) -> Result<SendBody, StreamError> {
        self.handle.core.borrow_mut().send_response(self.handle.key, head, end)?;
        Ok(SendBody::new(self.handle.clone()))
    }

    /// Ends the stream with an error.
    pub fn reset(&mut self, code: ResetCode) {
        self.handle.core.borrow_mut().reset_by_owner(self.handle.key, code);
    }

    /// Ready when the peer reset the stream or the connection ended.
    pub fn poll_reset(&mut self, cx: &mut Context<'_>) -> Poll<StreamError> {
        self.handle.core.borrow_mut().poll_reset(self.handle.key, cx)
    }
}
