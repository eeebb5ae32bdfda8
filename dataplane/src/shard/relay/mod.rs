//! Relays the feed to other edges, which follow this one instead of control; on shard 0 only.
//!
//! ```text
//!   control ─feed─▶ session ─┬─▶ intake, fence: this edge's own
//!                            └─▶ Log ─▶ Child, Child, … ─▶ their sessions
//! ```
//! One protocol: what an edge asks of another is what it asks of control, and what it gets is what
//! control has sent, byte for byte and in the same order. It keeps its own fence, and so purges
//! come before their events on every edge of a tree. A record is sent on as it comes, not when it
//! is applied here: nobody waits for another edge's shards.
//!
//! Only beats are changed: each edge puts its own name in. Who finds himself among the names, or
//! too many of them, follows someone else: that is how loops are seen, whoever made them.
//!
//! Leaves to others: the connection to whom this edge follows (`session`), what is to be done here
//! (`intake`), requests (`request`).

mod child;
mod filter;
mod log;
mod past;

use std::sync::Arc;

use proto::{
    feed::{
        cursor::FeedCursor,
        record::{Beat, Publish, Record},
    },
    field::name::Known,
    http1::{
        encode,
        head::{Method, RequestHead},
        server::Request,
    },
};

pub(super) use self::child::Ground;
use self::{
    child::{Child, Cut, frame, text_frame},
    filter::Filter,
    log::{Log, Place, Told},
};
use super::{
    Edge,
    conn::Exchange,
    observe::{Metric, Observe},
    out::Out,
    request::{AskedRef, only_get},
    respond::{Own, Writer},
    secret::SecretHash,
    session::{EDGE_FIELD, TOPICS_FIELD},
};
use crate::{
    limits,
    seam::{Close, ListenerId, Mono, Now, Payload, Segment, SocketId},
};

/// What an edge is told of relaying.
#[derive(Clone, Debug)]
pub struct RelaySettings {
    /// The listener that edges come in by; shard 0 has it alone.
    pub listener: ListenerId,
    /// The key that they must have.
    pub key: SecretHash,
    /// How many may follow at a time.
    pub children_max: u32,
    /// For how many topics each may ask instead of being told all; 0 tells all, as an edge does
    /// that knows nothing of it.
    pub topics_max: u32,
}

/// An edge's request to follow this one.
#[derive(Debug)]
pub struct JoinRequest {
    /// Its id, as it says.
    edge: Box<str>,
    /// Where it is: nothing, a cursor, or something that is none.
    cursor: Option<Result<FeedCursor, ()>>,
    /// It wants events from before.
    history: bool,
    /// It only looks whether it could.
    look: bool,
    /// It will say which topics it wants.
    topics: bool,
}

/// The edges that follow this one.
pub struct Relay {
    own_id: Arc<str>,
    children_max: u32,
    topics_max: u32,
    log: Log,
    /// The edges between control and those that follow, this one the last.
    path: Vec<String>,
    children: Vec<Child>,
    /// Their ids have changed since they were last reported.
    has_news: bool,
    observe: Observe,
}

/// An event of the feed, as this edge has just taken it.
#[derive(Debug)]
pub(super) struct Taken<'t> {
    pub kind: &'t str,
    pub data: &'t str,
    pub cursor: Option<&'t FeedCursor>,
    /// It, if it is an event of a topic.
    pub event: Option<Arc<Publish>>,
    /// No events from before are to be expected any more.
    pub refilled: bool,
}

impl Relay {
    /// Nobody follows yet.
    pub fn new(settings: &RelaySettings, own_id: &Arc<str>, observe: Observe) -> Self {
        Self {
            own_id: Arc::clone(own_id),
            children_max: settings.children_max,
            topics_max: settings.topics_max,
            log: Log::new(),
            path: vec![own_id.to_string()],
            children: Vec::new(),
            has_news: false,
            observe,
        }
    }

    /// Whether this socket is an edge's that follows.
    pub fn owns(&self, socket: SocketId) -> bool {
        self.children.iter().any(|child| child.socket == socket)
    }

    /// Ids of those that follow, sorted.
    pub fn children(&self) -> Vec<String> {
        let mut ids: Vec<String> =
            self.children.iter().map(|child| child.edge.to_string()).collect();
        ids.sort_unstable();
        ids.dedup();
        ids
    }

    /// Whether others follow now than when this was last asked.
    pub fn take_news(&mut self) -> bool {
        std::mem::take(&mut self.has_news)
    }

    /// What was on disk is where this edge goes on.
    pub fn restored(&mut self, cursor: &FeedCursor) {
        self.log.restored(cursor);
    }

    /// A session with whom this edge follows begins, and asks for events from before, or not.
    pub fn session_begins(&mut self, history: bool) {
        self.log.session_begins(history);
    }

    /// An event of the feed was taken.
    pub(super) fn take(&mut self, taken: Taken<'_>) {
        let Taken { kind, data, cursor, event, refilled } = taken;
        let id = cursor.map(ToString::to_string);
        let frame = match kind {
            "beat" => match Record::parse(kind, data) {
                Ok(Record::Beat(mut beat)) => {
                    beat.path.push(self.own_id.to_string());
                    self.path.clone_from(&beat.path);
                    frame(&Record::Beat(beat), id.as_deref())
                }
                // It was read a moment ago.
                _ => return,
            },
            _ => text_frame(kind, id.as_deref(), data),
        };
        self.log.push(Told { kind, frame, cursor, event }, refilled);
    }

    /// An event was over the limit: it cannot be relayed, and what follows does not follow.
    pub fn break_off(&mut self, cursor: Option<&FeedCursor>, out: &mut Out) {
        self.log.break_off(cursor);
        self.cut_all(Cut::Broken, out);
    }

    /// Nobody follows an edge that drains.
    pub fn drain(&mut self, out: &mut Out) {
        if !self.children.is_empty() {
            self.cut_all(Cut::Draining, out);
            self.report();
        }
    }

    fn cut_all(&mut self, why: Cut, out: &mut Out) {
        for child in std::mem::take(&mut self.children) {
            self.cut(&child, why, out);
        }
    }

    fn cut(&mut self, child: &Child, why: Cut, out: &mut Out) {
        tracing::info!(edge = %child.edge, "an edge that followed is sent elsewhere: {}", why.word());
        self.has_news = true;
        let metric = match why {
            Cut::Stalled => Metric::RelayCutStalled,
            Cut::Lagging => Metric::RelayCutLagging,
            Cut::Unplaced => Metric::RelayCutUnplaced,
            Cut::Garbled => Metric::RelayCutGarbled,
            Cut::Broken => Metric::RelayCutBroken,
            Cut::Draining => Metric::RelayCutDraining,
        };
        self.observe.count(metric);
        out.close(child.socket, Close::Abort);
    }

    /// An edge asks to follow. Its socket is this machine's if it is let in, and closed if not.
    pub fn join(
        &mut self,
        now: Now,
        socket: SocketId,
        request: JoinRequest,
        draining: bool,
        out: &mut Out,
    ) {
        let refused = self.refusal(&request, draining);
        if let Some((status, text)) = refused {
            self.observe.count(Metric::RelayRefused);
            tracing::info!(edge = %request.edge, status, "an edge may not follow: {text}");
            let mut answer = out.buffer();
            encode::status_line(&mut answer, status);
            answer.extend_from_slice(REFUSAL_FIELDS);
            encode::content_length(&mut answer, text.len() as u64 + 1);
            encode::end(&mut answer);
            answer.extend_from_slice(text.as_bytes());
            answer.push(b'\n');
            out.send(socket, Payload::One(Segment::Owned(answer)));
            return out.close(socket, Close::Graceful);
        }
        let mut answer = out.buffer();
        answer.extend_from_slice(HEAD);
        let topics_max = self.topics_max;
        let asks = request.topics && !request.look && topics_max > 0;
        let filter = asks.then(|| Filter::new(topics_max));
        if asks {
            let topics_max = topics_max.to_string();
            encode::field(&mut answer, TOPICS_FIELD, topics_max.as_bytes())
                .expect("a number is no line break");
        }
        encode::date_field(&mut answer, Known::Date, (now.wall_ms / 1000) as i64);
        encode::end(&mut answer);
        let beat =
            Beat { sent_at_ms: now.wall_ms, replica: None, circle: None, path: self.path.clone() };
        answer.extend_from_slice(&frame(&Record::Beat(beat), None));
        if request.look {
            answer.extend_from_slice(LAST_CHUNK);
            out.send(socket, Payload::One(Segment::Owned(answer)));
            return out.close(socket, Close::Graceful);
        }
        out.send(socket, Payload::One(Segment::Owned(answer)));
        out.receive(socket, true);
        // An edge that comes back is not followed by its own shadow.
        let shadow = self.children.iter().position(|child| child.edge == request.edge);
        if let Some(at) = shadow {
            let old = self.children.swap_remove(at);
            out.close(old.socket, Close::Abort);
        }
        let cursor = request.cursor.and_then(Result::ok);
        tracing::info!(edge = %request.edge, cursor = ?cursor.as_ref().map(ToString::to_string),
            history = request.history, topics = request.topics, "an edge follows");
        let child = Child::new(now, socket, request.edge, cursor, request.history, filter);
        self.children.push(child);
        self.has_news = true;
        self.observe.count(Metric::RelayJoined);
    }

    /// Why an edge cannot follow, as a status and in words.
    fn refusal(&self, request: &JoinRequest, draining: bool) -> Option<(u16, &'static str)> {
        // Who asks for topics asks for the past of each.
        let asks = request.topics && self.topics_max > 0;
        if self.path.iter().any(|id| **id == *request.edge) {
            return Some((508, "This edge follows you: that would be a loop."));
        }
        if self.path.len() >= limits::RELAY_HOPS_MAX {
            return Some((508, "Too many edges lie between this one and control."));
        }
        if draining {
            return Some((503, "This edge drains."));
        }
        let is_known = self.children.iter().any(|child| child.edge == request.edge);
        if self.children.len() >= self.children_max as usize && !is_known {
            return Some((503, "As many edges follow this one as may (relay.children_max)."));
        }
        match &request.cursor {
            Some(Err(())) => Some((409, "The cursor cannot be read.")),
            Some(Ok(cursor)) => match self.log.place(cursor) {
                Place::With(_) if request.history && !asks && self.log.has_no_past() => {
                    Some((409, "Events from before are not held here any more."))
                }
                Place::With(_) => None,
                // Who has a feed does not leave it to wait here.
                Place::Ahead if !request.look => None,
                Place::Ahead => Some((409, "This edge is behind that cursor.")),
                Place::Unknown => Some((409, "What comes behind this cursor is not held here.")),
            },
            None => None,
        }
    }

    /// An edge says which topics it wants.
    pub fn handle_received(&mut self, socket: SocketId, bytes: &[u8], out: &mut Out) {
        let Some(at) = self.children.iter().position(|child| child.socket == socket) else {
            return;
        };
        // Who was not asked for topics has nothing to say.
        let Some(filter) = &mut self.children[at].filter else { return };
        if filter.read(bytes).is_err() {
            let child = self.children.swap_remove(at);
            self.cut(&child, Cut::Garbled, out);
        }
    }

    /// A send ended well.
    pub fn handle_sent(&mut self, socket: SocketId, bytes: usize) {
        self.observe.add(Metric::RelaySentBytes, bytes as u64);
        if let Some(child) = self.children.iter_mut().find(|child| child.socket == socket) {
            child.sent();
        }
    }

    /// An edge ended its connection.
    pub fn handle_gone(&mut self, socket: SocketId, out: &mut Out) {
        if let Some(at) = self.children.iter().position(|child| child.socket == socket) {
            let child = self.children.swap_remove(at);
            tracing::info!(edge = %child.edge, "an edge follows no more");
            self.has_news = true;
            out.close(socket, Close::Abort);
        }
    }

    /// Sends everyone what comes next.
    pub(super) fn go_on(&mut self, now: Now, ground: Ground<'_>, out: &mut Out) {
        let mut at = 0;
        while let Some(child) = self.children.get_mut(at) {
            let served = child.go_on(now, &self.log, ground);
            self.observe.add(Metric::RelayFiltered, std::mem::take(&mut child.left_out));
            self.observe.add(Metric::RelayBegun, std::mem::take(&mut child.begun));
            match served {
                Ok(payload) => {
                    if let Some(payload) = payload {
                        out.send(child.socket, payload);
                    }
                    at += 1;
                }
                Err(why) => {
                    let child = self.children.swap_remove(at);
                    self.cut(&child, why, out);
                }
            }
        }
        self.report();
    }

    fn report(&self) {
        self.observe.set(Metric::RelayChildren, self.children.len() as u64);
        let filters = self.children.iter().filter_map(|child| child.filter.as_ref());
        self.observe.set(Metric::RelayTopics, filters.map(Filter::count).sum::<usize>() as u64);
        self.observe.set(Metric::RelayLogBytes, self.log.bytes() as u64);
    }

    /// When to call [`Relay::go_on`] for time alone.
    pub fn next_deadline(&self) -> Option<Mono> {
        self.children.iter().filter_map(Child::next_deadline).min()
    }
}

impl Edge {
    /// Answers a request of the listener that edges come in by.
    pub(super) fn follow(
        &mut self,
        now: Now,
        request: &Request<'_>,
        asked: AskedRef<'_>,
        writer: &mut Writer,
    ) -> Exchange {
        let head = &request.head;
        let key = self.settings.relay.as_ref().map(|relay| &relay.key);
        let own = match (head.target.path(), head.method) {
            _ if !key.is_some_and(|key| has_key(head, key)) => {
                self.observe.count(Metric::RelayRefused);
                let fields = "WWW-Authenticate: Bearer realm=\"relay\"\r\n";
                Own { fields, ..Own::text(401, "The key of this edge's [relay] is missing.") }
            }
            ("/v1/feed", Method::Get) => {
                return Exchange::Join(Box::new(JoinRequest::of(head)));
            }
            ("/v1/feed", _) => only_get(),
            _ => Own::text(404, "There is only /v1/feed."),
        };
        self.own(now, &own, asked, writer)
    }
}

impl JoinRequest {
    fn of(head: &RequestHead<'_>) -> Self {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let edge = head.fields.iter().find(|(name, _)| name.eq_ignore_ascii_case(EDGE_FIELD));
        let edge = edge.map(|(_, value)| text(value)).unwrap_or_default();
        let edge: String = edge.chars().take(ID_BYTES_MAX).collect();
        let id = head.fields.known(Known::LastEventId);
        let says =
            |what| head.target.query().is_some_and(|query| query.split('&').any(|it| it == what));
        Self {
            edge: edge.into(),
            cursor: id.map(|id| text(id).parse().map_err(drop)),
            history: says("history=1"),
            look: says("look=1"),
            topics: says("topics=1"),
        }
    }
}

fn has_key(head: &RequestHead<'_>, key: &SecretHash) -> bool {
    let field = head.fields.known(Known::Authorization).unwrap_or_default();
    field.strip_prefix(b"Bearer ").is_some_and(|given| key.is(given))
}

/// Bytes of an edge's id, as `edge.toml` may name it.
const ID_BYTES_MAX: usize = 63;
const HEAD: &[u8] = b"HTTP/1.1 200 OK\r\n\
    Content-Type: text/event-stream\r\n\
    Cache-Control: no-store\r\n\
    X-Accel-Buffering: no\r\n\
    Transfer-Encoding: chunked\r\n";
const LAST_CHUNK: &[u8] = b"0\r\n\r\n";
const REFUSAL_FIELDS: &[u8] = b"Content-Type: text/plain; charset=utf-8\r\n\
    Cache-Control: no-store\r\n\
    Connection: close\r\n";
