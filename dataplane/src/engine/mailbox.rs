//! Bounded mailboxes between shards, and waking a shard that sleeps.
//!
//! ```text
//!   sender                                   receiver
//!   push to the queue                        asleep = true
//!   ───────── fence ─────────                ───────── fence ─────────
//!   asleep? then ring (eventfd)              anything in the queue? then stay awake
//! ```
//!
//! Whichever fence comes first, one of the two sees the other: either the receiver finds the mail,
//! or the sender finds it asleep. [`SleepFlag`] is that protocol and nothing else; loom checks it.
//! A sender that met a full queue sleeps by the same protocol the other way round ([`RoomFlag`]).

use std::{
    io::{self, Read, Write},
    os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd},
};

use crossbeam_queue::ArrayQueue;

use crate::seam::ShardId;

#[cfg(all(test, loom))]
use loom::sync::atomic::{AtomicBool, Ordering, fence};
#[cfg(not(all(test, loom)))]
use std::sync::atomic::{AtomicBool, Ordering, fence};

/// Whether a thread sleeps, such that no wake-up is lost.
#[derive(Debug)]
pub(crate) struct SleepFlag {
    asleep: AtomicBool,
}

impl SleepFlag {
    pub(crate) fn new() -> Self {
        Self { asleep: AtomicBool::new(false) }
    }

    /// Announces sleep; true if the thread may sleep now. `idle` is asked after the announcement
    /// and must look at everything that others would ring for.
    pub(crate) fn try_sleep(&self, idle: impl FnOnce() -> bool) -> bool {
        self.asleep.store(true, Ordering::Relaxed);
        fence(Ordering::SeqCst);
        if idle() {
            return true;
        }
        self.woke();
        false
    }

    /// The thread is awake, whatever woke it.
    pub(crate) fn woke(&self) {
        self.asleep.store(false, Ordering::Relaxed);
    }

    /// To be asked after something was made visible to the thread: whether the caller has to ring.
    /// True for one caller a sleep.
    pub(crate) fn must_ring(&self) -> bool {
        fence(Ordering::SeqCst);
        // Only the one that rings clears the flag: every clear but the owner's is followed by a
        // ring.
        let (relaxed, asleep) = (Ordering::Relaxed, &self.asleep);
        asleep.load(relaxed) && asleep.compare_exchange(true, false, relaxed, relaxed).is_ok()
    }
}

/// Whether someone met a full queue and waits for room in it.
#[derive(Debug)]
pub(crate) struct RoomFlag {
    wanted: AtomicBool,
}

impl RoomFlag {
    pub(crate) fn new() -> Self {
        Self { wanted: AtomicBool::new(false) }
    }

    /// Asks to be rung for. The queue has to be tried once more after this, before sleeping.
    pub(crate) fn want(&self) {
        self.wanted.store(true, Ordering::Relaxed);
        fence(Ordering::SeqCst);
    }

    /// To be asked after something was taken out: whether all senders have to be rung for.
    pub(crate) fn must_ring(&self) -> bool {
        fence(Ordering::SeqCst);
        self.wanted.load(Ordering::Relaxed) && self.wanted.swap(false, Ordering::Relaxed)
    }
}

/// Wakes one thread: a [`SleepFlag`] and an eventfd.
///
/// The eventfd's counter is never waited for to be zero: a ring's multishot poll and epoll's edge
/// both fire at each ring, so that a wake-up costs no read.
#[derive(Debug)]
#[repr(align(128))] // its own cache lines: every sender looks at it
pub(crate) struct Bell {
    flag: SleepFlag,
    eventfd: std::fs::File,
}

impl Bell {
    pub(crate) fn new() -> io::Result<Self> {
        // SAFETY: takes no memory.
        let fd = unsafe { libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: just opened by us, checked above, and owned by nobody else.
        let owned = unsafe { OwnedFd::from_raw_fd(fd) };
        Ok(Self { flag: SleepFlag::new(), eventfd: owned.into() })
    }

    /// Wakes the thread if it sleeps. To be called after what it shall see was made visible.
    pub(crate) fn ring(&self) {
        if self.flag.must_ring() {
            // Fails only with a counter near 2^64, and then the descriptor is readable anyway.
            let _ = (&self.eventfd).write(&1u64.to_ne_bytes());
        }
    }

    /// As [`SleepFlag::try_sleep`]; the thread then waits for [`Bell::fd`] to fire, among others.
    pub(crate) fn try_sleep(&self, idle: impl FnOnce() -> bool) -> bool {
        self.flag.try_sleep(idle)
    }

    /// As [`SleepFlag::woke`].
    pub(crate) fn woke(&self) {
        self.flag.woke();
    }

    /// What fires.
    pub(crate) fn fd(&self) -> RawFd {
        self.eventfd.as_raw_fd()
    }

    /// Sleeps until rung, and for nothing else, unless `idle` says there is something to do.
    pub(crate) fn sleep(&self, timeout_ms: i32, idle: impl FnOnce() -> bool) {
        // Old rings are taken away first, or the poll would return at once.
        let _ = (&self.eventfd).read(&mut [0; 8]);
        if self.try_sleep(idle) {
            let mut poll = libc::pollfd { fd: self.fd(), events: libc::POLLIN, revents: 0 };
            // SAFETY: `poll` is one valid pollfd and the count says one.
            unsafe { libc::poll(&raw mut poll, 1, timeout_ms) };
        }
        self.woke();
    }
}

/// A shard's bounded mailbox. Any shard puts in, in order; the owner takes out.
#[derive(Debug)]
pub(crate) struct Mailbox<M> {
    queue: ArrayQueue<(ShardId, M)>,
    room: RoomFlag,
}

impl<M> Mailbox<M> {
    pub(crate) fn new(mail_max: usize) -> Self {
        Self { queue: ArrayQueue::new(mail_max.max(1)), room: RoomFlag::new() }
    }

    /// Puts mail in, or gives it back if there is no room.
    pub(crate) fn put(&self, from: ShardId, mail: M) -> Result<(), M> {
        self.queue.push((from, mail)).map_err(|(_, mail)| mail)
    }

    /// Takes the oldest out.
    pub(crate) fn take(&self) -> Option<(ShardId, M)> {
        self.queue.pop()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// True if there is no room; then its owner will ring for us when there is.
    pub(crate) fn is_full_and_will_ring(&self) -> bool {
        if !self.queue.is_full() {
            return false;
        }
        self.room.want();
        self.queue.is_full()
    }

    /// To be asked by the owner after it took mail: whether all senders have to be rung for.
    pub(crate) fn must_ring_senders(&self) -> bool {
        self.room.must_ring()
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[test]
    fn a_full_mailbox_gives_the_mail_back() {
        let mailbox = Mailbox::new(2);
        assert_eq!(mailbox.put(0, 'a'), Ok(()));
        assert!(!mailbox.is_full_and_will_ring());
        assert_eq!(mailbox.put(1, 'b'), Ok(()));
        assert_eq!(mailbox.put(0, 'c'), Err('c'));
        assert!(mailbox.is_full_and_will_ring());
        assert_eq!(mailbox.take(), Some((0, 'a')));
        assert!(mailbox.must_ring_senders());
        assert!(!mailbox.must_ring_senders());
        assert_eq!(mailbox.take(), Some((1, 'b')));
        assert!(mailbox.is_empty());
    }

    #[test]
    fn one_caller_rings_for_one_sleep() {
        let flag = SleepFlag::new();
        assert!(!flag.must_ring());
        assert!(flag.try_sleep(|| true));
        assert!(flag.must_ring());
        assert!(!flag.must_ring());
        assert!(!flag.try_sleep(|| false));
        assert!(!flag.must_ring());
    }

    #[test]
    fn a_ring_ends_the_sleep_and_an_old_one_does_not() {
        let bell = Arc::new(Bell::new().expect("eventfd"));
        assert!(bell.try_sleep(|| true));
        bell.ring(); // left over from before
        let mailbox = Arc::new(Mailbox::new(1));
        let ringer = std::thread::Builder::new()
            .spawn({
                let (bell, mailbox) = (bell.clone(), mailbox.clone());
                move || {
                    assert_eq!(mailbox.put(0, ()), Ok(()));
                    bell.ring();
                }
            })
            .expect("thread");
        while mailbox.is_empty() {
            bell.sleep(-1, || mailbox.is_empty());
        }
        ringer.join().expect("no panic");
    }
}

/// Interleavings, by loom, over a queue that promises no more than release and acquire. The bounds
/// on preemptions keep it to seconds; with one sender unbounded and two bounded by three it passed
/// too, in minutes.
#[cfg(all(test, loom))]
mod loom_tests {
    use loom::{
        sync::{Arc, Condvar, Mutex, atomic::AtomicU32},
        thread,
    };

    use super::*;

    /// A queue and an eventfd, as far as the protocol can tell.
    struct Model {
        /// Mails put in, by sender.
        put: [AtomicU32; 2],
        /// Mails taken out.
        taken: AtomicU32,
        rung: Mutex<bool>,
        ringing: Condvar,
        flag: SleepFlag,
        room: RoomFlag,
    }

    impl Model {
        fn new() -> Arc<Self> {
            Arc::new(Self {
                put: [AtomicU32::new(0), AtomicU32::new(0)],
                taken: AtomicU32::new(0),
                rung: Mutex::new(false),
                ringing: Condvar::new(),
                flag: SleepFlag::new(),
                room: RoomFlag::new(),
            })
        }

        fn ring(&self) {
            *self.rung.lock().unwrap() = true;
            self.ringing.notify_one();
        }

        /// Loom reports a deadlock if nobody ever rings.
        fn wait_for_ring(&self) {
            let mut rung = self.rung.lock().unwrap();
            while !*rung {
                rung = self.ringing.wait(rung).unwrap();
            }
            *rung = false;
        }

        fn count_put(&self) -> u32 {
            self.put.iter().map(|put| put.load(Ordering::Acquire)).sum()
        }
    }

    fn no_wake_up_is_lost(senders: usize, mails_each: u32, preemption_bound: Option<usize>) {
        let mut builder = loom::model::Builder::new();
        builder.preemption_bound = preemption_bound;
        builder.check(move || {
            let model = Model::new();
            let send = |sender: usize| {
                let model = model.clone();
                thread::spawn(move || {
                    for mail in 1..=mails_each {
                        model.put[sender].store(mail, Ordering::Release);
                        if model.flag.must_ring() {
                            model.ring();
                        }
                    }
                })
            };
            let threads: Vec<_> = (0..senders).map(send).collect();
            let mut taken = 0;
            while taken < senders as u32 * mails_each {
                if model.flag.try_sleep(|| model.count_put() == taken) {
                    model.wait_for_ring();
                }
                model.flag.woke();
                taken = model.count_put();
            }
            threads.into_iter().for_each(|thread| thread.join().unwrap());
        });
    }

    #[test]
    fn loom_no_wake_up_is_lost_by_one_sender() {
        no_wake_up_is_lost(1, 2, Some(4));
    }

    #[test]
    fn loom_no_wake_up_is_lost_between_two_senders() {
        no_wake_up_is_lost(2, 1, Some(2));
    }

    #[test]
    fn loom_no_wake_up_for_room_is_lost() {
        loom::model(|| {
            let model = Model::new();
            let receiver = {
                let model = model.clone();
                thread::spawn(move || {
                    model.taken.store(1, Ordering::Release);
                    if model.room.must_ring() && model.flag.must_ring() {
                        model.ring();
                    }
                })
            };
            // One mail lies in a queue with room for one.
            let full = || model.taken.load(Ordering::Acquire) == 0;
            while full() {
                let idle = || {
                    full() && {
                        model.room.want();
                        full()
                    }
                };
                if model.flag.try_sleep(idle) {
                    model.wait_for_ring();
                }
                model.flag.woke();
            }
            receiver.join().unwrap();
        });
    }
}
