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
mod sending;
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
use dhow_http::h1::ResponseInfo;
use dhow_http::{HeaderMap, KnownHeader};
use dhow_proxy_api::{HttpFilter, LocalReply, StreamFormat};
use dhow_proxy_runtime::{DeadlineTimer, clock};
use dhow_proxy_upstream::{Host, ResponseTraits, RoutingPriority, WorkerCluster};
use dhow_routing::{ForwardAction, HashInput, HashPolicy, Priority, SelectedRoute};

use crate::config::RouterConfig;
use crate::downstream::Downstream;
use crate::reset::{Reset, ResetKind};
use crate::stream::{Deadlines, Ending, Exchange, Expired, Interruption, KeptBody};
use crate::upstream::UpstreamStream;
use attempt::RequestGuard;
use hedge::{First, Hedge, Hedges, reset_status};
use host_selection::is_canary;
pub(crate) use internal_redirect::RedirectTrail;
use retry::{RetryDecision, RetryScope, RetryState};
pub(crate) use route_stats::{RequestGroups, RouteStats};
use timeouts::RequestTimeouts;
pub(crate) use timeouts::{parse_grpc_timeout, set_grpc_timeout};

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
    /// The request was sent whole.
    fn finish_copies(&mut self, trailers: Option<&HeaderMap>) {
        if let Some(kept) = &mut self.kept {
            kept.finish_copies(trailers);
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
        let grpc = self.is_grpc();
        let timeouts = RequestTimeouts::of(action, router, &mut self.request, grpc);
        self.set_expected_timeout(&timeouts, action);
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
        let copies = self.send_shadows(action, priority, timeouts.global);
        // The body of a request that was redirected was kept for this.
        let mut kept = self.redirects.body.take();
        if retry.is_some() || action.internal_redirect_policy.is_some() {
            kept = kept.or_else(|| Some(KeptBody::with_limit(limit)));
        }
        if !copies.is_empty() {
            kept.get_or_insert_with(KeptBody::unkept).copy_to(copies);
        }
        Ok(Forwarding {
            kept,
            groups,
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

    fn set_expected_timeout(&mut self, timeouts: &RequestTimeouts, action: &ForwardAction) {
        let elapsed = self.since_request(clock::now());
        let expected = timeouts.expected_millis(elapsed);
        if let Some(millis) =
            expected.filter(|_| action.max_grpc_timeout.is_some() && !action.has_stream_duration)
            && self.is_grpc()
        {
            set_grpc_timeout(&mut self.request, Duration::from_millis(millis));
        }
        let suppressed = self.chain().router.as_ref().is_some_and(|router| router.suppress_envoy_headers);
        if suppressed {
            return;
        }
        match expected {
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
