//! The real clock of the threads that start, watch and stop a run. Actors never see it: their time
//! is an argument.

use std::time::{Duration, Instant};

/// Reads the clock.
pub(crate) fn now() -> Instant {
    #[expect(clippy::disallowed_methods, reason = "bench's own threads watch real processes")]
    Instant::now()
}

/// Does nothing for a while. Only for waits whose length is the point (a warm-up, the pace of a
/// look); what waits for a condition calls [`wait_for`].
pub(crate) fn pause(duration: Duration) {
    #[expect(clippy::disallowed_methods, reason = "bench's own threads watch real processes")]
    std::thread::sleep(duration);
}

/// Looks every `every` until `condition` holds; whether it did within `at_most`.
pub(crate) fn wait_for(
    every: Duration,
    at_most: Duration,
    mut condition: impl FnMut() -> bool,
) -> bool {
    let begin = now();
    loop {
        if condition() {
            return true;
        }
        if begin.elapsed() >= at_most {
            return false;
        }
        pause(every);
    }
}
