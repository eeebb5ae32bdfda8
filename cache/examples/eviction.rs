//! Hit ratios of eviction policies on generated request sequences; the figures of
//! docs/adr/0006-eviction.md.
//!
//! `cargo run --release -p pharos-cache --example eviction`. Everything follows from one seed.
//! S3-FIFO is the very file that the cache uses; SIEVE and LRU stand here to compare with; *cache*
//! is the whole [`pharos_cache::Cache`], asked through its facade.
#![allow(clippy::print_stdout, reason = "it prints a table")]

use std::{collections::HashMap, sync::Arc};

use pharos_cache::{
    Asking, Cache, Config, Decision, HeadOutcome, Method, Near, Request, Response, Waiter,
};

#[allow(dead_code, unreachable_pub, reason = "the cache's own file, with its tests")]
#[path = "../src/eviction/s3fifo.rs"]
mod s3fifo;

const REQUESTS: usize = 2_000_000;
const ITEMS: usize = 100_000;

fn main() {
    println!("| sequence | cache, % of items | LRU | S3-FIFO | SIEVE | cache |");
    println!("|---|---|---|---|---|---|");
    for (name, sequence) in sequences() {
        for percent in [1, 5, 20] {
            let capacity = ITEMS * percent / 100;
            println!(
                "| {name} | {percent} | {:.4} | {:.4} | {:.4} | {:.4} |",
                ratio(&sequence, &mut Lru::new(capacity)),
                ratio(&sequence, &mut S3Fifo::new(capacity)),
                ratio(&sequence, &mut Sieve::new(capacity)),
                ratio(&sequence, &mut WholeCache::new(capacity)),
            );
        }
    }
}

// -- sequences --

fn sequences() -> Vec<(&'static str, Vec<u32>)> {
    vec![
        ("Zipf 0.8", zipf(0.8, 0, 0.0)),
        ("Zipf 1.0", zipf(1.0, 0, 0.0)),
        ("Zipf 1.2", zipf(1.2, 0, 0.0)),
        ("Zipf 1.0, 30 % scan", zipf(1.0, 0, 0.3)),
        ("Zipf 1.0, popularity shifts each 100,000", zipf(1.0, 100_000, 0.0)),
        ("Zipf 0.8, popularity shifts each 20,000", zipf(0.8, 20_000, 0.0)),
    ]
}

/// Items by Zipf's law. With `shift_every`, the most popular thousandth changes places with others
/// that often; `scan` is the share of requests that run through items nobody asks for again.
fn zipf(exponent: f64, shift_every: usize, scan: f64) -> Vec<u32> {
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    let mut sum = 0.0;
    let sums: Vec<f64> = (1..=ITEMS)
        .map(|rank| {
            sum += (rank as f64).powf(-exponent);
            sum
        })
        .collect();
    let mut items: Vec<u32> = (0..ITEMS as u32).collect();
    let mut scanned = ITEMS as u32;
    (0..REQUESTS)
        .map(|at| {
            if shift_every > 0 && at % shift_every == 0 {
                for rank in 0..ITEMS / 1000 {
                    items.swap(rank, random.below(ITEMS));
                }
            }
            if random.unit() < scan {
                scanned += 1;
                return scanned;
            }
            let wanted = random.unit() * sum;
            items[sums.partition_point(|&sum| sum < wanted).min(ITEMS - 1)]
        })
        .collect()
}

/// SplitMix64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut bits = self.0;
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        bits ^ (bits >> 31)
    }

    fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1u64 << 53) as f64
    }

    fn below(&mut self, end: usize) -> usize {
        (self.unit() * end as f64) as usize
    }
}

// -- policies --

/// A cache of items of one size.
trait Policy {
    /// Asks for an item; a miss stores it. Whether it was a hit.
    fn ask(&mut self, item: u32) -> bool;
}

/// Hits among requests after the first fifth, which fills the cache.
fn ratio(sequence: &[u32], policy: &mut dyn Policy) -> f64 {
    let (warming, counted) = sequence.split_at(sequence.len() / 5);
    for &item in warming {
        policy.ask(item);
    }
    counted.iter().filter(|&&item| policy.ask(item)).count() as f64 / counted.len() as f64
}

struct Lru {
    capacity: usize,
    now: u64,
    used_at: HashMap<u32, u64>,
    order: std::collections::BTreeMap<u64, u32>,
}

impl Lru {
    fn new(capacity: usize) -> Self {
        Self { capacity, now: 0, used_at: HashMap::new(), order: Default::default() }
    }
}

impl Policy for Lru {
    fn ask(&mut self, item: u32) -> bool {
        self.now += 1;
        let before = self.used_at.insert(item, self.now);
        self.order.insert(self.now, item);
        if let Some(before) = before {
            self.order.remove(&before);
        } else if self.used_at.len() > self.capacity
            && let Some((_, oldest)) = self.order.pop_first()
        {
            self.used_at.remove(&oldest);
        }
        before.is_some()
    }
}

/// The cache's S3-FIFO, over items of one byte.
struct S3Fifo {
    capacity: usize,
    queues: s3fifo::S3Fifo,
    numbers: HashMap<u32, u32>,
    uses: Counted,
    items: Vec<u32>,
}

struct Counted(Vec<u32>);

impl s3fifo::Uses for Counted {
    fn reset(&mut self, number: u32) -> u32 {
        std::mem::take(&mut self.0[number as usize])
    }

    fn decrement(&mut self, number: u32) -> u32 {
        let uses = self.0[number as usize];
        self.0[number as usize] = uses.saturating_sub(1);
        uses
    }
}

impl S3Fifo {
    fn new(capacity: usize) -> Self {
        let queues = s3fifo::S3Fifo::default();
        let (numbers, items) = Default::default();
        Self { capacity, queues, numbers, uses: Counted(Vec::new()), items }
    }
}

impl Policy for S3Fifo {
    fn ask(&mut self, item: u32) -> bool {
        if let Some(&number) = self.numbers.get(&item) {
            let uses = &mut self.uses.0[number as usize];
            *uses = (*uses + 1).min(s3fifo::USES_MAX);
            return true;
        }
        let number = if self.items.len() < self.capacity {
            self.items.push(item);
            self.uses.0.push(0);
            self.items.len() as u32 - 1
        } else {
            let victim = self.queues.victim(&mut self.uses, usize::MAX).expect("something is in");
            self.queues.remove(victim);
            self.numbers.remove(&self.items[victim as usize]);
            self.items[victim as usize] = item;
            self.uses.0[victim as usize] = 0;
            victim
        };
        let hash = u64::from(item).wrapping_mul(0xd6e8_feb8_6659_fd93);
        self.queues.insert(number, hash, 1);
        self.numbers.insert(item, number);
        false
    }
}

/// SIEVE (Zhang et al., NSDI '24): one queue in order of arrival, a hand from its tail to its head
/// that spares what was used and takes the first that was not.
struct Sieve {
    capacity: usize,
    /// Item and whether it was used, by slot; with the slots newer and older than it.
    slots: Vec<(u32, bool, usize, usize)>,
    at: HashMap<u32, usize>,
    head: usize,
    tail: usize,
    hand: usize,
}

const NONE: usize = usize::MAX;

impl Sieve {
    fn new(capacity: usize) -> Self {
        let (slots, at) = Default::default();
        Self { capacity, slots, at, head: NONE, tail: NONE, hand: NONE }
    }

    fn evict(&mut self) -> usize {
        let mut slot = if self.hand == NONE { self.tail } else { self.hand };
        while std::mem::take(&mut self.slots[slot].1) {
            let newer = self.slots[slot].2;
            slot = if newer == NONE { self.tail } else { newer };
        }
        let (item, _, newer, older) = self.slots[slot];
        self.hand = newer;
        match newer {
            NONE => self.head = older,
            _ => self.slots[newer].3 = older,
        }
        match older {
            NONE => self.tail = newer,
            _ => self.slots[older].2 = newer,
        }
        self.at.remove(&item);
        slot
    }
}

impl Policy for Sieve {
    fn ask(&mut self, item: u32) -> bool {
        if let Some(&slot) = self.at.get(&item) {
            self.slots[slot].1 = true;
            return true;
        }
        let slot = if self.slots.len() < self.capacity {
            self.slots.push((0, false, NONE, NONE));
            self.slots.len() - 1
        } else {
            self.evict()
        };
        self.slots[slot] = (item, false, NONE, self.head);
        match self.head {
            NONE => self.tail = slot,
            head => self.slots[head].2 = slot,
        }
        self.head = slot;
        self.at.insert(item, slot);
        false
    }
}

/// The real thing, its memory set so that about `capacity` entries fit.
struct WholeCache {
    cache: Arc<Cache>,
    near: Near,
}

impl WholeCache {
    fn new(capacity: usize) -> Self {
        let one = Cache::new(Config::new(1 << 30, 1));
        let mut probe = Self { cache: one, near: Near::new(1) };
        for item in 0..100 {
            probe.ask(1_000_000 + item);
        }
        let entry_bytes = probe.cache.stats().used_bytes / 100;
        // Seven eighths are for the living.
        let memory_bytes = entry_bytes * capacity as u64 * 8 / 7;
        Self { cache: Cache::new(Config::new(memory_bytes, 1)), near: Near::new(64) }
    }
}

impl Policy for WholeCache {
    fn ask(&mut self, item: u32) -> bool {
        let target = format!("/{item:08}");
        let fields: &[(&str, &str)] = &[];
        let cache_key = self.cache.cache_key("s", b"h", target.as_bytes());
        let request = Request::new(Method::Get, cache_key, &fields);
        let waiter = Waiter { shard: 0, id: 0 };
        let asking = Asking { now_ms: 1_000_000, waiter, min_version: None, waits: 0 };
        let lease = match self.cache.lookup(&mut self.near, &request, &asking) {
            Decision::Hit(_) => return true,
            Decision::Miss(lease) => lease,
            other => panic!("neither hit nor miss: {other:?}"),
        };
        let stored: &[(&str, &str)] = &[("Cache-Control", "max-age=1000")];
        let response = Response {
            status: 200,
            reason: b"OK",
            fields: &stored,
            length: Some(8),
            request_at_ms: 1_000_000,
            response_at_ms: 1_000_000,
            append: b"",
        };
        if let HeadOutcome::Fill { mut writer, .. } =
            lease.head(&fields, &response, &mut Vec::new())
        {
            writer.append(b"12345678", &mut Vec::new()).expect("room for eight bytes");
            writer.finish(&mut Vec::new()).expect("eight of eight bytes");
        }
        self.near.sweep(8);
        false
    }
}
