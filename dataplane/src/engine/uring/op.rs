//! Operations of a ring: how each is named in completions, and how each is made.
//!
//! ```text
//!   prepared ─push▶ queued ─submit▶ in the kernel ─▶ completion ─▶ over
//!                                        └─ multishot: completions with F_MORE, the last without
//! ```
//!
//! Memory named by an operation belongs to the kernel until its last completion. Makers that name
//! memory are `unsafe` and say so; where the memory lives is said by its owner: `send` (payloads),
//! `accept` (addresses), `mod` (addresses to connect to), `buf_ring` (receive buffers).

use std::os::fd::RawFd;

use io_uring::{opcode, squeue, types};

use crate::{engine::uring::ring::SILENT, seam::SocketId};

/// What a completion is of.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub(crate) enum Kind {
    /// An accept; the slot is its index among accepts.
    Accept = 1,
    /// A connect of a socket.
    Connect,
    /// A socket's multishot receive.
    Receive,
    /// A socket's send.
    Send,
    /// A socket's part of a fan-out; completes only when it failed.
    Fanout,
    /// A socket's poll.
    Poll,
    /// The bell's multishot poll.
    Bell,
    /// A cancel of the socket's receive; completes only when it failed.
    CancelReceive,
    /// A cancel of the socket's poll; completes only when it failed.
    CancelPoll,
    /// A cancel whose failure needs nothing: what it names has just completed.
    Cancel,
}

/// An operation's name, returned by its completions: kind, slot and generation.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Tag(u64);

impl Tag {
    /// The operation of this kind on a socket; there is at most one.
    pub(crate) fn of(kind: Kind, socket: SocketId) -> Self {
        debug_assert!(socket.slot < 1 << 24, "the table keeps to limits::SOCKETS_MAX");
        Self((kind as u64) << 56 | u64::from(socket.slot) << 32 | u64::from(socket.generation))
    }

    /// An operation that is no socket's.
    pub(crate) fn at(kind: Kind, index: u32) -> Self {
        Self::of(kind, SocketId { slot: index, generation: 0 })
    }

    /// From a completion.
    pub(crate) fn read(user_data: u64) -> (Option<Kind>, SocketId) {
        let kind = match (user_data >> 56) as u8 {
            1 => Some(Kind::Accept),
            2 => Some(Kind::Connect),
            3 => Some(Kind::Receive),
            4 => Some(Kind::Send),
            5 => Some(Kind::Fanout),
            6 => Some(Kind::Poll),
            7 => Some(Kind::Bell),
            8 => Some(Kind::CancelReceive),
            9 => Some(Kind::CancelPoll),
            10 => Some(Kind::Cancel),
            _ => None,
        };
        let slot = (user_data >> 32) as u32 & 0x00ff_ffff;
        (kind, SocketId { slot, generation: user_data as u32 })
    }
}

/// An operation ready for the queue. Whoever made one has promised that the memory it names stays
/// valid and untouched until the operation's last completion.
pub(crate) struct Prepared(squeue::Entry);

impl Prepared {
    pub(crate) fn entry(&self) -> &squeue::Entry {
        &self.0
    }
}

/// Sends wait for room as long as it takes: a short one ends only with an error.
const SEND_FLAGS: i32 = libc::MSG_NOSIGNAL | libc::MSG_WAITALL;
/// Sends of a fan-out never wait: all, or as much as fits, at once.
const FANOUT_FLAGS: i32 = libc::MSG_NOSIGNAL | libc::MSG_WAITALL | libc::MSG_DONTWAIT;

/// Receives into buffers of `group`, many times.
pub(crate) fn receive(fd: RawFd, group: u16, tag: Tag) -> Prepared {
    Prepared(opcode::RecvMulti::new(types::Fd(fd), group).build().user_data(tag.0))
}

/// Waits once for one of `events`, or for an error or hang-up.
pub(crate) fn poll(fd: RawFd, events: u32, tag: Tag) -> Prepared {
    Prepared(opcode::PollAdd::new(types::Fd(fd), events).build().user_data(tag.0))
}

/// Fires each time the eventfd is written.
pub(crate) fn bell(fd: RawFd) -> Prepared {
    let events = libc::POLLIN as u32;
    let entry = opcode::PollAdd::new(types::Fd(fd), events).multi(true).build();
    Prepared(entry.user_data(Tag::at(Kind::Bell, 0).0))
}

/// Ends another operation early; its own completion comes all the same.
pub(crate) fn cancel(target: Tag, tag: Tag) -> Prepared {
    Prepared(opcode::AsyncCancel::new(target.0).build().flags(SILENT).user_data(tag.0))
}

/// Sends one piece.
///
/// # Safety
/// `bytes` must stay valid and unchanged, at its address, until the operation's last completion.
pub(crate) unsafe fn send(fd: RawFd, bytes: &[u8], tag: Tag) -> Prepared {
    let len = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
    let entry = opcode::Send::new(types::Fd(fd), bytes.as_ptr(), len).flags(SEND_FLAGS).build();
    Prepared(entry.user_data(tag.0))
}

/// Sends several pieces.
///
/// # Safety
/// `message`, its iovecs and what they point to must stay valid and unchanged, at their addresses,
/// until the operation's last completion.
pub(crate) unsafe fn send_message(fd: RawFd, message: *const libc::msghdr, tag: Tag) -> Prepared {
    let entry = opcode::SendMsg::new(types::Fd(fd), message).flags(SEND_FLAGS as u32).build();
    Prepared(entry.user_data(tag.0))
}

/// Sends at once what fits; silent if that is everything.
///
/// # Safety
/// `bytes` must stay valid until the operation was submitted. The kernel never keeps an operation
/// with MSG_DONTWAIT beyond its submission: it is neither polled for nor given to a worker.
pub(crate) unsafe fn fanout(fd: RawFd, bytes: &[u8], tag: Tag) -> Prepared {
    let len = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
    let entry = opcode::Send::new(types::Fd(fd), bytes.as_ptr(), len).flags(FANOUT_FLAGS).build();
    Prepared(entry.flags(SILENT).user_data(tag.0))
}

/// Accepts one connection.
///
/// # Safety
/// `address` and `len` must stay valid, and untouched by us, until the operation's last completion.
pub(crate) unsafe fn accept(
    fd: RawFd,
    address: *mut libc::sockaddr,
    len: *mut libc::socklen_t,
    tag: Tag,
) -> Prepared {
    let entry = opcode::Accept::new(types::Fd(fd), address, len).flags(libc::SOCK_CLOEXEC).build();
    Prepared(entry.user_data(tag.0))
}

/// Connects.
///
/// # Safety
/// `address` must stay valid and unchanged until the operation's last completion.
pub(crate) unsafe fn connect(
    fd: RawFd,
    address: *const libc::sockaddr,
    len: libc::socklen_t,
    tag: Tag,
) -> Prepared {
    Prepared(opcode::Connect::new(types::Fd(fd), address, len).build().user_data(tag.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tag_carries_kind_slot_and_generation() {
        let socket = SocketId { slot: (1 << 24) - 1, generation: u32::MAX };
        for kind in [Kind::Accept, Kind::Fanout, Kind::CancelPoll, Kind::Cancel] {
            assert_eq!(Tag::read(Tag::of(kind, socket).0), (Some(kind), socket));
        }
        assert_eq!(Tag::read(0).0, None);
    }
}
