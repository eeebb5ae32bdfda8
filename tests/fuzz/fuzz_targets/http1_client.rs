//! Runs `tests/src/fuzz/http1_client.rs`.
#![no_main]

#[allow(dead_code, reason = "each target uses one module of them")]
#[path = "../../src/fuzz/mod.rs"]
mod fuzz;

libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzz::http1_client::run(data));
