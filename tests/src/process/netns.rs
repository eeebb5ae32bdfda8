//! Network namespaces: hosts of their own on one machine, with cables that can be pulled.
//!
//! A test that needs them runs itself once more in a fresh namespace ([`inside`]); further ones are
//! held by a process that ends with the test, whatever becomes of it, and the kernel clears away
//! what belongs to a namespace. Nothing of the machine's own network is touched. Leaves to others:
//! who is connected with whom (`chaos::hosts`).

use std::{
    env, fs,
    io::Write,
    path::PathBuf,
    process::{Child, Command, Stdio},
};

use super::wait::until;

/// Runs `body` in a namespace of its own, by starting this test's program again for the test
/// `name` alone. Where that cannot be, the test says by name that it is skipped.
#[expect(clippy::print_stdout, reason = "a test that is skipped says so")]
pub fn inside(name: &str, body: impl FnOnce()) {
    if env::var_os(INSIDE).is_some_and(|inside| inside == name) {
        order(&["ip link set dev lo up"]);
        return body();
    }
    if let Err(why) = try_out() {
        println!("SKIPPED {name}: no network namespaces here: {why}");
        return;
    }
    let program = env::current_exe().expect("a test has a path");
    let mut again = Command::new("unshare");
    again.args(["--net", "--"]).arg(program).args(["--exact", name, "--nocapture"]);
    let status = again.env(INSIDE, name).env("PATH", path()).status().expect("unshare runs");
    assert!(status.success(), "{name}, in a namespace of its own: {status}");
}

/// Whether all that is needed can be had, else why not.
fn try_out() -> Result<(), String> {
    let script = "ip link add name x0 type veth peer name x1 && ip link add name x2 type bridge \
                  && ip link set dev x0 master x2 && ip rule add from 10.0.0.0/8 lookup 100";
    let mut tried = Command::new("unshare");
    tried.args(["--net", "sh", "-c", script]).env("PATH", path());
    let output = tried.output().map_err(|error| format!("unshare: {error}"))?;
    match output.status.success() {
        true => Ok(()),
        false => Err(String::from_utf8_lossy(&output.stderr).trim().to_owned()),
    }
}

/// Where an ordinary user's path does not lead, `ip` may still be.
fn path() -> String {
    format!("{}:/usr/sbin:/sbin", env::var("PATH").unwrap_or_default())
}

/// Another namespace, as long as this value lives.
#[derive(Debug)]
pub struct Namespace {
    holder: Child,
}

impl Namespace {
    /// With its loopback up and nothing else.
    pub fn new() -> Self {
        // It ends when its input does: with this value, and with this process however that ends.
        let mut holder = Command::new("unshare");
        holder.args(["--net", "cat"]).stdin(Stdio::piped()).stdout(Stdio::null());
        let holder = holder.spawn().expect("unshare runs");
        let of = |id: &str| fs::read_link(PathBuf::from("/proc").join(id).join("ns/net")).ok();
        let (own, id) = (of("self"), holder.id().to_string());
        until("a namespace is made", 60, || of(&id).filter(|other| Some(other) != own.as_ref()));
        let namespace = Self { holder };
        namespace.order(&["ip link set dev lo up"]);
        namespace
    }

    /// The process that holds it, by which `ip` names it.
    pub fn id(&self) -> u32 {
        self.holder.id()
    }

    /// Runs these lines of shell there.
    ///
    /// # Panics
    /// When one of them fails.
    pub fn order<T: AsRef<str>>(&self, lines: &[T]) {
        let mut shell = self.command("sh");
        shell.args(["-e", "-s"]);
        run(shell, lines);
    }

    /// A program that is to run there.
    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new("nsenter");
        command.args(["--net", "-t", &self.id().to_string(), "--"]).arg(program);
        command.env("PATH", path());
        command
    }
}

impl Default for Namespace {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let _ = self.holder.kill();
        let _ = self.holder.wait();
    }
}

/// Runs these lines of shell in the namespace of this process.
///
/// # Panics
/// When one of them fails.
pub fn order<T: AsRef<str>>(lines: &[T]) {
    let mut shell = Command::new("sh");
    shell.args(["-e", "-s"]).env("PATH", path());
    run(shell, lines);
}

fn run<T: AsRef<str>>(mut shell: Command, lines: &[T]) {
    let text = lines.iter().map(|line| format!("{}\n", line.as_ref())).collect::<String>();
    let mut child = shell.stdin(Stdio::piped()).spawn().expect("a shell runs");
    child.stdin.take().expect("piped").write_all(text.as_bytes()).expect("it reads");
    assert!(child.wait().expect("it ends").success(), "{text}");
}

/// Names the test that runs in a namespace of its own already.
const INSIDE: &str = "PHAROS_TEST_NETNS";
