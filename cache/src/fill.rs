//! Writing the body of a new entry, while others read it.
//!
//! ```text
//!   Writer ──append…──▶ ──finish──▶ complete: what it superseded is gone for good
//!                       ──fail, drop─▶ failed: dead, and what it superseded is back
//! ```
//! Leaves to others: pacing and deadlines (`dataplane`), publication ([`crate::body`]).

use std::sync::Arc;

use crate::{
    Cache,
    body::{Body, BodyState},
    collapse::{Waiter, Wake, WakeWith},
    entry::Entry,
    limits,
};

/// Takes the body of one response. Dropped unfinished, it fails.
#[derive(Debug)]
pub struct Writer {
    cache: Arc<Cache>,
    entry: Arc<Entry>,
    len: u64,
    is_open: bool,
}

/// Why a body cannot be taken. The writer has failed then; readers have been told.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum WriteError {
    /// More or fewer bytes than announced.
    Length,
    /// More than the largest entry, and the length was not known before.
    TooLarge,
    /// Memory is full of what cannot be evicted.
    MemoryFull,
}

impl Writer {
    pub(crate) fn new(cache: Arc<Cache>, entry: Arc<Entry>) -> Self {
        Self { cache, entry, len: 0, is_open: true }
    }

    /// The entry whose body is written.
    pub fn entry(&self) -> &Arc<Entry> {
        &self.entry
    }

    /// Publishes more of the body; followers to be woken with [`WakeWith::Progress`] are added to
    /// `woken`.
    pub fn append(&mut self, bytes: &[u8], woken: &mut Vec<Waiter>) -> Result<(), WriteError> {
        assert!(self.is_open, "nothing is written after an error");
        let body = self.entry.body();
        self.len += bytes.len() as u64;
        let error = if body.length().is_some_and(|length| self.len > length) {
            WriteError::Length
        } else if self.len > self.cache.config().entry_bytes_max {
            WriteError::TooLarge
        } else if !self.cache.make_room(bytes.len() as u64) {
            WriteError::MemoryFull
        } else {
            body.append(bytes, woken);
            return Ok(());
        };
        self.end_failed(woken);
        Err(error)
    }

    /// Ends the body. Returns the entry that is stored now: the same one, or one with the same
    /// content in one piece.
    pub fn finish(mut self, woken: &mut Vec<Waiter>) -> Result<Arc<Entry>, WriteError> {
        assert!(self.is_open, "nothing is written after an error");
        let body = self.entry.body();
        if body.length().is_some_and(|length| self.len != length) {
            self.end_failed(woken);
            return Err(WriteError::Length);
        }
        body.end(BodyState::Complete, woken);
        self.is_open = false;
        let sealed = self.sealed();
        let mut segment = self.cache.segment_of(&self.entry.cache_key);
        let removed = segment.settle_filled(&self.entry);
        let stored = match sealed {
            Some(sealed) if segment.replace(&self.entry, &sealed) => sealed,
            sealed => {
                // Purged, evicted or updated meanwhile.
                if let Some(sealed) = sealed {
                    sealed.kill();
                }
                Arc::clone(&self.entry)
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

    /// The same content in one exact piece, where that costs little; with `Content-Length`, now
    /// that it is known.
    fn sealed(&self) -> Option<Arc<Entry>> {
        let body = self.entry.body();
        let is_scattered = body.chunk_count() > 1 && self.len <= limits::COMPACT_BYTES_MAX;
        if self.entry.state().is_dead() || (!is_scattered && self.entry.has_length()) {
            return None;
        }
        let account = self.cache.account();
        let body = match is_scattered {
            true => Arc::new(Body::complete(account, body.to_boxed()?)),
            false => Arc::clone(body),
        };
        Some(Arc::new(Entry::sealed(account, &self.entry, body)))
    }

    fn end_failed(&mut self, woken: &mut Vec<Waiter>) {
        self.is_open = false;
        self.entry.body().end(BodyState::Failed, woken);
        let mut segment = self.cache.segment_of(&self.entry.cache_key);
        let removed = segment.settle_failed(&self.entry);
        self.entry.kill();
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
