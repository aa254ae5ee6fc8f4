//! What the kernel tells of connections that wait to be accepted.

use std::io;
use std::net::SocketAddr;
use std::task::{Context, Poll, ready};

use dhow_net::{StreamAddress, Transport};
use tokio::net::{TcpListener, TcpStream, UnixListener};

use crate::sockets::{BoundSocket, Reached};

/// A listening socket that its worker watches.
#[derive(Debug)]
pub(crate) enum ListeningSocket {
    /// A TCP port.
    Tcp(TcpListener, Reached),
    /// A Unix socket, and its address.
    Unix(UnixListener, StreamAddress),
}

impl ListeningSocket {
    /// Watches the socket on this worker.
    ///
    /// # Errors
    /// When the kernel does not let it be watched.
    pub(crate) fn watch(socket: BoundSocket) -> io::Result<Self> {
        match socket {
            BoundSocket::Tcp(socket, reached) => {
                TcpListener::from_std(socket).map(|socket| Self::Tcp(socket, reached))
            }
            BoundSocket::Unix(socket, address) => {
                UnixListener::from_std(socket).map(|socket| Self::Unix(socket, address))
            }
        }
    }

    fn poll_accept(&self, context: &mut Context<'_>) -> Poll<io::Result<(Transport, StreamAddress)>> {
        match self {
            Self::Tcp(socket, reached) => {
                let (stream, peer) = ready!(socket.poll_accept(context))?;
                let peer = if reached.unmaps { unmapped(peer) } else { peer };
                Poll::Ready(Ok((Transport::Tcp(stream), peer.into())))
            }
            // Clients have no address, or one that says nothing: as in Envoy the listener's stands for it.
            Self::Unix(socket, address) => {
                let (stream, _) = ready!(socket.poll_accept(context))?;
                Poll::Ready(Ok((Transport::Unix(stream), address.clone())))
            }
        }
    }

    /// The address that a connection was made to, asked of the kernel unless it can only be one.
    ///
    /// # Errors
    /// When the peer has reset the connection.
    pub(crate) fn own_address(&self, stream: &TcpStream) -> io::Result<SocketAddr> {
        match self {
            Self::Tcp(_, Reached { at: Some(address), .. }) => Ok(*address),
            _ => stream.local_addr(),
        }
    }

    /// The next connection and its peer. The first of an event is waited for; there may be none behind it.
    pub(crate) async fn next_connection(
        &self,
        first: bool,
    ) -> Option<io::Result<(Transport, StreamAddress)>> {
        std::future::poll_fn(|context| match self.poll_accept(context) {
            Poll::Ready(connection) => Poll::Ready(Some(connection)),
            Poll::Pending if first => Poll::Pending,
            Poll::Pending => Poll::Ready(None),
        })
        .await
    }
}

/// Errors of `accept` that concern the connection that was about to be accepted, not the listener.
pub(crate) fn is_of_one_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset | io::ErrorKind::ConnectionRefused
    )
}

/// An address of IPv4 that the kernel wrote as one of IPv6, as one of IPv4.
pub(crate) fn unmapped(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

/// Where the peer wanted to go, when the connection was redirected by the kernel's packet filter.
pub(crate) fn original_destination(stream: &TcpStream, own: SocketAddr) -> Option<SocketAddr> {
    let socket = socket2::SockRef::from(stream);
    let found = match own {
        SocketAddr::V4(_) => socket.original_dst_v4(),
        SocketAddr::V6(_) => socket.original_dst_v6(),
    };
    found.ok()?.as_socket()
}
