//! Maxima of everything this crate holds, each with what happens when it is reached. Memory, the
//! size of a near table and waiters a lease are configuration ([`crate::Config`]); these are not.

/// Segments of the index; a power of two. Each has its own lock.
pub const SEGMENT_COUNT: usize = 256;
/// Variants kept of one cache key. Beyond: the one stored longest ago goes.
pub const VARIANTS_PER_KEY_MAX: usize = 64;
/// Names in `Vary`. Beyond: not stored.
pub const VARY_NAMES_MAX: usize = 16;
/// Leases out for one cache key that others may join, one a variant. Beyond: a request fetches for
/// itself.
pub const LEASES_PER_KEY_MAX: usize = 64;
/// How often one request may wait for a lease before it fetches for itself.
pub const WAITS_MAX: u8 = 4;
/// Surrogate keys of one entry. Beyond: not stored, because a purge could miss it.
pub const SURROGATE_KEYS_MAX: usize = 256;
/// Bytes of one surrogate key. Beyond: not stored.
pub const SURROGATE_KEY_BYTES_MAX: usize = 1024;
/// Purges remembered in one segment for the leases that began before them. Beyond: those leases are
/// not stored.
pub const RECENT_PURGES_MAX: usize = 512;
/// Remembered outcomes (uncacheable, origin failed) in one segment. Beyond: the oldest is
/// forgotten.
pub const MEMORIES_MAX: usize = 256;
/// How long an answer that could not be shared keeps its cache key from collapsing again.
pub const HIT_FOR_MISS_MS: u64 = 60_000;
/// After a failed fetch: how long a stale entry is served without asking the origin again.
pub const ORIGIN_FAILED_MS: u64 = 1_000;
/// Longest freshness lifetime and largest age taken from a field, in seconds (RFC 9111 §1.2.2).
pub const DELTA_SECONDS_MAX: u64 = 1 << 31;
/// Longest heuristic freshness lifetime (RFC 9111 §4.2.2 leaves it to us).
pub const HEURISTIC_LIFETIME_MS_MAX: u64 = 24 * 3_600_000;
/// Bodies up to this length that arrived in several chunks are made one when complete. Longer ones
/// stay in chunks, which fit where shorter ones were (docs/adr/0010-allocator.md).
pub const COMPACT_BYTES_MAX: u64 = 128 * 1024;
/// Groups that one answer may outdate (RFC 9875 §3 wants 32). Beyond: the rest stays.
pub const GROUPS_INVALIDATED_MAX: usize = 64;
/// Ranges in one request. Beyond: the answer is the whole.
pub const RANGES_MAX: usize = 16;
/// Stored parts of one representation. Beyond: only the newest is kept.
pub const PARTS_MAX: usize = 64;
/// Longest targeted field that is parsed. Beyond: ignored, as RFC 9213 §2.1 says of malformed ones.
pub const TARGETED_BYTES_MAX: usize = 8 * 1024;
/// Bytes of one part of a body that turned out too large to be stored.
pub const SPILL_PART_BYTES: u64 = 64 * 1024;
/// Searches for a victim in one call. Beyond: the rest waits for the next call.
pub const EVICTIONS_MAX: usize = 1024;
/// Entries that one search for a victim looks at, under the lock of eviction. Beyond: it lets
/// others in between.
pub const EVICTION_LOOKS_MAX: usize = 64;
/// Buckets of a near table looked at to find one to give up. Beyond: the last one looked at goes.
pub const NEAR_VISITS_MAX: usize = 64;
