//! What a look-up costs, without network: near hits, hits that miss the near table, and a shard's
//! handles to head and body.
//!
//! `cargo run --release -p pharos-cache --example near_hit`. One thread, one process; compare the
//! lines of one run with each other, not runs of different machines.
#![allow(clippy::print_stdout, reason = "it prints a table")]

use std::{hint::black_box, sync::Arc};

use pharos_cache::{
    Asking, Cache, Config, Decision, FieldSource, HeadOutcome, Method, Near, Piece, Request,
    Response, Waiter,
};
use proto::field::name::Known;

/// A request head that was classified while it was parsed, as the edge's are.
struct Classified<'a>(&'a [(&'a str, &'a str)]);

impl FieldSource for Classified<'_> {
    fn each<'a>(&'a self, show: &mut dyn FnMut(&'a [u8], &'a [u8])) {
        for (name, value) in self.0 {
            show(name.as_bytes(), value.as_bytes());
        }
    }

    fn may_have(&self, _: &[Known]) -> bool {
        false
    }
}

const FIELDS: &[(&str, &str)] = &[
    ("Host", "shop.example"),
    ("User-Agent", "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36"),
    ("Accept", "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"),
    ("Accept-Encoding", "gzip, deflate, br, zstd"),
    ("Accept-Language", "en-GB,en;q=0.9"),
    ("Connection", "keep-alive"),
];

fn main() {
    println!("| look-ups | ns of CPU each |");
    println!("|---|---|");
    for (name, items, near_entries, vary) in [
        ("near hit, 1 entry", 1, 16_384, false),
        ("near hit, 10,000 entries", 10_000, 16_384, false),
        ("near hit, 10,000 entries, Vary: Accept-Encoding", 10_000, 16_384, true),
        ("index hit, near table holds 1 %", 10_000, 100, false),
        ("index hit, 200,000 entries, near table holds 0.05 %", 200_000, 100, false),
    ] {
        let cache = Cache::new(Config::new(2 << 30, 1));
        let mut near = Near::new(near_entries);
        let targets: Vec<String> = (0..items).map(|at| format!("/assets/item-{at}.js")).collect();
        for target in &targets {
            store(&cache, &mut near, target, vary);
        }
        let rounds = 2_000_000 / items.max(1);
        let began_ns = cpu_ns();
        let mut count = 0u64;
        for _ in 0..rounds.max(3) {
            // A stride that visits everything, in no order a prefetcher knows.
            for at in 0..items {
                hit(&cache, &mut near, &targets[at * 7919 % items]);
                count += 1;
            }
        }
        println!("| {name} | {} |", (cpu_ns() - began_ns) / count);
    }
}

/// CPU time of this thread, so that what else runs on the machine counts less.
fn cpu_ns() -> u64 {
    let schedstat = std::fs::read_to_string("/proc/thread-self/schedstat").expect("Linux");
    let field = schedstat.split_ascii_whitespace().next().expect("three fields");
    field.parse().expect("a number")
}

fn hit(cache: &Arc<Cache>, near: &mut Near, target: &str) {
    let fields = Classified(FIELDS);
    let cache_key = cache.cache_key("site-1", b"shop.example", target.as_bytes());
    let request = Request::new(Method::Get, cache_key, &fields);
    let waiter = Waiter { shard: 0, id: 0 };
    let asking = Asking { now_ms: 1_000_500, waiter, min_version: None, waits: 0 };
    let Decision::Hit(hit) = cache.lookup(near, &request, &asking) else {
        panic!("everything is stored");
    };
    let Piece::Bytes(body) = hit.local.piece_at(0) else { panic!("every body has bytes") };
    black_box((hit.local.entry().head(), body, hit.age_s));
}

fn store(cache: &Arc<Cache>, near: &mut Near, target: &str, vary: bool) {
    let request = FIELDS;
    let cache_key = cache.cache_key("site-1", b"shop.example", target.as_bytes());
    let asked = Request::new(Method::Get, cache_key, &request);
    let waiter = Waiter { shard: 0, id: 0 };
    let asking = Asking { now_ms: 1_000_000, waiter, min_version: None, waits: 0 };
    let Decision::Miss(lease) = cache.lookup(near, &asked, &asking) else { panic!("empty") };
    let mut fields = vec![
        ("Content-Type", "application/javascript"),
        ("Cache-Control", "public, max-age=31536000, immutable"),
        ("ETag", "\"5f3c-1a2b3c4d\""),
        ("Last-Modified", "Thu, 01 Jan 1970 00:00:00 GMT"),
    ];
    if vary {
        fields.push(("Vary", "Accept-Encoding"));
    }
    let fields = &fields[..];
    let response = Response {
        status: 200,
        reason: b"OK",
        fields: &fields,
        length: Some(1024),
        request_at_ms: 1_000_000,
        response_at_ms: 1_000_000,
        append: b"Via: 1.1 pharos\r\n",
    };
    match lease.head(&request, &response, &mut Vec::new()) {
        HeadOutcome::Fill { mut writer, .. } => {
            writer.append(&[b'x'; 1024], &mut Vec::new()).expect("room");
            writer.finish(&mut Vec::new()).expect("whole");
        }
        other => panic!("not stored: {other:?}"),
    }
}
