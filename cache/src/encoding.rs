//! Encoded bodies of an entry: made once for each coding, by order, outside of this crate; kept
//! with the entry, found and purged through it.
//!
//! ```text
//!   hit that wants one ─▶ EncodeOrder ─▶ bytes ─▶ Cache::take_encoding ─▶ kept, served
//!       └ has what is there      └ not now ─▶ Cache::decline_encoding ─▶ ordered again
//! ```
//! An encoding is an entry of its own kind: it has a head and a body, and everything that changes
//! (purged, stale, used) is its whole's. It is in no index, so whoever finds it has found the whole
//! alive; it dies with it and is evicted with it. A 304 carries it over, with the new head.
//!
//! Its validator is weak: the bytes are not those of the strong one, and two edges may make
//! different ones (RFC 9110 §8.8.1). Ranges are answered from the whole, which has the strong one.

use std::sync::{
    Arc, OnceLock,
    atomic::{AtomicU8, Ordering},
};

use bytes::Bytes;

use crate::{
    Cache,
    account::Account,
    body::{Body, BodyState},
    coding::{Coding, Wanted},
    entry::Entry,
    near::{Local, Piece},
    request::{FieldSource, Method, Request},
};

/// What is there of an entry's encodings, and what is on order.
#[derive(Debug, Default)]
pub(crate) struct Encodings {
    /// For each coding, whether it is on order, or was found to be of no use.
    marks: AtomicU8,
    made: [OnceLock<Arc<Entry>>; Coding::COUNT],
}

/// The order to make an encoding. It is given once for each coding of an entry; whoever has it
/// makes it ([`Cache::take_encoding`]) or says that it will not ([`Cache::decline_encoding`]).
#[derive(Debug)]
pub struct EncodeOrder {
    entry: Arc<Entry>,
    coding: Coding,
}

/// What became of an encoding.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Encoded {
    /// It is kept.
    Kept,
    /// It saves too little: this entry is sent as it is from now on.
    Useless,
    /// The entry is gone, or memory is full.
    Dropped,
}

impl Encodings {
    /// The entry in this coding.
    pub(crate) fn get(&self, coding: Coding) -> Option<&Arc<Entry>> {
        self.made[coding as usize].get()
    }

    /// All that are there.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (Coding, &Arc<Entry>)> {
        Coding::ALL.into_iter().filter_map(|coding| Some((coding, self.get(coding)?)))
    }

    fn is_useless(&self, coding: Coding) -> bool {
        self.marks.load(Ordering::Relaxed) & useless(coding) != 0
    }

    /// Whether it is this caller who has to make it.
    fn order(&self, coding: Coding) -> bool {
        let bit = ordered(coding);
        self.marks.load(Ordering::Relaxed) & bit == 0
            && self.marks.fetch_or(bit, Ordering::Relaxed) & bit == 0
    }

    fn put(&self, coding: Coding, entry: Arc<Entry>) -> Result<(), Arc<Entry>> {
        self.marks.fetch_or(ordered(coding), Ordering::Relaxed);
        self.made[coding as usize].set(entry)
    }
}

fn ordered(coding: Coding) -> u8 {
    1 << coding as u8
}

fn useless(coding: Coding) -> u8 {
    0x10 << coding as u8
}

impl EncodeOrder {
    /// Which coding.
    pub fn coding(&self) -> Coding {
        self.coding
    }

    /// Bytes to be encoded.
    pub fn length(&self) -> u64 {
        self.entry.body().progress().len
    }

    /// What is to be encoded, in order, lent from where it is stored.
    pub fn content(&self) -> Vec<Bytes> {
        let local = Local::new(Arc::clone(&self.entry));
        let (mut pieces, mut offset) = (Vec::new(), 0);
        while let Piece::Bytes(piece) = local.piece_at(offset) {
            offset += piece.len() as u64;
            pieces.push(piece);
        }
        pieces
    }
}

impl Cache {
    /// What is to be made for a request that was answered with `entry` before all of it was there,
    /// so that the next one like it finds it.
    pub fn order_encoding(
        &self,
        entry: &Arc<Entry>,
        fields: &dyn FieldSource,
    ) -> Option<EncodeOrder> {
        let encodings = entry.encodings()?;
        let first = Wanted::of(fields, &self.config().compression.codings).iter().next()?;
        self.order(entry, encodings, first)
    }

    /// What of a stored response a request gets, and what is to be made for those to come.
    pub(crate) fn choose_encoding(
        &self,
        whole: &Local,
        request: &Request<'_>,
    ) -> (Option<Local>, Option<EncodeOrder>) {
        let entry = whole.entry();
        let Some(encodings) = entry.encodings() else { return (None, None) };
        let is_read = matches!(request.method, Method::Get | Method::Head);
        if !is_read || request.conditions.range.is_some() || request.directives.no_transform {
            return (None, None);
        }
        let mut order = None;
        let wanted = Wanted::of(request.fields, &self.config().compression.codings);
        for (at, coding) in wanted.iter().enumerate() {
            if encodings.get(coding).is_some() {
                return (whole.encoded(coding), order);
            }
            if encodings.is_useless(coding) {
                break;
            }
            if at == 0 {
                order = self.order(entry, encodings, coding);
            }
        }
        (None, order)
    }

    fn order(
        &self,
        entry: &Arc<Entry>,
        encodings: &Encodings,
        coding: Coding,
    ) -> Option<EncodeOrder> {
        let progress = entry.body().progress();
        let is_there = progress.state == BodyState::Complete && !entry.is_dead();
        let may = is_there && self.config().compression.fits(progress.len);
        let is_ours = may && encodings.get(coding).is_none() && encodings.order(coding);
        is_ours.then(|| EncodeOrder { entry: Arc::clone(entry), coding })
    }

    /// Keeps what was ordered, with the entry that has the body now.
    pub fn take_encoding(&self, order: &EncodeOrder, bytes: Vec<u8>) -> Encoded {
        let EncodeOrder { entry, coding } = order;
        let Some(encodings) = entry.encodings() else { return Encoded::Dropped };
        let length = order.length();
        if bytes.len() as u64 > length - length / GAIN_SHARE {
            encodings.marks.fetch_or(useless(*coding), Ordering::Relaxed);
            return Encoded::Useless;
        }
        if !self.make_room(bytes.len() as u64) {
            self.decline_encoding(order);
            return Encoded::Dropped;
        }
        let body = Arc::new(Body::complete(self.account(), bytes.into_boxed_slice()));
        let kept = self.segment_of(&entry.cache_key).put_encoding(entry, |holder| {
            let made = Entry::encoded(self.account(), holder, *coding, Arc::clone(&body));
            let encodings = holder.encodings()?;
            match encodings.put(*coding, Arc::new(made)) {
                Ok(()) => Some(()),
                Err(made) => {
                    made.kill();
                    None
                }
            }
        });
        if kept { Encoded::Kept } else { Encoded::Dropped }
    }

    /// It was not made. A later request may order it again.
    pub fn decline_encoding(&self, order: &EncodeOrder) {
        if let Some(encodings) = order.entry.encodings() {
            encodings.marks.fetch_and(!ordered(order.coding), Ordering::Relaxed);
        }
    }
}

impl Entry {
    /// Takes over the encodings of `older`, whose body is its own.
    pub(crate) fn inherit_encodings(&self, account: &Arc<Account>, older: &Self) {
        let (Some(own), Some(known)) = (self.encodings(), older.encodings()) else { return };
        for (coding, made) in known.iter() {
            let made = Self::encoded(account, self, coding, Arc::clone(made.body()));
            // Nobody else knows this one yet.
            let _ = own.put(coding, Arc::new(made));
        }
        for coding in Coding::ALL.into_iter().filter(|&coding| known.is_useless(coding)) {
            own.marks.fetch_or(useless(coding), Ordering::Relaxed);
        }
    }
}

/// Less than one part in so many saved is not worth a copy.
const GAIN_SHARE: u64 = 16;
