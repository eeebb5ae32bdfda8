//! Where a stream stands: outside its audience's list, in it, or gone; and the way from one to the
//! other. A record's place, a row of the side table and a place in a list change together, here.

use std::sync::Arc;

use bytes::BytesMut;
use proto::feed::site::SlowPolicy;

use super::{Streams, answer::payload, table::Place};
use crate::{
    limits,
    seam::{Close, Now, SocketId},
    shard::{
        fanout::Moved,
        heartbeat::{later, stamp},
        out::Out,
        region::Whose,
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
        if self.interest.awaits(socket) && self.open_awaited(now, socket, out) {
            return;
        }
        let audience = self.audiences.at_mut(record.audience);
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
        self.interest.forget(socket);
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

    /// Control says that it has nothing beyond what is known here. Who has more came with it from
    /// an edge that is ahead of us, or made it up, or control has lost it. What another edge can
    /// have told of, control had when the client came: so once it has said so often enough since,
    /// each time well after the last (its words may come late, and several at once), it is taken
    /// back.
    pub(super) fn take_back(&mut self, out: &mut Out) {
        let Some(region) = self.topics.region().map(Arc::clone) else { return };
        for row in self.side.rows() {
            let aside = self.side.get_mut(row);
            if region.without_lost(&aside.reader.cursor, Whose::All).is_none() {
                aside.ahead = 0;
                continue;
            }
            aside.ahead += 1;
            if aside.ahead < limits::WORDS_AHEAD_MAX {
                continue;
            }
            aside.ahead = 0;
            let socket = aside.socket;
            let audience = self.records.at(socket.slot).audience;
            let name = self.topics.names(self.audiences.at(audience).members());
            let aside = self.side.get_mut(row);
            let gap = aside.reader.lose(&name, &region);
            // Behind the rest of the frame it has begun.
            let mut rest = BytesMut::from(&*aside.rest);
            rest.extend_from_slice(&gap);
            aside.rest = rest.freeze();
            self.counts.taken_back += 1;
            if let State::Waiting { at } = aside.state {
                self.leave_waiting(audience, at);
                self.side.set_state(row, State::Woken);
                self.woken.push_back(socket);
                out.yield_turn();
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
