//! The case of a large purge: an edge stores many entries that share a surrogate key, answers hits
//! of another object at a fixed rate, and is told by control to purge the key.
//!
//! ```text
//! a round: fill ─▶ purge, to learn how long it takes ─▶ memory is back ─▶ fill
//!          ─▶ load while an old receipt is asked for
//!          ─▶ load for as long as a purge takes, and the purge
//! ```
//!
//! The second load measures nothing but the time of the purge, so that its delays are not thinned
//! out by those of a calm edge; the first has the same receipts asked for beside it.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Duration,
};

use serde_json::{Value, json};

use crate::{
    clock,
    compare::{
        Contender, Turn, Verdict, Who,
        live::{OBJECT, SITE, Stage, metric},
        requests,
    },
    failure::Failure,
    generator::{Load, Phase},
    load::{self, HttpRun, Place},
    options::{BodyCheck, CompareOptions},
    peer::{Folder, Ground, HOST, floor::Myself},
    probe,
    process::{descriptor_limit, rss_bytes},
    record::Spread,
    target::Target,
    workload::{Numbers, Workload},
};

/// Runs all rounds, and judges receipt, delays and memory.
pub(super) fn run(
    options: &CompareOptions,
    verdicts: &mut Vec<Verdict>,
) -> Result<Vec<Contender>, Failure> {
    if options.without_pharos || !options.against.is_empty() {
        return Err(Failure::usage("this case is about pharos alone: no --against"));
    }
    let descriptors = descriptor_limit()
        .map_err(|error| Failure::error("read the descriptor limit").because(error))?;
    let origin = requests::start_origin(options)?;
    let folder = Folder::new(options.keep)?;
    let ground = Ground { folder, origin, sockets: options.connections(), descriptors };
    let myself = Myself::called_for("compare")?;
    let stage = Stage::start(options, &ground, &myself, &json!([]))?;
    let arena = Arena { options, stage };
    let rounds =
        (0..options.rounds).map(|_| arena.round()).collect::<Result<Vec<Round>, Failure>>()?;
    let of = |value: fn(&Round) -> f64| {
        let values: Vec<f64> = rounds.iter().map(value).collect();
        Spread::of(&values).ok_or_else(|| Failure::error("a round measured nothing"))
    };
    let ratio = of(|round| round.during.p99_us as f64 / round.before.p99_us.max(1) as f64)?;
    for (what, max, found) in [
        ("seconds to the receipt", RECEIPT_S_MAX, of(|round| round.receipt.as_secs_f64())?),
        ("99 % of delays ÷ before the purge", P99_RATIO_MAX, ratio),
        ("accounted memory that is left of the purged", LEFT_MAX, of(|round| round.left)?),
        ("resident memory filled again ÷ filled", REFILLED_MAX, of(|round| round.refilled())?),
    ] {
        verdicts.push(Verdict::of(what.to_owned(), max, found));
    }
    let plan = &arena.stage.edge.plan;
    let row = |scene, turn: fn(&Round) -> &Turn, choice: String| Contender {
        who: Who::Pharos,
        scene,
        version: plan.version(),
        plan: plan.describe(),
        choice,
        turns: rounds.iter().map(|round| turn(round).clone()).collect(),
    };
    let told: Vec<String> = rounds.iter().map(Round::told).collect();
    Ok(vec![
        row("before", |round| &round.before, format!("{} hits a second", options.rate)),
        row("during", |round| &round.during, told.join("; ")),
    ])
}

struct Arena<'a> {
    options: &'a CompareOptions,
    stage: Stage,
}

/// What one round measured.
struct Round {
    before: Turn,
    during: Turn,
    /// From ordering the purge to its complete receipt, while hits went on.
    receipt: Duration,
    /// Share of the accounted bytes that did not come back.
    left: f64,
    /// Resident memory: empty, filled, purged, filled again.
    resident: [u64; 4],
}

impl Round {
    fn refilled(&self) -> f64 {
        self.resident[3] as f64 / self.resident[1].max(1) as f64
    }

    fn told(&self) -> String {
        let [empty, full, purged, again] =
            self.resident.map(|bytes| bytes as f64 / f64::from(1 << 20));
        format!(
            "{ENTRIES} entries, receipt after {:.0} ms; resident {empty:.0} MiB before, {full:.0} \
             filled, {purged:.0} purged, {again:.0} filled again",
            self.receipt.as_secs_f64() * 1e3
        )
    }
}

impl Arena<'_> {
    fn round(&self) -> Result<Round, Failure> {
        let (empty, empty_bytes) = (self.resident()?, self.accounted()?);
        self.fill()?;
        let (full, full_bytes) = (self.resident()?, self.accounted()?);
        // Without load, to learn how long the window of the other is to be.
        let (id, alone) = self.purge()?;
        let left = self.emptied(empty_bytes, full_bytes)?;
        let purged = self.resident()?;
        self.fill()?;
        let again = self.resident()?;
        let before = self.load(self.options.duration, |ended| {
            while !ended.load(Ordering::Acquire) {
                self.is_complete(&id)?;
                clock::pause(LOOK);
            }
            Ok(())
        })?;
        let window = alone.max(WINDOW_MIN);
        let during = self.load(window, |_| self.purge())?;
        self.emptied(empty_bytes, full_bytes)?;
        let (before, during, receipt) = (before.0, during.0, during.1.1);
        Ok(Round { before, during, receipt, left, resident: [empty, full, purged, again] })
    }

    /// Asks for entries of the key until all are stored.
    fn fill(&self) -> Result<(), Failure> {
        let path = format!("/bytes/1024?max_age=86400&key={KEY}");
        let mut used = 0;
        for _ in 0..FILLS_MAX {
            let numbers = Numbers { used, count: ENTRIES };
            let target = self.target(path.clone());
            let workload = Workload::numbered(&target, &fields(), numbers, BodyCheck::Origin)?;
            let run = self.run(workload, None, FILL, |_, _| {})?;
            used += run.load.completed + u64::from(self.options.connections());
            // One is the object of the hits.
            if metric(self.stage.admin, "pharos_cache_entries")? > ENTRIES {
                return Ok(());
            }
        }
        Err(Failure::timeout(format!("the edge does not keep {ENTRIES} entries")))
    }

    /// Hits at the rate for so long, and something done meanwhile, which begins as measuring does
    /// and is told when that is over.
    fn load<T: Send>(
        &self,
        duration: Duration,
        meanwhile: impl FnOnce(&AtomicBool) -> Result<T, Failure> + Send,
    ) -> Result<(Turn, T), Failure> {
        let target = self.target(OBJECT.to_owned());
        let workload = Workload::new(&target, &fields(), (1, 0.0, 1), BodyCheck::Origin)?;
        let (begun, ended) = (AtomicBool::new(false), AtomicBool::new(false));
        thread::scope(|scope| {
            let body = || {
                clock::wait_for(LOOK, PHASE_MAX, || begun.load(Ordering::Acquire));
                meanwhile(&ended)
            };
            let beside = thread::Builder::new().name("purge".into()).spawn_scoped(scope, body);
            let beside = beside.map_err(|error| Failure::error("order a purge").because(error))?;
            let run = self.run(workload, Some(self.options.rate), duration, |phase, _| {
                begun.store(phase >= Phase::Measuring, Ordering::Release);
                ended.store(phase > Phase::Measuring, Ordering::Release);
            });
            begun.store(true, Ordering::Release);
            ended.store(true, Ordering::Release);
            let done =
                beside.join().map_err(|_| Failure::error("order a purge: it panicked"))??;
            let run = run?;
            if run.load.hits != run.load.answers {
                let (hits, answers) = (run.load.hits, run.load.answers);
                return Err(Failure::error(format!("{hits} of {answers} answers are hits")));
            }
            Ok((requests::turn_of(&run)?, done))
        })
    }

    fn run(
        &self,
        workload: Workload,
        rate: Option<f64>,
        duration: Duration,
        look: impl FnMut(Phase, u64),
    ) -> Result<HttpRun, Failure> {
        let load = Load {
            to: self.stage.edge.plan.listen,
            connections: self.options.connections(),
            pipeline: 1,
            rate,
            reconnect: false,
            warm_up: if rate.is_some() { self.options.warm_up } else { Duration::ZERO },
            duration,
            workload,
        };
        let place = Place { core: Some(self.options.load_core), engine: self.options.load_engine };
        let run = load::run(load, place, Some(self.stage.edge.pid()), look)?;
        match run.load.errors.total() {
            0 => Ok(run),
            _ => Err(Failure::error(format!("requests: {:?}", run.load.errors))),
        }
    }

    /// Orders the purge and waits for its receipt: its id, and how long that took.
    fn purge(&self) -> Result<(String, Duration), Failure> {
        let begin = clock::now();
        let order = json!({ "site": SITE, "key": KEY });
        let ordered = self.stage.control.post("/v1/purges", &order)?;
        let id = ordered["id"].as_str().unwrap_or_default().to_owned();
        let mut failed = None;
        let complete = clock::wait_for(LOOK, PHASE_MAX, || match self.is_complete(&id) {
            Ok(complete) => complete,
            Err(failure) => {
                failed = Some(failure);
                true
            }
        });
        match failed {
            Some(failure) => Err(failure),
            None if complete => Ok((id, begin.elapsed())),
            None => Err(Failure::timeout("the purge has no complete receipt")),
        }
    }

    fn is_complete(&self, id: &str) -> Result<bool, Failure> {
        let control = &self.stage.control;
        let failed = || Failure::error("ask for the receipt of a purge");
        let path = format!("/v1/purges/{id}");
        let answer = probe::ask(control.address, "GET", &path, &control.fields(), &[])
            .map_err(|error| failed().because(error))?;
        let receipt: Value =
            serde_json::from_slice(&answer.content).map_err(|error| failed().because(error))?;
        receipt["complete"].as_bool().ok_or_else(failed)
    }

    /// Waits until only the object of the hits is stored; which share of the bytes is still held.
    fn emptied(&self, empty_bytes: u64, full_bytes: u64) -> Result<f64, Failure> {
        let mut share = 1.0;
        clock::wait_for(LOOK, MEMORY_MAX, || {
            let held = self.accounted().unwrap_or(full_bytes);
            share = (held as f64 - empty_bytes as f64) / (full_bytes - empty_bytes).max(1) as f64;
            share <= LEFT_MAX
        });
        Ok(share)
    }

    /// Bytes that the cache holds, those of the dead included.
    fn accounted(&self) -> Result<u64, Failure> {
        let admin = self.stage.admin;
        Ok(metric(admin, "pharos_cache_used_bytes")? + metric(admin, "pharos_cache_dead_bytes")?)
    }

    fn resident(&self) -> Result<u64, Failure> {
        rss_bytes(self.stage.edge.pid())
            .map_err(|error| Failure::error("read the edge's memory").because(error))
    }

    fn target(&self, path: String) -> Target {
        let address = self.stage.edge.plan.listen;
        Target { address, authority: address.to_string(), path }
    }
}

fn fields() -> [String; 1] {
    [format!("Host: {HOST}")]
}

/// Entries of the key.
const ENTRIES: u64 = 100_000;
const KEY: &str = "spring";
/// The bounds: a receipt within a second, 99 % of delays at most doubled, memory returned. What the
/// allocator keeps of it is used again.
const RECEIPT_S_MAX: f64 = 1.0;
const P99_RATIO_MAX: f64 = 2.0;
const LEFT_MAX: f64 = 0.01;
const REFILLED_MAX: f64 = 1.1;
/// So many delays, at least, that a percentile of them means something.
const WINDOW_MIN: Duration = Duration::from_millis(100);
const FILL: Duration = Duration::from_secs(2);
/// Ten minutes of it.
const FILLS_MAX: u32 = 300;
const LOOK: Duration = Duration::from_millis(5);
const MEMORY_MAX: Duration = Duration::from_secs(20);
const PHASE_MAX: Duration = Duration::from_secs(60);
