//! A turn of the streams: a batch of one kind, events for lists or beats for the silent.
//!
//! Leaves to others: who is next (`fanout`), whose silence ends (`heartbeat`), when the shard gives
//! a turn (`Out::yield_turn`).

use super::{Streams, VISITS_A_TURN_MAX};
use crate::{
    seam::{Close, Now, Payload, Segment, SocketId},
    shard::{
        fanout::Budget,
        heartbeat::{later, stamp},
        out::Out,
        slow_consumer::State,
    },
};

impl Streams {
    pub(super) fn has_turn(&mut self, topic: u32, out: &mut Out) {
        self.turns.add(topic, &mut self.topics.at_mut(topic).queued);
        out.yield_turn();
    }

    /// A batch of events: each waiting topic once, as far as the budget goes.
    pub(super) fn serve_some(&mut self, now: Now, budget: &mut Budget, out: &mut Out) {
        for waiting in (1..=self.turns.len()).rev() {
            if budget.is_spent() {
                break;
            }
            let Some(topic) = self.turns.take_next() else { break };
            self.topics.at_mut(topic).queued = false;
            self.serve(now, topic, budget.share(waiting), budget, out);
        }
    }

    fn serve(&mut self, now: Now, row: u32, share: u32, budget: &mut Budget, out: &mut Out) {
        if self.topics.at(row).removed {
            return self.end_topic(row, share, budget, out);
        }
        let topic = self.topics.at_mut(row);
        if !topic.targets.in_pass() && topic.has_pending() {
            let started = topic.begin_pass(now.mono);
            self.wake_waiting(row);
            // A pass over nothing that is live, or over nobody, ends where it began.
            if !started {
                budget.spend(1);
            }
        }
        let topic = self.topics.at_mut(row);
        if topic.targets.in_pass() {
            let frame = topic.frame().clone();
            let targets = topic.targets.take(share);
            let sends = targets.len() as u32;
            out.fanout(frame, targets.iter().copied());
            self.turns.note_served(row);
            self.counts.sends += u64::from(sends);
            budget.spend(sends);
        }
        let topic = self.topics.at_mut(row);
        if topic.targets.in_pass() || topic.has_pending() {
            self.turns.add(row, &mut topic.queued);
        }
    }

    /// The list has moved on: those who wait for it read on.
    pub(super) fn wake_waiting(&mut self, topic: u32) {
        for slot in std::mem::take(&mut self.topics.at_mut(topic).waiting) {
            let (socket, record) = self.records.socket(slot);
            if let Some(row) = record.place.row() {
                self.side.set_state(row, State::Woken);
                self.woken.push_back(socket);
            }
        }
    }

    /// Ends streams of a topic that was removed. Those outside its list end when they read on.
    fn end_topic(&mut self, row: u32, share: u32, budget: &mut Budget, out: &mut Out) {
        self.wake_waiting(row);
        for _ in 0..share {
            let Some(socket) = self.topics.at(row).targets.last() else { return };
            self.dismiss(socket, out);
            budget.spend(1);
        }
        self.turns.add(row, &mut self.topics.at_mut(row).queued);
    }

    /// A batch of visits: beats for who has been silent, an end for who has been blocked too long.
    pub(super) fn beat_some(&mut self, now: Now, budget: &mut Budget, out: &mut Out) {
        let mut targets = Vec::new();
        let visits = self.heartbeat.take(self.records.slots(), VISITS_A_TURN_MAX);
        for slot in visits {
            let (socket, record) = self.records.socket(slot);
            match record.place.row() {
                Some(row) => self.visit_aside(now, socket, row, out),
                None if record.place.in_list().is_some() => {
                    let topic = self.topics.at(record.topic);
                    let heard = later(record.heard, stamp(topic.sent_at));
                    if self.heartbeat.is_wanted(now.mono, heard) {
                        self.records.at(slot).heard = stamp(now.mono);
                        targets.push(socket);
                    }
                }
                None => {}
            }
        }
        self.counts.beats += targets.len() as u64;
        budget.spend(targets.len() as u32);
        out.fanout(self.beat.clone(), targets);
    }

    fn visit_aside(&mut self, now: Now, socket: SocketId, row: u32, out: &mut Out) {
        match self.side.get(row).state {
            State::Blocked { since } => {
                if since.after_ms(self.limits.blocked_ms_max) <= now.mono {
                    self.counts.slow_closed += 1;
                    self.end(socket, Close::Abort, out);
                }
            }
            State::Waiting { at } => {
                let record = self.records.at(socket.slot);
                let wanted = self.heartbeat.is_wanted(now.mono, record.heard);
                let topic = record.topic;
                self.leave_waiting(topic, at);
                if wanted {
                    self.counts.beats += 1;
                    self.side.set_state(row, State::Sending);
                    out.send(socket, Payload::One(Segment::Local(self.beat.clone())));
                } else {
                    self.side.set_state(row, State::Woken);
                    self.woken.push_back(socket);
                }
            }
            State::Sending | State::Woken => {}
        }
    }
}
