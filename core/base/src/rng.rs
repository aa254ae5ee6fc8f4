//! A small fast pseudo-random generator.

/// xoshiro256++ seeded by SplitMix64: load-balancer choices, jitter, sampling, request ids.
///
/// Each worker owns one, so that drawing needs no lock. The sequence is fully determined by the seed, which tests print.
/// It is not suitable for keys or anything an attacker must not predict.
#[derive(Clone, Debug)]
pub struct Rng {
    state: [u64; 4],
}

impl Rng {
    /// A generator whose sequence depends on `seed` alone.
    pub fn seeded(seed: u64) -> Self {
        let mut mixer = seed;
        Self { state: std::array::from_fn(|_| split_mix(&mut mixer)) }
    }

    /// A generator that differs from process to process and from call to call.
    pub fn from_entropy() -> Self {
        use std::hash::{BuildHasher, RandomState};
        // The standard library seeds each hasher from the operating system and steps it per instance.
        Self::seeded(RandomState::new().hash_one(0x6468_6f77_u64))
    }

    /// 64 uniformly distributed bits.
    #[inline]
    pub fn next_u64(&mut self) -> u64 {
        let s = &mut self.state;
        let result = s[0].wrapping_add(s[3]).rotate_left(23).wrapping_add(s[0]);
        let shifted = s[1] << 17;
        s[2] ^= s[0];
        s[3] ^= s[1];
        s[1] ^= s[2];
        s[0] ^= s[3];
        s[2] ^= shifted;
        s[3] = s[3].rotate_left(45);
        result
    }

    /// 32 uniformly distributed bits.
    #[inline]
    pub fn next_u32(&mut self) -> u32 {
        (self.next_u64() >> 32) as u32
    }

    /// A number in `0..bound`; 0 when `bound` is 0. The bias is below 2^-32 for bounds that fit 32 bits.
    #[inline]
    pub fn below(&mut self, bound: u64) -> u64 {
        ((u128::from(self.next_u64()) * u128::from(bound)) >> 64) as u64
    }

    /// An index into a slice of `length` elements; 0 when it is empty.
    #[inline]
    pub fn index(&mut self, length: usize) -> usize {
        self.below(length as u64) as usize
    }

    /// A number in `0.0..1.0`.
    #[inline]
    pub fn unit(&mut self) -> f64 {
        (self.next_u64() >> 11) as f64 * (1.0 / (1u64 << 53) as f64)
    }

    /// True with the probability `numerator / denominator`, as Envoy evaluates a `FractionalPercent`.
    #[inline]
    pub fn chance(&mut self, numerator: u64, denominator: u64) -> bool {
        numerator > 0 && self.below(denominator) < numerator
    }
}

fn split_mix(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut mixed = *state;
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

#[cfg(test)]
mod tests {
    use super::Rng;

    #[test]
    fn split_mix_gives_the_published_first_value_for_seed_zero() {
        let mut state = 0;
        assert_eq!(super::split_mix(&mut state), 0xe220_a839_7b1d_cdaf);
    }

    #[test]
    fn the_seed_determines_the_sequence() {
        let draw = |seed| {
            let mut rng = Rng::seeded(seed);
            [rng.next_u64(), rng.next_u64(), rng.next_u64()]
        };
        assert_eq!(draw(7), draw(7));
        assert_ne!(draw(7), draw(8));
    }

    #[test]
    fn bounded_draws_are_in_range_and_roughly_uniform() {
        let mut rng = Rng::seeded(1);
        let mut counts = [0u32; 7];
        for _ in 0..70_000 {
            counts[rng.index(7)] += 1;
        }
        assert!(counts.iter().all(|&count| (9_500..10_500).contains(&count)), "{counts:?}");
        assert_eq!(rng.below(0), 0);
        assert_eq!(rng.below(1), 0);
    }

    #[test]
    fn unit_draws_stay_below_one_and_average_a_half() {
        let mut rng = Rng::seeded(2);
        let draws: Vec<f64> = (0..10_000).map(|_| rng.unit()).collect();
        assert!(draws.iter().all(|draw| (0.0..1.0).contains(draw)));
        let mean = draws.iter().sum::<f64>() / draws.len() as f64;
        assert!((0.48..0.52).contains(&mean), "{mean}");
    }

    #[test]
    fn chance_of_zero_never_and_of_one_always_happens() {
        let mut rng = Rng::seeded(3);
        assert!((0..1000).all(|_| !rng.chance(0, 100)));
        assert!((0..1000).all(|_| rng.chance(100, 100)));
    }
}
