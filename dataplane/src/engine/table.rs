//! The sockets of a shard: a table of small records, and the slabs of operations under way.
//!
//! A slot's generation is odd while it is in use and grows by one at each take and each release, so
//! a name that has outlived its socket finds nothing. Room for the maximum is reserved once in
//! address space; memory is touched only up to the highest slot ever used, and never copied.

use crate::seam::SocketId;

/// Records by socket id.
#[derive(Debug)]
pub(crate) struct Table<R> {
    slots: Vec<Slot<R>>,
    /// Slots given back, to be taken again; beside the records, because while most are in use it
    /// is next to nothing.
    free: Vec<u32>,
    taken: u32,
    max: u32,
}

#[derive(Debug)]
struct Slot<R> {
    generation: u32,
    record: R,
}

const NONE: u32 = u32::MAX;

impl<R: Copy> Table<R> {
    /// A table for `max` sockets.
    pub(crate) fn new(max: u32) -> Self {
        Self { slots: Vec::with_capacity(max as usize), free: Vec::new(), taken: 0, max }
    }

    /// Takes a slot; `None` if all are taken.
    pub(crate) fn take(&mut self, record: R) -> Option<SocketId> {
        let index = match self.free.pop() {
            Some(index) => index,
            None => {
                let index = u32::try_from(self.slots.len()).ok();
                let index = index.filter(|&index| index < self.max)?;
                self.slots.push(Slot { generation: 0, record });
                index
            }
        };
        let slot = &mut self.slots[index as usize];
        slot.generation = slot.generation.wrapping_add(1);
        slot.record = record;
        self.taken += 1;
        Some(SocketId { slot: index, generation: slot.generation })
    }

    /// Gives a slot back and returns its record; `None` if it was not taken under that name.
    pub(crate) fn release(&mut self, id: SocketId) -> Option<R> {
        let slot = self.slots.get_mut(id.slot as usize).filter(|slot| slot.is(id))?;
        slot.generation = slot.generation.wrapping_add(1);
        let record = slot.record;
        self.free.push(id.slot);
        self.taken -= 1;
        Some(record)
    }

    /// The record of a socket that is still there.
    pub(crate) fn get_mut(&mut self, id: SocketId) -> Option<&mut R> {
        self.slots.get_mut(id.slot as usize).filter(|slot| slot.is(id)).map(|slot| &mut slot.record)
    }

    /// How many are taken.
    pub(crate) fn taken(&self) -> u32 {
        self.taken
    }

    /// How many could be.
    pub(crate) fn max(&self) -> u32 {
        self.max
    }

    /// All that are taken.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (SocketId, R)> + '_ {
        (0u32..).zip(&self.slots).filter(|(_, slot)| slot.generation & 1 == 1).map(
            |(index, slot)| (SocketId { slot: index, generation: slot.generation }, slot.record),
        )
    }
}

impl<R> Slot<R> {
    fn is(&self, id: SocketId) -> bool {
        self.generation == id.generation && id.generation & 1 == 1
    }
}

/// Things under way, each at an index that stays its own until it is removed.
#[derive(Debug)]
pub(crate) struct Slab<T> {
    entries: Vec<Entry<T>>,
    free_first: u32,
    len: u32,
}

#[derive(Debug)]
enum Entry<T> {
    Free(u32),
    Taken(T),
}

impl<T> Slab<T> {
    pub(crate) const fn new() -> Self {
        Self { entries: Vec::new(), free_first: NONE, len: 0 }
    }

    pub(crate) fn insert(&mut self, value: T) -> u32 {
        self.len += 1;
        if let Some(entry) = self.entries.get_mut(self.free_first as usize) {
            let index = self.free_first;
            if let Entry::Free(next) = *entry {
                self.free_first = next;
            }
            *entry = Entry::Taken(value);
            return index;
        }
        let index = u32::try_from(self.entries.len()).unwrap_or(NONE);
        assert!(index != NONE, "more operations under way than a slab can name");
        self.entries.push(Entry::Taken(value));
        index
    }

    pub(crate) fn get_mut(&mut self, index: u32) -> Option<&mut T> {
        match self.entries.get_mut(index as usize) {
            Some(Entry::Taken(value)) => Some(value),
            _ => None,
        }
    }

    pub(crate) fn remove(&mut self, index: u32) -> Option<T> {
        let entry = self.entries.get_mut(index as usize)?;
        if matches!(entry, Entry::Free(_)) {
            return None;
        }
        match std::mem::replace(entry, Entry::Free(self.free_first)) {
            Entry::Taken(value) => {
                self.free_first = index;
                self.len -= 1;
                Some(value)
            }
            Entry::Free(_) => None,
        }
    }

    pub(crate) fn len(&self) -> u32 {
        self.len
    }

    pub(crate) fn iter_mut(&mut self) -> impl Iterator<Item = (u32, &mut T)> + '_ {
        (0u32..).zip(&mut self.entries).filter_map(|(index, entry)| match entry {
            Entry::Taken(value) => Some((index, value)),
            Entry::Free(_) => None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_outlived_its_socket_finds_nothing() {
        let mut table = Table::new(2);
        let first = table.take('a').expect("room");
        assert_eq!(table.release(first), Some('a'));
        let second = table.take('b').expect("room");
        assert_eq!(second.slot, first.slot);
        assert_eq!(table.get_mut(first), None);
        assert_eq!(table.release(first), None);
        assert_eq!(table.get_mut(second), Some(&mut 'b'));
        assert_eq!(table.taken(), 1);
    }

    #[test]
    fn a_full_table_gives_nothing_and_serves_again_after_a_release() {
        let mut table = Table::new(3);
        let ids: Vec<_> = (0..3).map(|index| table.take(index).expect("room")).collect();
        assert_eq!(table.take(9), None);
        assert_eq!(table.iter().map(|(id, _)| id).collect::<Vec<_>>(), ids);
        table.release(ids[1]);
        assert_eq!(table.take(7).map(|id| id.slot), Some(1));
        assert_eq!(table.take(9), None);
    }

    #[test]
    fn a_slot_counts_only_odd_generations_as_taken() {
        let mut table = Table::new(1);
        let id = table.take(()).expect("room");
        table.release(id);
        let released = SocketId { slot: 0, generation: id.generation + 1 };
        assert_eq!(table.get_mut(released), None);
    }

    #[test]
    fn a_slab_reuses_what_was_removed() {
        let mut slab = Slab::new();
        let (a, b) = (slab.insert('a'), slab.insert('b'));
        assert_eq!(slab.remove(a), Some('a'));
        assert_eq!(slab.remove(a), None);
        assert_eq!(slab.insert('c'), a);
        assert_eq!((slab.get_mut(b).copied(), slab.len()), (Some('b'), 2));
        assert_eq!(slab.insert('d'), 2);
    }

    #[test]
    fn an_idle_socket_costs_a_shard_at_most_32_bytes_here() {
        assert_eq!(size_of::<Slot<crate::engine::uring::Record>>(), 16);
        assert_eq!(size_of::<Slot<crate::engine::epoll::Record>>(), 16);
    }
}
