//! What has outlived its time leaves: operations (into the base), feed records, purges, stored
//! answers.
//!
//! Operations of class *state* are folded into `base` in the order of the log before they go, so
//! base + log always gives the state. Removing feed records moves the mark below which an edge
//! needs a snapshot.

use rusqlite::{Connection, params};

use crate::{
    App, clock, limits,
    log::{hlc::Hlc, operation::Change},
    store::sqlite::{StoreError, identity, read::operation_of, state},
};

/// Everything older than these goes; ms since the Unix epoch.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Cutoff {
    /// Operations of class state.
    pub log_ms: u64,
    /// Feed records, and operations of class publish with their receipts.
    pub feed_ms: u64,
    /// Stored answers.
    pub idempotency_ms: u64,
}

/// Removes what has outlived its time, turn by turn until nothing is left to do.
pub async fn run(app: &App) {
    let now_ms = clock::wall_ms();
    let retention = &app.config.retention;
    let cutoff = Cutoff {
        log_ms: now_ms.saturating_sub(u64::from(retention.log_days) * DAY_MS),
        feed_ms: now_ms.saturating_sub(u64::from(retention.feed_hours) * HOUR_MS),
        idempotency_ms: now_ms.saturating_sub(u64::from(retention.idempotency_hours) * HOUR_MS),
    };
    loop {
        match app.store.writer.compact(cutoff).await {
            Ok(0) => return,
            Ok(rows) => tracing::debug!(rows, "retention"),
            Err(error) => {
                tracing::warn!(%error, "retention waits for its next turn");
                return;
            }
        }
    }
}

/// One turn, inside the writer's transaction. Returns the rows removed; 0 means done.
pub fn compact(conn: &Connection, cutoff: Cutoff) -> Result<usize, StoreError> {
    let mut removed = conn.execute(
        "DELETE FROM idempotency WHERE digest IN \
         (SELECT digest FROM idempotency WHERE at_ms < ?1 LIMIT ?2)",
        params![cutoff.idempotency_ms, limits::COMPACTION_ROWS_MAX],
    )?;
    removed += compact_records(conn, cutoff.feed_ms)?;
    removed += compact_log(conn, cutoff)?;
    Ok(removed)
}

/// Removes the oldest feed records and moves the mark. Whole operations only: a position is there
/// or it is not.
fn compact_records(conn: &Connection, feed_ms: u64) -> Result<usize, StoreError> {
    let last: Option<u64> = conn.query_row(
        "SELECT max(position) FROM (SELECT position, at_ms FROM record ORDER BY position LIMIT ?1) \
         WHERE at_ms < ?2",
        params![limits::COMPACTION_ROWS_MAX, feed_ms],
        |row| row.get(0),
    )?;
    let Some(last) = last else { return Ok(0) };
    let removed = conn.execute("DELETE FROM record WHERE position <= ?1", [last])?;
    identity::set(conn, "compacted", &last.to_string())?;
    Ok(removed)
}

fn compact_log(conn: &Connection, cutoff: Cutoff) -> Result<usize, StoreError> {
    // Purges hold no state; they go with their receipts.
    let cutoff_hlc = Hlc::from_ms(cutoff.feed_ms).0;
    conn.execute(
        "DELETE FROM purge WHERE position IN \
         (SELECT position FROM log WHERE class = 'publish' AND hlc < ?1 LIMIT ?2)",
        params![cutoff_hlc, limits::COMPACTION_ROWS_MAX],
    )?;
    let mut removed = conn.execute(
        "DELETE FROM log WHERE position IN \
         (SELECT position FROM log WHERE class = 'publish' AND hlc < ?1 LIMIT ?2)",
        params![cutoff_hlc, limits::COMPACTION_ROWS_MAX],
    )?;
    let oldest = {
        let mut statement = conn
            .prepare_cached("SELECT * FROM log WHERE class = 'state' ORDER BY position LIMIT ?1")?;
        let mut rows = statement.query([limits::COMPACTION_ROWS_MAX])?;
        let mut oldest = Vec::new();
        while let Some(row) = rows.next()? {
            let operation = operation_of(row)?;
            if operation.hlc.ms() >= cutoff.log_ms {
                break;
            }
            oldest.push(operation);
        }
        oldest
    };
    for operation in &oldest {
        debug_assert!(!matches!(operation.change, Change::Purge(_)));
        state::apply_to_base(conn, operation)?;
        conn.prepare_cached("DELETE FROM log WHERE position = ?1")?
            .execute([operation.position])?;
    }
    removed += oldest.len();
    Ok(removed)
}

const HOUR_MS: u64 = 3_600_000;
const DAY_MS: u64 = 24 * HOUR_MS;
