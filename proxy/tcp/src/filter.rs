//! The TCP proxy at work: connect, move bytes, log.

use std::future::poll_fn;
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};

use dhow_base::ResponseFlag;
use dhow_net::Transport;
use dhow_proxy_access_log::Logged;
use dhow_proxy_api::{
    CloseType, Connection, ConnectionHandler, ConnectionInfo, DrainEvent, DrainState, FilterStateValue,
    LocalFuture, LogMoment, NetworkFilter, StreamFormat, StreamInfo,
};
use dhow_proxy_runtime::{DeadlineTimer, LoadShedPoint, ReadBuffer, Worker, overload};
use dhow_proxy_upstream::{HttpTunnels, WorkerClusters};
use dhow_stats::Store;

use crate::config::TcpProxyConfig;
use crate::copy::{Direction, Failed, Upstream};
use crate::stats::{TcpStats, TunnelingStats};

/// Finds what opens tunnels on a worker.
pub type TunnelsOfWorker = fn(&Rc<Worker>) -> Rc<dyn HttpTunnels>;

/// `envoy.filters.network.tcp_proxy`.
#[derive(Debug)]
pub struct TcpProxy {
    config: Arc<TcpProxyConfig>,
    stats: TcpStats,
    /// Kept so that they are shown.
    _tunneling_stats: Option<TunnelingStats>,
    tunnels: TunnelsOfWorker,
}

impl TcpProxy {
    /// The filter of a configuration, counting under `tcp.<stat_prefix>.`; it asks `tunnels` where connections are carried
    /// inside of requests.
    pub fn new(config: TcpProxyConfig, store: &Store, tunnels: TunnelsOfWorker) -> Self {
        let scope = store.scope(&format!("tcp.{}.", config.stat_prefix));
        let tunneling_stats = config.tunneling.is_some().then(|| scope.scope("tcpproxy_tunneling.").group());
        Self { config: Arc::new(config), stats: scope.group(), _tunneling_stats: tunneling_stats, tunnels }
    }
}

impl NetworkFilter for TcpProxy {
    fn on_worker(&self, worker: &Rc<Worker>) -> Rc<dyn ConnectionHandler> {
        Rc::new(Handler {
            worker: worker.clone(),
            clusters: worker.existing_extension(),
            config: self.config.clone(),
            stats: self.stats.clone(),
            tunnels: self.config.tunneling.as_ref().map(|_| (self.tunnels)(worker)),
            draining: DrainState::default(),
        })
    }
}

/// The filter on a worker.
pub(crate) struct Handler {
    pub(crate) worker: Rc<Worker>,
    pub(crate) clusters: Rc<WorkerClusters>,
    pub(crate) config: Arc<TcpProxyConfig>,
    pub(crate) stats: TcpStats,
    /// There where connections go inside of requests.
    pub(crate) tunnels: Option<Rc<dyn HttpTunnels>>,
    draining: DrainState,
}

impl ConnectionHandler for Handler {
    fn serve(self: Rc<Self>, connection: Connection) -> LocalFuture<()> {
        Box::pin(async move {
            let Connection { transport, info } = connection;
            let stream_id = self.worker.random();
            let mut stream = StreamInfo::new(info, None, Instant::now(), stream_id);
            stream.upstream.close_type = Some(CloseType::Normal);
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
        let mut stream = StreamInfo::new(connection, None, start, self.worker.random());
        stream.upstream.close_type = Some(CloseType::Normal);
        self.finish(stream);
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
            if stream.upstream.connection_id.is_some() {
                stream.upstream.local_close_reason = record.local_close_reason.clone();
            }
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

    /// Whether load of the connection is shed at a point this time.
    fn sheds(&self, point: LoadShedPoint, stream: &StreamInfo) -> bool {
        overload().sheds_of(point, stream.connection.bypass_overload_manager, || self.worker.random())
    }

    async fn proxy(&self, mut downstream: Transport, stream: &mut StreamInfo) {
        if self.sheds(LoadShedPoint::TcpProxyConnect, stream) {
            return self.note_limit(&End::Overloaded, stream);
        }
        let limits = Limits {
            idle: match stream.filter_state.get("envoy.tcp_proxy.per_connection_idle_timeout_ms") {
                Some(FilterStateValue::Number(0)) => None,
                Some(FilterStateValue::Number(millis)) => Some(Duration::from_millis(*millis)),
                _ => self.config.idle_timeout,
            },
            end: self.config.max_duration(self.worker.random()).map(|longest| Instant::now() + longest),
        };
        let mut upstream = match self.connect_in_time(&mut downstream, stream, limits).await {
            Ok(Some(upstream)) => upstream,
            Ok(None) => return,
            Err(end) => {
                self.note_limit(&end, stream);
                if self.config.tunneling.is_some() && stream.upstream.attempts > 0 {
                    stream.flag(ResponseFlag::UpstreamConnectionFailure);
                }
                return;
            }
        };
        let connection = upstream.connection();
        stream.upstream.local_address = connection.local_address();
        stream.upstream.connection_id = Some(connection.id());
        stream.upstream.tls = connection.tls().cloned();
        stream.upstream.connect = Some((connection.begun(), connection.connected()));
        if self.config.logs_connected {
            stream.log_moment = LogMoment::TcpConnected;
            self.log(stream);
        }
        let pool = self.worker.buffers();
        let mut sent = Direction::new(ReadBuffer::new(pool.clone()));
        let mut received = Direction::new(ReadBuffer::new(pool.clone()));
        let end =
            self.copy((&mut downstream, &mut upstream), (&mut sent, &mut received), stream, limits).await;
        stream.log_moment = LogMoment::End;
        self.note_limit(&end, stream);
        match end {
            End::UpstreamFailed(error) => match &upstream {
                Upstream::Plain(..) => {
                    upstream.set_closed_by_host();
                    stream.flag(ResponseFlag::UpstreamRemoteReset);
                    stream.upstream.close_type = Some(CloseType::RemoteReset);
                    stream.connection.record_mut().borrow_mut().close_type = CloseType::LocalReset;
                    downstream.reset_on_close();
                }
                Upstream::Tunnel(_) if error.kind() == io::ErrorKind::ConnectionReset => {
                    stream.flag(ResponseFlag::UpstreamRemoteReset);
                    downstream.reset_on_close();
                }
                Upstream::Tunnel(_) => {}
            },
            End::DownstreamFailed => {
                let record = stream.connection.record_mut();
                let mut record = record.borrow_mut();
                if !record.ended_by_filter {
                    record.close_type = CloseType::RemoteReset;
                }
                upstream.reset_on_close();
            }
            End::Complete { by_host: true } => upstream.set_closed_by_host(),
            End::Complete { by_host: false }
            | End::Drained
            | End::Idle
            | End::MaxDuration
            | End::Overloaded => {}
        }
        if let (Some(tunneling), Upstream::Tunnel(tunnel)) = (&self.config.tunneling, &upstream)
            && let Some(trailers) = tunnel.trailers()
        {
            tunneling.keep_trailers(stream, trailers);
        }
        stream.bytes_received = sent.taken();
        stream.bytes_sent = received.moved;
        let cluster = &upstream.connection().info().stats;
        cluster.upstream_cx_tx_bytes_total().add(sent.moved);
        cluster.upstream_cx_rx_bytes_total().add(received.moved);
        self.stats.downstream_cx_rx_bytes_total().add(sent.moved);
        self.stats.downstream_cx_tx_bytes_total().add(received.moved);
    }

    /// Connects to a host, within the limits of the connection; none when there is no host to be had.
    async fn connect_in_time(
        &self,
        downstream: &mut Transport,
        stream: &mut StreamInfo,
        limits: Limits,
    ) -> Result<Option<Upstream>, End> {
        let idle = limits.idle.map(|idle| Instant::now() + idle);
        let connect = async {
            if self.config.awaits_data {
                poll_fn(|cx| downstream.poll_read_ready(cx)).await.ok()?;
                self.stats.early_data_received_count_total().inc();
            }
            self.connect(stream).await
        };
        let Some(deadline) = [idle, limits.end].into_iter().flatten().min() else { return Ok(connect.await) };
        if let Ok(connected) = tokio::time::timeout_at(deadline.into(), connect).await {
            return Ok(connected);
        }
        Err(if limits.end == Some(deadline) { End::MaxDuration } else { End::Idle })
    }

    /// Counts what ended the connection, where it was something of ours.
    fn note_limit(&self, end: &End, stream: &mut StreamInfo) {
        let reason = match end {
            End::Idle => {
                self.stats.idle_timeout().inc();
                "tcp_session_idle_timeout"
            }
            End::MaxDuration => {
                self.stats.max_downstream_connection_duration().inc();
                stream.flag(ResponseFlag::DurationTimeout);
                "max_connection_duration_reached"
            }
            End::Overloaded => {
                self.stats.downstream_cx_overload_close().inc();
                stream.flag(ResponseFlag::OverloadManagerTerminated);
                "overload_manager_close"
            }
            End::Drained => {
                self.stats.downstream_cx_drain_close().inc();
                "tcp_proxy_drain_close"
            }
            End::Complete { .. } | End::UpstreamFailed(_) | End::DownstreamFailed => return,
        };
        stream.connection.record_mut().borrow_mut().local_close_reason = Some(reason.into());
    }

    async fn copy(
        &self,
        (downstream, upstream): (&mut Transport, &mut Upstream),
        (sent, received): (&mut Direction, &mut Direction),
        stream: &mut StreamInfo,
        limits: Limits,
    ) -> End {
        let mut timer = DeadlineTimer::new();
        let begun = Instant::now();
        let mut active = begun;
        let mut host_first = false;
        let mut next_log = self.config.log_interval.map(|interval| begun + interval);
        poll_fn(|cx| {
            loop {
                let before = sent.moved + received.moved;
                let up = match sent
                    .poll(cx, downstream, upstream, || !self.sheds(LoadShedPoint::TcpProxyData, stream))
                {
                    Poll::Ready(Ok(())) => true,
                    Poll::Ready(Err(Failed::Refused)) => return Poll::Ready(End::Overloaded),
                    Poll::Ready(Err(Failed::Source(_))) => return Poll::Ready(End::DownstreamFailed),
                    Poll::Ready(Err(Failed::Sink(error))) => return Poll::Ready(End::UpstreamFailed(error)),
                    Poll::Pending => false,
                };
                let down = match received.poll_from_upstream(cx, upstream, downstream) {
                    Poll::Ready(Ok(())) => true,
                    Poll::Ready(Err(Failed::Source(error))) => {
                        return Poll::Ready(End::UpstreamFailed(error));
                    }
                    Poll::Ready(Err(Failed::Sink(_) | Failed::Refused)) => {
                        return Poll::Ready(End::DownstreamFailed);
                    }
                    Poll::Pending => false,
                };
                if up && down || (up || down) && upstream.ends_as_one() {
                    return Poll::Ready(End::Complete { by_host: !host_first });
                }
                host_first = down;
                if sent.moved + received.moved != before {
                    active = Instant::now();
                    if self.config.ends_when_draining
                        && self.draining.ends_connection(|| self.worker.random())
                    {
                        return Poll::Ready(End::Drained);
                    }
                }
                let idle = limits.idle.map(|timeout| active + timeout);
                let max = limits.end;
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

/// For how long a connection may last.
#[derive(Clone, Copy)]
struct Limits {
    /// Without bytes in either direction.
    idle: Option<Duration>,
    /// Until when, whatever passes.
    end: Option<Instant>,
}

enum End {
    /// Both directions ended, and the host's was the last one where `by_host`.
    Complete {
        by_host: bool,
    },
    /// The listener drains, and `check_drain_close` asks to end.
    Drained,
    Idle,
    MaxDuration,
    /// Load is shed.
    Overloaded,
    UpstreamFailed(io::Error),
    DownstreamFailed,
}
