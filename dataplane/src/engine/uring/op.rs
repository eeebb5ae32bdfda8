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
use types::DestinationSlot;

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
    /// A cancel whose failure needs nothing: what it names has just completed. Also what else
    /// completes only when it failed, and then needs nothing.
    Cancel,
    /// A descriptor of the process for a direct one, to say FIN with.
    Install,
    /// A direct descriptor's close.
    Close,
}

/// A socket as operations name it: a descriptor of the process, or an index in the ring's own table
/// (a direct descriptor), which counts toward no limit of descriptors.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Handle(i32);

impl Handle {
    /// No socket yet. Nothing is asked of it.
    pub(crate) const NONE: Self = Self(i32::MAX);

    /// A descriptor of the process.
    pub(crate) fn plain(fd: RawFd) -> Self {
        debug_assert!(fd >= 0, "an open descriptor");
        Self(fd)
    }

    /// A direct descriptor.
    pub(crate) fn direct(slot: u32) -> Self {
        debug_assert!(slot < 1 << 24, "the table keeps to limits::SOCKETS_MAX");
        Self(!(slot as i32))
    }

    /// Which of both it is: `Ok` for a descriptor of the process, else its index in the table.
    pub(crate) fn descriptor(self) -> Result<RawFd, u32> {
        if self.0 >= 0 { Ok(self.0) } else { Err(!self.0 as u32) }
    }

    fn fd(self) -> types::Fd {
        types::Fd(if self.0 >= 0 { self.0 } else { !self.0 })
    }

    /// With this, an operation takes [`Handle::fd`] for an index in the table.
    fn flags(self) -> squeue::Flags {
        if self.0 >= 0 { squeue::Flags::empty() } else { squeue::Flags::FIXED_FILE }
    }
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
            11 => Some(Kind::Install),
            12 => Some(Kind::Close),
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
pub(crate) fn receive(socket: Handle, group: u16, tag: Tag) -> Prepared {
    let entry = opcode::RecvMulti::new(socket.fd(), group).build();
    Prepared(entry.flags(socket.flags()).user_data(tag.0))
}

/// Waits once for one of `events`, or for an error or hang-up.
pub(crate) fn poll(socket: Handle, events: u32, tag: Tag) -> Prepared {
    let entry = opcode::PollAdd::new(socket.fd(), events).build();
    Prepared(entry.flags(socket.flags()).user_data(tag.0))
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
pub(crate) unsafe fn send(socket: Handle, bytes: &[u8], tag: Tag) -> Prepared {
    let len = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
    let entry = opcode::Send::new(socket.fd(), bytes.as_ptr(), len).flags(SEND_FLAGS).build();
    Prepared(entry.flags(socket.flags()).user_data(tag.0))
}

/// Sends several pieces.
///
/// # Safety
/// `message`, its iovecs and what they point to must stay valid and unchanged, at their addresses,
/// until the operation's last completion.
pub(crate) unsafe fn send_message(
    socket: Handle,
    message: *const libc::msghdr,
    tag: Tag,
) -> Prepared {
    let entry = opcode::SendMsg::new(socket.fd(), message).flags(SEND_FLAGS as u32).build();
    Prepared(entry.flags(socket.flags()).user_data(tag.0))
}

/// Sends at once what fits; silent if that is everything.
///
/// # Safety
/// `bytes` must stay valid until the operation was submitted. The kernel never keeps an operation
/// with MSG_DONTWAIT beyond its submission: it is neither polled for nor given to a worker.
pub(crate) unsafe fn fanout(socket: Handle, bytes: &[u8], tag: Tag) -> Prepared {
    let len = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
    let entry = opcode::Send::new(socket.fd(), bytes.as_ptr(), len).flags(FANOUT_FLAGS).build();
    Prepared(entry.flags(socket.flags() | SILENT).user_data(tag.0))
}

/// Accepts one connection, into a slot of the ring's table if there is one. The slot must be empty
/// when the operation ends.
///
/// # Safety
/// `address` and `len` must stay valid, and untouched by us, until the operation's last completion.
pub(crate) unsafe fn accept(
    fd: RawFd,
    address: *mut libc::sockaddr,
    len: *mut libc::socklen_t,
    slot: Option<u32>,
    tag: Tag,
) -> Prepared {
    let slot = slot.and_then(|slot| DestinationSlot::try_from_slot_target(slot).ok());
    // A direct descriptor is not inherited anyway, and the kernel refuses the flag.
    let flags = if slot.is_some() { 0 } else { libc::SOCK_CLOEXEC };
    let entry = opcode::Accept::new(types::Fd(fd), address, len).file_index(slot).flags(flags);
    Prepared(entry.build().user_data(tag.0))
}

/// Connects.
///
/// # Safety
/// `address` must stay valid and unchanged until the operation's last completion.
pub(crate) unsafe fn connect(
    socket: Handle,
    address: *const libc::sockaddr,
    len: libc::socklen_t,
    tag: Tag,
) -> Prepared {
    let entry = opcode::Connect::new(socket.fd(), address, len).build();
    Prepared(entry.flags(socket.flags()).user_data(tag.0))
}

/// Gives the process a descriptor of the socket in this slot.
pub(crate) fn install(slot: u32, tag: Tag) -> Prepared {
    let close_on_exec = 0;
    let entry = opcode::FixedFdInstall::new(types::Fixed(slot), close_on_exec).build();
    Prepared(entry.user_data(tag.0))
}

/// Says FIN. The kernel gives it to a worker thread, so [`install`] and shutdown(2) cost less.
pub(crate) fn shut_write(slot: u32, tag: Tag) -> Prepared {
    let entry = opcode::Shutdown::new(types::Fixed(slot), libc::SHUT_WR).build();
    Prepared(entry.flags(SILENT).user_data(tag.0))
}

/// Makes the close of the socket in this slot a reset.
pub(crate) fn reset_on_close(slot: u32, tag: Tag) -> Prepared {
    static AT_ONCE: libc::linger = libc::linger { l_onoff: 1, l_linger: 0 };
    let entry = opcode::SetSockOpt::new(
        types::Fixed(slot),
        libc::SOL_SOCKET as u32,
        libc::SO_LINGER as u32,
        (&raw const AT_ONCE).cast(),
        size_of::<libc::linger>() as u32,
    );
    Prepared(entry.build().flags(SILENT).user_data(tag.0))
}

/// Closes the socket in this slot. It is empty when the operation has completed.
pub(crate) fn close(slot: u32, tag: Tag) -> Prepared {
    Prepared(opcode::Close::new(types::Fixed(slot)).build().user_data(tag.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tag_carries_kind_slot_and_generation() {
        let socket = SocketId { slot: (1 << 24) - 1, generation: u32::MAX };
        for kind in [Kind::Accept, Kind::Fanout, Kind::CancelPoll, Kind::Cancel, Kind::Close] {
            assert_eq!(Tag::read(Tag::of(kind, socket).0), (Some(kind), socket));
        }
        assert_eq!(Tag::read(0).0, None);
    }

    #[test]
    fn a_handle_is_either_a_descriptor_or_an_index() {
        for number in [0, 1, 19_999] {
            assert_eq!(Handle::plain(number).descriptor(), Ok(number));
            let slot = number as u32;
            assert_eq!(Handle::direct(slot).descriptor(), Err(slot));
            assert_eq!(Handle::direct(slot).fd().0, number);
            assert!(Handle::direct(slot).flags().contains(squeue::Flags::FIXED_FILE));
            assert!(Handle::plain(number).flags().is_empty());
        }
    }
}
