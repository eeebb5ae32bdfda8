//! A file beside the database that a copy cannot be taken for: the database holds its inode and the
//! time at which the kernel last changed it, which nobody can set.
//!
//! ```text
//!  database put back alone      names a witness that is gone, or was written since
//!  witness put back with it     is a file that was changed when it was put back
//! ```
//! There are two places, one of them in use. A new witness is written to the other one, then named
//! in a commit, then the old one is removed: at every moment the database names one that is there.
//!
//! Leaves to others: what follows from a doubt (`identity`), when commits happen (`writer`).

use std::{
    fs,
    io::{self, Write as _},
    os::unix::fs::{MetadataExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use crate::limits;

/// The witness of a data directory.
#[derive(Debug)]
pub struct Witness {
    dir: PathBuf,
    /// The place in use, as far as known.
    place: usize,
    turned_at_ms: u64,
}

impl Witness {
    /// Of this directory.
    pub fn new(dir: &Path) -> Self {
        Self { dir: dir.to_owned(), place: 0, turned_at_ms: 0 }
    }

    /// Whether what the database says of it is so. A database from before there was one says
    /// nothing.
    pub fn agrees(&self, noted: Option<&str>) -> bool {
        let Some(noted) = noted else { return true };
        let place = place_of(noted);
        self.text(place).is_ok_and(|text| text == noted)
    }

    /// Takes up what the database says.
    pub fn take_up(&mut self, noted: Option<&str>) {
        self.place = noted.map_or(0, place_of);
    }

    /// Whether it is old enough for another: a copy taken since this one cannot be told from what
    /// it was taken of.
    pub fn is_due(&self, now_ms: u64) -> bool {
        now_ms.saturating_sub(self.turned_at_ms) >= limits::WITNESS_AFTER_MS
    }

    /// Writes another; what the database is to say of it. It is on disk when this returns.
    pub fn write(&self) -> io::Result<String> {
        let place = 1 - self.place;
        let path = self.path(place);
        let _ = fs::remove_file(&path);
        let mut file =
            fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path)?;
        file.write_all(NOTE)?;
        file.sync_all()?;
        fs::File::open(&self.dir)?.sync_all()?;
        self.text(place)
    }

    /// The other one is named by the database, durably.
    pub fn turn(&mut self, now_ms: u64) {
        let _ = fs::remove_file(self.path(self.place));
        (self.place, self.turned_at_ms) = (1 - self.place, now_ms);
    }

    fn text(&self, place: usize) -> io::Result<String> {
        let it = fs::metadata(self.path(place))?;
        Ok(format!("{place} {} {}.{:09}", it.ino(), it.ctime(), it.ctime_nsec()))
    }

    fn path(&self, place: usize) -> PathBuf {
        self.dir.join(["witness.0", "witness.1"][place])
    }
}

fn place_of(noted: &str) -> usize {
    usize::from(noted.starts_with('1'))
}

/// For whoever looks into it.
const NOTE: &[u8] = b"Pharos sees by this file whether its data was put back from a copy.\n";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_file_that_was_noted_agrees() {
        let dir = tempfile::tempdir().expect("directory");
        let mut witness = Witness::new(dir.path());
        assert!(witness.agrees(None));
        let first = witness.write().expect("written");
        assert!(witness.agrees(Some(&first)));
        witness.turn(1);
        let second = witness.write().expect("written");
        assert!(witness.agrees(Some(&first)), "until the other is named");
        witness.turn(2);
        assert!(witness.agrees(Some(&second)) && !witness.agrees(Some(&first)));
        assert!(!Witness::new(&dir.path().join("none")).agrees(Some(&second)));
    }

    #[test]
    fn a_witness_is_old_after_a_minute() {
        let mut witness = Witness::new(Path::new("/nowhere"));
        assert!(witness.is_due(100_000));
        witness.turn(100_000);
        assert!(!witness.is_due(100_000 + limits::WITNESS_AFTER_MS - 1));
        assert!(witness.is_due(100_000 + limits::WITNESS_AFTER_MS));
        assert!(!witness.is_due(0), "a clock that was set back");
    }
}
