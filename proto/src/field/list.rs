//! Comma-separated lists with quoted strings (RFC 9110 §5.6).
//!
//! A list is read leniently where the RFC asks for it (empty members are skipped, white space
//! around commas does not count) and never across a quote: a comma inside a quoted string does not
//! split. An unclosed quote runs to the end of its field line.

use std::borrow::Cow;

use super::name::is_token_byte;

/// The members of one field line, trimmed, empty ones left out.
pub fn members(value: &[u8]) -> Members<'_> {
    Members { rest: value }
}

/// See [`members`].
#[derive(Clone, Debug)]
pub struct Members<'a> {
    rest: &'a [u8],
}

impl<'a> Iterator for Members<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        while !self.rest.is_empty() {
            let end = find_outside_quotes(self.rest, b',').unwrap_or(self.rest.len());
            let member = trim(&self.rest[..end]);
            self.rest = self.rest.get(end + 1..).unwrap_or_default();
            if !member.is_empty() {
                return Some(member);
            }
        }
        None
    }
}

/// Whether a list of tokens has this one, in whatever case. For `Connection`, `Transfer-Encoding`,
/// `Vary`.
pub fn has_token(value: &[u8], token: &str) -> bool {
    members(value).any(|member| member.eq_ignore_ascii_case(token.as_bytes()))
}

/// Splits `name[=argument]`, a directive of `Cache-Control` or a parameter. `None` if the name is
/// no token. The argument is a token or a quoted string with its quotes removed; an argument that
/// is neither (a bad quote, spaces, nothing after `=`) is [`Argument::Invalid`].
pub fn directive(member: &[u8]) -> Option<(&str, Argument<'_>)> {
    let name_len = member.iter().take_while(|&&b| is_token_byte(b)).count();
    let name = std::str::from_utf8(&member[..name_len]).ok().filter(|name| !name.is_empty())?;
    match trim(&member[name_len..]) {
        [] => Some((name, Argument::None)),
        [b'=', rest @ ..] => {
            let rest = trim(rest);
            let text = match unquote(rest) {
                Some(text) => Some(text),
                None if super::name::is_token(rest) => Some(Cow::Borrowed(rest)),
                None => None,
            };
            Some((name, text.map_or(Argument::Invalid, Argument::Text)))
        }
        _ => None,
    }
}

/// What stands behind the `=` of a directive.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Argument<'a> {
    /// No `=`.
    None,
    /// A token, or the content of a quoted string.
    Text(Cow<'a, [u8]>),
    /// Something that is neither.
    Invalid,
}

impl Argument<'_> {
    /// The argument as delta-seconds (RFC 9111 §1.2.2): decimal digits only; what is too large for
    /// `u32` becomes its maximum, as the RFC allows from 2³¹ on. `None` for anything else.
    pub fn seconds(&self) -> Option<u32> {
        let Self::Text(text) = self else { return None };
        delta_seconds(text)
    }
}

/// Decimal digits as seconds, saturating; `None` for anything else, the empty string included.
pub fn delta_seconds(text: &[u8]) -> Option<u32> {
    if text.is_empty() || !text.iter().all(u8::is_ascii_digit) {
        return None;
    }
    Some(
        text.iter()
            .fold(0u32, |value, b| value.saturating_mul(10).saturating_add(u32::from(b - b'0'))),
    )
}

/// The content of a quoted string, `None` if `text` is not exactly one. Borrowed unless something
/// is escaped.
pub fn unquote(text: &[u8]) -> Option<Cow<'_, [u8]>> {
    let inner = text.strip_prefix(b"\"")?.strip_suffix(b"\"")?;
    if !inner.iter().any(|b| matches!(b, b'"' | b'\\')) {
        return Some(Cow::Borrowed(inner));
    }
    let mut content = Vec::with_capacity(inner.len());
    let mut bytes = inner.iter();
    while let Some(&b) = bytes.next() {
        match b {
            b'\\' => content.push(*bytes.next()?),
            b'"' => return None,
            other => content.push(other),
        }
    }
    Some(Cow::Owned(content))
}

/// Splits at the first `separator` outside quoted strings.
pub fn split_outside_quotes(text: &[u8], separator: u8) -> (&[u8], Option<&[u8]>) {
    match find_outside_quotes(text, separator) {
        Some(at) => (&text[..at], Some(&text[at + 1..])),
        None => (text, None),
    }
}

/// Without optional white space (SP, HTAB) at both ends.
pub fn trim(mut text: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] = text {
        text = rest;
    }
    while let [rest @ .., b' ' | b'\t'] = text {
        text = rest;
    }
    text
}

fn find_outside_quotes(text: &[u8], separator: u8) -> Option<usize> {
    let mut quoted = false;
    let mut escaped = false;
    text.iter().position(|&b| {
        if escaped {
            escaped = false;
        } else if quoted {
            escaped = b == b'\\';
            quoted = b != b'"';
        } else {
            quoted = b == b'"';
            return b == separator;
        }
        false
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn check(value: &str, expected: &[&str]) {
        let found: Vec<_> = members(value.as_bytes()).map(String::from_utf8_lossy).collect();
        assert_eq!(found, expected, "{value}");
    }

    #[test]
    fn rfc9110_5_6_1_empty_members_are_skipped() {
        check("", &[]);
        check(" , ,,", &[]);
        check("a, b ,\tc,", &["a", "b", "c"]);
    }

    #[test]
    fn a_comma_in_a_quoted_string_does_not_split() {
        check(r#"a="1,2", b"#, &[r#"a="1,2""#, "b"]);
        check(r#""a\",b", c"#, &[r#""a\",b""#, "c"]);
        check(r#"a, "unclosed, b"#, &["a", r#""unclosed, b"#]);
    }

    #[test]
    fn directives_have_token_or_quoted_arguments() {
        let text = |text: &'static str| Argument::Text(Cow::Borrowed(text.as_bytes()));
        for (member, expected) in [
            ("no-cache", Some(("no-cache", Argument::None))),
            ("max-age=60", Some(("max-age", text("60")))),
            ("max-age=\"60\"", Some(("max-age", text("60")))),
            ("private=\"a, b\"", Some(("private", text("a, b")))),
            ("x=\"a\\\"b\"", Some(("x", text("a\"b")))),
            ("max-age=", Some(("max-age", Argument::Invalid))),
            ("max-age=6 0", Some(("max-age", Argument::Invalid))),
            ("x=\"open", Some(("x", Argument::Invalid))),
            ("=1", None),
            ("a b", None),
            ("\"a\"", None),
        ] {
            assert_eq!(directive(member.as_bytes()), expected, "{member}");
        }
    }

    #[test]
    fn rfc9111_1_2_2_delta_seconds_saturate_and_take_digits_only() {
        for (text, expected) in [
            ("0", Some(0)),
            ("60", Some(60)),
            ("007", Some(7)),
            ("99999999999", Some(u32::MAX)),
            ("", None),
            ("-1", None),
            ("+1", None),
            ("1.5", None),
            ("1 ", None),
        ] {
            assert_eq!(delta_seconds(text.as_bytes()), expected, "{text}");
        }
    }

    proptest! {
        #[test]
        fn members_are_trimmed_and_not_empty(value in prop::collection::vec(any::<u8>(), 0..60)) {
            for member in members(&value) {
                prop_assert!(!member.is_empty());
                prop_assert_eq!(trim(member), member);
            }
        }

        #[test]
        fn quoting_then_unquoting_is_identity(
            content in prop::collection::vec(any::<u8>(), 0..30),
        ) {
            let mut quoted = vec![b'"'];
            for &b in &content {
                if matches!(b, b'"' | b'\\') {
                    quoted.push(b'\\');
                }
                quoted.push(b);
            }
            quoted.push(b'"');
            let unquoted = unquote(&quoted).map(Cow::into_owned);
            prop_assert_eq!(unquoted, Some(content));
        }
    }
}
