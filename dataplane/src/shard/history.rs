//! The history of a topic: its newest events, each encoded once, and how a reader goes through
//! them.
//!
//! ```text
//!   topic a   ···│ 3 │   │ 5 │ 6 │   │ 8 │ ◀── append
//!   topic b   ···│   │ 4 │   │   │ 7 │   │ ◀── append
//!   evicted by count, bytes, age   ▲ Reader { next, cursor }
//! ```
//! Entries are numbered in the order of their arrival on the shard, over all its topics, so that a
//! [`Reader`] of several topics has one place in all of them. Beside its place it has a cursor, the
//! version vector that its client holds. Reading gives every entry that the cursor does not cover
//! and nothing that it does. What is missing in between (evicted, or never arrived) is told by a
//! `gap` event before the next entry, whose id says what the client may from now on regard as told.
//!
//! Two policies give less to a reader that is behind: an entry that a later one with the same event
//! key supersedes may be passed over, its id counts as held.
//!
//! An entry's frame is one chunk of the HTTP/1.1 response, so that a client behind a buffering
//! chunk reader sees each event at once. It is shared by reference with every send.
//!
//! Leaves to others: which entries there are and whether they were seen before (`topic`), bounds
//! over all topics of a shard (`topic`), who reads (`stream`).

use std::{collections::VecDeque, sync::Arc};

use bytes::Bytes;
use proto::{
    feed::cursor::{Dot, Replica, VersionVector},
    http1::chunked,
    sse::encode::{self, EventText},
};

use super::region::{Region, Whose};
use crate::seam::Mono;

/// The newest entries of a topic.
pub struct History {
    entries: VecDeque<Entry>,
    /// Everything held has this number or a higher one; nothing below it will ever be held.
    first: u64,
    bytes: usize,
    /// The events that were held and are not any more, the newest of each replica.
    gone: VersionVector,
    /// Number of the newest of those, and one.
    gone_to: u64,
    /// Who stands before this place may have what control has lost, as the region says.
    loss: Option<(u64, Arc<Region>)>,
}

/// One arrival.
#[derive(Clone, Debug)]
pub struct Entry {
    /// Its place in the order of arrival on this shard.
    pub number: u64,
    /// Number of the next entry of this topic with the same event key; `u64::MAX` without one.
    pub superseded_by: u64,
    /// How it came, and so who gets it.
    pub kind: Kind,
    /// The cursor of a reader that has this and everything before it.
    pub id: Arc<VersionVector>,
    /// Its chunk.
    pub frame: Bytes,
    /// When it arrived.
    pub at: Mono,
}

/// What an entry is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// An event, for everyone who does not have it.
    Live(Link),
    /// An event that came again to fill the history: only for those who resume from before it.
    Refill(Link),
    /// Something may be missing between this entry and the one before.
    Gap,
}

/// Which operation an event tells of, and which was before it in the same topic and replica.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Link {
    /// The operation.
    pub dot: Dot,
    /// Sequence number of the event before it, 0 for the first.
    pub prev: u64,
}

impl Link {
    /// Whether `cursor` has the event before this one.
    pub fn follows(&self, cursor: &VersionVector) -> bool {
        cursor.get(self.dot.replica) >= self.prev
    }
}

/// A place in a history.
#[derive(Clone, Debug)]
pub struct Reader {
    /// Number of the next entry to look at.
    pub next: u64,
    /// What the client holds once everything given out has reached it.
    pub cursor: Arc<VersionVector>,
}

/// How much to read at once.
#[derive(Clone, Copy, Debug)]
pub struct Portion {
    /// Up to this entry, not included.
    pub end: u64,
    /// Bytes, exceeded only by a single first frame.
    pub bytes_max: usize,
    /// Frames.
    pub frames_max: usize,
    /// For the streams that were there all the time: without what only fills the history.
    pub live_only: bool,
    /// Without what a later entry of this portion supersedes.
    pub conflate: bool,
}

impl History {
    /// Nothing yet. Entries will have `first` or higher numbers.
    pub fn new(first: u64) -> Self {
        let (entries, gone) = (VecDeque::new(), VersionVector::new());
        Self { entries, first, bytes: 0, gone, gone_to: 0, loss: None }
    }

    /// Nothing yet, because control has lost something that may have been here. All who read on are
    /// told.
    pub fn after_loss(first: u64, region: Arc<Region>) -> Self {
        Self { loss: Some((first, region)), ..Self::new(first) }
    }

    /// Nothing below this number is held.
    pub fn first(&self) -> u64 {
        self.first
    }

    /// Everything held is below this number.
    pub fn end(&self) -> u64 {
        self.entries.back().map_or(self.first, |entry| entry.number + 1)
    }

    /// Entries held.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether none is held.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Bytes held, book-keeping included.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// When the oldest entry arrived.
    pub fn oldest_at(&self) -> Option<Mono> {
        self.entries.front().map(|entry| entry.at)
    }

    /// What came before the oldest event of `replica` that is held; `None` if none is.
    pub fn before_oldest_of(&self, replica: Replica) -> Option<u64> {
        self.entries.iter().find_map(|entry| match entry.kind {
            Kind::Live(link) | Kind::Refill(link) => {
                (link.dot.replica == replica).then_some(link.prev)
            }
            Kind::Gap => None,
        })
    }

    /// Whether an entry held says of a reader that has it that it has `dot` too. Such an event can
    /// no longer be put behind it.
    pub fn implies(&self, dot: Dot) -> bool {
        let mut others = self.entries.iter().filter(|e| !matches!(e.kind, Kind::Refill(_)));
        others.any(|entry| entry.id.contains(dot))
    }

    /// Whether a reader with `cursor` needs an event from `number` on that is only refilled, and so
    /// given to nobody who was there all the time.
    pub fn needs_refilled(&self, number: u64, cursor: &VersionVector) -> bool {
        self.from(number).any(|entry| match entry.kind {
            Kind::Refill(link) => !cursor.contains(link.dot),
            Kind::Live(_) | Kind::Gap => false,
        })
    }

    /// The entries from a number on.
    pub fn from(&self, number: u64) -> impl Iterator<Item = &Entry> {
        self.entries.range(self.index_of(number)..)
    }

    /// Adds the newest entry.
    pub fn append(&mut self, entry: Entry) {
        debug_assert!(entry.number >= self.end(), "entries are numbered in their order");
        self.bytes += weight(&entry);
        self.entries.push_back(entry);
    }

    /// Notes that the entry of this number, if it is still held, was superseded by another.
    pub fn supersede(&mut self, number: u64, by: u64) {
        let at = self.index_of(number);
        if let Some(entry) = self.entries.get_mut(at).filter(|entry| entry.number == number) {
            entry.superseded_by = by;
        }
    }

    /// Lets go of the oldest entry. Readers that have not reached it will be told.
    pub fn evict(&mut self) {
        let Some(entry) = self.entries.pop_front() else { return };
        self.first = entry.number + 1;
        self.gone_to = self.first;
        self.bytes -= weight(&entry);
        match entry.kind {
            Kind::Live(link) | Kind::Refill(link) => {
                self.gone.observe(link.dot);
            }
            Kind::Gap => self.gone.merge(&entry.id),
        }
    }

    /// What has been let go of before `reader` came to it, and its client does not have.
    pub fn overtook(&self, reader: &Reader) -> Option<&VersionVector> {
        let behind = reader.next < self.gone_to && !reader.cursor.covers(&self.gone);
        behind.then_some(&self.gone)
    }

    /// What has been lost since `reader` stood where it stands, and from where on it goes on.
    pub fn lost(&self, reader: &Reader) -> Option<(u64, Arc<Region>)> {
        self.loss.clone().filter(|(place, _)| reader.next < *place)
    }

    fn index_of(&self, number: u64) -> usize {
        self.entries.partition_point(|entry| entry.number < number)
    }

    /// Lets go of all entries.
    pub fn clear(&mut self) {
        while !self.is_empty() {
            self.evict();
        }
    }

    /// Whether an entry was only refilled.
    pub fn has_refilled(&self) -> bool {
        self.entries.iter().any(|entry| matches!(entry.kind, Kind::Refill(_)))
    }
}

/// Gives out what comes next for `reader` in these histories, into `frames`, and moves it on.
pub fn read(
    histories: &[&History],
    topic: &str,
    reader: &mut Reader,
    portion: Portion,
    frames: &mut Vec<Bytes>,
) {
    let mut bytes_left = portion.bytes_max;
    let start = frames.len();
    if let Some((place, region)) = histories.iter().find_map(|history| history.lost(reader)) {
        frames.push(reader.lose(topic, &region));
        reader.next = place;
    }
    let mut gone = VersionVector::new();
    histories.iter().filter_map(|history| history.overtook(reader)).for_each(|v| gone.merge(v));
    if !gone.is_empty() {
        let gap = reader.gap(topic, &gone);
        bytes_left = bytes_left.saturating_sub(gap.len());
        frames.push(gap);
    }
    while reader.next < portion.end {
        let next = histories.iter().filter_map(|history| history.from(reader.next).next());
        let next = next.min_by_key(|entry| entry.number);
        let Some(entry) = next.filter(|entry| entry.number < portion.end) else {
            reader.next = portion.end;
            break;
        };
        // An entry gives at most two frames: a gap and itself.
        let given = frames.len() - start;
        let room = given == 0 || entry.frame.len() + GAP_BYTES_ROUGH <= bytes_left;
        if !room || given + 2 > portion.frames_max {
            break;
        }
        let before = frames.len();
        reader.take(topic, entry, &portion, frames);
        let taken: usize = frames[before..].iter().map(Bytes::len).sum();
        bytes_left = bytes_left.saturating_sub(taken);
        reader.next = entry.number + 1;
    }
}

impl Reader {
    /// Gives out `entry` if the cursor does not cover it.
    fn take(&mut self, topic: &str, entry: &Entry, portion: &Portion, frames: &mut Vec<Bytes>) {
        match entry.kind {
            Kind::Gap if self.cursor.covers(&entry.id) => {}
            Kind::Gap => frames.push(self.gap(topic, &entry.id)),
            Kind::Refill(_) if portion.live_only => {}
            Kind::Live(link) | Kind::Refill(link) if self.cursor.contains(link.dot) => {}
            Kind::Live(link) | Kind::Refill(link) => {
                if !link.follows(&self.cursor) {
                    let missed = Dot { replica: link.dot.replica, seq: link.prev };
                    frames.push(self.gap(topic, &VersionVector::from_iter([missed])));
                }
                if portion.conflate && entry.superseded_by < portion.end {
                    Arc::make_mut(&mut self.cursor).merge(&entry.id);
                } else {
                    frames.push(self.event(entry));
                }
            }
        }
    }

    /// The entry's frame, with an id that takes nothing back of what the client already has.
    fn event(&mut self, entry: &Entry) -> Bytes {
        if entry.id.covers(&self.cursor) {
            self.cursor = Arc::clone(&entry.id);
            return entry.frame.clone();
        }
        Arc::make_mut(&mut self.cursor).merge(&entry.id);
        with_other_id(&entry.frame, &self.cursor)
    }

    /// Tells that something up to `to` may be missing, and moves the cursor there.
    pub fn gap(&mut self, topic: &str, to: &VersionVector) -> Bytes {
        let from = self.cursor.to_string();
        Arc::make_mut(&mut self.cursor).merge(to);
        gap_frame(topic, &from, &self.cursor, to)
    }

    /// Tells that control has lost something, perhaps of what the client has, and takes it back.
    pub fn lose(&mut self, topic: &str, region: &Region) -> Bytes {
        let from = self.cursor.to_string();
        if let Some(kept) = region.without_lost(&self.cursor, Whose::All) {
            self.cursor = Arc::new(kept);
        }
        Arc::make_mut(&mut self.cursor).merge(&region.has);
        loss_frame(topic, &from, &self.cursor, &region.has)
    }
}

/// `event: gap`. `from` is what the client held as far as it was understood, and needs no escaping
/// because it is the text of a version vector; neither does a topic that [`super::topic`] accepted.
/// `version` is what the state must have reached that makes up for it: only what is known here, so
/// that it can be had.
pub fn gap_frame(topic: &str, from: &str, to: &VersionVector, version: &VersionVector) -> Bytes {
    let data = format!(
        r#"{{"topic":"{topic}","kind":"gap","from":"{from}","to":"{to}","version":"{version}"}}"#
    );
    event_frame(Some(to), "gap", &data)
}

/// The same where control has lost some of what the client may hold: its state is to be replaced by
/// one that may be older, and that there is nothing beyond.
pub fn loss_frame(topic: &str, from: &str, to: &VersionVector, version: &VersionVector) -> Bytes {
    let data = format!(
        "{{\"topic\":\"{topic}\",\"kind\":\"gap\",\"reset\":true,\"from\":\"{from}\",\
         \"to\":\"{to}\",\"version\":\"{version}\"}}"
    );
    event_frame(Some(to), "gap", &data)
}

/// One event as one chunk.
///
/// # Panics
/// When the name holds a line break: [`is_event_name`] is asked where names come from outside.
pub fn event_frame(id: Option<&VersionVector>, event: &str, data: &str) -> Bytes {
    let id = id.map(VersionVector::to_string);
    let text = EventText { name: Some(event), id: id.as_deref(), data: Some(data), retry_ms: None };
    let mut frame = Vec::with_capacity(128 + data.len());
    encode::event_chunk(&mut frame, &text).expect("neither vectors nor checked names break a line");
    frame.into()
}

/// The heartbeat as one chunk: it says how long a silence may last, so that whoever reads it knows
/// when a stream is dead.
pub fn beat_frame(id: Option<&VersionVector>, every_ms: u64) -> Bytes {
    event_frame(id, "beat", &format!("{{\"every_ms\":{every_ms}}}"))
}

/// Whether an event may have this name.
pub fn is_event_name(name: &str) -> bool {
    !name.is_empty() && !name.bytes().any(|b| matches!(b, b'\r' | b'\n' | 0))
}

/// The same event under another id.
fn with_other_id(frame: &Bytes, id: &VersionVector) -> Bytes {
    // A frame is `<length>\r\nevent: …\nid: …\n<rest>\r\n`, see `event_frame`.
    let line_end = |from: usize| {
        let end = frame[from..].iter().position(|&b| b == b'\n');
        end.map_or(frame.len(), |at| from + at + 1)
    };
    let event_at = line_end(0);
    let id_at = line_end(event_at);
    let rest = &frame[line_end(id_at)..];
    let mut text = frame[event_at..id_at].to_vec();
    text.extend_from_slice(format!("id: {id}\n").as_bytes());
    text.extend_from_slice(rest.strip_suffix(b"\r\n").unwrap_or(rest));
    chunk(&text)
}

/// `content` as one chunk of a chunked body.
pub fn chunk(content: &[u8]) -> Bytes {
    let mut frame = Vec::with_capacity(content.len() + 12);
    chunked::chunk(&mut frame, content);
    frame.into()
}

/// What an entry counts against the limits: its frame and its book-keeping.
fn weight(entry: &Entry) -> usize {
    entry.frame.len() + ENTRY_BYTES
}

/// Book-keeping of one entry: itself, the allocation of its frame and of its id.
const ENTRY_BYTES: usize = size_of::<Entry>() + 128;
/// About the length of a gap's frame.
const GAP_BYTES_ROUGH: usize = 256;

#[cfg(test)]
mod tests {
    use super::*;

    fn vector(text: &str) -> VersionVector {
        text.parse().expect("a vector")
    }

    fn dot(text: &str) -> Dot {
        text.parse().expect("a dot")
    }

    /// `a-00000000:<seq>` with the given predecessor and the id of all before.
    fn live(seq: u64, prev: u64, id: &str) -> Entry {
        let dot = dot(&format!("a-00000000:{seq}"));
        let id = Arc::new(vector(id));
        let frame = event_frame(Some(&id), "incident", &format!(r#"{{"n":{seq}}}"#));
        Entry {
            number: 0,
            superseded_by: u64::MAX,
            kind: Kind::Live(Link { dot, prev }),
            id,
            frame,
            at: Mono(seq),
        }
    }

    fn history(entries: Vec<Entry>) -> History {
        let mut history = History::new(0);
        for entry in entries {
            history.append(Entry { number: history.end(), ..entry });
        }
        history
    }

    const PORTION: Portion =
        Portion { end: 20, bytes_max: 1 << 20, frames_max: 60, live_only: false, conflate: false };

    /// Texts of what a reader with this cursor gets, one event each.
    fn read(history: &History, next: u64, cursor: &str) -> Vec<String> {
        let mut reader = Reader { next, cursor: Arc::new(vector(cursor)) };
        let portion = Portion { end: history.end(), ..PORTION };
        let mut frames = Vec::new();
        super::read(&[history], "page/p", &mut reader, portion, &mut frames);
        assert_eq!(reader.next, history.end());
        frames.iter().map(|frame| String::from_utf8(unchunk(frame)).expect("UTF-8")).collect()
    }

    fn unchunk(frame: &[u8]) -> Vec<u8> {
        let text_at = frame.windows(2).position(|w| w == b"\r\n").expect("a length line") + 2;
        let length = std::str::from_utf8(&frame[..text_at - 2]).expect("hex");
        let length = usize::from_str_radix(length, 16).expect("hex");
        assert_eq!(&frame[text_at + length..], b"\r\n");
        frame[text_at..text_at + length].to_vec()
    }

    #[test]
    fn a_reader_gets_what_its_cursor_does_not_cover_and_nothing_else() {
        let history = history(vec![
            live(2, 0, "a-00000000:2"),
            live(5, 2, "a-00000000:5"),
            live(9, 5, "a-00000000:9"),
        ]);
        let got = read(&history, 0, "a-00000000:2");
        assert_eq!(got.len(), 2);
        assert_eq!(got[0], "event: incident\nid: a-00000000:5\ndata: {\"n\":5}\n\n");
        assert!(read(&history, 0, "a-00000000:9").is_empty());
    }

    #[test]
    fn a_missing_predecessor_is_told_before_the_event() {
        let history = history(vec![live(9, 5, "a-00000000:9")]);
        let got = read(&history, 0, "a-00000000:2");
        assert_eq!(
            got[0],
            "event: gap\nid: a-00000000:5\ndata: {\"topic\":\"page/p\",\"kind\":\"gap\",\
             \"from\":\"a-00000000:2\",\"to\":\"a-00000000:5\",\"version\":\"a-00000000:5\"}\n\n"
        );
        assert!(got[1].contains("\"n\":9"));
        assert_eq!(read(&history, 0, "a-00000000:5").len(), 1, "it has the predecessor");
    }

    #[test]
    fn a_reader_that_was_overtaken_is_told_and_goes_on() {
        let mut history = history(vec![
            live(2, 0, "a-00000000:2"),
            live(5, 2, "a-00000000:5"),
            live(9, 5, "a-00000000:9"),
        ]);
        history.evict();
        history.evict();
        let got = read(&history, 0, "");
        assert!(got[0].starts_with("event: gap\nid: a-00000000:5\n"));
        assert_eq!(got.len(), 2);
        assert_eq!(read(&history, 0, "a-00000000:5").len(), 1, "it already had what was evicted");
    }

    #[test]
    fn several_topics_are_read_in_the_order_of_arrival_with_one_cursor() {
        let numbered = |number, entry| Entry { number, ..entry };
        let (mut a, mut b) = (History::new(0), History::new(0));
        a.append(numbered(0, live(2, 0, "a-00000000:2")));
        b.append(numbered(1, live(4, 0, "a-00000000:4")));
        a.append(numbered(2, live(5, 2, "a-00000000:5")));
        b.append(numbered(3, live(9, 4, "a-00000000:9")));
        let mut reader = Reader { next: 0, cursor: Arc::new(vector("a-00000000:2")) };
        let mut frames = Vec::new();
        super::read(&[&a, &b], "a,b", &mut reader, PORTION, &mut frames);
        let ids: Vec<String> = frames
            .iter()
            .map(|frame| String::from_utf8(unchunk(frame)).expect("UTF-8"))
            .map(|text| text.lines().nth(1).expect("an id").to_owned())
            .collect();
        assert_eq!(ids, ["id: a-00000000:4", "id: a-00000000:5", "id: a-00000000:9"]);
        b.evict();
        let mut behind = Reader { next: 0, cursor: Arc::new(vector("a-00000000:2")) };
        frames.clear();
        super::read(&[&a, &b], "a,b", &mut behind, PORTION, &mut frames);
        let first = String::from_utf8(unchunk(&frames[0])).expect("UTF-8");
        assert!(first.starts_with("event: gap\nid: a-00000000:4\n"), "{first}");
        assert_eq!(frames.len(), 3, "what is held of the others comes all the same");
    }

    #[test]
    fn a_superseded_entry_is_passed_over_only_if_its_successor_comes_too() {
        let mut history = history(vec![
            live(2, 0, "a-00000000:2"),
            live(5, 2, "a-00000000:5"),
            live(9, 5, "a-00000000:9"),
        ]);
        history.supersede(0, 2);
        for (end, expected) in [(3, 2), (2, 2), (1, 1)] {
            let mut reader = Reader { next: 0, cursor: Arc::default() };
            let mut frames = Vec::new();
            let portion = Portion { end, conflate: true, ..PORTION };
            super::read(&[&history], "t", &mut reader, portion, &mut frames);
            assert_eq!(frames.len(), expected, "up to {end}");
            assert!(!frames.iter().any(|frame| frame.starts_with(b"event: gap")));
        }
    }

    #[test]
    fn an_id_takes_nothing_back_of_what_the_client_has() {
        let history = history(vec![live(5, 2, "a-00000000:5")]);
        let got = read(&history, 0, "a-00000000:2,b-00000000:7");
        assert_eq!(
            got,
            ["event: incident\nid: a-00000000:5,b-00000000:7\ndata: {\"n\":5}\n\n".to_owned()]
        );
    }

    #[test]
    fn data_with_line_breaks_stays_one_event() {
        let frame = event_frame(None, "x", "a\nb");
        assert_eq!(unchunk(&frame), b"event: x\ndata: a\ndata: b\n\n");
    }

    #[test]
    fn a_portion_ends_at_its_bytes_and_the_next_continues() {
        let entries: Vec<Entry> =
            (1..=20).map(|n| live(n, n - 1, &format!("a-00000000:{n}"))).collect();
        let history = history(entries);
        let mut reader = Reader { next: 0, cursor: Arc::default() };
        let (mut rounds, mut all) = (0, 0);
        while reader.next < history.end() {
            let mut frames = Vec::new();
            let portion = Portion { bytes_max: 600, live_only: true, ..PORTION };
            super::read(&[&history], "page/p", &mut reader, portion, &mut frames);
            assert!(frames.iter().map(Bytes::len).sum::<usize>() <= 600);
            (rounds, all) = (rounds + 1, all + frames.len());
        }
        assert_eq!(all, 20);
        assert!(rounds > 1);
    }
}
