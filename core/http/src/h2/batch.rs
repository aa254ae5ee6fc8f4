//! Gathers the frames of one turn of the event loop into one write.
//!
//! The `h2` crate writes and flushes after every data frame of more than a few hundred bytes. Envoy collects all frames
//! that the streams of a connection produce in one turn, and writes once. This wrapper takes the writes, and the
//! connection asks it to write when it has nothing else to do.

use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::watch::{FrameCounts, Violation, Watch};

/// Frames beyond this many bytes are written at once, together with what waits before them.
const GATHER_LIMIT: usize = 16 * 1024;
/// A buffer that grew beyond this is given back once it is empty.
const KEEP_LIMIT: usize = 64 * 1024;
/// Slices of one vectored write, the gathered bytes included.
const MAX_SLICES: usize = 16;

#[derive(Debug)]
struct Gathered<T> {
    io: T,
    waiting: Vec<u8>,
    written: usize,
    watch: Watch,
}

/// The end of the wrapper that `h2` owns.
#[derive(Debug)]
pub(super) struct BatchedIo<T>(Arc<Mutex<Gathered<T>>>);

/// The end of the wrapper that decides when to write.
#[derive(Debug)]
pub(super) struct Flusher<T>(Arc<Mutex<Gathered<T>>>);

/// What became known of a connection beside what `h2` says.
#[derive(Debug, Default)]
pub(super) struct Seen {
    pub(super) counts: FrameCounts,
    /// Streams that were reset because their messages are malformed.
    pub(super) malformed: Vec<u32>,
    pub(super) violation: Option<Violation>,
}

/// Wraps a stream whose frames are watched.
pub(super) fn batched<T>(io: T, watch: Watch) -> (BatchedIo<T>, Flusher<T>) {
    let shared = Arc::new(Mutex::new(Gathered { io, waiting: Vec::new(), written: 0, watch }));
    (BatchedIo(shared.clone()), Flusher(shared))
}

fn lock<T>(shared: &Mutex<Gathered<T>>) -> MutexGuard<'_, Gathered<T>> {
    // A panic of the stream below leaves no half-made state behind that matters: the connection ends.
    shared.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

impl<T: AsyncWrite + Unpin> Gathered<T> {
    fn poll_write_out(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.written < self.waiting.len() {
            let count = ready!(Pin::new(&mut self.io).poll_write(cx, &self.waiting[self.written..]))?;
            if count == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.written += count;
        }
        self.clear();
        Poll::Ready(Ok(()))
    }

    fn clear(&mut self) {
        self.written = 0;
        self.waiting.clear();
        if self.waiting.capacity() > KEEP_LIMIT {
            self.waiting = Vec::new();
        }
    }

    fn poll_take(&mut self, cx: &mut Context<'_>, slices: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        let offered: usize = slices.iter().map(|slice| slice.len()).sum();
        loop {
            let before = self.waiting.len() - self.written;
            if before + offered <= GATHER_LIMIT {
                for slice in slices {
                    self.waiting.extend_from_slice(slice);
                }
                return Poll::Ready(Ok(offered));
            }
            let mut all = [IoSlice::new(&[]); MAX_SLICES];
            all[0] = IoSlice::new(&self.waiting[self.written..]);
            let taken = slices.len().min(MAX_SLICES - 1);
            all[1..=taken].copy_from_slice(&slices[..taken]);
            let first = usize::from(before == 0);
            let count = ready!(Pin::new(&mut self.io).poll_write_vectored(cx, &all[first..=taken]))?;
            if count == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            if count < before {
                self.written += count;
                continue;
            }
            self.clear();
            if count > before {
                return Poll::Ready(Ok(count - before));
            }
        }
    }
}

impl<T: AsyncWrite + Unpin> Flusher<T> {
    /// Writes what was gathered.
    pub(super) fn poll_flush(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut shared = lock(&self.0);
        ready!(shared.poll_write_out(cx))?;
        Pin::new(&mut shared.io).poll_flush(cx)
    }

    /// What was seen since the last time.
    pub(super) fn seen(&self) -> Seen {
        let mut shared = lock(&self.0);
        let watch = &mut shared.watch;
        Seen { counts: watch.take_counts(), malformed: watch.take_malformed(), violation: watch.violation() }
    }
}

impl<T: AsyncRead + Unpin> Flusher<T> {
    /// Ready when the peer ended its direction; what it sends before is dropped.
    pub(super) fn poll_peer_end(&self, cx: &mut Context<'_>) -> Poll<()> {
        let mut shared = lock(&self.0);
        loop {
            let mut room = [const { MaybeUninit::uninit() }; 1024];
            let mut buffer = ReadBuf::uninit(&mut room);
            match ready!(Pin::new(&mut shared.io).poll_read(cx, &mut buffer)) {
                Ok(()) if !buffer.filled().is_empty() => {}
                _ => return Poll::Ready(()),
            }
        }
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for BatchedIo<T> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let mut shared = lock(&self.0);
        if shared.watch.violation().is_some() {
            // Nothing more is read from this peer; the side that drives the connection ends it in the same turn.
            return Poll::Pending;
        }
        let before = buffer.filled().len();
        ready!(Pin::new(&mut shared.io).poll_read(cx, buffer))?;
        let received = buffer.filled().len() - before;
        let passed = shared.watch.received(&buffer.filled()[before..]);
        buffer.set_filled(before + passed);
        if passed == 0 && received > 0 { Poll::Pending } else { Poll::Ready(Ok(())) }
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for BatchedIo<T> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[IoSlice::new(bytes)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let mut shared = lock(&self.0);
        let taken = ready!(shared.poll_take(cx, slices))?;
        let mut left = taken;
        for slice in slices {
            let part = left.min(slice.len());
            shared.watch.sent(&slice[..part]);
            left -= part;
        }
        Poll::Ready(Ok(taken))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    /// Nothing to do: [`Flusher`] writes at the end of the turn.
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut shared = lock(&self.0);
        ready!(shared.poll_write_out(cx))?;
        Pin::new(&mut shared.io).poll_shutdown(cx)
    }
}
