//! When a stream's time is up: its token expires, or it is as old as its route lets it be.
//!
//! Only streams with such an end stand here, twelve bytes each; an idle stream's record knows
//! nothing of it. A stream that ends before its time is not looked for: its entry is found stale
//! when it is due, or swept out when the stale could be as many as the others.

use std::collections::BTreeMap;

use super::{Streams, Wanted};
use crate::{
    seam::{Mono, Now, SocketId},
    shard::{fanout::Budget, history::event_frame, out::Out},
};

/// The ends that are known in advance, by second.
#[derive(Default)]
pub(super) struct Lifetimes {
    by_second: BTreeMap<u64, Vec<(SocketId, TimeUp)>>,
    count: usize,
}

/// Why a stream's time is up.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum TimeUp {
    /// Its token has expired: it is told so, and comes back with another or not at all.
    Expired,
    /// It is old enough; it comes back as it was.
    Aged,
}

impl Lifetimes {
    fn add(&mut self, at: Mono, socket: SocketId, why: TimeUp) {
        self.by_second.entry(at.0.div_ceil(SECOND_NS)).or_default().push((socket, why));
        self.count += 1;
    }

    /// When the first one is due.
    pub(super) fn next_deadline(&self) -> Option<Mono> {
        self.by_second.first_key_value().map(|(&second, _)| Mono(second * SECOND_NS))
    }

    /// Whether one is due.
    pub(super) fn is_due(&self, now: Mono) -> bool {
        self.next_deadline().is_some_and(|at| at <= now)
    }

    fn take_due(&mut self, now: Mono) -> Option<(SocketId, TimeUp)> {
        let mut first = self.by_second.first_entry()?;
        if Mono(first.key() * SECOND_NS) > now {
            return None;
        }
        let due = first.get_mut().pop();
        if first.get().is_empty() {
            first.remove();
        }
        self.count -= usize::from(due.is_some());
        due
    }

    fn sweep(&mut self, mut is_open: impl FnMut(SocketId) -> bool) {
        self.by_second.retain(|_, streams| {
            streams.retain(|(socket, _)| is_open(*socket));
            !streams.is_empty()
        });
        self.count = self.by_second.values().map(Vec::len).sum();
    }
}

impl Streams {
    /// Notes when a new stream's time is up, if it ever is.
    pub(super) fn limit_lifetime(&mut self, now: Now, socket: SocketId, wanted: Wanted<'_>) {
        let expires = wanted.expires_at_ms.map(|at_ms| at_ms.saturating_sub(now.wall_ms));
        let age = wanted.route.rules.age_s_max.map(|age_s| {
            // Three quarters to five quarters: half of what the jitter gives, and a half.
            let age_ms = age_s * 1000;
            age_ms / 2 + self.jitter.half_to_three_halves(age_ms) / 2
        });
        let (after_ms, why) = match (expires, age) {
            (Some(expires), age) if age.is_none_or(|age| expires <= age) => {
                (expires, TimeUp::Expired)
            }
            (_, Some(age)) => (age, TimeUp::Aged),
            (_, None) => return,
        };
        // Farther than any clock goes.
        let after_ms = after_ms.min(LIFETIME_MS_MAX);
        self.lifetimes.add(now.mono.after_ms(after_ms), socket, why);
        if self.lifetimes.count > 2 * self.count as usize + SWEEP_ABOVE {
            let records = &self.records;
            self.lifetimes.sweep(|socket| records.get(socket.slot, socket).is_some());
        }
    }

    /// Ends streams whose time is up, as far as the budget goes.
    pub(super) fn end_due(&mut self, now: Now, budget: &mut Budget, out: &mut Out) {
        while !budget.is_spent()
            && let Some((socket, why)) = self.lifetimes.take_due(now.mono)
        {
            budget.spend(1);
            if self.records.get(socket.slot, socket).is_none() {
                continue;
            }
            match why {
                TimeUp::Expired => {
                    self.counts.expired += 1;
                    let notice = event_frame(None, "expired", r#"{"kind":"expired"}"#);
                    self.dismiss_with(socket, |_, said| said.extend_from_slice(&notice), out);
                }
                TimeUp::Aged => {
                    self.counts.aged += 1;
                    self.dismiss(socket, out);
                }
            }
        }
    }
}

const SECOND_NS: u64 = 1_000_000_000;
/// Stale entries that are not worth a sweep.
const SWEEP_ABOVE: usize = 1024;
/// Ten years.
const LIFETIME_MS_MAX: u64 = 10 * 365 * 24 * 3_600 * 1000;
const _: () = assert!(size_of::<(SocketId, TimeUp)>() == 12, "bytes of a stream that has an end");
