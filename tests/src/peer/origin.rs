//! An origin whose every answer follows from the object's number and its generation, so that a
//! visitor can tell from a body alone which state of the world it saw.
//!
//! `/o/<object>`: the number also draws how it is served: lifetime, validators, chunked or not,
//! size, delay.

use std::{any::Any, cell::RefCell, collections::BTreeMap, rc::Rc};

use dataplane::seam::Now;

use super::wire::{Request, Wires};
use crate::{
    check::ledger::Ledger,
    sim::{
        net::{End, Net, Notice},
        rng::Rng,
        world::Peer,
    },
};

/// How an object is served.
#[derive(Clone, Debug)]
pub struct Manner {
    /// `Cache-Control`.
    pub cache_control: String,
    /// Whether it has an `ETag`.
    pub etag: bool,
    /// Whether it is sent in chunks.
    pub chunked: bool,
    /// Body length, bytes.
    pub length: usize,
    /// Before the head goes out, ms.
    pub delay_ms: u64,
}

/// How `object` is served: the same in every run.
pub fn manner(object: u32) -> Manner {
    let mut rng = Rng::new(u64::from(object) + 77);
    let lifetimes =
        ["max-age=60", "max-age=2", "no-store", "no-cache", "s-maxage=5, max-age=1", "max-age=600"];
    Manner {
        cache_control: (*rng.pick(&lifetimes)).to_owned(),
        etag: rng.chance(600),
        chunked: rng.chance(300),
        length: *rng.pick(&[0, 1, 100, 1000, 5000, 20_000, 70_000]),
        delay_ms: *rng.pick(&[0, 0, 1, 5, 50, 300]),
    }
}

/// The body of a generation of an object.
pub fn body(object: u32, generation: u32) -> Vec<u8> {
    let word = format!("{object}.{generation};");
    // No two generations are of one length: without validators, a HEAD's Content-Length is all that
    // tells a cache (RFC 9111 §4.3.5) that what it has is still that. The word itself comes on top,
    // or the first generations of the shortest bodies were all of its length.
    let length = word.len() + manner(object).length + generation as usize;
    let mut body = word.repeat(length.div_ceil(word.len()));
    body.truncate(length);
    body.into_bytes()
}

/// Which generation a body is, if it is one of that object, whole and unmixed.
pub fn generation_of(object: u32, bytes: &[u8]) -> Option<u32> {
    let text = std::str::from_utf8(bytes).ok()?;
    let word = text.split(';').next()?;
    let generation = word.strip_prefix(&format!("{object}."))?.parse().ok()?;
    (body(object, generation) == bytes).then_some(generation)
}

/// The origin.
pub struct Origin {
    wires: Wires,
    ledger: Rc<RefCell<Ledger>>,
    rng: Rng,
    /// Answers that wait for their time.
    later: BTreeMap<(u64, u64), (End, Request)>,
    sequence: u64,
    /// Parts in a thousand of the answers that are a 503, a cut body or a reset.
    pub faulty_per_mille: u32,
    /// Requests seen, by object.
    pub asked: BTreeMap<u32, u64>,
}

impl Origin {
    /// An origin that tells the ledger nothing by itself; scenarios bump generations there.
    pub fn new(ledger: Rc<RefCell<Ledger>>, rng: Rng) -> Self {
        Self {
            wires: Wires::default(),
            ledger,
            rng,
            later: BTreeMap::new(),
            sequence: 0,
            faulty_per_mille: 0,
            asked: BTreeMap::new(),
        }
    }

    /// All connections are gone with the process.
    pub fn crash(&mut self) {
        self.wires.clear();
        self.later.clear();
    }

    fn answer(&mut self, now: Now, net: &mut Net, end: End, request: &Request) {
        let now_ns = now.mono.0;
        let Some(object) = object_of(&request.target) else {
            let none = b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n";
            return self.wires.send(now_ns, net, end, none);
        };
        *self.asked.entry(object).or_default() += 1;
        // What the cache is not asked for goes as it came.
        if request.target.contains("utm_") && request.field("if-match").is_none() {
            let what = format!("what a rule drops has reached the origin: {}", request.target);
            self.ledger.borrow_mut().violation(now_ns, what);
        }
        if self.rng.chance(self.faulty_per_mille) {
            return self.misbehave(now_ns, net, end, object);
        }
        let (generation, manner) = (self.ledger.borrow().newest(object), manner(object));
        let body = body(object, generation);
        let tag = format!("\"{object}-{generation}\"");
        let mut head = String::new();
        let matches =
            manner.etag && request.field("if-none-match").is_some_and(|known| known.contains(&tag));
        head += if matches { "HTTP/1.1 304 Not Modified\r\n" } else { "HTTP/1.1 200 OK\r\n" };
        head +=
            &format!("Cache-Control: {}\r\nSurrogate-Key: o{object} all\r\n", manner.cache_control);
        head += "Content-Type: text/plain\r\n";
        if let Some(tenant) = request.field("x-tenant") {
            head += &format!("X-For: {tenant}\r\n");
        }
        if manner.etag {
            head += &format!("ETag: {tag}\r\n");
        }
        if matches {
            return self.wires.send(now_ns, net, end, (head + "\r\n").as_bytes());
        }
        if request.method == "HEAD" {
            head += &format!("Content-Length: {}\r\n\r\n", body.len());
            return self.wires.send(now_ns, net, end, head.as_bytes());
        }
        let mut bytes;
        if manner.chunked {
            bytes = (head + "Transfer-Encoding: chunked\r\n\r\n").into_bytes();
            for piece in body.chunks(1 + self.rng.below(4000)) {
                bytes.extend(format!("{:x}\r\n", piece.len()).bytes());
                bytes.extend(piece);
                bytes.extend(b"\r\n");
            }
            bytes.extend(b"0\r\n\r\n");
        } else {
            bytes = format!("{head}Content-Length: {}\r\n\r\n", body.len()).into_bytes();
            bytes.extend(&body);
        }
        self.wires.send(now_ns, net, end, &bytes);
    }

    fn misbehave(&mut self, now_ns: u64, net: &mut Net, end: End, object: u32) {
        match self.rng.below(4) {
            0 => {
                let busy = b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n";
                self.wires.send(now_ns, net, end, busy);
                net.coverage.hit("origin: 503");
            }
            1 => {
                let head =
                    "HTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\nContent-Length: 5000\r\n\r\n";
                self.wires.send(now_ns, net, end, format!("{head}{object}.9").as_bytes());
                self.wires.finish(now_ns, net, end);
                net.coverage.hit("origin: body cut short");
            }
            2 => {
                self.wires.drop_end(now_ns, net, end, true);
                net.coverage.hit("origin: reset instead of an answer");
            }
            _ => {
                self.wires.send(
                    now_ns,
                    net,
                    end,
                    b"HTTP/1.1 200 OK\r\nContent-Length: 1, 2\r\nX: \x01\r\n\r\n",
                );
                net.coverage.hit("origin: nonsense");
            }
        }
    }
}

/// The object that a target names.
fn object_of(target: &str) -> Option<u32> {
    target.strip_prefix("/o/")?.split('?').next()?.parse().ok()
}

impl Peer for Origin {
    fn notice(&mut self, now: Now, net: &mut Net, notice: Notice) {
        let (requests, _) = self.wires.notice(now.mono.0, net, notice);
        for (end, request) in requests {
            let delay_ms = object_of(&request.target).map_or(0, |object| manner(object).delay_ms);
            self.sequence += 1;
            let at_ns = now.mono.after_ms(delay_ms).0;
            self.later.insert((at_ns, self.sequence), (end, request));
        }
        self.tick(now, net);
    }

    fn tick(&mut self, now: Now, net: &mut Net) {
        while let Some(entry) = self.later.first_entry() {
            if entry.key().0 > now.mono.0 {
                return;
            }
            let (end, request) = entry.remove();
            self.answer(now, net, end, &request);
        }
    }

    fn next_deadline_ns(&self) -> Option<u64> {
        self.later.first_key_value().map(|((at, _), _)| *at)
    }

    fn as_any(&mut self) -> &mut dyn Any {
        self
    }
}
