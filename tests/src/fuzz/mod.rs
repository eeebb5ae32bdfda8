//! Bodies of the fuzz targets in `tests/fuzz`, as plain functions: `tests/fuzz_corpus.rs` replays
//! the kept inputs through them without a fuzzer.
//!
//! Each asserts properties, not only absence of panic: cutting the input anywhere changes nothing,
//! what is accepted is written again and read back equal, nothing is kept beyond the limits.

pub mod cache_ops;
pub mod cache_rules;
pub mod feed_record;
pub mod http1_client;
pub mod http1_server;
pub mod sse;

/// The first bytes of an input choose how the rest is cut and driven, so that the fuzzer can vary
/// that too.
pub struct Plan<'a> {
    /// Chooses among the ways to drive a target.
    pub mode: u8,
    /// The bytes under test.
    pub input: &'a [u8],
    seed: u8,
}

impl<'a> Plan<'a> {
    /// Splits the data of one run.
    pub fn of(data: &'a [u8]) -> Option<Self> {
        match data {
            [mode, seed, input @ ..] => Some(Self { mode: *mode, seed: *seed, input }),
            _ => None,
        }
    }

    /// The input in pieces of 1 to 17 bytes, or (seed 0) of one byte each.
    pub fn pieces(&self) -> Vec<&'a [u8]> {
        let mut pieces = Vec::new();
        let mut rest = self.input;
        let mut state = u32::from(self.seed);
        while !rest.is_empty() {
            state = state.wrapping_mul(1_664_525).wrapping_add(u32::from(self.seed));
            let (piece, after) = rest.split_at((1 + (state >> 24) as usize % 17).min(rest.len()));
            pieces.push(piece);
            rest = after;
        }
        pieces
    }
}
