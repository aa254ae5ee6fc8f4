//! Who is ejected by outlier detection, for how long, and who comes back: the main thread's side.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use dhow_base::Rng;
use dhow_stats::{Store, stat_group};

use crate::config::ClusterConfig;
use crate::host::{HealthFlag, Host, HostAddress};
use crate::lb::LocalityGroup;
use crate::outlier::{EjectionReason, OutlierConfig};

stat_group! {
    /// `cluster.<name>.outlier_detection.*`.
    pub(crate) struct EjectionStats {
        counters {
            ejections_consecutive_5xx,
            ejections_detected_consecutive_5xx,
            ejections_detected_consecutive_gateway_failure,
            ejections_detected_consecutive_local_origin_failure,
            ejections_detected_failure_percentage,
            ejections_detected_local_origin_failure_percentage,
            ejections_detected_local_origin_success_rate,
            ejections_detected_success_rate,
            ejections_enforced_consecutive_5xx,
            ejections_enforced_consecutive_gateway_failure,
            ejections_enforced_consecutive_local_origin_failure,
            ejections_enforced_failure_percentage,
            ejections_enforced_local_origin_failure_percentage,
            ejections_enforced_local_origin_success_rate,
            ejections_enforced_success_rate,
            ejections_enforced_total,
            ejections_overflow,
            ejections_success_rate,
            ejections_total,
        }
        gauges { ejections_active }
    }
}

/// The ejections of one cluster.
#[derive(Debug)]
pub(crate) struct Ejections {
    detection: Option<(OutlierConfig, EjectionStats)>,
    /// By address, so that a host replaced by an update keeps its record.
    records: HashMap<HostAddress, Record>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Record {
    /// Multiplier of `base_ejection_time` for the current ejection, or what is left of it.
    backoff: u32,
    ejected_at: Option<Instant>,
}

impl Ejections {
    pub(crate) fn new(config: &ClusterConfig, store: &Store) -> Self {
        let scope = || {
            store.scope(&format!("cluster.{}.outlier_detection", config.observability_name.replace(':', "_")))
        };
        Self { detection: config.outlier.map(|outlier| (outlier, scope().group())), records: HashMap::new() }
    }

    /// How often [`Ejections::sweep`] is due; `None` without outlier detection.
    pub(crate) fn interval(&self) -> Option<Duration> {
        self.detection.as_ref().map(|(config, _)| config.interval)
    }

    /// Forgets hosts that left.
    pub(crate) fn retain(&mut self, groups: &[LocalityGroup]) {
        if self.records.is_empty() {
            return;
        }
        let present: HashSet<&HostAddress> =
            groups.iter().flat_map(|group| &group.hosts).map(|host| host.address()).collect();
        let Some((_, stats)) = &self.detection else {
            return;
        };
        self.records.retain(|address, record| {
            let stays = present.contains(address);
            if !stays && record.ejected_at.is_some() {
                stats.ejections_active().dec();
            }
            stays
        });
    }

    /// Decides about a host that failed often enough; true when it is ejected now. `hosts` is the size of the cluster.
    pub(crate) fn eject(
        &mut self,
        host: &Arc<Host>,
        reason: EjectionReason,
        hosts: usize,
        now: Instant,
        rng: &mut Rng,
    ) -> bool {
        let Some((config, stats)) = &self.detection else {
            return false;
        };
        host.streaks().reset();
        let (detected, enforced, percent) = match reason {
            EjectionReason::Consecutive5xx => (
                stats.ejections_detected_consecutive_5xx(),
                stats.ejections_enforced_consecutive_5xx(),
                config.enforcing_consecutive_5xx,
            ),
            EjectionReason::ConsecutiveGatewayFailure => (
                stats.ejections_detected_consecutive_gateway_failure(),
                stats.ejections_enforced_consecutive_gateway_failure(),
                config.enforcing_consecutive_gateway_failure,
            ),
            EjectionReason::ConsecutiveLocalOriginFailure => (
                stats.ejections_detected_consecutive_local_origin_failure(),
                stats.ejections_enforced_consecutive_local_origin_failure(),
                config.enforcing_consecutive_local_origin_failure,
            ),
        };
        if host.health_flags().contains(HealthFlag::FailedOutlierCheck) {
            return false;
        }
        detected.inc();
        let active = self.records.values().filter(|record| record.ejected_at.is_some()).count();
        let within = (active + 1) * 100 <= config.max_ejection_percent as usize * hosts;
        let first = config.always_eject_one_host && active == 0;
        if !within && !first {
            stats.ejections_overflow().inc();
            return false;
        }
        if reason == EjectionReason::Consecutive5xx {
            stats.ejections_consecutive_5xx().inc();
        }
        if !rng.chance(percent.into(), 100) {
            return false;
        }
        let record = self.records.entry(host.address().clone()).or_default();
        if config.base_ejection_time.saturating_mul(record.backoff) < config.max_ejection_time {
            record.backoff += 1;
        }
        record.ejected_at = Some(now);
        host.set_health_flag(HealthFlag::FailedOutlierCheck, true);
        enforced.inc();
        stats.ejections_enforced_total().inc();
        stats.ejections_total().inc();
        stats.ejections_active().inc();
        true
    }

    /// Brings back hosts whose time is over, and forgives the others a little; true when some host came back.
    pub(crate) fn sweep<'a>(&mut self, hosts: impl Iterator<Item = &'a Arc<Host>>, now: Instant) -> bool {
        let Some((config, stats)) = &self.detection else {
            return false;
        };
        let mut returned = false;
        for host in hosts {
            let Some(record) = self.records.get_mut(host.address()) else {
                continue;
            };
            let Some(since) = record.ejected_at else {
                record.backoff = record.backoff.saturating_sub(1);
                continue;
            };
            let length =
                config.base_ejection_time.saturating_mul(record.backoff).min(config.max_ejection_time);
            if now.saturating_duration_since(since) >= length {
                record.ejected_at = None;
                host.streaks().reset();
                host.set_health_flag(HealthFlag::FailedOutlierCheck, false);
                stats.ejections_active().dec();
                returned = true;
            }
        }
        self.records.retain(|_, record| record.ejected_at.is_some() || record.backoff > 0);
        returned
    }
}

impl Drop for Ejections {
    fn drop(&mut self) {
        if let Some((_, stats)) = &self.detection {
            let active = self.records.values().filter(|record| record.ejected_at.is_some()).count();
            stats.ejections_active().sub(active as u64);
        }
    }
}
