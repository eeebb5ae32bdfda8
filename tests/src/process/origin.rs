//! The synthetic origin of `bench` as a process: it answers as the query orders, counts what it was
//! asked, and can be killed and started again at the same address.
//!
//! Leaves to others: what the orders are (`pharos bench origin --help`), real origins (`nginx`).

use std::{net::SocketAddr, path::PathBuf};

use super::{
    client::Client,
    node::{Process, get},
    wait::{free_address, until},
};

/// A running origin, or one that was killed.
#[derive(Debug)]
pub struct Origin {
    /// Where it listens.
    pub address: SocketAddr,
    process: Process,
    folder: PathBuf,
}

impl Origin {
    /// Starts one, with its output in `folder`.
    pub fn start(folder: &std::path::Path) -> Self {
        let address = free_address();
        let process = launch(folder, address);
        Self { address, process, folder: folder.to_owned() }
    }

    /// Kills it: connections are reset, new ones refused.
    pub fn kill(&mut self) {
        self.process.kill();
    }

    /// Starts it again at the same address, with counts from zero.
    pub fn restart(&mut self) {
        self.process = launch(&self.folder, self.address);
    }

    /// How often each target was asked for since its start.
    pub fn counts(&self) -> serde_json::Map<String, serde_json::Value> {
        let reply = get(self.address, "/_counts").expect("the origin answers");
        let counts: serde_json::Value = serde_json::from_slice(&reply.body).expect("JSON");
        counts["requests"].as_object().cloned().unwrap_or_default()
    }
}

fn launch(folder: &std::path::Path, address: SocketAddr) -> Process {
    let listen = address.to_string();
    let process = Process::start(folder, "origin", &["bench", "origin", "--listen", &listen]);
    until("the origin listens", 20, || Client::connect(address).ok());
    process
}
