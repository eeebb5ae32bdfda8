//! One ring: set-up with the best flags the kernel knows, submission, waiting, completions.
//!
//! | level | since | what it adds |
//! |---|---|---|
//! | base | 6.1 | SINGLE_ISSUER, DEFER_TASKRUN, multishot receive, buffer rings |
//! | no SQ array | 6.6 | submissions are read by ring index |
//! | direct | 6.8 | sockets in the ring's own table; FIXED_FD_INSTALL, socket options by command |
//!
//! Below the base the engine is epoll: without deferred task work a request costs 9.95 µs instead
//! of 6.0 (measured), which is more than epoll's 6.06.

use std::{io, os::fd::AsRawFd, time::Duration};

use io_uring::{IoUring, Probe, cqueue, opcode, squeue, types};
use socket2::Socket;

use crate::{
    engine::{turn::Patience, uring::op::Prepared},
    limits::{RING_COMPLETIONS, RING_ENTRIES},
    seam::Now,
};

/// What the kernel's io_uring can do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Level {
    /// Submissions without the index array.
    pub(crate) no_sq_array: bool,
    /// Sockets are direct descriptors.
    pub(crate) direct: bool,
}

impl Level {
    /// In words for people.
    pub(crate) fn describe(self) -> &'static str {
        match (self.direct, self.no_sq_array) {
            (true, _) => {
                "single issuer, deferred task work, no SQ array, direct descriptors: level of \
                 Linux 6.8"
            }
            (false, true) => {
                "single issuer, deferred task work, no SQ array, plain descriptors: level of \
                 Linux 6.6"
            }
            (false, false) => {
                "single issuer, deferred task work, plain descriptors: level of Linux 6.1"
            }
        }
    }
}

/// A ring, used by one thread only.
pub(crate) struct Ring {
    io: IoUring,
}

impl Ring {
    /// Sets a ring up at this level, on the thread that will use it.
    pub(crate) fn new(level: Level) -> io::Result<Self> {
        let mut builder = IoUring::builder();
        builder
            .dontfork()
            .setup_clamp()
            .setup_cqsize(RING_COMPLETIONS)
            .setup_single_issuer()
            .setup_coop_taskrun()
            .setup_defer_taskrun()
            .setup_taskrun_flag()
            .setup_submit_all();
        if level.no_sq_array {
            builder.setup_no_sqarray();
        }
        builder.build(RING_ENTRIES).map(|io| Self { io })
    }

    /// Queues an operation; hands the queue to the kernel first if it is full.
    pub(crate) fn push(&mut self, operation: &Prepared) {
        if self.io.submission().is_full() {
            self.submit();
        }
        let mut queue = self.io.submission();
        // SAFETY: `Prepared` says that all memory it names stays valid until the operation's last
        // completion; its makers in `op` state who keeps that.
        let pushed = unsafe { queue.push(operation.entry()) };
        assert!(pushed.is_ok(), "the submission queue was just emptied");
    }

    /// Hands all queued operations to the kernel.
    pub(crate) fn submit(&mut self) {
        while !self.io.submission().is_empty() {
            match self.io.submit() {
                Ok(_) => {}
                Err(error) if is_passing(&error) => {}
                Err(error) => panic!("io_uring_enter: {error}"),
            }
        }
    }

    /// Hands all queued operations to the kernel and waits for a completion as long as `patience`.
    pub(crate) fn wait(&mut self, now: Now, patience: Patience) {
        let mut args = types::SubmitArgs::new();
        let timespec;
        let want = match patience {
            Patience::None => 0,
            Patience::Endless => 1,
            Patience::Until(at) => {
                timespec = Duration::from_nanos(at.since_ns(now.mono)).into();
                args = args.timespec(&timespec);
                1
            }
        };
        if want == 0 && self.has_nothing_for_kernel() {
            return;
        }
        match self.io.submitter().submit_with_args(want, &args) {
            Ok(_) => {}
            Err(error) if is_passing(&error) => {}
            Err(error) => panic!("io_uring_enter: {error}"),
        }
        self.submit();
    }

    fn has_nothing_for_kernel(&mut self) -> bool {
        let queue = self.io.submission();
        queue.is_empty() && !queue.taskrun() && !queue.cq_overflow()
    }

    /// Whether completions wait in the ring.
    pub(crate) fn has_completions(&mut self) -> bool {
        !self.io.completion().is_empty()
    }

    /// Hands all queued operations to the kernel and moves all completions to the end of `batch`,
    /// also those that had no room in the ring: what completes in its submission is there.
    pub(crate) fn submit_and_reap(&mut self, batch: &mut Vec<cqueue::Entry>) {
        self.submit();
        loop {
            self.reap(batch, usize::MAX);
            if !self.io.submission().cq_overflow() {
                return;
            }
            match self.io.submit() {
                Ok(_) => {}
                Err(error) if is_passing(&error) => {}
                Err(error) => panic!("io_uring_enter: {error}"),
            }
        }
    }

    /// Moves completions to the end of `batch`, until it holds `max`.
    pub(crate) fn reap(&mut self, batch: &mut Vec<cqueue::Entry>, max: usize) {
        let room = max.saturating_sub(batch.len());
        batch.extend(self.io.completion().take(room));
    }

    /// Makes the table for direct descriptors, empty.
    ///
    /// # Errors
    /// `EMFILE` if it is larger than RLIMIT_NOFILE, although it holds no descriptor of the process.
    pub(crate) fn make_table(&self, slots: u32) -> io::Result<()> {
        self.io.submitter().register_files_sparse(slots)
    }

    /// Puts a socket into an empty slot of the table. The caller's descriptor may then be closed.
    pub(crate) fn move_in(&self, slot: u32, socket: &Socket) -> io::Result<()> {
        self.io.submitter().register_files_update(slot, &[socket.as_raw_fd()]).map(drop)
    }

    /// For registrations.
    pub(crate) fn submitter(&self) -> io_uring::Submitter<'_> {
        self.io.submitter()
    }
}

/// Finds out what io_uring can do here, on a thread of its own: the end of a ring interrupts the
/// system calls of the thread that made it (measured: EINTR without any signal), which is not for
/// our caller to know.
///
/// # Errors
/// In words for people: what the kernel said, and what to do about it.
pub(crate) fn probe() -> Result<Level, String> {
    let thread = std::thread::Builder::new().name("pharos-probe".into()).spawn(probe_here);
    let thread = thread.map_err(|error| format!("no thread to ask with: {error}"))?;
    thread.join().unwrap_or_else(|_| Err("the probe panicked".into()))
}

fn probe_here() -> Result<Level, String> {
    let levels = [true, false].map(|no_sq_array| Level { no_sq_array, direct: false });
    let mut last = None;
    for level in levels {
        match Ring::new(level) {
            Ok(ring) => return check_operations(&ring).map(|direct| Level { direct, ..level }),
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => last = Some(error),
            Err(error) => return Err(explain(&error)),
        }
    }
    Err(last.map_or_else(|| "no level tried".into(), |error| explain(&error)))
}

/// Whether the kernel knows what an engine needs; if so, whether that for direct descriptors too.
fn check_operations(ring: &Ring) -> Result<bool, String> {
    if !ring.io.params().is_feature_ext_arg() || !ring.io.params().is_feature_skip_cqe_on_success()
    {
        return Err("the kernel is older than Linux 6.1".into());
    }
    let mut known = Probe::new();
    ring.submitter().register_probe(&mut known).map_err(|error| explain(&error))?;
    let needed = [
        ("accept", opcode::Accept::CODE),
        ("connect", opcode::Connect::CODE),
        ("receive", opcode::Recv::CODE),
        ("send", opcode::Send::CODE),
        ("sendmsg", opcode::SendMsg::CODE),
        ("poll", opcode::PollAdd::CODE),
        ("cancel", opcode::AsyncCancel::CODE),
    ];
    match needed.iter().find(|(_, code)| !known.is_supported(*code)) {
        Some((name, _)) => Err(format!("the kernel does not know the operation {name}")),
        None => Ok(known.is_supported(opcode::FixedFdInstall::CODE) && ring.make_table(1).is_ok()),
    }
}

/// The set-up's errno in words, with a remedy.
fn explain(error: &io::Error) -> String {
    let disabled = std::fs::read_to_string("/proc/sys/kernel/io_uring_disabled")
        .map_or(0, |text| text.trim().parse().unwrap_or(0));
    explain_errno(error.raw_os_error().unwrap_or(0), disabled)
}

fn explain_errno(errno: i32, disabled: u8) -> String {
    match errno {
        libc::EPERM if disabled == 2 => "EPERM: switched off for all processes; \
             set sysctl kernel.io_uring_disabled=0"
            .into(),
        libc::EPERM if disabled == 1 => "EPERM: switched off for processes without CAP_SYS_ADMIN \
             and outside kernel.io_uring_group; set sysctl kernel.io_uring_disabled=0 or join the \
             group"
            .into(),
        libc::EPERM | libc::EACCES => "EPERM: forbidden by a seccomp filter or security module, \
             as containers often have; allow io_uring_setup, io_uring_enter and io_uring_register"
            .into(),
        libc::ENOSYS => "ENOSYS: the kernel was built without io_uring, or a seccomp filter hides \
             it; a kernel with CONFIG_IO_URING is needed"
            .into(),
        libc::EINVAL => "EINVAL: the kernel is older than Linux 6.1 and lacks deferred task work; \
             a newer kernel is needed"
            .into(),
        libc::ENOMEM => "ENOMEM: no memory for a ring; raise RLIMIT_MEMLOCK (LimitMEMLOCK= in the \
             unit) or the container's memory limit"
            .into(),
        libc::EMFILE | libc::ENFILE => "EMFILE: no descriptor left for a ring; raise \
             RLIMIT_NOFILE (LimitNOFILE= in the unit)"
            .into(),
        errno => format!("{}", io::Error::from_raw_os_error(errno)),
    }
}

/// Errors that say "again": a signal, the end of patience, completions to be reaped first, memory
/// short for a moment.
fn is_passing(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(libc::EINTR | libc::ETIME | libc::EBUSY | libc::EAGAIN | libc::ENOMEM)
    )
}

/// The flag that makes an operation silent on success.
pub(crate) const SILENT: squeue::Flags = squeue::Flags::SKIP_SUCCESS;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_refusal_of_the_kernel_names_its_errno_and_a_remedy() {
        let check = |errno, disabled, parts: [&str; 2]| {
            let text = explain_errno(errno, disabled);
            assert!(parts.iter().all(|part| text.contains(part)), "{text}");
        };
        check(libc::EPERM, 2, ["EPERM", "kernel.io_uring_disabled=0"]);
        check(libc::EPERM, 1, ["EPERM", "group"]);
        check(libc::EPERM, 0, ["seccomp", "io_uring_setup"]);
        check(libc::ENOSYS, 0, ["ENOSYS", "CONFIG_IO_URING"]);
        check(libc::EINVAL, 0, ["EINVAL", "6.1"]);
        check(libc::ENOMEM, 0, ["ENOMEM", "MEMLOCK"]);
        check(libc::EMFILE, 0, ["EMFILE", "NOFILE"]);
    }
}
