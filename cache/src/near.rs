//! A shard's own table of entries, and the shard's own handles to them.
//!
//! A near hit takes no lock and touches no counter that another core writes: one look-up here, one
//! relaxed load of the entry's state word. The handles ([`Local`]) count their own copies; only
//! making and dropping the last of them touches the shared `Arc`.
//!
//! The table is bounded. An entry is taken in when it comes a second time within about as many
//! others as the table holds (the [`Door`] remembers): a set far larger than the table does not
//! churn through it, and what is asked for once is held by the index alone, so that evicting it
//! frees its memory at once. When the table is full, a hand goes round and gives up the first entry
//! not used since it last came by. [`Near::sweep`] goes round a few buckets a turn and lets go of
//! the dead, so that their memory is free in bounded time.

use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use hashbrown::HashTable;

use crate::{
    body::{Body, BodyState, Follow, Progress},
    coding::Coding,
    collapse::Waiter,
    entry::Entry,
    limits,
    partial::Parts,
    range::ByteRange,
    request::Request,
    stats::ShardStats,
};

/// A shard's table. Not shared.
#[derive(Debug)]
pub struct Near {
    table: HashTable<Slot>,
    entries_max: usize,
    door: Door,
    /// Next bucket for giving up.
    hand: usize,
    /// Next bucket for sweeping.
    broom: usize,
    pub(crate) stats: ShardStats,
}

/// Which hashes came by lately: marks of 16 bits in rows of two, the newer one first.
#[derive(Debug)]
struct Door(Box<[[u16; 2]]>);

impl Door {
    /// So many rows that of as many hashes as the table holds, coming again and again in one order,
    /// one in twenty shares its row with two others and is never known.
    fn new(entries_max: usize) -> Self {
        Self(vec![[0; 2]; entries_max.next_power_of_two() * 2].into())
    }

    /// Whether this hash came by lately. From now on it has.
    fn knows(&mut self, hash: u64) -> bool {
        // Neither bits of the segment nor those of the table's own tags.
        let (at, mark) = (hash as usize >> 8 & (self.0.len() - 1), (hash >> 24) as u16 | 1);
        let row = &mut self.0[at];
        let is_known = row.contains(&mark);
        if row[0] != mark {
            *row = [mark, row[0]];
        }
        is_known
    }
}

#[derive(Debug)]
struct Slot {
    hash: u64,
    was_used: bool,
    local: Local,
}

impl Near {
    /// A table for at most `entries_max` entries, at least one.
    pub fn new(entries_max: usize) -> Self {
        let entries_max = entries_max.max(1);
        Self {
            table: HashTable::with_capacity(entries_max),
            entries_max,
            door: Door::new(entries_max),
            hand: 0,
            broom: 0,
            stats: ShardStats::default(),
        }
    }

    /// The usable entry for `request`, if it is here.
    pub(crate) fn find(&mut self, request: &Request<'_>) -> Option<&Local> {
        let cache_key = request.cache_key();
        let slot = self.table.find_mut(cache_key.hash, |slot| {
            let entry = slot.local.entry();
            slot.hash == cache_key.hash
                && entry.state().is_usable()
                && entry.cache_key.is(cache_key)
                && entry.variant.matches(request.fields)
        })?;
        slot.was_used = true;
        Some(&slot.local)
    }

    /// Takes `entry` in when it comes again, or at once in place of what it replaces, and gives
    /// this shard's handle to it.
    pub fn adopt(&mut self, entry: &Arc<Entry>) -> Local {
        let hash = entry.cache_key.hash();
        let same = |slot: &Slot| {
            let known = slot.local.entry();
            slot.hash == hash
                && known.cache_key == entry.cache_key
                && (!known.state().is_usable() || known.variant.same(&entry.variant))
        };
        let mut was_here = false;
        while let Ok(found) = self.table.find_entry(hash, same) {
            was_here = true;
            if Arc::ptr_eq(found.get().local.entry(), entry) {
                return found.get().local.clone();
            }
            found.remove();
        }
        let local = Local::new(Arc::clone(entry));
        if !self.door.knows(hash) && !was_here {
            return local;
        }
        if self.table.len() >= self.entries_max {
            self.give_up_one();
        }
        // The dead are not kept; those that were never in the index are dead from birth.
        if entry.state().is_usable() {
            let slot = Slot { hash, was_used: false, local: local.clone() };
            self.table.insert_unique(hash, slot, |slot| slot.hash);
        }
        local
    }

    /// Takes `entry` in where what it has taken the place of is held: a body that came in pieces is
    /// let go at once when it is one, and not when it is swept.
    pub fn renew(&mut self, entry: &Arc<Entry>) {
        let hash = entry.cache_key.hash();
        let is_older = |slot: &Slot| {
            let known = slot.local.entry();
            slot.hash == hash && known.state().is_dead() && known.cache_key == entry.cache_key
        };
        if self.table.find(hash, is_older).is_some() {
            self.adopt(entry);
        }
    }

    /// Looks at up to `buckets` buckets and lets go of the dead in them. Returns how many those
    /// were.
    pub fn sweep(&mut self, buckets: usize) -> usize {
        let mut freed_count = 0;
        for _ in 0..buckets.min(self.table.num_buckets()) {
            let at = self.broom;
            self.broom = (at + 1) % self.table.num_buckets();
            if let Ok(found) = self.table.get_bucket_entry(at)
                && found.get().local.entry().state().is_dead()
            {
                found.remove();
                freed_count += 1;
            }
        }
        freed_count
    }

    /// Lets go of everything.
    pub fn clear(&mut self) {
        self.table.clear();
    }

    /// Entries held.
    pub fn len(&self) -> usize {
        self.table.len()
    }

    /// Whether none is held.
    pub fn is_empty(&self) -> bool {
        self.table.is_empty()
    }

    /// Buckets of the table: so many swept is one round.
    pub fn bucket_count(&self) -> usize {
        self.table.num_buckets()
    }

    /// What this shard's look-ups came to, since the start.
    pub fn stats(&self) -> &ShardStats {
        &self.stats
    }

    fn give_up_one(&mut self) {
        let bucket_count = self.table.num_buckets();
        let mut visits = 0;
        // The table is full, so a bucket in use comes soon.
        loop {
            let at = self.hand;
            self.hand = (at + 1) % bucket_count;
            visits += 1;
            let Ok(mut found) = self.table.get_bucket_entry(at) else { continue };
            if found.get().was_used && visits < limits::NEAR_VISITS_MAX {
                found.get_mut().was_used = false;
                continue;
            }
            found.remove();
            return;
        }
    }
}

/// A shard's handle to an entry. Cloning it touches no other core's memory.
#[derive(Clone, Debug)]
pub struct Local(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    entry: Arc<Entry>,
    /// Chunk 0 of the body, once it is there: for most bodies all of it.
    first: OnceLock<Bytes>,
    /// Its encodings, once this shard has served them.
    encoded: Option<Box<[OnceLock<Local>; Coding::COUNT]>>,
}

/// A piece of a body, or why there is none.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Piece {
    /// The bytes from the offset asked for to the end of their chunk; never empty.
    Bytes(Bytes),
    /// Not arrived yet: [`Local::follow`].
    Pending,
    /// The body ended there.
    End,
    /// The body goes on elsewhere; [`crate::Reading`] follows it there.
    Spilled,
    /// The body was cut off there: end the response so that the client notices.
    Failed,
}

impl Local {
    pub(crate) fn new(entry: Arc<Entry>) -> Self {
        let encoded = entry.encodings().map(|_| Box::default());
        Self(Arc::new(Shared { entry, first: OnceLock::new(), encoded }))
    }

    /// The entry.
    pub fn entry(&self) -> &Arc<Entry> {
        &self.0.entry
    }

    /// The handle to its encoding, if that is there.
    pub(crate) fn encoded(&self, coding: Coding) -> Option<Self> {
        let made = self.0.entry.encodings()?.get(coding)?;
        let handle =
            self.0.encoded.as_ref()?[coding as usize].get_or_init(|| Self::new(Arc::clone(made)));
        Some(handle.clone())
    }

    /// The head of the 304 that stands for it; like [`Entry::head_and_status`].
    pub fn not_modified_head(&self) -> Vec<u8> {
        self.0.entry.head.not_modified()
    }

    /// How far its body is.
    pub fn progress(&self) -> Progress {
        self.0.entry.body.progress()
    }

    /// What the body holds from `offset` on.
    pub fn piece_at(&self, offset: u64) -> Piece {
        if let Some(partial) = &self.0.entry.partial {
            return piece_of_part(partial, offset);
        }
        let body = &self.0.entry.body;
        if let Some(bytes) = self.lend(body, offset) {
            return Piece::Bytes(bytes);
        }
        let progress = body.progress();
        match progress.state {
            // More may have come since the look above.
            _ if offset < progress.len => {
                self.lend(body, offset).map_or(Piece::Failed, Piece::Bytes)
            }
            BodyState::Filling => Piece::Pending,
            BodyState::Complete => Piece::End,
            BodyState::Failed => Piece::Failed,
            BodyState::Spilled => Piece::Spilled,
        }
    }

    /// Asks to be woken when the body has more than `offset` bytes, or has ended.
    pub fn follow(&self, offset: u64, waiter: Waiter) -> Follow {
        match &self.0.entry.partial {
            None => self.0.entry.body.follow_past(offset, waiter),
            Some(partial) => partial.at(offset).map_or(Follow::Ready, |part| {
                part.body.follow_past(part.offset_in_body(offset), waiter)
            }),
        }
    }

    /// Forgets a follower that has gone.
    pub fn unfollow(&self, waiter: Waiter) {
        match &self.0.entry.partial {
            None => self.0.entry.body.unfollow(waiter),
            Some(partial) => partial.bodies().for_each(|body| body.unfollow(waiter)),
        }
    }

    /// The head of a 206 with this part of it, or with several that `boundary` separates, and with
    /// content of this many bytes; like [`Entry::head_and_status`].
    pub fn partial_head(
        &self,
        boundary: Option<&str>,
        range: ByteRange,
        content_length: u64,
    ) -> Vec<u8> {
        let entry = &self.0.entry;
        entry.head.partial(boundary, range, (content_length, entry.length().unwrap_or(0)))
    }

    fn lend(&self, body: &Body, offset: u64) -> Option<Bytes> {
        if let Some(first) = self.0.first.get()
            && offset < first.len() as u64
        {
            return Some(first.slice(offset as usize..));
        }
        let (index, start) = body.locate(offset)?;
        let owner = ChunkOwner { local: self.clone(), index };
        if index > 0 {
            return Some(Bytes::from_owner(owner).slice((offset - start) as usize..));
        }
        // Kept in the handle itself, so it must not hold the handle.
        let first =
            self.0.first.get_or_init(|| Bytes::from_owner(FirstOwner(Arc::clone(&self.0.entry))));
        Some(first.slice(offset as usize..))
    }
}

/// What a partial entry holds from `offset` on, up to the end of a chunk or of its part.
fn piece_of_part(partial: &Parts, offset: u64) -> Piece {
    if offset >= partial.length {
        return Piece::End;
    }
    let Some(part) = partial.at(offset) else { return Piece::Failed };
    let in_body = part.offset_in_body(offset);
    let Some((index, start)) = part.body.locate(in_body) else {
        return match part.body.progress().state {
            BodyState::Filling => Piece::Pending,
            // A part has no overflow that leads to the next part.
            BodyState::Complete | BodyState::Failed | BodyState::Spilled => Piece::Failed,
        };
    };
    let mut bytes = Bytes::from_owner(PartOwner { body: Arc::clone(&part.body), index });
    bytes = bytes.slice((in_body - start) as usize..);
    bytes.truncate(usize::try_from(part.range.last - offset + 1).unwrap_or(usize::MAX));
    Piece::Bytes(bytes)
}

/// Keeps a body for one of its chunks.
struct PartOwner {
    body: Arc<Body>,
    index: u64,
}

impl AsRef<[u8]> for PartOwner {
    fn as_ref(&self) -> &[u8] {
        self.body.chunk(self.index).map_or(&[], |chunk| &chunk.bytes)
    }
}

/// Keeps an entry for the first chunk of its body.
struct FirstOwner(Arc<Entry>);

impl AsRef<[u8]> for FirstOwner {
    fn as_ref(&self) -> &[u8] {
        self.0.body.chunk(0).map_or(&[], |chunk| &chunk.bytes)
    }
}

/// Keeps a handle for one later chunk.
struct ChunkOwner {
    local: Local,
    index: u64,
}

impl AsRef<[u8]> for ChunkOwner {
    fn as_ref(&self) -> &[u8] {
        self.local.0.entry.body.chunk(self.index).map_or(&[], |chunk| &chunk.bytes)
    }
}
