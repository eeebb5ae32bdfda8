//! Who goes when memory is short: one order for the whole cache.
//!
//! S3-FIFO was chosen over SIEVE, and one queue over one a segment (docs/adr/0006-eviction.md;
//! `cargo run --release -p pharos-cache --example eviction` makes the figures again). The queue has
//! its own lock, taken when an entry is stored, removed or evicted, inside a segment's lock or
//! alone, and never the other way round.

mod s3fifo;

use std::sync::Arc;

use crate::entry::Entry;

use s3fifo::{S3Fifo, Uses};

pub(crate) use s3fifo::USES_MAX;

/// All entries of the index in the order that eviction looks at them.
#[derive(Debug, Default)]
pub(crate) struct Eviction {
    queues: S3Fifo,
    entries: Vec<Option<Arc<Entry>>>,
    free: Vec<u32>,
}

impl Eviction {
    /// Takes an entry in; the number is its place until it is removed.
    pub(crate) fn insert(&mut self, entry: &Arc<Entry>) -> u32 {
        let place = self.free.pop().unwrap_or_else(|| {
            self.entries.push(None);
            (self.entries.len() - 1) as u32
        });
        self.entries[place as usize] = Some(Arc::clone(entry));
        self.queues.insert(place, entry.cache_key.hash(), weight(entry));
        place
    }

    /// Takes out what is at `place`.
    pub(crate) fn remove(&mut self, place: u32) {
        self.queues.remove(place);
        if self.entries[place as usize].take().is_some() {
            self.free.push(place);
        }
    }

    /// `newer` stands at `place` from now on.
    pub(crate) fn replace(&mut self, place: u32, newer: &Arc<Entry>) {
        self.entries[place as usize] = Some(Arc::clone(newer));
        self.queues.reweigh(place, weight(newer));
    }

    /// The weight of what is at `place` has changed.
    pub(crate) fn reweigh(&mut self, place: u32) {
        if let Some(entry) = &self.entries[place as usize] {
            self.queues.reweigh(place, weight(entry));
        }
    }

    /// The entry to go, to be removed from its segment by the caller; `None` after this many looks.
    pub(crate) fn victim(&mut self, looks_max: usize) -> Option<Arc<Entry>> {
        let place = self.queues.victim(&mut Counted(&self.entries), looks_max)?;
        self.entries[place as usize].clone()
    }
}

/// What goes with an entry if it goes.
fn weight(entry: &Entry) -> u64 {
    entry.charged_bytes() + entry.body_bytes() + entry.encoded_bytes()
}

/// Uses, as the entries' state words count them.
struct Counted<'a>(&'a [Option<Arc<Entry>>]);

impl Uses for Counted<'_> {
    fn reset(&mut self, number: u32) -> u32 {
        self.0[number as usize].as_ref().map_or(0, |entry| entry.reset_uses())
    }

    fn decrement(&mut self, number: u32) -> u32 {
        self.0[number as usize].as_ref().map_or(0, |entry| entry.decrement_uses())
    }
}
