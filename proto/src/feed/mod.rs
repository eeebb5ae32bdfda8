//! What control says to an edge: configuration, purges and publishes, as readings of the log.
//!
//! The transport is `text/event-stream` over `GET /v1/feed` (DESIGN §8, CONTRACTS "Feed"). An
//! event's name is
//! the record's kind, its `data:` the record as JSON, its `id:` a [`cursor::FeedCursor`]. Several
//! records
//! can derive from one operation; only the **last** of them carries an `id:`, so that a resume
//! after a cut
//! between a purge and its publish repeats the (idempotent) purge and loses nothing.
//!
//! ```text
//!  log position 41  →  purge   (no id)      every shard passes a turn boundary …
//!                   →  publish (id …41)     … before this is released (DESIGN §6)
//!  log position 42  →  config  (id …42)
//!  every 5 s        →  beat    (id …42)     "nothing new up to here", the ground of lag
//! ```

pub mod cursor;
pub mod record;
pub mod rule;
pub mod site;
