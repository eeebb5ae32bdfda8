//! Which of many paths a request asks for: Zipf-distributed, drawn from a seed.
//!
//! Pure. The table of cumulative weights is built once; a draw is one binary search.

/// Draws indices `0..count`, index 0 most often.
#[derive(Clone, Debug)]
pub(crate) struct Popularity {
    /// `cumulative[i]` = weight of indices `0..=i`; increasing, the last one is the total.
    cumulative: Vec<f64>,
    random: Random,
}

impl Popularity {
    /// Weight of index `i` is `1 / (i + 1)^exponent`; exponent 0 is uniform. `count` is at least 1.
    pub(crate) fn zipf(count: u32, exponent: f64, seed: u64) -> Self {
        assert!(count > 0, "something to choose from");
        let mut total = 0.0;
        let cumulative = (1..=count)
            .map(|rank| {
                total += f64::from(rank).powf(-exponent);
                total
            })
            .collect();
        Self { cumulative, random: Random::new(seed) }
    }

    /// The next index.
    pub(crate) fn draw(&mut self) -> u32 {
        let last = self.cumulative.len() - 1;
        if last == 0 {
            return 0;
        }
        let point = self.random.unit() * self.cumulative[last];
        self.cumulative.partition_point(|&weight| weight <= point).min(last) as u32
    }
}

/// A small generator of pseudo-random numbers (splitmix64); the same seed gives the same numbers.
#[derive(Clone, Debug)]
pub(crate) struct Random(u64);

impl Random {
    pub(crate) const fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next 64 bits.
    pub(crate) const fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(STEP);
        mix(self.0)
    }

    /// The next number in `0.0..1.0`.
    pub(crate) fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1_u64 << 53) as f64
    }
}

/// The finalizer of splitmix64: every input bit reaches every output bit.
pub(crate) const fn mix(value: u64) -> u64 {
    let value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}

/// 2^64 divided by the golden ratio, as in splitmix64.
const STEP: u64 = 0x9e37_79b9_7f4a_7c15;

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(exponent: f64) -> Vec<u32> {
        let mut popularity = Popularity::zipf(4, exponent, 7);
        let mut counts = vec![0; 4];
        for _ in 0..100_000 {
            counts[popularity.draw() as usize] += 1;
        }
        counts
    }

    #[test]
    fn zipf_one_halves_the_second() {
        // 1 + 1/2 + 1/3 + 1/4 = 25/12: shares 0.48, 0.24, 0.16, 0.12.
        let counts = counts(1.0);
        for (count, share) in counts.iter().zip([0.48, 0.24, 0.16, 0.12]) {
            assert!((f64::from(*count) / 1e5 - share).abs() < 0.01, "{counts:?}");
        }
    }

    #[test]
    fn exponent_zero_is_uniform() {
        let counts = counts(0.0);
        assert!(counts.iter().all(|&count| (24_000..26_000).contains(&count)), "{counts:?}");
    }

    #[test]
    fn the_same_seed_draws_the_same() {
        let draw = |seed| {
            let mut popularity = Popularity::zipf(1_000, 1.0, seed);
            (0..50).map(|_| popularity.draw()).collect::<Vec<_>>()
        };
        assert_eq!(draw(3), draw(3));
        assert_ne!(draw(3), draw(4));
    }
}
