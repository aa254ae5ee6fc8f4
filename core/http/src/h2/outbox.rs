//! Frames on their way to the peer. Those of one turn of the event loop leave with one write.

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use tokio::io::AsyncWrite;

use super::frame::{FrameHead, HEAD_LENGTH, flag, kind};
use super::hpack::Encoder;
use super::pool;

/// Data of more bytes than this is not copied behind what waits before it.
const COPY_LIMIT: usize = 4 * 1024;
/// A buffer that grew beyond this is given back once it is empty.
const KEEP_LIMIT: usize = 64 * 1024;
/// Slices of one vectored write.
const MAX_SLICES: usize = 16;

/// What waits to be written.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    /// What stands in front of `tail`.
    pieces: VecDeque<Bytes>,
    tail: Vec<u8>,
    /// Bytes of the first piece, or of the tail, that were written.
    written: usize,
    len: usize,
    /// The stream of the last DATA frame and where in the tail it is, while it is the last of its stream.
    last_data: Option<(u32, usize)>,
    /// Frames that answer frames, and wait.
    control: u32,
    /// Frames that wait.
    frames: u32,
    /// Bytes of the first of them that wait, when others of it were written; what stands in front of the first frame too.
    rest_of_first: usize,
}

impl Outbox {
    /// Bytes that wait.
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// Frames that wait and only answer what the peer sent.
    pub(super) fn control_frames(&self) -> u32 {
        self.control
    }

    /// Frames that wait, of any kind.
    pub(super) fn frames(&self) -> u32 {
        self.frames
    }

    /// Queues what a client says before its first frame.
    pub(super) fn preface(&mut self, bytes: &[u8]) {
        self.rest_of_first = bytes.len();
        self.raw(bytes);
        // It passes like a frame.
        self.frames += 1;
    }

    fn raw(&mut self, bytes: &[u8]) {
        self.ensure_room();
        self.tail.extend_from_slice(bytes);
        self.len += bytes.len();
    }

    /// Queues a frame; gives its length.
    pub(super) fn frame(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) -> usize {
        let head = FrameHead { length: payload.len(), kind, flags, stream };
        self.frames += 1;
        self.raw(&head.to_bytes());
        self.raw(payload);
        head.total()
    }

    /// Queues a frame that answers one of the peer.
    pub(super) fn answer(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
        self.control += 1;
        self.frame(kind, flags, stream, payload);
    }

    /// Queues a DATA frame.
    pub(super) fn data(&mut self, stream: u32, data: Bytes, end: bool) {
        let flags = if end { flag::END_STREAM } else { 0 };
        let head = FrameHead { length: data.len(), kind: kind::DATA, flags, stream };
        self.last_data = None;
        self.frames += 1;
        let at = self.tail.len();
        self.raw(&head.to_bytes());
        if data.len() > COPY_LIMIT {
            self.len += data.len();
            self.pieces.push_back(Bytes::from(std::mem::take(&mut self.tail)));
            self.pieces.push_back(data);
        } else {
            self.raw(&data);
            self.last_data = (!data.is_empty()).then_some((stream, at));
        }
    }

    /// Marks the last DATA frame of a stream as its end, if it still waits and is at hand.
    pub(super) fn end_last_data(&mut self, stream: u32) -> bool {
        let Some((last, at)) = self.last_data else { return false };
        if last != stream {
            return false;
        }
        self.last_data = None;
        self.tail[at + 4] |= flag::END_STREAM;
        true
    }

    /// Queues a head or trailers, in as many frames as the peer's limit asks for; gives their length.
    pub(super) fn head(
        &mut self,
        stream: u32,
        end: bool,
        max_payload: usize,
        encoder: &mut Encoder,
        write_fields: impl FnOnce(&mut Encoder, &mut Vec<u8>),
    ) -> usize {
        self.ensure_room();
        let at = self.tail.len();
        self.tail.extend_from_slice(&[0; HEAD_LENGTH]);
        encoder.begin(&mut self.tail);
        write_fields(encoder, &mut self.tail);
        let length = self.tail.len() - at - HEAD_LENGTH;
        let ends = if end { flag::END_STREAM } else { 0 };
        if length <= max_payload {
            let head = FrameHead { length, kind: kind::HEADERS, flags: ends | flag::END_HEADERS, stream };
            self.tail[at..at + HEAD_LENGTH].copy_from_slice(&head.to_bytes());
            self.len += head.total();
            self.frames += 1;
            return head.total();
        }
        let block = self.tail.split_off(at + HEAD_LENGTH);
        self.tail.truncate(at);
        let mut total = 0;
        let mut chunks = block.chunks(max_payload).peekable();
        while let Some(chunk) = chunks.next() {
            let (kind, flags) = if total == 0 { (kind::HEADERS, ends) } else { (kind::CONTINUATION, 0) };
            let last = if chunks.peek().is_none() { flag::END_HEADERS } else { 0 };
            total += self.frame(kind, flags | last, stream, chunk);
        }
        total
    }

    /// Writes what waits.
    pub(super) fn poll_write<T: AsyncWrite + Unpin>(
        &mut self,
        cx: &mut Context<'_>,
        io: &mut T,
    ) -> Poll<io::Result<()>> {
        self.last_data = None;
        while self.len > 0 {
            let count = if self.pieces.is_empty() {
                ready!(Pin::new(&mut *io).poll_write(cx, &self.tail[self.written..]))?
            } else {
                let mut slices = [IoSlice::new(&[]); MAX_SLICES];
                let mut used = 0;
                for piece in self.pieces.iter().map(|piece| &piece[..]).chain([&self.tail[..]]) {
                    if used == MAX_SLICES {
                        break;
                    }
                    let from = if used == 0 { self.written } else { 0 };
                    slices[used] = IoSlice::new(&piece[from..]);
                    used += 1;
                }
                ready!(Pin::new(&mut *io).poll_write_vectored(cx, &slices[..used]))?
            };
            if count == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.advance(count);
        }
        Pin::new(io).poll_flush(cx)
    }

    fn advance(&mut self, count: usize) {
        if count == self.len {
            (self.frames, self.control, self.rest_of_first) = (0, 0, 0);
        } else {
            self.pass_frames(count);
        }
        self.len -= count;
        let mut left = self.written + count;
        while let Some(first) = self.pieces.front() {
            if left < first.len() {
                self.written = left;
                return;
            }
            left -= first.len();
            self.pieces.pop_front();
        }
        if left >= KEEP_LIMIT && left < self.tail.len() {
            // A peer that reads slowly may never let all of it leave.
            self.tail.drain(..left);
            left = 0;
        }
        self.written = left;
        if self.len == 0 {
            self.written = 0;
            self.tail.clear();
            if self.tail.capacity() > KEEP_LIMIT {
                self.tail = Vec::new();
            }
        }
    }

    /// Counts the frames that leave with the next bytes, when others stay.
    fn pass_frames(&mut self, count: usize) {
        let mut next = self.rest_of_first;
        let mut passed = u32::from(next > 0 && next <= count);
        while next < count
            && let Some(head) = self.head_at(next)
        {
            next += head.total();
            passed += u32::from(next <= count);
        }
        self.rest_of_first = next - count;
        self.frames -= passed;
    }

    /// The frame that begins so many bytes behind those that were written. A head is never in two pieces.
    fn head_at(&self, at: usize) -> Option<FrameHead> {
        let mut at = self.written + at;
        for piece in self.pieces.iter().map(|piece| &piece[..]).chain([&self.tail[..]]) {
            if at < piece.len() {
                return piece[at..].first_chunk().map(FrameHead::parse);
            }
            at -= piece.len();
        }
        None
    }

    fn ensure_room(&mut self) {
        if self.tail.capacity() == 0 {
            self.tail = pool::take_write();
        }
    }

    /// Gives memory back that an idle connection does not need.
    pub(super) fn shrink(&mut self) {
        if self.len == 0 {
            pool::give_write(std::mem::take(&mut self.tail));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::task::Waker;

    /// A transport that takes so many bytes and then none.
    struct Slow(usize);

    impl AsyncWrite for Slow {
        fn poll_write(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
            bytes: &[u8],
        ) -> Poll<io::Result<usize>> {
            let count = bytes.len().min(self.0);
            self.0 -= count;
            if count == 0 { Poll::Pending } else { Poll::Ready(Ok(count)) }
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    fn write(out: &mut Outbox, bytes: usize) {
        let _ = out.poll_write(&mut Context::from_waker(Waker::noop()), &mut Slow(bytes));
    }

    #[test]
    fn frames_are_counted_until_their_last_byte_has_left() {
        let mut out = Outbox::default();
        out.preface(&[0; 24]);
        out.frame(kind::PING, 0, 0, &[0; 8]);
        out.data(1, Bytes::from(vec![0; COPY_LIMIT + 1]), false);
        out.data(1, Bytes::from_static(b"x"), true);
        // Bytes that may leave, and frames that wait then; the preface counts as one.
        let large = HEAD_LENGTH + COPY_LIMIT + 1;
        for (bytes, frames) in
            [(0, 4), (23, 4), (1, 3), (16, 3), (1, 2), (large - 1, 2), (2, 1), (8, 1), (1, 0)]
        {
            write(&mut out, bytes);
            assert_eq!(out.frames(), frames, "after {bytes} more bytes");
        }
        assert_eq!(out.len(), 0);
    }

    #[test]
    fn what_has_left_is_not_kept_for_a_slow_peer() {
        let mut out = Outbox::default();
        for _ in 0..10_000 {
            for _ in 0..4 {
                out.frame(kind::PING, 0, 0, &[0; 8]);
            }
            write(&mut out, 4 * 17 - 1);
        }
        assert!(out.tail.len() < 4 * KEEP_LIMIT, "{} bytes", out.tail.len());
        assert_eq!(out.frames() as usize, out.len().div_ceil(17));
    }
}
