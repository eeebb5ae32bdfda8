//! Drain: finish what is under way, move streams elsewhere, then stop; or undo it.
//!
//! ```text
//!   serving ──TERM──▶ draining, then stop ──nothing left, or deadline──▶ Stop
//!      ▲ └────POST /v1/drain──▶ draining ─┐
//!      └────────────────────DELETE────────┘
//! ```
//! While draining: `/readyz` says 503, no listener but the admin one accepts, every answer says
//! `Connection: close`, idle connections close, streams are closed at an even pace with a jittered
//! `retry:`, so that they come back elsewhere as a trickle.

use super::{Shard, observe::Metric};
use crate::seam::{Mono, Now};

/// A drain under way.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Drain {
    /// When whatever is left is cut off.
    deadline: Mono,
    /// The process ends afterwards.
    then_stop: bool,
    stopped: bool,
}

impl Drain {
    /// When to look again.
    pub fn next_deadline(&self) -> Option<Mono> {
        (self.then_stop && !self.stopped).then_some(self.deadline)
    }
}

impl Shard {
    /// Begins a drain, or makes one that is under way end with the process.
    pub(super) fn drain(&mut self, now: Now, then_stop: bool) {
        let over_ms = self.edge.timeouts.drain_ms;
        if let Some(drain) = &mut self.drain {
            if then_stop && !drain.then_stop {
                drain.then_stop = true;
                drain.deadline = now.mono.after_ms(over_ms);
            }
            return;
        }
        self.drain =
            Some(Drain { deadline: now.mono.after_ms(over_ms), then_stop, stopped: false });
        self.edge.draining = true;
        self.edge.observe.set(Metric::Draining, 1);
        self.accept(false);
        // Streams get most of the time, what is left is for requests that just began.
        let streams_ms = over_ms / 4 * 3;
        self.edge.streams.drain(now, true, streams_ms, &mut self.edge.out);
        self.edge.origins.close_idle(&mut self.edge.out);
        let conns: Vec<_> = self.conns.refs().collect();
        for at in conns {
            self.with_conn(at, |conn, edge| conn.drain(edge, now));
        }
    }

    /// Serves again. A process that was told to end cannot be called back.
    pub(super) fn undo_drain(&mut self, now: Now) {
        if self.drain.is_none_or(|drain| drain.then_stop) {
            return;
        }
        self.drain = None;
        self.edge.draining = false;
        self.edge.observe.set(Metric::Draining, 0);
        self.accept(true);
        self.edge.streams.drain(now, false, 0, &mut self.edge.out);
    }

    /// Stops when nothing is left, or the time is over.
    pub(super) fn look_at_drain(&mut self, now: Now) {
        let left = self.visitor_count() + self.edge.streams.count() as usize;
        let Some(drain) = &mut self.drain else { return };
        if drain.then_stop && !drain.stopped && (left == 0 || now.mono >= drain.deadline) {
            drain.stopped = true;
            self.edge.flush_access();
            self.edge.out.stop();
        }
    }

    fn accept(&mut self, on: bool) {
        for listener in 0..self.edge.settings.listener_count {
            if Some(listener) != self.edge.settings.admin_listener {
                self.edge.out.accept(listener, on);
            }
        }
    }
}
