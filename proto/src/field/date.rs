//! HTTP dates (RFC 9110 §5.6.7): three formats read, one written.
//!
//! Own code because a cache reads two to four of them a response and needs no calendar library for
//! it; days are counted with the civil-date arithmetic of the proleptic Gregorian calendar.

/// Seconds since the Unix epoch of an IMF-fixdate, RFC 850 or asctime date; `None` if it is none of
/// them.
///
/// `now_s` (Unix seconds) is only used for the two-digit years of RFC 850: one that seems more than
/// 50 years ahead is in the past. The day's name is checked for syntax, not against the date. A
/// leap second counts as the next second. Names count in any case (RFC 9111 §4.2).
pub fn parse(value: &[u8], now_s: i64) -> Option<i64> {
    match value.iter().position(|&b| b == b',') {
        Some(3) => parse_imf(value),
        Some(comma) => parse_rfc850(value, comma, now_s),
        None => parse_asctime(value),
    }
}

/// The IMF-fixdate of a moment, such as `Sun, 06 Nov 1994 08:49:37 GMT`. Moments outside the years
/// 0 to 9999 become the nearest of those.
pub fn format(unix_s: i64) -> [u8; IMF_BYTES] {
    let unix_s = unix_s.clamp(YEAR_0_S, YEAR_10000_S - 1);
    let (days, second) = (unix_s.div_euclid(DAY_S), unix_s.rem_euclid(DAY_S));
    let (year, month, day) = civil_from_days(days);
    let mut text = *b"Thu, 00 Jan 0000 00:00:00 GMT";
    // The epoch was a Thursday, day 0 of `DAYS`.
    text[..3].copy_from_slice(DAYS[days.rem_euclid(7) as usize]);
    put_two(&mut text[5..7], day);
    text[8..11].copy_from_slice(MONTHS[month as usize - 1]);
    put_two(&mut text[12..14], year / 100);
    put_two(&mut text[14..16], year % 100);
    put_two(&mut text[17..19], second / 3600);
    put_two(&mut text[20..22], second / 60 % 60);
    put_two(&mut text[23..25], second % 60);
    text
}

/// Length of an IMF-fixdate.
pub const IMF_BYTES: usize = 29;

const DAY_S: i64 = 86_400;
const YEAR_0_S: i64 = days_from_civil(0, 1, 1) * DAY_S;
const YEAR_10000_S: i64 = days_from_civil(10_000, 1, 1) * DAY_S;
const DAYS: [&[u8; 3]; 7] = [b"Thu", b"Fri", b"Sat", b"Sun", b"Mon", b"Tue", b"Wed"];
const LONG_DAYS: [&[u8]; 7] =
    [b"Thursday", b"Friday", b"Saturday", b"Sunday", b"Monday", b"Tuesday", b"Wednesday"];
const MONTHS: [&[u8; 3]; 12] = [
    b"Jan", b"Feb", b"Mar", b"Apr", b"May", b"Jun", b"Jul", b"Aug", b"Sep", b"Oct", b"Nov", b"Dec",
];

/// `Sun, 06 Nov 1994 08:49:37 GMT`
fn parse_imf(value: &[u8]) -> Option<i64> {
    let value: &[u8; IMF_BYTES] = value.try_into().ok()?;
    let shape = is_day(&value[..3])
        && &value[3..5] == b", "
        && value[7] == b' '
        && value[11] == b' '
        && value[16] == b' '
        && value[25..].eq_ignore_ascii_case(b" GMT");
    if !shape {
        return None;
    }
    let year = two(&value[12..14])? * 100 + two(&value[14..16])?;
    moment(year, month(&value[8..11])?, two(&value[5..7])?, &value[17..25])
}

/// `Sunday, 06-Nov-94 08:49:37 GMT`
fn parse_rfc850(value: &[u8], comma: usize, now_s: i64) -> Option<i64> {
    let (day_name, rest) = value.split_at_checked(comma)?;
    let rest: &[u8; 24] = rest.try_into().ok()?;
    let shape = LONG_DAYS.iter().any(|day| day.eq_ignore_ascii_case(day_name))
        && &rest[..2] == b", "
        && rest[4] == b'-'
        && rest[8] == b'-'
        && rest[11] == b' '
        && rest[20..].eq_ignore_ascii_case(b" GMT");
    if !shape {
        return None;
    }
    let (this_year, ..) =
        civil_from_days(now_s.clamp(YEAR_0_S, YEAR_10000_S - 1).div_euclid(DAY_S));
    let mut year = this_year - this_year % 100 + two(&rest[9..11])?;
    if year > this_year + 50 {
        year -= 100;
    }
    moment(year, month(&rest[5..8])?, two(&rest[2..4])?, &rest[12..20])
}

/// `Sun Nov  6 08:49:37 1994`
fn parse_asctime(value: &[u8]) -> Option<i64> {
    let value: &[u8; 24] = value.try_into().ok()?;
    let spaces = [3, 7, 10, 19].iter().all(|&at| value[at] == b' ');
    if !spaces || !is_day(&value[..3]) {
        return None;
    }
    let day = if value[8] == b' ' { two(&[b'0', value[9]])? } else { two(&value[8..10])? };
    let year = two(&value[20..22])? * 100 + two(&value[22..24])?;
    moment(year, month(&value[4..7])?, day, &value[11..19])
}

/// Joins a date and `hh:mm:ss`; `None` if there is no such day or time.
fn moment(year: i64, month: i64, day: i64, time: &[u8]) -> Option<i64> {
    let (hour, minute, second) = (two(&time[..2])?, two(&time[3..5])?, two(&time[6..8])?);
    let valid = time[2] == b':'
        && time[5] == b':'
        && hour < 24
        && minute < 60
        && second <= 60
        && (1..=days_in_month(year, month)).contains(&day);
    valid.then(|| days_from_civil(year, month, day) * DAY_S + hour * 3600 + minute * 60 + second)
}

fn two(text: &[u8]) -> Option<i64> {
    match text {
        [a @ b'0'..=b'9', b @ b'0'..=b'9'] => Some(i64::from(a - b'0') * 10 + i64::from(b - b'0')),
        _ => None,
    }
}

fn put_two(text: &mut [u8], value: i64) {
    text[0] = b'0' + (value / 10 % 10) as u8;
    text[1] = b'0' + (value % 10) as u8;
}

fn is_day(text: &[u8]) -> bool {
    DAYS.iter().any(|day| day.eq_ignore_ascii_case(text))
}

fn month(text: &[u8]) -> Option<i64> {
    MONTHS.iter().position(|month| month.eq_ignore_ascii_case(text)).map(|at| at as i64 + 1)
}

fn days_in_month(year: i64, month: i64) -> i64 {
    match month {
        4 | 6 | 9 | 11 => 30,
        2 if year % 4 == 0 && (year % 100 != 0 || year % 400 == 0) => 29,
        2 => 28,
        _ => 31,
    }
}

/// Days since 1970-01-01. Years are counted from March, so that the leap day is a year's last day.
const fn days_from_civil(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    era * 146_097 + day_of_era - 719_468
}

/// The inverse: (year, month 1–12, day 1–31).
const fn civil_from_days(days: i64) -> (i64, i64, i64) {
    let days = days + 719_468;
    let era = days.div_euclid(146_097);
    let day_of_era = days.rem_euclid(146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = year_of_era + era * 400;
    (if month <= 2 { year + 1 } else { year }, month, day)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const NOW_S: i64 = 1_790_000_000; // 2026

    #[test]
    fn rfc9110_5_6_7_all_three_formats_are_read() {
        for text in [
            "Sun, 06 Nov 1994 08:49:37 GMT",
            "Sunday, 06-Nov-94 08:49:37 GMT",
            "Sun Nov  6 08:49:37 1994",
        ] {
            assert_eq!(parse(text.as_bytes(), NOW_S), Some(784_111_777), "{text}");
        }
    }

    #[test]
    fn rfc9111_4_2_names_in_dates_count_in_any_case() {
        for text in [
            "sUN, 06 nOV 1994 08:49:37 gmt",
            "SUNDAY, 06-NOV-94 08:49:37 Gmt",
            "sun nov  6 08:49:37 1994",
        ] {
            assert_eq!(parse(text.as_bytes(), NOW_S), Some(784_111_777), "{text}");
        }
    }

    #[test]
    fn rfc9110_5_6_7_a_two_digit_year_over_50_years_ahead_is_past() {
        let at = |text: &str| parse(text.as_bytes(), NOW_S).map(|s| format(s)[12..16].to_vec());
        assert_eq!(at("Sunday, 06-Nov-76 08:49:37 GMT").as_deref(), Some(&b"2076"[..]));
        assert_eq!(at("Sunday, 06-Nov-77 08:49:37 GMT").as_deref(), Some(&b"1977"[..]));
    }

    #[test]
    fn what_is_no_date_is_refused() {
        for text in [
            "",
            "0",
            "-1",
            "Sun, 06 Nov 1994 08:49:37 UTC",
            "Sun, 06 Nov 1994 08:49:37 GMT ",
            "Sun, 6 Nov 1994 08:49:37 GMT",
            "Xxx, 06 Nov 1994 08:49:37 GMT",
            "Sun, 31 Nov 1994 08:49:37 GMT",
            "Wed, 29 Feb 2023 08:49:37 GMT",
            "Sun, 00 Nov 1994 08:49:37 GMT",
            "Sun, 06 Nov 1994 24:00:00 GMT",
            "Sun, 06 Nov 1994 08:60:00 GMT",
            "Sun, 06 Nov 1994 08:00:61 GMT",
            "Sun, +6 Nov 1994 08:00:00 GMT",
            "Sunday, 06-Nov-1994 08:49:37 GMT",
            "Sun Nov 06 08:49:37 94",
        ] {
            assert_eq!(parse(text.as_bytes(), NOW_S), None, "{text}");
        }
    }

    #[test]
    fn a_leap_second_counts_as_the_next_second() {
        let leap = parse(b"Sat, 31 Dec 2016 23:59:60 GMT", NOW_S);
        assert_eq!(leap, parse(b"Sun, 01 Jan 2017 00:00:00 GMT", NOW_S));
    }

    #[test]
    fn moments_beyond_four_digit_years_are_clamped() {
        assert_eq!(&format(i64::MAX), b"Fri, 31 Dec 9999 23:59:59 GMT");
        assert_eq!(&format(i64::MIN), b"Sat, 01 Jan 0000 00:00:00 GMT");
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(unix_s in YEAR_0_S..YEAR_10000_S) {
            prop_assert_eq!(parse(&format(unix_s), NOW_S), Some(unix_s));
        }

        #[test]
        fn any_bytes_are_a_date_or_none(
            text in prop::collection::vec(any::<u8>(), 0..40),
            now_s: i64,
        ) {
            if let Some(unix_s) = parse(&text, now_s) {
                prop_assert_eq!(parse(&format(unix_s), now_s), Some(unix_s));
            }
        }
    }
}
