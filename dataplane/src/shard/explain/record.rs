//! What is kept of one answered request: a plain record of fixed size, in a ring that was made
//! before.
//!
//! A near hit writes its own in place: two cache lines and the text of its key, no allocation.
//! Whatever asks an origin, waits, or is answered by the edge itself also has its attempts. Text is
//! made of a record only when somebody asks (`told`).
//!
//! Leaves to others: when records are written (`super`).

use std::net::SocketAddr;

use cache::{CacheKeyRef, CacheStatus, Entry, FieldSource, Freshness, Hit, LifetimeSource, Tier};

use super::super::{outcome::Failure, request::CacheLabel};
use crate::{limits, seam::Mono};

/// One answered request. Its first cache line holds all but its text.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(64))]
pub struct Record {
    /// Of the request, as a number.
    pub id: u64,
    /// When it began, wall clock.
    pub at_ms: u64,
    /// Hash of the cache key; 0 without one.
    pub digest: u64,
    /// Feed position up to which purges and configuration were applied.
    pub watermark: u64,
    /// Freshness lifetime of the entry that answered.
    pub lifetime_s: u32,
    /// `Age` of the answer.
    pub age_s: u32,
    /// Freshness that is left; [`NONE_LEFT`] where that cannot be said.
    pub left_s: i32,
    /// Until its head was written.
    pub took_us: u32,
    /// Of the answer; 0 while there is none.
    pub status: u16,
    text_len: u16,
    /// Where the lifetime comes from.
    pub source: LifetimeSource,
    /// Which targeted field said it, counted from 1; 0 for none.
    pub target: u8,
    /// As `X-Cache-Status` says it; none for the edge's own answers.
    pub label: Option<CacheLabel>,
    /// Why the entry may be served.
    pub freshness: Option<Freshness>,
    /// Where the entry was found.
    pub tier: Option<Tier>,
    /// How often it waited for another's fetch.
    pub waits: u8,
    /// Some of the text did not fit.
    pub is_cut: bool,
    text: [u8; TEXT_BYTES],
}

/// A record of what was no hit at once, and what was asked of origins.
#[derive(Clone, Copy, Debug)]
pub struct Story {
    /// The request.
    pub record: Record,
    /// As `Cache-Status` says it.
    pub told: CacheStatus,
    /// When it began.
    pub began: Mono,
    /// The first attempts, and the last one where there are more.
    pub attempts: [Attempt; limits::EXPLAIN_ATTEMPTS_MAX],
    /// How many there were.
    pub attempt_count: u16,
}

/// One attempt to have something of an origin.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Attempt {
    /// Row of the origin.
    pub row: u32,
    /// Where to; absent for a connection that was kept.
    pub address: Option<SocketAddr>,
    /// When.
    pub began: Mono,
    /// Until its head came, or it failed.
    pub took_us: u32,
    /// What the origin answered; 0 if it has not.
    pub status: u16,
    /// Why it failed, if it did.
    pub failure: Option<Failure>,
}

/// What part of a record's text is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Part {
    /// Name of the rule.
    Rule = 1,
    /// Cache key, or URL where there is no key.
    Key = 2,
    /// One name and value that the variant was chosen by.
    Variant = 3,
    /// The coding that the edge has given it.
    OwnCoding = 4,
    /// The coding in which it came.
    OriginCoding = 5,
    /// What was decided of a request for a stream.
    Stream = 6,
    /// The cursor that it came with.
    Cursor = 7,
    /// One of its topics.
    Topic = 8,
}

impl Part {
    const ALL: [Self; 8] = [
        Self::Rule,
        Self::Key,
        Self::Variant,
        Self::OwnCoding,
        Self::OriginCoding,
        Self::Stream,
        Self::Cursor,
        Self::Topic,
    ];
}

/// The newest of something, in memory that was set aside. What is full is written over.
#[derive(Debug)]
pub struct Ring<T> {
    items: Vec<T>,
    capacity: usize,
    /// Made since the start; the number of the newest.
    made: u64,
    /// Place of the next one.
    at: usize,
}

impl Record {
    /// Nothing.
    pub const EMPTY: Self = Self {
        id: 0,
        at_ms: 0,
        digest: 0,
        watermark: 0,
        lifetime_s: 0,
        age_s: 0,
        left_s: NONE_LEFT,
        took_us: 0,
        status: 0,
        text_len: 0,
        source: LifetimeSource::None,
        target: 0,
        label: None,
        freshness: None,
        tier: None,
        waits: 0,
        is_cut: false,
        text: [0; TEXT_BYTES],
    };

    /// Appends a part of the text, of several pieces, as far as there is room.
    #[inline]
    pub fn push(&mut self, part: Part, pieces: &[&[u8]]) {
        let mut at = usize::from(self.text_len);
        if at >= TEXT_BYTES {
            self.is_cut = true;
            return;
        }
        self.text[at] = part as u8;
        at += 1;
        for piece in pieces {
            let len = piece.len().min(TEXT_BYTES - at);
            self.text[at..at + len].copy_from_slice(&piece[..len]);
            at += len;
            self.is_cut |= len < piece.len();
        }
        self.text_len = at as u16;
    }

    /// Forgets the text.
    pub fn clear_text(&mut self) {
        (self.text_len, self.is_cut) = (0, false);
    }

    /// Takes note of the cache key.
    pub fn note_key(&mut self, key: &CacheKeyRef<'_>) {
        self.digest = key.hash();
        self.push(Part::Key, &[key.host(), key.target(), key.added()]);
    }

    /// Takes note of a stored response that answers; of its key unless that stands there already.
    #[inline]
    pub fn note_hit(&mut self, hit: &Hit) {
        let entry: &Entry = hit.local.entry();
        let times = entry.times();
        self.lifetime_s = seconds(times.lifetime_ms / 1000);
        (self.source, self.target) = (times.source, times.target);
        self.age_s = seconds(hit.age_s);
        let left_s = hit.ttl_s.map_or(NONE_LEFT.into(), |left_s| left_s.max(-MOST_LEFT));
        self.left_s = i32::try_from(left_s).unwrap_or(i32::MAX);
        self.freshness = Some(hit.freshness);
        self.tier = Some(hit.tier);
        let key = entry.cache_key();
        if self.digest != key.hash() {
            self.digest = key.hash();
            match key.has_added() {
                false => self.push(Part::Key, &[key.text_on_site()]),
                true => self.note_key(&key.borrowed()),
            }
        }
        if entry.is_chosen() {
            self.note_choice(entry);
        }
    }

    fn note_choice(&mut self, entry: &Entry) {
        match (entry.coding(), entry.get("Content-Encoding")) {
            (Some(coding), _) => self.push(Part::OwnCoding, &[coding.token().as_bytes()]),
            (None, Some(value)) => self.push(Part::OriginCoding, &[value]),
            (None, None) => {}
        }
        entry.variant().each(&mut |name, value| {
            let pieces = [name.as_bytes(), b": ", value.unwrap_or_default()];
            self.push(Part::Variant, &pieces[..if value.is_some() { 3 } else { 1 }]);
        });
    }

    /// The parts of the text, in the order in which they were appended.
    pub fn parts(&self) -> impl Iterator<Item = (Part, &[u8])> {
        let text = &self.text[..usize::from(self.text_len)];
        // Neither names nor values, hosts nor targets have control bytes but tab and, between
        // lines of a key, line feed.
        let pieces = text.chunk_by(|_, &next| !(1..=8).contains(&next));
        pieces.filter_map(|piece| {
            let (&tag, text) = piece.split_first()?;
            Some((Part::ALL.into_iter().find(|part| *part as u8 == tag)?, text))
        })
    }
}

impl Story {
    /// Nothing.
    pub const EMPTY: Self = Self {
        record: Record::EMPTY,
        told: CacheStatus {
            forward: None,
            forward_status: None,
            stored: false,
            collapsed: false,
            ttl_s: None,
            detail: "",
        },
        began: Mono(0),
        attempts: [Attempt {
            row: 0,
            address: None,
            began: Mono(0),
            took_us: 0,
            status: 0,
            failure: None,
        }; limits::EXPLAIN_ATTEMPTS_MAX],
        attempt_count: 0,
    };

    /// The attempt under way, or the last one.
    pub fn attempt(&mut self) -> Option<&mut Attempt> {
        let last = usize::from(self.attempt_count).min(self.attempts.len()).checked_sub(1)?;
        self.attempts.get_mut(last)
    }

    /// Another attempt begins.
    pub fn push_attempt(&mut self, attempt: Attempt) {
        self.attempt_count = self.attempt_count.saturating_add(1);
        if let Some(place) = self.attempt() {
            *place = attempt;
        }
    }
}

impl<T> Ring<T> {
    /// For so many, at least one; memory is touched as it is used.
    pub fn new(capacity: usize) -> Self {
        let capacity = capacity.max(1);
        Self { items: Vec::with_capacity(capacity), capacity, made: 0, at: 0 }
    }

    /// The next one to be written, as it was left by whoever used it before, and its number.
    #[inline]
    pub fn next(&mut self, empty: impl FnOnce() -> T) -> (u64, &mut T) {
        let at = self.at;
        if at == self.items.len() {
            self.items.push(empty());
        }
        self.made += 1;
        self.at = if at + 1 == self.capacity { 0 } else { at + 1 };
        (self.made, &mut self.items[at])
    }

    /// The one of this number, unless it was written over.
    pub fn get_mut(&mut self, number: u64) -> Option<&mut T> {
        let is_there =
            number > 0 && number <= self.made && self.made - number < self.capacity as u64;
        let at = (number.checked_sub(1)? % self.capacity as u64) as usize;
        self.items.get_mut(at).filter(|_| is_there)
    }

    /// All, newest first.
    pub fn newest(&self) -> impl Iterator<Item = &T> {
        let at = (self.made % self.capacity as u64) as usize;
        let (older, newer) = self.items.split_at(at.min(self.items.len()));
        // Behind the place of the next one is the oldest.
        older.iter().rev().chain(newer.iter().rev())
    }

    /// Made since the start.
    pub fn made(&self) -> u64 {
        self.made
    }
}

fn seconds(seconds: u64) -> u32 {
    u32::try_from(seconds).unwrap_or(u32::MAX)
}

/// Nothing can be said of what is left.
pub const NONE_LEFT: i32 = i32::MIN;
const MOST_LEFT: i64 = i32::MAX as i64;
/// So that a record is three cache lines; of most, two are written.
const TEXT_BYTES: usize = 192 - 59;
const _: () = assert!(size_of::<Record>() == 192);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ring_keeps_the_newest_and_knows_which_were_written_over() {
        let mut ring = Ring::new(3);
        for value in 1..=5 {
            let (number, place) = ring.next(|| 0);
            *place = value;
            assert_eq!(number, value);
        }
        assert_eq!(ring.newest().copied().collect::<Vec<_>>(), [5, 4, 3]);
        assert_eq!(
            [0, 1, 2, 3, 5, 6].map(|number| ring.get_mut(number).copied()),
            [None, None, None, Some(3), Some(5), None]
        );
        let mut young = Ring::new(3);
        *young.next(|| 0).1 = 7;
        assert_eq!(young.newest().copied().collect::<Vec<_>>(), [7]);
    }

    #[test]
    fn text_that_does_not_fit_is_cut_and_said_to_be() {
        let mut record = Record::EMPTY;
        record.push(Part::Rule, &[b"assets"]);
        record.push(Part::Key, &[b"a.example", b"/x?y", b"\nx: 1"]);
        record.push(Part::Variant, &[b"accept", b": ", b"a\tb"]);
        let parts: Vec<_> = record.parts().collect();
        assert_eq!(
            parts,
            [
                (Part::Rule, &b"assets"[..]),
                (Part::Key, b"a.example/x?y\nx: 1"),
                (Part::Variant, b"accept: a\tb"),
            ]
        );
        assert!(!record.is_cut);
        record.push(Part::Variant, &["v".repeat(500).as_bytes()]);
        record.push(Part::Variant, &[b"w"]);
        assert!(record.is_cut);
        assert_eq!(record.parts().count(), 4);
        record.clear_text();
        assert_eq!((record.parts().count(), record.is_cut), (0, false));
    }

    #[test]
    fn of_many_attempts_the_first_and_the_last_are_kept() {
        let mut story = Story::EMPTY;
        assert_eq!(story.attempt(), None);
        for row in 0..9 {
            story.push_attempt(Attempt { row, ..Story::EMPTY.attempts[0] });
        }
        assert_eq!(story.attempts.map(|attempt| attempt.row), [0, 1, 2, 8]);
        assert_eq!(story.attempt_count, 9);
    }
}
