//! Its rooms are listed in ARCHITECTURE.md.
