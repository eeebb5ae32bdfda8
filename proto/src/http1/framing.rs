//! How long a body is (RFC 9112 §6), and whether the connection lasts (§9.3).
//!
//! Requests are judged without mercy: whatever two parsers could read differently is refused,
//! because the next request would begin at different places for them. Responses are judged by the
//! letter of §6.3, where only identical repeated lengths are forgiven. A message is framed anew for
//! the next hop, so nothing of what was received here travels on.

use super::{
    client::ResponseError,
    head::{Fields, RequestHead, ResponseHead, Version},
    refusal::Refusal,
};
use crate::field::{list, name::Known};

/// How the end of a body is known.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum BodyFraming {
    /// There is none.
    None,
    /// This many bytes; 0 is a body that is there and empty.
    Length(u64),
    /// Chunks, the last one empty, and perhaps trailers.
    Chunked,
    /// All until the connection ends. Only responses.
    UntilClose,
}

impl BodyFraming {
    /// Whether content is to come. `Length(0)` has none.
    pub const fn has_content(self) -> bool {
        !matches!(self, Self::None | Self::Length(0))
    }
}

/// The framing of a request's body.
#[inline(always)]
pub fn request_framing(head: &RequestHead<'_>) -> Result<BodyFraming, Refusal> {
    if !head.fields.has_any(&[Known::ContentLength, Known::TransferEncoding]) {
        return Ok(BodyFraming::None);
    }
    framing_by_fields(head)
}

fn framing_by_fields(head: &RequestHead<'_>) -> Result<BodyFraming, Refusal> {
    if head.fields.has(Known::TransferEncoding) {
        return match (head.version, head.fields.has(Known::ContentLength), coding(&head.fields)) {
            (Version::Http10, ..) => Err(Refusal::CodingInHttp10),
            (_, true, _) => Err(Refusal::LengthAndCoding),
            (_, _, Coding::Chunked) => Ok(BodyFraming::Chunked),
            (_, _, Coding::Unknown) => Err(Refusal::CodingUnknown),
            (_, _, Coding::NotChunked) => Err(Refusal::CodingNotChunked),
        };
    }
    let value = head.fields.known(Known::ContentLength).unwrap_or_default();
    if head.fields.is_repeated(Known::ContentLength) || value.contains(&b',') {
        return Err(Refusal::LengthRepeated);
    }
    content_length(value).map(BodyFraming::Length).ok_or(Refusal::LengthInvalid)
}

/// The framing of a response's body. `to_head`: whether the request's method was HEAD.
pub fn response_framing(
    head: &ResponseHead<'_>,
    to_head: bool,
) -> Result<BodyFraming, ResponseError> {
    if has_no_body(head.status, to_head) {
        return Ok(BodyFraming::None);
    }
    if head.fields.has(Known::TransferEncoding) {
        let clear = head.version == Version::Http11 && !head.fields.has(Known::ContentLength);
        // No `TE` is ever sent upstream, so nothing but chunked may come.
        return match coding(&head.fields) {
            Coding::Chunked if clear => Ok(BodyFraming::Chunked),
            _ => Err(ResponseError::Framing),
        };
    }
    let mut length = None;
    // §6.3: a list of identical lengths counts as one. An empty member is no length.
    for value in head.fields.known_all(Known::ContentLength) {
        for member in value.split(|&b| b == b',') {
            let value = content_length(list::trim(member)).ok_or(ResponseError::Framing)?;
            if *length.get_or_insert(value) != value {
                return Err(ResponseError::Framing);
            }
        }
    }
    Ok(length.map_or(BodyFraming::UntilClose, BodyFraming::Length))
}

/// Whether a response has no body whatever its fields say (RFC 9110 §6.4.1).
pub const fn has_no_body(status: u16, to_head: bool) -> bool {
    to_head || matches!(status, 100..=199 | 204 | 304)
}

/// Whether the sender of this head keeps the connection (RFC 9112 §9.3), as far as its fields say.
#[inline(always)]
pub fn keeps_alive(version: Version, fields: &Fields<'_>) -> bool {
    let Some(first) = fields.known(Known::Connection) else { return version == Version::Http11 };
    // What nearly all clients say, if anything; reading it as a list costs 15 ns.
    let usual = first == b"keep-alive" && !fields.is_repeated(Known::Connection);
    usual || keeps_alive_by_list(version, fields)
}

fn keeps_alive_by_list(version: Version, fields: &Fields<'_>) -> bool {
    match version {
        Version::Http11 => !fields.has_token(Known::Connection, "close"),
        Version::Http10 => {
            fields.has_token(Known::Connection, "keep-alive")
                && !fields.has_token(Known::Connection, "close")
        }
    }
}

/// What `Expect` asks for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Expectation {
    /// Nothing.
    None,
    /// An interim response before the body is sent.
    Continue,
}

/// What a request expects (RFC 9110 §10.1.1). From HTTP/1.0, or without content to come, it is
/// ignored.
#[inline(always)]
pub fn expectation(head: &RequestHead<'_>, framing: BodyFraming) -> Result<Expectation, Refusal> {
    if !head.fields.has(Known::Expect) || head.version == Version::Http10 {
        return Ok(Expectation::None);
    }
    expectation_by_field(head, framing)
}

fn expectation_by_field(
    head: &RequestHead<'_>,
    framing: BodyFraming,
) -> Result<Expectation, Refusal> {
    let all_known = head.fields.known_all(Known::Expect).all(|value| {
        list::members(value).all(|member| member.eq_ignore_ascii_case(b"100-continue"))
    });
    match (all_known, framing.has_content()) {
        (false, _) => Err(Refusal::Expectation),
        (true, true) => Ok(Expectation::Continue),
        (true, false) => Ok(Expectation::None),
    }
}

/// What the transfer codings of a message come to.
enum Coding {
    /// Exactly one `chunked`.
    Chunked,
    /// Others, and one `chunked` at the end: a length could be found, the content not be read.
    Unknown,
    /// No `chunked` at the end, or more than one, or an empty member.
    NotChunked,
}

fn coding(fields: &Fields<'_>) -> Coding {
    let (mut chunked, mut others, mut bad) = (0, 0, false);
    for value in fields.known_all(Known::TransferEncoding) {
        for member in value.split(|&b| b == b',').map(list::trim) {
            // Anything behind `chunked`, a second one included, hides where the body ends.
            bad |= chunked > 0 || member.is_empty();
            if member.eq_ignore_ascii_case(b"chunked") {
                chunked += 1;
            } else {
                others += 1;
            }
        }
    }
    match (bad, chunked, others) {
        (false, 1, 0) => Coding::Chunked,
        (false, 1, _) => Coding::Unknown,
        _ => Coding::NotChunked,
    }
}

/// Digits only, and countable.
fn content_length(value: &[u8]) -> Option<u64> {
    if value.is_empty() || !value.iter().all(u8::is_ascii_digit) {
        return None;
    }
    value
        .iter()
        .try_fold(0u64, |length, b| length.checked_mul(10)?.checked_add(u64::from(b - b'0')))
}
