//! The part of a request that caching looks at, scanned once.
//!
//! Leaves to others: parsing (`proto`), forwarding (`dataplane`). Fields are read through
//! [`FieldSource`], so that any HTTP version can ask.

use proto::field::name::Known;

use crate::{
    directives::RequestDirectives,
    key::CacheKeyRef,
    range::{self, Spec},
};

/// Something that has fields: a request head, a response head, a stored entry.
pub trait FieldSource {
    /// Shows every field in order of arrival: its name in any case, its value without white space
    /// around it.
    fn each<'a>(&'a self, show: &mut dyn FnMut(&'a [u8], &'a [u8]));

    /// All values of a field, in order.
    fn get_all<'a>(&'a self, name: &str, show: &mut dyn FnMut(&'a [u8])) {
        self.each(&mut |found, value| {
            if found.eq_ignore_ascii_case(name.as_bytes()) {
                show(value);
            }
        });
    }

    /// The first value of a field.
    fn get<'a>(&'a self, name: &str) -> Option<&'a [u8]> {
        let mut first = None;
        self.get_all(name, &mut |value| {
            first.get_or_insert(value);
        });
        first
    }

    /// Whether any of these may be there. A source that has been classified answers by one test and
    /// saves the scan.
    fn may_have(&self, names: &[Known]) -> bool {
        let _ = names;
        true
    }
}

/// Fields as pairs; for tests and for fields made on the way.
impl FieldSource for &[(&[u8], &[u8])] {
    fn each<'a>(&'a self, show: &mut dyn FnMut(&'a [u8], &'a [u8])) {
        for (name, value) in *self {
            show(name, value);
        }
    }
}

/// Fields as pairs of text.
impl FieldSource for &[(&str, &str)] {
    fn each<'a>(&'a self, show: &mut dyn FnMut(&'a [u8], &'a [u8])) {
        for (name, value) in *self {
            show(name.as_bytes(), value.as_bytes());
        }
    }
}

/// What a method means to a cache.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Method {
    /// Answered from the cache and stored.
    Get,
    /// Answered from what GET stored; updates it.
    Head,
    /// Safe, but neither answered nor stored here: OPTIONS, TRACE and the like.
    Safe,
    /// Unsafe, but its answer may be one to GET as well (RFC 9110 §9.3.3).
    Post,
    /// May change things at the origin; a success invalidates (RFC 9111 §4.4). Unknown methods,
    /// too.
    Unsafe,
}

impl Method {
    /// By its name, which is case-sensitive.
    pub fn from_name(name: &[u8]) -> Self {
        match name {
            b"GET" => Self::Get,
            b"HEAD" => Self::Head,
            b"OPTIONS" | b"TRACE" | b"PROPFIND" | b"REPORT" | b"SEARCH" | b"QUERY" => Self::Safe,
            b"POST" => Self::Post,
            _ => Self::Unsafe,
        }
    }
}

/// One request as the cache sees it.
#[derive(Clone, Copy)]
pub struct Request<'a> {
    pub(crate) method: Method,
    pub(crate) cache_key: CacheKeyRef<'a>,
    pub(crate) fields: &'a dyn FieldSource,
    pub(crate) directives: RequestDirectives,
    pub(crate) conditions: Conditions<'a>,
    pub(crate) has_authorization: bool,
    /// See [`Request::alone`].
    pub(crate) is_alone: bool,
}

/// Preconditions of a request, and what it wants a part of.
#[derive(Clone, Copy, Default, Debug)]
pub(crate) struct Conditions<'a> {
    /// First line and whether there are more of them.
    pub(crate) if_none_match: Option<&'a [u8]>,
    pub(crate) if_modified_since: Option<&'a [u8]>,
    /// `If-Match` or `If-Unmodified-Since`: for the origin alone (RFC 9111 §4.3.2).
    pub(crate) for_origin: bool,
    pub(crate) range: Option<&'a [u8]>,
    pub(crate) if_range: Option<&'a [u8]>,
}

impl<'a> Request<'a> {
    /// Looks once at every field.
    pub fn new(method: Method, cache_key: CacheKeyRef<'a>, fields: &'a dyn FieldSource) -> Self {
        let mut request = Self {
            method,
            cache_key,
            fields,
            directives: RequestDirectives::default(),
            conditions: Conditions::default(),
            has_authorization: false,
            is_alone: false,
        };
        if !fields.may_have(&LOOKED_AT) {
            return request;
        }
        let mut pragma_no_cache = false;
        let mut has_cache_control = false;
        fields.each(&mut |name, value| {
            // By length first: most fields end here.
            match name.len() {
                5 if name.eq_ignore_ascii_case(b"range") => {
                    request.conditions.range.get_or_insert(value);
                }
                6 if name.eq_ignore_ascii_case(b"pragma") => {
                    pragma_no_cache |= value.eq_ignore_ascii_case(b"no-cache");
                }
                8 if name.eq_ignore_ascii_case(b"if-match") => request.conditions.for_origin = true,
                8 if name.eq_ignore_ascii_case(b"if-range") => {
                    request.conditions.if_range.get_or_insert(value);
                }
                13 if name.eq_ignore_ascii_case(b"cache-control") => {
                    has_cache_control = true;
                    request.directives.read(value);
                }
                13 if name.eq_ignore_ascii_case(b"if-none-match") => {
                    request.conditions.if_none_match.get_or_insert(value);
                }
                13 if name.eq_ignore_ascii_case(b"authorization") => {
                    request.has_authorization = true
                }
                17 if name.eq_ignore_ascii_case(b"if-modified-since") => {
                    request.conditions.if_modified_since.get_or_insert(value);
                }
                19 if name.eq_ignore_ascii_case(b"if-unmodified-since") => {
                    request.conditions.for_origin = true;
                }
                _ => {}
            }
        });
        // Defined for GET alone (RFC 9110 §14.2).
        if method != Method::Get {
            request.conditions.range = None;
        }
        // RFC 9111 §5.4: only where Cache-Control does not speak.
        request.directives.no_cache |= pragma_no_cache && !has_cache_control;
        request
    }

    /// Of something that is the same for everyone and that its origin shows to everyone: who asks,
    /// whether that may be stored, and conditions that only the origin could judge, change nothing.
    #[must_use]
    pub fn public(mut self) -> Self {
        self.has_authorization = false;
        self.directives.no_store = false;
        self.conditions.for_origin = false;
        self
    }

    /// Of something that may not be there: nobody else waits for its fetch, and it waits for
    /// nobody's.
    #[must_use]
    pub fn alone(mut self) -> Self {
        self.is_alone = true;
        self
    }

    /// The ranges it wants; `None` for the whole.
    pub(crate) fn ranges(&self) -> Option<Vec<Spec>> {
        range::parse(self.conditions.range?)
    }

    /// The one range it wants, which can be asked of the origin in the same words.
    pub(crate) fn one_range(&self) -> Option<Spec> {
        match self.ranges()?[..] {
            [one] => Some(one),
            _ => None,
        }
    }

    /// What it asks for.
    pub fn cache_key(&self) -> &CacheKeyRef<'a> {
        &self.cache_key
    }

    /// Its method.
    pub fn method(&self) -> Method {
        self.method
    }
}

/// What [`Request::new`] looks for.
const LOOKED_AT: [Known; 9] = [
    Known::CacheControl,
    Known::Pragma,
    Known::Range,
    Known::IfRange,
    Known::IfMatch,
    Known::IfNoneMatch,
    Known::IfModifiedSince,
    Known::IfUnmodifiedSince,
    Known::Authorization,
];

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::key::KeyHasher;

    fn check(fields: &[(&str, &str)], test: impl Fn(&Request<'_>) -> bool) {
        let cache_key = KeyHasher::new(0).cache_key("s", b"h", b"/", b"");
        assert!(test(&Request::new(Method::Get, cache_key, &fields)), "{fields:?}");
    }

    #[test]
    fn rfc9111_5_4_pragma_counts_only_without_cache_control() {
        check(&[("Pragma", "no-cache")], |request| request.directives.no_cache);
        check(&[("Pragma", "no-cache"), ("Cache-Control", "max-age=5")], |request| {
            !request.directives.no_cache
        });
    }

    #[test]
    fn the_scan_finds_what_caching_depends_on() {
        check(&[("authorization", "x")], |request| request.has_authorization);
        check(&[("If-Match", "*")], |request| request.conditions.for_origin);
        check(&[("IF-NONE-MATCH", "\"a\"")], |request| {
            request.conditions.if_none_match == Some(b"\"a\"")
        });
        check(&[("Cache-Control", "no-cache"), ("Cache-Control", "no-store")], |request| {
            request.directives.no_cache && request.directives.no_store
        });
    }

    #[test]
    fn rfc9110_9_2_1_methods_are_case_sensitive_and_unknown_ones_unsafe() {
        assert_eq!(Method::from_name(b"GET"), Method::Get);
        assert_eq!(Method::from_name(b"get"), Method::Unsafe);
        assert_eq!(Method::from_name(b"BREW"), Method::Unsafe);
        assert_eq!(Method::from_name(b"OPTIONS"), Method::Safe);
    }
}
