//! Pharos as a user starts it: `pharos up`, or the roles one by one, and its CLI.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
};

use super::{
    client::Client,
    wait::{free_address, until},
};
use crate::client::http::Reply;

/// The program under test, built by `cargo build` of the same profile as this test.
pub fn program() -> PathBuf {
    let test = std::env::current_exe().expect("a test has a path");
    let folder = test.parent().and_then(Path::parent).expect("target/<profile>/deps/test");
    let program = folder.join("pharos");
    assert!(program.exists(), "{} is missing: run `cargo build --workspace`", program.display());
    program
}

/// Runs the CLI to its end.
pub fn run(arguments: &[&str]) -> Output {
    let output = Command::new(program()).args(arguments).env_remove("PHAROS_URL").output();
    output.expect("the program starts")
}

/// A child that ends with this value.
#[derive(Debug)]
pub struct Process {
    child: Child,
}

impl Process {
    /// Starts the program with its output in files of `folder`, named after `name`.
    pub fn start(folder: &Path, name: &str, arguments: &[&str]) -> Self {
        Self::start_by(Command::new(program()), folder, name, arguments)
    }

    /// The same by a command that becomes the program, on another host for one.
    pub fn start_by(mut command: Command, folder: &Path, name: &str, arguments: &[&str]) -> Self {
        let file = |end: &str| {
            let path = folder.join(format!("{name}.{end}"));
            Stdio::from(
                std::fs::OpenOptions::new().create(true).append(true).open(path).expect("a log"),
            )
        };
        command.args(arguments).current_dir(folder).stdin(Stdio::null());
        command.stdout(file("out")).stderr(file("err"));
        Self { child: command.spawn().expect("the program starts") }
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Sends a signal by name, as `kill` does.
    pub fn signal(&self, name: &str) {
        let id = self.child.id().to_string();
        let status = Command::new("kill").args(["-s", name, &id]).status();
        assert!(status.expect("kill runs").success(), "kill -s {name} {id}");
    }

    /// Whether it still runs.
    pub fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Kills it at once and waits for its end.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Waits for its end by itself; its exit code.
    pub fn wait(&mut self) -> Option<i32> {
        until("the process ends", 60, || self.child.try_wait().ok().flatten()).code()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // `up` takes its children with it on TERM; what does not end is killed.
        if self.is_running() {
            let id = self.child.id().to_string();
            let _ = Command::new("kill").args(["-s", "TERM", &id]).status();
            for _ in 0..400 {
                if !self.is_running() {
                    return;
                }
                std::thread::park_timeout(std::time::Duration::from_millis(10));
            }
            self.kill();
        }
    }
}

/// A whole node started by `pharos up`.
#[derive(Debug)]
pub struct Node {
    /// Its data, configuration and logs.
    pub folder: tempfile::TempDir,
    /// `up` itself.
    pub process: Process,
    /// Where visitors connect.
    pub edge: SocketAddr,
    /// The API.
    pub api: SocketAddr,
    /// The edge's admin listener.
    pub admin: SocketAddr,
}

impl Node {
    /// Starts a node with further flags and waits until it serves.
    pub fn up(flags: &[&str]) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let (edge, api, admin) = (free_address(), free_address(), free_address());
        let process = Self::start(folder.path(), edge, api, admin, flags);
        let node = Self { folder, process, edge, api, admin };
        node.wait_ready();
        node
    }

    fn start(
        folder: &Path,
        edge: SocketAddr,
        api: SocketAddr,
        admin: SocketAddr,
        flags: &[&str],
    ) -> Process {
        let (edge, api, admin) = (edge.to_string(), api.to_string(), admin.to_string());
        let mut arguments =
            vec!["up", "--data", "data", "--edge", &edge, "--api", &api, "--admin", &admin];
        arguments.extend(flags);
        Process::start(folder, "up", &arguments)
    }

    /// Starts `up` again on the same data after it has ended.
    pub fn again(&mut self, flags: &[&str]) {
        self.process.kill();
        self.process = Self::start(self.folder.path(), self.edge, self.api, self.admin, flags);
        self.wait_ready();
    }

    /// Waits until the edge is ready and serves the demo page.
    pub fn wait_ready(&self) {
        until("the node serves the demo page", 60, || {
            let ready = get(self.admin, "/readyz").ok()?;
            let page = get(self.edge, "/demo/").ok()?;
            (ready.status == 200 && page.status == 200).then_some(())
        });
    }

    /// Where the admin key lies.
    pub fn key_file(&self) -> PathBuf {
        self.folder.path().join("data/admin.key")
    }

    /// Runs an operator verb against this node; its standard output, or panics with what it said.
    pub fn cli(&self, arguments: &[&str]) -> String {
        let output = self.cli_output(arguments);
        assert!(
            output.status.success(),
            "pharos {}: {}{}",
            arguments.join(" "),
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// Runs an operator verb and returns all of its outcome.
    pub fn cli_output(&self, arguments: &[&str]) -> Output {
        let (url, key) = (format!("http://{}", self.api), self.key_file().display().to_string());
        let all = [arguments, &["--url", &url, "--key-file", &key]].concat();
        run(&all)
    }

    /// Calls the API with the admin key.
    pub fn api(&self, method: &str, path: &str, body: &str, fields: &[(&str, &str)]) -> Reply {
        let key = std::fs::read_to_string(self.key_file()).expect("an admin key");
        let bearer = format!("Bearer {}", key.trim());
        let all =
            [fields, &[("Authorization", bearer.as_str()), ("Content-Type", "application/json")]]
                .concat();
        let mut client = Client::connect(self.api).expect("the API listens");
        client.ask_with(method, &self.api.to_string(), path, &all, body.as_bytes());
        client.answer().expect("the API answers")
    }

    /// Whether the edge's last known state on disk has these bytes.
    pub fn has_kept(&self, bytes: &[u8]) -> bool {
        holds(&self.folder.path().join("data"), bytes)
    }

    /// Kills a role's process as a crash would; `up` starts it again.
    pub fn kill_role(&self, role: &str) {
        let parent = self.process.id();
        let children = format!("/proc/{parent}/task/{parent}/children");
        let children = std::fs::read_to_string(children).expect("children");
        for child in children.split_whitespace() {
            let line = std::fs::read(format!("/proc/{child}/cmdline")).unwrap_or_default();
            let words: Vec<&[u8]> = line.split(|&byte| byte == 0).collect();
            if words.get(1) == Some(&role.as_bytes()) {
                let killed = Command::new("kill").args(["-9", child]).status();
                assert!(killed.expect("kill runs").success());
                return;
            }
        }
        panic!("no {role} below {parent}: {children}");
    }

    /// What the node's processes said.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("up.err")).unwrap_or_default()
    }
}

/// One request on a connection of its own, with the address as the host.
pub fn get(at: SocketAddr, target: &str) -> Result<Reply, String> {
    let mut client = Client::connect(at).map_err(|error| error.to_string())?;
    client.ask("GET", &at.to_string(), target, &[("Connection", "close")]);
    client.answer()
}

/// Whether a file of the last known state holds these bytes. One that is still being written
/// (`.new`) does not count: a kill takes it away.
fn holds(folder: &Path, bytes: &[u8]) -> bool {
    std::fs::read_dir(folder).is_ok_and(|entries| {
        entries.flatten().any(|entry| {
            let path = entry.path();
            if path.is_dir() {
                return holds(&path, bytes);
            }
            path.components().any(|part| part.as_os_str() == "last_known")
                && path.extension().is_none()
                && std::fs::read(&path)
                    .is_ok_and(|kept| kept.windows(bytes.len()).any(|at| at == bytes))
        })
    })
}
