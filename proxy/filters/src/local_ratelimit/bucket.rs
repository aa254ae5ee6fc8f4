//! A token bucket that all workers share without a lock.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// A bucket that fills evenly over time.
///
/// Its state is the moment at which it would have been empty, in seconds since a start that the caller chooses: the tokens in it are
/// what has flowed in since, up to the maximum.
#[derive(Debug)]
pub(crate) struct TokenBucket {
    max_tokens: f64,
    tokens_per_second: f64,
    /// Bits of an `f64`.
    empty_at: AtomicU64,
}

/// What a bucket is made of.
#[derive(Clone, Copy, Debug)]
pub(crate) struct BucketSize {
    pub(crate) max_tokens: u32,
    pub(crate) tokens_per_fill: u32,
    pub(crate) fill_interval: Duration,
}

/// What is in a bucket.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Level {
    /// Size of the bucket.
    pub(crate) limit: u32,
    /// Whole tokens that are left.
    pub(crate) remaining: u32,
    /// Seconds, rounded up, until there is a token again; 0 when there is one.
    pub(crate) reset_seconds: u64,
}

impl TokenBucket {
    /// A full bucket.
    pub(crate) fn new(size: BucketSize) -> Self {
        let BucketSize { max_tokens, tokens_per_fill, fill_interval } = size;
        let max_tokens = f64::from(max_tokens);
        let tokens_per_second = f64::from(tokens_per_fill) / fill_interval.as_secs_f64();
        let empty_at = -(max_tokens / tokens_per_second);
        Self { max_tokens, tokens_per_second, empty_at: AtomicU64::new(empty_at.to_bits()) }
    }

    /// Tokens that flow in within a second.
    pub(crate) fn rate(&self) -> f64 {
        self.tokens_per_second
    }

    /// Takes tokens at `now` since the start: all of them, or none when there are not as many.
    pub(crate) fn take(&self, count: u64, now: Duration) -> bool {
        let now = now.as_secs_f64();
        let count = count as f64;
        let mut bits = self.empty_at.load(Ordering::Relaxed);
        loop {
            let tokens = self.tokens_at(now, f64::from_bits(bits));
            if tokens < count {
                return false;
            }
            let empty_at = (now - (tokens - count) / self.tokens_per_second).to_bits();
            match self.empty_at.compare_exchange_weak(bits, empty_at, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => return true,
                Err(other) => bits = other,
            }
        }
    }

    /// Puts tokens back at `now` since the start, as many as there is room for.
    pub(crate) fn give_back(&self, count: u64, now: Duration) {
        let now = now.as_secs_f64();
        let mut bits = self.empty_at.load(Ordering::Relaxed);
        loop {
            let tokens = (self.tokens_at(now, f64::from_bits(bits)) + count as f64).min(self.max_tokens);
            let empty_at = (now - tokens / self.tokens_per_second).to_bits();
            match self.empty_at.compare_exchange_weak(bits, empty_at, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => return,
                Err(other) => bits = other,
            }
        }
    }

    /// What is in it at `now` since the start.
    pub(crate) fn level(&self, now: Duration) -> Level {
        let tokens = self.tokens_at(now.as_secs_f64(), f64::from_bits(self.empty_at.load(Ordering::Relaxed)));
        let missing = (1.0 - tokens).max(0.0);
        Level {
            limit: self.max_tokens as u32,
            remaining: tokens as u32,
            reset_seconds: (missing / self.tokens_per_second).ceil() as u64,
        }
    }

    fn tokens_at(&self, now: f64, empty_at: f64) -> f64 {
        // Subtracting and dividing again may lose the last bit of a whole token.
        let tokens = (now - empty_at) * self.tokens_per_second + 1e-9;
        tokens.clamp(0.0, self.max_tokens)
    }
}
