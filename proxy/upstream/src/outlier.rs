//! Passive health: ejecting a host after consecutive failures, as Envoy's outlier detection does.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use tokio::sync::mpsc;

use crate::host::Host;

/// `envoy.config.cluster.v3.OutlierDetection`, the modes of consecutive failures.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OutlierConfig {
    /// Failures in a row that eject; 5 by default.
    pub consecutive_5xx: u32,
    /// Percent of those ejections that are carried out; 100 by default.
    pub enforcing_consecutive_5xx: u32,
    /// Gateway failures (502, 503, 504) in a row that eject; 5 by default.
    pub consecutive_gateway_failure: u32,
    /// Percent of those ejections that are carried out; 0 by default.
    pub enforcing_consecutive_gateway_failure: u32,
    /// `split_external_local_origin_errors`: failures to connect count apart from what hosts answer.
    pub split_local_origin: bool,
    /// Failures of our own in a row that eject; 5 by default.
    pub consecutive_local_origin_failure: u32,
    /// Percent of those ejections that are carried out; 100 by default.
    pub enforcing_consecutive_local_origin_failure: u32,
    /// How often ejected hosts are looked at; 10 s by default.
    pub interval: Duration,
    /// Length of the first ejection; 30 s by default.
    pub base_ejection_time: Duration,
    /// The longest ejection; 300 s by default.
    pub max_ejection_time: Duration,
    /// Percent of the hosts that may be ejected; 10 by default.
    pub max_ejection_percent: u32,
    /// `always_eject_one_host`, whatever the percentage says.
    pub always_eject_one_host: bool,
}

impl Default for OutlierConfig {
    fn default() -> Self {
        Self {
            consecutive_5xx: 5,
            enforcing_consecutive_5xx: 100,
            consecutive_gateway_failure: 5,
            enforcing_consecutive_gateway_failure: 0,
            split_local_origin: false,
            consecutive_local_origin_failure: 5,
            enforcing_consecutive_local_origin_failure: 100,
            interval: Duration::from_secs(10),
            base_ejection_time: Duration::from_secs(30),
            max_ejection_time: Duration::from_secs(300),
            max_ejection_percent: 10,
            always_eject_one_host: false,
        }
    }
}

/// How a request or a connection to a host went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HostResult {
    /// The host answered with this HTTP status (gRPC statuses are mapped to one).
    HttpStatus(u16),
    /// A connection was made.
    Connected,
    /// No connection could be made, or it broke before an answer.
    ConnectFailed,
    /// No answer in time.
    Timeout,
}

/// Why a host is to be ejected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EjectionReason {
    /// `consecutive_5xx`.
    Consecutive5xx,
    /// `consecutive_gateway_failure`.
    ConsecutiveGatewayFailure,
    /// `consecutive_local_origin_failure`.
    ConsecutiveLocalOriginFailure,
}

/// A host that failed often enough, on its way from a worker to the main thread.
#[derive(Debug)]
pub(crate) struct OutlierReport {
    pub(crate) cluster: Arc<str>,
    /// The cluster may have been replaced by one of the same name meanwhile.
    pub(crate) cluster_id: u64,
    pub(crate) host: Arc<Host>,
    pub(crate) reason: EjectionReason,
}

/// Where workers send their reports.
#[derive(Clone, Debug)]
pub(crate) struct OutlierReports {
    sender: mpsc::UnboundedSender<OutlierReport>,
}

impl OutlierReports {
    pub(crate) fn new() -> (Self, mpsc::UnboundedReceiver<OutlierReport>) {
        let (sender, receiver) = mpsc::unbounded_channel();
        (Self { sender }, receiver)
    }

    pub(crate) fn detector(
        &self,
        config: OutlierConfig,
        cluster: Arc<str>,
        cluster_id: u64,
    ) -> OutlierDetector {
        OutlierDetector { config, cluster, cluster_id, reports: self.clone() }
    }
}

/// Watches the results of one cluster on the workers.
#[derive(Debug)]
pub struct OutlierDetector {
    config: OutlierConfig,
    cluster: Arc<str>,
    cluster_id: u64,
    reports: OutlierReports,
}

impl OutlierDetector {
    /// The configuration.
    pub fn config(&self) -> &OutlierConfig {
        &self.config
    }

    /// Notes how a request or a connection went.
    pub(crate) fn note(&self, host: &Arc<Host>, result: HostResult) {
        for reason in host.streaks().note(&self.config, result).into_iter().flatten() {
            let report = OutlierReport {
                cluster: self.cluster.clone(),
                cluster_id: self.cluster_id,
                host: host.clone(),
                reason,
            };
            // Nobody listens any more when the proxy is shutting down.
            let _ = self.reports.sender.send(report);
        }
    }
}

/// Failures in a row of one host, counted by all workers.
#[derive(Debug, Default)]
pub struct FailureStreaks {
    errors: AtomicU32,
    gateway: AtomicU32,
    local: AtomicU32,
}

impl FailureStreaks {
    /// Notes a result; the reasons for which the host has now failed often enough, at most one per mode.
    pub(crate) fn note(&self, config: &OutlierConfig, result: HostResult) -> [Option<EjectionReason>; 2] {
        let local_only = config.split_local_origin;
        match result {
            HostResult::HttpStatus(status) => self.note_status(config, status),
            HostResult::Connected => {
                if local_only {
                    self.local.store(0, Ordering::Relaxed);
                }
                [None, None]
            }
            HostResult::ConnectFailed | HostResult::Timeout if local_only => {
                let reason = EjectionReason::ConsecutiveLocalOriginFailure;
                [step(&self.local, config.consecutive_local_origin_failure, reason), None]
            }
            // Without the split, failures of our own count as the answers that the client gets for them.
            HostResult::ConnectFailed => self.note_status(config, 503),
            HostResult::Timeout => self.note_status(config, 504),
        }
    }

    fn note_status(&self, config: &OutlierConfig, status: u16) -> [Option<EjectionReason>; 2] {
        if !(500..600).contains(&status) {
            self.reset_answers();
            return [None, None];
        }
        let gateway = if matches!(status, 502..=504) {
            let reason = EjectionReason::ConsecutiveGatewayFailure;
            step(&self.gateway, config.consecutive_gateway_failure, reason)
        } else {
            self.gateway.store(0, Ordering::Relaxed);
            None
        };
        [step(&self.errors, config.consecutive_5xx, EjectionReason::Consecutive5xx), gateway]
    }

    fn reset_answers(&self) {
        // Reading first spares the shared line a write in the common case.
        for streak in [&self.errors, &self.gateway] {
            if streak.load(Ordering::Relaxed) != 0 {
                streak.store(0, Ordering::Relaxed);
            }
        }
    }

    /// Starts over, as after an ejection.
    pub(crate) fn reset(&self) {
        self.reset_answers();
        self.local.store(0, Ordering::Relaxed);
    }
}

fn step(streak: &AtomicU32, limit: u32, reason: EjectionReason) -> Option<EjectionReason> {
    (streak.fetch_add(1, Ordering::Relaxed) + 1 == limit).then_some(reason)
}

#[cfg(test)]
mod tests {
    use super::{EjectionReason, FailureStreaks, HostResult, OutlierConfig};

    fn reasons(config: &OutlierConfig, results: &[HostResult]) -> Vec<(usize, EjectionReason)> {
        let streaks = FailureStreaks::default();
        let mut reasons = Vec::new();
        for (at, result) in results.iter().enumerate() {
            reasons.extend(streaks.note(config, *result).into_iter().flatten().map(|reason| (at, reason)));
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
}
