//! The side table: streams that are not caught up, or not writable, or ahead of this edge.
//!
//! ```text
//!               send                       Sent, and nothing more to read
//!   (opened) ──────────▶ Sending ──────────────────────────────▶ in the topic's list
//!                         ▲   │ Sent, cursor ahead of the list           │ a frame was refused
//!                 woken   │   ▼                                          ▼
//!                        Waiting             Blocked ◀───────────────────┘
//!                                               │ writable: reads on from the history
//!                                               └──────────▶ Sending
//! ```
//! A blocked stream keeps a cursor and, if its socket took part of a frame, the rest of that frame.
//! Everything else it reads from its topic's history when it can; what has left the history by then
//! is told as a gap. One that stays blocked too long is closed, and resumes by its cursor.
//!
//! Leaves to others: effects and records (`stream`), the history (`topic`).

use bytes::Bytes;

use super::history::Reader;
use crate::seam::{Mono, SocketId};

/// A stream outside its topic's list.
pub struct Aside {
    /// Its connection.
    pub socket: SocketId,
    /// What it has.
    pub reader: Reader,
    /// The rest of a frame whose beginning went out; comes before anything else.
    pub rest: Bytes,
    /// What it is doing.
    pub state: State,
    /// It was blocked, and has not caught up since.
    pub slow: bool,
    /// How often control said that it has nothing of what this one has beyond us.
    pub ahead: u8,
}

/// What a stream outside the list is doing.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum State {
    /// A send is in flight.
    Sending,
    /// Its socket is full; armed for writable.
    Blocked {
        /// Since when.
        since: Mono,
    },
    /// It has read up to where the list is, and what it already has lies ahead of it.
    Waiting {
        /// Index in its topic's `waiting`.
        at: u32,
    },
    /// Its topics are not told here yet.
    Awaiting,
    /// In the queue of those who read on in the next turn.
    Woken,
}

/// All such streams of a shard.
#[derive(Default)]
pub struct SideTable {
    rows: Vec<Option<Aside>>,
    free: Vec<u32>,
    blocked: usize,
}

impl SideTable {
    /// Streams in it.
    pub fn len(&self) -> usize {
        self.rows.len() - self.free.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Bytes held, without the frames that streams have begun.
    pub fn bytes(&self) -> usize {
        self.rows.capacity() * size_of::<Option<Aside>>() + self.free.capacity() * size_of::<u32>()
    }

    /// Streams whose socket is full.
    pub fn blocked(&self) -> usize {
        self.blocked
    }

    /// Adds a stream; its row.
    pub fn add(&mut self, aside: Aside) -> u32 {
        self.blocked += usize::from(aside.is_blocked());
        match self.free.pop() {
            Some(row) => {
                self.rows[row as usize] = Some(aside);
                row
            }
            None => {
                self.rows.push(Some(aside));
                self.rows.len() as u32 - 1
            }
        }
    }

    /// Removes a stream. An emptied table gives its memory back: a wave of reconnects must not
    /// count against the idle streams for good.
    pub fn remove(&mut self, row: u32) -> Aside {
        let aside = self.rows[row as usize].take().expect("a record's row is taken");
        self.blocked -= usize::from(aside.is_blocked());
        self.free.push(row);
        if self.free.len() == self.rows.len() && self.rows.capacity() > ROWS_KEPT {
            *self = Self::default();
        }
        aside
    }

    /// One of them.
    pub fn get(&self, row: u32) -> &Aside {
        self.rows[row as usize].as_ref().expect("a record's row is taken")
    }

    /// One of them, but for its state.
    pub fn get_mut(&mut self, row: u32) -> &mut Aside {
        self.rows[row as usize].as_mut().expect("a record's row is taken")
    }

    /// All rows that are taken.
    pub fn rows(&self) -> impl Iterator<Item = u32> + use<> {
        let taken = self.rows.iter().enumerate().filter(|(_, aside)| aside.is_some());
        taken.map(|(row, _)| row as u32).collect::<Vec<_>>().into_iter()
    }

    /// Changes what it is doing.
    pub fn set_state(&mut self, row: u32, state: State) {
        let aside = self.get_mut(row);
        let was_blocked = aside.is_blocked();
        aside.state = state;
        let is_blocked = aside.is_blocked();
        self.blocked = self.blocked + usize::from(is_blocked) - usize::from(was_blocked);
    }
}

impl Aside {
    fn is_blocked(&self) -> bool {
        matches!(self.state, State::Blocked { .. })
    }
}

const _: () = assert!(size_of::<Option<Aside>>() <= 88, "the memory contract of a slow stream");
/// Rows that an emptied table may keep.
const ROWS_KEPT: usize = 1024;

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    fn aside(slot: u32, state: State) -> Aside {
        Aside {
            socket: SocketId { slot, generation: 0 },
            reader: Reader { next: 0, cursor: Arc::default() },
            rest: Bytes::new(),
            state,
            slow: false,
            ahead: 0,
        }
    }

    #[test]
    fn blocked_streams_are_counted_through_every_change() {
        let mut table = SideTable::default();
        let row = table.add(aside(1, State::Blocked { since: Mono(0) }));
        let other = table.add(aside(2, State::Sending));
        assert_eq!(table.blocked(), 1);
        table.set_state(row, State::Sending);
        table.set_state(other, State::Blocked { since: Mono(1) });
        table.set_state(other, State::Blocked { since: Mono(2) });
        assert_eq!(table.blocked(), 1);
        assert_eq!(table.remove(other).socket.slot, 2);
        assert_eq!((table.blocked(), table.len()), (0, 1));
    }

    #[test]
    fn an_emptied_table_gives_its_memory_back() {
        let mut table = SideTable::default();
        let rows: Vec<u32> = (0..5000).map(|slot| table.add(aside(slot, State::Sending))).collect();
        for row in rows {
            table.remove(row);
        }
        assert_eq!(table.rows.capacity(), 0);
    }
}
