//! Topics of one shard: what has been published, who is caught up, and where a resume begins.
//!
//! Two vectors belong to all topics of a shard. `known`: everything up to here that concerns any
//! topic has reached this shard; with it a quiet topic has a present cursor too, and a stream that
//! reconnects with it is known to have missed nothing. `base`: what lies at or below it may be
//! missing from a history, because it was before this process (or before a hole in the feed).
//!
//! A resume is complete when its cursor covers, of each replica, the predecessor of the oldest
//! event held, or where none is held the newest event ever seen, and `base`. Until the feed has
//! refilled all it can, `base` counts in both cases. If it does not cover them, the gap is told
//! first.
//!
//! What is refilled is the end of the log, of all topics. So of each replica that came in it, no
//! event of any topic is missing from the first one on (`floor`): behind that, a quiet topic's
//! `base` need not be covered.
//!
//! ```text
//!  publish ─▶ seen before? ─yes▶ dropped
//!               │no
//!               ├ covered by known: refilled ▶ Refill, history only; else ▶ dropped
//!               └ new ▶ [Gap if its predecessor never came] ▶ Live: history, then a pass
//! ```
//! Leaves to others: the order of entries (`history`), sending (`stream`, `fanout`).

use std::{collections::VecDeque, hash::BuildHasher, sync::Arc};

use bytes::{Bytes, BytesMut};
use hashbrown::HashTable;
use proto::feed::{
    cursor::{Dot, VersionVector},
    record::Publish,
};

use super::{
    fanout::Targets,
    history::{Entry, History, Kind, Link, Portion, Reader, event_frame, gap_frame, is_event_name},
};
use crate::{limits, seam::Mono};

/// Bounds of what is kept, per topic and per shard. The defaults are those of [`limits`].
#[derive(Clone, Copy, Debug)]
pub struct HistoryLimits {
    /// Events of one topic.
    pub count_max: usize,
    /// Bytes of one topic.
    pub bytes_max: usize,
    /// Age of an event.
    pub age_ms_max: u64,
    /// Events of all topics.
    pub count_all_max: usize,
    /// Bytes of all topics.
    pub bytes_all_max: usize,
    /// Topics.
    pub topics_max: usize,
}

impl Default for HistoryLimits {
    fn default() -> Self {
        Self {
            count_max: limits::HISTORY_COUNT_MAX,
            bytes_max: limits::HISTORY_BYTES_MAX,
            age_ms_max: limits::HISTORY_AGE_MS_MAX,
            count_all_max: limits::HISTORY_COUNT_ALL_MAX,
            bytes_all_max: limits::HISTORY_BYTES_ALL_MAX,
            topics_max: limits::TOPICS_MAX,
        }
    }
}

/// One topic.
pub struct Topic {
    name: Box<str>,
    history: History,
    /// Of this topic's own events, the newest of each replica ever seen.
    newest: VersionVector,
    /// The cursor of a reader that has everything.
    id: Arc<VersionVector>,
    /// The caught-up streams.
    pub targets: Targets,
    /// Caught-up streams have everything before this number, or lack only the pass under way.
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

/// What became of a publish.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Published {
    /// In the history of this topic; streams are to be served.
    Stored(u32),
    /// Seen before, dropped.
    Seen,
    /// Sent again although the feed has not come that far: dropped, it will come in its order.
    Early,
    /// Not a name, or no room for another topic: dropped.
    NoTopic,
}

/// All topics of one shard.
pub struct Topics {
    rows: Vec<Topic>,
    index: HashTable<u32>,
    hasher: foldhash::fast::FixedState,
    known: Arc<VersionVector>,
    base: VersionVector,
    /// Whether every event below `base` that will come again has come.
    refilled: bool,
    /// Whether some have come, but not all.
    partly_refilled: bool,
    /// Of each replica that was refilled, the first event from which on none is missing.
    floor: Vec<Dot>,
    /// (topic, number) of all entries, oldest first; some already evicted by their topic's bounds.
    order: VecDeque<(u32, u64)>,
    bytes: usize,
    limits: HistoryLimits,
    /// Where the search for a topic to forget goes on.
    hand: usize,
}

impl Topic {
    fn new(name: &str, first: u64, id: Arc<VersionVector>) -> Self {
        let start = Reader { next: first, cursor: Arc::clone(&id) };
        Self {
            name: name.into(),
            history: History::new(first, Arc::clone(&id)),
            newest: VersionVector::new(),
            id,
            targets: Targets::default(),
            through: start.clone(),
            pass_start: start,
            frame: Bytes::new(),
            waiting: Vec::new(),
            streams: 0,
            queued: false,
            removed: false,
            sent_at: Mono(0),
        }
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Whether something was published that the caught-up streams lack, apart from a pass under
    /// way.
    pub fn has_pending(&self) -> bool {
        self.through.next < self.history.end()
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
    pub fn begin_pass(&mut self, now: Mono) -> bool {
        debug_assert!(!self.targets.in_pass(), "one pass at a time");
        if self.targets.is_empty() {
            self.through = Reader { next: self.history.end(), cursor: Arc::clone(&self.id) };
            return false;
        }
        let mut frames = Vec::new();
        let portion = Portion {
            end: self.history.end(),
            bytes_max: limits::FANOUT_FRAME_BYTES_MAX,
            frames_max: usize::MAX,
            live_only: true,
        };
        let mut through = self.through.clone();
        self.history.read(&self.name, &mut through, portion, &mut frames);
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
    pub fn read(&self, reader: &mut Reader, frames: &mut Vec<Bytes>) {
        let portion = Portion {
            end: self.through.next,
            bytes_max: limits::CATCH_UP_BYTES_MAX,
            // Beside these: the head, a gap before them, the beat behind them.
            frames_max: limits::SEGMENTS_MAX - 4,
            live_only: false,
        };
        self.history.read(&self.name, reader, portion, frames);
    }

    /// Whether a reader stands where the list stands, so that its next frame is everyone's: nothing
    /// it already has may come again.
    pub fn is_caught_up(&self, reader: &Reader, known: &VersionVector) -> bool {
        let in_place = reader.next == self.through.next;
        if !in_place || self.history.needs_refilled(reader.next, &reader.cursor) {
            return false;
        }
        let through = &self.through.cursor;
        through.covers(&reader.cursor)
            || !self.has_pending()
                && reader.cursor.iter().all(|dot| through.contains(dot) || known.contains(dot))
    }

    /// Adds an event that was not seen before.
    fn store(&mut self, record: &Publish, kind: Kind, known: &VersionVector, now: Mono) {
        let id = match kind {
            // What a refilled event implies is only its own line of events: others of the
            // topic may be refilled after it.
            Kind::Refill(_) => {
                let mut id = self.newest.clone();
                id.observe(record.dot);
                Arc::new(id)
            }
            Kind::Live(_) | Kind::Gap => {
                let mut id = Arc::clone(&self.id);
                let new = Arc::make_mut(&mut id);
                new.merge(known);
                new.observe(record.dot);
                self.id = Arc::clone(&id);
                id
            }
        };
        self.newest.observe(record.dot);
        let frame = event_frame(Some(&id), &record.event, &record.data);
        self.history.append(Entry { kind, id, frame, at: now });
    }

    /// Notes that something up to `to` may be missing.
    fn store_gap(&mut self, to: &VersionVector, now: Mono) {
        let from = self.id.to_string();
        let id = Arc::make_mut(&mut self.id);
        id.merge(to);
        let frame = gap_frame(&self.name, &from, id);
        let id = Arc::clone(&self.id);
        self.history.append(Entry { kind: Kind::Gap, id, frame, at: now });
    }

    /// What a cursor lacks that the history cannot tell of. `floor`: from where on nothing is
    /// missing, once everything was refilled that can be.
    fn missing(
        &self,
        cursor: &VersionVector,
        base: &VersionVector,
        floor: Option<&[Dot]>,
    ) -> VersionVector {
        let mut ever = self.newest.clone();
        ever.merge(base);
        ever.iter()
            .map(|dot| match (self.history.before_oldest_of(dot.replica), floor) {
                (Some(seq), Some(_)) => Dot { seq, ..dot },
                (Some(seq), None) => Dot { seq: seq.max(base.get(dot.replica)), ..dot },
                (None, Some(floor)) => {
                    let first = floor.iter().find(|first| first.replica == dot.replica);
                    let below = first.map_or(u64::MAX, |first| first.seq.saturating_sub(1));
                    let seq = base.get(dot.replica).min(below);
                    Dot { seq: seq.max(self.newest.get(dot.replica)), ..dot }
                }
                (None, None) => dot,
            })
            .filter(|dot| dot.seq > 0 && !cursor.contains(*dot))
            .collect()
    }
}

impl Topics {
    /// None yet.
    pub fn new(limits: HistoryLimits, seed: u64) -> Self {
        Self {
            rows: Vec::new(),
            index: HashTable::new(),
            hasher: foldhash::fast::FixedState::with_seed(seed),
            known: Arc::default(),
            base: VersionVector::new(),
            refilled: false,
            partly_refilled: false,
            floor: Vec::new(),
            order: VecDeque::new(),
            bytes: 0,
            limits,
            hand: 0,
        }
    }

    /// Everything up to here has reached this shard.
    pub fn known(&self) -> &Arc<VersionVector> {
        &self.known
    }

    /// Events held, at most; some may have been evicted already.
    pub fn history_count(&self) -> usize {
        self.order.len()
    }

    /// Bytes held in histories.
    pub fn history_bytes(&self) -> usize {
        self.bytes
    }

    /// Topics there are.
    pub fn count(&self) -> usize {
        self.rows.len()
    }

    /// All there are.
    pub fn numbers(&self) -> std::ops::Range<u32> {
        0..self.rows.len() as u32
    }

    /// One of them.
    pub fn at(&self, topic: u32) -> &Topic {
        &self.rows[topic as usize]
    }

    /// One of them.
    pub fn at_mut(&mut self, topic: u32) -> &mut Topic {
        &mut self.rows[topic as usize]
    }

    /// The topic of this name, if something was ever published or subscribed there.
    pub fn find(&self, name: &str) -> Option<u32> {
        let hash = self.hasher.hash_one(name);
        self.index.find(hash, |&row| *self.rows[row as usize].name == *name).copied()
    }

    /// The topic of this name, new if need be. `None`: not a name, or no room.
    pub fn find_or_add(&mut self, name: &str) -> Option<u32> {
        if let Some(found) = self.find(name) {
            return Some(found);
        }
        if !is_name(name) {
            return None;
        }
        let row = self.free_row(name)?;
        let hash = self.hasher.hash_one(name);
        let (rows, hasher) = (&self.rows, &self.hasher);
        self.index.insert_unique(hash, row, |&row| hasher.hash_one(&*rows[row as usize].name));
        Some(row)
    }

    /// A row with a new topic in it, instead of one without streams where there is no room.
    fn free_row(&mut self, name: &str) -> Option<u32> {
        let known = Arc::clone(&self.known);
        if self.rows.len() < self.limits.topics_max {
            self.rows.push(Topic::new(name, 0, known));
            return Some(self.rows.len() as u32 - 1);
        }
        for _ in 0..self.rows.len().min(FORGET_LOOKS_MAX) {
            self.hand = (self.hand + 1) % self.rows.len();
            let old = &self.rows[self.hand];
            if old.streams > 0 || old.queued {
                continue;
            }
            let row = self.hand as u32;
            let hash = self.hasher.hash_one(&*old.name);
            if let Ok(entry) = self.index.find_entry(hash, |&other| other == row) {
                entry.remove();
            }
            // A resume there can no longer be judged by what was newest.
            self.base.merge(&old.newest);
            // Nor can it be said any more that nothing is missing up to there.
            for first in &mut self.floor {
                first.seq = first.seq.max(old.newest.get(first.replica) + 1);
            }
            self.bytes -= old.history.bytes();
            self.rows[self.hand] = Topic::new(name, old.history.end(), known);
            return Some(row);
        }
        None
    }

    /// An event has come again, and all after it will, or have.
    fn note_floor(&mut self, dot: Dot) {
        match self.floor.iter_mut().find(|first| first.replica == dot.replica) {
            // They come in the order of the log: only the first counts.
            Some(_) => {}
            None => self.floor.push(dot),
        }
    }

    /// This event is missing, or cannot be told of any more.
    fn raise_floor(&mut self, dot: Dot) {
        for first in self.floor.iter_mut().filter(|first| first.replica == dot.replica) {
            first.seq = first.seq.max(dot.seq + 1);
        }
    }

    /// Takes an event in.
    pub fn publish(&mut self, now: Mono, record: &Publish) -> Published {
        if record.refill && !self.known.contains(record.dot) {
            return Published::Early;
        }
        if record.refill {
            self.note_floor(record.dot);
        }
        let Some(row) = self.find_or_add(&record.topic) else {
            // Events of a topic that there is no room for are missing.
            self.raise_floor(record.dot);
            return Published::NoTopic;
        };
        let known = Arc::clone(&self.known);
        let topic = &mut self.rows[row as usize];
        if topic.newest.contains(record.dot) {
            return Published::Seen;
        }
        let before = (topic.history.bytes(), topic.history.end());
        let link = Link { dot: record.dot, prev: record.prev };
        let unseen = !known.contains(record.dot);
        if !unseen && (!record.refill || topic.history.implies(record.dot)) {
            // A gap that was told stands for it, but perhaps not for long.
            self.raise_floor(record.dot);
            return Published::Seen;
        }
        if record.data.len() > limits::EVENT_DATA_BYTES_MAX || !is_event_name(&record.event) {
            topic.newest.observe(record.dot);
            topic.store_gap(&VersionVector::from_iter([record.dot]), now);
        } else if unseen {
            if !link.follows(&topic.newest) && !link.follows(&known) {
                let missed = Dot { replica: record.dot.replica, seq: record.prev };
                topic.store_gap(&VersionVector::from_iter([missed]), now);
            }
            topic.store(record, Kind::Live(link), &known, now);
        } else {
            (self.refilled, self.partly_refilled) = (false, true);
            topic.store(record, Kind::Refill(link), &known, now);
        }
        self.bytes = self.bytes - before.0 + topic.history.bytes();
        self.order.extend((before.1..topic.history.end()).map(|number| (row, number)));
        self.bound(row);
        self.expire(now);
        Published::Stored(row)
    }

    /// Everything up to `applied` has reached this shard.
    pub fn note_known(&mut self, applied: &VersionVector) {
        if !self.known.covers(applied) {
            Arc::make_mut(&mut self.known).merge(applied);
        }
    }

    /// Events are about to come again. Histories that were refilled in part are let go: what was
    /// missing there may be beyond what control still has.
    pub fn note_refilling(&mut self) {
        self.refilled = false;
        self.floor.clear();
        if std::mem::take(&mut self.partly_refilled) {
            for topic in self.rows.iter_mut().filter(|topic| topic.history.has_refilled()) {
                self.bytes -= topic.history.bytes();
                topic.history.clear();
            }
        }
    }

    /// All events that come again have come.
    pub fn note_refilled(&mut self) {
        (self.refilled, self.partly_refilled) = (true, false);
    }

    /// The feed begins anew at `applied`, and what lies between may be missing. Returns the topics
    /// whose streams must be told.
    pub fn jump(&mut self, now: Mono, applied: &VersionVector) -> Vec<u32> {
        if self.known.covers(applied) {
            return Vec::new();
        }
        self.note_known(applied);
        (self.refilled, self.partly_refilled) = (false, false);
        self.floor.clear();
        let known = Arc::clone(&self.known);
        self.base.merge(&known);
        let mut told = Vec::new();
        for (row, topic) in self.rows.iter_mut().enumerate() {
            topic.history.clear();
            if topic.streams > 0 {
                topic.store_gap(&known, now);
                told.push(row as u32);
            } else {
                topic.id = Arc::clone(&known);
                topic.through = Reader { next: topic.history.end(), cursor: Arc::clone(&known) };
            }
        }
        self.order.clear();
        self.order.extend(told.iter().map(|&row| (row, self.rows[row as usize].history.first())));
        self.bytes = self.rows.iter().map(|topic| topic.history.bytes()).sum();
        told
    }

    /// Where a stream begins: at the present without a cursor, else behind what its cursor covers.
    /// A gap to be told first is put into `frames`.
    pub fn open(&self, row: u32, last_event_id: Option<&str>, frames: &mut Vec<Bytes>) -> Reader {
        let topic = &self.rows[row as usize];
        let mut present = Arc::clone(&topic.id);
        if !present.covers(&self.known) {
            Arc::make_mut(&mut present).merge(&self.known);
        }
        let Some(text) = last_event_id.filter(|text| !text.is_empty()) else {
            return Reader { next: topic.history.end(), cursor: present };
        };
        let Ok(cursor) = text.parse::<VersionVector>() else {
            frames.push(gap_frame(&topic.name, "", &present));
            return Reader { next: topic.history.end(), cursor: present };
        };
        if cursor.iter().any(|dot| present.get(dot.replica) == 0) {
            // Nothing is known of a replica that the client has events of, as on an edge that has
            // just started without control: what it missed cannot be told from what it has.
            // Taking its cursor back would send it again what it has, once control is there.
            Arc::make_mut(&mut present).merge(&cursor);
            frames.push(gap_frame(&topic.name, &cursor.to_string(), &present));
            return Reader { next: topic.history.end(), cursor: present };
        }
        let floor = self.refilled.then_some(&*self.floor);
        let missing = topic.missing(&cursor, &self.base, floor);
        let mut reader = Reader { next: topic.history.first(), cursor: Arc::new(cursor) };
        if !missing.is_empty() {
            frames.push(reader.gap(&topic.name, &missing));
        }
        reader
    }

    /// The cursor of a reader that has everything of this topic.
    pub fn present(&self, row: u32, reader: &Reader) -> Option<Arc<VersionVector>> {
        let topic = &self.rows[row as usize];
        (reader.next == topic.history.end()).then(|| {
            let mut present = VersionVector::clone(&topic.id);
            present.merge(&self.known);
            present.merge(&reader.cursor);
            Arc::new(present)
        })
    }

    /// Lets go of what is too old or too much for the shard, a bounded number at a time.
    pub fn expire(&mut self, now: Mono) {
        for _ in 0..limits::EXPIRE_A_TURN_MAX {
            let Some(&(row, number)) = self.order.front() else { break };
            let topic = &mut self.rows[row as usize];
            let held = number >= topic.history.first() && number < topic.history.end();
            let age_limit = |at: Mono| at.after_ms(self.limits.age_ms_max) <= now;
            let over = self.bytes > self.limits.bytes_all_max
                || self.order.len() > self.limits.count_all_max
                || topic.history.oldest_at().is_some_and(age_limit);
            if held && !over {
                break;
            }
            self.order.pop_front();
            if held {
                let before = topic.history.bytes();
                topic.history.evict();
                self.bytes -= before - topic.history.bytes();
            }
        }
    }

    /// When [`Topics::expire`] has something to do by age.
    pub fn next_expiry(&self) -> Option<Mono> {
        let &(row, _) = self.order.front()?;
        let oldest_at = self.rows[row as usize].history.oldest_at().unwrap_or_default();
        Some(oldest_at.after_ms(self.limits.age_ms_max))
    }

    /// Lets go of what is too much for the topic.
    fn bound(&mut self, row: u32) {
        let history = &mut self.rows[row as usize].history;
        while history.len() > self.limits.count_max || history.bytes() > self.limits.bytes_max {
            let before = history.bytes();
            history.evict();
            self.bytes -= before - history.bytes();
        }
    }
}

/// Whether there can be a topic of this name. Names go into JSON as they are.
pub fn is_name(name: &str) -> bool {
    (1..=limits::TOPIC_NAME_BYTES_MAX).contains(&name.len())
        && name.bytes().all(|b| b.is_ascii_graphic() && b != b'"' && b != b'\\')
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

/// Topics looked at to find one to forget. Beyond: no room.
const FORGET_LOOKS_MAX: usize = 64;
