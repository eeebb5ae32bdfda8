//! The table of streams: what each is when nothing happens, sixteen bytes by socket slot.
//!
//! Leaves to others: what a place means (`placement`), when something was heard (`heartbeat`).

use crate::seam::SocketId;

/// What a stream is when nothing happens: sixteen bytes, the table's generation included.
#[derive(Clone, Copy)]
pub(super) struct Record {
    /// What it listens to.
    pub(super) audience: u32,
    /// Where it is.
    pub(super) place: Place,
    /// When something was last sent to it alone, see [`stamp`].
    pub(super) heard: u32,
}

/// In its audience's list, in the side table, or nowhere.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Place(u32);

impl Place {
    const ASIDE: u32 = 1 << 31;
    const NONE: Self = Self(u32::MAX);

    pub(super) fn listed(place: u32) -> Self {
        Self(place)
    }

    pub(super) fn aside(row: u32) -> Self {
        Self(row | Self::ASIDE)
    }

    pub(super) fn is_none(self) -> bool {
        self == Self::NONE
    }

    /// Row in the side table.
    pub(super) fn row(self) -> Option<u32> {
        (self.0 & Self::ASIDE != 0 && !self.is_none()).then_some(self.0 & !Self::ASIDE)
    }

    /// Place in its audience's list.
    pub(super) fn in_list(self) -> Option<u32> {
        (self.0 & Self::ASIDE == 0).then_some(self.0)
    }
}

/// Records by socket slot, in chunks, so that growth never copies the table.
#[derive(Default)]
pub(super) struct Records {
    chunks: Vec<Box<[Slot; CHUNK_SLOTS]>>,
}

#[derive(Clone, Copy)]
struct Slot {
    generation: u32,
    record: Record,
}

const _: () = assert!(size_of::<Slot>() == 16, "the memory contract of an idle stream");

impl Records {
    /// Slots there is room for.
    pub(super) fn slots(&self) -> u32 {
        (self.chunks.len() * CHUNK_SLOTS) as u32
    }

    /// Bytes held.
    pub(super) fn bytes(&self) -> usize {
        self.chunks.len() * size_of::<[Slot; CHUNK_SLOTS]>()
    }

    pub(super) fn put(&mut self, socket: SocketId, record: Record) {
        while self.slots() <= socket.slot {
            self.chunks.push(Box::new([FREE; CHUNK_SLOTS]));
        }
        let slot = self.slot(socket.slot);
        assert!(slot.record.place.is_none(), "a slot's stream ends before its next one");
        *slot = Slot { generation: socket.generation, record };
    }

    pub(super) fn take(&mut self, socket: SocketId) -> Record {
        let slot = self.slot(socket.slot);
        let record = slot.record;
        assert!(
            slot.generation == socket.generation && !record.place.is_none(),
            "a stream ends once"
        );
        *slot = FREE;
        record
    }

    /// The record of this very stream, if it is still there.
    pub(super) fn get(&self, stream: u32, socket: SocketId) -> Option<Record> {
        debug_assert!(stream == socket.slot, "the table's number of a stream is its slot");
        let slot = self.chunks.get(socket.slot as usize / CHUNK_SLOTS)?;
        let slot = &slot[socket.slot as usize % CHUNK_SLOTS];
        let same = slot.generation == socket.generation && !slot.record.place.is_none();
        same.then_some(slot.record)
    }

    pub(super) fn get_mut(&mut self, stream: u32, socket: SocketId) -> Option<&mut Record> {
        self.get(stream, socket)?;
        Some(self.at(socket.slot))
    }

    pub(super) fn at(&mut self, slot: u32) -> &mut Record {
        &mut self.slot(slot).record
    }

    pub(super) fn socket(&mut self, slot: u32) -> (SocketId, Record) {
        let found = self.slot(slot);
        (SocketId { slot, generation: found.generation }, found.record)
    }

    fn slot(&mut self, slot: u32) -> &mut Slot {
        &mut self.chunks[slot as usize / CHUNK_SLOTS][slot as usize % CHUNK_SLOTS]
    }
}

const CHUNK_SLOTS: usize = 1024;
const FREE: Slot =
    Slot { generation: 0, record: Record { audience: 0, place: Place::NONE, heard: 0 } };
