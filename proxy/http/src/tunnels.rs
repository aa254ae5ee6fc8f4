//! Tunnels through the connection pools of a worker, for who carries connections inside of requests.

use std::future::poll_fn;
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use dhow_http::HeaderMap;
use dhow_http::h1::BodyLength;
use dhow_proxy_runtime::Worker;
use dhow_proxy_upstream::{
    ConnectionGuard, Host, HttpTunnel, HttpTunnels, LbContext, OpeningTunnel, RoutingPriority, SecureOptions,
    TunnelFailure, TunnelFailureKind, WorkerCluster,
};

use crate::body::{BodySink, BodySource, BodyState, BufferedBody};
use crate::reset::{Reset, ResetKind};
use crate::router::{PendingGuard, RequestGuard};
use crate::upstream::{Acquired, Foresight, HttpPools, UpstreamStream};

/// Opens tunnels on the connections of a worker, which requests use as well.
pub fn http_tunnels(worker: &Rc<Worker>) -> Rc<dyn HttpTunnels> {
    Rc::new(PooledTunnels { pools: HttpPools::of(worker) })
}

struct PooledTunnels {
    pools: Rc<HttpPools>,
}

impl HttpTunnels for PooledTunnels {
    fn open(
        &self,
        cluster: &Rc<WorkerCluster>,
        host: &Arc<Host>,
        options: Option<Box<SecureOptions>>,
        request: HeaderMap,
    ) -> OpeningTunnel {
        let (pools, cluster, host) = (self.pools.clone(), cluster.clone(), host.clone());
        Box::pin(async move {
            let stream = acquire(&pools, &cluster, &host, options).await.map_err(|reset| {
                let kind = match reset.kind {
                    ResetKind::Overflow => TunnelFailureKind::NoRoom,
                    _ => TunnelFailureKind::Unreachable,
                };
                failure(kind, &reset)
            })?;
            let Some(guard) = RequestGuard::begin(cluster, &host, RoutingPriority::Default) else {
                return Err(TunnelFailure { kind: TunnelFailureKind::NoRequest, text: None, response: None });
            };
            let mut tunnel = PooledTunnel {
                stream,
                guard,
                response: HeaderMap::new(),
                sent: false,
                received: false,
                failed: false,
            };
            let declined = |reset| failure(TunnelFailureKind::Declined, &reset);
            let agreed = tunnel.ask(&request).await.map_err(declined)?;
            if agreed {
                return Ok(Box::new(tunnel) as Box<dyn HttpTunnel>);
            }
            let response = std::mem::take(&mut tunnel.response);
            let status = response.status().unwrap_or(0);
            Err(TunnelFailure {
                kind: TunnelFailureKind::Declined,
                text: Some(format!("tunnel_response:{status}")),
                response: Some(response),
            })
        })
    }
}

/// Takes a stream to the host, waiting for a connection where none is free.
async fn acquire(
    pools: &Rc<HttpPools>,
    cluster: &Rc<WorkerCluster>,
    host: &Arc<Host>,
    options: Option<Box<SecureOptions>>,
) -> Result<UpstreamStream, Reset> {
    let mut pending = PendingGuard::new(cluster);
    let next_host = || Some((cluster.peek_host(&LbContext::default())?, options.clone()));
    let foresight = Foresight::of(cluster, &next_host);
    let priority = RoutingPriority::Default;
    let acquired = match pools.acquire(cluster, host, priority, false, options.clone(), foresight) {
        Ok(Acquired::Ready(stream)) => Ok(stream),
        Ok(Acquired::Wait(waiting)) => waiting.await,
        Ok(Acquired::NoPool) => Err(Reset::new(ResetKind::Overflow)),
        Err(reset) => Err(reset),
    };
    pending.settle();
    acquired
}

fn failure(kind: TunnelFailureKind, reset: &Reset) -> TunnelFailure {
    TunnelFailure { kind, text: reset.transport.as_deref().map(Into::into), response: None }
}

/// A stream whose bodies are the directions of a connection.
#[derive(Debug)]
struct PooledTunnel {
    stream: UpstreamStream,
    guard: RequestGuard,
    response: HeaderMap,
    /// Our direction was ended.
    sent: bool,
    /// The host's direction has ended.
    received: bool,
    /// The stream broke off.
    failed: bool,
}

impl PooledTunnel {
    /// Sends the request and waits for the answer; whether the host agrees.
    async fn ask(&mut self, request: &HeaderMap) -> Result<bool, Reset> {
        // Whatever becomes of the tunnel, a connection of HTTP/1 carries nothing behind it.
        self.stream.end_here();
        let begun = self.stream.begin(request, false);
        self.note(begun)?;
        let head = loop {
            let answer = poll_fn(|cx| {
                if let Poll::Ready(Err(reset)) = self.stream.poll_flush(cx) {
                    return Poll::Ready(Err(reset));
                }
                self.stream.poll_head(cx, &mut self.response)
            })
            .await;
            let head = self.note(answer)?;
            if !head.informational {
                break head;
            }
        };
        let agreed = match &self.stream {
            UpstreamStream::H2(_) => head.status == 200,
            UpstreamStream::H1(_) | UpstreamStream::Tunnel(_) => (200..300).contains(&head.status),
        };
        Ok(agreed && head.body != BodyLength::None)
    }

    /// Counts what the host did to the stream.
    fn note<T>(&mut self, result: Result<T, Reset>) -> Result<T, Reset> {
        if let Err(reset) = &result
            && !std::mem::replace(&mut self.failed, true)
        {
            self.guard.count_reset(&self.stream, reset);
        }
        result
    }

    fn noted<T>(&mut self, result: Poll<Result<T, Reset>>) -> Poll<io::Result<T>> {
        let result = ready!(result);
        Poll::Ready(self.note(result).map_err(|reset| match reset.kind {
            ResetKind::RemoteReset
            | ResetKind::RemoteRefusedStreamReset
            | ResetKind::RemoteResetNoError
            | ResetKind::ConnectError => io::ErrorKind::ConnectionReset.into(),
            _ => io::ErrorKind::ConnectionAborted.into(),
        }))
    }
}

impl HttpTunnel for PooledTunnel {
    fn connection(&self) -> &ConnectionGuard {
        self.stream.connection()
    }

    fn response(&self) -> &HeaderMap {
        &self.response
    }

    fn trailers(&self) -> Option<&HeaderMap> {
        self.stream.trailers()
    }

    fn ends_as_one(&self) -> bool {
        matches!(self.stream, UpstreamStream::H1(_))
    }

    fn poll_data(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<bool>> {
        if self.received {
            return Poll::Ready(Ok(false));
        }
        let state = match ready!(self.stream.poll_body(cx)) {
            // The end of the connection is that of what a CONNECT carries.
            Err(reset) if self.ends_as_one() && reset.kind == ResetKind::ConnectionTermination => {
                Ok(BodyState::End)
            }
            other => other,
        };
        let state = ready!(self.noted(Poll::Ready(state)))?;
        self.received = state == BodyState::End;
        Poll::Ready(Ok(!self.received))
    }

    fn chunk(&self) -> &[u8] {
        self.stream.chunk()
    }

    fn consume(&mut self, count: usize) {
        self.stream.consume(count);
    }

    fn poll_write(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = self.stream.poll_write(cx, &mut BufferedBody::new(bytes, None));
        self.noted(written)
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = self.stream.poll_flush(cx);
        self.noted(flushed)
    }

    fn poll_finish(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.sent {
            let finished = self.stream.poll_finish(cx, None);
            ready!(self.noted(finished))?;
            self.sent = true;
        }
        Poll::Ready(Ok(()))
    }
}

impl Drop for PooledTunnel {
    fn drop(&mut self) {
        let complete = self.sent && self.received;
        if !complete && !self.failed {
            self.guard.count_given_up(&self.stream);
        }
    }
}
