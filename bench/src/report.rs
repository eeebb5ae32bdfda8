//! Results for people, as text on stdout, and the frame of the JSON documents. Only here does bench
//! print.

use std::fmt::Write as _;

use serde::Serialize;

use crate::{load::HttpRun, options::HttpOptions, process::Machine};

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
