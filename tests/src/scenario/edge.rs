//! Two edges before one origin and one control, watched by visitors, while a seed deals faults.
//!
//! ```text
//!   safety:    incidents, purges, crashes, partitions, slow and broken origins, an older control
//!   heal:      every fault ends
//!   liveness:  every request is answered, every purge confirmed, every stream has the newest event
//! ```
//! The checks are `check::ledger`'s and the visitors'; here is only what happens when.

use std::{
    cell::RefCell,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::PathBuf,
    rc::Rc,
    sync::Arc,
};

use cache::Cache;
use dataplane::{
    config::{Compression, Timeouts},
    seam::Control as Ask,
    shard::{
        ControlLink, Settings, Shard,
        observe::{Board, Metric},
    },
};

use crate::{
    check::ledger::{Ledger, edge_name},
    peer::{
        control::Control,
        origin::Origin,
        rules::{HOSTS, SiteRules},
        visitor::{Plan, Visitor},
    },
    sim::{coverage::Coverage, engine::Options, net::HostId, rng::Rng, world::World},
};

/// What a run came to.
#[derive(Debug)]
pub struct Outcome {
    /// What must not be, in words; empty when all held.
    pub violations: Vec<String>,
    /// Faults dealt and branches reached.
    pub coverage: Coverage,
    /// What was done, as the scenario counts it: requests answered in full and events delivered to
    /// streams (edge), requests to the store (durability), operations taken into logs (regions).
    pub operations: u64,
    /// Turns of the world.
    pub steps: u64,
    /// What happened last before the first violation, if a trace was asked for.
    pub trace: Vec<String>,
}

/// Objects of the site, pages of control.
const OBJECTS: u32 = 24;
const PAGES: u32 = 3;
const EDGES: usize = 2;
const VISITORS: usize = 4;
/// Virtual time of the safety phase.
const SAFETY_MS: u64 = 60_000;
/// How long after its end a fault may still show as a 5xx: time-outs, back-off, reconnects.
const AFTERMATH_MS: u64 = 15_000;
/// From the start of an edge until it follows control, everything being well.
const EDGES_START_MS: u64 = 20_000;
/// No answer within this is a request that will never be answered.
const ANSWER_MS: u64 = 60_000;

struct Run {
    world: World<Shard>,
    ledger: Rc<RefCell<Ledger>>,
    control: HostId,
    origin: HostId,
    edges: Vec<HostId>,
    shards: Vec<u16>,
    visitors: Vec<HostId>,
    /// Of the site, if it has some.
    rules: Option<Rc<SiteRules>>,
    /// Purges without a receipt from every edge: (object, generation, store, position).
    open_receipts: Vec<(u32, u32, u64, u64)>,
    control_down: bool,
    origin_down: bool,
    edges_down: Vec<bool>,
    draw: Rng,
    /// What every process counted, the dead ones too.
    counted: Vec<(Arc<Board>, Arc<Cache>)>,
}

fn address(last: [u8; 2], port: u16) -> SocketAddr {
    SocketAddr::new(IpAddr::V4(Ipv4Addr::new(10, 0, last[0], last[1])), port)
}

fn edge_address(at: usize) -> SocketAddr {
    address([1, at as u8 + 1], 8080)
}

const CONTROL: ([u8; 2], u16) = ([0, 1], 7400);
const ORIGIN: ([u8; 2], u16) = ([0, 2], 80);

/// Runs one seed.
pub fn run(seed: u64) -> Outcome {
    Run::new(seed, None).into_outcome()
}

/// The same, and the site has rules. They are drawn apart, so that a seed without them is what it
/// always was.
pub fn run_with_rules(seed: u64) -> Outcome {
    let rules = SiteRules::draw(&mut Rng::new(!seed));
    Run::new(seed, Some(Rc::new(rules))).into_outcome()
}

impl Run {
    fn into_outcome(mut self) -> Outcome {
        self.safety();
        self.heal();
        self.liveness();
        self.finish()
    }
}

impl Run {
    fn new(seed: u64, rules: Option<Rc<SiteRules>>) -> Self {
        let mut world: World<Shard> = World::new(seed);
        let ledger: Rc<RefCell<Ledger>> = Rc::default();
        let mut draw = world.rng.fork();
        for object in 0..OBJECTS {
            ledger.borrow_mut().origin_has(0, object, 1);
        }
        let (hosts, rules_text) = match &rules {
            Some(rules) => {
                let hosts = HOSTS.map(|host| format!("\"{host}\"")).join(",");
                (hosts, format!("\"rules\":{},", rules.to_json()))
            }
            None => ("\"site.example\"".into(), String::new()),
        };
        let site = format!(
            "{{\"id\":\"s1\",\"name\":\"site\",\"hosts\":[{hosts}],{rules_text}\"origins\":[{{\"url\":\"http://{}\"}}]}}",
            address(ORIGIN.0, ORIGIN.1)
        );
        let mut control = Control::new(Rc::clone(&ledger), draw.fork(), PAGES, site);
        control.rules.clone_from(&rules);
        let at = address(CONTROL.0, CONTROL.1);
        let control = world.add_peer(at.ip(), &[at], Box::new(control));
        let origin = Origin::new(Rc::clone(&ledger), draw.fork());
        let at = address(ORIGIN.0, ORIGIN.1);
        let origin = world.add_peer(at.ip(), &[at], Box::new(origin));
        let edges: Vec<HostId> =
            (0..EDGES).map(|at| world.add_host(edge_address(at).ip())).collect();
        let shards = (0..EDGES).map(|_| draw.between(1, 3) as u16).collect();
        let mut run = Self {
            world,
            ledger,
            control,
            origin,
            edges,
            shards,
            visitors: Vec::new(),
            rules,
            open_receipts: Vec::new(),
            control_down: false,
            origin_down: false,
            edges_down: vec![false; EDGES],
            draw,
            counted: Vec::new(),
        };
        run.ledger.borrow_mut().trace = run.world.net.trace.clone();
        (0..EDGES).for_each(|at| run.start_edge(at));
        run.wait_for_edges();
        run.add_visitors();
        run
    }

    /// Until every edge has its configuration, and has told control so.
    fn wait_for_edges(&mut self) {
        let (control, edges) = (self.control, (0..EDGES).map(edge_name).collect::<Vec<_>>());
        let follow = self.world.run_until(EDGES_START_MS, |world| {
            world.with_peer(control, |control: &mut Control, _, _| control.confirmed(&edges, 0))
        });
        if !follow {
            let now_ns = self.world.now().mono.0;
            let what = format!("an edge does not follow control within {EDGES_START_MS} ms");
            self.ledger.borrow_mut().violation(now_ns, what);
        }
    }

    fn start_edge(&mut self, at: usize) {
        let shards = self.shards[at];
        let seed = self.draw.draw();
        let mut options = Options::draw(&mut self.draw);
        let mut streams_max = *self.draw.pick(&[4, 1000]);
        if at == 0 {
            // Somewhere there is room for everyone, or "all streams come back" would be no rule.
            options.sockets_max = options.sockets_max.max(64);
            streams_max = 1000;
        }
        let control = ControlLink {
            host: address(CONTROL.0, CONTROL.1).ip().to_string().into(),
            port: CONTROL.1,
            authorization: format!("Bearer {}", edge_name(at)).into(),
        };
        let memory_bytes = *self.draw.pick(&[200_000, 1_000_000, 16_000_000]);
        let settings = Settings {
            shard: 0,
            shard_count: shards,
            seed,
            forward: Default::default(),
            explain: dataplane::config::Explain { memory: 65_536, ..Default::default() },
            edge_id: edge_name(at).into(),
            url: None,
            parents: Arc::from([]),
            relay: None,
            pop: "pop".into(),
            engine: "simulated".into(),
            control: Some(control),
            sites: Vec::new().into(),
            data: Some(PathBuf::from("/data")),
            admin_listener: None,
            listener_count: 1,
            sockets_max: options.sockets_max as u32,
            streams_max,
            rates: Default::default(),
            cache: Cache::new(cache::Config {
                compression: Compression { min: 100, ..Default::default() }.for_cache(),
                ..cache::Config::new(memory_bytes, seed)
            }),
            near_entries: *self.draw.pick(&[4, 64]),
            board: Board::new(shards),
            timeouts: Timeouts::default(),
            levels: Default::default(),
            live: Arc::default(),
        };
        self.counted.push((Arc::clone(&settings.board), Arc::clone(&settings.cache)));
        let now = self.world.now();
        let actors = (0..shards)
            .map(|shard| {
                let seed = seed ^ u64::from(shard);
                Shard::new(Settings { shard, seed, ..settings.clone() }, now)
            })
            .collect();
        self.world.start(self.edges[at], vec![edge_address(at)], actors, options);
        self.edges_down[at] = false;
    }

    fn add_visitors(&mut self) {
        for at in 0..VISITORS {
            let ip = address([2, at as u8 + 1], 0).ip();
            let edges = (0..EDGES).map(edge_address).collect();
            // A host's number is its place in the world's list.
            let host = self.visitors.last().map_or(self.edges[EDGES - 1] + 1, |last| last + 1);
            let ledger = Rc::clone(&self.ledger);
            let plan = Plan { objects: OBJECTS, pages: PAGES, requests: 420, streams: 2 };
            let mut visitor = Visitor::new((host, ip), edges, ledger, self.draw.fork(), plan);
            visitor.rules.clone_from(&self.rules);
            assert_eq!(self.world.add_peer(ip, &[], Box::new(visitor)), host);
            self.visitors.push(host);
        }
    }

    fn fault(&mut self, lasting_ms: u64) {
        let until = self.world.now().mono.after_ms(lasting_ms + AFTERMATH_MS).0;
        let mut ledger = self.ledger.borrow_mut();
        ledger.faults_until_ns = ledger.faults_until_ns.max(until);
    }

    fn safety(&mut self) {
        let end = self.world.now().mono.after_ms(SAFETY_MS);
        while self.world.now().mono < end {
            match self.draw.below(18) {
                0..4 => self.declare(),
                4..8 => self.change_object(),
                8 => self.toggle_origin(),
                9 => self.toggle_faulty_origin(),
                10 => self.toggle_control(),
                11 => self.toggle_edge(),
                12 => self.partition(),
                13 => self.hold_feed(),
                14 => self.step_clock(),
                15 => self.fill_disk(),
                _ => {}
            }
            let pause_ms = *self.draw.pick(&[1, 20, 300, 1500]);
            self.world.run_for(pause_ms);
            self.collect_receipts();
            self.look_for_the_forgotten();
        }
    }

    fn declare(&mut self) {
        if self.control_down {
            return;
        }
        let page = self.draw.below(PAGES as usize) as u32;
        for _ in 0..*self.draw.pick(&[1, 1, 2, 5]) {
            self.world.with_peer(self.control, |control: &mut Control, now, net| {
                control.declare(now, net, page);
            });
        }
    }

    /// The origin has something new; mostly it is purged, sometimes only time tells.
    fn change_object(&mut self) {
        let object = self.draw.below(OBJECTS as usize) as u32;
        let now = self.world.now();
        let generation = self.ledger.borrow().newest(object) + 1;
        self.ledger.borrow_mut().origin_has(now.mono.0, object, generation);
        if self.control_down || self.draw.chance(300) {
            return;
        }
        let (store, position) =
            self.world.with_peer(self.control, |control: &mut Control, now, net| {
                (control.store(), control.purge(now, net, object))
            });
        let trace = &self.world.net.trace;
        trace.say(now, format_args!("purge of object {object}: {position} of store {store}"));
        self.open_receipts.push((object, generation, store, position));
    }

    fn collect_receipts(&mut self) {
        let edges: Vec<String> = (0..EDGES).map(edge_name).collect();
        let (now, ledger) = (self.world.now(), Rc::clone(&self.ledger));
        let open = std::mem::take(&mut self.open_receipts);
        let left = self.world.with_peer(self.control, |control: &mut Control, _, _| {
            open.into_iter()
                // A purge that an older copy of control does not know will not be confirmed.
                .filter(|(_, _, store, _)| *store == control.store())
                .filter(|&(object, generation, _, position)| {
                    let confirmed = control.confirmed(&edges, position);
                    if confirmed {
                        ledger.borrow_mut().receipt(now.mono.0, object, generation);
                    }
                    !confirmed
                })
                .collect()
        });
        self.open_receipts = left;
    }

    fn toggle_origin(&mut self) {
        self.fault(0);
        let at = address(ORIGIN.0, ORIGIN.1);
        if self.origin_down {
            self.world.revive(self.origin, &[at]);
        } else {
            self.world.hit("crash: origin");
            self.world.crash_peer(self.origin);
            self.world.with_peer(self.origin, |origin: &mut Origin, _, _| origin.crash());
        }
        self.origin_down = !self.origin_down;
        if self.origin_down {
            self.ledger.borrow_mut().faults_until_ns = u64::MAX;
        } else {
            self.settle_faults();
        }
    }

    fn toggle_faulty_origin(&mut self) {
        let per_mille = *self.draw.pick(&[0, 100, 700]);
        self.world.with_peer(self.origin, |origin: &mut Origin, _, _| {
            origin.faulty_per_mille = per_mille;
        });
        self.settle_faults();
    }

    fn toggle_control(&mut self) {
        let at = address(CONTROL.0, CONTROL.1);
        if self.control_down {
            let lost = if self.draw.chance(300) { self.draw.below(5) } else { 0 };
            if lost > 0 {
                self.world.hit("control: replaced by an older copy");
            }
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
        self.settle_faults();
    }

    fn toggle_edge(&mut self) {
        let at = self.draw.below(EDGES);
        if self.edges_down[at] {
            if self.draw.chance(200) && self.world.disk(self.edges[at]).corrupt(&mut self.draw) {
                self.world.hit("disk: byte spoiled");
            }
            self.start_edge(at);
        } else if self.draw.chance(700) {
            let host = self.edges[at];
            if self.draw.chance(500) {
                // In the middle of keeping something.
                self.world.run_until(3000, |world| world.disk(host).next_due_ns().is_some());
            }
            self.world.hit("crash: edge");
            self.world.crash(host);
            self.edges_down[at] = true;
        } else {
            // A drain that is not waited for: the process goes on until it says Stop.
            self.world.hit("edge: drained");
            self.world.control(self.edges[at], Ask::Drain);
            let host = self.edges[at];
            let stopped = self.world.run_until(60_000, |world| {
                let now_ns = world.now().mono.0;
                world.process(host).is_none_or(|process| process.has_stopped(now_ns))
            });
            if !stopped {
                let now_ns = self.world.now().mono.0;
                self.ledger.borrow_mut().violation(now_ns, "a drain did not end in 60 s".into());
            }
            self.world.crash(host);
            self.edges_down[at] = true;
        }
        self.fault(0);
    }

    fn partition(&mut self) {
        let from = self.edges[self.draw.below(EDGES)];
        let to = *self.draw.pick(&[self.control, self.origin]);
        let cut = self.draw.chance(500);
        if cut {
            self.world.net.partition(from, to, true);
            self.ledger.borrow_mut().faults_until_ns = u64::MAX;
        } else {
            self.world.net.heal();
            self.settle_faults();
        }
    }

    fn hold_feed(&mut self) {
        let (edge, hold) = (edge_name(self.draw.below(EDGES)), self.draw.chance(500));
        self.world.with_peer(self.control, |control: &mut Control, _, _| {
            if hold { control.hold.insert(edge, 2000) } else { control.hold.remove(&edge) }
        });
    }

    fn step_clock(&mut self) {
        self.world.hit("clock: stepped");
        let by_ms = *self.draw.pick(&[-3000, -500, 500, 1500]);
        self.world.step_wall_clock_ms(by_ms);
    }

    fn fill_disk(&mut self) {
        let (edge, full) = (self.edges[self.draw.below(EDGES)], self.draw.chance(500));
        if full {
            self.world.hit("disk: full");
        }
        self.world.disk(edge).full = full;
    }

    /// Faults that go on keep the window open; when none does, it closes after the aftermath.
    fn settle_faults(&mut self) {
        let faulty = self
            .world
            .with_peer(self.origin, |origin: &mut Origin, _, _| origin.faulty_per_mille > 0);
        let cut = self.world.net.is_partitioned();
        let open = faulty || cut || self.origin_down || self.control_down;
        let until = if open { u64::MAX } else { self.world.now().mono.after_ms(AFTERMATH_MS).0 };
        self.ledger.borrow_mut().faults_until_ns = until;
    }

    fn look_for_the_forgotten(&mut self) {
        let now_ns = self.world.now().mono.0;
        for &visitor in &self.visitors.clone() {
            let oldest = self
                .world
                .with_peer(visitor, |visitor: &mut Visitor, _, _| visitor.oldest_unanswered_ns());
            if oldest.is_some_and(|asked| now_ns - asked > ANSWER_MS * 1_000_000) {
                let what = format!("a request of {ANSWER_MS} ms ago has no answer");
                self.ledger.borrow_mut().violation(now_ns, what);
            }
        }
    }

    fn heal(&mut self) {
        self.world.net.heal();
        if self.origin_down {
            self.toggle_origin();
        }
        if self.control_down {
            self.toggle_control();
        }
        self.world.with_peer(self.origin, |origin: &mut Origin, _, _| origin.faulty_per_mille = 0);
        self.world.with_peer(self.control, |control: &mut Control, _, _| control.hold.clear());
        for at in 0..EDGES {
            self.world.disk(self.edges[at]).full = false;
            if self.edges_down[at] {
                self.start_edge(at);
            }
        }
        for visitor in self.visitors.clone() {
            self.world.with_peer(visitor, |visitor: &mut Visitor, _, _| visitor.calm_down());
        }
        self.settle_faults();
        self.world.run_for(AFTERMATH_MS + 10_000);
    }

    fn liveness(&mut self) {
        for page in 0..PAGES {
            self.world.with_peer(self.control, |control: &mut Control, now, net| {
                control.declare(now, net, page);
            });
        }
        self.change_object();
        let visitors = self.visitors.clone();
        for &visitor in &visitors {
            self.world.with_peer(visitor, |visitor: &mut Visitor, _, _| visitor.left += 20);
        }
        let done = self.world.run_until(120_000, |world| {
            visitors
                .iter()
                .all(|&host| world.with_peer(host, |visitor: &mut Visitor, _, _| visitor.is_done()))
        });
        let now_ns = self.world.now().mono.0;
        if !done {
            self.ledger
                .borrow_mut()
                .violation(now_ns, "requests without an answer at the end".into());
        }
        self.world.run_for(40_000);
        self.collect_receipts();
        let now_ns = self.world.now().mono.0;
        for (object, generation, _, position) in self.open_receipts.clone() {
            let what =
                format!("purge of object {object} ({generation}) at {position} never confirmed");
            self.ledger.borrow_mut().violation(now_ns, what);
        }
        let replica =
            self.world.with_peer(self.control, |control: &mut Control, _, _| control.replica());
        for &visitor in &visitors {
            self.world.with_peer(visitor, |visitor: &mut Visitor, now, _| {
                visitor.check_streams_are_current(now.mono.0, &replica);
            });
        }
    }

    fn finish(self) -> Outcome {
        let ledger = self.ledger.borrow();
        let mut coverage = self.world.coverage().clone();
        for (board, cache) in &self.counted {
            for (metric, name) in REACHED {
                coverage.add(name, board.sum(*metric));
            }
            let stats = cache.stats();
            coverage.add("cache: evicted", stats.evicted);
            coverage.add("cache: updated by a 304", stats.updated);
            coverage.add("cache: answer not stored", stats.not_stored);
            coverage.add("cache: fetch failed", stats.fetch_failures);
        }
        coverage.add("stream: gap told", ledger.gaps);
        for (rule, count) in &ledger.shown {
            coverage.add(rule, *count);
        }
        Outcome {
            violations: ledger.violations.clone(),
            coverage,
            operations: ledger.answered + ledger.events,
            steps: self.world.steps(),
            trace: ledger.before_violation.clone(),
        }
    }
}

/// Branches of the edge itself, by what it counts.
const REACHED: &[(Metric, &str)] = &[
    (Metric::Revalidated, "answer: revalidated"),
    (Metric::Stale, "answer: stale"),
    (Metric::Bypass, "answer: bypass"),
    (Metric::Collapsed, "answer: collapsed"),
    (Metric::EncodingsKept, "encoding: kept"),
    (Metric::EncodingsUseless, "encoding: useless"),
    (Metric::EncodingsDropped, "encoding: dropped"),
    (Metric::FetchRetries, "fetch: repeated, a kept connection was dead"),
    (Metric::FetchConnectFailed, "fetch: no connection"),
    (Metric::FetchTimeout, "fetch: timed out"),
    (Metric::FetchBroken, "fetch: broken off"),
    (Metric::FetchMalformed, "fetch: malformed answer"),
    (Metric::VersionTooOld, "fetch: page too old, asked again"),
    (Metric::StreamsRefused, "stream: refused with a retry"),
    (Metric::StreamsOpenedWithGap, "stream: opened with a gap"),
    (Metric::StreamSendsBlocked, "stream: socket full"),
    (Metric::EventsSeen, "feed: event came twice"),
    (Metric::FeedLost, "feed: session lost"),
    (Metric::LastKnownFailed, "kept: disk failed"),
    (Metric::LastKnownIgnored, "kept: damaged file ignored"),
    (Metric::LastKnownPagesRestored, "kept: page restored"),
    (Metric::TableRefused, "accept: refused, no room"),
];
