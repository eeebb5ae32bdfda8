//! Runs `tests/src/fuzz/cache_ops.rs`.
#![no_main]

#[allow(dead_code, reason = "each target uses one module of them")]
#[path = "../../src/fuzz/mod.rs"]
mod fuzz;

libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzz::cache_ops::run(data));
