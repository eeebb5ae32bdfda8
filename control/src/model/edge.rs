//! An enrolled edge, and what it last reported.

use proto::feed::{
    cursor::{Dot, FeedCursor, StoreId},
    record::Position,
};
use serde::{Deserialize, Serialize};

use crate::log::merge::EntityState;

/// An enrolled edge.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Edge {
    /// Stable identity.
    pub id: String,
    /// The operator's name for it.
    pub name: String,
    /// Its API key.
    pub api_key: String,
    /// ms since the Unix epoch.
    pub created_at_ms: u64,
}

/// What is stored of an edge.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct EdgeValue {
    /// The operator's name for it.
    pub name: String,
    /// Its API key's id.
    pub api_key: String,
}

impl Edge {
    /// Reads an edge from its entity's state; `None` when revoked.
    pub fn read(id: &str, state: &EntityState) -> Option<Self> {
        let versioned = state.majority()?;
        let value: EdgeValue = serde_json::from_value(versioned.value.clone()?).ok()?;
        Some(Self {
            id: id.to_owned(),
            name: value.name,
            api_key: value.api_key,
            created_at_ms: versioned.created.ms(),
        })
    }
}

/// What an edge last said of itself. Telemetry: kept beside the log, not in it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Report {
    /// The edge's own words.
    pub position: Position,
    /// When they came, ms since the Unix epoch.
    pub seen_at_ms: u64,
}

impl Report {
    /// Whether everything up to an operation has been applied by every shard of the edge.
    pub fn has_applied(&self, store: StoreId, position: u64, dot: Dot) -> bool {
        let FeedCursor { store: known, position: reached, applied } = &self.position.cursor;
        (*known == store && *reached >= position) || applied.contains(dot)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_operation_counts_as_applied_by_position_in_this_store_or_by_vector_in_any() {
        let report = Report {
            position: Position {
                cursor: "00000000000000ff.10.eu-00000001:7".parse().expect("valid"),
                version: "0".into(),
                streams: 0,
                hits: 0,
                lookups: 0,
                topics: Vec::new(),
                url: None,
                draining: false,
                path: Vec::new(),
                children: Vec::new(),
            },
            seen_at_ms: 0,
        };
        let dot = |text: &str| text.parse::<Dot>().expect("valid");
        assert!(report.has_applied(StoreId(0xff), 10, dot("us-00000001:1")));
        assert!(!report.has_applied(StoreId(0xff), 11, dot("us-00000001:1")));
        assert!(!report.has_applied(StoreId(1), 3, dot("eu-00000001:8")));
        assert!(report.has_applied(StoreId(1), 30, dot("eu-00000001:7")));
    }
}
