//! Sites: make, change, remove. Name and hosts are unique names of the majority level, as the site
//! itself.

use proto::feed::{rule::Rule, site};

use super::{FieldError, Refusal, names};
use crate::{
    log::operation::{EntityRef, Kind},
    model::{self, name, site::Site},
    store::sqlite::{Reader, Txn, read::Tagged},
};

/// Changes of a site; what is absent stays.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Patch {
    /// See [`site::Site::name`].
    pub name: Option<String>,
    /// See [`site::Site::hosts`].
    pub hosts: Option<Vec<String>>,
    /// See [`site::Site::origins`].
    pub origins: Option<Vec<site::Origin>>,
    /// See [`site::Site::routes`].
    pub routes: Option<Vec<site::Route>>,
    /// See [`site::Site::token_keys`].
    pub token_keys: Option<Vec<site::TokenKey>>,
    /// See [`site::Site::rules`].
    pub rules: Option<Vec<Rule>>,
    /// See [`site::Site::purge_keys`].
    pub purge_keys: Option<Vec<site::PurgeKey>>,
}

/// Makes a site; `new.id` is not looked at.
pub fn create(txn: &mut Txn<'_>, new: site::Site) -> Result<Tagged<Site>, Refusal> {
    let id = txn.new_id();
    let entity = EntityRef::new(Kind::Site, &id);
    names::check_new(txn, &entity)?;
    save(txn, None, site::Site { id: id.clone(), ..new })?;
    by_id(txn, &id)
}

/// Changes a site.
pub fn change(
    txn: &mut Txn<'_>,
    name: &str,
    if_match: Option<&str>,
    patch: Patch,
) -> Result<Tagged<Site>, Refusal> {
    let found = find(txn, name)?;
    names::check_match(if_match, &names::etag(found.dot))?;
    let old = found.value.site;
    let new = site::Site {
        id: old.id.clone(),
        name: patch.name.unwrap_or_else(|| old.name.clone()),
        hosts: patch.hosts.unwrap_or_else(|| old.hosts.clone()),
        origins: patch.origins.unwrap_or_else(|| old.origins.clone()),
        routes: patch.routes.unwrap_or_else(|| old.routes.clone()),
        token_keys: patch.token_keys.unwrap_or_else(|| old.token_keys.clone()),
        rules: patch.rules.unwrap_or_else(|| old.rules.clone()),
        purge_keys: patch.purge_keys.unwrap_or_else(|| old.purge_keys.clone()),
    };
    if new != old {
        save(txn, Some(&old), new)?;
    }
    by_id(txn, &old.id)
}

/// Removes a site; its names are free again, its cached entries go.
pub fn delete(txn: &mut Txn<'_>, name: &str, if_match: Option<&str>) -> Result<(), Refusal> {
    let found = find(txn, name)?;
    names::check_match(if_match, &names::etag(found.dot))?;
    let site = found.value.site;
    let entity = EntityRef::new(Kind::Site, &site.id);
    names::release(txn, name::site(&site.name), &entity)?;
    for host in &site.hosts {
        names::release(txn, name::host(host), &entity)?;
    }
    names::remove(txn, entity)
}

/// A site by name or id.
pub fn find(reader: &Reader<'_>, name: &str) -> Result<Tagged<Site>, Refusal> {
    if let Some(site) = reader.site_by_name(name)? {
        return Ok(site);
    }
    reader.site(name)?.ok_or_else(|| Refusal::not_found("site", name))
}

fn save(txn: &mut Txn<'_>, old: Option<&site::Site>, new: site::Site) -> Result<(), Refusal> {
    let errors = model::site::check(&new)
        .into_iter()
        .map(|(pointer, invalid)| FieldError::of(pointer, invalid))
        .collect();
    Refusal::unless_empty(errors)?;
    let entity = EntityRef::new(Kind::Site, &new.id);
    names::claim(txn, name::site(&new.name), &entity, "/name")?;
    for (at, host) in new.hosts.iter().enumerate() {
        names::claim(txn, name::host(host), &entity, format!("/hosts/{at}"))?;
    }
    if let Some(old) = old {
        if old.name != new.name {
            names::release(txn, name::site(&old.name), &entity)?;
        }
        for host in old.hosts.iter().filter(|host| !new.hosts.contains(host)) {
            names::release(txn, name::host(host), &entity)?;
        }
    }
    names::put(txn, entity, &new)
}

fn by_id(txn: &Txn<'_>, id: &str) -> Result<Tagged<Site>, Refusal> {
    txn.site(id)?.ok_or_else(|| Refusal::not_found("site", id))
}
