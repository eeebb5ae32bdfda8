//! Serving what is no longer fresh (RFC 9111 §4.2.4, RFC 5861).
//!
//! The origin's word counts before our default: `must-revalidate`, `proxy-revalidate` and
//! `no-cache` forbid it always, `s-maxage` unless the same response allows it by name, an explicit
//! `stale-if-error=0` is 0.

use crate::targeted::Policy;

/// How long a response may be served when it is stale.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct StaleRules {
    /// Never, whatever the request says.
    pub forbidden: bool,
    /// While a shard validates it.
    pub while_revalidating_ms: u64,
    /// While the origin fails.
    pub if_error_ms: u64,
}

impl StaleRules {
    /// Reads them from a response's policy.
    pub fn of(policy: &Policy, default_if_error_s: u64) -> Self {
        let directives = &policy.directives;
        let forbidden = directives.must_revalidate
            || directives.proxy_revalidate
            || directives.no_cache.is_everything();
        let default_s = if directives.s_maxage_s.is_some() { 0 } else { default_if_error_s };
        let allow_ms = |seconds: u64| if forbidden { 0 } else { seconds.saturating_mul(1000) };
        Self {
            // s-maxage has the sense of proxy-revalidate (§5.2.2.10), so max-stale does not reach
            // it.
            forbidden: forbidden || directives.s_maxage_s.is_some(),
            while_revalidating_ms: allow_ms(directives.stale_while_revalidate_s.unwrap_or(0)),
            if_error_ms: allow_ms(directives.stale_if_error_s.unwrap_or(default_s)),
        }
    }
}

/// Status codes that count as a failed origin (RFC 5861 §4). One that is none is read as 5xx (RFC
/// 9110 §15).
pub(crate) fn is_origin_error(status: u16) -> bool {
    matches!(status, 500 | 502 | 503 | 504 | 600..)
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    const DAY_MS: u64 = 86_400_000;

    fn check(value: &str, expected: (bool, u64, u64)) {
        let fields = [("Cache-Control", value)];
        let rules = StaleRules::of(&Policy::of(&&fields[..], &[]), 86_400);
        let found = (rules.forbidden, rules.while_revalidating_ms, rules.if_error_ms);
        assert_eq!(found, expected, "{value}");
    }

    #[test]
    fn rfc9111_4_2_4_who_forbids_stale() {
        for value in ["must-revalidate", "proxy-revalidate", "no-cache"] {
            check(&format!("max-age=1, stale-if-error=9, {value}"), (true, 0, 0));
        }
        check("max-age=1", (false, 0, DAY_MS));
        check("no-cache=set-cookie", (false, 0, DAY_MS));
    }

    #[test]
    fn rfc9111_5_2_2_10_s_maxage_forbids_unless_allowed_by_name() {
        check("s-maxage=1", (true, 0, 0));
        check("s-maxage=1, stale-while-revalidate=5", (true, 5000, 0));
        check("s-maxage=1, stale-if-error=5", (true, 0, 5000));
    }

    #[test]
    fn rfc5861_an_explicit_zero_is_zero() {
        check("max-age=1, stale-if-error=0", (false, 0, 0));
    }
}
