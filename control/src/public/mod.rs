//! What visitors see: pages as HTML and as JSON in Statuspage's shapes.

pub mod index;
pub mod moment;
pub mod page;
pub mod read;
pub mod script;
pub mod serve;
pub mod style;
pub mod v2;
pub mod view;
pub mod words;

#[cfg(test)]
mod sample;
