//! Which topics the streams of this shard want to hear of, where not all topics' events come, and
//! the streams that wait for one to begin.
//!
//! ```text
//!   topic   No ─a stream comes: "on"─▶ Yes ─begun, confirmed─▶ Confirmed ─idle: "off"─▶ No
//!   stream  subscribe ─head, retry─▶ Awaiting ─all its topics are confirmed─▶ as any that opens
//!                                       └ too long: closed, and comes back with its cursor
//! ```
//! While everything comes, a stream opens at once, and that its topic is wanted is told all the
//! same: when the feed is narrowed, shard 0 knows of all that have streams.
//!
//! Leaves to others: asking for it (`subscription`), topics (`topic`), all other streams (`mod`).

use std::collections::VecDeque;

use hashbrown::HashMap;

use super::{Streams, answer::payload};
use crate::{
    limits,
    seam::{Mono, Now, SocketId},
    shard::{
        coverage::{Coverage, Wants},
        mail::Mail,
        out::Out,
        slow_consumer::State,
        topic::Asked,
    },
};

/// What is wanted, and who waits.
#[derive(Default)]
pub(super) struct Interest {
    /// This edge may ask another one for some topics only.
    pub(super) is_on: bool,
    coming: Coming,
    /// Topics that were asked for.
    asked: Vec<u32>,
    /// Those who wait, by slot: the cursor they came with.
    waiting: HashMap<u32, Waiter>,
    /// Until when, in their order.
    until: VecDeque<(Mono, SocketId)>,
    /// Who waits for which topic; those of several stand with one that has not begun.
    by_topic: HashMap<u32, Vec<SocketId>>,
    look_at: Option<Mono>,
    /// Closed because their topics had not begun.
    pub(super) given_up: u64,
}

struct Waiter {
    socket: SocketId,
    last_event_id: Option<Box<str>>,
}

/// Which topics' events come.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
enum Coming {
    /// All of them, and what was before is there or known to be missing.
    #[default]
    All,
    /// All of them; what was before of those that were not told is still on its way.
    AllSoon,
    /// All of them, but that is about to end.
    Narrowing,
    /// Those that were asked for.
    Asked,
}

impl Interest {
    /// Streams that wait for their topics to begin.
    pub(super) fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// When there is something to do for time alone.
    pub(super) fn next_deadline(&self) -> Option<Mono> {
        let until = self.until.front().map(|(until, _)| *until);
        self.look_at.into_iter().chain(until).min()
    }

    /// It waits no more.
    pub(super) fn forget(&mut self, socket: SocketId) {
        self.waiting.remove(&socket.slot);
    }

    /// Whether this stream waits.
    pub(super) fn awaits(&self, socket: SocketId) -> bool {
        !self.waiting.is_empty()
            && self.waiting.get(&socket.slot).is_some_and(|waiter| waiter.socket == socket)
    }
}

impl Streams {
    /// From now on shard 0 is told what this one wants to hear of.
    pub fn tell_interest(&mut self) {
        self.interest.is_on = true;
    }

    /// A stream of these topics opens: whether it can at once. What is not asked for is.
    pub(super) fn want(&mut self, now: Mono, audience: u32, out: &mut Out) -> bool {
        if !self.interest.is_on {
            return true;
        }
        let mut on = Vec::new();
        for &row in self.audiences.at(audience).members() {
            let topic = self.topics.at_mut(row);
            topic.idle_since = None;
            if topic.asked == Asked::No {
                topic.asked = match self.interest.coming {
                    Coming::All => Asked::Confirmed,
                    Coming::AllSoon | Coming::Narrowing | Coming::Asked => Asked::Yes,
                };
                on.push(topic.name().into());
                self.interest.asked.push(row);
            }
        }
        if !on.is_empty() {
            out.mail(0, Mail::Wants(Wants { on, off: Vec::new() }));
            let look_at = now.after_ms(limits::TOPICS_HELD_LOOK_MS);
            self.interest.look_at.get_or_insert(look_at);
        }
        self.unbegun(audience).is_none()
    }

    /// A topic of an audience whose streams cannot open yet.
    fn unbegun(&self, audience: u32) -> Option<u32> {
        let members = self.audiences.at(audience).members().iter().copied();
        let mut unbegun = members.filter(|&row| self.topics.at(row).asked != Asked::Confirmed);
        unbegun.next()
    }

    /// A stream waits for its topics.
    pub(super) fn wait(&mut self, now: Mono, socket: SocketId, last_event_id: Option<&str>) {
        let last_event_id = last_event_id.map(Into::into);
        self.interest.waiting.insert(socket.slot, Waiter { socket, last_event_id });
        self.interest.until.push_back((now.after_ms(limits::TOPIC_WAIT_MS_MAX), socket));
    }

    /// Opens a stream that waited if all its topics have begun, else lets it wait on. `false`: it
    /// has opened, and nothing was sent to it.
    pub(super) fn open_awaited(&mut self, now: Now, socket: SocketId, out: &mut Out) -> bool {
        let record = *self.records.at(socket.slot);
        let Some(row) = record.place.row() else { return false };
        if let Some(topic) = self.unbegun(record.audience) {
            self.side.set_state(row, State::Awaiting);
            self.interest.by_topic.entry(topic).or_default().push(socket);
            return true;
        }
        let waiter = self.interest.waiting.remove(&socket.slot);
        let last_event_id = waiter.and_then(|waiter| waiter.last_event_id);
        let audience = self.audiences.at_mut(record.audience);
        if !audience.targets.in_pass() && audience.targets.is_empty() {
            // Nobody else is behind.
            audience.begin_pass(&self.topics, now.mono);
            self.wake_waiting(record.audience);
        }
        let mut frames = Vec::new();
        let (reader, _) = self.opening(record.audience, last_event_id.as_deref(), &mut frames);
        self.side.get_mut(row).reader = reader;
        if frames.is_empty() {
            return false;
        }
        self.counts.sends += 1;
        self.side.set_state(row, State::Sending);
        out.send(socket, payload(None, Default::default(), frames));
        true
    }

    /// Which topics' events come has changed.
    pub fn handle_coverage(&mut self, now: Now, coverage: &Coverage, out: &mut Out) {
        match coverage {
            Coverage::Narrowing { round } => {
                if self.interest.coming == Coming::All {
                    self.interest.coming = Coming::Narrowing;
                }
                out.mail(0, Mail::Narrowed { round: *round });
            }
            Coverage::Narrow { told } => {
                self.interest.coming = Coming::Asked;
                self.topics.narrow(told);
            }
            Coverage::Begun(topic) => {
                if let Some(row) = self.topics.begin(now.mono, topic) {
                    self.have_turns(row, out);
                    self.confirmed(row, out);
                }
            }
            Coverage::Confirmed(name) => {
                if let Some(row) = self.topics.confirm(name) {
                    self.confirmed(row, out);
                }
            }
            Coverage::Dropped(name) => self.topics.drop_topic(name),
            Coverage::Everything if self.interest.coming == Coming::Asked => {
                self.interest.coming = Coming::AllSoon;
                self.topics.widen();
            }
            Coverage::Everything => {
                if self.interest.coming == Coming::Narrowing {
                    self.all_came(out);
                }
            }
        }
    }

    /// All topics' events come, and what was before has come.
    pub(super) fn all_came(&mut self, out: &mut Out) {
        if matches!(self.interest.coming, Coming::AllSoon | Coming::Narrowing) {
            self.interest.coming = Coming::All;
            self.topics.tell_all();
            for row in self.interest.asked.clone() {
                self.confirmed(row, out);
            }
        }
    }

    /// Those who wait for this topic go on.
    fn confirmed(&mut self, row: u32, out: &mut Out) {
        let topic = self.topics.at_mut(row);
        if topic.asked == Asked::No {
            return;
        }
        topic.asked = Asked::Confirmed;
        for socket in self.interest.by_topic.remove(&row).unwrap_or_default() {
            let Some(record) = self.records.get(socket.slot, socket) else { continue };
            let Some(row) = record.place.row().filter(|_| self.interest.awaits(socket)) else {
                continue;
            };
            if self.side.get(row).state == State::Awaiting {
                self.side.set_state(row, State::Woken);
                self.woken.push_back(socket);
                out.yield_turn();
            }
        }
    }

    /// Closes those who have waited for too long, and lets go of topics that nobody listens to.
    pub(super) fn look_at_interest(&mut self, now: Mono, out: &mut Out) {
        while let Some(&(_, socket)) = self.interest.until.front().filter(|it| it.0 <= now) {
            self.interest.until.pop_front();
            if self.records.get(socket.slot, socket).is_some() && self.interest.awaits(socket) {
                self.interest.given_up += 1;
                self.dismiss(socket, out);
            }
        }
        if self.interest.look_at.is_some_and(|at| at <= now) {
            self.let_go_of_idle(now, out);
        }
        if self.interest.waiting.is_empty() {
            self.interest.by_topic.clear();
        }
    }

    fn let_go_of_idle(&mut self, now: Mono, out: &mut Out) {
        let mut idle: Vec<(Mono, u32)> = Vec::new();
        for &row in &self.interest.asked {
            let topic = self.topics.at_mut(row);
            if topic.streams == 0 {
                idle.push((*topic.idle_since.get_or_insert(now), row));
            }
        }
        idle.sort_unstable();
        let too_many = idle.len().saturating_sub(limits::TOPICS_HELD_MAX);
        let is_over = |(nth, (since, _)): &(usize, &(Mono, u32))| {
            *nth < too_many || since.after_ms(limits::TOPIC_HELD_MS) <= now
        };
        let over = idle.iter().enumerate().filter(is_over);
        let over: hashbrown::HashSet<u32> = over.map(|(_, (_, row))| *row).collect();
        if !over.is_empty() {
            let name = |&row: &u32| self.topics.at(row).name().into();
            let off = over.iter().map(name).collect();
            for &row in &over {
                let topic = self.topics.at_mut(row);
                (topic.asked, topic.idle_since) = (Asked::No, None);
            }
            self.interest.asked.retain(|row| !over.contains(row));
            out.mail(0, Mail::Wants(Wants { on: Vec::new(), off }));
        }
        let again = now.after_ms(limits::TOPICS_HELD_LOOK_MS);
        self.interest.look_at = (!self.interest.asked.is_empty()).then_some(again);
    }
}
