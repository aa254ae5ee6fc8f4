//! A token bucket that all workers share without a lock.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// A bucket that fills evenly over time.
///
/// Its state is the moment at which it would have been empty, in seconds since a start that the caller chooses: the tokens in it are
/// what has flowed in since, up to the maximum.
#[derive(Debug)]
pub(super) struct TokenBucket {
    max_tokens: f64,
    tokens_per_second: f64,
    /// Bits of an `f64`.
    empty_at: AtomicU64,
}

/// What taking a token gave.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Draw {
    /// Whether there was a token to take.
    pub(super) taken: bool,
    /// Size of the bucket.
    pub(super) limit: u32,
    /// Whole tokens that are left.
    pub(super) remaining: u32,
    /// Seconds, rounded up, until there is a token again; 0 when there is one.
    pub(super) reset_seconds: u64,
}

impl TokenBucket {
    /// A full bucket.
    pub(super) fn new(max_tokens: u32, tokens_per_fill: u32, fill_interval: Duration) -> Self {
        let max_tokens = f64::from(max_tokens);
        let tokens_per_second = f64::from(tokens_per_fill) / fill_interval.as_secs_f64();
        let empty_at = -(max_tokens / tokens_per_second);
        Self { max_tokens, tokens_per_second, empty_at: AtomicU64::new(empty_at.to_bits()) }
    }

    /// Takes a token, if there is one, at `now` since the start.
    pub(super) fn draw(&self, now: Duration) -> Draw {
        let now = now.as_secs_f64();
        let mut bits = self.empty_at.load(Ordering::Relaxed);
        loop {
            let tokens = self.tokens_at(now, f64::from_bits(bits));
            if tokens < 1.0 {
                return self.draw_of(false, tokens);
            }
            let left = tokens - 1.0;
            let empty_at = (now - left / self.tokens_per_second).to_bits();
            match self.empty_at.compare_exchange_weak(bits, empty_at, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => return self.draw_of(true, left),
                Err(other) => bits = other,
            }
        }
    }

    fn tokens_at(&self, now: f64, empty_at: f64) -> f64 {
        // Subtracting and dividing again may lose the last bit of a whole token.
        let tokens = (now - empty_at) * self.tokens_per_second + 1e-9;
        tokens.clamp(0.0, self.max_tokens)
    }

    fn draw_of(&self, taken: bool, tokens: f64) -> Draw {
        let missing = (1.0 - tokens).max(0.0);
        Draw {
            taken,
            limit: self.max_tokens as u32,
            remaining: tokens as u32,
            reset_seconds: (missing / self.tokens_per_second).ceil() as u64,
        }
    }
}
