//! The effects a shard has decided on and its engine has not yet taken, in order.
//!
//! Every machine of the shard gets `&mut Out` and says what it wants here; nobody builds an
//! `Effect` elsewhere. Owns the list of fan-out targets and the send buffers that came back for
//! reuse.
//!
//! Leaves to others: carrying effects out (the engine).

use std::{collections::VecDeque, net::SocketAddr};

use bytes::Bytes;

use super::mail::Mail;
use crate::{
    limits,
    seam::{
        Close, ColdWork, Effect, FileWork, ListenerId, OpId, Payload, Segment, ShardId, SocketId,
    },
};

/// Who asked for an operation: its result goes back there. The number is the machine's own.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Op {
    /// A connection or a name for an origin.
    Origin(u64),
    /// The session with control.
    Feed(u64),
    /// What is kept on disk.
    LastKnown(u64),
    /// An encoding.
    Encoding(u64),
}

impl Op {
    /// Bits left for the machine's own number.
    const NUMBER_BITS: u32 = 56;

    /// The name given to the engine.
    pub fn id(self) -> OpId {
        let (kind, number) = match self {
            Self::Origin(number) => (1, number),
            Self::Feed(number) => (2, number),
            Self::LastKnown(number) => (3, number),
            Self::Encoding(number) => (4, number),
        };
        assert!(
            number >> Self::NUMBER_BITS == 0,
            "op numbers count up from 0 and are never that large"
        );
        kind << Self::NUMBER_BITS | number
    }

    /// Whose operation this was.
    ///
    /// # Panics
    /// When the engine returns an id that was never given to it.
    pub fn of(id: OpId) -> Self {
        let number = id & ((1 << Self::NUMBER_BITS) - 1);
        match id >> Self::NUMBER_BITS {
            1 => Self::Origin(number),
            2 => Self::Feed(number),
            3 => Self::LastKnown(number),
            4 => Self::Encoding(number),
            _ => panic!("the engine returned an operation that this shard never asked for"),
        }
    }
}

/// Effects in order, fan-out targets, spare buffers.
pub struct Out {
    effects: VecDeque<Effect<Mail>>,
    targets: Vec<SocketId>,
    spare: Vec<Vec<u8>>,
    closing: Vec<SocketId>,
    yielded: bool,
    shard: ShardId,
    shard_count: u16,
}

impl Out {
    /// For one shard of `shard_count`.
    pub fn new(shard: ShardId, shard_count: u16) -> Self {
        Self {
            effects: VecDeque::with_capacity(64),
            targets: Vec::new(),
            spare: Vec::new(),
            closing: Vec::new(),
            yielded: false,
            shard,
            shard_count,
        }
    }

    /// This shard's index.
    pub fn shard(&self) -> ShardId {
        self.shard
    }

    /// Shards of this process.
    pub fn shard_count(&self) -> u16 {
        self.shard_count
    }

    /// Opens a connection.
    pub fn connect(&mut self, op: Op, to: SocketAddr) {
        self.effects.push_back(Effect::Connect { op: op.id(), to, from: None });
    }

    /// Looks a name up.
    pub fn resolve(&mut self, op: Op, name: String, port: u16) {
        self.effects.push_back(Effect::Resolve { op: op.id(), name, port });
    }

    /// Has a helper work.
    pub fn cold(&mut self, op: Op, work: ColdWork) {
        self.effects.push_back(Effect::Cold { op: op.id(), work });
    }

    /// Works on the disk.
    pub fn file(&mut self, op: Op, work: FileWork) {
        self.effects.push_back(Effect::File { op: op.id(), work });
    }

    /// Reads from a socket, or stops.
    pub fn receive(&mut self, socket: SocketId, on: bool) {
        self.effects.push_back(Effect::Receive { socket, on });
    }

    /// What to be told of a socket without reading from it.
    pub fn watch(&mut self, socket: SocketId, hang_up: bool, writable: bool) {
        self.effects.push_back(Effect::Watch { socket, hang_up, writable });
    }

    /// Sends; at most one a socket until `Sent`.
    pub fn send(&mut self, socket: SocketId, payload: Payload) {
        debug_assert!(payload.segments().len() <= limits::SEGMENTS_MAX);
        self.effects.push_back(Effect::Send { socket, payload });
    }

    /// Sends one frame to many sockets, silently.
    pub fn fanout(&mut self, frame: Bytes, targets: impl IntoIterator<Item = SocketId>) {
        let start = self.targets.len() as u32;
        self.targets.extend(targets);
        let end = self.targets.len() as u32;
        if end > start {
            self.effects.push_back(Effect::Fanout { frame, targets: start..end });
        }
    }

    /// Ends a connection. Its owner forgets it at once: no further input of this socket reaches
    /// anyone, and a payload under way is taken back by the shard.
    pub fn close(&mut self, socket: SocketId, how: Close) {
        self.closing.push(socket);
        self.effects.push_back(Effect::Close { socket, how });
    }

    /// To one shard, this one included.
    pub fn mail(&mut self, to: ShardId, mail: Mail) {
        self.effects.push_back(Effect::Mail { to, mail });
    }

    /// To every shard, this one included.
    pub fn mail_all(&mut self, mut mail: impl FnMut() -> Mail) {
        for to in 0..self.shard_count {
            self.mail(to, mail());
        }
    }

    /// Takes new connections from a listener, or not.
    pub fn accept(&mut self, listener: ListenerId, on: bool) {
        self.effects.push_back(Effect::Accept { listener, on });
    }

    /// Asks for one `Continue`, however many machines ask before it comes.
    pub fn yield_turn(&mut self) {
        if !self.yielded {
            self.yielded = true;
            self.effects.push_back(Effect::Yield);
        }
    }

    /// The `Continue` has come; the next [`Out::yield_turn`] asks anew.
    pub(super) fn continued(&mut self) {
        self.yielded = false;
    }

    /// Whether a turn was asked for that has not come.
    pub(super) fn is_yielding(&self) -> bool {
        self.yielded
    }

    /// Lets the process end.
    pub fn stop(&mut self) {
        self.effects.push_back(Effect::Stop);
    }

    /// An empty buffer for [`Segment::Owned`], with the room of its former use.
    pub fn buffer(&mut self) -> Vec<u8> {
        self.spare.pop().unwrap_or_else(|| Vec::with_capacity(limits::SEND_BUFFER_BYTES))
    }

    /// Takes back what a `Sent` returned. Buffers that grew large are let go.
    pub fn recycle(&mut self, payload: Payload) {
        if let Payload::One(Segment::Owned(buffer)) = payload {
            self.recycle_buffer(buffer);
        }
    }

    /// Takes back a buffer that was not sent.
    pub fn recycle_buffer(&mut self, mut buffer: Vec<u8>) {
        let fits = buffer.capacity() <= limits::SPARE_BUFFER_BYTES_MAX;
        if fits && self.spare.len() < limits::SPARE_BUFFERS_MAX {
            buffer.clear();
            self.spare.push(buffer);
        }
    }

    /// A socket whose close was asked since the last call; the table marks it.
    pub(super) fn pop_closing(&mut self) -> Option<SocketId> {
        self.closing.pop()
    }

    /// The next effect for the engine.
    pub(super) fn poll(&mut self) -> Option<Effect<Mail>> {
        self.effects.pop_front()
    }

    /// Forgets the targets of fan-outs that were carried out. Called before each input.
    pub(super) fn begin(&mut self) {
        if self.effects.is_empty() {
            self.targets.clear();
        }
    }

    /// The targets of a fan-out being carried out.
    pub(super) fn targets(&self, range: std::ops::Range<u32>) -> &[SocketId] {
        &self.targets[range.start as usize..range.end as usize]
    }
}
