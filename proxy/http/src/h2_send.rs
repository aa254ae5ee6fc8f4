//! The sending direction of an HTTP/2 stream: what the peer's window does not admit yet waits here, up to a limit.

use std::collections::VecDeque;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use dhow_http::HeaderMap;
use dhow_http::h2::SendBody;

use crate::body::BodySource;
use crate::reset::Reset;
use crate::watermarks::{Pressure, Watermarks};

/// What waits to be sent on a stream.
#[derive(Debug)]
pub(crate) struct SendQueue {
    parts: VecDeque<Bytes>,
    waiting: usize,
    marks: Watermarks,
    /// The body is here as a whole: with it its trailers.
    end: Option<Option<Box<HeaderMap>>>,
}

impl SendQueue {
    /// For up to `limit` bytes.
    pub(crate) fn new(limit: u32) -> Self {
        Self { parts: VecDeque::new(), waiting: 0, marks: Watermarks::new(limit), end: None }
    }

    /// Takes bytes from the source: sends them, or keeps them for later where there is room.
    pub(crate) fn poll_write<S: BodySource>(
        &mut self,
        cx: &mut Context<'_>,
        stream: &mut SendBody,
        source: &mut S,
    ) -> Poll<Result<usize, Reset>> {
        if self.poll_drain(cx, stream)?.is_ready()
            && let Poll::Ready(room) = stream.poll_capacity(cx, source.chunk().len())?
        {
            let part = source.split(room);
            let count = part.len();
            stream.send_data(part, false)?;
            return Poll::Ready(Ok(count));
        }
        if !self.marks.has_room(self.waiting) {
            return Poll::Pending;
        }
        let part = source.split(usize::MAX);
        let count = part.len();
        self.waiting += count;
        self.parts.push_back(part);
        Poll::Ready(Ok(count))
    }

    /// Sends what waits, as far as the peer's window goes.
    pub(crate) fn poll_drain(
        &mut self,
        cx: &mut Context<'_>,
        stream: &mut SendBody,
    ) -> Poll<Result<(), Reset>> {
        while let Some(first) = self.parts.front_mut() {
            let room = ready!(stream.poll_capacity(cx, first.len()))?;
            let part = first.split_to(room);
            if first.is_empty() {
                self.parts.pop_front();
            }
            self.waiting -= room;
            self.marks.update(self.waiting);
            stream.send_data(part, false)?;
        }
        Poll::Ready(Ok(()))
    }

    /// Sends what waits and ends the stream. The trailers of the first call count.
    pub(crate) fn poll_finish(
        &mut self,
        cx: &mut Context<'_>,
        stream: &mut SendBody,
        trailers: Option<&HeaderMap>,
    ) -> Poll<Result<(), Reset>> {
        if self.end.is_none() && !self.parts.is_empty() {
            self.end = Some(trailers.cloned().map(Box::new));
        }
        ready!(self.poll_drain(cx, stream))?;
        let kept = self.end.take().flatten();
        match kept.as_deref().or(trailers) {
            Some(trailers) if !trailers.is_empty() => stream.send_trailers(trailers)?,
            _ => stream.send_data(Bytes::new(), true)?,
        }
        Poll::Ready(Ok(()))
    }

    /// Bytes that wait behind the end of the body.
    pub(crate) fn unfinished(&self) -> usize {
        if self.end.is_some() { self.waiting } else { 0 }
    }

    /// Whether so many bytes wait that no more are taken.
    pub(crate) fn is_backed_up(&self) -> bool {
        self.marks.is_above()
    }

    /// What happened to the queue since the last time.
    pub(crate) fn take_pressure(&mut self) -> Pressure {
        self.marks.take_pressure()
    }
}
