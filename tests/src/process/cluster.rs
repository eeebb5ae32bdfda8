//! Control and two edges, each a process of its own, as an operator enrols and starts them: from
//! configuration files, the edges' links to control through proxies.
//!
//! Leaves to others: the faults (`proxy`), supervision: what was killed is started again by the
//! test.

use std::{
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Output,
    time::Duration,
};

use super::{
    client::Client,
    node::{Process, get, run},
    proxy::Proxy,
    wait::{free_address, until},
};
use crate::client::http::Reply;

/// Control with its edges. Fields in the order in which they are to end.
#[derive(Debug)]
pub struct Cluster {
    /// The edges.
    pub edges: Vec<Edge>,
    /// Control's process.
    pub control: Process,
    /// Where control listens.
    pub api: SocketAddr,
    /// All files.
    pub folder: tempfile::TempDir,
}

/// An edge and its way to control.
#[derive(Debug)]
pub struct Edge {
    /// Its process.
    pub process: Process,
    /// Between it and control.
    pub proxy: Proxy,
    /// Where visitors connect.
    pub address: SocketAddr,
    /// Its admin listener.
    pub admin: SocketAddr,
}

impl Cluster {
    /// Starts control with a page of slug `demo`, and an edge of two shards for each of
    /// `feed_delays`; waits until all of them serve the page.
    pub fn start(feed_delays: &[Duration]) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let api = free_address();
        let text = format!("listen = \"{api}\"\ndata = \"{}/data\"\n", folder.path().display());
        fs::write(folder.path().join("control.toml"), text).expect("a configuration");
        let control = start_control(folder.path());
        let mut cluster = Self { edges: Vec::new(), control, api, folder };
        cluster.wait_for_control();
        cluster.cli(&["page", "create", "--slug", "demo", "--name", "Demo"]);
        cluster.cli(&["component", "create", "--page", "demo", "--slug", "api", "--name", "API"]);
        for (number, delay) in feed_delays.iter().enumerate() {
            let edge = cluster.enrol(&format!("edge-{number}"), *delay);
            cluster.edges.push(edge);
        }
        for edge in &cluster.edges {
            until("an edge serves the page", 60, || {
                get(edge.address, "/demo/").ok().filter(|reply| reply.status == 200)
            });
        }
        cluster
    }

    fn enrol(&self, name: &str, feed_delay: Duration) -> Edge {
        let proxy = Proxy::start(self.api, feed_delay);
        let (address, admin) = (free_address(), free_address());
        let into = self.folder.path().join(name);
        self.cli(&["edge", "add", name, "--into", &into.display().to_string()]);
        let file = into.join("edge.toml");
        let text = fs::read_to_string(&file).expect("what `edge add` wrote");
        let text = text
            .replace("127.0.0.1:8080", &address.to_string())
            .replace("127.0.0.1:7401", &admin.to_string())
            .replace(&format!("http://{}", self.api), &format!("http://{}", proxy.address))
            .replace("id = ", "shards = 2\nid = ");
        fs::write(&file, text).expect("the file is ours");
        let file = file.display().to_string();
        let process = Process::start(self.folder.path(), name, &["edge", "--config", &file]);
        Edge { process, proxy, address, admin }
    }

    /// Kills control as a crash would.
    pub fn kill_control(&mut self) {
        self.control.kill();
    }

    /// Starts it again on the same data, and waits until it answers.
    pub fn restart_control(&mut self) {
        self.control = start_control(self.folder.path());
        self.wait_for_control();
    }

    fn wait_for_control(&self) {
        until("control answers", 60, || {
            get(self.api, "/healthz").ok().filter(|reply| reply.status == 200)
        });
    }

    /// Where the admin key lies.
    pub fn key_file(&self) -> PathBuf {
        self.folder.path().join("data/admin.key")
    }

    /// Runs an operator verb against control; its standard output, or panics with what it said.
    pub fn cli(&self, arguments: &[&str]) -> String {
        let output = self.cli_output(arguments);
        let (told, said) =
            (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success(), "pharos {}: {told}{said}", arguments.join(" "));
        told.into_owned()
    }

    /// Runs an operator verb and returns all of its outcome.
    pub fn cli_output(&self, arguments: &[&str]) -> Output {
        let (url, key) = (format!("http://{}", self.api), self.key_file().display().to_string());
        run(&[arguments, &["--url", &url, "--key-file", &key]].concat())
    }

    /// A connection to the API that is kept.
    pub fn operator(&self) -> Operator {
        let key = fs::read_to_string(self.key_file()).expect("an admin key");
        let client = Client::connect(self.api).expect("the API listens");
        Operator { client, bearer: format!("Bearer {}", key.trim()), host: self.api.to_string() }
    }

    /// The end of what each process said, for whoever reads why a test failed.
    pub fn log(&self) -> String {
        let names = ["control", "edge-0", "edge-1"];
        let told = names.map(|name| {
            let path = self.folder.path().join(format!("{name}.err"));
            let text = fs::read_to_string(path).unwrap_or_default();
            let lines: Vec<&str> = text.lines().collect();
            format!("-- {name}\n{}\n", lines[lines.len().saturating_sub(20)..].join("\n"))
        });
        told.concat()
    }
}

fn start_control(folder: &Path) -> Process {
    let file = folder.join("control.toml").display().to_string();
    Process::start(folder, "control", &["control", "--config", &file])
}

impl Edge {
    /// Whether it follows control's feed now.
    pub fn is_connected(&self) -> bool {
        get(self.admin, "/v1/status").is_ok_and(|reply| {
            let status: serde_json::Value =
                serde_json::from_slice(&reply.body).expect("the status is JSON");
            status["feed"]["connected"] == true
        })
    }
}

/// Somebody who changes things by the API.
#[derive(Debug)]
pub struct Operator {
    client: Client,
    bearer: String,
    host: String,
}

impl Operator {
    /// Sends a change without waiting for its answer.
    pub fn send(&mut self, path: &str, body: &str) {
        let fields =
            [("Authorization", self.bearer.as_str()), ("Content-Type", "application/json")];
        self.client.ask_with("POST", &self.host, path, &fields, body.as_bytes());
    }

    /// The answer to it, or why none came.
    pub fn answer(&mut self) -> Result<Reply, String> {
        self.client.answer()
    }
}
