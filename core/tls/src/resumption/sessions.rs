//! Sessions that the server remembers by their ids, for clients without tickets.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::sync::{Mutex, PoisonError};

use rustls::server::StoresServerSessions;

use super::stamp::Stamp;

/// Sessions of one context that are remembered; the oldest is forgotten for the next one.
const MAX_SESSIONS: usize = 1024;

/// The sessions of a context.
pub(crate) struct Sessions {
    stamp: Stamp,
    known: Mutex<Known>,
}

#[derive(Default)]
struct Known {
    by_id: HashMap<Vec<u8>, Vec<u8>>,
    /// Ids, the oldest first; those of sessions that were taken out may still be here.
    order: VecDeque<Vec<u8>>,
}

impl Sessions {
    /// Sessions that are good for so many seconds.
    pub(crate) fn new(lifetime: u32) -> Self {
        Self { stamp: Stamp::new(lifetime), known: Mutex::default() }
    }
}

impl StoresServerSessions for Sessions {
    fn put(&self, id: Vec<u8>, session: Vec<u8>) -> bool {
        let Some(session) = self.stamp.put_on(&session) else { return false };
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.by_id.insert(id.clone(), session).is_none() {
            known.order.push_back(id);
        }
        if known.order.len() > MAX_SESSIONS
            && let Some(oldest) = known.order.pop_front()
        {
            known.by_id.remove(&oldest);
        }
        true
    }

    fn get(&self, id: &[u8]) -> Option<Vec<u8>> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        self.stamp.take_off(known.by_id.get(id)?.clone())
    }

    fn take(&self, id: &[u8]) -> Option<Vec<u8>> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        self.stamp.take_off(known.by_id.remove(id)?)
    }

    fn can_cache(&self) -> bool {
        true
    }
}

impl fmt::Debug for Sessions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sessions").field("stamp", &self.stamp).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::super::stamp::tests::Clock;
    use super::*;

    #[test]
    fn the_oldest_make_room_and_the_old_are_not_found() {
        let clock = Clock::at(5);
        let sessions = Sessions { stamp: Stamp::timed(3, clock.clone()), known: Mutex::default() };
        for number in 0..=MAX_SESSIONS {
            assert!(sessions.put(number.to_be_bytes().to_vec(), vec![1]));
        }
        assert_eq!(sessions.get(&0_usize.to_be_bytes()), None);
        assert_eq!(sessions.get(&1_usize.to_be_bytes()), Some(vec![1]));
        assert_eq!(sessions.take(&1_usize.to_be_bytes()), Some(vec![1]));
        assert_eq!(sessions.get(&1_usize.to_be_bytes()), None);
        clock.set(8);
        assert_eq!(sessions.get(&2_usize.to_be_bytes()), None);
    }
}
