//! What a process costs, read from /proc: CPU time of all its threads, resident memory, and the
//! kernel's own memory from the slab allocator.
//!
//! A server may be several processes (nginx's master and workers): costs are summed over a process
//! and all its descendants. Threads that ended between two looks keep their last seen time.

use std::{collections::HashMap, fs, io, path::Path};

use serde::Serialize;

/// Adds up the CPU time of a process, its threads and its descendants.
#[derive(Debug)]
pub(crate) struct CpuMeter {
    root: u32,
    /// Run time by thread id, of every thread ever seen.
    seen_ns: HashMap<u32, u64>,
}

impl CpuMeter {
    pub(crate) fn new(root: u32) -> Self {
        Self { root, seen_ns: HashMap::new() }
    }

    /// Run time so far, in nanoseconds: never less than at the last look.
    ///
    /// # Errors
    /// The root process is gone or may not be read.
    pub(crate) fn read_ns(&mut self) -> io::Result<u64> {
        let mut root_found = false;
        for pid in family(self.root)? {
            let Ok(tasks) = fs::read_dir(format!("/proc/{pid}/task")) else { continue };
            for task in tasks.flatten() {
                // A thread may end at any time; what was last seen of it still counts.
                let Ok(text) = fs::read_to_string(task.path().join("schedstat")) else { continue };
                let Some(run_ns) = parse_schedstat(&text) else { continue };
                let Some(tid) = task.file_name().to_str().and_then(|name| name.parse().ok()) else {
                    continue;
                };
                let last = self.seen_ns.entry(tid).or_default();
                *last = run_ns.max(*last);
                root_found |= pid == self.root;
            }
        }
        if root_found {
            Ok(self.seen_ns.values().sum())
        } else {
            Err(io::Error::new(io::ErrorKind::NotFound, format!("no process {}", self.root)))
        }
    }
}

/// Resident memory of a process and its descendants, in bytes. Shared pages count in each.
///
/// # Errors
/// The process is gone.
pub(crate) fn rss_bytes(root: u32) -> io::Result<u64> {
    let mut total = 0;
    for pid in family(root)? {
        let text = match fs::read_to_string(format!("/proc/{pid}/status")) {
            Ok(text) => text,
            Err(error) if pid == root => return Err(error),
            Err(_) => continue,
        };
        total += parse_status_bytes(&text, "VmRSS").unwrap_or(0);
    }
    Ok(total)
}

/// A process and all its descendants, parents first.
///
/// # Errors
/// /proc cannot be read.
pub(crate) fn family(root: u32) -> io::Result<Vec<u32>> {
    let mut parents = Vec::new();
    for entry in fs::read_dir("/proc")?.flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else {
            continue;
        };
        let Ok(stat) = fs::read_to_string(entry.path().join("stat")) else { continue };
        parents.extend(parse_parent(&stat).map(|parent| (pid, parent)));
    }
    let mut found = vec![root];
    let mut at = 0;
    while let Some(&parent) = found.get(at) {
        found.extend(parents.iter().filter(|(_, of)| *of == parent).map(|(pid, _)| *pid));
        at += 1;
    }
    Ok(found)
}

/// The kernel's slab memory, by cache.
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct Slab {
    /// Bytes by name of the cache.
    pub(crate) bytes: HashMap<String, u64>,
}

impl Slab {
    /// # Errors
    /// /proc/slabinfo may be read by root only.
    pub(crate) fn read() -> io::Result<Self> {
        let text = fs::read_to_string("/proc/slabinfo")?;
        Ok(Self { bytes: text.lines().filter_map(|line| parse_slab(line, PAGE_BYTES)).collect() })
    }

    /// What grew since `earlier`, largest first, as total and by cache.
    pub(crate) fn growth(&self, earlier: &Self) -> (i64, Vec<(String, i64)>) {
        let before = |name: &str| earlier.bytes.get(name).copied().unwrap_or(0) as i64;
        let mut grown: Vec<(String, i64)> = self
            .bytes
            .iter()
            .map(|(name, bytes)| (name.clone(), *bytes as i64 - before(name)))
            .filter(|(_, growth)| *growth != 0)
            .collect();
        grown.sort_by_key(|(name, growth)| (std::cmp::Reverse(*growth), name.clone()));
        (grown.iter().map(|(_, growth)| growth).sum(), grown)
    }
}

/// The machine a measurement was made on.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Machine {
    /// Model name of the processor.
    pub(crate) processor: String,
    /// Processors online.
    pub(crate) cores: usize,
    /// Bytes of memory.
    pub(crate) memory_bytes: u64,
    /// Release of the kernel.
    pub(crate) kernel: String,
    /// Commit of the source this was run in, if it is a checkout; `+` for uncommitted changes.
    pub(crate) commit: Option<String>,
}

impl Machine {
    /// Looks around; what cannot be read is left empty.
    pub(crate) fn look() -> Self {
        let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
        let cpuinfo = read("/proc/cpuinfo");
        let model = cpuinfo.lines().find_map(|line| line.strip_prefix("model name"));
        Self {
            processor: model
                .map(|rest| rest.trim_start_matches([' ', '\t', ':']).to_owned())
                .unwrap_or_default(),
            cores: cpuinfo.lines().filter(|line| line.starts_with("processor")).count(),
            memory_bytes: parse_status_bytes(&read("/proc/meminfo"), "MemTotal").unwrap_or(0),
            kernel: read("/proc/sys/kernel/osrelease").trim().to_owned(),
            commit: commit(Path::new(".")),
        }
    }
}

/// Descriptors this process may have open; a direct table may not be larger either.
///
/// # Errors
/// /proc cannot be read.
pub(crate) fn descriptor_limit() -> io::Result<u32> {
    let text = fs::read_to_string("/proc/self/limits")?;
    let line = text.lines().find_map(|line| line.strip_prefix("Max open files"));
    let soft = line.and_then(|rest| rest.split_whitespace().next());
    Ok(soft.and_then(|soft| soft.parse().ok()).unwrap_or(1_024))
}

fn commit(folder: &Path) -> Option<String> {
    let git = |arguments: &[&str]| {
        let output = std::process::Command::new("git").args(arguments).current_dir(folder).output();
        output
            .ok()
            .filter(|output| output.status.success())
            .map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned())
    };
    let short = git(&["rev-parse", "--short=12", "HEAD"])?;
    let changed = git(&["status", "--porcelain", "--untracked-files=no"])?;
    Some(if changed.is_empty() { short } else { short + "+" })
}

/// Run time in nanoseconds: the first of three numbers (proc_pid_schedstat(5)).
fn parse_schedstat(text: &str) -> Option<u64> {
    text.split_whitespace().next()?.parse().ok()
}

/// The parent's id in /proc/pid/stat. The name before it may hold anything, also `)`.
fn parse_parent(stat: &str) -> Option<u32> {
    stat.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse().ok()
}

/// A line `Name:   123 kB`.
pub(crate) fn parse_status_bytes(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
    let kib: u64 = line.split_whitespace().next()?.parse().ok()?;
    Some(kib * 1024)
}

/// Name and bytes of a line of /proc/slabinfo, version 2.1.
fn parse_slab(line: &str, page_bytes: u64) -> Option<(String, u64)> {
    let (head, slabdata) = line.split_once(": slabdata")?;
    let mut words = head.split_whitespace();
    let name = words.next()?;
    // name <active_objs> <num_objs> <objsize> <objperslab> <pagesperslab> …
    let pages: u64 = words.nth(4)?.parse().ok()?;
    let slabs: u64 = slabdata.split_whitespace().nth(1)?.parse().ok()?;
    Some((name.to_owned(), slabs * pages * page_bytes))
}

/// x86-64 and most others; only the slab report uses it.
const PAGE_BYTES: u64 = 4_096;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_run_time_is_the_first_number_of_schedstat() {
        assert_eq!(parse_schedstat("104655 78967 2\n"), Some(104_655));
        assert_eq!(parse_schedstat(""), None);
    }

    #[test]
    fn a_parent_is_found_behind_any_name() {
        assert_eq!(parse_parent("12 (a) R 3) x) S 7 12 12 0"), Some(7));
    }

    #[test]
    fn slab_bytes_are_slabs_times_pages() {
        let line = "TCP 3840 3840 2176 15 8 : tunables 0 0 0 : slabdata 256 256 0";
        assert_eq!(parse_slab(line, 4_096), Some(("TCP".into(), 256 * 8 * 4_096)));
        assert_eq!(parse_slab("# name <active_objs> <num_objs>", 4_096), None);
    }

    #[test]
    fn status_lines_are_in_kib() {
        assert_eq!(parse_status_bytes("Name:\tx\nVmRSS:\t  12 kB\n", "VmRSS"), Some(12_288));
    }

    #[test]
    fn time_of_ended_threads_still_counts() {
        let mut meter = CpuMeter::new(std::process::id());
        meter.seen_ns.insert(u32::MAX, 1_000_000_000_000);
        let first = meter.read_ns().expect("own process");
        assert!(first >= 1_000_000_000_000);
        assert!(meter.read_ns().expect("own process") >= first);
        assert!(CpuMeter::new(u32::MAX).read_ns().is_err());
    }

    #[test]
    fn children_are_family() {
        let mut child = std::process::Command::new("sleep").arg("60").spawn().expect("sleep");
        let family = family(std::process::id()).expect("proc");
        child.kill().expect("kill");
        child.wait().expect("wait");
        assert!(family.contains(&child.id()));
    }

    #[test]
    fn growth_is_sorted_and_summed() {
        let slab = |pairs: &[(&str, u64)]| Slab {
            bytes: pairs.iter().map(|(name, bytes)| ((*name).to_owned(), *bytes)).collect(),
        };
        let (total, grown) =
            slab(&[("a", 5), ("b", 9), ("c", 1)]).growth(&slab(&[("a", 7), ("c", 1)]));
        assert_eq!((total, grown), (7, vec![("b".to_owned(), 9), ("a".to_owned(), -2)]));
    }
}
