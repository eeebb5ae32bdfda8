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
    let folder = Folder::new(options.keep)?;
    let origin = start_origin(options)?;
    let descriptors = descriptor_limit()
        .map_err(|error| Failure::error("read the descriptor limit").because(error))?;
    let ground =
        Ground { folder: folder.path.clone(), origin, sockets: options.connections, descriptors };
    let mut arena = Arena { options, ground, fields: default_fields() };
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
            version: self.peer.plan.version(),
            plan: self.peer.plan.describe(),
            choice: self.peer.plan.choice.clone(),
            turns: self.turns,
        }
    }
}

struct Arena<'a> {
    options: &'a CompareOptions,
    ground: Ground,
    /// What Pharos adds to a response. For the other caches the origin sends these fields, so that
    /// all answers have the same ones, and storing them is all that a peer has to do.
    fields: Vec<String>,
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

    fn start_all(&mut self) -> Result<Vec<Server>, Failure> {
        let mut servers = Vec::new();
        let myself = Myself::called_for("compare")?;
        let mut answer = default_answer(self.shape().0, &self.fields);
        if !self.options.without_pharos {
            let program = pharos::program(self.options.pharos.as_ref(), &myself.program);
            let plan = pharos::plan(&program, &self.ground, self.options.engine)?;
            let server = self.start(Who::Pharos, plan)?;
            answer = self.capture(&server.peer)?;
            self.fields = added_fields(&answer);
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
        self.load(who, &peer, WARM, Duration::ZERO)?;
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
        let run = self.load(who, peer, duration, warm_up)?;
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

    fn load(
        &self,
        who: Who,
        peer: &Peer,
        duration: Duration,
        warm_up: Duration,
    ) -> Result<HttpRun, Failure> {
        let (path, pipeline) = self.shape();
        let path = match who {
            Who::Pharos | Who::Opponent(Opponent::Floor) => path.to_owned(),
            Who::Opponent(_) => with_fields(path, &self.fields),
        };
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

    fn target(&self, address: SocketAddr, path: String) -> Target {
        Target { address, authority: address.to_string(), path }
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
/// Longest trial of one configuration.
const TRY_MAX: Duration = Duration::from_secs(2);

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
