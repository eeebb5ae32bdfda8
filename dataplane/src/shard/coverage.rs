//! Which topics' events come to an edge, as its shards are told: all, or those that were asked for.
//!
//! ```text
//!                 ┌──────────── Everything ◀───────────┐
//!                 ▼                                    │
//!   Everything ─Narrowing─▶ (shards say what they want) ─Narrow─▶ Begun, Dropped, Confirmed …
//! ```
//! Every change goes through the feed's fence, so that each shard learns of it in the order of the
//! events. Between `Narrowing` and `Narrow` all events still come, but no stream opens on a topic
//! that shard 0 does not know to be wanted: so none is left out that someone listens to.
//!
//! Leaves to others: what is wanted of whom (`subscription`), what a shard does
//! (`stream::interest`, `topic`).

use std::sync::Arc;

use proto::feed::record::Topic;

/// A change of it.
#[derive(Clone, Debug)]
pub enum Coverage {
    /// The feed is about to be narrowed: nobody opens a stream of another topic than those that
    /// were asked for, and all say that they have heard of it.
    Narrowing {
        /// Counts these.
        round: u64,
    },
    /// From here on only these topics' events come.
    Narrow {
        /// Their names.
        told: Vec<Box<str>>,
    },
    /// From here on this topic's events come, too.
    Begun(Arc<Topic>),
    /// This topic's events come, and did before: those who have asked for it may have streams.
    Confirmed(Box<str>),
    /// This topic's events come no more. No shard wants them.
    Dropped(Box<str>),
    /// From here on all topics' events come. What there was before of those that did not is about
    /// to be sent again.
    Everything,
}

/// What the streams of a shard want to hear of.
#[derive(Clone, Default, Debug)]
pub struct Wants {
    /// Topics that have streams now.
    pub on: Vec<Box<str>>,
    /// Topics that have had none for long.
    pub off: Vec<Box<str>>,
}
