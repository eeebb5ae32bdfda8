//! Runs one holding of streams: opens a few, reads the server's memory, opens all, reads it again,
//! publishes, and adds up what the subscribers found.

use std::{
    collections::HashMap,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use bytes::Bytes;
use dataplane::{engine, seam::Mono};
use serde::Serialize;

use crate::{
    clock,
    failure::Failure,
    load::{Place, engine_text},
    process::{CpuMeter, Slab, descriptor_limit, rss_bytes},
    record::DelaySummary,
    subscriber::{
        Held, Shared, Stage, Subscriber, Subscription, chain::Faults, publisher::Publish,
    },
    target::Target,
};

/// What to hold.
#[derive(Clone, Debug)]
pub(crate) struct Holding {
    pub(crate) url: Target,
    /// Further fields of the request for a stream.
    pub(crate) fields: Vec<String>,
    pub(crate) streams: u32,
    pub(crate) sources: u32,
    /// Rings; `None` for as many as the descriptor limit demands.
    pub(crate) shards: Option<u16>,
    pub(crate) opening: u32,
    pub(crate) hold: Duration,
    pub(crate) publish: Option<Publish>,
    /// The server's process.
    pub(crate) server: Option<u32>,
}

/// What one holding found.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct SseRun {
    /// Streams asked for, all of which were open at once.
    pub(crate) streams: u32,
    /// From the first connect to the last head.
    pub(crate) opened_s: f64,
    /// Opens that were refused or failed and tried again.
    pub(crate) refused: u32,
    /// Streams that ended before they were to.
    pub(crate) lost: u32,
    /// Publishes sent, and how many of them failed.
    pub(crate) published: u32,
    /// See `published`.
    pub(crate) publish_failed: u32,
    /// Events delivered, of all streams together.
    pub(crate) deliveries: u64,
    /// Bytes of their data.
    pub(crate) data_bytes: u64,
    /// Deliveries that never came, of events that some stream got.
    pub(crate) missing: u64,
    /// Breaks of the order.
    pub(crate) faults: Faults,
    /// Answers that were no event stream.
    pub(crate) protocol_errors: u64,
    /// Heartbeats.
    pub(crate) beats: u64,
    /// Gaps told.
    pub(crate) gaps: u64,
    /// Events without id.
    pub(crate) unnamed: u64,
    /// From the publish to each delivery.
    pub(crate) delay: DelaySummary,
    /// Each event.
    pub(crate) events: Vec<EventRun>,
    /// The server's memory, if its process was named.
    pub(crate) memory: Option<Memory>,
    /// The server's CPU time while events were published, if its process was named.
    pub(crate) fan_out: Option<FanOut>,
    /// The engine that held the streams, and why.
    pub(crate) engine: String,
    /// Rings that the streams were spread over.
    pub(crate) shards: u16,
}

/// One event's way.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct EventRun {
    /// From the publish to the first delivery.
    pub(crate) first_us: u64,
    /// From the publish to the last delivery.
    pub(crate) last_us: u64,
    /// How many streams got it.
    pub(crate) delivered: u64,
}

/// Memory with few streams and with all of them.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Memory {
    /// How many are few.
    pub(crate) few: u32,
    /// Resident with few.
    pub(crate) rss_few_bytes: u64,
    /// Resident with all.
    pub(crate) rss_all_bytes: u64,
    /// The difference a stream.
    pub(crate) user_bytes_per_stream: f64,
    /// Growth of the kernel's slab memory a stream, of one end; both ends are on this machine.
    pub(crate) kernel_bytes_per_stream: Option<f64>,
    /// Where it grew most, both ends.
    pub(crate) slab_growth: Vec<(String, i64)>,
}

/// What publishing cost the server.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct FanOut {
    /// Run time of all its threads from the first publish to the last delivery.
    pub(crate) cpu_ns: u64,
    /// Deliveries meanwhile.
    pub(crate) deliveries: u64,
    /// The quotient, in microseconds.
    pub(crate) cpu_us_per_delivery: f64,
    /// Deliveries a second, from each publish to its last delivery.
    pub(crate) deliveries_per_s: f64,
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
            plan.publish = plan.publish.filter(|_| seat.shard == 0);
            Subscriber::new(plan, shared.clone())
        }
    })
    .map_err(|error| Failure::error("start the streams").because(error))?;
    let engine = engine_text(running.taken());
    let room = u64::from(running.sockets_max()) * u64::from(shards);
    let result = if room > u64::from(holding.streams) {
        hold(holding, &shared, &mut look)
    } else {
        Err(Failure::usage(format!(
            "{} streams need more sockets than the {room} that {engine} may have here: raise \
             RLIMIT_NOFILE or hold fewer",
            holding.streams
        )))
    };
    shared.order(Stage::End);
    running.join().map_err(|error| Failure::error("hold the streams").because(error))?;
    let (opened, memory, cpu_ns) = result?;
    let total = Total::of(shared.take_outcomes());
    let lost = shared.lost.load(Ordering::Relaxed);
    let refused = shared.refused.load(Ordering::Relaxed);
    let deliveries = shared.deliveries.load(Ordering::Relaxed);
    let events = total.events();
    Ok(SseRun {
        streams: holding.streams,
        opened_s: opened.as_secs_f64(),
        refused,
        lost,
        published: total.held.published,
        publish_failed: total.held.publish_failed,
        deliveries,
        data_bytes: total.held.data_bytes,
        missing: total.missing(),
        faults: total.held.faults,
        protocol_errors: total.held.protocol_errors,
        beats: total.held.beats,
        gaps: total.held.gaps,
        unnamed: total.held.unnamed,
        delay: total.held.delays.summary(),
        fan_out: cpu_ns.map(|cpu_ns| FanOut::of(cpu_ns, deliveries, &events)),
        events,
        memory,
        engine,
        shards,
    })
}

/// Source addresses that let so many streams be opened fast: the kernel looks for a free port by
/// trial, even ones first, so one address is slow long before its 28,000 ports are used (measured
/// with 18,000 on one: 470 opens a second instead of 4,000).
pub(crate) fn sources_for(streams: u32) -> u32 {
    streams.div_ceil(STREAMS_A_SOURCE).max(1)
}

/// Rings that the streams need: a table of direct descriptors is as large as RLIMIT_NOFILE allows.
fn shards(holding: &Holding) -> Result<u16, Failure> {
    if let Some(shards) = holding.shards {
        return Ok(shards.max(1));
    }
    let limit = descriptor_limit()
        .map_err(|error| Failure::error("read the descriptor limit").because(error))?;
    let room = limit.saturating_sub(SPARE_DESCRIPTORS).max(1);
    u16::try_from(holding.streams.div_ceil(room).max(1))
        .map_err(|_| Failure::usage("--streams needs a higher descriptor limit"))
}

fn subscription(holding: &Holding, shards: u16) -> Subscription {
    let mut request = format!("GET {} HTTP/1.1\r\nAccept: text/event-stream\r\n", holding.url.path);
    let named = |field: &String| field.to_ascii_lowercase().starts_with("host:");
    if !holding.fields.iter().any(named) {
        request += &format!("Host: {}\r\n", holding.url.authority);
    }
    holding.fields.iter().for_each(|field| request += &format!("{field}\r\n"));
    request += "\r\n";
    Subscription {
        to: holding.url.address,
        request: Bytes::from(request),
        seat: (0, shards),
        streams: holding.streams,
        sources: holding.sources,
        opening_max: holding.opening.max(1),
        publish: holding.publish.clone(),
    }
}

type Findings = (Duration, Option<Memory>, Option<u64>);

/// The course of a holding.
fn hold(
    holding: &Holding,
    shared: &Shared,
    look: &mut dyn FnMut(u32, u64),
) -> Result<Findings, Failure> {
    let few = FEW.min(holding.streams / 2);
    let begin = clock::now();
    let mut opened = Duration::ZERO;
    let mut memory = None;
    let few_memory = match holding.server {
        Some(pid) if few > 0 => {
            open(shared, few, look)?;
            opened = begin.elapsed();
            clock::pause(SETTLE);
            Some(sample(pid)?)
        }
        _ => None,
    };
    let begin = clock::now();
    open(shared, holding.streams, look)?;
    opened += begin.elapsed();
    if let Some((pid, few_memory)) = holding.server.zip(few_memory) {
        clock::pause(SETTLE);
        memory = Some(Memory::between(few_memory, sample(pid)?, few, holding.streams));
    }
    let mut meter = holding.server.map(CpuMeter::new);
    let mut cpu = || meter.as_mut().map(CpuMeter::read_ns).transpose().map_err(gone);
    let before = cpu()?;
    shared.order(Stage::Publish);
    deliver(holding, shared, look);
    let after = cpu()?;
    let cpu_ns = before.zip(after).map(|(before, after)| after - before);
    Ok((opened, memory, cpu_ns))
}

/// Allows so many streams and waits for them, as long as their number grows.
fn open(shared: &Shared, count: u32, look: &mut dyn FnMut(u32, u64)) -> Result<(), Failure> {
    shared.allowed.store(count, Ordering::Release);
    let (mut last, mut last_at) = (0, clock::now());
    loop {
        let open = shared.open.load(Ordering::Acquire);
        let lost = shared.lost.load(Ordering::Relaxed);
        look(open, 0);
        if open + lost >= count {
            return Ok(());
        }
        if open != last {
            (last, last_at) = (open, clock::now());
        }
        if last_at.elapsed() > NO_PROGRESS_MAX {
            return Err(Failure::timeout(format!(
                "{open} of {count} streams are open and no more within {} s; {} refused, {lost} lost",
                NO_PROGRESS_MAX.as_secs(),
                shared.refused.load(Ordering::Relaxed),
            )));
        }
        clock::pause(LOOK);
    }
}

/// Waits for the time to hold, for the publishes, and until deliveries have stopped.
fn deliver(holding: &Holding, shared: &Shared, look: &mut dyn FnMut(u32, u64)) {
    let begin = clock::now();
    let (mut last, mut last_at) = (0, begin);
    loop {
        let deliveries = shared.deliveries.load(Ordering::Relaxed);
        look(shared.open.load(Ordering::Relaxed), deliveries);
        if deliveries != last {
            (last, last_at) = (deliveries, clock::now());
        }
        let published =
            holding.publish.is_none() || shared.publishing_done.load(Ordering::Acquire) == 1;
        let quiet = last_at.elapsed() > QUIET;
        let late = begin.elapsed() > holding.hold + DELIVER_MAX;
        if begin.elapsed() >= holding.hold && ((published && quiet) || late) {
            return;
        }
        clock::pause(LOOK);
    }
}

fn gone(error: std::io::Error) -> Failure {
    Failure::error("read the server's CPU time and memory").because(error)
}

type MemorySample = (u64, Option<Slab>);

fn sample(pid: u32) -> Result<MemorySample, Failure> {
    // Slab memory may be read by root only; without it the rest still holds.
    Ok((rss_bytes(pid).map_err(gone)?, Slab::read().ok()))
}

impl Memory {
    fn between(few: MemorySample, all: MemorySample, few_count: u32, all_count: u32) -> Self {
        let streams = f64::from(all_count - few_count);
        let growth = few.1.zip(all.1).map(|(few, all)| all.growth(&few));
        let (total, mut largest) = growth.map_or((None, Vec::new()), |(total, caches)| {
            (Some(total as f64 / 2.0 / streams), caches)
        });
        largest.truncate(SLABS_TOLD);
        Self {
            few: few_count,
            rss_few_bytes: few.0,
            rss_all_bytes: all.0,
            user_bytes_per_stream: (all.0 as f64 - few.0 as f64) / streams,
            kernel_bytes_per_stream: total,
            slab_growth: largest,
        }
    }
}

impl FanOut {
    fn of(cpu_ns: u64, deliveries: u64, events: &[EventRun]) -> Self {
        let busy_us: u64 = events.iter().map(|event| event.last_us).sum();
        let delivered: u64 = events.iter().map(|event| event.delivered).sum();
        Self {
            cpu_ns,
            deliveries,
            cpu_us_per_delivery: cpu_ns as f64 / 1e3 / deliveries.max(1) as f64,
            deliveries_per_s: delivered as f64 * 1e6 / busy_us.max(1) as f64,
        }
    }
}

/// What all subscribers found, added up.
struct Total {
    held: Held,
    /// Published, first and last delivery, count; in order of the first delivery.
    merged: Vec<(Mono, Mono, Mono, u64)>,
}

impl Total {
    fn of(outcomes: Vec<Held>) -> Self {
        let mut held = Held::new();
        let mut by_id: HashMap<u64, (Mono, Mono, Mono, u64)> = HashMap::new();
        for one in outcomes {
            merge(&mut held, &one);
            for event in &one.events {
                let fresh = (event.published_at, event.first_at, event.last_at, 0);
                let entry = by_id.entry(event.id).or_insert(fresh);
                // A ring that saw the event late may have taken a later publish for its own.
                entry.0 = entry.0.min(event.published_at);
                entry.1 = entry.1.min(event.first_at);
                entry.2 = entry.2.max(event.last_at);
                entry.3 += u64::from(event.delivered);
            }
        }
        let mut merged: Vec<_> = by_id.into_values().collect();
        merged.sort_by_key(|(_, first_at, _, _)| *first_at);
        Self { held, merged }
    }

    fn events(&self) -> Vec<EventRun> {
        let us = |from: Mono, to: Mono| to.since_ns(from) / 1_000;
        let event = |&(published_at, first_at, last_at, delivered): &(Mono, Mono, Mono, u64)| {
            let from = if published_at == Mono(0) { first_at } else { published_at };
            EventRun { first_us: us(from, first_at), last_us: us(from, last_at), delivered }
        };
        self.merged.iter().map(event).collect()
    }

    /// What streams that were open to the end did not get.
    fn missing(&self) -> u64 {
        let open = u64::from(self.held.open);
        self.merged.iter().map(|(.., delivered)| open.saturating_sub(*delivered)).sum()
    }
}

fn merge(total: &mut Held, one: &Held) {
    total.delays.merge(&one.delays);
    total.faults.add(one.faults);
    total.open += one.open;
    total.beats += one.beats;
    total.gaps += one.gaps;
    total.unnamed += one.unnamed;
    total.data_bytes += one.data_bytes;
    total.protocol_errors += one.protocol_errors;
    total.published += one.published;
    total.publish_failed += one.publish_failed;
}

impl SseRun {
    /// Everything that should not have happened, added up.
    pub(crate) fn faults_total(&self) -> u64 {
        self.missing
            + self.faults.total()
            + u64::from(self.lost)
            + u64::from(self.publish_failed)
            + self.protocol_errors
            + self.gaps
    }
}

/// Streams at the first look at memory (CONTRACTS, Bench).
const FEW: u32 = 1_000;
const SPARE_DESCRIPTORS: u32 = 512;
const STREAMS_A_SOURCE: u32 = 2_000;
const LOOK: Duration = Duration::from_millis(5);
/// From the last open to the look at memory.
const SETTLE: Duration = Duration::from_secs(1);
/// No delivery for so long means that the last one has come.
const QUIET: Duration = Duration::from_secs(1);
/// Longest wait for deliveries beyond the time to hold.
const DELIVER_MAX: Duration = Duration::from_secs(60);
const NO_PROGRESS_MAX: Duration = Duration::from_secs(15);
const SLABS_TOLD: usize = 8;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::subscriber::chain::Sighted;

    #[test]
    fn events_of_several_rings_are_one_event() {
        let sighted = |id: u64, from: u64, first: u64, last: u64, delivered: u32| Sighted {
            id,
            published_at: Mono(from),
            first_at: Mono(first),
            last_at: Mono(last),
            delivered,
        };
        let held = |open: u32, events: Vec<Sighted>| Held { open, events, ..Held::new() };
        let total = Total::of(vec![
            held(
                3,
                vec![sighted(7, 1_000, 9_000, 21_000, 3), sighted(8, 50_000, 60_000, 61_000, 2)],
            ),
            held(
                2,
                vec![sighted(7, 1_000, 5_000, 31_000, 2), sighted(8, 50_000, 60_000, 62_000, 2)],
            ),
        ]);
        let events = total.events();
        assert_eq!((events[0].first_us, events[0].last_us, events[0].delivered), (4, 30, 5));
        assert_eq!(total.missing(), 1);
    }

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
        let holding = Holding {
            url: url.clone(),
            fields: Vec::new(),
            streams: 40,
            sources: 3,
            shards: Some(2),
            opening: 8,
            hold: Duration::from_millis(100),
            publish: Some(Publish {
                to: url,
                fields: Vec::new(),
                body: "{n}".into(),
                every: Duration::from_millis(50),
                count: 3,
            }),
            server: None,
        };
        let place = Place { core: None, engine: crate::options::EngineChoice::Auto };
        let run = run(&holding, place, |_, _| {}).expect("a run");
        assert_eq!((run.deliveries, run.published, run.faults_total()), (120, 3, 0), "{run:?}");
        assert_eq!(run.events.len(), 3);
    }

    #[test]
    fn bytes_a_stream_are_the_growth_beyond_the_few() {
        let slab = |bytes| Some(Slab { bytes: HashMap::from([("TCP".to_owned(), bytes)]) });
        let memory = Memory::between((10_000, slab(0)), (109_000, slab(1_980_000)), 10, 1_000);
        assert_eq!(memory.user_bytes_per_stream, 100.0);
        assert_eq!(memory.kernel_bytes_per_stream, Some(1_000.0));
    }
}
