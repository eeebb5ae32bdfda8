//! The others in a simulation: an origin, a control, visitors. Plain synchronous machines that
//! speak HTTP by `crate::client`'s and their own understanding, never by `proto`'s.

pub mod control;
pub mod origin;
pub mod rules;
pub mod steward;
pub mod visitor;
pub mod wire;
