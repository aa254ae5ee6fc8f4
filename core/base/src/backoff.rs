//! Jittered exponential delays.

use std::time::Duration;

use crate::Rng;

/// Fully jittered exponential back-off: the n-th delay is drawn from `0..min(base * 2^n, max)`, as Envoy does for
/// retries, health checks and the connection to a management server.
#[derive(Clone, Debug)]
pub struct Backoff {
    base: Duration,
    max: Duration,
    ceiling: Duration,
}

impl Backoff {
    /// Delays that start below `base` and never exceed `max`. A `base` of zero counts as one millisecond, a `max` below
    /// `base` as `base`.
    pub fn new(base: Duration, max: Duration) -> Self {
        let base = base.max(Duration::from_millis(1));
        let max = max.max(base);
        Self { base, max, ceiling: base }
    }

    /// The next delay, to the nanosecond.
    pub fn next(&mut self, rng: &mut Rng) -> Duration {
        let ceiling = self.ceiling;
        self.ceiling = ceiling.saturating_mul(2).min(self.max);
        let nanos = u64::try_from(ceiling.as_nanos()).unwrap_or(u64::MAX);
        Duration::from_nanos(rng.below(nanos))
    }

    /// Starts over after a success.
    pub fn reset(&mut self) {
        self.ceiling = self.base;
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::Backoff;
    use crate::Rng;

    #[test]
    fn ceilings_double_up_to_the_maximum_and_reset() {
        let mut rng = Rng::seeded(11);
        let mut backoff = Backoff::new(Duration::from_millis(25), Duration::from_millis(250));
        for ceiling in [25, 50, 100, 200, 250, 250] {
            let delay = backoff.next(&mut rng);
            assert!(delay < Duration::from_millis(ceiling), "{delay:?} under {ceiling} ms");
        }
        backoff.reset();
        assert!(backoff.next(&mut rng) < Duration::from_millis(25));
    }

    #[test]
    fn delays_are_spread_over_the_whole_range() {
        let mut rng = Rng::seeded(12);
        let delays: Vec<_> = (0..200)
            .map(|_| Backoff::new(Duration::from_secs(1), Duration::from_secs(1)).next(&mut rng).as_millis())
            .collect();
        assert!(
            delays.iter().any(|&delay| delay < 100) && delays.iter().any(|&delay| delay > 900),
            "{delays:?}"
        );
    }

    #[test]
    fn degenerate_bounds_are_lifted() {
        let mut rng = Rng::seeded(13);
        let mut backoff = Backoff::new(Duration::ZERO, Duration::ZERO);
        assert!(backoff.next(&mut rng) < Duration::from_millis(1));
    }
}
