//! Whether every stream sees the same events in the same order, each once.
//!
//! Ids are opaque: the order is the one in which they are first seen by any stream, and every
//! stream's events must be a run of it without holes. Pure; owned by one subscriber.

use std::collections::HashMap;

use dataplane::seam::Mono;
use serde::Serialize;

use crate::limits::EVENTS_MAX;

/// All events of a run.
#[derive(Debug, Default)]
pub(crate) struct Chain {
    events: Vec<Sighted>,
    /// Index in `events` by hash of the id.
    known: HashMap<u64, u32>,
    pub(crate) faults: Faults,
}

/// An event that some stream has seen.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sighted {
    pub(crate) id: u64,
    /// When its publish was sent; 0 if it was not ours.
    pub(crate) published_at: Mono,
    pub(crate) first_at: Mono,
    pub(crate) last_at: Mono,
    pub(crate) delivered: u32,
}

/// Where a stream stands in the chain: behind so many events.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Position(u32);

/// What was wrong with the order.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize)]
pub(crate) struct Faults {
    /// Events seen again by the same stream.
    pub(crate) duplicate: u64,
    /// Events that a stream saw after a later one.
    pub(crate) backward: u64,
    /// Events that a stream never saw, though it saw a later one.
    pub(crate) skipped: u64,
}

impl Chain {
    /// A stream at `position` sees an event; when the event was published, as far as known.
    pub(crate) fn see(
        &mut self,
        position: &mut Position,
        id: u64,
        now: Mono,
        published_at: Mono,
    ) -> Mono {
        let index = match self.known.get(&id) {
            Some(&index) => index,
            None if self.events.len() >= EVENTS_MAX => return published_at,
            None => {
                let index = self.events.len() as u32;
                self.known.insert(id, index);
                let delivered = 0;
                let sighted = Sighted { id, published_at, first_at: now, last_at: now, delivered };
                self.events.push(sighted);
                index
            }
        };
        let event = &mut self.events[index as usize];
        event.delivered += 1;
        event.last_at = now;
        let expected = position.0;
        if *position == Position::default() || index == expected {
            // A stream's first event may be any: it came when it came.
            position.0 = index + 1;
        } else if index + 1 == expected {
            self.faults.duplicate += 1;
        } else if index < expected {
            self.faults.backward += 1;
        } else {
            self.faults.skipped += u64::from(index - expected);
            position.0 = index + 1;
        }
        event.published_at
    }

    pub(crate) fn events(&self) -> &[Sighted] {
        &self.events
    }
}

impl Faults {
    pub(crate) fn add(&mut self, other: Self) {
        self.duplicate += other.duplicate;
        self.backward += other.backward;
        self.skipped += other.skipped;
    }

    /// All of them.
    pub(crate) fn total(&self) -> u64 {
        self.duplicate + self.backward + self.skipped
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Faults of streams that see these ids, one stream after another.
    fn faults(streams: &[&[u64]]) -> Faults {
        let mut chain = Chain::default();
        for ids in streams {
            let mut position = Position::default();
            for id in *ids {
                chain.see(&mut position, *id, Mono(1), Mono(0));
            }
        }
        chain.faults
    }

    #[test]
    fn every_stream_sees_the_same_order() {
        assert_eq!(faults(&[&[5, 3, 9], &[5, 3, 9], &[3, 9]]), Faults::default());
        let skipped = faults(&[&[5, 3, 9, 7], &[5, 7]]);
        assert_eq!(skipped, Faults { skipped: 2, ..Faults::default() });
        let duplicate = faults(&[&[5, 3, 3]]);
        assert_eq!(duplicate, Faults { duplicate: 1, ..Faults::default() });
        let backward = faults(&[&[5, 3, 9], &[5, 3, 9, 5]]);
        assert_eq!(backward, Faults { backward: 1, ..Faults::default() });
    }

    #[test]
    fn a_delivery_counts_from_the_publish_of_its_event() {
        let mut chain = Chain::default();
        let (mut one, mut two) = (Position::default(), Position::default());
        chain.see(&mut one, 1, Mono(20), Mono(10));
        // By the time the second stream sees it, a later event has been published.
        assert_eq!(chain.see(&mut two, 1, Mono(40), Mono(30)), Mono(10));
        assert_eq!(chain.events()[0].last_at, Mono(40));
        assert_eq!(chain.events()[0].delivered, 2);
    }
}
