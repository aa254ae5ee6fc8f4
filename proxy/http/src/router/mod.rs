//! The router: forwards a request to a host of its route's cluster, tries again where the route says so, and brings the
//! response back.

mod attempt;
mod host_selection;
mod retry;
mod timeouts;
mod tunnel;

use std::future::poll_fn;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use dhow_base::ResponseFlag;
use dhow_http::KnownHeader;
use dhow_http::h1::{BodyLength, ResponseInfo};
use dhow_proxy_api::{LocalReply, Protocol, StreamFormat};
use dhow_proxy_runtime::{DeadlineTimer, clock};
use dhow_proxy_upstream::{Host, RoutingPriority, WorkerCluster};
use dhow_routing::{ForwardAction, HashInput, HashPolicy, Priority, SelectedRoute, set_authority};

use crate::downstream::Downstream;
use crate::reset::{Reset, ResetKind};
use crate::stream::{
    Deadlines, Encoded, Ending, Exchange, Expired, Interruption, KeptBody, Pump, PumpSetup, RequestBody,
};
use crate::upstream::UpstreamStream;
use attempt::RequestGuard;
use retry::{RetryDecision, RetryState};
use timeouts::RequestTimeouts;

/// What lasts over the attempts of one request.
struct Forwarding {
    cluster: Rc<WorkerCluster>,
    route: SelectedRoute,
    priority: RoutingPriority,
    timeouts: RequestTimeouts,
    retry: Option<RetryState>,
    kept: Option<KeptBody>,
    hash: Option<u64>,
    tried: Vec<Arc<Host>>,
    cookies: Vec<String>,
}

/// How one attempt ended.
enum Outcome {
    /// A response head is there (in the exchange) and this stream brings its body.
    Response(ResponseInfo, UpstreamStream, RequestGuard, bool),
    /// No response; `sent` tells whether the request was sent whole.
    Reset { reset: Reset, sent: bool },
    /// The attempt took longer than `per_try_timeout`.
    PerTryTimeout,
    /// A reply that no retry changes.
    Final(LocalReply),
    /// Something other than this attempt ended the exchange.
    Interrupted(Interruption),
}

impl Exchange {
    /// Forwards the request as the route says.
    pub(crate) async fn forward<D: Downstream>(
        &mut self,
        down: &mut D,
        timer: &mut DeadlineTimer,
        route: &SelectedRoute,
        action: &ForwardAction,
    ) -> Ending {
        let mut forwarding = match self.prepare(route, action) {
            Ok(forwarding) => forwarding,
            Err(reply) => return self.reply(down, timer, reply).await,
        };
        loop {
            let outcome = self.attempt(down, timer, &mut forwarding).await;
            let random = self.manager.worker.random();
            let info = forwarding.cluster.info().clone();
            let can_retry = forwarding.kept.as_ref().is_some_and(KeptBody::can_retry);
            let retry = forwarding.retry.as_mut().filter(|_| can_retry && !self.response_started);
            let decision = match (&outcome, retry) {
                (_, None) => RetryDecision::No,
                (Outcome::Response(..), Some(retry)) => {
                    retry.on_response(&self.response, &info, forwarding.priority, random)
                }
                (Outcome::Reset { reset, sent }, Some(retry)) => {
                    retry.on_reset(reset.kind, *sent, &info, forwarding.priority, random)
                }
                (Outcome::PerTryTimeout, Some(retry)) => {
                    retry.on_per_try_timeout(&info, forwarding.priority, random)
                }
                (Outcome::Final(_) | Outcome::Interrupted(_), Some(_)) => RetryDecision::No,
            };
            match decision {
                RetryDecision::Retry(pause, permit) => {
                    if matches!(outcome, Outcome::Response(..)) {
                        info.stats.retry_response_codes.charge(self.response.status().unwrap_or(0));
                    }
                    drop(outcome);
                    if let Err(interruption) = self.pause(down, timer, pause).await {
                        return self.interrupted(down, timer, interruption).await;
                    }
                    drop(permit);
                    if let Some(kept) = &mut forwarding.kept {
                        kept.rewind();
                    }
                    continue;
                }
                RetryDecision::LimitExceeded => self.info.flag(ResponseFlag::UpstreamRetryLimitExceeded),
                RetryDecision::Overflow => self.info.flag(ResponseFlag::UpstreamOverflow),
                RetryDecision::No => {}
            }
            return self.conclude(down, timer, forwarding, outcome).await;
        }
    }

    /// Chooses the cluster, sets limits and rewrites the request.
    fn prepare(&mut self, route: &SelectedRoute, action: &ForwardAction) -> Result<Forwarding, LocalReply> {
        let manager = self.manager.clone();
        let router = self.chain().router.clone().unwrap_or_default();
        let name = route.cluster(&self.request).unwrap_or_default();
        let Some(cluster) = manager.clusters.get(name) else {
            manager.stats.manager.no_cluster().inc();
            return Err(LocalReply::new(action.cluster_not_found_status, &b""[..], "cluster_not_found")
                .flag(ResponseFlag::NoClusterFound));
        };
        self.info.upstream.cluster = Some(cluster.info().observability_name.clone());
        if let Some(reply) = self.dropped(&cluster) {
            self.charge(&cluster, reply.status);
            return Err(reply);
        }
        let timeouts = RequestTimeouts::of(action, &router, &mut self.request);
        self.set_expected_timeout(&timeouts);
        if route.virtual_host().include_request_attempt_count() {
            self.request.set_known(KnownHeader::XEnvoyAttemptCount, b"1");
        }
        {
            let context = StreamFormat::new(&self.info);
            route.apply_request_rewrites(&mut self.request, &context, router.suppress_envoy_headers);
        }
        let mut cookies = Vec::new();
        let hash = self.hash(action, &mut cookies);
        let retry = RetryState::of(route, &mut self.request);
        let limit = cluster.info().per_connection_buffer_limit as usize;
        let priority = match action.priority {
            Priority::Default => RoutingPriority::Default,
            Priority::High => RoutingPriority::High,
        };
        Ok(Forwarding {
            kept: retry.is_some().then(|| KeptBody::with_limit(limit)),
            cluster,
            route: route.clone(),
            priority,
            timeouts,
            retry,
            hash,
            tried: Vec::new(),
            cookies,
        })
    }

    fn set_expected_timeout(&mut self, timeouts: &RequestTimeouts) {
        let suppressed = self.chain().router.as_ref().is_some_and(|router| router.suppress_envoy_headers);
        if suppressed {
            return;
        }
        let elapsed = self.since_request(clock::now());
        match timeouts.expected_millis(elapsed) {
            Some(millis) => self.request.set_known_number(KnownHeader::XEnvoyExpectedRqTimeoutMs, millis),
            None => {
                self.request.remove_known(KnownHeader::XEnvoyExpectedRqTimeoutMs);
            }
        }
    }

    fn hash(&self, action: &ForwardAction, cookies: &mut Vec<String>) -> Option<u64> {
        if action.hash_policies.is_empty() {
            return None;
        }
        let worker = &self.manager.worker;
        let mut make_cookie = |cookie: &dhow_routing::HashCookie| {
            let value = format!("{:016x}", worker.random());
            cookies.push(cookie.set_cookie(&value));
            Some(value)
        };
        let mut input = HashInput {
            headers: &self.request,
            source_ip: Some(self.info.client_address.ip()),
            filter_state: &|_| None,
            make_cookie: &mut make_cookie,
        };
        HashPolicy::combined(&action.hash_policies, &mut input)
    }

    async fn attempt<D: Downstream>(
        &mut self,
        down: &mut D,
        timer: &mut DeadlineTimer,
        forwarding: &mut Forwarding,
    ) -> Outcome {
        let Some(host) = self.choose_host(forwarding) else {
            forwarding.cluster.info().stats.upstream_cx_none_healthy().inc();
            return Outcome::Final(
                LocalReply::new(503, &b"no healthy upstream"[..], "no_healthy_upstream")
                    .flag(ResponseFlag::NoHealthyUpstream),
            );
        };
        self.info.upstream.attempts += 1;
        self.info.upstream.host = Some(host.address_text().clone());
        self.info.upstream.hostname = host.shared_hostname().cloned();
        self.update_for_attempt(forwarding, &host);
        if forwarding.retry.is_some() {
            forwarding.tried.push(host.clone());
        }
        let stream = self.acquire(down, timer, forwarding, &host).await;
        let mut upstream = match stream {
            Ok(stream) => stream,
            Err(Interruption::Upstream(reset)) => return Outcome::Reset { reset, sent: false },
            Err(Interruption::Expired(Expired::PerTry)) => return Outcome::PerTryTimeout,
            Err(interruption) => return Outcome::Interrupted(interruption),
        };
        let Some(guard) = RequestGuard::begin(&forwarding.cluster, &host, forwarding.priority) else {
            return Outcome::Reset { reset: Reset::new(ResetKind::Overflow), sent: false };
        };
        let begun = clock::now();
        self.info.upstream.first_tx = Some(begun);
        if let Err(reset) = upstream.begin(&self.request, self.end_stream) {
            return Outcome::Reset { reset, sent: false };
        }
        self.await_response(down, timer, forwarding, upstream, guard).await
    }

    /// Sends the request and waits for the head of the final response.
    async fn await_response<D: Downstream>(
        &mut self,
        down: &mut D,
        timer: &mut DeadlineTimer,
        forwarding: &mut Forwarding,
        mut upstream: UpstreamStream,
        guard: RequestGuard,
    ) -> Outcome {
        let manager = self.manager.clone();
        let (stream, deadlines) = self.parts();
        let mut body = RequestBody { down, kept: forwarding.kept.as_mut(), stream };
        let mut pump = Pump {
            body: &mut body,
            upstream: &mut upstream,
            deadlines,
            timer,
            request_done: false,
            response_timeout: forwarding.timeouts.global,
            upgraded: false,
        };
        let result = loop {
            match pump.await_head().await {
                Ok(head) if head.informational => {
                    if manager.config.proxy_100_continue {
                        pump.body.down.send_informational(pump.body.stream.response);
                    }
                }
                other => break other,
            }
        };
        let request_done = pump.request_done;
        self.deadlines.per_try = None;
        if let Err(interruption) = &result {
            guard.count_reset(&upstream, interruption);
        }
        match result {
            Ok(head) => {
                self.info.upstream.first_rx = Some(clock::now());
                guard.on_response(self.response.status().unwrap_or(0));
                Outcome::Response(head, upstream, guard, request_done)
            }
            Err(Interruption::Upstream(reset)) => {
                guard.on_failure();
                Outcome::Reset { reset, sent: request_done }
            }
            Err(Interruption::Expired(Expired::PerTry)) => {
                forwarding.cluster.info().stats.upstream_rq_per_try_timeout().inc();
                guard.on_timeout();
                Outcome::PerTryTimeout
            }
            Err(Interruption::Expired(Expired::Response)) => {
                guard.on_timeout();
                Outcome::Interrupted(Interruption::Expired(Expired::Response))
            }
            Err(interruption) => {
                forwarding.cluster.info().stats.upstream_rq_cancelled().inc();
                Outcome::Interrupted(interruption)
            }
        }
    }

    /// What differs from attempt to attempt: counts, what is left of the time, the host's name.
    fn update_for_attempt(&mut self, forwarding: &Forwarding, host: &Arc<Host>) {
        let attempts = self.info.upstream.attempts;
        if attempts > 1 {
            self.set_expected_timeout(&forwarding.timeouts);
            if forwarding.route.virtual_host().include_request_attempt_count() {
                self.request.set_known_number(KnownHeader::XEnvoyAttemptCount, attempts.into());
            }
        }
        if let Some(action) = forwarding.route.forward()
            && action.is_auto_host_rewrite()
            && !host.hostname().is_empty()
        {
            let append = action.append_x_forwarded_host && attempts == 1;
            set_authority(&mut self.request, host.hostname().as_bytes(), append, attempts == 1);
        }
        if self.manager.config.forwarding.scheme.match_upstream {
            let scheme: &[u8] = if host.transport_socket().is_secure() { b"https" } else { b"http" };
            self.request.set_known(KnownHeader::Scheme, scheme);
        }
        self.deadlines.per_try = forwarding.timeouts.per_try.map(|per_try| clock::now() + per_try);
    }

    /// Waits before a retry.
    async fn pause<D: Downstream>(
        &mut self,
        down: &mut D,
        timer: &mut DeadlineTimer,
        pause: Duration,
    ) -> Result<(), Interruption> {
        let mut sleep = std::pin::pin!(tokio::time::sleep(pause));
        poll_fn(|cx| {
            if sleep.as_mut().poll(cx).is_ready() {
                return Poll::Ready(Ok(()));
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

    /// Gives the client what the last attempt brought.
    async fn conclude<D: Downstream>(
        &mut self,
        down: &mut D,
        timer: &mut DeadlineTimer,
        forwarding: Forwarding,
        outcome: Outcome,
    ) -> Ending {
        let retried = forwarding.retry.as_ref().is_some_and(|retry| retry.made() > 0);
        let info = forwarding.cluster.info().clone();
        match outcome {
            Outcome::Response(head, upstream, guard, request_done) => {
                if retried {
                    info.stats.upstream_rq_retry_success().inc();
                }
                self.relay(down, timer, forwarding, (head, upstream, guard, request_done)).await
            }
            Outcome::Reset { reset, .. } => {
                self.charge(
                    &forwarding.cluster,
                    if reset.kind == ResetKind::ProtocolError { 502 } else { 503 },
                );
                self.info.upstream.transport_failure = reset.transport.as_deref().map(Into::into);
                let reply = reset_reply(&reset, retried);
                self.reply(down, timer, reply).await
            }
            Outcome::PerTryTimeout => {
                self.charge(&forwarding.cluster, 504);
                let reply =
                    LocalReply::new(504, &b"upstream request timeout"[..], "upstream_per_try_timeout")
                        .flag(ResponseFlag::UpstreamRequestTimeout);
                self.reply(down, timer, reply).await
            }
            Outcome::Final(reply) => {
                self.charge(&forwarding.cluster, reply.status);
                self.reply(down, timer, reply).await
            }
            Outcome::Interrupted(Interruption::Expired(Expired::Response)) => {
                info.stats.upstream_rq_timeout().inc();
                self.charge(&forwarding.cluster, 504);
                self.interrupted(down, timer, Interruption::Expired(Expired::Response)).await
            }
            Outcome::Interrupted(interruption) => self.interrupted(down, timer, interruption).await,
        }
    }

    /// Sends the response downstream while the rest of the request still goes up.
    async fn relay<D: Downstream>(
        &mut self,
        down: &mut D,
        timer: &mut DeadlineTimer,
        mut forwarding: Forwarding,
        (head, mut upstream, guard, mut request_done): (ResponseInfo, UpstreamStream, RequestGuard, bool),
    ) -> Ending {
        let now = clock::now();
        let suppressed = self.chain().router.as_ref().is_some_and(|router| router.suppress_envoy_headers);
        if let Some(complete) = self.info.request_complete.filter(|_| !suppressed) {
            let millis = now.saturating_duration_since(complete).as_millis() as u64;
            self.set_response_number(KnownHeader::XEnvoyUpstreamServiceTime, millis);
        }
        if forwarding.route.virtual_host().include_attempt_count_in_response() {
            self.set_response_number(KnownHeader::XEnvoyAttemptCount, self.info.upstream.attempts.into());
        }
        for cookie in &forwarding.cookies {
            self.response.append_known(KnownHeader::SetCookie, cookie.as_bytes());
        }
        let status = head.status;
        self.info.response_code = Some(status);
        self.info.details = Some("via_upstream".into());
        let end = head.body == BodyLength::None;
        let upgraded = self.is_upgraded();
        self.apply_route_response_headers();
        let encoded = self.encode_filters(end);
        if matches!(encoded, Encoded::Stopped(..)) {
            let setup = PumpSetup {
                down: &mut *down,
                timer: &mut *timer,
                upstream: &mut upstream,
                request_done: &mut request_done,
                response_timeout: forwarding.timeouts.global,
            };
            if let Err(interruption) = Box::pin(self.encode_stopped(setup, encoded)).await {
                guard.count_reset(&upstream, &interruption);
                return self.interrupted(down, timer, interruption).await;
            }
        }
        if upgraded {
            // Bytes of another protocol have no end that could be waited for; they can be idle, though.
            self.deadlines.request = None;
            self.deadlines.response = None;
            forwarding.timeouts.global = None;
        }
        self.send_response_head(down, end, false);
        let http1 = down.protocol() != Protocol::Http2;
        let (stream, deadlines) = self.parts();
        let mut body = RequestBody { down, kept: None, stream };
        let mut pump = Pump {
            body: &mut body,
            upstream: &mut upstream,
            deadlines,
            timer,
            request_done,
            response_timeout: forwarding.timeouts.global,
            // Only a stream of HTTP/2 can end in one direction and go on in the other.
            upgraded: upgraded && http1,
        };
        let result = pump.relay().await;
        let done = clock::now();
        self.info.upstream.last_rx = Some(done);
        let cluster = &forwarding.cluster.info().stats;
        cluster.upstream_cx_rx_bytes_total().add(self.info.bytes_sent);
        cluster.upstream_cx_tx_bytes_total().add(self.info.bytes_received);
        if let Err(interruption) = &result {
            guard.count_reset(&upstream, interruption);
        }
        match result {
            Ok(()) => {
                guard.complete(self.internal, self.since_request(done));
                self.charge(&forwarding.cluster, status);
                Ending::Complete
            }
            Err(Interruption::Expired(Expired::Response)) => {
                cluster.upstream_rq_timeout().inc();
                guard.on_timeout();
                self.interrupted(down, timer, Interruption::Expired(Expired::Response)).await
            }
            Err(interruption) => {
                guard.on_failure();
                self.interrupted(down, timer, interruption).await
            }
        }
    }

    /// Counts a status under the cluster, for all requests and by where they came from.
    fn charge(&self, cluster: &Rc<WorkerCluster>, status: u16) {
        let stats = &cluster.info().stats;
        stats.response_codes.charge(status);
        if self.internal {
            stats.internal_response_codes.charge(status);
        } else {
            stats.external_response_codes.charge(status);
        }
        if self.response.get_known(KnownHeader::XEnvoyUpstreamCanary) == Some(b"true") {
            stats.canary_response_codes.charge(status);
        }
    }
}

/// Ready with what expired first once a deadline passed.
fn poll_deadlines(
    cx: &mut std::task::Context<'_>,
    timer: &mut DeadlineTimer,
    deadlines: &Deadlines,
) -> Poll<Interruption> {
    deadlines.poll_expired(cx, timer).map(Interruption::Expired)
}

/// The reply for an attempt that ended without a response.
fn reset_reply(reset: &Reset, retried: bool) -> LocalReply {
    let again = if retried { "retried and the latest " } else { "" };
    let body = format!(
        "upstream connect error or disconnect/reset before headers. {again}reset reason: {}",
        reset.kind.as_str()
    );
    let status = if reset.kind == ResetKind::ProtocolError { 502 } else { 503 };
    let reply = LocalReply::new(status, body.into_bytes(), reset.details(false)).flag(reset.kind.flag());
    if reset.kind == ResetKind::Overflow {
        return reply.header(KnownHeader::XEnvoyOverloaded, &b"true"[..]);
    }
    reply
}
