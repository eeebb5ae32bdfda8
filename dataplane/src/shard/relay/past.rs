//! Events from before the records that are held: what an edge that starts is told first.
//!
//! They came to this edge when it started itself, or behind a snapshot. Of what is let go of later
//! for want of room only the newest event of each event key is kept, as control does: a topic's
//! present state must be whole.
//!
//! ```text
//!   Unknown ─first─▶ Coming ─all have come─▶ Whole ─no room─▶ GivenUp
//! ```

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
};

use proto::feed::record::Publish;

use crate::limits;

/// Events from before.
#[derive(Default)]
pub(super) struct Past {
    state: State,
    /// In the order of the log.
    events: Vec<Arc<Publish>>,
    /// The newest of each topic and event key, of what was let go of.
    values: BTreeMap<(Box<str>, Box<str>), Arc<Publish>>,
    bytes: usize,
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

    /// Another past is about to be told.
    pub(super) fn begin(&mut self) {
        *self = Self::default();
    }

    /// It cannot be told.
    pub(super) fn give_up(&mut self) {
        *self = Self { state: State::GivenUp, ..Self::default() };
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
            *self = Self { state: State::Coming, ..Self::default() };
        }
        self.bytes += weight(event);
        self.events.push(Arc::clone(event));
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
            return;
        }
        for event in std::mem::take(&mut self.events) {
            self.bytes -= weight(&event);
            self.keep_value(event);
        }
        self.keep_value(event);
        self.bound();
    }

    fn keep_value(&mut self, event: Arc<Publish>) {
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
        let lone = |event: &Arc<Publish>| Arc::new(Publish { lone: true, ..(**event).clone() });
        let mut values: Vec<_> = self.values.values().map(lone).collect();
        values.sort_by_key(|event| event.position);
        values.into_iter().chain(self.events.iter().cloned()).collect()
    }
}

fn weight(event: &Publish) -> usize {
    event.data.len() + event.topic.len() + size_of::<Publish>() + 64
}
