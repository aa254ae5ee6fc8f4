//! Random choices that depend on nothing but a seed.

use serde_json::{Map, Value};

/// A stream of random numbers (SplitMix64) and the choices that generators make with it.
#[derive(Debug, Clone)]
pub struct Dice {
    state: u64,
}

impl Dice {
    /// Dice whose throws follow from `seed` and `purpose`, so that what is thrown for one purpose does not shift another.
    pub fn new(seed: u64, purpose: &str) -> Self {
        let folded = purpose.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
        });
        let mut dice = Self { state: seed ^ folded };
        // Neighbouring seeds are mixed once, so that their first throws differ.
        dice.state = dice.next();
        dice
    }

    fn next(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.state ^ (self.state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `limit`, which is not 0.
    pub fn below(&mut self, limit: usize) -> usize {
        (self.next() % limit as u64) as usize
    }

    /// True in `percent` of 100 throws.
    pub fn chance(&mut self, percent: usize) -> bool {
        self.below(100) < percent
    }

    /// One of `choices`, which are not empty. A choice that is there twice comes twice as often.
    pub fn pick<T: Clone>(&mut self, choices: &[T]) -> T {
        choices[self.below(choices.len())].clone()
    }

    /// One element of a list; anything else as it is.
    pub fn of(&mut self, choices: Value) -> Value {
        match choices {
            Value::Array(mut choices) if !choices.is_empty() => {
                let index = self.below(choices.len());
                choices.swap_remove(index)
            }
            other => other,
        }
    }

    /// Brings `items` into a random order.
    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for index in (1..items.len()).rev() {
            items.swap(index, self.below(index + 1));
        }
    }

    /// `count` different ones of `items`, in random order.
    pub fn sample<T: Clone>(&mut self, items: &[T], count: usize) -> Vec<T> {
        let mut items = items.to_vec();
        self.shuffle(&mut items);
        items.truncate(count);
        items
    }

    /// In `percent` of 100 cases, gives `fields` a field with one of the listed `choices`.
    pub fn field(&mut self, percent: usize, fields: &mut Map<String, Value>, name: &str, choices: Value) {
        if self.chance(percent) {
            fields.insert(name.to_owned(), self.of(choices));
        }
    }

    /// In `percent` of 100 cases, gives `fields` a field that `make` makes.
    pub fn made(
        &mut self,
        percent: usize,
        fields: &mut Map<String, Value>,
        name: &str,
        make: impl FnOnce(&mut Self) -> Value,
    ) {
        if self.chance(percent) {
            let value = make(self);
            fields.insert(name.to_owned(), value);
        }
    }

    /// As many values from `make` as a throw among `counts` says.
    pub fn several(&mut self, counts: &[usize], mut make: impl FnMut(&mut Self) -> Value) -> Value {
        let count = self.pick(counts);
        Value::Array((0..count).map(|_| make(self)).collect())
    }
}

/// The fields of an object.
pub fn fields(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(fields) => fields,
        _ => Map::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_same_seed_and_purpose_throw_the_same() {
        let throws = |seed, purpose| {
            let mut dice = Dice::new(seed, purpose);
            (0..20).map(|_| dice.below(1000)).collect::<Vec<_>>()
        };
        assert_eq!(throws(7, "a"), throws(7, "a"));
        assert_ne!(throws(7, "a"), throws(8, "a"));
        assert_ne!(throws(7, "a"), throws(7, "b"));
    }

    #[test]
    fn shares_are_about_what_was_asked_for() {
        let mut dice = Dice::new(1, "shares");
        let hits = (0..10_000).filter(|_| dice.chance(30)).count();
        assert!((2_700..3_300).contains(&hits), "{hits}");
        let fives = (0..10_000).filter(|_| dice.of(json!([5, 6, 6, 6])) == json!(5)).count();
        assert!((2_200..2_800).contains(&fives), "{fives}");
    }

    #[test]
    fn a_sample_has_no_element_twice() {
        let mut dice = Dice::new(3, "sample");
        let mut sample = dice.sample(&[1, 2, 3, 4, 5], 4);
        sample.sort_unstable();
        sample.dedup();
        assert_eq!(sample.len(), 4);
    }
}
