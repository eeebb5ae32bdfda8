//! A point in time as pages and public JSON show it: always UTC, always said to be.
//!
//! Leaves to others: which clock it was read from (`crate::clock`).

use std::fmt;

use jiff::{Timestamp, civil::Date, tz::TimeZone};
use serde::{Serialize, Serializer};

/// A point in time, shown in UTC.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Moment(pub Timestamp);

impl Moment {
    /// From milliseconds since the Unix epoch; what lies outside of jiff's calendar becomes the
    /// epoch.
    pub fn from_ms(wall_ms: u64) -> Self {
        let ms = i64::try_from(wall_ms).unwrap_or(0);
        Self(Timestamp::from_millisecond(ms).unwrap_or(Timestamp::UNIX_EPOCH))
    }

    /// The day it falls on.
    pub fn date(self) -> Date {
        self.0.to_zoned(TimeZone::UTC).date()
    }

    /// `12:03:05`.
    pub fn clock(self) -> String {
        self.0.strftime("%H:%M:%S").to_string()
    }

    /// `14 Mar, 12:03`.
    pub fn short(self) -> String {
        self.0.strftime("%-d %b, %H:%M").to_string()
    }

    /// How much later `end` is, in the two largest units: `42 min`, `3 h 5 min`, `2 d 4 h`.
    pub fn until(self, end: Self) -> String {
        let minutes = (end.0.as_second() - self.0.as_second()).max(0) / 60;
        match (minutes / 1440, minutes / 60 % 24, minutes % 60) {
            (0, 0, 0) => "under a minute".into(),
            (0, 0, m) => format!("{m} min"),
            (0, h, 0) => format!("{h} h"),
            (0, h, m) => format!("{h} h {m} min"),
            (d, 0, _) => format!("{d} d"),
            (d, h, _) => format!("{d} d {h} h"),
        }
    }
}

/// RFC 3339 with milliseconds, as Statuspage writes it: `2026-03-14T12:03:05.000Z`.
impl fmt::Display for Moment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0.strftime("%Y-%m-%dT%H:%M:%S.%3fZ"))
    }
}

impl Serialize for Moment {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_is_written_in_utc_with_milliseconds() {
        let moment = Moment::from_ms(1_773_489_785_042);
        assert_eq!(moment.to_string(), "2026-03-14T12:03:05.042Z");
        assert_eq!(moment.clock(), "12:03:05");
        assert_eq!(moment.short(), "14 Mar, 12:03");
    }

    #[test]
    fn a_time_outside_of_the_calendar_does_not_fail() {
        assert_eq!(Moment::from_ms(u64::MAX), Moment::from_ms(0));
    }

    #[test]
    fn durations_name_their_two_largest_units() {
        for (seconds, text) in [
            (59, "under a minute"),
            (60, "1 min"),
            (3 * 3600, "3 h"),
            (3 * 3600 + 5 * 60 + 7, "3 h 5 min"),
            (86_400, "1 d"),
            (2 * 86_400 + 4 * 3600 + 60, "2 d 4 h"),
        ] {
            let start = Moment::from_ms(0);
            assert_eq!(start.until(Moment::from_ms(seconds * 1000)), text);
            assert_eq!(Moment::from_ms(seconds * 1000).until(start), "under a minute");
        }
    }
}
