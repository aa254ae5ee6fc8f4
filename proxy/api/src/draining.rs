//! How connections learn that they are to end, because the process or their listener drains.

use std::cell::Cell;
use std::time::{Duration, Instant};

/// Which responses end their connections while something drains (`--drain-strategy`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Drain {
    /// All of them.
    AtOnce,
    /// More and more: a share that grows from none to all over `time`, which ends at `until`.
    Gradually {
        /// When all responses end their connections.
        until: Instant,
        /// How long it takes (`--drain-time-s`); counted in whole seconds.
        time: Duration,
    },
}

impl Drain {
    /// Whether a response that is made `now` ends its connection.
    pub fn ends(self, now: Instant, random: impl FnOnce() -> u64) -> bool {
        let Self::Gradually { until, time } = self else { return true };
        let remaining = until.saturating_duration_since(now);
        if remaining.is_zero() || time.as_secs() == 0 {
            return true;
        }
        time.as_secs().saturating_sub(remaining.as_secs()) > random() % time.as_secs()
    }
}

/// What the connections of a filter chain are told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DrainEvent {
    /// The process is made to fail its health checks, or no longer (`/healthcheck/{fail,ok}`). `ends_connections` unless
    /// `drain_type` is `MODIFY_ONLY`.
    HealthChecks {
        /// Whether they fail from now on.
        failing: bool,
        /// Whether every response ends its connection meanwhile.
        ends_connections: bool,
    },
    /// The process or the listener begins to drain; there is no way back.
    Begun(Drain),
    /// What is left of the connections is closed now that the filter chain drained, because an update of the listener has it no
    /// more.
    ChainGone,
}

/// Where a filter chain keeps what it was told.
#[derive(Debug, Default)]
pub struct DrainState {
    failing: Cell<bool>,
    at_once: Cell<bool>,
    begun: Cell<Option<Drain>>,
    chain_gone: Cell<bool>,
}

impl DrainState {
    /// Takes note.
    pub fn apply(&self, event: DrainEvent) {
        match event {
            DrainEvent::HealthChecks { failing, ends_connections } => {
                self.failing.set(failing);
                self.at_once.set(failing && ends_connections);
            }
            DrainEvent::Begun(drain) => self.begun.set(Some(drain)),
            DrainEvent::ChainGone => self.chain_gone.set(true),
        }
    }

    /// Whether the process is made to fail its health checks.
    pub fn is_failing(&self) -> bool {
        self.failing.get()
    }

    /// `%DOWNSTREAM_LOCAL_CLOSE_REASON%` of connections that are closed with their filter chain, their listener or the process.
    pub fn close_reason(&self) -> &'static str {
        match self.chain_gone.get() {
            true => "filter_chain_is_being_removed",
            false => "purging_socket_that_have_not_progressed_to_connections",
        }
    }

    /// Whether a response that is made now ends its connection.
    #[inline]
    pub fn ends_connection(&self, random: impl FnOnce() -> u64) -> bool {
        self.at_once.get() || self.begun.get().is_some_and(|drain| drain.ends(Instant::now(), random))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_share_grows_with_time() {
        let now = Instant::now();
        let drain =
            Drain::Gradually { until: now + Duration::from_secs(100), time: Duration::from_secs(100) };
        let share = |after: u64| {
            (0..100).filter(|dice| drain.ends(now + Duration::from_secs(after), || *dice)).count()
        };
        assert_eq!(
            [share(0), share(1), share(50), share(99), share(100), share(200)],
            [0, 1, 50, 99, 100, 100]
        );
        assert!(Drain::AtOnce.ends(now, || unreachable!()));
        assert!(
            Drain::Gradually { until: now + Duration::from_millis(1), time: Duration::ZERO }.ends(now, || 9)
        );
    }

    #[test]
    fn health_checks_pass_again_while_a_drain_goes_on() {
        let state = DrainState::default();
        assert!(!state.ends_connection(|| 0));
        state.apply(DrainEvent::HealthChecks { failing: true, ends_connections: false });
        assert!(state.is_failing() && !state.ends_connection(|| 0));
        state.apply(DrainEvent::HealthChecks { failing: true, ends_connections: true });
        assert!(state.ends_connection(|| 0));
        state.apply(DrainEvent::Begun(Drain::AtOnce));
        state.apply(DrainEvent::HealthChecks { failing: false, ends_connections: true });
        assert!(!state.is_failing() && state.ends_connection(|| 0));
    }
}
