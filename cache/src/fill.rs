//! Writing the body of a new entry, while others read it.
//!
//! ```text
//!   Writer ──append…──▶ ──finish──▶ complete: what it superseded is gone for good
//!                       ──fail, drop─▶ failed: dead, and what it superseded is back
//!                       ──too large──▶ spilled: dead for others, goes on for those who read it
//! ```
//! Leaves to others: pacing and deadlines (`dataplane`), publication ([`crate::body`]).

use std::{
    collections::VecDeque,
    sync::{Arc, Weak},
};

use crate::{
    Cache,
    body::{Body, BodyState},
    collapse::{Waiter, Wake, WakeWith},
    entry::Entry,
    key::CacheKey,
    limits,
    stats::SharedStats,
};

/// Takes the body of one response. Dropped unfinished, it fails.
#[derive(Debug)]
pub struct Writer {
    cache: Arc<Cache>,
    target: Target,
    cache_key: CacheKey,
    /// As announced.
    length: Option<u64>,
    len: u64,
    is_open: bool,
}

/// Where bytes go.
#[derive(Debug)]
enum Target {
    Stored(Arc<Entry>),
    /// It was too large: into the newest part of the overflow, for those who read it already.
    Overflow(Overflow),
}

#[derive(Debug)]
struct Overflow {
    newest: Arc<Body>,
    /// Parts before it and their lengths, oldest first; each lives while a reader is at it or
    /// before it.
    older: VecDeque<(Weak<Body>, u64)>,
    /// The entry that it began as, while anybody holds that.
    first: Weak<Entry>,
}

/// Why a body cannot be taken. The writer has failed then; readers have been told.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum WriteError {
    /// More or fewer bytes than announced.
    Length,
    /// Whole, and not stored: it was too large, or memory was full of what cannot be evicted. Who
    /// read it has got all of it.
    NotStored,
}

impl Writer {
    pub(crate) fn new(cache: Arc<Cache>, entry: Arc<Entry>) -> Self {
        let (cache_key, length) = (entry.cache_key.clone(), entry.body().length());
        Self { cache, cache_key, length, target: Target::Stored(entry), len: 0, is_open: true }
    }

    /// Publishes more of the body; followers to be woken with [`WakeWith::Progress`] are added to
    /// `woken`. What is too large to be stored goes on in an overflow for those who read it.
    pub fn append(&mut self, bytes: &[u8], woken: &mut Vec<Waiter>) -> Result<(), WriteError> {
        assert!(self.is_open, "nothing is written after an error");
        self.len += bytes.len() as u64;
        if self.length.is_some_and(|length| self.len > length) {
            self.end_failed(woken);
            return Err(WriteError::Length);
        }
        if let Target::Stored(entry) = &self.target {
            let fits = self.len <= self.cache.config().entry_bytes_max;
            if fits && self.cache.make_room(bytes.len() as u64) {
                entry.body().append(bytes, woken);
                return Ok(());
            }
        }
        self.spill(woken).append(bytes, woken);
        Ok(())
    }

    /// Bytes of the parts of the overflow that not every reader has passed.
    pub fn spilled_bytes(&mut self) -> u64 {
        let Target::Overflow(overflow) = &mut self.target else { return 0 };
        while overflow.older.front().is_some_and(|(part, _)| part.strong_count() == 0) {
            overflow.older.pop_front();
        }
        let older: u64 = overflow.older.iter().map(|(_, len)| len).sum();
        older + overflow.newest.progress().len
    }

    /// Whether nobody is left who would read what comes: it cannot be stored, and nobody can join.
    pub fn is_abandoned(&mut self) -> bool {
        self.spilled_bytes();
        let Target::Overflow(overflow) = &self.target else { return false };
        // Beside ours, the newest part is held by its readers and by the part before it.
        let at_newest = Arc::strong_count(&overflow.newest) > 1;
        let at_first = overflow.first.upgrade().is_some_and(|entry| entry.body().has_readers());
        !(at_newest || at_first)
    }

    /// Ends the body. Returns the entry that is stored now: the same one, or one with the same
    /// content in one piece.
    pub fn finish(mut self, woken: &mut Vec<Waiter>) -> Result<Arc<Entry>, WriteError> {
        assert!(self.is_open, "nothing is written after an error");
        if self.length.is_some_and(|length| self.len != length) {
            self.end_failed(woken);
            return Err(WriteError::Length);
        }
        self.is_open = false;
        let entry = match &self.target {
            Target::Stored(entry) => Arc::clone(entry),
            Target::Overflow(overflow) => {
                overflow.newest.end(BodyState::Complete, woken);
                return Err(WriteError::NotStored);
            }
        };
        entry.body().end(BodyState::Complete, woken);
        let sealed = self.sealed(&entry);
        let mut segment = self.cache.segment_of(&self.cache_key);
        let removed = segment.settle_filled(&entry);
        let stored = match sealed {
            Some(sealed) if segment.replace(&entry, &sealed) => sealed,
            sealed => {
                // Purged, evicted or updated meanwhile.
                if let Some(sealed) = sealed {
                    sealed.kill();
                }
                entry
            }
        };
        drop(segment);
        drop(removed);
        Ok(stored)
    }

    /// Gives up: the rest of the body will not come.
    pub fn fail(mut self, woken: &mut Vec<Waiter>) {
        if self.is_open {
            self.end_failed(woken);
        }
    }

    /// The part of the overflow that takes what comes next.
    fn spill(&mut self, woken: &mut Vec<Waiter>) -> &Body {
        let fresh = || Arc::new(Body::filling(self.cache.account(), None));
        let next = match &self.target {
            Target::Overflow(overflow)
                if overflow.newest.progress().len < limits::SPILL_PART_BYTES =>
            {
                None
            }
            _ => Some(fresh()),
        };
        if let Some(next) = next {
            let kept = match &mut self.target {
                Target::Stored(entry) => {
                    let entry = Arc::clone(entry);
                    // Nobody joins any more; then the way on is shown to those who have.
                    self.settle_outdated(&entry);
                    SharedStats::count(&self.cache.stats.not_stored, 1);
                    entry.body().spill(&next, woken);
                    entry.body().forget_next();
                    (VecDeque::new(), Arc::downgrade(&entry))
                }
                Target::Overflow(overflow) => {
                    overflow.newest.spill(&next, woken);
                    let mut older = std::mem::take(&mut overflow.older);
                    let len = overflow.newest.progress().len;
                    older.push_back((Arc::downgrade(&overflow.newest), len));
                    (older, overflow.first.clone())
                }
            };
            let (older, first) = kept;
            self.target = Target::Overflow(Overflow { newest: next, older, first });
        }
        match &self.target {
            Target::Overflow(overflow) => &overflow.newest,
            Target::Stored(entry) => entry.body(),
        }
    }

    /// The same content in one exact piece, where that costs little; with `Content-Length`, now
    /// that it is known.
    fn sealed(&self, entry: &Entry) -> Option<Arc<Entry>> {
        let body = entry.body();
        let is_scattered = body.chunk_count() > 1 && self.len <= limits::COMPACT_BYTES_MAX;
        if entry.state().is_dead() || entry.is_partial() || (!is_scattered && entry.has_length()) {
            return None;
        }
        let account = self.cache.account();
        let body = match is_scattered {
            true => Arc::new(Body::complete(account, body.to_boxed()?)),
            false => Arc::clone(body),
        };
        Some(Arc::new(Entry::sealed(account, entry, body)))
    }

    fn end_failed(&mut self, woken: &mut Vec<Waiter>) {
        self.is_open = false;
        match &self.target {
            Target::Overflow(overflow) => overflow.newest.end(BodyState::Failed, woken),
            Target::Stored(entry) => {
                entry.body().end(BodyState::Failed, woken);
                self.settle_failed(entry);
            }
        }
    }

    /// Takes the entry out of the index, and what it superseded: an answer that cannot be stored
    /// outdates what is, as one whose length told so at once.
    fn settle_outdated(&self, entry: &Arc<Entry>) {
        let mut segment = self.cache.segment_of(&self.cache_key);
        let removed = segment.remove_outdated(entry);
        entry.kill();
        drop(segment);
        drop(removed);
    }

    /// Takes the entry out of the index; what it superseded is back.
    fn settle_failed(&self, entry: &Arc<Entry>) {
        let mut segment = self.cache.segment_of(&self.cache_key);
        let removed = segment.settle_failed(entry);
        entry.kill();
        drop(segment);
        drop(removed);
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        if self.is_open {
            let mut woken = Vec::new();
            self.end_failed(&mut woken);
            let wake = |waiter| Wake { waiter, with: WakeWith::Progress };
            self.cache.add_orphans(woken.into_iter().map(wake).collect());
        }
    }
}
