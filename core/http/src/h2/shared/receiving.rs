//! What handles take of their streams.

use std::task::{Context, Poll};

use bytes::Bytes;

use super::{Core, Key};
use crate::HeaderMap;
use crate::h2::StreamError;
use crate::h2::frame::kind;
use crate::h2::state::keep_waker;

impl Core {
    /// Takes the head of a request or of the final response.
    pub(in crate::h2) fn poll_head(
        &mut self,
        key: Key,
        cx: &Context<'_>,
        head: &mut HeaderMap,
    ) -> Poll<Result<(), StreamError>> {
        let stream = self.stream_mut(key);
        if let Some(mut received) = stream.head.take() {
            std::mem::swap(head, &mut received);
            received.recycle();
            return Poll::Ready(Ok(()));
        }
        if let Some(error) = &stream.error {
            return Poll::Ready(Err(error.clone()));
        }
        keep_waker(&mut stream.recv_task, cx);
        Poll::Pending
    }

    /// Takes an informational response; `false` when the final one is next.
    pub(in crate::h2) fn poll_interim(
        &mut self,
        key: Key,
        cx: &Context<'_>,
        head: &mut HeaderMap,
    ) -> Poll<Result<bool, StreamError>> {
        let stream = self.stream_mut(key);
        if let Some(mut received) = stream.interim.pop_front() {
            std::mem::swap(head, &mut received);
            received.recycle();
            return Poll::Ready(Ok(true));
        }
        if stream.head_seen {
            return Poll::Ready(Ok(false));
        }
        if let Some(error) = &stream.error {
            return Poll::Ready(Err(error.clone()));
        }
        keep_waker(&mut stream.recv_task, cx);
        Poll::Pending
    }

    pub(in crate::h2) fn poll_data(
        &mut self,
        key: Key,
        cx: &Context<'_>,
    ) -> Poll<Option<Result<Bytes, StreamError>>> {
        let stream = self.stream_mut(key);
        if let Some(data) = stream.data.pop_front() {
            if let Some(metadata) = &mut stream.metadata {
                metadata.on_data_taken();
            }
            return Poll::Ready(Some(Ok(data)));
        }
        if stream.trailers.is_some() {
            return Poll::Ready(None);
        }
        if let Some(error) = &stream.error {
            return Poll::Ready(Some(Err(error.clone())));
        }
        if !stream.recv_open {
            return Poll::Ready(None);
        }
        keep_waker(&mut stream.recv_task, cx);
        Poll::Pending
    }

    pub(in crate::h2) fn poll_trailers(
        &mut self,
        key: Key,
        cx: &Context<'_>,
        trailers: &mut HeaderMap,
    ) -> Poll<Result<bool, StreamError>> {
        let stream = self.stream_mut(key);
        if let Some(mut received) = stream.trailers.take() {
            std::mem::swap(trailers, &mut received);
            received.recycle();
            return Poll::Ready(Ok(true));
        }
        if let Some(error) = &stream.error {
            return Poll::Ready(Err(error.clone()));
        }
        if !stream.recv_open {
            return Poll::Ready(Ok(false));
        }
        keep_waker(&mut stream.recv_task, cx);
        Poll::Pending
    }

    /// Whether nothing more is to be read of a stream.
    pub(in crate::h2) fn is_received(&self, key: Key) -> bool {
        let stream = self.stream(key);
        let is_whole = !stream.recv_open && (stream.error.is_none() || stream.was_whole);
        let has_metadata = stream.metadata.as_ref().is_some_and(|metadata| metadata.is_due());
        is_whole && stream.data.is_empty() && stream.trailers.is_none() && !has_metadata
    }

    /// Bytes of a stream are no longer held: the peer may send as many again, and is told once it is worth a frame.
    pub(in crate::h2) fn release(&mut self, key: Key, bytes: usize) {
        let half = self.settings.stream_window / 2;
        let stream = self.stream_mut(key);
        let bytes = bytes.min(stream.held);
        stream.held -= bytes;
        if stream.recv_open {
            stream.released += bytes as u32;
            if stream.released > 0 && stream.released >= half {
                let (id, released) = (stream.id, std::mem::take(&mut stream.released));
                stream.recv_window += i64::from(released);
                self.out.frame(kind::WINDOW_UPDATE, 0, id, &released.to_be_bytes());
                self.wake_driver();
            }
        }
        self.release_connection(bytes);
    }

    pub(in crate::h2) fn release_connection(&mut self, bytes: usize) {
        self.released += bytes as u32;
        if self.released > 0 && self.released >= self.settings.connection_window / 2 && self.ended.is_none() {
            let released = std::mem::take(&mut self.released);
            self.recv_window += i64::from(released);
            self.out.frame(kind::WINDOW_UPDATE, 0, 0, &released.to_be_bytes());
            self.wake_driver();
        }
    }

    /// Queues a stream that the peer opened for the owner.
    pub(in crate::h2) fn push_accepted(&mut self, key: Key) {
        self.accepted.push_back(key);
    }

    /// Streams that wait for the owner.
    pub(in crate::h2) fn accepted(&self) -> usize {
        self.accepted.len()
    }

    /// The next stream that the peer opened.
    pub(in crate::h2) fn pop_accepted(&mut self) -> Option<Key> {
        self.accepted.pop_front()
    }
}
