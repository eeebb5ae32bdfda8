//! An incident: a title, and updates that are only ever appended. Its status is its newest
//! update's.

use std::{collections::BTreeMap, fmt, str::FromStr};

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{Invalid, component::ComponentStatus, impact::Impact};
use crate::log::merge::EntityState;

/// An incident of a page.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Incident {
    /// Stable identity.
    pub id: String,
    /// Its page.
    pub page_id: String,
    /// What visitors read.
    pub title: String,
    /// The newest update's.
    pub status: IncidentStatus,
    /// Its weight.
    pub impact: Impact,
    /// Component id → the status the newest update naming it gave.
    pub components: BTreeMap<String, ComponentStatus>,
    /// Oldest first, at least one.
    pub updates: Vec<Update>,
    /// ms since the Unix epoch.
    pub created_at_ms: u64,
    /// ms since the Unix epoch.
    pub updated_at_ms: u64,
    /// When it became resolved, if it is; ms since the Unix epoch.
    pub resolved_at_ms: Option<u64>,
}

/// One update of an incident.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Update {
    /// Stable identity.
    pub id: String,
    /// The incident's status from here on.
    pub status: IncidentStatus,
    /// What visitors read; the only part that can be edited afterwards.
    pub message: String,
    /// Component id → status given with this update.
    pub components: BTreeMap<String, ComponentStatus>,
    /// ms since the Unix epoch.
    pub created_at_ms: u64,
}

/// What is appended for an update.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct UpdateEntry {
    /// The incident's status from here on.
    pub status: IncidentStatus,
    /// The text as first written.
    pub message: String,
    /// Component id → status.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub components: BTreeMap<String, ComponentStatus>,
}

impl Incident {
    /// Cell of [`Incident::page_id`].
    pub const PAGE: &str = "page";
    /// Cell of [`Incident::title`].
    pub const TITLE: &str = "title";
    /// Cell of [`Incident::impact`].
    pub const IMPACT: &str = "impact";

    /// The cell that holds an edited text of an update.
    pub fn message_cell(update_id: &str) -> String {
        format!("message/{update_id}")
    }

    /// Reads an incident from its entity's state; `None` when deleted or not (yet) whole.
    pub fn read(id: &str, state: &EntityState) -> Option<Self> {
        let merged = state.local().filter(|merged| !merged.is_deleted())?;
        let mut updates = Vec::with_capacity(merged.entries.len());
        let mut components = BTreeMap::new();
        let mut resolved_at_ms = None;
        for entry in &merged.entries {
            let Ok(update) = serde_json::from_value::<UpdateEntry>(entry.value.clone()) else {
                continue;
            };
            let created_at_ms = entry.stamp.hlc.ms();
            resolved_at_ms = match update.status {
                IncidentStatus::Resolved => resolved_at_ms.or(Some(created_at_ms)),
                _ => None,
            };
            components.extend(update.components.clone());
            let edited = merged.text(&Self::message_cell(&entry.id)).map(str::to_owned);
            updates.push(Update {
                id: entry.id.clone(),
                status: update.status,
                message: edited.unwrap_or(update.message),
                components: update.components,
                created_at_ms,
            });
        }
        Some(Self {
            id: id.to_owned(),
            page_id: merged.text(Self::PAGE)?.to_owned(),
            title: merged.text(Self::TITLE)?.to_owned(),
            status: updates.last()?.status,
            impact: merged.text(Self::IMPACT).and_then(|i| i.parse().ok()).unwrap_or_default(),
            components,
            updates,
            created_at_ms: merged.created.ms(),
            updated_at_ms: merged.updated.ms(),
            resolved_at_ms,
        })
    }

    /// Whether it is not resolved.
    pub fn is_open(&self) -> bool {
        self.status != IncidentStatus::Resolved
    }
}

/// How far the work on an incident is.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum IncidentStatus {
    /// Looking for the cause.
    Investigating,
    /// The cause is known.
    Identified,
    /// A remedy is in place and watched.
    Monitoring,
    /// Over.
    Resolved,
}

impl IncidentStatus {
    /// In the usual order.
    pub const ALL: [Self; 4] =
        [Self::Investigating, Self::Identified, Self::Monitoring, Self::Resolved];

    /// The word on the wire and in the store.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Investigating => "investigating",
            Self::Identified => "identified",
            Self::Monitoring => "monitoring",
            Self::Resolved => "resolved",
        }
    }
}

impl FromStr for IncidentStatus {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        Self::ALL.into_iter().find(|status| status.as_str() == text).ok_or(Invalid {
            code: "incident_status",
            expected: "one of investigating, identified, monitoring, resolved",
        })
    }
}

impl fmt::Display for IncidentStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::{
        cell::Stamp,
        hlc::Hlc,
        merge::{EntityState, Merged},
        operation::Mutation,
    };

    fn state(mutations: &[(u64, &str, Mutation)]) -> EntityState {
        let mut merged = Merged::default();
        for (ms, dot, mutation) in mutations {
            let stamp = Stamp {
                dot: dot.parse().expect("valid"),
                hlc: Hlc::from_ms(*ms),
                context: Default::default(),
            };
            merged.apply(&stamp, mutation);
        }
        EntityState::Local(merged)
    }

    fn update(id: &str, status: &str) -> Mutation {
        let value = serde_json::json!({"status": status, "message": id});
        Mutation::Append { id: id.into(), value }
    }

    #[test]
    fn the_status_is_the_newest_updates_whatever_order_they_arrived_in() {
        let incident = Incident::read(
            "i",
            &state(&[
                (30, "us-00000001:1", update("third", "resolved")),
                (10, "eu-00000001:1", Mutation::write("page", "p")),
                (10, "eu-00000001:1", Mutation::write("title", "t")),
                (10, "eu-00000001:1", update("first", "investigating")),
                (20, "eu-00000001:2", update("second", "identified")),
                (40, "eu-00000001:3", Mutation::write("message/first", "edited")),
            ]),
        );
        let incident = incident.expect("whole");
        assert_eq!(incident.status, IncidentStatus::Resolved);
        assert_eq!(incident.resolved_at_ms, Some(30));
        assert_eq!((incident.created_at_ms, incident.updated_at_ms), (10, 40));
        let messages: Vec<_> = incident.updates.iter().map(|u| u.message.as_str()).collect();
        assert_eq!(messages, ["edited", "second", "third"]);
    }

    #[test]
    fn an_incident_opened_again_is_not_resolved() {
        let incident = Incident::read(
            "i",
            &state(&[
                (10, "eu-00000001:1", Mutation::write("page", "p")),
                (10, "eu-00000001:1", Mutation::write("title", "t")),
                (10, "eu-00000001:1", update("first", "resolved")),
                (20, "eu-00000001:2", update("second", "monitoring")),
            ]),
        );
        let incident = incident.expect("whole");
        assert!(incident.is_open() && incident.resolved_at_ms.is_none());
    }
}
