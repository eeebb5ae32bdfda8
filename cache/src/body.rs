//! A stored body: write-once chunks that any shard may read while one of them still writes.
//!
//! ```text
//!   Filling ──append──▶ Filling ──finish──▶ Complete
//!      ├────────────────────────fail──────▶ Failed
//!      └────────────────────────spill─────▶ Spilled: the rest goes on in another body
//! ```
//! Length and state are one word, stored with `Release` after the chunk is in its place and loaded
//! with `Acquire`: who sees a length sees the bytes below it. A reader that has caught up registers
//! and looks again; the writer publishes and then looks whether anyone registered. Fences between
//! the two steps of each make it impossible that both miss the other (loom tests below). Nobody
//! waits under the lock.
//!
//! Owned by the entries that share it; written by one [`crate::Writer`]. Leaves to others: what the
//! bytes mean, pacing, who is told ([`crate::collapse`]).

use std::{
    fmt,
    sync::{Arc, OnceLock},
};

use crate::{
    account::{Account, Charge},
    collapse::Waiter,
    sync::{AtomicBool, AtomicU64, Mutex, Ordering, fence, lock},
};

/// The bytes of one response, complete or on their way.
pub struct Body {
    /// Length published << 2 | state.
    progress: AtomicU64,
    /// Chunks published. Written before `progress`, read after it.
    chunk_count: AtomicU64,
    /// Chunk 0: for most bodies the only one.
    first: Slot,
    /// Chunks 1 and up.
    more: OnceLock<Box<Rows>>,
    /// Announced length, if any; a complete body has exactly this many bytes.
    length: Option<u64>,
    followers: Mutex<Vec<Waiter>>,
    has_followers: AtomicBool,
    /// Who began while it filled and has not moved on.
    readers: AtomicU64,
    /// Of a spilled one: where it goes on, as long as somebody needs to know.
    next: Mutex<Option<Arc<Body>>>,
    charge: Charge,
}

/// How far a body is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Progress {
    /// Bytes that can be read.
    pub len: u64,
    /// What will come.
    pub state: BodyState,
}

/// What will come of a body.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum BodyState {
    /// More bytes, or the end.
    Filling,
    /// Nothing: it is whole.
    Complete,
    /// Nothing: it was cut off. Readers end their response so that the client sees it.
    Failed,
    /// Nothing here: too large to be stored, it goes on elsewhere ([`crate::Reading`]).
    Spilled,
}

/// The outcome of [`Body::follow`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Follow {
    /// There is something new already; the waiter was not registered.
    Ready,
    /// The waiter will be woken once, at the next change.
    Registered,
}

impl Body {
    /// A body about to be written.
    pub(crate) fn filling(account: &Arc<Account>, length: Option<u64>) -> Self {
        Self::new(account, length)
    }

    /// A body known whole.
    pub(crate) fn complete(account: &Arc<Account>, bytes: Box<[u8]>) -> Self {
        let body = Self::new(account, Some(bytes.len() as u64));
        if !bytes.is_empty() {
            body.put(bytes);
        }
        body.publish(body.progress().len, BodyState::Complete);
        body
    }

    fn new(account: &Arc<Account>, length: Option<u64>) -> Self {
        Self {
            progress: AtomicU64::new(0),
            chunk_count: AtomicU64::new(0),
            first: Slot::default(),
            more: OnceLock::new(),
            length,
            followers: Mutex::new(Vec::new()),
            has_followers: AtomicBool::new(false),
            readers: AtomicU64::new(0),
            next: Mutex::new(None),
            charge: Charge::new(account, BODY_OVERHEAD_BYTES),
        }
    }

    /// How far it is.
    pub fn progress(&self) -> Progress {
        let word = self.progress.load(Ordering::Acquire);
        let state = match word & 3 {
            FILLING => BodyState::Filling,
            COMPLETE => BodyState::Complete,
            SPILLED => BodyState::Spilled,
            _ => BodyState::Failed,
        };
        Progress { len: word >> 2, state }
    }

    /// Its whole length, as soon as it is known.
    pub fn length(&self) -> Option<u64> {
        self.length.or_else(|| {
            let progress = self.progress();
            (progress.state == BodyState::Complete).then_some(progress.len)
        })
    }

    /// The bytes from `offset` to the end of their chunk; `None` at or past what is published.
    pub fn chunk_at(&self, offset: u64) -> Option<&[u8]> {
        let (index, start) = self.locate(offset)?;
        let chunk = self.chunk(index)?;
        chunk.bytes.get((offset - start) as usize..)
    }

    /// All of it, if it is complete and of one chunk of at most so many bytes.
    pub(crate) fn whole(&self, bytes_max: usize) -> Option<&[u8]> {
        let Progress { len, state: BodyState::Complete } = self.progress() else { return None };
        if len == 0 {
            return Some(&[]);
        }
        let first = self.chunk(0)?;
        (first.end == len && first.bytes.len() <= bytes_max).then_some(&first.bytes)
    }

    /// The chunk that holds `offset`, and where it starts.
    pub(crate) fn locate(&self, offset: u64) -> Option<(u64, u64)> {
        if offset >= self.progress().len {
            return None;
        }
        let first = self.chunk(0)?;
        if offset < first.end {
            return Some((0, 0));
        }
        // The chunk wanted is the first whose end lies beyond `offset`.
        let (mut low, mut high) = (1, self.chunk_count.load(Ordering::Relaxed));
        while low < high {
            let middle = low + (high - low) / 2;
            match self.chunk(middle) {
                Some(chunk) if chunk.end <= offset => low = middle + 1,
                _ => high = middle,
            }
        }
        let chunk = self.chunk(low)?;
        Some((low, chunk.end - chunk.bytes.len() as u64))
    }

    /// A published chunk.
    pub(crate) fn chunk(&self, index: u64) -> Option<&Chunk> {
        let Some(rest) = index.checked_sub(1) else {
            return self.first.get();
        };
        let (row, column) = Rows::place(rest);
        self.more.get()?.0.get(row)?.get()?.get(column)?.get()
    }

    /// Chunks published.
    pub(crate) fn chunk_count(&self) -> u64 {
        self.chunk_count.load(Ordering::Relaxed)
    }

    /// Registers `waiter` to be woken when more than `seen` is there, unless it is already.
    pub fn follow(&self, seen: Progress, waiter: Waiter) -> Follow {
        let mut followers = lock(&self.followers);
        self.has_followers.store(true, Ordering::Relaxed);
        fence(Ordering::SeqCst);
        if self.progress() != seen {
            return Follow::Ready;
        }
        followers.push(waiter);
        Follow::Registered
    }

    /// Registers `waiter` to be woken at the next change, unless there is more than `offset` bytes
    /// or an end already.
    pub fn follow_past(&self, offset: u64, waiter: Waiter) -> Follow {
        let seen = self.progress();
        match seen.state {
            BodyState::Filling if seen.len <= offset => self.follow(seen, waiter),
            _ => Follow::Ready,
        }
    }

    /// Forgets a follower that has gone.
    pub fn unfollow(&self, waiter: Waiter) {
        lock(&self.followers).retain(|&known| known != waiter);
    }

    /// Publishes `bytes` behind what is there; followers are moved to `woken`. Only the writer
    /// calls it.
    pub(crate) fn append(&self, bytes: &[u8], woken: &mut Vec<Waiter>) {
        if !bytes.is_empty() {
            self.put(bytes.into());
            self.take_followers(woken);
        }
    }

    /// Ends the body. Only the writer calls it, once.
    pub(crate) fn end(&self, state: BodyState, woken: &mut Vec<Waiter>) {
        self.publish(self.progress().len, state);
        self.take_followers(woken);
    }

    /// Ends this part of the body; the rest goes on in `next`. Only the writer calls it, once.
    pub(crate) fn spill(&self, next: &Arc<Body>, woken: &mut Vec<Waiter>) {
        *lock(&self.next) = Some(Arc::clone(next));
        self.end(BodyState::Spilled, woken);
    }

    /// Where a spilled body goes on; `None` also when nobody was left to tell.
    pub(crate) fn next_part(&self) -> Option<Arc<Body>> {
        lock(&self.next).clone()
    }

    /// A reader begins, which may have to move on.
    pub(crate) fn enter(&self) {
        self.readers.fetch_add(1, Ordering::SeqCst);
    }

    /// A reader has moved on, or is gone.
    pub(crate) fn leave(&self) {
        if self.readers.fetch_sub(1, Ordering::SeqCst) == 1 {
            self.forget_next();
        }
    }

    /// Lets go of the rest if nobody is left who would move on to it. The first part of a spilled
    /// body outlives its readers in near tables, and must not keep all others alive.
    pub(crate) fn forget_next(&self) {
        // The last reader leaves and looks at the state, the writer spills and looks for readers:
        // one of them sees the other.
        fence(Ordering::SeqCst);
        if !self.has_readers() && self.progress().state == BodyState::Spilled {
            drop(lock(&self.next).take());
        }
    }

    /// Whether someone who began while it filled is still at it.
    pub(crate) fn has_readers(&self) -> bool {
        self.readers.load(Ordering::SeqCst) > 0
    }

    fn put(&self, bytes: Box<[u8]>) {
        let index = self.chunk_count.load(Ordering::Relaxed);
        let end = self.progress().len + bytes.len() as u64;
        let mut charged_bytes = bytes.len() as u64 + CHUNK_OVERHEAD_BYTES;
        let slot = match index.checked_sub(1) {
            None => &self.first,
            Some(rest) => {
                let (row, column) = Rows::place(rest);
                let rows = self.more.get_or_init(|| {
                    charged_bytes += size_of::<Rows>() as u64;
                    Box::default()
                });
                &rows.0[row].get_or_init(|| {
                    charged_bytes += Rows::width(row) as u64 * size_of::<Slot>() as u64;
                    (0..Rows::width(row)).map(|_| Slot::default()).collect()
                })[column]
            }
        };
        slot.set(Chunk { end, bytes });
        self.charge.add(charged_bytes);
        self.chunk_count.store(index + 1, Ordering::Relaxed);
        self.publish(end, BodyState::Filling);
    }

    fn publish(&self, len: u64, state: BodyState) {
        let state = match state {
            BodyState::Filling => FILLING,
            BodyState::Complete => COMPLETE,
            BodyState::Failed => FAILED,
            BodyState::Spilled => SPILLED,
        };
        self.progress.store(len << 2 | state, Ordering::Release);
    }

    fn take_followers(&self, woken: &mut Vec<Waiter>) {
        fence(Ordering::SeqCst);
        if self.has_followers.load(Ordering::Relaxed) {
            let mut followers = lock(&self.followers);
            self.has_followers.store(false, Ordering::Relaxed);
            woken.append(&mut followers);
        }
    }

    /// A living entry shares this body from now on.
    pub(crate) fn link(&self) {
        self.charge.link();
    }

    /// An entry that shared it is dead.
    pub(crate) fn unlink(&self) {
        self.charge.unlink();
    }

    /// Bytes charged for it.
    pub fn charged_bytes(&self) -> u64 {
        self.charge.bytes()
    }

    /// All of it in one piece; `None` unless complete.
    pub(crate) fn to_boxed(&self) -> Option<Box<[u8]>> {
        let progress = self.progress();
        if progress.state != BodyState::Complete {
            return None;
        }
        let mut bytes = Vec::with_capacity(progress.len as usize);
        for index in 0..self.chunk_count() {
            bytes.extend_from_slice(&self.chunk(index)?.bytes);
        }
        Some(bytes.into_boxed_slice())
    }
}

impl fmt::Debug for Body {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Body").field(&self.progress()).finish()
    }
}

/// A chunk in its place.
#[derive(Debug)]
pub(crate) struct Chunk {
    /// Offset in the body of the byte after it.
    pub(crate) end: u64,
    pub(crate) bytes: Box<[u8]>,
}

/// Where one chunk goes. Under loom a shadow flag, read and written without ordering of its own,
/// shows a reader that relies on anything but `progress`.
#[derive(Debug, Default)]
struct Slot {
    chunk: OnceLock<Chunk>,
    #[cfg(all(loom, test))]
    shadow: AtomicBool,
}

impl Slot {
    fn set(&self, chunk: Chunk) {
        let was_empty = self.chunk.set(chunk).is_ok();
        assert!(was_empty, "a body has one writer, which writes each chunk once");
        #[cfg(all(loom, test))]
        self.shadow.store(true, Ordering::Relaxed);
    }

    fn get(&self) -> Option<&Chunk> {
        #[cfg(all(loom, test))]
        if !self.shadow.load(Ordering::Relaxed) {
            return None;
        }
        self.chunk.get()
    }
}

/// Rows of slots, each twice as wide as the one before, so that nothing ever moves.
#[derive(Debug, Default)]
struct Rows([OnceLock<Box<[Slot]>>; Rows::COUNT]);

impl Rows {
    /// Enough for more chunks than memory can hold.
    const COUNT: usize = 32;
    const FIRST_WIDTH: u64 = 8;

    fn width(row: usize) -> usize {
        (Self::FIRST_WIDTH as usize) << row
    }

    /// Row and column of the `at`-th slot: row r starts at 8·(2^r − 1).
    fn place(at: u64) -> (usize, usize) {
        let row = (at / Self::FIRST_WIDTH + 1).ilog2();
        let start = Self::FIRST_WIDTH * ((1 << row) - 1);
        (row as usize, (at - start) as usize)
    }
}

const FILLING: u64 = 0;
const COMPLETE: u64 = 1;
const FAILED: u64 = 2;
const SPILLED: u64 = 3;

/// What a body costs beside its bytes: itself, two counters of its `Arc`, the allocator's share.
const BODY_OVERHEAD_BYTES: u64 = size_of::<Body>() as u64 + 16 + 16;
/// What a chunk costs beside its bytes: the allocator's share.
const CHUNK_OVERHEAD_BYTES: u64 = 16;

#[cfg(all(test, not(loom)))]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read_all(body: &Body) -> Vec<u8> {
        let mut bytes = Vec::new();
        while let Some(chunk) = body.chunk_at(bytes.len() as u64) {
            bytes.extend_from_slice(chunk);
        }
        bytes
    }

    #[test]
    fn rows_are_contiguous() {
        let mut expected = (0, 0);
        for at in 0..10_000 {
            assert_eq!(Rows::place(at), expected);
            expected.1 += 1;
            if expected.1 == Rows::width(expected.0) {
                expected = (expected.0 + 1, 0);
            }
        }
    }

    proptest! {
        #[test]
        fn any_offset_reads_the_bytes_that_were_appended(
            pieces in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..9), 0..80),
            offset in 0u64..700,
        ) {
            let account = Arc::default();
            let body = Body::filling(&account, None);
            let whole = pieces.concat();
            for piece in &pieces {
                body.append(piece, &mut Vec::new());
            }
            body.end(BodyState::Complete, &mut Vec::new());
            prop_assert_eq!(read_all(&body), whole.clone());
            prop_assert_eq!(body.to_boxed().map(Vec::from), Some(whole.clone()));
            match body.chunk_at(offset) {
                Some(chunk) => prop_assert!(whole[offset as usize..].starts_with(chunk)
                    && !chunk.is_empty()),
                None => prop_assert!(offset >= whole.len() as u64),
            }
        }
    }

    #[test]
    fn a_follower_is_woken_once_and_not_registered_when_there_is_news() {
        let account = Arc::default();
        let body = Body::filling(&account, None);
        let waiter = Waiter { shard: 1, id: 7 };
        let seen = body.progress();
        assert_eq!(body.follow(seen, waiter), Follow::Registered);
        let mut woken = Vec::new();
        body.append(b"a", &mut woken);
        body.append(b"b", &mut woken);
        assert_eq!(woken, [waiter]);
        assert_eq!(body.follow(seen, waiter), Follow::Ready);
        woken.clear();
        body.end(BodyState::Failed, &mut woken);
        assert!(woken.is_empty());
        assert_eq!(body.progress(), Progress { len: 2, state: BodyState::Failed });
    }

    #[test]
    fn bytes_of_a_body_are_dead_when_no_entry_shares_it() {
        let account = Arc::default();
        let body = Body::complete(&account, b"hello".as_slice().into());
        body.link();
        body.link();
        body.unlink();
        assert_eq!(account.dead_bytes(), 0);
        body.unlink();
        assert_eq!(account.dead_bytes(), body.charged_bytes());
        drop(body);
        assert_eq!(account.used_bytes(), 0);
    }
}

#[cfg(all(test, loom))]
mod loom_tests {
    use loom::thread;

    use super::*;

    #[test]
    fn a_late_joiner_reads_only_published_bytes() {
        loom::model(|| {
            let body = Arc::new(Body::filling(&Arc::default(), None));
            let reader = thread::spawn({
                let body = Arc::clone(&body);
                move || {
                    let progress = body.progress();
                    let mut read = Vec::new();
                    while (read.len() as u64) < progress.len {
                        let at = read.len() as u64;
                        let chunk = body.chunk_at(at).expect("published bytes are there");
                        read.extend_from_slice(chunk);
                    }
                    assert!(b"abc".starts_with(&read));
                    assert!(progress.state == BodyState::Filling || read.len() == 3);
                }
            });
            body.append(b"ab", &mut Vec::new());
            body.append(b"c", &mut Vec::new());
            body.end(BodyState::Complete, &mut Vec::new());
            reader.join().expect("the reader does not panic");
        });
    }

    #[test]
    fn a_follower_never_misses_the_end() {
        loom::model(|| {
            let body = Arc::new(Body::filling(&Arc::default(), None));
            let waiter = Waiter { shard: 0, id: 1 };
            let follower = thread::spawn({
                let body = Arc::clone(&body);
                move || {
                    let seen = body.progress();
                    match seen.state {
                        BodyState::Filling => body.follow(seen, waiter),
                        _ => Follow::Ready,
                    }
                }
            });
            let mut woken = Vec::new();
            body.end(BodyState::Complete, &mut woken);
            let follow = follower.join().expect("the follower does not panic");
            match follow {
                Follow::Registered => assert_eq!(woken, [waiter]),
                Follow::Ready => assert_eq!(body.progress().state, BodyState::Complete),
            }
        });
    }
}
