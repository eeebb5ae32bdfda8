//! Roles as child processes: started, watched, started again after a crash, and never left behind.
//!
//! ```text
//!  spawn ──▶ running ──ends by itself──▶ pause (doubles) ──▶ spawn
//!               │                          │
//!               └──────── stop ────────────┴──▶ SIGTERM, bounded wait, SIGKILL
//! ```
//! Each role has a task of its own, so that a crash of one never touches the other. A child is in a
//! process group of its own: Ctrl-C reaches the supervisor only, which ends the children. A
//! supervisor that is killed takes its children along: each asks the kernel for that at its start
//! ([`die_with_supervisor`]).

use std::{ffi::OsString, process::Stdio};

use rustix::process::{Pid, Signal, getppid, kill_process, set_parent_process_death_signal};
use tokio::{
    process::{Child, Command},
    sync::watch,
    time::{sleep, timeout},
};

use crate::{clock, exit::Failure, limits, output};

/// A role to run as a child: this program with other arguments.
#[derive(Clone, Debug)]
pub(crate) struct Role {
    /// What people call it.
    pub(crate) name: &'static str,
    /// Its arguments, the role's own name first.
    pub(crate) arguments: Vec<OsString>,
}

/// What the supervisor's tasks are told.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Order {
    /// Keep it running; when the count rises, tell it to read its configuration again.
    Run {
        /// Wishes to reload so far.
        reloads: u32,
    },
    /// Drain and end.
    Stop,
    /// End at once.
    Kill,
}

impl Role {
    /// Starts the role.
    pub(crate) fn spawn(&self) -> Result<Child, Failure> {
        let failed = |error| Failure::because(format!("starting {}", self.name), &error);
        Command::new(std::env::current_exe().map_err(failed)?)
            .args(&self.arguments)
            .env(SUPERVISOR, std::process::id().to_string())
            .stdin(Stdio::null())
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .map_err(failed)
    }

    /// Keeps the role running until told otherwise; then ends it.
    pub(crate) async fn keep(self, mut child: Child, mut orders: watch::Receiver<Order>) {
        let mut pause = limits::RESTART_PAUSE_FIRST;
        loop {
            let began = clock::now();
            let how = loop {
                tokio::select! {
                    status = child.wait() => {
                        break status.map_or_else(|error| error.to_string(), |s| s.to_string());
                    }
                    order = next(&mut orders) => match order {
                        Order::Run { .. } => signal(&child, Signal::HUP),
                        Order::Stop | Order::Kill => return self.end(child, orders).await,
                    }
                }
            };
            if began.elapsed() > limits::RESTART_FORGIVEN_AFTER {
                pause = limits::RESTART_PAUSE_FIRST;
            }
            child = loop {
                let ms = pause.as_millis();
                output::talk(&format!("{} ended ({how}); starting it again in {ms} ms", self.name));
                let end = async { while let Order::Run { .. } = next(&mut orders).await {} };
                tokio::select! {
                    () = sleep(pause) => {}
                    () = end => return,
                }
                pause = (pause * 2).min(limits::RESTART_PAUSE_MAX);
                match self.spawn() {
                    Ok(child) => break child,
                    Err(failure) => drop(failure.tell()),
                }
            };
        }
    }

    /// SIGTERM, a bounded wait, SIGKILL.
    pub(crate) async fn end(&self, mut child: Child, mut orders: watch::Receiver<Order>) {
        if *orders.borrow() != Order::Kill {
            signal(&child, Signal::TERM);
            let killed = async { while next(&mut orders).await != Order::Kill {} };
            tokio::select! {
                ended = timeout(limits::STOP_AFTER, child.wait()) => if ended.is_ok() { return },
                () = killed => {}
            }
            output::talk(&format!("{} did not end in time; killing it", self.name));
        }
        let _ = child.kill().await;
    }
}

/// The next order; never, once nobody can give one any more.
async fn next(orders: &mut watch::Receiver<Order>) -> Order {
    if orders.changed().await.is_err() {
        std::future::pending::<()>().await;
    }
    *orders.borrow_and_update()
}

/// Sends a signal to a child that has not been waited for yet.
fn signal(child: &Child, signal: Signal) {
    let pid = child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
    if let Some(pid) = pid {
        // It may have ended in this very moment, which is what is wanted.
        let _ = kill_process(pid, signal);
    }
}

/// In a child: asks the kernel to end this process when its supervisor ends in whatever way. No
/// effect in a process that has no supervisor.
pub(crate) fn die_with_supervisor() -> Result<(), Failure> {
    let Some(supervisor) = std::env::var(SUPERVISOR).ok().and_then(|text| text.parse::<i32>().ok())
    else {
        return Ok(());
    };
    set_parent_process_death_signal(Some(Signal::KILL))
        .map_err(|error| Failure::because("asking to end with the supervisor", &error))?;
    // It may have ended before the kernel knew our wish.
    let parent = getppid().map_or(0, |pid| pid.as_raw_nonzero().get());
    if parent == supervisor { Ok(()) } else { Err(Failure::error("the supervisor is gone")) }
}

/// The variable in which a child finds the process id of its supervisor.
const SUPERVISOR: &str = "PHAROS_SUPERVISOR";
