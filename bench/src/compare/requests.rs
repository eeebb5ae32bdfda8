//! The cases of requests and answers: hits of several sizes, pipelined hits, misses.

use std::{net::SocketAddr, time::Duration};

use dataplane::engine;
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::Value;

use crate::{
    compare::{Contender, Turn, Who},
    failure::Failure,
    generator::Load,
    load::{self, HttpRun, Place},
    options::{BodyCheck, Case, CompareOptions, EngineChoice, Opponent},
    origin::Origin,
    peer::{
        EXTRA_FIELDS, Folder, Ground, HOST, Peer, Plan,
        floor::{self, Myself},
        haproxy, nginx, pharos, varnish,
    },
    probe,
    process::descriptor_limit,
    report,
    target::Target,
    workload::Workload,
};

/// Runs all rounds.
pub(super) fn run(options: &CompareOptions) -> Result<Vec<Contender>, Failure> {
    let folder = Folder::new(options.keep)?;
    let origin = start_origin(options)?;
    let descriptors = descriptor_limit()
        .map_err(|error| Failure::error("read the descriptor limit").because(error))?;
    let ground =
        Ground { folder: folder.path.clone(), origin, sockets: options.connections, descriptors };
    let arena = Arena { options, ground };
    let mut servers = arena.start_all()?;
    let turns = u64::from(options.rounds) * servers.len() as u64;
    let bar = ProgressBar::new(turns);
    if let Ok(style) = ProgressStyle::with_template("{msg:10} {wide_bar} {pos}/{len} turns, {eta}")
    {
        bar.set_style(style);
    }
    for round in 0..options.rounds as usize {
        // Another one begins each round, so that none always follows the same.
        let count = servers.len();
        for at in 0..count {
            let server = &mut servers[(round + at) % count];
            bar.set_message(server.who.name());
            let turn = arena.turn(server.who, &server.peer, options.duration, options.warm_up)?;
            server.turns.push(turn);
            bar.inc(1);
        }
    }
    bar.finish_and_clear();
    let mut contenders: Vec<Contender> = servers.into_iter().map(Server::retire).collect();
    contenders.sort_by_key(|contender| contender.who);
    Ok(contenders)
}

/// A running server and what was measured of it.
struct Server {
    who: Who,
    peer: Peer,
    turns: Vec<Turn>,
}

impl Server {
    fn retire(self) -> Contender {
        Contender {
            who: self.who,
            plan: self.peer.plan.describe(),
            choice: self.peer.plan.choice.clone(),
            turns: self.turns,
        }
    }
}

struct Arena<'a> {
    options: &'a CompareOptions,
    ground: Ground,
}

impl Arena<'_> {
    /// Path and pipeline of the case.
    fn shape(&self) -> (&'static str, u32) {
        match self.options.case {
            Case::Hit1kPipelined => ("/bytes/1024?max_age=86400", 16),
            Case::Hit100k => ("/bytes/102400?max_age=86400", 1),
            Case::Miss => ("/bytes/1024?cache_control=no-store", 1),
            Case::Hit1k | Case::Sse100k => ("/bytes/1024?max_age=86400", 1),
        }
    }

    fn is_hit(&self) -> bool {
        self.options.case != Case::Miss
    }

    fn opponents(&self) -> Result<Vec<Opponent>, Failure> {
        let mut opponents = self.options.against.clone();
        if opponents.is_empty() {
            opponents = vec![Opponent::Nginx, Opponent::Haproxy];
        }
        if opponents.contains(&Opponent::Nchan) {
            return Err(Failure::usage("nchan is a peer of the sse cases only"));
        }
        // Without a cache there is no floor to compare a miss with.
        opponents.retain(|opponent| *opponent != Opponent::Floor);
        if self.is_hit() {
            opponents.push(Opponent::Floor);
        }
        opponents.sort();
        opponents.dedup();
        Ok(opponents)
    }

    fn start_all(&self) -> Result<Vec<Server>, Failure> {
        let mut servers = Vec::new();
        let myself = Myself::called_for("compare")?;
        let mut answer = default_answer(self.shape().0);
        if !self.options.without_pharos {
            let program = pharos::program(self.options.pharos.as_ref(), &myself.program);
            let plan = pharos::plan(&program, &self.ground, self.options.engine)?;
            let server = self.start(Who::Pharos, plan)?;
            if self.is_hit() {
                answer = self.capture(&server.peer)?;
            }
            servers.push(server);
        }
        for opponent in self.opponents()? {
            let who = Who::Opponent(opponent);
            let server = match opponent {
                Opponent::Nginx => self.cheapest(
                    who,
                    nginx::Variant::ALL.iter().map(|way| nginx::plan(&self.ground, *way)),
                )?,
                Opponent::Haproxy => self.cheapest(
                    who,
                    haproxy::BUFFER_BYTES.iter().map(|size| haproxy::plan(&self.ground, *size)),
                )?,
                Opponent::Varnish => self.start(who, varnish::plan(&self.ground)?)?,
                Opponent::Floor => {
                    let path = self.ground.folder.join("answer");
                    std::fs::write(&path, &answer).map_err(|error| {
                        Failure::error("write the floor's answer").because(error)
                    })?;
                    self.start(who, floor::requests(&myself, &path)?)?
                }
                Opponent::Nchan => continue,
            };
            servers.push(server);
        }
        Ok(servers)
    }

    /// Starts a server and loads it until its cache is warm.
    fn start(&self, who: Who, plan: Plan) -> Result<Server, Failure> {
        report::talk(&plan.describe());
        let peer = plan.start(&self.ground.folder, self.options.server_core, "/bytes/1")?;
        self.load(&peer, WARM, Duration::ZERO)?;
        Ok(Server { who, peer, turns: Vec::new() })
    }

    /// Of several configurations, the one that costs least in this case.
    fn cheapest(
        &self,
        who: Who,
        plans: impl Iterator<Item = Result<Plan, Failure>>,
    ) -> Result<Server, Failure> {
        let mut best: Option<(f64, Server)> = None;
        let mut tried = Vec::new();
        for plan in plans {
            let server = self.start(who, plan?)?;
            let turn = self.turn(who, &server.peer, self.options.duration.min(TRY_MAX), WARM)?;
            tried.push(format!("{} {:.2} µs", server.peer.plan.name, turn.cpu_us));
            if best.as_ref().is_none_or(|(cost, _)| turn.cpu_us < *cost) {
                best = Some((turn.cpu_us, server));
            }
        }
        let Some((_, mut server)) = best else {
            return Err(Failure::error(format!("{} has no configuration", who.name())));
        };
        let choice = &mut server.peer.plan.choice;
        *choice = format!("{choice} (tried: {})", tried.join(", "));
        report::talk(&format!("{}: {choice}", who.name()));
        Ok(server)
    }

    /// One measured turn.
    ///
    /// # Errors
    /// A wrong answer, or a hit that was none.
    fn turn(
        &self,
        who: Who,
        peer: &Peer,
        duration: Duration,
        warm_up: Duration,
    ) -> Result<Turn, Failure> {
        let before = self.origin_count()?;
        let run = self.load(peer, duration, warm_up)?;
        let asked = self.origin_count()? - before;
        if self.is_hit() && asked > 0 {
            return Err(Failure::error(format!(
                "{} asked its origin {asked} times while its cache was warm",
                peer.plan.name
            )));
        }
        if who == Who::Pharos && self.is_hit() && run.load.hits != run.load.answers {
            let (hits, answers) = (run.load.hits, run.load.answers);
            return Err(Failure::error(format!("pharos: {hits} of {answers} answers are hits")));
        }
        let server = run.server.ok_or_else(|| Failure::error("the server's cost is missing"))?;
        Ok(Turn {
            cpu_us: server.cpu_us_per_answer,
            per_s: run.load.answers_per_s,
            busy: server.busy,
            p50_us: run.load.delay.p50_us,
            p99_us: run.load.delay.p99_us,
            rss_bytes: server.rss_bytes,
            errors: run.load.errors,
            streams: None,
        })
    }

    fn load(&self, peer: &Peer, duration: Duration, warm_up: Duration) -> Result<HttpRun, Failure> {
        let (path, pipeline) = self.shape();
        let target = self.target(peer.plan.listen, path);
        let fields = [format!("Host: {HOST}")];
        // The floor answers with a captured body, which is the origin's as well.
        let workload = Workload::new(&target, &fields, (1, 0.0, 1), BodyCheck::Origin)?;
        let load = Load {
            to: peer.plan.listen,
            connections: self.options.connections,
            pipeline,
            rate: None,
            warm_up,
            duration,
            workload,
        };
        let place = Place { core: Some(self.options.load_core), engine: self.options.load_engine };
        let run = load::run(load, place, Some(peer.pid()), |_, _| {})?;
        match run.load.errors.total() {
            0 => Ok(run),
            _ => Err(Failure::error(format!("{}: {:?}", peer.plan.name, run.load.errors))),
        }
    }

    fn target(&self, address: SocketAddr, path: &str) -> Target {
        Target { address, authority: address.to_string(), path: path.to_owned() }
    }

    /// A hit of Pharos, byte for byte.
    fn capture(&self, peer: &Peer) -> Result<Vec<u8>, Failure> {
        let fields = [format!("Host: {HOST}")];
        let answer = probe::ask(peer.plan.listen, "GET", self.shape().0, &fields, &[])
            .map_err(|error| Failure::error("capture a hit of pharos").because(error))?;
        Ok(answer.raw)
    }

    /// How often the origin was asked so far.
    fn origin_count(&self) -> Result<u64, Failure> {
        let failed = || Failure::error("read the origin's counts");
        let answer = probe::ask(self.ground.origin, "GET", "/_counts", &[], &[])
            .map_err(|error| failed().because(error))?;
        let counts: Value =
            serde_json::from_slice(&answer.content).map_err(|error| failed().because(error))?;
        counts["total"].as_u64().ok_or_else(failed)
    }
}

/// The origin runs in this process, on the core of the load: hits leave it idle.
fn start_origin(options: &CompareOptions) -> Result<SocketAddr, Failure> {
    let place = Place { core: Some(options.load_core), engine: EngineChoice::Auto };
    let mut config = place.config(1);
    config.listeners = vec![SocketAddr::from(([127, 0, 0, 1], 0))];
    let running = engine::start(config, |_| Origin::default())
        .map_err(|error| Failure::error("start the origin").because(error))?;
    // It ends with this process.
    running.listeners().first().copied().ok_or_else(|| Failure::error("the origin listens nowhere"))
}

/// The floor's answer when there is no Pharos to capture one from.
fn default_answer(path: &str) -> Vec<u8> {
    let body = crate::origin::body::of_path(path).unwrap_or_default();
    let mut head = format!(
        "HTTP/1.1 200 OK\r\nDate: Sun, 06 Nov 1994 08:49:37 GMT\r\nCache-Control: max-age=86400\r\n\
         Content-Type: application/octet-stream\r\nContent-Length: {}\r\nAge: 1\r\nVia: 1.1 bench\r\n",
        body.len()
    );
    for (name, value) in EXTRA_FIELDS {
        head += &format!("{name}: {value}\r\n");
    }
    head += "\r\n";
    [head.into_bytes(), body].concat()
}

/// Load that fills a cache before anything is measured.
const WARM: Duration = Duration::from_millis(300);
/// Longest trial of one configuration.
const TRY_MAX: Duration = Duration::from_secs(2);
