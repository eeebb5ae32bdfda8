//! What the origin answers: the request's path and query, read as orders. Pure.
//!
//! `/bytes/<n>[/…]` is `n` foretellable bytes. Parameters of its query:
//!
//! | parameter | effect |
//! |---|---|
//! | `seed=N` | another body for the same path |
//! | `status=N` | that status |
//! | `delay_ms=N` | wait before the answer |
//! | `trickle_ms=N`, `trickle_bytes=N` | pieces of so many bytes (1,024) with a pause between |
//! | `abort_at=N` | reset the connection after so many bytes of content |
//! | `chunked=1`, `close=1` | framing by chunks; close behind the answer |
//! | `max_age=N`, `cache_control=T` | `Cache-Control` |
//! | `etag=T`, `last_modified=S` | validators (quoted; seconds since 1970); 304 on a match |
//! | `vary=T`, `key=T`, `type=T` | `Vary`, `Surrogate-Key`, `Content-Type` |
//! | `field=Name: value` | that field; may be repeated |

use jiff::Timestamp;

use crate::{
    limits::BODY_BYTES_MAX,
    origin::{
        body::{self, Body},
        request::Request,
    },
    workload::is_field,
};

/// An answer and how to send it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Answer {
    pub(super) head: Vec<u8>,
    pub(super) content: Content,
    /// Content goes out in chunks.
    pub(super) chunked: bool,
    pub(super) delay_ms: u64,
    pub(super) trickle: Option<Trickle>,
    /// Reset the connection when so much content has gone out.
    pub(super) abort_at: Option<u64>,
    /// End the connection behind the answer.
    pub(super) close: bool,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Content {
    /// None at all: HEAD, 304, 204.
    None,
    Foretold(Body),
    Text(String),
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Trickle {
    pub(super) bytes: usize,
    pub(super) pause_ms: u64,
}

impl Content {
    pub(super) fn length(&self) -> u64 {
        match self {
            Self::None => 0,
            Self::Foretold(body) => body.length,
            Self::Text(text) => text.len() as u64,
        }
    }

    /// Appends up to `count` bytes from `offset` on; how many.
    pub(super) fn append(&self, offset: u64, count: usize, out: &mut Vec<u8>) -> usize {
        match self {
            Self::None => 0,
            Self::Foretold(body) => body.append(offset, count, out),
            Self::Text(text) => {
                let from = usize::try_from(offset).unwrap_or(usize::MAX).min(text.len());
                let to = from.saturating_add(count).min(text.len());
                out.extend_from_slice(&text.as_bytes()[from..to]);
                to - from
            }
        }
    }
}

/// What a query asks for.
#[derive(Default)]
struct Orders {
    seed: u64,
    status: Option<u16>,
    delay_ms: u64,
    trickle_ms: Option<u64>,
    trickle_bytes: Option<usize>,
    abort_at: Option<u64>,
    chunked: bool,
    close: bool,
    etag: Option<String>,
    last_modified: Option<String>,
    fields: String,
    media_type: Option<String>,
}

impl Answer {
    /// To a request for `/bytes/…`, or the refusal of anything else.
    pub(super) fn to(request: &Request, wall_ms: u64) -> Self {
        let (path, query) = request.target.split_once('?').unwrap_or((request.target.as_str(), ""));
        let Some(length) = body::length_of(path) else {
            return Self::text(404, "text/plain", "no such path: try /bytes/1024\n", wall_ms);
        };
        match Orders::read(query) {
            Ok(_) if length > BODY_BYTES_MAX => Self::refuse("a shorter body", wall_ms),
            Ok(orders) => Self::foretold(request, path, length, orders, wall_ms),
            Err(expected) => Self::refuse(&expected, wall_ms),
        }
    }

    /// A short answer of our own.
    pub(super) fn text(status: u16, media_type: &str, text: &str, wall_ms: u64) -> Self {
        let fields = format!("Content-Type: {media_type}\r\nCache-Control: no-store\r\n");
        Self {
            head: head(status, wall_ms, &fields, Some(text.len() as u64), false),
            content: Content::Text(text.to_owned()),
            chunked: false,
            delay_ms: 0,
            trickle: None,
            abort_at: None,
            close: false,
        }
    }

    fn refuse(expected: &str, wall_ms: u64) -> Self {
        Self::text(400, "text/plain", &format!("expected {expected}\n"), wall_ms)
    }

    fn foretold(request: &Request, path: &str, length: u64, orders: Orders, wall_ms: u64) -> Self {
        let matched = match (&request.if_none_match, &orders.etag) {
            (Some(known), Some(etag)) => known == etag,
            (Some(_), None) => false,
            (None, _) => {
                orders.last_modified.is_some() && request.if_modified_since == orders.last_modified
            }
        };
        let status = orders.status.unwrap_or(if matched { 304 } else { 200 });
        let bodiless = matches!(status, 100..200 | 204 | 304);
        let mut fields = orders.fields;
        let media_type = orders.media_type.as_deref().unwrap_or("application/octet-stream");
        fields += &format!("Content-Type: {media_type}\r\n");
        for (name, value) in [("ETag", &orders.etag), ("Last-Modified", &orders.last_modified)] {
            if let Some(value) = value {
                fields += &format!("{name}: {value}\r\n");
            }
        }
        let framed = (!bodiless && !orders.chunked).then_some(length);
        if orders.chunked && !bodiless {
            fields += "Transfer-Encoding: chunked\r\n";
        }
        let none = bodiless || request.method == "HEAD";
        Self {
            head: head(status, wall_ms, &fields, framed, orders.close),
            content: if none {
                Content::None
            } else {
                Content::Foretold(Body::new(path, orders.seed, length))
            },
            chunked: orders.chunked && !none,
            delay_ms: orders.delay_ms,
            trickle: orders.trickle_ms.map(|pause_ms| Trickle {
                pause_ms,
                bytes: orders.trickle_bytes.unwrap_or(1_024).max(1),
            }),
            abort_at: orders.abort_at,
            close: orders.close || request.close,
        }
    }
}

impl Orders {
    fn read(query: &str) -> Result<Self, String> {
        let mut orders = Self::default();
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, "1"));
            let value = decode(value).ok_or_else(|| format!("visible text in {name}"))?;
            orders.take(name, value).ok_or_else(|| format!("another {name}, found {pair:?}"))?;
        }
        Ok(orders)
    }

    /// `None` for an unknown parameter or a value it cannot have.
    fn take(&mut self, name: &str, value: String) -> Option<()> {
        let flag = || (value == "0" || value == "1").then(|| value == "1");
        let mut field = |name: &str| self.fields += &format!("{name}: {value}\r\n");
        match name {
            // Makes objects out of a path; it changes nothing about the answer.
            "number" => return value.parse::<u64>().ok().map(|_| ()),
            "seed" => self.seed = value.parse().ok()?,
            "status" => {
                let valid = |status: &u16| (200..600).contains(status);
                self.status = Some(value.parse().ok().filter(valid)?);
            }
            "delay_ms" => self.delay_ms = value.parse().ok()?,
            "trickle_ms" => self.trickle_ms = Some(value.parse().ok()?),
            "trickle_bytes" => self.trickle_bytes = Some(value.parse().ok()?),
            "abort_at" => self.abort_at = Some(value.parse().ok()?),
            "chunked" => self.chunked = flag()?,
            "close" => self.close = flag()?,
            "etag" => self.etag = Some(format!("\"{value}\"")),
            "last_modified" => self.last_modified = Some(http_date(value.parse().ok()?)),
            "type" => self.media_type = Some(value),
            "max_age" => {
                let seconds: u64 = value.parse().ok()?;
                self.fields += &format!("Cache-Control: max-age={seconds}\r\n");
            }
            "cache_control" => field("Cache-Control"),
            "vary" => field("Vary"),
            "key" => field("Surrogate-Key"),
            "field" if is_field(&value) => self.fields += &format!("{value}\r\n"),
            _ => return None,
        }
        Some(())
    }
}

fn head(status: u16, wall_ms: u64, fields: &str, length: Option<u64>, close: bool) -> Vec<u8> {
    let now = http_date(i64::try_from(wall_ms / 1_000).unwrap_or(0));
    let mut head = format!("HTTP/1.1 {status} {}\r\nDate: {now}\r\n{fields}", reason(status));
    if let Some(length) = length {
        head += &format!("Content-Length: {length}\r\n");
    }
    if close {
        head += "Connection: close\r\n";
    }
    head += "\r\n";
    head.into_bytes()
}

fn http_date(unix_s: i64) -> String {
    let time = Timestamp::from_second(unix_s).unwrap_or(Timestamp::UNIX_EPOCH);
    time.strftime("%a, %d %b %Y %H:%M:%S GMT").to_string()
}

fn reason(status: u16) -> &'static str {
    match status {
        200 => "OK",
        304 => "Not Modified",
        400 => "Bad Request",
        404 => "Not Found",
        431 => "Request Header Fields Too Large",
        503 => "Service Unavailable",
        _ => "As Ordered",
    }
}

/// Undoes percent-encoding; `None` if what comes out is not visible ASCII and spaces.
fn decode(text: &str) -> Option<String> {
    let (mut out, mut bytes) = (String::new(), text.bytes());
    while let Some(byte) = bytes.next() {
        let byte = match byte {
            b'%' => {
                let mut digit = || char::from(bytes.next()?).to_digit(16);
                (digit()? * 16 + digit()?) as u8
            }
            b'+' => b' ',
            other => other,
        };
        if !(b' '..0x7f).contains(&byte) {
            return None;
        }
        out.push(char::from(byte));
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(target: &str, fields: &str) -> Answer {
        let text = format!("GET {target} HTTP/1.1\r\nHost: a\r\n{fields}\r\n");
        let (request, _) = Request::parse(text.as_bytes()).expect("fine").expect("whole");
        Answer::to(&request, 784_111_777_000)
    }

    fn head_of(answer: &Answer) -> String {
        String::from_utf8_lossy(&answer.head).into_owned()
    }

    #[test]
    fn the_query_orders_the_answer() {
        let answer = answer(
            "/bytes/10?max_age=60&etag=a&key=p%2F1+p2&delay_ms=5&trickle_ms=1&abort_at=3\
             &field=X-A:%20b",
            "",
        );
        let head = head_of(&answer);
        assert!(head.starts_with("HTTP/1.1 200 OK\r\nDate: Sun, 06 Nov 1994 08:49:37 GMT\r\n"));
        for line in [
            "Cache-Control: max-age=60",
            "ETag: \"a\"",
            "Surrogate-Key: p/1 p2",
            "X-A: b",
            "Content-Length: 10",
        ] {
            assert!(head.contains(&format!("\r\n{line}\r\n")), "{line} in {head}");
        }
        assert_eq!((answer.delay_ms, answer.abort_at), (5, Some(3)));
        assert_eq!(answer.trickle, Some(Trickle { bytes: 1_024, pause_ms: 1 }));
    }

    #[test]
    fn a_matching_validator_is_answered_304_without_content() {
        let matched = answer("/bytes/10?etag=a", "If-None-Match: \"a\"\r\n");
        assert!(head_of(&matched).starts_with("HTTP/1.1 304 "));
        assert_eq!(matched.content, Content::None);
        let other = answer("/bytes/10?etag=b", "If-None-Match: \"a\"\r\n");
        assert!(head_of(&other).starts_with("HTTP/1.1 200 "));
    }

    #[test]
    fn an_order_nobody_knows_is_refused_by_name() {
        for (target, status) in [
            ("/bytes/10?sede=1", 400),
            ("/bytes/10?status=99", 400),
            ("/bytes/10?field=none", 400),
            ("/bytes/10?vary=a%0d%0ab", 400),
            ("/other", 404),
        ] {
            let head = head_of(&answer(target, ""));
            assert!(head.starts_with(&format!("HTTP/1.1 {status} ")), "{target}: {head}");
        }
    }
}
