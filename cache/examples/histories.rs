//! Random histories of the cache against its slow models, each from one seed.
//!
//! `cargo run --profile checked -p pharos-cache --example histories [-- [--count N] [--from SEED]]`:
//! half of them one request after the other (`tests/src/fuzz/cache_rules.rs`), half of many at a time
//! (`tests/src/fuzz/cache_ops.rs`). Prints how many ran and how often each rule decided; exits with 1 at
//! the first that disagrees, naming its seed.
#![allow(clippy::print_stdout, reason = "a command speaks on stdout")]
#![allow(unreachable_pub, reason = "modules of another crate")]

extern crate pharos_cache as cache;

use std::{panic::catch_unwind, process::ExitCode};

#[path = "../../tests/src/fuzz/cache_ops.rs"]
mod cache_ops;
#[path = "../../tests/src/fuzz/cache_rules.rs"]
mod cache_rules;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let value = |name: &str| {
        let at = arguments.iter().position(|argument| argument == name)?;
        arguments.get(at + 1)?.parse::<u64>().ok()
    };
    let (from, count) = (value("--from").unwrap_or(0), value("--count").unwrap_or(20_000));
    let mut coverage = cache_rules::Coverage::new();
    for seed in from..from + count {
        let ran = catch_unwind(std::panic::AssertUnwindSafe(|| match seed % 2 {
            0 => cache_rules::run(seed, &mut coverage),
            _ => cache_ops::run(&bytes_of(seed)),
        }));
        if ran.is_err() {
            println!("seed {seed} disagrees: --from {seed} --count 1 runs it again");
            return ExitCode::FAILURE;
        }
    }
    for (rule, count) in &coverage {
        println!("{count:>12}  {rule}");
    }
    println!("{count} histories clean");
    ExitCode::SUCCESS
}

/// As a fuzzer would make them up.
fn bytes_of(seed: u64) -> Vec<u8> {
    let mut state = seed;
    let mut bytes = Vec::with_capacity(600);
    while bytes.len() < 600 {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        bytes.extend_from_slice(&(state ^ (state >> 29)).to_le_bytes()[2..6]);
    }
    bytes
}
