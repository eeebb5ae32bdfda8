//! Which faults and rare branches a run reached. A fault that no seed ever reaches proves nothing,
//! so the sweep prints the table and fails when a row stays at zero.

use std::collections::BTreeSet;

/// Counts by name. Merged over all seeds of a sweep.
///
/// Counted at every piece received, so that a row is found by the address of its name; a name that
/// lies at several addresses has several rows until it is read.
#[derive(Clone, Default, Debug)]
pub struct Coverage(Vec<(&'static str, u64)>);

/// Every fault kind and rare branch that a sweep of `scenario::edge` must reach at least once.
pub const REQUIRED: &[&str] = &[
    "accept: refused, no room",
    "accept: table full",
    "answer: bypass",
    "answer: collapsed",
    "answer: revalidated",
    "answer: stale",
    "cache: answer not stored",
    "cache: evicted",
    "cache: fetch failed",
    "cache: updated by a 304",
    "clock: stepped",
    "close: data after close asked",
    "connect: refused",
    "control: replaced by an older copy",
    "crash: control",
    "crash: edge",
    "crash: origin",
    "disk: byte spoiled",
    "disk: full",
    "disk: write lost at a crash",
    "edge: drained",
    "encoding: dropped",
    "encoding: kept",
    "fan-out: short send",
    "fan-out: short send, then another",
    "fan-out: silent success",
    "fan-out: would block",
    "feed: event came twice",
    "feed: session lost",
    "fetch: broken off",
    "fetch: malformed answer",
    "fetch: no connection",
    "fetch: repeated, a kept connection was dead",
    "fetch: timed out",
    "kept: damaged file ignored",
    "kept: disk failed",
    "kept: page restored",
    "mail: mailbox full",
    "net: connection reset",
    "net: hung up while watched",
    "net: partition",
    "net: reset after an acknowledged send",
    "origin: 503",
    "origin: body cut short",
    "origin: nonsense",
    "origin: reset instead of an answer",
    "receive: bytes after it was turned off",
    "receive: ended by no buffers",
    "receive: split",
    "send: completed late",
    "send: failed after part went out",
    "send: short, continued",
    "stream: gap told",
    "stream: opened with a gap",
    "stream: refused with a retry",
    "stream: socket full",
    "visitor: hung up",
    "visitor: left a stream",
];

/// The same for `scenario::edge` with rules, beside what it must reach without.
pub const REQUIRED_RULES: &[&str] = &[
    "answer: collapsed",
    "answer: revalidated",
    "answer: stale",
    "cache: evicted",
    "rule: hit by a key with a field",
    "rule: hit by a key without the query",
    "rule: hit by its lifetime",
    "rule: hit on what the origin forbids",
    "rule: passed",
];

/// The same for `scenario::edges`.
pub const REQUIRED_EDGES: &[&str] = &[
    "crash: control",
    "crash: edge",
    "edges: ended by a drain",
    "edges: end called back",
    "edges: drain undone",
    "edges: nobody is ready",
    "feed: session lost",
    "net: partition",
    "stream: cut by the deadline",
    "stream: gap told",
    "stream: led to another edge",
    "stream: moved",
    "stream: opened with a gap",
    "stream: over the budget",
];

/// The same for `scenario::edges`, with edges that ask for topics.
pub const REQUIRED_TOPICS: &[&str] = &[
    "crash: control",
    "crash: edge",
    "edges: asked for all for want of room",
    "edges: asked for topics",
    "feed: session lost",
    "net: partition",
    "relay: a record left out",
    "relay: a topic began",
    "relay: an edge follows another",
    "stream: gap told",
    "stream: its topic did not begin",
    "visitor: watches another page",
];

/// The same for `scenario::durability`.
pub const REQUIRED_DURABILITY: &[&str] = &[
    "commit: several requests",
    "disk: full",
    "idempotency: answered again",
    "power: failed inside a commit",
    "power: failed while closing",
    "power: failed while opening",
    "power: kept what was not acknowledged",
    "power: write lost",
    "power: write torn",
    "power: writes reordered",
];

/// The same for `scenario::regions`.
pub const REQUIRED_REGIONS: &[&str] = &[
    "crash: region",
    "regions: clock quarantined",
    "regions: conflict with a loser kept",
    "regions: message into a partition",
    "regions: message lost",
    "regions: message overtakes",
    "regions: message repeated",
    "regions: operation before its cause",
    "regions: operation delivered again",
    "regions: replaced by an older copy",
    "regions: writes lost at a crash",
];

impl Coverage {
    /// Notes that `name` happened.
    pub fn hit(&mut self, name: &'static str) {
        self.add(name, 1);
    }

    /// Notes that `name` happened so often.
    pub fn add(&mut self, name: &'static str, count: u64) {
        match self.0.iter_mut().find(|(known, _)| std::ptr::eq(*known, name)) {
            Some((_, known)) => *known += count,
            None => self.0.push((name, count)),
        }
    }

    /// How often `name` happened.
    pub fn count(&self, name: &str) -> u64 {
        self.0.iter().filter(|(known, _)| *known == name).map(|(_, count)| count).sum()
    }

    /// Adds another run's counts.
    pub fn merge(&mut self, other: &Self) {
        other.0.iter().for_each(|(name, count)| self.add(name, *count));
    }

    /// What was required and never reached.
    pub fn missing(&self, required: &[&'static str]) -> Vec<&'static str> {
        required.iter().copied().filter(|name| self.count(name) == 0).collect()
    }

    /// The table, sorted by name.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, u64)> + '_ {
        let names: BTreeSet<&'static str> = self.0.iter().map(|(name, _)| *name).collect();
        names.into_iter().map(|name| (name, self.count(name)))
    }
}
