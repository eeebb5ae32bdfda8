//! File descriptors of the test's own process: each of its connections is one.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Raises the soft limit to the hard one; how many there may be.
pub fn raise() -> usize {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    let held =
        if setrlimit(Resource::Nofile, raised).is_ok() { limit.maximum } else { limit.current };
    held.map_or(usize::MAX, |held| usize::try_from(held).unwrap_or(usize::MAX))
}
