//! Incidents: declare, change, update, delete.
//!
//! An update is one operation: it appends to the incident and writes its components' status, so
//! that visitors never see one without the other.

use std::collections::BTreeMap;

use super::{FieldError, Refusal, names, page};
use crate::{
    limits,
    log::{
        merge::DELETED,
        operation::{Change, Draft, EntityRef, Kind, Mutation, Targeted},
    },
    model::{
        component::{Component, ComponentStatus},
        impact::Impact,
        incident::{Incident, IncidentStatus, UpdateEntry},
        page::Page,
    },
    store::sqlite::{Reader, StoreError, Txn, read::Tagged},
};

/// An incident to declare, its fields already checked one by one.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct New {
    /// See [`Incident::title`].
    pub title: String,
    /// The first update's.
    pub status: IncidentStatus,
    /// The worst of the components if absent.
    pub impact: Option<Impact>,
    /// Component slug → status.
    pub components: BTreeMap<String, ComponentStatus>,
    /// The first update's text.
    pub message: String,
}

/// Changes of an incident; what is absent stays.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Patch {
    /// See [`Incident::title`].
    pub title: Option<String>,
    /// See [`Incident::impact`].
    pub impact: Option<Impact>,
}

/// An update to append, its fields already checked one by one.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct NewUpdate {
    /// The present status if absent.
    pub status: Option<IncidentStatus>,
    /// The text.
    pub message: String,
    /// Component slug → status.
    pub components: BTreeMap<String, ComponentStatus>,
}

/// An incident with its page and the page's components, as its wire form needs them.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Found {
    /// The incident.
    pub incident: Tagged<Incident>,
    /// Its page.
    pub page: Page,
    /// All the page's components.
    pub components: Vec<Component>,
}

/// Declares an incident.
pub fn create(txn: &mut Txn<'_>, page_slug: &str, new: New) -> Result<Found, Refusal> {
    let page = page::find(txn, page_slug)?.value;
    let components = txn.components(&page.id)?;
    let affected = by_id(&components, &new.components)?;
    let worst = affected.values().copied().map(Impact::of).max().unwrap_or_default();
    let entity = EntityRef::new(Kind::Incident, txn.new_id());
    names::check_new(txn, &entity)?;
    let mut mutations = vec![
        Mutation::write(Incident::PAGE, page.id.clone()).here(),
        Mutation::write(Incident::TITLE, new.title).here(),
        Mutation::write(Incident::IMPACT, new.impact.unwrap_or(worst).as_str()).here(),
    ];
    let entry = UpdateEntry { status: new.status, message: new.message, components: affected };
    mutations.extend(appending(txn, entry)?);
    let id = entity.id.clone();
    txn.append(Draft { entity, change: Change::Merge(mutations) })?;
    find(txn, &id)
}

/// Changes an incident's title or impact.
pub fn change(
    txn: &mut Txn<'_>,
    id: &str,
    if_match: Option<&str>,
    patch: Patch,
) -> Result<Found, Refusal> {
    let found = find(txn, id)?;
    names::check_match(if_match, &names::etag(found.incident.dot))?;
    let incident = found.incident.value;
    let mut mutations = Vec::new();
    if let Some(title) = patch.title.filter(|title| *title != incident.title) {
        mutations.push(Mutation::write(Incident::TITLE, title).here());
    }
    if let Some(impact) = patch.impact.filter(|impact| *impact != incident.impact) {
        mutations.push(Mutation::write(Incident::IMPACT, impact.as_str()).here());
    }
    append(txn, id, mutations)
}

/// Appends an update.
pub fn update(
    txn: &mut Txn<'_>,
    id: &str,
    if_match: Option<&str>,
    new: NewUpdate,
) -> Result<Found, Refusal> {
    let found = find(txn, id)?;
    names::check_match(if_match, &names::etag(found.incident.dot))?;
    let incident = &found.incident.value;
    if incident.updates.len() >= limits::UPDATES_MAX {
        return Err(Refusal::invalid("", "count", "an incident with fewer than 500 updates"));
    }
    let status = new.status.unwrap_or(incident.status);
    let mut components = by_id(&found.components, &new.components)?;
    if status == IncidentStatus::Resolved && components.is_empty() {
        components = recovered(txn, incident, &found.components)?;
    }
    let entry = UpdateEntry { status, message: new.message, components };
    let mutations = appending(txn, entry)?;
    append(txn, id, mutations)
}

/// Gives an update a better text.
pub fn edit_update(
    txn: &mut Txn<'_>,
    id: &str,
    update_id: &str,
    if_match: Option<&str>,
    message: String,
) -> Result<Found, Refusal> {
    let found = find(txn, id)?;
    names::check_match(if_match, &names::etag(found.incident.dot))?;
    let updates = &found.incident.value.updates;
    let Some(update) = updates.iter().find(|update| update.id == update_id) else {
        return Err(Refusal::not_found("update", update_id));
    };
    let mutations = if update.message == message {
        Vec::new()
    } else {
        vec![Mutation::write(Incident::message_cell(update_id), message).here()]
    };
    append(txn, id, mutations)
}

/// Deletes an incident. Its components keep the status they have.
pub fn delete(txn: &mut Txn<'_>, id: &str, if_match: Option<&str>) -> Result<(), Refusal> {
    let found = find(txn, id)?;
    names::check_match(if_match, &names::etag(found.incident.dot))?;
    let entity = EntityRef::new(Kind::Incident, id);
    let mutations = vec![Mutation::write(DELETED, true).here()];
    txn.append(Draft { entity, change: Change::Merge(mutations) })?;
    Ok(())
}

/// An incident of a page that is there.
pub fn find(reader: &Reader<'_>, id: &str) -> Result<Found, Refusal> {
    let missing = || Refusal::not_found("incident", id);
    let incident = reader.incident(id)?.ok_or_else(missing)?;
    let page = reader.page(&incident.value.page_id)?.ok_or_else(missing)?.value;
    let components = reader.components(&page.id)?;
    Ok(Found { incident, page, components })
}

fn append(txn: &mut Txn<'_>, id: &str, mutations: Vec<Targeted>) -> Result<Found, Refusal> {
    if !mutations.is_empty() {
        let entity = EntityRef::new(Kind::Incident, id);
        txn.append(Draft { entity, change: Change::Merge(mutations) })?;
    }
    find(txn, id)
}

/// The mutations of an update: the entry, and the status of each component it names.
fn appending(txn: &mut Txn<'_>, entry: UpdateEntry) -> Result<Vec<Targeted>, Refusal> {
    let statuses: Vec<Targeted> = entry
        .components
        .iter()
        .map(|(id, status)| {
            Mutation::write(Component::STATUS, status.as_str())
                .on(EntityRef::new(Kind::Component, id))
        })
        .collect();
    let value = serde_json::to_value(entry).map_err(StoreError::from)?;
    let mut mutations = vec![Mutation::Append { id: txn.new_id(), value }.here()];
    mutations.extend(statuses);
    Ok(mutations)
}

/// Slug → status as id → status; every slug that is no component of the page is an error.
fn by_id(
    components: &[Component],
    by_slug: &BTreeMap<String, ComponentStatus>,
) -> Result<BTreeMap<String, ComponentStatus>, Refusal> {
    let mut by_id = BTreeMap::new();
    let mut errors = Vec::new();
    for (slug, status) in by_slug {
        match components.iter().find(|component| component.slug == *slug) {
            Some(component) => {
                by_id.insert(component.id.clone(), *status);
            }
            None => errors.push(FieldError::new(
                format!("/components/{slug}"),
                "unknown",
                "the slug of a component of this page",
            )),
        }
    }
    Refusal::unless_empty(errors)?;
    Ok(by_id)
}

/// The components that become operational when this incident is resolved without naming any: those
/// it had set otherwise, that nobody has set since, and that no other open incident names.
fn recovered(
    reader: &Reader<'_>,
    incident: &Incident,
    components: &[Component],
) -> Result<BTreeMap<String, ComponentStatus>, Refusal> {
    let others = reader.open_incidents(&incident.page_id)?;
    let held = |id: &str| {
        others.iter().any(|other| {
            other.id != incident.id
                && other.components.get(id).is_some_and(|s| *s != ComponentStatus::Operational)
        })
    };
    let present = |id: &str| components.iter().find(|component| component.id == id);
    Ok(incident
        .components
        .iter()
        .filter(|(id, status)| {
            **status != ComponentStatus::Operational
                && present(id).is_some_and(|component| component.status == **status)
                && !held(id)
        })
        .map(|(id, _)| (id.clone(), ComponentStatus::Operational))
        .collect())
}
