//! Starting and stopping control: data directory, store, first key, listener, tasks. And the
//! reasons not to start.

use std::{
    collections::HashMap,
    fmt, fs, io,
    net::SocketAddr,
    path::PathBuf,
    sync::{Arc, RwLock},
    time::Duration,
};

use tokio::{
    net::TcpListener,
    signal::unix::{SignalKind, signal},
    task::JoinHandle,
};

use crate::{
    App, Config, Store, api, app, clock,
    data_dir::{self, DataDir, DataDirError},
    limits,
    log::append::Origin,
    model::{
        api_key::{self, Scope},
        id::Seed,
    },
    observe::Counters,
    reconcile, serve,
    store::sqlite::{
        ReadPool, StoreError,
        identity::{self, Draw, Epoch},
        schema::{self, OpenError},
        writer::{self, Answer, Write, WriteError, WriterThread},
    },
};

/// Why control does not start, or had to stop.
#[derive(Debug)]
pub enum StartError {
    /// The data directory.
    DataDir(DataDirError),
    /// The database.
    Open(OpenError),
    /// What the database holds, or writing to it.
    Store(StoreError),
    /// The first API key's file.
    AdminKey(PathBuf, io::Error),
    /// The address.
    Listen(SocketAddr, io::Error),
    /// The signal handlers.
    Signals(io::Error),
    /// The disk did not confirm a write; nothing can be acknowledged until a restart.
    WriterEnded,
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::DataDir(error) => error.fmt(f),
            Self::Open(error) => error.fmt(f),
            Self::Store(error) => error.fmt(f),
            Self::AdminKey(path, _) => write!(f, "cannot write {}", path.display()),
            Self::Listen(address, error) if error.kind() == io::ErrorKind::AddrInUse => write!(
                f,
                "{address} is taken by another process: stop it, or choose another address for \
                 control (listen, --api)"
            ),
            Self::Listen(address, _) => write!(f, "cannot listen on {address}"),
            Self::Signals(_) => f.write_str("cannot handle signals"),
            Self::WriterEnded => f.write_str("the store stopped writing; see the log above"),
        }
    }
}

impl std::error::Error for StartError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::DataDir(error) => error.source(),
            Self::Open(error) => error.source(),
            Self::Store(error) => error.source(),
            Self::AdminKey(_, error) | Self::Listen(_, error) | Self::Signals(error) => Some(error),
            Self::WriterEnded => None,
        }
    }
}

/// Control at work.
pub struct Running {
    /// Where it listens.
    pub address: SocketAddr,
    /// The first API key's file.
    pub admin_key: PathBuf,
    /// What requests share, for reading in the same process.
    pub app: Arc<App>,
    tasks: Vec<JoinHandle<()>>,
    writer: Option<WriterThread>,
    _data: DataDir,
}

impl Running {
    /// Resolves when control cannot go on.
    pub async fn failed(&mut self) -> StartError {
        match &mut self.writer {
            Some(writer) => {
                let _ = (&mut writer.ended).await;
                StartError::WriterEnded
            }
            None => std::future::pending().await,
        }
    }

    /// Finishes open requests, ends feeds, closes the store.
    pub async fn stop(mut self) {
        self.app.stop.send_replace(true);
        for task in self.tasks.drain(..) {
            let limit = Duration::from_millis(limits::DRAIN_AFTER_MS_MAX + 1_000);
            let abort = task.abort_handle();
            if tokio::time::timeout(limit, task).await.is_err() {
                abort.abort();
            }
        }
        drop(self.app);
        if let Some(writer) = self.writer.take() {
            // The thread ends when the last handle is gone; one that hangs must not keep us.
            let joined = tokio::task::spawn_blocking(move || writer.join());
            let _ = tokio::time::timeout(Duration::from_secs(5), joined).await;
        }
    }
}

/// Starts control; the log is open and the address bound when this returns.
pub async fn start(config: Config) -> Result<Running, StartError> {
    let data = DataDir::open(&config.data).map_err(StartError::DataDir)?;
    let database = schema::file(data.path());
    let counters = Arc::new(Counters::default());
    let (store, keyring, writer) = open_store(&config, &data, &counters)?;
    let reports: HashMap<_, _> = store
        .reads
        .with(|reader| reader.edge_reports())
        .await
        .map_err(StartError::Store)?
        .into_iter()
        .collect();
    let app = Arc::new(App::new(config, store, keyring, counters, reports));
    app.count_events().await.map_err(StartError::Store)?;
    let admin_key = data.file("admin.key");
    first_key(&app, &admin_key).await?;
    let listen = app.config.listen;
    let listen_error = |error| StartError::Listen(listen, error);
    let listener = TcpListener::bind(listen).await.map_err(listen_error)?;
    let address = listener.local_addr().map_err(listen_error)?;
    let _ = app.bound.set(address);
    let router = api::router(Arc::clone(&app));
    let tasks = vec![
        tokio::spawn(serve::run(listener, router, Arc::clone(&app.counters), app.stopping())),
        tokio::spawn(reconcile::run(Arc::clone(&app), app.stopping())),
    ];
    tracing::info!(%address, database = %database.display(), "control is up");
    Ok(Running { address, admin_key, app, tasks, writer: Some(writer), _data: data })
}

/// Runs control until SIGTERM or SIGINT.
pub async fn run(config: Config) -> Result<(), StartError> {
    let mut terminate = signal(SignalKind::terminate()).map_err(StartError::Signals)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(StartError::Signals)?;
    let mut running = start(config).await?;
    let failed = tokio::select! {
        _ = terminate.recv() => None,
        _ = interrupt.recv() => None,
        error = running.failed() => Some(error),
    };
    running.stop().await;
    failed.map_or(Ok(()), Err)
}

fn open_store(
    config: &Config,
    data: &DataDir,
    counters: &Arc<Counters>,
) -> Result<(Store, writer::Keyring, WriterThread), StartError> {
    let database = schema::file(data.path());
    let epoch_file = data.file("epoch");
    let unusable = |error| StartError::DataDir(DataDirError::Unusable(epoch_file.clone(), error));
    let mut epoch = Epoch::open(&epoch_file).map_err(unusable)?;
    let conn = schema::open_writer(&database).map_err(StartError::Open)?;
    let draw =
        Draw { region: config.region.clone(), now_ms: clock::wall_ms(), random: clock::random() };
    let (head, renewed) =
        identity::load(&conn, &database, &mut epoch, &draw).map_err(StartError::Store)?;
    // A full disk must not keep control from starting: without the file the next start is a new
    // incarnation.
    if let Err(error) = epoch.write_synced(&head) {
        tracing::warn!(%error, "the epoch file could not be written");
    }
    match renewed {
        Some(identity::Reason::Created) => tracing::info!(replica = %head.replica, "a new store"),
        Some(reason) => tracing::warn!(
            replica = %head.replica, position = head.position,
            "a new incarnation, because {}", reason.as_str()
        ),
        None => {}
    }
    let keyring = Arc::new(RwLock::new(HashMap::new()));
    let (writer, thread) =
        writer::start(conn, epoch, head, Arc::clone(&keyring), Arc::clone(counters))
            .map_err(StartError::Store)?;
    let open = |count| ReadPool::open(&database, count).map_err(StartError::Store);
    let store = Store {
        writer,
        reads: open(limits::READ_CONNECTIONS_MAX)?,
        feed_reads: open(limits::FEED_CONNECTIONS_MAX)?,
        database: database.clone(),
    };
    Ok((store, keyring, thread))
}

/// Makes the first API key where there is no live one of scope admin. The file comes first: a crash
/// in between leaves a secret without a key, which the next start takes up.
async fn first_key(app: &Arc<App>, path: &std::path::Path) -> Result<(), StartError> {
    let keys = app.read(|reader| reader.api_keys(None, limits::API_KEYS_MAX)).await;
    let keys = keys.map_err(StartError::Store)?;
    if keys.iter().any(|key| key.scopes.contains(&Scope::Admin)) {
        return Ok(());
    }
    let kept = fs::read_to_string(path).map(|text| text.trim().to_owned());
    let secret = match kept {
        Ok(secret) if api_key::is_secret(&secret) => secret,
        _ => {
            let secret = api_key::secret(&clock::random());
            data_dir::write_secret(path, &secret)
                .map_err(|error| StartError::AdminKey(path.to_owned(), error))?;
            secret
        }
    };
    let origin =
        Origin { actor: "system".into(), request: "first-key".into(), now_ms: clock::wall_ms() };
    let work = move |txn: &mut crate::store::sqlite::Txn<'_>| {
        app::api_key::create(txn, "first admin key".into(), vec![Scope::Admin], None, &secret)?;
        Ok(Answer::default())
    };
    let write = Write {
        origin,
        seed: Seed(clock::random()),
        idempotency: None,
        dry_run: false,
        work: Box::new(work),
    };
    match app.store.writer.write(write).await {
        Ok(_) => Ok(()),
        Err(WriteError::Refused(app::Refusal::Store(error))) => Err(StartError::Store(error)),
        Err(_) => Err(StartError::Store(StoreError::Stopped)),
    }
}
