//! The last answer to a check that was passed on, for all workers.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// The last answer and the period in which it came, in one word.
///
/// Time is cut into periods as long as the cache's time, counted from the filter's creation. An answer counts until
/// the end of the period in which it came, so for less than the cache's time, as in Envoy.
#[derive(Debug)]
pub(super) struct AnswerCache {
    /// The length of a period in milliseconds, never zero.
    period: u64,
    /// The number of the period above 17 bits, with the first one as 1: degraded, and 16 of the status.
    state: AtomicU64,
}

/// An answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) degraded: bool,
}

impl AnswerCache {
    /// A cache without an answer, or nothing when `time` is less than a millisecond.
    pub(super) fn new(time: Duration) -> Option<Self> {
        let period = u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        (period > 0).then(|| Self { period, state: AtomicU64::new(0) })
    }

    /// Whether the last answer counts at `now`, the time since the filter's creation.
    pub(super) fn is_valid(&self, now: Duration) -> bool {
        self.state.load(Ordering::Relaxed) >> 17 == self.period_at(now)
    }

    /// The last answer, whether it counts or not.
    pub(super) fn last(&self) -> Answer {
        let state = self.state.load(Ordering::Relaxed);
        Answer { status: state as u16, degraded: state >> 16 & 1 == 1 }
    }

    /// Keeps an answer that came at `now`.
    pub(super) fn set(&self, answer: Answer, now: Duration) {
        let state = self.period_at(now) << 17 | u64::from(answer.degraded) << 16 | u64::from(answer.status);
        self.state.store(state, Ordering::Relaxed);
    }

    fn period_at(&self, now: Duration) -> u64 {
        now.as_millis() as u64 / self.period + 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_count_until_the_end_of_their_period() {
        let at = Duration::from_millis;
        let cache = AnswerCache::new(at(100)).unwrap();
        assert!(!cache.is_valid(at(0)));
        let answer = Answer { status: 404, degraded: true };
        cache.set(answer, at(150));
        assert!(cache.is_valid(at(199)));
        assert!(!cache.is_valid(at(200)));
        assert_eq!(cache.last(), answer);
    }

    #[test]
    fn parts_of_milliseconds_are_no_time() {
        assert!(AnswerCache::new(Duration::from_micros(999)).is_none());
    }
}
