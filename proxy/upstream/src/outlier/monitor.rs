//! What workers count about one host.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use super::runtime::streak_limit;
use super::{EjectionReason, OutlierConfig};

/// How a request or a connection to a host went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HostResult {
    /// The host answered with this HTTP status (gRPC statuses are mapped to one).
    HttpStatus(u16),
    /// A connection for a request was there.
    Connected,
    /// A connection was made, and nothing more is known of what it is for (TCP).
    ConnectedFinal,
    /// No connection could be made, or it broke before an answer.
    ConnectFailed,
    /// No answer in time.
    Timeout,
}

/// Which of a host's success rates.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Rate {
    /// Of its answers.
    External,
    /// Of connections to it, when they count apart.
    LocalOrigin,
}

/// Results of the current interval.
#[derive(Debug, Default)]
struct Tally {
    total: AtomicU64,
    good: AtomicU64,
}

impl Tally {
    fn note(&self, good: bool) {
        self.total.fetch_add(1, Ordering::Relaxed);
        if good {
            self.good.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Ends the interval: percent of good results and number of all, unless there were none.
    fn take(&self) -> Option<(f64, u64)> {
        let (total, good) = (self.total.swap(0, Ordering::Relaxed), self.good.swap(0, Ordering::Relaxed));
        (total > 0).then(|| (good as f64 * 100.0 / total as f64, total))
    }
}

/// Failures in a row and success rates of one host, counted by all workers.
#[derive(Debug)]
pub struct HostMonitor {
    errors: AtomicU32,
    gateway: AtomicU32,
    local: AtomicU32,
    answers: Tally,
    connections: Tally,
    /// Bits of the rates of the last interval that had enough requests; -1 otherwise.
    rates: [AtomicU64; 2],
}

impl Default for HostMonitor {
    fn default() -> Self {
        let unknown = || AtomicU64::new((-1.0_f64).to_bits());
        Self {
            errors: AtomicU32::new(0),
            gateway: AtomicU32::new(0),
            local: AtomicU32::new(0),
            answers: Tally::default(),
            connections: Tally::default(),
            rates: [unknown(), unknown()],
        }
    }
}

impl HostMonitor {
    /// Notes a result; the reasons for which the host has now failed often enough, at most one per mode.
    pub(crate) fn note(&self, config: &OutlierConfig, result: HostResult) -> [Option<EjectionReason>; 2] {
        match (result, config.split_local_origin) {
            (HostResult::HttpStatus(status), _) => self.note_status(config, status),
            (HostResult::Connected | HostResult::ConnectedFinal, true) => {
                self.connections.note(true);
                self.local.store(0, Ordering::Relaxed);
                [None, None]
            }
            (HostResult::ConnectFailed | HostResult::Timeout, true) => {
                self.connections.note(false);
                let reason = EjectionReason::ConsecutiveLocalOriginFailure;
                let key = "outlier_detection.consecutive_local_origin_failure";
                let limit = streak_limit(key, config.consecutive_local_origin_failure);
                [step(&self.local, limit, reason), None]
            }
            // Without the split, failures of our own count as the answers that the client gets for them.
            (HostResult::Connected, false) => [None, None],
            (HostResult::ConnectedFinal, false) => self.note_status(config, 200),
            (HostResult::ConnectFailed, false) => self.note_status(config, 503),
            (HostResult::Timeout, false) => self.note_status(config, 504),
        }
    }

    fn note_status(&self, config: &OutlierConfig, status: u16) -> [Option<EjectionReason>; 2] {
        let failed = (500..600).contains(&status);
        self.answers.note(!failed);
        if !failed {
            self.reset_answers();
            return [None, None];
        }
        let gateway = if matches!(status, 502..=504) {
            let reason = EjectionReason::ConsecutiveGatewayFailure;
            let key = "outlier_detection.consecutive_gateway_failure";
            step(&self.gateway, streak_limit(key, config.consecutive_gateway_failure), reason)
        } else {
            self.gateway.store(0, Ordering::Relaxed);
            None
        };
        let limit = streak_limit("outlier_detection.consecutive_5xx", config.consecutive_5xx);
        // In this order, as in Envoy: what is ejected already is not found to fail in another way.
        [gateway, step(&self.errors, limit, EjectionReason::Consecutive5xx)]
    }

    fn reset_answers(&self) {
        // Reading first spares the shared line a write in the common case.
        for streak in [&self.errors, &self.gateway] {
            if streak.load(Ordering::Relaxed) != 0 {
                streak.store(0, Ordering::Relaxed);
            }
        }
    }

    /// The streak that led to a report starts over.
    pub(super) fn reset_streak(&self, reason: EjectionReason) {
        match reason {
            EjectionReason::Consecutive5xx => self.errors.store(0, Ordering::Relaxed),
            EjectionReason::ConsecutiveGatewayFailure => self.gateway.store(0, Ordering::Relaxed),
            EjectionReason::ConsecutiveLocalOriginFailure => self.local.store(0, Ordering::Relaxed),
            _ => {}
        }
    }

    /// All streaks start over, as after an ejection.
    pub(super) fn reset_streaks(&self) {
        self.reset_answers();
        self.local.store(0, Ordering::Relaxed);
    }

    /// Ends the interval of both tallies: percent of good results and how many there were.
    pub(super) fn take_tallies(&self) -> [Option<(f64, u64)>; 2] {
        [self.answers.take(), self.connections.take()]
    }

    /// Percent of good results in the last interval; -1 when there were too few.
    pub(crate) fn rate(&self, rate: Rate) -> f64 {
        f64::from_bits(self.rates[rate as usize].load(Ordering::Relaxed))
    }

    pub(super) fn set_rate(&self, rate: Rate, percent: f64) {
        self.rates[rate as usize].store(percent.to_bits(), Ordering::Relaxed);
    }
}

fn step(streak: &AtomicU32, limit: u32, reason: EjectionReason) -> Option<EjectionReason> {
    (streak.fetch_add(1, Ordering::Relaxed) + 1 == limit).then_some(reason)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reasons(config: &OutlierConfig, results: &[HostResult]) -> Vec<(usize, EjectionReason)> {
        let monitor = HostMonitor::default();
        let mut reasons = Vec::new();
        for (at, result) in results.iter().enumerate() {
            reasons.extend(monitor.note(config, *result).into_iter().flatten().map(|reason| (at, reason)));
        }
        reasons
    }

    #[test]
    fn five_errors_in_a_row_eject_and_a_success_starts_over() {
        let config = OutlierConfig::default();
        let error = HostResult::HttpStatus(500);
        assert_eq!(reasons(&config, &[error; 5]), [(4, EjectionReason::Consecutive5xx)]);
        let mut interrupted = [error; 8];
        interrupted[3] = HostResult::HttpStatus(404);
        assert_eq!(reasons(&config, &interrupted), []);
    }

    #[test]
    fn gateway_failures_count_in_both_modes() {
        let config =
            OutlierConfig { consecutive_5xx: 3, consecutive_gateway_failure: 2, ..OutlierConfig::default() };
        assert_eq!(
            reasons(&config, &[HostResult::HttpStatus(502), HostResult::ConnectFailed, HostResult::Timeout]),
            [(1, EjectionReason::ConsecutiveGatewayFailure), (2, EjectionReason::Consecutive5xx)]
        );
        let other = [HostResult::HttpStatus(503), HostResult::HttpStatus(500), HostResult::HttpStatus(503)];
        assert_eq!(reasons(&config, &other), [(2, EjectionReason::Consecutive5xx)]);
    }

    #[test]
    fn split_failures_of_our_own_count_apart() {
        let config = OutlierConfig {
            split_local_origin: true,
            consecutive_local_origin_failure: 2,
            consecutive_5xx: 2,
            ..OutlierConfig::default()
        };
        let results = [HostResult::ConnectFailed, HostResult::HttpStatus(500), HostResult::Timeout];
        assert_eq!(reasons(&config, &results), [(2, EjectionReason::ConsecutiveLocalOriginFailure)]);
        let recovered = [HostResult::ConnectFailed, HostResult::Connected, HostResult::ConnectFailed];
        assert_eq!(reasons(&config, &recovered), []);
    }

    #[test]
    fn tallies_are_of_one_interval() {
        let config = OutlierConfig::default();
        let monitor = HostMonitor::default();
        for status in [200, 200, 200, 503] {
            monitor.note(&config, HostResult::HttpStatus(status));
        }
        monitor.note(&config, HostResult::Connected);
        assert_eq!(monitor.take_tallies(), [Some((75.0, 4)), None]);
        assert_eq!(monitor.take_tallies(), [None, None]);

        let split = OutlierConfig { split_local_origin: true, ..config };
        monitor.note(&split, HostResult::Connected);
        monitor.note(&split, HostResult::Timeout);
        assert_eq!(monitor.take_tallies(), [None, Some((50.0, 2))]);
    }
}
