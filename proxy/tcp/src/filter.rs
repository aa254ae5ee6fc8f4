//! The TCP proxy at work: choose a cluster and a host, connect, move bytes, log.

use std::future::poll_fn;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};

use dhow_base::{Backoff, ResponseFlag, Rng};
use dhow_net::Transport;
use dhow_proxy_access_log::Logged;
use dhow_proxy_api::{
    Connection, ConnectionHandler, ConnectionInfo, DrainEvent, DrainState, FilterStateValue, LocalFuture,
    LogMoment, NetworkFilter, StreamFormat, StreamInfo,
};
use dhow_proxy_runtime::{DeadlineTimer, ReadBuffer, Worker};
use dhow_proxy_upstream::{
    ClosedBy, LbContext, ProxiedConnection, Resource, RoutingPriority, SecureOptions, UpstreamConnection,
    WorkerCluster, WorkerClusters, connect,
};
use dhow_stats::Store;
use twox_hash::XxHash64;

use crate::config::{HashSource, Target, TcpProxyConfig};
use crate::copy::Direction;
use crate::stats::TcpStats;

/// `envoy.filters.network.tcp_proxy`.
#[derive(Debug)]
pub struct TcpProxy {
    config: Arc<TcpProxyConfig>,
    stats: TcpStats,
}

impl TcpProxy {
    /// The filter of a configuration, counting under `tcp.<stat_prefix>.`.
    pub fn new(config: TcpProxyConfig, store: &Store) -> Self {
        let stats = store.scope(&format!("tcp.{}.", config.stat_prefix)).group();
        Self { config: Arc::new(config), stats }
    }
}

impl NetworkFilter for TcpProxy {
    fn on_worker(&self, worker: &Rc<Worker>) -> Rc<dyn ConnectionHandler> {
        Rc::new(Handler {
            worker: worker.clone(),
            clusters: worker.existing_extension(),
            config: self.config.clone(),
            stats: self.stats.clone(),
            draining: DrainState::default(),
        })
    }
}

struct Handler {
    worker: Rc<Worker>,
    clusters: Rc<WorkerClusters>,
    config: Arc<TcpProxyConfig>,
    stats: TcpStats,
    draining: DrainState,
}

impl ConnectionHandler for Handler {
    fn serve(self: Rc<Self>, connection: Connection) -> LocalFuture<()> {
        Box::pin(async move {
            let Connection { transport, info } = connection;
            let stream_id = self.worker.random();
            let mut stream = StreamInfo::new(info, None, Instant::now(), stream_id);
            self.stats.downstream_cx_total().inc();
            if self.config.logs_start {
                stream.log_moment = LogMoment::TcpStart;
                self.log(&stream);
                stream.log_moment = LogMoment::End;
            }
            self.proxy(transport, &mut stream).await;
            self.finish(stream);
        })
    }

    fn refuse(&self, connection: Rc<ConnectionInfo>, _secure: bool) {
        self.stats.downstream_cx_total().inc();
        let start = connection.start;
        self.finish(StreamInfo::new(connection, None, start, self.worker.random()));
    }

    fn on_drain(&self, event: DrainEvent) {
        // A stream of bytes has no point at which to end gracefully: it is closed when the drain time is over, unless
        // `check_drain_close` says that any point will do.
        self.draining.apply(event);
    }
}

impl Handler {
    /// Logs a connection that is over, and leaves what became of it to who looks at the connection as a whole.
    fn finish(&self, mut stream: StreamInfo) {
        stream.end = Some(Instant::now());
        if let Some(record) = stream.connection.record() {
            let mut record = record.borrow_mut();
            stream.absorb(&record);
            stream.bytes_received += record.bytes_refused;
            self.stats.downstream_cx_rx_bytes_total().add(record.bytes_refused);
            record.flags = stream.flags;
            record.details = stream.details.clone();
            record.termination_details = stream.connection_termination_details.clone();
            record.upstream = stream.upstream.clone();
        }
        self.log(&stream);
    }

    fn log(&self, stream: &StreamInfo) {
        let context = StreamFormat::new(stream);
        for log in &self.config.access_logs {
            log.log(&context, &Logged { info: stream, request: None });
        }
    }

    async fn proxy(&self, mut downstream: Transport, stream: &mut StreamInfo) {
        if self.config.awaits_data {
            if poll_fn(|cx| downstream.poll_read_ready(cx)).await.is_err() {
                return;
            }
            self.stats.early_data_received_count_total().inc();
        }
        let Some(UpstreamConnection { transport: mut upstream, guard, local_address, .. }) =
            self.connect(stream).await
        else {
            return;
        };
        stream.upstream.local_address = local_address;
        stream.upstream.connection_id = Some(guard.id());
        stream.upstream.tls = guard.tls().cloned();
        stream.upstream.connect = Some((guard.begun(), guard.connected()));
        guard.count_request();
        if self.config.logs_connected {
            stream.log_moment = LogMoment::TcpConnected;
            self.log(stream);
        }
        let pool = self.worker.buffers();
        let mut sent = Direction::new(ReadBuffer::new(pool.clone()));
        let mut received = Direction::new(ReadBuffer::new(pool.clone()));
        let end = self.copy(&mut downstream, &mut upstream, &mut sent, &mut received, stream).await;
        stream.log_moment = LogMoment::End;
        match end {
            End::Complete | End::Drained => {}
            End::Idle => {
                self.stats.idle_timeout().inc();
                stream.connection.record_mut().borrow_mut().local_close_reason =
                    Some("tcp_session_idle_timeout".into());
            }
            End::MaxDuration => {
                self.stats.max_downstream_connection_duration().inc();
                stream.flag(ResponseFlag::DurationTimeout);
                stream.connection.record_mut().borrow_mut().local_close_reason =
                    Some("max_connection_duration_reached".into());
            }
            End::UpstreamFailed => {
                guard.set_closed_by(ClosedBy::Remote);
                downstream.reset_on_close();
            }
            End::DownstreamFailed => upstream.reset_on_close(),
        }
        stream.bytes_received = sent.moved;
        stream.bytes_sent = received.moved;
        let cluster = &guard.info().stats;
        cluster.upstream_cx_tx_bytes_total().add(sent.moved);
        cluster.upstream_cx_rx_bytes_total().add(received.moved);
        self.stats.downstream_cx_rx_bytes_total().add(sent.moved);
        self.stats.downstream_cx_tx_bytes_total().add(received.moved);
    }

    async fn connect(&self, stream: &mut StreamInfo) -> Option<UpstreamConnection> {
        let target = self.config.target(self.worker.random());
        // Filters in front may have chosen the cluster (`sni_cluster`).
        let chosen = stream.filter_state.text("envoy.tcp_proxy.cluster");
        let chosen = chosen.and_then(|name| String::from_utf8(name).ok());
        let Some(cluster) = self.clusters.get(chosen.as_deref().unwrap_or(&target.cluster)) else {
            self.stats.downstream_cx_no_route().inc();
            stream.flag(ResponseFlag::NoClusterFound);
            return None;
        };
        stream.upstream.cluster = Some(cluster.info().observability_name.clone());
        stream.upstream.cluster_name = Some(cluster.info().name.clone());
        stream.upstream.cluster_metadata = cluster.info().metadata.clone();
        let mut backoff = self.config.backoff.map(|(base, max)| Backoff::new(base, max));
        for attempt in 0..self.config.max_connect_attempts.max(1) {
            if let Some(backoff) = backoff.as_mut().filter(|_| attempt > 0) {
                tokio::time::sleep(backoff.next(&mut Rng::seeded(self.worker.random()))).await;
            }
            match self.connect_once(&cluster, target, stream).await {
                Attempt::Connected(connection) => return Some(*connection),
                Attempt::Failed => {}
                Attempt::Hopeless => return None,
            }
        }
        cluster.info().stats.upstream_cx_connect_attempts_exceeded().inc();
        stream.flag(ResponseFlag::UpstreamRetryLimitExceeded);
        None
    }

    async fn connect_once(
        &self,
        cluster: &Rc<WorkerCluster>,
        target: &Target,
        stream: &mut StreamInfo,
    ) -> Attempt {
        let priority = RoutingPriority::Default;
        let breakers = &cluster.info().circuit_breakers;
        if !breakers.has_room(priority, Resource::Connections) {
            breakers.count_overflow(Resource::Connections);
            stream.flag(ResponseFlag::UpstreamOverflow);
            return Attempt::Hopeless;
        }
        let context = LbContext {
            original_destination: Some(stream.connection.local_address)
                .filter(|_| stream.connection.local_address_restored),
            hash: self.config.hash.as_ref().and_then(|source| hash_of(source, stream)),
            criteria: target.criteria.as_ref(),
            ..LbContext::default()
        };
        let Some(chosen) = cluster.choose_host(&context) else {
            cluster.info().stats.upstream_cx_none_healthy().inc();
            stream.flag(ResponseFlag::NoHealthyUpstream);
            return Attempt::Hopeless;
        };
        let (info, host) = (chosen.cluster(cluster).info(), &chosen.host);
        let permit = info.circuit_breakers.acquire(priority, Resource::Connections);
        stream.upstream.attempts += 1;
        stream.upstream.host = Some(host.address().to_string().into());
        stream.upstream.host_metadata = Some(host.metadata().endpoint.clone());
        let mut options = SecureOptions::default();
        if host.transport_socket().names_client() {
            let record = stream.connection.record();
            let own = record.map(|record| record.borrow().proxy_extensions.clone());
            options.proxied = Some(Arc::new(ProxiedConnection {
                source: stream.connection.remote_address,
                destination: stream.connection.local_address,
                tlvs: self.config.extensions(own.unwrap_or_default()),
            }));
        }
        match connect(info, host, &options, Some(permit)).await {
            Ok(connection) => Attempt::Connected(Box::new(connection)),
            Err(failure) => {
                stream.flag(ResponseFlag::UpstreamConnectionFailure);
                stream.details = Some(failure.text.replace(' ', "_").into());
                stream.upstream.transport_failure = Some(failure.text.into());
                Attempt::Failed
            }
        }
    }

    async fn copy(
        &self,
        downstream: &mut Transport,
        upstream: &mut Transport,
        sent: &mut Direction,
        received: &mut Direction,
        stream: &mut StreamInfo,
    ) -> End {
        let mut timer = DeadlineTimer::new();
        let begun = Instant::now();
        let mut active = begun;
        let longest = self.config.max_duration(self.worker.random());
        let idle_timeout = match stream.filter_state.get("envoy.tcp_proxy.per_connection_idle_timeout_ms") {
            Some(FilterStateValue::Number(0)) => None,
            Some(FilterStateValue::Number(millis)) => Some(Duration::from_millis(*millis)),
            _ => self.config.idle_timeout,
        };
        let mut next_log = self.config.log_interval.map(|interval| begun + interval);
        poll_fn(|cx| {
            loop {
                let before = sent.moved + received.moved;
                let up = match sent.poll(cx, downstream, upstream) {
                    Poll::Ready(Ok(())) => true,
                    Poll::Ready(Err(_)) => return Poll::Ready(End::DownstreamFailed),
                    Poll::Pending => false,
                };
                let down = match received.poll(cx, upstream, downstream) {
                    Poll::Ready(Ok(())) => true,
                    Poll::Ready(Err(_)) => return Poll::Ready(End::UpstreamFailed),
                    Poll::Pending => false,
                };
                if up && down {
                    return Poll::Ready(End::Complete);
                }
                if sent.moved + received.moved != before {
                    active = Instant::now();
                    if self.config.ends_when_draining
                        && self.draining.ends_connection(|| self.worker.random())
                    {
                        return Poll::Ready(End::Drained);
                    }
                }
                let idle = idle_timeout.map(|timeout| active + timeout);
                let max = longest.map(|max| begun + max);
                if timer.poll(cx, [idle, max, next_log].into_iter().flatten().min()).is_pending() {
                    return Poll::Pending;
                }
                let now = Instant::now();
                if let Some(at) = next_log.as_mut().filter(|at| **at <= now) {
                    *at = now + self.config.log_interval.unwrap_or_default();
                    stream.log_moment = LogMoment::TcpPeriodic;
                    (stream.bytes_received, stream.bytes_sent) = (sent.moved, received.moved);
                    // Periodic entries tell how long the connection has lasted so far.
                    stream.end = Some(now);
                    self.log(stream);
                    stream.end = None;
                }
                if max.is_some_and(|max| max <= now) {
                    return Poll::Ready(End::MaxDuration);
                }
                if idle.is_some_and(|idle| idle <= now) {
                    return Poll::Ready(End::Idle);
                }
            }
        })
        .await
    }
}

enum Attempt {
    Connected(Box<UpstreamConnection>),
    Failed,
    Hopeless,
}

enum End {
    Complete,
    /// The listener drains, and `check_drain_close` asks to end.
    Drained,
    Idle,
    MaxDuration,
    UpstreamFailed,
    DownstreamFailed,
}

/// The hash of a client for clusters that choose hosts by hash.
fn hash_of(source: &HashSource, stream: &StreamInfo) -> Option<u64> {
    let text = match source {
        HashSource::Address => stream.client_address.ip().to_string().into_bytes(),
        HashSource::Object(key) => stream.filter_state.text(key)?,
    };
    Some(XxHash64::oneshot(0, &text))
}
