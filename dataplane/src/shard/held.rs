//! What clients make a shard hold of requests that are not through: heads that are not whole,
//! requests behind an answer under way, bodies on their way to an origin.
//!
//! Each has a limit of its own, and as many connections as there are descriptors would multiply it.
//! All together have this budget. Beyond it a head that does not come whole is answered 503, no
//! further requests are read behind one under way, and bodies go on through a narrower pipe: what
//! makes progress still does, and a request that arrives in one piece never notices.
//!
//! Leaves to others: the bytes themselves (`conn`, `fetch`), streams (`stream`), what is stored
//! (`cache`).

use crate::limits;

/// The budget of a shard.
#[derive(Clone, Copy, Debug)]
pub struct Held {
    bytes: usize,
    bytes_max: usize,
}

impl Held {
    /// Nothing is held yet.
    pub fn new(bytes_max: u64) -> Self {
        Self { bytes: 0, bytes_max: usize::try_from(bytes_max).unwrap_or(usize::MAX) }
    }

    /// Another budget from now on.
    pub fn set_max(&mut self, bytes_max: u64) {
        *self = Self { bytes: self.bytes, ..Self::new(bytes_max) };
    }

    /// One connection now holds `now_bytes`, where it held `before` so far.
    pub fn change(&mut self, before: &mut usize, now_bytes: usize) {
        debug_assert!(self.bytes >= *before, "what was counted is still counted");
        self.bytes = self.bytes - *before + now_bytes;
        *before = now_bytes;
    }

    /// Bytes held by all.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Whether there is no room for more.
    pub fn is_over(&self) -> bool {
        self.bytes > self.bytes_max
    }

    /// Bytes of one request body that may wait for its origin.
    pub fn pipe_bytes(&self) -> usize {
        if self.is_over() { limits::REQUEST_PIPE_BYTES_MIN } else { limits::REQUEST_PIPE_BYTES }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_budget_counts_what_each_connection_holds_now() {
        let mut held = Held::new(100);
        let (mut one, mut other) = (0, 0);
        held.change(&mut one, 80);
        assert!(!held.is_over());
        held.change(&mut other, 40);
        assert!(held.is_over());
        assert_eq!(held.pipe_bytes(), limits::REQUEST_PIPE_BYTES_MIN);
        held.change(&mut one, 10);
        assert_eq!((held.bytes(), held.is_over()), (50, false));
        held.set_max(49);
        assert!(held.is_over());
        held.change(&mut one, 0);
        held.change(&mut other, 0);
        assert_eq!(held.bytes(), 0);
    }
}
