//! Waiting for a condition, bounded: the only way a test of processes may wait.
#![expect(clippy::disallowed_types, reason = "asks the kernel for a free port")]

use std::{
    net::{SocketAddr, TcpListener},
    time::{Duration, Instant},
};

/// Polls until `ready` gives something; panics with `what` after `limit_s` seconds.
#[expect(clippy::disallowed_methods, reason = "real processes run in real time")]
pub fn until<T>(what: &str, limit_s: u64, mut ready: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(value) = ready() {
            return value;
        }
        assert!(start.elapsed() < Duration::from_secs(limit_s), "{what}: not within {limit_s} s");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// A loopback address that was free a moment ago.
pub fn free_address() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    listener.local_addr().expect("bound")
}
