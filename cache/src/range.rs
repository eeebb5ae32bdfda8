//! Byte ranges: what `Range` asks for, and what `Content-Range` says has come (RFC 9110 §14).
//!
//! Only `bytes` is known. A `Range` that is malformed, of another unit, or asks for more parts than
//! a careful server sends is ignored, as §14.2 allows: the answer is the whole then. A
//! `Content-Range` with a mistake in it is none.
//!
//! Leaves to others: whether the bytes are there ([`crate::partial`]), `If-Range` and who answers
//! ([`crate::validation`]).

use proto::field::list;

use crate::limits;

/// A part of a representation. `first <= last`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct ByteRange {
    /// Offset of its first byte.
    pub first: u64,
    /// Offset of its last byte.
    pub last: u64,
}

impl ByteRange {
    /// All of a representation; `None` if that is empty.
    pub(crate) fn all(length: u64) -> Option<Self> {
        length.checked_sub(1).map(|last| Self { first: 0, last })
    }

    /// Bytes in it. Both ends came from lengths below `u64::MAX`.
    pub fn length(&self) -> u64 {
        self.last - self.first + 1
    }

    pub(crate) fn contains(&self, offset: u64) -> bool {
        (self.first..=self.last).contains(&offset)
    }
}

/// One member of `Range`, before the length is known.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) enum Spec {
    /// `a-b`
    Between(u64, u64),
    /// `a-`
    From(u64),
    /// `-n`
    Last(u64),
}

impl Spec {
    /// What asks for `range` of a representation of this length.
    pub(crate) fn of(range: ByteRange, length: u64) -> Self {
        match range.last + 1 == length {
            true => Self::From(range.first),
            false => Self::Between(range.first, range.last),
        }
    }

    /// `None` if it lies outside (§14.1.2).
    fn resolve(self, length: u64) -> Option<ByteRange> {
        let last = length.checked_sub(1)?;
        match self {
            Self::Between(first, end) if first <= last => {
                Some(ByteRange { first, last: end.min(last) })
            }
            Self::From(first) if first <= last => Some(ByteRange { first, last }),
            Self::Last(count) if count > 0 => {
                Some(ByteRange { first: length.saturating_sub(count), last })
            }
            _ => None,
        }
    }

    /// As the value of `Range`.
    pub(crate) fn to_value(self) -> String {
        match self {
            Self::Between(first, last) => format!("bytes={first}-{last}"),
            Self::From(first) => format!("bytes={first}-"),
            Self::Last(count) => format!("bytes=-{count}"),
        }
    }

    fn parse(text: &[u8]) -> Option<Self> {
        let dash = text.iter().position(|&b| b == b'-')?;
        let (first, last) = (&text[..dash], &text[dash + 1..]);
        match (first, last) {
            ([], last) => Some(Self::Last(position(last)?)),
            (first, []) => Some(Self::From(position(first)?)),
            (first, last) => {
                let (first, last) = (position(first)?, position(last)?);
                (first <= last).then_some(Self::Between(first, last))
            }
        }
    }
}

/// What `Range` asks for; `None` where it is to be ignored.
pub(crate) fn parse(value: &[u8]) -> Option<Vec<Spec>> {
    let set = strip_unit(value, b'=')?;
    let mut specs = Vec::new();
    for member in list::members(set) {
        if specs.len() == limits::RANGES_MAX {
            return None;
        }
        specs.push(Spec::parse(member)?);
    }
    (!specs.is_empty()).then_some(specs)
}

/// What of a representation is asked for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Selection {
    /// All of it: the ranges ask for more than that.
    Whole,
    /// These parts, in the order asked for; never empty.
    Parts(Box<[ByteRange]>),
    /// None of the ranges lies inside.
    Unsatisfiable,
}

/// Applies ranges to a representation of this length.
pub(crate) fn select(specs: &[Spec], length: u64) -> Selection {
    let parts: Box<[ByteRange]> = specs.iter().filter_map(|spec| spec.resolve(length)).collect();
    let asked_bytes: u64 = parts.iter().fold(0, |sum, part| sum.saturating_add(part.length()));
    match parts.len() {
        0 => Selection::Unsatisfiable,
        1 => Selection::Parts(parts),
        // Overlapping parts that come to more than the whole are a mistake or an attack (§17.15).
        _ if asked_bytes > length => Selection::Whole,
        _ => Selection::Parts(parts),
    }
}

/// What `Content-Range` of a 206 says: the part, and the length of the whole.
pub(crate) fn parse_content_range(value: &[u8]) -> Option<(ByteRange, u64)> {
    let rest = strip_unit(value, b' ')?;
    let slash = rest.iter().position(|&b| b == b'/')?;
    let (range, length) = (&rest[..slash], offset(&rest[slash + 1..])?);
    let dash = range.iter().position(|&b| b == b'-')?;
    let (first, last) = (offset(&range[..dash])?, offset(&range[dash + 1..])?);
    (first <= last && last < length).then_some((ByteRange { first, last }, length))
}

fn strip_unit(value: &[u8], separator: u8) -> Option<&[u8]> {
    let (unit, rest) = value.split_at_checked(5)?;
    let rest = rest.strip_prefix(&[separator])?;
    unit.eq_ignore_ascii_case(b"bytes").then(|| list::trim(rest))
}

/// A number of any length (RFC 9110 §14.1.2); what is beyond every representation is all the same.
fn position(digits: &[u8]) -> Option<u64> {
    let is_number = !digits.is_empty() && digits.iter().all(u8::is_ascii_digit);
    is_number.then(|| {
        let zeros = digits.iter().take_while(|&&b| b == b'0').count();
        offset(&digits[zeros.min(digits.len() - 1)..]).unwrap_or(POSITION_MAX)
    })
}

/// As many digits as [`offset`] reads.
const POSITION_MAX: u64 = 999_999_999_999_999_999;

/// Up to 18 digits, so that nothing computed from it overflows.
fn offset(digits: &[u8]) -> Option<u64> {
    if !(1..=18).contains(&digits.len()) || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    Some(digits.iter().fold(0, |value, b| value * 10 + u64::from(b - b'0')))
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    fn check(value: &str, length: u64, expected: &[(u64, u64)]) {
        let specs = parse(value.as_bytes()).expect("well-formed");
        let Selection::Parts(parts) = select(&specs, length) else { panic!("{value}") };
        let found: Vec<_> = parts.iter().map(|part| (part.first, part.last)).collect();
        assert_eq!(found, expected, "{value}");
    }

    #[test]
    fn rfc9110_14_1_2_ranges_are_cut_to_the_representation() {
        check("bytes=0-1", 10, &[(0, 1)]);
        check("Bytes=1-", 10, &[(1, 9)]);
        check("bytes=-1", 10, &[(9, 9)]);
        check("bytes=-99", 10, &[(0, 9)]);
        check("bytes=8-99", 10, &[(8, 9)]);
        check("bytes= 0-0, 10-12 ,-1", 10, &[(0, 0), (9, 9)]);
        check("bytes=5-6,1-2", 10, &[(5, 6), (1, 2)]);
    }

    #[test]
    fn rfc9110_14_1_2_what_lies_outside_is_unsatisfiable() {
        for (value, length) in [("bytes=10-", 10), ("bytes=-0", 10), ("bytes=0-", 0)] {
            let specs = parse(value.as_bytes()).expect("well-formed");
            assert_eq!(select(&specs, length), Selection::Unsatisfiable, "{value}");
        }
    }

    #[test]
    fn rfc9110_14_2_what_is_malformed_or_too_much_is_ignored() {
        let many = format!("bytes={}", "0-0,".repeat(limits::RANGES_MAX + 1));
        for value in [
            "",
            "bytes",
            "bytes=",
            "bytes=2-1",
            "bytes=a-b",
            "bytes=1",
            "bytes=--1",
            "bytes=1-2-3",
            "bytes=0-0;1-1",
            "items=0-1",
            "bytes 0-1",
            "bytes=99999999999999999999-2",
            &many,
        ] {
            assert_eq!(parse(value.as_bytes()), None, "{value}");
        }
        let specs = parse(b"bytes=0-,0-,0-").expect("well-formed");
        assert_eq!(select(&specs, 10), Selection::Whole);
    }

    #[test]
    fn rfc9110_14_1_2_numbers_of_any_length_are_numbers() {
        check("bytes=5-9223372036854775807", 20, &[(5, 19)]);
        check("bytes=-18446744073709551616", 20, &[(0, 19)]);
        check("bytes=0000000000000000000005-6", 20, &[(5, 6)]);
        let beyond = parse(b"bytes=99999999999999999999-").expect("well-formed");
        assert_eq!(select(&beyond, 20), Selection::Unsatisfiable);
    }

    #[test]
    fn rfc9110_14_4_content_range_with_a_mistake_is_none() {
        let range = ByteRange { first: 4, last: 9 };
        assert_eq!(parse_content_range(b"bytes 4-9/10"), Some((range, 10)));
        for value in [
            "bytes 4-9/*",
            "bytes */10",
            "bytes 9-4/10",
            "bytes 4-10/10",
            "bytes 4-9/9",
            "bytes=4-9/10",
            "items 4-9/10",
            "bytes 4-9",
            "bytes -9/10",
            "bytes 4-9/10, 1-2/10",
        ] {
            assert_eq!(parse_content_range(value.as_bytes()), None, "{value}");
        }
    }

    #[test]
    fn a_range_is_asked_for_as_shortly_as_it_can_be_said() {
        let value = |first, last| Spec::of(ByteRange { first, last }, 10).to_value();
        assert_eq!(value(5, 9), "bytes=5-");
        assert_eq!(value(5, 8), "bytes=5-8");
        assert_eq!(Spec::Last(3).to_value(), "bytes=-3");
    }
}
