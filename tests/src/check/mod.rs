//! What must hold, checked from outside: by what visitors saw, what the origin and control really
//! had, and when.

pub mod ledger;
pub mod log;
