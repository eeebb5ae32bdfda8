//! May a response be stored, and if not, why (RFC 9111 §3).
//!
//! Leaves to others: size and memory ([`crate::collapse`]), `Vary` ([`crate::vary`]), surrogate
//! keys ([`crate::surrogate`]), purges during the fetch ([`crate::purge`]).

use crate::{
    decision::NoStoreReason,
    directives::ResponseDirectives,
    freshness::{Times, is_heuristically_cacheable},
    range::Spec,
    request::{Method, Request},
    response::Response,
    stale::StaleRules,
    targeted::Policy,
};

/// What storing depends on of the request that fetched.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Asked {
    /// Its method.
    pub(crate) method: Method,
    /// Whether it said `no-store`.
    pub(crate) no_store: bool,
    /// Whether it had `Authorization`.
    pub(crate) has_authorization: bool,
    /// The one range it wants.
    pub(crate) range: Option<Spec>,
}

impl Asked {
    /// Of this request.
    pub(crate) fn of(request: &Request<'_>) -> Self {
        Self {
            method: request.method,
            no_store: request.directives.no_store,
            has_authorization: request.has_authorization,
            range: request.one_range(),
        }
    }

    /// Plain GET.
    pub(crate) const GET: Self =
        Self { method: Method::Get, no_store: false, has_authorization: false, range: None };

    /// Whether its answer can be for others than the one who asked.
    pub(crate) fn is_for_others(&self) -> bool {
        !self.has_authorization && !self.no_store
    }

    /// Whether others would be answered the same.
    pub(crate) fn is_plain(&self) -> bool {
        self.method == Method::Get && self.is_for_others() && self.range.is_none()
    }
}

/// Whether `response` may be stored by a shared cache.
pub(crate) fn check(
    asked: Asked,
    response: &Response<'_>,
    policy: &Policy,
    times: &Times,
    stale: &StaleRules,
) -> Result<(), NoStoreReason> {
    let directives = &policy.directives;
    let is_explicit =
        times.source.is_explicit() || policy.ruled.is_some_and(|ruled| ruled.is_explicit);
    // The answer to POST must say for how long it is the resource's, too (RFC 9110 §9.3.3); where
    // it says which resource, the cache key decides ([`crate::draft`]).
    let is_method = match asked.method {
        Method::Get => true,
        Method::Post => response.status == 200 && is_explicit,
        Method::Head | Method::Safe | Method::Unsafe => false,
    };
    if !is_method {
        return Err(NoStoreReason::Method);
    }
    if asked.no_store {
        return Err(NoStoreReason::RequestNoStore);
    }
    // Parts of a representation are not stored; neither is what only updates one.
    // What answers a part or a condition says nothing about the whole; a part that may be kept
    // comes here as the whole it is of ([`crate::collapse`]).
    let is_storable_status = (200..600).contains(&response.status)
        && !matches!(response.status, 206 | 304 | 412 | 416)
        && (!directives.must_understand || is_understood(response.status));
    if !is_storable_status {
        return Err(NoStoreReason::Status);
    }
    if directives.no_store && !directives.must_understand {
        return Err(NoStoreReason::NoStore);
    }
    if directives.private.is_everything() {
        return Err(NoStoreReason::Private);
    }
    if asked.has_authorization && !shares_authorized(directives) {
        return Err(NoStoreReason::Authorization);
    }
    let is_allowed = directives.public
        || is_explicit
        || policy.ruled.is_some()
        || is_heuristically_cacheable(response.status);
    if !is_allowed {
        return Err(NoStoreReason::Status);
    }
    if response.fields.get("Set-Cookie").is_some()
        && !is_explicit
        && !directives.private.names(b"set-cookie")
        && !directives.no_cache.names(b"set-cookie")
    {
        return Err(NoStoreReason::SetCookie);
    }
    let can_validate =
        response.fields.get("ETag").is_some() || response.fields.get("Last-Modified").is_some();
    let can_be_fresh = times.lifetime_ms > 0;
    let explicit_stale = directives.stale_if_error_s.is_some_and(|seconds| seconds > 0)
        || stale.while_revalidating_ms > 0;
    if !can_validate && !can_be_fresh && !explicit_stale {
        return Err(NoStoreReason::NothingToReuse);
    }
    Ok(())
}

/// Whether the answer to a request with `Authorization` may be given to others (RFC 9111 §3.5).
pub(crate) fn shares_authorized(directives: &ResponseDirectives) -> bool {
    directives.public || directives.must_revalidate || directives.s_maxage_s.is_some()
}

/// Final status codes whose caching rules are known here (RFC 9110 §15), for `must-understand`.
fn is_understood(status: u16) -> bool {
    matches!(status,
        200..=205 | 300..=303 | 305 | 307 | 308 | 400..=417 | 421 | 422 | 426 | 428 | 429 | 431
        | 451 | 500..=505 | 511)
}

#[cfg(all(test, not(loom)))]
mod tests {
    use proto::feed::rule::{LifetimeRule, OriginWord};

    use super::*;

    const GET: Asked = Asked::GET;

    fn verdict(asked: Asked, status: u16, fields: &[(&str, &str)]) -> Result<(), NoStoreReason> {
        let response = Response {
            status,
            reason: b"",
            fields: &fields,
            length: None,
            request_at_ms: 1_000_000_000_000,
            response_at_ms: 1_000_000_000_000,
            append: b"",
        };
        let policy = Policy::of(&fields, &["cdn-cache-control".into()]);
        let times = Times::of(&response, &policy);
        check(asked, &response, &policy, &times, &StaleRules::of(&policy, 86_400))
    }

    fn control(value: &str) -> Result<(), NoStoreReason> {
        verdict(GET, 200, &[("Cache-Control", value)])
    }

    #[test]
    fn rfc9111_3_no_store_and_private_forbid() {
        assert_eq!(control("max-age=9, no-store"), Err(NoStoreReason::NoStore));
        assert_eq!(control("max-age=9, private"), Err(NoStoreReason::Private));
        assert_eq!(control("max-age=9, private=set-cookie"), Ok(()));
    }

    #[test]
    fn rfc9111_5_2_2_3_must_understand_overrides_no_store_for_known_codes() {
        assert_eq!(control("max-age=9, no-store, must-understand"), Ok(()));
        let fields = [("Cache-Control", "max-age=9, no-store, must-understand")];
        assert_eq!(verdict(GET, 299, &fields), Err(NoStoreReason::Status));
    }

    #[test]
    fn rfc9111_3_unknown_codes_need_an_explicit_lifetime() {
        assert_eq!(verdict(GET, 299, &[("Cache-Control", "max-age=9")]), Ok(()));
        assert_eq!(verdict(GET, 299, &[("ETag", "\"a\"")]), Err(NoStoreReason::Status));
        assert_eq!(verdict(GET, 404, &[("ETag", "\"a\"")]), Ok(()));
    }

    #[test]
    fn rfc9111_3_5_authorization_needs_permission() {
        let asked = Asked { has_authorization: true, ..GET };
        for (value, expected) in [
            ("max-age=9", Err(NoStoreReason::Authorization)),
            ("max-age=9, public", Ok(())),
            ("max-age=9, must-revalidate", Ok(())),
            ("s-maxage=9", Ok(())),
        ] {
            assert_eq!(verdict(asked, 200, &[("Cache-Control", value)]), expected, "{value}");
        }
    }

    #[test]
    fn rfc9111_5_2_2_9_public_allows_what_would_otherwise_not_be_stored() {
        let asked = Asked { has_authorization: true, ..GET };
        let etag = ("ETag", "\"a\"");
        for (asked, status, expected) in [
            (asked, 200, NoStoreReason::Authorization),
            (GET, 302, NoStoreReason::Status),
            (GET, 299, NoStoreReason::Status),
        ] {
            assert_eq!(verdict(asked, status, &[etag]), Err(expected), "{status}");
            let public = [etag, ("Cache-Control", "public")];
            assert_eq!(verdict(asked, status, &public), Ok(()), "{status}");
        }
        assert_eq!(control("public, no-store"), Err(NoStoreReason::NoStore));
        assert_eq!(control("public, private, max-age=9"), Err(NoStoreReason::Private));
    }

    #[test]
    fn rfc9111_3_methods_and_partial_content_are_not_stored() {
        let fields = [("Cache-Control", "max-age=9")];
        for method in [Method::Head, Method::Safe, Method::Unsafe] {
            let asked = Asked { method, ..GET };
            assert_eq!(verdict(asked, 200, &fields), Err(NoStoreReason::Method));
        }
        for status in [304, 412, 416] {
            assert_eq!(verdict(GET, status, &fields), Err(NoStoreReason::Status), "{status}");
        }
        assert_eq!(verdict(GET, 206, &fields), Err(NoStoreReason::Status));
        let asked = Asked { no_store: true, ..GET };
        assert_eq!(verdict(asked, 200, &fields), Err(NoStoreReason::RequestNoStore));
    }

    #[test]
    fn rfc9110_9_3_3_the_answer_to_post_needs_an_explicit_lifetime() {
        let post = Asked { method: Method::Post, ..GET };
        assert_eq!(verdict(post, 200, &[("Cache-Control", "max-age=9")]), Ok(()));
        let modified = [("Last-Modified", "Sun, 06 Nov 1994 08:49:37 GMT")];
        assert_eq!(verdict(post, 200, &modified), Err(NoStoreReason::Method));
        let fields = [("Cache-Control", "max-age=9")];
        assert_eq!(verdict(post, 201, &fields), Err(NoStoreReason::Method));
    }

    #[test]
    fn what_could_never_be_used_is_not_stored() {
        assert_eq!(control("max-age=0"), Err(NoStoreReason::NothingToReuse));
        assert_eq!(verdict(GET, 200, &[]), Err(NoStoreReason::NothingToReuse));
        assert_eq!(verdict(GET, 200, &[("ETag", "\"a\"")]), Ok(()));
        assert_eq!(control("max-age=0, stale-while-revalidate=5"), Ok(()));
    }

    #[test]
    fn a_guessed_lifetime_does_not_share_cookies() {
        let modified = ("Last-Modified", "Sun, 06 Nov 1994 08:49:37 GMT");
        let cookie = ("Set-Cookie", "a=b");
        assert_eq!(verdict(GET, 200, &[modified, cookie]), Err(NoStoreReason::SetCookie));
        assert_eq!(verdict(GET, 200, &[("Cache-Control", "max-age=9"), cookie]), Ok(()));
    }

    #[test]
    fn rfc9213_a_targeted_field_decides_alone() {
        let fields = [("Cache-Control", "no-store"), ("CDN-Cache-Control", "max-age=9")];
        assert_eq!(verdict(GET, 200, &fields), Ok(()));
        let fields = [("Cache-Control", "max-age=9"), ("CDN-Cache-Control", "no-store")];
        assert_eq!(verdict(GET, 200, &fields), Err(NoStoreReason::NoStore));
    }

    fn fresh(origin: OriginWord) -> LifetimeRule {
        LifetimeRule { fresh_s: Some(60), origin, ..LifetimeRule::default() }
    }

    /// How a response is stored by a rule, if it is: its lifetime in seconds.
    fn ruled(
        rule: &LifetimeRule,
        status: u16,
        fields: &[(&str, &str)],
    ) -> Result<u64, NoStoreReason> {
        let response = Response {
            status,
            reason: b"",
            fields: &fields,
            length: None,
            request_at_ms: 1_000_000_000_000,
            response_at_ms: 1_000_000_000_000,
            append: b"",
        };
        let policy = Policy::of(&fields, &[]).with_rule(Some(rule), status, &fields);
        let times = Times::of(&response, &policy);
        let stale = StaleRules::of(&policy, 86_400);
        check(GET, &response, &policy, &times, &stale).map(|()| times.lifetime_ms / 1000)
    }

    #[test]
    fn a_rule_gives_a_lifetime_and_what_the_origin_forbids_stays_forbidden() {
        let status_fresh_s = [("5xx".to_owned(), 2)].into();
        let rule = &LifetimeRule { status_fresh_s, ..fresh(OriginWord::Override) };
        for (status, fields, expected) in [
            (200, &[][..], Ok(60)),
            (200, &[("Cache-Control", "max-age=5")], Ok(60)),
            (200, &[("Expires", "0")], Ok(60)),
            (503, &[], Ok(2)),
            (404, &[("Cache-Control", "max-age=5")], Ok(5)),
            (200, &[("Cache-Control", "no-store")], Err(NoStoreReason::NoStore)),
            (200, &[("Cache-Control", "private")], Err(NoStoreReason::Private)),
            (200, &[("Set-Cookie", "a=b")], Err(NoStoreReason::SetCookie)),
            (200, &[("Set-Cookie", "a=b"), ("Cache-Control", "max-age=5")], Ok(60)),
        ] {
            assert_eq!(ruled(rule, status, fields), expected, "{status} {fields:?}");
        }
    }

    #[test]
    fn a_rule_can_honour_the_origin_or_not_listen_to_it() {
        let honour = &fresh(OriginWord::Honour);
        assert_eq!(ruled(honour, 200, &[("Cache-Control", "max-age=5")]), Ok(5));
        assert_eq!(ruled(honour, 200, &[("Cache-Control", "public")]), Ok(60));
        let ignore = &fresh(OriginWord::Ignore);
        assert_eq!(ruled(ignore, 200, &[("Cache-Control", "private, no-store, no-cache")]), Ok(60));
        let cookie = [("Cache-Control", "max-age=5"), ("Set-Cookie", "a=b")];
        assert_eq!(ruled(ignore, 200, &cookie), Err(NoStoreReason::SetCookie));
        let unsaid = [("Cache-Control", "no-store")];
        assert_eq!(ruled(ignore, 404, &unsaid), Err(NoStoreReason::NoStore), "no word of the rule");
    }

    #[test]
    fn a_rule_says_how_long_stale_is_served_unless_that_is_forbidden() {
        let rule = LifetimeRule {
            stale_if_error_s: Some(7),
            stale_while_revalidate_s: Some(3),
            ..LifetimeRule::default()
        };
        for (value, expected) in [
            ("max-age=5", (3_000, 7_000)),
            ("s-maxage=5", (3_000, 7_000)),
            ("max-age=5, stale-if-error=9", (3_000, 7_000)),
            ("max-age=5, must-revalidate", (0, 0)),
        ] {
            let fields = [("Cache-Control", value)];
            let policy = Policy::of(&&fields[..], &[]).with_rule(Some(&rule), 200, &&fields[..]);
            let stale = StaleRules::of(&policy, 86_400);
            let found = (stale.while_revalidating_ms, stale.if_error_ms);
            assert_eq!(found, expected, "{value}");
        }
    }
}
