//! The access log, as far as a shard is concerned: one line a request, gathered and left at a
//! bounded queue's end for the thread that writes.
//!
//! ```text
//!  request ─▶ Entry (on its connection) ─answer whole─▶ line ─▶ batch ─16 KiB, 200 ms─▶ queue
//!                                                               full: dropped, counted ◀─┘
//! ```
//! A line is JSON: `ts` (seconds since 1970), `peer`, `method`, `host`, `path`, `status`, `bytes`
//! (head and body of the answer), `cache` (as `X-Cache-Status`, absent for our own answers), `ms`
//! (from the head of the request until the answer was handed to the connection), `id`; `stream` and
//! `aborted` where they are true. No field of a request is in it, and values in a query whose names
//! sound like secrets are struck out.
//!
//! While it is off, a request costs one look at an empty option. Leaves to others: writing
//! (`engine::journal`).

use std::{
    io::Write,
    net::IpAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use crossbeam_queue::ArrayQueue;
use proto::http1::head::RequestHead;

use super::{Edge, observe::Metric, request::CacheLabel};
use crate::{
    limits,
    seam::{Mono, Now},
};

/// Lines on their way from the shards to the thread that writes them.
#[derive(Debug)]
pub struct AccessQueue {
    batches: ArrayQueue<Batch>,
    /// Lines that could not be written.
    unwritten: AtomicU64,
}

/// Whole lines of one shard.
#[derive(Debug)]
pub struct Batch {
    /// The lines.
    pub text: Vec<u8>,
    /// How many.
    pub lines: u64,
}

/// A shard's hand on the log.
pub struct Access {
    queue: Arc<AccessQueue>,
    gathered: Batch,
    /// When what is gathered goes out at the latest.
    due_at: Option<Mono>,
    /// Time of the input that is being handled.
    now: Now,
    /// The request that has just begun, until its connection takes it.
    begun: Option<Box<Entry>>,
}

/// What is known of a request's answer.
#[derive(Clone, Copy, Default, Debug)]
pub struct Answered {
    status: u16,
    label: Option<CacheLabel>,
}

/// A request whose answer is not whole yet.
pub struct Entry {
    began: Now,
    peer: IpAddr,
    method: Box<str>,
    host: Box<str>,
    path: String,
    id: Box<[u8]>,
    answered: Answered,
    /// Where in all that its connection ever wrote the answer begins.
    bytes_before: u64,
}

/// How a request ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Ending {
    /// Its answer is whole.
    Whole,
    /// It became a stream, or was refused one.
    Stream,
    /// The connection ended before its answer was whole.
    Aborted,
}

impl AccessQueue {
    /// Empty.
    pub fn new() -> Arc<Self> {
        Self::with_room(limits::ACCESS_BATCHES_MAX)
    }

    fn with_room(batches_max: usize) -> Arc<Self> {
        let batches = ArrayQueue::new(batches_max);
        Arc::new(Self { batches, unwritten: AtomicU64::new(0) })
    }

    /// The oldest batch, for the thread that writes.
    pub fn take(&self) -> Option<Batch> {
        self.batches.pop()
    }

    /// Puts one line in, as a shard would.
    #[cfg(test)]
    pub(crate) fn put_for_test(&self, line: &str) -> bool {
        self.batches.push(Batch { text: line.into(), lines: 1 }).is_ok()
    }

    /// Notes lines that could not be written.
    pub fn note_unwritten(&self, lines: u64) {
        self.unwritten.fetch_add(lines, Ordering::Relaxed);
    }

    /// Lines that could not be written, since it was opened.
    pub fn unwritten(&self) -> u64 {
        self.unwritten.load(Ordering::Relaxed)
    }
}

impl Access {
    fn new(queue: Arc<AccessQueue>) -> Self {
        let gathered = Batch { text: Vec::new(), lines: 0 };
        Self { queue, gathered, due_at: None, now: Now::default(), begun: None }
    }
}

impl Entry {
    /// It has become a stream, or was refused one.
    pub(super) fn note_stream(&mut self) {
        self.answered = Answered { status: 200, label: None };
    }

    fn new(began: Now, peer: IpAddr, head: &RequestHead<'_>, id: &[u8]) -> Self {
        Self {
            began,
            peer,
            method: head.method.as_str().into(),
            host: head.authority.host.into(),
            path: without_secrets(head.target.path_and_query()),
            id: id.into(),
            answered: Answered::default(),
            bytes_before: 0,
        }
    }

    /// One of a request that could not be read.
    fn unread(began: Now, peer: IpAddr, status: u16, id: &[u8]) -> Self {
        let answered = Answered { status, label: None };
        let (method, host, path) = ("-".into(), "".into(), String::new());
        Self { began, peer, method, host, path, id: id.into(), answered, bytes_before: 0 }
    }

    fn write(&self, now: Now, bytes: u64, ending: Ending, to: &mut Vec<u8>) {
        let wall = self.began.wall_ms;
        let us = now.mono.since_ns(self.began.mono) / 1000;
        let _ =
            write!(to, "{{\"ts\":{}.{:03},\"peer\":\"{}\"", wall / 1000, wall % 1000, self.peer);
        for (name, text) in [("method", &*self.method), ("host", &self.host), ("path", &self.path)]
        {
            let _ = write!(to, ",\"{name}\":");
            // Into a vector, of a string: cannot fail.
            let _ = serde_json::to_writer(&mut *to, text);
        }
        let _ = write!(to, ",\"status\":{},\"bytes\":{bytes}", self.answered.status);
        if let Some(label) = self.answered.label {
            let _ = write!(to, ",\"cache\":\"{}\"", label.word());
        }
        let _ = write!(to, ",\"ms\":{}.{:03},\"id\":\"", us / 1000, us % 1000);
        // Ours, or checked to be a plain token.
        to.extend_from_slice(&self.id);
        to.extend_from_slice(match ending {
            Ending::Whole => b"\"}\n",
            Ending::Stream => b"\",\"stream\":true}\n",
            Ending::Aborted => b"\",\"aborted\":true}\n",
        });
    }
}

impl Edge {
    /// Logs there from now on, or not at all; what was gathered goes where it belongs.
    pub(super) fn set_access(&mut self, queue: Option<Arc<AccessQueue>>) {
        self.flush_access();
        self.access = queue.map(|queue| Box::new(Access::new(queue)));
    }

    /// The time of what follows.
    pub(super) fn note_access_time(&mut self, now: Now) {
        if let Some(access) = &mut self.access {
            access.now = now;
        }
    }

    /// A visitor's request has begun.
    pub(super) fn access_begins(&mut self, peer: IpAddr, head: &RequestHead<'_>, id: &[u8]) {
        if let Some(access) = &mut self.access {
            self.answered = Answered::default();
            access.begun = Some(Box::new(Entry::new(access.now, peer, head, id)));
        }
    }

    /// Hands the request that has just begun to its connection, which has written so many bytes
    /// before.
    pub(super) fn take_access_entry(&mut self, bytes_before: u64) -> Option<Box<Entry>> {
        let mut entry = self.access.as_mut()?.begun.take()?;
        entry.bytes_before = bytes_before;
        self.keep_answered(&mut entry);
        Some(entry)
    }

    /// A head was written.
    pub(super) fn note_answered(&mut self, status: u16, label: Option<CacheLabel>) {
        self.observe.answered(status);
        self.answered = Answered { status, label };
    }

    /// Whatever was answered until now was another's.
    pub(super) fn forget_answered(&mut self) {
        self.answered = Answered::default();
    }

    /// Keeps what was answered since [`Edge::forget_answered`] with its request.
    pub(super) fn keep_answered(&self, entry: &mut Entry) {
        if self.answered.status != 0 {
            entry.answered = self.answered;
        }
    }

    /// A request is over; its connection has written so many bytes by now.
    pub(super) fn log_access(&mut self, entry: &Entry, bytes_after: u64, ending: Ending) {
        let Some(access) = &mut self.access else { return };
        let bytes = bytes_after.saturating_sub(entry.bytes_before);
        entry.write(access.now, bytes, ending, &mut access.gathered.text);
        access.gathered.lines += 1;
        let due_at = access.now.mono.after_ms(limits::ACCESS_GATHER_MS);
        let _ = access.due_at.get_or_insert(due_at);
        if access.gathered.text.len() >= limits::ACCESS_BATCH_BYTES {
            self.flush_access();
        }
    }

    /// A request that could not be read was refused.
    pub(super) fn log_unread(&mut self, peer: IpAddr, status: u16, id: &[u8], bytes: u64) {
        if let Some(access) = &self.access {
            let entry = Entry::unread(access.now, peer, status, id);
            self.log_access(&entry, bytes, Ending::Whole);
        }
    }

    /// When [`Edge::flush_access_when_due`] is to be called.
    pub(super) fn access_due_at(&self) -> Option<Mono> {
        self.access.as_ref()?.due_at
    }

    /// Some deadline of the shard has passed.
    pub(super) fn flush_access_when_due(&mut self, now: Now) {
        if self.access_due_at().is_some_and(|at| at <= now.mono) {
            self.flush_access();
        }
    }

    /// Hands over what is gathered, or drops it where the writer is behind.
    pub(super) fn flush_access(&mut self) {
        let Some(access) = &mut self.access else { return };
        access.due_at = None;
        let lines = access.gathered.lines;
        if lines == 0 {
            return;
        }
        let empty = Batch { text: Vec::with_capacity(limits::ACCESS_BATCH_BYTES), lines: 0 };
        let batch = std::mem::replace(&mut access.gathered, empty);
        let metric = match access.queue.batches.push(batch) {
            Ok(()) => Metric::AccessLines,
            Err(mut batch) => {
                batch.text.clear();
                access.gathered = Batch { lines: 0, ..batch };
                Metric::AccessDropped
            }
        };
        self.observe.add(metric, lines);
    }
}

/// Path and query, shortened, without the values of what sounds like a secret, in the query (parted
/// by `&`, and by `;`, as many read it) and in parameters of the path. A name that is encoded is
/// not decoded: its value goes, too.
pub(super) fn without_secrets(target: &str) -> String {
    let (path, query) = target.split_once('?').map_or((target, None), |(p, q)| (p, Some(q)));
    let mut text = String::with_capacity(target.len().min(limits::ACCESS_PATH_BYTES_MAX));
    for piece in path.split_inclusive(['/', ';']) {
        let pair = piece.trim_end_matches(['/', ';']);
        // What is no parameter has no value, whatever it is called.
        let value = if text.ends_with(';') { pair.split_once('=') } else { None };
        match value.filter(|(name, _)| is_secret(name)) {
            Some((name, _)) => {
                text.push_str(name);
                text.push_str("=***");
                text.push_str(&piece[pair.len()..]);
            }
            None => text.push_str(piece),
        }
        if text.len() > limits::ACCESS_PATH_BYTES_MAX {
            return shortened(&text);
        }
    }
    let Some(query) = query else { return shortened(&text) };
    text.push('?');
    for piece in query.split_inclusive(['&', ';']) {
        let pair = piece.trim_end_matches(['&', ';']);
        match pair.split_once('=') {
            Some((name, _)) if is_secret(name) => {
                text.push_str(name);
                text.push_str("=***");
            }
            // A lone value may be the secret itself.
            None if pair.len() > LONE_VALUE_BYTES_MAX => text.push_str("***"),
            _ => text.push_str(pair),
        }
        text.push_str(&piece[pair.len()..]);
        if text.len() > limits::ACCESS_PATH_BYTES_MAX {
            break;
        }
    }
    shortened(&text)
}

pub(super) fn is_secret(name: &str) -> bool {
    let lower = name.to_ascii_lowercase();
    lower.contains('%') || SECRET_NAMES.iter().any(|secret| lower.contains(secret))
}

fn shortened(text: &str) -> String {
    match text.char_indices().find(|(at, _)| *at >= limits::ACCESS_PATH_BYTES_MAX) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

/// Parts of names whose values never reach the log, nor an explanation.
const SECRET_NAMES: [&str; 20] = [
    "token",
    "ticket",
    "samlre",
    "assertion",
    "key",
    "secret",
    "pass",
    "pwd",
    "auth",
    "sig",
    "session",
    "code",
    "credential",
    "sid",
    "jwt",
    "csrf",
    "xsrf",
    "otp",
    "hmac",
    "cookie",
];
/// Longest part of a query without `=` that is logged.
const LONE_VALUE_BYTES_MAX: usize = 16;

#[cfg(test)]
mod tests {
    use super::{super::live::Live, super::testing::World, *};
    use crate::{seam::Control, shard::testing::page};

    const EVENTS: &str = "GET /demo/events HTTP/1.1\r\nHost: localhost\r\n\r\n";

    /// A world whose shards log there.
    fn world(queue: &Arc<AccessQueue>) -> World {
        let mut world = World::new(1);
        log_to(&mut world, Some(queue));
        world
    }

    fn log_to(world: &mut World, queue: Option<&Arc<AccessQueue>>) {
        let live = Live { access: queue.cloned(), streams_max: 9, ..world.live_now() };
        world.live.put(live);
        world.control(Control::Reload);
    }

    fn lines(queue: &AccessQueue) -> Vec<serde_json::Value> {
        let mut text = Vec::new();
        while let Some(batch) = queue.take() {
            text.extend(batch.text);
        }
        let text = String::from_utf8(text).expect("text");
        text.lines().map(|line| serde_json::from_str(line).expect(line)).collect()
    }

    fn ask(world: &mut World, request: &str) -> crate::shard::testing::End {
        let client = world.connect(0);
        world.say(client, request);
        client
    }

    #[test]
    fn a_line_says_who_asked_for_what_and_what_came_of_it() {
        let queue = AccessQueue::new();
        let mut world = world(&queue);
        let get = "GET /x?a=\"1\" HTTP/1.1\r\nHost: a.example\r\nX-Request-Id: r-1\r\n\r\n";
        let client = ask(&mut world, get);
        world.wait_ms(40);
        let upstream = world.upstream();
        let answer = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nCache-Control: max-age=9\r\n\r\nok";
        world.say(upstream, answer);
        let first_len = world.take(client).len();
        world.say(client, get);
        world.say(client, "DELETE / HTTP/1.1\r\nHost: nobody.example\r\n\r\n");
        world.say(client, "nonsense\r\n\r\n");
        world.wait_ms(limits::ACCESS_GATHER_MS);
        let lines = lines(&queue);
        let facts = |at: usize| {
            let line = &lines[at];
            ["method", "host", "path", "cache", "status"].map(|name| line[name].to_string())
        };
        assert_eq!(facts(0), [r#""GET""#, r#""a.example""#, r#""/x?a=\"1\"""#, r#""MISS""#, "200"]);
        assert_eq!(facts(1), [r#""GET""#, r#""a.example""#, r#""/x?a=\"1\"""#, r#""HIT""#, "200"]);
        assert_eq!(facts(2), [r#""DELETE""#, r#""nobody.example""#, r#""/""#, "null", "421"]);
        assert_eq!(facts(3), [r#""-""#, r#""""#, r#""""#, "null", "400"]);
        assert_eq!(lines[0]["bytes"], first_len);
        assert_eq!((&lines[0]["ms"], &lines[0]["ts"]), (&40.0.into(), &1_700_000_000.0.into()));
        assert_eq!((&lines[0]["id"], &lines[0]["peer"]), (&"r-1".into(), &"127.0.0.1".into()));
        assert_eq!(lines.len(), 4);
    }

    #[test]
    fn streams_and_answers_that_break_off_are_told_as_such() {
        let queue = AccessQueue::new();
        let mut world = World::with_control(1);
        log_to(&mut world, Some(&queue));
        world.configure(vec![crate::shard::testing::site()], vec![page()]);
        ask(&mut world, EVENTS);
        let client = ask(&mut world, "GET /pass/ HTTP/1.1\r\nHost: a.example\r\n\r\n");
        let upstream = world.upstream();
        world.say(upstream, "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf");
        world.hang_up(client);
        world.wait_ms(limits::ACCESS_GATHER_MS);
        let lines = lines(&queue);
        assert_eq!((&lines[0]["stream"], &lines[0]["status"]), (&true.into(), &200.into()));
        assert_eq!((&lines[1]["aborted"], &lines[1]["cache"]), (&true.into(), &"PASS".into()));
        assert!(lines[1]["bytes"].as_u64().expect("a number") > 4);
    }

    #[test]
    fn a_writer_that_is_behind_costs_lines_that_are_counted_and_nothing_else() {
        let queue = AccessQueue::with_room(1);
        let mut world = world(&queue);
        let request = "GET / HTTP/1.1\r\nHost: nobody.example\r\n\r\n";
        for _ in 0..3 {
            let client = ask(&mut world, request);
            assert!(world.take(client).starts_with("HTTP/1.1 421 "));
            world.wait_ms(limits::ACCESS_GATHER_MS);
        }
        assert_eq!(
            (world.metric(Metric::AccessLines), world.metric(Metric::AccessDropped)),
            (1, 2)
        );
        assert_eq!(lines(&queue).len(), 1);
        // Off again: nothing more, and what was gathered has gone out.
        ask(&mut world, request);
        log_to(&mut world, None);
        ask(&mut world, request);
        world.wait_ms(limits::ACCESS_GATHER_MS);
        assert_eq!(lines(&queue).len(), 1);
    }

    #[test]
    fn what_is_gathered_goes_out_before_the_shard_stops() {
        let queue = AccessQueue::new();
        let mut world = world(&queue);
        let client = ask(&mut world, "GET / HTTP/1.1\r\nHost: nobody.example\r\n\r\n");
        world.eof(client);
        world.control(Control::Drain);
        assert_eq!((world.stopped.len(), lines(&queue).len()), (1, 1));
    }

    #[test]
    fn no_secret_of_a_query_is_logged() {
        for (target, logged) in [
            ("/a", "/a"),
            ("/a?b=c&d", "/a?b=c&d"),
            ("/a?token=x&b=1", "/a?token=***&b=1"),
            ("/a?API_Key=x", "/a?API_Key=***"),
            ("/a?%74oken=x", "/a?%74oken=***"),
            ("/a?X-Amz-Signature=x=y", "/a?X-Amz-Signature=***"),
            ("/a?0123456789abcdef0", "/a?***"),
            ("/a?ticket=ST-1&b=1", "/a?ticket=***&b=1"),
            ("/a?SAMLResponse=x&SAMLRequest=y", "/a?SAMLResponse=***&SAMLRequest=***"),
            ("/a?a=b;token=x;c=d&e", "/a?a=b;token=***;c=d&e"),
            ("/a;jsessionid=x/b;v=1?c", "/a;jsessionid=***/b;v=1?c"),
            ("/a;x=1;JSESSIONID=x", "/a;x=1;JSESSIONID=***"),
            ("/a;%6asessionid=x", "/a;%6asessionid=***"),
            ("/token=a//b;;c/", "/token=a//b;;c/"),
        ] {
            assert_eq!(without_secrets(target), logged);
        }
        let long = without_secrets(&format!("/a?b={}&token=x", "y".repeat(9000)));
        assert!(long.len() < limits::ACCESS_PATH_BYTES_MAX + 4 && !long.contains('x'), "{long}");
    }
}
