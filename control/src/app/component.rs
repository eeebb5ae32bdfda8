//! Components of a page: make, change, delete.

use super::{FieldError, Refusal, names, page};
use crate::{
    limits,
    log::{
        merge::DELETED,
        operation::{Change, Draft, EntityRef, Kind, Mutation},
    },
    model::component::{Component, ComponentStatus},
    store::sqlite::{Reader, Txn, read::Tagged},
};

/// A component to make, its fields already checked one by one.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct New {
    /// See [`Component::slug`].
    pub slug: String,
    /// See [`Component::name`].
    pub name: String,
    /// See [`Component::description`].
    pub description: String,
    /// See [`Component::status`].
    pub status: ComponentStatus,
    /// See [`Component::position`]; at the end if absent.
    pub position: Option<i64>,
}

/// Changes of a component; what is absent stays.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Patch {
    /// See [`Component::slug`].
    pub slug: Option<String>,
    /// See [`Component::name`].
    pub name: Option<String>,
    /// See [`Component::description`].
    pub description: Option<String>,
    /// See [`Component::status`].
    pub status: Option<ComponentStatus>,
    /// See [`Component::position`].
    pub position: Option<i64>,
}

/// Makes a component.
pub fn create(txn: &mut Txn<'_>, page_slug: &str, new: New) -> Result<Tagged<Component>, Refusal> {
    let page = page::find(txn, page_slug)?.value;
    check_free(txn, &page.id, &new.slug)?;
    let components = txn.components(&page.id)?;
    if components.len() >= limits::COMPONENTS_MAX {
        return Err(Refusal::invalid("", "count", "a page with fewer than 1,000 components"));
    }
    let last = components.iter().map(|component| component.position).max();
    let position = new.position.unwrap_or(last.map_or(0, |last| last.saturating_add(1)));
    let entity = EntityRef::new(Kind::Component, txn.new_id());
    names::check_new(txn, &entity)?;
    let mut mutations = vec![
        Mutation::write(Component::PAGE, page.id.clone()).here(),
        Mutation::write(Component::SLUG, new.slug.clone()).here(),
        Mutation::write(Component::NAME, new.name).here(),
        Mutation::write(Component::STATUS, new.status.as_str()).here(),
        Mutation::write(Component::POSITION, position).here(),
    ];
    if !new.description.is_empty() {
        mutations.push(Mutation::write(Component::DESCRIPTION, new.description).here());
    }
    txn.append(Draft { entity, change: Change::Merge(mutations) })?;
    by_slug(txn, &page.id, &new.slug)
}

/// Changes a component.
pub fn change(
    txn: &mut Txn<'_>,
    page_slug: &str,
    slug: &str,
    if_match: Option<&str>,
    patch: Patch,
) -> Result<Tagged<Component>, Refusal> {
    let (page_id, component) = find(txn, page_slug, slug)?;
    names::check_match(if_match, &names::etag(component.dot))?;
    let component = component.value;
    let mut mutations = Vec::new();
    let mut now = component.slug.clone();
    if let Some(slug) = patch.slug.filter(|slug| *slug != component.slug) {
        check_free(txn, &page_id, &slug)?;
        now.clone_from(&slug);
        mutations.push(Mutation::write(Component::SLUG, slug).here());
    }
    if let Some(name) = patch.name.filter(|name| *name != component.name) {
        mutations.push(Mutation::write(Component::NAME, name).here());
    }
    if let Some(text) = patch.description.filter(|text| *text != component.description) {
        mutations.push(Mutation::write(Component::DESCRIPTION, text).here());
    }
    if let Some(status) = patch.status.filter(|status| *status != component.status) {
        mutations.push(Mutation::write(Component::STATUS, status.as_str()).here());
    }
    if let Some(position) = patch.position.filter(|at| *at != component.position) {
        mutations.push(Mutation::write(Component::POSITION, position).here());
    }
    if !mutations.is_empty() {
        let entity = EntityRef::new(Kind::Component, component.id);
        txn.append(Draft { entity, change: Change::Merge(mutations) })?;
    }
    by_slug(txn, &page_id, &now)
}

/// Deletes a component.
pub fn delete(
    txn: &mut Txn<'_>,
    page_slug: &str,
    slug: &str,
    if_match: Option<&str>,
) -> Result<(), Refusal> {
    let (_, component) = find(txn, page_slug, slug)?;
    names::check_match(if_match, &names::etag(component.dot))?;
    let entity = EntityRef::new(Kind::Component, component.value.id);
    let mutations = vec![Mutation::write(DELETED, true).here()];
    txn.append(Draft { entity, change: Change::Merge(mutations) })?;
    Ok(())
}

/// A component by its page's slug and its own; with the page's id.
pub fn find(
    reader: &Reader<'_>,
    page_slug: &str,
    slug: &str,
) -> Result<(String, Tagged<Component>), Refusal> {
    let page = page::find(reader, page_slug)?.value;
    let component = reader.component_by_slug(&page.id, slug)?;
    let component = component.ok_or_else(|| Refusal::not_found("component", slug))?;
    Ok((page.id, component))
}

fn by_slug(txn: &Txn<'_>, page_id: &str, slug: &str) -> Result<Tagged<Component>, Refusal> {
    txn.component_by_slug(page_id, slug)?.ok_or_else(|| Refusal::not_found("component", slug))
}

fn check_free(txn: &Txn<'_>, page_id: &str, slug: &str) -> Result<(), Refusal> {
    match txn.component_by_slug(page_id, slug)? {
        None => Ok(()),
        Some(_) => Err(Refusal::Conflict(FieldError::new(
            "/slug",
            "taken",
            "a slug that no other component of this page has",
        ))),
    }
}
