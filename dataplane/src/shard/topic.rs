//! Topics of one shard: what has been published, and where a resume begins.
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
//!               └ new ▶ [Gap if its predecessor never came] ▶ Live: history, then passes
//! ```
//! A reader of several topics has one cursor for all: every dot names one operation of a replica,
//! whatever its topic, so that a vector says of each topic what has been seen of it.
//!
//! Where only the events of some topics come (`coverage`), a topic that began late has a `base` of
//! its own, and a quiet one that is not told is unknown, not quiet: see `begin`.
//!
//! Leaves to others: what is held and read (`history`), present states (`last_values`), who listens
//! (`audience`), sending (`stream`, `fanout`).

mod begin;

use std::{collections::VecDeque, hash::BuildHasher, sync::Arc};

use bytes::Bytes;
use hashbrown::HashTable;
use proto::feed::{
    cursor::{Dot, Replica, VersionVector},
    record::Publish,
};

use super::{
    audience::merged,
    history::{
        self, Entry, History, Kind, Link, Portion, Reader, event_frame, gap_frame, is_event_name,
        loss_frame,
    },
    last_values::LastValues,
    region::{Region, Whose},
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
    /// Rows of the audiences that it belongs to.
    pub listeners: Vec<u32>,
    /// Open streams that carry it.
    pub streams: u32,
    /// Its present state, if its events have keys.
    values: Option<Box<LastValues>>,
    /// Beyond this none of its events was missing when it began to be told here by itself; what is
    /// true of all topics does not count for it.
    own_base: Option<Box<VersionVector>>,
    /// Its events come, where not all topics' do.
    pub told: bool,
    /// Whether this shard has asked for it, where not all topics' events come.
    pub asked: Asked,
    /// Since when it has been asked for and nobody listens.
    pub idle_since: Option<Mono>,
}

/// Whether a shard has asked for a topic's events.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub enum Asked {
    /// No.
    #[default]
    No,
    /// Yes; they may not come yet.
    Yes,
    /// Yes, and they come until it asks no more.
    Confirmed,
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
    /// Of a topic that is not told here, or not any more: dropped.
    Untold,
}

/// All topics of one shard.
pub struct Topics {
    rows: Vec<Topic>,
    index: HashTable<u32>,
    hasher: foldhash::fast::FixedState,
    known: Arc<VersionVector>,
    /// The same, and what events tell of that have reached it.
    announced: VersionVector,
    base: VersionVector,
    /// What control last said of its region.
    region: Option<Arc<Region>>,
    /// Whether every event below `base` that will come again has come.
    refilled: bool,
    /// Whether some have come, but not all.
    partly_refilled: bool,
    /// Of each replica that was refilled, the first event from which on none is missing.
    floor: Vec<Dot>,
    /// (topic, number) of all entries, oldest first; some already evicted by their topic's bounds.
    order: VecDeque<(u32, u64)>,
    /// Number of the next entry of any topic.
    next: u64,
    bytes: usize,
    /// Bytes of all topics' present states.
    values_bytes: usize,
    limits: HistoryLimits,
    /// Topics that hold more than that, because it was not sent yet.
    behind: Vec<u32>,
    /// Where the search for a topic to forget goes on.
    hand: usize,
    /// Only the events of topics that are `told` come.
    is_narrow: bool,
}

impl Topic {
    fn new(name: &str, first: u64, id: Arc<VersionVector>) -> Self {
        Self {
            name: name.into(),
            history: History::new(first),
            newest: VersionVector::new(),
            id,
            listeners: Vec::new(),
            streams: 0,
            values: None,
            own_base: None,
            told: false,
            asked: Asked::No,
            idle_since: None,
        }
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    fn values_bytes(&self) -> usize {
        self.values.as_ref().map_or(0, |values| values.bytes())
    }

    /// Adds an event that was not seen before.
    fn store(
        &mut self,
        record: &Publish,
        kind: Kind,
        known: &VersionVector,
        number: u64,
        now: Mono,
    ) {
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
        self.history.append(Entry { number, superseded_by: u64::MAX, kind, id, frame, at: now });
    }

    /// Keeps an event with a key as part of the topic's present state.
    fn keep_value(&mut self, record: &Publish, number: Option<u64>, all_bytes: &mut usize) {
        if record.key.is_none() {
            return;
        }
        let before = self.values_bytes();
        let room = limits::LAST_VALUES_BYTES_ALL_MAX.saturating_sub(*all_bytes);
        let superseded = self.values.get_or_insert_default().put(record, number, room);
        *all_bytes = *all_bytes - before + self.values_bytes();
        if let (Some(superseded), Some(number)) = (superseded, number) {
            self.history.supersede(superseded, number);
        }
    }

    /// Notes that something up to `to` may be missing.
    fn store_gap(&mut self, to: &VersionVector, number: u64, now: Mono) {
        Arc::make_mut(&mut self.id).merge(to);
        self.history.append(Entry {
            number,
            superseded_by: u64::MAX,
            kind: Kind::Gap,
            id: Arc::clone(&self.id),
            // Each reader is told what it lacks itself.
            frame: Bytes::new(),
            at: now,
        });
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
        if let Some(own_base) = &self.own_base {
            ever.merge(own_base);
            let lacks = ever.iter().map(|dot| {
                let before = self.history.before_oldest_of(dot.replica);
                Dot { seq: before.unwrap_or(dot.seq), ..dot }
            });
            return lacks.filter(|dot| dot.seq > 0 && !cursor.contains(*dot)).collect();
        }
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
            announced: VersionVector::new(),
            base: VersionVector::new(),
            region: None,
            refilled: false,
            partly_refilled: false,
            floor: Vec::new(),
            order: VecDeque::new(),
            next: 1,
            bytes: 0,
            values_bytes: 0,
            limits,
            behind: Vec::new(),
            hand: 0,
            is_narrow: false,
        }
    }

    /// Everything up to here has reached this shard.
    pub fn known(&self) -> &Arc<VersionVector> {
        &self.known
    }

    /// What can be asked of control because the feed, which is its own, has told of it.
    pub fn announced(&self) -> &VersionVector {
        &self.announced
    }

    /// Events held, at most; some may have been evicted already.
    pub fn history_count(&self) -> usize {
        self.order.len()
    }

    /// Bytes held in histories.
    pub fn history_bytes(&self) -> usize {
        self.bytes
    }

    /// Bytes held of present states.
    pub fn values_bytes(&self) -> usize {
        self.values_bytes
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

    /// Names of some, as a gap tells them.
    pub fn names(&self, members: &[u32]) -> String {
        let names: Vec<&str> = members.iter().map(|&row| &*self.at(row).name).collect();
        names.join(",")
    }

    /// Where a reader stands that has everything of some topics.
    pub fn end(&self, members: &[u32]) -> Reader {
        let cursor = merged(members.iter().map(|&row| &self.at(row).id));
        Reader { next: self.end_of(members), cursor }
    }

    /// The place behind everything published to some topics.
    pub fn end_of(&self, members: &[u32]) -> u64 {
        members.iter().map(|&row| self.at(row).history.end()).max().unwrap_or(0)
    }

    /// Gives out what comes next of some topics, see [`history::read`].
    pub fn read(
        &self,
        members: &[u32],
        name: &str,
        reader: &mut Reader,
        portion: Portion,
        frames: &mut Vec<Bytes>,
    ) {
        match members {
            [only] => history::read(&[&self.at(*only).history], name, reader, portion, frames),
            all => {
                let all: Vec<&History> = all.iter().map(|&row| &self.at(row).history).collect();
                history::read(&all, name, reader, portion, frames);
            }
        }
    }

    /// Whether a reader needs an event that is only refilled, see [`History::needs_refilled`].
    pub fn needs_refilled(&self, members: &[u32], reader: &Reader) -> bool {
        let mut histories = members.iter().map(|&row| &self.at(row).history);
        histories.any(|history| history.needs_refilled(reader.next, &reader.cursor))
    }

    /// The present state of a topic as one frame, if its events have keys.
    pub fn snapshot(&mut self, row: u32) -> Option<Bytes> {
        let topic = self.at_mut(row);
        topic.values.as_mut().map(|values| values.snapshot(&topic.name))
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

    /// A row with a new topic in it, instead of one that nobody listens to where there is no room.
    fn free_row(&mut self, name: &str) -> Option<u32> {
        let known = Arc::clone(&self.known);
        if self.rows.len() < self.limits.topics_max {
            self.rows.push(Topic::new(name, self.next, known));
            return Some(self.rows.len() as u32 - 1);
        }
        for _ in 0..self.rows.len().min(FORGET_LOOKS_MAX) {
            self.hand = (self.hand + 1) % self.rows.len();
            let old = &self.rows[self.hand];
            if !old.listeners.is_empty() || old.asked != Asked::No {
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
            self.values_bytes -= old.values_bytes();
            self.rows[self.hand] = Topic::new(name, self.next, known);
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

    /// Takes an event in. `unsent`: the place in this topic from which on those who take all they
    /// are sent have not been sent it.
    pub fn publish(&mut self, now: Mono, record: &Publish, unsent: u64) -> Published {
        if record.refill && !self.known.contains(record.dot) {
            return Published::Early;
        }
        if record.refill && !record.lone {
            self.note_floor(record.dot);
        }
        if !record.refill {
            self.announced.merge(&record.version);
        }
        if self.is_narrow && !self.find(&record.topic).is_some_and(|row| self.at(row).told) {
            return Published::Untold;
        }
        let Some(row) = self.find_or_add(&record.topic) else {
            // Events of a topic that there is no room for are missing.
            self.raise_floor(record.dot);
            return Published::NoTopic;
        };
        let known = Arc::clone(&self.known);
        let topic = &mut self.rows[row as usize];
        let link = Link { dot: record.dot, prev: record.prev };
        let unseen = !known.contains(record.dot);
        let implied = !unseen && (!record.refill || topic.history.implies(record.dot));
        let seen = topic.newest.contains(record.dot);
        let before = topic.history.bytes();
        let fits = record.data.len() <= limits::EVENT_DATA_BYTES_MAX;
        let mut next = self.next;
        if seen || implied {
            if record.refill && fits {
                topic.keep_value(record, None, &mut self.values_bytes);
            }
            if !seen {
                // A gap that was told stands for it, but perhaps not for long.
                self.raise_floor(record.dot);
            }
            return Published::Seen;
        }
        if !fits || !is_event_name(&record.event) {
            topic.newest.observe(record.dot);
            topic.store_gap(&VersionVector::from_iter([record.dot]), next, now);
        } else if unseen {
            if !link.follows(&topic.newest) && !link.follows(&known) {
                let missed = Dot { replica: record.dot.replica, seq: record.prev };
                topic.store_gap(&VersionVector::from_iter([missed]), next, now);
                next += 1;
            }
            topic.store(record, Kind::Live(link), &known, next, now);
            topic.keep_value(record, Some(next), &mut self.values_bytes);
        } else {
            (self.refilled, self.partly_refilled) = (false, true);
            topic.store(record, Kind::Refill(link), &known, next, now);
            topic.keep_value(record, Some(next), &mut self.values_bytes);
        }
        self.bytes = self.bytes - before + topic.history.bytes();
        self.order.extend((self.next..=next).map(|number| (row, number)));
        self.next = next + 1;
        self.bound(row, unsent);
        self.expire(now);
        Published::Stored(row)
    }

    /// Everything up to `applied` has reached this shard.
    pub fn note_known(&mut self, applied: &VersionVector) {
        if !self.known.covers(applied) {
            Arc::make_mut(&mut self.known).merge(applied);
            self.announced.merge(applied);
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
        self.order.clear();
        for (row, topic) in self.rows.iter_mut().enumerate() {
            topic.history.clear();
            topic.own_base = None;
            if topic.streams > 0 {
                topic.store_gap(&known, self.next, now);
                self.order.push_back((row as u32, self.next));
                self.next += 1;
                told.push(row as u32);
            } else {
                topic.id = Arc::clone(&known);
            }
        }
        self.bytes = self.rows.iter().map(|topic| topic.history.bytes()).sum();
        told
    }

    /// The store that numbers operations as `replica` says that it has `applied`, and nothing else
    /// of its region. What was known beyond is lost: nothing here speaks of it any more, and every
    /// stream is to be told. `jumped`: it is a snapshot that says so. Returns the topics whose
    /// streams must be told.
    pub fn hear(
        &mut self,
        now: Mono,
        applied: &VersionVector,
        replica: Replica,
        jumped: bool,
    ) -> Vec<u32> {
        let region = Arc::new(Region { replica, has: applied.clone() });
        let kept = region.without_lost(&self.known, Whose::All);
        let kept = kept.or_else(|| {
            let is_lost = region.without_lost(&self.announced, Whose::All).is_some();
            is_lost.then(|| VersionVector::clone(&self.known))
        });
        self.region = Some(Arc::clone(&region));
        match kept {
            Some(kept) => self.lose(kept, &region),
            None if jumped => self.jump(now, applied),
            None => {
                self.note_known(applied);
                Vec::new()
            }
        }
    }

    /// Begins anew with what is left of what was known.
    fn lose(&mut self, mut known: VersionVector, region: &Arc<Region>) -> Vec<u32> {
        known.merge(&region.has);
        (self.announced, self.base) = (known.clone(), known.clone());
        self.known = Arc::new(known);
        (self.refilled, self.partly_refilled) = (false, false);
        (self.bytes, self.values_bytes) = (0, 0);
        self.floor.clear();
        self.order.clear();
        self.next += 1;
        for topic in &mut self.rows {
            topic.history = History::after_loss(self.next, Arc::clone(region));
            topic.newest = VersionVector::new();
            topic.id = Arc::clone(&self.known);
            topic.values = None;
            topic.own_base = None;
        }
        let told = self.numbers().filter(|&row| self.at(row).streams > 0);
        told.collect()
    }

    /// What control last said of its region.
    pub fn region(&self) -> Option<&Arc<Region>> {
        self.region.as_ref()
    }

    /// Where a stream of some topics begins: at the present without a cursor, else behind what its
    /// cursor covers. A gap to be told first is put into `frames`.
    pub fn open(
        &self,
        members: &[u32],
        name: &str,
        last_event_id: Option<&str>,
        frames: &mut Vec<Bytes>,
    ) -> Reader {
        let Reader { next: end, cursor: mut present } = self.end(members);
        if !present.covers(&self.known) {
            Arc::make_mut(&mut present).merge(&self.known);
        }
        let Some(text) = last_event_id.filter(|text| !text.is_empty()) else {
            return Reader { next: end, cursor: present };
        };
        let Ok(cursor) = text.parse::<VersionVector>() else {
            frames.push(gap_frame(name, "", &present, &present));
            return Reader { next: end, cursor: present };
        };
        let region = self.region.as_ref();
        if let Some(kept) = region.and_then(|it| it.without_lost(&cursor, Whose::Former)) {
            let version = Arc::clone(&present);
            Arc::make_mut(&mut present).merge(&kept);
            frames.push(loss_frame(name, &cursor.to_string(), &present, &version));
            return Reader { next: end, cursor: present };
        }
        if cursor.iter().any(|dot| present.get(dot.replica) == 0) {
            // Nothing is known of a replica that the client has events of, as on an edge that has
            // just started without control: what it missed cannot be told from what it has.
            // Taking its cursor back would send it again what it has, once control is there.
            let version = Arc::clone(&present);
            Arc::make_mut(&mut present).merge(&cursor);
            frames.push(gap_frame(name, &cursor.to_string(), &present, &version));
            return Reader { next: end, cursor: present };
        }
        let floor = self.refilled.then_some(&*self.floor);
        let mut missing = VersionVector::new();
        for &row in members {
            missing.merge(&self.at(row).missing(&cursor, &self.base, floor));
        }
        if members.len() > 1 {
            missing.merge(&self.overshadowed(members, &cursor));
        }
        let first = members.iter().map(|&row| self.at(row).history.first()).min();
        let mut reader = Reader { next: first.unwrap_or(0), cursor: Arc::new(cursor) };
        if !missing.is_empty() {
            frames.push(reader.gap(name, &missing));
        }
        reader
    }

    /// Refilled events that a reader of several topics would take for read: an event of another
    /// topic stands before them whose id says that everything up to them has been read.
    fn overshadowed(&self, members: &[u32], cursor: &VersionVector) -> VersionVector {
        let histories = members.iter().map(|&row| &self.at(row).history);
        let mut entries: Vec<&Entry> = histories.flat_map(|history| history.from(0)).collect();
        entries.sort_unstable_by_key(|entry| entry.number);
        let (mut told, mut missing) = (cursor.clone(), VersionVector::new());
        for entry in entries {
            match entry.kind {
                Kind::Refill(link) if cursor.contains(link.dot) => {}
                Kind::Refill(link) if told.contains(link.dot) => {
                    missing.observe(link.dot);
                }
                _ => told.merge(&entry.id),
            }
        }
        missing
    }

    /// The cursor of a reader that has everything of some topics; `None` when this one has not.
    pub fn present(&self, members: &[u32], reader: &Reader) -> Option<Arc<VersionVector>> {
        let end = self.end(members);
        (reader.next == end.next).then(|| {
            let mut present = VersionVector::clone(&end.cursor);
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

    /// Topics that hold more than they should.
    pub fn behind(&self) -> &[u32] {
        &self.behind
    }

    /// Lets go of what is too much for the topic, as far as it was sent; what is far too much, all
    /// the same.
    pub fn bound(&mut self, row: u32, unsent: u64) {
        let history = &mut self.rows[row as usize].history;
        let is_over = |history: &History, count_max: usize, bytes_max: usize| {
            history.len() > count_max || history.bytes() > bytes_max
        };
        let (count_max, bytes_max) = (self.limits.count_max, self.limits.bytes_max);
        let [count_most, bytes_most] =
            [count_max, bytes_max].map(|max| max.saturating_mul(limits::HISTORY_UNSENT_FACTOR));
        while is_over(history, count_max, bytes_max)
            && (history.first() < unsent || is_over(history, count_most, bytes_most))
        {
            let before = history.bytes();
            history.evict();
            self.bytes -= before - history.bytes();
        }
        let is_behind = is_over(history, count_max, bytes_max);
        match self.behind.iter().position(|&it| it == row) {
            None if is_behind => self.behind.push(row),
            Some(at) if !is_behind => drop(self.behind.swap_remove(at)),
            _ => {}
        }
    }
}

/// Whether there can be a topic of this name. Names go into JSON as they are.
pub fn is_name(name: &str) -> bool {
    (1..=limits::TOPIC_NAME_BYTES_MAX).contains(&name.len())
        && name.bytes().all(|b| b.is_ascii_graphic() && b != b'"' && b != b'\\')
}

/// Topics looked at to find one to forget. Beyond: no room.
const FORGET_LOOKS_MAX: usize = 64;
