//! Transfers over sockets in clear text, with nothing between the event loop and the kernel.
//!
//! The C library makes each transfer of a process with several threads a point at which a thread may be cancelled, and that
//! costs more instructions than the rest of the call. No thread is ever cancelled here.

use std::io;
use std::os::fd::AsFd;
use std::task::{Context, Poll, ready};

use rustix::net::{RecvFlags, SendFlags, recv, send};
use tokio::io::Interest;
use tokio::net::TcpStream;

/// Reads what waits, as [`tokio::io::AsyncRead`] would; 0 is the end of the stream.
pub(crate) fn poll_recv(
    stream: &TcpStream,
    cx: &mut Context<'_>,
    buffer: &mut [u8],
) -> Poll<io::Result<usize>> {
    loop {
        ready!(stream.poll_read_ready(cx))?;
        let wanted = buffer.len();
        let read = transfer(stream, Interest::READABLE, wanted, || {
            Ok(recv(stream, &mut *buffer, RecvFlags::empty())?.1)
        });
        if let Some(read) = read {
            return Poll::Ready(read);
        }
    }
}

/// Writes as much as the socket takes, as [`tokio::io::AsyncWrite`] would.
pub(crate) fn poll_send(stream: &TcpStream, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
    loop {
        ready!(stream.poll_write_ready(cx))?;
        let written = transfer(stream, Interest::WRITABLE, bytes.len(), || {
            Ok(send(stream, bytes, SendFlags::NOSIGNAL)?)
        });
        if let Some(written) = written {
            return Poll::Ready(written);
        }
    }
}

/// Looks at what waits, without waiting for it; 0 is the end of the stream.
///
/// # Errors
/// `WouldBlock` when nothing waits, or what the kernel says of the socket.
pub(crate) fn peek(socket: impl AsFd, buffer: &mut [u8]) -> io::Result<usize> {
    Ok(recv(socket, buffer, RecvFlags::PEEK | RecvFlags::DONTWAIT)?.1)
}

/// Makes a transfer of up to `wanted` bytes; `None` when the socket was not ready after all.
fn transfer(
    stream: &TcpStream,
    interest: Interest,
    wanted: usize,
    call: impl FnOnce() -> io::Result<usize>,
) -> Option<io::Result<usize>> {
    let mut moved = None;
    let result = stream.try_io(interest, || {
        let count = call()?;
        moved = Some(count);
        // With fewer bytes than wanted the socket has no more to give or no more room: told so, the event loop spares the call
        // that would find that out.
        if count > 0 && count < wanted { Err(io::ErrorKind::WouldBlock.into()) } else { Ok(()) }
    });
    match (moved, result) {
        (Some(count), _) => Some(Ok(count)),
        (None, Err(error)) if error.kind() == io::ErrorKind::WouldBlock => None,
        (None, Err(error)) => Some(Err(error)),
        (None, Ok(())) => None,
    }
}

#[cfg(test)]
mod tests {
    use std::io::ErrorKind;
    use std::io::{Read, Write};
    use std::os::unix::net::UnixStream;
    use std::task::Waker;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;

    #[test]
    fn bytes_are_seen_and_stay() {
        let (mut near, mut far) = UnixStream::pair().unwrap();
        let mut buffer = [0; 8];
        assert_eq!(peek(&near, &mut buffer).unwrap_err().kind(), ErrorKind::WouldBlock);
        far.write_all(b"abc").unwrap();
        assert_eq!(peek(&near, &mut buffer).unwrap(), 3);
        assert_eq!(&buffer[..3], b"abc");
        assert_eq!(near.read(&mut buffer).unwrap(), 3);
        drop(far);
        assert_eq!(peek(&near, &mut buffer).unwrap(), 0);
    }

    async fn pair() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let near = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        (near, listener.accept().await.unwrap().0)
    }

    async fn receive(stream: &TcpStream, buffer: &mut [u8]) -> io::Result<usize> {
        std::future::poll_fn(|cx| poll_recv(stream, cx, buffer)).await
    }

    #[tokio::test]
    async fn what_comes_is_read_once_and_then_waited_for() {
        let (near, mut far) = pair().await;
        let mut buffer = [0; 8];
        for text in [&b"abc"[..], b"", b"12345678", b"x"] {
            far.write_all(text).await.unwrap();
            if !text.is_empty() {
                assert_eq!(receive(&near, &mut buffer).await.unwrap(), text.len());
                assert_eq!(&buffer[..text.len()], text);
            }
        }
        let mut cx = Context::from_waker(Waker::noop());
        assert!(poll_recv(&near, &mut cx, &mut buffer).is_pending());
        drop(far);
        assert_eq!(receive(&near, &mut buffer).await.unwrap(), 0);
        assert_eq!(receive(&near, &mut buffer).await.unwrap(), 0, "the end stays");
    }

    #[tokio::test]
    async fn a_full_socket_is_waited_for_and_nothing_is_lost() {
        let (near, mut far) = pair().await;
        let block: Vec<u8> = (0..=255).cycle().take(100_000).collect();
        let total = 200 * block.len();
        let reader = async {
            let mut all = Vec::new();
            far.read_to_end(&mut all).await.unwrap();
            all
        };
        let writer = async move {
            for _ in 0..200 {
                let mut rest = &block[..];
                while !rest.is_empty() {
                    let count = std::future::poll_fn(|cx| poll_send(&near, cx, rest)).await.unwrap();
                    rest = &rest[count..];
                }
            }
        };
        let (all, ()) = tokio::join!(reader, writer);
        assert_eq!(all.len(), total);
        assert!(all.iter().enumerate().all(|(at, byte)| *byte == (at % 100_000 % 256) as u8));
    }

    #[tokio::test]
    async fn errors_of_the_socket_are_passed_on() {
        let (near, far) = pair().await;
        far.set_zero_linger().unwrap();
        drop(far);
        let error = receive(&near, &mut [0; 8]).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectionReset);
        let write = std::future::poll_fn(|cx| poll_send(&near, cx, b"x")).await;
        assert_eq!(write.unwrap_err().kind(), ErrorKind::BrokenPipe);
    }
}
