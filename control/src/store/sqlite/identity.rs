//! Who this store is: its id, its replica, and how it notices that it is not what it was.
//!
//! A dot must never name two operations. Whatever puts an older copy of the log in place therefore
//! makes a new incarnation, before the first operation is appended:
//!
//! ```text
//!  copy made by `backup`                 carries a mark
//!  old file put back in the directory    the epoch file beside it is ahead, or of another store
//!  whole directory copied elsewhere      the database has another inode
//!  files overwritten in place            the witness is not the one that the database names
//!  all else (a machine's snapshot)       an edge presents a cursor beyond our head (feed::tail) →
//! renewed at once
//! ```

use std::{
    fs,
    io::{self, Write as _},
    os::unix::fs::{FileExt as _, MetadataExt as _, OpenOptionsExt as _},
    path::Path,
};

use rusqlite::{Connection, params};

use super::{Reader, StoreError, witness::Witness};
use crate::{
    limits,
    log::{
        append::Head,
        dot::{Dot, Replica, StoreId, VersionVector},
        hlc::Hlc,
    },
};

/// Why a new incarnation was drawn.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Reason {
    /// There was no store.
    Created,
    /// The database was made by a backup.
    Backup,
    /// The database is older than what this directory last acknowledged.
    Older,
    /// The database file is a copy, or its epoch file is gone.
    Copied,
    /// The files are those of this directory, but what they hold was put back.
    PutBack,
    /// The region's name changed.
    Region,
    /// An edge knows operations of ours that we do not.
    EdgeAhead,
}

impl Reason {
    /// For people, after "a new incarnation because".
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Created => "the store was created",
            Self::Backup => "the database is a backup",
            Self::Older => "the database is older than what was acknowledged here",
            Self::Copied => "the database file is a copy",
            Self::PutBack => "the files of the store were put back from a copy",
            Self::Region => "the region has another name",
            Self::EdgeAhead => "an edge knows operations that this store does not",
        }
    }
}

/// What identity is made of: the region's name, the time and random bits.
#[derive(Clone, Debug)]
pub struct Draw {
    /// `[a-z0-9-]{1,15}`.
    pub region: String,
    /// ms since the Unix epoch.
    pub now_ms: u64,
    /// Fresh random bytes.
    pub random: [u8; 12],
}

/// Loads the head of the log, drawing a new identity where the old one must not be used. Returns
/// the reason if so.
pub fn load(
    conn: &Connection,
    database: &Path,
    epoch: &mut Epoch,
    draw: &Draw,
) -> Result<(Head, Option<Reason>), StoreError> {
    let transaction = conn.unchecked_transaction()?;
    let reader = Reader::new(conn);
    let inode = inode(database);
    let (mut head, reason) = match reader.meta("store")? {
        None => {
            set(conn, "compacted", "0")?;
            (blank(draw)?, Some(Reason::Created))
        }
        Some(_) => {
            let head = reader.head()?;
            let reason = doubt(&reader, &head, epoch, &inode, draw)?;
            (head, reason)
        }
    };
    if let Some(reason) = reason {
        renew(conn, &mut head, draw, reason)?;
    }
    // A store that is what it was is not written to: control starts on a full disk too.
    if reader.meta("inode")?.as_deref() != Some(inode.as_str()) {
        set(conn, "inode", &inode)?;
    }
    epoch.witness.take_up(reader.meta("witness")?.as_deref());
    transaction.commit()?;
    turn_witness(conn, epoch, draw.now_ms)?;
    Ok((head, reason))
}

/// Every start has a witness of its own, if there is room for it: control starts on a full disk
/// too. Any other error of the store is one of the start: after a failed sync nothing may be
/// acknowledged.
fn turn_witness(conn: &Connection, epoch: &mut Epoch, now_ms: u64) -> Result<(), StoreError> {
    let noted = match epoch.witness.write() {
        Ok(noted) => noted,
        Err(error) => {
            tracing::warn!(%error, "the witness of the store could not be written");
            return Ok(());
        }
    };
    match set(conn, "witness", &noted) {
        Ok(()) => epoch.witness.turn(now_ms),
        Err(error @ StoreError::Full(_)) => {
            tracing::warn!(%error, "the witness of the store could not be named");
        }
        Err(error) => return Err(error),
    }
    Ok(())
}

/// Draws a new store id and replica. The caller holds the transaction.
pub fn renew(
    conn: &Connection,
    head: &mut Head,
    draw: &Draw,
    reason: Reason,
) -> Result<(), StoreError> {
    let (store, incarnation) = draw.random.split_at(8);
    let store = store.iter().fold(0u64, |all, &byte| (all << 8) | u64::from(byte));
    let incarnation = incarnation.iter().fold(0u32, |all, &byte| (all << 8) | u32::from(byte));
    head.store = StoreId(store);
    head.replica = replica(&draw.region, incarnation)?;
    conn.execute(
        "INSERT INTO incarnation (replica, drawn_at_ms, reason) VALUES (?1, ?2, ?3)",
        params![head.replica.to_string(), draw.now_ms, reason.as_str()],
    )?;
    head.applied = forget_oldest(conn, &head.applied)?;
    conn.execute("DELETE FROM meta WHERE key = 'copied'", [])?;
    set(conn, "store", &head.store.to_string())?;
    set(conn, "replica", &head.replica.to_string())?;
    save(conn, head)
}

/// Writes what moves with every commit.
pub fn save(conn: &Connection, head: &Head) -> Result<(), StoreError> {
    set(conn, "position", &head.position.to_string())?;
    set(conn, "applied", &head.applied.to_string())?;
    set(conn, "hlc", &head.hlc.0.to_string())
}

/// Writes a fact of this store.
pub fn set(conn: &Connection, name: &str, value: &str) -> Result<(), StoreError> {
    conn.prepare_cached("INSERT OR REPLACE INTO meta (key, value) VALUES (?1, ?2)")?
        .execute([name, value])?;
    Ok(())
}

fn blank(draw: &Draw) -> Result<Head, StoreError> {
    Ok(Head {
        store: StoreId(0),
        replica: replica(&draw.region, 0)?,
        position: 0,
        applied: VersionVector::new(),
        hlc: Hlc::default(),
    })
}

fn replica(region: &str, incarnation: u32) -> Result<Replica, StoreError> {
    Replica::new(region, incarnation).map_err(|_| StoreError::Row(format!("region {region}")))
}

fn doubt(
    reader: &Reader<'_>,
    head: &Head,
    epoch: &Epoch,
    inode: &str,
    draw: &Draw,
) -> Result<Option<Reason>, StoreError> {
    if reader.meta("copied")?.is_some() {
        return Ok(Some(Reason::Backup));
    }
    Ok(match epoch.read() {
        Some((store, position)) if store != head.store || position > head.position => {
            Some(Reason::Older)
        }
        None => Some(Reason::Copied),
        Some(_) if reader.meta("inode")?.as_deref() != Some(inode) => Some(Reason::Copied),
        Some(_) if !epoch.witness.agrees(reader.meta("witness")?.as_deref()) => {
            Some(Reason::PutBack)
        }
        Some(_) if head.replica.region() != draw.region => Some(Reason::Region),
        Some(_) => None,
    })
}

/// Keeps the newest incarnations of our own in a vector, see [`limits::INCARNATIONS_MAX`].
fn forget_oldest(conn: &Connection, applied: &VersionVector) -> Result<VersionVector, StoreError> {
    let mut statement = conn.prepare("SELECT replica FROM incarnation ORDER BY ordinal DESC")?;
    let newest_first: Vec<String> =
        statement.query_map([], |row| row.get(0))?.collect::<Result<_, _>>()?;
    let old = newest_first.get(limits::INCARNATIONS_MAX..).unwrap_or_default();
    let kept = |dot: &Dot| !old.iter().any(|replica| replica == dot.replica.as_str());
    Ok(applied.iter().filter(kept).collect())
}

/// What tells a file from its copies: the inode, and when it was made, because inodes are given out
/// again.
fn inode(database: &Path) -> String {
    let Ok(metadata) = fs::metadata(database) else { return String::new() };
    let made = metadata.created().ok();
    let made_ns = made
        .and_then(|made| made.duration_since(std::time::UNIX_EPOCH).ok())
        .map_or(0, |made| made.as_nanos());
    format!("{}.{made_ns}", metadata.ino())
}

/// The last committed position, in a file beside the database. Written after every commit and
/// before its replies, without a sync: it is never ahead of the database it belongs to, so a
/// database behind it is an older one.
pub struct Epoch {
    file: fs::File,
    /// Finds what the position cannot: this file, too, may have been put back.
    pub witness: Witness,
}

impl Epoch {
    /// Opens or makes the file.
    pub fn open(path: &Path) -> io::Result<Self> {
        let file = fs::OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(path)?;
        let witness = Witness::new(path.parent().unwrap_or(Path::new(".")));
        Ok(Self { file, witness })
    }

    /// The store and position it names; `None` when it names none.
    fn read(&self) -> Option<(StoreId, u64)> {
        let mut bytes = [0; Self::BYTES];
        self.file.read_exact_at(&mut bytes, 0).ok()?;
        let text = std::str::from_utf8(&bytes).ok()?;
        let (store, position) = text.trim_end().split_once(' ')?;
        Some((store.parse().ok()?, position.parse().ok()?))
    }

    /// Notes a committed head.
    pub fn write(&self, head: &Head) -> io::Result<()> {
        let mut bytes = Vec::with_capacity(Self::BYTES);
        writeln!(bytes, "{} {:020}", head.store, head.position)?;
        self.file.write_all_at(&bytes, 0)
    }

    /// Notes a head whose store is new, and makes sure that it stays: a file that a power failure
    /// took back to another store's would draw an incarnation without a cause.
    pub fn write_synced(&self, head: &Head) -> io::Result<()> {
        self.write(head)?;
        self.file.sync_all()
    }

    const BYTES: usize = 16 + 1 + 20 + 1;
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;
    use crate::store::sqlite::schema;

    struct Place {
        dir: tempfile::TempDir,
    }

    impl Place {
        fn new() -> Self {
            Self { dir: tempfile::tempdir().expect("directory") }
        }

        fn database(&self) -> PathBuf {
            schema::file(self.dir.path())
        }

        /// Opens, moves the head on to `position`, closes.
        fn open(&self, position: u64, random: u8) -> (Head, Option<Reason>) {
            let conn = schema::open_writer(&self.database()).expect("opens");
            let mut epoch = Epoch::open(&self.dir.path().join("epoch")).expect("opens");
            let draw = Draw { region: "eu".into(), now_ms: 1, random: [random; 12] };
            let loaded = load(&conn, &self.database(), &mut epoch, &draw);
            let (mut head, reason) = loaded.expect("loads");
            head.position = head.position.max(position);
            save(&conn, &head).expect("saves");
            epoch.write(&head).expect("writes");
            (head, reason)
        }
    }

    #[test]
    fn a_store_keeps_its_identity_over_restarts() {
        let place = Place::new();
        let (first, reason) = place.open(7, 1);
        assert_eq!(reason, Some(Reason::Created));
        let (second, reason) = place.open(7, 2);
        assert_eq!(reason, None);
        assert_eq!((second.store, second.replica), (first.store, first.replica));
    }

    #[test]
    fn an_older_database_put_back_is_a_new_incarnation() {
        let place = Place::new();
        let (first, _) = place.open(7, 1);
        let kept = fs::read(place.database()).expect("read");
        place.open(9, 2);
        fs::write(place.database(), kept).expect("put back");
        let (renewed, reason) = place.open(7, 3);
        assert_eq!(reason, Some(Reason::Older));
        assert!(renewed.store != first.store && renewed.replica != first.replica);
        assert_eq!(place.open(8, 4).1, None);
    }

    /// A file's name, what it holds and when it was changed.
    type Kept = (PathBuf, Vec<u8>, (i64, i64));

    fn changed_at(path: &Path) -> (i64, i64) {
        let metadata = fs::metadata(path).expect("there");
        (metadata.ctime(), metadata.ctime_nsec())
    }

    fn contents(place: &Place) -> Vec<Kept> {
        let files = fs::read_dir(place.dir.path()).expect("a directory").flatten();
        let kept = |path: PathBuf| {
            let content = fs::read(&path).expect("read");
            (PathBuf::from(path.file_name().expect("named")), content, changed_at(&path))
        };
        files.map(|file| kept(file.path())).collect()
    }

    /// Writes the contents of files over them, as `cp` does: inodes and birth times stay.
    fn overwrite(place: &Place, kept: &[Kept]) {
        for (name, content, at) in kept {
            let path = place.dir.path().join(name);
            // The kernel's clock for files ticks some hundred times a second.
            for _ in 0..1_000_000 {
                fs::write(&path, content).expect("put back");
                if changed_at(&path) != *at {
                    break;
                }
            }
        }
    }

    #[test]
    fn files_overwritten_in_place_are_a_new_incarnation() {
        for with_witness in [false, true] {
            let place = Place::new();
            let (first, _) = place.open(7, 1);
            let mut kept = contents(&place);
            assert_eq!(kept.len(), 3, "database, epoch, witness");
            if !with_witness {
                kept.retain(|(name, ..)| !name.to_string_lossy().starts_with("witness"));
            }
            assert_eq!(place.open(9, 2).1, None);
            overwrite(&place, &kept);
            let (renewed, reason) = place.open(7, 3);
            assert_eq!(reason, Some(Reason::PutBack), "with its witness: {with_witness}");
            assert!(renewed.store != first.store && renewed.replica != first.replica);
            assert_eq!(place.open(8, 4).1, None);
        }
    }

    #[test]
    fn a_store_from_before_there_was_a_witness_is_what_it_was() {
        let place = Place::new();
        place.open(7, 1);
        let conn = schema::open_writer(&place.database()).expect("opens");
        conn.execute("DELETE FROM meta WHERE key = 'witness'", []).expect("deleted");
        drop(conn);
        assert_eq!(place.open(7, 2).1, None);
        assert_eq!(place.open(7, 3).1, None);
    }

    #[test]
    fn a_copied_directory_is_a_new_incarnation() {
        let place = Place::new();
        place.open(7, 1);
        let copy = Place::new();
        fs::copy(place.database(), copy.database()).expect("copied");
        let epoch = place.dir.path().join("epoch");
        fs::copy(epoch, copy.dir.path().join("epoch")).expect("copied");
        assert_eq!(copy.open(7, 2).1, Some(Reason::Copied));
        assert_eq!(place.open(7, 3).1, None, "the original is what it was");
    }

    #[test]
    fn old_incarnations_make_room_for_new_ones() {
        let place = Place::new();
        let conn = schema::open_writer(&place.database()).expect("opens");
        let mut head =
            blank(&Draw { region: "eu".into(), now_ms: 0, random: [0; 12] }).expect("valid");
        for nth in 1..=40u8 {
            let draw = Draw { region: "eu".into(), now_ms: 0, random: [nth; 12] };
            renew(&conn, &mut head, &draw, Reason::EdgeAhead).expect("renewed");
            assert!(head.applied.observe(Dot { replica: head.replica, seq: 1 }), "room for {nth}");
        }
        assert!(head.applied.iter().count() <= limits::INCARNATIONS_MAX);
    }
}
