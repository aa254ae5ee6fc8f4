//! HTTP/1 connections: one request after the other.

use std::cell::Cell;
use std::future::poll_fn;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use dhow_base::ResponseFlag;
use dhow_http::h1::{
    BodyLength, HeadProgress, Parsed, RequestError, RequestInfo, TrailerLimits, Underscores, Version,
    count_underscored_names, parse_request,
};
use dhow_http::{ByteMeter, HeaderMap, KnownHeader};
use dhow_proxy_access_log::Logged;
use dhow_proxy_api::{ConnectionInfo, Details, LocalReply, Protocol, StreamFormat, StreamInfo};
use dhow_proxy_runtime::{DeadlineTimer, LoadShedPoint, clock};

use crate::config::Timeouts;
use crate::downstream::{Downstream, H1Downstream};
use crate::manager::Manager;
use crate::stats::ClientFamily;
use crate::stream::{Ending, Exchange};
use crate::wire::Wire;

use super::End;

/// What the wait for a request head brought.
enum Awaited {
    /// A head, and when its first part came if it came in several.
    Request(HeaderMap, RequestInfo, Option<Instant>),
    Nothing(Last),
}

/// Why no further request is waited for.
enum Last {
    /// The last response ends the connection, perhaps without waiting for the client.
    Answered {
        at_once: bool,
    },
    Refused(RequestError),
    /// Load is shed.
    Shed,
    HeadExpired(HeadExpired),
    /// The connection was drained.
    Drained,
    Closed(End),
}

/// Serves the requests of a connection.
pub(super) async fn serve(
    manager: &Rc<Manager>,
    info: &Rc<ConnectionInfo>,
    down: &mut H1Downstream,
    family: &Cell<ClientFamily>,
) -> End {
    manager.stats.manager.downstream_cx_http1_total().inc();
    manager.stats.manager.downstream_cx_http1_active().inc();
    manager.stats.http1();
    if let Some(record) = info.record() {
        record.borrow_mut().protocol = Some(Protocol::Http11);
    }
    let _active = Http1Gauge(manager.clone());
    let mut timer = DeadlineTimer::new();
    let mut requests = 0u32;
    let mut aging = Aging::new(manager, info);
    down.drain_from(aging.end, manager.config.timeouts.safe_max_connection_duration);
    let limits = TrailerLimits {
        max_bytes: manager.config.http1.max_head_bytes,
        max_count: manager.config.http1.max_headers,
    };
    let last = loop {
        // What came is not held while it is answered: an idle connection would have to have the room for it.
        let exchange = match await_request(manager, info, down, &mut timer, &mut aging).await {
            Awaited::Request(head, request, begun) => {
                requests += 1;
                manager.stats.count_client(family, &head);
                down.begin(request, limits);
                boxed_exchange(manager, info, down, &mut timer, head, (request, begun, requests))
            }
            Awaited::Nothing(last) => break last,
        };
        let ending = exchange.await;
        aging.on_time(clock::now());
        if down.drains() {
            aging.drain();
        }
        if ending == Ending::Gone {
            return End::REMOTE.cutting_off(true);
        }
        if ending == Ending::Broken || !down.reusable() {
            let at_once = ending == Ending::Complete && !down.closes_with_delay();
            break Last::Answered { at_once };
        }
    };
    let at_once = match last {
        Last::Answered { at_once } => at_once,
        Last::Refused(error) => {
            reaches_limit(manager, requests + 1);
            Box::pin(refuse(manager, info, down, &mut timer, error)).await;
            false
        }
        Last::Shed => {
            Box::pin(shed(manager, info, down, &mut timer)).await;
            false
        }
        Last::HeadExpired(what) => {
            reaches_limit(manager, requests + 1);
            Box::pin(head_expired(manager, info, down, &mut timer, what)).await;
            false
        }
        Last::Drained => false,
        Last::Closed(end) => {
            if end.cut_off.is_some() {
                reaches_limit(manager, requests + 1);
                down.wire().meter_request(0);
                abandoned_head(manager, info, down.wire().meter.clone(), None);
            }
            return end;
        }
    };
    Box::pin(close_gently(manager, down, at_once)).await
}

/// Whether the request with this number, counted from 1, is the last that its connection may have; counts it if so, also where
/// the request comes to nothing.
fn reaches_limit(manager: &Manager, number: u32) -> bool {
    let max = manager.config.max_requests_per_connection;
    let reaches = max > 0 && number >= max;
    if reaches {
        manager.stats.manager.downstream_cx_max_requests_reached().inc();
    }
    reaches
}

/// Boxed so that an idle connection does not hold the room that a request under way needs; made in the box, as it is large.
#[inline(never)]
fn boxed_exchange<'a>(
    manager: &'a Rc<Manager>,
    info: &'a Rc<ConnectionInfo>,
    down: &'a mut H1Downstream,
    timer: &'a mut DeadlineTimer,
    head: HeaderMap,
    about: (RequestInfo, Option<Instant>, u32),
) -> Pin<Box<impl Future<Output = Ending> + 'a>> {
    let room = Box::new_uninit();
    Box::into_pin(Box::write(room, one_exchange(manager, info, down, timer, head, about)))
}

#[inline(always)]
async fn one_exchange(
    manager: &Rc<Manager>,
    info: &Rc<ConnectionInfo>,
    down: &mut H1Downstream,
    timer: &mut DeadlineTimer,
    mut head: HeaderMap,
    (request, begun, requests): (RequestInfo, Option<Instant>, u32),
) -> Ending {
    let continues = request.expect_continue && !manager.config.proxy_100_continue;
    if continues {
        head.remove_known(KnownHeader::Expect);
        manager.stats.charge_interim(100);
        down.send_continue();
    }
    if reaches_limit(manager, requests) {
        down.close_after_response();
    }
    // The point is named after HTTP/2 alone, and is for all connections.
    if manager.sheds(LoadShedPoint::Http2GoAway, info) {
        down.begin_drain();
    }
    let end_stream = request.body == BodyLength::None;
    let mut exchange = Exchange::new(
        manager.clone(),
        info,
        down.protocol(),
        head,
        end_stream,
        request.upgrade || request.connect,
    );
    exchange.info.count_bytes(down.wire().meter.clone());
    if let Some(begun) = begun {
        exchange.date_back(begun);
    }
    if continues {
        // What is formatted or logged before there is another sees it.
        exchange.info.response_code = Some(100);
    }
    exchange.run(down, timer).await
}

/// What becomes of a connection because of its age (`max_connection_duration`), or because it was idle.
struct Aging {
    /// When responses begin to say that they are the last.
    end: Option<Instant>,
    /// How long the connection may stay idle beyond that; for ever with `http1_safe_max_connection_duration`.
    grace: Option<Duration>,
    reached: bool,
    /// It drains for another reason.
    early: bool,
    manager: Rc<Manager>,
}

impl Aging {
    fn new(manager: &Rc<Manager>, info: &ConnectionInfo) -> Self {
        let end = manager.connection_end(info);
        let grace = end.and_then(|_| manager.drain_grace());
        Self { end, grace, reached: false, early: false, manager: manager.clone() }
    }

    /// The next moment at which an idle connection has to be looked at.
    fn deadline(&self) -> Option<Instant> {
        match self.reached {
            false => self.end,
            true => self.end.zip(self.grace).map(|(end, grace)| end + grace),
        }
    }

    /// Begins to drain a connection that was idle for too long.
    fn drain_idle(&mut self) {
        self.manager.stats.manager.downstream_cx_idle_timeout().inc();
        self.drain();
    }

    /// Begins to drain the connection for another reason than its age, unless it drains already.
    fn drain(&mut self) {
        if !self.reached {
            (self.end, self.grace) = (Some(clock::now()), Some(self.manager.drain_time()));
            (self.reached, self.early) = (true, true);
        }
    }

    /// Notices that the time has come; tells whether an idle connection is to be closed now.
    fn on_time(&mut self, now: Instant) -> bool {
        if !self.reached && self.end.is_some_and(|end| end <= now) {
            self.reached = true;
            let stats = &self.manager.stats.manager;
            stats.downstream_cx_max_duration_reached().inc();
            if self.manager.config.timeouts.safe_max_connection_duration {
                stats.downstream_cx_http1_soft_drain().inc();
            }
        }
        self.reached && self.deadline().is_some_and(|at| at <= now)
    }
}

impl Drop for Aging {
    fn drop(&mut self) {
        if self.reached && !self.early && self.manager.config.timeouts.safe_max_connection_duration {
            self.manager.stats.manager.downstream_cx_http1_soft_drain().dec();
        }
    }
}

/// A head that has not come whole. Boxed, as most come in one piece.
struct PartialHead {
    head: HeaderMap,
    progress: HeadProgress,
    begun: Instant,
}

/// A head that is awaited. One that is cut off with its connection, by the proxy, was a request.
struct AwaitedHead<'a> {
    manager: &'a Manager,
    info: &'a Rc<ConnectionInfo>,
    partial: Option<Box<PartialHead>>,
}

impl Drop for AwaitedHead<'_> {
    fn drop(&mut self) {
        if self.partial.is_some() {
            self.info.record_mut().borrow_mut().cut_off = true;
            let details = self.manager.cut_off_details(self.info);
            abandoned_head(self.manager, self.info, None, details);
        }
    }
}

/// Waits for the next request head. Nothing is held while the connection is idle but its socket.
async fn await_request(
    manager: &Rc<Manager>,
    info: &Rc<ConnectionInfo>,
    down: &mut H1Downstream,
    timer: &mut DeadlineTimer,
    aging: &mut Aging,
) -> Awaited {
    let timeouts = &manager.config.timeouts;
    let idle_since = clock::now();
    let mut waiting = AwaitedHead { manager, info, partial: None };
    let partial = &mut waiting.partial;
    down.wire().expect_quiet();
    poll_fn(|cx| {
        loop {
            let wire = down.wire();
            if !wire.read.is_empty() {
                // The point is named after HTTP/2 alone, and is for all connections.
                if manager.sheds(LoadShedPoint::Http2GoAwayAndClose, info) {
                    *partial = None;
                    return Poll::Ready(Awaited::Nothing(Last::Drained));
                }
                if manager.sheds(LoadShedPoint::Http1Dispatch, info) {
                    *partial = None;
                    return Poll::Ready(Awaited::Nothing(Last::Shed));
                }
                let (mut head, mut progress, begun) = match partial.take() {
                    Some(partial) => (partial.head, partial.progress, Some(partial.begun)),
                    None => (manager.take_head(), HeadProgress::default(), None),
                };
                match parse_request(wire.read.filled(), &mut progress, &manager.config.http1, &mut head) {
                    Ok(Parsed::Complete { consumed, info }) => {
                        if manager.config.http1.underscores == Underscores::Drop {
                            let dropped = count_underscored_names(&wire.read.filled()[..consumed]);
                            let stats = manager.stats.http1();
                            stats.dropped_headers_with_underscores().add(dropped as u64);
                        }
                        wire.meter_request(consumed);
                        wire.read.consume(consumed);
                        if info.body == BodyLength::None {
                            wire.read.release_if_empty();
                        }
                        return Poll::Ready(Awaited::Request(head, info, begun));
                    }
                    Ok(Parsed::Partial) => {
                        let begun = begun.unwrap_or_else(clock::now);
                        *partial = Some(Box::new(PartialHead { head, progress, begun }));
                    }
                    Err(error) => return Poll::Ready(Awaited::Nothing(Last::Refused(error))),
                }
            }
            match wire.poll_fill(cx) {
                Poll::Ready(Ok(count)) if count > 0 => continue,
                Poll::Ready(_) => {
                    let end = End::REMOTE.cutting_off(partial.take().is_some());
                    return Poll::Ready(Awaited::Nothing(Last::Closed(end)));
                }
                Poll::Pending => {}
            }
            let idle = wire.read.is_empty();
            let head_limit =
                partial.as_deref().and_then(|partial| HeadExpired::first(timeouts, partial.begun));
            let deadline = match partial {
                Some(_) => head_limit.map(|(at, _)| at),
                None => timeouts.idle.filter(|_| !aging.reached).map(|idle| idle_since + idle),
            };
            match poll_earliest(cx, timer, deadline, aging.deadline().filter(|_| idle)) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Deadline::MaxDuration) => {
                    if aging.on_time(clock::now()) {
                        return Poll::Ready(Awaited::Nothing(Last::Drained));
                    }
                }
                Poll::Ready(Deadline::First) => match head_limit {
                    Some((_, what)) => {
                        *partial = None;
                        return Poll::Ready(Awaited::Nothing(Last::HeadExpired(what)));
                    }
                    None => {
                        aging.drain_idle();
                        down.drain_from(aging.end, false);
                    }
                },
            }
        }
    })
    .await
}

/// Which limit ended the wait for the rest of a head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum HeadExpired {
    StreamIdle,
    Request,
    RequestHeaders,
    MaxDuration,
}

impl HeadExpired {
    /// The limit that is reached first by a head that began to come at `begun`.
    fn first(timeouts: &Timeouts, begun: Instant) -> Option<(Instant, Self)> {
        [
            (timeouts.stream_idle, Self::StreamIdle),
            (timeouts.request, Self::Request),
            (timeouts.request_headers, Self::RequestHeaders),
            (timeouts.max_stream_duration, Self::MaxDuration),
        ]
        .into_iter()
        .filter_map(|(limit, what)| Some((begun + limit?, what)))
        .min_by_key(|(at, _)| *at)
    }
}

enum Deadline {
    First,
    MaxDuration,
}

fn poll_earliest(
    cx: &mut Context<'_>,
    timer: &mut DeadlineTimer,
    first: Option<Instant>,
    max_duration: Option<Instant>,
) -> Poll<Deadline> {
    loop {
        let next = [first, max_duration].into_iter().flatten().min();
        if timer.poll(cx, next).is_pending() {
            return Poll::Pending;
        }
        let now = clock::now();
        if max_duration.is_some_and(|at| at <= now) {
            return Poll::Ready(Deadline::MaxDuration);
        }
        if first.is_some_and(|at| at <= now) {
            return Poll::Ready(Deadline::First);
        }
    }
}

/// Answers a head that the codec does not accept.
async fn refuse(
    manager: &Rc<Manager>,
    info: &Rc<ConnectionInfo>,
    down: &mut H1Downstream,
    timer: &mut DeadlineTimer,
    error: RequestError,
) {
    let stats = &manager.stats.manager;
    if error == RequestError::UnexpectedUnderscore {
        manager.stats.http1().requests_rejected_with_underscores_in_headers().inc();
    }
    stats.downstream_cx_protocol_error().inc();
    info.record_mut().borrow_mut().flags.insert(ResponseFlag::DownstreamProtocolError);
    let version = error.version(down.wire().read.filled(), &manager.config.http1);
    let reply = LocalReply::new(error.status(), error.body().as_bytes(), error.details());
    let flag = Some(ResponseFlag::DownstreamProtocolError);
    answer(manager, info, down, timer, version, (reply, flag)).await;
}

/// Answers what was not even read.
async fn shed(
    manager: &Rc<Manager>,
    info: &Rc<ConnectionInfo>,
    down: &mut H1Downstream,
    timer: &mut DeadlineTimer,
) {
    manager.stats.manager.downstream_rq_overload_close().inc();
    let reply = LocalReply::new(500, &b"Internal Server Error"[..], "overload");
    let flag = Some(ResponseFlag::DownstreamProtocolError);
    answer(manager, info, down, timer, Version::Http11, (reply, flag)).await;
}

/// Answers a head that did not come whole in time.
async fn head_expired(
    manager: &Rc<Manager>,
    info: &Rc<ConnectionInfo>,
    down: &mut H1Downstream,
    timer: &mut DeadlineTimer,
    what: HeadExpired,
) {
    let stats = &manager.stats.manager;
    let reply = match what {
        HeadExpired::StreamIdle => {
            stats.downstream_rq_idle_timeout().inc();
            LocalReply::new(408, &b"stream timeout"[..], "stream_idle_timeout")
                .flag(ResponseFlag::StreamIdleTimeout)
        }
        HeadExpired::Request => {
            stats.downstream_rq_timeout().inc();
            LocalReply::new(408, &b"request timeout"[..], "request_overall_timeout")
        }
        HeadExpired::RequestHeaders => {
            stats.downstream_rq_header_timeout().inc();
            LocalReply::new(408, &b"request header timeout"[..], "request_header_timeout")
        }
        HeadExpired::MaxDuration => {
            stats.downstream_rq_max_duration_reached().inc();
            LocalReply::new(408, &b"downstream duration timeout"[..], "max_duration_timeout")
        }
    };
    answer(manager, info, down, timer, Version::Http11, (reply, None)).await;
}

/// Answers a request of which no head is known; the connection ends behind it. The flag is the log's alone: the reply is made
/// before it is set.
async fn answer(
    manager: &Rc<Manager>,
    info: &Rc<ConnectionInfo>,
    down: &mut H1Downstream,
    timer: &mut DeadlineTimer,
    version: Version,
    (reply, flag): (LocalReply, Option<ResponseFlag>),
) {
    down.begin_unread(version);
    down.wire().meter_request(0);
    let head = manager.take_head();
    let mut exchange = Exchange::new(manager.clone(), info, Protocol::Http11, head, false, false);
    exchange.info.count_bytes(down.wire().meter.clone());
    exchange.answer_unread(down, timer, reply.closing(), flag).await;
    // A client that is gone already is told nothing.
    let _ = poll_fn(|cx| down.wire().poll_flush(cx)).await;
}

/// Counts and logs a request whose client went away within its head, or that was cut off there, as `details` say.
fn abandoned_head(
    manager: &Manager,
    connection: &Rc<ConnectionInfo>,
    bytes: Option<Arc<ByteMeter>>,
    details: Option<Details>,
) {
    let stats = &manager.stats.manager;
    stats.downstream_rq_total().inc();
    stats.downstream_rq_http1_total().inc();
    stats.downstream_rq_rx_reset().inc();
    let now = clock::now();
    let mut info = StreamInfo::new(connection.clone(), Some(Protocol::Http11), now, manager.worker.random());
    info.count_bytes(bytes);
    info.flag(ResponseFlag::DownstreamConnectionTermination);
    info.details = details.or(Some("downstream_remote_disconnect".into()));
    info.end = Some(now);
    let context = StreamFormat::new(&info);
    for log in &manager.config.access_logs {
        log.log(&context, &Logged { info: &info, request: None });
    }
}

/// Ends the connection once everything is written: `at_once` where the client expects it, else after a while in which the
/// client may end it (`delayed_close_timeout`), so that a response that is still in flight is not lost to a reset.
pub(super) async fn close_gently(manager: &Manager, down: &mut H1Downstream, at_once: bool) -> End {
    let delay = manager.config.timeouts.delayed_close;
    let mut timer = DeadlineTimer::new();
    let mut deadline = delay.map(|delay| clock::now() + delay);
    let mut written = down.wire().bytes_written;
    let mut flushed = false;
    poll_fn(|cx| {
        loop {
            if !flushed {
                match down.wire().poll_flush(cx) {
                    Poll::Ready(Ok(())) => flushed = true,
                    Poll::Ready(Err(_)) => return Poll::Ready(End::REMOTE),
                    Poll::Pending => {}
                }
                // The client has as long again for each part that it takes.
                if std::mem::replace(&mut written, down.wire().bytes_written) != written {
                    deadline = delay.map(|delay| clock::now() + delay);
                }
            }
            if flushed && (at_once || delay.is_none()) {
                // A client that does not take our end is told by the reset that follows.
                std::task::ready!(down.wire().poll_shutdown(cx)).ok();
                return Poll::Ready(End::LOCAL);
            }
            if flushed && poll_ended(cx, down.wire()).is_ready() {
                return Poll::Ready(End::REMOTE);
            }
            std::task::ready!(timer.poll(cx, deadline));
            if deadline.is_some_and(|at| at <= clock::now()) {
                manager.stats.manager.downstream_cx_delayed_close_timeout().inc();
                return Poll::Ready(End::LOCAL);
            }
        }
    })
    .await
}

/// Ready when the client ended its direction; what it sends before is dropped.
fn poll_ended(cx: &mut Context<'_>, wire: &mut Wire) -> Poll<()> {
    loop {
        let unread = wire.read.len();
        wire.read.consume(unread);
        if wire.peer_ended() {
            return Poll::Ready(());
        }
        match wire.poll_fill(cx) {
            Poll::Ready(Ok(count)) if count > 0 => {}
            Poll::Ready(_) => return Poll::Ready(()),
            Poll::Pending => return Poll::Pending,
        }
    }
}

struct Http1Gauge(Rc<Manager>);

impl Drop for Http1Gauge {
    fn drop(&mut self) {
        self.0.stats.manager.downstream_cx_http1_active().dec();
    }
}
