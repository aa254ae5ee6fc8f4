//! A copy of a body on its way: what one stream consumes, another one sends.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use bytes::{Buf, Bytes};
use dhow_http::HeaderMap;

use crate::body::{BodySource, BodyState};
use crate::reset::{Reset, ResetKind};

/// How the original body ended.
#[derive(Debug)]
enum End {
    Whole(Option<HeaderMap>),
    Broken,
}

#[derive(Debug, Default)]
struct Shared {
    queue: VecDeque<Bytes>,
    queued: usize,
    end: Option<End>,
    waker: Option<Waker>,
}

impl Shared {
    fn finish(&mut self, end: End) {
        if self.end.is_none() {
            self.end = Some(end);
        }
        self.waker.take().into_iter().for_each(Waker::wake);
    }
}

/// Where the bytes of the original go in. Dropped before the end, the copy breaks off.
#[derive(Debug)]
pub(crate) struct CopyWriter {
    shared: Rc<RefCell<Shared>>,
    /// Bytes that may wait for the copy's receiver; with more the copy is given up.
    limit: usize,
}

/// Where the bytes of the copy come out.
#[derive(Debug)]
pub(crate) struct CopyReader {
    shared: Rc<RefCell<Shared>>,
    chunk: Bytes,
    trailers: Option<HeaderMap>,
}

/// Both ends of a copy.
pub(crate) fn copy(limit: usize) -> (CopyWriter, CopyReader) {
    let shared = Rc::<RefCell<Shared>>::default();
    let reader = CopyReader { shared: shared.clone(), chunk: Bytes::new(), trailers: None };
    (CopyWriter { shared, limit }, reader)
}

impl CopyWriter {
    /// Appends bytes.
    pub(crate) fn push(&mut self, bytes: &Bytes) {
        let mut shared = self.shared.borrow_mut();
        if shared.end.is_some() {
            return;
        }
        if shared.queued + bytes.len() > self.limit {
            shared.queue.clear();
            shared.finish(End::Broken);
            return;
        }
        shared.queued += bytes.len();
        shared.queue.push_back(bytes.clone());
        shared.waker.take().into_iter().for_each(Waker::wake);
    }

    /// The original is complete.
    pub(crate) fn finish(self, trailers: Option<&HeaderMap>) {
        self.shared.borrow_mut().finish(End::Whole(trailers.cloned()));
    }
}

impl Drop for CopyWriter {
    fn drop(&mut self) {
        self.shared.borrow_mut().finish(End::Broken);
    }
}

impl BodySource for CopyReader {
    fn poll_body(&mut self, cx: &mut Context<'_>) -> Poll<Result<BodyState, Reset>> {
        if !self.chunk.is_empty() {
            return Poll::Ready(Ok(BodyState::Data));
        }
        let mut shared = self.shared.borrow_mut();
        while let Some(bytes) = shared.queue.pop_front() {
            shared.queued -= bytes.len();
            if !bytes.is_empty() {
                self.chunk = bytes;
                return Poll::Ready(Ok(BodyState::Data));
            }
        }
        match &mut shared.end {
            Some(End::Whole(trailers)) => {
                if let Some(trailers) = trailers.take() {
                    self.trailers = Some(trailers);
                }
                Poll::Ready(Ok(BodyState::End))
            }
            Some(End::Broken) => Poll::Ready(Err(Reset::new(ResetKind::LocalReset))),
            None => {
                shared.waker = Some(cx.waker().clone());
                Poll::Pending
            }
        }
    }

    fn chunk(&self) -> &[u8] {
        &self.chunk
    }

    fn consume(&mut self, count: usize) {
        self.chunk.advance(count);
    }

    fn trailers(&self) -> Option<&HeaderMap> {
        self.trailers.as_ref()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn poll(reader: &mut CopyReader) -> Poll<Option<BodyState>> {
        reader.poll_body(&mut Context::from_waker(Waker::noop())).map(Result::ok)
    }

    #[test]
    fn a_copy_has_what_the_original_had() {
        let (mut writer, mut reader) = copy(10);
        assert_eq!(poll(&mut reader), Poll::Pending);
        writer.push(&Bytes::from_static(b"hello"));
        assert_eq!(poll(&mut reader), Poll::Ready(Some(BodyState::Data)));
        reader.consume(2);
        assert_eq!(reader.chunk(), b"llo");
        reader.consume(3);
        let mut trailers = HeaderMap::new();
        trailers.append(b"x-t", b"1");
        writer.finish(Some(&trailers));
        assert_eq!(poll(&mut reader), Poll::Ready(Some(BodyState::End)));
        assert!(reader.trailers().is_some());
    }

    #[test]
    fn a_copy_breaks_off_with_its_original_and_when_nobody_takes_it() {
        let (mut writer, mut reader) = copy(10);
        writer.push(&Bytes::from_static(b"hello"));
        writer.push(&Bytes::from_static(b"world!"));
        assert_eq!(poll(&mut reader), Poll::Ready(None));
        let (writer, mut reader) = copy(10);
        drop(writer);
        assert_eq!(poll(&mut reader), Poll::Ready(None));
    }
}
