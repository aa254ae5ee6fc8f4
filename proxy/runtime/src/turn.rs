//! A turn of the worker's event loop: everything that runs between two times it sleeps.
//!
//! A send wakes its receiver when that has nothing else to do, which costs the sender more than the send itself where the receiver
//! is on the same machine, as the application of a sidecar is. Messages of one turn that leave together wake each receiver
//! once; spread over the turn, they find it asleep again and again.

use std::cell::Cell;
use std::task::{Context, Poll};

/// Messages of the last turn from which on those of a turn wait for each other. Below that there is nothing to join, and waiting
/// costs a poll of the task.
const WORTH_JOINING: u32 = 4;

thread_local! {
    static MESSAGES: Cell<u32> = const { Cell::new(0) };
    static LAST_TURN: Cell<u32> = const { Cell::new(0) };
}

/// Counts a message that is ready to be sent and lets the tasks go first that are ready now, where others are likely to leave
/// with it. The caller asks once for each message, and sends it when it is polled again. Never waits outside of a worker.
pub fn poll_join(cx: &mut Context<'_>) -> Poll<()> {
    MESSAGES.set(MESSAGES.get() + 1);
    if LAST_TURN.get() < WORTH_JOINING {
        return Poll::Ready(());
    }
    cx.waker().wake_by_ref();
    Poll::Pending
}

/// Waits for the poll that follows a [`poll_join`] that was not ready.
pub async fn joined() {
    let mut polled = false;
    std::future::poll_fn(
        |_| if std::mem::replace(&mut polled, true) { Poll::Ready(()) } else { Poll::Pending },
    )
    .await;
}

/// The event loop has slept.
pub(crate) fn begin() {
    LAST_TURN.set(MESSAGES.take());
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::rc::Rc;
    use std::task::Waker;

    use tokio::runtime::{Builder, LocalOptions};

    use super::*;

    #[test]
    fn messages_wait_where_the_turn_before_had_some() {
        let mut cx = Context::from_waker(Waker::noop());
        for _ in 0..WORTH_JOINING {
            assert!(poll_join(&mut cx).is_ready());
        }
        begin();
        assert!(poll_join(&mut cx).is_pending());
        begin();
        assert!(poll_join(&mut cx).is_ready(), "there was one message only");
    }

    #[test]
    fn messages_leave_behind_the_work_of_all_tasks() {
        let runtime = Builder::new_current_thread().build_local(LocalOptions::default()).unwrap();
        MESSAGES.set(WORTH_JOINING);
        begin();
        let log = Rc::new(RefCell::new(Vec::new()));
        runtime.block_on(async {
            let tasks: Vec<_> = ["a", "b", "c"]
                .into_iter()
                .map(|name| {
                    let log = log.clone();
                    tokio::task::spawn_local(async move {
                        log.borrow_mut().push(format!("work {name}"));
                        let waits = std::future::poll_fn(|cx| Poll::Ready(poll_join(cx))).await;
                        assert!(waits.is_pending());
                        joined().await;
                        log.borrow_mut().push(format!("send {name}"));
                    })
                })
                .collect();
            for task in tasks {
                task.await.unwrap();
            }
        });
        assert_eq!(*log.borrow(), ["work a", "work b", "work c", "send a", "send b", "send c"]);
    }
}
