//! Passive health: ejecting hosts by how their requests went, as Envoy's outlier detection does.
//!
//! Workers note results in the monitor of each host; the main thread ejects, at once for failures in a row and at every
//! interval for what only a comparison of hosts shows.

mod ejections;
mod event;
mod monitor;
mod runtime;
mod success_rate;

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;

pub(crate) use ejections::Ejections;
pub(crate) use ejections::Moment;
pub(crate) use monitor::Rate;
pub use monitor::{HostMonitor, HostResult};
pub use success_rate::RateSummary;

use crate::host::{HealthFlag, Host};

/// `envoy.config.cluster.v3.OutlierDetection`, defaults filled in. Percentages that are "enforcing" say how many of the
/// ejections of their kind are carried out.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct OutlierConfig {
    /// Failures in a row that eject; 5 by default.
    pub consecutive_5xx: u32,
    /// 100 by default.
    pub enforcing_consecutive_5xx: u32,
    /// Gateway failures (502, 503, 504) in a row that eject; 5 by default.
    pub consecutive_gateway_failure: u32,
    /// 0 by default.
    pub enforcing_consecutive_gateway_failure: u32,
    /// `split_external_local_origin_errors`: failures to connect count apart from what hosts answer.
    pub split_local_origin: bool,
    /// Failures of our own in a row that eject; 5 by default.
    pub consecutive_local_origin_failure: u32,
    /// 100 by default.
    pub enforcing_consecutive_local_origin_failure: u32,
    /// Comparison of success rates.
    pub success_rate: SuccessRateConfig,
    /// Ejection by the share of failures.
    pub failure_percentage: FailurePercentageConfig,
    /// How often hosts are compared and ejected ones looked at; 10 s by default.
    pub interval: Duration,
    /// Length of the first ejection; 30 s by default.
    pub base_ejection_time: Duration,
    /// The longest ejection; 300 s by default.
    pub max_ejection_time: Duration,
    /// `max_ejection_time_jitter`: up to this much is added to each ejection.
    pub max_ejection_time_jitter: Duration,
    /// Percent of the hosts that may be ejected; 10 by default.
    pub max_ejection_percent: u32,
    /// `always_eject_one_host`, whatever the percentage says.
    pub always_eject_one_host: bool,
    /// `successful_active_health_check_uneject_host`; true by default.
    pub uneject_on_active_success: bool,
    /// `detect_degraded_hosts`: a host is degraded for a while after it said so in an answer.
    pub detect_degraded: bool,
}

/// The `success_rate_*` fields of `OutlierDetection`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SuccessRateConfig {
    /// Hosts with enough requests that a comparison needs; 5 by default.
    pub minimum_hosts: u32,
    /// Requests of an interval that a host needs to be compared; 100 by default.
    pub request_volume: u32,
    /// A host is ejected below `mean - stdev * factor / 1000`; 1900 by default.
    pub stdev_factor: u32,
    /// 100 by default.
    pub enforcing: u32,
    /// 100 by default.
    pub enforcing_local_origin: u32,
}

/// The `failure_percentage_*` fields of `OutlierDetection`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct FailurePercentageConfig {
    /// Percent of failures from which on a host is ejected; 85 by default.
    pub threshold: u32,
    /// Hosts with enough requests that there must be; 5 by default.
    pub minimum_hosts: u32,
    /// Requests of an interval that a host needs; 50 by default.
    pub request_volume: u32,
    /// 0 by default.
    pub enforcing: u32,
    /// 0 by default.
    pub enforcing_local_origin: u32,
}

impl OutlierConfig {
    /// The multiplier after another ejection: one more, until the times it gives are longer than the longest.
    fn longer(&self, multiplier: u32) -> u32 {
        let length = self.base_ejection_time.saturating_mul(multiplier);
        multiplier + u32::from(length < self.max_ejection_time + self.base_ejection_time)
    }

    /// How long an ejection with this multiplier lasts.
    fn length(&self, multiplier: u32) -> Duration {
        self.base_ejection_time.saturating_mul(multiplier).min(self.max_ejection_time)
    }
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
            success_rate: SuccessRateConfig::default(),
            failure_percentage: FailurePercentageConfig::default(),
            interval: Duration::from_secs(10),
            base_ejection_time: Duration::from_secs(30),
            max_ejection_time: Duration::from_secs(300),
            max_ejection_time_jitter: Duration::ZERO,
            max_ejection_percent: 10,
            always_eject_one_host: false,
            uneject_on_active_success: true,
            detect_degraded: false,
        }
    }
}

impl Default for SuccessRateConfig {
    fn default() -> Self {
        Self {
            minimum_hosts: 5,
            request_volume: 100,
            stdev_factor: 1900,
            enforcing: 100,
            enforcing_local_origin: 100,
        }
    }
}

impl Default for FailurePercentageConfig {
    fn default() -> Self {
        Self { threshold: 85, minimum_hosts: 5, request_volume: 50, enforcing: 0, enforcing_local_origin: 0 }
    }
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
    /// The success rate of its answers is too far below that of the others.
    SuccessRate,
    /// The same of connections.
    SuccessRateLocalOrigin,
    /// Too many of its answers are failures.
    FailurePercentage,
    /// The same of connections.
    FailurePercentageLocalOrigin,
}

impl EjectionReason {
    /// `OutlierEjectionType`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Consecutive5xx => "CONSECUTIVE_5XX",
            Self::ConsecutiveGatewayFailure => "CONSECUTIVE_GATEWAY_FAILURE",
            Self::ConsecutiveLocalOriginFailure => "CONSECUTIVE_LOCAL_ORIGIN_FAILURE",
            Self::SuccessRate => "SUCCESS_RATE",
            Self::SuccessRateLocalOrigin => "SUCCESS_RATE_LOCAL_ORIGIN",
            Self::FailurePercentage => "FAILURE_PERCENTAGE",
            Self::FailurePercentageLocalOrigin => "FAILURE_PERCENTAGE_LOCAL_ORIGIN",
        }
    }

    /// Percent of the ejections of this kind that are carried out.
    pub(crate) const fn enforcing(self, config: &OutlierConfig) -> u32 {
        match self {
            Self::Consecutive5xx => config.enforcing_consecutive_5xx,
            Self::ConsecutiveGatewayFailure => config.enforcing_consecutive_gateway_failure,
            Self::ConsecutiveLocalOriginFailure => config.enforcing_consecutive_local_origin_failure,
            Self::SuccessRate => config.success_rate.enforcing,
            Self::SuccessRateLocalOrigin => config.success_rate.enforcing_local_origin,
            Self::FailurePercentage => config.failure_percentage.enforcing,
            Self::FailurePercentageLocalOrigin => config.failure_percentage.enforcing_local_origin,
        }
    }
}

/// What a worker found out about a host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Finding {
    /// It failed often enough in a row.
    Outlier(EjectionReason),
    /// It answered with `x-envoy-degraded`.
    Degraded,
    /// It answered with `x-envoy-immediate-health-check-fail`.
    WantsNoTraffic,
}

/// A finding on its way from a worker to the main thread.
#[derive(Debug)]
pub(crate) struct HostReport {
    pub(crate) cluster: Arc<str>,
    /// The cluster may have been replaced by one of the same name meanwhile.
    pub(crate) cluster_id: u64,
    pub(crate) host: Arc<Host>,
    pub(crate) finding: Finding,
}

/// Where workers send their reports about the hosts of one cluster.
#[derive(Clone, Debug)]
pub struct HostReports {
    cluster: Arc<str>,
    cluster_id: u64,
    sender: ReportSender,
}

/// Where all reports go.
pub(crate) type ReportSender = mpsc::UnboundedSender<HostReport>;

impl HostReports {
    pub(crate) fn new(cluster: Arc<str>, cluster_id: u64, sender: ReportSender) -> Self {
        Self { cluster, cluster_id, sender }
    }

    /// Tells the main thread.
    pub(crate) fn send(&self, host: &Arc<Host>, finding: Finding) {
        let report = HostReport {
            cluster: self.cluster.clone(),
            cluster_id: self.cluster_id,
            host: host.clone(),
            finding,
        };
        // Nobody listens any more when the proxy is shutting down.
        let _ = self.sender.send(report);
    }
}

/// Watches the results of one cluster on the workers.
#[derive(Debug)]
pub struct OutlierDetector {
    config: OutlierConfig,
    reports: HostReports,
}

impl OutlierDetector {
    pub(crate) fn new(config: OutlierConfig, reports: HostReports) -> Self {
        Self { config, reports }
    }

    /// The configuration.
    pub fn config(&self) -> &OutlierConfig {
        &self.config
    }

    /// Notes that the host called itself degraded; what is known already is not told again.
    pub(crate) fn note_degraded(&self, host: &Arc<Host>) {
        if self.config.detect_degraded && !host.has_health_flag(HealthFlag::DegradedOutlierDetection) {
            self.reports.send(host, Finding::Degraded);
        }
    }

    /// Notes how a request or a connection went.
    pub(crate) fn note(&self, host: &Arc<Host>, result: HostResult) {
        for reason in host.monitor().note(&self.config, result).into_iter().flatten() {
            self.reports.send(host, Finding::Outlier(reason));
        }
    }
}
