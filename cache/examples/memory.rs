//! What the cache says it holds against what the process holds: growth of RSS over accounted bytes,
//! for bodies of one size and after churn. `docs/measurements.md` has the figures.
//!
//! `cargo run --release -p pharos-cache --example memory`. Each case is a process of its own. Bodies
//! come in pieces of 16 KiB, as from an engine's receive buffers; the allocator is the program's:
//! the C library's. Over a goal it exits with 1, so that `./test` can hold the goals.
#![allow(clippy::print_stdout, reason = "it prints a table")]

use std::{
    env, fs,
    process::{Command, ExitCode},
    sync::Arc,
};

use pharos_cache::{
    Asking, Cache, Config, Decision, HeadOutcome, Method, Near, Request, Response, Waiter,
};

/// Name, memory of the cache, entries stored, body lengths, the goal.
struct Case {
    name: &'static str,
    memory_bytes: u64,
    stores: usize,
    lengths: &'static [usize],
    goal: f64,
}

const CASES: [Case; 5] = [
    Case {
        name: "64 KiB bodies",
        memory_bytes: 2 << 30,
        stores: 6_000,
        lengths: &[64 << 10],
        goal: 1.03,
    },
    Case {
        name: "1 KiB bodies",
        memory_bytes: 2 << 30,
        stores: 300_000,
        lengths: &[1 << 10],
        goal: 1.10,
    },
    Case {
        name: "churn, 1 KiB",
        memory_bytes: 256 << 20,
        stores: 1_000_000,
        lengths: &[1 << 10],
        goal: 1.15,
    },
    Case {
        name: "churn, 64 KiB",
        memory_bytes: 256 << 20,
        stores: 20_000,
        lengths: &[64 << 10],
        goal: 1.15,
    },
    Case {
        name: "churn, 200 bytes to 200 KiB",
        memory_bytes: 256 << 20,
        stores: 200_000,
        lengths: &[200, 900, 3_000, 700, 12_000, 1_500, 40_000, 400, 200_000, 6_000],
        goal: 1.15,
    },
];

fn main() -> ExitCode {
    if let Some(at) = env::args().nth(1).and_then(|text| text.parse::<usize>().ok()) {
        return if run(&CASES[at]) { ExitCode::SUCCESS } else { ExitCode::FAILURE };
    }
    println!("| case | entries | accounted, MiB | RSS growth, MiB | ratio | goal |");
    println!("|---|---|---|---|---|---|");
    let mut is_met = true;
    for at in 0..CASES.len() {
        let own = env::current_exe().expect("a path");
        let status = Command::new(own).arg(at.to_string()).status();
        is_met &= status.is_ok_and(|status| status.success());
    }
    if is_met { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Prints its row; whether the goal is met.
fn run(case: &Case) -> bool {
    let cache = Cache::new(Config::new(case.memory_bytes, 1));
    let mut near = Near::new(16 * 1024);
    // The tables of a fixed size belong to the process, not to what is stored.
    let before = rss_bytes();
    let piece = vec![b'x'; 16 << 10];
    for at in 0..case.stores {
        store(&cache, &mut near, at, case.lengths[at % case.lengths.len()], &piece);
        near.sweep(64);
    }
    near.sweep(near.bucket_count());
    let (grown, stats) = (rss_bytes() - before, cache.stats());
    let ratio = grown as f64 / stats.used_bytes as f64;
    let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
    println!(
        "| {} | {} | {:.1} | {:.1} | {ratio:.3} | {} |",
        case.name,
        stats.entries,
        mib(stats.used_bytes),
        mib(grown),
        case.goal
    );
    ratio <= case.goal
}

fn store(cache: &Arc<Cache>, near: &mut Near, at: usize, length: usize, piece: &[u8]) {
    let target = format!("/articles/{at:08}/index.html");
    let fields: &[(&str, &str)] = &[];
    let cache_key = cache.cache_key("site-1", b"www.example.com", target.as_bytes());
    let request = Request::new(Method::Get, cache_key, &fields);
    let waiter = Waiter { shard: 0, id: 0 };
    let asking = Asking { now_ms: 1_000_000, waiter, min_version: None, waits: 0 };
    let Decision::Miss(lease) = cache.lookup(near, &request, &asking) else {
        panic!("asked for the first time");
    };
    let etag = format!("\"{at:x}-{length:x}\"");
    let stored: &[(&str, &str)] = &[
        ("Content-Type", "text/html; charset=utf-8"),
        ("Cache-Control", "max-age=1000"),
        ("ETag", &etag),
        ("Last-Modified", "Sun, 06 Nov 1994 08:49:37 GMT"),
        ("Server", "nginx"),
    ];
    let response = Response {
        status: 200,
        reason: b"OK",
        fields: &stored,
        length: Some(length as u64),
        request_at_ms: 1_000_000,
        response_at_ms: 1_000_000,
        append: b"Via: 1.1 pharos-edge-1\r\n",
    };
    let outcome = lease.head(&fields, &response, &mut Vec::new());
    let HeadOutcome::Fill { mut writer, .. } = outcome else { return };
    let mut left = length;
    while left > 0 {
        let next = left.min(piece.len());
        writer.append(&piece[..next], &mut Vec::new()).expect("room was made");
        left -= next;
    }
    let entry = writer.finish(&mut Vec::new()).expect("as long as announced");
    // The one who asked was answered with it.
    cache.serve(near, &request, 1_000_000, &entry, pharos_cache::Freshness::Fresh);
}

/// Resident pages of this process.
fn rss_bytes() -> u64 {
    let text = fs::read_to_string("/proc/self/statm").expect("Linux");
    let pages = text.split(' ').nth(1).and_then(|pages| pages.parse::<u64>().ok());
    pages.expect("the second number") * 4096
}
