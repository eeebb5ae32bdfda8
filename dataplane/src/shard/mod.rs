//! The shard: one core's part of the edge, as a pure machine. This file is its tables and the one
//! `match` over inputs.
//!
//! ```text
//!             ┌────────────── Shard ───────────────┐
//!  Input ───▶ │ ConnTable: slot → Owner            │
//!             │   Http ─────▶ conn  ──▶ route, cache, fetch
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
//! Leaves to others: the kernel (`engine`), bytes ↔ messages (`proto`), what may be served
//! (`cache`).

pub mod conn_table;
pub mod fanout;
pub mod feed;
pub mod heartbeat;
pub mod history;
pub mod jitter;
pub mod mail;
pub mod observe;
pub mod origin;
pub mod out;
pub mod route;
pub mod slow_consumer;
pub mod stream;
pub mod timers;
pub mod topic;

use std::{net::SocketAddr, path::PathBuf, sync::Arc};

use proto::feed::site::Site;

use self::{
    conn_table::{ConnTable, Owner},
    feed::Feed,
    mail::{FeedState, Mail},
    out::{Op, Out},
    stream::Streams,
};
use crate::seam::{
    Actor, Close, Control, Effect, Input, ListenerId, Mono, Now, Payload, ShardId, SocketId,
};

/// What a shard is made with. Cloned for each shard, with its own `shard` and `seed`.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Which shard; 0 holds the feed.
    pub shard: ShardId,
    /// Shards of this process.
    pub shard_count: u16,
    /// Seeds hashes and jitter of this shard; all randomness derives from it.
    pub seed: u64,
    /// The edge's id, in `Via`, `CDN-Loop` and reports to control.
    pub edge_id: Arc<str>,
    /// The PoP's name.
    pub pop: Arc<str>,
    /// Control, if this edge has one; else `sites` is all there is.
    pub control: Option<ControlLink>,
    /// Sites from `edge.toml`; only without control.
    pub sites: Arc<[Site]>,
    /// Folder for what is kept on disk; nothing is kept without one.
    pub data: Option<PathBuf>,
    /// The listener that answers `/livez` and the like, and never sites.
    pub admin_listener: Option<ListenerId>,
    /// Listeners of this shard, the admin one included.
    pub listener_count: u16,
    /// Most streams on this shard. Beyond: refused as DESIGN §7 says, by `200`, `retry:` and a
    /// close.
    pub streams_max: u32,
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
    settings: Settings,
    out: Out,
    sockets: ConnTable,
    streams: Streams,
    feed: Option<Feed>,
    feed_state: Arc<FeedState>,
    watermark: u64,
    started: bool,
    /// Requests came since the last turn that was asked for.
    requests_wait: bool,
}

impl Shard {
    /// A shard that has not begun: it does so with its first input, which comes at once because
    /// [`Actor::next_deadline`] lies in the past until then.
    pub fn new(settings: Settings) -> Self {
        Self {
            out: Out::new(settings.shard, settings.shard_count),
            sockets: ConnTable::new(settings.seed),
            streams: Streams::new(&settings),
            feed: Feed::new(&settings),
            feed_state: Arc::default(),
            watermark: 0,
            started: false,
            requests_wait: false,
            settings,
        }
    }

    fn start(&mut self, now: Now) {
        self.started = true;
        if let Some(feed) = &mut self.feed {
            feed.start(now, &mut self.out);
        }
    }

    fn accepted(&mut self, now: Now, socket: SocketId, listener: ListenerId, peer: SocketAddr) {
        let _ = (now, listener);
        let allowed = self.sockets.open_peer(socket, peer, Owner::Http(0));
        if !allowed {
            self.out.close(socket, Close::Abort);
        }
    }

    fn connected(&mut self, now: Now, op: Op, result: Result<SocketId, std::io::ErrorKind>) {
        match op {
            Op::Feed(number) => {
                if let Ok(socket) = result {
                    self.sockets.open_own(socket, Owner::Feed);
                }
                if let Some(feed) = &mut self.feed {
                    feed.handle_connected(now, number, result, &mut self.out);
                }
            }
            Op::Origin(_) | Op::LastKnown(_) => {}
        }
    }

    fn received(&mut self, now: Now, socket: SocketId, bytes: &[u8]) {
        self.requests_wait = true;
        match self.sockets.owner(socket) {
            Owner::Feed => {
                if let Some(feed) = &mut self.feed {
                    feed.handle_received(now, socket, bytes, &mut self.out);
                }
            }
            // A stream's client has nothing to say; what it had pipelined behind its request is
            // dropped.
            Owner::Stream(_) | Owner::Closing | Owner::Free => {}
            Owner::Http(_) | Owner::Upstream(_) | Owner::Idle(_) => {}
        }
    }

    fn gone(&mut self, now: Now, socket: SocketId) {
        match self.sockets.owner(socket) {
            Owner::Stream(stream) => self.streams.handle_gone(now, stream, socket, &mut self.out),
            Owner::Feed => {
                if let Some(feed) = &mut self.feed {
                    feed.handle_gone(now, socket, &mut self.out);
                }
            }
            Owner::Http(_) | Owner::Upstream(_) | Owner::Idle(_) | Owner::Closing | Owner::Free => {
            }
        }
    }

    fn sent(
        &mut self,
        now: Now,
        socket: SocketId,
        result: Result<(), std::io::ErrorKind>,
        payload: Payload,
    ) {
        match self.sockets.owner(socket) {
            Owner::Stream(stream) => {
                self.streams.handle_sent(now, stream, socket, result, payload, &mut self.out);
            }
            Owner::Feed => {
                if let Some(feed) = &mut self.feed {
                    feed.handle_sent(now, socket, result, payload, &mut self.out);
                }
            }
            Owner::Http(_) | Owner::Upstream(_) | Owner::Idle(_) | Owner::Closing | Owner::Free => {
                self.out.recycle(payload)
            }
        }
    }

    fn mail(&mut self, now: Now, from: ShardId, mail: Mail) {
        match mail {
            Mail::Config(_change) => {}
            // Each input is handled whole, so between two inputs every shard stands at a turn
            // boundary.
            Mail::Purge { ticket } => {
                self.out.mail(from, Mail::PurgePassed { ticket, from: self.settings.shard });
            }
            Mail::PurgePassed { ticket, from } => {
                if let Some(feed) = &mut self.feed {
                    feed.handle_purge_passed(now, ticket, from, &mut self.out);
                }
            }
            Mail::Publish(record) => self.streams.handle_publish(now, &record, &mut self.out),
            Mail::Applied { applied, how } => {
                self.streams.handle_applied(now, &applied, how, &mut self.out);
            }
            Mail::Watermark(position) => self.watermark = self.watermark.max(position),
            Mail::FeedState(state) => self.feed_state = state,
            Mail::Wake { .. } => {}
            Mail::Drain { .. } => {}
        }
    }

    fn deadline(&mut self, now: Now) {
        self.streams.handle_deadline(now, &mut self.out);
        if let Some(feed) = &mut self.feed {
            feed.handle_deadline(now, &mut self.out);
        }
    }

    fn control(&mut self, now: Now, control: Control) {
        let _ = (now, control);
    }
}

impl Actor for Shard {
    type Mail = Mail;

    fn handle(&mut self, now: Now, input: Input<'_, Mail>) {
        self.out.begin();
        if !self.started {
            self.start(now);
        }
        match input {
            Input::Received { socket, bytes } => self.received(now, socket, bytes),
            Input::Sent { socket, result, payload } => self.sent(now, socket, result, payload),
            Input::Accepted { socket, listener, peer, .. } => {
                self.accepted(now, socket, listener, peer)
            }
            Input::Connected { op, result } => self.connected(now, Op::of(op), result),
            Input::Eof { socket } | Input::HungUp { socket } => self.gone(now, socket),
            Input::Writable { socket } => {
                if let Owner::Stream(stream) = self.sockets.owner(socket) {
                    self.streams.handle_writable(now, stream, socket, &mut self.out);
                }
            }
            Input::SendFailed { socket, sent_bytes, error } => {
                if let Owner::Stream(stream) = self.sockets.owner(socket) {
                    self.streams.handle_send_failed(
                        now,
                        stream,
                        socket,
                        sent_bytes,
                        error,
                        &mut self.out,
                    );
                }
            }
            Input::Closed { socket } => {
                self.sockets.free(socket);
            }
            Input::Mail { from, mail } => self.mail(now, from, mail),
            Input::File { op, result } => {
                if let (Op::LastKnown(number), Some(feed)) = (Op::of(op), &mut self.feed) {
                    feed.handle_file(now, number, result, &mut self.out);
                }
            }
            Input::Resolved { op, result } => {
                if let (Op::Feed(number), Some(feed)) = (Op::of(op), &mut self.feed) {
                    feed.handle_resolved(now, number, result, &mut self.out);
                }
            }
            Input::Deadline => self.deadline(now),
            Input::Continue => {
                self.out.continued();
                let requests_wait = std::mem::take(&mut self.requests_wait);
                self.streams.handle_continue(now, requests_wait, &mut self.out);
                if let Some(feed) = &mut self.feed {
                    feed.handle_continue(now, &mut self.out);
                }
            }
            Input::Control(control) => self.control(now, control),
        }
        while let Some(socket) = self.out.pop_closing() {
            self.sockets.set_owner(socket, Owner::Closing);
        }
    }

    fn poll_effect(&mut self) -> Option<Effect<Mail>> {
        self.out.poll()
    }

    fn next_deadline(&self) -> Option<Mono> {
        if !self.started {
            return Some(Mono(0));
        }
        let feed = self.feed.as_ref().and_then(Feed::next_deadline);
        [self.streams.next_deadline(), feed].into_iter().flatten().min()
    }

    fn fanout_targets(&self, range: std::ops::Range<u32>) -> &[SocketId] {
        self.out.targets(range)
    }
}
