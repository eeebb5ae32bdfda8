//! What has come of the feed, as it came: each record encoded once, for all edges that follow.
//!
//! ```text
//!   base ─▶ │ record │ record id 41 │ beat id 41 │ record │ record id 42 │ ◀─ head
//!            first                  └ who has 41 goes on behind here
//! ```
//! Numbers of records are this process's own; what an edge names is its cursor, and it is found
//! only where its very operation ends in here. Nothing is judged: who asks for anything else is
//! sent elsewhere, control at last, whose word it is what is lost.
//!
//! Leaves to others: what edges that start are told of before (`past`), sending (`child`).

use std::{collections::VecDeque, sync::Arc};

use bytes::Bytes;
use hashbrown::{HashMap, HashSet};
use proto::feed::{
    cursor::{FeedCursor, StoreId},
    record::{Publish, Topic},
};

use super::past::{OfTopic, Past};
use crate::limits;

/// The newest records of the feed.
pub(super) struct Log {
    /// What the first record comes behind; `None` while that cannot be told.
    base: Option<At>,
    /// Number of the first record.
    first: u64,
    records: VecDeque<Entry>,
    bytes: usize,
    /// Events from before, and which of the records' events go with them.
    past: Past,
    /// Numbers of the records that are events of a topic, and no repetition.
    by_topic: HashMap<Box<str>, VecDeque<u64>>,
    /// From this record on, events follow on those of the past.
    past_ends: u64,
    /// Records sent again behind a snapshot are under way.
    behind_snapshot: bool,
}

/// A place in the order of one store.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct At {
    store: StoreId,
    position: u64,
}

/// A record that is held.
pub(super) struct Entry {
    /// As it is sent on.
    pub(super) frame: Bytes,
    /// What came up to here, if an operation ends here.
    pub(super) cursor: Option<Arc<FeedCursor>>,
    /// The event that it is, perhaps again.
    pub(super) event: Option<Arc<Publish>>,
    /// It is a beat.
    pub(super) is_beat: bool,
}

impl Entry {
    fn at(&self) -> Option<At> {
        self.cursor.as_deref().map(At::from)
    }

    /// The event that it is, and that is no repetition.
    fn news(&self) -> Option<&Arc<Publish>> {
        self.event.as_ref().filter(|event| !event.refill)
    }
}

/// One record as it came.
#[derive(Debug)]
pub(super) struct Told<'t> {
    /// Its kind.
    pub kind: &'t str,
    /// As it is sent on.
    pub frame: Bytes,
    /// The cursor that came with it.
    pub cursor: Option<&'t FeedCursor>,
    /// The event, if it is one.
    pub event: Option<Arc<Publish>>,
}

/// Where an edge goes on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Place {
    /// With this record.
    With(u64),
    /// It is ahead; this edge may come there.
    Ahead,
    /// Nobody here can tell.
    Unknown,
}

impl From<&FeedCursor> for At {
    fn from(cursor: &FeedCursor) -> Self {
        Self { store: cursor.store, position: cursor.position }
    }
}

impl Log {
    pub(super) fn new() -> Self {
        Self {
            base: None,
            first: 0,
            records: VecDeque::new(),
            bytes: 0,
            past: Past::default(),
            by_topic: HashMap::new(),
            past_ends: 0,
            behind_snapshot: false,
        }
    }

    /// Bytes held.
    pub(super) fn bytes(&self) -> usize {
        self.bytes + self.past.bytes()
    }

    /// Number of the first record held.
    pub(super) fn first(&self) -> u64 {
        self.first
    }

    /// Number that the next record will have.
    pub(super) fn end(&self) -> u64 {
        self.first + self.records.len() as u64
    }

    /// One of the records.
    pub(super) fn record(&self, number: u64) -> Option<&Entry> {
        let at = number.checked_sub(self.first)?;
        self.records.get(usize::try_from(at).ok()?)
    }

    /// What was on disk is where this edge goes on.
    pub(super) fn restored(&mut self, cursor: &FeedCursor) {
        if self.base.is_none() && self.records.is_empty() {
            self.base = Some(cursor.into());
            self.past.starts_behind(&cursor.applied);
        }
    }

    /// A session with whom this edge follows begins, and asks for events from before, or not.
    pub(super) fn session_begins(&mut self, history: bool) {
        self.behind_snapshot = false;
        self.past.session_begins(history);
    }

    /// What comes behind `cursor` does not follow on what came before.
    pub(super) fn break_off(&mut self, cursor: Option<&FeedCursor>) {
        self.clear();
        self.base = cursor.map(At::from);
        self.past.give_up();
        if let Some(cursor) = cursor {
            self.past.starts_behind(&cursor.applied);
        }
        self.past_ends = self.first;
        self.behind_snapshot = false;
    }

    fn clear(&mut self) {
        self.first = self.end();
        self.records.clear();
        self.by_topic.clear();
        self.bytes = 0;
    }

    /// Takes a record. `refilled`: no events from before are to be expected any more.
    pub(super) fn push(&mut self, told: Told<'_>, refilled: bool) {
        let again = told.event.as_ref().filter(|event| event.refill);
        if let Some(event) = again {
            self.past.refill(event);
            // Who follows has them already, unless a snapshot has just taken them from everyone.
            if !self.behind_snapshot {
                return;
            }
        } else if told.kind == "snapshot" {
            self.behind_snapshot = true;
            if let Some(cursor) = told.cursor {
                self.past.begin();
                self.past.starts_behind(&cursor.applied);
                self.past_ends = self.end() + 1;
            }
        } else if told.kind != "beat" {
            self.behind_snapshot = false;
        }
        let cursor = told.cursor.cloned().map(Arc::new);
        let is_beat = told.kind == "beat";
        let entry = Entry { frame: told.frame, cursor, event: told.event, is_beat };
        self.bytes += weight(&entry);
        if let Some(event) = entry.news() {
            let number = self.first + self.records.len() as u64;
            self.by_topic.entry(event.topic.as_str().into()).or_default().push_back(number);
        }
        self.records.push_back(entry);
        if self.base.is_none()
            && let Some(cursor) = told.cursor
        {
            // Only now it is known where we are.
            self.clear();
            self.base = Some(cursor.into());
            self.past.starts_behind(&cursor.applied);
            self.past_ends = self.first;
        }
        if refilled {
            self.past.is_whole();
        }
        self.bound();
    }

    /// Lets the oldest go, whole operations at a time.
    fn bound(&mut self) {
        let over = |log: &Self| {
            log.bytes > limits::RELAY_LOG_BYTES_MAX
                || log.records.len() > limits::RELAY_LOG_RECORDS_MAX
        };
        while over(self) {
            while let Some(entry) = self.records.pop_front() {
                self.bytes -= weight(&entry);
                if let Some(event) = entry.news() {
                    self.forget_number(&event.topic);
                    if self.first >= self.past_ends {
                        self.past.take_in(Arc::clone(event));
                    }
                }
                self.first += 1;
                if let Some(at) = entry.at() {
                    self.base = Some(at);
                    break;
                }
            }
            if self.records.is_empty() {
                return;
            }
        }
    }

    /// The first record is no more, which was an event of this topic.
    fn forget_number(&mut self, topic: &str) {
        if let Some(numbers) = self.by_topic.get_mut(topic) {
            numbers.pop_front();
            if numbers.is_empty() {
                self.by_topic.remove(topic);
            }
        }
    }

    /// Where an edge with this cursor goes on.
    pub(super) fn place(&self, cursor: &FeedCursor) -> Place {
        let wanted = At::from(cursor);
        let last = self.records.iter().rposition(|entry| entry.at() == Some(wanted));
        if let Some(at) = last {
            return Place::With(self.first + at as u64 + 1);
        }
        if self.base == Some(wanted) {
            return Place::With(self.first);
        }
        let head = self.records.iter().rev().find_map(Entry::at).or(self.base);
        match head {
            Some(head) if head.store == wanted.store && head.position < wanted.position => {
                Place::Ahead
            }
            Some(_) => Place::Unknown,
            // This edge has only just begun itself.
            None => Place::Ahead,
        }
    }

    /// Whether events from before a record can be told.
    pub(super) fn has_past(&self) -> bool {
        self.past.can_be_told()
    }

    /// Whether they never will be.
    pub(super) fn has_no_past(&self) -> bool {
        self.past.is_given_up()
    }

    /// Events from before a record, oldest first.
    pub(super) fn past(&self, before: u64) -> VecDeque<Arc<Publish>> {
        let mut events = self.past.events();
        let numbered = (self.first..).zip(&self.records);
        let own = numbered.take_while(|(number, _)| *number < before);
        let own = own.filter(|(number, _)| *number >= self.past_ends);
        events.extend(own.filter_map(|(_, entry)| entry.news().cloned()));
        events
    }

    /// Whether a topic can begin at an edge that goes on with this record: all that there was
    /// before is here, or never will be.
    pub(super) fn can_begin(&self, next: u64) -> bool {
        next >= self.past_ends && (self.past.can_be_told() || self.past.is_given_up())
    }

    /// A topic as it begins at an edge that goes on with record `next`.
    pub(super) fn beginning(&self, ask: u64, topic: &str, next: u64) -> Topic {
        let mut of_topic = self.past.of_topic(topic);
        let numbers = self.by_topic.get(topic).into_iter().flatten().copied();
        let numbers = numbers.filter(|number| (self.past_ends..next).contains(number));
        let events = numbers.filter_map(|number| self.record(number)?.event.clone());
        of_topic.events.extend(events);
        let OfTopic { from, whole, events } = bounded(of_topic);
        let again = |event: Arc<Publish>| Publish { refill: true, ..(*event).clone() };
        let events = events.into_iter().map(again).collect();
        Topic { ask, topic: topic.to_owned(), from, whole, events }
    }
}

/// Takes out the oldest events where all do not fit into one record, but the newest of each event
/// key.
fn bounded(all: OfTopic) -> OfTopic {
    let OfTopic { mut from, mut whole, events } = all;
    let (mut kept, mut keys, mut bytes, mut is_full) = (VecDeque::new(), HashSet::new(), 0, false);
    for event in events.into_iter().rev() {
        let size = serde_json::to_vec(&*event).map_or(0, |json| json.len() + 1);
        is_full |= bytes + size > limits::TOPIC_EVENTS_BYTES_MAX / 2;
        let is_newest = event.key.clone().is_some_and(|key| keys.insert(key));
        if !is_full {
            bytes += size;
            kept.push_front(event);
            continue;
        }
        from.observe(event.dot);
        if is_newest && bytes + size <= limits::TOPIC_EVENTS_BYTES_MAX {
            bytes += size;
            kept.push_front(Arc::new(Publish { lone: true, ..(*event).clone() }));
        } else {
            whole &= !is_newest;
        }
    }
    OfTopic { from, whole, events: kept.into() }
}

fn weight(entry: &Entry) -> usize {
    let event = entry.event.as_ref().map_or(0, |event| event.data.len() + event.topic.len() + 128);
    entry.frame.len() + event + ENTRY_BYTES
}

const ENTRY_BYTES: usize = size_of::<Entry>() + 32;

#[cfg(test)]
mod tests {
    use super::*;

    fn cursor(position: u64) -> FeedCursor {
        format!("00000000000000ff.{position}.a-00000000:{position}").parse().expect("a cursor")
    }

    fn event(position: u64, key: Option<&str>, refill: bool) -> Arc<Publish> {
        let dot = format!("a-00000000:{position}").parse().expect("a dot");
        Arc::new(Publish {
            position,
            topic: "t".into(),
            dot,
            prev: position - 1,
            event: "n".into(),
            data: "d".repeat(1000),
            key: key.map(Into::into),
            version: [dot].into_iter().collect(),
            refill,
            lone: false,
        })
    }

    fn publish(log: &mut Log, position: u64, key: Option<&str>) {
        let (frame, cursor) = (Bytes::from(vec![b'x'; 1000]), cursor(position));
        let event = Some(event(position, key, false));
        log.push(Told { kind: "publish", frame, cursor: Some(&cursor), event }, true);
    }

    fn bare(log: &mut Log, kind: &str, position: Option<u64>) {
        let cursor = position.map(cursor);
        let frame = Bytes::from_static(b"x");
        log.push(Told { kind, frame, cursor: cursor.as_ref(), event: None }, true);
    }

    fn past(log: &Log, before: u64) -> Vec<u64> {
        log.past(before).iter().map(|event| event.position).collect()
    }

    #[test]
    fn an_edge_goes_on_behind_its_very_operation_or_elsewhere() {
        let mut log = Log::new();
        assert_eq!(log.place(&cursor(1)), Place::Ahead, "nothing is known yet");
        log.restored(&cursor(4));
        assert_eq!(log.place(&cursor(4)), Place::With(0));
        assert_eq!(log.place(&cursor(3)), Place::Unknown, "what comes behind it is not held");
        bare(&mut log, "purge", None);
        publish(&mut log, 5, None);
        bare(&mut log, "beat", Some(5));
        publish(&mut log, 6, None);
        assert_eq!(log.place(&cursor(4)), Place::With(0), "the purge again");
        assert_eq!(log.place(&cursor(5)), Place::With(3));
        assert_eq!(log.place(&cursor(6)), Place::With(4));
        assert_eq!(log.place(&cursor(7)), Place::Ahead);
        let other: FeedCursor = "00000000000000fe.5.a-00000000:5".parse().expect("a cursor");
        assert_eq!(log.place(&other), Place::Unknown);
        log.break_off(Some(&cursor(8)));
        assert_eq!(log.place(&cursor(6)), Place::Unknown);
        assert_eq!((log.place(&cursor(8)), log.first()), (Place::With(4), 4));
    }

    #[test]
    fn what_leaves_for_want_of_room_leaves_in_whole_operations() {
        let mut log = Log::new();
        log.restored(&cursor(1));
        let mut position = 1;
        while log.first() == 0 {
            position += 1;
            bare(&mut log, "purge", None);
            publish(&mut log, position, None);
        }
        assert_eq!(log.first(), 2);
        assert_eq!(log.place(&cursor(1)), Place::Unknown);
        assert_eq!(log.place(&cursor(2)), Place::With(2), "what has left is where it begins");
        assert!(log.bytes() <= limits::RELAY_LOG_BYTES_MAX);
    }

    #[test]
    fn who_starts_is_told_what_was_refilled_here_and_all_that_came_since() {
        let mut log = Log::new();
        log.restored(&cursor(4));
        let frame = Bytes::from_static(b"x");
        for position in [2, 3] {
            let event = Some(event(position, None, true));
            let told = Told { kind: "publish", frame: frame.clone(), cursor: None, event };
            log.push(told, false);
        }
        assert!(!log.has_past(), "more may come");
        assert_eq!(log.end(), 0, "who follows has them");
        publish(&mut log, 5, None);
        publish(&mut log, 6, None);
        assert!(log.has_past());
        assert_eq!(past(&log, 1), [2, 3, 5], "the rest comes as news");
        // A snapshot begins anew, and what is sent again behind it is for everyone.
        bare(&mut log, "snapshot", Some(9));
        let event = Some(event(8, None, true));
        log.push(Told { kind: "publish", frame, cursor: None, event }, false);
        assert_eq!(log.end(), 4);
        assert!(!log.has_past());
        publish(&mut log, 10, None);
        assert_eq!(past(&log, log.end()), [8, 10]);
    }

    #[test]
    fn of_events_that_left_the_newest_of_each_key_is_still_told() {
        let mut log = Log::new();
        log.restored(&cursor(1));
        publish(&mut log, 2, Some("a"));
        publish(&mut log, 3, Some("b"));
        publish(&mut log, 4, Some("a"));
        publish(&mut log, 5, None);
        let mut position = 5;
        while log.first() < 4 {
            position += 1;
            publish(&mut log, position, None);
        }
        let told = past(&log, log.end());
        assert_eq!(told[..3], [3, 4, 6], "{:?}", &told[..4]);
        let lone: Vec<bool> = log.past(log.end()).iter().take(3).map(|event| event.lone).collect();
        assert_eq!(lone, [true, true, false]);
    }
}
