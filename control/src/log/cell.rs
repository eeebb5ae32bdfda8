//! One value that several replicas may write: last writer wins, and what lost against a concurrent
//! write is kept.
//!
//! Causal order first: a write that had seen another replaces it, whatever the clocks say. Only
//! between concurrent writes (HLC, replica) decides. A loser stays until a later write that had
//! seen it, which is somebody's decision.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{
    dot::{Dot, VersionVector},
    hlc::Hlc,
};

/// When and seeing what an operation was written.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Stamp {
    /// The operation.
    pub dot: Dot,
    /// Its time.
    pub hlc: Hlc,
    /// What its writer had applied.
    pub context: VersionVector,
}

/// One write of a cell.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Written {
    /// What was written.
    pub value: Value,
    /// By which operation.
    #[serde(flatten)]
    pub stamp: Stamp,
}

/// The writes that no other write had seen. Invariant: pairwise concurrent, sorted by (HLC,
/// replica), so the last is the winner; at most one a replica, because a replica has seen its own
/// writes.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Cell(Vec<Written>);

impl Cell {
    /// Takes a write, in whatever order writes come. Taking one twice changes nothing.
    pub fn write(&mut self, written: Written) {
        let dot = written.stamp.dot;
        let known = |kept: &Written| kept.stamp.dot == dot || kept.stamp.context.contains(dot);
        if self.0.iter().any(known) {
            return;
        }
        self.0.retain(|kept| !written.stamp.context.contains(kept.stamp.dot));
        let rank = |written: &Written| (written.stamp.hlc, written.stamp.dot);
        let at = self.0.partition_point(|kept| rank(kept) < rank(&written));
        self.0.insert(at, written);
    }

    /// The value that holds; `None` before the first write.
    pub fn value(&self) -> Option<&Value> {
        self.0.last().map(|written| &written.value)
    }

    /// The write that holds.
    pub fn winner(&self) -> Option<&Written> {
        self.0.last()
    }

    /// What lost against a concurrent write and has not been seen by a later one.
    pub fn losers(&self) -> &[Written] {
        self.0.split_last().map_or(&[], |(_, losers)| losers)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(value: &str, dot: &str, ms: u64, context: &str) -> Written {
        let stamp = Stamp {
            dot: dot.parse().expect("valid"),
            hlc: Hlc::from_ms(ms),
            context: context.parse().expect("valid"),
        };
        Written { value: value.into(), stamp }
    }

    fn check(writes: &[Written], value: &str, losers: &[&str]) {
        let mut forward = Cell::default();
        writes.iter().for_each(|write| forward.write(write.clone()));
        let mut backward = Cell::default();
        writes.iter().rev().for_each(|write| backward.write(write.clone()));
        writes.iter().for_each(|write| backward.write(write.clone()));
        assert_eq!(forward, backward);
        assert_eq!(forward.value(), Some(&Value::from(value)));
        let lost: Vec<_> = forward.losers().iter().map(|loser| loser.value.clone()).collect();
        assert_eq!(lost, losers);
    }

    #[test]
    fn a_write_that_saw_another_wins_even_with_an_earlier_clock() {
        let first = written("old", "eu-00000001:1", 9_000, "");
        let second = written("new", "us-00000001:1", 10, "eu-00000001:1");
        check(&[first, second], "new", &[]);
    }

    #[test]
    fn of_concurrent_writes_the_later_wins_and_the_loser_is_kept() {
        let eu = written("eu", "eu-00000001:1", 10, "");
        let us = written("us", "us-00000001:1", 11, "");
        check(&[eu, us], "us", &["eu"]);
    }

    #[test]
    fn equal_clocks_are_decided_by_the_replica() {
        let eu = written("eu", "eu-00000001:1", 10, "");
        let us = written("us", "us-00000001:1", 10, "");
        check(&[us, eu], "us", &["eu"]);
    }

    #[test]
    fn a_write_that_saw_the_conflict_ends_it() {
        let eu = written("eu", "eu-00000001:1", 10, "");
        let us = written("us", "us-00000001:1", 11, "");
        let end = written("both", "eu-00000001:2", 12, "eu-00000001:1,us-00000001:1");
        check(&[eu, us, end], "both", &[]);
    }
}
