//! Topics where not all topics' events come: those that are told, and how one begins to be.
//!
//! ```text
//!   untold ─begin: what there was, then all that comes─▶ told ─untell─▶ untold
//! ```
//! A topic that is not told here is empty and knows nothing: nobody may have a stream of it. It
//! begins with its past, up to the place in the feed where it begins; from there on its events come
//! in their order. So what is missing before is told as ever, by what stands before the oldest
//! event held, and where none is held by the base that came with the past (`own_base`).
//!
//! Leaves to others: who asks (`stream::interest`), the rules of histories (`topic`).

use std::sync::Arc;

use proto::feed::{
    cursor::{Dot, VersionVector},
    record::{Publish, Topic as Beginning},
};

use super::{Asked, Published, Topics};
use crate::seam::Mono;

impl Topics {
    /// From here on only the events of `told` come.
    pub fn narrow(&mut self, told: &[Box<str>]) {
        self.is_narrow = true;
        let known = Arc::clone(&self.known);
        for name in told {
            if let Some(row) = self.find_or_add(name) {
                self.at_mut(row).told = true;
            }
        }
        let told: hashbrown::HashSet<&str> = told.iter().map(|name| &**name).collect();
        for row in self.numbers() {
            if told.contains(self.at(row).name()) {
                self.own_base_of(row);
            } else {
                self.untell(row, &known);
            }
        }
    }

    /// From here on the events of all topics come. What is not told yet is about to be refilled.
    pub fn widen(&mut self) {
        self.is_narrow = false;
        for row in self.numbers() {
            if self.at(row).told {
                self.own_base_of(row);
            }
        }
        let known = Arc::clone(&self.known);
        self.base.merge(&known);
        (self.refilled, self.partly_refilled) = (false, false);
        self.floor.clear();
    }

    /// This topic's events come no more.
    pub fn drop_topic(&mut self, name: &str) {
        if let Some(row) = self.find(name) {
            let known = Arc::clone(&self.known);
            self.untell(row, &known);
        }
    }

    /// What is true of all topics is written down for this one: it goes on when the others do not.
    fn own_base_of(&mut self, row: u32) {
        if self.at(row).own_base.is_some() {
            return;
        }
        let from_of = |dot: Dot| {
            let first = self.floor.iter().find(|first| first.replica == dot.replica);
            let below = first.filter(|_| self.refilled).map_or(u64::MAX, |first| first.seq - 1);
            Dot { seq: dot.seq.min(below), ..dot }
        };
        let from = self.base.iter().map(from_of).filter(|dot| dot.seq > 0).collect();
        let is_partial = self.partly_refilled;
        let topic = &mut self.rows[row as usize];
        if is_partial && topic.history.has_refilled() {
            self.bytes -= topic.history.bytes();
            topic.history.clear();
            self.bytes += topic.history.bytes();
        }
        topic.own_base = Some(Box::new(from));
    }

    fn untell(&mut self, row: u32, known: &Arc<VersionVector>) {
        let topic = &mut self.rows[row as usize];
        topic.told = false;
        self.bytes -= topic.history.bytes();
        self.values_bytes -= topic.values_bytes();
        topic.history.clear();
        topic.newest = VersionVector::new();
        topic.id = Arc::clone(known);
        topic.values = None;
        topic.own_base = None;
        self.bytes += topic.history.bytes();
        self.behind.retain(|it| *it != row);
    }

    /// From here on this topic's events come; what there was before comes with it. `None`: there is
    /// no room for it.
    pub fn begin(&mut self, now: Mono, beginning: &Beginning) -> Option<u32> {
        let row = self.find_or_add(&beginning.topic)?;
        let was_told = self.at(row).told;
        if !was_told {
            let known = Arc::clone(&self.known);
            self.untell(row, &known);
            self.at_mut(row).told = true;
        }
        let before = self.at(row).own_base.clone().unwrap_or_default();
        let mut all_came = true;
        for event in &beginning.events {
            let is_here = self.put_before(now, row, event);
            // What is newer than its base has come in its order.
            all_came &= is_here || !before.contains(event.dot);
        }
        let known = Arc::clone(&self.known);
        let topic = &mut self.rows[row as usize];
        if !was_told || all_came {
            // Who was told meanwhile has it all without a hole; else what was missing still is.
            topic.own_base = Some(Box::new(beginning.from.clone()));
        }
        if !was_told {
            topic.id = known;
        }
        if !beginning.whole {
            topic.values.get_or_insert_default().note_incomplete();
        }
        self.bound(row, u64::MAX);
        self.expire(now);
        Some(row)
    }

    /// Puts an event into the history of a topic that begins; whether it is there now.
    fn put_before(&mut self, now: Mono, row: u32, event: &Publish) -> bool {
        let event = Publish { refill: true, ..event.clone() };
        let floor = self.floor.clone();
        let (refilled, partly) = (self.refilled, self.partly_refilled);
        let published = self.publish(now, &event, u64::MAX);
        // It says nothing of other topics.
        self.floor = floor;
        (self.refilled, self.partly_refilled) = (refilled, partly);
        debug_assert!(!matches!(published, Published::Stored(at) if at != row));
        published == Published::Stored(row)
    }

    /// This topic's events come, and did before they were asked for: what is held of it is whole,
    /// or its beginning is unknown here.
    pub fn confirm(&mut self, name: &str) -> Option<u32> {
        let row = self.find_or_add(name)?;
        let known = Arc::clone(&self.known);
        let topic = self.at_mut(row);
        if !topic.told {
            // It was forgotten here for want of room.
            topic.told = true;
            topic.own_base = Some(Box::new(VersionVector::clone(&known)));
            topic.id = known;
            topic.values.get_or_insert_default().note_incomplete();
        }
        if topic.asked == Asked::Yes {
            topic.asked = Asked::Confirmed;
        }
        Some(row)
    }

    /// All topics are told, whole.
    pub fn tell_all(&mut self) {
        self.rows.iter_mut().for_each(|topic| topic.told = true);
    }
}
