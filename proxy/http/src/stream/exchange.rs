//! One request and its response: admission, filters, the route's action, the end.

use std::future::poll_fn;
use std::pin::Pin;
use std::rc::Rc;
use std::task::Poll;
use std::time::{Duration, Instant};

use dhow_base::ResponseFlag;
use dhow_http::{HeaderMap, KnownHeader, h1};
use dhow_proxy_api::{LocalReply, LogMoment, Protocol, StreamControl, StreamFormat, StreamInfo};
use dhow_proxy_runtime::{DeadlineTimer, clock};
use dhow_routing::Action;

use super::deadlines::{Deadlines, Expired};
use super::filtering::{Direction, FilterChain};
use super::pump::Interruption;
use crate::downstream::Downstream;
use crate::manager::Manager;
use crate::reset::{Reset, ResetKind};
use crate::router::RedirectTrail;
use crate::upgrade::{self, ActiveUpgrade};

/// How an exchange ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ending {
    /// The client has the whole response.
    Complete,
    /// The response broke off; the client must notice, behind what it was sent already.
    Broken,
    /// The client is gone.
    Gone,
    /// A redirect of the upstream is followed: the request, changed, starts over.
    Redirected,
}

/// What ends an exchange out of the ordinary, in a box of its own.
pub(crate) type BoxedEnding<'a> = Pin<Box<dyn Future<Output = Ending> + 'a>>;

/// A request that is being served.
pub(crate) struct Exchange {
    pub(crate) manager: Rc<Manager>,
    pub(crate) request: HeaderMap,
    pub(crate) response: HeaderMap,
    pub(crate) info: StreamInfo,
    pub(crate) filters: FilterChain,
    pub(crate) control: StreamControl,
    pub(crate) random: u64,
    pub(crate) deadlines: Deadlines,
    /// Whether the client's request is a call of gRPC, whatever becomes of its headers: replies of the proxy take that form.
    pub(crate) grpc_client: bool,
    /// The same as the router sees it, before the route changes headers.
    pub(crate) grpc: bool,
    /// Whether the request has no body.
    pub(crate) end_stream: bool,
    /// Whether the request asks for another protocol, by upgrade or CONNECT.
    pub(crate) upgrade: bool,
    /// The entry of `upgrade_configs` whose filter chain serves the stream instead of the ordinary one.
    pub(crate) upgrade_chain: Option<usize>,
    /// Counts the stream while it is an upgrade that was admitted.
    pub(crate) active_upgrade: Option<ActiveUpgrade>,
    /// Whether the request counts as internal.
    pub(crate) internal: bool,
    /// Whether the response head went downstream.
    pub(crate) response_started: bool,
    /// Whether a filter or a host was waited for. A reply without that is made while the client's bytes are read.
    pub(crate) waited: bool,
    /// What redirects that were followed leave behind.
    pub(crate) redirects: RedirectTrail,
}

impl Exchange {
    /// A request whose head was read. Inlined, as it is large, so that it is made where it stays.
    #[inline(always)]
    pub(crate) fn new(
        manager: Rc<Manager>,
        connection: &Rc<dhow_proxy_api::ConnectionInfo>,
        protocol: Protocol,
        request: HeaderMap,
        end_stream: bool,
        upgrade: bool,
    ) -> Self {
        let now = clock::now();
        let random = manager.worker.random();
        let timeouts = &manager.config.timeouts;
        let mut deadlines = Deadlines::new(timeouts.stream_idle, now);
        deadlines.max_duration = timeouts.max_stream_duration.map(|max| now + max);
        if let Some(interval) = manager.config.log_moments.interval {
            deadlines.log = Some(now + interval);
        }
        if !end_stream {
            deadlines.request = timeouts.request.map(|timeout| now + timeout);
        }
        let mut info = StreamInfo::new(connection.clone(), Some(protocol), now, random);
        if end_stream {
            info.request_complete = Some(now);
        }
        let stats = &manager.stats.manager;
        stats.downstream_rq_total().inc();
        stats.downstream_rq_active().inc();
        match protocol {
            Protocol::Http2 => stats.downstream_rq_http2_total().inc(),
            Protocol::Http10 | Protocol::Http11 => stats.downstream_rq_http1_total().inc(),
        }
        let response = manager.take_head();
        let grpc = is_grpc(&request);
        let buffer_limit = connection.buffer_limit as usize;
        let control = StreamControl {
            reselect_route: false,
            request_buffer_limit: buffer_limit,
            response_buffer_limit: buffer_limit,
        };
        Self {
            manager,
            grpc_client: grpc,
            grpc,
            request,
            response,
            info,
            filters: FilterChain::default(),
            control,
            random,
            deadlines,
            end_stream,
            upgrade,
            upgrade_chain: None,
            active_upgrade: None,
            internal: false,
            response_started: false,
            waited: false,
            redirects: RedirectTrail::default(),
        }
    }

    /// The stream began with the first part of its head, before the head was whole.
    pub(crate) fn date_back(&mut self, begun: Instant) {
        let earlier = self.info.start.saturating_duration_since(begun);
        self.info.start = begun;
        for deadline in [&mut self.deadlines.request, &mut self.deadlines.max_duration] {
            *deadline = deadline.map(|at| at - earlier);
        }
    }

    /// Serves the request to its end.
    pub(crate) async fn run<D: Downstream>(&mut self, down: &mut D, timer: &mut DeadlineTimer) -> Ending {
        let mut ending = match self.admit() {
            Err(reply) => {
                // Filters see the responses to requests that they never saw.
                self.create_filters();
                self.reply(down, timer, *reply).await
            }
            Ok(()) => self.serve(down, timer).await,
        };
        while ending == Ending::Redirected {
            self.complete();
            self.start_over();
            ending = Box::pin(self.serve(down, timer)).await;
        }
        self.count_reset(down, ending);
        if ending != Ending::Complete {
            if self.response_started && ending == Ending::Broken {
                // What was given to the connection goes out first: a reset drops what still waits.
                tokio::task::yield_now().await;
            }
            down.reset();
        } else if self.info.downstream_bytes.is_some() && self.info.protocol == Some(Protocol::Http2) {
            // Frames are counted as they leave, which is when the connection's own task has its turn.
            tokio::task::yield_now().await;
        }
        self.complete();
        ending
    }

    /// Counts a stream that ends before its time, as resets from both sides: Envoy does not tell them apart. A client that is
    /// gone was counted already.
    fn count_reset<D: Downstream>(&mut self, down: &D, ending: Ending) {
        let stats = &self.manager.stats.manager;
        match ending {
            Ending::Broken if down.unflushed() == 0 => {
                stats.downstream_rq_tx_reset().inc();
                stats.downstream_rq_rx_reset().inc();
            }
            Ending::Complete if !self.saw_request_end(down) => {
                stats.downstream_rq_rx_reset().inc();
                if let Some(details) = down.overlooked() {
                    self.info.flag(ResponseFlag::DownstreamProtocolError);
                    self.info.details = Some(details.into());
                }
            }
            _ => {}
        }
    }

    /// Whether the request was there as a whole before its response. That of an upgrade never is.
    fn saw_request_end<D: Downstream>(&self, down: &D) -> bool {
        down.request_complete() && self.info.request_complete.is_some()
    }

    /// Answers a request whose head the codec could not make sense of.
    pub(crate) async fn answer_unread<D: Downstream>(
        &mut self,
        down: &mut D,
        timer: &mut DeadlineTimer,
        reply: LocalReply,
        flag: Option<ResponseFlag>,
    ) {
        self.create_filters();
        let ending = self.reply(down, timer, reply).await;
        if let Some(flag) = flag {
            self.info.flag(flag);
        }
        self.count_reset(down, ending);
        self.complete();
    }

    /// Ends a stream whose head the codec does not accept, without an answer.
    pub(crate) fn refuse<D: Downstream>(&mut self, down: &mut D, details: &'static str) {
        self.manager.stats.manager.downstream_rq_rx_reset().inc();
        self.info.flag(ResponseFlag::DownstreamRemoteReset);
        self.info.details = Some(details.into());
        down.reset();
        self.complete();
    }

    async fn serve<D: Downstream>(&mut self, down: &mut D, timer: &mut DeadlineTimer) -> Ending {
        self.create_filters();
        if let Err(ending) = self.decode_filters(down, timer).await {
            return ending;
        }
        if self.chain().router.is_none() {
            return self.respond(down, timer).await;
        }
        if self.is_router_disabled() {
            return self.never_routed(down, timer).await;
        }
        let manager = self.manager.clone();
        let stats = &manager.stats.router;
        stats.rq_total().inc();
        let Some(route) = self.info.route.clone() else {
            stats.no_route().inc();
            let reply = LocalReply::new(404, &b""[..], "route_not_found").flag(ResponseFlag::NoRouteFound);
            return self.reply(down, timer, reply).await;
        };
        match route.action() {
            Action::Forward(action) => self.forward(down, timer, &route, action).await,
            Action::DirectResponse(direct) => {
                stats.rq_direct_response().inc();
                let reply = self.direct_response(direct);
                self.reply(down, timer, reply).await
            }
            Action::Redirect(_) => {
                // Envoy counts redirects as direct responses too; `rq_redirect` stays at zero.
                stats.rq_direct_response().inc();
                let location = {
                    let context =
                        StreamFormat { request: Some(&self.request), ..StreamFormat::new(&self.info) };
                    route.redirect_location(&self.request, &context)
                };
                let suppressed =
                    self.chain().router.as_ref().is_some_and(|router| router.suppress_envoy_headers);
                let context = StreamFormat::new(&self.info);
                route.rewrite_redirected_path(&mut self.request, &context, suppressed);
                let (status, location) = location.unwrap_or((301, Vec::new()));
                let reply = LocalReply::new(status, &b""[..], "direct_response")
                    .header(KnownHeader::Location, location);
                self.reply(down, timer, reply).await
            }
            Action::NonForwarding => {
                // The router takes it for a route to a cluster without a name, as Envoy's does.
                stats.no_cluster().inc();
                let reply =
                    LocalReply::new(503, &b""[..], "cluster_not_found").flag(ResponseFlag::NoClusterFound);
                self.reply(down, timer, reply).await
            }
        }
    }

    /// Ends the exchange after the client went away or one of the stream's own deadlines passed.
    pub(crate) fn interrupted<'a, D: Downstream>(
        &'a mut self,
        down: &'a mut D,
        timer: &'a mut DeadlineTimer,
        interruption: Interruption,
    ) -> BoxedEnding<'a> {
        Box::pin(self.end_interrupted(down, timer, interruption))
    }

    async fn end_interrupted<D: Downstream>(
        &mut self,
        down: &mut D,
        timer: &mut DeadlineTimer,
        interruption: Interruption,
    ) -> Ending {
        match interruption {
            Interruption::Downstream(reset)
                if reset.kind == ResetKind::ProtocolError
                    && !self.response_started
                    && self.info.protocol != Some(Protocol::Http2) =>
            {
                self.malformed_body(down, timer, reset).await
            }
            Interruption::Downstream(reset) => self.downstream_gone(&reset),
            Interruption::Upstream(reset) => {
                self.info.flag(reset.kind.flag());
                self.info.details = Some(reset.details(true).into());
                if self.is_grpc() && !self.response.contains_known(KnownHeader::GrpcStatus) {
                    // Only calls whose outcome was still to come in trailers are counted.
                    self.manager.stats.router.rq_reset_after_downstream_response_started().inc();
                }
                Ending::Broken
            }
            Interruption::Expired(expired) => self.expired(down, timer, expired).await,
            Interruption::Answered(reply, _) if self.response_started => {
                self.info.flags = self.info.flags.union(reply.flags);
                self.info.details = Some(reply.details);
                Ending::Broken
            }
            Interruption::Answered(reply, Direction::Request) => self.reply(down, timer, *reply).await,
            Interruption::Answered(reply, Direction::Response) => self.reply_as_is(down, timer, *reply).await,
        }
    }

    /// Answers a request whose body broke the protocol, as the codec answers a malformed head.
    async fn malformed_body<D: Downstream>(
        &mut self,
        down: &mut D,
        timer: &mut DeadlineTimer,
        reset: Reset,
    ) -> Ending {
        self.manager.stats.manager.downstream_cx_protocol_error().inc();
        let details = reset.transport.unwrap_or("http1.codec_error".into());
        let status = match details.as_ref() {
            "http1.headers_too_large" | "http1.too_many_headers" => 431,
            _ => 400,
        };
        let reply = LocalReply::new(status, h1::reason_phrase(status).as_bytes(), details)
            .flag(ResponseFlag::DownstreamProtocolError)
            .closing();
        self.reply(down, timer, reply).await
    }

    /// Waits until the client took the whole response, which its connection has already. The time that a client of HTTP/2 has
    /// for the next part is `flush_timeout` of the route or `stream_flush_timeout`; on HTTP/1 the connection counts as idle.
    pub(crate) fn flush<'a, D: Downstream>(
        &'a mut self,
        down: &'a mut D,
        timer: &'a mut DeadlineTimer,
    ) -> BoxedEnding<'a> {
        Box::pin(async move {
            let http2 = down.protocol() == Protocol::Http2;
            let timeouts = &self.manager.config.timeouts;
            let of_route = self.info.route.as_ref().and_then(|route| route.forward()?.flush_timeout);
            let timeout = match (http2, of_route) {
                (false, _) => timeouts.idle,
                (true, None) => timeouts.stream_flush,
                (true, Some(of_route)) => Some(of_route).filter(|timeout| !timeout.is_zero()),
            };
            self.deadlines = Deadlines::new(timeout, clock::now());
            let mut unflushed = down.unflushed();
            let flushed = poll_fn(|cx| {
                if let Poll::Ready(result) = down.poll_finish(cx, None) {
                    return Poll::Ready(result.map_err(Some));
                }
                if std::mem::replace(&mut unflushed, down.unflushed()) != unflushed {
                    self.deadlines.touch(clock::now());
                }
                if let Poll::Ready(reset) = down.poll_closed(cx) {
                    return Poll::Ready(Err(Some(reset)));
                }
                self.deadlines.poll_expired(cx, timer).map(|_| Err(None))
            })
            .await;
            match flushed {
                Ok(()) => Ending::Complete,
                Err(Some(reset)) => self.downstream_gone(&reset),
                Err(None) if http2 => {
                    self.manager.stats.http2().tx_flush_timeout().inc();
                    Ending::Broken
                }
                Err(None) => {
                    self.manager.stats.manager.downstream_cx_idle_timeout().inc();
                    Ending::Broken
                }
            }
        })
    }

    pub(super) fn downstream_gone(&mut self, reset: &Reset) -> Ending {
        let stats = &self.manager.stats.manager;
        stats.downstream_rq_rx_reset().inc();
        if let (ResetKind::ProtocolError, Some(details)) = (reset.kind, &reset.transport) {
            self.info.flag(ResponseFlag::DownstreamProtocolError);
            self.info.details = Some(details.clone());
        } else if reset.kind == ResetKind::ConnectionTermination {
            self.info.flag(ResponseFlag::DownstreamConnectionTermination);
            self.info.details = Some(
                self.manager
                    .cut_off_details(&self.info.connection)
                    .unwrap_or("downstream_remote_disconnect".into()),
            );
        } else {
            let (flag, details) = match reset.kind {
                // Nothing is said of a client that takes nothing amiss.
                ResetKind::RemoteResetNoError => return Ending::Gone,
                ResetKind::ProtocolError => (ResponseFlag::DownstreamProtocolError, "http2.remote_reset"),
                ResetKind::RemoteRefusedStreamReset => {
                    (ResponseFlag::DownstreamRemoteReset, "http2.remote_refuse")
                }
                _ => (ResponseFlag::DownstreamRemoteReset, "http2.remote_reset"),
            };
            self.info.flag(flag);
            self.info.details = Some(reset.transport.clone().unwrap_or(details.into()));
        }
        Ending::Gone
    }

    /// Ends a stream in the middle of whatever it does, because the proxy closes its connection.
    #[cold]
    fn cut_off(&mut self) {
        self.info.connection.record_mut().borrow_mut().cut_off = true;
        self.manager.stats.manager.downstream_rq_rx_reset().inc();
        self.info.flag(ResponseFlag::DownstreamConnectionTermination);
        self.info.details = self.manager.cut_off_details(&self.info.connection);
        self.complete();
    }

    async fn expired<D: Downstream>(
        &mut self,
        down: &mut D,
        timer: &mut DeadlineTimer,
        expired: Expired,
    ) -> Ending {
        let stats = self.manager.stats.clone();
        let incomplete = if down.request_complete() { 504 } else { 408 };
        let reply = match expired {
            Expired::StreamIdle => {
                stats.manager.downstream_rq_idle_timeout().inc();
                LocalReply::new(incomplete, &b"stream timeout"[..], "stream_idle_timeout")
                    .flag(ResponseFlag::StreamIdleTimeout)
            }
            Expired::Request => {
                stats.manager.downstream_rq_timeout().inc();
                LocalReply::new(408, &b"request timeout"[..], "request_overall_timeout")
            }
            Expired::MaxDuration => {
                stats.manager.downstream_rq_max_duration_reached().inc();
                let mut reply =
                    LocalReply::new(incomplete, &b"downstream duration timeout"[..], "max_duration_timeout");
                reply.grpc_status = Some(4);
                reply
            }
            Expired::UpstreamDuration => upstream_duration_reply(incomplete),
            Expired::Response | Expired::PerTry | Expired::PerTryIdle => {
                LocalReply::new(504, &b"upstream request timeout"[..], "response_timeout")
                    .flag(ResponseFlag::UpstreamRequestTimeout)
            }
        };
        if self.response_started {
            self.info.flags = self.info.flags.union(reply.flags);
            self.info.details = Some(reply.details);
            return Ending::Broken;
        }
        // The deadlines that passed must not end the reply too.
        self.deadlines = Deadlines::new(self.manager.config.timeouts.stream_idle, clock::now());
        self.reply(down, timer, reply).await
    }

    fn complete(&mut self) {
        let now = clock::now();
        self.info.end = Some(now);
        let manager = self.manager.clone();
        let stats = &manager.stats;
        stats.manager.downstream_rq_active().dec();
        self.active_upgrade = None;
        if self.info.response_code.is_some() {
            let millis = now.duration_since(self.info.start).as_millis() as u64;
            stats.manager.downstream_rq_time().record(millis);
        }
        if self.info.health_check {
            stats.tracing.health_check().inc();
        }
        for slot in &mut self.filters.slots {
            slot.filter.on_stream_complete(&self.info);
        }
        self.log(LogMoment::End);
    }

    /// Notes the cluster of the selected route where the request did not get as far as the router.
    pub(crate) fn name_cluster(&mut self) {
        if self.info.upstream.cluster.is_none()
            && let Some(route) = self.info.route.as_ref().filter(|route| route.forward().is_some())
            && let Some(cluster) =
                route.cluster(&self.request).and_then(|name| self.manager.clusters.get(name))
        {
            let info = cluster.info();
            self.info.upstream.cluster = Some(info.observability_name.clone());
            if info.observability_name != info.name {
                self.info.upstream.cluster_name = Some(info.name.clone());
            }
            if let Some(metadata) = &info.metadata {
                self.info.upstream.cluster_metadata = Some(metadata.clone());
            }
        }
    }

    /// Writes the access logs.
    pub(crate) fn log(&mut self, moment: LogMoment) {
        self.parts().0.log(moment);
    }

    /// Whether the request is a call of gRPC.
    pub(crate) fn is_grpc(&self) -> bool {
        self.grpc
    }

    /// Time since the request was received whole, or zero before that.
    pub(crate) fn since_request(&self, now: Instant) -> Duration {
        self.info.request_complete.map_or(Duration::ZERO, |at| now.saturating_duration_since(at))
    }

    /// Whether the response head ends an upgrade negotiation with success.
    pub(crate) fn is_upgraded(&self) -> bool {
        self.upgrade && upgrade::is_granted(&self.request, self.response.status())
    }
}

/// Whether the type of a request is that of gRPC.
pub(crate) fn is_grpc(request: &HeaderMap) -> bool {
    let Some(kind) = request.get_known(KnownHeader::ContentType) else { return false };
    match kind.strip_prefix(b"application/grpc") {
        Some(rest) => matches!(rest.first(), None | Some(b'+' | b';')),
        None => false,
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        let manager = self.manager.clone();
        if self.info.end.is_none() {
            // The stream was cut off: its connection was closed under it.
            match std::thread::panicking() {
                true => {
                    // The task ends with its panic and nothing else does.
                    manager.stats.manager.downstream_rq_active().dec();
                    manager.stats.count_panic();
                    tracing::error!("a stream of '{}' panicked", manager.config.stat_prefix);
                }
                false => self.cut_off(),
            }
        }
        manager.give_head(std::mem::take(&mut self.request));
        manager.give_head(std::mem::take(&mut self.response));
        let usual = self.filters.usual && !std::thread::panicking();
        manager.give_chain(std::mem::take(&mut self.filters.slots), usual);
    }
}

/// The reply to a request whose stream to a host lasted too long, with the status that depends on whether the request is whole.
pub(crate) fn upstream_duration_reply(status: u16) -> LocalReply {
    let body = &b"upstream max stream duration reached"[..];
    LocalReply::new(status, body, "upstream_max_stream_duration_reached")
        .flag(ResponseFlag::UpstreamMaxStreamDurationReached)
}
