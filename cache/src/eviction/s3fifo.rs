//! S3-FIFO (Yang et al., SOSP '23): a small queue for newcomers, a main queue for what was asked
//! for again, and the ghosts of newcomers that left.
//!
//! ```text
//!   new ──▶ small ──used more than once──▶ main ──used: round again, one use less──┐
//!   ghost? ──────────────────────────────▶ main ◀─────────────────────────────────┘
//!             └─otherwise──▶ out, a ghost    └─not used──▶ out
//! ```
//! The small queue is worth a tenth of the bytes. What is asked for once, such as a scan, passes
//! through it and leaves the main queue alone. Uses are counted by the owner of the numbers, up to
//! [`USES_MAX`], because a near hit counts them without a lock.

use hashbrown::HashTable;
use std::collections::VecDeque;

/// Uses of a number are counted up to this.
pub(crate) const USES_MAX: u32 = 3;

/// The queues, over small numbers.
#[derive(Debug, Default)]
pub(crate) struct S3Fifo {
    /// By number.
    links: Vec<Link>,
    small: Queue,
    main: Queue,
    ghosts: Ghosts,
}

/// How often numbers were used; kept by their owner.
pub(crate) trait Uses {
    /// Uses since it came in or was last reset, and from now on none.
    fn reset(&mut self, number: u32) -> u32;
    /// Uses left, and from now on one less.
    fn decrement(&mut self, number: u32) -> u32;
}

#[derive(Clone, Copy, Debug, Default)]
struct Link {
    newer: Option<u32>,
    older: Option<u32>,
    place: Place,
    bytes: u64,
    hash: u64,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
enum Place {
    #[default]
    Out,
    Small,
    Main,
}

#[derive(Debug, Default)]
struct Queue {
    newest: Option<u32>,
    oldest: Option<u32>,
    bytes: u64,
    len: usize,
}

impl S3Fifo {
    /// Takes a number in. `hash` is what its ghost would be known by.
    pub(crate) fn insert(&mut self, number: u32, hash: u64, bytes: u64) {
        let at = number as usize;
        if self.links.len() <= at {
            self.links.resize(at + 1, Link::default());
        }
        assert!(self.links[at].place == Place::Out, "a number is in one queue, once");
        let place = if self.ghosts.take(hash) { Place::Main } else { Place::Small };
        self.links[at] = Link { bytes, hash, ..Link::default() };
        self.push(number, place);
    }

    /// Takes a number out; one that is not in is no error.
    pub(crate) fn remove(&mut self, number: u32) {
        let at = number as usize;
        if self.links.get(at).is_some_and(|link| link.place != Place::Out) {
            self.unlink(number);
            self.links[at] = Link::default();
        }
    }

    /// It has other bytes from now on.
    pub(crate) fn reweigh(&mut self, number: u32, bytes: u64) {
        let link = &mut self.links[number as usize];
        let before = std::mem::replace(&mut link.bytes, bytes);
        let queue = match link.place {
            Place::Out => return,
            Place::Small => &mut self.small,
            Place::Main => &mut self.main,
        };
        queue.bytes = queue.bytes - before + bytes;
    }

    /// The number to go, still in its queue; `None` after this many looks, or when nothing is in.
    pub(crate) fn victim(&mut self, uses: &mut impl Uses, looks_max: usize) -> Option<u32> {
        for _ in 0..looks_max {
            let bytes = self.small.bytes + self.main.bytes;
            let is_small_over = self.small.bytes > bytes / SMALL_SHARE;
            let (from, number) = match (self.small.oldest, self.main.oldest) {
                (Some(number), None) => (Place::Small, number),
                (Some(number), Some(_)) if is_small_over => (Place::Small, number),
                (_, Some(number)) => (Place::Main, number),
                (None, None) => return None,
            };
            let stays = match from {
                Place::Small => uses.reset(number) > 1,
                _ => uses.decrement(number) > 0,
            };
            if !stays {
                if from == Place::Small {
                    let ghosts_max = self.small.len + self.main.len;
                    self.ghosts.insert(self.links[number as usize].hash, ghosts_max);
                }
                return Some(number);
            }
            self.unlink(number);
            self.push(number, Place::Main);
        }
        None
    }

    fn push(&mut self, number: u32, place: Place) {
        let queue = if place == Place::Small { &mut self.small } else { &mut self.main };
        let link = &mut self.links[number as usize];
        (link.place, link.newer, link.older) = (place, None, queue.newest);
        queue.bytes += link.bytes;
        queue.len += 1;
        match queue.newest.replace(number) {
            Some(newest) => self.links[newest as usize].newer = Some(number),
            None => queue.oldest = Some(number),
        }
    }

    fn unlink(&mut self, number: u32) {
        let link = self.links[number as usize];
        let queue = if link.place == Place::Small { &mut self.small } else { &mut self.main };
        queue.bytes -= link.bytes;
        queue.len -= 1;
        match link.newer {
            Some(newer) => self.links[newer as usize].older = link.older,
            None => queue.newest = link.older,
        }
        match link.older {
            Some(older) => self.links[older as usize].newer = link.newer,
            None => queue.oldest = link.newer,
        }
    }
}

/// Newcomers that left, by half a hash: a collision only promotes one newcomer too early. At most
/// as many as there are entries.
#[derive(Debug, Default)]
struct Ghosts {
    /// Half hash and serial number.
    known: HashTable<(u32, u32)>,
    order: VecDeque<(u32, u32)>,
    serial: u32,
}

impl Ghosts {
    fn insert(&mut self, hash: u64, ghosts_max: usize) {
        let half = half(hash);
        self.take(hash);
        self.serial = self.serial.wrapping_add(1);
        let ghost = (half, self.serial);
        self.known.insert_unique(spread(half), ghost, |known| spread(known.0));
        self.order.push_back(ghost);
        while self.order.len() > ghosts_max {
            let Some(oldest) = self.order.pop_front() else { return };
            if let Ok(found) = self.known.find_entry(spread(oldest.0), |known| *known == oldest) {
                found.remove();
            }
        }
    }

    /// Whether it was here; it is not any more.
    fn take(&mut self, hash: u64) -> bool {
        let half = half(hash);
        match self.known.find_entry(spread(half), |known| known.0 == half) {
            Ok(found) => {
                found.remove();
                true
            }
            Err(_) => false,
        }
    }
}

fn half(hash: u64) -> u32 {
    (hash >> 32) as u32 ^ hash as u32
}

/// A table wants its bits in all places.
fn spread(half: u32) -> u64 {
    u64::from(half).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

/// The small queue is worth one part in this many.
const SMALL_SHARE: u64 = 10;

#[cfg(all(test, not(loom)))]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;

    #[derive(Default)]
    struct Counted(HashMap<u32, u32>);

    impl Uses for Counted {
        fn reset(&mut self, number: u32) -> u32 {
            self.0.insert(number, 0).unwrap_or(0)
        }

        fn decrement(&mut self, number: u32) -> u32 {
            let uses = self.0.entry(number).or_insert(0);
            let before = *uses;
            *uses = before.saturating_sub(1);
            before
        }
    }

    fn evict(queues: &mut S3Fifo, uses: &mut Counted) -> Option<u32> {
        let victim = queues.victim(uses, 1000)?;
        queues.remove(victim);
        Some(victim)
    }

    #[test]
    fn what_was_used_twice_stays_and_the_rest_goes_oldest_first() {
        let mut queues = S3Fifo::default();
        (0..10).for_each(|number| queues.insert(number, u64::from(number), 1));
        let mut uses = Counted(HashMap::from([(1, 2), (3, 1)]));
        let order: Vec<_> = (0..9).filter_map(|_| evict(&mut queues, &mut uses)).collect();
        assert_eq!(order, [0, 2, 3, 4, 5, 6, 7, 8, 9]);
        assert_eq!(evict(&mut queues, &mut uses), Some(1));
        assert_eq!(evict(&mut queues, &mut uses), None);
    }

    #[test]
    fn a_ghost_that_returns_enters_the_main_queue() {
        let mut queues = S3Fifo::default();
        let mut uses = Counted::default();
        (0..10).for_each(|number| queues.insert(number, u64::from(number), 1));
        assert_eq!(evict(&mut queues, &mut uses), Some(0));
        queues.insert(0, 0, 1);
        assert_eq!((queues.small.len, queues.main.len), (9, 1));
    }

    #[test]
    fn ghosts_are_bounded() {
        let mut ghosts = Ghosts::default();
        (0..1000).for_each(|hash| ghosts.insert(hash % 100, 10));
        assert!(ghosts.known.len() <= 10 && ghosts.order.len() <= 10);
        assert!(ghosts.take(99) && !ghosts.take(99) && !ghosts.take(1));
    }

    proptest! {
        #[test]
        fn every_number_goes_once_and_bytes_add_up(
            ops in prop::collection::vec((0u32..20, 0u8..5, 1u64..50), 0..300)
        ) {
            let mut queues = S3Fifo::default();
            let mut uses = Counted::default();
            let mut inside = HashMap::new();
            for (number, op, bytes) in ops {
                match op {
                    0 if !inside.contains_key(&number) => {
                        inside.insert(number, bytes);
                        queues.insert(number, u64::from(number), bytes);
                    }
                    1 => {
                        inside.remove(&number);
                        queues.remove(number);
                    }
                    2 => *uses.0.entry(number).or_insert(0) += 1,
                    3 => if let Some(known) = inside.get_mut(&number) {
                        *known = bytes;
                        queues.reweigh(number, bytes);
                    },
                    _ => if let Some(victim) = evict(&mut queues, &mut uses) {
                        prop_assert!(inside.remove(&victim).is_some());
                    },
                }
                prop_assert_eq!(queues.small.len + queues.main.len, inside.len());
                let bytes: u64 = inside.values().sum();
                prop_assert_eq!(queues.small.bytes + queues.main.bytes, bytes);
            }
            while let Some(victim) = evict(&mut queues, &mut uses) {
                prop_assert!(inside.remove(&victim).is_some());
            }
            prop_assert!(inside.is_empty());
        }
    }
}
