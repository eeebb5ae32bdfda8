//! What a holding looks like from outside while it goes on: a row of looks at it, for plots, and
//! the server's CPU time over a stretch of it.

use std::{
    sync::atomic::Ordering,
    time::{Duration, Instant},
};

use serde::Serialize;

use crate::{
    clock,
    failure::Failure,
    process::{CpuMeter, rss_bytes},
    subscriber::shared::Shared,
};

/// One look.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Sample {
    /// Since the first connect.
    pub(crate) at_s: f64,
    pub(crate) open: u32,
    pub(crate) deliveries: u64,
    pub(crate) beats: u64,
    /// CPU time of the server so far, if its process was named.
    pub(crate) cpu_s: Option<f64>,
    /// Its resident memory.
    pub(crate) rss_bytes: Option<u64>,
}

/// A time when something began.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Mark {
    pub(crate) at_s: f64,
    pub(crate) what: &'static str,
}

/// Looks at a run, and shows it.
pub(super) struct Watch<'a> {
    pub(super) shared: &'a Shared,
    show: &'a mut dyn FnMut(u32, u64),
    server: Option<u32>,
    meter: Option<CpuMeter>,
    begin: Instant,
    next: Duration,
    every: Duration,
    pub(super) samples: Vec<Sample>,
    pub(super) marks: Vec<Mark>,
}

impl<'a> Watch<'a> {
    pub(super) fn new(
        shared: &'a Shared,
        server: Option<u32>,
        show: &'a mut dyn FnMut(u32, u64),
    ) -> Self {
        Self {
            shared,
            show,
            server,
            meter: server.map(CpuMeter::new),
            begin: clock::now(),
            next: Duration::ZERO,
            every: SAMPLE_EVERY,
            samples: Vec::new(),
            marks: Vec::new(),
        }
    }

    /// Shows how it stands, and keeps a look at it when it is time for one.
    pub(super) fn look(&mut self) {
        let open = self.shared.open.load(Ordering::Acquire);
        let deliveries = self.shared.deliveries.load(Ordering::Relaxed);
        (self.show)(open, deliveries);
        let at = self.begin.elapsed();
        if at < self.next {
            return;
        }
        if self.samples.len() >= SAMPLES_MAX {
            // Half as many, and from now on half as often.
            let mut keep = false;
            self.samples.retain(|_| {
                keep = !keep;
                keep
            });
            self.every *= 2;
        }
        self.next = at + self.every;
        self.samples.push(Sample {
            at_s: at.as_secs_f64(),
            open,
            deliveries,
            beats: self.shared.beats.load(Ordering::Relaxed),
            cpu_s: self.meter.as_mut().and_then(|meter| Some(meter.read_ns().ok()? as f64 / 1e9)),
            rss_bytes: self.server.and_then(|pid| rss_bytes(pid).ok()),
        });
    }

    pub(super) fn mark(&mut self, what: &'static str) {
        self.next = Duration::ZERO;
        self.look();
        self.marks.push(Mark { at_s: self.begin.elapsed().as_secs_f64(), what });
    }

    /// The server's CPU time so far.
    ///
    /// # Errors
    /// Its process is gone.
    pub(super) fn cpu_ns(&mut self) -> Result<Option<u64>, Failure> {
        let gone = |error| Failure::error("read the server's CPU time").because(error);
        self.meter.as_mut().map(CpuMeter::read_ns).transpose().map_err(gone)
    }
}

/// A look at /proc costs a millisecond or more.
const SAMPLE_EVERY: Duration = Duration::from_millis(500);
const SAMPLES_MAX: usize = 4_096;
