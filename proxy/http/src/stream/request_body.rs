//! The request body as attempts see it: kept while a retry may need it again.

use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use dhow_http::HeaderMap;
use dhow_proxy_api::Protocol;
use dhow_proxy_upstream::WorkerCluster;

use super::body_pipe::BodyPipe;
use super::filtering::{Direction, PART_BYTES, StreamParts};
use crate::body::{BodySource, BodyState};
use crate::body_copy::CopyWriter;
use crate::reset::Reset;

/// What was sent of a request body, for a retry to send again.
#[derive(Debug, Default)]
pub(crate) struct KeptBody {
    bytes: Vec<u8>,
    limit: usize,
    /// Bytes of `bytes` that the current attempt has sent.
    replayed: usize,
    overflowed: bool,
    /// Where copies of it go.
    copies: Vec<CopyWriter>,
    /// Counts it when the body is more than may be kept.
    cluster: Option<Rc<WorkerCluster>>,
}

impl KeptBody {
    /// Keeps up to `limit` bytes (`per_connection_buffer_limit_bytes` of the listener, `request_body_buffer_limit` of the route).
    /// A body of more counts as `retry_or_shadow_abandoned` for the cluster.
    pub(crate) fn with_limit(limit: usize, cluster: Rc<WorkerCluster>) -> Self {
        Self { limit, cluster: Some(cluster), ..Self::default() }
    }

    /// Keeps nothing: the body is only copied.
    pub(crate) fn unkept() -> Self {
        Self { overflowed: true, ..Self::default() }
    }

    /// Sends copies of the body there too.
    pub(crate) fn copy_to(&mut self, copies: Vec<CopyWriter>) {
        self.copies = copies;
    }

    /// Whether the body is copied, and not whole yet.
    pub(crate) fn is_copied(&self) -> bool {
        !self.copies.is_empty()
    }

    /// The body is whole.
    pub(crate) fn finish_copies(&mut self, trailers: Option<&HeaderMap>) {
        self.copies.drain(..).for_each(|copy| copy.finish(trailers));
    }

    /// Bytes that are kept.
    pub(crate) fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Whether a retry is possible: everything sent so far was kept.
    pub(crate) fn can_retry(&self) -> bool {
        !self.overflowed
    }

    /// The next attempt starts from the beginning.
    pub(crate) fn rewind(&mut self) {
        self.replayed = 0;
    }

    /// What comes next is new: nothing of what is kept is to be sent before it.
    fn skip_replay(&mut self) {
        self.replayed = self.bytes.len();
    }

    fn keep(&mut self, bytes: &[u8]) {
        if !self.copies.is_empty() {
            let copied = Bytes::copy_from_slice(bytes);
            self.copies.iter_mut().for_each(|copy| copy.push(&copied));
        }
        if self.overflowed {
            return;
        }
        if self.bytes.len() + bytes.len() > self.limit {
            self.overflowed = true;
            if let Some(cluster) = self.cluster.take() {
                cluster.info().stats.retry_or_shadow_abandoned().inc();
            }
            self.bytes = Vec::new();
            self.replayed = 0;
            return;
        }
        self.bytes.extend_from_slice(bytes);
        self.replayed = self.bytes.len();
    }

    fn rest(&self) -> &[u8] {
        &self.bytes[self.replayed..]
    }
}

/// A request body: first what was kept of it, then what still comes from downstream, through the filters that watch it.
#[derive(Debug)]
pub(crate) struct RequestBody<'a, D> {
    pub(crate) down: &'a mut D,
    pub(crate) kept: Option<&'a mut KeptBody>,
    /// The stream. Body bytes are counted in it as they come from downstream; what is replayed is not counted again.
    pub(crate) stream: StreamParts<'a>,
}

impl<D: BodySource> RequestBody<'_, D> {
    fn replay(&self) -> &[u8] {
        self.kept.as_deref().map_or(&[], KeptBody::rest)
    }

    fn pipe(&self) -> Option<&BodyPipe> {
        self.stream.filters.request_body.as_deref()
    }

    fn attempt_pipe(&self) -> Option<&BodyPipe> {
        self.stream.filters.attempt.as_deref()?.request_body.as_ref()
    }

    fn attempt_pipe_mut(&mut self) -> Option<&mut BodyPipe> {
        self.stream.filters.attempt.as_deref_mut()?.request_body.as_mut()
    }

    /// What comes next that was not kept before.
    fn fresh(&self) -> &[u8] {
        self.pipe().map_or_else(|| self.down.chunk(), BodyPipe::ready)
    }

    fn poll_kept(&mut self, cx: &mut Context<'_>) -> Poll<Result<BodyState, Reset>> {
        if !self.replay().is_empty() {
            return Poll::Ready(Ok(BodyState::Data));
        }
        self.stream.poll_body(cx, self.down, Direction::Request)
    }

    fn kept_chunk(&self) -> &[u8] {
        match self.replay() {
            [] => self.fresh(),
            replay => replay,
        }
    }

    fn consume_kept(&mut self, count: usize) {
        if let Some(kept) = self.kept.as_deref_mut() {
            if !kept.rest().is_empty() {
                kept.replayed += count;
                return;
            }
            match self.stream.filters.request_body.as_deref() {
                Some(pipe) => kept.keep(&pipe.ready()[..count]),
                None => kept.keep(&self.down.chunk()[..count]),
            }
        }
        match self.stream.filters.request_body.as_deref_mut() {
            Some(pipe) => pipe.consume(count),
            None => {
                self.stream.info.bytes_received += count as u64;
                self.down.consume(count);
            }
        }
    }

    fn split_kept(&mut self, max: usize) -> Bytes {
        if self.kept.is_none() {
            if let Some(pipe) = self.stream.filters.request_body.as_deref_mut() {
                return pipe.split(max).freeze();
            }
            let bytes = self.down.split(max);
            self.stream.info.bytes_received += bytes.len() as u64;
            return bytes;
        }
        let count = self.kept_chunk().len().min(max);
        let bytes = Bytes::copy_from_slice(&self.kept_chunk()[..count]);
        self.consume_kept(count);
        bytes
    }

    fn kept_trailers(&self) -> Option<&HeaderMap> {
        self.pipe().map_or_else(|| self.down.trailers(), BodyPipe::trailers)
    }

    /// Drops what has come from downstream, at most about `limit` bytes: the answer does not depend on it.
    pub(crate) fn discard(&mut self, cx: &mut Context<'_>, limit: usize) {
        if let Some(kept) = self.kept.as_deref_mut() {
            kept.skip_replay();
        }
        let mut dropped = 0;
        while dropped <= limit
            && let Poll::Ready(Ok(BodyState::Data)) = self.poll_body(cx)
        {
            let count = self.chunk().len();
            self.consume(count);
            dropped += count;
        }
    }

    /// Keeps what still comes from downstream while no attempt takes it. Ready when that is more than may be kept, or the client is
    /// gone.
    pub(crate) fn poll_keep(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Reset>> {
        if let Some(kept) = self.kept.as_deref_mut() {
            kept.skip_replay();
        }
        while let BodyState::Data = ready!(self.poll_kept(cx))? {
            let count = self.kept_chunk().len();
            self.consume_kept(count);
            if !self.kept.as_deref().is_some_and(KeptBody::can_retry) {
                return Poll::Ready(Ok(()));
            }
        }
        Poll::Pending
    }

    /// Moves the body through the upstream filters until the one that keeps the head of the attempt lets it go.
    pub(crate) fn poll_attempt_released(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Reset>> {
        self.poll_attempt(cx, BodyPipe::last_released)
    }

    #[cold]
    fn poll_attempt(
        &mut self,
        cx: &mut Context<'_>,
        done: impl Fn(&BodyPipe) -> bool,
    ) -> Poll<Result<(), Reset>> {
        let taken =
            self.stream.filters.attempt.as_deref_mut().and_then(|attempt| attempt.request_body.take());
        let Some(mut pipe) = taken else { return Poll::Ready(Ok(())) };
        let polled = self.poll_attempt_pipe(cx, &mut pipe, done);
        if let Some(attempt) = self.stream.filters.attempt.as_deref_mut() {
            attempt.request_body = Some(pipe);
        }
        polled
    }

    fn poll_attempt_pipe(
        &mut self,
        cx: &mut Context<'_>,
        pipe: &mut BodyPipe,
        done: impl Fn(&BodyPipe) -> bool,
    ) -> Poll<Result<(), Reset>> {
        loop {
            ready!(self.stream.poll_advance(cx, pipe, Direction::Request, true))?;
            if done(pipe) {
                return Poll::Ready(Ok(()));
            }
            if !pipe.wants_more() {
                return Poll::Pending;
            }
            let mut state = ready!(self.poll_kept(cx))?;
            if let BodyState::Data = state {
                let data = self.split_kept(PART_BYTES);
                pipe.push(data.into());
                // In HTTP/2 the end comes with the last bytes: filters see them together.
                match self.stream.info.protocol {
                    Some(Protocol::Http2) => match self.poll_kept(cx) {
                        Poll::Ready(next) => state = next?,
                        Poll::Pending => continue,
                    },
                    _ => continue,
                }
            }
            if let BodyState::End = state {
                pipe.finish(self.kept_trailers().cloned());
            }
        }
    }
}

impl<D: BodySource> BodySource for RequestBody<'_, D> {
    fn poll_body(&mut self, cx: &mut Context<'_>) -> Poll<Result<BodyState, Reset>> {
        if self.attempt_pipe().is_none() {
            return self.poll_kept(cx);
        }
        ready!(self.poll_attempt(cx, |pipe| pipe.is_ended() || !pipe.ready().is_empty()))?;
        let any = self.attempt_pipe().is_some_and(|pipe| !pipe.ready().is_empty());
        Poll::Ready(Ok(if any { BodyState::Data } else { BodyState::End }))
    }

    fn chunk(&self) -> &[u8] {
        self.attempt_pipe().map_or_else(|| self.kept_chunk(), BodyPipe::ready)
    }

    fn consume(&mut self, count: usize) {
        match self.attempt_pipe_mut() {
            Some(pipe) => pipe.consume(count),
            None => self.consume_kept(count),
        }
    }

    fn split(&mut self, max: usize) -> Bytes {
        match self.attempt_pipe_mut() {
            Some(pipe) => pipe.split(max).freeze(),
            None => self.split_kept(max),
        }
    }

    fn trailers(&self) -> Option<&HeaderMap> {
        self.attempt_pipe().map_or_else(|| self.kept_trailers(), BodyPipe::trailers)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with_limit(limit: usize) -> KeptBody {
        KeptBody { limit, ..KeptBody::default() }
    }

    /// Sends what is left of ten bytes in parts, keeping them, as an attempt does.
    fn attempt(kept: &mut KeptBody, fresh: &mut &[u8], step: usize) -> Vec<u8> {
        let mut out = Vec::new();
        while !kept.rest().is_empty() {
            let count = kept.rest().len().min(step);
            out.extend_from_slice(&kept.rest()[..count]);
            kept.replayed += count;
        }
        while !fresh.is_empty() {
            let (part, rest) = fresh.split_at(fresh.len().min(step));
            kept.keep(part);
            out.extend_from_slice(part);
            *fresh = rest;
        }
        out
    }

    #[test]
    fn a_retry_sees_the_whole_body_again() {
        let mut kept = with_limit(10);
        kept.keep(b"0123");
        kept.rewind();
        let mut rest = &b"456789"[..];
        assert_eq!(attempt(&mut kept, &mut rest, 3), b"0123456789");
        assert!(kept.can_retry());
        kept.rewind();
        assert_eq!(attempt(&mut kept, &mut &b""[..], 4), b"0123456789");
    }

    #[test]
    fn a_body_above_the_limit_is_passed_on_but_cannot_be_retried() {
        let mut kept = with_limit(9);
        assert_eq!(attempt(&mut kept, &mut &b"0123456789"[..], 6), b"0123456789");
        assert!(!kept.can_retry());
    }
}
