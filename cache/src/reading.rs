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
    body::{Body, BodyState, Follow},
    collapse::Waiter,
    entry::Entry,
    near::{Local, Piece},
    range::ByteRange,
};

/// One reader's place in a body.
pub struct Reading {
    at: At,
    /// Next byte, in the part that it is at.
    offset: u64,
    /// Bytes still to be read; `u64::MAX` for all there are.
    left: u64,
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
        Self { at: At::Stored { local, _hold: hold }, offset: 0, left: u64::MAX }
    }

    /// A part of it, which lies within its length.
    pub fn of_part(local: Local, part: ByteRange) -> Self {
        Self { offset: part.first, left: part.length(), ..Self::new(local) }
    }

    /// None of it.
    pub fn nothing(local: Local) -> Self {
        Self { left: 0, ..Self::new(local) }
    }

    /// The next piece; what it returns was read.
    pub fn next_piece(&mut self) -> Piece {
        if self.left == 0 {
            return Piece::End;
        }
        loop {
            let piece = match &self.at {
                At::Stored { local, .. } => local.piece_at(self.offset),
                At::Overflow(part) => overflow_piece(part, self.offset),
                At::Lost => Piece::Failed,
            };
            match piece {
                Piece::Spilled => self.move_on(),
                Piece::Bytes(mut bytes) => {
                    bytes.truncate(usize::try_from(self.left).unwrap_or(usize::MAX));
                    self.offset += bytes.len() as u64;
                    if self.left != u64::MAX {
                        self.left -= bytes.len() as u64;
                    }
                    return Piece::Bytes(bytes);
                }
                Piece::End if self.left != u64::MAX => return Piece::Failed,
                other => return other,
            }
        }
    }

    /// Asks to be woken when there is more than was read, or an end.
    pub fn follow(&self, waiter: Waiter) -> Follow {
        match &self.at {
            At::Stored { local, .. } => local.follow(self.offset, waiter),
            At::Overflow(part) => part.follow_past(self.offset, waiter),
            At::Lost => Follow::Ready,
        }
    }

    /// Takes that back.
    pub fn unfollow(&self, waiter: Waiter) {
        match &self.at {
            At::Stored { local, .. } => local.unfollow(waiter),
            At::Overflow(part) => part.unfollow(waiter),
            At::Lost => {}
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
        // Who reads from further on has not come to all of it.
        let passed_bytes = self.body().map_or(0, |body| body.progress().len);
        self.offset = self.offset.saturating_sub(passed_bytes);
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
