//! An edge by itself, without control: one site from its configuration.
//!
//! Leaves to others: an edge that is told by control (`node`, `cluster`).

use std::{fs, net::SocketAddr, path::Path};

use super::{
    node::{Process, get},
    wait::{free_address, until},
};

/// A running edge.
#[derive(Debug)]
pub struct Edge {
    /// Where visitors connect.
    pub address: SocketAddr,
    /// Its admin listener.
    pub admin: SocketAddr,
    /// The process.
    pub process: Process,
}

impl Edge {
    /// Starts one of two shards with `host` before `origin`, and waits until it is ready. Nothing
    /// is given up for being slow: what a test holds back may wait as long as the test does.
    /// `more` is put into the site's table, or behind it.
    pub fn start(folder: &Path, host: &str, origin: SocketAddr, more: &str) -> Self {
        let (address, admin) = (free_address(), free_address());
        let text = format!(
            "listen = [\"{address}\"]\nadmin = \"{admin}\"\nshards = 2\n\
             [timeouts]\nrequest_head_ms = {PATIENCE_MS}\ntransfer_ms = {PATIENCE_MS}\n\
             keep_alive_ms = {PATIENCE_MS}\norigin_head_ms = {PATIENCE_MS}\n\
             origin_body_ms = {PATIENCE_MS}\n\
             [[site]]\nname = \"shop\"\nhosts = [\"{host}\"]\n\
             origins = [{{ url = \"http://{origin}\" }}]\n{more}"
        );
        fs::write(folder.join("edge.toml"), text).expect("written");
        let process = Process::start(folder, "edge", &["edge", "--config", "edge.toml"]);
        until("the edge is ready", 30, || {
            get(admin, "/readyz").ok().filter(|reply| reply.status == 200)
        });
        Self { address, admin, process }
    }
}

/// Longer than any test waits for one thing.
const PATIENCE_MS: u32 = 120_000;
