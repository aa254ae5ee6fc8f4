//! The snapshot in force, for the process as a whole.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

use crate::fraction::Fraction;
use crate::snapshot::{RuntimeValues, Snapshot};

/// Grows by one with each publication. Zero: nothing was published, and no key has a value.
static VERSION: AtomicU64 = AtomicU64::new(0);
static PUBLISHED: Mutex<Option<Arc<Snapshot>>> = Mutex::new(None);

#[derive(Default)]
struct Cached {
    version: u64,
    snapshot: Arc<Snapshot>,
}

thread_local! {
    static CACHED: RefCell<Rc<Cached>> = RefCell::default();
}

/// Puts a snapshot in force for all threads; each notices when it next reads a key.
pub fn publish(snapshot: Arc<Snapshot>) {
    let mut published = PUBLISHED.lock();
    if published.is_none() && snapshot.keys().len() == 0 {
        return; // reading stays free of charge for as long as there is nothing to read
    }
    *published = Some(snapshot);
    VERSION.fetch_add(1, Ordering::Release);
}

/// Calls `read` with the snapshot in force. For several keys at once, or keys that are made up; for a single key use [`Current`].
pub fn with_current<R>(read: impl FnOnce(&Snapshot) -> R) -> R {
    let cached = CACHED.with_borrow(Rc::clone);
    let cached = if cached.version == VERSION.load(Ordering::Acquire) { cached } else { refresh() };
    read(&cached.snapshot)
}

#[cold]
fn refresh() -> Rc<Cached> {
    let published = PUBLISHED.lock();
    let version = VERSION.load(Ordering::Acquire);
    let fresh = Rc::new(Cached { version, snapshot: published.clone().unwrap_or_default() });
    CACHED.set(fresh.clone());
    fresh
}

/// The values in force, whatever snapshot that is when a key is asked for.
#[derive(Clone, Copy, Debug, Default)]
pub struct Current;

impl Current {
    /// Whether nothing was ever published, so that no key has a value.
    pub fn is_empty() -> bool {
        VERSION.load(Ordering::Acquire) == 0
    }

    fn read<T>(key: &str, read: impl FnOnce(&Snapshot, &str) -> Option<T>) -> Option<T> {
        if Self::is_empty() {
            return None;
        }
        with_current(|snapshot| read(snapshot, key))
    }
}

impl RuntimeValues for Current {
    fn fraction(&self, key: &str) -> Option<Fraction> {
        Self::read(key, Snapshot::fraction)
    }
    fn number(&self, key: &str) -> Option<u64> {
        Self::read(key, Snapshot::number)
    }
    fn double(&self, key: &str) -> Option<f64> {
        Self::read(key, Snapshot::double)
    }
    fn boolean(&self, key: &str) -> Option<bool> {
        Self::read(key, Snapshot::boolean)
    }
}
