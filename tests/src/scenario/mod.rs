//! Whole runs of the system under the simulator, each from one seed.

pub mod durability;
pub mod edge;
pub mod edges;
pub mod regions;
