//! The time at which a session began, in front of what the library says of it.

use std::fmt;
use std::sync::Arc;

use rustls::time_provider::{DefaultTimeProvider, TimeProvider};

/// Bytes of a stamp.
const LEN: usize = 8;

/// Stamps sessions, and finds out which of them are still good.
#[derive(Clone)]
pub(crate) struct Stamp {
    /// Seconds for which a session is good.
    pub lifetime: u32,
    time: Arc<dyn TimeProvider>,
}

impl Stamp {
    pub(crate) fn new(lifetime: u32) -> Self {
        Self::timed(lifetime, Arc::new(DefaultTimeProvider))
    }

    pub(crate) fn timed(lifetime: u32, time: Arc<dyn TimeProvider>) -> Self {
        Self { lifetime, time }
    }

    /// The session with its stamp; `None` when nobody knows the time.
    pub(crate) fn put_on(&self, session: &[u8]) -> Option<Vec<u8>> {
        let now = self.time.current_time()?.as_secs();
        Some([&now.to_be_bytes(), session].concat())
    }

    /// What was stamped; `None` when its time is over, or lies ahead.
    pub(crate) fn take_off(&self, mut stamped: Vec<u8>) -> Option<Vec<u8>> {
        let began = u64::from_be_bytes(*stamped.first_chunk::<LEN>()?);
        let age = self.time.current_time()?.as_secs().checked_sub(began)?;
        if age >= u64::from(self.lifetime) {
            return None;
        }
        stamped.drain(..LEN);
        Some(stamped)
    }
}

impl fmt::Debug for Stamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Stamp").field("lifetime", &self.lifetime).finish_non_exhaustive()
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};
    use std::time::Duration;

    use rustls::pki_types::UnixTime;

    use super::*;

    /// A clock that a test sets.
    #[derive(Debug)]
    pub(crate) struct Clock(pub AtomicU64);

    impl Clock {
        pub(crate) fn at(seconds: u64) -> Arc<Self> {
            Arc::new(Self(AtomicU64::new(seconds)))
        }

        pub(crate) fn set(&self, seconds: u64) {
            self.0.store(seconds, Ordering::Relaxed);
        }
    }

    impl TimeProvider for Clock {
        fn current_time(&self) -> Option<UnixTime> {
            Some(UnixTime::since_unix_epoch(Duration::from_secs(self.0.load(Ordering::Relaxed))))
        }
    }

    #[test]
    fn a_session_is_good_for_its_time_and_not_before() {
        let clock = Clock::at(1000);
        let stamp = Stamp::timed(10, clock.clone());
        let stamped = stamp.put_on(b"state").unwrap();
        for (now, good) in [(1000, true), (1009, true), (1010, false), (999, false)] {
            clock.set(now);
            assert_eq!(stamp.take_off(stamped.clone()), good.then(|| b"state".to_vec()), "{now}");
        }
        assert_eq!(stamp.take_off(b"short".to_vec()), None);
    }
}
