//! A connection at work: connect, move bytes, and say in the end what became of it.

use std::future::{pending, poll_fn};
use std::io;
use std::rc::Rc;
use std::task::Poll;
use std::time::{Duration, Instant};

use dhow_base::ResponseFlag;
use dhow_net::Transport;
use dhow_proto::envoy::extensions::filters::network::tcp_proxy::v3::UpstreamConnectMode;
use dhow_proxy_api::{CloseType, ConnectionInfo, FilterStateValue, LogMoment, StreamInfo};
use dhow_proxy_runtime::{DeadlineTimer, LoadShedPoint, ReadBuffer};

use crate::copy::{Direction, Failed, Upstream};
use crate::filter::Handler;

/// A connection that is proxied. What became of it is counted and logged when this is dropped, whatever ended it.
pub(crate) struct Session {
    handler: Rc<Handler>,
    stream: StreamInfo,
    /// Whether the connection ended by itself.
    ended: bool,
    upstream: Option<Upstream>,
    sent: Direction,
    received: Direction,
}

impl Session {
    /// Counts the connection.
    pub(crate) fn new(handler: Rc<Handler>, info: Rc<ConnectionInfo>, start: Instant) -> Self {
        handler.stats.downstream_cx_total().inc();
        let mut stream = StreamInfo::new(info, None, start, handler.worker.random());
        stream.upstream.close_type = Some(CloseType::Normal);
        let direction = || Direction::new(ReadBuffer::new(handler.worker.buffers().clone()));
        Self { stream, ended: false, upstream: None, sent: direction(), received: direction(), handler }
    }

    /// Logs the connection's begin, where that is wanted.
    pub(crate) fn begin(&mut self) {
        if self.handler.config.logs_start {
            self.log_at(LogMoment::TcpStart);
        }
    }

    /// The connection ends before it is proxied.
    pub(crate) fn end(mut self) {
        self.ended = true;
    }

    /// Proxies the connection to its end.
    pub(crate) async fn proxy(&mut self, mut downstream: Transport) {
        let end = self.run(&mut downstream).await;
        self.ended = true;
        self.note_limit(&end);
        match end {
            End::Unconnected | End::Overloaded | End::Drained => {}
            End::Idle | End::MaxDuration => {
                let no_tunnel = self.upstream.is_none() && self.handler.config.tunneling.is_some();
                if no_tunnel && self.stream.upstream.attempts > 0 {
                    self.stream.flag(ResponseFlag::UpstreamConnectionFailure);
                }
            }
            End::UpstreamFailed(error) => self.note_upstream_failure(&error, &downstream),
            End::DownstreamFailed => self.note_downstream_failure(),
            End::Complete { by_host: true } => {
                self.upstream.iter().for_each(Upstream::set_closed_by_host);
            }
            End::Complete { by_host: false } => {}
        }
    }

    async fn run(&mut self, downstream: &mut Transport) -> End {
        let handler = self.handler.clone();
        if handler.sheds(LoadShedPoint::TcpProxyConnect, &self.stream) {
            return End::Overloaded;
        }
        let limits = Limits {
            idle: match self.stream.filter_state.get("envoy.tcp_proxy.per_connection_idle_timeout_ms") {
                Some(FilterStateValue::Number(0)) => None,
                Some(FilterStateValue::Number(millis)) => Some(Duration::from_millis(*millis)),
                _ => handler.config.idle_timeout,
            },
            end: handler.config.max_duration(handler.worker.random()).map(|longest| Instant::now() + longest),
        };
        let upstream = match self.connect_in_time(downstream, limits).await {
            Ok(upstream) => upstream,
            Err(end) => return end,
        };
        let connection = upstream.connection();
        let of_stream = &mut self.stream.upstream;
        of_stream.local_address = connection.local_address();
        of_stream.connection_id = Some(connection.id());
        of_stream.tls = connection.tls().cloned();
        of_stream.connect = Some((connection.begun(), connection.connected()));
        if handler.config.logs_connected {
            // There are some where the first bytes were waited for.
            self.stream.bytes_received = self.sent.taken();
            self.log_at(LogMoment::TcpConnected);
        }
        let upstream = self.upstream.insert(upstream);
        copy(&handler, (downstream, upstream), (&mut self.sent, &mut self.received), &mut self.stream, limits)
            .await
    }

    /// Connects to a host, within the limits of the connection.
    async fn connect_in_time(&mut self, downstream: &mut Transport, limits: Limits) -> Result<Upstream, End> {
        let idle = limits.idle.map(|idle| Instant::now() + idle);
        let Self { handler, stream, sent, .. } = self;
        let connect = async {
            if handler.config.connect_mode == UpstreamConnectMode::OnDownstreamData {
                let first = poll_fn(|cx| sent.poll_first(cx, downstream)).await;
                let has_bytes = first.map_err(|_| End::DownstreamFailed)?;
                handler.stats.early_data_received_count_total().inc();
                if !has_bytes {
                    // A client that ends without a byte waits as long as it may, as in Envoy.
                    return pending().await;
                }
            }
            handler.connect(stream).await.ok_or(End::Unconnected)
        };
        let Some(deadline) = [idle, limits.end].into_iter().flatten().min() else { return connect.await };
        if let Ok(connected) = tokio::time::timeout_at(deadline.into(), connect).await {
            return connected;
        }
        Err(if limits.end == Some(deadline) { End::MaxDuration } else { End::Idle })
    }

    /// Counts what ended the connection, where it was something of ours.
    fn note_limit(&mut self, end: &End) {
        let stats = &self.handler.stats;
        let reason = match end {
            End::Idle => {
                stats.idle_timeout().inc();
                "tcp_session_idle_timeout"
            }
            End::MaxDuration => {
                stats.max_downstream_connection_duration().inc();
                self.stream.flag(ResponseFlag::DurationTimeout);
                "max_connection_duration_reached"
            }
            End::Overloaded => {
                stats.downstream_cx_overload_close().inc();
                self.stream.flag(ResponseFlag::OverloadManagerTerminated);
                "overload_manager_close"
            }
            End::Drained => {
                stats.downstream_cx_drain_close().inc();
                "tcp_proxy_drain_close"
            }
            End::Unconnected | End::Complete { .. } | End::UpstreamFailed(_) | End::DownstreamFailed => {
                return;
            }
        };
        self.stream.connection.record_mut().borrow_mut().local_close_reason = Some(reason.into());
    }

    fn note_upstream_failure(&mut self, error: &io::Error, downstream: &Transport) {
        match &self.upstream {
            // A host that had ended its direction before resets nothing: the kernel calls that a broken pipe.
            Some(upstream @ Upstream::Plain(_)) if error.kind() != io::ErrorKind::ConnectionReset => {
                upstream.set_closed_by_host();
            }
            Some(upstream @ Upstream::Plain(_)) => {
                upstream.set_closed_by_host();
                self.stream.flag(ResponseFlag::UpstreamRemoteReset);
                self.stream.upstream.close_type = Some(CloseType::RemoteReset);
                self.stream.connection.record_mut().borrow_mut().close_type = CloseType::LocalReset;
                downstream.reset_on_close();
            }
            Some(Upstream::Tunnel(_)) if error.kind() == io::ErrorKind::ConnectionReset => {
                self.stream.flag(ResponseFlag::UpstreamRemoteReset);
                downstream.reset_on_close();
            }
            Some(Upstream::Tunnel(_)) | None => {}
        }
    }

    fn note_downstream_failure(&mut self) {
        let connection = &self.stream.connection;
        // A handshake that fails is an orderly end.
        if connection.tls.is_expected() && connection.tls.session().is_none() {
            return;
        }
        let record = connection.record_mut();
        let mut record = record.borrow_mut();
        if !record.ended_by_filter {
            record.close_type = CloseType::RemoteReset;
        }
        self.upstream.iter().for_each(Upstream::reset_on_close);
    }

    fn log_at(&mut self, moment: LogMoment) {
        self.stream.log_moment = moment;
        self.handler.log(&self.stream);
        self.stream.log_moment = LogMoment::End;
    }

    /// Counts the bytes, and lets go of the host.
    fn let_go(&mut self) {
        let Some(upstream) = self.upstream.take() else { return };
        if let (Some(tunneling), Upstream::Tunnel(tunnel)) = (&self.handler.config.tunneling, &upstream)
            && let Some(trailers) = tunnel.trailers()
        {
            tunneling.keep_trailers(&mut self.stream, trailers);
        }
        self.stream.bytes_received = self.sent.taken();
        self.stream.bytes_sent = self.received.taken();
        count_bytes(&self.handler, &upstream, &mut self.sent, &mut self.received);
    }
}

impl Drop for Session {
    /// Logs the connection, and leaves what became of it to who looks at the connection as a whole.
    fn drop(&mut self) {
        self.let_go();
        if !self.ended {
            let record = self.stream.connection.record_mut();
            let reason = || self.handler.draining.close_reason().into();
            record.borrow_mut().local_close_reason.get_or_insert_with(reason);
        }
        let stream = &mut self.stream;
        stream.log_moment = LogMoment::End;
        stream.end = Some(Instant::now());
        if let Some(noted) = stream.connection.record() {
            let mut record = noted.borrow_mut();
            stream.absorb(&record);
            stream.bytes_received += record.bytes_refused;
            self.handler.stats.downstream_cx_rx_bytes_total().add(record.bytes_refused);
            if stream.upstream.connection_id.is_some() {
                stream.upstream.local_close_reason = record.local_close_reason.clone();
            }
            record.flags = stream.flags;
            record.details = stream.details.clone();
            record.termination_details = stream.connection_termination_details.clone();
            record.upstream = stream.upstream.clone();
            record.bytes_received.set(stream.bytes_received);
            record.bytes_sent.set(stream.bytes_sent);
            if record.after_log.is_some() {
                drop(record);
                // The listener's line comes first, as in Envoy.
                let empty = StreamInfo::new(stream.connection.clone(), None, stream.start, 0);
                let (handler, stream) = (self.handler.clone(), std::mem::replace(stream, empty));
                if let Some(after) = &mut noted.borrow_mut().after_log {
                    after.add(move || handler.log(&stream));
                }
                return;
            }
        }
        self.handler.log(stream);
    }
}

/// Counts the bytes that came and passed since this was done last, and says whether there were any.
fn count_bytes(
    handler: &Handler,
    upstream: &Upstream,
    sent: &mut Direction,
    received: &mut Direction,
) -> bool {
    let cluster = &upstream.connection().info().stats;
    let (from_client, to_host) = sent.count();
    let (from_host, to_client) = received.count();
    if from_client + to_host + from_host + to_client == 0 {
        return false;
    }
    handler.stats.downstream_cx_rx_bytes_total().add(from_client);
    // The connection of a tunnel counts its own, what is around the bytes among them.
    if !matches!(upstream, Upstream::Tunnel(_)) {
        cluster.upstream_cx_tx_bytes_total().add(to_host);
        cluster.upstream_cx_rx_bytes_total().add(from_host);
    }
    handler.stats.downstream_cx_tx_bytes_total().add(to_client);
    true
}

async fn copy(
    handler: &Handler,
    (downstream, upstream): (&mut Transport, &mut Upstream),
    (sent, received): (&mut Direction, &mut Direction),
    stream: &mut StreamInfo,
    limits: Limits,
) -> End {
    let config = &handler.config;
    let mut timer = DeadlineTimer::new();
    let begun = Instant::now();
    let mut active = begun;
    let mut host_first = false;
    let mut next_log = config.log_interval.map(|interval| begun + interval);
    poll_fn(|cx| {
        loop {
            let admits = || !handler.sheds(LoadShedPoint::TcpProxyData, stream);
            let up = match sent.poll(cx, downstream, upstream, admits) {
                Poll::Ready(Ok(())) => true,
                Poll::Ready(Err(Failed::Refused)) => return Poll::Ready(End::Overloaded),
                Poll::Ready(Err(Failed::Source(_))) => return Poll::Ready(End::DownstreamFailed),
                Poll::Ready(Err(Failed::Sink(error))) => return Poll::Ready(End::UpstreamFailed(error)),
                Poll::Pending => false,
            };
            let down = match received.poll_from_upstream(cx, upstream, downstream) {
                Poll::Ready(Ok(())) => true,
                Poll::Ready(Err(Failed::Source(error))) => return Poll::Ready(End::UpstreamFailed(error)),
                Poll::Ready(Err(Failed::Sink(_) | Failed::Refused)) => {
                    return Poll::Ready(End::DownstreamFailed);
                }
                Poll::Pending => false,
            };
            if up && down || (up || down) && upstream.ends_as_one() {
                return Poll::Ready(End::Complete { by_host: !host_first });
            }
            host_first = down;
            if count_bytes(handler, upstream, sent, received) {
                active = Instant::now();
                if config.ends_when_draining && handler.draining.ends_connection(|| handler.worker.random()) {
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
                *at = now + config.log_interval.unwrap_or_default();
                stream.log_moment = LogMoment::TcpPeriodic;
                (stream.bytes_received, stream.bytes_sent) = (sent.taken(), received.taken());
                // Periodic entries tell how long the connection has lasted so far.
                stream.end = Some(now);
                handler.log(stream);
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

/// For how long a connection may last.
#[derive(Clone, Copy)]
struct Limits {
    /// Without bytes in either direction.
    idle: Option<Duration>,
    /// Until when, whatever passes.
    end: Option<Instant>,
}

enum End {
    /// There is no host to be had; the reason is noted.
    Unconnected,
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
