//! The router: forwards a request to a host of its route's cluster, tries again where the route says so, and brings the
//! response back.

mod admission;
mod attempt;
mod hedge;
mod host_selection;
mod http2_metadata;
mod internal_redirect;
mod preparation;
mod response;
mod retry;
mod route_stats;
mod secure_options;
mod sending;
mod shadow;
mod timeouts;
mod tunnel;
mod upstream_filters;
mod upstream_log;

use std::cell::RefCell;
use std::future::poll_fn;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use dhow_base::ResponseFlag;
use dhow_http::h1::ResponseInfo;
use dhow_http::{HeaderMap, KnownHeader};
use dhow_proxy_api::LocalReply;
use dhow_proxy_runtime::DeadlineTimer;
use dhow_proxy_upstream::{Host, PreviousPriorities, ResponseTraits, RoutingPriority, WorkerCluster};
use dhow_routing::{ForwardAction, SelectedRoute};

use crate::downstream::Downstream;
use crate::reset::{Reset, ResetKind};
use crate::stream::{Deadlines, Direction, Ending, Exchange, Expired, Interruption, KeptBody, RequestBody};
use crate::upstream::UpstreamStream;
pub(crate) use attempt::{PendingGuard, RequestGuard};
use hedge::{First, Hedge, Hedges, reset_status};
use host_selection::is_canary;
pub(crate) use internal_redirect::RedirectTrail;
use retry::{RetryDecision, RetryScope, RetryState};
pub(crate) use route_stats::{RequestGroups, RouteStats};
use secure_options::RequestedTls;
use timeouts::RequestTimeouts;
pub(crate) use timeouts::{parse_grpc_timeout, set_grpc_timeout};
pub(crate) use tunnel::{early_data, sends_early};
pub(crate) use upstream_log::AttemptLog;

/// What lasts over the attempts of one request.
struct Forwarding {
    cluster: Rc<WorkerCluster>,
    route: SelectedRoute,
    priority: RoutingPriority,
    timeouts: RequestTimeouts,
    retry: Option<RetryState>,
    kept: Option<KeptBody>,
    /// Whether copies of the request are still to be sent, which waits for the first host.
    mirrors: bool,
    hash: Option<u64>,
    /// What the request says about TLS.
    tls: Option<Box<RequestedTls>>,
    tried: Vec<Arc<Host>>,
    /// The priority levels that attempts went to, where retries leave them.
    previous_priorities: Option<RefCell<PreviousPriorities>>,
    /// The host of the last attempt.
    host: Option<Arc<Host>>,
    /// Whether the head of some attempt was sent.
    started: bool,
    /// Whether an attempt brought an interim response.
    interim: bool,
    /// The attempts that go on.
    hedges: Hedges,
    /// What is logged of the attempt, where attempts are.
    log: Option<Box<AttemptLog>>,
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
    /// The stream of the attempt lasted too long (`max_stream_duration` of the cluster).
    TooLong,
    /// The attempt ran out of its time, and it goes on.
    SoftTimeout(Box<Hedge>),
    /// A reply that no retry changes. In a box, as outcomes are passed on several times and this one is rare.
    Final(Box<LocalReply>),
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
            self.log_outcome(forwarding, &outcome);
            if matches!(outcome, Outcome::Reset(_))
                && forwarding.retry.is_some()
                && forwarding.hedges.is_empty()
                && let Some(interruption) = self.keep_what_came(down, forwarding).await
            {
                return Some(self.interrupted_between(down, timer, forwarding, interruption).await);
            }
            let decision = self.retry_decision(forwarding, &outcome);
            match decision {
                RetryDecision::Retry(pause) => {
                    self.discard(forwarding, outcome);
                    let paused = match forwarding.hedges.is_empty() {
                        true => self.pause(down, timer, forwarding, pause).await.map(|()| None),
                        false => Box::pin(self.pause_beside_hedges(down, timer, forwarding, pause)).await,
                    };
                    match paused {
                        Ok(None) => {
                            if let Some(retry) = &forwarding.retry {
                                retry.on_retried(forwarding.cluster.info(), &forwarding.groups);
                            }
                            return None;
                        }
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
            if forwarding.hedges.is_empty() && !matches!(outcome, Outcome::SoftTimeout(_)) {
                break;
            }
            match self.keep_waiting(forwarding, outcome, decision != RetryDecision::No) {
                Ok(()) => {
                    let mut hedges = std::mem::take(&mut forwarding.hedges);
                    let settled = Box::pin(self.await_hedges(down, timer, &mut hedges)).await;
                    forwarding.hedges = hedges;
                    outcome = match settled {
                        Ok(settled) => self.settle_hedge(forwarding, settled),
                        Err(interruption) => {
                            return Some(
                                self.interrupted_between(down, timer, forwarding, interruption).await,
                            );
                        }
                    };
                }
                Err(last) => {
                    outcome = last;
                    break;
                }
            }
        }
        self.charge_lost(forwarding);
        Some(self.conclude(down, timer, forwarding, outcome).await)
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
        let first = hedges.race(self.pause(down, timer, forwarding, pause)).await;
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
            Outcome::Response(head, upstream, guard, _) => {
                forwarding.cluster.info().stats.charge_retry(head.status);
                guard.count_discarded(&upstream, &head);
                guard.on_discarded();
                self.log_attempt_end(forwarding, head.status, None);
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
            Outcome::Response(head, upstream, guard, _) if unwanted => {
                guard.count_discarded(&upstream, &head);
                guard.on_discarded();
                self.log_attempt_end(forwarding, head.status, None);
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
            Outcome::PerTryTimeout { .. } | Outcome::TooLong => {
                retry.on_reset(ResetKind::LocalReset, forwarding.started, &scope)
            }
            Outcome::SoftTimeout(_) => retry.on_hedge(&scope),
            Outcome::Final(_) | Outcome::Interrupted(_) => RetryDecision::No,
        }
    }

    /// Keeps what has come of the request behind an attempt that broke off: what is too much to keep rules out another one.
    async fn keep_what_came<D: Downstream>(
        &mut self,
        down: &mut D,
        forwarding: &mut Forwarding,
    ) -> Option<Interruption> {
        let (stream, _) = self.parts();
        let mut body = RequestBody { down, kept: forwarding.kept.as_mut(), stream };
        poll_fn(|cx| {
            let polled = match body.down.request_complete() {
                true => Poll::Pending,
                false => body.poll_keep(cx),
            };
            Poll::Ready(match polled {
                Poll::Ready(Err(reset)) => Some(broken_off(&mut body, reset)),
                Poll::Ready(Ok(())) | Poll::Pending => None,
            })
        })
        .await
    }

    /// Waits before a retry, and keeps what comes of the request meanwhile.
    async fn pause<D: Downstream>(
        &mut self,
        down: &mut D,
        timer: &mut DeadlineTimer,
        forwarding: &mut Forwarding,
        pause: Duration,
    ) -> Result<(), Interruption> {
        let mut sleep = std::pin::pin!(tokio::time::sleep(pause));
        let (stream, deadlines) = self.parts();
        let mut body = RequestBody { down, kept: forwarding.kept.as_mut(), stream };
        poll_fn(|cx| {
            if sleep.as_mut().poll(cx).is_ready() {
                return Poll::Ready(Ok(()));
            }
            if body.down.request_complete() {
                if let Poll::Ready(reset) = body.down.poll_closed(cx) {
                    return Poll::Ready(Err(Interruption::Downstream(reset)));
                }
            } else {
                match body.poll_keep(cx) {
                    Poll::Pending => {}
                    Poll::Ready(Ok(())) => return Poll::Ready(Err(retry_buffer_exceeded())),
                    Poll::Ready(Err(reset)) => return Poll::Ready(Err(broken_off(&mut body, reset))),
                }
            }
            poll_deadlines(cx, timer, deadlines).map(Err)
        })
        .await
    }
}

/// Why no more of a request comes.
fn broken_off<D: Downstream>(body: &mut RequestBody<'_, D>, reset: Reset) -> Interruption {
    match body.stream.filters.take_answer() {
        Some((reply, direction)) => Interruption::Answered(reply, direction),
        None => Interruption::Downstream(reset),
    }
}

/// What becomes of a request that waits for its next attempt and outgrows what may be kept for it.
fn retry_buffer_exceeded() -> Interruption {
    let body = &b"exceeded request buffer limit while retrying upstream"[..];
    let reply = LocalReply::new(507, body, "request_payload_exceeded_retry_buffer_limit");
    Interruption::Answered(Box::new(reply), Direction::Request)
}

/// Ready with what expired first once a deadline passed.
fn poll_deadlines(
    cx: &mut std::task::Context<'_>,
    timer: &mut DeadlineTimer,
    deadlines: &Deadlines,
) -> Poll<Interruption> {
    deadlines.poll_expired(cx, timer).map(Interruption::Expired)
}
