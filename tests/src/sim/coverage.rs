//! Which faults and rare branches a run reached. A fault that no seed ever reaches proves nothing,
//! so the sweep prints the table and fails when a row stays at zero.

use std::collections::BTreeMap;

/// Counts by name. Merged over all seeds of a sweep.
#[derive(Clone, Default, Debug)]
pub struct Coverage(BTreeMap<&'static str, u64>);

/// Every fault kind and rare branch that a sweep of `scenario::edge` must reach at least once.
pub const REQUIRED: &[&str] = &[
    "accept: table full",
    "close: data after close asked",
    "connect: refused",
    "crash: control",
    "crash: edge",
    "disk: write lost at a crash",
    "fan-out: short send",
    "fan-out: silent success",
    "fan-out: would block",
    "mail: mailbox full",
    "net: connection reset",
    "net: hung up while watched",
    "net: partition",
    "receive: bytes after it was turned off",
    "receive: split",
    "send: completed late",
    "send: failed after part went out",
    "send: short, continued",
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
        *self.0.entry(name).or_default() += 1;
    }

    /// How often `name` happened.
    pub fn count(&self, name: &str) -> u64 {
        self.0.get(name).copied().unwrap_or(0)
    }

    /// Adds another run's counts.
    pub fn merge(&mut self, other: &Self) {
        for (name, count) in &other.0 {
            *self.0.entry(name).or_default() += count;
        }
    }

    /// What was required and never reached.
    pub fn missing(&self, required: &[&'static str]) -> Vec<&'static str> {
        required.iter().copied().filter(|name| self.count(name) == 0).collect()
    }

    /// The table, sorted by name.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, u64)> + '_ {
        self.0.iter().map(|(name, count)| (*name, *count))
    }
}
