//! A cache with a few shards and a clock to turn by hand; shared by the tests of the facade.
#![allow(dead_code, unreachable_pub, reason = "each test binary uses its part")]

use std::sync::Arc;

use pharos_cache::{
    Answer, Asking, Cache, Config, Decision, Entry, HeadOutcome, Hit, Lease, Local, Method, Near,
    Piece, Request, Response, Waiter, Wake, WakeWith,
};
use proto::feed::{
    cursor::VersionVector,
    record::{Purge, Scope},
};

pub type Fields<'a> = &'a [(&'a str, &'a str)];

/// Sun, 06 Nov 1994 08:49:37 GMT.
pub const START_MS: u64 = 784_111_777_000;
pub const SHARDS: usize = 3;

pub struct World {
    pub cache: Arc<Cache>,
    pub near: Vec<Near>,
    pub now_ms: u64,
    pub wakes: Vec<Wake>,
    next_waiter: u64,
}

impl World {
    pub fn new() -> Self {
        Self::with_memory(64 << 20)
    }

    pub fn with_memory(memory_bytes: u64) -> Self {
        Self::with(Config::new(memory_bytes, 42))
    }

    pub fn with(config: Config) -> Self {
        Self {
            cache: Cache::new(config),
            near: (0..SHARDS).map(|_| Near::new(64)).collect(),
            now_ms: START_MS,
            wakes: Vec::new(),
            next_waiter: 0,
        }
    }

    pub fn pass_s(&mut self, seconds: u64) {
        self.now_ms += seconds * 1000;
    }

    pub fn get(&mut self, shard: usize, target: &str, fields: Fields<'_>) -> Decision {
        self.ask(shard, Method::Get, target, fields, None)
    }

    pub fn head(&mut self, shard: usize, target: &str, fields: Fields<'_>) -> Decision {
        self.ask(shard, Method::Head, target, fields, None)
    }

    pub fn ask(
        &mut self,
        shard: usize,
        method: Method,
        target: &str,
        fields: Fields<'_>,
        min_version: Option<&VersionVector>,
    ) -> Decision {
        let cache_key = self.cache.cache_key("site", b"host", target.as_bytes());
        let request = Request::new(method, cache_key, &fields);
        self.next_waiter += 1;
        let waiter = Waiter { shard: shard as u16, id: self.next_waiter };
        let asking = Asking { now_ms: self.now_ms, waiter, min_version, waits: 0 };
        self.cache.lookup(&mut self.near[shard], &request, &asking)
    }

    /// A request that was woken asks again.
    pub fn woken(
        &mut self,
        shard: usize,
        target: &str,
        fields: Fields<'_>,
        with: &WakeWith,
    ) -> Decision {
        let cache_key = self.cache.cache_key("site", b"host", target.as_bytes());
        let request = Request::new(Method::Get, cache_key, &fields);
        self.next_waiter += 1;
        let waiter = Waiter { shard: shard as u16, id: self.next_waiter };
        let asking = Asking { now_ms: self.now_ms, waiter, min_version: None, waits: 1 };
        self.cache.lookup_woken(&mut self.near[shard], &request, &asking, with)
    }

    /// Number of the last waiter that was given.
    pub fn last_waiter(&self) -> u64 {
        self.next_waiter
    }

    /// The origin answers a lease's fetch.
    pub fn answer(
        &mut self,
        lease: Lease,
        request: Fields<'_>,
        status: u16,
        fields: Fields<'_>,
        length: Option<u64>,
    ) -> HeadOutcome {
        let response = Response {
            status,
            reason: b"OK",
            fields: &fields,
            length,
            request_at_ms: self.now_ms,
            response_at_ms: self.now_ms,
            append: b"Via: 1.1 pharos\r\n",
        };
        lease.head(&request, &response, &mut self.wakes)
    }

    /// Asks and, if it must, fetches `body` with these response fields.
    pub fn store(&mut self, target: &str, fields: Fields<'_>, body: &str) {
        self.store_for(target, &[], fields, body);
    }

    pub fn store_for(&mut self, target: &str, request: Fields<'_>, fields: Fields<'_>, body: &str) {
        let lease = lease(self.get(0, target, request));
        let outcome = self.answer(lease, request, 200, fields, Some(body.len() as u64));
        let HeadOutcome::Fill { mut writer, not_stored: None, .. } = outcome else {
            panic!("not stored: {outcome:?}");
        };
        writer.append(body.as_bytes(), &mut Vec::new()).expect("room");
        writer.finish(&mut Vec::new()).expect("whole");
    }

    pub fn purge(&self, scope: Scope, soft: bool) -> u64 {
        let mut cursor = self.cache.purge(&Purge { position: 1, scope, soft });
        loop {
            let progress = cursor.step(&self.cache, 7);
            if progress.done {
                return progress.purged_count;
            }
        }
    }

    /// The fetch fails; what may be served instead.
    pub fn fail(&mut self, lease: Lease) -> Option<Arc<Entry>> {
        lease.fail(self.now_ms, 502, &mut self.wakes)
    }

    pub fn sweep_all(&mut self) {
        for near in &mut self.near {
            near.sweep(near.bucket_count());
        }
    }
}

/// The lease of a decision to fetch.
pub fn lease(decision: Decision) -> Lease {
    match decision {
        Decision::Miss(lease) | Decision::Revalidate(lease) => lease,
        other => panic!("expected a fetch, found {other:?}"),
    }
}

/// The hit of a decision to serve something fresh.
pub fn fresh(decision: Decision) -> Hit {
    match decision {
        Decision::Hit(hit) => hit,
        other => panic!("expected a hit, found {other:?}"),
    }
}

/// The hit of a decision to serve something stale, and whether to validate it.
pub fn stale(decision: Decision) -> (Hit, Option<Lease>) {
    match decision {
        Decision::Stale { hit, revalidate } => (hit, revalidate),
        other => panic!("expected a stale hit, found {other:?}"),
    }
}

/// What can be read of a body, and how it ends.
pub fn read(local: &Local) -> (String, Piece) {
    let mut bytes = Vec::new();
    loop {
        match local.piece_at(bytes.len() as u64) {
            Piece::Bytes(piece) => bytes.extend_from_slice(&piece),
            end => return (String::from_utf8(bytes).expect("text"), end),
        }
    }
}

/// The whole body of a hit.
pub fn body(hit: &Hit) -> String {
    assert_eq!(hit.answer, Answer::Full);
    let (text, end) = read(&hit.local);
    assert_eq!(end, Piece::End);
    text
}

/// A field of a stored head.
pub fn field(local: &Local, name: &str) -> Option<String> {
    use pharos_cache::FieldSource;
    local.entry().get(name).map(|value| String::from_utf8_lossy(value).into_owned())
}
