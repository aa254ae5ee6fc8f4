//! How many connections a pool should have: Envoy's arithmetic of preconnecting.

use std::iter::Sum;

/// Most connections that one event makes: a pool that fell behind catches up in steps.
pub(crate) const CONNECTIONS_AT_ONCE: usize = 3;

/// Streams of a pool, and what it has to carry them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Load {
    /// Requests that wait for a connection.
    pub(crate) pending: usize,
    /// Streams under way.
    pub(crate) active: usize,
    /// Streams that connections there are, and those being made, could take besides.
    pub(crate) capacity: usize,
}

impl Load {
    /// Whether another connection is to be made. A `ratio` of 1 provides for the requests there are, more provides for
    /// those to come (`per_upstream_preconnect_ratio`, at most 3).
    pub(crate) fn needs_connection(self, ratio: f32) -> bool {
        self.needs(ratio, 0)
    }

    /// The same a moment before another stream begins (`predictive_preconnect_ratio`, at most 3).
    pub(crate) fn will_need_connection(self, ratio: f32) -> bool {
        self.needs(ratio, 1)
    }

    fn needs(self, ratio: f32, coming: usize) -> bool {
        let Self { pending, active, capacity } = self;
        (pending + active + coming) as f32 * ratio > (capacity + active) as f32
    }
}

impl Sum for Load {
    fn sum<I: Iterator<Item = Self>>(loads: I) -> Self {
        loads.fold(Self::default(), |a, b| Self {
            pending: a.pending + b.pending,
            active: a.active + b.active,
            capacity: a.capacity.saturating_add(b.capacity),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::Load;

    #[test]
    fn without_preconnecting_each_waiting_request_has_a_connection() {
        let needs = |pending, active, capacity| Load { pending, active, capacity }.needs_connection(1.0);
        assert!(needs(1, 0, 0));
        assert!(!needs(1, 0, 1));
        assert!(needs(2, 5, 1));
        assert!(!needs(0, 5, 0));
        assert!(!needs(3, 5, 100), "streams that share a connection need no other");
    }

    #[test]
    fn a_stream_that_begins_is_provided_for_beside_those_there_are() {
        let needs =
            |active, capacity, ratio| Load { pending: 0, active, capacity }.will_need_connection(ratio);
        assert!(needs(0, 1, 2.0));
        assert!(!needs(0, 2, 2.0));
        assert!(!needs(0, 1, 1.0));
        assert!(needs(1, 2, 2.0));
    }

    #[test]
    fn a_ratio_provides_for_requests_to_come() {
        let needs = |active, capacity, ratio| Load { pending: 0, active, capacity }.needs_connection(ratio);
        assert!(needs(1, 0, 1.5), "one in use, one and a half wanted");
        assert!(!needs(1, 1, 1.5));
        assert!(needs(2, 1, 2.0));
        assert!(!needs(2, 2, 2.0));
        assert!(!needs(0, 0, 3.0), "nothing under way, nothing provided");
    }
}
