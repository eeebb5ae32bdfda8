//! Hit ratios of eviction policies; the figures of docs/eviction.md.
//!
//! `cargo run --release -p pharos-cache --example eviction [-- [--trace FILE] [--svg FILE]]`. Without a
//! trace, on generated sequences; everything follows from one seed. docs/eviction.md tells the form
//! of a trace.
//!
//! S3-FIFO is the very file that the cache uses; LRU, LFU, SIEVE and Belady's stand here to compare
//! with; *cache* is the whole [`pharos_cache::Cache`], asked through its facade.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "it prints a table")]
#![allow(unreachable_pub, reason = "modules of one program")]

use std::{fs, process::ExitCode};

use table::{PERCENTS, POLICIES};

mod plot;
mod policies;
#[allow(dead_code, reason = "the cache's own file, with its tests")]
#[path = "../../src/eviction/s3fifo.rs"]
mod s3fifo;
mod sequences;
mod table;

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
    println!("{}", table::heading());
    let mut panels = Vec::new();
    for sequence in &sequences {
        let mut panel =
            plot::Panel { name: sequence.name.clone(), ratios: vec![Vec::new(); POLICIES.len()] };
        for percent in PERCENTS {
            let row = table::row(sequence, percent);
            println!("{}", table::line(&sequence.name, percent, &row));
            for (policy, ratio) in row.into_iter().enumerate() {
                panel.ratios[policy].push(ratio);
            }
        }
        panels.push(panel);
    }
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
