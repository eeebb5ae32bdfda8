//! The head of a request kept as text, to be read again: for a request that asks more than once,
//! and for `Vary` when its answer comes. And its host, as key and for the origin.
//!
//! Leaves to others: who keeps one (`request`, `fetch`).

use std::{borrow::Cow, rc::Rc};

use proto::{
    field::name::Known,
    http1::{
        encode,
        head::{RequestHead, Version},
    },
    target::Authority,
};

use super::forward::{ConnectionNamed, write_field};
use crate::limits;

/// The head as text, to be parsed again: for a request that asks more than once, and for `Vary`
/// when its answer comes.
pub(super) fn keep_head(head: &RequestHead<'_>) -> Rc<[u8]> {
    write_head(head, |_| true)
}

/// The head without the fields that `Connection` names, if it has any of them: they are for this
/// hop (RFC 9110 §7.6.1), so the origin never sees them, and neither a key nor `Vary` may be made
/// of them. Else who names one here has the answer for everyone without it stored as the answer
/// for everyone with it.
pub(super) fn without_named(head: &RequestHead<'_>) -> Option<Rc<[u8]>> {
    if !head.fields.has(Known::Connection) {
        return None;
    }
    let named = ConnectionNamed::of(&head.fields);
    // `Host` is the authority, and hop-by-hop fields are seen to where they mean something. What
    // tells of the way so far is for all hops: nobody hides a loop by naming it (RFC 8586 §2).
    let is_for_all = |name: &str| {
        let kept = |it| matches!(it, Known::Host | Known::CdnLoop | Known::Via);
        Known::of(name).is_some_and(|it| kept(it) || it.is_hop_by_hop())
    };
    let is_for_this_hop = |name: &str| !is_for_all(name) && named.holds(name);
    head.fields
        .iter()
        .any(|(name, _)| is_for_this_hop(name))
        .then(|| write_head(head, |name| !is_for_this_hop(name)))
}

/// The head with the fields that `keeps` says.
fn write_head(head: &RequestHead<'_>, keeps: impl Fn(&str) -> bool) -> Rc<[u8]> {
    let mut text = Vec::with_capacity(512);
    let version = if head.version == Version::Http10 { "HTTP/1.0" } else { "HTTP/1.1" };
    let host = &head.authority.host;
    let has_host = head.fields.known(Known::Host).is_some();
    text.extend_from_slice(head.method.as_str().as_bytes());
    text.push(b' ');
    // A host that came in the target stays there: one more field could be one too many.
    if !has_host && !host.is_empty() {
        text.extend_from_slice(b"http://");
        write_authority(&head.authority, &mut text);
    }
    for part in [head.target.path_and_query(), " ", version, "\r\n"] {
        text.extend_from_slice(part.as_bytes());
    }
    if has_host {
        text.extend_from_slice(b"Host: ");
        write_authority(&head.authority, &mut text);
        text.extend_from_slice(b"\r\n");
    }
    for (name, value) in head.fields.iter() {
        if Known::of(name) != Some(Known::Host) && keeps(name) {
            write_field(name, value, &mut text);
        }
    }
    text.extend_from_slice(b"\r\n");
    text.into()
}

fn write_authority(authority: &Authority<'_>, to: &mut Vec<u8>) {
    to.extend_from_slice(authority.host.as_bytes());
    if let Some(port) = authority.port {
        to.push(b':');
        encode::decimal(to, port.into());
    }
}

/// The host as key and as `Host` for the origin: lower case, with the port unless it is 80; most
/// are that as they come. `None` if it is longer than any name.
pub(super) fn host_of<'a>(authority: &Authority<'a>) -> Option<Cow<'a, str>> {
    // A name with its root is the same name (RFC 1034 §3.1): one key, and the same rules.
    let host = authority.host.strip_suffix('.').unwrap_or(authority.host);
    if host.len() > limits::HOST_BYTES_MAX {
        return None;
    }
    match authority.port.filter(|&port| port != 80) {
        None => Some(lower_case(host)),
        Some(port) => Some(format!("{}:{port}", lower_case(host)).into()),
    }
}

/// A name in lower case: itself, if it is that already.
pub(super) fn lower_case(name: &str) -> Cow<'_, str> {
    // No early exit: compiles to a vector loop.
    match name.bytes().fold(false, |any, b| any | b.is_ascii_uppercase()) {
        false => name.into(),
        true => name.to_ascii_lowercase().into(),
    }
}

#[cfg(test)]
mod tests {
    use proto::http1::head::{FieldSpace, parse_request};

    use super::*;

    #[test]
    fn a_kept_head_says_the_same_when_it_is_read_again() {
        let text = b"GET http://A.example:81/?y HTTP/1.1\r\nHost: other\r\nAccept: a\r\n\r\n";
        let mut space = FieldSpace::new();
        let (head, _) = parse_request(text, &mut space).expect("well-formed").expect("complete");
        let kept = keep_head(&head);
        assert_eq!(&*kept, b"GET /?y HTTP/1.1\r\nHost: A.example:81\r\nAccept: a\r\n\r\n");
        assert_eq!(host_of(&head.authority).as_deref(), Some("a.example:81"));
    }

    #[test]
    fn a_name_with_its_root_is_the_same_name() {
        let mut space = FieldSpace::new();
        let text = b"GET / HTTP/1.1\r\nHost: M.example.\r\n\r\n";
        let (head, _) = parse_request(text, &mut space).expect("well-formed").expect("complete");
        assert_eq!(host_of(&head.authority).as_deref(), Some("m.example"));
    }

    #[test]
    fn rfc9110_7_6_1_fields_that_connection_names_are_none() {
        let without = |text: &str| {
            let mut space = FieldSpace::new();
            let read = parse_request(text.as_bytes(), &mut space).expect("well-formed");
            let (head, _) = read.expect("complete");
            without_named(&head).map(|text| String::from_utf8(text.to_vec()).expect("text"))
        };
        for usual in ["close", "keep-alive, Upgrade", "X-Absent", "TE"] {
            let fields = "Upgrade: a\r\nTE: trailers\r\nX-Here: b\r\n";
            let text = format!("GET / HTTP/1.1\r\nHost: a\r\nConnection: {usual}\r\n{fields}\r\n");
            assert_eq!(without(&text), None, "{usual}");
        }
        let text = "GET / HTTP/1.1\r\nHost: a\r\nX-Tenant: t\r\nConnection: close, x-tenant\r\n\
                    Connection: Host,Cookie\r\nCookie: c\r\nX-Here: b\r\n\r\n";
        let expected = "GET / HTTP/1.1\r\nHost: a\r\nConnection: close, x-tenant\r\n\
                        Connection: Host,Cookie\r\nX-Here: b\r\n\r\n";
        assert_eq!(without(text).as_deref(), Some(expected));
        assert_eq!(without(expected), None, "once");
    }

    #[test]
    fn a_kept_head_has_no_more_fields_than_the_head() {
        let many = "X: y\r\n".repeat(proto::limits::FIELD_COUNT_MAX);
        let text = format!("GET http://a.example/x HTTP/1.0\r\n{many}\r\n");
        let mut space = FieldSpace::new();
        let (head, _) =
            parse_request(text.as_bytes(), &mut space).expect("well-formed").expect("all");
        let kept = keep_head(&head);
        let mut again = FieldSpace::new();
        let (read, _) = parse_request(&kept, &mut again).expect("well-formed").expect("all");
        assert_eq!(read.authority.host, head.authority.host);
        assert_eq!(read.target.path_and_query(), "/x");
        assert_eq!(read.fields.iter().count(), proto::limits::FIELD_COUNT_MAX);
    }
}
