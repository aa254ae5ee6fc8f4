//! Whether an attempt that failed is made again.

use std::rc::Rc;
use std::time::{Duration, SystemTime};

use dhow_http::{HeaderMap, HeaderName, KnownHeader, KnownSet};
use dhow_proxy_upstream::{
    ClusterInfo, Permit, PreviousPriorities, Resource, RoutingPriority, WorkerCluster,
};
use dhow_routing::{BackOff, RateLimitedBackOff, RetryOn, RetryPolicy, SelectedRoute};
use dhow_runtime_config::{Current, RuntimeValues, with_current};

use super::route_stats::RequestGroups;
use crate::config::ClusterOptions;
use crate::reset::ResetKind;

/// What is decided about an attempt that failed.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum RetryDecision {
    /// The failure is final.
    No,
    /// It would be tried again, but not so often (`URX`).
    LimitExceeded,
    /// It would be tried again, but too many retries are under way (`UO`).
    Overflow,
    /// Once more, after this pause.
    Retry(Duration),
}

/// Whom a retry concerns.
pub(super) struct RetryScope<'a> {
    pub(super) cluster: &'a ClusterInfo,
    pub(super) groups: &'a RequestGroups,
    pub(super) priority: RoutingPriority,
    pub(super) random: u64,
}

/// Whose policy applies: the cluster's, if it has one, or else the route's.
#[derive(Clone, Debug)]
enum PolicyOf {
    Route(SelectedRoute),
    Cluster(Rc<WorkerCluster>),
}

impl PolicyOf {
    fn policy(&self) -> Option<&RetryPolicy> {
        match self {
            Self::Route(route) => route.forward()?.retry_policy.as_deref(),
            Self::Cluster(cluster) => ClusterOptions::of(cluster)?.retry_policy.as_ref(),
        }
    }
}

/// What a client may say about retries.
const RETRY_HEADERS: KnownSet = KnownSet::of(&[
    KnownHeader::XEnvoyRetryOn,
    KnownHeader::XEnvoyRetryGrpcOn,
    KnownHeader::XEnvoyMaxRetries,
    KnownHeader::XEnvoyRetriableStatusCodes,
    KnownHeader::XEnvoyRetriableHeaderNames,
    KnownHeader::XEnvoyHedgeOnPerTryTimeout,
]);

/// What a retry is made for. Does not change while the request is under way.
#[derive(Debug)]
pub(super) struct RetryConditions {
    on: RetryOn,
    /// Who has the policy that applies; none when only headers ask for retries.
    policy: Option<PolicyOf>,
    status_codes: Vec<u16>,
    /// Response headers that ask for a retry when they are there, from `x-envoy-retriable-header-names`.
    header_names: Vec<HeaderName>,
}

/// The retries of one request.
#[derive(Debug)]
pub(super) struct RetryState {
    conditions: Rc<RetryConditions>,
    remaining: u32,
    /// Pauses that were made longer and longer.
    made: u32,
    /// Whether the last pause is one that the upstream asked for.
    asked: bool,
    /// Held from the decision to try again until what came of it is known.
    permit: Option<Permit>,
}

impl RetryState {
    /// Reads the policy of the cluster or route and the `x-envoy-retry-*` headers, which are consumed. None when nothing is retried.
    /// With `hedging`, attempts that take too long have successors even where the request is none that the policy is for.
    pub(super) fn of(
        route: &SelectedRoute,
        cluster: &Rc<WorkerCluster>,
        request: &mut HeaderMap,
        hedging: bool,
    ) -> Option<Self> {
        let of_cluster = ClusterOptions::of(cluster).and_then(|options| options.retry_policy.as_ref());
        let policy = of_cluster.or_else(|| route.forward()?.retry_policy.as_deref());
        if policy.is_none() && !request.may_contain_any(RETRY_HEADERS) {
            return None;
        }
        // A policy that is limited to requests with certain headers lets others ask for nothing either.
        let excluded = policy.is_some_and(|policy| {
            let only = &policy.retriable_request_headers;
            !only.is_empty() && !only.iter().any(|matcher| matcher.matches(request))
        });
        let take = |request: &mut HeaderMap, name| {
            let value = request.get_known(name).map(|value| String::from_utf8_lossy(value).into_owned());
            request.remove_known(name);
            value
        };
        let on = take(request, KnownHeader::XEnvoyRetryOn);
        let grpc_on = take(request, KnownHeader::XEnvoyRetryGrpcOn);
        let max = take(request, KnownHeader::XEnvoyMaxRetries);
        let codes = take(request, KnownHeader::XEnvoyRetriableStatusCodes);
        let names = take(request, KnownHeader::XEnvoyRetriableHeaderNames);
        request.remove_known(KnownHeader::XEnvoyHedgeOnPerTryTimeout);
        let mut conditions = policy.map_or(RetryOn::NONE, |policy| policy.retry_on);
        for list in on.iter().chain(&grpc_on) {
            conditions = conditions.union(RetryOn::parse(list));
        }
        let is_asked_for = on.is_some() || grpc_on.is_some() || !conditions.is_empty();
        if excluded {
            conditions = RetryOn::NONE;
        }
        if !is_asked_for || (conditions.is_empty() && !hedging) {
            return None;
        }
        let mut status_codes = policy.map_or_else(Vec::new, |policy| policy.retriable_status_codes.to_vec());
        if let Some(codes) = codes {
            status_codes.extend(codes.split(',').filter_map(|code| code.trim().parse::<u16>().ok()));
        }
        let names = names.as_deref().unwrap_or_default().split(',').map(str::trim);
        let asked = max.filter(|_| !conditions.is_empty()).and_then(|max| max.trim().parse().ok());
        let conditions = RetryConditions {
            on: conditions,
            policy: policy.is_some().then(|| match of_cluster {
                Some(_) => PolicyOf::Cluster(cluster.clone()),
                None => PolicyOf::Route(route.clone()),
            }),
            status_codes,
            header_names: names.filter(|name| !name.is_empty()).map(HeaderName::new).collect(),
        };
        Some(Self {
            conditions: Rc::new(conditions),
            remaining: asked.unwrap_or_else(|| policy.map_or(1, |policy| policy.num_retries)),
            made: 0,
            asked: false,
            permit: None,
        })
    }

    /// What retries are made for.
    pub(super) fn conditions(&self) -> &Rc<RetryConditions> {
        &self.conditions
    }

    /// What keeps retries from the priority levels of earlier attempts, where the policy wants that.
    pub(super) fn previous_priorities(&self) -> Option<PreviousPriorities> {
        self.policy()?.previous_priorities.map(PreviousPriorities::new)
    }

    /// The policy.
    pub(super) fn policy(&self) -> Option<&RetryPolicy> {
        self.conditions.policy()
    }
}

impl RetryConditions {
    fn policy(&self) -> Option<&RetryPolicy> {
        self.policy.as_ref()?.policy()
    }

    /// Whether a response is one that is tried again.
    pub(super) fn wants_response(&self, response: &HeaderMap) -> bool {
        let status = response.status().unwrap_or(0);
        let on = |condition: RetryOn| self.on.intersects(condition);
        if response.contains_known(KnownHeader::XEnvoyRateLimited) {
            return on(RetryOn::ENVOY_RATE_LIMITED);
        }
        let grpc = || {
            let number = response.get_known(KnownHeader::GrpcStatus);
            match number.and_then(|n| std::str::from_utf8(n).ok()?.parse::<u32>().ok()) {
                Some(1) => on(RetryOn::GRPC_CANCELLED),
                Some(4) => on(RetryOn::GRPC_DEADLINE_EXCEEDED),
                Some(8) => on(RetryOn::GRPC_RESOURCE_EXHAUSTED),
                Some(13) => on(RetryOn::GRPC_INTERNAL),
                Some(14) => on(RetryOn::GRPC_UNAVAILABLE),
                _ => false,
            }
        };
        let headers = || {
            self.policy().is_some_and(|p| p.retriable_headers.iter().any(|m| m.matches(response)))
                || self.header_names.iter().any(|name| response.contains(name))
        };
        (on(RetryOn::SERVER_ERROR) && (500..600).contains(&status))
            || (on(RetryOn::GATEWAY_ERROR) && (502..=504).contains(&status))
            || (on(RetryOn::RETRIABLE_4XX) && status == 409)
            || (on(RetryOn::RETRIABLE_STATUS_CODES) && self.status_codes.contains(&status))
            || (on(RetryOn::RETRIABLE_HEADERS) && headers())
            || grpc()
    }

    /// Whether an attempt without response is tried again; `started` when the head of some attempt was sent before.
    fn wants_reset(&self, kind: ResetKind, started: bool) -> bool {
        let on = |condition: RetryOn| self.on.intersects(condition);
        if kind == ResetKind::Overflow {
            return false;
        }
        on(RetryOn::SERVER_ERROR)
            || on(RetryOn::GATEWAY_ERROR)
            || on(RetryOn::RESET)
            || (on(RetryOn::CONNECT_FAILURE) && kind.is_connect_failure())
            || (on(RetryOn::REFUSED_STREAM) && kind == ResetKind::RemoteRefusedStreamReset)
            || (on(RetryOn::RESET_BEFORE_REQUEST) && !started)
    }
}

impl RetryState {
    /// A response that the client has not seen yet.
    pub(super) fn on_response(&mut self, response: &HeaderMap, scope: &RetryScope<'_>) -> RetryDecision {
        if !self.conditions.wants_response(response) {
            return self.settle(scope);
        }
        let limited = self.policy().and_then(|policy| policy.rate_limited_back_off.as_ref());
        let asked = limited.and_then(|policy| asked_pause(policy, response, SystemTime::now()));
        self.take(scope, |state| state.pause(asked, scope))
    }

    /// An attempt without response; `started` when the head of some attempt was sent before. One that ran out of its own time
    /// counts as a reset of ours.
    pub(super) fn on_reset(
        &mut self,
        kind: ResetKind,
        started: bool,
        scope: &RetryScope<'_>,
    ) -> RetryDecision {
        if !self.conditions.wants_reset(kind, started) {
            return self.settle(scope);
        }
        self.take(scope, |state| state.pause(None, scope))
    }

    /// An attempt that ran out of its own time and goes on beside the next one, whatever the conditions are.
    pub(super) fn on_hedge(&mut self, scope: &RetryScope<'_>) -> RetryDecision {
        self.take(scope, |state| state.pause(None, scope))
    }

    /// What came is final. After a retry that is a success of the retry, as Envoy counts.
    fn settle(&mut self, scope: &RetryScope<'_>) -> RetryDecision {
        if self.permit.take().is_some() {
            scope.cluster.stats.upstream_rq_retry_success().inc();
            scope.groups.each(|group| group.upstream_rq_retry_success().inc());
        }
        RetryDecision::No
    }

    /// Takes one of the retries that are left.
    fn take(&mut self, scope: &RetryScope<'_>, pause: impl FnOnce(&mut Self) -> Duration) -> RetryDecision {
        let stats = &scope.cluster.stats;
        if self.remaining == 0 {
            stats.upstream_rq_retry_limit_exceeded().inc();
            scope.groups.each(|group| group.upstream_rq_retry_limit_exceeded().inc());
            return RetryDecision::LimitExceeded;
        }
        self.remaining -= 1;
        self.permit = None;
        let breakers = &scope.cluster.circuit_breakers;
        let Some(permit) = breakers.try_acquire(scope.priority, Resource::Retries) else {
            scope.groups.each(|group| group.upstream_rq_retry_overflow().inc());
            return RetryDecision::Overflow;
        };
        if !with_current(|runtime| {
            runtime.feature_enabled("upstream.use_retry", dhow_routing::Fraction::ALL, scope.random)
        }) {
            return RetryDecision::No;
        }
        let pause = pause(self);
        self.permit = Some(permit);
        RetryDecision::Retry(pause)
    }

    /// The pause is over, and the retry is made.
    pub(super) fn on_retried(&self, cluster: &ClusterInfo, groups: &RequestGroups) {
        let stats = &cluster.stats;
        stats.upstream_rq_retry().inc();
        groups.each(|group| group.upstream_rq_retry().inc());
        match self.asked {
            true => stats.upstream_rq_retry_backoff_ratelimited().inc(),
            false => stats.upstream_rq_retry_backoff_exponential().inc(),
        }
    }

    /// How long to wait before the retry: what the upstream `asked` for and up to half of it more, else a random part of an
    /// interval that doubles with each retry.
    fn pause(&mut self, asked: Option<Duration>, scope: &RetryScope<'_>) -> Duration {
        self.asked = asked.is_some();
        if let Some(asked) = asked {
            let micros = asked.as_micros() as u64;
            return Duration::from_micros(micros + scope.random % (micros / 2).max(1));
        }
        let back_off = self.policy().and_then(|policy| policy.back_off).unwrap_or_else(default_back_off);
        let interval = back_off.base.saturating_mul(1 << self.made.min(20)).min(back_off.max);
        self.made += 1;
        Duration::from_micros(scope.random % (interval.as_micros() as u64).max(1))
    }
}

/// The back-off of policies that name none; its base can be set by the runtime.
fn default_back_off() -> BackOff {
    match Current.number("upstream.base_retry_backoff_ms") {
        None => BackOff::default(),
        Some(millis) => {
            let base = Duration::from_millis(millis.max(1));
            BackOff { base, max: base * 10 }
        }
    }
}

/// The pause that a response asks for, if it is not too long.
fn asked_pause(policy: &RateLimitedBackOff, response: &HeaderMap, now: SystemTime) -> Option<Duration> {
    let since_epoch = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
    policy.headers.iter().find_map(|header| {
        let text = std::str::from_utf8(response.get(&header.name)?).ok()?;
        let number: u64 = text.trim().parse().ok()?;
        let seconds = if header.is_timestamp { number.checked_sub(since_epoch)? } else { number };
        let pause = Duration::from_secs(seconds);
        (!pause.is_zero() && pause <= policy.max).then_some(pause)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use dhow_routing::ResetHeader;

    #[test]
    fn upstreams_may_ask_for_a_pause_up_to_a_limit() {
        let policy = RateLimitedBackOff {
            headers: [
                ResetHeader { name: HeaderName::new("retry-after"), is_timestamp: false },
                ResetHeader { name: HeaderName::new("x-reset"), is_timestamp: true },
            ]
            .into(),
            max: Duration::from_secs(300),
        };
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000);
        let pause = |lines: &[(&str, &str)]| {
            let mut response = HeaderMap::new();
            lines.iter().for_each(|(name, value)| response.append(name.as_bytes(), value.as_bytes()));
            asked_pause(&policy, &response, now).map(|pause| pause.as_secs())
        };
        assert_eq!(pause(&[("retry-after", "7"), ("x-reset", "1000009")]), Some(7));
        assert_eq!(pause(&[("retry-after", "301"), ("x-reset", "1000009")]), Some(9));
        assert_eq!(pause(&[("x-reset", "999999")]), None);
        assert_eq!(pause(&[("retry-after", "soon")]), None);
        assert_eq!(pause(&[]), None);
    }
}
