//! Who has applied a purge: read from the positions that edges report. An edge that never followed
//! the feed knows no site and has nothing of one stored: nobody waits for it.

use std::collections::{HashMap, HashSet};

use super::Refusal;
use crate::{
    limits,
    log::dot::StoreId,
    model::edge::{Edge, Report},
    store::sqlite::{Reader, read::PurgeRow},
};

/// What control has heard of edges.
#[derive(Clone, Debug, Default)]
pub struct Heard {
    /// What they last reported, by edge id.
    pub reports: HashMap<String, Report>,
    /// Those that have opened a feed since control's start.
    pub followed: HashSet<String>,
}

/// A purge and what each enrolled edge has reported.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Receipt {
    /// The purge.
    pub purge: PurgeRow,
    /// Every enrolled edge.
    pub edges: Vec<Part>,
}

/// One edge's part of a receipt.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Part {
    /// The edge.
    pub edge: Edge,
    /// Whether all its shards have applied the purge.
    pub applied: bool,
    /// What it last reported.
    pub report: Option<Report>,
    /// Whether it has not been heard of for long.
    pub away: bool,
    /// Whether it was never heard of: nothing is stored there.
    pub never_connected: bool,
}

impl Receipt {
    /// Whether every edge that can have something stored has applied the purge.
    pub fn is_complete(&self) -> bool {
        self.edges.iter().all(|part| part.applied || part.never_connected)
    }
}

/// The receipt of a purge as of now.
pub fn read(reader: &Reader<'_>, heard: &Heard, id: &str, now_ms: u64) -> Result<Receipt, Refusal> {
    let purge = reader.purge(id)?.ok_or_else(|| Refusal::not_found("purge", id))?;
    let store = reader.head()?.store;
    let edges = reader.edges(None, limits::EDGES_MAX)?;
    let edges = edges.into_iter().map(|edge| part(edge, &purge, store, heard, now_ms)).collect();
    Ok(Receipt { purge, edges })
}

/// Whether an edge with this report counts as away.
pub fn is_away(report: Option<&Report>, now_ms: u64) -> bool {
    report.is_none_or(|report| now_ms.saturating_sub(report.seen_at_ms) >= AWAY_AFTER_MS)
}

fn part(edge: Edge, purge: &PurgeRow, store: StoreId, heard: &Heard, now_ms: u64) -> Part {
    let report = heard.reports.get(&edge.id).cloned();
    let applied = report.as_ref().is_some_and(|r| r.has_applied(store, purge.position, purge.dot));
    let away = is_away(report.as_ref(), now_ms);
    let never_connected = report.is_none() && !heard.followed.contains(&edge.id);
    Part { edge, applied, report, away, never_connected }
}

/// Three beats of the feed.
const AWAY_AFTER_MS: u64 = 3 * limits::BEAT_EVERY_MS;
