//! Ending streams of our own accord: all of them paced over a time, or those of one topic, each
//! with a jittered `retry:` so that nobody comes back with everyone.

use super::{Streams, answer::LAST_CHUNK};
use crate::{
    seam::{Close, Mono, Payload, Segment, SocketId},
    shard::{fanout::Budget, history::chunk, out::Out, slow_consumer::State},
};

/// Ending all streams: the hand that goes over the slots, and by when it must be through.
pub(super) struct Ending {
    pub(super) start: Mono,
    pub(super) over_ms: u64,
    pub(super) hand: u32,
}

impl Streams {
    /// Ends a stream of our own accord, with a `retry:` if its body stands between two chunks.
    pub(super) fn dismiss(&mut self, socket: SocketId, out: &mut Out) {
        self.dismiss_with(socket, b"", out);
    }

    /// The same, with something said before, in chunks.
    pub(super) fn dismiss_with(&mut self, socket: SocketId, said: &[u8], out: &mut Out) {
        let Some(record) = self.records.get(socket.slot, socket) else { return };
        let between = match record.place.row() {
            None => true,
            Some(row) => matches!(self.side.get(row).state, State::Waiting { .. }),
        };
        if between {
            let route = self.audiences.at(record.audience).route();
            let retry_ms = route.rules.retry_ms.unwrap_or(self.limits.retry_ms);
            let retry_ms = self.jitter.half_to_three_halves(retry_ms);
            let mut last = out.buffer();
            last.extend_from_slice(said);
            last.extend_from_slice(&chunk(format!("retry: {retry_ms}\n\n").as_bytes()));
            last.extend_from_slice(LAST_CHUNK);
            out.send(socket, Payload::One(Segment::Owned(last)));
        }
        self.end(socket, Close::Graceful, out);
    }

    /// Slots whose streams should have been ended by now.
    pub(super) fn ending_wanted(&self, now: Mono) -> u32 {
        let Some(ending) = &self.ending else { return 0 };
        let slots = self.records.slots();
        let elapsed_ms = now.since_ns(ending.start) / 1_000_000 + 1;
        let due = u64::from(slots) * elapsed_ms.min(ending.over_ms) / ending.over_ms;
        (due as u32).saturating_sub(ending.hand)
    }

    pub(super) fn end_some(&mut self, now: Mono, budget: &mut Budget, out: &mut Out) {
        let wanted = self.ending_wanted(now);
        let Some(ending) = &mut self.ending else { return };
        let start = ending.hand;
        let visits = wanted.min(budget.left());
        ending.hand += visits;
        for slot in start..start + visits {
            let (socket, record) = self.records.socket(slot);
            if !record.place.is_none() {
                budget.spend(1);
                self.dismiss(socket, out);
            }
        }
    }
}

impl Ending {
    /// When the next slot is due, in steps of at least 50 ms: smooth enough.
    pub(super) fn next_deadline(&self, streams: &Streams) -> Option<Mono> {
        let (slots, hand) = (u64::from(streams.records.slots()), u64::from(self.hand));
        let due_ms = |slot: u64| (slot * self.over_ms).div_ceil(slots);
        (hand < slots).then(|| {
            let next_ms = due_ms(hand + 1).max(due_ms(hand) + 50).min(self.over_ms);
            self.start.after_ms(next_ms)
        })
    }
}
