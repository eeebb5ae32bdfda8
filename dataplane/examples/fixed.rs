//! What the seam and the engine cost: an actor with one fixed answer.
//!
//! ```text
//! fixed serve 127.0.0.1:9000 [auto|io_uring|plain|epoll] [core]   one shard, 1 KiB a request
//! fixed seam [requests]   the actor driven by nobody: ns a request
//! ```
//!
//! `plain` is io_uring without direct descriptors. Compare `serve` with the bare loop of the `floor`
//! example under the same load.
#![expect(clippy::print_stdout, reason = "its output is its purpose")]

use std::{collections::VecDeque, net::SocketAddr, ops::Range};

use pharos_dataplane::{
    engine::{Clock, Config, Descriptors, EngineChoice, Pin, start},
    seam::{Actor, Close, Effect, Input, ListenerId, Mono, Now, Payload, Segment, SocketId},
};

/// Answers each request head with the same 1 KiB.
struct Fixed {
    answer: &'static [u8],
    effects: VecDeque<Effect<()>>,
}

impl Fixed {
    fn new() -> Self {
        let mut answer =
            b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 1024\r\n\r\n".to_vec();
        answer.resize(answer.len() + 1024, b'x');
        Self { answer: answer.leak(), effects: VecDeque::new() }
    }
}

impl Actor for Fixed {
    type Mail = ();

    fn handle(&mut self, _: Now, input: Input<'_, ()>) {
        match input {
            Input::Accepted { socket, .. } => {
                self.effects.push_back(Effect::Receive { socket, on: true });
            }
            Input::Received { socket, bytes }
                if bytes.windows(4).any(|window| window == b"\r\n\r\n") =>
            {
                let payload = Payload::One(Segment::Static(self.answer));
                self.effects.push_back(Effect::Send { socket, payload });
            }
            Input::Eof { socket } | Input::HungUp { socket } => {
                self.effects.push_back(Effect::Close { socket, how: Close::Abort });
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

    fn fanout_targets(&self, _: Range<u32>) -> &[SocketId] {
        &[]
    }
}

fn serve(arguments: &[String]) {
    let addr: SocketAddr = arguments[0].parse().expect("an address");
    let engine = match arguments.get(1).map(String::as_str) {
        Some("io_uring" | "plain") => EngineChoice::IoUring,
        Some("epoll") => EngineChoice::Epoll,
        _ => EngineChoice::Auto,
    };
    let plain = arguments.get(1).is_some_and(|engine| engine == "plain");
    let descriptors = if plain { Descriptors::Plain } else { Descriptors::Auto };
    let core = arguments.get(2).map_or(0, |core| core.parse().expect("a core"));
    let config = Config {
        engine,
        descriptors,
        shards: 1,
        pin: Pin::Cores(vec![core]),
        ..Config::new(vec![addr])
    };
    let running = start(config, |_| Fixed::new()).expect("starts");
    println!("{:?}: {}", running.taken().kind, running.taken().why);
    running.join().expect("no shard died");
}

/// Batches of 64 requests, as a busy engine delivers them, through inputs and effects.
fn seam(requests: u64) {
    const BATCH: u32 = 64;
    let request = b"GET /a HTTP/1.1\r\nHost: 127.0.0.1:9000\r\n\r\n";
    let mut actor = Fixed::new();
    let (clock, now) = (Clock::start(), Now::default());
    let rounds = requests / u64::from(BATCH);
    for slot in 0..BATCH {
        accept(&mut actor, now, SocketId { slot, generation: 1 });
    }
    let started = clock.mono();
    for _ in 0..rounds {
        for slot in 0..BATCH {
            let socket = SocketId { slot, generation: 1 };
            actor.handle(now, Input::Received { socket, bytes: std::hint::black_box(request) });
        }
        let mut sent = Vec::with_capacity(BATCH as usize);
        while let Some(effect) = actor.poll_effect() {
            if let Effect::Send { socket, payload } = std::hint::black_box(effect) {
                sent.push((socket, payload));
            }
        }
        for (socket, payload) in sent {
            actor.handle(now, Input::Sent { socket, result: Ok(()), payload });
        }
    }
    let elapsed_ns = clock.mono().since_ns(started);
    println!("{} ns a request", elapsed_ns / (rounds * u64::from(BATCH)));
}

fn accept(actor: &mut Fixed, now: Now, socket: SocketId) {
    let (peer, local) = (([127, 0, 0, 1], 1).into(), ([127, 0, 0, 1], 2).into());
    let listener: ListenerId = 0;
    actor.handle(now, Input::Accepted { socket, listener, peer, local });
    while actor.poll_effect().is_some() {}
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.first().map(String::as_str) {
        Some("serve") if arguments.len() > 1 => serve(&arguments[1..]),
        Some("seam") => {
            seam(arguments.get(1).map_or(20_000_000, |count| count.parse().expect("a number")));
        }
        _ => {
            println!("fixed serve ADDR [auto|io_uring|plain|epoll] [CORE] | fixed seam [REQUESTS]")
        }
    }
}
