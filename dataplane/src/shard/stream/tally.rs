//! How many listen to each topic that customers publish to: told to the feed's shard now and then,
//! and by it to control.

use proto::feed::{record::TopicStreams, site::PAGE_TOPICS};

use super::Streams;
use crate::{limits, seam::Mono};

/// When it is told next, and what of.
#[derive(Default)]
pub(super) struct Tally {
    due_at: Mono,
    /// Open streams of customers' topics.
    pub(super) streams: u32,
    /// Some were told of last time: that there are none any more is told too.
    was_some: bool,
}

impl Tally {
    /// When it is to be told.
    pub(super) fn next_deadline(&self) -> Option<Mono> {
        (self.streams > 0 || self.was_some).then_some(self.due_at)
    }
}

impl Streams {
    /// The topics most listened to, if it is time to tell.
    pub fn tally(&mut self, now: Mono) -> Option<Vec<TopicStreams>> {
        if self.tally.next_deadline().is_none_or(|at| at > now) {
            return None;
        }
        self.tally.due_at = now.after_ms(limits::TALLY_EVERY_MS);
        self.tally.was_some = self.tally.streams > 0;
        let topics = self.topics.numbers().map(|row| self.topics.at(row));
        let counts = topics.filter(|it| it.streams > 0 && !it.name().starts_with(PAGE_TOPICS));
        let counts = counts
            .map(|it| TopicStreams { topic: it.name().to_owned(), streams: it.streams.into() });
        Some(most(counts.collect()))
    }
}

/// Those most listened to, as many as are reported.
pub fn most(mut counts: Vec<TopicStreams>) -> Vec<TopicStreams> {
    counts.sort_unstable_by(|a, b| (b.streams, &a.topic).cmp(&(a.streams, &b.topic)));
    counts.truncate(limits::REPORT_TOPICS_MAX);
    counts
}
