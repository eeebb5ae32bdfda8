//! Engines: the only code of the edge that touches the kernel, and the only `unsafe`.
//!
//! An engine is a thread that owns descriptors and memory lent to the kernel, and drives one
//! [`Actor`]. Two of them live here, io_uring ([`uring`]) and epoll ([`epoll`]), with the same
//! behaviour; which one a process takes is decided once, by [`probe`]. A third, simulated, is in
//! `tests`.
//!
//! ```text
//!   start(config, make_actor)
//!     │ raise RLIMIT_NOFILE · probe · bind every listener once a shard (SO_REUSEPORT)
//!     ├── shard 0: thread, core, ring or epoll, listeners, actor ◀─mail─┐  bounded queue
//!     ├── shard 1: …                                              ◀─────┤  + eventfd
//!     └── helpers: disk (1), names (4) ── results ──────────────────────┘
//! ```
//!
//! A turn of a shard: mail, results of helpers, control, deadline, continue; then what sockets have
//! to say; then all effects; then sleep, unless something is left to do. [`turn`] holds what both
//! engines share.
//!
//! Leaves to others: signals (the binary calls [`Running::control`]), and everything that bytes
//! mean.

mod affinity;
mod allocator;
mod clock;
mod cold;
mod data_lock;
mod epoll;
mod journal;
mod listen;
mod mailbox;
mod probe;
mod room;
mod socket;
mod start;
mod stats;
mod table;
mod turn;
mod uring;

use std::{fmt, io, net::SocketAddr, sync::Arc, thread::JoinHandle};

use self::turn::Line;
pub use self::{
    affinity::allowed_cores,
    allocator::settle_allocator,
    clock::Clock,
    data_lock::{DataLock, Refused},
    journal::{Journal, Target},
    probe::probe,
    room::share_of,
    socket::raise_descriptor_limit,
    stats::Stats,
};
use crate::seam::{Actor, Control, Now, ShardId};

/// Which engine to take.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum EngineChoice {
    /// io_uring where the kernel lets us, epoll elsewhere; never an error.
    #[default]
    Auto,
    /// io_uring or an error that names the cause and the remedy.
    IoUring,
    /// epoll, which every Linux has.
    Epoll,
}

/// What the sockets of io_uring are.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Descriptors {
    /// Direct ones, in the ring's own table, where the kernel can (Linux 6.8): they count toward no
    /// limit of descriptors.
    #[default]
    Auto,
    /// Descriptors of the process, as on older kernels. For tests of that level.
    Plain,
}

/// What was taken.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum EngineKind {
    /// One ring a shard.
    IoUring,
    /// One epoll instance a shard.
    Epoll,
}

/// Which engine drives the shards, and the reason in words for people.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Taken {
    /// The engine.
    pub kind: EngineKind,
    /// E.g. `io_uring (6.8: single issuer, deferred task work, no SQ array)`, or why it was not
    /// io_uring.
    pub why: String,
}

/// On which core each shard's thread runs.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub enum Pin {
    /// Shard `i` on the `i`-th core that this process may use, from the first again when there are
    /// more shards.
    #[default]
    Auto,
    /// Where the scheduler puts it.
    None,
    /// Shard `i` on the `i`-th of these, from the first again when there are more shards.
    Cores(Vec<usize>),
}

/// How to start.
#[derive(Clone, Debug)]
pub struct Config {
    /// Which engine.
    pub engine: EngineChoice,
    /// What io_uring's sockets are.
    pub descriptors: Descriptors,
    /// Threads; 0 means one for each core that this process may use, or more where
    /// `connections` demands it.
    pub shards: ShardId,
    /// Accepted connections that all shards together shall have room for. Where a ring's table is
    /// too small for its share (it may not exceed RLIMIT_NOFILE), `shards: 0` means as many as it
    /// takes. 0 means as many as there happens to be room for.
    pub connections: u32,
    /// Addresses to listen on, each by every shard. Its index is the [`crate::seam::ListenerId`].
    /// Port 0 takes a free port, the same for all shards.
    pub listeners: Vec<SocketAddr>,
    /// Further addresses, listened on by shard 0 alone; numbered behind the others.
    pub first_listeners: Vec<SocketAddr>,
    /// Sockets of one shard, at most; 0 derives it from RLIMIT_NOFILE: with direct descriptors each
    /// shard may have as many, otherwise all share them. More than the limit allows is an error.
    pub sockets_max: u32,
    /// Cores.
    pub pin: Pin,
    /// Mails that wait in one shard's mailbox, at most.
    pub mail_max: usize,
}

/// What an actor is told when it is made, on its own thread.
#[derive(Clone, Debug)]
pub struct Seat {
    /// Which shard it is.
    pub shard: ShardId,
    /// Of how many.
    pub shards: ShardId,
    /// Addresses actually bound, in the order of [`Config::listeners`], then
    /// [`Config::first_listeners`].
    pub listeners: Vec<SocketAddr>,
    /// Sockets of this shard, at most.
    pub sockets_max: u32,
    /// The time.
    pub now: Now,
    /// Which engine and why.
    pub taken: Taken,
}

/// Why nothing was started.
#[derive(Debug)]
pub enum StartError {
    /// An address could not be listened on.
    Listen {
        /// Which.
        addr: SocketAddr,
        /// `AddrInUse` when another process, or a listener of ours, has it.
        source: io::Error,
    },
    /// io_uring was asked for by name and cannot be had.
    Unavailable {
        /// What the kernel said and what to do.
        why: String,
    },
    /// [`Config::sockets_max`] needs more descriptors than the process may open.
    Descriptors {
        /// As configured, a shard.
        sockets_max: u32,
        /// What the limit allows a shard.
        allowed: u32,
    },
    /// [`Config::pin`] is an empty list of cores.
    NoCores,
    /// Something that all shards share could not be had.
    Process {
        /// Doing what.
        action: &'static str,
        /// Why not.
        source: io::Error,
    },
    /// A shard's thread, ring or epoll instance could not be made.
    Shard {
        /// Which.
        shard: ShardId,
        /// Doing what.
        action: &'static str,
        /// Why not.
        source: io::Error,
    },
}

/// A shard's thread ended by a panic: a programmer error. The other shards were told to end too.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ShardDied {
    /// Which.
    pub shard: ShardId,
    /// What it said.
    pub message: String,
}

/// Shards that run. Dropping it leaves them running; [`Running::join`] waits for their end.
#[derive(Debug)]
pub struct Running {
    taken: Taken,
    listeners: Vec<SocketAddr>,
    sockets_max: u32,
    lines: Arc<[Line]>,
    threads: Vec<JoinHandle<Result<(), String>>>,
}

/// Tells all shards of a process, from any thread.
#[derive(Clone, Debug)]
pub struct Controls {
    lines: Arc<[Line]>,
}

/// Raises RLIMIT_NOFILE to its hard limit, takes an engine, binds all listeners, starts the
/// threads, and returns when all of them are ready. `make_actor` is called once a shard, on the
/// shard's own thread, so an actor need not be `Send`; it may have effects ready at once, which are
/// carried out before any input.
///
/// # Errors
/// [`StartError`], each naming what could not be had; then nothing runs and nothing listens.
pub fn start<A, F>(config: Config, make_actor: F) -> Result<Running, StartError>
where
    A: Actor,
    F: Fn(&Seat) -> A + Send + Sync + 'static,
{
    start::start(config, make_actor)
}

impl Running {
    /// Which engine was taken, and why.
    pub fn taken(&self) -> &Taken {
        &self.taken
    }

    /// Addresses actually bound, in the order of [`Config::listeners`], then
    /// [`Config::first_listeners`].
    pub fn listeners(&self) -> &[SocketAddr] {
        &self.listeners
    }

    /// How many shards run.
    pub fn shards(&self) -> ShardId {
        ShardId::try_from(self.lines.len()).unwrap_or(ShardId::MAX)
    }

    /// Sockets of one shard, at most.
    pub fn sockets_max(&self) -> u32 {
        self.sockets_max
    }

    /// What each shard's engine has counted so far.
    pub fn stats(&self) -> Vec<Stats> {
        self.controls().stats()
    }

    /// Tells every shard; see [`Controls::control`].
    pub fn control(&self, control: Control) {
        self.controls().control(control);
    }

    /// A handle for other threads.
    pub fn controls(&self) -> Controls {
        Controls { lines: self.lines.clone() }
    }

    /// Waits until every shard has stopped (each actor gave [`crate::seam::Effect::Stop`]).
    ///
    /// # Errors
    /// [`ShardDied`] if a shard's thread panicked; the others were told to end.
    pub fn join(self) -> Result<(), ShardDied> {
        let mut outcome = Ok(());
        for (shard, thread) in (0..).zip(self.threads) {
            let ended = thread.join().unwrap_or_else(|_| Err("panicked while it ended".into()));
            if let Err(message) = ended {
                outcome = outcome.and(Err(ShardDied { shard, message }));
            }
        }
        outcome
    }
}

impl Controls {
    /// Tells every shard. The same request twice before a shard saw it counts once.
    pub fn control(&self, control: Control) {
        self.lines.iter().for_each(|line| line.control(control));
    }

    /// What each shard's engine has counted so far.
    pub fn stats(&self) -> Vec<Stats> {
        self.lines.iter().map(|line| line.counters.read()).collect()
    }
}

impl Config {
    /// The defaults, with these listeners.
    pub fn new(listeners: Vec<SocketAddr>) -> Self {
        Self {
            engine: EngineChoice::Auto,
            descriptors: Descriptors::Auto,
            shards: 0,
            connections: 0,
            listeners,
            first_listeners: Vec::new(),
            sockets_max: 0,
            pin: Pin::Auto,
            mail_max: crate::limits::MAIL_MAX,
        }
    }
}

/// `io_uring (single issuer …)`.
impl fmt::Display for Taken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self.kind {
            EngineKind::IoUring => "io_uring",
            EngineKind::Epoll => "epoll",
        };
        write!(f, "{kind} ({})", self.why)
    }
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Listen { addr, .. } => write!(f, "cannot listen on {addr}"),
            Self::Unavailable { why } => write!(f, "io_uring is not available: {why}"),
            Self::Descriptors { sockets_max, allowed } => write!(
                f,
                "sockets_max = {sockets_max} a shard needs more descriptors than RLIMIT_NOFILE \
                 allows ({allowed} a shard); raise the limit (LimitNOFILE= in the unit) or lower \
                 sockets_max"
            ),
            Self::NoCores => write!(f, "the list of cores to pin shards to is empty"),
            Self::Process { action, .. } => write!(f, "cannot {action}"),
            Self::Shard { shard, action, .. } => write!(f, "cannot {action} for shard {shard}"),
        }
    }
}

impl std::error::Error for StartError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Listen { source, .. }
            | Self::Process { source, .. }
            | Self::Shard { source, .. } => Some(source),
            Self::Unavailable { .. } | Self::Descriptors { .. } | Self::NoCores => None,
        }
    }
}

impl fmt::Display for ShardDied {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "shard {} ended by a panic: {}", self.shard, self.message)
    }
}

impl std::error::Error for ShardDied {}
