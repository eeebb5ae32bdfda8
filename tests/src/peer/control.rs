//! A control as the feed's contract describes it, with the mishaps that a real one can have.
//!
//! Holds a log of events and purges in memory. It can be slow to one edge, die between a purge and
//! the re-fetch, come back, and come back as an older copy of itself under a new incarnation.

use std::{
    any::Any,
    cell::RefCell,
    collections::{BTreeMap, BTreeSet},
    rc::Rc,
};

use dataplane::seam::{Mono, Now};

use super::{
    rules::SiteRules,
    wire::{Request, Wires},
};
use crate::{
    check::ledger::{Ledger, covers},
    sim::{
        net::{End, Net, Notice},
        rng::Rng,
        world::Peer,
    },
};

/// One operation of the log.
#[derive(Clone, Debug)]
enum Change {
    /// A page's state changed: purge, then publish.
    Page { page: u32, prev: u64 },
    /// An object of the site is purged.
    Purge { target: Rc<str> },
}

#[derive(Clone, Debug)]
struct Operation {
    replica: Rc<str>,
    seq: u64,
    change: Change,
    /// The version vector of the log up to here, as text: asked for often.
    version: Rc<str>,
}

#[derive(Debug)]
struct Follower {
    /// Which edge, as its key says.
    edge: String,
    /// Operations sent so far: the position.
    sent: usize,
    held_until_ns: u64,
}

/// A page request that waits for its time, or for a version.
#[derive(Debug)]
struct Waiting {
    end: End,
    page: Option<u32>,
    at_ns: u64,
    give_up_ns: u64,
    min_version: String,
    /// Rendered when it came, not when it leaves: a slow answer that is old on arrival.
    rendered: Option<Rc<str>>,
    known: String,
}

/// The model of control.
pub struct Control {
    wires: Wires,
    ledger: Rc<RefCell<Ledger>>,
    rng: Rng,
    store: u64,
    incarnation: u32,
    log: Vec<Operation>,
    followers: BTreeMap<End, Follower>,
    waiting: Vec<Waiting>,
    next_beat_ns: u64,
    down: bool,
    /// Where each edge says it is: (store, position).
    positions: BTreeMap<String, (u64, u64)>,
    /// Slug and id of each page.
    pages: u32,
    site: String,
    /// They say by which name an object is purged.
    pub rules: Option<Rc<SiteRules>>,
    /// Which edges have told a name of their own, and how many streams; none that drains.
    named: BTreeMap<String, (String, u64)>,
    /// When each edge last reported, and which edges follow it.
    relays: BTreeMap<String, (u64, Vec<String>)>,
    /// Before, edges are still coming back: nobody is told who there is. `None`: it has just
    /// started.
    circle_from_ns: Option<u64>,
    /// Edges whose feed lags by so much.
    pub hold: BTreeMap<String, u64>,
}

impl Control {
    /// A control with `pages` pages and one site (JSON of the feed's schema).
    pub fn new(ledger: Rc<RefCell<Ledger>>, rng: Rng, pages: u32, site: String) -> Self {
        Self {
            wires: Wires::default(),
            ledger,
            rng,
            store: 1,
            incarnation: 1,
            log: Vec::new(),
            followers: BTreeMap::new(),
            waiting: Vec::new(),
            next_beat_ns: 0,
            down: false,
            positions: BTreeMap::new(),
            pages,
            site,
            rules: None,
            named: BTreeMap::new(),
            relays: BTreeMap::new(),
            circle_from_ns: None,
            hold: BTreeMap::new(),
        }
    }

    /// The present incarnation's name.
    pub fn replica(&self) -> Rc<str> {
        format!("sim-{:08x}", self.incarnation).into()
    }

    fn append(&mut self, change: Change) -> u64 {
        let replica = self.replica();
        let mut vector = BTreeMap::new();
        for operation in &self.log {
            vector.insert(&operation.replica, operation.seq);
        }
        let seq = vector.get(&replica).copied().unwrap_or(0) + 1;
        vector.insert(&replica, seq);
        let entries: Vec<String> =
            vector.iter().map(|(replica, seq)| format!("{replica}:{seq}")).collect();
        let version = entries.join(",").into();
        self.log.push(Operation { replica, seq, change, version });
        self.log.len() as u64
    }

    /// Tells the ledger which version a page has from a position on.
    fn tell_page(&self, at: usize) {
        if let Change::Page { page, .. } = self.log[at].change {
            let mut ledger = self.ledger.borrow_mut();
            ledger.page_is(self.store, page, at as u64 + 1, &self.log[at].version);
        }
    }

    /// An incident on a page: the log grows, feeds follow.
    pub fn declare(&mut self, now: Now, net: &mut Net, page: u32) {
        let replica = self.replica();
        let prev = self.log.iter().rev().find_map(|operation| match operation.change {
            Change::Page { page: known, .. } if known == page && operation.replica == replica => {
                Some(operation.seq)
            }
            _ => None,
        });
        self.append(Change::Page { page, prev: prev.unwrap_or(0) });
        self.tell_page(self.log.len() - 1);
        let last = self.log.last().expect("just appended");
        let dot = format!("{}:{}", last.replica, last.seq);
        self.ledger.borrow_mut().publishes(now.mono.0, page, dot);
        self.pump(now, net);
        self.answer_pages(now, net);
    }

    /// A purge of an object; returns its position.
    pub fn purge(&mut self, now: Now, net: &mut Net, object: u32) -> u64 {
        let rules = self.rules.as_ref();
        let target = rules.map_or_else(|| format!("/o/{object}"), |it| it.purge_target(object));
        let position = self.append(Change::Purge { target: target.into() });
        self.pump(now, net);
        position
    }

    /// Whether every one of `edges` has confirmed this position of the present store.
    pub fn confirmed(&self, edges: &[String], position: u64) -> bool {
        let reached = |&(store, at): &(u64, u64)| store == self.store && at >= position;
        edges.iter().all(|edge| self.positions.get(edge).is_some_and(reached))
    }

    /// Operations in the log.
    pub fn head(&self) -> u64 {
        self.log.len() as u64
    }

    /// Identifies the present copy of the log.
    pub fn store(&self) -> u64 {
        self.store
    }

    /// The process dies.
    pub fn crash(&mut self) {
        self.wires.clear();
        self.followers.clear();
        self.waiting.clear();
        self.down = true;
    }

    /// It is back, with its whole log.
    pub fn restart(&mut self) {
        self.down = false;
        self.circle_from_ns = None;
    }

    /// It is back as a copy that lacks the newest `lost` operations: a new store, a new
    /// incarnation.
    pub fn restart_from_backup(&mut self, lost: usize) {
        let keep = self.log.len().saturating_sub(lost);
        let gone = self.log.split_off(keep);
        self.store += 1;
        self.incarnation += 1;
        self.down = false;
        self.circle_from_ns = None;
        let replicas: BTreeSet<&str> = gone.iter().map(|operation| &*operation.replica).collect();
        for replica in replicas {
            let kept = self.log.iter().filter(|operation| &*operation.replica == replica).count();
            self.ledger.borrow_mut().loses(self.store, replica, kept as u64);
        }
        (0..self.log.len()).for_each(|at| self.tell_page(at));
    }

    fn vector_at(&self, position: usize) -> Rc<str> {
        position.checked_sub(1).map_or_else(|| "".into(), |at| Rc::clone(&self.log[at].version))
    }

    fn cursor_at(&self, position: usize) -> String {
        format!("{:016x}.{position}.{}", self.store, self.vector_at(position))
    }

    fn records_of(&self, at: usize) -> String {
        let operation = &self.log[at];
        let (position, cursor) = (at + 1, self.cursor_at(at + 1));
        match &operation.change {
            Change::Purge { target } => format!(
                "event: purge\nid: {cursor}\ndata: {{\"position\":{position},\"scope\":{{\"url\":\
                 {{\"site\":\"s1\",\"target\":\"{target}\"}}}}}}\n\n"
            ),
            Change::Page { page, .. } => format!(
                "event: purge\ndata: {{\"position\":{position},\"scope\":{{\"key\":{{\"key\":\
                 \"page/p{page}\"}}}},\"soft\":true}}\n\n{}",
                self.publish_record(at, Some(&cursor))
            ),
        }
    }

    fn publish_record(&self, at: usize, cursor: Option<&str>) -> String {
        let operation = &self.log[at];
        let Change::Page { page, prev } = operation.change else { return String::new() };
        let (position, dot) = (at + 1, format!("{}:{}", operation.replica, operation.seq));
        let version = self.vector_at(at + 1);
        let data = format!(
            "{{\\\"page\\\":\\\"p{page}\\\",\\\"version\\\":\\\"{version}\\\",\\\"dot\\\":\\\"{dot}\\\"}}"
        );
        let id = cursor.map_or(String::new(), |cursor| format!("id: {cursor}\n"));
        let refill = if cursor.is_none() { ",\"refill\":true" } else { "" };
        format!(
            "event: publish\n{id}data: {{\"position\":{position},\"topic\":\"page/p{page}\",\"dot\":\
             \"{dot}\",\"prev\":{prev},\"event\":\"incident\",\"data\":\"{data}\",\
             \"version\":\"{version}\"{refill}}}\n\n"
        )
    }

    fn snapshot(&self) -> String {
        let pages: Vec<String> = (0..self.pages)
            .map(|page| format!("{{\"id\":\"p{page}\",\"slug\":\"page{page}\"}}"))
            .collect();
        let cursor = self.cursor_at(self.log.len());
        format!(
            "event: snapshot\ndata: {{\"part\":0,\"last\":false,\"sites\":[{}]}}\n\n\
             event: snapshot\nid: {cursor}\ndata: {{\"part\":1,\"last\":true,\"pages\":[{}],\
             \"replica\":\"{}\"}}\n\n",
            self.site,
            pages.join(","),
            self.replica()
        )
    }

    /// To one who has everything it says where that is.
    fn beat(&self, now: Now, sent: usize) -> String {
        let is_all = sent == self.log.len();
        let id = if is_all { format!("id: {}\n", self.cursor_at(sent)) } else { String::new() };
        let (at_ms, replica, circle) = (now.wall_ms, self.replica(), self.circle(now));
        format!(
            "event: beat\n{id}data: {{\"sent_at_ms\":{at_ms},\"replica\":\"{replica}\"{circle}}}\n\n"
        )
    }

    /// The edges that visitors can be led to, as a beat tells them.
    fn circle(&self, now: Now) -> String {
        if self.circle_from_ns.is_none_or(|from_ns| from_ns > now.mono.0) {
            return String::new();
        }
        let here = |at_ns: u64| now.mono.since_ns(Mono(at_ns)) < AWAY_MS * 1_000_000;
        let follows = |edge: &String| {
            let relayed =
                |(at_ns, children): &(u64, Vec<String>)| here(*at_ns) && children.contains(edge);
            let is_relayed = self.relays.values().any(relayed);
            is_relayed || self.followers.values().any(|it| it.edge == *edge)
        };
        let edges = self
            .named
            .iter()
            .filter(|(edge, _)| follows(edge))
            .map(|(_, (url, streams))| format!("{{\"url\":\"{url}\",\"streams\":{streams}}}"));
        format!(",\"circle\":[{}]", edges.collect::<Vec<_>>().join(","))
    }

    fn event_bytes(text: &str) -> Vec<u8> {
        format!("{:x}\r\n{text}\r\n", text.len()).into_bytes()
    }

    fn feed(&mut self, now: Now, net: &mut Net, end: End, request: &Request) {
        let edge =
            request.field("authorization").unwrap_or("").trim_start_matches("Bearer ").to_owned();
        let resumed = request.field("last-event-id").and_then(|cursor| {
            let mut parts = cursor.splitn(3, '.');
            let store = parts.next()?;
            let position: usize = parts.next()?.parse().ok()?;
            (store == format!("{:016x}", self.store) && position <= self.log.len())
                .then_some(position)
        });
        let head = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n";
        self.wires.send(now.mono.0, net, end, head.as_bytes());
        let mut text = self.beat(now, usize::MAX);
        if resumed.is_none() {
            text += &self.snapshot();
        }
        let start = resumed.unwrap_or(self.log.len());
        if request.target.contains("history=1") {
            for at in 0..start {
                text += &self.publish_record(at, None);
            }
        }
        self.wires.send(now.mono.0, net, end, &Self::event_bytes(&text));
        let held_until_ns = 0;
        self.followers.insert(end, Follower { edge, sent: start, held_until_ns });
        self.pump(now, net);
    }

    /// Sends every follower what it lacks, as far as its pipe and its hold allow.
    fn pump(&mut self, now: Now, net: &mut Net) {
        let head = self.log.len();
        let behind = self.followers.iter().filter(|(_, follower)| follower.sent < head);
        for end in behind.map(|(end, _)| *end).collect::<Vec<_>>() {
            while let Some(follower) = self.followers.get_mut(&end) {
                if follower.sent >= head || self.wires.unsent(end) > UNSENT_BYTES_MAX {
                    break;
                }
                if let Some(hold_ms) = self.hold.get(&follower.edge) {
                    if follower.held_until_ns == 0 {
                        follower.held_until_ns = now.mono.after_ms(*hold_ms).0;
                    }
                    if follower.held_until_ns > now.mono.0 {
                        break;
                    }
                }
                follower.held_until_ns = 0;
                let at = follower.sent;
                follower.sent += 1;
                // A cut between two chunks is the same to a reader as one between two events.
                let text = self.records_of(at);
                self.wires.send(now.mono.0, net, end, &Self::event_bytes(&text));
            }
        }
    }

    fn page_request(&mut self, now: Now, end: End, request: &Request) {
        let page = request
            .target
            .strip_prefix("/pages/p")
            .and_then(|rest| rest.split('/').next().and_then(|page| page.parse().ok()));
        let delay_ms = *self.rng.pick(&[0, 0, 2, 30, 400]);
        let min_version = request.field("pharos-min-version").unwrap_or("").to_owned();
        let early = self.rng.chance(300);
        self.waiting.push(Waiting {
            end,
            page,
            at_ns: now.mono.after_ms(delay_ms).0,
            give_up_ns: now.mono.after_ms(delay_ms + 2000).0,
            rendered: early.then(|| self.vector_at(self.log.len())),
            known: request.field("if-none-match").unwrap_or("").to_owned(),
            min_version,
        });
    }

    fn answer_pages(&mut self, now: Now, net: &mut Net) {
        if self.waiting.is_empty() {
            return;
        }
        let present = self.vector_at(self.log.len());
        let mut index = 0;
        while index < self.waiting.len() {
            let waiting = &mut self.waiting[index];
            // First the time it takes, then, if need be, the time until the version is there.
            let for_version = waiting.at_ns == waiting.give_up_ns;
            if now.mono.0 < waiting.at_ns && !for_version {
                index += 1;
                continue;
            }
            let least = &waiting.min_version;
            let will_do = |old: &Rc<str>| covers(old, least);
            let rendered = waiting.rendered.clone().filter(will_do);
            let version = rendered.unwrap_or_else(|| Rc::clone(&present));
            let ready = will_do(&version);
            if !ready && now.mono.0 < waiting.give_up_ns {
                waiting.at_ns = waiting.give_up_ns;
                index += 1;
                continue;
            }
            let unchanged = waiting.known == format!("\"{version}\"");
            let waiting = self.waiting.swap_remove(index);
            let answer = match waiting.page {
                _ if !ready => "HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\
                                Retry-After: 1\r\nPharos-Wait: version\r\n\
                                Cache-Control: no-store\r\n\r\n"
                    .to_owned(),
                None => "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n".to_owned(),
                Some(page) if unchanged => format!(
                    "HTTP/1.1 304 Not Modified\r\nCache-Control: no-cache\r\nCDN-Cache-Control: \
                     max-age=3600\r\nSurrogate-Key: page/p{page}\r\nETag: \"{version}\"\r\n\
                     Pharos-Version: {version}\r\n\r\n"
                ),
                Some(page) => {
                    let body = format!("page {page} at {version}\n").repeat(20);
                    format!(
                        "HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nCache-Control: no-cache\r\n\
                         CDN-Cache-Control: max-age=3600\r\nSurrogate-Key: page/p{page}\r\n\
                         ETag: \"{version}\"\r\nPharos-Version: {version}\r\n\
                         Content-Length: {}\r\n\r\n{body}",
                        body.len()
                    )
                }
            };
            self.wires.send(now.mono.0, net, waiting.end, answer.as_bytes());
        }
    }

    fn take_position(&mut self, now: Now, request: &Request) {
        let edge =
            request.field("authorization").unwrap_or("").trim_start_matches("Bearer ").to_owned();
        let body: serde_json::Value =
            serde_json::from_slice(&request.body).expect("the edge reports its position as JSON");
        let cursor = body["cursor"].as_str().unwrap_or("");
        let mut parts = cursor.splitn(3, '.');
        let store = parts.next().and_then(|text| u64::from_str_radix(text, 16).ok()).unwrap_or(0);
        let position = parts.next().and_then(|text| text.parse().ok()).unwrap_or(0);
        self.ledger.borrow_mut().confirms(now.mono.0, &edge, store, position);
        match body["url"].as_str().filter(|_| body["draining"] != true) {
            Some(url) => {
                let streams = body["streams"].as_u64().unwrap_or(0);
                self.named.insert(edge.clone(), (url.to_owned(), streams));
            }
            None => {
                self.named.remove(&edge);
            }
        }
        let children = body["children"].as_array().map(Vec::as_slice).unwrap_or_default();
        let children = children.iter().filter_map(|id| Some(id.as_str()?.to_owned())).collect();
        self.relays.insert(edge.clone(), (now.mono.0, children));
        self.positions.insert(edge, (store, position));
    }
}

/// A follower with more on its way gets nothing until it has read.
const UNSENT_BYTES_MAX: usize = 8192;
/// An edge that has not reported for so long is away.
const AWAY_MS: u64 = 15_000;
/// How often a feed beats.
const BEAT_MS: u64 = 5000;
/// From its start until it tells which edges there are.
const SETTLE_MS: u64 = 15_000;

impl Peer for Control {
    fn notice(&mut self, now: Now, net: &mut Net, notice: Notice) {
        let (requests, gone) = self.wires.notice(now.mono.0, net, notice);
        if let (true, Notice::Reset(end) | Notice::Readable(end)) = (gone, notice) {
            self.followers.remove(&end);
            self.waiting.retain(|waiting| waiting.end != end);
        }
        for (end, request) in requests {
            if self.down {
                self.wires.drop_end(now.mono.0, net, end, true);
            } else if request.target.starts_with("/v1/feed") {
                self.feed(now, net, end, &request);
            } else if request.target.ends_with("/position") {
                self.take_position(now, &request);
                let done = b"HTTP/1.1 204 No Content\r\n\r\n";
                self.wires.send(now.mono.0, net, end, done);
            } else {
                self.page_request(now, end, &request);
            }
        }
        self.tick(now, net);
    }

    fn tick(&mut self, now: Now, net: &mut Net) {
        if self.down {
            return;
        }
        let settled = now.mono.after_ms(SETTLE_MS).0;
        self.circle_from_ns.get_or_insert(settled);
        self.answer_pages(now, net);
        self.pump(now, net);
        if now.mono.0 >= self.next_beat_ns {
            self.next_beat_ns = now.mono.after_ms(BEAT_MS).0;
            let sent = self.followers.iter().map(|(end, follower)| (*end, follower.sent));
            for (end, sent) in sent.collect::<Vec<_>>() {
                let beat = Self::event_bytes(&self.beat(now, sent));
                self.wires.send(now.mono.0, net, end, &beat);
            }
        }
    }

    fn next_deadline_ns(&self) -> Option<u64> {
        if self.down {
            return None;
        }
        let pages = self.waiting.iter().map(|waiting| waiting.at_ns.max(1));
        // A time that has passed and brings nothing would be due at every step: who lacks nothing
        // is held back from nothing, and who reads nothing is gone on with when he does.
        let lacks = |it: &Follower| it.held_until_ns > 0 && it.sent < self.log.len();
        let reads = |end: &End| self.wires.unsent(*end) <= UNSENT_BYTES_MAX;
        let held = self.followers.iter().filter(|(end, it)| lacks(it) && reads(end));
        let holds = held.map(|(_, it)| it.held_until_ns);
        let beat = (!self.followers.is_empty()).then_some(self.next_beat_ns);
        pages.chain(holds).chain(beat).min()
    }

    fn as_any(&mut self) -> &mut dyn Any {
        self
    }
}
