//! The list of public pages, as plain data.

use super::moment::Moment;
use crate::model::impact::Indicator;

/// The pages, by name.
#[derive(Clone, Debug)]
pub struct IndexView {
    /// At most as many as a reader would look through.
    pub pages: Vec<IndexRow>,
    /// How many there are beyond those.
    pub more: u64,
    /// When this was read.
    pub rendered_at: Moment,
}

/// One page.
#[derive(Clone, Debug)]
pub struct IndexRow {
    /// Its part of the address.
    pub slug: String,
    /// What it is called.
    pub name: String,
    /// How it does.
    pub indicator: Indicator,
}
