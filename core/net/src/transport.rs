//! The bytes of a connection, whatever carries them.

use std::fmt;
use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::{TcpStream, UnixStream};

use crate::transfer;

/// A stream that does something to what passes through it: encrypts it, counts it, or looks at it first.
pub trait SecureStream: AsyncRead + AsyncWrite + Unpin {
    /// Ready when a read may make progress: plaintext is waiting, or the socket is readable. Lets an idle connection
    /// hold no buffer.
    fn poll_read_ready(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>>;

    /// Local address of the connection below, when it is one of IP.
    fn local_address(&self) -> Option<SocketAddr>;

    /// Makes the close of the connection below a reset.
    fn reset_on_close(&self);
}

/// An established connection. Reads take a buffer only once [`poll_read_ready`](Self::poll_read_ready) said that there is
/// something to read.
pub enum Transport {
    /// Clear text over TCP.
    Tcp(TcpStream),
    /// Clear text over a Unix domain socket.
    Unix(UnixStream),
    /// TLS, or what else does something to the bytes.
    Secure(Box<dyn SecureStream>),
}

impl Transport {
    /// Whether bytes pass as they are: a read that finds nothing then leaves nothing behind.
    pub fn is_plain(&self) -> bool {
        matches!(self, Self::Tcp(_) | Self::Unix(_))
    }

    /// Ready when a read may make progress or reports the end.
    pub fn poll_read_ready(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Tcp(stream) => stream.poll_read_ready(cx),
            Self::Unix(stream) => stream.poll_read_ready(cx),
            Self::Secure(stream) => stream.poll_read_ready(cx),
        }
    }

    /// Reads into the buffer; 0 is the end of the stream.
    pub fn poll_read(&mut self, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        if let Self::Tcp(stream) = self {
            return transfer::poll_recv(stream, cx, buffer);
        }
        let mut buffer = ReadBuf::new(buffer);
        let result = Pin::new(self).poll_read(cx, &mut buffer);
        result.map_ok(|()| buffer.filled().len())
    }

    /// Looks at the first bytes that wait, once there are more than `seen`, and leaves them.
    ///
    /// Waiting costs nothing, however many bytes were seen before. Who gives up waiting has to [renew](Self::renewed) the
    /// connection, which otherwise learns of bytes only with the next ones.
    ///
    /// # Errors
    /// `UnexpectedEof` once the other side has ended its direction, or what the socket reports; there is nothing to look at where
    /// bytes do not pass as they are.
    pub async fn peek_beyond(&self, seen: usize, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            let ready = match self {
                Self::Tcp(stream) => stream.ready(Interest::READABLE).await?,
                Self::Unix(stream) => stream.ready(Interest::READABLE).await?,
                Self::Secure(_) => return Err(io::ErrorKind::Unsupported.into()),
            };
            // As in Envoy the end counts before whatever bytes came with it.
            if ready.is_read_closed() {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            // Bytes that were seen leave the socket readable. Called not ready for them, it is told of only when more come.
            let more = |count| if count > seen { Ok(count) } else { Err(io::ErrorKind::WouldBlock.into()) };
            let count = match self {
                Self::Tcp(stream) => {
                    stream.try_io(Interest::READABLE, || transfer::peek(stream, buffer).and_then(more))
                }
                Self::Unix(stream) => {
                    stream.try_io(Interest::READABLE, || transfer::peek(stream, buffer).and_then(more))
                }
                Self::Secure(_) => Err(io::ErrorKind::Unsupported.into()),
            };
            match count {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                count => return count,
            }
        }
    }

    /// The same connection, ready for whatever waits on it.
    ///
    /// # Errors
    /// What the system reports of the socket.
    pub fn renewed(self) -> io::Result<Self> {
        Ok(match self {
            Self::Tcp(stream) => Self::Tcp(TcpStream::from_std(stream.into_std()?)?),
            Self::Unix(stream) => Self::Unix(UnixStream::from_std(stream.into_std()?)?),
            Self::Secure(stream) => Self::Secure(stream),
        })
    }

    /// Takes bytes that wait, without waiting for them.
    ///
    /// # Errors
    /// As for [`peek_beyond`](Self::peek_beyond), and `WouldBlock` when nothing waits.
    pub fn try_read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.try_read(buffer),
            Self::Unix(stream) => stream.try_read(buffer),
            Self::Secure(_) => Err(io::ErrorKind::Unsupported.into()),
        }
    }

    /// Writes as much as it can of the slices, in one call of the operating system.
    pub fn poll_write_vectored(
        &mut self,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match (self, slices) {
            (Self::Tcp(stream), [one]) => transfer::poll_send(stream, cx, one),
            (Self::Tcp(stream), _) => Pin::new(stream).poll_write_vectored(cx, slices),
            (Self::Unix(stream), _) => Pin::new(stream).poll_write_vectored(cx, slices),
            (Self::Secure(stream), _) => Pin::new(stream).poll_write_vectored(cx, slices),
        }
    }

    /// Pushes what the transport itself holds back (TLS records) to the socket.
    pub fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Tcp(_) | Self::Unix(_) => Poll::Ready(Ok(())),
            Self::Secure(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    /// Ends our direction: FIN, after a TLS close notify.
    pub fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Tcp(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Unix(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Secure(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }

    /// Local address, when it is one of IP.
    pub fn local_address(&self) -> Option<SocketAddr> {
        match self {
            Self::Tcp(stream) => stream.local_addr().ok(),
            Self::Unix(_) => None,
            Self::Secure(stream) => stream.local_address(),
        }
    }

    /// Makes the close of this connection a reset.
    pub fn reset_on_close(&self) {
        match self {
            // Fails only when the socket is gone already.
            Self::Tcp(stream) => _ = stream.set_zero_linger(),
            Self::Unix(_) => {}
            Self::Secure(stream) => stream.reset_on_close(),
        }
    }
}

impl AsyncRead for Transport {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_read(cx, buffer),
            Self::Unix(stream) => Pin::new(stream).poll_read(cx, buffer),
            Self::Secure(stream) => Pin::new(stream).poll_read(cx, buffer),
        }
    }
}

impl AsyncWrite for Transport {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.get_mut().poll_write_vectored(cx, &[IoSlice::new(bytes)])
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.get_mut().poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.get_mut().poll_shutdown(cx)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.get_mut().poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }
}

impl fmt::Debug for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tcp(_) => "Transport::Tcp",
            Self::Unix(_) => "Transport::Unix",
            Self::Secure(_) => "Transport::Secure",
        })
    }
}
