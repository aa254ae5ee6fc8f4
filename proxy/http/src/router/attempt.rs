//! One attempt: a stream from the pool, and what is counted about the request on it.

use std::cell::Cell;
use std::future::poll_fn;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::Poll;
use std::time::Duration;

use dhow_proxy_api::Protocol;
use dhow_proxy_runtime::DeadlineTimer;
use dhow_proxy_upstream::{
    Host, HostResult, Permit, Resource, RoutingPriority, SecureOptions, WorkerCluster,
};

use super::{Forwarding, poll_deadlines};
use crate::downstream::Downstream;
use crate::reset::ResetKind;
use crate::stream::{Exchange, Interruption};
use crate::upstream::{Acquired, UpstreamStream};

impl Exchange {
    /// Takes a stream to the host, waiting for a connection where none is free.
    pub(super) async fn acquire<D: Downstream>(
        &mut self,
        down: &mut D,
        timer: &mut DeadlineTimer,
        forwarding: &Forwarding,
        (cluster, host): (&Rc<WorkerCluster>, &Arc<Host>),
    ) -> Result<UpstreamStream, Interruption> {
        let manager = self.manager.clone();
        let http = &forwarding.cluster.info().http;
        let mut options = SecureOptions::default();
        if http.auto_sni || http.auto_san_validation {
            let name = host_without_port(self.request.authority());
            if http.auto_sni {
                options.server_name = Some(name.clone());
            }
            if http.auto_san_validation {
                options.verify_names.push(name);
            }
        }
        if self.terminates_connect() {
            return self.open_tunnel(down, timer, forwarding, (cluster, host), &options).await;
        }
        let http2 = down.protocol() == Protocol::Http2;
        let acquired = manager.pools.acquire(cluster, host, forwarding.priority, http2, options);
        match acquired.map_err(Interruption::Upstream)? {
            Acquired::Ready(stream) => Ok(stream),
            Acquired::Wait(mut waiting) => {
                poll_fn(|cx| {
                    if let Poll::Ready(result) = waiting.as_mut().poll(cx) {
                        return Poll::Ready(result.map_err(Interruption::Upstream));
                    }
                    if down.request_complete()
                        && let Poll::Ready(reset) = down.poll_closed(cx)
                    {
                        return Poll::Ready(Err(Interruption::Downstream(reset)));
                    }
                    poll_deadlines(cx, timer, &self.deadlines).map(Err)
                })
                .await
            }
        }
    }
}

fn host_without_port(authority: &[u8]) -> String {
    let text = String::from_utf8_lossy(authority);
    match text.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|b| b.is_ascii_digit()) && !host.ends_with(':') => {
            host.to_owned()
        }
        _ => text.into_owned(),
    }
}

/// Counts a request on a host from its head to its end: gauges, the circuit breaker and the host's figures.
pub(super) struct RequestGuard {
    cluster: Rc<WorkerCluster>,
    host: Arc<Host>,
    settled: Cell<bool>,
    _permit: Permit,
}

impl RequestGuard {
    /// None when the circuit breaker for requests is open.
    pub(super) fn begin(
        cluster: Rc<WorkerCluster>,
        host: &Arc<Host>,
        priority: RoutingPriority,
    ) -> Option<Self> {
        let info = cluster.info();
        let permit = info.circuit_breakers.try_acquire(priority, Resource::Requests)?;
        info.stats.upstream_rq_total().inc();
        info.stats.upstream_rq_active().inc();
        host.stats().rq_total.fetch_add(1, Ordering::Relaxed);
        host.stats().rq_active.fetch_add(1, Ordering::Relaxed);
        Some(Self { cluster, host: host.clone(), settled: Cell::new(false), _permit: permit })
    }

    fn settle(&self, figure: &std::sync::atomic::AtomicU64) {
        if !self.settled.replace(true) {
            figure.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// A response head came.
    pub(super) fn on_response(&self, status: u16) {
        let stats = self.host.stats();
        if status >= 500 {
            self.settle(&stats.rq_error);
        } else {
            self.settle(&stats.rq_success);
        }
        self.cluster.note_result(&self.host, HostResult::HttpStatus(status));
    }

    /// The response is a redirect that is followed here; the rest of it is dropped.
    pub(super) fn on_redirected(&self) {
        self.cluster.info().stats.upstream_rq_cancelled().inc();
    }

    /// The attempt ended without a whole response.
    pub(super) fn on_failure(&self) {
        self.settle(&self.host.stats().rq_error);
        self.cluster.note_result(&self.host, HostResult::ConnectFailed);
    }

    /// The attempt ran out of time.
    pub(super) fn on_timeout(&self) {
        self.host.stats().rq_timeout.fetch_add(1, Ordering::Relaxed);
        self.settle(&self.host.stats().rq_error);
        self.cluster.note_result(&self.host, HostResult::Timeout);
    }

    /// Counts what became of the stream when the exchange on it broke off, by who ended it.
    pub(super) fn count_reset(&self, stream: &UpstreamStream, end: &Interruption) {
        let stats = &self.cluster.info().stats;
        match (stream, end) {
            (UpstreamStream::H1(_), Interruption::Upstream(reset)) => {
                if reset.kind == ResetKind::ProtocolError {
                    stats.upstream_cx_protocol_error().inc();
                }
            }
            (UpstreamStream::H1(_) | UpstreamStream::Tunnel(_), _) => {}
            (UpstreamStream::H2(_), Interruption::Upstream(reset)) => match reset.kind {
                ResetKind::RemoteReset | ResetKind::RemoteResetNoError => stats.upstream_rq_rx_reset().inc(),
                ResetKind::LocalReset | ResetKind::ProtocolError => stats.upstream_rq_tx_reset().inc(),
                ResetKind::ConnectionTermination
                | ResetKind::LocalConnectionFailure
                | ResetKind::RemoteConnectionFailure
                | ResetKind::ConnectionTimeout => stats.upstream_rq_pending_failure_eject().inc(),
                ResetKind::RemoteRefusedStreamReset | ResetKind::Overflow => {}
            },
            // Giving a stream up resets it.
            (
                UpstreamStream::H2(_),
                Interruption::Downstream(_) | Interruption::Expired(_) | Interruption::Answered(..),
            ) => {
                stats.upstream_rq_tx_reset().inc();
            }
        }
    }

    /// The whole response came, in this time.
    pub(super) fn complete(&self, internal: bool, time: Duration) {
        self.cluster.info().stats.record_request_time(internal, time.as_millis() as u64);
    }
}

impl Drop for RequestGuard {
    fn drop(&mut self) {
        self.cluster.info().stats.upstream_rq_active().dec();
        self.host.stats().rq_active.fetch_sub(1, Ordering::Relaxed);
    }
}
