//! Which topics this edge asks the edge that it follows for; on shard 0 only.
//!
//! ```text
//!   shards ─"on", "off"─▶ rows ─have, want, drop─▶ the edge that is followed
//!                          ▲                            │ topic: its past, then all that comes
//!                          └────────── told ◀───────────┘
//!   All ─the feed answers that it can be narrowed─▶ (all shards have heard) ─▶ Asked
//!    ▲                                                                         │
//!    └─ all has come ── AllSoon ◀── another feed, which tells everything ──────┘
//! ```
//! Everything is what comes unless both sides have agreed on less: control tells everything, and so
//! do edges of an older version; an edge that others follow takes everything; and who would have to
//! ask for too many topics asks for everything for a while.
//!
//! What is asked for is said in lines on the feed's own connection, and ends with it: a session
//! says from the beginning what it has (`have`: nothing of it may be left out behind the cursor)
//! and what it wants (`want`: with its past), then `go`.
//!
//! Leaves to others: what shards want (`stream::interest`), the order of it all (`intake`), the
//! connection (`session`), the other side (`relay::filter`).

use std::collections::{BTreeMap, VecDeque};

use proto::feed::record::Topic;

use super::{
    Settings,
    coverage::{Coverage, Wants},
    opening::{Interval, Openings},
};
use crate::{
    limits,
    seam::{Mono, ShardId},
};

/// What is asked for.
pub(super) struct Subscription {
    shard_count: u16,
    rows: BTreeMap<Box<str>, Row>,
    coming: Coming,
    /// The feed is about to be narrowed; so many shards have still to say that they know.
    narrowing: Option<u16>,
    rounds: u64,
    asks: u64,
    /// Topics that wait until they may be asked for.
    queue: VecDeque<Box<str>>,
    pace: Openings,
    /// What is to be said on the feed's connection.
    lines: Vec<u8>,
    /// Most topics that the edge which is followed lets this one ask for.
    topics_max: usize,
    /// Everything is asked for, because it would be too many topics; until then at least.
    all_until: Option<Mono>,
    /// What shards are to be told of it.
    news: Vec<Coverage>,
}

/// A topic that some shard wants.
#[derive(Default)]
struct Row {
    shards: Vec<ShardId>,
    /// Its events come.
    told: bool,
    /// What there was before them has come.
    filled: bool,
    /// It was asked for by this number, and has not begun.
    ask: Option<u64>,
}

/// Which topics' events come.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Coming {
    /// All.
    All {
        /// And what there was before has come.
        whole: bool,
    },
    /// All, but what there was before of those that were not told is still to come.
    AllSoon,
    /// Those that were asked for.
    Asked,
}

impl Subscription {
    /// Everything comes, as long as nobody offers less.
    pub(super) fn new(shard_count: u16) -> Self {
        Self {
            shard_count,
            rows: BTreeMap::new(),
            coming: Coming::All { whole: false },
            narrowing: None,
            rounds: 0,
            asks: 0,
            queue: VecDeque::new(),
            pace: Openings::new(Interval::share(limits::SUBSCRIBES_PER_S_MAX, 1)),
            lines: Vec::new(),
            topics_max: limits::SUBSCRIBED_TOPICS_MAX,
            all_until: None,
            news: Vec::new(),
        }
    }

    /// Whether an edge asks for topics at all: it may follow another, and nobody follows it.
    pub(super) fn is_for(settings: &Settings) -> bool {
        settings.control.is_some() && !settings.parents.is_empty() && settings.relay.is_none()
    }

    /// What shards are to be told, in the order of the feed.
    pub(super) fn take_news(&mut self) -> Vec<Coverage> {
        std::mem::take(&mut self.news)
    }

    /// What is to be said on the feed's connection.
    pub(super) fn take_lines(&mut self) -> Option<Vec<u8>> {
        (!self.lines.is_empty()).then(|| std::mem::take(&mut self.lines))
    }

    /// Topics that are wanted.
    pub(super) fn count(&self) -> usize {
        self.rows.len()
    }

    /// Whether only what was asked for comes.
    pub(super) fn is_narrow(&self) -> bool {
        self.coming == Coming::Asked
    }

    /// A shard wants to hear of some topics, and of some no more.
    pub(super) fn wants(&mut self, now: Mono, from: ShardId, wants: Wants) {
        for name in wants.on {
            let begins_told = matches!(self.coming, Coming::All { .. });
            let is_whole = self.coming == Coming::All { whole: true };
            let new = Row { told: begins_told, filled: is_whole, ..Row::default() };
            let row = self.rows.entry(name.clone()).or_insert(new);
            if !row.shards.contains(&from) {
                row.shards.push(from);
            }
            if begins_told && self.narrowing.is_none() {
                continue;
            }
            if row.told {
                self.news.push(Coverage::Confirmed(name));
            } else if self.coming == Coming::Asked && row.ask.is_none() {
                self.ask(now, name);
            }
        }
        for name in wants.off {
            let Some(row) = self.rows.get_mut(&name) else { continue };
            row.shards.retain(|shard| *shard != from);
            if !row.shards.is_empty() {
                continue;
            }
            if self.coming == Coming::Asked && (row.told || row.ask.is_some()) {
                say(&mut self.lines, &["drop", &name]);
            }
            if row.told && !matches!(self.coming, Coming::All { .. }) {
                self.news.push(Coverage::Dropped(name.clone()));
            }
            self.rows.remove(&name);
        }
        if self.rows.len() > self.topics_max {
            self.all_until = Some(now.after_ms(limits::SUBSCRIBE_ALL_MS));
        }
    }

    fn ask(&mut self, now: Mono, name: Box<str>) {
        if self.queue.is_empty() && self.pace.take(now) {
            self.say_want(&name);
        } else if !self.queue.contains(&name) {
            self.queue.push_back(name);
        }
    }

    fn say_want(&mut self, name: &str) {
        if let Some(row) = self.rows.get_mut(name) {
            self.asks += 1;
            row.ask = Some(self.asks);
            say(&mut self.lines, &["want", &self.asks.to_string(), name]);
        }
    }

    /// Asks for what waited for its turn.
    pub(super) fn go_on(&mut self, now: Mono) {
        while self.is_narrow() && !self.queue.is_empty() && self.pace.take(now) {
            if let Some(name) = self.queue.pop_front() {
                let is_open = |row: &Row| !row.told && row.ask.is_none();
                if self.rows.get(&name).is_some_and(is_open) {
                    self.say_want(&name);
                }
            }
        }
        if self.all_until.is_some_and(|until| until <= now)
            && self.rows.len() <= self.topics_max / 2
        {
            self.all_until = None;
        }
    }

    /// When to call [`Subscription::go_on`] for time alone.
    pub(super) fn next_deadline(&self, now: Mono) -> Option<Mono> {
        let queued = (!self.queue.is_empty()).then(|| now.after_ms(QUEUE_LOOK_MS));
        let room = self.all_until.map(|until| until.max(now.after_ms(limits::TOPICS_HELD_LOOK_MS)));
        queued.into_iter().chain(room).min()
    }

    /// Whether the feed should be asked for everything, for want of room.
    pub(super) fn asks_for_all(&self) -> bool {
        self.all_until.is_some()
    }

    /// A session begins: nothing was said on it.
    pub(super) fn session_begins(&mut self) {
        self.narrowing = None;
        self.lines.clear();
        self.queue.clear();
        self.rows.values_mut().for_each(|row| row.ask = None);
    }

    /// Whom this edge follows has answered: it lets it ask for this many topics, or tells
    /// everything.
    pub(super) fn answered(&mut self, topics_max: Option<usize>) {
        match topics_max {
            Some(topics_max) => {
                self.topics_max = topics_max.min(limits::SUBSCRIBED_TOPICS_MAX);
                self.rounds += 1;
                self.narrowing = Some(self.shard_count);
                self.news.push(Coverage::Narrowing { round: self.rounds });
            }
            None => {
                if self.coming == Coming::Asked {
                    self.coming = Coming::AllSoon;
                }
                self.narrowing = None;
                if self.rounds > 0 {
                    self.news.push(Coverage::Everything);
                }
            }
        }
    }

    /// A shard opens no more streams of what was not asked for. Whether all have said so: the feed
    /// is narrow from here on.
    pub(super) fn narrowed(&mut self, round: u64) -> bool {
        let Some(left) = self.narrowing.as_mut().filter(|_| round == self.rounds) else {
            return false;
        };
        *left = left.saturating_sub(1);
        if *left > 0 {
            return false;
        }
        self.narrowing = None;
        let is_whole = self.coming == Coming::All { whole: true };
        self.coming = Coming::Asked;
        let mut told = Vec::new();
        let mut wanted = Vec::new();
        for (name, row) in &mut self.rows {
            row.filled |= row.told && is_whole;
            if row.told {
                say(&mut self.lines, &["have", name]);
                told.push(name.clone());
            }
            if !row.filled {
                wanted.push(name.clone());
            }
        }
        wanted.iter().for_each(|name| self.say_want(name));
        say(&mut self.lines, &["go"]);
        self.news.push(Coverage::Narrow { told });
        true
    }

    /// A topic begins, if it is the answer to what was last asked.
    pub(super) fn begins(&mut self, topic: Topic) {
        let row = self.rows.get_mut(&*topic.topic).filter(|row| row.ask == Some(topic.ask));
        if let Some(row) = row {
            *row = Row {
                shards: std::mem::take(&mut row.shards),
                told: true,
                filled: true,
                ask: None,
            };
            self.news.push(Coverage::Begun(topic.into()));
        }
    }

    /// Everything comes, and what there was before has come.
    pub(super) fn all_came(&mut self) {
        if self.coming == Coming::AllSoon {
            self.rows.values_mut().for_each(|row| row.told = true);
        }
        if self.coming != Coming::Asked {
            self.coming = Coming::All { whole: true };
            self.rows.values_mut().for_each(|row| row.filled = true);
        }
    }
}

fn say(lines: &mut Vec<u8>, words: &[&str]) {
    lines.extend_from_slice(words.join(" ").as_bytes());
    lines.push(b'\n');
}

/// Between two looks at what waits for its turn.
const QUEUE_LOOK_MS: u64 = 50;
