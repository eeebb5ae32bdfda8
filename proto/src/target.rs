//! Request targets and authorities (RFC 9112 §3.2, RFC 3986 §3.2).
//!
//! A target is accepted by its form and as visible ASCII without a fragment; which of those bytes RFC 3986 would have
//! escaped is left alone, because browsers send `|`, `{` and the like (WHATWG URL) and nothing here splits on them. An authority
//! is checked fully: routing and the cache key stand on it.

/// The four forms of a request target.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Target<'a> {
    /// `/path?query`, the normal one.
    Origin(&'a str),
    /// `http://host/path?query`. Its authority replaces that of the `Host` field.
    Absolute {
        /// Whether the scheme is `https`; otherwise it is `http`.
        https: bool,
        /// Host and port.
        authority: Authority<'a>,
        /// From the first `/` or `?` on; may be empty.
        rest: &'a str,
    },
    /// `*`, with OPTIONS only.
    Asterisk,
    /// `host:port`, with CONNECT only.
    Authority(Authority<'a>),
}

impl<'a> Target<'a> {
    /// Reads a target of whatever form. Which form the method allows is checked by the head's parser.
    pub fn parse(text: &'a str) -> Result<Self, TargetError> {
        // No early exit: compiles to a vector loop over what is mostly a short string.
        let clean =
            text.bytes().fold(true, |clean, b| clean & matches!(b, b'!'..=b'~') & (b != b'#'));
        if !clean {
            return Err(TargetError::Byte);
        }
        if text.starts_with('/') {
            return Ok(Self::Origin(text));
        }
        if text == "*" {
            return Ok(Self::Asterisk);
        }
        match text.split_once("://") {
            Some((scheme, rest)) => Self::parse_absolute(scheme, rest),
            None => Authority::parse(text)
                .filter(|authority| authority.port.is_some())
                .map(Self::Authority)
                .ok_or(TargetError::Form),
        }
    }

    fn parse_absolute(scheme: &str, rest: &'a str) -> Result<Self, TargetError> {
        let https = scheme.eq_ignore_ascii_case("https");
        if !https && !scheme.eq_ignore_ascii_case("http") {
            return Err(TargetError::Scheme);
        }
        let end = rest.find(['/', '?']).unwrap_or(rest.len());
        let (authority, rest) = rest.split_at(end);
        let authority = Authority::parse(authority).ok_or(TargetError::Authority)?;
        if authority.host.is_empty() {
            return Err(TargetError::Authority);
        }
        Ok(Self::Absolute { https, authority, rest })
    }

    /// Path and query as they are sent on: begins with `/`, or is `*`. Only `http://host?query`, an absolute form
    /// without a path, keeps its `?` in front; [`Target::path`] gives `/` for it.
    pub fn path_and_query(&self) -> &'a str {
        match *self {
            Self::Origin(text) => text,
            Self::Absolute { rest: "", .. } => "/",
            Self::Absolute { rest, .. } => rest,
            Self::Asterisk => "*",
            Self::Authority(_) => "",
        }
    }

    /// The path: what is before the first `?`; `/` for an absolute form without one.
    pub fn path(&self) -> &'a str {
        let text = self.path_and_query();
        match text.split_once('?') {
            Some(("", _)) => "/",
            Some((path, _)) => path,
            None => text,
        }
    }

    /// The query: what is behind the first `?`.
    pub fn query(&self) -> Option<&'a str> {
        self.path_and_query().split_once('?').map(|(_, query)| query)
    }
}

/// Host and port of a `Host` field or an absolute target. No userinfo: it is refused (RFC 9110 §4.2.4).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Authority<'a> {
    /// Registered name, IPv4 address, or IPv6 address in brackets; in the case it was sent, possibly empty (RFC 9112 §3.2
    /// lets a client without an authority send an empty `Host`). Compare without case.
    pub host: &'a str,
    /// The port, `None` if absent or empty.
    pub port: Option<u16>,
}

impl<'a> Authority<'a> {
    /// Checks `text` against `uri-host [ ":" port ]`; `None` if it is not that.
    pub fn parse(text: &'a str) -> Option<Self> {
        let bytes = text.as_bytes();
        let host_len = if bytes.first() == Some(&b'[') {
            let len = bytes.iter().position(|&b| b == b']')? + 1;
            is_ip_literal(&bytes[1..len - 1]).then_some(len)?
        } else {
            let len = bytes.iter().take_while(|&&b| HOST[usize::from(b)]).count();
            percent_is_complete(&bytes[..len]).then_some(len)?
        };
        let port = match &bytes[host_len..] {
            [] | [b':'] => None,
            [b':', digits @ ..] => Some(parse_port(digits)?),
            _ => return None,
        };
        Some(Self { host: &text[..host_len], port })
    }
}

/// Why a request target was not accepted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TargetError {
    /// A byte that is not visible ASCII, or a fragment.
    Byte,
    /// None of the four forms.
    Form,
    /// An absolute form that is neither `http` nor `https`.
    Scheme,
    /// A bad host or port, or userinfo.
    Authority,
}

fn parse_port(digits: &[u8]) -> Option<u16> {
    if digits.len() > 5 || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let value = digits.iter().fold(0u32, |value, b| value * 10 + u32::from(b - b'0'));
    u16::try_from(value).ok()
}

/// Inside of `[…]`: an IPv6 address. IPvFuture and zones have no use in a `Host` and are refused.
fn is_ip_literal(inside: &[u8]) -> bool {
    std::str::from_utf8(inside).is_ok_and(|text| text.parse::<std::net::Ipv6Addr>().is_ok())
}

fn percent_is_complete(host: &[u8]) -> bool {
    let mut rest = host;
    while let Some(at) = rest.iter().position(|&b| b == b'%') {
        match &rest[at + 1..] {
            [a, b, after @ ..] if a.is_ascii_hexdigit() && b.is_ascii_hexdigit() => rest = after,
            _ => return false,
        }
    }
    true
}

/// reg-name of RFC 3986: unreserved, sub-delims, and `%` of an escape. The comma is a sub-delim but left out: two `Host`
/// fields that something before us has joined would look like one name.
const HOST: [bool; 256] = {
    let mut table = [false; 256];
    let mut b = 0;
    while b < 256 {
        table[b] = matches!(
            b as u8,
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~'
            | b'!' | b'$' | b'&' | b'\'' | b'(' | b')' | b'*' | b'+' | b';' | b'=' | b'%'
        );
        b += 1;
    }
    table
};

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn authority(host: &str, port: Option<u16>) -> Authority<'_> {
        Authority { host, port }
    }

    #[test]
    fn rfc9112_3_2_the_four_forms() {
        assert_eq!(Target::parse("/a?b"), Ok(Target::Origin("/a?b")));
        assert_eq!(Target::parse("*"), Ok(Target::Asterisk));
        assert_eq!(Target::parse("a.b:80"), Ok(Target::Authority(authority("a.b", Some(80)))));
        let absolute =
            |rest| Target::Absolute { https: false, authority: authority("a.b", Some(8080)), rest };
        assert_eq!(Target::parse("http://a.b:8080/x?y"), Ok(absolute("/x?y")));
        assert_eq!(Target::parse("HTTP://a.b:8080"), Ok(absolute("")));
    }

    #[test]
    fn bad_targets_are_refused() {
        for (text, error) in [
            ("", TargetError::Form),
            ("a", TargetError::Form),
            ("a.b", TargetError::Form),
            ("*a", TargetError::Form),
            ("/a#b", TargetError::Byte),
            ("/a b", TargetError::Byte),
            ("/\u{e9}", TargetError::Byte),
            ("/\u{7f}", TargetError::Byte),
            ("ftp://a/", TargetError::Scheme),
            ("http://", TargetError::Authority),
            ("http:///x", TargetError::Authority),
            ("http://u@a/", TargetError::Authority),
            ("http://a:b/", TargetError::Authority),
            ("http://a:99999/", TargetError::Authority),
        ] {
            assert_eq!(Target::parse(text), Err(error), "{text}");
        }
    }

    #[test]
    fn path_and_query_of_each_form() {
        for (text, path, query) in [
            ("/", "/", None),
            ("/a?b?c", "/a", Some("b?c")),
            ("/a?", "/a", Some("")),
            ("http://h", "/", None),
            ("http://h?q", "/", Some("q")),
            ("http://h/a?q", "/a", Some("q")),
            ("*", "*", None),
        ] {
            let target = Target::parse(text).expect(text);
            assert_eq!((target.path(), target.query()), (path, query), "{text}");
        }
    }

    #[test]
    fn rfc9110_7_2_authorities_are_checked() {
        for (text, expected) in [
            ("", Some(authority("", None))),
            ("a.example", Some(authority("a.example", None))),
            ("a.example:", Some(authority("a.example", None))),
            ("A_b-c.example:443", Some(authority("A_b-c.example", Some(443)))),
            ("127.0.0.1:0", Some(authority("127.0.0.1", Some(0)))),
            ("[::1]:80", Some(authority("[::1]", Some(80)))),
            ("a%20b", Some(authority("a%20b", None))),
            ("[::1", None),
            ("[]", None),
            ("[::1]x", None),
            ("[v1.a]", None),
            ("a b", None),
            ("a/b", None),
            ("a,b", None),
            ("a@b", None),
            ("a:b", None),
            ("a:-1", None),
            ("a:+1", None),
            ("a:1:2", None),
            ("a:65536", None),
            ("a%2", None),
            ("a%zz", None),
            ("a\u{e9}", None),
            ("a\\b", None),
        ] {
            assert_eq!(Authority::parse(text), expected, "{text}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_a_target_or_an_error(text in "[ -~]{0,40}") {
            if let Ok(target) = Target::parse(&text) {
                let sent = target.path_and_query();
                prop_assert!(text.ends_with(sent) || sent == "/");
            }
        }
    }
}
