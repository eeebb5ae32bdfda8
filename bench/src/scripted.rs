//! An engine for unit tests: time is set by hand, the peer's bytes are written by hand, and every
//! send succeeds at once unless the test says otherwise.

use std::collections::VecDeque;

use dataplane::seam::{Actor, Close, Effect, Input, Mono, Now, SocketId};

/// Drives one actor.
pub(crate) struct Scripted<A: Actor> {
    pub(crate) actor: A,
    pub(crate) now: Now,
    /// What the actor did since the last look.
    pub(crate) seen: VecDeque<Seen>,
    slots: u32,
}

/// An effect as a test looks at it. Sends and closes were already answered.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Seen {
    Connect(u64),
    Sent(SocketId, Vec<u8>),
    Closed(SocketId, Close),
    Receive(SocketId, bool),
    Stop,
}

impl<A: Actor> Scripted<A> {
    pub(crate) fn new(actor: A) -> Self {
        let now = Now { mono: Mono(1_000_000_000), wall_ms: 784_111_777_000 };
        let mut engine = Self { actor, now, seen: VecDeque::new(), slots: 0 };
        engine.settle();
        engine
    }

    pub(crate) fn input(&mut self, input: Input<'_, A::Mail>) {
        self.actor.handle(self.now, input);
        self.settle();
    }

    /// Lets time pass, calling at every deadline on the way.
    pub(crate) fn wait_ms(&mut self, ms: u64) {
        let until = self.now.mono.after_ms(ms);
        while let Some(at) = self.actor.next_deadline().filter(|&at| at <= until) {
            self.now.mono = self.now.mono.max(at);
            self.input(Input::Deadline);
        }
        self.now.mono = until;
    }

    /// Lets time pass without a turn: the thread was away.
    pub(crate) fn stall_ms(&mut self, ms: u64) {
        self.now.mono = self.now.mono.after_ms(ms);
    }

    /// Answers an earlier `Connect`.
    pub(crate) fn connected(&mut self, op: u64) -> SocketId {
        let socket = self.socket();
        self.input(Input::Connected { op, result: Ok(socket) });
        socket
    }

    pub(crate) fn accepted(&mut self) -> SocketId {
        let socket = self.socket();
        let local = std::net::SocketAddr::from(([127, 0, 0, 1], 80));
        self.input(Input::Accepted { socket, listener: 0, peer: local, local });
        socket
    }

    pub(crate) fn receive(&mut self, socket: SocketId, bytes: &[u8]) {
        self.input(Input::Received { socket, bytes });
    }

    /// What was sent on any socket since the last look, as text.
    pub(crate) fn sent(&mut self) -> Vec<String> {
        let text = |seen| match seen {
            Seen::Sent(_, bytes) => Some(String::from_utf8(bytes).expect("text")),
            _ => None,
        };
        self.seen.drain(..).filter_map(text).collect()
    }

    fn socket(&mut self) -> SocketId {
        self.slots += 1;
        SocketId { slot: self.slots - 1, generation: 1 }
    }

    fn settle(&mut self) {
        while let Some(effect) = self.actor.poll_effect() {
            match effect {
                Effect::Connect { op, .. } => self.seen.push_back(Seen::Connect(op)),
                Effect::Receive { socket, on } => self.seen.push_back(Seen::Receive(socket, on)),
                Effect::Send { socket, payload } => {
                    let pieces = payload.segments().iter().map(|segment| segment.as_slice());
                    self.seen.push_back(Seen::Sent(socket, pieces.collect::<Vec<_>>().concat()));
                    let sent = Input::Sent { socket, result: Ok(()), payload };
                    self.actor.handle(self.now, sent);
                }
                Effect::Close { socket, how } => {
                    self.seen.push_back(Seen::Closed(socket, how));
                    self.actor.handle(self.now, Input::Closed { socket });
                }
                Effect::Stop => self.seen.push_back(Seen::Stop),
                other => {
                    // The actors of this crate ask for nothing else.
                    unreachable!("unexpected effect {:?}", std::mem::discriminant(&other))
                }
            }
        }
    }
}
