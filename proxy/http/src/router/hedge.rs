//! Attempts that ran out of their own time and go on beside the next one (`hedge_on_per_try_timeout`).

use std::future::poll_fn;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};

use dhow_http::h1::{BodyLength, ResponseInfo};
use dhow_http::{HeaderMap, KnownHeader};
use dhow_proxy_api::UpstreamInfo;
use dhow_proxy_runtime::DeadlineTimer;
use dhow_proxy_upstream::Host;
use dhow_routing::ForwardAction;

use super::attempt::RequestGuard;
use super::retry::RetryConditions;
use super::upstream_log::AttemptLog;
use super::{Forwarding, Outcome, poll_deadlines};
use crate::downstream::Downstream;
use crate::reset::{Reset, ResetKind};
use crate::stream::{Exchange, Interruption};
use crate::upstream::UpstreamStream;

/// An attempt whose request was sent and whose response is still awaited.
pub(super) struct Hedge {
    pub(super) stream: UpstreamStream,
    pub(super) guard: RequestGuard,
    pub(super) host: Arc<Host>,
    /// What logs say of the upstream side, should its response be the one.
    pub(super) upstream: UpstreamInfo,
    /// Head of the response, as far as it is there.
    pub(super) response: HeaderMap,
    /// What is logged of it, where attempts are.
    pub(super) log: Option<Box<AttemptLog>>,
    /// Whether another attempt was made in its place: it is not tried again then, whatever comes of it.
    pub(super) replaced: bool,
}

/// The attempts that go on beside the current one.
#[derive(Default)]
pub(super) struct Hedges {
    waiting: Vec<Hedge>,
    /// What retries are made for.
    conditions: Option<Rc<RetryConditions>>,
    grpc: bool,
    /// Statuses to count of attempts that broke while others went on.
    lost: Vec<u16>,
}

/// How one of the attempts ended.
type Settled = (Hedge, Result<ResponseInfo, Reset>);

/// What ended first.
pub(super) enum First<T> {
    /// What ran beside the hedges.
    Current(T),
    /// One of them.
    Hedge(Box<Settled>),
}

/// Whether the route, its virtual host or the request itself asks for hedging. The header is consumed with those of retries.
pub(super) fn wanted(action: &ForwardAction, request: &HeaderMap) -> bool {
    match request.get_known(KnownHeader::XEnvoyHedgeOnPerTryTimeout) {
        Some(b"true") => true,
        Some(b"false") => false,
        _ => action.hedge_policy.is_some_and(|policy| policy.hedge_on_per_try_timeout),
    }
}

/// The status that stands for a request without response.
pub(super) fn reset_status(reset: &Reset) -> u16 {
    if reset.kind == ResetKind::ProtocolError { 502 } else { 503 }
}

impl Hedges {
    /// Whether no attempt goes on.
    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// One more attempt goes on.
    pub(super) fn push(&mut self, hedge: Hedge, conditions: Option<&Rc<RetryConditions>>, grpc: bool) {
        self.conditions = conditions.cloned();
        self.grpc = grpc;
        self.waiting.push(hedge);
    }

    /// Gives all of them up.
    pub(super) fn abandon(&mut self) {
        self.waiting.clear();
    }

    /// All of them ran out of the time of the request; their number.
    pub(super) fn time_out(&mut self) -> usize {
        self.waiting.iter().for_each(|hedge| hedge.guard.on_timed_out());
        let count = self.waiting.len();
        self.abandon();
        count
    }

    /// Runs `current` until it or one of the attempts settles the matter.
    pub(super) async fn race<T>(&mut self, current: impl Future<Output = T>) -> First<T> {
        let mut current = pin!(current);
        poll_fn(|cx| {
            if let Poll::Ready(value) = current.as_mut().poll(cx) {
                return Poll::Ready(First::Current(value));
            }
            self.poll(cx, true).map(|settled| First::Hedge(Box::new(settled)))
        })
        .await
    }

    /// Ready with an attempt that ended, unless it brought nothing good and others may yet (`others`: apart from those here).
    fn poll(&mut self, cx: &mut Context<'_>, others: bool) -> Poll<Settled> {
        let mut at = 0;
        while at < self.waiting.len() {
            let hedge = &mut self.waiting[at];
            let result = match hedge.stream.poll_head(cx, &mut hedge.response) {
                Poll::Pending => {
                    at += 1;
                    continue;
                }
                Poll::Ready(Ok(head)) if head.informational => {
                    hedge.response.clear();
                    continue;
                }
                Poll::Ready(result) => result,
            };
            let hedge = self.waiting.swap_remove(at);
            let bad = match &result {
                Ok(_) => {
                    hedge.guard.on_head(&hedge.response, self.grpc);
                    self.conditions.as_ref().is_some_and(|wanted| wanted.wants_response(&hedge.response))
                }
                Err(reset) => {
                    hedge.guard.count_reset(&hedge.stream, reset);
                    hedge.guard.on_failure();
                    true
                }
            };
            let last = !others && self.waiting.is_empty();
            if !hedge.replaced || !bad || last {
                return Poll::Ready((hedge, result));
            }
            match result {
                Ok(_) => hedge.guard.on_discarded(),
                Err(reset) => self.lost.push(reset_status(&reset)),
            }
        }
        Poll::Pending
    }
}

impl Exchange {
    /// Waits for one of the attempts that go on; no other is under way.
    pub(super) async fn await_hedges<D: Downstream>(
        &mut self,
        down: &mut D,
        timer: &mut DeadlineTimer,
        hedges: &mut Hedges,
    ) -> Result<Settled, Interruption> {
        poll_fn(|cx| {
            if let Poll::Ready(settled) = hedges.poll(cx, false) {
                return Poll::Ready(Ok(settled));
            }
            if let Poll::Ready(reset) = down.poll_closed(cx) {
                return Poll::Ready(Err(Interruption::Downstream(reset)));
            }
            poll_deadlines(cx, timer, &self.deadlines).map(Err)
        })
        .await
    }

    /// Makes what an attempt brought the outcome of the request, as if it had been the only one.
    pub(super) fn settle_hedge(&mut self, forwarding: &mut Forwarding, settled: Settled) -> Outcome {
        let (Hedge { stream, guard, host, upstream, response, log, replaced }, result) = settled;
        let attempts = self.info.upstream.attempts;
        self.info.upstream = UpstreamInfo { attempts, ..upstream };
        forwarding.host = Some(host);
        forwarding.log = log;
        forwarding.replaced = replaced;
        match result {
            Ok(head) => {
                self.response = response;
                // Filters of heads keep nothing of their attempt: those of the latest do for all.
                self.filter_upstream_response(head.body == BodyLength::None);
                Outcome::Response(head, stream, guard, true)
            }
            Err(reset) => Outcome::Reset(reset),
        }
    }

    /// Counts what attempts brought that nobody waits for.
    pub(super) fn charge_lost(&self, forwarding: &mut Forwarding) {
        for status in std::mem::take(&mut forwarding.hedges.lost) {
            self.charge(&forwarding.cluster, &forwarding.groups, status, &forwarding.traits(self.internal));
        }
    }
}
