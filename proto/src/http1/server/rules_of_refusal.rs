//! Which requests are refused, and as what, as tests: smuggling, chunks, limits.

use super::{
    super::{head::FieldSpace, refusal::Refusal},
    Server, Step,
    testing::{Answer, told},
};
use crate::limits;

fn refusal_of(input: &[u8]) -> Option<Refusal> {
    let mut server = Server::new(1000);
    let mut input = input;
    loop {
        let mut space = FieldSpace::new();
        match server.step(&mut input, &mut space) {
            Step::Refused(refusal) => return Some(refusal),
            Step::NeedMore | Step::Close => return None,
            _ => {}
        }
    }
}

#[test]
fn every_smuggling_case_is_refused() {
    use Refusal::*;
    let get = |fields: &str| format!("GET / HTTP/1.1\r\n{fields}\r\n\r\n").into_bytes();
    let post = |fields: &str| {
        format!("POST / HTTP/1.1\r\nHost: a\r\n{fields}\r\n\r\n0\r\n\r\nGET /x HTTP/1.1\r\n\r\n")
            .into_bytes()
    };
    let line = |line: &str| format!("{line}\r\nHost: a\r\n\r\n").into_bytes();
    let old = |fields: &str| format!("POST / HTTP/1.0\r\n{fields}\r\n\r\n").into_bytes();
    for (refusal, input) in [
        // RFC 9112 §6.1, §6.3: lengths
        (LengthAndCoding, post("Content-Length: 5\r\nTransfer-Encoding: chunked")),
        (LengthAndCoding, post("Transfer-Encoding: chunked\r\nContent-Length: 0")),
        (LengthAndCoding, post("Transfer-Encoding: identity\r\nContent-Length: 5")),
        (LengthRepeated, post("Content-Length: 5\r\nContent-Length: 6")),
        (LengthRepeated, post("Content-Length: 5\r\ncontent-length: 5")),
        (LengthRepeated, post("Content-Length: 5, 5")),
        (LengthRepeated, post("Content-Length: 5,6")),
        (LengthInvalid, post("Content-Length: +5")),
        (LengthInvalid, post("Content-Length: -5")),
        (LengthInvalid, post("Content-Length: 0x5")),
        (LengthInvalid, post("Content-Length: 5 5")),
        (LengthInvalid, post("Content-Length: 5;x")),
        (LengthInvalid, post("Content-Length: \"5\"")),
        (LengthInvalid, post("Content-Length: five")),
        (LengthInvalid, post("Content-Length: ")),
        (LengthInvalid, post("Content-Length: 5.0")),
        (LengthInvalid, post("Content-Length: \u{ff15}")),
        (LengthInvalid, post("Content-Length: 18446744073709551616")),
        (BodyTooLarge, post("Content-Length: 18446744073709551615")),
        (BodyTooLarge, post("Content-Length: 1001")),
        // RFC 9112 §6.1: transfer codings
        (CodingNotChunked, post("Transfer-Encoding: gzip")),
        (CodingNotChunked, post("Transfer-Encoding: identity")),
        (CodingNotChunked, post("Transfer-Encoding: ")),
        (CodingNotChunked, post("Transfer-Encoding: xchunked")),
        (CodingNotChunked, post("Transfer-Encoding: chunked, gzip")),
        (CodingNotChunked, post("Transfer-Encoding: chunked, identity")),
        (CodingNotChunked, post("Transfer-Encoding: chunked, chunked")),
        (CodingNotChunked, post("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked")),
        (CodingNotChunked, post("Transfer-Encoding: chunked\r\nTransfer-Encoding: x")),
        (CodingNotChunked, post("Transfer-Encoding: ,chunked")),
        (CodingNotChunked, post("Transfer-Encoding: chunked,")),
        (CodingNotChunked, post("Transfer-Encoding: \"chunked\"")),
        (CodingNotChunked, post("Transfer-Encoding: chunked;q=1")),
        (CodingNotChunked, post("Transfer-Encoding: chunked chunked")),
        (CodingNotChunked, post("Transfer-Encoding: \u{212a}chunked")),
        (CodingUnknown, post("Transfer-Encoding: gzip, chunked")),
        (CodingUnknown, post("Transfer-Encoding: x\r\nTransfer-Encoding: chunked")),
        (CodingInHttp10, old("Transfer-Encoding: chunked")),
        (CodingInHttp10, old("Transfer-Encoding: chunked\r\nContent-Length: 5")),
        // RFC 9112 §2.2, §5: lines and names
        (FieldName, post("Content-Length : 5")),
        (FieldName, post("Transfer-Encoding\t: chunked")),
        (FieldName, post("Transfer-Encoding:\r\n chunked")),
        (FieldName, post(" Transfer-Encoding: chunked")),
        (FieldName, post("X: y\r\n folded")),
        (FieldName, post("X: y\r\n\tfolded")),
        (FieldName, post(": empty")),
        (FieldName, post("no colon")),
        (FieldName, post("Content\0Length: 5")),
        (FieldName, post("Transf\u{e9}r: x")),
        (FieldName, post("(x): y")),
        (FieldValue, post("X: a\0b")),
        (FieldValue, post("X: a\rb")),
        (FieldValue, post("X: a\r\rTransfer-Encoding: chunked")),
        (FieldValue, post("Transfer-Encoding: \u{b}chunked")),
        (FieldValue, post("X: a\u{7f}")),
        (FieldValue, post("X: \u{1b}[2J")),
        (LineEnd, post("X: a\nTransfer-Encoding: chunked")),
        (LineEnd, b"GET / HTTP/1.1\nHost: a\r\n\r\n".to_vec()),
        (LineEnd, b"GET / HTTP/1.1\r\nHost: a\n\n".to_vec()),
        (LineEnd, b"GET / HTTP/1.1\r\nHost: a\r\n\n".to_vec()),
        (LineEnd, b"GET / HTTP/1.1\r\nHost: a\n\r\n".to_vec()),
        (LineEnd, b"GET / HTTP/1.1\rHost: a\r\n\r\n".to_vec()),
        (LineEnd, b"\nGET / HTTP/1.1\r\nHost: a\r\n\r\n".to_vec()),
        (LineEnd, b"\rGET / HTTP/1.1\r\nHost: a\r\n\r\n".to_vec()),
        (LineEnd, b"GET / HTTP/1.0\n\r\n".to_vec()),
        (LineEnd, b"GET / HTTP/1.0\r\n\n".to_vec()),
        (FieldName, b"GET / HTTP/1.1\r\n Host: a\r\n\r\n".to_vec()),
        // RFC 9112 §3: the request line
        (RequestLine, line("GET  / HTTP/1.1")),
        (RequestLine, line("GET /  HTTP/1.1")),
        (LineEnd, line("GET / HTTP/1.1 ")),
        (LineEnd, line("GET / HTTP/1.12")),
        (RequestLine, line(" GET / HTTP/1.1")),
        (RequestLine, line("GET\t/ HTTP/1.1")),
        (RequestLine, line("GET / x HTTP/1.1")),
        (RequestLine, line("GET /")),
        (RequestLine, line("GET / http/1.1")),
        (RequestLine, line("GET / HTTP/1,1")),
        (RequestLine, line("GET / HTTP/11")),
        (RequestLine, line("GET / HTTP/+1.1")),
        (RequestLine, line("G(T / HTTP/1.1")),
        (RequestLine, line("GET /\0 HTTP/1.1")),
        (RequestLine, line("GET /\u{7f} HTTP/1.1")),
        (Target, line("GET /\u{e9} HTTP/1.1")),
        (Target, line("GET /#x HTTP/1.1")),
        (Target, line("GET x HTTP/1.1")),
        (Target, line("GET * HTTP/1.1")),
        (Target, line("GET a:80 HTTP/1.1")),
        (Target, line("OPTIONS *x HTTP/1.1")),
        (Target, line("GET http:/x HTTP/1.1")),
        (Target, line("GET http://u:p@a/ HTTP/1.1")),
        (Target, line("GET gopher://a/ HTTP/1.1")),
        (Connect, line("CONNECT a:443 HTTP/1.1")),
        (Version, line("GET / HTTP/2.0")),
        (Version, line("GET / HTTP/3.1")),
        (Version, line("GET / HTTP/0.9")),
        // What is another protocol is named
        (Http2, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\x12".to_vec()),
        (Tls, b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03".to_vec()),
        (ProxyHeader, b"PROXY TCP4 192.0.2.1 192.0.2.2 5 80\r\nGET / HTTP/1.1\r\n".to_vec()),
        (ProxyHeader, b"PROXY TCP6 ::1 ::1 5 80\r\n".to_vec()),
        (ProxyHeader, b"PROXY UNKNOWN\r\n".to_vec()),
        (ProxyHeader, b"PROXY UNKNOWN ff ff 5 80\r\n".to_vec()),
        (ProxyHeader, b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\x7f\0\0\x01".to_vec()),
        (RequestLine, b"\r\n\r\n\0\r\nQUIET\n".to_vec()),
        (RequestLine, b"PROXY TCP5 a b 5 80\r\n".to_vec()),
        // RFC 9112 §3.2: Host
        (HostMissing, get("X: y")),
        (HostMissing, b"GET http://a/ HTTP/1.1\r\n\r\n".to_vec()),
        (HostRepeated, get("Host: a\r\nHost: a")),
        (HostRepeated, get("Host: a\r\nX: y\r\nhost: b")),
        (HostRepeated, old("Host: a\r\nHost: b")),
        (HostInvalid, get("Host: a b")),
        (HostInvalid, get("Host: a, b")),
        (HostInvalid, get("Host: a/b")),
        (HostInvalid, get("Host: u@a")),
        (HostInvalid, get("Host: a:b")),
        (HostInvalid, get("Host: a:80:80")),
        (HostInvalid, get("Host: [::1")),
        (HostInvalid, get("Host: \u{e9}")),
        (HostInvalid, get("Host: http://a")),
        // RFC 9110 §10.1.1
        (Expectation, post("Content-Length: 5\r\nExpect: 200-maybe")),
        (Expectation, get("Host: a\r\nExpect: 100-continue, x")),
    ] {
        let text = String::from_utf8_lossy(&input).into_owned();
        assert_eq!(refusal_of(&input), Some(refusal), "{text:?}");
        assert_eq!(told(&input, Answer::AtEnd), [format!("refused {refusal:?}")], "{text:?}");
    }
}

#[test]
fn what_a_chunked_body_must_not_hold_is_refused() {
    for (body, refusal) in [
        ("5\nabcde\r\n0\r\n\r\n", Refusal::Chunk),
        ("-1\r\n\r\n", Refusal::Chunk),
        ("1\r\naX", Refusal::Chunk),
        ("0\r\nX: y\n\r\n\r\n", Refusal::Trailer),
        ("0\r\n X: y\r\n\r\n", Refusal::Trailer),
        ("0\r\nX : y\r\n\r\n", Refusal::Trailer),
        ("0\r\nX: \0\r\n\r\n", Refusal::Trailer),
        ("3e8\r\n", Refusal::BodyTooLarge),
    ] {
        let body = if body.starts_with("3e8") {
            format!("3e8\r\n{}\r\n1\r\nx", "x".repeat(1000))
        } else {
            body.into()
        };
        let input =
            format!("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n{body}");
        let told = told(input.as_bytes(), Answer::AtEnd);
        assert_eq!(told.last(), Some(&format!("refused {refusal:?}")), "{body:?}");
    }
}

#[test]
fn a_chunk_that_announces_too_much_is_refused_before_any_of_it_is_told() {
    let head = "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
    let input = format!("{head}2\r\nab\r\n3e7\r\n{}", "x".repeat(999));
    let whole = told(input.as_bytes(), Answer::AtEnd);
    assert_eq!(whole.last().map(String::as_str), Some("refused BodyTooLarge"));
    assert!(!whole.iter().any(|step| step.contains('x')), "{whole:?}");
}

#[test]
fn what_is_over_a_limit_is_refused() {
    let target = |len: usize| format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", "x".repeat(len - 1));
    let fields =
        |count: usize| format!("GET / HTTP/1.1\r\nHost: a\r\n{}\r\n", "X: y\r\n".repeat(count - 1));
    let head = |len: usize| {
        let empty = "GET / HTTP/1.1\r\nHost: a\r\nX: \r\n\r\n".len();
        format!("GET / HTTP/1.1\r\nHost: a\r\nX: {}\r\n\r\n", "x".repeat(len - empty))
    };
    for (input, refusal) in [
        (target(limits::TARGET_BYTES_MAX), None),
        (target(limits::TARGET_BYTES_MAX + 1), Some(Refusal::TargetTooLong)),
        (target(limits::HEAD_BYTES_MAX * 2), Some(Refusal::TargetTooLong)),
        (fields(limits::FIELD_COUNT_MAX), None),
        (fields(limits::FIELD_COUNT_MAX + 1), Some(Refusal::TooManyFields)),
        (head(limits::HEAD_BYTES_MAX), None),
        (head(limits::HEAD_BYTES_MAX + 1), Some(Refusal::HeadTooLarge)),
        (head(limits::HEAD_BYTES_MAX * 2), Some(Refusal::HeadTooLarge)),
        ("\r\n".repeat(4) + &target(1), None),
        ("\r\n".repeat(5) + &target(1), Some(Refusal::RequestLine)),
    ] {
        let refused =
            told(input.as_bytes(), Answer::AtEnd).iter().any(|told| told.starts_with("refused"));
        assert_eq!(refusal_of(input.as_bytes()), refusal);
        assert_eq!(refused, refusal.is_some());
    }
}
