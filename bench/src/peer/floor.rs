//! The bare ring loop as a process of its own, so that its cost is read like that of the others.

use std::path::{Path, PathBuf};

use crate::{
    failure::Failure,
    peer::{Ground, Plan},
    probe,
};

/// This program, and the words of its command line before a bench command.
#[derive(Clone, Debug)]
pub(crate) struct Myself {
    pub(crate) program: PathBuf,
    words: Vec<String>,
}

impl Myself {
    /// As this process was called: everything in front of `command`.
    ///
    /// # Errors
    /// The own path is not known.
    pub(crate) fn called_for(command: &str) -> Result<Self, Failure> {
        let program = std::env::current_exe()
            .map_err(|error| Failure::error("find this program").because(error))?;
        let words = std::env::args().skip(1).take_while(|word| word != command).collect();
        Ok(Self { program, words })
    }

    fn arguments(&self, rest: &[&str]) -> Vec<String> {
        self.words.iter().cloned().chain(rest.iter().map(|word| (*word).to_owned())).collect()
    }
}

/// The loop that answers requests with the bytes in `answer`.
///
/// # Errors
/// No free port.
pub(crate) fn requests(myself: &Myself, answer: &Path) -> Result<Plan, Failure> {
    let listen = probe::free_address()
        .map_err(|error| Failure::error("find a port for the floor").because(error))?;
    let (address, path) = (listen.to_string(), answer.display().to_string());
    let arguments = myself.arguments(&["floor", "--listen", &address, "--answer", &path]);
    Ok(plan(myself, arguments, listen, "single issuer, deferred task work, one send a receive"))
}

/// The loop that holds streams, each opened with the bytes in `answer`.
///
/// # Errors
/// No free port.
pub(crate) fn fanout(myself: &Myself, ground: &Ground, answer: &Path) -> Result<Plan, Failure> {
    let listen = probe::free_address()
        .map_err(|error| Failure::error("find a port for the floor").because(error))?;
    // SO_REUSEPORT spreads by hash, within a few per cent: a tenth more room than an even share.
    let room = ground.descriptors.saturating_sub(1_000).max(1);
    let shards = (ground.sockets + ground.sockets / 10).div_ceil(room).max(1).to_string();
    let (address, path) = (listen.to_string(), answer.display().to_string());
    let arguments = myself.arguments(&[
        "floor", "--listen", &address, "--answer", &path, "--fanout", "--shards", &shards,
    ]);
    Ok(plan(myself, arguments, listen, &format!("{shards} rings on one core")))
}

fn plan(
    myself: &Myself,
    arguments: Vec<String>,
    listen: std::net::SocketAddr,
    choice: &str,
) -> Plan {
    Plan {
        name: "floor".into(),
        program: myself.program.clone(),
        arguments,
        files: Vec::new(),
        listen,
        version_flag: "--version",
        package: "pharos",
        choice: choice.into(),
    }
}
