//! The control service: one log of operations, the state, feed and pages read from it, and the API
//! that appends to it.
//!
//! ```text
//!  api ──▶ app ──▶ store::writer ──▶ log + state + records + answer, one transaction, one sync
//!                        │
//!                        └─ commit ─▶ feed::tail (edges) · public (pages) · reconcile (retention)
//! ```
//! Its rooms are listed in ARCHITECTURE.md.
#![forbid(unsafe_code)]

pub mod api;
pub mod app;
pub mod clock;
pub mod config;
pub mod data_dir;
pub mod feed;
pub mod limits;
pub mod log;
pub mod model;
pub mod observe;
pub mod public;
pub mod reconcile;
pub mod seats;
pub mod serve;
pub mod store;

mod start;
mod state;

pub use config::{Config, ConfigError, Settings};
pub use start::{Running, StartError, run, start};
pub use state::{App, Store};
