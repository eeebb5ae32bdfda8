//! Queries over the topics that customers publish to.

use rusqlite::{OptionalExtension as _, Row, params};

use super::{Reader, StoreError};
use crate::model::topic::Topic;

impl Reader<'_> {
    /// A topic, if retention has not forgotten it.
    pub fn topic(&self, name: &str) -> Result<Option<Topic>, StoreError> {
        let sql = "SELECT topic, max(at_ms), sum(events) FROM topic WHERE topic = ?1 \
                   GROUP BY topic";
        Ok(self.conn.prepare_cached(sql)?.query_row([name], topic_of).optional()?)
    }

    /// Topics by name, after one.
    pub fn topics(&self, after: &str, limit: usize) -> Result<Vec<Topic>, StoreError> {
        let sql = "SELECT topic, max(at_ms), sum(events) FROM topic WHERE topic > ?1 \
                   AND topic NOT LIKE 'page/%' GROUP BY topic ORDER BY topic LIMIT ?2";
        let mut statement = self.conn.prepare_cached(sql)?;
        let rows = statement.query_map(params![after, limit], topic_of)?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    /// How many events of topics are kept, and how many topics there are.
    pub fn count_events(&self) -> Result<(u64, u64), StoreError> {
        let count = |sql| self.conn.prepare_cached(sql)?.query_row([], |row| row.get(0));
        Ok((
            count("SELECT count(*) FROM log WHERE class = 'event'")?,
            count("SELECT count(DISTINCT topic) FROM topic WHERE topic NOT LIKE 'page/%'")?,
        ))
    }
}

fn topic_of(row: &Row<'_>) -> rusqlite::Result<Topic> {
    Ok(Topic { name: row.get(0)?, at_ms: row.get(1)?, events: row.get(2)? })
}
