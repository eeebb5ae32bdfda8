//! Helper threads for what blocks: files on one thread, so that writes of one file keep their
//! order, and look-ups of names on a few others, so that a slow resolver holds no file back. And
//! for what burns: cold work, on threads that yield to the shards.
//!
//! A shard has at most [`HELPER_OPS_MAX`] operations under way; room for all of their results is
//! kept in its line, so a helper never waits for a shard.

use std::{
    collections::VecDeque,
    fs::{self, File, OpenOptions},
    io::{self, Read, Write},
    net::{SocketAddr, ToSocketAddrs},
    os::unix::fs::OpenOptionsExt as _,
    path::Path,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread,
};

use crate::{
    engine::turn::Line,
    limits::{COLD_HELPERS, COLD_NICE, HELPER_OPS_MAX, NAME_HELPERS},
    seam::{ColdWork, FileWork, OpId, ShardId},
};

/// What a helper shall do.
#[derive(Debug)]
pub(crate) enum Work {
    File(FileWork),
    Resolve { name: String, port: u16 },
    Cold(ColdWork),
}

/// What came of it.
#[derive(Debug)]
pub(crate) enum Done {
    File { op: OpId, result: io::Result<Vec<u8>> },
    Resolved { op: OpId, result: Result<Vec<SocketAddr>, io::ErrorKind> },
    Cold { op: OpId, result: io::Result<Vec<u8>> },
}

/// The helper threads of a process. They end when this is dropped, once their queues are empty.
#[derive(Debug)]
pub(crate) struct Helpers {
    files: Arc<Queue>,
    names: Arc<Queue>,
    cold: Arc<Queue>,
}

#[derive(Debug)]
struct Queue {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    waiting: VecDeque<Job>,
    ended: bool,
}

#[derive(Debug)]
struct Job {
    shard: ShardId,
    op: OpId,
    work: Work,
}

impl Helpers {
    /// Starts them. Results go to `lines`, one a shard.
    pub(crate) fn start(lines: &Arc<[Line]>) -> io::Result<Self> {
        // Dropped on an early return, this ends the threads that were started.
        let helpers = Self { files: Queue::new(), names: Queue::new(), cold: Queue::new() };
        helpers.spawn("pharos-files".into(), &helpers.files, lines)?;
        for helper in 0..NAME_HELPERS {
            helpers.spawn(format!("pharos-names-{helper}"), &helpers.names, lines)?;
        }
        for helper in 0..COLD_HELPERS {
            helpers.spawn(format!("pharos-cold-{helper}"), &helpers.cold, lines)?;
        }
        Ok(helpers)
    }

    fn spawn(&self, name: String, queue: &Arc<Queue>, lines: &Arc<[Line]>) -> io::Result<()> {
        let (queue, lines) = (queue.clone(), lines.clone());
        thread::Builder::new().name(name).spawn(move || run(&queue, &lines)).map(drop)
    }

    /// Hands work over. The caller keeps to [`HELPER_OPS_MAX`] a shard, which bounds the queues.
    pub(crate) fn submit(&self, shard: ShardId, op: OpId, work: Work) {
        let queue = match work {
            Work::File(_) => &self.files,
            Work::Resolve { .. } => &self.names,
            Work::Cold(_) => &self.cold,
        };
        queue.lock().waiting.push_back(Job { shard, op, work });
        queue.changed.notify_one();
    }
}

impl Drop for Helpers {
    fn drop(&mut self) {
        for queue in [&self.files, &self.names, &self.cold] {
            queue.lock().ended = true;
            queue.changed.notify_all();
        }
    }
}

impl Queue {
    fn new() -> Arc<Self> {
        Arc::new(Self { state: Mutex::default(), changed: Condvar::new() })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // The state is a queue and a flag: no panic leaves either half changed.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn next(&self) -> Option<Job> {
        let mut state = self.lock();
        loop {
            if let Some(job) = state.waiting.pop_front() {
                return Some(job);
            }
            if state.ended {
                return None;
            }
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

/// Lets the shards go first on this thread's core. Where that is refused, it competes with them.
fn be_nice() {
    // SAFETY: takes numbers and touches no memory of ours; 0 is the calling thread.
    unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, COLD_NICE) };
}

fn run(queue: &Queue, lines: &[Line]) {
    let mut is_nice = false;
    while let Some(Job { shard, op, work }) = queue.next() {
        let done = match work {
            Work::File(work) => Done::File { op, result: file(work) },
            Work::Resolve { name, port } => Done::Resolved { op, result: resolve(&name, port) },
            Work::Cold(work) => {
                if !std::mem::replace(&mut is_nice, true) {
                    be_nice();
                }
                Done::Cold { op, result: work.run() }
            }
        };
        lines[usize::from(shard)].put_result(done);
    }
}

fn resolve(name: &str, port: u16) -> Result<Vec<SocketAddr>, io::ErrorKind> {
    // The resolver's own errors have no errno; all of them mean that no address is known now.
    let addrs: Vec<_> = (name, port).to_socket_addrs().map_err(|error| error.kind())?.collect();
    if addrs.is_empty() { Err(io::ErrorKind::NotFound) } else { Ok(addrs) }
}

fn file(work: FileWork) -> io::Result<Vec<u8>> {
    match work {
        FileWork::Read { path, bytes_max } => read(&path, bytes_max),
        FileWork::Write { path, content } => replace(&path, &content).map(|()| Vec::new()),
        FileWork::Remove { path } => match fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(Vec::new()),
        },
    }
}

fn read(path: &Path, bytes_max: u64) -> io::Result<Vec<u8>> {
    let mut content = Vec::new();
    File::open(path)?.take(bytes_max.saturating_add(1)).read_to_end(&mut content)?;
    if content.len() as u64 > bytes_max {
        return Err(io::ErrorKind::FileTooLarge.into());
    }
    Ok(content)
}

/// Beside, synced, renamed, folder synced: after a crash the file is the old or the new one.
fn replace(path: &Path, content: &[u8]) -> io::Result<()> {
    let folder = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    fs::create_dir_all(folder)?;
    let name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?;
    let mut beside_name = name.to_owned();
    // One thread writes files, so one name is enough; what a crash leaves is overwritten next time.
    beside_name.push(".new");
    let beside = path.with_file_name(beside_name);
    let written = write_synced(&beside, content).and_then(|()| fs::rename(&beside, path));
    if let Err(error) = written {
        // A full disk should not stay full because of us; the write's own error is what counts.
        let _ = fs::remove_file(&beside);
        return Err(error);
    }
    File::open(folder)?.sync_all()
}

fn write_synced(path: &Path, content: &[u8]) -> io::Result<()> {
    let mut options = OpenOptions::new();
    // For nobody else: the kept configuration has what tokens are signed with.
    let options = options.write(true).create(true).truncate(true).mode(0o600);
    let mut file = options.open(path)?;
    file.write_all(content)?;
    file.sync_all()
}

const _: () = assert!(HELPER_OPS_MAX > 0);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_replaced_whole_and_leaves_nothing_beside() {
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("deep").join("state");
        for content in [&b"one"[..], b"two and more"] {
            file(FileWork::Write { path: path.clone(), content: content.into() }).expect("written");
            let read = file(FileWork::Read { path: path.clone(), bytes_max: 12 }).expect("read");
            assert_eq!(read, content);
        }
        let mode = fs::metadata(&path).expect("there").permissions();
        assert_eq!(std::os::unix::fs::PermissionsExt::mode(&mode) & 0o777, 0o600);
        let names: Vec<_> = fs::read_dir(path.parent().expect("parent")).expect("listed").collect();
        assert_eq!(names.len(), 1);
        file(FileWork::Remove { path: path.clone() }).expect("removed");
        file(FileWork::Remove { path: path.clone() }).expect("missing is no error");
        let missing = file(FileWork::Read { path, bytes_max: 1 }).expect_err("gone");
        assert_eq!(missing.kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn a_file_over_the_limit_is_an_error() {
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("large");
        fs::write(&path, [0; 9]).expect("written");
        let error = file(FileWork::Read { path, bytes_max: 8 }).expect_err("too large");
        assert_eq!(error.kind(), io::ErrorKind::FileTooLarge);
    }

    #[test]
    fn a_failed_write_keeps_the_old_file_and_removes_what_it_wrote() {
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("state");
        fs::create_dir(&path).expect("a folder stands where the file should be");
        assert!(file(FileWork::Write { path: path.clone(), content: vec![1] }).is_err());
        assert!(path.is_dir());
        assert_eq!(fs::read_dir(folder.path()).expect("listed").count(), 1);
    }

    #[test]
    fn addresses_need_no_resolver() {
        assert_eq!(resolve("127.0.0.1", 80), Ok(vec![([127, 0, 0, 1], 80).into()]));
    }
}
