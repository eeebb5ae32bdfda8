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

use std::{
    collections::VecDeque,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    ops::Range,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU8, AtomicU32, AtomicU64, Ordering},
    },
};

use bytes::Bytes;
use dataplane::seam::{
    Actor, Close, Control, Effect, Input, Mono, Now, Payload, Segment, SocketId,
};

use crate::{
    event::{Event, EventReader, Kind},
    record::Delays,
    response::{Part, ResponseReader},
    subscriber::{
        chain::{Chain, Faults, Position, Sighted},
        publisher::{OP, Publish, Publisher},
    },
};

/// What one subscriber does.
#[derive(Clone, Debug)]
pub(crate) struct Subscription {
    pub(crate) to: SocketAddr,
    /// The request that opens a stream.
    pub(crate) request: Bytes,
    /// Which shard this is, of how many; streams and sources are dealt out in turn.
    pub(crate) seat: (u16, u16),
    /// Streams of all shards.
    pub(crate) streams: u32,
    /// Addresses 127.0.0.2 and on, of all shards.
    pub(crate) sources: u32,
    /// Streams being opened at a time, of this shard.
    pub(crate) opening_max: u32,
    /// Only the first shard publishes.
    pub(crate) publish: Option<Publish>,
}

/// Orders to all subscribers of a run, and what they show while it goes on.
#[derive(Debug, Default)]
pub(crate) struct Shared {
    stage: AtomicU8,
    /// Streams of all shards that may be open.
    pub(crate) allowed: AtomicU32,
    pub(crate) open: AtomicU32,
    pub(crate) lost: AtomicU32,
    /// Opens that were refused or failed, and are tried again.
    pub(crate) refused: AtomicU32,
    pub(crate) deliveries: AtomicU64,
    /// When the latest publish was sent, 0 before the first.
    published_at_ns: AtomicU64,
    pub(crate) published: AtomicU32,
    /// The publisher has nothing left to do.
    pub(crate) publishing_done: AtomicU8,
    outcomes: Mutex<Vec<Held>>,
}

/// What all subscribers are to do.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Stage {
    Open,
    Publish,
    End,
}

/// What one subscriber found.
#[derive(Clone, Debug)]
pub(crate) struct Held {
    pub(crate) delays: Delays,
    pub(crate) events: Vec<Sighted>,
    pub(crate) faults: Faults,
    /// Streams still open at the end.
    pub(crate) open: u32,
    pub(crate) beats: u64,
    pub(crate) gaps: u64,
    /// Events without an id, whose order cannot be checked.
    pub(crate) unnamed: u64,
    pub(crate) data_bytes: u64,
    pub(crate) protocol_errors: u64,
    pub(crate) published: u32,
    pub(crate) publish_failed: u32,
}

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
    chain: Chain,
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
    /// Closed, or about to be.
    Gone,
}

impl Shared {
    pub(crate) fn stage(&self) -> Stage {
        match self.stage.load(Ordering::Acquire) {
            0 => Stage::Open,
            1 => Stage::Publish,
            _ => Stage::End,
        }
    }

    pub(crate) fn order(&self, stage: Stage) {
        self.stage.store(stage as u8, Ordering::Release);
    }

    pub(crate) fn take_outcomes(&self) -> Vec<Held> {
        std::mem::take(&mut self.outcomes.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Subscriber {
    pub(crate) fn new(plan: Subscription, shared: Arc<Shared>) -> Self {
        let own = share(plan.streams, plan.seat);
        let publisher = plan.publish.clone().map(Publisher::new);
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
            chain: Chain::default(),
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
        while let Some(&(at, index)) = self.retry.front()
            && at <= now
            && self.end_until.is_none()
        {
            self.retry.pop_front();
            self.connect(index);
        }
    }

    fn publish(&mut self, now: Mono) {
        let Some(publisher) = &mut self.publisher else { return };
        if publisher.work(now, &mut self.effects) {
            self.shared.published_at_ns.store(now.0, Ordering::Release);
            self.shared.published.fetch_add(1, Ordering::Release);
        }
        let done = u8::from(publisher.is_done());
        self.shared.publishing_done.store(done, Ordering::Release);
    }

    fn end(&mut self, now: Mono) {
        let mut found = std::mem::replace(&mut self.found, Held::new());
        found.events = self.chain.events().to_vec();
        found.faults = self.chain.faults;
        found.open = self.count(Life::Open);
        if let Some(publisher) = &self.publisher {
            found.published = publisher.sent;
            found.publish_failed = publisher.failed;
            if let Some(socket) = publisher.socket() {
                self.effects.push_back(Effect::Close { socket, how: Close::Abort });
            }
        }
        self.shared.outcomes.lock().unwrap_or_else(PoisonError::into_inner).push(found);
        for stream in &mut self.streams {
            if let (Some(socket), Life::Opening | Life::Open) = (stream.socket, stream.life) {
                stream.life = Life::Gone;
                self.effects.push_back(Effect::Close { socket, how: Close::Abort });
            }
        }
        self.end_until = Some(now.after_ms(END_MS_MAX));
        self.stop_when_closed();
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
        let allowed = self.shared.allowed.load(Ordering::Acquire).min(self.plan.streams);
        let allowed = share(allowed, self.plan.seat);
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
        let (seat, seats) = self.plan.seat;
        let number = index * u32::from(seats) + u32::from(seat);
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
        let payload = Payload::One(Segment::Local(self.plan.request.clone()));
        self.effects.push_back(Effect::Receive { socket, on: true });
        self.effects.push_back(Effect::Send { socket, payload });
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
            Kind::Beat => return self.found.beats += 1,
            Kind::Gap => self.found.gaps += 1,
            Kind::Message => {}
        }
        self.found.data_bytes += u64::from(event.data_bytes);
        let published_at = Mono(self.shared.published_at_ns.load(Ordering::Acquire));
        let published_at = match event.sent_at_us {
            // The sender's own word, on the wall clock: exact to a millisecond.
            Some(sent_at_us) => {
                let delay_us = (now.wall_ms * 1_000).saturating_sub(sent_at_us);
                Mono(now.mono.0.saturating_sub(delay_us * 1_000))
            }
            None => published_at,
        };
        let published_at = match event.id {
            Some(id) => {
                let position = &mut self.streams[index as usize].position;
                self.chain.see(position, id, now.mono, published_at)
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

    fn is_publisher(&self, socket: SocketId) -> bool {
        self.publisher.as_ref().is_some_and(|publisher| publisher.owns(socket))
    }

    /// An input for the publisher's connection.
    fn publisher_input(&mut self, input: &Input<'_, ()>) {
        let Some(publisher) = &mut self.publisher else { return };
        match input {
            Input::Received { bytes, .. } => publisher.received(bytes, &mut self.effects),
            Input::Closed { .. } => {
                publisher.closed();
                self.sockets -= 1;
                self.stop_when_closed();
            }
            Input::Eof { .. } | Input::HungUp { .. } | Input::Sent { result: Err(_), .. } => {
                publisher.broken(&mut self.effects);
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
            | Input::Closed { socket } => self.is_publisher(*socket),
            _ => false,
        };
        match input {
            input if of_publisher => self.publisher_input(&input),
            Input::Connected { op: OP, result } => {
                let socket = result.ok();
                self.sockets += u32::from(socket.is_some());
                if let Some(publisher) = &mut self.publisher {
                    publisher.connected(socket, &mut self.effects);
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
        let publish = publisher.and_then(Publisher::next_deadline);
        Some(publish.map_or(self.look_at, |at| at.min(self.look_at)))
    }

    fn fanout_targets(&self, _: Range<u32>) -> &[SocketId] {
        &[]
    }
}

impl Held {
    pub(crate) fn new() -> Self {
        Self {
            delays: Delays::new(),
            events: Vec::new(),
            faults: Faults::default(),
            open: 0,
            beats: 0,
            gaps: 0,
            unnamed: 0,
            data_bytes: 0,
            protocol_errors: 0,
            published: 0,
            publish_failed: 0,
        }
    }
}

/// How many of `total` are dealt to this seat.
fn share(total: u32, (seat, seats): (u16, u16)) -> u32 {
    let (seat, seats) = (u32::from(seat), u32::from(seats.max(1)));
    total / seats + u32::from(seat < total % seats)
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
    use crate::scripted::{Scripted, Seen};

    fn engine(streams: u32, publish: Option<Publish>) -> (Scripted<Subscriber>, Arc<Shared>) {
        let shared = Arc::new(Shared::default());
        shared.allowed.store(streams, Ordering::Release);
        let plan = Subscription {
            to: SocketAddr::from(([127, 0, 0, 1], 80)),
            request: Bytes::from_static(b"GET /events HTTP/1.1\r\nHost: a\r\n\r\n"),
            seat: (0, 1),
            streams,
            sources: 1,
            opening_max: 8,
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
        };
        let (mut engine, shared) = engine(1, Some(publish));
        engine.wait_ms(0);
        let stream = engine.connected(0);
        engine.receive(stream, HEAD);
        shared.order(Stage::Publish);
        engine.wait_ms(LOOK_MS);
        assert_eq!(engine.seen.back(), Some(&Seen::Connect(OP)));
        engine.seen.clear();
        let publisher = engine.connected(OP);
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
    fn streams_and_sources_are_dealt_out_in_turn() {
        let shares: Vec<u32> = (0..3).map(|seat| share(10, (seat, 3))).collect();
        assert_eq!(shares, [4, 3, 3]);
        let to = SocketAddr::from(([127, 0, 0, 1], 80));
        assert_eq!(source(to, 256).map(|from| from.to_string()), Some("127.0.1.2:0".into()));
        assert_eq!(source(SocketAddr::from(([10, 0, 0, 1], 80)), 1), None);
    }
}
