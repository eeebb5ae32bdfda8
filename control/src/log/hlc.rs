//! The hybrid logical clock: wall time that never runs backward and never contradicts cause and
//! effect.
//!
//! Leaves to others: reading a clock (`crate::clock`), persisting the last value
//! (`store::sqlite::writer`, with every commit).

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::limits;

/// 48 bits of wall time in ms since the Unix epoch, 16 bits of counter within one ms. Ordered as a
/// number.
#[derive(
    Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Debug, Serialize, Deserialize,
)]
pub struct Hlc(pub u64);

impl Hlc {
    /// The wall part, ms since the Unix epoch.
    pub const fn ms(self) -> u64 {
        self.0 >> COUNTER_BITS
    }

    /// The smallest stamp of a millisecond.
    pub const fn from_ms(ms: u64) -> Self {
        Self(ms << COUNTER_BITS)
    }

    /// The stamp of the next local operation: after `self`, and not before the wall clock. A wall
    /// clock that was set back only makes the counter run; a full counter borrows from the next
    /// millisecond.
    #[must_use]
    pub const fn tick(self, now_ms: u64) -> Self {
        let wall = Self::from_ms(now_ms);
        if wall.0 > self.0 { wall } else { Self(self.0 + 1) }
    }

    /// The clock after seeing a remote stamp, or the refusal to let a wrong clock drag ours along.
    pub fn receive(self, now_ms: u64, remote: Self) -> Result<Self, Quarantine> {
        let ahead_ms = remote.ms().saturating_sub(now_ms);
        if ahead_ms > limits::REMOTE_AHEAD_MS_MAX {
            return Err(Quarantine { ahead_ms });
        }
        Ok(self.max(remote))
    }
}

impl fmt::Display for Hlc {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.ms(), self.0 & ((1 << COUNTER_BITS) - 1))
    }
}

/// A remote clock is too far ahead; its operations wait outside until ours has come near.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Quarantine {
    /// How far, ms.
    pub ahead_ms: u64,
}

impl fmt::Display for Quarantine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "a remote clock is {} ms ahead, more than the {} ms allowed",
            self.ahead_ms,
            limits::REMOTE_AHEAD_MS_MAX
        )
    }
}

impl std::error::Error for Quarantine {}

const COUNTER_BITS: u32 = 16;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stamp_is_later_than_every_stamp_before_it_even_when_the_clock_is_set_back() {
        let mut hlc = Hlc::default();
        for now_ms in [1_000, 1_000, 1_001, 500, 0, 1_002] {
            let next = hlc.tick(now_ms);
            assert!(next > hlc, "{next} after {hlc}");
            assert!(next.ms() >= now_ms);
            hlc = next;
        }
        assert_eq!(hlc.ms(), 1_002);
    }

    #[test]
    fn a_full_counter_borrows_from_the_next_millisecond() {
        let full = Hlc(Hlc::from_ms(8).0 - 1);
        assert_eq!(full.ms(), 7);
        assert_eq!(full.tick(7).ms(), 8);
    }

    #[test]
    fn a_remote_clock_more_than_500_ms_ahead_is_quarantined() {
        let local = Hlc::from_ms(10_000);
        assert_eq!(local.receive(10_000, Hlc::from_ms(10_500)), Ok(Hlc::from_ms(10_500)));
        assert_eq!(local.receive(10_000, Hlc::from_ms(10_501)), Err(Quarantine { ahead_ms: 501 }));
        assert_eq!(local.receive(10_000, Hlc::from_ms(3)), Ok(local), "never backward");
    }
}
