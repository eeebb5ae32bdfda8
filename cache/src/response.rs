//! A response head as it arrived from upstream, as the cache is told of it.
//!
//! Leaves to others: framing and parsing (`proto`), what is added to forwarded responses
//! (`dataplane`).

use crate::request::FieldSource;

/// What [`crate::Lease::head`] is given.
#[derive(Clone, Copy)]
pub struct Response<'a> {
    /// Status code.
    pub status: u16,
    /// Reason phrase, may be empty.
    pub reason: &'a [u8],
    /// All fields.
    pub fields: &'a dyn FieldSource,
    /// Length of the body, if its framing announces it; 0 for a response that has none.
    pub length: Option<u64>,
    /// When the request was sent, wall clock.
    pub request_at_ms: u64,
    /// When the head had arrived, wall clock.
    pub response_at_ms: u64,
    /// Lines to store behind the fields, each `Name: value\r\n`: constants such as `Via`.
    pub append: &'a [u8],
}
