//! The edge role: configuration from file, environment and flags; start; signals.

use std::{
    fs::{self, OpenOptions},
    io::Write,
    net::SocketAddr,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use clap::{Args, ValueEnum};
use dataplane::{
    Drained, Running, StartError,
    config::{Config, ConfigError, Overrides},
    engine::{self, Controls, EngineChoice, ShardDied},
    reload::Reloader,
    seam::Control,
};
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::{
    config_line::place_of,
    exit::{Failure, Kind},
    log::Log,
    output, port, supervise,
};

/// How an edge is run.
#[derive(Debug, Args)]
#[group(skip)]
pub(crate) struct Options {
    /// The edge's configuration, edge.toml
    #[arg(long, env = "PHAROS_EDGE_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
    /// Only say whether the configuration is right
    #[arg(long, conflicts_with = "print")]
    check: bool,
    /// Only print the configuration as it takes effect
    #[arg(long)]
    print: bool,
    /// Listen here for visitors, instead of the file's `listen`; may be given several times
    #[arg(long, env = "PHAROS_EDGE_LISTEN", value_name = "ADDRESS", value_delimiter = ',')]
    listen: Vec<SocketAddr>,
    /// Listen here for health, metrics and status, instead of the file's `admin`
    #[arg(long, env = "PHAROS_EDGE_ADMIN", value_name = "ADDRESS")]
    admin: Option<SocketAddr>,
    /// Keep the last known configuration and pages here, instead of the file's `data`
    #[arg(long, env = "PHAROS_EDGE_DATA", value_name = "FOLDER")]
    data: Option<PathBuf>,
    /// What drives the shards, instead of the file's `engine`
    #[arg(long, env = "PHAROS_EDGE_ENGINE", value_enum)]
    engine: Option<Engine>,
    /// How many shards, 0 for one on each core, instead of the file's `shards`
    #[arg(long, env = "PHAROS_EDGE_SHARDS", value_name = "NUMBER")]
    shards: Option<u16>,
    /// Control's address, instead of the file's `control.url`
    #[arg(long, env = "PHAROS_EDGE_CONTROL_URL", value_name = "URL")]
    control_url: Option<String>,
    /// Allow plain text beyond loopback, as the file's `allow_plaintext = true` does
    #[arg(long, env = "PHAROS_EDGE_ALLOW_PLAINTEXT")]
    allow_plaintext: bool,
}

/// Which engine, by the words of edge.toml.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
#[value(rename_all = "snake_case")]
pub(crate) enum Engine {
    /// io_uring where the kernel allows it, else epoll
    Auto,
    /// io_uring or an error that says why not
    IoUring,
    /// epoll
    Epoll,
}

impl Engine {
    /// The word in edge.toml.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::IoUring => "io_uring",
            Self::Epoll => "epoll",
        }
    }

    fn choice(self) -> EngineChoice {
        match self {
            Self::Auto => EngineChoice::Auto,
            Self::IoUring => EngineChoice::IoUring,
            Self::Epoll => EngineChoice::Epoll,
        }
    }
}

/// Runs an edge until it has drained.
pub(crate) fn run(options: &Options) -> Result<(), Failure> {
    let Some(path) = &options.config else {
        return Err(Failure::new(Kind::Usage, "nothing to do").remedy(
            "run an edge: pharos edge --config edge.toml\nor manage edges: pharos edge list",
        ));
    };
    let config = load(path, options)?;
    if options.print {
        return output::data(&config.print());
    }
    if options.check {
        output::talk(&format!("{} is right", path.display()));
        return Ok(());
    }
    supervise::die_with_supervisor()?;
    engine::settle_allocator();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::because("starting the edge", &error))?;
    // Before anything else: a signal that comes early must not end the process.
    let signals = runtime
        .block_on(async { Signals::new() })
        .map_err(|error| Failure::because("listening to signals", &error))?;
    let log = Log::start(config.log.level.word())?;
    let (wanted, chosen) = (config.streams.max, config.shards != 0);
    let running = dataplane::start(config).map_err(|error| failed(&error))?;
    let listen: Vec<String> = running.listen().iter().map(ToString::to_string).collect();
    output::talk(&format!(
        "the edge listens on {}, its admin on {}; {} shards of {} sockets, {}",
        listen.join(" and "),
        running.admin(),
        running.shards(),
        running.sockets_max(),
        running.engine(),
    ));
    tell_of_shards(&running, wanted, chosen);
    let (controls, reloader) = (running.controls(), running.reloader());
    let teller = running.drain_teller();
    let reload = || reload(path, options, &reloader, &log);
    runtime
        .block_on(attend(running, signals, &controls, reload))
        .map_err(|error| Failure::because("waiting for signals", &error))?
        .map_err(|error| Failure::because("the edge ended", &error))?;
    tell_of_drain(&teller.drained());
    Ok(())
}

/// What became of the streams, for whoever has ended the process.
fn tell_of_drain(drained: &Drained) {
    let Drained { streams, moved, cut } = *drained;
    if cut > 0 {
        tracing::warn!(
            streams,
            moved,
            cut,
            "the drain's time was over before its streams were moved: raise timeouts.drain_ms or \
             streams.drain_per_s"
        );
    } else {
        tracing::info!(streams, moved, cut, "drained");
    }
}

/// Why there are more shards than cores, or that there is less room than was asked for.
fn tell_of_shards(running: &Running, streams_max: u32, chosen: bool) {
    let (shards, cores) = (running.shards(), engine::allowed_cores().len());
    let room = u64::from(running.sockets_max()) * u64::from(shards);
    if u64::from(streams_max) > room {
        output::talk(&format!(
            "streams.max = {streams_max}, but there is room for {room} sockets: raise RLIMIT_NOFILE \
             (LimitNOFILE= in the unit)"
        ));
    } else if !chosen && usize::from(shards) > cores {
        output::talk(&format!(
            "{shards} shards on {cores} cores, because streams.max = {streams_max} and a shard's \
             table of sockets may not exceed RLIMIT_NOFILE; fewer serve as many under a higher one"
        ));
    }
}

/// The signals that an edge listens to.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hang_up: Signal,
    upgrade: Signal,
}

impl Signals {
    fn new() -> std::io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hang_up: signal(SignalKind::hangup())?,
            upgrade: signal(SignalKind::user_defined2())?,
        })
    }
}

/// Passes signals on until every shard has ended.
async fn attend(
    running: Running,
    mut signals: Signals,
    controls: &Controls,
    reload: impl Fn(),
) -> std::io::Result<Result<(), ShardDied>> {
    let mut ended = tokio::task::spawn_blocking(move || running.join());
    loop {
        tokio::select! {
            outcome = &mut ended => return outcome.map_err(std::io::Error::other),
            _ = signals.terminate.recv() => controls.control(Control::Drain),
            _ = signals.interrupt.recv() => controls.control(Control::Drain),
            _ = signals.hang_up.recv() => reload(),
            _ = signals.upgrade.recv() => tracing::warn!(
                "SIGUSR2: upgrading a running process is not built yet; drain this edge (SIGTERM) \
                 and start the new one"
            ),
        }
    }
}

/// Reads the configuration again; what is wrong with it is told, and changes nothing.
fn reload(path: &Path, options: &Options, reloader: &Reloader, log: &Log) {
    let taken = load(path, options).and_then(|config| {
        let level = config.log.level;
        let failed = |error| Failure::because("the configuration cannot be taken", &error);
        reloader.reload(config).map(|told| (told, level)).map_err(failed)
    });
    match taken {
        Ok((told, level)) => {
            log.set_level(level.word());
            let (applied, need_restart) = (told.applied.join(" "), told.need_restart.join(" "));
            if need_restart.is_empty() {
                tracing::info!(%applied, "SIGHUP: {} was read again", path.display());
            } else {
                tracing::warn!(
                    %applied, %need_restart,
                    "SIGHUP: {} was read again; some of what changed takes effect with the next \
                     start only", path.display()
                );
            }
        }
        Err(failure) => {
            tracing::error!("SIGHUP: nothing was changed: {}", failure.line());
        }
    }
}

/// Why an edge did not start, and what to do about it.
fn failed(error: &StartError) -> Failure {
    let failure = Failure::because("the edge cannot start", error);
    match error {
        StartError::Engine(engine::StartError::Listen { addr, source }) => {
            let taken = source.kind() == std::io::ErrorKind::AddrInUse;
            let by = port::holder(*addr).filter(|_| taken);
            failure.remedy(match by {
                Some(holder) => {
                    format!("{addr} is held by {holder}; choose another by listen or admin")
                }
                None => "choose another address by listen or admin (--listen, --admin)".to_owned(),
            })
        }
        StartError::Engine(engine::StartError::Unavailable { .. }) => {
            failure.remedy("use --engine auto; `pharos doctor` says more")
        }
        _ => failure,
    }
}

fn load(path: &Path, options: &Options) -> Result<Config, Failure> {
    let overrides = Overrides {
        listen: options.listen.clone(),
        admin: options.admin,
        data: options.data.clone(),
        shards: options.shards,
        engine: options.engine.map(Engine::choice),
        control_url: options.control_url.clone(),
        allow_plaintext: options.allow_plaintext,
    };
    Config::load(path, &overrides).map_err(|error| {
        let mut text = "the edge's configuration is not usable".to_owned();
        // Not where a flag is to blame: the file has to be wrong by itself.
        let refused = |overrides: &Overrides| match Config::load(path, overrides) {
            Err(ConfigError::Refused { key, .. }) => Some(key),
            _ => None,
        };
        let by_itself = refused(&Overrides::default());
        if let Some(key) = refused(&overrides).filter(|key| by_itself.as_ref() == Some(key))
            && let Some(place) = place_of(path, &key)
        {
            text += &format!(": {place}");
        }
        Failure::because(text, &error).usage()
    })
}

/// Writes a file that only its owner can read, whole or not at all.
pub(crate) fn write_secret(path: &Path, text: &str) -> Result<(), Failure> {
    let beside = path.with_extension("new");
    let write = || -> std::io::Result<()> {
        let mut file =
            OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&beside)?;
        file.write_all(text.as_bytes())?;
        if !text.ends_with('\n') {
            file.write_all(b"\n")?;
        }
        file.sync_all()?;
        fs::rename(&beside, path)
    };
    write().map_err(|error| Failure::because(format!("writing {}", path.display()), &error))
}
