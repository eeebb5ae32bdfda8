//! One edge that follows this one: where it is, and what it is sent next.
//!
//! ```text
//!   Waiting ─placed─▶ [Snapshot ─▶] [Past ─▶] Live
//!      └─ too long: cut                         └─ behind what is held, or takes nothing: cut
//! ```
//! Nothing is queued for it: it has a number in the log, and at most one send under way.
//!
//! Leaves to others: what is held (`log`), who may follow (`mod`).

use std::{
    collections::VecDeque,
    ops::Bound::{Excluded, Unbounded},
    sync::Arc,
};

use bytes::Bytes;
use proto::{
    feed::{
        cursor::FeedCursor,
        record::{Publish, Record, Snapshot},
    },
    sse::encode::{EventText, event_chunk},
};

use super::{
    filter::Filter,
    log::{Entry, Log, Place},
};
use crate::{
    limits,
    seam::{Mono, Now, Payload, Segment, SocketId},
    shard::last_known::Configuration,
};

/// An edge that follows this one.
pub(super) struct Child {
    pub socket: SocketId,
    /// Its id, as it says.
    pub edge: Box<str>,
    phase: Phase,
    /// Since when a send is under way.
    sending: Option<Mono>,
    /// It is told the topics that it wants, and no others.
    pub filter: Option<Filter>,
    /// What it has been sent, or was not for it.
    passed: Passed,
    /// Records that were not sent to it.
    pub left_out: u64,
    /// Topics that began.
    pub begun: u64,
}

/// How far an edge is that is not sent everything.
#[derive(Default)]
struct Passed {
    /// Up to here.
    cursor: Option<Arc<FeedCursor>>,
    /// Of the operation under way it was sent something, a purge: its end must not be left out.
    owes_end: bool,
    /// The record before this one is not the last of its operation.
    is_within: bool,
    /// When the cursor is sent, because what came with it was not.
    due_at: Option<Mono>,
}

enum Phase {
    Waiting {
        /// Where it is; it has nothing yet without.
        cursor: Option<FeedCursor>,
        /// It wants events from before.
        history: bool,
        until: Mono,
    },
    Snapshot {
        progress: Progress,
        next: u64,
    },
    Past {
        events: VecDeque<Arc<Publish>>,
        next: u64,
    },
    Live {
        next: u64,
    },
}

/// How far a snapshot is. What changes meanwhile comes again behind it.
struct Progress {
    /// What it is of.
    cursor: FeedCursor,
    part: u32,
    at: Entity,
}

enum Entity {
    Site(Option<String>),
    Page(Option<String>),
}

/// What this edge itself has applied.
#[derive(Clone, Copy)]
pub(in crate::shard) struct Ground<'g> {
    /// Up to where.
    pub cursor: Option<&'g FeedCursor>,
    /// Sites and pages, if they are kept.
    pub configuration: Option<&'g Configuration>,
}

/// Why an edge is not served any longer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Cut {
    /// It has taken nothing for too long.
    Stalled,
    /// What comes next for it is not held any more.
    Lagging,
    /// What it needs does not come here.
    Unplaced,
    /// What it said about its topics cannot be understood.
    Garbled,
    /// What came here does not follow on what came before.
    Broken,
    /// This edge drains.
    Draining,
}

impl Cut {
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Stalled => "it takes nothing",
            Self::Lagging => "it is behind all that is held",
            Self::Unplaced => "what it needs does not come here",
            Self::Garbled => "what it says of its topics cannot be understood",
            Self::Broken => "a record was too large to be relayed",
            Self::Draining => "this edge drains",
        }
    }
}

impl Child {
    /// Just let in. `head`: what it is sent first.
    pub(super) fn new(
        now: Now,
        socket: SocketId,
        edge: Box<str>,
        cursor: Option<FeedCursor>,
        history: bool,
        filter: Option<Filter>,
    ) -> Self {
        let passed = Passed { cursor: cursor.clone().map(Arc::new), ..Passed::default() };
        let until = now.mono.after_ms(limits::RELAY_AHEAD_MS_MAX);
        let phase = Phase::Waiting { cursor, history, until };
        // The head of the answer.
        let sending = Some(now.mono);
        Self { socket, edge, phase, sending, filter, passed, left_out: 0, begun: 0 }
    }

    /// The send under way has ended.
    pub(super) fn sent(&mut self) {
        self.sending = None;
    }

    /// When it is to be looked at for time alone.
    pub(super) fn next_deadline(&self) -> Option<Mono> {
        match (self.sending, &self.phase) {
            // Nothing else is looked at before the send has ended.
            (Some(since), _) => Some(since.after_ms(limits::RELAY_STALL_MS_MAX)),
            (None, Phase::Waiting { until, .. }) => Some(*until),
            (None, _) => self.passed.due_at,
        }
    }

    /// What it is sent now, if anything; or why it is served no longer.
    pub(super) fn go_on(
        &mut self,
        now: Now,
        log: &Log,
        ground: Ground<'_>,
    ) -> Result<Option<Payload>, Cut> {
        if let Some(since) = self.sending {
            let is_late = since.after_ms(limits::RELAY_STALL_MS_MAX) <= now.mono;
            return if is_late { Err(Cut::Stalled) } else { Ok(None) };
        }
        self.place(now, log, ground)?;
        let mut payload = Gathered::default();
        while !payload.is_full() && self.add_next(now, log, ground, &mut payload)? {}
        let payload = payload.into_payload();
        self.sending = payload.is_some().then_some(now.mono);
        Ok(payload)
    }

    /// Finds where it goes on, if that was not known.
    fn place(&mut self, now: Now, log: &Log, ground: Ground<'_>) -> Result<(), Cut> {
        let Phase::Waiting { cursor, history, until } = &self.phase else { return Ok(()) };
        let is_over = *until <= now.mono;
        if self.filter.as_ref().is_some_and(|filter| !filter.is_complete()) {
            return if is_over { Err(Cut::Unplaced) } else { Ok(()) };
        }
        // Who wants some topics wants each with its past.
        let history = *history && self.filter.is_none();
        let wants_past = self.filter.is_none() && (history || cursor.is_none());
        // Who has nothing, and cannot get more here, is better off with what there is.
        if wants_past && !log.has_past() && !(is_over && cursor.is_none()) {
            return if is_over { Err(Cut::Unplaced) } else { Ok(()) };
        }
        let origin = cursor.as_ref().or(ground.cursor);
        match origin.map_or(Place::Ahead, |cursor| log.place(cursor)) {
            Place::With(next) => {
                self.phase = match (cursor, origin) {
                    (None, Some(cursor)) if ground.configuration.is_some() => {
                        let at = Entity::Site(None);
                        let progress = Progress { cursor: cursor.clone(), part: 0, at };
                        Phase::Snapshot { progress, next }
                    }
                    (None, _) => return Err(Cut::Unplaced),
                    (Some(_), _) if history => Phase::Past { events: log.past(next), next },
                    (Some(_), _) => Phase::Live { next },
                };
                Ok(())
            }
            Place::Ahead if !is_over => Ok(()),
            Place::Ahead | Place::Unknown => Err(Cut::Unplaced),
        }
    }

    /// Adds the next piece; whether there was one.
    fn add_next(
        &mut self,
        now: Now,
        log: &Log,
        ground: Ground<'_>,
        payload: &mut Gathered,
    ) -> Result<bool, Cut> {
        match &mut self.phase {
            Phase::Waiting { .. } => Ok(false),
            Phase::Snapshot { progress, next } => {
                let Some(configuration) = ground.configuration else { return Err(Cut::Unplaced) };
                let (record, is_last) = progress.part(configuration);
                let cursor = is_last.then(|| progress.cursor.to_string());
                payload.add(&frame(&record, cursor.as_deref()));
                if is_last && self.filter.is_some() {
                    self.passed.cursor = Some(Arc::new(progress.cursor.clone()));
                    self.phase = Phase::Live { next: *next };
                } else if is_last {
                    let events = if log.has_past() { log.past(*next) } else { VecDeque::new() };
                    self.phase = Phase::Past { events, next: *next };
                }
                Ok(true)
            }
            Phase::Past { events, next } => {
                match events.pop_front() {
                    Some(event) => {
                        let again = Publish { refill: true, ..(*event).clone() };
                        payload.add(&frame(&Record::Publish(again), None));
                    }
                    None => self.phase = Phase::Live { next: *next },
                }
                Ok(true)
            }
            Phase::Live { next } => {
                let next = *next;
                if next < log.first() {
                    return Err(Cut::Lagging);
                }
                if self.begin_topic(log, next, payload) {
                    return Ok(true);
                }
                let Some(record) = log.record(next) else {
                    return Ok(self.tell_passed(now, payload));
                };
                self.pass(now, record, payload);
                self.phase = Phase::Live { next: next + 1 };
                Ok(true)
            }
        }
    }

    /// Adds the beginning of a topic that it wants, if one can begin at this place.
    fn begin_topic(&mut self, log: &Log, next: u64, payload: &mut Gathered) -> bool {
        let Some(filter) = &mut self.filter else { return false };
        if self.passed.is_within || !filter.has_wanted() || !log.can_begin(next) {
            return false;
        }
        // What it is told of the past is before the cursor that it is told with it.
        let Some(cursor) = &self.passed.cursor else { return false };
        let Some((ask, topic)) = filter.begin_next() else { return false };
        let record = Record::Topic(log.beginning(ask, &topic, next));
        payload.add(&frame(&record, Some(&cursor.to_string())));
        self.passed.due_at = None;
        self.begun += 1;
        true
    }

    /// Adds a record, or leaves it out.
    fn pass(&mut self, now: Now, record: &Entry, payload: &mut Gathered) {
        let Some(filter) = &self.filter else { return payload.add(&record.frame) };
        let event = record.event.as_ref();
        let is_left_out = event.is_some_and(|event| !filter.tells(&event.topic));
        let is_again = event.is_some_and(|event| event.refill);
        if !is_left_out {
            payload.add(&record.frame);
        }
        self.left_out += u64::from(is_left_out);
        let passed = &mut self.passed;
        match &record.cursor {
            Some(cursor) => {
                passed.cursor = Some(Arc::clone(cursor));
                passed.is_within = false;
                if !is_left_out {
                    (passed.owes_end, passed.due_at) = (false, None);
                } else if std::mem::take(&mut passed.owes_end) {
                    // It confirms the purge before this by its cursor.
                    self.tell_cursor(payload);
                } else {
                    let due_at = now.mono.after_ms(limits::PASSED_EVERY_MS);
                    passed.due_at.get_or_insert(due_at);
                }
            }
            None if record.is_beat || is_again => {}
            None => {
                passed.is_within = true;
                passed.owes_end |= !is_left_out;
            }
        }
    }

    /// Adds how far it is, if that was not said for long; whether it did.
    fn tell_passed(&mut self, now: Now, payload: &mut Gathered) -> bool {
        let is_due = self.passed.due_at.is_some_and(|at| at <= now.mono);
        if is_due {
            self.tell_cursor(payload);
        }
        is_due
    }

    fn tell_cursor(&mut self, payload: &mut Gathered) {
        self.passed.due_at = None;
        if let Some(cursor) = &self.passed.cursor {
            payload.add(&frame(&Record::Passed(Default::default()), Some(&cursor.to_string())));
        }
    }
}

impl Progress {
    /// The next part, and whether it is the last.
    fn part(&mut self, configuration: &Configuration) -> (Record, bool) {
        let part = Snapshot {
            part: self.part,
            last: false,
            sites: Vec::new(),
            pages: Vec::new(),
            // Only control's own word says what is lost.
            replica: None,
        };
        let (mut part, mut bytes) = (part, 0);
        self.part += 1;
        if let Entity::Site(after) = &mut self.at {
            let from = after.take().map_or(Unbounded, Excluded);
            for (id, site) in configuration.sites.range((from, Unbounded)) {
                bytes += serde_json::to_vec(site).map_or(0, |json| json.len());
                part.sites.push(site.clone());
                if bytes >= limits::RELAY_PART_BYTES {
                    *after = Some(id.clone());
                    return (Record::Snapshot(part), false);
                }
            }
            self.at = Entity::Page(None);
        }
        if let Entity::Page(after) = &mut self.at {
            let from = after.take().map_or(Unbounded, Excluded);
            for (id, page) in configuration.pages.range((from, Unbounded)) {
                bytes += serde_json::to_vec(page).map_or(0, |json| json.len());
                part.pages.push(page.clone());
                if bytes >= limits::RELAY_PART_BYTES {
                    *after = Some(id.clone());
                    return (Record::Snapshot(part), false);
                }
            }
        }
        part.last = true;
        (Record::Snapshot(part), true)
    }
}

/// A record as one chunk of an answer.
pub(super) fn frame(record: &Record, id: Option<&str>) -> Bytes {
    let data = record.data();
    text_frame(record.kind(), id, &data)
}

/// A record as it came, as one chunk of an answer.
pub(super) fn text_frame(kind: &str, id: Option<&str>, data: &str) -> Bytes {
    let mut bytes = Vec::with_capacity(data.len() + kind.len() + 64);
    let text = EventText { name: Some(kind), id, data: Some(data), retry_ms: None };
    // What came as a kind or an id has no line breaks.
    let written = event_chunk(&mut bytes, &text);
    debug_assert!(written.is_ok());
    bytes.into()
}

/// Pieces of one send: small ones are put together, large ones lent.
#[derive(Default)]
struct Gathered {
    segments: Vec<Segment>,
    bytes: usize,
}

impl Gathered {
    fn is_full(&self) -> bool {
        self.bytes >= limits::RELAY_SEND_BYTES_MAX
            || self.segments.len() + 1 >= limits::SEGMENTS_MAX
    }

    fn add(&mut self, frame: &Bytes) {
        self.bytes += frame.len();
        if frame.len() > limits::COPIED_BYTES_MAX {
            return self.segments.push(Segment::Local(frame.clone()));
        }
        match self.segments.last_mut() {
            Some(Segment::Owned(text)) => text.extend_from_slice(frame),
            _ => self.segments.push(Segment::Owned(frame.to_vec())),
        }
    }

    fn into_payload(mut self) -> Option<Payload> {
        match self.segments.len() {
            0 => None,
            1 => Some(Payload::One(self.segments.remove(0))),
            _ => Some(Payload::Many(self.segments)),
        }
    }
}
