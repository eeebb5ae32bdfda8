//! What must hold of control's store whenever it lies open and nobody writes: numbers without
//! holes, a head that is the log's, state that is a replay of the log, events that are chained.
//!
//! Reads the tables themselves, not through control's queries. Leaves to others: which requests
//! must be there (`crate::scenario::durability`).

use std::collections::BTreeMap;

use control::{log::append::Head, store::sqlite::state};
use proto::feed::{cursor::Dot, record::Record};
use rusqlite::{Connection, types::Value};

/// A row of the log, as far as it must never change.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LogRow {
    /// Order of arrival.
    pub position: u64,
    /// Who numbered it.
    pub replica: String,
    /// Its number there.
    pub seq: u64,
    /// Its stamp.
    pub hlc: u64,
    /// The request that asked for it.
    pub request: String,
    /// What it is about.
    pub entity: String,
    /// What changes.
    pub change: String,
}

/// The log, in order.
pub fn rows(conn: &Connection) -> rusqlite::Result<Vec<LogRow>> {
    let sql = "SELECT position, replica, seq, hlc, request, entity, change FROM log \
               ORDER BY position";
    let mut statement = conn.prepare_cached(sql)?;
    let rows = statement.query_map([], |row| {
        Ok(LogRow {
            position: row.get(0)?,
            replica: row.get(1)?,
            seq: row.get(2)?,
            hlc: row.get(3)?,
            request: row.get(4)?,
            entity: row.get(5)?,
            change: row.get(6)?,
        })
    })?;
    rows.collect()
}

/// Says what is wrong with a store that has had one incarnation and kept its whole log. `durable`
/// is the log as an earlier check, or an acknowledgement, saw it: it must be this one's beginning.
pub fn check(
    conn: &Connection,
    head: &Head,
    durable: &[LogRow],
    rows: &[LogRow],
) -> rusqlite::Result<Vec<String>> {
    let mut wrong = Vec::new();
    let whole: String = conn.query_row("PRAGMA integrity_check(1)", [], |row| row.get(0))?;
    if whole != "ok" {
        wrong.push(format!("the database is damaged: {whole}"));
    }
    if rows.get(..durable.len()) != Some(durable) {
        let at = durable.iter().zip(rows).take_while(|(before, now)| before == now).count();
        wrong.push(format!("position {} is not what it was, or is gone", at + 1));
    }
    numbers(head, rows, &mut wrong);
    replay(conn, &mut wrong)?;
    events(conn, rows, &mut wrong)?;
    Ok(wrong)
}

fn numbers(head: &Head, rows: &[LogRow], wrong: &mut Vec<String>) {
    let mut hlc = 0;
    for (row, expected) in rows.iter().zip(1..) {
        if row.position != expected || row.seq != expected {
            wrong.push(format!("position {} has number {}", row.position, row.seq));
        }
        if row.hlc <= hlc {
            wrong.push(format!("position {} is stamped before the one before it", row.position));
        }
        hlc = row.hlc;
    }
    if let Some(row) = rows.iter().find(|row| row.replica != head.replica.as_str()) {
        wrong.push(format!(
            "position {} is of {}, this is {}",
            row.position, row.replica, head.replica
        ));
    }
    let count = rows.len() as u64;
    if (head.position, head.applied.get(head.replica), head.hlc.0) != (count, count, hlc) {
        wrong.push(format!("the head says {}, the log has {count}", head.position));
    }
}

/// Folds the log anew and compares; leaves the store as it was.
fn replay(conn: &Connection, wrong: &mut Vec<String>) -> rusqlite::Result<()> {
    let transaction = conn.unchecked_transaction()?;
    let kept = derived(conn)?;
    match state::replay(conn) {
        Ok(()) if derived(conn)? != kept => wrong.push("the state is no replay of the log".into()),
        Ok(()) => {}
        Err(error) => wrong.push(format!("the log cannot be replayed: {error}")),
    }
    transaction.rollback()
}

fn derived(conn: &Connection) -> rusqlite::Result<Vec<Vec<Value>>> {
    let mut all = Vec::new();
    for sql in [
        "SELECT * FROM entity ORDER BY kind, id",
        "SELECT * FROM conflict ORDER BY kind, id, cell, dot",
        "SELECT * FROM purge ORDER BY id",
    ] {
        let mut statement = conn.prepare_cached(sql)?;
        let columns = statement.column_count();
        let rows = statement.query_map([], |row| {
            (0..columns).map(|column| row.get(column)).collect::<rusqlite::Result<Vec<Value>>>()
        })?;
        for row in rows {
            all.push(row?);
        }
    }
    Ok(all)
}

/// Every event names an operation of the log and the event before it in its topic.
fn events(conn: &Connection, rows: &[LogRow], wrong: &mut Vec<String>) -> rusqlite::Result<()> {
    let sql = "SELECT position, kind, data, dot, applied IS NOT NULL, \
               ordinal = max(ordinal) OVER (PARTITION BY position) FROM record \
               ORDER BY position, ordinal";
    let mut statement = conn.prepare_cached(sql)?;
    let mut records = statement.query([])?;
    let mut last: BTreeMap<String, u64> = BTreeMap::new();
    while let Some(row) = records.next()? {
        let position: u64 = row.get(0)?;
        let (kind, data, dot): (String, String, String) = (row.get(1)?, row.get(2)?, row.get(3)?);
        let operation = rows.get((position as usize).wrapping_sub(1));
        if operation.is_none_or(|row| format!("{}:{}", row.replica, row.seq) != dot) {
            wrong.push(format!("a record at {position} tells of {dot}, which is not in the log"));
        }
        if row.get::<_, bool>(4)? != row.get::<_, bool>(5)? {
            wrong.push(format!("the cursor at {position} is not on the last record"));
        }
        match Record::parse(&kind, &data) {
            Ok(Record::Publish(event)) => {
                let Dot { seq, .. } = event.dot;
                let before = last.insert(event.topic.clone(), seq).unwrap_or(0);
                if event.prev != before {
                    wrong.push(format!("event {seq} of {} follows {}", event.topic, event.prev));
                }
            }
            Ok(_) => {}
            Err(error) => wrong.push(format!("a record at {position} cannot be read: {error}")),
        }
    }
    Ok(())
}
