//! Queries over the stored feed records: what a feed reads instead of keeping a queue.

use rusqlite::{OptionalExtension as _, Row, params};

use super::{Reader, StoreError};
use crate::log::{
    append::Head,
    dot::{Dot, VersionVector},
};

/// A stored record.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Stored {
    /// Its operation's position.
    pub position: u64,
    /// Its operation.
    pub dot: Dot,
    /// The SSE event name.
    pub kind: String,
    /// The SSE data.
    pub data: String,
    /// Everything applied with its operation; only on the last record of an operation.
    pub applied: Option<VersionVector>,
}

/// A stretch of the feed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Stretch {
    /// In order.
    pub records: Vec<Stored>,
    /// The head when this was read.
    pub head: Head,
    /// Up to here everything is in `records`, or had none.
    pub upto: u64,
    /// Up to here records have been removed, see [`Reader::compacted`].
    pub compacted: u64,
}

impl Reader<'_> {
    /// The records of the next `positions` positions that have any, after `position`.
    pub fn stretch(&self, position: u64, positions: usize) -> Result<Stretch, StoreError> {
        let head = self.head()?;
        let sql = "SELECT position, dot, kind, data, applied FROM record \
                   WHERE position > ?1 AND position <= (SELECT max(position) FROM \
                   (SELECT DISTINCT position FROM record WHERE position > ?1 \
                   ORDER BY position LIMIT ?2)) ORDER BY position, ordinal";
        let mut statement = self.conn.prepare_cached(sql)?;
        let mut rows = statement.query(params![position, positions])?;
        let mut records: Vec<Stored> = Vec::new();
        while let Some(row) = rows.next()? {
            records.push(stored(row)?);
        }
        let mut read = records.chunk_by(|a, b| a.position == b.position).count();
        read += usize::from(records.is_empty());
        let upto = match records.last() {
            Some(last) if read >= positions => last.position,
            _ => head.position,
        };
        Ok(Stretch { records, head, upto, compacted: self.compacted()? })
    }

    /// The position before the first operation that a vector does not cover; `None` when that
    /// operation, or any after it, may have left the log.
    pub fn before_missing(&self, seen: &VersionVector) -> Result<Option<u64>, StoreError> {
        let head = self.head()?;
        let mut before = head.position;
        for dot in head.applied.iter() {
            let known = seen.get(dot.replica);
            if known >= dot.seq {
                continue;
            }
            let first: Option<u64> = self
                .conn
                .prepare_cached("SELECT position FROM log WHERE replica = ?1 AND seq = ?2")?
                .query_row(params![dot.replica.as_str(), known + 1], |row| row.get(0))
                .optional()?;
            match first {
                Some(position) => before = before.min(position - 1),
                None => return Ok(None),
            }
        }
        Ok((before >= self.compacted()?).then_some(before))
    }

    /// Events up to `upto`, after `after`; with at most `limit` of them. For refilling an edge's
    /// history.
    pub fn events(&self, after: u64, upto: u64, limit: usize) -> Result<Vec<Stored>, StoreError> {
        let sql = "SELECT position, dot, kind, data, applied FROM record WHERE kind = 'publish' \
                   AND position > ?1 AND position <= ?2 ORDER BY position LIMIT ?3";
        let mut statement = self.conn.prepare_cached(sql)?;
        let mut rows = statement.query(params![after, upto, limit])?;
        let mut events = Vec::new();
        while let Some(row) = rows.next()? {
            events.push(stored(row)?);
        }
        Ok(events)
    }

    /// The position before the newest `limit` events up to `upto`.
    pub fn before_events(&self, upto: u64, limit: usize) -> Result<u64, StoreError> {
        let sql = "SELECT min(position) FROM (SELECT position FROM record WHERE kind = 'publish' \
                   AND position <= ?1 ORDER BY position DESC LIMIT ?2)";
        let first: Option<u64> =
            self.conn.prepare_cached(sql)?.query_row(params![upto, limit], |row| row.get(0))?;
        Ok(first.map_or(upto, |first| first.saturating_sub(1)))
    }
}

fn stored(row: &Row<'_>) -> Result<Stored, StoreError> {
    let dot: String = row.get(1)?;
    let applied: Option<String> = row.get(4)?;
    let applied = applied.map(|text| text.parse().map_err(|_| StoreError::Row(text)));
    Ok(Stored {
        position: row.get(0)?,
        dot: dot.parse().map_err(|_| StoreError::Row(dot))?,
        kind: row.get(2)?,
        data: row.get(3)?,
        applied: applied.transpose()?,
    })
}
