//! Where a stream stands: outside its topic's list, in it, or gone; and the way from one to the
//! other. A record's place, a row of the side table and a place in a list change together, here.

use std::sync::Arc;

use super::{Streams, answer::payload, table::Place};
use crate::{
    seam::{Close, Now, SocketId},
    shard::{
        fanout::Moved,
        heartbeat::{later, stamp},
        out::Out,
        slow_consumer::State,
    },
};

impl Streams {
    /// Gives a stream outside the list what comes next, or puts it into the list.
    pub(super) fn read_on(&mut self, now: Now, socket: SocketId, out: &mut Out) {
        let Some(record) = self.records.get(socket.slot, socket) else { return };
        let Some(row) = record.place.row() else { return };
        let known = Arc::clone(self.topics.known());
        let topic = self.topics.at_mut(record.topic);
        if topic.removed {
            return self.end(socket, Close::Graceful, out);
        }
        let aside = self.side.get_mut(row);
        let mut frames = Vec::new();
        topic.read(&mut aside.reader, &mut frames);
        let rest = std::mem::take(&mut aside.rest);
        if !rest.is_empty() || !frames.is_empty() {
            self.counts.sends += 1;
            self.side.set_state(row, State::Sending);
            out.send(socket, payload(None, rest, frames));
        } else if topic.is_caught_up(&aside.reader, &known) {
            self.side.remove(row);
            let (place, moved) = self.topics.at_mut(record.topic).targets.join(socket);
            let record = self.records.at(socket.slot);
            record.place = Place::listed(place);
            record.heard = later(record.heard, stamp(now.mono));
            self.follow(moved);
        } else {
            let at = topic.waiting.len() as u32;
            topic.waiting.push(socket.slot);
            self.side.set_state(row, State::Waiting { at });
        }
    }

    /// Forgets a stream and closes its socket.
    pub(super) fn end(&mut self, socket: SocketId, how: Close, out: &mut Out) {
        let record = self.records.take(socket);
        match record.place.row() {
            Some(row) => {
                let aside = self.side.remove(row);
                if let State::Waiting { at } = aside.state {
                    self.leave_waiting(record.topic, at);
                }
            }
            None => {
                if let Some(place) = record.place.in_list() {
                    self.leave_list(record.topic, place);
                }
            }
        }
        self.count -= 1;
        let topic = self.topics.at_mut(record.topic);
        topic.streams -= 1;
        topic.removed &= topic.streams > 0;
        out.close(socket, how);
    }

    pub(super) fn leave_list(&mut self, topic: u32, place: u32) {
        for moved in self.topics.at_mut(topic).targets.leave(place) {
            self.follow(moved);
        }
    }

    pub(super) fn leave_waiting(&mut self, topic: u32, at: u32) {
        let waiting = &mut self.topics.at_mut(topic).waiting;
        waiting.swap_remove(at as usize);
        if let Some(&slot) = waiting.get(at as usize)
            && let Some(row) = self.records.at(slot).place.row()
        {
            self.side.set_state(row, State::Waiting { at });
        }
    }

    fn follow(&mut self, moved: Option<Moved>) {
        if let Some(moved) = moved {
            self.records.at(moved.socket.slot).place = Place::listed(moved.place);
        }
    }
}
