//! What the tests of Pharos share: the simulator, its peers and checks, and whatever drives real
//! processes.
#![deny(unsafe_code)]

pub mod chaos;
pub mod check;
pub mod client;
pub mod fuzz;
pub mod parity;
pub mod peer;
pub mod process;
pub mod scenario;
pub mod sim;
