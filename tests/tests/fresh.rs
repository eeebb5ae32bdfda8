//! L6 on real processes: what answers after an event is never older than that event.
//!
//! ```text
//!   operator ─▶ control ─┬─ proxy, may hold pages ────────────────▶ edge A ─▶ events, 1,000 streams
//!                        └─ proxy, may hold pages, feed 2 s late ─▶ edge B ─▶ GET, at least the event
//! ```
//! Two processes load both edges with requests. The loop declares and resolves incidents; in some
//! rounds it holds fetches open across the purge, cuts a feed, or kills control between purge and
//! re-fetch. Correctness is asserted, delays are only told.
//! `PHAROS_L6_INCIDENTS=1000` runs it in full, with the full load.
#![expect(clippy::disallowed_methods, reason = "real processes run in real time")]

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    io::Write as _,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
        mpsc::{Receiver, sync_channel},
    },
    thread::{self, Builder, JoinHandle},
    time::{Duration, Instant},
};

use pharos_tests::{
    check::ledger::covers,
    client::{http::Reply, sse},
    process::{
        client::Client,
        cluster::{Cluster, Edge, Operator},
        load,
        proxy::Carries,
        wait::until,
    },
};
use serde_json::Value;

/// What is done to a round beside declaring and resolving its incident.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Round {
    Plain,
    /// Fetches of edge A are open while it purges.
    HeldAtA,
    /// The same at edge B, whose purges come late.
    HeldAtB,
    /// Control is killed when the event has come.
    Killed,
    /// The same, and no re-fetch was answered since the purge.
    KilledBeforeFetch,
    /// Edge B loses its feed with what was under way in it.
    FeedCut,
}

const FAULTS: [Round; 5] =
    [Round::HeldAtA, Round::HeldAtB, Round::Killed, Round::KilledBeforeFetch, Round::FeedCut];

impl Round {
    /// One round in twenty has a fault, but twenty of them at least.
    fn of(number: usize, all: usize) -> Self {
        let stride = (all / 20).clamp(2, 20);
        match number % stride {
            1 => FAULTS[number / stride % FAULTS.len()],
            _ => Self::Plain,
        }
    }

    fn kills(self) -> bool {
        matches!(self, Self::Killed | Self::KilledBeforeFetch)
    }
}

/// How much, by the environment.
struct Scale {
    incidents: usize,
    streams: u32,
    /// Requests a second on each edge.
    rate: u32,
}

impl Scale {
    fn read() -> Self {
        let asked = std::env::var("PHAROS_L6_INCIDENTS").ok().and_then(|text| text.parse().ok());
        match asked.unwrap_or(100) {
            incidents @ ..1000 => Self { incidents, streams: 100, rate: 100 },
            incidents => Self { incidents, streams: 1000, rate: 1000 },
        }
    }
}

#[test]
fn an_answer_after_an_event_is_never_older_than_the_event() {
    let scale = Scale::read();
    let mut cluster = Cluster::start(&[Duration::ZERO, FEED_DELAY]);
    let (a, b) = (&cluster.edges[0], &cluster.edges[1]);
    let mut loads = [
        load::streams(cluster.folder.path(), "streams", a.address, "/demo/events", scale.streams),
        load::requests(cluster.folder.path(), "load-a", a.address, "/demo/", scale.rate),
        load::requests(cluster.folder.path(), "load-b", b.address, "/demo/", scale.rate),
    ];
    let (at_a, at_b) = (Watcher::start(a), Watcher::start(b));
    let served: [Served; 2] = Default::default();
    until("all streams are open", 60, || {
        (load::metric(a.admin, "pharos_streams") > f64::from(scale.streams)).then_some(())
    });
    let dead = Arc::new(AtomicBool::new(false));
    let reader = Reader::start(a, &served[0], Arc::clone(&at_a.last), Arc::clone(&dead));
    let before = Counted::of(&cluster);
    let outcome = {
        let operator = Some(cluster.operator());
        let told = Told::default();
        let mut run = Run { cluster: &mut cluster, operator, dead, at_a, at_b, served, told };
        (0..scale.incidents).for_each(|number| {
            run.round(number, Round::of(number, scale.incidents));
        });
        run.told
    };
    let after = Counted::of(&cluster);
    assert!(loads.iter_mut().all(|load| load.is_running()), "all of the load lasted");
    assert!(load::metric(cluster.edges[0].admin, "pharos_streams") >= f64::from(scale.streams));
    let read = reader.end();
    let report = outcome.report(&scale, &before, &after, &read);
    // Not by `println!`: it is to be seen of a test that passes, too.
    let _ = std::io::stderr().write_all(report.as_bytes());
}

// -- the loop -------------------------------------------------------------------------------------

struct Run<'c> {
    cluster: &'c mut Cluster,
    /// `None` while control is dead.
    operator: Option<Operator>,
    /// From before control's death until edge A's pages are fresh again.
    dead: Arc<AtomicBool>,
    at_a: Watcher,
    at_b: Watcher,
    /// By edge A, by edge B.
    served: [Served; 2],
    told: Told,
}

/// An event that somebody has seen.
#[derive(Clone, Debug)]
struct Seen {
    version: String,
    incident: String,
    title: String,
}

impl Run<'_> {
    fn round(&mut self, number: usize, round: Round) {
        let title = format!("Lamp {number} is dim");
        match round {
            Round::HeldAtA => self.held_at_a(&title),
            Round::HeldAtB => self.held_at_b(&title),
            Round::Plain | Round::FeedCut | Round::Killed | Round::KilledBeforeFetch => {
                let event = self.declare(&title, round);
                self.check(&event, Some(&title), round, number);
                let event = self.resolve(&event, Round::Plain);
                self.check(&event, None, Round::Plain, number);
            }
        }
        *self.told.rounds.entry(format!("{round:?}")).or_default() += 1;
    }

    /// Declares an incident and waits for its event on edge A; with a fault of `round` in between.
    fn declare(&mut self, title: &str, round: Round) -> Seen {
        let body = serde_json::json!({
            "title": title, "status": "investigating", "impact": "minor", "message": "m",
            "components": {"api": "degraded_performance"},
        });
        let [a, b] = &self.cluster.edges[..] else { panic!("two edges") };
        if round == Round::KilledBeforeFetch {
            // Held re-fetches are as good as none: what is stored is stale from the purge on.
            self.dead.store(true, Ordering::SeqCst);
            a.proxy.hold_pages();
            b.proxy.hold_pages();
        }
        let event = self.change("/v1/pages/demo/incidents", &body, title, round);
        if round == Round::FeedCut {
            self.cluster.edges[1].proxy.cut(Carries::Feed);
        }
        if round.kills() {
            self.kill(round);
        }
        event
    }

    fn resolve(&mut self, event: &Seen, round: Round) -> Seen {
        let body = serde_json::json!({
            "status": "resolved", "message": "m", "components": {"api": "operational"},
        });
        let path = format!("/v1/incidents/{}/updates", event.incident);
        self.change(&path, &body, &event.title, round)
    }

    /// Asks control for a change and waits until an open stream of edge A tells it.
    fn change(&mut self, path: &str, body: &Value, title: &str, round: Round) -> Seen {
        let operator = self.operator.as_mut().expect("control lives");
        let sent = Instant::now();
        operator.send(path, &body.to_string());
        let (at, event) = self.at_a.wait(title);
        self.told.delays.push(at.saturating_duration_since(sent));
        if round.kills() {
            // Killed by the caller, whether it has answered or not.
            return event;
        }
        let reply = operator.answer().expect("control answers");
        assert_eq!(reply.status, 201, "{}", String::from_utf8_lossy(&reply.body));
        let version = reply.field("pharos-version").expect("a version");
        assert!(covers(version, &event.version) || covers(&event.version, version));
        event
    }

    fn kill(&mut self, round: Round) {
        self.dead.store(true, Ordering::SeqCst);
        self.cluster.kill_control();
        self.operator = None;
        if round == Round::KilledBeforeFetch {
            for edge in &self.cluster.edges {
                edge.proxy.cut(Carries::Pages);
                edge.proxy.release_pages();
            }
        }
    }

    fn visitor(&self, edge: usize) -> Visitor {
        Visitor::at(&self.cluster.edges[edge], &self.served[edge])
    }

    /// What both edges answer after an event.
    fn check(&mut self, event: &Seen, shows: Option<&str>, round: Round, number: usize) {
        let target = TARGETS[number % TARGETS.len()];
        let died = Instant::now();
        let mut from_b = self.visitor(1);
        let mut reached =
            self.judge_b(from_b.get(target, Some(&event.version)), event, shows, round);
        let mut from_a = self.visitor(0);
        let fresh = self.judge_a(&from_a.get(target, None), event, round);
        assert!(!(fresh || reached) || round != Round::KilledBeforeFetch, "nothing was fetched");
        if round.kills() {
            while died.elapsed() < DEAD_FOR {
                let reply = from_b.get(target, Some(&event.version));
                reached |= self.judge_b(reply, event, shows, round);
                self.judge_a(&from_a.get(target, None), event, round);
                thread::sleep(Duration::from_millis(5));
            }
            self.revive();
        }
        if !reached {
            until("edge B answers what is asked for", 30, || {
                let reply = from_b.get(target, Some(&event.version));
                self.judge_b(reply, event, shows, round).then_some(())
            });
        }
        until("edge A answers what it told", 30, || {
            let reply = from_a.get(target, None);
            self.judge_a(&reply, event, round).then_some(())
        });
        // The other documents of the page are fetched when somebody asks for them.
        for target in TARGETS.iter().filter(|_| round.kills()) {
            until("edge A's pages are fresh again", 30, || {
                (from_a.get(target, None).field("x-cache-status") != Some("STALE")).then_some(())
            });
        }
        self.dead.store(false, Ordering::SeqCst);
    }

    /// Whether B's answer to one who asks for the event's version has it; never an older one.
    fn judge_b(&mut self, reply: Reply, event: &Seen, shows: Option<&str>, round: Round) -> bool {
        if reply.status == 503 && round != Round::Plain {
            self.told.refused += 1;
            return false;
        }
        assert_eq!(reply.status, 200, "{round:?}: {}\n{}", text(&reply), self.cluster.log());
        let version = reply.field("pharos-version").expect("a version");
        assert!(covers(version, &event.version), "{round:?}: {version}, asked {}", event.version);
        assert_ne!(reply.field("x-cache-status"), Some("STALE"), "{round:?}");
        if let Some(title) = shows {
            assert!(text(&reply).contains(title), "{round:?}: {title:?} is not there");
        }
        self.told.checked += 1;
        true
    }

    /// Whether A's answer to one who asks for nothing has the event that A told: it has, or says
    /// that it is stale and control is to blame.
    fn judge_a(&mut self, reply: &Reply, event: &Seen, round: Round) -> bool {
        assert_eq!(reply.status, 200, "{round:?}: {}\n{}", text(reply), self.cluster.log());
        let version = reply.field("pharos-version").expect("a version");
        self.told.checked += 1;
        if reply.field("x-cache-status") == Some("STALE") {
            assert!(round.kills(), "{round:?}: stale, though control lives: {version}");
            self.told.stale += 1;
            return covers(version, &event.version);
        }
        assert!(covers(version, &event.version), "{round:?}: {version}, told {}", event.version);
        true
    }

    fn revive(&mut self) {
        let from = Instant::now();
        self.cluster.restart_control();
        self.operator = Some(self.cluster.operator());
        let edge = &self.cluster.edges[0];
        until("edge A follows control again", 60, || edge.is_connected().then_some(()));
        self.told.revived.push(from.elapsed());
    }

    /// A fetch begun before the purge is answered behind it: nobody who knows the event gets it.
    fn held_at_a(&mut self, title: &str) {
        self.cluster.edges[0].proxy.hold_pages();
        let first = self.declare(title, Round::HeldAtA);
        // Somebody of the load, or this one, starts a fetch that control answers in that state.
        let mut early = self.visitor(0);
        early.ask(TARGETS[0], None);
        let edge = &self.cluster.edges[0];
        until("a fetch is held", 20, || (edge.proxy.held() > 0).then_some(()));
        let second = self.resolve(&first, Round::HeldAtA);
        let mut late = self.visitor(0);
        late.ask(TARGETS[0], None);
        // Time for the late one to join the wrong fetch, if the edge lets it.
        thread::sleep(Duration::from_millis(50));
        self.cluster.edges[0].proxy.release_pages();
        let reply = early.answer();
        assert!(self.judge_a(&reply, &first, Round::HeldAtA));
        let reply = late.answer();
        assert!(self.judge_a(&reply, &second, Round::HeldAtA));
        self.check(&second, None, Round::HeldAtA, 0);
    }

    /// The same where the purge is late, so that only the version asked for tells what is too old.
    fn held_at_b(&mut self, title: &str) {
        let first = self.declare(title, Round::HeldAtB);
        self.cluster.edges[1].proxy.hold_pages();
        let mut early = self.visitor(1);
        early.ask(TARGETS[0], Some(&first.version));
        let edge = &self.cluster.edges[1];
        until("a fetch is held", 20, || (edge.proxy.held() > 0).then_some(()));
        let second = self.resolve(&first, Round::HeldAtB);
        let mut late = self.visitor(1);
        late.ask(TARGETS[0], Some(&second.version));
        // Now B itself has purged, and told it.
        self.at_b.wait_for(&second.version);
        self.cluster.edges[1].proxy.release_pages();
        let reply = early.answer();
        assert!(self.judge_b(reply, &first, None, Round::HeldAtB));
        let reply = late.answer();
        assert!(self.judge_b(reply, &second, None, Round::HeldAtB));
        let reply = self.visitor(1).get(TARGETS[0], None);
        assert!(self.judge_a(&reply, &second, Round::HeldAtB));
        self.check(&second, None, Round::HeldAtB, 0);
    }
}

// -- who looks ------------------------------------------------------------------------------------

/// Somebody who follows an edge's stream.
struct Watcher {
    events: Receiver<(Instant, Seen)>,
    /// The version of the newest event that this edge has told.
    last: Arc<Mutex<String>>,
}

impl Watcher {
    fn start(edge: &Edge) -> Self {
        let host = edge.address.to_string();
        let client = Client::connect(edge.address).expect("connects");
        let mut stream = client.into_stream(&host, "/demo/events", "");
        // Longer than a heartbeat is away.
        stream.set_patience_ms(120_000);
        assert_eq!(stream.status(), 200);
        assert!(stream.next_event().is_some(), "the stream has begun");
        let (enter, events) = sync_channel(EVENTS_MAX);
        let last = Arc::new(Mutex::new(String::new()));
        let of_thread = Arc::clone(&last);
        spawn("watcher", move || {
            while let Some(event) = stream.next_told() {
                let at = Instant::now();
                let seen = Seen::of(&event);
                of_thread.lock().expect("no poison").clone_from(&seen.version);
                if enter.send((at, seen)).is_err() {
                    break;
                }
            }
        });
        Self { events, last }
    }

    /// The next event, which is that incident's: none is skipped, none comes twice.
    fn wait(&self, title: &str) -> (Instant, Seen) {
        let (at, seen) = self.events.recv_timeout(PATIENCE).expect("the event comes");
        assert_eq!(seen.title, title, "the next event is the awaited one");
        (at, seen)
    }

    /// Reads on until an event of at least that version.
    fn wait_for(&self, version: &str) {
        while !covers(&self.events.recv_timeout(PATIENCE).expect("it comes").1.version, version) {}
    }
}

impl Seen {
    fn of(event: &sse::Event) -> Self {
        assert_eq!(event.name, "incident", "{event:?}");
        let data: Value = serde_json::from_str(&event.data).expect("JSON data");
        let of = |value: &Value| value.as_str().expect("a text").to_owned();
        Self {
            version: of(&data["version"]),
            incident: of(&data["incident"]["id"]),
            title: of(&data["incident"]["title"]),
        }
    }
}

/// The newest version of each document that an edge has served to somebody.
#[derive(Clone, Default)]
struct Served(Arc<Mutex<BTreeMap<String, String>>>);

impl Served {
    fn of(&self, target: &str) -> String {
        self.0.lock().expect("no poison").get(target).cloned().unwrap_or_default()
    }

    fn note(&self, target: &str, version: &str) {
        let mut served = self.0.lock().expect("no poison");
        let newest = served.entry(target.to_owned()).or_default();
        if covers(version, newest) {
            version.clone_into(newest);
        }
    }
}

/// Somebody who opens pages. What is answered, stale or not, is never older than what the same edge
/// had served to anybody before it was asked.
struct Visitor {
    client: Client,
    host: String,
    served: Served,
    /// What was asked for, and what of it had been served then.
    asked: (String, String),
}

impl Visitor {
    fn at(edge: &Edge, served: &Served) -> Self {
        let client = Client::connect(edge.address).expect("connects");
        let (host, served) = (edge.address.to_string(), served.clone());
        Self { client, host, served, asked: Default::default() }
    }

    fn ask(&mut self, target: &str, least: Option<&str>) {
        let least = least.map(|version| [("Pharos-Min-Version", version)]);
        let fields = least.as_ref().map_or(&[][..], |fields| &fields[..]);
        self.asked = (target.to_owned(), self.served.of(target));
        self.client.ask("GET", &self.host, target, fields);
    }

    fn answer(&mut self) -> Reply {
        let reply = self.client.answer().expect("the edge answers");
        if let Some(version) = reply.field("pharos-version").filter(|_| reply.status == 200) {
            let (target, before) = &self.asked;
            assert!(
                covers(version, before),
                "served {before} of {target} before: {}",
                text(&reply)
            );
            self.served.note(target, version);
        }
        reply
    }

    fn get(&mut self, target: &str, least: Option<&str>) -> Reply {
        self.ask(target, least);
        self.answer()
    }
}

/// Somebody who reads edge A's page all the time, asking for nothing.
struct Reader {
    ends: Arc<AtomicBool>,
    thread: JoinHandle<Read>,
}

#[derive(Debug, Default)]
struct Read {
    answers: usize,
    stale: usize,
}

impl Reader {
    fn start(
        edge: &Edge,
        served: &Served,
        last: Arc<Mutex<String>>,
        dead: Arc<AtomicBool>,
    ) -> Self {
        let (ends, mut visitor) = (Arc::new(AtomicBool::new(false)), Visitor::at(edge, served));
        let of_thread = Arc::clone(&ends);
        let thread = spawn("reader", move || {
            let mut read = Read::default();
            while !of_thread.load(Ordering::Relaxed) {
                let may_be_stale = dead.load(Ordering::SeqCst);
                let told = last.lock().expect("no poison").clone();
                let reply = visitor.get(TARGETS[0], None);
                assert_eq!(reply.status, 200, "{}", text(&reply));
                let version = reply.field("pharos-version").expect("a version");
                let is_stale = reply.field("x-cache-status") == Some("STALE");
                if is_stale {
                    let may_be_stale = may_be_stale || dead.load(Ordering::SeqCst);
                    assert!(may_be_stale, "stale, though control lives: {version}");
                } else {
                    assert!(covers(version, &told), "{version}, but {told} was told");
                }
                read.answers += 1;
                read.stale += usize::from(is_stale);
                thread::sleep(Duration::from_millis(1));
            }
            read
        });
        Self { ends, thread }
    }

    fn end(self) -> Read {
        self.ends.store(true, Ordering::Relaxed);
        self.thread.join().expect("every answer was right")
    }
}

// -- what is told ---------------------------------------------------------------------------------

#[derive(Default)]
struct Told {
    delays: Vec<Duration>,
    /// From control's start to edge A following it.
    revived: Vec<Duration>,
    rounds: BTreeMap<String, usize>,
    checked: usize,
    refused: usize,
    stale: usize,
}

/// What both edges have counted.
struct Counted {
    at: Instant,
    requests: f64,
}

impl Counted {
    fn of(cluster: &Cluster) -> Self {
        let of = |edge: &Edge| load::metric(edge.admin, "pharos_requests_total");
        Self { at: Instant::now(), requests: cluster.edges.iter().map(of).sum() }
    }
}

impl Told {
    fn report(mut self, scale: &Scale, from: &Counted, to: &Counted, read: &Read) -> String {
        self.delays.sort_unstable();
        let ms = |delay: Duration| delay.as_secs_f64() * 1000.0;
        let at = |share: f64| ms(self.delays[((self.delays.len() - 1) as f64 * share) as usize]);
        let seconds = to.at.duration_since(from.at).as_secs_f64();
        let rate = (to.requests - from.requests) / seconds;
        let revived = self.revived.iter().max().copied().unwrap_or_default();
        let mut text = String::from("\n");
        let _ = writeln!(
            text,
            "{} incidents declared and resolved in {seconds:.0} s, {} streams, {rate:.0} requests/s",
            scale.incidents, scale.streams
        );
        let _ = writeln!(text, "rounds: {:?}", self.rounds);
        let _ = writeln!(
            text,
            "answers checked: {} by the loop ({} stale without control, {} refused), {} by a reader \
             ({} stale)",
            self.checked, self.stale, self.refused, read.answers, read.stale
        );
        let _ = writeln!(
            text,
            "from the API request to the event: median {:.1} ms, p99 {:.1} ms, worst {:.1} ms \
             ({} events)",
            at(0.5),
            at(0.99),
            at(1.0),
            self.delays.len()
        );
        let _ = writeln!(
            text,
            "from control's restart to edge A following it: worst {:.0} ms",
            ms(revived)
        );
        text
    }
}

fn text(reply: &Reply) -> String {
    format!("{} {:?} {}", reply.status, reply.fields, String::from_utf8_lossy(&reply.body))
}

fn spawn<T: Send + 'static>(
    name: &str,
    body: impl FnOnce() -> T + Send + 'static,
) -> JoinHandle<T> {
    Builder::new().name(name.into()).spawn(body).expect("a thread")
}

const FEED_DELAY: Duration = Duration::from_secs(2);
/// How long control stays dead.
const DEAD_FOR: Duration = Duration::from_millis(200);
const PATIENCE: Duration = Duration::from_secs(30);
const EVENTS_MAX: usize = 16 * 1024;
const TARGETS: [&str; 2] = ["/demo/", "/demo/api/v2/summary.json"];
