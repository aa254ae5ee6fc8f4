//! When a host is checked next.

use std::time::Duration;

use dhow_base::Rng;
use dhow_runtime_config::{Current, RuntimeValues};

use super::session::{State, Transition};

/// The intervals of `HealthCheck`, defaults filled in.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Intervals {
    /// `interval`.
    pub(crate) healthy: Duration,
    /// `healthy_edge_interval`: the host has answered well and is not healthy yet.
    pub(crate) healthy_edge: Duration,
    /// `unhealthy_interval`.
    pub(crate) unhealthy: Duration,
    /// `unhealthy_edge_interval`: the host has failed and is not unhealthy yet.
    pub(crate) unhealthy_edge: Duration,
    /// `no_traffic_interval`: the cluster has not had a connection yet.
    pub(crate) no_traffic: Duration,
    /// `no_traffic_healthy_interval`.
    pub(crate) no_traffic_healthy: Duration,
    /// `interval_jitter`: up to this much is added.
    pub(crate) jitter: Duration,
    /// `interval_jitter_percent`: up to this part of the interval is added.
    pub(crate) jitter_percent: u32,
}

impl Intervals {
    /// The pause behind a check that left a host in `state` by `transition`. `traffic` says whether the cluster ever
    /// opened a connection.
    pub(crate) fn next(
        &self,
        traffic: bool,
        state: State,
        transition: Transition,
        rng: &mut Rng,
    ) -> Duration {
        let pending = transition == Transition::Pending;
        let base = match (traffic, state, pending) {
            (true, State::Healthy, false) => self.healthy,
            (true, State::Healthy, true) => self.healthy_edge,
            (true, State::Unhealthy, false) => self.unhealthy,
            (true, State::Unhealthy, true) => self.unhealthy_edge,
            (false, State::Healthy, false) => self.no_traffic_healthy,
            (false, ..) => self.no_traffic,
        };
        within_runtime(self.with_jitter(base, rng), &Current)
    }

    fn with_jitter(&self, base: Duration, rng: &mut Rng) -> Duration {
        let millis = u64::try_from(base.as_millis()).unwrap_or(u64::MAX);
        let by_percent = rng.below(millis.saturating_mul(self.jitter_percent.into()) / 100);
        let fixed = random_below(self.jitter, rng);
        base + Duration::from_millis(by_percent) + fixed
    }
}

/// The pause within `health_check.min_interval` and `health_check.max_interval` of the runtime, in milliseconds; 1 ms at least.
fn within_runtime(pause: Duration, runtime: &impl RuntimeValues) -> Duration {
    let bound = |key| runtime.number(key).map(Duration::from_millis);
    let most = bound("health_check.max_interval").map_or(pause, |most| pause.min(most));
    most.max(bound("health_check.min_interval").unwrap_or_default()).max(Duration::from_millis(1))
}

/// A random time below `bound`, in milliseconds.
pub(crate) fn random_below(bound: Duration, rng: &mut Rng) -> Duration {
    Duration::from_millis(rng.below(u64::try_from(bound.as_millis()).unwrap_or(u64::MAX)))
}

#[cfg(test)]
mod tests {
    use dhow_runtime_config::{Layer, Snapshot};

    use super::*;

    const fn secs(count: u64) -> Duration {
        Duration::from_secs(count)
    }

    fn intervals() -> Intervals {
        Intervals {
            healthy: secs(1),
            healthy_edge: secs(2),
            unhealthy: secs(3),
            unhealthy_edge: secs(4),
            no_traffic: secs(60),
            no_traffic_healthy: secs(70),
            jitter: Duration::ZERO,
            jitter_percent: 0,
        }
    }

    #[test]
    fn the_interval_follows_traffic_state_and_what_is_pending() {
        let mut rng = Rng::seeded(1);
        let mut next = |traffic, state, transition| intervals().next(traffic, state, transition, &mut rng);
        assert_eq!(next(true, State::Healthy, Transition::None), secs(1));
        assert_eq!(next(true, State::Healthy, Transition::Changed), secs(1));
        assert_eq!(next(true, State::Healthy, Transition::Pending), secs(2));
        assert_eq!(next(true, State::Unhealthy, Transition::Changed), secs(3));
        assert_eq!(next(true, State::Unhealthy, Transition::Pending), secs(4));
        assert_eq!(next(false, State::Healthy, Transition::None), secs(70));
        assert_eq!(next(false, State::Healthy, Transition::Pending), secs(60));
        assert_eq!(next(false, State::Unhealthy, Transition::None), secs(60));
    }

    #[test]
    fn jitter_only_adds() {
        let mut rng = Rng::seeded(7);
        let jittery = Intervals { jitter: secs(2), jitter_percent: 50, ..intervals() };
        let all: Vec<Duration> =
            (0..1000).map(|_| jittery.next(true, State::Healthy, Transition::None, &mut rng)).collect();
        assert!(all.iter().all(|pause| (secs(1)..Duration::from_millis(3500)).contains(pause)));
        assert!(all.iter().any(|pause| *pause > secs(3)), "both jitters are in it");
    }

    #[test]
    fn the_runtime_bounds_the_interval() {
        let mut layer = Layer::new("l");
        layer.set("health_check.max_interval", "5000");
        let most = Snapshot::new(vec![layer.clone()]);
        layer.set("health_check.min_interval", "2000");
        let both = Snapshot::new(vec![layer]);
        assert_eq!(within_runtime(secs(60), &Snapshot::new(Vec::new())), secs(60));
        assert_eq!(within_runtime(secs(60), &most), secs(5));
        assert_eq!(within_runtime(secs(1), &most), secs(1));
        assert_eq!(within_runtime(secs(1), &both), secs(2));
    }

    #[test]
    fn no_interval_is_zero() {
        let zero = Intervals { healthy: Duration::ZERO, ..intervals() };
        let mut rng = Rng::seeded(3);
        let next = zero.next(true, State::Healthy, Transition::None, &mut rng);
        assert_eq!(next, Duration::from_millis(1));
    }
}
