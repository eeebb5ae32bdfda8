//! What can go wrong with the store, by what follows from it.

use std::fmt;

use rusqlite::{ErrorCode, ffi};

/// The store could not do what was asked. The class decides what happens next, the source says why.
#[derive(Debug)]
pub enum StoreError {
    /// No space: this write is refused, reads go on, later writes try again.
    Full(rusqlite::Error),
    /// The kernel could not promise that data is on disk: nothing may be acknowledged any more,
    /// control stops.
    Sync(rusqlite::Error),
    /// Anything else SQLite says: this command fails, others may not.
    Sql(rusqlite::Error),
    /// A row that this program cannot read; the store is damaged or was written by a newer program.
    Row(String),
    /// The version vector is full, see [`crate::log::append::VectorFull`].
    VectorFull,
    /// What edges would have to be told is over [`proto::limits::RECORD_BYTES_MAX`]: nothing was
    /// written.
    RecordTooLarge {
        /// Its bytes.
        bytes: usize,
    },
    /// The store is stopping, or its queue is full.
    Busy,
    /// The writer has stopped after an error that it could not survive.
    Stopped,
}

impl StoreError {
    /// Whether a maintenance command that failed so has harmed the transaction it shared.
    pub fn spoils_batch(&self) -> bool {
        matches!(self, Self::Full(_) | Self::Sync(_) | Self::Sql(_))
    }
}

impl From<rusqlite::Error> for StoreError {
    fn from(error: rusqlite::Error) -> Self {
        let Some(code) = error.sqlite_error() else {
            return match error {
                rusqlite::Error::FromSqlConversionFailure(..)
                | rusqlite::Error::InvalidColumnType(..)
                | rusqlite::Error::IntegralValueOutOfRange(..) => Self::Row(error.to_string()),
                error => Self::Sql(error),
            };
        };
        match (code.code, code.extended_code) {
            (ErrorCode::DiskFull, _) | (_, ffi::SQLITE_IOERR_SHMSIZE) => Self::Full(error),
            (_, ffi::SQLITE_IOERR_FSYNC | ffi::SQLITE_IOERR_DIR_FSYNC) => Self::Sync(error),
            _ => Self::Sql(error),
        }
    }
}

impl From<serde_json::Error> for StoreError {
    fn from(error: serde_json::Error) -> Self {
        Self::Row(error.to_string())
    }
}

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Full(_) => f.write_str("the disk under the store is full"),
            Self::Sync(_) => f.write_str("the disk under the store did not confirm a write"),
            Self::Sql(_) => f.write_str("the store failed"),
            Self::Row(what) => write!(f, "the store holds a row that cannot be read: {what}"),
            Self::VectorFull => f.write_str("the version vector is full"),
            Self::RecordTooLarge { bytes } => {
                write!(f, "a record of {bytes} bytes is over the limit of the feed")
            }
            Self::Busy => f.write_str("the store is busy"),
            Self::Stopped => f.write_str("the store has stopped writing"),
        }
    }
}

impl std::error::Error for StoreError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Full(error) | Self::Sync(error) | Self::Sql(error) => Some(error),
            _ => None,
        }
    }
}
