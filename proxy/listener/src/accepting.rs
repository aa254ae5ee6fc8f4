//! What the kernel tells of connections that wait to be accepted.

use std::io;
use std::net::SocketAddr;
use std::task::Poll;

use tokio::net::{TcpListener, TcpStream};

/// The next connection. The first of an event is waited for; there may be none behind it.
pub(crate) async fn next_connection(
    socket: &TcpListener,
    first: bool,
) -> Option<io::Result<(TcpStream, SocketAddr)>> {
    std::future::poll_fn(|context| match socket.poll_accept(context) {
        Poll::Ready(connection) => Poll::Ready(Some(connection)),
        Poll::Pending if first => Poll::Pending,
        Poll::Pending => Poll::Ready(None),
    })
    .await
}

/// Errors of `accept` that concern the connection that was about to be accepted, not the listener.
pub(crate) fn is_of_one_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset | io::ErrorKind::ConnectionRefused
    )
}

/// Where the peer wanted to go, when the connection was redirected by the kernel's packet filter.
pub(crate) fn original_destination(stream: &TcpStream) -> Option<SocketAddr> {
    let socket = socket2::SockRef::from(stream);
    let found = match stream.local_addr().ok()? {
        SocketAddr::V4(_) => socket.original_dst_v4(),
        SocketAddr::V6(_) => socket.original_dst_v6(),
    };
    found.ok()?.as_socket()
}
