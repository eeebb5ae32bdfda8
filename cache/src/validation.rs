//! Validators: answering a client's conditions from the cache, and asking the origin with ours (RFC
//! 9111 §4.3, RFC 9110 §13).

use proto::field::{date, list};

use crate::{
    coding::{Coding, Wanted},
    decision::Answer,
    entry::Entry,
    freshness::{date_field_ms, parse_date_ms},
    head::push_field,
    range::{self, ByteRange, Selection, Spec},
    request::{Conditions, FieldSource, Method, Request},
};

/// How a stored response that may be served answers a request; `None` if bytes that are wanted are
/// not there.
pub(crate) fn answer(entry: &Entry, request: &Request<'_>) -> Option<Answer> {
    let Conditions { if_none_match, if_modified_since, range, .. } = request.conditions;
    // Conditions are evaluated only where the answer would be 200 (RFC 9110 §13.2.1).
    if entry.status() != 200 || !matches!(request.method, Method::Get | Method::Head) {
        return Some(Answer::Full);
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
    if holds {
        return Some(Answer::NotModified);
    }
    // Ranges come last (RFC 9110 §13.2.2).
    let parts = if range.is_some() { selected_parts(entry, request) } else { Selection::Whole };
    match (parts, &entry.partial) {
        (Selection::Whole, None) => Some(Answer::Full),
        (Selection::Whole, Some(partial)) => {
            (request.method == Method::Head || partial.is_whole()).then_some(Answer::Full)
        }
        (Selection::Unsatisfiable, _) => Some(Answer::Unsatisfiable(entry.length().unwrap_or(0))),
        (Selection::Parts(parts), None) => Some(Answer::Parts(parts)),
        (Selection::Parts(parts), Some(partial)) => {
            let is_there = parts.iter().all(|&part| partial.missing(part).is_none());
            is_there.then_some(Answer::Parts(parts))
        }
    }
}

/// What a request with `Range` wants of a stored response.
fn selected_parts(entry: &Entry, request: &Request<'_>) -> Selection {
    let holds =
        request.conditions.if_range.is_none_or(|value| if_range_holds(value, entry, request));
    match (request.ranges(), entry.length()) {
        (Some(ranges), Some(length)) if holds => range::select(&ranges, length),
        _ => Selection::Whole,
    }
}

/// The bytes of a partial entry that a request wants and that are not there, as one range.
pub(crate) fn missing(entry: &Entry, request: &Request<'_>) -> Option<Spec> {
    let partial = entry.partial.as_ref()?;
    let wanted = match selected_parts(entry, request) {
        Selection::Parts(parts) => {
            let first = parts.iter().map(|part| part.first).min()?;
            ByteRange { first, last: parts.iter().map(|part| part.last).max()? }
        }
        Selection::Whole | Selection::Unsatisfiable => ByteRange::all(partial.length)?,
    };
    Some(Spec::of(partial.missing(wanted)?, partial.length))
}

/// `If-Range` against a stored response: strong comparison of entity tags, or the very same date
/// where that is a strong validator (RFC 9110 §13.1.5). A date is that of all codings: whoever may
/// have been given an encoded one gets the whole, or its parts would be joined with other bytes.
fn if_range_holds(value: &[u8], entry: &Entry, request: &Request<'_>) -> bool {
    if value.starts_with(b"\"") || value.starts_with(b"W/") {
        return strong_etag(entry).is_some_and(|etag| etag == value);
    }
    let may_be_encoded = entry.encodings().is_some()
        && Wanted::of(request.fields, &Coding::ALL).iter().next().is_some();
    !may_be_encoded
        && entry.get("Last-Modified").is_some_and(|modified| modified == value)
        && strong_modified_ms(entry, entry.times.response_at_ms).is_some()
}

/// An entity tag that stands for exactly these bytes.
fn strong_etag(fields: &dyn FieldSource) -> Option<&[u8]> {
    fields.get("ETag").filter(|etag| etag.starts_with(b"\""))
}

/// `Last-Modified` where it is so much older than `Date` that the bytes cannot have changed twice
/// within its second (RFC 9110 §8.8.2.2).
fn strong_modified_ms(fields: &dyn FieldSource, now_ms: u64) -> Option<u64> {
    let modified_ms = date_field_ms(fields, "Last-Modified", now_ms)?;
    let date_ms = date_field_ms(fields, "Date", now_ms)?;
    (modified_ms + STRONG_AFTER_MS <= date_ms).then_some(modified_ms)
}

/// RFC 9110 asks for a second, its predecessor for a minute.
const STRONG_AFTER_MS: u64 = 60_000;

/// Whether both are known to be of the same representation, byte for byte, so that parts of it may
/// be joined (RFC 9110 §15.3.7.3).
pub(crate) fn same_representation(a: &dyn FieldSource, b: &dyn FieldSource, now_ms: u64) -> bool {
    match (a.get("ETag"), b.get("ETag")) {
        (Some(_), Some(_)) => strong_etag(a).is_some_and(|etag| strong_etag(b) == Some(etag)),
        (None, None) => strong_modified_ms(a, now_ms)
            .is_some_and(|modified_ms| strong_modified_ms(b, now_ms) == Some(modified_ms)),
        _ => false,
    }
}

/// Whether the origin can be asked for the rest of `entry`, and for nothing but the rest of it.
pub(crate) fn can_join(entry: &Entry) -> bool {
    same_representation(entry, entry, entry.times.response_at_ms)
}

/// Writes `Range`, and `If-Range` where it joins a stored part.
pub(crate) fn push_range(spec: Spec, stored: Option<&Entry>, out: &mut Vec<u8>) {
    push_field(out, b"Range", spec.to_value().as_bytes());
    let Some(entry) = stored.filter(|entry| can_join(entry)) else { return };
    if let Some(validator) = strong_etag(entry).or_else(|| entry.get("Last-Modified")) {
        push_field(out, b"If-Range", validator);
    }
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
    !entry.state().is_doubted() && (entry.get("ETag").is_some() || entry.last_modified_ms.is_some())
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

/// Whether a 304 that came for `entry` selects it for update (RFC 9111 §4.3.4): by a strong
/// validator that both have, or else by its weak ones, if those are the entry's.
///
/// One without any validator is taken to be of `entry`, though that has one: ours was the only one
/// that the origin was asked about, and many leave `Last-Modified` out of what says that it still
/// holds.
pub(crate) fn selects(entry: &Entry, fields: &dyn FieldSource, now_ms: u64) -> bool {
    let etags = (fields.get("ETag"), entry.get("ETag"));
    if let (Some(new), Some(stored)) = etags {
        if opaque(new) != opaque(stored) {
            return false;
        }
        if strong_etag(fields).is_some() && strong_etag(entry).is_some() {
            return true;
        }
    }
    let modified_ms = date_field_ms(fields, "Last-Modified", now_ms);
    let strong_ms = strong_modified_ms(fields, now_ms);
    if strong_ms.is_some() && strong_modified_ms(entry, now_ms) == strong_ms {
        return true;
    }
    if strong_ms.is_some() || strong_etag(fields).is_some() {
        return false;
    }
    match (etags, modified_ms) {
        ((Some(_), Some(_)), _) => true,
        (_, Some(modified_ms)) => entry.last_modified_ms == Some(modified_ms),
        ((new, _), None) => new.is_none(),
    }
}

/// Whether a 200 to HEAD tells of the same representation as `entry` (RFC 9111 §4.3.5): never what
/// was stored as another status.
pub(crate) fn head_matches(entry: &Entry, fields: &dyn FieldSource) -> bool {
    let same = |name| fields.get(name).is_none_or(|value| entry.get(name) == Some(value));
    let same_length = match (fields.get("Content-Length"), entry.length()) {
        (Some(told), Some(stored)) => *told == *stored.to_string().as_bytes(),
        _ => true,
    };
    entry.status() == 200 && same("ETag") && same("Last-Modified") && same_length
}
