//! Waiting for a state by looking at it repeatedly, up to a deadline.

use std::future::Future;
use std::time::{Duration, Instant};

/// How long to pause between two looks. Short, because what is polled is local; long enough not to starve a 2-core machine.
const PAUSE: Duration = Duration::from_millis(5);

/// The deadline passed before the condition held.
#[derive(Debug, thiserror::Error)]
#[error("gave up after {waited:?}")]
pub struct TimedOut {
    /// How long the condition was polled.
    pub waited: Duration,
}

/// Calls `look` until it returns `Some`, for at most `limit`.
///
/// `look` is always called at least once and once more after the deadline, so a slow machine does not turn a state that was
/// reached in time into a failure.
pub fn poll_until<T>(limit: Duration, mut look: impl FnMut() -> Option<T>) -> Result<T, TimedOut> {
    let start = Instant::now();
    loop {
        let late = start.elapsed() >= limit;
        if let Some(found) = look() {
            return Ok(found);
        }
        if late {
            return Err(TimedOut { waited: start.elapsed() });
        }
        std::thread::sleep(PAUSE);
    }
}

/// [`poll_until`] for a condition that has to be awaited; it yields to the runtime between two looks.
pub async fn poll_until_async<T, F, Fut>(limit: Duration, mut look: F) -> Result<T, TimedOut>
where
    F: FnMut() -> Fut,
    Fut: Future<Output = Option<T>>,
{
    let start = Instant::now();
    loop {
        let late = start.elapsed() >= limit;
        if let Some(found) = look().await {
            return Ok(found);
        }
        if late {
            return Err(TimedOut { waited: start.elapsed() });
        }
        tokio::time::sleep(PAUSE).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn returns_the_first_value_found() {
        let mut looks = 0;
        let found = poll_until(Duration::from_secs(5), || {
            looks += 1;
            (looks == 3).then_some("here")
        });
        assert_eq!(found.unwrap(), "here");
    }

    #[test]
    fn looks_once_even_with_no_time_and_reports_the_wait() {
        let mut looks = 0;
        let missing = poll_until(Duration::ZERO, || {
            looks += 1;
            None::<()>
        });
        assert!(missing.is_err());
        assert_eq!(looks, 1);
    }
}
