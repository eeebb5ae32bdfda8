//! The log of operations, and how several replicas' logs fold into one state. Pure: no clock, no
//! store.
//!
//! ```text
//!  draft ──append──▶ operation ──┬─▶ merge (state)      the same fold for live appends,
//!          (dot, hlc, position)  ├─▶ feed::derive       replay, and other regions' operations
//!                                └─▶ log table
//! ```

pub mod append;
pub mod cell;
pub mod dot;
pub mod hlc;
pub mod merge;
pub mod operation;
pub mod set;
