//! One watched thread: how it shows that it lives, and what follows when it does not.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::Notify;

use super::config::Limits;

/// A question to an event loop and its answer. The loop does nothing for it between two questions.
#[derive(Debug, Default)]
pub(crate) struct Pulse {
    asked: Notify,
    answered: AtomicBool,
}

impl Pulse {
    /// Answers questions for as long as the event loop of the calling thread runs.
    pub(crate) async fn answer(self: Arc<Self>) {
        loop {
            self.asked.notified().await;
            self.answered.store(true, Ordering::Relaxed);
        }
    }

    /// Whether there is an answer that was not taken yet.
    #[cfg(test)]
    pub(super) fn answered_now(&self) -> bool {
        self.answered.load(Ordering::Relaxed)
    }

    /// Asks for a sign of life.
    pub(super) fn ask(&self) {
        self.asked.notify_one();
    }

    /// Whether there was an answer since the last time.
    pub(super) fn take(&self) -> bool {
        self.answered.swap(false, Ordering::Relaxed)
    }
}

/// What is to be done about a thread.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Findings {
    /// It has been silent for `miss_timeout`; told once for each silence.
    pub(super) miss: bool,
    /// ... for `megamiss_timeout`; told once for each silence.
    pub(super) mega_miss: bool,
    /// ... for `kill_timeout`.
    pub(super) kill: bool,
    /// ... for `multikill_timeout`.
    pub(super) multi_kill: bool,
}

/// The silence of a thread.
#[derive(Clone, Copy, Debug)]
pub(super) struct Silence {
    since: Instant,
    missed: bool,
    mega_missed: bool,
}

impl Silence {
    pub(super) fn new(now: Instant) -> Self {
        Self { since: now, missed: false, mega_missed: false }
    }

    /// Looks at the thread, which gave a sign of life since the last look or did not.
    pub(super) fn look(
        &mut self,
        alive: bool,
        now: Instant,
        limits: &Limits,
        kill: Option<Duration>,
    ) -> Findings {
        if alive {
            *self = Self::new(now);
            return Findings::default();
        }
        let silent = now.saturating_duration_since(self.since);
        let miss = silent > limits.miss && !std::mem::replace(&mut self.missed, silent > limits.miss);
        let mega_miss =
            silent > limits.mega_miss && !std::mem::replace(&mut self.mega_missed, silent > limits.mega_miss);
        Findings {
            miss,
            mega_miss,
            kill: kill.is_some_and(|limit| silent > limit),
            multi_kill: limits.multi_kill.is_some_and(|limit| silent > limit),
        }
    }
}

/// Of how many threads `multikill_timeout` has to be true.
pub(super) fn needed_for_multi_kill(percent: f64, threads: usize) -> usize {
    ((percent / 100.0 * threads as f64).ceil() as usize).max(2)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_silence_is_told_once_and_kills_in_the_end() {
        let start = Instant::now();
        let after = |millis| start + Duration::from_millis(millis);
        let limits = Limits { multi_kill: Some(Duration::from_secs(2)), ..Limits::default() };
        let mut silence = Silence::new(start);
        let mut look = |alive, at| silence.look(alive, after(at), &limits, Some(Duration::from_millis(2500)));
        let nothing = Findings::default();
        assert_eq!(look(true, 200), nothing);
        assert_eq!(look(false, 400), nothing, "200 ms are not more than 200 ms");
        assert_eq!(look(false, 600), Findings { miss: true, ..nothing });
        assert_eq!(look(false, 1000), nothing);
        assert_eq!(look(false, 1400), Findings { mega_miss: true, ..nothing });
        assert_eq!(look(false, 2400), Findings { multi_kill: true, ..nothing });
        assert_eq!(look(true, 2600), nothing);
        assert_eq!(look(false, 2900), Findings { miss: true, ..nothing });
        let end = Findings { mega_miss: true, kill: true, multi_kill: true, ..nothing };
        assert_eq!(look(false, 5200), end);
    }

    #[test]
    fn several_are_two_at_least() {
        for (percent, threads, needed) in [(0.0, 8, 2), (50.0, 8, 4), (51.0, 8, 5), (100.0, 1, 2)] {
            assert_eq!(needed_for_multi_kill(percent, threads), needed, "{percent} % of {threads}");
        }
    }
}
