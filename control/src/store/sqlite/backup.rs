//! An online copy of the database: consistent, verified, and marked, so that whoever opens it
//! becomes another replica.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use rusqlite::{Connection, OpenFlags};

use super::{StoreError, identity};

/// Why there is no copy.
#[derive(Debug)]
pub enum BackupError {
    /// The destination is there already; a backup never overwrites.
    Exists(PathBuf),
    /// The destination cannot be written.
    File(PathBuf, io::Error),
    /// SQLite refused, or the copy is not whole.
    Store(StoreError),
}

impl std::fmt::Display for BackupError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Exists(path) => write!(f, "{} exists already", path.display()),
            Self::File(path, _) => write!(f, "cannot write {}", path.display()),
            Self::Store(_) => f.write_str("cannot copy the database"),
        }
    }
}

impl std::error::Error for BackupError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Exists(_) => None,
            Self::File(_, error) => Some(error),
            Self::Store(error) => Some(error),
        }
    }
}

impl From<rusqlite::Error> for BackupError {
    fn from(error: rusqlite::Error) -> Self {
        Self::Store(error.into())
    }
}

/// Copies a database that may be in use. The writer goes on meanwhile: the copy is of one moment.
pub fn copy(database: &Path, to: &Path) -> Result<(), BackupError> {
    if to.exists() {
        return Err(BackupError::Exists(to.to_owned()));
    }
    let mut part = to.as_os_str().to_owned();
    part.push(".part");
    let part = PathBuf::from(part);
    let result = copy_to(database, &part).and_then(|()| {
        let file_error = |error| BackupError::File(to.to_owned(), error);
        fs::rename(&part, to).map_err(file_error)?;
        let parent = to.parent().filter(|parent| !parent.as_os_str().is_empty());
        let parent = parent.unwrap_or(Path::new("."));
        fs::File::open(parent).and_then(|parent| parent.sync_all()).map_err(file_error)
    });
    if result.is_err() {
        let _ = fs::remove_file(&part);
    }
    result
}

fn copy_to(database: &Path, part: &Path) -> Result<(), BackupError> {
    use std::os::unix::fs::OpenOptionsExt as _;
    let file_error = |error| BackupError::File(part.to_owned(), error);
    let mut options = fs::OpenOptions::new();
    options.write(true).create(true).truncate(true).mode(0o600).open(part).map_err(file_error)?;
    let source = Connection::open_with_flags(database, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
    let mut copy = Connection::open(part)?;
    {
        // All pages in one step: one read transaction, which never holds the writer up.
        let backup = rusqlite::backup::Backup::new(&source, &mut copy)?;
        while backup.step(-1)? != rusqlite::backup::StepResult::Done {
            std::thread::yield_now();
        }
    }
    // One file, without a write-ahead log beside it.
    copy.pragma_update(None, "journal_mode", "DELETE")?;
    identity::set(&copy, "copied", "1").map_err(BackupError::Store)?;
    let verdict: String = copy.query_row("PRAGMA quick_check", [], |row| row.get(0))?;
    if verdict != "ok" {
        return Err(BackupError::Store(StoreError::Row(verdict)));
    }
    drop(copy);
    fs::File::open(part).and_then(|file| file.sync_all()).map_err(file_error)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::sqlite::{
        identity::{Draw, Epoch, Reason, load},
        schema,
    };

    #[test]
    fn a_restored_backup_is_another_replica_of_another_store() {
        let dir = tempfile::tempdir().expect("directory");
        let database = schema::file(dir.path());
        let open = |random: u8| {
            let conn = schema::open_writer(&database).expect("opens");
            let mut epoch = Epoch::open(&dir.path().join("epoch")).expect("opens");
            let draw = Draw { region: "eu".into(), now_ms: 1, random: [random; 12] };
            let (head, reason) = load(&conn, &database, &mut epoch, &draw).expect("loads");
            epoch.write(&head).expect("writes");
            (conn, head, reason)
        };
        let (conn, first, _) = open(1);
        let kept = dir.path().join("kept.db");
        copy(&database, &kept).expect("copied while open");
        assert!(matches!(copy(&database, &kept), Err(BackupError::Exists(_))));
        drop(conn);
        let (conn, same, reason) = open(2);
        assert_eq!((same.store, reason), (first.store, None));
        drop(conn);
        fs::copy(&kept, &database).expect("restored");
        let (conn, restored, reason) = open(3);
        assert_eq!(reason, Some(Reason::Backup));
        assert!(restored.store != first.store && restored.replica != first.replica);
        drop(conn);
        assert_eq!(open(4).2, None, "the mark is gone");
    }
}
