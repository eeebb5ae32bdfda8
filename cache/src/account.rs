//! Bytes held, by the living and the dead. Every body and every entry carries a [`Charge`], so
//! memory is counted as long as *anyone* holds it: the index, a near table, or a payload lent to
//! the kernel.
//!
//! ```text
//!   add ──▶ used            kill ──▶ used + dead            drop ──▶ neither
//! ```

use std::sync::Arc;

use crate::sync::{AtomicU64, Ordering};

/// Sums over all charges of one cache.
#[derive(Debug, Default)]
pub(crate) struct Account {
    used_bytes: AtomicU64,
    dead_bytes: AtomicU64,
}

impl Account {
    /// Everything held, the dead included.
    pub(crate) fn used_bytes(&self) -> u64 {
        self.used_bytes.load(Ordering::Relaxed)
    }

    /// What is held only because a near table or a reader has not let go yet.
    pub(crate) fn dead_bytes(&self) -> u64 {
        self.dead_bytes.load(Ordering::Relaxed)
    }
}

/// The bytes of one holder. Lowest bit: dead; the rest: bytes. One word, so that growing and dying
/// at the same time on two cores counts neither twice nor never.
#[derive(Debug)]
pub(crate) struct Charge {
    account: Arc<Account>,
    word: AtomicU64,
}

impl Charge {
    pub(crate) fn new(account: &Arc<Account>, bytes: u64) -> Self {
        account.used_bytes.fetch_add(bytes, Ordering::Relaxed);
        Self { account: Arc::clone(account), word: AtomicU64::new(bytes << 1) }
    }

    /// Counts `bytes` more.
    pub(crate) fn add(&self, bytes: u64) {
        self.account.used_bytes.fetch_add(bytes, Ordering::Relaxed);
        if self.word.fetch_add(bytes << 1, Ordering::Relaxed) & DEAD != 0 {
            self.account.dead_bytes.fetch_add(bytes, Ordering::Relaxed);
        }
    }

    /// Counts all of it as dead from now on. Idempotent.
    pub(crate) fn kill(&self) {
        let before = self.word.fetch_or(DEAD, Ordering::Relaxed);
        if before & DEAD == 0 {
            self.account.dead_bytes.fetch_add(before >> 1, Ordering::Relaxed);
        }
    }

    /// Bytes charged.
    pub(crate) fn bytes(&self) -> u64 {
        self.word.load(Ordering::Relaxed) >> 1
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        let word = self.word.load(Ordering::Relaxed);
        self.account.used_bytes.fetch_sub(word >> 1, Ordering::Relaxed);
        if word & DEAD != 0 {
            self.account.dead_bytes.fetch_sub(word >> 1, Ordering::Relaxed);
        }
    }
}

const DEAD: u64 = 1;

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_counted_until_dropped_and_as_dead_once() {
        let account = Arc::new(Account::default());
        let charge = Charge::new(&account, 100);
        charge.kill();
        charge.kill();
        charge.add(11);
        assert_eq!((account.used_bytes(), account.dead_bytes(), charge.bytes()), (111, 111, 111));
        drop(charge);
        assert_eq!((account.used_bytes(), account.dead_bytes()), (0, 0));
    }
}
