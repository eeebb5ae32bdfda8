//! Audiences of one shard: the streams that listen to the same topics under the same rules.
//!
//! ```text
//!   page/7 ────────▶ audience {page/7, rules of pages} ────────▶ its caught-up streams
//!   orders/eu ─┬───▶ audience {orders/eu, rules of a route}
//!              └┐
//!   news ──────┴───▶ audience {news, orders/eu}          (?topic=news&topic=orders/eu)
//! ```
//! What a stream is fits in sixteen bytes because everything that streams have in common stands
//! here: which topics, what becomes of a slow one, how far the caught-up ones are. A pass gives all
//! pending events of all its topics to the caught-up streams as one frame.
//!
//! Leaves to others: what was published (`topic`, `history`), who is in the list (`fanout`), what
//! is sent to whom (`stream`).

use std::{hash::BuildHasher, rc::Rc, sync::Arc};

use bytes::{Bytes, BytesMut};
use foldhash::fast::FixedState;
use hashbrown::HashTable;
use proto::feed::{cursor::VersionVector, site::SlowPolicy};

use super::{
    fanout::{Moved, Targets},
    history::{Portion, Reader},
    stream_route::StreamRoute,
    topic::Topics,
};
use crate::{
    limits,
    seam::{Mono, SocketId},
};

/// One audience.
pub struct Audience {
    /// Rows of its topics, by name.
    members: Box<[u32]>,
    /// Names of its topics, as a gap tells them.
    name: Box<str>,
    /// By which rules.
    route: Rc<StreamRoute>,
    /// The caught-up streams.
    pub targets: Targets,
    /// Caught-up streams have everything before this place, or lack only the pass under way.
    through: Reader,
    /// Where those stand who lack it.
    pass_start: Reader,
    /// The frame of the pass under way; kept until its outcome is known everywhere.
    frame: Bytes,
    /// Streams (slots) outside the list that have read up to `through` and wait for more.
    pub waiting: Vec<u32>,
    /// Open streams, in the list or not.
    pub streams: u32,
    /// Whether it waits for its turn.
    pub queued: bool,
    /// Whether its streams are to be ended.
    pub removed: bool,
    /// When a frame last began its way to the streams.
    pub sent_at: Mono,
}

impl Audience {
    /// Rows of its topics.
    pub fn members(&self) -> &[u32] {
        &self.members
    }

    /// Names of its topics, as a gap tells them.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its rules.
    pub fn route(&self) -> &Rc<StreamRoute> {
        &self.route
    }

    /// What becomes of its slow streams.
    pub fn slow(&self) -> SlowPolicy {
        self.route.rules.slow
    }

    /// Nobody listens yet: what was published so far is no part of what it waits for.
    pub fn begin(&mut self, topics: &Topics) {
        debug_assert!(self.streams == 0, "those who listen have a place");
        self.through = topics.end(&self.members);
        self.pass_start = self.through.clone();
        self.removed = false;
    }

    /// The place of the next event that the caught-up streams are given.
    pub fn next(&self) -> u64 {
        self.through.next
    }

    /// Whether something was published that the caught-up streams lack, apart from a pass under
    /// way.
    pub fn has_pending(&self, topics: &Topics) -> bool {
        self.through.next < topics.end_of(&self.members)
    }

    /// The frame of the pass under way.
    pub fn frame(&self) -> &Bytes {
        &self.frame
    }

    /// Nobody's outcome is unknown any more: lets go of the frame unless the pass goes on.
    pub fn settle(&mut self) {
        if !self.targets.in_pass() {
            self.frame = Bytes::new();
        }
    }

    /// Where a stream stands that is in the list: behind the pass, or before it.
    pub fn place_of(&self, was_sent: bool) -> Reader {
        if was_sent { self.through.clone() } else { self.pass_start.clone() }
    }

    /// Starts a pass with what is pending. `false`: there was nothing to send.
    pub fn begin_pass(&mut self, topics: &Topics, now: Mono) -> bool {
        debug_assert!(!self.targets.in_pass(), "one pass at a time");
        if self.targets.is_empty() {
            self.through = topics.end(&self.members);
            return false;
        }
        let mut frames = Vec::new();
        let portion = Portion {
            end: topics.end_of(&self.members),
            bytes_max: limits::FANOUT_FRAME_BYTES_MAX,
            frames_max: usize::MAX,
            live_only: true,
            conflate: false,
        };
        let mut through = self.through.clone();
        topics.read(&self.members, &self.name, &mut through, portion, &mut frames);
        self.pass_start = std::mem::replace(&mut self.through, through);
        if frames.is_empty() {
            return false;
        }
        self.frame = join(frames);
        self.sent_at = now;
        self.targets.begin_pass();
        true
    }

    /// Reads on for a stream outside the list, at most to where the list is.
    pub fn read(&self, topics: &Topics, reader: &mut Reader, frames: &mut Vec<Bytes>) {
        let portion = Portion {
            end: self.through.next,
            bytes_max: limits::CATCH_UP_BYTES_MAX,
            // Beside these: the head, a gap before them, a snapshot, the beat behind them.
            frames_max: limits::SEGMENTS_MAX - 5,
            live_only: false,
            conflate: self.slow() == SlowPolicy::Conflate,
        };
        topics.read(&self.members, &self.name, reader, portion, frames);
    }

    /// Takes a stream outside the list to where the list is; what lies between is told as a gap.
    /// Whether anything does.
    pub fn skip(&self, reader: &mut Reader, frames: &mut Vec<Bytes>) -> bool {
        let missed = reader.next < self.through.next && !reader.cursor.covers(&self.through.cursor);
        if missed {
            frames.push(reader.gap(&self.name, &self.through.cursor));
        }
        reader.next = reader.next.max(self.through.next);
        missed
    }

    /// Where a stream begins, see [`Topics::open`].
    pub fn open(
        &self,
        topics: &Topics,
        last_event_id: Option<&str>,
        frames: &mut Vec<Bytes>,
    ) -> Reader {
        topics.open(&self.members, &self.name, last_event_id, frames)
    }

    /// Puts a caught-up stream into the list; its place, and who moved.
    pub fn join(&mut self, socket: SocketId, reader: &Reader) -> (u32, Option<Moved>) {
        // It may know of more than anything here tells. That is no event of these topics, but what
        // the list is told next must not take it back.
        if !self.through.cursor.covers(&reader.cursor) {
            Arc::make_mut(&mut self.through.cursor).merge(&reader.cursor);
        }
        self.targets.join(socket)
    }

    /// Whether a reader stands where the list stands, so that its next frame is everyone's: nothing
    /// it already has may come again.
    pub fn is_caught_up(&self, topics: &Topics, reader: &Reader) -> bool {
        let in_place = reader.next == self.through.next;
        if !in_place || topics.needs_refilled(&self.members, reader) {
            return false;
        }
        let (through, known) = (&self.through.cursor, topics.known());
        through.covers(&reader.cursor)
            || !self.has_pending(topics)
                && reader.cursor.iter().all(|dot| through.contains(dot) || known.contains(dot))
    }
}

/// All audiences of one shard.
pub struct Audiences {
    rows: Vec<Option<Audience>>,
    free: Vec<u32>,
    index: HashTable<u32>,
    hasher: FixedState,
    audiences_max: usize,
    /// Where the search for an audience to forget goes on.
    hand: usize,
}

impl Audiences {
    /// None yet.
    pub fn new(audiences_max: usize, seed: u64) -> Self {
        Self {
            rows: Vec::new(),
            free: Vec::new(),
            index: HashTable::new(),
            hasher: FixedState::with_seed(seed),
            audiences_max,
            hand: 0,
        }
    }

    /// One of them.
    pub fn at(&self, row: u32) -> &Audience {
        self.rows[row as usize].as_ref().expect("a stream's audience is there")
    }

    /// One of them.
    pub fn at_mut(&mut self, row: u32) -> &mut Audience {
        self.rows[row as usize].as_mut().expect("a stream's audience is there")
    }

    /// All there are.
    pub fn iter(&self) -> impl Iterator<Item = (u32, &Audience)> {
        let rows = self.rows.iter().enumerate();
        rows.filter_map(|(row, audience)| Some((row as u32, audience.as_ref()?)))
    }

    /// The audience of these topics under these rules, new if need be. `None`: there is no room.
    pub fn find_or_add(
        &mut self,
        members: &[u32],
        route: &Rc<StreamRoute>,
        topics: &mut Topics,
    ) -> Option<u32> {
        let hash = self.hasher.hash_one(members);
        let is_it = |row: &u32| {
            let audience = self.rows[*row as usize].as_ref();
            audience.is_some_and(|it| {
                *it.members == *members && (Rc::ptr_eq(&it.route, route) || it.route == *route)
            })
        };
        if let Some(row) = self.index.find(hash, is_it) {
            return Some(*row);
        }
        let row = self.free_row(topics)?;
        let start = topics.end(members);
        self.rows[row as usize] = Some(Audience {
            members: members.into(),
            name: topics.names(members).into(),
            route: Rc::clone(route),
            targets: Targets::default(),
            through: start.clone(),
            pass_start: start,
            frame: Bytes::new(),
            waiting: Vec::new(),
            streams: 0,
            queued: false,
            removed: false,
            sent_at: Mono(0),
        });
        members.iter().for_each(|&member| topics.at_mut(member).listeners.push(row));
        let (rows, hasher) = (&self.rows, &self.hasher);
        let rehash = |row: &u32| match &rows[*row as usize] {
            Some(audience) => hasher.hash_one(&*audience.members),
            None => 0,
        };
        self.index.insert_unique(hash, row, rehash);
        Some(row)
    }

    /// See [`Audience::settle`]; the audience may be gone.
    pub fn settle(&mut self, row: u32) {
        if let Some(audience) = &mut self.rows[row as usize] {
            audience.settle();
        }
    }

    /// Forgets an audience that nobody listens in.
    pub fn forget(&mut self, row: u32, topics: &mut Topics) {
        let Some(audience) = self.rows[row as usize].take() else { return };
        debug_assert!(audience.is_idle(), "an audience goes when its streams have gone");
        let hash = self.hasher.hash_one(&*audience.members);
        if let Ok(entry) = self.index.find_entry(hash, |&other| other == row) {
            entry.remove();
        }
        for &member in &*audience.members {
            topics.at_mut(member).listeners.retain(|&listener| listener != row);
        }
        self.free.push(row);
    }

    /// A row for a new audience, instead of one that nobody listens in where there is no room.
    fn free_row(&mut self, topics: &mut Topics) -> Option<u32> {
        if self.free.is_empty() && self.rows.len() < self.audiences_max {
            self.rows.push(None);
            return Some(self.rows.len() as u32 - 1);
        }
        for _ in 0..self.rows.len().min(FORGET_LOOKS_MAX) {
            if !self.free.is_empty() {
                break;
            }
            self.hand = (self.hand + 1) % self.rows.len();
            if self.rows[self.hand].as_ref().is_some_and(Audience::is_idle) {
                self.forget(self.hand as u32, topics);
            }
        }
        self.free.pop()
    }
}

impl Audience {
    /// Nobody listens, and nothing is to be done for who did.
    pub fn is_idle(&self) -> bool {
        self.streams == 0 && !self.queued
    }
}

/// One piece of several.
fn join(mut frames: Vec<Bytes>) -> Bytes {
    if frames.len() == 1 {
        return frames.remove(0);
    }
    let mut all = BytesMut::with_capacity(frames.iter().map(Bytes::len).sum());
    for frame in &frames {
        all.extend_from_slice(frame);
    }
    all.freeze()
}

/// The cursor of a reader that has everything of several topics.
pub fn merged<'a>(mut ids: impl Iterator<Item = &'a Arc<VersionVector>>) -> Arc<VersionVector> {
    let mut all = ids.next().map(Arc::clone).unwrap_or_default();
    for id in ids {
        if !all.covers(id) {
            Arc::make_mut(&mut all).merge(id);
        }
    }
    all
}

/// Audiences looked at to find one to forget. Beyond: no room.
const FORGET_LOOKS_MAX: usize = 64;
