//! Request targets and authorities (RFC 9112 §3.2, RFC 3986 §3.2).
//!
//! A target is accepted by its form and as visible ASCII without a fragment; which of those bytes
//! RFC 3986 would have escaped is left alone, because browsers send `|`, `{` and the like (WHATWG
//! URL) and nothing here splits on them. An authority is checked fully: routing and the cache key
//! stand on it.

/// A request target of whatever form.
///
/// A record and not an enum with data: it is copied on every request, and the compiler copies such
/// an enum at odd offsets, which stalled store forwarding (8 of 180 ns a head).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Target<'a> {
    /// In which form it was sent.
    pub form: Form,
    /// What follows the authority, if there is one; `*`; nothing.
    rest: &'a str,
    has_query: bool,
}

/// The four forms of a request target (RFC 9112 §3.2).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Form {
    /// `/path?query`, the normal one.
    Origin,
    /// `http://host/path?query`. Its authority replaces that of the `Host` field.
    AbsoluteHttp,
    /// The same with `https`.
    AbsoluteHttps,
    /// `*`, with OPTIONS only.
    Asterisk,
    /// `host:port`, with CONNECT only.
    Authority,
}

impl<'a> Target<'a> {
    /// Reads a target of whatever form, and the authority of an absolute or authority form (empty
    /// otherwise). Which form the method allows is checked by the head's parser.
    #[inline(always)]
    pub fn parse(text: &'a str) -> Result<(Self, Authority<'a>), TargetError> {
        let found = text.bytes().fold(0, |found, b| found | TARGET[usize::from(b)]);
        if found & FOREIGN != 0 {
            return Err(TargetError::Byte);
        }
        if text.starts_with('/') {
            let target = Self { form: Form::Origin, rest: text, has_query: found & QUERY != 0 };
            return Ok((target, Authority::EMPTY));
        }
        Self::parse_unusual(text)
    }

    #[cold]
    fn parse_unusual(text: &'a str) -> Result<(Self, Authority<'a>), TargetError> {
        if text == "*" {
            let target = Self { form: Form::Asterisk, rest: text, has_query: false };
            return Ok((target, Authority::EMPTY));
        }
        let Some((scheme, rest)) = text.split_once("://") else {
            let authority = Authority::parse(text).filter(|authority| authority.port.is_some());
            let authority = authority.ok_or(TargetError::Form)?;
            return Ok((Self { form: Form::Authority, rest: "", has_query: false }, authority));
        };
        let form = match scheme {
            _ if scheme.eq_ignore_ascii_case("http") => Form::AbsoluteHttp,
            _ if scheme.eq_ignore_ascii_case("https") => Form::AbsoluteHttps,
            _ => return Err(TargetError::Scheme),
        };
        // A `?` in front of any `/` ends the authority too.
        let end = rest.find(['/', '?']).unwrap_or(rest.len());
        let (authority, rest) = rest.split_at(end);
        let authority = Authority::parse(authority).ok_or(TargetError::Authority)?;
        if authority.host.is_empty() {
            return Err(TargetError::Authority);
        }
        if rest.starts_with('?') {
            return Err(TargetError::Form);
        }
        let has_query = rest.contains('?');
        Ok((Self { form, rest: if rest.is_empty() { "/" } else { rest }, has_query }, authority))
    }

    /// Path and query as they are sent on: begins with `/`, or is `*`; empty for an authority form.
    #[inline]
    pub fn path_and_query(&self) -> &'a str {
        self.rest
    }

    /// The path: what is before the first `?`.
    #[inline]
    pub fn path(&self) -> &'a str {
        if !self.has_query {
            return self.rest;
        }
        self.rest.split_once('?').map_or(self.rest, |(path, _)| path)
    }

    /// The query: what is behind the first `?`.
    pub fn query(&self) -> Option<&'a str> {
        self.rest.split_once('?').map(|(_, query)| query)
    }

    /// Whether it names its own authority (RFC 9112 §3.2.2).
    pub const fn is_absolute(&self) -> bool {
        matches!(self.form, Form::AbsoluteHttp | Form::AbsoluteHttps)
    }
}

/// Host and port of a `Host` field or an absolute target. No userinfo: it is refused (RFC 9110
/// §4.2.4).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Authority<'a> {
    /// Registered name, IPv4 address, or IPv6 address in brackets; in the case it was sent,
    /// possibly empty (RFC 9112 §3.2 lets a client without an authority send an empty `Host`).
    /// Compare without case.
    pub host: &'a str,
    /// The port, `None` if absent or empty.
    pub port: Option<u16>,
}

impl<'a> Authority<'a> {
    /// No host, no port.
    pub const EMPTY: Authority<'static> = Authority { host: "", port: None };

    /// Checks `text` against `uri-host [ ":" port ]`; `None` if it is not that.
    #[inline(always)]
    pub fn parse(text: &'a str) -> Option<Self> {
        let bytes = text.as_bytes();
        let mut host_len = bytes.iter().take_while(|&&b| HOST[usize::from(b)]).count();
        match bytes.get(host_len) {
            None | Some(b':') => {}
            _ => host_len = unusual_host(bytes)?,
        }
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

/// Length of a host that is an address in brackets or has `%` escapes.
#[cold]
fn unusual_host(bytes: &[u8]) -> Option<usize> {
    if bytes.first() == Some(&b'[') {
        let end = bytes.iter().position(|&b| b == b']')?;
        return is_ip_literal(&bytes[1..end]).then_some(end + 1);
    }
    let mut at = 0;
    loop {
        match &bytes[at..] {
            [b'%', a, b, ..] if a.is_ascii_hexdigit() && b.is_ascii_hexdigit() => at += 3,
            [b'%', ..] => return None,
            [b, ..] if HOST[usize::from(*b)] => at += 1,
            _ => return Some(at),
        }
    }
}

/// In [`TARGET`]: what begins a query.
const QUERY: u8 = 1;
/// In [`TARGET`]: what must not stand in a target.
const FOREIGN: u8 = 2;

/// What a byte is in a target: visible ASCII but `#`, or foreign.
const TARGET: [u8; 256] = {
    let mut table = [FOREIGN; 256];
    let mut b = b'!';
    while b <= b'~' {
        table[b as usize] = match b {
            b'#' => FOREIGN,
            b'?' => QUERY,
            _ => 0,
        };
        b += 1;
    }
    table
};

/// reg-name of RFC 3986 without escapes: unreserved and sub-delims. The comma is a sub-delim but
/// left out: two `Host` fields that something before us has joined would look like one name.
const HOST: [bool; 256] = {
    let mut table = [false; 256];
    let mut b = 0;
    while b < 256 {
        table[b] = matches!(
            b as u8,
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~'
            | b'!' | b'$' | b'&' | b'\'' | b'(' | b')' | b'*' | b'+' | b';' | b'='
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
        let none = authority("", None);
        let host = authority("a.b", Some(8080));
        for (text, form, authority, rest) in [
            ("/a?b", Form::Origin, none, "/a?b"),
            ("*", Form::Asterisk, none, "*"),
            ("a.b:8080", Form::Authority, host, ""),
            ("http://a.b:8080/x?y", Form::AbsoluteHttp, host, "/x?y"),
            ("HTTPS://a.b:8080", Form::AbsoluteHttps, host, "/"),
        ] {
            assert_eq!(
                Target::parse(text),
                Ok((Target { form, rest, has_query: rest.contains('?') }, authority)),
                "{text}"
            );
        }
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
            // What would be sent on has no path; no client writes this.
            ("http://a?q", TargetError::Form),
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
            ("http://h/a?q", "/a", Some("q")),
            ("*", "*", None),
        ] {
            let (target, _) = Target::parse(text).expect(text);
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
            if let Ok((target, _)) = Target::parse(&text) {
                let sent = target.path_and_query();
                prop_assert!(text.ends_with(sent) || sent == "/");
            }
        }
    }
}
