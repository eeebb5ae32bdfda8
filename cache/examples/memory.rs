//! What the cache says it holds against what the process holds: growth of RSS over accounted bytes,
//! for bodies of one size, after churn, for one thread and for several that evict what others
//! stored, and for responses with many surrogate keys or a large head. `docs/measurements.md` has
//! the figures.
//!
//! `cargo run --release -p pharos-cache --example memory`. Each case is a process of its own. Bodies
//! come in pieces of 16 KiB, as from an engine's receive buffers; the allocator is the program's:
//! the C library's, set as an edge sets it (`engine::allocator`; here by its environment, unless
//! that says otherwise). Over a goal it exits with 1, so that `./test` can hold the goals.
#![allow(clippy::print_stdout, reason = "it prints a table")]

use std::{
    env, fs,
    process::{Command, ExitCode},
    sync::Arc,
    thread,
};

use pharos_cache::{
    Asking, Cache, Config, Decision, HeadOutcome, Method, Near, Request, Response, Waiter,
};

/// One row of the table.
struct Case {
    name: &'static str,
    memory_bytes: u64,
    /// By all threads together.
    stores: usize,
    lengths: &'static [usize],
    threads: usize,
    /// Of each entry alone, and bytes of each.
    surrogate_keys: (usize, usize),
    /// Added to the head, in fields of 900 bytes.
    head_fields: usize,
    goal: f64,
}

/// What most cases have in common.
const PLAIN: Case = Case {
    name: "",
    memory_bytes: 256 << 20,
    stores: 0,
    lengths: &[1 << 10],
    threads: 1,
    surrogate_keys: (0, 0),
    head_fields: 0,
    goal: 1.15,
};

static CASES: [Case; 11] = [
    Case {
        name: "64 KiB bodies",
        memory_bytes: 2 << 30,
        stores: 6_000,
        lengths: &[64 << 10],
        goal: 1.03,
        ..PLAIN
    },
    Case { name: "1 KiB bodies", memory_bytes: 2 << 30, stores: 300_000, goal: 1.10, ..PLAIN },
    Case { name: "churn, 1 KiB", stores: 1_000_000, ..PLAIN },
    Case { name: "churn, 64 KiB", stores: 20_000, lengths: &[64 << 10], ..PLAIN },
    Case {
        name: "churn, 200 bytes to 200 KiB",
        stores: 200_000,
        lengths: &[200, 900, 3_000, 700, 12_000, 1_500, 40_000, 400, 200_000, 6_000],
        ..PLAIN
    },
    Case { name: "churn, 1 KiB, 2 threads", stores: 400_000, threads: 2, ..PLAIN },
    Case {
        name: "churn, 64 KiB, 2 threads",
        stores: 20_000,
        lengths: &[64 << 10],
        threads: 2,
        ..PLAIN
    },
    Case {
        name: "churn, 200 bytes to 200 KiB, 4 threads",
        stores: 60_000,
        lengths: &[200, 900, 3_000, 700, 12_000, 1_500, 40_000, 400, 200_000, 6_000],
        threads: 4,
        goal: 1.25,
        ..PLAIN
    },
    Case {
        name: "churn, 1 KiB, 20 own surrogate keys, 2 threads",
        stores: 80_000,
        threads: 2,
        surrogate_keys: (20, 20),
        ..PLAIN
    },
    Case {
        name: "churn, 1 byte, 200 own surrogate keys, 2 threads",
        stores: 15_000,
        lengths: &[1],
        threads: 2,
        surrogate_keys: (200, 50),
        ..PLAIN
    },
    Case {
        name: "churn, 1 byte behind a head of 28 KiB, 2 threads",
        stores: 20_000,
        lengths: &[1],
        threads: 2,
        head_fields: 28,
        ..PLAIN
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
        is_met &= is_met_in_most(at);
    }
    if is_met { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Whether a case meets its goal, in a process of its own. Where several threads store, what lies
/// beside what depends on when each of them runs: one that misses is to meet it twice more.
fn is_met_in_most(at: usize) -> bool {
    let run = || {
        let own = env::current_exe().expect("a path");
        let mut run = Command::new(own);
        let status = run.arg(at.to_string()).env("MALLOC_ARENA_MAX", arenas_max()).status();
        status.is_ok_and(|status| status.success())
    };
    run() || (CASES[at].threads > 1 && run() && run())
}

/// As the edge sets it, unless the environment says otherwise.
fn arenas_max() -> String {
    env::var("MALLOC_ARENA_MAX").unwrap_or_else(|_| "1".to_owned())
}

/// Prints its row; whether the goal is met.
fn run(case: &'static Case) -> bool {
    let cache = Cache::new(Config::new(case.memory_bytes, 1));
    // The tables of a fixed size belong to the process, not to what is stored.
    let nears: Vec<Near> = (0..case.threads).map(|_| Near::new(16 * 1024)).collect();
    let before = rss_bytes();
    let store_all = |(shard, near)| {
        let cache = Arc::clone(&cache);
        let thread = thread::Builder::new().name(format!("shard-{shard}"));
        thread.spawn(move || store_all(case, &cache, shard, near)).expect("a thread")
    };
    let threads: Vec<_> = nears.into_iter().enumerate().map(store_all).collect();
    let join = |thread: thread::JoinHandle<Near>| thread.join().expect("stored all");
    let mut nears: Vec<Near> = threads.into_iter().map(join).collect();
    for near in &mut nears {
        near.sweep(near.bucket_count());
    }
    let (grown, stats) = (rss_bytes().saturating_sub(before), cache.stats());
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

/// What one shard does: each stores its part, and evicts what comes next in the order of all.
fn store_all(case: &Case, cache: &Arc<Cache>, shard: usize, mut near: Near) -> Near {
    let piece = vec![b'x'; 16 << 10];
    let large = "h".repeat(900);
    for at in (shard..case.stores).step_by(case.threads) {
        let (count, length) = case.surrogate_keys;
        let own = |nth| format!("{:k<length$}", format!("{at}-{nth}-"));
        let surrogate_keys = (0..count).map(own).collect::<Vec<_>>().join(" ");
        let body_length = case.lengths[at % case.lengths.len()];
        let etag = format!("\"{at:x}-{body_length:x}\"");
        let mut fields = vec![
            ("Content-Type", "text/html; charset=utf-8"),
            ("Cache-Control", "max-age=1000"),
            ("ETag", &etag),
            ("Last-Modified", "Sun, 06 Nov 1994 08:49:37 GMT"),
            ("Server", "nginx"),
        ];
        if count > 0 {
            fields.push(("Surrogate-Key", &surrogate_keys));
        }
        fields.extend((0..case.head_fields).map(|_| ("X-Large", &*large)));
        let stored = Stored { at, shard, length: body_length };
        store(cache, &mut near, &stored, &fields, &piece);
        // As a shard does: all of the table when much is dead.
        near.sweep(if cache.is_pressed() { near.bucket_count() } else { 64 });
    }
    near
}

/// What is stored, beside its head.
struct Stored {
    at: usize,
    shard: usize,
    length: usize,
}

fn store(
    cache: &Arc<Cache>,
    near: &mut Near,
    what: &Stored,
    stored: &[(&str, &str)],
    piece: &[u8],
) {
    let target = format!("/articles/{:08}/index.html", what.at);
    let fields: &[(&str, &str)] = &[];
    let cache_key = cache.cache_key("site-1", b"www.example.com", target.as_bytes());
    let request = Request::new(Method::Get, cache_key, &fields);
    let waiter = Waiter { shard: what.shard as u16, id: 0 };
    let asking = Asking { now_ms: 1_000_000, waiter, min_version: None, waits: 0 };
    let Decision::Miss(lease) = cache.lookup(near, &request, &asking) else {
        panic!("asked for the first time");
    };
    let response = Response {
        status: 200,
        reason: b"OK",
        fields: &stored,
        length: Some(what.length as u64),
        request_at_ms: 1_000_000,
        response_at_ms: 1_000_000,
        append: b"Via: 1.1 pharos-edge-1\r\n",
    };
    let outcome = lease.head(&fields, &response, &mut Vec::new());
    let HeadOutcome::Fill { mut writer, .. } = outcome else { return };
    let mut left = what.length;
    while left > 0 {
        let next = left.min(piece.len());
        writer.append(&piece[..next], &mut Vec::new()).expect("room was made");
        left -= next;
    }
    // Memory may be full of what another thread has yet to let go of.
    let Ok(entry) = writer.finish(&mut Vec::new()) else { return };
    // The one who asked was answered with it.
    cache.serve(near, &request, 1_000_000, &entry, pharos_cache::Freshness::Fresh);
}

/// Resident pages of this process.
fn rss_bytes() -> u64 {
    let text = fs::read_to_string("/proc/self/statm").expect("Linux");
    let pages = text.split(' ').nth(1).and_then(|pages| pages.parse::<u64>().ok());
    pages.expect("the second number") * 4096
}
