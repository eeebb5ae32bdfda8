//! A shard's turn, the same for both engines: which inputs come in which order, and who carries
//! out which effect. [`Sockets`] is what differs.
//!
//! ```text
//!   sleep ─▶ mail ─▶ results · control · deadline ─▶ sockets ─▶ continue ─▶ effects ─▶ sleep
//!              └─ kept mail left? then only effects, and sleep for room ─────▲
//! ```

use std::{
    collections::VecDeque,
    io,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU8, AtomicU16, Ordering},
    },
};

use bytes::Bytes;
use crossbeam_queue::ArrayQueue;

use crate::{
    engine::{
        clock::Clock,
        cold::{Done, Helpers, Work},
        mailbox::{Bell, Mailbox},
        stats::Counters,
    },
    limits::{HELPER_OPS_MAX, MAIL_PER_TURN_MAX, STOP_FLUSH_MS},
    seam::{
        Actor, Close, Control, Effect, Input, ListenerId, Mono, Now, OpId, Payload, ShardId,
        SocketId,
    },
};

/// What an engine can do with sockets. All of it returns at once; what comes of it is delivered.
pub(crate) trait Sockets {
    fn connect(&mut self, now: Now, op: OpId, to: SocketAddr, from: Option<SocketAddr>);
    fn receive(&mut self, socket: SocketId, on: bool);
    fn watch(&mut self, socket: SocketId, hang_up: bool, writable: bool);
    fn send(&mut self, socket: SocketId, payload: Payload);
    /// Complete when it returns: every target took the frame or is among `failures`.
    fn fanout(&mut self, frame: &Bytes, targets: &[SocketId], failures: &mut Vec<Failure>);
    fn close(&mut self, now: Now, socket: SocketId, how: Close);
    fn accept(&mut self, listener: ListenerId, on: bool);
    /// Accepts nothing any more, whatever the actor says.
    fn stop_accepting(&mut self);

    /// Hands to the kernel what is queued, and lets at most this much time pass until there is
    /// something to deliver or the bell rings.
    fn wait(&mut self, now: Now, patience: Patience);
    /// Hands to the kernel what is queued.
    fn flush(&mut self);
    /// Passes inputs on, a bounded number of them.
    fn deliver<M>(&mut self, now: Now, sink: &mut impl FnMut(Input<'_, M>));
    /// Whether `deliver` has inputs without asking the kernel.
    fn has_inputs(&mut self) -> bool;
    /// When `deliver` has to be called at the latest.
    fn next_deadline(&self) -> Option<Mono>;
    /// Sends and graceful closes under way.
    fn unfinished(&self) -> usize;
}

/// How long to wait.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Patience {
    /// Not at all.
    None,
    /// Until then.
    Until(Mono),
    /// For ever.
    Endless,
}

/// A target that a fan-out did not reach.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Failure {
    pub(crate) socket: SocketId,
    pub(crate) sent_bytes: u32,
    pub(crate) error: io::ErrorKind,
}

/// What others leave at a shard's door, apart from mail: the same for every kind of actor.
#[derive(Debug)]
pub(crate) struct Line {
    pub(crate) bell: Bell,
    pub(crate) counters: Counters,
    results: ArrayQueue<Done>,
    orders: AtomicU8,
}

const ORDER_DRAIN: u8 = 1;
const ORDER_RELOAD: u8 = 2;
/// Every shard has stopped: flush and end.
const ORDER_FLUSH: u8 = 4;
/// A shard died: end.
pub(crate) const ORDER_END: u8 = 8;

impl Line {
    pub(crate) fn new() -> io::Result<Self> {
        Ok(Self {
            bell: Bell::new()?,
            counters: Counters::default(),
            results: ArrayQueue::new(HELPER_OPS_MAX),
            orders: AtomicU8::new(0),
        })
    }

    pub(crate) fn order(&self, order: u8) {
        self.orders.fetch_or(order, Ordering::Release);
        self.bell.ring();
    }

    pub(crate) fn control(&self, control: Control) {
        self.order(match control {
            Control::Drain => ORDER_DRAIN,
            Control::Reload => ORDER_RELOAD,
        });
    }

    pub(crate) fn put_result(&self, done: Done) {
        let room = self.results.push(done).is_ok();
        assert!(room, "a shard has at most HELPER_OPS_MAX operations under way");
        self.bell.ring();
    }

    fn is_quiet(&self) -> bool {
        self.results.is_empty() && self.orders.load(Ordering::Acquire) == 0
    }
}

/// What all shards of a process share.
#[derive(Debug)]
pub(crate) struct Shared<M> {
    pub(crate) lines: Arc<[Line]>,
    pub(crate) mailboxes: Box<[Mailbox<M>]>,
    pub(crate) helpers: Helpers,
    pub(crate) stopped: AtomicU16,
}

/// One shard: an actor, its sockets, and what it has left at others' doors.
pub(crate) struct Driver<A: Actor, S> {
    actor: A,
    sockets: S,
    shard: ShardId,
    shared: Arc<Shared<A::Mail>>,
    clock: Clock,
    now: Now,
    /// Mail that met a full mailbox, and all after it.
    kept: VecDeque<(ShardId, A::Mail)>,
    /// Yields not yet answered.
    yields: u32,
    /// Operations that helpers have.
    helper_ops: usize,
    /// Refused at once, to be told in the next turn.
    refused: Vec<Done>,
    failures: Vec<Failure>,
    stopped: bool,
    /// Set once every shard has stopped.
    flush_until: Option<Mono>,
    end: bool,
}

impl<A: Actor, S: Sockets> Driver<A, S> {
    pub(crate) fn new(
        actor: A,
        sockets: S,
        shard: ShardId,
        shared: Arc<Shared<A::Mail>>,
        clock: Clock,
    ) -> Self {
        Self {
            actor,
            sockets,
            shard,
            shared,
            clock,
            now: clock.now(),
            kept: VecDeque::new(),
            yields: 0,
            helper_ops: 0,
            refused: Vec::new(),
            failures: Vec::new(),
            stopped: false,
            flush_until: None,
            end: false,
        }
    }

    /// Runs until every shard has stopped.
    pub(crate) fn run(mut self) {
        self.carry_out();
        while !self.end {
            self.sleep();
            self.turn();
        }
    }

    fn turn(&mut self) {
        self.now = self.clock.now();
        self.line().counters.turns.add(1);
        self.take_mail();
        self.put_kept();
        if self.kept.is_empty() {
            self.take_results();
            self.take_orders();
            if self.actor.next_deadline().is_some_and(|at| at <= self.now.mono) {
                self.actor.handle(self.now, Input::Deadline);
            }
            let yields = std::mem::take(&mut self.yields);
            let (actor, now) = (&mut self.actor, self.now);
            self.sockets.deliver(now, &mut |input| actor.handle(now, input));
            for _ in 0..yields {
                self.actor.handle(self.now, Input::Continue);
            }
        }
        self.carry_out();
        self.end |= self
            .flush_until
            .is_some_and(|until| self.sockets.unfinished() == 0 || until <= self.now.mono);
    }

    fn line(&self) -> &Line {
        &self.shared.lines[usize::from(self.shard)]
    }

    fn mailbox(&self) -> &Mailbox<A::Mail> {
        &self.shared.mailboxes[usize::from(self.shard)]
    }

    fn take_mail(&mut self) {
        let mut count = 0;
        while count < MAIL_PER_TURN_MAX {
            let Some((from, mail)) = self.mailbox().take() else { break };
            self.actor.handle(self.now, Input::Mail { from, mail });
            count += 1;
        }
        if count > 0 {
            self.line().counters.mails.add(count as u64);
            if self.mailbox().must_ring_senders() {
                self.shared.lines.iter().for_each(|line| line.bell.ring());
            }
        }
    }

    fn take_results(&mut self) {
        for done in std::mem::take(&mut self.refused) {
            self.tell(done);
        }
        while let Some(done) = self.line().results.pop() {
            self.helper_ops -= 1;
            self.tell(done);
        }
    }

    fn tell(&mut self, done: Done) {
        let input = match done {
            Done::File { op, result } => Input::File { op, result },
            Done::Resolved { op, result } => Input::Resolved { op, result },
            Done::Cold { op, result } => Input::Cold { op, result },
        };
        self.actor.handle(self.now, input);
    }

    fn take_orders(&mut self) {
        let line = self.line();
        if line.orders.load(Ordering::Relaxed) == 0 {
            return;
        }
        let orders = line.orders.swap(0, Ordering::Acquire);
        if orders & ORDER_DRAIN != 0 {
            self.actor.handle(self.now, Input::Control(Control::Drain));
        }
        if orders & ORDER_RELOAD != 0 {
            self.actor.handle(self.now, Input::Control(Control::Reload));
        }
        if orders & ORDER_FLUSH != 0 {
            self.sockets.stop_accepting();
            self.flush_until = Some(self.now.mono.after_ms(STOP_FLUSH_MS));
        }
        self.end |= orders & ORDER_END != 0;
    }

    /// All effects, until the actor has none.
    fn carry_out(&mut self) {
        while let Some(effect) = self.actor.poll_effect() {
            match effect {
                Effect::Connect { op, to, from } => {
                    self.line().counters.connects.add(1);
                    self.sockets.connect(self.now, op, to, from);
                }
                Effect::Receive { socket, on } => self.sockets.receive(socket, on),
                Effect::Watch { socket, hang_up, writable } => {
                    self.sockets.watch(socket, hang_up, writable);
                }
                Effect::Send { socket, payload } => self.sockets.send(socket, payload),
                Effect::Fanout { frame, targets } => self.fan_out(&frame, targets),
                Effect::Close { socket, how } => self.sockets.close(self.now, socket, how),
                Effect::Mail { to, mail } => self.post(to, mail),
                Effect::File { op, work } => self.help(op, Work::File(work)),
                Effect::Resolve { op, name, port } => self.help(op, Work::Resolve { name, port }),
                Effect::Cold { op, work } => self.help(op, Work::Cold(work)),
                Effect::Accept { listener, on } => self.sockets.accept(listener, on),
                Effect::Yield => self.yields += 1,
                Effect::Stop => self.stop(),
            }
        }
    }

    fn fan_out(&mut self, frame: &Bytes, targets: std::ops::Range<u32>) {
        let targets = self.actor.fanout_targets(targets);
        let count = targets.len() as u64;
        self.sockets.fanout(frame, targets, &mut self.failures);
        let counters = &self.shared.lines[usize::from(self.shard)].counters;
        counters.fanout_sends.add(count);
        counters.fanout_failures.add(self.failures.len() as u64);
        // A large fan-out takes its time; what follows shall not think it did not.
        self.now = self.clock.now();
        for Failure { socket, sent_bytes, error } in self.failures.drain(..) {
            self.actor.handle(self.now, Input::SendFailed { socket, sent_bytes, error });
        }
    }

    fn post(&mut self, to: ShardId, mail: A::Mail) {
        let kept = if self.kept.is_empty() { self.put(to, mail) } else { Err(mail) };
        if let Err(mail) = kept {
            self.line().counters.mails_kept.add(1);
            self.kept.push_back((to, mail));
        }
    }

    fn put(&self, to: ShardId, mail: A::Mail) -> Result<(), A::Mail> {
        self.shared.mailboxes[usize::from(to)].put(self.shard, mail)?;
        if to != self.shard {
            self.shared.lines[usize::from(to)].bell.ring();
        }
        Ok(())
    }

    fn put_kept(&mut self) {
        while let Some((to, mail)) = self.kept.pop_front() {
            if let Err(mail) = self.put(to, mail) {
                if self.flush_until.is_some() {
                    // Every actor has stopped and some threads are gone: nobody waits for this.
                    continue;
                }
                self.kept.push_front((to, mail));
                break;
            }
        }
    }

    fn help(&mut self, op: OpId, work: Work) {
        if self.helper_ops < HELPER_OPS_MAX {
            self.helper_ops += 1;
            self.shared.helpers.submit(self.shard, op, work);
            return;
        }
        self.line().counters.helper_refusals.add(1);
        self.refused.push(match work {
            Work::File(_) => Done::File { op, result: Err(io::ErrorKind::ResourceBusy.into()) },
            Work::Resolve { .. } => Done::Resolved { op, result: Err(io::ErrorKind::ResourceBusy) },
            Work::Cold(_) => Done::Cold { op, result: Err(io::ErrorKind::ResourceBusy.into()) },
        });
    }

    fn stop(&mut self) {
        if std::mem::replace(&mut self.stopped, true) {
            return;
        }
        let stopped = self.shared.stopped.fetch_add(1, Ordering::AcqRel) + 1;
        if usize::from(stopped) == self.shared.lines.len() {
            self.shared.lines.iter().for_each(|line| line.order(ORDER_FLUSH));
        }
    }

    /// Hands effects to the kernel and sleeps until there is an input.
    fn sleep(&mut self) {
        if !self.kept.is_empty() {
            return self.sleep_for_room();
        }
        let patience = self.patience();
        let Self { sockets, shared, now, .. } = self;
        let line = &shared.lines[usize::from(self.shard)];
        let mailbox = &shared.mailboxes[usize::from(self.shard)];
        let quiet = patience != Patience::None
            && line.bell.try_sleep(|| mailbox.is_empty() && line.is_quiet());
        sockets.wait(*now, if quiet { patience } else { Patience::None });
        line.bell.woke();
    }

    fn patience(&mut self) -> Patience {
        if self.yields > 0 || !self.refused.is_empty() || self.sockets.has_inputs() {
            return Patience::None;
        }
        let deadlines =
            [self.actor.next_deadline(), self.sockets.next_deadline(), self.flush_until];
        match deadlines.into_iter().flatten().min() {
            Some(at) if at <= self.now.mono => Patience::None,
            Some(at) => Patience::Until(at),
            None => Patience::Endless,
        }
    }

    /// Nothing is taken from sockets while mail is kept, so only the bell may wake us.
    fn sleep_for_room(&mut self) {
        self.sockets.flush();
        let Some((to, _)) = self.kept.front() else { return };
        let full = &self.shared.mailboxes[usize::from(*to)];
        let idle = || {
            self.mailbox().is_empty()
                && self.line().orders.load(Ordering::Acquire) & (ORDER_FLUSH | ORDER_END) == 0
                && full.is_full_and_will_ring()
        };
        self.line().bell.sleep(-1, idle);
        if self.line().orders.load(Ordering::Acquire) & (ORDER_FLUSH | ORDER_END) != 0 {
            self.take_orders();
        }
    }
}
