//! The edge of control's effects: the only wall clock and the only source of randomness.
//!
//! Everything inside (`model`, `log`, `app`) takes both as arguments; `api` and `reconcile` read
//! them here once a request.

use std::time::{SystemTime, UNIX_EPOCH};

/// Wall time, ms since the Unix epoch; 0 before it.
#[expect(clippy::disallowed_methods, reason = "this is the one place that reads it")]
pub fn wall_ms() -> u64 {
    let elapsed = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX)
}

/// Random bytes of the kernel.
///
/// # Panics
/// When the kernel has no random numbers to give, which no caller could handle.
pub fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).expect("the kernel gives random bytes");
    bytes
}

/// RFC 3339 in UTC with milliseconds.
pub fn rfc3339(ms: u64) -> String {
    let ms = i64::try_from(ms).unwrap_or(i64::MAX);
    let at = jiff::Timestamp::from_millisecond(ms).unwrap_or(jiff::Timestamp::MAX);
    format!("{at:.3}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_rfc_3339_with_milliseconds() {
        assert_eq!(rfc3339(0), "1970-01-01T00:00:00.000Z");
        assert_eq!(rfc3339(1_700_000_000_123), "2023-11-14T22:13:20.123Z");
        assert!(rfc3339(wall_ms()).starts_with("20"));
    }
}
