//! When a process that ended is started again: at once is too soon for one that fails at once.

use std::time::Duration;

/// First wait; each further failure doubles it.
const FIRST: Duration = Duration::from_secs(1);

/// Longest wait.
const LONGEST: Duration = Duration::from_secs(60);

/// A process that ran for this long is not in a loop of crashes.
const HEALTHY: Duration = Duration::from_secs(60);

/// How often a process has been restarted, and how patient to be the next time.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Restarts {
    /// Restarts so far.
    pub count: u32,
    failures_in_a_row: u32,
}

impl Restarts {
    /// Notes that the process ended after it `ran` so long; the answer is how long to wait before it is started again.
    pub(crate) fn ended(&mut self, ran: Duration) -> Duration {
        if ran >= HEALTHY {
            self.failures_in_a_row = 0;
        }
        let wait = FIRST.saturating_mul(1 << self.failures_in_a_row.min(16)).min(LONGEST);
        self.failures_in_a_row += 1;
        self.count += 1;
        wait
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_a_minute_and_start_over_after_a_healthy_run() {
        let mut restarts = Restarts::default();
        let waits: Vec<u64> = (0..8).map(|_| restarts.ended(Duration::ZERO).as_secs()).collect();
        assert_eq!(waits, [1, 2, 4, 8, 16, 32, 60, 60]);
        assert_eq!(restarts.ended(Duration::from_secs(61)).as_secs(), 1);
        assert_eq!(restarts.count, 9);
    }
}
