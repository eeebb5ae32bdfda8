//! The parity suite's harness over the simulated engine: the same cases, in virtual time.

use std::{
    cell::Cell,
    collections::BTreeSet,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    rc::Rc,
};

use dataplane::seam::{Control, Now};

use super::{End, Harness, Journal, ParityActor, Setup};
use crate::sim::{
    engine::Options,
    net::{self, HostId, Net, Notice},
    world::{Peer, World},
};

/// Longest virtual wait for anything.
const PATIENCE_MS: u64 = 60_000;
/// As many sockets as there may be.
const SOCKETS_MAX: usize = 65_536;

/// Simulated shards and their clients.
pub struct Simulated {
    world: World<ParityActor>,
    shards: HostId,
    clients: HostId,
    ended: bool,
    /// Set when the test has dropped its listener.
    upstream_closed: Rc<Cell<bool>>,
}

/// A listener of the test, open until it is dropped.
pub struct Upstream(Rc<Cell<bool>>);

impl Drop for Upstream {
    fn drop(&mut self) {
        self.0.set(true);
    }
}

/// The host of all clients: it only remembers what it was told; the cases read when they want to.
#[derive(Default)]
struct Clients {
    open: BTreeSet<net::End>,
    reset: BTreeSet<net::End>,
    arrived: Vec<net::End>,
}

impl Peer for Clients {
    fn notice(&mut self, _: Now, _: &mut Net, notice: Notice) {
        match notice {
            Notice::Connected(end) => {
                self.open.insert(end);
            }
            Notice::Refused(end) | Notice::Reset(end) => {
                self.reset.insert(end);
            }
            Notice::Arrived(end, _) => self.arrived.push(end),
            Notice::Readable(_) | Notice::Writable(_) => {}
        }
    }

    fn tick(&mut self, _: Now, _: &mut Net) {}

    fn next_deadline_ns(&self) -> Option<u64> {
        None
    }

    fn as_any(&mut self) -> &mut dyn std::any::Any {
        self
    }
}

fn address(last: u8, port: u16) -> SocketAddr {
    SocketAddr::new(IpAddr::V4(Ipv4Addr::new(10, 0, 0, last)), port)
}

impl Simulated {
    fn now_ns(&self) -> u64 {
        self.world.now().mono.0
    }

    fn is_reset(&mut self, end: net::End) -> bool {
        self.world
            .with_peer(self.clients, |clients: &mut Clients, _, _| clients.reset.contains(&end))
    }

    /// Runs the world until the condition holds; ends the process once its shards have stopped.
    fn wait(&mut self, what: &str, mut done: impl FnMut(&mut Self) -> bool) {
        let limit_ns = self.now_ns() + PATIENCE_MS * 1_000_000;
        while !done(self) {
            assert!(self.now_ns() < limit_ns, "{what}: not within {PATIENCE_MS} ms");
            if self.upstream_closed.get() {
                self.world.net.unlisten(address(2, 9000));
            }
            self.world.run_for(1);
            let (shards, now_ns) = (self.shards, self.now_ns());
            let stopped =
                self.world.process(shards).is_some_and(|process| process.has_stopped(now_ns));
            if stopped && !self.ended {
                self.ended = true;
                self.world.end(shards, now_ns);
            }
        }
    }

    fn read(&mut self, end: net::End, count: usize) -> Vec<u8> {
        let now_ns = self.now_ns();
        self.world.net.read(now_ns, end, count)
    }
}

impl Harness for Simulated {
    type Client = net::End;
    type Upstream = Upstream;

    fn start(setup: Setup, journal: &Journal) -> Self {
        let mut world = World::new(u64::from(setup.shards) + setup.mail_max as u64);
        world.net.capacities = vec![64 * 1024];
        let listener = address(1, 80);
        let shards = world.add_host(listener.ip());
        let clients = world.add_peer(address(2, 0).ip(), &[], Box::new(Clients::default()));
        let sockets_max = match setup.sockets_max {
            0 => SOCKETS_MAX,
            max => max as usize,
        };
        let options = Options {
            sockets_max,
            mailbox_max: setup.mail_max,
            receive_bytes_max: 16 * 1024,
            batch_max: 16,
            short_per_mille: 0,
            buffers_max: 1024,
            late_per_mille: 0,
            first_listeners: 0,
        };
        let actors =
            (0..setup.shards).map(|shard| ParityActor::new(shard, setup.shards, journal)).collect();
        world.start(shards, vec![listener], actors, options);
        Self { world, shards, clients, ended: false, upstream_closed: Rc::default() }
    }

    fn connect(&mut self) -> net::End {
        let now_ns = self.now_ns();
        let (host, from) = (self.clients, address(2, 0).ip());
        let end = self.world.net.connect(now_ns, host, from, address(1, 80));
        self.wait("a connection", |this| {
            this.world.with_peer(host, |clients: &mut Clients, _, _| clients.open.contains(&end))
        });
        end
    }

    fn send(&mut self, client: &mut net::End, bytes: &[u8]) {
        let (end, mut sent) = (*client, 0);
        self.wait("room to send", |this| {
            let now_ns = this.now_ns();
            match this.world.net.write(now_ns, end, &bytes[sent..]) {
                Some(taken) => sent += taken,
                // A peer that has closed is seen where the case looks for it.
                None => sent = bytes.len(),
            }
            sent == bytes.len()
        });
    }

    fn receive(&mut self, client: &mut net::End, count: usize) -> Vec<u8> {
        self.exchange(client, b"", count)
    }

    fn exchange(&mut self, client: &mut net::End, bytes: &[u8], count: usize) -> Vec<u8> {
        let (end, mut sent, mut got) = (*client, 0, Vec::new());
        self.wait("an exchange", |this| {
            let now_ns = this.now_ns();
            if sent < bytes.len() {
                sent +=
                    this.world.net.write(now_ns, end, &bytes[sent..]).unwrap_or(bytes.len() - sent);
            }
            let more = this.read(end, count - got.len());
            got.extend(more);
            got.len() == count || this.world.net.is_eof(end) || this.is_reset(end)
        });
        got
    }

    fn end(&mut self, client: &mut net::End, before: &[u8]) -> End {
        let (end, mut got) = (*client, Vec::new());
        self.wait("the end", |this| {
            let more = this.read(end, usize::MAX);
            got.extend(more);
            this.world.net.is_eof(end) || this.is_reset(end)
        });
        assert!(before.starts_with(&got), "{} bytes before the end", got.len());
        if self.is_reset(end) { End::Reset } else { End::Eof }
    }

    fn half_close(&mut self, client: &mut net::End) {
        let now_ns = self.now_ns();
        self.world.net.shut_down(now_ns, *client);
    }

    fn close(&mut self, client: net::End) {
        let now_ns = self.now_ns();
        self.world.net.close(now_ns, client, false);
    }

    fn reset(&mut self, client: net::End) {
        let now_ns = self.now_ns();
        self.world.net.close(now_ns, client, true);
    }

    fn upstream(&mut self) -> (Upstream, SocketAddr) {
        self.upstream_closed.set(false);
        self.world.net.listen(self.clients, address(2, 9000));
        (Upstream(Rc::clone(&self.upstream_closed)), address(2, 9000))
    }

    fn accept(&mut self, _: &mut Upstream) -> net::End {
        let (host, mut found) = (self.clients, None);
        self.wait("a connection from the shards", |this| {
            found = this.world.with_peer(host, |clients: &mut Clients, _, _| clients.arrived.pop());
            found.is_some()
        });
        found.expect("waited for")
    }

    fn until(&mut self, what: &str, condition: impl Fn() -> bool) {
        self.wait(what, |_| condition());
    }

    fn advance(&mut self, ms: u64) {
        self.world.run_for(ms);
    }

    fn control(&mut self, control: Control) {
        self.world.control(self.shards, control);
    }

    fn join(mut self) {
        self.wait("the end of all shards", |this| this.ended);
    }
}
