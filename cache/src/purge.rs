//! Purges: finding what a scope reaches, in slices, and remembering purges for fetches that began
//! before them.
//!
//! ```text
//!   each segment: remember it for leases out ─▶ kill or soften, a budget a step ─▶ next … ─▶ done
//! ```
//! A fetch that began before a purge reached its segment may bring the old body. Its lease knows
//! the number of purges the segment had seen when it began, and at its head it is checked against
//! those that came since. One that began later asks an origin that has the new state, because
//! control purges after the change. So a segment remembers purges only while leases are out.
//!
//! Leaves to others: the order of purge and publish, positions and receipts (`dataplane`).

use std::{collections::VecDeque, sync::Arc};

use proto::feed::record::{Purge, Scope};

use crate::{
    Cache,
    entry::Entry,
    group,
    index::{Removed, Segment},
    key::{CacheKey, CacheKeyRef},
    limits,
    stats::SharedStats,
    surrogate::SurrogateKeys,
};

/// A purge under way. Dropping it before it is done leaves the rest unpurged.
#[derive(Debug)]
pub struct PurgeCursor {
    target: Arc<Target>,
    soft: bool,
    /// What is stored under this one stays.
    spared: Option<CacheKey>,
    /// What goes takes its groups along.
    beside: Option<Beside>,
    segments: std::ops::Range<usize>,
    /// Within the first of `segments`: what is left to look at.
    slice: Option<Slice>,
    purged_count: u64,
}

/// Groups of what a purge removed (RFC 9875 §2.2.1).
#[derive(Debug)]
struct Beside {
    site: Box<str>,
    /// Only of what is stored for this host.
    host: Box<[u8]>,
    keys: Vec<Vec<u8>>,
}

/// What a purge reaches.
#[derive(Debug)]
pub(crate) enum Target {
    Scope(Scope),
    /// One cache key: an unsafe method succeeded (RFC 9111 §4.4).
    CacheKey(CacheKey),
}

/// What is left of a segment.
#[derive(Debug)]
enum Slice {
    /// These numbers.
    Listed(Vec<u32>),
    /// All numbers from the first to before the second.
    All(u32, u32),
}

/// How far a purge is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PurgeProgress {
    /// No look-up on any shard finds any of it from now on.
    pub done: bool,
    /// Entries purged so far.
    pub purged_count: u64,
}

impl PurgeCursor {
    pub(crate) fn new(cache: &Cache, purge: &Purge) -> Self {
        let segments = match &purge.scope {
            Scope::Url { site, target } => {
                let at = cache.hasher().url_segment(site, target.as_bytes());
                at..at + 1
            }
            _ => 0..limits::SEGMENT_COUNT,
        };
        let target = Arc::new(Target::Scope(purge.scope.clone()));
        let soft = purge.soft;
        Self { target, soft, spared: None, beside: None, segments, slice: None, purged_count: 0 }
    }

    /// Without what is stored under this cache key: the answer to the very request that outdates
    /// the rest.
    pub fn sparing(mut self, cache_key: Option<&CacheKey>) -> Self {
        self.spared = cache_key.cloned();
        self
    }

    /// What it removes that was stored for this host outdates what shares a group with it:
    /// [`PurgeCursor::take_beside`].
    pub fn with_groups_of(mut self, site: &str, host: &str) -> Self {
        let host = host.as_bytes().into();
        self.beside = Some(Beside { site: site.into(), host, keys: Vec::new() });
        self
    }

    /// Purges of what shares a group with what it removed; asked once it is done.
    pub fn take_beside(&mut self, cache: &Cache) -> Vec<PurgeCursor> {
        let Some(Beside { site, keys, .. }) = self.beside.take() else { return Vec::new() };
        let purges = cache.group_purges(&site, keys.into_iter()).into_iter();
        purges.map(|purge| purge.sparing(self.spared.as_ref())).collect()
    }

    /// Goes on for about `budget` entries; at least one segment or entry. Eight segments, or
    /// entries that are looked at and stay, count as one that goes.
    pub fn step(&mut self, cache: &Cache, budget: usize) -> PurgeProgress {
        let mut left = budget.max(1).saturating_mul(ENTRY_COST);
        while left > 0 && !self.segments.is_empty() {
            let at = self.segments.start;
            let mut segment = cache.segment(at);
            let slice = self.slice.take().unwrap_or_else(|| {
                let lease_count = segment.lease_count;
                segment.recents.push(&self.target, lease_count);
                left = left.saturating_sub(LOOK_COST);
                Slice::of(&segment, &self.target)
            });
            let (rest, removed) = self.purge_slice(&mut segment, slice, &mut left);
            drop(segment);
            if let Some(Beside { host, keys, .. }) = &mut self.beside {
                let of_host = removed.iter().filter(|it| it.cache_key.borrowed().host == &**host);
                group::gather(keys, of_host.map(|entry| &**entry));
            }
            drop(removed);
            self.slice = rest;
            if self.slice.is_none() {
                self.segments.start += 1;
            }
        }
        if self.segments.is_empty() {
            let purged = std::mem::take(&mut self.purged_count);
            SharedStats::count(&cache.stats.purged, purged);
            self.purged_count = purged;
        }
        PurgeProgress { done: self.segments.is_empty(), purged_count: self.purged_count }
    }

    fn purge_slice(
        &mut self,
        segment: &mut Segment,
        slice: Slice,
        left: &mut usize,
    ) -> (Option<Slice>, Removed) {
        let mut removed = Vec::new();
        let rest = match slice {
            Slice::Listed(mut nodes) => {
                while *left > 0 {
                    let Some(node) = nodes.pop() else { break };
                    *left = left.saturating_sub(self.purge_node(segment, node, &mut removed));
                }
                (!nodes.is_empty()).then_some(Slice::Listed(nodes))
            }
            Slice::All(mut node, end) => {
                while node < end && *left > 0 {
                    *left = left.saturating_sub(self.purge_node(segment, node, &mut removed));
                    node += 1;
                }
                (node < end).then_some(Slice::All(node, end))
            }
        };
        (rest, removed)
    }

    /// Purges one entry if it is reached. A number may have been given to a newer entry meanwhile,
    /// which is then purged too: needless, never wrong. What it cost.
    fn purge_node(
        &mut self,
        segment: &mut Segment,
        node: u32,
        removed: &mut Vec<Arc<Entry>>,
    ) -> usize {
        let Some(entry) = segment.entry(node) else { return LOOK_COST };
        let cache_key = entry.cache_key.borrowed();
        let is_spared = self.spared.as_ref().is_some_and(|spared| spared.is(&cache_key));
        if is_spared || !self.target.reaches(&cache_key, &entry.surrogate_keys) {
            return LOOK_COST;
        }
        self.purged_count += 1;
        if self.soft {
            entry.soften();
            // Who fails from now on fails to bring the new.
            segment.memories.forget(cache_key.hash);
        } else {
            removed.extend(segment.remove(node));
        }
        ENTRY_COST
    }
}

impl Slice {
    fn of(segment: &Segment, target: &Target) -> Self {
        match target {
            Target::Scope(Scope::Key { site, key }) => {
                let site = site.as_deref().unwrap_or_default();
                Self::Listed(segment.with_surrogate_key(site, key.as_bytes()).to_vec())
            }
            _ => Self::All(0, segment.nodes_end()),
        }
    }
}

impl Target {
    /// Whether an entry with this cache key and these surrogate keys is meant.
    fn reaches(&self, cache_key: &CacheKeyRef<'_>, surrogate_keys: &SurrogateKeys) -> bool {
        match self {
            Self::CacheKey(own) => own.is(cache_key),
            Self::Scope(Scope::Everything) => true,
            // Pages belong to no site.
            Self::Scope(Scope::Sites) => !cache_key.site.is_empty(),
            Self::Scope(Scope::Site { site }) => cache_key.site == site,
            Self::Scope(Scope::Prefix { site, prefix }) => {
                cache_key.site == site && cache_key.target.starts_with(prefix.as_bytes())
            }
            Self::Scope(Scope::Url { site, target }) => {
                cache_key.site == site && cache_key.target == target.as_bytes()
            }
            Self::Scope(Scope::Key { site, key }) => {
                cache_key.site == site.as_deref().unwrap_or_default()
                    && surrogate_keys.contains(key.as_bytes())
            }
        }
    }
}

/// Purges that reached a segment while leases were out.
#[derive(Debug, Default)]
pub(crate) struct Recents {
    /// Purges that reached the segment so far.
    count: u64,
    /// The newest of them, each with `count` as it made it; ascending.
    kept: VecDeque<(u64, Arc<Target>)>,
    /// Leases begun below this cannot be checked any more.
    forgotten: u64,
}

/// What came between the beginning of a fetch and its head.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Since {
    /// Nothing that reaches it.
    Nothing,
    /// A purge, the first of them with this number: who came at or after it must not see the
    /// response.
    Purged(u64),
    /// More purges than are remembered.
    Forgotten,
}

impl Recents {
    /// The number a lease, or a waiter, remembers as its beginning.
    pub(crate) fn count(&self) -> u64 {
        self.count
    }

    pub(crate) fn push(&mut self, target: &Arc<Target>, lease_count: u32) {
        self.count += 1;
        if lease_count == 0 {
            return;
        }
        if self.kept.len() == limits::RECENT_PURGES_MAX {
            self.forgotten = self.kept.pop_front().map_or(self.count, |(count, _)| count);
        }
        self.kept.push_back((self.count, Arc::clone(target)));
    }

    /// No lease is out any more.
    pub(crate) fn clear(&mut self) {
        self.kept.clear();
    }

    pub(crate) fn since(
        &self,
        began: u64,
        cache_key: &CacheKeyRef<'_>,
        surrogate_keys: &SurrogateKeys,
    ) -> Since {
        if began < self.forgotten {
            return Since::Forgotten;
        }
        self.kept
            .iter()
            .find(|(count, target)| *count > began && target.reaches(cache_key, surrogate_keys))
            .map_or(Since::Nothing, |&(count, _)| Since::Purged(count))
    }

    /// Whether a purge since `began` may reach what a fetch will bring, whose surrogate keys are
    /// not known yet: `known` are those of what is stored, if anything is. Without them every
    /// surrogate key of its site counts.
    pub(crate) fn may_reach(
        &self,
        began: u64,
        cache_key: &CacheKeyRef<'_>,
        known: Option<&SurrogateKeys>,
    ) -> bool {
        let may_reach = |target: &Target| match (target, known) {
            (Target::Scope(Scope::Key { site, .. }), None) => {
                cache_key.site == site.as_deref().unwrap_or_default()
            }
            (_, known) => target.reaches(cache_key, known.unwrap_or(&SurrogateKeys::default())),
        };
        began < self.forgotten
            || self.kept.iter().any(|(count, target)| *count > began && may_reach(target))
    }
}

/// What it costs to look at a segment or entry that stays, and at an entry that goes.
const LOOK_COST: usize = 1;
const ENTRY_COST: usize = 8;

impl Segment {
    /// Removes every variant of a cache key, and remembers that for leases out.
    pub(crate) fn invalidate(&mut self, cache_key: &CacheKeyRef<'_>) -> Removed {
        let target = Arc::new(Target::CacheKey(cache_key.to_key()));
        self.recents.push(&target, self.lease_count);
        self.remove_all(cache_key)
    }
}
