//! The upstream side of a stream: connections to hosts, their pools, and the stream on one of them.

mod h1;
mod h2;
mod h2_connection;
mod loan;
mod pool;
mod pools;
mod preconnect;
mod tunnel;

use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use dhow_http::h1::ResponseInfo;
use dhow_http::h2::MetadataPort;
use dhow_http::{ByteMeter, HeaderMap};
use dhow_proxy_api::Protocol;
use dhow_proxy_upstream::ConnectionGuard;

use crate::body::{BodySink, BodySource, BodyState};
use crate::reset::Reset;
use crate::watermarks::Pressure;

use h2::H2Upstream;
use loan::PooledH1;
pub(crate) use pools::{Acquired, Foresight, HttpPools, connect_failure};
pub(crate) use tunnel::Tunnel;

/// A stream to an upstream host.
#[derive(Debug)]
pub(crate) enum UpstreamStream {
    /// The one stream of an HTTP/1 connection.
    H1(PooledH1),
    /// One of the streams of an HTTP/2 connection.
    H2(Box<H2Upstream>),
    /// A connection for the bytes of a terminated CONNECT.
    Tunnel(Box<Tunnel>),
}

impl UpstreamStream {
    /// The protocol that it speaks; none for bytes.
    pub(crate) fn protocol(&self) -> Option<Protocol> {
        match self {
            Self::H1(_) => Some(Protocol::Http11),
            Self::H2(_) => Some(Protocol::Http2),
            Self::Tunnel(_) => None,
        }
    }

    /// The connection that carries it.
    pub(crate) fn connection(&self) -> &ConnectionGuard {
        match self {
            Self::H1(stream) => stream.guard(),
            Self::H2(stream) => stream.guard(),
            Self::Tunnel(tunnel) => tunnel.guard(),
        }
    }

    /// Where the stream's metadata comes from and goes to, on a connection that has any.
    pub(crate) fn metadata_port(&self) -> Option<MetadataPort> {
        match self {
            Self::H2(stream) => stream.metadata_port(),
            Self::H1(_) | Self::Tunnel(_) => None,
        }
    }

    /// Whether so many bytes of the request wait for the host that no more are taken.
    pub(crate) fn is_backed_up(&self) -> bool {
        match self {
            Self::H1(stream) => stream.is_backed_up(),
            Self::H2(stream) => stream.is_backed_up(),
            Self::Tunnel(tunnel) => tunnel.is_backed_up(),
        }
    }

    /// Whether the end of the request waits for other messages of the worker, and is sent when it is asked for again.
    pub(crate) fn waits_for_others(&self) -> bool {
        matches!(self, Self::H1(stream) if stream.waits_for_others())
    }

    /// Counts the bytes of the request and its response; to be called before the request begins.
    pub(crate) fn set_meter(&mut self, meter: &Arc<ByteMeter>) {
        match self {
            Self::H1(stream) => stream.set_meter(Some(meter.clone())),
            Self::H2(stream) => stream.set_meter(meter.clone()),
            Self::Tunnel(_) => {}
        }
    }

    /// Sends the request head, `end` when there is no body.
    pub(crate) fn begin(&mut self, head: &HeaderMap, end: bool) -> Result<(), Reset> {
        match self {
            Self::H1(stream) => {
                stream.begin(head, end);
                Ok(())
            }
            Self::H2(stream) => stream.begin(head, end),
            Self::Tunnel(_) => Ok(()),
        }
    }

    /// Gives the stream up before anything was sent on it; a connection that is for one request at a time goes with it.
    pub(crate) fn abandon(&mut self) {
        if let Self::H1(stream) = self {
            stream.abandon();
        }
    }

    /// Ends the connection with the stream where it is for one request at a time.
    pub(crate) fn end_here(&mut self) {
        if let Self::H1(stream) = self {
            stream.end_here();
        }
    }

    /// Whether all of a request was sent that shares its connection with others.
    pub(crate) fn is_request_sent(&self) -> bool {
        match self {
            Self::H2(stream) => stream.is_request_sent(),
            Self::H1(_) | Self::Tunnel(_) => true,
        }
    }

    /// Waits for the response head, or an informational one that precedes it.
    pub(crate) fn poll_head(
        &mut self,
        cx: &mut Context<'_>,
        head: &mut HeaderMap,
    ) -> Poll<Result<ResponseInfo, Reset>> {
        match self {
            Self::H1(stream) => stream.poll_head(cx, head),
            Self::H2(stream) => stream.poll_head(cx, head),
            Self::Tunnel(tunnel) => Poll::Ready(Ok(tunnel.answer(head))),
        }
    }
}

impl BodySource for UpstreamStream {
    fn poll_body(&mut self, cx: &mut Context<'_>) -> Poll<Result<BodyState, Reset>> {
        match self {
            Self::H1(stream) => stream.poll_body(cx),
            Self::H2(stream) => stream.poll_body(cx),
            Self::Tunnel(tunnel) => tunnel.poll_body(cx),
        }
    }

    fn chunk(&self) -> &[u8] {
        match self {
            Self::H1(stream) => stream.chunk(),
            Self::H2(stream) => stream.chunk(),
            Self::Tunnel(tunnel) => tunnel.chunk(),
        }
    }

    fn consume(&mut self, count: usize) {
        match self {
            Self::H1(stream) => stream.consume(count),
            Self::H2(stream) => stream.consume(count),
            Self::Tunnel(tunnel) => tunnel.consume(count),
        }
    }

    fn split(&mut self, max: usize) -> Bytes {
        match self {
            Self::H1(stream) => stream.split(max),
            Self::H2(stream) => stream.split(max),
            Self::Tunnel(tunnel) => tunnel.split(max),
        }
    }

    fn trailers(&self) -> Option<&HeaderMap> {
        match self {
            Self::H1(stream) => stream.trailers(),
            Self::H2(stream) => stream.trailers(),
            Self::Tunnel(tunnel) => tunnel.trailers(),
        }
    }
}

impl BodySink for UpstreamStream {
    fn poll_write<S: BodySource>(
        &mut self,
        cx: &mut Context<'_>,
        source: &mut S,
    ) -> Poll<Result<usize, Reset>> {
        match self {
            Self::H1(stream) => stream.poll_write(cx, source),
            Self::H2(stream) => stream.poll_write(cx, source),
            Self::Tunnel(tunnel) => tunnel.poll_write(cx, source),
        }
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Reset>> {
        match self {
            Self::H1(stream) => stream.poll_flush(cx),
            Self::H2(stream) => stream.poll_flush(cx),
            Self::Tunnel(tunnel) => tunnel.poll_flush(cx),
        }
    }

    fn take_pressure(&mut self) -> Pressure {
        match self {
            Self::H1(stream) => stream.take_pressure(),
            Self::H2(stream) => stream.take_pressure(),
            Self::Tunnel(tunnel) => tunnel.take_pressure(),
        }
    }

    fn poll_finish(&mut self, cx: &mut Context<'_>, trailers: Option<&HeaderMap>) -> Poll<Result<(), Reset>> {
        match self {
            Self::H1(stream) => stream.poll_finish(cx, trailers),
            Self::H2(stream) => stream.poll_finish(cx, trailers),
            Self::Tunnel(tunnel) => tunnel.poll_finish(cx, trailers),
        }
    }
}
