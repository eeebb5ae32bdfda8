//! What a role tells while it runs: to stderr, text for people on a terminal, JSON elsewhere.
//!
//! Whoever tells never waits for stderr: lines go through a bounded queue to a thread of their own.
//! When that is behind, lines are dropped, and how many is told as soon as it goes on.

use std::{
    io::{self, IsTerminal, Write},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
        mpsc::{Receiver, SyncSender, sync_channel},
    },
    thread::Builder,
};

use tracing_subscriber::{EnvFilter, Registry, fmt::MakeWriter, layer::SubscriberExt, reload};

use crate::{exit::Failure, limits};

/// A role's log. Dropped, it tells what is left, within a bounded time.
pub(crate) struct Log {
    filter: reload::Handle<EnvFilter, Registry>,
    lines: Lines,
    /// The environment says how much; the file's word counts for nothing.
    by_environment: bool,
}

impl Log {
    /// Starts telling, as much as `PHAROS_LOG` says, or else this level.
    pub(crate) fn start(level: &str) -> Result<Self, Failure> {
        let failed = |error: io::Error| Failure::because("starting the log", &error);
        let by_environment = std::env::var_os(VARIABLE).is_some();
        let filter = match by_environment {
            true => EnvFilter::try_from_env(VARIABLE).map_err(|error| {
                Failure::because(format!("{VARIABLE} is not usable"), &error)
                    .remedy("a level such as info, or target=level, several with commas between")
                    .usage()
            })?,
            false => EnvFilter::new(level),
        };
        let lines = Lines::start().map_err(failed)?;
        let (filter, handle) = reload::Layer::new(filter);
        let layer = tracing_subscriber::fmt::layer().with_writer(lines.clone());
        let registry = tracing_subscriber::registry().with(filter);
        let set = if io::stderr().is_terminal() {
            tracing::subscriber::set_global_default(registry.with(layer))
        } else {
            tracing::subscriber::set_global_default(registry.with(layer.json()))
        };
        set.map_err(|error| Failure::because("starting the log", &error))?;
        Ok(Self { filter: handle, lines, by_environment })
    }

    /// Tells more or less from now on, unless the environment said how much.
    pub(crate) fn set_level(&self, level: &str) {
        if !self.by_environment {
            // Fails only when nobody logs any more.
            let _ = self.filter.reload(EnvFilter::new(level));
        }
    }
}

impl Drop for Log {
    fn drop(&mut self) {
        let (done, is_done) = sync_channel(1);
        if self.lines.queue.try_send(Line::Flush(done)).is_ok() {
            let _ = is_done.recv_timeout(limits::LOG_FLUSH_AFTER);
        }
    }
}

/// The way to the thread that writes.
#[derive(Clone)]
struct Lines {
    queue: SyncSender<Line>,
    dropped: Arc<AtomicU64>,
}

enum Line {
    Text(Vec<u8>),
    /// Answered when everything before it is written.
    Flush(SyncSender<()>),
}

impl Lines {
    fn start() -> io::Result<Self> {
        let (queue, lines) = sync_channel(limits::LOG_LINES_MAX);
        let dropped = Arc::<AtomicU64>::default();
        let told = Arc::clone(&dropped);
        let name = "pharos-log".to_owned();
        Builder::new().name(name).spawn(move || write(&lines, &told, &mut io::stderr()))?;
        Ok(Self { queue, dropped })
    }
}

impl Write for Lines {
    /// A whole event at a time, as `tracing_subscriber` writes them. Never fails, never waits.
    fn write(&mut self, text: &[u8]) -> io::Result<usize> {
        if self.queue.try_send(Line::Text(text.to_vec())).is_err() {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
        Ok(text.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Lines {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

/// If even stderr cannot be written there is nobody left to tell.
fn write(lines: &Receiver<Line>, dropped: &AtomicU64, to: &mut impl Write) {
    while let Ok(line) = lines.recv() {
        let lost = dropped.swap(0, Ordering::Relaxed);
        if lost > 0 {
            let _ = writeln!(to, "pharos: {lost} lines of the log were dropped: stderr is slow");
        }
        match line {
            Line::Text(text) => drop(to.write_all(&text)),
            Line::Flush(done) => {
                let _ = to.flush();
                let _ = done.send(());
            }
        }
    }
}

/// How much is told, whatever the configuration says.
const VARIABLE: &str = "PHAROS_LOG";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_logs_does_not_wait_and_what_was_dropped_is_told() {
        let (queue, lines) = sync_channel(1);
        let mut log = Lines { queue, dropped: Arc::default() };
        for line in ["one\n", "two\n", "three\n"] {
            log.write_all(line.as_bytes()).unwrap();
        }
        let (mut written, dropped) = (Vec::new(), Arc::clone(&log.dropped));
        drop(log);
        write(&lines, &dropped, &mut written);
        let written = String::from_utf8(written).unwrap();
        assert_eq!(written, "pharos: 2 lines of the log were dropped: stderr is slow\none\n");
    }
}
