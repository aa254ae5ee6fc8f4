//! HTTP/2 connections: a task for each stream, and one that moves frames.

use std::cell::Cell;
use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Instant;

use dhow_base::ResponseFlag;
use dhow_http::h1::Underscores;
use dhow_http::h2::{
    ConnectionError, FrameCounts, Offence, ResetCode, ServerConnection, ServerStream, Violation,
};
use dhow_http::{ByteDirection, HeaderMap, KnownHeader};
use dhow_net::Transport;
use dhow_proxy_access_log::Logged;
use dhow_proxy_api::{ConnectionInfo, Protocol, StreamFormat, StreamInfo};
use dhow_proxy_runtime::{DeadlineTimer, LoadShedPoint, OverloadAction, clock, overload};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::downstream::{Downstream, H2Downstream, Streams};
use crate::h2_body::offence_details;
use crate::keepalive::Keepalive;
use crate::manager::Manager;
use crate::stats::ClientFamily;
use crate::stream::Exchange;
use crate::traffic::{CountedTransport, Traffic};
use crate::upgrade;

use super::{End, Side};

/// Serves the streams of a connection. `read` was read from it already.
pub(super) async fn serve(
    manager: Rc<Manager>,
    info: Rc<ConnectionInfo>,
    transport: Transport,
    read: Vec<u8>,
    family: &Cell<ClientFamily>,
) -> End {
    let stats = &manager.stats.manager;
    let _counted = Counted::new(&manager, &info);
    let traffic = Traffic::of_clients(&manager.stats.manager);
    let io = Rewound { read, at: 0, transport: CountedTransport::new(transport, traffic) };
    let settings = manager.config.http2.clone().with_buffer_limit(info.buffer_limit);
    let mut connection = match ServerConnection::handshake(io, &settings).await {
        Ok(connection) => connection,
        Err(error) if error.is_by_peer() => return End::REMOTE,
        Err(_) => {
            stats.downstream_cx_protocol_error().inc();
            return End::LOCAL;
        }
    };
    let keepalive = manager.config.keepalive.and_then(|rules| {
        let pinger = connection.take_pinger()?;
        Some(Keepalive::new(rules, pinger, clock::now(), manager.worker.random()))
    });
    let max_duration = manager.connection_end(&info);
    let mut server = Server {
        connection,
        keepalive,
        timer: DeadlineTimer::new(),
        draining: false,
        given_up: false,
        cut_off: false,
        ended: false,
        streams: Rc::new(Streams::new(clock::now())),
        max_duration,
        requests: 0,
        last_served: 0,
        manager: manager.clone(),
        info: info.clone(),
    };
    // Looked at when the first bytes come and then for each stream.
    if manager.sheds(LoadShedPoint::Http2GoAwayAndClose, &info) {
        server.give_up();
    }
    loop {
        match poll_fn(|cx| server.poll_stream(cx)).await {
            Ok(stream) => {
                if !server.given_up && manager.sheds(LoadShedPoint::Http2GoAwayAndClose, &info) {
                    server.give_up();
                }
                if server.given_up {
                    continue;
                }
                server.last_served = stream.id();
                server.on_stream();
                let (manager, info, streams) = (manager.clone(), info.clone(), server.streams.clone());
                streams.active.set(streams.active.get() + 1);
                tokio::task::spawn_local(boxed_stream(manager, info, stream, streams));
            }
            Err(over) => {
                let cut_off = server.cut_off || server.streams.active.get() > 0;
                // Requests end before the client has its while to read.
                let cut_off_by = match &over {
                    Over::Failed(error) if error.is_by_peer() => Side::Remote,
                    Over::Ended if !server.draining => Side::Remote,
                    _ => Side::Local,
                };
                let end = match over {
                    Over::Failed(error) => {
                        count_failure(&manager, &error);
                        server.streams.codec_failed.set(!error.is_by_peer());
                        if error.is_by_peer() { End::REMOTE } else { server.linger().await }
                    }
                    Over::Unanswered => {
                        manager.stats.http2().keepalive_timeout().inc();
                        End::LOCAL
                    }
                    Over::Resets => {
                        manager.stats.manager.downstream_rq_too_many_premature_resets().inc();
                        End::LOCAL
                    }
                    Over::Ended if server.draining => server.linger().await,
                    Over::Ended => End::REMOTE,
                };
                server.shut_down().await;
                server.ended = true;
                family.set(server.streams.family.get());
                return End { cut_off: cut_off.then_some(cut_off_by), ..end };
            }
        }
    }
}

/// Why there is no further stream.
enum Over {
    Failed(ConnectionError),
    /// The client did not answer a ping.
    Unanswered,
    /// The client gave up too many streams at once.
    Resets,
    Ended,
}

/// A connection whose streams are served.
struct Server {
    manager: Rc<Manager>,
    info: Rc<ConnectionInfo>,
    connection: ServerConnection<Rewound>,
    keepalive: Option<Keepalive>,
    timer: DeadlineTimer,
    draining: bool,
    /// The connection ends whatever is under way on it.
    given_up: bool,
    /// The connection ends because of a stream that was refused.
    cut_off: bool,
    /// The connection came to its end.
    ended: bool,
    streams: Rc<Streams>,
    max_duration: Option<Instant>,
    requests: u32,
    /// Number of the last stream that was not given up.
    last_served: u32,
}

impl Drop for Server {
    /// A connection that is closed in the middle cuts its streams off, which then have to say why.
    fn drop(&mut self) {
        if !self.ended && self.streams.active.get() > 0 {
            self.info.record_mut().borrow_mut().cut_off = true;
        }
    }
}

impl Server {
    fn poll_stream(&mut self, cx: &mut Context<'_>) -> Poll<Result<ServerStream, Over>> {
        loop {
            if self.streams.resets.are_too_many() && !self.draining {
                return Poll::Ready(Err(Over::Resets));
            }
            self.streams.resets.watch(cx);
            // The response that says so wakes this task.
            if self.streams.draining.get() && !self.draining {
                self.drain();
            }
            let accepted = self.connection.poll_accept(cx);
            count_frames(&self.manager, self.connection.take_counts());
            for offence in self.connection.take_refused() {
                self.on_refused(offence);
            }
            match accepted {
                Poll::Ready(Some(Ok(stream))) => return Poll::Ready(Ok(stream)),
                Poll::Ready(Some(Err(error))) => return Poll::Ready(Err(Over::Failed(error))),
                Poll::Ready(None) => return Poll::Ready(Err(Over::Ended)),
                Poll::Pending => {}
            }
            let mut pong = None;
            if let Some(keepalive) = &mut self.keepalive {
                if keepalive.poll(cx, clock::now(), || self.manager.worker.random()).is_err() {
                    return Poll::Ready(Err(Over::Unanswered));
                }
                pong = keepalive.deadline();
            }
            let timeouts = &self.manager.config.timeouts;
            let idle = match self.connection.has_streams() {
                true => None,
                false => timeouts.idle.map(|idle| self.streams.last_end.get() + idle),
            };
            let max = self.max_duration.filter(|_| !self.draining);
            if self.timer.poll(cx, [idle, max, pong].into_iter().flatten().min()).is_pending() {
                return Poll::Pending;
            }
            let now = clock::now();
            let stats = &self.manager.stats.manager;
            if max.is_some_and(|max| max <= now) {
                stats.downstream_cx_max_duration_reached().inc();
                self.drain();
            } else if idle.is_some_and(|idle| idle <= now) {
                stats.downstream_cx_idle_timeout().inc();
                self.drain();
                self.streams.last_end.set(now);
            }
        }
    }

    /// Counts and logs a stream that the codec refused.
    fn on_refused(&mut self, offence: Offence) {
        let stats = &self.manager.stats.manager;
        stats.downstream_rq_total().inc();
        stats.downstream_rq_http2_total().inc();
        stats.downstream_rq_rx_reset().inc();
        self.cut_off |= !self.manager.config.http2.stream_errors;
        let now = clock::now();
        let random = self.manager.worker.random();
        let mut info = StreamInfo::new(self.info.clone(), Some(Protocol::Http2), now, random);
        info.flag(ResponseFlag::DownstreamProtocolError);
        info.details = Some(offence_details(offence).into());
        info.end = Some(now);
        let context = StreamFormat::new(&info);
        for log in &self.manager.config.access_logs {
            log.log(&context, &Logged { info: &info, request: None });
        }
    }

    /// Tells the client to open no further streams, when this one is the last of the connection.
    fn on_stream(&mut self) {
        self.requests += 1;
        let stats = &self.manager.stats.manager;
        let max = self.manager.config.max_requests_per_connection;
        let reached = max > 0 && self.requests >= max;
        if reached {
            stats.downstream_cx_max_requests_reached().inc();
        }
        if self.draining {
            return;
        }
        let random = || self.manager.worker.random();
        if reached || self.manager.sheds(LoadShedPoint::Http2GoAway, &self.info) {
            self.drain();
        } else if overload().applies(OverloadAction::DisableHttpKeepalive, random)
            && !self.info.bypass_overload_manager
        {
            stats.downstream_cx_overload_disable_keepalive().inc();
            self.drain();
        }
    }

    /// Ends the connection with what was sent on it so far, and says so.
    fn give_up(&mut self) {
        (self.draining, self.given_up) = (true, true);
        self.connection.abrupt_shutdown(self.last_served, ResetCode::NoError);
    }

    /// Leaves the client a while to end the connection itself (`delayed_close_timeout`), so that our farewell is not lost to a
    /// reset.
    async fn linger(&mut self) -> End {
        let deadline = self.manager.config.timeouts.delayed_close.map(|delay| clock::now() + delay);
        if deadline.is_none() {
            return End::LOCAL;
        }
        poll_fn(|cx| {
            if self.connection.poll_peer_end(cx).is_ready() {
                return Poll::Ready(End::REMOTE);
            }
            while self.timer.poll(cx, deadline).is_ready() {
                if deadline.is_some_and(|at| at <= clock::now()) {
                    self.manager.stats.manager.downstream_cx_delayed_close_timeout().inc();
                    return Poll::Ready(End::LOCAL);
                }
            }
            Poll::Pending
        })
        .await
    }

    /// Ends our direction, if that can be done at once.
    async fn shut_down(&mut self) {
        // A client that is gone needs not be told.
        poll_fn(|cx| {
            let _ = self.connection.poll_shutdown(cx);
            Poll::Ready(())
        })
        .await;
    }

    fn drain(&mut self) {
        self.draining = true;
        self.streams.draining.set(true);
        self.connection.graceful_shutdown();
    }
}

fn count_frames(manager: &Manager, counts: FrameCounts) {
    if counts == FrameCounts::default() {
        return;
    }
    let FrameCounts {
        resets_received,
        resets_sent,
        goaways_sent,
        refused,
        trailers,
        malformed,
        empty_metadata,
    } = counts;
    let stats = manager.stats.http2();
    stats.rx_reset().add(resets_received.into());
    stats.tx_reset().add(resets_sent.into());
    stats.goaway_sent().add(goaways_sent.into());
    stats.stream_refused_errors().add(refused.into());
    stats.trailers().add(trailers.into());
    stats.rx_messaging_error().add(malformed.into());
    stats.metadata_empty_frames().add(empty_metadata.into());
}

fn count_failure(manager: &Manager, error: &ConnectionError) {
    let stats = manager.stats.http2();
    match error {
        ConnectionError::Violation(Violation::EmptyFrames) => stats.inbound_empty_frames_flood().inc(),
        ConnectionError::Violation(Violation::Priorities) => stats.inbound_priority_frames_flood().inc(),
        ConnectionError::Violation(Violation::WindowUpdates) => {
            stats.inbound_window_update_frames_flood().inc();
        }
        ConnectionError::Violation(Violation::ControlFrames) => stats.outbound_control_flood().inc(),
        ConnectionError::Violation(Violation::OutboundFrames) => stats.outbound_flood().inc(),
        error => {
            if !error.is_by_peer() {
                manager.stats.manager.downstream_cx_protocol_error().inc();
            }
        }
    }
}

/// In a box, made there: a task moves its future several times, and that of a stream is large.
#[inline(never)]
fn boxed_stream(
    manager: Rc<Manager>,
    info: Rc<ConnectionInfo>,
    stream: ServerStream,
    siblings: Rc<Streams>,
) -> Pin<Box<impl Future<Output = ()>>> {
    let room = Box::new_uninit();
    Box::into_pin(Box::write(room, serve_stream(manager, info, stream, siblings)))
}

/// Serves one stream to its end.
async fn serve_stream(
    manager: Rc<Manager>,
    info: Rc<ConnectionInfo>,
    mut stream: ServerStream,
    siblings: Rc<Streams>,
) {
    let streams = StreamsGauge::new(&manager);
    let mut head = manager.take_head();
    let crumbs = stream.cookie_crumbs();
    let meter = stream.take_meter();
    let (body, responder) = stream.into_parts(&mut head);
    if let Some(meter) = &meter {
        meter.on_decompressed(ByteDirection::Received, &head);
    }
    manager.stats.count_client(&siblings.family, &head);
    let fields = head.len();
    let refusal = refuse_head(&manager, &mut head, crumbs);
    let has_dropped = head.len() < fields;
    let limit = info.buffer_limit.min(manager.config.http2.stream_window);
    let mut down = H2Downstream::new(body, responder, head.method() == b"HEAD", limit, siblings.clone());
    down.set_meter(meter.clone());
    if has_dropped {
        down.set_overlooked(UNDERSCORE);
    }
    if refusal.is_none() && !manager.config.proxy_100_continue && head.contains_known(KnownHeader::Expect) {
        let mut interim = manager.take_head();
        interim.set_status(100);
        manager.stats.charge_interim(100);
        down.send_informational(&interim);
        manager.give_head(interim);
        head.remove_known(KnownHeader::Expect);
    }
    let end_stream = down.request_complete();
    let mut timer = DeadlineTimer::new();
    let upgrade = upgrade::receive_from_http2(&mut head);
    let mut exchange = Exchange::new(manager, &info, Protocol::Http2, head, end_stream, upgrade);
    exchange.info.count_bytes(meter);
    match refusal {
        Some(details) => exchange.refuse(&mut down, details),
        None => _ = exchange.run(&mut down, &mut timer).await,
    }
    drop(streams);
    let lifetime = clock::now().saturating_duration_since(exchange.info.start);
    siblings.resets.on_end(lifetime, exchange.info.response_code.is_some());
    drop(exchange);
    drop(down);
    siblings.active.set(siblings.active.get() - 1);
    siblings.last_end.set(clock::now());
}

const UNDERSCORE: &str = "http2.unexpected_underscore";

/// The details under which a request is refused because of the size of its head or a name in it, if it is.
fn refuse_head(manager: &Manager, head: &mut HeaderMap, crumbs: usize) -> Option<&'static str> {
    let config = &manager.config;
    let max_bytes = config.http2.max_header_bytes as usize;
    if head.exceeds(max_bytes) {
        manager.stats.http2().header_list_size_too_large().inc();
        return refused(head, "http2.header_list_size_too_large");
    }
    // Names are looked at as the fields come: one that is dropped does not count, one that refuses the request does so
    // before it counts.
    let has_underscore = |name: &[u8]| name.contains(&b'_');
    match config.http1.underscores {
        Underscores::Allow => {}
        Underscores::Reject => {
            let counted = head.iter().take(config.http1.max_headers);
            if counted.into_iter().any(|(_, name, _)| has_underscore(name)) {
                manager.stats.http2().requests_rejected_with_underscores_in_headers().inc();
                return refused(head, UNDERSCORE);
            }
        }
        Underscores::Drop => {
            let before = head.len();
            if head.iter().any(|(_, name, _)| has_underscore(name)) {
                head.retain(|_, name, _| !has_underscore(name));
                let dropped = before - head.len();
                manager.stats.http2().dropped_headers_with_underscores().add(dropped as u64);
            }
        }
    }
    // Repeats that are joined count once, but each crumb of a cookie by itself, as in Envoy.
    let fields = head.len() + crumbs.saturating_sub(1);
    if fields > config.http1.max_headers {
        manager.stats.http2().header_overflow().inc();
        return refused(head, "http2.too_many_headers");
    }
    None
}

/// Nothing of a head that is refused is logged: Envoy's codec keeps it to itself.
fn refused(head: &mut HeaderMap, details: &'static str) -> Option<&'static str> {
    head.clear();
    Some(details)
}

/// Counts a stream while it is served.
struct StreamsGauge(Rc<Manager>);

impl StreamsGauge {
    fn new(manager: &Rc<Manager>) -> Self {
        manager.stats.http2().streams_active().inc();
        Self(manager.clone())
    }
}

impl Drop for StreamsGauge {
    fn drop(&mut self) {
        self.0.stats.http2().streams_active().dec();
    }
}

/// Counts a connection of HTTP/2 for as long as it is there.
pub(super) struct Counted(Rc<Manager>);

impl Counted {
    pub(super) fn new(manager: &Rc<Manager>, info: &ConnectionInfo) -> Self {
        let stats = &manager.stats.manager;
        stats.downstream_cx_http2_total().inc();
        stats.downstream_cx_http2_active().inc();
        manager.stats.http2().nghttp2_downstream_connections().inc();
        if let Some(record) = info.record() {
            record.borrow_mut().protocol = Some(Protocol::Http2);
        }
        Self(manager.clone())
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.stats.manager.downstream_cx_http2_active().dec();
    }
}

/// A transport whose first bytes were read already.
#[derive(Debug)]
struct Rewound {
    read: Vec<u8>,
    at: usize,
    transport: CountedTransport,
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
