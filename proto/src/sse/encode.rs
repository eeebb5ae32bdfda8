//! Event → bytes.
//!
//! An event for many streams is encoded once, its chunk framing included: exactly one HTTP chunk an
//! event, because clients that read chunk by chunk show an event only when its chunk is complete.

use crate::http1::{chunked, encode::decimal};

/// One event, or a bare `retry:` or `id:` when it has no data (those change the client's state and
/// dispatch nothing).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct EventText<'a> {
    /// `event:`; the client says `message` if absent.
    pub name: Option<&'a str>,
    /// `id:`; an empty one resets the client's last event id.
    pub id: Option<&'a str>,
    /// `data:`, one line for each of its own; CR, LF and CRLF separate lines and arrive as LF.
    pub data: Option<&'a str>,
    /// `retry:`, ms.
    pub retry_ms: Option<u64>,
}

/// A name or id that cannot be written: it holds CR, LF or (an id) NUL.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct NotAnEvent;

impl std::fmt::Display for NotAnEvent {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("an event's name or id holds a line break or NUL")
    }
}

impl std::error::Error for NotAnEvent {}

/// Appends an event as it stands in the stream. Nothing is written on an error.
pub fn event(out: &mut Vec<u8>, event: &EventText<'_>) -> Result<(), NotAnEvent> {
    let breaks = |text: &str| text.bytes().any(|b| matches!(b, b'\r' | b'\n' | 0));
    if event.name.is_some_and(breaks) || event.id.is_some_and(breaks) {
        return Err(NotAnEvent);
    }
    if let Some(name) = event.name {
        line(out, b"event: ", name.as_bytes());
    }
    if let Some(id) = event.id {
        line(out, b"id: ", id.as_bytes());
    }
    if let Some(retry_ms) = event.retry_ms {
        out.extend_from_slice(b"retry: ");
        decimal(out, retry_ms);
        out.push(b'\n');
    }
    if let Some(data) = event.data {
        let mut rest = data;
        while let Some(at) = rest.find(['\r', '\n']) {
            line(out, b"data: ", &rest.as_bytes()[..at]);
            let width = if rest[at..].starts_with("\r\n") { 2 } else { 1 };
            rest = &rest[at + width..];
        }
        line(out, b"data: ", rest.as_bytes());
    }
    out.push(b'\n');
    Ok(())
}

/// Appends an event as exactly one HTTP chunk. Nothing is written on an error.
pub fn event_chunk(out: &mut Vec<u8>, text: &EventText<'_>) -> Result<(), NotAnEvent> {
    let mut bytes = Vec::with_capacity(64 + text.data.map_or(0, str::len));
    event(&mut bytes, text)?;
    chunked::chunk(out, &bytes);
    Ok(())
}

/// Appends a comment: ignored by clients, keeps a connection busy. Its line breaks become spaces.
pub fn comment(out: &mut Vec<u8>, text: &str) {
    out.extend_from_slice(b": ");
    out.extend(text.bytes().map(|b| if matches!(b, b'\r' | b'\n') { b' ' } else { b }));
    out.extend_from_slice(b"\n\n");
}

fn line(out: &mut Vec<u8>, field: &'static [u8], value: &[u8]) {
    out.extend_from_slice(field);
    out.extend_from_slice(value);
    out.push(b'\n');
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(text: &EventText<'_>) -> Result<String, NotAnEvent> {
        let mut out = Vec::new();
        event(&mut out, text)?;
        Ok(String::from_utf8(out).expect("text in, text out"))
    }

    #[test]
    fn an_event_has_its_fields_and_ends_in_an_empty_line() {
        let full = EventText {
            name: Some("incident"),
            id: Some("a:1"),
            data: Some("{}"),
            retry_ms: Some(2000),
        };
        assert_eq!(
            text(&full).as_deref(),
            Ok("event: incident\nid: a:1\nretry: 2000\ndata: {}\n\n")
        );
        assert_eq!(
            text(&EventText { retry_ms: Some(0), ..Default::default() }).as_deref(),
            Ok("retry: 0\n\n")
        );
        assert_eq!(
            text(&EventText { data: Some(""), ..Default::default() }).as_deref(),
            Ok("data: \n\n")
        );
    }

    #[test]
    fn every_kind_of_line_break_in_data_makes_a_line() {
        let lines = EventText { data: Some("a\nb\rc\r\nd\n"), ..Default::default() };
        assert_eq!(text(&lines).as_deref(), Ok("data: a\ndata: b\ndata: c\ndata: d\ndata: \n\n"));
    }

    #[test]
    fn a_name_or_id_cannot_make_a_line() {
        for bad in ["a\nb", "a\rb", "a\0b"] {
            assert_eq!(text(&EventText { name: Some(bad), ..Default::default() }), Err(NotAnEvent));
            assert_eq!(text(&EventText { id: Some(bad), ..Default::default() }), Err(NotAnEvent));
        }
        let mut out = Vec::new();
        comment(&mut out, "a\ndata: b");
        assert_eq!(out, b": a data: b\n\n");
    }

    #[test]
    fn an_event_is_exactly_one_chunk() {
        let mut out = Vec::new();
        let small = EventText { data: Some("abcdefghij"), ..Default::default() };
        event_chunk(&mut out, &small).expect("no breaks");
        assert_eq!(out, b"12\r\ndata: abcdefghij\n\n\r\n");
    }
}
