//! Where a URI reference in a response leads, as far as this cache is concerned: `Location` and
//! `Content-Location`, resolved against the cache key of the request (RFC 3986 §5.2, RFC 9110
//! §8.7, §10.2.2).
//!
//! Only references to the same origin count (RFC 9111 §4.4): one site cannot touch what is stored
//! for another, nor an answer by the one scheme what is stored for the other. Which scheme that is
//! stands in no cache key: an edge has one ([`crate::Config::scheme`]). Its default port is no
//! difference.

use crate::key::CacheKeyRef;

/// The target (path and query) of `reference`, if it leads to the host of `base`, which is reached
/// by this scheme.
pub(crate) fn same_origin_target(
    base: &CacheKeyRef<'_>,
    own_scheme: &str,
    reference: &[u8],
) -> Option<Vec<u8>> {
    let end = reference.iter().position(|&b| b == b'#').unwrap_or(reference.len());
    let reference = &reference[..end];
    if reference.iter().any(|b| b.is_ascii_control() || *b == b' ') {
        return None;
    }
    let rest = match split_scheme(reference) {
        Some((scheme, rest)) => {
            let is_ours = scheme.eq_ignore_ascii_case(own_scheme.as_bytes());
            if !is_ours || !rest.starts_with(b"//") {
                return None;
            }
            rest
        }
        None => reference,
    };
    if let Some(rest) = rest.strip_prefix(b"//") {
        let end = rest.iter().position(|b| matches!(b, b'/' | b'?')).unwrap_or(rest.len());
        let (authority, rest) = rest.split_at(end);
        let port = if own_scheme == "https" { ":443" } else { ":80" };
        let is_same = !base.host.is_empty()
            && host(authority, port).eq_ignore_ascii_case(host(base.host, port));
        return is_same.then(|| target(if rest.is_empty() { b"/" } else { rest }, b"/"));
    }
    let (base_path, _) = split_query(base.target);
    match rest {
        [] => Some(base.target.to_vec()),
        [b'?', ..] => Some([base_path, rest].concat()),
        _ => Some(target(rest, base_path)),
    }
}

/// Path and query of a reference without authority, with the dots taken out of its path.
fn target(reference: &[u8], base_path: &[u8]) -> Vec<u8> {
    let (path, query) = split_query(reference);
    let mut merged = Vec::new();
    if !path.starts_with(b"/") {
        let folder_end = base_path.iter().rposition(|&b| b == b'/').map_or(0, |at| at + 1);
        merged.extend_from_slice(&base_path[..folder_end]);
    }
    merged.extend_from_slice(path);
    let mut target = without_dots(&merged);
    target.extend_from_slice(query);
    target
}

/// RFC 3986 §5.2.4, on an absolute path.
fn without_dots(path: &[u8]) -> Vec<u8> {
    let mut segments: Vec<&[u8]> = Vec::new();
    let mut rest = path.strip_prefix(b"/").unwrap_or(path).split(|&b| b == b'/').peekable();
    while let Some(segment) = rest.next() {
        let is_last = rest.peek().is_none();
        match segment {
            b"." | b".." => {
                if segment == b".." {
                    segments.pop();
                }
                if is_last {
                    segments.push(b"");
                }
            }
            _ => segments.push(segment),
        }
    }
    let mut clean = Vec::with_capacity(path.len());
    for segment in segments {
        clean.push(b'/');
        clean.extend_from_slice(segment);
    }
    if clean.is_empty() {
        clean.push(b'/');
    }
    clean
}

fn split_scheme(reference: &[u8]) -> Option<(&[u8], &[u8])> {
    let colon = reference.iter().position(|b| matches!(b, b':' | b'/' | b'?'))?;
    let (scheme, rest) = (&reference[..colon], reference.get(colon + 1..)?);
    let is_scheme = reference[colon] == b':' && scheme.first().is_some_and(u8::is_ascii_alphabetic);
    is_scheme.then_some((scheme, rest))
}

/// Path, and query with its mark.
fn split_query(target: &[u8]) -> (&[u8], &[u8]) {
    target.split_at(target.iter().position(|&b| b == b'?').unwrap_or(target.len()))
}

/// Without the default port.
fn host<'a>(authority: &'a [u8], port: &str) -> &'a [u8] {
    let bare = [port, ":"].iter().find_map(|port| authority.strip_suffix(port.as_bytes()));
    bare.unwrap_or(authority)
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::key::KeyHasher;

    fn resolved(reference: &str) -> Option<String> {
        let base = KeyHasher::new(0).cache_key("s", b"a.example:8080", b"/x/y/z?q=1", b"");
        same_origin_target(&base, "http", reference.as_bytes())
            .map(|target| String::from_utf8(target).expect("text"))
    }

    #[test]
    fn rfc3986_5_4_references_are_resolved() {
        for (reference, expected) in [
            ("", "/x/y/z?q=1"),
            ("#part", "/x/y/z?q=1"),
            ("?n", "/x/y/z?n"),
            ("g", "/x/y/g"),
            ("./g?a=/../b", "/x/y/g?a=/../b"),
            ("../g", "/x/g"),
            ("../../../g", "/g"),
            ("..", "/x/"),
            (".", "/x/y/"),
            ("g/", "/x/y/g/"),
            ("/g/./h/../i", "/g/i"),
            ("http://A.example:8080/b?c#d", "/b?c"),
            ("//a.example:8080", "/"),
            ("HTTP://a.example:8080?c", "/?c"),
            ("a/b:c", "/x/y/a/b:c"),
        ] {
            assert_eq!(resolved(reference).as_deref(), Some(expected), "{reference}");
        }
    }

    #[test]
    fn rfc9111_4_4_other_origins_do_not_count() {
        for reference in [
            "http://b.example:8080/b",
            "http://a.example/b",
            "https://a.example:8080/b",
            "//a.example:81/",
            "http://u@a.example:8080/b",
            "ftp://a.example:8080/b",
            "mailto:x",
            "http:g",
            "a b",
        ] {
            assert_eq!(resolved(reference), None, "{reference}");
        }
    }

    #[test]
    fn a_default_port_is_no_difference_and_another_scheme_is() {
        let base = KeyHasher::new(0).cache_key("s", b"a.example", b"/", b"");
        for (scheme, reference, is_same) in [
            ("http", "http://a.example:80/b", true),
            ("http", "//a.example/b", true),
            ("http", "//a.example:443/b", false),
            ("http", "https://a.example/b", false),
            ("https", "https://a.example:443/b", true),
            ("https", "//a.example/b", true),
            ("https", "http://a.example/b", false),
            ("https", "https://a.example:80/b", false),
        ] {
            let target = same_origin_target(&base, scheme, reference.as_bytes());
            assert_eq!(target, is_same.then(|| b"/b".to_vec()), "{scheme} {reference}");
        }
    }
}
