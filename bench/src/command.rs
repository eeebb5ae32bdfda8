//! The commands behind the options: `http`, `sse`, `origin`. Each checks what it was asked for,
//! runs, and reports.

use std::{num::NonZeroU64, path::Path, time::Duration};

use dataplane::engine;
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;

use crate::{
    failure::Failure,
    generator::{Load, Phase},
    limits::{
        CONNECTIONS_MAX, PIPELINE_MAX, PUBLISH_LINES_MAX, SOURCES_MAX, STREAMS_MAX, TOPICS_MAX,
    },
    load::{self, Place},
    options::{HttpOptions, OriginOptions, SseOptions},
    origin::Origin,
    plot,
    process::Machine,
    report,
    streams::{self, Holding},
    subscriber::publisher::Publish,
    target::Target,
    workload::{Workload, is_field},
};

/// `bench http`.
///
/// # Errors
/// Wrong usage, or the load could not run. Wrong answers are a result, and an error at the end.
pub(crate) fn http(options: &HttpOptions) -> Result<(), Failure> {
    options.url.check_reach(options.allow_private)?;
    within("--connections", u64::from(options.connections), u64::from(CONNECTIONS_MAX))?;
    within("--pipeline", u64::from(options.pipeline), u64::from(PIPELINE_MAX))?;
    if options.rate.is_some_and(|rate| !(rate.is_finite() && rate > 0.0)) {
        return Err(Failure::usage("--rate is a positive number of requests a second"));
    }
    let popularity = (options.paths, options.zipf, options.seed);
    let load = Load {
        to: options.url.address,
        connections: options.connections,
        pipeline: options.pipeline,
        rate: options.rate,
        reconnect: false,
        warm_up: options.warm_up,
        duration: options.duration,
        workload: Workload::new(&options.url, &options.fields, popularity, options.check)?,
    };
    let bar = LoadBar::new(options.warm_up + options.duration);
    let place = Place { core: options.core, engine: options.engine };
    let run = load::run(load, place, options.pid, |phase, answers| bar.look(phase, answers))?;
    bar.finish();
    let machine = Machine::look();
    report::http(options, &run, &machine);
    write_json(options.json.as_deref(), &report::Document::new(&machine, &run))?;
    match run.load.errors.total() {
        0 => Ok(()),
        count => Err(Failure::error(format!("{count} requests failed"))),
    }
}

/// `bench sse`.
///
/// # Errors
/// Wrong usage, or the streams could not be held. Lost streams and events are a result, and an
/// error at the end.
pub(crate) fn sse(options: &SseOptions) -> Result<(), Failure> {
    options.url.check_reach(options.allow_private)?;
    within("--streams", u64::from(options.streams), u64::from(STREAMS_MAX))?;
    let sources = options.sources.unwrap_or_else(|| streams::sources_for(options.streams));
    within("--sources", u64::from(sources), u64::from(SOURCES_MAX))?;
    let publish = match &options.publish {
        Some(target) => {
            target.check_reach(options.allow_private)?;
            Some(publish(options, target.clone())?)
        }
        None => None,
    };
    within("--topics", u64::from(options.topics), u64::from(TOPICS_MAX))?;
    within("--publish-lines", u64::from(options.publish_lines), u64::from(PUBLISH_LINES_MAX))?;
    let positive = |rate: Option<f64>| rate.is_none_or(|rate| rate.is_finite() && rate > 0.0);
    if !positive(options.ramp) || !positive(options.publish_rate) {
        return Err(Failure::usage("--ramp and --publish-rate are positive numbers a second"));
    }
    check_fields("--field", &options.fields)?;
    let holding = Holding {
        fields: options.fields.clone(),
        topics: options.topics,
        sources,
        shards: options.shards,
        opening: options.opening,
        ramp: options.ramp,
        stall_every: options.stall_every,
        quiet: options.idle,
        hold: options.duration,
        reading: options.read.into(),
        publish,
        server: options.pid,
        ..Holding::new(options.url.clone(), options.streams)
    };
    let bar = ProgressBar::new(u64::from(options.streams));
    if let Ok(style) =
        ProgressStyle::with_template("{pos}/{len} streams {wide_bar} {per_sec} {msg}")
    {
        bar.set_style(style);
    }
    let place = Place { core: options.core, engine: options.engine };
    let run = streams::run(&holding, place, |open, deliveries| {
        bar.set_position(u64::from(open));
        bar.set_message(format!("{deliveries} deliveries"));
    })?;
    bar.finish_and_clear();
    let machine = Machine::look();
    report::sse(&options.url, &run, &machine);
    if let Some(path) = &options.plot {
        plot::write(path, &plot::of_streams(&run), &report::title(&options.url, &machine))?;
    }
    write_json(options.json.as_deref(), &report::Document::new(&machine, &run))?;
    match run.faults_total() {
        0 => Ok(()),
        count => Err(Failure::error(format!("{count} faults"))),
    }
}

fn publish(options: &SseOptions, to: Target) -> Result<Publish, Failure> {
    check_fields("--publish-field", &options.publish_fields)?;
    let every = match options.publish_rate {
        Some(rate) => Duration::from_secs_f64(1.0 / rate),
        None => options.publish_every.max(Duration::from_millis(1)),
    };
    let fitting = options.duration.as_nanos() / every.as_nanos().max(1);
    let fitting = u32::try_from(fitting).unwrap_or(u32::MAX).max(1);
    Ok(Publish {
        to,
        fields: options.publish_fields.clone(),
        body: options.publish_body.clone(),
        every,
        count: options.publishes.unwrap_or(fitting),
        topics: options.topics,
        lines: options.publish_lines,
    })
}

fn check_fields(option: &str, fields: &[String]) -> Result<(), Failure> {
    match fields.iter().find(|field| !is_field(field)) {
        Some(bad) => {
            Err(Failure::usage(format!("expected {option} \"Name: value\", found {bad:?}")))
        }
        None => Ok(()),
    }
}

/// `bench origin`: serves until the process is told to end.
///
/// # Errors
/// The address is taken, or the engine cannot start.
pub(crate) fn origin(options: &OriginOptions) -> Result<(), Failure> {
    let mut config = Place { core: options.core, engine: options.engine }.config(1);
    config.listeners = vec![options.listen];
    let running = engine::start(config, |_| Origin::default())
        .map_err(|error| Failure::error("start the origin").because(error))?;
    for listener in running.listeners() {
        report::talk(&format!(
            "origin on http://{listener}/bytes/1024 ({})",
            load::engine_text(running.taken())
        ));
    }
    running.join().map_err(|error| Failure::error("run the origin").because(error))
}

/// A count that has to be at least 1.
pub(crate) fn within(name: &str, value: u64, max: u64) -> Result<NonZeroU64, Failure> {
    NonZeroU64::new(value)
        .filter(|value| value.get() <= max)
        .ok_or_else(|| Failure::usage(format!("{name} is 1 to {max}, found {value}")))
}

/// Writes a result where `--json` says.
///
/// # Errors
/// The file cannot be written.
pub(crate) fn write_json(path: Option<&Path>, result: &impl Serialize) -> Result<(), Failure> {
    let Some(path) = path else { return Ok(()) };
    let failed =
        |error: std::io::Error| Failure::error(format!("write {}", path.display())).because(error);
    let mut text = serde_json::to_string_pretty(result)
        .map_err(|error| failed(std::io::Error::other(error)))?;
    text.push('\n');
    std::fs::write(path, text).map_err(failed)
}

/// Progress of one load, drawn only on a terminal.
struct LoadBar {
    bar: ProgressBar,
}

impl LoadBar {
    fn new(length: Duration) -> Self {
        let bar = ProgressBar::new(u64::try_from(length.as_millis()).unwrap_or(u64::MAX));
        if let Ok(style) = ProgressStyle::with_template("{msg:12} {wide_bar} {prefix} answers") {
            bar.set_style(style);
        }
        Self { bar }
    }

    fn look(&self, phase: Phase, answers: u64) {
        self.bar.set_message(match phase {
            Phase::Learning => "learning",
            Phase::Warming => "warming up",
            Phase::Measuring => "measuring",
            Phase::Draining => "draining",
            Phase::Ending => "ending",
        });
        self.bar.set_prefix(answers.to_string());
        let elapsed = self.bar.elapsed().as_millis();
        self.bar.set_position(u64::try_from(elapsed).unwrap_or(u64::MAX));
    }

    fn finish(&self) {
        self.bar.finish_and_clear();
    }
}
