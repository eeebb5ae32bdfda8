//! Runs one holding of streams: opens a few, reads the server's memory, opens all, reads it again,
//! holds them in silence, publishes, and adds up what the subscribers found.

pub(crate) mod found;
pub(crate) mod memory;
pub(crate) mod watch;

use std::{
    sync::{
        Arc,
        atomic::{AtomicU8, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use dataplane::engine;

use crate::{
    clock,
    failure::Failure,
    load::{Place, engine_text},
    options::ReadWhen,
    process::descriptor_limit,
    streams::{
        found::{FanOut, Quiet, SseRun, Total},
        memory::{Memory, Sample},
        watch::Watch,
    },
    subscriber::{
        Subscriber,
        publisher::Publish,
        shared::{Shared, Stage, Subscription},
    },
    target::Target,
};

/// What to hold.
#[derive(Clone, Debug)]
pub(crate) struct Holding {
    /// `{t}` in its path is replaced by the number of a stream's topic.
    pub(crate) url: Target,
    /// Further fields of the request for a stream.
    pub(crate) fields: Vec<String>,
    /// A multiple of `topics`.
    pub(crate) streams: u32,
    pub(crate) topics: u32,
    pub(crate) sources: u32,
    /// Rings; `None` for as many as the descriptor limit demands.
    pub(crate) shards: Option<u16>,
    pub(crate) opening: u32,
    /// Opens a second; `None` as fast as it goes.
    pub(crate) ramp: Option<f64>,
    /// Every so many-th stream stops reading once it is open; 0 is none.
    pub(crate) stall_every: u32,
    /// How long to hold all of them before the first event.
    pub(crate) quiet: Duration,
    /// How long to hold them from the first event on.
    pub(crate) hold: Duration,
    pub(crate) reading: Reading,
    pub(crate) publish: Option<Publish>,
    /// The server's process.
    pub(crate) server: Option<u32>,
    /// Where others see how far it is: [`PHASE_OPEN`], then [`PHASE_EVENTS`].
    pub(crate) phase: Option<Arc<AtomicU8>>,
}

/// When the streams read what they are told.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Reading {
    AtOnce,
    /// Not before the server is through with an event: its cost alone, without the other ends'.
    Later,
    /// Not before all events are sent.
    AtEnd,
}

impl From<ReadWhen> for Reading {
    fn from(when: ReadWhen) -> Self {
        match when {
            ReadWhen::AtOnce => Self::AtOnce,
            ReadWhen::Later => Self::Later,
        }
    }
}

impl Holding {
    /// So many streams of one topic, opened as fast as it goes and read at once.
    pub(crate) fn new(url: Target, streams: u32) -> Self {
        Self {
            url,
            fields: Vec::new(),
            streams,
            topics: 1,
            sources: sources_for(streams),
            shards: None,
            opening: OPENING,
            ramp: None,
            stall_every: 0,
            quiet: Duration::ZERO,
            hold: Duration::ZERO,
            reading: Reading::AtOnce,
            publish: None,
            server: None,
            phase: None,
        }
    }
}

/// Holds streams. `look` is called some times a second with the numbers of open streams and of
/// deliveries.
///
/// # Errors
/// The engine cannot start, streams do not open, or the server's process is gone.
pub(crate) fn run(
    holding: &Holding,
    place: Place,
    mut look: impl FnMut(u32, u64),
) -> Result<SseRun, Failure> {
    let shards = shards(holding)?;
    let shared = Arc::new(Shared::default());
    let plan = subscription(holding, shards);
    let running = engine::start(place.config(shards), {
        let shared = shared.clone();
        move |seat| {
            let mut plan = plan.clone();
            plan.seat = (seat.shard, seat.shards);
            Subscriber::new(plan, shared.clone())
        }
    })
    .map_err(|error| Failure::error("start the streams").because(error))?;
    let engine = engine_text(running.taken());
    let room = u64::from(running.sockets_max()) * u64::from(shards);
    let mut watch = Watch::new(&shared, holding.server, &mut look);
    let result = if room > u64::from(holding.streams) {
        Course { holding, shards, shared: &shared, watch: &mut watch }.hold()
    } else {
        Err(Failure::usage(format!(
            "{} streams need more sockets than the {room} that {engine} may have here: raise \
             RLIMIT_NOFILE or hold fewer",
            holding.streams
        )))
    };
    let (samples, marks) = (watch.samples, watch.marks);
    let stalled = shared.stalled.load(Ordering::Relaxed);
    shared.order(Stage::End);
    running.join().map_err(|error| Failure::error("hold the streams").because(error))?;
    let findings = result?;
    let total = Total::of(shared.take_outcomes());
    let deliveries = shared.deliveries.load(Ordering::Relaxed);
    let events = total.events();
    Ok(SseRun {
        streams: holding.streams,
        topics: holding.topics,
        stalled: stalled.max(stalled_of(holding)),
        opened_s: findings.opened.as_secs_f64(),
        refused: shared.refused.load(Ordering::Relaxed),
        lost: shared.lost.load(Ordering::Relaxed),
        published: total.held.published,
        publish_failed: total.held.publish_failed,
        deliveries,
        data_bytes: total.held.data_bytes,
        missing: total.missing(holding.topics),
        unseen: total.unseen(),
        faults: total.held.faults,
        protocol_errors: total.held.protocol_errors,
        beats: total.held.beats,
        gaps: total.held.gaps,
        unnamed: total.held.unnamed,
        delay: total.held.delays.summary(),
        delay_curve: total.held.delays.curve(),
        publish_late: total.held.publish_late.summary(),
        fan_out: findings.cpu_ns.map(|cpu_ns| FanOut::of(cpu_ns, deliveries, &events)),
        events,
        quiet: findings.quiet,
        held_s: findings.held.as_secs_f64(),
        memory: findings.memory,
        engine,
        shards,
        samples,
        marks,
    })
}

/// Source addresses that let so many streams be opened fast: the kernel looks for a free port by
/// trial, even ones first, so one address is slow long before its 28,000 ports are used (measured
/// with 18,000 on one: 470 opens a second instead of 4,000).
pub(crate) fn sources_for(streams: u32) -> u32 {
    streams.div_ceil(STREAMS_A_SOURCE).max(1)
}

/// Streams that are never read again once they are open.
fn stalled_of(holding: &Holding) -> u32 {
    holding.streams.checked_div(holding.stall_every).unwrap_or(0)
}

/// Rings that the streams need: a table of direct descriptors is as large as RLIMIT_NOFILE allows.
fn shards(holding: &Holding) -> Result<u16, Failure> {
    let shards = match holding.shards {
        Some(shards) => shards.max(1),
        None => {
            let limit = descriptor_limit()
                .map_err(|error| Failure::error("read the descriptor limit").because(error))?;
            let room = limit.saturating_sub(SPARE_DESCRIPTORS).max(1);
            u16::try_from(holding.streams.div_ceil(room).max(1))
                .map_err(|_| Failure::usage("--streams needs a higher descriptor limit"))?
        }
    };
    let (topics, streams) = (holding.topics, holding.streams);
    if topics > 1 && (topics < u32::from(shards) || streams % topics != 0) {
        return Err(Failure::usage(format!(
            "--topics is 1, or at least the number of rings ({shards}) and a divisor of --streams \
             ({streams}); found {topics}"
        )));
    }
    Ok(shards)
}

fn subscription(holding: &Holding, shards: u16) -> Subscription {
    let mut request = format!("GET {} HTTP/1.1\r\nAccept: text/event-stream\r\n", holding.url.path);
    let named = |field: &String| field.to_ascii_lowercase().starts_with("host:");
    if !holding.fields.iter().any(named) {
        request += &format!("Host: {}\r\n", holding.url.authority);
    }
    holding.fields.iter().for_each(|field| request += &format!("{field}\r\n"));
    request += "\r\n";
    if holding.topics <= 1 {
        request = request.replace("{t}", "0");
    }
    Subscription {
        to: holding.url.address,
        request: Bytes::from(request),
        seat: (0, shards),
        streams: holding.streams,
        topics: holding.topics.max(1),
        sources: holding.sources,
        opening_max: holding.opening.max(1),
        stall_every: holding.stall_every,
        publish: holding.publish.clone(),
    }
}

/// What the thread that watches found.
#[derive(Default)]
struct Findings {
    opened: Duration,
    memory: Option<Memory>,
    quiet: Option<Quiet>,
    cpu_ns: Option<u64>,
    held: Duration,
}

/// The course of a holding.
struct Course<'a, 'b> {
    holding: &'a Holding,
    shards: u16,
    shared: &'a Shared,
    watch: &'a mut Watch<'b>,
}

impl Course<'_, '_> {
    fn hold(&mut self) -> Result<Findings, Failure> {
        let holding = self.holding;
        let mut found = Findings::default();
        let few = FEW.min(holding.streams / 2);
        let begin = clock::now();
        let before = match holding.server {
            Some(pid) if few > 0 => {
                self.open(few)?;
                found.opened = begin.elapsed();
                Some(self.sample(pid)?)
            }
            _ => None,
        };
        let begin = clock::now();
        self.open(holding.streams)?;
        found.opened += begin.elapsed();
        self.watch.mark("all open");
        if let Some((pid, before)) = holding.server.zip(before) {
            let after = self.sample(pid)?;
            found.memory = Some(Memory::between(&before, &after, few, holding.streams));
        }
        self.reach(PHASE_OPEN);
        found.quiet = self.quiet()?;
        if holding.publish.is_some() {
            self.watch.mark("first event");
        }
        let begin = clock::now();
        found.cpu_ns = match holding.reading {
            Reading::AtOnce => self.deliver()?,
            Reading::Later => self.deliver_later()?,
            Reading::AtEnd => self.deliver_at_end()?,
        };
        found.held = begin.elapsed();
        self.watch.mark("end");
        Ok(found)
    }

    /// Memory while nobody reads: an armed receive takes 640 bytes of the kernel for each of our
    /// ends, which half of both ends would lay on the server, whose idle streams have none.
    fn sample(&mut self, pid: u32) -> Result<Sample, Failure> {
        self.mute(true)?;
        clock::pause(SETTLE);
        let mut sample = Sample::take(pid)?;
        // A million receives take seconds to be called back.
        for _ in 0..SETTLE_LOOKS_MAX {
            clock::pause(SETTLE);
            let last = std::mem::replace(&mut sample, Sample::take(pid)?);
            if sample.is_like(&last) {
                break;
            }
        }
        self.mute(false)?;
        Ok(sample)
    }

    /// Allows so many streams, at the rate of the ramp, and waits for them as long as their number
    /// grows.
    fn open(&mut self, count: u32) -> Result<(), Failure> {
        let shared = self.shared;
        let (begin, from) = (clock::now(), shared.allowed.load(Ordering::Relaxed));
        let (mut last, mut last_at) = (0, clock::now());
        loop {
            let allowed = self.holding.ramp.map_or(count, |rate| {
                let more = rate * begin.elapsed().as_secs_f64();
                // Saturates.
                from.saturating_add(more as u32).min(count)
            });
            shared.allowed.store(allowed, Ordering::Release);
            let open = shared.open.load(Ordering::Acquire);
            let lost = shared.lost.load(Ordering::Relaxed);
            self.watch.look();
            if open + lost >= count {
                return Ok(());
            }
            if open != last {
                (last, last_at) = (open, clock::now());
            }
            if last_at.elapsed() > NO_PROGRESS_MAX {
                return Err(Failure::timeout(format!(
                    "{open} of {count} streams are open and no more within {} s; {} refused, \
                     {lost} lost",
                    NO_PROGRESS_MAX.as_secs(),
                    shared.refused.load(Ordering::Relaxed),
                )));
            }
            clock::pause(LOOK);
        }
    }

    /// Holds all of them without an event. Beats are read as they come, or all of them in the end.
    fn quiet(&mut self) -> Result<Option<Quiet>, Failure> {
        if self.holding.quiet.is_zero() {
            return Ok(None);
        }
        self.watch.mark("held");
        let is_read_later = self.holding.reading != Reading::AtOnce;
        if is_read_later {
            self.mute(true)?;
        }
        let before = (self.watch.cpu_ns()?, self.shared.beats.load(Ordering::Relaxed));
        let begin = clock::now();
        while begin.elapsed() < self.holding.quiet {
            self.watch.look();
            clock::pause(LOOK_SLOWLY);
        }
        let seconds = begin.elapsed().as_secs_f64();
        let after = self.watch.cpu_ns()?;
        let cpu_s = before.0.zip(after).map(|(before, after)| (after - before) as f64 / 1e9);
        if is_read_later {
            self.mute(false)?;
            self.beats_are_read();
        }
        Ok(Some(Quiet {
            seconds,
            beats: self.shared.beats.load(Ordering::Relaxed) - before.1,
            busy: cpu_s.map(|cpu_s| cpu_s / seconds),
        }))
    }

    /// Waits until what has piled up is read: new beats alone are few beside it.
    fn beats_are_read(&mut self) {
        let (begin, mut last) = (clock::now(), self.shared.beats.load(Ordering::Relaxed));
        while begin.elapsed() < DELIVER_MAX {
            clock::pause(REST);
            self.watch.look();
            let beats = self.shared.beats.load(Ordering::Relaxed);
            if beats - last < u64::from(self.holding.streams / 100).max(1) {
                return;
            }
            last = beats;
        }
    }

    /// Publishes, holds, and waits until deliveries have stopped; the server's CPU time for it.
    fn deliver(&mut self) -> Result<Option<u64>, Failure> {
        let before = self.watch.cpu_ns()?;
        self.shared.order(Stage::Publish);
        self.reach(PHASE_EVENTS);
        let begin = clock::now();
        let (mut last, mut last_at) = (0, begin);
        loop {
            let deliveries = self.shared.deliveries.load(Ordering::Relaxed);
            self.watch.look();
            if deliveries != last {
                (last, last_at) = (deliveries, clock::now());
            }
            let published = self.holding.publish.is_none()
                || self.shared.publishing_done.load(Ordering::Acquire) == 1;
            let quiet = last_at.elapsed() > QUIET;
            let late = begin.elapsed() > self.holding.hold + DELIVER_MAX;
            if begin.elapsed() >= self.holding.hold && ((published && quiet) || late) {
                break;
            }
            clock::pause(LOOK);
        }
        let after = self.watch.cpu_ns()?;
        Ok(before.zip(after).map(|(before, after)| after - before))
    }

    /// Event by event: nobody reads until the server is through with it. Its CPU time until then.
    fn deliver_later(&mut self) -> Result<Option<u64>, Failure> {
        let Some(publish) = &self.holding.publish else { return Ok(None) };
        self.shared.publish_max.store(0, Ordering::Release);
        self.shared.order(Stage::Publish);
        let mut spent = None;
        for n in 1..=publish.count {
            self.mute(true)?;
            let before = self.watch.cpu_ns()?;
            self.shared.publish_max.store(n, Ordering::Release);
            self.wait("a publish is sent", |shared| shared.published.load(Ordering::Acquire) >= n)?;
            let after = self.server_rests()?;
            if let Some((before, after)) = before.zip(after) {
                spent = Some(spent.unwrap_or(0) + after - before);
            }
            self.mute(false)?;
            let readers = u64::from(self.holding.streams - stalled_of(self.holding));
            let expected = readers * u64::from(n);
            self.wait("the event is read", |shared| {
                shared.deliveries.load(Ordering::Relaxed) >= expected
            })?;
        }
        self.wait("the last publish is answered", |shared| {
            shared.publishing_done.load(Ordering::Acquire) == 1
        })?;
        Ok(spent)
    }

    /// All events, then nobody has read any of them; then all do.
    fn deliver_at_end(&mut self) -> Result<Option<u64>, Failure> {
        self.mute(true)?;
        let before = self.watch.cpu_ns()?;
        self.shared.order(Stage::Publish);
        self.reach(PHASE_EVENTS);
        let begin = clock::now();
        self.wait("all events are sent", |shared| {
            shared.publishing_done.load(Ordering::Acquire) == 1
        })?;
        while begin.elapsed() < self.holding.hold {
            self.watch.look();
            clock::pause(LOOK_SLOWLY);
        }
        let after = self.server_rests()?;
        self.mute(false)?;
        let events = self.holding.publish.as_ref().map_or(0, |publish| publish.count);
        let readers = u64::from(self.holding.streams - stalled_of(self.holding));
        let expected = readers / u64::from(self.holding.topics.max(1)) * u64::from(events);
        self.wait("the events are read", |shared| {
            shared.deliveries.load(Ordering::Relaxed) >= expected
        })?;
        Ok(before.zip(after).map(|(before, after)| after - before))
    }

    fn reach(&self, phase: u8) {
        if let Some(shown) = &self.holding.phase {
            shown.store(phase, Ordering::Release);
        }
    }

    fn mute(&mut self, muted: bool) -> Result<(), Failure> {
        let obeyed = self.shared.obeyed.load(Ordering::Acquire) + u32::from(self.shards);
        self.shared.muted.store(muted, Ordering::Release);
        self.wait("the rings stop reading", |shared| {
            shared.obeyed.load(Ordering::Acquire) >= obeyed
        })?;
        // Receives are called back by then, or armed.
        clock::pause(REST);
        Ok(())
    }

    /// Waits until the server does nothing any more.
    fn server_rests(&mut self) -> Result<Option<u64>, Failure> {
        let mut last = self.watch.cpu_ns()?;
        loop {
            clock::pause(REST);
            let now = self.watch.cpu_ns()?;
            let spent = now.zip(last).map_or(0, |(now, last)| now - last);
            if u128::from(spent) < REST.as_nanos() / 10 {
                return Ok(now);
            }
            last = now;
        }
    }

    fn wait(&mut self, what: &str, done: impl Fn(&Shared) -> bool) -> Result<(), Failure> {
        let (shared, watch) = (self.shared, &mut *self.watch);
        let at_most = self.holding.hold + DELIVER_MAX;
        let done = clock::wait_for(LOOK, at_most, || {
            watch.look();
            done(shared)
        });
        let text = || format!("{what}: not within {} s", at_most.as_secs());
        if done { Ok(()) } else { Err(Failure::timeout(text())) }
    }
}

/// All streams are open.
pub(crate) const PHASE_OPEN: u8 = 1;
/// Events are being published.
pub(crate) const PHASE_EVENTS: u8 = 2;
/// Streams at the first look at memory (CONTRACTS, Bench).
const FEW: u32 = 1_000;
const SPARE_DESCRIPTORS: u32 = 512;
const STREAMS_A_SOURCE: u32 = 2_000;
/// Streams being opened at a time, per ring.
const OPENING: u32 = 256;
const LOOK: Duration = Duration::from_millis(5);
const LOOK_SLOWLY: Duration = Duration::from_millis(50);
/// From the last open to the look at memory.
const SETTLE: Duration = Duration::from_secs(1);
/// So often at most until it does not change any more.
const SETTLE_LOOKS_MAX: u32 = 30;
/// No delivery for so long means that the last one has come.
const QUIET: Duration = Duration::from_secs(1);
/// A server that uses less than a tenth of so much time rests.
const REST: Duration = Duration::from_millis(200);
/// Longest wait for deliveries beyond the time to hold.
const DELIVER_MAX: Duration = Duration::from_secs(60);
const NO_PROGRESS_MAX: Duration = Duration::from_secs(15);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_stream_of_the_bare_loop_gets_every_event() {
        if engine::probe(engine::EngineChoice::IoUring).is_err() {
            // The bare loop is io_uring's; the rest of this file is tested without.
            return;
        }
        let listen = crate::probe::free_address().expect("a port");
        let folder = tempfile::tempdir().expect("folder");
        let answer = folder.path().join("answer");
        let head = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\
                    Transfer-Encoding: chunked\r\n\r\n";
        std::fs::write(&answer, head).expect("answer");
        let floor = crate::options::FloorOptions { listen, answer, fanout: true, shards: 2 };
        // It serves until the process ends.
        std::thread::Builder::new().spawn(move || crate::floor::run(&floor)).expect("thread");
        let ready = || crate::probe::ask(listen, "GET", "/ready", &[], &[]).is_ok();
        assert!(clock::wait_for(LOOK, Duration::from_secs(10), ready));
        let url: Target = format!("http://{listen}/sub").parse().expect("target");
        let publish = Publish {
            to: url.clone(),
            fields: Vec::new(),
            body: "{\"n\":{n}}".into(),
            every: Duration::from_millis(50),
            count: 3,
            topics: 1,
            lines: 2,
        };
        let holding = Holding {
            sources: 3,
            shards: Some(2),
            opening: 8,
            ramp: Some(1_000.0),
            quiet: Duration::from_millis(50),
            hold: Duration::from_millis(100),
            publish: Some(publish),
            ..Holding::new(url, 40)
        };
        let place = Place { core: None, engine: crate::options::EngineChoice::Auto };
        let check = |holding: &Holding, readers: u64| {
            let run = run(holding, place, |_, _| {}).expect("a run");
            let found = (run.deliveries, run.published, run.faults_total());
            assert_eq!(found, (readers * 3, 3, 0), "{run:?}");
            assert_eq!((run.events.len(), u64::from(run.readers())), (3, readers));
        };
        check(&holding, 40);
        // In silence nobody reads either, and all of it is read in the end.
        check(&Holding { reading: Reading::Later, ..holding.clone() }, 40);
        check(&Holding { stall_every: 10, ..holding }, 36);
    }
}
