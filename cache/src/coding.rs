//! Content codings that a stored body can be had in, which responses are worth one, and which of
//! them a request wants (RFC 9110 §8.4.1, §12.5.3).
//!
//! Leaves to others: who keeps the encoded bodies ([`crate::encoding`]), making them (`dataplane`).

use proto::field::list;

use crate::{directives::ResponseDirectives, request::FieldSource, vary::weight_thousandths};

/// A content coding that this cache can have a body in.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Coding {
    /// Brotli (RFC 7932).
    Br,
    /// Zstandard (RFC 8878), its window within RFC 9659.
    Zstd,
    /// RFC 1952.
    Gzip,
}

impl Coding {
    /// All of them.
    pub const ALL: [Self; Self::COUNT] = [Self::Br, Self::Zstd, Self::Gzip];
    /// How many there are.
    pub const COUNT: usize = 3;

    /// Its name in `Accept-Encoding` and `Content-Encoding`.
    pub fn token(self) -> &'static str {
        match self {
            Self::Br => "br",
            Self::Zstd => "zstd",
            Self::Gzip => "gzip",
        }
    }

    /// By its name.
    pub fn from_token(token: &[u8]) -> Option<Self> {
        if token.eq_ignore_ascii_case(b"x-gzip") {
            return Some(Self::Gzip);
        }
        Self::ALL.into_iter().find(|coding| token.eq_ignore_ascii_case(coding.token().as_bytes()))
    }
}

/// Which responses may be had encoded, and how. Only what is stored is: a body made for one visitor
/// never is, so no secret of one stands beside what another chose (BREACH).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Compression {
    /// Codings offered, the best of what a request weighs alike first. None: nothing is encoded.
    pub codings: Vec<Coding>,
    /// Media types, lower case, without parameters: `text/html`, `text/*`, `*+json`.
    pub types: Vec<String>,
    /// Bytes of the shortest body worth it.
    pub bytes_min: u64,
    /// Bytes of the longest body that is encoded.
    pub bytes_max: u64,
}

impl Compression {
    /// Nothing is encoded.
    pub const OFF: Self =
        Self { codings: Vec::new(), types: Vec::new(), bytes_min: 0, bytes_max: 0 };

    /// Whether a stored response may be had encoded: it came without a coding, its type is worth
    /// one, and nobody forbids it (RFC 9111 §5.2.2.6). `length`, where it is known.
    pub(crate) fn suits(&self, status: u16, fields: &dyn FieldSource, length: Option<u64>) -> bool {
        let fits = length.is_none_or(|length| self.fits(length));
        if self.codings.is_empty() || !fits || matches!(status, 204 | 206 | 304) {
            return false;
        }
        let is_coded = fields.get("Content-Encoding").is_some();
        !is_coded && self.names_type(fields) && !is_kept_as_is(fields)
    }

    /// Whether a body of this length is encoded.
    pub(crate) fn fits(&self, length: u64) -> bool {
        (self.bytes_min..=self.bytes_max).contains(&length)
    }

    fn names_type(&self, fields: &dyn FieldSource) -> bool {
        let Some(value) = fields.get("Content-Type") else { return false };
        let (essence, _) = list::split_outside_quotes(value, b';');
        let essence = list::trim(essence).to_ascii_lowercase();
        self.types.iter().any(|known| match known.as_bytes() {
            [b'*', suffix @ ..] => essence.ends_with(suffix),
            [prefix @ .., b'*'] => essence.starts_with(prefix),
            whole => essence == whole,
        })
    }
}

/// Whether `no-transform` is said, in whichever field: it is meant for everyone on the way.
fn is_kept_as_is(fields: &dyn FieldSource) -> bool {
    let mut directives = ResponseDirectives::default();
    for name in ["Cache-Control", "CDN-Cache-Control"] {
        fields.get_all(name, &mut |line| directives.read(line));
    }
    directives.no_transform
}

/// The codings that a request would rather have than none, best first.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Wanted([Option<Coding>; Coding::COUNT]);

impl Wanted {
    /// Of those in `offered`, by the request's weights; of equal ones the one offered first.
    pub(crate) fn of(fields: &dyn FieldSource, offered: &[Coding]) -> Self {
        let mut weights = Weights::default();
        fields.get_all("Accept-Encoding", &mut |line| weights.read(line));
        let mut wanted = [None; Coding::COUNT];
        let mut count = 0;
        for &coding in offered.iter().take(Coding::COUNT) {
            let weight = weights.of(coding);
            if weight == 0 || weights.identity.is_some_and(|identity| identity > weight) {
                continue;
            }
            let before = |known: &Option<Coding>| known.is_some_and(|it| weights.of(it) >= weight);
            let at = wanted.iter().position(|known| !before(known)).unwrap_or(count);
            wanted.copy_within(at..count, at + 1);
            wanted[at] = Some(coding);
            count += 1;
        }
        Self(wanted)
    }

    /// In order.
    pub(crate) fn iter(self) -> impl Iterator<Item = Coding> {
        self.0.into_iter().flatten()
    }
}

/// What `Accept-Encoding` says, in thousandths.
#[derive(Default)]
struct Weights {
    named: [Option<u32>; Coding::COUNT],
    identity: Option<u32>,
    any: u32,
}

impl Weights {
    fn read(&mut self, line: &[u8]) {
        for member in list::members(line) {
            let (name, parameter) = list::split_outside_quotes(member, b';');
            // What cannot be read asks for nothing.
            let weight = weight_thousandths(parameter).unwrap_or(0);
            match list::trim(name) {
                b"*" => self.any = weight,
                name if name.eq_ignore_ascii_case(b"identity") => self.identity = Some(weight),
                name => {
                    if let Some(coding) = Coding::from_token(name) {
                        self.named[coding as usize] = Some(weight);
                    }
                }
            }
        }
    }

    fn of(&self, coding: Coding) -> u32 {
        self.named[coding as usize].unwrap_or(self.any)
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    fn wanted(accept: &[&str]) -> Vec<&'static str> {
        let fields: Vec<_> = accept.iter().map(|&value| ("Accept-Encoding", value)).collect();
        Wanted::of(&&fields[..], &Coding::ALL).iter().map(Coding::token).collect()
    }

    #[test]
    fn rfc9110_12_5_3_the_highest_weight_wins_and_of_equal_ones_the_one_offered_first() {
        for (accept, expected) in [
            ("gzip, deflate, br, zstd", &["br", "zstd", "gzip"][..]),
            ("gzip", &["gzip"]),
            ("X-GZIP", &["gzip"]),
            ("gzip;q=1.0, br;q=0.5", &["gzip", "br"]),
            ("zstd;q=0.3, gzip;q=0.9, br;q=0.5", &["gzip", "br", "zstd"]),
            ("zstd;q=0.5, gzip;q=0.5, br;q=0.4", &["zstd", "gzip", "br"]),
            ("br;q=0, gzip", &["gzip"]),
            ("br;q=0", &[]),
            ("br;q=2", &[]),
            ("deflate, compress", &[]),
            ("", &[]),
        ] {
            assert_eq!(wanted(&[accept]), expected, "{accept}");
        }
        assert_eq!(wanted(&[]), [""; 0], "who says nothing gets it as it is");
        assert_eq!(wanted(&["gzip", "br"]), ["br", "gzip"], "lines are one list");
    }

    #[test]
    fn rfc9110_12_5_3_star_means_those_not_named_and_identity_counts_where_it_is_weighed() {
        for (accept, expected) in [
            ("*", &["br", "zstd", "gzip"][..]),
            ("*;q=0", &[]),
            ("gzip;q=0.5, *;q=0.1", &["gzip", "br", "zstd"]),
            ("br;q=0, *;q=0.5", &["zstd", "gzip"]),
            ("identity", &[]),
            ("identity;q=0, gzip", &["gzip"]),
            ("identity;q=0.5, gzip;q=0.4, br;q=0.6", &["br"]),
            ("identity;q=0.5, gzip;q=0.5", &["gzip"]),
            ("identity, *", &["br", "zstd", "gzip"]),
        ] {
            assert_eq!(wanted(&[accept]), expected, "{accept}");
        }
    }

    fn suits(status: u16, fields: &[(&str, &str)], length: Option<u64>) -> bool {
        let types = ["text/*", "application/json", "*+xml"].map(String::from).to_vec();
        let compression =
            Compression { codings: vec![Coding::Gzip], types, bytes_min: 100, bytes_max: 200 };
        assert!(!Compression::OFF.suits(status, &fields, length));
        compression.suits(status, &fields, length)
    }

    #[test]
    fn what_is_encoded_is_long_enough_of_a_type_worth_it_and_came_without_a_coding() {
        let html = ("Content-Type", "Text/HTML; charset=utf-8");
        for (status, fields, length, expected) in [
            (200, &[html][..], Some(100), true),
            (404, &[html], Some(200), true),
            (200, &[html], None, true),
            (200, &[html], Some(99), false),
            (200, &[html], Some(201), false),
            (206, &[html], Some(100), false),
            (200, &[("Content-Type", "application/json")], None, true),
            (200, &[("Content-Type", "image/svg+xml")], None, true),
            (200, &[("Content-Type", "application/jsonx")], None, false),
            (200, &[("Content-Type", "image/png")], None, false),
            (200, &[], None, false),
            (200, &[html, ("Content-Encoding", "gzip")], None, false),
            (200, &[html, ("Content-Encoding", "identity")], None, false),
            (200, &[html, ("Cache-Control", "max-age=5, no-transform")], None, false),
            (200, &[html, ("CDN-Cache-Control", "no-transform")], None, false),
        ] {
            assert_eq!(suits(status, fields, length), expected, "{status} {fields:?} {length:?}");
        }
    }
}
