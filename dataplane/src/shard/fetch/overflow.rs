//! An answer that turned out too large to be stored: how far the origin is read ahead of those who
//! read it.
//!
//! ```text
//!   receiving ──2 MiB not read by all──▶ held back ──looked at: they have been──▶ receiving
//!                                            └── nobody reads any more ──▶ ended
//! ```
//! Leaves to others: where the bytes are meanwhile (`cache`), ending readers that take nothing
//! (`conn`).

use cache::Writer as StoreWriter;

use super::{
    super::{Edge, slab::Ref, timers::Timer},
    Phase,
};
use crate::{limits, seam::Now};

impl Edge {
    /// Looks whether the readers of an answer too large to be stored have taken enough for it to go
    /// on. They may be on any shard, so nobody tells; a reader that takes nothing is ended by its
    /// connection's deadline.
    pub fn fetch_look(&mut self, now: Now, at: Ref) {
        self.fetch_pace(at);
        let Some(fetch) = self.fetches.get_mut(at) else { return };
        if fetch.phase != Phase::Body || fetch.receiving {
            return;
        }
        if fetch.store.as_mut().is_some_and(StoreWriter::is_abandoned) {
            return self.fetch_abort(at);
        }
        fetch.deadline = now.mono.after_ms(self.timeouts.origin_body_ms);
        self.timers.set(now.mono.after_ms(limits::SPILL_LOOK_MS), Timer::FetchLook(at));
    }

    /// Whether an answer cannot be stored, and nobody reads it any more.
    pub(super) fn is_abandoned(&mut self, at: Ref) -> bool {
        let Some(fetch) = self.fetches.get_mut(at) else { return true };
        fetch.store.as_mut().is_some_and(StoreWriter::is_abandoned)
    }

    /// Stops reading the origin while too much of an overflow waits for its readers.
    pub(super) fn fetch_hold_back(&mut self, now: Now, at: Ref) {
        let Some(fetch) = self.fetches.get_mut(at) else { return };
        if fetch.receiving && !fetch.wants_input() {
            self.timers.set(now.mono.after_ms(limits::SPILL_LOOK_MS), Timer::FetchLook(at));
            self.fetch_pace(at);
        }
    }
}
