//! `Cache-Control`, of requests and of responses (RFC 9111 §5.2).
//!
//! Reading is lenient about what it does not know and strict about what it does: of a directive
//! given twice the first counts (§4.2.1), an argument that is no number of seconds makes a response
//! stale rather than fresh. Arguments are taken in token and in quoted form (§5.2).
//!
//! Leaves to others: which field a response's directives come from ([`crate::targeted`]), what
//! follows from them ([`crate::storability`], [`crate::freshness`]).

use proto::field::list::{self, Argument};

/// What a request asks of caches (RFC 9111 §5.2.1).
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct RequestDirectives {
    /// Nothing without validation. Also set by `Pragma: no-cache` alone (§5.4).
    pub no_cache: bool,
    /// Keep nothing of this exchange.
    pub no_store: bool,
    /// From the cache or not at all.
    pub only_if_cached: bool,
    /// Largest age, seconds. An invalid one counts as 0.
    pub max_age_s: Option<u64>,
    /// Freshness still left, seconds.
    pub min_fresh_s: Option<u64>,
    /// How long past its freshness a response may be, seconds; `u64::MAX` for any.
    pub max_stale_s: Option<u64>,
    /// As it came from the origin.
    pub no_transform: bool,
}

impl RequestDirectives {
    /// Reads one field line.
    pub fn read(&mut self, value: &[u8]) {
        for (name, argument) in list::members(value).filter_map(list::directive) {
            let seconds = argument.seconds().map(u64::from);
            if name.eq_ignore_ascii_case("no-cache") {
                self.no_cache = true;
            } else if name.eq_ignore_ascii_case("no-store") {
                self.no_store = true;
            } else if name.eq_ignore_ascii_case("only-if-cached") {
                self.only_if_cached = true;
            } else if name.eq_ignore_ascii_case("no-transform") {
                self.no_transform = true;
            } else if name.eq_ignore_ascii_case("max-age") {
                self.max_age_s.get_or_insert(seconds.unwrap_or(0));
            } else if name.eq_ignore_ascii_case("min-fresh") {
                self.min_fresh_s.get_or_insert(seconds.unwrap_or(u64::MAX));
            } else if name.eq_ignore_ascii_case("max-stale") {
                let any = argument == Argument::None;
                self.max_stale_s.get_or_insert(if any { u64::MAX } else { seconds.unwrap_or(0) });
            }
        }
    }
}

/// What a response says to a shared cache (RFC 9111 §5.2.2, RFC 5861, RFC 8246).
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub struct ResponseDirectives {
    /// Not to be stored.
    pub no_store: bool,
    /// Not to be used without validation: all of it, or only some fields.
    pub no_cache: Reach,
    /// Not for a shared cache: all of it, or only some fields.
    pub private: Reach,
    /// For every cache, also where it would not be by default.
    pub public: bool,
    /// Never stale.
    pub must_revalidate: bool,
    /// Never stale in a shared cache.
    pub proxy_revalidate: bool,
    /// Only for caches that know the status code; those ignore `no_store`.
    pub must_understand: bool,
    /// Does not change while fresh (RFC 8246).
    pub immutable: bool,
    /// Not to be transformed.
    pub no_transform: bool,
    /// Freshness lifetime, seconds; 0 if invalid.
    pub max_age_s: Option<u64>,
    /// The same for shared caches.
    pub s_maxage_s: Option<u64>,
    /// RFC 5861 §3, seconds.
    pub stale_while_revalidate_s: Option<u64>,
    /// RFC 5861 §4, seconds.
    pub stale_if_error_s: Option<u64>,
}

/// How far `no-cache` or `private` reaches.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub enum Reach {
    /// Not said.
    #[default]
    Nothing,
    /// The fields named, lower case.
    Fields(Vec<String>),
    /// The whole response.
    Everything,
}

impl Reach {
    /// Whether the whole response is meant.
    pub fn is_everything(&self) -> bool {
        *self == Self::Everything
    }

    /// Whether only some fields are meant.
    pub fn is_some_fields(&self) -> bool {
        matches!(self, Self::Fields(_))
    }

    /// Whether a field is named.
    pub fn names(&self, field_name: &[u8]) -> bool {
        match self {
            Self::Fields(names) => {
                names.iter().any(|name| field_name.eq_ignore_ascii_case(name.as_bytes()))
            }
            _ => false,
        }
    }

    fn widen(&mut self, argument: &Argument<'_>) {
        let Argument::Text(text) = argument else {
            *self = Self::Everything;
            return;
        };
        let names = list::members(text)
            .map(|name| String::from_utf8_lossy(name).to_ascii_lowercase())
            .collect::<Vec<_>>();
        match self {
            Self::Everything => {}
            _ if names.is_empty() => *self = Self::Everything,
            Self::Fields(known) => known.extend(names),
            Self::Nothing => *self = Self::Fields(names),
        }
    }
}

impl ResponseDirectives {
    /// Nothing said.
    pub(crate) const NONE: Self = Self {
        no_store: false,
        no_cache: Reach::Nothing,
        private: Reach::Nothing,
        public: false,
        must_revalidate: false,
        proxy_revalidate: false,
        must_understand: false,
        immutable: false,
        no_transform: false,
        max_age_s: None,
        s_maxage_s: None,
        stale_while_revalidate_s: None,
        stale_if_error_s: None,
    };

    /// Reads one field line.
    pub fn read(&mut self, value: &[u8]) {
        for (name, argument) in list::members(value).filter_map(list::directive) {
            self.take(name, &argument);
        }
    }

    /// Takes one directive. Unknown ones are ignored (§5.2.3).
    pub(crate) fn take(&mut self, name: &str, argument: &Argument<'_>) {
        let seconds = || argument.seconds().map_or(0, u64::from);
        let known: &mut Option<u64> = match name.to_ascii_lowercase().as_str() {
            "max-age" => &mut self.max_age_s,
            "s-maxage" => &mut self.s_maxage_s,
            "stale-while-revalidate" => &mut self.stale_while_revalidate_s,
            "stale-if-error" => &mut self.stale_if_error_s,
            "no-cache" => return self.no_cache.widen(argument),
            "private" => return self.private.widen(argument),
            "no-store" => return self.no_store = true,
            "public" => return self.public = true,
            "must-revalidate" => return self.must_revalidate = true,
            "proxy-revalidate" => return self.proxy_revalidate = true,
            "must-understand" => return self.must_understand = true,
            "immutable" => return self.immutable = true,
            "no-transform" => return self.no_transform = true,
            _ => return,
        };
        known.get_or_insert_with(seconds);
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    fn response(value: &str) -> ResponseDirectives {
        let mut directives = ResponseDirectives::default();
        directives.read(value.as_bytes());
        directives
    }

    fn request(value: &str) -> RequestDirectives {
        let mut directives = RequestDirectives::default();
        directives.read(value.as_bytes());
        directives
    }

    #[test]
    fn rfc9111_5_2_names_in_any_case_arguments_as_token_or_quoted() {
        assert_eq!(response("Max-Age=5").max_age_s, Some(5));
        assert_eq!(response("max-age=\"5\", NO-store").max_age_s, Some(5));
        assert!(response("max-age=\"5\", NO-store").no_store);
    }

    #[test]
    fn rfc9111_4_2_1_invalid_or_repeated_lifetimes() {
        for (value, seconds) in [
            ("max-age=abc", 0),
            ("max-age=-1", 0),
            ("max-age=1.5", 0),
            ("max-age", 0),
            ("max-age=", 0),
            ("max-age=7, max-age=9", 7),
            ("max-age=99999999999999999999", u64::from(u32::MAX)),
        ] {
            assert_eq!(response(value).max_age_s, Some(seconds), "{value}");
        }
    }

    #[test]
    fn rfc9111_5_2_2_4_no_cache_with_field_names_reaches_only_those() {
        let directives = response("no-cache=\"Set-Cookie, X-A\", private=set-cookie");
        assert!(directives.no_cache.names(b"set-cookie") && directives.no_cache.names(b"x-a"));
        assert!(!directives.no_cache.is_everything());
        assert!(directives.private.names(b"Set-Cookie"));
        assert!(response("no-cache=\"a\", no-cache").no_cache.is_everything());
        assert!(response("no-cache, no-cache=\"a\"").no_cache.is_everything());
    }

    #[test]
    fn rfc9111_5_2_a_directive_inside_quotes_is_none() {
        assert!(!response("ext=\"no-store, private\"").no_store);
    }

    #[test]
    fn rfc9111_5_2_1_request_directives() {
        let directives = request("max-age=0, max-stale, min-fresh=3, only-if-cached");
        assert_eq!(directives.max_age_s, Some(0));
        assert_eq!(directives.max_stale_s, Some(u64::MAX));
        assert_eq!(directives.min_fresh_s, Some(3));
        assert!(directives.only_if_cached);
        assert_eq!(request("max-stale=5").max_stale_s, Some(5));
        assert_eq!(request("max-stale=x").max_stale_s, Some(0));
    }
}
