//! The data folder is one process's: two that keep what they know last in the same files would
//! each restore the other's.

use std::{
    fs::{DirBuilder, File, OpenOptions, TryLockError},
    io::{self, Read, Seek, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::Path,
    thread,
    time::Duration,
};

use crate::{
    engine::clock::Clock,
    limits::{LISTEN_PAUSE_MS, LISTEN_TRY_MS},
    seam::Mono,
};

/// A folder that is ours until this is dropped or the process ends, however it ends.
#[derive(Debug)]
pub struct DataLock {
    /// Held for its lock.
    _file: File,
}

/// Why a folder cannot be had.
#[derive(Debug)]
pub enum Refused {
    /// It cannot be made or written.
    Unusable(io::Error),
    /// Another process serves from it: its id, as far as it said.
    Held(Option<u32>),
}

impl DataLock {
    /// Makes the folder if need be and takes its lock. Who is just ending gets a moment to do so.
    ///
    /// # Errors
    /// [`Refused`], when another process holds it or it cannot be written.
    pub fn take(folder: &Path) -> Result<Self, Refused> {
        DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(Refused::Unusable)?;
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false).mode(0o600);
        let mut file = options.open(folder.join("edge.lock")).map_err(Refused::Unusable)?;
        let clock = Clock::start();
        loop {
            match file.try_lock() {
                Ok(()) => break,
                Err(TryLockError::Error(error)) => return Err(Refused::Unusable(error)),
                Err(TryLockError::WouldBlock) => {}
            }
            if clock.mono().since_ns(Mono::default()) >= LISTEN_TRY_MS * 1_000_000 {
                let mut text = String::new();
                // The holder's id is a help only; without it the answer is less precise.
                let _ = file.read_to_string(&mut text);
                return Err(Refused::Held(text.trim().parse().ok()));
            }
            thread::park_timeout(Duration::from_millis(LISTEN_PAUSE_MS));
        }
        // A full disk must not keep an edge from starting.
        let _ = file
            .rewind()
            .and_then(|()| file.set_len(0))
            .and_then(|()| writeln!(file, "{}", std::process::id()));
        Ok(Self { _file: file })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_holder_is_refused_by_the_first_ones_process_id() {
        let folder = tempfile::tempdir().expect("a folder");
        let first = DataLock::take(folder.path()).expect("free");
        let refused = DataLock::take(folder.path()).expect_err("held");
        assert!(matches!(refused, Refused::Held(Some(id)) if id == std::process::id()));
        drop(first);
        assert!(DataLock::take(folder.path()).is_ok());
    }
}
