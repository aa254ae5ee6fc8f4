//! The router: forwards a request to a host of its route's cluster, tries again where the route says so, and brings the
//! response back.

mod admission;
mod attempt;
mod host_selection;
mod internal_redirect;
mod response;
mod retry;
mod route_stats;
mod shadow;
mod timeouts;
mod tunnel;

use std::future::poll_fn;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use dhow_base::ResponseFlag;
use dhow_http::h1::ResponseInfo;
use dhow_http::{HeaderMap, KnownHeader};
use dhow_proxy_api::{LocalReply, StreamFormat};
use dhow_proxy_runtime::{DeadlineTimer, clock};
use dhow_proxy_upstream::{ChosenHost, Host, RoutingPriority, WorkerCluster};
use dhow_routing::{ForwardAction, HashInput, HashPolicy, Priority, SelectedRoute, set_authority};

use crate::config::RouterConfig;
use crate::downstream::Downstream;
use crate::reset::{Reset, ResetKind};
use crate::stream::{Deadlines, Ending, Exchange, Expired, Interruption, KeptBody, Pump, RequestBody};
use crate::upstream::UpstreamStream;
use attempt::RequestGuard;
pub(crate) use internal_redirect::RedirectTrail;
use retry::{RetryDecision, RetryScope, RetryState};
pub(crate) use route_stats::{RequestGroups, RouteStats};
use shadow::Shadows;
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
    /// Where the request is counted beside its cluster.
    groups: RequestGroups,
    /// Copies that are sent once the request is here as a whole.
    shadows: Shadows,
}

/// How one attempt ended.
enum Outcome {
    /// A response head is there (in the exchange) and this stream brings its body.
    Response(ResponseInfo, UpstreamStream, RequestGuard, bool),
    /// No response; `sent` tells whether the request was sent whole.
    Reset { reset: Reset, sent: bool },
    /// The attempt took longer than `per_try_timeout`, or stood still for `per_try_idle_timeout`.
    PerTryTimeout { idle: bool },
    /// A reply that no retry changes.
    Final(LocalReply),
    /// Something other than this attempt ended the exchange.
    Interrupted(Interruption),
}

impl Forwarding {
    /// Sends the copies of a request that is here as a whole.
    fn send_shadows(&mut self, trailers: Option<&HeaderMap>) {
        if self.shadows.is_empty() {
            return;
        }
        match self.kept.as_ref().filter(|kept| kept.can_retry()) {
            Some(kept) => self.shadows.send(kept.bytes(), trailers),
            None => self.shadows.abandon(),
        }
    }
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
            let decision = self.retry_decision(&mut forwarding, &outcome);
            match decision {
                RetryDecision::Retry(pause, permit) => {
                    if matches!(outcome, Outcome::Response(..)) {
                        let stats = &forwarding.cluster.info().stats;
                        stats.retry_response_codes.charge(self.response.status().unwrap_or(0));
                    }
                    let timed_out = matches!(outcome, Outcome::PerTryTimeout { .. });
                    if route.virtual_host().include_is_timeout_retry_header() {
                        let value: &[u8] = if timed_out { b"true" } else { b"false" };
                        self.request.set_known(KnownHeader::XEnvoyIsTimeoutRetry, value);
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

    /// Whether the attempt is followed by another.
    fn retry_decision(&self, forwarding: &mut Forwarding, outcome: &Outcome) -> RetryDecision {
        let can_retry = forwarding.kept.as_ref().is_some_and(KeptBody::can_retry);
        let Some(retry) = forwarding.retry.as_mut().filter(|_| can_retry && !self.response_started) else {
            return RetryDecision::No;
        };
        let scope = RetryScope {
            cluster: forwarding.cluster.info(),
            groups: &forwarding.groups,
            priority: forwarding.priority,
            random: self.manager.worker.random(),
        };
        match outcome {
            Outcome::Response(..) => retry.on_response(&self.response, &scope),
            Outcome::Reset { reset, sent } => retry.on_reset(reset.kind, *sent, &scope),
            Outcome::PerTryTimeout { .. } => retry.on_per_try_timeout(&scope),
            Outcome::Final(_) | Outcome::Interrupted(_) => RetryDecision::No,
        }
    }

    /// Chooses the cluster, sets limits and rewrites the request.
    fn prepare(&mut self, route: &SelectedRoute, action: &ForwardAction) -> Result<Forwarding, LocalReply> {
        let manager = self.manager.clone();
        let default: RouterConfig;
        let router = match &manager.config.chain_of(self.upgrade_chain).router {
            Some(router) => router,
            None => {
                default = RouterConfig::default();
                &default
            }
        };
        let name = route.cluster(&self.request).unwrap_or_default();
        let Some(cluster) = manager.clusters.get(name) else {
            manager.stats.manager.no_cluster().inc();
            return Err(LocalReply::new(action.cluster_not_found_status, &b""[..], "cluster_not_found")
                .flag(ResponseFlag::NoClusterFound));
        };
        self.info.upstream.cluster = Some(cluster.info().observability_name.clone());
        let groups = manager.request_groups(route, &self.request);
        self.check_strictly(router)?;
        let refused = self.refuse_in_maintenance(&cluster).err().or_else(|| self.dropped(&cluster));
        if let Some(reply) = refused {
            self.charge(&cluster, &groups, reply.status);
            return Err(reply);
        }
        let timeouts = RequestTimeouts::of(action, router, &mut self.request);
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
        let limit = route.entry().request_body_buffer_limit().map_or(limit, |limit| limit as usize);
        let mut shadows = self.shadows(action, priority, timeouts.global);
        if self.end_stream {
            shadows.send(b"", None);
        }
        // The body of a request that was redirected was kept for this.
        let replayed = self.redirects.body.take();
        let keeps = retry.is_some() || !shadows.is_empty() || action.internal_redirect_policy.is_some();
        Ok(Forwarding {
            kept: replayed.or_else(|| keeps.then(|| KeptBody::with_limit(limit))),
            groups,
            shadows,
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
            filter_state: &|key| self.info.filter_state.text(key).map(|text| dhow_routing::hash_of(&text)),
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
        let Some(ChosenHost { host, member }) = self.choose_host(forwarding) else {
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
        let cluster = member.unwrap_or_else(|| forwarding.cluster.clone());
        let stream = self.acquire(down, timer, forwarding, (&cluster, &host)).await;
        let mut upstream = match stream {
            Ok(stream) => stream,
            Err(Interruption::Upstream(reset)) => return Outcome::Reset { reset, sent: false },
            Err(Interruption::Expired(Expired::PerTry)) => return Outcome::PerTryTimeout { idle: false },
            Err(Interruption::Expired(Expired::PerTryIdle)) => return Outcome::PerTryTimeout { idle: true },
            Err(interruption) => return Outcome::Interrupted(interruption),
        };
        let Some(guard) = RequestGuard::begin(cluster, &host, forwarding.priority) else {
            return Outcome::Reset { reset: Reset::new(ResetKind::Overflow), sent: false };
        };
        forwarding.groups.each(|group| group.upstream_rq_total().inc());
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
        self.deadlines.end_attempt();
        if request_done {
            forwarding.send_shadows(down.trailers());
        }
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
                Outcome::PerTryTimeout { idle: false }
            }
            Err(Interruption::Expired(Expired::PerTryIdle)) => {
                forwarding.cluster.info().stats.upstream_rq_per_try_idle_timeout().inc();
                guard.on_timeout();
                Outcome::PerTryTimeout { idle: true }
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
        let per_try = &forwarding.timeouts;
        self.deadlines.begin_attempt(per_try.per_try, per_try.per_try_idle, clock::now());
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
}

/// Ready with what expired first once a deadline passed.
fn poll_deadlines(
    cx: &mut std::task::Context<'_>,
    timer: &mut DeadlineTimer,
    deadlines: &Deadlines,
) -> Poll<Interruption> {
    deadlines.poll_expired(cx, timer).map(Interruption::Expired)
}
