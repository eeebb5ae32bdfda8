//! SIEVE (Zhang et al., NSDI '24): one queue, one hand.
//!
//! New numbers enter at the head. The hand walks from the tail to the head; what was visited since
//! it last came by is spared and loses its mark in place, the first that was not goes. So what is
//! used stays where it is, and what came once leaves at the next pass of the hand. The marks live
//! with the owner of the numbers (the entry's state word), because a near hit sets them without a
//! lock.
//!
//! Belongs to a segment of [`crate::index`] and is guarded by its lock.

/// A queue over small numbers.
#[derive(Debug, Default)]
pub(crate) struct Sieve {
    /// By number.
    links: Vec<Link>,
    head: Option<u32>,
    tail: Option<u32>,
    /// Next to be looked at; the tail if none.
    hand: Option<u32>,
    len: usize,
}

#[derive(Clone, Copy, Debug, Default)]
struct Link {
    /// Toward the head.
    newer: Option<u32>,
    /// Toward the tail.
    older: Option<u32>,
    is_in: bool,
}

impl Sieve {
    /// Takes a number in.
    pub(crate) fn insert(&mut self, number: u32) {
        let at = number as usize;
        if self.links.len() <= at {
            self.links.resize(at + 1, Link::default());
        }
        assert!(!self.links[at].is_in, "a number is in the queue once");
        self.links[at] = Link { newer: None, older: self.head, is_in: true };
        match self.head {
            Some(head) => self.links[head as usize].newer = Some(number),
            None => self.tail = Some(number),
        }
        self.head = Some(number);
        self.len += 1;
    }

    /// Takes a number out; one that is not in is no error.
    pub(crate) fn remove(&mut self, number: u32) {
        let Some(link) = self.links.get(number as usize).copied().filter(|link| link.is_in) else {
            return;
        };
        match link.newer {
            Some(newer) => self.links[newer as usize].older = link.older,
            None => self.head = link.older,
        }
        match link.older {
            Some(older) => self.links[older as usize].newer = link.newer,
            None => self.tail = link.newer,
        }
        if self.hand == Some(number) {
            self.hand = link.newer;
        }
        self.links[number as usize] = Link::default();
        self.len -= 1;
    }

    /// The number to go, still in the queue; `None` if a whole round found only visited ones. With
    /// few numbers in each of many queues, taking one of those would evict what is used most. The
    /// caller goes on to the next queue and comes back. `take_visited` says whether a number was
    /// visited, and clears that.
    pub(crate) fn victim(&mut self, mut take_visited: impl FnMut(u32) -> bool) -> Option<u32> {
        for _ in 0..self.len {
            let at = self.hand.or(self.tail)?;
            if !take_visited(at) {
                // `remove` moves the hand on.
                self.hand = Some(at);
                return Some(at);
            }
            self.hand = self.links[at as usize].newer;
        }
        None
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_visited_are_spared_once_and_the_rest_goes_oldest_first() {
        let mut sieve = Sieve::default();
        (0..5).for_each(|number| sieve.insert(number));
        let mut visited = HashSet::from([0, 2]);
        let mut order = Vec::new();
        while let Some(victim) = sieve.victim(|number| visited.remove(&number)) {
            order.push(victim);
            sieve.remove(victim);
        }
        assert_eq!(order, [1, 3, 4, 0, 2]);
    }

    #[test]
    fn nothing_goes_in_a_round_that_finds_all_visited() {
        let mut sieve = Sieve::default();
        (0..3).for_each(|number| sieve.insert(number));
        let mut visited = HashSet::from([0, 1, 2]);
        assert_eq!(sieve.victim(|number| visited.remove(&number)), None);
        assert_eq!(sieve.victim(|number| visited.remove(&number)), Some(0));
    }

    proptest! {
        #[test]
        fn every_number_in_the_queue_goes_once(
            ops in prop::collection::vec((0u32..20, 0u8..3), 0..200)
        ) {
            let mut sieve = Sieve::default();
            let mut inside = HashSet::new();
            for (number, op) in ops {
                match op {
                    0 => if inside.insert(number) { sieve.insert(number) },
                    1 => if inside.remove(&number) { sieve.remove(number) },
                    _ => if let Some(victim) = sieve.victim(|at| at % 3 == 0) {
                        prop_assert!(inside.remove(&victim));
                        sieve.remove(victim);
                    },
                }
            }
            prop_assert_eq!(sieve.len, inside.len());
            prop_assert_eq!(sieve.victim(|_| true), None);
            while let Some(victim) = sieve.victim(|_| false) {
                prop_assert!(inside.remove(&victim));
                sieve.remove(victim);
            }
            prop_assert!(inside.is_empty());
        }
    }
}
