//! Ends of connections on a ring: graceful, at once, and of all when the shard ends.

use std::{io, os::fd::RawFd};

use crate::{
    engine::{
        socket,
        turn::{Patience, Sockets},
        uring::{
            Uring,
            op::{self, Kind, Tag},
            record,
        },
    },
    limits::CLOSE_DRAIN_MS,
    seam::{Close, Input, Mono, Now, SocketId},
};

impl Uring {
    pub(super) fn start_close(&mut self, now: Now, id: SocketId, how: Close) {
        let Some(record) = self.table.get_mut(id) else { return };
        if record.has(record::ENDING) {
            return;
        }
        match how {
            Close::Abort => {
                match record.handle.descriptor() {
                    Ok(fd) => socket::reset_on_close(fd),
                    Err(slot) => {
                        self.ring.push(&op::reset_on_close(slot, Tag::of(Kind::Cancel, id)));
                    }
                }
                self.end(id);
            }
            Close::Graceful | Close::Finished if record.has(record::CLOSING) => {}
            Close::Graceful | Close::Finished => {
                record.set(record::CLOSING);
                record.put(record::FINISHED, how == Close::Finished);
                self.closing_count += 1;
                self.send_over(now, id);
            }
        }
    }

    /// No send is under way any more, or there was none: goes on with a close that waited for that.
    pub(super) fn send_over(&mut self, now: Now, id: SocketId) {
        let Some(record) = self.table.get_mut(id) else { return };
        if record.has(record::ENDING) || !record.has(record::CLOSING) {
            return self.settle(id);
        }
        if record.has(record::DEAD) {
            return self.end(id);
        }
        if record.has(record::SENDING | record::DRAINING) {
            return self.settle(id);
        }
        if record.has(record::EOF | record::FINISHED) {
            // All was read, so the descriptor's close says FIN.
            return self.end(id);
        }
        record.set(record::DRAINING);
        match record.handle.descriptor() {
            Ok(fd) => socket::shut_write(fd),
            Err(slot) => {
                record.set(record::INSTALLING);
                self.ring.push(&op::install(slot, Tag::of(Kind::Install, id)));
            }
        }
        self.drains.push_back((now.mono.after_ms(CLOSE_DRAIN_MS), id));
        self.settle(id);
    }

    /// A descriptor to say FIN with is there, or there are no more.
    pub(super) fn installed(&mut self, id: SocketId, result: i32) {
        let record = self.table.get_mut(id).expect("a socket outlives its operations");
        record.clear(record::INSTALLING);
        if result >= 0 {
            let fd: RawFd = result;
            socket::shut_write(fd);
            socket::close(fd);
        } else if !record.has(record::ENDING) {
            self.ring.push(&op::shut_write(id.slot, Tag::of(Kind::Cancel, id)));
        }
        self.settle(id);
    }

    /// The peer's end of stream, or the connection's: `EOF` or `DEAD`.
    pub(super) fn ended(&mut self, id: SocketId, how: u32) {
        let Some(record) = self.table.get_mut(id) else { return };
        record.set(how);
        let over = record.has(record::DRAINING) || how == record::DEAD;
        if record.has(record::CLOSING) && over {
            self.end(id);
        }
    }

    /// Cancels all that is under way; the descriptor is closed after the last completion.
    pub(super) fn end(&mut self, id: SocketId) {
        let Some(record) = self.table.get_mut(id) else { return };
        record.set(record::ENDING);
        self.settle(id);
    }

    pub(super) fn expire_drains(&mut self, now: Now) {
        while let Some(&(at, id)) = self.drains.front() {
            let over = self.table.get_mut(id).is_none_or(|record| record.has(record::ENDING));
            if !over && at > now.mono {
                break;
            }
            self.drains.pop_front();
            if !over {
                self.end(id);
            }
        }
    }

    /// Nothing is under way for this socket any more. A descriptor is closed when that is told, a
    /// direct one by an operation whose completion is then told.
    pub(super) fn let_go(&mut self, id: SocketId) {
        let Some(record) = self.table.get_mut(id) else { return };
        match record.handle.descriptor() {
            Ok(_) => self.gone.push(id),
            Err(slot) => self.ring.push(&op::close(slot, Tag::of(Kind::Close, id))),
        }
    }

    /// A direct descriptor's close has completed.
    pub(super) fn closed<M>(
        &mut self,
        id: SocketId,
        result: i32,
        sink: &mut impl FnMut(Input<'_, M>),
    ) {
        assert_eq!(result, 0, "a socket stays in its slot of the ring's table until this close");
        self.tell_closed(id, sink);
    }

    /// Closes descriptors and tells so.
    pub(super) fn tell_gone<M>(&mut self, sink: &mut impl FnMut(Input<'_, M>)) {
        while let Some(id) = self.gone.pop() {
            self.tell_closed(id, sink);
        }
    }

    /// Frees the slot first: an actor that panics leaves nothing half done.
    fn tell_closed<M>(&mut self, id: SocketId, sink: &mut impl FnMut(Input<'_, M>)) {
        let Some(record) = self.table.release(id) else { return };
        if let Ok(fd) = record.handle.descriptor() {
            socket::close(fd);
        }
        self.closing_count -= usize::from(record.has(record::CLOSING));
        self.accepts_changed = true;
        if !record.has(record::UNTOLD) {
            sink(Input::Closed { socket: id });
        }
    }

    /// Ends everything and waits until the kernel has nothing of ours any more. True if it has not.
    fn end_all(&mut self) -> bool {
        self.stop_accepting();
        let sockets = self.table.iter().filter(|(_, record)| !record.has(record::ACCEPTING));
        let all: Vec<_> = sockets.map(|(id, _)| id).collect();
        all.into_iter().for_each(|id| self.end(id));
        let (mut now, mut idle_rounds) = (Now::default(), 0);
        while idle_rounds < END_ROUNDS_MAX {
            let left = self.table.taken();
            if left == 0 {
                return true;
            }
            let until = Mono(now.mono.0.saturating_add(1_000_000));
            self.wait(now, Patience::Until(until));
            now.mono = until;
            self.deliver::<()>(now, &mut |_| {});
            let progress = self.table.taken() < left;
            idle_rounds = if progress { 0 } else { idle_rounds + 1 };
        }
        false
    }
}

/// Waits of at most 1 ms each without any operation ending. Cancels take microseconds.
const END_ROUNDS_MAX: u32 = 2_000;

impl Drop for Uring {
    /// What is lent to the kernel may not be freed before its operations are over.
    fn drop(&mut self) {
        if !self.end_all() {
            let error = io::Error::from(io::ErrorKind::TimedOut);
            tracing::error!(%error, "operations do not end; the process ends without them");
            std::process::abort();
        }
    }
}
