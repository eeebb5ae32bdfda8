//! `pharos edge drain`: asks an edge, at its admin address, to move its streams elsewhere, to serve
//! again, or how far it is.

use std::time::Duration;

use clap::Args;
use serde_json::Value;

use crate::{
    admin::{Admin, DEFAULT_ADMIN, Method},
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

impl Options {
    pub(crate) fn run(self) -> Result<(), Failure> {
        let admin = Admin::at(&self.admin);
        let ask = |method| {
            let report = admin.ask(method, "/v1/drain")?;
            report
                .ok_or_else(|| Failure::error(format!("{} is no edge's admin address", self.admin)))
        };
        match (self.undo, self.status) {
            (true, _) => ask(Method::Delete)?,
            (false, true) => Value::Null,
            (false, false) => ask(Method::Post)?,
        };
        let mut report = ask(Method::Get)?;
        // An order takes a turn of every shard to be seen.
        for _ in 0..SEEN_LOOKS_MAX {
            if self.status || report["draining"] == !self.undo {
                break;
            }
            clock::wait(limits::LOOK_EVERY);
            report = ask(Method::Get)?;
        }
        while self.wait && report["draining"] == true && report["phase"] != "drained" {
            clock::wait(WAIT_EVERY);
            report = ask(Method::Get)?;
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
