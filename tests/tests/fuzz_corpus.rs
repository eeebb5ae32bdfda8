//! Replays the kept inputs of every fuzz target, without a fuzzer: `tests/fuzz/corpus/<target>/*`.

use std::{fs, panic, path::Path};

use pharos_tests::fuzz;

fn replay(target: &str, run: fn(&[u8])) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target);
    let mut count = 0;
    for file in fs::read_dir(&folder).expect("the target has a corpus") {
        let path = file.expect("a readable folder").path();
        let data = fs::read(&path).expect("a readable file");
        let ran = panic::catch_unwind(|| run(&data));
        assert!(ran.is_ok(), "{} fails, see above", path.display());
        count += 1;
    }
    assert!(count > 0, "{} is empty", folder.display());
}

#[test]
fn cache_ops() {
    replay("cache_ops", fuzz::cache_ops::run);
}

#[test]
fn http1_server() {
    replay("http1_server", fuzz::http1_server::run);
}

#[test]
fn http1_client() {
    replay("http1_client", fuzz::http1_client::run);
}

#[test]
fn sse() {
    replay("sse", fuzz::sse::run);
}

#[test]
fn feed_record() {
    replay("feed_record", fuzz::feed_record::run);
}
