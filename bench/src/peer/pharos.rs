//! Pharos itself: for requests, an edge with one shard and one site in front of the same origin;
//! for streams, control and an edge that carries one of its pages.

use std::{
    fs, io,
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use serde_json::{Value, json};

use crate::{
    clock,
    failure::Failure,
    options::EngineChoice,
    peer::{Ground, HOST, Peer, Plan},
    probe,
};

/// What an edge has to itself.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Room {
    pub(crate) shards: u16,
    pub(crate) cache_mib: u32,
}

/// An edge without control.
///
/// # Errors
/// No free port.
pub(crate) fn plan(
    program: &Path,
    ground: &Ground,
    engine: EngineChoice,
    room: Room,
) -> Result<Plan, Failure> {
    let failed = |error| Failure::error("find a port for pharos").because(error);
    let listen = probe::free_address().map_err(failed)?;
    let admin = probe::free_address().map_err(failed)?;
    // Several may run at a time.
    let name = format!("pharos-{}", listen.port());
    let config = format!(
        "id = \"bench\"
listen = [\"{listen}\"]
admin = \"{admin}\"
shards = {shards}
engine = \"{engine}\"

[cache]
memory = \"{cache_mib}MiB\"

[[site]]
name = \"bench\"
hosts = [\"{HOST}\"]
origins = [{{ url = \"http://{origin}\" }}]
",
        shards = room.shards,
        engine = engine_name(engine),
        cache_mib = room.cache_mib,
        origin = ground.origin,
    );
    let path = ground.folder.path.join(&name).join("edge.toml").display().to_string();
    Ok(Plan {
        name,
        program: program.to_owned(),
        arguments: ["edge", "--config", &path].map(str::to_owned).to_vec(),
        files: vec![("edge.toml", config)],
        listen,
        version_flag: "--version",
        package: "pharos",
        choice: format!("{} shards, cache of {} MiB", room.shards, room.cache_mib),
    })
}

/// Control with one page, and everything an edge and a publisher need to know of it.
#[derive(Debug)]
pub(crate) struct Control {
    /// Stops it when dropped.
    _peer: Peer,
    pub(crate) address: SocketAddr,
    pub(crate) admin_key: String,
    edge_key: String,
}

impl Control {
    /// Starts control on `core` and makes a page `bench` with one component.
    ///
    /// # Errors
    /// It does not start, or refuses a request; names which.
    pub(crate) fn start(program: &Path, ground: &Ground, core: usize) -> Result<Self, Failure> {
        let failed = |error: io::Error| Failure::error("start pharos control").because(error);
        let address = probe::free_address().map_err(failed)?;
        let name = "pharos-control".to_owned();
        let folder = ground.folder.path.join(&name);
        let data = folder.join("data");
        let config =
            format!("region = \"bench\"\nlisten = \"{address}\"\ndata = \"{}\"\n", data.display());
        let path = folder.join("control.toml").display().to_string();
        let plan = Plan {
            name,
            program: program.to_owned(),
            arguments: ["control", "--config", &path].map(str::to_owned).to_vec(),
            files: vec![("control.toml", config)],
            listen: address,
            version_flag: "--version",
            package: "pharos",
            choice: "beside the load".into(),
        };
        let peer = plan.start(&ground.folder.path, core, "/openapi.json")?;
        let admin_key = fs::read_to_string(data.join("admin.key")).map_err(failed)?;
        let mut control = Self {
            _peer: peer,
            address,
            admin_key: admin_key.trim().to_owned(),
            edge_key: "".into(),
        };
        control.post("/v1/pages", &json!({ "slug": PAGE, "name": "Bench" }))?;
        let component = json!({ "slug": "api", "name": "API" });
        control.post(&format!("/v1/pages/{PAGE}/components"), &component)?;
        let edge = control.post("/v1/edges", &json!({ "name": "bench" }))?;
        let key = edge["key"].as_str();
        control.edge_key =
            key.ok_or_else(|| Failure::error("pharos control gave no key for an edge"))?.to_owned();
        Ok(control)
    }

    /// Fields of every request to the API.
    pub(crate) fn fields(&self) -> Vec<String> {
        vec![
            format!("Authorization: Bearer {}", self.admin_key),
            "Content-Type: application/json".to_owned(),
        ]
    }

    /// Asks the API for something.
    ///
    /// # Errors
    /// It cannot be reached, or refuses.
    pub(crate) fn post(&self, path: &str, body: &Value) -> Result<Value, Failure> {
        let what = || format!("POST {path} to pharos control");
        let text = body.to_string();
        let answer = probe::ask(self.address, "POST", path, &self.fields(), text.as_bytes())
            .map_err(|error| Failure::error(what()).because(error))?;
        if !(200..300).contains(&answer.head.status) {
            let said = String::from_utf8_lossy(&answer.content).into_owned();
            return Err(
                Failure::error(what()).because(format!("answered {}: {said}", answer.head.status))
            );
        }
        serde_json::from_slice(&answer.content)
            .map_err(|error| Failure::error(what()).because(error))
    }

    /// An edge of this control, with as many shards as descriptors demand.
    ///
    /// # Errors
    /// No free port, or the key cannot be written.
    pub(crate) fn edge(
        &self,
        program: &Path,
        ground: &Ground,
        engine: EngineChoice,
    ) -> Result<Plan, Failure> {
        let failed = |error: io::Error| Failure::error("prepare an edge").because(error);
        let listen = probe::free_address().map_err(failed)?;
        let admin = probe::free_address().map_err(failed)?;
        let name = "pharos-edge".to_owned();
        let folder = ground.folder.path.join(&name);
        // SO_REUSEPORT spreads by hash, within a few per cent: a tenth more than an even share.
        let room = ground.descriptors.saturating_sub(1_000).max(1);
        let shards = (ground.sockets + ground.sockets / 10).div_ceil(room).max(1);
        let config = format!(
            "id = \"bench\"
listen = [\"{listen}\"]
admin = \"{admin}\"
shards = {shards}
engine = \"{engine}\"

[control]
url = \"http://{control}\"
key_file = \"edge.key\"
",
            engine = engine_name(engine),
            control = self.address,
        );
        let path = folder.join("edge.toml").display().to_string();
        Ok(Plan {
            name,
            program: program.to_owned(),
            arguments: ["edge", "--config", &path].map(str::to_owned).to_vec(),
            files: vec![("edge.toml", config), ("edge.key", format!("{}\n", self.edge_key))],
            listen,
            version_flag: "--version",
            package: "pharos",
            choice: format!("{shards} shards on one core"),
        })
    }
}

/// Waits until an edge serves the page.
///
/// # Errors
/// It does not within [`PAGE_MAX`].
pub(crate) fn wait_for_page(edge: &Peer) -> Result<(), Failure> {
    let path = format!("/{PAGE}/");
    let mut status = None;
    let served = clock::wait_for(Duration::from_millis(50), PAGE_MAX, || {
        status = probe::ask(edge.plan.listen, "GET", &path, &[], &[]).ok().map(|a| a.head.status);
        status == Some(200)
    });
    let text = || format!("the edge does not serve {path} (last status: {status:?})");
    if served { Ok(()) } else { Err(Failure::timeout(text())) }
}

/// Where the program lies.
pub(crate) fn program(chosen: Option<&PathBuf>, myself: &Path) -> PathBuf {
    chosen.cloned().unwrap_or_else(|| myself.to_owned())
}

fn engine_name(engine: EngineChoice) -> &'static str {
    match engine {
        EngineChoice::Auto => "auto",
        EngineChoice::IoUring => "io_uring",
        EngineChoice::Epoll => "epoll",
    }
}

/// Slug of the page with the streams.
pub(crate) const PAGE: &str = "bench";
const PAGE_MAX: Duration = Duration::from_secs(20);
