//! `envoy.retry_priorities.previous_priorities`: retries leave the priority levels that attempts went to before.

use std::sync::Arc;

use super::priority_load::{PriorityHealth, PriorityLoad};
use crate::host::Host;

/// The levels that one request has tried, and the shares of the levels that are left.
#[derive(Debug)]
pub struct PreviousPriorities {
    frequency: usize,
    attempted: Vec<Arc<Host>>,
    excluded: Vec<bool>,
    /// What was computed last; none before the first time.
    adjusted: Option<PriorityLoad>,
}

impl PreviousPriorities {
    /// No attempt was made yet. The shares change after every `frequency` attempts (`update_frequency`), which is at least 1.
    pub fn new(frequency: u32) -> Self {
        let frequency = frequency.max(1) as usize;
        Self { frequency, attempted: Vec::new(), excluded: Vec::new(), adjusted: None }
    }

    /// An attempt went to this host.
    pub fn on_attempt(&mut self, host: Arc<Host>) {
        self.attempted.push(host);
    }

    /// The level and class of hosts for one request. `original` are the shares without regard to attempts, `healths` what they
    /// were computed from, `level_of` finds the level of a host, `draw` is any random number.
    pub fn choose(
        &mut self,
        original: &PriorityLoad,
        healths: &[PriorityHealth],
        level_of: impl Fn(&Arc<Host>) -> Option<usize>,
        draw: u64,
    ) -> (usize, bool) {
        if self.attempted.len() < self.frequency {
            return original.choose(draw);
        }
        if self.attempted.len().is_multiple_of(self.frequency) {
            self.excluded.resize(healths.len(), false);
            for level in self.attempted.iter().filter_map(level_of) {
                if let Some(excluded) = self.excluded.get_mut(level) {
                    *excluded = true;
                }
            }
            let mut adjusted = PriorityLoad::of_available(healths, |level| !self.excluded[level]);
            if adjusted.is_none() {
                // No level is left: it starts over with all of them.
                self.excluded.fill(false);
                self.attempted.clear();
                adjusted = PriorityLoad::of_available(healths, |_| true);
            }
            let Some(adjusted) = adjusted else { return original.choose(draw) };
            self.adjusted = Some(adjusted);
        }
        self.adjusted.as_ref().unwrap_or(original).choose(draw)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use dhow_net::StreamAddress;

    use crate::host::HostSpec;

    fn level(healthy: u64) -> PriorityHealth {
        PriorityHealth { healthy, degraded: 0, counted: 1, total: 1, overprovisioning: 140 }
    }

    fn host(port: u16) -> Arc<Host> {
        Arc::new(Host::new(HostSpec::at(StreamAddress::Ip(([127, 0, 0, 1], port).into()))))
    }

    /// The levels that one request goes to, one attempt after the other; each level has one host.
    fn attempts(frequency: u32, healthy: &[u64], count: usize) -> Vec<usize> {
        let hosts: Vec<Arc<Host>> = (1..=healthy.len() as u16).map(host).collect();
        let healths: Vec<PriorityHealth> = healthy.iter().map(|&healthy| level(healthy)).collect();
        let original = PriorityLoad::compute(&healths, 0);
        let mut previous = PreviousPriorities::new(frequency);
        let level_of = |host: &Arc<Host>| hosts.iter().position(|other| Arc::ptr_eq(other, host));
        let step = |_| {
            let (level, degraded) = previous.choose(&original, &healths, level_of, 0);
            assert!(!degraded);
            previous.on_attempt(hosts[level].clone());
            level
        };
        (0..count).map(step).collect()
    }

    #[test]
    fn each_attempt_leaves_the_levels_tried_before_until_none_is_left() {
        assert_eq!(attempts(1, &[1, 1, 1], 7), [0, 1, 2, 0, 1, 2, 0]);
    }

    #[test]
    fn levels_are_left_after_as_many_attempts_as_configured() {
        assert_eq!(attempts(2, &[1, 1, 1], 6), [0, 0, 1, 1, 2, 2]);
        assert_eq!(attempts(0, &[1, 1], 2), [0, 1]);
    }

    #[test]
    fn levels_without_healthy_hosts_are_passed_over() {
        assert_eq!(attempts(1, &[1, 0, 1], 4), [0, 2, 0, 2]);
    }

    #[test]
    fn when_nothing_is_healthy_the_original_shares_stand() {
        assert_eq!(attempts(1, &[0, 0], 3), [0, 0, 0]);
    }
}
