//! The engine on epoll, for where io_uring is forbidden: the same behaviour by readiness.
//!
//! Level-triggered. Sends are tried when the actor asks and only what does not fit waits for an
//! event; a socket that nobody waits for is not in the epoll instance at all. Which events a socket
//! needs is decided in [`record`]; here it is carried out.

mod poller;
mod record;
mod send;

use std::{collections::VecDeque, io, net::SocketAddr, os::fd::AsRawFd, sync::Arc};

use bytes::Bytes;

pub(crate) use self::record::Record;
use self::{
    poller::{Change, Poller, Source},
    send::{Progress, Sends},
};
use crate::{
    engine::{
        listen::{Listeners, accept_below, is_exhaustion},
        socket,
        table::{Slab, Table},
        turn::{Failure, Line, Patience, Sockets},
    },
    limits::{ACCEPTS_MAX, CLOSE_DRAIN_MS, CONNECT_MS_MAX, RECEIVE_BYTES},
    seam::{Close, Input, ListenerId, Mono, Now, OpId, Payload, SocketId},
};

/// The sockets of one shard, on epoll.
pub(crate) struct Epoll {
    poller: Poller,
    table: Table<Record>,
    sends: Sends,
    /// Connects under way.
    connects: Slab<OpId>,
    connect_deadlines: VecDeque<(Mono, SocketId)>,
    listeners: Listeners,
    /// Whether each listener is watched.
    watched: Vec<bool>,
    /// Room or a listener's state has changed.
    accepts_changed: bool,
    /// What is over without the kernel's word, to be told.
    ready: Vec<Ready>,
    /// To be told as closed.
    gone: Vec<SocketId>,
    drains: VecDeque<(Mono, SocketId)>,
    closing_count: usize,
    buffer: Box<[u8]>,
    /// The last wait did not ask the kernel, so the next one shall.
    kernel_waits: bool,
    lines: Arc<[Line]>,
    shard: usize,
}

enum Ready {
    Sent(SocketId, Payload, Result<(), io::ErrorKind>),
    Connected(OpId, Result<SocketId, io::ErrorKind>),
}

impl Epoll {
    pub(crate) fn new(
        listeners: Listeners,
        sockets_max: u32,
        lines: Arc<[Line]>,
        shard: usize,
    ) -> io::Result<Self> {
        let poller = Poller::new()?;
        let edge = (libc::EPOLLIN | libc::EPOLLET) as u32;
        poller.change(lines[shard].bell.fd(), Source::Bell, Change::Add(edge))?;
        for listener in 0..listeners.count() {
            listeners.socket(listener).set_nonblocking(true)?;
        }
        Ok(Self {
            poller,
            table: Table::new(sockets_max),
            sends: Sends::new(),
            connects: Slab::new(),
            connect_deadlines: VecDeque::new(),
            watched: vec![false; usize::from(listeners.count())],
            listeners,
            accepts_changed: true,
            ready: Vec::new(),
            gone: Vec::new(),
            drains: VecDeque::new(),
            closing_count: 0,
            buffer: vec![0; RECEIVE_BYTES].into(),
            kernel_waits: false,
            lines,
            shard,
        })
    }

    fn line(&self) -> &Line {
        &self.lines[self.shard]
    }

    /// Makes what is watched of a socket what is needed.
    fn settle(&mut self, id: SocketId) {
        let Some(record) = self.table.get_mut(id) else { return };
        let Some(change) = record.next_change() else { return };
        let fd = record.fd;
        if let Err(error) = self.poller.change(fd, Source::Socket(id), change) {
            // Out of kernel memory or epoll's own limit: this one connection is given up, and the
            // next look at it says so.
            tracing::warn!(%error, "a socket cannot be watched");
            socket::shut_both(fd);
        }
    }

    fn event<M>(
        &mut self,
        now: Now,
        id: SocketId,
        events: u32,
        sink: &mut impl FnMut(Input<'_, M>),
    ) {
        let Some(record) = self.table.get_mut(id) else { return };
        let ends = events & (libc::EPOLLERR | libc::EPOLLHUP) as u32 != 0;
        let fin = events & libc::EPOLLRDHUP as u32 != 0;
        if record.has(record::CONNECTING) {
            return self.connected(id);
        }
        if record.has(record::SENDING) && (ends || events & libc::EPOLLOUT as u32 != 0) {
            self.go_on_sending(id);
        }
        let Some(record) = self.table.get_mut(id) else { return };
        if record.reads() {
            self.read(id, sink);
        } else if !record.has(record::DEAD | record::CLOSING | record::GONE)
            && (ends && !record.has(record::SENT) || fin && record.has(record::HANG_UP_WANTED))
        {
            self.hung_up(id, sink);
        }
        if let Some(record) = self.table.get_mut(id)
            && events & libc::EPOLLOUT as u32 != 0
            && record.has(record::WRITABLE_WANTED)
            && !record.has(record::SENDING | record::DEAD | record::CLOSING | record::GONE)
        {
            record.clear(record::WRITABLE_WANTED);
            sink(Input::Writable { socket: id });
        }
        self.send_over(now, id);
        self.settle(id);
    }

    fn read<M>(&mut self, id: SocketId, sink: &mut impl FnMut(Input<'_, M>)) {
        let Some(record) = self.table.get_mut(id) else { return };
        let told = record.has(record::CLOSING);
        match socket::receive(record.fd, &mut self.buffer) {
            Ok(0) => {
                self.ended(id, record::EOF);
                if !told {
                    sink(Input::Eof { socket: id });
                }
            }
            Ok(len) if told => debug_assert!(len > 0, "discarded"),
            Ok(len) => sink(Input::Received { socket: id, bytes: &self.buffer[..len] }),
            Err(error) if is_passing(&error) => {}
            Err(_) if told => self.ended(id, record::DEAD),
            Err(_) => self.hung_up(id, sink),
        }
    }

    fn hung_up<M>(&mut self, id: SocketId, sink: &mut impl FnMut(Input<'_, M>)) {
        self.ended(id, record::DEAD);
        sink(Input::HungUp { socket: id });
    }

    fn go_on_sending(&mut self, id: SocketId) {
        let Some(record) = self.table.get_mut(id) else { return };
        match self.sends.advance(record.op, record.fd) {
            Progress::Waits(_) => {}
            Progress::Over(payload, result) => self.send_ended(id, payload, result),
        }
    }

    fn send_ended(&mut self, id: SocketId, payload: Payload, result: Result<(), io::ErrorKind>) {
        if let Some(record) = self.table.get_mut(id) {
            record.clear(record::SENDING);
            record.set(record::SENT);
            self.ready.push(Ready::Sent(id, payload, result));
        }
    }

    fn tell_ready<M>(&mut self, now: Now, sink: &mut impl FnMut(Input<'_, M>)) {
        let mut ready = std::mem::take(&mut self.ready);
        for over in ready.drain(..) {
            match over {
                Ready::Connected(op, result) => sink(Input::Connected { op, result }),
                Ready::Sent(id, payload, result) => {
                    sink(Input::Sent { socket: id, result, payload });
                    if let Some(record) = self.table.get_mut(id) {
                        record.clear(record::SENT);
                    }
                    if result.is_err() {
                        self.ended(id, record::DEAD);
                    }
                    self.send_over(now, id);
                    self.settle(id);
                }
            }
        }
        // What became ready meanwhile is told next time; the room is kept.
        ready.append(&mut self.ready);
        self.ready = ready;
    }

    /// No send is under way any more, or there was none: goes on with a close that waited for that.
    fn send_over(&mut self, now: Now, id: SocketId) {
        let Some(record) = self.table.get_mut(id) else { return };
        if !record.has(record::CLOSING) || record.has(record::GONE) {
            return;
        }
        if record.has(record::DEAD) {
            return self.end(id);
        }
        if record.has(record::SENDING | record::SENT | record::DRAINING) {
            return;
        }
        if record.has(record::EOF | record::FINISHED) {
            // All was read, so the descriptor's close says FIN.
            return self.end(id);
        }
        socket::shut_write(record.fd);
        record.set(record::DRAINING);
        self.drains.push_back((now.mono.after_ms(CLOSE_DRAIN_MS), id));
        self.settle(id);
    }

    /// The peer's end of stream, or the connection's: `EOF` or `DEAD`.
    fn ended(&mut self, id: SocketId, how: u32) {
        let Some(record) = self.table.get_mut(id) else { return };
        record.set(how);
        let over = record.has(record::DRAINING) || how == record::DEAD;
        if record.has(record::CLOSING) && over {
            self.end(id);
        }
        self.settle(id);
    }

    /// Nothing more is done with the socket; a send under way is given back.
    fn end(&mut self, id: SocketId) {
        let Some(record) = self.table.get_mut(id) else { return };
        if record.has(record::GONE) {
            return;
        }
        let sending = record.has(record::SENDING);
        let index = record.op;
        record.set(record::GONE);
        if sending {
            let payload = self.sends.abandon(index);
            self.send_ended(id, payload, Err(io::ErrorKind::ConnectionAborted));
        }
        self.gone.push(id);
        self.settle(id);
    }

    fn connected(&mut self, id: SocketId) {
        let Some(record) = self.table.get_mut(id) else { return };
        match socket::take_error(record.fd) {
            Some(error) => self.connect_failed(id, error.kind()),
            None => {
                record.clear(record::CONNECTING);
                if let Some(op) = self.connects.remove(record.op) {
                    self.ready.push(Ready::Connected(op, Ok(id)));
                }
                self.settle(id);
            }
        }
    }

    fn connect_failed(&mut self, id: SocketId, error: io::ErrorKind) {
        let Some(record) = self.table.release(id) else { return };
        socket::close(record.fd);
        self.accepts_changed = true;
        if let Some(op) = self.connects.remove(record.op) {
            self.ready.push(Ready::Connected(op, Err(error)));
        }
    }

    /// Takes what waits in a backlog, as far as there is room.
    fn accept_some<M>(
        &mut self,
        now: Now,
        listener: ListenerId,
        sink: &mut impl FnMut(Input<'_, M>),
    ) {
        let below = accept_below(self.table.max());
        for _ in 0..ACCEPTS_MAX {
            if self.table.taken() >= below || !self.listeners.is_on(listener) {
                self.accepts_changed = true;
                return;
            }
            let flags = libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC;
            let (socket, peer) = match self.listeners.socket(listener).accept4(flags) {
                Ok(accepted) => accepted,
                Err(error) => {
                    if error.raw_os_error().is_some_and(is_exhaustion) {
                        self.listeners.pause(now);
                        self.accepts_changed = true;
                        self.line().counters.accept_pauses.add(1);
                    }
                    return;
                }
            };
            let fd = socket.as_raw_fd();
            let Some((peer, id)) = peer.as_socket().zip(self.table.take(Record::new(fd))) else {
                continue;
            };
            socket::into_fd(socket);
            self.line().counters.accepted.add(1);
            let local = socket::local_of(fd, self.listeners.addr(listener));
            sink(Input::Accepted { socket: id, listener, peer, local });
        }
    }

    /// Watches the listeners that may accept now, and no others.
    fn rewatch_listeners(&mut self) {
        if !std::mem::take(&mut self.accepts_changed) {
            return;
        }
        let room = self.table.taken() < accept_below(self.table.max());
        for listener in 0..self.listeners.count() {
            let wanted = room && self.listeners.is_on(listener);
            let watched = &mut self.watched[usize::from(listener)];
            if *watched == wanted {
                continue;
            }
            let change = if wanted { Change::Add(libc::EPOLLIN as u32) } else { Change::Remove };
            let source = Source::Listener(listener.into());
            match self.poller.change(self.listeners.fd(listener), source, change) {
                Ok(()) => *watched = wanted,
                Err(error) => tracing::warn!(%error, "a listener cannot be watched"),
            }
        }
        self.line().counters.sockets.set(u64::from(self.table.taken()));
    }

    fn expire(&mut self, now: Now) {
        if self.listeners.resume(now) {
            self.accepts_changed = true;
        }
        while let Some(&(at, id)) = self.drains.front() {
            let over = self.table.get_mut(id).is_none_or(|record| record.has(record::GONE));
            if !over && at > now.mono {
                break;
            }
            self.drains.pop_front();
            self.end(id);
        }
        while let Some(&(at, id)) = self.connect_deadlines.front() {
            let over = self.table.get_mut(id).is_none_or(|record| !record.has(record::CONNECTING));
            if !over && at > now.mono {
                break;
            }
            self.connect_deadlines.pop_front();
            if !over {
                self.connect_failed(id, io::ErrorKind::TimedOut);
            }
        }
    }

    fn tell_gone<M>(&mut self, sink: &mut impl FnMut(Input<'_, M>)) {
        let mut gone = std::mem::take(&mut self.gone);
        let waiting = gone.extract_if(.., |id| {
            self.table.get_mut(*id).is_some_and(|record| record.has(record::SENT))
        });
        self.gone = waiting.collect();
        for id in gone {
            sink(Input::Closed { socket: id });
            if let Some(record) = self.table.release(id) {
                socket::close(record.fd);
                self.closing_count -= usize::from(record.has(record::CLOSING));
            }
            self.accepts_changed = true;
        }
    }

    fn open(
        &mut self,
        now: Now,
        op: OpId,
        to: SocketAddr,
        from: Option<SocketAddr>,
    ) -> Result<Option<SocketId>, io::ErrorKind> {
        if self.table.taken() >= self.table.max() {
            return Err(io::ErrorKind::QuotaExceeded);
        }
        let socket = socket::outgoing(to, from).map_err(|error| error.kind())?;
        socket.set_nonblocking(true).map_err(|error| error.kind())?;
        let waits = match socket::connect(socket.as_raw_fd(), to) {
            Ok(()) => false,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => true,
            Err(error) => return Err(error.kind()),
        };
        let fd = socket::into_fd(socket);
        if !waits {
            return Ok(self.table.take(Record::new(fd)));
        }
        let index = self.connects.insert(op);
        let id = self.table.take(Record::connecting(fd, index)).expect("room was counted");
        self.connect_deadlines.push_back((now.mono.after_ms(CONNECT_MS_MAX), id));
        self.settle(id);
        Ok(None)
    }
}

fn is_passing(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted)
}

impl Sockets for Epoll {
    fn connect(&mut self, now: Now, op: OpId, to: SocketAddr, from: Option<SocketAddr>) {
        match self.open(now, op, to, from) {
            Ok(None) => {}
            Ok(Some(id)) => self.ready.push(Ready::Connected(op, Ok(id))),
            Err(error) => self.ready.push(Ready::Connected(op, Err(error))),
        }
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
        if record.has(record::CLOSING | record::GONE) {
            return;
        }
        let busy = record.has(record::SENDING | record::SENT);
        assert!(!busy, "one send a socket at a time (seam, rule 2)");
        record.clear(record::BLOCKED);
        match self.sends.start(record.fd, payload) {
            Progress::Waits(index) => {
                record.op = index;
                record.set(record::SENDING);
                self.line().counters.sends_continued.add(1);
                self.settle(socket);
            }
            Progress::Over(payload, result) => self.send_ended(socket, payload, result),
        }
    }

    fn fanout(&mut self, frame: &Bytes, targets: &[SocketId], failures: &mut Vec<Failure>) {
        for &id in targets {
            let Some(record) = self.table.get_mut(id) else { continue };
            if record.has(record::BLOCKED | record::CLOSING | record::GONE | record::DEAD) {
                continue;
            }
            let outcome = if record.has(record::SENDING | record::SENT) {
                // The actor broke rule 2; the stream must not be corrupted all the same.
                Err(io::ErrorKind::WouldBlock)
            } else {
                socket::send(record.fd, frame).map_err(|error| error.kind())
            };
            let (sent, error) = match outcome {
                Ok(sent) if sent == frame.len() => continue,
                Ok(sent) => (sent, io::ErrorKind::WouldBlock),
                Err(error) => (0, error),
            };
            if !record.has(record::SENDING | record::SENT) {
                record.set(record::BLOCKED);
            }
            let sent_bytes = u32::try_from(sent).unwrap_or(u32::MAX);
            failures.push(Failure { socket: id, sent_bytes, error });
        }
    }

    fn close(&mut self, now: Now, socket: SocketId, how: Close) {
        let Some(record) = self.table.get_mut(socket) else { return };
        match how {
            Close::Abort => {
                if !record.has(record::GONE) {
                    socket::reset_on_close(record.fd);
                    self.end(socket);
                }
            }
            Close::Graceful | Close::Finished if record.has(record::CLOSING | record::GONE) => {}
            Close::Graceful | Close::Finished => {
                record.set(record::CLOSING);
                record.put(record::FINISHED, how == Close::Finished);
                self.closing_count += 1;
                self.send_over(now, socket);
                self.settle(socket);
            }
        }
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
        self.rewatch_listeners();
        // What is over already is told first, for one turn: its effects may fill the socket that
        // the kernel would now report, and the kernel is asked half as often.
        if patience == Patience::None && !self.kernel_waits && !self.ready.is_empty() {
            self.kernel_waits = true;
            return;
        }
        self.kernel_waits = false;
        let timeout_ms = match patience {
            Patience::None => 0,
            Patience::Endless => -1,
            // Rounded up: a deadline never comes early.
            Patience::Until(at) => {
                i32::try_from(at.since_ns(now.mono).div_ceil(1_000_000)).unwrap_or(i32::MAX)
            }
        };
        self.poller.wait(timeout_ms);
    }

    fn flush(&mut self) {}

    fn deliver<M>(&mut self, now: Now, sink: &mut impl FnMut(Input<'_, M>)) {
        self.expire(now);
        self.tell_ready(now, sink);
        while let Some((source, events)) = self.poller.next() {
            match source {
                Source::Bell => {}
                Source::Listener(index) => {
                    let listener = ListenerId::try_from(index).unwrap_or(ListenerId::MAX);
                    self.accept_some(now, listener, sink);
                }
                Source::Socket(id) => self.event(now, id, events, sink),
            }
        }
        self.tell_gone(sink);
    }

    fn has_inputs(&mut self) -> bool {
        !self.ready.is_empty() || !self.gone.is_empty() || self.poller.has_events()
    }

    fn next_deadline(&self) -> Option<Mono> {
        let fronts = [self.drains.front(), self.connect_deadlines.front()];
        let fronts = fronts.into_iter().flatten().map(|&(at, _)| at);
        fronts.chain(self.listeners.next_deadline()).min()
    }

    fn unfinished(&self) -> usize {
        self.sends.len() as usize + self.closing_count
    }
}

impl Drop for Epoll {
    fn drop(&mut self) {
        self.table.iter().for_each(|(_, record)| socket::close(record.fd));
    }
}
