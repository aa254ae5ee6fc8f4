//! How much of a body may wait for a slow receiver: above the limit the sender is stopped, at half of it it goes on.

/// What the buffer in front of a receiver went through since it was last asked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Pressure {
    /// Times that it grew above the limit.
    pub(crate) backed_up: u16,
    /// Times that it fell to half of the limit again.
    pub(crate) drained: u16,
}

impl Pressure {
    /// Whether nothing happened.
    pub(crate) fn is_none(self) -> bool {
        self == Self::default()
    }
}

/// The limit of a buffer (`per_connection_buffer_limit_bytes`) and on which side of it the buffer is. The limit is soft, as
/// in Envoy: what comes while the buffer is not above it is taken whole.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Watermarks {
    limit: u32,
    above: bool,
    pressure: Pressure,
}

impl Watermarks {
    /// For a buffer of up to `limit` bytes; 0 is for one without limit.
    pub(crate) fn new(limit: u32) -> Self {
        Self { limit, above: false, pressure: Pressure::default() }
    }

    /// Whether a buffer that holds `waiting` bytes takes more.
    pub(crate) fn has_room(&mut self, waiting: usize) -> bool {
        self.update(waiting);
        !self.above
    }

    /// Whether the sender is stopped.
    pub(crate) fn is_above(&self) -> bool {
        self.above
    }

    /// Notes that the buffer holds `waiting` bytes now.
    pub(crate) fn update(&mut self, waiting: usize) {
        let limit = if self.limit == 0 { usize::MAX } else { self.limit as usize };
        if !self.above && waiting > limit {
            self.above = true;
            self.pressure.backed_up = self.pressure.backed_up.saturating_add(1);
        } else if self.above && waiting <= limit / 2 {
            self.above = false;
            self.pressure.drained = self.pressure.drained.saturating_add(1);
        }
    }

    /// What happened since the last time.
    pub(crate) fn take_pressure(&mut self) -> Pressure {
        std::mem::take(&mut self.pressure)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sender_stops_above_the_limit_and_goes_on_at_half_of_it() {
        let mut marks = Watermarks::new(100);
        assert!(marks.has_room(0) && marks.has_room(100));
        assert!(marks.take_pressure().is_none());
        assert!(!marks.has_room(101) && !marks.has_room(51));
        assert_eq!(marks.take_pressure(), Pressure { backed_up: 1, drained: 0 });
        assert!(marks.has_room(50) && marks.has_room(51));
        assert_eq!(marks.take_pressure(), Pressure { backed_up: 0, drained: 1 });
        for waiting in [101, 0, 200, 10] {
            marks.update(waiting);
        }
        assert_eq!(marks.take_pressure(), Pressure { backed_up: 2, drained: 2 });
    }

    #[test]
    fn without_a_limit_nothing_stops() {
        let mut marks = Watermarks::new(0);
        assert!(marks.has_room(usize::MAX) && marks.take_pressure().is_none());
    }
}
