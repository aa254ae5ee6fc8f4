//! A timer that is cheap to move: most deadlines of a proxy are set and never reached.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};
use std::time::Instant;

use tokio::time::Sleep;

use crate::clock;

/// One timer for all deadlines of a connection or stream.
///
/// The timer of the event loop is armed once and not touched when the deadline moves later; when it fires too early it is
/// armed again for what remains. A keep-alive connection with a route timeout so pays for the timer once per timeout
/// period instead of once per request.
#[derive(Debug, Default)]
pub struct DeadlineTimer {
    sleep: Option<Pin<Box<Sleep>>>,
    /// Who is woken when `sleep` ends.
    woken: Option<Waker>,
}

impl DeadlineTimer {
    /// A timer that is not armed.
    pub const fn new() -> Self {
        Self { sleep: None, woken: None }
    }

    /// Ready once `deadline` has passed; `None` never is. The task is woken no later than at the deadline of the last poll.
    pub fn poll(&mut self, cx: &mut Context<'_>, deadline: Option<Instant>) -> Poll<()> {
        let Some(deadline) = deadline else { return Poll::Pending };
        let deadline = tokio::time::Instant::from_std(deadline);
        let sleep = self.sleep.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(deadline)));
        let is_watched = self.woken.as_ref().is_some_and(|waker| waker.will_wake(cx.waker()));
        if sleep.deadline() > deadline {
            sleep.as_mut().reset(deadline);
        } else if is_watched && !sleep.is_elapsed() {
            return Poll::Pending;
        }
        while sleep.as_mut().poll(cx).is_ready() {
            clock::forget();
            if tokio::time::Instant::now() >= deadline {
                self.woken = None;
                return Poll::Ready(());
            }
            sleep.as_mut().reset(deadline);
        }
        if !is_watched {
            self.woken = Some(cx.waker().clone());
        }
        Poll::Pending
    }

    /// Frees the timer; the next poll with a deadline arms a new one.
    pub fn disarm(&mut self) {
        (self.sleep, self.woken) = (None, None);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::poll_fn;
    use std::time::Duration;

    #[tokio::test(start_paused = true)]
    async fn fires_at_the_moved_deadline_and_not_before() {
        let begin = tokio::time::Instant::now();
        let mut timer = DeadlineTimer::new();
        let first = begin.into_std() + Duration::from_secs(5);
        assert!(poll_fn(|cx| Poll::Ready(timer.poll(cx, Some(first)))).await.is_pending());
        let later = begin.into_std() + Duration::from_secs(8);
        poll_fn(|cx| timer.poll(cx, Some(later))).await;
        assert_eq!(begin.elapsed().as_secs(), 8);
        let sooner = begin.into_std() + Duration::from_secs(20);
        assert!(poll_fn(|cx| Poll::Ready(timer.poll(cx, Some(sooner)))).await.is_pending());
        let soonest = begin.into_std() + Duration::from_secs(10);
        poll_fn(|cx| timer.poll(cx, Some(soonest))).await;
        assert_eq!(begin.elapsed().as_secs(), 10);
    }

    #[tokio::test(start_paused = true)]
    async fn no_deadline_never_fires() {
        let mut timer = DeadlineTimer::new();
        assert!(poll_fn(|cx| Poll::Ready(timer.poll(cx, None))).await.is_pending());
    }
}
