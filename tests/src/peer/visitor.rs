//! A visitor: asks for objects and pages, watches streams, reconnects like a browser, and checks
//! everything it gets.

use std::{
    any::Any,
    cell::RefCell,
    collections::{BTreeMap, VecDeque},
    net::{IpAddr, SocketAddr},
    rc::Rc,
};

use dataplane::seam::Now;

use super::{
    origin,
    rules::{self, Got, HOSTS, Promise, SESSION, SiteRules, TENANT},
};
use crate::{
    check::ledger::{Ledger, Seen, SeenPage, covers, edge_name, replica_of},
    client::{coding, http, sse},
    peer::steward::Ready,
    sim::{
        net::{End, Net, Notice},
        rng::Rng,
        world::Peer,
    },
};

#[derive(Clone, Debug)]
enum What {
    Object(u32),
    /// A page, and the version that its answer must cover, if one is promised.
    Page {
        page: u32,
        covers: String,
        asked_min: bool,
    },
}

#[derive(Debug)]
struct Asked {
    what: What,
    head: bool,
    at_ns: u64,
    /// What rules say of it, and who asked as which tenant.
    promise: Option<(Promise, &'static str)>,
}

/// A request as it will be sent.
struct Composed {
    what: What,
    text: String,
    head: bool,
    promise: Option<(Promise, &'static str)>,
}

#[derive(Debug)]
struct Connection {
    edge: usize,
    open: bool,
    reader: http::Reader,
    asked: VecDeque<Asked>,
    /// Bytes that did not fit.
    unsent: Vec<u8>,
    /// Its last request is out.
    said_goodbye: bool,
}

/// Which generation an answer's content is, whatever its coding.
fn generation_of(object: u32, reply: &http::Reply) -> Option<u32> {
    origin::generation_of(object, &coding::content(reply)?)
}

/// What a stream has seen of each replica, and whether a gap was told since.
#[derive(Debug, Default)]
struct Chain {
    places: BTreeMap<String, usize>,
    gap_told: bool,
}

#[derive(Debug)]
struct Stream {
    page: u32,
    edge: usize,
    end: Option<End>,
    open: bool,
    http: http::Reader,
    sse: sse::Reader,
    chain: Chain,
    /// Since when this visitor watches without interruption of its cursor.
    since_ns: u64,
    reconnect_ns: u64,
    /// Where it was led: which edge, and what it is to ask for there.
    led: Option<(usize, String)>,
    /// What it asks for now was told by a redirect.
    was_led: bool,
    /// The cursor that it last came back with.
    presented: String,
    /// Reads nothing until then, so that the edge meets a full buffer.
    paused_until_ns: u64,
}

/// What a visitor will do.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// Objects it asks for, numbered from 0.
    pub objects: u32,
    /// Pages it asks for and watches.
    pub pages: u32,
    /// Requests it makes.
    pub requests: u32,
    /// Streams it holds.
    pub streams: usize,
}

/// One visitor.
pub struct Visitor {
    host: usize,
    address: IpAddr,
    edges: Vec<SocketAddr>,
    /// Those that streams are led to; all of them without it.
    pub ready: Option<Ready>,
    ledger: Rc<RefCell<Ledger>>,
    rng: Rng,
    objects: u32,
    pages: u32,
    connections: BTreeMap<End, Connection>,
    streams: Vec<Stream>,
    /// Requests still to make.
    pub left: u32,
    next_ns: u64,
    /// When it leaves one of its connections or streams without a word; 0 for never.
    hang_up_at_ns: u64,
    /// No more tricks: it hangs up on nobody, asks what is left to ask and waits for it.
    calm: bool,
    /// Rules of the site, if it has some.
    pub rules: Option<Rc<SiteRules>>,
    /// Its streams go from one page to another.
    pub roams: bool,
    /// Page re-fetches that events asked for: (edge or any, page, version).
    refetch: VecDeque<(Option<usize>, u32, String)>,
}

impl Visitor {
    /// A visitor on a host, before these edges.
    pub fn new(
        (host, address): (usize, IpAddr),
        edges: Vec<SocketAddr>,
        ledger: Rc<RefCell<Ledger>>,
        mut rng: Rng,
        plan: Plan,
    ) -> Self {
        let Plan { objects, pages, requests: left, streams } = plan;
        let streams = (0..streams)
            .map(|_| Stream {
                page: rng.below(pages as usize) as u32,
                edge: rng.below(edges.len()),
                end: None,
                open: false,
                http: http::Reader::default(),
                sse: sse::Reader::default(),
                chain: Chain::default(),
                since_ns: u64::MAX,
                reconnect_ns: 1,
                led: None,
                was_led: false,
                presented: String::new(),
                paused_until_ns: 0,
            })
            .collect();
        Self {
            host,
            address,
            edges,
            ready: None,
            ledger,
            rng,
            objects,
            pages,
            connections: BTreeMap::new(),
            streams,
            left,
            next_ns: 1,
            hang_up_at_ns: 0,
            calm: false,
            rules: None,
            roams: false,
            refetch: VecDeque::new(),
        }
    }

    /// How many of its streams are open.
    pub fn open_streams(&self) -> usize {
        self.streams.iter().filter(|stream| stream.open).count()
    }

    /// Requests that wait for an answer, oldest first: when it was asked.
    pub fn oldest_unanswered_ns(&self) -> Option<u64> {
        let asked = self.connections.values().flat_map(|connection| &connection.asked);
        asked.map(|asked| asked.at_ns).min()
    }

    /// The faults are over: no more tricks.
    pub fn calm_down(&mut self) {
        self.calm = true;
        for stream in &mut self.streams {
            stream.paused_until_ns = stream.paused_until_ns.min(1);
        }
    }

    /// Whether it has connections that it will not need any more.
    fn leaves_idle(&self) -> bool {
        let asks_on = self.left > 0 || !self.refetch.is_empty();
        let mut connections = self.connections.values();
        self.calm && !asks_on && connections.any(|connection| connection.asked.is_empty())
    }

    /// Whether it has nothing more to ask and nothing to wait for.
    pub fn is_done(&self) -> bool {
        self.left == 0 && self.refetch.is_empty() && self.oldest_unanswered_ns().is_none()
    }

    /// Every stream should by now have seen the newest event of `replica` for its page; says which
    /// has not.
    pub fn check_streams_are_current(&self, now_ns: u64, replica: &str) {
        let mut ledger = self.ledger.borrow_mut();
        for stream in &self.streams {
            if stream.open && !ledger.is_there(&stream.sse.last_event_id) {
                let id = &stream.sse.last_event_id;
                let what = format!("page {}: a stream still stands at {id}, lost", stream.page);
                ledger.violation(now_ns, what);
            }
            if self.roams && stream.open && stream.since_ns == u64::MAX {
                let what = format!("page {}: a stream waits and waits", stream.page);
                ledger.violation(now_ns, what);
            }
            let Some((at_ns, place)) = ledger.newest_event(stream.page, replica) else { continue };
            if !stream.open {
                ledger
                    .violation(now_ns, format!("a stream of page {} never came back", stream.page));
            } else if at_ns > stream.since_ns
                && stream.chain.places.get(replica) != Some(&place)
                && !stream.chain.gap_told
            {
                let seen = stream.chain.places.get(replica);
                ledger.violation(
                    now_ns,
                    format!(
                        "page {}: a stream ended at event {seen:?} of {replica}, newest is {place}",
                        stream.page
                    ),
                );
            }
        }
    }

    fn ask(&mut self, now: Now, net: &mut Net) {
        let now_ns = now.mono.0;
        // Who was told of what has been lost since will be told that it was.
        let wanted = self
            .refetch
            .pop_front()
            .filter(|(edge, _, version)| edge.is_some() || self.ledger.borrow().is_there(version));
        let edge = match &wanted {
            Some((Some(edge), _, _)) => *edge,
            _ => self.rng.below(self.edges.len()),
        };
        let fresh = self.rng.chance(200);
        let idle = self.connections.iter().find(|(_, connection)| {
            let idle = connection.open && connection.asked.is_empty() && !connection.said_goodbye;
            idle && connection.edge == edge && !fresh
        });
        let end = match idle.map(|(end, _)| *end) {
            Some(end) => end,
            None => {
                let end = net.connect(now_ns, self.host, self.address, self.edges[edge]);
                let connection = Connection {
                    edge,
                    open: false,
                    reader: http::Reader::default(),
                    asked: VecDeque::new(),
                    unsent: Vec::new(),
                    said_goodbye: false,
                };
                self.connections.insert(end, connection);
                end
            }
        };
        let count = if wanted.is_some() { 1 } else { *self.rng.pick(&[1, 1, 1, 2, 5]) };
        let mut wanted = wanted;
        for _ in 0..count {
            let Composed { what, text, head, promise } = self.compose(wanted.take());
            let Some(connection) = self.connections.get_mut(&end) else { return };
            connection.reader.expect(head);
            connection.asked.push_back(Asked { what, head, at_ns: now_ns, promise });
            connection.unsent.extend(text.bytes());
            self.left = self.left.saturating_sub(1);
        }
        if self.rng.chance(GOODBYE_PER_MILLE) {
            self.say_goodbye(now_ns, end);
        }
        self.flush(now_ns, net, end);
        if self.rng.chance(HANG_UP_PER_MILLE) {
            self.hang_up_at_ns = now_ns + self.rng.between(0, 3_000_000);
        }
    }

    /// One more request, which says that it is the last, and more behind it, to which nothing may
    /// come back.
    fn say_goodbye(&mut self, now_ns: u64, end: End) {
        let Some(connection) = self.connections.get_mut(&end) else { return };
        let what = What::Object(0);
        connection.reader.expect(false);
        let asked = Asked { what, head: false, at_ns: now_ns, promise: None };
        connection.asked.push_back(asked);
        connection.said_goodbye = true;
        let last = "GET /o/0 HTTP/1.1\r\nHost: site.example\r\nConnection: close\r\n\r\n";
        let beyond = "GET /o/1 HTTP/1.1\r\nHost: site.example\r\n\r\n".repeat(3);
        connection.unsent.extend(last.bytes().chain(beyond.bytes()));
    }

    /// The visitor is gone from one of its connections, whatever was under way there.
    fn hang_up(&mut self, now: Now, net: &mut Net) {
        let ends: Vec<End> = self.connections.keys().copied().collect();
        if ends.is_empty() || self.rng.chance(250) {
            let at = self.rng.below(self.streams.len());
            net.coverage.hit("visitor: left a stream");
            return self.stream_lost(now, net, at);
        }
        let (end, reset) = (*self.rng.pick(&ends), self.rng.chance(500));
        net.coverage.hit("visitor: hung up");
        net.close(now.mono.0, end, reset);
        self.lose(end);
    }

    /// A connection is gone: what had no answer is asked again by later requests.
    fn lose(&mut self, end: End) {
        if let Some(connection) = self.connections.remove(&end) {
            self.left += connection.asked.len() as u32;
        }
    }

    fn compose(&mut self, wanted: Option<(Option<usize>, u32, String)>) -> Composed {
        let page_request = |what, text| Composed { what, text, head: false, promise: None };
        if let Some((edge, page, version)) = wanted {
            // Through the same edge the promise holds without asking; elsewhere one has to ask.
            let asked_min = edge.is_none();
            let field = if asked_min {
                format!("Pharos-Min-Version: {version}\r\n")
            } else {
                String::new()
            };
            let text = format!("GET /page{page}/ HTTP/1.1\r\nHost: status.example\r\n{field}\r\n");
            return page_request(What::Page { page, covers: version, asked_min }, text);
        }
        if self.rng.chance(150) {
            let page = self.rng.below(self.pages as usize) as u32;
            let text = format!("GET /page{page}/ HTTP/1.1\r\nHost: status.example\r\n\r\n");
            let what = What::Page { page, covers: String::new(), asked_min: false };
            return page_request(what, text);
        }
        // Few objects, the first ones most: hits, collapsing and evictions all happen.
        let object =
            self.rng.below(self.objects as usize).min(self.rng.below(self.objects as usize)) as u32;
        let head = self.rng.chance(50);
        let method = if head { "HEAD" } else { "GET" };
        let extra = *self.rng.pick(&[
            "",
            "Accept-Encoding: br, gzip;q=0.5\r\n",
            "Accept-Encoding: gzip, zstd;q=0\r\n",
            "Cache-Control: no-cache\r\n",
            "Cache-Control: max-age=1\r\n",
            "If-Match: *\r\n",
        ]);
        let what = What::Object(object);
        let Some(rules) = self.rules.clone() else {
            let host = "Host: site.example\r\n";
            let text = format!("{method} /o/{object} HTTP/1.1\r\n{host}{extra}\r\n");
            return Composed { what, text, head, promise: None };
        };
        let (host, session) = (*self.rng.pick(&HOSTS), self.rng.chance(200));
        let tenant = *self.rng.pick(&["", "", "red", "blue"]);
        let promise = rules.promise(rules::Request { object, host, session });
        let number = self.rng.below(3);
        let query = if promise.drops_query { format!("?utm_a={number}") } else { String::new() };
        let mut fields = format!("Host: {host}\r\n{extra}");
        if session {
            fields += &format!("{SESSION}: 1\r\n");
        }
        if !tenant.is_empty() {
            fields += &format!("{TENANT}: {tenant}\r\n");
        }
        let text = format!("{method} /o/{object}{query} HTTP/1.1\r\n{fields}\r\n");
        Composed { what, text, head, promise: Some((promise, tenant)) }
    }

    fn flush(&mut self, now_ns: u64, net: &mut Net, end: End) {
        let Some(connection) = self.connections.get_mut(&end) else { return };
        if !connection.open || connection.unsent.is_empty() {
            return;
        }
        if let Some(taken) = net.write(now_ns, end, &connection.unsent) {
            connection.unsent.drain(..taken);
        }
    }

    fn read(&mut self, now: Now, net: &mut Net, end: End) {
        let now_ns = now.mono.0;
        let some = 1 + self.rng.below(4000);
        let bytes = net.read(now_ns, end, some);
        let more = net.readable(end) > 0;
        let Some(connection) = self.connections.get_mut(&end) else { return };
        let mut failed = None;
        let mut replies = Vec::new();
        match connection.reader.receive(&bytes) {
            Ok(complete) => replies = complete,
            Err(error) => failed = Some(error),
        }
        let ended = !more && net.is_eof(end);
        if ended && failed.is_none() {
            match connection.reader.end() {
                Ok(reply) => replies.extend(reply),
                Err(error) if self.ledger.borrow().faults_until_ns < now_ns => failed = Some(error),
                Err(_) => {}
            }
        }
        let edge = connection.edge;
        for reply in replies {
            let Some(connection) = self.connections.get_mut(&end) else { break };
            let Some(asked) = connection.asked.pop_front() else { break };
            self.check(now_ns, edge, &asked, &reply);
        }
        if let Some(error) = failed {
            self.ledger
                .borrow_mut()
                .violation(now_ns, format!("an answer cannot be read: {error}"));
        }
        if ended {
            self.lose(end);
            net.close(now_ns, end, false);
        } else if more {
            self.read(now, net, end);
        }
    }

    fn check(&mut self, now_ns: u64, edge: usize, asked: &Asked, reply: &http::Reply) {
        let mut ledger = self.ledger.borrow_mut();
        ledger.answered += 1;
        let outcome = reply.field("x-cache-status").unwrap_or("none").to_owned();
        *ledger.outcomes.entry(outcome.clone()).or_default() += 1;
        if reply.status >= 500 {
            if ledger.faults_until_ns < asked.at_ns {
                ledger.violation(
                    now_ns,
                    format!(
                        "{} for {:?} without any fault: {}",
                        reply.status,
                        asked.what,
                        String::from_utf8_lossy(&reply.body)
                    ),
                );
            }
            return;
        }
        if reply.status != 200 {
            return ledger.violation(now_ns, format!("{} for {:?}", reply.status, asked.what));
        }
        let promise = asked.promise.filter(|_| !asked.head);
        if let (What::Object(object), Some((promise, tenant))) = (&asked.what, promise) {
            let got = Got {
                object: *object,
                outcome: &outcome,
                age_s: reply.field("age").and_then(|age| age.parse().ok()).unwrap_or(0),
                made_for: reply.field("x-for").unwrap_or(""),
                tenant,
            };
            match promise.check(got) {
                Ok(shown) => shown.into_iter().for_each(|rule| ledger.shows(rule)),
                Err(what) => ledger.violation(now_ns, what),
            }
        }
        match &asked.what {
            What::Object(_) if asked.head => {}
            What::Object(object) => match generation_of(*object, reply) {
                Some(generation) => ledger.check_object(&Seen {
                    object: *object,
                    generation,
                    asked_ns: asked.at_ns,
                    now_ns,
                    age_s: reply.field("age").and_then(|age| age.parse().ok()).unwrap_or(0),
                    stale: outcome == "STALE",
                }),
                None => ledger.violation(
                    now_ns,
                    format!(
                        "object {object}: a body of {} bytes that never was one",
                        reply.body.len()
                    ),
                ),
            },
            What::Page { page, covers: floor, asked_min } => {
                let version = reply.field("pharos-version").unwrap_or("");
                // Without control the last known page is as good as it gets, but never older than
                // what was asked for by name.
                let stale = outcome == "STALE";
                ledger.check_page(&SeenPage {
                    page: *page,
                    version,
                    told: if stale && !asked_min { "" } else { floor },
                    stale,
                    edge: &edge_name(edge),
                    asked_ns: asked.at_ns,
                    now_ns,
                });
                let expected = format!("page {page} at {version}\n").repeat(20);
                if reply.body != expected.as_bytes() {
                    ledger.violation(
                        now_ns,
                        format!("page {page}: the body is not that of {version:?}"),
                    );
                }
            }
        }
    }

    fn stream_of(&self, end: End) -> Option<usize> {
        self.streams.iter().position(|stream| stream.end == Some(end))
    }

    /// Leaves a stream, for one of another page that has no cursor yet.
    fn roam(&mut self, now: Now, net: &mut Net) {
        let at = self.rng.below(self.streams.len());
        self.stream_lost(now, net, at);
        let page = self.rng.below(self.pages as usize) as u32;
        let stream = &mut self.streams[at];
        if page != stream.page {
            net.coverage.hit("visitor: watches another page");
            (stream.page, stream.chain) = (page, Chain::default());
            stream.sse.last_event_id.clear();
        }
    }

    fn open_stream(&mut self, now: Now, net: &mut Net, at: usize) {
        let ready = self.ready.as_ref().map(|ready| ready.borrow().clone());
        let led = self.streams[at].led.as_ref().map(|(edge, _)| *edge);
        let edge = match ready.as_deref() {
            _ if led.is_some() => led.unwrap_or_default(),
            None | Some([]) => self.rng.below(self.edges.len()),
            Some(ready) => *self.rng.pick(ready),
        };
        let end = net.connect(now.mono.0, self.host, self.address, self.edges[edge]);
        let narrow = self.rng.chance(200);
        if narrow {
            net.set_capacity(end, 600);
        }
        let stream = &mut self.streams[at];
        stream.edge = edge;
        stream.end = Some(end);
        stream.http = http::Reader::default();
        let mut sse = sse::Reader::default();
        sse.last_event_id = std::mem::take(&mut stream.sse.last_event_id);
        stream.sse = sse;
    }

    fn stream_connected(&mut self, now: Now, net: &mut Net, at: usize) {
        let stream = &mut self.streams[at];
        let Some(end) = stream.end else { return };
        let (target, host) = match stream.led.take() {
            Some((_, target)) => (target, "edge.example"),
            None => (format!("/page{}/events", stream.page), "status.example"),
        };
        stream.was_led = host == "edge.example";
        let mut text = format!("GET {target} HTTP/1.1\r\nHost: {host}\r\n");
        if !stream.sse.last_event_id.is_empty() {
            text += &format!("Last-Event-ID: {}\r\n", stream.sse.last_event_id);
        } else {
            // No cursor: the chain starts with whatever comes.
            stream.chain = Chain::default();
            stream.since_ns = u64::MAX;
        }
        stream.presented.clone_from(&stream.sse.last_event_id);
        stream.http.expect(false);
        text += "Accept: text/event-stream\r\n\r\n";
        if self.rng.chance(300) {
            // What comes behind the request of a stream is answered only if no stream comes of it.
            (0..3).for_each(|_| stream.http.expect(false));
            text += &"GET /o/1 HTTP/1.1\r\nHost: site.example\r\n\r\n".repeat(3);
        }
        net.write(now.mono.0, end, text.as_bytes());
    }

    /// Goes where an answer has led it, at once.
    fn follow(&mut self, now: Now, net: &mut Net, at: usize, location: &str) {
        let edge = self.edges.iter().position(|edge| {
            let rest = location.strip_prefix("http://");
            rest.is_some_and(|rest| rest.starts_with(&format!("{edge}/")))
        });
        let target = location.splitn(4, '/').nth(3).map(|rest| format!("/{rest}"));
        let (Some(edge), Some(target)) = (edge, target) else {
            let what = format!("a stream was led to {location:?}, where nobody is");
            return self.ledger.borrow_mut().violation(now.mono.0, what);
        };
        self.stream_lost(now, net, at);
        self.streams[at].led = Some((edge, target));
        self.open_stream(now, net, at);
    }

    fn stream_lost(&mut self, now: Now, net: &mut Net, at: usize) {
        let stream = &mut self.streams[at];
        if let Some(end) = stream.end.take() {
            net.close(now.mono.0, end, false);
        }
        stream.open = false;
        stream.led = None;
        let wait_ms = stream.sse.retry_ms.unwrap_or(2000);
        stream.reconnect_ns = now.mono.after_ms(wait_ms).0;
    }

    fn stream_read(&mut self, now: Now, net: &mut Net, at: usize) {
        let now_ns = now.mono.0;
        let stream = &mut self.streams[at];
        let Some(end) = stream.end else { return };
        if stream.paused_until_ns > now_ns {
            return;
        }
        let waiting = net.readable(end);
        let bytes = net.read(now_ns, end, waiting);
        let received = stream.http.receive(&bytes);
        let over = !matches!(&received, Ok(replies) if replies.is_empty());
        let mut body = Vec::new();
        match received {
            Err(error) => {
                self.ledger
                    .borrow_mut()
                    .violation(now_ns, format!("a stream cannot be read: {error}"));
            }
            Ok(replies) => {
                match replies.first() {
                    Some(reply) if reply.status == 307 && !stream.was_led => {
                        let location = reply.field("location").unwrap_or("").to_owned();
                        return self.follow(now, net, at, &location);
                    }
                    Some(reply) if reply.status != 200 => {
                        self.ledger.borrow_mut().violation(now_ns, ended_for_good(reply.status));
                    }
                    _ => {}
                }
                body.extend(replies.into_iter().flat_map(|reply| reply.body));
            }
        }
        if let Some(reply) = stream.http.partial() {
            body.append(&mut reply.body);
            if reply.status != 200 && (reply.status != 307 || stream.was_led) {
                self.ledger.borrow_mut().violation(now_ns, ended_for_good(reply.status));
            } else if !stream.open && reply.status == 200 {
                stream.open = true;
            }
        }
        let events = stream.sse.receive(&body);
        for event in events {
            self.event(now_ns, at, &event);
        }
        if over || net.is_eof(end) {
            self.stream_lost(now, net, at);
        }
    }

    fn event(&mut self, now_ns: u64, at: usize, event: &sse::Event) {
        let stream = &mut self.streams[at];
        let mut ledger = self.ledger.borrow_mut();
        if stream.since_ns == u64::MAX && !event.id.is_empty() {
            stream.since_ns = now_ns;
        }
        match event.name.as_str() {
            "beat" | "migrate" => {}
            "gap" => {
                stream.chain.gap_told = true;
                ledger.gaps += 1;
                let data: serde_json::Value = serde_json::from_str(&event.data).unwrap_or_default();
                let version = data["version"].as_str().unwrap_or("").to_owned();
                if data["reset"] == true {
                    // It forgets what is lost; an edge that has not heard may tell it once more.
                    let page = stream.page;
                    let is_held = |replica: &String, place: &mut usize| {
                        ledger
                            .event_at(page, replica, *place)
                            .is_some_and(|dot| covers(&event.id, dot))
                    };
                    stream.chain.places.retain(is_held);
                    // Its cursor is what the gap says, whatever it came with: an edge that has not
                    // heard of what is lost may know less than who comes to it.
                    stream.presented.clone_from(&event.id);
                }
                // What is told now may have been on its way since before.
                let since_ns = now_ns.saturating_sub(ON_THE_WAY_NS);
                ledger.check_gap(now_ns, &edge_name(stream.edge), since_ns, &version);
                if self.refetch.len() < 20 {
                    self.refetch.push_back((None, stream.page, version));
                    self.left += 1;
                }
            }
            "incident" => {
                ledger.events += 1;
                let data: serde_json::Value = serde_json::from_str(&event.data).unwrap_or_default();
                let dot = data["dot"].as_str().unwrap_or("").to_owned();
                let version = data["version"].as_str().unwrap_or("").to_owned();
                let (page, replica) = (stream.page, replica_of(&dot));
                let Some(place) = ledger.place_of(page, &dot) else {
                    return ledger.violation(
                        now_ns,
                        format!("page {page}: event {dot:?} never was published"),
                    );
                };
                if covers(&stream.presented, &dot) {
                    let cursor = &stream.presented;
                    let what = format!("page {page}: {dot} again to who came with {cursor}");
                    ledger.violation(now_ns, what);
                }
                let before = stream.chain.places.insert(replica.clone(), place);
                let gap_told = std::mem::take(&mut stream.chain.gap_told);
                match before {
                    Some(before) if place <= before => ledger.violation(
                        now_ns,
                        format!("page {page}: event {place} of {replica} again after {before}"),
                    ),
                    Some(before) if place > before + 1 && !gap_told => ledger.violation(
                        now_ns,
                        format!(
                            "page {page}: event {place} of {replica} after {before}, no gap told"
                        ),
                    ),
                    _ => {}
                }
                if self.rng.chance(300) && self.refetch.len() < 20 {
                    let edge = self.rng.chance(400).then_some(stream.edge);
                    self.refetch.push_back((edge, page, version));
                    self.left += 1;
                }
            }
            other => ledger.violation(now_ns, format!("an event named {other:?}")),
        }
    }
}

fn ended_for_good(status: u16) -> String {
    format!("a stream was answered {status}, which ends an EventSource for good")
}

/// What a stream says may have been on its way for so long: it is not read now and then.
const ON_THE_WAY_NS: u64 = 2 * PAUSE_MS_MAX * 1_000_000;
/// Longest pause of a stream's reader: long enough to be a slow consumer, ms.
const PAUSE_MS_MAX: u64 = 60_000;
/// Between two requests while it is calm, µs.
const WAITS_CALM_US: [u64; 4] = [10, 100, 1000, 20_000];
/// Between two requests, µs: bursts, and enough pauses to last as long as the faults do.
const WAITS_US: [u64; 6] = [10, 100, 1000, 20_000, 200_000, 1_000_000];
/// Parts in a thousand of its requests after which it leaves.
const HANG_UP_PER_MILLE: u32 = 25;
/// Parts in a thousand of its requests after which one of its streams goes to another page.
const ROAMS_PER_MILLE: u32 = 200;
/// Parts in a thousand of its requests behind which comes a last one on that connection.
const GOODBYE_PER_MILLE: u32 = 30;

impl Peer for Visitor {
    fn notice(&mut self, now: Now, net: &mut Net, notice: Notice) {
        let now_ns = now.mono.0;
        match notice {
            Notice::Connected(end) | Notice::Writable(end) => {
                if let (Some(at), Notice::Connected(_)) = (self.stream_of(end), notice) {
                    self.stream_connected(now, net, at);
                } else if let Some(connection) = self.connections.get_mut(&end) {
                    connection.open = true;
                    self.flush(now_ns, net, end);
                }
            }
            Notice::Readable(end) => match self.stream_of(end) {
                Some(at) => self.stream_read(now, net, at),
                None => self.read(now, net, end),
            },
            Notice::Refused(end) | Notice::Reset(end) => match self.stream_of(end) {
                Some(at) => self.stream_lost(now, net, at),
                None => self.lose(end),
            },
            Notice::Arrived(..) => {}
        }
    }

    fn tick(&mut self, now: Now, net: &mut Net) {
        let now_ns = now.mono.0;
        if self.leaves_idle() {
            // An edge with few sockets needs these for those who wait.
            self.connections.retain(|end, connection| {
                if connection.asked.is_empty() {
                    net.close(now_ns, *end, false);
                }
                !connection.asked.is_empty()
            });
        }
        for at in 0..self.streams.len() {
            let stream = &mut self.streams[at];
            if stream.end.is_none() && stream.reconnect_ns <= now_ns {
                self.open_stream(now, net, at);
            } else if stream.paused_until_ns != 0 && stream.paused_until_ns <= now_ns {
                stream.paused_until_ns = 0;
                self.stream_read(now, net, at);
            }
        }
        if self.hang_up_at_ns != 0 && self.hang_up_at_ns <= now_ns {
            self.hang_up_at_ns = 0;
            if !self.calm {
                self.hang_up(now, net);
            }
        }
        if self.next_ns <= now_ns && (self.left > 0 || !self.refetch.is_empty()) {
            let outstanding: usize = self.connections.values().map(|known| known.asked.len()).sum();
            if outstanding < 12 {
                self.ask(now, net);
            }
            let waits_us: &[u64] = if self.calm { &WAITS_CALM_US } else { &WAITS_US };
            let wait_us = *self.rng.pick(waits_us);
            self.next_ns = now_ns + wait_us * 1000;
            if self.roams && !self.calm && self.rng.chance(ROAMS_PER_MILLE) {
                self.roam(now, net);
            }
            if self.rng.chance(30) && !self.streams.is_empty() {
                let at = self.rng.below(self.streams.len());
                let long = !self.calm && self.rng.chance(200);
                let pause_ms = self.rng.between(10, if long { PAUSE_MS_MAX } else { 5000 });
                self.streams[at].paused_until_ns = now.mono.after_ms(pause_ms).0;
            }
        }
    }

    fn next_deadline_ns(&self) -> Option<u64> {
        let asking = (self.left > 0 || !self.refetch.is_empty()).then_some(self.next_ns);
        let streams = self.streams.iter().filter_map(|stream| match stream.end {
            None => Some(stream.reconnect_ns),
            Some(_) => (stream.paused_until_ns > 0).then_some(stream.paused_until_ns),
        });
        let asking = asking.or(self.leaves_idle().then_some(1));
        let hang_up = (self.hang_up_at_ns != 0).then_some(self.hang_up_at_ns);
        streams.chain(asking).chain(hang_up).min()
    }

    fn as_any(&mut self) -> &mut dyn Any {
        self
    }
}
