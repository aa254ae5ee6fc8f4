//! What a cluster's configuration says about the choice of hosts.

use std::sync::Arc;
use std::time::Duration;

use super::consistent::TableConfig;
use super::subset::SubsetConfig;
use super::zone::ZoneAware;
use crate::host::{Health, Host};

/// `lb_policy` or the first supported entry of `load_balancing_policy`, without the settings shared by all policies.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum LbPolicy {
    /// Hosts in turn.
    RoundRobin,
    /// The least busy of some hosts.
    LeastRequest {
        /// `choice_count`: hosts that are compared; 2 by default. `u32::MAX` compares all (`FULL_SCAN`).
        choices: u32,
        /// `active_request_bias`; 1.0 by default.
        bias: f64,
    },
    /// Any host.
    Random,
    /// By hash, with tables in the host sets.
    Consistent(TableConfig),
    /// The cluster type decides (`CLUSTER_PROVIDED`).
    ClusterProvided,
}

/// How localities share the traffic of a priority level.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum LocalityMode {
    /// `zone_aware_lb_config`, also when nothing is configured: it takes effect where `local_cluster_name` is set.
    ZoneAware(ZoneAware),
    /// `locality_weighted_lb_config`: by their weights.
    Weighted,
}

/// `slow_start_config`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SlowStart {
    /// `slow_start_window`: how long a host is new.
    pub window: Duration,
    /// `aggression`; 1.0 raises the weight in a straight line.
    pub aggression: f64,
    /// `min_weight_percent` as a fraction; 0.1 by default.
    pub min_weight: f64,
}

/// The health of hosts that a stream may ask for by address (`override_host_status`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OverrideStatuses {
    /// `UNKNOWN` or `HEALTHY`.
    pub healthy: bool,
    /// `UNHEALTHY`, `DRAINING` or `TIMEOUT`.
    pub unhealthy: bool,
    /// `DEGRADED`.
    pub degraded: bool,
}

/// How a cluster chooses hosts.
#[derive(Clone, Debug, PartialEq)]
pub struct LbConfig {
    /// The policy.
    pub policy: LbPolicy,
    /// What localities mean.
    pub locality: LocalityMode,
    /// `slow_start_config` of round robin and least request.
    pub slow_start: Option<SlowStart>,
    /// `hash_balance_factor` of consistent hashing in percent: a host gets at most this share of the average load.
    pub hash_balance_factor: Option<u32>,
    /// `lb_subset_config` or the subset policy.
    pub subset: Option<Arc<SubsetConfig>>,
    /// `override_host_status`.
    pub override_statuses: OverrideStatuses,
}

impl Default for OverrideStatuses {
    fn default() -> Self {
        Self { healthy: true, unhealthy: false, degraded: true }
    }
}

impl OverrideStatuses {
    /// Whether a stream may have `host` because it asked for it.
    pub fn accept(self, host: &Host) -> bool {
        match host.health() {
            Health::Healthy => self.healthy,
            Health::Degraded => self.degraded,
            Health::Unhealthy => self.unhealthy,
        }
    }
}

impl LbConfig {
    /// A policy with Envoy's defaults for everything else.
    pub fn of(policy: LbPolicy) -> Self {
        Self {
            policy,
            locality: LocalityMode::ZoneAware(ZoneAware::default()),
            slow_start: None,
            hash_balance_factor: None,
            subset: None,
            override_statuses: OverrideStatuses::default(),
        }
    }

    /// Whether hosts are chosen by the hash of the request.
    pub fn is_consistent(&self) -> bool {
        matches!(self.policy, LbPolicy::Consistent(_))
    }

    /// Whether locality weights count.
    pub fn is_locality_weighted(&self) -> bool {
        self.locality == LocalityMode::Weighted
    }

    /// The settings of zone-aware routing, for the policies that take part in it.
    pub fn zone_aware(&self) -> Option<&ZoneAware> {
        match (&self.locality, self.policy) {
            (_, LbPolicy::Consistent(_) | LbPolicy::ClusterProvided) => None,
            (LocalityMode::ZoneAware(zone), _) => Some(zone),
            (LocalityMode::Weighted, _) => None,
        }
    }

    /// Whether panic leaves a request without a host (`fail_traffic_on_panic`).
    pub fn fails_on_panic(&self) -> bool {
        matches!(self.locality, LocalityMode::ZoneAware(ZoneAware { fail_on_panic: true, .. }))
    }
}

impl SlowStart {
    /// The share of its weight that a host of this age has, in milliseconds.
    pub fn factor(&self, age: u64) -> f64 {
        let window = self.window.as_millis() as f64;
        if age as f64 >= window {
            return 1.0;
        }
        let passed = (age.max(1) as f64) / window;
        let eased = if self.aggression == 1.0 { passed } else { passed.powf(1.0 / self.aggression) };
        eased.max(self.min_weight)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::SlowStart;

    #[test]
    fn a_new_host_gains_weight_until_its_window_is_over() {
        let slow = SlowStart { window: Duration::from_secs(10), aggression: 1.0, min_weight: 0.1 };
        assert_eq!([0, 500, 5_000, 9_000, 10_000].map(|age| slow.factor(age)), [0.1, 0.1, 0.5, 0.9, 1.0]);
        let eager = SlowStart { aggression: 2.0, ..slow };
        assert_eq!(eager.factor(2_500), 0.5);
    }
}
