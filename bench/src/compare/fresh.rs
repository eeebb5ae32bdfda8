//! The cases that need a server of their own each turn: what idle connections take of a process
//! that held none before, and how long a program takes from its start to its first hit.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

use crate::{
    clock,
    compare::{
        Contender, IdleMemory, Turn, Who,
        requests::{Arena, Manner, Server, turn_of},
        scene::Scene,
    },
    failure::Failure,
    generator::{Errors, Phase},
    options::{Case, CompareOptions, Opponent},
    peer::{HOST, Plan},
    probe,
    process::{CpuMeter, Slab, rss_bytes},
};

/// Runs all rounds.
pub(super) fn run(options: &CompareOptions) -> Result<Vec<Contender>, Failure> {
    let arena = Arena::new(options)?;
    let scene = Scene::of(options.case).concat().first().copied();
    let scene = scene.ok_or_else(|| Failure::error("the case has no scene"))?;
    let mut who: Vec<Who> = arena.opponents()?.into_iter().map(Who::Opponent).collect();
    if !options.without_pharos {
        who.insert(0, Who::Pharos);
    }
    let bar = ProgressBar::new(u64::from(options.rounds) * who.len() as u64);
    if let Ok(style) = ProgressStyle::with_template("{msg:10} {wide_bar} {pos}/{len} turns, {eta}")
    {
        bar.set_style(style);
    }
    let mut contenders: Vec<Contender> = Vec::new();
    for _ in 0..options.rounds {
        for &who in &who {
            bar.set_message(who.name());
            let plan = plan(&arena, who, &scene)?;
            let (version, text) = (plan.version(), plan.describe());
            let choice = plan.choice.clone();
            let turn = match options.case {
                Case::Restart1k => restart(&arena, plan, &scene)?,
                _ => idle(&arena, who, plan, &scene)?,
            };
            match contenders.iter_mut().find(|contender| contender.who == who) {
                Some(contender) => contender.turns.push(turn),
                None => contenders.push(Contender {
                    who,
                    scene: "",
                    version,
                    plan: text,
                    choice,
                    turns: vec![turn],
                }),
            }
            bar.inc(1);
        }
    }
    bar.finish_and_clear();
    Ok(contenders)
}

/// The first way to set a server up: neither memory of an idle connection nor a start depends on
/// what the others differ in.
fn plan(arena: &Arena<'_>, who: Who, scene: &Scene) -> Result<Plan, Failure> {
    match who {
        Who::Pharos => arena.pharos(scene),
        Who::Opponent(opponent) => arena
            .ways(opponent)?
            .into_iter()
            .find(|_| opponent != Opponent::Floor)
            .ok_or_else(|| Failure::usage(format!("{} does not play this case", who.name()))),
    }
}

/// Each connection has an answer, then they wait. Pace and length are such that each has its turn.
fn idle(arena: &Arena<'_>, who: Who, plan: Plan, scene: &Scene) -> Result<Turn, Failure> {
    let server = arena.start(who, plan, &[*scene])?;
    let many = arena.options.connections();
    let few = FEW.min(many / 2).max(1);
    let before = hold(arena, &server, scene, few)?;
    let after = hold(arena, &server, scene, many)?;
    let added = f64::from(many - few);
    let kernel = before.2.zip(after.2).map(|(before, after)| after.growth(&before).0);
    let mut turn = after.0;
    turn.idle = Some(IdleMemory {
        user_bytes: (after.1 as f64 - before.1 as f64) / added,
        // Both ends are on this machine.
        kernel_bytes: kernel.map(|bytes| bytes as f64 / 2.0 / added),
    });
    Ok(turn)
}

/// Load of so many connections, and memory while they are open.
fn hold(
    arena: &Arena<'_>,
    server: &Server,
    scene: &Scene,
    connections: u32,
) -> Result<(Turn, u64, Option<Slab>), Failure> {
    let rate = f64::from(connections) / arena.options.duration.as_secs_f64().max(0.1) * TURNS;
    let manner = Manner {
        connections,
        rate: Some(rate),
        duration: arena.options.duration,
        warm_up: arena.options.warm_up,
    };
    let (mut slab, mut looked) = (None, clock::now());
    let run = arena.load_in(server, scene, manner, |phase, _| {
        if phase == Phase::Measuring && looked.elapsed() >= LOOK_AT_SLAB {
            (slab, looked) = (Slab::read().ok(), clock::now());
        }
    })?;
    let turn = turn_of(&run)?;
    Ok((turn.clone(), turn.rss_bytes, slab))
}

/// From starting the program to the first answer that it has from its cache.
fn restart(arena: &Arena<'_>, plan: Plan, scene: &Scene) -> Result<Turn, Failure> {
    let begin = clock::now();
    let peer = plan.spawn(&arena.ground.folder.path, arena.options.server_core)?;
    let fields = [format!("Host: {HOST}")];
    let mut answers = 0;
    let hit = clock::wait_for(LOOK, START_MAX, || {
        // The second answer is from the cache; the first may have filled it.
        answers += u32::from(
            probe::ask(peer.plan.listen, "GET", scene.path, &fields, &[])
                .is_ok_and(|answer| answer.head.status == 200),
        );
        answers == 2
    });
    let took = begin.elapsed();
    if !hit {
        return Err(Failure::timeout(format!("{} did not answer twice", peer.plan.name)));
    }
    let failed = |error| Failure::error("read the server's cost").because(error);
    let cpu_ns = CpuMeter::new(peer.pid()).read_ns().map_err(failed)?;
    let took_us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
    Ok(Turn {
        cpu_us: cpu_ns as f64 / 1e3,
        per_s: 1.0 / took.as_secs_f64(),
        busy: cpu_ns as f64 / took.as_nanos() as f64,
        p50_us: took_us,
        p99_us: took_us,
        p999_us: took_us,
        rss_bytes: rss_bytes(peer.pid()).map_err(failed)?,
        idle: None,
        errors: Errors::default(),
        streams: None,
    })
}

/// Connections whose memory is taken as the beginning.
const FEW: u32 = 100;
/// Requests of each connection in a turn.
const TURNS: f64 = 2.0;
/// Pause between two attempts at a starting server.
const LOOK: Duration = Duration::from_millis(1);
/// Pause between two looks at the kernel's memory: the last one counts.
const LOOK_AT_SLAB: Duration = Duration::from_millis(400);
const START_MAX: Duration = Duration::from_secs(20);
