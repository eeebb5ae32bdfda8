//! Cores: which this process may use, and pinning a thread to one.

use std::{io, mem};

/// The cores this process may use, in order. Never empty.
pub fn allowed_cores() -> Vec<usize> {
    let mut set = empty_set();
    // SAFETY: `set` is a valid cpu_set_t and its size is passed along; pid 0 is the calling thread.
    let outcome = unsafe { libc::sched_getaffinity(0, size_of_val(&set), &raw mut set) };
    let count = usize::try_from(libc::CPU_SETSIZE).unwrap_or(0);
    let cores: Vec<usize> = (0..count).filter(|&core| contains(&set, core)).collect();
    if outcome != 0 || cores.is_empty() { vec![0] } else { cores }
}

/// Keeps the calling thread on `core`.
///
/// # Errors
/// `InvalidInput` if this process may not use that core.
pub(crate) fn pin(core: usize) -> io::Result<()> {
    if core >= usize::try_from(libc::CPU_SETSIZE).unwrap_or(0) {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let mut set = empty_set();
    // SAFETY: `core` is below CPU_SETSIZE, checked above, so the bit lies within `set`.
    unsafe { libc::CPU_SET(core, &mut set) };
    // SAFETY: `set` is a valid cpu_set_t and its size is passed along; pid 0 is the calling thread.
    let outcome = unsafe { libc::sched_setaffinity(0, size_of_val(&set), &raw const set) };
    if outcome == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

fn empty_set() -> libc::cpu_set_t {
    // SAFETY: cpu_set_t is an array of integers, for which zero is a value (the empty set).
    unsafe { mem::zeroed() }
}

fn contains(set: &libc::cpu_set_t, core: usize) -> bool {
    // SAFETY: callers pass `core` below CPU_SETSIZE, so the bit lies within `set`.
    unsafe { libc::CPU_ISSET(core, set) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[expect(clippy::expect_used, reason = "test")]
    fn a_pinned_thread_may_use_only_its_core() {
        let core = allowed_cores()[0];
        let seen = std::thread::Builder::new()
            .spawn(move || pin(core).map(|()| allowed_cores()))
            .expect("thread")
            .join()
            .expect("no panic");
        assert_eq!(seen.expect("pinned"), vec![core]);
        assert!(pin(usize::MAX).is_err());
    }
}
