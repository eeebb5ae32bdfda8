//! What the ring engine knows of one socket: what is wanted of it, and what is armed for it. Pure.
//!
//! ```text
//!   connecting ─▶ open ─ Close::Graceful ─▶ closing ─ last send over, FIN ─▶ draining ─┐
//!                   └──── Close::Abort ────────┴─── end of stream, error, time ────────┴▶ ending
//!   Close::Finished: closing ─ last send over ─▶ ending
//!   ending: all that is armed is cancelled; after its last completion the descriptor is closed.
//! ```
//!
//! Wanted and armed differ while an operation or its cancel is under way; after each change
//! [`Record::next_step`] says what brings them together. Nothing is armed twice: a new receive or
//! poll waits for the last completion of the old one.

use crate::engine::uring::op::Handle;

/// One socket, 12 bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Record {
    pub(crate) handle: Handle,
    /// Index of the send or connect under way, if `SENDING` or `CONNECTING`.
    pub(crate) op: u32,
    flags: u32,
}

/// The actor wants bytes.
pub(crate) const RECEIVE_WANTED: u32 = 1;
/// The actor wants to be told of a hang-up.
pub(crate) const HANG_UP_WANTED: u32 = 1 << 1;
/// The actor wants to be told once of writability.
pub(crate) const WRITABLE_WANTED: u32 = 1 << 2;
/// A multishot receive is under way.
pub(crate) const RECEIVE_ARMED: u32 = 1 << 3;
/// Its cancel was pushed.
pub(crate) const RECEIVE_CANCELLED: u32 = 1 << 4;
/// A poll for a hang-up is under way.
pub(crate) const HANG_UP_ARMED: u32 = 1 << 5;
/// A poll for writability is under way; with `HANG_UP_ARMED`, the same one.
pub(crate) const WRITABLE_ARMED: u32 = 1 << 6;
/// Its cancel was pushed.
pub(crate) const POLL_CANCELLED: u32 = 1 << 7;
/// A send is under way.
pub(crate) const SENDING: u32 = 1 << 8;
/// Its cancel was pushed.
pub(crate) const SEND_CANCELLED: u32 = 1 << 9;
/// A connect is under way; the actor does not know the socket yet.
pub(crate) const CONNECTING: u32 = 1 << 10;
/// Its cancel was pushed.
pub(crate) const CONNECT_CANCELLED: u32 = 1 << 11;
/// The peer will send no more.
pub(crate) const EOF: u32 = 1 << 12;
/// The connection is gone and the actor was told.
pub(crate) const DEAD: u32 = 1 << 13;
/// A fan-out failed here: nothing more goes out until the actor sends.
pub(crate) const BLOCKED: u32 = 1 << 14;
/// Closed gracefully by the actor: what comes is discarded.
pub(crate) const CLOSING: u32 = 1 << 15;
/// FIN was sent.
pub(crate) const DRAINING: u32 = 1 << 16;
/// Everything is to be cancelled.
pub(crate) const ENDING: u32 = 1 << 17;
/// Nothing is under way any more; to be told as closed.
pub(crate) const GONE: u32 = 1 << 18;
/// A descriptor to say FIN with is under way.
pub(crate) const INSTALLING: u32 = 1 << 19;
/// The slot is kept for an accept under way; there is no socket yet.
pub(crate) const ACCEPTING: u32 = 1 << 20;
/// The actor never heard of this socket, so it is not told of its end either.
pub(crate) const UNTOLD: u32 = 1 << 21;

/// Closed by the actor as finished: nothing more is received.
pub(crate) const FINISHED: u32 = 1 << 22;

const POLL_ARMED: u32 = HANG_UP_ARMED | WRITABLE_ARMED;
const UNDER_WAY: u32 = RECEIVE_ARMED | POLL_ARMED | SENDING | CONNECTING | INSTALLING;

/// What to do next for a socket.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Step {
    ArmReceive,
    CancelReceive,
    /// For these events of poll(2).
    ArmPoll(u32),
    CancelPoll,
    CancelSend,
    CancelConnect,
    /// Nothing is under way: close the descriptor.
    Release,
}

impl Record {
    pub(crate) fn new(handle: Handle) -> Self {
        Self { handle, op: 0, flags: 0 }
    }

    /// A slot for what an accept will bring.
    pub(crate) fn accepting() -> Self {
        Self { handle: Handle::NONE, op: 0, flags: ACCEPTING }
    }

    /// A socket whose connect is under way.
    pub(crate) fn connecting(handle: Handle, op: u32) -> Self {
        Self { handle, op, flags: CONNECTING | UNTOLD }
    }

    /// Any of these.
    pub(crate) fn has(&self, flags: u32) -> bool {
        self.flags & flags != 0
    }

    pub(crate) fn set(&mut self, flags: u32) {
        self.flags |= flags;
    }

    pub(crate) fn clear(&mut self, flags: u32) {
        self.flags &= !flags;
    }

    pub(crate) fn put(&mut self, flags: u32, on: bool) {
        if on { self.set(flags) } else { self.clear(flags) }
    }

    /// The step that brings armed nearer to wanted, marked as taken; `None` if there is none now.
    pub(crate) fn next_step(&mut self) -> Option<Step> {
        self.receive_step().or_else(|| self.poll_step()).or_else(|| self.end_step())
    }

    fn receive_step(&mut self) -> Option<Step> {
        let wanted =
            self.has(RECEIVE_WANTED | CLOSING) && !self.has(ENDING | DEAD | EOF | FINISHED);
        if wanted && !self.has(RECEIVE_ARMED) {
            self.set(RECEIVE_ARMED);
            Some(Step::ArmReceive)
        } else if !wanted && self.has(RECEIVE_ARMED) && !self.has(RECEIVE_CANCELLED) {
            self.set(RECEIVE_CANCELLED);
            Some(Step::CancelReceive)
        } else {
            None
        }
    }

    fn poll_step(&mut self) -> Option<Step> {
        let wanted = self.poll_wanted();
        let armed = self.flags & POLL_ARMED;
        if armed == wanted {
            None
        } else if armed == 0 {
            self.set(wanted);
            Some(Step::ArmPoll(self.poll_events(wanted)))
        } else if self.has(POLL_CANCELLED) {
            None
        } else {
            self.set(POLL_CANCELLED);
            Some(Step::CancelPoll)
        }
    }

    /// As `*_ARMED` flags.
    fn poll_wanted(&self) -> u32 {
        if self.has(ENDING | DEAD | CLOSING) {
            return 0;
        }
        let hang_up = if self.has(HANG_UP_WANTED) { HANG_UP_ARMED } else { 0 };
        let writable = if self.has(WRITABLE_WANTED) { WRITABLE_ARMED } else { 0 };
        hang_up | writable
    }

    /// Errors and full hang-ups are told always; the peer's FIN only if that is news.
    fn poll_events(&self, wanted: u32) -> u32 {
        let fin = wanted & HANG_UP_ARMED != 0 && !self.has(EOF);
        let fin = if fin { libc::POLLRDHUP as u32 } else { 0 };
        let room = if wanted & WRITABLE_ARMED != 0 { libc::POLLOUT as u32 } else { 0 };
        fin | room
    }

    fn end_step(&mut self) -> Option<Step> {
        if !self.has(ENDING) || self.has(GONE) {
            return None;
        }
        if self.has(SENDING) && !self.has(SEND_CANCELLED) {
            self.set(SEND_CANCELLED);
            return Some(Step::CancelSend);
        }
        if self.has(CONNECTING) && !self.has(CONNECT_CANCELLED) {
            self.set(CONNECT_CANCELLED);
            return Some(Step::CancelConnect);
        }
        if self.has(UNDER_WAY) {
            return None;
        }
        self.set(GONE);
        Some(Step::Release)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn steps(record: &mut Record) -> Vec<Step> {
        std::iter::from_fn(|| record.next_step()).collect()
    }

    #[test]
    fn nothing_is_armed_that_nobody_asked_for() {
        assert_eq!(steps(&mut Record::new(Handle::plain(3))), []);
    }

    #[test]
    fn a_receive_asked_for_again_waits_for_the_end_of_the_old_one() {
        let mut record = Record::new(Handle::plain(3));
        record.set(RECEIVE_WANTED);
        assert_eq!(steps(&mut record), [Step::ArmReceive]);
        record.clear(RECEIVE_WANTED);
        assert_eq!(steps(&mut record), [Step::CancelReceive]);
        record.set(RECEIVE_WANTED);
        assert_eq!(steps(&mut record), []);
        record.clear(RECEIVE_ARMED | RECEIVE_CANCELLED);
        assert_eq!(steps(&mut record), [Step::ArmReceive]);
    }

    #[test]
    fn a_changed_watch_replaces_the_poll() {
        let mut record = Record::new(Handle::plain(3));
        record.set(HANG_UP_WANTED);
        assert_eq!(steps(&mut record), [Step::ArmPoll(libc::POLLRDHUP as u32)]);
        record.set(WRITABLE_WANTED);
        assert_eq!(steps(&mut record), [Step::CancelPoll]);
        record.clear(HANG_UP_ARMED | POLL_CANCELLED);
        let both = (libc::POLLRDHUP | libc::POLLOUT) as u32;
        assert_eq!(steps(&mut record), [Step::ArmPoll(both)]);
    }

    #[test]
    fn a_half_closed_peer_is_watched_for_the_other_half_only() {
        let mut record = Record::new(Handle::plain(3));
        record.set(HANG_UP_WANTED | EOF);
        assert_eq!(steps(&mut record), [Step::ArmPoll(0)]);
        assert_eq!(steps(&mut record), []);
    }

    #[test]
    fn a_finished_socket_receives_no_more_and_a_closing_one_goes_on_to_the_end() {
        for (how, expected) in [(0, vec![]), (FINISHED, vec![Step::CancelReceive])] {
            let mut record = Record::new(Handle::plain(3));
            record.set(RECEIVE_WANTED | RECEIVE_ARMED);
            record.set(CLOSING | how);
            assert_eq!(steps(&mut record), expected);
        }
    }

    #[test]
    fn an_ending_socket_is_released_after_its_last_operation_and_once() {
        let mut record = Record::new(Handle::plain(3));
        record.set(RECEIVE_WANTED | HANG_UP_WANTED | SENDING);
        assert_eq!(steps(&mut record).len(), 2);
        record.set(ENDING);
        let cancels = [Step::CancelReceive, Step::CancelPoll, Step::CancelSend];
        assert_eq!(steps(&mut record), cancels);
        record.clear(RECEIVE_ARMED | HANG_UP_ARMED);
        assert_eq!(steps(&mut record), []);
        record.clear(SENDING);
        assert_eq!(steps(&mut record), [Step::Release]);
        assert_eq!(steps(&mut record), []);
    }
}
