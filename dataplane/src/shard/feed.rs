//! Follows control's feed and applies it in order; on shard 0 only.
//!
//! ```text
//!   Session ─event─▶ record ─▶ Fence ─────────────────released──▶ mail to all shards
//!                     │          └ purge ─▶ cut in slices ─▶ mailed ─▶ all passed ┘    │
//!                     └ snapshot parts, gathered                  Reporter, LastKnown ◀┘
//! ```
//! The order of the feed is kept by the fence (`watermark`): what stands behind a purge takes
//! effect when every shard has passed it. A snapshot is a new configuration, then a hard purge of
//! all sites and a soft one of everything, then its cursor: in this order nothing fetched by the
//! old configuration stays fresh, and nothing comes back that a purge unknown to this edge removed.
//!
//! Leaves to others: the connection (`session`), what an event of it means (`intake`), what
//! a shard does with its mail (`mod`).

mod cut;
#[cfg(test)]
mod rules;

use std::{collections::BTreeMap, io, net::SocketAddr, sync::Arc};

use proto::feed::{
    cursor::{FeedCursor, VersionVector},
    record::{Position, TopicStreams},
};

use self::cut::Cutter;
use super::{
    Settings,
    intake::{Intake, Item},
    last_known::{LastKnown, Restored},
    mail::{Advance, ConfigChange, FeedState, Mail},
    observe::{Board, Metric, Observe},
    out::Out,
    placement::{Circle, CircleNews},
    position::Reporter,
    session::{Resume, Session},
    stream::tally::most,
};
use crate::{
    limits,
    seam::{Mono, Now, Payload, ShardId, SocketId},
};

/// The feed's state on an edge.
pub struct Feed {
    session: Session,
    reporter: Reporter,
    last_known: Option<LastKnown>,
    /// What came and is not applied.
    intake: Intake,
    cutter: Cutter,
    observe: Observe,
    /// Everything up to here is applied on all shards.
    cursor: Option<FeedCursor>,
    /// Purges were applied since the last report.
    purged: bool,
    /// The feed is not read because too much is under way.
    is_held_back: bool,
    /// Streams are behind; when to look whether they still are.
    behind_until: Option<Mono>,
    /// When other shards are told of the feed's state; `None`: nothing is new.
    tell_at: Option<Mono>,
    told_at: Mono,
    was_following: bool,
    /// Streams of customers' topics, by shard, and of all.
    topics_by_shard: BTreeMap<ShardId, Vec<TopicStreams>>,
    topics: Arc<[TopicStreams]>,
    /// This edge's own name.
    url: Option<Arc<str>>,
    /// Of the edges that visitors can be led to.
    circle: Option<Arc<Circle>>,
    is_circle_told: bool,
}

impl Feed {
    /// The feed of this shard, if it is to have one.
    pub fn new(settings: &Settings) -> Option<Self> {
        let link = settings.control.as_ref().filter(|_| settings.shard == 0)?;
        let board: &Arc<Board> = &settings.board;
        let cache = Arc::clone(&settings.cache);
        let kept = |data: &std::path::PathBuf| LastKnown::new(data.clone(), Arc::clone(&cache));
        Some(Self {
            session: Session::new(link.clone(), settings.seed),
            reporter: Reporter::new(link.clone(), &settings.edge_id, settings.seed),
            last_known: settings.data.as_ref().map(kept),
            intake: Intake::new(settings.shard_count),
            cutter: Cutter::new(cache),
            observe: Observe::new(Arc::clone(board), settings.shard),
            cursor: None,
            purged: false,
            is_held_back: false,
            behind_until: None,
            tell_at: None,
            told_at: Mono(0),
            was_following: false,
            topics_by_shard: BTreeMap::new(),
            topics: Arc::default(),
            url: settings.url.clone(),
            circle: None,
            is_circle_told: false,
        })
    }

    /// Reads what is known from disk, then connects.
    pub fn start(&mut self, now: Now, out: &mut Out) {
        match &mut self.last_known {
            Some(last_known) => last_known.start(out),
            None => self.session.start(now, out),
        }
        self.go_on(now, out);
    }

    /// A name look-up ended.
    pub fn handle_resolved(
        &mut self,
        now: Now,
        number: u64,
        result: Result<Vec<SocketAddr>, io::ErrorKind>,
        out: &mut Out,
    ) {
        self.session.handle_resolved(now, number, result, out);
        self.go_on(now, out);
    }

    /// A connection attempt ended.
    pub fn handle_connected(
        &mut self,
        now: Now,
        number: u64,
        result: Result<SocketId, io::ErrorKind>,
        out: &mut Out,
    ) {
        if Session::owns_number(number) {
            let resume = match result {
                Ok(_) => self.intake.begin_session(),
                Err(_) => Resume::default(),
            };
            self.session.handle_connected(now, number, result, &resume, out);
        } else {
            self.reporter.handle_connected(now, number, result, out);
        }
        self.go_on(now, out);
    }

    /// Bytes from control.
    pub fn handle_received(&mut self, now: Now, socket: SocketId, bytes: &[u8], out: &mut Out) {
        if self.session.owns(socket) {
            let intake = &mut self.intake;
            self.session.handle_received(now, bytes, out, |event| {
                let id = event.has_id.then_some(&*event.last_event_id);
                if event.too_large {
                    return intake.pass_over(&event.name, id);
                }
                intake.take(&event.name, &event.data, id)
            });
        } else if self.reporter.owns(socket) {
            self.reporter.handle_received(now, bytes, out);
        }
        self.go_on(now, out);
    }

    /// Control ended the connection.
    pub fn handle_gone(&mut self, now: Now, socket: SocketId, out: &mut Out) {
        if self.session.owns(socket) {
            self.session.handle_gone(now, out);
        } else if self.reporter.owns(socket) {
            self.reporter.handle_gone(now, out);
        }
        self.go_on(now, out);
    }

    /// A send ended.
    pub fn handle_sent(
        &mut self,
        now: Now,
        socket: SocketId,
        result: Result<(), io::ErrorKind>,
        payload: Payload,
        out: &mut Out,
    ) {
        out.recycle(payload);
        if result.is_err() {
            self.handle_gone(now, socket, out);
        }
    }

    /// Work on the disk ended (`Op::LastKnown`).
    pub fn handle_file(
        &mut self,
        now: Now,
        number: u64,
        result: io::Result<Vec<u8>>,
        out: &mut Out,
    ) {
        let restored = self
            .last_known
            .as_mut()
            .and_then(|last_known| last_known.handle_file(now, number, result, out));
        if let Some(restored) = restored {
            self.restored(now, restored, out);
            self.session.start(now, out);
        }
        self.go_on(now, out);
    }

    /// A response of a page was stored, on any shard.
    pub fn handle_page_stored(&mut self, now: Now, entry: Arc<cache::Entry>) {
        if let Some(last_known) = &mut self.last_known {
            last_known.note_page(now, entry);
        }
    }

    /// A shard passed the turn boundary behind a purge.
    pub fn handle_purge_passed(&mut self, now: Now, ticket: u64, from: ShardId, out: &mut Out) {
        let _ = from;
        self.intake.fence.pass(ticket);
        self.go_on(now, out);
    }

    /// A turn that was asked for.
    pub fn handle_continue(&mut self, now: Now, out: &mut Out) {
        self.go_on(now, out);
    }

    /// Some deadline of the shard has passed.
    pub fn handle_deadline(&mut self, now: Now, out: &mut Out) {
        self.session.handle_deadline(now, out);
        self.reporter.handle_deadline(now, out);
        if let Some(last_known) = &mut self.last_known {
            last_known.handle_deadline(now, out);
        }
        self.go_on(now, out);
    }

    /// The API key was replaced.
    pub fn set_authorization(&mut self, now: Now, authorization: &Arc<str>, out: &mut Out) {
        self.reporter.set_authorization(authorization);
        self.session.set_authorization(now, authorization, out);
        self.go_on(now, out);
    }

    /// When to call [`Feed::handle_deadline`].
    pub fn next_deadline(&self) -> Option<Mono> {
        let kept = self.last_known.as_ref().and_then(LastKnown::next_deadline);
        let report = self.reporter.next_deadline(self.session.is_following());
        let own = [report, kept, self.tell_at, self.behind_until];
        own.into_iter().chain([self.session.next_deadline()]).flatten().min()
    }
}

/// Applying.
impl Feed {
    /// What every input ends with: everything that can take effect does.
    fn go_on(&mut self, now: Now, out: &mut Out) {
        self.cut(out);
        while let Some(item) = self.intake.fence.release() {
            self.apply(now, item, out);
            // A configuration may have held purges back.
            self.cut(out);
        }
        self.hold_back(now, out);
        let (cursor, observe) = (self.cursor.as_ref(), &self.observe);
        let topics = &self.topics;
        let url = self.url.as_deref();
        let position = || cursor.map(|cursor| position(cursor, topics, observe.board(), url));
        self.reporter.go_on(now, self.session.address(), position, out);
        self.tell(now, out);
        self.tell_circle(out);
        self.report();
    }

    fn cut(&mut self, out: &mut Out) {
        self.purged |= self.cutter.cut(&mut self.intake.fence, out);
    }

    fn apply(&mut self, now: Now, item: Item, out: &mut Out) {
        match item {
            Item::Config(change) => {
                self.cutter.note_rules(&change);
                if let Some(last_known) = &mut self.last_known {
                    last_known.note_configuration(now, &change);
                }
                out.mail_all(|| Mail::Config(Arc::clone(&change)));
            }
            Item::Publish(record) => out.mail_all(|| Mail::Publish(Arc::clone(&record))),
            Item::Cursor { cursor, how } => {
                let is_new = self.cursor.as_ref() != Some(&cursor);
                if is_new || how != Advance::Onward {
                    let applied = Arc::new(cursor.applied.clone());
                    out.mail_all(|| Mail::Applied { applied: Arc::clone(&applied), how });
                }
                if is_new {
                    let position = cursor.position;
                    out.mail_all(|| Mail::Watermark(position));
                    if let Some(last_known) = &mut self.last_known {
                        last_known.note_cursor(now, &cursor);
                    }
                    self.reporter.note(std::mem::take(&mut self.purged));
                    self.cursor = Some(cursor);
                    self.want_tell(now);
                }
            }
            Item::Refill(how) => {
                let applied = match &self.cursor {
                    Some(cursor) => cursor.applied.clone(),
                    None => VersionVector::new(),
                };
                let applied = Arc::new(applied);
                out.mail_all(|| Mail::Applied { applied: Arc::clone(&applied), how });
            }
        }
    }

    /// What was on disk is where everything begins.
    fn restored(&mut self, now: Now, restored: Restored, out: &mut Out) {
        let Some((sites, pages)) = restored.configuration else { return };
        tracing::info!(sites = sites.len(), pages = pages.len(), "restored what was last known");
        let change = Arc::new(ConfigChange::Replace { sites, pages });
        self.cutter.note_rules(&change);
        out.mail_all(|| Mail::Config(Arc::clone(&change)));
        if let Some(cursor) = restored.cursor {
            let applied = Arc::new(cursor.applied.clone());
            let how = Advance::Jumped;
            out.mail_all(|| Mail::Applied { applied: Arc::clone(&applied), how });
            out.mail_all(|| Mail::Watermark(cursor.position));
            self.intake.received = Some(cursor.clone());
            self.cursor = Some(cursor);
            self.want_tell(now);
        }
    }

    /// Whether streams of any shard are not sent events as fast as they come: then the feed waits,
    /// and control with it, instead of events that are let go of before anyone has got them.
    pub fn set_behind(&mut self, now: Now, is_behind: bool) {
        let look_at = now.mono.after_ms(limits::FEED_BEHIND_LOOK_MS);
        self.behind_until = is_behind.then_some(look_at);
    }

    /// Reads the feed slower when too much of it is under way.
    fn hold_back(&mut self, now: Now, out: &mut Out) {
        let fence = &self.intake.fence;
        let share = if self.is_held_back { 2 } else { 1 };
        self.is_held_back = self.behind_until.is_some()
            || fence.purges() > limits::FEED_PURGES_MAX / share
            || fence.len() > limits::FEED_HELD_MAX / share;
        self.session.set_receiving(now, !self.is_held_back, out);
    }

    /// A shard has counted who listens to customers' topics.
    pub fn handle_topic_streams(&mut self, now: Now, from: ShardId, counts: Vec<TopicStreams>) {
        self.topics_by_shard.insert(from, counts);
        let mut sums: BTreeMap<&str, u64> = BTreeMap::new();
        for told in self.topics_by_shard.values().flatten() {
            *sums.entry(&told.topic).or_default() += told.streams;
        }
        let sums = sums.into_iter();
        let sums = sums.map(|(topic, streams)| TopicStreams { topic: topic.to_owned(), streams });
        self.topics = most(sums.collect()).into();
        self.want_tell(now);
    }

    fn want_tell(&mut self, now: Now) {
        let at = self.told_at.after_ms(limits::FEED_STATE_MS).max(now.mono);
        let _ = self.tell_at.get_or_insert(at);
    }

    /// Tells all shards of the feed's state: at once when a session comes or goes, else now and
    /// then.
    fn tell(&mut self, now: Now, out: &mut Out) {
        let following = self.session.is_following();
        let changed = following != self.was_following;
        if std::mem::take(&mut self.intake.beats) > 0 {
            self.want_tell(now);
        }
        if !changed && self.tell_at.is_none_or(|at| at > now.mono) {
            return;
        }
        (self.was_following, self.tell_at, self.told_at) = (following, None, now.mono);
        let lag = self.session.heard_at().map(|at| now.mono.since_ns(at) / 1_000_000);
        let state = Arc::new(FeedState {
            connected: following,
            cursor: self.cursor.as_ref().map(ToString::to_string).unwrap_or_default(),
            lag_ms: lag,
            topics: Arc::clone(&self.topics),
        });
        out.mail_all(|| Mail::FeedState(Arc::clone(&state)));
    }

    /// Tells all shards of the edges that visitors can be led to.
    fn tell_circle(&mut self, out: &mut Out) {
        let Some(told) = self.intake.circle.take() else { return };
        let known = self.circle.as_ref();
        let news = told.and_then(|told| CircleNews::of(&told, known)).map(Arc::new);
        if let Some(news) = &news {
            self.circle = Some(Arc::clone(&news.circle));
        }
        if news.is_some() || self.is_circle_told {
            self.is_circle_told = news.is_some();
            out.mail_all(|| Mail::Circle(news.clone()));
        }
    }

    /// What a report says beside the position has changed.
    pub fn note_report(&mut self, now: Now, out: &mut Out) {
        self.reporter.note(false);
        self.go_on(now, out);
    }

    fn report(&self) {
        let session = self.session.counts();
        let kept = self.last_known.as_ref().map(LastKnown::counts).unwrap_or_default();
        for (metric, value) in [
            (Metric::FeedSessions, session.opened),
            (Metric::FeedLost, session.lost),
            (Metric::FeedUnknownKinds, self.intake.unknown_kinds),
            (Metric::FeedTooLarge, self.intake.too_large),
            (Metric::FeedPurgesOpen, self.intake.fence.purges() as u64),
            (Metric::FeedHeld, self.intake.fence.len() as u64),
            (Metric::LastKnownWritten, kept.written),
            (Metric::LastKnownFailed, kept.failed),
            (Metric::LastKnownIgnored, kept.ignored),
            (Metric::LastKnownPagesRestored, kept.pages_restored),
            (Metric::LastKnownPagesDropped, kept.pages_dropped),
        ] {
            self.observe.set(metric, value);
        }
    }
}

/// What is reported to control.
fn position(
    cursor: &FeedCursor,
    topics: &[TopicStreams],
    board: &Board,
    url: Option<&str>,
) -> Position {
    let hits = board.sum(Metric::Hit) + board.sum(Metric::Stale);
    let others = board.sum(Metric::Miss) + board.sum(Metric::Revalidated);
    Position {
        cursor: cursor.clone(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        streams: board.sum(Metric::Streams),
        hits,
        lookups: hits + others,
        topics: topics.to_vec(),
        url: url.map(str::to_owned),
        draining: board.sum(Metric::Draining) > 0,
    }
}
