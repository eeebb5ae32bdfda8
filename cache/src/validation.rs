//! Validators: answering a client's conditions from the cache, and asking the origin with ours (RFC
//! 9111 §4.3, RFC 9110 §13).

use proto::field::{date, list};

use crate::{
    decision::Answer,
    entry::Entry,
    freshness::{date_field_ms, parse_date_ms},
    head::push_field,
    request::{Conditions, FieldSource, Method, Request},
};

/// Whether the client's own copy still holds, judged by a stored response that may be served.
pub(crate) fn answer(entry: &Entry, request: &Request<'_>) -> Answer {
    let Conditions { if_none_match, if_modified_since, .. } = request.conditions;
    // Conditions are evaluated only where the answer would be 200 (RFC 9110 §13.2.1).
    if entry.status() != 200 || !matches!(request.method, Method::Get | Method::Head) {
        return Answer::Full;
    }
    let holds = if if_none_match.is_some() {
        // If-Modified-Since is ignored then (RFC 9110 §13.1.3).
        let mut matched = false;
        request.fields.get_all("If-None-Match", &mut |line| {
            matched |= none_match_lists(line, entry.get("ETag"));
        });
        matched
    } else {
        if_modified_since.is_some_and(|value| not_modified_since(value, entry))
    };
    if holds { Answer::NotModified } else { Answer::Full }
}

/// Whether one line of `If-None-Match` names `etag`, compared weakly (RFC 9110 §13.1.2).
fn none_match_lists(line: &[u8], etag: Option<&[u8]>) -> bool {
    list::members(line)
        .any(|member| member == b"*" || etag.is_some_and(|etag| opaque(member) == opaque(etag)))
}

/// An entity tag without the mark of weakness.
fn opaque(etag: &[u8]) -> &[u8] {
    etag.strip_prefix(b"W/").unwrap_or(etag)
}

/// `If-Modified-Since` against `Last-Modified`, or else `Date`, or else the time of arrival (RFC
/// 9111 §4.3.2).
fn not_modified_since(value: &[u8], entry: &Entry) -> bool {
    let now_ms = entry.times.response_at_ms;
    let modified_ms =
        entry.last_modified_ms.or_else(|| date_field_ms(entry, "Date", now_ms)).unwrap_or(now_ms);
    parse_date_ms(value, now_ms).is_some_and(|since_ms| modified_ms <= since_ms)
}

/// Whether the origin can be asked if `entry` still holds.
pub(crate) fn can_validate(entry: &Entry) -> bool {
    entry.get("ETag").is_some() || entry.last_modified_ms.is_some()
}

/// Writes the conditions to ask the origin with: `If-None-Match` and `If-Modified-Since` (RFC 9111
/// §4.3.1).
pub(crate) fn push_conditions(entry: &Entry, out: &mut Vec<u8>) {
    if let Some(etag) = entry.get("ETag") {
        push_field(out, b"If-None-Match", etag);
    }
    if let Some(modified_ms) = entry.last_modified_ms {
        push_field(out, b"If-Modified-Since", &date::format((modified_ms / 1000) as i64));
    }
}

/// Whether the answer to HEAD tells of the same representation as `entry` (RFC 9111 §4.3.5).
pub(crate) fn head_matches(entry: &Entry, fields: &dyn FieldSource) -> bool {
    let same = |name| fields.get(name).is_none_or(|value| entry.get(name) == Some(value));
    let same_length = match (fields.get("Content-Length"), entry.body().length()) {
        (Some(told), Some(stored)) => *told == *stored.to_string().as_bytes(),
        _ => true,
    };
    same("ETag") && same("Last-Modified") && same_length
}
