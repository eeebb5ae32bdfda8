//! What control's store says of its own region's operations: which there are.
//!
//! A region has one store, whose operations one replica numbers at a time: a store that was put
//! back from a copy draws a new one (ADR 0004). So of all the region's replicas, what the store
//! does not have is lost, and will never be told of, fetched or waited for; and only its present
//! replica's operations go on. Of other regions it says nothing: what it has not got of them may
//! only be late.
//!
//! Leaves to others: who is told (`history`, `stream`), when it is asked (`topic`).

use proto::feed::cursor::{Dot, Replica, VersionVector};

/// See the module.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Region {
    /// As whom its store numbers operations.
    pub replica: Replica,
    /// All that the store had when it said so.
    pub has: VersionVector,
}

/// Of which of the region's replicas.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Whose {
    /// All: as of the moment at which the store said so.
    All,
    /// All but the present one: for good.
    Former,
}

impl Region {
    /// `vector` without what is lost; `None` when nothing of it is.
    pub fn without_lost(&self, vector: &VersionVector, whose: Whose) -> Option<VersionVector> {
        let region = self.replica.region();
        let is_lost = |dot: Dot| {
            dot.replica.region() == region
                && (whose == Whose::All || dot.replica != self.replica)
                && !self.has.contains(dot)
        };
        vector.iter().any(is_lost).then(|| {
            let left = vector.iter().map(|dot| match is_lost(dot) {
                true => Dot { seq: self.has.get(dot.replica), ..dot },
                false => dot,
            });
            left.filter(|dot| dot.seq > 0).collect()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(vector: &str, whose: Whose, expected: Option<&str>) {
        let parse = |text: &str| text.parse::<VersionVector>().expect("a vector");
        let replica = "eu-00000002".parse().expect("a replica");
        let region = Region { replica, has: parse("eu-00000001:7,eu-00000002:3,us-00000001:5") };
        let found = region.without_lost(&parse(vector), whose);
        assert_eq!(found, expected.map(parse), "{vector} {whose:?}");
    }

    #[test]
    fn what_the_store_of_a_region_has_not_got_of_it_is_lost() {
        check("eu-00000001:9,us-00000001:2", Whose::All, Some("eu-00000001:7,us-00000001:2"));
        check("eu-00000001:7,eu-00000009:4", Whose::All, Some("eu-00000001:7"));
        check("eu-00000001:7,eu-00000002:3", Whose::All, None);
        check("eu-00000002:9", Whose::All, Some("eu-00000002:3"));
    }

    #[test]
    fn what_it_has_not_got_of_another_region_may_only_be_late() {
        check("eu-00000001:7,us-00000001:9,ap-00000001:4", Whose::All, None);
    }

    #[test]
    fn its_present_replica_goes_on() {
        check("eu-00000002:9", Whose::Former, None);
        check("eu-00000001:8,eu-00000002:9", Whose::Former, Some("eu-00000001:7,eu-00000002:9"));
    }
}
