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

    #[tokio::test(start_paused = true)]
    async fn changes_in_a_burst_become_one_push_and_a_steady_stream_is_not_put_off_for_ever() {
        let (change, changes) = watch::channel(0);
        let (push, mut pushes) = watch::channel(0);
        let task =
            tokio::spawn(debounce(changes, push, Duration::from_millis(20), Duration::from_millis(100)));
        let start = Instant::now();
        for number in 1..=5 {
            change.send_replace(number);
            sleep(Duration::from_millis(5)).await;
        }
        pushes.changed().await.expect("a push");
        assert_eq!(*pushes.borrow_and_update(), 5);
        assert_eq!(start.elapsed().as_millis(), 40);

        let start = Instant::now();
        let steady = tokio::spawn(async move {
            for number in 6..40 {
                change.send_replace(number);
                sleep(Duration::from_millis(10)).await;
            }
        });
        pushes.changed().await.expect("a push");
        assert!((90..=110).contains(&start.elapsed().as_millis()), "{:?}", start.elapsed());
        steady.await.expect("sent");
        task.await.expect("ends with the sender");
        assert_eq!(*pushes.borrow(), 39, "the last change is not lost");
    }
}
