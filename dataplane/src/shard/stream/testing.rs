//! A small world for tests of the streams: clients with an engine as bad as the seam allows.

use std::{collections::HashMap, io, rc::Rc};

use proto::feed::{
    cursor::{Dot, Replica, VersionVector},
    record::Publish,
};

use super::{StreamLimits, Streams, Subscribe, Wanted};
use crate::{
    limits,
    seam::{Effect, Now, Payload, SocketId},
    shard::{mail::Advance, out::Out, stream_route::StreamRoute},
};

/// An event as a client reads it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Seen {
    pub(super) id: Option<String>,
    pub(super) event: String,
    pub(super) data: String,
}

/// A client's end of a socket, with the engine's half of the work for it.
#[derive(Default)]
pub(super) struct Client {
    pub(super) generation: u32,
    pub(super) bytes: Vec<u8>,
    /// Reads nothing; its socket takes `room` more bytes.
    pub(super) stalled: bool,
    pub(super) room: usize,
    pub(super) in_flight: Option<Payload>,
    pub(super) armed: bool,
    pub(super) closed: bool,
    pub(super) sends: usize,
}

/// Streams with an engine as bad as the seam allows.
pub(super) struct World {
    pub(super) streams: Streams,
    pub(super) out: Out,
    pub(super) now: Now,
    pub(super) clients: HashMap<u32, Client>,
    /// Targets of each fan-out, in order.
    pub(super) batches: Vec<Vec<u32>>,
    pub(super) requests_wait: bool,
}

impl World {
    pub(super) fn new(limits: StreamLimits) -> Self {
        Self {
            streams: Streams::with_limits(limits, 7),
            out: Out::new(0, 1),
            now: Now::default(),
            clients: HashMap::new(),
            batches: Vec::new(),
            requests_wait: false,
        }
    }

    pub(super) fn open(&mut self, slot: u32, topic: &str, last_event_id: Option<&str>) {
        let route = StreamRoute::of_pages();
        self.open_by(slot, &[topic], &route, last_event_id, None);
    }

    pub(super) fn open_by(
        &mut self,
        slot: u32,
        topics: &[&str],
        route: &Rc<StreamRoute>,
        last_event_id: Option<&str>,
        expires_at_ms: Option<u64>,
    ) {
        let generation = self.clients.get(&slot).map_or(0, |old| old.generation + 1);
        self.clients.insert(slot, Client { generation, ..Client::default() });
        let socket = SocketId { slot, generation };
        let topics: Vec<String> = topics.iter().map(|&topic| topic.to_owned()).collect();
        let wanted = Some(Wanted { topics: &topics, route, expires_at_ms, was_led: false });
        let request = Subscribe { socket, wanted, last_event_id, request_id: "r1", http10: false };
        self.out.begin();
        self.streams.subscribe(self.now, request, &mut self.out);
        self.run();
    }

    pub(super) fn publish(&mut self, record: &Publish) {
        self.out.begin();
        self.streams.handle_publish(self.now, record, &mut self.out);
    }

    pub(super) fn applied(&mut self, applied: &VersionVector, how: Advance) {
        self.out.begin();
        self.streams.handle_applied(self.now, applied, how, &mut self.out);
    }

    pub(super) fn stall(&mut self, slot: u32, room: usize) {
        let client = self.clients.get_mut(&slot).expect("a client");
        (client.stalled, client.room) = (true, room);
    }

    pub(super) fn unstall(&mut self, slot: u32) {
        let client = self.clients.get_mut(&slot).expect("a client");
        client.stalled = false;
        let socket = SocketId { slot, generation: client.generation };
        if let Some(payload) = client.in_flight.take() {
            // `take_in` counted what had room; the engine continues by itself.
            let all: Vec<u8> =
                payload.segments().iter().flat_map(|segment| segment.as_slice().to_vec()).collect();
            client.bytes.extend_from_slice(&all);
            self.out.begin();
            self.streams.handle_sent(self.now, slot, socket, Ok(()), payload, &mut self.out);
        } else if std::mem::take(&mut client.armed) {
            self.out.begin();
            self.streams.handle_writable(self.now, slot, socket, &mut self.out);
        }
        self.run();
    }

    pub(super) fn close(&mut self, slot: u32) {
        let client = self.clients.get_mut(&slot).expect("a client");
        if client.closed {
            return;
        }
        let socket = SocketId { slot, generation: client.generation };
        self.out.begin();
        self.streams.handle_gone(self.now, slot, socket, &mut self.out);
        self.run();
        assert!(self.clients[&slot].closed);
    }

    pub(super) fn pass_ms(&mut self, ms: u64) {
        self.now.mono = self.now.mono.after_ms(ms);
        if self.streams.next_deadline().is_some_and(|at| at <= self.now.mono) {
            self.out.begin();
            self.streams.handle_deadline(self.now, &mut self.out);
            self.streams.tally(self.now.mono);
        }
        self.run();
    }

    /// Carries out effects and turns until nothing is left to do.
    pub(super) fn run(&mut self) {
        while self.turn() {}
    }

    /// Carries out the effects there are; whether a turn or an outcome gave new ones.
    pub(super) fn turn(&mut self) -> bool {
        let (mut sent, mut failed, mut yielded) = (Vec::new(), Vec::new(), false);
        let mut touched = std::collections::HashSet::new();
        while let Some(effect) = self.out.poll() {
            match effect {
                Effect::Send { socket, payload } => {
                    let client = self.clients.get_mut(&socket.slot).expect("a client");
                    assert!(!client.closed && client.in_flight.is_none());
                    assert!(touched.insert(socket.slot), "one send while its outcome is open");
                    assert!(payload.segments().len() <= limits::SEGMENTS_MAX);
                    if client.stalled {
                        client.in_flight = Some(payload);
                    } else {
                        for segment in payload.segments() {
                            client.bytes.extend_from_slice(segment.as_slice());
                        }
                        client.sends += 1;
                        sent.push((socket, payload));
                    }
                }
                Effect::Fanout { frame, targets } => {
                    let targets = self.out.targets(targets).to_vec();
                    self.batches.push(targets.iter().map(|socket| socket.slot).collect());
                    for socket in targets {
                        let client = self.clients.get_mut(&socket.slot).expect("a client");
                        assert!(!client.closed && client.in_flight.is_none());
                        assert!(touched.insert(socket.slot), "one frame a turn");
                        assert_eq!(client.generation, socket.generation);
                        if !client.stalled {
                            client.bytes.extend_from_slice(&frame);
                            client.sends += 1;
                            continue;
                        }
                        let took = client.room.min(frame.len() - 1);
                        client.room -= took;
                        client.bytes.extend_from_slice(&frame[..took]);
                        failed.push((socket, took as u32));
                    }
                }
                Effect::Watch { socket, hang_up, writable } => {
                    assert!(hang_up);
                    self.clients.get_mut(&socket.slot).expect("a client").armed = writable;
                }
                Effect::Close { socket, .. } => {
                    self.clients.get_mut(&socket.slot).expect("a client").closed = true;
                }
                Effect::Yield => yielded = true,
                // What is wanted: who plays shard 0 looks at the topics themselves.
                Effect::Mail { to: 0, .. } => {}
                other => panic!("streams have no use for {other:?}"),
            }
        }
        while self.out.pop_closing().is_some() {}
        let busy = yielded || !sent.is_empty() || !failed.is_empty();
        for (socket, sent_bytes) in failed {
            self.out.begin();
            let error = io::ErrorKind::WouldBlock;
            self.streams.handle_send_failed(
                self.now,
                socket.slot,
                socket,
                sent_bytes,
                error,
                &mut self.out,
            );
        }
        for (socket, payload) in sent {
            if !self.clients[&socket.slot].closed {
                self.out.begin();
                self.streams.handle_sent(
                    self.now,
                    socket.slot,
                    socket,
                    Ok(()),
                    payload,
                    &mut self.out,
                );
            }
        }
        if yielded {
            self.out.begin();
            self.out.continued();
            self.streams.handle_continue(self.now, self.requests_wait, &mut self.out);
        }
        busy
    }

    /// Events that a client has read whole.
    pub(super) fn seen(&self, slot: u32) -> Vec<Seen> {
        let bytes = &self.clients[&slot].bytes;
        let head = bytes.windows(4).position(|w| w == b"\r\n\r\n");
        let Some(head) = head else { return Vec::new() };
        parse(&unchunk(&bytes[head + 4..]))
    }

    /// Events apart from beats.
    pub(super) fn events(&self, slot: u32) -> Vec<Seen> {
        self.seen(slot).into_iter().filter(|seen| seen.event != "beat").collect()
    }

    pub(super) fn last_id(&self, slot: u32) -> Option<String> {
        self.seen(slot).into_iter().rev().find_map(|seen| seen.id)
    }
}

/// The content of whole chunks.
pub(super) fn unchunk(mut body: &[u8]) -> String {
    let mut text = String::new();
    while let Some(at) = body.windows(2).position(|w| w == b"\r\n") {
        let length = std::str::from_utf8(&body[..at]).expect("hex digits");
        let length = usize::from_str_radix(length, 16).expect("hex digits");
        if body.len() < at + 2 + length + 2 {
            break;
        }
        text.push_str(std::str::from_utf8(&body[at + 2..at + 2 + length]).expect("UTF-8"));
        assert_eq!(&body[at + 2 + length..at + 4 + length], b"\r\n");
        body = &body[at + 4 + length..];
    }
    text
}

pub(super) fn parse(text: &str) -> Vec<Seen> {
    let mut all = Vec::new();
    for block in text.split("\n\n") {
        let field =
            |name: &str| block.lines().find_map(|line| line.strip_prefix(name)).map(str::to_owned);
        if let Some(event) = field("event: ") {
            let data = field("data: ").expect("every event has data");
            all.push(Seen { id: field("id: "), event, data });
        }
    }
    all
}

pub(super) fn replica(name: &str) -> Replica {
    format!("{name}-00000000").parse().expect("a replica")
}

pub(super) fn vector(text: &str) -> VersionVector {
    text.parse().expect("a vector")
}

pub(super) fn event(topic: &str, replica_name: &str, seq: u64, prev: u64) -> Publish {
    let dot = Dot { replica: replica(replica_name), seq };
    Publish {
        position: seq,
        topic: topic.to_owned(),
        dot,
        prev,
        event: "incident".into(),
        data: dot.to_string(),
        key: None,
        version: VersionVector::from_iter([dot]),
        refill: false,
        lone: false,
    }
}

pub(super) fn small() -> StreamLimits {
    let mut limits = StreamLimits::new(10_000);
    limits.history.count_max = 4;
    limits
}

pub(super) fn dots(world: &World, slot: u32) -> Vec<String> {
    world.events(slot).into_iter().map(|seen| seen.data).collect()
}
