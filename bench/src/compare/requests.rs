//! The cases of requests and answers to servers that stay up for all rounds: hits of several sizes
//! and sets, paced and pipelined, misses, new connections.

use std::{cell::Cell, net::SocketAddr, time::Duration};

use dataplane::engine;
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::Value;

use crate::{
    command::within,
    compare::{Contender, Turn, Who, scene::Scene},
    failure::Failure,
    generator::{Load, Phase},
    limits::CONNECTIONS_MAX,
    load::{self, HttpRun, Place},
    options::{BodyCheck, Case, CompareOptions, EngineChoice, Opponent},
    origin::Origin,
    peer::{
        Folder, Ground, HOST, Peer, Plan,
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
    let mut arena = Arena::new(options)?;
    let mut servers = arena.start_all()?;
    let rows: usize = servers.iter().map(|server| server.rows.len()).sum();
    let bar = ProgressBar::new(u64::from(options.rounds) * rows as u64);
    if let Ok(style) = ProgressStyle::with_template("{msg:22} {wide_bar} {pos}/{len} turns, {eta}")
    {
        bar.set_style(style);
    }
    for round in 0..options.rounds as usize {
        // Another one begins each round, so that none always follows the same.
        let count = servers.len();
        for at in 0..count {
            let server = &mut servers[(round + at) % count];
            for row in 0..server.rows.len() {
                let scene = server.rows[row].scene;
                bar.set_message(format!("{} {}", server.who.name(), scene.label));
                let turn = arena.turn(server, &scene, options.duration, options.warm_up)?;
                server.rows[row].turns.push(turn);
                bar.inc(1);
            }
        }
    }
    bar.finish_and_clear();
    Ok(cheapest(servers.into_iter().flat_map(Server::retire).collect()))
}

/// Of each row of a peer, the configuration that cost least over all rounds; rows of Pharos all
/// stay, as it comes in one configuration.
fn cheapest(mut rows: Vec<Contender>) -> Vec<Contender> {
    let cost = |row: &Contender| row.spread(|turn| turn.cpu_us).map_or(f64::MAX, |of| of.median);
    rows.sort_by(|one, other| cost(one).total_cmp(&cost(other)));
    let mut best: Vec<Contender> = Vec::new();
    for row in rows {
        let same = |kept: &&mut Contender| (kept.who, kept.scene) == (row.who, row.scene);
        match best.iter_mut().find(same) {
            Some(kept) => {
                kept.choice += &format!(" (beside it: {}, {:.2} µs)", row.choice, cost(&row));
            }
            None => best.push(row),
        }
    }
    let scenes: Vec<&str> = Scene::of_all().map(|scene| scene.label).collect();
    let place = |row: &Contender| scenes.iter().position(|label| *label == row.scene);
    best.sort_by_key(|row| (row.who, place(row)));
    best
}

/// A running server and what was measured of it.
pub(super) struct Server {
    who: Who,
    pub(super) peer: Peer,
    /// Numbers given to objects so far.
    used: Cell<u64>,
    /// Answers a second in the closed loop, if a scene wants to know.
    capacity: Cell<Option<f64>>,
    rows: Vec<Row>,
}

struct Row {
    scene: Scene,
    turns: Vec<Turn>,
}

impl Server {
    fn retire(self) -> Vec<Contender> {
        let plan = &self.peer.plan;
        let retire = |row: Row| Contender {
            who: self.who,
            scene: row.scene.label,
            version: plan.version(),
            plan: plan.describe(),
            choice: plan.choice.clone(),
            turns: row.turns,
        };
        self.rows.into_iter().map(retire).collect()
    }
}

pub(super) struct Arena<'a> {
    pub(super) options: &'a CompareOptions,
    pub(super) ground: Ground,
    myself: Myself,
    /// What Pharos adds to a response. For the other caches the origin sends these fields, so that
    /// all answers have the same ones, and storing them is all that a peer has to do.
    fields: Vec<String>,
}

impl<'a> Arena<'a> {
    pub(super) fn new(options: &'a CompareOptions) -> Result<Self, Failure> {
        within("--connections", u64::from(options.connections()), u64::from(CONNECTIONS_MAX))?;
        let folder = Folder::new(options.keep)?;
        let origin = start_origin(options)?;
        let descriptors = descriptor_limit()
            .map_err(|error| Failure::error("read the descriptor limit").because(error))?;
        let sockets = options.connections();
        let ground = Ground { folder, origin, sockets, descriptors };
        let myself = Myself::called_for("compare")?;
        Ok(Self { options, ground, myself, fields: default_fields() })
    }

    /// Whom the case is played with, beside Pharos.
    pub(super) fn opponents(&self) -> Result<Vec<Opponent>, Failure> {
        let case = self.options.case;
        if matches!(case, Case::HitFar | Case::Hit1m) {
            return match self.options.against.is_empty() {
                true => Ok(Vec::new()),
                false => Err(Failure::usage("this case is about pharos alone: no --against")),
            };
        }
        let mut opponents = self.options.against.clone();
        if opponents.is_empty() {
            opponents = vec![Opponent::Nginx, Opponent::Haproxy, Opponent::Varnish];
        }
        if opponents.contains(&Opponent::Nchan) {
            return Err(Failure::usage("nchan is a peer of the sse cases only"));
        }
        // The floor has no cache to miss in, keeps what it is not told to close, and starts with
        // its answer.
        opponents.retain(|opponent| *opponent != Opponent::Floor);
        if matches!(case, Case::Hit1k | Case::Hit1kPipelined | Case::Hit100k | Case::Hit1kPaced) {
            opponents.push(Opponent::Floor);
        }
        opponents.sort();
        opponents.dedup();
        Ok(opponents)
    }

    /// Pharos for a scene.
    pub(super) fn pharos(&self, scene: &Scene) -> Result<Plan, Failure> {
        let program = pharos::program(self.options.pharos.as_ref(), &self.myself.program);
        let room = pharos::Room { shards: scene.shards, cache_mib: scene.cache_mib };
        pharos::plan(&program, &self.ground, self.options.engine, room)
    }

    /// The ways to set a peer up that are worth trying.
    pub(super) fn ways(&self, opponent: Opponent) -> Result<Vec<Plan>, Failure> {
        match opponent {
            Opponent::Nginx => {
                nginx::Variant::ALL.iter().map(|way| nginx::plan(&self.ground, *way)).collect()
            }
            Opponent::Haproxy => {
                let sizes = haproxy::BUFFER_BYTES.iter();
                sizes.map(|size| haproxy::plan(&self.ground, *size)).collect()
            }
            Opponent::Varnish => Ok(vec![varnish::plan(&self.ground)?]),
            Opponent::Floor => {
                let path = self.ground.folder.path.join("answer");
                Ok(vec![floor::requests(&self.myself, &path)?])
            }
            Opponent::Nchan => Ok(Vec::new()),
        }
    }

    fn start_all(&mut self) -> Result<Vec<Server>, Failure> {
        let mut servers = Vec::new();
        let groups = Scene::of(self.options.case);
        let Some(first) = groups.first() else { return Ok(servers) };
        let mut answer = default_answer(first[0].path, &self.fields);
        if !self.options.without_pharos {
            for scenes in &groups {
                let plan = self.pharos(&scenes[0])?;
                let server = self.start(Who::Pharos, plan, scenes)?;
                if servers.is_empty() {
                    answer = self.capture(&server.peer, first[0].path)?;
                    self.fields = added_fields(&answer);
                }
                servers.push(server);
            }
        }
        let path = self.ground.folder.path.join("answer");
        std::fs::write(&path, &answer)
            .map_err(|error| Failure::error("write the floor's answer").because(error))?;
        for opponent in self.opponents()? {
            servers.extend(self.best(opponent, first)?);
        }
        Ok(servers)
    }

    /// Starts a server and loads it until its cache is warm.
    pub(super) fn start(&self, who: Who, plan: Plan, scenes: &[Scene]) -> Result<Server, Failure> {
        report::talk(&plan.describe());
        let peer = plan.start(&self.ground.folder.path, self.options.server_core, "/bytes/1")?;
        let rows = scenes.iter().map(|scene| Row { scene: *scene, turns: Vec::new() }).collect();
        let server = Server { who, peer, used: Cell::new(0), capacity: Cell::new(None), rows };
        for scene in scenes {
            self.warm(&server, scene)?;
        }
        Ok(server)
    }

    /// Asks for every object of a scene until none is fetched any more.
    fn warm(&self, server: &Server, scene: &Scene) -> Result<(), Failure> {
        self.load(server, scene, WARM, Duration::ZERO)?;
        let (Some(round), true) = (scene.round(), scene.hits && !scene.is_one()) else {
            return Ok(());
        };
        let name = &server.peer.plan.name;
        let (mut without_a_miss, mut asked) = (0, 0);
        for nth in 0..WARM_LOADS_MAX {
            let before = self.origin_count()?;
            let run = self.load(server, scene, WARM_MANY, Duration::ZERO)?;
            let fetched = self.origin_count()? - before;
            asked += run.load.completed;
            without_a_miss = if fetched > 0 { 0 } else { without_a_miss + run.load.completed };
            if without_a_miss >= round {
                return Ok(());
            }
            // What comes round for the third time and is fetched again was evicted.
            if asked > 3 * round && fetched > run.load.completed / 10 {
                break;
            }
            if nth % WARM_TOLD_EACH == WARM_TOLD_EACH - 1 {
                let text = format!("{name}: asked for {asked} of {round} objects, in turn");
                report::talk(&text);
            }
        }
        Err(Failure::timeout(format!("{name} does not keep {round} objects")))
    }

    /// Of several configurations, those that may turn out to cost least in this case: a trial is
    /// too short to tell apart what is close.
    fn best(
        &self,
        opponent: Opponent,
        scenes: &[Scene],
    ) -> Result<impl Iterator<Item = Server>, Failure> {
        let who = Who::Opponent(opponent);
        let ways = self.ways(opponent)?;
        let single = ways.len() == 1;
        let mut tried: Vec<(f64, Server)> = Vec::new();
        for plan in ways {
            let server = self.start(who, plan, scenes)?;
            // The last scene is the hardest on it, or as hard as the others.
            let scene = Scene { share: None, ..scenes[scenes.len() - 1] };
            let cost = match single {
                true => 0.0,
                false => self.turn(&server, &scene, TRY, WARM)?.cpu_us,
            };
            tried.push((cost, server));
        }
        let least = tried.iter().map(|(cost, _)| *cost).fold(f64::INFINITY, f64::min);
        let plays = move |cost: f64| cost <= least * CLOSE;
        for (cost, server) in &tried {
            let verdict = if plays(*cost) { "plays" } else { "is left out" };
            report::talk(&format!("{}: {cost:.2} µs in a trial, {verdict}", server.peer.plan.name));
        }
        Ok(tried.into_iter().filter(move |(cost, _)| plays(*cost)).map(|(_, server)| server))
    }

    /// One measured turn.
    ///
    /// # Errors
    /// A wrong answer, or a hit that was none.
    fn turn(
        &self,
        server: &Server,
        scene: &Scene,
        duration: Duration,
        warm_up: Duration,
    ) -> Result<Turn, Failure> {
        if scene.share.is_some() && server.capacity.get().is_none() {
            let closed = Scene { share: None, ..*scene };
            let run = self.load(server, &closed, duration, warm_up)?;
            server.capacity.set(Some(run.load.answers_per_s));
        }
        let before = self.origin_count()?;
        let run = self.load(server, scene, duration, warm_up)?;
        let asked = self.origin_count()? - before;
        let name = &server.peer.plan.name;
        if scene.hits && asked > 0 {
            let what = format!("{name} asked its origin {asked} times while its cache was warm");
            return Err(Failure::error(what));
        }
        if !scene.hits && asked < run.load.answers {
            let answers = run.load.answers;
            let what = format!("{name} asked its origin {asked} times for {answers} answers");
            return Err(Failure::error(what));
        }
        if server.who == Who::Pharos && scene.hits && run.load.hits != run.load.answers {
            let (hits, answers) = (run.load.hits, run.load.answers);
            return Err(Failure::error(format!("pharos: {hits} of {answers} answers are hits")));
        }
        turn_of(&run)
    }

    fn load(
        &self,
        server: &Server,
        scene: &Scene,
        duration: Duration,
        warm_up: Duration,
    ) -> Result<HttpRun, Failure> {
        let capacity = server.capacity.get();
        let rate = scene.share.zip(capacity).map(|(share, capacity)| share * capacity);
        let connections = self.options.connections();
        let manner = Manner { connections, rate, duration, warm_up };
        let run = self.load_in(server, scene, manner, |_, _| {})?;
        let outstanding = u64::from(connections * scene.pipeline);
        server.used.set(server.used.get() + run.load.completed + outstanding);
        Ok(run)
    }

    /// Loads a server in a manner of its own; `look` as in [`load::run`].
    pub(super) fn load_in(
        &self,
        server: &Server,
        scene: &Scene,
        manner: Manner,
        look: impl FnMut(Phase, u64),
    ) -> Result<HttpRun, Failure> {
        let peer = &server.peer;
        let path = match server.who {
            Who::Pharos | Who::Opponent(Opponent::Floor) => scene.path.to_owned(),
            Who::Opponent(_) => with_fields(scene.path, &self.fields),
        };
        let target = self.target(peer.plan.listen, path);
        let mut fields = vec![format!("Host: {HOST}")];
        if scene.reconnect {
            fields.push("Connection: close".to_owned());
        }
        // The floor answers with a captured body, which is the origin's as well.
        let workload = if scene.is_one() {
            Workload::new(&target, &fields, (1, 0.0, 1), BodyCheck::Origin)?
        } else {
            let numbers = scene.numbers(server.used.get());
            Workload::numbered(&target, &fields, numbers, BodyCheck::Origin)?
        };
        let load = Load {
            to: peer.plan.listen,
            connections: manner.connections,
            pipeline: if manner.rate.is_some() { PACED_PIPELINE } else { scene.pipeline },
            rate: manner.rate,
            reconnect: scene.reconnect,
            warm_up: manner.warm_up,
            duration: manner.duration,
            workload,
        };
        let place = Place { core: Some(self.options.load_core), engine: self.options.load_engine };
        let run = load::run(load, place, Some(peer.pid()), look)?;
        match run.load.errors.total() {
            0 => Ok(run),
            _ => Err(Failure::error(format!("{}: {:?}", peer.plan.name, run.load.errors))),
        }
    }

    fn target(&self, address: SocketAddr, path: String) -> Target {
        Target { address, authority: address.to_string(), path }
    }

    /// A hit of Pharos, byte for byte.
    fn capture(&self, peer: &Peer, path: &str) -> Result<Vec<u8>, Failure> {
        let fields = [format!("Host: {HOST}")];
        let ask = || {
            probe::ask(peer.plan.listen, "GET", path, &fields, &[])
                .map_err(|error| Failure::error("capture a hit of pharos").because(error))
        };
        // Only numbered objects may be there so far: the first answer can be a miss.
        ask()?;
        Ok(ask()?.raw)
    }

    /// How often the origin was asked so far.
    fn origin_count(&self) -> Result<u64, Failure> {
        let failed = || Failure::error("read the origin's counts");
        let answer = probe::ask(self.ground.origin, "GET", "/_counts/total", &[], &[])
            .map_err(|error| failed().because(error))?;
        let counts: Value =
            serde_json::from_slice(&answer.content).map_err(|error| failed().because(error))?;
        counts["total"].as_u64().ok_or_else(failed)
    }
}

/// How many connections, how fast, how long.
#[derive(Clone, Copy)]
pub(super) struct Manner {
    pub(super) connections: u32,
    pub(super) rate: Option<f64>,
    pub(super) duration: Duration,
    pub(super) warm_up: Duration,
}

/// What a load found, as a turn.
///
/// # Errors
/// The server's cost is missing.
pub(super) fn turn_of(run: &HttpRun) -> Result<Turn, Failure> {
    let server = run.server.ok_or_else(|| Failure::error("the server's cost is missing"))?;
    Ok(Turn {
        cpu_us: server.cpu_us_per_answer,
        per_s: run.load.answers_per_s,
        busy: server.busy,
        p50_us: run.load.delay.p50_us,
        p99_us: run.load.delay.p99_us,
        p999_us: run.load.delay.p999_us,
        rss_bytes: server.rss_bytes,
        idle: None,
        errors: run.load.errors,
        streams: None,
    })
}

/// The origin runs in this process, on the core of the load: hits leave it idle.
pub(super) fn start_origin(options: &CompareOptions) -> Result<SocketAddr, Failure> {
    let place = Place { core: Some(options.load_core), engine: EngineChoice::Auto };
    let mut config = place.config(1);
    config.listeners = vec![SocketAddr::from(([127, 0, 0, 1], 0))];
    let running = engine::start(config, |_| Origin::default())
        .map_err(|error| Failure::error("start the origin").because(error))?;
    // It ends with this process.
    running.listeners().first().copied().ok_or_else(|| Failure::error("the origin listens nowhere"))
}

/// The floor's answer when there is no Pharos to capture one from.
fn default_answer(path: &str, fields: &[String]) -> Vec<u8> {
    let body = crate::origin::body::of_path(path).unwrap_or_default();
    let mut head = format!(
        "HTTP/1.1 200 OK\r\nDate: Sun, 06 Nov 1994 08:49:37 GMT\r\n\
         Cache-Control: max-age=86400\r\nContent-Type: application/octet-stream\r\n\
         Content-Length: {}\r\nAge: 1\r\n",
        body.len()
    );
    fields.iter().for_each(|field| head += &format!("{field}\r\n"));
    head += "\r\n";
    [head.into_bytes(), body].concat()
}

fn default_fields() -> Vec<String> {
    [
        "Via: 1.1 bench",
        "X-Cache-Status: HIT",
        "Cache-Status: bench; hit; ttl=3600",
        "X-Request-Id: 0123456789abcdef0123456789abcdef",
    ]
    .map(str::to_owned)
    .to_vec()
}

/// Those fields of a captured answer that Pharos added. `Age` is not among them: a cache adds its
/// own.
fn added_fields(answer: &[u8]) -> Vec<String> {
    let text = String::from_utf8_lossy(answer);
    let head = text.split("\r\n\r\n").next().unwrap_or_default();
    let added = |line: &&str| {
        line.split_once(':')
            .is_some_and(|(name, _)| ADDED.iter().any(|added| name.eq_ignore_ascii_case(added)))
    };
    head.lines().skip(1).filter(added).map(str::to_owned).collect()
}

/// A path of the origin with orders to send these fields.
fn with_fields(path: &str, fields: &[String]) -> String {
    fields.iter().fold(path.to_owned(), |path, field| {
        let encoded: String = field
            .bytes()
            .map(|byte| match byte {
                b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' => {
                    char::from(byte).to_string()
                }
                other => format!("%{other:02x}"),
            })
            .collect();
        format!("{path}&field={encoded}")
    })
}

const ADDED: [&str; 4] = ["Via", "X-Cache-Status", "Cache-Status", "X-Request-Id"];
/// Load that fills a cache before anything is measured.
const WARM: Duration = Duration::from_millis(300);
/// Load between two looks at whether a large set is warm.
const WARM_MANY: Duration = Duration::from_secs(2);
/// Ten minutes of it.
const WARM_LOADS_MAX: u32 = 300;
/// So many loads between two words of how far it is.
const WARM_TOLD_EACH: u32 = 5;
/// Requests outstanding on one connection of an open loop: a late answer holds the next ones up as
/// little as it would on connections of their own.
const PACED_PIPELINE: u32 = 1;
/// Trial of one configuration.
const TRY: Duration = Duration::from_secs(1);
/// Times the least cost of a trial, beyond which a configuration is left out.
const CLOSE: f64 = 1.4;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn peers_are_sent_the_fields_that_pharos_added() {
        let answer = default_answer("/bytes/10", &default_fields());
        let fields = added_fields(&answer);
        assert_eq!(fields, default_fields());
        let path = with_fields("/bytes/10?max_age=1", &fields[..1]);
        assert_eq!(path, "/bytes/10?max_age=1&field=Via%3a%201.1%20bench");
    }
}
