//! Pharos itself: an edge with one shard and one site in front of the same origin.

use std::path::Path;

use crate::{
    failure::Failure,
    options::EngineChoice,
    peer::{Ground, HOST, Plan},
    probe,
};

/// An edge without control.
///
/// # Errors
/// No free port.
pub(crate) fn plan(program: &Path, ground: &Ground, engine: EngineChoice) -> Result<Plan, Failure> {
    let failed = |error| Failure::error("find a port for pharos").because(error);
    let listen = probe::free_address().map_err(failed)?;
    let admin = probe::free_address().map_err(failed)?;
    let name = "pharos".to_owned();
    let config = format!(
        "id = \"bench\"
listen = [\"{listen}\"]
admin = \"{admin}\"
shards = 1
engine = \"{engine}\"

[cache]
memory = \"256MiB\"

[[site]]
name = \"bench\"
hosts = [\"{HOST}\"]
origins = [{{ url = \"http://{origin}\" }}]
",
        engine = match engine {
            EngineChoice::Auto => "auto",
            EngineChoice::IoUring => "io_uring",
            EngineChoice::Epoll => "epoll",
        },
        origin = ground.origin,
    );
    let path = ground.folder.join(&name).join("edge.toml").display().to_string();
    Ok(Plan {
        name,
        program: program.to_owned(),
        arguments: ["edge", "--config", &path].map(str::to_owned).to_vec(),
        files: vec![("edge.toml", config)],
        listen,
        package: "pharos",
        choice: "one shard".into(),
    })
}
