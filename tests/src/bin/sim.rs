//! Runs seeds of the simulator, or replays one.
//!
//! ```text
//! sim --seeds 1000              the kept seeds, then 0 to 999; exit 1 at a violation, at a seed
//!                               that did too little, or (from 200 seeds on) at a fault not reached
//! sim --seed 42                 one seed, its violations; with --trace [LINES] what happened
//!                               before the first of them
//! sim --seeds 200 --from 5000
//! sim --scenario durability     edge, rules, edges, topics, durability or regions alone; all if
//!                               none is named
//! sim --fail-fast               no further seed after a violation
//! ```
//! Kept seeds stand in `tests/seeds/kept.txt`: `scenario seed  why`.
#![expect(clippy::print_stdout, reason = "a command speaks on stdout")]

use std::{
    panic::catch_unwind,
    process::ExitCode,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};

use pharos_tests::{
    scenario::{
        durability,
        edge::{self, Outcome},
        edges, regions,
    },
    sim::{
        coverage::{
            Coverage, REQUIRED, REQUIRED_DURABILITY, REQUIRED_EDGES, REQUIRED_REGIONS,
            REQUIRED_RULES, REQUIRED_TOPICS,
        },
        trace::{LINES, Trace},
    },
};

struct Scenario {
    name: &'static str,
    run: fn(u64) -> Outcome,
    /// What a sweep must reach.
    required: &'static [&'static str],
    /// What it counts as an operation.
    counts: &'static str,
    /// A seed with fewer operations proves too little.
    operations_min: u64,
}

const SCENARIOS: [Scenario; 6] = [
    Scenario {
        name: "edge",
        run: edge::run,
        required: REQUIRED,
        counts: "requests answered in full and events delivered to streams",
        operations_min: 1000,
    },
    Scenario {
        name: "rules",
        run: edge::run_with_rules,
        required: REQUIRED_RULES,
        counts: "requests answered in full and events delivered to streams",
        operations_min: 1000,
    },
    Scenario {
        name: "edges",
        run: edges::run,
        required: REQUIRED_EDGES,
        counts: "requests answered in full and events delivered to streams",
        operations_min: 100,
    },
    Scenario {
        name: "topics",
        run: edges::run_with_topics,
        required: REQUIRED_TOPICS,
        counts: "requests answered in full and events delivered to streams",
        operations_min: 100,
    },
    Scenario {
        name: "durability",
        run: durability::run,
        required: REQUIRED_DURABILITY,
        counts: "requests to the store",
        operations_min: 1,
    },
    Scenario {
        name: "regions",
        run: regions::run,
        required: REQUIRED_REGIONS,
        counts: "operations in the regions' logs",
        operations_min: 1,
    },
];

/// Seeds that once found something, replayed before every sweep.
const KEPT: &str = include_str!("../../seeds/kept.txt");

/// Seeds from which on a sweep has to reach every fault and rare branch.
const FULL_SWEEP_SEEDS: u64 = 200;

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let option = |name: &str| -> Option<&String> {
        let at = args.iter().position(|arg| arg == name)?;
        args.get(at + 1)
    };
    let flag = |name: &str| args.iter().any(|arg| arg == name);
    let number = |name: &str| -> Option<u64> { option(name)?.parse().ok() };
    let named = option("--scenario");
    let scenarios: Vec<&Scenario> = SCENARIOS
        .iter()
        .filter(|scenario| named.is_none_or(|name| name == scenario.name))
        .collect();
    if scenarios.is_empty() {
        println!("--scenario is edge, rules, edges, topics, durability or regions");
        return ExitCode::from(2);
    }
    if flag("--trace") {
        Trace::enable(number("--trace").map_or(LINES, |lines| lines as usize));
    }
    let from = number("--seed").or(number("--from")).unwrap_or(0);
    let count = if option("--seed").is_some() { 1 } else { number("--seeds").unwrap_or(100) };
    sweep(&scenarios, from, count, flag("--fail-fast"))
}

/// A seed and the scenarios to run it through.
type Job<'a> = (Vec<&'a Scenario>, u64);

fn sweep(scenarios: &[&Scenario], from: u64, count: u64, stop_early: bool) -> ExitCode {
    let mut jobs: Vec<Job<'_>> = if count > 1 { kept(scenarios) } else { Vec::new() };
    let kept_count = jobs.len();
    jobs.extend((from..from + count).map(|seed| (scenarios.to_vec(), seed)));
    let stop = AtomicBool::new(false);
    let (next, total) = (AtomicUsize::new(0), Mutex::new(Total::default()));
    let workers = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..workers {
            scope.spawn(|| {
                while let Some((scenarios, seed)) = jobs.get(next.fetch_add(1, Ordering::Relaxed)) {
                    if stop.load(Ordering::Relaxed) {
                        return;
                    }
                    let holds = run_seed(scenarios, *seed, &total);
                    stop.fetch_or(stop_early && !holds, Ordering::Relaxed);
                }
            });
        }
    });
    let total = total.into_inner().unwrap_or_else(PoisonError::into_inner);
    println!("\n{kept_count} kept seeds, {count} seeds from {from}");
    if total.report(scenarios, count) { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// The kept seeds of these scenarios.
fn kept<'a>(scenarios: &[&'a Scenario]) -> Vec<Job<'a>> {
    let lines = KEPT.lines().filter(|line| !line.starts_with('#') && !line.is_empty());
    let jobs = lines.filter_map(|line| {
        let mut words = line.split_whitespace();
        let (name, seed) = (words.next()?, words.next().and_then(|seed| seed.parse().ok()));
        let seed = seed.unwrap_or_else(|| panic!("tests/seeds/kept.txt: no seed in {line:?}"));
        let scenario = scenarios.iter().find(|scenario| scenario.name == name)?;
        Some((vec![*scenario], seed))
    });
    jobs.collect()
}

/// What a sweep came to so far.
#[derive(Default)]
struct Total {
    coverage: Coverage,
    passed: usize,
    failed: usize,
    /// Of each scenario, by its place in [`SCENARIOS`]: runs, operations, fewest in one run.
    operations: [(u64, u64, u64); SCENARIOS.len()],
}

impl Total {
    fn take(&mut self, scenario: &Scenario, outcome: &Outcome) {
        self.coverage.merge(&outcome.coverage);
        let at = SCENARIOS.iter().position(|known| known.name == scenario.name).unwrap_or(0);
        let (runs, sum, fewest) = &mut self.operations[at];
        *fewest = if *runs == 0 { outcome.operations } else { outcome.operations.min(*fewest) };
        *runs += 1;
        *sum += outcome.operations;
    }

    /// Prints all; whether the sweep holds.
    fn report(&self, scenarios: &[&Scenario], count: u64) -> bool {
        for (scenario, (runs, sum, fewest)) in SCENARIOS.iter().zip(&self.operations) {
            let Scenario { name, counts, .. } = scenario;
            if *runs > 0 {
                println!(
                    "{name}: {sum} operations in {runs} runs, at least {fewest} in each ({counts})"
                );
            }
        }
        if count > 1 {
            println!("faults dealt and rare branches reached:");
            self.coverage.iter().for_each(|(name, count)| println!("  {count:>10}  {name}"));
        }
        let missing: Vec<_> = scenarios
            .iter()
            .flat_map(|scenario| self.coverage.missing(scenario.required))
            .collect();
        let full = count >= FULL_SWEEP_SEEDS;
        if full {
            missing.iter().for_each(|name| println!("NEVER REACHED: {name}"));
        } else if count > 1 {
            // A short sweep need not meet the rarest.
            missing.iter().for_each(|name| println!("not reached in so few: {name}"));
        }
        println!("{} passed, {} failed", self.passed, self.failed);
        self.failed == 0 && (missing.is_empty() || !full)
    }
}

/// Some scenarios of one seed; whether they held.
fn run_seed(scenarios: &[&Scenario], seed: u64, total: &Mutex<Total>) -> bool {
    let mut holds = true;
    for scenario in scenarios {
        let outcome = run(scenario, seed);
        let mut total = total.lock().unwrap_or_else(PoisonError::into_inner);
        total.take(scenario, &outcome);
        if outcome.violations.is_empty() {
            continue;
        }
        holds = false;
        println!(
            "seed {seed}: replay with `sim --seed {seed} --scenario {} --trace`",
            scenario.name
        );
        outcome.trace.iter().for_each(|line| println!("    {line}"));
        outcome.violations.iter().take(5).for_each(|violation| println!("  {violation}"));
    }
    let mut total = total.lock().unwrap_or_else(PoisonError::into_inner);
    if holds {
        total.passed += 1
    } else {
        total.failed += 1
    }
    holds
}

/// One seed; an assertion of the code under test is a violation like any other, and so is a run
/// that did too little to prove anything.
fn run(scenario: &Scenario, seed: u64) -> Outcome {
    let run = scenario.run;
    let mut outcome = catch_unwind(|| run(seed)).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str);
        let text = text.or(panic.downcast_ref::<&str>().copied()).unwrap_or("a panic");
        Outcome {
            violations: vec![text.to_owned()],
            coverage: Coverage::default(),
            operations: 0,
            steps: 0,
            trace: Vec::new(),
        }
    });
    let (done, least) = (outcome.operations, scenario.operations_min);
    if outcome.violations.is_empty() && done < least {
        outcome.violations.push(format!("only {done} operations, at least {least} are asked for"));
    }
    outcome
}
