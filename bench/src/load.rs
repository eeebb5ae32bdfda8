//! Runs the load of one command or one turn: starts the engine with a generator, reads the server's
//! CPU time at both ends of the window, waits for the end.

use std::{sync::Arc, time::Duration};

use dataplane::engine::{self, Config, EngineKind, Pin, Taken};
use serde::Serialize;

use crate::{
    clock,
    failure::Failure,
    generator::{Generator, Load, Outcome, Phase, Progress},
    options::EngineChoice,
    process::{CpuMeter, rss_bytes},
};

/// Where an actor of ours runs.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place {
    /// Core to pin to.
    pub(crate) core: Option<usize>,
    pub(crate) engine: EngineChoice,
}

/// What one run of load found.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct HttpRun {
    /// What the load saw.
    pub(crate) load: Outcome,
    /// What the server spent, if its process was named.
    pub(crate) server: Option<ServerCost>,
    /// The engine that drove the load, and why.
    pub(crate) engine: String,
}

/// What a server spent in the measured window.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct ServerCost {
    /// Run time of all its threads.
    pub(crate) cpu_ns: u64,
    /// Answers the load got meanwhile.
    pub(crate) answers: u64,
    /// The quotient, in microseconds.
    pub(crate) cpu_us_per_answer: f64,
    /// Share of one core.
    pub(crate) busy: f64,
    /// Resident memory at the end.
    pub(crate) rss_bytes: u64,
}

impl Place {
    /// An engine configuration for `shards` of our actors here.
    pub(crate) fn config(self, shards: u16) -> Config {
        let mut config = Config::new(Vec::new());
        config.shards = shards;
        config.engine = match self.engine {
            EngineChoice::Auto => engine::EngineChoice::Auto,
            EngineChoice::IoUring => engine::EngineChoice::IoUring,
            EngineChoice::Epoll => engine::EngineChoice::Epoll,
        };
        config.pin = self.core.map_or(Pin::None, |core| Pin::Cores(vec![core]));
        config
    }
}

/// Runs a load to its end. `look` is called some times a second with the phase and the number of
/// answers so far.
///
/// # Errors
/// The engine cannot start, the server's process is gone, or it refused the first request.
pub(crate) fn run(
    load: Load,
    place: Place,
    server: Option<u32>,
    mut look: impl FnMut(Phase, u64),
) -> Result<HttpRun, Failure> {
    let progress = Arc::new(Progress::default());
    let to = load.to;
    let running = engine::start(place.config(1), {
        let progress = progress.clone();
        move |_| Generator::new(load.clone(), progress.clone())
    })
    .map_err(|error| Failure::error("start the load").because(error))?;
    let engine = engine_text(running.taken());
    let mut meter = server.map(CpuMeter::new);
    let mut reach = |phase: Phase| {
        while progress.phase() < phase {
            clock::pause(LOOK);
            look(progress.phase(), progress.completed());
        }
    };
    reach(Phase::Measuring);
    let begin = read(meter.as_mut(), &progress)?;
    reach(Phase::Draining);
    let end = read(meter.as_mut(), &progress)?;
    let rss = server.map(rss_bytes).transpose();
    reach(Phase::Ending);
    running.join().map_err(|error| Failure::error("run the load").because(error))?;
    let outcome = progress
        .take_outcome()
        .ok_or_else(|| Failure::error("run the load: it ended without an outcome"))?;
    if let Some(status) = outcome.refused {
        return Err(Failure::error(format!("{to} answered the first request with {status}")));
    }
    if outcome.answers == 0 && outcome.errors.connect > 0 {
        return Err(Failure::error(format!("connect to {to}: refused or unreachable")));
    }
    let rss_bytes = rss.map_err(gone)?.unwrap_or(0);
    let server = begin.zip(end).map(|(begin, end)| ServerCost::between(begin, end, rss_bytes));
    Ok(HttpRun { load: outcome, server, engine })
}

/// CPU time, answers and the clock, looked at together.
#[derive(Clone, Copy)]
struct Sample {
    cpu_ns: u64,
    answers: u64,
    at: std::time::Instant,
}

fn read(meter: Option<&mut CpuMeter>, progress: &Progress) -> Result<Option<Sample>, Failure> {
    let sample = |meter: &mut CpuMeter| {
        let cpu_ns = meter.read_ns()?;
        Ok(Sample { cpu_ns, answers: progress.completed(), at: clock::now() })
    };
    meter.map(sample).transpose().map_err(gone)
}

fn gone(error: std::io::Error) -> Failure {
    Failure::error("read the server's CPU time and memory").because(error)
}

/// The engine that was taken, in words.
pub(crate) fn engine_text(taken: &Taken) -> String {
    let kind = match taken.kind {
        EngineKind::IoUring => "io_uring",
        EngineKind::Epoll => "epoll",
    };
    format!("{kind} ({})", taken.why)
}

impl ServerCost {
    fn between(begin: Sample, end: Sample, rss_bytes: u64) -> Self {
        let cpu_ns = end.cpu_ns - begin.cpu_ns;
        let answers = end.answers.saturating_sub(begin.answers);
        let seconds = (end.at - begin.at).as_secs_f64();
        Self {
            cpu_ns,
            answers,
            cpu_us_per_answer: cpu_ns as f64 / 1e3 / answers.max(1) as f64,
            busy: cpu_ns as f64 / 1e9 / seconds.max(1e-9),
            rss_bytes,
        }
    }
}

/// How often the phase is looked at: the ends of the window are this exact, and the quotient is
/// exact anyway, because time and answers are read together.
const LOOK: Duration = Duration::from_millis(2);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{options::BodyCheck, origin::Origin, target::Target, workload::Workload};

    /// The origin on one engine, loaded from another, over real sockets.
    fn check(origin_engine: EngineChoice, engine: EngineChoice, rate: Option<f64>) {
        let mut config = Place { core: None, engine: origin_engine }.config(1);
        config.listeners = vec!["127.0.0.1:0".parse().expect("address")];
        let origin = engine::start(config, |_| Origin::default()).expect("origin");
        let address = origin.listeners()[0];
        let url = format!("http://{address}/bytes/20000?chunked=1");
        let target: Target = url.parse().expect("target");
        let workload = Workload::new(&target, &[], (8, 1.0, 1), BodyCheck::Origin).expect("fine");
        let load = Load {
            to: address,
            connections: 4,
            pipeline: 3,
            rate,
            reconnect: false,
            warm_up: Duration::from_millis(20),
            duration: Duration::from_millis(200),
            workload,
        };
        let place = Place { core: None, engine };
        let run = run(load, place, Some(std::process::id()), |_, _| {}).expect("a run");
        origin.control(dataplane::seam::Control::Drain);
        origin.join().expect("the origin ends");
        assert_eq!(run.load.errors.total(), 0, "{:?}", run.load);
        assert!(run.load.answers > 0, "{:?}", run.load);
        let cost = run.server.expect("a cost");
        assert!(cost.cpu_ns > 0 && cost.answers > 0 && cost.rss_bytes > 0, "{cost:?}");
    }

    #[test]
    fn every_body_of_the_origin_arrives_whole_on_every_engine() {
        check(EngineChoice::Auto, EngineChoice::Epoll, None);
        check(EngineChoice::Epoll, EngineChoice::Auto, None);
    }

    #[test]
    fn an_open_loop_keeps_its_rate() {
        check(EngineChoice::Auto, EngineChoice::Auto, Some(500.0));
    }

    #[test]
    fn nobody_listening_is_told_at_once() {
        let address = crate::probe::free_address().expect("a port");
        let target: Target = format!("http://{address}/").parse().expect("target");
        let workload = Workload::new(&target, &[], (1, 1.0, 1), BodyCheck::Same).expect("fine");
        let load = Load {
            to: address,
            connections: 4,
            pipeline: 1,
            rate: None,
            reconnect: false,
            warm_up: Duration::ZERO,
            duration: Duration::from_secs(60),
            workload,
        };
        let place = Place { core: None, engine: EngineChoice::Auto };
        let failure = run(load, place, None, |_, _| {}).expect_err("refused");
        assert!(failure.to_string().contains("refused or unreachable"), "{failure}");
    }
}
