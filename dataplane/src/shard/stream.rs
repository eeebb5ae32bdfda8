//! The live streams of one shard: their 16-byte records, and what each input of a stream's socket
//! means.
//!
//! ```text
//!  subscribe ─▶ head, gap?, events since the cursor, beat with id ─▶ side table ─▶ topic's list
//!  publish ───▶ topic ─▶ turns ─┐
//!  deadline ──▶ heartbeat ──────┼─▶ one batch a turn ─▶ Fanout ─▶ (SendFailed ─▶ side table)
//!  drain ─────▶ ending ─────────┘
//! ```
//! Nothing is sent to a caught-up stream but by a turn, and a turn sends to each at most one frame:
//! two sends to one socket whose first is short would corrupt it (seam, rule 2). Turns happen on
//! `Continue` only, so that all events published since the last one leave together.
//!
//! A stream opens with `retry:` (jittered, so that a cut does not bring everyone back at once) and
//! ends its opening with an `event: beat` whose `id:` is the present cursor: from then on a plain
//! `EventSource` resumes without having seen any event. Later beats have no id.
//!
//! Leaves to others: topics and histories (`topic`), streams not in a list (`slow_consumer`), who
//! is next (`fanout`), when silence ends (`heartbeat`).

use std::{collections::VecDeque, io, io::Write as _, sync::Arc};

use bytes::Bytes;
use hashbrown::HashSet;
use proto::{
    feed::{
        cursor::VersionVector,
        record::Publish,
        site::{Page, page_key},
    },
    field::name::Known,
    http1::encode,
};

use super::{
    Settings,
    fanout::{Budget, Moved, Turns},
    heartbeat::{Heartbeat, later, stamp},
    history::{chunk, event_frame},
    jitter::Jitter,
    mail::{Advance, ConfigChange},
    observe::{Metric, Observe},
    out::Out,
    slow_consumer::{Aside, SideTable, State},
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
    /// `page/<id>`; `None` while this edge has no configuration that could tell: refused.
    pub topic: Option<&'a str>,
    /// From `Last-Event-ID` or, without that field, `?last_event_id=`; not yet understood.
    pub last_event_id: Option<&'a str>,
    /// For `X-Request-Id` in the response head.
    pub request_id: &'a str,
    /// An HTTP/1.0 client: no chunked framing, the close ends the body.
    pub http10: bool,
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
        }
    }
}

/// All streams of one shard.
pub struct Streams {
    limits: StreamLimits,
    records: Records,
    count: u32,
    topics: Topics,
    side: SideTable,
    turns: Turns,
    woken: VecDeque<SocketId>,
    heartbeat: Heartbeat,
    beat: Bytes,
    /// What the last turn sent by fan-out, for its failures.
    last_turn: Turn,
    ending: Option<Ending>,
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
}

/// What a turn fanned out.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Turn {
    Events,
    Beats,
}

/// Ending all streams: the hand that goes over the slots, and by when it must be through.
struct Ending {
    start: Mono,
    over_ms: u64,
    hand: u32,
}

impl Streams {
    /// None yet.
    pub fn new(settings: &Settings) -> Self {
        Self::with_limits(StreamLimits::new(settings.streams_max), settings.seed)
    }

    /// None yet.
    pub fn with_limits(limits: StreamLimits, seed: u64) -> Self {
        Self {
            limits,
            records: Records::default(),
            count: 0,
            topics: Topics::new(limits.history, seed),
            side: SideTable::default(),
            turns: Turns::default(),
            woken: VecDeque::new(),
            heartbeat: Heartbeat::new(limits.beat_ms),
            beat: event_frame(None, "beat", "{}"),
            last_turn: Turn::Events,
            ending: None,
            jitter: Jitter::new(seed, RETRY_PURPOSE),
            counts: Counts::default(),
        }
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
            (Metric::StreamsBlocked, self.side.blocked() as u64),
            (Metric::StreamsAside, self.side.len() as u64),
            (Metric::StreamsSlowClosed, self.counts.slow_closed),
            (Metric::StreamsOpenedWithGap, self.counts.opened_with_gap),
            (Metric::StreamSends, self.counts.sends),
            (Metric::StreamSendsBlocked, self.counts.blocked),
            (Metric::StreamBeats, self.counts.beats),
            (Metric::EventsPublished, self.counts.published),
            (Metric::EventsSeen, self.counts.seen),
            (Metric::Topics, self.topics.count() as u64),
            (Metric::HistoryBytes, self.topics.history_bytes() as u64),
        ] {
            observe.set(metric, value);
        }
    }

    /// Takes over a connection: sends the response head and what the cursor does not cover. Returns
    /// the number kept in `Owner::Stream`; `None` when the stream was refused and the socket is
    /// already being closed.
    pub fn subscribe(&mut self, now: Now, request: Subscribe<'_>, out: &mut Out) -> Option<u32> {
        let socket = request.socket;
        if request.http10 {
            out.send(socket, Payload::One(Segment::Static(NEEDS_HTTP11)));
            out.close(socket, Close::Graceful);
            return None;
        }
        let full = self.count >= self.limits.streams_max || self.ending.is_some();
        let topic = request.topic.filter(|_| !full);
        let topic = topic.and_then(|name| self.topics.find_or_add(name));
        let Some(topic) = topic else {
            self.refuse(now, socket, out);
            return None;
        };
        let mut frames = Vec::new();
        let mut reader = self.topics.open(topic, request.last_event_id, &mut frames);
        self.counts.opened_with_gap += u64::from(!frames.is_empty());
        self.topics.at(topic).read(&mut reader, &mut frames);
        if let Some(present) = self.topics.present(topic, &reader) {
            let id = (!present.is_empty()).then_some(&*present);
            frames.push(event_frame(id, "beat", "{}"));
            reader.cursor = present;
        }
        let head = self.head(now, request.request_id, out);
        out.send(socket, payload(Some(Segment::Owned(head)), Bytes::new(), frames));
        out.watch(socket, true, false);

        let aside = Aside { socket, reader, rest: Bytes::new(), state: State::Sending };
        let row = self.side.add(aside);
        let record = Record { topic, place: Place::aside(row), heard: stamp(now.mono) };
        self.records.put(socket, record);
        if self.count == 0 {
            self.heartbeat.start(now.mono);
        }
        self.count += 1;
        self.topics.at_mut(topic).streams += 1;
        self.counts.opened += 1;
        Some(socket.slot)
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
        let Some(row) = record.place.row() else { return };
        match result {
            Ok(()) => {
                self.side.set_state(row, State::Woken);
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
        let topic = self.topics.at(record.topic);
        let sent_bytes = sent_bytes as usize;
        let (frame, reader) = match self.last_turn {
            Turn::Beats => (&self.beat, topic.place_of(topic.targets.was_sent(place))),
            // Nothing of the frame went out: the stream stands where it stood before the pass, and
            // nobody holds the frame for it.
            Turn::Events => (topic.frame(), topic.place_of(sent_bytes > 0)),
        };
        let rest = match sent_bytes {
            0 => Bytes::new(),
            _ => frame.slice(sent_bytes.min(frame.len())..),
        };
        self.leave_list(record.topic, place);
        let row = self.side.add(Aside {
            socket,
            reader,
            rest,
            state: State::Blocked { since: now.mono },
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
        match self.topics.publish(now.mono, record) {
            Published::Stored(topic) => {
                self.counts.published += 1;
                self.has_turn(topic, out);
            }
            Published::Seen => self.counts.seen += 1,
            Published::Early | Published::NoTopic => {}
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
            }
            Advance::Jumped => {
                for topic in self.topics.jump(now.mono, applied) {
                    self.has_turn(topic, out);
                }
            }
        }
    }

    /// Streams of pages that are gone for good end.
    pub fn handle_config(&mut self, change: &ConfigChange, out: &mut Out) {
        match change {
            ConfigChange::Change(change) => {
                for id in &change.removed_pages {
                    if let Some(topic) = self.topics.find(&page_key(id)) {
                        self.remove(topic, out);
                    }
                }
            }
            ConfigChange::Replace { pages, .. } => {
                let left: HashSet<String> = pages.iter().map(Page::key).collect();
                for topic in self.topics.numbers() {
                    if !left.contains(self.topics.at(topic).name()) {
                        self.remove(topic, out);
                    }
                }
            }
        }
    }

    fn remove(&mut self, topic: u32, out: &mut Out) {
        let removed = self.topics.at_mut(topic);
        if removed.streams > 0 {
            removed.removed = true;
            self.has_turn(topic, out);
        }
    }

    /// A turn that was asked for by `Out::yield_turn`, by anyone. `requests_wait`: requests came
    /// since the last one.
    pub fn handle_continue(&mut self, now: Now, requests_wait: bool, out: &mut Out) {
        for topic in self.turns.settled() {
            self.topics.at_mut(topic).settle();
        }
        let mut budget = Budget::for_turn(requests_wait);
        let beats_wait = self.heartbeat.is_due();
        if self.ending_wanted(now.mono) > 0 {
            self.end_some(now.mono, &mut budget, out);
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
        let more = self.heartbeat.is_due() || !self.turns.is_empty() || !self.woken.is_empty();
        if more || self.ending_wanted(now.mono) > 0 {
            out.yield_turn();
        }
    }

    /// Some deadline of the shard has passed, perhaps not one of the streams'.
    pub fn handle_deadline(&mut self, now: Now, out: &mut Out) {
        self.topics.expire(now.mono);
        if self.count > 0 {
            self.heartbeat.tick(now.mono, self.records.slots());
        }
        if self.heartbeat.is_due() || self.ending_wanted(now.mono) > 0 {
            out.yield_turn();
        }
    }

    /// Ends all streams, paced over `over_ms` and each with a jittered `retry:`; `false` stops
    /// doing so.
    pub fn drain(&mut self, now: Now, on: bool, over_ms: u64, out: &mut Out) {
        self.ending = on.then(|| Ending { start: now.mono, over_ms: over_ms.max(1), hand: 0 });
        if on {
            out.yield_turn();
        }
    }

    /// When to call [`Streams::handle_deadline`].
    pub fn next_deadline(&self) -> Option<Mono> {
        let beat = (self.count > 0).then(|| self.heartbeat.next_deadline());
        let ending = self.ending.as_ref().and_then(|ending| ending.next_deadline(self));
        [self.topics.next_expiry(), beat, ending].into_iter().flatten().min()
    }
}

/// Opening, reading on, ending.
impl Streams {
    /// Response head and the first lines of the stream.
    fn head(&mut self, now: Now, request_id: &str, out: &mut Out) -> Vec<u8> {
        let retry_ms = self.jitter.half_to_three_halves(self.limits.retry_ms);
        let mut head = out.buffer();
        head.extend_from_slice(HEAD);
        encode::date_field(&mut head, Known::Date, (now.wall_ms / 1000) as i64);
        let _ = write!(head, "X-Request-Id: {request_id}\r\n\r\n");
        head.extend_from_slice(&chunk(format!("retry: {retry_ms}\n\n").as_bytes()));
        head
    }

    /// `200`, a jittered `retry:` and a close: any other status would end a browser's
    /// `EventSource` for good.
    fn refuse(&mut self, now: Now, socket: SocketId, out: &mut Out) {
        self.counts.refused += 1;
        let retry_ms = self.jitter.half_to_three_halves(self.limits.retry_ms);
        let mut answer = out.buffer();
        answer.extend_from_slice(REFUSAL_HEAD);
        encode::date_field(&mut answer, Known::Date, (now.wall_ms / 1000) as i64);
        let _ = write!(answer, "\r\nretry: {retry_ms}\n\n");
        out.send(socket, Payload::One(Segment::Owned(answer)));
        out.close(socket, Close::Graceful);
    }

    /// Gives a stream outside the list what comes next, or puts it into the list.
    fn read_on(&mut self, now: Now, socket: SocketId, out: &mut Out) {
        let Some(record) = self.records.get(socket.slot, socket) else { return };
        let Some(row) = record.place.row() else { return };
        let known = Arc::clone(self.topics.known());
        let topic = self.topics.at_mut(record.topic);
        if topic.removed {
            return self.end(socket, Close::Graceful, out);
        }
        let aside = self.side.get_mut(row);
        let mut frames = Vec::new();
        topic.read(&mut aside.reader, &mut frames);
        let rest = std::mem::take(&mut aside.rest);
        if !rest.is_empty() || !frames.is_empty() {
            self.counts.sends += 1;
            self.side.set_state(row, State::Sending);
            out.send(socket, payload(None, rest, frames));
        } else if topic.is_caught_up(&aside.reader, &known) {
            self.side.remove(row);
            let (place, moved) = self.topics.at_mut(record.topic).targets.join(socket);
            let record = self.records.at(socket.slot);
            record.place = Place::listed(place);
            record.heard = later(record.heard, stamp(now.mono));
            self.follow(moved);
        } else {
            let at = topic.waiting.len() as u32;
            topic.waiting.push(socket.slot);
            self.side.set_state(row, State::Waiting { at });
        }
    }

    /// Forgets a stream and closes its socket.
    fn end(&mut self, socket: SocketId, how: Close, out: &mut Out) {
        let record = self.records.take(socket);
        match record.place.row() {
            Some(row) => {
                let aside = self.side.remove(row);
                if let State::Waiting { at } = aside.state {
                    self.leave_waiting(record.topic, at);
                }
            }
            None => {
                if let Some(place) = record.place.in_list() {
                    self.leave_list(record.topic, place);
                }
            }
        }
        self.count -= 1;
        let topic = self.topics.at_mut(record.topic);
        topic.streams -= 1;
        topic.removed &= topic.streams > 0;
        out.close(socket, how);
    }

    /// Ends a stream of our own accord, with a `retry:` if its body stands between two chunks.
    fn dismiss(&mut self, socket: SocketId, out: &mut Out) {
        let Some(record) = self.records.get(socket.slot, socket) else { return };
        let between = match record.place.row() {
            None => true,
            Some(row) => matches!(self.side.get(row).state, State::Waiting { .. }),
        };
        if between {
            let retry_ms = self.jitter.half_to_three_halves(self.limits.retry_ms);
            let mut last = out.buffer();
            last.extend_from_slice(&chunk(format!("retry: {retry_ms}\n\n").as_bytes()));
            last.extend_from_slice(LAST_CHUNK);
            out.send(socket, Payload::One(Segment::Owned(last)));
        }
        self.end(socket, Close::Graceful, out);
    }

    fn leave_list(&mut self, topic: u32, place: u32) {
        for moved in self.topics.at_mut(topic).targets.leave(place) {
            self.follow(moved);
        }
    }

    fn leave_waiting(&mut self, topic: u32, at: u32) {
        let waiting = &mut self.topics.at_mut(topic).waiting;
        waiting.swap_remove(at as usize);
        if let Some(&slot) = waiting.get(at as usize)
            && let Some(row) = self.records.at(slot).place.row()
        {
            self.side.set_state(row, State::Waiting { at });
        }
    }

    fn follow(&mut self, moved: Option<Moved>) {
        if let Some(moved) = moved {
            self.records.at(moved.socket.slot).place = Place::listed(moved.place);
        }
    }
}

/// Turns.
impl Streams {
    fn has_turn(&mut self, topic: u32, out: &mut Out) {
        self.turns.add(topic, &mut self.topics.at_mut(topic).queued);
        out.yield_turn();
    }

    /// A batch of events: each waiting topic once, as far as the budget goes.
    fn serve_some(&mut self, now: Now, budget: &mut Budget, out: &mut Out) {
        for waiting in (1..=self.turns.len()).rev() {
            if budget.is_spent() {
                break;
            }
            let Some(topic) = self.turns.take_next() else { break };
            self.topics.at_mut(topic).queued = false;
            self.serve(now, topic, budget.share(waiting), budget, out);
        }
    }

    fn serve(&mut self, now: Now, row: u32, share: u32, budget: &mut Budget, out: &mut Out) {
        if self.topics.at(row).removed {
            return self.end_topic(row, share, budget, out);
        }
        let topic = self.topics.at_mut(row);
        if !topic.targets.in_pass() && topic.has_pending() {
            let started = topic.begin_pass(now.mono);
            self.wake_waiting(row);
            // A pass over nothing that is live, or over nobody, ends where it began.
            if !started {
                budget.spend(1);
            }
        }
        let topic = self.topics.at_mut(row);
        if topic.targets.in_pass() {
            let frame = topic.frame().clone();
            let targets = topic.targets.take(share);
            let sends = targets.len() as u32;
            out.fanout(frame, targets.iter().copied());
            self.turns.note_served(row);
            self.counts.sends += u64::from(sends);
            budget.spend(sends);
        }
        let topic = self.topics.at_mut(row);
        if topic.targets.in_pass() || topic.has_pending() {
            self.turns.add(row, &mut topic.queued);
        }
    }

    /// The list has moved on: those who wait for it read on.
    fn wake_waiting(&mut self, topic: u32) {
        for slot in std::mem::take(&mut self.topics.at_mut(topic).waiting) {
            let (socket, record) = self.records.socket(slot);
            if let Some(row) = record.place.row() {
                self.side.set_state(row, State::Woken);
                self.woken.push_back(socket);
            }
        }
    }

    /// Ends streams of a topic that was removed. Those outside its list end when they read on.
    fn end_topic(&mut self, row: u32, share: u32, budget: &mut Budget, out: &mut Out) {
        self.wake_waiting(row);
        for _ in 0..share {
            let Some(socket) = self.topics.at(row).targets.last() else { return };
            self.dismiss(socket, out);
            budget.spend(1);
        }
        self.turns.add(row, &mut self.topics.at_mut(row).queued);
    }

    /// A batch of visits: beats for who has been silent, an end for who has been blocked too long.
    fn beat_some(&mut self, now: Now, budget: &mut Budget, out: &mut Out) {
        let mut targets = Vec::new();
        let visits = self.heartbeat.take(self.records.slots(), VISITS_A_TURN_MAX);
        for slot in visits {
            let (socket, record) = self.records.socket(slot);
            match record.place.row() {
                Some(row) => self.visit_aside(now, socket, row, out),
                None if record.place.in_list().is_some() => {
                    let topic = self.topics.at(record.topic);
                    let heard = later(record.heard, stamp(topic.sent_at));
                    if self.heartbeat.is_wanted(now.mono, heard) {
                        self.records.at(slot).heard = stamp(now.mono);
                        targets.push(socket);
                    }
                }
                None => {}
            }
        }
        self.counts.beats += targets.len() as u64;
        budget.spend(targets.len() as u32);
        out.fanout(self.beat.clone(), targets);
    }

    fn visit_aside(&mut self, now: Now, socket: SocketId, row: u32, out: &mut Out) {
        match self.side.get(row).state {
            State::Blocked { since } => {
                if since.after_ms(self.limits.blocked_ms_max) <= now.mono {
                    self.counts.slow_closed += 1;
                    self.end(socket, Close::Abort, out);
                }
            }
            State::Waiting { at } => {
                let record = self.records.at(socket.slot);
                let wanted = self.heartbeat.is_wanted(now.mono, record.heard);
                let topic = record.topic;
                self.leave_waiting(topic, at);
                if wanted {
                    self.counts.beats += 1;
                    self.side.set_state(row, State::Sending);
                    out.send(socket, Payload::One(Segment::Local(self.beat.clone())));
                } else {
                    self.side.set_state(row, State::Woken);
                    self.woken.push_back(socket);
                }
            }
            State::Sending | State::Woken => {}
        }
    }

    /// Slots whose streams should have been ended by now.
    fn ending_wanted(&self, now: Mono) -> u32 {
        let Some(ending) = &self.ending else { return 0 };
        let slots = self.records.slots();
        let elapsed_ms = now.since_ns(ending.start) / 1_000_000 + 1;
        let due = u64::from(slots) * elapsed_ms.min(ending.over_ms) / ending.over_ms;
        (due as u32).saturating_sub(ending.hand)
    }

    fn end_some(&mut self, now: Mono, budget: &mut Budget, out: &mut Out) {
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
    fn next_deadline(&self, streams: &Streams) -> Option<Mono> {
        let (slots, hand) = (u64::from(streams.records.slots()), u64::from(self.hand));
        let due_ms = |slot: u64| (slot * self.over_ms).div_ceil(slots);
        (hand < slots).then(|| {
            let next_ms = due_ms(hand + 1).max(due_ms(hand) + 50).min(self.over_ms);
            self.start.after_ms(next_ms)
        })
    }
}

/// One piece after another, as one send.
fn payload(head: Option<Segment>, rest: Bytes, frames: Vec<Bytes>) -> Payload {
    let rest = (!rest.is_empty()).then_some(Segment::Local(rest));
    let mut segments: Vec<Segment> =
        head.into_iter().chain(rest).chain(frames.into_iter().map(Segment::Local)).collect();
    match segments.len() {
        1 => Payload::One(segments.remove(0)),
        _ => Payload::Many(segments),
    }
}

/// What a stream is when nothing happens: sixteen bytes, the table's generation included.
#[derive(Clone, Copy)]
struct Record {
    topic: u32,
    place: Place,
    /// When something was last sent to it alone, see [`stamp`].
    heard: u32,
}

/// In the topic's list, in the side table, or nowhere.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Place(u32);

impl Place {
    const ASIDE: u32 = 1 << 31;
    const NONE: Self = Self(u32::MAX);

    fn listed(place: u32) -> Self {
        Self(place)
    }

    fn aside(row: u32) -> Self {
        Self(row | Self::ASIDE)
    }

    fn is_none(self) -> bool {
        self == Self::NONE
    }

    /// Row in the side table.
    fn row(self) -> Option<u32> {
        (self.0 & Self::ASIDE != 0 && !self.is_none()).then_some(self.0 & !Self::ASIDE)
    }

    /// Place in the topic's list.
    fn in_list(self) -> Option<u32> {
        (self.0 & Self::ASIDE == 0).then_some(self.0)
    }
}

/// Records by socket slot, in chunks, so that growth never copies the table.
#[derive(Default)]
struct Records {
    chunks: Vec<Box<[Slot; CHUNK_SLOTS]>>,
}

#[derive(Clone, Copy)]
struct Slot {
    generation: u32,
    record: Record,
}

const _: () = assert!(size_of::<Slot>() == 16, "the memory contract of an idle stream");

impl Records {
    /// Slots there is room for.
    fn slots(&self) -> u32 {
        (self.chunks.len() * CHUNK_SLOTS) as u32
    }

    fn put(&mut self, socket: SocketId, record: Record) {
        while self.slots() <= socket.slot {
            self.chunks.push(Box::new([FREE; CHUNK_SLOTS]));
        }
        let slot = self.slot(socket.slot);
        assert!(slot.record.place.is_none(), "a slot's stream ends before its next one");
        *slot = Slot { generation: socket.generation, record };
    }

    fn take(&mut self, socket: SocketId) -> Record {
        let slot = self.slot(socket.slot);
        let record = slot.record;
        assert!(
            slot.generation == socket.generation && !record.place.is_none(),
            "a stream ends once"
        );
        *slot = FREE;
        record
    }

    /// The record of this very stream, if it is still there.
    fn get(&self, stream: u32, socket: SocketId) -> Option<Record> {
        debug_assert!(stream == socket.slot, "the table's number of a stream is its slot");
        let slot = self.chunks.get(socket.slot as usize / CHUNK_SLOTS)?;
        let slot = &slot[socket.slot as usize % CHUNK_SLOTS];
        let same = slot.generation == socket.generation && !slot.record.place.is_none();
        same.then_some(slot.record)
    }

    fn get_mut(&mut self, stream: u32, socket: SocketId) -> Option<&mut Record> {
        self.get(stream, socket)?;
        Some(self.at(socket.slot))
    }

    fn at(&mut self, slot: u32) -> &mut Record {
        &mut self.slot(slot).record
    }

    fn socket(&mut self, slot: u32) -> (SocketId, Record) {
        let found = self.slot(slot);
        (SocketId { slot, generation: found.generation }, found.record)
    }

    fn slot(&mut self, slot: u32) -> &mut Slot {
        &mut self.chunks[slot as usize / CHUNK_SLOTS][slot as usize % CHUNK_SLOTS]
    }
}

const CHUNK_SLOTS: usize = 4096;
const FREE: Slot =
    Slot { generation: 0, record: Record { topic: 0, place: Place::NONE, heard: 0 } };
/// Slots looked at for a beat in one turn; the next ones in the next.
const VISITS_A_TURN_MAX: u32 = 1024;
const RETRY_PURPOSE: u64 = 1;

const HEAD: &[u8] = b"HTTP/1.1 200 OK\r\n\
    Content-Type: text/event-stream\r\n\
    Cache-Control: no-cache, no-transform\r\n\
    X-Accel-Buffering: no\r\n\
    Transfer-Encoding: chunked\r\n";
const REFUSAL_HEAD: &[u8] = b"HTTP/1.1 200 OK\r\n\
    Content-Type: text/event-stream\r\n\
    Cache-Control: no-store\r\n\
    X-Accel-Buffering: no\r\n\
    Connection: close\r\n";
const NEEDS_HTTP11: &[u8] = b"HTTP/1.1 505 HTTP Version Not Supported\r\n\
    Content-Type: text/plain\r\n\
    Content-Length: 62\r\n\
    Connection: close\r\n\r\n\
    Live streams need HTTP/1.1 (in nginx: proxy_http_version 1.1)\n";
const LAST_CHUNK: &[u8] = b"0\r\n\r\n";

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;
    use proto::feed::{
        cursor::{Dot, Replica},
        record::Config,
    };

    use super::*;
    use crate::seam::Effect;

    /// An event as a client reads it.
    #[derive(Clone, PartialEq, Eq, Debug)]
    struct Seen {
        id: Option<String>,
        event: String,
        data: String,
    }

    /// A client's end of a socket, with the engine's half of the work for it.
    #[derive(Default)]
    struct Client {
        generation: u32,
        bytes: Vec<u8>,
        /// Reads nothing; its socket takes `room` more bytes.
        stalled: bool,
        room: usize,
        in_flight: Option<Payload>,
        armed: bool,
        closed: bool,
        sends: usize,
    }

    /// Streams with an engine as bad as the seam allows.
    struct World {
        streams: Streams,
        out: Out,
        now: Now,
        clients: HashMap<u32, Client>,
        /// Targets of each fan-out, in order.
        batches: Vec<Vec<u32>>,
        requests_wait: bool,
    }

    impl World {
        fn new(limits: StreamLimits) -> Self {
            Self {
                streams: Streams::with_limits(limits, 7),
                out: Out::new(0, 1),
                now: Now::default(),
                clients: HashMap::new(),
                batches: Vec::new(),
                requests_wait: false,
            }
        }

        fn open(&mut self, slot: u32, topic: &str, last_event_id: Option<&str>) {
            let generation = self.clients.get(&slot).map_or(0, |old| old.generation + 1);
            self.clients.insert(slot, Client { generation, ..Client::default() });
            let socket = SocketId { slot, generation };
            let request = Subscribe {
                socket,
                topic: Some(topic),
                last_event_id,
                request_id: "r1",
                http10: false,
            };
            self.out.begin();
            self.streams.subscribe(self.now, request, &mut self.out);
            self.run();
        }

        fn publish(&mut self, record: &Publish) {
            self.out.begin();
            self.streams.handle_publish(self.now, record, &mut self.out);
        }

        fn applied(&mut self, applied: &VersionVector, how: Advance) {
            self.out.begin();
            self.streams.handle_applied(self.now, applied, how, &mut self.out);
        }

        fn stall(&mut self, slot: u32, room: usize) {
            let client = self.clients.get_mut(&slot).expect("a client");
            (client.stalled, client.room) = (true, room);
        }

        fn unstall(&mut self, slot: u32) {
            let client = self.clients.get_mut(&slot).expect("a client");
            client.stalled = false;
            let socket = SocketId { slot, generation: client.generation };
            if let Some(payload) = client.in_flight.take() {
                // `take_in` counted what had room; the engine continues by itself.
                let all: Vec<u8> = payload
                    .segments()
                    .iter()
                    .flat_map(|segment| segment.as_slice().to_vec())
                    .collect();
                client.bytes.extend_from_slice(&all);
                self.out.begin();
                self.streams.handle_sent(self.now, slot, socket, Ok(()), payload, &mut self.out);
            } else if std::mem::take(&mut client.armed) {
                self.out.begin();
                self.streams.handle_writable(self.now, slot, socket, &mut self.out);
            }
            self.run();
        }

        fn close(&mut self, slot: u32) {
            let client = self.clients.get_mut(&slot).expect("a client");
            if client.closed {
                return;
            }
            let socket = SocketId { slot, generation: client.generation };
            self.out.begin();
            self.streams.handle_gone(self.now, slot, socket, &mut self.out);
            self.run();
            assert!(self.clients[&slot].closed);
        }

        fn pass_ms(&mut self, ms: u64) {
            self.now.mono = self.now.mono.after_ms(ms);
            if self.streams.next_deadline().is_some_and(|at| at <= self.now.mono) {
                self.out.begin();
                self.streams.handle_deadline(self.now, &mut self.out);
            }
            self.run();
        }

        /// Carries out effects and turns until nothing is left to do.
        fn run(&mut self) {
            while self.turn() {}
        }

        /// Carries out the effects there are; whether a turn or an outcome gave new ones.
        fn turn(&mut self) -> bool {
            let (mut sent, mut failed, mut yielded) = (Vec::new(), Vec::new(), false);
            let mut touched = std::collections::HashSet::new();
            while let Some(effect) = self.out.poll() {
                match effect {
                    Effect::Send { socket, payload } => {
                        let client = self.clients.get_mut(&socket.slot).expect("a client");
                        assert!(!client.closed && client.in_flight.is_none());
                        assert!(touched.insert(socket.slot), "one send while its outcome is open");
                        assert!(payload.segments().len() <= limits::SEGMENTS_MAX);
                        if client.stalled {
                            client.in_flight = Some(payload);
                        } else {
                            for segment in payload.segments() {
                                client.bytes.extend_from_slice(segment.as_slice());
                            }
                            client.sends += 1;
                            sent.push((socket, payload));
                        }
                    }
                    Effect::Fanout { frame, targets } => {
                        let targets = self.out.targets(targets).to_vec();
                        self.batches.push(targets.iter().map(|socket| socket.slot).collect());
                        for socket in targets {
                            let client = self.clients.get_mut(&socket.slot).expect("a client");
                            assert!(!client.closed && client.in_flight.is_none());
                            assert!(touched.insert(socket.slot), "one frame a turn");
                            assert_eq!(client.generation, socket.generation);
                            if !client.stalled {
                                client.bytes.extend_from_slice(&frame);
                                client.sends += 1;
                                continue;
                            }
                            let took = client.room.min(frame.len() - 1);
                            client.room -= took;
                            client.bytes.extend_from_slice(&frame[..took]);
                            failed.push((socket, took as u32));
                        }
                    }
                    Effect::Watch { socket, hang_up, writable } => {
                        assert!(hang_up);
                        self.clients.get_mut(&socket.slot).expect("a client").armed = writable;
                    }
                    Effect::Close { socket, .. } => {
                        self.clients.get_mut(&socket.slot).expect("a client").closed = true;
                    }
                    Effect::Yield => yielded = true,
                    other => panic!("streams have no use for {other:?}"),
                }
            }
            while self.out.pop_closing().is_some() {}
            let busy = yielded || !sent.is_empty() || !failed.is_empty();
            for (socket, sent_bytes) in failed {
                self.out.begin();
                let error = io::ErrorKind::WouldBlock;
                self.streams.handle_send_failed(
                    self.now,
                    socket.slot,
                    socket,
                    sent_bytes,
                    error,
                    &mut self.out,
                );
            }
            for (socket, payload) in sent {
                if !self.clients[&socket.slot].closed {
                    self.out.begin();
                    self.streams.handle_sent(
                        self.now,
                        socket.slot,
                        socket,
                        Ok(()),
                        payload,
                        &mut self.out,
                    );
                }
            }
            if yielded {
                self.out.begin();
                self.out.continued();
                self.streams.handle_continue(self.now, self.requests_wait, &mut self.out);
            }
            busy
        }

        /// Events that a client has read whole.
        fn seen(&self, slot: u32) -> Vec<Seen> {
            let bytes = &self.clients[&slot].bytes;
            let head = bytes.windows(4).position(|w| w == b"\r\n\r\n");
            let Some(head) = head else { return Vec::new() };
            parse(&unchunk(&bytes[head + 4..]))
        }

        /// Events apart from beats.
        fn events(&self, slot: u32) -> Vec<Seen> {
            self.seen(slot).into_iter().filter(|seen| seen.event != "beat").collect()
        }

        fn last_id(&self, slot: u32) -> Option<String> {
            self.seen(slot).into_iter().rev().find_map(|seen| seen.id)
        }
    }

    /// The content of whole chunks.
    fn unchunk(mut body: &[u8]) -> String {
        let mut text = String::new();
        while let Some(at) = body.windows(2).position(|w| w == b"\r\n") {
            let length = std::str::from_utf8(&body[..at]).expect("hex digits");
            let length = usize::from_str_radix(length, 16).expect("hex digits");
            if body.len() < at + 2 + length + 2 {
                break;
            }
            text.push_str(std::str::from_utf8(&body[at + 2..at + 2 + length]).expect("UTF-8"));
            assert_eq!(&body[at + 2 + length..at + 4 + length], b"\r\n");
            body = &body[at + 4 + length..];
        }
        text
    }

    fn parse(text: &str) -> Vec<Seen> {
        let mut all = Vec::new();
        for block in text.split("\n\n") {
            let field = |name: &str| {
                block.lines().find_map(|line| line.strip_prefix(name)).map(str::to_owned)
            };
            if let Some(event) = field("event: ") {
                let data = field("data: ").expect("every event has data");
                all.push(Seen { id: field("id: "), event, data });
            }
        }
        all
    }

    fn replica(name: &str) -> Replica {
        format!("{name}-00000000").parse().expect("a replica")
    }

    fn vector(text: &str) -> VersionVector {
        text.parse().expect("a vector")
    }

    fn event(topic: &str, replica_name: &str, seq: u64, prev: u64) -> Publish {
        let dot = Dot { replica: replica(replica_name), seq };
        Publish {
            position: seq,
            topic: topic.to_owned(),
            dot,
            prev,
            event: "incident".into(),
            data: dot.to_string(),
            version: VersionVector::from_iter([dot]),
            refill: false,
        }
    }

    fn small() -> StreamLimits {
        let mut limits = StreamLimits::new(10_000);
        limits.history.count_max = 4;
        limits
    }

    fn dots(world: &World, slot: u32) -> Vec<String> {
        world.events(slot).into_iter().map(|seen| seen.data).collect()
    }

    #[test]
    fn a_fresh_stream_begins_at_the_present_and_says_where_that_is() {
        let mut world = World::new(small());
        world.applied(&vector("a-00000000:40"), Advance::Jumped);
        world.publish(&event("page/p", "a", 41, 7));
        world.run();
        world.open(1, "page/p", None);
        let seen = world.seen(1);
        assert_eq!(seen.len(), 1);
        assert_eq!(
            (seen[0].event.as_str(), seen[0].id.as_deref()),
            ("beat", Some("a-00000000:41"))
        );
        let text = String::from_utf8_lossy(&world.clients[&1].bytes).into_owned();
        assert!(text.starts_with("HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"));
        assert!(text.contains("\r\nX-Accel-Buffering: no\r\n"));
        assert!(text.contains("\r\nX-Request-Id: r1\r\n"));
        world.publish(&event("page/p", "a", 50, 41));
        world.run();
        assert_eq!(dots(&world, 1), ["a-00000000:50"]);
    }

    #[test]
    fn a_resume_gets_what_its_cursor_does_not_cover_and_no_gap() {
        let mut world = World::new(small());
        for (seq, prev) in [(3, 0), (5, 3), (8, 5)] {
            world.publish(&event("page/p", "a", seq, prev));
        }
        world.run();
        world.open(1, "page/p", Some("a-00000000:3"));
        assert_eq!(dots(&world, 1), ["a-00000000:5", "a-00000000:8"]);
        assert_eq!(world.last_id(1).as_deref(), Some("a-00000000:8"));
    }

    #[test]
    fn a_resume_from_before_the_history_is_told_a_gap_first() {
        let mut world = World::new(small());
        for seq in 1..=10 {
            world.publish(&event("page/p", "a", seq, seq - 1));
        }
        world.run();
        world.open(1, "page/p", Some("a-00000000:3"));
        let events = world.events(1);
        assert_eq!((events[0].event.as_str(), events.len()), ("gap", 5));
        assert_eq!(events[0].id.as_deref(), Some("a-00000000:6"));
        assert_eq!(events[1].data, "a-00000000:7");
    }

    #[test]
    fn a_cursor_that_means_nothing_here_is_a_gap_to_the_present() {
        let mut world = World::new(small());
        world.publish(&event("page/p", "a", 1, 0));
        world.run();
        // What is well-formed is kept, so that nothing the client has is sent to it again.
        let ahead = "a-00000000:1,zz-00000009:4";
        for (slot, cursor, id) in [
            (1, "nonsense\"", "a-00000000:1"),
            (2, "zz-00000009:4", ahead),
            (3, "a-00000000:1,x", "a-00000000:1"),
        ] {
            world.open(slot, "page/p", Some(cursor));
            let events = world.events(slot);
            assert_eq!((events.len(), events[0].event.as_str()), (1, "gap"), "{cursor}");
            assert_eq!(world.last_id(slot).as_deref(), Some(id));
        }
    }

    #[test]
    fn after_a_start_without_history_a_resume_from_before_it_is_told_and_one_from_behind_it_not() {
        let mut world = World::new(small());
        world.applied(&vector("a-00000000:40"), Advance::Jumped);
        world.open(1, "page/p", Some("a-00000000:39"));
        world.open(2, "page/p", Some("a-00000000:40"));
        world.open(3, "page/p", Some("a-00000000:45"));
        assert_eq!(world.events(1)[0].event, "gap");
        assert!(world.events(2).is_empty());
        // The third comes from an edge that is ahead: what it has is not sent again.
        world.publish(&event("page/p", "a", 44, 7));
        world.run();
        assert_eq!(dots(&world, 2), ["a-00000000:44"]);
        assert!(world.events(3).is_empty());
        world.publish(&event("page/p", "a", 46, 44));
        world.run();
        assert_eq!(dots(&world, 3), ["a-00000000:46"]);
    }

    #[test]
    fn refilled_history_serves_resumes_and_nobody_who_was_there() {
        let mut world = World::new(small());
        world.applied(&vector("a-00000000:40"), Advance::Jumped);
        world.open(1, "page/p", None);
        for (seq, prev) in [(20, 5), (30, 20)] {
            world.publish(&Publish { refill: true, ..event("page/p", "a", seq, prev) });
        }
        world.publish(&Publish { refill: true, ..event("page/p", "a", 41, 30) });
        world.run();
        assert!(world.events(1).is_empty());
        world.open(3, "page/p", Some("a-00000000:7"));
        assert_eq!(world.events(3)[0].event, "gap", "more may still be on its way");
        world.applied(&vector("a-00000000:40"), Advance::Refilled);
        world.open(2, "page/p", Some("a-00000000:7"));
        assert_eq!(dots(&world, 2), ["a-00000000:20", "a-00000000:30"]);
        // What was refilled too early comes in its order.
        world.publish(&event("page/p", "a", 41, 30));
        world.run();
        assert_eq!(dots(&world, 1), ["a-00000000:41"]);
        assert_eq!(dots(&world, 2).len(), 3);
    }

    #[test]
    fn an_event_that_comes_twice_is_sent_once() {
        let mut world = World::new(small());
        world.open(1, "page/p", None);
        for _ in 0..2 {
            world.publish(&event("page/p", "a", 1, 0));
            world.run();
        }
        assert_eq!(dots(&world, 1), ["a-00000000:1"]);
        assert_eq!(world.streams.counts().seen, 1);
    }

    #[test]
    fn a_hole_in_the_feed_is_told_to_everyone() {
        let mut world = World::new(small());
        world.publish(&event("page/p", "a", 1, 0));
        world.open(1, "page/p", None);
        world.publish(&event("page/p", "a", 9, 5));
        world.run();
        let events = world.events(1);
        assert_eq!(events[0].event, "gap");
        assert_eq!(events[0].id.as_deref(), Some("a-00000000:5"));
        assert_eq!(events[1].data, "a-00000000:9");
    }

    #[test]
    fn a_jump_of_the_feed_is_told_to_every_topic() {
        let mut world = World::new(small());
        world.publish(&event("page/p", "a", 1, 0));
        world.open(1, "page/p", None);
        world.open(2, "page/q", None);
        world.applied(&vector("a-00000000:90"), Advance::Jumped);
        world.run();
        for slot in [1, 2] {
            assert_eq!(world.events(slot).last().expect("told").event, "gap");
            assert_eq!(world.last_id(slot).as_deref(), Some("a-00000000:90"));
        }
        world.applied(&vector("a-00000000:80"), Advance::Jumped);
        world.run();
        assert_eq!(world.events(1).len(), 1, "nothing new: nothing to tell");
    }

    #[test]
    fn a_blocked_stream_goes_on_at_the_byte_where_it_stopped() {
        for room in [0, 1, 5, 20, 1000] {
            let mut world = World::new(small());
            world.open(1, "page/p", None);
            world.stall(1, room);
            for seq in 1..=3 {
                world.publish(&event("page/p", "a", seq, seq - 1));
                world.run();
            }
            assert_eq!(world.streams.side.blocked(), 1);
            world.unstall(1);
            let expected = ["a-00000000:1", "a-00000000:2", "a-00000000:3"];
            assert_eq!(dots(&world, 1), expected, "room {room}");
            world.publish(&event("page/p", "a", 4, 3));
            world.run();
            assert_eq!(dots(&world, 1).len(), 4, "back in the list");
            assert_eq!(world.streams.side.len(), 0);
        }
    }

    #[test]
    fn a_blocked_stream_that_history_overtook_is_told() {
        let mut world = World::new(small());
        world.open(1, "page/p", None);
        world.stall(1, 3);
        for seq in 1..=20 {
            world.publish(&event("page/p", "a", seq, seq - 1));
            world.run();
        }
        world.unstall(1);
        let events = world.events(1);
        assert_eq!(events[0].data, "a-00000000:1", "the begun frame is finished");
        assert_eq!(events[1].event, "gap");
        assert_eq!(events[2].data, "a-00000000:17");
        assert_eq!(events.len(), 6);
    }

    #[test]
    fn a_stream_blocked_too_long_is_closed() {
        let mut world = World::new(small());
        world.open(1, "page/p", None);
        world.stall(1, 3);
        world.publish(&event("page/p", "a", 1, 0));
        world.run();
        for _ in 0..400 {
            world.pass_ms(250);
        }
        assert!(world.clients[&1].closed);
        assert_eq!((world.streams.count(), world.streams.counts().slow_closed), (0, 1));
    }

    #[test]
    fn events_published_together_leave_in_one_send() {
        let mut world = World::new(small());
        world.open(1, "page/p", None);
        let before = world.clients[&1].sends;
        for seq in 1..=4 {
            world.publish(&event("page/p", "a", seq, seq - 1));
        }
        world.run();
        assert_eq!(dots(&world, 1).len(), 4);
        assert_eq!(world.clients[&1].sends - before, 1);
    }

    #[test]
    fn a_small_topic_does_not_wait_for_a_large_one() {
        let mut world = World::new(StreamLimits::new(10_000));
        for slot in 0..3000 {
            world.open(slot, "page/large", None);
        }
        for slot in 3000..3010 {
            world.open(slot, "page/small", None);
        }
        world.batches.clear();
        for requests_wait in [false, true] {
            world.requests_wait = requests_wait;
            let seq = 1 + u64::from(requests_wait);
            world.publish(&event("page/large", "a", seq, seq - 1));
            world.publish(&event("page/small", "b", seq, seq - 1));
            world.batches.clear();
            world.run();
            let small_at = world.batches.iter().position(|batch| batch.contains(&3005));
            assert!(small_at.expect("served") <= 1, "in the first turns");
            let largest = world.batches.iter().map(Vec::len).max().expect("some");
            assert_eq!(largest, if requests_wait { 32 } else { 1024 });
        }
        for slot in 0..3010 {
            assert_eq!(dots(&world, slot).len(), 2);
        }
    }

    #[test]
    fn a_silent_stream_hears_a_beat_without_id() {
        let mut world = World::new(small());
        world.open(1, "page/p", None);
        for _ in 0..4 * 120 {
            world.pass_ms(250);
        }
        let beats: Vec<Seen> = world.seen(1);
        assert_eq!(beats.len(), 3, "{beats:?}");
        assert!(beats[1..].iter().all(|beat| beat.event == "beat" && beat.id.is_none()));
    }

    #[test]
    fn one_stream_too_many_is_refused_in_a_way_that_lets_it_come_back() {
        let mut world = World::new(StreamLimits { streams_max: 1, ..small() });
        world.open(1, "page/p", None);
        world.open(2, "page/p", None);
        assert!(world.clients[&2].closed && !world.clients[&1].closed);
        let text = String::from_utf8_lossy(&world.clients[&2].bytes).into_owned();
        assert!(text.starts_with("HTTP/1.1 200 OK\r\n") && text.contains("\r\n\r\nretry: "));
        world.close(1);
        world.open(3, "page/p", None);
        assert!(!world.clients[&3].closed);
    }

    #[test]
    fn a_drain_ends_streams_over_its_time_with_a_retry_of_their_own() {
        let mut world = World::new(small());
        for slot in 0..100 {
            world.open(slot * 40, "page/p", None);
        }
        world.streams.drain(world.now, true, 2000, &mut world.out);
        world.run();
        world.pass_ms(1000);
        let halfway = world.streams.count();
        assert!((40..=60).contains(&halfway), "{halfway}");
        world.open(9000, "page/p", None);
        assert!(world.clients[&9000].closed, "none is taken any more");
        world.pass_ms(1000);
        assert_eq!(world.streams.count(), 0);
        let text = String::from_utf8_lossy(&world.clients[&0].bytes).into_owned();
        assert!(text.ends_with("0\r\n\r\n"));
    }

    #[test]
    fn a_slow_drain_asks_for_no_turn_before_a_stream_is_due() {
        let mut world = World::new(small());
        world.open(4000, "page/p", None);
        world.streams.drain(world.now, true, 3_600_000, &mut world.out);
        world.run();
        for _ in 0..20 {
            let at = world.streams.next_deadline().expect("it goes on");
            assert!(at > world.now.mono, "{at:?} is not ahead of {:?}", world.now.mono);
            world.now.mono = at;
            world.pass_ms(0);
        }
        world.pass_ms(3_600_000);
        assert_eq!((world.streams.count(), world.streams.next_deadline()), (0, None));
    }

    #[test]
    fn streams_of_a_removed_topic_end() {
        let mut world = World::new(small());
        for slot in 0..50 {
            world.open(slot, "page/p", None);
        }
        world.open(99, "page/q", None);
        let removed_pages = vec!["p".to_owned()];
        let change = ConfigChange::Change(Config { removed_pages, ..Config::default() });
        world.streams.handle_config(&change, &mut world.out);
        world.run();
        assert_eq!(world.streams.count(), 1);
        world.open(7, "page/p", None);
        assert_eq!(world.streams.count(), 2, "a topic may come back");
        let page = Page { id: "p".into(), slug: "p".into(), hosts: Vec::new() };
        let change = ConfigChange::Replace { sites: Vec::new(), pages: vec![page] };
        world.streams.handle_config(&change, &mut world.out);
        world.run();
        assert!(world.clients[&99].closed && !world.clients[&7].closed);
    }

    #[test]
    fn an_http10_client_is_told_why_it_cannot_have_a_stream() {
        let (head, body) =
            std::str::from_utf8(NEEDS_HTTP11).expect("text").split_once("\r\n\r\n").expect("head");
        assert!(head.contains(&format!("Content-Length: {}", body.len())), "{}", body.len());
    }

    // -- the model --

    /// What two replicas have written: for each operation the topic it publishes to, if any.
    #[derive(Clone, Debug)]
    struct Log([Vec<Option<usize>>; 2]);

    const TOPICS: [&str; 2] = ["page/p", "page/q"];

    impl Log {
        fn dot(at: usize, seq: u64) -> Dot {
            Dot { replica: replica(["a", "b"][at]), seq }
        }

        /// The event of one operation.
        fn event(&self, at: usize, seq: u64) -> Option<Publish> {
            let topic = self.0[at][seq as usize - 1]?;
            let prev = (1..seq).rev().find(|&s| self.0[at][s as usize - 1] == Some(topic));
            Some(event(TOPICS[topic], ["a", "b"][at], seq, prev.unwrap_or(0)))
        }

        /// All events of a topic.
        fn dots(&self, topic: usize) -> Vec<Dot> {
            let of = |at: usize| {
                let seqs = 1..=self.0[at].len() as u64;
                seqs.filter(move |&seq| self.0[at][seq as usize - 1] == Some(topic))
                    .map(move |seq| Self::dot(at, seq))
            };
            of(0).chain(of(1)).collect()
        }
    }

    #[derive(Clone, Debug)]
    enum Step {
        Advance { at: usize, tell: bool },
        Repeat { at: usize, back: u64 },
        Refill { events: usize },
        Reconnect { window: [u64; 2] },
        Open { slot: u32, topic: usize, from: From },
        Stall { slot: u32, room: usize },
        Unstall { slot: u32 },
        Close { slot: u32 },
        Turn,
        Pass { ms: u64 },
        Jump { by: [usize; 2] },
    }

    #[derive(Clone, Debug)]
    enum From {
        Present,
        /// Where this client stopped.
        LastId,
        /// A cursor from another edge: this much behind or ahead of here.
        Other([i64; 2]),
    }

    fn step() -> impl Strategy<Value = Step> {
        let slot = 0u32..6;
        let from = prop_oneof![
            Just(From::Present),
            Just(From::LastId),
            [-12i64..8, -12i64..8].prop_map(From::Other),
        ];
        prop_oneof![
            8 => (0usize..2, any::<bool>()).prop_map(|(at, tell)| Step::Advance { at, tell }),
            1 => (0usize..2, 0u64..5).prop_map(|(at, back)| Step::Repeat { at, back }),
            3 => (1usize..6).prop_map(|events| Step::Refill { events }),
            1 => [0u64..20, 0u64..20].prop_map(|window| Step::Reconnect { window }),
            3 => (slot.clone(), 0usize..2, from)
                .prop_map(|(slot, topic, from)| Step::Open { slot, topic, from }),
            3 => (slot.clone(), 0usize..300).prop_map(|(slot, room)| Step::Stall { slot, room }),
            2 => slot.clone().prop_map(|slot| Step::Unstall { slot }),
            1 => slot.prop_map(|slot| Step::Close { slot }),
            4 => Just(Step::Turn),
            1 => (1u64..30_000).prop_map(|ms| Step::Pass { ms }),
            1 => [0usize..4, 0usize..4].prop_map(|by| Step::Jump { by }),
        ]
    }

    /// A world, the log it reads, and what each client had when it opened.
    struct Model {
        world: World,
        log: Log,
        applied: [u64; 2],
        /// Events that this session with control has still to refill, before anything new.
        refill: VecDeque<Publish>,
        opened: HashMap<u32, (usize, Option<VersionVector>)>,
    }

    impl Model {
        fn new(log: Log, start: [u64; 2], window: [u64; 2]) -> Self {
            let mut limits = small();
            limits.history.count_all_max = 6;
            let mut model = Self {
                world: World::new(limits),
                log,
                applied: start,
                refill: VecDeque::new(),
                opened: HashMap::new(),
            };
            model.world.applied(&model.known(), Advance::Jumped);
            model.reconnect(window);
            model
        }

        /// A new session with control; an unfinished refill begins anew.
        fn reconnect(&mut self, window: [u64; 2]) {
            self.refill.clear();
            for (at, window) in window.into_iter().enumerate() {
                let end = (self.applied[at] + 1).min(self.log.0[at].len() as u64);
                let events = (self.applied[at].saturating_sub(window) + 1..=end)
                    .filter_map(|seq| self.log.event(at, seq));
                self.refill.extend(events.map(|event| Publish { refill: true, ..event }));
            }
            self.world.applied(&self.known(), Advance::Refilling);
            self.refill(0);
        }

        fn refill(&mut self, events: usize) {
            for _ in 0..events {
                let Some(event) = self.refill.pop_front() else { break };
                self.world.publish(&event);
            }
            if self.refill.is_empty() {
                self.world.applied(&self.known(), Advance::Refilled);
            }
        }

        fn known(&self) -> VersionVector {
            let dots = (0..2).filter(|&at| self.applied[at] > 0);
            dots.map(|at| Log::dot(at, self.applied[at])).collect()
        }

        fn advance(&mut self, at: usize, tell: bool) {
            self.refill(usize::MAX);
            if self.applied[at] as usize == self.log.0[at].len() {
                return;
            }
            self.applied[at] += 1;
            if let Some(event) = self.log.event(at, self.applied[at]) {
                self.world.publish(&event);
            }
            if tell {
                self.world.applied(&self.known(), Advance::Onward);
            }
        }

        fn step(&mut self, step: Step) {
            match step {
                Step::Advance { at, tell } => self.advance(at, tell),
                Step::Repeat { at, back } => {
                    let seq = self.applied[at].saturating_sub(back).max(1);
                    if seq <= self.applied[at]
                        && let Some(event) = self.log.event(at, seq)
                    {
                        self.world.publish(&event);
                    }
                }
                Step::Refill { events } => self.refill(events),
                Step::Reconnect { window } => self.reconnect(window),
                Step::Open { slot, topic, from } => {
                    self.finish(slot);
                    let text = match from {
                        From::Present => None,
                        From::LastId => {
                            self.world.clients.get(&slot).and_then(|_| self.world.last_id(slot))
                        }
                        From::Other(by) => {
                            let dots = (0..2).filter_map(|at| {
                                let end = self.log.0[at].len() as i64;
                                let seq = (self.applied[at] as i64 + by[at]).clamp(0, end);
                                (seq > 0).then(|| Log::dot(at, seq as u64))
                            });
                            Some(dots.collect::<VersionVector>().to_string())
                        }
                    };
                    let text = text.filter(|text| !text.is_empty());
                    let cursor = text.as_deref().map(vector);
                    self.world.open(slot, TOPICS[topic], text.as_deref());
                    self.opened.insert(slot, (topic, cursor));
                }
                Step::Stall { slot, room } if self.is_open(slot) => self.world.stall(slot, room),
                Step::Unstall { slot } if self.is_open(slot) => self.world.unstall(slot),
                Step::Close { slot } => self.finish(slot),
                Step::Turn => {
                    self.world.turn();
                }
                Step::Pass { ms } => self.world.pass_ms(ms),
                Step::Jump { by } => {
                    for (at, by) in by.into_iter().enumerate() {
                        let end = self.log.0[at].len() as u64;
                        self.applied[at] = (self.applied[at] + by as u64).min(end);
                    }
                    self.refill.clear();
                    self.world.applied(&self.known(), Advance::Jumped);
                    self.reconnect([3, 3]);
                }
                Step::Stall { .. } | Step::Unstall { .. } => {}
            }
        }

        fn is_open(&self, slot: u32) -> bool {
            self.world.clients.get(&slot).is_some_and(|client| !client.closed)
        }

        /// Closes a client and judges what it saw.
        fn finish(&mut self, slot: u32) {
            if self.world.clients.contains_key(&slot) {
                self.world.close(slot);
                self.judge(slot);
            }
        }

        /// The chain that a client sees: nothing twice, nothing missing that no gap told.
        fn judge(&self, slot: u32) -> VersionVector {
            let (topic, start) = &self.opened[&slot];
            let all = self.log.dots(*topic);
            let mut cursor = start.clone();
            for seen in self.world.seen(slot) {
                let id = seen.id.as_deref().map(vector);
                match (&mut cursor, id) {
                    // The first id of a fresh stream says where it begins.
                    (None, Some(id)) => cursor = Some(id),
                    (None, None) => assert_eq!(seen.event, "beat"),
                    (Some(cursor), Some(id)) => {
                        if seen.event == "gap" && seen.data.contains(r#""from":"","#) {
                            // Its cursor was not understood here; it begins anew.
                            *cursor = id;
                            continue;
                        }
                        assert!(id.covers(cursor), "{id} takes back of {cursor}");
                        let newly: Vec<Dot> = all
                            .iter()
                            .copied()
                            .filter(|dot| id.contains(*dot) && !cursor.contains(*dot))
                            .collect();
                        match seen.event.as_str() {
                            "gap" => {}
                            "beat" => assert_eq!(newly, [], "a beat claims events"),
                            _ => {
                                let dot: Dot = seen.data.parse().expect("a dot");
                                assert!(!cursor.contains(dot), "{dot} came twice");
                                assert_eq!(newly, [dot], "an untold gap before {dot}");
                            }
                        }
                        *cursor = id;
                    }
                    (Some(_), None) => assert_eq!(seen.event, "beat"),
                }
            }
            cursor.unwrap_or_default()
        }

        /// Everything heals: all events come, all clients read.
        fn heal(&mut self) {
            for at in 0..2 {
                while (self.applied[at] as usize) < self.log.0[at].len() {
                    self.advance(at, true);
                }
            }
            self.world.applied(&self.known(), Advance::Onward);
            self.world.run();
            let slots: Vec<u32> = self.opened.keys().copied().collect();
            for &slot in &slots {
                if self.is_open(slot) {
                    self.world.unstall(slot);
                }
            }
            for _ in 0..400 {
                self.world.pass_ms(250);
            }
            for slot in slots {
                let cursor = self.judge(slot);
                if self.is_open(slot) {
                    for dot in self.log.dots(self.opened[&slot].0) {
                        assert!(cursor.contains(dot), "{slot} never learnt of {dot}: {cursor}");
                    }
                }
            }
            let in_use = self.world.streams.side.len();
            assert_eq!(in_use, 0, "everyone is caught up in the end");
        }
    }

    fn log() -> impl Strategy<Value = Log> {
        let ops = || {
            prop::collection::vec(
                prop_oneof![3 => Just(Some(0)), 1 => Just(Some(1)), 2 => Just(None)],
                4..40,
            )
        };
        [ops(), ops()].prop_map(Log)
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

        #[test]
        fn every_client_sees_a_chain_without_untold_gap_and_without_duplicate(
            log in log(),
            start in [0u64..20, 0u64..20],
            window in [0u64..20, 0u64..20],
            steps in prop::collection::vec(step(), 1..120),
        ) {
            let start = [0, 1].map(|at: usize| start[at].min(log.0[at].len() as u64));
            let mut model = Model::new(log, start, window);
            for step in steps {
                model.step(step);
            }
            model.heal();
        }
    }
}
