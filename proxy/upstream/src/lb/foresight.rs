//! Choices that are foreseen: who is asked now for the host of a later request decides it, and the request keeps to that.

use std::collections::VecDeque;
use std::sync::Arc;

use dhow_base::Rng;

use super::host_sets::PrioritySet;
use super::policy::{LbConfig, LbPolicy};
use super::selection::{Cursors, Outcome, Pick, choose_by_turn};
use crate::host::Host;

/// What was decided for choices to come.
#[derive(Debug, Default)]
pub(super) struct Foreseen {
    /// Random numbers that were drawn for them, the next one first.
    draws: VecDeque<u64>,
    /// How far peeks went ahead of the rounds.
    ahead: u64,
}

/// One choice, made or only foreseen.
pub(super) struct Turn<'a> {
    foreseen: &'a mut Foreseen,
    pub(super) draw: u64,
    pub(super) peeks: bool,
}

impl Foreseen {
    /// A choice that is made now, with the number that was drawn for it.
    pub(super) fn now(&mut self, rng: &mut Rng) -> Turn<'_> {
        let draw = self.draws.pop_front().unwrap_or_else(|| rng.next_u64());
        Turn { foreseen: self, draw, peeks: false }
    }

    /// A choice that is foreseen.
    fn later(&mut self, rng: &mut Rng) -> Turn<'_> {
        let draw = rng.next_u64();
        self.draws.push_back(draw);
        Turn { foreseen: self, draw, peeks: true }
    }
}

impl Turn<'_> {
    /// The place in a round that stands at `next`, which goes on if the choice is made now.
    pub(super) fn place(&mut self, next: &mut u64) -> u64 {
        let place = *next;
        if self.peeks {
            self.foreseen.ahead += 1;
            return place.wrapping_add(self.foreseen.ahead - 1);
        }
        self.foreseen.ahead = self.foreseen.ahead.saturating_sub(1);
        *next = place.wrapping_add(1);
        place
    }
}

impl Cursors {
    /// The host of the next request but those that were foreseen already; `None` where the policy cannot tell, and when as many
    /// requests were foreseen as there are healthy hosts.
    pub fn peek(
        &mut self,
        config: &LbConfig,
        hosts: &PrioritySet,
        rng: &mut Rng,
        pick: Pick<'_>,
    ) -> (Option<Arc<Host>>, Outcome) {
        let tells = !matches!(config.policy, LbPolicy::Consistent(_) | LbPolicy::ClusterProvided);
        let healthy = || hosts.levels().iter().map(|level| level.healthy.len()).sum::<usize>();
        if !tells || hosts.subsets.is_some() || self.foreseen.draws.len() >= healthy() {
            return (None, Outcome::default());
        }
        let turn = self.foreseen.later(rng);
        choose_by_turn(&mut self.levels, config, hosts, rng, pick, turn)
    }
}
