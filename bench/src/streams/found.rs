//! What a holding of streams found: the sum of what its subscribers saw, in the words of the
//! report.

use std::collections::HashMap;

use dataplane::seam::Mono;
use serde::Serialize;

use crate::{
    record::DelaySummary,
    streams::{
        memory::Memory,
        watch::{Mark, Sample},
    },
    subscriber::{chain::Faults, shared::Held},
};

/// What one holding found.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct SseRun {
    /// Streams asked for, all of which were open at once.
    pub(crate) streams: u32,
    /// Topics they were spread over.
    pub(crate) topics: u32,
    /// Of these streams, those that stopped reading.
    pub(crate) stalled: u32,
    /// From the first connect to the last head.
    pub(crate) opened_s: f64,
    /// Opens that were refused or failed and tried again.
    pub(crate) refused: u32,
    /// Streams that ended before they were to.
    pub(crate) lost: u32,
    /// Publishes sent, and how many of them failed.
    pub(crate) published: u32,
    /// See `published`.
    pub(crate) publish_failed: u32,
    /// Events delivered, of all streams together.
    pub(crate) deliveries: u64,
    /// Bytes of their data.
    pub(crate) data_bytes: u64,
    /// Deliveries that never came, of events that some stream got.
    pub(crate) missing: u64,
    /// Publishes that were answered well and that no stream was told of.
    pub(crate) unseen: u64,
    /// Breaks of the order.
    pub(crate) faults: Faults,
    /// Answers that were no event stream.
    pub(crate) protocol_errors: u64,
    /// Heartbeats.
    pub(crate) beats: u64,
    /// Gaps told.
    pub(crate) gaps: u64,
    /// Events without id.
    pub(crate) unnamed: u64,
    /// From when the publish was to be sent to each delivery.
    pub(crate) delay: DelaySummary,
    /// The same as a curve: share of the deliveries, and microseconds that they took at most.
    pub(crate) delay_curve: Vec<(f64, u64)>,
    /// From when each publish was to be sent until it was.
    pub(crate) publish_late: DelaySummary,
    /// Each event.
    pub(crate) events: Vec<EventRun>,
    /// Time with all streams open before the first event.
    pub(crate) quiet: Option<Quiet>,
    /// Time from the first event on.
    pub(crate) held_s: f64,
    /// The server's memory, if its process was named.
    pub(crate) memory: Option<Memory>,
    /// The server's CPU time while events were published, if its process was named.
    pub(crate) fan_out: Option<FanOut>,
    /// The engine that held the streams, and why.
    pub(crate) engine: String,
    /// Rings that the streams were spread over.
    pub(crate) shards: u16,
    /// Looks at it while it went on.
    pub(crate) samples: Vec<Sample>,
    /// What began when.
    pub(crate) marks: Vec<Mark>,
}

/// All streams open, and nothing published.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Quiet {
    /// How long.
    pub(crate) seconds: f64,
    /// Heartbeats told meanwhile.
    pub(crate) beats: u64,
    /// Share of a core that the server used.
    pub(crate) busy: Option<f64>,
}

/// One event's way.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct EventRun {
    /// From the publish to the first delivery.
    pub(crate) first_us: u64,
    /// From the publish to the last delivery.
    pub(crate) last_us: u64,
    /// How many streams got it.
    pub(crate) delivered: u64,
}

/// What publishing cost the server.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct FanOut {
    /// Run time of all its threads from the first publish to the last delivery.
    pub(crate) cpu_ns: u64,
    /// Deliveries meanwhile.
    pub(crate) deliveries: u64,
    /// The quotient, in microseconds.
    pub(crate) cpu_us_per_delivery: f64,
    /// Deliveries a second, from each publish to its last delivery.
    pub(crate) deliveries_per_s: f64,
}

impl FanOut {
    pub(super) fn of(cpu_ns: u64, deliveries: u64, events: &[EventRun]) -> Self {
        let busy_us: u64 = events.iter().map(|event| event.last_us).sum();
        let delivered: u64 = events.iter().map(|event| event.delivered).sum();
        Self {
            cpu_ns,
            deliveries,
            cpu_us_per_delivery: cpu_ns as f64 / 1e3 / deliveries.max(1) as f64,
            deliveries_per_s: delivered as f64 * 1e6 / busy_us.max(1) as f64,
        }
    }
}

/// What all subscribers found, added up.
pub(super) struct Total {
    pub(super) held: Held,
    /// Published, first and last delivery, count; in order of the first delivery.
    merged: Vec<(Mono, Mono, Mono, u64)>,
}

impl Total {
    pub(super) fn of(outcomes: Vec<Held>) -> Self {
        let mut held = Held::new();
        let mut by_id: HashMap<u64, (Mono, Mono, Mono, u64)> = HashMap::new();
        for one in outcomes {
            merge(&mut held, &one);
            for event in &one.events {
                let fresh = (event.published_at, event.first_at, event.last_at, 0);
                let entry = by_id.entry(event.id).or_insert(fresh);
                // A ring that saw the event late may have taken a later publish for its own.
                entry.0 = entry.0.min(event.published_at);
                entry.1 = entry.1.min(event.first_at);
                entry.2 = entry.2.max(event.last_at);
                entry.3 += u64::from(event.delivered);
            }
        }
        let mut merged: Vec<_> = by_id.into_values().collect();
        merged.sort_by_key(|(_, first_at, _, _)| *first_at);
        Self { held, merged }
    }

    /// Publishes that nobody was told of, given that each makes one event.
    pub(super) fn unseen(&self) -> u64 {
        let good = self.held.published.saturating_sub(self.held.publish_failed);
        u64::from(good).saturating_sub(self.merged.len() as u64)
    }

    pub(super) fn events(&self) -> Vec<EventRun> {
        let us = |from: Mono, to: Mono| to.since_ns(from) / 1_000;
        let event = |&(published_at, first_at, last_at, delivered): &(Mono, Mono, Mono, u64)| {
            let from = if published_at == Mono(0) { first_at } else { published_at };
            EventRun { first_us: us(from, first_at), last_us: us(from, last_at), delivered }
        };
        self.merged.iter().map(event).collect()
    }

    /// What streams that were open to the end did not get.
    pub(super) fn missing(&self, topics: u32) -> u64 {
        if topics > 1 {
            // Each topic's shard has counted its own.
            return self.held.missing;
        }
        let open = u64::from(self.held.open);
        self.merged.iter().map(|(.., delivered)| open.saturating_sub(*delivered)).sum()
    }
}

fn merge(total: &mut Held, one: &Held) {
    total.delays.merge(&one.delays);
    total.faults.add(one.faults);
    total.open += one.open;
    total.missing += one.missing;
    total.beats += one.beats;
    total.gaps += one.gaps;
    total.unnamed += one.unnamed;
    total.data_bytes += one.data_bytes;
    total.protocol_errors += one.protocol_errors;
    total.publish_late.merge(&one.publish_late);
    total.published += one.published;
    total.publish_failed += one.publish_failed;
}

impl SseRun {
    /// Streams that read all that they are told.
    pub(crate) fn readers(&self) -> u32 {
        self.streams - self.stalled
    }

    /// Everything that should not have happened, added up.
    pub(crate) fn faults_total(&self) -> u64 {
        self.missing
            + self.unseen
            + self.faults.total()
            + u64::from(self.lost)
            + u64::from(self.publish_failed)
            + self.protocol_errors
            + self.gaps
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::subscriber::chain::Sighted;

    #[test]
    fn events_of_several_rings_are_one_event() {
        let sighted = |id: u64, from: u64, first: u64, last: u64, delivered: u32| Sighted {
            id,
            published_at: Mono(from),
            first_at: Mono(first),
            last_at: Mono(last),
            delivered,
        };
        let held = |open: u32, events: Vec<Sighted>| Held { open, events, ..Held::new() };
        let total = Total::of(vec![
            held(
                3,
                vec![sighted(7, 1_000, 9_000, 21_000, 3), sighted(8, 50_000, 60_000, 61_000, 2)],
            ),
            held(
                2,
                vec![sighted(7, 1_000, 5_000, 31_000, 2), sighted(8, 50_000, 60_000, 62_000, 2)],
            ),
        ]);
        let events = total.events();
        assert_eq!((events[0].first_us, events[0].last_us, events[0].delivered), (4, 30, 5));
        assert_eq!(total.missing(1), 1);
    }
}
