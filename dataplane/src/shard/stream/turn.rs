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
    pub(super) fn has_turn(&mut self, audience: u32, out: &mut Out) {
        self.turns.add(audience, &mut self.audiences.at_mut(audience).queued);
        out.yield_turn();
    }

    /// Something was published to a topic.
    pub(super) fn have_turns(&mut self, topic: u32, out: &mut Out) {
        for &audience in &self.topics.at(topic).listeners {
            self.turns.add(audience, &mut self.audiences.at_mut(audience).queued);
            out.yield_turn();
        }
    }

    /// A batch of events: each waiting audience once, as far as the budget goes.
    pub(super) fn serve_some(&mut self, now: Now, budget: &mut Budget, out: &mut Out) {
        for waiting in (1..=self.turns.len()).rev() {
            if budget.is_spent() {
                break;
            }
            let Some(audience) = self.turns.take_next() else { break };
            self.audiences.at_mut(audience).queued = false;
            self.serve(now, audience, budget.share(waiting), budget, out);
            self.forget_if_idle(audience);
        }
    }

    fn serve(&mut self, now: Now, row: u32, share: u32, budget: &mut Budget, out: &mut Out) {
        if self.audiences.at(row).removed {
            return self.end_audience(row, share, budget, out);
        }
        let audience = self.audiences.at_mut(row);
        if !audience.targets.in_pass() && audience.has_pending(&self.topics) {
            let started = audience.begin_pass(&self.topics, now.mono);
            self.wake_waiting(row);
            // A pass over nothing that is live, or over nobody, ends where it began.
            if !started {
                budget.spend(1);
            }
        }
        let audience = self.audiences.at_mut(row);
        if audience.targets.in_pass() {
            let frame = audience.frame().clone();
            let targets = audience.targets.take(share);
            let sends = targets.len() as u32;
            out.fanout(frame, targets.iter().copied());
            self.turns.note_served(row);
            self.counts.sends += u64::from(sends);
            budget.spend(sends);
        }
        let audience = self.audiences.at_mut(row);
        if audience.targets.in_pass() || audience.has_pending(&self.topics) {
            self.turns.add(row, &mut audience.queued);
        }
    }

    /// The list has moved on: those who wait for it read on.
    pub(super) fn wake_waiting(&mut self, audience: u32) {
        for slot in std::mem::take(&mut self.audiences.at_mut(audience).waiting) {
            let (socket, record) = self.records.socket(slot);
            if let Some(row) = record.place.row() {
                self.side.set_state(row, State::Woken);
                self.woken.push_back(socket);
            }
        }
    }

    /// Ends streams of an audience that was removed. Those outside its list end when they read on.
    fn end_audience(&mut self, row: u32, share: u32, budget: &mut Budget, out: &mut Out) {
        self.wake_waiting(row);
        for _ in 0..share {
            let Some(socket) = self.audiences.at(row).targets.last() else { return };
            self.dismiss(socket, out);
            budget.spend(1);
        }
        self.turns.add(row, &mut self.audiences.at_mut(row).queued);
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
                    let audience = self.audiences.at(record.audience);
                    let heard = later(record.heard, stamp(audience.sent_at));
                    if self.heartbeat.is_wanted(now.mono, slot, heard) {
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
                let wanted = self.heartbeat.is_wanted(now.mono, socket.slot, record.heard);
                let audience = record.audience;
                self.leave_waiting(audience, at);
                if wanted {
                    self.counts.beats += 1;
                    self.side.set_state(row, State::Sending);
                    out.send(socket, Payload::One(Segment::Local(self.beat.clone())));
                } else {
                    self.side.set_state(row, State::Woken);
                    self.woken.push_back(socket);
                }
            }
            State::Sending | State::Woken | State::Awaiting => {}
        }
    }
}
