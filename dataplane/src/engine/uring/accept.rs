//! Accepts under way on a ring: one-shot, each with memory for the peer's address.
//!
//! Multishot accept would share one address between all of its completions, so a burst of
//! connections would be told the wrong peers.

use socket2::{SockAddr, SockAddrStorage};

use crate::{
    engine::{
        listen::Listeners,
        table::Slab,
        uring::op::{self, Kind, Prepared, Tag},
    },
    limits::ACCEPTS_MAX,
    seam::{ListenerId, SocketId},
};

/// All accepts under way of a shard.
pub(crate) struct Accepts {
    slab: Slab<Pending>,
    /// How many, by listener.
    under_way: Vec<u32>,
}

struct Pending {
    listener: ListenerId,
    /// The slot kept for the new socket.
    socket: SocketId,
    /// Written by the kernel until the accept's completion, its only one.
    address: Box<Address>,
    cancelled: bool,
}

struct Address {
    storage: SockAddrStorage,
    len: libc::socklen_t,
}

/// An accept that has completed.
pub(crate) struct Over {
    pub(crate) listener: ListenerId,
    pub(crate) socket: SocketId,
    address: Box<Address>,
}

impl Accepts {
    pub(crate) fn new(listeners: &Listeners) -> Self {
        let under_way = vec![0; usize::from(listeners.count())];
        Self { slab: Slab::new(), under_way }
    }

    /// How many are under way.
    pub(crate) fn len(&self) -> u32 {
        self.slab.len()
    }

    /// The listener that is next to have another accept, if one may.
    pub(crate) fn next(&self, listeners: &Listeners) -> Option<ListenerId> {
        (0..listeners.count())
            .filter(|&listener| listeners.is_on(listener))
            .min_by_key(|&listener| self.under_way[usize::from(listener)])
            .filter(|&listener| self.under_way[usize::from(listener)] < ACCEPTS_MAX)
    }

    /// The accept to push, for a socket whose slot is kept. `direct`: into the ring's table, at the
    /// same index.
    pub(crate) fn start(
        &mut self,
        listeners: &Listeners,
        listener: ListenerId,
        socket: SocketId,
        direct: bool,
    ) -> Prepared {
        self.under_way[usize::from(listener)] += 1;
        let mut address = Address::new();
        let (storage, len) = (&raw mut address.storage, &raw mut address.len);
        let index = self.slab.insert(Pending { listener, socket, address, cancelled: false });
        let tag = Tag::at(Kind::Accept, index);
        let slot = direct.then_some(socket.slot);
        // SAFETY: both lie in a box that the slab keeps, unread, until `finish`, which is called
        // only for the completion.
        unsafe { op::accept(listeners.fd(listener), storage.cast(), len, slot, tag) }
    }

    /// Cancels for accepts of listeners that are off now.
    pub(crate) fn cancels(&mut self, listeners: &Listeners) -> Vec<Prepared> {
        let mut cancels = Vec::new();
        for (index, pending) in self.slab.iter_mut() {
            if !pending.cancelled && !listeners.is_on(pending.listener) {
                pending.cancelled = true;
                let target = Tag::at(Kind::Accept, index);
                cancels.push(op::cancel(target, Tag::at(Kind::Cancel, index)));
            }
        }
        cancels
    }

    /// Ends an accept. Only for its completion.
    pub(crate) fn finish(&mut self, index: u32) -> Over {
        let pending = self.slab.remove(index).expect("a completion's accept is under way");
        self.under_way[usize::from(pending.listener)] -= 1;
        let Pending { listener, socket, address, .. } = pending;
        Over { listener, socket, address }
    }
}

impl Over {
    /// The address of the peer that was accepted.
    pub(crate) fn peer(self) -> Option<std::net::SocketAddr> {
        let Address { storage, len } = *self.address;
        // SAFETY: the storage holds zeros, or an address of `len` bytes that the kernel wrote
        // before the completion: valid in both cases.
        let address = unsafe { SockAddr::new(storage, len) };
        address.as_socket()
    }
}

impl Address {
    fn new() -> Box<Self> {
        let storage = SockAddrStorage::zeroed();
        let len = storage.size_of();
        Box::new(Self { storage, len })
    }
}
