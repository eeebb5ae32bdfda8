//! The edge: shards, which are pure, and engines, which are the only code that touches the kernel.
//!
//! A shard is one pinned thread driving one [`seam::Actor`] with one engine. Three engines drive
//! the same actor: io_uring and epoll (here), and the simulator's (in `tests`). [`start`] makes an
//! edge out of its configuration.
//!
//! Leaves to others: bytes ↔ HTTP, SSE and feed records (`proto`); what may be stored and served
//! (`cache`); signals and the command line (the binary).

pub mod compress;
pub mod config;
pub mod engine;
pub mod limits;
mod link;
pub mod reload;
pub mod seam;
pub mod shard;

use std::{
    fmt, io,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::{Arc, OnceLock},
};

use cache::Cache;

use crate::{
    config::{Config, ConfigError},
    engine::{DataLock, Refused, Seat, ShardDied},
    reload::{Reloader, Room},
    seam::{Control, ListenerId},
    shard::{
        ControlLink, Settings, Shard,
        live::LiveSlot,
        observe::{Board, Metric},
        relay::RelaySettings,
    },
};

/// An edge that runs. Dropping it leaves it running; [`Running::join`] waits for its end.
#[derive(Debug)]
pub struct Running {
    engine: engine::Running,
    visitor_count: usize,
    reloader: Arc<Reloader>,
    board: Arc<OnceLock<Arc<Board>>>,
}

/// A handle that tells what became of the streams of a drain, also when the edge has ended.
#[derive(Clone, Debug)]
pub struct DrainTeller(Arc<OnceLock<Arc<Board>>>);

/// What became of the streams of the last drain.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Drained {
    /// Streams that were open when they began to be moved.
    pub streams: u64,
    /// Of these, those that were told to go to another edge.
    pub moved: u64,
    /// Streams that were still open at the end.
    pub cut: u64,
}

impl DrainTeller {
    /// What is known by now.
    pub fn drained(&self) -> Drained {
        let sum = |metric| self.0.get().map_or(0, |board| board.sum(metric));
        Drained {
            streams: sum(Metric::DrainStreams),
            moved: sum(Metric::DrainMoved),
            cut: sum(Metric::StreamsCut),
        }
    }
}

/// Why an edge did not start. Nothing listens then.
#[derive(Debug)]
pub enum StartError {
    /// The configuration does not fit together.
    Config(ConfigError),
    /// The key for control could not be read.
    Key {
        /// Its file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The key's file holds nothing that can be sent as a key.
    KeyUnusable {
        /// Its file.
        path: PathBuf,
    },
    /// The access log could not be opened.
    AccessLog {
        /// Where.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The data folder cannot be written.
    DataUnusable {
        /// Which.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// Another edge serves from the data folder.
    DataHeld {
        /// Which.
        path: PathBuf,
        /// The other process, as far as it said.
        process: Option<u32>,
    },
    /// The engine could not start.
    Engine(engine::StartError),
}

/// Starts an edge: reads its key, takes an engine, binds the listeners and starts the shards.
///
/// # Errors
/// [`StartError`], naming what could not be had.
pub fn start(config: Config) -> Result<Running, StartError> {
    config.check().map_err(StartError::Config)?;
    let held = config.data.as_deref().map(take_data).transpose()?;
    let control = config.control.as_ref().map(link::control_link).transpose()?;
    let parents = config.control.as_ref().map(link::parents).transpose()?.unwrap_or_default();
    let relay_key = config.relay.as_ref().map(link::relay_key).transpose()?;
    let relay = relay_key.zip(config.relay.as_ref()).map(|(key, relay)| RelaySettings {
        listener: config.listen.len() as ListenerId + 1,
        key,
        children_max: relay.children_max,
        topics_max: relay.topics_max,
    });
    let links = Links { control: control.clone(), parents: parents.into(), relay };
    let journal = config.log.access_target().map(reload::open_journal).transpose()?;
    let mut engine_config = engine::Config::new(config.listen.clone());
    engine_config.listeners.push(config.admin);
    engine_config.first_listeners.extend(config.relay.as_ref().map(|relay| relay.listen));
    engine_config.engine = config.engine;
    engine_config.shards = config.shards;
    engine_config.connections = config.streams.max;
    let seeds = Seeds::draw();
    let mut cache_config = cache::Config::new(config.cache.memory, seeds.cache);
    // One large file must fit, or a small cache stores nothing of use.
    cache_config.entry_bytes_max = config.cache.memory / 2;
    cache_config.targets.clone_from(&config.cache.targets);
    cache_config.compression = config.compression.for_cache();
    cache_config.name = shard::forward::Names::pseudonym(&config.id);
    cache_config.scheme = config.forward.proto.word();
    let cache = Cache::new(cache_config);
    let board = Arc::new(OnceLock::new());
    let boards = Arc::clone(&board);
    let visitor_count = config.listen.len();
    let live = Arc::new(LiveSlot::default());
    let access = journal.as_ref().map(|journal| Arc::clone(journal.queue()));
    let (running, slot) = (config.clone(), Arc::clone(&live));
    let make = move |seat: &Seat| {
        // As long as a shard runs.
        let _ = &held;
        let board = boards.get_or_init(|| {
            let room = Room { shards: seat.shards, sockets_max: seat.sockets_max };
            let authorization = control.as_ref().map(|link| Arc::clone(&link.authorization));
            slot.put(reload::live(&config, authorization, access.clone(), room));
            Board::new(seat.shards)
        });
        let shared = Shared { cache: Arc::clone(&cache), board: Arc::clone(board), seeds };
        let settings = settings(&config, links.clone(), shared, Arc::clone(&slot), seat);
        Shard::new(settings, seat.now)
    };
    let engine = engine::start(engine_config, make).map_err(StartError::Engine)?;
    let room = Room { shards: engine.shards(), sockets_max: engine.sockets_max() };
    let reloader = Reloader::new(running, journal, live, engine.controls(), room);
    Ok(Running { engine, visitor_count, reloader: Arc::new(reloader), board })
}

fn take_data(path: &Path) -> Result<DataLock, StartError> {
    DataLock::take(path).map_err(|refused| match refused {
        Refused::Unusable(source) => StartError::DataUnusable { path: path.to_owned(), source },
        Refused::Held(process) => StartError::DataHeld { path: path.to_owned(), process },
    })
}

impl Running {
    /// Which engine drives the shards, and why.
    pub fn engine(&self) -> &engine::Taken {
        self.engine.taken()
    }

    /// Addresses for visitors, as bound.
    pub fn listen(&self) -> &[SocketAddr] {
        &self.engine.listeners()[..self.visitor_count]
    }

    /// The admin address, as bound.
    pub fn admin(&self) -> SocketAddr {
        self.engine.listeners()[self.visitor_count]
    }

    /// Threads.
    pub fn shards(&self) -> u16 {
        self.engine.shards()
    }

    /// Sockets of one shard, at most.
    pub fn sockets_max(&self) -> u32 {
        self.engine.sockets_max()
    }

    /// A handle for other threads, such as the one that waits for signals.
    pub fn controls(&self) -> engine::Controls {
        self.engine.controls()
    }

    /// A handle for taking another configuration.
    pub fn reloader(&self) -> Arc<Reloader> {
        Arc::clone(&self.reloader)
    }

    /// A handle that tells how the end went.
    pub fn drain_teller(&self) -> DrainTeller {
        DrainTeller(Arc::clone(&self.board))
    }

    /// Finish requests, move streams, stop. Callable from any thread.
    pub fn drain(&self) {
        self.engine.control(Control::Drain);
    }

    /// Waits until the edge has ended.
    ///
    /// # Errors
    /// [`ShardDied`] if a shard panicked.
    pub fn join(self) -> Result<(), ShardDied> {
        let ended = self.engine.join();
        self.reloader.close();
        ended
    }
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Config(_) => f.write_str("the configuration is not usable"),
            Self::Key { path, .. } => write!(f, "reading the key in {}", path.display()),
            Self::KeyUnusable { path } => {
                write!(f, "{}: expected one line of visible ASCII, an API key", path.display())
            }
            Self::AccessLog { path, .. } => {
                write!(f, "opening the access log {}", path.display())
            }
            Self::DataUnusable { path, .. } => write!(f, "using the folder {}", path.display()),
            Self::DataHeld { path, process } => {
                write!(f, "{} is in use by ", path.display())?;
                match process {
                    Some(process) => write!(f, "process {process}")?,
                    None => f.write_str("another process")?,
                }
                f.write_str(": stop it, or give this edge a folder of its own by data (--data)")
            }
            Self::Engine(_) => f.write_str("the engine did not start"),
        }
    }
}

impl std::error::Error for StartError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Config(error) => Some(error),
            Self::Key { source, .. }
            | Self::AccessLog { source, .. }
            | Self::DataUnusable { source, .. } => Some(source),
            Self::KeyUnusable { .. } | Self::DataHeld { .. } => None,
            Self::Engine(error) => Some(error),
        }
    }
}

/// Numbers that peers cannot know.
#[derive(Clone, Copy)]
struct Seeds {
    cache: u64,
    shards: u64,
}

impl Seeds {
    /// From the standard library's per-process random keys.
    fn draw() -> Self {
        use std::hash::{BuildHasher, RandomState};
        let draw = |salt: u8| RandomState::new().hash_one(salt);
        Self { cache: draw(1), shards: draw(2) }
    }
}

/// Whom it follows, and who may follow it.
#[derive(Clone)]
struct Links {
    control: Option<ControlLink>,
    parents: Arc<[ControlLink]>,
    relay: Option<RelaySettings>,
}

/// What all shards have in common.
struct Shared {
    cache: Arc<Cache>,
    board: Arc<Board>,
    seeds: Seeds,
}

fn settings(
    config: &Config,
    links: Links,
    shared: Shared,
    live: Arc<LiveSlot>,
    seat: &Seat,
) -> Settings {
    let Shared { cache, board, seeds } = shared;
    Settings {
        shard: seat.shard,
        shard_count: seat.shards,
        seed: seeds.shards ^ u64::from(seat.shard).wrapping_mul(0x9e37_79b9_7f4a_7c15),
        edge_id: config.id.as_str().into(),
        url: config.url.as_deref().map(Into::into),
        pop: config.pop.as_str().into(),
        engine: seat.taken.to_string().into(),
        control: links.control,
        parents: links.parents,
        // It stands behind the listeners that all shards have.
        relay: links.relay.filter(|_| seat.shard == 0),
        sites: config.sites.as_slice().into(),
        data: config.data.clone(),
        admin_listener: Some(config.listen.len() as ListenerId),
        listener_count: config.listen.len() as u16 + 1,
        sockets_max: seat.sockets_max,
        streams_max: match config.streams.max {
            0 => seat.sockets_max,
            max => engine::share_of(max, seat.shards),
        },
        rates: config.streams.rates(),
        cache,
        near_entries: limits::NEAR_ENTRIES,
        board,
        timeouts: config.timeouts,
        forward: config.forward,
        levels: config.compression.levels,
        explain: config.explain.clone(),
        live,
    }
}
