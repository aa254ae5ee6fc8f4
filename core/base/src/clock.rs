//! Time as a parameter.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime};

/// The two clocks a program needs. Protocol cores take `now` as an argument instead; this is for the shells around them.
pub trait Clock: Send + Sync {
    /// Monotonic time, for delays and time-outs.
    fn now(&self) -> Instant;
    /// Wall-clock time, for logs and certificates.
    fn system_time(&self) -> SystemTime;
}

/// The clocks of the operating system.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> Instant {
        Instant::now()
    }

    fn system_time(&self) -> SystemTime {
        SystemTime::now()
    }
}

/// A clock that moves only when it is told to, for simulations.
#[derive(Debug)]
pub struct ManualClock {
    started: Instant,
    epoch: SystemTime,
    elapsed_nanos: AtomicU64,
}

impl ManualClock {
    /// A clock standing at the Unix epoch.
    pub fn new() -> Self {
        Self { started: Instant::now(), epoch: SystemTime::UNIX_EPOCH, elapsed_nanos: AtomicU64::new(0) }
    }

    /// Moves both clocks forward.
    pub fn advance(&self, by: Duration) {
        let nanos = u64::try_from(by.as_nanos()).unwrap_or(u64::MAX);
        self.elapsed_nanos.fetch_add(nanos, Ordering::Relaxed);
    }

    fn elapsed(&self) -> Duration {
        Duration::from_nanos(self.elapsed_nanos.load(Ordering::Relaxed))
    }
}

impl Default for ManualClock {
    fn default() -> Self {
        Self::new()
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Instant {
        self.started + self.elapsed()
    }

    fn system_time(&self) -> SystemTime {
        self.epoch + self.elapsed()
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use super::{Clock, ManualClock};

    #[test]
    fn a_manual_clock_moves_only_when_told() {
        let clock = ManualClock::new();
        let before = clock.now();
        assert_eq!(clock.now(), before);
        clock.advance(Duration::from_millis(1500));
        assert_eq!(clock.now() - before, Duration::from_millis(1500));
        assert_eq!(clock.system_time(), SystemTime::UNIX_EPOCH + Duration::from_millis(1500));
    }
}
