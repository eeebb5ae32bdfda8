//! What a run measured: delays as histograms that keep the tail, and their summary for people and
//! JSON.

use std::fmt;

use dataplane::seam::Mono;
use hdrhistogram::Histogram;
use serde::Serialize;

use crate::limits::LATENCY_US_MAX;

/// Delays in microseconds, three significant digits.
#[derive(Clone)]
pub(crate) struct Delays(Histogram<u64>);

impl Delays {
    pub(crate) fn new() -> Self {
        // The bounds are constants that hdrhistogram accepts: low 1, high over 2, three digits.
        Self(Histogram::new_with_bounds(1, LATENCY_US_MAX, 3).expect("constant bounds are valid"))
    }

    /// One delay, from when it was to begin until `now`.
    pub(crate) fn record(&mut self, from: Mono, now: Mono) {
        self.0.saturating_record(now.since_ns(from).div_ceil(1_000).max(1));
    }

    /// Adds all of another's.
    pub(crate) fn merge(&mut self, other: &Self) {
        // Same bounds everywhere, so adding cannot fail.
        self.0.add(&other.0).expect("histograms of one shape");
    }

    pub(crate) fn summary(&self) -> DelaySummary {
        let at = |quantile: f64| self.0.value_at_quantile(quantile);
        DelaySummary {
            count: self.0.len(),
            min_us: self.0.min(),
            mean_us: self.0.mean(),
            p50_us: at(0.5),
            p90_us: at(0.9),
            p99_us: at(0.99),
            p999_us: at(0.999),
            max_us: self.0.max(),
        }
    }
}

impl Delays {
    /// Share of the delays, and what they are at most, ever closer to the longest one.
    pub(crate) fn curve(&self) -> Vec<(f64, u64)> {
        if self.0.is_empty() {
            return Vec::new();
        }
        // Half as many are left above each further point.
        let steps = (0..CURVE_POINTS_MAX).map(|step| 1.0 - 0.5_f64.powf(f64::from(step) / 4.0));
        let points = steps.map(|share| (share, self.0.value_at_quantile(share)));
        let longest = self.0.max();
        let mut curve: Vec<(f64, u64)> = points.take_while(|(_, us)| *us < longest).collect();
        curve.push((1.0, longest));
        curve
    }
}

impl fmt::Debug for Delays {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "Delays({})", self.summary())
    }
}

/// Up to one in a hundred million.
const CURVE_POINTS_MAX: u32 = 107;

/// The points of a distribution of delays, in microseconds; all 0 if there were none.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub(crate) struct DelaySummary {
    /// How many delays.
    pub(crate) count: u64,
    /// Shortest.
    pub(crate) min_us: u64,
    /// Mean.
    pub(crate) mean_us: f64,
    /// Median.
    pub(crate) p50_us: u64,
    /// 90 % are at most this.
    pub(crate) p90_us: u64,
    /// 99 %.
    pub(crate) p99_us: u64,
    /// 99.9 %.
    pub(crate) p999_us: u64,
    /// Longest.
    pub(crate) max_us: u64,
}

impl fmt::Display for DelaySummary {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ms = |us: u64| us as f64 / 1e3;
        write!(
            out,
            "median {:.3} ms, 90 % {:.3}, 99 % {:.3}, 99.9 % {:.3}, longest {:.3} (of {})",
            ms(self.p50_us),
            ms(self.p90_us),
            ms(self.p99_us),
            ms(self.p999_us),
            ms(self.max_us),
            self.count
        )
    }
}

/// Lowest, middle and highest of repeated measurements.
#[derive(Clone, Copy, PartialEq, Debug, Serialize)]
pub(crate) struct Spread {
    /// Lowest.
    pub(crate) min: f64,
    /// Median; the mean of the middle two of an even count.
    pub(crate) median: f64,
    /// Highest.
    pub(crate) max: f64,
}

impl Spread {
    /// Of at least one value, none of them NaN.
    pub(crate) fn of(values: &[f64]) -> Option<Self> {
        let mut sorted = values.to_vec();
        sorted.sort_by(f64::total_cmp);
        let (first, last) = (*sorted.first()?, *sorted.last()?);
        let middle = sorted.len() / 2;
        let median = if sorted.len() % 2 == 1 {
            sorted[middle]
        } else {
            f64::midpoint(sorted[middle - 1], sorted[middle])
        };
        Some(Self { min: first, median, max: last })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_delay_is_rounded_up_and_never_zero() {
        let mut delays = Delays::new();
        delays.record(Mono(1_000), Mono(1_001));
        delays.record(Mono(1_000), Mono(1_000));
        delays.record(Mono(0), Mono(5_000_001));
        let summary = delays.summary();
        assert_eq!((summary.count, summary.min_us), (3, 1));
        assert!((5_001..=5_003).contains(&summary.max_us), "{summary:?}");
    }

    #[test]
    fn the_tail_survives_a_merge() {
        let (mut all, mut one) = (Delays::new(), Delays::new());
        for _ in 0..999 {
            all.record(Mono(0), Mono(100_000));
        }
        one.record(Mono(0), Mono(2_000_000_000));
        all.merge(&one);
        let summary = all.summary();
        assert_eq!((summary.count, summary.p99_us), (1_000, 100));
        assert!(summary.max_us >= 2_000_000);
    }

    #[test]
    fn a_spread_is_lowest_middle_highest() {
        let spread = Spread::of(&[3.0, 1.0, 2.0, 10.0]).expect("not empty");
        assert_eq!((spread.min, spread.median, spread.max), (1.0, 2.5, 10.0));
        assert_eq!(Spread::of(&[]), None);
    }
}
