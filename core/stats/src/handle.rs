//! The handles that code counts with: a number of four bytes each, free to copy.

use std::sync::Arc;

use parking_lot::Mutex;

use crate::shard;

/// A number that only grows.
///
/// A handle does not keep its stat alive: hold the [`Scope`](crate::Scope) that it came from for as long as it is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Counter {
    pub(crate) slot: u32,
}

impl Counter {
    /// A counter that nobody reads.
    pub const NONE: Self = Self { slot: shard::NO_SLOT };

    /// Adds one.
    #[inline]
    pub fn inc(self) {
        shard::add(self.slot, 1);
    }

    /// Adds `by`.
    #[inline]
    pub fn add(self, by: u64) {
        shard::add(self.slot, by);
    }

    /// The sum over all threads; takes a lock, not for the request path.
    pub fn value(self) -> u64 {
        shard::sum(self.slot)
    }

    /// Sets the sum to zero, as `/reset_counters` does.
    pub fn reset(self) {
        shard::reset(self.slot);
    }

    /// Shows it among those that are used, though it counted nothing.
    pub fn mark_used(self) {
        shard::add_marked(self.slot, 0);
    }
}

/// A number that goes up and down.
///
/// Threads may add and subtract, or one thread may set; the value is the sum of both.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gauge {
    pub(crate) slot: u32,
}

impl Gauge {
    /// A gauge that nobody reads.
    pub const NONE: Self = Self { slot: shard::NO_SLOT };

    /// Adds one.
    #[inline]
    pub fn inc(self) {
        shard::add_marked(self.slot, 1);
    }

    /// Subtracts one. The thread need not be the one that added.
    #[inline]
    pub fn dec(self) {
        shard::add_marked(self.slot, u64::MAX);
    }

    /// Adds `by`.
    #[inline]
    pub fn add(self, by: u64) {
        shard::add_marked(self.slot, by);
    }

    /// Subtracts `by`.
    #[inline]
    pub fn sub(self, by: u64) {
        shard::add_marked(self.slot, by.wrapping_neg());
    }

    /// Makes the value `to`, whatever threads added before; takes a lock, for the main thread.
    pub fn set(self, to: u64) {
        shard::set(self.slot, to);
    }

    /// The sum over all threads; a sum that is below zero for a moment (its parts are read one after the other) reads as zero.
    pub fn value(self) -> u64 {
        signed_floor(shard::sum(self.slot))
    }
}

/// A gauge's sum as it is printed. Gauges may hold any number, such as the hash of a version; only what lies closely below
/// zero is taken for a sum whose parts were read while they changed.
pub(crate) fn signed_floor(sum: u64) -> u64 {
    if sum > u64::MAX - u64::from(u32::MAX) { 0 } else { sum }
}

/// A distribution of numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Histogram {
    pub(crate) id: u32,
}

impl Histogram {
    /// A histogram that nobody reads.
    pub const NONE: Self = Self { id: shard::NO_SLOT };

    /// Records one number in the histogram's [`Unit`](crate::Unit).
    #[inline]
    pub fn record(self, value: u64) {
        if self.id != shard::NO_SLOT {
            shard::record(self.id, value);
        }
    }
}

/// A text that is printed among the stats.
#[derive(Clone, Debug, Default)]
pub struct TextReadout {
    pub(crate) text: Arc<Mutex<String>>,
}

impl TextReadout {
    /// Replaces the text.
    pub fn set(&self, text: &str) {
        let mut current = self.text.lock();
        current.clear();
        current.push_str(text);
    }

    /// The text.
    pub fn value(&self) -> String {
        self.text.lock().clone()
    }
}

#[cfg(test)]
mod tests {
    use super::signed_floor;

    #[test]
    fn hashes_are_kept_and_slightly_negative_sums_are_zero() {
        // Envoy's number for the version "1", which is above the largest signed number.
        assert_eq!(signed_floor(13_237_225_503_670_494_420), 13_237_225_503_670_494_420);
        assert_eq!(signed_floor(0u64.wrapping_sub(3)), 0);
        assert_eq!(signed_floor(7), 7);
    }
}
