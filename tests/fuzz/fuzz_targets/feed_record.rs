//! See `pharos_tests::fuzz::feed_record`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| pharos_tests::fuzz::feed_record::run(data));
