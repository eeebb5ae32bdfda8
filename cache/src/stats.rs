//! Counters. What every look-up counts is the shard's own; what only stores and purges count is
//! shared.

use std::sync::atomic::{AtomicU64, Ordering};

/// What one shard's look-ups came to.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct ShardStats {
    /// Requests that asked the cache.
    pub lookups: u64,
    /// Fresh hits out of the near table.
    pub near_hits: u64,
    /// Fresh hits out of the index, those on filling bodies included.
    pub hits: u64,
    /// Stale hits.
    pub stale_hits: u64,
    /// Conditional fetches begun.
    pub revalidations: u64,
    /// Whole fetches begun.
    pub misses: u64,
    /// Registered to wait for another fetch.
    pub waits: u64,
    /// Took no part.
    pub bypasses: u64,
}

/// What all shards together did to the index.
#[derive(Debug, Default)]
pub(crate) struct SharedStats {
    pub(crate) stored: AtomicU64,
    pub(crate) updated: AtomicU64,
    pub(crate) not_stored: AtomicU64,
    pub(crate) evicted: AtomicU64,
    pub(crate) purged: AtomicU64,
    pub(crate) fetch_failures: AtomicU64,
}

impl SharedStats {
    pub(crate) fn count(counter: &AtomicU64, more: u64) {
        counter.fetch_add(more, Ordering::Relaxed);
    }
}

/// A look at a cache's counters.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct CacheStats {
    /// Entries in the index.
    pub entries: u64,
    /// Bytes held, the dead included; counts against the limit.
    pub used_bytes: u64,
    /// Bytes of dead entries that near tables or readers still hold.
    pub dead_bytes: u64,
    /// The limit.
    pub memory_bytes: u64,
    /// Responses stored.
    pub stored: u64,
    /// Entries updated by a 304 or by HEAD.
    pub updated: u64,
    /// Responses not stored.
    pub not_stored: u64,
    /// Entries evicted for space.
    pub evicted: u64,
    /// Entries purged, hard or soft.
    pub purged: u64,
    /// Fetches that failed.
    pub fetch_failures: u64,
}
