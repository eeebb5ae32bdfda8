//! Receive buffers that the kernel takes from a ring as bytes arrive, so that an idle socket has
//! none.
//!
//! The kernel takes them in turn, so a large ring walks through as much cache. It starts small and
//! doubles when the kernel finds it empty, up to its maximum.

use std::{
    alloc::{self, Layout},
    io,
    ptr::NonNull,
    sync::atomic::{AtomicU16, Ordering},
};

use io_uring::types::BufRingEntry;

use crate::{
    engine::uring::ring::Ring,
    limits::{RECEIVE_BUFFERS_MAX, RECEIVE_BUFFERS_MIN, RECEIVE_BYTES},
};

/// The group that receives name.
pub(crate) const GROUP: u16 = 0;

/// The buffers and the ring that lends them.
///
/// A buffer is either in the ring (the kernel's) or, from the completion that names it until
/// [`Buffers::give_back`], ours.
pub(crate) struct Buffers {
    entries: NonNull<BufRingEntry>,
    memory: NonNull<u8>,
    /// Buffers in use so far: `RECEIVE_BUFFERS_MIN ≤ count ≤ RECEIVE_BUFFERS_MAX`.
    count: u16,
    tail: u16,
}

const PAGE: usize = 4096;

impl Buffers {
    /// Makes the buffers and registers their ring. Memory is only reserved; a buffer takes real
    /// memory when the kernel first writes to it.
    pub(crate) fn new(ring: &Ring) -> io::Result<Self> {
        let mut buffers = Self {
            entries: allocate(entries_layout())?,
            memory: NonNull::dangling(),
            count: 0,
            tail: 0,
        };
        match allocate(memory_layout()) {
            Ok(memory) => buffers.memory = memory,
            Err(error) => {
                // SAFETY: allocated above with this layout, and used by nobody yet.
                unsafe { alloc::dealloc(buffers.entries.as_ptr().cast(), entries_layout()) };
                std::mem::forget(buffers);
                return Err(error);
            }
        }
        let address = buffers.entries.as_ptr() as u64;
        // SAFETY: the address is page-aligned memory for that many entries; `Buffers` is dropped
        // after the ring is quiet (see `Uring`), so the kernel no longer uses it then.
        unsafe {
            ring.submitter().register_buf_ring_with_flags(address, RECEIVE_BUFFERS_MAX, GROUP, 0)
        }?;
        buffers.grow_to(RECEIVE_BUFFERS_MIN);
        Ok(buffers)
    }

    /// What the kernel wrote into a buffer.
    ///
    /// # Panics
    /// If the kernel names a buffer that does not exist.
    pub(crate) fn bytes(&self, buffer: u16, len: usize) -> &[u8] {
        assert!(buffer < self.count && len <= RECEIVE_BYTES, "the kernel names what it was lent");
        // SAFETY: the offset of an existing buffer lies within the allocation.
        let start = unsafe { self.memory.add(usize::from(buffer) * RECEIVE_BYTES) };
        // SAFETY: `len` bytes lie within the buffer (asserted) and were zeroed at allocation, so
        // they are initialised; the buffer is ours from its completion until it is given back,
        // which needs `&mut self`.
        unsafe { std::slice::from_raw_parts(start.as_ptr(), len) }
    }

    /// Lends a buffer to the kernel again.
    pub(crate) fn give_back(&mut self, buffer: u16) {
        let index = self.tail & (RECEIVE_BUFFERS_MAX - 1);
        // SAFETY: the index is below the number of entries, a power of two.
        let entry = unsafe { self.entries.add(usize::from(index)) };
        // SAFETY: the offset of an existing buffer lies within the allocation.
        let start = unsafe { self.memory.add(usize::from(buffer) * RECEIVE_BYTES) };
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
        let tail = unsafe { BufRingEntry::tail(self.entries.as_ptr()) };
        // SAFETY: the tail is an aligned u16 in our memory, shared with the kernel and written only
        // by us, through this atomic.
        let tail = unsafe { AtomicU16::from_ptr(tail.cast_mut()) };
        tail.store(self.tail, Ordering::Release);
    }

    /// Doubles the number of buffers if the maximum allows; true if it did.
    pub(crate) fn grow(&mut self) -> bool {
        let count = self.count.saturating_mul(2).min(RECEIVE_BUFFERS_MAX);
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

impl Drop for Buffers {
    fn drop(&mut self) {
        // SAFETY: allocated in `new` with this layout; the kernel is done with it, see `new`.
        unsafe { alloc::dealloc(self.memory.as_ptr(), memory_layout()) };
        // SAFETY: as above.
        unsafe { alloc::dealloc(self.entries.as_ptr().cast(), entries_layout()) };
    }
}

fn entries_layout() -> Layout {
    let bytes = size_of::<BufRingEntry>() * usize::from(RECEIVE_BUFFERS_MAX);
    Layout::from_size_align(bytes, PAGE).expect("a constant, valid layout")
}

fn memory_layout() -> Layout {
    let bytes = RECEIVE_BYTES * usize::from(RECEIVE_BUFFERS_MAX);
    Layout::from_size_align(bytes, PAGE).expect("a constant, valid layout")
}

fn allocate<T>(layout: Layout) -> io::Result<NonNull<T>> {
    // SAFETY: the layouts above are not empty.
    let start = unsafe { alloc::alloc_zeroed(layout) };
    NonNull::new(start.cast()).ok_or_else(|| io::ErrorKind::OutOfMemory.into())
}

const _: () = assert!(RECEIVE_BUFFERS_MAX.is_power_of_two());
const _: () = assert!(RECEIVE_BUFFERS_MIN > 0 && RECEIVE_BUFFERS_MIN <= RECEIVE_BUFFERS_MAX);
