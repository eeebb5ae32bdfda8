//! Faults on real processes: hosts in network namespaces, one address that moves between edges, and
//! a crowd of streams that come back as browsers do and check everything they are told.
//!
//! Leaves to others: which faults, in which order, and what is expected of them
//! (`tests/tests/chaos.rs`).

pub mod address;
pub mod budget;
pub mod crowd;
pub mod hosts;
pub mod publisher;
pub mod shared;
pub mod stream;
