//! Who is ejected, for how long, and who comes back: the main thread's side.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use dhow_base::Rng;
use dhow_net::StreamAddress;
use dhow_stats::{Counter, Scope, stat_group};

use super::event::{Action, Subject, line};
use super::monitor::Rate;
use super::success_rate::RateSummary;
use super::{EjectionReason, OutlierConfig};
use crate::event_log::EventFile;
use crate::host::{HealthFlag, Host};

stat_group! {
    /// `cluster.<name>.outlier_detection.*`.
    struct EjectionStats {
        counters {
            ejections_consecutive_5xx,
            ejections_detected_consecutive_5xx,
            ejections_detected_consecutive_gateway_failure,
            ejections_detected_consecutive_local_origin_failure,
            ejections_detected_degradation,
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

impl EjectionStats {
    fn detected(&self, reason: EjectionReason) -> Counter {
        match reason {
            EjectionReason::Consecutive5xx => self.ejections_detected_consecutive_5xx(),
            EjectionReason::ConsecutiveGatewayFailure => {
                self.ejections_detected_consecutive_gateway_failure()
            }
            EjectionReason::ConsecutiveLocalOriginFailure => {
                self.ejections_detected_consecutive_local_origin_failure()
            }
            EjectionReason::SuccessRate => self.ejections_detected_success_rate(),
            EjectionReason::SuccessRateLocalOrigin => self.ejections_detected_local_origin_success_rate(),
            EjectionReason::FailurePercentage => self.ejections_detected_failure_percentage(),
            EjectionReason::FailurePercentageLocalOrigin => {
                self.ejections_detected_local_origin_failure_percentage()
            }
        }
    }

    fn enforced(&self, reason: EjectionReason) -> Counter {
        match reason {
            EjectionReason::Consecutive5xx => self.ejections_enforced_consecutive_5xx(),
            EjectionReason::ConsecutiveGatewayFailure => {
                self.ejections_enforced_consecutive_gateway_failure()
            }
            EjectionReason::ConsecutiveLocalOriginFailure => {
                self.ejections_enforced_consecutive_local_origin_failure()
            }
            EjectionReason::SuccessRate => self.ejections_enforced_success_rate(),
            EjectionReason::SuccessRateLocalOrigin => self.ejections_enforced_local_origin_success_rate(),
            EjectionReason::FailurePercentage => self.ejections_enforced_failure_percentage(),
            EjectionReason::FailurePercentageLocalOrigin => {
                self.ejections_enforced_local_origin_failure_percentage()
            }
        }
    }
}

/// The ejections of one cluster.
#[derive(Debug)]
pub(crate) struct Ejections {
    config: OutlierConfig,
    stats: EjectionStats,
    cluster: Arc<str>,
    events: Option<Arc<EventFile>>,
    /// By address, so that a host replaced by an update keeps its record.
    records: HashMap<StreamAddress, Record>,
    summaries: [RateSummary; 2],
}

#[derive(Clone, Copy, Debug, Default)]
struct Record {
    /// Multiplier of `base_ejection_time` for the current ejection, or what is left of it.
    backoff: u32,
    /// Ejections so far.
    count: u32,
    ejected_at: Option<Instant>,
    last_ejected: Option<Instant>,
    last_unejected: Option<Instant>,
    jitter: Duration,
    /// Since when the host is degraded, and the multiplier of that time.
    degraded_at: Option<Instant>,
    degraded_backoff: u32,
}

/// A moment, and the chance that is part of decisions.
pub(crate) struct Moment<'a> {
    pub(crate) now: Instant,
    pub(crate) rng: &'a mut Rng,
}

impl Ejections {
    /// No ejections yet; `scope` is the cluster's.
    pub(crate) fn new(
        config: OutlierConfig,
        scope: &Scope,
        cluster: Arc<str>,
        events: Option<Arc<EventFile>>,
    ) -> Self {
        Self {
            config,
            stats: scope.scope("outlier_detection").group(),
            cluster,
            events,
            records: HashMap::new(),
            summaries: [RateSummary::UNKNOWN; 2],
        }
    }

    /// How often [`Ejections::sweep`] is due.
    pub(crate) fn interval(&self) -> Duration {
        self.config.in_force().interval
    }

    /// Averages and thresholds of the last comparison, of answers and of connections.
    pub(crate) fn summaries(&self) -> [RateSummary; 2] {
        self.summaries
    }

    /// Forgets hosts that left.
    pub(crate) fn retain<'a>(&mut self, hosts: impl Iterator<Item = &'a Arc<Host>>) {
        if self.records.is_empty() {
            return;
        }
        let present: HashSet<&StreamAddress> = hosts.map(|host| host.address()).collect();
        self.records.retain(|address, record| {
            let stays = present.contains(address);
            if !stays && record.ejected_at.is_some() {
                self.stats.ejections_active().dec();
            }
            stays
        });
    }

    /// Decides about a host that failed often enough in a row; true when it is ejected now. `hosts` is the size of the
    /// cluster.
    pub(crate) fn eject_for_streak(
        &mut self,
        host: &Arc<Host>,
        reason: EjectionReason,
        hosts: usize,
        moment: &mut Moment<'_>,
    ) -> bool {
        if host.has_health_flag(HealthFlag::FailedOutlierCheck) {
            return false;
        }
        self.stats.detected(reason).inc();
        let ejected = self.eject(host, reason, hosts, moment);
        if reason == EjectionReason::Consecutive5xx {
            self.stats.ejections_consecutive_5xx().inc();
        }
        host.monitor().reset_streak(reason);
        ejected
    }

    /// Takes note of a host that called itself degraded; true when that is new.
    pub(crate) fn degrade(&mut self, host: &Arc<Host>, now: Instant) -> bool {
        if host.has_health_flag(HealthFlag::DegradedOutlierDetection) {
            return false;
        }
        self.stats.ejections_detected_degradation().inc();
        let config = self.config.in_force();
        let record = self.records.entry(host.address().clone()).or_default();
        record.degraded_backoff = config.longer(record.degraded_backoff);
        record.degraded_at = Some(now);
        host.set_health_flag(HealthFlag::DegradedOutlierDetection, true);
        self.log(host, Action::Degrade, now);
        true
    }

    /// Ends the time of a host as a degraded one when it is over, and forgives the others a little; true when it is over.
    fn restore_if_due(&mut self, host: &Arc<Host>, now: Instant) -> bool {
        let config = self.config.in_force();
        let Some(record) = self.records.get_mut(host.address()) else {
            return false;
        };
        let Some(since) = record.degraded_at else {
            record.degraded_backoff = record.degraded_backoff.saturating_sub(1);
            return false;
        };
        if now.saturating_duration_since(since) < config.length(record.degraded_backoff) {
            return false;
        }
        record.degraded_at = None;
        host.set_health_flag(HealthFlag::DegradedOutlierDetection, false);
        self.log(host, Action::Uneject, now);
        true
    }

    fn active(&self) -> usize {
        self.records.values().filter(|record| record.ejected_at.is_some()).count()
    }

    fn eject(
        &mut self,
        host: &Arc<Host>,
        reason: EjectionReason,
        hosts: usize,
        Moment { now, rng }: &mut Moment<'_>,
    ) -> bool {
        let active = self.active();
        let config = self.config.in_force();
        let within = (active + 1) * 100 <= config.max_ejection_percent.min(100) as usize * hosts;
        let first = config.always_eject_one_host && active == 0;
        if !within && !first {
            self.stats.ejections_overflow().inc();
            return false;
        }
        if matches!(reason, EjectionReason::Consecutive5xx | EjectionReason::SuccessRate) {
            self.stats.ejections_total().inc();
        }
        let enforced = rng.chance(reason.enforcing(&config).into(), 100);
        let record = self.records.entry(host.address().clone()).or_default();
        let fresh = enforced && record.ejected_at.is_none();
        if fresh {
            record.backoff = config.longer(record.backoff);
            record.count += 1;
            record.ejected_at = Some(*now);
            record.last_ejected = Some(*now);
            let jitter = config.max_ejection_time_jitter.as_millis();
            record.jitter = Duration::from_millis(rng.below(u64::try_from(jitter).unwrap_or(u64::MAX)));
            host.set_health_flag(HealthFlag::FailedOutlierCheck, true);
            self.stats.enforced(reason).inc();
            self.stats.ejections_enforced_total().inc();
            self.stats.ejections_active().inc();
        }
        let rate = match reason {
            EjectionReason::SuccessRateLocalOrigin | EjectionReason::FailurePercentageLocalOrigin => {
                Rate::LocalOrigin
            }
            _ => Rate::External,
        };
        let action = Action::Eject {
            reason,
            enforced,
            rate: host.monitor().rate(rate),
            summary: self.summaries[rate as usize],
        };
        self.log(host, action, *now);
        fresh
    }

    /// Brings a host back that is not due yet, because a health check found it well; true when it was ejected.
    pub(crate) fn uneject_healthy(&mut self, host: &Arc<Host>, now: Instant) -> bool {
        let wanted = self.config.uneject_on_active_success
            && !host.has_health_flag(HealthFlag::FailedActiveHc)
            && host.has_health_flag(HealthFlag::FailedOutlierCheck);
        if wanted {
            self.uneject(host, now);
        }
        wanted
    }

    fn uneject(&mut self, host: &Arc<Host>, now: Instant) {
        let Some(record) = self.records.get_mut(host.address()) else {
            return;
        };
        record.ejected_at = None;
        record.last_unejected = Some(now);
        self.stats.ejections_active().dec();
        host.set_health_flag(HealthFlag::FailedOutlierCheck, false);
        host.monitor().reset_streaks();
        self.log(host, Action::Uneject, now);
    }

    /// What is due at every interval: brings back hosts whose time is over, forgives the others a little, compares success
    /// rates. True when a host was ejected or came back.
    pub(crate) fn sweep(&mut self, hosts: &[Arc<Host>], moment: &mut Moment<'_>) -> bool {
        let mut changed = false;
        let mut tallies = Vec::with_capacity(hosts.len());
        for host in hosts {
            changed |= self.uneject_if_due(host, moment.now);
            changed |= self.restore_if_due(host, moment.now);
            tallies.push(host.monitor().take_tallies());
            host.monitor().set_rate(Rate::External, -1.0);
            host.monitor().set_rate(Rate::LocalOrigin, -1.0);
        }
        for rate in [Rate::External, Rate::LocalOrigin] {
            let tallies: Vec<_> = tallies.iter().map(|both| both[rate as usize]).collect();
            changed |= self.compare(hosts, &tallies, rate, moment);
        }
        changed
    }

    fn uneject_if_due(&mut self, host: &Arc<Host>, now: Instant) -> bool {
        let Some(record) = self.records.get_mut(host.address()) else {
            return false;
        };
        let Some(since) = record.ejected_at else {
            record.backoff = record.backoff.saturating_sub(1);
            return false;
        };
        let config = self.config.in_force();
        let length = config.length(record.backoff) + record.jitter;
        let due = now.saturating_duration_since(since) >= length;
        if due {
            self.uneject(host, now);
        }
        due
    }

    /// Ejects hosts by their rates of the interval that is over.
    fn compare(
        &mut self,
        hosts: &[Arc<Host>],
        tallies: &[Option<(f64, u64)>],
        rate: Rate,
        moment: &mut Moment<'_>,
    ) -> bool {
        let OutlierConfig { success_rate: success, failure_percentage: failure, .. } = self.config.in_force();
        self.summaries[rate as usize] = RateSummary::UNKNOWN;
        if hosts.len() < success.minimum_hosts.min(failure.minimum_hosts) as usize {
            return false;
        }
        let mut by_success = Vec::new();
        let mut by_failure = Vec::new();
        for (host, tally) in hosts.iter().zip(tallies) {
            let Some((percent, volume)) = *tally else { continue };
            if host.has_health_flag(HealthFlag::FailedOutlierCheck) {
                continue;
            }
            let enough = |wanted: u32| volume >= wanted.into();
            if enough(success.request_volume.min(failure.request_volume)) {
                host.monitor().set_rate(rate, percent);
            }
            if enough(success.request_volume) {
                by_success.push((host, percent));
            }
            if enough(failure.request_volume) {
                by_failure.push((host, percent));
            }
        }
        let mut changed = false;
        let (slow, failing) = match rate {
            Rate::External => (EjectionReason::SuccessRate, EjectionReason::FailurePercentage),
            Rate::LocalOrigin => {
                (EjectionReason::SuccessRateLocalOrigin, EjectionReason::FailurePercentageLocalOrigin)
            }
        };
        if !by_success.is_empty() && by_success.len() >= success.minimum_hosts as usize {
            let rates: Vec<f64> = by_success.iter().map(|(_, percent)| *percent).collect();
            let summary = RateSummary::of(&rates, success.stdev_factor);
            self.summaries[rate as usize] = summary;
            for (host, _) in by_success.iter().filter(|(_, percent)| *percent < summary.threshold) {
                self.stats.ejections_success_rate().inc();
                self.stats.detected(slow).inc();
                changed |= self.eject(host, slow, hosts.len(), moment);
            }
        }
        if !by_failure.is_empty() && by_failure.len() >= failure.minimum_hosts as usize {
            let failed = |percent: f64| 100.0 - percent >= f64::from(failure.threshold);
            for (host, _) in by_failure.iter().filter(|(_, percent)| failed(*percent)) {
                self.stats.detected(failing).inc();
                changed |= self.eject(host, failing, hosts.len(), moment);
            }
        }
        changed
    }

    fn log(&self, host: &Host, action: Action, now: Instant) {
        let (Some(file), Some(record)) = (&self.events, self.records.get(host.address())) else {
            return;
        };
        let last = match action {
            Action::Eject { .. } | Action::Degrade => record.last_unejected,
            Action::Uneject => record.last_ejected,
        };
        let subject = Subject {
            cluster: &self.cluster,
            host: host.address(),
            since_last: last.map(|last| now.saturating_duration_since(last)),
            ejections: record.count,
        };
        file.write(line(&subject, action, SystemTime::now()));
    }
}

impl Drop for Ejections {
    fn drop(&mut self) {
        self.stats.ejections_active().sub(self.active() as u64);
    }
}

#[cfg(test)]
mod tests;
