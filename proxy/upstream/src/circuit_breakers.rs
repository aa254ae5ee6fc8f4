//! Limits on what a cluster may have under way, shared by all workers and checked without a lock, so that they can be
//! overshot by a few, as in Envoy.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use dhow_runtime_config::{Current, RuntimeValues, Snapshot, with_current};
use dhow_stats::{Counter, Gauge, Scope};
use parking_lot::Mutex;

use crate::host::uptime_millis;

/// `envoy.config.core.v3.RoutingPriority`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum RoutingPriority {
    /// `DEFAULT`.
    #[default]
    Default,
    /// `HIGH`.
    High,
}

impl RoutingPriority {
    /// Both, in the order of Envoy's arrays.
    pub const ALL: [Self; 2] = [Self::Default, Self::High];

    /// `default` or `high`, as in stat names and in `/clusters`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Default => "default",
            Self::High => "high",
        }
    }
}

/// `envoy.config.cluster.v3.CircuitBreakers.Thresholds.RetryBudget`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RetryBudget {
    /// Percent of the active and pending requests that may be retries.
    pub percent: f64,
    /// Retries that are always allowed.
    pub min_concurrency: u64,
    /// `budget_interval`: it is the requests that began in this time which count, not those under way.
    pub interval: Option<Duration>,
}

/// `envoy.config.cluster.v3.CircuitBreakers.Thresholds` for one priority, defaults filled in.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Thresholds {
    /// Connections; 1024 by default.
    pub max_connections: u64,
    /// Requests that wait for a connection; 1024 by default.
    pub max_pending_requests: u64,
    /// Requests under way; 1024 by default.
    pub max_requests: u64,
    /// Retries under way; 3 by default. Not used with a budget.
    pub max_retries: u64,
    /// Connection pools; unlimited by default.
    pub max_connection_pools: u64,
    /// Replaces `max_retries`.
    pub retry_budget: Option<RetryBudget>,
    /// Whether the gauges `remaining_*` are kept.
    pub track_remaining: bool,
}

impl Default for Thresholds {
    fn default() -> Self {
        Self {
            max_connections: 1024,
            max_pending_requests: 1024,
            max_requests: 1024,
            max_retries: 3,
            max_connection_pools: u64::MAX,
            retry_budget: None,
            track_remaining: false,
        }
    }
}

/// What is limited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resource {
    /// Connections (`cx`).
    Connections,
    /// Requests waiting for a connection (`rq_pending`).
    PendingRequests,
    /// Requests under way (`rq`).
    Requests,
    /// Retries under way (`rq_retry`).
    Retries,
    /// Connection pools (`cx_pool`).
    ConnectionPools,
}

impl Resource {
    const ALL: [Self; 5] =
        [Self::Connections, Self::PendingRequests, Self::Requests, Self::Retries, Self::ConnectionPools];

    const fn open_gauge(self) -> &'static str {
        match self {
            Self::Connections => "cx_open",
            Self::PendingRequests => "rq_pending_open",
            Self::Requests => "rq_open",
            Self::Retries => "rq_retry_open",
            Self::ConnectionPools => "cx_pool_open",
        }
    }

    const fn remaining_gauge(self) -> &'static str {
        match self {
            Self::Connections => "remaining_cx",
            Self::PendingRequests => "remaining_pending",
            Self::Requests => "remaining_rq",
            Self::Retries => "remaining_retries",
            Self::ConnectionPools => "remaining_cx_pools",
        }
    }

    const fn field(self) -> &'static str {
        match self {
            Self::Connections => "max_connections",
            Self::PendingRequests => "max_pending_requests",
            Self::Requests => "max_requests",
            Self::Retries => "max_retries",
            Self::ConnectionPools => "max_connection_pools",
        }
    }

    const fn overflow_counter(self) -> &'static str {
        match self {
            Self::Connections => "upstream_cx_overflow",
            Self::PendingRequests => "upstream_rq_pending_overflow",
            Self::Requests => "upstream_rq_active_overflow",
            Self::Retries => "upstream_rq_retry_overflow",
            Self::ConnectionPools => "upstream_cx_pool_overflow",
        }
    }
}

/// The limits of one cluster, and how much of each is in use.
#[derive(Debug)]
pub struct CircuitBreakers {
    levels: [Arc<Level>; 2],
}

#[derive(Debug)]
struct Level {
    thresholds: Thresholds,
    cluster: Arc<str>,
    priority: RoutingPriority,
    /// Made when there first is a runtime that could override something.
    keys: OnceLock<Box<RuntimeKeys>>,
    /// Keeps the gauges alive.
    _scope: Scope,
    limits: [Limit; 5],
    /// When requests began, for a budget that counts those of an interval; in milliseconds.
    recent: Option<Mutex<VecDeque<u64>>>,
}

/// `circuit_breakers.<cluster>.<priority>.*`: the keys that override the limits.
#[derive(Debug)]
struct RuntimeKeys {
    limits: [Box<str>; 5],
    budget_percent: Box<str>,
    min_concurrency: Box<str>,
}

impl RuntimeKeys {
    fn new(cluster: &str, priority: RoutingPriority) -> Self {
        let key = |field: &str| -> Box<str> {
            format!("circuit_breakers.{cluster}.{}.{field}", priority.name()).into()
        };
        Self {
            limits: Resource::ALL.map(|resource| key(resource.field())),
            budget_percent: key("retry_budget.budget_percent"),
            min_concurrency: key("retry_budget.min_retry_concurrency"),
        }
    }
}

#[derive(Debug)]
struct Limit {
    max: u64,
    in_use: AtomicU64,
    is_open: AtomicBool,
    open: Gauge,
    remaining: Gauge,
    overflow: Counter,
}

impl CircuitBreakers {
    /// Limits of a cluster for the two priorities in the order of [`RoutingPriority::ALL`]; `overflow` gives the counter of a
    /// name.
    pub(crate) fn new(
        cluster: &Arc<str>,
        thresholds: [Thresholds; 2],
        scope: &Scope,
        overflow: impl Fn(&'static str) -> Counter,
    ) -> Self {
        let level = |priority: RoutingPriority| {
            let thresholds = thresholds[priority as usize];
            let scope = scope.scope("circuit_breakers").scope(priority.name());
            Arc::new(Level {
                thresholds,
                recent: thresholds.retry_budget.and_then(|budget| budget.interval).map(|_| Mutex::default()),
                cluster: cluster.clone(),
                priority,
                keys: OnceLock::new(),
                _scope: scope.clone(),
                limits: Resource::ALL.map(|resource| {
                    let max = thresholds.max(resource);
                    let remaining = if thresholds.track_remaining {
                        let gauge = scope.gauge(resource.remaining_gauge());
                        gauge.set(max);
                        gauge
                    } else {
                        Gauge::NONE
                    };
                    Limit {
                        max,
                        in_use: AtomicU64::new(0),
                        is_open: AtomicBool::new(false),
                        open: scope.gauge(resource.open_gauge()),
                        remaining,
                        overflow: overflow(resource.overflow_counter()),
                    }
                }),
            })
        };
        Self { levels: RoutingPriority::ALL.map(level) }
    }

    /// How much of `resource` is allowed now: what the runtime says, the configuration, or what a retry budget comes to.
    pub fn limit(&self, priority: RoutingPriority, resource: Resource) -> u64 {
        self.levels[priority as usize].max(resource)
    }

    /// How much of `resource` is in use on all workers.
    pub fn in_use(&self, priority: RoutingPriority, resource: Resource) -> u64 {
        self.levels[priority as usize].limit(resource).in_use.load(Ordering::Relaxed)
    }

    /// Whether one more of `resource` is within the limit.
    pub fn has_room(&self, priority: RoutingPriority, resource: Resource) -> bool {
        self.levels[priority as usize].has_room(resource)
    }

    /// Takes one of `resource` whatever the limit says: each host may have one connection even when the limit is
    /// reached.
    pub fn acquire(&self, priority: RoutingPriority, resource: Resource) -> Permit {
        Permit::take(self.levels[priority as usize].clone(), resource)
    }

    /// Takes one of `resource` if the limit allows it; otherwise counts the overflow (`upstream_cx_overflow`,
    /// `upstream_rq_pending_overflow`, `upstream_rq_active_overflow`, `upstream_rq_retry_overflow`,
    /// `upstream_cx_pool_overflow`).
    pub fn try_acquire(&self, priority: RoutingPriority, resource: Resource) -> Option<Permit> {
        let level = &self.levels[priority as usize];
        if level.has_room(resource) {
            return Some(Permit::take(level.clone(), resource));
        }
        level.limit(resource).overflow.inc();
        None
    }

    /// Counts an overflow that the caller found with [`CircuitBreakers::has_room`].
    pub fn count_overflow(&self, priority: RoutingPriority, resource: Resource) {
        self.levels[priority as usize].limit(resource).overflow.inc();
    }
}

impl Thresholds {
    fn max(&self, resource: Resource) -> u64 {
        match resource {
            Resource::Connections => self.max_connections,
            Resource::PendingRequests => self.max_pending_requests,
            Resource::Requests => self.max_requests,
            Resource::Retries => self.max_retries,
            Resource::ConnectionPools => self.max_connection_pools,
        }
    }
}

impl Level {
    fn limit(&self, resource: Resource) -> &Limit {
        &self.limits[resource as usize]
    }

    /// What the runtime says, if there is one.
    fn overridden<T>(&self, read: impl FnOnce(&Snapshot, &RuntimeKeys) -> Option<T>) -> Option<T> {
        if Current::is_empty() {
            return None;
        }
        let keys = self.keys.get_or_init(|| Box::new(RuntimeKeys::new(&self.cluster, self.priority)));
        with_current(|snapshot| read(snapshot, keys))
    }

    fn max(&self, resource: Resource) -> u64 {
        match (resource, self.thresholds.retry_budget) {
            (Resource::Retries, Some(budget)) => self.budget(budget),
            _ => self.fixed_max(resource),
        }
    }

    fn fixed_max(&self, resource: Resource) -> u64 {
        self.overridden(|runtime, keys| runtime.number(&keys.limits[resource as usize]))
            .unwrap_or(self.limit(resource).max)
    }

    fn budget(&self, budget: RetryBudget) -> u64 {
        let percent = self.overridden(|runtime, keys| runtime.double(&keys.budget_percent));
        let least = self.overridden(|runtime, keys| runtime.number(&keys.min_concurrency));
        let under_way = match (&self.recent, budget.interval) {
            (Some(recent), Some(interval)) => {
                let mut recent = recent.lock();
                forget_before(&mut recent, uptime_millis().saturating_sub(interval.as_millis() as u64));
                recent.len() as u64
            }
            _ => {
                self.limit(Resource::Requests).in_use.load(Ordering::Relaxed)
                    + self.limit(Resource::PendingRequests).in_use.load(Ordering::Relaxed)
            }
        };
        let share = percent.unwrap_or(budget.percent) / 100.0 * under_way as f64;
        (share as u64).max(least.unwrap_or(budget.min_concurrency))
    }

    #[cold]
    fn note_request(&self, recent: &Mutex<VecDeque<u64>>) {
        let interval = self.thresholds.retry_budget.and_then(|budget| budget.interval).unwrap_or_default();
        let now = uptime_millis();
        let mut recent = recent.lock();
        forget_before(&mut recent, now.saturating_sub(interval.as_millis() as u64));
        recent.push_back(now);
    }

    fn has_room(&self, resource: Resource) -> bool {
        self.limit(resource).in_use.load(Ordering::Relaxed) < self.max(resource)
    }
}

fn forget_before(recent: &mut VecDeque<u64>, start: u64) {
    while recent.front().is_some_and(|&begun| begun < start) {
        recent.pop_front();
    }
}

impl Limit {
    /// The gauge follows the fixed limit, also where a retry budget decides; it moves only when something is taken or given
    /// back, so that a limit of zero is not open before.
    fn note_open(&self, in_use: u64, max: u64) {
        let open = in_use >= max;
        // Most calls find the state as it is; only a change is written.
        if self.is_open.load(Ordering::Relaxed) != open && self.is_open.swap(open, Ordering::Relaxed) != open
        {
            if open { self.open.inc() } else { self.open.dec() }
        }
    }
}

impl Drop for Limit {
    fn drop(&mut self) {
        // The cluster may go on under the same stat names with other limits.
        if self.is_open.load(Ordering::Relaxed) {
            self.open.dec();
        }
    }
}

/// One of a limited resource; dropping it gives it back.
#[derive(Debug)]
pub struct Permit {
    level: Arc<Level>,
    resource: Resource,
}

impl Permit {
    fn take(level: Arc<Level>, resource: Resource) -> Self {
        let limit = level.limit(resource);
        let in_use = limit.in_use.fetch_add(1, Ordering::Relaxed) + 1;
        limit.remaining.dec();
        limit.note_open(in_use, level.fixed_max(resource));
        if let (Some(recent), Resource::Requests) = (&level.recent, resource) {
            level.note_request(recent);
        }
        Self { level, resource }
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let limit = self.level.limit(self.resource);
        let in_use = limit.in_use.fetch_sub(1, Ordering::Relaxed) - 1;
        limit.remaining.inc();
        limit.note_open(in_use, self.level.fixed_max(self.resource));
    }
}

#[cfg(test)]
mod tests {
    use dhow_stats::Store;

    use std::collections::VecDeque;
    use std::time::Duration;

    use super::{CircuitBreakers, Resource, RetryBudget, RoutingPriority, Thresholds, forget_before};

    const DEFAULT: RoutingPriority = RoutingPriority::Default;

    #[test]
    fn a_limit_refuses_counts_and_recovers() {
        let store = Store::new();
        let scope = store.scope("cluster.a");
        let thresholds = Thresholds { max_requests: 2, track_remaining: true, ..Thresholds::default() };
        let breakers = CircuitBreakers::new(&"a".into(), [thresholds; 2], &scope, |name| scope.counter(name));
        let gauges = scope.scope("circuit_breakers.default");
        let (open, remaining) = (gauges.gauge("rq_open"), gauges.gauge("remaining_rq"));
        assert_eq!((open.value(), remaining.value()), (0, 2));

        let first = breakers.try_acquire(DEFAULT, Resource::Requests);
        let second = breakers.try_acquire(DEFAULT, Resource::Requests);
        assert!(first.is_some() && second.is_some());
        assert_eq!((open.value(), remaining.value()), (1, 0));
        assert!(breakers.try_acquire(DEFAULT, Resource::Requests).is_none());
        assert_eq!(scope.counter("upstream_rq_active_overflow").value(), 1);
        assert!(breakers.try_acquire(RoutingPriority::High, Resource::Requests).is_some());

        drop(first);
        assert_eq!((open.value(), remaining.value()), (0, 1));
        assert!(breakers.has_room(DEFAULT, Resource::Requests));
    }

    #[test]
    fn a_limit_of_zero_is_open_from_its_first_use() {
        let store = Store::new();
        let scope = store.scope("cluster.a");
        let thresholds = Thresholds { max_connections: 0, ..Thresholds::default() };
        let breakers = CircuitBreakers::new(&"a".into(), [thresholds; 2], &scope, |name| scope.counter(name));
        let open = scope.scope("circuit_breakers.high").gauge("cx_open");
        assert_eq!(open.value(), 0);
        // The connection that every host may have is taken past the limit.
        let permit = breakers.acquire(RoutingPriority::High, Resource::Connections);
        assert_eq!(breakers.in_use(RoutingPriority::High, Resource::Connections), 1);
        assert_eq!(open.value(), 1);
        drop(permit);
        assert_eq!(open.value(), 1);
        assert_eq!(breakers.limit(RoutingPriority::High, Resource::Connections), 0);
        assert_eq!(breakers.limit(DEFAULT, Resource::Retries), 3);
    }

    #[test]
    fn a_retry_budget_may_count_the_requests_of_an_interval() {
        let store = Store::new();
        let scope = store.scope("cluster.a");
        let interval = Some(Duration::from_secs(3600));
        let budget = RetryBudget { percent: 20.0, min_concurrency: 0, interval };
        let thresholds = Thresholds { retry_budget: Some(budget), ..Thresholds::default() };
        let breakers = CircuitBreakers::new(&"a".into(), [thresholds; 2], &scope, |name| scope.counter(name));
        for _ in 0..4 {
            drop(breakers.acquire(DEFAULT, Resource::Requests));
        }
        assert!(!breakers.has_room(DEFAULT, Resource::Retries));
        drop(breakers.acquire(DEFAULT, Resource::Requests));
        assert!(breakers.has_room(DEFAULT, Resource::Retries));
        assert!(!breakers.has_room(RoutingPriority::High, Resource::Retries));
    }

    #[test]
    fn what_began_before_the_interval_is_forgotten() {
        let mut recent = VecDeque::from([10, 20, 30]);
        forget_before(&mut recent, 20);
        assert_eq!(recent, [20, 30]);
    }

    #[test]
    fn a_retry_budget_follows_the_requests_under_way() {
        let store = Store::new();
        let scope = store.scope("cluster.a");
        let budget = RetryBudget { percent: 20.0, min_concurrency: 1, interval: None };
        let thresholds = Thresholds { retry_budget: Some(budget), ..Thresholds::default() };
        let breakers = CircuitBreakers::new(&"a".into(), [thresholds; 2], &scope, |name| scope.counter(name));
        let retry = breakers.try_acquire(DEFAULT, Resource::Retries);
        assert!(retry.is_some());
        assert!(breakers.try_acquire(DEFAULT, Resource::Retries).is_none());
        let requests: Vec<_> = (0..10).map(|_| breakers.acquire(DEFAULT, Resource::Requests)).collect();
        let second = breakers.try_acquire(DEFAULT, Resource::Retries);
        assert!(second.is_some());
        assert!(breakers.try_acquire(DEFAULT, Resource::Retries).is_none());
        drop(requests);
    }
}
