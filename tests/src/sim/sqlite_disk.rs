//! A disk under SQLite that loses power: what was not synced is lost, torn or reordered.
//!
//! A VFS in memory. Every write since the last sync of its file is kept apart; at
//! [`SqliteDisk::crash`] a seed decides for each 512-byte sector of each such write whether it
//! reached the platter, in any order. The power can be set to fail at the n-th operation, in the
//! middle of a commit.
//!
//! ```text
//!   SQLite ─ xWrite ─▶ current + pending        xSync: durable = current, pending = ∅
//!                         │ crash
//!                         ▼
//!              durable + some sectors of pending, in any order
//! ```
//!
//! The one file of the tests with `unsafe`: SQLite's file system interface is C. Each function
//! below is called by SQLite only, with the pointers it was given by `open`; the state behind them
//! is a plain locked structure.
#![allow(unsafe_code, clippy::multiple_unsafe_ops_per_block)]

use std::{
    collections::BTreeMap,
    ffi::{CStr, CString, c_char, c_int, c_void},
    ptr,
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicU64, Ordering},
    },
};

use rusqlite::ffi;

use super::rng::Rng;

const SECTOR_BYTES: usize = 512;
const SHM_LOCKS: usize = 8;

#[derive(Clone, Debug)]
enum Change {
    Write { offset: usize, data: Vec<u8> },
    Truncate(usize),
}

#[derive(Default, Debug)]
struct File {
    durable: Vec<u8>,
    current: Vec<u8>,
    pending: Vec<Change>,
    /// Handles that hold the shared lock or more.
    shared: usize,
    reserved: bool,
    exclusive: bool,
    /// The wal-index: regions at stable addresses, gone with the process.
    shm: Vec<Box<[u8]>>,
    /// -1 exclusive, else the number of sharers, for each wal lock.
    shm_locks: [i32; SHM_LOCKS],
}

#[derive(Debug, Default)]
struct State {
    files: BTreeMap<String, File>,
    operations: u64,
    fails_at: Option<u64>,
    fails_at_sync: Option<u64>,
    dead: bool,
    full: bool,
    syncs: u64,
}

/// What a crash did, for coverage.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Damage {
    /// Writes of which nothing remained.
    pub lost: u64,
    /// Writes of which a part remained.
    pub torn: u64,
    /// Writes that remained although an earlier one did not.
    pub reordered: u64,
}

/// The disk; all connections opened through [`SqliteDisk::vfs`] share it.
#[derive(Clone, Debug)]
pub struct SqliteDisk {
    state: Arc<Mutex<State>>,
    name: String,
}

impl SqliteDisk {
    /// A new, empty disk, registered under a name of its own. Registrations last as long as the
    /// process; a simulation makes one disk and crashes it.
    pub fn register() -> Self {
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        let name = format!("pharos-sim-{}", NUMBER.fetch_add(1, Ordering::Relaxed));
        let state: Arc<Mutex<State>> = Arc::default();
        let c_name = CString::new(name.as_str()).expect("no NUL").into_raw();
        let vfs = Box::new(ffi::sqlite3_vfs {
            iVersion: 2,
            szOsFile: size_of::<Handle>() as c_int,
            mxPathname: 512,
            pNext: ptr::null_mut(),
            zName: c_name,
            pAppData: Arc::into_raw(Arc::clone(&state)) as *mut c_void,
            xOpen: Some(x_open),
            xDelete: Some(x_delete),
            xAccess: Some(x_access),
            xFullPathname: Some(x_full_pathname),
            xDlOpen: None,
            xDlError: None,
            xDlSym: None,
            xDlClose: None,
            xRandomness: Some(x_randomness),
            xSleep: Some(x_sleep),
            xCurrentTime: None,
            xGetLastError: Some(x_get_last_error),
            xCurrentTimeInt64: Some(x_current_time),
            xSetSystemCall: None,
            xGetSystemCall: None,
            xNextSystemCall: None,
        });
        // SAFETY: the structure is leaked, so it outlives every connection; all mandatory methods
        // are set.
        let result = unsafe { ffi::sqlite3_vfs_register(Box::into_raw(vfs), 0) };
        assert_eq!(result, ffi::SQLITE_OK, "registering a VFS");
        Self { state, name }
    }

    /// The name to open connections with.
    pub fn vfs(&self) -> &str {
        &self.name
    }

    /// Writes, truncations and syncs so far.
    pub fn operations(&self) -> u64 {
        self.lock().operations
    }

    /// Syncs so far.
    pub fn syncs(&self) -> u64 {
        self.lock().syncs
    }

    /// The power fails at this operation, counted as [`SqliteDisk::operations`] counts.
    pub fn fail_at(&self, operation: u64) {
        self.lock().fails_at = Some(operation);
    }

    /// The power fails inside this sync, counted as [`SqliteDisk::syncs`] counts.
    pub fn fail_at_sync(&self, sync: u64) {
        self.lock().fails_at_sync = Some(sync);
    }

    /// Whether the power has failed.
    pub fn is_dead(&self) -> bool {
        self.lock().dead
    }

    /// No room: writes that would grow a file fail.
    pub fn set_full(&self, full: bool) {
        self.lock().full = full;
    }

    /// An empty disk with power and room again. All connections must be closed.
    pub fn erase(&self) {
        *self.lock() = State::default();
    }

    /// The machine comes back: each file is what was durable and some of what was not. All
    /// connections must be closed.
    pub fn crash(&self, rng: &mut Rng) -> Damage {
        let mut state = self.lock();
        let mut damage = Damage::default();
        state.dead = false;
        state.fails_at = None;
        state.fails_at_sync = None;
        for file in state.files.values_mut() {
            let mut image = std::mem::take(&mut file.durable);
            let mut changes = std::mem::take(&mut file.pending);
            let keep_order = rng.chance(300);
            let mut missing = false;
            if !keep_order {
                for at in (1..changes.len()).rev() {
                    changes.swap(at, rng.below(at + 1));
                }
            }
            let survival = *rng.pick(&[0, 300, 700, 950, 1000]);
            for change in changes {
                let kept = apply_some(&mut image, &change, survival, rng);
                match kept {
                    Kept::Nothing => damage.lost += 1,
                    Kept::Part => damage.torn += 1,
                    Kept::All => damage.reordered += u64::from(missing),
                }
                missing |= kept != Kept::All;
            }
            *file = File { durable: image.clone(), current: image, ..File::default() };
        }
        damage
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

#[derive(PartialEq, Eq, Clone, Copy)]
enum Kept {
    Nothing,
    Part,
    All,
}

fn write_at(image: &mut Vec<u8>, offset: usize, data: &[u8]) {
    if image.len() < offset + data.len() {
        image.resize(offset + data.len(), 0);
    }
    image[offset..offset + data.len()].copy_from_slice(data);
}

/// Lets each sector of a change survive with some probability.
fn apply_some(image: &mut Vec<u8>, change: &Change, per_mille: u32, rng: &mut Rng) -> Kept {
    let (mut kept, mut lost) = (0, 0);
    match change {
        Change::Truncate(length) => {
            if rng.chance(per_mille) {
                image.resize(*length, 0);
                kept += 1;
            } else {
                lost += 1;
            }
        }
        Change::Write { offset, data } => {
            let mut at = 0;
            while at < data.len() {
                let end = ((offset + at) / SECTOR_BYTES + 1) * SECTOR_BYTES - offset;
                let end = end.min(data.len());
                if rng.chance(per_mille) {
                    write_at(image, offset + at, &data[at..end]);
                    kept += 1;
                } else {
                    lost += 1;
                }
                at = end;
            }
        }
    }
    match (kept, lost) {
        (0, _) => Kept::Nothing,
        (_, 0) => Kept::All,
        _ => Kept::Part,
    }
}

impl State {
    /// Counts an operation; an error when the power is or goes off.
    fn operate(&mut self) -> Result<(), c_int> {
        if self.dead {
            return Err(ffi::SQLITE_IOERR);
        }
        self.operations += 1;
        if self.fails_at.is_some_and(|at| self.operations >= at) {
            self.dead = true;
            return Err(ffi::SQLITE_IOERR);
        }
        Ok(())
    }
}

/// What SQLite holds for an open file. The first field is what it knows.
#[repr(C)]
struct Handle {
    base: ffi::sqlite3_file,
    inner: *mut Inner,
}

struct Inner {
    state: Arc<Mutex<State>>,
    name: String,
    /// Nameless files are the connection's own and never durable.
    temporary: bool,
    level: c_int,
    /// Wal locks held: bit n shared, bit n + 8 exclusive.
    shm_held: u32,
}

static METHODS: ffi::sqlite3_io_methods = ffi::sqlite3_io_methods {
    iVersion: 2,
    xClose: Some(x_close),
    xRead: Some(x_read),
    xWrite: Some(x_write),
    xTruncate: Some(x_truncate),
    xSync: Some(x_sync),
    xFileSize: Some(x_file_size),
    xLock: Some(x_lock),
    xUnlock: Some(x_unlock),
    xCheckReservedLock: Some(x_check_reserved_lock),
    xFileControl: Some(x_file_control),
    xSectorSize: Some(x_sector_size),
    xDeviceCharacteristics: Some(x_device_characteristics),
    xShmMap: Some(x_shm_map),
    xShmLock: Some(x_shm_lock),
    xShmBarrier: Some(x_shm_barrier),
    xShmUnmap: Some(x_shm_unmap),
    xFetch: None,
    xUnfetch: None,
};

fn code(result: Result<(), c_int>) -> c_int {
    result.err().unwrap_or(ffi::SQLITE_OK)
}

/// Runs `act` on the file behind a handle.
fn with_file<R>(file: *mut ffi::sqlite3_file, act: impl FnOnce(&mut State, &mut Inner) -> R) -> R {
    // SAFETY: SQLite calls with the handle that `x_open` filled in and not after `x_close`; one
    // thread at a time a handle.
    let inner = unsafe { &mut *(*file.cast::<Handle>()).inner };
    let state = Arc::clone(&inner.state);
    let mut state = state.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    state.files.entry(inner.name.clone()).or_default();
    act(&mut state, inner)
}

fn state_of(vfs: *mut ffi::sqlite3_vfs) -> Arc<Mutex<State>> {
    // SAFETY: `pAppData` is the pointer of an `Arc` leaked in `register`; the count is raised
    // before an `Arc` is made of it.
    unsafe {
        let state = (*vfs).pAppData.cast::<Mutex<State>>().cast_const();
        Arc::increment_strong_count(state);
        Arc::from_raw(state)
    }
}

fn text(name: *const c_char) -> String {
    // SAFETY: SQLite passes NUL-terminated names that live as long as the call.
    unsafe { CStr::from_ptr(name) }.to_string_lossy().into_owned()
}

unsafe extern "C" fn x_open(
    vfs: *mut ffi::sqlite3_vfs,
    name: *const c_char,
    file: *mut ffi::sqlite3_file,
    flags: c_int,
    out_flags: *mut c_int,
) -> c_int {
    static TEMPORARY: AtomicU64 = AtomicU64::new(0);
    let state = state_of(vfs);
    let temporary = name.is_null();
    let name = if temporary {
        format!("temporary-{}", TEMPORARY.fetch_add(1, Ordering::Relaxed))
    } else {
        text(name)
    };
    let known = {
        let state = state.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        if state.dead {
            return ffi::SQLITE_CANTOPEN;
        }
        state.files.contains_key(&name)
    };
    if !known && flags & ffi::SQLITE_OPEN_CREATE == 0 && !temporary {
        // SAFETY: SQLite asks that the methods are null when an open fails.
        unsafe { (*file).pMethods = ptr::null() };
        return ffi::SQLITE_CANTOPEN;
    }
    let inner = Inner { state, name, temporary, level: 0, shm_held: 0 };
    // SAFETY: `file` points to `szOsFile` bytes for us to fill.
    unsafe {
        (*file.cast::<Handle>()).inner = Box::into_raw(Box::new(inner));
        (*file).pMethods = &METHODS;
        if !out_flags.is_null() {
            *out_flags = flags;
        }
    }
    with_file(file, |_, _| ());
    ffi::SQLITE_OK
}

unsafe extern "C" fn x_delete(vfs: *mut ffi::sqlite3_vfs, name: *const c_char, _: c_int) -> c_int {
    let state = state_of(vfs);
    let mut state = state.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    if state.dead {
        return ffi::SQLITE_IOERR;
    }
    state.files.remove(&text(name));
    ffi::SQLITE_OK
}

unsafe extern "C" fn x_access(
    vfs: *mut ffi::sqlite3_vfs,
    name: *const c_char,
    _: c_int,
    out: *mut c_int,
) -> c_int {
    let state = state_of(vfs);
    let known = state.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    let known = known.files.get(&text(name)).is_some_and(|file| !file.current.is_empty());
    // SAFETY: SQLite passes a valid place for the answer.
    unsafe { *out = c_int::from(known) };
    ffi::SQLITE_OK
}

unsafe extern "C" fn x_full_pathname(
    _: *mut ffi::sqlite3_vfs,
    name: *const c_char,
    room: c_int,
    out: *mut c_char,
) -> c_int {
    let name = CString::new(text(name)).expect("no NUL within");
    let bytes = name.as_bytes_with_nul();
    if bytes.len() > room as usize {
        return ffi::SQLITE_CANTOPEN;
    }
    // SAFETY: `out` has `room` bytes, checked above.
    unsafe { ptr::copy_nonoverlapping(bytes.as_ptr().cast(), out, bytes.len()) };
    ffi::SQLITE_OK
}

unsafe extern "C" fn x_randomness(
    _: *mut ffi::sqlite3_vfs,
    room: c_int,
    out: *mut c_char,
) -> c_int {
    // SAFETY: `out` has `room` bytes. Zeros keep a run repeatable.
    unsafe { ptr::write_bytes(out, 0, room as usize) };
    room
}

unsafe extern "C" fn x_sleep(_: *mut ffi::sqlite3_vfs, microseconds: c_int) -> c_int {
    std::thread::yield_now();
    microseconds
}

unsafe extern "C" fn x_get_last_error(_: *mut ffi::sqlite3_vfs, _: c_int, _: *mut c_char) -> c_int {
    0
}

unsafe extern "C" fn x_current_time(_: *mut ffi::sqlite3_vfs, out: *mut i64) -> c_int {
    // SAFETY: SQLite passes a valid place. A fixed day keeps a run repeatable.
    unsafe { *out = 212_000_000_000_000 };
    ffi::SQLITE_OK
}

unsafe extern "C" fn x_close(file: *mut ffi::sqlite3_file) -> c_int {
    // SAFETY: the last call for this handle; `inner` came from `Box::into_raw` in `x_open`.
    let inner = unsafe { Box::from_raw((*file.cast::<Handle>()).inner) };
    let mut state = inner.state.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    if inner.temporary {
        state.files.remove(&inner.name);
    }
    ffi::SQLITE_OK
}

unsafe extern "C" fn x_read(
    file: *mut ffi::sqlite3_file,
    out: *mut c_void,
    count: c_int,
    offset: ffi::sqlite3_int64,
) -> c_int {
    // SAFETY: `out` has `count` bytes.
    let out = unsafe { std::slice::from_raw_parts_mut(out.cast::<u8>(), count as usize) };
    with_file(file, |state, inner| {
        if state.dead {
            return ffi::SQLITE_IOERR_READ;
        }
        let content = &state.files[&inner.name].current;
        let from = content.len().min(offset as usize);
        let there = (content.len() - from).min(out.len());
        out[..there].copy_from_slice(&content[from..from + there]);
        out[there..].fill(0);
        if there == out.len() { ffi::SQLITE_OK } else { ffi::SQLITE_IOERR_SHORT_READ }
    })
}

unsafe extern "C" fn x_write(
    file: *mut ffi::sqlite3_file,
    data: *const c_void,
    count: c_int,
    offset: ffi::sqlite3_int64,
) -> c_int {
    // SAFETY: `data` has `count` bytes.
    let data = unsafe { std::slice::from_raw_parts(data.cast::<u8>(), count as usize) };
    with_file(file, |state, inner| {
        let result = state.operate();
        let full = state.full;
        let Some(file) = state.files.get_mut(&inner.name) else { return ffi::SQLITE_IOERR };
        let grows = file.current.len() < offset as usize + data.len();
        if full && grows && !inner.temporary {
            return ffi::SQLITE_FULL;
        }
        // The write during which the power fails is pending too: some sectors of it may survive.
        write_at(&mut file.current, offset as usize, data);
        file.pending.push(Change::Write { offset: offset as usize, data: data.to_vec() });
        code(result)
    })
}

unsafe extern "C" fn x_truncate(file: *mut ffi::sqlite3_file, size: ffi::sqlite3_int64) -> c_int {
    with_file(file, |state, inner| {
        let result = state.operate();
        let Some(file) = state.files.get_mut(&inner.name) else { return ffi::SQLITE_IOERR };
        file.current.resize(size as usize, 0);
        file.pending.push(Change::Truncate(size as usize));
        code(result)
    })
}

unsafe extern "C" fn x_sync(file: *mut ffi::sqlite3_file, _: c_int) -> c_int {
    with_file(file, |state, inner| {
        if state.operate().is_err() {
            return ffi::SQLITE_IOERR_FSYNC;
        }
        state.syncs += 1;
        if state.fails_at_sync.is_some_and(|at| state.syncs >= at) {
            state.dead = true;
            return ffi::SQLITE_IOERR_FSYNC;
        }
        let Some(file) = state.files.get_mut(&inner.name) else { return ffi::SQLITE_IOERR };
        for change in file.pending.drain(..) {
            match change {
                Change::Write { offset, data } => write_at(&mut file.durable, offset, &data),
                Change::Truncate(length) => file.durable.resize(length, 0),
            }
        }
        ffi::SQLITE_OK
    })
}

unsafe extern "C" fn x_file_size(
    file: *mut ffi::sqlite3_file,
    out: *mut ffi::sqlite3_int64,
) -> c_int {
    let size = with_file(file, |state, inner| state.files[&inner.name].current.len());
    // SAFETY: SQLite passes a valid place for the answer.
    unsafe { *out = size as ffi::sqlite3_int64 };
    ffi::SQLITE_OK
}

unsafe extern "C" fn x_lock(file: *mut ffi::sqlite3_file, level: c_int) -> c_int {
    with_file(file, |state, inner| {
        let Some(file) = state.files.get_mut(&inner.name) else { return ffi::SQLITE_IOERR };
        if inner.level >= level {
            return ffi::SQLITE_OK;
        }
        if inner.level == ffi::SQLITE_LOCK_NONE {
            if file.exclusive {
                return ffi::SQLITE_BUSY;
            }
            file.shared += 1;
            inner.level = ffi::SQLITE_LOCK_SHARED;
        }
        if level >= ffi::SQLITE_LOCK_RESERVED && inner.level < ffi::SQLITE_LOCK_RESERVED {
            if file.reserved {
                return ffi::SQLITE_BUSY;
            }
            file.reserved = true;
            inner.level = ffi::SQLITE_LOCK_RESERVED;
        }
        if level >= ffi::SQLITE_LOCK_EXCLUSIVE {
            if file.shared > 1 {
                return ffi::SQLITE_BUSY;
            }
            file.exclusive = true;
            inner.level = ffi::SQLITE_LOCK_EXCLUSIVE;
        }
        ffi::SQLITE_OK
    })
}

unsafe extern "C" fn x_unlock(file: *mut ffi::sqlite3_file, level: c_int) -> c_int {
    with_file(file, |state, inner| {
        let Some(file) = state.files.get_mut(&inner.name) else { return ffi::SQLITE_OK };
        if inner.level > level && inner.level >= ffi::SQLITE_LOCK_RESERVED {
            file.reserved = false;
            file.exclusive = false;
        }
        if level == ffi::SQLITE_LOCK_NONE && inner.level > level {
            file.shared = file.shared.saturating_sub(1);
        }
        inner.level = inner.level.min(level);
        ffi::SQLITE_OK
    })
}

unsafe extern "C" fn x_check_reserved_lock(file: *mut ffi::sqlite3_file, out: *mut c_int) -> c_int {
    let reserved = with_file(file, |state, inner| state.files[&inner.name].reserved);
    // SAFETY: SQLite passes a valid place for the answer.
    unsafe { *out = c_int::from(reserved) };
    ffi::SQLITE_OK
}

unsafe extern "C" fn x_file_control(_: *mut ffi::sqlite3_file, _: c_int, _: *mut c_void) -> c_int {
    ffi::SQLITE_NOTFOUND
}

unsafe extern "C" fn x_sector_size(_: *mut ffi::sqlite3_file) -> c_int {
    SECTOR_BYTES as c_int
}

unsafe extern "C" fn x_device_characteristics(_: *mut ffi::sqlite3_file) -> c_int {
    0
}

unsafe extern "C" fn x_shm_map(
    file: *mut ffi::sqlite3_file,
    region: c_int,
    size: c_int,
    extend: c_int,
    out: *mut *mut c_void,
) -> c_int {
    let address = with_file(file, |state, inner| {
        let file = state.files.get_mut(&inner.name)?;
        while file.shm.len() <= region as usize && extend != 0 {
            file.shm.push(vec![0; size as usize].into_boxed_slice());
        }
        file.shm.get_mut(region as usize).map(|region| region.as_mut_ptr().cast::<c_void>())
    });
    // SAFETY: SQLite passes a valid place; regions are boxed, so their address holds until the
    // crash, when no connection is left.
    unsafe { *out = address.unwrap_or(ptr::null_mut()) };
    ffi::SQLITE_OK
}

unsafe extern "C" fn x_shm_lock(
    file: *mut ffi::sqlite3_file,
    offset: c_int,
    count: c_int,
    flags: c_int,
) -> c_int {
    with_file(file, |state, inner| {
        let Some(file) = state.files.get_mut(&inner.name) else { return ffi::SQLITE_IOERR };
        let range = offset as usize..(offset + count) as usize;
        let exclusive = flags & ffi::SQLITE_SHM_EXCLUSIVE != 0;
        if flags & ffi::SQLITE_SHM_UNLOCK != 0 {
            for at in range {
                let (shared, sole) = (1 << at, 1 << (at + SHM_LOCKS));
                if inner.shm_held & sole != 0 {
                    file.shm_locks[at] = 0;
                } else if inner.shm_held & shared != 0 {
                    file.shm_locks[at] -= 1;
                }
                inner.shm_held &= !(shared | sole);
            }
            return ffi::SQLITE_OK;
        }
        let free = range.clone().all(|at| {
            let own = i32::from(inner.shm_held & (1 << at) != 0);
            let held = file.shm_locks[at];
            if exclusive { held == own || held == 0 } else { held >= 0 }
        });
        if !free {
            return ffi::SQLITE_BUSY;
        }
        for at in range {
            if exclusive {
                file.shm_locks[at] = -1;
                inner.shm_held |= 1 << (at + SHM_LOCKS);
            } else if inner.shm_held & (1 << at) == 0 {
                file.shm_locks[at] += 1;
                inner.shm_held |= 1 << at;
            }
        }
        ffi::SQLITE_OK
    })
}

unsafe extern "C" fn x_shm_barrier(_: *mut ffi::sqlite3_file) {
    std::sync::atomic::fence(Ordering::SeqCst);
}

unsafe extern "C" fn x_shm_unmap(_: *mut ffi::sqlite3_file, _: c_int) -> c_int {
    // Regions stay until the crash: another connection may still use them.
    ffi::SQLITE_OK
}

#[cfg(test)]
mod tests {
    use rusqlite::{Connection, OpenFlags};

    use super::*;

    fn open(disk: &SqliteDisk, synchronous: &str) -> rusqlite::Result<Connection> {
        let flags = OpenFlags::default();
        let connection = Connection::open_with_flags_and_vfs("/data/x.db", flags, disk.vfs())?;
        connection.pragma_update(None, "journal_mode", "wal")?;
        connection.pragma_update(None, "synchronous", synchronous)?;
        connection.execute("CREATE TABLE IF NOT EXISTS t (n INTEGER PRIMARY KEY)", [])?;
        Ok(connection)
    }

    /// Inserts until the power fails; returns how many inserts were acknowledged and what is there
    /// afterwards.
    fn insert_until_power_fails(disk: &SqliteDisk, synchronous: &str, rng: &mut Rng) -> (i64, i64) {
        let connection = open(disk, synchronous).expect("a disk with power");
        let before: i64 =
            connection.query_row("SELECT count(*) FROM t", [], |row| row.get(0)).expect("readable");
        disk.fail_at(disk.operations() + rng.between(1, 60));
        let mut acknowledged = before;
        while connection.execute("INSERT INTO t (n) VALUES (?1)", [acknowledged]).is_ok() {
            acknowledged += 1;
        }
        drop(connection);
        disk.crash(rng);
        let connection = open(disk, synchronous).expect("recovers");
        let there =
            connection.query_row("SELECT count(*) FROM t", [], |row| row.get(0)).expect("intact");
        (acknowledged, there)
    }

    #[test]
    fn sqlite_keeps_what_it_synced_on_this_disk() {
        let disk = SqliteDisk::register();
        let mut rng = Rng::new(1);
        for _ in 0..60 {
            let (acknowledged, there) = insert_until_power_fails(&disk, "FULL", &mut rng);
            assert!(there == acknowledged || there == acknowledged + 1, "{acknowledged} {there}");
        }
    }

    #[test]
    fn this_disk_loses_what_was_not_synced() {
        let mut rng = Rng::new(2);
        let lost = (0..60).any(|_| {
            let disk = SqliteDisk::register();
            let (acknowledged, there) = insert_until_power_fails(&disk, "NORMAL", &mut rng);
            there < acknowledged
        });
        assert!(lost, "a disk that never loses anything proves nothing");
    }
}
