//! Earliest-deadline-first scheduling: weighted round robin with the order of Envoy's `EdfScheduler`.

use std::cmp::Ordering;
use std::collections::{BinaryHeap, VecDeque};

/// Picks entries in proportion to their weights. An entry of weight `w` is due every `1/w`; equal deadlines go in the
/// order of insertion.
#[derive(Debug)]
pub struct EdfScheduler {
    now: f64,
    next_order: u64,
    queue: BinaryHeap<Entry>,
    /// Picks made ahead of their turn.
    peeked: VecDeque<usize>,
}

#[derive(Debug)]
struct Entry {
    deadline: f64,
    order: u64,
    index: usize,
}

impl EdfScheduler {
    /// A scheduler over the entries `0..weights.len()`; entries of weight 0 are never picked.
    pub fn new(weights: impl IntoIterator<Item = f64>) -> Self {
        let mut scheduler = Self::empty();
        for (index, weight) in weights.into_iter().enumerate() {
            if weight > 0.0 {
                scheduler.push(index, 1.0 / weight);
            }
        }
        scheduler
    }

    fn empty() -> Self {
        Self { now: 0.0, next_order: 0, queue: BinaryHeap::new(), peeked: VecDeque::new() }
    }

    /// The scheduler as it would be after `picks` picks, without making them one by one: workers start at different
    /// places so that they do not all open with the heaviest host.
    pub fn with_picks(weights: &[f64], picks: u32) -> Self {
        let total: f64 = weights.iter().sum();
        if picks == 0 || total <= 0.0 {
            return Self::new(weights.iter().copied());
        }
        let mut scheduler = Self::empty();
        let mut picked = 0u32;
        for (index, &weight) in weights.iter().enumerate().filter(|(_, weight)| **weight > 0.0) {
            // Every entry has been picked at least the floor of its share.
            let share = (weight * f64::from(picks) / total).floor();
            picked = picked.saturating_add(share as u32);
            scheduler.push(index, (share + 1.0) / weight);
            scheduler.now = scheduler.now.max(share / weight);
        }
        for _ in picked..picks {
            scheduler.pick(|index| weights[index]);
        }
        scheduler
    }

    /// The next entry, rescheduled with the weight that it has now. `None` when there are no entries.
    pub fn pick(&mut self, weight: impl FnOnce(usize) -> f64) -> Option<usize> {
        match self.peeked.pop_front() {
            None => self.take(weight),
            peeked => peeked,
        }
    }

    /// The entry of the pick after the next ones that were peeked at already. It has its turn now as far as weights go.
    pub fn peek(&mut self, weight: impl FnOnce(usize) -> f64) -> Option<usize> {
        let index = self.take(weight)?;
        self.peeked.push_back(index);
        Some(index)
    }

    fn take(&mut self, weight: impl FnOnce(usize) -> f64) -> Option<usize> {
        let Entry { deadline, index, .. } = self.queue.pop()?;
        self.now = self.now.max(deadline);
        let weight = weight(index);
        if weight > 0.0 {
            self.push(index, self.now + 1.0 / weight);
        }
        Some(index)
    }

    fn push(&mut self, index: usize, deadline: f64) {
        let order = self.next_order;
        self.next_order += 1;
        self.queue.push(Entry { deadline, order, index });
    }
}

// `BinaryHeap` yields the greatest element: the earliest deadline, then the earliest insertion, is the greatest.
impl Ord for Entry {
    fn cmp(&self, other: &Self) -> Ordering {
        other.deadline.total_cmp(&self.deadline).then(other.order.cmp(&self.order))
    }
}

impl PartialOrd for Entry {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Entry {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Entry {}

#[cfg(test)]
mod tests {
    use super::EdfScheduler;

    fn picks(scheduler: &mut EdfScheduler, weights: &[f64], count: usize) -> Vec<usize> {
        (0..count).filter_map(|_| scheduler.pick(|index| weights[index])).collect()
    }

    #[test]
    fn weights_one_two_three_interleave_by_deadline() {
        let weights = [1.0, 2.0, 3.0];
        let mut scheduler = EdfScheduler::new(weights);
        // Deadlines: 2 at 1/3, 1 at 1/2, 2 at 2/3, then 0, 1 and 2 at 1 in the order in which they were queued.
        assert_eq!(picks(&mut scheduler, &weights, 6), [2, 1, 2, 0, 1, 2]);
        let mut counts = [0; 3];
        picks(&mut scheduler, &weights, 600).into_iter().for_each(|index| counts[index] += 1);
        assert_eq!(counts, [100, 200, 300]);
    }

    #[test]
    fn equal_weights_go_round_in_order() {
        let weights = [1.0; 3];
        assert_eq!(picks(&mut EdfScheduler::new(weights), &weights, 7), [0, 1, 2, 0, 1, 2, 0]);
    }

    #[test]
    fn skipping_ahead_keeps_the_proportions() {
        let weights = [5.0, 1.0, 2.0];
        for skip in 0..40 {
            let mut counts = [0; 3];
            let mut scheduler = EdfScheduler::with_picks(&weights, skip);
            picks(&mut scheduler, &weights, 80).into_iter().for_each(|index| counts[index] += 1);
            let expected = [50i32, 10, 20];
            assert!(
                counts.iter().zip(expected).all(|(count, expected)| (count - expected).abs() <= 1),
                "after {skip}: {counts:?}"
            );
        }
    }

    #[test]
    fn a_weight_that_changes_takes_effect_at_the_next_turn() {
        let mut scheduler = EdfScheduler::new([1.0, 1.0]);
        let weights = [3.0, 1.0];
        let chosen = picks(&mut scheduler, &weights, 10);
        assert!(chosen[2..].iter().filter(|&&index| index == 0).count() >= 5, "{chosen:?}");
    }

    #[test]
    fn picks_are_those_that_were_peeked_at() {
        let weights = [1.0, 2.0, 3.0];
        let expected = picks(&mut EdfScheduler::new(weights), &weights, 6);
        let mut scheduler = EdfScheduler::new(weights);
        let peeked: Vec<usize> = (0..2).filter_map(|_| scheduler.peek(|index| weights[index])).collect();
        assert_eq!(peeked, expected[..2]);
        assert_eq!(picks(&mut scheduler, &weights, 6), expected);
    }

    #[test]
    fn weightless_and_absent_entries_are_never_picked() {
        let mut scheduler = EdfScheduler::new([0.0, 1.0]);
        assert_eq!(scheduler.pick(|_| 1.0), Some(1));
        assert_eq!(EdfScheduler::new([]).pick(|_| 1.0), None);
        assert_eq!(EdfScheduler::new([0.0]).pick(|_| 1.0), None);
    }
}
