//! One downstream connection: received bytes → requests → answers, in order, one exchange at a
//! time.
//!
//! ```text
//!            Received                    at once: next request of the same receive
//!   ┌──────┐ ───────▶ proto's Server ──▶ request ──────────────────────────┐
//!   │ idle │                                │ later                        ▼
//!   └──────┘ ◀── done, nothing left ── Exchange ◀─ wake: fetch, entry ─ Writer ──▶ one Send
//! ```
//! All answers to one receive gather in the writer and leave in one send. While an answer is
//! outstanding, what else the client sends waits, bounded; a client that does not read stops its
//! own requests. One timer a connection runs all the time and looks, when it fires, at what is
//! being waited for.
//!
//! Owns its buffers; the connection is boxed and freed when a stream takes the socket over. Leaves
//! to others: framing (`proto::http1::server`), what to answer (`request`), pieces of an answer
//! under way (`answer`).

use std::{net::IpAddr, rc::Rc};

use cache::WakeWith;
use proto::http1::{
    encode::CONTINUE,
    head::FieldSpace,
    refusal::Refusal,
    server::{After, Server, ServerEof, Step, Waiting},
};

use super::{
    Edge,
    access::{Ending, Entry},
    answer::{Advance, Answer},
    conn_table::Owner,
    explain::{Found, Telling},
    observe::Metric,
    relay::JoinRequest,
    request::{Asked, Door, Scene},
    respond::{Own, Persistence, Writer, id_text},
    slab::Ref,
    stream::{Opening, Subscribe, Wanted},
    stream_route::StreamRoute,
};
use crate::{
    config::Timeouts,
    limits,
    seam::{Close, Mono, Now, Payload, SocketId},
};

/// A downstream connection.
pub struct Conn {
    at: Ref,
    socket: SocketId,
    peer: IpAddr,
    door: Door,
    server: Server,
    writer: Writer,
    exchange: Exchange,
    /// The request under way, if requests are logged.
    access: Option<Box<Entry>>,
    /// The client said that this request is its last, and sent nothing behind it.
    is_last: bool,
    /// A `Send` is in flight.
    sending: bool,
    /// `Receive` is on.
    receiving: bool,
    /// Nothing more is read; close like this when everything has been sent.
    ending: Option<Close>,
    wait: Wait,
    wait_since: Mono,
    /// Bytes counted in the shard's budget.
    held: usize,
    /// When it is to look at its deadline; the timer of its row may fire earlier, for an earlier
    /// tenant.
    timer_at: Mono,
}

/// What is owed to the client beside what waits in the writer.
pub enum Exchange {
    /// Nothing.
    None,
    /// Room in the writer: the answer is complete, the next request waits for the client to read.
    Flush,
    /// An answer that is not there yet, or only in part.
    Answer(Box<Answer>),
    /// The connection becomes a stream as soon as everything before has been sent.
    Stream(Box<StreamRequest>),
    /// The connection becomes another edge's, which wants to follow this one, as soon as everything
    /// before has been sent.
    Join(Box<JoinRequest>),
}

/// A request for a stream.
#[derive(Debug)]
pub struct StreamRequest {
    /// What it listens to; `None` while this edge cannot know whether there is such a thing, so
    /// that the client is to come back.
    pub wanted: Option<WantedTopics>,
    /// Not yet understood.
    pub last_event_id: Option<String>,
    /// What was asked.
    pub asked: Asked,
}

/// What a stream is to listen to.
#[derive(Debug)]
pub struct WantedTopics {
    /// Names: at least one, sorted, each once.
    pub topics: Vec<String>,
    /// By which rules.
    pub route: Rc<StreamRoute>,
    /// When its token expires, ms since the Unix epoch.
    pub expires_at_ms: Option<u64>,
    /// It was led here by another edge.
    pub was_led: bool,
}

/// What the connection waits for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Wait {
    /// As the protocol machine says.
    Client(Waiting),
    /// The client to read.
    Sending,
}

impl Conn {
    /// A connection that was just accepted.
    pub fn new(
        at: Ref,
        socket: SocketId,
        peer: IpAddr,
        door: Door,
        now: Now,
        edge: &mut Edge,
    ) -> Self {
        let timer_at = now.mono.after_ms(edge.timeouts.request_head_ms);
        edge.timers.set_conn(at.slot, timer_at);
        Self {
            at,
            socket,
            peer,
            door,
            server: Server::new(limits::REQUEST_BODY_BYTES_MAX),
            writer: Writer::default(),
            exchange: Exchange::None,
            access: None,
            is_last: false,
            sending: false,
            receiving: true,
            ending: None,
            // The first byte is awaited as a head is: a silent new connection is no idle old one.
            wait: Wait::Client(Waiting::Head),
            wait_since: now.mono,
            held: 0,
            timer_at,
        }
    }

    /// Whether it came in by the admin listener.
    pub fn is_admin(&self) -> bool {
        self.door == Door::Admin
    }

    /// Its socket.
    pub fn socket(&self) -> SocketId {
        self.socket
    }

    /// Bytes from the client.
    pub fn received(&mut self, edge: &mut Edge, now: Now, bytes: &[u8]) {
        if self.wait == Wait::Client(Waiting::Body) {
            self.wait_since = now.mono;
        }
        self.read(edge, now, bytes);
        self.count_held(edge, false);
        if edge.held.is_over() && self.has_head_in_part() {
            edge.observe.count(Metric::NoMemory);
            let text = "Too many requests are on their way in: send this one again, in one piece.";
            self.answer_unread(
                edge,
                now,
                &Own { fields: "Retry-After: 1\r\n", ..Own::text(503, text) },
            );
        }
        self.settle(edge, now);
    }

    /// Whether it waits for the rest of a head.
    fn has_head_in_part(&self) -> bool {
        self.ending.is_none()
            && self.door != Door::Admin
            && matches!(self.exchange, Exchange::None)
            && self.server.waiting() == Waiting::Head
            && self.server.kept_bytes() > 0
    }

    /// Counts what this connection holds; nothing any more if it is freed.
    pub fn count_held(&mut self, edge: &mut Edge, freed: bool) {
        let bytes = match &self.exchange {
            _ if freed => 0,
            Exchange::Answer(answer) => self.server.kept_bytes() + answer.body_held(edge),
            _ => self.server.kept_bytes(),
        };
        if bytes != self.held {
            edge.held.change(&mut self.held, bytes);
            edge.observe.set(Metric::RequestBytes, edge.held.bytes() as u64);
        }
    }

    /// The client will send no more.
    pub fn eof(&mut self, edge: &mut Edge, now: Now) {
        match self.server.eof() {
            ServerEof::Outstanding => {}
            ServerEof::Idle => self.end(Close::Graceful),
            ServerEof::Refused(refusal) => self.refuse(edge, now, refusal),
        }
        self.settle(edge, now);
    }

    /// A send ended.
    pub fn sent(
        &mut self,
        edge: &mut Edge,
        now: Now,
        result: Result<(), std::io::ErrorKind>,
        payload: Payload,
    ) {
        self.sending = false;
        edge.observe.add(Metric::SentBytes, payload.len() as u64);
        edge.out.recycle(payload);
        if result.is_err() {
            return self.abort(edge);
        }
        if !self.writer.is_empty() {
            // Gathered meanwhile; goes out before more is added.
            self.settle(edge, now);
        }
        if matches!(self.exchange, Exchange::Flush | Exchange::Answer(_)) {
            self.go_on(edge, now);
        }
        self.settle(edge, now);
    }

    /// The cache tells of what the exchange waits for.
    pub fn woken(&mut self, edge: &mut Edge, now: Now, with: WakeWith) {
        if let Exchange::Answer(answer) = &mut self.exchange {
            answer.woken(with);
        }
        self.wake(edge, now);
    }

    /// A shard has looked for what the operator asks about.
    pub fn explained(&mut self, edge: &mut Edge, now: Now, found: Option<Box<Found>>) {
        if let Exchange::Answer(answer) = &mut self.exchange {
            answer.explained(found);
        }
        self.wake(edge, now);
    }

    /// What the exchange waits for has moved on.
    pub fn wake(&mut self, edge: &mut Edge, now: Now) {
        if matches!(self.exchange, Exchange::Answer(_)) {
            self.go_on(edge, now);
            self.settle(edge, now);
        }
    }

    /// A timer of the connection has fired.
    pub fn timer(&mut self, edge: &mut Edge, now: Now) {
        if now.mono < self.timer_at {
            // An earlier tenant's of this row.
            return self.set_timer(edge, self.timer_at);
        }
        match self.deadline(&edge.timeouts) {
            Some(at) if now.mono < at => self.set_timer(edge, at),
            // Waits for a fetch, which has deadlines of its own.
            None => self.set_timer(edge, now.mono.after_ms(IDLE_LOOK_MS)),
            Some(_) => self.timed_out(edge, now),
        }
    }

    fn set_timer(&mut self, edge: &mut Edge, at: Mono) {
        self.timer_at = at;
        edge.timers.set_conn(self.at.slot, at);
    }

    /// The process drains: no more requests after what is under way.
    pub fn drain(&mut self, edge: &mut Edge, now: Now) {
        if self.door == Door::Admin {
            // The operator looks on: closed under his next request, it would be unanswered.
            return;
        }
        self.server.close_after_response();
        if self.is_idle() {
            self.end(Close::Graceful);
        }
        self.settle(edge, now);
    }

    /// When the present wait ends.
    fn deadline(&self, timeouts: &Timeouts) -> Option<Mono> {
        let limit_ms = match self.wait {
            Wait::Sending => timeouts.transfer_ms,
            Wait::Client(Waiting::Idle) => timeouts.keep_alive_ms,
            Wait::Client(Waiting::Head) => timeouts.request_head_ms,
            Wait::Client(Waiting::Body) => timeouts.transfer_ms,
            Wait::Client(Waiting::Nothing) => return None,
        };
        Some(self.wait_since.after_ms(limit_ms))
    }

    fn timed_out(&mut self, edge: &mut Edge, now: Now) {
        match self.wait {
            Wait::Sending => {
                edge.observe.count(Metric::SlowClient);
                return self.abort(edge);
            }
            Wait::Client(waiting) => match waiting.refusal() {
                // Nothing of a request came on a new connection: nobody to answer.
                Some(_) if self.server.waiting() == Waiting::Idle => self.end(Close::Graceful),
                Some(refusal) => {
                    edge.observe.count(Metric::SlowClient);
                    self.refuse(edge, now, refusal);
                }
                None => self.end(Close::Graceful),
            },
        }
        // Should the client not even take the refusal, the timer comes once more.
        self.set_timer(edge, now.mono.after_ms(edge.timeouts.transfer_ms));
        self.settle(edge, now);
    }

    /// Steps through what has come.
    fn read(&mut self, edge: &mut Edge, now: Now, mut input: &[u8]) {
        while self.ending.is_none() {
            let mut space = FieldSpace::new();
            match self.server.step(&mut input, &mut space) {
                Step::Head(request) => {
                    let scene = Scene { at: self.at, peer: self.peer, door: self.door };
                    let wants_continue = request.expect_continue;
                    self.is_last =
                        !request.keep_alive && !request.body.has_content() && input.is_empty();
                    let before = self.writer.written_bytes();
                    self.exchange = edge.request(now, scene, &request, &mut self.writer);
                    self.access = edge.take_access_entry(before);
                    let takes_body = match &self.exchange {
                        Exchange::Answer(answer) => answer.takes_body(),
                        _ => false,
                    };
                    if wants_continue && takes_body {
                        self.writer.text(&mut edge.out).extend_from_slice(CONTINUE);
                        self.server.continued();
                    }
                    match self.exchange {
                        Exchange::None => self.done(edge),
                        // It may be there already.
                        Exchange::Answer(_) => self.go_on_once(edge, now),
                        Exchange::Flush | Exchange::Stream(_) | Exchange::Join(_) => {}
                    }
                }
                Step::Body(bytes) => {
                    if let Exchange::Answer(answer) = &self.exchange {
                        answer.request_body(edge, now, bytes);
                    }
                }
                Step::BodyEnd(_) => {
                    if let Exchange::Answer(answer) = &self.exchange {
                        answer.request_body_end(edge, now);
                    }
                }
                Step::Refused(refusal) => self.refuse(edge, now, refusal),
                Step::Close => self.end(Close::Graceful),
                Step::Again => {}
                Step::NeedMore => break,
            }
        }
    }

    /// Goes on with the exchange, and with requests that waited behind it.
    fn go_on(&mut self, edge: &mut Edge, now: Now) {
        self.go_on_once(edge, now);
        if matches!(self.exchange, Exchange::None) {
            self.read(edge, now, &[]);
        }
    }

    fn go_on_once(&mut self, edge: &mut Edge, now: Now) {
        match &mut self.exchange {
            Exchange::Flush => self.done(edge),
            Exchange::Answer(answer) => {
                let scene = Scene { at: self.at, peer: self.peer, door: self.door };
                let keep_alive = self.server.persists() && !edge.draining;
                edge.forget_answered();
                let advance = answer.advance(edge, now, scene, keep_alive, &mut self.writer);
                if let Some(entry) = &mut self.access {
                    edge.keep_answered(entry);
                }
                match advance {
                    Advance::Done => {
                        if !keep_alive {
                            self.server.close_after_response();
                        }
                        self.done(edge);
                    }
                    Advance::DoneClose => {
                        self.server.close_after_response();
                        self.done(edge);
                    }
                    Advance::Waiting => {}
                    Advance::Broken => self.end(Close::Abort),
                }
            }
            Exchange::None | Exchange::Stream(_) | Exchange::Join(_) => {}
        }
    }

    /// The answer is in the writer, whole.
    fn done(&mut self, edge: &mut Edge) {
        self.log(edge, Ending::Whole);
        if !self.writer.has_room() {
            self.exchange = Exchange::Flush;
            return;
        }
        self.exchange = Exchange::None;
        if self.server.response_done() == After::Close {
            let is_over = self.is_last && self.server.kept_bytes() == 0;
            self.end(if is_over { Close::Finished } else { Close::Graceful });
        }
    }

    /// The request under way is over.
    fn log(&mut self, edge: &mut Edge, ending: Ending) {
        if let Some(entry) = self.access.take() {
            edge.log_access(&entry, self.writer.written_bytes(), ending);
        }
    }

    /// Answers a request that cannot be read, if an answer can still be told from what went before.
    fn refuse(&mut self, edge: &mut Edge, now: Now, refusal: Refusal) {
        edge.observe.count(Metric::BadRequest);
        let begun = match &self.exchange {
            Exchange::Answer(answer) => answer.has_begun(),
            _ => false,
        };
        self.leave_exchange(edge);
        if begun {
            return self.end(Close::Abort);
        }
        self.answer_unread(edge, now, &Own::text(refusal.status(), refusal.text()));
    }

    /// Answers what was not read, and closes.
    fn answer_unread(&mut self, edge: &mut Edge, now: Now, own: &Own<'_>) {
        let number = edge.ids.make_number();
        let asked = Asked {
            persistence: Persistence { keep_alive: false, http10: false },
            to_head: false,
            request_id: id_text(number).as_slice().into(),
            telling: Telling::default(),
        };
        edge.explain_begins(now, number, None);
        let before = self.writer.written_bytes();
        edge.own(now, own, asked.lend(), &mut self.writer);
        let bytes = self.writer.written_bytes() - before;
        edge.log_unread(self.peer, own.status, &asked.request_id, bytes);
        self.end(Close::Graceful);
    }

    fn end(&mut self, how: Close) {
        self.ending = Some(how);
    }

    fn is_idle(&self) -> bool {
        matches!(self.exchange, Exchange::None) && self.server.waiting() == Waiting::Idle
    }

    fn leave_exchange(&mut self, edge: &mut Edge) {
        self.log(edge, Ending::Aborted);
        if let Exchange::Answer(answer) = std::mem::replace(&mut self.exchange, Exchange::None) {
            answer.leave(edge, self.at);
        }
    }

    /// Ends at once; what waits is dropped.
    pub fn abort(&mut self, edge: &mut Edge) {
        self.leave_exchange(edge);
        self.writer.clear(&mut edge.out);
        edge.out.close(self.socket, Close::Abort);
        edge.free_conn(self.at);
    }

    /// Does what follows from the present state: sends, reads or not, notes what is waited for,
    /// closes.
    fn settle(&mut self, edge: &mut Edge, now: Now) {
        if edge.is_freed(self.at) {
            return;
        }
        if let (Some(Close::Abort), false) = (self.ending, self.sending)
            && self.writer.is_empty()
        {
            return self.abort(edge);
        }
        if !self.sending && !self.writer.is_empty() {
            self.sending = true;
            self.wait_since = now.mono;
            edge.out.send(self.socket, self.writer.take());
        }
        if edge.draining && self.door != Door::Admin && !self.sending && self.is_idle() {
            self.end(Close::Graceful);
        }
        if !self.sending {
            if let Some(how) = self.ending {
                self.leave_exchange(edge);
                edge.out.close(self.socket, how);
                return edge.free_conn(self.at);
            }
            if matches!(self.exchange, Exchange::Stream(_)) {
                return self.become_stream(edge, now);
            }
            if let Exchange::Join(_) = self.exchange {
                return self.become_childs(edge);
            }
        }
        let wants = self.wants_input(edge);
        if wants != self.receiving {
            self.receiving = wants;
            edge.out.receive(self.socket, wants);
        }
        let wait = match self.server.waiting() {
            // Whoever waits for a request while our answer is in flight waits for the client to
            // read it.
            Waiting::Idle | Waiting::Nothing if self.sending => Wait::Sending,
            // Held back by us: the origin takes no more, and its fetch has a deadline of its own.
            Waiting::Body if !self.receiving && self.sending => Wait::Sending,
            Waiting::Body if !self.receiving => Wait::Client(Waiting::Nothing),
            waiting => Wait::Client(waiting),
        };
        // A head's deadline runs from its first byte, a send's from its start.
        if wait != self.wait {
            self.wait = wait;
            self.wait_since = now.mono;
            // Most waits end long before; a timer is set only when this one ends before the next
            // look.
            if let Some(at) = self.deadline(&edge.timeouts).filter(|&at| at < self.timer_at) {
                self.set_timer(edge, at);
            }
        }
    }

    fn wants_input(&self, edge: &Edge) -> bool {
        if self.ending.is_some() {
            return false;
        }
        let pipelined_max = if edge.held.is_over() { 1 } else { limits::PIPELINED_BYTES };
        match &self.exchange {
            Exchange::None => true,
            Exchange::Stream(_) | Exchange::Join(_) => false,
            Exchange::Flush => self.server.kept_bytes() < pipelined_max,
            Exchange::Answer(answer) => {
                self.server.kept_bytes() < pipelined_max && answer.takes_more_body(edge)
            }
        }
    }

    /// Gives the socket to the feed.
    fn become_childs(&mut self, edge: &mut Edge) {
        let exchange = std::mem::replace(&mut self.exchange, Exchange::None);
        let Exchange::Join(request) = exchange else { return };
        edge.sockets.set_owner(self.socket, Owner::Feed);
        edge.joins.push((self.socket, request));
        edge.free_conn(self.at);
    }

    /// Gives the socket to the streams.
    fn become_stream(&mut self, edge: &mut Edge, now: Now) {
        let exchange = std::mem::replace(&mut self.exchange, Exchange::None);
        let Exchange::Stream(request) = exchange else { return };
        if self.receiving {
            edge.out.receive(self.socket, false);
        }
        let subscribe = Subscribe {
            socket: self.socket,
            wanted: request.wanted.as_ref().map(|wanted| Wanted {
                topics: &wanted.topics,
                route: &wanted.route,
                expires_at_ms: wanted.expires_at_ms,
                was_led: wanted.was_led,
            }),
            last_event_id: request.last_event_id.as_deref(),
            request_id: std::str::from_utf8(&request.asked.request_id).unwrap_or_default(),
            http10: request.asked.persistence.http10,
        };
        // A refused stream is being closed already, which the table learns at the end of this turn.
        let opening = edge.streams.subscribe(now, subscribe, &mut edge.out);
        if let Opening::Open { stream, .. } = opening {
            edge.sockets.set_owner(self.socket, Owner::Stream(stream));
        }
        edge.explain_resumes(now, request.asked.telling);
        edge.explain_opening(opening, &request);
        edge.streams.report(&edge.observe);
        if let Some(entry) = &mut self.access {
            entry.note_stream();
        }
        self.log(edge, Ending::Stream);
        edge.free_conn(self.at);
    }
}

/// How often a connection that waits for a fetch is looked at.
const IDLE_LOOK_MS: u64 = 60_000;

#[cfg(test)]
mod tests {
    use crate::{seam::Close, shard::testing::World};

    /// How the connection was closed after these bytes and their answers.
    fn check(said: &str, how: Option<Close>) {
        let mut world = World::new(1);
        let client = world.connect(0);
        world.say(client, said);
        assert!(world.take(client).starts_with("HTTP/1.1 421 "), "{said}");
        assert_eq!(world.peer(client).close, how, "{said}");
    }

    #[test]
    fn who_said_close_and_nothing_behind_it_is_not_waited_for() {
        let fields = "Host: nobody\r\nConnection: close\r\n";
        check(&format!("GET / HTTP/1.1\r\n{fields}\r\n"), Some(Close::Finished));
        check("GET / HTTP/1.0\r\nHost: nobody\r\n\r\n", Some(Close::Finished));
        check(&format!("GET / HTTP/1.1\r\n{fields}\r\nmore"), Some(Close::Graceful));
        // Old clients send an empty line behind a body.
        let body = "Content-Length: 1\r\n\r\nx";
        check(&format!("POST / HTTP/1.1\r\n{fields}{body}"), Some(Close::Graceful));
        check("GET / HTTP/1.1\r\nHost: nobody\r\n\r\n", None);
    }
}
