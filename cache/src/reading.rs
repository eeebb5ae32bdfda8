//! Reading one body from its first byte to its last, and across its overflow.
//!
//! ```text
//!   stored chunks ──Spilled──▶ overflow part ──▶ next part ──▶ … ──▶ end
//!     kept by the entry          kept by whoever has not read past it
//! ```
//! A body that turns out too large to be stored goes on in *parts*: each knows the next, nobody
//! knows one before. What every reader has passed is therefore free, and what is held is what lies
//! between the slowest reader and the writer, which the writer's owner bounds by waiting.
//!
//! Who begins while the body fills is counted on it, so that the entry, which a near table may hold
//! for a while yet, lets go of the first part when the last of them has moved on.

use std::sync::Arc;

use bytes::Bytes;

use crate::{
    body::{Body, BodyState, Follow, Progress},
    collapse::Waiter,
    entry::Entry,
    near::{Local, Piece},
};

/// One reader's place in a body.
pub struct Reading {
    at: At,
    /// Next byte, in the part that it is at.
    offset: u64,
}

/// Keeps the way to the overflow open for whoever is about to begin reading.
pub struct Hold(Option<Arc<Entry>>);

enum At {
    Stored {
        local: Local,
        /// Counts us as one who may have to move on.
        _hold: Hold,
    },
    Overflow(Arc<Body>),
    /// The way on is gone: it came too late.
    Lost,
}

impl Hold {
    /// Costs nothing for a body that is complete.
    pub fn new(entry: &Arc<Entry>) -> Self {
        let may_spill = entry.body.progress().state != BodyState::Complete;
        Self(may_spill.then(|| {
            entry.body.enter();
            Arc::clone(entry)
        }))
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        if let Some(entry) = &self.0 {
            entry.body.leave();
        }
    }
}

impl Reading {
    /// From the first byte on.
    pub fn new(local: Local) -> Self {
        let hold = Hold::new(local.entry());
        Self { at: At::Stored { local, _hold: hold }, offset: 0 }
    }

    /// The next piece; what it returns was read.
    pub fn next_piece(&mut self) -> Piece {
        loop {
            let piece = match &self.at {
                At::Stored { local, .. } => local.piece_at(self.offset),
                At::Overflow(part) => overflow_piece(part, self.offset),
                At::Lost => Piece::Failed,
            };
            match piece {
                Piece::Spilled => self.move_on(),
                Piece::Bytes(bytes) => {
                    self.offset += bytes.len() as u64;
                    return Piece::Bytes(bytes);
                }
                other => return other,
            }
        }
    }

    /// Asks to be woken when there is more than was read, or an end.
    pub fn follow(&self, waiter: Waiter) -> Follow {
        let seen = Progress { len: self.offset, state: BodyState::Filling };
        self.body().map_or(Follow::Ready, |body| body.follow(seen, waiter))
    }

    /// Takes that back.
    pub fn unfollow(&self, waiter: Waiter) {
        if let Some(body) = self.body() {
            body.unfollow(waiter);
        }
    }

    fn body(&self) -> Option<&Body> {
        match &self.at {
            At::Stored { local, .. } => Some(&local.entry().body),
            At::Overflow(part) => Some(part),
            At::Lost => None,
        }
    }

    fn move_on(&mut self) {
        let next = self.body().and_then(Body::next_part);
        self.offset = 0;
        // What was read is let go of here, and with it the count of its readers.
        self.at = next.map_or(At::Lost, At::Overflow);
    }
}

fn overflow_piece(part: &Arc<Body>, offset: u64) -> Piece {
    // State first: what is below its length is there.
    let progress = part.progress();
    if let Some((index, start)) = part.locate(offset) {
        let owner = PartOwner { part: Arc::clone(part), index };
        return Piece::Bytes(Bytes::from_owner(owner).slice((offset - start) as usize..));
    }
    match progress.state {
        BodyState::Filling => Piece::Pending,
        BodyState::Complete => Piece::End,
        BodyState::Failed => Piece::Failed,
        BodyState::Spilled => Piece::Spilled,
    }
}

/// Keeps a part for one of its chunks.
struct PartOwner {
    part: Arc<Body>,
    index: u64,
}

impl AsRef<[u8]> for PartOwner {
    fn as_ref(&self) -> &[u8] {
        self.part.chunk(self.index).map_or(&[], |chunk| &chunk.bytes)
    }
}
