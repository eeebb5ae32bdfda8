//! A set that several replicas may change: an addition wins over a concurrent removal.
//!
//! A removal takes away the additions its writer had seen, no others; it may arrive before them.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{
    cell::Stamp,
    dot::{Dot, VersionVector},
};

/// Elements with the additions that hold them.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct AddWins(BTreeMap<String, Element>);

#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
struct Element {
    /// Additions not removed, at most one a replica, sorted.
    added: Vec<Dot>,
    /// Everything that some removal had seen.
    removed: VersionVector,
}

impl AddWins {
    /// Takes an addition, in whatever order; twice changes nothing.
    pub fn add(&mut self, element: &str, stamp: &Stamp) {
        let element = self.0.entry(element.to_owned()).or_default();
        let dot = stamp.dot;
        let newer = |kept: &Dot| kept.replica == dot.replica && kept.seq >= dot.seq;
        if element.removed.contains(dot) || element.added.iter().any(newer) {
            return;
        }
        element.added.retain(|kept| kept.replica != dot.replica);
        let at = element.added.partition_point(|kept| *kept < dot);
        element.added.insert(at, dot);
    }

    /// Takes a removal, in whatever order; twice changes nothing.
    pub fn remove(&mut self, element: &str, stamp: &Stamp) {
        let element = self.0.entry(element.to_owned()).or_default();
        element.removed.merge(&stamp.context);
        element.added.retain(|kept| !stamp.context.contains(*kept));
    }

    /// The elements, sorted.
    pub fn iter(&self) -> impl Iterator<Item = &str> {
        self.0
            .iter()
            .filter(|(_, element)| !element.added.is_empty())
            .map(|(name, _)| name.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::hlc::Hlc;

    fn stamp(dot: &str, context: &str) -> Stamp {
        Stamp {
            dot: dot.parse().expect("valid"),
            hlc: Hlc::default(),
            context: context.parse().expect("valid"),
        }
    }

    fn elements(set: &AddWins) -> Vec<&str> {
        set.iter().collect()
    }

    #[test]
    fn an_addition_wins_over_a_concurrent_removal_in_any_order() {
        let add = stamp("eu-00000001:1", "");
        let remove = stamp("us-00000001:1", "");
        let mut set = AddWins::default();
        set.remove("a", &remove);
        set.add("a", &add);
        assert_eq!(elements(&set), ["a"]);
    }

    #[test]
    fn a_removal_takes_what_it_saw_even_when_it_arrives_first() {
        let mut set = AddWins::default();
        set.remove("a", &stamp("us-00000001:1", "eu-00000001:1"));
        set.add("a", &stamp("eu-00000001:1", ""));
        assert_eq!(elements(&set), [""; 0]);
        set.add("a", &stamp("eu-00000001:2", "eu-00000001:1"));
        assert_eq!(elements(&set), ["a"], "added again without having seen the removal");
    }
}
