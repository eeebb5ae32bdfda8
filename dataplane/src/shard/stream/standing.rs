//! Where a stream stands: outside its audience's list, in it, or gone; and the way from one to the
//! other. A record's place, a row of the side table and a place in a list change together, here.

use bytes::BytesMut;
use proto::feed::site::SlowPolicy;

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
        let audience = self.audiences.at_mut(record.audience);
        if audience.removed {
            return self.end(socket, Close::Graceful, out);
        }
        let aside = self.side.get_mut(row);
        let mut frames = Vec::new();
        audience.read(&self.topics, &mut aside.reader, &mut frames);
        let rest = std::mem::take(&mut aside.rest);
        if !rest.is_empty() || !frames.is_empty() {
            self.counts.sends += 1;
            self.side.set_state(row, State::Sending);
            out.send(socket, payload(None, rest, frames));
        } else if audience.is_caught_up(&self.topics, &aside.reader) {
            let aside = self.side.remove(row);
            let (place, moved) = self.audiences.at_mut(record.audience).join(socket, &aside.reader);
            let record = self.records.at(socket.slot);
            record.place = Place::listed(place);
            record.heard = later(record.heard, stamp(now.mono));
            self.follow(moved);
        } else {
            let at = audience.waiting.len() as u32;
            audience.waiting.push(socket.slot);
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
                    self.leave_waiting(record.audience, at);
                }
            }
            None => {
                if let Some(place) = record.place.in_list() {
                    self.leave_list(record.audience, place);
                }
            }
        }
        self.count -= 1;
        let audience = self.audiences.at_mut(record.audience);
        audience.streams -= 1;
        self.tally.streams -= u32::from(!audience.route().site_id.is_empty());
        audience.members().iter().for_each(|&topic| self.topics.at_mut(topic).streams -= 1);
        if audience.streams == 0 {
            // Its last turn.
            self.has_turn(record.audience, out);
        }
        out.close(socket, how);
    }

    /// An audience that nobody listens in holds memory, and its topics in their places.
    pub(super) fn forget_if_idle(&mut self, audience: u32) {
        if self.audiences.at(audience).is_idle() {
            self.audiences.forget(audience, &mut self.topics);
        }
    }

    /// A stream can take bytes again. If it was blocked, then by policy `skip` it does not get what
    /// it missed.
    pub(super) fn skip_missed(&mut self, audience: u32, row: u32) {
        let audience = self.audiences.at(audience);
        let aside = self.side.get_mut(row);
        if aside.slow && audience.slow() == SlowPolicy::Skip {
            let mut frames = Vec::new();
            audience.skip(&mut aside.reader, &mut frames);
            if let [gap] = frames.as_slice() {
                // Behind the rest of the frame it has begun.
                let mut rest = BytesMut::from(&*aside.rest);
                rest.extend_from_slice(gap);
                aside.rest = rest.freeze();
            }
        }
    }

    pub(super) fn leave_list(&mut self, audience: u32, place: u32) {
        for moved in self.audiences.at_mut(audience).targets.leave(place) {
            self.follow(moved);
        }
    }

    pub(super) fn leave_waiting(&mut self, audience: u32, at: u32) {
        let waiting = &mut self.audiences.at_mut(audience).waiting;
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
