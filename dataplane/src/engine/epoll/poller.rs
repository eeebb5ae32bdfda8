//! An epoll instance.

use std::{
    io,
    os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd},
};

use crate::{limits::INPUTS_PER_TURN_MAX, seam::SocketId};

/// One epoll instance and the events it reported last.
pub(crate) struct Poller {
    epoll: OwnedFd,
    events: Vec<libc::epoll_event>,
}

/// What an event is about.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Source {
    /// The bell; it needs nothing but to have woken us.
    Bell,
    /// A listener, by index.
    Listener(u32),
    /// A socket, perhaps no longer there.
    Socket(SocketId),
}

impl Source {
    /// Sockets have an odd generation, so the even ones are free for others.
    fn to_data(self) -> u64 {
        let (slot, generation) = match self {
            Self::Bell => (u32::MAX, 0),
            Self::Listener(index) => (index, 0),
            Self::Socket(id) => (id.slot, id.generation),
        };
        u64::from(generation) << 32 | u64::from(slot)
    }

    fn of_data(data: u64) -> Self {
        let (slot, generation) = (data as u32, (data >> 32) as u32);
        match (slot, generation) {
            (u32::MAX, 0) => Self::Bell,
            (index, 0) => Self::Listener(index),
            (slot, generation) => Self::Socket(SocketId { slot, generation }),
        }
    }
}

/// A change of what is watched.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Change {
    Add(u32),
    Replace(u32),
    Remove,
}

impl Poller {
    pub(crate) fn new() -> io::Result<Self> {
        // SAFETY: takes no memory.
        let fd = unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: just opened by us, checked above, and owned by nobody else.
        let epoll = unsafe { OwnedFd::from_raw_fd(fd) };
        Ok(Self { epoll, events: Vec::with_capacity(INPUTS_PER_TURN_MAX) })
    }

    /// Changes what is watched of a descriptor.
    pub(crate) fn change(&self, fd: RawFd, source: Source, change: Change) -> io::Result<()> {
        let (operation, events) = match change {
            Change::Add(events) => (libc::EPOLL_CTL_ADD, events),
            Change::Replace(events) => (libc::EPOLL_CTL_MOD, events),
            Change::Remove => (libc::EPOLL_CTL_DEL, 0),
        };
        let mut event = libc::epoll_event { events, u64: source.to_data() };
        // SAFETY: `event` is a valid epoll_event for the length of the call.
        let outcome =
            unsafe { libc::epoll_ctl(self.epoll.as_raw_fd(), operation, fd, &raw mut event) };
        if outcome == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    }

    /// Waits for events at most so long; negative means for ever.
    pub(crate) fn wait(&mut self, timeout_ms: i32) {
        self.events.clear();
        let room = self.events.capacity();
        // SAFETY: the vector has room for that many events.
        let count = unsafe {
            libc::epoll_wait(
                self.epoll.as_raw_fd(),
                self.events.as_mut_ptr(),
                i32::try_from(room).unwrap_or(i32::MAX),
                timeout_ms,
            )
        };
        // Negative only by EINTR: then there are no events, and the turn goes on.
        let count = usize::try_from(count).unwrap_or(0).min(room);
        // SAFETY: the kernel wrote the first `count` events, within the capacity.
        unsafe { self.events.set_len(count) };
    }

    /// Takes the next event.
    pub(crate) fn next(&mut self) -> Option<(Source, u32)> {
        self.events.pop().map(|event| (Source::of_data(event.u64), event.events))
    }

    pub(crate) fn has_events(&self) -> bool {
        !self.events.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_names_its_source() {
        let socket = Source::Socket(SocketId { slot: u32::MAX - 1, generation: u32::MAX });
        for source in [Source::Bell, Source::Listener(0), Source::Listener(7), socket] {
            assert_eq!(Source::of_data(source.to_data()), source);
        }
    }
}
