//! What an engine counts, one set a shard. Written by the shard's thread only, read by any.

use std::sync::atomic::{AtomicU64, Ordering};

/// A number that one thread writes and others read.
#[derive(Debug, Default)]
pub(crate) struct Counter(AtomicU64);

impl Counter {
    pub(crate) fn add(&self, count: u64) {
        // One writer: no locked instruction needed.
        self.0.store(self.0.load(Ordering::Relaxed).wrapping_add(count), Ordering::Relaxed);
    }

    pub(crate) fn set(&self, value: u64) {
        self.0.store(value, Ordering::Relaxed);
    }

    fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

macro_rules! counters {
    ($($(#[doc = $doc:literal])+ $name:ident,)+) => {
        #[derive(Debug, Default)]
        pub(crate) struct Counters { $($(#[doc = $doc])+ pub(crate) $name: Counter,)+ }

        /// The counters of one shard's engine at one moment.
        #[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
        pub struct Stats { $($(#[doc = $doc])+ pub $name: u64,)+ }

        impl Counters {
            pub(crate) fn read(&self) -> Stats {
                Stats { $($name: self.$name.get(),)+ }
            }
        }
    };
}

counters! {
    /// Turns taken.
    turns,
    /// Sockets in the table now.
    sockets,
    /// Connections accepted.
    accepted,
    /// Times accepting was paused because descriptors or memory had run out.
    accept_pauses,
    /// Outgoing connections asked for.
    connects,
    /// Sends that the kernel took in more than one piece.
    sends_continued,
    /// Targets of fan-outs.
    fanout_sends,
    /// Of these, those that did not take the whole frame.
    fanout_failures,
    /// Times a receive met no free buffer.
    buffers_exhausted,
    /// Receive buffers in the ring now.
    buffers,
    /// Mails received.
    mails,
    /// Mails that met a full mailbox and were kept.
    mails_kept,
    /// Helper operations refused because too many were under way.
    helper_refusals,
}
