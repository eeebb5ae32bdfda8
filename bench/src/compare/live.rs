//! The cases of Pharos's own streams: many topics at a rate, requests beside a fan-out, streams
//! that stop reading. Each row has a control and an edge of its own, with a site whose streams and
//! cached objects it serves.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU8, Ordering},
    },
    thread,
    time::Duration,
};

use serde_json::{Value, json};

use crate::{
    clock,
    command::within,
    compare::{Contender, Turn, Who, requests},
    failure::Failure,
    generator::Load,
    limits::{STREAMS_MAX, TOPICS_MAX},
    load::{self, Place},
    options::{BodyCheck, Case, CompareOptions},
    peer::{
        Folder, Ground, HOST, Peer,
        floor::Myself,
        pharos::{self, Control},
    },
    probe,
    process::descriptor_limit,
    report,
    streams::{
        self, Holding, PHASE_EVENTS, PHASE_OPEN, Reading,
        found::{FanOut, SseRun},
    },
    subscriber::publisher::Publish,
    target::Target,
    workload::Workload,
};

/// Runs all rounds.
pub(super) fn run(options: &CompareOptions) -> Result<Vec<Contender>, Failure> {
    let arena = Arena::new(options)?;
    let mut contenders: Vec<Contender> = Vec::new();
    for _ in 0..options.rounds {
        let turns = match options.case {
            Case::SseTopics => vec![arena.topics()?],
            Case::SseBeside => arena.beside()?,
            _ => arena.slow()?,
        };
        for (scene, turn, edge, choice) in turns {
            match contenders.iter_mut().find(|contender| contender.scene == scene) {
                Some(contender) => contender.turns.push(turn),
                None => contenders.push(Contender {
                    who: Who::Pharos,
                    scene,
                    version: edge.version(),
                    plan: edge.describe(),
                    choice,
                    turns: vec![turn],
                }),
            }
        }
    }
    Ok(contenders)
}

/// A row: its scene, its turn, the edge that played it, what is to be said of it.
type Row = (&'static str, Turn, crate::peer::Plan, String);

struct Arena<'a> {
    options: &'a CompareOptions,
    ground: Ground,
    myself: Myself,
    streams: u32,
}

/// Control and an edge that serves the site.
pub(super) struct Stage {
    pub(super) edge: Peer,
    pub(super) admin: SocketAddr,
    pub(super) control: Control,
}

impl Stage {
    /// Starts both, and waits until the site with these routes is served.
    pub(super) fn start(
        options: &CompareOptions,
        ground: &Ground,
        myself: &Myself,
        routes: &Value,
    ) -> Result<Self, Failure> {
        let program = pharos::program(options.pharos.as_ref(), &myself.program);
        // A new control begins with nothing, whatever the last one left.
        let _ = std::fs::remove_dir_all(ground.folder.path.join("pharos-control"));
        let control = Control::start(&program, ground, options.load_core)?;
        control.post(
            "/v1/sites",
            &json!({
                "name": SITE, "hosts": [HOST],
                "origins": [{ "url": format!("http://{}", ground.origin) }],
                "routes": routes,
            }),
        )?;
        let plan = control.edge(&program, ground, options.engine)?;
        let admin = plan.admin().ok_or_else(|| Failure::error("the edge has no admin address"))?;
        let edge = plan.start(&ground.folder.path, options.server_core, "/")?;
        let fields = [format!("Host: {HOST}")];
        let mut in_a_row = 0;
        let served = clock::wait_for(Duration::from_millis(20), START_MAX, || {
            // Shards learn of the site one after the other.
            let answer = probe::ask(edge.plan.listen, "GET", OBJECT, &fields, &[]);
            in_a_row = if answer.is_ok_and(|it| it.head.status == 200) { in_a_row + 1 } else { 0 };
            in_a_row > 16
        });
        if served {
            Ok(Self { edge, admin, control })
        } else {
            Err(Failure::timeout("the edge does not serve the site"))
        }
    }
}

impl<'a> Arena<'a> {
    fn new(options: &'a CompareOptions) -> Result<Self, Failure> {
        if options.without_pharos || !options.against.is_empty() {
            return Err(Failure::usage("this case is about pharos alone: no --against"));
        }
        let streams = options.streams.unwrap_or(match options.case {
            Case::SseTopics => options.topics.saturating_mul(STREAMS_A_TOPIC),
            Case::SseBeside => 20_000,
            _ => 500,
        });
        within("--streams", u64::from(streams), u64::from(STREAMS_MAX))?;
        within("--topics", u64::from(options.topics), u64::from(TOPICS_MAX))?;
        let descriptors = descriptor_limit()
            .map_err(|error| Failure::error("read the descriptor limit").because(error))?;
        let origin = requests::start_origin(options)?;
        let folder = Folder::new(options.keep)?;
        let ground = Ground { folder, origin, sockets: streams, descriptors };
        Ok(Self { options, ground, myself: Myself::called_for("compare")?, streams })
    }

    /// Starts both, with this policy for slow streams, and waits until the site is served.
    fn start(&self, slow: &str) -> Result<Stage, Failure> {
        let routes = json!([{ "prefix": "/live/", "policy": "stream",
                              "stream": { "topics": ["*"], "slow": slow } }]);
        Stage::start(self.options, &self.ground, &self.myself, &routes)
    }

    fn holding(&self, stage: &Stage, topics: u32, every: Duration, count: u32) -> Holding {
        let at = |address: SocketAddr, path: &str| Target {
            address,
            authority: address.to_string(),
            path: path.to_owned(),
        };
        Holding {
            fields: vec![format!("Host: {HOST}")],
            topics,
            hold: every * count,
            publish: Some(Publish {
                to: at(stage.control.address, "/v1/topics/t{t}/events"),
                fields: stage.control.fields(),
                body: r#"{"data":{"n":{n}}}"#.into(),
                every,
                count,
                topics,
                lines: LINES,
            }),
            server: Some(stage.edge.pid()),
            ..Holding::new(at(stage.edge.plan.listen, "/live/t{t}"), self.streams)
        }
    }

    fn place(&self) -> Place {
        Place { core: Some(self.options.load_core), engine: self.options.load_engine }
    }

    /// Many topics with some streams each, events at a rate.
    fn topics(&self) -> Result<Row, Failure> {
        let stage = self.start("follow")?;
        let every = Duration::from_secs_f64(1.0 / self.options.rate.max(0.001));
        let count = self.options.duration.as_secs_f64() * self.options.rate;
        // Saturates.
        let holding = self.holding(&stage, self.options.topics, every, (count as u32).max(1));
        let run = streams::run(&holding, self.place(), |_, _| {})?;
        let choice = format!(
            "{} topics, {} streams, {} events at {}/s, each sent {} after it was to be",
            run.topics, run.streams, run.published, self.options.rate, run.publish_late
        );
        let turn = turn_of(run)?;
        Ok(("", turn, stage.edge.plan.clone(), choice))
    }

    /// Streams of which one in a hundred stops reading, policy by policy, and none as a measure.
    fn slow(&self) -> Result<Vec<Row>, Failure> {
        let mut rows = Vec::new();
        for (scene, policy, stall_every) in SLOW_SCENES {
            let stage = self.start(policy)?;
            let mut holding = self.holding(&stage, 1, SLOW_EVERY, SLOW_EVENTS);
            holding.stall_every = stall_every;
            if let Some(publish) = &mut holding.publish {
                let pad = "x".repeat(SLOW_BYTES);
                publish.body = format!(r#"{{"key":"k","data":{{"n":{{n}},"pad":"{pad}"}}}}"#);
            }
            let run = streams::run(&holding, self.place(), |_, _| {})?;
            let fell_behind = format!("pharos_streams_slow_total{{policy=\"{policy}\"}}");
            let fell_behind = metric(stage.admin, &fell_behind)?;
            if stall_every > 0 && fell_behind == 0 {
                return Err(Failure::error("streams that do not read never fell behind"));
            }
            let resident = |sample: &streams::watch::Sample| sample.rss_bytes;
            let most = run.samples.iter().filter_map(resident).max().unwrap_or(0);
            let before = run.memory.as_ref().map_or(0, |memory| memory.rss_all_bytes);
            let choice = format!(
                "{} of {} streams read nothing; fell behind {fell_behind} times; resident {:.1} \
                 MiB before the events, {:.1} at most",
                run.stalled,
                run.streams,
                before as f64 / f64::from(1 << 20),
                most as f64 / f64::from(1 << 20)
            );
            rows.push((scene, turn_of(run)?, stage.edge.plan.clone(), choice));
        }
        Ok(rows)
    }

    /// Ordinary cached requests while all streams are silent, then while events go out to all of
    /// them, one after the other. The streams read at the end: the load's core is the requests'.
    fn beside(&self) -> Result<Vec<Row>, Failure> {
        let stage = self.start("follow")?;
        let one = self.options.warm_up + self.options.duration + APART;
        let every = (Duration::from_micros(12) * self.streams).max(Duration::from_millis(100));
        let count = u32::try_from(one.as_nanos() / every.as_nanos()).unwrap_or(1).max(1);
        let phase = Arc::new(AtomicU8::new(0));
        let holding = Holding {
            quiet: one,
            reading: Reading::AtEnd,
            phase: Some(phase.clone()),
            ..self.holding(&stage, 1, every, count)
        };
        let place = self.place();
        let (idle, during, longest, run) = thread::scope(|scope| {
            let body = || streams::run(&holding, place, |_, _| {});
            let held = thread::Builder::new().name("streams".into()).spawn_scoped(scope, body);
            let held = held.map_err(|error| Failure::error("hold the streams").because(error))?;
            // Streams that have failed reach nothing more, and say why when they are joined.
            let reach = |wanted: u8| {
                let reached = || phase.load(Ordering::Acquire) >= wanted;
                clock::wait_for(LOOK, PHASE_MAX, || reached() || held.is_finished());
                match reached() {
                    true => Ok(()),
                    false => Err(Failure::timeout("the streams do not get on")),
                }
            };
            let turns = (|| {
                reach(PHASE_OPEN)?;
                let idle = self.requests(&stage)?;
                let before = metric(stage.admin, LONGEST)?;
                reach(PHASE_EVENTS)?;
                let during = self.requests(&stage)?;
                Ok::<_, Failure>((idle, during, (before, metric(stage.admin, LONGEST)?)))
            })();
            let run =
                held.join().map_err(|_| Failure::error("hold the streams: it panicked"))??;
            let (idle, during, longest) = turns?;
            Ok::<_, Failure>((idle, during, longest, run))
        })?;
        let turn = turn_of(run.clone())?;
        let added_ms = (during.p99_us as f64 - idle.p99_us as f64) / 1e3;
        let choice = format!(
            "99 % {added_ms:+.3} ms against silence; {} events to {} streams, {:.2} µs of CPU a \
             delivery with the requests'; longest turn {} µs before them, {} with them",
            run.published, run.streams, turn.cpu_us, longest.0, longest.1
        );
        report::talk(&choice);
        let silent = "streams are silent".to_owned();
        let plan = || stage.edge.plan.clone();
        Ok(vec![("idle", idle, plan(), silent), ("during", during, plan(), choice)])
    }

    /// Requests for one cached object at a pace that leaves the server idle most of the time.
    fn requests(&self, stage: &Stage) -> Result<Turn, Failure> {
        let address = stage.edge.plan.listen;
        let target = Target { address, authority: address.to_string(), path: OBJECT.to_owned() };
        let fields = [format!("Host: {HOST}")];
        let load = Load {
            to: address,
            connections: self.options.connections(),
            pipeline: 1,
            rate: Some(self.options.rate),
            reconnect: false,
            warm_up: self.options.warm_up,
            duration: self.options.duration,
            workload: Workload::new(&target, &fields, (1, 0.0, 1), BodyCheck::Origin)?,
        };
        let run = load::run(load, self.place(), Some(stage.edge.pid()), |_, _| {})?;
        match run.load.errors.total() {
            0 => requests::turn_of(&run),
            _ => Err(Failure::error(format!("requests beside streams: {:?}", run.load.errors))),
        }
    }
}

/// A turn of streams that found no fault.
fn turn_of(run: SseRun) -> Result<Turn, Failure> {
    let a_topic = u64::from(run.readers() / run.topics.max(1));
    let expected = u64::from(run.published) * a_topic;
    if run.faults_total() > 0 || run.deliveries < expected {
        return Err(Failure::error(format!(
            "{} of {expected} deliveries, {} lost, {} missing, {} unseen, {} gaps, {:?}, {} \
             publishes failed",
            run.deliveries,
            run.lost,
            run.missing,
            run.unseen,
            run.gaps,
            run.faults,
            run.publish_failed
        )));
    }
    let held_s = run.held_s.max(1e-3);
    let per_s = run.deliveries as f64 / held_s;
    let cpu_s = |fan_out: &FanOut| fan_out.cpu_ns as f64 / 1e9;
    super::streams::turn_of(run, |fan_out| (per_s, cpu_s(fan_out) / held_s))
}

/// A metric of an edge, by its name with labels.
pub(super) fn metric(admin: SocketAddr, name: &str) -> Result<u64, Failure> {
    let answer = probe::ask(admin, "GET", "/metrics", &[], &[])
        .map_err(|error| Failure::error("read the edge's metrics").because(error))?;
    let text = String::from_utf8_lossy(&answer.content).into_owned();
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    line.and_then(|value| value.trim().parse().ok())
        .ok_or_else(|| Failure::error(format!("the edge has no metric {name}")))
}

/// Name of the site, and what the load asks of it.
pub(super) const SITE: &str = "bench";
pub(super) const OBJECT: &str = "/bytes/1024?max_age=86400";
const LONGEST: &str = "pharos_turn_longest_us";
const STREAMS_A_TOPIC: u32 = 100;
/// Connections to publish over: at 1,000 events a second some are under way at a time.
const LINES: u32 = 32;
/// Scene, policy, and one in how many stops reading.
const SLOW_SCENES: [(&str, &str, u32); 5] = [
    ("all read", "follow", 0),
    ("follow", "follow", 100),
    ("conflate", "conflate", 100),
    ("skip", "skip", 100),
    ("disconnect", "disconnect", 100),
];
/// Together more than a socket holds on both ends; a history holds three seconds of them, so that
/// who reads at all does not fall out of it.
const SLOW_BYTES: usize = 16 * 1024;
const SLOW_EVENTS: u32 = 300;
const SLOW_EVERY: Duration = Duration::from_millis(100);
/// Room for what surrounds a load.
const APART: Duration = Duration::from_secs(4);
const LOOK: Duration = Duration::from_millis(5);
const START_MAX: Duration = Duration::from_secs(20);
const PHASE_MAX: Duration = Duration::from_secs(600);
