//! The data directory: made for its owner only, and held by one process at a time.

use std::{
    fmt, fs, io,
    io::{Read as _, Seek as _, Write as _},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

/// A data directory that is ours until this is dropped or the process ends.
#[derive(Debug)]
pub struct DataDir {
    path: PathBuf,
    /// Held for its lock.
    _lock: fs::File,
}

/// Why a data directory cannot be used.
#[derive(Debug)]
pub enum DataDirError {
    /// It cannot be made, entered or written.
    Unusable(PathBuf, io::Error),
    /// Another process serves it.
    Held {
        /// Which directory.
        path: PathBuf,
        /// The other process, as far as it said.
        process: Option<u32>,
    },
}

impl fmt::Display for DataDirError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unusable(path, error) if error.kind() == io::ErrorKind::PermissionDenied => {
                write!(
                    f,
                    "{} belongs to another user: run Pharos as its owner, or give it to this user",
                    path.display()
                )
            }
            Self::Unusable(path, _) => write!(f, "cannot use {}", path.display()),
            Self::Held { path, process: Some(process) } => write!(
                f,
                "{} is in use by process {process}: stop it, or give this one another --data",
                path.display()
            ),
            Self::Held { path, process: None } => {
                write!(f, "{} is in use by another process", path.display())
            }
        }
    }
}

impl std::error::Error for DataDirError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Unusable(_, error) => Some(error),
            Self::Held { .. } => None,
        }
    }
}

impl DataDir {
    /// Makes the directory if need be and takes its lock.
    pub fn open(path: &Path) -> Result<Self, DataDirError> {
        let unusable = |error| DataDirError::Unusable(path.to_owned(), error);
        fs::DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(unusable)?;
        let mut lock = fs::OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(path.join("control.lock"))
            .map_err(unusable)?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(fs::TryLockError::WouldBlock) => {
                let mut text = String::new();
                // The holder's id is a help only; without it the answer is less precise.
                let _ = lock.read_to_string(&mut text);
                let process = text.trim().parse().ok();
                return Err(DataDirError::Held { path: path.to_owned(), process });
            }
            Err(fs::TryLockError::Error(error)) => return Err(unusable(error)),
        }
        // A full disk must not keep control from starting: reads still work.
        let _ = lock
            .rewind()
            .and_then(|()| lock.set_len(0))
            .and_then(|()| writeln!(lock, "{}", std::process::id()));
        Ok(Self { path: path.to_owned(), _lock: lock })
    }

    /// A file in it.
    pub fn file(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

/// Writes a secret for its owner only, whole or not at all, and on disk when this returns.
pub fn write_secret(path: &Path, secret: &str) -> io::Result<()> {
    let part = path.with_extension("part");
    let _ = fs::remove_file(&part);
    let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&part)?;
    writeln!(file, "{secret}")?;
    file.sync_all()?;
    fs::rename(&part, path)?;
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => fs::File::open(parent)?.sync_all(),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn a_second_holder_is_refused_by_the_first_ones_process_id() {
        let dir = tempfile::tempdir().expect("directory");
        let first = DataDir::open(dir.path()).expect("free");
        let error = DataDir::open(dir.path()).expect_err("held").to_string();
        assert!(error.contains(&format!("process {}", std::process::id())), "{error}");
        drop(first);
        assert!(DataDir::open(dir.path()).is_ok());
    }

    #[test]
    fn a_secret_is_for_its_owner_only() {
        let dir = tempfile::tempdir().expect("directory");
        let path = dir.path().join("admin.key");
        write_secret(&path, "s").expect("written");
        assert_eq!(fs::metadata(&path).expect("there").permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::read_to_string(&path).expect("read"), "s\n");
    }
}
