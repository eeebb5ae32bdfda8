//! One event to many: who of a topic already has it, and whose turn it is.
//!
//! ```text
//!   Targets of one topic          through ──┐
//!   ┌───────────────────────────┬───────────┴──────────────┐
//!   │ has everything up to      │ lacks the frame of the    │
//!   │ the end of this pass      │ pass under way            │
//!   └───────────────────────────┴──────────────────────────┘
//!   0                          sent                       len
//! ```
//! A caught-up stream's cursor is its place in this list, so that a fan-out touches eight bytes a
//! stream, one after the other, and no record. Joining and leaving keep the two regions right by
//! moving at most two others.
//!
//! Topics with something to send take turns ([`Turns`]), a batch each, so that a topic with a
//! million streams does not hold up one with ten.
//!
//! Leaves to others: what the frame is (`topic`), which records must learn of a move (`stream`).

use std::collections::VecDeque;

use crate::{limits, seam::SocketId};

/// The caught-up streams of one topic.
#[derive(Default)]
pub struct Targets {
    sockets: Vec<SocketId>,
    sent: u32,
}

/// A stream that has another place now.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Moved {
    /// Which.
    pub socket: SocketId,
    /// Where it is now.
    pub place: u32,
}

impl Targets {
    /// Streams in the list.
    pub fn len(&self) -> u32 {
        self.sockets.len() as u32
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.sockets.is_empty()
    }

    /// Whether some still lack the frame of the pass under way.
    pub fn in_pass(&self) -> bool {
        self.sent < self.len()
    }

    /// Whether the stream at `place` has had the frame of this pass (or there is none under way).
    pub fn was_sent(&self, place: u32) -> bool {
        place < self.sent
    }

    /// Any stream of the list, the last one.
    pub fn last(&self) -> Option<SocketId> {
        self.sockets.last().copied()
    }

    /// Adds a stream that has everything up to the end of the pass. Its place, and who moved.
    pub fn join(&mut self, socket: SocketId) -> (u32, Option<Moved>) {
        let (place, last) = (self.sent, self.len());
        self.sockets.push(socket);
        self.sent += 1;
        if place == last {
            return (place, None);
        }
        self.sockets.swap(place as usize, last as usize);
        (place, Some(Moved { socket: self.sockets[last as usize], place: last }))
    }

    /// Removes the stream at `place`. Who moved.
    ///
    /// # Panics
    /// When there is no such place: records and lists disagree.
    pub fn leave(&mut self, place: u32) -> [Option<Moved>; 2] {
        assert!(place < self.len(), "a record's place lies in its topic's list");
        if place >= self.sent {
            return [self.fill(place), None];
        }
        self.sent -= 1;
        let edge = self.sent;
        let first = (edge != place).then(|| {
            let socket = self.sockets[edge as usize];
            self.sockets[place as usize] = socket;
            Moved { socket, place }
        });
        [first, self.fill(edge)]
    }

    /// Starts a pass: nobody has its frame.
    pub fn begin_pass(&mut self) {
        debug_assert!(!self.in_pass(), "one pass at a time");
        self.sent = 0;
    }

    /// The next at most `count_max` streams of the pass, which count as sent from now on.
    pub fn take(&mut self, count_max: u32) -> &[SocketId] {
        let start = self.sent;
        self.sent = self.len().min(start.saturating_add(count_max));
        &self.sockets[start as usize..self.sent as usize]
    }

    /// Puts the last stream into the hole at `place`.
    fn fill(&mut self, place: u32) -> Option<Moved> {
        self.sockets.swap_remove(place as usize);
        let socket = *self.sockets.get(place as usize)?;
        Some(Moved { socket, place })
    }
}

/// Topics that have something to send, in the order of their turns.
#[derive(Default)]
pub struct Turns {
    ready: VecDeque<u32>,
    /// Topics whose frame went out since the engine last took effects.
    served: Vec<u32>,
}

impl Turns {
    /// Puts a topic at the end, if it says that it is not waiting already.
    pub fn add(&mut self, topic: u32, queued: &mut bool) {
        if !std::mem::replace(queued, true) {
            self.ready.push_back(topic);
        }
    }

    /// The next topic to serve.
    pub fn take_next(&mut self) -> Option<u32> {
        self.ready.pop_front()
    }

    /// Topics waiting.
    pub fn len(&self) -> usize {
        self.ready.len()
    }

    /// Whether none waits.
    pub fn is_empty(&self) -> bool {
        self.ready.is_empty()
    }

    /// Notes that a frame of this topic is on its way.
    pub fn note_served(&mut self, topic: u32) {
        self.served.push(topic);
    }

    /// Topics whose frames have reached everyone or failed by now.
    pub fn settled(&mut self) -> impl Iterator<Item = u32> + '_ {
        self.served.drain(..)
    }
}

/// How many sends a turn may cost.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Budget(u32);

impl Budget {
    /// Few while requests wait, many when none do: a batch of 1,024 costs 7.3 µs a send, one of 16
    /// costs 8.5 (measured), and a request behind 1,024 sends waits 7 ms.
    pub fn for_turn(requests_wait: bool) -> Self {
        Self(if requests_wait { limits::FANOUT_SENDS_BUSY } else { limits::FANOUT_SENDS_MAX })
    }

    /// What one topic may use of it when `waiting` topics, itself included, want their part.
    pub fn share(self, waiting: usize) -> u32 {
        let even = self.0 / u32::try_from(waiting).unwrap_or(u32::MAX).max(1);
        even.max(limits::FANOUT_SENDS_A_TOPIC_MIN).min(self.0)
    }

    /// Sends left.
    pub fn left(self) -> u32 {
        self.0
    }

    /// Counts sends.
    pub fn spend(&mut self, sends: u32) {
        self.0 = self.0.saturating_sub(sends);
    }

    /// Whether nothing is left.
    pub fn is_spent(self) -> bool {
        self.0 == 0
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{HashMap, HashSet};

    use proptest::prelude::*;

    use super::*;

    fn socket(slot: u32) -> SocketId {
        SocketId { slot, generation: 0 }
    }

    #[derive(Clone, Debug)]
    enum Step {
        Join,
        Leave(usize),
        Begin,
        Take(u32),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            4 => Just(Step::Join),
            2 => any::<usize>().prop_map(Step::Leave),
            1 => Just(Step::Begin),
            3 => (0u32..4).prop_map(Step::Take),
        ]
    }

    proptest! {
        /// Each pass reaches everyone who was there when it began and stayed, exactly once, and
        /// nobody else; records that follow the moves find their place.
        #[test]
        fn a_pass_reaches_everyone_once(steps in prop::collection::vec(step(), 1..80)) {
            let mut targets = Targets::default();
            let mut places: HashMap<u32, u32> = HashMap::new();
            let (mut lacking, mut born) = (HashSet::new(), 0);
            for step in steps {
                match step {
                    Step::Join => {
                        let (place, moved) = targets.join(socket(born));
                        places.insert(born, place);
                        if let Some(moved) = moved {
                            places.insert(moved.socket.slot, moved.place);
                        }
                        born += 1;
                    }
                    Step::Leave(which) if !places.is_empty() => {
                        let mut slots: Vec<u32> = places.keys().copied().collect();
                        slots.sort_unstable();
                        let slot = slots[which % slots.len()];
                        let place = places.remove(&slot).expect("present");
                        prop_assert_eq!(targets.was_sent(place), !lacking.contains(&slot));
                        for moved in targets.leave(place).into_iter().flatten() {
                            places.insert(moved.socket.slot, moved.place);
                        }
                        lacking.remove(&slot);
                    }
                    Step::Leave(_) => {}
                    Step::Begin if !targets.in_pass() => {
                        prop_assert!(lacking.is_empty());
                        targets.begin_pass();
                        lacking.extend(places.keys().copied());
                    }
                    Step::Begin => {}
                    Step::Take(count) => {
                        for taken in targets.take(count) {
                            prop_assert!(lacking.remove(&taken.slot), "once, and only who lacks it");
                        }
                    }
                }
                prop_assert_eq!(targets.len() as usize, places.len());
                prop_assert_eq!(targets.in_pass(), !lacking.is_empty());
                for (&slot, &place) in &places {
                    prop_assert_eq!(targets.sockets[place as usize].slot, slot);
                }
            }
        }
    }

    #[test]
    fn a_topic_waits_in_the_queue_once() {
        let (mut turns, mut queued) = (Turns::default(), false);
        turns.add(3, &mut queued);
        turns.add(3, &mut queued);
        assert_eq!((turns.take_next(), turns.take_next()), (Some(3), None));
    }

    #[test]
    fn a_batch_is_small_while_requests_wait() {
        assert_eq!(Budget::for_turn(true).left(), 32);
        assert_eq!(Budget::for_turn(false).left(), 1024);
        assert_eq!(Budget::for_turn(false).share(1), 1024, "alone, a topic has it all");
        assert_eq!(Budget::for_turn(false).share(4), 256);
        assert_eq!(Budget::for_turn(false).share(1000), 32, "a batch is worth its turn");
    }
}
