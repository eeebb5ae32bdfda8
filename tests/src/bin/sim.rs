//! Runs seeds of the simulator, or replays one.
//!
//! ```text
//! sim --seeds 1000              seeds 0 to 999; exit 1 at a violation or a fault never reached
//! sim --seed 42                 one seed, its violations
//! sim --seeds 200 --from 5000
//! sim --scenario durability     edge, durability or regions alone; all three if none is named
//! ```
#![expect(clippy::print_stdout, reason = "a command speaks on stdout")]

use std::{
    panic::catch_unwind,
    process::ExitCode,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use pharos_tests::{
    scenario::{
        durability,
        edge::{self, Outcome},
        regions,
    },
    sim::coverage::{Coverage, REQUIRED, REQUIRED_DURABILITY, REQUIRED_REGIONS},
};

struct Scenario {
    name: &'static str,
    run: fn(u64) -> Outcome,
    /// What a sweep must reach.
    required: &'static [&'static str],
}

const SCENARIOS: [Scenario; 3] = [
    Scenario { name: "edge", run: edge::run, required: REQUIRED },
    Scenario { name: "durability", run: durability::run, required: REQUIRED_DURABILITY },
    Scenario { name: "regions", run: regions::run, required: REQUIRED_REGIONS },
];

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let option = |name: &str| -> Option<&String> {
        let at = args.iter().position(|arg| arg == name)?;
        args.get(at + 1)
    };
    let number = |name: &str| -> Option<u64> { option(name)?.parse().ok() };
    let named = option("--scenario");
    let scenarios: Vec<&Scenario> = SCENARIOS
        .iter()
        .filter(|scenario| named.is_none_or(|name| name == scenario.name))
        .collect();
    if scenarios.is_empty() {
        println!("--scenario is edge, durability or regions");
        return ExitCode::from(2);
    }
    let from = number("--seed").or(number("--from")).unwrap_or(0);
    let count = if option("--seed").is_some() { 1 } else { number("--seeds").unwrap_or(100) };
    let stop_early = args.iter().any(|arg| arg == "--fail-fast");
    sweep(&scenarios, from, count, stop_early)
}

fn sweep(scenarios: &[&Scenario], from: u64, count: u64, stop_early: bool) -> ExitCode {
    let stop = AtomicBool::new(false);
    let (next, total) = (AtomicU64::new(from), Mutex::new(Total::default()));
    let workers = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..workers {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= from + count || stop.load(Ordering::Relaxed) {
                        return;
                    }
                    let holds = run_seed(scenarios, seed, &total);
                    stop.fetch_or(stop_early && !holds, Ordering::Relaxed);
                }
            });
        }
    });
    let total = total.into_inner().unwrap_or_else(PoisonError::into_inner);
    let Total { coverage, failed, operations, fewest } = total;
    let fewest = fewest.unwrap_or(0);
    println!("\n{count} seeds from {from}: {operations} operations, at least {fewest} in each");
    if count == 1 {
        return if failed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE };
    }
    println!("faults dealt and rare branches reached:");
    coverage.iter().for_each(|(name, count)| println!("  {count:>10}  {name}"));
    let missing: Vec<_> =
        scenarios.iter().flat_map(|scenario| coverage.missing(scenario.required)).collect();
    missing.iter().for_each(|name| println!("NEVER REACHED: {name}"));
    println!("{} passed, {} failed", count as usize - failed.len(), failed.len());
    // A short sweep cannot meet the rarest; a full one has to.
    let enough = missing.is_empty() || count < FULL_SWEEP_SEEDS;
    if failed.is_empty() && enough { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Seeds from which on a sweep has to reach every fault and rare branch.
const FULL_SWEEP_SEEDS: u64 = 1000;

/// What a sweep came to so far.
#[derive(Default)]
struct Total {
    coverage: Coverage,
    failed: Vec<u64>,
    operations: u64,
    fewest: Option<u64>,
}

/// All scenarios of one seed; whether they held.
fn run_seed(scenarios: &[&Scenario], seed: u64, total: &Mutex<Total>) -> bool {
    let outcomes: Vec<Outcome> = scenarios.iter().map(|scenario| run(scenario, seed)).collect();
    let mut total = total.lock().unwrap_or_else(PoisonError::into_inner);
    for (scenario, outcome) in scenarios.iter().zip(&outcomes) {
        total.coverage.merge(&outcome.coverage);
        if !outcome.violations.is_empty() {
            let name = scenario.name;
            println!("seed {seed}: replay with `sim --seed {seed} --scenario {name}`");
            outcome.violations.iter().take(5).for_each(|violation| println!("  {violation}"));
        }
    }
    let operations = outcomes.iter().map(|outcome| outcome.operations).sum();
    total.operations += operations;
    total.fewest = Some(total.fewest.map_or(operations, |fewest| fewest.min(operations)));
    let holds = outcomes.iter().all(|outcome| outcome.violations.is_empty());
    if !holds {
        total.failed.push(seed);
    }
    holds
}

/// One seed; an assertion of the code under test is a violation like any other.
fn run(scenario: &Scenario, seed: u64) -> Outcome {
    let run = scenario.run;
    catch_unwind(|| run(seed)).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str);
        let text = text.or(panic.downcast_ref::<&str>().copied()).unwrap_or("a panic");
        Outcome {
            violations: vec![text.to_owned()],
            coverage: Coverage::default(),
            operations: 0,
            steps: 0,
        }
    })
}
