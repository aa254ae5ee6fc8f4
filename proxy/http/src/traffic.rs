//! Bytes of connections, counted as they pass: `downstream_cx_{rx,tx}_bytes_total`, `upstream_cx_{rx,tx}_bytes_total`.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use dhow_net::Transport;
use dhow_proxy_upstream::ClusterStats;
use dhow_stats::Counter;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::stats::ConnectionManagerStats;

/// Where the bytes of a connection are counted, as they are without encryption.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Traffic {
    pub(crate) received: Counter,
    pub(crate) sent: Counter,
}

impl Traffic {
    /// For connections of clients.
    pub(crate) fn of_clients(stats: &ConnectionManagerStats) -> Self {
        Self { received: stats.downstream_cx_rx_bytes_total(), sent: stats.downstream_cx_tx_bytes_total() }
    }

    /// For connections to hosts.
    pub(crate) fn of_hosts(stats: &ClusterStats) -> Self {
        Self { received: stats.upstream_cx_rx_bytes_total(), sent: stats.upstream_cx_tx_bytes_total() }
    }
}

/// A transport whose bytes are counted.
#[derive(Debug)]
pub(crate) struct CountedTransport {
    transport: Transport,
    traffic: Traffic,
}

impl CountedTransport {
    pub(crate) fn new(transport: Transport, traffic: Traffic) -> Self {
        Self { transport, traffic }
    }
}

impl AsyncRead for CountedTransport {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.transport).poll_read(cx, buffer))?;
        self.traffic.received.add((buffer.filled().len() - before) as u64);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for CountedTransport {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[IoSlice::new(bytes)])
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.transport.poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.transport.poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let count = ready!(self.transport.poll_write_vectored(cx, slices))?;
        self.traffic.sent.add(count as u64);
        Poll::Ready(Ok(count))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }
}
