//! Syntax of HTTP fields (RFC 9110 §5): names, lists, dates, structured fields. What a field
//! *means* is its user's business.

pub mod date;
pub mod list;
pub mod name;
pub mod structured;
