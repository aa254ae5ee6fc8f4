//! `envoy.data.cluster.v3.OutlierDetectionEvent` as the lines of an event log.

use std::fmt::Write as _;
use std::time::{Duration, SystemTime};

use super::EjectionReason;
use super::success_rate::RateSummary;
use dhow_net::StreamAddress;

use crate::event_log::{push_text, push_time};

/// What happened to a host.
#[derive(Clone, Copy, Debug)]
pub(super) enum Action {
    /// It was ejected, or would have been.
    Eject {
        reason: EjectionReason,
        enforced: bool,
        /// Its success rate, for the reasons that are about it.
        rate: f64,
        summary: RateSummary,
    },
    /// It called itself degraded.
    Degrade,
    /// It came back, or is no longer degraded.
    Uneject,
}

/// The parts that all events have.
pub(super) struct Subject<'a> {
    pub(super) cluster: &'a str,
    pub(super) host: &'a StreamAddress,
    /// Since the host was last ejected or came back, whichever is the opposite of what happens now.
    pub(super) since_last: Option<Duration>,
    pub(super) ejections: u32,
}

/// One line without its line break, with Envoy's order of fields.
pub(super) fn line(subject: &Subject<'_>, action: Action, now: SystemTime) -> String {
    let (kind, name, enforced) = match action {
        Action::Eject { reason, enforced, .. } => (reason.name(), "EJECT", enforced),
        Action::Degrade => ("DEGRADED", "EJECT", true),
        // The type of an event that has none.
        Action::Uneject => (EjectionReason::Consecutive5xx.name(), "UNEJECT", false),
    };
    let mut out = format!("{{\"type\":\"{kind}\",\"timestamp\":");
    push_time(&mut out, now);
    if let Some(since) = subject.since_last {
        let _ = write!(out, ",\"secs_since_last_action\":\"{}\"", since.as_secs());
    }
    out.push_str(",\"cluster_name\":");
    push_text(&mut out, subject.cluster);
    out.push_str(",\"upstream_url\":");
    push_text(&mut out, &subject.host.to_string());
    let ejections = subject.ejections;
    let _ = write!(out, ",\"action\":\"{name}\",\"num_ejections\":{ejections},\"enforced\":{enforced}");
    if let Action::Degrade = action {
        out.push_str(",\"eject_consecutive_event\":{}");
    }
    if let Action::Eject { reason, rate, summary, .. } = action {
        let _ = match reason {
            EjectionReason::SuccessRate | EjectionReason::SuccessRateLocalOrigin => write!(
                out,
                ",\"eject_success_rate_event\":{{\"host_success_rate\":{},\"cluster_average_success_rate\":{},\
                 \"cluster_success_rate_ejection_threshold\":{}}}",
                rate as u32, summary.average as u32, summary.threshold as u32
            ),
            EjectionReason::FailurePercentage | EjectionReason::FailurePercentageLocalOrigin => {
                write!(out, ",\"eject_failure_percentage_event\":{{\"host_success_rate\":{}}}", rate as u32)
            }
            _ => write!(out, ",\"eject_consecutive_event\":{{}}"),
        };
    }
    out.push('}');
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(since_last: Option<Duration>, action: Action) -> String {
        let host = StreamAddress::Ip(([127, 0, 0, 1], 80).into());
        let subject = Subject { cluster: "one", host: &host, since_last, ejections: 2 };
        line(&subject, action, SystemTime::UNIX_EPOCH)
    }

    #[test]
    fn lines_are_those_of_envoy() {
        let summary = RateSummary { average: 66.6667, threshold: 61.9526 };
        let eject = |reason| Action::Eject { reason, enforced: true, rate: 33.4, summary };
        assert_eq!(
            shown(Some(Duration::from_millis(1900)), eject(EjectionReason::SuccessRate)),
            "{\"type\":\"SUCCESS_RATE\",\"timestamp\":\"1970-01-01T00:00:00Z\",\"secs_since_last_action\":\"1\",\
             \"cluster_name\":\"one\",\"upstream_url\":\"127.0.0.1:80\",\"action\":\"EJECT\",\"num_ejections\":2,\
             \"enforced\":true,\"eject_success_rate_event\":{\"host_success_rate\":33,\
             \"cluster_average_success_rate\":66,\"cluster_success_rate_ejection_threshold\":61}}"
        );
        assert!(
            shown(None, eject(EjectionReason::Consecutive5xx)).ends_with(",\"eject_consecutive_event\":{}}")
        );
        assert_eq!(
            shown(None, Action::Uneject),
            "{\"type\":\"CONSECUTIVE_5XX\",\"timestamp\":\"1970-01-01T00:00:00Z\",\"cluster_name\":\"one\",\
             \"upstream_url\":\"127.0.0.1:80\",\"action\":\"UNEJECT\",\"num_ejections\":2,\"enforced\":false}"
        );
    }
}
