//! Results for people, as text on stdout, and the frame of the JSON documents. Only here does bench
//! print.

use std::fmt::Write as _;

use serde::Serialize;

use crate::{
    compare::{Comparison, Turn, ratios},
    load::HttpRun,
    options::{CompareOptions, HttpOptions},
    process::Machine,
};

/// A JSON result: what was found, and on what.
#[derive(Serialize)]
pub(crate) struct Document<'a, T> {
    pub(crate) machine: Machine,
    pub(crate) result: &'a T,
}

/// A remark on stderr.
#[expect(clippy::print_stderr, reason = "stderr is where a command talks")]
pub(crate) fn talk(text: &str) {
    eprintln!("bench: {text}");
}

/// A result on stdout.
#[expect(clippy::print_stdout, reason = "stdout is where a command's result goes")]
pub(crate) fn print(text: &str) {
    print!("{text}");
}

/// The result of `bench http`.
pub(crate) fn http(options: &HttpOptions, run: &HttpRun) {
    let load = &run.load;
    let mut text = format!("{}\n", options.url);
    let pace = match options.rate {
        Some(rate) => format!("open loop at {rate}/s"),
        None => "closed loop".to_owned(),
    };
    let _ = writeln!(
        text,
        "  {} connections, pipeline {}, {pace}, {:.1} s, load on {}",
        options.connections, options.pipeline, load.measured_s, run.engine
    );
    let mib = load.content_bytes_per_s / f64::from(1 << 20);
    let _ = writeln!(text, "  answers  {:.0}/s, {mib:.1} MiB/s of content", load.answers_per_s);
    let hits = 100.0 * load.hits as f64 / load.answers.max(1) as f64;
    let _ = writeln!(text, "  hits     {hits:.1} %, {} reconnects", load.reconnects);
    let _ = writeln!(text, "  delay    {}", load.delay);
    let _ = writeln!(text, "  errors   {}", errors(run));
    if let Some(server) = &run.server {
        let _ = writeln!(
            text,
            "  server   {:.2} µs of CPU an answer, {:.0} % of a core, {:.1} MiB resident",
            server.cpu_us_per_answer,
            100.0 * server.busy,
            server.rss_bytes as f64 / f64::from(1 << 20)
        );
    }
    print(&text);
}

/// The result of `bench compare`.
pub(crate) fn comparison(options: &CompareOptions, found: &Comparison, machine: &Machine) {
    let mut text = format!(
        "{}: {} rounds of {:.1} s, server on core {}, load on core {}\n{} ({} cores), Linux {}, \
         commit {}\n\n",
        found.case,
        options.rounds,
        options.duration.as_secs_f64(),
        options.server_core,
        options.load_core,
        machine.processor,
        machine.cores,
        machine.kernel,
        machine.commit.as_deref().unwrap_or("unknown"),
    );
    let _ = writeln!(
        text,
        "{:<9}{:>9}{:>16}{:>12}{:>7}{:>10}{:>10}   pharos ÷ this",
        "", "µs CPU", "(min–max)", "a second", "busy", "median ms", "99 % ms"
    );
    for contender in &found.contenders {
        let median = |of: &dyn Fn(&Turn) -> f64| contender.spread(of).map_or(0.0, |of| of.median);
        let Some(cost) = contender.spread(|turn| turn.cpu_us) else { continue };
        let ratio = found.pharos().and_then(|pharos| ratios(pharos, contender));
        let ratio = ratio.map_or(String::new(), |ratio| {
            format!("{:.2} ({:.2}–{:.2})", ratio.median, ratio.min, ratio.max)
        });
        let _ = writeln!(
            text,
            "{:<9}{:>9.2}{:>16}{:>12.0}{:>6.0}%{:>10.3}{:>10.3}   {ratio}",
            contender.who.name(),
            cost.median,
            format!("({:.2}–{:.2})", cost.min, cost.max),
            median(&|turn| turn.per_s),
            100.0 * median(&|turn| turn.busy),
            median(&|turn| turn.p50_us as f64) / 1e3,
            median(&|turn| turn.p99_us as f64) / 1e3,
        );
    }
    text.push('\n');
    for verdict in &found.verdicts {
        let word = if verdict.holds { "holds" } else { "MISSED" };
        let _ = writeln!(
            text,
            "pharos ≤ {} × {}: {:.3} ({:.3}–{:.3}): {word}",
            verdict.ratio_max,
            verdict.against,
            verdict.ratio.median,
            verdict.ratio.min,
            verdict.ratio.max
        );
    }
    print(&text);
}

fn errors(run: &HttpRun) -> String {
    let errors = &run.load.errors;
    if errors.total() == 0 {
        return "none".to_owned();
    }
    let kinds = [
        ("connect", errors.connect),
        ("broken", errors.broken),
        ("cut", errors.cut),
        ("protocol", errors.protocol),
        ("status", errors.status),
        ("length", errors.length),
        ("content", errors.content),
        ("unanswered", errors.unanswered),
    ];
    let kinds = kinds.iter().filter(|(_, count)| *count > 0);
    kinds.map(|(name, count)| format!("{name} {count}")).collect::<Vec<_>>().join(", ")
}
