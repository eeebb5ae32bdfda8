//! Three edges behind one address that moves with their readiness, streams that come back like
//! browsers, and whatever takes edges away: kills, drains, drains that are undone, partitions.
//!
//! ```text
//!   control ── feed ──▶ edge0 edge1 edge2 ◀── streams ── visitors
//!                          ▲ /readyz, /v1/drain              │ where to?
//!                          └──────────── steward ◀───────────┘
//! ```
//! In half of the runs edges have names and lead streams to each other's. In half of them they
//! relay the feed: as a star around the first, as a chain, or each to the next one all around.
//!
//! As `topics` (a scenario of its own, so that seeds of `edges` are the runs that they were) some
//! edges are followed by nobody and ask for the topics that their streams want; there are more
//! pages, streams go from one to another, and some parents tell everything or let little be asked.
//!
//! Besides the ledger's and the visitors' checks (no untold gap, nothing again at or below the
//! cursor that was presented, no status but 200): no edge lets more streams in than its budget, no
//! drain moves more than its rate, and when all is well but for one edge that dies, every stream is
//! open again within detection, a `retry:` and streams ÷ budget.

use std::{
    cell::RefCell,
    collections::VecDeque,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::PathBuf,
    rc::Rc,
    sync::Arc,
};

use cache::Cache;
use dataplane::{
    config::Timeouts,
    seam::Control as Ask,
    shard::{
        ControlLink, Settings, Shard,
        live::Live,
        observe::{Board, Metric},
        opening::Rates,
        relay::RelaySettings,
        secret::SecretHash,
    },
};
use proto::feed::site::Placement;

use super::edge::Outcome;
use crate::{
    check::ledger::{Ledger, edge_name},
    peer::{
        control::Control,
        origin::Origin,
        steward::{DETECTION_MS, Ready, Steward},
        visitor::{Plan, Visitor},
    },
    sim::{engine::Options, net::HostId, rng::Rng, world::World},
};

const PAGES: u32 = 3;
/// Where edges ask for topics: more than any of them has streams of.
const PAGES_OF_TOPICS: u32 = 14;
const EDGES: usize = 3;
const VISITORS: usize = 4;
const STREAMS_EACH: usize = 6;
/// Virtual time of the safety phase.
const SAFETY_MS: u64 = 60_000;
/// From the start of an edge until it follows control, everything being well.
const EDGES_START_MS: u64 = 20_000;
/// The longest `retry:` that is not a place in a queue.
const RETRY_MS_MAX: u64 = 3_000;
/// Until edges learn that one of them is gone, where visitors are led to each other's names.
const BEAT_MS: u64 = 5_000;
/// What latency, turns and the visitors' own pauses add to a reconnect.
const SLACK_MS: u64 = 2_500;

/// A process of an edge, and what it may do.
struct Process {
    board: Arc<Board>,
    shards: u16,
    rates: Rates,
    /// When it was looked at, and how many streams had opened and been moved by then.
    looks: VecDeque<(u64, u64, u64)>,
}

/// Whom edges follow before control.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Relays {
    /// Nobody.
    None,
    /// All the first one.
    Star,
    /// Each the one before it, then the one before that.
    Chain,
    /// Each the one before it, the first one the last.
    Round,
    /// The last one the others.
    Pair,
}

impl Relays {
    fn parents(self, at: usize) -> Vec<usize> {
        match self {
            Self::None => Vec::new(),
            Self::Star if at == 0 => Vec::new(),
            Self::Star => vec![0],
            Self::Chain => (0..at).rev().collect(),
            Self::Round => vec![(at + EDGES - 1) % EDGES],
            Self::Pair if at + 1 == EDGES => (0..at).rev().collect(),
            Self::Pair => Vec::new(),
        }
    }

    fn is_followed(self, at: usize) -> bool {
        (0..EDGES).any(|other| self.parents(other).contains(&at))
    }
}

struct Run {
    world: World<Shard>,
    ledger: Rc<RefCell<Ledger>>,
    control: HostId,
    edges: Vec<HostId>,
    steward: HostId,
    visitors: Vec<HostId>,
    ready: Ready,
    running: Vec<Option<Process>>,
    /// An end was asked for, and may be called back.
    ending: Vec<bool>,
    control_down: bool,
    /// Streams are led to the edge that the circle prefers.
    leads: bool,
    relays: Relays,
    /// Edges that nobody follows ask for topics; what is drawn for that.
    topics: Option<Rng>,
    pages: u32,
    draw: Rng,
    /// What every process counted, the dead ones too.
    counted: Vec<Arc<Board>>,
}

fn address(last: [u8; 2], port: u16) -> SocketAddr {
    SocketAddr::new(IpAddr::V4(Ipv4Addr::new(10, 0, last[0], last[1])), port)
}

fn edge_address(at: usize) -> SocketAddr {
    address([1, at as u8 + 1], 8080)
}

fn relay_address(at: usize) -> SocketAddr {
    address([1, at as u8 + 1], 7410)
}

fn admin_address(at: usize) -> SocketAddr {
    address([1, at as u8 + 1], 7401)
}

const CONTROL: ([u8; 2], u16) = ([0, 1], 7400);
const ORIGIN: ([u8; 2], u16) = ([0, 2], 80);

/// Runs one seed.
pub fn run(seed: u64) -> Outcome {
    through(Run::new(seed, None))
}

/// Runs one seed, with edges that ask for topics.
pub fn run_with_topics(seed: u64) -> Outcome {
    through(Run::new(seed, Some(Rng::new(seed ^ 0x746f_7069_6373))))
}

fn through(mut run: Run) -> Outcome {
    run.safety();
    run.heal();
    run.lose_one();
    run.liveness();
    run.finish()
}

impl Run {
    fn new(seed: u64, mut topics: Option<Rng>) -> Self {
        let pages = if topics.is_some() { PAGES_OF_TOPICS } else { PAGES };
        let mut world: World<Shard> = World::new(seed);
        let ledger: Rc<RefCell<Ledger>> = Rc::default();
        let mut draw = world.rng.fork();
        // Whatever the edges cannot have of control may show; that is another scenario's matter.
        ledger.borrow_mut().faults_until_ns = u64::MAX;
        ledger.borrow_mut().origin_has(0, 0, 1);
        let site = format!(
            r#"{{"id":"s1","name":"site","hosts":["site.example"],"origins":[{{"url":"http://{}"}}]}}"#,
            address(ORIGIN.0, ORIGIN.1)
        );
        let control = Control::new(Rc::clone(&ledger), draw.fork(), pages, site);
        let at = address(CONTROL.0, CONTROL.1);
        let control = world.add_peer(at.ip(), &[at], Box::new(control));
        let at = address(ORIGIN.0, ORIGIN.1);
        let origin = Origin::new(Rc::clone(&ledger), draw.fork());
        world.add_peer(at.ip(), &[at], Box::new(origin));
        let edges: Vec<HostId> =
            (0..EDGES).map(|at| world.add_host(edge_address(at).ip())).collect();
        let ready = Ready::default();
        let at = (edges[EDGES - 1] + 1, address([0, 3], 0).ip());
        let admins = (0..EDGES).map(admin_address).collect();
        let steward = Steward::new(at, admins, Rc::clone(&ready), Rc::clone(&ledger));
        let steward = world.add_peer(at.1, &[], Box::new(steward));
        let mut run = Self {
            world,
            ledger,
            control,
            edges,
            steward,
            visitors: Vec::new(),
            ready,
            running: (0..EDGES).map(|_| None).collect(),
            ending: vec![false; EDGES],
            control_down: false,
            leads: draw.chance(500),
            // Not drawn from the run's own numbers: seeds from before mean what they meant.
            relays: match &mut topics {
                Some(draw) => *draw.pick(&[Relays::Star, Relays::Chain, Relays::Pair]),
                None => *Rng::new(seed ^ 0x7265_6c61_7973).pick(&[
                    Relays::None,
                    Relays::None,
                    Relays::None,
                    Relays::Star,
                    Relays::Chain,
                    Relays::Round,
                ]),
            },
            topics,
            pages,
            draw,
            counted: Vec::new(),
        };
        run.ledger.borrow_mut().trace = run.world.net.trace.clone();
        (0..EDGES).for_each(|at| run.start_edge(at));
        run.wait_for_edges();
        run.add_visitors();
        run
    }

    fn violation(&self, what: String) {
        self.ledger.borrow_mut().violation(self.world.now().mono.0, what);
    }

    /// Until every edge has its configuration, and has told control so.
    fn wait_for_edges(&mut self) {
        let (control, names) = (self.control, (0..EDGES).map(edge_name).collect::<Vec<_>>());
        let follow = self.world.run_until(EDGES_START_MS, |world| {
            world.with_peer(control, |control: &mut Control, _, _| control.confirmed(&names, 0))
        });
        if !follow {
            self.violation(format!("an edge does not follow control within {EDGES_START_MS} ms"));
        }
    }

    fn start_edge(&mut self, at: usize) {
        let shards = self.draw.between(1, 3) as u16;
        let seed = self.draw.draw();
        let options = Options {
            sockets_max: 1024,
            first_listeners: usize::from(self.relays(at)),
            ..Options::draw(&mut self.draw)
        };
        let rates = Rates {
            opens_per_s: *self.draw.pick(&[4, 10, 30]),
            drain_per_s: *self.draw.pick(&[0, 1, 5]),
            move_over_ms: *self.draw.pick(&[1_000, 20_000]),
        };
        let control = ControlLink {
            host: address(CONTROL.0, CONTROL.1).ip().to_string().into(),
            port: CONTROL.1,
            authorization: format!("Bearer {}", edge_name(at)).into(),
        };
        let parents = self.relays.parents(at).into_iter().map(|parent| ControlLink {
            host: relay_address(parent).ip().to_string().into(),
            port: relay_address(parent).port(),
            authorization: "Bearer relay".into(),
        });
        let topics_max = self.topics.as_mut().map_or(0, |draw| *draw.pick(&[4096, 4096, 5, 0]));
        let relay = self.relays(at).then(|| RelaySettings {
            listener: 2,
            key: SecretHash::of(b"relay"),
            children_max: 2,
            topics_max,
        });
        let drain_ms = *self.draw.pick(&[3_000, 10_000, 30_000]);
        let drain_notice_ms = *self.draw.pick(&[0, 2_000]);
        let settings = Settings {
            shard: 0,
            shard_count: shards,
            seed,
            forward: Default::default(),
            explain: Default::default(),
            edge_id: edge_name(at).into(),
            url: Some(format!("http://{}", edge_address(at)).into()),
            parents: parents.collect(),
            relay,
            pop: "pop".into(),
            engine: "simulated".into(),
            control: Some(control),
            sites: Vec::new().into(),
            data: Some(PathBuf::from("/data")),
            admin_listener: Some(1),
            listener_count: 2,
            sockets_max: options.sockets_max as u32,
            streams_max: 1000,
            rates,
            cache: Cache::new(cache::Config::new(1_000_000, seed)),
            near_entries: 64,
            board: Board::new(shards),
            timeouts: Timeouts { drain_ms, drain_notice_ms, ..Timeouts::default() },
            levels: Default::default(),
            live: Arc::default(),
        };
        let pages = if self.leads { Placement::Redirect } else { Placement::Relay };
        settings.live.put(Live {
            timeouts: settings.timeouts,
            streams_max: settings.streams_max,
            rates,
            pages,
            ..Live::default()
        });
        let board = Arc::clone(&settings.board);
        self.counted.push(Arc::clone(&board));
        let now = self.world.now();
        let actors = (0..shards)
            .map(|shard| {
                let seed = seed ^ u64::from(shard);
                Shard::new(Settings { shard, seed, ..settings.clone() }, now)
            })
            .collect();
        let mut listeners = vec![edge_address(at), admin_address(at)];
        if self.relays(at) {
            listeners.push(relay_address(at));
        }
        self.world.start(self.edges[at], listeners, actors, options);
        self.running[at] = Some(Process { board, shards, rates, looks: VecDeque::new() });
        self.ending[at] = false;
    }

    /// Whether an edge lets others follow.
    fn relays(&self, at: usize) -> bool {
        match &self.topics {
            Some(_) => self.relays.is_followed(at),
            None => self.relays != Relays::None,
        }
    }

    fn add_visitors(&mut self) {
        for at in 0..VISITORS {
            let ip = address([2, at as u8 + 1], 0).ip();
            let edges = (0..EDGES).map(edge_address).collect();
            let host = self.visitors.last().map_or(self.steward + 1, |last| last + 1);
            let ledger = Rc::clone(&self.ledger);
            let plan = Plan { objects: 1, pages: self.pages, requests: 60, streams: STREAMS_EACH };
            let mut visitor = Visitor::new((host, ip), edges, ledger, self.draw.fork(), plan);
            visitor.ready = Some(Rc::clone(&self.ready));
            visitor.roams = self.topics.is_some();
            assert_eq!(self.world.add_peer(ip, &[], Box::new(visitor)), host);
            self.visitors.push(host);
        }
    }

    fn safety(&mut self) {
        let end = self.world.now().mono.after_ms(SAFETY_MS);
        while self.world.now().mono < end {
            let at = self.draw.below(EDGES);
            match self.draw.below(16) {
                0..5 => self.declare(),
                5 => self.kill(at),
                6 => self.tell_to_end(at),
                7..9 => self.say(at, "POST"),
                9..11 => self.say(at, "DELETE"),
                11 => self.partition(at),
                12 => self.toggle_control(),
                13 => self.hold_feed(at),
                _ => {}
            }
            let pause_ms = *self.draw.pick(&[1, 20, 300, 1500, 4000]);
            self.pass(pause_ms);
            let down = (0..EDGES).find(|&at| self.running[at].is_none());
            if let Some(at) = down.filter(|_| self.draw.chance(300)) {
                self.start_edge(at);
            }
        }
    }

    /// Lets time pass, and looks at the edges meanwhile.
    fn pass(&mut self, for_ms: u64) {
        let end = self.world.now().mono.after_ms(for_ms);
        while self.world.now().mono < end {
            let left_ms = end.since_ns(self.world.now().mono).div_ceil(1_000_000);
            self.world.run_for(left_ms.min(100));
            self.look();
        }
    }

    /// Processes that have ended are gone; those that run keep to their rates.
    fn look(&mut self) {
        let now_ns = self.world.now().mono.0;
        for at in 0..EDGES {
            let host = self.edges[at];
            if self.world.process(host).is_some_and(|process| process.has_stopped(now_ns)) {
                self.world.hit("edges: ended by a drain");
                self.world.end(host, now_ns);
                self.world.crash(host);
                self.running[at] = None;
            }
            let Some(process) = &mut self.running[at] else { continue };
            let violation = process.look(now_ns, self.leads);
            let says = |metric| process.board.sum(metric) > 0;
            let (is_filtered, has_most) =
                (says(Metric::FeedFiltered), says(Metric::FeedAllForRoom));
            if is_filtered {
                self.world.hit("edges: asked for topics");
            } else if has_most {
                self.world.hit("edges: asked for all for want of room");
            }
            if let Some(what) = violation {
                self.violation(format!("{}: {what}", edge_name(at)));
            }
        }
        if self.ready.borrow().is_empty() {
            self.world.hit("edges: nobody is ready");
        }
    }

    fn declare(&mut self) {
        if self.control_down {
            return;
        }
        for _ in 0..*self.draw.pick(&[1, 1, 2, 5]) {
            let page = self.draw.below(self.pages as usize) as u32;
            self.world.with_peer(self.control, |control: &mut Control, now, net| {
                control.declare(now, net, page);
            });
        }
    }

    fn kill(&mut self, at: usize) {
        if self.running[at].take().is_some() {
            self.world.hit("crash: edge");
            self.world.crash(self.edges[at]);
        }
    }

    /// SIGTERM.
    fn tell_to_end(&mut self, at: usize) {
        if self.running[at].is_some() {
            self.ending[at] = true;
            self.world.control(self.edges[at], Ask::Drain);
        }
    }

    /// The operator drains an edge, or undoes it.
    fn say(&mut self, at: usize, method: &'static str) {
        let Some(process) = &self.running[at] else { return };
        if method == "DELETE" && process.board.sum(Metric::Draining) > 0 {
            let called_back = std::mem::take(&mut self.ending[at]);
            let what = if called_back { "edges: end called back" } else { "edges: drain undone" };
            self.world.hit(what);
        }
        self.world.with_peer(self.steward, |steward: &mut Steward, now, net| {
            steward.say(now, net, at, method);
        });
    }

    fn partition(&mut self, at: usize) {
        let mut others = vec![self.control, self.steward];
        others.extend(&self.visitors);
        if self.relays != Relays::None {
            others.extend(self.edges.iter().filter(|edge| **edge != self.edges[at]));
        }
        if self.draw.chance(500) {
            let other = *self.draw.pick(&others);
            self.world.net.partition(self.edges[at], other, true);
        } else {
            self.world.net.heal();
        }
    }

    fn toggle_control(&mut self) {
        let at = address(CONTROL.0, CONTROL.1);
        if self.control_down {
            let lost = if self.draw.chance(300) { self.draw.below(4) } else { 0 };
            self.world.with_peer(self.control, |control: &mut Control, _, _| {
                if lost > 0 { control.restart_from_backup(lost) } else { control.restart() }
            });
            self.world.revive(self.control, &[at]);
        } else {
            self.world.hit("crash: control");
            self.world.crash_peer(self.control);
            self.world.with_peer(self.control, |control: &mut Control, _, _| control.crash());
        }
        self.control_down = !self.control_down;
    }

    fn hold_feed(&mut self, at: usize) {
        let (edge, hold) = (edge_name(at), self.draw.chance(500));
        self.world.with_peer(self.control, |control: &mut Control, _, _| {
            if hold { control.hold.insert(edge, 2000) } else { control.hold.remove(&edge) }
        });
    }

    fn heal(&mut self) {
        self.world.net.heal();
        if self.control_down {
            self.toggle_control();
        }
        self.world.with_peer(self.control, |control: &mut Control, _, _| control.hold.clear());
        for visitor in self.visitors.clone() {
            self.world.with_peer(visitor, |visitor: &mut Visitor, _, _| visitor.calm_down());
        }
        // What is told to end ends, and comes back; who drains serves again.
        self.pass(35_000);
        for at in 0..EDGES {
            if self.running[at].is_none() {
                self.start_edge(at);
            } else {
                self.say(at, "DELETE");
            }
        }
        self.pass(60_000);
        self.expect_all_open("after everything has healed");
    }

    fn open_streams(&mut self) -> usize {
        let visitors = self.visitors.clone();
        let open = visitors.into_iter().map(|host| {
            self.world.with_peer(host, |visitor: &mut Visitor, _, _| visitor.open_streams())
        });
        open.sum()
    }

    /// Lets time pass until all streams are open, at most so much.
    fn pass_until_open(&mut self, ms_max: u64) {
        let mut left_ms = ms_max;
        while left_ms > 0 && self.open_streams() < VISITORS * STREAMS_EACH {
            let slice_ms = left_ms.min(1_000);
            self.pass(slice_ms);
            left_ms -= slice_ms;
        }
    }

    fn expect_all_open(&mut self, when: &str) {
        let open = self.open_streams();
        let all = VISITORS * STREAMS_EACH;
        if open < all {
            self.violation(format!("{when}, {open} of {all} streams are open"));
        }
    }

    /// All is well, and one edge dies, or is told to end.
    fn lose_one(&mut self) {
        let at = self.draw.below(EDGES);
        let budgets = self.running.iter().enumerate().filter(|(other, _)| *other != at);
        // Each shard has its share, and connections may all come to one.
        let shares = budgets
            .filter_map(|(_, process)| process.as_ref())
            .map(|process| (process.rates.opens_per_s / u32::from(process.shards)).max(1));
        let slowest_per_s = u64::from(shares.min().unwrap_or(1));
        let streams = (VISITORS * STREAMS_EACH) as u64;
        let through_ms = streams * 1000 / slowest_per_s;
        self.kill(at);
        // Who is led to the dead one until the next word of the circle comes back once more, and
        // passes through the budget once more.
        let led_ms = if self.leads { BEAT_MS + 2 * RETRY_MS_MAX + through_ms } else { 0 };
        // By then everyone has noticed.
        self.pass(DETECTION_MS);
        self.pass_until_open(led_ms + RETRY_MS_MAX + through_ms + RETRY_MS_MAX + SLACK_MS);
        self.expect_all_open("within detection, a retry and the budget after a kill");
        self.start_edge(at);
        self.wait_for_edges();
        self.pass(DETECTION_MS);
    }

    fn liveness(&mut self) {
        for page in 0..self.pages {
            self.world.with_peer(self.control, |control: &mut Control, now, net| {
                control.declare(now, net, page);
            });
        }
        self.pass(40_000);
        let replica =
            self.world.with_peer(self.control, |control: &mut Control, _, _| control.replica());
        for &visitor in &self.visitors.clone() {
            self.world.with_peer(visitor, |visitor: &mut Visitor, now, _| {
                visitor.check_streams_are_current(now.mono.0, &replica);
            });
        }
    }

    fn finish(self) -> Outcome {
        let ledger = self.ledger.borrow();
        let mut coverage = self.world.coverage().clone();
        for board in &self.counted {
            for (metric, name) in REACHED {
                coverage.add(name, board.sum(*metric));
            }
        }
        coverage.add("stream: gap told", ledger.gaps);
        Outcome {
            violations: ledger.violations.clone(),
            coverage,
            operations: ledger.answered + ledger.events,
            steps: self.world.steps(),
            trace: ledger.before_violation.clone(),
        }
    }
}

impl Process {
    /// Whether it has kept to its budget and to its rate, in words where it has not.
    fn look(&mut self, now_ns: u64, leads: bool) -> Option<String> {
        let (opened, moved) =
            (self.board.sum(Metric::StreamsOpened), self.board.sum(Metric::StreamsMigrated));
        self.looks.push_back((now_ns, opened, moved));
        while self.looks.len() > LOOKS_MAX {
            self.looks.pop_front();
        }
        let shards = u64::from(self.shards);
        let most = |per_s: u32, ms: u64| u64::from(per_s) * ms / 1000 + shards;
        for &(at_ns, opened_then, moved_then) in &self.looks {
            let ms = (now_ns - at_ns).div_ceil(1_000_000);
            let (opened, moved) = (opened - opened_then, moved - moved_then);
            if opened > most(self.rates.opens_per_s, ms + LATE_MS) {
                return Some(format!("{opened} streams opened in {ms} ms"));
            }
            let rate = self.rates.drain_per_s;
            // Others are moved by a change of the circle, each change over its own time.
            // A drain that was undone and begun anew has its first ones anew.
            if rate > 0 && !leads && moved > most(rate, ms) + shards {
                return Some(format!("{moved} streams moved in {ms} ms"));
            }
        }
        None
    }
}

/// Looks that are compared with the newest: some seconds.
const LOOKS_MAX: usize = 60;
/// What a count on the board may be late by, and what may open at once.
const LATE_MS: u64 = 270;

/// Branches of the edges themselves, by what they count.
const REACHED: &[(Metric, &str)] = &[
    (Metric::StreamsOverBudget, "stream: over the budget"),
    (Metric::StreamsMigrated, "stream: moved"),
    (Metric::StreamsLed, "stream: led to another edge"),
    (Metric::StreamsCut, "stream: cut by the deadline"),
    (Metric::StreamsOpenedWithGap, "stream: opened with a gap"),
    (Metric::FeedLost, "feed: session lost"),
    (Metric::RelayJoined, "relay: an edge follows another"),
    (Metric::RelayRefused, "relay: refused"),
    (Metric::RelayCutUnplaced, "relay: sent elsewhere, not placed"),
    (Metric::RelayCutDraining, "relay: sent elsewhere, draining"),
    (Metric::RelaySentBytes, "relay: bytes sent on"),
    (Metric::RelayFiltered, "relay: a record left out"),
    (Metric::RelayBegun, "relay: a topic began"),
    (Metric::StreamsAwaitedInVain, "stream: its topic did not begin"),
];
