//! Names that only one page or site can have: slugs and host names.
//!
//! A name is an entity of its own at the majority level, so that two regions can never give it away
//! twice, while the page that bears it stays writable in any partition.

use serde::{Deserialize, Serialize};

use crate::log::{
    merge::EntityState,
    operation::{EntityRef, Kind},
};

/// Who holds a name.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Claim {
    /// The holder.
    pub owner: EntityRef,
}

impl Claim {
    /// Reads a claim from its entity's state; `None` when the name is free.
    pub fn read(state: &EntityState) -> Option<Self> {
        serde_json::from_value(state.majority()?.value.clone()?).ok()
    }
}

/// The entity of a page's slug.
pub fn slug(slug: &str) -> EntityRef {
    EntityRef::new(Kind::Name, format!("slug/{slug}"))
}

/// The entity of a host name, be it a page's or a site's.
pub fn host(host: &str) -> EntityRef {
    EntityRef::new(Kind::Name, format!("host/{host}"))
}

/// The entity of a site's name.
pub fn site(name: &str) -> EntityRef {
    EntityRef::new(Kind::Name, format!("site/{name}"))
}

/// The entity of an edge's name.
pub fn edge(name: &str) -> EntityRef {
    EntityRef::new(Kind::Name, format!("edge/{name}"))
}
