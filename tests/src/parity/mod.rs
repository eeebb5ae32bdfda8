//! One body of tests for every engine, real or simulated: the same actor, the same cases, the same
//! expectations, over whatever a [`Harness`] drives.
//!
//! [`actor`] does what clients ask of it and notes what its engine tells it; [`cases`] are clients.

pub mod actor;
pub mod cases;
pub mod simulated;

use std::sync::{Arc, Mutex, PoisonError};

use dataplane::seam::Control;

pub use self::actor::{Note, ParityActor};

/// What a case needs of its shards.
#[derive(Clone, Copy, Debug)]
pub struct Setup {
    /// How many.
    pub shards: u16,
    /// Sockets a shard, at most; 0 for as many as there may be.
    pub sockets_max: u32,
    /// Mails a mailbox, at most.
    pub mail_max: usize,
}

impl Default for Setup {
    fn default() -> Self {
        Self { shards: 1, sockets_max: 0, mail_max: 64 }
    }
}

/// What all shards of a case noted, in order.
#[derive(Clone, Debug, Default)]
pub struct Journal(Arc<Mutex<Vec<Note>>>);

impl Journal {
    /// Adds a note.
    pub fn note(&self, note: Note) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(note);
    }

    /// All notes so far.
    pub fn notes(&self) -> Vec<Note> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// How many notes are so.
    pub fn count(&self, is: impl Fn(&Note) -> bool) -> usize {
        self.notes().iter().filter(|note| is(note)).count()
    }
}

/// How a connection ended, as its client saw it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum End {
    /// FIN.
    Eof,
    /// RST.
    Reset,
}

/// An engine with shards of [`ParityActor`]s behind one listener, and clients on its other side.
///
/// Calls wait for what they need, for a bounded time, and panic when it does not come.
pub trait Harness: Sized {
    /// The client's end of a connection.
    type Client;
    /// A listener of the test, for the actor to connect to.
    type Upstream;

    /// Starts the shards.
    fn start(setup: Setup, journal: &Journal) -> Self;
    /// Opens a connection. It may be waiting in the backlog when this returns.
    fn connect(&mut self) -> Self::Client;
    /// Sends all of it.
    fn send(&mut self, client: &mut Self::Client, bytes: &[u8]);
    /// Receives so many bytes, or fewer if the stream ends before.
    fn receive(&mut self, client: &mut Self::Client, count: usize) -> Vec<u8>;
    /// Sends all of it while receiving so many bytes.
    fn exchange(&mut self, client: &mut Self::Client, bytes: &[u8], count: usize) -> Vec<u8>;
    /// Waits for the end of the stream, with nothing more before it than these bytes.
    fn end(&mut self, client: &mut Self::Client, before: &[u8]) -> End;
    /// Sends FIN and can still receive.
    fn half_close(&mut self, client: &mut Self::Client);
    /// Sends FIN and forgets the connection.
    fn close(&mut self, client: Self::Client);
    /// Sends RST.
    fn reset(&mut self, client: Self::Client);
    /// Opens a listener of the test's own.
    fn upstream(&mut self) -> (Self::Upstream, std::net::SocketAddr);
    /// Accepts one connection there.
    fn accept(&mut self, upstream: &mut Self::Upstream) -> Self::Client;
    /// Lets everything go on until the condition holds.
    fn until(&mut self, what: &str, condition: impl Fn() -> bool);
    /// Lets everything go on for so long, virtual or real.
    fn advance(&mut self, ms: u64);
    /// As an operator.
    fn control(&mut self, control: Control);
    /// Waits until all shards have ended.
    fn join(self);
}
