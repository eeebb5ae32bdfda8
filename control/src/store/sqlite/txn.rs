//! One command's view of the writer's transaction: the queries, and `append`.
//!
//! `append` is the only way anything changes: it stamps a draft, writes the log row, folds the
//! state and stores what edges are to be told, all inside the command's savepoint.

use std::ops::Deref;

use rusqlite::{Connection, OptionalExtension as _, params};

use super::{Reader, StoreError, state};
use crate::{
    feed::derive::{self, PageView, Subject},
    log::{
        append::{Head, Origin},
        dot::{Dot, Replica},
        operation::{Change, Draft, EntityRef, Kind, Mutation, Operation},
    },
    model::{component::Component, id::Seed, incident::Incident, site::Site},
};

/// A command at work. Dereferences to [`Reader`]: queries see what the command itself has appended.
pub struct Txn<'c> {
    reader: Reader<'c>,
    head: &'c mut Head,
    origin: Origin,
    seed: Seed,
    ids_drawn: u32,
    api_keys_changed: bool,
}

impl<'c> Deref for Txn<'c> {
    type Target = Reader<'c>;

    fn deref(&self) -> &Reader<'c> {
        &self.reader
    }
}

impl<'c> Txn<'c> {
    /// Opens a command on the writer's connection; the caller holds transaction and savepoint.
    pub(super) fn new(
        conn: &'c Connection,
        head: &'c mut Head,
        origin: Origin,
        seed: Seed,
    ) -> Self {
        let reader = Reader::new(conn);
        Self { reader, head, origin, seed, ids_drawn: 0, api_keys_changed: false }
    }

    /// The next id of this request.
    pub fn new_id(&mut self) -> String {
        self.ids_drawn += 1;
        self.seed.id(self.ids_drawn - 1)
    }

    /// When the request arrived, ms since the Unix epoch.
    pub fn now_ms(&self) -> u64 {
        self.origin.now_ms
    }

    /// The log's end, this command's own operations included.
    pub fn head_now(&self) -> &Head {
        self.head
    }

    /// Whether the set of API keys is another one after this command.
    pub(super) fn api_keys_changed(&self) -> bool {
        self.api_keys_changed
    }

    /// Makes a draft the next operation of the log.
    pub fn append(&mut self, draft: Draft) -> Result<Operation, StoreError> {
        self.api_keys_changed |= draft.entity.kind == Kind::ApiKey;
        let before = Before::of(&self.reader, &draft)?;
        let operation = self.head.stamp(draft, &self.origin).map_err(|_| StoreError::VectorFull)?;
        insert_log(self.reader.conn, &operation)?;
        state::apply(self.reader.conn, &operation)?;
        let subject = subject(&self.reader, &operation, before)?;
        self.store_records(&operation, &subject)?;
        Ok(operation)
    }

    fn store_records(&self, operation: &Operation, subject: &Subject) -> Result<(), StoreError> {
        let conn = self.reader.conn;
        let topic = subject.topic();
        let prev = match &topic {
            Some(topic) => last_of_topic(conn, topic, operation.dot.replica)?,
            None => 0,
        };
        let records = derive::records(operation, subject, prev);
        let last = records.len().saturating_sub(1);
        for (ordinal, record) in records.iter().enumerate() {
            let data = record.data();
            // Whatever an operation may be: no edge is told what it could not read.
            if data.len() > proto::limits::RECORD_BYTES_MAX {
                return Err(StoreError::RecordTooLarge { bytes: data.len() });
            }
            let applied = (ordinal == last).then(|| self.head.applied.to_string());
            conn.prepare_cached(
                "INSERT INTO record (position, ordinal, at_ms, kind, data, dot, applied) \
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
            )?
            .execute(params![
                operation.position,
                ordinal,
                operation.hlc.ms(),
                record.kind(),
                data,
                operation.dot.to_string(),
                applied
            ])?;
        }
        if let Subject::Event { topic, event } = subject {
            conn.prepare_cached(
                "INSERT OR REPLACE INTO last_value (topic, event_key, position) VALUES (?1, ?2, ?3)",
            )?
            .execute(params![
                topic,
                event.key.as_deref().unwrap_or_default(),
                operation.position
            ])?;
        }
        if let Some(topic) = topic {
            conn.prepare_cached(
                "INSERT INTO topic (topic, replica, seq, at_ms, events) VALUES (?1, ?2, ?3, ?4, 1) \
                 ON CONFLICT (topic, replica) DO UPDATE SET seq = excluded.seq, \
                 at_ms = excluded.at_ms, events = events + 1",
            )?
            .execute(params![
                topic,
                operation.dot.replica.as_str(),
                operation.dot.seq,
                operation.hlc.ms()
            ])?;
        }
        Ok(())
    }
}

fn last_of_topic(conn: &Connection, topic: &str, replica: Replica) -> Result<u64, StoreError> {
    let seq = conn
        .prepare_cached("SELECT seq FROM topic WHERE topic = ?1 AND replica = ?2")?
        .query_row([topic, replica.as_str()], |row| row.get(0))
        .optional()?;
    match seq {
        Some(seq) => Ok(seq),
        // It may have had events once, up to the newest of all topics that were forgotten.
        None => forgotten(conn, replica),
    }
}

/// The newest event of any topic that retention has forgotten: what is known of those before the
/// first event of a topic that looks new.
fn forgotten(conn: &Connection, replica: Replica) -> Result<u64, StoreError> {
    let newest = Reader::new(conn).meta(FORGOTTEN)?;
    let newest = newest.and_then(|text| text.parse::<Dot>().ok());
    Ok(newest.filter(|dot| dot.replica == replica).map_or(0, |dot| dot.seq))
}

/// The fact of the store that [`forgotten`] reads; written by retention.
pub const FORGOTTEN: &str = "topics_forgotten";

fn insert_log(conn: &Connection, operation: &Operation) -> Result<(), StoreError> {
    conn.prepare_cached(
        "INSERT INTO log (position, replica, seq, format, hlc, class, kind, entity, actor, \
         request, context, change) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12)",
    )?
    .execute(params![
        operation.position,
        operation.dot.replica.as_str(),
        operation.dot.seq,
        operation.format,
        operation.hlc.0,
        operation.class.as_str(),
        operation.entity.kind.as_str(),
        operation.entity.id,
        operation.actor,
        operation.request,
        operation.context.to_string(),
        serde_json::to_string(&operation.change)?
    ])?;
    Ok(())
}

/// What must be looked at before an operation changes it.
struct Before {
    page_id: Option<String>,
    page: Option<PageView>,
}

impl Before {
    fn of(reader: &Reader<'_>, draft: &Draft) -> Result<Self, StoreError> {
        let entity = &draft.entity;
        let page_id = match entity.kind {
            Kind::Page => Some(entity.id.clone()),
            Kind::Component | Kind::Incident => {
                page_of(reader, entity)?.or_else(|| page_in(&draft.change))
            }
            _ => None,
        };
        let page = match &page_id {
            Some(page_id) => view(reader, page_id)?,
            None => None,
        };
        Ok(Self { page_id, page })
    }
}

/// The page an entity belongs to, deleted or not.
fn page_of(reader: &Reader<'_>, entity: &EntityRef) -> Result<Option<String>, StoreError> {
    let state = reader.state(entity)?;
    let merged = state.as_ref().and_then(|state| state.local());
    Ok(merged.and_then(|merged| merged.text(Component::PAGE)).map(str::to_owned))
}

/// The page that a new entity says it belongs to.
fn page_in(change: &Change) -> Option<String> {
    let Change::Merge(mutations) = change else { return None };
    mutations.iter().find_map(|targeted| match (&targeted.entity, &targeted.mutation) {
        (None, Mutation::Write { cell, value }) if cell == Component::PAGE => {
            value.as_str().map(str::to_owned)
        }
        _ => None,
    })
}

fn view(reader: &Reader<'_>, page_id: &str) -> Result<Option<PageView>, StoreError> {
    let Some(page) = reader.page(page_id)? else { return Ok(None) };
    let components = reader.components(page_id)?;
    let indicator = reader.indicator(page_id)?;
    Ok(Some(PageView { page: page.value, components, indicator }))
}

fn subject(
    reader: &Reader<'_>,
    operation: &Operation,
    before: Before,
) -> Result<Subject, StoreError> {
    let entity = &operation.entity;
    Ok(match entity.kind {
        Kind::Page | Kind::Component | Kind::Incident => {
            let Some(page_id) = before.page_id else { return Ok(Subject::Nothing) };
            let after = view(reader, &page_id)?;
            let state = reader.state(entity)?;
            let component = state.as_ref().and_then(|state| match entity.kind {
                Kind::Component => Component::read(&entity.id, state),
                _ => None,
            });
            let incident = state.as_ref().and_then(|state| match entity.kind {
                Kind::Incident => Incident::read(&entity.id, state),
                _ => None,
            });
            Subject::Page { page_id, before: before.page, after, component, incident }
        }
        Kind::Site => {
            let state = reader.state(entity)?;
            let site = state.as_ref().and_then(Site::read).map(|site| site.site);
            Subject::Site { id: entity.id.clone(), after: site }
        }
        Kind::Purge => match &operation.change {
            Change::Purge(order) => Subject::Purge(order.clone()),
            _ => Subject::Nothing,
        },
        Kind::Topic => match &operation.change {
            Change::Event(event) => {
                Subject::Event { topic: entity.id.clone(), event: event.clone() }
            }
            _ => Subject::Nothing,
        },
        Kind::Name | Kind::ApiKey | Kind::Edge => Subject::Nothing,
    })
}
