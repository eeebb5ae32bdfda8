//! Sends under way on epoll: tried at once, and what is left when the socket has room again.

use std::{
    io::{self, IoSlice},
    os::fd::RawFd,
};

use crate::{
    engine::{socket, table::Slab},
    limits::SEGMENTS_MAX,
    seam::Payload,
};

/// All sends of a shard that wait for room.
pub(crate) struct Sends {
    slab: Slab<Pending>,
}

struct Pending {
    payload: Payload,
    sent: usize,
}

/// What became of an attempt.
pub(crate) enum Progress {
    /// The socket is full; the send is kept at this index.
    Waits(u32),
    /// It is over.
    Over(Payload, Result<(), io::ErrorKind>),
}

impl Sends {
    pub(crate) fn new() -> Self {
        Self { slab: Slab::new() }
    }

    /// How many wait.
    pub(crate) fn len(&self) -> u32 {
        self.slab.len()
    }

    /// Sends what the socket takes now.
    pub(crate) fn start(&mut self, fd: RawFd, payload: Payload) -> Progress {
        assert!(payload.segments().len() <= SEGMENTS_MAX, "payloads keep to SEGMENTS_MAX");
        let mut pending = Pending { payload, sent: 0 };
        match pending.advance(fd) {
            Err(io::ErrorKind::WouldBlock) => Progress::Waits(self.slab.insert(pending)),
            result => Progress::Over(pending.payload, result),
        }
    }

    /// Goes on with a kept send.
    pub(crate) fn advance(&mut self, index: u32, fd: RawFd) -> Progress {
        let pending = self.slab.get_mut(index).expect("a socket's send is under way");
        match pending.advance(fd) {
            Err(io::ErrorKind::WouldBlock) => Progress::Waits(index),
            result => Progress::Over(self.abandon(index), result),
        }
    }

    /// Ends a kept send.
    pub(crate) fn abandon(&mut self, index: u32) -> Payload {
        self.slab.remove(index).expect("a socket's send is under way").payload
    }
}

impl Pending {
    fn advance(&mut self, fd: RawFd) -> Result<(), io::ErrorKind> {
        let len = self.payload.len();
        while self.sent < len {
            let outcome = match self.payload.segments() {
                [segment] => socket::send(fd, &segment.as_slice()[self.sent..]),
                _ => self.send_message(fd),
            };
            match outcome {
                Ok(bytes) => self.sent += bytes,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error.kind()),
            }
        }
        Ok(())
    }

    fn send_message(&self, fd: RawFd) -> io::Result<usize> {
        let mut slices = [IoSlice::new(&[]); SEGMENTS_MAX];
        let mut skip = self.sent;
        let mut count = 0;
        for segment in self.payload.segments() {
            let bytes = segment.as_slice();
            let skipped = skip.min(bytes.len());
            skip -= skipped;
            if skipped < bytes.len() {
                slices[count] = IoSlice::new(&bytes[skipped..]);
                count += 1;
            }
        }
        socket::send_message(fd, &slices[..count])
    }
}
