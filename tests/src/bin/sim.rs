//! Runs seeds of the simulator, or replays one.
//!
//! ```text
//! sim --seeds 1000          seeds 0 to 999, the coverage table, exit 1 at a violation or an unreached fault
//! sim --seed 42             one seed, its violations
//! sim --seeds 200 --from 5000
//! ```
#![expect(clippy::print_stdout, reason = "a command speaks on stdout")]

use std::{panic::catch_unwind, process::ExitCode};

use pharos_tests::{
    scenario::edge::{self, Outcome},
    sim::coverage::{Coverage, REQUIRED},
};

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let option = |name: &str| -> Option<u64> {
        let at = args.iter().position(|arg| arg == name)?;
        args.get(at + 1)?.parse().ok()
    };
    let from = option("--seed").or(option("--from")).unwrap_or(0);
    let count = if option("--seed").is_some() { 1 } else { option("--seeds").unwrap_or(100) };
    let stop_early = args.iter().any(|arg| arg == "--fail-fast");
    sweep(from, count, stop_early)
}

fn sweep(from: u64, count: u64, stop_early: bool) -> ExitCode {
    let (mut coverage, mut failed, mut operations, mut fewest) =
        (Coverage::default(), Vec::new(), 0, u64::MAX);
    for seed in from..from + count {
        let outcome = run(seed);
        coverage.merge(&outcome.coverage);
        operations += outcome.operations;
        fewest = fewest.min(outcome.operations);
        if !outcome.violations.is_empty() {
            println!("seed {seed}: replay with `sim --seed {seed}`");
            outcome.violations.iter().take(5).for_each(|violation| println!("  {violation}"));
            failed.push(seed);
            if stop_early {
                break;
            }
        }
    }
    println!("\n{count} seeds from {from}: {operations} operations, at least {fewest} in each");
    if count == 1 {
        return if failed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE };
    }
    println!("faults dealt and rare branches reached:");
    coverage.iter().for_each(|(name, count)| println!("  {count:>10}  {name}"));
    let missing = coverage.missing(REQUIRED);
    missing.iter().for_each(|name| println!("NEVER REACHED: {name}"));
    println!("{} passed, {} failed", count as usize - failed.len(), failed.len());
    if failed.is_empty() && missing.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// One seed; an assertion of the code under test is a violation like any other.
fn run(seed: u64) -> Outcome {
    catch_unwind(|| edge::run(seed)).unwrap_or_else(|panic| {
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
