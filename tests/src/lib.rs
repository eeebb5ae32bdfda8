//! What the tests of Pharos share: the simulator, and whatever drives real processes.
#![forbid(unsafe_code)]

pub mod client;
pub mod sim;
