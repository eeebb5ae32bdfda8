//! A timer wheel: many coarse deadlines, cheap to set, late by one tick at most.
//!
//! A timer is never cancelled. Its owner notes its own deadline and looks at it when the timer
//! fires: if it moved on, the owner sets the timer again. So a request on a kept-alive connection
//! costs a store, not a wheel operation.
//!
//! Connections come and go faster than their timers, so a timer is not of a connection but of its
//! row: whoever has the row when it fires is asked. A thousand streams opened through one row leave
//! one timer behind, not a thousand.

use super::slab::Ref;
use crate::seam::Mono;

/// Whose timer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Timer {
    /// The row of a downstream connection; set by [`Timers::set_conn`].
    Conn(u32),
    /// A fetch.
    Fetch(Ref),
    /// A fetch that waits for the readers of an overflow.
    FetchLook(Ref),
    /// A kept connection to an origin: row and serial.
    Origin(u32, u32),
}

/// The wheel.
pub struct Timers {
    slots: Vec<Vec<(Mono, Timer)>>,
    /// One bit a slot that is not empty.
    occupied: [u64; SLOTS / 64],
    /// Ticks up to and including this one have fired.
    fired_tick: u64,
    count: usize,
    /// By row of a connection: when the timer fires that counts, [`NEVER`] for none. Later ones may
    /// be set too and are ignored.
    conns: Vec<Mono>,
}

const TICK_NS: u64 = 50_000_000;
const SLOTS: usize = 1024;

impl Timers {
    /// Empty, as of `now`.
    pub fn new(now: Mono) -> Self {
        Self {
            slots: (0..SLOTS).map(|_| Vec::new()).collect(),
            occupied: [0; SLOTS / 64],
            fired_tick: now.0 / TICK_NS,
            count: 0,
            conns: Vec::new(),
        }
    }

    /// Timers set.
    pub fn count(&self) -> usize {
        self.count
    }

    /// Sets a timer.
    pub fn set(&mut self, at: Mono, timer: Timer) {
        // Rounded up: never early.
        let tick = at.0.div_ceil(TICK_NS).max(self.fired_tick + 1);
        let slot = (tick % SLOTS as u64) as usize;
        self.slots[slot].push((at, timer));
        self.occupied[slot / 64] |= 1 << (slot % 64);
        self.count += 1;
    }

    /// Sets the timer of a connection's row, unless one is set that fires no later: whoever has the
    /// row then looks at his own deadline, and sets it again.
    pub fn set_conn(&mut self, row: u32, at: Mono) {
        let index = row as usize;
        if self.conns.len() <= index {
            self.conns.resize(index + 1, NEVER);
        }
        if at < self.conns[index] {
            self.conns[index] = at;
            self.set(at, Timer::Conn(row));
        }
    }

    /// Takes out the timers that are due.
    pub fn expire(&mut self, now: Mono, due: &mut Vec<Timer>) {
        let to = now.0 / TICK_NS;
        // One whole turn of the wheel sees every slot.
        let from = (self.fired_tick + 1).max(to.saturating_sub(SLOTS as u64 - 1));
        for tick in from..=to {
            let slot = (tick % SLOTS as u64) as usize;
            if self.occupied[slot / 64] & (1 << (slot % 64)) == 0 {
                continue;
            }
            let Self { slots, conns, count, .. } = self;
            slots[slot].retain(|&(at, timer)| {
                let stays = at > now;
                if !stays {
                    *count -= 1;
                    if counts(conns, timer, now) {
                        due.push(timer);
                    }
                }
                stays
            });
            if self.slots[slot].is_empty() {
                self.occupied[slot / 64] &= !(1 << (slot % 64));
                self.slots[slot].shrink_to(SLOT_KEPT);
            }
        }
        self.fired_tick = self.fired_tick.max(to);
    }

    /// When [`Timers::expire`] has something to look at; perhaps only timers of a later turn of the
    /// wheel.
    pub fn next_deadline(&self) -> Option<Mono> {
        if self.count == 0 {
            return None;
        }
        let first = self.fired_tick + 1;
        let start = (first % SLOTS as u64) as usize;
        // The word of `start` is looked at twice: from its bit on, and at last below it.
        for step in 0..=SLOTS / 64 {
            let word = (start / 64 + step) % (SLOTS / 64);
            let mut bits = self.occupied[word];
            if step == 0 {
                bits &= u64::MAX << (start % 64);
            } else if step == SLOTS / 64 {
                bits &= !(u64::MAX << (start % 64));
            }
            if bits != 0 {
                let slot = word * 64 + bits.trailing_zeros() as usize;
                let ahead = (slot + SLOTS - start) % SLOTS;
                return Some(Mono((first + ahead as u64) * TICK_NS));
            }
        }
        None
    }
}

/// Whether a timer that fires means something; a connection's is no more set then.
fn counts(conns: &mut [Mono], timer: Timer, now: Mono) -> bool {
    let Timer::Conn(row) = timer else { return true };
    let Some(at) = conns.get_mut(row as usize) else { return false };
    let counts = *at <= now;
    if counts {
        *at = NEVER;
    }
    counts
}

const NEVER: Mono = Mono(u64::MAX);
/// Room kept by an emptied slot.
const SLOT_KEPT: usize = 64;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn every_timer_fires_once_never_early_and_at_most_a_tick_late(
            delays_ms in prop::collection::vec(0u64..200_000, 1..50),
            start_ms in 0u64..1_000_000,
        ) {
            let start = Mono::default().after_ms(start_ms);
            let mut timers = Timers::new(start);
            for (at, delay_ms) in delays_ms.iter().enumerate() {
                timers.set(start.after_ms(*delay_ms), Timer::Origin(at as u32, 0));
            }
            let (mut fired, mut due) = (0, Vec::new());
            while let Some(now) = timers.next_deadline() {
                timers.expire(now, &mut due);
                for timer in due.drain(..) {
                    let Timer::Origin(index, _) = timer else { panic!("only those were set") };
                    let at = start.after_ms(delays_ms[index as usize]);
                    prop_assert!(now >= at && now.since_ns(at) <= TICK_NS, "{now:?} for {at:?}");
                    fired += 1;
                }
            }
            prop_assert_eq!(fired, delays_ms.len());
            prop_assert_eq!(timers.count(), 0);
        }
    }

    #[test]
    fn a_long_sleep_fires_everything_that_was_due() {
        let mut timers = Timers::new(Mono(0));
        for seconds in 0..600 {
            timers.set(Mono(0).after_ms(seconds * 1000), Timer::Origin(seconds as u32, 0));
        }
        let mut due = Vec::new();
        timers.expire(Mono(0).after_ms(599_100), &mut due);
        assert_eq!(due.len(), 600);
    }

    #[test]
    fn a_row_has_one_timer_that_counts_however_often_its_tenant_changes() {
        let mut timers = Timers::new(Mono(0));
        let mut due = Vec::new();
        for tenant in 0..1_000 {
            timers.set_conn(3, Mono(0).after_ms(10_000 + tenant));
        }
        assert_eq!(timers.count(), 1);
        timers.expire(Mono(0).after_ms(10_100), &mut due);
        assert_eq!(std::mem::take(&mut due), [Timer::Conn(3)]);
        // An earlier deadline counts at once, and the later timer is then nobody's.
        timers.set_conn(3, Mono(0).after_ms(20_000));
        timers.set_conn(3, Mono(0).after_ms(15_000));
        timers.expire(Mono(0).after_ms(15_100), &mut due);
        assert_eq!(std::mem::take(&mut due), [Timer::Conn(3)]);
        timers.expire(Mono(0).after_ms(20_100), &mut due);
        assert_eq!((due.len(), timers.count()), (0, 0));
    }
}
