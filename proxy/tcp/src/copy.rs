//! Bytes in one direction, with half-close.

use std::io::{self, IoSlice};
use std::task::{Context, Poll, ready};

use dhow_net::Transport;
use dhow_proxy_runtime::ReadBuffer;

/// One direction of a proxied connection.
#[derive(Debug)]
pub(crate) struct Direction {
    buffer: ReadBuffer,
    source_ended: bool,
    done: bool,
    /// Bytes passed on.
    pub(crate) moved: u64,
}

impl Direction {
    pub(crate) fn new(buffer: ReadBuffer) -> Self {
        Self { buffer, source_ended: false, done: false, moved: 0 }
    }

    /// Moves bytes until the source has no more for now, and the end of the stream when it came; ready when that was
    /// passed on. The buffer is given back whenever there is nothing in it.
    pub(crate) fn poll(
        &mut self,
        cx: &mut Context<'_>,
        from: &mut Transport,
        to: &mut Transport,
    ) -> Poll<io::Result<()>> {
        if self.done {
            return Poll::Ready(Ok(()));
        }
        loop {
            while !self.buffer.is_empty() {
                let count = ready!(to.poll_write_vectored(cx, &[IoSlice::new(self.buffer.filled())]))?;
                if count == 0 {
                    return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
                }
                self.buffer.consume(count);
                self.moved += count as u64;
            }
            self.buffer.release_if_empty();
            if self.source_ended {
                ready!(to.poll_shutdown(cx))?;
                self.done = true;
                return Poll::Ready(Ok(()));
            }
            if from.poll_read_ready(cx)?.is_pending() {
                // What TLS holds back leaves before we wait.
                let _ = to.poll_flush(cx)?;
                return Poll::Pending;
            }
            match from.poll_read(cx, self.buffer.room()) {
                Poll::Ready(Ok(count)) => {
                    self.buffer.advance(count);
                    self.source_ended = count == 0;
                }
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => {
                    self.buffer.release_if_empty();
                    let _ = to.poll_flush(cx)?;
                    return Poll::Pending;
                }
            }
        }
    }
}
