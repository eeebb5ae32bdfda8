//! What a segment remembers of outcomes: cache keys whose answers are not for sharing, and those
//! whose origin failed. By hash alone: a collision costs a collapse, nothing else.
//!
//! Belongs to a segment of [`crate::index`] and is guarded by its lock.

use hashbrown::HashTable;

use crate::limits;

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Memories(HashTable<Memory>);

#[derive(Clone, Copy, Debug)]
struct Memory {
    hash: u64,
    /// Until then, nobody waits for another's fetch of this.
    unshared_until_ms: u64,
    /// The last fetch that failed, if none succeeded since.
    failed: Option<Failed>,
}

/// A fetch that failed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Failed {
    /// When.
    pub(crate) at_ms: u64,
    /// No purge came while it went on: it was asked for what is wanted now.
    pub(crate) is_undisturbed: bool,
}

impl Memories {
    /// Whether the answers for this are not for sharing.
    pub(crate) fn is_unshared(&self, hash: u64, now_ms: u64) -> bool {
        self.get(hash).is_some_and(|memory| now_ms < memory.unshared_until_ms)
    }

    /// The last fetch that failed, if none succeeded since, and nothing was purged there.
    pub(crate) fn failed(&self, hash: u64) -> Option<Failed> {
        self.get(hash).and_then(|memory| memory.failed)
    }

    fn get(&self, hash: u64) -> Option<&Memory> {
        self.0.find(hash, |memory| memory.hash == hash)
    }

    /// The answer was not for sharing; the next ones will not be either, until then.
    pub(crate) fn remember_unshared(&mut self, hash: u64, unshared_until_ms: u64) {
        self.put(Memory { hash, unshared_until_ms, failed: None });
    }

    /// A fetch failed.
    pub(crate) fn remember_failed(&mut self, hash: u64, failed: Failed) {
        let unshared_until_ms = self.get(hash).map_or(0, |memory| memory.unshared_until_ms);
        self.put(Memory { hash, unshared_until_ms, failed: Some(failed) });
    }

    /// A fetch succeeded and its answer was for sharing, or what is stored was purged.
    pub(crate) fn forget(&mut self, hash: u64) {
        if let Ok(found) = self.0.find_entry(hash, |memory| memory.hash == hash) {
            found.remove();
        }
    }

    fn put(&mut self, memory: Memory) {
        self.forget(memory.hash);
        if self.0.len() >= limits::MEMORIES_MAX {
            // Rare, and a few hundred at most.
            let oldest = self.0.iter().min_by_key(|memory| {
                memory.unshared_until_ms.max(memory.failed.map_or(0, |failed| failed.at_ms))
            });
            if let Some(hash) = oldest.map(|memory| memory.hash) {
                self.forget(hash);
            }
        }
        self.0.insert_unique(memory.hash, memory, |memory| memory.hash);
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_is_forgotten_first() {
        let mut memories = Memories::default();
        for hash in 0..=limits::MEMORIES_MAX as u64 {
            memories.remember_unshared(hash, 1000 + hash);
        }
        assert!(!memories.is_unshared(0, 0));
        assert!(memories.is_unshared(1, 1000) && !memories.is_unshared(1, 1001));
    }

    #[test]
    fn a_failure_is_remembered_until_a_success() {
        let mut memories = Memories::default();
        let failed = Failed { at_ms: 50, is_undisturbed: true };
        memories.remember_failed(1, failed);
        assert_eq!(memories.failed(1), Some(failed));
        memories.forget(1);
        assert_eq!(memories.failed(1), None);
    }
}
