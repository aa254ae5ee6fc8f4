//! `track_cluster_stats`: histograms that a cluster has only where they are asked for.

use std::time::Duration;

use dhow_http::HeaderMap;
use dhow_stats::{Scope, stat_group};

stat_group! {
    /// `timeout_budgets`: how much of the time that requests may take they took, in percent; 0 where there is no limit.
    struct TimeoutBudgetStats {
        histograms {
            upstream_rq_timeout_budget_percent_used: Unspecified,
            upstream_rq_timeout_budget_per_try_percent_used: Unspecified,
        }
    }
}

stat_group! {
    /// `request_response_sizes`: what went to hosts and came back, attempt by attempt.
    struct SizeStats {
        histograms {
            upstream_rq_headers_size: Bytes,
            upstream_rq_headers_count: Unspecified,
            upstream_rq_body_size: Bytes,
            upstream_rs_headers_size: Bytes,
            upstream_rs_headers_count: Unspecified,
            upstream_rs_body_size: Bytes,
        }
    }
}

/// Which of the histograms a cluster has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tracking {
    /// `timeout_budgets`.
    pub(crate) timeout_budgets: bool,
    /// `request_response_sizes`.
    pub(crate) request_response_sizes: bool,
    /// `per_endpoint_stats`.
    pub(crate) per_endpoint: bool,
}

/// The histograms of one cluster.
#[derive(Debug)]
pub struct TrackedStats {
    budgets: Option<TimeoutBudgetStats>,
    sizes: Option<SizeStats>,
}

/// The size of a head.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HeadSize {
    /// Bytes of all names and values.
    pub bytes: u64,
    /// Fields, pseudo headers included.
    pub fields: u64,
}

impl HeadSize {
    /// The size of `head`.
    pub fn of(head: &HeaderMap) -> Self {
        Self { bytes: head.byte_size() as u64, fields: head.len() as u64 }
    }
}

/// What one attempt moved.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AttemptSizes {
    /// The head of the request.
    pub request: HeadSize,
    /// Bytes of its body.
    pub request_body: u64,
    /// The head of the response as it came, if one came.
    pub response: Option<HeadSize>,
    /// Bytes of its body.
    pub response_body: u64,
}

impl TrackedStats {
    /// The histograms in the scope of a cluster; none when it has none.
    pub(crate) fn of(scope: &Scope, tracking: Tracking) -> Option<Box<Self>> {
        let Tracking { timeout_budgets, request_response_sizes, per_endpoint: _ } = tracking; // see ClusterSettings
        (timeout_budgets || request_response_sizes).then(|| {
            Box::new(Self {
                budgets: timeout_budgets.then(|| scope.group()),
                sizes: request_response_sizes.then(|| scope.group()),
            })
        })
    }

    /// Records what an attempt moved, when it ends.
    pub fn record_sizes(&self, attempt: &AttemptSizes) {
        let Some(stats) = &self.sizes else { return };
        stats.upstream_rq_headers_size().record(attempt.request.bytes);
        stats.upstream_rq_headers_count().record(attempt.request.fields);
        stats.upstream_rq_body_size().record(attempt.request_body);
        let Some(response) = attempt.response else { return };
        stats.upstream_rs_headers_size().record(response.bytes);
        stats.upstream_rs_headers_count().record(response.fields);
        stats.upstream_rs_body_size().record(attempt.response_body);
    }

    /// Records the time that an attempt took of `per_try_timeout`.
    pub fn record_attempt_time(&self, elapsed: Duration, limit: Option<Duration>) {
        if let Some(stats) = &self.budgets {
            stats.upstream_rq_timeout_budget_per_try_percent_used().record(percent(elapsed, limit));
        }
    }

    /// Records the time that a request took of its `timeout`.
    pub fn record_request_time(&self, elapsed: Duration, limit: Option<Duration>) {
        if let Some(stats) = &self.budgets {
            stats.upstream_rq_timeout_budget_percent_used().record(percent(elapsed, limit));
        }
    }
}

/// Whole percents; of no limit, none is used.
fn percent(elapsed: Duration, limit: Option<Duration>) -> u64 {
    let limit = limit.map_or(0, |limit| limit.as_millis());
    (elapsed.as_millis() * 100).checked_div(limit).unwrap_or(0) as u64
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::percent;

    #[test]
    fn shares_of_a_limit_are_whole_percents() {
        let millis = Duration::from_millis;
        assert_eq!(percent(millis(50), Some(millis(200))), 25);
        assert_eq!(percent(millis(1), Some(millis(300))), 0);
        assert_eq!(percent(millis(450), Some(millis(300))), 150);
        assert_eq!(percent(millis(450), None), 0);
        assert_eq!(percent(millis(450), Some(Duration::ZERO)), 0);
    }
}
