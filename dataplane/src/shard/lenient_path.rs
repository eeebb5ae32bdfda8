//! A path as a lenient origin may read it: escapes decoded, slashes merged, dots resolved.
//!
//! A path is routed as it is written. An origin may take another spelling for the same thing, and
//! then what a route keeps out of the cache would be stored under that spelling: one visitor sends
//! another to `/x/../account`, and reads the answer there (web cache deception). So a route that
//! passes holds for every spelling that an origin could take for a path below it.
//!
//! Leaves to others: which routes there are (`route`).

use std::borrow::Cow;

/// Whether a path could be read as another one.
pub fn is_unusual(path: &str) -> bool {
    let bytes = path.as_bytes();
    bytes.iter().any(|b| matches!(b, b'%' | b'\\' | b';'))
        || bytes.windows(2).any(|pair| matches!(pair, b"//" | b"/."))
}

/// The path as the most lenient reader has it. Decoded once; `\` is a slash; what follows `;` in a
/// segment is a parameter of it.
pub fn lenient(path: &str) -> Cow<'_, str> {
    if !is_unusual(path) {
        return path.into();
    }
    let decoded = decode(path.as_bytes());
    let decoded = String::from_utf8_lossy(&decoded);
    let mut segments: Vec<&str> = Vec::new();
    let mut is_folder = true;
    for segment in decoded.split(['/', '\\']) {
        let segment = segment.split(';').next().unwrap_or_default();
        is_folder = matches!(segment, "" | "." | "..");
        match segment {
            "" | "." => {}
            ".." => drop(segments.pop()),
            name => segments.push(name),
        }
    }
    let end = if is_folder && !segments.is_empty() { "/" } else { "" };
    format!("/{}{end}", segments.join("/")).into()
}

/// Escapes as bytes; what is no escape stays.
fn decode(text: &[u8]) -> Vec<u8> {
    let digit = |b: u8| char::from(b).to_digit(16).map(|digit| digit as u8);
    let mut decoded = Vec::with_capacity(text.len());
    let mut at = 0;
    while let Some(&b) = text.get(at) {
        let escape = match text.get(at..at + 3) {
            Some(&[b'%', high, low]) => digit(high).zip(digit(low)),
            _ => None,
        };
        decoded.push(escape.map_or(b, |(high, low)| high << 4 | low));
        at += if escape.is_some() { 3 } else { 1 };
    }
    decoded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_spelling_of_a_path_is_read_as_that_path() {
        for spelling in [
            "/cart/a",
            "//cart/a",
            "/%63art/a",
            "/x/../cart/a",
            "/./cart//a",
            "/cart%2fa",
            "/%2e%2E/cart/a",
            "/\\cart\\a",
            "/cart;x=1/a;y",
            "/x/%2e%2e%2fcart/a",
        ] {
            assert_eq!(lenient(spelling), "/cart/a", "{spelling}");
        }
        for (path, read) in [
            ("/", "/"),
            ("/a/", "/a/"),
            ("/a/b/..", "/a/"),
            ("/../..", "/"),
            ("/%", "/%"),
            ("/%4", "/%4"),
            ("/a%zz", "/a%zz"),
            ("*", "*"),
        ] {
            assert_eq!(lenient(path), read, "{path}");
        }
    }
}
