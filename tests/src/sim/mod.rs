//! The simulator: the real shards, a virtual network, virtual disks and virtual time, all from one
//! seed.
//!
//! ```text
//!   world ── picks who runs next ──▶ engine (one a shard, drives dataplane::seam::Actor)
//!     │                                │ reads, writes, connects
//!     ├── time, faults, partitions     ▼
//!     └──────────────▶  net (pipes with bounded buffers) ◀── peers (clients, origins, control)
//! ```
//!
//! Everything the real engine may do, the simulated one does too: reads split anywhere, bytes after
//! a cancelled receive, late completions, short sends, accepts refused at a full table, mail
//! delayed, writes lost at a crash. The same seed draws the same run, so a failing seed is a
//! complete bug report.
//!
//! Leaves to others: what is right (`crate::check`, `crate::model`); the scenarios
//! (`crate::scenario`).

pub mod coverage;
pub mod disk;
pub mod engine;
pub mod net;
pub mod rng;
pub mod sqlite_disk;
pub mod trace;
pub mod world;
