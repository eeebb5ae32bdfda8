//! A part of what a page reports on, with its present status.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::Invalid;
use crate::log::merge::EntityState;

/// A component of a page.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Component {
    /// Stable identity.
    pub id: String,
    /// Its page.
    pub page_id: String,
    /// Unique on its page (when two regions create the same at once, the older is found by it).
    pub slug: String,
    /// What visitors read.
    pub name: String,
    /// May be empty.
    pub description: String,
    /// Now.
    pub status: ComponentStatus,
    /// Order on the page, smallest first.
    pub position: i64,
    /// ms since the Unix epoch.
    pub created_at_ms: u64,
    /// ms since the Unix epoch.
    pub updated_at_ms: u64,
}

impl Component {
    /// Cell of [`Component::page_id`].
    pub const PAGE: &str = "page";
    /// Cell of [`Component::slug`].
    pub const SLUG: &str = "slug";
    /// Cell of [`Component::name`].
    pub const NAME: &str = "name";
    /// Cell of [`Component::description`].
    pub const DESCRIPTION: &str = "description";
    /// Cell of [`Component::status`].
    pub const STATUS: &str = "status";
    /// Cell of [`Component::position`].
    pub const POSITION: &str = "position";

    /// Reads a component from its entity's state; `None` when deleted or not (yet) whole.
    pub fn read(id: &str, state: &EntityState) -> Option<Self> {
        let merged = state.local().filter(|merged| !merged.is_deleted())?;
        Some(Self {
            id: id.to_owned(),
            page_id: merged.text(Self::PAGE)?.to_owned(),
            slug: merged.text(Self::SLUG)?.to_owned(),
            name: merged.text(Self::NAME)?.to_owned(),
            description: merged.text(Self::DESCRIPTION).unwrap_or_default().to_owned(),
            status: merged.text(Self::STATUS).and_then(|s| s.parse().ok()).unwrap_or_default(),
            position: merged.value(Self::POSITION).and_then(|p| p.as_i64()).unwrap_or_default(),
            created_at_ms: merged.created.ms(),
            updated_at_ms: merged.updated.ms(),
        })
    }
}

/// How well a component works. Ordered from best to worst, maintenance just above operational.
#[derive(
    Clone,
    Copy,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Default,
    Debug,
    Serialize,
    Deserialize,
    ToSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum ComponentStatus {
    /// Works.
    #[default]
    Operational,
    /// Worked on by plan.
    UnderMaintenance,
    /// Slow or flawed.
    DegradedPerformance,
    /// Down for some.
    PartialOutage,
    /// Down.
    MajorOutage,
}

impl ComponentStatus {
    /// From best to worst.
    pub const ALL: [Self; 5] = [
        Self::Operational,
        Self::UnderMaintenance,
        Self::DegradedPerformance,
        Self::PartialOutage,
        Self::MajorOutage,
    ];

    /// The word on the wire and in the store.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Operational => "operational",
            Self::UnderMaintenance => "under_maintenance",
            Self::DegradedPerformance => "degraded_performance",
            Self::PartialOutage => "partial_outage",
            Self::MajorOutage => "major_outage",
        }
    }
}

impl FromStr for ComponentStatus {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        Self::ALL.into_iter().find(|status| status.as_str() == text).ok_or(Invalid {
            code: "component_status",
            expected: "one of operational, degraded_performance, partial_outage, major_outage, \
                       under_maintenance",
        })
    }
}

impl fmt::Display for ComponentStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_status_is_found_by_its_word() {
        for status in ComponentStatus::ALL {
            assert_eq!(status.as_str().parse(), Ok(status));
            let json = serde_json::to_value(status).expect("serialises");
            assert_eq!(json, status.as_str());
        }
        assert!("up".parse::<ComponentStatus>().is_err());
    }
}
