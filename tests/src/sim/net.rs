//! A virtual TCP: ordered byte pipes with latency and bounded buffers, resets, half-closes,
//! partitions.
//!
//! A connection is two pipes. Bytes written at one end fly for the link's latency and arrive in the
//! receiver's buffer; what flies and what waits there counts against the pipe's capacity, so a
//! reader that stops blocks its writer. Nothing here knows of HTTP or of shards.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet, BinaryHeap, VecDeque},
    net::SocketAddr,
};

use super::{coverage::Coverage, rng::Rng, trace::Trace};

/// A machine with an address; survives its crashes.
pub type HostId = usize;

/// One end of a connection: its number, and which side of it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct End {
    conn: usize,
    side: usize,
}

impl End {
    fn other(self) -> Self {
        Self { conn: self.conn, side: 1 - self.side }
    }
}

/// What a host is told.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Notice {
    /// A connect of this host ended: the end is open.
    Connected(End),
    /// A connect of this host ended: nobody listens there.
    Refused(End),
    /// Someone connected to this host's listener.
    Arrived(End, SocketAddr),
    /// Bytes or the end of them can be read.
    Readable(End),
    /// Room in the pipe again.
    Writable(End),
    /// The connection is gone.
    Reset(End),
}

#[derive(Debug)]
enum Packet {
    Bytes(Vec<u8>),
    Fin,
    Reset,
}

#[derive(Debug, Default)]
struct Pipe {
    flying: VecDeque<Packet>,
    flying_bytes: usize,
    arrived: VecDeque<u8>,
    fin_sent: bool,
    fin_arrived: bool,
    /// The writer met a full pipe and wants to be told of room.
    writer_waits: bool,
}

#[derive(Debug)]
struct Conn {
    hosts: [HostId; 2],
    addresses: [SocketAddr; 2],
    /// `pipes[side]` carries what `side` writes.
    pipes: [Pipe; 2],
    open: bool,
    /// Told of a reset, or closed: no more notices to that side.
    gone: [bool; 2],
    capacity: usize,
    latency_ns: u64,
}

#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Due {
    Connect(usize),
    Packet { conn: usize, from: usize },
    Room { conn: usize, writer: usize },
}

/// All connections of a world.
#[derive(Debug)]
pub struct Net {
    conns: Vec<Conn>,
    listeners: BTreeMap<SocketAddr, HostId>,
    due: BinaryHeap<Reverse<(u64, u64, Due)>>,
    sequence: u64,
    partitions: BTreeSet<(HostId, HostId)>,
    notices: VecDeque<(HostId, Notice)>,
    next_port: u16,
    /// What a pipe holds is drawn from these, bytes.
    pub capacities: Vec<usize>,
    rng: Rng,
    /// What happened.
    pub coverage: Coverage,
    /// What happened last, in words.
    pub trace: Trace,
}

/// Bytes a wide pipe holds.
const CAPACITY_BYTES: usize = 64 * 1024;
/// How long a packet waits before it tries a cut link again, as a retransmission would.
const RETRY_NS: u64 = 200_000_000;

impl Net {
    /// An empty network.
    pub fn new(rng: Rng) -> Self {
        Self {
            conns: Vec::new(),
            listeners: BTreeMap::new(),
            due: BinaryHeap::new(),
            sequence: 0,
            partitions: BTreeSet::new(),
            notices: VecDeque::new(),
            next_port: 20_000,
            capacities: vec![CAPACITY_BYTES, CAPACITY_BYTES, 8 * 1024, 2048],
            rng,
            coverage: Coverage::default(),
            trace: Trace::new(),
        }
    }

    /// `host` takes connections at `address`.
    pub fn listen(&mut self, host: HostId, address: SocketAddr) {
        self.listeners.insert(address, host);
    }

    /// Nobody takes connections at `address` any more.
    pub fn unlisten(&mut self, address: SocketAddr) {
        self.listeners.remove(&address);
    }

    /// Cuts or heals the link between two hosts; packets on a cut link wait.
    pub fn partition(&mut self, a: HostId, b: HostId, cut: bool) {
        let pair = (a.min(b), a.max(b));
        if cut && self.partitions.insert(pair) {
            self.coverage.hit("net: partition");
        } else if !cut {
            self.partitions.remove(&pair);
        }
    }

    /// Whether any link is cut.
    pub fn is_partitioned(&self) -> bool {
        !self.partitions.is_empty()
    }

    /// Heals all links.
    pub fn heal(&mut self) {
        self.partitions.clear();
    }

    /// Starts a connection from `host` to `to`. Ends with a `Connected` or `Refused` notice.
    pub fn connect(
        &mut self,
        now_ns: u64,
        host: HostId,
        from: std::net::IpAddr,
        to: SocketAddr,
    ) -> End {
        self.next_port = self.next_port.checked_add(1).unwrap_or(20_000);
        let latency_ns = *self.rng.pick(&[20_000, 50_000, 200_000, 1_000_000, 20_000_000]);
        let capacity = *self.rng.pick(&self.capacities);
        self.conns.push(Conn {
            hosts: [host, usize::MAX],
            addresses: [SocketAddr::new(from, self.next_port), to],
            pipes: Default::default(),
            open: false,
            gone: [false; 2],
            capacity,
            latency_ns,
        });
        let conn = self.conns.len() - 1;
        self.later(now_ns + latency_ns, Due::Connect(conn));
        End { conn, side: 0 }
    }

    /// Address of the other side.
    pub fn peer(&self, end: End) -> SocketAddr {
        self.conns[end.conn].addresses[1 - end.side]
    }

    /// Address of this side.
    pub fn local(&self, end: End) -> SocketAddr {
        self.conns[end.conn].addresses[end.side]
    }

    /// Makes one connection narrow, so that a reader that stops soon blocks its writer.
    pub fn set_capacity(&mut self, end: End, bytes: usize) {
        self.conns[end.conn].capacity = bytes;
    }

    /// Writes what fits and says how much that was. `None`: the connection is gone.
    pub fn write(&mut self, now_ns: u64, end: End, bytes: &[u8]) -> Option<usize> {
        let conn = &mut self.conns[end.conn];
        if conn.gone[end.side] || !conn.open || conn.pipes[end.side].fin_sent {
            return None;
        }
        let pipe = &mut conn.pipes[end.side];
        let room = conn.capacity.saturating_sub(pipe.flying_bytes + pipe.arrived.len());
        let taken = room.min(bytes.len());
        if taken < bytes.len() {
            pipe.writer_waits = true;
        }
        if taken > 0 {
            pipe.flying_bytes += taken;
            pipe.flying.push_back(Packet::Bytes(bytes[..taken].to_vec()));
            self.fly(now_ns, end);
        }
        Some(taken)
    }

    /// Whether a write would take at least one byte.
    pub fn has_room(&self, end: End) -> bool {
        let conn = &self.conns[end.conn];
        let pipe = &conn.pipes[end.side];
        conn.capacity > pipe.flying_bytes + pipe.arrived.len()
    }

    /// Asks for a `Writable` notice when there is room.
    pub fn want_room(&mut self, now_ns: u64, end: End) {
        if self.has_room(end) {
            self.later(now_ns, Due::Room { conn: end.conn, writer: end.side });
        } else {
            self.conns[end.conn].pipes[end.side].writer_waits = true;
        }
    }

    /// Bytes that can be read at once.
    pub fn readable(&self, end: End) -> usize {
        self.conns[end.conn].pipes[1 - end.side].arrived.len()
    }

    /// Reads at most `bytes_max` bytes.
    pub fn read(&mut self, now_ns: u64, end: End, bytes_max: usize) -> Vec<u8> {
        let conn = &mut self.conns[end.conn];
        let pipe = &mut conn.pipes[1 - end.side];
        let take = bytes_max.min(pipe.arrived.len());
        let (front, back) = pipe.arrived.as_slices();
        let from_front = take.min(front.len());
        let mut bytes = Vec::with_capacity(take);
        bytes.extend_from_slice(&front[..from_front]);
        bytes.extend_from_slice(&back[..take - from_front]);
        pipe.arrived.drain(..take);
        if take > 0 && pipe.writer_waits {
            pipe.writer_waits = false;
            let at_ns = now_ns + conn.latency_ns;
            self.later(at_ns, Due::Room { conn: end.conn, writer: 1 - end.side });
        }
        bytes
    }

    /// Whether the other side has said its last byte and everything before it was read.
    pub fn is_eof(&self, end: End) -> bool {
        let pipe = &self.conns[end.conn].pipes[1 - end.side];
        pipe.fin_arrived && pipe.arrived.is_empty()
    }

    /// Whether the other side has said its last byte, read or not.
    pub fn fin_arrived(&self, end: End) -> bool {
        self.conns[end.conn].pipes[1 - end.side].fin_arrived
    }

    /// Says the last byte.
    pub fn shut_down(&mut self, now_ns: u64, end: End) {
        let conn = &mut self.conns[end.conn];
        if conn.open && !conn.gone[end.side] && !conn.pipes[end.side].fin_sent {
            conn.pipes[end.side].fin_sent = true;
            conn.pipes[end.side].flying.push_back(Packet::Fin);
            self.fly(now_ns, end);
        }
    }

    /// Gives the end up. With bytes unread or `reset`, the other side meets a reset; otherwise an
    /// orderly end.
    pub fn close(&mut self, now_ns: u64, end: End, reset: bool) {
        if self.conns[end.conn].gone[end.side] {
            return;
        }
        let unread = self.readable(end) > 0;
        if reset || unread {
            self.conns[end.conn].pipes[end.side].flying.push_back(Packet::Reset);
            self.fly(now_ns, end);
        } else {
            self.shut_down(now_ns, end);
        }
        self.conns[end.conn].gone[end.side] = true;
    }

    /// The host stops: its listeners and connections go with it. Its peers meet resets.
    pub fn crash(&mut self, now_ns: u64, host: HostId) {
        self.listeners.retain(|_, owner| *owner != host);
        for conn in 0..self.conns.len() {
            for side in 0..2 {
                if self.conns[conn].hosts[side] == host && !self.conns[conn].gone[side] {
                    self.close(now_ns, End { conn, side }, true);
                }
            }
        }
        self.notices.retain(|(to, _)| *to != host);
    }

    /// When the next packet arrives.
    pub fn next_due_ns(&self) -> Option<u64> {
        self.due.peek().map(|Reverse((at, _, _))| *at)
    }

    /// Lets everything arrive that is due by now.
    pub fn advance(&mut self, now_ns: u64) {
        while self.next_due_ns().is_some_and(|at| at <= now_ns) {
            if let Some(Reverse((_, _, due))) = self.due.pop() {
                self.arrive(now_ns, due);
            }
        }
    }

    /// The next notice for a host.
    pub fn poll_notice(&mut self) -> Option<(HostId, Notice)> {
        self.notices.pop_front()
    }

    fn later(&mut self, at_ns: u64, due: Due) {
        self.sequence += 1;
        self.due.push(Reverse((at_ns, self.sequence, due)));
    }

    fn fly(&mut self, now_ns: u64, end: End) {
        let at_ns = now_ns + self.conns[end.conn].latency_ns;
        self.later(at_ns, Due::Packet { conn: end.conn, from: end.side });
    }

    fn is_cut(&self, conn: usize) -> bool {
        let [a, b] = self.conns[conn].hosts;
        self.partitions.contains(&(a.min(b), a.max(b)))
    }

    fn notify(&mut self, end: End, notice: Notice) {
        let conn = &self.conns[end.conn];
        if !conn.gone[end.side] {
            self.notices.push_back((conn.hosts[end.side], notice));
        }
    }

    fn arrive(&mut self, now_ns: u64, due: Due) {
        match due {
            Due::Connect(conn) => {
                let to = self.conns[conn].addresses[1];
                let end = End { conn, side: 0 };
                match self.listeners.get(&to).copied() {
                    Some(host) => {
                        self.conns[conn].hosts[1] = host;
                        if self.is_cut(conn) {
                            return self.later(now_ns + RETRY_NS, Due::Connect(conn));
                        }
                        self.conns[conn].open = true;
                        self.notify(end, Notice::Connected(end));
                        self.notify(end.other(), Notice::Arrived(end.other(), to));
                    }
                    None => {
                        self.coverage.hit("connect: refused");
                        self.notify(end, Notice::Refused(end));
                        self.conns[conn].gone = [true; 2];
                    }
                }
            }
            Due::Packet { conn, from } => {
                if self.is_cut(conn) {
                    return self.later(now_ns + RETRY_NS, Due::Packet { conn, from });
                }
                self.packet(End { conn, side: from });
            }
            Due::Room { conn, writer } => {
                let end = End { conn, side: writer };
                self.notify(end, Notice::Writable(end));
            }
        }
    }

    fn packet(&mut self, from: End) {
        let to = from.other();
        let pipe = &mut self.conns[from.conn].pipes[from.side];
        match pipe.flying.pop_front() {
            None => {}
            Some(Packet::Bytes(bytes)) => {
                pipe.flying_bytes -= bytes.len();
                pipe.arrived.extend(bytes);
                if self.conns[to.conn].gone[to.side] {
                    // Nobody is there to read: the writer learns it by a reset.
                    self.notify(from, Notice::Reset(from));
                    self.conns[from.conn].gone[from.side] = true;
                } else {
                    self.notify(to, Notice::Readable(to));
                }
            }
            Some(Packet::Fin) => {
                pipe.fin_arrived = true;
                self.notify(to, Notice::Readable(to));
            }
            Some(Packet::Reset) => {
                pipe.arrived.clear();
                pipe.flying.clear();
                self.coverage.hit("net: connection reset");
                let back = &self.conns[from.conn].pipes[to.side];
                if back.flying_bytes + back.arrived.len() > 0 {
                    // What `to` was told is sent will never be read.
                    self.coverage.hit("net: reset after an acknowledged send");
                }
                self.notify(to, Notice::Reset(to));
                self.conns[to.conn].gone[to.side] = true;
            }
        }
    }
}
