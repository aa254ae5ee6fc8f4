//! The time, read from the operating system at most once for each event that a worker handles.
//!
//! A request asks for the time a dozen times within a few microseconds: for deadlines, for its facts, for histograms. On a
//! worker those calls share one reading, which is forgotten when the event loop has slept and by whoever learnt of
//! something new: a read that brought bytes, a timer that fired. Other threads always read the clock.

use std::cell::Cell;
use std::time::{Duration, Instant, SystemTime};

/// How long the offset between the two clocks is relied upon; a step of the wall clock is followed after that.
const WALL_CLOCK_FOR: Duration = Duration::from_millis(500);

thread_local! {
    static IS_WORKER: Cell<bool> = const { Cell::new(false) };
    static READING: Cell<Option<Instant>> = const { Cell::new(None) };
    static WALL: Cell<Option<(Instant, SystemTime)>> = const { Cell::new(None) };
}

/// The monotonic time of the event being handled.
#[inline]
pub fn now() -> Instant {
    READING.get().unwrap_or_else(read)
}

#[cold]
fn read() -> Instant {
    let now = Instant::now();
    if IS_WORKER.get() {
        READING.set(Some(now));
    }
    now
}

/// The wall-clock time of the event being handled.
#[inline]
pub fn wall() -> SystemTime {
    if let Some((at, wall)) = WALL.get() {
        let since = now().saturating_duration_since(at);
        if since < WALL_CLOCK_FOR {
            return wall + since;
        }
    }
    read_wall()
}

/// The wall-clock time of a reading of the monotonic clock that is not long ago.
pub fn wall_at(moment: Instant) -> SystemTime {
    let (at, wall) = WALL.get().unwrap_or_else(|| (now(), wall()));
    match moment.checked_duration_since(at) {
        Some(after) => wall + after,
        None => wall - at.duration_since(moment),
    }
}

#[cold]
fn read_wall() -> SystemTime {
    let wall = SystemTime::now();
    if IS_WORKER.get() {
        WALL.set(Some((Instant::now(), wall)));
    }
    wall
}

/// Something new happened: the next question reads the clock again.
#[inline]
pub fn forget() {
    READING.set(None);
}

/// Lets the calling thread share readings; it has to [`forget`] whenever its event loop has slept.
pub(crate) fn share_readings() {
    IS_WORKER.set(true);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_worker_reads_once_for_each_event_and_other_threads_always() {
        let apart = || {
            let first = now();
            while Instant::now() == first {
                std::hint::spin_loop();
            }
            now() > first
        };
        assert!(apart());
        std::thread::spawn(move || {
            share_readings();
            assert!(!apart());
            let before = now();
            let wall_before = wall();
            std::thread::sleep(Duration::from_millis(2));
            assert_eq!((now(), wall()), (before, wall_before));
            forget();
            assert!(now() >= before + Duration::from_millis(2));
            assert!(wall() >= wall_before + Duration::from_millis(2));
            let off = SystemTime::now().duration_since(wall()).unwrap_or_default();
            assert!(off < Duration::from_secs(5), "{off:?}");
        })
        .join()
        .unwrap();
    }
}
