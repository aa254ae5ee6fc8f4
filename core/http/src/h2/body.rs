//! The two directions of a stream's body.

use std::future::poll_fn;
use std::task::{Context, Poll};

use bytes::Bytes;

use super::shared::Handle;
use super::{MetadataPort, ResetCode, StreamError};
use crate::HeaderMap;

/// The direction that this side receives.
#[derive(Debug)]
pub struct RecvBody {
    handle: Handle,
}

impl RecvBody {
    pub(super) fn new(handle: Handle) -> Self {
        Self { handle }
    }

    /// The next data, `None` behind the last. The peer may send as much again only after [`RecvBody::release`].
    pub fn poll_data(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, StreamError>>> {
        self.handle.pass_metadata(true);
        self.handle.core.borrow_mut().poll_data(self.handle.key, cx)
    }

    /// Gives flow-control credit back: this many of the received bytes are no longer held here.
    pub fn release(&mut self, bytes: usize) {
        self.handle.core.borrow_mut().release(self.handle.key, bytes);
    }

    /// The trailers, to be asked for behind the last data; tells whether there are any.
    pub fn poll_trailers(
        &mut self,
        cx: &mut Context<'_>,
        trailers: &mut HeaderMap,
    ) -> Poll<Result<bool, StreamError>> {
        self.handle.core.borrow_mut().poll_trailers(self.handle.key, cx, trailers)
    }

    /// Whether it is known that nothing more comes, neither data nor trailers.
    pub fn is_end(&self) -> bool {
        self.handle.core.borrow().is_received(self.handle.key)
    }

    /// The stream's metadata, where the connection has any.
    pub fn metadata_port(&self) -> Option<MetadataPort> {
        MetadataPort::new(&self.handle.core, self.handle.key)
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

impl Drop for RecvBody {
    fn drop(&mut self) {
        self.handle.core.borrow_mut().drop_reader(self.handle.key);
    }
}

/// The direction that this side sends.
#[derive(Debug)]
pub struct SendBody {
    handle: Handle,
}

impl SendBody {
    pub(super) fn new(handle: Handle) -> Self {
        Self { handle }
    }

    pub(super) fn handle(&self) -> &Handle {
        &self.handle
    }

    /// The stream's metadata, where the connection has any.
    pub fn metadata_port(&self) -> Option<MetadataPort> {
        MetadataPort::new(&self.handle.core, self.handle.key)
    }

    /// Waits until at least one of `wanted` bytes can be sent at once, and tells how many can.
    ///
    /// [`SendBody::send_data`] takes more than that and keeps it; to follow the peer's pace, send no more than this.
    pub fn poll_capacity(&mut self, cx: &mut Context<'_>, wanted: usize) -> Poll<Result<usize, StreamError>> {
        self.handle.core.borrow_mut().poll_capacity(self.handle.key, cx, wanted)
    }

    /// Queues data, `end` with the last.
    pub fn send_data(&mut self, data: Bytes, end: bool) -> Result<(), StreamError> {
        self.handle.core.borrow_mut().send_data(self.handle.key, data, end)
    }

    /// Queues the trailers, which end the stream.
    pub fn send_trailers(&mut self, trailers: &HeaderMap) -> Result<(), StreamError> {
        self.handle.core.borrow_mut().send_trailers(self.handle.key, trailers)
    }

    /// Ends the stream in both directions with an error.
    pub fn reset(&mut self, code: ResetCode) {
        self.handle.core.borrow_mut().reset_by_owner(self.handle.key, code);
    }

    /// Ready when the peer reset the stream or the connection ended.
    pub fn poll_reset(&mut self, cx: &mut Context<'_>) -> Poll<StreamError> {
        self.handle.core.borrow_mut().poll_reset(self.handle.key, cx)
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
