//! Stored parts of a representation (RFC 9111 §3.3, §3.4): which bytes are there, and which are
//! missing.
//!
//! ```text
//!   0        3 4        9 10      14      a part is a stretch of some body
//!   ├─ body A ─┤          ├─ body B ─┤   of 20 bytes: missing 4–9 and 15–19
//! ```
//! Parts are joined only by who knows that they are of the same representation
//! ([`crate::validation::same_representation`]). Nothing is copied: a part that is overlapped by a
//! newer one is seen through a smaller window. A part whose body failed counts as missing.
//!
//! Owned by an [`crate::Entry`].

use std::sync::Arc;

use crate::{
    body::{Body, BodyState},
    limits,
    range::ByteRange,
};

/// The parts of one representation. Sorted, none overlaps another, at least one.
#[derive(Clone, Debug)]
pub(crate) struct Parts {
    /// Bytes of the whole.
    pub(crate) length: u64,
    /// The part that came last.
    pub(crate) newest: ByteRange,
    list: Box<[Part]>,
}

/// A stretch of a body.
#[derive(Clone, Debug)]
pub(crate) struct Part {
    /// Where it lies in the whole.
    pub(crate) range: ByteRange,
    /// Where the body's first byte would lie in the whole; not after `range.first`.
    body_at: u64,
    pub(crate) body: Arc<Body>,
}

impl Part {
    /// Offset in its body of an offset in the whole, which lies in its range.
    pub(crate) fn offset_in_body(&self, offset: u64) -> u64 {
        offset - self.body_at
    }

    fn is_sound(&self) -> bool {
        matches!(self.body.progress().state, BodyState::Filling | BodyState::Complete)
    }
}

impl Parts {
    /// One part of a whole of this length, whose body brings exactly it.
    pub(crate) fn one(range: ByteRange, length: u64, body: Arc<Body>) -> Self {
        let part = Part { range, body_at: range.first, body };
        Self { length, newest: range, list: [part].into() }
    }

    /// With one more, which counts where it overlaps others. Beyond [`limits::PARTS_MAX`] the
    /// others are dropped.
    pub(crate) fn with(&self, range: ByteRange, body: Arc<Body>) -> Self {
        let mut list = Vec::with_capacity(self.list.len() + 2);
        for part in self.list.iter().filter(|part| part.is_sound()) {
            if part.range.first < range.first {
                let last = part.range.last.min(range.first - 1);
                let range = ByteRange { first: part.range.first, last };
                list.push(Part { range, ..part.clone() });
            }
            if part.range.last > range.last {
                let first = part.range.first.max(range.last + 1);
                let range = ByteRange { first, last: part.range.last };
                list.push(Part { range, ..part.clone() });
            }
        }
        let own = Part { range, body_at: range.first, body };
        if list.len() >= limits::PARTS_MAX {
            list.clear();
        }
        list.push(own);
        list.sort_unstable_by_key(|part| part.range.first);
        Self { length: self.length, newest: range, list: list.into() }
    }

    /// The part that holds a byte.
    pub(crate) fn at(&self, offset: u64) -> Option<&Part> {
        let after = self.list.partition_point(|part| part.range.first <= offset);
        let part = self.list.get(after.checked_sub(1)?)?;
        (part.range.contains(offset) && part.is_sound()).then_some(part)
    }

    /// The smallest range that holds all bytes of `wanted` that are missing; `None` if none is.
    pub(crate) fn missing(&self, wanted: ByteRange) -> Option<ByteRange> {
        let mut first = wanted.first;
        while let Some(part) = self.at(first) {
            if part.range.last >= wanted.last {
                return None;
            }
            first = part.range.last + 1;
        }
        let mut last = wanted.last;
        while let Some(part) = self.at(last) {
            last = part.range.first - 1;
        }
        Some(ByteRange { first, last })
    }

    /// Whether the whole is there.
    pub(crate) fn is_whole(&self) -> bool {
        ByteRange::all(self.length).is_none_or(|all| self.missing(all).is_none())
    }

    /// Each body, once or more often.
    pub(crate) fn bodies(&self) -> impl Iterator<Item = &Arc<Body>> {
        self.list.iter().map(|part| &part.body)
    }

    /// Bytes held beside the structure itself.
    pub(crate) fn heap_bytes(&self) -> usize {
        self.list.len() * size_of::<Part>() + 16
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::account::Account;

    const LENGTH: u64 = 24;

    fn range(first: u64, last: u64) -> ByteRange {
        ByteRange { first, last }
    }

    /// A body of the range's bytes, each of which is its offset in the whole.
    fn body(account: &Arc<Account>, range: ByteRange) -> Arc<Body> {
        let bytes: Vec<u8> = (range.first..=range.last).map(|at| at as u8).collect();
        Arc::new(Body::complete(account, bytes.into()))
    }

    fn parts(account: &Arc<Account>, ranges: &[ByteRange]) -> Parts {
        let first = Parts::one(ranges[0], LENGTH, body(account, ranges[0]));
        ranges[1..].iter().fold(first, |parts, &range| parts.with(range, body(account, range)))
    }

    #[test]
    fn rfc9111_3_4_only_the_holes_are_missing() {
        let account = Arc::default();
        let found = parts(&account, &[range(0, 3), range(10, 14)]);
        for (wanted, expected) in [
            (range(1, 2), None),
            (range(0, 4), Some(range(4, 4))),
            (range(2, 12), Some(range(4, 9))),
            (range(0, 23), Some(range(4, 23))),
            (range(12, 14), None),
            (range(20, 21), Some(range(20, 21))),
        ] {
            assert_eq!(found.missing(wanted), expected, "{wanted:?}");
        }
        assert!(!found.is_whole());
        assert!(
            found.with(range(4, 9), body(&account, range(4, 9))).missing(range(0, 14)).is_none()
        );
    }

    #[test]
    fn a_part_that_failed_is_missing() {
        let account = Arc::default();
        let failed = Arc::new(Body::filling(&account, Some(4)));
        let found = parts(&account, &[range(0, 3)]).with(range(4, 7), Arc::clone(&failed));
        assert_eq!(found.missing(range(0, 7)), None);
        failed.end(BodyState::Failed, &mut Vec::new());
        assert_eq!(found.missing(range(0, 7)), Some(range(4, 7)));
    }

    #[test]
    fn too_many_parts_are_dropped_for_the_newest() {
        let account: Arc<Account> = Arc::default();
        let body = || Arc::new(Body::complete(&account, [0].as_slice().into()));
        let mut found = Parts::one(range(0, 0), 1_000, body());
        for at in 1..=limits::PARTS_MAX as u64 {
            found = found.with(range(2 * at, 2 * at), body());
        }
        assert_eq!(found.list.len(), 1);
    }

    proptest! {
        #[test]
        fn every_byte_is_found_where_it_was_put(
            ranges in prop::collection::vec((0..LENGTH, 0..LENGTH), 1..12),
        ) {
            let account = Arc::default();
            let ranges: Vec<_> = ranges.iter().map(|&(a, b)| range(a.min(b), a.max(b))).collect();
            let found = parts(&account, &ranges);
            for offset in 0..LENGTH {
                let is_there = ranges.iter().any(|range| range.contains(offset));
                let part = found.at(offset);
                prop_assert_eq!(part.is_some(), is_there);
                if let Some(part) = part {
                    let byte = part.body.chunk_at(part.offset_in_body(offset));
                    prop_assert_eq!(byte.and_then(|bytes| bytes.first().copied()), Some(offset as u8));
                }
            }
            let is_whole = (0..LENGTH).all(|at| ranges.iter().any(|range| range.contains(at)));
            prop_assert_eq!(found.is_whole(), is_whole);
            prop_assert!(found.list.windows(2).all(|two| two[0].range.last < two[1].range.first));
        }
    }
}
