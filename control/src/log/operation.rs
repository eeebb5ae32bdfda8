//! The envelope of every change: who, when, seeing what, about which entity, and the change itself.
//!
//! Frozen as format 1: fields are added, never changed in meaning. Owns nothing; `log::append`
//! makes operations,
//! `log::merge` folds them.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{
    dot::{Dot, VersionVector},
    hlc::Hlc,
};
use proto::feed::record::Scope;

/// The newest format this program writes, and the newest it reads.
pub const FORMAT: u16 = 1;

/// One change, as it lies in the log and travels between regions.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Operation {
    /// Format of this envelope, see [`FORMAT`].
    pub format: u16,
    /// Its name everywhere.
    pub dot: Dot,
    /// Order of arrival in *this* store, ≥ 1, without meaning elsewhere.
    pub position: u64,
    /// Everything the writer had applied; never contains `dot` itself.
    pub context: VersionVector,
    /// When it was written.
    pub hlc: Hlc,
    /// Who: `key/<id>` or `system`.
    pub actor: String,
    /// The request that asked for it.
    pub request: String,
    /// How long it is kept.
    pub class: Class,
    /// What it is about.
    pub entity: EntityRef,
    /// What changes.
    pub change: Change,
}

impl Operation {
    /// The state of which this operation is part: all the writer had seen, and itself.
    pub fn version(&self) -> VersionVector {
        let mut version = self.context.clone();
        version.observe(self.dot);
        version
    }
}

#[cfg(test)]
impl Operation {
    /// One of no consequence, for tests of what is made of operations.
    pub(crate) fn example(kind: Kind) -> Self {
        Self {
            format: FORMAT,
            dot: "eu-00000001:41".parse().expect("valid"),
            position: 50,
            context: "eu-00000001:40".parse().expect("valid"),
            hlc: Hlc::from_ms(1),
            actor: "a".into(),
            request: "r".into(),
            class: Class::State,
            entity: EntityRef::new(kind, "e"),
            change: Change::Merge(Vec::new()),
        }
    }
}

/// An operation before it has a place in the log.
#[derive(Clone, PartialEq, Debug)]
pub struct Draft {
    /// What it is about.
    pub entity: EntityRef,
    /// What changes.
    pub change: Change,
}

/// Fixes how long an operation is kept.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Class {
    /// Part of the state: kept for `retention.log_days`, then folded into the base.
    State,
    /// An instruction of the moment, such as a purge: kept for `retention.feed_hours`.
    Publish,
    /// An event that a customer published: kept for `retention.event_minutes`, but for the newest
    /// of its event key.
    Event,
}

impl Class {
    /// Every class.
    pub const ALL: [Self; 3] = [Self::State, Self::Publish, Self::Event];

    /// The word in the store.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::State => "state",
            Self::Publish => "publish",
            Self::Event => "event",
        }
    }
}

/// What an operation is about.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct EntityRef {
    /// Its type.
    pub kind: Kind,
    /// Its identity, unique within its type.
    pub id: String,
}

impl EntityRef {
    /// Names an entity.
    pub fn new(kind: Kind, id: impl Into<String>) -> Self {
        Self { kind, id: id.into() }
    }
}

impl fmt::Display for EntityRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.kind.as_str(), self.id)
    }
}

/// The types of entities. Each has exactly one [`Level`].
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// A status page.
    Page,
    /// A component of a page.
    Component,
    /// An incident of a page.
    Incident,
    /// A customer's hosts, origins and routes.
    Site,
    /// A slug or host name that only one page or site can have.
    Name,
    /// An API key.
    ApiKey,
    /// An enrolled edge.
    Edge,
    /// A purge that an operator ordered.
    Purge,
    /// What a customer publishes to; named by itself.
    Topic,
}

/// How writes of an entity type meet those of other regions.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Level {
    /// Written in any partition; concurrent writes merge.
    Local,
    /// Compared and set, entity by entity, through a majority of regions. With one region that is
    /// one local commit.
    Majority,
}

impl Kind {
    /// Every kind.
    pub const ALL: [Self; 9] = [
        Self::Page,
        Self::Component,
        Self::Incident,
        Self::Site,
        Self::Name,
        Self::ApiKey,
        Self::Edge,
        Self::Purge,
        Self::Topic,
    ];

    /// The one level of this type.
    pub const fn level(self) -> Level {
        match self {
            Self::Page | Self::Component | Self::Incident | Self::Purge | Self::Topic => {
                Level::Local
            }
            Self::Site | Self::Name | Self::ApiKey | Self::Edge => Level::Majority,
        }
    }

    /// The class of operations on this type.
    pub const fn class(self) -> Class {
        match self {
            Self::Purge => Class::Publish,
            Self::Topic => Class::Event,
            _ => Class::State,
        }
    }

    /// The name in the store.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Page => "page",
            Self::Component => "component",
            Self::Incident => "incident",
            Self::Site => "site",
            Self::Name => "name",
            Self::ApiKey => "api_key",
            Self::Edge => "edge",
            Self::Purge => "purge",
            Self::Topic => "topic",
        }
    }
}

impl FromStr for Kind {
    type Err = UnknownKind;

    fn from_str(text: &str) -> Result<Self, UnknownKind> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == text).ok_or(UnknownKind)
    }
}

/// A kind of entity that this program does not know: the store was written by a newer one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct UnknownKind;

impl fmt::Display for UnknownKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("unknown kind of entity")
    }
}

impl std::error::Error for UnknownKind {}

/// What changes.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Change {
    /// Mutations that merge with concurrent ones; for entities of level [`Level::Local`].
    Merge(Vec<Targeted>),
    /// The whole value, set only where `expected` is still the revision; for entities of level
    /// [`Level::Majority`].
    Set {
        /// The revision this replaces; 0 for an entity that is not there.
        expected: u64,
        /// The new value; `None` removes.
        value: Option<Value>,
    },
    /// An order to edges, without state.
    Purge(PurgeOrder),
    /// An event for the streams of a topic, without state.
    Event(TopicEvent),
}

/// A mutation and the entity it touches: the operation's own, or another of a local level (an
/// incident's update writes its components' status).
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Targeted {
    /// Absent: the operation's own entity.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub entity: Option<EntityRef>,
    /// What changes there.
    pub mutation: Mutation,
}

/// One mergeable change of one entity.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Mutation {
    /// Writes a cell; last writer wins, a concurrent loser stays visible.
    Write {
        /// Which cell.
        cell: String,
        /// Its new value.
        value: Value,
    },
    /// Adds to a set; wins over a concurrent removal.
    Add {
        /// Which set.
        set: String,
        /// What is added.
        element: String,
    },
    /// Removes from a set what the writer had seen in it.
    Remove {
        /// Which set.
        set: String,
        /// What is removed.
        element: String,
    },
    /// Appends an entry that nothing ever takes away.
    Append {
        /// The entry's identity.
        id: String,
        /// The entry.
        value: Value,
    },
}

impl Mutation {
    /// A cell write.
    pub fn write(cell: impl Into<String>, value: impl Into<Value>) -> Self {
        Self::Write { cell: cell.into(), value: value.into() }
    }

    /// The mutation, on the operation's own entity.
    pub fn here(self) -> Targeted {
        Targeted { entity: None, mutation: self }
    }

    /// The mutation, on another entity.
    pub fn on(self, entity: EntityRef) -> Targeted {
        Targeted { entity: Some(entity), mutation: self }
    }
}

/// What edges are ordered to purge.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct PurgeOrder {
    /// What it reaches.
    pub scope: Scope,
    /// Mark stale instead of removing.
    #[serde(default)]
    pub soft: bool,
}

/// What is published to a topic.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct TopicEvent {
    /// Its name, as streams give it.
    pub event: String,
    /// What it says.
    pub data: String,
    /// What of the topic it tells: the newest of each event key is the topic's present state.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_operation_survives_its_json_form() {
        let operation = Operation {
            format: FORMAT,
            dot: "eu-00000001:4".parse().expect("valid"),
            position: 9,
            context: "eu-00000001:3".parse().expect("valid"),
            hlc: Hlc(u64::MAX - 3),
            actor: "key/k".into(),
            request: "r".into(),
            class: Class::State,
            entity: EntityRef::new(Kind::Incident, "i"),
            change: Change::Merge(vec![
                Mutation::write("status", "identified").on(EntityRef::new(Kind::Component, "c")),
                Mutation::Append { id: "u".into(), value: serde_json::json!({"message": "m"}) }
                    .here(),
            ]),
        };
        let json = serde_json::to_string(&operation).expect("serialises");
        assert_eq!(serde_json::from_str::<Operation>(&json).expect("parses"), operation);
        assert_eq!(operation.version().to_string(), "eu-00000001:4");
    }

    #[test]
    fn every_kind_is_found_by_its_name() {
        for kind in Kind::ALL {
            assert_eq!(kind.as_str().parse(), Ok(kind));
        }
    }
}
