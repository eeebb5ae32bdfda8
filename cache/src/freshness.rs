//! Freshness lifetime and age (RFC 9111 §4.2).
//!
//! Times are wall clock, milliseconds since the Unix epoch. The wall clock may step; every
//! difference saturates at 0.
//!
//! Leaves to others: which directives count ([`crate::targeted`]), what may be done when a response
//! is no longer fresh ([`crate::stale`]).

use proto::field::{date, list};

use crate::{limits, request::FieldSource, response::Response, targeted::Policy};

/// When a stored response was made, and for how long it is fresh.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Times {
    /// When it arrived here.
    pub response_at_ms: u64,
    /// Its age then (corrected_initial_age, §4.2.3).
    pub initial_age_ms: u64,
    /// How old it may become.
    pub lifetime_ms: u64,
    /// Where that comes from.
    pub source: LifetimeSource,
    /// Which targeted field of the configured list said it, counted from 1; 0 for none.
    pub target: u8,
    /// It came without `Age`: the origin made or validated it for the request of then (§5.1).
    pub is_first_hand: bool,
}

/// Where a freshness lifetime comes from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum LifetimeSource {
    /// `s-maxage`.
    SMaxage,
    /// `max-age`.
    MaxAge,
    /// `Expires`.
    Expires,
    /// A tenth of the time since `Last-Modified` (§4.2.2).
    Heuristic,
    /// A rule of the site.
    Rule,
    /// Nothing speaks; it is stale at once.
    None,
}

impl LifetimeSource {
    /// Whether the origin said it.
    pub fn is_explicit(self) -> bool {
        matches!(self, Self::SMaxage | Self::MaxAge | Self::Expires)
    }
}

impl Times {
    /// Computes lifetime and initial age of a response.
    pub fn of(response: &Response<'_>, policy: &Policy) -> Self {
        Self::with_age(response, policy, response.fields.get("Age"))
    }

    /// The same where `Age` is not among the fields any more.
    pub(crate) fn with_age(response: &Response<'_>, policy: &Policy, age: Option<&[u8]>) -> Self {
        let (lifetime_ms, source) = lifetime_ms(response, policy);
        Self {
            response_at_ms: response.response_at_ms,
            initial_age_ms: initial_age_ms(response, age),
            lifetime_ms,
            source,
            target: policy.target,
            is_first_hand: age.is_none(),
        }
    }

    /// current_age (§4.2.3).
    pub fn age_ms(&self, now_ms: u64) -> u64 {
        self.initial_age_ms.saturating_add(now_ms.saturating_sub(self.response_at_ms))
    }

    /// Fresh before this moment, stale from it on.
    pub fn fresh_until_ms(&self) -> u64 {
        self.response_at_ms.saturating_add(self.lifetime_ms).saturating_sub(self.initial_age_ms)
    }

    /// Whether it is fresh; a clock that stepped back before its arrival makes it no older.
    pub fn is_fresh(&self, now_ms: u64) -> bool {
        self.lifetime_ms > self.age_ms(now_ms)
    }

    /// How long it has been stale, 0 while fresh.
    pub fn staleness_ms(&self, now_ms: u64) -> u64 {
        self.age_ms(now_ms).saturating_sub(self.lifetime_ms)
    }
}

/// `Date`, or the time of arrival where it is missing or malformed (RFC 9110 §6.6.1).
pub(crate) fn date_ms(response: &Response<'_>) -> u64 {
    date_field_ms(response.fields, "Date", response.response_at_ms)
        .unwrap_or(response.response_at_ms)
}

/// A date field; the first one counts.
pub(crate) fn date_field_ms(fields: &dyn FieldSource, name: &str, now_ms: u64) -> Option<u64> {
    fields.get(name).and_then(|value| parse_date_ms(value, now_ms))
}

/// A date's text in milliseconds.
pub(crate) fn parse_date_ms(value: &[u8], now_ms: u64) -> Option<u64> {
    let seconds = date::parse(value, (now_ms / 1000) as i64)?;
    Some(u64::try_from(seconds).unwrap_or(0).saturating_mul(1000))
}

/// Status codes that may be given a lifetime by heuristics (RFC 9110 §15.1).
pub(crate) fn is_heuristically_cacheable(status: u16) -> bool {
    matches!(status, 200 | 203 | 204 | 206 | 300 | 301 | 308 | 404 | 405 | 410 | 414 | 451 | 501)
}

fn lifetime_ms(response: &Response<'_>, policy: &Policy) -> (u64, LifetimeSource) {
    let directives = &policy.directives;
    let seconds = |seconds: u64| seconds.min(limits::DELTA_SECONDS_MAX) * 1000;
    if policy.ruled.is_some() {
        let ruled_s = directives.s_maxage_s.or(directives.max_age_s).unwrap_or(0);
        return (seconds(ruled_s), LifetimeSource::Rule);
    }
    if let Some(s_maxage_s) = directives.s_maxage_s {
        return (seconds(s_maxage_s), LifetimeSource::SMaxage);
    }
    if let Some(max_age_s) = directives.max_age_s {
        return (seconds(max_age_s), LifetimeSource::MaxAge);
    }
    // A targeted field stands for Cache-Control and Expires together (RFC 9213 §2.2).
    if !policy.is_targeted && response.fields.get("Expires").is_some() {
        let until_ms = date_field_ms(response.fields, "Expires", response.response_at_ms);
        // Malformed means in the past (§5.3).
        let lifetime_ms = until_ms.unwrap_or(0).saturating_sub(date_ms(response));
        return (lifetime_ms, LifetimeSource::Expires);
    }
    let may_guess = directives.public || is_heuristically_cacheable(response.status);
    match date_field_ms(response.fields, "Last-Modified", response.response_at_ms) {
        Some(modified_ms) if may_guess => {
            let tenth_ms = date_ms(response).saturating_sub(modified_ms) / 10;
            (tenth_ms.min(limits::HEURISTIC_LIFETIME_MS_MAX), LifetimeSource::Heuristic)
        }
        _ => (0, LifetimeSource::None),
    }
}

fn initial_age_ms(response: &Response<'_>, age: Option<&[u8]>) -> u64 {
    // `Date` has whole seconds: in finer ones a response of this very second would seem up to one
    // old.
    let arrived_ms = response.response_at_ms / 1000 * 1000;
    let apparent_age_ms = arrived_ms.saturating_sub(date_ms(response));
    let delay_ms = response.response_at_ms.saturating_sub(response.request_at_ms);
    // Of several values the first counts, a malformed one does not (§5.1).
    let age_value_s = age
        .and_then(|value| list::members(value).next())
        .and_then(list::delta_seconds)
        .map_or(0, u64::from);
    let age_value_ms = age_value_s.min(limits::DELTA_SECONDS_MAX) * 1000;
    apparent_age_ms.max(age_value_ms + delay_ms)
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    const NOW_MS: u64 = 784_111_777_000; // Sun, 06 Nov 1994 08:49:37 GMT

    fn times(status: u16, fields: &[(&str, &str)]) -> Times {
        let response = Response {
            status,
            reason: b"",
            fields: &fields,
            length: None,
            request_at_ms: NOW_MS,
            response_at_ms: NOW_MS,
            append: b"",
        };
        Times::of(&response, &Policy::of(&fields, &[]))
    }

    fn check(fields: &[(&str, &str)], lifetime_s: u64, source: LifetimeSource) {
        let times = times(200, fields);
        assert_eq!((times.lifetime_ms / 1000, times.source), (lifetime_s, source), "{fields:?}");
    }

    const EXPIRES: (&str, &str) = ("Expires", "Sun, 06 Nov 1994 08:50:37 GMT");

    #[test]
    fn rfc9111_4_2_1_s_maxage_wins() {
        check(&[("Cache-Control", "max-age=5, s-maxage=7"), EXPIRES], 7, LifetimeSource::SMaxage);
    }

    #[test]
    fn rfc9111_4_2_1_max_age_wins_over_expires() {
        check(&[("Cache-Control", "max-age=5"), EXPIRES], 5, LifetimeSource::MaxAge);
    }

    #[test]
    fn rfc9111_4_2_1_expires_counts_from_date() {
        check(&[EXPIRES], 60, LifetimeSource::Expires);
        check(&[EXPIRES, ("Date", "Sun, 06 Nov 1994 08:49:07 GMT")], 90, LifetimeSource::Expires);
        check(&[EXPIRES, ("Date", "rubbish")], 60, LifetimeSource::Expires);
    }

    #[test]
    fn rfc9111_5_3_a_malformed_expires_is_in_the_past() {
        check(&[("Expires", "0")], 0, LifetimeSource::Expires);
        check(&[("Cache-Control", "max-age=x"), EXPIRES], 0, LifetimeSource::MaxAge);
    }

    #[test]
    fn rfc9111_4_2_1_of_conflicting_values_the_first_counts() {
        let later = ("Expires", "Sun, 06 Nov 1994 09:49:37 GMT");
        check(&[EXPIRES, later], 60, LifetimeSource::Expires);
        check(
            &[("Cache-Control", "max-age=5"), ("Cache-Control", "max-age=9")],
            5,
            LifetimeSource::MaxAge,
        );
        check(&[("Cache-Control", "s-maxage=5, s-maxage=9")], 5, LifetimeSource::SMaxage);
        let dates = [
            EXPIRES,
            ("Date", "Sun, 06 Nov 1994 08:49:07 GMT"),
            ("Date", "Sun, 06 Nov 1994 08:50:07 GMT"),
        ];
        check(&dates, 90, LifetimeSource::Expires);
    }

    #[test]
    fn rfc9111_1_2_2_malformed_seconds_are_no_lifetime_and_large_ones_are_long() {
        for name in ["max-age", "s-maxage"] {
            for (value, lifetime_s) in [
                ("-5", 0),
                ("5.0", 0),
                ("x", 0),
                ("", 0),
                ("\"5\"", 5),
                ("'5'", 0),
                ("5 6", 0),
                ("2147483648", limits::DELTA_SECONDS_MAX),
                ("99999999999999999999", limits::DELTA_SECONDS_MAX),
            ] {
                let control = format!("{name}={value}");
                let times = times(200, &[("Cache-Control", &control), EXPIRES]);
                assert_eq!(times.lifetime_ms / 1000, lifetime_s, "{control}");
            }
        }
    }

    #[test]
    fn rfc9111_4_2_2_a_tenth_of_the_time_since_last_modified() {
        let modified = ("Last-Modified", "Sun, 06 Nov 1994 08:33:07 GMT");
        check(&[modified], 99, LifetimeSource::Heuristic);
        check(
            &[("Last-Modified", "Sun, 06 Nov 1904 08:33:07 GMT")],
            86_400,
            LifetimeSource::Heuristic,
        );
        check(&[], 0, LifetimeSource::None);
        assert_eq!(times(418, &[modified]).source, LifetimeSource::None);
        let public = times(418, &[modified, ("Cache-Control", "public")]);
        assert_eq!(public.source, LifetimeSource::Heuristic);
        for status in [203, 204, 300, 301, 308, 404, 405, 410, 414, 451, 501] {
            assert_eq!(times(status, &[modified]).source, LifetimeSource::Heuristic, "{status}");
        }
    }

    #[test]
    fn rfc9111_4_2_3_age_is_the_larger_of_age_and_time_since_date() {
        let base = [("Cache-Control", "max-age=100"), ("Date", "Sun, 06 Nov 1994 08:49:07 GMT")];
        assert_eq!(times(200, &base).initial_age_ms, 30_000);
        for (age, expected_ms) in [
            ("50", 50_000),
            ("10", 30_000),
            ("-1", 30_000),
            ("x", 30_000),
            ("40, 1", 40_000),
            ("50.5", 30_000),
            ("\"50\"", 30_000),
            ("50;a=b", 30_000),
            ("99999999999999999999", limits::DELTA_SECONDS_MAX * 1000),
        ] {
            let fields = [base[0], base[1], ("Age", age)];
            assert_eq!(times(200, &fields).initial_age_ms, expected_ms, "{age}");
        }
    }

    #[test]
    fn rfc9111_4_2_3_the_delay_of_the_response_counts() {
        let fields = [("Cache-Control", "max-age=100"), ("Age", "10")];
        let response = Response {
            status: 200,
            reason: b"",
            fields: &&fields[..],
            length: None,
            request_at_ms: NOW_MS - 4000,
            response_at_ms: NOW_MS,
            append: b"",
        };
        let times = Times::of(&response, &Policy::of(&&fields[..], &[]));
        assert_eq!(times.initial_age_ms, 14_000);
        assert_eq!(times.age_ms(NOW_MS + 1000), 15_000);
        assert_eq!(times.fresh_until_ms(), NOW_MS + 86_000);
        assert!(times.is_fresh(NOW_MS + 85_999) && !times.is_fresh(NOW_MS + 86_000));
        assert_eq!(times.staleness_ms(NOW_MS + 87_000), 1000);
    }

    #[test]
    fn rfc9111_4_2_3_apparent_age_counts_in_whole_seconds() {
        for (after_ms, age_ms) in [(0, 0), (999, 0), (1000, 1000), (1999, 1000)] {
            let fields: &[(&str, &str)] = &[("Date", "Sun, 06 Nov 1994 08:49:37 GMT")];
            let response = Response {
                status: 200,
                reason: b"",
                fields: &fields,
                length: None,
                request_at_ms: NOW_MS + after_ms,
                response_at_ms: NOW_MS + after_ms,
                append: b"",
            };
            let times = Times::of(&response, &Policy::of(&fields, &[]));
            assert_eq!(times.initial_age_ms, age_ms);
        }
    }

    #[test]
    fn a_clock_that_steps_back_neither_panics_nor_ages() {
        let times = times(200, &[("Cache-Control", "max-age=1")]);
        assert!(times.is_fresh(0));
        assert_eq!(times.age_ms(0), 0);
    }
}
