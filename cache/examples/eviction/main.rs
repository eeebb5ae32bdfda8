//! Hit ratios of eviction policies; the figures of docs/eviction.md.
//!
//! `cargo run --release -p pharos-cache --example eviction [-- [--trace FILE] [--svg FILE]]`. Without a
//! trace, on generated sequences; everything follows from one seed. A trace is a key and a size in
//! bytes a line.
//!
//! S3-FIFO is the very file that the cache uses; LRU, LFU, SIEVE and Belady's stand here to compare
//! with; *cache* is the whole [`pharos_cache::Cache`], asked through its facade.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "it prints a table")]
#![allow(unreachable_pub, reason = "modules of one program")]

use std::{fs, process::ExitCode};

use policies::{Ranked, S3Fifo, Sieve, WholeCache, ratio};
use sequences::Sequence;

mod plot;
mod policies;
#[allow(dead_code, reason = "the cache's own file, with its tests")]
#[path = "../../src/eviction/s3fifo.rs"]
mod s3fifo;
mod sequences;

const POLICIES: [&str; 6] = ["LRU", "LFU", "SIEVE", "S3-FIFO", "cache", "Belady"];
const PERCENTS: [u64; 4] = [1, 5, 10, 20];

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let value = |name: &str| {
        let at = arguments.iter().position(|argument| argument == name)?;
        arguments.get(at + 1)
    };
    let sequences = match value("--trace").map(|path| sequences::read(path)) {
        None => sequences::generated(),
        Some(Ok(sequence)) => vec![sequence],
        Some(Err(error)) => {
            eprintln!("{error}");
            return ExitCode::from(2);
        }
    };
    println!("| sequence | cache, % of bytes | {} |", POLICIES.join(" | "));
    println!("|---|---|{}", "---|".repeat(POLICIES.len()));
    let panels: Vec<plot::Panel> = sequences.iter().map(study).collect();
    if let Some(path) = value("--svg") {
        let sizes = PERCENTS.map(|percent| format!("{percent} %"));
        let sizes: Vec<&str> = sizes.iter().map(String::as_str).collect();
        if let Err(error) = fs::write(path, plot::svg(&panels, &POLICIES, &sizes)) {
            eprintln!("writing {path}: {error}");
            return ExitCode::FAILURE;
        }
    }
    ExitCode::SUCCESS
}

/// Prints a sequence's rows.
fn study(sequence: &Sequence) -> plot::Panel {
    let mut ratios = vec![Vec::new(); POLICIES.len()];
    for percent in PERCENTS {
        let capacity = (sequence.whole_bytes * percent / 100).max(1);
        let row = [
            ratio(sequence, &mut Ranked::lru(capacity)),
            ratio(sequence, &mut Ranked::lfu(capacity)),
            ratio(sequence, &mut Sieve::new(capacity)),
            ratio(sequence, &mut S3Fifo::new(capacity)),
            ratio(sequence, &mut WholeCache::new(capacity, sequence)),
            ratio(sequence, &mut Ranked::belady(capacity, sequence)),
        ];
        let cells: Vec<String> = row.iter().map(|ratio| format!("{ratio:.4}")).collect();
        println!("| {} | {percent} | {} |", sequence.name, cells.join(" | "));
        for (policy, ratio) in row.into_iter().enumerate() {
            ratios[policy].push(ratio);
        }
    }
    plot::Panel { name: sequence.name.clone(), ratios }
}
