//! Waiting for a condition, bounded: the only way a test of processes may wait.
#![expect(clippy::disallowed_types, reason = "asks the kernel whether a port is free")]

use std::{
    net::{Ipv4Addr, SocketAddr, TcpListener},
    sync::atomic::{AtomicU16, Ordering},
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

/// A loopback address that nobody listens at, and that is given out once: no other test of this
/// process gets it, and no outgoing connection, because those take ports above
/// [`PORTS`] (`net.ipv4.ip_local_port_range`). Other processes begin elsewhere in the range.
pub fn free_address() -> SocketAddr {
    static GIVEN: AtomicU16 = AtomicU16::new(0);
    let count = PORTS.end - PORTS.start;
    let begin = std::process::id().wrapping_mul(PORTS_PER_PROCESS) % u32::from(count);
    for _ in 0..count {
        let given = GIVEN.fetch_add(1, Ordering::Relaxed);
        let at = (begin + u32::from(given)) % u32::from(count);
        let port = PORTS.start + u16::try_from(at).expect("below the count of ports");
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        if TcpListener::bind(address).is_ok() {
            return address;
        }
    }
    panic!("no port of {PORTS:?} is free");
}

const PORTS: std::ops::Range<u16> = 10_000..32_000;
/// More than the tests of one binary need, so that processes with neighbouring ids do not meet.
const PORTS_PER_PROCESS: u32 = 97;
