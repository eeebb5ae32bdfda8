//! `edge.toml`: what an edge is told before it talks to anyone.
//!
//! Flag beats environment beats file: the command line fills [`Overrides`], clap having taken the
//! environment into account. Unknown keys are errors, with file, line and what was expected there:
//! a misspelt limit that is silently ignored is an outage later. Secrets come from files.
//!
//! Leaves to others: reading signals and flags (the binary), what a site may say
//! (`proto::feed::site`).

use std::{
    fmt, fs,
    net::{IpAddr, SocketAddr},
    path::{Path, PathBuf},
};

use proto::feed::site::{Placement, Policy, Site};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::{
    engine::{EngineChoice, Target},
    limits,
    shard::opening::Rates,
};

mod compression;

pub use compression::Compression;

/// The whole of `edge.toml`.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The edge's name, `[a-z0-9-]{1,63}`; in `Via` and in reports to control.
    #[serde(default = "default_id")]
    pub id: String,
    /// The PoP that it stands in.
    #[serde(default = "default_pop")]
    pub pop: String,
    /// Its own name, by which visitors reach this edge and no other, `http[s]://host[:port]`:
    /// streams may be led to it. None are without one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    /// Addresses for visitors.
    #[serde(default = "default_listen", deserialize_with = "address_text::several")]
    pub listen: Vec<SocketAddr>,
    /// Address for `/livez`, `/readyz`, `/metrics`, `/v1/status`, `/v1/drain`; never sites.
    #[serde(default = "default_admin", deserialize_with = "address_text::one")]
    pub admin: SocketAddr,
    /// Folder for the last known configuration and pages; without one nothing survives a restart.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data: Option<PathBuf>,
    /// Threads; 0 is one for each core.
    #[serde(default)]
    pub shards: u16,
    /// `auto`, `io_uring` or `epoll`.
    #[serde(default, with = "engine_text")]
    pub engine: EngineChoice,
    /// Allows plain text beyond loopback, on listeners and toward control.
    #[serde(default)]
    pub allow_plaintext: bool,
    /// Control, if this edge has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub control: Option<Control>,
    /// Other edges may follow this one, if they may.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub relay: Option<Relay>,
    /// The cache.
    #[serde(default)]
    pub cache: Cache,
    /// Stored responses in content codings.
    #[serde(default)]
    pub compression: Compression,
    /// Live streams.
    #[serde(default)]
    pub streams: Streams,
    /// What is kept of answers, to explain them.
    #[serde(default)]
    pub explain: Explain,
    /// What one peer may have.
    #[serde(default)]
    pub limits: Limits,
    /// Who origins are told that the client is.
    #[serde(default)]
    pub forward: Forward,
    /// What is waited for, and how long.
    #[serde(default)]
    pub timeouts: Timeouts,
    /// What is logged, and where.
    #[serde(default)]
    pub log: Log,
    /// Sites of an edge without control.
    #[serde(default, rename = "site", skip_serializing_if = "Vec::is_empty")]
    pub sites: Vec<Site>,
}

/// How to reach control.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Control {
    /// `http://host[:port]`.
    pub url: String,
    /// File that holds an API key of scope `edge`.
    pub key_file: PathBuf,
    /// Edges that relay control's feed, followed before control and in this order:
    /// `http://host[:port]` of their `[relay]`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub via: Vec<String>,
    /// File that holds the key of their `[relay]`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub via_key_file: Option<PathBuf>,
}

/// Lets other edges follow this one instead of control.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Relay {
    /// Address for other edges.
    #[serde(deserialize_with = "address_text::one")]
    pub listen: SocketAddr,
    /// File that holds the key that they must have: one line of visible ASCII.
    pub key_file: PathBuf,
    /// How many may follow at a time.
    #[serde(default = "default_children_max")]
    pub children_max: u32,
    /// For how many topics each of them may ask instead of being told all; 0 tells all.
    #[serde(default = "default_topics_max")]
    pub topics_max: u32,
}

/// The cache's share of memory.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Cache {
    /// Bytes of stored heads and bodies, of all shards together; `"512MiB"` or a number.
    #[serde(serialize_with = "write_size", deserialize_with = "read_size")]
    pub memory: u64,
    /// Response fields whose directives count for this edge before `Cache-Control` and `Expires`,
    /// most specific first (RFC 9213); none for none.
    pub targets: Vec<String>,
}

/// What is kept of answers, and who is told how one came about.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Explain {
    /// Bytes of records, of all shards together; `"8MiB"` or a number. Half of them are for hits. 0
    /// keeps none.
    #[serde(serialize_with = "write_size", deserialize_with = "read_size")]
    pub memory: u64,
    /// Whether every answer carries `Pharos-Explain`: it tells visitors of origins and rules.
    pub debug: bool,
    /// SHA-256 of a key, 64 hexadecimal digits: who sends the key as `Pharos-Debug` is told.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub debug_key_sha256: Option<String>,
}

/// Who origins are told that the client is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Forward {
    /// Whether `X-Forwarded-For` is extended and `-Proto` and `-Host` are sent; if not, none of
    /// them reaches an origin.
    pub x_forwarded: bool,
    /// Whether `Forwarded` (RFC 7239) is extended; if not, it does not reach an origin.
    pub forwarded: bool,
    /// What visitors speak to this edge, or to what stands in front of it. Said here and never
    /// taken from a request: one cache key has one answer.
    pub proto: Scheme,
}

/// What visitors speak.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Scheme {
    /// Plain HTTP.
    #[default]
    Http,
    /// TLS, ended by a proxy in front.
    Https,
}

impl Scheme {
    /// As in a URL.
    pub fn word(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
        }
    }
}

/// Live streams' share.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Streams {
    /// Most streams of the process; beyond, a stream is refused in a way that lets it come back.
    /// Where one shard a core has no room for them, more shards are started. 0 is as many as there
    /// is room for.
    pub max: u32,
    /// Streams that may open a second, of all shards together; beyond, a stream is refused and told
    /// when there will be room. 0 is no bound.
    pub opens_per_s: u32,
    /// Streams that a drain moves elsewhere a second, of all shards together. 0 spreads them over
    /// three quarters of `timeouts.drain_ms`.
    pub drain_per_s: u32,
    /// Which edge streams of status pages are on: `relay`, the one that the visitor has come to, or
    /// `redirect`, the one that the placement circle prefers.
    pub pages: Placement,
    /// Over which time streams are moved that another edge is preferred for since the circle has
    /// changed, ms.
    pub move_over_ms: u64,
}

impl Default for Streams {
    fn default() -> Self {
        Self {
            max: 0,
            opens_per_s: 0,
            drain_per_s: 0,
            pages: Placement::Relay,
            move_over_ms: limits::MOVE_OVER_MS,
        }
    }
}

impl Streams {
    /// How fast streams may open and are moved.
    pub fn rates(&self) -> Rates {
        let Self { opens_per_s, drain_per_s, move_over_ms, .. } = *self;
        Rates { opens_per_s, drain_per_s, move_over_ms }
    }
}

/// What one peer may have.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// Connections of one peer address (an IPv6 /64) on one shard, loopback excepted; 0 for no
    /// limit, as behind a load balancer that shows its own address. Beyond: the new connection is
    /// reset.
    pub connections_per_peer: u32,
    /// Bytes held of requests that are not through, of all shards together; `"256MiB"` or a number.
    #[serde(serialize_with = "write_size", deserialize_with = "read_size")]
    pub request_memory: u64,
}

/// What is logged, and where.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Log {
    /// What is told on stderr; `PHAROS_LOG` wins.
    pub level: Level,
    /// `"stderr"` or a file: a line of JSON for each request. Without it none are logged.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub access: Option<PathBuf>,
}

/// How much is told.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// What needs someone now.
    Error,
    /// And what will.
    Warn,
    /// And what one would like to know afterwards.
    #[default]
    Info,
    /// And what explains it.
    Debug,
    /// Everything.
    Trace,
}

impl Level {
    /// The word in the file.
    pub fn word(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warn => "warn",
            Self::Info => "info",
            Self::Debug => "debug",
            Self::Trace => "trace",
        }
    }
}

impl Log {
    /// Where requests are logged.
    pub fn access_target(&self) -> Option<Target> {
        self.access.as_ref().map(|path| match path.as_os_str() == STDERR {
            true => Target::Stderr,
            false => Target::File(path.clone()),
        })
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections_per_peer: limits::CONNECTIONS_PER_PEER,
            request_memory: limits::REQUEST_MEMORY,
        }
    }
}

/// Waits, in milliseconds.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Timeouts {
    /// A request head, from its first byte; also the first byte on a new connection.
    pub request_head_ms: u64,
    /// Between two pieces of a request body, or of an answer that the client takes.
    pub transfer_ms: u64,
    /// An idle kept-alive connection.
    pub keep_alive_ms: u64,
    /// A connection to an origin.
    pub connect_ms: u64,
    /// A response head, from the end of the request.
    pub origin_head_ms: u64,
    /// Between two pieces of a response body.
    pub origin_body_ms: u64,
    /// An idle connection to an origin.
    pub origin_idle_ms: u64,
    /// A drain, as a whole.
    pub drain_ms: u64,
    /// From a drain's beginning, when `/readyz` says so, until anything else of it happens.
    pub drain_notice_ms: u64,
    /// Longest silence on a live stream: then comes an `event: beat`.
    pub beat_ms: u64,
}

impl Timeouts {
    fn check(&self) -> Result<(), ConfigError> {
        for (key, value) in [
            ("request_head_ms", self.request_head_ms),
            ("transfer_ms", self.transfer_ms),
            ("keep_alive_ms", self.keep_alive_ms),
            ("connect_ms", self.connect_ms),
            ("origin_head_ms", self.origin_head_ms),
            ("origin_body_ms", self.origin_body_ms),
            ("origin_idle_ms", self.origin_idle_ms),
            ("drain_ms", self.drain_ms),
            ("beat_ms", self.beat_ms),
        ] {
            if !(1..=TIMEOUT_MS_MAX).contains(&value) {
                return refuse(
                    format!("timeouts.{key}"),
                    format!("{value}: 1 to {TIMEOUT_MS_MAX}"),
                );
            }
        }
        if self.drain_notice_ms >= self.drain_ms {
            let expected = format!("{}: less than timeouts.drain_ms", self.drain_notice_ms);
            return refuse("timeouts.drain_notice_ms", expected);
        }
        Ok(())
    }
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            request_head_ms: 10_000,
            transfer_ms: 20_000,
            keep_alive_ms: 65_000,
            connect_ms: 3_000,
            origin_head_ms: 5_000,
            origin_body_ms: 15_000,
            origin_idle_ms: 20_000,
            drain_ms: 30_000,
            drain_notice_ms: 0,
            beat_ms: limits::BEAT_MS,
        }
    }
}

impl Default for Cache {
    fn default() -> Self {
        Self { memory: 256 << 20, targets: vec!["CDN-Cache-Control".to_owned()] }
    }
}

impl Default for Explain {
    fn default() -> Self {
        Self { memory: 8 << 20, debug: false, debug_key_sha256: None }
    }
}

impl Default for Forward {
    fn default() -> Self {
        Self { x_forwarded: true, forwarded: true, proto: Scheme::Http }
    }
}

impl Default for Config {
    fn default() -> Self {
        toml::from_str("").expect("every key has a default")
    }
}

/// What the command line and the environment say; each replaces the file's value.
#[derive(Clone, Debug, Default)]
pub struct Overrides {
    /// Replaces `listen`, when not empty.
    pub listen: Vec<SocketAddr>,
    /// Replaces `admin`.
    pub admin: Option<SocketAddr>,
    /// Replaces `data`.
    pub data: Option<PathBuf>,
    /// Replaces `shards`.
    pub shards: Option<u16>,
    /// Replaces `engine`.
    pub engine: Option<EngineChoice>,
    /// Replaces `control.url`, where there is control.
    pub control_url: Option<String>,
    /// Sets `allow_plaintext`.
    pub allow_plaintext: bool,
}

/// Why a configuration was refused. Its text names the file and line where there is one.
#[derive(Debug)]
pub enum ConfigError {
    /// The file could not be read.
    Read {
        /// Which.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// It is not the TOML that was expected.
    Parse {
        /// Which file.
        path: PathBuf,
        /// Counts from 1.
        line: usize,
        /// What was found and what was expected.
        message: String,
    },
    /// Each value is right, all together are not.
    Refused {
        /// The key at fault.
        key: String,
        /// What was expected.
        expected: String,
    },
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Read { path, .. } => write!(f, "reading {}", path.display()),
            Self::Parse { path, line, message } => {
                write!(f, "{}:{line}: {message}", path.display())
            }
            Self::Refused { key, expected } => write!(f, "{key}: {expected}"),
        }
    }
}

impl std::error::Error for ConfigError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Read { source, .. } => Some(source),
            Self::Parse { .. } | Self::Refused { .. } => None,
        }
    }
}

impl Config {
    /// Reads and checks a file. Relative paths in it are relative to its folder.
    pub fn load(path: &Path, overrides: &Overrides) -> Result<Self, ConfigError> {
        let text = fs::read_to_string(path)
            .map_err(|source| ConfigError::Read { path: path.to_owned(), source })?;
        let mut config = Self::parse(path, &text)?;
        let folder = path.parent().unwrap_or(Path::new(""));
        if let Some(control) = &mut config.control {
            control.key_file = folder.join(&control.key_file);
            control.via_key_file = control.via_key_file.take().map(|file| folder.join(file));
        }
        if let Some(relay) = &mut config.relay {
            relay.key_file = folder.join(&relay.key_file);
        }
        config.data = config.data.map(|data| folder.join(data));
        if let Some(Target::File(path)) = config.log.access_target() {
            config.log.access = Some(folder.join(path));
        }
        config.apply(overrides);
        config.check()?;
        Ok(config)
    }

    /// Reads the text of a file, naming `path` in errors. Not yet checked as a whole.
    pub fn parse(path: &Path, text: &str) -> Result<Self, ConfigError> {
        let mut config: Self = toml::from_str(text).map_err(|error| ConfigError::Parse {
            path: path.to_owned(),
            line: error.span().map_or(1, |span| line_of(text, span.start)),
            message: error.message().to_owned(),
        })?;
        for site in &mut config.sites {
            if site.id.is_empty() {
                site.id = site.name.clone();
            }
        }
        Ok(config)
    }

    /// Replaces what flags and environment say.
    pub fn apply(&mut self, overrides: &Overrides) {
        if !overrides.listen.is_empty() {
            self.listen.clone_from(&overrides.listen);
        }
        self.admin = overrides.admin.unwrap_or(self.admin);
        self.data = overrides.data.clone().or(self.data.take());
        self.shards = overrides.shards.unwrap_or(self.shards);
        self.engine = overrides.engine.unwrap_or(self.engine);
        if let (Some(url), Some(control)) = (&overrides.control_url, &mut self.control) {
            control.url.clone_from(url);
        }
        self.allow_plaintext |= overrides.allow_plaintext;
    }

    /// Whether the values fit together.
    pub fn check(&self) -> Result<(), ConfigError> {
        if !is_label(&self.id) {
            return refuse("id", "1 to 63 of a-z, 0-9 and -");
        }
        if self.listen.is_empty() {
            return refuse("listen", "at least one address, such as \"127.0.0.1:8080\"");
        }
        if self.url.as_deref().is_some_and(|url| !is_name_url(url)) {
            return refuse("url", "http://host[:port] or https://host[:port], without a path");
        }
        self.check_plaintext()?;
        if self.control.is_some() && !self.sites.is_empty() {
            return refuse("site", "no [[site]] beside [control]: control names the sites");
        }
        if let Some(control) = &self.control {
            authority(&control.url).map_err(|expected| refusal("control.url", expected))?;
            control.check_via()?;
        }
        self.check_relay()?;
        self.timeouts.check()?;
        if self.cache.memory < CACHE_MEMORY_MIN {
            return refuse("cache.memory", "at least 1MiB");
        }
        let is_name = |name: &String| proto::field::name::is_token(name.as_bytes());
        if !self.cache.targets.iter().all(is_name) {
            return refuse("cache.targets", "names of fields, such as \"CDN-Cache-Control\"");
        }
        self.compression.check()?;
        let is_fine = (EXPLAIN_MEMORY_MIN..=EXPLAIN_MEMORY_MAX).contains(&self.explain.memory);
        if !is_fine && self.explain.memory != 0 {
            return refuse("explain.memory", "0 for none, or 64KiB to 16GiB");
        }
        let key = self.explain.debug_key_sha256.as_deref();
        if key.is_some_and(|text| sha256_of(text).is_none()) {
            return refuse("explain.debug_key_sha256", "64 digits 0-9 and a-f");
        }
        check_sites(&self.sites)
    }

    fn check_relay(&self) -> Result<(), ConfigError> {
        let Some(relay) = &self.relay else { return Ok(()) };
        if self.control.is_none() {
            return refuse("relay", "[control] beside it: there is no feed to relay without");
        }
        if self.data.is_none() {
            return refuse("relay", "data beside it: edges start from what this one has kept");
        }
        if !(1..=limits::RELAY_CHILDREN_MOST).contains(&relay.children_max) {
            let expected = format!("1 to {}", limits::RELAY_CHILDREN_MOST);
            return refuse("relay.children_max", expected);
        }
        if relay.topics_max as usize > limits::SUBSCRIBED_TOPICS_MAX {
            return refuse("relay.topics_max", "0 to 4096");
        }
        Ok(())
    }

    /// The effective configuration, as TOML.
    pub fn print(&self) -> String {
        toml::to_string_pretty(self).expect("a configuration has string keys only")
    }

    fn check_plaintext(&self) -> Result<(), ConfigError> {
        if self.allow_plaintext {
            return Ok(());
        }
        let remedy = "plain text beyond loopback only with `allow_plaintext = true`";
        let open = self.listen.iter().find(|address| !address.ip().is_loopback());
        if let Some(address) = open {
            return refuse("listen", format!("{address}: {remedy}"));
        }
        if !self.admin.ip().is_loopback() {
            return refuse("admin", format!("{}: {remedy}", self.admin));
        }
        if let Some(relay) = self.relay.as_ref().filter(|relay| !relay.listen.ip().is_loopback()) {
            return refuse("relay.listen", format!("{}: {remedy}", relay.listen));
        }
        let Some(control) = &self.control else { return Ok(()) };
        if let Some(url) = control.via.iter().find(|url| !is_loopback_url(url)) {
            return refuse("control.via", format!("{url}: {remedy}"));
        }
        if !is_loopback_url(&control.url) {
            return refuse("control.url", format!("{}: {remedy}", control.url));
        }
        Ok(())
    }
}

impl Control {
    fn check_via(&self) -> Result<(), ConfigError> {
        for url in &self.via {
            authority(url).map_err(|expected| refusal("control.via", expected))?;
        }
        if self.via.len() > limits::RELAY_PARENTS_MAX {
            return refuse("control.via", format!("at most {}", limits::RELAY_PARENTS_MAX));
        }
        match (&self.via_key_file, self.via.is_empty()) {
            (None, false) => refuse("control.via_key_file", "a file with the key of their [relay]"),
            (Some(_), true) => refuse("control.via_key_file", "only beside control.via"),
            _ => Ok(()),
        }
    }
}

/// Host and port of `http://host[:port]`; what was expected otherwise. Brackets of an IPv6 literal
/// are taken off.
pub fn authority(url: &str) -> Result<(&str, u16), &'static str> {
    const EXPECTED: &str = "`http://host[:port]` without a path";
    let rest = url.strip_prefix("http://").ok_or(EXPECTED)?;
    let rest = rest.strip_suffix('/').unwrap_or(rest);
    let (host, port) = match rest.strip_prefix('[') {
        Some(v6) => {
            let (host, port) = v6.split_once(']').ok_or(EXPECTED)?;
            host.parse::<std::net::Ipv6Addr>().map_err(|_| EXPECTED)?;
            (host, port.strip_prefix(':'))
        }
        None => match rest.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (rest, None),
        },
    };
    let is_host_byte = |b: u8| b.is_ascii_alphanumeric() || b"-._:".contains(&b);
    if host.is_empty() || !host.bytes().all(is_host_byte) {
        return Err(EXPECTED);
    }
    match port.map(str::parse) {
        None => Ok((host, 80)),
        Some(Ok(port)) if port > 0 => Ok((host, port)),
        Some(_) => Err(EXPECTED),
    }
}

/// Whether it is an edge's own name: what TLS in front speaks is allowed.
fn is_name_url(url: &str) -> bool {
    let plain = url.strip_prefix("https://").map(|rest| format!("http://{rest}"));
    let is_short = url.len() <= limits::URL_BYTES_MAX && !url.ends_with('/');
    is_short && authority(plain.as_deref().unwrap_or(url)).is_ok()
}

fn check_sites(sites: &[Site]) -> Result<(), ConfigError> {
    let mut hosts = std::collections::HashSet::new();
    for (at, site) in sites.iter().enumerate() {
        let key = |name: &str| format!("site[{at}].{name}");
        if !is_label(&site.name) {
            return refuse(key("name"), "1 to 63 of a-z, 0-9 and -");
        }
        if site.hosts.is_empty() {
            return refuse(key("hosts"), "at least one host name");
        }
        for host in &site.hosts {
            let ok = !host.is_empty()
                && host.bytes().all(|b| b.is_ascii_graphic() && !b.is_ascii_uppercase())
                && !host.contains(['/', ':']);
            if !ok {
                return refuse(key("hosts"), format!("{host:?}: lower case, without a port"));
            }
            if !hosts.insert(host) {
                return refuse(key("hosts"), format!("{host:?} belongs to another site already"));
            }
        }
        if site.origins.is_empty() {
            return refuse(key("origins"), "at least one origin");
        }
        for origin in &site.origins {
            authority(&origin.url).map_err(|expected| refusal(key("origins"), expected))?;
        }
        check_rules(site, &key)?;
        if site.routes.iter().any(|route| !route.prefix.starts_with('/')) {
            return refuse(key("routes"), "a prefix that starts with /");
        }
        for route in &site.routes {
            let topics = route.stream.as_ref().map(|stream| stream.topics.len());
            match (route.policy == Policy::Stream, topics) {
                (true, None | Some(0)) => {
                    let expected = "stream = { topics = [...] } for policy \"stream\"";
                    return refuse(key("routes"), format!("{}: {expected}", route.prefix));
                }
                (false, Some(_)) => {
                    let expected = "no stream but for policy \"stream\"";
                    return refuse(key("routes"), format!("{}: {expected}", route.prefix));
                }
                _ => {}
            }
            if site.token_keys.is_empty() && route.stream.as_ref().is_some_and(|it| it.private) {
                return refuse(key("token_keys"), "at least one, for a private route");
            }
        }
    }
    Ok(())
}

/// What is wrong with a site's rules and purge keys is named by its path in the file.
fn check_rules(site: &Site, key: &impl Fn(&str) -> String) -> Result<(), ConfigError> {
    if site.rules.len() > proto::limits::RULES_MAX {
        return refuse(key("rules"), format!("at most {}", proto::limits::RULES_MAX));
    }
    for (at, rule) in site.rules.iter().enumerate() {
        if let Some(fault) = rule.faults().into_iter().next() {
            let path: String = fault.at.split('/').skip(1).map(in_file).collect();
            return refuse(key(&format!("rules[{at}]{path}")), fault.expected);
        }
        if site.rules[..at].iter().any(|other| other.name == rule.name) {
            return refuse(key(&format!("rules[{at}].name")), "each name once");
        }
    }
    if site.purge_keys.len() > proto::limits::PURGE_KEYS_MAX {
        return refuse(key("purge_keys"), format!("at most {}", proto::limits::PURGE_KEYS_MAX));
    }
    if let Some(at) = site.purge_keys.iter().position(|it| !it.is_fine()) {
        let expected = "an id of A-Z, a-z, 0-9, . _ -, and sha256: 64 digits 0-9 and a-f";
        return refuse(key(&format!("purge_keys[{at}]")), expected);
    }
    Ok(())
}

/// A token of a JSON pointer as keys of this file are written.
fn in_file(token: &str) -> String {
    match token.parse::<usize>() {
        Ok(at) => format!("[{at}]"),
        Err(_) => format!(".{token}"),
    }
}

fn refuse(key: impl Into<String>, expected: impl Into<String>) -> Result<(), ConfigError> {
    Err(refusal(key, expected))
}

fn refusal(key: impl Into<String>, expected: impl Into<String>) -> ConfigError {
    ConfigError::Refused { key: key.into(), expected: expected.into() }
}

/// A hash as it is written in configurations.
pub fn sha256_of(text: &str) -> Option<[u8; 32]> {
    proto::feed::site::PurgeKey { id: String::new(), sha256: text.to_owned() }.hash()
}

fn is_label(text: &str) -> bool {
    let allowed = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    (1..=63).contains(&text.len()) && text.bytes().all(allowed)
}

fn is_loopback_url(url: &str) -> bool {
    match authority(url) {
        Ok(("localhost", _)) => true,
        Ok((host, _)) => host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback()),
        // Refused with its own reason by the check that follows.
        Err(_) => true,
    }
}

fn line_of(text: &str, at: usize) -> usize {
    text.as_bytes()[..at.min(text.len())].iter().filter(|&&b| b == b'\n').count() + 1
}

/// `"512MiB"`, `"1GiB"`, `"65536"` or a number of bytes.
fn parse_size(text: &str) -> Option<u64> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let number: u64 = text[..digits].parse().ok()?;
    let unit: u64 = match text[digits..].trim() {
        "" | "B" => 1,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        _ => return None,
    };
    number.checked_mul(unit)
}

fn read_size<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged, expecting = "expected bytes as a number, or a text such as \"512MiB\"")]
    enum Size {
        Number(u64),
        Text(String),
    }
    match Size::deserialize(deserializer)? {
        Size::Number(bytes) => Ok(bytes),
        Size::Text(text) => parse_size(&text).ok_or_else(|| {
            serde::de::Error::custom(format!("{text:?}: expected a size such as \"512MiB\""))
        }),
    }
}

fn write_size<S: Serializer>(bytes: &u64, serializer: S) -> Result<S::Ok, S::Error> {
    let units = [(30, "GiB"), (20, "MiB"), (10, "KiB")];
    match units.iter().find(|(shift, _)| *bytes > 0 && bytes.trailing_zeros() >= *shift) {
        Some((shift, unit)) => serializer.collect_str(&format_args!("{}{unit}", bytes >> shift)),
        None => serializer.serialize_u64(*bytes),
    }
}

/// The engine's name in the file; `--engine` takes the same words.
mod engine_text {
    use super::{Deserialize, Deserializer, EngineChoice, Serializer};

    pub(super) fn serialize<S: Serializer>(
        engine: &EngineChoice,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(match engine {
            EngineChoice::Auto => "auto",
            EngineChoice::IoUring => "io_uring",
            EngineChoice::Epoll => "epoll",
        })
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<EngineChoice, D::Error> {
        let text = String::deserialize(deserializer)?;
        match text.as_str() {
            "auto" => Ok(EngineChoice::Auto),
            "io_uring" => Ok(EngineChoice::IoUring),
            "epoll" => Ok(EngineChoice::Epoll),
            _ => Err(serde::de::Error::custom(format!(
                "unknown engine {text:?}, expected \"auto\", \"io_uring\" or \"epoll\""
            ))),
        }
    }
}

/// Addresses, refused with what was expected.
mod address_text {
    use super::{Deserialize, Deserializer, SocketAddr};

    pub(super) fn one<'de, D: Deserializer<'de>>(deserializer: D) -> Result<SocketAddr, D::Error> {
        parse(&String::deserialize(deserializer)?)
    }

    pub(super) fn several<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Vec<SocketAddr>, D::Error> {
        Vec::<String>::deserialize(deserializer)?.iter().map(|text| parse(text)).collect()
    }

    fn parse<E: serde::de::Error>(text: &str) -> Result<SocketAddr, E> {
        text.parse().map_err(|_| {
            E::custom(format!("{text:?}: expected address:port, such as \"127.0.0.1:8080\""))
        })
    }
}

fn default_children_max() -> u32 {
    limits::RELAY_CHILDREN_MAX
}

fn default_topics_max() -> u32 {
    limits::SUBSCRIBED_TOPICS_MAX as u32
}

fn default_id() -> String {
    "edge".to_owned()
}

fn default_pop() -> String {
    "local".to_owned()
}

fn default_listen() -> Vec<SocketAddr> {
    vec![SocketAddr::from(([127, 0, 0, 1], 8080))]
}

fn default_admin() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 7401))
}

/// Not a file's name in `log.access`.
const STDERR: &str = "stderr";
/// An hour: whatever waits longer has been forgotten by somebody.
const TIMEOUT_MS_MAX: u64 = 3_600_000;
/// Some records for each of some shards.
const EXPLAIN_MEMORY_MIN: u64 = 64 << 10;
/// Nobody looks further back.
const EXPLAIN_MEMORY_MAX: u64 = 16 << 30;
/// Below this a cache only costs.
const CACHE_MEMORY_MIN: u64 = 1 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    fn error(text: &str) -> String {
        let path = Path::new("edge.toml");
        match Config::parse(path, text).and_then(|config| config.check()) {
            Ok(()) => panic!("accepted: {text}"),
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn a_misspelt_key_is_named_with_its_line_and_what_was_expected() {
        let text = error("id = \"a\"\n\n[cache]\nmemroy = 1\n");
        assert!(text.starts_with("edge.toml:4: unknown field `memroy`"), "{text}");
        assert!(text.contains("expected `memory`"), "{text}");
    }

    #[test]
    fn plain_text_beyond_loopback_is_allowed_only_by_name() {
        assert!(error("listen = [\"0.0.0.0:80\"]").contains("allow_plaintext = true"));
        let control = "[control]\nurl = \"http://10.0.0.1:7400\"\nkey_file = \"k\"\n";
        assert!(error(control).starts_with("control.url: "));
        let allowed = format!("allow_plaintext = true\nlisten = [\"0.0.0.0:80\"]\n{control}");
        let config = Config::parse(Path::new("e"), &allowed).expect("parses");
        config.check().expect("allowed by name");
    }

    #[test]
    fn each_value_is_refused_with_what_was_expected() {
        for (text, expected) in [
            ("engine = \"kqueue\"", "edge.toml:1: unknown engine \"kqueue\", expected \"auto\""),
            ("id = \"Edge 1\"", "id: 1 to 63 of a-z"),
            ("listen = []", "listen: at least one address"),
            ("url = \"edge-1.example\"", "url: http://host[:port] or https"),
            ("url = \"https://a/b\"", "url: http://host[:port] or https"),
            (
                "[timeouts]\ndrain_ms = 5\ndrain_notice_ms = 5",
                "timeouts.drain_notice_ms: 5: less than",
            ),
            ("listen = [\"127.0.0.1:1x\"]", "edge.toml:1: \"127.0.0.1:1x\": expected address:port"),
            ("admin = \"here\"", "edge.toml:1: \"here\": expected address:port, such as \"127"),
            ("[cache]\nmemory = \"1TB\"", "edge.toml:2: \"1TB\": expected a size"),
            ("[timeouts]\ndrain_ms = 0", "timeouts.drain_ms: 0: 1 to 3600000"),
            ("[explain]\nmemory = 5", "explain.memory: 0 for none, or 64KiB to"),
            ("[explain]\ndebug_key_sha256 = \"x\"", "explain.debug_key_sha256: 64 digits"),
            ("[cache]\nmemory = 5", "cache.memory: at least 1MiB"),
            ("[cache]\ntargets = [\"a b\"]", "cache.targets: names of fields"),
            ("[[site]]\nname = \"a\"\nhosts = []\norigins = []", "site[0].hosts: at least one"),
            (
                "[[site]]\nname = \"a\"\nhosts = [\"a\"]\norigins = [{url = \"http://a\"}]\n\
                 routes = [{prefix = \"/l/\", policy = \"stream\"}]",
                "site[0].routes: /l/: stream = { topics",
            ),
            (
                "[[site]]\nname = \"a\"\nhosts = [\"a\"]\norigins = [{url = \"http://a\"}]\n\
                 [[site.rules]]\nname = \"r\"\nkey = {query = {drop = [\"a b\"]}}",
                "site[0].rules[0].key.query.drop[0]: visible ASCII",
            ),
            (
                "[[site]]\nname = \"a\"\nhosts = [\"a\"]\norigins = [{url = \"http://a\"}]\n\
                 [[site.rules]]\nname = \"r\"\nlifetime = {fresh = 5}",
                "edge.toml:7: unknown field `fresh`, expected one of `fresh_s`",
            ),
            (
                "[[site]]\nname = \"a\"\nhosts = [\"a\"]\norigins = [{url = \"http://a\"}]\n\
                 purge_keys = [{id = \"k\", sha256 = \"12\"}]",
                "site[0].purge_keys[0]: an id",
            ),
            (
                "[[site]]\nname = \"a\"\nhosts = [\"a\"]\norigins = [{url = \"https://a\"}]",
                "site[0].origins: `http://host[:port]`",
            ),
        ] {
            let found = error(text);
            assert!(found.starts_with(expected), "{found}");
        }
    }

    #[test]
    fn what_is_printed_reads_back_as_the_same() {
        let mut config = Config::default();
        config.cache.memory = 3 << 30;
        config.control = Some(Control {
            url: "http://127.0.0.1:7400".into(),
            key_file: "edge.key".into(),
            via: Vec::new(),
            via_key_file: None,
        });
        let printed = config.print();
        assert!(printed.contains("3GiB"), "{printed}");
        assert_eq!(Config::parse(Path::new("e"), &printed).expect("parses"), config);
    }

    #[test]
    fn an_authority_is_host_and_port() {
        for (url, expected) in [
            ("http://a.example", Some(("a.example", 80))),
            ("http://a.example:81/", Some(("a.example", 81))),
            ("http://[::1]:82", Some(("::1", 82))),
            ("http://", None),
            ("http://a:0", None),
            ("http://a/b", None),
            ("https://a", None),
        ] {
            assert_eq!(authority(url).ok(), expected, "{url}");
        }
    }
}
