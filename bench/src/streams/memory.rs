//! What streams take of memory: the server's process, the kernel, the machine as a whole, by what
//! all streams have grown it beyond a few.

use std::fs;

use serde::Serialize;

use crate::{
    failure::Failure,
    process::{Slab, parse_status_bytes, rss_bytes},
};

/// Memory with few streams and with all of them.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Memory {
    /// How many are few.
    pub(crate) few: u32,
    /// Resident with few.
    pub(crate) rss_few_bytes: u64,
    /// Resident with all.
    pub(crate) rss_all_bytes: u64,
    /// The difference a stream.
    pub(crate) user_bytes_per_stream: f64,
    /// Growth of the kernel's slab memory a stream, of one end; both ends are on this machine.
    pub(crate) kernel_bytes_per_stream: Option<f64>,
    /// Where it grew most, both ends.
    pub(crate) slab_growth: Vec<(String, i64)>,
    /// Growth of what `/proc/meminfo` calls the kernel's (slab, page tables, stacks, per-CPU) a
    /// stream, both ends; anyone may read it.
    pub(crate) meminfo_bytes_per_stream: f64,
    /// Growth of what `/proc/net/sockstat` says of socket buffers a stream, both ends.
    pub(crate) sockstat_bytes_per_stream: f64,
    /// Growth of this process, which holds the other ends, a stream.
    pub(crate) load_bytes_per_stream: f64,
    /// How much less the machine has to give a stream: all of the above together, and whatever else
    /// happened meanwhile.
    pub(crate) machine_bytes_per_stream: f64,
}

/// One look.
#[derive(Clone, Debug)]
pub(super) struct Sample {
    rss_bytes: u64,
    slab: Option<Slab>,
    meminfo_bytes: u64,
    sockstat_bytes: u64,
    load_bytes: u64,
    available_bytes: u64,
}

impl Sample {
    /// # Errors
    /// The server's process is gone.
    pub(super) fn take(pid: u32) -> Result<Self, Failure> {
        let gone = |error| Failure::error("read the server's memory").because(error);
        let meminfo = fs::read_to_string("/proc/meminfo").unwrap_or_default();
        let field = |name: &str| parse_status_bytes(&meminfo, name).unwrap_or(0);
        let sockstat = fs::read_to_string("/proc/net/sockstat").unwrap_or_default();
        Ok(Self {
            rss_bytes: rss_bytes(pid).map_err(gone)?,
            // Slab memory may be read by root only; without it the rest still holds.
            slab: Slab::read().ok(),
            meminfo_bytes: ["Slab", "PageTables", "KernelStack", "Percpu"].map(field).iter().sum(),
            sockstat_bytes: socket_buffers(&sockstat),
            load_bytes: rss_bytes(std::process::id()).map_err(gone)?,
            available_bytes: field("MemAvailable"),
        })
    }

    /// Whether the kernel's part is the same to a ten-thousandth: receives of a million streams
    /// that are called back leave by less than a thousandth a second where the machine is busy.
    pub(super) fn is_like(&self, earlier: &Self) -> bool {
        let total =
            |sample: &Self| sample.slab.as_ref().map_or(0, |slab| slab.bytes.values().sum::<u64>());
        total(self).abs_diff(total(earlier)) <= total(earlier) / 10_000
    }
}

impl Memory {
    pub(super) fn between(few: &Sample, all: &Sample, few_count: u32, all_count: u32) -> Self {
        let streams = f64::from(all_count - few_count);
        let each = |before: u64, after: u64| (after as f64 - before as f64) / streams;
        let slabs = few.slab.as_ref().zip(all.slab.as_ref());
        let growth = slabs.map(|(few, all)| all.growth(few));
        let (total, mut largest) = growth.map_or((None, Vec::new()), |(total, caches)| {
            (Some(total as f64 / 2.0 / streams), caches)
        });
        largest.truncate(SLABS_TOLD);
        Self {
            few: few_count,
            rss_few_bytes: few.rss_bytes,
            rss_all_bytes: all.rss_bytes,
            user_bytes_per_stream: each(few.rss_bytes, all.rss_bytes),
            kernel_bytes_per_stream: total,
            slab_growth: largest,
            meminfo_bytes_per_stream: each(few.meminfo_bytes, all.meminfo_bytes),
            sockstat_bytes_per_stream: each(few.sockstat_bytes, all.sockstat_bytes),
            load_bytes_per_stream: each(few.load_bytes, all.load_bytes),
            machine_bytes_per_stream: each(all.available_bytes, few.available_bytes),
        }
    }
}

/// `TCP: inuse 6 orphan 0 tw 5163 alloc 6 mem 75`, in pages.
fn socket_buffers(sockstat: &str) -> u64 {
    let line = sockstat.lines().find_map(|line| line.strip_prefix("TCP: ")).unwrap_or_default();
    let pages = line.split_whitespace().skip_while(|word| *word != "mem").nth(1);
    pages.and_then(|pages| pages.parse::<u64>().ok()).unwrap_or(0) * PAGE_BYTES
}

const SLABS_TOLD: usize = 8;
const PAGE_BYTES: u64 = 4_096;

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    #[test]
    fn bytes_a_stream_are_the_growth_beyond_the_few() {
        let sample = |rss_bytes, slab, available_bytes| Sample {
            rss_bytes,
            slab: Some(Slab { bytes: HashMap::from([("TCP".to_owned(), slab)]) }),
            meminfo_bytes: 0,
            sockstat_bytes: 0,
            load_bytes: 7,
            available_bytes,
        };
        let (few, all) = (sample(10_000, 0, 9_900_000), sample(109_000, 1_980_000, 0));
        let memory = Memory::between(&few, &all, 10, 1_000);
        assert_eq!(memory.user_bytes_per_stream, 100.0);
        assert_eq!(memory.kernel_bytes_per_stream, Some(1_000.0));
        assert_eq!(memory.machine_bytes_per_stream, 10_000.0);
    }

    #[test]
    fn socket_buffers_are_told_in_pages() {
        assert_eq!(
            socket_buffers("sockets: used 2\nTCP: inuse 6 alloc 6 mem 75\nUDP: mem 3"),
            307_200
        );
        assert_eq!(socket_buffers(""), 0);
    }
}
