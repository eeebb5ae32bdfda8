//! How many shards a process runs and how many sockets each may hold, under RLIMIT_NOFILE. Pure.
//!
//! | sockets are | each shard holds |
//! |---|---|
//! | descriptors of the process | its share of the limit |
//! | direct descriptors | a table as large as the limit: more shards hold more |

use crate::{
    engine::{Config, StartError, affinity, listen::accept_below},
    limits::{DESCRIPTORS_SPARE, DIRECT_MAX, SHARDS_MAX, SOCKETS_MAX, SOCKETS_RESERVED},
    seam::ShardId,
};

/// What there is room for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Room {
    /// RLIMIT_NOFILE.
    pub(crate) descriptors: u64,
    /// Sockets are direct descriptors.
    pub(crate) direct: bool,
    /// Of each shard.
    pub(crate) listeners: usize,
}

impl Room {
    /// Shards, and sockets of each.
    ///
    /// # Errors
    /// [`StartError::Descriptors`] if the configuration asks for more than there is room for.
    pub(crate) fn share(self, config: &Config) -> Result<(ShardId, u32), StartError> {
        let cores = || ShardId::try_from(affinity::allowed_cores().len()).unwrap_or(ShardId::MAX);
        let shards = match (config.shards, config.sockets_max) {
            (0, 0) => self.shards_for(config.connections, cores()),
            (0, _) => cores(),
            (shards, _) => shards,
        };
        let allowed = self.sockets(shards);
        match config.sockets_max {
            0 => Ok((shards, allowed)),
            sockets_max if sockets_max <= allowed => Ok((shards, sockets_max)),
            sockets_max => Err(StartError::Descriptors { sockets_max, allowed }),
        }
    }

    /// Sockets that each of `shards` may hold.
    fn sockets(self, shards: ShardId) -> u32 {
        let shards = u64::from(shards.max(1));
        // A shard's own: ring or epoll, bell, listeners.
        let own = u64::from(DESCRIPTORS_SPARE) + shards * (2 + self.listeners as u64);
        let left = self.descriptors.saturating_sub(own);
        let (each, max) = match self.direct {
            true if left > 0 => (self.descriptors, DIRECT_MAX),
            true => (0, DIRECT_MAX),
            false => (left / shards, SOCKETS_MAX),
        };
        u32::try_from(each).unwrap_or(u32::MAX).min(max)
    }

    /// As few shards as have room for so many connections, but one a core at least.
    fn shards_for(self, connections: u32, cores: ShardId) -> ShardId {
        if !self.direct || connections == 0 {
            return cores;
        }
        let fits = |shards: &ShardId| {
            let usable = accept_below(self.sockets(*shards)).saturating_sub(SOCKETS_RESERVED);
            share_of(connections, *shards) <= usable
        };
        (cores..=SHARDS_MAX.max(cores)).find(fits).unwrap_or(cores)
    }
}

/// How many of so many connections one of `shards` must have room for. The kernel spreads them by a
/// hash of their addresses, so some shards get more than the mean: six standard deviations are
/// granted.
pub fn share_of(connections: u32, shards: ShardId) -> u32 {
    let mean = connections.div_ceil(u32::from(shards.max(1)));
    let uneven = if shards > 1 { 6 * mean.isqrt() } else { 0 };
    mean.saturating_add(uneven).min(connections)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn room(descriptors: u64, direct: bool) -> Room {
        Room { descriptors, direct, listeners: 1 }
    }

    #[test]
    fn descriptors_of_the_process_are_shared_out() {
        assert_eq!(room(20_000, false).sockets(2), (20_000 - 64 - 6) / 2);
        assert_eq!(room(10, false).sockets(2), 0);
        assert_eq!(room(u64::MAX, false).sockets(1), SOCKETS_MAX);
    }

    #[test]
    fn a_table_of_direct_descriptors_is_as_large_as_the_limit_for_each_shard() {
        assert_eq!(room(20_000, true).sockets(2), 20_000);
        assert_eq!(room(20_000, true).sockets(122), 20_000);
        assert_eq!(room(10, true).sockets(2), 0);
        assert_eq!(room(u64::MAX, true).sockets(1), DIRECT_MAX);
    }

    #[test]
    fn more_shards_than_cores_run_where_a_table_is_too_small() {
        let check = |connections, direct, shards| {
            assert_eq!(room(20_000, direct).shards_for(connections, 2), shards);
        };
        check(0, true, 2);
        check(30_000, true, 2);
        check(100_000, true, 6);
        check(1_000_000, true, 57);
        // More shards would not hold more.
        check(100_000, false, 2);
        // Nothing would do.
        check(u32::MAX, true, 2);
    }

    #[test]
    fn a_shard_has_room_for_more_than_the_mean() {
        assert_eq!(share_of(100_000, 1), 100_000);
        assert_eq!(share_of(100_000, 6), 16_667 + 6 * 129);
        assert_eq!(share_of(3, 2), 3);
    }
}
