//! Heads → bytes, appended to a `Vec` that the caller reuses.
//!
//! What comes from outside (names, values, targets) is checked here: nothing that holds CR, LF or
//! NUL can be written, so no value can grow into a second field or a second message. What is ours
//! is given as constants.

use super::{
    chunked,
    head::{Fields, Method},
    refusal::Refusal,
};
use crate::field::{
    date,
    name::{self, Known},
};

/// A name, value or target that must not be sent.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct NotEncodable;

impl std::fmt::Display for NotEncodable {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a field name, value or target holds bytes that must not be sent")
    }
}

impl std::error::Error for NotEncodable {}

/// `HTTP/1.1 200 OK`, with the registered reason or none. Statuses are 100 to 999.
#[inline]
pub fn status_line(out: &mut Vec<u8>, status: u16) {
    debug_assert!((100..1000).contains(&status));
    out.extend_from_slice(b"HTTP/1.1 ");
    decimal(out, u64::from(status));
    out.push(b' ');
    out.extend_from_slice(reason(status).as_bytes());
    out.extend_from_slice(b"\r\n");
}

/// `GET /path HTTP/1.1`.
pub fn request_line(
    out: &mut Vec<u8>,
    method: &Method<'_>,
    target: &str,
) -> Result<(), NotEncodable> {
    let target_ok = !target.is_empty() && target.bytes().all(|b| b.is_ascii_graphic());
    if !target_ok || !name::is_token(method.as_str().as_bytes()) {
        return Err(NotEncodable);
    }
    out.extend_from_slice(method.as_str().as_bytes());
    out.push(b' ');
    out.extend_from_slice(target.as_bytes());
    out.extend_from_slice(b" HTTP/1.1\r\n");
    Ok(())
}

/// A field that came from outside; nothing is written if it must not be sent.
#[inline]
pub fn field(out: &mut Vec<u8>, name: &str, value: &[u8]) -> Result<(), NotEncodable> {
    if !name::is_token(name.as_bytes()) || !name::is_value(value) {
        return Err(NotEncodable);
    }
    write_field(out, name, value);
    Ok(())
}

/// A field whose name is ours and whose value came from outside.
#[inline]
pub fn known_field(out: &mut Vec<u8>, name: Known, value: &[u8]) -> Result<(), NotEncodable> {
    if !name::is_value(value) {
        return Err(NotEncodable);
    }
    write_field(out, name.as_str(), value);
    Ok(())
}

/// A field that is all ours.
#[inline]
pub fn constant_field(out: &mut Vec<u8>, name: Known, value: &'static str) {
    debug_assert!(name::is_value(value.as_bytes()));
    write_field(out, name.as_str(), value.as_bytes());
}

/// A field with a number.
#[inline]
pub fn number_field(out: &mut Vec<u8>, name: Known, value: u64) {
    out.extend_from_slice(name.as_str().as_bytes());
    out.extend_from_slice(b": ");
    decimal(out, value);
    out.extend_from_slice(b"\r\n");
}

/// A field with a date, such as `Date` or `Last-Modified`. Callers with many responses a second
/// keep the text for that second.
pub fn date_field(out: &mut Vec<u8>, name: Known, unix_s: i64) {
    write_field(out, name.as_str(), &date::format(unix_s));
}

/// `Content-Length`.
#[inline]
pub fn content_length(out: &mut Vec<u8>, length: u64) {
    number_field(out, Known::ContentLength, length);
}

/// The empty line behind the last field.
#[inline]
pub fn end(out: &mut Vec<u8>) {
    out.extend_from_slice(b"\r\n");
}

/// All fields that may be passed on: neither hop-by-hop by name, nor named by `Connection` (RFC
/// 9110 §7.6.1), nor framing (`Content-Length` is the caller's to write), nor among `except`.
/// Parsed fields hold nothing that must not be sent.
pub fn end_to_end_fields(out: &mut Vec<u8>, fields: &Fields<'_>, except: &[Known]) {
    let has_connection = fields.has(Known::Connection);
    for (name, value) in fields.iter() {
        let ours = Known::of(name).is_some_and(|known| {
            known.is_hop_by_hop() || known == Known::ContentLength || except.contains(&known)
        });
        let left_out = ours || (has_connection && fields.has_token(Known::Connection, name));
        if !left_out {
            write_field(out, name, value);
        }
    }
}

/// A whole response to a request that is refused: status, one sentence, `Connection: close`.
pub fn refusal(out: &mut Vec<u8>, refusal: Refusal, now_unix_s: i64, to_head: bool) {
    status_line(out, refusal.status());
    date_field(out, Known::Date, now_unix_s);
    constant_field(out, Known::ContentType, "text/plain; charset=utf-8");
    constant_field(out, Known::CacheControl, "no-store");
    constant_field(out, Known::Connection, "close");
    content_length(out, refusal.text().len() as u64 + 1);
    end(out);
    if !to_head {
        out.extend_from_slice(refusal.text().as_bytes());
        out.push(b'\n');
    }
}

/// 100 (Continue), whole.
pub const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";

pub use chunked::{BODY_END, CHUNK_END, chunk, start as chunk_start};

/// Appends a number in decimal digits.
#[inline]
pub fn decimal(out: &mut Vec<u8>, mut value: u64) {
    let mut digits = [0; 20];
    let mut at = digits.len();
    while value >= 10 {
        at -= 2;
        let [ten, one] = PAIRS[(value % 100) as usize];
        (digits[at], digits[at + 1]) = (ten, one);
        value /= 100;
    }
    // An odd digit in front, or the only one.
    if value > 0 || at == digits.len() {
        at -= 1;
        digits[at] = b'0' + value as u8;
    }
    out.extend_from_slice(&digits[at..]);
}

/// `00` to `99`: two digits a division.
const PAIRS: [[u8; 2]; 100] = {
    let mut pairs = [[b'0'; 2]; 100];
    let mut at = 0;
    while at < 100 {
        pairs[at] = [b'0' + (at / 10) as u8, b'0' + (at % 10) as u8];
        at += 1;
    }
    pairs
};

/// The registered reason phrase; empty for a status without one.
pub const fn reason(status: u16) -> &'static str {
    match status {
        100 => "Continue",
        101 => "Switching Protocols",
        103 => "Early Hints",
        200 => "OK",
        201 => "Created",
        202 => "Accepted",
        203 => "Non-Authoritative Information",
        204 => "No Content",
        205 => "Reset Content",
        206 => "Partial Content",
        300 => "Multiple Choices",
        301 => "Moved Permanently",
        302 => "Found",
        303 => "See Other",
        304 => "Not Modified",
        307 => "Temporary Redirect",
        308 => "Permanent Redirect",
        400 => "Bad Request",
        401 => "Unauthorized",
        402 => "Payment Required",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        406 => "Not Acceptable",
        407 => "Proxy Authentication Required",
        408 => "Request Timeout",
        409 => "Conflict",
        410 => "Gone",
        411 => "Length Required",
        412 => "Precondition Failed",
        413 => "Content Too Large",
        414 => "URI Too Long",
        415 => "Unsupported Media Type",
        416 => "Range Not Satisfiable",
        417 => "Expectation Failed",
        421 => "Misdirected Request",
        422 => "Unprocessable Content",
        426 => "Upgrade Required",
        428 => "Precondition Required",
        429 => "Too Many Requests",
        431 => "Request Header Fields Too Large",
        451 => "Unavailable For Legal Reasons",
        500 => "Internal Server Error",
        501 => "Not Implemented",
        502 => "Bad Gateway",
        503 => "Service Unavailable",
        504 => "Gateway Timeout",
        505 => "HTTP Version Not Supported",
        507 => "Insufficient Storage",
        508 => "Loop Detected",
        511 => "Network Authentication Required",
        _ => "",
    }
}

#[inline]
fn write_field(out: &mut Vec<u8>, name: &str, value: &[u8]) {
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b": ");
    out.extend_from_slice(value);
    out.extend_from_slice(b"\r\n");
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::http1::{
        client::{Client, ClientStep},
        head::{self, FieldSpace},
    };

    fn text(write: impl FnOnce(&mut Vec<u8>)) -> String {
        let mut out = Vec::new();
        write(&mut out);
        String::from_utf8(out).expect("text in, text out")
    }

    #[test]
    fn a_response_head_is_written_line_by_line() {
        let head = text(|out| {
            status_line(out, 200);
            date_field(out, Known::Date, 784_111_777);
            content_length(out, 1024);
            constant_field(out, Known::XCacheStatus, "HIT");
            number_field(out, Known::Age, 0);
            end(out);
        });
        let expected = "HTTP/1.1 200 OK\r\nDate: Sun, 06 Nov 1994 08:49:37 GMT\r\nContent-Length: \
                        1024\r\nX-Cache-Status: HIT\r\nAge: 0\r\n\r\n";
        assert_eq!(head, expected);
        assert_eq!(text(|out| status_line(out, 599)), "HTTP/1.1 599 \r\n");
    }

    #[test]
    fn nothing_that_would_begin_another_line_can_be_written() {
        let mut out = Vec::new();
        for bad in [&b"a\r\nb"[..], b"a\nb", b"a\rb", b"a\0b", b" a", b"a "] {
            assert_eq!(field(&mut out, "X", bad), Err(NotEncodable));
            assert_eq!(known_field(&mut out, Known::ETag, bad), Err(NotEncodable));
        }
        for bad in ["", "X:", "X Y", "X\r\nY", "\u{e9}"] {
            assert_eq!(field(&mut out, bad, b"y"), Err(NotEncodable));
        }
        for bad in ["", "/a b", "/a\r\nX: y", "/\u{e9}", "/\0"] {
            assert_eq!(request_line(&mut out, &Method::Get, bad), Err(NotEncodable));
        }
        assert_eq!(request_line(&mut out, &Method::Other("A B"), "/"), Err(NotEncodable));
        assert_eq!(out, b"", "nothing is written on an error");
    }

    #[test]
    fn rfc9110_7_6_1_hop_by_hop_fields_are_not_passed_on() {
        let input = b"GET / HTTP/1.1\r\nHost: a\r\nConnection: x-own, keep-alive\r\nX-Own: 1\r\n\
            Keep-Alive: 2\r\nTE: trailers\r\nUpgrade: h2c\r\nContent-Length: 0\r\nX-Other: 3\r\n\
            Via: 1.1 b\r\n\r\n";
        let mut space = FieldSpace::new();
        let (head, _) = head::parse_request(input, &mut space).expect("taken").expect("complete");
        let passed = text(|out| end_to_end_fields(out, &head.fields, &[Known::Via]));
        assert_eq!(passed, "Host: a\r\nX-Other: 3\r\n");
    }

    #[test]
    fn every_refusal_is_a_whole_response() {
        for (to_head, body) in [(false, Refusal::HostMissing.text().len() + 1), (true, 0)] {
            let mut out = Vec::new();
            refusal(&mut out, Refusal::HostMissing, 0, to_head);
            let mut client = Client::new();
            client.begin(to_head);
            let (mut input, mut read, mut ended) = (&out[..], 0, false);
            while !ended {
                match client.step(&mut input, &mut FieldSpace::new()) {
                    ClientStep::Head(response) => assert_eq!(response.head.status, 400),
                    ClientStep::Body(content) => read += content.len(),
                    ClientStep::End(_) => ended = true,
                    other => panic!("{other:?}"),
                }
            }
            assert_eq!(read, body);
            assert!(!client.is_reusable());
        }
    }

    proptest! {
        #[test]
        fn numbers_are_written_as_rust_writes_them(value: u64) {
            prop_assert_eq!(text(|out| decimal(out, value)), value.to_string());
        }

        #[test]
        fn what_is_written_is_read_back(
            method in prop::sample::select(vec![Method::Get, Method::Post, Method::Other("PURGE")]),
            target in "/[!-\"$-~]{0,20}",
            fields in prop::collection::vec(
                ("[A-Za-z][A-Za-z0-9-]{0,12}", "[!-~]([ -~]{0,20}[!-~])?"),
                0..10,
            ),
        ) {
            let mut out = Vec::new();
            prop_assert_eq!(request_line(&mut out, &method, &target), Ok(()));
            let mut fields = fields;
            fields.retain(|(name, _)| !name::same(name, "host"));
            prop_assert_eq!(known_field(&mut out, Known::Host, b"a"), Ok(()));
            for (name, value) in &fields {
                prop_assert_eq!(field(&mut out, name, value.as_bytes()), Ok(()));
            }
            end(&mut out);
            let mut space = FieldSpace::new();
            let parsed = head::parse_request(&out, &mut space);
            let (head, len) = parsed.expect("taken").expect("complete");
            prop_assert_eq!(len, out.len());
            prop_assert_eq!(head.method, method);
            prop_assert_eq!(head.target.path_and_query(), target);
            let written = fields.iter().map(|(name, value)| (name.as_str(), value.as_bytes()));
            prop_assert!(head.fields.iter().skip(1).eq(written));
        }
    }
}
