//! Real processes: Pharos as its users start it, nginx as a real origin, and a blocking client for
//! both.
//!
//! Everything listens on loopback, lives in a folder of its own and ends with the value that
//! started it. Leaves to others: what the answers should be (the tests).

pub mod address;
pub mod browser;
pub mod client;
pub mod cluster;
pub mod descriptors;
pub mod echo;
pub mod edge;
pub mod files;
pub mod gate;
pub mod kept;
pub mod load;
pub mod netns;
pub mod nginx;
pub mod node;
pub mod origin;
pub mod proxy;
pub mod wait;
