//! Sends under way on a ring: one a socket, whole and in order.
//!
//! The kernel itself goes on with a short send (MSG_WAITALL); where it gives a part back all the
//! same, the rest is sent as a new operation. A payload is lent until its last completion: it lies
//! in the slab, and its bytes, which a payload never moves, do not move with it.

use crate::{
    engine::{
        table::Slab,
        uring::op::{self, Handle, Kind, Prepared, Tag},
    },
    limits::SEGMENTS_MAX,
    seam::{Payload, SocketId},
};

/// All sends under way of a shard.
pub(crate) struct Sends {
    slab: Slab<Pending>,
    /// Messages for payloads of several pieces, kept for the next ones.
    #[expect(clippy::vec_box, reason = "a message goes to a send and back without moving")]
    spare: Vec<Box<Message>>,
}

struct Pending {
    payload: Payload,
    sent: usize,
    message: Option<Box<Message>>,
}

/// What sendmsg(2) takes: a header that points to the iovecs beside it.
struct Message {
    header: libc::msghdr,
    iovecs: [libc::iovec; SEGMENTS_MAX],
}

/// What became of a send.
pub(crate) enum Progress {
    /// The rest has to be sent.
    Continue(Prepared),
    /// Everything went out.
    Done(Payload),
}

/// Messages kept; more are let go.
const SPARE_MAX: usize = 64;

impl Sends {
    pub(crate) fn new() -> Self {
        Self { slab: Slab::new(), spare: Vec::new() }
    }

    /// How many are under way.
    pub(crate) fn len(&self) -> u32 {
        self.slab.len()
    }

    /// Takes a payload; returns its index and the operation to push.
    pub(crate) fn start(
        &mut self,
        handle: Handle,
        socket: SocketId,
        payload: Payload,
    ) -> (u32, Prepared) {
        assert!(payload.segments().len() <= SEGMENTS_MAX, "payloads keep to SEGMENTS_MAX");
        let message = match &payload {
            Payload::Many(segments) if segments.len() > 1 => Some(self.message()),
            _ => None,
        };
        let index = self.slab.insert(Pending { payload, sent: 0, message });
        (index, self.prepare(index, handle, socket))
    }

    /// The kernel took `bytes` more.
    pub(crate) fn advance(
        &mut self,
        index: u32,
        handle: Handle,
        socket: SocketId,
        bytes: usize,
    ) -> Progress {
        let pending = self.slab.get_mut(index).expect("a completion's send is under way");
        pending.sent += bytes;
        if pending.sent < pending.payload.len() {
            return Progress::Continue(self.prepare(index, handle, socket));
        }
        Progress::Done(self.finish(index))
    }

    /// Ends a send, complete or not. Only after its last completion.
    pub(crate) fn finish(&mut self, index: u32) -> Payload {
        let pending = self.slab.remove(index).expect("a completion's send is under way");
        if let Some(message) = pending.message.filter(|_| self.spare.len() < SPARE_MAX) {
            self.spare.push(message);
        }
        pending.payload
    }

    /// The operation that sends what is left.
    fn prepare(&mut self, index: u32, handle: Handle, socket: SocketId) -> Prepared {
        let tag = Tag::of(Kind::Send, socket);
        let pending = self.slab.get_mut(index).expect("just looked up");
        if let Some(message) = &mut pending.message {
            message.point_to(&pending.payload, pending.sent);
            // SAFETY: header and iovecs are boxed and, like the payload, kept in the slab until
            // `finish`, which is called only after the last completion.
            return unsafe { op::send_message(handle, &raw const message.header, tag) };
        }
        let rest = pending.payload.segments().first().map_or(&[][..], |segment| segment.as_slice());
        // SAFETY: the payload is kept in the slab until `finish`, which is called only after the
        // last completion; its bytes do not move with it.
        unsafe { op::send(handle, &rest[pending.sent..], tag) }
    }

    fn message(&mut self) -> Box<Message> {
        self.spare.pop().unwrap_or_else(|| {
            // SAFETY: both are plain C data, for which zero (null, length 0) is a value.
            let header = unsafe { std::mem::zeroed() };
            let empty = libc::iovec { iov_base: std::ptr::null_mut(), iov_len: 0 };
            Box::new(Message { header, iovecs: [empty; SEGMENTS_MAX] })
        })
    }
}

impl Message {
    /// Points at all of the payload behind its first `sent` bytes.
    fn point_to(&mut self, payload: &Payload, sent: usize) {
        let mut skip = sent;
        let mut count = 0;
        for segment in payload.segments() {
            let bytes = segment.as_slice();
            let skipped = skip.min(bytes.len());
            skip -= skipped;
            if skipped == bytes.len() {
                continue;
            }
            let rest = &bytes[skipped..];
            self.iovecs[count] =
                libc::iovec { iov_base: rest.as_ptr().cast_mut().cast(), iov_len: rest.len() };
            count += 1;
        }
        self.header.msg_iov = self.iovecs.as_mut_ptr();
        self.header.msg_iovlen = count;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::seam::Segment;

    #[test]
    fn a_continued_message_starts_behind_what_was_sent() {
        let payload = Payload::Many(vec![
            Segment::Static(b"head"),
            Segment::Static(b""),
            Segment::Owned(b"body".to_vec()),
        ]);
        let mut message = Sends::new().message();
        for (sent, lens) in [(0, &[4, 4][..]), (1, &[3, 4]), (4, &[4]), (6, &[2]), (8, &[])] {
            message.point_to(&payload, sent);
            let count = message.header.msg_iovlen;
            let got: Vec<_> = message.iovecs[..count].iter().map(|iovec| iovec.iov_len).collect();
            assert_eq!(got, lens, "behind {sent}");
        }
    }
}
