//! The control role: configuration from file, environment and flags; start; signals.

use std::{io, net::SocketAddr, path::PathBuf};

use clap::Args;
use control::{Config, ConfigError, Settings};
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::{
    config_line::place_of, exit::Failure, log::Log, output, supervise::die_with_supervisor,
};

/// How control is run.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  pharos control --data /var/lib/pharos --listen 127.0.0.1:7400
  pharos control --config control.toml --check

A flag wins over its environment variable, which wins over the file. The first admin key is written to
admin.key in the data folder. Signals: TERM finishes open requests, then ends; HUP and USR2 are told not
to have an effect yet.")]
pub(crate) struct Options {
    /// Control's configuration, control.toml
    #[arg(long, env = "PHAROS_CONTROL_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
    /// Only say whether the configuration is right
    #[arg(long, conflicts_with = "print")]
    check: bool,
    /// Only print the configuration as it takes effect
    #[arg(long)]
    print: bool,
    /// This region's name: a-z, 0-9 and -, up to 15
    #[arg(long, env = "PHAROS_CONTROL_REGION", value_name = "NAME")]
    region: Option<String>,
    /// Where API, feed and pages are served
    #[arg(long, env = "PHAROS_CONTROL_LISTEN", value_name = "ADDRESS")]
    listen: Option<SocketAddr>,
    /// Folder for the log and everything else that is kept
    #[arg(long, env = "PHAROS_CONTROL_DATA", value_name = "FOLDER")]
    data: Option<PathBuf>,
    /// Where edges and people reach this control, if not at the address it listens on
    #[arg(long, env = "PHAROS_CONTROL_URL", value_name = "URL")]
    public_url: Option<String>,
    /// Where visitors reach pages that have no host of their own; for links in public JSON
    #[arg(long, env = "PHAROS_CONTROL_PAGES_URL", value_name = "URL")]
    pages_url: Option<String>,
    /// Allow plain text beyond loopback, as the file's `allow_plaintext = true` does
    #[arg(long, env = "PHAROS_CONTROL_ALLOW_PLAINTEXT")]
    allow_plaintext: bool,
}

/// Runs control until SIGTERM or SIGINT.
pub(crate) fn run(options: Options) -> Result<(), Failure> {
    let (check, print) = (options.check, options.print);
    let config = configuration(options)?;
    if print {
        return output::data(&config.to_toml());
    }
    if check {
        output::talk("the configuration is right");
        return Ok(());
    }
    die_with_supervisor()?;
    let _log = Log::start("info")?;
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::because("starting control", &error))?
        .block_on(serve(config))
        .map_err(|error| Failure::because("waiting for signals", &error))?
        .map_err(|error| Failure::because("control cannot run", &error))
}

fn configuration(options: Options) -> Result<Config, Failure> {
    const UNUSABLE: &str = "control's configuration is not usable";
    let refused = |error| Failure::because(UNUSABLE, &error).usage();
    let file = match &options.config {
        Some(path) => Settings::load(path).map_err(refused)?,
        None => Settings::default(),
    };
    let flags = Settings {
        region: options.region,
        listen: options.listen,
        data: options.data,
        url: options.public_url,
        pages_url: options.pages_url,
        allow_plaintext: options.allow_plaintext.then_some(true),
        ..Settings::default()
    };
    let by_itself = key_of(&file.clone().build());
    flags.over(file).build().map_err(|error| {
        // Not where a flag is to blame: the file has to be wrong by itself.
        let key = error.key().filter(|key| Some(*key) == by_itself);
        let place = key.zip(options.config.as_ref()).and_then(|(key, path)| place_of(path, key));
        match place {
            Some(place) => Failure::because(format!("{UNUSABLE}: {place}"), &error).usage(),
            None => refused(error),
        }
    })
}

fn key_of(built: &Result<Config, ConfigError>) -> Option<&'static str> {
    built.as_ref().err().and_then(ConfigError::key)
}

/// Runs control; what it has no use for is told, and ends nothing.
async fn serve(config: Config) -> io::Result<Result<(), control::StartError>> {
    let mut others = Others::new()?;
    tokio::select! {
        outcome = control::run(config) => Ok(outcome),
        () = others.tell() => Ok(Ok(())),
    }
}

/// Signals whose default would end the process.
struct Others {
    hang_up: Signal,
    upgrade: Signal,
}

impl Others {
    fn new() -> io::Result<Self> {
        let hang_up = signal(SignalKind::hangup())?;
        Ok(Self { hang_up, upgrade: signal(SignalKind::user_defined2())? })
    }

    /// For ever.
    async fn tell(&mut self) {
        loop {
            tokio::select! {
                _ = self.hang_up.recv() => tracing::warn!(
                    "SIGHUP: control reads its configuration at its start only; start it again for \
                     another one to take effect (streams and cached pages do not depend on it)"
                ),
                _ = self.upgrade.recv() => tracing::warn!(
                    "SIGUSR2: upgrading a running process is not built yet; stop control and start \
                     the new one (edges serve on without it)"
                ),
            }
        }
    }
}
