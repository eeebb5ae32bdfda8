//! Intended starts: when each request of an open-loop run is due, whatever the server does.
//!
//! A delay counted from here has no coordinated omission: a server that stalls is charged for all
//! requests that should have begun meanwhile. Pure; the time is an argument.

use dataplane::seam::Mono;

/// Evenly spaced starts at a fixed rate.
#[derive(Clone, Debug)]
pub(crate) struct Schedule {
    begin: Mono,
    rate: f64,
    next: u64,
}

impl Schedule {
    /// `rate` requests a second from `begin` on; `rate` is positive and finite.
    pub(crate) fn new(begin: Mono, rate: f64) -> Self {
        assert!(rate.is_finite() && rate > 0.0, "a rate is positive");
        Self { begin, rate, next: 0 }
    }

    /// When the next request is due.
    pub(crate) fn next_at(&self) -> Mono {
        // Computed from the index, never by adding up steps: rounding does not drift.
        let offset_ns = self.next as f64 * 1e9 / self.rate;
        Mono(self.begin.0.saturating_add(offset_ns as u64))
    }

    /// Takes the next request if it is due by `now`.
    pub(crate) fn take_due(&mut self, now: Mono) -> Option<Mono> {
        let at = self.next_at();
        (at <= now).then(|| {
            self.next += 1;
            at
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_that_fell_due_during_a_stall_keep_their_own_starts() {
        let mut schedule = Schedule::new(Mono(1_000), 1_000_000.0);
        let now = Mono(1_000 + 3_500);
        let taken: Vec<u64> =
            std::iter::from_fn(|| schedule.take_due(now)).map(|at| at.0).collect();
        assert_eq!(taken, [1_000, 2_000, 3_000, 4_000]);
        assert_eq!(schedule.next_at(), Mono(5_000));
    }

    #[test]
    fn an_uneven_rate_does_not_drift() {
        let mut schedule = Schedule::new(Mono(0), 3.0);
        let end = Mono(1_000_000_000_000);
        let count = std::iter::from_fn(|| schedule.take_due(end)).count();
        assert_eq!(count, 3_001);
    }
}
