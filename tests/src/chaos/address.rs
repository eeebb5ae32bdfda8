//! The moving address: one address of the service, led to edges by what their `/readyz` says, as a
//! balancer or a router would lead it.
//!
//! Each edge is asked every [`ASK_MS`]; one that refuses or says no is out at once, one that does
//! not answer after [`ANSWER_MS`]. So detection takes at most the one after a kill, and both after
//! a partition. New connections are led to edges that are ready; those that are open stay where
//! they are, as behind any balancer that remembers its flows. Besides, the route that a connection
//! without a source address of its own takes (a browser's) moves to the first edge that is ready.
//! Leaves to others: routes by source address (`hosts`), who connects (`crowd`).
#![expect(clippy::disallowed_types, reason = "a prober owns its sockets")]
#![expect(clippy::disallowed_methods, reason = "real processes are asked in real time")]

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    thread::{self, Builder, JoinHandle},
    time::Duration,
};

/// Edges of one address, at most.
pub const EDGES_MAX: usize = 4;
/// How often an edge is asked.
pub const ASK_MS: u64 = 100;
/// How long its answer may take.
pub const ANSWER_MS: u64 = 1_000;

/// To which edges new connections are led.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Manner {
    /// All that are ready, in turn.
    Spread,
    /// One of them, as long as it is ready.
    One,
}

/// The address.
#[derive(Debug)]
pub struct MovingAddress {
    shared: Arc<Shared>,
    asking: Vec<JoinHandle<()>>,
}

/// Where new connections are led, for whoever makes them.
#[derive(Clone, Debug)]
pub struct Lead(Arc<Shared>);

struct Shared {
    manner: Manner,
    /// Bit by edge.
    ready: AtomicU32,
    /// Where the route of browsers leads, and where `Manner::One` does; `usize::MAX` at first.
    one: Mutex<usize>,
    route: Box<dyn Fn(usize) + Send + Sync>,
    ending: AtomicBool,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared").field("ready", &self.ready).finish_non_exhaustive()
    }
}

impl MovingAddress {
    /// Before edges with these admin listeners; `route` leads the route to one of them.
    pub fn start(
        admins: &[SocketAddr],
        manner: Manner,
        route: impl Fn(usize) + Send + Sync + 'static,
    ) -> Self {
        let shared = Arc::new(Shared {
            manner,
            ready: AtomicU32::new(0),
            one: Mutex::new(usize::MAX),
            route: Box::new(route),
            ending: AtomicBool::new(false),
        });
        let ask = |(at, &admin): (usize, &SocketAddr)| {
            let shared = Arc::clone(&shared);
            let body = move || {
                while !shared.ending.load(Ordering::Acquire) {
                    shared.set(at, is_ready(admin));
                    thread::sleep(Duration::from_millis(ASK_MS));
                }
            };
            Builder::new().name(format!("readyz {at}")).spawn(body).expect("a thread")
        };
        let asking = admins.iter().enumerate().map(ask).collect();
        Self { shared, asking }
    }

    /// For whoever connects.
    pub fn lead(&self) -> Lead {
        Lead(Arc::clone(&self.shared))
    }

    /// Whether this edge was ready when it was last asked.
    pub fn is_ready(&self, at: usize) -> bool {
        self.shared.ready.load(Ordering::Acquire) & 1 << at != 0
    }

    /// The edge that the route leads to, `None` while it leads nowhere.
    pub fn one(&self) -> Option<usize> {
        let one = *self.shared.one.lock().unwrap_or_else(PoisonError::into_inner);
        (one < EDGES_MAX).then_some(one)
    }
}

impl Drop for MovingAddress {
    fn drop(&mut self) {
        self.shared.ending.store(true, Ordering::Release);
        for asking in self.asking.drain(..) {
            let _ = asking.join();
        }
    }
}

impl Lead {
    /// Where connection number `turn` is led; `None` when no edge is ready.
    pub fn to(&self, turn: u64) -> Option<usize> {
        let ready = self.0.ready.load(Ordering::Acquire);
        match self.0.manner {
            Manner::One => {
                let one = *self.0.one.lock().unwrap_or_else(PoisonError::into_inner);
                (one < EDGES_MAX && ready & 1 << one != 0).then_some(one)
            }
            Manner::Spread => {
                let count = u64::from(ready.count_ones());
                let nth = turn.checked_rem(count)?;
                (0..EDGES_MAX).filter(|at| ready & 1 << at != 0).nth(nth as usize)
            }
        }
    }
}

impl Shared {
    fn set(&self, at: usize, is_ready: bool) {
        let mut one = self.one.lock().unwrap_or_else(PoisonError::into_inner);
        let bit = 1 << at;
        let ready = match is_ready {
            true => self.ready.fetch_or(bit, Ordering::AcqRel) | bit,
            false => self.ready.fetch_and(!bit, Ordering::AcqRel) & !bit,
        };
        if *one >= EDGES_MAX || ready & 1 << *one == 0 {
            // With nobody ready the route stays: there is nowhere better to lead it.
            if let Some(next) = (0..EDGES_MAX).find(|at| ready & 1 << at != 0) {
                *one = next;
                (self.route)(next);
            }
        }
    }
}

/// Asks once.
fn is_ready(admin: SocketAddr) -> bool {
    status(admin, &admin.to_string(), "/readyz") == Some(200)
}

/// The status of an answer to `GET`, whatever follows it; `None` when none comes in time.
pub fn status(at: SocketAddr, host: &str, target: &str) -> Option<u16> {
    let patience = Duration::from_millis(ANSWER_MS);
    let mut socket = TcpStream::connect_timeout(&at, patience).ok()?;
    socket.set_read_timeout(Some(patience)).ok()?;
    let request = format!("GET {target} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
    socket.write_all(request.as_bytes()).ok()?;
    let mut line = [0; 12];
    socket.read_exact(&mut line).ok()?;
    std::str::from_utf8(&line).ok()?.strip_prefix("HTTP/1.1 ")?.parse().ok()
}
