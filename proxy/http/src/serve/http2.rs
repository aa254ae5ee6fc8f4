//! HTTP/2 connections: a task for each stream, and one that moves frames.

use std::cell::Cell;
use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use dhow_http::KnownHeader;
use dhow_http::h2::{ServerConnection, ServerStream};
use dhow_net::Transport;
use dhow_proxy_api::{ConnectionInfo, Protocol};
use dhow_proxy_runtime::{DeadlineTimer, clock};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::downstream::{Downstream, H2Downstream};
use crate::manager::Manager;
use crate::stream::Exchange;
use crate::upgrade;

/// Serves the streams of a connection. `read` was read from it already.
pub(super) async fn serve(
    manager: Rc<Manager>,
    info: Rc<ConnectionInfo>,
    transport: Transport,
    read: Vec<u8>,
) {
    let stats = &manager.stats.manager;
    stats.downstream_cx_http2_total().inc();
    stats.downstream_cx_http2_active().inc();
    let _active = Http2Gauge(manager.clone());
    let io = Rewound { read, at: 0, transport };
    let mut connection = match ServerConnection::handshake(io, &manager.config.http2).await {
        Ok(connection) => connection,
        Err(_) => {
            stats.downstream_cx_protocol_error().inc();
            return;
        }
    };
    let mut timer = DeadlineTimer::new();
    let mut draining = false;
    let mut drain = std::pin::pin!(manager.drain_started.notified());
    let last_stream = Rc::new(Cell::new(clock::now()));
    let max_duration = manager.config.timeouts.max_connection_duration.map(|max| info.start + max);
    loop {
        let accepted = poll_fn(|cx| {
            loop {
                if let Poll::Ready(accepted) = connection.poll_accept(cx) {
                    return Poll::Ready(accepted);
                }
                if !draining && (manager.draining.get() || drain.as_mut().poll(cx).is_ready()) {
                    stats.downstream_cx_drain_close().inc();
                    draining = true;
                    connection.graceful_shutdown();
                    continue;
                }
                let idle = match connection.has_streams() {
                    true => None,
                    false => manager.config.timeouts.idle.map(|idle| last_stream.get() + idle),
                };
                let max = max_duration.filter(|_| !draining);
                if timer.poll(cx, [idle, max].into_iter().flatten().min()).is_pending() {
                    return Poll::Pending;
                }
                let now = clock::now();
                if max.is_some_and(|max| max <= now) {
                    stats.downstream_cx_max_duration_reached().inc();
                    draining = true;
                    connection.graceful_shutdown();
                } else if idle.is_some_and(|idle| idle <= now) {
                    stats.downstream_cx_idle_timeout().inc();
                    draining = true;
                    connection.graceful_shutdown();
                    last_stream.set(now);
                }
            }
        })
        .await;
        match accepted {
            Some(Ok(stream)) => {
                let (manager, info, ended) = (manager.clone(), info.clone(), last_stream.clone());
                tokio::task::spawn_local(async move {
                    serve_stream(manager, info, stream).await;
                    ended.set(clock::now());
                });
            }
            Some(Err(_)) => {
                stats.downstream_cx_protocol_error().inc();
                return;
            }
            None => return,
        }
    }
}

async fn serve_stream(manager: Rc<Manager>, info: Rc<ConnectionInfo>, stream: ServerStream) {
    let mut head = manager.take_head();
    let (body, responder) = stream.into_parts(&mut head);
    let mut down = H2Downstream::new(body, responder, head.method() == b"HEAD");
    if !manager.config.proxy_100_continue && head.contains_known(KnownHeader::Expect) {
        let mut interim = manager.take_head();
        interim.set_status(100);
        down.send_informational(&interim);
        manager.give_head(interim);
        head.remove_known(KnownHeader::Expect);
    }
    let end_stream = down.request_complete();
    let mut timer = DeadlineTimer::new();
    let upgrade = upgrade::receive_from_http2(&mut head);
    let mut exchange = Exchange::new(manager, &info, Protocol::Http2, head, end_stream, upgrade);
    exchange.run(&mut down, &mut timer).await;
}

struct Http2Gauge(Rc<Manager>);

impl Drop for Http2Gauge {
    fn drop(&mut self) {
        self.0.stats.manager.downstream_cx_http2_active().dec();
    }
}

/// A transport whose first bytes were read already.
#[derive(Debug)]
struct Rewound {
    read: Vec<u8>,
    at: usize,
    transport: Transport,
}

impl AsyncRead for Rewound {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.at < self.read.len() {
            let count = buffer.remaining().min(self.read.len() - self.at);
            buffer.put_slice(&self.read[self.at..self.at + count]);
            self.at += count;
            if self.at == self.read.len() {
                (self.read, self.at) = (Vec::new(), 0);
            }
            return Poll::Ready(Ok(()));
        }
        clock::forget();
        Pin::new(&mut self.transport).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Rewound {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.transport).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.transport).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.transport).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.transport).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }
}
