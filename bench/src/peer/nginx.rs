//! nginx as a cache: one worker, the cache on tmpfs, descriptors of cached files kept open, no
//! logs, connections kept without end.
//!
//! How a file is sent is a choice that depends on its size, so the variants are tried first and the
//! cheapest one runs.

use std::path::Path;

use crate::{
    failure::Failure,
    peer::{Ground, Plan},
    probe,
};

/// A way to send a cached file.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Variant {
    /// Read into a buffer; head and body in one write.
    Read,
    /// sendfile(2) behind the head.
    Sendfile,
    /// The same, the head held back until the file follows.
    SendfilePush,
}

impl Variant {
    pub(crate) const ALL: [Self; 3] = [Self::Read, Self::Sendfile, Self::SendfilePush];

    fn lines(self) -> &'static str {
        match self {
            Self::Read => "sendfile off; output_buffers 2 128k;",
            Self::Sendfile => "sendfile on; tcp_nopush off;",
            Self::SendfilePush => "sendfile on; tcp_nopush on;",
        }
    }
}

/// nginx with `proxy_cache`, sending cached files in one of the ways.
///
/// # Errors
/// No free port.
pub(crate) fn plan(ground: &Ground, variant: Variant) -> Result<Plan, Failure> {
    let listen = probe::free_address()
        .map_err(|error| Failure::error("find a port for nginx").because(error))?;
    let name = format!("nginx-{variant:?}").to_ascii_lowercase();
    let folder = ground.folder.path.join(&name);
    let config = format!(
        "{main}http {{
{http}  {variant}
  open_file_cache max=100000 inactive=1h;
  open_file_cache_valid 1h;
  proxy_cache_path {folder}/cache keys_zone=cache:64m inactive=1d max_size=1g use_temp_path=off;
  upstream origin {{ server {origin}; keepalive 256; keepalive_requests 1000000000; }}
  server {{
    listen {listen} backlog=4096;
    location / {{
      proxy_pass http://origin;
      proxy_http_version 1.1;
      proxy_set_header Connection \"\";
      proxy_set_header Host $host;
      proxy_cache cache;
    }}
  }}
}}
",
        main = main_part(&folder, ground, 1),
        http = http_part(),
        variant = variant.lines(),
        folder = folder.display(),
        origin = ground.origin,
    );
    Ok(Plan {
        name,
        program: "nginx".into(),
        arguments: arguments(&folder),
        files: vec![("nginx.conf", config)],
        listen,
        version_flag: "-v",
        package: "nginx",
        choice: variant.lines().to_owned(),
    })
}

pub(super) fn arguments(folder: &Path) -> Vec<String> {
    let config = folder.join("nginx.conf").display().to_string();
    let prefix = folder.display().to_string();
    ["-p", &prefix, "-e", "stderr", "-c", &config].map(str::to_owned).to_vec()
}

/// Everything outside `http`.
pub(super) fn main_part(folder: &Path, ground: &Ground, workers: u32) -> String {
    format!(
        "daemon off;
user root;
pid {folder}/nginx.pid;
error_log stderr crit;
worker_processes {workers};
worker_rlimit_nofile {descriptors};
events {{ worker_connections {connections}; use epoll; multi_accept on; }}
",
        folder = folder.display(),
        descriptors = ground.descriptors,
        connections = ground.descriptors.saturating_sub(SPARE_DESCRIPTORS),
    )
}

/// What every `http` block begins with.
pub(super) fn http_part() -> &'static str {
    "  access_log off;
  tcp_nodelay on;
  keepalive_timeout 1h;
  keepalive_requests 1000000000;
  reset_timedout_connection on;
"
}

/// Descriptors that a worker needs beside its connections.
const SPARE_DESCRIPTORS: u32 = 64;
