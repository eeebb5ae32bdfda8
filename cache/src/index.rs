//! One segment of the index: everything known about the cache keys that hash to it, behind one
//! short lock.
//!
//! ```text
//!   slots        cache key ─▶ its variants, newest last; leases out for it
//!   nodes        number ─▶ entry            numbers stay put, so a purge in slices misses none
//!   surrogates   hash of a surrogate key ─▶ numbers
//!   recents      purges that leases still out began before
//!   memories     cache keys that do not collapse, or whose origin failed
//! ```
//! No I/O, no waiting and no dropping of entries happens under the lock: what leaves the index is
//! handed out and dropped by the caller. All variants of a slot vary by the same names, so at most
//! one usable entry matches a request, apart from one that is superseded by it.

use std::sync::{Arc, Mutex};

use hashbrown::HashTable;
use smallvec::SmallVec;

use crate::{
    account::Account,
    collapse::LeaseState,
    entry::Entry,
    eviction::Eviction,
    key::{CacheKey, CacheKeyRef, KeyHasher},
    limits, lock,
    memories::Memories,
    purge::Recents,
    request::FieldSource,
    surrogate::SurrogateIndex,
};

/// See the module.
#[derive(Debug)]
pub(crate) struct Segment {
    hasher: KeyHasher,
    slots: HashTable<Slot>,
    nodes: Vec<Option<Node>>,
    free: Vec<u32>,
    surrogates: SurrogateIndex,
    eviction: Arc<Mutex<Eviction>>,
    pub(crate) recents: Recents,
    pub(crate) memories: Memories,
    /// Leases out, those that nobody joins included.
    pub(crate) lease_count: u32,
    pub(crate) next_lease: u64,
}

/// An entry in the index.
#[derive(Debug)]
struct Node {
    entry: Arc<Entry>,
    /// Where it stands with eviction.
    place: u32,
}

/// A cache key in use.
#[derive(Debug)]
pub(crate) struct Slot {
    cache_key: CacheKey,
    /// Numbers of its variants, newest last; most have one.
    nodes: Numbers,
    pub(crate) leases: Vec<LeaseState>,
}

/// As many as a `Vec` has room for without an allocation.
type Numbers = SmallVec<[u32; 4]>;

/// Entries on their way out of the index; to be dropped without the lock.
pub(crate) type Removed = Vec<Arc<Entry>>;

impl Segment {
    pub(crate) fn new(
        hasher: KeyHasher,
        account: &Arc<Account>,
        eviction: Arc<Mutex<Eviction>>,
    ) -> Self {
        Self {
            hasher,
            slots: HashTable::new(),
            nodes: Vec::new(),
            free: Vec::new(),
            surrogates: SurrogateIndex::new(account),
            eviction,
            recents: Recents::default(),
            memories: Memories::default(),
            lease_count: 0,
            next_lease: 0,
        }
    }

    /// The newest usable entry that `fields` select.
    pub(crate) fn select(
        &self,
        cache_key: &CacheKeyRef<'_>,
        fields: &dyn FieldSource,
    ) -> Option<&Arc<Entry>> {
        let slot = self.slot(cache_key)?;
        slot.nodes
            .iter()
            .rev()
            .filter_map(|&node| self.entry(node))
            .find(|entry| entry.state().is_usable() && entry.variant.matches(fields))
    }

    pub(crate) fn slot(&self, cache_key: &CacheKeyRef<'_>) -> Option<&Slot> {
        self.slots.find(cache_key.hash, |slot| slot.cache_key.is(cache_key))
    }

    pub(crate) fn slot_mut(&mut self, cache_key: &CacheKeyRef<'_>) -> Option<&mut Slot> {
        self.slots.find_mut(cache_key.hash, |slot| slot.cache_key.is(cache_key))
    }

    /// The slot of a cache key, made if there is none.
    pub(crate) fn slot_or_new(&mut self, cache_key: &CacheKeyRef<'_>) -> &mut Slot {
        self.slots
            .entry(
                cache_key.hash,
                |slot| slot.cache_key.is(cache_key),
                |slot| slot.cache_key.hash(),
            )
            .or_insert_with(|| Slot {
                cache_key: cache_key.to_key(),
                nodes: Numbers::new(),
                leases: Vec::new(),
            })
            .into_mut()
    }

    /// Whether anything is stored under a cache key.
    pub(crate) fn has_entries(&self, cache_key: &CacheKeyRef<'_>) -> bool {
        self.slot(cache_key).is_some_and(|slot| !slot.nodes.is_empty())
    }

    /// Any living entry of a slot: all of them vary by the same names.
    pub(crate) fn any_variant(&self, slot: &Slot) -> Option<&Arc<Entry>> {
        slot.nodes.iter().rev().find_map(|&node| self.entry(node))
    }

    /// Forgets a slot that nothing uses any more.
    pub(crate) fn drop_if_unused(&mut self, cache_key: &CacheKeyRef<'_>) {
        let is_it = |slot: &Slot| slot.cache_key.is(cache_key);
        if let Ok(found) = self.slots.find_entry(cache_key.hash, is_it)
            && found.get().nodes.is_empty()
            && found.get().leases.is_empty()
        {
            found.remove();
        }
    }

    /// Takes an entry in. What it replaces is removed, or, while its body is still filling,
    /// superseded: hidden, to come back if the filling fails.
    pub(crate) fn insert(&mut self, entry: &Arc<Entry>, is_filling: bool) -> Removed {
        let cache_key = entry.cache_key.clone();
        let nodes =
            self.slot(&cache_key.borrowed()).map_or(Numbers::new(), |slot| slot.nodes.clone());
        let is_replaced = |node: &u32| self.entry(*node).is_some_and(|known| entry.replaces(known));
        let (replaced, kept): (Vec<_>, Vec<_>) = nodes.into_iter().partition(is_replaced);
        let mut removed = Vec::new();
        if kept.len() >= limits::VARIANTS_PER_KEY_MAX {
            removed.extend(self.remove(kept[0]));
        }
        for node in replaced {
            match self.entry(node) {
                Some(older) if is_filling => older.set_superseded(true),
                _ => removed.extend(self.remove(node)),
            }
        }
        self.link(entry);
        removed
    }

    /// The body of `entry` is whole: what it superseded is removed for good. If `entry` itself was
    /// removed meanwhile, what only it hid goes too.
    pub(crate) fn settle_filled(&mut self, entry: &Arc<Entry>) -> Removed {
        let own = self.node_of(entry);
        if let Some(Some(node)) = own.map(|own| &self.nodes[own as usize]) {
            lock(&self.eviction).reweigh(node.place);
        }
        let hidden = self.hidden_by(entry, own);
        hidden.into_iter().filter_map(|node| self.remove(node)).collect()
    }

    /// The body of `entry` failed: it is removed, and what only it hid is back.
    pub(crate) fn settle_failed(&mut self, entry: &Arc<Entry>) -> Option<Arc<Entry>> {
        let removed = self.remove_entry(entry);
        for node in self.hidden_by(entry, None) {
            if let Some(older) = self.entry(node) {
                older.set_superseded(false);
            }
        }
        removed
    }

    /// `entry` is outdated: it goes, and what it had superseded. If it was removed meanwhile, what
    /// only it hid goes all the same.
    pub(crate) fn remove_outdated(&mut self, entry: &Arc<Entry>) -> Removed {
        let own = self.node_of(entry);
        let mut nodes = self.hidden_by(entry, own);
        nodes.extend(own);
        nodes.into_iter().filter_map(|node| self.remove(node)).collect()
    }

    /// With `own`, everything older than that number which it replaces; without, everything
    /// superseded that nothing newer replaces any more.
    fn hidden_by(&self, entry: &Arc<Entry>, own: Option<u32>) -> Vec<u32> {
        let Some(slot) = self.slot(&entry.cache_key.borrowed()) else { return Vec::new() };
        let entries: Vec<_> =
            slot.nodes.iter().filter_map(|&node| Some((node, self.entry(node)?))).collect();
        let own_at = own.and_then(|own| entries.iter().position(|&(node, _)| node == own));
        let is_hidden = |at: usize, older: &Entry| match own_at {
            Some(own_at) => at < own_at && entry.replaces(older),
            None => {
                let is_replaced = entries[at + 1..].iter().any(|(_, newer)| newer.replaces(older));
                older.state().is_superseded() && !is_replaced
            }
        };
        let hidden = entries.iter().enumerate().filter(|(at, (_, older))| is_hidden(*at, older));
        hidden.map(|(_, &(node, _))| node).collect()
    }

    fn link(&mut self, entry: &Arc<Entry>) {
        let node = match self.free.pop() {
            Some(node) => node,
            None => {
                self.nodes.push(None);
                (self.nodes.len() - 1) as u32
            }
        };
        let place = lock(&self.eviction).insert(entry);
        self.nodes[node as usize] = Some(Node { entry: Arc::clone(entry), place });
        let cache_key = entry.cache_key.borrowed();
        self.slot_or_new(&cache_key).nodes.push(node);
        for surrogate_key in entry.surrogate_keys.iter() {
            let hash = self.hasher.surrogate_hash(cache_key.site, surrogate_key);
            self.surrogates.insert(hash, node);
        }
    }

    /// Puts `newer` in the place of `older`, whose texts are the same; `false` if that is not there
    /// any more.
    pub(crate) fn replace(&mut self, older: &Arc<Entry>, newer: &Arc<Entry>) -> bool {
        let Some(node) = self.node_of(older) else { return false };
        newer.inherit(older);
        if let Some(node) = &mut self.nodes[node as usize] {
            node.entry = Arc::clone(newer);
            lock(&self.eviction).replace(node.place, newer);
        }
        older.kill();
        true
    }

    /// Shows `put` the entry that has the body of `entry` now, which may be a newer one; whether it
    /// has taken something in.
    pub(crate) fn put_encoding(
        &mut self,
        entry: &Arc<Entry>,
        put: impl FnOnce(&Arc<Entry>) -> Option<()>,
    ) -> bool {
        let Some(slot) = self.slot(&entry.cache_key.borrowed()) else { return false };
        let mut nodes =
            slot.nodes.iter().rev().filter_map(|&node| self.nodes[node as usize].as_ref());
        let holder = nodes
            .find(|node| Arc::ptr_eq(node.entry.body(), entry.body()) && !node.entry.is_partial());
        let Some(node) = holder else { return false };
        let is_put = put(&node.entry).is_some();
        if is_put {
            lock(&self.eviction).reweigh(node.place);
        }
        is_put
    }

    /// Kills an entry and takes it out.
    pub(crate) fn remove_entry(&mut self, entry: &Arc<Entry>) -> Option<Arc<Entry>> {
        let node = self.node_of(entry)?;
        self.remove(node)
    }

    /// Kills every variant of a cache key.
    pub(crate) fn remove_all(&mut self, cache_key: &CacheKeyRef<'_>) -> Removed {
        let nodes = self.slot(cache_key).map_or(Numbers::new(), |slot| slot.nodes.clone());
        nodes.into_iter().filter_map(|node| self.remove(node)).collect()
    }

    /// Kills the entry with this number and takes it out.
    pub(crate) fn remove(&mut self, node: u32) -> Option<Arc<Entry>> {
        let Node { entry, place } = self.nodes.get_mut(node as usize)?.take()?;
        entry.kill();
        self.free.push(node);
        lock(&self.eviction).remove(place);
        let cache_key = entry.cache_key.borrowed();
        for surrogate_key in entry.surrogate_keys.iter() {
            let hash = self.hasher.surrogate_hash(cache_key.site, surrogate_key);
            self.surrogates.remove(hash, node);
        }
        if let Some(slot) = self.slot_mut(&cache_key) {
            slot.nodes.retain(|known| *known != node);
        }
        self.drop_if_unused(&cache_key);
        Some(entry)
    }

    /// Entries in it.
    pub(crate) fn len(&self) -> usize {
        self.nodes.len() - self.free.len()
    }

    /// One past the highest number in use.
    pub(crate) fn nodes_end(&self) -> u32 {
        self.nodes.len() as u32
    }

    pub(crate) fn entry(&self, node: u32) -> Option<&Arc<Entry>> {
        self.nodes.get(node as usize)?.as_ref().map(|node| &node.entry)
    }

    /// Numbers of the entries with a surrogate key, and maybe of others: the entries tell.
    pub(crate) fn with_surrogate_key(&self, site: &str, surrogate_key: &[u8]) -> &[u32] {
        self.surrogates.nodes(self.hasher.surrogate_hash(site, surrogate_key))
    }

    fn node_of(&self, entry: &Arc<Entry>) -> Option<u32> {
        let slot = self.slot(&entry.cache_key.borrowed())?;
        slot.nodes
            .iter()
            .copied()
            .find(|&node| self.entry(node).is_some_and(|known| Arc::ptr_eq(known, entry)))
    }
}

impl Slot {
    /// What it is about.
    pub(crate) fn cache_key(&self) -> &CacheKey {
        &self.cache_key
    }
}
