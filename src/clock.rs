//! The command line's only clock, and its only way to let time pass.

use std::time::{Duration, Instant};

/// Now, for deadlines and durations.
#[expect(clippy::disallowed_methods, reason = "this is the one place of the binary that reads it")]
pub(crate) fn now() -> Instant {
    Instant::now()
}

/// Lets time pass between two attempts or two looks.
#[expect(clippy::disallowed_methods, reason = "a verb has nothing else to do meanwhile")]
pub(crate) fn wait(pause: Duration) {
    std::thread::sleep(pause);
}
