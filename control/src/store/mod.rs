//! Where the log and the state derived from it lie. One store so far: SQLite, embedded.

pub mod sqlite;
