//! A status page: its name, its place and its hosts. Components and incidents name it, not the
//! other way round.

use proto::feed::site::RESERVED_SLUGS;

use super::{Invalid, check_slug};
use crate::log::merge::EntityState;

/// A status page.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Page {
    /// Stable identity, part of surrogate key and topic.
    pub id: String,
    /// Under a shared host it lives at `/<slug>/`.
    pub slug: String,
    /// What visitors read at the top.
    pub name: String,
    /// Hosts of its own, sorted.
    pub hosts: Vec<String>,
    /// ms since the Unix epoch.
    pub created_at_ms: u64,
    /// Of the page itself, not of its components or incidents; ms since the Unix epoch.
    pub updated_at_ms: u64,
}

impl Page {
    /// Cell of [`Page::slug`].
    pub const SLUG: &str = "slug";
    /// Cell of [`Page::name`].
    pub const NAME: &str = "name";
    /// Set of [`Page::hosts`].
    pub const HOSTS: &str = "hosts";

    /// Reads a page from its entity's state; `None` when deleted or not (yet) whole.
    pub fn read(id: &str, state: &EntityState) -> Option<Self> {
        let merged = state.local().filter(|merged| !merged.is_deleted())?;
        Some(Self {
            id: id.to_owned(),
            slug: merged.text(Self::SLUG)?.to_owned(),
            name: merged.text(Self::NAME)?.to_owned(),
            hosts: merged.elements(Self::HOSTS),
            created_at_ms: merged.created.ms(),
            updated_at_ms: merged.updated.ms(),
        })
    }

    /// The URL path under a shared host.
    pub fn path(&self) -> String {
        format!("/{}/", self.slug)
    }

    /// As an edge sees it.
    pub fn to_feed(&self) -> proto::feed::site::Page {
        proto::feed::site::Page {
            id: self.id.clone(),
            slug: self.slug.clone(),
            hosts: self.hosts.clone(),
        }
    }
}

/// A slug that a page may take: well-formed, and no path that edge or control use themselves.
pub fn check_page_slug(slug: &str) -> Result<(), Invalid> {
    check_slug(slug)?;
    if RESERVED_SLUGS.contains(&slug) {
        return Err(Invalid {
            code: "reserved",
            expected: "a slug that Pharos does not use itself (such as api, assets, events, v1)",
        });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reserved_slugs_are_refused() {
        for slug in RESERVED_SLUGS {
            assert!(check_page_slug(slug).is_err(), "{slug}");
        }
        assert_eq!(check_page_slug("demo"), Ok(()));
    }
}
