//! See `pharos_tests::fuzz::http1_client`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| pharos_tests::fuzz::http1_client::run(data));
