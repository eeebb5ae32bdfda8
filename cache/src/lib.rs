//! RFC 9111 semantics and storage, pure: time and seeds are arguments, no I/O, no threads of its
//! own.
//!
//! ```text
//!   shard ── Cache::lookup(near, request) ──▶ Decision
//!               Hit, Stale ──▶ Local: head and body as `Bytes` of this shard
//!               Miss, Revalidate ──▶ Lease ── head ──▶ Writer ── append, finish
//!               Wait ──▶ mail ── Cache::lookup_woken
//!   feed  ── Cache::purge ──▶ PurgeCursor ── step, a slice a turn ──▶ done: the receipt
//!   turn  ── Near::sweep, Cache::take_orphans
//! ```
//!
//! One [`Cache`] is shared by all shards: 256 segments behind a short lock each, never taken on a
//! near hit. Each shard has a [`Near`] of its own. What crosses cores without the lock is an
//! entry's state word and a filling body, and nothing else.
//!
//! # Life of an entry
//! ```text
//!   Lease ─head─▶ filling ─finish─▶ complete ─304─▶ updated (a new entry, the same body)
//!                    │                 ├─ soft purge ─▶ soft: only when the origin fails
//!                    └─fail─▶ dead ◀───┴─ purge, eviction, replacement
//!                               └─ swept from near tables, last reader gone ─▶ its bytes are free
//! ```
//!
//! Leaves to others: bytes ↔ fields (`proto`), which site and route, forwarding, mail, pacing
//! (`dataplane`).
#![forbid(unsafe_code)]

use std::{
    fmt,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use proto::feed::record::Purge;

mod account;
mod body;
mod cache_status;
mod coding;
mod collapse;
mod decision;
mod directives;
mod draft;
mod encoding;
mod entry;
mod eviction;
mod fill;
mod freshness;
mod group;
mod head;
mod index;
mod key;
pub mod limits;
mod location;
mod lookup;
mod memories;
mod near;
mod partial;
mod purge;
mod range;
mod reading;
mod request;
mod response;
mod restore;
mod stale;
mod stats;
mod storability;
mod surrogate;
mod sync;
mod targeted;
mod validation;
mod vary;

use account::Account;
use eviction::Eviction;
use index::Segment;
use stats::SharedStats;
use storability::Asked;

pub use body::{Body, BodyState, Follow, Progress};
pub use cache_status::{CacheStatus, Forward};
pub use coding::{Coding, Compression};
pub use collapse::{HeadOutcome, Lease, Waiter, Wake, WakeWith};
pub use decision::{Answer, BypassReason, Decision, Freshness, Hit, NoStoreReason, Tier};
pub use directives::{Reach, RequestDirectives, ResponseDirectives};
pub use encoding::{EncodeOrder, Encoded};
pub use entry::Entry;
pub use fill::{WriteError, Writer};
pub use freshness::{LifetimeSource, Times};
pub use key::{CacheKey, CacheKeyRef, KeyHasher};
pub use lookup::Asking;
pub use near::{Local, Near, Piece};
pub use purge::{PurgeCursor, PurgeProgress};
pub use range::ByteRange;
pub use reading::{Hold, Reading};
pub use request::{FieldSource, Method, Request};
pub use response::Response;
pub use stale::StaleRules;
pub use stats::{CacheStats, ShardStats};
pub use surrogate::{SurrogateKeys, is_surrogate_key, surrogate_words};
pub use targeted::Policy;
pub use vary::Variant;

/// What an operator can choose.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Config {
    /// Bytes for entries and bodies, overheads included. Beyond: eviction.
    pub memory_bytes: u64,
    /// Bytes of the longest body that is stored.
    pub entry_bytes_max: u64,
    /// Requests that may wait for one fetch. Beyond: they fetch for themselves.
    pub waiters_per_lease_max: usize,
    /// How long a stale response may be served when its origin fails and the response does not say,
    /// seconds.
    pub stale_if_error_s: u64,
    /// Targeted fields that are ours, most specific first (RFC 9213).
    pub targets: Vec<String>,
    /// This cache's name in `Cache-Status`; a token.
    pub name: String,
    /// By which scheme visitors reach what is stored, `http` or `https`.
    pub scheme: &'static str,
    /// Which responses may be had encoded.
    pub compression: Compression,
    /// Seed of the hashes.
    pub seed: u64,
}

impl Config {
    /// Defaults for this much memory.
    pub fn new(memory_bytes: u64, seed: u64) -> Self {
        Self {
            memory_bytes,
            entry_bytes_max: memory_bytes / 4,
            waiters_per_lease_max: 16_384,
            stale_if_error_s: 24 * 3600,
            targets: vec!["CDN-Cache-Control".into()],
            name: "pharos".into(),
            scheme: "http",
            compression: Compression::OFF,
            seed,
        }
    }
}

/// The index shared by all shards.
pub struct Cache {
    config: Config,
    hasher: KeyHasher,
    segments: Box<[Mutex<Segment>]>,
    account: Arc<Account>,
    eviction: Arc<Mutex<Eviction>>,
    orphans: Mutex<Vec<Wake>>,
    has_orphans: AtomicBool,
    pub(crate) stats: SharedStats,
}

impl Cache {
    /// An empty cache.
    pub fn new(config: Config) -> Arc<Self> {
        let hasher = KeyHasher::new(config.seed);
        let eviction = Arc::new(Mutex::new(Eviction::default()));
        let account = Arc::default();
        let segment = |_| Mutex::new(Segment::new(hasher.clone(), &account, Arc::clone(&eviction)));
        Arc::new(Self {
            segments: (0..limits::SEGMENT_COUNT).map(segment).collect(),
            hasher,
            account,
            eviction,
            orphans: Mutex::default(),
            has_orphans: AtomicBool::new(false),
            stats: SharedStats::default(),
            config,
        })
    }

    /// The cache key of a request. `site` is the site's id, empty for status pages; `host` and
    /// `target` as the caller normalised them.
    pub fn cache_key<'a>(
        &self,
        site: &'a str,
        host: &'a [u8],
        target: &'a [u8],
    ) -> CacheKeyRef<'a> {
        self.hasher.cache_key(site, host, target, b"")
    }

    /// The same with an addition of the request's fields, so that those who differ in them do not
    /// share what is stored. At most 65,535 bytes.
    pub fn cache_key_with<'a>(
        &self,
        site: &'a str,
        host: &'a [u8],
        target: &'a [u8],
        added: &'a [u8],
    ) -> CacheKeyRef<'a> {
        self.hasher.cache_key(site, host, target, added)
    }

    /// Targeted fields that are ours, most specific first.
    pub fn targets(&self) -> &[String] {
        &self.config.targets
    }

    /// Begins a purge. Nothing is purged before [`PurgeCursor::step`].
    pub fn purge(&self, purge: &Purge) -> PurgeCursor {
        PurgeCursor::new(self, purge)
    }

    /// After an unsafe request succeeded (2xx or 3xx): what is stored for its target is outdated
    /// (RFC 9111 §4.4). Returns purges of what shares a group with it (RFC 9875 §2.2.1).
    pub fn invalidate(&self, cache_key: &CacheKeyRef<'_>) -> Vec<PurgeCursor> {
        let removed = self.segment_by_hash(cache_key.hash()).invalidate(cache_key);
        self.purges_beside(cache_key.site(), removed.iter().map(|entry| &**entry))
    }

    /// What the answer to an unsafe request names in `Location` and `Content-Location`, as far as
    /// that is of the same origin: it is outdated, too. `cache_key` is that of the request's URL as
    /// the client wrote it.
    pub fn named_targets(
        &self,
        cache_key: &CacheKeyRef<'_>,
        response: &dyn FieldSource,
    ) -> Vec<String> {
        let references =
            ["Location", "Content-Location"].into_iter().filter_map(|it| response.get(it));
        let targets = references
            .filter_map(|it| location::same_origin_target(cache_key, self.config.scheme, it));
        // Nothing is stored under what is no text.
        targets.filter_map(|target| String::from_utf8(target).ok()).collect()
    }

    /// The right to store the answer to a POST that is about to be sent, should it allow that (RFC
    /// 9110 §9.3.3). Nobody waits for it.
    pub fn lease_for_post(self: &Arc<Self>, request: &Request<'_>) -> Lease {
        let mut segment = self.segment_by_hash(request.cache_key.hash());
        let ticket =
            segment.give_lease(&request.cache_key, request.fields, (false, None), Forward::Method);
        drop(segment);
        ticket.lease(self, Asked::of(request), None)
    }

    /// Forgets a waiter whose request is gone. It may be woken all the same, if that was under way.
    pub fn withdraw(&self, cache_key: &CacheKeyRef<'_>, waiter: Waiter) {
        self.segment_by_hash(cache_key.hash()).withdraw(cache_key, waiter);
    }

    /// Waiters of leases and writers that were dropped without an outcome. Asked once a turn by
    /// every shard; one relaxed load when there are none.
    pub fn take_orphans(&self) -> Vec<Wake> {
        if !self.has_orphans.load(Ordering::Relaxed) {
            return Vec::new();
        }
        let mut orphans = lock(&self.orphans);
        self.has_orphans.store(false, Ordering::Relaxed);
        std::mem::take(&mut *orphans)
    }

    /// Looks at the counters; takes every segment's lock once.
    pub fn stats(&self) -> CacheStats {
        let load = |counter: &std::sync::atomic::AtomicU64| counter.load(Ordering::Relaxed);
        CacheStats {
            entries: self.segments.iter().map(|segment| lock(segment).len() as u64).sum(),
            used_bytes: self.account.used_bytes(),
            dead_bytes: self.account.dead_bytes(),
            memory_bytes: self.config.memory_bytes,
            stored: load(&self.stats.stored),
            updated: load(&self.stats.updated),
            not_stored: load(&self.stats.not_stored),
            evicted: load(&self.stats.evicted),
            purged: load(&self.stats.purged),
            fetch_failures: load(&self.stats.fetch_failures),
        }
    }

    /// Its configuration.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Whether so much is dead that near tables should be swept faster than usual.
    pub fn is_pressed(&self) -> bool {
        self.account.dead_bytes() > self.config.memory_bytes / 32
    }

    /// Whether a body of this length may begin. Room for it is made as it arrives.
    pub(crate) fn admit(&self, length: Option<u64>) -> Result<(), NoStoreReason> {
        if length.is_some_and(|length| length > self.config.entry_bytes_max) {
            return Err(NoStoreReason::TooLarge);
        }
        if self.make_room(0) { Ok(()) } else { Err(NoStoreReason::MemoryFull) }
    }

    /// Evicts until `bytes` more fit, within a bounded number of visits; whether they do.
    ///
    /// The living get seven eighths of the memory: evicting makes them dead, and the dead give
    /// their memory back only when the last near table has been swept. Counting the dead here would
    /// evict again and again for the same bytes. All together never get more than the whole.
    pub(crate) fn make_room(&self, bytes: u64) -> bool {
        let memory_bytes = self.config.memory_bytes;
        let living_max = memory_bytes - memory_bytes / 8;
        for _ in 0..limits::EVICTIONS_MAX {
            if self.account.living_bytes().saturating_add(bytes) <= living_max {
                break;
            }
            let victim = lock(&self.eviction).victim(limits::EVICTION_LOOKS_MAX);
            let Some(victim) = victim else { continue };
            // Another shard may have been faster.
            let removed = self.segment_of(&victim.cache_key).remove_entry(&victim);
            if removed.is_some() {
                SharedStats::count(&self.stats.evicted, 1);
            }
        }
        self.account.used_bytes().saturating_add(bytes) <= memory_bytes
    }

    pub(crate) fn hasher(&self) -> &KeyHasher {
        &self.hasher
    }

    pub(crate) fn account(&self) -> &Arc<Account> {
        &self.account
    }

    pub(crate) fn segment(&self, at: usize) -> MutexGuard<'_, Segment> {
        lock(&self.segments[at])
    }

    pub(crate) fn segment_by_hash(&self, hash: u64) -> MutexGuard<'_, Segment> {
        self.segment(key::segment_of(hash))
    }

    pub(crate) fn segment_of(&self, cache_key: &CacheKey) -> MutexGuard<'_, Segment> {
        self.segment_by_hash(cache_key.hash())
    }

    pub(crate) fn add_orphans(&self, wakes: Vec<Wake>) {
        if !wakes.is_empty() {
            let mut orphans = lock(&self.orphans);
            orphans.extend(wakes);
            self.has_orphans.store(true, Ordering::Relaxed);
        }
    }
}

impl fmt::Debug for Cache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cache").field("account", &self.account).finish_non_exhaustive()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
