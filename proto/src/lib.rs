//! Sans-io codecs: HTTP/1.1, Server-Sent Events and the feed between control and edge.
//!
//! The contract of every machine in this crate: bytes, limits and *the time* come in as arguments,
//! typed
//! values and bytes come out. Nothing here opens a socket, reads a clock, draws a random number or
//! allocates without a bound from [`limits`]. Received bytes are borrowed for one call; what a
//! machine
//! keeps of them it copies, into buffers whose maxima the caller chose.
//!
//! Leaves to others: caching semantics (`cache`), which connection a machine belongs to
//! (`dataplane`),
//! what an operation means (`control`).
#![forbid(unsafe_code)]

pub mod base64url;
pub mod buf;
pub mod feed;
pub mod field;
pub mod http1;
pub mod limits;
pub mod sse;
pub mod target;
