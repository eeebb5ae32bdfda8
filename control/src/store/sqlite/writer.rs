//! The one thread that writes. It takes every command that waits, runs each in its own savepoint,
//! commits once, and only then answers: acknowledged = synced.
//!
//! ```text
//!  commands ──drain──▶ BEGIN · savepoint per command · head · COMMIT (sync) ──▶ epoch ──▶ watch
//! ──▶ replies
//!                        │ a command refuses: its savepoint is undone, the others go on
//!                        └ the disk refuses: the batch is undone, all are told, the next batch
//! tries again
//! ```
//! Owns the writing connection and the head of the log. A sync that failed ends the thread: what
//! the kernel then holds is unknown, so nothing may be acknowledged before a restart.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    path::Path,
    sync::{Arc, RwLock, atomic::Ordering::Relaxed},
    thread::JoinHandle,
};

use rusqlite::{Connection, OptionalExtension as _, params};
use tokio::sync::{mpsc, oneshot, watch};

use super::{
    Reader, StoreError, Txn,
    identity::{self, Draw, Epoch, Reason},
    state,
};
use crate::{
    app::Refusal,
    limits,
    log::{
        append::{Head, Origin},
        dot::VersionVector,
    },
    model::{api_key::ApiKey, edge::Report, id::Seed},
    observe::Counters,
    reconcile::retention::Cutoff,
};

/// What a write is answered with; stored beside the log for requests with an `Idempotency-Key`.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Answer {
    /// HTTP status.
    pub status: u16,
    /// Where the thing is.
    pub location: Option<String>,
    /// Its tag.
    pub etag: Option<String>,
    /// JSON.
    pub body: String,
    /// What a replay of this answer says instead of `body`, when `body` holds a secret.
    pub body_replayed: Option<String>,
}

/// A write that has been answered.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Done {
    /// What it is answered with.
    pub answer: Answer,
    /// Everything applied when it was done.
    pub version: VersionVector,
    /// Whether this is the stored answer of an earlier request.
    pub replayed: bool,
}

/// Which request this is, for those that may come twice.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Idempotency {
    /// SHA-256 of tenant and key.
    pub digest: String,
    /// SHA-256 of method, path and body.
    pub fingerprint: String,
}

/// Why a write was not done.
#[derive(Debug)]
pub enum WriteError {
    /// The request is refused.
    Refused(Refusal),
    /// The same `Idempotency-Key` came with another request.
    OtherRequest,
}

impl From<StoreError> for WriteError {
    fn from(error: StoreError) -> Self {
        Self::Refused(Refusal::Store(error))
    }
}

/// What a command does inside its savepoint.
pub type Work = Box<dyn FnOnce(&mut Txn<'_>) -> Result<Answer, Refusal> + Send>;

/// A request to write.
pub struct Write {
    /// On whose behalf, and when.
    pub origin: Origin,
    /// Where its ids come from.
    pub seed: Seed,
    /// Which request it is.
    pub idempotency: Option<Idempotency>,
    /// Do all but append.
    pub dry_run: bool,
    /// What to do.
    pub work: Work,
}

enum Command {
    Write(Write, oneshot::Sender<Result<Done, WriteError>>),
    Reports(Vec<(String, Report)>, oneshot::Sender<Result<(), StoreError>>),
    Compact(Cutoff, oneshot::Sender<Result<usize, StoreError>>),
    Renew(Draw, Reason, oneshot::Sender<Result<Head, StoreError>>),
    #[cfg(test)]
    Pages(u32, oneshot::Sender<()>),
}

/// The keys by digest, shared with whoever checks them.
pub type Keyring = Arc<RwLock<std::collections::HashMap<String, ApiKey>>>;

/// Sends commands to the writer.
#[derive(Clone)]
pub struct Writer {
    commands: mpsc::Sender<Command>,
    head: watch::Receiver<Head>,
}

/// The writer's thread. Ends when every [`Writer`] is gone, or after an error it cannot survive.
pub struct WriterThread {
    thread: JoinHandle<()>,
    /// Resolves when the thread has ended.
    pub ended: oneshot::Receiver<()>,
}

impl WriterThread {
    /// Waits for the thread. Blocks.
    pub fn join(self) {
        // A panic was reported where it happened.
        let _ = self.thread.join();
    }
}

/// Starts the writer on an opened store.
pub fn start(
    conn: Connection,
    epoch: Epoch,
    head: Head,
    keyring: Keyring,
    counters: Arc<Counters>,
) -> Result<(Writer, WriterThread), StoreError> {
    let (commands, queue) = mpsc::channel(limits::WRITER_QUEUE_MAX);
    let (head_sender, head_receiver) = watch::channel(head.clone());
    let (end, ended) = oneshot::channel();
    let mut state =
        State { conn, epoch, head, committed: head_sender, keyring, counters, commits: 0 };
    state.load_keys()?;
    let thread = std::thread::Builder::new()
        .name("log-writer".into())
        .spawn(move || {
            state.run(queue);
            let _ = end.send(());
        })
        .map_err(|_| StoreError::Stopped)?;
    Ok((Writer { commands, head: head_receiver }, WriterThread { thread, ended }))
}

impl Writer {
    /// Commands that wait.
    pub fn waiting(&self) -> usize {
        self.commands.max_capacity() - self.commands.capacity()
    }

    /// Asks for a write and waits until it is durable.
    pub async fn write(&self, write: Write) -> Result<Done, WriteError> {
        let (reply, answer) = oneshot::channel();
        self.send(Command::Write(write, reply))?;
        answer.await.map_err(|_| StoreError::Stopped)?
    }

    /// Keeps what edges reported.
    pub async fn save_reports(&self, reports: Vec<(String, Report)>) -> Result<(), StoreError> {
        let (reply, answer) = oneshot::channel();
        self.send(Command::Reports(reports, reply))?;
        answer.await.map_err(|_| StoreError::Stopped)?
    }

    /// Removes what is older than the cutoff, a bounded number of rows; returns how many.
    pub async fn compact(&self, cutoff: Cutoff) -> Result<usize, StoreError> {
        let (reply, answer) = oneshot::channel();
        self.send(Command::Compact(cutoff, reply))?;
        answer.await.map_err(|_| StoreError::Stopped)?
    }

    /// Draws a new incarnation.
    pub async fn renew(&self, draw: Draw, reason: Reason) -> Result<Head, StoreError> {
        let (reply, answer) = oneshot::channel();
        self.send(Command::Renew(draw, reason, reply))?;
        answer.await.map_err(|_| StoreError::Stopped)?
    }

    /// The end of the log as far as it is durable; changes with every commit.
    pub fn head(&self) -> watch::Receiver<Head> {
        self.head.clone()
    }

    fn send(&self, command: Command) -> Result<(), StoreError> {
        self.commands.try_send(command).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => StoreError::Busy,
            mpsc::error::TrySendError::Closed(_) => StoreError::Stopped,
        })
    }

    #[cfg(test)]
    pub(crate) async fn limit_pages(&self, pages: u32) {
        let (reply, answer) = oneshot::channel();
        self.send(Command::Pages(pages, reply)).expect("room");
        answer.await.expect("done");
    }
}

/// What a batch owes when it is durable.
type Reply = Box<dyn FnOnce(Result<(), StoreError>) + Send>;

struct State {
    conn: Connection,
    epoch: Epoch,
    head: Head,
    committed: watch::Sender<Head>,
    keyring: Keyring,
    counters: Arc<Counters>,
    commits: u32,
}

impl State {
    fn run(&mut self, mut queue: mpsc::Receiver<Command>) {
        let mut batch = Vec::with_capacity(limits::COMMIT_BATCH_MAX);
        while let Some(first) = queue.blocking_recv() {
            batch.push(first);
            while batch.len() < limits::COMMIT_BATCH_MAX
                && let Ok(next) = queue.try_recv()
            {
                batch.push(next);
            }
            if self.batch(batch.drain(..)).is_break() {
                tracing::error!("the disk did not confirm a write: writing has stopped");
                return;
            }
            self.checkpoint_now_and_then();
        }
        // Nobody writes any more: leave one file behind.
        let _ = self.checkpoint("TRUNCATE");
    }

    fn batch(&mut self, commands: impl Iterator<Item = Command>) -> std::ops::ControlFlow<()> {
        let before = self.head.clone();
        let mut owed: Vec<Reply> = Vec::new();
        let mut keys_changed = false;
        let mut spoilt = self.conn.execute_batch("BEGIN IMMEDIATE").map_err(StoreError::from).err();
        for command in commands {
            let (reply, result) = match &spoilt {
                Some(_) => refuse(command),
                None => self.command(command, &mut keys_changed),
            };
            owed.push(reply);
            spoilt = spoilt.or(result.err());
        }
        let committed = match spoilt {
            Some(error) => Err(error),
            None => self.commit(&before),
        };
        if let Err(error) = committed {
            if !self.conn.is_autocommit() {
                let _ = self.conn.execute_batch("ROLLBACK");
            }
            self.head = before;
            if matches!(error, StoreError::Full(_)) {
                self.counters.disk_full.fetch_add(1, Relaxed);
                // Space in the write-ahead log can be used again once its pages are in the
                // database.
                let _ = self.checkpoint("PASSIVE");
            }
            tracing::warn!(%error, cause = ?std::error::Error::source(&error), "commit refused");
            let fatal = matches!(error, StoreError::Sync(_));
            owed.into_iter().for_each(|reply| reply(Err(again(&error))));
            return if fatal {
                std::ops::ControlFlow::Break(())
            } else {
                std::ops::ControlFlow::Continue(())
            };
        }
        if keys_changed && let Err(error) = self.load_keys() {
            tracing::error!(%error, "API keys could not be read again");
        }
        let noted = if self.head.store == before.store {
            self.epoch.write(&self.head)
        } else {
            self.epoch.write_synced(&self.head)
        };
        if let Err(error) = noted {
            tracing::warn!(%error, "the epoch file could not be written");
        }
        self.committed.send_if_modified(|head| {
            let moved = *head != self.head;
            head.clone_from(&self.head);
            moved
        });
        owed.into_iter().for_each(|reply| reply(Ok(())));
        std::ops::ControlFlow::Continue(())
    }

    fn commit(&mut self, before: &Head) -> Result<(), StoreError> {
        let mut turned = None;
        if self.head != *before {
            identity::save(&self.conn, &self.head)?;
            turned = self.write_witness()?;
        }
        self.conn.execute_batch("COMMIT")?;
        if let Some(now_ms) = turned {
            self.epoch.witness.turn(now_ms);
        }
        self.counters.commits.fetch_add(1, Relaxed);
        self.counters.operations.fetch_add(self.head.position - before.position, Relaxed);
        Ok(())
    }

    /// Another witness where it is time; the time.
    fn write_witness(&self) -> Result<Option<u64>, StoreError> {
        let now_ms = self.head.hlc.ms();
        if !self.epoch.witness.is_due(now_ms) {
            return Ok(None);
        }
        match self.epoch.witness.write() {
            Ok(noted) => identity::set(&self.conn, "witness", &noted).map(|()| Some(now_ms)),
            Err(error) => {
                tracing::warn!(%error, "the witness of the store could not be written");
                Ok(None)
            }
        }
    }

    /// Runs one command in the open transaction. The reply is owed until the commit; the result
    /// says whether the transaction is still good.
    fn command(
        &mut self,
        command: Command,
        keys_changed: &mut bool,
    ) -> (Reply, Result<(), StoreError>) {
        match command {
            Command::Write(write, reply) => {
                let result = self.write(write, keys_changed);
                let (result, health) = match result {
                    Err(WriteError::Refused(Refusal::Store(error))) if self.spoils(&error) => {
                        (Err(StoreError::Busy.into()), Err(error))
                    }
                    result => (result, Ok(())),
                };
                (owe(reply, result), health)
            }
            Command::Reports(reports, reply) => {
                let result = save_reports(&self.conn, &reports);
                settle(reply, result)
            }
            Command::Compact(cutoff, reply) => {
                let result = crate::reconcile::retention::compact(&self.conn, cutoff);
                settle(reply, result)
            }
            Command::Renew(draw, reason, reply) => {
                let result = identity::renew(&self.conn, &mut self.head, &draw, reason);
                self.counters.incarnations.fetch_add(1, Relaxed);
                let head = self.head.clone();
                settle(reply, result.map(|()| head))
            }
            #[cfg(test)]
            Command::Pages(pages, reply) => {
                let set = self.conn.pragma_update(None, "max_page_count", pages);
                settle_test(reply, set.map_err(StoreError::from))
            }
        }
    }

    /// Whether everything in the open transaction is lost with a command that failed so.
    fn spoils(&self, error: &StoreError) -> bool {
        matches!(error, StoreError::Full(_) | StoreError::Sync(_)) || self.conn.is_autocommit()
    }

    fn write(&mut self, write: Write, keys_changed: &mut bool) -> Result<Done, WriteError> {
        if let Some(idempotency) = &write.idempotency
            && let Some(done) = stored_answer(&self.conn, idempotency)?
        {
            return Ok(done);
        }
        let before = self.head.clone();
        let keep = !write.dry_run;
        self.conn.execute_batch("SAVEPOINT command").map_err(StoreError::from)?;
        let mut txn = Txn::new(&self.conn, &mut self.head, write.origin.clone(), write.seed);
        let work = write.work;
        let result = catch_unwind(AssertUnwindSafe(|| work(&mut txn)));
        let api_keys_changed = txn.api_keys_changed();
        let result = result.unwrap_or(Err(Refusal::Store(StoreError::Row("a panic".into()))));
        let result = result.and_then(|answer| {
            if let Some(idempotency) = &write.idempotency
                && keep
            {
                let now_ms = write.origin.now_ms;
                store_answer(&self.conn, idempotency, &answer, &self.head.applied, now_ms)?;
            }
            Ok(answer)
        });
        match result {
            Ok(answer) if keep => {
                self.conn.execute_batch("RELEASE command").map_err(StoreError::from)?;
                *keys_changed |= api_keys_changed;
                Ok(Done { answer, version: self.head.applied.clone(), replayed: false })
            }
            undone => {
                self.head = before;
                if !self.conn.is_autocommit() {
                    self.conn
                        .execute_batch("ROLLBACK TO command; RELEASE command")
                        .map_err(StoreError::from)?;
                }
                let answer = undone.map_err(WriteError::Refused)?;
                Ok(Done { answer, version: self.head.applied.clone(), replayed: false })
            }
        }
    }

    fn load_keys(&self) -> Result<(), StoreError> {
        let keys = Reader::new(&self.conn).api_keys(None, limits::API_KEYS_MAX)?;
        let by_digest = keys.into_iter().map(|key| (key.digest.clone(), key)).collect();
        *self.keyring.write().unwrap_or_else(|poisoned| poisoned.into_inner()) = by_digest;
        Ok(())
    }

    fn checkpoint_now_and_then(&mut self) {
        self.commits += 1;
        if self.commits >= limits::CHECKPOINT_EVERY_COMMITS {
            self.commits = 0;
            if let Err(error) = self.checkpoint("PASSIVE") {
                tracing::warn!(%error, "checkpoint refused; it is tried again later");
            }
        }
    }

    fn checkpoint(&self, mode: &str) -> Result<(), StoreError> {
        let sql = format!("PRAGMA wal_checkpoint({mode})");
        Ok(self.conn.query_row(&sql, [], |_| Ok(()))?)
    }
}

/// The reply to a command in a batch that is already lost.
fn refuse(command: Command) -> (Reply, Result<(), StoreError>) {
    let lost = StoreError::Busy;
    let reply: Reply = match command {
        Command::Write(_, reply) => owe(reply, Err(lost.into())),
        Command::Reports(_, reply) => settle(reply, Err(lost)).0,
        Command::Compact(_, reply) => settle(reply, Err(lost)).0,
        Command::Renew(_, _, reply) => settle(reply, Err(lost)).0,
        #[cfg(test)]
        Command::Pages(_, reply) => settle_test(reply, Err(lost)).0,
    };
    (reply, Ok(()))
}

/// Holds a result back until the batch is durable; a batch that is not overrides it.
fn owe(
    reply: oneshot::Sender<Result<Done, WriteError>>,
    result: Result<Done, WriteError>,
) -> Reply {
    // A requester that has gone away needs no answer; its write stands.
    Box::new(move |durable| {
        let _ = reply.send(match durable {
            Ok(()) => result,
            Err(error) => Err(error.into()),
        });
    })
}

fn settle<T: Send + 'static>(
    reply: oneshot::Sender<Result<T, StoreError>>,
    result: Result<T, StoreError>,
) -> (Reply, Result<(), StoreError>) {
    let (result, health) = match result {
        Err(error) if error.spoils_batch() => (Err(StoreError::Busy), Err(error)),
        result => (result, Ok(())),
    };
    let reply = Box::new(move |durable: Result<(), StoreError>| {
        let _ = reply.send(durable.and(result));
    });
    (reply, health)
}

#[cfg(test)]
fn settle_test(
    reply: oneshot::Sender<()>,
    result: Result<(), StoreError>,
) -> (Reply, Result<(), StoreError>) {
    let reply = Box::new(move |_| {
        let _ = reply.send(());
    });
    (reply, result)
}

/// The same class of error, for each of those who waited.
fn again(error: &StoreError) -> StoreError {
    let copy = |inner: &rusqlite::Error| {
        let (code, text) = match inner {
            rusqlite::Error::SqliteFailure(code, text) => (*code, text.clone()),
            other => {
                (rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_ERROR), Some(other.to_string()))
            }
        };
        rusqlite::Error::SqliteFailure(code, text)
    };
    match error {
        StoreError::Full(inner) => StoreError::Full(copy(inner)),
        StoreError::Sync(inner) => StoreError::Sync(copy(inner)),
        StoreError::Sql(inner) => StoreError::Sql(copy(inner)),
        StoreError::Row(what) => StoreError::Row(what.clone()),
        StoreError::VectorFull => StoreError::VectorFull,
        StoreError::Busy => StoreError::Busy,
        StoreError::RecordTooLarge { bytes } => StoreError::RecordTooLarge { bytes: *bytes },
        StoreError::Stopped => StoreError::Stopped,
    }
}

fn stored_answer(conn: &Connection, idempotency: &Idempotency) -> Result<Option<Done>, WriteError> {
    let sql = "SELECT fingerprint, status, location, etag, version, body FROM idempotency \
               WHERE digest = ?1";
    let mut statement = conn.prepare_cached(sql).map_err(StoreError::from)?;
    let found = statement
        .query_row([&idempotency.digest], |row| {
            let answer = Answer {
                status: row.get(1)?,
                location: row.get(2)?,
                etag: row.get(3)?,
                body: row.get(5)?,
                body_replayed: None,
            };
            Ok((row.get::<_, String>(0)?, answer, row.get::<_, String>(4)?))
        })
        .optional()
        .map_err(StoreError::from)?;
    let Some((fingerprint, answer, version)) = found else { return Ok(None) };
    if fingerprint != idempotency.fingerprint {
        return Err(WriteError::OtherRequest);
    }
    let version = version.parse().map_err(|_| StoreError::Row("a stored version".into()))?;
    Ok(Some(Done { answer, version, replayed: true }))
}

fn store_answer(
    conn: &Connection,
    idempotency: &Idempotency,
    answer: &Answer,
    version: &VersionVector,
    now_ms: u64,
) -> Result<(), StoreError> {
    let body = answer.body_replayed.as_ref().unwrap_or(&answer.body);
    conn.prepare_cached(
        "INSERT INTO idempotency (digest, fingerprint, at_ms, status, location, etag, version, \
         body) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
    )?
    .execute(params![
        idempotency.digest,
        idempotency.fingerprint,
        now_ms,
        answer.status,
        answer.location,
        answer.etag,
        version.to_string(),
        body
    ])?;
    Ok(())
}

fn save_reports(conn: &Connection, reports: &[(String, Report)]) -> Result<(), StoreError> {
    for (edge, report) in reports {
        conn.prepare_cached("INSERT OR REPLACE INTO edge_report (edge, report) VALUES (?1, ?2)")?
            .execute(params![edge, serde_json::to_string(report)?])?;
    }
    conn.execute(
        "DELETE FROM edge_report WHERE edge NOT IN \
         (SELECT id FROM entity WHERE kind = 'edge' AND rank IS NOT NULL)",
        [],
    )?;
    Ok(())
}

/// Drops the folded state and folds it anew, on a store that nobody serves.
pub fn rebuild(database: &Path) -> Result<(), StoreError> {
    let conn = Connection::open(database)?;
    let transaction = conn.unchecked_transaction()?;
    state::replay(&conn)?;
    Ok(transaction.commit()?)
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;
    use crate::{
        app::page,
        model::id::Seed,
        store::sqlite::{identity::load, schema},
    };

    struct Bench {
        dir: tempfile::TempDir,
        writer: Writer,
        counters: Arc<Counters>,
    }

    fn bench() -> Bench {
        let dir = tempfile::tempdir().expect("a directory");
        let database: PathBuf = schema::file(dir.path());
        let conn = schema::open_writer(&database).expect("opens");
        let mut epoch = Epoch::open(&dir.path().join("epoch")).expect("opens");
        let draw = Draw { region: "eu".into(), now_ms: 1, random: [1; 12] };
        let (head, _) = load(&conn, &database, &mut epoch, &draw).expect("loads");
        let counters = Arc::new(Counters::default());
        let (writer, _thread) =
            start(conn, epoch, head, Keyring::default(), Arc::clone(&counters)).expect("starts");
        Bench { dir, writer, counters }
    }

    fn make_page(slug: String, seed: u8) -> Write {
        let name = "N".repeat(200);
        let new = page::New { slug, name, hosts: Vec::new() };
        let work = move |txn: &mut Txn<'_>| {
            page::create(txn, new)?;
            Ok(Answer::default())
        };
        Write {
            origin: Origin { actor: "a".into(), request: "r".into(), now_ms: 1 },
            seed: Seed([seed; 32]),
            idempotency: None,
            dry_run: false,
            work: Box::new(work),
        }
    }

    #[tokio::test]
    async fn commands_that_wait_together_are_synced_together_and_refused_one_by_one() {
        let bench = bench();
        let mut waiting = Vec::new();
        for nth in 0..100u8 {
            // Every tenth wants a slug that is taken.
            let slug = if nth % 10 == 9 { "p0".into() } else { format!("p{nth}") };
            let writer = bench.writer.clone();
            waiting.push(tokio::spawn(async move { writer.write(make_page(slug, nth)).await }));
        }
        let mut refused = 0;
        for write in waiting {
            refused += usize::from(write.await.expect("ran").is_err());
        }
        assert_eq!(refused, 10);
        let head = bench.writer.head().borrow().clone();
        // Each page is two operations: its slug and itself.
        assert_eq!(head.position, 180);
        assert!(bench.counters.commits.load(Relaxed) < 90, "fewer syncs than writes");
        let conn = Connection::open(schema::file(bench.dir.path())).expect("opens");
        assert_eq!(Reader::new(&conn).head().expect("reads"), head);
    }

    #[tokio::test]
    async fn a_full_store_refuses_and_takes_writes_again_when_there_is_room() {
        let bench = bench();
        bench.writer.limit_pages(70).await;
        let mut nth = 0u8;
        let error = loop {
            let before = bench.writer.head().borrow().clone();
            match bench.writer.write(make_page(format!("p{nth}"), nth)).await {
                Ok(_) => nth = nth.checked_add(1).expect("the store never fills"),
                Err(error) => {
                    assert_eq!(*bench.writer.head().borrow(), before, "nothing has moved");
                    break error;
                }
            }
        };
        assert!(matches!(error, WriteError::Refused(Refusal::Store(StoreError::Full(_)))));
        bench.writer.limit_pages(10_000).await;
        let done = bench.writer.write(make_page(format!("p{nth}"), nth)).await.expect("written");
        assert_eq!(done.version.iter().next().map(|dot| dot.seq), Some(2 * u64::from(nth) + 2));
    }

    #[tokio::test]
    async fn a_command_that_panics_takes_nobody_with_it() {
        let bench = bench();
        let mut write = make_page("a".into(), 1);
        write.work = Box::new(|_| panic!("planted"));
        assert!(bench.writer.write(write).await.is_err());
        bench.writer.write(make_page("a".into(), 1)).await.expect("the next one is served");
        assert_eq!(bench.writer.head().borrow().position, 2);
    }
}
