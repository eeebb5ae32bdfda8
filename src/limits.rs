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

/// Lines of a role's log that wait for stderr. Beyond: dropped, and how many is told.
pub(crate) const LOG_LINES_MAX: usize = 4_096;
/// Time that a role's end gives its last lines.
pub(crate) const LOG_FLUSH_AFTER: Duration = Duration::from_secs(1);
/// Time that a taken address is given to become free, for whoever is just ending.
pub(crate) const PORT_FREE_AFTER: Duration = Duration::from_secs(1);
/// Time that `up` gives a role to become ready. Beyond: it stops everything and says so.
pub(crate) const READY_AFTER: Duration = Duration::from_secs(30);
/// Time between two looks at whether something is ready or complete.
pub(crate) const LOOK_EVERY: Duration = Duration::from_millis(20);
/// Time for one look at a role's health.
pub(crate) const LOOK_AFTER: Duration = Duration::from_secs(2);
/// Time that `up` gives a role to end after SIGTERM. Beyond: SIGKILL.
pub(crate) const STOP_AFTER: Duration = Duration::from_secs(40);
/// Pause before a crashed role is started again; doubles with each crash.
pub(crate) const RESTART_PAUSE_FIRST: Duration = Duration::from_millis(200);
/// Longest pause before a crashed role is started again.
pub(crate) const RESTART_PAUSE_MAX: Duration = Duration::from_secs(10);
/// A role that ran this long has proven itself: the next crash counts as its first.
pub(crate) const RESTART_FORGIVEN_AFTER: Duration = Duration::from_secs(30);
