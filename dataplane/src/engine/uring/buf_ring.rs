//! Receive buffers that the kernel takes from a ring as bytes arrive, so that an idle socket has
//! none.
//!
//! The kernel takes them in turn, so a large ring walks through as much cache. It starts small and
//! doubles when the kernel finds it empty, up to its maximum: a share of what all rings of the
//! process may have, since there may be more rings than cores.

use std::{
    io,
    ptr::{self, NonNull},
    sync::atomic::{AtomicU16, Ordering},
};

use io_uring::types::BufRingEntry;

use crate::{
    engine::uring::ring::Ring,
    limits::{
        RECEIVE_BUFFERS_ALL_MAX, RECEIVE_BUFFERS_ALL_MIN, RECEIVE_BUFFERS_MAX, RECEIVE_BUFFERS_MIN,
        RECEIVE_BYTES,
    },
};

/// The group that receives name.
pub(crate) const GROUP: u16 = 0;

/// The buffers and the ring that lends them.
///
/// A buffer is either in the ring (the kernel's) or, from the completion that names it until
/// [`Buffers::give_back`], ours.
pub(crate) struct Buffers {
    entries: Pages<BufRingEntry>,
    memory: Pages<u8>,
    /// Buffers in use so far: `count ≤ max`.
    count: u16,
    /// A power of two.
    max: u16,
    tail: u16,
}

/// Pages of our own, zeros, page-aligned. They take real memory when they are first written to:
/// the allocator would write the zeros itself, and so hold all receive buffers from the start.
struct Pages<T> {
    start: NonNull<T>,
    bytes: usize,
}

impl Buffers {
    /// Makes the buffers of one of so many rings, and registers their ring. Memory is only
    /// reserved; a buffer takes real memory when the kernel first writes to it.
    pub(crate) fn new(ring: &Ring, rings: usize) -> io::Result<Self> {
        let max = max_of(rings);
        let entries = Pages::new(usize::from(max))?;
        let memory = Pages::new(usize::from(max) * RECEIVE_BYTES)?;
        let mut buffers = Self { entries, memory, count: 0, max, tail: 0 };
        let address = buffers.entries.start.as_ptr() as u64;
        // SAFETY: the address is page-aligned memory for that many entries; `Buffers` is dropped
        // after the ring is quiet (see `Uring`), so the kernel no longer uses it then.
        unsafe { ring.submitter().register_buf_ring_with_flags(address, max, GROUP, 0) }?;
        buffers.grow_to(first_of(rings).min(max));
        Ok(buffers)
    }

    /// What the kernel wrote into a buffer.
    ///
    /// # Panics
    /// If the kernel names a buffer that does not exist.
    pub(crate) fn bytes(&self, buffer: u16, len: usize) -> &[u8] {
        assert!(buffer < self.count && len <= RECEIVE_BYTES, "the kernel names what it was lent");
        // SAFETY: the offset of an existing buffer lies within the allocation.
        let start = unsafe { self.memory.start.add(usize::from(buffer) * RECEIVE_BYTES) };
        // SAFETY: `len` bytes lie within the buffer (asserted) and were zeros from the start, so
        // they are initialised; the buffer is ours from its completion until it is given back,
        // which needs `&mut self`.
        unsafe { std::slice::from_raw_parts(start.as_ptr(), len) }
    }

    /// Lends a buffer to the kernel again.
    pub(crate) fn give_back(&mut self, buffer: u16) {
        let index = self.tail & (self.max - 1);
        // SAFETY: the index is below the number of entries, a power of two.
        let entry = unsafe { self.entries.start.add(usize::from(index)) };
        // SAFETY: the offset of an existing buffer lies within the allocation.
        let start = unsafe { self.memory.start.add(usize::from(buffer) * RECEIVE_BYTES) };
        // SAFETY: the entry lies beyond the published tail, so the kernel does not look at it now,
        // and no other reference to it exists. Fields are set one by one, because the first
        // entry's last field is the tail itself.
        let entry = unsafe { &mut *entry.as_ptr() };
        entry.set_addr(start.as_ptr() as u64);
        entry.set_len(RECEIVE_BYTES as u32);
        entry.set_bid(buffer);
        self.tail = self.tail.wrapping_add(1);
    }

    /// Shows the kernel what was given back.
    pub(crate) fn publish(&mut self) {
        // SAFETY: `entries` is the start of the ring, valid for reading.
        let tail = unsafe { BufRingEntry::tail(self.entries.start.as_ptr()) };
        // SAFETY: the tail is an aligned u16 in our memory, shared with the kernel and written only
        // by us, through this atomic.
        let tail = unsafe { AtomicU16::from_ptr(tail.cast_mut()) };
        tail.store(self.tail, Ordering::Release);
    }

    /// Doubles the number of buffers if the maximum allows; true if it did.
    pub(crate) fn grow(&mut self) -> bool {
        let count = self.count.saturating_mul(2).min(self.max);
        let grows = count > self.count;
        self.grow_to(count);
        grows
    }

    /// How many there are.
    pub(crate) fn count(&self) -> u16 {
        self.count
    }

    fn grow_to(&mut self, count: u16) {
        let from = self.count;
        self.count = count;
        (from..count).for_each(|buffer| self.give_back(buffer));
        self.publish();
    }
}

/// Buffers of one of so many rings, at most.
fn max_of(rings: usize) -> u16 {
    share(RECEIVE_BUFFERS_ALL_MAX, rings, RECEIVE_BUFFERS_MAX)
}

/// Buffers that one of so many rings begins with. All of them are written to in their turn, by an
/// idle shard, too; where there are many shards, most of them wait for a core anyway.
fn first_of(rings: usize) -> u16 {
    share(RECEIVE_BUFFERS_ALL_MIN, rings, RECEIVE_BUFFERS_MIN)
}

/// The share of one of so many rings, a power of two.
fn share(all: usize, rings: usize, most: u16) -> u16 {
    let share = u16::try_from(all / rings.max(1)).unwrap_or(u16::MAX);
    1 << share.clamp(RECEIVE_BUFFERS_FEW, most).ilog2()
}

impl<T> Pages<T> {
    /// For so many values.
    fn new(count: usize) -> io::Result<Self> {
        let bytes = size_of::<T>() * count;
        let access = libc::PROT_READ | libc::PROT_WRITE;
        let kind = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
        // SAFETY: a new mapping, at an address of the kernel's choice, touches no other memory.
        let start = unsafe { libc::mmap(ptr::null_mut(), bytes, access, kind, -1, 0) };
        if start == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let start = NonNull::new(start.cast()).ok_or(io::ErrorKind::OutOfMemory)?;
        Ok(Self { start, bytes })
    }
}

impl<T> Drop for Pages<T> {
    fn drop(&mut self) {
        // SAFETY: mapped in `new` with this length; the kernel's ring is done with it, see
        // `Buffers::new`.
        unsafe { libc::munmap(self.start.as_ptr().cast(), self.bytes) };
    }
}

/// What each ring may have, however many there are.
const RECEIVE_BUFFERS_FEW: u16 = 16;

const _: () = assert!(RECEIVE_BUFFERS_MAX.is_power_of_two());
const _: () = assert!(RECEIVE_BUFFERS_MIN.is_power_of_two());
const _: () = assert!(RECEIVE_BUFFERS_MIN <= RECEIVE_BUFFERS_MAX);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_rings_share_what_a_few_may_have() {
        for (rings, max) in
            [(1, 1024), (2, 1024), (4, 1024), (6, 512), (64, 64), (122, 32), (999, 16)]
        {
            assert_eq!(max_of(rings), max, "{rings} rings");
        }
    }
}
