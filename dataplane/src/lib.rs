//! The edge: shards, which are pure, and engines, which are the only code that touches the kernel.
//!
//! A shard is one pinned thread driving one [`seam::Actor`] with one engine. Three engines drive
//! the same actor: io_uring and
//! epoll (here), and the simulator's (in `tests`).
//!
//! Leaves to others: bytes ↔ HTTP, SSE and feed records (`proto`); what may be stored and served
//! (`cache`).

pub mod config;
pub mod engine;
pub mod limits;
pub mod seam;
pub mod shard;
