//! The only clock of the edge: read by engines once a turn, an argument everywhere else.

use std::time::{Instant, SystemTime, UNIX_EPOCH};

use crate::seam::{Mono, Now};

/// A process's start of monotonic time, the same for all of its shards, so that a time in a mail
/// means the same to both.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    started: Instant,
}

impl Clock {
    /// Monotonic time starts now.
    #[expect(clippy::disallowed_methods, reason = "this is the clock")]
    pub fn start() -> Self {
        Self { started: Instant::now() }
    }

    /// Both clocks.
    #[expect(clippy::disallowed_methods, reason = "this is the clock")]
    pub fn now(&self) -> Now {
        let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Now { mono: self.mono(), wall_ms: u64::try_from(since_epoch.as_millis()).unwrap_or(0) }
    }

    /// Monotonic time.
    pub fn mono(&self) -> Mono {
        Mono(u64::try_from(self.started.elapsed().as_nanos()).unwrap_or(u64::MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn monotonic_time_never_goes_back() {
        let clock = Clock::start();
        let (first, second) = (clock.now(), clock.now());
        assert!(second.mono >= first.mono);
        assert!(first.wall_ms > 1_600_000_000_000);
    }
}
