//! The servers of a comparison: the real programs, each in its best configuration, started pinned
//! to a core, awaited, and stopped by process id.
//!
//! A [`Plan`] is what would be run, in full: files, arguments, and what was chosen and why. It is
//! printed, so that anyone can see whether the comparison is fair. Configuration and caches lie in
//! a [`Folder`] on tmpfs that goes away with the comparison.

pub(crate) mod floor;
pub(crate) mod haproxy;
pub(crate) mod nchan;
pub(crate) mod nginx;
pub(crate) mod pharos;
pub(crate) mod varnish;

use std::{
    fs, io,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use crate::{clock, failure::Failure, probe, process::family};

/// What all plans of a comparison stand on.
#[derive(Debug)]
pub(crate) struct Ground {
    /// Where configurations and caches go.
    pub(crate) folder: Folder,
    /// Where misses go.
    pub(crate) origin: SocketAddr,
    /// Sockets that a peer must be able to hold.
    pub(crate) sockets: u32,
    /// Descriptors that one process may have.
    pub(crate) descriptors: u32,
}

/// A program about to be run.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    /// For people, also the name of its folder.
    pub(crate) name: String,
    pub(crate) program: PathBuf,
    pub(crate) arguments: Vec<String>,
    /// Name inside the plan's folder, and content.
    pub(crate) files: Vec<(&'static str, String)>,
    pub(crate) listen: SocketAddr,
    /// Argument on which the program tells its version.
    pub(crate) version_flag: &'static str,
    /// Debian package that brings the program.
    pub(crate) package: &'static str,
    /// What was chosen where there was a choice.
    pub(crate) choice: String,
}

/// A running server. Dropping it stops it.
#[derive(Debug)]
pub(crate) struct Peer {
    pub(crate) plan: Plan,
    child: Child,
}

/// A folder that is removed when dropped, unless it is to be kept.
#[derive(Debug)]
pub(crate) struct Folder {
    pub(crate) path: PathBuf,
    pub(crate) keep: bool,
}

impl Plan {
    /// Where an edge of Pharos answers its operator.
    pub(crate) fn admin(&self) -> Option<SocketAddr> {
        let mut lines = self.files.iter().flat_map(|(_, content)| content.lines());
        lines.find_map(|line| line.strip_prefix("admin = \"")?.strip_suffix('"')?.parse().ok())
    }

    /// The plan in words: command, files, choice.
    pub(crate) fn describe(&self) -> String {
        let mut text = format!("## {}: {}\n", self.name, self.choice);
        text += &format!("$ {} {}\n", self.program.display(), self.arguments.join(" "));
        for (name, content) in &self.files {
            text += &format!("--- {name}\n{content}");
        }
        text
    }

    /// What the program says of its version: the first line that has a digit.
    pub(crate) fn version(&self) -> String {
        let Some(program) = find(&self.program) else { return String::new() };
        let output = Command::new(program).arg(self.version_flag).output();
        let Some(output) = output.ok().filter(|output| output.status.success()) else {
            return String::new();
        };
        let text = [output.stdout, output.stderr].concat();
        let text = String::from_utf8_lossy(&text);
        let line = text.lines().find(|line| line.contains(|c: char| c.is_ascii_digit()));
        line.unwrap_or_default().trim().to_owned()
    }

    /// Runs it on `core`, and waits until `path` is answered there.
    ///
    /// # Errors
    /// The program is missing (names its package), ends at once, or does not answer in time.
    pub(crate) fn start(self, folder: &Path, core: usize, path: &str) -> Result<Peer, Failure> {
        let own = folder.join(&self.name);
        let mut peer = self.spawn(folder, core)?;
        peer.wait_until_it_answers(&own, path)?;
        Ok(peer)
    }

    /// Runs it on `core`; it need not answer yet.
    ///
    /// # Errors
    /// The program is missing (names its package).
    pub(crate) fn spawn(self, folder: &Path, core: usize) -> Result<Peer, Failure> {
        let folder = folder.join(&self.name);
        let failed = |what: &str, error: io::Error| {
            Failure::error(format!("{what} for {}", self.name)).because(error)
        };
        fs::create_dir_all(&folder).map_err(|error| failed("make a folder", error))?;
        for (name, content) in &self.files {
            fs::write(folder.join(name), content).map_err(|error| failed("write a file", error))?;
        }
        let Some(program) = find(&self.program) else {
            return Err(Failure::error(format!(
                "{} is not installed: apt-get install {}",
                self.program.display(),
                self.package
            )));
        };
        let log = fs::File::create(folder.join("stderr"))
            .map_err(|error| failed("write a log", error))?;
        let child = Command::new("taskset")
            .args(["-c", &core.to_string()])
            .arg(program)
            .args(&self.arguments)
            .current_dir(&folder)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .map_err(|error| failed("run taskset", error))?;
        Ok(Peer { plan: self, child })
    }
}

impl Peer {
    /// Process id: taskset replaces itself by the program.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    fn wait_until_it_answers(&mut self, folder: &Path, path: &str) -> Result<(), Failure> {
        let mut ended = None;
        let answers = clock::wait_for(Duration::from_millis(20), START_MAX, || {
            ended = self.child.try_wait().ok().flatten();
            ended.is_some() || probe::ask(self.plan.listen, "GET", path, &[], &[]).is_ok()
        });
        let name = &self.plan.name;
        let log = || fs::read_to_string(folder.join("stderr")).unwrap_or_default();
        match ended {
            Some(status) => {
                Err(Failure::error(format!("{name} ended ({status}): {}", log().trim())))
            }
            None if answers => Ok(()),
            None => Err(Failure::timeout(format!(
                "{name} did not answer within {} s: {}",
                START_MAX.as_secs(),
                log().trim()
            ))),
        }
    }

    /// Asks it to end, waits, and ends what is left of it.
    fn stop(&mut self) {
        let members = family(self.pid()).unwrap_or_default();
        if !matches!(self.child.try_wait(), Ok(None)) {
            return;
        }
        signal("TERM", &[self.pid()]);
        let ended = clock::wait_for(Duration::from_millis(20), STOP_MAX, || {
            matches!(self.child.try_wait(), Ok(Some(_)))
        });
        if !ended {
            signal("KILL", &members);
            // Reaps it; that it is gone is all that matters.
            let _ = self.child.wait();
        }
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        self.stop();
    }
}

impl Folder {
    /// A new folder in memory, if the machine has a place for that.
    ///
    /// # Errors
    /// It cannot be made.
    pub(crate) fn new(keep: bool) -> Result<Self, Failure> {
        let memory = Path::new("/dev/shm");
        let parent = if memory.is_dir() { memory.to_owned() } else { std::env::temp_dir() };
        let path = parent.join(format!("pharos-bench-{}", std::process::id()));
        fs::create_dir_all(&path)
            .map_err(|error| Failure::error(format!("make {}", path.display())).because(error))?;
        Ok(Self { path, keep })
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        if !self.keep {
            // Nothing can be done about it, and nothing depends on it.
            let _ = fs::remove_dir_all(&self.path);
        }
    }
}

/// Where a program lies: a path, made absolute, or a name in PATH or the folders of root's
/// programs.
fn find(program: &Path) -> Option<PathBuf> {
    if program.components().count() > 1 {
        return fs::canonicalize(program).ok();
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/sbin".into(), "/sbin".into()])
        .map(|folder| folder.join(program))
        .find(|path| path.is_file())
}

fn signal(name: &str, pids: &[u32]) {
    let pids = pids.iter().map(u32::to_string).collect::<Vec<_>>().join(" ");
    // The shell's own `kill` is there where procps is not. A process that is gone is no error.
    let _ = Command::new("sh")
        .args(["-c", &format!("kill -{name} {pids}")])
        .stderr(Stdio::null())
        .status();
}

/// The host of all requests of a comparison.
pub(crate) const HOST: &str = "bench.example";

const START_MAX: Duration = Duration::from_secs(20);
const STOP_MAX: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(program: &str, arguments: &[&str]) -> Plan {
        Plan {
            name: "test".into(),
            program: program.into(),
            arguments: arguments.iter().map(|text| (*text).to_owned()).collect(),
            files: vec![("a.conf", "x\n".into())],
            listen: probe::free_address().expect("a port"),
            version_flag: "--version",
            package: "some-package",
            choice: "none".into(),
        }
    }

    #[test]
    fn a_missing_program_names_its_package() {
        let folder = tempfile::tempdir().expect("folder");
        let result = plan("no-such-program", &[]).start(folder.path(), 0, "/");
        let text = result.expect_err("not installed").to_string();
        assert!(text.contains("apt-get install some-package"), "{text}");
    }

    #[test]
    fn a_program_that_ends_at_once_tells_its_last_words() {
        let folder = tempfile::tempdir().expect("folder");
        let result = plan("sh", &["-c", "echo bad line >&2; exit 3"]).start(folder.path(), 0, "/");
        let text = result.expect_err("ended").to_string();
        assert!(text.contains("bad line") && text.contains('3'), "{text}");
    }

    #[test]
    fn a_version_is_the_first_line_with_a_number() {
        let mut plan = plan("sh", &[]);
        assert_eq!(plan.version(), "", "sh refuses the flag");
        plan.program = "cargo".into();
        assert!(plan.version().starts_with("cargo 1."), "{}", plan.version());
    }

    #[test]
    fn a_plan_shows_everything_it_runs() {
        let text = plan("nginx", &["-c", "a.conf"]).describe();
        assert!(text.contains("$ nginx -c a.conf\n--- a.conf\nx\n"), "{text}");
    }
}
