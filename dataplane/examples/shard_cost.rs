//! What a request costs in the shard alone: the real [`Shard`] driven by a null engine, no kernel.
//! Prints nanoseconds a request; the seam's own share is measured with an actor that gives a fixed
//! answer.
//!
//! `cargo run --release -p pharos-dataplane --example shard_cost [rounds]`
#![allow(clippy::print_stdout, reason = "a program that prints")]

use std::{collections::VecDeque, ops::Range};

use cache::Cache;
use pharos_dataplane::{
    config::{Explain, Timeouts},
    seam::{Actor, Effect, Input, Mono, Now, Payload, Segment, SocketId},
    shard::{Settings, Shard, observe::Board},
};
use proto::feed::site::{Origin, Site};

const CLIENT: SocketId = SocketId { slot: 1, generation: 0 };
const ORIGIN: SocketId = SocketId { slot: 2, generation: 0 };
const REQUEST: &[u8] =
    b"GET /object/1 HTTP/1.1\r\nHost: bench.example\r\nUser-Agent: bench/1\r\nAccept: */*\r\n\r\n";
const NOW: Now = Now { mono: Mono(1_000_000_000), wall_ms: 1_700_000_000_000 };

fn main() {
    let rounds: u64 =
        std::env::args().nth(1).and_then(|text| text.parse().ok()).unwrap_or(1_000_000);
    let fixed = measure(&mut Fixed::default(), REQUEST, rounds, 1);
    println!("seam, fixed answer             {fixed:7.1} ns/request");
    for body_bytes in [0, 1024, 8 * 1024, 64 * 1024] {
        let mut shard = warm_shard(body_bytes, true);
        let cost = measure(&mut shard, REQUEST, rounds, 1);
        println!("near hit, {body_bytes:6} byte body     {cost:7.1} ns/request");
    }
    let pipelined = REQUEST.repeat(16);
    let cost = measure(&mut warm_shard(1024, true), &pipelined, rounds / 16, 16);
    println!("near hit,   1024, 16 pipelined {cost:7.1} ns/request");
    let unknown = b"GET /object/1 HTTP/1.1\r\nHost: other.example\r\n\r\n";
    let cost = measure(&mut warm_shard(0, true), unknown, rounds, 1);
    println!("own answer (421)               {cost:7.1} ns/request");
    let record = record_cost(rounds / 5);
    println!("record of a near hit           {record:7.1} ns/request");
}

/// What the record of a near hit adds: with and without, alternating, the best of each.
fn record_cost(rounds: u64) -> f64 {
    let mut shards = [false, true].map(|explained| (warm_shard(1024, explained), f64::MAX));
    for _ in 0..10 {
        for (shard, best) in &mut shards {
            *best = best.min(measure(shard, REQUEST, rounds, 1));
        }
    }
    shards[1].1 - shards[0].1
}

/// Feeds the same bytes again and again; the best of five rounds, in ns a request.
fn measure<A: Actor>(actor: &mut A, bytes: &[u8], rounds: u64, requests: u64) -> f64 {
    let mut best = f64::MAX;
    for _ in 0..5 {
        let started_ns = cpu_ns();
        for _ in 0..rounds {
            actor.handle(NOW, Input::Received { socket: CLIENT, bytes });
            while let Some(effect) = actor.poll_effect() {
                if let Effect::Send { socket, payload } = effect {
                    std::hint::black_box(payload.segments().len());
                    actor.handle(NOW, Input::Sent { socket, result: Ok(()), payload });
                }
            }
        }
        let spent_ns = (cpu_ns() - started_ns) as f64;
        best = best.min(spent_ns / (rounds * requests) as f64);
    }
    best
}

/// This thread's time on a core, which a busy machine does not stretch.
fn cpu_ns() -> u64 {
    let stat = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    stat.split(' ').next().and_then(|text| text.parse().ok()).unwrap_or(0)
}

/// A shard with a connected client and the object in its near table.
/// `explained`: with records of answers, as by default.
fn warm_shard(body_bytes: usize, explained: bool) -> Shard {
    let site = Site {
        id: "s".into(),
        name: "s".into(),
        hosts: vec!["bench.example".into()],
        origins: vec![Origin { url: "http://127.0.0.1:9".into() }],
        routes: Vec::new(),
        token_keys: Vec::new(),
        rules: Vec::new(),
        purge_keys: Vec::new(),
    };
    let settings = Settings {
        shard: 0,
        shard_count: 1,
        seed: 1,
        forward: Default::default(),
        explain: match explained {
            true => Default::default(),
            false => Explain { memory: 0, ..Default::default() },
        },
        edge_id: "bench".into(),
        parents: std::sync::Arc::from([]),
        relay: None,
        pop: "bench".into(),
        engine: "null".into(),
        control: None,
        sites: [site].into(),
        data: None,
        admin_listener: None,
        listener_count: 1,
        sockets_max: 10_000,
        streams_max: 0,
        rates: Default::default(),
        url: None,
        cache: Cache::new(cache::Config::new(64 << 20, 1)),
        near_entries: 1024,
        board: Board::new(1),
        timeouts: Timeouts::default(),
        levels: Default::default(),
        live: std::sync::Arc::default(),
    };
    let mut shard = Shard::new(settings, NOW);
    let peer = ([127, 0, 0, 1], 5).into();
    shard.handle(NOW, Input::Accepted { socket: CLIENT, listener: 0, peer, local: peer });
    shard.handle(NOW, Input::Received { socket: CLIENT, bytes: REQUEST });
    let answer = format!(
        "HTTP/1.1 200 OK\r\nServer: origin\r\nContent-Type: text/plain\r\nETag: \"1\"\r\n\
         Last-Modified: Sun, 06 Nov 1994 08:49:37 GMT\r\nCache-Control: max-age=86400\r\n\
         Content-Length: {body_bytes}\r\n\r\n{}",
        "x".repeat(body_bytes)
    );
    while let Some(effect) = shard.poll_effect() {
        match effect {
            Effect::Connect { op, .. } => {
                shard.handle(NOW, Input::Connected { op, result: Ok(ORIGIN) });
            }
            Effect::Send { socket, payload } => {
                let is_request = socket == ORIGIN;
                shard.handle(NOW, Input::Sent { socket, result: Ok(()), payload });
                if is_request {
                    let bytes = answer.as_bytes();
                    shard.handle(NOW, Input::Received { socket: ORIGIN, bytes });
                }
            }
            _ => {}
        }
    }
    shard
}

/// The least an actor can do: the same answer to everything, from a buffer that is reused.
#[derive(Default)]
struct Fixed {
    effects: VecDeque<Effect<()>>,
    spare: Vec<Vec<u8>>,
}

impl Actor for Fixed {
    type Mail = ();

    fn handle(&mut self, _now: Now, input: Input<'_, ()>) {
        match input {
            Input::Received { socket, .. } => {
                let mut buffer = self.spare.pop().unwrap_or_default();
                buffer.extend_from_slice(&ANSWER);
                let payload = Payload::One(Segment::Owned(buffer));
                self.effects.push_back(Effect::Send { socket, payload });
            }
            Input::Sent { payload: Payload::One(Segment::Owned(mut buffer)), .. } => {
                buffer.clear();
                self.spare.push(buffer);
            }
            _ => {}
        }
    }

    fn poll_effect(&mut self) -> Option<Effect<()>> {
        self.effects.pop_front()
    }

    fn next_deadline(&self) -> Option<Mono> {
        None
    }

    fn fanout_targets(&self, _range: Range<u32>) -> &[SocketId] {
        &[]
    }
}

/// As long as a head and 1 KiB.
static ANSWER: [u8; 1400] = [b'x'; 1400];
