//! A connection of TLS that is served from before its handshake.

use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use dhow_net::{SecureStream, Transport};
use dhow_proxy_api::LocalFuture;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// The handshake, and then what it came to. It goes on only while somebody reads or writes: who does not hold back the client.
pub(crate) enum Handshaking {
    /// Gives the transport, or none when the handshake failed.
    UnderWay(LocalFuture<Option<Transport>>),
    Done(Transport),
    Failed,
}

impl Handshaking {
    fn poll_done(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<&mut Transport>> {
        if let Self::UnderWay(handshake) = self {
            *self = ready!(handshake.as_mut().poll(cx)).map_or(Self::Failed, Self::Done);
        }
        match self {
            Self::Done(transport) => Poll::Ready(Ok(transport)),
            Self::Failed => Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into())),
            Self::UnderWay(_) => Poll::Pending,
        }
    }
}

impl AsyncRead for Handshaking {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let transport = ready!(self.poll_done(cx))?;
        Pin::new(transport).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Handshaking {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[IoSlice::new(bytes)])
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut *self {
            // Nothing was taken that could be pushed.
            Self::UnderWay(_) | Self::Failed => Poll::Ready(Ok(())),
            Self::Done(transport) => transport.poll_flush(cx),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_done(cx))?.poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        ready!(self.poll_done(cx))?.poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }
}

impl SecureStream for Handshaking {
    fn poll_read_ready(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_done(cx))?.poll_read_ready(cx)
    }

    fn local_address(&self) -> Option<SocketAddr> {
        match self {
            Self::Done(transport) => transport.local_address(),
            Self::UnderWay(_) | Self::Failed => None,
        }
    }

    fn reset_on_close(&self) {
        if let Self::Done(transport) = self {
            transport.reset_on_close();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::UnixStream;
    use tokio::sync::oneshot;

    use super::*;

    fn after(outcome: oneshot::Receiver<Option<Transport>>) -> Handshaking {
        Handshaking::UnderWay(Box::pin(async move { outcome.await.ok().flatten() }))
    }

    #[tokio::test(flavor = "local")]
    async fn bytes_wait_for_the_handshake() {
        let (mut peer, ours) = UnixStream::pair().unwrap();
        let (done, outcome) = oneshot::channel();
        let mut stream = after(outcome);
        let mut cx = Context::from_waker(Waker::noop());
        assert!(stream.poll_read_ready(&mut cx).is_pending());
        assert!(Pin::new(&mut stream).poll_write(&mut cx, b"early").is_pending());
        assert!(Pin::new(&mut stream).poll_flush(&mut cx).is_ready());
        done.send(Some(Transport::Unix(ours))).unwrap();
        stream.write_all(b"late").await.unwrap();
        let mut buffer = [0; 16];
        assert_eq!(peer.read(&mut buffer).await.unwrap(), 4);
        peer.write_all(b"back").await.unwrap();
        assert_eq!(stream.read(&mut buffer).await.unwrap(), 4);
    }

    #[tokio::test(flavor = "local")]
    async fn a_failure_is_told_to_everybody_who_asks() {
        let (failed, outcome) = oneshot::channel();
        let mut stream = after(outcome);
        failed.send(None).unwrap();
        for _ in 0..2 {
            assert_eq!(stream.read_u8().await.unwrap_err().kind(), io::ErrorKind::ConnectionAborted);
        }
        assert_eq!(stream.write_u8(1).await.unwrap_err().kind(), io::ErrorKind::ConnectionAborted);
    }
}
