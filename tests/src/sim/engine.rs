//! The simulated engine: drives the shards of one process over the virtual network, as badly as the
//! seam allows.
//!
//! It keeps the seam's rules (see [`dataplane::seam`]) and holds the actor to them: a second send
//! in flight, a send to a socket whose fan-out outcome is unknown, an effect for a socket that is
//! closed are assertions here, where the real engine would corrupt a stream.
//!
//! Owns the socket tables and payloads lent to it. Leaves to others: time and order of turns
//! (`super::world`), bytes in flight (`super::net`).

use std::{
    collections::{BTreeMap, VecDeque},
    io,
    net::{IpAddr, SocketAddr},
    ops::Range,
};

use dataplane::{
    limits::STOP_FLUSH_MS,
    seam::{Actor, Close, Control, Effect, Input, Mono, Now, Payload, ShardId, SocketId},
};

use super::{
    disk::Disk,
    net::{End, HostId, Net, Notice},
    rng::Rng,
    trace,
};

/// What a seed may vary of an engine.
#[derive(Clone, Debug)]
pub struct Options {
    /// Sockets a shard can hold; accepting stops below it.
    pub sockets_max: usize,
    /// Letters a mailbox holds.
    pub mailbox_max: usize,
    /// Largest piece handed over by one `Received`.
    pub receive_bytes_max: usize,
    /// Inputs handled before effects are drained.
    pub batch_max: usize,
    /// Parts in a thousand of a fan-out's targets that take less than the frame, whatever the
    /// network says.
    pub short_per_mille: u32,
    /// Receive buffers of a shard: with all of them full, receives end and begin again later.
    pub buffers_max: usize,
    /// Parts in a thousand of the sends whose completion comes late.
    pub late_per_mille: u32,
    /// So many listeners, the last ones, are shard 0's alone.
    pub first_listeners: usize,
}

impl Options {
    /// Drawn so that every limit is met now and then.
    pub fn draw(rng: &mut Rng) -> Self {
        Self {
            sockets_max: *rng.pick(&[16, 64, 1024]),
            mailbox_max: *rng.pick(&[2, 8, 64]),
            receive_bytes_max: *rng.pick(&[5, 100, 2000, 16 * 1024]),
            batch_max: *rng.pick(&[1, 4, 64]),
            short_per_mille: *rng.pick(&[0, 20, 300]),
            buffers_max: *rng.pick(&[2, 8, 64]),
            late_per_mille: *rng.pick(&[0, 50, 400]),
            first_listeners: 0,
        }
    }
}

/// The process of one host: its shards, their mailboxes and listeners.
pub struct Process<A: Actor> {
    /// Which host it runs on.
    pub host: HostId,
    address: IpAddr,
    listeners: Vec<SocketAddr>,
    shards: Vec<Shard<A>>,
    options: Options,
    rng: Rng,
    /// Names that [`Effect::Resolve`] finds.
    pub names: BTreeMap<String, IpAddr>,
}

struct Shard<A: Actor> {
    actor: A,
    slots: Vec<Slot>,
    free: Vec<u32>,
    /// Completions that wait for a turn.
    inputs: VecDeque<Pending>,
    /// Letters from any shard of the process.
    mailbox: VecDeque<(ShardId, A::Mail)>,
    /// Letters that met a full mailbox, in order.
    outbox: VecDeque<(ShardId, A::Mail)>,
    /// Connections not accepted yet.
    backlog: VecDeque<(End, u16)>,
    accepting: Vec<bool>,
    yielded: bool,
    /// When it said `Stop`.
    stopped_ns: Option<u64>,
    /// Operations to connect, by the end they opened.
    connecting: BTreeMap<End, u64>,
    ends: BTreeMap<End, u32>,
    /// Sockets of fan-outs since the last `handle`: their outcome is unknown to the actor.
    uncertain: Vec<SocketId>,
    /// What the actor said last: asked once a turn, as the real engines do.
    deadline: Option<Mono>,
    /// Completions that are held back, and until when.
    late: Vec<(u64, Pending)>,
    /// Receive buffers in use: pieces among `inputs`.
    buffers_used: usize,
    /// Slots whose receive ended for want of a buffer.
    starved: Vec<u32>,
}

struct Slot {
    generation: u32,
    end: Option<End>,
    receive: bool,
    hang_up: bool,
    writable: bool,
    send: Option<(Payload, usize)>,
    /// Pieces handed over since bytes last arrived.
    pieces: usize,
    /// The last fan-out to it went short: what comes next is the rest of that frame.
    short: bool,
    told_eof: bool,
    told_gone: bool,
    closing: bool,
    /// The socket does not exist any more although the slot is not free yet.
    gone: bool,
}

enum Pending {
    Accepted { socket: SocketId, listener: u16, peer: SocketAddr, local: SocketAddr },
    Connected { op: u64, result: Result<SocketId, io::ErrorKind> },
    Received { socket: SocketId, bytes: Vec<u8> },
    Eof { socket: SocketId },
    Writable { socket: SocketId },
    HungUp { socket: SocketId },
    Sent { socket: SocketId, result: Result<(), io::ErrorKind>, payload: Payload },
    Closed { socket: SocketId },
    File { op: u64, result: io::Result<Vec<u8>> },
    Resolved { op: u64, result: Result<Vec<SocketAddr>, io::ErrorKind> },
    Cold { op: u64, result: io::Result<Vec<u8>> },
    Control(Control),
}

/// What a turn of a shard may touch.
pub struct Around<'w> {
    /// Virtual time.
    pub now: Now,
    /// The network.
    pub net: &'w mut Net,
    /// The disk of the host.
    pub disk: &'w mut Disk,
}

impl<A: Actor> Process<A> {
    /// Starts a process: its actors exist, its listeners are open.
    pub fn start(
        host: HostId,
        address: IpAddr,
        listeners: Vec<SocketAddr>,
        actors: Vec<A>,
        options: Options,
        mut rng: Rng,
        net: &mut Net,
    ) -> Self {
        for &listener in &listeners {
            net.listen(host, listener);
        }
        let shards = actors
            .into_iter()
            .map(|actor| Shard {
                deadline: actor.next_deadline(),
                actor,
                slots: Vec::new(),
                free: Vec::new(),
                inputs: VecDeque::new(),
                mailbox: VecDeque::new(),
                outbox: VecDeque::new(),
                backlog: VecDeque::new(),
                accepting: vec![true; listeners.len()],
                yielded: false,
                stopped_ns: None,
                connecting: BTreeMap::new(),
                ends: BTreeMap::new(),
                uncertain: Vec::new(),
                late: Vec::new(),
                buffers_used: 0,
                starved: Vec::new(),
            })
            .collect();
        let rng = rng.fork();
        Self { host, address, listeners, shards, options, rng, names: BTreeMap::new() }
    }

    /// The actors, for looking at.
    pub fn actors(&self) -> impl Iterator<Item = &A> {
        self.shards.iter().map(|shard| &shard.actor)
    }

    /// Whether every shard said `Stop` and nothing is left to send, or the time to send it is over:
    /// a peer that reads nothing does not hold the process up.
    pub fn has_stopped(&self, now_ns: u64) -> bool {
        let last_ns =
            self.shards.iter().try_fold(0, |last_ns, shard| Some(shard.stopped_ns?.max(last_ns)));
        let mut slots = self.shards.iter().flat_map(|shard| &shard.slots);
        last_ns.is_some_and(|last_ns| {
            now_ns >= last_ns + STOP_FLUSH_MS * 1_000_000
                || slots.all(|slot| slot.gone || slot.send.is_none())
        })
    }

    /// The process ends: what is still open is closed in order.
    pub fn end(&mut self, now_ns: u64, net: &mut Net) {
        for listener in self.listeners.drain(..) {
            net.unlisten(listener);
        }
        for end in self.shards.iter_mut().flat_map(|shard| std::mem::take(&mut shard.ends)) {
            net.close(now_ns, end.0, false);
        }
    }

    /// Tells every shard what an operator asks.
    pub fn control(&mut self, control: Control) {
        for shard in &mut self.shards {
            shard.inputs.push_back(Pending::Control(control));
        }
    }

    /// Takes the result of disk work.
    pub fn file_done(&mut self, shard: usize, op: u64, result: io::Result<Vec<u8>>) {
        if let Some(shard) = self.shards.get_mut(shard) {
            shard.inputs.push_back(Pending::File { op, result });
        }
    }

    /// When a shard wants to be called for time alone, or a late completion comes.
    pub fn next_deadline_ns(&self) -> Option<u64> {
        let running = self.shards.iter().filter(|shard| shard.stopped_ns.is_none());
        let deadlines = running.filter_map(|shard| shard.deadline).map(|at| at.0);
        let late = self.shards.iter().flat_map(|shard| &shard.late).map(|(at_ns, _)| *at_ns);
        deadlines.chain(late).min()
    }

    /// Shards that have something to do. Asked at every step of the world: nothing is allocated.
    pub fn runnable(&self, now: Now) -> impl Iterator<Item = usize> {
        let shards = self.shards.iter().enumerate();
        shards.filter(move |(_, shard)| self.has_work(shard, now)).map(|(at, _)| at)
    }

    fn has_work(&self, shard: &Shard<A>, now: Now) -> bool {
        let has_room =
            |to: ShardId| self.shards[usize::from(to)].mailbox.len() < self.options.mailbox_max;
        !shard.inputs.is_empty()
            || !shard.mailbox.is_empty()
            || shard.yielded
            || shard.deadline.is_some_and(|due| due <= now.mono)
            || shard.late.iter().any(|(at_ns, _)| *at_ns <= now.mono.0)
            // In order: only the first letter can go.
            || shard.outbox.front().is_some_and(|(to, _)| has_room(*to))
            || (!shard.backlog.is_empty() && self.can_accept(shard))
    }

    fn can_accept(&self, shard: &Shard<A>) -> bool {
        let used = shard.slots.len() - shard.free.len();
        let wanted =
            shard.backlog.iter().any(|(_, listener)| shard.accepting[usize::from(*listener)]);
        wanted && used < self.options.sockets_max
    }

    /// Takes a notice from the network.
    pub fn notice(&mut self, around: &mut Around<'_>, notice: Notice) {
        match notice {
            Notice::Arrived(end, address) => {
                let listener = self.listeners.iter().position(|known| *known == address);
                let shard = self.rng.below(self.shards.len());
                if let Some(listener) = listener {
                    let is_shared = listener + self.options.first_listeners < self.listeners.len();
                    let shard = if is_shared { shard } else { 0 };
                    self.shards[shard].backlog.push_back((end, listener as u16));
                }
            }
            Notice::Connected(end) => self.connected(end, true),
            Notice::Refused(end) => self.connected(end, false),
            Notice::Readable(end) => self.readable(around, end),
            Notice::Writable(end) => self.writable(around, end),
            Notice::Reset(end) => self.reset(around, end),
        }
    }

    fn find(&self, end: End) -> Option<(usize, u32)> {
        let shards = self.shards.iter().enumerate();
        shards.filter_map(|(at, shard)| shard.ends.get(&end).map(|slot| (at, *slot))).next()
    }

    fn connected(&mut self, end: End, open: bool) {
        let Some(shard) = self.shards.iter_mut().find(|shard| shard.connecting.contains_key(&end))
        else {
            return;
        };
        let Some(op) = shard.connecting.remove(&end) else { return };
        let result = if open { Ok(shard.open(end)) } else { Err(io::ErrorKind::ConnectionRefused) };
        shard.inputs.push_back(Pending::Connected { op, result });
    }

    fn readable(&mut self, around: &mut Around<'_>, end: End) {
        let Some((at, slot)) = self.find(end) else { return };
        self.shards[at].slots[slot as usize].pieces = 0;
        self.shards[at].pull(slot, around, &self.options, &mut self.rng);
    }

    fn writable(&mut self, around: &mut Around<'_>, end: End) {
        let Some((at, slot)) = self.find(end) else { return };
        let shard = &mut self.shards[at];
        if shard.slots[slot as usize].send.is_some() {
            shard.push(slot, around, &self.options, &mut self.rng);
        } else if shard.slots[slot as usize].writable {
            shard.slots[slot as usize].writable = false;
            let socket = shard.id(slot);
            shard.inputs.push_back(Pending::Writable { socket });
        }
    }

    fn reset(&mut self, around: &mut Around<'_>, end: End) {
        let Some((at, slot)) = self.find(end) else { return };
        let shard = &mut self.shards[at];
        shard.fail(slot, io::ErrorKind::ConnectionReset, around);
    }

    /// One turn of one shard: accept, some inputs, then all effects.
    pub fn turn(&mut self, at: usize, around: &mut Around<'_>) {
        self.flush_outbox(at);
        self.shards[at].take_late(|at_ns, _| at_ns <= around.now.mono.0);
        self.accept(at, around);
        let batch = 1 + self.rng.below(self.options.batch_max);
        for _ in 0..batch {
            if !self.one_input(at, around) {
                break;
            }
            // Effects are drained after a batch, which may be a single input.
            if self.rng.chance(300) {
                self.drain(at, around);
            }
        }
        let due = self.shards[at].actor.next_deadline();
        if due.is_some_and(|due| due <= around.now.mono) && self.shards[at].stopped_ns.is_none() {
            self.handle(at, around, Input::Deadline);
        }
        self.drain(at, around);
        let shard = &mut self.shards[at];
        shard.feed_the_starved(around, &self.options, &mut self.rng);
        shard.deadline = shard.actor.next_deadline().filter(|_| shard.stopped_ns.is_none());
    }

    fn accept(&mut self, at: usize, around: &mut Around<'_>) {
        let full = |shard: &Shard<A>, max| shard.slots.len() - shard.free.len() >= max;
        for _ in 0..self.shards[at].backlog.len() {
            let shard = &mut self.shards[at];
            if full(shard, self.options.sockets_max) {
                around.net.coverage.hit("accept: table full");
                return;
            }
            let Some((end, listener)) = shard.backlog.pop_front() else { return };
            if !shard.accepting[usize::from(listener)] {
                shard.backlog.push_back((end, listener));
                continue;
            }
            let socket = shard.open(end);
            let (peer, local) = (around.net.peer(end), around.net.local(end));
            shard.inputs.push_back(Pending::Accepted { socket, listener, peer, local });
        }
    }

    /// Hands one waiting input over; whether there was one.
    fn one_input(&mut self, at: usize, around: &mut Around<'_>) -> bool {
        let shard = &mut self.shards[at];
        let letter_first = self.rng.chance(500);
        let has_letter = !shard.mailbox.is_empty();
        if has_letter && (letter_first || shard.inputs.is_empty()) {
            if let Some((from, mail)) = shard.mailbox.pop_front() {
                self.handle(at, around, Input::Mail { from, mail });
            }
            return true;
        }
        if let Some(pending) = shard.inputs.pop_front() {
            self.deliver(at, around, pending);
            return true;
        }
        if shard.yielded {
            shard.yielded = false;
            self.handle(at, around, Input::Continue);
            return true;
        }
        false
    }

    fn deliver(&mut self, at: usize, around: &mut Around<'_>, pending: Pending) {
        let input = match pending {
            Pending::Accepted { socket, listener, peer, local } => {
                Input::Accepted { socket, listener, peer, local }
            }
            Pending::Connected { op, result } => Input::Connected { op, result },
            Pending::Received { socket, ref bytes } => {
                self.shards[at].buffers_used -= 1;
                let slot = &self.shards[at].slots[socket.slot as usize];
                if slot.generation != socket.generation {
                    return;
                }
                if slot.closing {
                    around.net.coverage.hit("close: data after close asked");
                } else if !slot.receive {
                    around.net.coverage.hit("receive: bytes after it was turned off");
                }
                Input::Received { socket, bytes }
            }
            Pending::Eof { socket } => Input::Eof { socket },
            Pending::Writable { socket } => Input::Writable { socket },
            Pending::HungUp { socket } => {
                around.net.coverage.hit("net: hung up while watched");
                Input::HungUp { socket }
            }
            Pending::Sent { socket, result, payload } => Input::Sent { socket, result, payload },
            Pending::Closed { socket } => {
                self.handle(at, around, Input::Closed { socket });
                self.shards[at].release(socket);
                return;
            }
            Pending::File { op, result } => Input::File { op, result },
            Pending::Resolved { op, result } => Input::Resolved { op, result },
            Pending::Cold { op, result } => Input::Cold { op, result },
            Pending::Control(control) => Input::Control(control),
        };
        self.handle(at, around, input);
    }

    fn handle(&mut self, at: usize, around: &mut Around<'_>, input: Input<'_, A::Mail>) {
        if around.net.trace.is_on() {
            let what = trace::input(&input);
            around.net.trace.say(around.now, format_args!("{}/{at} <- {what}", self.address));
        }
        self.shards[at].actor.handle(around.now, input);
    }

    fn drain(&mut self, at: usize, around: &mut Around<'_>) {
        self.shards[at].uncertain.clear();
        let mut failures = Vec::new();
        loop {
            while let Some(effect) = self.shards[at].actor.poll_effect() {
                self.carry_out(at, around, effect, &mut failures);
            }
            if failures.is_empty() {
                return;
            }
            // Rule 4: failures of a fan-out come before any other input.
            self.shards[at].uncertain.clear();
            for (socket, sent_bytes, error) in failures.drain(..) {
                self.handle(at, around, Input::SendFailed { socket, sent_bytes, error });
            }
        }
    }

    fn carry_out(
        &mut self,
        at: usize,
        around: &mut Around<'_>,
        effect: Effect<A::Mail>,
        failures: &mut Vec<(SocketId, u32, io::ErrorKind)>,
    ) {
        let now_ns = around.now.mono.0;
        if around.net.trace.is_on() {
            let what = trace::effect(&effect);
            around.net.trace.say(around.now, format_args!("{}/{at} -> {what}", self.address));
        }
        let shard = &mut self.shards[at];
        match effect {
            Effect::Connect { op, to, from } => {
                let source = from.map_or(self.address, |from| from.ip());
                let end = around.net.connect(now_ns, self.host, source, to);
                shard.connecting.insert(end, op);
            }
            Effect::Receive { socket, on } => {
                let Some(slot) = shard.live(socket) else { return };
                shard.slots[slot as usize].receive = on;
                if on {
                    shard.pull(slot, around, &self.options, &mut self.rng);
                }
            }
            Effect::Watch { socket, hang_up, writable } => {
                let Some(slot) = shard.live(socket) else { return };
                shard.slots[slot as usize].hang_up = hang_up;
                shard.slots[slot as usize].writable = writable;
                shard.check_watch(slot, around);
            }
            Effect::Send { socket, payload } => {
                assert!(!payload.is_empty(), "an empty payload was sent to {socket:?}");
                assert!(
                    !shard.uncertain.contains(&socket),
                    "{socket:?}: a send while the outcome of a fan-out is unknown (seam, rule 2)"
                );
                let slot = shard.known(socket);
                assert!(
                    shard.slots[slot as usize].send.is_none(),
                    "{socket:?}: a second send in flight (seam, rule 2)"
                );
                assert!(!shard.slots[slot as usize].closing, "{socket:?}: a send after close");
                if std::mem::take(&mut shard.slots[slot as usize].short) {
                    around.net.coverage.hit("fan-out: short send, then another");
                }
                shard.slots[slot as usize].send = Some((payload, 0));
                shard.push(slot, around, &self.options, &mut self.rng);
            }
            Effect::Fanout { frame, targets } => {
                self.fan_out(at, around, &frame, targets, failures)
            }
            Effect::Close { socket, how } => shard.close(socket, how, around, &mut self.rng),
            Effect::Mail { to, mail } => {
                assert!(usize::from(to) < self.shards.len(), "mail to no shard: {to}");
                let from = at as ShardId;
                let full = self.shards[usize::from(to)].mailbox.len() >= self.options.mailbox_max;
                if full || !self.shards[at].outbox.is_empty() {
                    around.net.coverage.hit("mail: mailbox full");
                    self.shards[at].outbox.push_back((to, mail));
                } else {
                    self.shards[usize::from(to)].mailbox.push_back((from, mail));
                }
            }
            Effect::File { op, work } => {
                let takes_us = *self.rng.pick(&[0, 100, 2000, 20_000]);
                around.disk.submit(now_ns + takes_us * 1000, at, op, work);
            }
            Effect::Resolve { op, name, port } => {
                let found = self.names.get(&name).copied().or_else(|| name.parse().ok());
                let found = found.map(|address| vec![SocketAddr::new(address, port)]);
                let result = found.ok_or(io::ErrorKind::NotFound);
                shard.inputs.push_back(Pending::Resolved { op, result });
            }
            Effect::Cold { op, work } => {
                // A helper refuses when a shard has too much under way.
                let refused = self.rng.chance(50);
                let result = match refused {
                    true => Err(io::ErrorKind::ResourceBusy.into()),
                    false => work.run(),
                };
                let takes_us = *self.rng.pick(&[0, 100, 2000, 20_000]);
                shard.late.push((now_ns + takes_us * 1000, Pending::Cold { op, result }));
            }
            Effect::Accept { listener, on } => shard.accepting[usize::from(listener)] = on,
            Effect::Yield => shard.yielded = true,
            Effect::Stop => shard.stopped_ns = Some(around.now.mono.0),
        }
    }

    fn fan_out(
        &mut self,
        at: usize,
        around: &mut Around<'_>,
        frame: &[u8],
        targets: Range<u32>,
        failures: &mut Vec<(SocketId, u32, io::ErrorKind)>,
    ) {
        let shard = &mut self.shards[at];
        for socket in shard.actor.fanout_targets(targets).to_vec() {
            assert!(
                !shard.uncertain.contains(&socket),
                "{socket:?}: two fan-outs without a turn between them (seam, rule 2)"
            );
            let slot = shard.known(socket);
            assert!(
                shard.slots[slot as usize].send.is_none(),
                "{socket:?}: a fan-out while a send is in flight (seam, rule 2)"
            );
            assert!(!shard.slots[slot as usize].closing, "{socket:?}: a fan-out after close");
            shard.uncertain.push(socket);
            let end = shard.slots[slot as usize].end.expect("a live slot has an end");
            let short = self.rng.chance(self.options.short_per_mille);
            let offer = match (short, self.rng.below(4)) {
                (false, _) => frame.len(),
                (true, 0) => 0,
                (true, _) => self.rng.below(frame.len() + 1),
            };
            let taken = around.net.write(around.now.mono.0, end, &frame[..offer]);
            match taken {
                Some(taken) if taken == frame.len() => {
                    around.net.coverage.hit("fan-out: silent success");
                }
                Some(taken) => {
                    let kind =
                        if taken == 0 { "fan-out: would block" } else { "fan-out: short send" };
                    around.net.coverage.hit(kind);
                    shard.slots[slot as usize].short = taken > 0;
                    failures.push((socket, taken as u32, io::ErrorKind::WouldBlock));
                }
                None => failures.push((socket, 0, io::ErrorKind::ConnectionReset)),
            }
        }
    }

    fn flush_outbox(&mut self, at: usize) {
        while let Some((to, _)) = self.shards[at].outbox.front() {
            let to = usize::from(*to);
            if self.shards[to].mailbox.len() >= self.options.mailbox_max {
                return;
            }
            if let Some((_, mail)) = self.shards[at].outbox.pop_front() {
                self.shards[to].mailbox.push_back((at as ShardId, mail));
            }
        }
    }
}

impl<A: Actor> Shard<A> {
    fn id(&self, slot: u32) -> SocketId {
        SocketId { slot, generation: self.slots[slot as usize].generation }
    }

    fn open(&mut self, end: End) -> SocketId {
        let slot = self.free.pop().unwrap_or_else(|| {
            self.slots.push(Slot {
                generation: 0,
                end: None,
                receive: false,
                hang_up: false,
                writable: false,
                send: None,
                pieces: 0,
                short: false,
                told_eof: false,
                told_gone: false,
                closing: false,
                gone: true,
            });
            (self.slots.len() - 1) as u32
        });
        let generation = self.slots[slot as usize].generation;
        self.slots[slot as usize] = Slot {
            generation,
            end: Some(end),
            receive: false,
            hang_up: false,
            writable: false,
            send: None,
            pieces: 0,
            short: false,
            told_eof: false,
            told_gone: false,
            closing: false,
            gone: false,
        };
        self.ends.insert(end, slot);
        self.id(slot)
    }

    /// The slot of a socket that the actor may name; naming one that never was or is over is a bug.
    fn known(&self, socket: SocketId) -> u32 {
        let slot = self.slots.get(socket.slot as usize);
        let live = slot.is_some_and(|slot| slot.generation == socket.generation && !slot.gone);
        assert!(live, "{socket:?}: an effect for a socket that is closed");
        socket.slot
    }

    /// The slot, unless the actor asked to close it (what it says of it then is void).
    fn live(&self, socket: SocketId) -> Option<u32> {
        let slot = self.known(socket);
        (!self.slots[slot as usize].closing).then_some(slot)
    }

    fn release(&mut self, socket: SocketId) {
        let slot = &mut self.slots[socket.slot as usize];
        slot.generation = slot.generation.wrapping_add(1);
        slot.gone = true;
        slot.end = None;
        self.free.push(socket.slot);
    }

    /// Moves what arrived into inputs, in pieces, as a multishot receive does.
    fn pull(&mut self, slot: u32, around: &mut Around<'_>, options: &Options, rng: &mut Rng) {
        let socket = self.id(slot);
        let state = &mut self.slots[slot as usize];
        let Some(end) = state.end else { return };
        if state.closing {
            // Discarded, as lingering does; the end was said already.
            let waiting = around.net.readable(end);
            around.net.read(around.now.mono.0, end, waiting);
            return;
        }
        if !state.receive {
            return self.check_watch(slot, around);
        }
        while around.net.readable(end) > 0 {
            if self.buffers_used >= options.buffers_max {
                if !self.starved.contains(&slot) {
                    around.net.coverage.hit("receive: ended by no buffers");
                    self.starved.push(slot);
                }
                return;
            }
            self.buffers_used += 1;
            let small = state.pieces < SMALL_PIECES_MAX;
            let largest = if small { options.receive_bytes_max } else { RECEIVE_BYTES };
            let bytes_max = 1 + rng.below(largest);
            let bytes = around.net.read(around.now.mono.0, end, bytes_max);
            self.inputs.push_back(Pending::Received { socket, bytes });
            state.pieces += 1;
            if state.pieces > 1 {
                around.net.coverage.hit("receive: split");
            }
        }
        if around.net.is_eof(end) && !state.told_eof {
            state.told_eof = true;
            self.inputs.push_back(Pending::Eof { socket });
        }
    }

    /// Buffers are back: receives that ended for want of one begin again.
    fn feed_the_starved(&mut self, around: &mut Around<'_>, options: &Options, rng: &mut Rng) {
        for slot in std::mem::take(&mut self.starved) {
            if !self.slots[slot as usize].gone {
                self.pull(slot, around, options, rng);
            }
        }
    }

    /// Lets late completions come, those that `due` names.
    fn take_late(&mut self, due: impl Fn(u64, &Pending) -> bool) {
        let mut at = 0;
        while at < self.late.len() {
            if due(self.late[at].0, &self.late[at].1) {
                let (_, pending) = self.late.remove(at);
                self.inputs.push_back(pending);
            } else {
                at += 1;
            }
        }
    }

    /// A watched socket whose peer has ended is reported once.
    fn check_watch(&mut self, slot: u32, around: &mut Around<'_>) {
        let socket = self.id(slot);
        let state = &mut self.slots[slot as usize];
        let Some(end) = state.end else { return };
        if state.hang_up && !state.told_gone && around.net.fin_arrived(end) {
            state.told_gone = true;
            self.inputs.push_back(Pending::HungUp { socket });
        }
        if state.writable && around.net.has_room(end) {
            state.writable = false;
            self.inputs.push_back(Pending::Writable { socket });
        } else if state.writable {
            around.net.want_room(around.now.mono.0, end);
        }
    }

    /// Sends on; when all went out, its completion waits for a turn, sometimes for much longer.
    fn push(&mut self, slot: u32, around: &mut Around<'_>, options: &Options, rng: &mut Rng) {
        let socket = self.id(slot);
        let state = &mut self.slots[slot as usize];
        let (Some(end), Some((payload, offset))) = (state.end, state.send.as_mut()) else { return };
        let (total, before) = (payload.len(), *offset);
        let taken =
            write_from(payload, before, |bytes| around.net.write(around.now.mono.0, end, bytes));
        let result = match taken {
            Some(taken) if before + taken == total => Ok(()),
            Some(taken) => {
                *offset += taken;
                around.net.coverage.hit("send: short, continued");
                return;
            }
            None => {
                if before > 0 {
                    around.net.coverage.hit("send: failed after part went out");
                }
                Err(io::ErrorKind::ConnectionReset)
            }
        };
        let Some((payload, _)) = state.send.take() else { return };
        let sent = Pending::Sent { socket, result, payload };
        if rng.chance(options.late_per_mille) {
            around.net.coverage.hit("send: completed late");
            let late_us = *rng.pick(&[20, 500, 5000, 50_000]);
            self.late.push((around.now.mono.0 + late_us * 1000, sent));
        } else {
            self.inputs.push_back(sent);
        }
        if self.slots[slot as usize].closing {
            self.finish_close(slot, around);
        }
    }

    /// The connection is gone: what was in flight fails, and the actor is told if it listens.
    fn fail(&mut self, slot: u32, error: io::ErrorKind, around: &mut Around<'_>) {
        let socket = self.id(slot);
        let state = &mut self.slots[slot as usize];
        if let Some((payload, offset)) = state.send.take() {
            if offset > 0 {
                around.net.coverage.hit("send: failed after part went out");
            }
            self.inputs.push_back(Pending::Sent { socket, result: Err(error), payload });
        }
        let state = &mut self.slots[slot as usize];
        if state.closing {
            self.finish_close(slot, around);
        } else if !state.told_gone {
            // Also without a watch or receive: the actor learns it at its next use at the latest.
            if state.receive || state.hang_up || state.writable {
                state.told_gone = true;
                self.inputs.push_back(Pending::HungUp { socket });
            }
        }
    }

    fn close(&mut self, socket: SocketId, how: Close, around: &mut Around<'_>, rng: &mut Rng) {
        let slot = self.known(socket);
        let state = &mut self.slots[slot as usize];
        assert!(!state.closing, "{socket:?}: closed twice");
        state.closing = true;
        match how {
            Close::Graceful | Close::Finished if state.send.is_some() && rng.chance(900) => {
                // Ends when the send has ended; the world's liveness phase bounds how long.
            }
            Close::Graceful => self.finish_close(slot, around),
            Close::Finished => {
                // A peer that sent more than it said is answered by a reset.
                if let Some(end) = state.end
                    && around.net.readable(end) > 0
                {
                    around.net.close(around.now.mono.0, end, true);
                }
                self.finish_close(slot, around);
            }
            Close::Abort => {
                if let Some(end) = state.end {
                    around.net.close(around.now.mono.0, end, true);
                }
                self.finish_close(slot, around);
            }
        }
    }

    fn finish_close(&mut self, slot: u32, around: &mut Around<'_>) {
        let socket = self.id(slot);
        let state = &mut self.slots[slot as usize];
        if state.gone {
            return;
        }
        let Some(end) = state.end else { return };
        let unread = around.net.readable(end);
        around.net.read(around.now.mono.0, end, unread);
        around.net.close(around.now.mono.0, end, false);
        state.gone = true;
        if let Some((payload, _)) = state.send.take() {
            let result = Err(io::ErrorKind::ConnectionAborted);
            self.inputs.push_back(Pending::Sent { socket, result, payload });
        }
        self.ends.remove(&end);
        // Rule 5: nothing comes after `Closed`.
        self.take_late(|_, late| matches!(late, Pending::Sent { socket: of, .. } if *of == socket));
        self.inputs.push_back(Pending::Closed { socket });
    }
}

/// Pieces of one receive that are as small as the seed says; the rest comes in large ones. What is
/// cut small begins everywhere (a packet does), and a long body of tiny pieces proves nothing more.
const SMALL_PIECES_MAX: usize = 12;
/// A receive buffer of the real engines, bytes.
const RECEIVE_BYTES: usize = 16 * 1024;

/// Writes a payload from an offset on, segment by segment, until one does not fit.
fn write_from(
    payload: &Payload,
    offset: usize,
    mut write: impl FnMut(&[u8]) -> Option<usize>,
) -> Option<usize> {
    let (mut skip, mut taken) = (offset, 0);
    for segment in payload.segments() {
        let bytes = segment.as_slice();
        let rest = &bytes[skip.min(bytes.len())..];
        skip = skip.saturating_sub(bytes.len());
        if rest.is_empty() {
            continue;
        }
        let count = write(rest)?;
        taken += count;
        if count < rest.len() {
            break;
        }
    }
    Some(taken)
}
