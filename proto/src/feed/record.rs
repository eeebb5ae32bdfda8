//! The records of the feed, the JSON in an event's `data:`.
//!
//! Decoding is strict about what it knows and lenient about new *fields* of known records (an edge
//! one version behind
//! control must go on), but an unknown *kind* is reported: the session counts it and goes on,
//! because kinds that an old edge
//! may ignore are the only ones a newer control may add (CONTRACTS, compatibility).

use serde::{Deserialize, Serialize};

use super::{
    cursor::{Dot, FeedCursor, Replica, VersionVector},
    site::{Page, Site},
};

/// One record. [`Record::kind`] is the SSE event name.
#[derive(Clone, PartialEq, Debug)]
pub enum Record {
    /// The whole configuration, in parts; applied when the last part has come, behind a fence of
    /// everything.
    Snapshot(Snapshot),
    /// Changed and removed sites and pages.
    Config(Config),
    /// Remove or mark stale.
    Purge(Purge),
    /// One event for one topic.
    Publish(Publish),
    /// Nothing new up to the event's id.
    Beat(Beat),
    /// From here on a topic's events are told; these came before. Only to an edge that said which
    /// topics it wants.
    Topic(Topic),
    /// Nothing that such an edge wants up to the event's id.
    Passed(Passed),
}

/// Part of the configuration as of one position.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Snapshot {
    /// Counts from 0. Part 0 starts a snapshot anew; a part out of order discards what was
    /// gathered.
    pub part: u32,
    /// Whether this is the last part; only it carries an `id:`.
    pub last: bool,
    /// Sites in this part.
    #[serde(default)]
    pub sites: Vec<Site>,
    /// Pages in this part.
    #[serde(default)]
    pub pages: Vec<Page>,
    /// As whom control's store numbers operations; in the last part. Of all replicas of this
    /// one's region, what the snapshot's cursor does not cover does not exist any more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replica: Option<Replica>,
}

/// A change of configuration.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Config {
    /// New or replaced sites.
    #[serde(default)]
    pub sites: Vec<Site>,
    /// New or replaced pages.
    #[serde(default)]
    pub pages: Vec<Page>,
    /// Ids of removed sites.
    #[serde(default)]
    pub removed_sites: Vec<String>,
    /// Ids of removed pages.
    #[serde(default)]
    pub removed_pages: Vec<String>,
}

/// Remove, or mark stale, everything in a scope.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Purge {
    /// Order of arrival in control's store; an edge's watermark counts in it.
    pub position: u64,
    /// What it reaches.
    pub scope: Scope,
    /// Never fresh again, but kept for serving STALE when the origin is gone; hard otherwise.
    #[serde(default)]
    pub soft: bool,
}

/// What a purge reaches.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Scope {
    /// One URL of a site, on all its hosts: path and query as in the request target.
    Url {
        /// Site id.
        site: String,
        /// `/path[?query]`.
        target: String,
    },
    /// All entries with this surrogate key, of one site or (for pages) of none.
    Key {
        /// Site id; absent for control's own keys such as `page/<id>`.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        site: Option<String>,
        /// The surrogate key.
        key: String,
    },
    /// All entries of a site whose target starts with a prefix.
    Prefix {
        /// Site id.
        site: String,
        /// `/path…`.
        prefix: String,
    },
    /// All entries of a site.
    Site {
        /// Site id.
        site: String,
    },
    /// All entries of all sites, of control's own pages none.
    Sites,
    /// Every entry of the edge.
    Everything,
}

/// One event for one topic.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Publish {
    /// Order of arrival in control's store.
    pub position: u64,
    /// Topic: `page/<id>`, or one that a customer publishes to.
    pub topic: String,
    /// The operation that this event tells of.
    pub dot: Dot,
    /// Sequence number of the event before it in this topic and replica; 0 for the first ever.
    pub prev: u64,
    /// SSE event name.
    pub event: String,
    /// SSE data; of pages JSON without line breaks.
    pub data: String,
    /// What of the topic it tells: the newest event of each event key is the topic's present state.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// The state this event is part of: a page that covers it is not older than the event.
    pub version: VersionVector,
    /// Sent again to refill history after a start: not delivered to streams that already had it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub refill: bool,
    /// Of what is sent again: events behind this one, of any topic, may have been removed.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub lone: bool,
}

/// "I am here, and this is my clock."
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Beat {
    /// Control's wall clock, ms since the Unix epoch.
    pub sent_at_ms: u64,
    /// As whom control's store numbers operations. Where the beat has a cursor, nothing beyond it
    /// existed of any replica of this one's region when it was sent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replica: Option<Replica>,
    /// The edges that visitors can be led to by a name of their own, which follow control now and
    /// do not drain. Absent while control cannot tell.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub circle: Option<Vec<CircleEdge>>,
    /// The edges that it came through, the first one next to control; none from control itself.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub path: Vec<String>,
}

/// The beginning of a topic at an edge that has asked for it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Topic {
    /// Number of the request that this answers.
    pub ask: u64,
    /// The topic.
    pub topic: String,
    /// Beyond this, none of its events up to the record's id is missing in `events`.
    pub from: VersionVector,
    /// Whether the newest of each event key is among them.
    pub whole: bool,
    /// Its events up to the record's id, oldest first, as many as are kept.
    pub events: Vec<Publish>,
}

/// "What came up to here was not for you."
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
pub struct Passed {}

/// An edge that visitors can be led to.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct CircleEdge {
    /// Its own name, `http[s]://host[:port]`.
    pub url: String,
    /// Open streams, as it last reported.
    #[serde(default)]
    pub streams: u64,
}

/// Why an event of the feed is no record.
#[derive(Debug)]
pub enum RecordError {
    /// An event name this version does not know; skipped and counted.
    UnknownKind(String),
    /// The data is not the JSON of that kind; the session reconnects.
    Malformed(serde_json::Error),
}

impl std::fmt::Display for RecordError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::UnknownKind(kind) => write!(f, "unknown kind of feed record {kind:?}"),
            Self::Malformed(_) => f.write_str("malformed feed record"),
        }
    }
}

impl std::error::Error for RecordError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::UnknownKind(_) => None,
            Self::Malformed(error) => Some(error),
        }
    }
}

impl Record {
    /// The SSE event name.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Snapshot(_) => "snapshot",
            Self::Config(_) => "config",
            Self::Purge(_) => "purge",
            Self::Publish(_) => "publish",
            Self::Beat(_) => "beat",
            Self::Topic(_) => "topic",
            Self::Passed(_) => "passed",
        }
    }

    /// The JSON of the `data:` line.
    pub fn data(&self) -> String {
        let json = match self {
            Self::Snapshot(record) => serde_json::to_string(record),
            Self::Config(record) => serde_json::to_string(record),
            Self::Purge(record) => serde_json::to_string(record),
            Self::Publish(record) => serde_json::to_string(record),
            Self::Beat(record) => serde_json::to_string(record),
            Self::Topic(record) => serde_json::to_string(record),
            Self::Passed(record) => serde_json::to_string(record),
        };
        json.expect("records have string keys only, which serde_json cannot fail on")
    }

    /// Reads an event of the feed.
    pub fn parse(kind: &str, data: &str) -> Result<Self, RecordError> {
        let record = match kind {
            "snapshot" => serde_json::from_str(data).map(Self::Snapshot),
            "config" => serde_json::from_str(data).map(Self::Config),
            "purge" => serde_json::from_str(data).map(Self::Purge),
            "publish" => serde_json::from_str(data).map(Self::Publish),
            "beat" => serde_json::from_str(data).map(Self::Beat),
            "topic" => serde_json::from_str(data).map(Self::Topic),
            "passed" => serde_json::from_str(data).map(Self::Passed),
            other => return Err(RecordError::UnknownKind(other.chars().take(40).collect())),
        };
        record.map_err(RecordError::Malformed)
    }
}

/// What an edge reports to `POST /v1/edges/{id}/position`; the ground of purge receipts.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Position {
    /// Up to here every shard has applied everything.
    pub cursor: FeedCursor,
    /// The edge's program version.
    pub version: String,
    /// Open streams.
    pub streams: u64,
    /// Cache hits since start, stale hits included.
    #[serde(default)]
    pub hits: u64,
    /// Requests since start that consulted the cache.
    #[serde(default)]
    pub lookups: u64,
    /// Open streams of the topics that customers publish to, the most listened to first; as many as
    /// fit.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub topics: Vec<TopicStreams>,
    /// The edge's own name, if visitors can be led to it by one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    /// It drains: nobody is to be led there.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub draining: bool,
    /// The edges that its feed comes through, the last one its parent; none from control itself.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub path: Vec<String>,
    /// The edges that follow this one, by id: control may not have heard of them itself.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub children: Vec<String>,
}

/// How many listen to a topic.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct TopicStreams {
    /// The topic.
    pub topic: String,
    /// Open streams that carry it, perhaps with others.
    pub streams: u64,
}
