//! One attempt: a stream from the pool, and what is counted about the request on it.

use std::cell::Cell;
use std::future::poll_fn;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, ready};
use std::time::Instant;

use dhow_expr::grpc_to_http_status;
use dhow_http::h1::{BodyLength, ResponseInfo};
use dhow_http::{HeaderMap, KnownHeader};
use dhow_proxy_api::{LogMoment, Protocol};
use dhow_proxy_runtime::DeadlineTimer;
use dhow_proxy_upstream::{Host, HostResult, LbContext, Permit, Resource, RoutingPriority, WorkerCluster};

use super::host_selection::no_healthy_upstream;
use super::{AttemptLog, Forwarding, early_data, poll_deadlines, sends_early};
use crate::config::ClusterOptions;
use crate::downstream::Downstream;
use crate::reset::{Reset, ResetKind};
use crate::stats::ConnectionManagerStats;
use crate::stream::{Direction, Exchange, Interruption};
use crate::upstream::{Acquired, Foresight, UpstreamStream};

impl Exchange {
    /// Takes a stream to the host, waiting for a connection where none is free.
    pub(super) async fn acquire<D: Downstream>(
        &mut self,
        down: &mut D,
        timer: &mut DeadlineTimer,
        forwarding: &mut Forwarding,
        (cluster, host): (&Rc<WorkerCluster>, &Arc<Host>),
    ) -> Result<UpstreamStream, Interruption> {
        let manager = self.manager.clone();
        let options = self.secure_options(forwarding, cluster, host);
        if self.terminates_connect() {
            let options = options.unwrap_or_default();
            return Box::pin(self.open_tunnel(down, timer, forwarding, (cluster, host), &options)).await;
        }
        let http2 = down.protocol() == Protocol::Http2;
        // An aggregate has a ratio of its own and cannot tell.
        let asked = &forwarding.cluster;
        let context = || LbContext {
            override_host: self.info.override_host.as_ref().map(|host| (&*host.address, host.strict)),
            previous_priorities: forwarding.previous_priorities.as_ref(),
            ..LbContext::default()
        };
        let next_host = || {
            let host = asked.peek_host(&context())?;
            let options = self.secure_options(forwarding, asked, &host);
            Some((host, options))
        };
        let foresight = Foresight::of(asked, &next_host);
        let acquired = manager.pools.acquire(cluster, host, forwarding.priority, http2, options, foresight);
        match acquired.map_err(Interruption::Upstream)? {
            Acquired::Ready(stream) => Ok(stream),
            Acquired::NoPool => {
                self.info.upstream.host = None;
                self.info.upstream.hostname = None;
                Err(Interruption::Answered(Box::new(no_healthy_upstream()), Direction::Request))
            }
            Acquired::Wait(mut waiting) => {
                let rejects_early_data = self.rejects_early_data();
                poll_fn(|cx| {
                    if let Poll::Ready(result) = waiting.as_mut().poll(cx) {
                        return Poll::Ready(result.map_err(Interruption::Upstream));
                    }
                    if let Poll::Ready(reset) = down.poll_closed(cx) {
                        return Poll::Ready(Err(Interruption::Downstream(reset)));
                    }
                    if rejects_early_data && sends_early(cx, down, &mut self.info) {
                        return Poll::Ready(Err(early_data()));
                    }
                    self.poll_attempt_deadlines(cx, timer, forwarding.log.as_deref_mut()).map(Err)
                })
                .await
            }
        }
    }
}

impl Exchange {
    /// Ready with what expired first once a deadline passed; meanwhile the stream and its attempt are logged as often as is wanted.
    fn poll_attempt_deadlines(
        &mut self,
        cx: &mut Context<'_>,
        timer: &mut DeadlineTimer,
        mut log: Option<&mut AttemptLog>,
    ) -> Poll<Interruption> {
        while self.deadlines.has_logs() {
            ready!(timer.poll(cx, self.deadlines.next_or_log()));
            let now = Instant::now();
            if let Some(expired) = self.deadlines.expired(now) {
                return Poll::Ready(Interruption::Expired(expired));
            }
            if self.deadlines.log.is_some_and(|at| at <= now) {
                let interval = self.manager.config.log_moments.interval;
                self.deadlines.log = interval.map(|interval| now + interval);
                self.log(LogMoment::Periodic);
            }
            if self.deadlines.attempt_log.is_some_and(|at| at <= now) {
                let log = log.as_deref_mut();
                self.deadlines.attempt_log =
                    log.and_then(|log| log.write_periodic(&self.info, &self.request, &self.response, now));
            }
        }
        poll_deadlines(cx, timer, &self.deadlines)
    }
}

/// An attempt that waits for a connection: given up, it counts as `upstream_rq_cancelled`.
pub(crate) struct PendingGuard<'a>(Option<&'a WorkerCluster>);

impl<'a> PendingGuard<'a> {
    /// The attempt begins to wait.
    pub(crate) fn new(cluster: &'a WorkerCluster) -> Self {
        Self(Some(cluster))
    }

    /// It is known what became of the connection.
    pub(crate) fn settle(&mut self) {
        self.0 = None;
    }
}

impl Drop for PendingGuard<'_> {
    fn drop(&mut self) {
        if let Some(cluster) = self.0 {
            cluster.info().stats.upstream_rq_cancelled().inc();
        }
    }
}

/// Counts a request on a host from its head to its end: gauges, the circuit breaker and the host's figures.
#[derive(Debug)]
pub(crate) struct RequestGuard {
    cluster: Rc<WorkerCluster>,
    host: Arc<Host>,
    settled: Cell<bool>,
    _permit: Permit,
}

impl RequestGuard {
    /// None when the circuit breaker for requests is open.
    pub(crate) fn begin(
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

    /// A response head came: what the host's health learns from it.
    pub(super) fn on_head(&self, response: &HeaderMap, grpc: bool) {
        if self.cluster.detects_outliers() {
            let status = self.status_for_health(response, grpc);
            self.cluster.note_result(&self.host, HostResult::HttpStatus(status));
            if response.contains_known(KnownHeader::XEnvoyDegraded) {
                self.cluster.note_degraded(&self.host);
            }
        }
        if response.contains_known(KnownHeader::XEnvoyImmediateHealthCheckFail) {
            self.cluster.note_unwilling(&self.host);
        }
    }

    /// The status that a response counts as where hosts are ejected. What the cluster takes for an error is one whatever its
    /// status, and nothing else is; of calls of gRPC nobody asks that.
    fn status_for_health(&self, response: &HeaderMap, grpc: bool) -> u16 {
        let status = response.status().unwrap_or(0);
        if grpc {
            return grpc_status(response).map_or(status, grpc_to_http_status);
        }
        let errors = ClusterOptions::of(&self.cluster).and_then(|options| options.outlier_errors.as_ref());
        match errors.map(|errors| errors.matches(response)) {
            None => status,
            Some(true) => status.max(500),
            Some(false) => 200,
        }
    }

    /// The response is not used: the request is tried again, or another attempt's is awaited.
    pub(super) fn on_discarded(&self) {
        self.settle(&self.host.stats().rq_error);
    }

    /// The response goes to the client. Whether a call of gRPC succeeded shows in its trailers, unless there is nothing but a head.
    pub(super) fn on_accepted(&self, response: &HeaderMap, grpc: bool, end: bool) {
        let stats = self.host.stats();
        match response.status().unwrap_or(0) {
            500..600 => self.settle(&stats.rq_error),
            _ if !grpc => self.settle(&stats.rq_success),
            _ if end => self.on_grpc_status(Some(response)),
            _ => {}
        }
    }

    /// The headers or trailers that have the outcome of a call of gRPC.
    pub(super) fn on_grpc_status(&self, headers: Option<&HeaderMap>) {
        let status = headers.and_then(grpc_status).map(grpc_to_http_status);
        let stats = self.host.stats();
        self.settle(match status {
            Some(0..500) => &stats.rq_success,
            _ => &stats.rq_error,
        });
    }

    /// The attempt ended without a whole response.
    pub(super) fn on_failure(&self) {
        self.settle(&self.host.stats().rq_error);
        self.cluster.note_result(&self.host, HostResult::ConnectFailed);
    }

    /// There is a connection for the attempt.
    pub(super) fn on_connected(&self) {
        self.cluster.note_result(&self.host, HostResult::Connected);
    }

    /// The attempt ran out of time, which the host's health learns.
    pub(super) fn on_timeout(&self) {
        self.cluster.note_result(&self.host, HostResult::Timeout);
    }

    /// The attempt ran out of time and was given up.
    pub(super) fn on_timed_out(&self) {
        self.host.stats().rq_timeout.fetch_add(1, Ordering::Relaxed);
        self.settle(&self.host.stats().rq_error);
    }

    /// The stream lasted too long and was given up.
    pub(super) fn on_too_long(&self) {
        self.cluster.info().stats.upstream_rq_max_duration_reached().inc();
        self.settle(&self.host.stats().rq_error);
    }

    /// A client that was not read because the host was slow is read again.
    pub(super) fn release_client(&self, stream: &UpstreamStream, manager: &ConnectionManagerStats) {
        if stream.is_backed_up() {
            self.cluster.info().stats.upstream_flow_control_drained_total().inc();
            manager.downstream_flow_control_resumed_reading_total().inc();
        }
    }

    /// Counts what became of the stream when the upstream ended it.
    pub(crate) fn count_reset(&self, stream: &UpstreamStream, reset: &Reset) {
        let stats = &self.cluster.info().stats;
        match (stream, reset.kind) {
            (UpstreamStream::H1(_), ResetKind::ProtocolError) => stats.upstream_cx_protocol_error().inc(),
            (UpstreamStream::H1(_) | UpstreamStream::Tunnel(_), _) => {}
            (UpstreamStream::H2(_), kind) => match kind {
                ResetKind::RemoteReset | ResetKind::RemoteResetNoError => stats.upstream_rq_rx_reset().inc(),
                ResetKind::LocalReset | ResetKind::ProtocolError => stats.upstream_rq_tx_reset().inc(),
                ResetKind::ConnectionTermination
                | ResetKind::LocalConnectionFailure
                | ResetKind::RemoteConnectionFailure
                | ResetKind::ConnectionTimeout => stats.upstream_rq_pending_failure_eject().inc(),
                ResetKind::RemoteRefusedStreamReset | ResetKind::ConnectError | ResetKind::Overflow => {}
            },
        }
    }

    /// Counts a stream that is given up: of HTTP/2, it is reset.
    pub(crate) fn count_given_up(&self, stream: &UpstreamStream) {
        if matches!(stream, UpstreamStream::H2(_)) {
            self.cluster.info().stats.upstream_rq_tx_reset().inc();
        }
    }

    /// Counts a stream that is let go at the head of its response: one that has more to come, or to be sent, is given up.
    pub(super) fn count_discarded(&self, stream: &UpstreamStream, head: &ResponseInfo) {
        if head.body != BodyLength::None || !stream.is_request_sent() {
            self.count_given_up(stream);
        }
    }

    /// Counts what became of the stream when the exchange on it broke off, by who ended it.
    pub(super) fn count_end(&self, stream: &UpstreamStream, end: &Interruption) {
        match (stream, end) {
            (stream, Interruption::Upstream(reset)) => self.count_reset(stream, reset),
            (stream, _) => self.count_given_up(stream),
        }
    }
}

/// `grpc-status`, if it is a number.
fn grpc_status(headers: &HeaderMap) -> Option<u64> {
    std::str::from_utf8(headers.get_known(KnownHeader::GrpcStatus)?).ok()?.parse().ok()
}

impl Drop for RequestGuard {
    fn drop(&mut self) {
        // Who sees that the cluster has no request finds none at its hosts either.
        self.host.stats().rq_active.fetch_sub(1, Ordering::Release);
        self.cluster.info().stats.upstream_rq_active().dec();
    }
}
