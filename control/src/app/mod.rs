//! What can be done, one file a resource: validate, build operations, append. Synchronous; time,
//! ids and the store's transaction are arguments.
//!
//! Leaves to others: who may do it and how it is said on the wire (`api`), how it becomes durable
//! (`store`).

pub mod api_key;
pub mod component;
pub mod edge;
pub mod incident;
pub mod names;
pub mod page;
pub mod publish;
pub mod purge;
pub mod receipt;
pub mod refusal;
pub mod site;

pub use refusal::{FieldError, Refusal};
