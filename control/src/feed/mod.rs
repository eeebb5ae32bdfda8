//! The feed: what edges are told of the log, and how they go on after a cut.
//!
//! ```text
//!  append ──derive──▶ record table ──tail──▶ one stream an edge      resume · snapshot · refill ·
//! live
//!                                    ▲
//!                     commit ──watch─┘  (a wake-up only; the table is the truth)
//! ```

pub mod circle;
pub mod derive;
pub mod event;
pub mod snapshot;
pub mod tail;
