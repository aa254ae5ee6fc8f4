//! Puts off pushes while configuration keeps changing.

use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};

/// Forwards the newest number of `changes` to `pushes` once it was stable for `after`, or `max` after the first change
/// that was not forwarded yet. Ends with the sender of `changes`.
pub(crate) async fn debounce(
    mut changes: watch::Receiver<u64>,
    pushes: watch::Sender<u64>,
    after: Duration,
    max: Duration,
) {
    while changes.changed().await.is_ok() {
        let latest = Instant::now() + max;
        loop {
            changes.mark_unchanged();
            let quiet = (Instant::now() + after).min(latest);
            match timeout_at(quiet, changes.changed()).await {
                Ok(Ok(())) => {}
                Ok(Err(_)) | Err(_) => break,
            }
        }
        let snapshot = *changes.borrow_and_update();
        pushes.send_replace(snapshot);
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::sleep;

    use super::*;

    #[tokio::test]
    async fn a_burst_becomes_one_push() {
        let (change, changes) = watch::channel(0);
        let (push, mut pushes) = watch::channel(0);
        let task = tokio::spawn(debounce(changes, push, Duration::from_millis(20), Duration::from_secs(60)));
        for number in 1..=5 {
            change.send_replace(number);
            tokio::task::yield_now().await;
        }
        pushes.changed().await.expect("a push");
        assert_eq!(*pushes.borrow_and_update(), 5);
        change.send_replace(6);
        drop(change);
        task.await.expect("ends with the publisher");
        assert_eq!(*pushes.borrow(), 6, "the last change is not lost");
    }

    #[tokio::test]
    async fn a_steady_stream_of_changes_is_not_put_off_for_ever() {
        let (change, changes) = watch::channel(0);
        let (push, mut pushes) = watch::channel(0);
        let task = tokio::spawn(debounce(changes, push, Duration::from_secs(60), Duration::from_millis(20)));
        let steady = tokio::spawn(async move {
            loop {
                change.send_modify(|number| *number += 1);
                sleep(Duration::from_millis(1)).await;
            }
        });
        timeout_at(Instant::now() + Duration::from_secs(10), pushes.changed())
            .await
            .expect("in time")
            .expect("a push");
        steady.abort();
        task.abort();
    }
}
