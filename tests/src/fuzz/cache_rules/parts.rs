//! Ranges and parts, in the words of RFC 9110 §14: what is wanted, what is held, and how an origin
//! may answer a request for a part.

use std::fmt;

use super::said::Dice;

/// What `Range` asks for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Wanted(Vec<Spec>);

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Spec {
    Between(u64, u64),
    From(u64),
    Last(u64),
}

/// What that is of a representation.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Selected {
    Whole,
    /// First and last bytes.
    Parts(Vec<(u64, u64)>),
    Nothing,
}

impl Wanted {
    pub(super) fn draw(dice: &mut Dice) -> Self {
        let count = if dice.one_in(6) { 2 } else { 1 };
        Self((0..count).map(|_| Spec::draw(dice)).collect())
    }

    /// As the field's value says; it is one of ours.
    pub(super) fn parse(value: &str) -> Self {
        let specs = value.strip_prefix("bytes=").expect("the unit").split(',').map(|spec| {
            let (first, last) = spec.split_once('-').expect("a range");
            let number = |digits: &str| digits.parse().expect("a number");
            match (first, last) {
                ("", last) => Spec::Last(number(last)),
                (first, "") => Spec::From(number(first)),
                (first, last) => Spec::Between(number(first), number(last)),
            }
        });
        Self(specs.collect())
    }

    pub(super) fn to_value(&self) -> String {
        let specs = self.0.iter().map(|spec| match spec {
            Spec::Between(first, last) => format!("{first}-{last}"),
            Spec::From(first) => format!("{first}-"),
            Spec::Last(count) => format!("-{count}"),
        });
        format!("bytes={}", specs.collect::<Vec<_>>().join(","))
    }

    /// What can be asked of an origin in the same words.
    pub(super) fn is_one(&self) -> bool {
        self.0.len() == 1
    }

    /// RFC 9110 §14.1.2, §17.15.
    pub(super) fn of(&self, length: u64) -> Selected {
        let parts: Vec<_> = self.0.iter().filter_map(|spec| spec.of(length)).collect();
        let bytes: u64 = parts.iter().map(|(first, last)| last - first + 1).sum();
        match parts.len() {
            0 => Selected::Nothing,
            1 => Selected::Parts(parts),
            _ if bytes > length => Selected::Whole,
            _ => Selected::Parts(parts),
        }
    }
}

impl Spec {
    fn draw(dice: &mut Dice) -> Self {
        let first = dice.below(250);
        match dice.below(6) {
            0 => Self::From(first),
            1 => Self::Last(first / 2),
            _ => Self::Between(first, first + dice.below(150)),
        }
    }

    fn of(self, length: u64) -> Option<(u64, u64)> {
        let end = length - 1;
        match self {
            Self::Between(first, last) => (first <= end).then_some((first, last.min(end))),
            Self::From(first) => (first <= end).then_some((first, end)),
            Self::Last(count) => (count > 0).then_some((length.saturating_sub(count), end)),
        }
    }
}

/// Which bytes of a representation are held.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Held(Vec<bool>);

impl fmt::Debug for Held {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut ends = Vec::new();
        for (at, is_held) in self.0.iter().enumerate() {
            if *is_held != at.checked_sub(1).is_some_and(|before| self.0[before]) {
                ends.push(at);
            }
        }
        write!(f, "{ends:?} of {}", self.0.len())
    }
}

impl Held {
    pub(super) fn nothing(length: u64) -> Self {
        Self(vec![false; length as usize])
    }

    /// With these, too.
    pub(super) fn with(mut self, (first, last): (u64, u64)) -> Self {
        self.0[first as usize..=last as usize].fill(true);
        self
    }

    /// Of how many bytes it is.
    pub(super) fn len(&self) -> u64 {
        self.0.len() as u64
    }

    /// The shortest range with all the bytes between these that are not held.
    pub(super) fn missing(&self, first: u64, last: u64) -> Option<(u64, u64)> {
        let wanted = &self.0[first as usize..=last as usize];
        let from = wanted.iter().position(|is_held| !is_held)? as u64;
        let to = wanted.iter().rposition(|is_held| !is_held)? as u64;
        Some((first + from, first + to))
    }
}

/// How an origin answers a request for a part.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Sends {
    /// The whole: it knows no ranges, or has something else by now.
    Whole,
    /// 206 with these bytes, told of in these words.
    Part { range: (u64, u64), told: String, breaks_off: bool },
    /// 416.
    Nothing,
    /// 304, which nobody asked for.
    NotModified,
}

impl Sends {
    /// Of a representation of this length. `holds`: `If-Range` is not there, or names it.
    pub(super) fn draw(dice: &mut Dice, wanted: &Wanted, length: u64, holds: bool) -> Self {
        let part = |range: (u64, u64)| Self::Part {
            range,
            told: format!("bytes {}-{}/{length}", range.0, range.1),
            breaks_off: false,
        };
        let Selected::Parts(parts) = wanted.of(length) else { return Self::Nothing };
        let (first, last) = parts[0];
        match dice.below(16) {
            0 => Self::Whole,
            1 => Self::NotModified,
            2 => Self::Nothing,
            // Other bytes than were asked for.
            3 => {
                let first = dice.below(length);
                part((first, (first + dice.below(80)).min(length - 1)))
            }
            4 => part((first, first + dice.below(last - first + 1))),
            5 => part((dice.below(first + 1), last)),
            // A mistake in what it says (RFC 9110 §14.4).
            6 | 7 => {
                let told = match dice.below(7) {
                    0 => format!("bytes {first}-{last}/*"),
                    1 => format!("bytes {first}-{}/{length}", last + 1),
                    2 => format!("bytes {first}-{last}/{last}"),
                    3 => format!("bytes */{length}"),
                    4 => format!("items {first}-{last}/{length}"),
                    5 => format!("bytes {first}-{last}/{length}, {first}-{last}/{length}"),
                    _ => String::new(),
                };
                Self::Part { range: (first, last), told, breaks_off: false }
            }
            // It does not look at If-Range.
            8 => part((first, last)),
            9 if holds => Self::Part {
                range: (first, last),
                told: format!("bytes {first}-{last}/{length}"),
                breaks_off: true,
            },
            _ if holds => part((first, last)),
            _ => Self::Whole,
        }
    }
}

/// What a 206 really says of itself; `None` if that is a mistake, or at odds with its content.
pub(super) fn told_range(told: &str, content_bytes: u64) -> Option<((u64, u64), u64)> {
    let (range, length) = told.strip_prefix("bytes ")?.split_once('/')?;
    let (first, last) = range.split_once('-')?;
    let (first, last): (u64, u64) = (first.parse().ok()?, last.parse().ok()?);
    let length: u64 = length.parse().ok()?;
    let is_sound = first <= last && last < length && last - first + 1 == content_bytes;
    is_sound.then_some(((first, last), length))
}
