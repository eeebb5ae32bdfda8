//! The connection on which an edge follows control's feed: finding it, asking, reading events, and
//! coming back when it breaks.
//!
//! ```text
//!   Waiting ─until─▶ Resolving ─▶ Connecting ─(next address)─▶ Asked ─200─▶ Following
//!      ▲                │             │                          │             │
//!      └── back-off ────┴─────────────┴──────────────────────────┴─── lost ◀───┘ silent 15 s
//! ```
//! Back-off grows from 100 ms to 5 s with jitter, and starts anew once the feed has moved on: an
//! event with an id, which the first beat is not. A session that breaks where the one before it did
//! comes back ever more slowly. A key that control does not accept is told plainly and tried again
//! slowly.
//!
//! Before control there may be other edges that relay its feed (`relay`), by the same protocol.
//! They are tried in order, at once one after the other, control at last; a round without any is
//! what the back-off counts. Who was followed and ends the connection is looked for anew from the
//! first one on; who is silent, or refuses, is left for the next one.
//!
//! Leaves to others: what an event means and where to resume (`feed`).

use std::{fmt, io, net::SocketAddr, sync::Arc};

use proto::{
    field::name::Known,
    http1::{
        client::{Client, ClientStep, Response, ResponseError},
        encode,
        head::{FieldSpace, Method},
    },
    sse::parse::{Event, Parser},
};

use super::{
    ControlLink,
    jitter::Jitter,
    out::{Op, Out},
};
use crate::{
    limits,
    seam::{Close, Mono, Now, Payload, Segment, SocketId},
};

/// The session.
pub struct Session {
    /// Whom to follow, in order.
    links: Vec<ControlLink>,
    /// Which of them is tried, or followed.
    at: usize,
    purpose: Purpose,
    /// Of those looked for, one that has answered.
    found: Option<usize>,
    /// This edge's name, told to those that relay.
    edge_id: Arc<str>,
    jitter: Jitter,
    state: State,
    /// Rounds lost in a row without an event with an id.
    failures: u32,
    next_number: u64,
    /// The address that last took a connection.
    address: Option<SocketAddr>,
    counts: Counts,
}

/// What a session is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Purpose {
    /// To follow. The last link is control.
    Follow,
    /// To see which of the edges that relay, all of them better than the one that is followed, can
    /// be followed again. One round; it has found one when an event has come.
    Look,
}

/// Counters since the start.
#[derive(Clone, Copy, Default, Debug, PartialEq, Eq)]
pub struct Counts {
    /// Sessions whose first event came.
    pub opened: u64,
    /// Sessions and attempts that ended.
    pub lost: u64,
}

/// Where to resume.
#[derive(Clone, Debug, Default)]
pub struct Resume {
    /// Text of the feed's cursor.
    pub last_event_id: Option<String>,
    /// Whether to ask for events that control still has from before.
    pub history: bool,
    /// Whether an edge that is followed may be told which topics are wanted.
    pub topics: bool,
}

/// What has come on a session.
#[derive(Debug)]
pub enum Heard<'e> {
    /// The answer. An edge lets this one say which topics it wants, up to so many; without it tells
    /// everything.
    Answer(Option<usize>),
    /// An event.
    Event(&'e Event<'e>),
}

enum State {
    /// Not started.
    Off,
    Waiting {
        until: Mono,
    },
    Resolving {
        number: u64,
        deadline: Mono,
    },
    Connecting {
        number: u64,
        deadline: Mono,
        to: SocketAddr,
        others: Vec<SocketAddr>,
    },
    Open(Box<Connection>),
}

struct Connection {
    socket: SocketId,
    client: Client,
    parser: Parser,
    /// The head said 200.
    following: bool,
    /// An event has come.
    heard_event: bool,
    /// An event with an id has.
    moved_on: bool,
    heard_at: Mono,
    receiving: bool,
    /// When the head of an answer is late.
    head_by: Option<Mono>,
    /// A send is under way.
    sending: bool,
}

/// Why a session, or an attempt at one, is over.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Lost {
    /// The name has no address.
    Resolve,
    /// No address took a connection.
    Connect,
    /// Nothing came for too long.
    Silent,
    /// The connection ended.
    Closed,
    /// The API key is not accepted.
    Unauthorized,
    /// Another status than 200.
    Refused(u16),
    /// 200, but no event stream.
    NotAFeed,
    /// Not HTTP.
    Response(ResponseError),
    /// An event over the limit.
    EventTooLarge,
    /// An event that is no record, or a cursor that cannot be read.
    Record,
    /// What is followed follows this edge itself, or through too many others.
    Loop,
    /// What is followed does not have what comes behind this edge's cursor.
    Unplaced,
}

impl fmt::Display for Lost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Resolve => f.write_str("its name has no address"),
            Self::Connect => f.write_str("it takes no connection"),
            Self::Silent => f.write_str("nothing came from it for too long"),
            Self::Closed => f.write_str("it ended the connection"),
            Self::Unauthorized => f.write_str(
                "it does not accept this edge's key. Control: check [control] key_file, or enrol \
                 the edge again with `pharos edge add`; an edge: check [control] via_key_file",
            ),
            Self::Refused(status) => write!(f, "it answered {status}"),
            Self::NotAFeed => f.write_str("what answers there has no feed"),
            Self::Response(error) => write!(f, "its answer is malformed: {error:?}"),
            Self::EventTooLarge => f.write_str("a record is over the limit"),
            Self::Record => f.write_str("a record cannot be read"),
            Self::Loop => f.write_str(
                "it follows this edge itself, or through too many others: check [control] via of \
                 both",
            ),
            Self::Unplaced => {
                f.write_str("it does not have what comes next here: another one must tell")
            }
        }
    }
}

impl Session {
    /// Not started. At least one link.
    pub fn new(links: Vec<ControlLink>, purpose: Purpose, edge_id: &Arc<str>, seed: u64) -> Self {
        let salt = if purpose == Purpose::Follow { SESSION_PURPOSE } else { LOOK_PURPOSE };
        Self {
            links,
            at: 0,
            purpose,
            found: None,
            edge_id: Arc::clone(edge_id),
            jitter: Jitter::new(seed, salt),
            state: State::Off,
            failures: 0,
            next_number: if purpose == Purpose::Follow { 0 } else { 2 },
            address: None,
            counts: Counts::default(),
        }
    }

    fn link(&self) -> &ControlLink {
        &self.links[self.at]
    }

    /// Whether control itself is tried, or followed.
    pub fn is_at_control(&self) -> bool {
        self.purpose == Purpose::Follow && self.at + 1 == self.links.len()
    }

    /// Which of the links is followed, if one is.
    pub fn following(&self) -> Option<usize> {
        self.is_following().then_some(self.at)
    }

    /// Whom it follows, or tries to.
    pub fn place(&self) -> String {
        host_of(self.link())
    }

    /// Which of the links can be followed, once one has answered as if it were.
    pub fn found(&self) -> Option<usize> {
        self.found
    }

    /// Whether it has come to the end of what it had to do.
    pub fn is_over(&self) -> bool {
        self.purpose == Purpose::Look && matches!(self.state, State::Waiting { .. })
    }

    /// Leaves whom it follows for another of the links, at once.
    pub fn turn_to(&mut self, now: Now, at: usize, out: &mut Out) {
        self.end(out);
        self.at = at.min(self.links.len() - 1);
        self.resolve(now, out);
    }

    /// Closes what is open.
    pub fn end(&mut self, out: &mut Out) {
        if let State::Open(open) = &self.state {
            out.close(open.socket, Close::Abort);
        }
        self.state = State::Off;
    }

    /// Counters since the start.
    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// Begins to look for control.
    pub fn start(&mut self, now: Now, out: &mut Out) {
        if matches!(self.state, State::Off) {
            self.resolve(now, out);
        }
    }

    /// Whether events come.
    pub fn is_following(&self) -> bool {
        matches!(&self.state, State::Open(open) if open.following)
    }

    /// Whether this socket is the session's.
    pub fn owns(&self, socket: SocketId) -> bool {
        matches!(&self.state, State::Open(open) if open.socket == socket)
    }

    /// Whether this operation is a session's: their numbers are even.
    pub fn owns_number(number: u64) -> bool {
        number.is_multiple_of(2)
    }

    /// Whose operation it is, if it is a session's.
    pub fn purpose_of(number: u64) -> Purpose {
        if number.is_multiple_of(4) { Purpose::Follow } else { Purpose::Look }
    }

    /// Where control took the connection.
    pub fn address(&self) -> Option<SocketAddr> {
        self.address.filter(|_| self.is_following())
    }

    /// When something last came.
    pub fn heard_at(&self) -> Option<Mono> {
        match &self.state {
            State::Open(open) if open.heard_event => Some(open.heard_at),
            _ => None,
        }
    }

    /// A look-up ended.
    pub fn handle_resolved(
        &mut self,
        now: Now,
        number: u64,
        result: Result<Vec<SocketAddr>, io::ErrorKind>,
        out: &mut Out,
    ) {
        if !matches!(self.state, State::Resolving { number: wanted, .. } if wanted == number) {
            return;
        }
        let mut addresses = result.unwrap_or_default();
        if addresses.is_empty() {
            return self.lose(now, Lost::Resolve, out);
        }
        addresses.truncate(limits::ORIGIN_ADDRESSES_MAX);
        addresses.reverse();
        self.connect(now, addresses, Lost::Resolve, out);
    }

    /// A connection attempt ended.
    pub fn handle_connected(
        &mut self,
        now: Now,
        number: u64,
        result: Result<SocketId, io::ErrorKind>,
        resume: &Resume,
        out: &mut Out,
    ) {
        match (&mut self.state, result) {
            (State::Connecting { number: wanted, to, .. }, Ok(socket)) if *wanted == number => {
                self.address = Some(*to);
                self.ask(now, socket, resume, out);
            }
            (State::Connecting { number: wanted, others, .. }, Err(_)) if *wanted == number => {
                let others = std::mem::take(others);
                self.connect(now, others, Lost::Connect, out);
            }
            // Given up meanwhile.
            (_, Ok(socket)) => out.close(socket, Close::Abort),
            (_, Err(_)) => {}
        }
    }

    /// A send ended.
    pub fn handle_sent(&mut self) {
        if let State::Open(open) = &mut self.state {
            open.sending = false;
        }
    }

    /// Whether something can be said to whom it follows.
    pub fn can_say(&self) -> bool {
        matches!(&self.state, State::Open(open) if open.following && !open.sending)
    }

    /// Says something to whom it follows, behind the request.
    pub fn say(&mut self, text: Vec<u8>, out: &mut Out) {
        if let State::Open(open) = &mut self.state {
            open.sending = true;
            out.send(open.socket, Payload::One(Segment::Owned(text)));
        }
    }

    /// Begins anew with whom it follows, at once.
    pub fn begin_anew(&mut self, now: Now, out: &mut Out) {
        let at = self.at;
        self.turn_to(now, at, out);
    }

    /// Bytes from control. The answer and each event are given to `take`.
    pub fn handle_received(
        &mut self,
        now: Now,
        bytes: &[u8],
        out: &mut Out,
        mut take: impl FnMut(Heard<'_>) -> Result<(), Lost>,
    ) {
        let State::Open(open) = &mut self.state else { return };
        open.heard_at = now.mono;
        let (was_following, heard_before) = (open.following, open.heard_event);
        let read = open.read(bytes, &mut take);
        if open.heard_event && !heard_before {
            self.counts.opened += 1;
            self.found = Some(self.at);
        }
        if open.moved_on {
            self.failures = 0;
        }
        if self.purpose == Purpose::Follow && self.is_following() && !was_following {
            let (from, is_control) = (self.place(), self.is_at_control());
            tracing::info!(%from, is_control, "following control's feed");
        }
        if let Err(lost) = read {
            self.lose(now, lost, out);
        }
    }

    /// Control ended the connection, or it broke.
    pub fn handle_gone(&mut self, now: Now, out: &mut Out) {
        self.lose(now, Lost::Closed, out);
    }

    /// A deadline may have passed.
    pub fn handle_deadline(&mut self, now: Now, out: &mut Out) {
        if self.next_deadline().is_none_or(|at| at > now.mono) {
            return;
        }
        match &mut self.state {
            State::Off => {}
            State::Waiting { .. } => self.resolve(now, out),
            State::Resolving { .. } => self.lose(now, Lost::Resolve, out),
            State::Connecting { others, .. } => {
                let others = std::mem::take(others);
                self.connect(now, others, Lost::Connect, out);
            }
            State::Open(_) => self.lose(now, Lost::Silent, out),
        }
    }

    /// When to call [`Session::handle_deadline`].
    pub fn next_deadline(&self) -> Option<Mono> {
        match &self.state {
            State::Off => None,
            State::Waiting { until } => Some(*until),
            State::Resolving { deadline, .. } | State::Connecting { deadline, .. } => {
                Some(*deadline)
            }
            // Control is not silent while it is not listened to.
            State::Open(open) if !open.receiving => None,
            State::Open(open) => {
                let silent_at = open.heard_at.after_ms(limits::FEED_SILENCE_MS_MAX);
                Some(open.head_by.map_or(silent_at, |by| by.min(silent_at)))
            }
        }
    }

    /// Another key, from the next session on; one that waits because of the old key starts at once.
    pub fn set_authorization(&mut self, now: Now, authorization: &Arc<str>, out: &mut Out) {
        let Some(control) = self.links.last_mut().filter(|_| self.purpose == Purpose::Follow)
        else {
            return;
        };
        if control.authorization == *authorization {
            return;
        }
        control.authorization = Arc::clone(authorization);
        if matches!(self.state, State::Waiting { .. }) {
            self.failures = 0;
            self.resolve(now, out);
        }
    }

    /// Reads on, or not: more is under way than the limits allow.
    pub fn set_receiving(&mut self, now: Now, on: bool, out: &mut Out) {
        if let State::Open(open) = &mut self.state
            && open.receiving != on
        {
            open.receiving = on;
            open.heard_at = now.mono;
            out.receive(open.socket, on);
        }
    }

    fn number(&mut self) -> u64 {
        self.next_number += 4;
        self.next_number
    }

    fn resolve(&mut self, now: Now, out: &mut Out) {
        let number = self.number();
        let deadline = now.mono.after_ms(limits::FEED_RESOLVE_MS_MAX);
        self.state = State::Resolving { number, deadline };
        let link = self.link();
        out.resolve(Op::Feed(number), link.host.to_string(), link.port);
    }

    /// Tries the next address, the last of the list.
    fn connect(&mut self, now: Now, mut to: Vec<SocketAddr>, none_left: Lost, out: &mut Out) {
        let Some(next) = to.pop() else { return self.lose(now, none_left, out) };
        let number = self.number();
        let deadline = now.mono.after_ms(limits::FEED_CONNECT_MS_MAX);
        self.state = State::Connecting { number, deadline, to: next, others: to };
        out.connect(Op::Feed(number), next);
    }

    fn ask(&mut self, now: Now, socket: SocketId, resume: &Resume, out: &mut Out) {
        let mut client = Client::new();
        client.begin(false);
        self.state = State::Open(Box::new(Connection {
            socket,
            client,
            parser: Parser::default(),
            following: false,
            heard_event: false,
            moved_on: false,
            heard_at: now.mono,
            receiving: true,
            sending: true,
            // Who relays answers at once, or something is wrong with it; control may have to look.
            head_by: (!self.is_at_control())
                .then(|| now.mono.after_ms(limits::RELAY_ANSWER_MS_MAX)),
        }));
        let topics = resume.topics && !self.is_at_control();
        let target = match (self.purpose, resume.history, topics) {
            (Purpose::Look, _, _) => "/v1/feed?look=1",
            (Purpose::Follow, true, false) => "/v1/feed?history=1",
            (Purpose::Follow, false, false) => "/v1/feed",
            // Who does not know of topics looks at the rest.
            (Purpose::Follow, true, true) => "/v1/feed?history=1&topics=1",
            (Purpose::Follow, false, true) => "/v1/feed?topics=1",
        };
        let mut request = request_head(Method::Get, target, self.link(), out);
        if !self.is_at_control() {
            encode::field(&mut request, EDGE_FIELD, self.edge_id.as_bytes())
                .expect("an edge's id was checked when the configuration was read");
        }
        request.extend_from_slice(b"Accept: text/event-stream\r\nCache-Control: no-store\r\n");
        if let Some(id) = &resume.last_event_id {
            let written = encode::known_field(&mut request, Known::LastEventId, id.as_bytes());
            debug_assert!(written.is_ok(), "a cursor's text has no line breaks");
        }
        encode::end(&mut request);
        out.send(socket, Payload::One(Segment::Owned(request)));
        out.receive(socket, true);
    }

    /// Gives up what there is, and comes back later.
    fn lose(&mut self, now: Now, lost: Lost, out: &mut Out) {
        if let State::Open(open) = &self.state {
            out.close(open.socket, Close::Abort);
        }
        self.counts.lost += 1;
        let (moved_on, heard) = match &self.state {
            State::Open(open) => (open.moved_on, open.heard_event),
            _ => (false, false),
        };
        let was_at_control = self.is_at_control();
        // The first one is looked for again when whom we followed has gone; the next one is tried
        // when this one is no good.
        let starts_anew = moved_on && lost == Lost::Closed;
        if !starts_anew && self.at + 1 < self.links.len() {
            if self.purpose == Purpose::Follow {
                let from = self.place();
                if heard {
                    tracing::warn!(%from, "{lost}: the next one is tried");
                } else {
                    tracing::debug!(%from, "{lost}: the next one is tried");
                }
            }
            self.at += 1;
            return self.resolve(now, out);
        }
        let from = self.place();
        self.at = 0;
        if self.purpose == Purpose::Look {
            self.state = State::Waiting { until: Mono(u64::MAX) };
            return;
        }
        let wait_ms = match lost {
            Lost::Unauthorized if was_at_control && self.links.len() == 1 => {
                self.jitter.half_to_three_halves(limits::FEED_UNAUTHORIZED_RETRY_MS)
            }
            _ => self.back_off_ms(),
        };
        self.failures = self.failures.saturating_add(1);
        // Each doubling once, so that a control that is away for a day does not fill the log.
        if self.failures.is_power_of_two() || lost == Lost::Unauthorized {
            let failures = self.failures;
            tracing::warn!(%from, failures, retry_after_ms = wait_ms, "{lost}");
        }
        self.state = State::Waiting { until: now.mono.after_ms(wait_ms) };
    }

    fn back_off_ms(&mut self) -> u64 {
        let doubled = limits::FEED_BACK_OFF_MS_MIN << self.failures.min(10);
        self.jitter
            .half_to_three_halves(doubled.min(limits::FEED_BACK_OFF_MS_MAX))
            .min(limits::FEED_BACK_OFF_MS_MAX)
    }
}

impl Connection {
    fn read(
        &mut self,
        mut input: &[u8],
        take: &mut impl FnMut(Heard<'_>) -> Result<(), Lost>,
    ) -> Result<(), Lost> {
        loop {
            let mut space = FieldSpace::new();
            match self.client.step(&mut input, &mut space) {
                ClientStep::Informational(_) => {}
                ClientStep::Head(response) => {
                    check_head(&response)?;
                    self.following = true;
                    self.head_by = None;
                    take(Heard::Answer(topics_max(&response)))?;
                }
                ClientStep::Body(mut content) => {
                    let parser = &mut self.parser;
                    while let Some(event) = parser.step(&mut content) {
                        take(Heard::Event(&event))?;
                        self.heard_event = true;
                        self.moved_on |= event.has_id;
                    }
                }
                ClientStep::End(_) => return Err(Lost::Closed),
                ClientStep::Failed(error) => return Err(Lost::Response(error)),
                ClientStep::NeedMore => return Ok(()),
            }
        }
    }
}

fn check_head(response: &Response<'_>) -> Result<(), Lost> {
    match response.head.status {
        200 => {}
        401 | 403 => return Err(Lost::Unauthorized),
        // What edges that relay say of this edge's cursor, and of its place in the tree.
        409 => return Err(Lost::Unplaced),
        508 => return Err(Lost::Loop),
        status => return Err(Lost::Refused(status)),
    }
    let content_type = response.head.fields.known(Known::ContentType).unwrap_or_default();
    if content_type.starts_with(b"text/event-stream") { Ok(()) } else { Err(Lost::NotAFeed) }
}

/// How many topics may be asked for, if so few that it matters what they are.
fn topics_max(response: &Response<'_>) -> Option<usize> {
    let mut fields = response.head.fields.iter();
    let (_, value) = fields.find(|(name, _)| name.eq_ignore_ascii_case(TOPICS_FIELD))?;
    std::str::from_utf8(value).ok()?.trim().parse().ok()
}

/// Request line and the fields of every request to control.
pub fn request_head(
    method: Method<'_>,
    target: &str,
    link: &ControlLink,
    out: &mut Out,
) -> Vec<u8> {
    let mut request = out.buffer();
    let host = host_of(link);
    let agent = concat!("pharos-edge/", env!("CARGO_PKG_VERSION"));
    encode::request_line(&mut request, &method, target).expect("targets toward control are ours");
    for (name, value) in [
        (Known::Host, host.as_str()),
        (Known::Authorization, &link.authorization),
        (Known::UserAgent, agent),
    ] {
        encode::known_field(&mut request, name, value.as_bytes())
            .expect("host and key were checked when the configuration was read");
    }
    request
}

fn host_of(link: &ControlLink) -> String {
    match link.host.contains(':') {
        true => format!("[{}]:{}", link.host, link.port),
        false => format!("{}:{}", link.host, link.port),
    }
}

/// Who asks, for edges that relay.
pub const EDGE_FIELD: &str = "Pharos-Edge";
/// How many topics may be asked for, from an edge that relays.
pub const TOPICS_FIELD: &str = "Pharos-Topics";
const SESSION_PURPOSE: u64 = 2;
const LOOK_PURPOSE: u64 = 7;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{seam::Effect, shard::mail::Mail};

    struct World {
        session: Session,
        out: Out,
        now: Now,
        events: Vec<String>,
    }

    impl World {
        fn new(seed: u64) -> Self {
            let link = ControlLink {
                host: "control.example".into(),
                port: 7400,
                authorization: "Bearer k".into(),
            };
            Self {
                session: Session::new(vec![link], Purpose::Follow, &"edge-1".into(), seed),
                out: Out::new(0, 1),
                now: Now::default(),
                events: Vec::new(),
            }
        }

        fn effects(&mut self) -> Vec<Effect<Mail>> {
            std::iter::from_fn(|| self.out.poll()).collect()
        }

        fn resolve(&mut self, addresses: &[&str]) {
            let effects = self.effects();
            let Some(Effect::Resolve { op, name, port }) = effects.last() else {
                panic!("{effects:?}")
            };
            assert_eq!((name.as_str(), *port), ("control.example", 7400));
            let Op::Feed(number) = Op::of(*op) else { panic!("the feed's") };
            let addresses = addresses.iter().map(|text| text.parse().expect("valid")).collect();
            self.session.handle_resolved(self.now, number, Ok(addresses), &mut self.out);
        }

        fn connect(&mut self, result: Result<SocketId, io::ErrorKind>) -> String {
            let effects = self.effects();
            let Some(Effect::Connect { op, to, .. }) = effects.last() else {
                panic!("{effects:?}")
            };
            let (op, to) = (*op, *to);
            let Op::Feed(number) = Op::of(op) else { panic!("the feed's") };
            let resume = Resume {
                last_event_id: Some("00000000000000ff.7.".into()),
                history: true,
                topics: true,
            };
            self.session.handle_connected(self.now, number, result, &resume, &mut self.out);
            to.to_string()
        }

        fn receive(&mut self, bytes: &[u8]) {
            let events = &mut self.events;
            self.session.handle_received(self.now, bytes, &mut self.out, |heard| {
                let Heard::Event(event) = heard else { return Ok(()) };
                events.push(event.name.to_string());
                if event.name == "bad" { Err(Lost::Record) } else { Ok(()) }
            });
        }

        fn open(&mut self) {
            self.session.start(self.now, &mut self.out);
            self.reopen();
        }

        fn reopen(&mut self) {
            self.resolve(&["10.0.0.1:7400"]);
            self.connect(Ok(SOCKET));
            self.effects();
            self.receive(HEAD);
        }

        /// How long until the next attempt.
        fn wait_ms(&self) -> u64 {
            assert!(matches!(self.session.state, State::Waiting { .. }));
            let until = self.session.next_deadline().expect("waiting");
            until.since_ns(self.now.mono) / 1_000_000
        }

        fn pass_ms(&mut self, ms: u64) {
            self.now.mono = self.now.mono.after_ms(ms);
            self.session.handle_deadline(self.now, &mut self.out);
        }
    }

    const SOCKET: SocketId = SocketId { slot: 3, generation: 1 };
    const HEAD: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\
        Transfer-Encoding: chunked\r\n\r\n";
    const BEAT: &[u8] = b"16\r\nevent: beat\ndata: {}\n\n\r\n";
    const MOVED_ON: &[u8] = b"1c\r\nevent: beat\nid: 7\ndata: {}\n\n\r\n";

    #[test]
    fn it_asks_with_its_key_and_where_to_resume() {
        let mut world = World::new(1);
        world.session.start(world.now, &mut world.out);
        world.resolve(&["10.0.0.1:7400"]);
        world.connect(Ok(SOCKET));
        let effects = world.effects();
        let Effect::Send { payload, .. } = &effects[0] else { panic!("{effects:?}") };
        let text = String::from_utf8_lossy(payload.segments()[0].as_slice()).into_owned();
        assert!(
            text.starts_with("GET /v1/feed?history=1 HTTP/1.1\r\nHost: control.example:7400\r\n")
        );
        for line in ["Authorization: Bearer k", "Last-Event-ID: 00000000000000ff.7."] {
            assert!(text.contains(&format!("\r\n{line}\r\n")), "{text}");
        }
        world.receive(HEAD);
        world.receive(BEAT);
        assert!(world.session.is_following());
        assert_eq!(world.events, ["beat"]);
    }

    #[test]
    fn addresses_are_tried_in_order() {
        let mut world = World::new(1);
        world.session.start(world.now, &mut world.out);
        world.resolve(&["10.0.0.1:7400", "10.0.0.2:7400"]);
        assert_eq!(world.connect(Err(io::ErrorKind::ConnectionRefused)), "10.0.0.1:7400");
        assert_eq!(world.connect(Ok(SOCKET)), "10.0.0.2:7400");
        world.effects();
        world.receive(HEAD);
        assert_eq!(
            world.session.address().map(|to| to.to_string()).as_deref(),
            Some("10.0.0.2:7400")
        );
    }

    #[test]
    fn back_off_grows_to_its_maximum_and_starts_anew_after_an_event_with_an_id() {
        let mut longest = 0;
        for seed in 0..20 {
            let mut world = World::new(seed);
            world.session.start(world.now, &mut world.out);
            let mut waits = Vec::new();
            for _ in 0..12 {
                world.resolve(&["10.0.0.1:7400"]);
                world.connect(Err(io::ErrorKind::ConnectionRefused));
                waits.push(world.wait_ms());
                world.pass_ms(*waits.last().expect("some"));
            }
            assert!((50..=150).contains(&waits[0]), "{waits:?}");
            assert!((400..=1200).contains(&waits[3]), "{waits:?}");
            assert!(waits.iter().all(|wait| *wait <= 5000), "{waits:?}");
            assert!(waits[8..].iter().all(|wait| *wait >= 2500), "{waits:?}");
            longest = longest.max(waits[11]);
            world.reopen();
            world.receive(BEAT);
            world.session.handle_gone(world.now, &mut world.out);
            assert!(world.wait_ms() >= 2500, "the first beat says nothing of what comes behind it");
            world.pass_ms(5000);
            world.reopen();
            world.receive(BEAT);
            world.receive(MOVED_ON);
            world.session.handle_gone(world.now, &mut world.out);
            assert!((50..=150).contains(&world.wait_ms()), "anew");
        }
        assert_eq!(longest, 5000);
    }

    #[test]
    fn an_event_over_the_limit_does_not_end_the_session() {
        let mut world = World::new(1);
        world.open();
        world.receive(BEAT);
        let data = "a".repeat(proto::limits::EVENT_BYTES_MAX);
        let event = format!("event: publish\nid: 7\ndata: {data}\n\n");
        let chunk = format!("{:x}\r\n{event}\r\n", event.len());
        for piece in chunk.as_bytes().chunks(16 * 1024) {
            world.receive(piece);
        }
        world.receive(BEAT);
        assert!(world.session.is_following());
        assert_eq!(world.events, ["beat", "publish", "beat"]);
    }

    #[test]
    fn a_silent_control_is_left_and_looked_for_again() {
        let mut world = World::new(1);
        world.open();
        world.pass_ms(14_000);
        world.receive(BEAT);
        world.pass_ms(14_000);
        assert!(world.session.is_following());
        world.effects();
        world.pass_ms(1_001);
        assert!(!world.session.is_following());
        assert!(matches!(world.effects()[..], [Effect::Close { socket: SOCKET, .. }]));
    }

    #[test]
    fn silence_does_not_count_while_it_is_not_listened_to() {
        let mut world = World::new(1);
        world.open();
        world.session.set_receiving(world.now, false, &mut world.out);
        world.pass_ms(60_000);
        assert!(world.session.is_following());
        world.session.set_receiving(world.now, true, &mut world.out);
        world.pass_ms(14_000);
        assert!(world.session.is_following());
    }

    #[test]
    fn a_key_that_is_not_accepted_is_tried_again_slowly() {
        let mut world = World::new(1);
        world.session.start(world.now, &mut world.out);
        world.resolve(&["10.0.0.1:7400"]);
        world.connect(Ok(SOCKET));
        world.receive(b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\r\n");
        assert!(world.wait_ms() >= 15_000, "{}", world.wait_ms());
    }

    #[test]
    fn another_key_is_tried_at_once_by_a_session_that_waits() {
        let mut world = World::new(7);
        world.session.start(world.now, &mut world.out);
        world.resolve(&["10.0.0.1:7400"]);
        world.connect(Ok(SOCKET));
        world.receive(b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\r\n");
        world.effects();
        let (same, other): (Arc<str>, Arc<str>) = ("Bearer k".into(), "Bearer l".into());
        world.session.set_authorization(world.now, &same, &mut world.out);
        assert!(world.effects().is_empty(), "the key that was refused is tried again slowly");
        world.session.set_authorization(world.now, &other, &mut world.out);
        world.resolve(&["10.0.0.1:7400"]);
        world.connect(Ok(SOCKET));
        let sent = world.effects().into_iter().find_map(|effect| match effect {
            Effect::Send { payload, .. } => Some(payload.segments()[0].as_slice().to_vec()),
            _ => None,
        });
        let request = String::from_utf8(sent.expect("a request")).expect("text");
        assert!(request.contains("Authorization: Bearer l\r\n"), "{request}");
    }

    #[test]
    fn what_is_no_feed_is_left() {
        for answer in [
            &b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 3\r\n\r\nabc"[..],
            b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n",
            b"SSH-2.0-OpenSSH_9\r\n",
        ] {
            let mut world = World::new(1);
            world.session.start(world.now, &mut world.out);
            world.resolve(&["10.0.0.1:7400"]);
            world.connect(Ok(SOCKET));
            world.receive(answer);
            assert!(world.wait_ms() <= 150);
        }
        let mut world = World::new(1);
        world.open();
        world.receive(b"15\r\nevent: bad\ndata: {}\n\n\r\n");
        assert!(!world.session.is_following());
    }

    #[test]
    fn a_connection_that_comes_too_late_is_closed() {
        let mut world = World::new(1);
        world.session.start(world.now, &mut world.out);
        world.resolve(&["10.0.0.1:7400"]);
        let effects = world.effects();
        let Effect::Connect { op, .. } = effects[0] else { panic!("{effects:?}") };
        let Op::Feed(number) = Op::of(op) else { panic!("the feed's") };
        world.pass_ms(limits::FEED_CONNECT_MS_MAX);
        let resume = Resume::default();
        world.session.handle_connected(world.now, number, Ok(SOCKET), &resume, &mut world.out);
        assert!(matches!(world.effects()[..], [Effect::Close { socket: SOCKET, .. }]));
    }
}
