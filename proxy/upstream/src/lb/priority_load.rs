//! How much of the traffic each priority level gets: Envoy's integer arithmetic on percentages.

use dhow_runtime_config::RuntimeValues;

/// `healthy_panic_threshold` in percent, unless the key `upstream.healthy_panic_threshold` says otherwise.
pub(crate) fn panic_threshold(configured: u32, runtime: &dyn RuntimeValues) -> u32 {
    let threshold = runtime.number("upstream.healthy_panic_threshold");
    threshold.map_or(configured, |percent| percent.min(100) as u32)
}

/// What the arithmetic needs to know about one priority level. The figures are numbers of hosts, or sums of weights
/// under `weighted_priority_health`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PriorityHealth {
    /// Healthy hosts.
    pub healthy: u64,
    /// Degraded hosts.
    pub degraded: u64,
    /// All hosts that count, that is without the excluded ones.
    pub counted: u64,
    /// All hosts, excluded ones included.
    pub total: u64,
    /// `overprovisioning_factor` in percent; 140 unless configured.
    pub overprovisioning: u32,
}

/// The outcome: percentages per priority level that add up to 100, and which levels are in panic.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PriorityLoad {
    /// Percent of the traffic for the healthy hosts of each level.
    pub healthy: Vec<u32>,
    /// Percent of the traffic for the degraded hosts of each level.
    pub degraded: Vec<u32>,
    /// Levels whose hosts are all used, healthy or not.
    pub panic: Vec<bool>,
}

impl PriorityLoad {
    /// Distributes the traffic over `levels`. `panic_threshold` is `healthy_panic_threshold` in percent; 0 turns panic
    /// off.
    pub fn compute(levels: &[PriorityHealth], panic_threshold: u32) -> Self {
        let healthy: Vec<u32> = levels.iter().map(|level| level.availability(level.healthy)).collect();
        let degraded: Vec<u32> = levels.iter().map(|level| level.availability(level.degraded)).collect();
        let available =
            healthy.iter().chain(&degraded).map(|&percent| u64::from(percent)).sum::<u64>().min(100) as u32;
        let mut load = Self::spill(&healthy, &degraded, available);
        if panic_threshold == 0 && available == 0 {
            return load;
        }
        load.panic = levels.iter().map(|level| available != 100 && level.panics(panic_threshold)).collect();
        if !levels.is_empty() && load.panic.iter().all(|&panic| panic) {
            load.spread_by_hosts(levels);
        }
        load
    }

    /// The level and class of hosts for one request; `draw` is any random number.
    pub fn choose(&self, draw: u64) -> (usize, bool) {
        let point = (draw % 100) as u32 + 1;
        let mut reached = 0;
        for (degraded, loads) in [(false, &self.healthy), (true, &self.degraded)] {
            for (level, load) in loads.iter().enumerate() {
                reached += load;
                if point <= reached {
                    return (level, degraded);
                }
            }
        }
        (0, false)
    }

    /// The shares when only some levels may be used; `None` when none of those has a host to offer.
    pub(super) fn of_available(levels: &[PriorityHealth], usable: impl Fn(usize) -> bool) -> Option<Self> {
        let of = |hosts: fn(&PriorityHealth) -> u64| -> Vec<u32> {
            let share = |(at, level): (usize, &PriorityHealth)| match usable(at) {
                true => level.availability(hosts(level)),
                false => 0,
            };
            levels.iter().enumerate().map(share).collect()
        };
        let (healthy, degraded) = (of(|level| level.healthy), of(|level| level.degraded));
        let available =
            healthy.iter().chain(&degraded).map(|&percent| u64::from(percent)).sum::<u64>().min(100) as u32;
        (available > 0).then(|| Self::spill(&healthy, &degraded, available))
    }

    fn spill(healthy: &[u32], degraded: &[u32], available: u32) -> Self {
        let levels = healthy.len();
        let mut load =
            Self { healthy: vec![0; levels], degraded: vec![0; levels], panic: vec![false; levels] };
        if available == 0 {
            if let Some(first) = load.healthy.first_mut() {
                *first = 100;
            }
            return load;
        }
        let remaining = distribute(&mut load.healthy, healthy, 100, available);
        let remaining = distribute(&mut load.degraded, degraded, remaining, available);
        // What is left comes from rounding; the first level that can take traffic gets it.
        let first = |levels: &[u32]| levels.iter().position(|&percent| percent > 0);
        match (first(healthy), first(degraded)) {
            (Some(level), _) => load.healthy[level] += remaining,
            (None, Some(level)) => load.degraded[level] += remaining,
            (None, None) => {}
        }
        load
    }

    /// Every level is in panic: health says nothing any more, so the number of hosts decides.
    fn spread_by_hosts(&mut self, levels: &[PriorityHealth]) {
        let total: u64 = levels.iter().map(|level| level.total).sum();
        self.degraded.fill(0);
        self.healthy.fill(0);
        if total == 0 {
            self.healthy[0] = 100;
            return;
        }
        let mut remaining = 100;
        for (load, level) in self.healthy.iter_mut().zip(levels) {
            *load = (100 * level.total / total) as u32;
            remaining -= *load;
        }
        if let Some(first) = levels.iter().position(|level| level.total > 0) {
            self.healthy[first] += remaining;
        }
    }
}

impl PriorityHealth {
    fn availability(&self, hosts: u64) -> u32 {
        match (u64::from(self.overprovisioning) * hosts).checked_div(self.counted) {
            Some(percent) => percent.min(100) as u32,
            None => 0,
        }
    }

    fn panics(&self, threshold: u32) -> bool {
        let usable = self.healthy + self.degraded;
        let percent = if self.counted == 0 { 0.0 } else { 100.0 * usable as f64 / self.counted as f64 };
        percent < f64::from(threshold.min(100))
    }
}

fn distribute(loads: &mut [u32], availability: &[u32], mut total: u32, available: u32) -> u32 {
    for (load, percent) in loads.iter_mut().zip(availability) {
        *load = total.min(percent * 100 / available);
        total -= *load;
    }
    total
}

#[cfg(test)]
mod tests {
    use super::{PriorityHealth, PriorityLoad};

    fn level(healthy: u64, degraded: u64, total: u64) -> PriorityHealth {
        PriorityHealth { healthy, degraded, counted: total, total, overprovisioning: 140 }
    }

    fn loads(levels: &[PriorityHealth]) -> (Vec<u32>, Vec<u32>, Vec<bool>) {
        let PriorityLoad { healthy, degraded, panic } = PriorityLoad::compute(levels, 50);
        (healthy, degraded, panic)
    }

    /// Rows of the tables in Envoy's documentation on priority levels.
    #[test]
    fn two_levels_spill_as_documented() {
        for (p0, p1, expected) in [
            (100, 100, [100, 0]),
            (72, 100, [100, 0]),
            (71, 100, [99, 1]),
            (50, 100, [70, 30]),
            (25, 100, [35, 65]),
            (0, 100, [0, 100]),
        ] {
            let (healthy, ..) = loads(&[level(p0, 0, 100), level(p1, 0, 100)]);
            assert_eq!(healthy, expected, "{p0} % and {p1} % healthy");
        }
    }

    #[test]
    fn insufficient_levels_are_scaled_up_to_a_hundred() {
        // 35 + 35 available, so both are multiplied by 100/70; both are under the panic threshold, which then counts hosts.
        let levels = [level(25, 0, 100), level(25, 0, 100)];
        let load = PriorityLoad::compute(&levels, 0);
        assert_eq!((load.healthy, load.panic), (vec![50, 50], vec![false, false]));
        let (healthy, _, panic) = loads(&levels);
        assert_eq!((healthy, panic), (vec![50, 50], vec![true, true]));
    }

    #[test]
    fn degraded_hosts_get_what_healthy_ones_cannot_take() {
        let (healthy, degraded, panic) = loads(&[level(25, 25, 100), level(0, 100, 100)]);
        assert_eq!((healthy, degraded, panic), (vec![35, 0], vec![35, 30], vec![false, false]));
    }

    #[test]
    fn rounding_goes_to_the_first_level() {
        let levels = [level(1, 0, 7), level(1, 0, 7), level(1, 0, 7)];
        let load = PriorityLoad::compute(&levels, 0);
        assert_eq!(load.healthy, [34, 33, 33]);
    }

    #[test]
    fn one_level_panics_while_another_does_not() {
        // 28 % and 84 % available give 100 %, so nobody panics; with 28 % and 56 % the first does.
        let (.., panic) = loads(&[level(20, 0, 100), level(60, 0, 100)]);
        assert_eq!(panic, [false, false]);
        let (healthy, _, panic) = loads(&[level(20, 0, 100), level(50, 0, 100)]);
        assert_eq!(panic, [true, false]);
        assert_eq!(healthy.iter().sum::<u32>(), 100);
    }

    #[test]
    fn no_hosts_at_all_leave_everything_on_the_first_level() {
        assert_eq!(loads(&[level(0, 0, 0)]), (vec![100], vec![0], vec![true]));
        let load = PriorityLoad::compute(&[level(0, 0, 4), level(0, 0, 4)], 0);
        assert_eq!((load.healthy, load.panic), (vec![100, 0], vec![false, false]));
    }

    #[test]
    fn total_panic_counts_hosts() {
        let (healthy, degraded, panic) = loads(&[level(0, 0, 3), level(0, 0, 0), level(0, 0, 1)]);
        assert_eq!((healthy, degraded, panic), (vec![75, 0, 25], vec![0; 3], vec![true; 3]));
    }

    #[test]
    fn a_draw_maps_to_the_level_whose_share_it_falls_in() {
        let load = PriorityLoad { healthy: vec![70, 20], degraded: vec![10, 0], panic: vec![false; 2] };
        assert_eq!(load.choose(0), (0, false));
        assert_eq!(load.choose(69), (0, false));
        assert_eq!(load.choose(70), (1, false));
        assert_eq!(load.choose(89), (1, false));
        assert_eq!(load.choose(90), (0, true));
        assert_eq!(load.choose(199), (0, true));
    }
}
