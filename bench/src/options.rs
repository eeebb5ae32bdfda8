//! The command line of the bench role: what each command takes, in types.

use std::{net::SocketAddr, path::PathBuf, str::FromStr, time::Duration};

use clap::{Args, Subcommand, ValueEnum};

use crate::target::Target;

/// What the bench role can do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Load one URL with requests and report delays, errors and the server's CPU time
    Http(HttpOptions),
    /// Hold many event streams, check their order, and report delays and bytes per stream
    Sse(SseOptions),
    /// Answer as a synthetic origin: /bytes/<n>?delay_ms=&max_age=…, counts at /_counts
    Origin(OriginOptions),
    /// Run a named case against Pharos, a bare ring loop and other servers, side by side
    Compare(CompareOptions),
    /// Serve one fixed answer from a bare io_uring loop: what the kernel alone costs
    #[command(hide = true)]
    Floor(FloorOptions),
}

/// Options of `bench http`.
#[derive(Clone, Debug, Args)]
pub struct HttpOptions {
    /// What to request; host must be an address
    #[arg(long)]
    pub url: Target,
    /// Connections kept open
    #[arg(long, default_value_t = 64)]
    pub connections: u32,
    /// Requests per second in total (open loop); without it, each answer starts the next request
    #[arg(long)]
    pub rate: Option<f64>,
    /// How long to measure, for example 5s or 500ms
    #[arg(long, default_value = "5s", value_parser = parse_duration)]
    pub duration: Duration,
    /// How long to load before measuring
    #[arg(long, default_value = "1s", value_parser = parse_duration)]
    pub warm_up: Duration,
    /// Requests that leave together on a connection, the next ones when all are answered (with
    /// --rate: outstanding at most)
    #[arg(long, default_value_t = 1)]
    pub pipeline: u32,
    /// Paths /0 … /N-1 are appended to the URL's path, chosen by popularity
    #[arg(long, default_value_t = 1)]
    pub paths: u32,
    /// Exponent of the Zipf popularity of --paths; 0 is uniform
    #[arg(long, default_value_t = 1.0)]
    pub zipf: f64,
    /// A further field line of each request, as "Name: value"
    #[arg(long = "field")]
    pub fields: Vec<String>,
    /// How bodies are checked
    #[arg(long, value_enum, default_value_t = BodyCheck::Same)]
    pub check: BodyCheck,
    /// Seed of everything drawn
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// Measure the CPU time and memory of this server process and its children
    #[arg(long)]
    pub pid: Option<u32>,
    /// Core for the load; not pinned without
    #[arg(long)]
    pub core: Option<usize>,
    /// Which engine drives the load
    #[arg(long, value_enum, default_value_t = EngineChoice::Auto)]
    pub engine: EngineChoice,
    /// Allow targets in private networks
    #[arg(long)]
    pub allow_private: bool,
    /// Write the result as JSON
    #[arg(long)]
    pub json: Option<PathBuf>,
}

/// Options of `bench sse`.
#[derive(Clone, Debug, Args)]
#[command(after_long_help = SSE_HELP)]
pub struct SseOptions {
    /// Which stream to open; host must be an address; {t} in it is replaced by the number of the
    /// stream's topic
    #[arg(long)]
    pub url: Target,
    /// A further field line of the request for a stream, as "Name: value"
    #[arg(long = "field")]
    pub fields: Vec<String>,
    /// Streams to hold
    #[arg(long, default_value_t = 1_000)]
    pub streams: u32,
    /// Topics that the streams are spread over evenly, numbered from 0
    #[arg(long, default_value_t = 1)]
    pub topics: u32,
    /// Source addresses 127.0.0.2 and on; one reaches a server port some 28,000 times, the first
    /// few thousand of them fast; default one for every 2,000 streams
    #[arg(long)]
    pub sources: Option<u32>,
    /// Streams to open a second; without it as fast as the server takes them
    #[arg(long)]
    pub ramp: Option<f64>,
    /// How long to hold all of them before the first event: heartbeats, and what that costs
    #[arg(long, default_value = "0s", value_parser = parse_duration)]
    pub idle: Duration,
    /// How long to hold them from the first event on
    #[arg(long, default_value = "10s", value_parser = parse_duration)]
    pub duration: Duration,
    /// When the streams read what they are told, heartbeats of --idle too
    #[arg(long, value_enum, default_value_t = ReadWhen::AtOnce)]
    pub read: ReadWhen,
    /// Every so many-th stream stops reading once it is open; 0 is none
    #[arg(long, default_value_t = 0)]
    pub stall_every: u32,
    /// Rings to spread the streams over; default as many as the descriptor limit demands
    #[arg(long)]
    pub shards: Option<u16>,
    /// Streams being opened at a time, per shard
    #[arg(long, default_value_t = 256)]
    pub opening: u32,
    /// POST here to publish an event, at once when all streams are open, then every
    /// --publish-every; {t} in it is replaced by the number of the topic, each in its turn
    #[arg(long)]
    pub publish: Option<Target>,
    /// Body of each publish; {n} is replaced by its number, {t} by that of its topic. Delays count
    /// from when an event was to be sent if its data begins with {"n":{n}
    #[arg(long, default_value = "{\"n\":{n}}")]
    pub publish_body: String,
    /// A further field line of each publish, as "Name: value"
    #[arg(long = "publish-field")]
    pub publish_fields: Vec<String>,
    /// Time between publishes
    #[arg(long, default_value = "2s", value_parser = parse_duration)]
    pub publish_every: Duration,
    /// Publishes a second, instead of --publish-every
    #[arg(long, conflicts_with = "publish_every")]
    pub publish_rate: Option<f64>,
    /// Connections to publish over: as many publishes can be under way
    #[arg(long, default_value_t = 1)]
    pub publish_lines: u32,
    /// Publishes in total; default as many as fit the duration
    #[arg(long)]
    pub publishes: Option<u32>,
    /// Measure the CPU time and memory of this server process and its children
    #[arg(long)]
    pub pid: Option<u32>,
    /// Core for the load; not pinned without
    #[arg(long)]
    pub core: Option<usize>,
    /// Which engine drives the load
    #[arg(long, value_enum, default_value_t = EngineChoice::Auto)]
    pub engine: EngineChoice,
    /// Allow targets in private networks
    #[arg(long)]
    pub allow_private: bool,
    /// Write the result as JSON
    #[arg(long)]
    pub json: Option<PathBuf>,
    /// Draw the run: <PLOT>.html and <PLOT>.png
    #[arg(long)]
    pub plot: Option<PathBuf>,
}

const SSE_HELP: &str = "\
A million streams, an hour of silence, then an event every ten seconds; `pharos doctor` says what
the host needs, and docs/measurements.md how the edge is set up:
  pharos bench sse --url http://127.0.0.1:8080/live/t0 --field 'Host: live.example' \\
      --streams 1000000 --ramp 10000 --idle 1h --duration 60s --publish-every 10s \\
      --publish http://127.0.0.1:7400/v1/topics/t0/events --publish-field \"Authorization: Bearer $KEY\" \\
      --publish-body '{\"data\":{\"n\":{n}}}' --pid $(pgrep -f 'pharos edge') --plot /tmp/million

Rings are threads of this process: with io_uring each has a table of direct descriptors as large as
RLIMIT_NOFILE, so a million streams need no more of it than 20,000.";

/// Options of `bench origin`.
#[derive(Clone, Debug, Args)]
pub struct OriginOptions {
    /// Where to listen
    #[arg(long, default_value = "127.0.0.1:9000")]
    pub listen: SocketAddr,
    /// Core to run on; not pinned without
    #[arg(long)]
    pub core: Option<usize>,
    /// Which engine drives it
    #[arg(long, value_enum, default_value_t = EngineChoice::Auto)]
    pub engine: EngineChoice,
}

/// Options of the bare loop that `bench compare` starts.
#[derive(Clone, Debug, Args)]
pub struct FloorOptions {
    /// Where to listen
    #[arg(long)]
    pub listen: SocketAddr,
    /// File with the whole answer, head and body, sent for each request
    #[arg(long)]
    pub answer: PathBuf,
    /// Instead of answering requests: hold each connection as a stream, and send the body of each
    /// POST to all
    #[arg(long)]
    pub fanout: bool,
    /// Rings, each with its own thread and table of descriptors
    #[arg(long, default_value_t = 1)]
    pub shards: u16,
}

/// Options of `bench compare`.
#[derive(Clone, Debug, Args)]
pub struct CompareOptions {
    /// What to compare
    #[arg(value_enum)]
    pub case: Case,
    /// Peers beside Pharos and the floor; default all that the case knows
    #[arg(long, value_enum, value_delimiter = ',')]
    pub against: Vec<Opponent>,
    /// Fail unless Pharos costs at most this share of a peer, for example nginx=0.6; may be
    /// repeated
    #[arg(long = "at-most", value_delimiter = ',')]
    pub at_most: Vec<Bound>,
    /// Fail unless a stream or idle connection costs Pharos's process at most this many bytes
    #[arg(long)]
    pub bytes_at_most: Option<f64>,
    /// Fail unless every later row of Pharos costs at most this many times its first (hit-far,
    /// hit-1m)
    #[arg(long)]
    pub rows_at_most: Option<f64>,
    /// Rounds; in each every server has its turn
    #[arg(long, default_value_t = 5)]
    pub rounds: u32,
    /// Length of one turn
    #[arg(long, default_value = "5s", value_parser = parse_duration)]
    pub duration: Duration,
    /// Load before each turn that is not measured
    #[arg(long, default_value = "1s", value_parser = parse_duration)]
    pub warm_up: Duration,
    /// Connections of the load; default 64, of idle-8k 8,000
    #[arg(long)]
    pub connections: Option<u32>,
    /// Streams of the sse cases; default 100,000 of sse-100k, 100 a topic of sse-topics, 20,000 of
    /// sse-beside, 500 of sse-slow
    #[arg(long)]
    pub streams: Option<u32>,
    /// Topics of sse-topics
    #[arg(long, default_value_t = 100)]
    pub topics: u32,
    /// Events a second of sse-topics, requests a second of sse-beside and purge
    #[arg(long, default_value_t = 1_000.0)]
    pub rate: f64,
    /// Events of each turn of the sse cases
    #[arg(long, default_value_t = 3)]
    pub publishes: u32,
    /// When the streams of sse-100k read an event
    #[arg(long, value_enum, default_value_t = ReadWhen::AtOnce)]
    pub read: ReadWhen,
    /// Core of the server under test
    #[arg(long, default_value_t = 0)]
    pub server_core: usize,
    /// Core of the load and of the origin
    #[arg(long, default_value_t = 1)]
    pub load_core: usize,
    /// The pharos program; default this one
    #[arg(long)]
    pub pharos: Option<PathBuf>,
    /// Engine of the Pharos under test
    #[arg(long, value_enum, default_value_t = EngineChoice::Auto)]
    pub engine: EngineChoice,
    /// Engine of the load
    #[arg(long, value_enum, default_value_t = EngineChoice::Auto)]
    pub load_engine: EngineChoice,
    /// Leave Pharos out: only peers and floor
    #[arg(long)]
    pub without_pharos: bool,
    /// Keep the peers' configuration files
    #[arg(long)]
    pub keep: bool,
    /// Write the result as JSON
    #[arg(long)]
    pub json: Option<PathBuf>,
}

/// Named comparisons.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub enum Case {
    /// 1 KiB from a warm cache, one request at a time on each connection
    #[value(name = "hit-1k")]
    Hit1k,
    /// The same with 16 requests outstanding on each connection
    #[value(name = "hit-1k-pipelined")]
    Hit1kPipelined,
    /// 100 KiB from a warm cache: one object, then 512 in turn
    #[value(name = "hit-100k")]
    Hit100k,
    /// 1 KiB from a warm cache at 25, 50 and 80 % of what each server can do: delays, open loop
    #[value(name = "hit-1k-paced")]
    Hit1kPaced,
    /// 1 KiB that nobody asked for before: each is fetched and stored
    #[value(name = "miss")]
    Miss,
    /// 1 KiB that may not be stored: each request goes to the origin
    #[value(name = "pass")]
    Pass,
    /// 1 KiB from a warm cache, each request on a connection of its own
    #[value(name = "connect")]
    Connect,
    /// Bytes of each of 8,000 connections that wait for their next request
    #[value(name = "idle-8k")]
    Idle8k,
    /// From starting the program to its first hit of 1 KiB
    #[value(name = "restart-1k")]
    Restart1k,
    /// Pharos with two shards: a hundred times the near table, beside one object
    #[value(name = "hit-far")]
    HitFar,
    /// Pharos with a million entries, beside a thousand
    #[value(name = "hit-1m")]
    Hit1m,
    /// Hits at a fixed rate while 100,000 other entries are purged by their one surrogate key:
    /// receipt within a second, 99 % of delays at most doubled, memory returned
    #[value(name = "purge")]
    Purge,
    /// Many idle streams, then events to all of them
    #[value(name = "sse-100k")]
    Sse100k,
    /// Many topics with some streams each, events at a rate: delays from the intended publish
    #[value(name = "sse-topics")]
    SseTopics,
    /// 1 KiB from a warm cache while streams are silent, and while events go out to all of them
    #[value(name = "sse-beside")]
    SseBeside,
    /// Streams of which one in a hundred stops reading, by each policy, and none as a measure
    #[value(name = "sse-slow")]
    SseSlow,
}

/// Who can be compared with.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, ValueEnum)]
pub enum Opponent {
    /// The bare ring loop
    Floor,
    /// nginx with proxy_cache
    Nginx,
    /// HAProxy with its cache
    Haproxy,
    /// Varnish with malloc storage
    Varnish,
    /// nginx with nchan, for streams
    Nchan,
}

/// How response bodies are checked.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub enum BodyCheck {
    /// All bodies of a path are the bytes of its first one
    Same,
    /// Bodies are those of `bench origin` for /bytes/<n>
    Origin,
    /// Only that the framing is complete
    Framing,
}

/// Which engine drives an actor.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, ValueEnum)]
pub enum EngineChoice {
    /// Decided by the start-up probe
    #[default]
    Auto,
    /// io_uring, or fail
    #[value(name = "io_uring")]
    IoUring,
    /// epoll
    Epoll,
}

/// When streams read what they are told.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, ValueEnum)]
pub enum ReadWhen {
    /// As it comes: the server's cost has the other ends' wake-ups in it
    #[default]
    AtOnce,
    /// Not before the server is through with it: its cost alone; delays mean nothing then
    Later,
}

/// Pharos's cost divided by a peer's cost may be this much.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Bound {
    /// Divided by whose cost.
    pub opponent: Opponent,
    /// Positive.
    pub ratio_max: f64,
}

impl CompareOptions {
    /// Streams of sse-100k.
    pub(crate) fn streams(&self) -> u32 {
        self.streams.unwrap_or(100_000)
    }

    /// Connections of the load.
    pub(crate) fn connections(&self) -> u32 {
        let usual = if self.case == Case::Idle8k { 8_000 } else { 64 };
        self.connections.unwrap_or(usual)
    }
}

impl FromStr for Bound {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let expected = || format!("expected <peer>=<ratio>, for example nginx=0.6, found {text:?}");
        let (name, ratio) = text.split_once('=').ok_or_else(expected)?;
        let opponent = Opponent::from_str(name, true).map_err(|_| expected())?;
        let ratio_max: f64 = ratio.parse().map_err(|_| expected())?;
        if !(ratio_max.is_finite() && ratio_max > 0.0) {
            return Err(expected());
        }
        Ok(Self { opponent, ratio_max })
    }
}

/// A whole number and a unit: `ms`, `s`, `m` or `h`.
fn parse_duration(text: &str) -> Result<Duration, String> {
    let expected = || format!("expected a number and ms, s, m or h, found {text:?}");
    let digits = text.find(|c: char| !c.is_ascii_digit()).ok_or_else(expected)?;
    let count: u64 = text[..digits].parse().map_err(|_| expected())?;
    let unit_ms = match &text[digits..] {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        _ => return Err(expected()),
    };
    count.checked_mul(unit_ms).map(Duration::from_millis).ok_or_else(expected)
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Cli {
        #[command(subcommand)]
        command: Command,
    }

    #[test]
    fn durations_carry_their_unit() {
        assert_eq!(parse_duration("250ms"), Ok(Duration::from_millis(250)));
        assert_eq!(parse_duration("2m"), Ok(Duration::from_secs(120)));
        for bad in ["5", "s", "-1s", "1.5s", "99999999999999999h"] {
            assert!(parse_duration(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn bounds_name_a_peer_and_a_positive_ratio() {
        let bound: Bound = "nginx=0.6".parse().expect("bound");
        assert_eq!((bound.opponent, bound.ratio_max), (Opponent::Nginx, 0.6));
        for bad in ["nginx", "apache=1", "nginx=0", "nginx=NaN"] {
            assert!(bad.parse::<Bound>().is_err(), "{bad}");
        }
    }

    #[test]
    fn the_commands_of_the_contract_parse() {
        let check = |line: &str| {
            Cli::try_parse_from(line.split(' ')).expect(line);
        };
        check(
            "x http --url http://127.0.0.1:1/ --connections 8 --rate 2000 --duration 1s --pipeline 4 --pid 1 --json /tmp/x",
        );
        check(
            "x sse --url http://127.0.0.1:1/demo/events --streams 10 --sources 2 --duration 1s --json /tmp/x",
        );
        check("x origin --listen 127.0.0.1:9000");
        check(
            "x compare hit-1k --against nginx,haproxy,varnish,nchan --at-most nginx=0.6,haproxy=0.8",
        );
    }
}
