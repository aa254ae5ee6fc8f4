//! A driver that needs neither a special compiler nor coverage: inputs from a seed, by grammar and by damage.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

use dhow_base::Rng;

use crate::input::mutate;
use crate::targets::Target;

/// Longest input.
const LONGEST: usize = 4096;

/// Inputs kept to be damaged further.
const KEPT: usize = 64;

/// When to stop.
#[derive(Debug, Clone, Copy)]
pub enum Limit {
    /// After so many inputs.
    Inputs(u64),
    /// After so long.
    Time(Duration),
}

/// What came of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// Inputs tried.
    pub inputs: u64,
    /// The input for which a property did not hold.
    pub failing: Option<Vec<u8>>,
}

/// Feeds `target` until the limit, or until a property does not hold; what that was is on standard error then.
pub fn drive(target: &Target, seed: u64, limit: Limit) -> Outcome {
    let start = Instant::now();
    let mut rng = Rng::seeded(seed);
    let mut kept: Vec<Vec<u8>> = Vec::new();
    let mut inputs = 0;
    loop {
        let over = match limit {
            Limit::Inputs(most) => inputs >= most,
            Limit::Time(most) => start.elapsed() >= most,
        };
        if over {
            return Outcome { inputs, failing: None };
        }
        inputs += 1;
        let input = next(target, &mut rng, &mut kept);
        if catch_unwind(AssertUnwindSafe(|| (target.run)(&input))).is_err() {
            return Outcome { inputs, failing: Some(input) };
        }
    }
}

/// `count` inputs for a start.
pub fn generate(target: &Target, seed: u64, count: usize) -> Vec<Vec<u8>> {
    let mut rng = Rng::seeded(seed);
    (0..count).map(|_| (target.generate)(&mut rng)).collect()
}

fn next(target: &Target, rng: &mut Rng, kept: &mut Vec<Vec<u8>>) -> Vec<u8> {
    let mut input = match kept.is_empty() || rng.chance(1, 2) {
        true => (target.generate)(rng),
        false => {
            let mut old = kept[rng.index(kept.len())].clone();
            mutate(rng, &mut old, &[]);
            old
        }
    };
    input.truncate(LONGEST);
    if kept.len() < KEPT {
        kept.push(input.clone());
    } else {
        let at = rng.index(KEPT);
        kept[at].clone_from(&input);
    }
    input
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_property_that_does_not_hold_is_found_again_with_its_seed() {
        let target = Target {
            name: "example",
            about: "no input holds the byte 7",
            run: |bytes| assert!(!bytes.contains(&7), "found"),
            generate: |rng| crate::input::noise(rng, 20),
        };
        let first = drive(&target, 3, Limit::Inputs(10_000));
        assert!(first.failing.as_ref().unwrap().contains(&7));
        assert_eq!(first, drive(&target, 3, Limit::Inputs(10_000)));
    }
}
