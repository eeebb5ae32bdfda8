//! Results for people, as text on stdout, and the frame of the JSON documents. Only here does bench
//! print.

use std::fmt::Write as _;

use serde::Serialize;

use crate::{
    compare::{Comparison, IdleMemory, Turn},
    load::HttpRun,
    options::{Case, CompareOptions, HttpOptions},
    process::Machine,
    record::Spread,
    streams::found::SseRun,
    target::Target,
};

/// A JSON result: what was found, and on what.
#[derive(Serialize)]
pub(crate) struct Document<'a, T> {
    /// The command line, to run it again.
    command: Vec<String>,
    machine: &'a Machine,
    result: &'a T,
}

impl<'a, T> Document<'a, T> {
    pub(crate) fn new(machine: &'a Machine, result: &'a T) -> Self {
        Self { command: std::env::args().map(without_secret).collect(), machine, result }
    }
}

/// An argument as it may be kept: a field that proves who asks keeps its name only.
fn without_secret(argument: String) -> String {
    match argument.split_once(':') {
        Some((name, _)) if name.trim().eq_ignore_ascii_case("authorization") => {
            format!("{name}: (left out)")
        }
        _ => argument,
    }
}

/// A line about the machine.
fn machine_text(machine: &Machine) -> String {
    format!(
        "{} ({} cores), Linux {}, commit {}",
        machine.processor,
        machine.cores,
        machine.kernel,
        machine.commit.as_deref().unwrap_or("unknown")
    )
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
pub(crate) fn http(options: &HttpOptions, run: &HttpRun, machine: &Machine) {
    let load = &run.load;
    let mut text = format!("{}\n  machine  {}\n", options.url, machine_text(machine));
    let pace = match options.rate {
        Some(rate) => format!("open loop at {rate}/s"),
        None => "closed loop".to_owned(),
    };
    let _ = writeln!(
        text,
        "  load     {} connections, pipeline {}, {pace}, {:.1} s, on {}",
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

/// What a drawing is of.
pub(crate) fn title(url: &Target, machine: &Machine) -> String {
    format!("{url} · {}", machine_text(machine))
}

/// The result of `bench sse`.
pub(crate) fn sse(url: &Target, run: &SseRun, machine: &Machine) {
    let mut text = format!("{url}\n  machine  {}\n", machine_text(machine));
    let _ = writeln!(
        text,
        "  streams  {} of {} topics open after {:.1} s ({:.0}/s), {} stalled, {} refused, {} lost; \
         {} rings, load on {}",
        run.streams,
        run.topics,
        run.opened_s,
        f64::from(run.streams) / run.opened_s.max(1e-3),
        run.stalled,
        run.refused,
        run.lost,
        run.shards,
        run.engine
    );
    let _ = writeln!(
        text,
        "  events   {} publishes ({} failed), {} deliveries, {} missing, {} unseen, {} skipped, {} twice, \
         {} backward, {} gaps, {} beats",
        run.published,
        run.publish_failed,
        run.deliveries,
        run.missing,
        run.unseen,
        run.faults.skipped,
        run.faults.duplicate,
        run.faults.backward,
        run.gaps,
        run.beats
    );
    if let Some(quiet) = &run.quiet {
        let busy = quiet.busy.map_or(String::new(), |busy| {
            format!(", the server at {:.1} % of a core", 100.0 * busy)
        });
        let _ = writeln!(text, "  idle     {:.0} s, {} beats{busy}", quiet.seconds, quiet.beats);
    }
    let _ = writeln!(text, "  delay    {}", run.delay);
    let _ = writeln!(text, "  sent     {} after it was to be", run.publish_late);
    let last: Vec<f64> = run.events.iter().map(|event| event.last_us as f64 / 1e3).collect();
    if let Some(last) = Spread::of(&last) {
        let _ = writeln!(
            text,
            "  last     of each event after {:.1} ms ({:.1}–{:.1})",
            last.median, last.min, last.max
        );
    }
    if let Some(memory) = &run.memory {
        let kernel = memory.kernel_bytes_per_stream;
        let kernel = kernel.map_or("unknown".to_owned(), |bytes| format!("{bytes:.0}"));
        let _ = writeln!(
            text,
            "  memory   {:.1} bytes a stream in the server's process, {kernel} in the kernel (one \
             end); {:.0} in this one, {:.0} of the machine in all",
            memory.user_bytes_per_stream,
            memory.load_bytes_per_stream,
            memory.machine_bytes_per_stream
        );
    }
    if let Some(fan_out) = &run.fan_out {
        let _ = writeln!(
            text,
            "  server   {:.2} µs of CPU a delivery, {:.0} deliveries/s",
            fan_out.cpu_us_per_delivery, fan_out.deliveries_per_s
        );
    }
    print(&text);
}

/// The result of `bench compare`.
pub(crate) fn comparison(options: &CompareOptions, found: &Comparison, machine: &Machine) {
    let shape = match options.case {
        Case::Sse100k => {
            format!("{} streams, {} events a round", options.streams(), options.publishes)
        }
        _ => format!(
            "{} connections, rounds of {:.1} s",
            options.connections(),
            options.duration.as_secs_f64()
        ),
    };
    let mut text = format!(
        "{}: {} rounds, {shape}, server on core {}, load on core {}\n{}\n\n",
        found.case,
        options.rounds,
        options.server_core,
        options.load_core,
        machine_text(machine)
    );
    let _ = writeln!(
        text,
        "{:<22}{:>9}{:>16}{:>11}{:>6}{:>10}{:>9}{:>9}   pharos ÷ this",
        "", "µs CPU", "(min–max)", "a second", "busy", "median ms", "99 % ms", "99.9 %"
    );
    for contender in &found.contenders {
        let median = |of: &dyn Fn(&Turn) -> f64| contender.spread(of).map_or(0.0, |of| of.median);
        let Some(cost) = contender.spread(|turn| turn.cpu_us) else { continue };
        let ratio = found.ratio(contender).map_or(String::new(), |(ratio, of)| {
            format!("{:.2} ({:.2}–{:.2}) {of}", ratio.median, ratio.min, ratio.max)
        });
        let _ = writeln!(
            text,
            "{:<22}{:>9.2}{:>16}{:>11.0}{:>5.0}%{:>10.3}{:>9.3}{:>9.3}   {ratio}",
            contender.title(),
            cost.median,
            format!("({:.2}–{:.2})", cost.min, cost.max),
            median(&|turn| turn.per_s),
            100.0 * median(&|turn| turn.busy),
            median(&|turn| turn.p50_us as f64) / 1e3,
            median(&|turn| turn.p99_us as f64) / 1e3,
            median(&|turn| turn.p999_us as f64) / 1e3,
        );
    }
    idle_table(&mut text, found);
    streams_table(&mut text, found);
    text.push('\n');
    for contender in &found.contenders {
        let (name, version) = (contender.title(), &contender.version);
        let _ = writeln!(text, "{name:<22}{version}; {}", contender.choice);
    }
    text.push('\n');
    for verdict in &found.verdicts {
        let word = if verdict.holds { "holds" } else { "MISSED" };
        let _ = writeln!(
            text,
            "{} ≤ {}: {:.3} ({:.3}–{:.3}): {word}",
            verdict.what,
            verdict.ratio_max,
            verdict.ratio.median,
            verdict.ratio.min,
            verdict.ratio.max
        );
    }
    print(&text);
}

/// What idle connections of each server took, if that was the case.
fn idle_table(text: &mut String, found: &Comparison) {
    let mut begun = false;
    for contender in &found.contenders {
        let idle = |of: &dyn Fn(IdleMemory) -> Option<f64>| {
            let turns = contender.turns.iter().filter_map(|turn| of(turn.idle?));
            Spread::of(&turns.collect::<Vec<_>>())
        };
        let Some(user) = idle(&|idle| Some(idle.user_bytes)) else { continue };
        if !begun {
            begun = true;
            let head = ("bytes/connection", "(min–max)", "kernel (one end)");
            let _ = writeln!(text, "\n{:<22}{:>18}{:>18}{:>18}", "", head.0, head.1, head.2);
        }
        let kernel = idle(&|idle| idle.kernel_bytes);
        let kernel = kernel.map_or("–".to_owned(), |kernel| format!("{:.0}", kernel.median));
        let range = format!("({:.0}–{:.0})", user.min, user.max);
        let name = contender.title();
        let _ = writeln!(text, "{name:<22}{:>18.0}{range:>18}{kernel:>18}", user.median);
    }
}

/// What the streams of each server took, if there were any.
fn streams_table(text: &mut String, found: &Comparison) {
    let mut begun = false;
    for contender in &found.contenders {
        let runs: Vec<&SseRun> =
            contender.turns.iter().filter_map(|turn| turn.streams.as_ref()).collect();
        let spread = |of: &dyn Fn(&SseRun) -> Option<f64>| {
            Spread::of(&runs.iter().filter_map(|run| of(run)).collect::<Vec<_>>())
        };
        let memory = |run: &SseRun| run.memory.clone();
        let Some(user) = spread(&|run| Some(memory(run)?.user_bytes_per_stream)) else { continue };
        let kernel = spread(&|run| memory(run)?.kernel_bytes_per_stream);
        let last = spread(&|run| Some(run.events.iter().map(|event| event.last_us).max()? as f64));
        let opened = spread(&|run| Some(f64::from(run.streams) / run.opened_s.max(1e-3)));
        if !begun {
            begun = true;
            let _ = writeln!(
                text,
                "\n{:<9}{:>14}{:>18}{:>18}{:>16}{:>12}",
                "", "bytes/stream", "(min–max)", "kernel (one end)", "last of all ms", "opened/s"
            );
        }
        let or_none = |spread: Option<Spread>, scale: f64| {
            spread.map_or("–".to_owned(), |spread| format!("{:.0}", spread.median / scale))
        };
        let _ = writeln!(
            text,
            "{:<9}{:>14.1}{:>18}{:>18}{:>16}{:>12}",
            contender.who.name(),
            user.median,
            format!("({:.1}–{:.1})", user.min, user.max),
            or_none(kernel, 1.0),
            or_none(last, 1e3),
            or_none(opened, 1.0)
        );
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_not_kept_with_the_command() {
        let kept = without_secret("Authorization: Bearer pharos_x".to_owned());
        assert_eq!(kept, "Authorization: (left out)");
        assert_eq!(without_secret("Host: a".to_owned()), "Host: a");
    }
}
