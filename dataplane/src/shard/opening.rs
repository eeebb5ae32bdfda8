//! How many streams may open a second, and when those who may not come back.
//!
//! ```text
//!   a stream comes ──room in the bucket──▶ opens
//!                  └─else─▶ refused; its place in the queue of those who come back
//!                           is when the budget will have let in all who wait before it
//! ```
//! The bucket is one instant (GCRA, ITU-T I.371): when it would be full again. The queue is
//! another: when the last one who was refused was told to come. Both only grow with time, so
//! neither needs a timer, and a shard that takes nobody does nothing.
//!
//! Leaves to others: what a refused stream is sent (`stream`), the configured number (`config`).

use crate::{limits, seam::Mono};

/// What is configured of the pace of streams, for the whole process. 0 is no bound.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Rates {
    /// Streams that may open a second.
    pub opens_per_s: u32,
    /// Streams that are moved a second by a drain.
    pub drain_per_s: u32,
    /// Over which time streams are moved that another edge is preferred for now, ms.
    pub move_over_ms: u64,
}

/// A shard's share of streams per second, as the time between two of them; 0 is no bound.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Interval {
    /// Nanoseconds.
    pub ns: u64,
}

impl Interval {
    /// The share of each of `shards` in `per_s`, rounded so that all together never exceed it.
    pub fn share(per_s: u32, shards: u16) -> Self {
        let ns = match per_s {
            0 => 0,
            _ => (SECOND_NS * u64::from(shards.max(1))).div_ceil(per_s.into()),
        };
        Self { ns }
    }
}

/// The budget of one shard: in no second do more than its share, rounded up, open. A fiftieth of a
/// second's share may come at once, and what that adds to a second is taken from the pace.
#[derive(Clone, Copy, Debug, Default)]
pub struct Openings {
    /// Of the pace.
    interval: Interval,
    /// When the bucket would be full again.
    full_at: Mono,
    /// When the last of those who were refused was told to come back.
    queue_end: Mono,
}

impl Openings {
    /// With its share.
    pub fn new(share: Interval) -> Self {
        Self { interval: pace(share), ..Self::default() }
    }

    /// Another share, from now on.
    pub fn set(&mut self, share: Interval) {
        self.interval = pace(share);
    }

    /// Takes one stream in, if there is room.
    pub fn take(&mut self, now: Mono) -> bool {
        let ns = self.interval.ns;
        let depth_ns = BURST_NS.max(ns);
        let full_at = self.full_at.max(now).0 + ns;
        let taken = full_at <= now.0 + depth_ns;
        if taken {
            self.full_at = Mono(full_at);
        }
        taken
    }

    /// A stream was refused: how long those before it will take to come in, ms.
    pub fn queue(&mut self, now: Mono) -> u64 {
        // Beyond the longest wait they come in a second wave, refused anew where it must be.
        let longest = now.after_ms(limits::RETRY_MS_MAX);
        self.queue_end = Mono(self.queue_end.max(now).0 + self.interval.ns).min(longest);
        self.queue_end.since_ns(now) / 1_000_000
    }
}

/// Slower than the share by what may come at once: both together make the share of a second.
fn pace(share: Interval) -> Interval {
    Interval { ns: share.ns + (share.ns * BURST_NS).div_ceil(SECOND_NS) }
}

const SECOND_NS: u64 = 1_000_000_000;
/// Whose share may come at once: enough that uneven arrivals leave no room unused.
const BURST_NS: u64 = SECOND_NS / 50;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(ms: u64) -> Mono {
        Mono(0).after_ms(1000 + ms)
    }

    #[test]
    fn without_a_bound_everyone_comes_in() {
        let mut openings = Openings::new(Interval::share(0, 4));
        assert!((0..100_000).all(|_| openings.take(at(0))));
    }

    #[test]
    fn shares_of_all_shards_never_exceed_the_whole() {
        for (per_s, shards) in [(1, 1), (1, 7), (10, 3), (30_000, 122), (u32::MAX, 1)] {
            let ns = Interval::share(per_s, shards).ns;
            assert!(u128::from(ns) * u128::from(per_s) >= 1_000_000_000 * u128::from(shards));
        }
    }

    #[test]
    fn who_comes_back_at_the_told_time_finds_room() {
        let mut openings = Openings::new(Interval::share(10, 1));
        let mut back: Vec<u64> = Vec::new();
        for _ in 0..50 {
            if !openings.take(at(0)) {
                back.push(openings.queue(at(0)));
            }
        }
        assert_eq!((back.len(), back[0], back[48]), (49, 102, 4998));
        assert!(back.into_iter().all(|ms| openings.take(at(ms))));
    }

    #[test]
    fn nobody_is_told_to_wait_for_longer_than_the_longest_wait() {
        let mut openings = Openings::new(Interval::share(1, 4));
        let waits: Vec<u64> = (0..1000).map(|_| openings.queue(at(0))).collect();
        assert_eq!(waits.last(), Some(&limits::RETRY_MS_MAX));
    }

    proptest! {
        #[test]
        fn no_second_lets_more_in_than_its_share(
            per_s in 1u32..5_000,
            shards in 1u16..5,
            gaps_us in prop::collection::vec(0u64..100_000, 1..400),
            together in 1usize..100,
        ) {
            let interval = Interval::share(per_s, shards);
            let mut openings = Openings::new(interval);
            let (mut now, mut taken) = (at(0), Vec::new());
            for gap_us in gaps_us {
                now = Mono(now.0 + gap_us * 1_000);
                taken.extend((0..together).filter(|_| openings.take(now)).map(|_| now));
            }
            let share = SECOND_NS.div_ceil(interval.ns) as usize;
            for (first, start) in taken.iter().enumerate() {
                let within = taken[first..].iter().take_while(|at| at.since_ns(*start) < SECOND_NS);
                prop_assert!(within.count() <= share);
            }
        }
    }
}
