//! Maxima of the command line and of the supervisor, and what happens when one is reached.

use std::time::Duration;

/// Attempts of one request to control. Beyond: the last failure is told.
pub(crate) const ATTEMPTS_MAX: u32 = 6;
/// Pause after the first failed attempt; doubles with each.
pub(crate) const ATTEMPT_PAUSE_FIRST: Duration = Duration::from_millis(100);
/// Longest pause between attempts, also when control asks for more by `Retry-After`.
pub(crate) const ATTEMPT_PAUSE_MAX: Duration = Duration::from_secs(5);
/// Time to connect to control.
pub(crate) const CONNECT_AFTER: Duration = Duration::from_secs(5);
/// Time for one request to control, from start to the end of its answer.
pub(crate) const REQUEST_AFTER: Duration = Duration::from_secs(20);
/// Bytes of one answer of control. Beyond: an error.
pub(crate) const ANSWER_BYTES_MAX: u64 = 64 << 20;
/// Items that a list verb reads in all, page by page. Beyond: it says that there are more.
pub(crate) const LIST_ITEMS_MAX: usize = 10_000;
/// Bytes of a file that holds an API key.
pub(crate) const KEY_FILE_BYTES_MAX: u64 = 4_096;

/// Time between two looks at whether something is ready or complete.
pub(crate) const LOOK_EVERY: Duration = Duration::from_millis(20);
