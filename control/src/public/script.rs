//! The page's script: opens the stream, writes each event's state into the page, and says how live
//! it is.
//!
//! Hand-written, without libraries, and not needed to read the page. It is one constant text, so
//! that the policy can name its digest.

/// Text of the page's `<script>`.
pub const SCRIPT: &str = include_str!("../../templates/page.js");
