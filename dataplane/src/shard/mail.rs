//! Mail: the closed alphabet that shards of one process speak.
//!
//! Everything in it is immutable and shared by `Arc`, or a number. Bounded and never dropped, see
//! `seam`.

use std::sync::Arc;

use cache::Wake;
use proto::feed::{
    cursor::{Replica, VersionVector},
    record::{Config, Publish, TopicStreams},
    site::{Page, Site},
};

use super::{
    coverage::{Coverage, Wants},
    drain::Order,
    explain::Found,
    placement::CircleNews,
    slab::Ref,
};
use crate::seam::ShardId;

/// What one shard tells another, or itself.
#[derive(Debug)]
pub enum Mail {
    /// New configuration, applied to the shard's own routing table.
    Config(Arc<ConfigChange>),
    /// A purge stands in the shared cache: pass a turn boundary and answer [`Mail::PurgePassed`].
    Purge {
        /// Which purge; the asking shard counts them.
        ticket: u64,
    },
    /// Every request of `from` that looked up before the purge has been answered or is a fetch that
    /// knows its own watermark.
    PurgePassed {
        /// As asked.
        ticket: u64,
        /// Who passed.
        from: ShardId,
    },
    /// One event for one topic, released behind its purge.
    Publish(Arc<Publish>),
    /// Every event up to here has been mailed before this: the cursor of a quiet topic.
    Applied {
        /// Everything applied.
        applied: Arc<VersionVector>,
        /// How it came there.
        how: Advance,
    },
    /// Up to this feed position every shard has applied everything.
    Watermark(u64),
    /// The session with control went up or down (`/readyz`, `/v1/status` are answered by any
    /// shard).
    FeedState(Arc<FeedState>),
    /// The edges that visitors can be led to; `None` while control cannot tell.
    Circle(Option<Arc<CircleNews>>),
    /// How many of the sender's streams carry each of customers' topics; for shard 0, which
    /// reports.
    TopicStreams(Vec<TopicStreams>),
    /// Which topics' events come.
    Coverage(Arc<Coverage>),
    /// What the sender's streams want to hear of; for shard 0, which asks for it.
    Wants(Wants),
    /// The sender opens no more streams of topics that it has not asked for; for shard 0.
    Narrowed {
        /// As told.
        round: u64,
    },
    /// A response of a page was stored; for shard 0, which keeps pages on disk.
    PageStored(Arc<cache::Entry>),
    /// A request of the shard waited for a lease or a filling body that has moved on.
    Wake(Wake),
    /// The operator asks what is known of a request; answered by [`Mail::Explained`].
    Explain {
        /// Who is asked by the operator.
        from: ShardId,
        /// The operator's connection there.
        at: Ref,
        /// The request's id, as a number.
        id: u64,
    },
    /// What the sender knows of it.
    Explained {
        /// The operator's connection.
        at: Ref,
        /// The newest that fits.
        found: Option<Box<Found>>,
    },
    /// The operator asks, through any shard, shard 0 for this order.
    DrainAsked(Order),
    /// What shard 0 orders all.
    Drain(Order),
    /// The sender has nothing left that a drain waits for; for shard 0.
    DrainIdle {
        /// In which drain.
        round: u32,
    },
}

/// How the feed came to where it is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Advance {
    /// Record by record.
    Onward,
    /// By a snapshot, or by what was kept on disk: events on the way there may never have come.
    /// Streams are told.
    Jumped,
    /// By a snapshot of a store that numbers operations as this replica. As `Jumped`; and what was
    /// known of this replica's region beyond it is lost.
    Snapshot(Replica),
    /// As `Onward`, and the store that numbers operations as this replica had nothing beyond.
    Current(Replica),
    /// Not at all: events that control still has from before are about to be mailed again. What was
    /// refilled before and not to the end counts for nothing.
    Refilling,
    /// As `Onward`, and the last of those events has been mailed.
    Refilled,
}

/// A change of what an edge serves.
#[derive(Debug)]
pub enum ConfigChange {
    /// Everything, from a snapshot, the last known configuration or `edge.toml`.
    Replace {
        /// All sites.
        sites: Vec<Site>,
        /// All pages.
        pages: Vec<Page>,
    },
    /// Some of it.
    Change(Config),
}

/// What the feed's shard tells the others about its session.
#[derive(Clone, Debug, Default)]
pub struct FeedState {
    /// A session is up.
    pub connected: bool,
    /// Text of the cursor up to which everything is applied; empty before the first.
    pub cursor: String,
    /// Age of the newest beat or record when last looked at, in ms; absent before the first.
    pub lag_ms: Option<u64>,
    /// Streams of customers' topics on this edge, the most listened to first.
    pub topics: Arc<[TopicStreams]>,
    /// Whom it is followed by: control's host, or another edge's.
    pub from: Option<Arc<str>>,
    /// The edges between control and this one.
    pub path: Vec<String>,
    /// Ids of the edges that follow this one.
    pub children: Arc<[String]>,
}
