//! One connection of the load: its socket, what is outstanding on it and the answer under way.
//! Owned by the generator.

use std::collections::VecDeque;

use dataplane::seam::{Mono, SocketId};

use crate::{
    response::{Head, ResponseReader},
    verify::Comparison,
};

#[derive(Debug, Default)]
pub(super) struct Connection {
    /// Set while a descriptor exists, in `Up` and `Closing`.
    pub(super) socket: Option<SocketId>,
    pub(super) life: Life,
    /// When it was asked for.
    pub(super) since: Mono,
    /// Its only answer came; the server ends it. Of a load that reconnects.
    pub(super) answered: bool,
    pub(super) reader: ResponseReader,
    /// Asked and not answered, in order.
    pub(super) outstanding: VecDeque<Outstanding>,
    /// Requests that wait for the send under way.
    pub(super) unsent: Vec<u8>,
    /// The buffer of the last send, for the next one.
    pub(super) spare: Vec<u8>,
    pub(super) sending: bool,
    /// Whether the generator lists this connection as having room.
    pub(super) ready: bool,
    /// Of the answer under way.
    pub(super) head: Option<Head>,
    pub(super) comparison: Comparison,
    pub(super) content_bytes: u64,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) enum Life {
    /// No socket, none asked for.
    #[default]
    Down,
    /// Asked for.
    Opening,
    /// In use.
    Up,
    /// Given up; inputs are ignored until `Closed`.
    Closing,
}

/// A request without an answer yet.
#[derive(Clone, Copy, Debug)]
pub(super) struct Outstanding {
    pub(super) request: u32,
    /// When it was to start.
    pub(super) intended: Mono,
}

impl Connection {
    /// Back to `Down` with nothing left over. Keeps `ready`, which says what the generator's list
    /// holds.
    pub(super) fn reset(&mut self) {
        let ready = self.ready;
        *self = Self { ready, ..Self::default() };
    }
}
