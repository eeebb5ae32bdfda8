//! What a crowd and whoever drives it tell each other.

use std::sync::{
    Mutex, PoisonError,
    atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering},
};

use super::address::EDGES_MAX;

/// Orders to a crowd, and what it has found. All numbers are of the whole crowd.
#[derive(Debug, Default)]
pub struct Shared {
    /// Streams that may be there.
    pub allowed: AtomicU32,
    /// The crowd is to go home.
    pub ending: AtomicBool,
    /// Newest number of each topic that was published and acknowledged.
    pub published: Vec<AtomicU32>,
    /// Live streams.
    pub live: AtomicU32,
    /// The same by the edge that they are on.
    pub at: [AtomicU32; EDGES_MAX],
    /// Live streams that came to their edge by a redirect.
    pub led: AtomicU32,
    /// Longest time between the loss of a stream and its being live again, ms; whoever wants one of
    /// a stretch of time puts it to 0.
    pub away_ms_max: AtomicU64,
    /// Events of topics that were delivered.
    pub events: AtomicU64,
    /// Gaps that were told.
    pub gaps: AtomicU64,
    /// Those of them that said that the server was put back.
    pub resets: AtomicU64,
    /// Streams that were told to go elsewhere because their edge drains.
    pub moved_by_drain: AtomicU64,
    /// The same because the circle has changed.
    pub moved_by_circle: AtomicU64,
    /// Answers without an event: refused in a way that lets one come back.
    pub refused: AtomicU64,
    /// Connections lost, closed or given up.
    pub lost: AtomicU64,
    /// Streams given up after a silence of one and a half beats.
    pub silent: AtomicU64,
    asked: AtomicU32,
    /// Streams that lack something, told for a question.
    behind: Mutex<Vec<(u32, u32)>>,
    violations: Mutex<Vec<String>>,
}

impl Shared {
    /// For so many topics.
    pub fn new(topics: u16) -> Self {
        let published = (0..topics).map(|_| AtomicU32::new(0)).collect();
        Self { published, ..Self::default() }
    }

    /// Something that must not be.
    pub fn violation(&self, what: String) {
        let mut violations = self.violations.lock().unwrap_or_else(PoisonError::into_inner);
        if violations.len() < VIOLATIONS_MAX {
            violations.push(what);
        }
    }

    /// All that must not have been.
    pub fn violations(&self) -> Vec<String> {
        self.violations.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Asks all parts of the crowd for the number of streams that lack something or are not live.
    pub fn ask(&self) -> u32 {
        self.asked.fetch_add(1, Ordering::AcqRel) + 1
    }

    /// The newest question.
    pub fn asked(&self) -> u32 {
        self.asked.load(Ordering::Acquire)
    }

    /// A part of the crowd answers.
    pub fn answer(&self, part: u16, question: u32, behind: u32) {
        let mut all = self.behind.lock().unwrap_or_else(PoisonError::into_inner);
        let part = usize::from(part);
        if all.len() <= part {
            all.resize(part + 1, (0, 0));
        }
        all[part] = (question, behind);
    }

    /// The sum of the answers, once each of `parts` has answered.
    pub fn behind(&self, question: u32, parts: u16) -> Option<u32> {
        let all = self.behind.lock().unwrap_or_else(PoisonError::into_inner);
        let has = all.len() == usize::from(parts) && all.iter().all(|(of, _)| *of >= question);
        has.then(|| all.iter().map(|(_, behind)| behind).sum())
    }
}

const VIOLATIONS_MAX: usize = 50;
