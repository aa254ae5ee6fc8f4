//! The last answer to a check that was passed on, for all workers.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// How long an answer counts, and the answer: `status`, whether it was degraded, and until when, in one word.
#[derive(Debug)]
pub(super) struct AnswerCache {
    valid_for: Duration,
    /// Milliseconds of the end above 17 bits: degraded, and 16 of the status.
    state: AtomicU64,
}

/// An answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) degraded: bool,
}

impl AnswerCache {
    pub(super) fn new(valid_for: Duration) -> Self {
        Self { valid_for, state: AtomicU64::new(0) }
    }

    /// The answer, while it counts at `now`.
    pub(super) fn get(&self, now: Duration) -> Option<Answer> {
        let state = self.state.load(Ordering::Relaxed);
        let valid = u128::from(state >> 17) > now.as_millis();
        valid.then_some(Answer { status: state as u16, degraded: state >> 16 & 1 == 1 })
    }

    /// Keeps an answer that came at `now`.
    pub(super) fn set(&self, answer: Answer, now: Duration) {
        let until = (now + self.valid_for).as_millis() as u64;
        let state = until << 17 | u64::from(answer.degraded) << 16 | u64::from(answer.status);
        self.state.store(state, Ordering::Relaxed);
    }
}
