//! Bytes held, by the living and the dead. Every body and every entry carries a [`Charge`], so
//! memory is counted as long as *anyone* holds it: the index, a near table, or a payload lent to
//! the kernel. What is linked from nowhere in the index is dead: used, but of no use any more.

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

    /// What is held only because a near table or a reader has not let go yet. Approximate while
    /// other cores are at work.
    pub(crate) fn dead_bytes(&self) -> u64 {
        (self.dead_bytes.load(Ordering::Relaxed) as i64).max(0) as u64
    }

    /// What is held for use.
    pub(crate) fn living_bytes(&self) -> u64 {
        self.used_bytes().saturating_sub(self.dead_bytes())
    }
}

/// The bytes of one holder, and by how many entries of the index it is used. One word, so that
/// growing, linking and dying at the same time on several cores count nothing twice or never.
#[derive(Debug)]
pub(crate) struct Charge {
    account: Arc<Account>,
    /// Bytes << 16 | links.
    word: AtomicU64,
}

impl Charge {
    /// A charge without links: dead until it gets one.
    pub(crate) fn new(account: &Arc<Account>, bytes: u64) -> Self {
        account.used_bytes.fetch_add(bytes, Ordering::Relaxed);
        account.dead_bytes.fetch_add(bytes, Ordering::Relaxed);
        Self { account: Arc::clone(account), word: AtomicU64::new(bytes << LINK_BITS) }
    }

    /// Counts `bytes` more.
    pub(crate) fn add(&self, bytes: u64) {
        self.account.used_bytes.fetch_add(bytes, Ordering::Relaxed);
        if self.word.fetch_add(bytes << LINK_BITS, Ordering::Relaxed) & LINKS == 0 {
            self.account.dead_bytes.fetch_add(bytes, Ordering::Relaxed);
        }
    }

    /// Counts what was `before` bytes as `after`.
    pub(crate) fn change(&self, before: usize, after: usize) {
        match after.checked_sub(before) {
            Some(more) => self.add(more as u64),
            None => self.release((before - after) as u64),
        }
    }

    /// Counts `bytes` less, which were counted before.
    fn release(&self, bytes: u64) {
        self.account.used_bytes.fetch_sub(bytes, Ordering::Relaxed);
        if self.word.fetch_sub(bytes << LINK_BITS, Ordering::Relaxed) & LINKS == 0 {
            self.account.dead_bytes.fetch_sub(bytes, Ordering::Relaxed);
        }
    }

    /// One more entry uses it.
    pub(crate) fn link(&self) {
        let before = self.word.fetch_add(1, Ordering::Relaxed);
        if before & LINKS == 0 {
            self.account.dead_bytes.fetch_sub(before >> LINK_BITS, Ordering::Relaxed);
        }
    }

    /// One entry less uses it.
    pub(crate) fn unlink(&self) {
        let before = self.word.fetch_sub(1, Ordering::Relaxed);
        assert!(before & LINKS != 0, "what is unlinked was linked");
        if before & LINKS == 1 {
            self.account.dead_bytes.fetch_add(before >> LINK_BITS, Ordering::Relaxed);
        }
    }

    /// Bytes charged.
    pub(crate) fn bytes(&self) -> u64 {
        self.word.load(Ordering::Relaxed) >> LINK_BITS
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        let word = self.word.load(Ordering::Relaxed);
        self.account.used_bytes.fetch_sub(word >> LINK_BITS, Ordering::Relaxed);
        if word & LINKS == 0 {
            self.account.dead_bytes.fetch_sub(word >> LINK_BITS, Ordering::Relaxed);
        }
    }
}

/// Entries that share one body: far fewer than this many bits can count, because an update kills
/// the entry before it.
const LINK_BITS: u32 = 16;
const LINKS: u64 = (1 << LINK_BITS) - 1;

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_counted_until_dropped_and_as_dead_while_nothing_links_them() {
        let account = Arc::new(Account::default());
        let charge = Charge::new(&account, 100);
        let sums = || (account.used_bytes(), account.dead_bytes());
        assert_eq!(sums(), (100, 100));
        charge.link();
        charge.link();
        charge.add(10);
        charge.unlink();
        assert_eq!(sums(), (110, 0));
        charge.unlink();
        charge.add(1);
        assert_eq!((sums(), charge.bytes()), ((111, 111), 111));
        charge.link();
        assert_eq!(sums(), (111, 0));
        charge.change(50, 20);
        charge.change(1, 2);
        assert_eq!(sums(), (82, 0));
        charge.unlink();
        charge.change(2, 1);
        assert_eq!(sums(), (81, 81));
        drop(charge);
        assert_eq!(sums(), (0, 0));
    }
}
