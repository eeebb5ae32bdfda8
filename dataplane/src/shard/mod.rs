//! The shard: one core's part of the edge, as a pure machine. This file is its tables and the one
//! `match` over inputs.
//!
//! ```text
//!             ┌────────────── Shard ───────────────┐
//!  Input ───▶ │ ConnTable: slot → Owner            │
//!             │   Http ─────▶ conn ─▶ request ─▶ cache, fetch
//!             │   Upstream ─▶ fetch, origin        │ ───▶ Out ───▶ Effect
//!             │   Stream ───▶ streams              │
//!             │   Feed ─────▶ feed (shard 0 only)  │
//!             └────────────────────────────────────┘
//! ```
//! Sub-machines are structs with `handle_*(&mut self, now, …, out: &mut Out)` and
//! `next_deadline()`. None knows the others; what passes between them passes here. A machine that
//! calls [`Out::close`] forgets the socket at once: the table marks it `Closing` and no further
//! input of it reaches anyone.
//!
//! A connection is lifted out of its slab while it runs, so that it can use all the rest
//! ([`Edge`]). What a fetch has for a connection is noted and told when the input has been handled.
//!
//! Leaves to others: the kernel (`engine`), bytes ↔ messages (`proto`), what may be served
//! (`cache`).

pub mod access;
pub mod admin;
pub mod answer;
pub mod audience;
pub mod conn;
pub mod conn_table;
pub mod coverage;
pub mod drain;
pub mod encoding;
pub mod explain;
pub mod fanout;
pub mod feed;
pub mod fetch;
pub mod forward;
pub mod heartbeat;
pub mod held;
pub mod history;
pub mod intake;
pub mod jitter;
pub mod kept_file;
pub mod kept_head;
pub mod kept_pages;
pub mod last_known;
pub mod last_values;
pub mod lead;
pub mod lenient_path;
pub mod live;
pub mod mail;
pub mod not_offered;
pub mod observe;
pub mod opening;
pub mod origin;
pub mod out;
pub mod outcome;
pub mod part;
pub mod placement;
pub mod position;
pub mod purge_request;
pub mod region;
pub mod relay;
pub mod request;
pub mod respond;
pub mod route;
pub mod rule;
#[cfg(test)]
mod rules;
#[cfg(test)]
mod rules_gateway;
#[cfg(test)]
mod rules_http;
#[cfg(test)]
mod rules_of_pages;
#[cfg(test)]
mod rules_of_sites;
#[cfg(test)]
mod rules_parts;

pub mod secret;
pub mod session;
pub mod site_request;
pub mod slab;
pub mod slow_consumer;
pub mod stream;
pub mod stream_request;
pub mod stream_route;
#[cfg(test)]
mod stream_rules;
mod subscription;
#[cfg(test)]
pub(crate) mod testing;
pub mod timers;
pub mod token;
pub mod topic;
pub mod watermark;

use std::{
    collections::VecDeque, io::ErrorKind, net::SocketAddr, path::PathBuf, rc::Rc, sync::Arc,
};

use cache::{Cache, Near, PurgeCursor, Wake, WakeWith};
use hashbrown::HashMap;
use proto::feed::site::Site;

use self::{
    access::{Access, Answered},
    conn::Conn,
    conn_table::{ConnTable, Owner},
    drain::{Drain, Order},
    encoding::Orders,
    explain::Explain,
    feed::Feed,
    fetch::Fetch,
    forward::Names,
    held::Held,
    lead::Lead,
    live::LiveSlot,
    mail::{ConfigChange, FeedState, Mail},
    observe::{Board, Metric, Observe},
    opening::Rates,
    origin::Origins,
    out::{Op, Out},
    relay::{JoinRequest, RelaySettings},
    request::Door,
    respond::{DateLine, RequestIds},
    route::{OriginName, Routes},
    slab::{Ref, Slab},
    stream::Streams,
    stream_route::StreamRoute,
    timers::{Timer, Timers},
};
use crate::{
    compress::Levels,
    config::Timeouts,
    limits,
    seam::{
        Actor, Close, Control, Effect, Input, ListenerId, Mono, Now, Payload, ShardId, SocketId,
    },
};

/// What a shard is made with. Cloned for each shard, with its own `shard` and `seed`.
#[derive(Clone)]
pub struct Settings {
    /// Which shard; 0 holds the feed.
    pub shard: ShardId,
    /// Shards of this process.
    pub shard_count: u16,
    /// Seeds hashes and jitter of this shard; all randomness derives from it.
    pub seed: u64,
    /// The edge's id, in `Via`, `CDN-Loop` and reports to control.
    pub edge_id: Arc<str>,
    /// How hard stored bodies are compressed.
    pub levels: Levels,
    /// Who origins are told that the client is.
    pub forward: crate::config::Forward,
    /// Its own name, if visitors can be led to it by one: `http[s]://host[:port]`.
    pub url: Option<Arc<str>>,
    /// The PoP's name.
    pub pop: Arc<str>,
    /// Which engine drives the shard and why; for people.
    pub engine: Arc<str>,
    /// Control, if this edge has one; else `sites` is all there is.
    pub control: Option<ControlLink>,
    /// Edges that relay control's feed and are followed before it, in order.
    pub parents: Arc<[ControlLink]>,
    /// How other edges may follow this one, if they may.
    pub relay: Option<RelaySettings>,
    /// Sites from `edge.toml`; only without control.
    pub sites: Arc<[Site]>,
    /// Folder for what is kept on disk; nothing is kept without one.
    pub data: Option<PathBuf>,
    /// The listener that answers `/livez` and the like, and never sites.
    pub admin_listener: Option<ListenerId>,
    /// Listeners of this shard, the admin one included.
    pub listener_count: u16,
    /// Sockets of this shard, at most; as the engine says.
    pub sockets_max: u32,
    /// Most streams on this shard. Beyond: refused as DESIGN §7 says, by `200`, `retry:` and a
    /// close.
    pub streams_max: u32,
    /// How many streams may open or be moved a second, for the whole process.
    pub rates: Rates,
    /// The cache of the process.
    pub cache: Arc<Cache>,
    /// Entries of this shard's near table.
    pub near_entries: usize,
    /// The metrics of the process.
    pub board: Arc<Board>,
    /// What is waited for, and how long.
    pub timeouts: Timeouts,
    /// What is kept of answers, to explain them.
    pub explain: crate::config::Explain,
    /// What may change while the shard runs; where something lies there it wins.
    pub live: Arc<LiveSlot>,
}

/// How to reach control.
#[derive(Clone, Debug)]
pub struct ControlLink {
    /// Host name or address literal.
    pub host: Arc<str>,
    /// Port.
    pub port: u16,
    /// Value of the `Authorization` field, `Bearer` included.
    pub authorization: Arc<str>,
}

/// One core's part of the edge.
pub struct Shard {
    conns: Slab<Box<Conn>>,
    edge: Edge,
    feed: Option<Feed>,
    /// Connections of the admin listener among `conns`.
    admin_count: usize,
    /// Buckets of the near table still to be swept after a purge.
    sweep_left: usize,
    started: bool,
    due: Vec<Timer>,
    /// When the near table is looked at for the dead.
    sweep_at: Mono,
    /// Bytes came from sockets since the last turn that was asked for.
    requests_wait: bool,
    /// When the last turn was, if it asked for the next one.
    turned_at: Option<Mono>,
}

/// All of a shard but its downstream connections: what one of them uses while it runs.
pub struct Edge {
    settings: Settings,
    timeouts: Timeouts,
    names: Names,
    routes: Routes,
    control: Option<Rc<ControlOrigin>>,
    /// Held, beside here, by each fetch of a page at a version that no feed has announced.
    unannounced: Rc<()>,
    cache: Arc<Cache>,
    near: Near,
    fetches: Slab<Fetch>,
    /// Connection attempts under way, by number.
    connects: HashMap<u64, Ref>,
    next_connect: u64,
    origins: Origins,
    streams: Streams,
    /// By which rules pages have streams.
    page_streams: Rc<StreamRoute>,
    sockets: ConnTable,
    /// What requests that are not through hold.
    held: Held,
    timers: Timers,
    out: Out,
    observe: Observe,
    date: DateLine,
    ids: RequestIds,
    /// Reused for targets that are made up.
    scratch: String,
    /// Reused for what rules add to cache keys.
    scratch_added: Vec<u8>,
    /// Edges that ask to follow this one.
    joins: Vec<(SocketId, Box<JoinRequest>)>,
    /// Connections whose fetch has moved on.
    notices: Vec<Ref>,
    /// Waiters of any shard that the cache wants told.
    wakes: Vec<Wake>,
    /// Encodings that helpers make.
    orders: Orders,
    /// Cache groups that are outdated, on their way out.
    outdated: VecDeque<PurgeCursor>,
    /// The connection that runs has ended.
    freed: Option<Ref>,
    /// No request after those under way.
    draining: bool,
    drain: Option<Drain>,
    drains_undone: u32,
    rates: Rates,
    /// Leading visitors to other edges, if this one has a name of its own.
    lead: Option<Lead>,
    feed_state: Arc<FeedState>,
    watermark: u64,
    /// What the last answer was, for the access log.
    answered: Answered,
    access: Option<Box<Access>>,
    explain: Explain,
}

/// Control as the origin of the pages.
#[derive(Debug)]
struct ControlOrigin {
    /// Its own name, as `Host`.
    host_field: String,
    /// Its row.
    origins: Rc<[u32]>,
}

impl Edge {
    fn new(settings: Settings, now: Now) -> Self {
        let timeouts = settings.timeouts;
        let mut origins = Origins::new(timeouts.origin_idle_ms);
        let control = settings.control.as_ref().map(|link| {
            let name = OriginName { host: Arc::clone(&link.host), port: link.port };
            let row = origins.row(&name);
            Rc::new(ControlOrigin { host_field: name.to_host_field(), origins: Rc::from([row]) })
        });
        Self {
            timeouts,
            names: Names::new(&settings.edge_id, settings.forward),
            routes: Routes::new(settings.seed, settings.control.is_some()),
            control,
            unannounced: Rc::new(()),
            cache: Arc::clone(&settings.cache),
            near: Near::new(settings.near_entries),
            fetches: Slab::new(),
            connects: HashMap::new(),
            next_connect: 0,
            origins,
            streams: Streams::new(&settings),
            page_streams: StreamRoute::of_pages(),
            sockets: ConnTable::new(settings.seed),
            held: Held::new(limits::REQUEST_MEMORY / u64::from(settings.shard_count.max(1))),
            timers: Timers::new(now.mono),
            out: Out::new(settings.shard, settings.shard_count),
            observe: Observe::new(Arc::clone(&settings.board), settings.shard),
            date: DateLine::new(),
            ids: RequestIds::new(settings.seed ^ now.wall_ms),
            scratch: String::new(),
            scratch_added: Vec::new(),
            joins: Vec::new(),
            notices: Vec::new(),
            wakes: Vec::new(),
            orders: Orders::default(),
            outdated: VecDeque::new(),
            freed: None,
            draining: false,
            drain: None,
            drains_undone: 0,
            rates: settings.rates,
            lead: settings.url.clone().map(Lead::new),
            feed_state: Arc::default(),
            watermark: 0,
            answered: Answered::default(),
            access: None,
            explain: Explain::new(&settings.explain, settings.shard_count),
            settings,
        }
    }

    /// What a listener is for.
    fn door(&self, listener: ListenerId) -> Door {
        let settings = &self.settings;
        if settings.admin_listener == Some(listener) {
            return Door::Admin;
        }
        let relay = settings.relay.as_ref().map(|relay| relay.listener);
        if relay == Some(listener) { Door::Relay } else { Door::Public }
    }

    /// The connection that runs has given its socket up.
    fn free_conn(&mut self, at: Ref) {
        self.freed = Some(at);
    }

    fn is_freed(&self, at: Ref) -> bool {
        self.freed == Some(at)
    }
}

impl Shard {
    /// A shard that has not begun: it does so with its first input, which comes at once because
    /// [`Actor::next_deadline`] lies in the past until then.
    pub fn new(settings: Settings, now: Now) -> Self {
        let feed = Feed::new(&settings);
        let mut edge = Edge::new(settings, now);
        if let Some(live) = edge.settings.live.newest() {
            edge.take_live(&live);
        }
        Self {
            conns: Slab::new(),
            feed,
            edge,
            admin_count: 0,
            sweep_left: 0,
            started: false,
            due: Vec::new(),
            sweep_at: now.mono,
            requests_wait: false,
            turned_at: None,
        }
    }

    fn start(&mut self, now: Now) {
        self.started = true;
        if self.edge.settings.control.is_none() {
            let sites = self.edge.settings.sites.to_vec();
            self.edge.routes.apply(&ConfigChange::Replace { sites, pages: Vec::new() });
        }
        if let Some(feed) = &mut self.feed {
            feed.start(now, &mut self.edge.out);
        }
    }

    /// Connections that are not the operator's.
    fn visitor_count(&self) -> usize {
        self.conns.len() - self.admin_count
    }

    /// Runs one connection, unless it is gone.
    fn with_conn(&mut self, at: Ref, run: impl FnOnce(&mut Conn, &mut Edge)) {
        let Some(mut conn) = self.conns.take(at) else { return };
        run(&mut conn, &mut self.edge);
        let freed = self.edge.freed.take().is_some();
        conn.count_held(&mut self.edge, freed);
        if freed {
            self.admin_count -= usize::from(conn.is_admin());
            self.conns.free(at);
            self.edge.observe.set(Metric::HttpConns, self.conns.len() as u64);
        } else {
            self.conns.put(at, conn);
        }
    }

    fn with_conn_of(
        &mut self,
        slot: u32,
        socket: SocketId,
        run: impl FnOnce(&mut Conn, &mut Edge),
    ) {
        let Some(at) = self.conns.at_slot(slot) else { return };
        debug_assert!(self.conns.get(at).is_some_and(|conn| conn.socket() == socket));
        self.with_conn(at, run);
    }

    fn accepted(&mut self, now: Now, socket: SocketId, listener: ListenerId, peer: SocketAddr) {
        let door = self.edge.door(listener);
        let admin = door == Door::Admin;
        self.edge.observe.count(Metric::Accepted);
        // The last slots are the operator's, and the origins'.
        let reserve = limits::SOCKETS_RESERVED.min(self.edge.settings.sockets_max / 8) as usize;
        let full = self.edge.sockets.open() + reserve >= self.edge.settings.sockets_max as usize;
        let edge = &mut self.edge;
        let at =
            self.conns.insert(|at| Box::new(Conn::new(at, socket, peer.ip(), door, now, edge)));
        let allowed = self.edge.sockets.open_peer(socket, peer, Owner::Http(at.slot));
        self.edge.observe.set(Metric::Sockets, self.edge.sockets.open() as u64);
        if !admin && (full || !allowed) {
            let why = if full { Metric::TableRefused } else { Metric::PeerRefused };
            self.edge.observe.count(why);
            self.conns.free(at);
            return self.edge.out.close(socket, Close::Abort);
        }
        self.admin_count += usize::from(admin);
        self.edge.observe.set(Metric::HttpConns, self.conns.len() as u64);
        self.edge.out.receive(socket, true);
    }

    fn connected(&mut self, now: Now, op: Op, result: Result<SocketId, ErrorKind>) {
        match op {
            Op::Feed(number) => {
                if let Ok(socket) = result {
                    self.edge.sockets.open_own(socket, Owner::Feed);
                }
                match (&mut self.feed, result) {
                    (Some(feed), result) => {
                        feed.handle_connected(now, number, result, &mut self.edge.out);
                    }
                    (None, Ok(socket)) => self.edge.out.close(socket, Close::Abort),
                    (None, Err(_)) => {}
                }
            }
            Op::Origin(number) => self.edge.origin_connected(now, number, result),
            Op::LastKnown(_) | Op::Encoding(_) => {
                panic!("only origins and control are connected to")
            }
        }
    }

    fn received(&mut self, now: Now, socket: SocketId, bytes: &[u8]) {
        self.requests_wait = true;
        match self.edge.sockets.owner(socket) {
            Owner::Http(slot) => {
                self.with_conn_of(slot, socket, |conn, edge| conn.received(edge, now, bytes));
            }
            Owner::Upstream(slot) => self.edge.origin_received(now, socket, slot, bytes),
            Owner::Idle(row) => {
                self.edge.origins.handle_idle_input(row, socket, &mut self.edge.out);
            }
            Owner::Feed => {
                self.look_behind(now);
                if let Some(feed) = &mut self.feed {
                    feed.handle_received(now, socket, bytes, &mut self.edge.out);
                }
            }
            // A stream's client has nothing to say; what it had pipelined behind its request is
            // dropped.
            Owner::Stream(_) | Owner::Closing | Owner::Free => {}
        }
    }

    /// The other side has ended its half (`hung_up: false`), or the connection is gone.
    fn gone(&mut self, now: Now, socket: SocketId, hung_up: bool) {
        match self.edge.sockets.owner(socket) {
            Owner::Http(slot) => self.with_conn_of(slot, socket, |conn, edge| {
                if hung_up { conn.abort(edge) } else { conn.eof(edge, now) }
            }),
            Owner::Upstream(slot) => self.edge.origin_gone(now, socket, slot),
            Owner::Idle(row) => {
                self.edge.origins.handle_idle_input(row, socket, &mut self.edge.out);
            }
            Owner::Stream(stream) => {
                let edge = &mut self.edge;
                edge.streams.handle_gone(now, stream, socket, &mut edge.out);
                edge.streams.report(&edge.observe);
            }
            Owner::Feed => {
                if let Some(feed) = &mut self.feed {
                    feed.handle_gone(now, socket, &mut self.edge.out);
                }
            }
            Owner::Closing | Owner::Free => {}
        }
    }

    fn sent(
        &mut self,
        now: Now,
        socket: SocketId,
        result: Result<(), ErrorKind>,
        payload: Payload,
    ) {
        let edge = &mut self.edge;
        match edge.sockets.owner(socket) {
            Owner::Http(slot) => self.with_conn_of(slot, socket, |conn, edge| {
                conn.sent(edge, now, result, payload);
            }),
            Owner::Upstream(slot) => edge.origin_sent(now, socket, slot, result, payload),
            Owner::Stream(stream) => {
                edge.streams.handle_sent(now, stream, socket, result, payload, &mut edge.out);
            }
            Owner::Feed => {
                if let Some(feed) = &mut self.feed {
                    feed.handle_sent(now, socket, result, payload, &mut edge.out);
                }
            }
            Owner::Idle(_) | Owner::Closing | Owner::Free => edge.out.recycle(payload),
        }
    }

    fn mail(&mut self, now: Now, from: ShardId, mail: Mail) {
        let edge = &mut self.edge;
        match mail {
            Mail::Config(change) => {
                edge.routes.apply(&change);
                edge.streams.handle_config(&change, &mut edge.out);
            }
            // Each input is handled whole, so between two inputs every shard stands at a turn
            // boundary: whoever looked up before has its answer in the writer or is a fetch, which
            // the cache checks against the purge.
            Mail::Purge { ticket } => {
                self.sweep_left = edge.near.bucket_count();
                edge.out.yield_turn();
                edge.out.mail(from, Mail::PurgePassed { ticket, from: edge.settings.shard });
            }
            Mail::PurgePassed { ticket, from } => {
                if let Some(feed) = &mut self.feed {
                    feed.handle_purge_passed(now, ticket, from, &mut edge.out);
                }
            }
            Mail::Publish(record) => edge.streams.handle_publish(now, &record, &mut edge.out),
            Mail::Applied { applied, how } => {
                edge.streams.handle_applied(now, &applied, how, &mut edge.out);
            }
            Mail::Watermark(position) => edge.watermark = position,
            Mail::PageStored(entry) => {
                if let Some(feed) = &mut self.feed {
                    feed.handle_page_stored(now, entry);
                }
            }
            Mail::TopicStreams(counts) => {
                if let Some(feed) = &mut self.feed {
                    feed.handle_topic_streams(now, from, counts);
                }
            }
            Mail::Coverage(coverage) => edge.streams.handle_coverage(now, &coverage, &mut edge.out),
            Mail::Wants(wants) => {
                if let Some(feed) = &mut self.feed {
                    feed.handle_wants(now, from, wants, &mut edge.out);
                }
            }
            Mail::Narrowed { round } => {
                if let Some(feed) = &mut self.feed {
                    feed.handle_narrowed(now, round, &mut edge.out);
                }
            }
            Mail::FeedState(state) => edge.feed_state = state,
            Mail::Circle(news) => edge.take_circle(now, news.as_deref()),
            Mail::Wake(wake) => self.wake(now, wake.waiter.id, wake.with),
            Mail::Explain { from, at, id } => {
                let found = edge.explain_find(id).map(Box::new);
                edge.out.mail(from, Mail::Explained { at, found });
            }
            Mail::Explained { at, found } => {
                self.with_conn(at, |conn, edge| conn.explained(edge, now, found));
            }
            Mail::DrainAsked(order) => self.ask_drain(order),
            Mail::Drain(order) => self.ordered(now, order),
            Mail::DrainIdle { round } => self.shard_is_idle(round),
        }
    }

    fn wake(&mut self, now: Now, waiter: u64, with: WakeWith) {
        self.with_conn(Ref::from_u64(waiter), |conn, edge| conn.woken(edge, now, with));
    }

    fn deadline(&mut self, now: Now) {
        let mut due = std::mem::take(&mut self.due);
        self.edge.timers.expire(now.mono, &mut due);
        for timer in due.drain(..) {
            match timer {
                Timer::Conn(row) => {
                    if let Some(at) = self.conns.at_slot(row) {
                        self.with_conn(at, |conn, edge| conn.timer(edge, now));
                    }
                }
                Timer::Fetch(at) => self.edge.fetch_timer(now, at),
                Timer::FetchLook(at) => self.edge.fetch_look(now, at),
                Timer::Origin(row, serial) => {
                    let edge = &mut self.edge;
                    edge.origins.handle_timer(now, row, serial, &mut edge.out);
                }
            }
        }
        self.due = due;
        self.sweep(now);
        let edge = &mut self.edge;
        edge.flush_access_when_due(now);
        edge.streams.handle_deadline(now, &mut edge.out);
        if let Some(counts) = edge.streams.tally(now.mono) {
            edge.out.mail(0, Mail::TopicStreams(counts));
        }
        edge.streams.report(&edge.observe);
        self.look_behind(now);
        if let Some(feed) = &mut self.feed {
            feed.handle_deadline(now, &mut self.edge.out);
        }
    }

    /// Tells the feed whether streams of any shard are behind.
    fn look_behind(&mut self, now: Now) {
        if let Some(feed) = &mut self.feed {
            feed.set_behind(now, self.edge.observe.board().sum(Metric::TopicsBehind) > 0);
        }
    }

    /// Lets go of the dead in the near table, so that their memory is free in bounded time: a part
    /// of the table each period, all of it when much is dead.
    fn sweep(&mut self, now: Now) {
        if now.mono < self.sweep_at {
            return;
        }
        self.sweep_at = now.mono.after_ms(limits::SWEEP_PERIOD_MS);
        if self.edge.cache.is_pressed() {
            self.sweep_left = self.edge.near.bucket_count();
            self.edge.out.yield_turn();
        } else {
            self.edge.near.sweep(limits::SWEEP_BUCKETS);
        }
    }

    fn turn(&mut self, now: Now) {
        if let Some(before) = self.turned_at {
            // Nobody slept in between: it is what everyone else had to wait for.
            let took_us = now.mono.since_ns(before) / 1_000;
            self.edge.observe.raise(Metric::TurnLongest, took_us);
        }
        self.edge.out.continued();
        if self.sweep_left > 0 {
            self.edge.near.sweep(limits::SWEEP_BUCKETS);
            self.sweep_left = self.sweep_left.saturating_sub(limits::SWEEP_BUCKETS);
            if self.sweep_left > 0 {
                self.edge.out.yield_turn();
            }
        }
        self.edge.cut_groups();
        let edge = &mut self.edge;
        let requests_wait = std::mem::take(&mut self.requests_wait);
        edge.streams.handle_continue(now, requests_wait, &mut edge.out);
        edge.streams.report(&edge.observe);
        if let Some(feed) = &mut self.feed {
            feed.handle_continue(now, &mut self.edge.out);
        }
        self.turned_at = self.edge.out.is_yielding().then_some(now.mono);
    }

    fn file(&mut self, now: Now, op: Op, result: std::io::Result<Vec<u8>>) {
        match (op, &mut self.feed) {
            (Op::LastKnown(number), Some(feed)) => {
                feed.handle_file(now, number, result, &mut self.edge.out);
            }
            (Op::LastKnown(_), None) => {}
            (Op::Feed(_) | Op::Origin(_) | Op::Encoding(_), _) => {
                panic!("only what is kept on disk is a file")
            }
        }
    }

    fn resolved(&mut self, now: Now, op: Op, result: Result<Vec<SocketAddr>, ErrorKind>) {
        match op {
            Op::Origin(number) => self.edge.origin_resolved(now, number, result),
            Op::Feed(number) => {
                if let Some(feed) = &mut self.feed {
                    feed.handle_resolved(now, number, result, &mut self.edge.out);
                }
            }
            Op::LastKnown(_) | Op::Encoding(_) => panic!("only origins and control have names"),
        }
    }

    fn cold(&mut self, op: Op, result: std::io::Result<Vec<u8>>) {
        match op {
            Op::Encoding(number) => self.edge.encoded(number, result),
            Op::Feed(_) | Op::Origin(_) | Op::LastKnown(_) => panic!("only encodings are cold"),
        }
    }

    /// Tells connections and other shards what this input has moved on.
    fn tell(&mut self, now: Now) {
        loop {
            if let Some(at) = self.edge.notices.pop() {
                self.with_conn(at, |conn, edge| conn.wake(edge, now));
                continue;
            }
            if let Some((socket, request)) = self.edge.joins.pop() {
                let edge = &mut self.edge;
                match &mut self.feed {
                    Some(feed) => {
                        feed.join(now, socket, *request, edge.drain.is_some(), &mut edge.out);
                    }
                    None => edge.out.close(socket, Close::Abort),
                }
                continue;
            }
            if let Some(Wake { waiter, with }) = self.edge.wakes.pop() {
                if waiter.shard == self.edge.settings.shard {
                    self.wake(now, waiter.id, with);
                } else {
                    self.edge.out.mail(waiter.shard, Mail::Wake(Wake { waiter, with }));
                }
                continue;
            }
            let orphans = self.edge.cache.take_orphans();
            if orphans.is_empty() {
                return;
            }
            self.edge.wakes.extend(orphans);
        }
    }
}

impl Actor for Shard {
    type Mail = Mail;

    fn handle(&mut self, now: Now, input: Input<'_, Mail>) {
        self.edge.out.begin();
        self.edge.note_access_time(now);
        if !self.started {
            self.start(now);
        }
        match input {
            Input::Received { socket, bytes } => self.received(now, socket, bytes),
            Input::Sent { socket, result, payload } => self.sent(now, socket, result, payload),
            Input::Accepted { socket, listener, peer, .. } => {
                self.accepted(now, socket, listener, peer);
            }
            Input::Connected { op, result } => self.connected(now, Op::of(op), result),
            Input::Eof { socket } => self.gone(now, socket, false),
            Input::HungUp { socket } => self.gone(now, socket, true),
            Input::Writable { socket } => {
                let edge = &mut self.edge;
                if let Owner::Stream(stream) = edge.sockets.owner(socket) {
                    edge.streams.handle_writable(now, stream, socket, &mut edge.out);
                }
            }
            Input::SendFailed { socket, sent_bytes, error } => {
                let edge = &mut self.edge;
                if let Owner::Stream(stream) = edge.sockets.owner(socket) {
                    let out = &mut edge.out;
                    edge.streams.handle_send_failed(now, stream, socket, sent_bytes, error, out);
                }
            }
            Input::Closed { socket } => {
                self.edge.sockets.free(socket);
                self.edge.observe.set(Metric::Sockets, self.edge.sockets.open() as u64);
            }
            Input::Mail { from, mail } => self.mail(now, from, mail),
            Input::File { op, result } => self.file(now, Op::of(op), result),
            Input::Resolved { op, result } => self.resolved(now, Op::of(op), result),
            Input::Cold { op, result } => self.cold(Op::of(op), result),
            Input::Deadline => self.deadline(now),
            Input::Continue => self.turn(now),
            Input::Control(Control::Drain) => self.ask_drain(Order::Drain { then_stop: true }),
            Input::Control(Control::Reload) => self.reload(now),
        }
        self.tell(now);
        if self.edge.drain.is_some() {
            self.look_at_drain(now);
            self.tell(now);
        }
        // Last: what closes a socket has done so, and its `Closed` comes with a later input.
        while let Some(socket) = self.edge.out.pop_closing() {
            self.edge.sockets.set_owner(socket, Owner::Closing);
        }
    }

    fn poll_effect(&mut self) -> Option<Effect<Mail>> {
        self.edge.out.poll()
    }

    fn next_deadline(&self) -> Option<Mono> {
        if !self.started {
            return Some(Mono(0));
        }
        let feed = self.feed.as_ref().and_then(Feed::next_deadline);
        let drain = self.edge.drain.as_ref().and_then(Drain::next_deadline);
        let sweep = (!self.edge.near.is_empty()).then_some(self.sweep_at);
        let edge = &self.edge;
        let own = [edge.timers.next_deadline(), edge.streams.next_deadline(), sweep];
        let own = own.into_iter().chain([edge.access_due_at()]);
        own.chain([feed, drain]).flatten().min()
    }

    fn fanout_targets(&self, range: std::ops::Range<u32>) -> &[SocketId] {
        self.edge.out.targets(range)
    }
}
