//! Which field a response's directives come from (RFC 9213).
//!
//! The first field of the target list that is present and well-formed decides alone:
//! `Cache-Control`, `Expires` and the targets behind it are not looked at (§2.2). A targeted field
//! is a structured dictionary (RFC 9651 §3.2), strictly: a syntax error makes all of it void, and
//! then the next candidate counts. Within it a directive of the wrong type is ignored (§2.1); a
//! repeated one counts by its last occurrence, as dictionaries do.
//!
//! A rule of the site can give a lifetime of its own. What the origin forbids stays forbidden, and
//! what only its explicit word allows stays allowed or not, unless the rule says that its word is
//! not to be heard at all.

use std::borrow::Cow;

use proto::{
    feed::rule::{LifetimeRule, OriginWord},
    field::list::Argument,
};

use crate::{directives::ResponseDirectives, limits, request::FieldSource};

/// The directives that count for us.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub struct Policy {
    /// What they say.
    pub directives: ResponseDirectives,
    /// Whether they come from a targeted field, so that `Expires` does not count either.
    pub is_targeted: bool,
    /// Which target of the list that is, counted from 1; 0 for none.
    pub target: u8,
    /// Where a rule of the site has given the lifetime.
    pub ruled: Option<Ruled>,
}

/// What a rule has replaced.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Ruled {
    /// The origin gave a lifetime of its own, and it counts that it did.
    pub is_explicit: bool,
}

impl Policy {
    /// Nothing said.
    pub(crate) const NONE: Self =
        Self { directives: ResponseDirectives::NONE, is_targeted: false, target: 0, ruled: None };

    /// Reads `fields`, whose targeted ones are `targets`, most specific first.
    pub fn of(fields: &dyn FieldSource, targets: &[String]) -> Self {
        for (at, target) in targets.iter().enumerate() {
            let mut value = Vec::new();
            fields.get_all(target, &mut |line| {
                if !value.is_empty() {
                    value.extend_from_slice(b", ");
                }
                value.extend_from_slice(line);
            });
            if !value.is_empty()
                && value.len() <= limits::TARGETED_BYTES_MAX
                && let Some(directives) = parse(&value)
            {
                let target = u8::try_from(at + 1).unwrap_or(u8::MAX);
                return Self { directives, is_targeted: true, target, ruled: None };
            }
        }
        let mut directives = ResponseDirectives::default();
        fields.get_all("Cache-Control", &mut |line| directives.read(line));
        Self { directives, ..Self::NONE }
    }

    /// The same, with what a rule of the site says of answers with this status.
    pub(crate) fn with_rule(
        mut self,
        rule: Option<&LifetimeRule>,
        status: u16,
        fields: &dyn FieldSource,
    ) -> Self {
        let Some(rule) = rule else { return self };
        let fresh_s = rule.fresh_s(status);
        let said = &self.directives;
        let has_expires = !self.is_targeted && fields.get("Expires").is_some();
        let is_explicit = said.s_maxage_s.is_some() || said.max_age_s.is_some() || has_expires;
        let counts = rule.origin != OriginWord::Honour;
        if rule.origin == OriginWord::Ignore && fresh_s.is_some() {
            let no_transform = said.no_transform;
            self.directives = ResponseDirectives { no_transform, ..ResponseDirectives::default() };
        }
        let directives = &mut self.directives;
        if let Some(fresh_s) = fresh_s.filter(|_| counts || !is_explicit) {
            // `s-maxage` says more than a lifetime (RFC 9111 §5.2.2.10); that much stays.
            match directives.s_maxage_s {
                Some(_) => directives.s_maxage_s = Some(fresh_s),
                None => directives.max_age_s = Some(fresh_s),
            }
            self.is_targeted = true;
            let is_explicit = is_explicit && rule.origin != OriginWord::Ignore;
            self.ruled = Some(Ruled { is_explicit });
        }
        let replace = |said: &mut Option<u64>, ruled: Option<u64>| {
            *said = if counts { ruled.or(*said) } else { said.or(ruled) };
        };
        replace(&mut directives.stale_while_revalidate_s, rule.stale_while_revalidate_s);
        replace(&mut directives.stale_if_error_s, rule.stale_if_error_s);
        self
    }
}

/// The directives of a dictionary; `None` if it is malformed or empty.
fn parse(text: &[u8]) -> Option<ResponseDirectives> {
    let members = Scanner { rest: text }.dictionary()?;
    let mut directives = ResponseDirectives::default();
    for (at, (name, value)) in members.iter().enumerate() {
        if members[at + 1..].iter().any(|(later, _)| later == name) {
            continue;
        }
        let takes_seconds = matches!(
            name.as_str(),
            "max-age" | "s-maxage" | "stale-while-revalidate" | "stale-if-error"
        );
        match value {
            // A negative number of seconds is a number: nothing is that fresh.
            Bare::Integer(number) if takes_seconds => {
                let seconds = (*number).max(0).to_string().into_bytes();
                directives.take(name, &Argument::Text(Cow::Owned(seconds)));
            }
            Bare::True if !takes_seconds => directives.take(name, &Argument::None),
            Bare::Text(text) if matches!(name.as_str(), "no-cache" | "private") => {
                directives.take(name, &Argument::Text(Cow::Borrowed(text)));
            }
            _ => {}
        }
    }
    (!members.is_empty()).then_some(directives)
}

/// The values that a directive can make use of.
#[derive(Clone, PartialEq, Eq, Debug)]
enum Bare {
    True,
    Integer(i64),
    /// A string or a token.
    Text(Vec<u8>),
    /// Well-formed, of no use here.
    Other,
}

/// A strict reader of RFC 9651 dictionaries (§4.2.2). Parameters are checked and dropped.
struct Scanner<'a> {
    rest: &'a [u8],
}

impl<'a> Scanner<'a> {
    fn dictionary(&mut self) -> Option<Vec<(String, Bare)>> {
        let mut members = Vec::new();
        self.skip(b" ");
        while !self.rest.is_empty() {
            let name = self.key()?;
            let value = if self.eat(b'=') {
                if self.rest.first() == Some(&b'(') { self.inner_list()? } else { self.bare()? }
            } else {
                Bare::True
            };
            self.parameters()?;
            members.push((name, value));
            self.skip(b" \t");
            if self.rest.is_empty() {
                return Some(members);
            }
            if !self.eat(b',') {
                return None;
            }
            self.skip(b" \t");
            if self.rest.is_empty() {
                return None;
            }
        }
        Some(members)
    }

    fn inner_list(&mut self) -> Option<Bare> {
        self.eat(b'(');
        loop {
            self.skip(b" ");
            if self.eat(b')') {
                return Some(Bare::Other);
            }
            self.bare()?;
            self.parameters()?;
            if !matches!(self.rest.first(), Some(b' ' | b')')) {
                return None;
            }
        }
    }

    fn parameters(&mut self) -> Option<()> {
        while self.eat(b';') {
            self.skip(b" ");
            self.key()?;
            if self.eat(b'=') {
                self.bare()?;
            }
        }
        Some(())
    }

    fn key(&mut self) -> Option<String> {
        if !matches!(self.rest.first(), Some(b'a'..=b'z' | b'*')) {
            return None;
        }
        let name =
            self.take_while(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'_' | b'-' | b'.' | b'*'));
        String::from_utf8(name.to_vec()).ok()
    }

    fn bare(&mut self) -> Option<Bare> {
        match *self.rest.first()? {
            b'-' | b'0'..=b'9' => self.number(),
            b'"' => self.string(),
            b'?' => {
                let value = match self.rest.get(1)? {
                    b'0' => Bare::Other,
                    b'1' => Bare::True,
                    _ => return None,
                };
                self.rest = &self.rest[2..];
                Some(value)
            }
            b':' => self.byte_sequence(),
            b'@' => {
                self.eat(b'@');
                matches!(self.number()?, Bare::Integer(_)).then_some(Bare::Other)
            }
            b'%' => self.display_string(),
            b'*' | b'A'..=b'Z' | b'a'..=b'z' => {
                let token = self
                    .take_while(|b| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~:/".contains(&b));
                Some(Bare::Text(token.to_vec()))
            }
            _ => None,
        }
    }

    fn number(&mut self) -> Option<Bare> {
        let sign = if self.eat(b'-') { -1 } else { 1 };
        let digits = self.take_while(|b| b.is_ascii_digit());
        if !self.eat(b'.') {
            if !(1..=15).contains(&digits.len()) {
                return None;
            }
            let number = std::str::from_utf8(digits).ok()?.parse::<i64>().ok()?;
            return Some(Bare::Integer(sign * number));
        }
        let fraction = self.take_while(|b| b.is_ascii_digit());
        let is_decimal = (1..=12).contains(&digits.len()) && (1..=3).contains(&fraction.len());
        is_decimal.then_some(Bare::Other)
    }

    fn string(&mut self) -> Option<Bare> {
        self.eat(b'"');
        let mut content = Vec::new();
        loop {
            let (&b, rest) = self.rest.split_first()?;
            self.rest = rest;
            match b {
                b'"' => return Some(Bare::Text(content)),
                b'\\' => {
                    let (&escaped, rest) = self.rest.split_first()?;
                    self.rest = rest;
                    if !matches!(escaped, b'"' | b'\\') {
                        return None;
                    }
                    content.push(escaped);
                }
                0x20..=0x7e => content.push(b),
                _ => return None,
            }
        }
    }

    /// Base64, whose padding may be left out (RFC 9651 §4.2.7).
    fn byte_sequence(&mut self) -> Option<Bare> {
        self.eat(b':');
        let digits =
            self.take_while(|b| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'/')).len();
        let padding = self.take_while(|b| b == b'=').len();
        let is_whole = digits % 4 != 1 && padding <= (4 - digits % 4) % 4;
        (self.eat(b':') && is_whole).then_some(Bare::Other)
    }

    /// UTF-8, of which `%` and two lower-case digits stand for a byte (RFC 9651 §4.2.10).
    fn display_string(&mut self) -> Option<Bare> {
        self.eat(b'%');
        if !self.eat(b'"') {
            return None;
        }
        let digit = |b: &u8| match b {
            b'0'..=b'9' => Some(b - b'0'),
            b'a'..=b'f' => Some(b - b'a' + 10),
            _ => None,
        };
        let mut content = Vec::new();
        loop {
            let (&b, rest) = self.rest.split_first()?;
            self.rest = rest;
            match b {
                b'"' => return std::str::from_utf8(&content).is_ok().then_some(Bare::Other),
                b'%' => {
                    let [high, low, rest @ ..] = rest else { return None };
                    content.push(digit(high)? << 4 | digit(low)?);
                    self.rest = rest;
                }
                0x20..=0x7e => content.push(b),
                _ => return None,
            }
        }
    }

    fn eat(&mut self, wanted: u8) -> bool {
        match self.rest.split_first() {
            Some((&b, rest)) if b == wanted => {
                self.rest = rest;
                true
            }
            _ => false,
        }
    }

    fn skip(&mut self, set: &[u8]) {
        self.take_while(|b| set.contains(&b));
    }

    fn take_while(&mut self, accept: impl Fn(u8) -> bool) -> &'a [u8] {
        let len = self.rest.iter().take_while(|&&b| accept(b)).count();
        let (taken, rest) = self.rest.split_at(len);
        self.rest = rest;
        taken
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    fn policy(fields: &[(&str, &str)]) -> Policy {
        Policy::of(&fields, &["Pharos-Cache-Control".into(), "CDN-Cache-Control".into()])
    }

    #[test]
    fn rfc9213_2_2_the_first_valid_target_decides_alone() {
        let found = policy(&[("Cache-Control", "no-store"), ("CDN-Cache-Control", "max-age=3600")]);
        assert!(found.is_targeted && !found.directives.no_store);
        assert_eq!(found.directives.max_age_s, Some(3600));
        let found =
            policy(&[("CDN-Cache-Control", "max-age=1"), ("Pharos-Cache-Control", "max-age=2")]);
        assert_eq!(found.directives.max_age_s, Some(2));
    }

    #[test]
    fn rfc9213_2_1_a_malformed_target_is_ignored() {
        for value in [
            "",
            "max-age=",
            "Max-Age=5",
            "max-age=5,",
            "max-age=5 no-store",
            "max-age=\"5",
            "max-age=5; ",
            ",",
            "max-age=1234567890123456",
            "a=?2",
            "a=(1",
            "max-age=1.2345",
        ] {
            let found = policy(&[("Cache-Control", "max-age=7"), ("CDN-Cache-Control", value)]);
            assert!(!found.is_targeted, "{value}");
            assert_eq!(found.directives.max_age_s, Some(7), "{value}");
        }
    }

    #[test]
    fn rfc9213_2_1_parameters_are_as_strict_as_members() {
        for (parameter, is_valid) in [
            ("%\"%zz\"", false),
            ("%\"%C3%BC\"", false),
            ("%\"%c3\"", false),
            ("%\"%c\"", false),
            ("%\"x", false),
            ("%\"%c3%bc \"", true),
            (":a=b:", false),
            (":a:", false),
            (":YQ===:", false),
            (":!:", false),
            (":YQ", false),
            (":YQ==:", true),
            (":YQ:", true),
            ("::", true),
            ("\"\\x\"", false),
            ("@1.5", false),
            ("1.", false),
            ("?2", false),
        ] {
            for value in [
                format!("max-age=5;x={parameter}"),
                format!("max-age=5, a={parameter}"),
                format!("max-age=5, a=(1 {parameter})"),
                format!("max-age=5, a=(1;x={parameter});y"),
            ] {
                let found = policy(&[("CDN-Cache-Control", &value)]);
                assert_eq!(found.is_targeted, is_valid, "{value}");
            }
        }
    }

    #[test]
    fn rfc9213_2_1_wrong_types_are_ignored_and_parameters_dropped() {
        let directives = |value| policy(&[("CDN-Cache-Control", value)]).directives;
        assert_eq!(directives("max-age=\"5\", a").max_age_s, None);
        assert_eq!(directives("max-age=5.5, a").max_age_s, None);
        assert_eq!(directives("max-age=5;x=y;z, b=(1 2;q \"x\");r=:YQ==:").max_age_s, Some(5));
        assert_eq!(directives("max-age=-5").max_age_s, Some(0));
        assert!(!directives("no-store=?0").no_store);
        assert!(directives("no-store=?1").no_store);
        assert!(directives("no-store;x").no_store);
        assert!(directives("private=\"set-cookie\"").private.names(b"Set-Cookie"));
    }

    #[test]
    fn rfc9651_3_2_the_last_of_repeated_members_counts() {
        let found =
            policy(&[("CDN-Cache-Control", "max-age=1"), ("CDN-Cache-Control", "max-age=2")]);
        assert_eq!(found.directives.max_age_s, Some(2));
    }
}
