//! A virtual disk for whole-file work: a write that was not finished when its host crashed is
//! either there whole or not at all, as the real one's write-beside, sync, rename gives it.

use std::{
    collections::{BTreeMap, VecDeque},
    io,
    path::{Path, PathBuf},
};

use dataplane::seam::FileWork;

use super::{coverage::Coverage, rng::Rng};

/// The files of one host. Survives its crashes.
#[derive(Default, Debug)]
pub struct Disk {
    files: BTreeMap<PathBuf, Vec<u8>>,
    /// Work asked for and not done yet, in order.
    under_way: VecDeque<Pending>,
    /// No room: writes fail until it is lifted.
    pub full: bool,
}

#[derive(Debug)]
struct Pending {
    ready_ns: u64,
    shard: usize,
    op: u64,
    work: FileWork,
}

impl Disk {
    /// Takes work of a shard; it can be done from `ready_ns` on, by [`Disk::finish_one`].
    pub fn submit(&mut self, ready_ns: u64, shard: usize, op: u64, work: FileWork) {
        self.under_way.push_back(Pending { ready_ns, shard, op, work });
    }

    /// When the oldest work can be done; those behind it wait for it.
    pub fn next_due_ns(&self) -> Option<u64> {
        self.under_way.front().map(|pending| pending.ready_ns)
    }

    /// Whether work can be done now.
    pub fn is_ready(&self, now_ns: u64) -> bool {
        self.next_due_ns().is_some_and(|at| at <= now_ns)
    }

    /// Does the oldest work and says for whom.
    pub fn finish_one(&mut self) -> Option<(usize, u64, io::Result<Vec<u8>>)> {
        let Pending { shard, op, work, .. } = self.under_way.pop_front()?;
        Some((shard, op, self.carry_out(work)))
    }

    /// The host stops now: each unfinished write happened or did not.
    pub fn crash(&mut self, rng: &mut Rng, coverage: &mut Coverage) {
        while let Some(Pending { work, .. }) = self.under_way.pop_front() {
            if rng.chance(500) {
                let _ = self.carry_out(work);
            } else if matches!(work, FileWork::Write { .. }) {
                coverage.hit("disk: write lost at a crash");
            }
        }
    }

    /// Spoils a byte of a file, as a bad disk would. Whether there was one.
    pub fn corrupt(&mut self, rng: &mut Rng) -> bool {
        let at = rng.draw() as usize;
        let count = self.files.len().max(1);
        match self.files.values_mut().nth(at % count) {
            Some(content) if !content.is_empty() => {
                let byte = rng.below(content.len());
                content[byte] ^= 1 << rng.below(8);
                true
            }
            _ => false,
        }
    }

    /// A file as it is now.
    pub fn get(&self, path: &Path) -> Option<&[u8]> {
        self.files.get(path).map(Vec::as_slice)
    }

    fn carry_out(&mut self, work: FileWork) -> io::Result<Vec<u8>> {
        match work {
            FileWork::Read { path, bytes_max } => match self.files.get(&path) {
                None => Err(io::ErrorKind::NotFound.into()),
                Some(content) if content.len() as u64 > bytes_max => {
                    Err(io::ErrorKind::FileTooLarge.into())
                }
                Some(content) => Ok(content.clone()),
            },
            FileWork::Write { .. } if self.full => Err(io::ErrorKind::StorageFull.into()),
            FileWork::Write { path, content } => {
                self.files.insert(path, content);
                Ok(Vec::new())
            }
            FileWork::Remove { path } => {
                self.files.remove(&path);
                Ok(Vec::new())
            }
        }
    }
}
