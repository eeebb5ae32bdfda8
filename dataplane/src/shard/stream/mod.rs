//! The live streams of one shard, and what each input of a stream's socket means.
//!
//! ```text
//!  subscribe ─▶ head, gap?, events since the cursor, beat with id ─▶ side table ─▶ topic's list
//!  publish ───▶ topic ─▶ turns ─┐
//!  deadline ──▶ heartbeat ──────┼─▶ one batch a turn ─▶ Fanout ─▶ (SendFailed ─▶ side table)
//!  drain ─────▶ migrate ────────┘
//! ```
//! Nothing is sent to a caught-up stream but by a turn, and a turn sends to each at most one frame:
//! two sends to one socket whose first is short would corrupt it (seam, rule 2). Turns happen on
//! `Continue` only, so that all events published since the last one leave together.
//!
//! A stream opens with `retry:` (jittered, so that a cut does not bring everyone back at once) and
//! ends its opening with an `event: beat` whose `id:` is the present cursor: from then on a plain
//! `EventSource` resumes without having seen any event. Later beats have no id.
//!
//! This file: opening, and which input leads where. In its folder: the records (`table`), where a
//! stream stands (`standing`), a turn's batch (`turn`), the bytes of answers (`answer`), ends of
//! our own accord (`ending`), who waits for a topic (`interest`), and who is moved to another edge
//! when (`migrate`). Leaves to others:
//! topics and histories (`topic`), streams not in a list (`slow_consumer`), who is next (`fanout`),
//! when silence ends (`heartbeat`), how many may open (`opening`).

mod answer;
mod ending;
mod interest;
mod lifetime;
pub mod migrate;
#[cfg(test)]
mod model;
#[cfg(test)]
mod rules;
#[cfg(test)]
mod rules_of_loss;
#[cfg(test)]
mod rules_of_moving;
mod standing;
mod table;
pub mod tally;
#[cfg(test)]
mod testing;
mod turn;

use std::{collections::VecDeque, io, rc::Rc};

use bytes::Bytes;
use hashbrown::HashSet;
use proto::feed::{
    cursor::VersionVector,
    record::Publish,
    site::{Page, SlowPolicy, page_key},
};

pub use self::answer::{Opening, Refused};
use self::{
    answer::{First, NEEDS_HTTP11, payload},
    interest::Interest,
    lifetime::Lifetimes,
    migrate::Moving,
    table::{Place, Record, Records},
    tally::Tally,
};
use super::{
    Settings,
    audience::{Audience, Audiences},
    fanout::{Budget, Turns},
    heartbeat::{Heartbeat, stamp},
    history::{Reader, beat_frame},
    jitter::Jitter,
    mail::{Advance, ConfigChange},
    observe::{Metric, Observe},
    opening::{Interval, Openings, Rates},
    out::Out,
    slow_consumer::{Aside, SideTable, State},
    stream_route::StreamRoute,
    subscription::Subscription,
    topic::{HistoryLimits, Published, Topics},
};
use crate::{
    limits,
    seam::{Close, Mono, Now, Payload, Segment, SocketId},
};

/// A request that becomes a stream. The socket has no send in flight and its `Receive` was turned
/// off.
#[derive(Debug)]
pub struct Subscribe<'a> {
    /// The connection, which is the streams' from now on.
    pub socket: SocketId,
    /// What it listens to; `None` while this edge has no configuration that could tell: refused.
    pub wanted: Option<Wanted<'a>>,
    /// From `Last-Event-ID` or, without that field, `?last_event_id=`; not yet understood.
    pub last_event_id: Option<&'a str>,
    /// For `X-Request-Id` in the response head.
    pub request_id: &'a str,
    /// An HTTP/1.0 client: no chunked framing, the close ends the body.
    pub http10: bool,
}

/// What a stream listens to.
#[derive(Clone, Copy, Debug)]
pub struct Wanted<'a> {
    /// Names of its topics: at least one, sorted, each once.
    pub topics: &'a [String],
    /// By which rules.
    pub route: &'a Rc<StreamRoute>,
    /// When its token expires, ms since the Unix epoch.
    pub expires_at_ms: Option<u64>,
    /// It was led here by another edge, whose name its page may be from.
    pub was_led: bool,
}

/// What the streams of a shard are made with.
#[derive(Clone, Copy, Debug)]
pub struct StreamLimits {
    /// Most streams. Beyond: refused.
    pub streams_max: u32,
    /// Longest silence.
    pub beat_ms: u64,
    /// Middle of `retry:`.
    pub retry_ms: u64,
    /// Longest time blocked.
    pub blocked_ms_max: u64,
    /// Most blocked streams.
    pub blocked_max: usize,
    /// Of the histories.
    pub history: HistoryLimits,
    /// Most audiences.
    pub audiences_max: usize,
    /// Between two streams that open.
    pub openings: Interval,
}

impl StreamLimits {
    /// The defaults of [`limits`].
    pub fn new(streams_max: u32) -> Self {
        Self {
            streams_max,
            beat_ms: limits::BEAT_MS,
            retry_ms: limits::RETRY_MS,
            blocked_ms_max: limits::BLOCKED_MS_MAX,
            blocked_max: limits::BLOCKED_STREAMS_MAX,
            history: HistoryLimits::default(),
            audiences_max: limits::AUDIENCES_MAX,
            openings: Interval::default(),
        }
    }
}

/// All streams of one shard.
pub struct Streams {
    limits: StreamLimits,
    records: Records,
    count: u32,
    topics: Topics,
    audiences: Audiences,
    lifetimes: Lifetimes,
    tally: Tally,
    interest: Interest,
    side: SideTable,
    turns: Turns,
    woken: VecDeque<SocketId>,
    heartbeat: Heartbeat,
    beat: Bytes,
    /// What the last turn sent by fan-out, for its failures.
    last_turn: Turn,
    moving: Option<Moving>,
    openings: Openings,
    /// When control's word that there is nothing beyond what is known here last counted.
    word_at: Option<Mono>,
    jitter: Jitter,
    counts: Counts,
}

/// Counters since the start.
#[derive(Clone, Copy, Default, Debug, PartialEq, Eq)]
pub struct Counts {
    /// Requests that became a stream.
    pub opened: u64,
    /// Requests answered by `retry:` and a close.
    pub refused: u64,
    /// Of these, those that were too many in a second.
    pub over_budget: u64,
    /// Streams that were told to go to another edge.
    pub migrated: u64,
    /// Events taken in, refilled ones included.
    pub published: u64,
    /// Events dropped because they had been seen.
    pub seen: u64,
    /// Frames given to fan-outs and to single streams.
    pub sends: u64,
    /// Beats given to fan-outs.
    pub beats: u64,
    /// Fan-out frames that a socket did not take whole.
    pub blocked: u64,
    /// Streams closed for being blocked too long or as one too many.
    pub slow_closed: u64,
    /// Streams told of a gap when they opened.
    pub opened_with_gap: u64,
    /// Streams that were told that what they have is not there.
    pub taken_back: u64,
    /// Times a stream fell behind, by the policy that it was treated by.
    pub slow: [u64; SlowPolicy::ALL.len()],
    /// Streams ended because their token had expired.
    pub expired: u64,
    /// Streams ended because they were as old as their route lets them be.
    pub aged: u64,
}

/// What a turn fanned out.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Turn {
    Events,
    Beats,
}

impl Streams {
    /// None yet.
    pub fn new(settings: &Settings) -> Self {
        let openings = Interval::share(settings.rates.opens_per_s, settings.shard_count);
        let beat_ms = settings.timeouts.beat_ms;
        let limits = StreamLimits { openings, beat_ms, ..StreamLimits::new(settings.streams_max) };
        let mut streams = Self::with_limits(limits, settings.seed);
        if Subscription::is_for(settings) {
            streams.tell_interest();
        }
        streams
    }

    /// None yet.
    pub fn with_limits(limits: StreamLimits, seed: u64) -> Self {
        Self {
            limits,
            records: Records::default(),
            count: 0,
            topics: Topics::new(limits.history, seed),
            audiences: Audiences::new(limits.audiences_max, seed),
            lifetimes: Lifetimes::default(),
            tally: Tally::default(),
            interest: Interest::default(),
            side: SideTable::default(),
            turns: Turns::default(),
            woken: VecDeque::new(),
            heartbeat: Heartbeat::new(limits.beat_ms),
            beat: beat_frame(None, limits.beat_ms),
            last_turn: Turn::Events,
            moving: None,
            openings: Openings::new(limits.openings),
            word_at: None,
            jitter: Jitter::new(seed, RETRY_PURPOSE),
            counts: Counts::default(),
        }
    }

    /// Whether the feed has told of everything in this version.
    pub fn is_announced(&self, version: &VersionVector) -> bool {
        self.topics.announced().covers(version)
    }

    /// Another limit; streams above it stay open.
    pub fn set_max(&mut self, streams_max: u32) {
        self.limits.streams_max = streams_max;
    }

    /// Another longest silence, told to the streams with their next beat.
    pub fn set_beat_ms(&mut self, beat_ms: u64) {
        self.limits.beat_ms = beat_ms;
        self.heartbeat.set(beat_ms);
        self.beat = beat_frame(None, beat_ms);
    }

    /// Another budget, for the streams that open from now on.
    pub fn set_rates(&mut self, rates: Rates, shards: u16) {
        self.openings.set(Interval::share(rates.opens_per_s, shards));
    }

    /// Open streams.
    pub fn count(&self) -> u32 {
        self.count
    }

    /// Counters since the start.
    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// Puts counters and gauges on the shard's row of the board.
    pub fn report(&self, observe: &Observe) {
        for (metric, value) in [
            (Metric::Streams, self.count.into()),
            (Metric::StreamsOpened, self.counts.opened),
            (Metric::StreamsRefused, self.counts.refused),
            (Metric::StreamsOverBudget, self.counts.over_budget),
            (Metric::StreamsMigrated, self.counts.migrated),
            (Metric::StreamsBlocked, self.side.blocked() as u64),
            (Metric::StreamsAside, self.side.len() as u64),
            (Metric::StreamsSlowClosed, self.counts.slow_closed),
            (Metric::StreamsOpenedWithGap, self.counts.opened_with_gap),
            (Metric::StreamsTakenBack, self.counts.taken_back),
            (Metric::StreamSends, self.counts.sends),
            (Metric::StreamSendsBlocked, self.counts.blocked),
            (Metric::StreamBeats, self.counts.beats),
            (Metric::StreamsSlowFollow, self.counts.slow[SlowPolicy::Follow as usize]),
            (Metric::StreamsSlowConflate, self.counts.slow[SlowPolicy::Conflate as usize]),
            (Metric::StreamsSlowSkip, self.counts.slow[SlowPolicy::Skip as usize]),
            (Metric::StreamsSlowDisconnect, self.counts.slow[SlowPolicy::Disconnect as usize]),
            (Metric::TopicsBehind, self.topics.behind().len() as u64),
            (Metric::StreamTableBytes, self.records.bytes() as u64),
            (Metric::StreamsAsideBytes, self.side.bytes() as u64),
            (Metric::LastValuesBytes, self.topics.values_bytes() as u64),
            (Metric::StreamsExpired, self.counts.expired),
            (Metric::StreamsAged, self.counts.aged),
            (Metric::StreamsAwaiting, self.interest.waiting() as u64),
            (Metric::StreamsAwaitedInVain, self.interest.given_up),
            (Metric::EventsPublished, self.counts.published),
            (Metric::EventsSeen, self.counts.seen),
            (Metric::Topics, self.topics.count() as u64),
            (Metric::HistoryBytes, self.topics.history_bytes() as u64),
        ] {
            observe.set(metric, value);
        }
    }

    /// Takes over a connection: sends the response head and what the cursor does not cover, or
    /// refuses.
    pub fn subscribe(&mut self, now: Now, request: Subscribe<'_>, out: &mut Out) -> Opening {
        let socket = request.socket;
        if request.http10 {
            out.send(socket, Payload::One(Segment::Static(NEEDS_HTTP11)));
            out.close(socket, Close::Graceful);
            return Opening::Refused(Refused::Http10);
        }
        let refused = match request.wanted {
            None => Some(Refused::NotConfigured),
            Some(_) if self.drains() => Some(Refused::Draining),
            Some(_) if self.count >= self.limits.streams_max => Some(Refused::Full),
            Some(_) => None,
        };
        let wanted = request.wanted.filter(|_| refused.is_none());
        if wanted.is_some() && !self.openings.take(now.mono) {
            self.counts.over_budget += 1;
            let queue_ms = self.openings.queue(now.mono);
            self.refuse(now, socket, Some(queue_ms), out);
            return Opening::Refused(Refused::OverBudget);
        }
        let audience = wanted.and_then(|wanted| self.audience_of(wanted));
        let (Some(audience), Some(wanted)) = (audience, wanted) else {
            self.refuse(now, socket, None, out);
            return Opening::Refused(refused.unwrap_or(Refused::TopicsFull));
        };
        let mut frames = Vec::new();
        let at_once = self.want(now.mono, audience, out);
        let (reader, first) = match at_once {
            true => self.opening(audience, request.last_event_id, &mut frames),
            false => {
                self.wait(now.mono, socket, request.last_event_id);
                let reader = self.topics.end(self.audiences.at(audience).members());
                let reader = Reader { cursor: Default::default(), ..reader };
                (reader, First { waits: true, ..First::default() })
            }
        };
        let retry_ms = wanted.route.rules.retry_ms.unwrap_or(self.limits.retry_ms);
        let head = self.head(now, request.request_id, retry_ms, wanted.was_led, out);
        out.send(socket, payload(Some(Segment::Owned(head)), Bytes::new(), frames));
        out.watch(socket, true, false);

        let aside = Aside {
            socket,
            reader,
            rest: Bytes::new(),
            state: State::Sending,
            slow: false,
            ahead: 0,
        };
        let row = self.side.add(aside);
        let record = Record { audience, place: Place::aside(row), heard: stamp(now.mono) };
        self.records.put(socket, record);
        if self.count == 0 {
            self.heartbeat.start(now.mono);
        }
        self.count += 1;
        let joined = self.audiences.at_mut(audience);
        joined.streams += 1;
        joined.members().iter().for_each(|&topic| self.topics.at_mut(topic).streams += 1);
        self.tally.streams += u32::from(!wanted.route.site_id.is_empty());
        self.counts.opened += 1;
        self.limit_lifetime(now, socket, wanted);
        Opening::Open { stream: socket.slot, first }
    }

    /// The audience that a new stream joins; `None` when there is no room for another.
    fn audience_of(&mut self, wanted: Wanted<'_>) -> Option<u32> {
        let names = wanted.topics.iter();
        let members =
            names.map(|name| self.topics.find_or_add(name)).collect::<Option<Vec<_>>>()?;
        let found = self.audiences.find_or_add(&members, wanted.route, &mut self.topics)?;
        let audience = self.audiences.at_mut(found);
        if audience.streams == 0 {
            audience.begin(&self.topics);
        }
        Some(found)
    }

    /// What a new stream is told first: a gap, a snapshot or what its cursor does not cover, and
    /// where it is then.
    fn opening(
        &mut self,
        audience: u32,
        last_event_id: Option<&str>,
        frames: &mut Vec<Bytes>,
    ) -> (Reader, First) {
        let audience = self.audiences.at(audience);
        let mut reader = audience.open(&self.topics, last_event_id, frames);
        let gap = !frames.is_empty();
        self.counts.opened_with_gap += u64::from(gap);
        let told = frames.len();
        let fresh = last_event_id.is_none_or(str::is_empty);
        if fresh && audience.route().rules.snapshot {
            let topics = audience.members().iter();
            frames.extend(topics.filter_map(|&topic| self.topics.snapshot(topic)));
        }
        let snapshots = frames.len() - told;
        audience.read(&self.topics, &mut reader, frames);
        let events = frames.len() - told - snapshots;
        if let Some(present) = self.topics.present(audience.members(), &reader) {
            let id = (!present.is_empty()).then_some(&*present);
            frames.push(beat_frame(id, self.limits.beat_ms));
            reader.cursor = present;
        }
        (reader, First { gap, snapshots, events, waits: false })
    }

    /// A send of a stream ended.
    pub fn handle_sent(
        &mut self,
        now: Now,
        stream: u32,
        socket: SocketId,
        result: Result<(), io::ErrorKind>,
        payload: Payload,
        out: &mut Out,
    ) {
        out.recycle(payload);
        let Some(record) = self.records.get_mut(stream, socket) else { return };
        record.heard = stamp(now.mono);
        let audience = record.audience;
        let Some(row) = record.place.row() else { return };
        match result {
            Ok(()) => {
                self.side.set_state(row, State::Woken);
                self.skip_missed(audience, row);
                self.read_on(now, socket, out);
            }
            Err(_) => self.end(socket, Close::Abort, out),
        }
    }

    /// A fan-out did not reach a stream whole.
    pub fn handle_send_failed(
        &mut self,
        now: Now,
        stream: u32,
        socket: SocketId,
        sent_bytes: u32,
        error: io::ErrorKind,
        out: &mut Out,
    ) {
        let Some(record) = self.records.get(stream, socket) else { return };
        let Some(place) = record.place.in_list() else { return };
        self.counts.blocked += 1;
        if error != io::ErrorKind::WouldBlock {
            return self.end(socket, Close::Abort, out);
        }
        if self.side.blocked() >= self.limits.blocked_max {
            self.counts.slow_closed += 1;
            return self.end(socket, Close::Abort, out);
        }
        let audience = self.audiences.at(record.audience);
        let slow = audience.slow();
        self.counts.slow[slow as usize] += 1;
        if slow == SlowPolicy::Disconnect {
            return self.end(socket, Close::Graceful, out);
        }
        let sent_bytes = sent_bytes as usize;
        let (frame, reader) = match self.last_turn {
            Turn::Beats => (&self.beat, audience.place_of(audience.targets.was_sent(place))),
            // Nothing of the frame went out: the stream stands where it stood before the pass, and
            // nobody holds the frame for it.
            Turn::Events => (audience.frame(), audience.place_of(sent_bytes > 0)),
        };
        let rest = match sent_bytes {
            0 => Bytes::new(),
            _ => frame.slice(sent_bytes.min(frame.len())..),
        };
        self.leave_list(record.audience, place);
        let row = self.side.add(Aside {
            socket,
            reader,
            rest,
            state: State::Blocked { since: now.mono },
            slow: true,
            ahead: 0,
        });
        self.records.at(socket.slot).place = Place::aside(row);
        out.watch(socket, true, true);
    }

    /// A blocked stream can take bytes again.
    pub fn handle_writable(&mut self, now: Now, stream: u32, socket: SocketId, out: &mut Out) {
        let Some(record) = self.records.get(stream, socket) else { return };
        let Some(row) = record.place.row() else { return };
        if matches!(self.side.get(row).state, State::Blocked { .. }) {
            self.side.set_state(row, State::Woken);
            out.watch(socket, true, false);
            self.skip_missed(record.audience, row);
            self.read_on(now, socket, out);
        }
    }

    /// The client is gone, or will send no more.
    pub fn handle_gone(&mut self, now: Now, stream: u32, socket: SocketId, out: &mut Out) {
        let _ = now;
        if self.records.get(stream, socket).is_some() {
            self.end(socket, Close::Abort, out);
        }
    }

    /// An event was released to this shard.
    pub fn handle_publish(&mut self, now: Now, record: &Publish, out: &mut Out) {
        let unsent = self.topics.find(&record.topic).map_or(u64::MAX, |topic| self.unsent(topic));
        match self.topics.publish(now.mono, record, unsent) {
            Published::Stored(topic) => {
                self.counts.published += 1;
                self.have_turns(topic, out);
            }
            Published::Seen => self.counts.seen += 1,
            Published::Early | Published::NoTopic | Published::Untold => {}
        }
    }

    /// The place in a topic from which on those who take all they are sent have not been sent it.
    fn unsent(&self, topic: u32) -> u64 {
        let listeners = self.topics.at(topic).listeners.iter();
        let audiences = listeners.map(|&row| self.audiences.at(row));
        let caught_up = audiences.filter(|it| !it.removed && !it.targets.is_empty());
        caught_up.map(Audience::next).min().unwrap_or(u64::MAX)
    }

    /// Histories that grew because of what was not sent yet let go of what is sent by now.
    fn let_go_of_sent(&mut self) {
        for topic in self.topics.behind().to_vec() {
            let unsent = self.unsent(topic);
            self.topics.bound(topic, unsent);
        }
    }

    /// Everything up to `applied` has reached this shard.
    pub fn handle_applied(
        &mut self,
        now: Now,
        applied: &VersionVector,
        how: Advance,
        out: &mut Out,
    ) {
        match how {
            Advance::Onward => self.topics.note_known(applied),
            Advance::Refilling => self.topics.note_refilling(),
            Advance::Refilled => {
                self.topics.note_known(applied);
                self.topics.note_refilled();
                self.all_came(out);
            }
            Advance::Jumped => {
                for topic in self.topics.jump(now.mono, applied) {
                    self.have_turns(topic, out);
                }
            }
            Advance::Snapshot(replica) | Advance::Current(replica) => {
                let jumped = matches!(how, Advance::Snapshot(_));
                for topic in self.topics.hear(now.mono, applied, replica, jumped) {
                    self.have_turns(topic, out);
                }
                let apart = |at: Mono| at.after_ms(limits::WORDS_APART_MS) <= now.mono;
                if !jumped && self.word_at.is_none_or(apart) {
                    self.word_at = Some(now.mono);
                    self.take_back(out);
                }
            }
        }
    }

    /// Streams of pages that are gone for good end, and those of routes that are not any more what
    /// they were when the stream began.
    pub fn handle_config(&mut self, change: &ConfigChange, out: &mut Out) {
        match change {
            ConfigChange::Change(change) => {
                for id in &change.removed_pages {
                    if let Some(topic) = self.topics.find(&page_key(id)) {
                        for audience in self.topics.at(topic).listeners.clone() {
                            self.remove(audience, out);
                        }
                    }
                }
                for id in &change.removed_sites {
                    self.keep_of_site(id, &[], out);
                }
                for site in &change.sites {
                    self.keep_of_site(&site.id, &StreamRoute::of_site(site), out);
                }
            }
            ConfigChange::Replace { pages, sites } => {
                let pages: HashSet<String> = pages.iter().map(Page::key).collect();
                let routes: Vec<_> = sites.iter().flat_map(StreamRoute::of_site).collect();
                let keeps = |audience: &Audience| match &*audience.route().site_id {
                    "" => pages.contains(&*self.topics.names(audience.members())),
                    _ => routes.iter().any(|(_, route)| route == audience.route()),
                };
                let removed = self.audiences.iter().filter(|(_, audience)| !keeps(audience));
                let removed: Vec<u32> = removed.map(|(row, _)| row).collect();
                removed.into_iter().for_each(|audience| self.remove(audience, out));
            }
        }
    }

    fn keep_of_site(&mut self, id: &str, routes: &[(String, Rc<StreamRoute>)], out: &mut Out) {
        let of_site = self.audiences.iter().filter(|(_, it)| *it.route().site_id == *id);
        let removed =
            of_site.filter(|(_, it)| !routes.iter().any(|(_, route)| route == it.route()));
        let removed: Vec<u32> = removed.map(|(row, _)| row).collect();
        removed.into_iter().for_each(|audience| self.remove(audience, out));
    }

    fn remove(&mut self, audience: u32, out: &mut Out) {
        let removed = self.audiences.at_mut(audience);
        if removed.streams > 0 {
            removed.removed = true;
            self.has_turn(audience, out);
        }
    }

    /// A turn that was asked for by `Out::yield_turn`, by anyone. `requests_wait`: requests came
    /// since the last one.
    pub fn handle_continue(&mut self, now: Now, requests_wait: bool, out: &mut Out) {
        for audience in self.turns.settled() {
            self.audiences.settle(audience);
        }
        let mut budget = Budget::for_turn(requests_wait);
        let beats_wait = self.heartbeat.is_due();
        if self.lifetimes.is_due(now.mono) {
            self.end_due(now, &mut budget, out);
        } else if self.are_moves_due(now.mono) {
            self.move_some(now.mono, &mut budget, out);
        } else if beats_wait && (self.turns.is_empty() || self.last_turn == Turn::Events) {
            self.last_turn = Turn::Beats;
            self.beat_some(now, &mut budget, out);
        } else {
            self.last_turn = Turn::Events;
            self.serve_some(now, &mut budget, out);
        }
        while !budget.is_spent()
            && let Some(socket) = self.woken.pop_front()
        {
            budget.spend(1);
            self.read_on(now, socket, out);
        }
        self.let_go_of_sent();
        let more = self.heartbeat.is_due() || !self.turns.is_empty() || !self.woken.is_empty();
        let more = more || self.lifetimes.is_due(now.mono);
        if more || self.are_moves_due(now.mono) {
            out.yield_turn();
        }
    }

    /// Some deadline of the shard has passed, perhaps not one of the streams'.
    pub fn handle_deadline(&mut self, now: Now, out: &mut Out) {
        self.topics.expire(now.mono);
        self.let_go_of_sent();
        self.look_at_interest(now.mono, out);
        if self.count > 0 {
            self.heartbeat.tick(now.mono, self.records.slots());
        }
        let ends = self.are_moves_due(now.mono) || self.lifetimes.is_due(now.mono);
        if self.heartbeat.is_due() || ends {
            out.yield_turn();
        }
    }

    /// When to call [`Streams::handle_deadline`].
    pub fn next_deadline(&self) -> Option<Mono> {
        let beat = (self.count > 0).then(|| self.heartbeat.next_deadline());
        let interest = self.interest.next_deadline();
        let others = [self.lifetimes.next_deadline(), self.tally.next_deadline(), interest];
        [self.topics.next_expiry(), beat, self.next_move()]
            .into_iter()
            .chain(others)
            .flatten()
            .min()
    }
}

/// Slots looked at for a beat in one turn; the next ones in the next.
const VISITS_A_TURN_MAX: u32 = 1024;
const RETRY_PURPOSE: u64 = 1;
