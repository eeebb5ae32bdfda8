//! Policies over items of given sizes: what the cache has, what it was compared with, and the best
//! that could be known afterwards.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

use pharos_cache::{
    Asking, Cache, Config, Decision, HeadOutcome, Method, Near, Request, Response, Waiter,
};

use crate::{s3fifo, sequences::Sequence};

/// A cache.
pub trait Policy {
    /// Asks for an item of this size; a miss stores it, unless it alone is larger than the cache.
    /// Whether it was a hit.
    fn ask(&mut self, item: u32, bytes: u32) -> bool;
}

/// Hits among requests after the first fifth, which fills the cache.
pub fn ratio(sequence: &Sequence, policy: &mut dyn Policy) -> f64 {
    let (warming, counted) = sequence.items.split_at(sequence.items.len() / 5);
    let mut ask = |item: u32| policy.ask(item, sequence.bytes[item as usize]);
    for &item in warming {
        ask(item);
    }
    counted.iter().filter(|&&item| ask(item)).count() as f64 / counted.len() as f64
}

/// Items in an order of eviction, lowest first: LRU, LFU and Belady's differ only in the rank.
pub struct Ranked {
    capacity_bytes: u64,
    used_bytes: u64,
    held: HashMap<u32, ((u64, u64), u32)>,
    order: BTreeSet<((u64, u64), u32)>,
    now: u64,
    rank: Rank,
}

enum Rank {
    /// Least recently used goes first.
    Recency,
    /// Least frequently used goes first, of equals the one longest unused; counted while it is held.
    Frequency,
    /// The one whose next use lies farthest goes first, a newcomer included (Belady 1966). The best
    /// there can be for items of one size; close to it otherwise.
    NextUse(Vec<u64>),
}

impl Ranked {
    pub fn lru(capacity_bytes: u64) -> Self {
        Self::new(capacity_bytes, Rank::Recency)
    }

    pub fn lfu(capacity_bytes: u64) -> Self {
        Self::new(capacity_bytes, Rank::Frequency)
    }

    pub fn belady(capacity_bytes: u64, sequence: &Sequence) -> Self {
        let mut next = vec![u64::MAX; sequence.items.len()];
        let mut last = vec![u64::MAX; sequence.bytes.len()];
        for (at, &item) in sequence.items.iter().enumerate().rev() {
            next[at] = std::mem::replace(&mut last[item as usize], at as u64);
        }
        Self::new(capacity_bytes, Rank::NextUse(next))
    }

    fn new(capacity_bytes: u64, rank: Rank) -> Self {
        let (held, order) = Default::default();
        Self { capacity_bytes, used_bytes: 0, held, order, now: 0, rank }
    }
}

impl Policy for Ranked {
    fn ask(&mut self, item: u32, bytes: u32) -> bool {
        let before = self.held.remove(&item);
        if let Some((rank, bytes)) = before {
            self.order.remove(&(rank, item));
            self.used_bytes -= u64::from(bytes);
        }
        let rank = match &self.rank {
            Rank::Recency => (self.now, 0),
            Rank::Frequency => (before.map_or(1, |((uses, _), _)| uses + 1), self.now),
            Rank::NextUse(next) => (u64::MAX - next[self.now as usize], 0),
        };
        self.now += 1;
        if u64::from(bytes) > self.capacity_bytes {
            return false;
        }
        self.held.insert(item, (rank, bytes));
        self.order.insert((rank, item));
        self.used_bytes += u64::from(bytes);
        while self.used_bytes > self.capacity_bytes {
            // A newcomer of LFU would go at once, and nothing new ever stay.
            let is_own = |first: &((u64, u64), u32)| {
                first.1 == item && matches!(self.rank, Rank::Frequency) && self.order.len() > 1
            };
            let mut lowest = self.order.iter().copied();
            let victim = lowest.find(|first| !is_own(first));
            let Some(victim) = victim else { break };
            self.order.remove(&victim);
            if let Some((_, bytes)) = self.held.remove(&victim.1) {
                self.used_bytes -= u64::from(bytes);
            }
        }
        before.is_some()
    }
}

/// The cache's S3-FIFO.
pub struct S3Fifo {
    capacity_bytes: u64,
    used_bytes: u64,
    queues: s3fifo::S3Fifo,
    numbers: HashMap<u32, u32>,
    uses: Counted,
    items: Vec<(u32, u32)>,
    free: Vec<u32>,
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
    pub fn new(capacity_bytes: u64) -> Self {
        let (queues, numbers) = Default::default();
        let (uses, items, free) = (Counted(Vec::new()), Vec::new(), Vec::new());
        Self { capacity_bytes, used_bytes: 0, queues, numbers, uses, items, free }
    }
}

impl Policy for S3Fifo {
    fn ask(&mut self, item: u32, bytes: u32) -> bool {
        if let Some(&number) = self.numbers.get(&item) {
            let uses = &mut self.uses.0[number as usize];
            *uses = (*uses + 1).min(s3fifo::USES_MAX);
            return true;
        }
        if u64::from(bytes) > self.capacity_bytes {
            return false;
        }
        while self.used_bytes + u64::from(bytes) > self.capacity_bytes {
            let Some(victim) = self.queues.victim(&mut self.uses, usize::MAX) else { break };
            self.queues.remove(victim);
            let (item, bytes) = self.items[victim as usize];
            self.numbers.remove(&item);
            self.used_bytes -= u64::from(bytes);
            self.free.push(victim);
        }
        let number = self.free.pop().unwrap_or_else(|| {
            self.items.push((0, 0));
            self.uses.0.push(0);
            self.items.len() as u32 - 1
        });
        self.items[number as usize] = (item, bytes);
        self.uses.0[number as usize] = 0;
        self.used_bytes += u64::from(bytes);
        let hash = u64::from(item).wrapping_mul(0xd6e8_feb8_6659_fd93);
        self.queues.insert(number, hash, bytes.into());
        self.numbers.insert(item, number);
        false
    }
}

/// SIEVE (Zhang et al., NSDI '24): one queue in order of arrival, a hand from its tail to its head
/// that spares what was used and takes the first that was not.
pub struct Sieve {
    capacity_bytes: u64,
    used_bytes: u64,
    /// By arrival: the item, its size, whether it was used.
    queue: BTreeMap<u64, (u32, u32, bool)>,
    at: HashMap<u32, u64>,
    hand: u64,
    now: u64,
}

impl Sieve {
    pub fn new(capacity_bytes: u64) -> Self {
        let (queue, at) = Default::default();
        Self { capacity_bytes, used_bytes: 0, queue, at, hand: 0, now: 0 }
    }

    fn evict(&mut self) -> bool {
        loop {
            let next = self.queue.range_mut(self.hand..).next();
            let Some((&arrival, (item, bytes, was_used))) = next else {
                if self.hand == 0 {
                    return false;
                }
                self.hand = 0;
                continue;
            };
            self.hand = arrival + 1;
            if std::mem::take(was_used) {
                continue;
            }
            self.used_bytes -= u64::from(*bytes);
            self.at.remove(item);
            self.queue.remove(&arrival);
            return true;
        }
    }
}

impl Policy for Sieve {
    fn ask(&mut self, item: u32, bytes: u32) -> bool {
        let arrival = self.at.get(&item);
        if let Some(known) = arrival.and_then(|arrival| self.queue.get_mut(arrival)) {
            known.2 = true;
            return true;
        }
        if u64::from(bytes) > self.capacity_bytes {
            return false;
        }
        while self.used_bytes + u64::from(bytes) > self.capacity_bytes && self.evict() {}
        self.now += 1;
        self.queue.insert(self.now, (item, bytes, false));
        self.at.insert(item, self.now);
        self.used_bytes += u64::from(bytes);
        false
    }
}

/// The real thing, asked through its facade. Its memory is set so that about as many bytes of bodies
/// fit as the others have.
pub struct WholeCache {
    cache: Arc<Cache>,
    near: Near,
    body: Vec<u8>,
}

impl WholeCache {
    pub fn new(capacity_bytes: u64, sequence: &Sequence) -> Self {
        let longest = sequence.bytes.iter().max().copied().unwrap_or(1) as usize;
        let body = vec![b'x'; longest];
        let one = Cache::new(Config::new(1 << 30, 1));
        let mut probe = Self { cache: one, near: Near::new(1), body: body.clone() };
        for item in 0..100 {
            probe.ask(1_000_000_000 + item, 1);
        }
        let overhead_bytes = probe.cache.stats().used_bytes / 100 - 1;
        let mean_bytes = (sequence.whole_bytes / sequence.bytes.len().max(1) as u64).max(1);
        let memory_bytes = capacity_bytes + overhead_bytes * (capacity_bytes / mean_bytes);
        // Seven eighths are for the living.
        let cache = Cache::new(Config::new(memory_bytes * 8 / 7, 1));
        Self { cache, near: Near::new(64), body }
    }
}

impl Policy for WholeCache {
    fn ask(&mut self, item: u32, bytes: u32) -> bool {
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
            length: Some(bytes.into()),
            request_at_ms: 1_000_000,
            response_at_ms: 1_000_000,
            append: b"",
        };
        if let HeadOutcome::Fill { mut writer, .. } =
            lease.head(&fields, &response, &mut Vec::new())
        {
            // Where memory is full of what cannot be evicted, it is not stored: a miss, next time.
            let body = &self.body[..bytes as usize];
            if writer.append(body, &mut Vec::new()).is_ok() {
                let _ = writer.finish(&mut Vec::new());
            }
        }
        self.near.sweep(8);
        false
    }
}
