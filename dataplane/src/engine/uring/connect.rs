//! Connects under way on a ring.

use std::{collections::VecDeque, io, net::SocketAddr};

use socket2::{SockAddr, Socket};

use crate::{
    engine::{
        socket,
        table::Slab,
        uring::{
            Uring,
            op::{self, Handle, Kind, Tag},
            record::{self, Record},
        },
    },
    limits::CONNECT_MS_MAX,
    seam::{Input, Mono, Now, OpId, SocketId},
};

/// All connects under way of a shard.
pub(super) struct Connects {
    slab: Slab<Pending>,
    /// When they are given up, in order.
    deadlines: VecDeque<(Mono, SocketId)>,
    /// Those that failed at once, to be told.
    failed: Vec<(OpId, io::ErrorKind)>,
}

struct Pending {
    op: OpId,
    /// Read by the kernel until the connect's completion.
    address: Box<SockAddr>,
}

impl Connects {
    pub(super) fn new() -> Self {
        Self { slab: Slab::new(), deadlines: VecDeque::new(), failed: Vec::new() }
    }

    pub(super) fn has_failed(&self) -> bool {
        !self.failed.is_empty()
    }

    pub(super) fn next_deadline(&self) -> Option<Mono> {
        self.deadlines.front().map(|&(at, _)| at)
    }
}

impl Uring {
    pub(super) fn start_connect(
        &mut self,
        now: Now,
        op: OpId,
        to: SocketAddr,
        from: Option<SocketAddr>,
    ) {
        // Accepts under way have their room already.
        let Some(id) = self.table.take(Record::connecting(Handle::NONE, 0)) else {
            self.connects.failed.push((op, io::ErrorKind::QuotaExceeded));
            return;
        };
        let handle = match socket::outgoing(to, from).and_then(|socket| self.adopt(id, socket)) {
            Ok(handle) => handle,
            Err(error) => {
                self.table.release(id);
                self.connects.failed.push((op, error.kind()));
                return;
            }
        };
        let pending = Pending { op, address: Box::new(to.into()) };
        let (address, len) = (pending.address.as_ptr(), pending.address.len());
        let index = self.connects.slab.insert(pending);
        *self.table.get_mut(id).expect("just taken") = Record::connecting(handle, index);
        self.accepts_changed = true;
        self.connects.deadlines.push_back((now.mono.after_ms(CONNECT_MS_MAX), id));
        // SAFETY: the address is boxed and kept in the slab until `connected`, which is called only
        // for the completion.
        let operation =
            unsafe { op::connect(handle, address.cast(), len, Tag::of(Kind::Connect, id)) };
        self.ring.push(&operation);
    }

    /// Takes a new socket over: as a descriptor of the process, or moved into the ring's table. The
    /// options are set before by system calls: as operations they would be a chain of up to six,
    /// and binding is known to rings only since Linux 6.11.
    fn adopt(&mut self, id: SocketId, socket: Socket) -> io::Result<Handle> {
        if !self.direct {
            return Ok(Handle::plain(socket::into_fd(socket)));
        }
        self.ring.move_in(id.slot, &socket)?;
        Ok(Handle::direct(id.slot))
    }

    pub(super) fn connected<M>(
        &mut self,
        id: SocketId,
        result: i32,
        sink: &mut impl FnMut(Input<'_, M>),
    ) {
        let record = self.table.get_mut(id).expect("a socket outlives its operations");
        let pending = self.connects.slab.remove(record.op).expect("this connect is under way");
        record.clear(record::CONNECTING);
        let op = pending.op;
        if result == 0 && !record.has(record::ENDING) {
            record.clear(record::UNTOLD);
            sink(Input::Connected { op, result: Ok(id) });
            return;
        }
        // Only time cancels a connect.
        let late = result == 0 || result == -libc::ECANCELED;
        let error = if late { io::ErrorKind::TimedOut } else { socket::kind_of(result) };
        self.end(id);
        sink(Input::Connected { op, result: Err(error) });
    }

    pub(super) fn expire_connects(&mut self, now: Now) {
        while let Some(&(at, id)) = self.connects.deadlines.front() {
            let over = self.table.get_mut(id).is_none_or(|record| !record.has(record::CONNECTING));
            if !over && at > now.mono {
                break;
            }
            self.connects.deadlines.pop_front();
            if !over {
                self.end(id);
            }
        }
    }

    pub(super) fn tell_failed_connects<M>(&mut self, sink: &mut impl FnMut(Input<'_, M>)) {
        for (op, error) in self.connects.failed.drain(..) {
            sink(Input::Connected { op, result: Err(error) });
        }
    }
}
