//! A shard's listeners and when they may accept: the same rule for both engines.
//!
//! A full table must never meet an accepted connection, so room is counted before: accepts under
//! way and sockets taken together stay below the table's maximum, less a share kept for outgoing
//! connections. What is not accepted waits in the kernel's backlog.

use std::{
    net::SocketAddr,
    os::fd::{AsRawFd, RawFd},
};

use socket2::Socket;

use crate::{
    limits::{ACCEPT_PAUSE_MS, CONNECT_SHARE},
    seam::{ListenerId, Mono, Now},
};

/// The listeners of one shard.
pub(crate) struct Listeners {
    each: Vec<Listener>,
    /// Nothing is accepted before, because descriptors or memory had run out.
    paused_until: Option<Mono>,
    stopped: bool,
}

struct Listener {
    socket: Socket,
    addr: SocketAddr,
    on: bool,
}

impl Listeners {
    pub(crate) fn new(sockets: Vec<Socket>, addrs: &[SocketAddr]) -> Self {
        let each = sockets.into_iter().zip(addrs);
        let each = each.map(|(socket, &addr)| Listener { socket, addr, on: true }).collect();
        Self { each, paused_until: None, stopped: false }
    }

    /// How many there are.
    pub(crate) fn count(&self) -> ListenerId {
        ListenerId::try_from(self.each.len()).unwrap_or(ListenerId::MAX)
    }

    pub(crate) fn fd(&self, listener: ListenerId) -> RawFd {
        self.each[usize::from(listener)].socket.as_raw_fd()
    }

    pub(crate) fn socket(&self, listener: ListenerId) -> &Socket {
        &self.each[usize::from(listener)].socket
    }

    pub(crate) fn addr(&self, listener: ListenerId) -> SocketAddr {
        self.each[usize::from(listener)].addr
    }

    /// As the actor asks.
    pub(crate) fn turn(&mut self, listener: ListenerId, on: bool) {
        if let Some(listener) = self.each.get_mut(usize::from(listener)) {
            listener.on = on;
        }
    }

    /// Nothing any more, whatever the actor asks.
    pub(crate) fn stop(&mut self) {
        self.stopped = true;
    }

    /// Whether this one may accept now, room apart.
    pub(crate) fn is_on(&self, listener: ListenerId) -> bool {
        !self.stopped && self.paused_until.is_none() && self.each[usize::from(listener)].on
    }

    /// Accepts nothing for a while.
    pub(crate) fn pause(&mut self, now: Now) {
        self.paused_until = Some(now.mono.after_ms(ACCEPT_PAUSE_MS));
    }

    /// Ends a pause whose time has come; true if it did.
    pub(crate) fn resume(&mut self, now: Now) -> bool {
        let over = self.paused_until.is_some_and(|until| until <= now.mono);
        if over {
            self.paused_until = None;
        }
        over
    }

    /// When a pause ends.
    pub(crate) fn next_deadline(&self) -> Option<Mono> {
        self.paused_until
    }
}

/// Sockets at most taken, accepts under way included, for another accept to start.
pub(crate) fn accept_below(sockets_max: u32) -> u32 {
    sockets_max - sockets_max / CONNECT_SHARE
}

/// Whether an accept that failed so will fail again at once: the process or the system has run out
/// of descriptors or memory.
pub(crate) fn is_exhaustion(errno: i32) -> bool {
    matches!(errno, libc::EMFILE | libc::ENFILE | libc::ENOBUFS | libc::ENOMEM)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_of_the_table_is_kept_for_outgoing_connections() {
        assert_eq!(accept_below(1600), 1500);
        assert_eq!(accept_below(1), 1);
    }

    #[test]
    fn a_pause_ends_when_its_time_has_come() {
        let mut listeners = Listeners::new(Vec::new(), &[]);
        let at = |ms| Now { mono: Mono::default().after_ms(ms), wall_ms: 0 };
        listeners.pause(at(0));
        assert!(!listeners.resume(at(ACCEPT_PAUSE_MS - 1)));
        assert!(listeners.resume(at(ACCEPT_PAUSE_MS)));
        assert_eq!(listeners.next_deadline(), None);
    }
}
