//! Varnish as a cache: objects in memory, threads ready beforehand, shared-memory log without
//! per-request records.

use crate::{
    failure::Failure,
    peer::{Ground, Plan},
    probe,
};

/// Varnish with malloc storage.
///
/// # Errors
/// No free port.
pub(crate) fn plan(ground: &Ground) -> Result<Plan, Failure> {
    let listen = probe::free_address()
        .map_err(|error| Failure::error("find a port for varnish").because(error))?;
    let name = "varnish".to_owned();
    let folder = ground.folder.join(&name);
    let vcl = format!(
        "vcl 4.1;
backend origin {{ .host = \"{host}\"; .port = \"{port}\"; }}
",
        host = ground.origin.ip(),
        port = ground.origin.port(),
    );
    let arguments = [
        "-F",
        "-n",
        &folder.join("work").display().to_string(),
        "-a",
        &listen.to_string(),
        "-f",
        &folder.join("bench.vcl").display().to_string(),
        "-s",
        "malloc,256m",
        "-p",
        "thread_pools=1",
        "-p",
        "thread_pool_min=200",
        "-p",
        "timeout_idle=3600",
        "-p",
        "vsl_mask=none",
    ];
    Ok(Plan {
        name,
        program: "varnishd".into(),
        arguments: arguments.map(str::to_owned).to_vec(),
        files: vec![("bench.vcl", vcl)],
        listen,
        version_flag: "-V",
        package: "varnish",
        choice: "malloc storage, one pool of 200 threads, no log records".into(),
    })
}
