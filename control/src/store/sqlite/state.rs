//! Operations → state tables, by the one function that live appends, replay and compaction share.
//!
//! `entity` is the fold of `base` and `log`; its look-up columns and `conflict` are read out of the
//! folded state.

use rusqlite::{Connection, OptionalExtension as _, params};

use super::{StoreError, read::operation_of};
use crate::{
    log::{
        dot::Dot,
        merge::{EntityState, Merged, fold},
        operation::{Change, EntityRef, Kind, Operation},
    },
    model::{
        api_key::ApiKey, component::Component, edge::Edge, incident::Incident, page::Page,
        site::Site,
    },
};

/// Folds one operation into the state tables.
pub fn apply(conn: &Connection, operation: &Operation) -> Result<(), StoreError> {
    let touched = fold(operation, |entity| load(conn, ENTITY, entity))?;
    for (entity, state) in touched {
        save_entity(conn, &entity, operation.dot, &state)?;
    }
    if let Change::Purge(order) = &operation.change {
        conn.prepare_cached(
            "INSERT OR REPLACE INTO purge (id, position, dot, at_ms, purge_order) \
             VALUES (?1, ?2, ?3, ?4, ?5)",
        )?
        .execute(params![
            operation.entity.id,
            operation.position,
            operation.dot.to_string(),
            operation.hlc.ms(),
            serde_json::to_string(order)?
        ])?;
    }
    Ok(())
}

/// Folds an operation that leaves the log into the base.
pub fn apply_to_base(conn: &Connection, operation: &Operation) -> Result<(), StoreError> {
    let touched = fold(operation, |entity| load(conn, BASE, entity))?;
    for (entity, state) in touched {
        conn.prepare_cached(
            "INSERT OR REPLACE INTO base (kind, id, dot, state) VALUES (?1, ?2, ?3, ?4)",
        )?
        .execute(params![
            entity.kind.as_str(),
            entity.id,
            operation.dot.to_string(),
            serde_json::to_string(&state)?
        ])?;
    }
    Ok(())
}

/// Drops the state and folds it anew from base and log. The caller holds the transaction.
pub fn replay(conn: &Connection) -> Result<(), StoreError> {
    conn.execute_batch("DELETE FROM entity; DELETE FROM conflict; DELETE FROM purge;")?;
    let mut base = conn.prepare("SELECT kind, id, dot, state FROM base")?;
    let mut rows = base.query([])?;
    while let Some(row) = rows.next()? {
        let kind: String = row.get(0)?;
        let dot: String = row.get(2)?;
        let kind: Kind = kind.parse().map_err(|_| StoreError::Row(kind))?;
        let dot: Dot = dot.parse().map_err(|_| StoreError::Row(dot))?;
        let state: EntityState = serde_json::from_str(&row.get::<_, String>(3)?)?;
        save_entity(conn, &EntityRef::new(kind, row.get::<_, String>(1)?), dot, &state)?;
    }
    let mut log = conn.prepare("SELECT * FROM log ORDER BY position")?;
    let mut rows = log.query([])?;
    while let Some(row) = rows.next()? {
        apply(conn, &operation_of(row)?)?;
    }
    Ok(())
}

/// An entity's folded state.
pub fn load_entity(
    conn: &Connection,
    entity: &EntityRef,
) -> Result<Option<EntityState>, StoreError> {
    load(conn, ENTITY, entity)
}

const ENTITY: &str = "SELECT state FROM entity WHERE kind = ?1 AND id = ?2";
const BASE: &str = "SELECT state FROM base WHERE kind = ?1 AND id = ?2";

fn load(
    conn: &Connection,
    sql: &str,
    entity: &EntityRef,
) -> Result<Option<EntityState>, StoreError> {
    let state: Option<String> = conn
        .prepare_cached(sql)?
        .query_row(params![entity.kind.as_str(), entity.id], |row| row.get(0))
        .optional()?;
    Ok(state.map(|state| serde_json::from_str(&state)).transpose()?)
}

fn save_entity(
    conn: &Connection,
    entity: &EntityRef,
    dot: Dot,
    state: &EntityState,
) -> Result<(), StoreError> {
    let columns = Columns::of(entity, state);
    conn.prepare_cached(
        "INSERT OR REPLACE INTO entity (kind, id, page, name, rank, open, weight, dot, state) \
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)",
    )?
    .execute(params![
        entity.kind.as_str(),
        entity.id,
        columns.page,
        columns.name,
        columns.rank,
        columns.open,
        columns.weight,
        dot.to_string(),
        serde_json::to_string(state)?
    ])?;
    match state {
        EntityState::Local(merged) => save_conflicts(conn, entity, merged),
        EntityState::Majority(_) => Ok(()),
    }
}

fn save_conflicts(
    conn: &Connection,
    entity: &EntityRef,
    merged: &Merged,
) -> Result<(), StoreError> {
    conn.prepare_cached("DELETE FROM conflict WHERE kind = ?1 AND id = ?2")?
        .execute(params![entity.kind.as_str(), entity.id])?;
    for (name, cell) in &merged.cells {
        let Some(winner) = cell.winner() else { continue };
        for loser in cell.losers() {
            conn.prepare_cached(
                "INSERT INTO conflict (kind, id, cell, dot, value, winner) \
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
            )?
            .execute(params![
                entity.kind.as_str(),
                entity.id,
                name,
                loser.stamp.dot.to_string(),
                loser.value.to_string(),
                winner.stamp.dot.to_string()
            ])?;
        }
    }
    Ok(())
}

/// What look-ups need to see of a state.
#[derive(Default)]
struct Columns {
    page: String,
    name: Option<String>,
    rank: Option<u64>,
    open: bool,
    weight: Option<&'static str>,
}

impl Columns {
    fn of(entity: &EntityRef, state: &EntityState) -> Self {
        let id = &entity.id;
        let listed = |name: String, created: u64| Self {
            name: Some(name),
            rank: Some(created),
            ..Self::default()
        };
        let columns = match entity.kind {
            Kind::Page => Page::read(id, state).map(|page| listed(page.slug, page.created_at_ms)),
            Kind::Component => Component::read(id, state).map(|component| Self {
                page: component.page_id,
                weight: Some(component.status.as_str()),
                ..listed(component.slug, component.created_at_ms)
            }),
            Kind::Incident => Incident::read(id, state).map(|incident| Self {
                open: incident.is_open(),
                weight: Some(incident.impact.as_str()),
                rank: Some(incident.created_at_ms),
                page: incident.page_id,
                name: None,
            }),
            Kind::Site => Site::read(state).map(|site| listed(site.site.name, site.created_at_ms)),
            Kind::ApiKey => {
                ApiKey::read(id, state).map(|key| listed(key.digest, key.created_at_ms))
            }
            Kind::Edge => Edge::read(id, state).map(|edge| listed(edge.name, edge.created_at_ms)),
            Kind::Name | Kind::Purge | Kind::Topic => None,
        };
        columns.unwrap_or_default()
    }
}
