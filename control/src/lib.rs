//! Its rooms are listed in ARCHITECTURE.md.

pub mod public;
