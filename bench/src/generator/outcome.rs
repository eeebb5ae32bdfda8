//! What a run of the generator found: answers, delays and errors, counted as they happen. Owned by
//! the generator until the run ends.

use std::ops::Range;

use dataplane::seam::Mono;
use serde::Serialize;

use crate::{
    record::{DelaySummary, Delays},
    response::Head,
};

/// What a run found.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Outcome {
    /// Length of the measured window.
    pub(crate) measured_s: f64,
    /// Answers that arrived at any time, right ones and wrong ones.
    pub(crate) completed: u64,
    /// Answers that arrived in the window.
    pub(crate) answers: u64,
    /// Answers a second in the window.
    pub(crate) answers_per_s: f64,
    /// Bytes of content a second in the window.
    pub(crate) content_bytes_per_s: f64,
    /// From the intended start to the last byte, of requests intended in the window.
    pub(crate) delay: DelaySummary,
    /// Answers in the window whose `X-Cache-Status` was a hit.
    pub(crate) hits: u64,
    /// Connections that the server ended between answers.
    pub(crate) reconnects: u64,
    /// What went wrong at any time, by kind.
    pub(crate) errors: Errors,
    /// The server refused the very first request with this status.
    pub(crate) refused: Option<u16>,
}

/// What can go wrong, counted.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, Serialize)]
pub(crate) struct Errors {
    /// Connections that could not be opened.
    pub(crate) connect: u64,
    /// Requests lost because the connection broke.
    pub(crate) broken: u64,
    /// Requests lost because the server ended the connection before or inside their answer.
    pub(crate) cut: u64,
    /// Answers that were not HTTP, or unasked for.
    pub(crate) protocol: u64,
    /// Answers with another status than expected.
    pub(crate) status: u64,
    /// Bodies of another length than expected.
    pub(crate) length: u64,
    /// Bodies with other bytes than expected.
    pub(crate) content: u64,
    /// Requests without an answer when the run ended.
    pub(crate) unanswered: u64,
}

impl Errors {
    /// All of them.
    pub(crate) fn total(&self) -> u64 {
        self.connect
            + self.broken
            + self.cut
            + self.protocol
            + self.status
            + self.length
            + self.content
            + self.unanswered
    }
}

/// The counts while the run goes on.
pub(super) struct Tally {
    pub(super) delays: Delays,
    pub(super) errors: Errors,
    pub(super) answers: u64,
    pub(super) content_bytes: u64,
    pub(super) hits: u64,
    pub(super) reconnects: u64,
    pub(super) completed: u64,
    pub(super) refused: Option<u16>,
}

impl Tally {
    pub(super) fn new() -> Self {
        Self {
            delays: Delays::new(),
            errors: Errors::default(),
            answers: 0,
            content_bytes: 0,
            hits: 0,
            reconnects: 0,
            completed: 0,
            refused: None,
        }
    }

    pub(super) fn answer(
        &mut self,
        now: Mono,
        intended: Mono,
        head: Head,
        content_bytes: u64,
        window: &Range<Mono>,
    ) {
        self.completed += 1;
        if window.contains(&intended) {
            self.delays.record(intended, now);
        }
        if window.contains(&now) {
            self.answers += 1;
            self.content_bytes += content_bytes;
            self.hits +=
                u64::from(head.cache.is_some_and(|first| first.eq_ignore_ascii_case(&b'H')));
        }
    }

    /// A request that the run gave up on: an error, and a delay of at least this.
    pub(super) fn unanswered(&mut self, intended: Mono, now: Mono, window: &Range<Mono>) {
        self.errors.unanswered += 1;
        if window.contains(&intended) {
            self.delays.record(intended, now);
        }
    }

    pub(super) fn outcome(&self, window: &Range<Mono>) -> Outcome {
        let measured_s = window.end.since_ns(window.start) as f64 / 1e9;
        let rate = |count: u64| if measured_s > 0.0 { count as f64 / measured_s } else { 0.0 };
        Outcome {
            measured_s,
            completed: self.completed,
            answers: self.answers,
            answers_per_s: rate(self.answers),
            content_bytes_per_s: rate(self.content_bytes),
            delay: self.delays.summary(),
            hits: self.hits,
            reconnects: self.reconnects,
            errors: self.errors,
            refused: self.refused,
        }
    }
}
