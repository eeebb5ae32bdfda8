//! A slab: rows by index, each use of a row with its own generation, so that a reference kept
//! somewhere else never reaches a later tenant.

/// A row and which use of it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Ref {
    /// Index.
    pub slot: u32,
    /// Counts the uses of the row; wraps.
    pub generation: u32,
}

impl Ref {
    /// As one number.
    pub fn to_u64(self) -> u64 {
        u64::from(self.generation) << 32 | u64::from(self.slot)
    }

    /// From [`Ref::to_u64`].
    pub fn from_u64(number: u64) -> Self {
        Self { slot: number as u32, generation: (number >> 32) as u32 }
    }
}

/// The rows.
pub struct Slab<T> {
    rows: Vec<Row<T>>,
    free: Vec<u32>,
}

struct Row<T> {
    generation: u32,
    value: Option<T>,
}

impl<T> Slab<T> {
    /// Empty.
    pub const fn new() -> Self {
        Self { rows: Vec::new(), free: Vec::new() }
    }

    /// Rows in use.
    pub fn len(&self) -> usize {
        self.rows.len() - self.free.len()
    }

    /// Whether none is in use.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Takes a row for what `make` makes of its reference.
    pub fn insert(&mut self, make: impl FnOnce(Ref) -> T) -> Ref {
        let slot = self.free.pop().unwrap_or_else(|| {
            self.rows.push(Row { generation: 0, value: None });
            self.rows.len() as u32 - 1
        });
        let row = &mut self.rows[slot as usize];
        let at = Ref { slot, generation: row.generation };
        row.value = Some(make(at));
        at
    }

    /// What lies there, if it still is the same tenant.
    pub fn get_mut(&mut self, at: Ref) -> Option<&mut T> {
        let row = self.rows.get_mut(at.slot as usize)?;
        if row.generation == at.generation { row.value.as_mut() } else { None }
    }

    /// As [`Slab::get_mut`].
    pub fn get(&self, at: Ref) -> Option<&T> {
        let row = self.rows.get(at.slot as usize)?;
        if row.generation == at.generation { row.value.as_ref() } else { None }
    }

    /// The present tenant of a slot.
    pub fn at_slot(&self, slot: u32) -> Option<Ref> {
        let row = self.rows.get(slot as usize)?;
        row.value.is_some().then_some(Ref { slot, generation: row.generation })
    }

    /// Lifts a value out for a while; its row stays taken. [`Slab::put`] or [`Slab::free`] must
    /// follow.
    pub fn take(&mut self, at: Ref) -> Option<T> {
        let row = self.rows.get_mut(at.slot as usize)?;
        if row.generation == at.generation { row.value.take() } else { None }
    }

    /// Puts a lifted value back.
    pub fn put(&mut self, at: Ref, value: T) {
        let row = &mut self.rows[at.slot as usize];
        assert!(row.generation == at.generation && row.value.is_none(), "put back what was taken");
        row.value = Some(value);
    }

    /// Gives a row up, lifted or not.
    pub fn free(&mut self, at: Ref) -> Option<T> {
        let row = &mut self.rows[at.slot as usize];
        assert!(row.generation == at.generation, "freed once");
        row.generation = row.generation.wrapping_add(1);
        self.free.push(at.slot);
        row.value.take()
    }

    /// All references in use.
    pub fn refs(&self) -> impl Iterator<Item = Ref> + '_ {
        let in_use = |(slot, row): (usize, &Row<T>)| {
            row.value.is_some().then_some(Ref { slot: slot as u32, generation: row.generation })
        };
        self.rows.iter().enumerate().filter_map(in_use)
    }
}

impl<T> Default for Slab<T> {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reference_never_reaches_a_later_tenant() {
        let mut slab = Slab::new();
        let first = slab.insert(|_| 1);
        assert_eq!(slab.free(first), Some(1));
        let second = slab.insert(|_| 2);
        assert_eq!(second.slot, first.slot);
        assert!(slab.get_mut(first).is_none() && slab.take(first).is_none());
        assert_eq!(slab.take(second), Some(2));
        assert_eq!(slab.at_slot(second.slot), None);
        slab.put(second, 3);
        assert_eq!(slab.refs().collect::<Vec<_>>(), [second]);
        assert_eq!(Ref::from_u64(second.to_u64()), second);
    }
}
