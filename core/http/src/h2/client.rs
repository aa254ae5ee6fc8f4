//! The client side of a connection.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite};

use super::driver::{Driver, Ending};
use super::shared::{Core, Handle, Key, SharedCore, Side};
use super::{ConnectionError, FrameCounts, Pinger, RecvBody, ResetCode, SendBody, Settings, StreamError};
use crate::{ByteDirection, ByteMeter, HeaderMap};

/// Exchanges settings on a fresh connection: a handle to open streams with, and the connection itself, which someone
/// must poll until it ends.
pub async fn connect<T: AsyncRead + AsyncWrite + Unpin>(
    io: T,
    settings: &Settings,
) -> Result<(Sender, ClientConnection<T>), ConnectionError> {
    let core = Core::new(Side::Client, settings);
    let sender = Sender::new(core.clone());
    let mut driver = Driver::new(io, core);
    poll_fn(|cx| driver.poll_flush(cx)).await.map_err(ConnectionError::Io)?;
    Ok((sender, ClientConnection { driver, has_pinger: true }))
}

/// A connection on which this side opens streams. As a future it moves all frames of all streams and ends with the
/// connection: when the last [`Sender`] and the last stream are gone, or with an error.
#[derive(Debug)]
pub struct ClientConnection<T: AsyncRead + AsyncWrite + Unpin> {
    driver: Driver<T>,
    has_pinger: bool,
}

impl<T: AsyncRead + AsyncWrite + Unpin> ClientConnection<T> {
    /// Pings for keep-alive; can be taken once.
    pub fn take_pinger(&mut self) -> Option<Pinger> {
        std::mem::take(&mut self.has_pinger).then(|| Pinger::new(self.driver.core.clone()))
    }

    /// What passed since the last time.
    pub fn take_counts(&mut self) -> FrameCounts {
        std::mem::take(&mut self.driver.core.borrow_mut().counts)
    }
}

impl<T: AsyncRead + AsyncWrite + Unpin> Future for ClientConnection<T> {
    type Output = Result<(), ConnectionError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        loop {
            match ready!(self.driver.poll(cx)) {
                // A server opens no streams, as it was told.
                Ok(_) => {}
                Err(Ending::Peaceful) => return Poll::Ready(Ok(())),
                Err(Ending::Failed(error)) => return Poll::Ready(Err(error)),
            }
        }
    }
}

/// Opens streams on a connection; cheap to clone.
#[derive(Debug)]
pub struct Sender {
    core: SharedCore,
    /// The stream that this handle opened last.
    last: Option<(Key, u32)>,
}

impl Clone for Sender {
    fn clone(&self) -> Self {
        Self::new(self.core.clone())
    }
}

impl Drop for Sender {
    fn drop(&mut self) {
        let mut core = self.core.borrow_mut();
        core.senders -= 1;
        if core.senders == 0 && !core.has_streams() {
            core.wake_driver();
        }
    }
}

impl Sender {
    fn new(core: SharedCore) -> Self {
        core.borrow_mut().senders += 1;
        Self { core, last: None }
    }

    /// Ready when the last stream of this handle was opened on the wire. An error says that the connection takes no
    /// more streams: it ended, or the peer sent GOAWAY.
    ///
    /// A handle can thus queue one stream above the peer's limit; who must not, counts its streams against
    /// [`Sender::max_concurrent_streams`].
    pub fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), StreamError>> {
        self.core.borrow_mut().poll_opened(self.last, cx)
    }

    /// [`Sender::poll_ready`] as a future.
    pub async fn ready(&mut self) -> Result<(), StreamError> {
        poll_fn(|cx| self.poll_ready(cx)).await
    }

    /// Whether the connection takes no more streams, because it ended or the peer sent GOAWAY. Streams that are open may
    /// still come to their end.
    pub fn is_draining(&self) -> bool {
        self.core.borrow().is_draining()
    }

    /// Streams that the peer allows at a time, before its settings arrive the configured number.
    pub fn max_concurrent_streams(&self) -> usize {
        self.core.borrow().peer_max_streams()
    }

    /// Opens a stream; `end` when the request has no body. Call it after [`Sender::poll_ready`] said so.
    pub fn send_request(
        &mut self,
        head: &HeaderMap,
        end: bool,
    ) -> Result<(PendingResponse, SendBody), StreamError> {
        let opened = self.open(head, end, None)?;
        let handle = opened.1.handle();
        self.last = Some((handle.key, handle.core.borrow().stream(handle.key).serial));
        Ok(opened)
    }

    /// Opens a stream without regard for the one that this handle opened before, and counts the bytes of its frames where there
    /// is a meter.
    pub fn open(
        &self,
        head: &HeaderMap,
        end: bool,
        meter: Option<Arc<ByteMeter>>,
    ) -> Result<(PendingResponse, SendBody), StreamError> {
        if let Some(meter) = &meter {
            meter.on_decompressed(ByteDirection::Sent, head);
        }
        let key = self.core.borrow_mut().open_stream(head, end, meter)?;
        let handle = Handle::new(&self.core, key);
        Ok((PendingResponse { handle: Some(handle.clone()) }, SendBody::new(handle)))
    }
}

/// The response that is to come on a stream.
#[derive(Debug)]
pub struct PendingResponse {
    /// Gone once the body was handed out.
    handle: Option<Handle>,
}

impl PendingResponse {
    /// Waits for an informational response, without giving up the final one; `false` when the final one is next.
    pub fn poll_informational(
        &mut self,
        cx: &mut Context<'_>,
        head: &mut HeaderMap,
    ) -> Poll<Result<bool, StreamError>> {
        match &self.handle {
            Some(handle) => {
                handle.pass_metadata(false);
                handle.core.borrow_mut().poll_interim(handle.key, cx, head)
            }
            None => Poll::Ready(Err(StreamError::LocalReset)),
        }
    }

    /// Waits for the final response: reads its head into `head` (which is cleared first) and hands out its body, once.
    pub fn poll_response(
        &mut self,
        cx: &mut Context<'_>,
        head: &mut HeaderMap,
    ) -> Poll<Result<RecvBody, StreamError>> {
        if let Some(handle) = &self.handle {
            ready!(handle.core.borrow_mut().poll_head(handle.key, cx, head))?;
        }
        Poll::Ready(self.handle.take().map(RecvBody::new).ok_or(StreamError::LocalReset))
    }

    /// [`PendingResponse::poll_response`] as a future.
    pub async fn response(&mut self, head: &mut HeaderMap) -> Result<RecvBody, StreamError> {
        poll_fn(|cx| self.poll_response(cx, head)).await
    }
}

impl Drop for PendingResponse {
    fn drop(&mut self) {
        if let Some(handle) = &self.handle {
            handle.core.borrow_mut().drop_reader(handle.key);
        }
    }
}

impl SendBody {
    /// Ends the stream because its answer is no longer wanted.
    pub fn cancel(&mut self) {
        self.reset(ResetCode::Cancel);
    }
}
