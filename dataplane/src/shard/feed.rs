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
    ControlLink, Settings,
    coverage::Wants,
    intake::{Intake, Item},
    jitter::Jitter,
    last_known::{LastKnown, Restored},
    mail::{Advance, ConfigChange, FeedState, Mail},
    observe::{Board, Metric, Observe},
    out::Out,
    placement::{Circle, CircleNews},
    position::{Reach, Reporter},
    relay::{Ground, JoinRequest, Relay, Taken},
    session::{Heard, Lost, Purpose, Resume, Session},
    stream::tally::most,
    subscription::Subscription,
};
use crate::{
    limits,
    seam::{Close, Mono, Now, Payload, ShardId, SocketId},
};

/// The feed's state on an edge.
pub struct Feed {
    session: Session,
    /// Whom to follow, in order; control last.
    links: Vec<ControlLink>,
    /// Looks whether one of the first can be followed again.
    look: Option<Session>,
    /// When it does so next.
    look_at: Option<Mono>,
    /// Edges that follow this one.
    relay: Option<Relay>,
    jitter: Jitter,
    edge_id: Arc<str>,
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
    /// Ids of the edges that follow this one.
    children: Arc<[String]>,
    /// When topics that wait to be asked for are looked at.
    subscribe_at: Option<Mono>,
    /// All topics are asked for because they are too many.
    is_all_for_room: bool,
}

impl Feed {
    /// The feed of this shard, if it is to have one.
    pub fn new(settings: &Settings) -> Option<Self> {
        let link = settings.control.as_ref().filter(|_| settings.shard == 0)?;
        let board: &Arc<Board> = &settings.board;
        let cache = Arc::clone(&settings.cache);
        let kept = |data: &std::path::PathBuf| LastKnown::new(data.clone(), Arc::clone(&cache));
        let edge_id = &settings.edge_id;
        let links: Vec<ControlLink> = settings.parents.iter().chain([link]).cloned().collect();
        let observe = Observe::new(Arc::clone(board), settings.shard);
        let relay = settings.relay.as_ref();
        let relay = relay.map(|relay| Relay::new(relay, edge_id, observe.clone()));
        let mut intake = Intake::new(settings.shard_count);
        intake.own_id = Arc::clone(edge_id);
        intake.subscription =
            Subscription::is_for(settings).then(|| Subscription::new(settings.shard_count));
        Some(Self {
            session: Session::new(links.clone(), Purpose::Follow, edge_id, settings.seed),
            links,
            look: None,
            look_at: None,
            relay,
            jitter: Jitter::new(settings.seed, LOOK_PURPOSE),
            edge_id: Arc::clone(edge_id),
            reporter: Reporter::new(link.clone(), &settings.edge_id, settings.seed),
            last_known: settings.data.as_ref().map(kept),
            intake,
            cutter: Cutter::new(cache),
            observe,
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
            children: Arc::default(),
            subscribe_at: None,
            is_all_for_room: false,
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
        if !Session::owns_number(number) {
            self.reporter.handle_resolved(now, number, result, out);
        } else if Session::purpose_of(number) == Purpose::Follow {
            self.session.handle_resolved(now, number, result, out);
        } else if let Some(look) = &mut self.look {
            look.handle_resolved(now, number, result, out);
        }
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
        if !Session::owns_number(number) {
            self.reporter.handle_connected(now, number, result, out);
        } else if Session::purpose_of(number) == Purpose::Follow {
            let resume = match result {
                Ok(_) => self.begin_session(),
                Err(_) => Resume::default(),
            };
            self.session.handle_connected(now, number, result, &resume, out);
        } else {
            let last_event_id = self.intake.received.as_ref().map(ToString::to_string);
            let resume = Resume { last_event_id, ..Resume::default() };
            match (&mut self.look, result) {
                (Some(look), result) => look.handle_connected(now, number, result, &resume, out),
                (None, Ok(socket)) => out.close(socket, Close::Abort),
                (None, Err(_)) => {}
            }
        }
        self.go_on(now, out);
    }

    /// Bytes from control.
    pub fn handle_received(&mut self, now: Now, socket: SocketId, bytes: &[u8], out: &mut Out) {
        if self.session.owns(socket) {
            self.take_events(now, bytes, out);
        } else if self.reporter.owns(socket) {
            self.reporter.handle_received(now, bytes, out);
        } else if let Some(look) = self.look.as_mut().filter(|look| look.owns(socket)) {
            look.handle_received(now, bytes, out, |_| Ok(()));
        } else if let Some(relay) = &mut self.relay {
            relay.handle_received(socket, bytes, out);
        }
        self.go_on(now, out);
    }

    /// Control ended the connection.
    pub fn handle_gone(&mut self, now: Now, socket: SocketId, out: &mut Out) {
        if self.session.owns(socket) {
            self.session.handle_gone(now, out);
        } else if self.reporter.owns(socket) {
            self.reporter.handle_gone(now, out);
        } else if let Some(look) = self.look.as_mut().filter(|look| look.owns(socket)) {
            look.handle_gone(now, out);
        } else if let Some(relay) = &mut self.relay {
            relay.handle_gone(socket, out);
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
        let bytes = payload.len();
        out.recycle(payload);
        if result.is_err() {
            return self.handle_gone(now, socket, out);
        }
        if self.session.owns(socket) {
            self.session.handle_sent();
            self.say(out);
        } else if let Some(relay) = self.relay.as_mut().filter(|relay| relay.owns(socket)) {
            relay.handle_sent(socket, bytes);
            self.serve(now, out);
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
        if let Some(look) = &mut self.look {
            look.handle_deadline(now, out);
        }
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
        let look = self.look.as_ref().and_then(Session::next_deadline);
        let relay = self.relay.as_ref().and_then(Relay::next_deadline);
        let own = [report, kept, self.tell_at, self.behind_until, self.look_at, look, relay];
        let own = own.into_iter().chain([self.subscribe_at]);
        own.chain([self.session.next_deadline()]).flatten().min()
    }
}

/// Whom it follows, and who follows it.
impl Feed {
    /// Where a session resumes that begins now.
    fn begin_session(&mut self) -> Resume {
        let resume = self.intake.begin_session();
        if let Some(relay) = &mut self.relay {
            relay.session_begins(resume.history);
        }
        resume
    }

    /// Takes what has come on the session.
    fn take_events(&mut self, now: Now, bytes: &[u8], out: &mut Out) {
        let (intake, relay) = (&mut self.intake, &mut self.relay);
        let mut is_broken = false;
        self.session.handle_received(now, bytes, out, |heard| -> Result<(), Lost> {
            let event = match heard {
                Heard::Answer(topics_max) => {
                    intake.answered(topics_max);
                    return Ok(());
                }
                Heard::Event(event) => event,
            };
            let id = event.has_id.then_some(&*event.last_event_id);
            if event.too_large {
                is_broken = true;
                return intake.pass_over(&event.name, id);
            }
            intake.take(&event.name, &event.data, id)?;
            if let Some(relay) = relay.as_mut().filter(|_| !is_broken) {
                // What came with the event is what was received last.
                let cursor =
                    intake.received.as_ref().filter(|_| id.is_some_and(|id| !id.is_empty()));
                relay.take(Taken {
                    kind: &event.name,
                    data: &event.data,
                    cursor,
                    event: intake.event.take(),
                    refilled: intake.is_refilled(),
                });
            }
            Ok(())
        });
        if is_broken && let Some(relay) = &mut self.relay {
            relay.break_off(self.intake.received.as_ref(), out);
        }
    }

    /// What streams of a shard want to hear of has changed.
    pub fn handle_wants(&mut self, now: Now, from: ShardId, wants: Wants, out: &mut Out) {
        if let Some(subscription) = &mut self.intake.subscription {
            subscription.wants(now.mono, from, wants);
        }
        self.intake.push_coverage();
        self.go_on(now, out);
    }

    /// A shard opens no more streams of topics that were not asked for.
    pub fn handle_narrowed(&mut self, now: Now, round: u64, out: &mut Out) {
        if let Some(subscription) = &mut self.intake.subscription
            && subscription.narrowed(round)
        {
            tracing::info!(
                topics = subscription.count(),
                "the feed is asked for these topics only"
            );
        }
        self.intake.push_coverage();
        self.go_on(now, out);
    }

    /// Asks for topics, or for everything where they are too many.
    fn subscribe(&mut self, now: Now, out: &mut Out) {
        let Some(subscription) = &mut self.intake.subscription else { return };
        subscription.go_on(now.mono);
        self.subscribe_at = subscription.next_deadline(now.mono);
        let (is_narrow, asks_for_all) = (subscription.is_narrow(), subscription.asks_for_all());
        let is_relayed = self.session.is_following() && !self.session.is_at_control();
        let was_for_room = std::mem::replace(&mut self.is_all_for_room, asks_for_all);
        if is_relayed && asks_for_all && is_narrow {
            tracing::warn!("streams listen to too many topics: the feed is asked for all of them");
            self.session.begin_anew(now, out);
        } else if is_relayed && was_for_room && !asks_for_all && !is_narrow {
            self.session.begin_anew(now, out);
        }
        self.say(out);
    }

    /// Says what there is to say to whom this edge follows.
    fn say(&mut self, out: &mut Out) {
        let Some(subscription) = &mut self.intake.subscription else { return };
        if self.session.can_say()
            && let Some(lines) = subscription.take_lines()
        {
            self.session.say(lines, out);
        }
    }

    /// An edge asks to follow this one.
    pub fn join(
        &mut self,
        now: Now,
        socket: SocketId,
        request: JoinRequest,
        draining: bool,
        out: &mut Out,
    ) {
        match &mut self.relay {
            Some(relay) => relay.join(now, socket, request, draining, out),
            None => out.close(socket, Close::Abort),
        }
        self.go_on(now, out);
    }

    /// Edges that follow are sent elsewhere: this one drains.
    pub fn drain_relay(&mut self, out: &mut Out) {
        if let Some(relay) = &mut self.relay {
            relay.drain(out);
        }
    }

    /// Sends those that follow what comes next.
    fn serve(&mut self, now: Now, out: &mut Out) {
        let Some(relay) = &mut self.relay else { return };
        let configuration = self.last_known.as_ref().map(LastKnown::configuration);
        relay.go_on(now, Ground { cursor: self.cursor.as_ref(), configuration }, out);
        if relay.take_news() {
            self.children = relay.children().into();
            self.reporter.note(false);
            self.want_tell(now);
        }
    }

    /// Goes back to one that is to be followed before the one that is, once it can be.
    fn look_back(&mut self, now: Now, out: &mut Out) {
        let better = self.session.following().filter(|at| *at > 0);
        let Some(better) = better else {
            if let Some(mut look) = self.look.take() {
                look.end(out);
            }
            self.look_at = None;
            return;
        };
        if let Some(look) = &mut self.look {
            if let Some(found) = look.found() {
                look.end(out);
                (self.look, self.look_at) = (None, None);
                tracing::info!(to = %self.links[found].host, "it can be followed again");
                return self.session.turn_to(now, found, out);
            }
            if look.is_over() {
                self.look = None;
            }
            return;
        }
        let jitter = &mut self.jitter;
        let at = *self.look_at.get_or_insert_with(|| {
            let wait_ms = jitter.half_to_three_halves(limits::RELAY_LOOK_EVERY_MS);
            now.mono.after_ms(wait_ms)
        });
        if at <= now.mono {
            self.look_at = None;
            let links = self.links[..better].to_vec();
            let seed = self.jitter.next_u64();
            let mut look = Session::new(links, Purpose::Look, &self.edge_id, seed);
            look.start(now, out);
            self.look = Some(look);
        }
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
        self.subscribe(now, out);
        self.serve(now, out);
        self.look_back(now, out);
        let reach = match self.session.address() {
            Some(address) if self.session.is_at_control() => Reach::At(address),
            Some(_) => Reach::ByName,
            None => Reach::None,
        };
        let path = if reach == Reach::ByName { &self.intake.path[..] } else { &[] };
        let (cursor, observe) = (self.cursor.as_ref(), &self.observe);
        let topics = &self.topics;
        let url = self.url.as_deref();
        let children = &self.children;
        let position = || {
            let cursor = cursor.cloned()?;
            let (path, children) = (path.to_vec(), children.to_vec());
            Some(Position { path, children, ..position(cursor, topics, observe.board(), url) })
        };
        self.reporter.go_on(now, reach, position, out);
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
            Item::Coverage(coverage) => {
                out.mail_all(|| Mail::Coverage(Arc::clone(&coverage)));
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
            if let Some(relay) = &mut self.relay {
                relay.restored(&cursor);
            }
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
            from: following.then(|| self.session.place().into()),
            path: self.intake.path.clone(),
            children: Arc::clone(&self.children),
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
        let is_relayed = self.session.is_following() && !self.session.is_at_control();
        let kept = self.last_known.as_ref().map(LastKnown::counts).unwrap_or_default();
        let subscription = self.intake.subscription.as_ref();
        for (metric, value) in [
            (Metric::FeedRelayed, is_relayed.into()),
            (Metric::FeedTopics, subscription.map_or(0, Subscription::count) as u64),
            (Metric::FeedAllForRoom, subscription.is_some_and(Subscription::asks_for_all).into()),
            (Metric::FeedFiltered, subscription.is_some_and(Subscription::is_narrow).into()),
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

const LOOK_PURPOSE: u64 = 8;

/// What is reported to control.
fn position(
    cursor: FeedCursor,
    topics: &[TopicStreams],
    board: &Board,
    url: Option<&str>,
) -> Position {
    let hits = board.sum(Metric::Hit) + board.sum(Metric::Stale);
    let others = board.sum(Metric::Miss) + board.sum(Metric::Revalidated);
    Position {
        cursor,
        version: env!("CARGO_PKG_VERSION").to_owned(),
        streams: board.sum(Metric::Streams),
        hits,
        lookups: hits + others,
        topics: topics.to_vec(),
        url: url.map(str::to_owned),
        draining: board.sum(Metric::Draining) > 0,
        path: Vec::new(),
        children: Vec::new(),
    }
}
