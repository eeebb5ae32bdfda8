//! HTTP/1.1 by RFC 9112: heads, body lengths, chunks, and one machine for each side of a proxy.
//!
//! ```text
//!   received bytes ─▶ server ─▶ Head · Body · BodyEnd · Refused        encode ─▶ bytes to send
//!   received bytes ─▶ client ─▶ Informational · Head · Body · End · Failed
//!                       │
//!                       ├─ head      bytes → head, each field looked at once
//!                       ├─ gather    a head that comes in pieces
//!                       ├─ framing   head → how long is the body; what would smuggle is refused
//!                       └─ body      bytes → content (chunked: one chunk after the other)
//! ```

mod body;
pub mod chunked;
pub mod client;
pub mod encode;
pub mod framing;
mod gather;
pub mod head;
pub mod refusal;
pub mod server;
