//! Bytes in one direction, with half-close.

use std::io::{self, IoSlice};
use std::task::{Context, Poll, ready};

use dhow_net::Transport;
use dhow_proxy_runtime::ReadBuffer;
use dhow_proxy_upstream::{ClosedBy, ConnectionGuard, HttpTunnel, UpstreamConnection};

use crate::carried::Carried;

/// The connection to a host, or what stands for it.
#[derive(Debug)]
pub(crate) enum Upstream {
    /// A connection of its own.
    Plain(Box<Plain>),
    /// A request whose bodies are the two directions.
    Tunnel(Box<dyn HttpTunnel>),
}

/// A connection to a host.
#[derive(Debug)]
pub(crate) struct Plain {
    /// The bytes, and what counts the connection.
    pub(crate) connection: UpstreamConnection,
    /// What it counts as for as long as it is there.
    pub(crate) _carried: Carried,
}

impl Upstream {
    /// What counts the connection.
    pub(crate) fn connection(&self) -> &ConnectionGuard {
        match self {
            Self::Plain(plain) => &plain.connection.guard,
            Self::Tunnel(tunnel) => tunnel.connection(),
        }
    }

    /// It is the host that ends the connection; a tunnel ends with its request.
    pub(crate) fn set_closed_by_host(&self) {
        if let Self::Plain(plain) = self {
            plain.connection.guard.set_closed_by(ClosedBy::Remote);
        }
    }

    /// Whether both directions end as soon as one does.
    pub(crate) fn ends_as_one(&self) -> bool {
        match self {
            Self::Plain(..) => false,
            Self::Tunnel(tunnel) => tunnel.ends_as_one(),
        }
    }

    /// The host learns that the client broke off; of a tunnel, by the end of its request.
    pub(crate) fn reset_on_close(&self) {
        if let Self::Plain(plain) = self {
            plain.connection.transport.reset_on_close();
        }
    }
}

/// The side of a direction that failed.
#[derive(Debug)]
pub(crate) enum Failed {
    /// Where the bytes come from.
    Source(io::Error),
    /// Where they go to.
    Sink(io::Error),
    /// They were not admitted.
    Refused,
}

/// Where bytes go to.
pub(crate) trait ByteSink {
    /// Takes bytes and gives their number. Who is told to wait offers the same bytes again.
    fn poll_write(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>>;

    /// Pushes what was taken to the peer.
    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>>;

    /// Ends the direction.
    fn poll_end(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>>;
}

impl ByteSink for Transport {
    fn poll_write(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match ready!(self.poll_write_vectored(cx, &[IoSlice::new(bytes)]))? {
            0 => Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
            count => Poll::Ready(Ok(count)),
        }
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Transport::poll_flush(self, cx)
    }

    fn poll_end(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_shutdown(cx)
    }
}

impl ByteSink for Upstream {
    fn poll_write(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self {
            Self::Plain(plain) => plain.connection.transport.poll_write(cx, bytes),
            Self::Tunnel(tunnel) => tunnel.poll_write(cx, bytes),
        }
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Plain(plain) => plain.connection.transport.poll_flush(cx),
            Self::Tunnel(tunnel) => tunnel.poll_flush(cx),
        }
    }

    fn poll_end(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Plain(plain) => plain.connection.transport.poll_end(cx),
            Self::Tunnel(tunnel) => tunnel.poll_finish(cx),
        }
    }
}

/// One direction of a proxied connection.
#[derive(Debug)]
pub(crate) struct Direction {
    buffer: ReadBuffer,
    source_ended: bool,
    done: bool,
    /// Bytes passed on.
    pub(crate) moved: u64,
    /// What was told of bytes that came, and of those that were passed on.
    counted: (u64, u64),
}

impl Direction {
    pub(crate) fn new(buffer: ReadBuffer) -> Self {
        Self { buffer, source_ended: false, done: false, moved: 0, counted: (0, 0) }
    }

    /// Reads the first bytes and keeps them; whether there are any before the end.
    pub(crate) fn poll_first(
        &mut self,
        cx: &mut Context<'_>,
        from: &mut Transport,
    ) -> Poll<io::Result<bool>> {
        ready!(from.poll_read_ready(cx))?;
        match from.poll_read(cx, self.buffer.room()) {
            Poll::Ready(Ok(count)) => {
                self.buffer.advance(count);
                self.source_ended = count == 0;
                Poll::Ready(Ok(count > 0))
            }
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            Poll::Pending => {
                self.buffer.release_if_empty();
                Poll::Pending
            }
        }
    }

    /// Moves bytes until the source has no more for now, and the end of the stream when it came; ready when that was
    /// passed on. The buffer is given back whenever there is nothing in it. What was read, the end too, is passed on only if
    /// `admits` says so.
    pub(crate) fn poll<K: ByteSink>(
        &mut self,
        cx: &mut Context<'_>,
        from: &mut Transport,
        to: &mut K,
        mut admits: impl FnMut() -> bool,
    ) -> Poll<Result<(), Failed>> {
        if self.done {
            return Poll::Ready(Ok(()));
        }
        loop {
            while !self.buffer.is_empty() {
                let count = ready!(to.poll_write(cx, self.buffer.filled())).map_err(Failed::Sink)?;
                self.buffer.consume(count);
                self.moved += count as u64;
            }
            self.buffer.release_if_empty();
            if self.source_ended {
                return self.poll_end(cx, to);
            }
            if from.poll_read_ready(cx).map_err(Failed::Source)?.is_pending() {
                // What the sink holds back leaves before we wait.
                let _ = to.poll_flush(cx).map_err(Failed::Sink)?;
                return Poll::Pending;
            }
            match from.poll_read(cx, self.buffer.room()) {
                Poll::Ready(Ok(count)) => {
                    self.buffer.advance(count);
                    if !admits() {
                        return Poll::Ready(Err(Failed::Refused));
                    }
                    self.source_ended = count == 0;
                }
                Poll::Ready(Err(error)) => return Poll::Ready(Err(Failed::Source(error))),
                Poll::Pending => {
                    self.buffer.release_if_empty();
                    let _ = to.poll_flush(cx).map_err(Failed::Sink)?;
                    return Poll::Pending;
                }
            }
        }
    }

    /// [`Direction::poll`] from the connection to a host. What comes through a tunnel is written from where it lies.
    pub(crate) fn poll_from_upstream(
        &mut self,
        cx: &mut Context<'_>,
        from: &mut Upstream,
        to: &mut Transport,
    ) -> Poll<Result<(), Failed>> {
        let tunnel = match from {
            Upstream::Plain(plain) => return self.poll(cx, &mut plain.connection.transport, to, || true),
            Upstream::Tunnel(tunnel) => tunnel,
        };
        if self.done {
            return Poll::Ready(Ok(()));
        }
        while !self.source_ended {
            match tunnel.poll_data(cx) {
                Poll::Ready(Ok(true)) => {
                    let count = ready!(to.poll_write(cx, tunnel.chunk())).map_err(Failed::Sink)?;
                    tunnel.consume(count);
                    self.moved += count as u64;
                }
                Poll::Ready(Ok(false)) => self.source_ended = true,
                Poll::Ready(Err(error)) => return Poll::Ready(Err(Failed::Source(error))),
                Poll::Pending => {
                    let _ = ByteSink::poll_flush(to, cx).map_err(Failed::Sink)?;
                    return Poll::Pending;
                }
            }
        }
        self.poll_end(cx, to)
    }

    /// Bytes that came, passed on or not.
    pub(crate) fn taken(&self) -> u64 {
        self.moved + self.buffer.len() as u64
    }

    /// Bytes that came, and bytes that were passed on, since this was asked last.
    pub(crate) fn count(&mut self) -> (u64, u64) {
        let now = (self.taken(), self.moved);
        let before = std::mem::replace(&mut self.counted, now);
        (now.0 - before.0, now.1 - before.1)
    }

    fn poll_end<K: ByteSink>(&mut self, cx: &mut Context<'_>, to: &mut K) -> Poll<Result<(), Failed>> {
        ready!(to.poll_end(cx)).map_err(Failed::Sink)?;
        self.done = true;
        Poll::Ready(Ok(()))
    }
}
