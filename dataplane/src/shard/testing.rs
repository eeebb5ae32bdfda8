//! A small world for tests of the shard: scripted sockets, virtual time, no network. Everything
//! goes through the seam, nothing reaches into a shard.
//!
//! Leaves to others: adversity (the simulator in `tests`).

use std::{
    collections::{BTreeMap, VecDeque},
    io::ErrorKind,
    net::SocketAddr,
    sync::Arc,
};

use cache::Cache;
use proto::feed::{
    record::{Purge, Scope},
    site::{Origin, Page, Policy, Route, Site},
};

use super::{
    ControlLink, Settings, Shard,
    live::{Live, LiveSlot},
    mail::{Advance, ConfigChange, FeedState, Mail},
    observe::{Board, Metric},
};
use crate::{
    config::Timeouts,
    seam::{Actor, Close, Control, Effect, Input, Mono, Now, OpId, Payload, SocketId},
};

/// A socket of a shard of the world.
pub(crate) type End = (usize, SocketId);

/// Shards, their sockets and their mail.
pub(crate) struct World {
    pub(crate) shards: Vec<Shard>,
    pub(crate) now: Now,
    pub(crate) board: Arc<Board>,
    pub(crate) cache: Arc<Cache>,
    pub(crate) live: Arc<LiveSlot>,
    /// Connections that shards opened, in order.
    pub(crate) upstreams: Vec<End>,
    /// What connecting comes to.
    pub(crate) connect: Result<(), ErrorKind>,
    /// Attempts to connect stay open until [`World::release_connect`].
    pub(crate) hold_connects: bool,
    held_connects: VecDeque<(usize, OpId)>,
    pub(crate) stopped: Vec<usize>,
    pub(crate) accepting: BTreeMap<u16, bool>,
    sockets: BTreeMap<(usize, u32), Peer>,
    next_slot: u32,
    mail: VecDeque<(usize, u16, Mail)>,
}

/// What the world knows of a socket.
#[derive(Default)]
pub(crate) struct Peer {
    /// All that the shard sent.
    pub(crate) got: Vec<u8>,
    /// In how many sends.
    pub(crate) sends: usize,
    /// The shard asked to receive.
    pub(crate) receiving: bool,
    pub(crate) closed: bool,
    /// In which manner the shard closed it.
    pub(crate) close: Option<Close>,
    /// The other side does not read: sends stay in flight.
    pub(crate) blocked: bool,
    in_flight: Option<Payload>,
}

/// Streams of one shard.
pub(crate) const STREAMS_MAX: u32 = 100;

/// A site with one origin at 127.0.0.1:9000, everything cached but below `/pass/`.
pub(crate) fn site() -> Site {
    Site {
        id: "s1".into(),
        name: "s1".into(),
        hosts: vec!["a.example".into()],
        origins: vec![Origin { url: "http://127.0.0.1:9000".into() }],
        routes: vec![Route { prefix: "/pass/".into(), policy: Policy::Pass, stream: None }],
        token_keys: Vec::new(),
        rules: Vec::new(),
        purge_keys: Vec::new(),
    }
}

fn control() -> ControlLink {
    ControlLink { host: "127.0.0.1".into(), port: 7400, authorization: "Bearer k".into() }
}

/// A page on control.
pub(crate) fn page() -> Page {
    Page { id: "p1".into(), slug: "demo".into(), hosts: Vec::new() }
}

impl World {
    /// Shards that know [`site`] and nothing of control.
    pub(crate) fn new(shard_count: u16) -> Self {
        Self::build(shard_count, None, 64 << 20, None)
    }

    /// The same with so much memory for the cache; one response may take a quarter of it.
    pub(crate) fn with_memory(shard_count: u16, memory_bytes: u64) -> Self {
        Self::build(shard_count, None, memory_bytes, None)
    }

    /// Shards with control at 127.0.0.1:7400 whose feed brought [`site`] and [`page`].
    pub(crate) fn with_control(shard_count: u16) -> Self {
        let mut world = Self::unconfigured(shard_count);
        world.configure(vec![site()], vec![page()]);
        world.upstreams.clear();
        world
    }

    /// Shards with control at 127.0.0.1:7400 that have not heard of it yet.
    pub(crate) fn unconfigured(shard_count: u16) -> Self {
        Self::build(shard_count, Some(control()), 64 << 20, None)
    }

    /// The same, of an edge that visitors can be led to by a name of its own.
    pub(crate) fn named(shard_count: u16, url: &str) -> Self {
        Self::build(shard_count, Some(control()), 64 << 20, Some(url))
    }

    /// The feed brings this configuration to every shard.
    pub(crate) fn configure(&mut self, sites: Vec<Site>, pages: Vec<Page>) {
        let change = Arc::new(ConfigChange::Replace { sites, pages });
        for shard in 0..self.shards.len() {
            self.mail.push_back((shard, 0, Mail::Config(Arc::clone(&change))));
        }
        self.run();
    }

    fn build(
        shard_count: u16,
        control: Option<ControlLink>,
        memory_bytes: u64,
        url: Option<&str>,
    ) -> Self {
        let now = Now { mono: Mono(1_000_000_000), wall_ms: 1_700_000_000_000 };
        let name = "pharos-e1".into();
        let cache = Cache::new(cache::Config { name, ..cache::Config::new(memory_bytes, 7) });
        let board = Board::new(shard_count);
        let live = Arc::new(LiveSlot::default());
        let settings = |shard| Settings {
            shard,
            shard_count,
            seed: 11 + u64::from(shard),
            forward: Default::default(),
            explain: Default::default(),
            edge_id: "e1".into(),
            url: url.map(Into::into),
            parents: Arc::from([]),
            relay: None,
            pop: "p".into(),
            engine: "scripted".into(),
            control: control.clone(),
            sites: [site()].into(),
            data: None,
            admin_listener: Some(1),
            listener_count: 2,
            sockets_max: 10_000,
            streams_max: STREAMS_MAX,
            rates: Default::default(),
            cache: Arc::clone(&cache),
            near_entries: 1024,
            board: Arc::clone(&board),
            timeouts: Timeouts::default(),
            levels: Default::default(),
            live: Arc::clone(&live),
        };
        let shards = (0..shard_count).map(|shard| Shard::new(settings(shard), now)).collect();
        let mut world = Self {
            shards,
            now,
            board,
            cache,
            live,
            upstreams: Vec::new(),
            connect: Ok(()),
            hold_connects: false,
            held_connects: VecDeque::new(),
            stopped: Vec::new(),
            accepting: BTreeMap::new(),
            sockets: BTreeMap::new(),
            next_slot: 0,
            mail: VecDeque::new(),
        };
        world.run();
        world
    }

    /// A visitor connects.
    pub(crate) fn connect(&mut self, shard: usize) -> End {
        self.accept(shard, 0)
    }

    /// Someone connects to a listener; 1 is the admin one.
    pub(crate) fn accept(&mut self, shard: usize, listener: u16) -> End {
        self.accept_as(shard, listener, SocketAddr::from(([127, 0, 0, 1], 50_000)))
    }

    /// A visitor connects from somewhere else.
    pub(crate) fn accept_from(&mut self, shard: usize, peer: SocketAddr) -> End {
        self.accept_as(shard, 0, peer)
    }

    fn accept_as(&mut self, shard: usize, listener: u16, peer: SocketAddr) -> End {
        let socket = self.open(shard);
        let local = peer;
        self.shards[shard].handle(self.now, Input::Accepted { socket, listener, peer, local });
        self.run();
        (shard, socket)
    }

    /// The other side sends.
    pub(crate) fn say(&mut self, end: End, bytes: &str) {
        self.say_bytes(end, bytes.as_bytes());
    }

    /// The other side sends.
    pub(crate) fn say_bytes(&mut self, (shard, socket): End, bytes: &[u8]) {
        self.shards[shard].handle(self.now, Input::Received { socket, bytes });
        self.run();
    }

    /// The other side ends its half.
    pub(crate) fn eof(&mut self, (shard, socket): End) {
        self.shards[shard].handle(self.now, Input::Eof { socket });
        self.run();
    }

    /// The connection is gone.
    pub(crate) fn hang_up(&mut self, (shard, socket): End) {
        self.shards[shard].handle(self.now, Input::HungUp { socket });
        self.run();
    }

    /// What is known of a socket.
    pub(crate) fn peer(&mut self, (shard, socket): End) -> &mut Peer {
        self.sockets.get_mut(&(shard, socket.slot)).expect("a socket of this world")
    }

    /// Takes what a socket was sent so far, as text.
    pub(crate) fn take(&mut self, end: End) -> String {
        String::from_utf8_lossy(&std::mem::take(&mut self.peer(end).got)).into_owned()
    }

    /// The other side reads again: the send in flight ends.
    pub(crate) fn unblock(&mut self, end: End) {
        self.peer(end).blocked = false;
        if let Some(payload) = self.peer(end).in_flight.take() {
            self.finish_send(end, payload);
        }
        self.run();
    }

    /// The other side reads what is in flight, and no more.
    pub(crate) fn read_one(&mut self, end: End) {
        if let Some(payload) = self.peer(end).in_flight.take() {
            self.finish_send(end, payload);
        }
        self.run();
    }

    /// The connection to an origin that was opened last.
    pub(crate) fn upstream(&self) -> End {
        *self.upstreams.last().expect("a connection to an origin")
    }

    /// The first attempt that is held succeeds.
    pub(crate) fn release_connect(&mut self) {
        let (shard, op) = self.held_connects.pop_front().expect("an attempt to connect");
        let socket = self.open(shard);
        self.upstreams.push((shard, socket));
        self.shards[shard].handle(self.now, Input::Connected { op, result: Ok(socket) });
        self.run();
    }

    /// Lets time pass.
    pub(crate) fn wait_ms(&mut self, ms: u64) {
        let end = self.now.mono.after_ms(ms);
        let wall_end_ms = self.now.wall_ms + ms;
        loop {
            let next = self.shards.iter().filter_map(Shard::next_deadline).min();
            let Some(next) = next.filter(|&next| next <= end) else { break };
            let step_ms = next.since_ns(self.now.mono) / 1_000_000;
            self.now.wall_ms += step_ms;
            self.now.mono = self.now.mono.max(next);
            for shard in 0..self.shards.len() {
                if self.shards[shard].next_deadline().is_some_and(|at| at <= self.now.mono) {
                    self.shards[shard].handle(self.now, Input::Deadline);
                }
            }
            self.run();
        }
        self.now = Now { mono: end, wall_ms: wall_end_ms };
    }

    /// Purges as the feed's shard does: the cache first, then every shard passes a turn.
    pub(crate) fn purge(&mut self, scope: Scope, soft: bool) {
        let purge = Purge { position: 1, scope, soft };
        let mut cursor = self.cache.purge(&purge);
        while !cursor.step(&self.cache, 64).done {}
        for shard in 0..self.shards.len() {
            self.mail.push_back((shard, 0, Mail::Purge { ticket: 1 }));
        }
        self.run();
    }

    /// The session with control comes or goes.
    pub(crate) fn feed(&mut self, connected: bool) {
        let state = Arc::new(FeedState { connected, ..FeedState::default() });
        self.mail_all(|| Mail::FeedState(Arc::clone(&state)));
    }

    /// The feed has come to this version, record by record or otherwise.
    pub(crate) fn applied(&mut self, version: &str, how: Advance) {
        let applied = Arc::new(version.parse().expect("a version"));
        self.mail_all(|| Mail::Applied { applied: Arc::clone(&applied), how });
    }

    pub(crate) fn mail_all(&mut self, mail: impl Fn() -> Mail) {
        for shard in 0..self.shards.len() {
            self.mail.push_back((shard, 0, mail()));
        }
        self.run();
    }

    /// Settings that may change, as they are.
    pub(crate) fn live_now(&self) -> Live {
        let live = Live { streams_max: STREAMS_MAX, sites: [site()].into(), ..Live::default() };
        self.live.newest().map_or(live, |newest| (*newest).clone())
    }

    /// The supervisor asks.
    pub(crate) fn control(&mut self, control: Control) {
        for shard in 0..self.shards.len() {
            self.shards[shard].handle(self.now, Input::Control(control));
        }
        self.run();
    }

    /// A metric, summed over shards.
    pub(crate) fn metric(&self, metric: Metric) -> u64 {
        self.board.sum(metric)
    }

    /// Carries out effects and delivers mail until nothing is left.
    pub(crate) fn run(&mut self) {
        loop {
            let mut quiet = true;
            for shard in 0..self.shards.len() {
                if self.shards[shard].next_deadline() == Some(Mono(0)) {
                    self.shards[shard].handle(self.now, Input::Deadline);
                }
                while let Some(effect) = self.shards[shard].poll_effect() {
                    quiet = false;
                    self.carry_out(shard, effect);
                }
            }
            if let Some((to, from, mail)) = self.mail.pop_front() {
                quiet = false;
                self.shards[to].handle(self.now, Input::Mail { from, mail });
            }
            if quiet {
                return;
            }
        }
    }

    fn open(&mut self, shard: usize) -> SocketId {
        self.next_slot += 1;
        let socket = SocketId { slot: self.next_slot, generation: 1 };
        self.sockets.insert((shard, socket.slot), Peer::default());
        socket
    }

    fn carry_out(&mut self, shard: usize, effect: Effect<Mail>) {
        match effect {
            Effect::Connect { op, .. } if self.hold_connects => {
                self.held_connects.push_back((shard, op));
            }
            Effect::Connect { op, to, .. } => {
                // The feed is another test's business.
                let refused = Err(ErrorKind::ConnectionRefused);
                let result = match self.connect {
                    Ok(()) if to.port() != 7400 || op >> 56 == 1 => {
                        let socket = self.open(shard);
                        self.upstreams.push((shard, socket));
                        Ok(socket)
                    }
                    Ok(()) => refused,
                    Err(kind) => Err(kind),
                };
                self.shards[shard].handle(self.now, Input::Connected { op, result });
            }
            Effect::Receive { socket, on } => self.peer((shard, socket)).receiving = on,
            Effect::Send { socket, payload } => {
                let peer = self.peer((shard, socket));
                assert!(peer.in_flight.is_none(), "one send a socket");
                assert!(!payload.is_empty() && !peer.closed);
                peer.sends += 1;
                for segment in payload.segments() {
                    peer.got.extend_from_slice(segment.as_slice());
                }
                if peer.blocked {
                    peer.in_flight = Some(payload);
                } else {
                    self.finish_send((shard, socket), payload);
                }
            }
            Effect::Close { socket, how } => {
                let peer = self.peer((shard, socket));
                assert!(!peer.closed, "closed once");
                peer.close = Some(how);
                peer.closed = true;
                if let Some(payload) = peer.in_flight.take() {
                    let result = Err(ErrorKind::ConnectionAborted);
                    self.shards[shard].handle(self.now, Input::Sent { socket, result, payload });
                }
                self.shards[shard].handle(self.now, Input::Closed { socket });
            }
            Effect::Mail { to, mail } => self.mail.push_back((to.into(), shard as u16, mail)),
            Effect::Resolve { op, port, .. } => {
                let result = Ok(vec![SocketAddr::from(([127, 0, 0, 1], port))]);
                self.shards[shard].handle(self.now, Input::Resolved { op, result });
            }
            Effect::Cold { op, work } => {
                let result = work.run();
                self.shards[shard].handle(self.now, Input::Cold { op, result });
            }
            Effect::File { op, .. } => {
                let result = Err(ErrorKind::NotFound.into());
                self.shards[shard].handle(self.now, Input::File { op, result });
            }
            Effect::Accept { listener, on } => {
                self.accepting.insert(listener, on);
            }
            Effect::Yield => self.shards[shard].handle(self.now, Input::Continue),
            Effect::Stop => self.stopped.push(shard),
            Effect::Watch { .. } | Effect::Fanout { .. } => {}
        }
    }

    fn finish_send(&mut self, (shard, socket): End, payload: Payload) {
        let input = Input::Sent { socket, result: Ok(()), payload };
        self.shards[shard].handle(self.now, input);
    }
}
