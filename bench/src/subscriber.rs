//! Many event streams: an actor that opens them from many source addresses, holds them, checks that
//! each sees the same events in the same order, and measures the delay of every delivery.
//!
//! ```text
//! a stream:  Down ─▶ Opening ─200, event stream─▶ Open ─▶ Gone
//!              ▲        │ refused: a pause, then again
//!              └────────┘
//! the run:   Open (up to the allowed number) ─▶ Publish ─▶ End      ordered through [`Shared`]
//! ```
//!
//! One actor a shard; the first also publishes. Leaves to others: when to go on, and reading memory
//! and CPU time (`streams`).

pub(crate) mod chain;
pub(crate) mod publisher;
pub(crate) mod shared;

use std::{
    collections::VecDeque,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    ops::Range,
    sync::{Arc, atomic::Ordering},
};

use bytes::Bytes;
use dataplane::seam::{
    Actor, Close, Control, Effect, Input, Mono, Now, Payload, Segment, SocketId,
};

use crate::{
    event::{Event, EventReader, Kind},
    response::{Part, ResponseReader},
    subscriber::{
        chain::{Chain, Position},
        publisher::{OPS, Publisher},
        shared::{Held, Shared, Stage, Subscription},
    },
};

/// The actor.
pub(crate) struct Subscriber {
    plan: Subscription,
    shared: Arc<Shared>,
    streams: Vec<Stream>,
    /// Index into `streams` by the slot of a socket.
    by_slot: Vec<u32>,
    /// Streams waiting to be opened again, in order of time.
    retry: VecDeque<(Mono, u32)>,
    /// How many were opened for the first time.
    begun: u32,
    opening: u32,
    sockets: u32,
    look_at: Mono,
    /// Set once the end was ordered.
    end_until: Option<Mono>,
    stopped: bool,
    publisher: Option<Publisher>,
    /// When all publishes are to be sent, as soon as that is known: by the number of an event.
    begun_at: Option<Mono>,
    /// As last ordered.
    muted: bool,
    /// One for each topic.
    chains: Vec<Chain>,
    found: Held,
    effects: VecDeque<Effect<()>>,
}

#[derive(Debug, Default)]
struct Stream {
    socket: Option<SocketId>,
    life: Life,
    reader: ResponseReader,
    events: EventReader,
    position: Position,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
enum Life {
    #[default]
    Down,
    /// From the connect to the head.
    Opening,
    Open,
    /// Open, and never read again.
    Stalled,
    /// Closed, or about to be.
    Gone,
}

impl Subscriber {
    pub(crate) fn new(plan: Subscription, shared: Arc<Shared>) -> Self {
        let own = plan.own_streams();
        let publisher = plan.publish.clone().filter(|_| plan.seat.0 == 0).map(Publisher::new);
        let chains = (0..plan.own_topics()).map(|_| Chain::default()).collect();
        Self {
            streams: (0..own).map(|_| Stream::default()).collect(),
            plan,
            shared,
            by_slot: Vec::new(),
            retry: VecDeque::new(),
            begun: 0,
            opening: 0,
            sockets: 0,
            look_at: Mono(0),
            end_until: None,
            stopped: false,
            publisher,
            begun_at: None,
            muted: false,
            chains,
            found: Held::new(),
            effects: VecDeque::new(),
        }
    }

    // ---- the run ----

    /// Looks at the orders and does what is due.
    fn look(&mut self, now: Mono) {
        self.look_at = now.after_ms(LOOK_MS);
        match self.shared.stage() {
            Stage::Open => {}
            Stage::Publish => {
                if let Some(publisher) = &mut self.publisher {
                    publisher.begin(now);
                }
            }
            Stage::End if self.end_until.is_none() => return self.end(now),
            Stage::End => {}
        }
        if self.end_until.is_some_and(|until| until <= now) {
            self.stop();
        }
        if self.shared.muted.load(Ordering::Acquire) != self.muted {
            self.mute();
        }
        while let Some(&(at, index)) = self.retry.front()
            && at <= now
            && self.end_until.is_none()
        {
            self.retry.pop_front();
            self.connect(index);
        }
    }

    /// Stops reading all streams, or goes on with it.
    fn mute(&mut self) {
        self.muted = !self.muted;
        for stream in self.streams.iter().filter(|stream| stream.life == Life::Open) {
            if let Some(socket) = stream.socket {
                self.effects.push_back(Effect::Receive { socket, on: !self.muted });
            }
        }
        self.shared.obeyed.fetch_add(1, Ordering::Release);
    }

    fn publish(&mut self, now: Mono) {
        let Some(publisher) = &mut self.publisher else { return };
        let max = self.shared.publish_max.load(Ordering::Acquire);
        if let Some(begin) = publisher.begun_at() {
            self.shared.begun_at_ns.store(begin.0, Ordering::Release);
        }
        if let Some(at) = publisher.work(now, max, &mut self.effects) {
            self.shared.published_at_ns.store(at.0, Ordering::Release);
        }
        self.shared.published.store(publisher.sent, Ordering::Release);
        let done = u8::from(publisher.is_done());
        self.shared.publishing_done.store(done, Ordering::Release);
    }

    fn end(&mut self, now: Mono) {
        let mut found = std::mem::replace(&mut self.found, Held::new());
        found.open = self.count(Life::Open);
        if self.chains.len() > 1 {
            found.missing = self.missing();
        }
        for chain in &self.chains {
            found.events.extend_from_slice(chain.events());
            found.faults.add(chain.faults);
        }
        if let Some(publisher) = &self.publisher {
            found.published = publisher.sent;
            found.publish_failed = publisher.failed;
            found.publish_late = publisher.late.clone();
            for socket in publisher.sockets() {
                self.effects.push_back(Effect::Close { socket, how: Close::Abort });
            }
        }
        self.shared.put_outcome(found);
        for stream in &mut self.streams {
            let is_there = matches!(stream.life, Life::Opening | Life::Open | Life::Stalled);
            if let Some(socket) = stream.socket.filter(|_| is_there) {
                stream.life = Life::Gone;
                self.effects.push_back(Effect::Close { socket, how: Close::Abort });
            }
        }
        self.end_until = Some(now.after_ms(END_MS_MAX));
        self.stop_when_closed();
    }

    /// What streams that were open to the end did not get, topic by topic.
    fn missing(&self) -> u64 {
        let mut open = vec![0_u64; self.chains.len()];
        for (index, stream) in self.streams.iter().enumerate() {
            let topic = self.plan.own_topic(index as u32) as usize;
            open[topic] += u64::from(stream.life == Life::Open);
        }
        let of_topic = |(chain, open): (&Chain, u64)| {
            let missing = |delivered: u32| open.saturating_sub(u64::from(delivered));
            chain.events().iter().map(|event| missing(event.delivered)).sum::<u64>()
        };
        self.chains.iter().zip(open).map(of_topic).sum()
    }

    fn stop_when_closed(&mut self) {
        if self.end_until.is_some() && self.sockets == 0 {
            self.stop();
        }
    }

    fn stop(&mut self) {
        if !self.stopped {
            self.stopped = true;
            self.effects.push_back(Effect::Stop);
        }
    }

    fn count(&self, life: Life) -> u32 {
        self.streams.iter().filter(|stream| stream.life == life).count() as u32
    }

    // ---- opening ----

    /// Opens the next streams, within what is allowed in total and at a time.
    fn open_more(&mut self) {
        let allowed = self.plan.own_allowed(self.shared.allowed.load(Ordering::Acquire));
        while self.end_until.is_none()
            && self.begun < allowed
            && self.opening < self.plan.opening_max
        {
            self.connect(self.begun);
            self.begun += 1;
        }
    }

    fn connect(&mut self, index: u32) {
        self.streams[index as usize] = Stream { life: Life::Opening, ..Stream::default() };
        self.opening += 1;
        let number = self.plan.number(index);
        let from = source(self.plan.to, number % self.plan.sources.max(1));
        let op = u64::from(index);
        self.effects.push_back(Effect::Connect { op, to: self.plan.to, from });
    }

    fn connected(&mut self, now: Mono, index: u32, socket: Option<SocketId>) {
        let Some(socket) = socket else {
            self.opening -= 1;
            self.streams[index as usize].life = Life::Down;
            return self.again(now, index);
        };
        self.sockets += 1;
        let slot = socket.slot as usize;
        if self.by_slot.len() <= slot {
            self.by_slot.resize(slot + 1, u32::MAX);
        }
        self.by_slot[slot] = index;
        self.streams[index as usize].socket = Some(socket);
        if self.end_until.is_some() {
            self.streams[index as usize].life = Life::Gone;
            return self.effects.push_back(Effect::Close { socket, how: Close::Abort });
        }
        let payload = Payload::One(Segment::Local(self.request(index)));
        self.effects.push_back(Effect::Receive { socket, on: true });
        self.effects.push_back(Effect::Send { socket, payload });
    }

    fn request(&self, index: u32) -> Bytes {
        if self.plan.topics <= 1 {
            return self.plan.request.clone();
        }
        let text = String::from_utf8_lossy(&self.plan.request);
        text.replace("{t}", &self.plan.topic(index).to_string()).into()
    }

    fn again(&mut self, now: Mono, index: u32) {
        self.shared.refused.fetch_add(1, Ordering::Relaxed);
        self.retry.push_back((now.after_ms(RETRY_MS), index));
    }

    fn find(&self, socket: SocketId) -> Option<u32> {
        let index = *self.by_slot.get(socket.slot as usize)?;
        let stream = self.streams.get(index as usize)?;
        (stream.socket == Some(socket)).then_some(index)
    }

    /// Ends a stream that is of no use any more.
    fn lose(&mut self, index: u32) {
        let stream = &mut self.streams[index as usize];
        let Some(socket) = stream.socket else { return };
        match stream.life {
            Life::Open => {
                self.shared.open.fetch_sub(1, Ordering::Relaxed);
                self.shared.lost.fetch_add(1, Ordering::Relaxed);
                stream.life = Life::Gone;
            }
            Life::Opening => {
                self.opening -= 1;
                // `closed` opens it again.
                stream.life = Life::Down;
            }
            // The server may well have had enough of it.
            Life::Stalled => {
                self.shared.open.fetch_sub(1, Ordering::Relaxed);
                self.shared.stalled.fetch_sub(1, Ordering::Relaxed);
                stream.life = Life::Gone;
            }
            Life::Down | Life::Gone => return,
        }
        self.effects.push_back(Effect::Close { socket, how: Close::Abort });
    }

    fn closed(&mut self, now: Mono, socket: SocketId) {
        let Some(index) = self.find(socket) else { return };
        self.sockets -= 1;
        let stream = &mut self.streams[index as usize];
        stream.socket = None;
        if stream.life == Life::Down && self.end_until.is_none() {
            self.again(now, index);
        }
        self.stop_when_closed();
    }

    // ---- events ----

    fn received(&mut self, now: Now, index: u32, mut bytes: &[u8]) {
        loop {
            let stream = &mut self.streams[index as usize];
            if !matches!(stream.life, Life::Opening | Life::Open) {
                return;
            }
            let part = match stream.reader.next(&mut bytes) {
                Ok(Some(part)) => part,
                Ok(None) => return,
                Err(_) => {
                    self.found.protocol_errors += 1;
                    return self.lose(index);
                }
            };
            match part {
                Part::Head(head) if head.status == 200 && head.event_stream => {
                    stream.life = Life::Open;
                    self.opening -= 1;
                    if self.plan.stalls(index) {
                        return self.stall(index);
                    }
                    self.shared.open.fetch_add(1, Ordering::Release);
                }
                // A refused stream, or the end of one.
                Part::Head(_) | Part::End => return self.lose(index),
                Part::Body(piece) => {
                    if !self.events(now, index, piece) {
                        self.found.protocol_errors += 1;
                        return self.lose(index);
                    }
                }
            }
        }
    }

    /// Never reads a stream again.
    fn stall(&mut self, index: u32) {
        let stream = &mut self.streams[index as usize];
        stream.life = Life::Stalled;
        self.shared.stalled.fetch_add(1, Ordering::Relaxed);
        self.shared.open.fetch_add(1, Ordering::Release);
        if let Some(socket) = stream.socket {
            self.effects.push_back(Effect::Receive { socket, on: false });
        }
    }

    /// Takes content in; false if it is no event stream.
    fn events(&mut self, now: Now, index: u32, mut piece: &[u8]) -> bool {
        loop {
            match self.streams[index as usize].events.next(&mut piece) {
                Ok(Some(event)) => self.event(now, index, event),
                Ok(None) => return true,
                Err(_) => return false,
            }
        }
    }

    fn event(&mut self, now: Now, index: u32, event: Event) {
        match event.kind {
            Kind::Beat => {
                self.shared.beats.fetch_add(1, Ordering::Relaxed);
                return self.found.beats += 1;
            }
            Kind::Gap => self.found.gaps += 1,
            Kind::Message => {}
        }
        self.found.data_bytes += u64::from(event.data_bytes);
        let published_at = self.published_at(now, &event);
        let published_at = match event.id {
            Some(id) => {
                let topic = self.plan.own_topic(index) as usize;
                let position = &mut self.streams[index as usize].position;
                self.chains[topic].see(position, id, now.mono, published_at)
            }
            None => {
                self.found.unnamed += 1;
                published_at
            }
        };
        if published_at != Mono(0) {
            self.found.delays.record(published_at, now.mono);
        }
        self.shared.deliveries.fetch_add(1, Ordering::Relaxed);
    }

    /// When the publish of an event was to be sent; 0 if that is not known.
    fn published_at(&mut self, now: Now, event: &Event) -> Mono {
        if self.begun_at.is_none() {
            let begun_at = self.shared.begun_at_ns.load(Ordering::Acquire);
            self.begun_at = (begun_at > 0).then_some(Mono(begun_at));
        }
        // Its number says which publish it was, unless those wait for a word.
        let waits = self.shared.publish_max.load(Ordering::Relaxed) != u32::MAX;
        let plan = self.plan.publish.as_ref().filter(|_| !waits);
        match (plan.zip(self.begun_at), event.number, event.sent_at_us) {
            (Some((plan, begun_at)), Some(n), _) if n < plan.count => plan.intended(begun_at, n),
            // The sender's own word, on the wall clock: exact to a millisecond.
            (_, _, Some(sent_at_us)) => {
                let delay_us = (now.wall_ms * 1_000).saturating_sub(sent_at_us);
                Mono(now.mono.0.saturating_sub(delay_us * 1_000))
            }
            _ => Mono(self.shared.published_at_ns.load(Ordering::Acquire)),
        }
    }

    fn publisher_line(&self, socket: SocketId) -> Option<usize> {
        self.publisher.as_ref()?.line(socket)
    }

    /// An input for a connection of the publisher.
    fn publisher_input(&mut self, line: usize, input: &Input<'_, ()>) {
        let Some(publisher) = &mut self.publisher else { return };
        match input {
            Input::Received { bytes, .. } => publisher.received(line, bytes, &mut self.effects),
            Input::Closed { .. } => {
                publisher.closed(line);
                self.sockets -= 1;
                self.stop_when_closed();
            }
            Input::Eof { .. } | Input::HungUp { .. } | Input::Sent { result: Err(_), .. } => {
                publisher.broken(line, &mut self.effects);
            }
            _ => {}
        }
    }
}

impl Actor for Subscriber {
    type Mail = ();

    fn handle(&mut self, now: Now, input: Input<'_, ()>) {
        let of_publisher = match &input {
            Input::Received { socket, .. }
            | Input::Sent { socket, .. }
            | Input::Eof { socket }
            | Input::HungUp { socket }
            | Input::Closed { socket } => self.publisher_line(*socket),
            _ => None,
        };
        match input {
            input if of_publisher.is_some() => {
                self.publisher_input(of_publisher.unwrap_or_default(), &input);
            }
            Input::Connected { op: op @ OPS.., result } => {
                let socket = result.ok();
                self.sockets += u32::from(socket.is_some());
                if let Some(publisher) = &mut self.publisher {
                    publisher.connected(op, socket, &mut self.effects);
                }
            }
            Input::Connected { op, result } => self.connected(now.mono, op as u32, result.ok()),
            Input::Received { socket, bytes } => {
                if let Some(index) = self.find(socket) {
                    self.received(now, index, bytes);
                }
            }
            Input::Eof { socket } | Input::HungUp { socket } => {
                if let Some(index) = self.find(socket) {
                    self.lose(index);
                }
            }
            Input::Sent { socket, result: Err(_), .. } => {
                if let Some(index) = self.find(socket) {
                    self.lose(index);
                }
            }
            Input::Closed { socket } => self.closed(now.mono, socket),
            Input::Deadline => self.look(now.mono),
            Input::Control(Control::Drain) => self.shared.order(Stage::End),
            // It listens nowhere, watches nothing, asks for no file, name or turn, and has no mail.
            Input::Sent { .. }
            | Input::Accepted { .. }
            | Input::Writable { .. }
            | Input::SendFailed { .. }
            | Input::Mail { .. }
            | Input::File { .. }
            | Input::Resolved { .. }
            | Input::Cold { .. }
            | Input::Continue
            | Input::Control(_) => {}
        }
        if self.end_until.is_none() {
            self.open_more();
            self.publish(now.mono);
        }
    }

    fn poll_effect(&mut self) -> Option<Effect<()>> {
        self.effects.pop_front()
    }

    fn next_deadline(&self) -> Option<Mono> {
        if self.stopped {
            return None;
        }
        let publisher = self.publisher.as_ref().filter(|_| self.end_until.is_none());
        let max = self.shared.publish_max.load(Ordering::Relaxed);
        let publish = publisher.and_then(|publisher| publisher.next_deadline(max));
        Some(publish.map_or(self.look_at, |at| at.min(self.look_at)))
    }

    fn fanout_targets(&self, _: Range<u32>) -> &[SocketId] {
        &[]
    }
}

/// The address to come from: 127.0.0.2 and on toward loopback, else the kernel's choice.
fn source(to: SocketAddr, number: u32) -> Option<SocketAddr> {
    let IpAddr::V4(address) = to.ip() else { return None };
    let base = u32::from(Ipv4Addr::new(127, 0, 0, 2));
    address.is_loopback().then(|| SocketAddr::from((Ipv4Addr::from(base + number), 0)))
}

/// How often orders are looked at.
const LOOK_MS: u64 = 10;
/// Pause before a refused stream is tried again.
const RETRY_MS: u64 = 100;
/// Longest wait for closes at the end.
const END_MS_MAX: u64 = 10_000;

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::{
        scripted::{Scripted, Seen},
        subscriber::publisher::Publish,
    };

    fn engine(streams: u32, publish: Option<Publish>) -> (Scripted<Subscriber>, Arc<Shared>) {
        let shared = Arc::new(Shared::default());
        shared.allowed.store(streams, Ordering::Release);
        let plan = Subscription {
            to: SocketAddr::from(([127, 0, 0, 1], 80)),
            request: Bytes::from_static(b"GET /events HTTP/1.1\r\nHost: a\r\n\r\n"),
            seat: (0, 1),
            streams,
            topics: 1,
            sources: 1,
            opening_max: 8,
            stall_every: 0,
            publish,
        };
        (Scripted::new(Subscriber::new(plan, shared.clone())), shared)
    }

    const HEAD: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n";

    fn held(mut engine: Scripted<Subscriber>, shared: &Shared) -> Held {
        shared.order(Stage::End);
        engine.wait_ms(LOOK_MS);
        assert_eq!(engine.seen.back(), Some(&Seen::Stop));
        shared.take_outcomes().pop().expect("an outcome")
    }

    #[test]
    fn streams_are_opened_within_what_is_allowed() {
        let (mut engine, shared) = engine(3, None);
        shared.allowed.store(2, Ordering::Release);
        engine.wait_ms(LOOK_MS);
        assert_eq!(engine.seen, [Seen::Connect(0), Seen::Connect(1)]);
        let socket = engine.connected(0);
        engine.receive(socket, HEAD);
        assert_eq!(shared.open.load(Ordering::Acquire), 1);
        shared.allowed.store(3, Ordering::Release);
        engine.seen.clear();
        engine.wait_ms(LOOK_MS);
        assert_eq!(engine.seen, [Seen::Connect(2)]);
    }

    #[test]
    fn a_refused_stream_is_opened_again_after_a_pause() {
        let (mut engine, shared) = engine(1, None);
        engine.wait_ms(0);
        let socket = engine.connected(0);
        engine.receive(socket, b"HTTP/1.1 503 No\r\nContent-Length: 0\r\n\r\n");
        assert_eq!(shared.refused.load(Ordering::Relaxed), 1);
        engine.seen.clear();
        engine.wait_ms(RETRY_MS + LOOK_MS);
        assert_eq!(engine.seen.pop_front(), Some(Seen::Connect(0)));
    }

    #[test]
    fn a_stream_that_ends_is_lost_and_a_skipped_event_is_told() {
        let (mut engine, shared) = engine(2, None);
        engine.wait_ms(0);
        let (one, two) = (engine.connected(0), engine.connected(1));
        engine.receive(one, HEAD);
        engine.receive(two, HEAD);
        engine.receive(one, b"id: 1\ndata: x\n\nid: 2\ndata: x\n\nid: 3\ndata: x\n\n");
        engine.receive(two, b"id: 1\ndata: x\n\nid: 3\ndata: x\n\n");
        engine.input(Input::Eof { socket: one });
        assert_eq!(shared.lost.load(Ordering::Relaxed), 1);
        let held = held(engine, &shared);
        assert_eq!((held.open, held.faults.skipped, held.events.len()), (1, 1, 3));
    }

    #[test]
    fn a_delay_counts_from_the_moment_the_publish_was_sent() {
        let publish = Publish {
            to: "http://127.0.0.1:80/pub/x".parse().expect("target"),
            fields: vec!["Authorization: Bearer k".into()],
            body: "{\"n\":{n}}".into(),
            every: Duration::from_millis(500),
            count: 2,
            topics: 1,
            lines: 1,
        };
        let (mut engine, shared) = engine(1, Some(publish));
        engine.wait_ms(0);
        let stream = engine.connected(0);
        engine.receive(stream, HEAD);
        shared.order(Stage::Publish);
        engine.wait_ms(LOOK_MS);
        assert_eq!(engine.seen.back(), Some(&Seen::Connect(OPS)));
        engine.seen.clear();
        let publisher = engine.connected(OPS);
        let sent = engine.sent().concat();
        assert!(sent.starts_with("POST /pub/x HTTP/1.1\r\nHost: 127.0.0.1:80\r\nAuth"), "{sent}");
        assert!(sent.ends_with("Content-Length: 7\r\n\r\n{\"n\":0}"), "{sent}");
        engine.stall_ms(30);
        engine.receive(stream, b"id: 1\ndata: x\n\n");
        engine.receive(publisher, b"HTTP/1.1 201 OK\r\nContent-Length: 0\r\n\r\n");
        engine.wait_ms(500);
        let sent = engine.sent().concat();
        assert!(sent.ends_with("{\"n\":1}"), "{sent}");
        engine.receive(publisher, b"HTTP/1.1 500 No\r\nContent-Length: 0\r\n\r\n");
        assert_eq!(shared.publishing_done.load(Ordering::Acquire), 1);
        let held = held(engine, &shared);
        assert_eq!((held.published, held.publish_failed), (2, 1));
        let delay = held.delays.summary();
        assert_eq!((delay.count, delay.max_us / 100), (1, 300));
    }

    #[test]
    fn sources_are_dealt_out_in_turn() {
        let to = SocketAddr::from(([127, 0, 0, 1], 80));
        assert_eq!(source(to, 256).map(|from| from.to_string()), Some("127.0.1.2:0".into()));
        assert_eq!(source(SocketAddr::from(([10, 0, 0, 1], 80)), 1), None);
    }
}
