//! Dots and version vectors, as the whole of Pharos knows them: re-exported from the feed's
//! contract.
//!
//! A dot names one operation of one replica; a version vector says, for each replica, up to where
//! everything was seen.

pub use proto::feed::cursor::{Dot, FeedCursor, Replica, StoreId, VersionVector};
