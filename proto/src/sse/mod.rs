//! Server-Sent Events (WHATWG HTML, "Server-sent events"): event ↔ bytes.

pub mod encode;
pub mod parse;
