//! Events from before the records that are held: what an edge that starts is told first.
//!
//! They came to this edge when it started itself, or behind a snapshot. Of what is let go of later
//! for want of room only the newest event of each event key is kept, as control does: a topic's
//! present state must be whole.
//!
//! ```text
//!   Unknown ─first─▶ Coming ─all have come─▶ Whole ─no room─▶ GivenUp
//! ```
//! What is missing can be told of each topic: nothing beyond a vector that holds for all of them,
//! and beyond the topic's own events that were let go of.

use std::{
    collections::{BTreeMap, VecDeque},
    ops::Bound::{Included, Unbounded},
    sync::Arc,
};

use proto::feed::{
    cursor::{Dot, VersionVector},
    record::Publish,
};

use crate::limits;

/// Events from before.
#[derive(Default)]
pub(super) struct Past {
    state: State,
    /// Of each topic in the order of the log.
    events: BTreeMap<Box<str>, Vec<Arc<Publish>>>,
    /// The newest of each topic and event key, of what was let go of.
    values: BTreeMap<(Box<str>, Box<str>), Arc<Publish>>,
    bytes: usize,
    /// What came before all records that were ever held.
    start: VersionVector,
    /// Beyond this nothing is missing, but for what was let go of.
    beyond: VersionVector,
    /// Of what was let go of, the newest of each topic and replica.
    gone: BTreeMap<Box<str>, VersionVector>,
}

/// What can be told of one topic from before.
pub(super) struct OfTopic {
    /// Beyond this nothing of it is missing.
    pub(super) from: VersionVector,
    /// The newest of each event key is there.
    pub(super) whole: bool,
    /// Its events, oldest first.
    pub(super) events: Vec<Arc<Publish>>,
}

#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
enum State {
    #[default]
    Unknown,
    Coming,
    Whole,
    GivenUp,
}

impl Past {
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Records are held of what comes behind this.
    pub(super) fn starts_behind(&mut self, start: &VersionVector) {
        (self.start, self.beyond) = (start.clone(), start.clone());
    }

    fn anew(&mut self, state: State) {
        let start = std::mem::take(&mut self.start);
        *self = Self { state, beyond: start.clone(), start, ..Self::default() };
    }

    /// Another past is about to be told.
    pub(super) fn begin(&mut self) {
        self.anew(State::Unknown);
    }

    /// It cannot be told.
    pub(super) fn give_up(&mut self) {
        let gone = std::mem::take(&mut self.gone);
        let beyond = std::mem::take(&mut self.beyond);
        self.anew(State::GivenUp);
        gone.values().chain([&beyond]).for_each(|gone| self.beyond.merge(gone));
    }

    /// A session with whom this edge follows begins, and asks for events from before, or not.
    pub(super) fn session_begins(&mut self, history: bool) {
        match self.state {
            State::Whole | State::GivenUp => {}
            State::Unknown | State::Coming if history => self.begin(),
            State::Unknown | State::Coming => self.give_up(),
        }
    }

    /// An event has come again. The first one begins anew.
    pub(super) fn refill(&mut self, event: &Arc<Publish>) {
        if self.state != State::Coming {
            self.anew(State::Coming);
        }
        let Dot { replica, seq } = event.dot;
        if !event.lone && self.beyond.get(replica) >= seq {
            // They come in the order of the log: behind the first one none is missing.
            let lower =
                |dot: Dot| if dot.replica == replica { Dot { seq: seq - 1, ..dot } } else { dot };
            self.beyond = self.beyond.iter().map(lower).filter(|dot| dot.seq > 0).collect();
        }
        self.bytes += weight(event);
        self.events.entry(event.topic.as_str().into()).or_default().push(Arc::clone(event));
        self.bound();
    }

    /// All have come.
    pub(super) fn is_whole(&mut self) {
        if self.state != State::GivenUp {
            self.state = State::Whole;
        }
    }

    /// An event that came later is let go of: nothing before it can be relied on.
    pub(super) fn take_in(&mut self, event: Arc<Publish>) {
        if self.state == State::GivenUp {
            self.beyond.observe(event.dot);
            return;
        }
        for event in std::mem::take(&mut self.events).into_values().flatten() {
            self.bytes -= weight(&event);
            self.keep_value(event);
        }
        self.keep_value(event);
        if self.gone.len() > limits::PAST_TOPICS_MAX {
            let gone = std::mem::take(&mut self.gone);
            gone.values().for_each(|gone| self.beyond.merge(gone));
        }
        self.bound();
    }

    fn keep_value(&mut self, event: Arc<Publish>) {
        match self.gone.get_mut(event.topic.as_str()) {
            Some(gone) => drop(gone.observe(event.dot)),
            None => {
                let gone = VersionVector::from_iter([event.dot]);
                self.gone.insert(event.topic.as_str().into(), gone);
            }
        }
        let Some(key) = event.key.as_deref() else { return };
        self.bytes += weight(&event);
        let place = (event.topic.as_str().into(), key.into());
        if let Some(old) = self.values.insert(place, event) {
            self.bytes -= weight(&old);
        }
    }

    fn bound(&mut self) {
        if self.bytes > limits::RELAY_PAST_BYTES_MAX {
            self.give_up();
        }
    }

    pub(super) fn can_be_told(&self) -> bool {
        self.state == State::Whole
    }

    pub(super) fn is_given_up(&self) -> bool {
        self.state == State::GivenUp
    }

    /// All of them, oldest first.
    pub(super) fn events(&self) -> VecDeque<Arc<Publish>> {
        let mut values: Vec<_> = self.values.values().map(lone).collect();
        values.sort_by_key(|event| event.position);
        let mut events: Vec<_> = self.events.values().flatten().cloned().collect();
        events.sort_by_key(|event| event.position);
        values.into_iter().chain(events).collect()
    }

    /// Those of one topic.
    pub(super) fn of_topic(&self, topic: &str) -> OfTopic {
        let mut from = self.beyond.clone();
        if let Some(gone) = self.gone.get(topic) {
            from.merge(gone);
        }
        let first: (Box<str>, Box<str>) = (topic.into(), "".into());
        let values = self.values.range((Included(first), Unbounded));
        let values = values.take_while(|((of, _), _)| **of == *topic);
        let mut events: Vec<_> = values.map(|(_, event)| lone(event)).collect();
        events.sort_by_key(|event| event.position);
        events.extend(self.events.get(topic).into_iter().flatten().cloned());
        OfTopic { from, whole: self.can_be_told(), events }
    }
}

fn lone(event: &Arc<Publish>) -> Arc<Publish> {
    Arc::new(Publish { lone: true, ..(**event).clone() })
}

fn weight(event: &Publish) -> usize {
    event.data.len() + event.topic.len() + size_of::<Publish>() + 64
}
