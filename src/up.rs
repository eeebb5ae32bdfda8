//! `pharos up`: control and an edge on this machine, as supervised children, and on first start a
//! page that lives.
//!
//! ```text
//!  lock data ─▶ look at ports ─▶ control ─ready─▶ enrol edge, build demo (once)
//!            ─▶ edge ─ready─▶ say so ─▶ watch
//! ```
//! Owns the data folder: `lock` (held while running), `edge.toml` and `edge.key` (made once),
//! `demo` (the demo page was built). Everything else in it is control's and the edge's.
//!
//! Leaves to others: keeping children alive and ending them (`supervise`), the demo's content
//! (`demo`).

use std::{
    ffi::OsString,
    fs::{self, File, OpenOptions, TryLockError},
    io::{Read, Write},
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use clap::Args;
use serde_json::{Value, json};
use tokio::{
    process::Child,
    signal::unix::{Signal, SignalKind, signal},
    sync::watch,
    task::spawn_blocking,
    time::sleep,
};

use crate::{
    client::{Client, read_key},
    clock, demo,
    exit::{Failure, Kind},
    limits, output, port,
    role::edge::{Engine, write_secret},
    supervise::{Order, Role},
};

#[derive(Clone, Debug, Args)]
#[command(after_help = "\
Examples:
  pharos up
  pharos up --data /var/lib/pharos --edge 127.0.0.1:8090
  pharos up --edge 0.0.0.0:8080 --allow-plaintext     for visitors from elsewhere; API and admin stay local

Runs until Ctrl-C or SIGTERM, which drains the edge first. SIGHUP makes the edge read its
configuration (edge.toml in the data folder) again. A crash of control or edge never touches the other.")]
pub(crate) struct Options {
    /// Folder for everything that is kept; made if missing
    #[arg(long, env = "PHAROS_DATA", default_value = DEFAULT_DATA, value_name = "FOLDER")]
    data: PathBuf,
    /// Where the edge listens for visitors
    #[arg(long, default_value = "127.0.0.1:8080", value_name = "ADDRESS")]
    edge: SocketAddr,
    /// Where control's API listens
    #[arg(long, default_value = "127.0.0.1:7400", value_name = "ADDRESS")]
    api: SocketAddr,
    /// Where the edge's health, metrics and status listen
    #[arg(long, default_value = "127.0.0.1:7401", value_name = "ADDRESS")]
    admin: SocketAddr,
    /// What drives the edge's shards [default: as in edge.toml, there auto]
    #[arg(long, value_enum)]
    engine: Option<Engine>,
    /// Shards of the edge, 0 for one on each core [default: as in edge.toml, there 0]
    #[arg(long, value_name = "NUMBER")]
    shards: Option<u16>,
    /// Allow --edge, --api and --admin beyond loopback, unencrypted, until TLS is there
    #[arg(long)]
    allow_plaintext: bool,
    /// Build no demo page
    #[arg(long)]
    no_demo: bool,
}

/// Runs until told to end.
pub(crate) fn run(options: Options) -> Result<(), Failure> {
    for (address, flag) in
        [(options.edge, "--edge"), (options.api, "--api"), (options.admin, "--admin")]
    {
        if address.port() == 0 {
            return Err(Failure::new(Kind::Usage, format!("{flag} {address} has no port"))
                .remedy(format!("choose one, such as {flag} {}:8090", address.ip())));
        }
    }
    options.check_plaintext()?;
    make_folder(&options.data)?;
    let _lock = lock(&options.data)?;
    port::check(options.edge, "--edge")?;
    port::check(options.api, "--api")?;
    port::check(options.admin, "--admin")?;
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::because("starting the supervisor", &error))?
        .block_on(supervise(options))
}

async fn supervise(options: Options) -> Result<(), Failure> {
    let mut signals = Signals::new()?;
    let (orders, told) = watch::channel(Order::Run { reloads: 0 });
    let (control, edge) = (options.control_role(), options.edge_role());
    let mut control_child = control.spawn()?;
    let started = tokio::select! {
        started = start_edge(&options, &mut control_child, &edge) => started,
        () = signals.end() => Err(Failure::error("told to end before everything was ready")),
    };
    let edge_child = match started {
        Ok(child) => child,
        Err(failure) => {
            control.end(control_child, told).await;
            return Err(failure);
        }
    };
    let children = async {
        tokio::join!(
            edge.keep(edge_child, told.clone()),
            control.keep(control_child, told.clone())
        );
    };
    let steer = async {
        signals.end_or_reload(&orders).await;
        output::talk("draining; once more to end at once");
        orders.send_replace(Order::Stop);
        signals.end().await;
        orders.send_replace(Order::Kill);
        std::future::pending::<()>().await;
    };
    tokio::select! {
        () = children => {}
        () = steer => {}
    }
    Ok(())
}

/// From a control that has just been started to an edge that serves.
async fn start_edge(options: &Options, control: &mut Child, edge: &Role) -> Result<Child, Failure> {
    ready("control", &format!("http://{}/healthz", reachable(options.api)), control).await?;
    let first = {
        let options = options.clone();
        blocking(move || first_start(&options)).await?
    };
    let mut child = edge.spawn()?;
    let outcome = async {
        ready("the edge", &format!("http://{}/readyz", reachable(options.admin)), &mut child)
            .await?;
        let status = format!("http://{}/v1/status", reachable(options.admin));
        blocking(move || look(&status)).await
    };
    match outcome.await {
        Ok(status) => {
            output::data(&summary(options, first, &status))?;
            Ok(child)
        }
        Err(failure) => {
            let _ = child.kill().await;
            Err(failure)
        }
    }
}

/// What is done once for a data folder: an edge with its own key, and the demo page.
fn first_start(options: &Options) -> Result<bool, Failure> {
    let client = Client::new(
        &format!("http://{}", reachable(options.api)),
        &read_key(&options.key_file())?,
    )?;
    let (config, key) = (options.edge_config(), options.data.join("edge.key"));
    if !key.exists() {
        let edge = enrol(&client)?;
        write_secret(&key, edge["key"].as_str().unwrap_or_default())?;
    }
    if !config.exists() {
        write_secret(&config, &options.edge_toml())?;
    }
    let marker = options.data.join("demo");
    if options.no_demo || marker.exists() {
        return Ok(false);
    }
    let built = demo::build(&client)?;
    let text = "The demo page was built; it is not built again while this file is here.\n";
    fs::write(&marker, text)
        .map_err(|error| Failure::because(format!("writing {}", marker.display()), &error))?;
    Ok(built)
}

/// Enrols this machine's edge. One of that name whose key was lost is revoked first.
fn enrol(client: &Client) -> Result<Value, Failure> {
    let body = json!({"name": EDGE_NAME});
    match client.post("/v1/edges", &body) {
        Err(failure) if failure.kind() == Kind::Conflict => {
            let known = client.list("/v1/edges")?;
            for edge in known.iter().filter(|edge| edge["name"] == EDGE_NAME) {
                client.delete(&format!("/v1/edges/{}", output::text(edge, "/id")))?;
            }
            client.post("/v1/edges", &body)
        }
        outcome => outcome,
    }
}

/// Waits until `url` answers 200, as long as the child lives.
async fn ready(name: &str, url: &str, child: &mut Child) -> Result<(), Failure> {
    let deadline = clock::now() + limits::READY_AFTER;
    loop {
        let look_at = url.to_owned();
        if blocking(move || look(&look_at)).await.is_ok() {
            return Ok(());
        }
        if let Ok(Some(status)) = child.try_wait() {
            return Err(Failure::error(format!("{name} ended while starting ({status})"))
                .remedy("its own message above says why"));
        }
        if clock::now() >= deadline {
            let seconds = limits::READY_AFTER.as_secs();
            return Err(Failure::new(
                Kind::Timeout,
                format!("{name} was not ready in {seconds} s"),
            ));
        }
        sleep(limits::LOOK_EVERY).await;
    }
}

/// One GET without a key; the answer's JSON, if it is any.
fn look(url: &str) -> Result<Value, Failure> {
    let config = ureq::Agent::config_builder().timeout_global(Some(limits::LOOK_AFTER)).build();
    let mut response = ureq::Agent::from(config)
        .get(url)
        .call()
        .map_err(|error| Failure::because(format!("asking {url}"), &error))?;
    let text = response.body_mut().read_to_string().unwrap_or_default();
    Ok(serde_json::from_str(&text).unwrap_or(Value::Null))
}

/// Runs what blocks on a thread of its own, so that children and signals are still attended to.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Failure> + Send + 'static,
) -> Result<T, Failure> {
    spawn_blocking(work).await.map_err(|error| Failure::because("waiting for a task", &error))?
}

impl Options {
    /// Before anything is started: what listens beyond loopback is allowed by name only.
    fn check_plaintext(&self) -> Result<(), Failure> {
        let named = [(self.edge, "--edge"), (self.api, "--api"), (self.admin, "--admin")];
        let open = named.iter().find(|(address, _)| !address.ip().is_loopback());
        match open.filter(|_| !self.allow_plaintext) {
            None => Ok(()),
            Some((address, flag)) => {
                let message = format!("{flag} {address} would be reachable unencrypted");
                Err(Failure::new(Kind::Usage, message)
                    .remedy("add --allow-plaintext if that is meant; TLS is not there yet"))
            }
        }
    }

    fn key_file(&self) -> PathBuf {
        self.data.join("admin.key")
    }

    fn edge_config(&self) -> PathBuf {
        self.data.join("edge.toml")
    }

    fn control_role(&self) -> Role {
        let mut arguments: Vec<OsString> = vec![
            "control".into(),
            "--data".into(),
            self.data.clone().into(),
            "--listen".into(),
            self.api.to_string().into(),
            "--pages-url".into(),
            format!("http://{}", reachable(self.edge)).into(),
        ];
        arguments.extend(self.allow_plaintext.then(|| ALLOW_PLAINTEXT.into()));
        Role { name: "control", arguments }
    }

    fn edge_role(&self) -> Role {
        let mut arguments: Vec<OsString> = vec![
            "edge".into(),
            "--config".into(),
            self.edge_config().into(),
            "--listen".into(),
            self.edge.to_string().into(),
            "--admin".into(),
            self.admin.to_string().into(),
            "--control-url".into(),
            format!("http://{}", reachable(self.api)).into(),
        ];
        arguments.extend(self.allow_plaintext.then(|| ALLOW_PLAINTEXT.into()));
        if let Some(engine) = self.engine {
            arguments.extend(["--engine".into(), engine.word().into()]);
        }
        if let Some(shards) = self.shards {
            arguments.extend(["--shards".into(), shards.to_string().into()]);
        }
        Role { name: "the edge", arguments }
    }

    fn edge_toml(&self) -> String {
        format!(
            "# Written by `pharos up` at its first start. Its flags --edge, --admin and --api win over the\n\
             # addresses here; everything else is yours to change (then: kill -HUP the edge, or start again).\n\
             id = \"{EDGE_NAME}\"\n\
             pop = \"local\"\n\
             listen = [\"{}\"]\n\
             admin = \"{}\"\n\
             data = \"edge\"\n\
             shards = 0\n\
             engine = \"auto\"\n\
             \n\
             [control]\n\
             url = \"http://{}\"\n\
             key_file = \"edge.key\"\n\
             \n\
             [timeouts]\n\
             drain_ms = 5000\n",
            self.edge,
            self.admin,
            reachable(self.api),
        )
    }
}

/// What a newcomer wants to know, and what to try first.
fn summary(options: &Options, demo: bool, status: &Value) -> String {
    let program = program();
    let [edge, api, admin] = [options.edge, options.api, options.admin].map(reachable);
    let key = options.key_file();
    // The other terminal may stand in another folder, and paths below are as they were given here.
    let folder = std::env::current_dir().unwrap_or_default();
    let folder = quote(&folder.display().to_string());
    let mut flags = String::new();
    if api.to_string() != "127.0.0.1:7400" {
        flags.push_str(&format!(" --url http://{api}"));
    }
    if options.data.components().ne(Path::new(DEFAULT_DATA).components()) {
        flags.push_str(&format!(" --key-file {}", quote(&key.display().to_string())));
    }
    let page = if demo { format!("http://{edge}/demo/") } else { format!("http://{edge}/") };
    format!(
        "\n\
         Pharos is up.\n\
         \n\
         \x20 pages    {page}\n\
         \x20 API      http://{api}    key: {}\n\
         \x20 admin    http://{admin}/v1/status    also /livez, /readyz, /metrics\n\
         \x20 engine   {}\n\
         \x20 data     {}\n\
         \n\
         Open the page, then try, in another terminal:\n\
         \n\
         \x20 cd {folder}\n\
         \x20 {program} incident create --page demo --title 'The API is slow' --component api=degraded_performance \
         --message 'We are looking into it.'{flags}\n\
         \x20 {program} incident list --page demo{flags}\n\
         \x20 curl -i http://{edge}/demo/api/v2/summary.json\n\
         \n\
         Ctrl-C ends it; everything is kept in {}.\n\n",
        key.display(),
        engine(status),
        options.data.display(),
        options.data.display(),
    )
}

/// The engine and why, as the edge tells it.
fn engine(status: &Value) -> String {
    let told = &status["engine"];
    let texts = ["kind", "name", "why"].map(|name| output::text(&told[name], ""));
    let words: Vec<String> = match told {
        Value::String(text) => vec![text.clone()],
        _ => texts.into_iter().filter(|text| !text.is_empty()).collect(),
    };
    words.join(", ")
}

/// Where one reaches, on this machine, what listens there.
fn reachable(address: SocketAddr) -> SocketAddr {
    let ip = match address {
        SocketAddr::V4(v4) if v4.ip().is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        SocketAddr::V6(v6) if v6.ip().is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        _ => address.ip(),
    };
    SocketAddr::new(ip, address.port())
}

/// How this program was called, so that what is printed works when pasted here.
fn program() -> String {
    let called = std::env::args().next().unwrap_or_default();
    if called.is_empty() { "pharos".to_owned() } else { quote(&called) }
}

/// As one word of a POSIX shell.
fn quote(text: &str) -> String {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"/._-+:@%".contains(&b);
    if !text.is_empty() && text.bytes().all(plain) {
        text.to_owned()
    } else {
        format!("'{}'", text.replace('\'', r"'\''"))
    }
}

fn make_folder(data: &Path) -> Result<(), Failure> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(data).map_err(|error| {
        Failure::because(format!("making the data folder {}", data.display()), &error)
            .remedy("choose another with --data, or give this user the right to write there")
    })
}

/// Holds the data folder for this process; the lock ends with the process, however that ends.
fn lock(data: &Path) -> Result<File, Failure> {
    let path = data.join("lock");
    let failed = |error: &std::io::Error| {
        Failure::because(format!("locking {}", path.display()), error)
            .remedy("the data folder must belong to the user that runs pharos")
    };
    let mut file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(&path)
        .map_err(|error| failed(&error))?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::Error(error)) => return Err(failed(&error)),
        Err(TryLockError::WouldBlock) => {
            let mut pid = String::new();
            let _ = file.read_to_string(&mut pid);
            let message = format!("{} is in use by pid {}", data.display(), pid.trim());
            return Err(Failure::error(message)
                .remedy("stop that process, or choose another folder with --data"));
        }
    }
    file.set_len(0).map_err(|error| failed(&error))?;
    writeln!(file, "{}", std::process::id()).map_err(|error| failed(&error))?;
    Ok(file)
}

/// The signals that `up` listens to.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hang_up: Signal,
    upgrade: Signal,
}

impl Signals {
    fn new() -> Result<Self, Failure> {
        let listen =
            |kind| signal(kind).map_err(|error| Failure::because("listening to signals", &error));
        Ok(Self {
            terminate: listen(SignalKind::terminate())?,
            interrupt: listen(SignalKind::interrupt())?,
            hang_up: listen(SignalKind::hangup())?,
            upgrade: listen(SignalKind::user_defined2())?,
        })
    }

    /// Waits until told to end.
    async fn end(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }

    /// Waits until told to end; meanwhile passes on each wish to reload.
    async fn end_or_reload(&mut self, orders: &watch::Sender<Order>) {
        let mut count = 0;
        loop {
            tokio::select! {
                _ = self.terminate.recv() => return,
                _ = self.interrupt.recv() => return,
                _ = self.hang_up.recv() => {
                    count += 1;
                    orders.send_replace(Order::Run { reloads: count });
                }
                _ = self.upgrade.recv() => output::talk(
                    "SIGUSR2: upgrading a running process is not built yet; end this one and start \
                     the new one, everything is kept",
                ),
            }
        }
    }
}

/// The roles' own flag.
const ALLOW_PLAINTEXT: &str = "--allow-plaintext";
/// The name of the edge that `up` runs.
const EDGE_NAME: &str = "local";
/// Where data goes unless said otherwise; `crate::client` looks for the key there.
const DEFAULT_DATA: &str = "./pharos-data";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_process_on_the_same_data_is_told_who_has_it() {
        let folder = tempfile::tempdir().unwrap();
        let held = lock(folder.path()).unwrap();
        let failure = lock(folder.path()).unwrap_err();
        assert!(format!("{failure:?}").contains(&format!("pid {}", std::process::id())));
        drop(held);
        assert!(lock(folder.path()).is_ok());
    }

    #[test]
    fn what_listens_beyond_this_machine_is_allowed_by_name_only() {
        #[derive(clap::Parser)]
        struct Line {
            #[command(flatten)]
            options: Options,
        }
        let check = |words: &[&str]| {
            let words = [&["up"], words].concat();
            <Line as clap::Parser>::try_parse_from(words).unwrap().options.check_plaintext()
        };
        assert!(check(&[]).is_ok());
        let failure = check(&["--edge", "0.0.0.0:80"]).unwrap_err();
        assert!(failure.kind() == Kind::Usage && failure.line().contains("--allow-plaintext"));
        assert!(check(&["--edge", "0.0.0.0:80", "--allow-plaintext"]).is_ok());
        assert_eq!(reachable("[::]:80".parse().unwrap()), "[::1]:80".parse().unwrap());
    }

    #[test]
    fn printed_commands_survive_the_shell() {
        assert_eq!(quote("target/release/pharos"), "target/release/pharos");
        assert_eq!(quote("/a b/it's"), r"'/a b/it'\''s'");
        assert_eq!(quote(""), "''");
    }

    #[test]
    fn the_engine_is_told_in_words_whatever_the_edges_form() {
        assert_eq!(engine(&json!({"engine": "epoll"})), "epoll");
        let told = json!({"engine": {"kind": "io_uring", "why": "6.8"}});
        assert_eq!(engine(&told), "io_uring, 6.8");
    }
}
