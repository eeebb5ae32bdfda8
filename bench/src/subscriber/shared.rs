//! What subscribers are given, how they are told to go on, and what they find: shared by the rings
//! of one run and the thread that watches them.

use std::{
    net::SocketAddr,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering},
    },
};

use bytes::Bytes;

use crate::{
    record::Delays,
    subscriber::{
        chain::{Faults, Sighted},
        publisher::Publish,
    },
};

/// What one subscriber does.
#[derive(Clone, Debug)]
pub(crate) struct Subscription {
    pub(crate) to: SocketAddr,
    /// The request that opens a stream; `{t}` is replaced by the number of its topic.
    pub(crate) request: Bytes,
    /// Which shard this is, of how many; streams and sources are dealt out in turn.
    pub(crate) seat: (u16, u16),
    /// Streams of all shards: a multiple of `topics`.
    pub(crate) streams: u32,
    /// Topics of all shards: one, or at least as many as shards. One of several lies in one shard
    /// with all its streams.
    pub(crate) topics: u32,
    /// Addresses 127.0.0.2 and on, of all shards.
    pub(crate) sources: u32,
    /// Streams being opened at a time, of this shard.
    pub(crate) opening_max: u32,
    /// Every so many-th stream stops reading once it is open; 0 is none.
    pub(crate) stall_every: u32,
    /// Only the first shard publishes, but all know the plan.
    pub(crate) publish: Option<Publish>,
}

/// Orders to all subscribers of a run, and what they show while it goes on.
#[derive(Debug)]
pub(crate) struct Shared {
    stage: AtomicU8,
    /// Streams of all shards that may be open.
    pub(crate) allowed: AtomicU32,
    /// No stream is to be read.
    pub(crate) muted: AtomicBool,
    /// Rings that do as `muted` says, counted at each change.
    pub(crate) obeyed: AtomicU32,
    /// Publishes that may be sent; beyond what is planned it says nothing.
    pub(crate) publish_max: AtomicU32,
    pub(crate) open: AtomicU32,
    pub(crate) lost: AtomicU32,
    /// Of `open`, those that do not read.
    pub(crate) stalled: AtomicU32,
    /// Opens that were refused or failed, and are tried again.
    pub(crate) refused: AtomicU32,
    pub(crate) deliveries: AtomicU64,
    pub(crate) beats: AtomicU64,
    /// When the latest publish was to be sent, 0 before the first.
    pub(crate) published_at_ns: AtomicU64,
    /// When the first one was to be sent, 0 before it.
    pub(crate) begun_at_ns: AtomicU64,
    pub(crate) published: AtomicU32,
    /// The publisher has nothing left to do.
    pub(crate) publishing_done: AtomicU8,
    outcomes: Mutex<Vec<Held>>,
}

/// What all subscribers are to do.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Stage {
    Open,
    Publish,
    End,
}

/// What one subscriber found.
#[derive(Clone, Debug)]
pub(crate) struct Held {
    pub(crate) delays: Delays,
    pub(crate) events: Vec<Sighted>,
    pub(crate) faults: Faults,
    /// Streams still open at the end, but for those that do not read.
    pub(crate) open: u32,
    /// Deliveries that never came, where topics lie in one shard each.
    pub(crate) missing: u64,
    pub(crate) beats: u64,
    pub(crate) gaps: u64,
    /// Events without an id, whose order cannot be checked.
    pub(crate) unnamed: u64,
    pub(crate) data_bytes: u64,
    pub(crate) protocol_errors: u64,
    pub(crate) published: u32,
    pub(crate) publish_failed: u32,
    pub(crate) publish_late: Delays,
}

impl Default for Shared {
    fn default() -> Self {
        Self {
            stage: AtomicU8::new(0),
            allowed: AtomicU32::new(0),
            muted: AtomicBool::new(false),
            obeyed: AtomicU32::new(0),
            publish_max: AtomicU32::new(u32::MAX),
            open: AtomicU32::new(0),
            lost: AtomicU32::new(0),
            stalled: AtomicU32::new(0),
            refused: AtomicU32::new(0),
            deliveries: AtomicU64::new(0),
            beats: AtomicU64::new(0),
            published_at_ns: AtomicU64::new(0),
            begun_at_ns: AtomicU64::new(0),
            published: AtomicU32::new(0),
            publishing_done: AtomicU8::new(0),
            outcomes: Mutex::default(),
        }
    }
}

impl Shared {
    pub(crate) fn stage(&self) -> Stage {
        match self.stage.load(Ordering::Acquire) {
            0 => Stage::Open,
            1 => Stage::Publish,
            _ => Stage::End,
        }
    }

    pub(crate) fn order(&self, stage: Stage) {
        self.stage.store(stage as u8, Ordering::Release);
    }

    pub(crate) fn put_outcome(&self, held: Held) {
        self.outcomes.lock().unwrap_or_else(PoisonError::into_inner).push(held);
    }

    pub(crate) fn take_outcomes(&self) -> Vec<Held> {
        std::mem::take(&mut self.outcomes.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Subscription {
    /// Topics of this shard; with one for all, it has that one.
    pub(super) fn own_topics(&self) -> u32 {
        if self.topics > 1 { share(self.topics, self.seat) } else { 1 }
    }

    /// Streams of this shard.
    pub(super) fn own_streams(&self) -> u32 {
        if self.topics > 1 {
            self.own_topics() * (self.streams / self.topics)
        } else {
            share(self.streams, self.seat)
        }
    }

    /// Streams of this shard that may be open.
    pub(super) fn own_allowed(&self, allowed: u32) -> u32 {
        if allowed >= self.streams { self.own_streams() } else { share(allowed, self.seat) }
            .min(self.own_streams())
    }

    /// Which of this shard's topics a stream of it has.
    pub(super) fn own_topic(&self, index: u32) -> u32 {
        index % self.own_topics().max(1)
    }

    /// The number of that topic among all.
    pub(super) fn topic(&self, index: u32) -> u32 {
        let (seat, seats) = self.seat;
        if self.topics > 1 { self.own_topic(index) * u32::from(seats) + u32::from(seat) } else { 0 }
    }

    /// Number of a stream among those of all shards, near enough to spread them.
    pub(super) fn number(&self, index: u32) -> u32 {
        let (seat, seats) = self.seat;
        index * u32::from(seats) + u32::from(seat)
    }

    /// Whether a stream stops reading.
    pub(super) fn stalls(&self, index: u32) -> bool {
        self.stall_every > 0 && self.number(index) % self.stall_every == self.stall_every - 1
    }
}

impl Held {
    pub(crate) fn new() -> Self {
        Self {
            delays: Delays::new(),
            events: Vec::new(),
            faults: Faults::default(),
            open: 0,
            missing: 0,
            beats: 0,
            gaps: 0,
            unnamed: 0,
            data_bytes: 0,
            protocol_errors: 0,
            published: 0,
            publish_failed: 0,
            publish_late: Delays::new(),
        }
    }
}

/// What the shard in `seat` has of `count`, dealt out in turn.
fn share(count: u32, (seat, seats): (u16, u16)) -> u32 {
    let (seat, seats) = (u32::from(seat), u32::from(seats.max(1)));
    count / seats + u32::from(count % seats > seat)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(streams: u32, topics: u32, seat: (u16, u16)) -> Subscription {
        Subscription {
            to: SocketAddr::from(([127, 0, 0, 1], 80)),
            request: Bytes::new(),
            seat,
            streams,
            topics,
            sources: 1,
            opening_max: 8,
            stall_every: 0,
            publish: None,
        }
    }

    #[test]
    fn streams_are_dealt_out_in_turn() {
        let shares: Vec<u32> = (0..3).map(|seat| plan(10, 1, (seat, 3)).own_streams()).collect();
        assert_eq!(shares, [4, 3, 3]);
    }

    #[test]
    fn a_topic_of_several_lies_in_one_shard_with_all_its_streams() {
        let mut streams_of = vec![0; 7];
        for seat in 0..3 {
            let plan = plan(7 * 4, 7, (seat, 3));
            for index in 0..plan.own_streams() {
                assert_eq!(plan.topic(index) % 3, u32::from(seat));
                streams_of[plan.topic(index) as usize] += 1;
            }
        }
        assert_eq!(streams_of, [4; 7]);
    }

    #[test]
    fn one_in_so_many_stalls() {
        let stalled: u32 = (0..2)
            .map(|seat| {
                let plan = Subscription { stall_every: 10, ..plan(100, 1, (seat, 2)) };
                (0..plan.own_streams()).filter(|index| plan.stalls(*index)).count() as u32
            })
            .sum();
        assert_eq!(stalled, 10);
    }
}
