//! Slot → owner: what each socket of this shard is. Twelve bytes a slot, in chunks, so that growth
//! never copies the table.
//!
//! An idle stream has, here, its slot and nothing else; its own 16-byte record lies with the
//! streams. Owns the count of connections per peer address (`peer`), because it outlives the
//! hand-over of a connection to the streams.

use std::net::{IpAddr, SocketAddr};

use hashbrown::HashTable;

use crate::{limits, seam::SocketId};

/// What a socket is. The number is an index in the owner's own table.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Owner {
    /// No socket here, or one already closed.
    Free,
    /// A downstream HTTP connection.
    Http(u32),
    /// A live stream.
    Stream(u32),
    /// A connection to an origin.
    Upstream(u32),
    /// A connection to an origin that is kept for reuse.
    Idle(u32),
    /// The session with control.
    Feed,
    /// `Close` was asked; everything but `Closed` is ignored.
    Closing,
}

/// All sockets of one shard.
pub struct ConnTable {
    chunks: Vec<Box<[Slot; CHUNK_SLOTS]>>,
    open: usize,
    peers: Peers,
}

#[derive(Clone, Copy)]
struct Slot {
    generation: u32,
    /// Row in [`Peers`], [`NO_PEER`] for none.
    peer: u32,
    owner: Packed,
}

const _: () = assert!(size_of::<Slot>() == 12, "the memory contract of an idle stream");

/// An owner in one word: what it is in the lowest three bits, its number above. No table has more
/// than 2^29 rows: a shard has fewer sockets.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Packed(u32);

impl Packed {
    const FREE: Self = Self(0);

    fn of(owner: Owner) -> Self {
        let (kind, number) = match owner {
            Owner::Free => (0, 0),
            Owner::Http(number) => (1, number),
            Owner::Stream(number) => (2, number),
            Owner::Upstream(number) => (3, number),
            Owner::Idle(number) => (4, number),
            Owner::Feed => (5, 0),
            Owner::Closing => (6, 0),
        };
        assert!(number < 1 << 29, "a shard has fewer sockets than that");
        Self(number << 3 | kind)
    }

    fn get(self) -> Owner {
        let number = self.0 >> 3;
        match self.0 & 7 {
            0 => Owner::Free,
            1 => Owner::Http(number),
            2 => Owner::Stream(number),
            3 => Owner::Upstream(number),
            4 => Owner::Idle(number),
            5 => Owner::Feed,
            _ => Owner::Closing,
        }
    }
}

const CHUNK_SLOTS: usize = 1024;
const NO_PEER: u32 = u32::MAX;
const FREE: Slot = Slot { generation: 0, peer: NO_PEER, owner: Packed::FREE };

impl ConnTable {
    /// Empty. `seed` keeps peers from choosing collisions of their addresses.
    pub fn new(seed: u64) -> Self {
        Self { chunks: Vec::new(), open: 0, peers: Peers::new(seed) }
    }

    /// Another limit of one peer's connections, 0 for none; those above it stay open.
    pub fn set_peer_max(&mut self, peer_max: u32) {
        self.peers.max = peer_max;
    }

    /// Sockets that are not `Free`.
    pub fn open(&self) -> usize {
        self.open
    }

    /// Who owns this socket; `Free` for an id of an earlier use of the slot.
    pub fn owner(&self, socket: SocketId) -> Owner {
        match self.slot(socket.slot) {
            Some(slot) if slot.generation == socket.generation => slot.owner.get(),
            _ => Owner::Free,
        }
    }

    /// Notes a new socket of a peer. `false`: the peer has as many as it may have; the caller
    /// closes the socket.
    pub fn open_peer(&mut self, socket: SocketId, peer: SocketAddr, owner: Owner) -> bool {
        let (row, allowed) = self.peers.enter(peer.ip());
        self.put(
            socket,
            Slot { generation: socket.generation, peer: row, owner: Packed::of(owner) },
        );
        allowed
    }

    /// Notes a new socket that we opened ourselves.
    pub fn open_own(&mut self, socket: SocketId, owner: Owner) {
        self.put(
            socket,
            Slot { generation: socket.generation, peer: NO_PEER, owner: Packed::of(owner) },
        );
    }

    /// Hands a socket to another owner.
    pub fn set_owner(&mut self, socket: SocketId, owner: Owner) {
        debug_assert!(owner != Owner::Free, "freed only by `free`");
        if let Some(slot) = self.slot_mut(socket.slot)
            && slot.generation == socket.generation
        {
            slot.owner = Packed::of(owner);
        }
    }

    /// The socket is gone (`Closed`). Returns who owned it.
    pub fn free(&mut self, socket: SocketId) -> Owner {
        let Some(slot) = self.slot_mut(socket.slot) else { return Owner::Free };
        if slot.generation != socket.generation || slot.owner == Packed::FREE {
            return Owner::Free;
        }
        let Slot { owner, peer, .. } = std::mem::replace(slot, FREE);
        self.open -= 1;
        self.peers.leave(peer);
        owner.get()
    }

    fn put(&mut self, socket: SocketId, new: Slot) {
        let chunk = socket.slot as usize / CHUNK_SLOTS;
        while self.chunks.len() <= chunk {
            self.chunks.push(Box::new([FREE; CHUNK_SLOTS]));
        }
        let slot = &mut self.chunks[chunk][socket.slot as usize % CHUNK_SLOTS];
        assert!(
            slot.owner == Packed::FREE,
            "the engine reuses a slot only after its `Closed` was handled"
        );
        *slot = new;
        self.open += 1;
    }

    fn slot(&self, at: u32) -> Option<&Slot> {
        self.chunks.get(at as usize / CHUNK_SLOTS).map(|chunk| &chunk[at as usize % CHUNK_SLOTS])
    }

    fn slot_mut(&mut self, at: u32) -> Option<&mut Slot> {
        self.chunks
            .get_mut(at as usize / CHUNK_SLOTS)
            .map(|chunk| &mut chunk[at as usize % CHUNK_SLOTS])
    }
}

/// Connections per peer address; an IPv6 peer is its /64. Loopback is not counted: it is a proxy in
/// front, or this host.
struct Peers {
    /// Connections of one, 0 for no limit.
    max: u32,
    rows: Vec<PeerRow>,
    free: Vec<u32>,
    index: HashTable<u32>,
    hasher: foldhash::fast::FixedState,
}

#[derive(Clone, Copy)]
struct PeerRow {
    address: IpAddr,
    count: u32,
}

impl Peers {
    fn new(seed: u64) -> Self {
        Self {
            max: limits::CONNECTIONS_PER_PEER,
            rows: Vec::new(),
            free: Vec::new(),
            index: HashTable::new(),
            hasher: foldhash::fast::FixedState::with_seed(seed),
        }
    }

    /// Counts a connection; its row, and whether it stays within the limit.
    fn enter(&mut self, address: IpAddr) -> (u32, bool) {
        if address.is_loopback() {
            return (NO_PEER, true);
        }
        let address = network(address);
        let hash = self.hash(address);
        let found =
            self.index.find(hash, |&row| self.rows[row as usize].address == address).copied();
        let row = found.unwrap_or_else(|| self.add(hash, address));
        let peer = &mut self.rows[row as usize];
        peer.count += 1;
        (row, self.max == 0 || peer.count <= self.max)
    }

    fn add(&mut self, hash: u64, address: IpAddr) -> u32 {
        let new = PeerRow { address, count: 0 };
        let row = match self.free.pop() {
            Some(row) => {
                self.rows[row as usize] = new;
                row
            }
            None => {
                self.rows.push(new);
                self.rows.len() as u32 - 1
            }
        };
        let (rows, hasher) = (&self.rows, &self.hasher);
        self.index
            .insert_unique(hash, row, |&row| hash_address(hasher, rows[row as usize].address));
        row
    }

    fn leave(&mut self, row: u32) {
        if row == NO_PEER {
            return;
        }
        let peer = &mut self.rows[row as usize];
        peer.count -= 1;
        if peer.count > 0 {
            return;
        }
        let hash = hash_address(&self.hasher, peer.address);
        if let Ok(entry) = self.index.find_entry(hash, |&other| other == row) {
            entry.remove();
        }
        self.free.push(row);
    }

    fn hash(&self, address: IpAddr) -> u64 {
        hash_address(&self.hasher, address)
    }
}

fn hash_address(hasher: &foldhash::fast::FixedState, address: IpAddr) -> u64 {
    use std::hash::BuildHasher;
    hasher.hash_one(address)
}

/// The network that counts as one peer.
fn network(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(_) => address,
        IpAddr::V6(v6) => match v6.to_ipv4_mapped() {
            Some(v4) => IpAddr::V4(v4),
            None => IpAddr::V6((u128::from(v6) >> 64 << 64).into()),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn socket(slot: u32, generation: u32) -> SocketId {
        SocketId { slot, generation }
    }

    #[test]
    fn an_id_of_an_earlier_use_of_a_slot_has_no_owner() {
        let mut table = ConnTable::new(1);
        table.open_own(socket(5000, 1), Owner::Upstream(3));
        assert_eq!(table.owner(socket(5000, 1)), Owner::Upstream(3));
        assert_eq!(table.owner(socket(5000, 0)), Owner::Free);
        assert_eq!(table.free(socket(5000, 1)), Owner::Upstream(3));
        assert_eq!(table.free(socket(5000, 1)), Owner::Free);
        assert_eq!(table.open(), 0);
    }

    #[test]
    fn a_peer_is_counted_by_its_network_until_its_last_connection_closes() {
        let mut table = ConnTable::new(1);
        let peer = |host: u16| format!("[2001:db8::{host:x}]:9").parse().expect("an address");
        for slot in 0..limits::CONNECTIONS_PER_PEER {
            assert!(table.open_peer(socket(slot, 0), peer(slot as u16), Owner::Http(slot)));
        }
        let over = limits::CONNECTIONS_PER_PEER;
        assert!(!table.open_peer(socket(over, 0), peer(1), Owner::Http(0)));
        for slot in 0..=over {
            table.free(socket(slot, 0));
        }
        assert!(table.peers.index.is_empty());
        assert!(table.open_peer(socket(0, 1), peer(1), Owner::Http(0)));
    }
}
