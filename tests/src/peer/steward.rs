//! Who leads visitors to edges, and the operator of those edges: asks each edge's `/readyz` again
//! and again, as a balancer does, and sends the operator's words to its admin listener.
//!
//! An edge is one to lead to once it says that it is ready, and none once it says that it is not or
//! says nothing in time.

use std::{
    any::Any,
    cell::RefCell,
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    rc::Rc,
};

use dataplane::seam::Now;

use crate::{
    check::ledger::Ledger,
    client::http,
    sim::{
        net::{End, Net, Notice},
        world::Peer,
    },
};

/// The edges that visitors are led to, by number.
pub type Ready = Rc<RefCell<Vec<usize>>>;

/// What a connection is for.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Purpose {
    Look,
    Word(&'static str),
}

#[derive(Debug)]
struct Asking {
    edge: usize,
    purpose: Purpose,
    reader: http::Reader,
    give_up_ns: u64,
}

/// The balancer and the operator.
pub struct Steward {
    host: usize,
    address: IpAddr,
    edges: Vec<SocketAddr>,
    ready: Ready,
    ledger: Rc<RefCell<Ledger>>,
    asking: BTreeMap<End, Asking>,
    next_look_ns: u64,
}

/// Between two looks at an edge.
const LOOK_MS: u64 = 500;
/// An edge that says nothing for so long is not led to.
const PATIENCE_MS: u64 = 1_000;
/// From an edge's end until nobody is led to it any more, whatever it says.
pub const DETECTION_MS: u64 = LOOK_MS + PATIENCE_MS;

impl Steward {
    /// Before these admin listeners.
    pub fn new(
        (host, address): (usize, IpAddr),
        edges: Vec<SocketAddr>,
        ready: Ready,
        ledger: Rc<RefCell<Ledger>>,
    ) -> Self {
        Self { host, address, edges, ready, ledger, asking: BTreeMap::new(), next_look_ns: 1 }
    }

    /// `POST` drains an edge, `DELETE` undoes it.
    pub fn say(&mut self, now: Now, net: &mut Net, edge: usize, method: &'static str) {
        self.ask(now, net, edge, Purpose::Word(method));
    }

    fn ask(&mut self, now: Now, net: &mut Net, edge: usize, purpose: Purpose) {
        let end = net.connect(now.mono.0, self.host, self.address, self.edges[edge]);
        let mut reader = http::Reader::default();
        reader.expect(false);
        let give_up_ns = now.mono.after_ms(PATIENCE_MS).0;
        self.asking.insert(end, Asking { edge, purpose, reader, give_up_ns });
    }

    fn lead(&mut self, edge: usize, is_ready: bool) {
        let mut ready = self.ready.borrow_mut();
        ready.retain(|known| *known != edge);
        if is_ready {
            ready.push(edge);
            ready.sort_unstable();
        }
    }

    fn connected(&self, now: Now, net: &mut Net, end: End) {
        let Some(asking) = self.asking.get(&end) else { return };
        let (method, path) = match asking.purpose {
            Purpose::Look => ("GET", "/readyz"),
            Purpose::Word(method) => (method, "/v1/drain"),
        };
        let host = self.edges[asking.edge];
        let text = format!("{method} {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
        net.write(now.mono.0, end, text.as_bytes());
    }

    fn read(&mut self, now: Now, net: &mut Net, end: End) {
        let waiting = net.readable(end);
        let bytes = net.read(now.mono.0, end, waiting);
        let Some(asking) = self.asking.get_mut(&end) else { return };
        let replies = asking.reader.receive(&bytes);
        let status = match replies.as_deref() {
            Ok([]) if !net.is_eof(end) => return,
            Ok([reply, ..]) => Some(reply.status),
            Ok([]) => None,
            Err(error) => {
                let what = format!("an answer to the operator cannot be read: {error}");
                self.ledger.borrow_mut().violation(now.mono.0, what);
                None
            }
        };
        self.over(now, net, end, status);
    }

    /// An answer, or the end of waiting for one.
    fn over(&mut self, now: Now, net: &mut Net, end: End, status: Option<u16>) {
        let Some(asking) = self.asking.remove(&end) else { return };
        net.close(now.mono.0, end, false);
        match (asking.purpose, status) {
            (Purpose::Look, status) => self.lead(asking.edge, status == Some(200)),
            // The process was ending, or had ended.
            (Purpose::Word(_), None | Some(202)) => {}
            (Purpose::Word(method), Some(status)) => {
                let what = format!("{method} /v1/drain was answered {status}");
                self.ledger.borrow_mut().violation(now.mono.0, what);
            }
        }
    }
}

impl Peer for Steward {
    fn notice(&mut self, now: Now, net: &mut Net, notice: Notice) {
        match notice {
            Notice::Connected(end) => self.connected(now, net, end),
            Notice::Readable(end) => self.read(now, net, end),
            Notice::Refused(end) | Notice::Reset(end) => self.over(now, net, end, None),
            Notice::Writable(_) | Notice::Arrived(..) => {}
        }
    }

    fn tick(&mut self, now: Now, net: &mut Net) {
        let late = self.asking.iter().filter(|(_, asking)| asking.give_up_ns <= now.mono.0);
        for end in late.map(|(end, _)| *end).collect::<Vec<_>>() {
            self.over(now, net, end, None);
        }
        if self.next_look_ns <= now.mono.0 {
            self.next_look_ns = now.mono.after_ms(LOOK_MS).0;
            for edge in 0..self.edges.len() {
                let mut asking = self.asking.values();
                let looks = asking.any(|it| it.edge == edge && it.purpose == Purpose::Look);
                if !looks {
                    self.ask(now, net, edge, Purpose::Look);
                }
            }
        }
    }

    fn next_deadline_ns(&self) -> Option<u64> {
        let late = self.asking.values().map(|asking| asking.give_up_ns);
        late.chain([self.next_look_ns]).min()
    }

    fn as_any(&mut self) -> &mut dyn Any {
        self
    }
}
