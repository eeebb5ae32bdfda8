//! Shards on real threads. What interleavings mean for one entry and one body, loom tries out in
//! the crate; here all of it runs at once, as fast as it can.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
};

use pharos_cache::{
    Asking, Cache, Config, Decision, FieldSource, HeadOutcome, Lease, Method, Near, Request,
    Response, Waiter,
};
use proto::feed::record::{Purge, Scope};

const PURGES: u64 = 60;

/// An origin that counts, a purger, and shards that ask and fetch.
struct World {
    cache: Arc<Cache>,
    /// What the origin would answer now.
    origin: AtomicU64,
    /// No look-up that begins after reading this may find less.
    floor: AtomicU64,
    is_over: AtomicBool,
}

impl World {
    fn run_shard(&self, shard: u16) -> u64 {
        let mut near = Near::new(16);
        let mut hits = 0;
        while !self.is_over.load(Ordering::Relaxed) {
            let floor = self.floor.load(Ordering::Acquire);
            let none: &[(&str, &str)] = &[];
            let cache_key = self.cache.cache_key("site", b"host", b"/");
            let request = Request::new(Method::Get, cache_key, &none);
            let waiter = Waiter { shard, id: 0 };
            let asking = Asking { now_ms: 1_000_000, waiter, min_version: None, waits: 0 };
            match self.cache.lookup(&mut near, &request, &asking) {
                Decision::Hit(hit) => {
                    let version = hit.local.entry().get("X-Version").expect("every answer has one");
                    let version = std::str::from_utf8(version).expect("digits");
                    let version: u64 = version.parse().expect("a number");
                    assert!(version >= floor, "{version} after the purge of all below {floor}");
                    hits += 1;
                }
                Decision::Miss(lease) => self.fetch(lease),
                _ => thread::yield_now(),
            }
            near.sweep(4);
        }
        hits
    }

    fn fetch(&self, lease: Lease) {
        let version = self.origin.load(Ordering::SeqCst).to_string();
        thread::yield_now();
        let none: &[(&str, &str)] = &[];
        let fields: &[(&str, &str)] = &[
            ("Cache-Control", "max-age=1000"),
            ("X-Version", &version),
            ("Surrogate-Key", "page"),
        ];
        let response = Response {
            status: 200,
            reason: b"OK",
            fields: &fields,
            length: None,
            request_at_ms: 1_000_000,
            response_at_ms: 1_000_000,
            append: b"",
        };
        let outcome = lease.head(&none, &response, &mut Vec::new());
        if let HeadOutcome::Fill { mut writer, .. } = outcome {
            writer.append(version.as_bytes(), &mut Vec::new()).expect("room");
            thread::yield_now();
            writer.finish(&mut Vec::new()).expect("whole");
        }
    }

    fn run_purger(&self) {
        for version in 1..=PURGES {
            self.origin.store(version, Ordering::SeqCst);
            let scope = Scope::Key { site: Some("site".into()), key: "page".into() };
            let purge = Purge { position: version, scope, soft: version % 2 == 0 };
            let mut cursor = self.cache.purge(&purge);
            while !cursor.step(&self.cache, 64).done {
                thread::yield_now();
            }
            self.floor.store(version, Ordering::Release);
            (0..20).for_each(|_| thread::yield_now());
        }
        self.is_over.store(true, Ordering::Relaxed);
    }
}

#[test]
fn no_shard_sees_what_was_purged_before_it_asked() {
    let world = World {
        cache: Cache::new(Config::new(1 << 20, 3)),
        origin: AtomicU64::new(0),
        floor: AtomicU64::new(0),
        is_over: AtomicBool::new(false),
    };
    let hits: u64 = thread::scope(|scope| {
        let shards: Vec<_> = (0..3)
            .map(|shard| {
                scope.spawn({
                    let world = &world;
                    move || world.run_shard(shard)
                })
            })
            .collect();
        world.run_purger();
        shards.into_iter().map(|shard| shard.join().expect("no shard panics")).sum()
    });
    assert!(hits > 0);
    let purge = Purge { position: 0, scope: Scope::Everything, soft: false };
    let mut cursor = world.cache.purge(&purge);
    while !cursor.step(&world.cache, 1000).done {}
    assert_eq!(world.cache.stats().used_bytes, 0);
}
