//! Queries over the state, and the bounded pool of read-only connections that API, pages and feeds
//! use.
//!
//! A [`Reader`] sees one moment: the pool wraps each use in a read transaction, so a version and
//! what it describes always belong together. The writer answers the same queries from inside its
//! own transaction.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    path::Path,
    sync::Arc,
};

use rusqlite::{Connection, OptionalExtension as _, Row, params};
use tokio::sync::{Mutex, Semaphore};

use super::{StoreError, schema, state};
use crate::{
    log::{
        append::Head,
        dot::{Dot, VersionVector},
        hlc::Hlc,
        merge::EntityState,
        operation::{Class, EntityRef, Kind, Operation, PurgeOrder},
    },
    model::{
        api_key::ApiKey,
        component::{Component, ComponentStatus},
        edge::{Edge, Report},
        impact::{Impact, Indicator},
        incident::Incident,
        page::Page,
        site::Site,
    },
};

/// Something read, and the last operation that touched it: the ground of its `ETag`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Tagged<T> {
    /// What was read.
    pub value: T,
    /// The last operation that touched it.
    pub dot: Dot,
}

/// A purge that an operator ordered.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PurgeRow {
    /// Stable identity.
    pub id: String,
    /// Order of arrival in this store.
    pub position: u64,
    /// The operation.
    pub dot: Dot,
    /// ms since the Unix epoch.
    pub created_at_ms: u64,
    /// What was ordered.
    pub order: PurgeOrder,
}

/// Where a list goes on: after this rank and id.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct After {
    /// Time of creation, ms.
    pub rank: u64,
    /// Identity, among equals.
    pub id: String,
}

/// Which way a list runs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Order {
    /// By time of creation.
    OldestFirst,
    /// The other way.
    NewestFirst,
}

/// Queries on one connection, at one moment.
#[derive(Clone, Copy)]
pub struct Reader<'c> {
    pub(super) conn: &'c Connection,
}

impl<'c> Reader<'c> {
    /// Reads through a connection; the caller holds a transaction.
    pub fn new(conn: &'c Connection) -> Self {
        Self { conn }
    }

    /// A fact of this store.
    pub fn meta(&self, name: &str) -> Result<Option<String>, StoreError> {
        let sql = "SELECT value FROM meta WHERE key = ?1";
        Ok(self.conn.prepare_cached(sql)?.query_row([name], |row| row.get(0)).optional()?)
    }

    fn meta_parsed<T: std::str::FromStr>(&self, name: &str) -> Result<T, StoreError> {
        let text = self.meta(name)?.ok_or_else(|| StoreError::Row(format!("no {name}")))?;
        text.parse().map_err(|_| StoreError::Row(format!("{name}: {text}")))
    }

    /// The end of the log at this moment.
    pub fn head(&self) -> Result<Head, StoreError> {
        Ok(Head {
            store: self.meta_parsed("store")?,
            replica: self.meta_parsed("replica")?,
            position: self.meta_parsed("position")?,
            applied: self.meta_parsed("applied")?,
            hlc: Hlc(self.meta_parsed("hlc")?),
        })
    }

    /// Everything applied at this moment: the version of whatever is read beside it.
    pub fn version(&self) -> Result<VersionVector, StoreError> {
        self.meta_parsed("applied")
    }

    /// Up to this position records have been removed: a feed that starts below it needs a snapshot.
    pub fn compacted(&self) -> Result<u64, StoreError> {
        let events = self.meta(EVENTS_COMPACTED)?.and_then(|text| text.parse().ok());
        Ok(self.meta_parsed::<u64>("compacted")?.max(events.unwrap_or(0)))
    }

    /// An entity's folded state, deleted or not.
    pub fn state(&self, entity: &EntityRef) -> Result<Option<EntityState>, StoreError> {
        state::load_entity(self.conn, entity)
    }

    fn row(&self, entity: &EntityRef) -> Result<Option<Tagged<EntityState>>, StoreError> {
        let found = self
            .conn
            .prepare_cached("SELECT id, dot, state FROM entity WHERE kind = ?1 AND id = ?2")?
            .query_row(params![entity.kind.as_str(), entity.id], raw)
            .optional()?;
        Ok(found.map(tagged).transpose()?.map(|(_, tagged)| tagged))
    }

    fn by_name(
        &self,
        kind: Kind,
        page: &str,
        name: &str,
    ) -> Result<Option<(String, Tagged<EntityState>)>, StoreError> {
        let sql = "SELECT id, dot, state FROM entity WHERE kind = ?1 AND page = ?2 AND name = ?3 \
                   ORDER BY rank, id LIMIT 1";
        let found = self
            .conn
            .prepare_cached(sql)?
            .query_row(params![kind.as_str(), page, name], raw)
            .optional()?;
        found.map(tagged).transpose()
    }

    fn list(
        &self,
        kind: Kind,
        page: &str,
        order: Order,
        after: Option<&After>,
        limit: usize,
    ) -> Result<Vec<(String, Tagged<EntityState>)>, StoreError> {
        let sql = match order {
            Order::OldestFirst => {
                "SELECT id, dot, state FROM entity WHERE kind = ?1 AND page = ?2 \
                 AND rank IS NOT NULL AND (rank, id) > (?3, ?4) ORDER BY rank, id LIMIT ?5"
            }
            Order::NewestFirst => {
                "SELECT id, dot, state FROM entity WHERE kind = ?1 AND page = ?2 \
                 AND rank IS NOT NULL AND (rank, id) < (?3, ?4) \
                 ORDER BY rank DESC, id DESC LIMIT ?5"
            }
        };
        let (rank, id) = match (after, order) {
            (Some(after), _) => (i64::try_from(after.rank).unwrap_or(i64::MAX), after.id.as_str()),
            (None, Order::OldestFirst) => (-1, ""),
            (None, Order::NewestFirst) => (i64::MAX, ""),
        };
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let mut statement = self.conn.prepare_cached(sql)?;
        let rows = statement.query_map(params![kind.as_str(), page, rank, id, limit], raw)?;
        rows.map(|row| tagged(row?)).collect()
    }

    /// A page by its id.
    pub fn page(&self, id: &str) -> Result<Option<Tagged<Page>>, StoreError> {
        let row = self.row(&EntityRef::new(Kind::Page, id))?;
        Ok(row.and_then(|row| row.map(|state| Page::read(id, &state))))
    }

    /// A page by its slug.
    pub fn page_by_slug(&self, slug: &str) -> Result<Option<Tagged<Page>>, StoreError> {
        let row = self.by_name(Kind::Page, "", slug)?;
        Ok(row.and_then(|(id, row)| row.map(|state| Page::read(&id, &state))))
    }

    /// Pages, oldest first.
    pub fn pages(&self, after: Option<&After>, limit: usize) -> Result<Vec<Page>, StoreError> {
        let rows = self.list(Kind::Page, "", Order::OldestFirst, after, limit)?;
        Ok(rows.into_iter().filter_map(|(id, row)| Page::read(&id, &row.value)).collect())
    }

    /// All components of a page in the order they are shown.
    pub fn components(&self, page_id: &str) -> Result<Vec<Component>, StoreError> {
        let rows = self.list(Kind::Component, page_id, Order::OldestFirst, None, usize::MAX)?;
        let mut components: Vec<Component> =
            rows.into_iter().filter_map(|(id, row)| Component::read(&id, &row.value)).collect();
        components.sort_by_key(|component| component.position);
        Ok(components)
    }

    /// A component by its slug on its page.
    pub fn component_by_slug(
        &self,
        page_id: &str,
        slug: &str,
    ) -> Result<Option<Tagged<Component>>, StoreError> {
        let row = self.by_name(Kind::Component, page_id, slug)?;
        Ok(row.and_then(|(id, row)| row.map(|state| Component::read(&id, &state))))
    }

    /// An incident by its id.
    pub fn incident(&self, id: &str) -> Result<Option<Tagged<Incident>>, StoreError> {
        let row = self.row(&EntityRef::new(Kind::Incident, id))?;
        Ok(row.and_then(|row| row.map(|state| Incident::read(id, &state))))
    }

    /// Incidents of a page, newest first.
    pub fn incidents(
        &self,
        page_id: &str,
        after: Option<&After>,
        limit: usize,
    ) -> Result<Vec<Incident>, StoreError> {
        let rows = self.list(Kind::Incident, page_id, Order::NewestFirst, after, limit)?;
        Ok(rows.into_iter().filter_map(|(id, row)| Incident::read(&id, &row.value)).collect())
    }

    /// Incidents of a page that are not resolved, newest first.
    pub fn open_incidents(&self, page_id: &str) -> Result<Vec<Incident>, StoreError> {
        let sql = "SELECT id, dot, state FROM entity WHERE page = ?1 AND open = 1 \
                   ORDER BY rank DESC, id DESC";
        let mut statement = self.conn.prepare_cached(sql)?;
        let rows = statement.query_map([page_id], raw)?;
        let mut incidents = Vec::new();
        for row in rows {
            let (id, row) = tagged(row?)?;
            incidents.extend(Incident::read(&id, &row.value));
        }
        Ok(incidents)
    }

    /// A page's state in one word. Reads two small columns, no entity.
    pub fn indicator(&self, page_id: &str) -> Result<Indicator, StoreError> {
        let sql = "SELECT kind, weight FROM entity WHERE kind = 'component' AND page = ?1 \
                   AND rank IS NOT NULL \
                   UNION ALL SELECT kind, weight FROM entity WHERE page = ?1 AND open = 1";
        let mut statement = self.conn.prepare_cached(sql)?;
        let mut rows = statement.query([page_id])?;
        let (mut components, mut open) = (Vec::new(), Vec::new());
        while let Some(row) = rows.next()? {
            let Some(weight) = row.get::<_, Option<String>>(1)? else { continue };
            match row.get_ref(0)?.as_str() {
                Ok("component") => components.extend(weight.parse::<ComponentStatus>().ok()),
                _ => open.extend(weight.parse::<Impact>().ok()),
            }
        }
        Ok(Indicator::of(components, open))
    }

    /// A site by its id.
    pub fn site(&self, id: &str) -> Result<Option<Tagged<Site>>, StoreError> {
        let row = self.row(&EntityRef::new(Kind::Site, id))?;
        Ok(row.and_then(|row| row.map(|state| Site::read(&state))))
    }

    /// A site by its name.
    pub fn site_by_name(&self, name: &str) -> Result<Option<Tagged<Site>>, StoreError> {
        let row = self.by_name(Kind::Site, "", name)?;
        Ok(row.and_then(|(_, row)| row.map(|state| Site::read(&state))))
    }

    /// Sites, oldest first.
    pub fn sites(&self, after: Option<&After>, limit: usize) -> Result<Vec<Site>, StoreError> {
        let rows = self.list(Kind::Site, "", Order::OldestFirst, after, limit)?;
        Ok(rows.into_iter().filter_map(|(_, row)| Site::read(&row.value)).collect())
    }

    /// An API key by its id.
    pub fn api_key(&self, id: &str) -> Result<Option<Tagged<ApiKey>>, StoreError> {
        let row = self.row(&EntityRef::new(Kind::ApiKey, id))?;
        Ok(row.and_then(|row| row.map(|state| ApiKey::read(id, &state))))
    }

    /// Live API keys, oldest first.
    pub fn api_keys(&self, after: Option<&After>, limit: usize) -> Result<Vec<ApiKey>, StoreError> {
        let rows = self.list(Kind::ApiKey, "", Order::OldestFirst, after, limit)?;
        Ok(rows.into_iter().filter_map(|(id, row)| ApiKey::read(&id, &row.value)).collect())
    }

    /// An enrolled edge by its id.
    pub fn edge(&self, id: &str) -> Result<Option<Tagged<Edge>>, StoreError> {
        let row = self.row(&EntityRef::new(Kind::Edge, id))?;
        Ok(row.and_then(|row| row.map(|state| Edge::read(id, &state))))
    }

    /// An enrolled edge by its name.
    pub fn edge_by_name(&self, name: &str) -> Result<Option<Tagged<Edge>>, StoreError> {
        let row = self.by_name(Kind::Edge, "", name)?;
        Ok(row.and_then(|(id, row)| row.map(|state| Edge::read(&id, &state))))
    }

    /// Enrolled edges that are not revoked, oldest first.
    pub fn edges(&self, after: Option<&After>, limit: usize) -> Result<Vec<Edge>, StoreError> {
        let rows = self.list(Kind::Edge, "", Order::OldestFirst, after, limit)?;
        Ok(rows.into_iter().filter_map(|(id, row)| Edge::read(&id, &row.value)).collect())
    }

    /// A purge that an operator ordered; `None` when unknown or past its retention.
    pub fn purge(&self, id: &str) -> Result<Option<PurgeRow>, StoreError> {
        let sql = "SELECT id, position, dot, at_ms, purge_order FROM purge WHERE id = ?1";
        let mut statement = self.conn.prepare_cached(sql)?;
        let mut rows = statement.query([id])?;
        rows.next()?.map(purge_of).transpose()
    }

    /// Purges that operators ordered, newest first, below a position.
    pub fn purges(&self, below: u64, limit: usize) -> Result<Vec<PurgeRow>, StoreError> {
        let sql = "SELECT id, position, dot, at_ms, purge_order FROM purge WHERE position < ?1 \
                   ORDER BY position DESC LIMIT ?2";
        let mut statement = self.conn.prepare_cached(sql)?;
        let below = i64::try_from(below).unwrap_or(i64::MAX);
        let mut rows = statement.query(params![below, limit])?;
        let mut purges = Vec::new();
        while let Some(row) = rows.next()? {
            purges.push(purge_of(row)?);
        }
        Ok(purges)
    }

    /// How many live entities of a kind there are.
    pub fn count(&self, kind: Kind) -> Result<usize, StoreError> {
        let sql = "SELECT count(*) FROM entity WHERE kind = ?1 AND page = '' AND rank IS NOT NULL";
        let count: i64 =
            self.conn.prepare_cached(sql)?.query_row([kind.as_str()], |row| row.get(0))?;
        Ok(usize::try_from(count).unwrap_or(0))
    }

    /// What edges last reported, by edge id.
    pub fn edge_reports(&self) -> Result<Vec<(String, Report)>, StoreError> {
        let mut statement = self.conn.prepare_cached("SELECT edge, report FROM edge_report")?;
        let rows = statement
            .query_map([], |row| Ok((row.get::<_, String>(0)?, row.get::<_, String>(1)?)))?;
        rows.map(|row| {
            let (edge, report) = row?;
            Ok((edge, serde_json::from_str(&report)?))
        })
        .collect()
    }

    /// An operation by its position.
    pub fn operation(&self, position: u64) -> Result<Option<Operation>, StoreError> {
        let mut statement = self.conn.prepare_cached("SELECT * FROM log WHERE position = ?1")?;
        let mut rows = statement.query([position])?;
        rows.next()?.map(operation_of).transpose()
    }
}

impl<T> Tagged<T> {
    /// Reads something out of it, if it is there.
    pub fn map<U>(self, read: impl FnOnce(T) -> Option<U>) -> Option<Tagged<U>> {
        let dot = self.dot;
        read(self.value).map(|value| Tagged { value, dot })
    }
}

fn purge_of(row: &Row<'_>) -> Result<PurgeRow, StoreError> {
    let dot: String = row.get(2)?;
    Ok(PurgeRow {
        id: row.get(0)?,
        position: row.get(1)?,
        dot: dot.parse().map_err(|_| StoreError::Row(dot))?,
        created_at_ms: row.get(3)?,
        order: serde_json::from_str(&row.get::<_, String>(4)?)?,
    })
}

type RawRow = (String, String, String);

fn raw(row: &Row<'_>) -> rusqlite::Result<RawRow> {
    Ok((row.get(0)?, row.get(1)?, row.get(2)?))
}

fn tagged((id, dot, state): RawRow) -> Result<(String, Tagged<EntityState>), StoreError> {
    let dot = dot.parse().map_err(|_| StoreError::Row(format!("dot of {id}: {dot}")))?;
    Ok((id, Tagged { value: serde_json::from_str(&state)?, dot }))
}

/// The fact of the store that says up to where some events of topics have been removed.
pub const EVENTS_COMPACTED: &str = "events_compacted";

/// An operation from a row of `SELECT * FROM log`.
pub(crate) fn operation_of(row: &Row<'_>) -> Result<Operation, StoreError> {
    fn parsed<T: std::str::FromStr>(row: &Row<'_>, column: &str) -> Result<T, StoreError> {
        let text: String = row.get(column)?;
        text.parse().map_err(|_| StoreError::Row(format!("log.{column}: {text}")))
    }
    let class: String = row.get("class")?;
    let known = Class::ALL.into_iter().find(|known| known.as_str() == class);
    Ok(Operation {
        format: row.get("format")?,
        dot: Dot { replica: parsed(row, "replica")?, seq: row.get("seq")? },
        position: row.get("position")?,
        context: parsed(row, "context")?,
        hlc: Hlc(row.get("hlc")?),
        actor: row.get("actor")?,
        request: row.get("request")?,
        class: known.ok_or_else(|| StoreError::Row(format!("log.class: {class}")))?,
        entity: EntityRef::new(parsed(row, "kind")?, row.get::<_, String>("entity")?),
        change: serde_json::from_str(&row.get::<_, String>("change")?)?,
    })
}

/// Read-only connections, shared by everyone who reads. Whoever finds none free waits; the
/// in-flight limits of the HTTP layer bound how many wait.
#[derive(Clone)]
pub struct ReadPool {
    free: Arc<Mutex<Vec<Connection>>>,
    permits: Arc<Semaphore>,
}

impl ReadPool {
    /// Opens `count` connections.
    pub fn open(path: &Path, count: usize) -> Result<Self, StoreError> {
        let free: Vec<_> =
            (0..count).map(|_| schema::open_reader(path)).collect::<Result<_, _>>()?;
        Ok(Self { permits: Arc::new(Semaphore::new(free.len())), free: Arc::new(Mutex::new(free)) })
    }

    /// Reads at one moment, on a thread that may block.
    pub async fn with<T, E, F>(&self, read: F) -> Result<T, E>
    where
        T: Send + 'static,
        E: From<StoreError> + Send + 'static,
        F: FnOnce(&Reader<'_>) -> Result<T, E> + Send + 'static,
    {
        let Ok(permit) = Arc::clone(&self.permits).acquire_owned().await else {
            return Err(StoreError::Stopped.into());
        };
        let Some(conn) = self.free.lock().await.pop() else {
            return Err(StoreError::Busy.into());
        };
        let free = Arc::clone(&self.free);
        let done = tokio::task::spawn_blocking(move || {
            // A reader that panics must not take its connection with it.
            let result = catch_unwind(AssertUnwindSafe(|| at_one_moment(&conn, read)));
            free.blocking_lock().push(conn);
            drop(permit);
            result.unwrap_or_else(|_| Err(StoreError::Row("a panic while reading".into()).into()))
        });
        done.await.unwrap_or_else(|_| Err(StoreError::Stopped.into()))
    }
}

fn at_one_moment<T, E: From<StoreError>>(
    conn: &Connection,
    read: impl FnOnce(&Reader<'_>) -> Result<T, E>,
) -> Result<T, E> {
    let begin = conn.unchecked_transaction().map_err(StoreError::from)?;
    let result = read(&Reader { conn });
    // Nothing was written: ending the moment cannot fail in a way that matters to the reader.
    let _ = begin.finish();
    result
}
