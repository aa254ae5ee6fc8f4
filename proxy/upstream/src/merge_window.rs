//! `update_merge_window`: changes of health, weight and metadata that follow each other closely reach the workers together.

use std::time::{Duration, Instant};

/// What becomes of a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It is delivered at once.
    Deliver {
        /// Changes that were waiting go with it (`update_merge_cancelled`).
        cancels: bool,
        /// It could have been merged, but the last delivery was too long ago (`update_out_of_merge_window`).
        late: bool,
    },
    /// It waits; a timer is to be started unless one is running.
    Wait {
        /// For how long, when there is no timer yet.
        timer: Option<Duration>,
    },
}

/// The window of one cluster.
#[derive(Debug)]
pub(crate) struct MergeWindow {
    length: Duration,
    last: Option<Instant>,
    waiting: bool,
}

impl MergeWindow {
    /// A window of this length; zero delivers everything at once.
    pub(crate) fn new(length: Duration) -> Self {
        Self { length, last: None, waiting: false }
    }

    /// Decides about a change at `now`. Hosts that come or go are never `mergeable`.
    pub(crate) fn update(&mut self, now: Instant, mergeable: bool) -> Verdict {
        if self.length.is_zero() {
            return Verdict::Deliver { cancels: false, late: false };
        }
        let is_over = self.last.is_none_or(|last| now.saturating_duration_since(last) > self.length);
        if is_over || !mergeable {
            let cancels = std::mem::take(&mut self.waiting);
            self.last = Some(now);
            return Verdict::Deliver { cancels, late: is_over && mergeable };
        }
        let starts = !std::mem::replace(&mut self.waiting, true);
        Verdict::Wait { timer: starts.then_some(self.length) }
    }

    /// The timer went off; whether there is something to deliver.
    pub(crate) fn expire(&mut self, now: Instant) -> bool {
        let waited = std::mem::take(&mut self.waiting);
        if waited {
            self.last = Some(now);
        }
        waited
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::{MergeWindow, Verdict};

    const NOW: Verdict = Verdict::Deliver { cancels: false, late: false };

    #[test]
    fn the_second_change_in_a_window_waits_and_takes_the_third_along() {
        let (start, length) = (Instant::now(), Duration::from_secs(1));
        let mut window = MergeWindow::new(length);
        assert_eq!(window.update(start, true), Verdict::Deliver { cancels: false, late: true });
        let at = |millis| start + Duration::from_millis(millis);
        assert_eq!(window.update(at(10), true), Verdict::Wait { timer: Some(length) });
        assert_eq!(window.update(at(20), true), Verdict::Wait { timer: None });
        assert!(window.expire(at(1010)));
        assert!(!window.expire(at(1010)));
        assert_eq!(window.update(at(1500), true), Verdict::Wait { timer: Some(length) });
    }

    #[test]
    fn hosts_that_come_or_go_are_delivered_with_what_waits() {
        let start = Instant::now();
        let mut window = MergeWindow::new(Duration::from_secs(1));
        assert_eq!(window.update(start, false), NOW);
        window.update(start, true);
        assert_eq!(window.update(start, false), Verdict::Deliver { cancels: true, late: false });
        assert!(!window.expire(start));
    }

    #[test]
    fn no_window_delivers_everything() {
        let start = Instant::now();
        let mut window = MergeWindow::new(Duration::ZERO);
        assert_eq!([window.update(start, true), window.update(start, true)], [NOW, NOW]);
    }
}
