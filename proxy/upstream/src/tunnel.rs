//! Connections that are carried inside of HTTP: the seam between who speaks HTTP to hosts and who knows nothing but bytes
//! (`tunneling_config` of the TCP proxy).

use std::fmt;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};

use dhow_http::HeaderMap;

use crate::connect::ConnectionGuard;
use crate::host::Host;
use crate::transport_socket::SecureOptions;
use crate::worker::WorkerCluster;

/// Opens tunnels on the connections of one worker.
pub trait HttpTunnels {
    /// Sends the head of a request (CONNECT or POST) to the host and waits for the answer; ready with a tunnel when the host
    /// agrees: over HTTP/1 with any success, over HTTP/2 with 200. Dropping the future gives the request up.
    fn open(
        &self,
        cluster: &Rc<WorkerCluster>,
        host: &Arc<Host>,
        options: Option<Box<SecureOptions>>,
        request: HeaderMap,
    ) -> OpeningTunnel;
}

/// A tunnel that is being opened.
pub type OpeningTunnel = Pin<Box<dyn Future<Output = Result<Box<dyn HttpTunnel>, TunnelFailure>>>>;

/// A request whose body and response body are the two directions of a connection.
///
/// Failures are [`io::ErrorKind::ConnectionReset`] where the host reset the stream or the connection, and
/// [`io::ErrorKind::ConnectionAborted`] where the connection ended otherwise.
pub trait HttpTunnel: fmt::Debug {
    /// What counts the connection.
    fn connection(&self) -> &ConnectionGuard;

    /// The head of the answer.
    fn response(&self) -> &HeaderMap;

    /// The trailers of the answer, once its body ended with some.
    fn trailers(&self) -> Option<&HeaderMap>;

    /// Whether both directions end as soon as one does, as on a connection of HTTP/1.
    fn ends_as_one(&self) -> bool;

    /// Waits for bytes of the host: true when there are some in [`HttpTunnel::chunk`], false when there are no more to come.
    fn poll_data(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<bool>>;

    /// Bytes of the host that were not consumed.
    fn chunk(&self) -> &[u8];

    /// Drops bytes from the front of the chunk.
    fn consume(&mut self, count: usize);

    /// Takes bytes for the host and gives their number. Who is told to wait offers the same bytes again.
    fn poll_write(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>>;

    /// Pushes what was taken to the host.
    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>>;

    /// Ends the direction to the host; ready when everything was pushed to it.
    fn poll_finish(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>>;
}

/// Why there is no tunnel.
#[derive(Debug)]
pub struct TunnelFailure {
    /// What kind of failure it was.
    pub kind: TunnelFailureKind,
    /// `%UPSTREAM_TRANSPORT_FAILURE_REASON%`; `tunnel_response:` and the status where the host did not agree.
    pub text: Option<String>,
    /// The head of the answer, where there was one.
    pub response: Option<HeaderMap>,
}

/// Kinds of failures to open a tunnel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TunnelFailureKind {
    /// The cluster's limits had no room for the request, and no host was asked.
    NoRoom,
    /// There was a connection, but no room for a request on it.
    NoRequest,
    /// The host could not be reached.
    Unreachable,
    /// The host was asked and did not agree, or broke off.
    Declined,
}
