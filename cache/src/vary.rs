//! Variants: which stored response of a cache key belongs to a request (RFC 9111 §4.1).
//!
//! A variant is the list of names in `Vary` and the values that the request behind the stored
//! response had for them, in a normal form: of any field its lines joined, and no more, since
//! nobody knows what its syntax allows; of the `Accept` fields, which are lists, empty members and
//! white space around commas removed; of `Accept-Encoding` and `Accept-Language` also case, order
//! and spelling of q-values, which carry no meaning there (RFC 9110 §12.4.2, §12.5).
//!
//! A response in one language (`Content-Language`) is also selected by a request that wants exactly
//! this language more than any other: what the origin would have chosen, it cannot choose better.
//!
//! Living variants of one cache key all have the same
//! names, those of the newest response, so that at most one of them matches a request;
//! [`crate::index`] keeps it so.

use proto::field::list;

use crate::{decision::NoStoreReason, limits, request::FieldSource};

/// Names and values that a stored response was chosen by.
#[derive(Clone, Debug, Default)]
pub struct Variant {
    members: Box<[Member]>,
}

#[derive(Clone, Debug)]
struct Member {
    /// Lower case.
    name: Box<str>,
    /// As it came, if it came in one line: comparing it first saves normalising.
    raw: Option<Box<[u8]>>,
    /// In normal form; `None` if the request had no such field.
    normal: Option<Box<[u8]>>,
    /// The one language of the response, lower case, where the name is `accept-language`.
    language: Option<Box<[u8]>>,
}

impl Variant {
    /// The variant that `request` selects by the `Vary` of `response`.
    pub fn of(
        request: &dyn FieldSource,
        response: &dyn FieldSource,
    ) -> Result<Self, NoStoreReason> {
        let mut names: Vec<Box<str>> = Vec::new();
        let mut is_any = false;
        response.get_all("Vary", &mut |line| {
            for name in list::members(line) {
                is_any |= name == b"*";
                names.push(String::from_utf8_lossy(name).to_ascii_lowercase().into());
            }
        });
        names.sort_unstable();
        names.dedup();
        if is_any || names.len() > limits::VARY_NAMES_MAX {
            return Err(NoStoreReason::Vary);
        }
        let language = one_language(response);
        let member = |name: Box<str>| {
            let language = language.clone().filter(|_| &*name == ACCEPT_LANGUAGE);
            Member { language, ..Member::of(name, request) }
        };
        Ok(Self { members: names.into_iter().map(member).collect() })
    }

    /// The variant that `request` selects by the names of this one.
    pub fn for_request(&self, request: &dyn FieldSource) -> Self {
        let members = self.members.iter().map(|member| Member::of(member.name.clone(), request));
        Self { members: members.collect() }
    }

    /// Whether it does not vary.
    pub fn is_plain(&self) -> bool {
        self.members.is_empty()
    }

    /// Shows each name it was chosen by and, in normal form, the value; `None` for no such field.
    pub fn each(&self, show: &mut dyn FnMut(&str, Option<&[u8]>)) {
        for member in &self.members {
            show(&member.name, member.normal.as_deref());
        }
    }

    /// Whether `request` selects this variant.
    pub fn matches(&self, request: &dyn FieldSource) -> bool {
        self.members.iter().all(|member| member.matches(request))
    }

    /// Whether it varies by this name, given in lower case.
    pub(crate) fn is_by(&self, name: &str) -> bool {
        self.members.iter().any(|member| *member.name == *name)
    }

    /// Whether both vary by the same names.
    pub fn same_names(&self, other: &Self) -> bool {
        self.members.len() == other.members.len()
            && self.members.iter().zip(&other.members).all(|(a, b)| a.name == b.name)
    }

    /// Whether both are the same variant.
    pub fn same(&self, other: &Self) -> bool {
        self.members.len() == other.members.len()
            && self
                .members
                .iter()
                .zip(&other.members)
                .all(|(a, b)| a.name == b.name && a.normal == b.normal)
    }

    /// Bytes held beside the structure itself.
    pub(crate) fn heap_bytes(&self) -> usize {
        let len = |text: &Option<Box<[u8]>>| text.as_ref().map_or(0, |text| text.len() + 16);
        self.members
            .iter()
            .map(|member| {
                size_of::<Member>()
                    + member.name.len()
                    + 16
                    + len(&member.raw)
                    + len(&member.normal)
                    + len(&member.language)
            })
            .sum()
    }
}

impl Member {
    fn of(name: Box<str>, request: &dyn FieldSource) -> Self {
        let mut lines = Vec::new();
        request.get_all(&name, &mut |line| lines.push(line));
        let raw = match lines[..] {
            [line] => Some(line.into()),
            _ => None,
        };
        Self { raw, normal: normal(&name, &lines), language: None, name }
    }

    fn matches(&self, request: &dyn FieldSource) -> bool {
        let mut lines = Lines::None;
        request.get_all(&self.name, &mut |line| {
            lines = match lines {
                Lines::None => Lines::One(line),
                _ => Lines::Many,
            };
        });
        match (lines, &self.raw) {
            (Lines::None, _) => self.normal.is_none(),
            (Lines::One(line), Some(raw)) if *line == **raw => true,
            _ => {
                let mut lines = Vec::new();
                request.get_all(&self.name, &mut |line| lines.push(line));
                self.normal == normal(&self.name, &lines)
                    || self.language.as_ref().is_some_and(|language| prefers(&lines, language))
            }
        }
    }
}

/// How many lines a field has.
enum Lines<'a> {
    None,
    One(&'a [u8]),
    Many,
}

/// The normal form of a field's lines; `None` without any.
fn normal(name: &str, lines: &[&[u8]]) -> Option<Box<[u8]>> {
    if lines.is_empty() {
        return None;
    }
    match name {
        "accept-encoding" | ACCEPT_LANGUAGE => {}
        "accept" | "accept-charset" => {
            let members: Vec<&[u8]> = lines.iter().flat_map(|line| list::members(line)).collect();
            return Some(members.join(&b","[..]).into());
        }
        _ => return Some(lines.join(&b", "[..]).into()),
    }
    let mut members: Vec<Vec<u8>> =
        lines.iter().flat_map(|line| list::members(line)).map(normal_member).collect();
    members.sort_unstable();
    members.dedup();
    Some(members.join(&b","[..]).into())
}

/// `GZIP ; q=0.50` → `gzip;q=0.5`; a weight of 1 is left out.
fn normal_member(member: &[u8]) -> Vec<u8> {
    let (value, parameter) = list::split_outside_quotes(member, b';');
    let mut text = list::trim(value).to_ascii_lowercase();
    let Some(parameter) = parameter else { return text };
    let parameter = list::trim(parameter).to_ascii_lowercase();
    let Some(weight) = parameter.strip_prefix(b"q=") else {
        text.push(b';');
        text.extend_from_slice(&parameter);
        return text;
    };
    let weight = match weight.iter().position(|&b| b == b'.') {
        Some(point) => {
            let digits = weight.iter().rposition(|&b| b != b'0').map_or(0, |at| at + 1);
            &weight[..if digits == point + 1 { point } else { digits }]
        }
        None => weight,
    };
    if weight != b"1" {
        text.extend_from_slice(b";q=");
        text.extend_from_slice(weight);
    }
    text
}

const ACCEPT_LANGUAGE: &str = "accept-language";

/// The language of a response that has exactly one, lower case.
fn one_language(response: &dyn FieldSource) -> Option<Box<[u8]>> {
    let mut languages = Vec::new();
    response.get_all("Content-Language", &mut |line| languages.extend(list::members(line)));
    match languages[..] {
        [language] => Some(language.to_ascii_lowercase().into()),
        _ => None,
    }
}

/// Whether the lines of `Accept-Language` give `language` a higher weight than any other.
fn prefers(lines: &[&[u8]], language: &[u8]) -> bool {
    let mut own = None;
    let mut best_other = 0;
    for member in lines.iter().flat_map(|line| list::members(line)) {
        let (range, parameter) = list::split_outside_quotes(member, b';');
        let Some(weight) = weight_thousandths(parameter) else { return false };
        if list::trim(range).eq_ignore_ascii_case(language) {
            own = Some(weight);
        } else {
            best_other = best_other.max(weight);
        }
    }
    own.is_some_and(|own| own > best_other)
}

/// `q=0.85` as 850; 1000 without one, `None` if it is malformed (RFC 9110 §12.4.2).
pub(crate) fn weight_thousandths(parameter: Option<&[u8]>) -> Option<u32> {
    let Some(parameter) = parameter else { return Some(1000) };
    let [b'q' | b'Q', b'=', whole @ (b'0' | b'1'), fraction @ ..] = list::trim(parameter) else {
        return None;
    };
    let digits = match fraction {
        [] => fraction,
        [b'.', digits @ ..] if digits.len() <= 3 => digits,
        _ => return None,
    };
    let mut weight = u32::from(whole - b'0');
    for at in 0..3 {
        let digit = digits.get(at).copied().unwrap_or(b'0');
        weight = weight * 10 + u32::from(char::from(digit).to_digit(10)? as u8);
    }
    (weight <= 1000).then_some(weight)
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    type Fields<'a> = &'a [(&'a str, &'a str)];

    fn check(vary: &str, stored: Fields<'_>, asking: Fields<'_>, expected: bool) {
        let response = [("Vary", vary)];
        let variant = Variant::of(&stored, &&response[..]).expect("storable");
        assert_eq!(variant.matches(&asking), expected, "{vary}: {stored:?} {asking:?}");
        assert_eq!(variant.same(&variant.for_request(&asking)), expected, "the two ways agree");
    }

    #[test]
    fn rfc9111_4_1_all_named_fields_must_match() {
        check("Foo", &[("Foo", "1")], &[("foo", "1"), ("Bar", "2")], true);
        check("Foo", &[("Foo", "1")], &[("Foo", "2")], false);
        check("Foo, Bar", &[("Foo", "1"), ("Bar", "2")], &[("Foo", "1"), ("Bar", "3")], false);
        check("Foo", &[], &[], true);
        check("Foo", &[], &[("Foo", "")], false);
        check("Foo", &[("Foo", "1"), ("Foo", "2")], &[("Foo", "1, 2")], true);
        check("Foo", &[("Foo", "1, 2")], &[("Foo", "2, 1")], false);
        check("", &[("Foo", "1")], &[], true);
    }

    #[test]
    fn rfc9111_4_1_white_space_is_changed_only_where_the_syntax_is_known_to_allow_it() {
        for (a, b) in [
            ("1,2", "1, 2"),
            ("a", "a,"),
            ("", ","),
            ("(x, y)", "(x,y)"),
            ("\"1,2\"", "\"1, 2\""),
            ("a", "A"),
        ] {
            check("Foo", &[("Foo", a)], &[("Foo", b)], false);
        }
        check("Accept", &[("Accept", "text/html,*/*")], &[("Accept", "text/html , ,*/*")], true);
        let quoted = |text| [("Accept", text)];
        check("Accept", &quoted("a/b;c=\"1,2\""), &quoted("a/b;c=\"1, 2\""), false);
        check("Accept", &[("Accept", "a/b, c/d")], &[("Accept", "c/d, a/b")], false);
    }

    #[test]
    fn rfc9111_4_1_a_response_is_selected_by_who_wants_its_language_most() {
        let response: Fields<'_> = &[("Vary", "Accept-Language"), ("Content-Language", "DE")];
        let stored: Fields<'_> = &[("Accept-Language", "en, de")];
        let variant = Variant::of(&stored, &response).expect("storable");
        for (accept, expected) in [
            ("fr;q=0.5, de;q=1.0", true),
            ("de", true),
            ("De;q=0.2, *;q=0.1", true),
            ("fr, de", false),
            ("fr;q=0.5, de;q=0.4", false),
            ("de-AT, de;q=0.9", false),
            ("de;q=1.5", false),
            ("de;q=0.5;x=1", false),
            ("en", false),
            ("", false),
        ] {
            let asking: Fields<'_> = &[("Accept-Language", accept)];
            assert_eq!(variant.matches(&asking), expected, "{accept}");
        }
        let several: Fields<'_> = &[("Vary", "Accept-Language"), ("Content-Language", "de, en")];
        let variant = Variant::of(&stored, &several).expect("storable");
        assert!(!variant.matches(&(&[("Accept-Language", "de")][..] as Fields<'_>)));
    }

    #[test]
    fn rfc9111_4_1_star_is_not_stored() {
        for vary in ["*", "Foo, *"] {
            let response = [("Vary", vary)];
            let none: Fields<'_> = &[];
            assert!(Variant::of(&none, &&response[..]).is_err());
        }
    }

    #[test]
    fn rfc9110_12_4_2_order_case_and_spelling_of_weights_do_not_matter() {
        for (a, b, expected) in [
            ("gzip, br", "BR,gzip", true),
            ("gzip;q=0.50", "gzip; q=0.5", true),
            ("gzip;q=1.000, br;q=0.0", "gzip, br;q=0", true),
            ("gzip", "gzip;q=0.5", false),
            ("gzip", "br", false),
        ] {
            check(
                "Accept-Encoding",
                &[("Accept-Encoding", a)],
                &[("accept-encoding", b)],
                expected,
            );
        }
        check(
            "Accept-Language",
            &[("Accept-Language", "en;q=0.5, de")],
            &[("Accept-Language", "DE, en;q=0.50")],
            true,
        );
    }
}
