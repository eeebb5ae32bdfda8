//! The cases of streams: each server holds them in a process of its own that is started for the
//! turn, so that memory is counted from the same beginning; then a few events go to all of them.

use std::{net::SocketAddr, time::Duration};

use indicatif::{ProgressBar, ProgressStyle};

use crate::{
    command::within,
    compare::{Contender, Turn, Who},
    failure::Failure,
    generator::Errors,
    limits::STREAMS_MAX,
    load::Place,
    options::{CompareOptions, Opponent},
    peer::{
        Folder, Ground, Peer, Plan,
        floor::{self, Myself},
        nchan,
        pharos::{self, Control, PAGE},
    },
    process::descriptor_limit,
    report,
    streams::{
        self, Holding,
        found::{FanOut, SseRun},
    },
    subscriber::publisher::Publish,
    target::Target,
};

/// Runs all rounds.
pub(super) fn run(options: &CompareOptions) -> Result<Vec<Contender>, Failure> {
    within("--streams", u64::from(options.streams()), u64::from(STREAMS_MAX))?;
    let folder = Folder::new(options.keep)?;
    let descriptors = descriptor_limit()
        .map_err(|error| Failure::error("read the descriptor limit").because(error))?;
    let ground = Ground {
        folder,
        // No server of this case has an origin.
        origin: SocketAddr::from(([127, 0, 0, 1], 9)),
        sockets: options.streams(),
        descriptors,
    };
    let mut arena = Arena {
        options,
        ground,
        myself: Myself::called_for("compare")?,
        data_bytes: DATA_BYTES,
        bar: ProgressBar::new(u64::from(options.streams())),
    };
    if let Ok(style) =
        ProgressStyle::with_template("{prefix:10} {pos}/{len} streams {wide_bar} {msg}")
    {
        arena.bar.set_style(style);
    }
    let mut contenders: Vec<Contender> = Vec::new();
    for _ in 0..options.rounds {
        for who in arena.contenders()? {
            let (turn, plan) = arena.turn(who)?;
            match contenders.iter_mut().find(|contender| contender.who == who) {
                Some(contender) => contender.turns.push(turn),
                None => contenders.push(Contender {
                    who,
                    scene: "",
                    version: plan.version(),
                    plan: plan.describe(),
                    choice: plan.choice,
                    turns: vec![turn],
                }),
            }
        }
    }
    arena.bar.finish_and_clear();
    Ok(contenders)
}

struct Arena<'a> {
    options: &'a CompareOptions,
    ground: Ground,
    myself: Myself,
    /// Length of an event's data: that of Pharos's events, for the others to send as much.
    data_bytes: u64,
    bar: ProgressBar,
}

/// Where streams are opened and events published.
struct Doors {
    stream: Target,
    publish: Target,
    fields: Vec<String>,
    body: String,
}

impl Arena<'_> {
    /// Pharos first: the others send events of the same length.
    fn contenders(&self) -> Result<Vec<Who>, Failure> {
        let mut opponents = self.options.against.clone();
        if opponents.is_empty() {
            opponents = vec![Opponent::Nchan];
        }
        opponents.push(Opponent::Floor);
        opponents.sort();
        opponents.dedup();
        let knows = |opponent: &&Opponent| !matches!(opponent, Opponent::Floor | Opponent::Nchan);
        if let Some(other) = opponents.iter().find(knows) {
            let name = Who::Opponent(*other).name();
            return Err(Failure::usage(format!("{name} has no event streams: --against nchan")));
        }
        let pharos = (!self.options.without_pharos).then_some(Who::Pharos);
        Ok(pharos.into_iter().chain(opponents.into_iter().map(Who::Opponent)).collect())
    }

    /// Starts a server, loads it, stops it.
    fn turn(&mut self, who: Who) -> Result<(Turn, Plan), Failure> {
        self.bar.set_prefix(who.name());
        let core = self.options.server_core;
        let folder = self.ground.folder.path.clone();
        let (peer, doors, control) = match who {
            Who::Pharos => {
                let program = pharos::program(self.options.pharos.as_ref(), &self.myself.program);
                let control = Control::start(&program, &self.ground, self.options.load_core)?;
                let plan = control.edge(&program, &self.ground, self.options.engine)?;
                let peer = plan.start(&folder, core, "/")?;
                pharos::wait_for_page(&peer)?;
                let doors = pharos_doors(&peer, &control);
                (peer, doors, Some(control))
            }
            Who::Opponent(Opponent::Nchan) => {
                let peer = nchan::plan(&self.ground)?.start(&folder, core, "/ready")?;
                let doors = self.plain_doors(&peer);
                (peer, doors, None)
            }
            Who::Opponent(_) => {
                let answer = folder.join("stream");
                std::fs::write(&answer, STREAM_HEAD)
                    .map_err(|error| Failure::error("write the floor's answer").because(error))?;
                let plan = floor::fanout(&self.myself, &self.ground, &answer)?;
                let peer = plan.start(&folder, core, "/ready")?;
                let doors = self.plain_doors(&peer);
                (peer, doors, None)
            }
        };
        let run = self.hold(&peer, doors)?;
        if who == Who::Pharos && run.deliveries > 0 {
            self.data_bytes = run.data_bytes / run.deliveries;
        }
        let plan = peer.plan.clone();
        drop(peer);
        drop(control);
        // A new control begins with nothing, whatever the last one left.
        let _ = std::fs::remove_dir_all(folder.join("pharos-control"));
        let turn = self.judge(who, run)?;
        Ok((turn, plan))
    }

    fn hold(&self, peer: &Peer, doors: Doors) -> Result<SseRun, Failure> {
        report::talk(&peer.plan.describe());
        // At 25 µs a delivery, three times what any server here needs, an event is through.
        let every = Duration::from_micros(u64::from(self.options.streams()) * 25).max(EVERY_MIN);
        let holding = Holding {
            hold: every * self.options.publishes,
            publish: Some(Publish {
                to: doors.publish,
                fields: doors.fields,
                body: doors.body,
                every,
                count: self.options.publishes,
                topics: 1,
                lines: 1,
            }),
            reading: self.options.read.into(),
            server: Some(peer.pid()),
            ..Holding::new(doors.stream, self.options.streams())
        };
        let place = Place { core: Some(self.options.load_core), engine: self.options.load_engine };
        streams::run(&holding, place, |open, deliveries| {
            self.bar.set_position(u64::from(open));
            self.bar.set_message(format!("{deliveries} deliveries"));
        })
    }

    fn judge(&self, who: Who, run: SseRun) -> Result<Turn, Failure> {
        let expected = u64::from(run.readers()) * u64::from(self.options.publishes);
        if run.faults_total() > 0 || run.deliveries < expected {
            return Err(Failure::error(format!(
                "{}: {} of {expected} deliveries, {} lost, {} missing, {:?}, {} publishes failed",
                who.name(),
                run.deliveries,
                run.lost,
                run.missing,
                run.faults,
                run.publish_failed
            )));
        }
        turn_of(run, |fan_out| {
            let per_s = fan_out.deliveries_per_s;
            (per_s, per_s * fan_out.cpu_us_per_delivery / 1e6)
        })
    }

    fn plain_doors(&self, peer: &Peer) -> Doors {
        let at = |path: &str| Target {
            address: peer.plan.listen,
            authority: peer.plan.listen.to_string(),
            path: path.to_owned(),
        };
        let body = "x".repeat(usize::try_from(self.data_bytes).unwrap_or(0).max(1));
        Doors { stream: at("/sub/bench"), publish: at("/pub/bench"), fields: Vec::new(), body }
    }
}

/// A turn of what `run` measured; `pace` says how many deliveries a second and how much of a core.
pub(super) fn turn_of(
    run: SseRun,
    pace: impl FnOnce(&FanOut) -> (f64, f64),
) -> Result<Turn, Failure> {
    let fan_out =
        run.fan_out.as_ref().ok_or_else(|| Failure::error("the server's cost is missing"))?;
    let (per_s, busy) = pace(fan_out);
    Ok(Turn {
        cpu_us: fan_out.cpu_us_per_delivery,
        per_s,
        busy,
        p50_us: run.delay.p50_us,
        p99_us: run.delay.p99_us,
        p999_us: run.delay.p999_us,
        idle: None,
        rss_bytes: run.memory.as_ref().map_or(0, |memory| memory.rss_all_bytes),
        errors: Errors::default(),
        streams: Some(run),
    })
}

fn pharos_doors(edge: &Peer, control: &Control) -> Doors {
    let at = |address: SocketAddr, path: String| Target {
        address,
        authority: address.to_string(),
        path,
    };
    let incident = r#"{"title":"Bench {n}","status":"investigating","message":"Number {n}",
        "components":{"api":"partial_outage"}}"#;
    Doors {
        stream: at(edge.plan.listen, format!("/{PAGE}/events")),
        publish: at(control.address, format!("/v1/pages/{PAGE}/incidents")),
        fields: control.fields(),
        body: incident.to_owned(),
    }
}

/// What the floor opens a stream with.
const STREAM_HEAD: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\
    Cache-Control: no-cache, no-transform\r\nX-Accel-Buffering: no\r\n\
    Transfer-Encoding: chunked\r\n\r\n";
/// Length of an event's data when no Pharos says another.
const DATA_BYTES: u64 = 100;
const EVERY_MIN: Duration = Duration::from_secs(2);
