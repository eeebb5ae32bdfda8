//! The seam between an actor (a shard, a load generator) and the engine that drives it.
//!
//! An actor is a deterministic machine: [`Input`]s in, [`Effect`]s out, time as an argument. It
//! opens no socket, reads no clock
//! and never blocks. The engine owns descriptors and memory lent to the kernel, and knows nothing
//! of HTTP.
//!
//! ```text
//!            Input (bytes borrowed for one call)
//!   engine ───────────────────────────────────────▶ actor.handle(now, input)
//!          ◀─────────────────────────────────────── actor.poll_effect(), until None
//!            Effect (payloads lent until Sent)
//! ```
//!
//! # Rules that both sides keep
//! 1. `Received` bytes are borrowed for one call. After `Receive { on: false }` they may still
//!    come, bounded by what the kernel
//!    already handed over.
//! 2. `Send` lends its payload until [`Input::Sent`] gives it back. At most one `Send` a socket is
//!    in flight, and none
//!    while the outcome of a fan-out to that socket is unknown: two sends in one submission corrupt
//!    a stream when the first is short (measured).
//! 3. `Sent` reports how many bytes went out. Short only with an error: the engine continues short
//!    sends by itself.
//! 4. `Fanout` is silent on success. Its failures (short or refused) arrive as `SendFailed`
//!    **before the next `handle`** with any other input,
//!    and a socket that failed gets nothing more until the actor sends again.
//! 5. After `Close` the engine sends one `Closed` for the socket and nothing after it. Inputs for a
//!    socket whose `Close` is under way may
//!    still come and are ignored by the actor. The engine itself ends a socket only by telling so:
//!    `Eof`, `HungUp` or a failed `Sent`; the actor then closes it.
//! 6. A socket id is slot + generation; a slot is reused only after its `Closed` was handled.
//! 7. Mail is bounded. [`Effect::Mail`] to a full mailbox is kept by the sending engine and
//!    retried, in order, before that engine takes new input from
//!    sockets; mail is never dropped.
//! 8. `Deadline` comes at or after [`Actor::next_deadline`], never before; `Continue` once after
//!    each `Yield`, when other inputs have had a turn.

use std::{io, net::SocketAddr, ops::Range, path::PathBuf};

use bytes::Bytes;

use crate::compress::compress;

/// Monotonic time since an arbitrary start, in nanoseconds.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Mono(pub u64);

impl Mono {
    /// This much later; saturates at the end of time.
    pub const fn after_ms(self, ms: u64) -> Self {
        Self(self.0.saturating_add(ms.saturating_mul(1_000_000)))
    }

    /// Nanoseconds since `earlier`, 0 if it lies in the future.
    pub const fn since_ns(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

/// Both clocks, read once a batch of inputs.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Now {
    /// For deadlines and durations.
    pub mono: Mono,
    /// Wall clock, milliseconds since the Unix epoch; may step.
    pub wall_ms: u64,
}

/// A connection: index into the engine's table, and the generation of that slot.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct SocketId {
    /// Index, below the engine's maximum.
    pub slot: u32,
    /// Counts the uses of the slot; wraps.
    pub generation: u32,
}

/// Index of a listener in the engine's configuration.
pub type ListenerId = u16;
/// Index of a shard of this process, 0 first.
pub type ShardId = u16;
/// The actor's own name for an operation, returned with its result.
pub type OpId = u64;

/// What the engine tells an actor.
#[derive(Debug)]
pub enum Input<'a, M> {
    /// A new connection. Nothing is armed: the actor asks for `Receive` or `Watch`.
    Accepted {
        /// Its name from now on.
        socket: SocketId,
        /// Which listener.
        listener: ListenerId,
        /// The other side.
        peer: SocketAddr,
        /// Our side; where the listener is bound to a wildcard and the engine cannot ask (io_uring
        /// with direct descriptors), the listener's address.
        local: SocketAddr,
    },
    /// The outcome of [`Effect::Connect`].
    Connected {
        /// As in the effect.
        op: OpId,
        /// The new socket, nothing armed; or why not.
        result: Result<SocketId, io::ErrorKind>,
    },
    /// Bytes from the peer.
    Received {
        /// From whom.
        socket: SocketId,
        /// At least one.
        bytes: &'a [u8],
    },
    /// The peer will send no more; it may still read.
    Eof {
        /// Whose.
        socket: SocketId,
    },
    /// A watch for writability fired, once.
    Writable {
        /// Which.
        socket: SocketId,
    },
    /// The connection is gone: reset, timed out, or (while only watched) closed by the peer.
    HungUp {
        /// Which.
        socket: SocketId,
    },
    /// A send ended; its payload comes back for reuse.
    Sent {
        /// Which socket.
        socket: SocketId,
        /// Everything went out, or why not.
        result: Result<(), io::ErrorKind>,
        /// What was lent.
        payload: Payload,
    },
    /// One target of a fan-out did not take the whole frame.
    SendFailed {
        /// Which socket.
        socket: SocketId,
        /// Bytes of the frame that did go out, less than its length.
        sent_bytes: u32,
        /// `WouldBlock` for a full socket buffer; anything else is the end of the connection.
        error: io::ErrorKind,
    },
    /// The descriptor is gone and the slot free again.
    Closed {
        /// Which.
        socket: SocketId,
    },
    /// From a shard of this process, itself included.
    Mail {
        /// Who sent it.
        from: ShardId,
        /// What.
        mail: M,
    },
    /// The outcome of [`Effect::File`].
    File {
        /// As in the effect.
        op: OpId,
        /// What was read (empty for a write), or why not.
        result: io::Result<Vec<u8>>,
    },
    /// The outcome of [`Effect::Cold`].
    Cold {
        /// As in the effect.
        op: OpId,
        /// What came of it, or why nothing did.
        result: io::Result<Vec<u8>>,
    },
    /// The outcome of [`Effect::Resolve`].
    Resolved {
        /// As in the effect.
        op: OpId,
        /// At least one address, or why not.
        result: Result<Vec<SocketAddr>, io::ErrorKind>,
    },
    /// [`Actor::next_deadline`] has passed.
    Deadline,
    /// The turn after a [`Effect::Yield`].
    Continue,
    /// The process was asked to do something, by signal or by its supervisor.
    Control(Control),
}

/// What an operator asks of the whole process.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Control {
    /// Finish requests, move streams, stop (SIGTERM).
    Drain,
    /// Read configuration again (SIGHUP).
    Reload,
}

/// What an actor asks of its engine.
#[derive(Debug)]
pub enum Effect<M> {
    /// Open a connection. Ends with `Connected`.
    Connect {
        /// Returned with the result.
        op: OpId,
        /// Where to.
        to: SocketAddr,
        /// Which of our addresses to bind first, port 0 for any; `None` leaves it to the kernel.
        /// One address and port of a peer can be reached some 28,000 times from one source address,
        /// so a load generator spreads over several.
        from: Option<SocketAddr>,
    },
    /// Read from the socket, or stop. Idempotent.
    Receive {
        /// Which.
        socket: SocketId,
        /// Whether to.
        on: bool,
    },
    /// What to be told of a socket without reading from it. Replaces the former watch; `Watch` with
    /// both false disarms.
    Watch {
        /// Which.
        socket: SocketId,
        /// Tell of the peer's close or reset.
        hang_up: bool,
        /// Tell once when it can take bytes again.
        writable: bool,
    },
    /// Send all of it, in order. Ends with `Sent`.
    Send {
        /// Which socket.
        socket: SocketId,
        /// Lent until `Sent`.
        payload: Payload,
    },
    /// Send one frame to many sockets, without waiting for any.
    Fanout {
        /// The same bytes for all.
        frame: Bytes,
        /// Range in [`Actor::fanout_targets`].
        targets: Range<u32>,
    },
    /// End a connection. Ends with `Closed`.
    Close {
        /// Which.
        socket: SocketId,
        /// In which manner.
        how: Close,
    },
    /// To a shard of this process, itself included.
    Mail {
        /// To whom.
        to: ShardId,
        /// What.
        mail: M,
    },
    /// Work on the disk, done by a helper thread. Ends with `Input::File`.
    File {
        /// Returned with the result.
        op: OpId,
        /// What to do.
        work: FileWork,
    },
    /// Work that takes long, done by a helper thread. Ends with `Input::Cold`.
    Cold {
        /// Returned with the result.
        op: OpId,
        /// What to do.
        work: ColdWork,
    },
    /// Look a name up, done by a helper thread. Ends with `Input::Resolved`.
    Resolve {
        /// Returned with the result.
        op: OpId,
        /// Host name.
        name: String,
        /// Port of the addresses asked for.
        port: u16,
    },
    /// Take new connections from a listener, or leave them in its backlog. On at start.
    Accept {
        /// Which.
        listener: ListenerId,
        /// Whether to.
        on: bool,
    },
    /// Call again with `Continue` when other inputs have had a turn.
    Yield,
    /// Every shard that says so lets the process end; after it the engine still flushes sends under
    /// way.
    Stop,
}

/// How to end a connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Close {
    /// After what was sent has left (FIN), reading and discarding what still comes for a bounded
    /// time, so that a
    /// response is not lost to a reset.
    Graceful,
    /// After what was sent has left (FIN), without waiting for the peer: it has said that it sends
    /// nothing more, and all that it sent was received. What it sends all the same resets the
    /// connection.
    Finished,
    /// At once (RST).
    Abort,
}

/// Disk work. Writes are whole files, replaced atomically: written beside, synced, renamed, the
/// folder synced.
#[derive(Debug)]
pub enum FileWork {
    /// The whole file; `NotFound` if there is none. Files over `bytes_max` are an error.
    Read {
        /// Which file.
        path: PathBuf,
        /// Largest size accepted.
        bytes_max: u64,
    },
    /// Replace the file.
    Write {
        /// Which file; its folder is made if missing.
        path: PathBuf,
        /// New content.
        content: Vec<u8>,
    },
    /// Remove the file; a missing one is no error.
    Remove {
        /// Which file.
        path: PathBuf,
    },
}

/// Work that takes long and needs nothing but what it is given: the same for the same input,
/// wherever it is done ([`ColdWork::run`]).
#[derive(Debug)]
pub enum ColdWork {
    /// Encode these bytes.
    Compress {
        /// In which coding.
        coding: cache::Coding,
        /// How hard to try; within the coding's levels.
        level: u8,
        /// The pieces, in order.
        content: Vec<Bytes>,
    },
}

impl ColdWork {
    /// Does it, here and now.
    ///
    /// # Errors
    /// What the library at work says.
    pub fn run(self) -> io::Result<Vec<u8>> {
        match self {
            Self::Compress { coding, level, content } => compress(coding, level, &content),
        }
    }
}

/// Bytes to send. One piece is the hot case and allocates nothing here.
#[derive(Debug)]
pub enum Payload {
    /// A single piece.
    One(Segment),
    /// Several, sent in order as if one; at most [`crate::limits::SEGMENTS_MAX`].
    Many(Vec<Segment>),
}

impl Payload {
    /// The pieces.
    pub fn segments(&self) -> &[Segment] {
        match self {
            Self::One(segment) => std::slice::from_ref(segment),
            Self::Many(segments) => segments,
        }
    }

    /// Total length in bytes.
    pub fn len(&self) -> usize {
        self.segments().iter().map(|segment| segment.as_slice().len()).sum()
    }

    /// Whether there is nothing to send; such a payload must not be sent.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// One piece of a payload. Its bytes have a stable address as long as it lives, which is what makes
/// lending
/// them to the kernel sound.
#[derive(Debug)]
pub enum Segment {
    /// Constant text.
    Static(&'static [u8]),
    /// Shared. On a shard the handle is the shard's own (`Bytes::from_owner` over the shared
    /// entry), so its counter is
    /// never touched by another core.
    Local(Bytes),
    /// Made for this send; given back for reuse.
    Owned(Vec<u8>),
}

impl Segment {
    /// The bytes.
    pub fn as_slice(&self) -> &[u8] {
        match self {
            Self::Static(bytes) => bytes,
            Self::Local(bytes) => bytes,
            Self::Owned(bytes) => bytes,
        }
    }
}

/// A deterministic machine that an engine drives.
pub trait Actor {
    /// What actors of this kind say to each other.
    type Mail: Send + 'static;

    /// Takes one input. Never blocks, never fails; what goes wrong is state and effects.
    fn handle(&mut self, now: Now, input: Input<'_, Self::Mail>);

    /// The next effect, drained until `None` after each batch of inputs.
    fn poll_effect(&mut self) -> Option<Effect<Self::Mail>>;

    /// When to call with [`Input::Deadline`] at the latest.
    fn next_deadline(&self) -> Option<Mono>;

    /// The sockets that a [`Effect::Fanout`] names. Asked only while that effect is carried out,
    /// before the next `handle`.
    fn fanout_targets(&self, range: Range<u32>) -> &[SocketId];
}
