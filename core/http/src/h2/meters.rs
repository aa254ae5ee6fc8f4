//! Which streams of a connection have their bytes counted.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::watch::{Frame, is_of_head};
use crate::{ByteDirection, ByteKind, ByteMeter};

/// Meters by stream, shared between who sees frames and who opens or serves streams.
#[derive(Clone, Debug, Default)]
pub(super) struct StreamMeters(Arc<Mutex<HashMap<u32, Entry>>>);

#[derive(Debug)]
struct Entry {
    meter: Arc<ByteMeter>,
    /// Somebody else holds the meter too, for as long as its numbers matter.
    held: bool,
}

impl StreamMeters {
    fn lock(&self) -> MutexGuard<'_, HashMap<u32, Entry>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts what passes on a stream that this side opens, and forgets streams of which nobody wants to know any more.
    pub(super) fn open(&self, stream: u32, meter: Arc<ByteMeter>) {
        self.insert(stream, Entry { meter, held: true });
    }

    /// Counts what passes on a stream that the peer opens, until its meter is [taken](Self::take).
    pub(super) fn opened_by_peer(&self, stream: u32) {
        self.insert(stream, Entry { meter: Arc::default(), held: false });
    }

    fn insert(&self, stream: u32, entry: Entry) {
        let mut meters = self.lock();
        meters.retain(|_, entry| !entry.held || Arc::strong_count(&entry.meter) > 1);
        meters.insert(stream, entry);
    }

    /// The meter of a stream that the peer opened. Those it opened before and nobody asked for were refused.
    pub(super) fn take(&self, stream: u32) -> Option<Arc<ByteMeter>> {
        let mut meters = self.lock();
        meters.retain(|id, entry| entry.held || *id >= stream);
        let entry = meters.get_mut(&stream)?;
        entry.held = true;
        Some(entry.meter.clone())
    }

    /// Counts a frame.
    pub(super) fn count(&self, frame: &Frame, direction: ByteDirection) {
        if let Some(entry) = self.lock().get(&frame.stream) {
            entry.meter.add(ByteKind::Wire, direction, frame.length);
            if is_of_head(frame.kind) {
                entry.meter.add(ByteKind::Header, direction, frame.length);
            }
        }
    }

    /// Streams that are counted.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.lock().len()
    }
}
