//! The engine on io_uring: one ring a shard.
//!
//! A socket that wants bytes has one multishot receive armed, which takes buffers from the ring's
//! own as bytes arrive; an idle one has nothing, or a poll for the peer's hang-up. Sends are one
//! operation each; a fan-out is a batch of them, silent on success.
//!
//! A socket is a direct descriptor where the kernel has what that needs: an index in the ring's
//! table, the same as its slot, which counts toward no limit of descriptors.
//!
//! Owns: descriptors (table), and everything lent to the kernel: payloads ([`send`]), addresses
//! ([`accept`], [`connect`]), receive buffers ([`buf_ring`]). What is armed for a socket is decided
//! in [`record`]; here it is carried out.

mod accept;
mod buf_ring;
mod close;
mod connect;
mod op;
mod record;
pub(crate) mod ring;
mod send;

use std::{collections::VecDeque, io, net::SocketAddr, sync::Arc};

use bytes::Bytes;
use io_uring::cqueue;

pub(crate) use self::record::Record;
use self::{
    accept::Accepts,
    buf_ring::Buffers,
    connect::Connects,
    op::{Handle, Kind, Tag},
    record::Step,
    ring::{Level, Ring},
    send::{Progress, Sends},
};
use crate::{
    engine::{
        listen::{Listeners, accept_below, is_exhaustion},
        socket,
        table::Table,
        turn::{Failure, Line, Patience, Sockets},
    },
    limits::{INPUTS_PER_TURN_MAX, RING_ENTRIES},
    seam::{Close, Input, ListenerId, Mono, Now, OpId, Payload, SocketId},
};

/// The sockets of one shard, on a ring.
pub(crate) struct Uring {
    ring: Ring,
    buffers: Buffers,
    /// Accepts under way have their slots.
    table: Table<Record>,
    /// Sockets lie in the ring's own table, each at its slot.
    direct: bool,
    sends: Sends,
    connects: Connects,
    listeners: Listeners,
    accepts: Accepts,
    /// Room, a listener's state or an accept under way has changed.
    accepts_changed: bool,
    /// Completions taken from the ring; those before `delivered` have been delivered.
    batch: Vec<cqueue::Entry>,
    delivered: usize,
    /// A receive met no free buffer in this turn.
    exhausted: bool,
    /// Sockets with nothing under way any more, to be told as closed.
    gone: Vec<SocketId>,
    /// When graceful closes end, in order.
    drains: VecDeque<(Mono, SocketId)>,
    /// Graceful closes under way.
    closing_count: usize,
    lines: Arc<[Line]>,
    shard: usize,
}

impl Uring {
    /// Sets ring and buffers up, on the shard's own thread.
    pub(crate) fn new(
        level: Level,
        listeners: Listeners,
        sockets_max: u32,
        lines: Arc<[Line]>,
        shard: usize,
    ) -> io::Result<Self> {
        let mut ring = Ring::new(level)?;
        if level.direct {
            ring.make_table(sockets_max)?;
        }
        let buffers = Buffers::new(&ring, lines.len())?;
        ring.push(&op::bell(lines[shard].bell.fd()));
        Ok(Self {
            ring,
            buffers,
            table: Table::new(sockets_max),
            direct: level.direct,
            sends: Sends::new(),
            connects: Connects::new(),
            accepts: Accepts::new(&listeners),
            listeners,
            accepts_changed: true,
            batch: Vec::with_capacity(INPUTS_PER_TURN_MAX),
            delivered: 0,
            exhausted: false,
            gone: Vec::new(),
            drains: VecDeque::new(),
            closing_count: 0,
            lines,
            shard,
        })
    }

    fn line(&self) -> &Line {
        &self.lines[self.shard]
    }

    /// Brings what is armed for a socket nearer to what is wanted of it.
    fn settle(&mut self, id: SocketId) {
        while let Some(record) = self.table.get_mut(id) {
            let handle = record.handle;
            let operation = match record.next_step() {
                None => return,
                Some(Step::ArmReceive) => {
                    op::receive(handle, buf_ring::GROUP, Tag::of(Kind::Receive, id))
                }
                Some(Step::CancelReceive) => {
                    op::cancel(Tag::of(Kind::Receive, id), Tag::of(Kind::CancelReceive, id))
                }
                Some(Step::ArmPoll(events)) => op::poll(handle, events, Tag::of(Kind::Poll, id)),
                Some(Step::CancelPoll) => {
                    op::cancel(Tag::of(Kind::Poll, id), Tag::of(Kind::CancelPoll, id))
                }
                Some(Step::CancelSend) => {
                    op::cancel(Tag::of(Kind::Send, id), Tag::of(Kind::Cancel, id))
                }
                Some(Step::CancelConnect) => {
                    op::cancel(Tag::of(Kind::Connect, id), Tag::of(Kind::Cancel, id))
                }
                Some(Step::Release) => return self.let_go(id),
            };
            self.ring.push(&operation);
        }
    }

    fn complete<M>(
        &mut self,
        now: Now,
        completion: &cqueue::Entry,
        sink: &mut impl FnMut(Input<'_, M>),
    ) {
        let (kind, id) = Tag::read(completion.user_data());
        let (result, flags) = (completion.result(), completion.flags());
        match kind {
            Some(Kind::Receive) => self.received(id, result, flags, sink),
            Some(Kind::Send) => self.sent(now, id, result, sink),
            Some(Kind::Poll) => self.polled(id, result, sink),
            Some(Kind::Accept) => self.accepted(now, id.slot, result, sink),
            Some(Kind::Connect) => self.connected(id, result, sink),
            Some(Kind::Bell) => {
                if !cqueue::more(flags) {
                    let fd = self.line().bell.fd();
                    self.ring.push(&op::bell(fd));
                }
            }
            Some(Kind::CancelReceive) => self.cancel_failed(id, result, record::RECEIVE_CANCELLED),
            Some(Kind::CancelPoll) => self.cancel_failed(id, result, record::POLL_CANCELLED),
            Some(Kind::Install) => self.installed(id, result),
            Some(Kind::Close) => self.closed(id, result, sink),
            Some(Kind::Cancel) => {}
            Some(Kind::Fanout) => unreachable!("reaped when the fan-out was submitted"),
            None => unreachable!("every operation carries a tag"),
        }
    }

    /// Not found means that its target has just completed. Too late means that the target was
    /// being run: a multishot one may go on, so it is cancelled once more.
    fn cancel_failed(&mut self, id: SocketId, result: i32, cancelled: u32) {
        if result == -libc::EALREADY
            && let Some(record) = self.table.get_mut(id)
        {
            record.clear(cancelled);
            self.settle(id);
        }
    }

    fn received<M>(
        &mut self,
        id: SocketId,
        result: i32,
        flags: u32,
        sink: &mut impl FnMut(Input<'_, M>),
    ) {
        let record = self.table.get_mut(id).expect("a socket outlives its operations");
        let more = cqueue::more(flags);
        if !more {
            record.clear(record::RECEIVE_ARMED | record::RECEIVE_CANCELLED);
        }
        let told = record.has(record::CLOSING | record::ENDING | record::DEAD);
        if let Some(buffer) = cqueue::buffer_select(flags) {
            let len = usize::try_from(result).unwrap_or(0);
            if len > 0 && !told {
                sink(Input::Received { socket: id, bytes: self.buffers.bytes(buffer, len) });
            }
            self.buffers.give_back(buffer);
        }
        match result {
            0 => {
                self.ended(id, record::EOF);
                if !told {
                    sink(Input::Eof { socket: id });
                }
            }
            bytes if bytes > 0 => {}
            errno if errno == -libc::ENOBUFS => {
                self.line().counters.buffers_exhausted.add(1);
                self.exhausted = true;
            }
            errno if errno == -libc::ECANCELED || errno == -libc::EINTR => {}
            _ => {
                self.ended(id, record::DEAD);
                if !told {
                    sink(Input::HungUp { socket: id });
                }
            }
        }
        if !more {
            self.settle(id);
        }
    }

    fn polled<M>(&mut self, id: SocketId, result: i32, sink: &mut impl FnMut(Input<'_, M>)) {
        let record = self.table.get_mut(id).expect("a socket outlives its operations");
        let writable_armed = record.has(record::WRITABLE_ARMED);
        let was_hang_up = record.has(record::HANG_UP_ARMED);
        record.clear(record::HANG_UP_ARMED | record::WRITABLE_ARMED | record::POLL_CANCELLED);
        let told = record.has(record::CLOSING | record::ENDING | record::DEAD);
        let events = u32::try_from(result).unwrap_or(0);
        let ends = (libc::POLLERR | libc::POLLHUP) as u32;
        let fin = if was_hang_up { libc::POLLRDHUP as u32 } else { 0 };
        if told {
            // The actor has closed it, or knows.
        } else if events & (ends | fin) != 0 {
            record.set(record::DEAD);
            sink(Input::HungUp { socket: id });
        } else if events & libc::POLLOUT as u32 != 0
            && writable_armed
            && record.has(record::WRITABLE_WANTED)
        {
            record.clear(record::WRITABLE_WANTED);
            sink(Input::Writable { socket: id });
        }
        self.settle(id);
    }

    fn sent<M>(
        &mut self,
        now: Now,
        id: SocketId,
        result: i32,
        sink: &mut impl FnMut(Input<'_, M>),
    ) {
        let record = self.table.get_mut(id).expect("a socket outlives its operations");
        let (handle, index) = (record.handle, record.op);
        let result = match usize::try_from(result) {
            Ok(bytes) => match self.sends.advance(index, handle, id, bytes) {
                Progress::Done(payload) => Ok(payload),
                Progress::Continue(operation) if !record.has(record::ENDING) => {
                    self.lines[self.shard].counters.sends_continued.add(1);
                    self.ring.push(&operation);
                    return;
                }
                Progress::Continue(_) => Err(io::ErrorKind::ConnectionAborted),
            },
            Err(_) if result == -libc::ECANCELED => Err(io::ErrorKind::ConnectionAborted),
            Err(_) => Err(socket::kind_of(result)),
        };
        record.clear(record::SENDING | record::SEND_CANCELLED);
        let (result, payload) = match result {
            Ok(payload) => (Ok(()), payload),
            Err(error) => (Err(error), self.sends.finish(index)),
        };
        sink(Input::Sent { socket: id, result, payload });
        if result.is_err() {
            self.ended(id, record::DEAD);
        }
        self.send_over(now, id);
    }

    fn accepted<M>(
        &mut self,
        now: Now,
        index: u32,
        result: i32,
        sink: &mut impl FnMut(Input<'_, M>),
    ) {
        self.accepts_changed = true;
        let over = self.accepts.finish(index);
        let (listener, socket) = (over.listener, over.socket);
        if result < 0 {
            self.table.release(socket);
            if is_exhaustion(-result) {
                self.listeners.pause(now);
                self.line().counters.accept_pauses.add(1);
            }
            return;
        }
        let handle = if self.direct { Handle::direct(socket.slot) } else { Handle::plain(result) };
        let record = self.table.get_mut(socket).expect("its slot was kept");
        *record = Record::new(handle);
        let Some(peer) = over.peer() else {
            record.set(record::UNTOLD);
            return self.end(socket);
        };
        self.line().counters.accepted.add(1);
        let addr = self.listeners.addr(listener);
        // A direct descriptor cannot be asked for its address.
        let local = handle.descriptor().map_or(addr, |fd| socket::local_of(fd, addr));
        sink(Input::Accepted { socket, listener, peer, local });
    }

    /// Starts as many accepts as there is room for, and cancels those of listeners that are off.
    fn refill_accepts(&mut self) {
        if !std::mem::take(&mut self.accepts_changed) {
            return;
        }
        for cancel in self.accepts.cancels(&self.listeners) {
            self.ring.push(&cancel);
        }
        let below = accept_below(self.table.max());
        while self.table.taken() < below {
            let Some(listener) = self.accepts.next(&self.listeners) else { break };
            let socket = self.table.take(Record::accepting()).expect("room was counted");
            let operation = self.accepts.start(&self.listeners, listener, socket, self.direct);
            self.ring.push(&operation);
        }
        let sockets = self.table.taken() - self.accepts.len();
        self.line().counters.sockets.set(u64::from(sockets));
    }

    /// Ends what has waited too long.
    fn expire(&mut self, now: Now) {
        if self.listeners.resume(now) {
            self.accepts_changed = true;
        }
        self.expire_drains(now);
        self.expire_connects(now);
    }

    /// Submits what is queued, and tells which frames of a fan-out failed. Other completions are
    /// kept for the next delivery.
    fn reap_fanout(&mut self, frame_len: usize, failures: &mut Vec<Failure>) {
        let from = self.batch.len();
        self.ring.submit_and_reap(&mut self.batch);
        let Self { batch, table, .. } = self;
        let mut kept = from;
        for index in from..batch.len() {
            let completion = batch[index].clone();
            let (kind, id) = Tag::read(completion.user_data());
            if kind != Some(Kind::Fanout) {
                batch.swap(kept, index);
                kept += 1;
                continue;
            }
            if let Some(record) = table.get_mut(id) {
                record.set(record::BLOCKED);
            }
            failures.push(failure(id, completion.result(), frame_len));
        }
        batch.truncate(kept);
    }
}

/// A send of a fan-out that completed, which it does only when it was short or refused.
fn failure(socket: SocketId, result: i32, frame_len: usize) -> Failure {
    match u32::try_from(result) {
        Ok(sent_bytes) => {
            debug_assert!((sent_bytes as usize) < frame_len, "a whole frame is silent");
            Failure { socket, sent_bytes, error: io::ErrorKind::WouldBlock }
        }
        Err(_) => Failure { socket, sent_bytes: 0, error: socket::kind_of(result) },
    }
}

impl Sockets for Uring {
    fn connect(&mut self, now: Now, op: OpId, to: SocketAddr, from: Option<SocketAddr>) {
        self.start_connect(now, op, to, from);
    }

    fn receive(&mut self, socket: SocketId, on: bool) {
        let Some(record) = self.table.get_mut(socket) else { return };
        record.put(record::RECEIVE_WANTED, on);
        self.settle(socket);
    }

    fn watch(&mut self, socket: SocketId, hang_up: bool, writable: bool) {
        let Some(record) = self.table.get_mut(socket) else { return };
        record.put(record::HANG_UP_WANTED, hang_up);
        record.put(record::WRITABLE_WANTED, writable);
        self.settle(socket);
    }

    fn send(&mut self, socket: SocketId, payload: Payload) {
        let Some(record) = self.table.get_mut(socket) else { return };
        if record.has(record::CLOSING | record::ENDING) {
            return;
        }
        assert!(!record.has(record::SENDING), "one send a socket at a time (seam, rule 2)");
        record.set(record::SENDING);
        record.clear(record::BLOCKED);
        let (index, operation) = self.sends.start(record.handle, socket, payload);
        record.op = index;
        self.ring.push(&operation);
    }

    fn fanout(&mut self, frame: &Bytes, targets: &[SocketId], failures: &mut Vec<Failure>) {
        for batch in targets.chunks(RING_ENTRIES as usize) {
            for &id in batch {
                let Some(record) = self.table.get_mut(id) else { continue };
                if record.has(record::BLOCKED | record::CLOSING | record::ENDING | record::DEAD) {
                    continue;
                }
                if record.has(record::SENDING) {
                    // The actor broke rule 2; the stream must not be corrupted all the same.
                    let error = io::ErrorKind::WouldBlock;
                    failures.push(Failure { socket: id, sent_bytes: 0, error });
                    continue;
                }
                // SAFETY: `frame` is borrowed until this function returns, and everything pushed
                // here is submitted by `reap_fanout` before that.
                let operation =
                    unsafe { op::fanout(record.handle, frame, Tag::of(Kind::Fanout, id)) };
                self.ring.push(&operation);
            }
            self.reap_fanout(frame.len(), failures);
        }
    }

    fn close(&mut self, now: Now, socket: SocketId, how: Close) {
        self.start_close(now, socket, how);
    }

    fn accept(&mut self, listener: ListenerId, on: bool) {
        self.listeners.turn(listener, on);
        self.accepts_changed = true;
    }

    fn stop_accepting(&mut self) {
        self.listeners.stop();
        self.accepts_changed = true;
    }

    fn wait(&mut self, now: Now, patience: Patience) {
        self.refill_accepts();
        self.ring.wait(now, patience);
    }

    fn flush(&mut self) {
        self.ring.submit();
    }

    fn deliver<M>(&mut self, now: Now, sink: &mut impl FnMut(Input<'_, M>)) {
        self.expire(now);
        self.tell_failed_connects(sink);
        self.ring.reap(&mut self.batch, INPUTS_PER_TURN_MAX);
        // By index, so that an actor's panic loses no completion: the end of the shard waits for
        // all of them.
        while let Some(completion) = self.batch.get(self.delivered).cloned() {
            self.delivered += 1;
            self.complete(now, &completion, sink);
        }
        self.batch.clear();
        self.delivered = 0;
        if std::mem::take(&mut self.exhausted) && self.buffers.grow() {
            self.line().counters.buffers.set(u64::from(self.buffers.count()));
        }
        self.buffers.publish();
        self.tell_gone(sink);
    }

    fn has_inputs(&mut self) -> bool {
        !self.batch.is_empty()
            || !self.gone.is_empty()
            || self.connects.has_failed()
            || self.ring.has_completions()
    }

    fn next_deadline(&self) -> Option<Mono> {
        let drain = self.drains.front().map(|&(at, _)| at);
        let others = [self.connects.next_deadline(), self.listeners.next_deadline()];
        others.into_iter().chain([drain]).flatten().min()
    }

    fn unfinished(&self) -> usize {
        self.sends.len() as usize + self.closing_count
    }
}
