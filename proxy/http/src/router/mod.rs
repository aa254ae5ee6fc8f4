//! The router: forwards a request to a host of its route's cluster, tries again where the route says so, and brings the
//! response back.

mod admission;
mod attempt;
mod hedge;
mod host_selection;
mod internal_redirect;
mod response;
mod retry;
mod route_stats;
mod shadow;
mod timeouts;
mod tunnel;
mod upstream_filters;

use std::future::poll_fn;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use dhow_base::ResponseFlag;
use dhow_http::h1::{BodyLength, ResponseInfo};
use dhow_http::{HeaderMap, KnownHeader};
use dhow_proxy_api::{HttpFilter, LocalReply, StreamFormat};
use dhow_proxy_runtime::{DeadlineTimer, clock};
use dhow_proxy_upstream::{ChosenHost, Host, HostResult, ResponseTraits, RoutingPriority, WorkerCluster};
use dhow_routing::{ForwardAction, HashInput, HashPolicy, Priority, SelectedRoute, set_authority};

use crate::config::RouterConfig;
use crate::downstream::Downstream;
use crate::reset::{Reset, ResetKind};
use crate::stream::{Deadlines, Ending, Exchange, Expired, Interruption, KeptBody, Pump, RequestBody};
use crate::upstream::UpstreamStream;
use attempt::RequestGuard;
use hedge::{First, Hedge, Hedges, reset_status};
use host_selection::{is_canary, no_healthy_upstream};
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
    /// The host of the last attempt.
    host: Option<Arc<Host>>,
    /// Whether the head of some attempt was sent.
    started: bool,
    /// The attempts that go on.
    hedges: Hedges,
    /// The upstream filters of the latest attempt.
    upstream_filters: Vec<Box<dyn HttpFilter>>,
    /// Whether the last outcome is that of an attempt in whose place another was made.
    replaced: bool,
    /// Whether the response says that it comes from a canary.
    canary: bool,
    /// Status of the reply to a request that runs out of time.
    timeout_status: u16,
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
    /// No response.
    Reset(Reset),
    /// The attempt took longer than `per_try_timeout`, or stood still for `per_try_idle_timeout`.
    PerTryTimeout { idle: bool },
    /// The same, and it goes on.
    SoftTimeout(Box<Hedge>),
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

    /// What the response is counted under.
    fn traits(&self, internal: bool) -> ResponseTraits<'_> {
        let host = self.host.as_deref();
        ResponseTraits {
            internal,
            canary: self.canary || host.is_some_and(is_canary),
            zone: host.map_or("", |host| &host.locality().zone),
            alternative: self.groups.alternative(),
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
            let outcome = match forwarding.hedges.is_empty() {
                true => self.attempt(down, timer, &mut forwarding).await,
                false => Box::pin(self.attempt_beside_hedges(down, timer, &mut forwarding)).await,
            };
            if let Some(ending) = self.resolve(down, timer, &mut forwarding, outcome).await {
                return ending;
            }
            if let Some(kept) = &mut forwarding.kept {
                kept.rewind();
            }
        }
    }

    async fn attempt_beside_hedges<D: Downstream>(
        &mut self,
        down: &mut D,
        timer: &mut DeadlineTimer,
        forwarding: &mut Forwarding,
    ) -> Outcome {
        let mut hedges = std::mem::take(&mut forwarding.hedges);
        let first = hedges.race(self.attempt(down, timer, forwarding)).await;
        forwarding.hedges = hedges;
        match first {
            First::Current(outcome) => outcome,
            First::Hedge(settled) => self.settle_hedge(forwarding, *settled),
        }
    }

    /// Makes of an outcome the end of the exchange, or waits until it is time for another attempt.
    async fn resolve<D: Downstream>(
        &mut self,
        down: &mut D,
        timer: &mut DeadlineTimer,
        forwarding: &mut Forwarding,
        mut outcome: Outcome,
    ) -> Option<Ending> {
        loop {
            let decision = self.retry_decision(forwarding, &outcome);
            match decision {
                RetryDecision::Retry(pause) => {
                    self.discard(forwarding, outcome);
                    let paused = match forwarding.hedges.is_empty() {
                        true => self.pause(down, timer, pause).await.map(|()| None),
                        false => Box::pin(self.pause_beside_hedges(down, timer, forwarding, pause)).await,
                    };
                    match paused {
                        Ok(None) => return None,
                        Ok(Some(settled)) => outcome = settled,
                        Err(interruption) => {
                            return Some(
                                self.interrupted_between(down, timer, forwarding, interruption).await,
                            );
                        }
                    }
                    continue;
                }
                RetryDecision::LimitExceeded => self.info.flag(ResponseFlag::UpstreamRetryLimitExceeded),
                RetryDecision::Overflow => self.info.flag(ResponseFlag::UpstreamOverflow),
                RetryDecision::No => {}
            }
            outcome = match self.keep_waiting(forwarding, outcome, decision != RetryDecision::No) {
                Ok(()) => {
                    let mut hedges = std::mem::take(&mut forwarding.hedges);
                    let settled = Box::pin(self.await_hedges(down, timer, &mut hedges)).await;
                    forwarding.hedges = hedges;
                    match settled {
                        Ok(settled) => self.settle_hedge(forwarding, settled),
                        Err(interruption) => {
                            return Some(
                                self.interrupted_between(down, timer, forwarding, interruption).await,
                            );
                        }
                    }
                }
                Err(outcome) => {
                    self.charge_lost(forwarding);
                    return Some(self.conclude(down, timer, forwarding, outcome).await);
                }
            }
        }
    }

    /// Waits before a retry while other attempts go on; with the outcome of one of them when that settles the matter.
    async fn pause_beside_hedges<D: Downstream>(
        &mut self,
        down: &mut D,
        timer: &mut DeadlineTimer,
        forwarding: &mut Forwarding,
        pause: Duration,
    ) -> Result<Option<Outcome>, Interruption> {
        let mut hedges = std::mem::take(&mut forwarding.hedges);
        let first = hedges.race(self.pause(down, timer, pause)).await;
        forwarding.hedges = hedges;
        match first {
            First::Current(result) => result.map(|()| None),
            First::Hedge(settled) => Ok(Some(self.settle_hedge(forwarding, *settled))),
        }
    }

    /// What becomes of the request when it ends while no attempt but those that go on is under way.
    async fn interrupted_between<D: Downstream>(
        &mut self,
        down: &mut D,
        timer: &mut DeadlineTimer,
        forwarding: &mut Forwarding,
        interruption: Interruption,
    ) -> Ending {
        self.charge_lost(forwarding);
        if matches!(interruption, Interruption::Expired(Expired::Response)) {
            return self.response_timeout(down, timer, forwarding, false).await;
        }
        self.interrupted(down, timer, interruption).await
    }

    /// Counts and lets go of what an attempt brought, because the request is tried again.
    fn discard(&mut self, forwarding: &mut Forwarding, outcome: Outcome) {
        let timed_out = matches!(outcome, Outcome::PerTryTimeout { .. } | Outcome::SoftTimeout(_));
        if forwarding.route.virtual_host().include_is_timeout_retry_header() {
            let value: &[u8] = if timed_out { b"true" } else { b"false" };
            self.request.set_known(KnownHeader::XEnvoyIsTimeoutRetry, value);
        }
        match outcome {
            Outcome::Response(head, _, guard, _) => {
                forwarding.cluster.info().stats.retry_response_codes.charge(head.status);
                guard.on_discarded();
            }
            Outcome::SoftTimeout(mut hedge) => {
                hedge.replaced = true;
                self.hedge(forwarding, *hedge);
            }
            _ => {}
        }
    }

    fn hedge(&self, forwarding: &mut Forwarding, hedge: Hedge) {
        let conditions = forwarding.retry.as_ref().map(RetryState::conditions);
        forwarding.hedges.push(hedge, conditions, self.is_grpc());
    }

    /// Whether other attempts may still bring something better than this outcome, which is let go then (Ok). `unwanted` when it
    /// would have been tried again.
    fn keep_waiting(
        &mut self,
        forwarding: &mut Forwarding,
        outcome: Outcome,
        unwanted: bool,
    ) -> Result<(), Outcome> {
        match outcome {
            Outcome::SoftTimeout(hedge) => {
                self.hedge(forwarding, *hedge);
                Ok(())
            }
            outcome if forwarding.hedges.is_empty() => Err(outcome),
            Outcome::Response(_, _, guard, _) if unwanted => {
                guard.on_discarded();
                Ok(())
            }
            Outcome::Reset(reset) => {
                let traits = forwarding.traits(self.internal);
                self.charge(&forwarding.cluster, &forwarding.groups, reset_status(&reset), &traits);
                Ok(())
            }
            outcome => {
                if !matches!(outcome, Outcome::Interrupted(_)) {
                    forwarding.hedges.abandon();
                }
                Err(outcome)
            }
        }
    }

    /// Whether the attempt is followed by another.
    fn retry_decision(&self, forwarding: &mut Forwarding, outcome: &Outcome) -> RetryDecision {
        let can_retry = forwarding.kept.as_ref().is_some_and(KeptBody::can_retry);
        let may_retry = can_retry && !self.response_started && !forwarding.replaced;
        let Some(retry) = forwarding.retry.as_mut().filter(|_| may_retry) else {
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
            Outcome::Reset(reset) => retry.on_reset(reset.kind, forwarding.started, &scope),
            Outcome::PerTryTimeout { .. } => {
                retry.on_reset(ResetKind::LocalReset, forwarding.started, &scope)
            }
            Outcome::SoftTimeout(_) => retry.on_hedge(&scope),
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
        let mut groups = manager.request_groups(route, &self.request);
        self.check_strictly(router)?;
        groups.take_alternative(&mut self.request);
        let refused = self.refuse_in_maintenance(&cluster).err().or_else(|| self.dropped(&cluster));
        if let Some(reply) = refused {
            let internal = self.internal;
            let traits =
                ResponseTraits { internal, alternative: groups.alternative(), ..ResponseTraits::default() };
            self.charge(&cluster, &groups, reply.status, &traits);
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
        let timeout_status = if self.takes_timeout_as_success() { 204 } else { 504 };
        if let Some(complete) = self.info.request_complete {
            self.deadlines.response = timeouts.global.map(|timeout| complete + timeout);
        }
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
            host: None,
            started: false,
            hedges: Hedges::default(),
            upstream_filters: Vec::new(),
            replaced: false,
            canary: false,
            timeout_status,
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
            self.info.upstream.attempts += 1;
            let mut reply = no_healthy_upstream();
            if let Some(wanted) = self.info.override_host.as_deref().filter(|wanted| wanted.strict) {
                reply.status = wanted.status;
            }
            return Outcome::Final(reply);
        };
        self.info.upstream.attempts += 1;
        self.info.upstream.host = Some(host.address_text().clone());
        self.info.upstream.hostname = host.shared_hostname().cloned();
        forwarding.host = Some(host.clone());
        forwarding.replaced = false;
        self.update_for_attempt(forwarding, &host);
        if forwarding.retry.is_some() {
            forwarding.tried.push(host.clone());
        }
        let cluster = member.unwrap_or_else(|| forwarding.cluster.clone());
        let stream = self.acquire(down, timer, forwarding, (&cluster, &host)).await;
        let mut upstream = match stream {
            Ok(stream) => stream,
            Err(Interruption::Upstream(reset)) => {
                if reset.kind != ResetKind::Overflow {
                    cluster.note_result(&host, HostResult::ConnectFailed);
                    return Outcome::Reset(reset);
                }
                return self.overflowed(forwarding);
            }
            Err(Interruption::Answered(reply, _)) => {
                self.forget_host(forwarding);
                return Outcome::Final(*reply);
            }
            Err(interruption) => return Outcome::Interrupted(interruption),
        };
        let Some(guard) = RequestGuard::begin(cluster, &host, forwarding.priority) else {
            return self.overflowed(forwarding);
        };
        guard.on_connected();
        forwarding.groups.each(|group| group.upstream_rq_total().inc());
        forwarding.started = true;
        let begun = clock::now();
        self.info.upstream.first_tx = Some(begun);
        self.info.upstream.protocol = upstream.protocol();
        self.filter_upstream_request(forwarding);
        if let Err(reset) = upstream.begin(&self.request, self.end_stream) {
            return Outcome::Reset(reset);
        }
        self.await_response(down, timer, forwarding, upstream, guard).await
    }

    /// The limits of the cluster left no room for the attempt: it had no host.
    fn overflowed(&mut self, forwarding: &mut Forwarding) -> Outcome {
        self.forget_host(forwarding);
        Outcome::Reset(Reset::new(ResetKind::Overflow))
    }

    fn forget_host(&mut self, forwarding: &mut Forwarding) {
        self.info.upstream.host = None;
        self.info.upstream.hostname = None;
        forwarding.host = None;
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
        if request_done {
            forwarding.send_shadows(down.trailers());
        }
        let interruption = match result {
            Ok(head) => {
                let now = clock::now();
                self.deadlines.on_response_head(now);
                self.info.upstream.first_rx = Some(now);
                self.filter_upstream_response(forwarding, head.body == BodyLength::None);
                guard.on_head(&self.response, self.is_grpc());
                return Outcome::Response(head, upstream, guard, request_done);
            }
            Err(interruption) => interruption,
        };
        self.deadlines.end_attempt();
        let idle = match interruption {
            Interruption::Expired(Expired::PerTry) => false,
            Interruption::Expired(Expired::PerTryIdle) => true,
            other => return self.broken_off(forwarding, &upstream, &guard, other),
        };
        guard.on_timeout();
        if forwarding.timeouts.hedging {
            return Outcome::SoftTimeout(Box::new(Hedge {
                stream: upstream,
                guard,
                host: forwarding.host.clone().expect("an attempt has a host"),
                upstream: self.info.upstream.clone(),
                response: HeaderMap::new(),
                replaced: false,
            }));
        }
        guard.count_end(&upstream, &interruption);
        guard.on_timed_out();
        let stats = &forwarding.cluster.info().stats;
        match idle {
            false => stats.upstream_rq_per_try_timeout().inc(),
            true => stats.upstream_rq_per_try_idle_timeout().inc(),
        }
        Outcome::PerTryTimeout { idle }
    }

    /// What becomes of an attempt that ended without response, not by limits of its own.
    fn broken_off(
        &self,
        forwarding: &Forwarding,
        upstream: &UpstreamStream,
        guard: &RequestGuard,
        interruption: Interruption,
    ) -> Outcome {
        guard.count_end(upstream, &interruption);
        match interruption {
            Interruption::Upstream(reset) => {
                guard.on_failure();
                Outcome::Reset(reset)
            }
            Interruption::Expired(Expired::Response) => {
                guard.on_timeout();
                guard.on_timed_out();
                Outcome::Interrupted(Interruption::Expired(Expired::Response))
            }
            interruption => {
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
        self.deadlines.begin_attempt(per_try.per_try, per_try.per_try_idle);
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
