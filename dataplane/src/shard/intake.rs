//! From events of control's feed to what is to be applied, in the order that the fence keeps.
//!
//! Refilling. Events that control sends again (`history=1`, or behind a snapshot) fill histories.
//! They end with the first record that is none of them; only then do histories count as filled. The
//! edge asks for them until they once came to their end.
//!
//! What is too large is passed over where that can be told: streams of all topics get a gap for an
//! event of one, for the record did not say of which. What changes the configuration or purges must
//! not be missed; only a snapshot leads past it.
//!
//! Leaves to others: the connection (`session`), applying what is released (`feed`).

use std::sync::Arc;

use proto::feed::{
    cursor::FeedCursor,
    record::{CircleEdge, Config, Publish, Purge, Record, RecordError, Scope, Snapshot},
    site::{Page, Site},
};

use super::{
    coverage::Coverage,
    mail::{Advance, ConfigChange},
    session::{Lost, Resume},
    subscription::Subscription,
    watermark::Fence,
};
use crate::limits;

/// From events to what is to be applied.
pub(super) struct Intake {
    pub(super) fence: Fence<Item>,
    /// The cursor of the last record that came with one: where a new session resumes.
    pub(super) received: Option<FeedCursor>,
    refill: Refill,
    /// Events from before were once refilled to their end.
    refilled: bool,
    /// Events of this session.
    events: u64,
    snapshot: Option<Gathering>,
    /// Sessions lost in a row over a record, without a new cursor.
    stuck: u32,
    pub(super) unknown_kinds: u64,
    pub(super) too_large: u64,
    pub(super) beats: u64,
    /// What the newest beat told of the edges that visitors can be led to; `None` once taken.
    pub(super) circle: Option<Option<Vec<CircleEdge>>>,
    /// This edge's own name.
    pub(super) own_id: Arc<str>,
    /// The edges that the newest beat came through.
    pub(super) path: Vec<String>,
    /// The event that was just taken, if it was one.
    pub(super) event: Option<Arc<Publish>>,
    /// Which topics are asked for, if this edge asks for topics.
    pub(super) subscription: Option<Subscription>,
    /// Only those come on this session.
    is_filtered: bool,
}

/// What takes effect behind the purges before it.
#[derive(Debug)]
pub(super) enum Item {
    Config(Arc<ConfigChange>),
    Publish(Arc<Publish>),
    Cursor {
        cursor: FeedCursor,
        how: Advance,
    },
    /// `Refilling` or `Refilled`.
    Refill(Advance),
    /// Which topics' events come.
    Coverage(Arc<Coverage>),
}

/// Where this session is with events from before.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Refill {
    No,
    Expected,
    Coming,
}

/// Parts of a snapshot.
#[derive(Default)]
struct Gathering {
    next_part: u32,
    bytes: usize,
    sites: Vec<Site>,
    pages: Vec<Page>,
}

/// Sessions lost over the same record until it is left behind by a snapshot.
const STUCK_MAX: u32 = 2;

impl Intake {
    pub(super) fn new(shard_count: u16) -> Self {
        Self {
            fence: Fence::new(shard_count),
            received: None,
            refill: Refill::No,
            refilled: false,
            events: 0,
            snapshot: None,
            stuck: 0,
            unknown_kinds: 0,
            too_large: 0,
            beats: 0,
            circle: None,
            own_id: "".into(),
            path: Vec::new(),
            event: None,
            subscription: None,
            is_filtered: false,
        }
    }

    /// Whether no events from before are to be expected any more.
    pub(super) fn is_refilled(&self) -> bool {
        self.refilled && self.refill == Refill::No
    }

    /// A session begins: what an older one left unfinished counts for nothing. Where it resumes.
    pub(super) fn begin_session(&mut self) -> Resume {
        self.snapshot = None;
        self.events = 0;
        self.is_filtered = false;
        if let Some(subscription) = &mut self.subscription {
            subscription.session_begins();
        }
        self.refill = if self.refilled { Refill::No } else { Refill::Expected };
        // Twice over the same record: only a snapshot leads past it.
        if self.stuck >= STUCK_MAX {
            self.received = None;
            self.stuck = 0;
        }
        Resume {
            last_event_id: self.received.as_ref().map(ToString::to_string),
            history: !self.refilled,
            topics: self.subscription.as_ref().is_some_and(|it| !it.asks_for_all()),
        }
    }

    /// Whom this edge follows has answered, see [`Subscription::answered`].
    pub(super) fn answered(&mut self, topics_max: Option<usize>) {
        let Some(subscription) = &mut self.subscription else { return };
        subscription.answered(topics_max);
        if topics_max.is_some() {
            // Each topic is asked for with its past.
            self.is_filtered = true;
            self.refill = Refill::No;
        }
        self.push_coverage();
    }

    /// Shards are told what there is to tell of it, in the order of the feed.
    pub(super) fn push_coverage(&mut self) {
        let Some(subscription) = &mut self.subscription else { return };
        for coverage in subscription.take_news() {
            // From here on, what is not asked for is missed.
            self.refilled &= !matches!(coverage, Coverage::Narrow { .. });
            self.fence.push(Item::Coverage(Arc::new(coverage)), false);
        }
    }

    /// Takes one event of the feed.
    pub(super) fn take(&mut self, name: &str, data: &str, id: Option<&str>) -> Result<(), Lost> {
        self.events += 1;
        self.event = None;
        let taken = self.take_event(name, data, id);
        if let Err(lost) = &taken
            && *lost != Lost::Loop
        {
            self.stuck += 1;
            tracing::error!(kind = name, "{lost}: the session with control begins anew");
        }
        taken
    }

    /// Takes note of an event that is over the limit.
    pub(super) fn pass_over(&mut self, name: &str, id: Option<&str>) -> Result<(), Lost> {
        self.events += 1;
        self.too_large += 1;
        let bytes_max = proto::limits::EVENT_BYTES_MAX;
        tracing::error!(kind = name, bytes_max, "a record of the feed is over the limit");
        if matches!(name, "snapshot" | "config" | "purge") {
            self.stuck = STUCK_MAX;
            return Err(Lost::EventTooLarge);
        }
        let cursor = id.and_then(|text| text.parse::<FeedCursor>().ok());
        match (name, cursor.is_some()) {
            ("publish", true) => {
                self.end_refill();
                self.push_cursor(cursor, Advance::Jumped);
            }
            // Only what is sent again has no id. Nothing before the hole can be relied on.
            ("publish", false) => {
                self.refill = Refill::Coming;
                self.fence.push(Item::Refill(Advance::Refilling), false);
            }
            _ => self.push_cursor(cursor, Advance::Onward),
        }
        Ok(())
    }

    fn take_event(&mut self, name: &str, data: &str, id: Option<&str>) -> Result<(), Lost> {
        let cursor = match id.filter(|id| !id.is_empty()) {
            Some(text) => Some(text.parse::<FeedCursor>().map_err(|_| Lost::Record)?),
            None => None,
        };
        match Record::parse(name, data) {
            Ok(record) => self.take_record(record, data.len(), cursor),
            Err(RecordError::UnknownKind(kind)) => {
                if self.unknown_kinds == 0 {
                    tracing::warn!(kind, "control sends records that this edge does not know");
                }
                self.unknown_kinds += 1;
                self.end_refill();
                self.push_cursor(cursor, Advance::Onward);
                Ok(())
            }
            Err(RecordError::Malformed(error)) => {
                tracing::error!(kind = name, %error, "a record of the feed cannot be read");
                Err(Lost::Record)
            }
        }
    }

    fn take_record(
        &mut self,
        record: Record,
        bytes: usize,
        cursor: Option<FeedCursor>,
    ) -> Result<(), Lost> {
        match record {
            Record::Snapshot(part) => return self.take_part(part, bytes, cursor),
            Record::Publish(publish) if publish.refill => {
                if self.refill != Refill::Coming {
                    self.refill = Refill::Coming;
                    self.fence.push(Item::Refill(Advance::Refilling), false);
                }
                self.push_event(publish);
            }
            Record::Publish(publish) => {
                self.end_refill();
                self.push_event(publish);
            }
            Record::Config(config) => {
                self.end_refill();
                self.push_config(config);
            }
            Record::Purge(purge) => {
                self.end_refill();
                self.fence.push_purge(purge);
            }
            // The first beat comes before everything; any later one says that all events from
            // before have come.
            Record::Beat(beat) => {
                if beat.path.iter().any(|id| **id == *self.own_id)
                    || beat.path.len() > limits::RELAY_HOPS_MAX
                {
                    return Err(Lost::Loop);
                }
                self.path = beat.path;
                self.beats += 1;
                if self.events > 1 {
                    self.end_refill();
                }
                self.circle = Some(beat.circle);
                let how = beat.replica.map_or(Advance::Onward, Advance::Current);
                self.push_cursor(cursor, how);
                return Ok(());
            }
            Record::Passed(_) => self.end_refill(),
            Record::Topic(topic) => {
                self.end_refill();
                // Its events are known by then, or would be taken for early.
                self.push_cursor(cursor, Advance::Onward);
                if let Some(subscription) = &mut self.subscription {
                    subscription.begins(topic);
                }
                self.push_coverage();
                return Ok(());
            }
        }
        self.push_cursor(cursor, Advance::Onward);
        Ok(())
    }

    fn push_event(&mut self, publish: Publish) {
        let event = Arc::new(publish);
        self.event = Some(Arc::clone(&event));
        self.fence.push(Item::Publish(event), false);
    }

    fn push_config(&mut self, config: Config) {
        self.fence.push(Item::Config(Arc::new(ConfigChange::Change(config))), true);
    }

    fn push_cursor(&mut self, cursor: Option<FeedCursor>, how: Advance) {
        let Some(cursor) = cursor else { return };
        self.stuck = 0;
        self.received = Some(cursor.clone());
        self.fence.push(Item::Cursor { cursor, how }, false);
    }

    /// What comes now is not from before.
    fn end_refill(&mut self) {
        if self.refill != Refill::No {
            self.refill = Refill::No;
            if !self.is_filtered {
                self.refilled = true;
                self.subscription.iter_mut().for_each(Subscription::all_came);
            }
            self.fence.push(Item::Refill(Advance::Refilled), false);
        }
    }

    /// Gathers a snapshot; its last part puts it into effect.
    fn take_part(
        &mut self,
        part: Snapshot,
        bytes: usize,
        cursor: Option<FeedCursor>,
    ) -> Result<(), Lost> {
        if part.part == 0 {
            self.snapshot = Some(Gathering::default());
        }
        let in_order = self.snapshot.take().filter(|so_far| so_far.next_part == part.part);
        let Some(mut so_far) = in_order else { return Err(Lost::Record) };
        so_far.next_part += 1;
        so_far.bytes += bytes;
        if so_far.bytes > limits::FEED_SNAPSHOT_BYTES_MAX {
            return Err(Lost::EventTooLarge);
        }
        so_far.sites.extend(part.sites);
        so_far.pages.extend(part.pages);
        if !part.last {
            self.snapshot = Some(so_far);
            return Ok(());
        }
        let Some(cursor) = cursor else { return Err(Lost::Record) };
        let Gathering { sites, pages, .. } = so_far;
        tracing::info!(
            sites = sites.len(),
            pages = pages.len(),
            position = cursor.position,
            "a snapshot of the configuration is applied behind a fence of everything"
        );
        let change = ConfigChange::Replace { sites, pages };
        self.fence.push(Item::Config(Arc::new(change)), true);
        let position = cursor.position;
        // The snapshot stands for purges that this edge never heard of, hard ones among them, and
        // its cursor will confirm them: what they may have reached must not come back as stale.
        // Pages are purged softly always; without control the last known one is better than none.
        self.fence.push_purge(Purge { position, scope: Scope::Sites, soft: false });
        self.fence.push_purge(Purge { position, scope: Scope::Everything, soft: true });
        let how = part.replica.map_or(Advance::Jumped, Advance::Snapshot);
        self.push_cursor(Some(cursor), how);
        self.refill = Refill::Expected;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BEAT: &str = r#"{"sent_at_ms":1}"#;

    fn begun() -> Intake {
        let mut intake = Intake::new(1);
        intake.begin_session();
        assert_eq!(intake.take("beat", BEAT, None), Ok(()));
        intake
    }

    fn released(intake: &mut Intake) -> Vec<String> {
        let items = std::iter::from_fn(|| intake.fence.release());
        let text = |item| match item {
            Item::Cursor { cursor, how } => format!("{how:?} {}", cursor.position),
            Item::Refill(how) => format!("{how:?}"),
            other => format!("{other:?}"),
        };
        items.map(text).collect()
    }

    fn id(position: u64) -> String {
        format!("00000000000000ff.{position}.a-00000000:{position}")
    }

    #[test]
    fn an_event_that_is_too_large_is_passed_over_and_streams_are_told() {
        let mut intake = begun();
        assert_eq!(intake.take("beat", BEAT, Some(&id(4))), Ok(()));
        released(&mut intake);
        assert_eq!(intake.pass_over("publish", Some(&id(5))), Ok(()));
        assert_eq!(released(&mut intake), ["Jumped 5"], "a gap");
        assert_eq!(intake.take("beat", BEAT, Some(&id(6))), Ok(()));
        assert_eq!(released(&mut intake), ["Onward 6"]);
        assert_eq!(intake.too_large, 1);
        let resume = intake.begin_session();
        assert_eq!(resume.last_event_id, Some(id(6)), "it is not asked for again");
    }

    #[test]
    fn events_before_one_that_is_too_large_are_not_relied_on_when_sent_again() {
        let mut intake = begun();
        assert_eq!(intake.pass_over("publish", None), Ok(()));
        assert_eq!(intake.take("beat", BEAT, Some(&id(4))), Ok(()));
        assert_eq!(released(&mut intake), ["Refilling", "Refilled", "Onward 4"]);
        assert!(!intake.begin_session().history, "they are not asked for again");
    }

    #[test]
    fn a_change_that_is_too_large_is_left_behind_by_a_snapshot() {
        for kind in ["snapshot", "config", "purge"] {
            let mut intake = begun();
            assert_eq!(intake.take("beat", BEAT, Some(&id(4))), Ok(()));
            assert_eq!(intake.pass_over(kind, None), Err(Lost::EventTooLarge));
            assert_eq!(intake.begin_session().last_event_id, None, "{kind}");
        }
    }
}
