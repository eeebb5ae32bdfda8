//! Pages: make, change, delete. Slug and hosts are claimed as unique names with the page's own
//! operation.

use super::{Refusal, names};
use crate::{
    log::{
        merge::DELETED,
        operation::{Change, Draft, EntityRef, Kind, Mutation, Targeted},
    },
    model::{self, name, page::Page},
    store::sqlite::{Txn, read::Tagged},
};

/// A page to make, its fields already checked one by one.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct New {
    /// See [`Page::slug`].
    pub slug: String,
    /// See [`Page::name`].
    pub name: String,
    /// See [`Page::hosts`].
    pub hosts: Vec<String>,
}

/// Changes of a page; what is absent stays.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Patch {
    /// See [`Page::slug`].
    pub slug: Option<String>,
    /// See [`Page::name`].
    pub name: Option<String>,
    /// See [`Page::hosts`].
    pub hosts: Option<Vec<String>>,
}

/// Makes a page.
pub fn create(txn: &mut Txn<'_>, new: New) -> Result<Tagged<Page>, Refusal> {
    let id = txn.new_id();
    let entity = EntityRef::new(Kind::Page, &id);
    names::check_new(txn, &entity)?;
    names::claim(txn, name::slug(&new.slug), &entity, "/slug")?;
    for (at, host) in new.hosts.iter().enumerate() {
        names::claim(txn, name::host(host), &entity, format!("/hosts/{at}"))?;
    }
    let mut mutations = vec![
        Mutation::write(Page::SLUG, new.slug).here(),
        Mutation::write(Page::NAME, new.name).here(),
    ];
    mutations.extend(new.hosts.into_iter().map(add_host));
    txn.append(Draft { entity, change: Change::Merge(mutations) })?;
    by_id(txn, &id)
}

/// Changes a page.
pub fn change(
    txn: &mut Txn<'_>,
    slug: &str,
    if_match: Option<&str>,
    patch: Patch,
) -> Result<Tagged<Page>, Refusal> {
    let page = find(txn, slug)?;
    names::check_match(if_match, &names::etag(page.dot))?;
    let (page, entity) = (page.value.clone(), EntityRef::new(Kind::Page, &page.value.id));
    let mut mutations = Vec::new();
    if let Some(slug) = patch.slug.filter(|slug| *slug != page.slug) {
        names::claim(txn, name::slug(&slug), &entity, "/slug")?;
        names::release(txn, name::slug(&page.slug), &entity)?;
        mutations.push(Mutation::write(Page::SLUG, slug).here());
    }
    if let Some(name) = patch.name.filter(|name| *name != page.name) {
        mutations.push(Mutation::write(Page::NAME, name).here());
    }
    if let Some(hosts) = patch.hosts {
        for (at, host) in hosts.iter().enumerate().filter(|(_, host)| !page.hosts.contains(host)) {
            names::claim(txn, name::host(host), &entity, format!("/hosts/{at}"))?;
            mutations.push(add_host(host.clone()));
        }
        for host in page.hosts.iter().filter(|host| !hosts.contains(host)) {
            names::release(txn, name::host(host), &entity)?;
            let (set, element) = (Page::HOSTS.to_owned(), host.clone());
            mutations.push(Mutation::Remove { set, element }.here());
        }
    }
    if !mutations.is_empty() {
        txn.append(Draft { entity, change: Change::Merge(mutations) })?;
    }
    by_id(txn, &page.id)
}

/// Deletes a page; its names are free again.
pub fn delete(txn: &mut Txn<'_>, slug: &str, if_match: Option<&str>) -> Result<(), Refusal> {
    let page = find(txn, slug)?;
    names::check_match(if_match, &names::etag(page.dot))?;
    let entity = EntityRef::new(Kind::Page, &page.value.id);
    names::release(txn, name::slug(&page.value.slug), &entity)?;
    for host in &page.value.hosts {
        names::release(txn, name::host(host), &entity)?;
    }
    let mutations = vec![Mutation::write(DELETED, true).here()];
    txn.append(Draft { entity, change: Change::Merge(mutations) })?;
    Ok(())
}

/// A page by slug or id.
pub fn find(
    reader: &crate::store::sqlite::Reader<'_>,
    slug: &str,
) -> Result<Tagged<Page>, Refusal> {
    if let Some(page) = reader.page_by_slug(slug)? {
        return Ok(page);
    }
    if model::id::is_id(slug)
        && let Some(page) = reader.page(slug)?
    {
        return Ok(page);
    }
    Err(Refusal::not_found("page", slug))
}

fn by_id(txn: &Txn<'_>, id: &str) -> Result<Tagged<Page>, Refusal> {
    txn.page(id)?.ok_or_else(|| Refusal::not_found("page", id))
}

fn add_host(host: String) -> Targeted {
    Mutation::Add { set: Page::HOSTS.to_owned(), element: host }.here()
}
