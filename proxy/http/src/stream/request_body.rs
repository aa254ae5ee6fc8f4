//! The request body as attempts see it: kept while a retry may need it again.

use std::task::{Context, Poll, ready};

use bytes::Bytes;
use dhow_http::HeaderMap;

use crate::body::{BodySource, BodyState};
use crate::reset::Reset;

/// What was sent of a request body, for a retry to send again.
#[derive(Debug, Default)]
pub(crate) struct KeptBody {
    bytes: Vec<u8>,
    limit: usize,
    /// Bytes of `bytes` that the current attempt has sent.
    replayed: usize,
    overflowed: bool,
}

impl KeptBody {
    /// Keeps up to `limit` bytes (`per_connection_buffer_limit_bytes`).
    pub(crate) fn with_limit(limit: usize) -> Self {
        Self { limit, ..Self::default() }
    }

    /// Whether a retry is possible: everything sent so far was kept.
    pub(crate) fn can_retry(&self) -> bool {
        !self.overflowed
    }

    /// The next attempt starts from the beginning.
    pub(crate) fn rewind(&mut self) {
        self.replayed = 0;
    }

    fn keep(&mut self, bytes: &[u8]) {
        if self.overflowed {
            return;
        }
        if self.bytes.len() + bytes.len() > self.limit {
            self.overflowed = true;
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

/// A request body: first what was kept of it, then what still comes from downstream.
#[derive(Debug)]
pub(crate) struct RequestBody<'a, D> {
    pub(crate) down: &'a mut D,
    pub(crate) kept: Option<&'a mut KeptBody>,
    /// Counts body bytes as they come from downstream; what is replayed is not counted again.
    pub(crate) received: &'a mut u64,
}

impl<D: BodySource> RequestBody<'_, D> {
    fn replay(&self) -> &[u8] {
        self.kept.as_deref().map_or(&[], KeptBody::rest)
    }
}

impl<D: BodySource> BodySource for RequestBody<'_, D> {
    fn poll_body(&mut self, cx: &mut Context<'_>) -> Poll<Result<BodyState, Reset>> {
        if !self.replay().is_empty() {
            return Poll::Ready(Ok(BodyState::Data));
        }
        Poll::Ready(ready!(self.down.poll_body(cx)))
    }

    fn chunk(&self) -> &[u8] {
        match self.replay() {
            [] => self.down.chunk(),
            replay => replay,
        }
    }

    fn consume(&mut self, count: usize) {
        if let Some(kept) = self.kept.as_deref_mut() {
            if !kept.rest().is_empty() {
                kept.replayed += count;
                return;
            }
            kept.keep(&self.down.chunk()[..count]);
        }
        *self.received += count as u64;
        self.down.consume(count);
    }

    fn split(&mut self, max: usize) -> Bytes {
        if self.kept.is_none() {
            let bytes = self.down.split(max);
            *self.received += bytes.len() as u64;
            return bytes;
        }
        let count = self.chunk().len().min(max);
        let bytes = Bytes::copy_from_slice(&self.chunk()[..count]);
        self.consume(count);
        bytes
    }

    fn trailers(&self) -> Option<&HeaderMap> {
        self.down.trailers()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::body::BufferedBody;

    fn drain<D: BodySource>(body: &mut RequestBody<'_, D>, step: usize) -> Vec<u8> {
        let mut cx = Context::from_waker(std::task::Waker::noop());
        let mut out = Vec::new();
        while let Poll::Ready(Ok(BodyState::Data)) = body.poll_body(&mut cx) {
            let count = body.chunk().len().min(step);
            out.extend_from_slice(&body.chunk()[..count]);
            body.consume(count);
        }
        out
    }

    #[test]
    fn a_retry_sees_the_whole_body_again() {
        let mut down = BufferedBody::new(b"0123456789", None);
        let mut kept = KeptBody::with_limit(10);
        let mut received = 0;
        let mut cx = Context::from_waker(std::task::Waker::noop());
        let mut first = RequestBody { down: &mut down, kept: Some(&mut kept), received: &mut received };
        assert!(first.poll_body(&mut cx).is_ready());
        first.consume(4);
        kept.rewind();
        let mut second = RequestBody { down: &mut down, kept: Some(&mut kept), received: &mut received };
        assert_eq!(drain(&mut second, 3), b"0123456789");
        assert_eq!(received, 10);
        assert!(kept.can_retry());
    }

    #[test]
    fn a_body_above_the_limit_is_passed_on_but_cannot_be_retried() {
        let mut down = BufferedBody::new(b"0123456789", None);
        let mut kept = KeptBody::with_limit(9);
        let mut received = 0;
        let mut body = RequestBody { down: &mut down, kept: Some(&mut kept), received: &mut received };
        assert_eq!(drain(&mut body, 6), b"0123456789");
        assert!(!kept.can_retry());
    }
}
