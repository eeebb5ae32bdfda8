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

/// A display name or title: 1 to 255 bytes, no control characters, not only white space.
pub fn check_name(text: &str) -> Result<(), Invalid> {
    let shape = text.len() <= limits::NAME_BYTES_MAX
        && !text.trim().is_empty()
        && !text.chars().any(char::is_control);
    if shape { Ok(()) } else { Err(BAD_NAME) }
}

const BAD_SLUG: Invalid =
    Invalid { code: "slug", expected: "1 to 63 of a-z, 0-9 and dashes, no dash at either end" };
const BAD_HOST: Invalid =
    Invalid { code: "host", expected: "a lower-case host name without port, at most 253 bytes" };
const BAD_NAME: Invalid = Invalid {
    code: "name",
    expected: "1 to 255 bytes of text without control characters, not only white space",
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
    }
}
