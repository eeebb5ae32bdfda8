//! The table of hit ratios: a row for each sequence and size of the cache, a column a policy.

use crate::{
    policies::{Ranked, S3Fifo, Sieve, WholeCache, ratio},
    sequences::Sequence,
};

/// The columns.
pub const POLICIES: [&str; 6] = ["LRU", "LFU", "SIEVE", "S3-FIFO", "cache", "Belady"];
/// Sizes of the cache, as shares of all bytes of the sequence.
pub const PERCENTS: [u64; 4] = [1, 5, 10, 20];

/// Two lines above the rows.
pub fn heading() -> String {
    let columns = POLICIES.join(" | ");
    format!(
        "| sequence | cache, % of bytes | {columns} |\n|---|---|{}",
        "---|".repeat(POLICIES.len())
    )
}

/// Hit ratios by policy.
pub fn row(sequence: &Sequence, percent: u64) -> [f64; POLICIES.len()] {
    let capacity = (sequence.whole_bytes * percent / 100).max(1);
    [
        ratio(sequence, &mut Ranked::lru(capacity)),
        ratio(sequence, &mut Ranked::lfu(capacity)),
        ratio(sequence, &mut Sieve::new(capacity)),
        ratio(sequence, &mut S3Fifo::new(capacity)),
        ratio(sequence, &mut WholeCache::new(capacity, sequence)),
        ratio(sequence, &mut Ranked::belady(capacity, sequence)),
    ]
}

/// A row as text.
pub fn line(name: &str, percent: u64, row: &[f64]) -> String {
    let cells: Vec<String> = row.iter().map(|ratio| format!("{ratio:.4}")).collect();
    format!("| {name} | {percent} | {} |", cells.join(" | "))
}
