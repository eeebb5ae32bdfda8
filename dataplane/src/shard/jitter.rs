//! Seeded randomness for what must not happen at once everywhere: reconnects, back-off, pacing.
//!
//! Not for secrets. The generator is SplitMix64 (Steele, Lea, Flood: "Fast splittable pseudorandom
//! number generators", OOPSLA 2014): one word of state, and every seed is a good one.

/// A stream of numbers that its seed fixes.
#[derive(Clone, Debug)]
pub struct Jitter(u64);

impl Jitter {
    /// From the shard's seed and a number that tells this use of it from others.
    pub fn new(seed: u64, purpose: u64) -> Self {
        Self(seed ^ purpose.wrapping_mul(0xd6e8_feb8_6659_fd93))
    }

    /// The next number.
    pub fn next_u64(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Between half and one and a half times `middle`, evenly.
    pub fn half_to_three_halves(&mut self, middle: u64) -> u64 {
        let half = middle / 2;
        half + self.next_u64() % (middle.max(1) + 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_lie_within_half_of_the_middle_and_spread() {
        let mut jitter = Jitter::new(7, 1);
        let values: Vec<u64> = (0..1000).map(|_| jitter.half_to_three_halves(2000)).collect();
        assert!(values.iter().all(|value| (1000..=3000).contains(value)));
        let mean = values.iter().sum::<u64>() / 1000;
        assert!((1900..2100).contains(&mean), "{mean}");
    }

    #[test]
    fn purposes_of_one_seed_draw_different_numbers() {
        assert_ne!(Jitter::new(7, 1).next_u64(), Jitter::new(7, 2).next_u64());
    }
}
