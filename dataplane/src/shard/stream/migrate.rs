//! Moving streams to other edges: a hand that goes once over the table of streams, at a pace.
//!
//! ```text
//!   slots  0 ── moved ──▶ hand ─ due ─▶                  len
//! ```
//! A stream that is moved is told `event: migrate` (without id, so that it changes nobody's
//! cursor), then a `retry:` of its own, then the end of the body: a plain `EventSource` comes back
//! after that time and resumes by its cursor wherever its address leads it then.
//!
//! The pace counts streams, not slots. What is behind the hand is done with; streams that open
//! meanwhile are refused by a drain.
//!
//! Leaves to others: what ends and how (`ending`), when a drain begins and by when it must be
//! through (`super::drain`).

use std::sync::Arc;

use proto::feed::site::Placement;

use super::Streams;
use crate::{
    limits,
    seam::{Mono, Now},
    shard::{audience::Audience, fanout::Budget, opening::Interval, out::Out, placement::Circle},
};

/// Moves under way.
pub(super) struct Moving {
    who: Who,
    start: Mono,
    /// Between two moves.
    interval: Interval,
    hand: u32,
    moved: u64,
    /// When the last ones were moved.
    last: Mono,
}

enum Who {
    /// Everyone, by a drain: nobody comes meanwhile.
    All,
    /// Those that another edge is preferred for now.
    Some(Rearranged),
}

/// The circle has changed.
#[derive(Clone, Debug)]
pub struct Rearranged {
    /// From this.
    pub old: Arc<Circle>,
    /// To this.
    pub new: Arc<Circle>,
    /// Which member of the new one this edge is.
    pub own: usize,
}

impl Rearranged {
    /// Whether another edge than before is preferred for an audience's streams, and not this one.
    fn moves(&self, audience: &Audience) -> bool {
        let Self { old, new, own } = self;
        if audience.route().rules.placement != Placement::Redirect {
            return false;
        }
        let home = new.home(audience.name());
        home != *own && new.members()[home] != old.members()[old.home(audience.name())]
    }
}

/// How fast streams are moved.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Pace {
    /// One each so often.
    Each(Interval),
    /// Those that are open, evenly over this time.
    OverMs(u64),
}

impl Moving {
    fn new(who: Who, now: Mono, pace: Pace, streams: u32) -> Self {
        let ns = match pace {
            Pace::Each(interval) => interval.ns,
            Pace::OverMs(over_ms) => over_ms.saturating_mul(1_000_000) / u64::from(streams.max(1)),
        };
        let interval = Interval { ns: ns.max(1) };
        Self { who, start: now, interval, hand: 0, moved: 0, last: now }
    }

    /// Streams that should have been moved by now and have not.
    fn due(&self, now: Mono) -> u64 {
        (now.since_ns(self.start) / self.interval.ns + 1).saturating_sub(self.moved)
    }

    /// When the next one is due, in steps of at least 20 ms: smooth enough.
    fn next_at(&self) -> Mono {
        let due_ns = self.start.0.saturating_add(self.moved.saturating_mul(self.interval.ns));
        Mono(due_ns.max(self.last.after_ms(STEP_MS).0))
    }
}

impl Streams {
    /// Moves all streams elsewhere, those that open meanwhile not taken in; `None` stops doing so.
    pub fn drain(&mut self, now: Now, pace: Option<Pace>, out: &mut Out) {
        self.moving = pace.map(|pace| Moving::new(Who::All, now.mono, pace, self.count));
        if pace.is_some() {
            out.yield_turn();
        }
    }

    /// Moves the streams that another edge is preferred for since a change of the circle, evenly
    /// over a time. A drain moves them anyway.
    pub fn rearrange(&mut self, now: Now, mut change: Rearranged, over_ms: u64, out: &mut Out) {
        match self.moving.take() {
            Some(drain @ Moving { who: Who::All, .. }) => {
                self.moving = Some(drain);
                return;
            }
            // Who was to go and is still here goes by what was before that.
            Some(Moving { who: Who::Some(before), .. }) => change.old = before.old,
            None => {}
        }
        let moved = self.audiences.iter().filter(|(_, audience)| change.moves(audience));
        let streams: u32 = moved.map(|(_, audience)| audience.streams).sum();
        if streams > 0 {
            let pace = Pace::OverMs(over_ms);
            self.moving = Some(Moving::new(Who::Some(change), now.mono, pace, streams));
            out.yield_turn();
        }
    }

    /// Whether a drain lets nobody in.
    pub(super) fn drains(&self) -> bool {
        matches!(self.moving, Some(Moving { who: Who::All, .. }))
    }

    /// Moves nobody any more; who is left is cut.
    pub fn end_moves(&mut self) {
        if let Some(moving) = &mut self.moving {
            moving.hand = u32::MAX;
        }
    }

    /// Streams of the drain under way that were moved so far.
    pub fn drained(&self) -> u64 {
        self.moving.as_ref().filter(|_| self.drains()).map_or(0, |moving| moving.moved)
    }

    /// Whether some are to be moved now.
    pub(super) fn are_moves_due(&self, now: Mono) -> bool {
        let slots = self.records.slots();
        self.moving.as_ref().is_some_and(|moving| moving.hand < slots && moving.due(now) > 0)
    }

    /// When the next ones are.
    pub(super) fn next_move(&self) -> Option<Mono> {
        let moving = self.moving.as_ref()?;
        (moving.hand < self.records.slots()).then(|| moving.next_at())
    }

    /// Moves those that are due, as far as the budget goes.
    pub(super) fn move_some(&mut self, now: Mono, budget: &mut Budget, out: &mut Out) {
        let slots = self.records.slots();
        for _ in 0..limits::MOVE_VISITS_MAX {
            let Some(moving) = &mut self.moving else { return };
            if moving.hand >= slots && matches!(moving.who, Who::Some(_)) {
                self.moving = None;
                return;
            }
            if budget.is_spent() || moving.hand >= slots || moving.due(now) == 0 {
                return;
            }
            moving.last = now;
            let slot = moving.hand;
            moving.hand += 1;
            let (socket, record) = self.records.socket(slot);
            let reason = match &moving.who {
                _ if record.place.is_none() => continue,
                Who::All => "drain",
                Who::Some(change) if change.moves(self.audiences.at(record.audience)) => "circle",
                Who::Some(_) => continue,
            };
            moving.moved += 1;
            budget.spend(1);
            self.counts.migrated += 1;
            self.dismiss_to_elsewhere(socket, reason, out);
        }
    }
}

const STEP_MS: u64 = 20;
