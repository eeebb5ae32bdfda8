//! What the epoll engine knows of one socket, and which events it needs. Pure.
//!
//! ```text
//!   connecting ─▶ open ─ Close::Graceful ─▶ closing ─ last send over, FIN ─▶ draining ─┐
//!                   └──── Close::Abort ────────┴─── end of stream, error, time ────────┴▶ gone
//! ```
//!
//! Events are level-triggered, so nothing is ever watched that would not be acted upon: a socket
//! whose end was told is not watched at all.

use std::os::fd::RawFd;

use crate::engine::epoll::poller::Change;

/// One socket, 12 bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Record {
    pub(crate) fd: RawFd,
    /// Index of the send or connect under way, if `SENDING` or `CONNECTING`.
    pub(crate) op: u32,
    flags: u32,
}

/// The actor wants bytes.
pub(crate) const RECEIVE_WANTED: u32 = 1;
/// The actor wants to be told of a hang-up.
pub(crate) const HANG_UP_WANTED: u32 = 1 << 1;
/// The actor wants to be told once of writability.
pub(crate) const WRITABLE_WANTED: u32 = 1 << 2;
/// A send waits for room.
pub(crate) const SENDING: u32 = 1 << 3;
/// A connect is under way; the actor does not know the socket yet.
pub(crate) const CONNECTING: u32 = 1 << 4;
/// The peer will send no more.
pub(crate) const EOF: u32 = 1 << 5;
/// The connection is gone and the actor was told.
pub(crate) const DEAD: u32 = 1 << 6;
/// A fan-out failed here: nothing more goes out until the actor sends.
pub(crate) const BLOCKED: u32 = 1 << 7;
/// Closed gracefully by the actor: what comes is discarded.
pub(crate) const CLOSING: u32 = 1 << 8;
/// FIN was sent.
pub(crate) const DRAINING: u32 = 1 << 9;
/// To be told as closed.
pub(crate) const GONE: u32 = 1 << 10;
/// A send has ended and is not told yet.
pub(crate) const SENT: u32 = 1 << 11;
/// Closed by the actor as finished: nothing more is received.
pub(crate) const FINISHED: u32 = 1 << 16;
/// The descriptor is in the epoll instance, for the events below.
const WATCHED: u32 = 1 << 12;
const WATCHED_IN: u32 = 1 << 13;
const WATCHED_OUT: u32 = 1 << 14;
const WATCHED_FIN: u32 = 1 << 15;
const WATCHED_ALL: u32 = WATCHED | WATCHED_IN | WATCHED_OUT | WATCHED_FIN;

impl Record {
    pub(crate) fn new(fd: RawFd) -> Self {
        Self { fd, op: 0, flags: 0 }
    }

    pub(crate) fn connecting(fd: RawFd, op: u32) -> Self {
        Self { fd, op, flags: CONNECTING }
    }

    /// Any of these.
    pub(crate) fn has(&self, flags: u32) -> bool {
        self.flags & flags != 0
    }

    pub(crate) fn set(&mut self, flags: u32) {
        self.flags |= flags;
    }

    pub(crate) fn clear(&mut self, flags: u32) {
        self.flags &= !flags;
    }

    pub(crate) fn put(&mut self, flags: u32, on: bool) {
        if on { self.set(flags) } else { self.clear(flags) }
    }

    /// Whether bytes are to be read.
    pub(crate) fn reads(&self) -> bool {
        self.has(RECEIVE_WANTED | CLOSING) && !self.has(EOF | DEAD | GONE | CONNECTING | FINISHED)
    }

    /// The change that makes what is watched equal to what is needed, marked as made.
    pub(crate) fn next_change(&mut self) -> Option<Change> {
        let (had, needed) = (self.flags & WATCHED_ALL, self.needed());
        if had == needed {
            return None;
        }
        self.flags = self.flags & !WATCHED_ALL | needed;
        Some(match (had, needed) {
            (_, 0) => Change::Remove,
            (0, _) => Change::Add(events(needed)),
            _ => Change::Replace(events(needed)),
        })
    }

    fn needed(&self) -> u32 {
        if self.has(DEAD | GONE) {
            return 0;
        }
        let mut needed = 0;
        if self.reads() {
            needed |= WATCHED | WATCHED_IN;
        }
        if self.has(SENDING | WRITABLE_WANTED | CONNECTING) {
            needed |= WATCHED | WATCHED_OUT;
        }
        if self.has(HANG_UP_WANTED) && !self.has(CLOSING) {
            // Errors and full hang-ups are told always; the peer's FIN only if that is news.
            needed |= WATCHED | if self.has(EOF) { 0 } else { WATCHED_FIN };
        }
        needed
    }
}

fn events(watched: u32) -> u32 {
    let pairs = [
        (WATCHED_IN, libc::EPOLLIN),
        (WATCHED_OUT, libc::EPOLLOUT),
        (WATCHED_FIN, libc::EPOLLRDHUP),
    ];
    pairs.iter().filter(|(flag, _)| watched & flag != 0).fold(0, |all, (_, bit)| all | *bit as u32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_idle_socket_is_not_watched() {
        let mut record = Record::new(3);
        assert_eq!(record.next_change(), None);
        record.set(HANG_UP_WANTED);
        assert_eq!(record.next_change(), Some(Change::Add(libc::EPOLLRDHUP as u32)));
        assert_eq!(record.next_change(), None);
        record.clear(HANG_UP_WANTED);
        assert_eq!(record.next_change(), Some(Change::Remove));
    }

    #[test]
    fn what_was_told_is_no_longer_watched() {
        let mut record = Record::new(3);
        record.set(RECEIVE_WANTED);
        assert_eq!(record.next_change(), Some(Change::Add(libc::EPOLLIN as u32)));
        record.set(EOF);
        assert_eq!(record.next_change(), Some(Change::Remove));
        record.set(SENDING);
        assert_eq!(record.next_change(), Some(Change::Add(libc::EPOLLOUT as u32)));
        record.set(DEAD);
        assert_eq!(record.next_change(), Some(Change::Remove));
    }

    #[test]
    fn a_half_closed_peer_is_watched_for_the_other_half_only() {
        let mut record = Record::new(3);
        record.set(HANG_UP_WANTED | EOF);
        assert_eq!(record.next_change(), Some(Change::Add(0)));
    }
}
