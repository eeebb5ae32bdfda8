//! The nouns of control and their rules. Pure: built from the folded state of their entity, time as
//! numbers.

pub mod api_key;
pub mod component;
pub mod edge;
pub mod id;
pub mod impact;
pub mod incident;
pub mod name;
pub mod page;
pub mod site;
pub mod topic;

use std::fmt;

use crate::limits;

/// Why a text cannot be what it is meant to be; `expected` completes the sentence "expected …".
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Invalid {
    /// Stable, machine-readable.
    pub code: &'static str,
    /// For people.
    pub expected: &'static str,
}

impl fmt::Display for Invalid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "expected {}", self.expected)
    }
}

impl std::error::Error for Invalid {}

/// A slug or a site's name: `[a-z0-9-]`, 1 to 63 bytes, no dash at either end.
pub fn check_slug(text: &str) -> Result<(), Invalid> {
    let shape = (1..=limits::SLUG_BYTES_MAX).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
        && !text.starts_with('-')
        && !text.ends_with('-');
    if shape { Ok(()) } else { Err(BAD_SLUG) }
}

/// A host name in lower case without port: letters, digits, dashes and dots, labels of 1 to 63
/// bytes.
pub fn check_host(text: &str) -> Result<(), Invalid> {
    let label_ok = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    let shape = text.len() <= limits::HOST_BYTES_MAX && text.split('.').all(label_ok);
    if shape { Ok(()) } else { Err(BAD_HOST) }
}

/// A display name or title: 1 to 255 bytes with something to see, no control characters, nothing
/// that turns the direction of what stands behind it.
pub fn check_name(text: &str) -> Result<(), Invalid> {
    let shape = text.len() <= limits::NAME_BYTES_MAX
        && text.chars().any(|c| !c.is_whitespace() && !is_invisible(c))
        && !text.chars().any(char::is_control);
    if !shape {
        return Err(BAD_NAME);
    }
    if text.chars().any(turns_direction) { Err(BAD_DIRECTION) } else { Ok(()) }
}

/// What has no shape of its own (Unicode: Default_Ignorable_Code_Point, and blank letters). Within
/// a name it may join or separate what has one.
fn is_invisible(c: char) -> bool {
    matches!(c,
        '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{115f}' | '\u{1160}' | '\u{17b4}' | '\u{17b5}'
        | '\u{180b}'..='\u{180f}' | '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}'
        | '\u{2060}'..='\u{206f}' | '\u{2800}' | '\u{3164}' | '\u{fe00}'..='\u{fe0f}'
        | '\u{feff}' | '\u{ffa0}' | '\u{fff0}'..='\u{fff8}' | '\u{1bca0}'..='\u{1bca3}'
        | '\u{1d173}'..='\u{1d17a}' | '\u{e0000}'..='\u{e0fff}')
}

/// Embeddings, overrides and isolates of direction (Unicode UAX #9): text behind them could read as
/// what it does not say. Marks, which right-to-left names need, are none.
fn turns_direction(c: char) -> bool {
    matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

const BAD_SLUG: Invalid =
    Invalid { code: "slug", expected: "1 to 63 of a-z, 0-9 and dashes, no dash at either end" };
const BAD_HOST: Invalid =
    Invalid { code: "host", expected: "a lower-case host name without port, at most 253 bytes" };
const BAD_NAME: Invalid = Invalid {
    code: "name",
    expected: "1 to 255 bytes of text without control characters, not only white space or \
               invisible characters",
};
const BAD_DIRECTION: Invalid = Invalid {
    code: "direction",
    expected: "text without characters that override its direction (U+202A to U+202E, U+2066 to \
               U+2069)",
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slugs_and_hosts_are_lower_case_labels() {
        for (text, slug, host) in [
            ("demo", true, true),
            ("a-1", true, true),
            ("-a", false, false),
            ("a-", false, false),
            ("", false, false),
            ("Demo", false, false),
            ("shop.example", false, true),
            ("shop.example:80", false, false),
            ("shop..example", false, false),
            ("a/b", false, false),
        ] {
            assert_eq!(check_slug(text).is_ok(), slug, "{text}");
            assert_eq!(check_host(text).is_ok(), host, "{text}");
        }
    }

    #[test]
    fn a_name_is_visible_text() {
        assert!(check_name("Größe 10 – API").is_ok());
        assert!(check_name("  ").is_err());
        assert!(check_name("a\nb").is_err());
        assert!(check_name(&"a".repeat(256)).is_err());
        for blank in ["\u{200b}", "\u{200b} \u{2060}\u{feff}", "\u{3164}", "\u{e0041}"] {
            assert_eq!(check_name(blank).map_err(|bad| bad.code), Err("name"), "{blank:?}");
        }
        for turned in ["abc\u{202e}cba", "\u{2066}a\u{2069}"] {
            assert_eq!(check_name(turned).map_err(|bad| bad.code), Err("direction"));
        }
        for text in ["می\u{200c}خواهم", "\u{200f}שלום", "👩\u{200d}💻 desk", "❤\u{fe0f}"]
        {
            assert!(check_name(text).is_ok(), "{text:?}");
        }
    }
}
