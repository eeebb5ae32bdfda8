//! The tables, their versions, and how a database file is opened.
//!
//! `PRAGMA user_version` is the store's format. A newer one is refused, an older one is copied
//! before it is migrated.

use std::{
    fs,
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    time::Duration,
};

use rusqlite::{Connection, OpenFlags};

use super::StoreError;

/// The format this program reads and writes.
pub const FORMAT: i64 = 2;

/// The database file in a data directory.
pub fn file(data: &Path) -> PathBuf {
    data.join("control.db")
}

/// Why a database could not be opened.
#[derive(Debug)]
pub enum OpenError {
    /// The file cannot be made or reached.
    File(PathBuf, std::io::Error),
    /// SQLite refused.
    Store(PathBuf, StoreError),
    /// Written by a newer program.
    Newer {
        /// The file.
        file: PathBuf,
        /// Its format.
        found: i64,
    },
    /// Some other program's database.
    Foreign(PathBuf),
}

impl std::fmt::Display for OpenError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::File(path, _) => write!(f, "cannot open {}", path.display()),
            Self::Store(path, _) => write!(f, "cannot use the database {}", path.display()),
            Self::Newer { file, found } => write!(
                f,
                "the database {} has format {found}, this program knows formats up to {FORMAT}: \
                 it was written by a newer Pharos. Run that version, or restore the copy it made \
                 before migrating ({}.v{FORMAT})",
                file.display(),
                file.display()
            ),
            Self::Foreign(path) => {
                write!(f, "{} is a database, but not one of Pharos", path.display())
            }
        }
    }
}

impl std::error::Error for OpenError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::File(_, error) => Some(error),
            Self::Store(_, error) => Some(error),
            Self::Newer { .. } | Self::Foreign(_) => None,
        }
    }
}

/// Opens the writing connection, making or migrating the database.
pub fn open_writer(path: &Path) -> Result<Connection, OpenError> {
    open_writer_on(path, None)
}

/// The same on a registered SQLite VFS: what the file holds lies there, and the file at `path` is
/// empty. For disks that fail on purpose.
pub fn open_writer_on(path: &Path, vfs: Option<&str>) -> Result<Connection, OpenError> {
    let file_error = |error| OpenError::File(path.to_owned(), error);
    let store_error = |error: rusqlite::Error| OpenError::Store(path.to_owned(), error.into());
    let existed = path.exists();
    fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(path)
        .map_err(file_error)?;
    if !existed && let Some(parent) = path.parent() {
        fs::File::open(parent).and_then(|parent| parent.sync_all()).map_err(file_error)?;
    }
    let mut conn = connect(path, OpenFlags::default(), vfs).map_err(store_error)?;
    configure(&conn).map_err(store_error)?;
    conn.pragma_update(None, "journal_mode", "WAL").map_err(store_error)?;
    migrate(&mut conn, path)?;
    Ok(conn)
}

/// Opens a reading connection of a database that a writer has opened before.
pub fn open_reader(path: &Path) -> Result<Connection, StoreError> {
    open_reader_on(path, None)
}

/// The same on a registered SQLite VFS, see [`open_writer_on`].
pub fn open_reader_on(path: &Path, vfs: Option<&str>) -> Result<Connection, StoreError> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let conn = connect(path, flags, vfs)?;
    configure(&conn)?;
    Ok(conn)
}

fn connect(path: &Path, flags: OpenFlags, vfs: Option<&str>) -> rusqlite::Result<Connection> {
    match vfs {
        None => Connection::open_with_flags(path, flags),
        Some(vfs) => Connection::open_with_flags_and_vfs(path, flags, vfs),
    }
}

fn configure(conn: &Connection) -> rusqlite::Result<()> {
    conn.busy_timeout(Duration::from_secs(5))?;
    conn.set_prepared_statement_cache_capacity(128);
    // FULL: the write-ahead log is synced at every commit, which is what "acknowledged" means.
    conn.pragma_update(None, "synchronous", "FULL")?;
    // Checkpoints run after the replies, not inside a commit (writer).
    conn.pragma_update(None, "wal_autocheckpoint", 0)?;
    conn.pragma_update(None, "temp_store", "MEMORY")?;
    conn.pragma_update(None, "cache_size", -16_000)
}

fn migrate(conn: &mut Connection, path: &Path) -> Result<(), OpenError> {
    let store_error = |error: rusqlite::Error| OpenError::Store(path.to_owned(), error.into());
    let pragma = |name: &str| conn.pragma_query_value(None, name, |row| row.get::<_, i64>(0));
    let application = pragma("application_id").map_err(store_error)?;
    let found = pragma("user_version").map_err(store_error)?;
    let tables: i64 = conn
        .query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))
        .map_err(store_error)?;
    if application != APPLICATION && (application != 0 || tables > 0) {
        return Err(OpenError::Foreign(path.to_owned()));
    }
    if found > FORMAT {
        return Err(OpenError::Newer { file: path.to_owned(), found });
    }
    if found == FORMAT {
        return Ok(());
    }
    if found > 0 {
        copy_before_migrating(conn, path, found).map_err(store_error)?;
    }
    let migrate = conn.transaction().map_err(store_error)?;
    for step in &MIGRATIONS[usize::try_from(found).unwrap_or(0)..] {
        migrate.execute_batch(step).map_err(store_error)?;
    }
    migrate.pragma_update(None, "application_id", APPLICATION).map_err(store_error)?;
    migrate.pragma_update(None, "user_version", FORMAT).map_err(store_error)?;
    migrate.commit().map_err(store_error)
}

/// `control.db` → `control.db.v<format>`, for the way back.
fn copy_before_migrating(conn: &Connection, path: &Path, found: i64) -> rusqlite::Result<()> {
    let mut copy = path.as_os_str().to_owned();
    copy.push(format!(".v{found}"));
    let copy = copy.to_string_lossy().into_owned();
    let _ = fs::remove_file(&copy);
    conn.execute("VACUUM INTO ?1", [copy]).map(|_| ())
}

/// "PHRS": tells our databases from others.
const APPLICATION: i64 = 0x5048_5253;

/// One step a format; a step is never edited after it was released.
const MIGRATIONS: [&str; FORMAT as usize] = [FIRST, TOPICS];

const FIRST: &str = "
-- One row a fact of this store: store, replica, position, applied, hlc, compacted, inode, copied.
CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;

-- Replicas this store has been, oldest first.
CREATE TABLE incarnation (
  ordinal INTEGER PRIMARY KEY, replica TEXT NOT NULL UNIQUE, drawn_at_ms INTEGER NOT NULL,
  reason TEXT NOT NULL
);

-- The log. Everything below is derived from it, except what says otherwise.
CREATE TABLE log (
  position INTEGER PRIMARY KEY, replica TEXT NOT NULL, seq INTEGER NOT NULL,
  format INTEGER NOT NULL,
  hlc INTEGER NOT NULL, class TEXT NOT NULL, kind TEXT NOT NULL, entity TEXT NOT NULL,
  actor TEXT NOT NULL, request TEXT NOT NULL, context TEXT NOT NULL, change TEXT NOT NULL,
  UNIQUE (replica, seq)
);
CREATE INDEX log_by_entity ON log (kind, entity, position);
CREATE INDEX log_by_age ON log (class, hlc);

-- Folded state. page, name, rank, open and weight are read out of it for look-ups; rank is NULL
-- when deleted; weight is a component's status or an incident's impact.
CREATE TABLE entity (
  kind TEXT NOT NULL, id TEXT NOT NULL, page TEXT NOT NULL, name TEXT, rank INTEGER,
  open INTEGER NOT NULL, weight TEXT,
  dot TEXT NOT NULL, state TEXT NOT NULL, PRIMARY KEY (kind, id)
);
CREATE INDEX entity_by_name ON entity (kind, page, name) WHERE name IS NOT NULL;
CREATE INDEX entity_by_rank ON entity (kind, page, rank, id) WHERE rank IS NOT NULL;
CREATE INDEX entity_open ON entity (page, rank) WHERE open = 1;

-- The fold of operations that have left the log: entity = base + log.
CREATE TABLE base (
  kind TEXT NOT NULL, id TEXT NOT NULL, dot TEXT NOT NULL, state TEXT NOT NULL,
  PRIMARY KEY (kind, id)
);

-- What lost against a concurrent write and nobody has decided on since.
CREATE TABLE conflict (
  kind TEXT NOT NULL, id TEXT NOT NULL, cell TEXT NOT NULL, dot TEXT NOT NULL, value TEXT NOT NULL,
  winner TEXT NOT NULL, PRIMARY KEY (kind, id, cell, dot)
) WITHOUT ROWID;

-- Purges that operators ordered, for their receipts.
CREATE TABLE purge (
  id TEXT PRIMARY KEY, position INTEGER NOT NULL, dot TEXT NOT NULL, at_ms INTEGER NOT NULL,
  purge_order TEXT NOT NULL
) WITHOUT ROWID;
CREATE INDEX purge_by_position ON purge (position);

-- What edges are told, in the order of the log. applied only on the last record of an operation.
CREATE TABLE record (
  position INTEGER NOT NULL, ordinal INTEGER NOT NULL, at_ms INTEGER NOT NULL, kind TEXT NOT NULL,
  data TEXT NOT NULL, dot TEXT NOT NULL, applied TEXT, PRIMARY KEY (position, ordinal)
) WITHOUT ROWID;
CREATE INDEX record_publish ON record (position, ordinal) WHERE kind = 'publish';

-- The last event of a topic and replica: the next one's prev.
CREATE TABLE topic (
  topic TEXT NOT NULL, replica TEXT NOT NULL, seq INTEGER NOT NULL, PRIMARY KEY (topic, replica)
) WITHOUT ROWID;

-- Answers to requests with an Idempotency-Key. Not derived from the log; written with it.
CREATE TABLE idempotency (
  digest TEXT PRIMARY KEY, fingerprint TEXT NOT NULL, at_ms INTEGER NOT NULL,
  status INTEGER NOT NULL, location TEXT, etag TEXT, version TEXT NOT NULL, body TEXT NOT NULL
) WITHOUT ROWID;
CREATE INDEX idempotency_by_age ON idempotency (at_ms);

-- What edges last reported. Telemetry, not derived from the log.
CREATE TABLE edge_report (edge TEXT PRIMARY KEY, report TEXT NOT NULL) WITHOUT ROWID;
";

/// Customers publish to topics: when a topic had its last event, and how many it ever had.
const TOPICS: &str = "
ALTER TABLE topic ADD COLUMN at_ms INTEGER NOT NULL DEFAULT 0;
ALTER TABLE topic ADD COLUMN events INTEGER NOT NULL DEFAULT 0;
CREATE INDEX topic_by_age ON topic (at_ms);

-- The newest event of a topic for each event key ('' without one): what retention keeps longest.
CREATE TABLE last_value (
  topic TEXT NOT NULL, event_key TEXT NOT NULL, position INTEGER NOT NULL,
  PRIMARY KEY (topic, event_key)
) WITHOUT ROWID;
CREATE INDEX last_value_by_position ON last_value (position);
";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_store_of_a_newer_program_is_refused_and_untouched() {
        let dir = tempfile::tempdir().expect("directory");
        let path = file(dir.path());
        let conn = open_writer(&path).expect("new");
        conn.pragma_update(None, "user_version", FORMAT + 1).expect("set");
        drop(conn);
        let error = open_writer(&path).expect_err("newer");
        assert!(matches!(error, OpenError::Newer { found, .. } if found == FORMAT + 1), "{error}");
    }

    #[test]
    fn an_older_store_is_copied_and_migrated_with_what_it_holds() {
        let dir = tempfile::tempdir().expect("directory");
        let path = file(dir.path());
        let conn = Connection::open(&path).expect("new");
        conn.execute_batch(FIRST).expect("the first format");
        conn.execute_batch("INSERT INTO topic VALUES ('page/1', 'eu-00000001', 7)").expect("kept");
        conn.pragma_update(None, "application_id", APPLICATION).expect("set");
        conn.pragma_update(None, "user_version", 1).expect("set");
        drop(conn);
        let conn = open_writer(&path).expect("migrated");
        let kept: (u64, u64) = conn
            .query_row("SELECT seq, events FROM topic", [], |row| Ok((row.get(0)?, row.get(1)?)))
            .expect("there");
        assert_eq!(kept, (7, 0));
        assert!(dir.path().join("control.db.v1").exists(), "for the way back");
    }

    #[test]
    fn a_foreign_database_is_refused() {
        let dir = tempfile::tempdir().expect("directory");
        let path = file(dir.path());
        let conn = Connection::open(&path).expect("new");
        conn.execute_batch("CREATE TABLE t (a)").expect("made");
        drop(conn);
        assert!(matches!(open_writer(&path), Err(OpenError::Foreign(_))));
    }

    #[test]
    fn the_database_is_readable_by_its_owner_only() {
        use std::os::unix::fs::PermissionsExt as _;
        let dir = tempfile::tempdir().expect("directory");
        let path = file(dir.path());
        let _conn = open_writer(&path).expect("new");
        assert_eq!(fs::metadata(&path).expect("there").permissions().mode() & 0o777, 0o600);
    }
}
