//! Many streams that come back: an actor of the engine that connects, waits as it is told, follows
//! where it is led, and has each stream check what it is told.
//!
//! ```text
//!   Idle ─▶ Waiting ─due─▶ Connecting ─▶ Opening ─first event─▶ Live
//!              ▲               │ 1 s        │                     │
//!              └───────────────┴────────────┴──── end, silence ───┘
//! ```
//! A connect that is not answered within [`CONNECT_MS`] is made anew if the address leads
//! elsewhere by then: that is when the kernel sends a SYN again, to wherever that is. The engine is
//! the edges' own, what is said on its connections is not (`stream`). Leaves to others: where new
//! connections are led (`address`), what the run is (`shared`).

use std::{
    cmp::Reverse,
    collections::{BinaryHeap, VecDeque},
    net::{Ipv4Addr, SocketAddr},
    ops::Range,
    sync::{Arc, atomic::Ordering},
};

use dataplane::{
    engine::{self, Running, Seat},
    seam::{Actor, Close, Effect, Input, Mono, Now, Payload, Segment, SocketId},
};

use super::{
    address::{EDGES_MAX, Lead},
    shared::Shared,
    stream::{Stream, Told, Wanted},
};

/// What a crowd needs to know.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The service's address.
    pub to: SocketAddr,
    /// The host that is asked for.
    pub host: String,
    /// One for each stream.
    pub wanted: Arc<Vec<Wanted>>,
    /// Where new connections are led.
    pub lead: Lead,
    /// By which source address a connection gets to an edge: of so many, this one.
    pub source: fn(usize, u32) -> Ipv4Addr,
    /// The edge whose own address this is.
    pub edge_of: fn(SocketAddr) -> Option<usize>,
}

/// Sends a crowd out on so many threads.
///
/// # Panics
/// When no engine starts here.
pub fn start(plan: Plan, shards: u16, shared: &Arc<Shared>) -> Running {
    let mut config = engine::Config::new(Vec::new());
    (config.shards, config.pin) = (shards, engine::Pin::None);
    let shared = Arc::clone(shared);
    let make = move |seat: &Seat| Crowd::new(plan.clone(), seat, Arc::clone(&shared));
    engine::start(config, make).expect("an engine starts")
}

/// The part of a crowd that one thread drives.
struct Crowd {
    plan: Plan,
    shared: Arc<Shared>,
    /// Which part of how many.
    seat: (u16, u16),
    members: Vec<Member>,
    /// Index into `members` by the slot of a socket.
    by_slot: Vec<u32>,
    waiting: BinaryHeap<Reverse<(Mono, u32, u32)>>,
    begun: u32,
    look_at: Mono,
    answered: u32,
    is_stopped: bool,
    told: Vec<Told>,
    effects: VecDeque<Effect<()>>,
}

struct Member {
    stream: Stream,
    life: Life,
    /// Counts what it has begun, so that what comes late is known for what it is.
    turn: u32,
    socket: Option<SocketId>,
    edge: usize,
    /// Where it was led; its connection's own address until it ends.
    led: Option<(SocketAddr, String)>,
    heard_at: Mono,
    /// When it was last live.
    lost_at: Option<Mono>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Life {
    Idle,
    Waiting,
    Connecting,
    Opening,
    Live,
}

impl Crowd {
    fn new(plan: Plan, seat: &Seat, shared: Arc<Shared>) -> Self {
        let own = plan.wanted.iter().skip(seat.shard.into()).step_by(seat.shards.into());
        let member = |wanted: &Wanted| Member {
            stream: Stream::new(wanted.clone()),
            life: Life::Idle,
            turn: 0,
            socket: None,
            edge: EDGES_MAX,
            led: None,
            heard_at: Mono(0),
            lost_at: None,
        };
        Self {
            members: own.map(member).collect(),
            plan,
            shared,
            seat: (seat.shard, seat.shards),
            by_slot: Vec::new(),
            waiting: BinaryHeap::new(),
            begun: 0,
            look_at: Mono(0),
            answered: 0,
            is_stopped: false,
            told: Vec::new(),
            effects: VecDeque::new(),
        }
    }

    /// The number of a stream among all.
    fn number(&self, index: u32) -> u32 {
        index * u32::from(self.seat.1) + u32::from(self.seat.0)
    }

    /// What its connections are led by, the one under way and those to come.
    fn way(&self, index: u32) -> u64 {
        u64::from(self.number(index)) + u64::from(self.members[index as usize].turn)
    }

    // ---- time ----

    fn look(&mut self, now: Mono) {
        self.look_at = now.after_ms(LOOK_MS);
        if self.shared.ending.load(Ordering::Acquire) {
            return self.go_home();
        }
        let allowed = self.shared.allowed.load(Ordering::Acquire);
        while (self.begun as usize) < self.members.len() && self.number(self.begun) < allowed {
            self.begun += 1;
            self.connect(now, self.begun - 1);
        }
        for index in 0..self.begun {
            self.look_at_one(now, index);
        }
        let question = self.shared.asked();
        if question > self.answered {
            self.answered = question;
            self.shared.answer(self.seat.0, question, self.behind());
        }
    }

    fn look_at_one(&mut self, now: Mono, index: u32) {
        let member = &self.members[index as usize];
        let silence_ms = now.since_ns(member.heard_at) / 1_000_000;
        let every_ms = member.stream.every_ms;
        match member.life {
            // Who was led in vain comes back to where it was led from.
            Life::Connecting if silence_ms > CONNECT_MS => match member.led {
                Some(_) => self.wait(now, index),
                None if self.plan.lead.to(self.way(index)) != Some(member.edge) => {
                    self.connect(now, index);
                }
                None => {}
            },
            Life::Live if member.stream.wanted.is_scripted && silence_ms > every_ms * 3 / 2 => {
                self.shared.silent.fetch_add(1, Ordering::Relaxed);
                self.lose(now, index);
                self.connect(now, index);
            }
            // A script has its time for this too; a browser waits for as long as its kernel does.
            Life::Opening if member.stream.wanted.is_scripted && silence_ms > OPENING_MS => {
                self.lose(now, index);
            }
            _ => {}
        }
    }

    fn wake(&mut self, now: Mono) {
        while let Some(&Reverse((at, index, turn))) = self.waiting.peek()
            && at <= now
        {
            self.waiting.pop();
            let member = &self.members[index as usize];
            if member.life == Life::Waiting && member.turn == turn {
                self.connect(now, index);
            }
        }
    }

    /// Streams that lack something, or are not live.
    fn behind(&self) -> u32 {
        let published =
            |topic: u16| self.shared.published[usize::from(topic)].load(Ordering::Acquire);
        let lacks = |member: &&Member| member.life != Life::Live || !member.stream.has(published);
        self.members.iter().filter(lacks).count() as u32
    }

    // ---- connections ----

    fn wait(&mut self, now: Mono, index: u32) {
        let member = &mut self.members[index as usize];
        (member.life, member.led) = (Life::Waiting, None);
        let at = now.after_ms(member.stream.retry_ms);
        self.waiting.push(Reverse((at, index, member.turn)));
    }

    fn connect(&mut self, now: Mono, index: u32) {
        let number = self.number(index);
        self.members[index as usize].turn += 1;
        let way = self.way(index);
        let member = &mut self.members[index as usize];
        let op = u64::from(member.turn) << 32 | u64::from(index);
        let (to, from, edge) = match &member.led {
            Some((to, _)) => (*to, None, (self.plan.edge_of)(*to)),
            None => {
                let edge = self.plan.lead.to(way);
                let from = edge.map(|edge| SocketAddr::from(((self.plan.source)(edge, number), 0)));
                (self.plan.to, from, edge)
            }
        };
        // Nobody is ready, so the address leads nowhere: that is a network error like any other.
        let Some(edge) = edge else { return self.wait(now, index) };
        (member.life, member.edge, member.heard_at) = (Life::Connecting, edge, now);
        self.effects.push_back(Effect::Connect { op, to, from });
    }

    fn connected(&mut self, now: Mono, op: u64, result: Option<SocketId>) {
        let (index, turn) = (op as u32, (op >> 32) as u32);
        let member = &mut self.members[index as usize];
        let is_due = member.life == Life::Connecting && member.turn == turn;
        let Some(socket) = result else {
            if is_due {
                self.wait(now, index);
            }
            return;
        };
        if !is_due || self.shared.ending.load(Ordering::Acquire) {
            return self.effects.push_back(Effect::Close { socket, how: Close::Abort });
        }
        let slot = socket.slot as usize;
        if self.by_slot.len() <= slot {
            self.by_slot.resize(slot + 1, u32::MAX);
        }
        self.by_slot[slot] = index;
        (member.socket, member.life, member.heard_at) = (Some(socket), Life::Opening, now);
        let led = member.led.as_ref().map(|(to, target)| (to.to_string(), target.clone()));
        let led = led.as_ref().map(|(host, target)| (host.as_str(), target.as_str()));
        let request = member.stream.begin(&self.plan.host, led).into_bytes();
        self.effects.push_back(Effect::Receive { socket, on: true });
        let payload = Payload::One(Segment::Owned(request));
        self.effects.push_back(Effect::Send { socket, payload });
    }

    fn find(&self, socket: SocketId) -> Option<u32> {
        let index = *self.by_slot.get(socket.slot as usize)?;
        (self.members.get(index as usize)?.socket == Some(socket)).then_some(index)
    }

    /// Its connection is over.
    fn close(&mut self, now: Mono, index: u32) {
        let member = &mut self.members[index as usize];
        if member.life == Life::Live {
            member.lost_at = Some(now);
            self.shared.live.fetch_sub(1, Ordering::AcqRel);
            self.shared.at[member.edge].fetch_sub(1, Ordering::AcqRel);
            if member.led.is_some() {
                self.shared.led.fetch_sub(1, Ordering::AcqRel);
            }
        }
        if let Some(socket) = member.socket.take() {
            self.effects.push_back(Effect::Close { socket, how: Close::Abort });
        }
    }

    fn lose(&mut self, now: Mono, index: u32) {
        let member = &self.members[index as usize];
        if member.life == Life::Opening && member.stream.is_answered() {
            self.shared.refused.fetch_add(1, Ordering::Relaxed);
        }
        self.close(now, index);
        self.shared.lost.fetch_add(1, Ordering::Relaxed);
        self.wait(now, index);
    }

    fn go_home(&mut self) {
        for index in 0..self.members.len() {
            if let Some(socket) = self.members[index].socket.take() {
                self.effects.push_back(Effect::Close { socket, how: Close::Abort });
            }
        }
        if !self.is_stopped {
            self.is_stopped = true;
            self.effects.push_back(Effect::Stop);
        }
    }

    // ---- what is told ----

    fn received(&mut self, now: Mono, index: u32, bytes: &[u8]) {
        let mut told = std::mem::take(&mut self.told);
        let member = &mut self.members[index as usize];
        member.heard_at = now;
        if let Err(what) = member.stream.receive(bytes, &mut told) {
            let (edge, number) = (member.edge, self.number(index));
            self.shared.violation(format!("stream {number} at edge {edge}: {what}"));
        }
        for one in told.drain(..) {
            self.take(now, index, one);
        }
        self.told = told;
    }

    fn take(&mut self, now: Mono, index: u32, told: Told) {
        let shared = Arc::clone(&self.shared);
        let count = |counter: &std::sync::atomic::AtomicU64| {
            counter.fetch_add(1, Ordering::Relaxed);
        };
        match told {
            Told::Live => self.live(now, index),
            Told::Event => count(&shared.events),
            Told::Beat => {}
            Told::Gap { reset } => count(if reset { &shared.resets } else { &shared.gaps }),
            Told::Migrate(reason) if reason == "circle" => count(&shared.moved_by_circle),
            Told::Migrate(_) => count(&shared.moved_by_drain),
            Told::Led(to) => self.follow(now, index, &to),
            Told::End => self.lose(now, index),
        }
    }

    fn live(&mut self, now: Mono, index: u32) {
        let member = &mut self.members[index as usize];
        member.life = Life::Live;
        if let Some(lost_at) = member.lost_at.take() {
            let away_ms = now.since_ns(lost_at) / 1_000_000;
            self.shared.away_ms_max.fetch_max(away_ms, Ordering::Relaxed);
        }
        self.shared.at[member.edge].fetch_add(1, Ordering::AcqRel);
        if member.led.is_some() {
            self.shared.led.fetch_add(1, Ordering::AcqRel);
        }
        self.shared.live.fetch_add(1, Ordering::AcqRel);
    }

    fn follow(&mut self, now: Mono, index: u32, to: &str) {
        self.close(now, index);
        let parts = to.strip_prefix("http://").and_then(|rest| rest.split_once('/'));
        let address = parts.and_then(|(authority, path)| {
            Some((authority.parse::<SocketAddr>().ok()?, format!("/{path}")))
        });
        let Some((address, target)) = address else {
            return self.shared.violation(format!("led to {to:?}"));
        };
        self.members[index as usize].led = Some((address, target));
        self.connect(now, index);
    }
}

impl Actor for Crowd {
    type Mail = ();

    fn handle(&mut self, now: Now, input: Input<'_, ()>) {
        let now_mono = now.mono;
        match input {
            Input::Connected { op, result } => self.connected(now_mono, op, result.ok()),
            Input::Received { socket, bytes } => {
                if let Some(index) = self.find(socket) {
                    self.received(now_mono, index, bytes);
                }
            }
            Input::Eof { socket }
            | Input::HungUp { socket }
            | Input::Sent { socket, result: Err(_), .. } => {
                if let Some(index) = self.find(socket) {
                    self.lose(now_mono, index);
                }
            }
            Input::Deadline => {
                self.wake(now_mono);
                if self.look_at <= now_mono {
                    self.look(now_mono);
                }
            }
            // It listens nowhere and asks for nothing else.
            _ => {}
        }
    }

    fn poll_effect(&mut self) -> Option<Effect<()>> {
        self.effects.pop_front()
    }

    fn next_deadline(&self) -> Option<Mono> {
        if self.is_stopped {
            return None;
        }
        let due = self.waiting.peek().map_or(self.look_at, |Reverse((at, ..))| *at);
        Some(due.min(self.look_at))
    }

    fn fanout_targets(&self, _: Range<u32>) -> &[SocketId] {
        &[]
    }
}

const LOOK_MS: u64 = 50;
/// When the kernel sends a SYN again.
const CONNECT_MS: u64 = 1_000;
/// What the page's script waits for a stream that does not open is longer; here it is enough that
/// the address has had the time to move.
const OPENING_MS: u64 = 5_000;
