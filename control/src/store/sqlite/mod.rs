//! The embedded store: one database file, one writing connection, several reading ones.
//!
//! ```text
//!  data directory      control.db   log · state · feed records · idempotency, one transaction each
//!                      epoch        the last committed position, beside the database: finds a
//! database put back
//!                      lock         held by the process that serves this directory
//!                      admin.key    the first API key's secret, 0600
//! ```
//! Leaves to others: what a write means (`app`), who may ask for it (`api`).

pub mod backup;
pub mod error;
pub mod identity;
pub mod read;
pub mod records;
pub mod schema;
pub mod state;
pub mod topics;
pub mod txn;
pub mod witness;
pub mod writer;

pub use error::StoreError;
pub use read::{ReadPool, Reader};
pub use txn::Txn;
