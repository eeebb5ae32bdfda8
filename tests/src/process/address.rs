//! One address before several edges, that moves with their readiness: each new connection is led to
//! the next edge in turn that says it is ready, and stays there for its life.
//!
//! Bytes are carried as they are. Leaves to others: what makes an edge ready or not (the tests).
#![expect(clippy::disallowed_types, reason = "a balancer owns its sockets")]

use std::{
    io::{Read, Write},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread::{Builder, JoinHandle},
};

use super::node::get;

/// An edge: where visitors connect, and its admin listener.
pub type Place = (SocketAddr, SocketAddr);

/// The address; ends with this value.
#[derive(Debug)]
pub struct MovingAddress {
    /// Where visitors connect.
    pub address: SocketAddr,
    shared: Arc<Shared>,
    accepting: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Shared {
    ending: AtomicBool,
    open: Mutex<Vec<TcpStream>>,
}

impl MovingAddress {
    /// Before these edges.
    pub fn start(edges: Vec<Place>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("bound");
        let shared = Arc::<Shared>::default();
        let of_thread = Arc::clone(&shared);
        let accepting = named("address", move || accept(&listener, &edges, &of_thread));
        Self { address, shared, accepting: Some(accepting) }
    }
}

impl Drop for MovingAddress {
    fn drop(&mut self) {
        self.shared.ending.store(true, Ordering::SeqCst);
        self.shared.cut();
        // Wakes the thread that accepts.
        let _ = TcpStream::connect(self.address);
        if let Some(accepting) = self.accepting.take() {
            let _ = accepting.join();
        }
    }
}

impl Shared {
    /// Enters both sockets of a connection; `None` when the address is ending.
    fn enter(&self, sockets: [&TcpStream; 2]) -> Option<()> {
        let mut open = self.open.lock().expect("no thread of an address panics");
        for socket in sockets {
            open.push(socket.try_clone().ok()?);
        }
        (!self.ending.load(Ordering::SeqCst)).then_some(())
    }

    fn cut(&self) {
        for socket in self.open.lock().expect("no thread of an address panics").drain(..) {
            let _ = socket.shutdown(Shutdown::Both);
        }
    }
}

fn accept(listener: &TcpListener, edges: &[Place], shared: &Arc<Shared>) {
    let mut connections: Vec<JoinHandle<()>> = Vec::new();
    for (turn, visitor) in listener.incoming().enumerate() {
        if shared.ending.load(Ordering::SeqCst) {
            break;
        }
        let Ok(visitor) = visitor else { continue };
        let mut in_turn = edges.iter().cycle().skip(turn % edges.len()).take(edges.len());
        let is_ready = |admin| get(admin, "/readyz").is_ok_and(|reply| reply.status == 200);
        // Nobody is ready: the connection ends, as it would where no route leads anywhere.
        let Some(&(edge, _)) = in_turn.find(|(_, admin)| is_ready(*admin)) else { continue };
        let shared = Arc::clone(shared);
        connections.push(named("address connection", move || {
            let _ = carry(&visitor, edge, &shared);
        }));
    }
    shared.cut();
    for connection in connections {
        let _ = connection.join();
    }
}

fn carry(visitor: &TcpStream, edge: SocketAddr, shared: &Shared) -> Option<()> {
    let edge = TcpStream::connect(edge).ok()?;
    shared.enter([visitor, &edge])?;
    visitor.set_nodelay(true).ok()?;
    edge.set_nodelay(true).ok()?;
    let (back_from, back_to) = (edge.try_clone().ok()?, visitor.try_clone().ok()?);
    let back = named("address answers", move || copy(&back_from, &back_to));
    copy(visitor, &edge);
    let _ = back.join();
    Some(())
}

/// Forwards until the end, and tells it on.
fn copy(mut from: &TcpStream, mut to: &TcpStream) {
    let mut buffer = vec![0; COPY_BYTES];
    while let Ok(count) = from.read(&mut buffer) {
        if count == 0 || to.write_all(&buffer[..count]).is_err() {
            break;
        }
    }
    let _ = to.shutdown(Shutdown::Write);
}

fn named(name: &str, body: impl FnOnce() + Send + 'static) -> JoinHandle<()> {
    Builder::new().name(name.into()).spawn(body).expect("a thread")
}

const COPY_BYTES: usize = 64 * 1024;
