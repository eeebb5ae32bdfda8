//! `pharos doctor`: what this machine would have to change to carry more, and why.
//!
//! Each check reads one fact, compares it with what [`STREAMS_AIM`] open streams need, and says
//! what to set. Facts that cannot be read are told as unknown, not as wrong.

use std::fs;

use clap::Args;
use dataplane::engine::{EngineChoice, probe};
use rustix::process::{Resource, getrlimit};
use serde_json::{Value, json};

use crate::{
    exit::{Failure, Kind},
    output::{self, Format},
};

#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  pharos doctor

Exit code 0 when all is well, 7 when something would hold this machine back.")]
pub(crate) struct Options {
    /// How to print what was found
    #[arg(short = 'o', long = "output", value_enum, default_value_t = Format::Table)]
    output: Format,
}

/// What one check found.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Finding {
    name: &'static str,
    verdict: Verdict,
    found: String,
    /// What to do and why; empty when all is well.
    advice: String,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Verdict {
    Well,
    Change,
    Unknown,
}

impl Verdict {
    fn word(self) -> &'static str {
        match self {
            Self::Well => "ok",
            Self::Change => "change",
            Self::Unknown => "unknown",
        }
    }
}

/// Looks at everything, prints it, and fails as degraded when something should change.
pub(crate) fn run(options: &Options) -> Result<(), Failure> {
    let findings = [
        engine(),
        kernel(),
        descriptors(),
        files(),
        backlog(),
        tcp_memory(),
        tcp_table(),
        receive_buffers(),
    ];
    match options.output {
        Format::Json => output::json(&findings.iter().map(Finding::json).collect::<Value>())?,
        Format::Table => {
            for finding in &findings {
                output::data(&finding.lines())?;
            }
        }
    }
    let wanting = findings.iter().filter(|finding| finding.verdict == Verdict::Change).count();
    match wanting {
        0 => Ok(()),
        1 => Err(Failure::new(Kind::Degraded, "one thing should change, see above")),
        _ => {
            Err(Failure::new(Kind::Degraded, format!("{wanting} things should change, see above")))
        }
    }
}

impl Finding {
    fn json(&self) -> Value {
        json!({
            "check": self.name,
            "verdict": self.verdict.word(),
            "found": self.found,
            "advice": self.advice,
        })
    }

    fn lines(&self) -> String {
        let mut text = format!("{:<8} {:<18} {}\n", self.verdict.word(), self.name, self.found);
        for line in self.advice.lines() {
            text.push_str(&format!("{:28}{line}\n", ""));
        }
        text
    }
}

fn engine() -> Finding {
    let name = "engine";
    match probe(EngineChoice::IoUring) {
        Ok(taken) => well(name, format!("io_uring, {}", taken.why)),
        Err(error) => change(
            name,
            format!("epoll: {error}"),
            "epoll works, at a higher cost per request. io_uring needs kernel.io_uring_disabled = 0, and \
             in a container a seccomp profile that allows io_uring_setup, io_uring_enter and io_uring_register.",
        ),
    }
}

fn kernel() -> Finding {
    let name = "kernel";
    let Some(release) = read("/proc/sys/kernel/osrelease") else { return unknown(name) };
    judge_kernel(&release)
}

fn judge_kernel(release: &str) -> Finding {
    let name = "kernel";
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(str::parse::<u32>);
    let (Some(Ok(major)), Some(Ok(minor))) = (numbers.next(), numbers.next()) else {
        return unknown(name);
    };
    if (major, minor) >= (6, 1) {
        well(name, release.to_owned())
    } else {
        change(
            name,
            release.to_owned(),
            "Linux 6.1 or newer lets a ring be driven by one thread without interrupts \
             (IORING_SETUP_DEFER_TASKRUN): fewer wake-ups a request.",
        )
    }
}

fn descriptors() -> Finding {
    let name = "open files";
    // An edge raises its soft limit to the hard one by itself.
    let Some(limit) = getrlimit(Resource::Nofile).maximum else {
        return well(name, "unlimited".to_owned());
    };
    judge_at_least(name, limit, STREAMS_AIM, |aim| {
        format!(
            "with direct descriptors a shard's table of sockets may not be larger, so more shards than \
             cores run; without them every stream is a descriptor. systemd: LimitNOFILE={aim}; \
             container: --ulimit nofile={aim}; and fs.nr_open at least as high."
        )
    })
}

/// Direct descriptors count here as well.
fn files() -> Finding {
    judge_sysctl("files in all", "/proc/sys/fs/file-max", STREAMS_AIM, |aim| {
        format!(
            "every socket of the host is one; above it only root gets more. \
             sysctl -w fs.file-max={}",
            aim * 2
        )
    })
}

fn backlog() -> Finding {
    judge_sysctl("accept queue", "/proc/sys/net/core/somaxconn", BACKLOG_AIM, |aim| {
        format!(
            "a spike of new connections overflows the queue and is dropped. \
             sysctl -w net.core.somaxconn={aim}"
        )
    })
}

fn tcp_memory() -> Finding {
    let name = "TCP memory";
    let Some(text) = read("/proc/sys/net/ipv4/tcp_mem") else { return unknown(name) };
    judge_tcp_memory(&text, rustix::param::page_size() as u64)
}

/// `tcp_mem` is "low pressure high" in pages of memory.
fn judge_tcp_memory(text: &str, page_bytes: u64) -> Finding {
    let name = "TCP memory";
    let numbers: Option<Vec<u64>> = text.split_whitespace().map(|n| n.parse().ok()).collect();
    let Some([_, pressure, high]) = numbers.as_deref() else { return unknown(name) };
    let aim = STREAMS_AIM * STREAM_KERNEL_BYTES / page_bytes;
    let found = format!("pressure at {} MiB", pressure.saturating_mul(page_bytes) >> 20);
    if *pressure >= aim {
        return well(name, found);
    }
    let advice = format!(
        "above it the kernel shrinks buffers and drops what comes. For {STREAMS_AIM} streams: \
         sysctl -w net.ipv4.tcp_mem='{} {aim} {}'",
        aim / 2,
        (aim * 2).max(*high),
    );
    change(name, found, &advice)
}

/// `tcp_ehash_entries` is negative in a network namespace that shares the host's table.
fn tcp_table() -> Finding {
    let name = "TCP table";
    let Some(text) = read("/proc/sys/net/ipv4/tcp_ehash_entries") else { return unknown(name) };
    let Ok(entries) = text.parse::<i64>() else { return unknown(name) };
    judge_at_least(name, entries.unsigned_abs(), STREAMS_AIM / 2, |_| {
        format!(
            "above half a million sockets each look-up walks a chain. At boot: thash_entries={}; or a network \
             namespace made under net.ipv4.tcp_child_ehash_entries={0}.",
            STREAMS_AIM.next_power_of_two(),
        )
    })
}

/// `tcp_rmem` is "min default max" in bytes.
fn receive_buffers() -> Finding {
    let name = "receive buffers";
    let Some(text) = read("/proc/sys/net/ipv4/tcp_rmem") else { return unknown(name) };
    let Some(Ok(default)) = text.split_whitespace().nth(1).map(str::parse::<u64>) else {
        return unknown(name);
    };
    let found = format!("{} KiB each by default", default >> 10);
    if default <= RECEIVE_BYTES_MAX {
        return well(name, found);
    }
    change(
        name,
        found,
        "an idle stream needs next to none. sysctl -w net.ipv4.tcp_rmem='4096 131072 6291456'",
    )
}

fn judge_sysctl(
    name: &'static str,
    path: &str,
    aim: u64,
    advice: impl Fn(u64) -> String,
) -> Finding {
    match read(path).and_then(|text| text.parse().ok()) {
        Some(value) => judge_at_least(name, value, aim, advice),
        None => unknown(name),
    }
}

fn judge_at_least(
    name: &'static str,
    value: u64,
    aim: u64,
    advice: impl Fn(u64) -> String,
) -> Finding {
    if value >= aim {
        well(name, value.to_string())
    } else {
        change(name, format!("{value}, for {STREAMS_AIM} streams {aim}"), &advice(aim))
    }
}

fn read(path: &str) -> Option<String> {
    fs::read_to_string(path).ok().map(|text| text.trim().to_owned())
}

fn well(name: &'static str, found: String) -> Finding {
    Finding { name, verdict: Verdict::Well, found, advice: String::new() }
}

fn change(name: &'static str, found: String, advice: &str) -> Finding {
    Finding { name, verdict: Verdict::Change, found, advice: advice.to_owned() }
}

fn unknown(name: &'static str) -> Finding {
    let found = "this kernel does not tell".to_owned();
    Finding { name, verdict: Verdict::Unknown, found, advice: String::new() }
}

/// The load that advice aims at.
const STREAMS_AIM: u64 = 1_000_000;
/// Memory that `tcp_mem` counts for one stream while an event goes out to all: a page of buffers.
const STREAM_KERNEL_BYTES: u64 = 4_096;
/// Length of the accept queue for a spike.
const BACKLOG_AIM: u64 = 4_096;
/// Default receive buffer, at most.
const RECEIVE_BYTES_MAX: u64 = 256 << 10;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernels_are_compared_by_number() {
        for (release, verdict) in [
            ("6.1.0-18-amd64", Verdict::Well),
            ("6.18.44-fc-v657", Verdict::Well),
            ("5.10.0", Verdict::Change),
            ("10.2", Verdict::Well),
            ("next", Verdict::Unknown),
        ] {
            assert_eq!(judge_kernel(release).verdict, verdict, "{release}");
        }
    }

    #[test]
    fn advice_names_what_to_set_and_to_what() {
        let finding = judge_tcp_memory("1000 2000 3000", 4096);
        assert_eq!(finding.verdict, Verdict::Change);
        assert!(finding.advice.contains("tcp_mem='500000 1000000 2000000'"), "{}", finding.advice);
        assert_eq!(judge_tcp_memory("1 1000000 2000000", 4096).verdict, Verdict::Well);
        assert_eq!(judge_tcp_memory("1 2", 4096).verdict, Verdict::Unknown);
        let finding = judge_at_least("x", 5, 6, |aim| format!("set {aim}"));
        assert_eq!(finding.advice, "set 6");
        assert!(finding.lines().starts_with("change   x"));
    }
}
