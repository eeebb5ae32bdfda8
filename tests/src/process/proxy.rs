//! The way between an edge and control, made worse: a feed that comes late, pages that are held
//! back, connections that are cut.
//!
//! ```text
//!   edge ──connects──▶ proxy ──connects──▶ control      what the edge says: at once
//!                        │  feed  ─▶ after the delay
//!                        │  pages ─▶ while held, not before the release
//!                        └  other ─▶ at once
//! ```
//! A connection is what its first request line says for all of its life. Each has two threads; the
//! bytes of a delayed feed wait in a bounded queue. Leaves to others: when to hold and cut (the
//! tests). It knows no more of HTTP than that one line.
#![expect(clippy::disallowed_types, reason = "a proxy owns its sockets")]
#![expect(clippy::disallowed_methods, reason = "a delay on real sockets is in real time")]

use std::{
    io::{Read, Write},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc, Condvar, Mutex, MutexGuard,
        mpsc::{Receiver, SyncSender, sync_channel},
    },
    thread::{self, Builder, JoinHandle},
    time::{Duration, Instant},
};

/// What a connection carries.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Carries {
    /// `GET /v1/feed`.
    Feed,
    /// `GET /pages/…`.
    Pages,
    /// Anything else, such as reports of positions.
    Other,
}

/// A listening proxy; ends with this value.
#[derive(Debug)]
pub struct Proxy {
    /// Where the edge connects.
    pub address: SocketAddr,
    shared: Arc<Shared>,
    accepting: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    to: SocketAddr,
    feed_delay: Duration,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    holding: bool,
    /// Page connections with bytes that wait for the release.
    held: usize,
    ending: bool,
    next: u64,
    open: Vec<Open>,
}

#[derive(Debug)]
struct Open {
    number: u64,
    carries: Carries,
    sockets: [TcpStream; 2],
}

impl Proxy {
    /// Forwards to `to`; what comes from there on feeds is `feed_delay` late.
    pub fn start(to: SocketAddr, feed_delay: Duration) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("bound");
        let (state, changed) = (Mutex::default(), Condvar::new());
        let shared = Arc::new(Shared { to, feed_delay, state, changed });
        let of_thread = Arc::clone(&shared);
        let accepting = named("proxy", move || accept(&listener, &of_thread));
        Self { address, shared, accepting: Some(accepting) }
    }

    /// Bytes of pages wait from now on.
    pub fn hold_pages(&self) {
        self.shared.state().holding = true;
    }

    /// They go on, and later ones do not wait.
    pub fn release_pages(&self) {
        self.shared.state().holding = false;
        self.shared.changed.notify_all();
    }

    /// Page connections whose bytes wait.
    pub fn held(&self) -> usize {
        self.shared.state().held
    }

    /// Ends all connections of a kind; what they still carry is lost.
    pub fn cut(&self, carries: Carries) {
        self.shared.state().cut(|open| open.carries == carries);
        self.shared.changed.notify_all();
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        {
            let mut state = self.shared.state();
            state.ending = true;
            state.cut(|_| true);
        }
        self.shared.changed.notify_all();
        // Wakes the thread that accepts.
        let _ = TcpStream::connect(self.address);
        if let Some(accepting) = self.accepting.take() {
            let _ = accepting.join();
        }
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no thread of a proxy panics")
    }

    /// Enters a connection; `None` when the proxy is ending.
    fn open(&self, carries: Carries, edge: &TcpStream, control: &TcpStream) -> Option<u64> {
        let sockets = [edge.try_clone().ok()?, control.try_clone().ok()?];
        let mut state = self.state();
        if state.ending {
            return None;
        }
        state.next += 1;
        let number = state.next;
        state.open.push(Open { number, carries, sockets });
        Some(number)
    }

    /// Waits while pages are held; whether the connection is still there then.
    fn pass(&self, number: u64) -> bool {
        let mut state = self.state();
        if state.holding {
            state.held += 1;
            while state.holding && state.has(number) {
                state = self.changed.wait(state).expect("no thread of a proxy panics");
            }
            state.held -= 1;
        }
        state.has(number)
    }
}

impl State {
    fn has(&self, number: u64) -> bool {
        self.open.iter().any(|open| open.number == number)
    }

    fn cut(&mut self, which: impl Fn(&Open) -> bool) {
        for open in self.open.extract_if(.., |open| which(open)) {
            for socket in &open.sockets {
                let _ = socket.shutdown(Shutdown::Both);
            }
        }
    }
}

fn accept(listener: &TcpListener, shared: &Arc<Shared>) {
    let mut connections: Vec<JoinHandle<()>> = Vec::new();
    for edge in listener.incoming() {
        if shared.state().ending {
            break;
        }
        connections.retain(|connection| !connection.is_finished());
        if let Ok(edge) = edge {
            let shared = Arc::clone(shared);
            connections.push(named("proxy connection", move || {
                let _ = carry(edge, &shared);
            }));
        }
    }
    for connection in connections {
        let _ = connection.join();
    }
}

/// The life of a connection; `None` when it ended before it was one.
fn carry(mut edge: TcpStream, shared: &Arc<Shared>) -> Option<()> {
    // An edge that connects ahead of need says nothing yet: bounded by the proxy's own end.
    let waiting = shared.open(Carries::Other, &edge, &edge)?;
    let first = first_line(&mut edge);
    shared.state().open.retain(|open| open.number != waiting);
    let first = first?;
    let mut control = TcpStream::connect(shared.to).ok()?;
    edge.set_nodelay(true).ok()?;
    control.set_nodelay(true).ok()?;
    let carries = match &first {
        line if line.starts_with(b"GET /v1/feed") => Carries::Feed,
        line if line.starts_with(b"GET /pages/") => Carries::Pages,
        _ => Carries::Other,
    };
    let number = shared.open(carries, &edge, &control)?;
    let (back_from, back_to) = (control.try_clone().ok()?, edge.try_clone().ok()?);
    let of_thread = Arc::clone(shared);
    let back = named("proxy answers", move || match carries {
        Carries::Feed => late(back_from, back_to, of_thread.feed_delay),
        Carries::Pages => copy(back_from, back_to, || of_thread.pass(number)),
        Carries::Other => copy(back_from, back_to, || true),
    });
    if control.write_all(&first).is_ok() {
        copy(edge, control, || true);
    }
    let _ = back.join();
    shared.state().cut(|open| open.number == number);
    shared.changed.notify_all();
    Some(())
}

/// What was read up to and with the first line; `None` when none came.
fn first_line(edge: &mut TcpStream) -> Option<Vec<u8>> {
    let (mut first, mut buffer) = (Vec::new(), [0; FIRST_BYTES]);
    while !first.contains(&b'\n') && first.len() < FIRST_BYTES {
        match edge.read(&mut buffer) {
            Ok(0) | Err(_) => return None,
            Ok(count) => first.extend_from_slice(&buffer[..count]),
        }
    }
    Some(first)
}

/// Forwards until either end is gone or `may_go` says no; then ends both, as TCP's own end would.
fn copy(mut from: TcpStream, mut to: TcpStream, may_go: impl Fn() -> bool) {
    let mut buffer = vec![0; COPY_BYTES];
    while let Ok(count) = from.read(&mut buffer) {
        if count == 0 || !may_go() || to.write_all(&buffer[..count]).is_err() {
            break;
        }
    }
    let _ = to.shutdown(Shutdown::Write);
    let _ = from.shutdown(Shutdown::Read);
}

/// The same, each piece and the end itself `delay` after it came.
fn late(mut from: TcpStream, to: TcpStream, delay: Duration) {
    let (enter, leave) = sync_channel(LATE_PIECES_MAX);
    let writing = named("proxy delay", move || write_late(&leave, to));
    let mut buffer = vec![0; COPY_BYTES];
    while let Ok(count) = from.read(&mut buffer) {
        if !hand_over(&enter, delay, &buffer[..count]) || count == 0 {
            break;
        }
    }
    drop(enter);
    let _ = writing.join();
    let _ = from.shutdown(Shutdown::Both);
}

fn hand_over(enter: &SyncSender<(Instant, Vec<u8>)>, delay: Duration, piece: &[u8]) -> bool {
    enter.send((Instant::now() + delay, piece.to_vec())).is_ok()
}

fn write_late(leave: &Receiver<(Instant, Vec<u8>)>, mut to: TcpStream) {
    for (at, piece) in leave {
        thread::sleep(at.saturating_duration_since(Instant::now()));
        if piece.is_empty() || to.write_all(&piece).is_err() {
            break;
        }
    }
    let _ = to.shutdown(Shutdown::Both);
}

fn named(name: &str, body: impl FnOnce() + Send + 'static) -> JoinHandle<()> {
    Builder::new().name(name.into()).spawn(body).expect("a thread")
}

/// A request line of an edge is far shorter.
const FIRST_BYTES: usize = 4096;
const COPY_BYTES: usize = 64 * 1024;
/// Pieces under way on a delayed feed; beyond, reading waits.
const LATE_PIECES_MAX: usize = 16 * 1024;
