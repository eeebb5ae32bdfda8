//! The C library's allocator, set for what an edge does with memory: what one shard stored another
//! evicts. With an arena a thread, glibc's default, each keeps the room that others gave back to it
//! and asks the kernel for more. `docs/measurements.md` ("Memory") has what each setting costs, and
//! `docs/adr/0010-allocator.md` why it is this allocator.

use std::env;

/// Sets the allocator, before the process has a second thread. Who has set it by the environment
/// knows better. Where the C library is another, nothing is done.
pub fn settle_allocator() {
    let is_set =
        env::var_os("MALLOC_ARENA_MAX").is_some() || env::var_os("GLIBC_TUNABLES").is_some();
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    if !is_set {
        // SAFETY: mallopt takes two integers and has no other preconditions; a refusal leaves
        // everything as it was.
        let _ = unsafe { libc::mallopt(libc::M_ARENA_MAX, ARENAS_MAX) };
    }
    #[cfg(not(all(target_os = "linux", target_env = "gnu")))]
    let _ = is_set;
}

/// One for all shards: small allocations are served from a cache of the thread, without its lock.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
const ARENAS_MAX: libc::c_int = 1;
