//! How fast a response body may go on.

use std::time::{Duration, Instant};

use bytes::BytesMut;

/// How often a body that is slowed down moves on.
pub(super) const SLICE: Duration = Duration::from_millis(50);

/// A rate, and what may pass by it now.
#[derive(Debug)]
pub(super) struct Throttle {
    bytes_per_second: f64,
    /// Bytes that may pass at `filled_at`.
    allowance: f64,
    filled_at: Instant,
}

impl Throttle {
    /// A rate in KiB a second; what would pass in one slice may pass at once.
    pub(super) fn new(kib_per_second: u64, now: Instant) -> Self {
        let bytes_per_second = kib_per_second as f64 * 1024.0;
        Self { bytes_per_second, allowance: bytes_per_second * SLICE.as_secs_f64(), filled_at: now }
    }

    /// Leaves in `data` what may pass now, of what was held back before and what arrived; the rest is held back. Tells whether
    /// something is.
    pub(super) fn split(&mut self, held: &mut BytesMut, data: &mut BytesMut, now: Instant) -> bool {
        let since = now.saturating_duration_since(self.filled_at).as_secs_f64();
        // As much as flows in within a second is kept for later.
        self.allowance = (self.allowance + since * self.bytes_per_second).min(self.bytes_per_second);
        self.filled_at = now;
        if !held.is_empty() {
            held.extend_from_slice(data);
            std::mem::swap(held, data);
            held.clear();
        }
        let passes = data.len().min(self.allowance as usize);
        self.allowance -= passes as f64;
        if passes < data.len() {
            *held = data.split_off(passes);
        }
        !held.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(throttle: &mut Throttle, held: &mut BytesMut, data: &[u8], now: Instant) -> (usize, bool) {
        let mut data = BytesMut::from(data);
        let holds = throttle.split(held, &mut data, now);
        (data.len(), holds)
    }

    #[test]
    fn a_body_moves_as_fast_as_the_rate_says_and_stays_in_order() {
        let start = Instant::now();
        let after = |millis| start + Duration::from_millis(millis);
        let mut throttle = Throttle::new(1, start);
        let mut held = BytesMut::new();
        // 1024 bytes a second: 51 in the first 50 ms.
        assert_eq!(run(&mut throttle, &mut held, &[b'a'; 100], start), (51, true));
        assert_eq!(held.len(), 49);
        assert_eq!(run(&mut throttle, &mut held, b"", start), (0, true));
        let mut more = BytesMut::from(&b"b"[..]);
        assert!(!throttle.split(&mut held, &mut more, after(100)));
        assert_eq!(more, [&[b'a'; 49][..], b"b"].concat());
        // What nobody used is there later, but no more than a second's worth.
        assert_eq!(run(&mut throttle, &mut held, &[b'c'; 2000], after(60_000)), (1024, true));
    }
}
