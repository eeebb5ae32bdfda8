//! Whether edges keep to their budget of streams that open a second, by their own count.
//!
//! An edge is looked at again and again, and all looks of one process are compared with each other:
//! between two of them at most as many streams may have opened as the budget of that time allows,
//! however the looks themselves were delayed.
#![expect(clippy::disallowed_methods, reason = "real processes are looked at in real time")]

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, Builder, JoinHandle},
    time::{Duration, Instant},
};

use super::shared::Shared;
use crate::process::node::get;

/// The looks; they end with this value.
#[derive(Debug)]
pub struct Budget {
    ending: Arc<AtomicBool>,
    looking: Vec<JoinHandle<u64>>,
}

/// One look.
#[derive(Clone, Copy, Debug)]
struct Look {
    asked_at: Instant,
    answered_at: Instant,
    opened: u64,
}

impl Budget {
    /// Looks at edges with these admin listeners, each of which may open so many streams a second.
    /// What is too much is told to `shared`.
    pub fn start(admins: &[SocketAddr], per_s: u32, shared: &Arc<Shared>) -> Self {
        let ending = Arc::new(AtomicBool::new(false));
        let look = |(at, &admin): (usize, &SocketAddr)| {
            let (ending, shared) = (Arc::clone(&ending), Arc::clone(shared));
            let body = move || {
                let (mut looks, mut most): (Vec<Look>, u64) = (Vec::new(), 0);
                while !ending.load(Ordering::Acquire) {
                    if let Some(look) = Look::take(admin) {
                        if looks.last().is_some_and(|last| last.opened > look.opened) {
                            // Another process.
                            looks.clear();
                        }
                        if let Some(what) = look.exceeds(&looks, per_s) {
                            shared.violation(format!("edge {at}: {what}"));
                        }
                        let second = |past: &&Look| past.is_within_a_second_of(&look);
                        let past =
                            looks.iter().find(second).map_or(look.opened, |past| past.opened);
                        most = most.max(look.opened - past);
                        looks.push(look);
                        let first = looks.len().saturating_sub(LOOKS_MAX);
                        looks.drain(..first);
                    }
                    thread::sleep(Duration::from_millis(LOOK_MS));
                }
                most
            };
            Builder::new().name(format!("budget {at}")).spawn(body).expect("a thread")
        };
        let looking = admins.iter().enumerate().map(look).collect();
        Self { ending, looking }
    }

    /// Ends the looks: the most streams that were seen to open within a second, by edge.
    pub fn end(mut self) -> Vec<u64> {
        self.ending.store(true, Ordering::Release);
        let ended = self.looking.drain(..).map(|looking| looking.join().unwrap_or(u64::MAX));
        ended.collect()
    }
}

impl Drop for Budget {
    fn drop(&mut self) {
        self.ending.store(true, Ordering::Release);
        for looking in self.looking.drain(..) {
            let _ = looking.join();
        }
    }
}

impl Look {
    fn take(admin: SocketAddr) -> Option<Self> {
        let asked_at = Instant::now();
        let reply = get(admin, "/metrics").ok()?;
        let answered_at = Instant::now();
        let text = String::from_utf8_lossy(&reply.body);
        let line = text.lines().find(|line| line.starts_with("pharos_streams_opened_total "))?;
        let opened = line.rsplit(' ').next()?.parse().ok()?;
        Some(Self { asked_at, answered_at, opened })
    }

    fn is_within_a_second_of(&self, later: &Self) -> bool {
        later.answered_at.duration_since(self.asked_at) <= Duration::from_secs(1)
    }

    /// In words, by how much more than its budget allows.
    fn exceeds(&self, before: &[Self], per_s: u32) -> Option<String> {
        before.iter().find_map(|past| {
            let time = self.answered_at.duration_since(past.asked_at);
            let time = time + Duration::from_millis(BURST_MS + BOARD_MS);
            let (opened, most) = (self.opened - past.opened, time.as_secs_f64() * f64::from(per_s));
            let most = most as u64 + SHARDS_MAX;
            (opened > most).then(|| format!("{opened} streams opened where {most} were allowed"))
        })
    }
}

const LOOK_MS: u64 = 50;
/// Some minutes.
const LOOKS_MAX: usize = 4_000;
/// What an edge lets in at once.
const BURST_MS: u64 = 20;
/// What a count on the board may be late by: a shard's own reaches it at its next turn or tick.
const BOARD_MS: u64 = 250;
/// Each shard's bucket may hold one stream more than its share.
const SHARDS_MAX: u64 = 16;
