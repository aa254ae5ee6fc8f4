//! Limits on what a cluster may have under way, shared by all workers and checked without a lock, so that they can be
//! overshot by a few, as in Envoy.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use dhow_runtime_config::{Current, RuntimeValues, Snapshot, with_current};
use dhow_stats::{Counter, Gauge};
use parking_lot::Mutex;

use crate::host::uptime_millis;
use crate::stats::{RemainingStats, TrafficStats};

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

    /// The gauge that is 1 while there is no room.
    fn open_gauge(self, stats: &TrafficStats, priority: RoutingPriority) -> Gauge {
        use RoutingPriority::{Default, High};
        match (self, priority) {
            (Self::Connections, Default) => stats.default_cx_open(),
            (Self::Connections, High) => stats.high_cx_open(),
            (Self::PendingRequests, Default) => stats.default_rq_pending_open(),
            (Self::PendingRequests, High) => stats.high_rq_pending_open(),
            (Self::Requests, Default) => stats.default_rq_open(),
            (Self::Requests, High) => stats.high_rq_open(),
            (Self::Retries, Default) => stats.default_rq_retry_open(),
            (Self::Retries, High) => stats.high_rq_retry_open(),
            (Self::ConnectionPools, Default) => stats.default_cx_pool_open(),
            (Self::ConnectionPools, High) => stats.high_cx_pool_open(),
        }
    }

    fn remaining_gauge(self, stats: &RemainingStats) -> Gauge {
        match self {
            Self::Connections => stats.remaining_cx(),
            Self::PendingRequests => stats.remaining_pending(),
            Self::Requests => stats.remaining_rq(),
            Self::Retries => stats.remaining_retries(),
            Self::ConnectionPools => stats.remaining_cx_pools(),
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

    fn overflow_counter(self, stats: &TrafficStats) -> Counter {
        match self {
            Self::Connections => stats.upstream_cx_overflow(),
            Self::PendingRequests => stats.upstream_rq_pending_overflow(),
            Self::Requests => stats.upstream_rq_active_overflow(),
            Self::Retries => stats.upstream_rq_retry_overflow(),
            Self::ConnectionPools => stats.upstream_cx_pool_overflow(),
        }
    }
}

/// The limits of one cluster, and how much of each is in use.
#[derive(Debug)]
pub struct CircuitBreakers {
    limits: Arc<Limits>,
}

#[derive(Debug)]
struct Limits {
    cluster: Arc<str>,
    thresholds: Arc<[Thresholds; 2]>,
    /// Of each priority, made when there first is a runtime that could override something.
    keys: [OnceLock<Box<RuntimeKeys>>; 2],
    stats: TrafficStats,
    /// Where a priority has `track_remaining`.
    remaining: Option<Box<[Option<RemainingStats>; 2]>>,
    /// A retry budget was asked, from when on `remaining_retries` says nothing.
    budget_asked: [AtomicBool; 2],
    in_use: [[AtomicU32; 5]; 2],
    noted: [[AtomicU8; 5]; 2],
    /// Where a budget counts the requests of an interval.
    recent: Option<Box<[Recent; 2]>>,
}

/// What a gauge of a breaker was told last: nothing yet.
const UNUSED: u8 = 0;
/// ... that there is room.
const CLOSED: u8 = 1;
/// ... that there is none.
const OPEN: u8 = 2;

/// When requests of a priority began, in milliseconds.
type Recent = Mutex<VecDeque<u64>>;

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

impl CircuitBreakers {
    /// Limits of a cluster for the two priorities in the order of [`RoutingPriority::ALL`].
    pub(crate) fn new(cluster: &Arc<str>, thresholds: Arc<[Thresholds; 2]>, stats: &TrafficStats) -> Self {
        let track = |priority: RoutingPriority| {
            let thresholds = &thresholds[priority as usize];
            thresholds.track_remaining.then(|| {
                let scope = stats.scope().scope("circuit_breakers").scope(priority.name());
                let remaining: RemainingStats = scope.group();
                for resource in Resource::ALL {
                    resource.remaining_gauge(&remaining).set(thresholds.max(resource));
                }
                remaining
            })
        };
        let remaining = RoutingPriority::ALL.map(track);
        let counts_recent = thresholds.iter().any(|level| level.budget_interval().is_some());
        let limits = Limits {
            recent: counts_recent.then(Box::default),
            remaining: remaining.iter().any(Option::is_some).then(|| Box::new(remaining)),
            budget_asked: Default::default(),
            stats: stats.clone(),
            in_use: Default::default(),
            noted: Default::default(),
            thresholds,
            keys: Default::default(),
            cluster: cluster.clone(),
        };
        Self { limits: Arc::new(limits) }
    }

    /// How much of `resource` is allowed now: what the runtime says, the configuration, or what a retry budget comes to.
    pub fn limit(&self, priority: RoutingPriority, resource: Resource) -> u64 {
        self.limits.max(priority, resource)
    }

    /// How much of `resource` is in use on all workers.
    pub fn in_use(&self, priority: RoutingPriority, resource: Resource) -> u64 {
        self.limits.in_use(priority, resource)
    }

    /// Whether one more of `resource` is within the limit.
    pub fn has_room(&self, priority: RoutingPriority, resource: Resource) -> bool {
        self.limits.has_room(priority, resource)
    }

    /// Takes one of `resource` whatever the limit says: each host may have one connection even when the limit is
    /// reached.
    pub fn acquire(&self, priority: RoutingPriority, resource: Resource) -> Permit {
        Permit::take(self.limits.clone(), priority, resource)
    }

    /// Takes one of `resource` if the limit allows it; otherwise counts the overflow (`upstream_cx_overflow`,
    /// `upstream_rq_pending_overflow`, `upstream_rq_active_overflow`, `upstream_rq_retry_overflow`,
    /// `upstream_cx_pool_overflow`).
    pub fn try_acquire(&self, priority: RoutingPriority, resource: Resource) -> Option<Permit> {
        if self.limits.has_room(priority, resource) {
            return Some(Permit::take(self.limits.clone(), priority, resource));
        }
        self.count_overflow(resource);
        None
    }

    /// Counts an overflow that the caller found with [`CircuitBreakers::has_room`].
    pub fn count_overflow(&self, resource: Resource) {
        resource.overflow_counter(&self.limits.stats).inc();
    }
}

impl Thresholds {
    /// `budget_interval` of the retry budget.
    fn budget_interval(&self) -> Option<Duration> {
        self.retry_budget.and_then(|budget| budget.interval)
    }

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

impl Limits {
    fn in_use(&self, priority: RoutingPriority, resource: Resource) -> u64 {
        self.in_use[priority as usize][resource as usize].load(Ordering::Relaxed).into()
    }

    /// What the runtime says, if there is one.
    fn overridden<T>(
        &self,
        priority: RoutingPriority,
        read: impl FnOnce(&Snapshot, &RuntimeKeys) -> Option<T>,
    ) -> Option<T> {
        if Current::is_empty() {
            return None;
        }
        let keys = &self.keys[priority as usize];
        let keys = keys.get_or_init(|| Box::new(RuntimeKeys::new(&self.cluster, priority)));
        with_current(|snapshot| read(snapshot, keys))
    }

    fn max(&self, priority: RoutingPriority, resource: Resource) -> u64 {
        match (resource, self.thresholds[priority as usize].retry_budget) {
            (Resource::Retries, Some(budget)) => self.budget(priority, budget),
            _ => self.fixed_max(priority, resource),
        }
    }

    fn fixed_max(&self, priority: RoutingPriority, resource: Resource) -> u64 {
        self.overridden(priority, |runtime, keys| runtime.number(&keys.limits[resource as usize]))
            .unwrap_or_else(|| self.thresholds[priority as usize].max(resource))
    }

    fn budget(&self, priority: RoutingPriority, budget: RetryBudget) -> u64 {
        let percent = self.overridden(priority, |runtime, keys| runtime.double(&keys.budget_percent));
        let least = self.overridden(priority, |runtime, keys| runtime.number(&keys.min_concurrency));
        let under_way = match (&self.recent, budget.interval) {
            (Some(recent), Some(interval)) => {
                let mut recent = recent[priority as usize].lock();
                forget_before(&mut recent, uptime_millis().saturating_sub(interval.as_millis() as u64));
                recent.len() as u64
            }
            _ => self.in_use(priority, Resource::Requests) + self.in_use(priority, Resource::PendingRequests),
        };
        let share = percent.unwrap_or(budget.percent) / 100.0 * under_way as f64;
        (share as u64).max(least.unwrap_or(budget.min_concurrency))
    }

    #[cold]
    fn note_request(&self, priority: RoutingPriority, recent: &[Recent; 2]) {
        let Some(interval) = self.thresholds[priority as usize].budget_interval() else { return };
        let now = uptime_millis();
        let mut recent = recent[priority as usize].lock();
        forget_before(&mut recent, now.saturating_sub(interval.as_millis() as u64));
        recent.push_back(now);
    }

    fn has_room(&self, priority: RoutingPriority, resource: Resource) -> bool {
        if resource == Resource::Retries && self.remaining.is_some() {
            self.clear_remaining_retries(priority);
        }
        self.in_use(priority, resource) < self.max(priority, resource)
    }

    /// The gauge follows the fixed limit, also where a retry budget decides; it moves only when something is taken or given
    /// back, so that a limit of zero is not open before.
    fn note_open(&self, priority: RoutingPriority, resource: Resource, in_use: u32) {
        let open = u64::from(in_use) >= self.fixed_max(priority, resource);
        let noted = &self.noted[priority as usize][resource as usize];
        let now = if open { OPEN } else { CLOSED };
        // Most calls find the state as it is; only a change is written.
        if noted.load(Ordering::Relaxed) == now {
            return;
        }
        let before = noted.swap(now, Ordering::Relaxed);
        let gauge = resource.open_gauge(&self.stats, priority);
        match (before, now) {
            (OPEN, CLOSED) => gauge.dec(),
            (CLOSED | UNUSED, OPEN) => gauge.inc(),
            // From now on it counts as used.
            (UNUSED, CLOSED) => gauge.add(0),
            _ => {}
        }
    }

    /// The gauge of what is left, where it is kept.
    fn remaining(&self, priority: RoutingPriority, resource: Resource) -> Option<Gauge> {
        let stats = self.remaining.as_ref()?[priority as usize].as_ref()?;
        let by_budget =
            resource == Resource::Retries && self.thresholds[priority as usize].retry_budget.is_some();
        (!by_budget).then(|| resource.remaining_gauge(stats))
    }

    /// With a retry budget the gauge says `max_retries` until the first retry, and zero from then on.
    fn clear_remaining_retries(&self, priority: RoutingPriority) {
        let thresholds = &self.thresholds[priority as usize];
        let stats = self.remaining.as_ref().and_then(|stats| stats[priority as usize].as_ref());
        if let (Some(stats), Some(_)) = (stats, thresholds.retry_budget)
            && !self.budget_asked[priority as usize].swap(true, Ordering::Relaxed)
        {
            stats.remaining_retries().sub(thresholds.max_retries);
        }
    }
}

fn forget_before(recent: &mut VecDeque<u64>, start: u64) {
    while recent.front().is_some_and(|&begun| begun < start) {
        recent.pop_front();
    }
}

impl Drop for Limits {
    fn drop(&mut self) {
        // The cluster may go on under the same stat names with other limits.
        for priority in RoutingPriority::ALL {
            for resource in Resource::ALL {
                if *self.noted[priority as usize][resource as usize].get_mut() == OPEN {
                    resource.open_gauge(&self.stats, priority).dec();
                }
            }
        }
    }
}

/// One of a limited resource; dropping it gives it back.
#[derive(Debug)]
pub struct Permit {
    limits: Arc<Limits>,
    priority: RoutingPriority,
    resource: Resource,
}

impl Permit {
    fn take(limits: Arc<Limits>, priority: RoutingPriority, resource: Resource) -> Self {
        let in_use = limits.in_use[priority as usize][resource as usize].fetch_add(1, Ordering::Relaxed) + 1;
        if let Some(remaining) = limits.remaining(priority, resource) {
            remaining.dec();
        }
        limits.note_open(priority, resource, in_use);
        if let (Some(recent), Resource::Requests) = (&limits.recent, resource) {
            limits.note_request(priority, recent);
        }
        Self { limits, priority, resource }
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let Self { limits, priority, resource } = self;
        let in_use =
            limits.in_use[*priority as usize][*resource as usize].fetch_sub(1, Ordering::Relaxed) - 1;
        if let Some(remaining) = limits.remaining(*priority, *resource) {
            remaining.inc();
        }
        limits.note_open(*priority, *resource, in_use);
    }
}

#[cfg(test)]
mod tests {
    use dhow_stats::Store;

    use std::collections::VecDeque;
    use std::time::Duration;

    use super::{CircuitBreakers, Resource, RetryBudget, RoutingPriority, Thresholds, forget_before};
    use crate::stats::{RemainingStats, TrafficStats};

    const DEFAULT: RoutingPriority = RoutingPriority::Default;

    #[test]
    fn a_limit_refuses_counts_and_recovers() {
        let store = Store::new();
        let stats: TrafficStats = store.scope("cluster.a").group();
        let thresholds = Thresholds { max_requests: 2, track_remaining: true, ..Thresholds::default() };
        let breakers = CircuitBreakers::new(&"a".into(), [thresholds; 2].into(), &stats);
        let gauges: RemainingStats = store.scope("cluster.a.circuit_breakers.default").group();
        let (open, remaining) = (stats.default_rq_open(), gauges.remaining_rq());
        assert_eq!((open.value(), remaining.value()), (0, 2));

        let first = breakers.try_acquire(DEFAULT, Resource::Requests);
        let second = breakers.try_acquire(DEFAULT, Resource::Requests);
        assert!(first.is_some() && second.is_some());
        assert_eq!((open.value(), remaining.value()), (1, 0));
        assert!(breakers.try_acquire(DEFAULT, Resource::Requests).is_none());
        assert_eq!(stats.upstream_rq_active_overflow().value(), 1);
        assert!(breakers.try_acquire(RoutingPriority::High, Resource::Requests).is_some());

        drop(first);
        assert_eq!((open.value(), remaining.value()), (0, 1));
        assert!(breakers.has_room(DEFAULT, Resource::Requests));
    }

    #[test]
    fn a_limit_of_zero_is_open_from_its_first_use() {
        let store = Store::new();
        let stats: TrafficStats = store.scope("cluster.a").group();
        let thresholds = Thresholds { max_connections: 0, ..Thresholds::default() };
        let breakers = CircuitBreakers::new(&"a".into(), [thresholds; 2].into(), &stats);
        let open = stats.high_cx_open();
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
        let stats: TrafficStats = store.scope("cluster.a").group();
        let interval = Some(Duration::from_secs(3600));
        let budget = RetryBudget { percent: 20.0, min_concurrency: 0, interval };
        let thresholds = Thresholds { retry_budget: Some(budget), ..Thresholds::default() };
        let breakers = CircuitBreakers::new(&"a".into(), [thresholds; 2].into(), &stats);
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
        let stats: TrafficStats = store.scope("cluster.a").group();
        let budget = RetryBudget { percent: 20.0, min_concurrency: 1, interval: None };
        let thresholds = Thresholds { retry_budget: Some(budget), ..Thresholds::default() };
        let breakers = CircuitBreakers::new(&"a".into(), [thresholds; 2].into(), &stats);
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
