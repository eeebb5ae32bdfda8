//! The actor under the parity cases. A client's first line says what its connection is for; what
//! the engine tells is noted in the journal.
//!
//! | line | what follows |
//! |---|---|
//! | `E` | everything is echoed, closed when the client has said all |
//! | `B<n>` | n bytes in one payload of many segments, then a graceful close |
//! | `R<n>` | n bytes are sent and the connection closed gracefully, whatever the client says |
//! | `Q<n>` | n bytes are sent and the connection closed as finished |
//! | `A` | the connection is aborted |
//! | `S` | `ok`, then the frames of all fan-outs; nothing is read, a hang-up is watched for |
//! | `F<n>` | a frame of n bytes goes to all subscribers of this shard; `ok` when handed over |
//! | `U` | listed as a subscriber, but reading as `E` does |
//! | `C<addr>` | connects there: `ok` or the kind of error, then bytes are passed both ways |
//! | `M<n>` | n mails to the next shard, each answered; `ok` when all answers are there |
//! | `D<ms>` | `ok` after that time |
//! | `Y` | yields, then asks the journal to note the order |
//! | `P<ms>` | nothing is received for that time, then as `E` |
//! | `L<ms>` | `ok`; nothing is accepted for that time |
//! | `W<path>` | writes, reads and removes that file; `ok` if it read what it wrote |
//! | `N<name>` | looks the name up: the number of addresses, or `none` |
//! | `X<n>` | n bytes are sent, and all shards stop |

use std::{
    collections::{HashMap, VecDeque},
    io,
    net::SocketAddr,
    ops::Range,
};

use bytes::Bytes;
use cache::Coding;
use dataplane::seam::{
    Actor, Close, ColdWork, Control, Effect, FileWork, Input, Mono, Now, OpId, Payload, Segment,
    ShardId, SocketId,
};

use super::Journal;

/// What an engine told.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Note {
    /// A connection from there.
    Accepted(SocketId, SocketAddr),
    /// End of the peer's stream.
    Eof(SocketId),
    /// End of the connection.
    HungUp(SocketId),
    /// A send failed.
    SendError(SocketId, io::ErrorKind),
    /// A fan-out failed: bytes sent of the frame.
    FanoutFailed(SocketId, u32, io::ErrorKind),
    /// Room again.
    Writable(SocketId),
    /// Descriptor gone.
    Closed(SocketId),
    /// An answer with this number.
    Answer(u32),
    /// Asked for and came, both monotonic.
    Deadline(Mono, Mono),
    /// The turn after a yield.
    Continue,
    /// Bytes came, so many.
    Received(SocketId, usize),
    /// A fan-out was handed over.
    Fanout,
    /// An operator's word.
    Control(Control),
}

/// What parity actors say to each other.
#[derive(Debug)]
pub enum Mail {
    /// To be answered.
    Ask(u32),
    /// The answer.
    Answer(u32),
    /// Stop.
    Stop,
}

/// See the module.
pub struct ParityActor {
    shard: ShardId,
    shards: ShardId,
    journal: Journal,
    queue: VecDeque<Queued>,
    conns: HashMap<SocketId, Conn>,
    /// Targets of fan-outs; those that are behind are not among them.
    subscribers: Vec<SocketId>,
    /// Everything that was ever fanned out.
    history: Vec<u8>,
    /// Where the frame of the last fan-out starts in it.
    frame_from: usize,
    ops: HashMap<OpId, SocketId>,
    timers: Vec<(Mono, Timer)>,
    asked: HashMap<u32, SocketId>,
    answers_missing: u32,
    next_number: u32,
    now: Now,
}

enum Queued {
    Effect(Effect<Mail>),
    /// A frame of so many bytes. It is made when the engine takes the effect, so that it follows
    /// on everything its targets have got.
    Fanout(usize),
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Timer {
    Say(SocketId),
    Receive(SocketId),
    Accept,
}

impl Conn {
    /// How it is closed once all is said.
    fn close_kind(&self) -> Close {
        if self.finished { Close::Finished } else { Close::Graceful }
    }
}

#[derive(Default)]
struct Conn {
    line: Vec<u8>,
    mode: u8,
    /// To be sent when the send under way is over.
    waiting: VecDeque<Payload>,
    sending: bool,
    close_after: bool,
    /// The client says nothing more.
    finished: bool,
    closed: bool,
    /// The other end of a passage.
    other: Option<SocketId>,
    /// How much of the history was sent; meaningful for subscribers that are behind.
    cursor: Option<usize>,
    /// What a `W` wrote.
    written: Vec<u8>,
}

/// The byte at each place of what the actor makes up.
pub fn pattern(range: Range<usize>) -> Vec<u8> {
    range.map(|at| (at % 251) as u8 ^ (at / 251 % 256) as u8).collect()
}

impl ParityActor {
    /// One of `shards`.
    pub fn new(shard: ShardId, shards: ShardId, journal: &Journal) -> Self {
        Self {
            shard,
            shards,
            journal: journal.clone(),
            queue: VecDeque::new(),
            conns: HashMap::new(),
            subscribers: Vec::new(),
            history: Vec::new(),
            frame_from: 0,
            ops: HashMap::new(),
            timers: Vec::new(),
            asked: HashMap::new(),
            answers_missing: 0,
            next_number: 0,
            now: Now::default(),
        }
    }

    fn push(&mut self, effect: Effect<Mail>) {
        self.queue.push_back(Queued::Effect(effect));
    }

    fn say(&mut self, socket: SocketId, payload: Payload) {
        let Some(conn) = self.conns.get_mut(&socket) else { return };
        if payload.is_empty() || conn.closed {
            return;
        }
        if conn.sending {
            conn.waiting.push_back(payload);
        } else {
            conn.sending = true;
            self.push(Effect::Send { socket, payload });
        }
    }

    fn say_bytes(&mut self, socket: SocketId, bytes: &[u8]) {
        self.say(socket, Payload::One(Segment::Owned(bytes.to_vec())));
    }

    fn close(&mut self, socket: SocketId, how: Close) {
        let Some(conn) = self.conns.get_mut(&socket).filter(|conn| !conn.closed) else { return };
        conn.closed = true;
        self.subscribers.retain(|&other| other != socket);
        self.push(Effect::Close { socket, how });
    }

    fn close_when_said(&mut self, socket: SocketId) {
        let Some(conn) = self.conns.get_mut(&socket) else { return };
        conn.close_after = true;
        if !conn.sending {
            let how = conn.close_kind();
            self.close(socket, how);
        }
    }

    fn received(&mut self, socket: SocketId, bytes: &[u8]) {
        self.journal.note(Note::Received(socket, bytes.len()));
        let Some(conn) = self.conns.get_mut(&socket).filter(|conn| !conn.closed) else { return };
        let mut rest = bytes;
        if conn.mode == 0 {
            let end = bytes.iter().position(|&byte| byte == b'\n');
            conn.line.extend_from_slice(&bytes[..end.unwrap_or(bytes.len())]);
            let Some(end) = end else { return };
            rest = &bytes[end + 1..];
            conn.mode = conn.line[0];
            let argument = String::from_utf8_lossy(&conn.line[1..]).into_owned();
            self.begin(socket, &argument);
        }
        let Some(conn) = self.conns.get(&socket) else { return };
        match (conn.mode, conn.other) {
            (b'E' | b'U' | b'P', _) => self.echo(socket, rest),
            (b'C', Some(other)) => self.say_bytes(other, rest),
            _ => {}
        }
    }

    /// An echo holds at most one receive's bytes: nothing is received while it sends.
    fn echo(&mut self, socket: SocketId, bytes: &[u8]) {
        if !bytes.is_empty() {
            self.push(Effect::Receive { socket, on: false });
            self.say_bytes(socket, bytes);
        }
    }

    fn begin(&mut self, socket: SocketId, argument: &str) {
        let number = || argument.parse::<usize>().expect("the case sends a number");
        let after = |now: Now| now.mono.after_ms(number() as u64);
        let Some(conn) = self.conns.get_mut(&socket) else { return };
        match conn.mode {
            b'E' => {}
            b'B' => {
                let (len, pieces) = (number(), 64);
                let piece = |index| {
                    let range = len * index / pieces..len * (index + 1) / pieces;
                    match index % 2 {
                        0 => Segment::Owned(pattern(range)),
                        _ => Segment::Local(Bytes::from(pattern(range))),
                    }
                };
                self.say(socket, Payload::Many((0..pieces).map(piece).collect()));
                self.close_when_said(socket);
            }
            b'R' => {
                self.say_bytes(socket, &pattern(0..number()));
                self.close_when_said(socket);
            }
            b'Q' => {
                conn.finished = true;
                self.say_bytes(socket, &pattern(0..number()));
                self.close_when_said(socket);
            }
            b'A' => self.close(socket, Close::Abort),
            b'S' => {
                conn.cursor = Some(self.history.len());
                self.push(Effect::Receive { socket, on: false });
                self.push(Effect::Watch { socket, hang_up: true, writable: false });
                self.say_bytes(socket, b"ok");
            }
            b'U' => self.subscribers.push(socket),
            b'F' => {
                self.queue.push_back(Queued::Fanout(number()));
                self.say_bytes(socket, b"ok");
            }
            b'C' => {
                let op = self.op(socket);
                let to = argument.parse().expect("the case sends an address");
                self.push(Effect::Connect { op, to, from: None });
            }
            b'M' => self.ask(socket, number() as u32),
            b'D' => self.timers.push((after(self.now), Timer::Say(socket))),
            b'Y' => self.push(Effect::Yield),
            b'P' => {
                self.push(Effect::Receive { socket, on: false });
                self.timers.push((after(self.now), Timer::Receive(socket)));
            }
            b'L' => {
                self.push(Effect::Accept { listener: 0, on: false });
                self.timers.push((after(self.now), Timer::Accept));
                self.say_bytes(socket, b"ok");
            }
            b'W' => {
                conn.written = pattern(0..100_000);
                let (path, content) = (argument.into(), conn.written.clone());
                let op = self.op(socket);
                self.push(Effect::File { op, work: FileWork::Write { path, content } });
                let read = FileWork::Read { path: argument.into(), bytes_max: 100_000 };
                let op = self.op(socket);
                self.push(Effect::File { op, work: read });
                let remove = FileWork::Remove { path: argument.into() };
                self.push(Effect::File { op: OpId::MAX, work: remove });
            }
            b'N' => {
                let op = self.op(socket);
                let name = argument.to_owned();
                self.push(Effect::Resolve { op, name, port: 80 });
            }
            b'Z' => {
                let op = self.op(socket);
                let content = vec![Bytes::from(pattern(0..number()))];
                let work = ColdWork::Compress { coding: Coding::Gzip, level: 6, content };
                self.push(Effect::Cold { op, work });
            }
            b'X' => {
                self.say_bytes(socket, &pattern(0..number()));
                for to in 0..self.shards {
                    self.push(Effect::Mail { to, mail: Mail::Stop });
                }
            }
            other => panic!("no such mode: {}", other as char),
        }
    }

    fn op(&mut self, socket: SocketId) -> OpId {
        self.next_number += 1;
        self.ops.insert(self.next_number.into(), socket);
        self.next_number.into()
    }

    fn ask(&mut self, socket: SocketId, count: u32) {
        self.answers_missing += count;
        for _ in 0..count {
            self.next_number += 1;
            self.asked.insert(self.next_number, socket);
            let to = (self.shard + 1) % self.shards;
            self.push(Effect::Mail { to, mail: Mail::Ask(self.next_number) });
        }
    }

    fn mail(&mut self, from: ShardId, mail: Mail) {
        match mail {
            Mail::Ask(number) => {
                self.push(Effect::Mail { to: from, mail: Mail::Answer(number) });
            }
            Mail::Answer(number) => {
                self.journal.note(Note::Answer(number));
                self.answers_missing -= 1;
                if let Some(socket) = self.asked.remove(&number)
                    && self.answers_missing == 0
                {
                    self.say_bytes(socket, b"ok");
                }
            }
            Mail::Stop => self.push(Effect::Stop),
        }
    }

    fn sent(&mut self, socket: SocketId, result: Result<(), io::ErrorKind>) {
        let Some(conn) = self.conns.get_mut(&socket) else { return };
        conn.sending = false;
        if let Err(error) = result {
            self.journal.note(Note::SendError(socket, error));
            return self.close(socket, Close::Abort);
        }
        if conn.closed {
            return;
        }
        if let Some(payload) = conn.waiting.pop_front() {
            conn.sending = true;
            self.push(Effect::Send { socket, payload });
        } else if conn.close_after {
            let how = conn.close_kind();
            self.close(socket, how);
        } else if let Some(cursor) = conn.cursor {
            self.catch_up(socket, cursor);
        } else if matches!(conn.mode, b'E' | b'U' | b'P') {
            self.push(Effect::Receive { socket, on: true });
        }
    }

    /// Sends a subscriber what it has not got; one that has everything takes part in fan-outs.
    fn catch_up(&mut self, socket: SocketId, cursor: usize) {
        let Some(conn) = self.conns.get_mut(&socket) else { return };
        if cursor == self.history.len() {
            conn.cursor = None;
            self.subscribers.push(socket);
            return;
        }
        conn.cursor = Some(self.history.len());
        let rest = self.history[cursor..].to_vec();
        self.say_bytes(socket, &rest);
    }

    fn fanout_failed(&mut self, socket: SocketId, sent_bytes: u32, error: io::ErrorKind) {
        self.journal.note(Note::FanoutFailed(socket, sent_bytes, error));
        self.subscribers.retain(|&other| other != socket);
        let Some(conn) = self.conns.get_mut(&socket) else { return };
        if error != io::ErrorKind::WouldBlock {
            return self.close(socket, Close::Abort);
        }
        conn.cursor = Some(self.frame_from + sent_bytes as usize);
        self.push(Effect::Watch { socket, hang_up: true, writable: true });
    }

    fn deadline(&mut self) {
        let now = self.now.mono;
        let due: Vec<_> = self.timers.extract_if(.., |(at, _)| *at <= now).collect();
        for (at, timer) in due {
            self.journal.note(Note::Deadline(at, now));
            match timer {
                Timer::Say(socket) => self.say_bytes(socket, b"ok"),
                Timer::Receive(socket) => {
                    if self.conns.get(&socket).is_none_or(|conn| conn.closed) {
                        continue;
                    }
                    self.push(Effect::Receive { socket, on: true });
                }
                Timer::Accept => {
                    self.push(Effect::Accept { listener: 0, on: true });
                }
            }
        }
    }
}

impl Actor for ParityActor {
    type Mail = Mail;

    fn handle(&mut self, now: Now, input: Input<'_, Mail>) {
        self.now = now;
        match input {
            Input::Accepted { socket, peer, .. } => {
                self.journal.note(Note::Accepted(socket, peer));
                self.conns.insert(socket, Conn::default());
                self.push(Effect::Receive { socket, on: true });
            }
            Input::Connected { op, result } => self.connected(op, result),
            Input::Received { socket, bytes } => self.received(socket, bytes),
            Input::Eof { socket } => {
                self.journal.note(Note::Eof(socket));
                let other = self.conns.get(&socket).and_then(|conn| conn.other);
                other.into_iter().for_each(|other| self.close_when_said(other));
                self.close_when_said(socket);
            }
            Input::Writable { socket } => {
                self.journal.note(Note::Writable(socket));
                let cursor = self.conns.get(&socket).and_then(|conn| conn.cursor);
                cursor.into_iter().for_each(|cursor| self.catch_up(socket, cursor));
            }
            Input::HungUp { socket } => {
                self.journal.note(Note::HungUp(socket));
                self.close(socket, Close::Abort);
            }
            Input::Sent { socket, result, .. } => self.sent(socket, result),
            Input::SendFailed { socket, sent_bytes, error } => {
                self.fanout_failed(socket, sent_bytes, error);
            }
            Input::Closed { socket } => {
                self.journal.note(Note::Closed(socket));
                let known = self.conns.remove(&socket).is_some();
                assert!(known, "a socket is closed once");
            }
            Input::Mail { from, mail } => self.mail(from, mail),
            Input::File { op, result } => self.file(op, result),
            Input::Resolved { op, result } => {
                let Some(socket) = self.ops.remove(&op) else { return };
                let text = result.map_or("none".into(), |addrs| addrs.len().to_string());
                self.say_bytes(socket, text.as_bytes());
            }
            Input::Cold { op, result } => {
                let Some(socket) = self.ops.remove(&op) else { return };
                let text = result.map_or("none".into(), |bytes| format!("{:02x?}", &bytes[..2]));
                self.say_bytes(socket, text.as_bytes());
            }
            Input::Deadline => self.deadline(),
            Input::Continue => self.journal.note(Note::Continue),
            Input::Control(control) => self.journal.note(Note::Control(control)),
        }
    }

    fn poll_effect(&mut self) -> Option<Effect<Mail>> {
        match self.queue.pop_front()? {
            Queued::Effect(effect) => Some(effect),
            Queued::Fanout(len) => {
                self.frame_from = self.history.len();
                self.history.extend(pattern(self.frame_from..self.frame_from + len));
                self.journal.note(Note::Fanout);
                let frame = Bytes::copy_from_slice(&self.history[self.frame_from..]);
                Some(Effect::Fanout { frame, targets: 0..self.subscribers.len() as u32 })
            }
        }
    }

    fn next_deadline(&self) -> Option<Mono> {
        self.timers.iter().map(|&(at, _)| at).min()
    }

    fn fanout_targets(&self, range: Range<u32>) -> &[SocketId] {
        &self.subscribers[range.start as usize..range.end as usize]
    }
}

impl ParityActor {
    fn connected(&mut self, op: OpId, result: Result<SocketId, io::ErrorKind>) {
        let socket = self.ops.remove(&op).expect("the engine returns what it was given");
        match result {
            Err(error) => {
                self.say_bytes(socket, format!("{error:?}").as_bytes());
                self.close_when_said(socket);
            }
            Ok(other) => {
                self.conns
                    .insert(other, Conn { mode: b'C', other: Some(socket), ..Conn::default() });
                match self.conns.get_mut(&socket).filter(|conn| !conn.closed) {
                    Some(conn) => conn.other = Some(other),
                    None => return self.close(other, Close::Abort),
                }
                self.push(Effect::Receive { socket: other, on: true });
                self.say_bytes(socket, b"ok");
            }
        }
    }

    fn file(&mut self, op: OpId, result: io::Result<Vec<u8>>) {
        let Some(socket) = self.ops.remove(&op) else { return };
        let Some(conn) = self.conns.get(&socket) else { return };
        match result {
            Ok(content) if content.is_empty() => {}
            Ok(content) if content == conn.written => self.say_bytes(socket, b"ok"),
            Ok(content) => panic!("read {} other bytes", content.len()),
            Err(error) => self.say_bytes(socket, error.to_string().as_bytes()),
        }
    }
}
