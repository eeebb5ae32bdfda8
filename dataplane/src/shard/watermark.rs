//! The fence of DESIGN §6: what comes behind a purge in the feed is held until every shard has
//! passed that purge.
//!
//! ```text
//!   feed ─▶ │ config │ purge 1 │ publish │ purge 2 │ cursor │ ─▶ released in this order only
//!                       │                   │
//!                       └ cut, one at a time, in slices ─▶ mailed to all shards ─▶ all passed
//! ```
//! Purges are not held by purges or by publishes before them, so many are under way at once; but
//! none begins before a configuration that stands in front of it was applied, or responses fetched
//! by the old one could be stored behind it.
//!
//! The watermark is the position of the last released cursor. Leaves to others: cutting (`cache`),
//! turns and mail (`feed`), what a fetch under way learns of a purge (`cache`).

use std::collections::VecDeque;

use proto::feed::record::Purge;

/// The queue between the feed's records and their application. `T` is what is held.
#[derive(Debug)]
pub struct Fence<T> {
    queue: VecDeque<Step<T>>,
    /// Ticket of the next purge.
    next_ticket: u64,
    shard_count: u16,
    /// Purges in the queue.
    purges: usize,
}

#[derive(Debug)]
enum Step<T> {
    Purge { ticket: u64, phase: Phase },
    Held { item: T, holds_purges: bool },
}

#[derive(Debug)]
enum Phase {
    /// Not begun.
    Waiting(Purge),
    /// Entries are being purged.
    Cutting,
    /// Mailed; so many shards have still to pass.
    Passing { left: u16 },
}

impl<T> Fence<T> {
    /// For this many shards, the feed's own included.
    pub fn new(shard_count: u16) -> Self {
        Self { queue: VecDeque::new(), next_ticket: 1, shard_count, purges: 0 }
    }

    /// Purges that some shard has not passed.
    pub fn purges(&self) -> usize {
        self.purges
    }

    /// Everything in the queue.
    pub fn len(&self) -> usize {
        self.queue.len()
    }

    /// Whether everything was released.
    pub fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// A purge has come.
    pub fn push_purge(&mut self, purge: Purge) {
        let step = Step::Purge { ticket: self.next_ticket, phase: Phase::Waiting(purge) };
        self.next_ticket += 1;
        self.purges += 1;
        self.queue.push_back(step);
    }

    /// Something has come that takes effect behind all purges before it. `holds_purges`: purges
    /// behind it begin only when it was released.
    pub fn push(&mut self, item: T, holds_purges: bool) {
        self.queue.push_back(Step::Held { item, holds_purges });
    }

    /// The next purge to cut, with its ticket; the caller cuts one at a time.
    pub fn begin_cut(&mut self) -> Option<(u64, Purge)> {
        for step in &mut self.queue {
            match step {
                Step::Held { holds_purges: true, .. } => return None,
                Step::Purge { ticket, phase: phase @ Phase::Waiting(_) } => {
                    let Phase::Waiting(purge) = std::mem::replace(phase, Phase::Cutting) else {
                        return None;
                    };
                    return Some((*ticket, purge));
                }
                Step::Held { .. } | Step::Purge { .. } => {}
            }
        }
        None
    }

    /// No look-up finds any of it any more; all shards are being told.
    pub fn end_cut(&mut self, ticket: u64) {
        let shard_count = self.shard_count;
        if let Some(phase) = self.phase(ticket) {
            *phase = Phase::Passing { left: shard_count };
        }
    }

    /// One shard has passed a turn boundary behind it.
    pub fn pass(&mut self, ticket: u64) {
        if let Some(Phase::Passing { left }) = self.phase(ticket) {
            *left = left.saturating_sub(1);
        }
    }

    /// What may take effect now, in order.
    pub fn release(&mut self) -> Option<T> {
        loop {
            match self.queue.front()? {
                Step::Purge { phase: Phase::Passing { left: 0 }, .. } => {
                    self.queue.pop_front();
                    self.purges -= 1;
                }
                Step::Purge { .. } => return None,
                Step::Held { .. } => {
                    let Some(Step::Held { item, .. }) = self.queue.pop_front() else { return None };
                    return Some(item);
                }
            }
        }
    }

    fn phase(&mut self, wanted: u64) -> Option<&mut Phase> {
        self.queue.iter_mut().find_map(|step| match step {
            Step::Purge { ticket, phase } if *ticket == wanted => Some(phase),
            Step::Purge { .. } | Step::Held { .. } => None,
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use proto::feed::record::Scope;

    use super::*;

    fn purge(position: u64) -> Purge {
        Purge { position, scope: Scope::Everything, soft: true }
    }

    #[test]
    fn a_publish_waits_until_every_shard_has_passed_its_purge() {
        let mut fence = Fence::new(2);
        fence.push_purge(purge(1));
        fence.push("publish", false);
        assert_eq!(fence.release(), None);
        let (ticket, _) = fence.begin_cut().expect("one to cut");
        fence.pass(ticket);
        assert_eq!(fence.release(), None, "an answer before the mail counts for nothing");
        fence.end_cut(ticket);
        fence.pass(ticket);
        assert_eq!(fence.release(), None);
        fence.pass(ticket);
        assert_eq!(fence.release(), Some("publish"));
        assert!(fence.is_empty() && fence.purges() == 0);
    }

    #[test]
    fn purges_do_not_wait_for_each_other() {
        let mut fence = Fence::new(1);
        for position in 1..=3 {
            fence.push_purge(purge(position));
            fence.push(position, false);
        }
        let tickets: Vec<u64> = std::iter::from_fn(|| fence.begin_cut().map(|cut| cut.0)).collect();
        assert_eq!(tickets.len(), 3);
        // They pass in any order, and release in theirs.
        for &ticket in tickets.iter().rev() {
            assert_eq!(fence.release(), None);
            fence.end_cut(ticket);
            fence.pass(ticket);
        }
        assert_eq!(std::iter::from_fn(|| fence.release()).collect::<Vec<_>>(), [1, 2, 3]);
    }

    #[test]
    fn a_purge_behind_a_configuration_begins_when_that_was_applied() {
        let mut fence = Fence::new(1);
        fence.push_purge(purge(1));
        fence.push("config", true);
        fence.push_purge(purge(2));
        let (first, _) = fence.begin_cut().expect("the first");
        assert!(fence.begin_cut().is_none());
        fence.end_cut(first);
        fence.pass(first);
        assert_eq!(fence.release(), Some("config"));
        assert_eq!(fence.begin_cut().expect("the second").1.position, 2);
    }

    #[derive(Clone, Debug)]
    enum Act {
        Purge,
        Held(bool),
        Cut,
        EndCut(usize),
        Pass(usize),
        Release,
    }

    fn act() -> impl Strategy<Value = Act> {
        prop_oneof![
            3 => Just(Act::Purge),
            3 => any::<bool>().prop_map(Act::Held),
            3 => Just(Act::Cut),
            3 => any::<usize>().prop_map(Act::EndCut),
            5 => any::<usize>().prop_map(Act::Pass),
            4 => Just(Act::Release),
        ]
    }

    proptest! {
        /// Whatever the order of answers: released in order, never before all shards passed each
        /// purge in front, and everything in the end.
        #[test]
        fn the_order_of_the_feed_is_kept(acts in prop::collection::vec(act(), 1..150)) {
            const SHARDS: u16 = 3;
            let mut fence = Fence::new(SHARDS);
            // Purges as (number in the feed, ticket, answers); held ones by number.
            let (mut number, mut cutting, mut passing) = (0u32, Vec::new(), Vec::new());
            let mut open: Vec<u32> = Vec::new();
            let mut released: Vec<u32> = Vec::new();
            let mut purge_numbers = Vec::new();
            let finish = std::iter::repeat_n(
                [Act::Cut, Act::EndCut(0), Act::Pass(0), Act::Release], 1000,
            ).flatten();
            for act in acts.into_iter().chain(finish) {
                match act {
                    Act::Purge => {
                        number += 1;
                        fence.push_purge(purge(number.into()));
                        open.push(number);
                        purge_numbers.push(number);
                    }
                    Act::Held(holds_purges) => {
                        number += 1;
                        fence.push(number, holds_purges);
                    }
                    Act::Cut => if let Some((ticket, purge)) = fence.begin_cut() {
                        cutting.push((purge.position as u32, ticket));
                    },
                    Act::EndCut(which) if !cutting.is_empty() => {
                        let (number, ticket) = cutting.remove(which % cutting.len());
                        fence.end_cut(ticket);
                        passing.push((number, ticket, SHARDS));
                    }
                    Act::Pass(which) if !passing.is_empty() => {
                        let at = which % passing.len();
                        fence.pass(passing[at].1);
                        passing[at].2 -= 1;
                        if passing[at].2 == 0 {
                            open.retain(|open| *open != passing[at].0);
                            passing.remove(at);
                        }
                    }
                    Act::Release => while let Some(item) = fence.release() {
                        prop_assert!(open.iter().all(|open| *open > item), "{item} before its purge");
                        prop_assert!(released.last().is_none_or(|last| *last < item));
                        released.push(item);
                    },
                    Act::EndCut(_) | Act::Pass(_) => {}
                }
            }
            prop_assert_eq!(released.len() + purge_numbers.len(), number as usize);
            prop_assert!(fence.is_empty());
        }
    }
}
