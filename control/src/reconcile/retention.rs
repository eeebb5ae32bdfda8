//! What has outlived its time leaves: operations (into the base), feed records, purges, events,
//! stored answers.
//!
//! Operations of class *state* are folded into `base` in the order of the log before they go, so
//! base + log always gives the state. Removing feed records moves the mark below which an edge
//! needs a snapshot.

use rusqlite::{Connection, params};

use crate::{
    App, clock, limits,
    log::{dot::Dot, hlc::Hlc, operation::Change},
    store::sqlite::{
        Reader, StoreError, identity,
        read::{EVENTS_COMPACTED, operation_of},
        state,
        txn::FORGOTTEN,
    },
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
    /// Events that customers published, with their feed records; but for the newest of a topic.
    pub event_ms: u64,
}

/// Removes what has outlived its time, turn by turn until nothing is left to do.
pub async fn run(app: &App) {
    let now_ms = clock::wall_ms();
    let retention = &app.config.retention;
    let cutoff = Cutoff {
        log_ms: now_ms.saturating_sub(u64::from(retention.log_days) * DAY_MS),
        feed_ms: now_ms.saturating_sub(u64::from(retention.feed_hours) * HOUR_MS),
        idempotency_ms: now_ms.saturating_sub(u64::from(retention.idempotency_hours) * HOUR_MS),
        event_ms: now_ms.saturating_sub(u64::from(retention.event_minutes) * MINUTE_MS),
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
    removed += compact_events(conn, cutoff)?;
    Ok(removed)
}

/// Removes events that customers published, and moves the mark below which an edge needs a
/// snapshot: it could not know which topics it missed something of. The newest of each event key
/// stays for as long as the feed does, as the topic's present state. A topic without any is
/// forgotten, and the dot of the newest that ever was is kept in its place.
fn compact_events(conn: &Connection, cutoff: Cutoff) -> Result<usize, StoreError> {
    let positions: Vec<u64> = conn
        .prepare_cached(
            "SELECT position FROM log WHERE class = 'event' AND hlc < ?1 AND (hlc < ?2 OR \
             NOT EXISTS (SELECT 1 FROM last_value WHERE last_value.position = log.position)) \
             LIMIT ?3",
        )?
        .query_map(
            params![
                Hlc::from_ms(cutoff.event_ms).0,
                Hlc::from_ms(cutoff.feed_ms).0,
                limits::COMPACTION_ROWS_MAX
            ],
            |row| row.get(0),
        )?
        .collect::<Result<_, _>>()?;
    if let Some(newest) = positions.iter().max() {
        let reader = Reader::new(conn);
        let mark = reader.meta(EVENTS_COMPACTED)?.and_then(|text| text.parse().ok());
        let mark = (*newest).max(mark.unwrap_or(0));
        identity::set(conn, EVENTS_COMPACTED, &mark.to_string())?;
    }
    for position in &positions {
        conn.prepare_cached("DELETE FROM log WHERE position = ?1")?.execute([position])?;
        conn.prepare_cached("DELETE FROM record WHERE position = ?1")?.execute([position])?;
        conn.prepare_cached("DELETE FROM last_value WHERE position = ?1")?.execute([position])?;
    }
    Ok(positions.len() + forget_topics(conn, cutoff.feed_ms)?)
}

fn forget_topics(conn: &Connection, feed_ms: u64) -> Result<usize, StoreError> {
    let mut statement = conn.prepare_cached(
        "SELECT topic, replica, seq FROM topic WHERE at_ms < ?1 AND topic NOT LIKE 'page/%' LIMIT ?2",
    )?;
    let old: Vec<(String, String, u64)> = statement
        .query_map(params![feed_ms, limits::COMPACTION_ROWS_MAX], |row| {
            Ok((row.get(0)?, row.get(1)?, row.get(2)?))
        })?
        .collect::<Result<_, _>>()?;
    let reader = Reader::new(conn);
    let own = reader.head()?.replica;
    let mut newest = reader.meta(FORGOTTEN)?.and_then(|text| text.parse::<Dot>().ok());
    for (topic, replica, seq) in &old {
        conn.prepare_cached("DELETE FROM topic WHERE topic = ?1 AND replica = ?2")?
            .execute([topic, replica])?;
        if replica == own.as_str() {
            let before = newest.filter(|dot| dot.replica == own).map_or(0, |dot| dot.seq);
            newest = Some(Dot { replica: own, seq: before.max(*seq) });
        }
    }
    if let Some(newest) = newest.filter(|_| !old.is_empty()) {
        identity::set(conn, FORGOTTEN, &newest.to_string())?;
    }
    Ok(old.len())
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

const MINUTE_MS: u64 = 60_000;
const HOUR_MS: u64 = 60 * MINUTE_MS;
const DAY_MS: u64 = 24 * HOUR_MS;
