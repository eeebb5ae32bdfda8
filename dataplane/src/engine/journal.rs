//! The thread that writes the access log, so that no shard ever waits for a disk or a pipe.
//!
//! It looks into the queue ten times a second and is never woken: a shard that logs makes no system
//! call. Where it cannot keep up the queue fills, and shards drop lines and count them; what cannot
//! be written (a full disk) is counted too, and said once until it works again.
//!
//! Leaves to others: lines (`shard::access`).

use std::{
    fs::{File, OpenOptions},
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel},
    },
    thread::{Builder, Thread},
    time::Duration,
};

use crate::{
    limits::{ACCESS_CLOSE_MS, ACCESS_WRITE_MS},
    shard::access::AccessQueue,
};

/// Where lines go.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Target {
    /// The process's stderr.
    Stderr,
    /// A file, made if missing, appended to.
    File(PathBuf),
}

/// An access log that is being written. Dropped, it writes what is left, within a bounded time.
#[derive(Debug)]
pub struct Journal {
    target: Target,
    queue: Arc<AccessQueue>,
    orders: Arc<Orders>,
    thread: Thread,
    ended: Receiver<()>,
}

#[derive(Debug, Default)]
struct Orders {
    end: AtomicBool,
    reopen: AtomicBool,
}

impl Journal {
    /// Opens the target and starts the thread.
    ///
    /// # Errors
    /// Whatever opening the file or starting a thread comes to.
    pub fn start(target: Target) -> io::Result<Self> {
        let (queue, orders) = (AccessQueue::new(), Arc::<Orders>::default());
        let mut writer = Writer {
            to: open(&target)?,
            target: target.clone(),
            queue: Arc::clone(&queue),
            failing: false,
        };
        let (ending, ended): (SyncSender<()>, _) = sync_channel(1);
        let told = Arc::clone(&orders);
        let run = move || {
            writer.run(&told);
            // Without anybody who waits there is nobody to tell.
            let _ = ending.send(());
        };
        let thread = Builder::new().name("pharos-access".into()).spawn(run)?.thread().clone();
        Ok(Self { target, queue, orders, thread, ended })
    }

    /// Where shards leave their lines.
    pub fn queue(&self) -> &Arc<AccessQueue> {
        &self.queue
    }

    /// Where lines go.
    pub fn target(&self) -> &Target {
        &self.target
    }

    /// Opens the file again, for whoever has moved the old one away.
    pub fn reopen(&self) {
        self.orders.reopen.store(true, Ordering::Relaxed);
        self.thread.unpark();
    }
}

impl Drop for Journal {
    fn drop(&mut self) {
        self.orders.end.store(true, Ordering::Release);
        self.thread.unpark();
        let waited = self.ended.recv_timeout(Duration::from_millis(ACCESS_CLOSE_MS));
        if waited == Err(RecvTimeoutError::Timeout) {
            tracing::warn!("the access log does not take its last lines: they are lost");
        }
    }
}

struct Writer {
    to: Box<dyn Write + Send>,
    target: Target,
    queue: Arc<AccessQueue>,
    failing: bool,
}

impl Writer {
    fn run(&mut self, orders: &Orders) {
        loop {
            // Asked before the queue is emptied: what came before the order to end is written.
            let end = orders.end.load(Ordering::Acquire);
            if orders.reopen.swap(false, Ordering::Relaxed) {
                self.write_all();
                self.reopen();
            }
            self.write_all();
            if end {
                return;
            }
            std::thread::park_timeout(Duration::from_millis(ACCESS_WRITE_MS));
        }
    }

    fn write_all(&mut self) {
        while let Some(batch) = self.queue.take() {
            match self.to.write_all(&batch.text) {
                Ok(()) => self.failing = false,
                Err(error) => {
                    self.queue.note_unwritten(batch.lines);
                    if !std::mem::replace(&mut self.failing, true) {
                        tracing::error!(%error, "the access log cannot be written: lines are lost");
                    }
                }
            }
        }
    }

    fn reopen(&mut self) {
        match open(&self.target) {
            Ok(to) => self.to = to,
            Err(error) => {
                tracing::error!(%error, "the access log cannot be opened again: it goes on in the \
                                         old file");
            }
        }
    }
}

fn open(target: &Target) -> io::Result<Box<dyn Write + Send>> {
    Ok(match target {
        Target::Stderr => Box::new(io::stderr()),
        Target::File(path) => Box::new(open_file(path)?),
    })
}

fn open_file(path: &Path) -> io::Result<File> {
    OpenOptions::new().append(true).create(true).mode(0o640).open(path)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_log_that_was_moved_away_goes_on_in_a_new_file_and_loses_nothing() {
        let folder = tempfile::tempdir().expect("folder");
        let (path, moved) = (folder.path().join("access.log"), folder.path().join("access.log.1"));
        let journal = Journal::start(Target::File(path.clone())).expect("opens");
        assert!(journal.queue().put_for_test("one\n"));
        fs::rename(&path, &moved).expect("moved");
        journal.reopen();
        while !path.exists() {
            std::thread::yield_now();
        }
        assert!(journal.queue().put_for_test("two\n"));
        drop(journal);
        assert_eq!(fs::read_to_string(moved).expect("read"), "one\n");
        assert_eq!(fs::read_to_string(path).expect("read"), "two\n");
    }

    #[test]
    fn lines_that_cannot_be_written_are_counted() {
        let journal = Journal::start(Target::File("/dev/full".into())).expect("opens");
        let queue = Arc::clone(journal.queue());
        assert!(queue.put_for_test("one\n"));
        drop(journal);
        assert_eq!(queue.unwritten(), 1);
    }

    #[test]
    fn a_file_that_cannot_be_opened_is_an_error_at_start() {
        let missing = Target::File("/nowhere/access.log".into());
        let error = Journal::start(missing).expect_err("refused");
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
    }
}
