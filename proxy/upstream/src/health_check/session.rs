//! What the answers of one host make of its health.

use crate::host::{HealthFlag, Host};

/// What one check showed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// The host is well, or well enough to be used when others are not.
    Success { degraded: bool },
    /// It is not.
    Failure(Failure),
}

/// How a check failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Failure {
    pub(crate) kind: FailureKind,
    /// The status is one of `retriable_statuses`: the threshold counts.
    pub(crate) retriable: bool,
    /// Status of the answer, for events; 0 without one.
    pub(crate) status: u16,
}

impl Failure {
    /// A failure of this kind without a status.
    pub(crate) const fn of(kind: FailureKind) -> Self {
        Self { kind, retriable: false, status: 0 }
    }

    /// A request found that the host wants no more traffic (`x-envoy-immediate-health-check-fail`).
    pub(crate) const PASSIVE: Self = Self::of(FailureKind::Passive);
}

/// `HealthCheckFailureType`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FailureKind {
    /// The host said so.
    Active,
    /// A request found it out.
    Passive,
    /// No connection, or it broke.
    Network,
    /// No answer in time.
    NetworkTimeout,
}

impl FailureKind {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Active => "ACTIVE",
            Self::Passive => "PASSIVE",
            Self::Network => "NETWORK",
            Self::NetworkTimeout => "NETWORK_TIMEOUT",
        }
    }

    /// Whether the threshold counts: what the network does may pass.
    pub(crate) const fn is_network(self) -> bool {
        matches!(self, Self::Network | Self::NetworkTimeout)
    }
}

/// What the last check said, whatever the host counts as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    Healthy,
    Unhealthy,
}

/// What a check did to the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Transition {
    /// It is what it was.
    None,
    /// It will be something else if this goes on.
    Pending,
    /// Load balancing must know.
    Changed,
}

/// What is logged of a check.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Event {
    EjectUnhealthy(Failure),
    AddHealthy { first_check: bool },
    Successful,
    Failed { failure: Failure, first_check: bool },
    Degraded,
    NoLongerDegraded,
}

/// Everything that follows from a check.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Verdict {
    pub(crate) state: State,
    pub(crate) transition: Transition,
    /// Whether it was the first check of the host.
    pub(crate) first: bool,
    /// The host became healthy or unhealthy: +1 or -1 for the gauge.
    pub(crate) healthy: i8,
    pub(crate) degraded: bool,
    pub(crate) events: Vec<Event>,
}

/// `healthy_threshold` and `unhealthy_threshold`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct CheckThresholds {
    pub(crate) healthy: u32,
    pub(crate) unhealthy: u32,
}

/// The checks of one host so far.
#[derive(Debug)]
pub(crate) struct Session {
    healthy: u32,
    unhealthy: u32,
    first_check: bool,
}

impl Session {
    pub(crate) fn new() -> Self {
        Self { healthy: 0, unhealthy: 0, first_check: true }
    }

    /// Whether the host has not been checked yet.
    pub(crate) fn is_fresh(&self) -> bool {
        self.first_check
    }

    /// Takes an outcome, setting the flags of the host.
    pub(crate) fn note(&mut self, host: &Host, limits: CheckThresholds, outcome: Outcome) -> Verdict {
        let mut verdict = match outcome {
            Outcome::Success { degraded } => self.succeeded(host, limits, degraded),
            Outcome::Failure(failure) => self.failed(host, limits, failure),
        };
        verdict.first = std::mem::replace(&mut self.first_check, false);
        verdict
    }

    fn succeeded(&mut self, host: &Host, limits: CheckThresholds, degraded: bool) -> Verdict {
        let mut verdict = Verdict::new(State::Healthy);
        self.unhealthy = 0;
        let flags = host.health_flags();
        if flags.contains(HealthFlag::FailedActiveHc) {
            self.healthy += 1;
            // The first answer counts at once, so that starting does not take a whole threshold of checks.
            if self.first_check || self.healthy == limits.healthy {
                for flag in [
                    HealthFlag::FailedActiveHc,
                    HealthFlag::ActiveHcTimeout,
                    HealthFlag::ExcludedViaImmediateHcFail,
                ] {
                    host.set_health_flag(flag, false);
                }
                verdict.healthy = 1;
                verdict.transition = Transition::Changed;
                verdict.events.push(Event::AddHealthy { first_check: self.first_check });
            } else {
                verdict.transition = Transition::Pending;
            }
        }
        verdict.clear_pending(host);
        if verdict.transition != Transition::Changed {
            verdict.events.push(Event::Successful);
        }
        if degraded != flags.contains(HealthFlag::DegradedActiveHc) {
            host.set_health_flag(HealthFlag::DegradedActiveHc, degraded);
            verdict.degraded = degraded;
            verdict.events.push(if degraded { Event::Degraded } else { Event::NoLongerDegraded });
            if verdict.transition == Transition::None {
                verdict.transition = Transition::Changed;
            }
        }
        verdict
    }

    fn failed(&mut self, host: &Host, limits: CheckThresholds, failure: Failure) -> Verdict {
        let mut verdict = Verdict::new(State::Unhealthy);
        self.healthy = 0;
        if !host.health_flags().contains(HealthFlag::FailedActiveHc) {
            let at_once = !failure.kind.is_network() && !failure.retriable;
            if !at_once {
                self.unhealthy += 1;
            }
            if at_once || self.unhealthy == limits.unhealthy {
                host.set_health_flag(HealthFlag::FailedActiveHc, true);
                verdict.healthy = -1;
                verdict.transition = Transition::Changed;
                verdict.events.push(Event::EjectUnhealthy(failure));
            } else {
                verdict.transition = Transition::Pending;
            }
        }
        if failure.kind == FailureKind::NetworkTimeout
            && host.health_flags().contains(HealthFlag::FailedActiveHc)
        {
            host.set_health_flag(HealthFlag::ActiveHcTimeout, true);
        }
        verdict.clear_pending(host);
        verdict.events.push(Event::Failed { failure, first_check: self.first_check });
        verdict
    }
}

impl Verdict {
    fn new(state: State) -> Self {
        Self {
            state,
            transition: Transition::None,
            first: false,
            healthy: 0,
            degraded: false,
            events: Vec::new(),
        }
    }

    /// A host that waited for its first check no longer does, whatever came of it.
    fn clear_pending(&mut self, host: &Host) {
        if host.health_flags().contains(HealthFlag::PendingActiveHc) {
            host.set_health_flag(HealthFlag::PendingActiveHc, false);
            self.transition = Transition::Changed;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use dhow_net::StreamAddress;

    use crate::host::{Health, HostSpec};

    const LIMITS: CheckThresholds = CheckThresholds { healthy: 2, unhealthy: 3 };
    const WELL: Outcome = Outcome::Success { degraded: false };
    const REFUSED: Outcome = Outcome::Failure(Failure::of(FailureKind::Network));
    const ILL: Outcome =
        Outcome::Failure(Failure { kind: FailureKind::Active, retriable: false, status: 503 });

    fn fresh() -> (Host, Session) {
        let host = Host::new(HostSpec::at(StreamAddress::Ip(([127, 0, 0, 1], 80).into())));
        host.set_health_flag(HealthFlag::FailedActiveHc, true);
        (host, Session::new())
    }

    fn transitions(host: &Host, session: &mut Session, outcomes: &[Outcome]) -> Vec<Transition> {
        outcomes.iter().map(|outcome| session.note(host, LIMITS, *outcome).transition).collect()
    }

    #[test]
    fn the_first_check_decides_at_once() {
        let (host, mut session) = fresh();
        let verdict = session.note(&host, LIMITS, WELL);
        assert_eq!((verdict.transition, verdict.first, verdict.healthy), (Transition::Changed, true, 1));
        assert_eq!(verdict.events, [Event::AddHealthy { first_check: true }]);
        assert_eq!(host.health(), Health::Healthy);

        let (host, mut session) = fresh();
        assert_eq!(session.note(&host, LIMITS, REFUSED).transition, Transition::None);
        assert_eq!(host.health(), Health::Unhealthy);
    }

    #[test]
    fn what_the_network_does_needs_the_threshold_and_a_bad_status_does_not() {
        use Transition::{Changed, None, Pending};
        let (host, mut session) = fresh();
        session.note(&host, LIMITS, WELL);
        let seen = transitions(&host, &mut session, &[REFUSED, REFUSED, WELL, REFUSED, REFUSED, REFUSED]);
        assert_eq!(seen, [Pending, Pending, None, Pending, Pending, Changed]);
        assert_eq!(
            transitions(&host, &mut session, &[WELL, REFUSED, WELL, WELL]),
            [Pending, None, Pending, Changed]
        );
        assert_eq!(transitions(&host, &mut session, &[ILL]), [Changed]);
    }

    #[test]
    fn retriable_statuses_count_like_the_network() {
        let (host, mut session) = fresh();
        session.note(&host, LIMITS, WELL);
        let retriable = Outcome::Failure(Failure { kind: FailureKind::Active, retriable: true, status: 429 });
        let seen = transitions(&host, &mut session, &[retriable; 3]);
        assert_eq!(seen, [Transition::Pending, Transition::Pending, Transition::Changed]);
    }

    #[test]
    fn degradation_is_a_change_and_ends() {
        let (host, mut session) = fresh();
        session.note(&host, LIMITS, WELL);
        let verdict = session.note(&host, LIMITS, Outcome::Success { degraded: true });
        assert_eq!((verdict.transition, verdict.degraded), (Transition::Changed, true));
        assert_eq!(verdict.events, [Event::Successful, Event::Degraded]);
        assert_eq!(host.health(), Health::Degraded);
        let verdict = session.note(&host, LIMITS, WELL);
        assert_eq!(verdict.events, [Event::Successful, Event::NoLongerDegraded]);
        assert_eq!(host.health(), Health::Healthy);
    }

    #[test]
    fn a_host_that_waits_for_its_first_check_no_longer_does_after_a_failure() {
        let (host, mut session) = fresh();
        host.set_health_flag(HealthFlag::PendingActiveHc, true);
        assert_eq!(session.note(&host, LIMITS, REFUSED).transition, Transition::Changed);
        assert!(!host.health_flags().contains(HealthFlag::PendingActiveHc));
    }

    #[test]
    fn a_time_out_shows_until_the_host_is_healthy_again() {
        let (host, mut session) = fresh();
        let timeout = Outcome::Failure(Failure::of(FailureKind::NetworkTimeout));
        session.note(&host, LIMITS, timeout);
        assert!(host.health_flags().contains(HealthFlag::ActiveHcTimeout));
        transitions(&host, &mut session, &[WELL, WELL]);
        assert_eq!(host.health_flags().to_string(), "healthy");
    }
}
