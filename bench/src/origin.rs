//! A synthetic origin: an actor that answers with foretellable bodies, as slowly and as badly as
//! the query asks for, and counts what it was asked.
//!
//! ```text
//!            ┌───────────────────────────────────────────────┐
//!            ▼                                               │
//! Reading ─head▶ Body ─end▶ Delayed ─time▶ Answering ◀─time─ Paused
//!                                             └─ done: Reading, or the connection ends
//! ```
//!
//! Requests of one connection are answered in order; what was answered at once leaves in one send.
//! `GET /_counts` shows the counts, `GET /_counts/total` their sum alone, `DELETE /_counts` clears
//! them; `POST /digest` answers with the length and hash of what it got.

pub(crate) mod answer;
pub(crate) mod body;
mod request;

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BinaryHeap, VecDeque},
    ops::Range,
};

use dataplane::seam::{
    Actor, Close, Control, Effect, Input, Mono, Now, Payload, Segment, SocketId,
};
use serde_json::json;

use crate::{
    framing::Framing,
    limits::COUNTED_PATHS_MAX,
    origin::{
        answer::Answer,
        request::{BadRequest, Digest, Request},
    },
};

/// The actor.
#[derive(Default)]
pub(crate) struct Origin {
    /// By slot of the socket.
    connections: Vec<Option<Connection>>,
    /// When which connection goes on.
    timers: BinaryHeap<Reverse<(Mono, u32, u32)>>,
    counts: Counts,
    effects: VecDeque<Effect<()>>,
}

#[derive(Default)]
struct Counts {
    connections: u64,
    total: u64,
    /// By request target, query included.
    requests: BTreeMap<String, u64>,
}

struct Connection {
    socket: SocketId,
    state: State,
    /// Received and not read yet.
    inbox: Vec<u8>,
    /// To be sent when the send under way is over.
    out: Vec<u8>,
    spare: Vec<u8>,
    sending: bool,
    receiving: bool,
    /// The client will send no more.
    eof: bool,
    /// What to do when everything has left.
    then: Option<Close>,
}

enum State {
    Reading,
    Body {
        request: Request,
        framing: Framing,
        digest: Digest,
    },
    Delayed {
        answer: Answer,
        until: Mono,
    },
    Answering {
        answer: Answer,
        offset: u64,
    },
    Paused {
        answer: Answer,
        offset: u64,
        until: Mono,
    },
    /// Nothing more is read or answered.
    Over,
}

/// Whether a connection can go on in the same call.
enum Step {
    Again,
    Wait,
}

impl Origin {
    fn accepted(&mut self, socket: SocketId) {
        let slot = socket.slot as usize;
        if self.connections.len() <= slot {
            self.connections.resize_with(slot + 1, || None);
        }
        self.counts.connections += 1;
        self.connections[slot] = Some(Connection::new(socket));
        self.effects.push_back(Effect::Receive { socket, on: true });
    }

    /// Lets a connection do what it can, if it is this use of its slot.
    fn with(&mut self, now: Now, socket: SocketId, change: impl FnOnce(&mut Connection)) {
        let Self { connections, timers, counts, effects } = self;
        let Some(Some(connection)) = connections.get_mut(socket.slot as usize) else { return };
        if connection.socket != socket {
            return;
        }
        change(connection);
        while let Step::Again = connection.step(now, counts) {}
        if let State::Delayed { until, .. } | State::Paused { until, .. } = connection.state {
            timers.push(Reverse((until, socket.slot, socket.generation)));
        }
        connection.flush(effects);
    }

    fn deadline(&mut self, now: Now) {
        while let Some(&Reverse((at, slot, generation))) = self.timers.peek()
            && at <= now.mono
        {
            self.timers.pop();
            self.with(now, SocketId { slot, generation }, |_| {});
        }
    }

    fn drain(&mut self) {
        for connection in self.connections.iter().flatten() {
            let socket = connection.socket;
            self.effects.push_back(Effect::Close { socket, how: Close::Abort });
        }
        self.effects.push_back(Effect::Stop);
    }
}

impl Connection {
    fn new(socket: SocketId) -> Self {
        Self {
            socket,
            state: State::Reading,
            inbox: Vec::new(),
            out: Vec::new(),
            spare: Vec::new(),
            sending: false,
            receiving: true,
            eof: false,
            then: None,
        }
    }

    fn step(&mut self, now: Now, counts: &mut Counts) -> Step {
        if self.out.len() >= OUT_BYTES_MAX {
            return Step::Wait;
        }
        self.state = match std::mem::replace(&mut self.state, State::Over) {
            State::Reading => match Request::parse(&self.inbox) {
                Ok(Some((request, length))) => {
                    self.inbox.drain(..length);
                    if request.expects_continue && request.framing != Framing::Length(0) {
                        self.out.extend_from_slice(b"HTTP/1.1 100 Continue\r\n\r\n");
                    }
                    let framing = request.framing;
                    State::Body { request, framing, digest: Digest::default() }
                }
                Ok(None) => {
                    self.state = State::Reading;
                    if self.eof {
                        self.finish(Close::Graceful);
                    }
                    return Step::Wait;
                }
                Err(bad) => refusal(bad, now),
            },
            State::Body { request, mut framing, mut digest } => {
                match read_body(&mut framing, &mut digest, &mut self.inbox) {
                    Err(bad) => refusal(bad, now),
                    Ok(()) if framing.is_end() => {
                        let answer = counts.answer(&request, digest, now);
                        let until = now.mono.after_ms(answer.delay_ms);
                        State::Delayed { answer, until }
                    }
                    Ok(()) => {
                        self.state = State::Body { request, framing, digest };
                        if self.eof {
                            self.finish(Close::Abort);
                        }
                        return Step::Wait;
                    }
                }
            }
            State::Delayed { answer, until } if until <= now.mono => {
                self.out.extend_from_slice(&answer.head);
                State::Answering { answer, offset: 0 }
            }
            State::Paused { answer, offset, until } if until <= now.mono => {
                State::Answering { answer, offset }
            }
            State::Answering { answer, offset } => self.content(answer, offset, now),
            waiting @ (State::Delayed { .. } | State::Paused { .. } | State::Over) => {
                self.state = waiting;
                return Step::Wait;
            }
        };
        Step::Again
    }

    /// The next piece of an answer.
    fn content(&mut self, answer: Answer, offset: u64, now: Now) -> State {
        let end = answer.abort_at.unwrap_or(u64::MAX).min(answer.content.length());
        if offset >= end {
            return self.answered(&answer);
        }
        let count = answer.trickle.map_or(PIECE_BYTES, |trickle| trickle.bytes);
        let count = usize::try_from(end - offset).unwrap_or(count).min(count);
        if answer.chunked {
            self.out.extend_from_slice(format!("{count:x}\r\n").as_bytes());
        }
        let offset = offset + answer.content.append(offset, count, &mut self.out) as u64;
        if answer.chunked {
            self.out.extend_from_slice(b"\r\n");
        }
        match answer.trickle {
            Some(trickle) if offset < end => {
                State::Paused { answer, offset, until: now.mono.after_ms(trickle.pause_ms) }
            }
            _ => State::Answering { answer, offset },
        }
    }

    fn answered(&mut self, answer: &Answer) -> State {
        if answer.abort_at.is_some_and(|at| at < answer.content.length()) {
            self.finish(Close::Abort);
            return State::Over;
        }
        if answer.chunked {
            self.out.extend_from_slice(b"0\r\n\r\n");
        }
        if answer.close {
            self.finish(Close::Graceful);
            return State::Over;
        }
        State::Reading
    }

    fn finish(&mut self, how: Close) {
        self.state = State::Over;
        self.then = Some(how);
    }

    fn flush(&mut self, effects: &mut VecDeque<Effect<()>>) {
        let socket = self.socket;
        if !self.sending && !self.out.is_empty() {
            self.sending = true;
            let bytes = std::mem::replace(&mut self.out, std::mem::take(&mut self.spare));
            let payload = Payload::One(Segment::Owned(bytes));
            effects.push_back(Effect::Send { socket, payload });
        }
        if !self.sending
            && let Some(how) = self.then.take()
        {
            effects.push_back(Effect::Close { socket, how });
        }
        let receiving = self.inbox.len() < INBOX_BYTES_MAX;
        if receiving != self.receiving {
            self.receiving = receiving;
            effects.push_back(Effect::Receive { socket, on: receiving });
        }
    }

    fn sent(&mut self, result: Result<(), std::io::ErrorKind>, payload: Payload) {
        self.sending = false;
        if let Payload::One(Segment::Owned(mut bytes)) = payload {
            bytes.clear();
            self.spare = bytes;
        }
        if result.is_err() {
            self.out.clear();
            self.finish(Close::Abort);
        }
    }
}

impl Counts {
    fn answer(&mut self, request: &Request, digest: Digest, now: Now) -> Answer {
        let mut answer = match (request.method.as_str(), request.target.as_str()) {
            ("GET", "/_counts/total") => {
                let text = format!("{{\"total\":{}}}\n", self.total);
                Answer::text(200, "application/json", &text, now.wall_ms)
            }
            ("GET", "/_counts") => Answer::text(200, "application/json", &self.json(), now.wall_ms),
            ("DELETE", "/_counts") => {
                *self = Self::default();
                Answer::text(200, "application/json", &self.json(), now.wall_ms)
            }
            ("POST", "/digest") => {
                self.count(&request.target);
                let text = json!({
                    "bytes": digest.length,
                    "hash": format!("{:016x}", digest.hash.value()),
                });
                Answer::text(200, "application/json", &text.to_string(), now.wall_ms)
            }
            (_, target) => {
                self.count(target);
                Answer::to(request, now.wall_ms)
            }
        };
        answer.close |= request.close;
        answer
    }

    fn count(&mut self, target: &str) {
        self.total += 1;
        match self.requests.get_mut(target) {
            Some(count) => *count += 1,
            None => {
                let room = self.requests.len() < COUNTED_PATHS_MAX;
                let name = if room { target } else { "other" };
                *self.requests.entry(name.to_owned()).or_default() += 1;
            }
        }
    }

    fn json(&self) -> String {
        let Self { connections, total, requests } = self;
        json!({ "connections": connections, "total": total, "requests": requests }).to_string()
    }
}

impl Actor for Origin {
    type Mail = ();

    fn handle(&mut self, now: Now, input: Input<'_, ()>) {
        match input {
            Input::Accepted { socket, .. } => self.accepted(socket),
            Input::Received { socket, bytes } => {
                self.with(now, socket, |connection| connection.inbox.extend_from_slice(bytes));
            }
            Input::Sent { socket, result, payload } => {
                self.with(now, socket, |connection| connection.sent(result, payload));
            }
            Input::Eof { socket } => self.with(now, socket, |connection| connection.eof = true),
            Input::HungUp { socket } => {
                self.with(now, socket, |connection| {
                    connection.out.clear();
                    connection.finish(Close::Abort);
                });
            }
            Input::Closed { socket } => {
                if let Some(slot) = self.connections.get_mut(socket.slot as usize) {
                    *slot = None;
                }
            }
            Input::Deadline => self.deadline(now),
            Input::Control(Control::Drain) => self.drain(),
            // It connects nowhere and asks for no file, name, turn or watch.
            Input::Connected { .. }
            | Input::Writable { .. }
            | Input::SendFailed { .. }
            | Input::Mail { .. }
            | Input::File { .. }
            | Input::Resolved { .. }
            | Input::Cold { .. }
            | Input::Continue
            | Input::Control(Control::Reload) => {}
        }
    }

    fn poll_effect(&mut self) -> Option<Effect<()>> {
        self.effects.pop_front()
    }

    fn next_deadline(&self) -> Option<Mono> {
        self.timers.peek().map(|&Reverse((at, ..))| at)
    }

    fn fanout_targets(&self, _: Range<u32>) -> &[SocketId] {
        &[]
    }
}

fn refusal(bad: BadRequest, now: Now) -> State {
    let (status, text) = match bad {
        BadRequest::Syntax => (400, "expected an HTTP/1.1 request\n"),
        BadRequest::TooLong => (431, "expected a shorter head\n"),
    };
    let mut answer = Answer::text(status, "text/plain", text, now.wall_ms);
    answer.close = true;
    State::Delayed { answer, until: now.mono }
}

fn read_body(
    framing: &mut Framing,
    digest: &mut Digest,
    inbox: &mut Vec<u8>,
) -> Result<(), BadRequest> {
    let mut bytes = inbox.as_slice();
    while let Some(piece) = framing.next(&mut bytes).map_err(|_| BadRequest::Syntax)? {
        digest.take(piece);
    }
    let used = inbox.len() - bytes.len();
    inbox.drain(..used);
    Ok(())
}

/// Content made at a time.
const PIECE_BYTES: usize = 64 * 1024;
/// Waiting output above which no more is made.
const OUT_BYTES_MAX: usize = 256 * 1024;
/// Waiting input above which no more is received.
const INBOX_BYTES_MAX: usize = 256 * 1024;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scripted::{Scripted, Seen};

    fn ask(target: &str) -> Vec<u8> {
        format!("GET {target} HTTP/1.1\r\nHost: a\r\n\r\n").into_bytes()
    }

    fn answers(engine: &mut Scripted<Origin>, socket: SocketId, bytes: &[u8]) -> String {
        engine.receive(socket, bytes);
        engine.sent().concat()
    }

    #[test]
    fn the_same_target_is_always_the_same_bytes() {
        let mut engine = Scripted::new(Origin::default());
        let socket = engine.accepted();
        let first = answers(&mut engine, socket, &ask("/bytes/100"));
        let second = answers(&mut engine, socket, &ask("/bytes/100"));
        assert_eq!(first, second);
        let expected = body::of_path("/bytes/100").expect("foretold");
        assert!(first.ends_with(std::str::from_utf8(&expected).expect("text")));
    }

    #[test]
    fn pipelined_requests_are_answered_in_one_send() {
        let mut engine = Scripted::new(Origin::default());
        let socket = engine.accepted();
        engine.receive(socket, &[ask("/bytes/1"), ask("/bytes/2"), ask("/bytes/3")].concat());
        let sent = engine.sent();
        assert_eq!(sent.len(), 1);
        assert_eq!(sent[0].matches("200 OK").count(), 3);
    }

    #[test]
    fn a_delayed_answer_comes_at_its_time_and_keeps_the_order() {
        let mut engine = Scripted::new(Origin::default());
        let socket = engine.accepted();
        engine.receive(socket, &[ask("/bytes/1?delay_ms=50"), ask("/bytes/2")].concat());
        engine.wait_ms(49);
        assert_eq!(engine.sent().len(), 0);
        engine.wait_ms(1);
        let sent = engine.sent().concat();
        let (first, second) = (sent.find("Length: 1\r\n"), sent.find("Length: 2\r\n"));
        assert!(first.is_some() && first < second, "{sent}");
    }

    #[test]
    fn a_trickle_sends_a_piece_a_pause() {
        let mut engine = Scripted::new(Origin::default());
        let socket = engine.accepted();
        engine.receive(socket, &ask("/bytes/10?trickle_ms=5&trickle_bytes=4&chunked=1"));
        assert_eq!(engine.sent().len(), 1);
        engine.wait_ms(10);
        let pieces = engine.sent();
        assert_eq!(pieces.len(), 2);
        assert!(pieces[0].starts_with("4\r\n") && pieces[1].ends_with("0\r\n\r\n"), "{pieces:?}");
    }

    #[test]
    fn an_abort_comes_behind_exactly_so_much_content() {
        let mut engine = Scripted::new(Origin::default());
        let socket = engine.accepted();
        engine.receive(socket, &ask("/bytes/10?abort_at=7"));
        let closed = Seen::Closed(socket, Close::Abort);
        assert!(engine.seen.contains(&closed));
        let sent = engine.sent().concat();
        assert_eq!(sent.split("\r\n\r\n").nth(1).map(str::len), Some(7));
    }

    #[test]
    fn requests_are_counted_by_target_until_cleared() {
        let mut engine = Scripted::new(Origin::default());
        let socket = engine.accepted();
        engine.receive(socket, &[ask("/bytes/1"), ask("/bytes/1"), ask("/x")].concat());
        engine.seen.clear();
        let counts = answers(&mut engine, socket, &ask("/_counts"));
        assert!(counts.contains(r#""requests":{"/bytes/1":2,"/x":1},"total":3"#), "{counts}");
        let cleared = answers(&mut engine, socket, b"DELETE /_counts HTTP/1.1\r\n\r\n");
        assert!(cleared.contains(r#""requests":{},"total":0"#), "{cleared}");
    }

    #[test]
    fn a_request_body_is_digested_however_it_is_framed() {
        let mut engine = Scripted::new(Origin::default());
        let socket = engine.accepted();
        let framed = b"POST /digest HTTP/1.1\r\nContent-Length: 5\r\n\r\nhello";
        let chunked =
            b"POST /digest HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n";
        let first = answers(&mut engine, socket, framed);
        assert!(first.contains(r#""bytes":5"#), "{first}");
        assert_eq!(answers(&mut engine, socket, chunked), first);
    }

    #[test]
    fn what_is_no_request_is_refused_and_closed() {
        let mut engine = Scripted::new(Origin::default());
        let socket = engine.accepted();
        engine.receive(socket, b"\x16\x03\x01\r\n\r\n");
        assert!(engine.seen.contains(&Seen::Closed(socket, Close::Graceful)));
        assert!(engine.sent().concat().starts_with("HTTP/1.1 400 "));
    }
}
