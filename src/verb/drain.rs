//! `pharos edge drain`: asks an edge, at its admin address, to move its streams elsewhere, to serve
//! again, or how far it is.

use std::time::Duration;

use clap::Args;
use serde_json::Value;
use ureq::Agent;

use crate::{
    clock,
    exit::{Failure, Kind},
    limits,
    output::{self, Format},
};

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  pharos edge drain                  /readyz says 503 from now on, streams are moved, requests answered
  pharos edge drain --wait           the same, and come back when no stream is left
  pharos edge drain --status         only say how far it is
  pharos edge drain --undo           ready again; streams that are left stay; also after SIGTERM

The pace is streams.drain_per_s of the edge's edge.toml. A drained edge goes on running: end it with
SIGTERM, which drains by itself where nobody has.")]
pub(crate) struct Options {
    /// Admin address of the edge
    #[arg(long, env = "PHAROS_ADMIN", value_name = "URL", default_value = DEFAULT_ADMIN)]
    admin: String,
    /// Serve again
    #[arg(long, conflicts_with_all = ["status", "wait"])]
    undo: bool,
    /// Change nothing
    #[arg(long)]
    status: bool,
    /// Come back when no stream is left, or the drain is undone
    #[arg(long)]
    wait: bool,
    /// How to print how far it is
    #[arg(short = 'o', long = "output", value_enum, default_value_t = Format::Table)]
    output: Format,
}

/// What is asked.
#[derive(Clone, Copy)]
enum Ask {
    Status,
    Drain,
    Undo,
}

impl Options {
    pub(crate) fn run(self) -> Result<(), Failure> {
        let config = Agent::config_builder()
            .http_status_as_error(false)
            .timeout_connect(Some(limits::CONNECT_AFTER))
            .timeout_global(Some(limits::REQUEST_AFTER))
            .build();
        let agent: Agent = config.into();
        match (self.undo, self.status) {
            (true, _) => self.ask(&agent, Ask::Undo)?,
            (false, true) => Value::Null,
            (false, false) => self.ask(&agent, Ask::Drain)?,
        };
        let mut report = self.ask(&agent, Ask::Status)?;
        // An order takes a turn of every shard to be seen.
        for _ in 0..SEEN_LOOKS_MAX {
            if self.status || report["draining"] == !self.undo {
                break;
            }
            clock::wait(limits::LOOK_EVERY);
            report = self.ask(&agent, Ask::Status)?;
        }
        while self.wait && report["draining"] == true && report["phase"] != "drained" {
            clock::wait(WAIT_EVERY);
            report = self.ask(&agent, Ask::Status)?;
        }
        match self.output {
            Format::Json => output::json(&report)?,
            Format::Table => output::data(&told(&report))?,
        }
        if self.wait && report["draining"] != true {
            return Err(Failure::new(Kind::Conflict, "the drain was undone"));
        }
        Ok(())
    }

    fn ask(&self, agent: &Agent, what: Ask) -> Result<Value, Failure> {
        let url = format!("{}/v1/drain", self.admin.trim_end_matches('/'));
        let unanswered = |error: &ureq::Error| {
            Failure::error(format!("the edge at {} does not answer: {error}", self.admin))
                .remedy("is it running, and is --admin (PHAROS_ADMIN) its admin address?")
        };
        let answer = match what {
            Ask::Status => agent.get(&url).call(),
            Ask::Drain => agent.post(&url).send_empty(),
            Ask::Undo => agent.delete(&url).call(),
        };
        let mut response = answer.map_err(|error| unanswered(&error))?;
        let text = response.body_mut().read_to_string().map_err(|error| unanswered(&error))?;
        match response.status().as_u16() {
            200 | 202 => serde_json::from_str(&text)
                .map_err(|error| Failure::because(format!("{url} answered no JSON"), &error)),
            status => Err(Failure::error(format!("{url} answered {status}: {}", text.trim()))),
        }
    }
}

/// A report for people: one fact a line.
fn told(report: &Value) -> String {
    let mut lines = Vec::new();
    let mut put = |name: &str, text: String| {
        if !text.is_empty() {
            lines.push(format!("{name:<12} {text}\n"));
        }
    };
    put("phase", output::text(report, "/phase"));
    if report["draining"] == true {
        let seconds = |name: &str| report[name].as_f64().map(|ms| format!("{:.1} s", ms / 1000.0));
        put("for", seconds("elapsed_ms").unwrap_or_default());
        put("ends within", seconds("left_ms").unwrap_or_default());
        put("streams", output::text(report, "/streams/at_start"));
        put("moved", output::text(report, "/streams/moved"));
        put("per second", output::text(report, "/streams/per_s"));
    }
    put("left", output::text(report, "/streams/left"));
    put("connections", output::text(report, "/connections"));
    lines.concat()
}

const DEFAULT_ADMIN: &str = "http://127.0.0.1:7401";
/// Looks until an order is seen; then what there is is told.
const SEEN_LOOKS_MAX: u32 = 50;
/// Between two looks of `--wait`.
const WAIT_EVERY: Duration = Duration::from_millis(200);

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_report_is_told_one_fact_a_line() {
        let report = json!({
            "draining": true, "phase": "moving", "ends": true, "elapsed_ms": 2_000,
            "left_ms": 28_000, "connections": 3,
            "streams": {"at_start": 1000, "moved": 200, "left": 790, "per_s": 100},
        });
        let expected = "\
phase        moving
for          2.0 s
ends within  28.0 s
streams      1000
moved        200
per second   100
left         790
connections  3
";
        assert_eq!(told(&report), expected);
        let serving = json!({"draining": false, "phase": "serving", "streams": {"left": 5}});
        assert_eq!(told(&serving), "phase        serving\nleft         5\n");
    }
}
