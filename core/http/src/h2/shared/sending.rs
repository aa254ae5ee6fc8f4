//! What handles send, and how far the peer's windows let it.

use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;

use super::{Core, Key};
use crate::h2::StreamError;
use crate::h2::frame::{HEAD_LENGTH, MAX_WINDOW};
use crate::h2::head::{self, HeadKind};
use crate::h2::state::{QueuedEnd, keep_waker};
use crate::{ByteDirection, ByteKind, ByteMeter, HeaderMap};

impl Core {
    /// Opens a stream, or queues it until the peer takes it.
    pub(in crate::h2) fn open_stream(
        &mut self,
        head: &HeaderMap,
        end: bool,
        meter: Option<Arc<ByteMeter>>,
    ) -> Result<Key, StreamError> {
        if let Some(error) = &self.ended {
            return Err(error.clone());
        }
        if self.peer_farewell.is_some() {
            return Err(StreamError::RemoteRefused);
        }
        head::check(head, HeadKind::Request)?;
        let key = self.insert(0);
        let stream = self.stream_mut(key);
        stream.to_head = head.method() == b"HEAD";
        stream.meter = meter;
        stream.send_open = !end;
        if self.unopened.is_empty() && self.open < self.peer_max_streams {
            self.open_now(key, head, end);
        } else {
            let stream = self.stream_mut(key);
            stream.unopened = Some((Box::new(head.clone()), end));
            let serial = stream.serial;
            self.unopened.push_back((key, serial));
        }
        Ok(key)
    }

    fn open_now(&mut self, key: Key, head: &HeaderMap, end: bool) {
        let id = self.next_id;
        self.next_id += 2;
        self.ids.insert(id, key);
        let window = self.peer_window;
        let stream = self.stream_mut(key);
        (stream.id, stream.send_window) = (id, window);
        self.count_open(key);
        self.watch.opened += 1;
        self.write_head(key, head, HeadKind::Request, end);
    }

    /// Opens streams that waited, as far as the peer takes them.
    pub(in crate::h2) fn open_waiting(&mut self) {
        while self.open < self.peer_max_streams
            && let Some((key, serial)) = self.unopened.pop_front()
        {
            if self.stream(key).serial != serial {
                continue;
            }
            let Some((head, end)) = self.stream_mut(key).unopened.take() else { continue };
            self.open_now(key, &head, end);
            self.send_unsent_metadata(key);
            self.send_queued(key);
        }
        self.open_tasks.drain(..).for_each(Waker::wake);
    }

    /// Ready when the stream at this place was opened, or is gone.
    pub(in crate::h2) fn poll_opened(
        &mut self,
        last: Option<(Key, u32)>,
        cx: &Context<'_>,
    ) -> Poll<Result<(), StreamError>> {
        if let Some(error) = &self.ended {
            return Poll::Ready(Err(error.clone()));
        }
        if self.peer_farewell.is_some() {
            return Poll::Ready(Err(StreamError::RemoteRefused));
        }
        let waits = last.is_some_and(|(key, serial)| {
            self.streams.get(key as usize).is_some_and(|s| s.serial == serial && s.unopened.is_some())
        });
        if !waits {
            return Poll::Ready(Ok(()));
        }
        self.open_tasks.push(cx.waker().clone());
        Poll::Pending
    }

    /// Whether no more streams can be opened.
    pub(in crate::h2) fn is_draining(&self) -> bool {
        self.ended.is_some() || self.peer_farewell.is_some()
    }

    fn write_head(&mut self, key: Key, head: &HeaderMap, head_kind: HeadKind, end: bool) {
        let id = self.stream(key).id;
        let bytes = self.out.head(id, end, self.peer_max_payload, &mut self.encoder, |encoder, out| {
            head::write(head, head_kind, encoder, out);
        });
        self.meter(key, bytes, ByteDirection::Sent, true);
        self.wake_driver();
    }

    /// Counts the bytes of a frame.
    pub(in crate::h2) fn meter(&self, key: Key, bytes: usize, direction: ByteDirection, of_head: bool) {
        if let Some(meter) = &self.stream(key).meter {
            meter.add(ByteKind::Wire, direction, bytes);
            if of_head {
                meter.add(ByteKind::Header, direction, bytes);
            }
        }
    }

    /// Sends a response head; `end` when no body follows.
    pub(in crate::h2) fn send_response(
        &mut self,
        key: Key,
        head: &HeaderMap,
        end: bool,
    ) -> Result<(), StreamError> {
        self.can_send(key)?;
        head::check(head, HeadKind::Response)?;
        self.write_head(key, head, HeadKind::Response, end);
        if end {
            self.stream_mut(key).send_open = false;
            self.settle(key);
        }
        Ok(())
    }

    fn can_send(&self, key: Key) -> Result<(), StreamError> {
        let stream = self.stream(key);
        match &stream.error {
            Some(error) => Err(error.clone()),
            None if !stream.send_open => Err(StreamError::LocalReset),
            None => Ok(()),
        }
    }

    /// Bytes that may wait for the connection to write them before streams are told to stop.
    fn room(&self) -> usize {
        self.settings.send_buffer.saturating_sub(self.out.len())
    }

    /// How many bytes of a stream could be sent at once.
    fn capacity(&self, key: Key) -> usize {
        let stream = self.stream(key);
        if stream.unopened.is_some() || !stream.queue.is_empty() {
            return 0;
        }
        let window = stream.send_window.min(self.send_window).max(0) as usize;
        window.min(self.room())
    }

    pub(in crate::h2) fn poll_capacity(
        &mut self,
        key: Key,
        cx: &Context<'_>,
        wanted: usize,
    ) -> Poll<Result<usize, StreamError>> {
        self.can_send(key)?;
        if wanted == 0 {
            return Poll::Ready(Ok(0));
        }
        let capacity = self.capacity(key);
        if capacity > 0 {
            return Poll::Ready(Ok(capacity.min(wanted)));
        }
        self.wait(key);
        keep_waker(&mut self.stream_mut(key).send_task, cx);
        Poll::Pending
    }

    /// Notes that a stream is held up by the connection, if it is.
    fn wait(&mut self, key: Key) {
        let held_up = self.send_window <= 0 || self.room() == 0;
        let stream = &mut self.streams[key as usize];
        if held_up && !std::mem::replace(&mut stream.waiting, true) {
            self.waiting.push_back((key, stream.serial));
        }
    }

    /// Lets the streams go on that the connection held up, one after the other.
    pub(in crate::h2) fn resume_waiting(&mut self) {
        if self.waiting.is_empty() || self.send_window <= 0 || self.room() == 0 {
            return;
        }
        for (key, serial) in std::mem::take(&mut self.waiting) {
            let stream = &mut self.streams[key as usize];
            if stream.serial == serial {
                stream.waiting = false;
                stream.wake_sender();
                self.send_queued(key);
            }
        }
    }

    /// Queues data, `end` with the last. What the windows do not admit waits.
    pub(in crate::h2) fn send_data(&mut self, key: Key, data: Bytes, end: bool) -> Result<(), StreamError> {
        self.can_send(key)?;
        let stream = self.stream_mut(key);
        if end {
            stream.send_open = false;
        }
        if stream.queue.is_empty() && stream.unopened.is_none() {
            let window = stream.send_window.min(self.send_window);
            if data.is_empty() || data.len() as i64 <= window {
                self.write_data(key, data, end);
                self.settle(key);
                return Ok(());
            }
        }
        let stream = self.stream_mut(key);
        if !data.is_empty() {
            stream.queue.push_back(data);
        }
        if end {
            stream.queued_end = Some(QueuedEnd::Data);
        }
        self.send_queued(key);
        Ok(())
    }

    /// Queues the trailers, which end the stream.
    pub(in crate::h2) fn send_trailers(&mut self, key: Key, trailers: &HeaderMap) -> Result<(), StreamError> {
        self.can_send(key)?;
        head::check(trailers, HeadKind::Trailers)?;
        let stream = self.stream_mut(key);
        stream.send_open = false;
        if stream.queue.is_empty() && stream.unopened.is_none() {
            self.write_head(key, trailers, HeadKind::Trailers, true);
            self.settle(key);
        } else {
            stream.queued_end = Some(QueuedEnd::Trailers(Box::new(trailers.clone())));
        }
        Ok(())
    }

    /// Writes data that the windows admit.
    fn write_data(&mut self, key: Key, mut data: Bytes, end: bool) {
        let max = self.peer_max_payload;
        let id = self.stream(key).id;
        self.stream_mut(key).send_window -= data.len() as i64;
        self.send_window -= data.len() as i64;
        self.wake_driver();
        if data.is_empty() && end && self.out.end_last_data(id) {
            return;
        }
        loop {
            let part = if data.len() > max { data.split_to(max) } else { std::mem::take(&mut data) };
            self.meter(key, HEAD_LENGTH + part.len(), ByteDirection::Sent, false);
            self.watch.data_sent += 1;
            self.out.data(id, part, end && data.is_empty());
            if data.is_empty() {
                return;
            }
        }
    }

    /// Sends what waits on a stream as far as the windows go.
    pub(in crate::h2) fn send_queued(&mut self, key: Key) {
        if self.stream(key).unopened.is_some() {
            return;
        }
        loop {
            let connection = self.send_window;
            let room = self.room();
            let stream = self.stream_mut(key);
            let Some(first) = stream.queue.front_mut() else { break };
            let window = stream.send_window.min(connection).max(0) as usize;
            let count = first.len().min(window).min(room);
            if count == 0 {
                self.wait(key);
                return;
            }
            let part = first.split_to(count);
            if first.is_empty() {
                stream.queue.pop_front();
            }
            let last = stream.queue.is_empty() && matches!(stream.queued_end, Some(QueuedEnd::Data));
            if last {
                stream.queued_end = None;
            }
            self.write_data(key, part, last);
        }
        match self.stream_mut(key).queued_end.take() {
            Some(QueuedEnd::Data) => self.write_data(key, Bytes::new(), true),
            Some(QueuedEnd::Trailers(trailers)) => self.write_head(key, &trailers, HeadKind::Trailers, true),
            None => {}
        }
        if self.stream(key).is_sent()
            && let Some(code) = self.stream_mut(key).reset_behind.take()
        {
            self.reset(key, code, StreamError::LocalReset);
            return;
        }
        self.settle(key);
    }

    /// The peer lets more be sent on a stream; `false` when that is more than there may be.
    pub(in crate::h2) fn on_stream_window(&mut self, key: Key, more: u32) -> bool {
        let stream = self.stream_mut(key);
        stream.send_window += i64::from(more);
        if stream.send_window > MAX_WINDOW {
            return false;
        }
        stream.wake_sender();
        self.send_queued(key);
        true
    }

    /// The peer lets more be sent on the connection; `false` when that is more than there may be.
    pub(in crate::h2) fn on_connection_window(&mut self, more: u32) -> bool {
        self.send_window += i64::from(more);
        if self.send_window > MAX_WINDOW {
            return false;
        }
        self.resume_waiting();
        true
    }
}
