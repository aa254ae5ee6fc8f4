//! Whether an attempt that failed is made again.

use std::time::Duration;

use dhow_http::{HeaderMap, KnownHeader};
use dhow_proxy_upstream::{ClusterInfo, Permit, Resource, RoutingPriority};
use dhow_routing::{RetryOn, RetryPolicy, SelectedRoute};

use crate::reset::ResetKind;

/// What is decided about an attempt that failed.
#[derive(Debug)]
pub(super) enum RetryDecision {
    /// The failure is final.
    No,
    /// It would be tried again, but not so often (`URX`).
    LimitExceeded,
    /// It would be tried again, but too many retries are under way (`UO`).
    Overflow,
    /// Once more, after this pause. The permit is held until the retry ended.
    Retry(Duration, Permit),
}

fn policy_of(route: &SelectedRoute) -> Option<&RetryPolicy> {
    route.forward()?.retry_policy.as_ref()
}

/// The retries of one request.
#[derive(Debug)]
pub(super) struct RetryState {
    on: RetryOn,
    /// The route whose policy applies; none when only headers ask for retries.
    route: Option<SelectedRoute>,
    status_codes: Vec<u16>,
    remaining: u32,
    made: u32,
}

impl RetryState {
    /// Reads the route's policy and the `x-envoy-retry-*` headers, which are consumed. None when nothing is retried.
    pub(super) fn of(route: &SelectedRoute, request: &mut HeaderMap) -> Option<Self> {
        let header = |request: &mut HeaderMap, name| {
            let value = request.get_known(name).map(|value| String::from_utf8_lossy(value).into_owned());
            request.remove_known(name);
            value
        };
        let on = header(request, KnownHeader::XEnvoyRetryOn);
        let grpc_on = header(request, KnownHeader::XEnvoyRetryGrpcOn);
        let max = header(request, KnownHeader::XEnvoyMaxRetries);
        let codes = header(request, KnownHeader::XEnvoyRetriableStatusCodes);
        header(request, KnownHeader::XEnvoyRetriableHeaderNames);
        header(request, KnownHeader::XEnvoyHedgeOnPerTryTimeout);

        let policy = policy_of(route).filter(|policy| {
            let only = &policy.retriable_request_headers;
            only.is_empty() || only.iter().any(|matcher| matcher.matches(request))
        });
        let mut conditions = policy.map_or(RetryOn::NONE, |policy| policy.retry_on);
        for list in on.iter().chain(&grpc_on) {
            conditions = conditions.union(RetryOn::parse(list));
        }
        if conditions.is_empty() {
            return None;
        }
        let mut status_codes = policy.map_or_else(Vec::new, |policy| policy.retriable_status_codes.to_vec());
        if let Some(codes) = codes {
            status_codes.extend(codes.split(',').filter_map(|code| code.trim().parse::<u16>().ok()));
        }
        let asked = max.and_then(|max| max.parse().ok());
        Some(Self {
            on: conditions,
            route: policy.is_some().then(|| route.clone()),
            status_codes,
            remaining: asked.unwrap_or_else(|| policy.map_or(1, |policy| policy.num_retries)),
            made: 0,
        })
    }

    /// Retries made so far.
    pub(super) fn made(&self) -> u32 {
        self.made
    }

    /// The route's policy.
    pub(super) fn policy(&self) -> Option<&RetryPolicy> {
        self.route.as_ref().and_then(policy_of)
    }

    fn wants_response(&self, response: &HeaderMap) -> bool {
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
        (on(RetryOn::SERVER_ERROR) && (500..600).contains(&status))
            || (on(RetryOn::GATEWAY_ERROR) && (502..=504).contains(&status))
            || (on(RetryOn::RETRIABLE_4XX) && status == 409)
            || (on(RetryOn::RETRIABLE_STATUS_CODES) && self.status_codes.contains(&status))
            || (on(RetryOn::RETRIABLE_HEADERS)
                && self.policy().is_some_and(|p| p.retriable_headers.iter().any(|m| m.matches(response))))
            || grpc()
    }

    fn wants_reset(&self, kind: ResetKind, request_sent: bool) -> bool {
        let on = |condition: RetryOn| self.on.intersects(condition);
        if kind == ResetKind::Overflow {
            return false;
        }
        on(RetryOn::SERVER_ERROR)
            || on(RetryOn::GATEWAY_ERROR)
            || on(RetryOn::RESET)
            || (on(RetryOn::CONNECT_FAILURE) && kind.is_connect_failure())
            || (on(RetryOn::REFUSED_STREAM) && kind == ResetKind::RemoteRefusedStreamReset)
            || (on(RetryOn::RESET_BEFORE_REQUEST) && !request_sent)
    }

    /// A response that the client has not seen yet.
    pub(super) fn on_response(
        &mut self,
        response: &HeaderMap,
        info: &ClusterInfo,
        priority: RoutingPriority,
        random: u64,
    ) -> RetryDecision {
        if self.wants_response(response) { self.take(info, priority, random) } else { RetryDecision::No }
    }

    /// An attempt without response.
    pub(super) fn on_reset(
        &mut self,
        kind: ResetKind,
        request_sent: bool,
        info: &ClusterInfo,
        priority: RoutingPriority,
        random: u64,
    ) -> RetryDecision {
        if self.wants_reset(kind, request_sent) {
            self.take(info, priority, random)
        } else {
            RetryDecision::No
        }
    }

    /// An attempt that ran out of its own time counts as a reset.
    pub(super) fn on_per_try_timeout(
        &mut self,
        info: &ClusterInfo,
        priority: RoutingPriority,
        random: u64,
    ) -> RetryDecision {
        self.on_reset(ResetKind::LocalReset, true, info, priority, random)
    }

    fn take(&mut self, info: &ClusterInfo, priority: RoutingPriority, random: u64) -> RetryDecision {
        if self.remaining == 0 {
            info.stats.upstream_rq_retry_limit_exceeded().inc();
            return RetryDecision::LimitExceeded;
        }
        self.remaining -= 1;
        let Some(permit) = info.circuit_breakers.try_acquire(priority, Resource::Retries) else {
            return RetryDecision::Overflow;
        };
        info.stats.upstream_rq_retry().inc();
        info.stats.upstream_rq_retry_backoff_exponential().inc();
        let back_off = self.policy().and_then(|policy| policy.back_off).unwrap_or_default();
        let interval = back_off.base.saturating_mul(1 << self.made.min(20)).min(back_off.max);
        self.made += 1;
        let micros = interval.as_micros().max(1) as u64;
        RetryDecision::Retry(Duration::from_micros(random % micros), permit)
    }
}
