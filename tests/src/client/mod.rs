//! A client that shares no code with `proto`, so that a mistake there cannot hide itself.
//!
//! Sans-io: the simulator's clients and the clients of real processes feed it bytes. Written from
//! RFC 9112 and the WHATWG description of event streams, plainly, without regard to speed.

pub mod coding;
pub mod http;
pub mod sse;
