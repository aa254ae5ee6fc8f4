//! A TLS connection over a transport, holding no buffer of its own while it is idle.

use std::fmt;
use std::future::poll_fn;
use std::io::{self, IoSlice, Read, Write};
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use dhow_net::{SecureStream, Transport};
use rustls::Connection;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::failure::TlsFailure;

/// A stream whose handshake may still be under way.
pub(crate) struct TlsStream {
    transport: Transport,
    connection: Connection,
    /// Decrypted bytes that wait to be read.
    plaintext: usize,
    /// The peer sent its close notify, or its FIN.
    ended: bool,
    close_notified: bool,
}

/// The transport as rustls wants it: blocking calls that say `WouldBlock`.
pub(crate) struct Blocking<'a, 'b> {
    pub(crate) transport: &'a mut Transport,
    pub(crate) cx: &'a mut Context<'b>,
}

fn or_would_block<T>(poll: Poll<io::Result<T>>) -> io::Result<T> {
    match poll {
        Poll::Ready(result) => result,
        Poll::Pending => Err(io::ErrorKind::WouldBlock.into()),
    }
}

pub(crate) fn or_pending<T>(result: io::Result<T>) -> Poll<io::Result<T>> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Poll::Pending,
        result => Poll::Ready(result),
    }
}

impl Read for Blocking<'_, '_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        or_would_block(self.transport.poll_read(self.cx, buffer))
    }
}

impl Write for Blocking<'_, '_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.write_vectored(&[IoSlice::new(bytes)])
    }

    fn write_vectored(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        or_would_block(self.transport.poll_write_vectored(self.cx, slices))
    }

    fn flush(&mut self) -> io::Result<()> {
        or_would_block(self.transport.poll_flush(self.cx))
    }
}

impl TlsStream {
    pub(crate) fn new(transport: Transport, connection: Connection) -> Self {
        Self { transport, connection, plaintext: 0, ended: false, close_notified: false }
    }

    pub(crate) fn connection(&self) -> &Connection {
        &self.connection
    }

    /// Runs the handshake to its end.
    pub(crate) async fn handshake(&mut self) -> io::Result<()> {
        poll_fn(|cx| self.poll_handshake(cx)).await
    }

    fn poll_handshake(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            ready!(self.poll_write_records(cx))?;
            if !self.connection.is_handshaking() {
                return Poll::Ready(Ok(()));
            }
            if ready!(self.poll_read_records(cx))? == 0 {
                return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
            }
        }
    }

    /// Sends the records that wait.
    fn poll_write_records(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.connection.wants_write() {
            let mut io = Blocking { transport: &mut self.transport, cx };
            if ready!(or_pending(self.connection.write_tls(&mut io)))? == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
        }
        Poll::Ready(Ok(()))
    }

    /// Reads from the socket once and decrypts what is complete; 0 is the end of the stream.
    fn poll_read_records(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let mut io = Blocking { transport: &mut self.transport, cx };
        let count = ready!(or_pending(self.connection.read_tls(&mut io)))?;
        match self.connection.process_new_packets() {
            Ok(state) => {
                self.plaintext = state.plaintext_bytes_to_read();
                self.ended |= count == 0 || state.peer_has_closed();
                Poll::Ready(Ok(count))
            }
            Err(error) => {
                // The alert that tells the peer why is worth one try.
                let _ = self.poll_write_records(cx);
                Poll::Ready(Err(TlsFailure::from(error).into()))
            }
        }
    }
}

impl SecureStream for TlsStream {
    fn poll_read_ready(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.plaintext == 0 && !self.ended {
            ready!(self.poll_read_records(cx))?;
            // Answers to the peer's post-handshake messages; whoever writes next sends what does not fit now.
            if let Poll::Ready(Err(error)) = self.poll_write_records(cx) {
                return Poll::Ready(Err(error));
            }
        }
        Poll::Ready(Ok(()))
    }

    fn local_address(&self) -> Option<SocketAddr> {
        self.transport.local_address()
    }

    fn reset_on_close(&self) {
        self.transport.reset_on_close();
    }
}

impl AsyncRead for TlsStream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(this.poll_read_ready(cx))?;
        if this.plaintext == 0 {
            // A peer that closes without its close notify is taken at its word: HTTP's own framing tells whether the
            // message was complete.
            return Poll::Ready(Ok(()));
        }
        let count = this.connection.reader().read(buffer.initialize_unfilled())?;
        buffer.advance(count);
        this.plaintext -= count;
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for TlsStream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[IoSlice::new(bytes)])
    }

    /// All slices become one record (up to 16 KiB), which leaves in one write.
    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        ready!(this.poll_write_records(cx))?;
        let count = this.connection.writer().write_vectored(slices)?;
        match this.poll_write_records(cx) {
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            // What the socket did not take stays encrypted in the connection until the next write or flush.
            _ => Poll::Ready(Ok(count)),
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(this.poll_write_records(cx))?;
        this.transport.poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if !this.close_notified {
            this.connection.send_close_notify();
            this.close_notified = true;
        }
        ready!(this.poll_write_records(cx))?;
        this.transport.poll_shutdown(cx)
    }
}

impl fmt::Debug for TlsStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TlsStream").field("transport", &self.transport).finish_non_exhaustive()
    }
}
