//! Control's store on a disk that loses power: what was acknowledged is there, once, whatever the
//! disk did with what was not synced.
//!
//! ```text
//!   round:  open (migrate, recover) ─▶ check ─▶ batches of requests, several in flight ─▶ power
//!                                                        │ disk full: refused, then room again
//!                                                        ▼
//!   fate of a request:   acknowledged → There    refused → Absent    no answer → Unsaid
//!   after the crash:     Unsaid becomes There (wholly) or Absent; the other two stay
//! ```
//! The store is opened and written by production's own code, through `SqliteDisk`; its epoch file,
//! which is no SQLite file, lies in a directory of the machine's. Replies come from another thread,
//! but a run follows from its seed: each batch is queued whole behind a request that waits.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    future::Future,
    path::PathBuf,
    pin::Pin,
    sync::{Arc, mpsc::sync_channel},
    task::{Context, Poll, Wake, Waker},
    thread::Thread,
};

use control::{
    app::{Refusal, component, incident, names::etag, page},
    log::{
        append::{Head, Origin},
        dot::{Dot, Replica, StoreId},
    },
    model::{component::ComponentStatus, id::Seed, incident::IncidentStatus},
    store::sqlite::{
        Reader, StoreError,
        identity::{self, Draw, Epoch, Reason},
        schema,
        writer::{self, Answer, Done, Idempotency, Keyring, Work, Write, WriteError, Writer},
    },
};
use rusqlite::Connection;

use super::edge::Outcome;
use crate::{
    check::log::{self, LogRow},
    sim::{coverage::Coverage, rng::Rng, sqlite_disk::SqliteDisk},
};

/// Runs one seed.
pub fn run(seed: u64) -> Outcome {
    // A disk stays registered with SQLite as long as the process: one a thread, erased each time.
    thread_local!(static DISK: SqliteDisk = SqliteDisk::register());
    let disk = DISK.with(SqliteDisk::clone);
    disk.erase();
    let mut run = Run::new(seed, disk);
    while run.round < run.rounds && run.violations.is_empty() {
        run.round += 1;
        run.play_round();
    }
    if run.violations.is_empty() {
        run.last_look();
    }
    run.finish()
}

/// What a client asked for.
#[derive(Clone, Debug)]
enum What {
    Page { slug: String },
    Component { page: String, slug: String },
    Incident { page: String, component: Option<String>, message: String },
    Update { incident: String, message: String },
}

impl What {
    /// How many operations it is.
    fn operations(&self) -> usize {
        match self {
            // Its slug is claimed by an operation of its own.
            Self::Page { .. } => 2,
            _ => 1,
        }
    }

    fn work(self) -> Work {
        Box::new(move |txn| match self {
            Self::Page { slug } => {
                let new = page::New { slug, name: "Page".into(), hosts: Vec::new() };
                let page = page::create(txn, new)?;
                Ok(answer(page.value.id, page.dot))
            }
            Self::Component { page, slug } => {
                let new = component::New {
                    slug,
                    name: "Component".into(),
                    description: String::new(),
                    status: ComponentStatus::Operational,
                    position: None,
                };
                let component = component::create(txn, &page, new)?;
                Ok(answer(component.value.id, component.dot))
            }
            Self::Incident { page, component, message } => {
                let status = ComponentStatus::MajorOutage;
                let components = component.into_iter().map(|slug| (slug, status)).collect();
                let new = incident::New {
                    title: "Incident".into(),
                    status: IncidentStatus::Investigating,
                    impact: None,
                    components,
                    message,
                };
                let found = incident::create(txn, &page, new)?;
                Ok(answer(found.incident.value.id, found.incident.dot))
            }
            Self::Update { incident, message } => {
                let new = incident::NewUpdate { message, ..Default::default() };
                let found = incident::update(txn, &incident, None, new)?;
                Ok(answer(found.incident.value.id, found.incident.dot))
            }
        })
    }
}

fn answer(id: String, dot: Dot) -> Answer {
    Answer { status: 201, location: None, etag: Some(etag(dot)), body: id, body_replayed: None }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Fate {
    /// Durable: acknowledged, or found after a crash.
    There,
    /// Refused, or not found after a crash.
    Absent,
    /// The power failed before an answer.
    Unsaid,
}

/// A request; its number is its place in the list.
struct Asked {
    what: What,
    key: Option<String>,
    seed: Seed,
    fate: Fate,
    /// The first answer.
    done: Option<Done>,
}

/// A request on its way: sent as it was, or with the same key and another body.
#[derive(Clone, Copy)]
struct Sent {
    number: usize,
    other_body: bool,
}

type Reply = Result<Done, WriteError>;

/// The store at work.
struct Open {
    writer: Writer,
    thread: writer::WriterThread,
    reader: Connection,
}

struct Run {
    disk: SqliteDisk,
    dir: tempfile::TempDir,
    rng: Rng,
    coverage: Coverage,
    violations: Vec<String>,
    operations: u64,
    round: u64,
    rounds: u64,
    now_ms: u64,
    asked: Vec<Asked>,
    /// The log as far as it is known to be durable.
    durable: Vec<LogRow>,
    /// Who the store is; known after it first opened.
    identity: Option<(StoreId, Replica)>,
}

impl Run {
    fn new(seed: u64, disk: SqliteDisk) -> Self {
        let mut rng = Rng::new(seed);
        // Memory, where the machine has it: the epoch file's syncs are real.
        let dir = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir());
        Self {
            disk,
            dir: dir.expect("a temporary directory"),
            rounds: rng.between(3, 5),
            rng,
            coverage: Coverage::default(),
            violations: Vec::new(),
            operations: 0,
            round: 0,
            now_ms: 1_700_000_000_000,
            asked: Vec::new(),
            durable: Vec::new(),
            identity: None,
        }
    }

    fn finish(self) -> Outcome {
        let steps = self.disk.operations();
        self.disk.erase();
        Outcome {
            violations: self.violations,
            coverage: self.coverage,
            operations: self.operations,
            steps,
            trace: Vec::new(),
        }
    }

    fn violation(&mut self, what: impl std::fmt::Display) {
        self.violations.push(format!("durability, round {}: {what}", self.round));
    }

    fn epoch_file(&self) -> PathBuf {
        self.dir.path().join("epoch")
    }

    /// From power on to power off.
    fn play_round(&mut self) {
        // A store that exists opens on a full disk too.
        let opens_full = self.identity.is_some() && self.rng.chance(150);
        self.disk.set_full(opens_full);
        let fails_while_opening = self.rng.chance(150);
        if fails_while_opening {
            self.power_fails_within(100);
        }
        let opened = self.open();
        self.disk.set_full(false);
        let epoch = fs::read(self.epoch_file()).unwrap_or_default();
        match opened {
            Ok(open) => {
                if !fails_while_opening && self.rng.chance(850) {
                    let operations = *self.rng.pick(&[20, 150, 600]);
                    self.power_fails_within(operations);
                }
                self.play_batches(&open);
                self.close(open);
            }
            Err(_) if self.disk.is_dead() => self.coverage.hit("power: failed while opening"),
            Err(error) => self.violation(format!("the store does not open: {error}")),
        }
        self.crash(&epoch);
    }

    fn power_fails_within(&mut self, operations: u64) {
        if self.rng.chance(400) {
            // Where it hurts most: all is written and nothing is promised yet.
            let after = self.rng.between(1, operations / 5);
            return self.disk.fail_at_sync(self.disk.syncs() + after);
        }
        let after = self.rng.between(1, operations);
        self.disk.fail_at(self.disk.operations() + after);
    }

    fn play_batches(&mut self, open: &Open) {
        for _ in 0..self.rng.between(2, 6) {
            let batch = self.draw_batch();
            let full = self.rng.chance(200);
            self.disk.set_full(full);
            let refused = self.send(open, &batch, full);
            self.disk.set_full(false);
            if !refused.is_empty() && !self.disk.is_dead() {
                self.coverage.hit("disk: full");
                // Writes return by themselves when space does.
                self.send(open, &refused, false);
            }
            if self.disk.is_dead() && self.rng.chance(500) {
                return;
            }
        }
    }

    /// The machine stops, with or without a clean end before, and comes back.
    fn crash(&mut self, epoch: &[u8]) {
        let damage = self.disk.crash(&mut self.rng);
        for (count, name) in [
            (damage.lost, "power: write lost"),
            (damage.torn, "power: write torn"),
            (damage.reordered, "power: writes reordered"),
        ] {
            if count > 0 {
                self.coverage.hit(name);
            }
        }
        // The epoch file is not synced at commits: it may be what it was when the store opened.
        if self.identity.is_some() && self.rng.chance(500) {
            fs::write(self.epoch_file(), epoch).expect("a place for the epoch file");
        }
    }

    /// Opens as `control::start` does, and checks what is found.
    fn open(&mut self) -> Result<Open, String> {
        let database = schema::file(self.dir.path());
        let vfs = self.disk.vfs().to_owned();
        let mut epoch = Epoch::open(&self.epoch_file()).map_err(|error| error.to_string())?;
        let conn = schema::open_writer_on(&database, Some(&vfs)).map_err(|e| format!("{e:?}"))?;
        let random = std::array::from_fn(|_| self.rng.draw() as u8);
        let draw = Draw { region: "eu".into(), now_ms: self.now_ms, random };
        let loaded = identity::load(&conn, &database, &mut epoch, &draw);
        let (head, renewed) = loaded.map_err(|error| format!("{error:?}"))?;
        epoch.write_synced(&head).map_err(|error| error.to_string())?;
        self.check_identity(&head, renewed);
        if let Err(error) = self.check_found(&conn, &head) {
            self.violation(format!("the store cannot be read: {error}"));
        }
        let (writer, thread) = writer::start(conn, epoch, head, Keyring::default(), Arc::default())
            .map_err(|error| format!("{error:?}"))?;
        let reader = schema::open_reader_on(&database, Some(&vfs));
        Ok(Open { writer, thread, reader: reader.map_err(|error| format!("{error:?}"))? })
    }

    fn close(&mut self, open: Open) {
        let alive = !self.disk.is_dead();
        drop(open.reader);
        drop(open.writer);
        open.thread.join();
        if alive && self.disk.is_dead() {
            self.coverage.hit("power: failed while closing");
        }
    }

    fn check_identity(&mut self, head: &Head, renewed: Option<Reason>) {
        let now = (head.store, head.replica);
        let known = *self.identity.get_or_insert(now);
        if known != now {
            let why = renewed.map_or("no reason", Reason::as_str);
            self.violation(format!("a new incarnation, because {why}"));
        }
    }

    /// Decides what became of every request that got no answer, and checks all others.
    fn check_found(&mut self, conn: &Connection, head: &Head) -> Result<(), StoreError> {
        let rows = log::rows(conn)?;
        for wrong in log::check(conn, head, &self.durable, &rows)? {
            self.violation(wrong);
        }
        let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
        for row in &rows {
            *counts.entry(&row.request).or_default() += 1;
        }
        for number in 0..self.asked.len() {
            let count = counts.remove(request(number).as_str()).unwrap_or(0);
            let asked = &mut self.asked[number];
            let whole = asked.what.operations();
            match (asked.fate, count) {
                (Fate::There, count) if count == whole => {}
                (Fate::Absent, 0) => {}
                (Fate::Unsaid, 0) => asked.fate = Fate::Absent,
                (Fate::Unsaid, count) if count == whole => {
                    self.coverage.hit("power: kept what was not acknowledged");
                    asked.fate = Fate::There;
                }
                (fate, count) => {
                    let what = format!("request {number}, {fate:?}, has {count} operations");
                    self.violation(format!("{what} of {whole}"));
                }
            }
        }
        if let Some((request, _)) = counts.first_key_value() {
            self.violation(format!("nobody asked for {request}"));
        }
        self.check_answers(conn)?;
        self.check_readable(&Reader::new(conn))?;
        self.durable = rows;
        Ok(())
    }

    /// Answers are stored with what they tell of, and only then.
    fn check_answers(&mut self, conn: &Connection) -> Result<(), StoreError> {
        let mut statement = conn.prepare("SELECT digest FROM idempotency")?;
        let stored: BTreeSet<String> =
            statement.query_map([], |row| row.get(0))?.collect::<Result<_, _>>()?;
        let there = self.asked.iter().filter(|asked| asked.fate == Fate::There);
        let expected: BTreeSet<String> = there.filter_map(|asked| asked.key.clone()).collect();
        if let Some(key) = stored.symmetric_difference(&expected).next() {
            self.violation(format!("the answer to {key} is stored without its request, or lost"));
        }
        Ok(())
    }

    /// What is there is found by the queries that API and pages use.
    fn check_readable(&mut self, reader: &Reader<'_>) -> Result<(), StoreError> {
        for number in 0..self.asked.len() {
            let asked = &self.asked[number];
            let id = asked.seed.id(0);
            let found = match &asked.what {
                What::Page { .. } => reader.page(&id)?.is_some(),
                What::Component { page, slug } => {
                    let page = reader.page_by_slug(page)?.map(|page| page.value.id);
                    let found = reader.component_by_slug(page.as_deref().unwrap_or(""), slug)?;
                    found.is_some_and(|component| component.value.id == id)
                }
                What::Incident { .. } => reader.incident(&id)?.is_some(),
                What::Update { incident, .. } => {
                    let incident = reader.incident(incident)?;
                    let updates = incident.map(|incident| incident.value.updates);
                    let updates = updates.unwrap_or_default();
                    updates.iter().filter(|update| update.id == id).count() == 1
                }
            };
            if found != (asked.fate == Fate::There) {
                let what = format!("request {number}, {:?}: found {found}", asked.fate);
                self.violation(what);
            }
        }
        Ok(())
    }

    fn draw_batch(&mut self) -> Vec<Sent> {
        let mut batch: Vec<Sent> = Vec::new();
        for _ in 0..self.rng.between(1, 12) {
            // Without a key nobody may ask twice.
            let keyed = |asked: &Asked| asked.key.is_some();
            let is_open = |asked: &Asked| asked.fate != Fate::There;
            let sent = match self.rng.below(20) {
                0..4 => self.pick(|asked| keyed(asked) && is_open(asked)),
                4 | 5 => self.pick(keyed),
                _ => None,
            };
            let number = sent.unwrap_or_else(|| self.ask());
            let other_body = self.asked[number].fate == Fate::There && self.rng.chance(300);
            batch.push(Sent { number, other_body });
            if keyed(&self.asked[number]) && self.rng.chance(60) {
                batch.push(Sent { number, other_body });
            }
        }
        batch
    }

    /// The number of a request of this sort.
    fn pick(&mut self, sort: impl Fn(&Asked) -> bool) -> Option<usize> {
        let all: Vec<usize> =
            (0..self.asked.len()).filter(|&number| sort(&self.asked[number])).collect();
        if all.is_empty() { None } else { Some(*self.rng.pick(&all)) }
    }

    /// Draws a new request.
    fn ask(&mut self) -> usize {
        let number = self.asked.len();
        let there = |asked: &Asked| asked.fate == Fate::There;
        let page = self.pick(|asked| there(asked) && matches!(asked.what, What::Page { .. }));
        let component =
            self.pick(|asked| there(asked) && matches!(asked.what, What::Component { .. }));
        let incident =
            self.pick(|asked| there(asked) && matches!(asked.what, What::Incident { .. }));
        let length = *self.rng.pick(&[0, 10, 100, 300, 300, 6000]);
        let message = format!("message {number} {}", "x".repeat(length));
        let slug_of = |number: usize| match &self.asked[number].what {
            What::Page { slug } => slug.clone(),
            _ => unreachable!("a page was picked"),
        };
        let what = match (page, self.rng.below(10)) {
            // Some want a slug that is taken.
            (Some(page), 0) if number.is_multiple_of(3) => What::Page { slug: slug_of(page) },
            (None, _) | (Some(_), 0) => What::Page { slug: format!("page-{number}") },
            (Some(page), 1..4) => {
                What::Component { page: slug_of(page), slug: format!("component-{number}") }
            }
            (Some(_), 4..) if incident.is_some() => {
                let incident = incident.map(|number| self.asked[number].seed.id(0));
                What::Update { incident: incident.unwrap_or_default(), message }
            }
            (Some(page), _) => match component.map(|number| &self.asked[number].what) {
                Some(What::Component { page, slug }) => {
                    What::Incident { page: page.clone(), component: Some(slug.clone()), message }
                }
                _ => What::Incident { page: slug_of(page), component: None, message },
            },
        };
        let key = self.rng.chance(600).then(|| format!("key-{number}"));
        let seed = match &key {
            Some(key) => Seed::of_idempotency_key("default", key),
            None => Seed(std::array::from_fn(|_| self.rng.draw() as u8)),
        };
        self.asked.push(Asked { what, key, seed, fate: Fate::Absent, done: None });
        number
    }

    /// Sends a batch that waits together, so that it is committed together; returns what was
    /// refused for want of room.
    fn send(&mut self, open: &Open, batch: &[Sent], full: bool) -> Vec<Sent> {
        let (before, was_dead) = (self.disk.operations(), self.disk.is_dead());
        let head_before = open.writer.head().borrow().clone();
        let writes: Vec<Write> = batch.iter().map(|sent| self.write(*sent)).collect();
        let replies = queue_together(&open.writer, writes);
        let dead = self.disk.is_dead();
        if dead && !was_dead && self.disk.operations() > before + 1 {
            self.coverage.hit("power: failed inside a commit");
        }
        if replies.iter().filter(|reply| reply.is_ok()).count() > 1 {
            self.coverage.hit("commit: several requests");
        }
        let mut refused = Vec::new();
        for (sent, reply) in batch.iter().zip(replies) {
            self.operations += 1;
            if self.settle(*sent, reply, dead, full) == Settled::NoRoom {
                refused.push(*sent);
            }
        }
        let head = open.writer.head().borrow().clone();
        if !refused.is_empty() && head != head_before {
            self.violation("a batch was refused for want of room and the head moved");
        }
        if !dead {
            self.check_published(open, &head);
        }
        refused
    }

    fn write(&mut self, sent: Sent) -> Write {
        self.now_ms = match self.rng.below(20) {
            0 => self.now_ms - 1_000,
            _ => self.now_ms + self.rng.between(0, 40),
        };
        let asked = &self.asked[sent.number];
        let body = if sent.other_body { "other body" } else { "body" };
        Write {
            origin: Origin {
                actor: "key/k".into(),
                request: request(sent.number),
                now_ms: self.now_ms,
            },
            seed: asked.seed,
            idempotency: asked
                .key
                .clone()
                .map(|digest| Idempotency { fingerprint: format!("{digest} {body}"), digest }),
            dry_run: false,
            work: asked.what.clone().work(),
        }
    }

    fn settle(&mut self, sent: Sent, reply: Reply, dead: bool, full: bool) -> Settled {
        let number = sent.number;
        let (fate, first) = (self.asked[number].fate, self.asked[number].done.clone());
        match reply {
            Ok(_) if sent.other_body => self.violation(format!("{number}: another body passed")),
            Ok(done) => {
                if done.replayed != (fate == Fate::There) {
                    let what = format!("request {number}, {fate:?}: replayed {}", done.replayed);
                    self.violation(what);
                }
                let same =
                    |first: &Done| first.answer == done.answer && first.version == done.version;
                if !first.as_ref().is_none_or(same) {
                    self.violation(format!("request {number} was answered in two ways"));
                }
                if done.replayed {
                    self.coverage.hit("idempotency: answered again");
                }
                let asked = &mut self.asked[number];
                asked.fate = Fate::There;
                asked.done.get_or_insert(done);
            }
            Err(WriteError::OtherRequest) if sent.other_body => {}
            Err(WriteError::Refused(Refusal::Store(_))) if dead => {
                if fate == Fate::Absent {
                    self.asked[number].fate = Fate::Unsaid;
                }
            }
            Err(WriteError::Refused(Refusal::Store(StoreError::Full(_)))) if full => {
                return Settled::NoRoom;
            }
            // Its slug is another page's.
            Err(WriteError::Refused(Refusal::Conflict(error)))
                if error.code == "taken" && fate != Fate::There => {}
            Err(error) => self.violation(format!("request {number}, {fate:?}: {error:?}")),
        }
        Settled::Answered
    }

    /// What the writer says is durable is what readers see; from now on it may not go.
    fn check_published(&mut self, open: &Open, head: &Head) {
        let seen = Reader::new(&open.reader).head();
        match seen {
            Ok(seen) if seen == *head => {}
            seen => self.violation(format!("readers see {seen:?}, the writer says {head:?}")),
        }
        if self.rng.chance(400) {
            match log::rows(&open.reader) {
                Ok(rows) => self.durable = rows,
                Err(error) => self.violation(format!("the log cannot be read: {error}")),
            }
        }
    }

    /// After the last crash: all is there, and every key gets its answer again.
    fn last_look(&mut self) {
        let open = match self.open() {
            Ok(open) => open,
            Err(error) => return self.violation(format!("the store does not open: {error}")),
        };
        let keyed: Vec<Sent> = (0..self.asked.len())
            .filter(|&number| self.asked[number].key.is_some())
            .map(|number| Sent { number, other_body: false })
            .collect();
        self.send(&open, &keyed, false);
        self.close(open);
        match self.open() {
            Ok(open) => self.close(open),
            Err(error) => self.violation(format!("the store does not open again: {error}")),
        }
    }
}

#[derive(PartialEq, Eq)]
enum Settled {
    Answered,
    NoRoom,
}

fn request(number: usize) -> String {
    format!("request-{number}")
}

/// Queues all writes while the writer is busy with one that changes nothing, then waits for their
/// answers.
fn queue_together(writer: &Writer, writes: Vec<Write>) -> Vec<Reply> {
    let (entered, is_in) = sync_channel::<()>(1);
    let (release, released) = sync_channel::<()>(1);
    let gate = Write {
        origin: Origin { actor: "system".into(), request: "gate".into(), now_ms: 0 },
        seed: Seed([0; 32]),
        idempotency: None,
        dry_run: true,
        work: Box::new(move |_| {
            // A writer without a disk refuses before it gets here: then nobody waits.
            let _ = entered.send(());
            let _ = released.recv();
            Ok(Answer::default())
        }),
    };
    let mut gate = asked(writer, gate);
    let _ = is_in.recv();
    let mut waiting: Vec<_> = writes.into_iter().map(|write| asked(writer, write)).collect();
    drop(release);
    let _ = wait(&mut gate);
    waiting.iter_mut().map(wait).collect()
}

type Waiting<'a> = (Option<Reply>, Pin<Box<dyn Future<Output = Reply> + 'a>>);

/// Sends a write; its place in the queue is taken when this returns.
fn asked(writer: &Writer, write: Write) -> Waiting<'_> {
    let mut reply: Pin<Box<dyn Future<Output = Reply> + '_>> = Box::pin(writer.write(write));
    match reply.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(now) => (Some(now), reply),
        Poll::Pending => (None, reply),
    }
}

fn wait(waiting: &mut Waiting<'_>) -> Reply {
    struct Unpark(Thread);
    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    if let Some(reply) = waiting.0.take() {
        return reply;
    }
    let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
    loop {
        match waiting.1.as_mut().poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(reply) => return reply,
            Poll::Pending => std::thread::park(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_store_that_loses_power_keeps_what_it_acknowledged() {
        for seed in 0..20 {
            let outcome = run(seed);
            assert_eq!(outcome.violations, [""; 0], "seed {seed}");
        }
    }

    #[test]
    fn a_seed_is_a_run() {
        let draw = |outcome: Outcome| (outcome.operations, outcome.steps);
        assert_eq!(draw(run(7)), draw(run(7)));
    }
}
