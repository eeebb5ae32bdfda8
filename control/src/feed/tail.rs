//! One feed: where an edge goes on, and following the log from there.
//!
//! ```text
//!  connect ─▶ beat ─▶ Start ─┬─ Tail ────────────────────────────┐
//!                            ├─ (history=1) refill ──────────────┤
//!                            └─ Snapshot ─▶ parts ─▶ refill ─────┴▶ records ⇄ wait(commit | 5 s →
//! beat)
//! ```
//! Nothing is queued for an edge: it has a position, a bounded buffer of bytes, and the record
//! table. A slow edge is a position far behind. The feed ends when the store takes another
//! identity, when its key is revoked, or when control stops; the edge comes back with its cursor.

use std::{sync::Arc, time::Duration};

use axum::body::Bytes;
use proto::{
    feed::record::{Beat, Record},
    sse::encode::{EventText, event},
};
use tokio::{
    sync::{
        mpsc::{self, error::SendTimeoutError},
        watch,
    },
    time::{Instant, MissedTickBehavior},
};

use super::snapshot::Progress;
use crate::{
    App, clock, limits,
    log::{
        append::Head,
        dot::{FeedCursor, Replica, StoreId, VersionVector},
    },
    state::stopped,
    store::sqlite::{Reader, StoreError, records::Stored},
};

/// Where a feed starts.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Start {
    /// After this position.
    Tail(u64),
    /// With the whole configuration.
    Snapshot(SnapshotReason),
}

/// Why an edge cannot resume.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SnapshotReason {
    /// It has no cursor, or none that can be read.
    NoCursor,
    /// It has applied operations that this store does not have.
    Ahead,
    /// It has applied operations *of this very replica* that this store does not have: the store is
    /// older than it was, and must not number operations as this replica any more.
    Reused,
    /// What it lacks has left the log.
    Compacted,
}

/// Decides where a feed starts. `before_missing` answers for cursors of other stores: the position
/// before the first operation that a vector does not cover, `None` when it has left the log.
pub fn start<E>(
    cursor: Option<&FeedCursor>,
    head: &Head,
    compacted: u64,
    before_missing: impl FnOnce(&VersionVector) -> Result<Option<u64>, E>,
) -> Result<Start, E> {
    let Some(cursor) = cursor else { return Ok(Start::Snapshot(SnapshotReason::NoCursor)) };
    let same_store = cursor.store == head.store;
    if cursor.applied.get(head.replica) > head.applied.get(head.replica)
        || (same_store && cursor.position > head.position)
    {
        return Ok(Start::Snapshot(SnapshotReason::Reused));
    }
    if !head.applied.covers(&cursor.applied) {
        return Ok(Start::Snapshot(SnapshotReason::Ahead));
    }
    if same_store {
        return Ok(if cursor.position >= compacted {
            Start::Tail(cursor.position)
        } else {
            Start::Snapshot(SnapshotReason::Compacted)
        });
    }
    Ok(match before_missing(&cursor.applied)? {
        Some(position) => Start::Tail(position),
        None => Start::Snapshot(SnapshotReason::Compacted),
    })
}

/// What an edge asked for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Session {
    /// Its `Last-Event-ID`, if it can be read.
    pub cursor: Option<FeedCursor>,
    /// Whether it wants retained events again.
    pub history: bool,
    /// Digest of its API key.
    pub digest: String,
}

/// Why a feed ended.
#[derive(Debug)]
pub enum End {
    /// The edge has gone.
    Gone,
    /// The edge takes nothing any more.
    Stalled,
    /// Its key is revoked.
    Revoked,
    /// The store is another one now; the edge resumes by vector.
    Renewed,
    /// What it lacks has left the log meanwhile; the edge takes a snapshot.
    Compacted,
    /// Control stops.
    Stopping,
    /// The store failed.
    Store(StoreError),
}

impl From<StoreError> for End {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

/// Decides where a session starts, drawing a new incarnation first if this replica's numbers were
/// used before.
pub async fn open(app: &App, session: &Session) -> Result<(Start, Head), StoreError> {
    let (start, head) = decide(app, session).await?;
    if start != Start::Snapshot(SnapshotReason::Reused) {
        return Ok((start, head));
    }
    app.count_edge_ahead();
    tracing::error!(
        edge_cursor = ?session.cursor.as_ref().map(ToString::to_string),
        head = %head.cursor(),
        "an edge knows operations of this replica that the store does not: it was restored to an \
         older state; a new incarnation is drawn"
    );
    // Another edge may have made it so meanwhile: look again after the draw, draw once.
    let head = app.renew_after(&head).await?;
    Ok((start, head))
}

async fn decide(app: &App, session: &Session) -> Result<(Start, Head), StoreError> {
    let cursor = session.cursor.clone();
    app.store
        .feed_reads
        .with(move |reader| {
            let (head, compacted) = (reader.head()?, reader.compacted()?);
            let missing = |seen: &VersionVector| reader.before_missing(seen);
            let start = start(cursor.as_ref(), &head, compacted, missing)?;
            Ok((start, head))
        })
        .await
}

/// Speaks to one edge until it ends.
pub async fn run(app: Arc<App>, session: Session, out: mpsc::Sender<Bytes>) -> End {
    let mut feed = match Feed::open(app, session, out).await {
        Ok(feed) => feed,
        Err(end) => return end,
    };
    match feed.speak().await {
        Ok(never) => match never {},
        Err(end) => end,
    }
}

struct Feed {
    app: Arc<App>,
    session: Session,
    out: mpsc::Sender<Bytes>,
    commits: watch::Receiver<Head>,
    stopping: watch::Receiver<bool>,
    circle_changes: watch::Receiver<()>,
    store: StoreId,
    replica: Replica,
    /// Everything up to here has been sent.
    position: u64,
    start: Start,
}

enum Never {}

impl Feed {
    async fn open(app: Arc<App>, session: Session, out: mpsc::Sender<Bytes>) -> Result<Self, End> {
        let commits = app.store.writer.head();
        let stopping = app.stopping();
        let (start, head) = open(&app, &session).await?;
        let position = match start {
            Start::Tail(position) => position,
            Start::Snapshot(_) => head.position,
        };
        let (store, replica) = (head.store, head.replica);
        let circle_changes = app.circle_changes();
        Ok(Self {
            app,
            session,
            out,
            commits,
            stopping,
            circle_changes,
            store,
            replica,
            position,
            start,
        })
    }

    async fn speak(&mut self) -> Result<Never, End> {
        // At once: the edge learns that the feed is open and how far apart the clocks are.
        let first = self.beat_of(self.replica);
        self.send(encode(&first, None)).await?;
        if let Start::Snapshot(reason) = self.start {
            tracing::info!(?reason, position = self.position, "a feed starts with a snapshot");
            self.snapshot().await?;
            self.refill().await?;
        } else if self.session.history {
            self.refill().await?;
        }
        let mut beats =
            tokio::time::interval_at(Instant::now(), Duration::from_millis(limits::BEAT_EVERY_MS));
        beats.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut is_told_soon = false;
        loop {
            self.check()?;
            let head = self.catch_up().await?;
            let beat = tokio::select! {
                changed = self.commits.changed() => match changed {
                    Ok(()) => false,
                    Err(_) => return Err(End::Stopping),
                },
                _ = beats.tick() => true,
                Ok(()) = self.circle_changes.changed() => {
                    if !std::mem::replace(&mut is_told_soon, true) {
                        beats.reset_after(Duration::from_millis(limits::CIRCLE_TELL_MS));
                    }
                    false
                }
                () = stopped(&mut self.stopping) => return Err(End::Stopping),
                () = self.out.closed() => return Err(End::Gone),
            };
            if beat {
                is_told_soon = false;
                self.beat(&head).await?;
            }
        }
    }

    /// Sends all records up to the head; returns the head that it reached.
    async fn catch_up(&mut self) -> Result<Head, End> {
        loop {
            // Seen before reading: a commit after this wakes us again.
            self.commits.borrow_and_update();
            let position = self.position;
            let stretch = self
                .app
                .store
                .feed_reads
                .with(move |reader| reader.stretch(position, limits::FEED_BATCH_POSITIONS_MAX))
                .await?;
            if stretch.head.store != self.store {
                return Err(End::Renewed);
            }
            if position < stretch.compacted {
                return Err(End::Compacted);
            }
            self.app.count_records(stretch.records.len());
            for chunk in chunks(&stretch.records, self.store) {
                self.send(chunk).await?;
            }
            self.position = stretch.upto;
            if self.position >= stretch.head.position {
                return Ok(stretch.head);
            }
            self.check()?;
        }
    }

    async fn beat(&mut self, head: &Head) -> Result<(), End> {
        let cursor = (self.position == head.position).then(|| head.cursor());
        let beat = self.beat_of(head.replica);
        self.send(encode(&beat, cursor.as_ref())).await
    }

    fn beat_of(&self, replica: Replica) -> Record {
        let (sent_at_ms, circle) = (clock::wall_ms(), self.app.circle());
        Record::Beat(Beat { sent_at_ms, replica: Some(replica), circle, path: Vec::new() })
    }

    async fn snapshot(&mut self) -> Result<(), End> {
        self.app.count_snapshot();
        // The log may have moved on since the feed was opened: the snapshot begins at its head of
        // now.
        let head = self.app.store.feed_reads.with(|reader| reader.head()).await?;
        if head.store != self.store {
            return Err(End::Renewed);
        }
        self.position = head.position;
        let mut progress = Progress::start();
        loop {
            let (next, parts) = progress.stretch(&self.app).await?;
            progress = next;
            let Some(parts) = parts else { break };
            for part in &parts {
                self.send(encode(part, None)).await?;
            }
            self.check()?;
        }
        let last = progress.parts.last(head.replica);
        self.send(encode(&last, Some(&head.cursor()))).await
    }

    async fn refill(&mut self) -> Result<(), End> {
        let upto = self.position;
        let limit = limits::REFILL_RECORDS_MAX;
        let mut after =
            self.app.store.feed_reads.with(move |reader| reader.before_events(upto, limit)).await?;
        loop {
            let read = move |reader: &Reader<'_>| {
                let events = reader.events(after, upto, limits::FEED_BATCH_POSITIONS_MAX)?;
                Ok::<_, StoreError>((events, reader.compacted()?))
            };
            let (events, compacted) = self.app.store.feed_reads.with(read).await?;
            let Some(last) = events.last() else { return Ok(()) };
            after = last.position;
            let mut bytes = Vec::new();
            for stored in &events {
                if let Ok(Record::Publish(mut publish)) = Record::parse(&stored.kind, &stored.data)
                {
                    publish.refill = true;
                    publish.lone = stored.position <= compacted;
                    append(&mut bytes, &Record::Publish(publish), None);
                }
            }
            self.send(bytes.into()).await?;
            self.check()?;
        }
    }

    fn check(&self) -> Result<(), End> {
        if *self.stopping.borrow() {
            return Err(End::Stopping);
        }
        if self.app.api_key(&self.session.digest).is_none() {
            return Err(End::Revoked);
        }
        Ok(())
    }

    async fn send(&mut self, bytes: Bytes) -> Result<(), End> {
        let stall = Duration::from_millis(limits::FEED_STALL_AFTER_MS_MAX);
        tokio::select! {
            sent = self.out.send_timeout(bytes, stall) => sent.map_err(|error| match error {
                SendTimeoutError::Timeout(_) => End::Stalled,
                SendTimeoutError::Closed(_) => End::Gone,
            }),
            () = stopped(&mut self.stopping) => Err(End::Stopping),
        }
    }
}

/// Records as bytes, in chunks of a bounded size.
fn chunks(records: &[Stored], store: StoreId) -> Vec<Bytes> {
    let mut chunks = Vec::new();
    let mut bytes = Vec::new();
    for stored in records {
        let id = stored.applied.as_ref().map(|applied| {
            FeedCursor { store, position: stored.position, applied: applied.clone() }.to_string()
        });
        text(&mut bytes, &stored.kind, &stored.data, id.as_deref());
        if bytes.len() >= CHUNK_BYTES {
            chunks.push(Bytes::from(std::mem::take(&mut bytes)));
        }
    }
    if !bytes.is_empty() {
        chunks.push(bytes.into());
    }
    chunks
}

fn encode(record: &Record, cursor: Option<&FeedCursor>) -> Bytes {
    let mut bytes = Vec::new();
    append(&mut bytes, record, cursor);
    bytes.into()
}

fn append(bytes: &mut Vec<u8>, record: &Record, cursor: Option<&FeedCursor>) {
    let id = cursor.map(ToString::to_string);
    text(bytes, record.kind(), &record.data(), id.as_deref());
}

fn text(bytes: &mut Vec<u8>, kind: &str, data: &str, id: Option<&str>) {
    let text = EventText { name: Some(kind), id, data: Some(data), retry_ms: None };
    event(bytes, &text).expect("kinds and cursors have no line breaks");
}

/// Bytes gathered before they are handed to the connection.
const CHUNK_BYTES: usize = 64 * 1024;

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use super::*;
    use crate::log::hlc::Hlc;

    fn head(store: u64, position: u64, applied: &str) -> Head {
        Head {
            store: StoreId(store),
            replica: "eu-00000002".parse().expect("valid"),
            position,
            applied: applied.parse().expect("valid"),
            hlc: Hlc::default(),
        }
    }

    fn check(cursor: &str, expected: Start) {
        let head = head(7, 100, "eu-00000001:40,eu-00000002:60,us-00000001:5");
        let cursor = cursor.parse().expect("valid");
        let missing = |_: &VersionVector| Ok::<_, Infallible>(Some(77));
        assert_eq!(start(Some(&cursor), &head, 50, missing), Ok(expected), "{cursor}");
    }

    #[test]
    fn a_cursor_of_this_store_goes_on_where_it_was() {
        check("0000000000000007.100.eu-00000002:60", Start::Tail(100));
        check("0000000000000007.50.eu-00000002:10", Start::Tail(50));
    }

    #[test]
    fn a_cursor_below_the_retained_range_gets_a_snapshot() {
        check("0000000000000007.49.eu-00000002:9", Start::Snapshot(SnapshotReason::Compacted));
    }

    #[test]
    fn a_cursor_of_another_store_goes_on_by_its_vector() {
        check("0000000000000008.900.eu-00000001:40", Start::Tail(77));
    }

    #[test]
    fn a_cursor_that_knows_more_gets_a_snapshot() {
        let ahead = Start::Snapshot(SnapshotReason::Ahead);
        check("0000000000000008.1.us-00000001:6", ahead.clone());
        check("0000000000000008.1.ap-00000001:1", ahead);
    }

    #[test]
    fn a_cursor_that_knows_more_of_our_own_replica_tells_that_its_numbers_were_used() {
        let reused = Start::Snapshot(SnapshotReason::Reused);
        check("0000000000000007.101.eu-00000002:60", reused.clone());
        check("0000000000000008.1.eu-00000002:61", reused);
    }

    #[test]
    fn no_cursor_gets_a_snapshot() {
        let missing = |_: &VersionVector| Ok::<_, Infallible>(None);
        let start = start(None, &head(7, 0, ""), 0, missing);
        assert_eq!(start, Ok(Start::Snapshot(SnapshotReason::NoCursor)));
    }
}
