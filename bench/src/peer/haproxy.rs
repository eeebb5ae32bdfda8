//! HAProxy as a cache: one thread, its shared-memory cache, connections kept, no logs.
//!
//! Objects are copied through buffers, so for long ones the size of those matters: sizes are tried
//! first and the cheapest one runs.

use crate::{
    failure::Failure,
    peer::{Ground, Plan},
    probe,
};

/// Buffer sizes worth trying, in bytes.
pub(crate) const BUFFER_BYTES: [u32; 3] = [16_384, 65_536, 131_072];

/// HAProxy with a cache, with buffers of this size.
///
/// # Errors
/// No free port.
pub(crate) fn plan(ground: &Ground, buffer_bytes: u32) -> Result<Plan, Failure> {
    let listen = probe::free_address()
        .map_err(|error| Failure::error("find a port for haproxy").because(error))?;
    let name = format!("haproxy-{buffer_bytes}");
    let config = format!(
        "global
  nbthread 1
  ulimit-n {descriptors}
  maxconn {maxconn}
  tune.bufsize {buffer_bytes}
  tune.maxrewrite 1024
defaults
  mode http
  option http-keep-alive
  option dontlognull
  http-reuse always
  timeout connect 5s
  timeout client 1h
  timeout server 1h
  timeout http-keep-alive 1h
cache bench
  total-max-size 256
  max-object-size 10000000
  max-age 3600
  process-vary off
frontend visitors
  bind {listen} backlog 4096
  http-request cache-use bench
  http-response cache-store bench
  default_backend origin
backend origin
  server origin {origin} pool-max-conn 256
",
        // It wants two descriptors for each, whether the cache answers or not.
        maxconn = (ground.descriptors / 2).saturating_sub(200).min(ground.sockets + 1_000),
        descriptors = ground.descriptors,
        origin = ground.origin,
    );
    let path = ground.folder.path.join(&name).join("haproxy.cfg").display().to_string();
    Ok(Plan {
        name,
        program: "haproxy".into(),
        arguments: ["-db", "-f", &path].map(str::to_owned).to_vec(),
        files: vec![("haproxy.cfg", config)],
        listen,
        version_flag: "-v",
        package: "haproxy",
        choice: format!("nbthread 1, tune.bufsize {buffer_bytes}"),
    })
}
