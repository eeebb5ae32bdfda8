//! The stored head of a response, encoded once for all the times it is sent (RFC 9111 §3.1, §3.2).
//!
//! What stands in it is constant on every hit. What changes, `Age` above all, is written behind it
//! by the sender, and then the empty line.
//!
//! It is measured before it is written: one allocation of the right size. One that grew, and others
//! for what is added behind, would leave holes between what is held for long
//! (docs/adr/0010-allocator.md).

use proto::field::{date, list};

use crate::{
    coding::Coding, directives::ResponseDirectives as Directives, range::ByteRange,
    request::FieldSource, response::Response, targeted::Policy,
};

/// Status line and fields, each with its line end, without the empty line behind them.
#[derive(Clone, Debug)]
pub(crate) struct Head {
    pub(crate) status: u16,
    /// With what [`Head::with_tail`] put behind the fields.
    bytes: Vec<u8>,
    /// Where the fields begin.
    fields_at: usize,
    /// Where they end.
    fields_end: usize,
    /// Whether `Content-Length` is among them.
    pub(crate) has_length: bool,
}

/// The lines of a response that only its own request may be given: fields that `no-cache` and
/// `private` name. They are not stored (RFC 9111 §5.2.2.4, §5.2.2.7).
pub(crate) fn first_hand(response: &Response<'_>, policy: &Policy) -> Box<[u8]> {
    let Directives { no_cache, private, .. } = &policy.directives;
    let mut lines = Vec::new();
    if !no_cache.is_some_fields() && !private.is_some_fields() {
        return lines.into();
    }
    let always = Unstored::of(response.fields, &NO_POLICY);
    response.fields.each(&mut |name, value| {
        if !always.names(name) && (no_cache.names(name) || private.names(name)) {
            push_field(&mut lines, name, value);
        }
    });
    lines.into()
}

impl Head {
    /// Of a response that brings its own body, with room for a tail of so many bytes.
    pub(crate) fn of(response: &Response<'_>, policy: &Policy, tail_bytes_max: usize) -> Self {
        let unstored = Unstored::of(response.fields, policy);
        let status_line = status_line(response.status, response.reason);
        let date = date::format((response.response_at_ms / 1000) as i64);
        let length = response.length.filter(|_| has_content_length(response.status));
        let length = length.map(|length| length.to_string());
        let bytes = exactly(tail_bytes_max, &|put| {
            put(&status_line);
            let mut has_date = false;
            response.fields.each(&mut |name, value| {
                if !unstored.names(name) {
                    has_date |= name.eq_ignore_ascii_case(b"date");
                    put_field(put, name, value);
                }
            });
            if !has_date {
                put_field(put, b"Date", &date);
            }
            put(response.append);
            if let Some(length) = &length {
                put_field(put, b"Content-Length", length.as_bytes());
            }
        });
        Self {
            status: response.status,
            fields_at: status_line.len(),
            fields_end: bytes.len(),
            bytes,
            has_length: length.is_some(),
        }
    }

    /// Of a stored head and the 304 (or the answer to HEAD) that updates it: every field of the
    /// answer replaces the stored ones of its name, except those that tell of the stored bytes
    /// (§3.2).
    pub(crate) fn updated(&self, response: &Response<'_>, tail_bytes_max: usize) -> Self {
        // What `no-cache` and `private` name is decided by the merged fields' own directives below.
        let unstored = Unstored::of(response.fields, &NO_POLICY);
        let is_new = |name: &[u8]| !unstored.names(name) && !tells_of_bytes(name);
        let mut newer: Vec<&[u8]> = Vec::new();
        response.fields.each(&mut |name, _| {
            if is_new(name) {
                newer.push(name);
            }
        });
        let is_replaced = |name: &[u8]| {
            name.eq_ignore_ascii_case(b"date")
                || newer.iter().any(|newer| newer.eq_ignore_ascii_case(name))
        };
        let date = date::format((response.response_at_ms / 1000) as i64);
        let bytes = exactly(tail_bytes_max, &|put| {
            put(&self.bytes[..self.fields_at]);
            self.each(&mut |name, value| {
                if !is_replaced(name) {
                    put_field(put, name, value);
                }
            });
            let mut has_date = false;
            response.fields.each(&mut |name, value| {
                if is_new(name) {
                    has_date |= name.eq_ignore_ascii_case(b"date");
                    put_field(put, name, value);
                }
            });
            if !has_date {
                put_field(put, b"Date", &date);
            }
        });
        Self { fields_end: bytes.len(), bytes, ..*self }
    }

    /// Without the fields that `policy` names, if it names any.
    pub(crate) fn without_named(self, policy: &Policy, tail_bytes_max: usize) -> Self {
        let Directives { no_cache, private, .. } = &policy.directives;
        if !no_cache.is_some_fields() && !private.is_some_fields() {
            return self;
        }
        let unstored = Unstored { connection: Vec::new(), policy };
        let bytes = exactly(tail_bytes_max, &|put| {
            put(&self.bytes[..self.fields_at]);
            self.each(&mut |name, value| {
                // `Content-Length` is our own by now.
                if name.eq_ignore_ascii_case(b"content-length") || !unstored.names(name) {
                    put_field(put, name, value);
                }
            });
        });
        Self { fields_end: bytes.len(), bytes, ..self }
    }

    /// With `Content-Length`, if the length is known, the status allows it and it is not there.
    pub(crate) fn with_length(&self, length: Option<u64>) -> Self {
        let is_missing = !self.has_length && has_content_length(self.status);
        let Some(length) = length.filter(|_| is_missing) else { return self.clone() };
        let length = length.to_string();
        let bytes = exactly(0, &|put| {
            put(self.fields());
            put_field(put, b"Content-Length", length.as_bytes());
            put(self.tail());
        });
        let fields_end = bytes.len() - self.tail().len();
        Self { bytes, fields_end, has_length: true, ..*self }
    }

    /// Of the same response with its content in a coding: its validator is weak, and what tells of
    /// the bytes as they were is left out (RFC 9110 §8.8.3.3).
    pub(crate) fn encoded(&self, coding: Coding, length: Option<u64>) -> Self {
        const OF_THE_BYTES: [&str; 5] =
            ["content-length", "content-md5", "digest", "content-digest", "repr-digest"];
        let length = length.filter(|_| has_content_length(self.status));
        let length = length.map(|length| length.to_string());
        let bytes = exactly(0, &|put| {
            put(&self.bytes[..self.fields_at]);
            self.each(&mut |name, value| {
                if name.eq_ignore_ascii_case(b"etag") && !value.starts_with(b"W/") {
                    put_field(put, name, &[b"W/", value].concat());
                } else if !OF_THE_BYTES
                    .iter()
                    .any(|gone| name.eq_ignore_ascii_case(gone.as_bytes()))
                {
                    put_field(put, name, value);
                }
            });
            put_field(put, b"Content-Encoding", coding.token().as_bytes());
            if let Some(length) = &length {
                put_field(put, b"Content-Length", length.as_bytes());
            }
            put(self.tail());
        });
        let fields_end = bytes.len() - self.tail().len();
        Self { bytes, fields_end, has_length: length.is_some(), ..*self }
    }

    /// With the beginning of a line behind the fields, which the sender ends.
    pub(crate) fn with_tail(mut self, tail: &[&[u8]]) -> Self {
        self.bytes.truncate(self.fields_end);
        tail.iter().for_each(|part| self.bytes.extend_from_slice(part));
        self
    }

    /// Bytes of its allocation.
    pub(crate) fn heap_bytes(&self) -> usize {
        self.bytes.capacity()
    }

    /// Status line and fields.
    pub(crate) fn fields(&self) -> &[u8] {
        &self.bytes[..self.fields_end]
    }

    /// What [`Head::with_tail`] put behind them.
    pub(crate) fn tail(&self) -> &[u8] {
        &self.bytes[self.fields_end..]
    }

    /// Both.
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The head of a 206 with a part of this response, or, with a boundary, several (RFC 9110
    /// §15.3.7); with the length of the content and of the whole.
    pub(crate) fn partial(
        &self,
        boundary: Option<&str>,
        range: ByteRange,
        (content_length, length): (u64, u64),
    ) -> Vec<u8> {
        let mut bytes = status_line(206, b"Partial Content");
        self.each(&mut |name, value| {
            let is_other = name.eq_ignore_ascii_case(b"content-length")
                || name.eq_ignore_ascii_case(b"content-range")
                || (boundary.is_some() && name.eq_ignore_ascii_case(b"content-type"));
            if !is_other {
                push_field(&mut bytes, name, value);
            }
        });
        match boundary {
            Some(boundary) => {
                let content_type = format!("multipart/byteranges; boundary={boundary}");
                push_field(&mut bytes, b"Content-Type", content_type.as_bytes());
            }
            None => {
                let content_range = format!("bytes {}-{}/{length}", range.first, range.last);
                push_field(&mut bytes, b"Content-Range", content_range.as_bytes());
            }
        }
        push_field(&mut bytes, b"Content-Length", content_length.to_string().as_bytes());
        bytes.extend_from_slice(self.tail());
        bytes
    }

    /// The head of a 304 that stands for this response (RFC 9110 §15.4.5).
    pub(crate) fn not_modified(&self) -> Vec<u8> {
        let mut bytes = status_line(304, b"Not Modified");
        self.each(&mut |name, value| {
            const SENT: [&str; 10] = [
                "cache-control",
                "cdn-cache-control",
                "content-location",
                "date",
                "etag",
                "expires",
                "last-modified",
                "pharos-version",
                "vary",
                "via",
            ];
            if SENT.iter().any(|sent| name.eq_ignore_ascii_case(sent.as_bytes())) {
                push_field(&mut bytes, name, value);
            }
        });
        bytes.extend_from_slice(self.tail());
        bytes
    }
}

impl FieldSource for Head {
    fn each<'a>(&'a self, show: &mut dyn FnMut(&'a [u8], &'a [u8])) {
        for line in self.fields()[self.fields_at..].split(|&b| b == b'\n') {
            let line = line.strip_suffix(b"\r").unwrap_or(line);
            if let Some(colon) = line.iter().position(|&b| b == b':') {
                show(&line[..colon], list::trim(&line[colon + 1..]));
            }
        }
    }
}

/// Fields of a response that are not stored (§3.1).
struct Unstored<'a> {
    /// Named in `Connection`.
    connection: Vec<&'a [u8]>,
    /// Names more of them: `no-cache` and `private` with field names. A field that must be
    /// validated before each use is dropped instead, which §5.2.2.4 allows.
    policy: &'a Policy,
}

impl<'a> Unstored<'a> {
    fn of(fields: &'a dyn FieldSource, policy: &'a Policy) -> Self {
        let mut connection = Vec::new();
        fields.get_all("Connection", &mut |line| connection.extend(list::members(line)));
        Self { connection, policy }
    }

    fn names(&self, field_name: &[u8]) -> bool {
        const ALWAYS: [&str; 14] = [
            "age",
            "connection",
            "content-length",
            "keep-alive",
            "proxy-authenticate",
            "proxy-authentication-info",
            "proxy-authorization",
            "proxy-connection",
            "te",
            "trailer",
            "transfer-encoding",
            "upgrade",
            "x-cache-status",
            "x-request-id",
        ];
        ALWAYS.iter().any(|name| field_name.eq_ignore_ascii_case(name.as_bytes()))
            || self.connection.iter().any(|name| field_name.eq_ignore_ascii_case(name))
            || self.policy.directives.no_cache.names(field_name)
            || self.policy.directives.private.names(field_name)
    }
}

static NO_POLICY: Policy = Policy::NONE;

/// Fields that an update does not replace, because they tell of the bytes that are stored: with
/// another coding or range those would be unreadable (§3.2 leaves such fields to the cache).
fn tells_of_bytes(name: &[u8]) -> bool {
    ["content-encoding", "content-range"]
        .iter()
        .any(|kept| name.eq_ignore_ascii_case(kept.as_bytes()))
}

/// Whether a response with this status may carry `Content-Length` (RFC 9110 §8.6).
fn has_content_length(status: u16) -> bool {
    status >= 200 && status != 204
}

fn status_line(status: u16, reason: &[u8]) -> Vec<u8> {
    let mut line = Vec::with_capacity(16 + reason.len());
    line.extend_from_slice(b"HTTP/1.1 ");
    line.extend_from_slice(status.to_string().as_bytes());
    line.push(b' ');
    line.extend_from_slice(reason);
    line.extend_from_slice(b"\r\n");
    line
}

/// Takes the next bytes of a head.
type Put<'a> = dyn FnMut(&[u8]) + 'a;

/// What `write` gives to its argument, in one allocation of exactly this size and `spare` bytes.
fn exactly(spare: usize, write: &dyn Fn(&mut Put<'_>)) -> Vec<u8> {
    let mut len = 0;
    write(&mut |part| len += part.len());
    let mut bytes = Vec::with_capacity(len + spare);
    write(&mut |part| bytes.extend_from_slice(part));
    bytes
}

fn put_field(put: &mut Put<'_>, name: &[u8], value: &[u8]) {
    [name, b": ", value, b"\r\n"].iter().for_each(|part| put(part));
}

pub(crate) fn push_field(head: &mut Vec<u8>, name: &[u8], value: &[u8]) {
    head.extend_from_slice(name);
    head.extend_from_slice(b": ");
    head.extend_from_slice(value);
    head.extend_from_slice(b"\r\n");
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    const AT_MS: u64 = 784_111_777_000;
    const DATE: &str = "Date: Sun, 06 Nov 1994 08:49:37 GMT\r\n";

    fn response<'a>(status: u16, fields: &'a [(&'a str, &'a str)]) -> Response<'a> {
        let (request_at_ms, response_at_ms) = (AT_MS, AT_MS);
        Response {
            status,
            reason: b"OK",
            fields: fields_of(fields),
            length: Some(3),
            request_at_ms,
            response_at_ms,
            append: b"",
        }
    }

    fn fields_of<'a>(fields: &'a [(&'a str, &'a str)]) -> &'a dyn FieldSource {
        // A slice is unsized; what holds it here is leaked, in tests only.
        Box::leak(Box::new(fields))
    }

    fn text(head: &Head) -> String {
        String::from_utf8_lossy(head.fields()).into_owned()
    }

    fn stored(fields: &[(&str, &str)]) -> Head {
        let policy = Policy::of(&fields, &[]);
        Head::of(&response(200, fields), &policy, 0)
    }

    #[test]
    fn rfc9111_3_1_connection_fields_are_not_stored() {
        let head = stored(&[
            ("Connection", "close, X-Own"),
            ("X-Own", "1"),
            ("Keep-Alive", "5"),
            ("Transfer-Encoding", "chunked"),
            ("Age", "7"),
            ("Date", "Sun, 06 Nov 1994 08:49:37 GMT"),
            ("X-Kept", "2"),
        ]);
        let expected = format!("HTTP/1.1 200 OK\r\n{DATE}X-Kept: 2\r\nContent-Length: 3\r\n");
        assert_eq!(text(&head), expected);
    }

    #[test]
    fn rfc9111_5_2_2_fields_named_by_no_cache_or_private_are_not_stored() {
        let head = stored(&[
            ("Cache-Control", "no-cache=\"a\", private=\"b\""),
            ("A", "1"),
            ("B", "2"),
            ("C", "3"),
        ]);
        assert_eq!(head.get("a"), None);
        assert_eq!(head.get("b"), None);
        assert_eq!(head.get("c"), Some(&b"3"[..]));
    }

    #[test]
    fn rfc9110_6_6_1_a_missing_date_is_the_time_of_arrival() {
        assert!(text(&stored(&[])).contains(DATE));
    }

    #[test]
    fn rfc9111_3_2_an_update_replaces_fields_by_name_but_not_those_of_the_bytes() {
        let head = stored(&[
            ("A", "1"),
            ("A", "2"),
            ("B", "3"),
            ("Content-Type", "text/plain"),
            ("ETag", "\"x\""),
        ]);
        let newer = [
            ("a", "4"),
            ("Content-Type", "text/html"),
            ("Content-Encoding", "gzip"),
            ("Content-Length", "0"),
            ("ETag", "\"x\""),
            ("Date", "Sun, 06 Nov 1994 08:49:38 GMT"),
        ];
        let updated = head.updated(&response(304, &newer), 0);
        assert_eq!(
            text(&updated),
            "HTTP/1.1 200 OK\r\nB: 3\r\nContent-Length: 3\r\na: 4\r\nContent-Type: text/html\r\n\
             ETag: \"x\"\r\nDate: Sun, 06 Nov 1994 08:49:38 GMT\r\n"
        );
        assert!(updated.has_length);
    }

    #[test]
    fn rfc9110_15_4_5_a_304_carries_what_a_200_would_have_said_of_caching() {
        let head = stored(&[("ETag", "\"x\""), ("Vary", "A"), ("Content-Type", "text/plain")]);
        let not_modified = String::from_utf8(head.not_modified()).expect("ASCII");
        assert_eq!(
            not_modified,
            format!("HTTP/1.1 304 Not Modified\r\nETag: \"x\"\r\nVary: A\r\n{DATE}")
        );
    }

    #[test]
    fn rfc9110_8_6_no_content_length_on_204() {
        let head = Head::of(&response(204, &[]), &Policy::NONE, 0);
        assert!(!head.has_length && head.get("Content-Length").is_none());
    }
}
